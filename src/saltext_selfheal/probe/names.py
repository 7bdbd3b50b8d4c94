"""Resolves names to addresses, in a bounded pool of threads, because `getaddrinfo` blocks and cannot be cancelled."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ..driver.address import Address, Row, lookup, name_share_s, older_serve

THREADS = 4  #: a question that hangs blocks only one of them
TOLD = 64  #: at most this many addresses of one name are told


class _Question:
    """One name that is being resolved. ``began`` is when a thread of the pool took it; None: it still waits."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.began: float | None = None
        self.answer: asyncio.Future[list[Row]]

    def ask(self) -> list[Row]:
        self.began = time.monotonic()
        return lookup(self.address)


class Resolver:
    """Resolves names, with one question per name at a time. If the resolver hangs, the last good addresses are used."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="selfheal-resolve")
        self._good: dict[Address, list[Row]] = {}
        self._asking: dict[Address, _Question] = {}
        self._answers = 0

    async def resolve(self, address: Address, patience_s: float) -> tuple[list[Row], float]:
        """The addresses, and how long the question waited for a thread. The name is not to blame for that time.

        Raises socket.gaierror, or TimeoutError after ``patience_s``. Any other exception (a name that cannot be
        encoded, no thread) means that something went wrong on this side.
        """
        literal = _literal(address)
        if literal is not None:
            return [literal], 0.0
        asked = time.monotonic()
        question = self._asking.get(address) or self._ask(address)
        good = self._good.get(address)
        try:
            rows = await self._answer(question, name_share_s(patience_s, good), bool(good))
        except Exception as exc:
            if good and older_serve(exc):
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
        """Wait for the answer. The patience begins when a thread takes the question.

        Before that, it begins anew with each answer to another question: the pool is busy then, but does not hang.
        ``something_else``: older addresses can be used, so there is no need to wait longer.
        """
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
    """The row of an address that is written in numbers. None for a name, which must be resolved."""
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
    """The number of an IPv6 zone. It is given as an interface's name or as a number, as for `getaddrinfo`."""
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        if zone.isascii() and zone.isdigit() and len(zone) < 10:
            return int(zone)
        raise


def told(rows: Iterable[Row]) -> tuple[str, ...]:
    """The addresses in one spelling and sorted, so that a resolver which changes their order tells nothing new."""
    return tuple(sorted(set(map(_spelled, rows))))[:TOLD]


def _spelled(row: Row) -> str:
    host, port = row[1][0], row[1][1]
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_unspecified:
        # When it is dialled, Linux takes the unspecified address for the loopback address.
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    if address.version == 4:
        return f"{address}:{port}"
    scope = row[1][3] if len(row[1]) > 3 else 0
    return f"[{address}%{scope}]:{port}" if scope else f"[{address}]:{port}"
