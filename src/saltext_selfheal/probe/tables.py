"""Reads a cluster's system tables from one live node, and asks each live node whom it is connected to.

The system tables are read separately from the nodes' own probes and with more patience, because a peer that hangs
delays them by 15 s (2.4.4). Whom a node is connected to (``server_status``) is not delayed by any peer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rethinkdb import RethinkDB

from ..driver.answer import Keep, leisurely
from ..driver.causes import Cause, Stage, cause, in_words
from ..driver.text import NAME_CHARS, clean, plain
from ..driver.wire import Forbidden, Lost
from ..healing.events import ClusterView, Issue, Met, Replica, Shard, Table, ViewStatus
from .node import TRIES, NodeProbe, forget, text
from .pulse import Pace

MEET_S = 0.25  #: two rounds that ask whom the nodes are connected to are at least this far apart
MAX_SERVERS = 1000  #: at most this many servers of one node's ``server_status`` are taken
MAX_ISSUES = 100


@dataclass(frozen=True)
class ViewPlan:
    """How often and how patiently a cluster's system tables are read."""

    every_s: float = 5.0
    timeout_s: float = 20.0
    backups: bool = False  #: it is also looked which backups run


class TableReader:
    """Reads a cluster's system tables, each round from one live node, and whom each live node is connected to."""

    def __init__(
        self, cluster: str, probes: list[NodeProbe], plan: ViewPlan, pace: Pace | None = None
    ) -> None:
        self.cluster = cluster
        self.plan = plan
        self._probes = probes
        self._pace = pace or Pace()
        self._turn = 0
        self._meeting: asyncio.Task[None] | None = None
        self._meet_again = False
        # The driver's global `r` has one loop type for all its users, so this is an object of our own.
        system = RethinkDB().db("rethinkdb")
        self._terms = {
            name: system.table(name)
            for name in ("server_status", "table_status", "table_config", "current_issues")
        }

    def _asked(self) -> NodeProbe | None:
        """The next live node in turn."""
        for _ in self._probes:
            probe = self._probes[self._turn % len(self._probes)]
            self._turn += 1
            if probe.answers and probe.wire is not None:
                return probe
        return None

    async def take(self, deliver: Callable[[Met], None] | None = None) -> ClusterView | None:
        """Make one round. None if no node answers at all. Raises nothing but cancellation.

        ``deliver`` gets whom the nodes are connected to (`Met`) as soon as that is known. A round that failed while
        this side stood still is tried again.
        """
        loop = asyncio.get_running_loop()
        stood_still_s = 0.0
        tries = 0
        while True:
            probe = self._asked()
            if probe is None:
                return None
            tries += 1
            began = loop.time()
            try:
                return await self._round(probe, began, deliver)
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                status, why = self._why_not(probe, exc)
                timed_out = isinstance(exc, asyncio.TimeoutError)
                forget(exc)
            still_s = self._pace.pulse.stood_still_s(began)
            if not timed_out or still_s <= self.plan.timeout_s / 10:
                break
            stood_still_s += still_s
            why = f"{probe.target.here}'s probing stood still for {stood_still_s:.1f} s"
            if tries == TRIES:
                break
        return ClusterView(self.cluster, probe.target.node, status, plain(why, 500))

    async def _round(
        self, probe: NodeProbe, began: float, deliver: Callable[[Met], None] | None
    ) -> ClusterView:
        """Read all system tables under one deadline. Raises what goes wrong."""
        loop = asyncio.get_running_loop()
        deadline = began + self.plan.timeout_s
        met = await self.met(deadline)
        if deliver is not None and met.connected:
            deliver(met)
        silent = dict(await self._rows(probe, "table_config", deadline, _silent))
        tables = await self._rows(probe, "table_status", deadline, _table)
        issues = await self._rows(probe, "current_issues", deadline, _issue)
        return ClusterView(
            cluster=self.cluster,
            node=probe.target.node,
            status=ViewStatus.KNOWN,
            why="",
            tables=await leisurely(_tables(tables, silent), self._pace.turn),
            issues=tuple(issues[:MAX_ISSUES]),
            connected=met.connected,
            started=met.started,
            took_s=loop.time() - began,
        )

    def _why_not(self, probe: NodeProbe, exc: Exception) -> tuple[ViewStatus, str]:
        """Why the tables of that node could not be read."""
        node = probe.target.node
        if isinstance(exc, asyncio.TimeoutError):
            why = f"no answer from {node} within {self.plan.timeout_s:g} s: some peer hangs"
        elif isinstance(exc, Forbidden):
            grant = f"r.db('rethinkdb').grant('{probe.target.user}', {{read: true}})"
            why = f"{probe.target.user} may not read the system tables of {node}; missing: {grant} ({exc})"
            return ViewStatus.FORBIDDEN, why
        elif cause(exc, Stage.ANSWER) is Cause.OURS:
            why = f"{probe.target.here} cannot read the system tables: {in_words(exc)}"
        elif isinstance(exc, (Lost, OSError)):
            why = f"{node} ended the connection"
        else:
            why = f"{node} answers oddly: {in_words(exc)}"
        return ViewStatus.UNKNOWN, why

    async def _rows(self, probe: NodeProbe, table: str, deadline: float, keep: Keep) -> list[Any]:
        wire = probe.wire
        if wire is None:
            raise Lost
        return await wire.table(self._terms[table], deadline, keep)

    # ------------------------------------------------------------ who has met whom

    async def met(self, deadline: float) -> Met:
        """Read ``server_status`` of every live node. Peers that hang do not delay it (2.4.4). Raises Forbidden."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        live = [probe for probe in self._probes if probe.answers and probe.wire is not None]
        answers = await asyncio.gather(
            *(self._rows(probe, "server_status", deadline, _server) for probe in live),
            return_exceptions=True,
        )
        connected: dict[str, frozenset[str]] = {}
        names: dict[str, str] = {}
        started: dict[str, float] = {}
        for probe, rows in zip(live, answers, strict=True):
            if isinstance(rows, (Forbidden, asyncio.CancelledError)):
                raise rows
            if isinstance(rows, BaseException):
                forget(rows)
                continue  # the node's own probe finds out what is wrong with it
            servers = rows[:MAX_SERVERS]
            connected[probe.target.node] = frozenset(server for server, _, _ in servers)
            for server, name, when in servers:
                if name is not None:
                    names[server] = name
                if when is not None:
                    started[server] = when
        return Met(
            cluster=self.cluster,
            connected=connected,
            names=names,
            started=started,
            took_s=loop.time() - began,
        )

    def meet(self, deliver: Callable[[Met], None]) -> None:
        """Ask at once whom the nodes are connected to. If that is being done already, do it once more afterwards."""
        if self._meeting is not None and not self._meeting.done():
            self._meet_again = True
        else:
            self._meeting = asyncio.ensure_future(self._meet(deliver))

    async def _meet(self, deliver: Callable[[Met], None]) -> None:
        loop = asyncio.get_running_loop()
        timeout_s = max(probe.target.timeout_s for probe in self._probes)
        while True:
            self._meet_again = False
            try:
                met = await self.met(loop.time() + timeout_s)
                if met.connected:
                    deliver(met)
            except Forbidden:
                pass  # the regular round tells that the permission is missing
            await asyncio.sleep(MEET_S)
            if not self._meet_again:
                return

    def close(self) -> None:
        if self._meeting is not None:
            self._meeting.cancel()


def _at(row: Any, *path: str) -> Any:
    """What lies in a document at the end of these keys. None if there is nothing."""
    for key in path:
        row = row.get(key) if isinstance(row, dict) else None
    return row


def _epoch(value: Any) -> float | None:
    """A time in RethinkDB's raw form (a pseudo-type) as epoch seconds. None if it is no such time."""
    when = _at(value, "epoch_time")
    return float(when) if isinstance(when, (int, float)) and abs(when) < 1e12 else None


def _strings(value: Any) -> tuple[str, ...]:
    return (
        tuple(clean(v, NAME_CHARS) for v in value if isinstance(v, str))
        if isinstance(value, list)
        else ()
    )


def _server(row: dict[str, Any]) -> tuple[str, str | None, float | None] | None:
    """Id, name and start time from a document of ``server_status``."""
    server = text(row.get("id"))
    if server is None:
        return None
    return server, text(row.get("name")), _epoch(_at(row, "process", "time_started"))


def _silent(row: dict[str, Any]) -> tuple[str, tuple[frozenset[str], ...]] | None:
    """From a document of ``table_config``: the table's id, and the servers without a vote for each shard."""
    table, shards = row.get("id"), row.get("shards")
    if not isinstance(table, str) or not isinstance(shards, list):
        return None
    return table, tuple(frozenset(_strings(_at(s, "nonvoting_replicas"))) for s in shards)


def _table(row: dict[str, Any]) -> tuple[str, Table]:
    """From a document of ``table_status``: the table's id and the table. Which replicas vote is added later."""
    shards = row.get("shards")
    return str(row.get("id")), Table(
        name=clean(f"{row.get('db')}.{row.get('name')}", 2 * NAME_CHARS),
        reads=_at(row, "status", "ready_for_reads") is True,
        writes=_at(row, "status", "ready_for_writes") is True,
        all_replicas=_at(row, "status", "all_replicas_ready") is True,
        shards=tuple(map(_shard, shards if isinstance(shards, list) else ())),
    )


def _shard(shard: Any) -> Shard:
    replicas = _at(shard, "replicas")
    return Shard(
        replicas=tuple(
            Replica(clean(str(_at(r, "server")), NAME_CHARS), clean(str(_at(r, "state")), 60), True)
            for r in (replicas if isinstance(replicas, list) else ())
        ),
    )


def _tables(
    status: list[tuple[str, Table]], silent: Mapping[str, tuple[frozenset[str], ...]]
) -> Generator[None, None, tuple[Table, ...]]:
    """The tables of ``table_status``, with what ``table_config`` says about voting. One step per table."""
    tables = []
    for of_id, table in status:
        plans = silent.get(of_id, ())
        if any(plans):
            known = itertools.chain(plans, itertools.repeat(frozenset[str]()))
            table = replace(table, shards=tuple(map(_voting, table.shards, known)))
        tables.append(table)
        yield
    return tuple(tables)


def _voting(shard: Shard, silent: frozenset[str]) -> Shard:
    return replace(
        shard, replicas=tuple(replace(r, voting=r.server not in silent) for r in shard.replicas)
    )


def _issue(row: dict[str, Any]) -> Issue:
    return Issue(
        type=clean(str(row.get("type")), 60),
        description=plain(row.get("description")),
    )
