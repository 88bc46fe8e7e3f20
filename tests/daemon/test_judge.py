"""Judging attempts on a real store: verdicts, the prompts before them, and what the audit log says after them."""

from __future__ import annotations

import os

import pytest
from stackrig import PLAIN, SEED, TIME, Bench
from storerig import run, running

from otpbridge.daemon.attempt import Question
from otpbridge.model import (
    Enforcement,
    Kind,
    Notice,
    NoticeStyle,
    OtpParameters,
    Outcome,
    Prompt,
    Secret,
    State,
    Verdict,
)
from otpbridge.otp.hotp import hotp
from otpbridge.otp.totp import totp
from otpbridge.store import tokens, users
from otpbridge.verify.builtin.totp import Totp, TotpOptions


def on_bench(tmp_path, work, **options):
    """Run `work(bench)` where alice has an active TOTP token."""

    async def whole():
        async with running(tmp_path) as rig:
            await rig.token(seed=Secret(SEED))
            await work(Bench(rig, **options))

    run(whole())


def test_a_right_code_passes_once(tmp_path):
    """Right, then the same again: refused as used, with the token in the audit log and not in the answer."""

    async def work(bench):
        first, second = await bench.check(bench.code()), await bench.check(bench.code())
        assert (first.verdict, first.token) == (Verdict.SUCCESS, "t1")
        assert (second.verdict, second.token) == (Verdict.AUTH_ERR, None)
        accepted, refused = bench.audit()
        assert (accepted["verdict"], accepted["token"], accepted["service"]) == ("success", "t1", "sshd")
        assert (accepted["uid"], accepted["pid"]) == (0, 42)
        assert refused["reason"] == "code already used"

    on_bench(tmp_path, work)


def test_codes_of_the_neighbouring_steps_pass_and_no_others(tmp_path):
    """One step either way, in order; an earlier one after a later one is spent."""

    async def work(bench):
        assert (await bench.check(bench.code(-2))).verdict is Verdict.AUTH_ERR
        assert (await bench.check(bench.code(2))).verdict is Verdict.AUTH_ERR
        assert (await bench.check(bench.code(-1))).verdict is Verdict.SUCCESS
        assert (await bench.check(bench.code())).verdict is Verdict.SUCCESS
        assert (await bench.check(bench.code(1))).verdict is Verdict.SUCCESS
        assert (await bench.check(bench.code())).verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work)


def test_a_clock_that_runs_away_is_followed(tmp_path):
    """A device that loses a step now and then keeps working, up to the bound."""

    async def work(bench):
        for behind in range(1, 11):
            bench.time += 3600
            assert (await bench.check(bench.code(-behind))).verdict is Verdict.SUCCESS
        assert bench.rig.find("t1").token.drift == -10
        bench.time += 3600
        assert (await bench.check(bench.code())).verdict is Verdict.SUCCESS, (
            "the code of now passes whatever the drift"
        )

    on_bench(tmp_path, work)


def test_a_clock_step_back_does_not_bring_spent_codes_back(tmp_path):
    """What was spent stays spent when the server's clock is set back."""

    async def work(bench):
        code = bench.code()
        assert (await bench.check(code)).verdict is Verdict.SUCCESS
        bench.time -= 60
        assert (await bench.check(code)).verdict is Verdict.AUTH_ERR
        bench.time += 60
        assert (await bench.check(code)).verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work)


def test_hotp_looks_ahead_and_never_back(tmp_path):
    """Skipped counters are spent with the one that was shown."""

    async def work(bench):
        await bench.rig.token("bob", "h", kind=Kind.HOTP, seed=Secret(b"h" * 20))

        async def show(counter):
            return (await bench.check(hotp(b"h" * 20, counter, PLAIN), user="bob")).verdict

        assert await show(5) is Verdict.SUCCESS
        assert await show(5) is Verdict.AUTH_ERR
        assert await show(3) is Verdict.AUTH_ERR
        assert await show(6 + 10) is Verdict.SUCCESS
        assert await show(17 + 11) is Verdict.AUTH_ERR

    on_bench(tmp_path, work)


def test_any_of_several_tokens_serves(tmp_path):
    """The user never says which."""

    async def work(bench):
        await bench.rig.token(token_id="t2", seed=Secret(b"s" * 20), label="second")
        assert (await bench.check(totp(b"s" * 20, TIME, PLAIN))).token == "t2"
        assert (await bench.check(bench.code())).token == "t1"

    on_bench(tmp_path, work)


REFUSED_ALIKE = ("unknown user", "required without token", "wrong code", "used code", "disabled token")


@pytest.mark.parametrize("case", REFUSED_ALIKE)
def test_refusals_look_alike_and_only_the_audit_log_says_why(tmp_path, case):
    """The same prompt, the same verdict; the reason stays inside."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        user, code = "alice", bench.code()
        if case == "unknown user":
            user = "nobody"
        elif case == "required without token":
            user = "carol"
            await bench.rig.change(lambda t: users.add(t, "local", "carol"))
            await bench.enforce(Enforcement.REQUIRED, "carol")
        elif case == "wrong code":
            code = f"{(int(code) + 1) % 1_000_000:06d}"
        elif case == "used code":
            assert (await bench.check(code)).verdict is Verdict.SUCCESS
        else:
            await bench.rig.change(lambda t: tokens.change_state(t, "t1", {State.ACTIVE}, State.DISABLED))
        conversation, step = await bench.judge.begin(bench.subject(user))
        assert isinstance(step, Question)
        assert step.prompt == Prompt("Verification code: ")
        outcome = await bench.judge.answer(conversation, [code])
        assert (outcome.verdict, outcome.token, outcome.retry_after) == (Verdict.AUTH_ERR, None, None)
        reasons = {
            "unknown user": "wrong code: user not in the store",
            "required without token": "wrong code: no token",
            "wrong code": "wrong code",
            "used code": "code already used",
            "disabled token": "wrong code: no token",
        }
        assert bench.audit()[-1]["reason"] == reasons[case]
        assert bench.rig.misses(user).misses == 1

    on_bench(tmp_path, work)


FULL_WIDTH = "".join(chr(0xFF10 + digit) for digit in range(1, 7))


@pytest.mark.parametrize(
    "answer",
    ["12 34 56 7", FULL_WIDTH, "1234567", "12345", "-123456", "x" * 60_000, "12345a", "123\n456", "\x00"],
    ids=["7 digits", "full-width", "7 together", "5 digits", "minus", "60 KB", "a letter", "a line end", "NUL"],
)
def test_odd_answers_are_refused_like_wrong_codes(tmp_path, answer):
    """Whatever is typed: one verdict, one miss, no error."""

    async def work(bench):
        assert (await bench.check(answer)).verdict is Verdict.AUTH_ERR
        assert bench.rig.misses().misses == 1

    on_bench(tmp_path, work)


def test_a_code_may_be_typed_in_groups(tmp_path):
    """`123 456` is the code that the authenticator shows."""

    async def work(bench):
        code = bench.code()
        assert (await bench.check(f" {code[:3]} {code[3:]} ")).verdict is Verdict.SUCCESS
        # Another spelling is no new code.
        assert (await bench.check(f"{code[:3]}-{code[3:]}")).verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work)


@pytest.mark.parametrize("name", ["Alice", " alice", "alice ", "alice\n", "a\u200blice", "\uff41lice", "alic\u00e9"])
def test_a_name_written_otherwise_is_another_name(tmp_path, name):
    """Nobody multiplies their guesses at a user by spellings of the name: those are users who are not there."""

    async def work(bench):
        for _ in range(3):
            assert (await bench.check(bench.code(), user=name)).verdict is Verdict.AUTH_ERR
        assert {row["reason"] for row in bench.audit()} == {"wrong code: user not in the store"}
        assert (await bench.check(bench.code())).verdict is Verdict.SUCCESS

    on_bench(tmp_path, work)


def test_an_empty_answer_counts_as_no_guess(tmp_path):
    """Required: refused and not counted. Optional: let pass."""

    async def work(bench):
        assert (await bench.check("")).verdict is Verdict.IGNORE
        assert (await bench.check()).verdict is Verdict.IGNORE
        await bench.enforce(Enforcement.REQUIRED)
        for answer in ("", "  ", "\t"):
            assert (await bench.check(answer)).verdict is Verdict.AUTH_ERR
        assert bench.rig.misses().misses == 0

    on_bench(tmp_path, work)


def test_optional_with_a_token_refuses_a_wrong_code(tmp_path):
    """NOT REQUIRED: a right code lets in, a wrong one refuses, so that a test means something."""

    async def work(bench):
        assert (await bench.check("000000")).verdict is Verdict.AUTH_ERR
        assert (await bench.check(bench.code())).verdict is Verdict.SUCCESS

    on_bench(tmp_path, work)


def test_users_without_a_token_pass_only_by_policy(tmp_path):
    """optional without token: ignore, unasked. Unknown: refused, unless nullok or the configuration says so."""

    async def work(bench):
        await bench.rig.change(lambda t: users.add(t, "local", "carol"))
        assert (await bench.check("1", user="carol")).verdict is Verdict.IGNORE
        assert (await bench.check("1", user="nobody")).verdict is Verdict.AUTH_ERR
        assert (await bench.check("1", user="nobody", nullok=True)).verdict is Verdict.IGNORE
        lenient = Bench(bench.rig, config='[users]\nunknown = "ignore"')
        assert (await lenient.check("1", user="nobody")).verdict is Verdict.IGNORE
        await bench.enforce(Enforcement.REQUIRED, "carol")
        assert (await bench.check("1", user="carol", nullok=True)).verdict is Verdict.AUTH_ERR
        assert (await bench.judge.account(bench.subject("carol"))).verdict is Verdict.PERM_DENIED
        assert (await bench.judge.account(bench.subject("alice"))).verdict is Verdict.SUCCESS
        assert (await bench.judge.account(bench.subject("nobody"))).verdict is Verdict.PERM_DENIED
        assert (await bench.judge.account(bench.subject("nobody", nullok=True))).verdict is Verdict.IGNORE

    on_bench(tmp_path, work)


def test_back_off_is_told_in_whole_seconds(tmp_path):
    """maxtries with retryAfter; a right code is turned away too, and passes afterwards."""

    async def work(bench):
        for _ in range(4):
            assert (await bench.check("000000")).verdict is Verdict.AUTH_ERR
        blocked = await bench.check(bench.code())
        assert (blocked.verdict, blocked.retry_after) == (Verdict.MAXTRIES, 1)
        bench.time += 1
        assert (await bench.check(bench.code())).verdict is Verdict.SUCCESS

    on_bench(tmp_path, work)


def test_a_token_changed_while_the_person_types_is_judged_as_it_is_then(tmp_path):
    """Revoked between prompt and answer: refused. Added between: accepted."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        conversation, _ = await bench.judge.begin(bench.subject())
        await bench.rig.change(lambda t: tokens.change_state(t, "t1", {State.ACTIVE}, State.REVOKED))
        assert (await bench.judge.answer(conversation, [bench.code()])).verdict is Verdict.AUTH_ERR
        conversation, _ = await bench.judge.begin(bench.subject("nobody"))
        await bench.rig.token("nobody", "t2", seed=Secret(b"s" * 20))
        assert (await bench.judge.answer(conversation, [totp(b"s" * 20, TIME, PLAIN)])).verdict is Verdict.SUCCESS

    on_bench(tmp_path, work)


class Failing:
    """A verifier that raises."""

    async def verify(self, attempt):
        """Break."""
        raise ZeroDivisionError("a code is 123456")


class Chatty:
    """A verifier that tells, asks twice and passes on the right second answer."""

    async def verify(self, attempt):
        """Ask for a word."""
        await attempt.tell(Notice("hello", NoticeStyle.INFO))
        word = await attempt.ask(Prompt("Word: "))
        return Verdict.SUCCESS if word == "please" else Verdict.AUTH_ERR


class Nonsense:
    """A verifier that returns what is no verdict."""

    async def verify(self, attempt):
        """Say yes in a way that is none."""
        return True


def test_a_verifier_that_raises_does_not_pass_and_stops_nobody(tmp_path, caplog):
    """authinfo_unavail alone; with another verifier behind it, that one decides. Nothing of the error is logged."""

    async def work(bench):
        assert (await bench.check(bench.code())).verdict is Verdict.AUTH_ERR
        assert bench.audit()[-1]["reason"].endswith("; failed: v0")
        alone = Bench(bench.rig, verifiers=(Failing(),), rules=["required v0"])
        assert (await alone.check(bench.code())).verdict is Verdict.AUTHINFO_UNAVAIL
        both = Bench(bench.rig, verifiers=(Failing(), Totp(TotpOptions())))
        assert (await both.check(both.code())).verdict is Verdict.SUCCESS
        assert "ZeroDivisionError" in caplog.text
        assert "123456" not in caplog.text

    on_bench(tmp_path, work, verifiers=(Failing(),))


def test_a_verifier_that_returns_no_verdict_does_not_pass(tmp_path):
    """True is not success."""

    async def work(bench):
        assert (await bench.check("x")).verdict is not Verdict.SUCCESS

    on_bench(tmp_path, work, verifiers=(Nonsense(),))


def test_notices_reach_the_person(tmp_path):
    """What a verifier tells stands ready with the question."""

    async def work(bench):
        conversation, step = await bench.judge.begin(bench.subject())
        assert isinstance(step, Question)
        assert conversation.attempt.notices == [Notice("hello", NoticeStyle.INFO)]
        outcome = await bench.judge.answer(conversation, ["please"])
        assert isinstance(outcome, Outcome)
        assert outcome.verdict is Verdict.SUCCESS

    on_bench(tmp_path, work, verifiers=(Chatty(),))


def test_a_seed_that_does_not_open_refuses(tmp_path, caplog):
    """A row that somebody edited is unavailable, never a pass."""

    async def work(bench):
        def edit(transaction):
            from sqlalchemy import update

            from otpbridge.store import tables

            transaction.connection.execute(update(tables.token).values(digits=8))

        await bench.rig.change(edit)
        for code in (bench.code(), totp(SEED, TIME, OtpParameters(digits=8))):
            assert (await bench.check(code)).verdict is Verdict.AUTH_ERR
        assert bench.audit()[-1]["reason"] == "wrong code; failed: totp"
        assert "does not open" in caplog.text

    on_bench(tmp_path, work)


def test_who_has_no_token_costs_the_same_work(tmp_path, monkeypatch):
    """Unknown, tokenless and wrong: each opens as many secrets, one of each kind, also after a key rotation."""
    from otpbridge.vault.keys import Keyring, MasterKey
    from otpbridge.vault.seal import Vault

    opened = []
    original = Vault.open

    def counted(self, sealed, identity):
        opened.append(1)
        return original(self, sealed, identity)

    monkeypatch.setattr(Vault, "open", counted)

    async def work(bench):
        await bench.rig.change(lambda t: users.add(t, "local", "carol"))
        await bench.enforce(Enforcement.REQUIRED, "carol")
        vault = bench.rig.store.vault
        counts = set()
        for _ in range(2):
            for user in ("alice", "carol", "nobody"):
                opened.clear()
                assert (await bench.check("000000", user=user)).verdict is Verdict.AUTH_ERR
                counts.add(len(opened))
            vault.keyring = Keyring(MasterKey.of(Secret(os.urandom(32))), (vault.keyring.primary,))
        # totp, hotp, yubiotp (not for what is no OTP of a YubiKey), recovery, registration.
        assert counts == {4}

    on_bench(tmp_path, work)
