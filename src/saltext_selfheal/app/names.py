"""Where a name leads, asked for on daemon threads: `getaddrinfo` cannot be cancelled, and knows no limit of time."""

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
    """Names → addresses, on daemon threads: a resolver that hangs holds neither a caller nor the process's end.

    One thread per name at most, however often it is asked for; the last good answer serves meanwhile.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._own()

    def _own(self) -> None:
        if self._pid != os.getpid():
            # After a fork the threads are gone, and the lock may be held by one of them.
            self._lock = threading.Lock()
            self._asking: dict[Address, Future[list[Row]]] = {}
            self._good: dict[Address, list[Row]] = {}
            self._pid = os.getpid()

    def ask(self, address: Address) -> Future[list[Row]]:
        """Its rows, some time. An address that is no name is known at once. Raises OSError without a thread to ask."""
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
        """What the name was the last time."""
        return self._good.get(address)

    def _find(self, address: Address, asking: Future[list[Row]]) -> None:
        try:
            found = lookup(address)
        except Exception as exc:
            # A name that no encoding knows cannot exist.
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
    """Its rows; what they were the last time if the resolver is late. Raises OSError, or `Unresolved` without any."""
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        return asking.result(_for_the_name_s(patience_s, good))
    except Unresolved:
        if good:
            return good
        raise


async def aresolve(address: Address, patience_s: float) -> list[Row]:
    """As `resolve`, in the running loop. Raises asyncio.TimeoutError in place of `Unresolved`."""
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        # Shielded: others wait for the same answer.
        found = asyncio.shield(asyncio.wrap_future(asking))
        return await asyncio.wait_for(found, _for_the_name_s(patience_s, good))
    except asyncio.TimeoutError:
        if good:
            return good
        raise


def _for_the_name_s(patience_s: float, good: Any) -> float:
    """With something to fall back on, most of the time is kept for the dial."""
    return max(0.0, patience_s / 4 if good else patience_s)
