"""Relays: hosts that ask a central daemon over TLS. `centre` is the central side, `host` the other one."""
