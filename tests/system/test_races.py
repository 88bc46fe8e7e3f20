"""Many at once: a code counts once, a limit holds exactly, and the test itself can fail."""

from __future__ import annotations

import itertools
import os
import pwd
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import crowd
import pammodule
import pytest
from crowd import LEFT, Round, Way
from daemon_rig import LONG, ONE_TIME, Daemon, Key, private_folder, provision, put

from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = [pytest.mark.system, pytest.mark.campaign, pytest.mark.timeout(1800)]

ROUNDS = 100 if LONG else 15
FEW = 30 if LONG else 5
"""Rounds of those tests of which there are many."""
CROWDS = [(kind, size) for kind in ONE_TIME for size in (2, 8, 64) if size == 64 or LONG or kind is Kind.TOTP]
GUESSES = 16
LIMIT = 3
CONFIG = f"""
[throttle]
limit = {LIMIT}
source_limit = {LIMIT}
first_wait = 300
"""


@pytest.fixture
def folder():
    with private_folder() as path:
        yield path


def service(folder, text):
    """A PAM service of its own; the folder and name of it."""
    place = folder / "pam.d"
    place.mkdir()
    (place / "otp").write_text(text + "\n")
    return place, "otp"


def our_service(folder, *options):
    line = f"auth required {pammodule.build()} socket={folder / 'run' / 'verify'} {' '.join(options)}"
    return service(folder, line)


def one_code_rounds(daemon, kind, count=ROUNDS):
    """A round for each of many users: the code that is right for that user now."""
    keys = provision(daemon, [f"user{number}" for number in range(count)], kind=kind)
    return [Round([user], [key.code()]) for user, key in keys.items()]


@pytest.mark.parametrize(("kind", "size"), CROWDS)
def test_one_code_from_many_clients_at_once_is_accepted_once(folder, kind, size):
    """Whoever sends a code that somebody else sends at the same moment: one of them gets in, in every round."""
    with Daemon(folder) as daemon:
        accepted_once(daemon, one_code_rounds(daemon, kind), size, Way.CHECK)


@pytest.mark.parametrize("kind", ONE_TIME)
def test_one_code_in_many_conversations_at_once_is_accepted_once(folder, kind):
    """Sixty-four who were all asked before any of them answered with the one code: one gets in."""
    with Daemon(folder) as daemon:
        accepted_once(daemon, one_code_rounds(daemon, kind, FEW), 64, Way.TALK)


def accepted_once(daemon, rounds, size, way):
    """Every round has one success, in what the clients hear and in the log."""
    outcomes = crowd.over_socket(daemon.verify_socket, size, rounds, way)
    assert [verdicts.count("success") for verdicts in outcomes] == [1] * len(rounds)
    others = Counter(verdict for verdicts in outcomes for verdict in verdicts) - Counter(success=len(rounds))
    assert set(others) <= {"auth_err", "maxtries"}
    successes = Counter(entry.user for entry in daemon.audit() if entry.verdict == "success")
    assert successes == Counter(each.users[0] for each in rounds)
    daemon.check_audit()


@pytest.mark.parametrize(("kind", "size"), CROWDS)
def test_one_code_in_many_logins_at_once_opens_one(folder, kind, size):
    """Logins that stand at the prompt together and answer with the same code: PAM lets exactly one in."""
    with Daemon(folder) as daemon:
        rounds = one_code_rounds(daemon, kind)
        outcomes = crowd.through_pam(*our_service(folder), size, rounds)
        assert [codes.count(0) for codes in outcomes] == [1] * ROUNDS
        assert {code for codes in outcomes for code in codes} <= {0, 7, 11}
        daemon.check_audit()


def google_authenticator_rounds(folder):
    """Secret files as `google-authenticator --time-based --disallow-reuse` writes them, and their codes."""
    rounds = []
    for number in range(ROUNDS):
        key = Key(period=30)
        path = folder / f"user{number}"
        secret = key.uri.partition("secret=")[2].partition("&")[0]
        path.write_text(f'{secret}\n" RATE_LIMIT 100 30\n" WINDOW_SIZE 3\n" DISALLOW_REUSE\n" TOTP_AUTH\n')
        path.chmod(0o600)
        rounds.append(Round([path.name], [key.code()]))
    return rounds


def test_the_same_logins_through_another_module_show_that_this_can_fail(folder):
    """Debian's pam_google_authenticator with DISALLOW_REUSE lets one code in several times."""
    peer = next(Path("/").glob("lib/*/security/pam_google_authenticator.so"), None)
    if peer is None:
        pytest.skip("libpam-google-authenticator is not installed")
    me = pwd.getpwuid(os.geteuid()).pw_name
    stack = service(folder, f"auth required {peer} secret={folder}/${{USER}} user={me}")
    outcomes = crowd.through_pam(*stack, 8, google_authenticator_rounds(folder))
    accepted = [codes.count(0) for codes in outcomes]
    assert all(accepted), "it must work at all"
    assert sum(accepted) > ROUNDS
    assert sum(count > 1 for count in accepted) >= ROUNDS // 3


def ruled(order, judged_before_success=LIMIT):
    """What back-off must say to verdicts given in this order: at most so many wrong ones in a row are judged."""
    misses = 0
    for verdict in order:
        if misses >= judged_before_success:
            assert verdict == "maxtries"
        elif verdict == "success":
            misses = 0
        else:
            assert verdict == "auth_err"
            misses += 1
    return misses


def guesses(key):
    """One right code among wrong ones, in an order of chance."""
    answers = [key.code(), *key.wrong(GUESSES - 1)]
    random.shuffle(answers)
    return answers


@pytest.mark.parametrize("kind", ONE_TIME)
@pytest.mark.parametrize("way", [Way.CHECK, Way.TALK])
def test_a_limit_of_three_lets_three_of_sixteen_guesses_be_judged(folder, kind, way):
    """Sixteen guesses at once, one of them right: three are judged, every one counts and stands in the log."""
    with Daemon(folder, config=CONFIG) as daemon:
        keys = provision(daemon, [f"user{number}" for number in range(ROUNDS)], kind=kind)
        rounds = [Round([user], guesses(key)) for user, key in keys.items()]
        outcomes = crowd.over_socket(daemon.verify_socket, GUESSES, rounds, way)
        judged_within_the_limit(daemon, rounds, outcomes)


def judged_within_the_limit(daemon, rounds, outcomes):
    """What clients heard, what the log holds and what is counted agree, and keep to the limit."""
    log = daemon.audit()
    for each, verdicts in zip(rounds, outcomes, strict=True):
        (user,) = each.users
        order = [entry.verdict for entry in log if entry.event == "verify" and entry.user == user]
        assert sorted(order) == sorted(verdicts)
        assert len(order) == GUESSES
        misses = ruled(order)
        shown = daemon.show(user)
        assert shown.misses == misses == LIMIT
        assert shown.refused == order.count("maxtries")
        if "success" in order:
            assert order.index("success") < LIMIT
        else:
            assert LIMIT + shown.refused == GUESSES
    got_in = sum(verdicts.count("success") for verdicts in outcomes)
    # By chance 3 of 16 would get in; far more would mean that guesses are judged that should not be.
    assert got_in <= ROUNDS // 2


def two_questions(kind):
    """A stack that asks for something else where the code was wrong."""
    verifier = Kind.RECOVERY if kind is Kind.REGISTRATION else kind
    return f'[stacks.two]\nrules = ["sufficient {verifier}", "required password"]\n'


@pytest.mark.parametrize("kind", ONE_TIME)
@pytest.mark.parametrize("way", [Way.CANCEL, Way.HANG_UP])
def test_leaving_before_the_verdict_is_no_free_guess(folder, kind, way):
    """A wrong code leads to another question, which nobody answers: it counts as a guess all the same."""
    with Daemon(folder, config=CONFIG + two_questions(kind)) as daemon:
        keys = provision(daemon, [f"user{number}" for number in range(FEW)], kind=kind)
        rounds = [Round([user], key.wrong(GUESSES), stack="two") for user, key in keys.items()]
        outcomes = crowd.over_socket(daemon.verify_socket, GUESSES, rounds, way)
        for (user, key), verdicts in zip(keys.items(), outcomes, strict=True):
            assert Counter(verdicts) == {LEFT: LIMIT, "maxtries": GUESSES - LIMIT}
            assert daemon.show(user).misses == LIMIT
            with daemon.client() as client:
                assert client.verify(user, key.code()).verdict == "maxtries"
        # The daemon hears of the end of a connection in its own time.
        following = messages.AuditTail(count=100_000, follow=True)
        with daemon.admin() as admin, closing(admin.stream(following)) as replies:
            rows = (entry for reply in replies for entry in reply.entries)
            left = (entry for entry in rows if entry.reason == "left before the verdict")
            assert len(list(itertools.islice(left, FEW * LIMIT))) == FEW * LIMIT


def test_who_leaves_does_not_find_the_right_code_either(folder):
    """The right code among the guesses of people who leave: it gets in no more often than chance has it."""
    rounds_of_two = ROUNDS * 2
    with Daemon(folder, config=CONFIG + two_questions(Kind.TOTP)) as daemon:
        keys = provision(daemon, [f"user{number}" for number in range(rounds_of_two)])
        rounds = [Round([user], guesses(key), stack="two") for user, key in keys.items()]
        outcomes = crowd.over_socket(daemon.verify_socket, GUESSES, rounds, Way.CANCEL)
        for verdicts in outcomes:
            # A success gives back what was counted before it: three more after it at most.
            assert verdicts.count(LEFT) <= (2 * LIMIT if "success" in verdicts else LIMIT)
        assert sum(verdicts.count("success") for verdicts in outcomes) <= rounds_of_two // 2


@pytest.mark.parametrize("way", [Way.CHECK, Way.CANCEL, Way.HANG_UP])
def test_a_limit_of_three_lets_three_of_sixteen_passwords_be_judged(folder, way):
    """Sixteen wrong passwords at once, one after the other or left half-way: three are judged, each counts once."""
    stack = '[stacks.portal]\nrules = ["requisite password", "sufficient totp"]\n'
    with Daemon(folder, config=CONFIG + stack) as daemon, daemon.admin() as admin:
        keys = provision(daemon, [f"user{number}" for number in range(FEW)])
        for user in keys:
            admin.call(messages.SetPassword(user=user, password="correct horse battery"))
        rounds = [Round([user], [f"guess {number}" for number in range(GUESSES)], stack="portal") for user in keys]
        for user, verdicts in zip(keys, crowd.over_socket(daemon.verify_socket, GUESSES, rounds, way), strict=True):
            assert Counter(verdicts) == {"auth_err": LIMIT, "maxtries": GUESSES - LIMIT}
            shown = daemon.show(user)
            assert (shown.misses, shown.refused) == (LIMIT, GUESSES - LIMIT)


def test_the_limit_holds_through_pam(folder):
    """Sixteen logins that answer at once with different codes: no more than three are judged."""
    with Daemon(folder, config=CONFIG) as daemon:
        keys = provision(daemon, [f"user{number}" for number in range(ROUNDS)])
        rounds = [Round([user], guesses(key), f"192.0.2.{place}") for place, (user, key) in enumerate(keys.items())]
        outcomes = crowd.through_pam(*our_service(folder), GUESSES, rounds)
        log = daemon.audit()
        for each, codes in zip(rounds, outcomes, strict=True):
            order = [entry.verdict for entry in log if entry.event == "verify" and entry.user == each.users[0]]
            assert len(order) == GUESSES
            misses_until = order.index("success") if "success" in order else LIMIT
            assert misses_until <= LIMIT
            assert codes.count(0) == order.count("success")
            if 0 not in codes:
                assert (codes.count(7), codes.count(11)) == (LIMIT, GUESSES - LIMIT)


def source_row(daemon, rhost):
    """What the store counts of a source."""
    with sqlite3.connect(f"file:{daemon.state_dir}/otpbridge.db?mode=ro", uri=True) as store:
        (row,) = store.execute("SELECT misses, refused FROM throttle WHERE key = ?", [f"source/{rhost}"]).fetchall()
    store.close()
    return row


def test_a_limit_per_source_holds_over_many_users(folder):
    """Sixteen users guessed at from one address at once: three wrong codes are judged, every guess counts."""
    with Daemon(folder, config=CONFIG) as daemon:
        keys = provision(daemon, [f"user{number}" for number in range(GUESSES * ROUNDS)])
        rounds = []
        for place in range(ROUNDS):
            users = [f"user{place * GUESSES + number}" for number in range(GUESSES)]
            right = random.randrange(GUESSES)
            answers = [
                keys[user].code() if number == right else keys[user].wrong()[0] for number, user in enumerate(users)
            ]
            rounds.append(Round(users, answers, f"198.51.100.{place}"))
        outcomes = crowd.over_socket(daemon.verify_socket, GUESSES, rounds)
        log = daemon.audit()
        for each, verdicts in zip(rounds, outcomes, strict=True):
            count = Counter(verdicts)
            assert count["auth_err"] == LIMIT
            assert count["success"] <= 1
            assert sum(entry.rhost == each.rhost for entry in log) == GUESSES
            assert source_row(daemon, each.rhost) == (LIMIT, count["maxtries"])
            assert count["maxtries"] + count["auth_err"] + count["success"] == GUESSES


def test_misses_survive_the_end_of_the_daemon(folder):
    """Who has used up the limit stays refused when the daemon is killed and started again."""
    daemon = Daemon(folder, config=CONFIG)
    key = Key()
    with daemon:
        put(daemon, {"alice": key})
        with daemon.client() as client:
            assert [client.verify("alice", code).verdict for code in key.wrong(LIMIT)] == ["auth_err"] * LIMIT
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            refused = client.verify("alice", key.code())
        assert refused.verdict == "maxtries"
        assert 0 < refused.retry_after <= 300
