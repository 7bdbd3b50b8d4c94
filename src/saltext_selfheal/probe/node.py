"""Probes one node: over a connection that stays open, and by fresh dials beside it.

A probe never raises and never takes longer than its deadline. If something goes wrong, that is a fault with its
evidence (`verdict`), unless it went wrong on this side or while this side stood still (`pulse`). A node is judged only
by its own answers. An open connection proves only that it works itself, so every ``redial_s`` a fresh connection is
made, as an application would make it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ..driver.address import Address
from ..driver.causes import Stage
from ..driver.dialling import InTurn, certified, prepare
from ..driver.text import NAME_CHARS, clean, plain
from ..driver.wire import Lost, Wire
from ..healing.events import Observation
from ..healing.model import Fault
from .names import Resolver, told
from .pulse import Pace, Place
from .verdict import Verdict, judge

TRIES = 3  #: if this side stood still during this many tries in a row, the probe says so
#: A redial comes after this share of ``redial_s`` at the earliest: dials must not come in bursts.
REDIAL_SHARE = 0.75


@dataclass(frozen=True)
class Target:
    """One node to probe, and how."""

    cluster: str
    node: str
    address: Address
    user: str = "admin"
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    poll_s: float = 2.0
    timeout_s: float = 2.0
    redial_s: float = 30.0
    #: How long each fault must last before it counts. So the node is looked at again right when that time is over.
    confirm_s: Mapping[Fault, float] = field(default_factory=dict)
    dead_witnessed_s: float = (
        0.0  #: ``confirm`` of a death that the node's own minion has seen, too
    )
    here: str = "this master"  #: the name of the probing side in the evidence


class Deadline:
    """A deadline for the node, on the loop's clock. Time that this side needs for itself is added to it."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.moved_s = 0.0

    def move(self, seconds: float) -> None:
        self.at += seconds
        self.moved_s += seconds


class NodeProbe:
    """Probes one node again and again: over one connection as long as it holds, and by fresh dials beside it."""

    def __init__(
        self, target: Target, resolver: Resolver, crypto: Executor, pace: Pace | None = None
    ) -> None:
        self.target = target
        self._resolver = resolver
        self._crypto = crypto
        self.pace = pace or Pace()
        self._wire: Wire | None = None
        self._stage = Stage.NAME
        self._heard = False
        self._idle: asyncio.Future[None] | None = None
        self._addresses: tuple[str, ...] = ()
        self._redial_at = 0.0
        self._failing = False  # the last probe failed, so each probe dials until one is well
        # One of the dials that failed in a row was accepted, but got no greeting.
        self._greets_nobody = False
        self.asked = False  #: a fresh dial was asked for
        self.on_fresh: Callable[[], None] | None = None  #: called when it has a new connection
        self.answers = False  #: in the last probe the node answered, over whichever connection

    @property
    def wire(self) -> Wire | None:
        """The open connection. None if there is none."""
        return self._wire if self._wire is not None and self._wire.open else None

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def ask_dial(self) -> None:
        """Have the next probe made now, with a fresh dial."""
        self.asked = True
        self._lost()

    async def idle(self, until: float) -> None:
        """Wait until this time of the loop's clock, or until the connection ends. Its end is a reason to probe now."""
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

    # ------------------------------------------------------------ the probe

    async def probe(self) -> Observation:
        """Probe the node once, and again if this side stood still meanwhile. Raises nothing but cancellation.

        One try takes at most the target's timeout, or twice as long with a fresh dial beside an open connection.
        """
        loop, pulse = asyncio.get_running_loop(), self.pace.pulse
        dial = self.asked or self._failing or loop.time() >= self._redial_at
        self.asked = False
        stood_still_s = 0.0
        for _ in range(TRIES):
            began = loop.time()
            seen = await self._observe(began, dial)
            still_s = pulse.stood_still_s(began)
            if seen.fault is None:
                # The node is not to blame for the time in which this side stood still.
                return (
                    replace(seen, latency_s=max(0.0, seen.latency_s - still_s)) if still_s else seen
                )
            # A refusal is true even if it is read late.
            if still_s <= self.target.timeout_s / 10 or seen.fault is Fault.DEAD or seen.ours:
                return seen
            stood_still_s += still_s
        if still_s <= self.target.timeout_s / 2:
            return seen  # the node had at least half of its time undisturbed, so the fault counts
        why = f"{self.target.here}'s probing stood still for {stood_still_s:.1f} s"
        return replace(seen, fault=Fault.UNREACHABLE, evidence=why, ours=True)

    async def _observe(self, began: float, dial: bool) -> Observation:
        """One try: ask over the open connection, then dial if that is due or the connection has ended."""
        loop = asyncio.get_running_loop()
        wire, info, latency_s = self.wire, None, 0.0
        if wire is not None:
            self._stage, self._heard = Stage.ANSWER, True
            try:
                info = await wire.server_info(began + self.target.timeout_s)
                latency_s = loop.time() - began
            except asyncio.CancelledError:
                self.close()
                raise
            except Lost:
                pass  # the end of an open connection proves nothing; the fresh dial will tell
            except Exception as exc:
                self.close()
                return self._faulty(exc, began, dialled=False)
        if info is None:
            self.close()
        elif not dial:
            return self._well(info, latency_s, wire, dialled=False)
        deadline = Deadline((began if info is None else loop.time()) + self.target.timeout_s)
        try:
            fresh, fresh_info = await self._dial(deadline)
        except asyncio.CancelledError:
            self.close()
            raise
        except Exception as exc:
            return self._faulty(exc, began, dialled=True, answers=info is not None)
        self._failing = self._greets_nobody = False
        self._redial_at = loop.time() + self.target.redial_s * random.uniform(REDIAL_SHARE, 1.0)
        if info is None:
            latency_s = loop.time() - began - deadline.moved_s
        seen = self._well(fresh_info, latency_s, fresh, dialled=True)
        if info is not None and info.get("id") == fresh_info.get("id"):
            fresh.close()
        else:
            # There was no open connection, or the address leads to another server now. So the fresh one is kept.
            self.close()
            fresh.on_lost = self._lost
            self._wire = fresh
            if self.on_fresh is not None:
                self.on_fresh()
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
            server_id=text(info.get("id")),
            server_name=text(info.get("name")),
            version=text(wire.version if wire is not None else None),
            dialled=dialled,
            addresses=self._addresses,
            proxy=info.get("proxy") is True,
        )

    def _faulty(
        self, exc: Exception, began: float, dialled: bool, answers: bool = False
    ) -> Observation:
        """The observation of a probe that failed. ``answers``: the open connection has answered in this probe."""
        verdict = self._judge(exc)
        forget(exc)
        self.answers = answers
        self._failing = True
        # A server that greets nobody ends with a full backlog. Then TCP is not accepted any more either, which looks as
        # if the host could not be reached. But an open connection still answers, so the server is hung.
        if answers:
            if verdict.fault is Fault.HUNG:
                self._greets_nobody = True
            elif self._stage is not Stage.TCP or not isinstance(exc, asyncio.TimeoutError):
                self._greets_nobody = False
            elif self._greets_nobody:
                # Its backlog is full of connections that were not greeted.
                verdict = replace(verdict, fault=Fault.HUNG)
            verdict = replace(
                verdict, evidence=f"{verdict.evidence}; a connection that was open before answers"
            )
        else:
            # If no connection answers, it is not known whether the host can be reached at all.
            self._greets_nobody = False
        return Observation(
            cluster=self.target.cluster,
            node=self.target.node,
            fault=verdict.fault,
            evidence=plain(verdict.evidence, 500),
            latency_s=asyncio.get_running_loop().time() - began,
            ours=verdict.ours,
            dialled=dialled,
            answers=answers,
            silent=dialled and not answers and not self._heard,
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

    async def _dial(self, deadline: Deadline) -> tuple[Wire, dict[str, Any]]:
        """A fresh connection with login, and what its server says about itself."""
        try:
            return await self._dial_once(deadline)
        except (Lost, ConnectionResetError, BrokenPipeError):
            # The server may have died in the middle of the greeting. Then a second dial is refused, which proves it.
            return await self._dial_once(deadline)

    async def _dial_once(self, deadline: Deadline) -> tuple[Wire, dict[str, Any]]:
        self._heard = False
        wire, place = await self._connect(deadline)
        target, address = self.target, self.target.address
        try:
            self._stage = Stage.HANDSHAKE
            busy_s = await wire.greet(
                address.host, address.port, target.user, target.password, deadline.at,
                self._crypto, place,
            )  # fmt: skip
            deadline.move(busy_s)
            self._stage = Stage.ANSWER
            return wire, await wire.server_info(deadline.at)
        except BaseException:
            self._heard = wire.heard
            wire.close()
            raise
        finally:
            place.leave()

    async def _connect(self, deadline: Deadline) -> tuple[Wire, Place]:
        """Connect by TCP, with TLS if configured. All addresses of the name share one deadline."""
        loop = asyncio.get_running_loop()
        self._stage, self._addresses = Stage.NAME, ()
        found, waited_s = await self._resolver.resolve(
            self.target.address, deadline.at - loop.time()
        )
        deadline.move(waited_s)
        self._addresses = told(found)
        rows = InTurn(found)
        for family, sockaddr in rows:
            self._stage = Stage.TCP
            sock = place = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                connecting = loop.sock_connect(sock, sockaddr)
                await asyncio.wait_for(connecting, rows.share_s(deadline.at - loop.time()))
                # From here on the connection was accepted, even if it has been reset already (ENOTCONN).
                self._stage = Stage.TLS if self.target.tls else Stage.HANDSHAKE
                prepare(sock)
                began = loop.time()
                place = await self.pace.place(self._failing)
                deadline.move(loop.time() - began)
                share_s = rows.share_s(deadline.at - loop.time())
                return await asyncio.wait_for(self._adopt(sock), share_s), place
            except BaseException as exc:
                if place is not None:
                    place.leave()
                if sock is not None:
                    sock.close()
                rows.failed(exc, self._stage)
        raise rows.told()

    async def _adopt(self, sock: socket.socket) -> Wire:
        tls = self.target.tls
        host = certified(self.target.address) if tls else None
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: Wire(self.pace.turn), sock=sock, ssl=tls, server_hostname=host
        )
        return wire


def forget(exc: BaseException | None) -> None:
    """Drop the frames that an exception has passed through.

    The frames hold the future, and the future holds the exception. Only the garbage collector can free such a circle.
    With three hundred timeouts a second it would stop every probe for 10 ms twice a second.
    """
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def text(value: Any) -> str | None:
    """A text from a server, cut and fit to be shown. None if it is no text."""
    return clean(value, NAME_CHARS) if isinstance(value, str) else None


@contextlib.asynccontextmanager
async def maker(threads: int) -> AsyncIterator[Callable[[Target], NodeProbe]]:
    """Makes probes that share what a probe needs, for as long as the block lasts. ``threads`` compute logins."""
    resolver, pace = Resolver(), Pace()
    pace.pulse.start()
    try:
        with ThreadPoolExecutor(threads) as crypto:
            yield lambda target: NodeProbe(target, resolver, crypto, pace)
    finally:
        pace.pulse.stop()
        resolver.close()


def probe_once(target: Target) -> Observation:
    """Probe a node once from here, with a connection of its own. Blocks for at most the timeout."""
    seen: list[Observation] = []

    async def observe() -> None:
        async with maker(1) as make:
            one = make(target)
            seen.append(await one.probe())
            one.close()

    # This runs on a thread of its own, because the caller may be inside a running loop.
    thread = threading.Thread(target=lambda: asyncio.run(observe()), name="selfheal-probe-once")
    thread.start()
    thread.join()
    return seen[0]
