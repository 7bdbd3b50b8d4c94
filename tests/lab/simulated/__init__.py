"""
A simulated RethinkDB node: enough of the server for a client to believe it, and faults on command.

What lives here: the node (wire protocol with its real handshake, SERVER_INFO, the system tables
that a health check reads, a look at the cluster), its faults, its two forms (a process of its own
with a config file, a thread inside a test) and the control socket. What must not: anything of Salt
or of saltext_selfheal, and any package but the standard library (a node starts within 150 ms because
it imports little). Free ports come from tests.lab.ports. Shapes and messages are those of RethinkDB 2.4.4.

One thing a module; each imports only from those before it: faults, settings, listening, login,
cluster, documents, connection, node; then the two forms: process (what runs in one) and child (its
holder), thread.

In a test:

    with SimulatedNode(name="db1", password="secret") as node:
        connect(node.host, node.port)
        node.set_fault("silent")

As a process, with a config file of RethinkDB's own format:

    python -m tests.lab.simulated --config-file db1.conf

    directory=/var/lib/db1
    server-name=db1
    driver-port=28015
    cluster-port=29015
    join=127.0.0.1:29016
    initial-password=secret

Keys of our own beside RethinkDB's:

    simulate-control=PATH          the control socket (default: control.sock in the directory)
    simulate-tables=db.t,db.t2     the tables it claims to have (default: runbook.runbook)
    simulate-user=NAME:PASSWORD    one more user, who may read everything; repeatable
    simulate-hostname=NAME         network.hostname in server_status (many nodes on one machine)
    simulate-join-wait=SECONDS     with every peer down the driver port opens this late (real: never)
    simulate-load=SECONDS          it loads for so long before it opens its driver port (real: as long as it takes)
    simulate-settle=SECONDS        tables are not ready for this long after a start (real: up to 3)
    simulate-fault={"fault": ...}  a fault from the first moment on, as the control socket takes it

The control socket takes one JSON object a line and answers one a line (always with `ok`):

    {"fault": NAME, ...options, "on_existing": "keep" or "drop", "add": true beside other faults}
    {"fault": null}   {"status": true}   {"drop": true}   {"batch": ROWS, null for all at once}

Simplified on purpose: of a user's tables it knows whole scans, single rows by their key and the insert of one document, and
each node keeps what it was told itself; a majority that returns is usable at once; `initial-password` counts at
every start, not only at the first; the HTTP port is named in server_status but nobody listens
there; under TLS a stalled connection notices that its peer left only when the stall ends.
"""

from tests.lab.simulated.child import SimulatedProcess
from tests.lab.simulated.faults import FAULTS, ISSUE_TYPES, STEPS, UnknownFault
from tests.lab.simulated.node import Node
from tests.lab.simulated.process import main
from tests.lab.simulated.settings import Settings, StartError, read_config, write_config
from tests.lab.simulated.thread import SimulatedNode, acquaint

__all__ = [
    "FAULTS",
    "ISSUE_TYPES",
    "STEPS",
    "Node",
    "Settings",
    "SimulatedNode",
    "SimulatedProcess",
    "StartError",
    "UnknownFault",
    "acquaint",
    "main",
    "read_config",
    "write_config",
]
