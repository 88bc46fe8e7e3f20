"""The unit files and what comes with them: systemd's own tools find nothing wrong, and daemon and units agree."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from otpbridge.config import SYSTEM_RELAY_CERTIFICATE
from otpbridge.daemon import sockets

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
DEBCONF = """
Config: answers
Templates: templates

Name: answers
Driver: File
Filename: {folder}/answers.dat

Name: templates
Driver: File
Filename: {folder}/templates.dat
"""
UNITS = ("otpbridged.service", "otpbridged.socket", "otpbridged-admin.socket", "otpbridged-relays.socket")


class Unit(configparser.RawConfigParser):
    """A unit file. Of a setting that stands several times, the last one."""

    def __init__(self, path):
        super().__init__(strict=False, comment_prefixes=("#",), delimiters=("=",), interpolation=None)
        self.optionxform = str
        self.read_string(path.read_text())


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def needs():
    def found(tool):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
        return tool

    return found


@pytest.fixture
def service():
    return Unit(SYSTEMD / "otpbridged.service")["Service"]


@pytest.fixture
def units(tmp_path):
    """Copies of the units whose program exists here."""
    for name in UNITS:
        text = (SYSTEMD / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/otpbridge/bin/otpbridged", "/bin/true"))
    return [tmp_path / name for name in UNITS]


def test_systemd_finds_nothing_wrong_with_the_units(units, needs):
    """`systemd-analyze verify` says nothing: no setting is misspelt, no dependency is missing."""
    done = run(needs("systemd-analyze"), "verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_misspelt_setting_would_be_found(units, needs):
    """The check above can fail."""
    units[0].write_text(units[0].read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert "ProtectSytem" in run(needs("systemd-analyze"), "verify", "--man=no", *units).stderr


def test_systemd_finds_nothing_wrong_with_the_examples(units, needs):
    """The drop-ins that the documentation offers fit the service."""
    folder = units[0].with_name(f"{units[0].name}.d")
    shutil.copytree(SYSTEMD / "examples", folder)
    assert list(folder.glob("*.conf"))
    done = run(needs("systemd-analyze"), "verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    with (folder / "key-file.conf").open("a") as drop_in:
        drop_in.write("ReadWritePahts=/srv\n")
    assert "ReadWritePahts" in run("systemd-analyze", "verify", "--man=no", *units).stderr


def test_the_daemon_is_exposed_to_little(units, needs):
    """`systemd-analyze security` rates the service at 0.5 or less; a unit without a sandbox has above 9."""
    done = run(needs("systemd-analyze"), "security", "--offline=true", "--no-pager", units[0])
    assert float(re.search(r"exposure level for otpbridged.service: ([\d.]+)", done.stdout)[1]) <= 0.5, done.stdout


def test_security_keys_open_little_more(units, needs):
    """With the drop-in for local keys the daemon may open hidraw devices and no other; rated at 0.8 or less."""
    folder = units[0].with_name(f"{units[0].name}.d")
    folder.mkdir()
    shutil.copy(SYSTEMD / "examples/local-keys.conf", folder)
    done = run(needs("systemd-analyze"), "security", "--offline=true", "--no-pager", units[0])
    rated = float(re.search(r"exposure level for otpbridged.service: ([\d.]+)", done.stdout)[1])
    assert 0.5 < rated <= 0.8, done.stdout
    drop_in = Unit(SYSTEMD / "examples/local-keys.conf")["Service"]
    assert drop_in["DeviceAllow"] == "char-hidraw rw"
    assert drop_in["ProtectProc"] == "default", "without it nobody can tell who is at the machine"
    assert Unit(SYSTEMD / "otpbridged.service")["Service"]["DevicePolicy"] == "closed"


def test_a_centre_has_no_network_of_its_own(units, needs, service):
    """A drop-in hands it a socket to be asked on, under the name that the daemon knows; nothing else is opened."""
    shutil.copytree(SYSTEMD / "examples", units[0].with_name(f"{units[0].name}.d"), ignore=_but("centre.conf"))
    done = run(needs("systemd-analyze"), "security", "--offline=true", "--no-pager", units[0])
    assert float(re.search(r"exposure level for otpbridged.service: ([\d.]+)", done.stdout)[1]) <= 0.5, done.stdout
    socket = Unit(SYSTEMD / "otpbridged-relays.socket")["Socket"]
    assert (socket["FileDescriptorName"], socket["Service"]) == ("relays", "otpbridged.service")
    drop_in = Unit(SYSTEMD / "examples/centre.conf")
    assert set(drop_in["Service"]) == {"Sockets"}
    assert drop_in["Service"]["Sockets"] == "otpbridged-relays.socket"
    assert (service["PrivateNetwork"], service["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")


def test_a_relay_opens_the_network_and_no_more(units, needs):
    """With its drop-in the daemon may connect; rated at 1.6 or less, and its certificate stays with root."""
    shutil.copytree(SYSTEMD / "examples", units[0].with_name(f"{units[0].name}.d"), ignore=_but("relay.conf"))
    done = run(needs("systemd-analyze"), "security", "--offline=true", "--no-pager", units[0])
    rated = float(re.search(r"exposure level for otpbridged.service: ([\d.]+)", done.stdout)[1])
    assert 0.5 < rated <= 1.6, done.stdout
    drop_in = Unit(SYSTEMD / "examples/relay.conf")["Service"]
    assert drop_in["LoadCredential"] == f"relay.pem:{SYSTEM_RELAY_CERTIFICATE}"
    assert set(drop_in) == {"LoadCredential", "PrivateNetwork", "RestrictAddressFamilies", "IPAddressAllow"}


def _but(kept):
    return lambda _folder, names: [name for name in names if name != kept]


def test_the_udev_rule_gives_security_keys_alone(service):
    """Each rule is for hidraw devices that systemd knows as security keys, and gives them to the daemon's group."""
    lines = (SYSTEMD / "70-otpbridge.rules").read_text().splitlines()
    rules = [re.findall(r'([A-Z]+)(?:\{(\w+)\})?(==|=)"([^"]*)"', line) for line in lines if not line.startswith("#")]
    assert rules
    for rule in rules:
        assert ("SUBSYSTEM", "", "==", "hidraw") in rule
        assert {name for key, name, *_ in rule if key == "ENV"} < {"ID_FIDO_TOKEN", "ID_SECURITY_TOKEN"}
        assert [value for key, _, sign, value in rule if (key, sign) == ("GROUP", "=")] == [service["Group"]]
        assert [value for key, _, sign, value in rule if (key, sign) == ("MODE", "=")] == ["0660"]


def test_callers_are_seen_by_their_own_uid(service):
    """No user namespace: in one, every caller but root would look like uid 65534."""
    assert service["PrivateUsers"] == "no"
    assert service.get("DynamicUser", "no") == "no"


def test_the_sockets_outlive_the_service(service):
    """No RuntimeDirectory: systemd would remove it, and the sockets in it, whenever the service stops."""
    assert "RuntimeDirectory" not in service


def test_the_service_uses_the_folders_of_the_system(service):
    """Store and sockets are where the command line and the PAM module look for them."""
    assert service["ExecStart"].split()[1:] == ["--state-dir", "/var/lib/otpbridge", "--run-dir", "/run/otpbridge"]
    assert service["StateDirectory"] == "otpbridge"
    assert service["StateDirectoryMode"] == "0700"


def test_a_failing_daemon_leaves_no_seeds_behind(service):
    """No core dump and no swap: memory that holds seeds does not reach the disk."""
    assert service["LimitCORE"] == service["MemorySwapMax"] == "0"


@pytest.mark.parametrize(
    ("unit", "name", "mode"),
    [
        ("otpbridged.socket", "verify", sockets.VERIFY_MODE),
        ("otpbridged-admin.socket", "admin", sockets.ADMIN_MODE),
    ],
)
def test_a_socket_is_the_one_that_the_daemon_would_make(unit, name, mode, service):
    """Same place, mode and room for a burst, and the name by which the daemon knows it; the service gets both."""
    socket = Unit(SYSTEMD / unit)["Socket"]
    assert socket["ListenStream"] == f"/run/otpbridge/{name}"
    assert socket["FileDescriptorName"] == name
    assert int(socket["SocketMode"], 8) == mode
    assert int(socket["Backlog"]) == sockets.BACKLOG
    assert socket["DirectoryMode"] == "0755"
    assert socket["Service"] == "otpbridged.service"
    assert unit in service["Sockets"].split()


def test_only_the_admin_group_gets_the_admin_socket():
    """The admin socket belongs to root and the group that the sysusers file makes."""
    socket = Unit(SYSTEMD / "otpbridged-admin.socket")["Socket"]
    assert (socket["SocketUser"], socket["SocketGroup"]) == ("root", "otpbridge-admin")
    assert re.search(r"^g otpbridge-admin ", (SYSTEMD / "otpbridge.sysusers.conf").read_text(), re.MULTILINE)


def test_the_service_user_is_made(needs, service, tmp_path):
    """systemd-sysusers makes the user of the service, who cannot log in, and the admin group."""
    (tmp_path / "etc").mkdir()
    done = run(needs("systemd-sysusers"), f"--root={tmp_path}", SYSTEMD / "otpbridge.sysusers.conf")
    assert done.returncode == 0, done.stderr
    users = (tmp_path / "etc/passwd").read_text()
    assert re.search(rf"^{service['User']}:.*:/var/lib/otpbridge:/usr/sbin/nologin$", users, re.MULTILINE)
    assert re.search(r"^otpbridge-admin:", (tmp_path / "etc/group").read_text(), re.MULTILINE)


def test_the_folders_are_made_for_root_alone_to_write(needs, tmp_path):
    """systemd-tmpfiles makes the folder of the sockets as the PAM module demands it: not for others to write."""
    done = run(needs("systemd-tmpfiles"), "--create", f"--root={tmp_path}", SYSTEMD / "otpbridge.tmpfiles.conf")
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip("needs root: gives folders to root")
    assert done.returncode == 0, done.stderr
    for folder in ("run/otpbridge", "etc/otpbridge"):
        about = (tmp_path / folder).stat()
        assert (about.st_mode & 0o7777, about.st_uid) == (0o755, 0)


# --- pam-auth-update ---


@pytest.fixture
def pam(tmp_path):
    """`pam-auth-update` on a root folder of its own; returns the lines of a common file without comments."""
    tool = shutil.which("pam-auth-update", path="/usr/sbin:/usr/bin")
    if tool is None:
        pytest.skip("pam-auth-update is not installed: not a Debian")
    for folder in ("etc/pam.d", "var/lib/pam"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copytree("/usr/share/pam", tmp_path / "usr/share/pam")
    configs = tmp_path / "usr/share/pam-configs"
    configs.mkdir()
    shutil.copy("/usr/share/pam-configs/unix", configs)
    shutil.copy(SYSTEMD / "pam-configs/otpbridge", configs)
    debconf = tmp_path / "debconf.conf"
    debconf.write_text(DEBCONF.format(folder=tmp_path))

    def update(*arguments):
        done = subprocess.run(
            [tool, "--root", tmp_path, *arguments],
            env={
                "DEBIAN_FRONTEND": "noninteractive",
                "DEBCONF_SYSTEMRC": str(debconf),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

        def lines(kind):
            text = (tmp_path / f"etc/pam.d/common-{kind}").read_text()
            return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]

        return lines

    return update


def test_installing_the_profile_changes_no_login(pam):
    """`Default: no`: an admin has to choose the profile before any login asks for a code."""
    lines = pam("--package", "--force")
    assert ["auth", "required", "pam_permit.so"] in lines("auth")
    assert "pam_otpbridge.so" not in str([*lines("auth"), *lines("account")])


def test_the_profile_asks_after_the_password_and_in_the_account_phase(pam):
    """Chosen, it comes behind the password, where a wrong password has ended the login already."""
    pam("--package", "--force")
    lines = pam("--enable", "otpbridge")
    assert lines("auth")[-1] == ["auth", "required", "pam_otpbridge.so"]
    assert ["auth", "requisite", "pam_deny.so"] in lines("auth")[:-1]
    # nullok: cron and systemd run the account phase for root and for service accounts, which have no token.
    assert lines("account")[-1] == ["account", "required", "pam_otpbridge.so", "nullok"]
