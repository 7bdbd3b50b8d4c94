"""What both dials do alike, the blocking one and asyncio's: the login that is said, and looks at a socket."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import ssl
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from rethinkdb.handshake import HandshakeV1_0

from ..driver.address import Address
from ..driver.answer import Alien
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
class Stage:
    """How far a dial came, for `classify`: a silence means something else at each stage."""

    name: str = "name"  #: then TCP, TLS, handshake, answer


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


def check_peer(sock: socket.socket) -> None:
    """Raises ConnectionRefusedError for a socket that is connected to itself.

    Linux lets that happen when a free local port is dialled: nobody listens there.
    """
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")


def prepare(sock: socket.socket) -> None:
    """Small queries are sent at once, and the kernel notices a host that is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def worst(failures: list[Exception]) -> Exception:
    """The failure to tell when each address of a name failed. Empties the list.

    That a node is dead may be said only if every address refused: any other failure is told first.
    """
    told = next((e for e in failures if not isinstance(e, ConnectionRefusedError)), failures[0])
    failures.clear()  # else exception and list hold each other
    return told
