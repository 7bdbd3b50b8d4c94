"""Whether a server on this machine greets a client that comes from here, which needs no login.

RethinkDB answers the first four bytes of a client with its version (V1_0, 2.4.4). One that hangs takes the connection,
which is the kernel's work, and says nothing. With TLS the first word is the server's part of that handshake.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time

HELLO = struct.pack("<L", 0x34C2BDC3)  #: V1_0 of the driver's protocol
MOST_S = 1.0  #: a server that is well says so within milliseconds


def greets(ip: str, port: int, within_s: float) -> bool:
    """Whether it said anything within this time, in the clear or by TLS. No certificate is examined."""
    until = time.monotonic() + min(within_s, MOST_S)
    return _plain(ip, port, until - min(within_s, MOST_S) / 2) or _tls(ip, port, until)


def _dial(ip: str, port: int, until: float) -> socket.socket:
    return socket.create_connection((ip, port), timeout=max(0.01, until - time.monotonic()))


def _plain(ip: str, port: int, until: float) -> bool:
    with contextlib.suppress(OSError), _dial(ip, port, until) as made:
        made.sendall(HELLO)
        made.settimeout(max(0.01, until - time.monotonic()))
        return bool(made.recv(1))
    return False


def _tls(ip: str, port: int, until: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _dial(ip, port, until) as made:
            made.settimeout(max(0.01, until - time.monotonic()))
            with context.wrap_socket(made):
                return True
    except ssl.SSLError as exc:
        return "ALERT" in (exc.reason or "")  # it wants a certificate, and has said so
    except OSError:
        return False
