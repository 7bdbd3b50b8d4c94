"""
Free TCP ports for what the lab starts.

Not from the kernel's ephemeral range, where "bind to port 0" takes them: there a stranger's outgoing connection may
sit on a node's port while the node is down, and a client that dials a dead port in that range can be connected to
itself (TCP simultaneous open), so that a dead node looks alive.

A port that nobody listens on need not be free: its node may be down for a moment, or start in a second. So each
port is reserved as well, against every other lab on this machine, as long as the process lives that asked for it.
Whoever takes ports on this machine for tests, the simulated servers too, asks here.
"""

import contextlib
import itertools
import random
import socket
import time
from pathlib import Path

LOOPBACK = "127.0.0.1"
RANGE = range(20000, 32000)
#: Where a RethinkDB listens that nobody has told otherwise.
DEFAULTS = {28015, 29015}

_reserved = {}


class Reservation:
    """A port that no other lab on this machine is given, until this is closed or its process ends."""

    def __init__(self, port, *sockets):
        self.port = port
        self._sockets = sockets

    def close(self):
        """Give the port back."""
        _reserved.pop(self.port, None)
        for one in self._sockets:
            one.close()


def free_port():
    """A TCP port that nobody listens on, and that no lab on this machine was given and may still use."""
    return reserve().port


def reserve():
    """The reservation of such a port."""
    for port in _candidates():
        name = None if port in _reserved else _name(port)
        if name is None:
            continue
        held = _held(port)
        if held is None:
            name.close()
            continue
        _reserved[port] = Reservation(port, name, held)
        return _reserved[port]
    raise OSError(f"no free port found between {RANGE.start} and {RANGE.stop}")


def _candidates():
    """Ports in a random order: those outside the ephemeral range, or all where that leaves none."""
    ephemeral = _ephemeral()
    outside = [*range(RANGE.start, min(RANGE.stop, ephemeral.start))]
    outside += range(max(RANGE.start, ephemeral.stop), RANGE.stop)
    ports = [port for port in outside or RANGE if port not in DEFAULTS]
    # Each in turn from a random one on, so that none is forgotten and two labs seldom try the same.
    start = random.randrange(len(ports)) if ports else 0
    return itertools.chain(ports[start:], ports[:start])


def _name(port):
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


def _held(port):
    """
    A socket that is bound to the port and does not listen. None if somebody else is on it.

    It keeps out strangers: the kernel gives the port to no outgoing connection, and nobody can bind to it but who says
    SO_REUSEADDR, as servers do. Who dials it is refused.
    """
    # On all addresses: one that listens there, or on a single other one, is in the way of a server that binds to all.
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.bind(("", port))
    except OSError:
        held.close()
        return None
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return held


def _ephemeral():
    """The ports that the kernel gives to outgoing connections."""
    with contextlib.suppress(OSError, ValueError):
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()
        return range(int(first), int(last) + 1)
    return range(0)


def bound_to(port, listens=False, within_s=10.0):
    """A socket that has this port of the loopback, and perhaps listens there.

    A server that was killed holds its port until the helpers that it has forked have ended, too.
    """
    give_up_at = time.monotonic() + within_s
    while True:
        made = socket.socket()
        # As a server that dies leaves connections behind, so whoever comes next must say that it may reuse the port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((LOOPBACK, port))
            if listens:
                made.listen()
        except OSError:
            made.close()
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
            continue
        if not listens:  # nobody else may take it so
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return made
