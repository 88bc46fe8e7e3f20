"""A judge over a store, with a clock that the test sets, and stacks of its verifiers.

async with running(tmp_path) as rig:
    bench = Bench(rig, config='[stacks.default]\\nrules = ["required totp"]')
    outcome = await bench.check("123456")
"""

from __future__ import annotations

import json
import os

from storerig import NOW

from otpbridge.config import parse
from otpbridge.daemon.attempt import Question
from otpbridge.daemon.judge import Judge, Subject
from otpbridge.daemon.policy import Authority
from otpbridge.daemon.stacks import Stacks
from otpbridge.daemon.tally import Tally
from otpbridge.model import Caller, Context, Factor, Kind, OtpParameters, Secret, State, Token
from otpbridge.otp.totp import totp
from otpbridge.otp.yubiotp import YubiKey as OtpKey
from otpbridge.otp.yubiotp import from_modhex
from otpbridge.store import auditlog, tokens, users
from otpbridge.vault.seal import token_identity
from otpbridge.verify.builtin.password import hash_password
from otpbridge.verify.registry import Made
from otpbridge.verify.rules import resolve
from otpbridge.verify.stack import Stack

SEED = b"12345678901234567890"
TIME = NOW / 1000
PLAIN = OtpParameters()


class OwnStacks:
    """One stack, of verifiers that the test has made, each `sufficient` unless said otherwise."""

    def __init__(self, *verifiers, rules=None):
        texts = rules or [f"sufficient v{place}" for place in range(len(verifiers))]
        program = resolve("default", {"default": texts})
        made = {
            id(rule): Made(rule.rule.verifier, verifier, getattr(verifier, "factor", Factor.SECOND), direct=True)
            for rule, verifier in zip(program.rules, verifiers, strict=True)
        }
        self._stack = Stack(program, made)
        self.faults = []

    def choose(self, named, service):
        """The one there is."""
        return self._stack


class Bench:
    """A judge, and short ways to ask it."""

    def __init__(self, rig, *, config="", verifiers=None, rules=None):
        self.rig = rig
        self.time = TIME
        self.config = parse(config)
        stacks = Stacks(self.config) if verifiers is None else OwnStacks(*verifiers, rules=rules)
        self.judge = Judge(
            rig.store, self.config, stacks, clock=lambda: self.time, random=os.urandom, host="example", tally=Tally()
        )

    def subject(
        self,
        user="alice",
        *,
        client="local",
        nullok=False,
        rhost="",
        tty="",
        service="sshd",
        stack=None,
        combined=False,
        authority=Authority.ADMIN,
    ):
        """An attempt that sshd makes."""
        context = Context(service=service, rhost=rhost, tty=tty)
        return Subject(Caller(0, 0, 42), authority, client, user, context, nullok, stack, combined)

    async def check(self, *responses, **about):
        """The outcome of one call."""
        return await self.judge.check(self.subject(**about), responses)

    async def enforce(self, enforcement, user="alice"):
        """Set enforcement whatever the tokens."""
        await self.rig.change(lambda t: users.enforce(t, "local", user, enforcement, force=True))

    def audit(self):
        """All entries."""
        rows = self.rig.read(lambda connection: auditlog.newest(connection, 1000))
        return [json.loads(row.entry) for row in rows]

    def code(self, steps=0):
        """The TOTP code some steps from now."""
        return totp(SEED, self.time + 30 * steps, PLAIN)

    async def put(self, kind, secret, user="alice", *, token_id=None, expires_at=None, label=""):
        """Give a user (who is added if need be) an active token that holds this secret."""
        token = Token(
            token_id or f"{kind}-{user}",
            user,
            "local",
            kind,
            State.ACTIVE,
            OtpParameters(),
            label=label,
            created_at=NOW // 1000,
            expires_at=expires_at,
        )
        sealed = self.rig.store.vault.seal(secret, token_identity(token))

        def work(transaction):
            users.ensure(transaction, "local", user)
            tokens.put(transaction, token, sealed, None)

        await self.rig.change(work)

    async def yubikey(self, key, token_id, user="alice"):
        """Give a user a YubiKey."""
        packed = OtpKey(from_modhex(key.public_id), Secret(key.private_id), Secret(key.aes_key)).pack()
        await self.put(Kind.YUBIOTP, packed, user, token_id=token_id, label=key.public_id)

    async def password(self, text, user="alice"):
        """Set a password."""
        await self.put(Kind.PASSWORD, hash_password(text, os.urandom), user)

    async def talk(self, *answers, **about):
        """A conversation: what was asked, what was told, and the outcome of the last answer."""
        asked, told = [], []
        conversation, step = await self.judge.begin(self.subject(**about))
        waiting = list(answers)
        while isinstance(step, Question):
            told += [notice.text for notice in conversation.attempt.notices]
            conversation.attempt.notices.clear()
            if step.prompt.notice:
                told.append(step.prompt.notice)
            asked.append(step.prompt.text)
            if not waiting:
                self.judge.abandon(conversation)
                return asked, told, None
            step = await self.judge.answer(conversation, [waiting.pop(0)])
        if conversation is not None:
            told += [notice.text for notice in conversation.attempt.notices]
        return asked, told + [notice.text for notice in step.notices], step
