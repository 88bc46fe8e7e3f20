"""The audit log for a limited time, as an admin has it: archives, and what shows that they are whole."""

from __future__ import annotations

import gzip
import json
import re
import time

import pytest
from daemon_rig import Daemon, command, private_folder, provision
from storerig import run, running

from otpbridge.model import AuditEvent
from otpbridge.wire import messages

pytestmark = pytest.mark.system

OLD = 700
DAY = 86_400


@pytest.fixture
def folder():
    """The folder of a daemon whose log has old entries."""
    with private_folder() as folder:

        async def fill():
            async with running(folder / "state") as rig:
                at = int((time.time() - 100 * DAY) * 1000)

                def work(transaction):
                    for number in range(OLD):
                        transaction.audit(AuditEvent("verify", user=f'user "{number}"', detail={"number": number}))

                await rig.change(work, at)

        (folder / "state").mkdir(mode=0o700)
        run(fill())
        yield folder


def verify(daemon, *files, code=0, anchor=None, offline=False):
    """What `otpbridge audit verify` says of files."""
    options = [*(["--anchor", anchor] if anchor else []), *(["--offline"] if offline else [])]
    done = command("audit", "verify", *options, *files, run_dir=daemon.run_dir)
    assert done.returncode == code, done.stderr
    return (done.stdout + done.stderr).decode()


def test_the_daemon_keeps_what_it_is_told_to_keep(folder):
    """By itself at the start; the archive is whole, the log goes on where it ends, and a backup knows where."""
    with Daemon(folder, config="[audit]\nkeep_days = 30\n") as daemon:
        daemon.wait_for(f"audit entries 1 to {OLD} are in ")
        (archive,) = (folder / "state" / "audit").glob("audit-*")
        assert archive.stat().st_mode & 0o777 == 0o600
        lines = [json.loads(line) for line in gzip.decompress(archive.read_bytes()).splitlines()]
        assert [line["entry"]["detail"]["number"] for line in lines[1:-1]] == list(range(OLD))
        assert daemon.audit()[0].sequence == OLD + 1
        assert f"the first {OLD} are in archives alone" in verify(daemon)
        said = verify(daemon, archive)
        assert f"Entries 1 to {OLD} are intact" in said
        assert "no file here holds" not in said
        copy = folder / "copy"
        assert command("backup", copy, run_dir=daemon.run_dir).returncode == 0
    restored = command(
        "restore", copy, "--state-dir", daemon.state_dir, "--config", daemon.config_file, run_dir=daemon.run_dir
    )
    assert restored.returncode == 0, restored.stderr
    with daemon:
        daemon.check_audit()
        assert daemon.audit()[0].sequence == OLD + 1


def test_an_admin_exports_checks_and_cuts(folder):
    """Export takes nothing out; what was done to a file is found; archives and an export make up the whole log."""
    with Daemon(folder) as daemon:
        provision(daemon, ["alice"])
        whole, plain = folder / "whole.jsonl.gz", folder / "plain.jsonl"
        for file in (whole, plain):
            assert command("audit", "export", file, run_dir=daemon.run_dir).returncode == 0
        assert gzip.decompress(whole.read_bytes()) == plain.read_bytes()
        text = plain.read_text().splitlines(keepends=True)
        anchor = re.search(r"\d+:[0-9a-f]{64}", verify(daemon))[0]
        assert "are intact" in verify(daemon, whole, anchor=anchor)

        done = command("--json", "audit", "prune", "--before", "90d", run_dir=daemon.run_dir)
        (cut,) = json.loads(done.stdout)
        assert (cut["first"], cut["last"]) == (1, OLD)
        assert command("audit", "prune", "--before", "1h", run_dir=daemon.run_dir).returncode == 2
        rest = folder / "rest.jsonl"
        assert command("audit", "export", rest, run_dir=daemon.run_dir).returncode == 0
        assert "no file here holds" not in verify(daemon, rest, cut["file"], whole, anchor=anchor)
        assert "was archived and cut off" in verify(daemon, code=3, anchor=f"5:{'ab' * 32}")
        assert "entry 5 is not the one of the anchor" in verify(daemon, cut["file"], code=1, anchor=f"5:{'ab' * 32}")

        for spoilt, fault in (
            ([*text[:9], text[9].replace("verify", "Verify"), *text[10:]], "entry 9 was changed"),
            (text[:9] + text[10:], "entry 9 is missing"),
            (text[:9], "cut short behind entry 8"),
        ):
            plain.write_text("".join(spoilt))
            assert fault in verify(daemon, plain, code=1)
        plain.write_text("".join([text[0], *text[1:9], '{"end":8}\n']))
        assert f"entries 9 to {OLD} are in none of the files" in verify(daemon, plain, rest, code=1)
        assert "9 to" not in verify(daemon, plain)
        assert "was not checked" in verify(daemon, plain, offline=True)


def test_a_log_that_cannot_be_archived_stays_and_is_spoken_of(folder):
    """Where the folder cannot be written, nothing is cut and `status` warns."""
    (folder / "state" / "audit").write_text("in the way")
    with Daemon(folder, config="[audit]\nkeep_days = 30\n") as daemon:
        daemon.wait_for("old audit entries cannot be archived")
        with daemon.admin() as admin:
            assert any("cannot be archived" in warning for warning in admin.call(messages.Status()).warnings)
        assert daemon.audit()[0].sequence == 1
