"""
Free TCP ports for what the lab starts.

Not from the kernel's ephemeral range, where "bind to port 0" takes them: there a stranger's outgoing connection may
sit on a node's port while the node is down, and a client that dials a dead port in that range can be connected to
itself (TCP simultaneous open), so that a dead node looks alive.

A port that nobody listens on need not be free: its node may be down for a moment, or start in a second. So each
port is reserved as well, against every other lab on this machine, as long as the process lives that asked for it.
"""

import contextlib
import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
RANGE = range(20000, 32000)
#: Where a RethinkDB listens that nobody has told otherwise.
DEFAULTS = {28015, 29015}

_reserved = {}


def free_port():
    """A TCP port that nobody listens on, and that no lab on this machine was given and may still use."""
    ephemeral = _ephemeral()
    for _ in range(1000):
        port = random.choice(RANGE)
        if port in _reserved or port in DEFAULTS or port in ephemeral:
            continue
        reservation = _reserve(port)
        if reservation is None:
            continue
        if not _bindable(port):
            reservation.close()
            continue
        _reserved[port] = reservation
        return port
    raise OSError(f"no free port found between {RANGE.start} and {RANGE.stop}")


def _reserve(port):
    """
    A name in the kernel's abstract namespace (unix(7)), None if another process has it.

    It needs no file and no folder that all users may write to, and goes with the process, however that ends.
    """
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reservation.bind(f"\0selfheal-lab-port-{port}")
    except OSError:
        reservation.close()
        return None
    return reservation


def _bindable(port):
    # On all addresses: one that listens there, or on a single other one, is in the way of a server that binds to all.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _ephemeral():
    with contextlib.suppress(OSError, ValueError):
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()
        found = range(int(first), int(last) + 1)
        # Where it spans the whole of ours, there is nothing better.
        if not (found.start <= RANGE.start and RANGE[-1] in found):
            return found
    return range(0)
