"""Resolves names on daemon threads, because `getaddrinfo` cannot be cancelled and has no time limit."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unresolved
from typing import Any

from ..driver.address import Address, Row, lookup


class Names:
    """Resolves names on daemon threads, so that a hanging resolver blocks neither a caller nor the end of the process.

    There is at most one thread per name, however often the name is asked for. Meanwhile the last good answer is used.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._own()

    def _own(self) -> None:
        if self._pid != os.getpid():
            # This is a new process after a fork. The threads are gone, and one of them may have held the lock.
            self._lock = threading.Lock()
            self._asking: dict[Address, Future[list[Row]]] = {}
            self._good: dict[Address, list[Row]] = {}
            self._pid = os.getpid()

    def ask(self, address: Address) -> Future[list[Row]]:
        """The future rows of an address. For an address in numbers they are known at once.

        Raises OSError if no thread can be started.
        """
        self._own()
        try:
            literal = lookup(address, socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            pass
        else:
            known: Future[list[Row]] = Future()
            known.set_result(literal)
            return known
        with self._lock:
            asking = self._asking.get(address)
            if asking is None:
                asking = Future()
                finding = threading.Thread(
                    target=self._find, args=(address, asking), name="selfheal-name", daemon=True
                )
                try:
                    finding.start()
                except RuntimeError as exc:
                    raise OSError(errno.ENOMEM, str(exc)) from exc
                self._asking[address] = asking
            return asking

    def last_good(self, address: Address) -> list[Row] | None:
        """The rows that the name had the last time. None if it was never resolved."""
        return self._good.get(address)

    def _find(self, address: Address, asking: Future[list[Row]]) -> None:
        try:
            found = lookup(address)
        except Exception as exc:
            # If the name cannot be encoded, it cannot exist.
            wrong = exc if isinstance(exc, OSError) else socket.gaierror(str(exc))
            with self._lock:
                self._asking.pop(address, None)
            asking.set_exception(wrong)
            return
        with self._lock:
            self._good[address] = found
            self._asking.pop(address, None)
        asking.set_result(found)


NAMES = Names()


def resolve(address: Address, patience_s: float) -> list[Row]:
    """The rows of an address, or the last good ones if the resolver is late.

    Raises OSError, or `Unresolved` if there are no earlier rows.
    """
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        return asking.result(_for_the_name_s(patience_s, good))
    except Unresolved:
        if good:
            return good
        raise


async def aresolve(address: Address, patience_s: float) -> list[Row]:
    """Like `resolve`, but in the running loop. Raises asyncio.TimeoutError in place of `Unresolved`."""
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        # It is shielded, because others may wait for the same answer.
        found = asyncio.shield(asyncio.wrap_future(asking))
        return await asyncio.wait_for(found, _for_the_name_s(patience_s, good))
    except asyncio.TimeoutError:
        if good:
            return good
        raise


def _for_the_name_s(patience_s: float, good: Any) -> float:
    """How long to wait for the resolver. If older rows can be used instead, most of the time is kept for the dial."""
    return max(0.0, patience_s / 4 if good else patience_s)
