"""What the tests of the probe share: a target, and words for what is waited for."""

import socket
import threading

from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing.events import Observed, Viewed, ViewStatus
from saltext_selfheal.probe.node import Target, probe_once
from saltext_selfheal.probe.tables import ViewPlan
from tests.lab.simulated import SimulatedNode
from tests.lab.watching import Watching

TIMEOUT_S = 0.5


SLACK_S = (
    0.4  # a probe keeps its deadline to some milliseconds; a busy machine may wake the test later
)


def target(server, **changes):
    values = {
        "cluster": "runbook", "node": "db1", "address": Address(server.host, server.port), "password": "secret",
        "timeout_s": TIMEOUT_S, "poll_s": 0.05,
    }  # fmt: skip
    return Target(**{**values, **changes})


def look(server, **changes):
    return probe_once(target(server, **changes))


def resolving(monkeypatch, *rows):
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(f, 1, 6, "", addr) for f, addr in rows]
    )


def served_with(tmp_path, cert):
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    cert.private_key_pem.write_to_path(key)
    for number, blob in enumerate(cert.cert_chain_pems):
        blob.write_to_path(chain, append=number > 0)
    return SimulatedNode(name="db1", password="secret", tls=(chain, key))


def is_fault(fault, node="db1"):
    return (
        lambda e: isinstance(e, Observed)
        and e.observation.node == node
        and e.observation.fault is fault
    )


PLAN = {"runbook": ViewPlan(every_s=0.1, timeout_s=1.0)}


def watching_all(nodes, plans=None):
    return Watching(*(target(n, node=n.name) for n in nodes), plans=plans or PLAN)


def is_view(wanted):
    return lambda e: isinstance(e, Viewed) and wanted(e.view)


def known(view):
    return view.status is ViewStatus.KNOWN


class Babbler:
    """A server that answers each connection with given bytes, whatever it is asked."""

    def __init__(self):
        self.says = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self.listener.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(self.says)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(1)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass


OK = (
    b'{"success":true,"min_protocol_version":0,"max_protocol_version":0,"server_version":"2.4.4"}\0'
)


def is_seen(wanted, node="db1"):
    return (
        lambda e: isinstance(e, Observed) and e.observation.node == node and wanted(e.observation)
    )
