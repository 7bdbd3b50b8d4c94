"""Resolves names on daemon threads, because `getaddrinfo` cannot be cancelled and has no time limit."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from concurrent.futures import Future

from ..driver.address import Address, Row, lookup, name_share_s, older_serve


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
    """The rows of an address, or the last good ones if the resolver gives no answer.

    Raises OSError, or concurrent.futures.TimeoutError, if there are no earlier rows.
    """
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        return asking.result(name_share_s(patience_s, good))
    except Exception as exc:
        if good and older_serve(exc):
            return good
        raise


async def aresolve(address: Address, patience_s: float) -> list[Row]:
    """Like `resolve`, but in the running loop. Raises asyncio.TimeoutError in its place."""
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        # It is shielded, because others may wait for the same answer.
        found = asyncio.shield(asyncio.wrap_future(asking))
        return await asyncio.wait_for(found, name_share_s(patience_s, good))
    except Exception as exc:
        if good and older_serve(exc):
            return good
        raise
