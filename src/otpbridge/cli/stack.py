"""`otpbridge stack`: what stacks are made of, whether they are sound, and what they do to a user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otpbridge.cli import show
from otpbridge.cli.exits import Code
from otpbridge.cli.options import client_option, config_option, everywhere, example
from otpbridge.cli.session import Session, called
from otpbridge.errors import ConfigError
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.cli.soundness import Found
    from otpbridge.verify.registry import Installed
    from otpbridge.verify.stack import Stack
    from otpbridge.wire.messages import ExplainedRule

_ACTIONS = {
    "ok": "yes, goes on",
    "done": "yes, ends here",
    "bad": "no, goes on",
    "die": "no, ends here",
    "ignore": "goes on",
    "reset": "starts anew",
}
"""What an action does, in short. `done` after a rule that has refused goes on, as in libpam."""

_FACTORS = {"first": "first", "second": "second", "neither": "none"}


@click.group(
    epilog=example(
        "otpbridge stack check", "otpbridge stack explain alice --service sshd", "otpbridge stack verifiers"
    )
)
def stack() -> None:
    """Check stacks, and explain what they do to a user."""


# --- check ---


@stack.command(epilog=example("otpbridge stack check", "otpbridge stack check --config ./otpbridge.toml"))
@config_option
@everywhere
@click.pass_obj
def check(session: Session, config: Path | None) -> Code:
    """Check the stacks of a configuration, without a daemon.

    Shows every stack with what it includes, and warns of what is hardly meant: ways in without a factor, rules that
    are never reached, verifiers that are missing. Exit code 0 without a warning, 1 with one, 2 where the daemon would
    not take the configuration at all. To put it in force: systemctl reload otpbridged.
    """
    from otpbridge import config as configuration  # noqa: PLC0415 - not needed for --help
    from otpbridge.cli import soundness  # noqa: PLC0415
    from otpbridge.verify import loading  # noqa: PLC0415

    source = configuration.read(config)
    loaded = source.parse()
    with source.told():
        stacks = loading.load(loaded)
    found = soundness.look(loaded, stacks)
    if session.json:
        session.answer(
            {
                "config": None if (path := _read_from(config)) is None else str(path),
                "stacks": [{"name": each.name, "rules": _rules(each)} for each in stacks.values()],
                "warnings": found.warnings,
                "notes": found.notes,
            }
        )
    else:
        show.line(f"Configuration: {show.visible(str(_read_from(config) or 'no file, all defaults'))}")
        show.line()
        for each in stacks.values():
            _show_stack(each)
        _show_found(found)
    return Code.REFUSED if found.warnings else Code.DONE


def _read_from(config: Path | None) -> Path | None:
    """The file that was read; None where there is none."""
    from otpbridge.config import SYSTEM_CONFIG  # noqa: PLC0415 - not needed for --help

    return config or (SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None)


def _rules(checked: Stack) -> list[dict[str, object]]:
    return [
        {
            "stack": rule.stack,
            "number": rule.number,
            "level": rule.level,
            "rule": rule.rule.text,
            "factor": checked.of(rule).factor.value,
            "fault": checked.of(rule).fault,
        }
        for rule in checked.program.rules
    ]


def _show_stack(checked: Stack) -> None:
    show.line(f"Stack {show.visible(checked.name)}")
    table = show.Table("", "RULE", "FACTOR", "FROM")
    rows: list[tuple[object, ...]] = []
    for place, rule in enumerate(checked.program.rules, 1):
        made = checked.of(rule)
        factor = "missing" if made.fault else "enrols" if made.enrols else _FACTORS[made.factor.value]
        origin = "" if rule.stack == checked.name else f"{rule.stack}, rule {rule.number}"
        rows.append((f"{place:3}", "  " * rule.level + rule.rule.text, factor, origin))
    table.page(rows)
    if not rows:
        show.line("  no rules")
    show.line()


def _show_found(found: Found) -> None:
    for kind, texts in (("Note", found.notes), ("Warning", found.warnings)):
        for text in texts:
            show.paragraph(f"{kind}: {text}", hang=2)
    if not found.warnings:
        show.line("Nothing to warn of.")


# --- explain ---


@stack.command(
    epilog=example(
        "otpbridge stack explain alice",
        "otpbridge stack explain alice --service sshd --rhost 192.0.2.7",
        "otpbridge stack explain bob --client acme --stack portal",
    )
)
@click.argument("user", metavar="USER")
@client_option
@click.option(
    "--stack", "name", metavar="S", help="The stack; the one of the service, else `default`, when left out."
)
@click.option("--service", metavar="NAME", help="The PAM service, such as sshd.")
@click.option("--rhost", metavar="ADDRESS", help="Where the login comes from, for trusted networks.")
@everywhere
@click.pass_obj
def explain(
    session: Session, user: str, client: str | None, *, name: str | None, service: str | None, rhost: str | None
) -> None:
    """Say what a stack would do to USER, and why.

    Rule by rule. Nothing is asked, spent or counted. At the end stand the ways in: what must succeed together to let
    USER in.
    """
    request = messages.ExplainStack(user=user, client=client, stack=name, service=service, rhost=rhost)
    with session.admin() as daemon:
        reply = daemon.call(request)
    if session.json:
        session.answer(reply)
        return
    show.line(f"{show.visible(user)} at stack {show.visible(reply.stack)}")
    show.paragraph(f"Policy: {reply.policy}", hang=2)
    show.line()
    _show_rules(reply.stack, reply.rules)
    show.line()
    if reply.ways:
        show.line("Ways in:")
        for way in reply.ways:
            show.line(f"  {show.visible(way)}")
    else:
        show.line(f"Ways in: none. {show.visible(user)} cannot get in here.")
        show.line(f"Next: otpbridge user show {called(user, client)}")


def _show_rules(name: str, rules: tuple[ExplainedRule, ...]) -> None:
    texts = ["  " * rule.level + show.visible(rule.rule) for rule in rules]
    width = max(4, *map(len, texts)) if texts else 4
    show.line(f"     {'RULE'.ljust(width)}  {'IF IT SUCCEEDS':14}  IF IT FAILS")
    for place, (rule, text) in enumerate(zip(rules, texts, strict=True), 1):
        show.line(f"{place:3}  {text.ljust(width)}  {_action(rule.on_success):14}  {_action(rule.on_failure)}")
        said = "" if rule.verdict is None else f"{rule.verdict}: "
        origin = "" if rule.stack == name else f" (from {rule.stack}, rule {rule.number})"
        why = f"{said}{rule.why}{origin}" if rule.reached else f"not reached{origin}"
        show.paragraph(why, indent=7)


def _action(action: str) -> str:
    if action.isdecimal():
        return "skips 1 rule" if action == "1" else f"skips {action} rules"
    return _ACTIONS.get(action, action)


# --- verifiers ---


@stack.command(epilog=example("otpbridge stack verifiers", "otpbridge --json stack verifiers"))
@everywhere
@click.pass_obj
def verifiers(session: Session) -> None:
    """List the verifiers that are installed here, with their options.

    They are what rules of stacks can name. Options stand in a rule, `sufficient totp window=2`, or for all rules in
    [verifiers.totp] of otpbridge.toml. One that does not load says why.
    """
    from otpbridge.verify import registry  # noqa: PLC0415 - not needed for --help

    described = [_described(each) for _, each in sorted(registry.installed().items())]
    if session.json:
        session.answer(described)
        return
    for each in described:
        _show_verifier(each)


def _described(installed: Installed) -> dict[str, Any]:
    from otpbridge.model import Factor  # noqa: PLC0415
    from otpbridge.verify import registry  # noqa: PLC0415

    about = {
        "name": installed.name,
        "package": installed.package,
        "version": installed.version,
        "target": installed.target,
    }
    try:
        kind = installed.load()
        options = registry.options_of(kind)
    except ConfigError as error:
        return {**about, "factor": None, "options": [], "summary": "", "fault": str(error)}
    factor = getattr(kind, "factor", Factor.SECOND)
    return {
        **about,
        "factor": factor.value if isinstance(factor, Factor) else None,
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "options": [{"name": each.name, "type": each.kind, "default": each.default} for each in options],
        "fault": None,
    }


def _show_verifier(each: dict[str, Any]) -> None:
    name, package = show.visible(each["name"]), show.visible(f"{each['package']} {each['version']}")
    factor = (
        "does not load" if each["fault"] else {"neither": "no factor"}.get(each["factor"], f"{each['factor']} factor")
    )
    show.line(f"{name:14}  {factor:13}  {package}")
    show.paragraph(each["fault"] or each["summary"], indent=4)
    for option in each["options"]:
        default = "must be given" if option["default"] is None else f"default: {option['default'] or 'empty'}"
        show.line(f"      {show.visible(option['name'])}  ({show.visible(option['type'])}, {show.visible(default)})")
