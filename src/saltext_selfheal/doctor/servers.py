"""Checks of the servers themselves: their release, and whether their ports are open on all addresses.

The release of each is on record. On which addresses a server listens it tells only in part, so its minion is asked what
listens there. Whether its web interface can be reached from here is found out by a dial.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..driver.text import plain
from ..healing.events import Observation
from ..ledger import records
from ..ledger.file import LedgerError
from ..probe.loop import targets
from ..probe.node import NodeProbe, Target
from ..probe.servers import Ports, ports
from . import live
from .master import Finding, Master, ok, warn

LAST = (2, 4, 4)  #: RethinkDB's last release, of December 2023
#: What a release has mended that is a reason to leave those before it.
MENDED = {
    (2, 4, 2): "before 2.4.2 the indexes of a table's Raft log can overflow, and memory leaks",
    (
        2,
        4,
        3,
    ): "before 2.4.3 chains of certificates are not served, and packages bring an older OpenSSL",
    (2, 4, 4): "before 2.4.4 a server on 32-bit ARM can end with a bus error",
}
_NAMES = {"driver": "driver port", "cluster": "cluster port", "http": "web interface on port"}
_EVERYWHERE = ("0.0.0.0", "*", "::", "[::]")
NETSTAT = "network.netstat"
NETSTAT_WITHIN_S = 10  #: reading the sockets takes a moment


def check_recorded(master: Master) -> Iterator[Finding]:
    """The release of each server, as the engine saw it last."""
    if master.settings is None:
        return
    try:
        with records.read(master.ledger_path) as db:
            states = records.states(db)
    except LedgerError:
        states = {}  # the ledger's own check tells why
    seen = [
        (name, node, states[name].nodes[node])
        for name, cluster in master.settings.clusters.items()
        for node in cluster.nodes
        if name in states and node in states[name].nodes
    ]
    # A node that has never answered has told no version either; that is told elsewhere.
    found = [Release(name, node, one.version, one.proxy) for name, node, one in seen if one.version]
    yield from _of_releases(found)
    if not found:
        yield ok("no server has told its release yet")


# ---------------------------------------------------------------- releases


@dataclass(frozen=True)
class Release:
    """What a server says of its release."""

    cluster: str
    node: str
    version: str | None
    proxy: bool = False

    @property
    def number(self) -> tuple[int, int, int] | None:
        """The release's number. None if there is none in it. What a package or a build adds to it does not count."""
        match = re.match(
            r"(?:rethinkdb )?v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", self.version or ""
        )
        return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def _of_releases(releases: list[Release]) -> Iterator[Finding]:
    """A warning for each release that is older than the last one, or that is not known, with all its nodes."""
    by_version: dict[tuple[str, str | None], list[Release]] = {}
    for one in releases:
        by_version.setdefault((one.cluster, one.version), []).append(one)
    recent = 0
    for (cluster, version), those in by_version.items():
        nodes = ", ".join(f"{one.node} (a proxy)" if one.proxy else one.node for one in those)
        number = those[0].number
        if number is None:
            named = f"the version is named {plain(version, 40)!r}" if version else "none is named"
            yield warn(
                f"{cluster}: no release of RethinkDB that is known on {nodes}: {named}",
                f"See what runs there (rethinkdb --version); the healer was tried with {_dotted(LAST)}.",
            )
        elif number < LAST:
            why = "; ".join(why for since, why in MENDED.items() if number < since)
            yield warn(
                f"{cluster}: RethinkDB {_dotted(number)} on {nodes} is older than the last release: {why}",
                f"Update to {_dotted(LAST)}, one node after the other"
                + (
                    "."
                    if number >= (2, 4, 0)
                    else "; from 2.3 and older all of them at once: they cannot be mixed."
                )
                + f" Pause the healer meanwhile: salt-run selfheal.pause {cluster} 2h.",
            )
        else:
            recent += len(those)
    if recent:
        yield ok(f"{recent} of {len(releases)} servers run RethinkDB {_dotted(LAST)} or newer")


def _dotted(number: tuple[int, int, int]) -> str:
    return ".".join(map(str, number))


# ---------------------------------------------------------------- now


@dataclass(frozen=True)
class Told:
    """What was found out about the ports of a server that answers."""

    ports: Ports | None
    reached: bool = False  #: its web interface took a connection from here


def check_now(master: Master) -> Iterator[Finding]:
    """The release of each server that answers now, and on which addresses its ports are open."""
    if master.settings is None:
        return
    asked = asyncio.run(live.asked(targets(master.settings.clusters), _ports_of))
    answering = [(seen, told) for seen, told in asked if seen.fault is None and told is not None]
    yield from _of_releases(
        [Release(seen.cluster, seen.node, seen.version, seen.proxy) for seen, _ in answering]
    )
    nodes = [seen.node for seen, _ in answering]
    listening = live.ask(master.opts, nodes, NETSTAT, [], NETSTAT_WITHIN_S) if nodes else {}
    closed, unseen = 0, []
    for seen, told in answering:
        found = list(_of_ports(seen, told, listening.get(seen.node)))
        yield from found
        if not found and _rows(listening.get(seen.node)):
            closed += 1
        elif not found:
            unseen.append(seen.node)
    if closed:
        yield ok(f"{closed} of {len(answering)} servers listen on chosen addresses only")
    if unseen:
        yield ok(
            f"not known on which addresses they listen: {', '.join(unseen)} ({NETSTAT} tells nothing there)"
        )


async def _ports_of(probe: NodeProbe, seen: Observation) -> Told:
    deadline = asyncio.get_running_loop().time() + live.TABLES_WITHIN_S
    try:
        found = None if seen.proxy else await ports(probe, seen.server_id, deadline)
    except Exception:
        return Told(None)  # whether the tables may be read is told by the check of the nodes
    web = found.by_kind.get("http") if found else None
    return Told(found, web is not None and await _reached(probe.target, seen, web))


async def _reached(target: Target, seen: Observation, port: int) -> bool:
    """Whether that port takes a connection from here. On this machine itself that proves nothing."""
    hosts = {at.rpartition(":")[0].strip("[]").partition("%")[0] for at in seen.addresses}
    if not hosts or any(ipaddress.ip_address(host).is_loopback for host in hosts):
        return False
    try:
        opening = asyncio.open_connection(target.address.host, port)
        _, writer = await asyncio.wait_for(opening, target.timeout_s)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.transport.abort()
    return True


def _rows(told: Any) -> list[Mapping[str, Any]]:
    """The sockets that listen, out of what a minion says. Any minion may say anything."""
    rows = told if isinstance(told, list) else []
    return [row for row in rows if isinstance(row, dict) and row.get("state") == "LISTEN"]


def _everywhere(told: Any, known: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Kind and number of each port that listens on all addresses: those that are known, and others of RethinkDB's."""
    kinds = {port: kind for kind, port in known.items()}
    for row in _rows(told):
        host, _, number = str(row.get("local-address")).rpartition(":")
        if host not in _EVERYWHERE or not re.fullmatch(r"[0-9]{1,5}", number):
            continue
        program = str(row.get("program")).rpartition("/")[2]
        if int(number) in kinds or program == "rethinkdb":
            yield kinds.get(int(number), ""), int(number)


def _of_ports(seen: Observation, told: Told, minion: Any) -> Iterator[Finding]:
    known = told.ports.by_kind if told.ports else {}
    found = set(_everywhere(minion, known))
    found |= {(kind, known[kind]) for kind in (told.ports.everywhere if told.ports else ())}
    who = f"{seen.cluster}: {seen.node}{' (a proxy)' if seen.proxy else ''}"
    if told.reached:
        yield warn(
            f"{who}: the web interface on port {known['http']} can be reached from this master: it gives "
            "administrator's rights to whoever reaches it, without a password",
            "Set no-http-admin, or bind-http=127.0.0.1, in the server's configuration and restart it.",
        )
    if found:
        named = [f"{_NAMES.get(kind, 'port')} {port}" for kind, port in sorted(found)]
        yield warn(
            f"{who} listens on all addresses: {', '.join(named)}",
            "Name the addresses in the server's configuration (bind=10.0.0.11; bind-driver, bind-cluster, bind-http "
            "for one port), set no-http-admin, and let a firewall keep strangers from the rest.",
        )
