"""The daemon's numbers: exact, bounded, without names, for those who may have them, and over HTTP."""

from __future__ import annotations

import http.client
import os
import re
import select
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from daemon_rig import (
    CLI,
    SECONDS,
    Daemon,
    as_user,
    command,
    need_root,
    plain_environment,
    plain_user,
    private_folder,
    provision,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from relay_rig import Fleet

from otpbridge.daemon.journal import IDS
from otpbridge.model import Context, Verdict
from otpbridge.wire import messages

pytestmark = pytest.mark.system

PLACES = 32
PATIENT = "[throttle]\nlimit = 1000\nsource_limit = 10000\n"


def samples(page, read=read_text):
    """Every number by name and labels."""
    found = {}
    for family in read(page):
        for each in family.samples:
            key = (each.name, *sorted(each.labels.items()))
            assert key not in found, key
            found[key] = each.value
    return found


def printed(daemon):
    done = command("metrics", run_dir=daemon.run_dir)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def numbers(daemon):
    return samples(printed(daemon))


def of(found, name, **labels):
    """The sum of the numbers of a name that have these labels."""
    wanted = set(labels.items())
    return sum(value for key, value in found.items() if key[0] == f"otpbridge_{name}" and wanted <= set(key[1:]))


def test_what_is_counted_is_what_was_done():
    """Right, wrong and used codes, from eight connections at once, over calls and conversations: each counts once."""
    with private_folder() as folder, Daemon(folder, config=PATIENT) as daemon:
        users = [f"u{number}" for number in range(8)]
        keys = provision(daemon, users)

        def log_in(user):
            with daemon.client() as client:
                code = keys[user].code()
                context = Context(service="sshd", rhost="192.0.2.7")
                assert client.verify(user, code, context=context).verdict is Verdict.SUCCESS
                for wrong in keys[user].wrong(3):
                    client.verify(user, wrong, context=context)
                client.verify(user, code)
                begun = client.call(messages.Begin(user=user))
                client.call(messages.Continue(session=begun.session, responses=(keys[user].wrong()[0],)))
                client.call(messages.Account(user=user))

        work = [threading.Thread(target=log_in, args=(user,)) for user in users]
        for each in work:
            each.start()
        for each in work:
            each.join()
        with daemon.client() as client:
            client.verify("nobody", "123456")
            open_now = client.call(messages.Begin(user=users[0]))
            found = numbers(daemon)
            client.call(messages.Cancel(session=open_now.session))
        assert of(found, "verifications_total", stack="default", service="sshd", kind="totp", verdict="success") == 8
        assert of(found, "verifications_total", service="sshd", verdict="auth_err") == 24
        assert of(found, "verifications_total") == 8 * (1 + 3 + 1 + 1) + 1
        reasons = {"accepted": 8, "wrong_code": 32, "code_used": 8, "unknown_user": 1}
        for reason, count in reasons.items():
            assert of(found, "verification_reasons_total", reason=reason) == count
        assert of(found, "verification_reasons_total") == sum(reasons.values())
        assert of(found, "verification_seconds_count") == 49
        assert of(found, "account_checks_total", service="none", verdict="success") == 8
        assert of(found, "calls_total", method="org.otpbridge.Verify.Check") == 8 * 5 + 1
        assert of(found, "sessions") == 1
        assert of(found, "backoff_missed", kind="user") == 9
        assert of(found, "backoff_missed", kind="source") == 1
        assert of(found, "store_up") == of(found, "up") == 1
        assert of(found, "audit_sequence") == len(daemon.audit())
        assert of(numbers(daemon), "sessions") == 0


def test_a_reload_forgets_no_number():
    """Counters only grow while the daemon runs, whatever the configuration becomes."""
    with private_folder() as folder, Daemon(folder) as daemon, daemon.client() as client:
        client.verify("nobody", "123456")
        daemon.reload()
        client.verify("nobody", "123456")
        assert of(numbers(daemon), "verifications_total") == 2


def test_back_off_that_holds_is_seen():
    """Whom back-off holds now is counted by kind."""
    with private_folder() as folder, Daemon(folder, config="[throttle]\nlimit = 1\nfirst_wait = 600\n") as daemon:
        keys = provision(daemon, ["alice"])
        with daemon.client() as client:
            for wrong in keys["alice"].wrong(2):
                client.verify("alice", wrong)
        found = numbers(daemon)
        assert of(found, "backoff_held", kind="user") == 1
        assert of(found, "backoff_held", kind="source") == 0
        assert of(found, "verifications_total", verdict="maxtries") == 1


def test_what_callers_say_is_in_no_label_and_in_no_number_of_its_own():
    """After a flood of odd names, services and methods, there are as many numbers as after one of each."""
    with private_folder() as folder, Daemon(folder, config=PATIENT) as daemon:
        keys = provision(daemon, ["planted-user"])
        seed = keys["planted-user"]

        def ask(number):
            context = Context(service=f'planted-service{number}"\n', rhost=f"planted-host{number}", tty="planted-tty")
            with daemon.client() as client:
                client.verify(f"planted-user{number}", "13371337", context=context)
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(os.fspath(daemon.verify_socket))
                plain.settimeout(SECONDS)
                for method in (f"org.otpbridge.Verify.Planted{number}", f"org.planted{number}.X"):
                    plain.sendall(b'{"method":"%s"}\0' % method.encode())
                    plain.recv(4096)

        ask(0)
        with daemon.client() as client:
            client.verify("planted-user", seed.code())
        before = printed(daemon)
        for number in range(1, 40):
            ask(number)
        after = printed(daemon)
        assert samples(before).keys() == samples(after).keys()
        assert of(samples(after), "verifications_total", service="other") == 40
        for page in (before, after):
            for planted in ("planted", "13371337", seed.code(), seed.uri, seed.seed.hex()):
                assert planted.lower() not in page.lower()


def test_only_admins_and_callers_with_the_right_may_read():
    """A caller with any other right is refused; one with this right needs no client, and has no other."""
    need_root()
    watcher, portal, anyone = (plain_user(place) for place in range(3))
    config = (
        f'[[callers]]\nuser = {watcher.pw_uid}\nmay = ["metrics"]\n'
        f'[[callers]]\nuser = {portal.pw_uid}\nclients = ["local"]\nmay = ["verify", "enrol", "manage", "notices"]\n'
    )
    with private_folder() as folder, Daemon(folder, config=config) as daemon:

        def read_as(user, *words):
            return command(*words, run_dir=daemon.run_dir, prefix=as_user(user.pw_uid, user.pw_gid))

        assert read_as(watcher, "metrics").stdout.startswith(b"# HELP otpbridge_up")
        for user in (portal, anyone):
            done = read_as(user, "metrics")
            assert (done.returncode, done.stdout) == (4, b"")
        assert read_as(watcher, "verify", "root", "--code-stdin").returncode != 0
        assert of(numbers(daemon), "call_errors_total", method="org.otpbridge.Metrics.Read") == 2


def test_a_file_for_the_textfile_collector_is_whole_and_says_when_the_daemon_is_away():
    """Readable by all, with nothing beside it; with the daemon gone it says so."""
    with private_folder() as folder:
        path = folder / "otpbridge.prom"
        with Daemon(folder) as daemon:
            assert command("metrics", "--output", path, run_dir=daemon.run_dir).returncode == 0
            assert of(samples(path.read_text()), "up") == 1
            assert path.stat().st_mode & 0o777 == 0o644
        assert command("metrics", "--output", path, run_dir=daemon.run_dir).returncode == 3
        assert path.read_text().splitlines()[-1] == "otpbridge_up 0"
        assert not list(folder.glob(".*"))


def test_a_relay_counts_its_calls_and_says_which_centres_are_there():
    """Verdicts are counted at the centre; the relay has what it knows of itself, and sees a centre go."""
    with private_folder() as folder, Fleet(folder, config=PATIENT) as fleet:
        keys = provision(fleet.centre, ["alice"])
        with fleet.relay("web1") as relay:
            with relay.client() as client:
                assert client.verify("alice", keys["alice"].code()).verdict is Verdict.SUCCESS
            found = numbers(relay)
            assert of(found, "centre_up", centre=fleet.address) == 1
            assert of(found, "calls_total", method="org.otpbridge.Verify.Check") == 1
            assert of(found, "relay_certificate_expires_timestamp_seconds") > time.time()
            assert not [key for key in found if key[0].startswith("otpbridge_verification")]
            at_centre = numbers(fleet.centre)
            assert of(at_centre, "verifications_total", verdict="success") == 1
            assert of(at_centre, "connections_opened_total", socket="relays") >= 1
            fleet.centre.stop()
            with relay.client() as client:
                client.verify("alice", "000000")
            assert of(numbers(relay), "centre_up", centre=fleet.address) == 0


DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_and_the_rules_name_what_there_is():
    """No alert waits for a number that never comes, and the page names each number."""
    with private_folder() as folder, Daemon(folder) as daemon:
        page = printed(daemon)
    there = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    rules = (DOCS / "examples/otpbridge.rules.yml").read_text()
    used = {name.removesuffix("_bucket") for name in re.findall(r"otpbridge_[a-z_]+", rules)}
    assert used <= there
    alerts = re.findall(r"alert: (\w+)", rules)
    told = (DOCS / "monitoring.md").read_text()
    assert re.findall(r"^\| `(Otpbridge\w+)` \|", told, re.MULTILINE) == alerts
    table = told.partition("(`otpbridge_…`)")[2].partition("## The journal")[0]
    named = {
        f"otpbridge_{name}" for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in row.split("`")
    }
    assert {name for name in there if not name.startswith("otpbridge_process_")} <= named
    assert all(f"`{event}`: " in told and number in told for event, number in IDS.items())


# --- over HTTP ---


@contextmanager
def exporting(daemon, *options):
    """An exporter on a free port of the loopback; its address."""
    process = subprocess.Popen(
        [*CLI, "exporter", "--listen", "127.0.0.1:0", "--run-dir", os.fspath(daemon.run_dir), *options],
        stderr=subprocess.PIPE,
        text=True,
        env=plain_environment(),
    )
    try:
        line = process.stderr.readline()
        yield line.split()[-1].removeprefix("http://").removesuffix("/metrics\n").removesuffix("/metrics")
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def fetched(address, method="GET", path="/metrics", **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def test_prometheus_scrapes_what_the_command_prints():
    """The same numbers, in the format that is asked for; nothing else is served, and by no other method."""
    with private_folder() as folder, Daemon(folder) as daemon, exporting(daemon) as address:
        with daemon.client() as client:
            client.verify("nobody", "123456")
        status, headers, page = fetched(address)
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        found = samples(page)
        assert of(found, "up") == of(found, "verifications_total") == 1
        assert {key[0] for key in found} == {key[0] for key in numbers(daemon)}
        _, headers, page = fetched(address, Accept="application/openmetrics-text; version=1.0.0")
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert of(samples(page, read_openmetrics), "verifications_total") == 1
        status, headers, page = fetched(address, "HEAD")
        assert (status, page) == (200, "")
        assert int(headers["Content-Length"]) > 1000
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            status, headers, _ = fetched(address, method)
            assert (status, headers["Allow"]) == (405, "GET, HEAD")
        for path in ("/", "/metrics/", "/../metrics", "//metrics", "/metrics%00"):
            assert fetched(address, path=path)[0] == 404


def test_a_proxy_on_this_machine_needs_no_port():
    """On a Unix socket there is the same page, also after an exporter that died has left its socket there."""
    with private_folder() as folder, Daemon(folder) as daemon:
        path = folder / "metrics"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(os.fspath(path))
        with exporting(daemon, "--socket", path), socket.socket(socket.AF_UNIX) as proxy:
            proxy.settimeout(SECONDS)
            proxy.connect(os.fspath(path))
            proxy.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: proxy.recv(65536), b""))
        assert of(samples(answer.partition(b"\r\n\r\n")[2].decode()), "up") == 1


def is_up(address):
    return samples(fetched(address)[2])["otpbridge_up",]


def test_a_daemon_that_is_away_is_a_number_until_it_is_back():
    """The exporter outlives the daemon, and needs no restart."""
    with private_folder() as folder:
        daemon = Daemon(folder)
        with exporting(daemon) as address:
            assert is_up(address) == 0
            with daemon:
                while not is_up(address):
                    pass
            while is_up(address):
                pass
            assert fetched(address)[0] == 200


def test_connections_that_say_nothing_keep_nobody_out_for_long_and_cost_little():
    """More silent ones than there are places, half a request, and one without an end: then a scrape gets through."""
    with private_folder() as folder, Daemon(folder) as daemon, exporting(daemon) as address:
        idle = [silent(address) for _ in range(PLACES)]
        over = [silent(address) for _ in range(3)]
        for each in over:
            assert ended(each)
        assert not select.select(idle, [], [], 0)[0]
        for each in (*idle, *over):
            each.close()
        while True:
            with suppress(ConnectionError, http.client.HTTPException):
                assert fetched(address)[0] == 200
                break
        with silent(address) as endless:
            assert ended(endless, b"x" * 65536)
        assert fetched(address)[0] == 200


def silent(address):
    """A connection that has said half of a request."""
    host, _, port = address.partition(":")
    made = socket.create_connection((host, int(port)), SECONDS)
    with suppress(ConnectionError):
        made.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
    return made


def ended(connection, more=b""):
    """Whether the other side ends a connection, however much more is said on it."""
    try:
        while more:
            connection.sendall(more)
        return connection.recv(1) == b""
    except ConnectionError:
        return True


# --- the journal ---


def test_the_journal_hears_of_each_login_and_of_no_secret():
    """With standard error at the journal, a start and each verdict are entries; codes and seeds are in none."""
    need_root()
    with private_folder() as folder:
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        (folder / "journal").mkdir()
        heard.bind(os.fspath(folder / "journal" / "socket"))
        heard.settimeout(SECONDS)
        script = (
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && "
            f"mount --bind {folder}/journal /run/systemd/journal && "
            'export JOURNAL_STREAM="$(stat -Lc %d:%i /proc/self/fd/2)" && exec "$0" "$@"'
        )
        daemon = Daemon(folder, prefix=("unshare", "-m", "sh", "-c", script)).launch()
        try:
            entries = [heard.recv(1 << 16).decode()]
            while "is ready" not in entries[-1]:
                entries.append(heard.recv(1 << 16).decode())
            keys = provision(daemon, ["alice"])
            code = keys["alice"].code()
            with daemon.client() as client:
                client.verify("alice", "planted-answer")
                client.verify("alice", code)
                client.verify("eve\nOTPBRIDGE_VERDICT=success", "123456")
            while "OTPBRIDGE_USER=eve" not in entries[-1]:
                entries.append(heard.recv(1 << 16).decode())
            assert daemon.stop() == 0
        finally:
            daemon.kill()
            heard.close()
        assert daemon.log == ""
        told = [entry for entry in entries if "OTPBRIDGE_VERDICT" in entry]
        assert ["\nOTPBRIDGE_VERDICT=success\n" in entry for entry in told] == [False, True, False]
        assert all(entry.count("\nOTPBRIDGE_VERDICT=") == 1 for entry in told)
        whole = "".join(entries)
        for planted in ("planted-answer", code, keys["alice"].uri, keys["alice"].seed.hex()):
            assert planted not in whole
