"""Addresses of driver ports, and resolving their names. Settings, probe and applications share this file, so it uses
neither Salt nor pydantic.
"""

from __future__ import annotations

import asyncio
import re
import socket
from concurrent.futures import TimeoutError as Unresolved
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

DRIVER_PORT = 28015
ALLOWED = "address or address:port (1 to 65535), IPv6 as [address]:port"

Row = tuple[int, Any]  #: family and socket address
#: Nothing came in time. Before Python 3.11 these are three classes.
SILENCES = (TimeoutError, asyncio.TimeoutError, Unresolved)


@dataclass(frozen=True)
class Address:
    """A host and its port. An IPv6 address is kept without brackets."""

    host: str
    port: int = DRIVER_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parsed(text: str) -> Address:
    """The address in a text: ``host``, ``host:port``, an IPv6 address or ``[IPv6]:port``. Blanks around it are ignored.

    IPv6 addresses get one spelling; names stay as they are. Raises ValueError, whose text says what is allowed.
    """
    text = text.strip()
    if not text or re.search(r"[\s/@]", text):
        raise ValueError(ALLOWED)
    bare = _ipv6(text)
    if bare is not None:
        return Address(bare)
    match = re.fullmatch(
        r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?", text
    )
    if match is None:
        raise ValueError(ALLOWED)
    host = _ipv6(match["six"]) if match["six"] else match["host"]
    port = int(match["port"] or DRIVER_PORT)
    if host is None or not 0 < port < 65536:
        raise ValueError(ALLOWED)
    return Address(host, port)


def _ipv6(text: str) -> str | None:
    try:
        return str(IPv6Address(text))
    except ValueError:
        return None


def check_name(name: str) -> None:
    """Check that a resolver can be asked for this name or IPv4 address. Raises ValueError with what is allowed."""
    labels = name.removesuffix(".").split(".")
    if not all(labels):
        raise ValueError("a name without empty labels (two dots in a row, or one at the beginning)")
    if "%" in name or not name.isprintable():
        raise ValueError(
            "a name without % and control characters; a zone goes with an IPv6 address"
        )
    try:
        encoded = name.encode("idna")
        if any(len(label) > 63 for label in labels) or len(encoded.removesuffix(b".")) > 253:
            raise UnicodeError
    except UnicodeError:
        raise ValueError(
            "a name that DNS can carry: labels of 1 to 63 characters, 253 in all"
        ) from None


def lookup(address: Address, flags: int = 0) -> list[Row]:
    """Resolve an address with the system's resolver. Blocks for as long as the resolver does.

    ``flags`` are those of `socket.getaddrinfo`. Raises what that function raises, and UnicodeError for a name that
    cannot be encoded.
    """
    rows = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    return [(int(family), sockaddr) for family, _, _, _, sockaddr in rows]


def name_share_s(left_s: float, good: list[Row] | None) -> float:
    """How much of the time that is left the resolver may take.

    Without older addresses it may take all. With some that can be used instead it gets a quarter, and the dial the rest.
    """
    return max(0.0, left_s / 4 if good else left_s)


def older_serve(exc: BaseException) -> bool:
    """Whether older addresses may be used, because the resolver gave no answer: it hangs, or fails for the moment.

    That a name does not exist is an answer.
    """
    if isinstance(exc, socket.gaierror):
        return exc.errno == socket.EAI_AGAIN
    return isinstance(exc, SILENCES)
