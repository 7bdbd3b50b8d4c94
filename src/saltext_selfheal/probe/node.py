"""One node, looked at: over the connection that is open, and by fresh dials beside it.

A look never raises and never outlasts its deadline: whatever goes wrong is a fault with its evidence (`verdict`),
unless it went wrong on this side or while this side stood still (`pulse`). A node is judged by its own answers alone:
by the connection that is open, which proves only itself, and every ``redial_s`` by a fresh one, as an application
would make it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ..driver.address import Address
from ..driver.causes import Stage
from ..driver.dialling import InTurn, certified, prepare
from ..driver.text import clean, printable
from ..driver.wire import Lost, Wire
from ..healing.events import Observation
from ..healing.model import Fault
from .names import Resolver, told
from .pulse import Pace, Place
from .verdict import Verdict, judge

LOOKS = 3  #: so often is looked again before it is said that this side stands still
REDIAL_SHARE = 0.75  #: of ``redial_s`` at the earliest: a thousand dials are to be spread


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


def tls_context(ca_certs: str) -> ssl.SSLContext:
    """What a node's certificate is checked against. Raises OSError or ssl.SSLError if the file is of no use."""
    return ssl.create_default_context(cafile=ca_certs)


class Patience:
    """A deadline (of the loop's clock) for the node. What this side needs for itself moves it."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.moved_s = 0.0

    def move(self, seconds: float) -> None:
        self.at += seconds
        self.moved_s += seconds


class NodeProbe:
    """One node, looked at again and again: over one connection as long as it holds, and by fresh dials beside it."""

    def __init__(
        self, target: Target, resolver: Resolver, crypto: Executor, pace: Pace | None = None
    ) -> None:
        self.target = target
        self._resolver = resolver
        self._crypto = crypto
        self._pace = pace or Pace()
        self._wire: Wire | None = None
        self._stage = Stage.NAME
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
            self._stage, self._heard = Stage.ANSWER, True
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
        verdict = self._judge(exc)
        forget(exc)
        self.answers = answers
        self._failing = True
        if answers:
            if verdict.fault is Fault.HUNG:
                self._greets_nobody = True
            elif self._stage is not Stage.TCP or not isinstance(exc, asyncio.TimeoutError):
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
            self._stage = Stage.HANDSHAKE
            busy_s = await wire.greet(
                address.host, address.port, target.user, target.password, patience.at,
                self._crypto, place,
            )  # fmt: skip
            patience.move(busy_s)
            self._stage = Stage.ANSWER
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
        self._stage, self._addresses = Stage.NAME, ()
        found, waited_s = await self._resolver.resolve(
            self.target.address, patience.at - loop.time()
        )
        patience.move(waited_s)
        self._addresses = told(found)
        rows = InTurn(found)
        for family, sockaddr in rows:
            self._stage = Stage.TCP
            sock = place = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                connecting = loop.sock_connect(sock, sockaddr)
                await asyncio.wait_for(connecting, rows.share_s(patience.at - loop.time()))
                # From here on somebody had accepted, also if the reset has come already (ENOTCONN).
                self._stage = Stage.TLS if self.target.tls else Stage.HANDSHAKE
                prepare(sock)
                began = loop.time()
                place = await self._pace.place(self._failing)
                patience.move(loop.time() - began)
                share_s = rows.share_s(patience.at - loop.time())
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
            lambda: Wire(self._pace.turn), sock=sock, ssl=tls, server_hostname=host
        )
        return wire


def forget(exc: BaseException | None) -> None:
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


def text(value: Any) -> str | None:
    return printable(value[:200]) if isinstance(value, str) else None


def probe_once(target: Target) -> Observation:
    """One look from here, with a connection of its own. Blocks for at most the timeout."""
    seen: list[Observation] = []

    async def look() -> None:
        resolver, pace = Resolver(), Pace()
        pace.pulse.start()
        with ThreadPoolExecutor(1) as crypto:
            one = NodeProbe(target, resolver, crypto, pace)
            seen.append(await one.probe())
            one.close()
        pace.pulse.stop()
        resolver.close()

    # A thread of its own: the caller may be inside a running loop.
    thread = threading.Thread(target=lambda: asyncio.run(look()), name="selfheal-probe-once")
    thread.start()
    thread.join()
    return seen[0]
