"""The verifier that asks another PAM service, here through the root helper and without libpam."""

from __future__ import annotations

import subprocess
import sys
from ctypes import util

import pytest
from fake_attempt import FakeAttempt, judge

from otpbridge.errors import ConfigError, UnavailableError
from otpbridge.model import Factor, Verdict
from otpbridge.verify.builtin import pam
from otpbridge.verify.builtin.pam import Pam


@pytest.fixture
def asked(monkeypatch):
    """What the helper was asked; it knows one password."""
    requests = []

    def ask(path, user, password):
        requests.append((path, user, password))
        return Verdict.SUCCESS if password == "right" else Verdict.AUTH_ERR

    monkeypatch.setattr(pam, "ask", ask)
    return requests


def helped():
    return Pam(Pam.Options(helper="/run/otpbridge/pam-helper"))


@pytest.mark.parametrize(("typed", "verdict"), [("right", Verdict.SUCCESS), ("wrong", Verdict.AUTH_ERR)])
def test_the_password_is_asked_for_and_pam_judges_it(asked, typed, verdict):
    """The person is asked for a password, not for a code, and the verdict is PAM's."""
    trying = FakeAttempt(answers=[typed], given={"code": "123456"})
    assert judge(helped(), trying) is verdict
    assert asked == [("/run/otpbridge/pam-helper", "alice", typed)]
    assert (trying.asked, trying.spends) == (["Password: "], {})


def test_a_password_already_given_is_not_asked_for_again(asked):
    """What the person typed at an earlier password prompt is tried."""
    trying = FakeAttempt(given={"password": "right"})
    assert judge(helped(), trying) is Verdict.SUCCESS
    assert trying.asked == []


def test_users_of_other_clients_are_not_linux_accounts(asked):
    """The alice of a portal is not the alice of this machine: asked as everybody is, and refused."""
    trying = FakeAttempt(answers=["right"], client="shop")
    assert judge(helped(), trying) is Verdict.AUTH_ERR
    assert (trying.asked, asked) == (["Password: "], [])


def test_no_password_is_a_wrong_password(asked):
    """PAM is not asked whether an account has an empty password."""
    assert judge(helped(), FakeAttempt(answers=[""])) is Verdict.AUTH_ERR
    assert asked == []


def test_a_helper_that_does_not_answer_passes_nobody(tmp_path):
    """The error goes to whoever runs the stack, which makes `authinfo_unavail` of it."""
    verifier = Pam(Pam.Options(helper=str(tmp_path / "nobody")))
    with pytest.raises(UnavailableError):
        judge(verifier, FakeAttempt(answers=["right"]))


def test_a_service_that_does_not_exist_is_an_error_of_the_configuration():
    """It is found when the stack is loaded, not at the first login."""
    with pytest.raises(ConfigError, match="otpbridge-test-no-such"):
        Pam(Pam.Options(service="otpbridge-test-no-such"))


def test_without_libpam_the_error_says_what_to_install(monkeypatch):
    """A system without libpam: the verifier does not load, and the message names the packages."""
    script = (
        "from ctypes import util\n"
        "util.find_library = lambda name: None\n"
        "from otpbridge.helper import service\n"
        "service._FOLDERS = ('/proc/self',)\n"
        "from otpbridge.verify.builtin.pam import Pam\n"
        "Pam(Pam.Options(service='status'))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert "ConfigError: PAM service status: libpam cannot be loaded" in done.stderr, util.find_library("pam")


def test_it_is_a_first_factor():
    """Policy asks for a password whatever it says of the second factor."""
    assert Pam.factor is Factor.FIRST
    assert Pam.Options() == Pam.Options(service="otpbridge-password", helper="")
