"""What a server says about its own ports, for whoever wants to know who can reach it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rethinkdb import RethinkDB

from ..driver.wire import Lost
from .node import NodeProbe, text

#: The kind of a port → its name in ``server_status``, and the option with which a server is told where to listen.
KINDS = {
    "driver": ("reql_port", "--bind-driver"),
    "cluster": ("cluster_port", "--bind-cluster"),
    "http": ("http_admin_port", "--bind-http"),
}
_EVERYWHERE = ("all", "0.0.0.0", "::")


@dataclass(frozen=True)
class Ports:
    """The ports of a server by kind. ``everywhere``: those that its command line opens on all addresses.

    A server that has its options from a file shows no more of them than the file's name (2.4.4).
    """

    by_kind: Mapping[str, int] = field(default_factory=dict)
    everywhere: frozenset[str] = frozenset()


async def ports(probe: NodeProbe, server_id: str | None, deadline: float) -> Ports | None:
    """The ports of the server that this probe is connected to. None if it does not list itself, as a proxy does not.

    Raises what `Wire.table` raises.
    """
    wire = probe.wire
    if wire is None:
        raise Lost
    term = RethinkDB().db("rethinkdb").table("server_status")
    rows = await wire.table(term, deadline, _row)
    return next((found for server, found in rows if server == server_id), None)


def _row(row: dict[str, Any]) -> tuple[str | None, Ports]:
    """From a document of ``server_status``. The command line may hold a password, so it is not kept."""
    network, process = row.get("network"), row.get("process")
    network = network if isinstance(network, dict) else {}
    argv = process.get("argv") if isinstance(process, dict) else None
    found = {kind: network.get(name) for kind, (name, _) in KINDS.items()}
    by_kind = {
        kind: port
        for kind, port in found.items()
        if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536
    }
    everywhere = _everywhere(argv if isinstance(argv, list) else []) & by_kind.keys()
    return text(row.get("id")), Ports(by_kind, frozenset(everywhere))


def _everywhere(argv: Iterable[Any]) -> set[str]:
    """The kinds of ports that this command line opens on all addresses. A kind's own option counts before ``--bind``."""
    bound: dict[str, list[str]] = {}
    option = ""
    for word in argv:
        if not isinstance(word, str):
            continue
        if word.startswith("--"):
            option, _, value = word.partition("=")
        else:
            value = word
        if value and (option == "--bind" or option.startswith("--bind-")):
            bound.setdefault(option, []).append(value)
    return {
        kind
        for kind, (_, own) in KINDS.items()
        if any(one in _EVERYWHERE for one in bound.get(own) or bound.get("--bind", []))
    }
