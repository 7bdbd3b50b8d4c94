"""What both dials do alike, the blocking one and asyncio's: the login that is said."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from rethinkdb.handshake import HandshakeV1_0

from ..driver.address import Address
from ..driver.answer import Alien
from ..driver.causes import Stage
from ..driver.wire import (
    MAX_GREETING_BYTES,
    Lost,
    advance,
    check_iterations,
    salted_password,
)


@dataclass(frozen=True)
class Login:
    """How to get in, the same at every node. ``query_timeout_s``: None lets a query be silent as long as it likes."""

    db: str | None = None
    user: str = "admin"
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    query_timeout_s: float | None = None


@dataclass
class Progress:
    """How far a dial came, for `classify`."""

    stage: Stage = Stage.NAME


def _greeting(address: Address, login: Login) -> Generator[bytes, bytes, None]:
    """The V1_0 handshake, by the driver's own state machine: yields what to send, takes the next message."""
    decoder, encoder = json.JSONDecoder(), json.JSONEncoder()
    shake = HandshakeV1_0(decoder, encoder, address.host, address.port, login.user, login.password)
    shake._pbkdf2_hmac = salted_password
    shake.next_message((yield shake.next_message(None)))
    challenge = yield b""
    check_iterations(challenge)
    last = yield advance(shake, challenge)
    advance(shake, last)


def conversation(address: Address, login: Login) -> Generator[bytes, bytes, None]:
    """The login over a stream: a generator that yields what to send, maybe nothing, and takes what was read then.

    It returns when the node has let us in. Raises Refused, Alien, or Lost when nothing more is read.
    """
    greeting, buffer = _greeting(address, login), bytearray()
    say = next(greeting)
    with contextlib.suppress(StopIteration):
        while True:
            while (end := buffer.find(b"\0", 0, MAX_GREETING_BYTES)) < 0:
                if len(buffer) > MAX_GREETING_BYTES:
                    raise Alien(f"sent {len(buffer)} bytes without ending its greeting")
                chunk = yield say
                say = b""
                if not chunk:
                    raise Alien(f"sent {bytes(buffer[:40])!r} and hung up") if buffer else Lost()
                buffer += chunk
            message = bytes(buffer[:end])
            del buffer[: end + 1]
            say += greeting.send(message)


def check_info(info: Any) -> None:
    """Raises Alien if an answer to SERVER_INFO is none."""
    if not isinstance(info, dict):
        raise Alien("answers SERVER_INFO with something else")
