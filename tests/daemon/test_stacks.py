"""Stacks on a real store: what is asked in which order, what lets in, and what policy leaves out."""

from __future__ import annotations

import asyncio
import os

import pytest
from stackrig import SEED, TIME, Bench
from storerig import run, running
from yubikey import YubiKey

from otpbridge.daemon import accounts
from otpbridge.daemon.attempt import Question
from otpbridge.daemon.explain import explain
from otpbridge.daemon.policy import Authority
from otpbridge.daemon.stacks import UnknownStackError
from otpbridge.model import Enforcement, Factor, Kind, Notice, Prompt, Secret, Verdict
from otpbridge.otp import recovery
from otpbridge.store import tokens, users

PASSWORD = "correct horse"
PORTAL = '[stacks.default]\nrules = ["requisite password", "sufficient totp", "required recovery"]\n'
BLUNT = '[stacks.default]\nrules = ["required password", "sufficient totp", "required recovery"]\n'


def on_bench(tmp_path, work, *, token=True, **options):
    """Run `work(bench)` where alice has an active TOTP token (unless said otherwise)."""

    async def whole():
        async with running(tmp_path) as rig:
            bench = Bench(rig, **options)
            if token:
                await rig.token(seed=Secret(SEED))
            await work(bench)

    run(whole())


def wrong(code):
    """A code that is not this one, nor a neighbour in time but by a chance of one in a million."""
    return f"{(int(code) + 1) % 1_000_000:06d}"


# --- two factors in one stack ---


def test_a_password_is_asked_before_the_code_and_both_must_be_right(tmp_path):
    """Each of the four combinations; with `requisite` a wrong password ends it, with `required` it goes on."""

    async def work(bench):
        await bench.password(PASSWORD)
        await bench.enforce(Enforcement.REQUIRED)
        both = ["Password: ", "Verification code: "]
        assert (await bench.talk("wrong"))[0] == both[:1]
        asked, _, outcome = await bench.talk(PASSWORD, "000000")
        assert (asked, outcome.verdict) == (both, Verdict.AUTH_ERR)
        bench.time += 10
        asked, _, outcome = await bench.talk(PASSWORD, bench.code())
        assert (asked, outcome.verdict) == (both, Verdict.SUCCESS)
        blunt = Bench(bench.rig, config=BLUNT)
        blunt.time = bench.time + 60
        asked, _, outcome = await blunt.talk("wrong", blunt.code())
        assert (asked, outcome.verdict) == (both, Verdict.AUTH_ERR)

    on_bench(tmp_path, work, config=PORTAL)


@pytest.mark.parametrize("user", ["nobody", "alice"])
def test_a_stack_that_hides_which_factor_was_wrong_asks_everyone_the_same(tmp_path, user):
    """With `required`, a stranger and a user with a wrong password see the same prompts and verdict."""

    async def work(bench):
        await bench.password(PASSWORD)
        await bench.enforce(Enforcement.REQUIRED)
        asked, told, outcome = await bench.talk("wrong", "000000", user=user)
        assert (asked, told) == (["Password: ", "Verification code: "], [])
        assert (outcome.verdict, outcome.token, outcome.notices) == (Verdict.AUTH_ERR, None, ())
        assert bench.rig.misses(user).misses == 1

    on_bench(tmp_path, work, config=BLUNT)


def test_responses_of_one_call_are_handed_to_the_prompts_in_order(tmp_path):
    """Password and code in two fields; with one missing nobody gets in."""

    async def work(bench):
        await bench.password(PASSWORD)
        await bench.enforce(Enforcement.REQUIRED)
        assert (await bench.check(PASSWORD, bench.code())).verdict is Verdict.SUCCESS
        bench.time += 60
        assert (await bench.check(bench.code(), PASSWORD)).verdict is Verdict.AUTH_ERR
        assert (await bench.check(PASSWORD, "")).verdict is Verdict.AUTH_ERR
        assert (await bench.check("", bench.code())).verdict is Verdict.AUTH_ERR
        assert (await bench.check()).verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work, config=PORTAL)


@pytest.mark.parametrize(
    "typed", ["{password}{code}", "{code}{password}"], ids=["code at the end", "code at the start"]
)
@pytest.mark.parametrize("password", [PASSWORD, "hunter2", "1hunter", "123456", "pass 99999999", "schön"])
def test_one_field_takes_password_and_code(tmp_path, typed, password):
    """In either order, with digits at either end of the password too; what was the code is told in bytes."""

    async def work(bench):
        await bench.password(password)
        await bench.enforce(Enforcement.REQUIRED)
        text = typed.format(password=password, code=bench.code())
        outcome = await bench.check(text)
        assert outcome.verdict is Verdict.SUCCESS
        start, length = outcome.code
        assert text.encode()[start : start + length].decode() == bench.code()
        assert (await bench.check(text)).verdict is Verdict.AUTH_ERR, "the code was used"

    on_bench(tmp_path, work, config=PORTAL)


def test_one_field_of_a_stack_without_a_password_leaves_the_rest_to_the_caller(tmp_path):
    """A PAM module with forward_pass: the code counts, and where it was is told."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        asked, _, outcome = await bench.talk(f"secret{bench.code()}", combined=True)
        assert (asked, outcome.verdict, outcome.code) == (["Verification code: "], Verdict.SUCCESS, (6, 6))
        bench.time += 60
        refused = (await bench.talk(f"secret{wrong(bench.code())}", combined=True))[2]
        assert (refused.verdict, refused.code) == (Verdict.AUTH_ERR, None)
        nothing = (await bench.talk("secret", combined=True))[2]
        assert nothing.verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work)


def test_who_need_not_show_a_code_may_leave_it_out_of_the_one_field(tmp_path):
    """The whole answer is the password then, even where it ends like a code."""

    async def work(bench):
        await bench.password("hunter999999")
        assert (await bench.check("hunter999999")).verdict is Verdict.SUCCESS
        assert (await bench.check(f"hunter999999{bench.code()}")).token == "t1"
        assert (await bench.check("hunter")).verdict is Verdict.AUTH_ERR
        ignored = (await Bench(bench.rig).talk("secret", combined=True))[2]
        assert (ignored.verdict, ignored.code) == (Verdict.IGNORE, None)

    on_bench(tmp_path, work, config=PORTAL)


# --- policy ---


def test_a_second_factor_that_is_not_asked_for_leaves_the_first_one_in_force(tmp_path):
    """Optional without a token: the password alone lets in, and nothing else does."""

    async def work(bench):
        await bench.password(PASSWORD)
        assert (await bench.talk(PASSWORD))[0] == ["Password: "]
        assert (await bench.check(PASSWORD)).verdict is Verdict.SUCCESS
        for answers in (("wrong",), ("",), ()):
            assert (await bench.check(*answers)).verdict is Verdict.AUTH_ERR
        assert bench.audit()[-4]["reason"] == "optional, no authenticator"

    on_bench(tmp_path, work, token=False, config=PORTAL)


def test_an_empty_answer_never_stands_for_a_password(tmp_path):
    """Optional with a token may leave out the code, not the password."""

    async def work(bench):
        await bench.password(PASSWORD)
        assert (await bench.talk(""))[2].verdict is Verdict.AUTH_ERR
        assert (await bench.talk(PASSWORD, ""))[2].verdict is Verdict.SUCCESS
        assert (await bench.talk(PASSWORD, "000000"))[2].verdict is Verdict.AUTH_ERR
        blunt = Bench(bench.rig, config=BLUNT)
        assert (await blunt.talk("", ""))[2].verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work, config=PORTAL)


def test_a_locked_user_is_asked_and_refused(tmp_path):
    """A right code too, from a trusted network too; the audit log says why, the answer does not."""

    async def work(bench):
        await bench.rig.change(lambda t: users.lock(t, "local", "alice", locked=True))
        for rhost in ("", "10.0.0.1"):
            asked, _, outcome = await bench.talk(bench.code(), rhost=rhost)
            assert (asked, outcome.verdict) == (["Verification code: "], Verdict.AUTH_ERR)
            assert bench.audit()[-1]["reason"] == "user is locked"
        assert (await bench.talk(""))[2].verdict is Verdict.AUTH_ERR
        assert (await bench.judge.account(bench.subject())).verdict is Verdict.ACCT_EXPIRED
        own = bench.subject(authority=Authority.SELF)
        assert (await bench.judge.account(own)).verdict is Verdict.PERM_DENIED
        await bench.rig.change(lambda t: users.lock(t, "local", "alice", locked=False))
        bench.time += 30
        assert (await bench.check(bench.code())).verdict is Verdict.SUCCESS

    on_bench(tmp_path, work, config='[policy]\ntrusted_networks = ["10.0.0.0/8"]\n')


def test_a_user_locked_while_they_type_is_refused(tmp_path):
    """What counts is how it is when the answer comes."""

    async def work(bench):
        conversation, _ = await bench.judge.begin(bench.subject())
        await bench.rig.change(lambda t: users.lock(t, "local", "alice", locked=True))
        assert (await bench.judge.answer(conversation, [bench.code()])).verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work)


def test_a_second_factor_required_while_the_password_is_typed_is_asked_for(tmp_path):
    """A conversation that began without one does not end without one."""

    async def work(bench):
        await bench.password(PASSWORD)
        conversation, _ = await bench.judge.begin(bench.subject())
        await bench.rig.token(seed=Secret(SEED))
        await bench.enforce(Enforcement.REQUIRED)
        step = await bench.judge.answer(conversation, [PASSWORD])
        assert isinstance(step, Question)
        assert (await bench.judge.answer(conversation, [bench.code()])).verdict is Verdict.SUCCESS

    on_bench(tmp_path, work, token=False, config=PORTAL)


def test_a_trusted_network_is_taken_from_callers_that_are_believed(tmp_path):
    """Not from people who say of themselves where they are."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        assert (await bench.check("x", rhost="10.1.2.3")).verdict is Verdict.IGNORE
        assert (await bench.check("x", rhost="11.1.2.3")).verdict is Verdict.AUTH_ERR
        said = await bench.check("x", rhost="10.1.2.3", authority=Authority.SELF)
        assert said.verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work, config='[policy]\ntrusted_networks = ["10.0.0.0/8"]\n')


def test_a_stack_says_more_than_its_client_and_a_client_more_than_all(tmp_path):
    """The same user, at two services."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        assert (await bench.check("x", rhost="10.1.2.3", service="sudo")).verdict is Verdict.AUTH_ERR
        assert (await bench.check("x", rhost="10.1.2.3", service="sshd")).verdict is Verdict.IGNORE
        assert (await bench.check("x", rhost="10.1.2.3", service="cron")).verdict is Verdict.IGNORE

    config = """
        [policy]
        trusted_networks = []
        [clients.local]
        trusted_networks = ["10.0.0.0/8"]
        [stacks.sudo]
        rules = ["required totp"]
        trusted_networks = []
    """
    on_bench(tmp_path, work, config=config)


@pytest.mark.parametrize("rhost", ["203.0.113.7", ""])
def test_grace_is_for_the_same_user_source_and_service(tmp_path, rhost):
    """Within the time; elsewhere, for others, and after it the code is asked again."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        await bench.rig.token("bob", "t2", seed=Secret(b"b" * 20))
        await bench.enforce(Enforcement.REQUIRED, "bob")
        here = {"rhost": rhost, "tty": "pts/4"}
        assert (await bench.check("", **here)).verdict is Verdict.AUTH_ERR
        assert (await bench.check(bench.code(), **here)).verdict is Verdict.SUCCESS
        assert (await bench.talk(**here))[2].verdict is Verdict.IGNORE
        assert bench.audit()[-1]["reason"] == "grace period"
        for other in (
            {**here, "rhost": "203.0.113.8"},
            {**here, "service": "sudo"},
            {**here, "user": "bob"},
            {**here, "authority": Authority.SELF},
            {},
        ):
            assert (await bench.check("", **other)).verdict is Verdict.AUTH_ERR
        bench.time += 60
        assert (await bench.talk(**here))[2].verdict is Verdict.IGNORE
        bench.time += 0.01
        assert (await bench.check("", **here)).verdict is Verdict.AUTH_ERR
        bench.time -= 3600
        assert (await bench.check("", **here)).verdict is Verdict.AUTH_ERR, "a clock that was set back"

    on_bench(tmp_path, work, config="[policy]\ngrace = 60\n")


def test_grace_ends_with_a_reset_and_a_lock(tmp_path):
    """Who took the phone away does not keep the door open."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        assert (await bench.check(bench.code(), rhost="203.0.113.7")).verdict is Verdict.SUCCESS
        await bench.rig.change(lambda t: users.forget(t, "local", "alice"))
        assert (await bench.check("", rhost="203.0.113.7")).verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work, config="[policy]\ngrace = 60\n")


def test_a_group_that_cannot_be_looked_up_lets_nobody_pass(tmp_path, monkeypatch, caplog):
    """A member is exempt, another is asked; a directory that is down is neither."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        answers = {"robots": "robots", "none": None}
        for name, verdict in (("robots", Verdict.IGNORE), ("none", Verdict.AUTH_ERR)):
            monkeypatch.setattr(accounts, "member_of", lambda user, groups, name=name: answers[name])
            assert (await bench.check("x")).verdict is verdict

        def down(user, groups):
            raise accounts.LookupFailedError("the system's accounts cannot be asked")

        monkeypatch.setattr(accounts, "member_of", down)
        assert (await bench.check(bench.code())).verdict is Verdict.AUTHINFO_UNAVAIL
        assert (await bench.judge.begin(bench.subject()))[1].verdict is Verdict.AUTHINFO_UNAVAIL
        assert (await bench.judge.account(bench.subject())).verdict is Verdict.AUTHINFO_UNAVAIL
        assert "cannot be asked" in caplog.text

    on_bench(tmp_path, work, config='[policy]\nexempt_groups = ["robots"]\n')


TWO = """
[policy]
limit = 2
[stacks.vpn]
rules = ["sufficient totp", "required recovery"]
[stacks.sudo]
rules = ["sufficient totp", "requisite password", "required recovery"]
"""


def test_the_audit_log_says_which_stack_came_to_it(tmp_path):
    """Whether one let in, refused, left a code out, was given up or not judged at all; and in the account phase."""

    async def work(bench):
        await bench.password(PASSWORD)
        assert (await bench.check("", stack="vpn")).verdict is Verdict.IGNORE
        await bench.enforce(Enforcement.REQUIRED)
        assert (await bench.check(bench.code(), service="vpn")).verdict is Verdict.SUCCESS
        assert (await bench.check(stack="vpn")).verdict is Verdict.AUTH_ERR
        # Two answers in one go to no stack in particular, a wrong code that leads on to the password, and nothing.
        assert (await bench.check("", "", service="login")).verdict is Verdict.AUTH_ERR
        await bench.talk(wrong(bench.code()), service="sudo")
        for _ in range(2):
            said = (await bench.check(wrong(bench.code()), stack="vpn")).verdict
        assert said is Verdict.MAXTRIES
        assert (await bench.judge.account(bench.subject(service="vpn"))).verdict is Verdict.SUCCESS
        rows = [(row["event"], row["verdict"], row.get("stack")) for row in bench.audit() if "verdict" in row]
        assert rows == [
            ("verify", "ignore", "vpn"),
            ("verify", "success", "vpn"),
            ("verify", "auth_err", "vpn"),
            ("verify", "auth_err", "default"),
            ("verify", "auth_err", "sudo"),
            ("verify", "auth_err", "vpn"),
            ("verify", "maxtries", "vpn"),
            ("account", "success", "vpn"),
        ]

    on_bench(tmp_path, work, config=TWO)


def test_the_account_phase_can_want_a_code_shown_just_before(tmp_path):
    """A public key that went past the code is turned away; who has just shown one is not."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)

        async def account(**about):
            return (await bench.judge.account(bench.subject(**about))).verdict

        assert await account(rhost="203.0.113.7") is Verdict.PERM_DENIED
        assert (await bench.check(bench.code(), rhost="203.0.113.7")).verdict is Verdict.SUCCESS
        assert await account(rhost="203.0.113.7") is Verdict.SUCCESS
        assert await account(rhost="203.0.113.8") is Verdict.PERM_DENIED
        assert await account() is Verdict.PERM_DENIED
        bench.time += 121
        assert await account(rhost="203.0.113.7") is Verdict.PERM_DENIED

    on_bench(tmp_path, work, config='[policy]\naccount = "verified"\n')


def test_who_has_shown_a_verifier_of_another_package_what_it_wants_passes_the_account_phase(tmp_path):
    """It knows the user where the store has no token of theirs; a first factor and `permit` show nothing."""

    class Word:
        """Judges by itself."""

        def __init__(self, factor):
            self.factor = factor

        async def verify(self, attempt):
            return (
                Verdict.SUCCESS
                if await attempt.ask(Prompt("Word: ", answer="word")) == "please"
                else Verdict.AUTH_ERR
            )

    for factor, verdict in ((Factor.SECOND, Verdict.SUCCESS), (Factor.FIRST, Verdict.PERM_DENIED)):

        async def work(bench, verdict=verdict):
            async def account(source):
                return (await bench.judge.account(bench.subject("mona", rhost=source))).verdict

            await bench.rig.change(lambda t: users.ensure(t, "local", "mona"))
            await bench.enforce(Enforcement.REQUIRED, "mona")
            assert (await bench.check("no", user="mona", rhost="203.0.113.7")).verdict is Verdict.AUTH_ERR
            assert await account("203.0.113.7") is Verdict.PERM_DENIED
            assert (await bench.check("please", user="mona", rhost="203.0.113.7")).verdict is Verdict.SUCCESS
            assert await account("203.0.113.7") is verdict
            assert await account("203.0.113.8") is Verdict.PERM_DENIED

        on_bench(tmp_path / factor.value, work, verifiers=(Word(factor),), rules=["required v0"])


# --- which stack ---


def test_the_stack_is_the_named_one_else_that_of_the_service_else_default(tmp_path):
    """A name that is none is an error, not the default."""

    async def work(bench):
        await bench.enforce(Enforcement.REQUIRED)
        assert (await bench.check("x", service="sshd")).verdict is Verdict.AUTH_ERR
        assert (await bench.check("x", service="open")).verdict is Verdict.SUCCESS
        assert (await bench.check("x", service="open", stack="default")).verdict is Verdict.AUTH_ERR
        with pytest.raises(UnknownStackError, match="no stack nowhere"):
            await bench.check("x", stack="nowhere")

    on_bench(tmp_path, work, config='[stacks.open]\nrules = ["sufficient permit"]\n')


# --- recovery, registration, YubiKeys ---


def test_who_need_not_show_a_code_can_show_a_registration_code(tmp_path):
    """It may be all that a new user has. Left out, it is let pass; a wrong one is refused."""

    async def work(bench):
        code, record = recovery.registration_code(os.urandom)
        await bench.put(Kind.REGISTRATION, record.pack(), "nina", expires_at=int(bench.time) + 3600)
        await bench.enforce(Enforcement.OPTIONAL, "nina")
        assert (await bench.check("", user="nina")).verdict is Verdict.IGNORE
        assert (await bench.check("WRNG-WRNG-WRNG", user="nina")).verdict is Verdict.AUTH_ERR
        assert (await bench.check(code.reveal().decode(), user="nina")).verdict is Verdict.SUCCESS
        assert (await bench.judge.account(bench.subject("nina"))).verdict is Verdict.IGNORE
        assert (await bench.check(code.reveal().decode(), user="nina")).verdict is Verdict.IGNORE

    on_bench(tmp_path, work)


def test_each_recovery_code_lets_in_once_and_says_how_many_are_left(tmp_path):
    """All ten, in any order and spelling, each once; a warning from three on."""

    async def work(bench):
        codes, record = recovery.recovery_codes(os.urandom)
        await bench.put(Kind.RECOVERY, record.pack())
        await bench.enforce(Enforcement.REQUIRED)
        for used, code in enumerate(reversed(codes), 1):
            text = code.reveal().decode().lower().replace("-", " ")
            _, told, outcome = await bench.talk(text)
            assert (outcome.verdict, outcome.token) == (Verdict.SUCCESS, "recovery-alice")
            left = 10 - used
            assert ("Warning" in told[0]) is (left <= 3)
            name = "recovery_codes_few" if left <= 3 else "recovery_code_used"
            assert [(notice.name, notice.count) for notice in outcome.notices] == [(name, left)]
            if left > 1:
                assert f"{left} recovery codes are left" in told[0]
            again = await bench.check(text)
            assert (again.verdict, again.notices) == (Verdict.AUTH_ERR, ())
            bench.time += 10

    on_bench(tmp_path, work)


def test_a_registration_code_lets_in_once_before_its_time_is_up(tmp_path):
    """For a required user who has nothing else; then never again."""

    async def work(bench):
        code, record = recovery.registration_code(os.urandom)
        await bench.put(Kind.REGISTRATION, record.pack(), "carol", expires_at=int(TIME) + 600)
        await bench.enforce(Enforcement.REQUIRED, "carol")
        text = code.reveal().decode()
        _, told, outcome = await bench.talk(text, user="carol")
        assert outcome.verdict is Verdict.SUCCESS
        assert "otpbridge enroll totp" in told[0]
        assert (await bench.check(text, user="carol")).verdict is Verdict.AUTH_ERR
        await bench.put(Kind.REGISTRATION, record.pack(), "dave", expires_at=int(TIME) + 600)
        await bench.enforce(Enforcement.REQUIRED, "dave")
        bench.time += 600
        assert (await bench.check(text, user="dave")).verdict is Verdict.AUTH_ERR

    on_bench(tmp_path, work)


def test_a_yubikey_lets_in_once_a_touch_and_never_with_an_older_one(tmp_path):
    """Counters only go forward, over a replug too; any of several keys serves."""

    async def work(bench):
        keys = [YubiKey(id_, os.urandom(6), os.urandom(16)) for id_ in ("vvcccccccccc", "vvcccccccccd")]
        for place, key in enumerate(keys):
            await bench.yubikey(key, f"y{place}")
        await bench.enforce(Enforcement.REQUIRED)
        assert (await bench.check(keys[0].code(1))).token == "y0"
        for old in (keys[0].code(), keys[0].code(1)):
            assert (await bench.check(old)).verdict is Verdict.AUTH_ERR
        replugged = keys[0].code(256)
        assert (await bench.check(replugged.upper())).verdict is Verdict.SUCCESS
        assert (await bench.check(keys[0].code(255))).verdict is Verdict.AUTH_ERR
        assert (await bench.check(keys[1].code())).token == "y1"
        assert (await bench.check(f"secret{keys[1].code(1)}", combined=True)).code == (6, 44)

    on_bench(tmp_path, work)


# --- what counts as a guess ---

CHALLENGE = '[stacks.default]\nrules = ["sufficient totp", "requisite password", "required recovery"]\n'


@pytest.mark.parametrize("leave", ["abandon", "stay"])
def test_a_wrong_code_that_leads_to_another_question_is_counted_at_once(tmp_path, leave):
    """Leaving then is no free guess; the right one afterwards takes the count back."""

    async def work(bench):
        await bench.password(PASSWORD)
        await bench.enforce(Enforcement.REQUIRED)
        for count in range(1, 4):
            conversation, _ = await bench.judge.begin(bench.subject())
            step = await bench.judge.answer(conversation, [wrong(bench.code())])
            assert isinstance(step, Question)
            assert bench.rig.misses().misses == count
            if leave == "abandon":
                bench.judge.abandon(conversation)
        _, _, outcome = await bench.talk(bench.code())
        assert outcome.verdict is Verdict.MAXTRIES if leave == "abandon" else True
        bench.time += 1
        assert (await bench.check(bench.code())).verdict is Verdict.SUCCESS
        assert bench.rig.misses().misses == 0

    on_bench(tmp_path, work, config=CHALLENGE + "[policy]\nlimit = 3\n")


def test_parallel_guesses_at_a_question_that_leads_on_count_as_many(tmp_path):
    """Of 16 conversations with a wrong code each, a limit of 3 lets 3 see the next question."""

    async def work(bench):
        await bench.password(PASSWORD)
        await bench.enforce(Enforcement.REQUIRED)
        begun = [(await bench.judge.begin(bench.subject()))[0] for _ in range(16)]
        bad = wrong(bench.code())
        steps = await asyncio.gather(*(bench.judge.answer(each, [bad]) for each in begun))
        assert sum(isinstance(step, Question) for step in steps) == 3
        assert all(step.verdict is Verdict.MAXTRIES for step in steps if not isinstance(step, Question))

    on_bench(tmp_path, work, config=CHALLENGE + "[policy]\nlimit = 3\n")


def test_a_login_with_two_answers_costs_nothing_when_it_succeeds(tmp_path):
    """However often, whoever comes from the same place: neither the user nor the source keeps a miss."""

    async def work(bench):
        await bench.password(PASSWORD)
        await bench.enforce(Enforcement.REQUIRED)
        for _ in range(8):
            _, _, outcome = await bench.talk(PASSWORD, bench.code(), rhost="203.0.113.7")
            assert outcome.verdict is Verdict.SUCCESS
            bench.time += 30
        assert bench.rig.misses().misses == 0
        assert bench.rig.throttle(users.source_key("203.0.113.7")).misses == 0

    on_bench(tmp_path, work, config=PORTAL + "[throttle]\nlimit = 2\nsource_limit = 2\n")


def test_a_conversation_that_was_left_is_written_down(tmp_path):
    """After a guess; one that was left before it is not worth a row."""

    async def work(bench):
        await bench.password(PASSWORD)
        await bench.talk()
        await bench.talk(PASSWORD)
        await bench.rig.change(lambda t: None)
        assert [row["reason"] for row in bench.audit()] == ["left before the verdict"]

    on_bench(tmp_path, work, config=PORTAL)


class Nosy:
    """A verifier that asks without end."""

    async def verify(self, attempt):
        """Ask, and ask again."""
        while True:
            await attempt.ask(Prompt("And now? "), again=True)


def test_a_verifier_that_asks_without_end_is_stopped(tmp_path):
    """After as many questions as the configuration allows; each further answer was a guess of its own."""

    async def work(bench):
        asked, _, outcome = await bench.talk(*["no"] * 50)
        assert len(asked) == 5
        assert outcome.verdict is Verdict.AUTHINFO_UNAVAIL
        assert bench.rig.misses().misses == 5

    config = "[limits]\nquestions = 5\n[throttle]\nlimit = 100\n"
    on_bench(tmp_path, work, verifiers=(Nosy(),), rules=["required v0"], config=config)


# --- enrolment at login ---

ENROLS = (
    '[stacks.default]\nrules = ["sufficient totp", "sufficient recovery", "required enrol first_factor=caller"]\n'
)


def shown_key(told):
    """The key that was shown, as base32."""
    (line,) = [line for line in told[0].splitlines() if line.startswith("    ")]
    return line.replace(" ", "")


def test_who_must_have_an_authenticator_sets_one_up_while_logging_in(tmp_path):
    """The key is shown, a wrong code may be corrected, a right one lets in, and the next login asks for it."""
    import base64

    from otpbridge.model import OtpParameters
    from otpbridge.otp.totp import totp

    async def work(bench):
        await bench.rig.change(lambda t: users.add(t, "local", "carol"))
        await bench.enforce(Enforcement.REQUIRED, "carol")
        conversation, step = await bench.judge.begin(bench.subject("carol"))
        seed = base64.b32decode(shown_key([step.prompt.notice]))
        assert step.prompt.text == "Code that your authenticator shows: "
        step = await bench.judge.answer(conversation, ["000000"])
        assert isinstance(step, Question)
        code = totp(seed, bench.time, OtpParameters())
        outcome = await bench.judge.answer(conversation, [code])
        assert outcome.verdict is Verdict.SUCCESS
        stored = bench.rig.read(lambda connection: tokens.of_user(connection, "local", "carol"))
        assert [each.token.id for each in stored] == [outcome.token]
        assert (await bench.check(code, user="carol")).verdict is Verdict.AUTH_ERR, "the code was spent"
        bench.time += 60
        assert (await bench.check(totp(seed, bench.time, OtpParameters()), user="carol")).verdict is Verdict.SUCCESS

    on_bench(tmp_path, work, config=ENROLS)


def test_of_two_who_enrol_one_user_at_once_the_first_wins(tmp_path):
    """The other is refused and leaves no token."""
    import base64

    from otpbridge.model import OtpParameters
    from otpbridge.otp.totp import totp

    async def work(bench):
        await bench.rig.change(lambda t: users.add(t, "local", "carol"))
        await bench.enforce(Enforcement.REQUIRED, "carol")
        pairs = []
        for _ in range(2):
            conversation, step = await bench.judge.begin(bench.subject("carol"))
            seed = base64.b32decode(shown_key([step.prompt.notice]))
            pairs.append((conversation, totp(seed, bench.time, OtpParameters())))
        steps = await asyncio.gather(*(bench.judge.answer(each, [code]) for each, code in pairs))
        passed = [step for step in steps if not isinstance(step, Question) and step.verdict is Verdict.SUCCESS]
        assert len(passed) == 1
        stored = bench.rig.read(lambda connection: tokens.of_user(connection, "local", "carol"))
        assert len(stored) == 1

    on_bench(tmp_path, work, config=ENROLS)


@pytest.mark.parametrize("case", ["a stranger", "optional", "has one", "no first factor"])
def test_nobody_else_is_shown_a_key(tmp_path, case):
    """Not a stranger, not one who need not, not one who has one, and not before the first factor has passed."""

    async def work(bench):
        user = "alice"
        if case == "a stranger":
            user = "nobody"
        elif case == "optional":
            await bench.rig.change(lambda t: users.add(t, "local", "dave"))
            user = "dave"
        elif case == "no first factor":
            await bench.rig.change(lambda t: users.add(t, "local", "carol"))
            await bench.enforce(Enforcement.REQUIRED, "carol")
            user = "carol"
        _, told, outcome = await bench.talk("000000", "000000", "000000", user=user)
        assert told == []
        assert outcome.verdict is (Verdict.IGNORE if case == "optional" else Verdict.AUTH_ERR)

    strict = ENROLS.replace(" first_factor=caller", "")
    on_bench(tmp_path, work, config=strict if case == "no first factor" else ENROLS)


def test_a_password_of_the_stack_opens_the_enrolment(tmp_path):
    """A right one; a wrong one shows no key."""

    async def work(bench):
        await bench.password(PASSWORD, "carol")
        await bench.enforce(Enforcement.REQUIRED, "carol")
        assert (await bench.talk("wrong", user="carol"))[1] == []
        asked, told, _ = await bench.talk(PASSWORD, user="carol")
        assert asked == ["Password: ", "Code that your authenticator shows: "]
        assert shown_key(told)

    rules = '[stacks.default]\nrules = ["requisite password", "sufficient totp", "required enrol"]\n'
    on_bench(tmp_path, work, config=rules)


def test_who_does_not_enrol_does_not_get_in_by_the_password_alone(tmp_path):
    """Whatever the controls say: a second factor that was left out for an enrolment is owed to it."""

    async def work(bench):
        await bench.password(PASSWORD, "carol")
        await bench.enforce(Enforcement.REQUIRED, "carol")
        _, _, outcome = await bench.talk(PASSWORD, "000000", "000000", "000000", user="carol")
        assert outcome.verdict is Verdict.AUTH_ERR
        assert bench.audit()[-1]["reason"] == "required, and did not enrol"

    rules = '[stacks.default]\nrules = ["requisite password", "sufficient enrol", "sufficient totp"]\n'
    on_bench(tmp_path, work, config=rules)


@pytest.mark.parametrize("control", ["sufficient", "required"])
def test_what_explains_a_stack_knows_that_an_enrolment_is_owed(tmp_path, control):
    """No way in by the password alone, since there is none."""

    async def work(bench):
        await bench.password(PASSWORD, "carol")
        await bench.enforce(Enforcement.REQUIRED, "carol")
        told = explain(await bench.judge.case(bench.subject("carol")), int(bench.time))
        assert told.ways == ("password + enrol",)

    rules = f'[stacks.default]\nrules = ["requisite password", "{control} enrol", "sufficient totp"]\n'
    on_bench(tmp_path, work, config=rules)


# --- what people are told ---


def test_a_notice_is_given_at_the_next_login_and_once(tmp_path):
    """To who gets in, not to who is refused."""

    async def work(bench):
        await bench.rig.change(lambda t: users.leave_notice(t, "local", "alice", "You were reset."))
        assert (await bench.check("000000")).notices == ()
        assert [n.text for n in (await bench.check(bench.code())).notices] == ["You were reset."]
        bench.time += 30
        assert (await bench.check(bench.code())).notices == ()
        await bench.rig.change(lambda t: users.leave_notice(t, "local", "alice", "Again."))
        assert (await bench.talk(""))[1] == ["Again."]
        assert (await bench.talk(""))[1] == []

    on_bench(tmp_path, work)


class Talkative:
    """A first factor that passes and tells something on success."""

    factor = Factor.FIRST

    async def verify(self, attempt):
        """Ask, and accept whatever is said."""
        await attempt.ask(Prompt("Word: "))
        attempt.tell_on_success(Notice("Welcome."))
        return Verdict.SUCCESS


def test_who_is_not_in_the_store_can_be_told_something(tmp_path):
    """Let pass by nullok after a first factor that counts for nothing: no notice of theirs is looked for."""

    async def work(bench):
        outcome = await bench.check("please", user="nobody", nullok=True)
        assert (outcome.verdict, [n.text for n in outcome.notices]) == (Verdict.IGNORE, ["Welcome."])

    on_bench(tmp_path, work, verifiers=(Talkative(),), rules=["[success=ignore default=die] v0"])


# --- groups of the system ---


def test_groups_are_looked_up_in_the_system():
    """root is in root; an account that is not there is in none; a group that is not there is an error."""
    assert accounts.member_of("root", ["root"]) == "root"
    assert accounts.member_of("no-such-account-here", ["root"]) is None
    assert accounts.member_of("nobody", ["root"]) is None
    with pytest.raises(accounts.LookupFailedError, match="no system group no-such-group-here"):
        accounts.member_of("root", ["no-such-group-here"])
