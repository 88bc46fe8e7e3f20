"""Users with tokens, and codes of theirs that nobody has used yet.

The first users, and every second one after them, have an HOTP token, the others a TOTP token: TOTP is what people
use, HOTP has a new code at any time, so that also ten users can log in thousands of times.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ALWAYS_HOTP = 10
PERIOD = 30
_NEVER = 0


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a code that is good now."""

    user: str
    code: str


class NotEnoughUsersError(Exception):
    """More different users are asked for than there are."""


def code_at(seed: bytes, moving_factor: int) -> str:
    """The 6-digit SHA-1 code of a moving factor (RFC 4226 §5.3)."""
    mac = hmac.digest(seed, struct.pack(">Q", moving_factor), "sha1")
    offset = mac[-1] & 15
    return f"{(int.from_bytes(mac[offset : offset + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06d}"


class People:
    """`size` users. Whoever has the same `secret` has the same seeds. HOTP counts from `first`."""

    def __init__(
        self, size: int, secret: bytes, clock: Callable[[], float] = time.time, *, first: int = _NEVER
    ) -> None:
        self.size = size
        self._secret = secret
        self._first = first
        self._clock = clock
        order = random.Random(size)
        self._totp = array("I", (index for index in range(size) if not self.is_hotp(index)))
        self._hotp = array("I", (index for index in range(size) if self.is_hotp(index)))
        # All over the store: logins do not come in the order in which people were enrolled.
        order.shuffle(self._totp)
        order.shuffle(self._hotp)
        self._spent = array("Q", [first]) * size
        """TOTP: the last time step used. HOTP: the next moving factor."""
        self._totp_place = self._hotp_place = 0

    @staticmethod
    def is_hotp(index: int) -> bool:
        """Whether this user has an HOTP token."""
        return index < ALWAYS_HOTP or index % 2 == 1

    @staticmethod
    def name(index: int) -> str:
        """A user's name."""
        return f"user{index:07d}"

    def seed(self, index: int) -> bytes:
        """A user's seed: 20 bytes."""
        return hashlib.blake2b(index.to_bytes(8, "big"), key=self._secret, digest_size=20).digest()

    def lines(self) -> Iterator[str]:
        """All users in the format of `otpbridge import`."""
        for index in range(self.size):
            kind, tail = ("hotp", "&counter=0") if self.is_hotp(index) else ("totp", "")
            secret = base64.b32encode(self.seed(index)).decode()
            name = self.name(index)
            yield f"{name}\totpauth://{kind}/Bench:{name}?secret={secret}&issuer=Bench{tail}\n"

    def totp(self, count: int) -> list[Login]:
        """The code of the present time step for `count` different users; good for at least one period from now.

        Waits for the next step where too few users have a code left in this one.
        """
        if count > len(self._totp):
            raise NotEnoughUsersError(f"{count} logins of {len(self._totp)} TOTP users")
        while True:
            step = int(self._clock() // PERIOD)
            if sum(1 for place in range(count) if self._spent[self._next_totp(place)] < step) == count:
                break
            # Users are taken in turn, so where one of these has spent the step there is no use in looking further.
            time.sleep(PERIOD - self._clock() % PERIOD + 0.01)
        logins = []
        for place in range(count):
            index = self._next_totp(place)
            self._spent[index] = step
            logins.append(Login(self.name(index), code_at(self.seed(index), step)))
        self._totp_place += count
        return logins

    def _next_totp(self, place: int) -> int:
        return self._totp[(self._totp_place + place) % len(self._totp)]

    def hotp_users(self) -> list[int]:
        """All who have an HOTP token."""
        return list(self._hotp)

    def untouched(self, count: int) -> list[Login]:
        """The first codes of `count` HOTP users who have used none."""
        fresh = [index for index in reversed(self._hotp) if self._spent[index] == self._first][:count]
        if len(fresh) < count:
            raise NotEnoughUsersError(f"{count} of {len(self._hotp)} HOTP users who have used no code")
        for index in fresh:
            self._spent[index] += 1
        return [Login(self.name(index), code_at(self.seed(index), self._first)) for index in fresh]

    def lanes(self, wanted: int) -> int:
        """How many lanes of HOTP users there can be, at most `wanted`."""
        return min(wanted, len(self._hotp))

    def hotp(self, count: int, lanes: int) -> list[Login]:
        """`count` logins, each with the user's next code. Login i is of a user whom only logins i % `lanes` have.

        So codes of one user are used in order if each lane is.
        """
        depth = len(self._hotp) // lanes
        logins = []
        for number in range(count):
            row = (self._hotp_place + number // lanes) % depth
            index = self._hotp[row * lanes + number % lanes]
            logins.append(Login(self.name(index), code_at(self.seed(index), self._spent[index])))
            self._spent[index] += 1
        self._hotp_place += -(-count // lanes)
        return logins
