"""Why a dial failed, and on which side. Only this file reads the exceptions of sockets, TLS and resolvers.

What follows from a cause is not decided here. The probe asks which fault of the node it proves, and an application asks
whether to try the next node. Each has its own table with a row for each cause.

The rule: an exception is ours (it went wrong on this side) if it was raised before the peer was heard, unless the
network says something about the peer by it. A lack of memory, threads or hash functions in this process is always ours.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from enum import Enum

from .address import SILENCES
from .answer import Alien
from .wire import Lost, Ours, Refused


class Stage(str, Enum):
    """How far a dial had come. The meaning of a timeout depends on it."""

    NAME = "name"
    TCP = "TCP"
    TLS = "TLS"
    HANDSHAKE = "handshake"
    ANSWER = "answer"

    def __str__(self) -> str:
        return self.value


class Cause(Enum):
    """Why a dial failed, or a question over an open connection."""

    OURS = "something went wrong on this side, which proves nothing about the peer"
    NAME_SILENT = "the resolver does not answer in time"
    TCP_SILENT = "nothing answers to TCP in time"
    TLS_SILENT = "TCP is accepted, and TLS not answered in time"
    GREETING_SILENT = "TCP is accepted, and the greeting not answered in time"
    ANSWER_SILENT = "the connection stands, and a question is not answered in time"
    NO_NAME = "the name does not resolve"
    REFUSED = "nobody listens on the port"
    UNREACHABLE = "the network says that the host cannot be reached"
    TLS = "the two sides do not agree on TLS, or the certificate is not accepted"
    TLS_ENDED = "the peer ends the connection in the middle of TLS"
    LOGIN = "RethinkDB refuses the user or the password"
    ENDED = "the peer ends the connection"
    BROKEN = "the connection breaks, with an error of the network"
    ALIEN = "the peer does not speak as RethinkDB does"


#: Errors by which the network, or the peer's kernel, says something about the peer. All other errors of a socket are
#: about this machine: no file descriptor, port, memory or address is left, a firewall of its own forbids it (EPERM), or
#: a route forbids or swallows packets (EINVAL).
_OF_THE_PEER = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.ENONET,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EACCES,  # for IPv6 the network says this, too (ICMPv6: administratively prohibited)
    }
)
#: Errors of getaddrinfo that are about the resolver on this machine, and not about the name.
_RESOLVERS_OWN = frozenset(
    getattr(socket, name)
    for name in (
        "EAI_MEMORY", "EAI_SYSTEM", "EAI_BADFLAGS", "EAI_FAMILY", "EAI_SERVICE", "EAI_SOCKTYPE", "EAI_OVERFLOW",
    )
    if hasattr(socket, name)
)  # fmt: skip
#: OpenSSL's reasons that no peer can cause: no memory, or a policy of this machine (FIPS) that leaves nothing to use.
_TLS_OWN = frozenset({"MALLOC_FAILURE", "NO_CIPHERS_AVAILABLE", "NO_PROTOCOLS_AVAILABLE"})
_SILENT_AT = {
    Stage.NAME: Cause.NAME_SILENT,
    Stage.TCP: Cause.TCP_SILENT,
    Stage.TLS: Cause.TLS_SILENT,
    Stage.HANDSHAKE: Cause.GREETING_SILENT,
}


def cause(exc: BaseException, stage: Stage | None, heard: bool = True) -> Cause:
    """Why it failed. ``stage`` is None if it is not known how far the dial had come. ``heard``: the peer sent data."""
    if isinstance(exc, (Ours, MemoryError)):
        return Cause.OURS
    if isinstance(exc, Alien):
        return Cause.ALIEN
    if isinstance(exc, Refused):
        return Cause.LOGIN
    if isinstance(exc, (Lost, EOFError)):  # asyncio's IncompleteReadError is an EOFError
        return Cause.ENDED
    if isinstance(exc, SILENCES) and getattr(exc, "errno", None) is None:
        return _SILENT_AT.get(stage, Cause.ANSWER_SILENT) if stage else Cause.ANSWER_SILENT
    if isinstance(exc, OSError):
        return _of_a_socket(exc, stage)
    # The driver's functions may raise any exception on input that RethinkDB would not send.
    return Cause.ALIEN if heard else Cause.OURS


def _of_a_socket(exc: OSError, stage: Stage | None) -> Cause:
    """The cause for an exception of a socket, of TLS or of the resolver."""
    if isinstance(exc, socket.gaierror):
        return Cause.OURS if exc.errno in _RESOLVERS_OWN else Cause.NO_NAME
    if isinstance(exc, ssl.SSLError):
        if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return Cause.TLS_ENDED
        return Cause.OURS if _reason(exc) in _TLS_OWN else Cause.TLS
    if exc.errno not in _OF_THE_PEER and not (
        exc.errno is None and isinstance(exc, ConnectionError)
    ):
        return Cause.OURS
    if isinstance(exc, ConnectionRefusedError):
        return Cause.REFUSED
    if exc.errno == errno.ETIMEDOUT:
        return Cause.UNREACHABLE
    # Before TCP stands, only a reset can come from the peer itself. All else is the network's word about the host.
    if stage in (Stage.NAME, Stage.TCP) and not isinstance(exc, ConnectionError):
        return Cause.UNREACHABLE
    return Cause.BROKEN


def in_words(exc: BaseException) -> str:
    """What an exception says. The caller must make the whole sentence fit to be shown (see `driver.text`)."""
    if isinstance(exc, ssl.SSLError):
        return _tls_words(exc)
    if isinstance(exc, OSError) and (exc.strerror or exc.errno is not None):
        return exc.strerror or os.strerror(exc.errno or 0)
    try:
        text = str(exc)[:200]
    except Exception:  # the driver's errors may fail to print themselves (2.4.10)
        text = "(no text)"
    if isinstance(exc, (Ours, Alien, Refused)):
        return text
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _reason(exc: ssl.SSLError) -> str:
    """The reason that OpenSSL gives. Errors of Python's own `ssl` module have none."""
    return getattr(exc, "reason", None) or ""


def _tls_words(exc: ssl.SSLError) -> str:
    """What is wrong with TLS: for a certificate in OpenSSL's own words (expired, self-signed, wrong host)."""
    words = getattr(exc, "verify_message", "")
    if words:
        return str(words)
    if _reason(exc) in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "the other side does not speak TLS"
    return _reason(exc) or str(exc.strerror or exc)[:200] or type(exc).__name__
