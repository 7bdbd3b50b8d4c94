"""Names → addresses, in a bounded pool of threads: `getaddrinfo` cannot be cancelled."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ..driver.address import Address, Row, lookup

THREADS = 4  #: a stuck question holds one of them, and nobody else
TOLD = 64  #: so many addresses of one name are told


class _Question:
    """One name on its way through the pool. ``began`` is when a thread took it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.began: float | None = None
        self.answer: asyncio.Future[list[Row]]

    def ask(self) -> list[Row]:
        self.began = time.monotonic()
        return lookup(self.address)


class Resolver:
    """Asks each name once at a time; the last good addresses serve while the resolver is stuck."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="selfheal-resolve")
        self._good: dict[Address, list[Row]] = {}
        self._asking: dict[Address, _Question] = {}
        self._answers = 0

    async def resolve(self, address: Address, patience_s: float) -> tuple[list[Row], float]:
        """The rows, and how long the question waited for its turn: that is no fault of the name's.

        Raises socket.gaierror, or TimeoutError after ``patience_s``; whatever else is raised (a name that cannot be
        encoded, no thread) went wrong on this side.
        """
        literal = _literal(address)
        if literal is not None:
            return [literal], 0.0
        asked = time.monotonic()
        question = self._asking.get(address) or self._ask(address)
        good = self._good.get(address)
        try:
            # With something to fall back on, most of the time is kept for the dial.
            rows = await self._answer(question, patience_s / 4 if good else patience_s, bool(good))
        except asyncio.TimeoutError:
            if good:
                return good, 0.0
            raise
        except socket.gaierror as exc:
            # A resolver that fails for the moment is as good as stuck; a name that does not exist is an answer.
            if good and exc.errno == socket.EAI_AGAIN:
                return good, 0.0
            raise
        return rows, max(0.0, (question.began or asked) - asked)

    def _ask(self, address: Address) -> _Question:
        question = _Question(address)
        question.answer = asyncio.get_running_loop().run_in_executor(self._pool, question.ask)
        question.answer.add_done_callback(lambda done: self._answered(address, done))
        self._asking[address] = question
        return question

    async def _answer(
        self, question: _Question, patience_s: float, something_else: bool
    ) -> list[Row]:
        """The patience counts from when a thread took the question, as long as others are answered meanwhile."""
        left_s, answers = patience_s, self._answers
        while True:
            try:
                return await asyncio.wait_for(asyncio.shield(question.answer), left_s)
            except asyncio.TimeoutError:
                if something_else:
                    raise
                if question.began is not None:
                    left_s = question.began + patience_s - time.monotonic()
                elif self._answers != answers:
                    left_s, answers = patience_s, self._answers
                else:
                    raise  # every thread is stuck
                if left_s <= 0:
                    raise

    def _answered(self, address: Address, done: asyncio.Future[list[Row]]) -> None:
        self._answers += 1
        self._asking.pop(address, None)
        if not done.cancelled() and done.exception() is None:
            self._good[address] = done.result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _literal(address: Address) -> Row | None:
    host, _, zone = address.host.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        if family == socket.AF_INET:
            return (family, (host, address.port))
        return (family, (host, address.port, 0, _scope(zone) if zone else 0))
    return None


def _scope(zone: str) -> int:
    """The number of a zone, given by its interface's name or by number, as `getaddrinfo` takes both."""
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        if zone.isascii() and zone.isdigit() and len(zone) < 10:
            return int(zone)
        raise


def told(rows: Iterable[Row]) -> tuple[str, ...]:
    """The addresses in one spelling and one order: a resolver that turns them round tells nothing new."""
    return tuple(sorted(set(map(_spelled, rows))))[:TOLD]


def _spelled(row: Row) -> str:
    host, port = row[1][0], row[1][1]
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_unspecified:
        # Linux takes it for the loopback address.
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    if address.version == 4:
        return f"{address}:{port}"
    scope = row[1][3] if len(row[1]) > 3 else 0
    return f"[{address}%{scope}]:{port}" if scope else f"[{address}]:{port}"
