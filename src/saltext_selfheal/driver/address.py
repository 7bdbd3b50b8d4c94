"""Addresses of driver ports, and resolving their names. Settings, probe and applications share this file, so it uses
neither Salt nor pydantic.
"""

from __future__ import annotations

import asyncio
import re
import socket
from concurrent.futures import TimeoutError as Unresolved
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

DRIVER_PORT = 28015
ALLOWED = "address or address:port (1 to 65535), IPv6 as [address]:port"
LONGEST = 1000  #: characters of an address; a name has at most 253, and each of them may be written as several

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

    IPv6 addresses get one spelling; names stay as they are. A name or an IPv4 address is checked by `check_name`, because
    with one that no resolver takes every dial would fail. Raises ValueError, whose text says what is allowed.
    """
    text = text.strip()
    if not text or len(text) > LONGEST or re.search(r"[\s/@]", text):
        raise ValueError(ALLOWED)
    bare = _ipv6(text)
    if bare is not None:
        return Address(bare)
    match = re.fullmatch(
        r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[1-9][0-9]{0,4}))?", text
    )
    if match is None:
        raise ValueError(ALLOWED)
    host = _ipv6(match["six"]) if match["six"] else match["host"]
    port = int(match["port"] or DRIVER_PORT)
    if host is None or not 0 < port < 65536:
        raise ValueError(ALLOWED)
    if not match["six"]:
        check_name(host)
    return Address(host, port)


def _ipv6(text: str) -> str | None:
    """The one spelling of an IPv6 address. None if this is none, or if its zone can be no interface's name."""
    try:
        found = IPv6Address(text)
    except ValueError:
        return None
    zone = found.scope_id
    return str(found) if zone is None or re.fullmatch(r"[!-~]{1,15}", zone) else None


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
    _check_numbers(name, encoded.decode("ascii"))


def _check_numbers(name: str, encoded: str) -> None:
    """Refuse what the resolver would read as an IPv4 address, but that is not written as one. ``encoded`` is as asked.

    To the resolver 010.0.0.11 is 8.0.0.11, 10.1 is 10.0.0.1, 167772161 is 10.0.0.1, and digits of other scripts are
    digits. So a dial would reach another machine than the reader of the settings thinks. No name in DNS ends in a number.
    """
    last = encoded.removesuffix(".").rpartition(".")[2]
    if not re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", last):
        return
    try:
        if str(IPv4Address(encoded)) == name:
            return
    except ValueError:
        pass
    raise ValueError(
        "an IPv4 address as four numbers from 0 to 255 without leading zeros, or a name that does not end in a number"
    )


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
