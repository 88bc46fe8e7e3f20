"""What `otpbridge doctor` makes of files of pam.d and of sshd's settings: each trap is told, sound files pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from libpam_stacks import Libpam
from pamstack import PAM_SUCCESS

from otpbridge.cli.doctor import pam, sshd
from otpbridge.cli.doctor.findings import Level

ROOT = Path(__file__).parents[2]
OURS = "pam_otpbridge.so"
DEBIAN_AUTH = (
    "auth\t[success=1 default=ignore]\tpam_unix.so nullok\n"
    "auth\trequisite\tpam_deny.so\n"
    "auth\trequired\tpam_permit.so\n"
)
BOTH = f"auth required {OURS}\naccount required {OURS}\n"


def told(files):
    """Level, words and mending of each finding but those that are well."""
    return [(each.level, each.said, each.mend) for each in pam.judge(files) if each.level is not Level.OK]


def one(files):
    """The only finding."""
    (found,) = told(files)
    assert found[2], "what to do is always said"
    return found


@pytest.mark.parametrize(
    "files",
    [
        {"sshd": "@include common-auth\n" + BOTH, "common-auth": DEBIAN_AUTH},
        {"sudo": f"auth required {OURS} [prompt=Your code:] timeout=30 \\\n  debug\n-account required {OURS}\n"},
        {"su": f"auth sufficient pam_rootok.so\nauth required pam_unix.so\n{BOTH}"},
        {"sshd": "auth substack password-auth\n" + BOTH, "password-auth": "auth sufficient pam_unix.so\n"},
        {"x": f"auth sufficient {OURS}\nauth required pam_deny.so\naccount required {OURS}\n"},
        {"x": f"auth [success=ok ignore=ignore default=die] {OURS} # nothing else\naccount required {OURS}\n"},
        {"x": f"# auth optional {OURS} nonsense\n{BOTH}"},
        {
            "common-auth": DEBIAN_AUTH + f"auth required {OURS}\n",
            "common-account": f"account required {OURS} nullok\n",
            "cron": "@include common-auth\n@include common-account\n",
        },
        {
            "x": f"auth requisite {OURS} forward_pass\nauth required pam_unix.so use_first_pass\n"
            f"account required {OURS}\n"
        },
    ],
)
def test_sound_files_pass(files):
    """What the documentation says, and what distributions do, is not complained of."""
    assert told(files) == []


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("tiemout=3", "write `timeout=3` there"),
        ("alwaysok", "alwaysok"),
        ("timeout=0", "from 1 to 300"),
        ("timeout=1e2", "from 1 to 300"),
        ("timeout", "needs a value"),
        ("nullok=yes", "takes no value"),
        ("socket=run/verify", "absolute path"),
        (f"socket=/{'x' * 120}", "107 bytes"),
        ("stack=a/b", "letters, digits"),
        ("use_first_pass try_first_pass", "exclude each other"),
    ],
)
def test_an_argument_that_the_module_refuses_is_told(argument, said):
    """With it all logins would be refused: the file, the line, and what to write."""
    level, words, mend = one(
        {"sshd": f"auth required pam_unix.so\nauth required {OURS} {argument}\naccount required {OURS}\n"}
    )
    assert level is Level.FAIL
    assert "sshd, line 2" in words
    assert said in words + mend


def test_the_options_are_those_of_the_module():
    """Each option of pam/options.c with whether it takes a value, and no other."""
    rows = re.findall(r'^    \{"([\w-]+)", (true|false), ', (ROOT / "pam/options.c").read_text(), re.MULTILINE)
    assert {name: value == "true" for name, value in rows} == {
        name: check is not None for name, check in pam.OPTIONS.items()
    }


@pytest.mark.parametrize(
    ("auth", "level", "said"),
    [
        (f"auth optional {OURS}", Level.FAIL, "`optional` does not refuse"),
        (f"auth [success=ok default=ignore] {OURS}", Level.FAIL, "does not refuse"),
        (f"auth [success=ok authinfo_unavail=ignore default=die] {OURS}", Level.FAIL, "authinfo_unavail"),
        (f"auth [success=2 default=1] {OURS}\nauth required pam_deny.so", Level.FAIL, "does not refuse"),
        (f"auth sufficient {OURS}\nauth required pam_unix.so", Level.WARN, "passes over a wrong one"),
        (f"auth required pam_unix.so\nauth sufficient {OURS}", Level.FAIL, "what stands above it lets in"),
        (f"auth required pam_unix.so\nauth sufficient {OURS}\nauth optional pam_deny.so", Level.FAIL, "stands above"),
        (f"auth sufficient pam_unix.so\nauth required {OURS}", Level.FAIL, "whom pam_unix.so lets through"),
        (f"auth [success=done default=die] pam_unix.so\nauth required {OURS}", Level.FAIL, "never comes to"),
        (
            f"auth [success=1 default=ignore] pam_unix.so\nauth required {OURS}\nauth required pam_permit.so",
            Level.FAIL,
            "never comes to",
        ),
        (f"auth [success=1 default=ignore] pam_succeed_if.so uid = 0\nauth required {OURS}", Level.WARN, "not asked"),
        (
            f"auth [success=2 default=ignore] pam_unix.so\nauth substack a\nauth required {OURS}",
            Level.FAIL,
            "never comes",
        ),
        (f"auth required {OURS} nullok", Level.WARN, "who is not in the store"),
    ],
)
def test_each_way_past_the_code_is_told(auth, level, said):
    """Lines before that end or jump, and controls that do not refuse."""
    files = {
        "sshd": f"{auth}\naccount required {OURS}\n",
        "a": "auth required pam_env.so\nauth required pam_env.so\n",
    }
    found = one(files)
    assert found[0] is level
    assert "sshd, line" in found[1]
    assert said in found[1]


def test_a_missing_account_line_is_told_with_the_line_to_write():
    """Logins by key come through the account phase alone."""
    level, said, mend = one({"sshd": f"auth required {OURS}\naccount required pam_unix.so\n"})
    assert (level, said.partition(":")[0]) == (Level.WARN, "sshd")
    assert mend.endswith(f"account required {OURS}")


def test_a_line_that_many_services_share_is_told_once():
    """A fault of common-auth is one finding, which names who is concerned."""
    files = dict.fromkeys(("cron", "login", "sshd"), "@include common-auth\n@include common-account\n")
    files |= {
        "common-auth": f"auth sufficient pam_unix.so\nauth required {OURS}\n",
        "common-account": f"account required {OURS}\n",
    }
    _, said, _ = one(files)
    assert "common-auth, line 1" in said
    assert said.endswith("(in cron, login, sshd)")


def test_no_service_that_asks_is_told():
    """Installed and named nowhere protects nothing."""
    level, said, mend = one({"sshd": "@include common-auth\n", "common-auth": DEBIAN_AUTH})
    assert (level, said) == (Level.WARN, "no service asks for a code")
    assert f"auth    required {OURS}" in mend


def test_files_that_include_each_other_end():
    """libpam refuses them; so does nothing here hang."""
    assert told({"a": "@include b\n", "b": "@include a\n"})


# --- libpam decides ---

KEYWORDS = st.sampled_from(["required", "requisite", "sufficient", "optional"])
ACTION = st.sampled_from(["ok", "done", "bad", "die", "ignore", "1", "2"])
BRACKETS = st.builds("[success={} auth_err={} default={}]".format, ACTION, ACTION, st.sampled_from(["bad", "ignore"]))
CONTROL = st.one_of(KEYWORDS, KEYWORDS, BRACKETS)
STACKS = st.tuples(
    st.lists(st.one_of(CONTROL, st.sampled_from(["include other", "substack other"])), max_size=4),
    st.lists(CONTROL, max_size=3),
    CONTROL,
    st.integers(0, 4),
)


@pytest.fixture(scope="module")
def libpam(tmp_path_factory):
    with Libpam(tmp_path_factory.mktemp("pam")) as libpam:
        yield libpam


@given(stacks=STACKS)
@example(stacks=(["required"], [], "sufficient", 1))
@example(stacks=(["substack other"], ["required"], "sufficient", 0))
@settings(max_examples=400, deadline=None)
def test_no_stack_that_libpam_lets_a_refused_code_through_is_called_sound(libpam, stacks):
    """Whatever the lines around ours: where all else says yes and the code is wrong, libpam refuses or it is told."""
    around, other, ours, place = stacks
    before, after = around[:place], around[place:]
    kept = {"include other", "substack other"}

    def lines(controls, module):
        return [control if control in kept else f"{control} {module}" for control in controls]

    real = lines(before, "pam_debug.so auth=success"), lines(after, "pam_debug.so auth=success")
    judged = libpam.judge(
        "top",
        {
            "top": [*real[0], f"{ours} pam_debug.so auth=auth_err", *real[1]],
            "other": lines(other, "pam_debug.so auth=success"),
        },
    )
    shown = [*lines(before, "pam_unix.so"), f"{ours} {OURS}", *lines(after, "pam_unix.so")]
    files = {
        "top": "".join(f"auth {line}\n" for line in shown) + f"account required {OURS}\n",
        "other": "".join(f"auth {line}\n" for line in lines(other, "pam_unix.so")),
    }
    assert judged.code != PAM_SUCCESS or told(files)


# --- sshd ---

SOUND = {
    "usepam": "yes",
    "kbdinteractiveauthentication": "yes",
    "passwordauthentication": "no",
    "pubkeyauthentication": "yes",
    "authenticationmethods": "publickey,keyboard-interactive:pam keyboard-interactive",
}


@pytest.mark.parametrize(
    ("change", "level", "mend"),
    [
        ({"usepam": "no"}, Level.FAIL, "UsePAM yes"),
        ({"kbdinteractiveauthentication": "no"}, Level.FAIL, "KbdInteractiveAuthentication yes"),
        ({"passwordauthentication": "yes"}, Level.WARN, "PasswordAuthentication no"),
        ({"authenticationmethods": "any"}, Level.WARN, "AuthenticationMethods publickey,keyboard-interactive"),
        ({"authenticationmethods": "publickey keyboard-interactive"}, Level.WARN, "AuthenticationMethods"),
        ({"authenticationmethods": "publickey,password"}, Level.WARN, "AuthenticationMethods"),
    ],
)
def test_each_setting_of_sshd_that_skips_the_code_is_told(change, level, mend):
    """With the line that mends it."""
    (found,) = sshd.judge(SOUND | change, one_answer=False)
    assert found.level is level
    assert mend in found.mend


def test_sound_settings_of_sshd_pass():
    """Key and code, or code alone; and its password method where one answer holds both."""
    assert [each.level for each in sshd.judge(SOUND, one_answer=False)] == [Level.OK]
    one_field = SOUND | {"passwordauthentication": "yes", "authenticationmethods": "publickey,password"}
    assert [each.level for each in sshd.judge(one_field, one_answer=True)] == [Level.OK]


def test_what_sshd_itself_prints_is_understood(tmp_path):
    """The real sshd, with settings as the documentation has them and without."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if program is None or os.geteuid() != 0:
        pytest.skip("needs sshd, and root for a /run of its own")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    documented = "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\n"
    documented += "AuthenticationMethods publickey,keyboard-interactive\n"
    own_run = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$0" "$@"'
    for text, levels in ((documented, [Level.OK]), ("UsePAM no\n", [Level.FAIL, Level.WARN, Level.WARN])):
        file = tmp_path / "sshd_config"
        file.write_text(text)
        command = ["unshare", "--mount", "sh", "-c", own_run, program, "-T", "-f", file, "-h", key]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert [each.level for each in sshd.judge(sshd.parse(done.stdout), one_answer=False)] == levels
