"""Dialling a name that leads to several addresses, without the waiting: probe and applications wait in different ways.

The addresses are tried one after the other and share one deadline. The first that can be spoken to is taken. That a
node is dead may be said only if every address refused.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence

from .address import Address, Row
from .causes import Cause, Stage, cause

#: This machine cannot speak over an address of that family: no reason to doubt what the others say.
_NOT_FROM_HERE = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_SHORTEST_S = 0.001  #: a socket takes a timeout of 0 for "do not wait at all"


class InTurn:
    """The addresses of one name, in turn: iterate, and hand each failure to `failed`; nothing left, raise `told`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._left = len(rows)
        self._failures: list[Exception] = []

    def __iter__(self) -> Iterator[Row]:
        for index, row in enumerate(self._rows):
            self._left = len(self._rows) - index
            yield row

    def share_s(self, left_s: float) -> float:
        """How much of the time that is left this address may take."""
        return max(_SHORTEST_S, left_s / self._left)

    def failed(self, exc: BaseException, stage: Stage) -> None:
        """Keep it, and go on with the next address. Raises it if it would be the same at any other."""
        why = cause(exc, stage, heard=False)
        if (
            not isinstance(exc, Exception)
            or why is Cause.TLS
            or (why is Cause.OURS and getattr(exc, "errno", None) not in _NOT_FROM_HERE)
        ):
            self._failures.clear()
            raise exc
        self._failures.append(exc)

    def told(self) -> Exception:
        """The failure to tell when each address has failed.

        What cannot be spoken to from here says nothing, if others could be. Refused is told if it is all that was heard.
        """
        heard = [e for e in self._failures if getattr(e, "errno", None) not in _NOT_FROM_HERE]
        heard = heard or self._failures
        exc = next((e for e in heard if not isinstance(e, ConnectionRefusedError)), heard[0])
        self._failures.clear()  # else exception and list hold each other
        return exc


def prepare(sock: socket.socket) -> None:
    """For a socket that is connected: small queries are sent at once, the kernel notices a host that is gone.

    Raises ConnectionRefusedError for one that is connected to itself. Linux lets that happen when a free local port is
    dialled: nobody listens there.
    """
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def certified(address: Address) -> str:
    """What a node's certificate must name: the host without a zone, and without the dot that ends a name."""
    return address.host.partition("%")[0].removesuffix(".")
