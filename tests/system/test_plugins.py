"""Verifiers of other packages in a real daemon: whatever they do, others log in and nobody gets in by it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from daemon_rig import Daemon, private_folder, provision
from plugin_folder import PLUGINS, declare, environment

from otpbridge.client import RemoteError, UnavailableError
from otpbridge.daemon.room import MOST_LOST
from otpbridge.model import Verdict

pytestmark = pytest.mark.system

SECRETS = ("secret-of-the-package", "987654")
WRONG = "987654"

UNLOADABLE = {
    "absent-module": "no_such_module:X",
    "absent-class": "bad:NoSuchClass",
    "number": "bad:A_NUMBER",
    "function": "bad:a_function",
    "no-verify": "bad:NoVerify",
    "import-raises": "bad_import:X",
    "import-exits": "bad_exit:X",
    "import-hangs": "bad_hang:X",
    "init-raises": "bad:RaisesInInit",
    "init-wants-more": "bad:WantsMore",
    "odd-factor": "bad:OddFactor",
    "odd-prompt": "bad:OddPrompt",
    "odd-places": "bad:OddPlaces",
    "odd-options": "bad:OddOptions",
    "broken-options": "bad:BrokenOptions",
}
FAILING = {
    "raises": "bad:Raises",
    "raises-ours": "bad:RaisesOurs",
    "raises-at-once": "bad:RaisesAtOnce",
    "exits": "bad:Leaves by=SystemExit",
    "interrupts": "bad:Leaves by=KeyboardInterrupt",
    "generator-exit": "bad:Leaves by=GeneratorExit",
    "cancels": "bad:Leaves by=CancelledError",
    "stop-iteration": "bad:Leaves by=StopIteration",
    "says-none": "bad:Says what=None",
    "says-true": "bad:Says what=True",
    "says-text": "bad:Says what=text",
    "says-zero": "bad:Says what=zero",
    "says-error": "bad:Says what=error",
    "not-async": "bad:NotAsync",
    "sleeps": "bad:Sleeps",
    "sleeps-after-asking": "bad:SleepsAfterAsking",
    "sleeps-in-the-pool": "bad:SleepsInThePool",
    "awaits": "bad:Awaits",
    "clings": "bad:Clings",
    "asks-at-once": "bad:AsksAtOnce",
    "tells-at-once": "bad:TellsAtOnce",
    "spends-and-fails": "bad:SpendsAndFails",
}
VAIN = {
    "loses-a-task": "bad:LosesATask",
    "loses-a-thread": "bad:LosesAThread",
    "asks-oddly": "bad:AsksOddly",
    "tells": "bad:Tells",
    "spends-nonsense": "bad:SpendsNonsense",
    "steals": "bad:Steals",
    "keeps": "bad:Keeps",
    "changes": "bad:Changes",
}
"""They find that nothing of what they try works, and say `authinfo_unavail`."""
FRIENDLY = {
    "asks-forever": "bad:AsksForever",
    "asks-from-a-thread": "bad:AsksFromAThread",
    "out-of-band": "bad:OutOfBand",
    "sesame": "bad:Sesame",
    "sesame-first": "bad:SesameFirst",
}
_numbers = itertools.count()


def stacks(verifiers):
    """A stack for each verifier alone, and one in which totp comes after it."""
    lines = []
    for name, target in verifiers.items():
        _, _, options = target.partition(" ")
        rule = f"{name} {options}".rstrip()
        lines += [f'[stacks.{name}]\nrules = ["required {rule}"]']
        lines += [f'[stacks.{name}-or-totp]\nrules = ["sufficient {rule}", "required totp"]']
    return "\n".join(lines)


@contextlib.contextmanager
def serving(verifiers, *, config="", limits="verifier = 1"):
    """A daemon with these verifiers installed."""
    with private_folder() as folder:
        declare(folder / "site", "bad", {name: target.partition(" ")[0] for name, target in verifiers.items()})
        text = f"[limits]\n{limits}\n{config}\n{stacks(verifiers)}\n"
        with Daemon(folder, config=text, environment=environment(folder / "site", PLUGINS)) as daemon:
            yield daemon


@pytest.fixture(scope="module")
def unloadable():
    """A daemon with all verifiers that cannot be made."""
    with serving(UNLOADABLE) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def failing():
    """A daemon with all verifiers that fail, or try in vain."""
    with serving(FAILING | VAIN) as daemon:
        yield daemon


@pytest.fixture
def friendly():
    """A daemon with verifiers that do what they may."""
    with serving(FRIENDLY, config="[throttle]\nlimit = 100\n", limits="verifier = 60") as daemon:
        yield daemon


def someone(daemon):
    """A user with a token."""
    user = f"user{next(_numbers)}"
    return user, provision(daemon, [user])[user]


def verdict(daemon, user, code, stack=None):
    """What the daemon says to one code."""
    with daemon.client() as client:
        return client.verify(user, code, stack=stack).verdict


def refuses_alone_and_lets_others_go_on(daemon, name):
    """The rule says `authinfo_unavail`; with totp after it, the right code lets in once."""
    user, key = someone(daemon)
    assert verdict(daemon, user, WRONG, name) is Verdict.AUTHINFO_UNAVAIL
    code = key.code()
    assert verdict(daemon, user, code, f"{name}-or-totp") is Verdict.SUCCESS
    assert verdict(daemon, user, code, f"{name}-or-totp") is Verdict.AUTH_ERR
    assert all(secret not in daemon.log for secret in (*SECRETS, code))
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("name", UNLOADABLE)
def test_what_cannot_be_made_refuses_and_the_others_go_on(unloadable, name):
    """Whatever is wrong with a package, the daemon starts, says so, and judges by the other rules."""
    refuses_alone_and_lets_others_go_on(unloadable, name)
    assert f"verifier {name} (" in unloadable.log


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_refuses_and_the_others_go_on(failing, name):
    """Whatever a verifier does, its rule refuses, the next one judges, and no answer gets into the log."""
    refuses_alone_and_lets_others_go_on(failing, name)
    assert f"verifier {name} failed" in failing.log


@pytest.mark.parametrize("name", VAIN)
def test_what_is_tried_in_vain_does_no_harm(failing, name):
    """Neither the reply nor the store nor the log can be broken by a verifier, nor can it use what is not its own."""
    refuses_alone_and_lets_others_go_on(failing, name)


def test_a_first_factor_cannot_look_away():
    """A login without a second factor rests on the first: `ignore` of it refuses."""
    with serving({"looks-away": "bad:Looks"}) as daemon:
        user, key = someone(daemon)
        assert verdict(daemon, user, key.code(), "looks-away") is Verdict.AUTHINFO_UNAVAIL


def test_nothing_is_waived_of_what_cannot_be_made():
    """It might be the password: who is exempt from the second factor does not get in without it."""
    with serving({"gone": "no_such_module:X"}) as daemon, daemon.client() as client:
        # Nobody in the store, whom a configuration ignores: the mode in which second factors are left out.
        assert client.verify("nobody", "x", stack="gone", nullok=True).verdict is Verdict.AUTHINFO_UNAVAIL
        assert client.verify("nobody", "x", nullok=True).verdict is Verdict.IGNORE


def test_a_reply_holds_what_fits_into_it(failing):
    """Who is told without end hears the beginning, and gets a verdict."""
    user, _ = someone(failing)
    with failing.client() as client, client.begin(user, stack="tells") as talk:
        assert talk.answer(WRONG).verdict is Verdict.AUTHINFO_UNAVAIL
        assert 0 < sum(len(notice.text) for notice in talk.notices) <= 8192


def test_a_token_cannot_be_made_younger_than_it_is(failing):
    """A copy of it in which no code is spent yet spends none of those again."""
    user, key = someone(failing)
    assert verdict(failing, user, key.code()) is Verdict.SUCCESS
    assert verdict(failing, user, WRONG, "steals") is Verdict.AUTHINFO_UNAVAIL


def test_a_kept_attempt_is_of_no_use(failing):
    """What was handed to a verifier once can neither tell, ask, open nor spend after its verdict."""
    user, _ = someone(failing)
    for _ in range(2):
        assert verdict(failing, user, WRONG, "keeps") is Verdict.AUTHINFO_UNAVAIL


def test_what_is_allowed_works(friendly):
    """A verifier may know otherwise, ask from a thread of its own, and let in by what was answered."""
    user, _ = someone(friendly)
    assert verdict(friendly, user, None, "out-of-band") is Verdict.SUCCESS
    for name in ("sesame", "sesame-first", "asks-from-a-thread"):
        assert verdict(friendly, user, "open sesame", name) is Verdict.SUCCESS
        assert verdict(friendly, user, WRONG, name) is Verdict.AUTH_ERR


def test_nobody_is_asked_for_ever(friendly):
    """After `[limits] questions` answers the verifier has failed."""
    user, _ = someone(friendly)
    with friendly.client() as client, client.begin(user, stack="asks-forever") as talk:
        answers = 0
        while talk.verdict is None:
            talk.answer("more")
            answers += 1
    assert (answers, talk.verdict) == (10, Verdict.AUTHINFO_UNAVAIL)


def test_a_verifier_that_spins_slows_the_daemon_down_and_no_more():
    """While threads of it hold the interpreter, others log in, the configuration is read again, and the end comes."""
    with serving({"spins": "bad:Spins"}) as daemon:
        user, key = someone(daemon)
        for _ in range(2):
            assert verdict(daemon, user, WRONG, "spins") is Verdict.AUTHINFO_UNAVAIL
        assert verdict(daemon, user, key.code(), "spins-or-totp") is Verdict.SUCCESS
        daemon.reload()
        other, key = someone(daemon)
        assert verdict(daemon, other, key.code()) is Verdict.SUCCESS


def test_threads_that_never_end_are_few_whatever_is_done():
    """Neither calls, nor clients that hang up, nor reloads make them more; what is refused is refused at once."""
    with serving({"sleeps": "bad:SleepsAfterAsking", "clings": "bad:Clings"}) as daemon:
        user, key = someone(daemon)
        before = threads(daemon)

        def talk(stack):
            with daemon.client() as client, client.begin(user, stack=stack) as started:
                return started.answer(WRONG).verdict

        daemon.configure(daemon.config_file.read_text() + "[throttle]\nlimit = 1000\n")
        daemon.reload()
        for stack in ("sleeps", "clings"):
            with ThreadPoolExecutor(MOST_LOST) as pool:
                said = list(pool.map(talk, [stack] * MOST_LOST))
            assert set(said) == {Verdict.AUTHINFO_UNAVAIL}
            daemon.reload()
            for _ in range(3 * MOST_LOST):
                assert verdict(daemon, user, WRONG, stack) is Verdict.AUTHINFO_UNAVAIL
                with daemon.client() as client, client.begin(user, stack=stack):
                    pass  # hangs up
        assert threads(daemon) <= before + 2 * MOST_LOST
        assert daemon.log.count(f"{MOST_LOST} calls of it are overdue and not back") >= 2
        assert verdict(daemon, user, key.code(), "sleeps-or-totp") is Verdict.SUCCESS


def threads(daemon):
    """How many threads the daemon has."""
    return len(os.listdir(f"/proc/{daemon.pid}/task"))


def test_what_was_overdue_may_come_back():
    """A verifier that a slow network held up is asked again once its calls have ended."""
    with private_folder() as folder:
        gate, begun = folder / "gate", folder / "begun"
        os.mkfifo(gate)
        with serving({"waits": f"bad:Waits gate={gate} begun={begun}"}, config="[throttle]\nlimit = 1000") as daemon:
            user, _ = someone(daemon)
            with ThreadPoolExecutor(MOST_LOST) as pool:
                said = list(pool.map(lambda _: verdict(daemon, user, "x", "waits"), range(MOST_LOST)))
            assert set(said) == {Verdict.AUTHINFO_UNAVAIL}
            assert verdict(daemon, user, "x", "waits") is Verdict.AUTHINFO_UNAVAIL
            daemon.wait_for("overdue and not back")
            assert begun.read_text() == "x" * MOST_LOST, "the last one was not called"
            with opened(gate):
                while verdict(daemon, user, "x", "waits") is not Verdict.SUCCESS:
                    pass


@contextlib.contextmanager
def opened(gate):
    """Let everyone through who waits at a pipe, and who comes later: it has a writer, and then it has none."""
    with ThreadPoolExecutor(1) as pool:
        stop = False

        def let_through():
            while not stop:
                with contextlib.suppress(OSError):
                    os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))

        task = pool.submit(let_through)
        try:
            yield
        finally:
            stop = True
            task.result()


@pytest.mark.parametrize("name", ["sleeps", "pool", "spins", "clings", "parked"])
def test_the_end_waits_for_no_verifier(name):
    """SIGTERM ends the daemon in its time while verifiers hang, in threads of any kind."""
    verifiers = {
        "sleeps": "bad:SleepsAfterAsking",
        "pool": "bad:SleepsInThePool",
        "spins": "bad:Spins",
        "clings": "bad:Clings",
        "parked": "bad:Sesame",
    }
    with serving({name: verifiers[name]}) as daemon:
        user, _ = someone(daemon)
        with daemon.client() as client, client.begin(user, stack=name) as talk:
            if name != "parked":
                assert talk.answer(WRONG).verdict is Verdict.AUTHINFO_UNAVAIL
            assert daemon.stop() == 0


def test_a_call_in_flight_is_cut_off_at_the_end_and_refused():
    """Who waits for a verifier that hangs when the daemon is stopped does not get in."""
    with serving({"sleeps": "bad:SleepsAfterAsking"}, limits="verifier = 120") as daemon:
        user, _ = someone(daemon)
        before = threads(daemon)
        with daemon.client() as client, ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.verify, user, WRONG, stack="sleeps")
            while threads(daemon) == before:
                pass
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
            with pytest.raises((RemoteError, UnavailableError)):
                call.result()


def test_the_limit_holds_for_answers_that_are_handed_over():
    """Of many guesses at a moment, no more reach a verifier than back-off allows, also where clients hang up."""
    with private_folder() as folder:
        gate, begun = folder / "gate", folder / "begun"
        os.mkfifo(gate)
        with serving({"waits": f"bad:Waits gate={gate} begun={begun}"}, config="[throttle]\nlimit = 3") as daemon:
            user, _ = someone(daemon)
            with ThreadPoolExecutor(16) as pool:
                said = list(pool.map(lambda _: verdict(daemon, user, "x", "waits"), range(16)))
            assert begun.read_text() == "xxx"
            assert sorted(said) == [Verdict.AUTHINFO_UNAVAIL] * 3 + [Verdict.MAXTRIES] * 13
            with opened(gate):
                pass


def test_other_packages_cannot_take_a_name_of_ours():
    """Two packages with one name: otpbridge's own is used, of strangers neither; the log says so."""
    with private_folder() as folder:
        declare(folder / "one", "one", {"totp": "bad:OutOfBand", "twice": "bad:OutOfBand"})
        declare(folder / "two", "two", {"twice": "bad:OutOfBand"})
        config = '[stacks.twice]\nrules = ["required twice"]\n'
        environ = environment(folder / "one", folder / "two", PLUGINS)
        with Daemon(folder, config=config, environment=environ) as daemon:
            user, _ = someone(daemon)
            assert verdict(daemon, user, WRONG) is Verdict.AUTH_ERR
            assert verdict(daemon, user, WRONG, "twice") is Verdict.AUTHINFO_UNAVAIL
            assert "verifier totp is declared by several packages (one, otpbridge)" in daemon.log
            assert "verifier twice is declared by several packages (one, two): none of them is used" in daemon.log


def test_where_no_thread_can_be_started_the_rule_refuses_and_the_others_go_on():
    """Out of threads, the daemon still judges what needs none, and what needs one again once there is room."""
    names = {"sesame": "bad:Sesame", "sesame-first": "bad:SesameFirst"}
    with serving(names, limits="verifier = 120\nconnections_trusted = 8192") as daemon:
        user, key = someone(daemon)
        with contextlib.ExitStack() as held:
            client = held.enter_context(daemon.client())
            while True:
                talk = held.enter_context(client.begin(user, stack="sesame"))
                if talk.verdict is not None:
                    break
            assert talk.verdict is Verdict.AUTHINFO_UNAVAIL
            assert verdict(daemon, user, "open sesame", "sesame-first") is Verdict.AUTHINFO_UNAVAIL
            assert verdict(daemon, user, key.code(), "sesame-or-totp") is Verdict.SUCCESS
            assert "threads of verifiers are running or wait for a person" in daemon.log
        while verdict(daemon, user, "open sesame", "sesame") is not Verdict.SUCCESS:
            pass
