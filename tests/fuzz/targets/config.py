"""otpbridge.toml: a configuration, or a ConfigError that says where in the file the mistake is."""

from __future__ import annotations

import contextlib
import re
import tomllib

from fuzz_promises import PLANTED, gives_away, silent, text_of

from otpbridge.config import Config, parse
from otpbridge.errors import ConfigError
from otpbridge.model import LOCAL

_WHERE = re.compile(r"fuzz\.toml:(\d+): .")


def check(data: bytes) -> None:
    """No key is passed over, all that the daemon derives can be derived, and the store's password is never told."""
    text = text_of(data)
    try:
        config = parse(text, "fuzz.toml")
    except ConfigError as error:
        _check_place(str(error), text)
        if _only_in_the_store_url(text):
            silent(error)
        return
    raw = tomllib.loads(text)
    assert set(raw) <= set(Config.__struct_fields__)
    assert set(config.stacks) == set(raw.get("stacks", {}))
    assert set(config.clients) == set(raw.get("clients", {}))
    if _only_in_the_store_url(text):
        assert not gives_away(repr(config))
    for client in (LOCAL, *config.clients):
        config.relying_party(client, "host.example.org")
        assert config.issuer_of(client, "host")
        for stack in (None, *config.stacks):
            policy = config.policy_of(client, stack)
            backoff = config.throttle.per_user(policy)
            assert 0 < backoff.first_wait <= backoff.longest_wait
    assert config.rules


def _check_place(message: str, text: str) -> None:
    if message.startswith("fuzz.toml: not TOML: "):
        return
    where = _WHERE.match(message)
    assert where is not None, message
    assert 1 <= int(where[1]) <= max(len(text.splitlines()), 1)


def _only_in_the_store_url(text: str) -> bool:
    """Whether the planted secret is the password of the store, and nothing else."""
    if text.count(PLANTED) != 1 or gives_away(text.replace(PLANTED, "")):
        return False
    with contextlib.suppress(tomllib.TOMLDecodeError):
        store = tomllib.loads(text).get("store")
        url = store.get("url") if isinstance(store, dict) else None
        return isinstance(url, str) and PLANTED in url
    return False
