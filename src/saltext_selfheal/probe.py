"""What one look at a RethinkDB node tells, and the loop that keeps looking.

The official driver's protocol parts (handshake, query, response) are used over a transport of our own, because
its connections know no deadline: a hung server would hold them for ever (driver 2.4.10). Everything here runs in
one asyncio loop on one thread; no Salt call may enter it. A probe never raises: whatever goes wrong is a fault.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rethinkdb import net
from rethinkdb.ast import ReQLDecoder
from rethinkdb.errors import ReqlAuthError
from rethinkdb.handshake import HandshakeV1_0
from rethinkdb.ql2_pb2 import Query
from rethinkdb.ql2_pb2 import Response

from .config import Address
from .config import ClusterSettings
from .healing.model import Fault
from .healing.model import Observation

log = logging.getLogger(__name__)

MAX_HANDSHAKE_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ITERATIONS = (
    1_000_000  #: of PBKDF2; RethinkDB asks for 4,096, a hostile server for hours of CPU
)
REDIAL_S = 0.05  #: at least this between two looks at one node
RESOLVER_THREADS = (
    4  #: getaddrinfo cannot be cancelled: a stuck one holds a thread of this pool only
)


@dataclass(frozen=True)
class Target:
    """One node to look at, and how."""

    cluster: str
    node: str
    address: Address
    user: str = "admin"
    password: str = ""
    ca_certs: str | None = None
    poll_s: float = 2.0
    timeout_s: float = 2.0


def targets(clusters: dict[str, ClusterSettings]) -> list[Target]:
    """Every node of the settings."""
    return [
        Target(
            cluster=name,
            node=node,
            address=address,
            user=cluster.user,
            password=cluster.password.get_secret_value(),
            ca_certs=cluster.tls.ca_certs if cluster.tls else None,
            poll_s=cluster.poll,
            timeout_s=cluster.timeout,
        )
        for name, cluster in clusters.items()
        for node, address in cluster.nodes.items()
    ]


class _Alien(Exception):
    """The peer does not speak as RethinkDB does."""


class _Lost(Exception):
    """The connection ended."""


class _Wire(asyncio.Protocol):
    """Bytes in, whole messages out, bounded; and the moment the connection ends."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self._buffer = bytearray()
        self._limit = MAX_HANDSHAKE_BYTES
        self._arrived = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > self._limit and self.transport is not None:
            self.transport.pause_reading()  # whoever waits sees what is too much
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._arrived.set()

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def _more(self) -> None:
        if self.lost.is_set():
            raise _Lost
        self._arrived.clear()
        await self._arrived.wait()

    async def until_nul(self) -> bytes:
        """One handshake message, without its NUL."""
        while True:
            end = self._buffer.find(b"\0", 0, MAX_HANDSHAKE_BYTES)
            if end >= 0:
                message = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return message
            if len(self._buffer) > MAX_HANDSHAKE_BYTES:
                raise _Alien(
                    f"sent more than {MAX_HANDSHAKE_BYTES} bytes without ending its greeting"
                )
            await self._more()

    async def answer(self) -> tuple[int, bytes]:
        """One answer: its token and its JSON."""
        self._limit = MAX_ANSWER_BYTES
        while len(self._buffer) < 12:
            await self._more()
        token, size = struct.unpack_from("<QL", self._buffer)
        if size > MAX_ANSWER_BYTES:
            raise _Alien(f"announces an answer of {size} bytes")
        while len(self._buffer) < 12 + size:
            await self._more()
        body = bytes(self._buffer[12 : 12 + size])
        del self._buffer[: 12 + size]
        return token, body


class Look:
    """One node, looked at again and again over one connection as long as it holds."""

    def __init__(self, target: Target, pool: ThreadPoolExecutor) -> None:
        self.target = target
        self._pool = pool
        self._wire: _Wire | None = None
        self._version: str | None = None
        self._token = 0
        self._stage = ""
        self._addresses: list[tuple[Any, ...]] = []
        self._tls: ssl.SSLContext | None = None

    @property
    def ended(self) -> asyncio.Event | None:
        """Set when the open connection ends; None without one."""
        return self._wire.lost if self._wire else None

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def probe(self) -> Observation:
        """Look once, within the target's timeout. Never raises but for cancellation."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        fault: Fault | None
        info: dict[str, Any] = {}
        try:
            info = await asyncio.wait_for(self._look(), self.target.timeout_s)
            fault, evidence = None, "answers"
        except asyncio.CancelledError:
            self.close()
            raise
        except BaseException as exc:
            self.close()
            fault, evidence = self._judge(exc)
        return Observation(
            cluster=self.target.cluster,
            node=self.target.node,
            fault=fault,
            evidence=evidence,
            latency_s=loop.time() - began,
            server_id=info.get("id"),
            server_name=info.get("name"),
            version=self._version if fault is None else None,
        )

    def _judge(self, exc: BaseException) -> tuple[Fault, str]:
        """Which fault an exception proves. The stage tells where the time ran out."""
        at = f"{self.target.address}"
        within = f"within {self.target.timeout_s:g} s"
        if isinstance(exc, (asyncio.TimeoutError, TimeoutError)):
            return {
                "name": (Fault.UNREACHABLE, f"name of {at} does not resolve {within}"),
                "connect": (Fault.UNREACHABLE, f"{at} does not answer to TCP {within}"),
                "tls": (Fault.HUNG, f"{at} accepts TCP, but no TLS handshake {within}"),
                "handshake": (Fault.HUNG, f"{at} accepts TCP, but no handshake {within}"),
                "answer": (Fault.HUNG, f"{at} is connected, but gives no answer {within}"),
            }.get(self._stage, (Fault.UNREACHABLE, f"{at} does not answer {within}"))
        if isinstance(exc, ConnectionRefusedError):
            return Fault.DEAD, f"connection to {at} refused"
        if isinstance(exc, socket.gaierror):
            return Fault.UNREACHABLE, f"name of {at} does not resolve: {exc.strerror or exc}"
        if isinstance(exc, ssl.SSLError):
            return (
                Fault.TLS,
                f"TLS with {at} failed: {getattr(exc, 'verify_message', '') or exc.reason or exc}",
            )
        if isinstance(exc, _Login):
            return Fault.AUTH, f"{at} refuses the login: {exc}"
        if isinstance(exc, _Lost):
            return Fault.ALIEN, f"{at} closes the connection in the {self._stage}"
        if isinstance(exc, OSError) and self._stage in ("name", "connect"):
            return Fault.UNREACHABLE, f"{at}: {exc.strerror or exc}"
        if isinstance(exc, OSError):
            return (
                Fault.ALIEN,
                f"{at} breaks the connection in the {self._stage}: {exc.strerror or exc}",
            )
        # The driver's parts raise nearly anything on input that RethinkDB would not send.
        return (
            Fault.ALIEN,
            f"{at} does not speak as RethinkDB does: {type(exc).__name__}: {str(exc)[:200]}",
        )

    async def _look(self) -> dict[str, Any]:
        if self._wire is not None and not self._wire.lost.is_set():
            try:
                return await self._server_info()
            except (_Lost, OSError):
                pass  # an open connection that ends proves nothing yet: dial afresh
        self.close()
        try:
            await self._dial()
            return await self._server_info()
        except (_Lost, ConnectionResetError, BrokenPipeError):
            # It may have died in the middle of the greeting: then the second dial is refused.
            self.close()
            await self._dial()
            return await self._server_info()

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        address = self.target.address
        self._stage = "name"
        found = await self._resolve()
        self._stage = "connect"
        context = self._context()
        last: Exception | None = None
        for index, (family, sockaddr) in enumerate(found):
            left = len(found) - index
            share_s = self.target.timeout_s / len(found) if left > 1 else None
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await asyncio.wait_for(loop.sock_connect(sock, sockaddr), share_s)
            except (OSError, asyncio.TimeoutError) as exc:
                sock.close()
                last = exc
                continue
            except BaseException:
                sock.close()
                raise
            break
        else:
            assert last is not None
            raise last
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stage = "tls" if context else "handshake"
        try:
            _, wire = await loop.create_connection(
                _Wire, sock=sock, ssl=context, server_hostname=address.host if context else None
            )
        except BaseException:
            sock.close()
            raise
        self._wire = wire
        self._stage = "handshake"
        await self._greet(wire)

    async def _resolve(self) -> list[tuple[int, Any]]:
        address = self.target.address
        loop = asyncio.get_running_loop()

        def ask() -> list[tuple[int, Any]]:
            rows = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            return [(family, sockaddr) for family, _, _, _, sockaddr in rows]

        try:
            return [(socket.AF_INET, (_literal(address.host, socket.AF_INET), address.port))]
        except OSError:
            pass
        return await loop.run_in_executor(self._pool, ask)

    def _context(self) -> ssl.SSLContext | None:
        if self.target.ca_certs is None:
            return None
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self.target.ca_certs)
        return self._tls

    async def _greet(self, wire: _Wire) -> None:
        """The V1_0 handshake, by the driver's own state machine."""
        target = self.target
        shake = HandshakeV1_0(
            json.JSONDecoder(),
            json.JSONEncoder(),
            target.address.host,
            target.address.port,
            target.user,
            target.password,
        )
        wire.send(shake.next_message(None))
        greeting = await wire.until_nul()
        shake.next_message(greeting)
        version = json.loads(greeting).get("server_version")
        self._version = version if isinstance(version, str) else None
        challenge = await wire.until_nul()
        _check_iterations(challenge)
        loop = asyncio.get_running_loop()
        # PBKDF2 costs a millisecond with RethinkDB's count: off the loop, a mass reconnect would add it up.
        proof = await loop.run_in_executor(self._pool, _advance, shake, challenge)
        wire.send(proof)
        _advance(shake, await wire.until_nul())

    async def _server_info(self) -> dict[str, Any]:
        wire = self._wire
        assert wire is not None
        self._stage = "answer"
        self._token += 1
        query = net.Query(Query.QueryType.SERVER_INFO, self._token, None, None)
        wire.send(query.serialize())
        token, body = await wire.answer()
        if token != self._token:
            raise _Alien(f"answers to token {token} instead of {self._token}")
        answer = net.Response(
            token, body, ReQLDecoder({"time_format": "raw", "binary_format": "raw"})
        )
        if answer.type != Response.ResponseType.SERVER_INFO:
            raise _Alien(f"answers SERVER_INFO with type {answer.type}")
        info = answer.data[0]
        return {k: v for k, v in info.items() if k in ("id", "name") and isinstance(v, str)}


class _Login(Exception):
    """RethinkDB refused the user or the password."""


def _literal(host: str, family: int) -> str:
    socket.inet_pton(family, host)
    return host


def _advance(shake: HandshakeV1_0, message: bytes) -> bytes:
    """One step of the handshake. The server's own refusal is `_Login`; what the driver finds odd is not."""
    try:
        answer = shake.next_message(message)
    except ReqlAuthError as exc:
        refused = json.loads(message)
        if isinstance(refused, dict) and refused.get("success") is False:
            raise _Login(str(refused.get("error"))[:200]) from None
        raise _Alien(exc.message) from None
    return answer if isinstance(answer, bytes) else b""


def _check_iterations(challenge: bytes) -> None:
    """The server chooses how long PBKDF2 runs: read its count before computing anything."""
    fields = json.loads(challenge)
    for part in str(fields.get("authentication", "")).split(","):
        if part.startswith("i=") and int(part[2:]) > MAX_ITERATIONS:
            raise _Alien(f"asks for {int(part[2:])} rounds of PBKDF2")


class Prober:
    """Keeps looking at every target, in a loop on a thread of its own.

    ``deliver`` is called on that thread with each observation and must not block.
    """

    def __init__(self, nodes: Iterable[Target], deliver: Callable[[Observation], None]) -> None:
        self._targets = list(nodes)
        self._deliver = deliver
        self._thread = threading.Thread(target=self._run, name="selfheal-probe", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """For tests: the engine's own end is the process's."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._watch_all())

    async def _watch_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        with ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="selfheal-resolve") as pool:
            watchers = [asyncio.create_task(self._watch(Look(t, pool))) for t in self._targets]
            self._ready.set()
            await self._stop.wait()
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch(self, look: Look) -> None:
        loop = asyncio.get_running_loop()
        poll_s = look.target.poll_s
        # Spread over the interval, so that a thousand nodes are no burst.
        due = loop.time() + random.uniform(0, min(poll_s, 1.0))
        try:
            await asyncio.sleep(due - loop.time())
            while True:
                began = loop.time()
                self._deliver(await look.probe())
                due = began + poll_s
                ended = look.ended
                left_s = max(0.0, due - loop.time())
                if ended is None:
                    await asyncio.sleep(left_s)
                    continue
                try:
                    # The end of an open connection is an observation: look again at once, but never in a
                    # tight loop with a server that closes after each answer.
                    await asyncio.wait_for(ended.wait(), left_s)
                    await asyncio.sleep(began + REDIAL_S - loop.time())
                except asyncio.TimeoutError:
                    pass
        finally:
            look.close()


def probe_once(target: Target) -> Observation:
    """One look from here, with a connection of its own. Blocks for at most the timeout."""
    seen: list[Observation] = []

    async def look() -> None:
        with ThreadPoolExecutor(1) as pool:
            one = Look(target, pool)
            seen.append(await one.probe())
            one.close()
            await asyncio.sleep(0)

    # A thread of its own: the caller may be inside a running loop.
    thread = threading.Thread(target=lambda: asyncio.run(look()), name="selfheal-probe-once")
    thread.start()
    thread.join()
    return seen[0]
