"""Sends canaries: through each node one read, and perhaps one write, as applications ask for them.

The canary goes over the connection that the node's probe keeps open. It is judged only together with that probe: a node
that answers SERVER_INFO and not the canary is told as such, and a node that answers neither is left to its probe. What
follows from it is decided in the core.

The written document is small, and there is one for each node. Its primary key is `KEY` and the node's name. It is written
by ``get(key).replace(document)``. An ``insert`` would invent a key in a table whose primary key has another name, and so
it would fill that table.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rethinkdb import RethinkDB

from ..driver.answer import Alien
from ..driver.causes import in_words
from ..driver.text import clean, plain
from ..driver.wire import Forbidden, QueryFailed, Wire
from ..healing.events import Canary, CanaryEnd
from .node import TRIES, NodeProbe, forget
from .pulse import Pace

KEY = "selfheal-canary-"
AFTER_KEY = "selfheal-canary."  #: sorts right behind every key that begins with `KEY`
#: Two canaries of one node are at least this far apart, however often it is connected anew.
AGAIN_S = 0.1
#: While a node owes this many answers, it gets no further canary: RethinkDB would queue them all.
MOST_OWED = 20
TIDY_TRIES = 3  #: so often it is tried to delete the documents of nodes that are gone

_MISSING = re.compile(r"(Table|Database) `[^`]*` (does not exist|is ambiguous)")
_UNAVAILABLE = re.compile(r"Cannot perform (read|write)")


@dataclass(frozen=True)
class CanaryPlan:
    """What a cluster's canaries read and write (``db.table``), how often, and how long an answer may take."""

    read: str | None = None
    write: str | None = None
    every_s: float = 10.0
    timeout_s: float = 5.0


@dataclass(frozen=True)
class _Query:
    """One question of a canary."""

    deed: str  #: read or write
    table: str
    term: Any
    rights: str

    @property
    def called(self) -> str:
        return f"the canary's {self.deed} {'to' if self.deed == 'write' else 'of'} {self.table}"


class _Again(Exception):
    """This side stood still, so the canary proves nothing."""


class Canaries:
    """The canaries of one cluster, one at a time through each node. ``deliver`` must not block."""

    def __init__(
        self,
        cluster: str,
        probes: Iterable[NodeProbe],
        plan: CanaryPlan,
        pace: Pace,
        deliver: Callable[[Canary], None],
    ) -> None:
        self.cluster = cluster
        self.plan = plan
        self._pace = pace
        self._deliver = deliver
        self._wakes = {probe.target.node: asyncio.Event() for probe in probes}
        self._last: dict[str, CanaryEnd] = {}
        self._tidy_tries = TIDY_TRIES if plan.write else 0
        self._db = RethinkDB()

    async def watch(self, probe: NodeProbe, stopped: Callable[[], bool]) -> None:
        """Send canaries through this node at their times, and at once when it is connected anew."""
        loop = asyncio.get_running_loop()
        node, every_s = probe.target.node, self.plan.every_s
        wake = self._wakes[node]
        probe.on_fresh = wake.set
        due = loop.time() + random.uniform(0, every_s)
        while not stopped():
            timer = loop.call_at(due, wake.set)
            try:
                await wake.wait()
            finally:
                timer.cancel()
            wake.clear()
            began = loop.time()
            told = await self.ask(probe)
            if told is not None:
                self._take(told)
            # A stall should be seen to end as soon as a probe would see it.
            stalled = self._last.get(node) is CanaryEnd.UNANSWERED
            due = began + (min(every_s, probe.target.poll_s) if stalled else every_s)
            await asyncio.sleep(max(0.0, began + AGAIN_S - loop.time()))

    def _take(self, told: Canary) -> None:
        """Deliver it. If a stall begins or ends here, the others are asked at once: is it this node, or all of them?"""
        ends = (self._last.get(told.node), told.end)
        self._last[told.node] = told.end
        self._deliver(told)
        if ends.count(CanaryEnd.UNANSWERED) == 1:
            for node, wake in self._wakes.items():
                if node != told.node:
                    wake.set()

    async def ask(self, probe: NodeProbe) -> Canary | None:
        """Send one canary through this node. None if nothing can be said. Raises nothing but cancellation."""
        last = self._last.get(probe.target.node)
        for _ in range(TRIES):
            wire = probe.wire
            if wire is None or (wire.owed >= MOST_OWED and last is CanaryEnd.UNANSWERED):
                return None
            try:
                for query in self._queries(probe.target.node):
                    told = await self._answer(probe, wire, query)
                    if told is not None:
                        return told
                await self._tidy(wire)
            except asyncio.CancelledError:
                raise
            except _Again:
                continue
            except Exception as exc:  # the node's own probe finds out what is wrong with it
                forget(exc)
                return None
            return Canary(self.cluster, probe.target.node, CanaryEnd.ANSWERED)
        return None

    def _queries(self, node: str) -> list[_Query]:
        """What this node is asked. Without a table to read, the document that was written is read."""
        key, read, write = f"{KEY}{node}", self.plan.read, self.plan.write
        asked = []
        if write:
            document = {"id": key, "cluster": self.cluster, "node": node, "at": _now()}
            term = self._table(write).get(key).replace(document)
            asked.append(_Query("write", write, term, "{read: true, write: true}"))
        table = read or write
        if table:
            term = self._table(table, read_mode="majority").get(key)
            rights = "{read: true, write: true}" if table == write else "{read: true}"
            asked.append(_Query("read", table, term, rights))
        # A table of the application is read first: it is what people have to be told about.
        return asked[::-1] if read else asked

    def _table(self, name: str, **options: Any) -> Any:
        database, table = name.split(".")
        return self._db.db(database).table(table, **options)

    async def _answer(self, probe: NodeProbe, wire: Wire, query: _Query) -> Canary | None:
        """What is wrong with the answer to one question. None if it is answered. Raises what goes wrong besides."""
        loop, pulse = asyncio.get_running_loop(), self._pace.pulse
        node, began, timeout_s = probe.target.node, loop.time(), self.plan.timeout_s
        try:
            keep = _refused if query.deed == "write" else _read
            refused = await wire.value(query.term, began + timeout_s, keep)
        except asyncio.TimeoutError as exc:
            forget(exc)
            if pulse.stood_still_s(began) > timeout_s / 10:
                raise _Again from None
            # Only a node that answers its probe is stalled.
            await wire.server_info(loop.time() + probe.target.timeout_s)
            what = f"{query.called} within {timeout_s:g} s"
            return Canary(self.cluster, node, CanaryEnd.UNANSWERED, what)
        except Forbidden as exc:
            return self._unasked(node, self._missing_right(probe, query, str(exc)))
        except QueryFailed as exc:
            if _MISSING.match(str(exc)):
                told = f"{exc} Make that table, or name another one for the canary"
                return self._unasked(node, told)
            return self._failed(node, query, str(exc), exc.not_done)
        except Alien as exc:
            return self._failed(node, query, in_words(exc), not_done=False)
        if refused:
            return self._failed(node, query, refused, bool(_UNAVAILABLE.match(refused)))
        return None

    def _missing_right(self, probe: NodeProbe, query: _Query, why: str) -> str:
        database, table = query.table.split(".")
        user = probe.target.user
        grant = f"r.db('{database}').table('{table}').grant('{user}', {query.rights})"
        return f"{user} may not {query.deed} {query.table}; missing: {grant} ({why})"

    def _failed(self, node: str, query: _Query, why: str, not_done: bool) -> Canary:
        """An operation that the database could not do shows a stall. Any other error shows a question that is wrong."""
        if not_done:
            what = plain(f"{query.called} ({why})", 500)
            return Canary(self.cluster, node, CanaryEnd.UNANSWERED, what)
        return self._unasked(node, f"{query.called} is refused: {why}")

    def _unasked(self, node: str, why: str) -> Canary:
        return Canary(self.cluster, node, CanaryEnd.UNASKED, plain(why, 500))

    async def _tidy(self, wire: Wire) -> None:
        """Once after the start, delete the documents of nodes that this cluster's settings do not name any more."""
        if not self._tidy_tries or self.plan.write is None:
            return
        self._tidy_tries -= 1
        deadline = asyncio.get_running_loop().time() + self.plan.timeout_s
        table = self._table(self.plan.write)
        try:
            left = await wire.table(table.between(KEY, AFTER_KEY), deadline, self._left)
            for (key,) in left:
                await wire.value(table.get(key).delete(), deadline, _refused)
        except (Forbidden, QueryFailed, Alien, asyncio.TimeoutError) as exc:
            forget(exc)
            return
        self._tidy_tries = 0

    def _left(self, document: dict[str, Any]) -> tuple[str] | None:
        """The key of a document of ours whose node has left this cluster. Other clusters may use the same table."""
        key, node = document.get("id"), document.get("node")
        mine = document.get("cluster") == self.cluster and isinstance(node, str)
        return (key,) if mine and node not in self._wakes and key == f"{KEY}{node}" else None


def _read(document: dict[str, Any]) -> str:
    """Whatever is read is an answer."""
    return ""


def _refused(document: dict[str, Any]) -> str:
    """Why a write was refused: the first line of its answer. Empty if it was done."""
    if not document.get("errors"):
        return ""
    lines = str(document.get("first_error")).splitlines()
    return clean(lines[0] if lines else "(no reason)", 300).rstrip(": ")


def _now() -> dict[str, Any]:
    """The time as RethinkDB writes it."""
    return {"$reql_type$": "TIME", "epoch_time": round(time.time(), 3), "timezone": "+00:00"}
