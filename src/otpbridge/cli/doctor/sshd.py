"""The settings of sshd that decide whether PAM is asked for a code. Nothing is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from otpbridge.cli.doctor.findings import Finding, fail, ok, warn

_FILE = "/etc/ssh/sshd_config.d/otpbridge.conf"
_PROMPTS = "keyboard-interactive"


def parse(text: str) -> dict[str, str]:
    """What `sshd -T` prints: the last value of each setting, by its name in lower case."""
    return {name.lower(): value.strip() for name, _, value in (line.partition(" ") for line in text.splitlines())}


def judge(settings: Mapping[str, str], *, one_answer: bool) -> list[Finding]:
    """Look the settings over.

    `one_answer`: the PAM line takes password and code in one, as sshd's own password method hands them over. Blocks
    of `Match` are not in what `sshd -T` prints, and not judged.
    """
    return list(_judge(settings, one_answer=one_answer)) or [ok("sshd asks PAM, and every way in asks for a code")]


def _judge(settings: Mapping[str, str], *, one_answer: bool) -> Iterator[Finding]:
    if settings.get("usepam") != "yes":
        yield _missing("sshd does not ask PAM at all", "UsePAM yes")
    if settings.get("kbdinteractiveauthentication") == "no" and not one_answer:
        yield _missing("sshd cannot ask for a code", "KbdInteractiveAuthentication yes")
    if settings.get("passwordauthentication") == "yes" and not one_answer:
        yield warn(
            "by its own password method sshd answers the prompt for the code with the password",
            _line("PasswordAuthentication no"),
        )
    ways = settings.get("authenticationmethods", "any").split()
    if ways == ["any"]:
        keys = settings.get("pubkeyauthentication") == "yes"
        past = ["publickey"] if keys else []
    else:
        asking = {_PROMPTS, "password"} if one_answer else {_PROMPTS}
        past = [way for way in ways if not asking & {part.partition(":")[0] for part in way.split(",")}]
    if past:
        yield warn(
            f"a login by {' or by '.join(past)} alone is not asked for a code",
            _line(f"AuthenticationMethods publickey,{_PROMPTS}"),
        )


def _line(setting: str) -> str:
    return f"in {_FILE}: {setting}  then: systemctl reload ssh"


def _missing(said: str, setting: str) -> Finding:
    return fail(said, _line(setting))
