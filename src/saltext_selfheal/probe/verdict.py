"""Which fault an exception proves, in words; or that it proves nothing, because it went wrong on this side.

Rule: what was raised before the peer was heard, and is no statement of the network about the peer, is ours. Ours are
also memory, threads and hashes that this process lacks, whenever it lacks them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from dataclasses import dataclass

from ..driver.answer import Alien
from ..driver.wire import Lost, Ours, Refused
from ..healing.model import Fault

#: What the network, or the peer's own kernel, says of the peer. Any other error of a socket is about this machine: no
#: file descriptor, port, memory or address left, an own firewall (EPERM), a route that forbids or swallows (EINVAL).
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
    }
)
#: This machine cannot speak over an address of that family: no reason to doubt what the others say.
NOT_FROM_HERE = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
#: What getaddrinfo says of itself and not of the name.
_RESOLVERS_OWN = frozenset(
    getattr(socket, name)
    for name in (
        "EAI_MEMORY", "EAI_SYSTEM", "EAI_BADFLAGS", "EAI_FAMILY", "EAI_SERVICE", "EAI_SOCKTYPE", "EAI_OVERFLOW",
    )
    if hasattr(socket, name)
)  # fmt: skip
#: OpenSSL's reasons that no peer can cause: its memory, and what its policy (FIPS) leaves of it.
_TLS_OWN = frozenset({"MALLOC_FAILURE", "NO_CIPHERS_AVAILABLE", "NO_PROTOCOLS_AVAILABLE"})


@dataclass(frozen=True)
class Verdict:
    fault: Fault
    evidence: str
    ours: bool = False


def is_ours(exc: BaseException, stage: str, heard: bool) -> bool:
    """Whether it went wrong on this side. ``heard``: the peer has sent something on this connection."""
    if isinstance(exc, (Ours, MemoryError)):
        return True
    if isinstance(exc, (Alien, Lost, Refused, asyncio.TimeoutError)):
        return False
    if isinstance(exc, socket.gaierror):
        return exc.errno in _RESOLVERS_OWN
    if isinstance(exc, ssl.SSLError):
        return exc.reason in _TLS_OWN
    if isinstance(exc, OSError):
        # Of IPv6 addresses the network says EACCES, too (ICMPv6: administratively prohibited).
        return not (
            exc.errno in _OF_THE_PEER
            or exc.errno == errno.EACCES
            or (exc.errno is None and isinstance(exc, ConnectionError))
        )
    return not heard or stage in ("name", "connect", "tls")


def judge(
    exc: Exception, *, at: str, stage: str, timeout_s: float, heard: bool, here: str
) -> Verdict:
    """Which fault an exception proves. The stage tells where the time ran out."""
    within = f"within {timeout_s:g} s"
    if is_ours(exc, stage, heard):
        words = exc.strerror if isinstance(exc, OSError) and exc.strerror else in_words(exc)
        what = f"look at {at}" if stage != "connect" else "open a connection"
        return Verdict(Fault.UNREACHABLE, f"{here} cannot {what}: {words}", ours=True)
    if isinstance(exc, asyncio.TimeoutError):
        fault, told = {
            "name": (Fault.UNREACHABLE, f"name of {at} does not resolve {within}"),
            "connect": (Fault.UNREACHABLE, f"{at} does not answer to TCP {within}"),
            "tls": (Fault.HUNG, f"{at} accepts TCP, but no TLS handshake {within}"),
            "handshake": (Fault.HUNG, f"{at} accepts TCP, but no handshake {within}"),
        }.get(stage, (Fault.HUNG, f"{at} is connected, but gives no answer {within}"))
        return Verdict(fault, told)
    if isinstance(exc, ConnectionRefusedError):
        return Verdict(Fault.DEAD, f"connection to {at} refused")
    if isinstance(exc, socket.gaierror):
        return Verdict(Fault.UNREACHABLE, f"name of {at} does not resolve: {exc.strerror or exc}")
    if isinstance(exc, ssl.SSLError):
        return Verdict(Fault.TLS, f"TLS with {at} failed: {_tls_words(exc)}")
    if isinstance(exc, Refused):
        return Verdict(Fault.AUTH, f"{at} refuses the login: {exc}")
    if isinstance(exc, Lost):
        return Verdict(Fault.ALIEN, f"{at} closes the connection in the {stage}")
    if isinstance(exc, OSError):
        words = os.strerror(exc.errno) if exc.errno else in_words(exc)
        # A reset needs somebody who had accepted.
        if stage in ("name", "connect") and not isinstance(exc, ConnectionError):
            return Verdict(Fault.UNREACHABLE, f"{at}: {words}")
        return Verdict(Fault.ALIEN, f"{at} breaks the connection: {words}")
    # The driver's parts raise nearly anything on input that RethinkDB would not send.
    words = str(exc) if isinstance(exc, Alien) else in_words(exc)
    return Verdict(Fault.ALIEN, f"{at} does not speak as RethinkDB does: {words}")


def in_words(exc: BaseException) -> str:
    """The exception's type and text, not yet made fit to be shown: whoever tells it does that for the whole sentence.

    The driver's errors may fail to print themselves (2.4.10).
    """
    try:
        text = str(exc)
    except Exception:
        text = "(no text)"
    if isinstance(exc, Ours):
        return text[:200]
    return f"{type(exc).__name__}: {text[:200]}" if text else type(exc).__name__


def _tls_words(exc: ssl.SSLError) -> str:
    """Expired, self-signed, wrong host …, in OpenSSL's own words; or what else went wrong."""
    words = getattr(exc, "verify_message", "")
    if words:
        return str(words)
    if exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "the other side does not speak TLS"
    return exc.reason or str(exc)[:200] or type(exc).__name__
