"""How new recovery codes are shown: once, and on a terminal only until they are written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otpbridge.cli import ask, screen, show
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.session import Session, called
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.wire.messages import RecoveryCodesReply

_OLD = "Codes that were made earlier no longer count."
_KEEP = "Keep them on paper, apart from the authenticator: whoever has one and your password gets in."


def make(session: Session, user: str, client: str | None) -> None:
    """Make them and show them."""
    daemon, _admin = session.nearest()
    with daemon:
        made = call_with_proof(daemon, messages.NewRecoveryCodes(user=user, client=client), user, client)
    if session.json:
        session.answer({"token": made.token, "user": user, "client": client or "local", "codes": made.codes})
        show.note(_OLD)
    elif ask.on_terminal():
        _show_until_written_down(made, user, client)
    else:
        for code in made.codes:
            show.line(code)
        show.note(f"{len(made.codes)} recovery codes of {show.visible(user)}, each good for one login. {_OLD}")
        show.note(_KEEP)


def _show_until_written_down(made: RecoveryCodesReply, user: str, client: str | None) -> None:
    name = show.visible(user)
    lines = [
        f"Recovery codes of {name}",
        "",
        *(f"  {number:2}  {code}" for number, code in enumerate(made.codes, 1)),
        "",
        f"Each lets {name} in once where a code of the authenticator is asked for.",
        _KEEP,
        "They are shown now and never again.",
        "",
    ]
    again = f"otpbridge enroll recovery {called(user, client)}"
    try:
        with screen.private(len(lines) + 1):
            for text in lines:
                show.line(text)
            ask.line("Written down? Press Enter: ")
    except BaseException:
        show.note(f"\nThe codes count, seen or not. If they were not written down, make new ones: {again}")
        raise
    show.line(f"{name} has {len(made.codes)} new recovery codes. {_OLD}")
