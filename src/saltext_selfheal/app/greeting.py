"""The login, which both dials share: the blocking one and the one in asyncio. It does no input or output itself."""

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
    """How to log in, the same at every node. ``query_timeout_s`` None: a query may be silent for ever."""

    db: str | None = None
    user: str = "admin"
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    query_timeout_s: float | None = None


@dataclass
class Progress:
    """How far a dial has come, for `classify`."""

    stage: Stage = Stage.NAME


def _greeting(address: Address, login: Login) -> Generator[bytes, bytes, None]:
    """The V1_0 handshake, by the driver's own state machine. Yields what to send, and takes the next message."""
    decoder, encoder = json.JSONDecoder(), json.JSONEncoder()
    shake = HandshakeV1_0(decoder, encoder, address.host, address.port, login.user, login.password)
    shake._pbkdf2_hmac = salted_password
    shake.next_message((yield shake.next_message(None)))
    challenge = yield b""
    check_iterations(challenge)
    last = yield advance(shake, challenge)
    advance(shake, last)


def conversation(address: Address, login: Login) -> Generator[bytes, bytes, None]:
    """The login over a stream, as a generator. It yields what to send, which may be empty, and takes what was read.

    It ends when the node has accepted the login. Raises Refused or Alien, or Lost if the stream has ended.
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
    """Raises Alien if this is no answer to SERVER_INFO."""
    if not isinstance(info, dict):
        raise Alien("answers SERVER_INFO with something else")
