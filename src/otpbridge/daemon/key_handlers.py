"""Admin.RotateKey: everything sealed anew under a new master key, while logins go on."""

from __future__ import annotations

import asyncio
from functools import partial

from otpbridge.daemon.desk import Desk, event
from otpbridge.model import Secret
from otpbridge.store import rekey, relays
from otpbridge.store.writer import Transaction
from otpbridge.vault.keys import KEY_BYTES, KeyPlace, Keyring, MasterKey
from otpbridge.wire.messages import ADMIN, RotateKey, RotateKeyReply
from otpbridge.wire.service import Call, VarlinkError

_SHARED = (
    "other daemons may use this store, and each needs the new key before anything is sealed under it. Add it as the "
    "last line of every daemon's key file and restart them; then make it the first line everywhere and restart them "
    "again; then repeat this; then take the old key out: docs/postgresql.md, section Master key"
)


class KeyDesk:
    """The handler of Admin.RotateKey.

    Steps, each safe to be the last before a crash: write a key file with the new key before the old one; seal the
    store's own secret, the authority of relays and then every seed anew; write the key file without the old one. A
    daemon that finds two keys opens everything with either, and `key rotate` goes on where it stopped.

    Other daemons on a shared store could not open what is sealed under a key that they have not got. So there an
    administrator gives the new key to all of them first, and takes the old one away last; no key file is written.
    """

    def __init__(self, desk: Desk, keys: KeyPlace) -> None:
        self._desk = desk
        self._keys = keys
        self._busy = asyncio.Lock()

    async def rotate(self, call: Call, _asked: RotateKey) -> RotateKeyReply:
        """Rotate the master key, or finish a rotation."""
        if self._busy.locked():
            raise VarlinkError(f"{ADMIN}.Failed", {"reason": "a key rotation is under way already"})
        async with self._busy:
            return await self._rotate(call)

    async def _rotate(self, call: Call) -> RotateKeyReply:
        desk = self._desk
        vault = desk.store.vault
        if not vault.keyring.previous:
            if desk.store.is_shared:
                raise VarlinkError(f"{ADMIN}.KeyNotRotatable", {"reason": _SHARED})
            if not self._keys.writable:
                name = self._keys.path.name
                reason = (
                    f"the key is a systemd credential. Give the unit a further credential {name}-next, restart the "
                    f"daemon and repeat this; then make that one {name} and take {name}-next away"
                )
                raise VarlinkError(f"{ADMIN}.KeyNotRotatable", {"reason": reason})
            ring = Keyring(MasterKey.of(Secret(desk.random(KEY_BYTES))), (vault.keyring.primary,))
            await asyncio.to_thread(self._keys.save, ring)
            vault.keyring = ring
        key_id = vault.keyring.primary.id.hex()
        await desk.change(partial(_begin, call, key_id, desk))
        total = await desk.store.read_long(partial(rekey.stale, vault=vault))
        done = 0
        while piece := await desk.change(partial(rekey.reseal, vault=vault)):
            done += piece
            await call.send(RotateKeyReply(resealed=done, total=total, key_id=key_id))
        if not desk.store.is_shared:
            ring = Keyring(vault.keyring.primary)
            if self._keys.writable:
                await asyncio.to_thread(self._keys.save, ring)
            vault.keyring = ring
        await desk.change(lambda transaction: transaction.audit(event(call, "key rotated", detail={"key": key_id})))
        return RotateKeyReply(resealed=done, total=done, key_id=key_id)


def _begin(call: Call, key_id: str, desk: Desk, transaction: Transaction) -> None:
    rekey.reseal_root(transaction, desk.store.vault)
    relays.reseal_authority(transaction, desk.store.vault)
    transaction.audit(event(call, "key rotation begun", detail={"key": key_id}))
