"""Where a request came from: the address that the daemon's back-off counts, and how the browser sees us."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def browser_address(peer: str | None, forwarded: str, proxies: Sequence[Network]) -> str:
    """The address of the browser; empty where it is not known.

    `peer` is who connected, None for a Unix socket, which only a proxy reaches. `forwarded` is X-Forwarded-For. It is
    read from its end, for as long as the one before was a proxy of ours: what stands before that, anybody may have
    written.
    """
    trusted = peer is None or is_trusted(peer, proxies)
    found = peer or ""
    for text in reversed(forwarded.split(",") if forwarded else []):
        if not trusted:
            break
        address = _address(text.strip())
        if address is None:
            break
        found = str(address)
        trusted = is_trusted(found, proxies)
    return found


def is_trusted(peer: str, proxies: Sequence[Network]) -> bool:
    """Whether an address is a proxy of ours."""
    address = _address(peer)
    return address is not None and any(address in network for network in proxies)


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine to every browser (Secure Contexts §3.1)."""
    return host in {"localhost", "127.0.0.1"} or host.endswith(".localhost")


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
