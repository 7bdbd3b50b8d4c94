"""
Free TCP ports for what the lab starts.

Not from the kernel's ephemeral range, where "bind to port 0" takes them: there a stranger's outgoing connection may
sit on a node's port while the node is down, and a client that dials a dead port in that range can be connected to
itself (TCP simultaneous open), so that a dead node looks alive.
"""

import random
import socket

LOOPBACK = "127.0.0.1"
RANGE = range(20000, 32000)

_given = set()


def free_port():
    """A TCP port on the loopback that nobody listens on, and that this process was not given before."""
    for _ in range(1000):
        port = random.choice(RANGE)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port found between {RANGE.start} and {RANGE.stop}")
