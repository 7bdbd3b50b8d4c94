"""The rules for dialling a name that has several addresses.

The addresses are tried one after the other and share one deadline. The first one that can be spoken to is taken. A node
may be called dead only if every address refused. Waiting is not done here, because the probe (asyncio) and applications
(threads) wait in different ways.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from .address import Address, Row
from .causes import Cause, Stage, cause

#: With these errors this machine cannot use an address of that family at all. They say nothing about the other
#: addresses.
_NOT_FROM_HERE = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_SHORTEST_S = 0.001  #: not 0, because a socket with a timeout of 0 does not wait at all


class InTurn:
    """The addresses of one name, in turn. Iterate, give each failure to `failed`, and raise `told` after the last."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._left = len(rows)
        self._failures: list[Exception] = []

    def __iter__(self) -> Iterator[Row]:
        for index, row in enumerate(self._rows):
            self._left = len(self._rows) - index
            yield row

    def share_s(self, left_s: float) -> float:
        """How much of the time that is left this address may use: an equal share with those still to come."""
        return max(_SHORTEST_S, left_s / self._left)

    def failed(self, exc: BaseException, stage: Stage) -> None:
        """Remember the failure, and go on with the next address. Raises it if every address would fail that way."""
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
        """The failure to tell when every address has failed.

        Addresses that this machine cannot use do not count, unless there are no others. A refusal is told only if all
        others were refused, too.
        """
        heard = [e for e in self._failures if getattr(e, "errno", None) not in _NOT_FROM_HERE]
        heard = heard or self._failures
        exc = next((e for e in heard if not isinstance(e, ConnectionRefusedError)), heard[0])
        # Else list and exception hold each other, and only garbage collection frees them.
        self._failures.clear()
        return exc


def prepare(sock: socket.socket) -> None:
    """Set up a connected socket: small queries are sent at once, and the kernel notices if the host is gone.

    Raises ConnectionRefusedError if the socket is connected to itself. Linux lets that happen when a local port is
    dialled on which nobody listens.
    """
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def certified(address: Address) -> str:
    """The name that a node's certificate must have: the host without a zone and without a final dot."""
    return address.host.partition("%")[0].removesuffix(".")


class Unusable(ValueError):
    """A file of CA certificates cannot be used. The text says why."""

    allowed = "a file of PEM certificates that can be read"


def tls_context(ca_certs: str | bytes | os.PathLike[str]) -> ssl.SSLContext:
    """The context that checks a node's certificate by the CA certificates in this file.

    Raises Unusable. Python's `ssl` raises many exceptions, which do not name the file, and an empty name stands there
    for the certificates of the system.
    """
    try:
        # What is no file (a pipe, a device) might never end.
        if not stat.S_ISREG(Path(os.fsdecode(ca_certs)).stat().st_mode):
            raise Unusable("this is no regular file")
        return ssl.create_default_context(cafile=ca_certs)
    except ssl.SSLError as exc:
        raise Unusable(f"no certificate can be read in it: {exc.reason or exc}") from None
    except OSError as exc:
        raise Unusable(exc.strerror or type(exc).__name__) from None
    except (ValueError, TypeError) as exc:  # a NUL, a lone surrogate, a number
        raise Unusable(str(exc)) from None
