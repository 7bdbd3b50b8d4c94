"""
A door between the healer and one node: a TCP port that leads to the node, to another one, or refuses.

What lies between a master and a database (a firewall, a virtual address, a name that leads elsewhere) is played by it:
the node itself serves everybody else on its own port all the while.
"""

import contextlib
import socket
import threading

from tests.lab.ports import LOOPBACK, free_port


class Relay:
    """``leads_to``: the port on the loopback that connections are passed on to. ``close()`` ends it.

    ``at``: the address of this side, if it is not a free port on the loopback.
    """

    def __init__(self, leads_to, at=None):
        self.host, self.port = at or (LOOPBACK, free_port())
        self.leads_to = leads_to
        self._there = threading.Event()
        self._there.set()
        self._listening = None
        self._open = []
        self._lock = threading.Lock()
        self.accept()

    @property
    def address(self):
        """``host:port`` of this side."""
        return f"{self.host}:{self.port}"

    def accept(self):
        """Take connections (again)."""
        if self._listening is None:
            listening = socket.create_server((self.host, self.port), backlog=64)
            self._listening = listening
            threading.Thread(target=self._serve, args=(listening,), daemon=True).start()

    def refuse(self):
        """Refuse connections from now on, and end those that are open."""
        listening, self._listening = self._listening, None
        if listening is not None:
            # close() alone would leave it listening as long as a thread waits in accept()
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        self._drop()

    def lead_to(self, port):
        """From now on lead there; connections that are open end."""
        self.leads_to = port
        self._drop()

    def swallow(self):
        """From now on connections get no answer, as in a network that is away; those that are open end."""
        self._there.clear()
        self._drop()

    def pass_on(self):
        """Lead to the node again; connections without an answer are led there, too."""
        self._there.set()

    close = refuse

    def _drop(self):
        with self._lock:
            ended, self._open = self._open, []
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self, listening):
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near):
        with near:
            if not self._there.wait(60):
                return
            try:
                far = socket.create_connection((LOOPBACK, self.leads_to), timeout=2)
            except OSError:
                return  # whoever dialled sees that it is closed
            with far:
                far.settimeout(None)
                with self._lock:
                    self._open += [near, far]
                back = threading.Thread(target=_pump, args=(far, near), daemon=True)
                back.start()
                _pump(near, far)
                back.join()
        with self._lock:
            self._open = [one for one in self._open if one not in (near, far)]


def _pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
