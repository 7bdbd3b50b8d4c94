"""What a look at a RethinkDB node or cluster tells, and the loop that keeps looking.

Everything here runs in one asyncio loop on one thread; no Salt call may enter it. A probe never raises and never
outlasts its deadline: whatever goes wrong is a fault with its evidence. A node is judged by its own dial alone;
what the system tables of one node say of others is the cluster's view, asked for separately and more patiently.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import random
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from concurrent.futures import Executor
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from rethinkdb import RethinkDB

from .config import Address
from .config import ClusterSettings
from .healing.model import ClusterView
from .healing.model import Fault
from .healing.model import Issue
from .healing.model import Observation
from .healing.model import Observed
from .healing.model import Replica
from .healing.model import Shard
from .healing.model import Table
from .healing.model import Viewed
from .healing.model import ViewStatus
from .healing.model import clean
from .wire import Forbidden
from .wire import LoginRefused
from .wire import Lost
from .wire import Wire

log = logging.getLogger(__name__)

RESOLVER_THREADS = (
    4  #: getaddrinfo cannot be cancelled: a stuck one holds a thread of this pool only
)
CRYPTO_THREADS = 2
SETTLED_S = 10.0  #: after the start; all connections are open by then
REDIAL_S = 0.05  #: at least this between two looks at one node, however often it hangs up
SWITCH_S = 0.0005  #: how long one thread may keep the interpreter while another wants it
#: What the operating system says when it is this process that can open nothing more.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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
                )
            )
    return found


# ---------------------------------------------------------------- names


class Resolver:
    """Names → addresses in a bounded pool of its own; the last good ones serve while it is stuck."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="selfheal-resolve")
        self._good: dict[Address, list[tuple[int, Any]]] = {}
        self._asking: dict[Address, asyncio.Future[list[tuple[int, Any]]]] = {}

    async def resolve(self, address: Address, patience_s: float) -> list[tuple[int, Any]]:
        """(family, socket address) pairs. Raises socket.gaierror, or TimeoutError after ``patience_s``."""
        literal = _literal(address)
        if literal is not None:
            return [literal]
        asking = self._asking.get(address)
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = loop.run_in_executor(self._pool, _getaddrinfo, address)
            asking.add_done_callback(lambda done: self._answered(address, done))
            self._asking[address] = asking
        good = self._good.get(address)
        try:
            # With something to fall back on, most of the time is kept for the dial.
            patience_s = patience_s / 4 if good else patience_s
            return await asyncio.wait_for(asyncio.shield(asking), patience_s)
        except asyncio.TimeoutError:
            if good:
                return good
            raise
        except socket.gaierror as exc:
            # A resolver that fails for the moment is as good as stuck; a name that does not exist is an answer.
            if good and exc.errno == socket.EAI_AGAIN:
                return good
            raise

    def _answered(self, address: Address, done: asyncio.Future[list[tuple[int, Any]]]) -> None:
        self._asking.pop(address, None)
        if not done.cancelled() and done.exception() is None:
            self._good[address] = done.result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _getaddrinfo(address: Address) -> list[tuple[int, Any]]:
    rows = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(int(family), sockaddr) for family, _, _, _, sockaddr in rows]


def _literal(address: Address) -> tuple[int, Any] | None:
    host, _, zone = address.host.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        if family == socket.AF_INET:
            return (family, (host, address.port))
        scope = socket.if_nametoindex(zone) if zone else 0
        return (family, (host, address.port, 0, scope))
    return None


# ---------------------------------------------------------------- one node


class Look:
    """One node, looked at again and again over one connection as long as it holds."""

    def __init__(self, target: Target, resolver: Resolver, crypto: Executor) -> None:
        self.target = target
        self._resolver = resolver
        self._crypto = crypto
        self._wire: Wire | None = None
        self._stage = "name"
        self._idle: asyncio.Future[None] | None = None
        self.answers = False  #: as of the last probe

    @property
    def wire(self) -> Wire | None:
        """The open connection; None without one."""
        return self._wire if self._wire is not None and self._wire.open else None

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def idle(self, until: float) -> None:
        """Wait until then (of the loop's clock), or until the connection ends: that is an observation, too."""
        if self._wire is not None and not self._wire.open:
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

    async def probe(self) -> Observation:
        """Look once, within the target's timeout. Raises nothing but cancellation."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        info: dict[str, Any] = {}
        fault: Fault | None = None
        evidence, ours = "answers", False
        try:
            info = await self._look(began + self.target.timeout_s)
        except asyncio.CancelledError:
            self.close()
            raise
        except Exception as exc:
            self.close()
            fault, evidence = self._judge(exc)
            ours = isinstance(exc, OSError) and exc.errno in _OURS
            _forget(exc)
        self.answers = fault is None
        version = self._wire.version if self._wire is not None else None
        return Observation(
            cluster=self.target.cluster,
            node=self.target.node,
            fault=fault,
            evidence=clean(evidence),
            latency_s=loop.time() - began,
            server_id=_text(info.get("id")),
            server_name=_text(info.get("name")),
            version=_text(version),
            ours=ours,
        )

    def _judge(self, exc: Exception) -> tuple[Fault, str]:
        """Which fault an exception proves. The stage tells where the time ran out."""
        at = f"{self.target.address}"
        within = f"within {self.target.timeout_s:g} s"
        if isinstance(exc, asyncio.TimeoutError):
            return {
                "name": (Fault.UNREACHABLE, f"name of {at} does not resolve {within}"),
                "connect": (Fault.UNREACHABLE, f"{at} does not answer to TCP {within}"),
                "tls": (Fault.HUNG, f"{at} accepts TCP, but no TLS handshake {within}"),
                "handshake": (Fault.HUNG, f"{at} accepts TCP, but no handshake {within}"),
            }.get(self._stage, (Fault.HUNG, f"{at} is connected, but gives no answer {within}"))
        if isinstance(exc, OSError) and exc.errno in _OURS:
            return Fault.UNREACHABLE, f"this master cannot open a connection: {exc.strerror}"
        if isinstance(exc, ConnectionRefusedError):
            return Fault.DEAD, f"connection to {at} refused"
        if isinstance(exc, socket.gaierror):
            return Fault.UNREACHABLE, f"name of {at} does not resolve: {exc.strerror or exc}"
        if isinstance(exc, ssl.SSLError):
            return Fault.TLS, f"TLS with {at} failed: {_tls_words(exc)}"
        if isinstance(exc, LoginRefused):
            return Fault.AUTH, f"{at} refuses the login: {exc}"
        if isinstance(exc, Lost):
            return Fault.ALIEN, f"{at} closes the connection in the {self._stage}"
        if isinstance(exc, OSError):
            words = os.strerror(exc.errno) if exc.errno else _in_words(exc)
            # A reset needs somebody who had accepted.
            if self._stage in ("name", "connect") and not isinstance(exc, ConnectionError):
                return Fault.UNREACHABLE, f"{at}: {words}"
            return Fault.ALIEN, f"{at} breaks the connection: {words}"
        # The driver's parts raise nearly anything on input that RethinkDB would not send.
        words = _in_words(exc)
        return Fault.ALIEN, f"{at} does not speak as RethinkDB does: {words}"

    async def _look(self, deadline: float) -> dict[str, Any]:
        wire = self.wire
        if wire is not None:
            self._stage = "answer"
            try:
                return await wire.server_info(deadline)
            except Lost:
                pass  # an open connection that ends proves nothing yet: dial afresh
        self.close()
        try:
            return await self._dial_and_ask(deadline)
        except (Lost, ConnectionResetError, BrokenPipeError):
            # It may have died in the middle of the greeting: then the second dial is refused.
            self.close()
            return await self._dial_and_ask(deadline)

    async def _dial_and_ask(self, deadline: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        wire = await asyncio.wait_for(self._connect(deadline), deadline - loop.time())
        wire.on_lost = self._lost
        self._wire = wire
        self._stage = "handshake"
        target = self.target
        address = target.address
        await wire.greet(
            address.host, address.port, target.user, target.password, deadline, self._crypto
        )
        self._stage = "answer"
        return await wire.server_info(deadline)

    async def _connect(self, deadline: float) -> Wire:
        """TCP, and TLS where configured. Several addresses share the one deadline."""
        loop = asyncio.get_running_loop()
        self._stage = "name"
        found = await self._resolver.resolve(self.target.address, deadline - loop.time())
        failures: list[Exception] = []
        for index, (family, sockaddr) in enumerate(found):
            self._stage = "connect"
            share_s = (deadline - loop.time()) / (len(found) - index)
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await asyncio.wait_for(loop.sock_connect(sock, sockaddr), share_s)
                self._stage = "tls" if self.target.tls else "handshake"
                if sock.getsockname() == sock.getpeername():
                    # Linux lets a dial to a free local port connect to itself: nobody listens there.
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
                return await self._adopt(sock)
            except (OSError, asyncio.TimeoutError) as exc:
                sock.close()
                failures.append(exc)
                if isinstance(exc, ssl.SSLError) or getattr(exc, "errno", None) in _OURS:
                    raise
            except BaseException:
                sock.close()
                raise
        # Refused proves death only if it is all that was heard.
        told = next((e for e in failures if not isinstance(e, ConnectionRefusedError)), failures[0])
        failures.clear()
        raise told

    async def _adopt(self, sock: socket.socket) -> Wire:
        loop = asyncio.get_running_loop()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = self.target.tls
        host = self.target.address.host.partition("%")[0] if tls else None
        _, wire = await loop.create_connection(Wire, sock=sock, ssl=tls, server_hostname=host)
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
    return clean(value[:200]) if isinstance(value, str) else None


def _in_words(exc: BaseException) -> str:
    """The exception's type and text; the driver's errors may fail to print themselves (2.4.10)."""
    try:
        text = str(exc)
    except Exception:
        text = "(no text)"
    return f"{type(exc).__name__}: {text[:200]}"


def _tls_words(exc: ssl.SSLError) -> str:
    """Expired, self-signed, wrong host …, in OpenSSL's own words; or what else went wrong."""
    words = getattr(exc, "verify_message", "")
    if words:
        return str(words)
    if exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "the other side does not speak TLS"
    return exc.reason or str(exc)[:200] or type(exc).__name__


# ---------------------------------------------------------------- one cluster


class View:
    """A cluster's system tables, asked of one live node a round; and whom each live node is connected to."""

    def __init__(self, cluster: str, looks: list[Look], plan: ViewPlan) -> None:
        self.cluster = cluster
        self.plan = plan
        self._looks = looks
        self._turn = 0
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

    async def look(self) -> ClusterView | None:
        """One round; None if no node answers at all. Raises nothing but cancellation."""
        look = self._asked()
        if look is None:
            return None
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + self.plan.timeout_s
        node = look.target.node
        try:
            connected, started = await self._connected(deadline)
            rows = {
                name: await self._rows(look, name, deadline)
                for name in ("table_config", "table_status", "current_issues")
            }
            return ClusterView(
                cluster=self.cluster,
                node=node,
                status=ViewStatus.KNOWN,
                why="",
                tables=_tables(rows["table_status"], rows["table_config"]),
                issues=_issues(rows["current_issues"]),
                connected=connected,
                started=started,
                took_s=loop.time() - began,
            )
        except asyncio.CancelledError:
            raise
        except asyncio.TimeoutError:
            status = ViewStatus.UNKNOWN
            why = f"no answer from {node} within {self.plan.timeout_s:g} s: some peer hangs"
        except Forbidden as exc:
            status = ViewStatus.FORBIDDEN
            grant = f"r.db('rethinkdb').grant('{look.target.user}', {{read: true}})"
            why = f"{look.target.user} may not read the system tables of {node}; missing: {grant} ({exc})"
        except (Lost, OSError):
            status, why = ViewStatus.UNKNOWN, f"{node} ended the connection"
        except Exception as exc:
            status = ViewStatus.UNKNOWN
            why = f"{node} answers oddly: {_in_words(exc)}"
        return ClusterView(self.cluster, node, status, clean(why))

    async def _rows(self, look: Look, table: str, deadline: float) -> list[dict[str, Any]]:
        wire = look.wire
        if wire is None:
            raise Lost
        return await wire.table(self._terms[table], deadline)

    async def _connected(
        self, deadline: float
    ) -> tuple[dict[str, frozenset[str]], dict[str, float]]:
        """``server_status`` of every live node: unaffected by peers that hang (2.4.4)."""
        live = [look for look in self._looks if look.answers and look.wire is not None]
        answers = await asyncio.gather(
            *(self._rows(look, "server_status", deadline) for look in live), return_exceptions=True
        )
        connected: dict[str, frozenset[str]] = {}
        started: dict[str, float] = {}
        for look, rows in zip(live, answers, strict=True):
            if isinstance(rows, (Forbidden, asyncio.CancelledError)):
                raise rows
            if isinstance(rows, BaseException):
                continue  # that node's own probe tells what is wrong with it
            ids = [row.get("id") for row in rows]
            connected[look.target.node] = frozenset(i for i in ids if isinstance(i, str))
            for row in rows:
                when = _epoch(_at(row, "process", "time_started"))
                if isinstance(row.get("id"), str) and when is not None:
                    started[row["id"]] = when
        return connected, started


def _at(row: Any, *path: str) -> Any:
    for key in path:
        row = row.get(key) if isinstance(row, dict) else None
    return row


def _epoch(value: Any) -> float | None:
    """RethinkDB's raw time pseudo-type as epoch seconds."""
    when = _at(value, "epoch_time")
    return float(when) if isinstance(when, (int, float)) else None


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(clean(v) for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _tables(status: list[dict[str, Any]], config: list[dict[str, Any]]) -> tuple[Table, ...]:
    """``table_status``, with ``table_config`` telling which replicas vote."""
    configured = {c.get("id"): c.get("shards") for c in config if isinstance(c.get("id"), str)}
    return tuple(_table(row, configured.get(row.get("id"))) for row in status)


def _table(row: dict[str, Any], configured: Any) -> Table:
    shards = []
    for index, shard in enumerate(row["shards"] if isinstance(row.get("shards"), list) else []):
        plan = (
            configured[index] if isinstance(configured, list) and index < len(configured) else None
        )
        silent = set(_strings(_at(plan, "nonvoting_replicas")))
        replicas = _at(shard, "replicas")
        shards.append(
            Shard(
                primaries=_strings(_at(shard, "primary_replicas")),
                replicas=tuple(
                    Replica(
                        str(_at(r, "server")), str(_at(r, "state")), _at(r, "server") not in silent
                    )
                    for r in (replicas if isinstance(replicas, list) else [])
                ),
            )
        )
    return Table(
        name=clean(f"{row.get('db')}.{row.get('name')}"),
        reads=_at(row, "status", "ready_for_reads") is True,
        writes=_at(row, "status", "ready_for_writes") is True,
        all_replicas=_at(row, "status", "all_replicas_ready") is True,
        shards=tuple(shards),
    )


def _issues(rows: list[dict[str, Any]]) -> tuple[Issue, ...]:
    return tuple(
        Issue(
            type=clean(str(row.get("type"))[:60]),
            description=clean(str(row.get("description"))[:300]),
            critical=row.get("critical") is True,
        )
        for row in rows[:100]
    )


# ---------------------------------------------------------------- all of it, for ever


class Prober:
    """Keeps looking at every node and every cluster, in a loop on a thread of its own.

    ``deliver`` is called on that thread with each Observed and Viewed and must not block. ``plans`` holds the
    clusters whose system tables are looked at, too.
    """

    def __init__(
        self,
        nodes: Iterable[Target],
        deliver: Callable[[Observed | Viewed], None],
        plans: Mapping[str, ViewPlan] | None = None,
    ) -> None:
        self._targets = list(nodes)
        self._deliver = deliver
        self._plans = dict(plans or {})
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

    def _run(self) -> None:
        asyncio.run(self._watch_all())

    async def _watch_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        resolver = Resolver()
        crypto = ThreadPoolExecutor(CRYPTO_THREADS, thread_name_prefix="selfheal-crypto")
        looks = [Look(target, resolver, crypto) for target in self._targets]
        by_cluster: dict[str, list[Look]] = {}
        for look in looks:
            by_cluster.setdefault(look.target.cluster, []).append(look)
        watchers = [asyncio.create_task(self._watch(look)) for look in looks]
        watchers += [
            asyncio.create_task(self._watch_cluster(View(name, by_cluster[name], plan)))
            for name, plan in self._plans.items()
            if name in by_cluster
        ]
        self._ready.set()
        settled = self._loop.call_later(SETTLED_S, _settle)
        await self._stop.wait()
        settled.cancel()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for look in looks:
            look.close()
        resolver.close()
        crypto.shutdown(wait=False, cancel_futures=True)

    async def _watch(self, look: Look) -> None:
        loop = asyncio.get_running_loop()
        poll_s = look.target.poll_s
        # Spread over the interval and then kept to it, so that a thousand nodes are no burst.
        due = loop.time() + random.uniform(0, poll_s)
        await asyncio.sleep(due - loop.time())
        while True:
            began = loop.time()
            self._deliver(Observed(await look.probe()))
            if loop.time() >= due:
                due += poll_s * (1 + (loop.time() - due) // poll_s)
            await look.idle(due)
            pause_s = began + REDIAL_S - loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)

    async def _watch_cluster(self, view: View) -> None:
        await asyncio.sleep(random.uniform(0, view.plan.every_s))
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + view.plan.every_s
            seen = await view.look()
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
        resolver = Resolver()
        with ThreadPoolExecutor(1) as crypto:
            one = Look(target, resolver, crypto)
            seen.append(await one.probe())
            one.close()
        resolver.close()

    # A thread of its own: the caller may be inside a running loop.
    thread = threading.Thread(target=lambda: asyncio.run(look()), name="selfheal-probe-once")
    thread.start()
    thread.join()
    return seen[0]
