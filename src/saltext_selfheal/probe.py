"""What a look at a RethinkDB node or cluster tells, and the loop that keeps looking.

Everything here runs in one asyncio loop on one thread; no Salt call may enter it. A probe never raises and never
outlasts its deadline: whatever goes wrong is a fault with its evidence (`verdict`), unless it went wrong on this side
or while this side stood still (`pulse`). A node is judged by its own answers alone: by the connection that is open,
which proves only itself, and every ``redial_s`` by a fresh one, as an application would make it. What the system
tables of one node say of others is the cluster's view, asked for separately and more patiently.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import logging
import random
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from rethinkdb import RethinkDB

from .answer import Keep, leisurely, printable
from .config import Address, ClusterSettings
from .healing.model import (
    ClusterView,
    Fault,
    Issue,
    Met,
    Observation,
    Observed,
    Replica,
    Shard,
    Table,
    Viewed,
    ViewStatus,
    clean,
)
from .names import Resolver, told
from .pulse import Pace, Place
from .verdict import NOT_FROM_HERE, Verdict, in_words, is_ours, judge
from .wire import Forbidden, Lost, Wire

log = logging.getLogger(__name__)

CRYPTO_THREADS = 2
SETTLED_S = 10.0  #: after the start; all connections are open by then
AGAIN_S = 0.05  #: at least this between two looks at one node, however often it hangs up
MEET_S = 0.25  #: at least this between two rounds of whom the nodes of a cluster have met
SWITCH_S = 0.0005  #: how long one thread may keep the interpreter while another wants it
LOOKS = 3  #: so often is looked again before it is said that this side stands still
REDIAL_SHARE = 0.75  #: of ``redial_s`` at the earliest: a thousand dials are to be spread
MAX_SERVERS = 1000  #: of one node's ``server_status``
MAX_ISSUES = 100


@dataclass(frozen=True)
class Target:
    """One node to look at, and how."""

    cluster: str
    node: str
    address: Address
    user: str = "admin"
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    poll_s: float = 2.0
    timeout_s: float = 2.0
    redial_s: float = 30.0
    here: str = "this master"  #: how the evidence calls the side that looks


@dataclass(frozen=True)
class ViewPlan:
    """How a cluster's system tables are looked at."""

    every_s: float = 5.0
    timeout_s: float = 20.0


def tls_context(ca_certs: str) -> ssl.SSLContext:
    """What a node's certificate is checked against. Raises OSError or ssl.SSLError if the file is of no use."""
    return ssl.create_default_context(cafile=ca_certs)


def targets(clusters: Mapping[str, ClusterSettings]) -> list[Target]:
    """Every node of the settings. Raises OSError or ssl.SSLError for CA certificates that cannot be read."""
    found = []
    for name, cluster in clusters.items():
        tls = tls_context(cluster.tls.ca_certs) if cluster.tls else None
        for node, address in cluster.nodes.items():
            found.append(
                Target(
                    cluster=name,
                    node=node,
                    address=address,
                    user=cluster.user,
                    password=cluster.password.get_secret_value(),
                    tls=tls,
                    poll_s=cluster.poll,
                    timeout_s=cluster.timeout,
                    redial_s=cluster.redial,
                )
            )
    return found


# ---------------------------------------------------------------- one node


class Patience:
    """A deadline (of the loop's clock) for the node. What this side needs for itself moves it."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.moved_s = 0.0

    def move(self, seconds: float) -> None:
        self.at += seconds
        self.moved_s += seconds


class Look:
    """One node, looked at again and again: over one connection as long as it holds, and by fresh dials beside it."""

    def __init__(
        self, target: Target, resolver: Resolver, crypto: Executor, pace: Pace | None = None
    ) -> None:
        self.target = target
        self._resolver = resolver
        self._crypto = crypto
        self._pace = pace or Pace()
        self._wire: Wire | None = None
        self._stage = "name"
        self._heard = False
        self._idle: asyncio.Future[None] | None = None
        self._addresses: tuple[str, ...] = ()
        self._redial_at = 0.0
        self._failing = False  # the last look failed: each dials until one is well
        # Of the dials that failed in a row, one was accepted and not greeted.
        self._greets_nobody = False
        self.asked = False  #: somebody wants a fresh dial
        self.answers = False  #: as of the last probe

    @property
    def wire(self) -> Wire | None:
        """The open connection; None without one."""
        return self._wire if self._wire is not None and self._wire.open else None

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def ask_dial(self) -> None:
        """Have the next look dial afresh, and have it now."""
        self.asked = True
        self._lost()

    async def idle(self, until: float) -> None:
        """Wait until then (of the loop's clock), or until the connection ends: that is an observation, too."""
        if self.asked or (self._wire is not None and not self._wire.open):
            return
        loop = asyncio.get_running_loop()
        idle = self._idle = loop.create_future()
        timer = loop.call_at(until, _wake, idle)
        try:
            await idle
        finally:
            timer.cancel()
            self._idle = None

    def _lost(self) -> None:
        if self._idle is not None:
            _wake(self._idle)

    # ------------------------------------------------------------ the look

    async def probe(self) -> Observation:
        """Look once; again if this side stood still meanwhile. Raises nothing but cancellation.

        A look takes at most the target's timeout; with a fresh dial beside an open connection twice that.
        """
        loop, pulse = asyncio.get_running_loop(), self._pace.pulse
        dial = self.asked or self._failing or loop.time() >= self._redial_at
        self.asked = False
        stood_still_s = 0.0
        for _ in range(LOOKS):
            began = loop.time()
            seen = await self._look(began, dial)
            still_s = pulse.stood_still_s(began)
            if seen.fault is None:
                # The time that this side stood still is not the node's.
                return (
                    replace(seen, latency_s=max(0.0, seen.latency_s - still_s)) if still_s else seen
                )
            # A refusal proves itself, however late it is read.
            if still_s <= self.target.timeout_s / 10 or seen.fault is Fault.DEAD or seen.ours:
                return seen
            stood_still_s += still_s
        if still_s <= self.target.timeout_s / 2:
            return seen  # half of its time without any disturbance: that is enough of a chance
        why = f"{self.target.here}'s probing stood still for {stood_still_s:.1f} s"
        return replace(seen, fault=Fault.UNREACHABLE, evidence=why, ours=True)

    async def _look(self, began: float, dial: bool) -> Observation:
        loop = asyncio.get_running_loop()
        wire, info, latency_s = self.wire, None, 0.0
        if wire is not None:
            self._stage, self._heard = "answer", True
            try:
                info = await wire.server_info(began + self.target.timeout_s)
                latency_s = loop.time() - began
            except asyncio.CancelledError:
                self.close()
                raise
            except Lost:
                pass  # an open connection that ends proves nothing yet: dial afresh
            except Exception as exc:
                self.close()
                return self._faulty(exc, began, dialled=False)
        if info is None:
            self.close()
        elif not dial:
            return self._well(info, latency_s, wire, dialled=False)
        patience = Patience((began if info is None else loop.time()) + self.target.timeout_s)
        try:
            fresh, fresh_info = await self._dial(patience)
        except asyncio.CancelledError:
            self.close()
            raise
        except Exception as exc:
            return self._faulty(exc, began, dialled=True, answers=info is not None)
        self._failing = self._greets_nobody = False
        self._redial_at = loop.time() + self.target.redial_s * random.uniform(REDIAL_SHARE, 1.0)
        if info is None:
            latency_s = loop.time() - began - patience.moved_s
        seen = self._well(fresh_info, latency_s, fresh, dialled=True)
        if info is not None and info.get("id") == fresh_info.get("id"):
            fresh.close()
        else:
            # The first, or the address leads to another server now.
            self.close()
            fresh.on_lost = self._lost
            self._wire = fresh
        return seen

    def _well(
        self, info: Mapping[str, Any], latency_s: float, wire: Wire | None, dialled: bool
    ) -> Observation:
        self.answers = True
        return Observation(
            cluster=self.target.cluster,
            node=self.target.node,
            fault=None,
            evidence="answers",
            latency_s=latency_s,
            server_id=_text(info.get("id")),
            server_name=_text(info.get("name")),
            version=_text(wire.version if wire is not None else None),
            dialled=dialled,
            addresses=self._addresses,
            proxy=info.get("proxy") is True,
        )

    def _faulty(
        self, exc: Exception, began: float, dialled: bool, answers: bool = False
    ) -> Observation:
        verdict = self._judge(exc)
        _forget(exc)
        self.answers = answers
        self._failing = True
        if answers:
            if verdict.fault is Fault.HUNG:
                self._greets_nobody = True
            elif self._stage != "connect" or not isinstance(exc, asyncio.TimeoutError):
                self._greets_nobody = False
            elif self._greets_nobody:
                # Its backlog is full of those that were not greeted.
                verdict = replace(verdict, fault=Fault.HUNG)
            verdict = replace(
                verdict, evidence=f"{verdict.evidence}; a connection that was open before answers"
            )
        else:
            # Without a connection that answers nobody knows whether its host can be reached.
            self._greets_nobody = False
        return Observation(
            cluster=self.target.cluster,
            node=self.target.node,
            fault=verdict.fault,
            evidence=printable(clean(verdict.evidence)),
            latency_s=asyncio.get_running_loop().time() - began,
            ours=verdict.ours,
            dialled=dialled,
            answers=answers,
            addresses=self._addresses,
        )

    def _judge(self, exc: Exception) -> Verdict:
        return judge(
            exc,
            at=str(self.target.address),
            stage=self._stage,
            timeout_s=self.target.timeout_s,
            heard=self._heard,
            here=self.target.here,
        )

    # ------------------------------------------------------------ the dial

    async def _dial(self, patience: Patience) -> tuple[Wire, dict[str, Any]]:
        """A fresh connection, logged in, and what its server says of itself."""
        try:
            return await self._dial_once(patience)
        except (Lost, ConnectionResetError, BrokenPipeError):
            # It may have died in the middle of the greeting: then the second dial is refused.
            return await self._dial_once(patience)

    async def _dial_once(self, patience: Patience) -> tuple[Wire, dict[str, Any]]:
        self._heard = False
        wire, place = await self._connect(patience)
        target, address = self.target, self.target.address
        try:
            self._stage = "handshake"
            busy_s = await wire.greet(
                address.host, address.port, target.user, target.password, patience.at,
                self._crypto, place,
            )  # fmt: skip
            patience.move(busy_s)
            self._stage = "answer"
            return wire, await wire.server_info(patience.at)
        except BaseException:
            self._heard = wire.heard
            wire.close()
            raise
        finally:
            place.leave()

    async def _connect(self, patience: Patience) -> tuple[Wire, Place]:
        """TCP, and TLS where configured. Several addresses share the one deadline."""
        loop = asyncio.get_running_loop()
        self._stage, self._addresses = "name", ()
        found, waited_s = await self._resolver.resolve(
            self.target.address, patience.at - loop.time()
        )
        patience.move(waited_s)
        self._addresses = told(found)
        failures: list[Exception] = []
        for index, (family, sockaddr) in enumerate(found):
            self._stage = "connect"
            share_s = (patience.at - loop.time()) / (len(found) - index)
            sock = place = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                await asyncio.wait_for(loop.sock_connect(sock, sockaddr), share_s)
                # From here on somebody had accepted, also if the reset has come already (ENOTCONN).
                self._stage = "tls" if self.target.tls else "handshake"
                if sock.getsockname() == sock.getpeername():
                    # Linux lets a dial to a free local port connect to itself: nobody listens there.
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
                began = loop.time()
                place = await self._pace.place(self._failing)
                patience.move(loop.time() - began)
                share_s = (patience.at - loop.time()) / (len(found) - index)
                return await asyncio.wait_for(self._adopt(sock), share_s), place
            except BaseException as exc:
                if place is not None:
                    place.leave()
                if sock is not None:
                    sock.close()
                # An error that is all this side's own says nothing about any address.
                not_from_here = isinstance(exc, OSError) and exc.errno in NOT_FROM_HERE
                told_by_peer = isinstance(exc, (OSError, asyncio.TimeoutError))
                if (
                    not told_by_peer
                    or isinstance(exc, ssl.SSLError)
                    or (is_ours(exc, self._stage, False) and not not_from_here)
                ):
                    raise
                assert isinstance(exc, Exception)
                failures.append(exc)
        # What cannot be spoken to from here says nothing, if others could be. Refused proves death only if it is all
        # that was heard.
        heard = [e for e in failures if getattr(e, "errno", None) not in NOT_FROM_HERE] or failures
        verdict = next((e for e in heard if not isinstance(e, ConnectionRefusedError)), heard[0])
        failures.clear()
        heard.clear()
        raise verdict

    async def _adopt(self, sock: socket.socket) -> Wire:
        loop = asyncio.get_running_loop()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = self.target.tls
        # A certificate names its host without a zone, and without the dot that ends a name.
        host = self.target.address.host.partition("%")[0].removesuffix(".") if tls else None
        _, wire = await loop.create_connection(
            lambda: Wire(self._pace.turn), sock=sock, ssl=tls, server_hostname=host
        )
        return wire


def _forget(exc: BaseException | None) -> None:
    """Let go of the frames that an exception passed through.

    They hold the future that holds the exception: such circles are left to the garbage collector, and three hundred
    timeouts a second would make it stop every probe for 10 ms twice a second.
    """
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _text(value: Any) -> str | None:
    return printable(value[:200]) if isinstance(value, str) else None


# ---------------------------------------------------------------- one cluster


class View:
    """A cluster's system tables, asked of one live node a round; and whom each live node is connected to."""

    def __init__(
        self, cluster: str, looks: list[Look], plan: ViewPlan, pace: Pace | None = None
    ) -> None:
        self.cluster = cluster
        self.plan = plan
        self._looks = looks
        self._pace = pace or Pace()
        self._turn = 0
        self._meeting: asyncio.Task[None] | None = None
        self._meet_again = False
        # An object of our own: the driver's global `r` shares its loop type with everybody.
        system = RethinkDB().db("rethinkdb")
        self._terms = {
            name: system.table(name)
            for name in ("server_status", "table_status", "table_config", "current_issues")
        }

    def _asked(self) -> Look | None:
        """The next live node in turn."""
        for _ in self._looks:
            look = self._looks[self._turn % len(self._looks)]
            self._turn += 1
            if look.answers and look.wire is not None:
                return look
        return None

    async def look(self, deliver: Callable[[Met], None] | None = None) -> ClusterView | None:
        """One round; None if no node answers at all. Raises nothing but cancellation.

        ``deliver`` gets whom the nodes have met, as soon as that is known.
        """
        loop = asyncio.get_running_loop()
        stood_still_s = 0.0
        for _ in range(LOOKS):
            look = self._asked()
            if look is None:
                return None
            began = loop.time()
            try:
                return await self._round(look, began, deliver)
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                status, why = self._why_not(look, exc)
                timed_out = isinstance(exc, asyncio.TimeoutError)
                _forget(exc)
            still_s = self._pace.pulse.stood_still_s(began)
            if not timed_out or still_s <= self.plan.timeout_s / 10:
                break
            stood_still_s += still_s
            why = f"{look.target.here}'s probing stood still for {stood_still_s:.1f} s"
        return ClusterView(self.cluster, look.target.node, status, clean(why))

    async def _round(
        self, look: Look, began: float, deliver: Callable[[Met], None] | None
    ) -> ClusterView:
        loop = asyncio.get_running_loop()
        deadline = began + self.plan.timeout_s
        met = await self.met(deadline)
        if deliver is not None and met.connected:
            deliver(met)
        silent = dict(await self._rows(look, "table_config", deadline, _silent))
        tables = await self._rows(look, "table_status", deadline, _table)
        issues = await self._rows(look, "current_issues", deadline, _issue)
        return ClusterView(
            cluster=self.cluster,
            node=look.target.node,
            status=ViewStatus.KNOWN,
            why="",
            tables=await leisurely(_tables(tables, silent), self._pace.turn),
            issues=tuple(issues[:MAX_ISSUES]),
            connected=met.connected,
            started=met.started,
            took_s=loop.time() - began,
        )

    def _why_not(self, look: Look, exc: Exception) -> tuple[ViewStatus, str]:
        """Why the tables of that node could not be read."""
        node = look.target.node
        if isinstance(exc, asyncio.TimeoutError):
            why = f"no answer from {node} within {self.plan.timeout_s:g} s: some peer hangs"
        elif isinstance(exc, Forbidden):
            grant = f"r.db('rethinkdb').grant('{look.target.user}', {{read: true}})"
            why = f"{look.target.user} may not read the system tables of {node}; missing: {grant} ({exc})"
            return ViewStatus.FORBIDDEN, why
        elif is_ours(exc, "answer", True):
            why = f"{look.target.here} cannot read the system tables: {in_words(exc)}"
        elif isinstance(exc, (Lost, OSError)):
            why = f"{node} ended the connection"
        else:
            why = f"{node} answers oddly: {in_words(exc)}"
        return ViewStatus.UNKNOWN, why

    async def _rows(self, look: Look, table: str, deadline: float, keep: Keep) -> list[Any]:
        wire = look.wire
        if wire is None:
            raise Lost
        return await wire.table(self._terms[table], deadline, keep)

    # ------------------------------------------------------------ who has met whom

    async def met(self, deadline: float) -> Met:
        """``server_status`` of every live node: unaffected by peers that hang (2.4.4). Raises Forbidden."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        live = [look for look in self._looks if look.answers and look.wire is not None]
        answers = await asyncio.gather(
            *(self._rows(look, "server_status", deadline, _server) for look in live),
            return_exceptions=True,
        )
        connected: dict[str, frozenset[str]] = {}
        names: dict[str, str] = {}
        started: dict[str, float] = {}
        for look, rows in zip(live, answers, strict=True):
            if isinstance(rows, (Forbidden, asyncio.CancelledError)):
                raise rows
            if isinstance(rows, BaseException):
                _forget(rows)
                continue  # that node's own probe tells what is wrong with it
            servers = rows[:MAX_SERVERS]
            connected[look.target.node] = frozenset(server for server, _, _ in servers)
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
        """Ask at once whom the nodes have met. One question at a time: who comes meanwhile gets the next."""
        if self._meeting is not None and not self._meeting.done():
            self._meet_again = True
        else:
            self._meeting = asyncio.ensure_future(self._meet(deliver))

    async def _meet(self, deliver: Callable[[Met], None]) -> None:
        loop = asyncio.get_running_loop()
        timeout_s = max(look.target.timeout_s for look in self._looks)
        while True:
            self._meet_again = False
            try:
                met = await self.met(loop.time() + timeout_s)
                if met.connected:
                    deliver(met)
            except Forbidden:
                pass  # the view says so
            await asyncio.sleep(MEET_S)
            if not self._meet_again:
                return

    def close(self) -> None:
        if self._meeting is not None:
            self._meeting.cancel()


def _at(row: Any, *path: str) -> Any:
    for key in path:
        row = row.get(key) if isinstance(row, dict) else None
    return row


def _epoch(value: Any) -> float | None:
    """RethinkDB's raw time pseudo-type as epoch seconds."""
    when = _at(value, "epoch_time")
    return float(when) if isinstance(when, (int, float)) and abs(when) < 1e12 else None


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(clean(v) for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _server(row: dict[str, Any]) -> tuple[str, str | None, float | None] | None:
    """Id, name and start of one of ``server_status``."""
    server = _text(row.get("id"))
    if server is None:
        return None
    return server, _text(row.get("name")), _epoch(_at(row, "process", "time_started"))


def _silent(row: dict[str, Any]) -> tuple[str, tuple[frozenset[str], ...]] | None:
    """Which replicas of each shard do not vote: id of the table and names of servers, of ``table_config``."""
    table, shards = row.get("id"), row.get("shards")
    if not isinstance(table, str) or not isinstance(shards, list):
        return None
    return table, tuple(frozenset(_strings(_at(s, "nonvoting_replicas"))) for s in shards)


def _table(row: dict[str, Any]) -> tuple[str, Table]:
    """One of ``table_status``, with its id. Which replicas vote is not known yet."""
    shards = row.get("shards")
    return str(row.get("id")), Table(
        name=clean(f"{row.get('db')}.{row.get('name')}"),
        reads=_at(row, "status", "ready_for_reads") is True,
        writes=_at(row, "status", "ready_for_writes") is True,
        all_replicas=_at(row, "status", "all_replicas_ready") is True,
        shards=tuple(map(_shard, shards if isinstance(shards, list) else ())),
    )


def _shard(shard: Any) -> Shard:
    replicas = _at(shard, "replicas")
    return Shard(
        primaries=_strings(_at(shard, "primary_replicas")),
        replicas=tuple(
            Replica(clean(str(_at(r, "server"))[:200]), clean(str(_at(r, "state"))[:60]), True)
            for r in (replicas if isinstance(replicas, list) else ())
        ),
    )


def _tables(
    status: list[tuple[str, Table]], silent: Mapping[str, tuple[frozenset[str], ...]]
) -> Generator[None, None, tuple[Table, ...]]:
    """``table_status``, with ``table_config`` telling which replicas vote. A step per table."""
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
        type=clean(str(row.get("type"))[:60]),
        description=clean(str(row.get("description"))[:300]),
        critical=row.get("critical") is True,
    )


# ---------------------------------------------------------------- all of it, for ever


class Prober:
    """Keeps looking at every node and every cluster, in a loop on a thread of its own.

    ``deliver`` is called on that thread with each Observed, Met and Viewed and must not block. ``plans`` holds the
    clusters whose system tables are looked at, too.
    """

    def __init__(
        self,
        nodes: Iterable[Target],
        deliver: Callable[[Observed | Met | Viewed], None],
        plans: Mapping[str, ViewPlan] | None = None,
    ) -> None:
        self._targets = list(nodes)
        self._deliver = deliver
        self._plans = dict(plans or {})
        self._looks: dict[tuple[str, str], Look] = {}
        self._views: dict[str, View] = {}
        self._thread = threading.Thread(target=self._run, name="selfheal-probe", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        # The probes share the interpreter with the healer's loop. By Python's default each of their wake-ups may
        # have to wait 5 ms for it, ten times what a probe takes.
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """For tests and benchmarks: the engine's own end is its process's."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def dial(self, cluster: str, nodes: Iterable[str]) -> None:
        """Have these nodes dialled afresh at once, from any thread. Nodes that are not watched are passed over."""
        asked = tuple(nodes)

        def ask() -> None:
            for node in asked:
                look = self._looks.get((cluster, node))
                if look is not None:
                    look.ask_dial()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(ask)

    def _run(self) -> None:
        asyncio.run(self._watch_all())

    async def _watch_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        resolver = Resolver()
        crypto = ThreadPoolExecutor(CRYPTO_THREADS, thread_name_prefix="selfheal-crypto")
        pace = Pace()
        pace.pulse.start()
        looks = [Look(target, resolver, crypto, pace) for target in self._targets]
        by_cluster: dict[str, list[Look]] = {}
        for look in looks:
            by_cluster.setdefault(look.target.cluster, []).append(look)
            self._looks[look.target.cluster, look.target.node] = look
        self._views = {
            name: View(name, members, self._plans.get(name, ViewPlan()), pace)
            for name, members in by_cluster.items()
        }
        watchers = [asyncio.create_task(self._watch(look)) for look in looks]
        watchers += [
            asyncio.create_task(self._watch_cluster(view))
            for name, view in self._views.items()
            if name in self._plans
        ]
        self._ready.set()
        settled = self._loop.call_later(SETTLED_S, _settle)
        await self._stop.wait()
        settled.cancel()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for view in self._views.values():
            view.close()
        for look in looks:
            look.close()
        pace.pulse.stop()
        resolver.close()
        crypto.shutdown(wait=False, cancel_futures=True)

    def _stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    async def _watch(self, look: Look) -> None:
        loop = asyncio.get_running_loop()
        poll_s = look.target.poll_s
        # Spread over the interval and then kept to it, so that a thousand nodes are no burst.
        due = loop.time() + random.uniform(0, poll_s)
        await look.idle(due)
        # Python 3.11's wait_for may swallow a cancellation.
        while not self._stopped():
            began = loop.time()
            seen = await look.probe()
            self._deliver(Observed(seen))
            if seen.fault is Fault.DEAD:
                # It may refuse nobody but us: the others know whether it is there.
                self._views[look.target.cluster].meet(self._deliver)
            if loop.time() >= due:
                due += poll_s * (1 + (loop.time() - due) // poll_s)
            await look.idle(due)
            pause_s = began + AGAIN_S - loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)

    async def _watch_cluster(self, view: View) -> None:
        await asyncio.sleep(random.uniform(0, view.plan.every_s))
        loop = asyncio.get_running_loop()
        while not self._stopped():
            due = loop.time() + view.plan.every_s
            seen = await view.look(self._deliver)
            if seen is not None:
                self._deliver(Viewed(seen))
            await asyncio.sleep(max(0.0, due - loop.time()))


def _settle() -> None:
    """Take what the process holds by now out of garbage collection.

    A full collection walks all that Salt has loaded and every open connection: 0.1 to 0.2 s in which nobody is
    probed. Once, while the healer warms up and may not act anyway.
    """
    gc.collect()
    gc.freeze()


def probe_once(target: Target) -> Observation:
    """One look from here, with a connection of its own. Blocks for at most the timeout."""
    seen: list[Observation] = []

    async def look() -> None:
        resolver, pace = Resolver(), Pace()
        pace.pulse.start()
        with ThreadPoolExecutor(1) as crypto:
            one = Look(target, resolver, crypto, pace)
            seen.append(await one.probe())
            one.close()
        pace.pulse.stop()
        resolver.close()

    # A thread of its own: the caller may be inside a running loop.
    thread = threading.Thread(target=lambda: asyncio.run(look()), name="selfheal-probe-once")
    thread.start()
    thread.join()
    return seen[0]
