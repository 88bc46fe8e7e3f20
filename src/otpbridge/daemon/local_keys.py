"""Ask the security keys on this machine's USB port, for logins at this machine.

A key is asked in a thread. What it wants of the person comes to the event loop one thing after the other, and goes
out at once; the conversation with the person is the attempt's own. There is one attempt at a time: whoever touches a
key must know for what.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from otpbridge.config import LocalKeys as Settings
from otpbridge.daemon.attempt import AskKeys, StoreAttempt
from otpbridge.daemon.locality import why_remote
from otpbridge.errors import DeviceError, GivenUpError, NoAccountError, NoDeviceError, NotAllowedError
from otpbridge.model import Caller, Context, Notice, NoticeStyle, Secret

if TYPE_CHECKING:
    from otpbridge.devices.fido import PinWanted

log = logging.getLogger(__name__)

_ALIVE_SECONDS = 3.0
"""How often a caller hears that a key is still waited for: the PAM module gives up on a daemon that says nothing."""

_NO_NEWS = (NoDeviceError, NoAccountError, GivenUpError)
"""What the person need not be told: no key is at hand, or they know. The next verifier asks."""

_TOUCH = Notice("Touch your security key.", NoticeStyle.TOUCH)
_TOUCH_ONE = Notice("Touch one of your security keys.", NoticeStyle.TOUCH)
_IN_USE = Notice("The security keys are in use by another login.", NoticeStyle.ERROR)


class LocalKeys:
    """The keys of this machine, as attempts are given them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._talk: _Talk | None = None
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """What the configuration says now."""
        self._settings = settings
        if settings.enabled:
            # Now, and not while a login waits; and never where the section is left out.
            import otpbridge.devices.fido  # noqa: F401, PLC0415

    @property
    def busy(self) -> bool:
        """Whether a login has a key asked now."""
        return self._talk is not None

    def of_login(self, caller: Caller, context: Context) -> AskKeys | None:
        """What asks the keys for a login; None where none may be asked: it is not at this machine."""
        if not self._settings.enabled:
            return None
        why = why_remote(caller, context, self._settings.services)
        if why is None:
            return self.assertion
        if context.service in self._settings.services:
            log.info("[local_keys]: %s by process %d asks for no key: %s", context.service, caller.pid, why)
        return None

    async def assertion(self, attempt: StoreAttempt, options: str) -> str:
        """What a key answers; empty where none does. The person has been told what to do, and what failed."""
        party = attempt.relying_party
        if party is None or attempt.deliver is None:
            # A touch is asked for at once or not at all.
            return ""
        if self._talk is not None:
            await attempt.tell(_IN_USE)
            return ""
        talk = self._talk = _Talk(options, party.origins[0], self._settings.timeout, self._ended)
        try:
            return await _converse(attempt, talk)
        finally:
            talk.cancel()

    def _ended(self) -> None:
        self._talk = None


async def _converse(attempt: StoreAttempt, talk: _Talk) -> str:
    while True:
        try:
            async with asyncio.timeout(_ALIVE_SECONDS):
                said = await talk.news.get()
        except TimeoutError:
            await attempt.keep_alive()
            continue
        match said:
            case Notice():
                await attempt.tell(said)
            case str():
                # It is judged now: as with any other answer, a wrong one counts.
                attempt.judged = True
                return said
            case DeviceError():
                await _tell_failure(attempt, said)
                return ""
            case _:
                talk.give(Secret((await attempt.ask_pin(_question(said))).encode()))


async def _tell_failure(attempt: StoreAttempt, error: DeviceError) -> None:
    if isinstance(error, NotAllowedError):
        log.error("[local_keys]: %s", error)
    elif not isinstance(error, _NO_NEWS):
        text = str(error)
        await attempt.tell(Notice(f"{text[:1].upper()}{text[1:]}.", NoticeStyle.ERROR))


def _question(wanted: PinWanted) -> str:
    return f"{f'Wrong PIN, {wanted.tries_left} tries left. ' if wanted.wrong else ''}Security key PIN: "


class _Talk:
    """A ceremony in a thread of its own, and the person before the keys as it sees them (devices.fido.Person).

    `ended` is called on the event loop once the keys are left.
    """

    def __init__(self, options: str, origin: str, seconds: float, ended: Callable[[], None]) -> None:
        from otpbridge.devices.fido import Ceremony  # noqa: PLC0415 - only where the configuration wants it

        self.news: asyncio.Queue[Notice | PinWanted | str | DeviceError] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._pins: queue.SimpleQueue[Secret | None] = queue.SimpleQueue()
        self._ceremony = Ceremony(self, seconds)
        thread = threading.Thread(target=self._run, args=(options, origin, ended), name="local-keys", daemon=True)
        thread.start()

    def give(self, pin: Secret) -> None:
        """The PIN that was asked for."""
        self._pins.put(pin)

    def cancel(self) -> None:
        """Have the keys stop. They have, once `ended` is called."""
        self._ceremony.cancel()
        self._pins.put(None)

    # --- in the thread ---

    def touch(self, key: str, _seconds: float) -> None:
        """See devices.fido.Person."""
        self._later(self.news.put_nowait, _TOUCH if key else _TOUCH_ONE)

    def pin(self, wanted: PinWanted) -> Secret | None:
        """See devices.fido.Person."""
        self._later(self.news.put_nowait, wanted)
        return self._pins.get()

    def _run(self, options: str, origin: str, ended: Callable[[], None]) -> None:
        said: str | DeviceError
        try:
            said = self._ceremony.assertion(options, origin)
        except DeviceError as error:
            said = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the login goes on without a key
            log.error("the security keys cannot be asked: %s", type(error).__name__)  # noqa: TRY400 - no values
            said = DeviceError("the security keys cannot be asked")
        self._later(self.news.put_nowait, said)
        self._later(ended)

    def _later(self, call: Callable[..., None], *arguments: object) -> None:
        # The loop is closed where the daemon ends: then nobody waits for this any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)
