"""`otpbridge doctor`: what it finds of an installation in folders of its own, and of a real daemon."""

from __future__ import annotations

import grp
import json
import os
import signal
import socket
import subprocess

import pytest
from daemon_rig import Daemon, as_user, command, need_root, plain_user, private_folder

from otpbridge.cli.doctor import daemon as daemon_checks
from otpbridge.cli.doctor import logins, store, system
from otpbridge.cli.doctor.findings import Level, Places, printed

OURS = "pam_otpbridge.so"


@pytest.fixture
def folder():
    with private_folder() as folder:
        yield folder


@pytest.fixture
def places(folder):
    """An installation without a fault: folders, files, a module, a key elsewhere, a socket that nobody serves."""
    for name in ("run", "state", "pam.d", "security"):
        (folder / name).mkdir(mode=0o755)
    (folder / "state").chmod(0o700)
    for name, mode in (("state/otpbridge.db", 0o600), ("master.key", 0o400), (f"security/{OURS}", 0o644)):
        (folder / name).touch()
        (folder / name).chmod(mode)
    (folder / "otpbridge.toml").write_text(f'[key]\nfile = "{folder}/master.key"\n')
    (folder / "pam.d/sshd").write_text(f"auth required {OURS}\naccount required {OURS}\n")
    for name, mode in (("verify", 0o666), ("admin", 0o660)):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.fspath(folder / "run" / name))
        (folder / "run" / name).chmod(mode)
    return Places(
        folder / "run",
        folder / "state",
        folder / "otpbridge.toml",
        pam_dir=folder / "pam.d",
        module_dirs=(folder / "security",),
        credentials=folder / "credstore",
        systemd=folder / "no-systemd",
        selinux=folder / "enforce",
        apparmor=folder / "profiles",
        pcscd=folder / "pcscd.comm",
    )


CHECKS = (
    daemon_checks.run_folder,
    daemon_checks.sockets,
    store.settings,
    store.folder,
    store.key,
    logins.pam_files,
    logins.module,
)


def bad(places, *checks):
    """Level, words and mending of all that is not well."""
    found = [each for check in checks or CHECKS for each in check(places)]
    return [(each.level, each.said, each.mend) for each in found if each.level is not Level.OK]


def test_an_installation_without_a_fault_is_well(places):
    """Nothing is complained of."""
    assert bad(places) == []


MODES = [
    ("run", 0o777, "fail", "chmod 0755 {}"),
    ("run/verify", 0o600, "warn", "chmod 0666 {}"),
    ("run/admin", 0o666, "fail", "chmod 0660 {}"),
    ("state", 0o777, "fail", "chmod 0700 {}"),
    ("state", 0o755, "warn", "chmod 0700 {}"),
    ("state/otpbridge.db", 0o644, "fail", "chmod 0600 {}"),
    ("master.key", 0o440, "fail", "chmod 0400 {}"),
    (f"security/{OURS}", 0o666, "fail", "chown root:root {0} && chmod 0644 {0}"),
]


@pytest.mark.parametrize("row", MODES, ids=[f"{row[0]}-{row[1]:o}" for row in MODES])
def test_a_wrong_mode_is_told_and_mended_by_what_is_said(places, row):
    """The command that is printed can be typed as it stands, and then nothing is wrong any more."""
    name, mode, level, mend = row
    path = places.run_dir.parent / name
    path.chmod(mode)
    ((found, _, said),) = bad(places)
    assert (found, said) == (level, mend.format(path))
    subprocess.run(said, shell=True, check=True)
    assert bad(places) == []


@pytest.mark.parametrize("name", ["run", "run/verify", "state", "master.key", f"security/{OURS}"])
def test_what_belongs_to_others_is_told(places, folder, name):
    """Who owns it can change it: no login believes it, and the daemon refuses it."""
    need_root()
    os.chown(folder / name, plain_user().pw_uid, -1)
    found = bad(places)
    assert "fail" in {level for level, _, _ in found}
    assert all(mend for _, _, mend in found)


def test_an_admin_socket_of_another_group_is_told(places, folder):
    """Its members are admins; the group that the configuration names may be."""
    need_root()
    group = grp.getgrgid(plain_user().pw_gid)
    os.chown(folder / "run/admin", -1, group.gr_gid)
    ((level, words, mend),) = bad(places)
    assert (level, mend) == (Level.WARN, f"chgrp otpbridge-admin {folder}/run/admin")
    assert group.gr_name in words
    (folder / "otpbridge.toml").write_text(f'admin_group = "{group.gr_name}"\n[key]\nfile = "{folder}/master.key"\n')
    assert bad(places) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run/verify", "is not there"),
        ("run/admin", "is not there"),
        ("master.key", "no token of the store opens"),
        (f"security/{OURS}", "every login that names it is refused"),
    ],
)
def test_what_is_missing_is_told(places, folder, name, said):
    """Sockets, key and module."""
    (folder / name).unlink()
    ((level, words, mend),) = bad(places)
    assert level is Level.FAIL
    assert said in words
    assert mend


def test_a_configuration_that_is_not_taken_is_told_with_its_line(places, folder):
    """And one whose stack lets in whoever comes."""
    (folder / "otpbridge.toml").write_text("[polcy]\n")
    ((level, words, _),) = bad(places, store.settings)
    assert level is Level.FAIL
    assert "polcy" in words
    (folder / "otpbridge.toml").write_text('[stacks.default]\nrules = ["sufficient permit"]\n')
    assert {level for level, _, _ in bad(places, store.settings)} == {Level.WARN}


def test_other_files_in_pam_d_are_no_services(places, folder):
    """What package managers and editors leave there, and what is no file."""
    for name in ("sshd~", "sshd.dpkg-old", "sshd.rpmnew"):
        (folder / "pam.d" / name).write_text(f"auth optional {OURS} nonsense\n")
    os.mkfifo(folder / "pam.d/pipe")
    assert bad(places, logins.pam_files) == []


UNIT = "Id={}\nLoadState={}\nActiveState={}\nUnitFileState={}\n"


@pytest.mark.parametrize(
    ("said", "level", "mend"),
    [
        (("otpbridged.socket", "loaded", "active", "enabled"), Level.OK, ""),
        (("otpbridged.service", "loaded", "inactive", "static"), Level.OK, ""),
        (("otpbridged.socket", "loaded", "active", "disabled"), Level.WARN, "systemctl enable otpbridged.socket"),
        (
            ("otpbridged.socket", "loaded", "inactive", "enabled"),
            Level.FAIL,
            "systemctl enable --now otpbridged.socket",
        ),
        (("otpbridged.service", "loaded", "failed", "static"), Level.FAIL, "journalctl -u otpbridged.service"),
        (("otpbridged.socket", "not-found", "inactive", ""), Level.FAIL, "install -m 0644 systemd/otpbridged.socket"),
    ],
)
def test_what_systemd_says_of_a_unit(said, level, mend):
    """A socket must listen and come back after a restart; the service may wait for its first call."""
    (found,) = system.judge_unit(UNIT.format(*said))
    assert found.level is level
    assert found.mend.startswith(mend)


def test_what_confines_logins_is_told(places, folder):
    """AppArmor's enforcing profiles of programs that ask for a code; not others, nor those that only complain."""
    places.apparmor.write_text("/usr/sbin/sshd (enforce)\n/usr/sbin/cupsd (enforce)\nsudo (complain)\n")
    ((level, words, mend),) = bad(places, system.apparmor)
    assert (level, "/usr/sbin/sshd" in words) == (Level.WARN, True)
    assert f"{folder}/run/{{verify,admin}} rw," in mend
    places.selinux.write_text("1")
    assert {mend.partition(";")[0] for _, _, mend in bad(places, system.selinux)} == {
        f"restorecon -Rv {folder}/run",
        f"restorecon -Rv {folder}/security/{OURS}",
    }


def test_the_clock_is_asked_for():
    """Whatever the kernel of this machine says, it is one answer, without any right."""
    (found,) = system.clock(Places(run_dir=None, state_dir=None))
    assert found.level in {Level.OK, Level.WARN, Level.LEFT_OUT}


def test_a_program_that_hangs_is_not_waited_for(monkeypatch):
    """What does not end in its time is said, and the other checks go on."""
    monkeypatch.setattr("otpbridge.cli.doctor.findings._SECONDS", 0.2)
    assert "did not end" in printed("sleep", "60").complaint
    assert "No such file" in printed("no-such-program").complaint
    assert printed("false").complaint


# --- the command, and a daemon ---


def doctor(daemon, *more, prefix=(), code=0):
    """What the command says as JSON, by check."""
    arguments = ("--json", "doctor", "--state-dir", daemon.state_dir, "--config", daemon.config_file, *more)
    done = command(*arguments, run_dir=daemon.run_dir, prefix=prefix)
    assert done.returncode == code, done.stdout.decode() + done.stderr.decode()
    found = {}
    for each in json.loads(done.stdout):
        found.setdefault(each["check"], []).append(each)
    return found


def levels(found, check):
    return {each["level"] for each in found[check]}


@pytest.fixture
def daemon(folder):
    with Daemon(folder, config="") as rig:
        yield rig


@pytest.mark.system
def test_a_daemon_that_runs_is_well_but_for_its_key(daemon):
    """All as made by the first start: the key beside the store is warned of, and nothing fails."""
    found = doctor(daemon)
    for check in ("run folder", "sockets", "daemon", "configuration", "state folder", "master key", "disk"):
        assert levels(found, check) == {"ok"}, found[check]
    assert levels(found, "status") == {"ok", "warn"}
    (warning,) = [each for each in found["status"] if each["level"] == "warn"]
    assert "beside the store" in warning["said"]
    assert warning["mend"]
    assert levels(found, "audit log") == {"left out"}
    key = (daemon.state_dir / "master.key").read_text().split()[-1]
    said = command("doctor", "--state-dir", daemon.state_dir, run_dir=daemon.run_dir).stdout.decode()
    assert key not in said
    assert key not in json.dumps(found)
    assert "ok        daemon " in said


@pytest.mark.system
def test_a_daemon_that_is_stopped_or_gone_is_told(daemon):
    """One that hangs is not waited for; one that was killed leaves sockets that nobody serves."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        found = doctor(daemon, code=1)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert levels(found, "daemon") == {"fail"}
    assert levels(found, "status") == {"left out"}
    daemon.kill()
    found = doctor(daemon, code=1)
    assert levels(found, "daemon") == {"fail"}
    assert all(each["mend"] for each in found["daemon"])


@pytest.mark.system
def test_an_ordinary_user_hears_what_was_left_out(daemon):
    """Less is looked at, which is said, and is no fault."""
    need_root()
    user = plain_user()
    found = doctor(daemon, prefix=as_user(user.pw_uid, user.pw_gid))
    assert levels(found, "daemon") == {"ok"}
    for check in ("status", "state folder", "master key"):
        assert levels(found, check) == {"left out"}
        assert all("root" in each["said"] for each in found[check])


@pytest.mark.system
def test_a_daemon_of_another_version_is_told(daemon, monkeypatch):
    """After an upgrade the old daemon still runs until it is restarted."""
    monkeypatch.setattr(daemon_checks, "__version__", "99.0")
    (found,) = daemon_checks.answers(Places(daemon.run_dir, daemon.state_dir))
    assert found.level is Level.WARN
    assert "99.0" in found.said
    assert found.mend


@pytest.mark.system
def test_the_audit_log_is_checked_from_an_anchor(folder):
    """A store that was put back to an older state is found by an anchor noted before."""
    daemon = Daemon(folder, config="")
    with daemon:
        pass
    older = (daemon.state_dir / "otpbridge.db").read_bytes()
    with daemon:
        assert command("user", "add", "alice", run_dir=daemon.run_dir).returncode == 0
        anchor = json.loads(command("--json", "status", run_dir=daemon.run_dir).stdout)["audit_anchor"]
        assert levels(doctor(daemon, "--anchor", anchor), "audit log") == {"ok"}
    for rest in daemon.state_dir.glob("otpbridge.db-*"):
        rest.unlink()
    (daemon.state_dir / "otpbridge.db").write_bytes(older)
    with daemon:
        assert levels(doctor(daemon, "--anchor", anchor, code=1), "audit log") == {"fail"}
