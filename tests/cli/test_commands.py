"""Each command: what it asks of the daemon, and what it shows."""

from __future__ import annotations

import os
import re
import stat
import sys

import pytest
from fake_daemon import error
from samples import BASE32, token, user

from otpbridge.model import Enforcement, NoticeStyle, State, Verdict
from otpbridge.wire.messages import (
    AddUser,
    AuditTail,
    AuditTailReply,
    AuditVerify,
    AuditVerifyReply,
    Backup,
    BackupReply,
    Check,
    CheckReply,
    ChooseEnforcement,
    Confirm,
    ConfirmReply,
    DisableToken,
    Empty,
    EnableToken,
    Entry,
    ExemptUser,
    Import,
    ImportReply,
    LineError,
    ListTokens,
    ListUsers,
    NoticeFields,
    Remove,
    RemoveToken,
    RemoveUser,
    ResetReply,
    ResetUser,
    Resync,
    ResyncReply,
    RotateKey,
    RotateKeyReply,
    SetEnforcement,
    ShowToken,
    ShowUser,
    ShowUserReply,
    Status,
    StatusReply,
    TokenListReply,
    TokenReply,
    Tokens,
    TokensReply,
    UserReply,
    UsersReply,
)


def asked(daemon):
    """The requests so far as (type, fields that were set)."""
    return [(type(request), messages_of(request)) for request in daemon.requests()]


def messages_of(request):
    import msgspec

    return {name: value for name, value in msgspec.structs.asdict(request).items() if value is not None}


# --- user ---


def test_user_add_adds_a_user(daemon, otpbridge):
    """`user add` asks for the user and says what comes next."""
    daemon.answers[AddUser] = UserReply(user=user(name="bob", client="acme"))
    said = otpbridge("user", "add", "bob", "--client", "acme")
    assert (said.code, said.err) == (0, "")
    assert "Added bob of client acme" in said.out
    assert asked(daemon) == [(AddUser, {"user": "bob", "client": "acme"})]
    assert otpbridge("--json", "user", "add", "bob").json["name"] == "bob"


def test_user_show_has_the_user_and_the_tokens(daemon, otpbridge):
    """`user show` shows what is required, wrong codes and tokens."""
    shown = user(misses=5, refused=2, retry_after=8, enforcement=Enforcement.REQUIRED)
    daemon.answers[ShowUser] = ShowUserReply(user=shown, tokens=(token(),))
    said = otpbridge("user", "show", "alice")
    for words in ("alice", "required", "5 in a row", "8 s", "t1", "SHA1, 6 digits, 30 s", "Example:alice"):
        assert words in said.out
    value = otpbridge("--json", "user", "show", "alice").json
    assert (value["retry_after"], value["tokens"][0]["id"]) == (8, "t1")


def test_user_remove_and_reset(daemon, otpbridge):
    """`user remove` deletes, `user reset` says how many tokens were revoked and that nothing is asked now."""
    daemon.answers[RemoveUser] = Empty()
    daemon.answers[ResetUser] = ResetReply(revoked=2)
    assert otpbridge("user", "remove", "alice").code == 0
    said = otpbridge("user", "reset", "alice")
    assert said.code == 0
    assert "2 tokens were revoked" in said.out
    assert "without a second factor" in said.out
    assert otpbridge("--json", "user", "reset", "alice").json == {"user": "alice", "client": "local", "revoked": 2}
    assert asked(daemon)[:2] == [(RemoveUser, {"user": "alice"}), (ResetUser, {"user": "alice"})]


def test_user_require_and_optional_set_the_enforcement(daemon, otpbridge):
    """`user require` and `user optional` set what is asked; --force and --reason are passed on when they are said."""
    daemon.answers[SetEnforcement] = lambda request: UserReply(
        user=user(enforcement=request.enforcement or Enforcement.OPTIONAL)
    )
    assert "is required for alice" in otpbridge("user", "require", "alice").out
    assert otpbridge("user", "require", "alice", "--force").code == 0
    optional = otpbridge("--json", "user", "optional", "alice", "--reason", "key broken")
    assert optional.json["enforcement"] == "optional"
    assert otpbridge("user", "inherit", "alice", "--reason", "new key").code == 0
    assert asked(daemon) == [
        (SetEnforcement, {"user": "alice", "enforcement": Enforcement.REQUIRED}),
        (SetEnforcement, {"user": "alice", "enforcement": Enforcement.REQUIRED, "force": True}),
        (SetEnforcement, {"user": "alice", "enforcement": Enforcement.OPTIONAL, "reason": "key broken"}),
        (SetEnforcement, {"user": "alice", "reason": "new key"}),
    ]


def test_a_user_without_a_token_is_not_locked_out(daemon, otpbridge):
    """`user require` passes the daemon's refusal on, with the way forward."""
    daemon.answers[SetEnforcement] = error("NotConfirmed", user="alice", client="local")
    said = otpbridge("user", "require", "alice")
    assert said.code == 1
    assert "enroll" in said.err


def test_lists_show_every_page_under_one_heading(daemon, otpbridge):
    """`user list` and `token list` show all pages; with --json one array."""
    names = [f"user{number}" for number in range(7)]
    daemon.answers[ListUsers] = [
        UsersReply(users=tuple(map_user(part))) for part in (names[:3], names[3:6], names[6:])
    ]
    said = otpbridge("user", "list")
    lines = said.out.splitlines()
    assert lines[0].split()[:2] == ["USER", "CLIENT"]
    assert [line.split()[0] for line in lines[1:]] == names
    assert [each["name"] for each in otpbridge("--json", "user", "list").json] == names
    daemon.answers[ListTokens] = [TokenListReply(tokens=(token(id="a"),)), TokenListReply(tokens=(token(id="b"),))]
    assert [line.split()[0] for line in otpbridge("token", "list").out.splitlines()] == ["TOKEN", "a", "b"]
    assert [each["id"] for each in otpbridge("--json", "token", "list", "alice", "--all").json] == ["a", "b"]
    assert asked(daemon)[-1] == (ListTokens, {"user": "alice", "all": True})


def test_a_token_names_the_keys_that_hold_it(daemon, otpbridge):
    """Their serial numbers are printed on them: whoever has a key in the hand finds its token, also with --json."""
    held = token(serials=("12345678", "23456789"))
    daemon.answers[ShowToken] = TokenReply(token=held)
    (line,) = [line for line in otpbridge("token", "show", "t1").out.splitlines() if line.startswith("On keys")]
    assert line.split("  ")[-1].strip() == "12345678, 23456789"
    assert otpbridge("--json", "token", "show", "t1").json["serials"] == ["12345678", "23456789"]
    daemon.answers[ListTokens] = [TokenListReply(tokens=(held, token()))]
    listed = otpbridge("--json", "token", "list").json
    assert [each["serials"] for each in listed] == [["12345678", "23456789"], None]


def map_user(names):
    return [user(name=name) for name in names]


def test_an_empty_list_is_empty(daemon, otpbridge):
    """Without users nothing is shown, and [] with --json."""
    daemon.answers[ListUsers] = [UsersReply(users=())]
    assert otpbridge("user", "list").out == ""
    assert otpbridge("--json", "user", "list").json == []


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), (" 7d ", 604_800)]
)
def test_times_are_written_as_people_say_them(daemon, otpbridge, written, seconds):
    """Seconds, minutes, hours and days reach the daemon as seconds, with the reason."""
    daemon.answers[ExemptUser] = UserReply(user=user(exempt_until=1_900_000_000))
    assert otpbridge("user", "exempt", "alice", "--for", written, "--reason", "key at home").code == 0
    assert asked(daemon) == [(ExemptUser, {"user": "alice", "seconds": seconds, "reason": "key at home"})]


# --- token ---


def test_tokens_are_disabled_enabled_and_removed(daemon, otpbridge):
    """Each change names the token and what it is now."""
    daemon.answers[DisableToken] = TokenReply(token=token(state=State.DISABLED))
    daemon.answers[EnableToken] = TokenReply(token=token())
    daemon.answers[RemoveToken] = TokenReply(token=token(state=State.REVOKED))
    assert "is disabled" in otpbridge("token", "disable", "t1").out
    assert "active again" in otpbridge("token", "enable", "t1").out
    assert "is revoked" in otpbridge("token", "remove", "t1").out
    assert otpbridge("--json", "token", "disable", "t1").json["state"] == "disabled"
    assert asked(daemon)[:3] == [(kind, {"token": "t1"}) for kind in (DisableToken, EnableToken, RemoveToken)]


@pytest.mark.parametrize(("arguments", "stdin"), [(["123456"], ""), ([], "123456\n")], ids=["argument", "stdin"])
def test_token_confirm_takes_a_code(daemon, otpbridge, arguments, stdin):
    """The code may be an argument or a line of standard input; what it replaces is told."""
    daemon.answers[Confirm] = ConfirmReply(confirmed=True, state=State.ACTIVE, replaced=("t0",))
    said = otpbridge("token", "confirm", "t1", *arguments, stdin=stdin)
    assert said.code == 0
    assert "t1 is active" in said.out
    assert "replaces token t0" in said.out
    assert asked(daemon) == [(Confirm, {"token": "t1", "code": "123456"})]


def test_token_confirm_names_the_fault(daemon, otpbridge):
    """A refused code exits with 1 and the daemon's hint; with --json fault and hint are fields."""
    daemon.answers[Confirm] = ConfirmReply(
        confirmed=False, state=State.PENDING, replaced=(), fault="algorithm", hint="Your app ignores SHA256"
    )
    said = otpbridge("token", "confirm", "t1", "123456")
    assert (said.code, said.out) == (1, "")
    assert "Your app ignores SHA256" in said.err
    value = otpbridge("--json", "token", "confirm", "t1", "123456").json
    assert (value["confirmed"], value["fault"], value["token"]) == (False, "algorithm", "t1")


def test_token_resync_takes_two_codes(daemon, otpbridge):
    """Two codes in a row put a token back in step; else exit code 1 says what to do."""
    daemon.answers[Resync] = lambda request: ResyncReply(resynced=request.second == "222222")
    assert otpbridge("token", "resync", "t1", "111111", "222222").code == 0
    said = otpbridge("token", "resync", "t1", "111111", "333333")
    assert (said.code, "in a row" in said.err) == (1, True)
    assert otpbridge("--json", "token", "resync", "t1", "1", "2").json == {"token": "t1", "resynced": False}


# --- for oneself, by the verify socket ---


def test_users_see_their_own_tokens(user_daemon, otpbridge, monkeypatch):
    """Who may not open the admin socket lists and shows their own tokens."""
    monkeypatch.setattr("otpbridge.cli.token.own_name", lambda: "alice")
    user_daemon.answers[Tokens] = TokensReply(enforcement=Enforcement.OPTIONAL, tokens=(token(),))
    assert "t1" in otpbridge("token", "list").out
    assert "SHA1" in otpbridge("token", "show", "t1").out
    assert otpbridge("token", "show", "t2").code == 1
    assert {socket for socket, _, _ in user_daemon.calls} == {"verify"}
    assert asked(user_daemon)[0] == (Tokens, {"user": "alice"})
    user_daemon.answers[Tokens] = error("NoSuchUser", user="alice", client="local")
    assert otpbridge("--json", "token", "list").json == []
    assert otpbridge("token", "list", "bob").code == 1


@pytest.mark.parametrize(
    ("arguments", "request_type"),
    [(["token", "remove", "t1"], Remove), (["user", "optional", "alice"], ChooseEnforcement)],
)
def test_users_prove_that_they_hold_their_token(user_daemon, otpbridge, monkeypatch, arguments, request_type):
    """Where a proof is needed a code is asked for, checked on the same connection, and the call repeated."""
    monkeypatch.setattr("otpbridge.cli.token.own_name", lambda: "alice")
    proven = []

    def check(request):
        right = request.responses == ("123456",) and request.user == "alice"
        proven.append(right)
        return CheckReply(verdict=Verdict.SUCCESS if right else Verdict.AUTH_ERR, notices=())

    user_daemon.answers[Check] = check
    user_daemon.answers[request_type] = lambda _request: Empty() if any(proven) else error("ProofNeeded")
    refused = otpbridge(*arguments, stdin="000000\n")
    assert refused.code == 1
    assert "nothing was changed" in refused.err
    user_daemon.calls.clear()
    assert otpbridge(*arguments, stdin="123456\n").code == 0
    assert [type(request) for request in user_daemon.requests()] == [request_type, Check, request_type]
    assert len({connection for _, connection, _ in user_daemon.calls}) == 1


def test_admin_commands_are_not_tried_without_the_admin_socket(user_daemon, otpbridge):
    """What only admins may do fails before anything is asked of the verify socket."""
    for arguments in (["user", "list"], ["status"], ["audit", "verify"], ["key", "rotate"], ["token", "enable", "t"]):
        assert otpbridge(*arguments).code == 3
    assert user_daemon.calls == []


# --- verify ---


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Verdict.SUCCESS, 0),
        (Verdict.AUTH_ERR, 1),
        (Verdict.MAXTRIES, 1),
        (Verdict.ACCT_EXPIRED, 1),
        (Verdict.NEW_AUTHTOK_REQD, 1),
        (Verdict.USER_UNKNOWN, 1),
        (Verdict.IGNORE, 1),
        (Verdict.PERM_DENIED, 4),
        (Verdict.AUTHINFO_UNAVAIL, 3),
    ],
)
def test_only_success_is_exit_code_0(daemon, otpbridge, verdict, code):
    """Each verdict has its exit code and its name in the output; --json gives verdict, token and retry_after."""
    told = NoticeFields(style=NoticeStyle.INFO, text="Only 3 recovery codes are left.\nMake new ones.")
    daemon.answers[Check] = CheckReply(verdict=verdict, token="t1", retry_after=4, notices=(told,))
    said = otpbridge("verify", "alice", "123456")
    assert said.code == code
    assert said.out.startswith(f"{verdict.value}: ")
    assert said.out.endswith("\nOnly 3 recovery codes are left.\nMake new ones.\n")
    assert otpbridge("--json", "verify", "alice", "123456").json == {
        "verdict": verdict.value,
        "token": "t1",
        "retry_after": 4,
        "notices": [{"style": "info", "text": told.text}],
    }


def test_every_verdict_is_in_the_table():
    """No verdict is left out of the test above or without words."""
    from otpbridge.cli.verify import _WORDS

    assert set(_WORDS) == set(Verdict)


@pytest.mark.parametrize(
    ("stdin", "answers"),
    [
        ("123 456\n", ("123 456",)),
        ("hunter2\n123456\n", ("hunter2", "123456")),
        ("hunter2\n\n", ("hunter2", "")),
        ("1\n" * 20, ("1",) * 8),
    ],
)
def test_verify_reads_the_answers_from_standard_input(daemon, otpbridge, stdin, answers):
    """Without CODE each line is an answer, eight at most; client and stack are passed on."""
    daemon.answers[Check] = CheckReply(verdict=Verdict.SUCCESS, notices=())
    assert otpbridge("verify", "alice", "--client", "acme", "--stack", "portal", stdin=stdin).code == 0
    (request,) = daemon.requests()
    assert (request.user, request.responses, request.client, request.stack) == ("alice", answers, "acme", "portal")


def test_verify_without_any_input_is_a_usage_error(daemon, otpbridge):
    """At the end of standard input nothing is judged."""
    assert otpbridge("verify", "alice", stdin="").code == 2
    assert daemon.calls == []


def test_verify_without_a_daemon_gives_authinfo_unavail(otpbridge):
    """A script always finds a verdict: authinfo_unavail, exit code 3."""
    said = otpbridge("--json", "verify", "alice", "123456")
    assert (said.code, said.json["verdict"]) == (3, "authinfo_unavail")
    assert "cannot reach" in said.err


def test_verify_of_someone_elses_user_gives_perm_denied(daemon, otpbridge):
    """The daemon's refusal of the caller is the verdict perm_denied, exit code 4."""
    said = otpbridge("--json", "verify", "alice", "123456")
    assert (said.code, said.json["verdict"]) == (4, "perm_denied")


# --- import ---


def lines_of(daemon):
    """All lines as the daemon would number them."""
    found = {}
    for request in daemon.requests():
        for offset, line in enumerate(request.lines):
            assert request.first_line + offset not in found
            found[request.first_line + offset] = line
    return found


def test_import_sends_the_file_in_frames_on_one_connection(daemon, otpbridge, tmp_path):
    """A file of any size arrives whole, numbered, in frames below 64 KiB, and is finished once."""
    seen = []

    def take(request):
        seen.extend(request.lines)
        return ImportReply(imported=len(seen) if request.last else 0, errors=())

    daemon.answers[Import] = take
    lines = [f"user{n}\totpauth://totp/Example:user{n}?secret={BASE32}&issuer=Caf\u00e9" for n in range(3000)]
    path = tmp_path / "tokens.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    said = otpbridge("import", path, "--client", "acme", "--pending")
    assert (said.code, said.err) == (0, "")
    assert "3000 tokens were imported" in said.out
    assert lines_of(daemon) == dict(enumerate(lines, 1))
    requests = daemon.requests()
    assert len(requests) > 1
    assert [request.last for request in requests] == [False] * (len(requests) - 1) + [True]
    assert {(request.client, request.pending) for request in requests} == {("acme", True)}
    assert len({connection for _, connection, _ in daemon.calls}) == 1


def test_import_takes_lines_that_grow_on_the_wire(daemon, otpbridge):
    """Lines full of characters that JSON escapes are still sent in frames that fit."""
    daemon.answers[Import] = lambda request: ImportReply(imported=7 if request.last else 0, errors=())
    stdin = "".join("\x01" * 2_700 + "\n" for _ in range(40))
    assert otpbridge("--json", "import", "-", stdin=stdin).json == {"imported": 7, "errors": []}
    assert len(lines_of(daemon)) == 40


def test_import_tells_errors_by_line_and_no_seed(daemon, otpbridge):
    """Wrong lines are told by number on standard error, exit code 1, and nothing counts as imported."""
    daemon.answers[Import] = ImportReply(
        imported=0, errors=(LineError(line=3, reason="no tab"), LineError(line=1, reason="no secret"))
    )
    stdin = f"alice\totpauth://totp/a?secret={BASE32}\n"
    said = otpbridge("import", "-", stdin=stdin)
    assert (said.code, said.out) == (1, "")
    assert said.err.index("line 1: no secret") < said.err.index("line 3: no tab")
    assert "nothing was imported" in said.err
    assert BASE32 not in said.err
    assert otpbridge("--json", "import", "-", stdin=stdin).json["errors"][0] == {"line": 1, "reason": "no secret"}


def test_a_line_that_cannot_be_sent_stops_the_import(daemon, otpbridge, tmp_path):
    """A line that is not text, or too long, is an error, and the daemon is never told to store the others."""
    daemon.answers[Import] = ImportReply(imported=1, errors=())
    path = tmp_path / "tokens.tsv"
    path.write_bytes(b"alice\tx\nb\xffb\tx\n" + b"c" * 70_000 + b"\nd\tx\n")
    said = otpbridge("--json", "import", path)
    assert said.code == 1
    assert said.json["imported"] == 0
    assert [each["line"] for each in said.json["errors"]] == [2, 3]
    assert lines_of(daemon) == {1: "alice\tx", 2: "", 3: "", 4: "d\tx"}
    assert not any(request.last for request in daemon.requests())


def test_an_import_file_that_is_not_there_is_a_usage_error(daemon, otpbridge, tmp_path):
    """The file is opened before anything is sent."""
    assert otpbridge("import", tmp_path / "none").code == 2
    assert daemon.calls == []


# --- status, audit, key ---


def a_status(**changes):
    return StatusReply(
        **{
            "version": "1.2",
            "ready": True,
            "started_at": 1_700_000_000,
            "store": "sqlite:////var/lib/otpbridge/store.db",
            "schema": "0001",
            "key_source": "embedded",
            "key_id": "k1",
            "key_beside_store": True,
            "rotating": False,
            "users": 3,
            "active_tokens": 2,
            "audit_entries": 99,
            "audit_anchor": "anchor",
            "warnings": ("the clock was stepped",),
            **changes,
        }
    )


def test_status_shows_what_an_admin_must_know(daemon, otpbridge):
    """Version, store, key, numbers, and each warning."""
    daemon.answers[Status] = a_status()
    said = otpbridge("status")
    for words in ("1.2", "ready", "store.db", "k1", "disk of the store", "99", "Warning: the clock was stepped"):
        assert words in said.out
    assert otpbridge("--json", "status").json["key_beside_store"] is True


ENTRIES = (
    Entry(
        sequence=7,
        at=1_700_000_000.5,
        event="verify",
        user="alice",
        client="local",
        token="t1",
        verdict="auth_err",
        reason="wrong code",
        stack="default",
        uid=0,
        pid=42,
        service="sshd",
        rhost="192.0.2.1\nverify success",
        detail={"forced": True},
    ),
    Entry(sequence=8, at=1_700_000_001.0, event="user_added", user="bob", client="acme"),
)


def test_audit_tail_is_a_line_per_entry(daemon, otpbridge):
    """Each entry is one line that says when, what, who and why; no text in it can forge another."""
    daemon.answers[AuditTail] = [AuditTailReply(entries=ENTRIES[:1]), AuditTailReply(entries=ENTRIES[1:])]
    lines = otpbridge("audit", "tail", "-n", "5").out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("#7 20")
    for words in (
        " verify auth_err alice ",
        "token=t1",
        'reason="wrong code"',
        "stack=default",
        "uid=0",
        "service=sshd",
        "forced=true",
    ):
        assert words in lines[0]
    assert r'rhost="192.0.2.1\nverify success"' in lines[0]
    assert "acme/bob" in lines[1]
    assert asked(daemon) == [(AuditTail, {"count": 5})]


def test_audit_tail_as_json(daemon, otpbridge):
    """--json gives one array; with -f an object on each line."""
    daemon.answers[AuditTail] = [AuditTailReply(entries=ENTRIES), AuditTailReply(entries=())]
    assert [entry["sequence"] for entry in otpbridge("--json", "audit", "tail").json] == [7, 8]
    lines = otpbridge("--json", "audit", "tail", "-f").out.splitlines()
    assert [re.search(r'"sequence": (\d)', line)[1] for line in lines] == ["7", "8"]
    assert asked(daemon)[1] == (AuditTail, {"count": 20, "follow": True})


def test_audit_verify_exits_with_1_when_the_log_was_changed(daemon, otpbridge):
    """An intact log is exit code 0 and gives an anchor; a broken one is 1 and says from where."""
    daemon.answers[AuditVerify] = AuditVerifyReply(intact=True, entries=9, begins="0:00", anchor="abc")
    said = otpbridge("audit", "verify", "--anchor", "old")
    assert said.code == 0
    assert "9 entries" in said.out
    assert "abc" in said.out
    assert asked(daemon) == [(AuditVerify, {"anchor": "old"})]
    daemon.answers[AuditVerify] = AuditVerifyReply(
        intact=False, entries=9, begins="0:00", anchor="abc", fault="entry 5 was changed"
    )
    said = otpbridge("audit", "verify")
    assert (said.code, said.out) == (1, "")
    assert "entry 5 was changed" in said.err
    broken = otpbridge("--json", "audit", "verify")
    assert (broken.code, broken.json["fault"]) == (1, "entry 5 was changed")


def test_key_rotate_tells_how_many_were_sealed(daemon, otpbridge):
    """The last reply is the result; an error on the way is an error."""
    batches = [RotateKeyReply(resealed=n, total=30, key_id="k2") for n in (10, 20, 30)]
    daemon.answers[RotateKey] = batches
    assert "30 seeds are sealed under the new master key k2" in otpbridge("key", "rotate").out
    assert otpbridge("--json", "key", "rotate").json == {"resealed": 30, "total": 30, "key_id": "k2"}
    daemon.answers[RotateKey] = [batches[0], error("Failed", reason="the disk is full")]
    said = otpbridge("key", "rotate")
    assert (said.code, said.out) == (3, "")


# --- backup, restore, serve ---


def test_backup_is_whole_and_for_its_owner_alone(daemon, otpbridge, tmp_path):
    """The file holds every piece, has mode 0600, and nothing else is left in the folder."""
    daemon.answers[Backup] = [BackupReply(data="one\n"), BackupReply(data="tw\u00f6\n"), BackupReply(data="")]
    path = tmp_path / "store.backup"
    path.write_text("older")
    path.chmod(0o644)
    said = otpbridge("backup", path)
    assert said.code == 0
    assert path.read_text(encoding="utf-8") == "one\ntw\u00f6\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert otpbridge("--json", "backup", path).json == {"file": str(path), "bytes": 9}


def test_a_backup_that_breaks_off_leaves_the_older_one(daemon, otpbridge, tmp_path):
    """When the daemon fails halfway, the file that was there is untouched and no half is left."""
    daemon.answers[Backup] = [BackupReply(data="one\n"), error("Failed", reason="the disk is full")]
    path = tmp_path / "store.backup"
    path.write_text("older")
    assert otpbridge("backup", path).code == 3
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_backup_to_standard_output(daemon, otpbridge, tmp_path):
    """`-` writes the backup alone; together with --json it is refused."""
    daemon.answers[Backup] = [BackupReply(data="one\n"), BackupReply(data="two\n")]
    said = otpbridge("backup", "-")
    assert (said.code, said.out, said.err) == (0, "one\ntwo\n", "")
    assert otpbridge("--json", "backup", "-").code == 2
    assert otpbridge("backup", tmp_path / "none" / "file").code == 1


@pytest.fixture
def executed(monkeypatch):
    """What the process would have become."""
    calls = []

    def execv(path, arguments):
        calls.append((path, arguments))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    return calls


def test_serve_and_restore_become_the_daemon(executed, tmp_path, monkeypatch):
    """`serve`, `otpbridged`, `restore` and `store` run the daemon in their place, with the same options."""
    from otpbridge.cli.main import run
    from otpbridge.cli.serve import otpbridged

    start = [sys.executable, "-P", "-m", "otpbridge.daemon"]
    backup = tmp_path / "b"
    backup.touch()
    monkeypatch.delenv("OTPBRIDGE_RUN_DIR", raising=False)
    for arguments, passed in (
        (["serve"], []),
        (
            ["serve", "--state-dir", "s", "--run-dir", "r", "--config", "c"],
            ["--state-dir", "s", "--run-dir", "r", "--config", "c"],
        ),
        (["--run-dir", "r", "serve"], ["--run-dir", "r"]),
        (["restore", str(backup), "--state-dir", "s"], ["--restore", str(backup), "--state-dir", "s"]),
        (["restore", "-"], ["--restore", "-"]),
        (["store", "upgrade"], ["--upgrade", ""]),
        (["store", "migrate", "sqlite", "--state-dir", "s"], ["--migrate", "sqlite", "--state-dir", "s"]),
        (["store", "upgrade", "--role", "owner", "--config", "c"], ["--upgrade", "owner", "--config", "c"]),
    ):
        with pytest.raises(SystemExit):
            run(arguments)
        assert executed.pop() == (sys.executable, start + passed)
    for arguments, passed in (
        ([], []),
        (["--state-dir", "s"], ["--state-dir", "s"]),
        (["--relay", "a:1", "--config", "c"], ["--relay", "a:1", "--config", "c"]),
        (["--run-dir=r"], ["--run-dir", "r"]),
    ):
        monkeypatch.setattr(sys, "argv", ["otpbridged", *arguments])
        with pytest.raises(SystemExit):
            otpbridged()
        assert executed.pop() == (sys.executable, start + passed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--stat-dir", "s"],
        ["--state-dir"],
        ["--state-dir", "s", "now"],
        ["s"],
        ["--restore", "-"],
    ],
)
def test_what_is_no_option_of_the_daemon_is_explained(executed, monkeypatch, capsys, arguments):
    """A wrong word is a usage error, and nothing is started: not what `restore` and `store` start either."""
    from otpbridge.cli.serve import otpbridged

    monkeypatch.setattr(sys, "argv", ["otpbridged", *arguments])
    with pytest.raises(SystemExit) as ended:
        otpbridged()
    assert ended.value.code == 2
    assert "Error: " in capsys.readouterr().err
    assert not executed
