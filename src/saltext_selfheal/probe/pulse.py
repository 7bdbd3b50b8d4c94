"""Whether the probe's own loop stood still, and whose turn it is to log in.

A deadline that was missed while this process stood still (garbage collection, another thread that kept the
interpreter, SIGSTOP, a suspended machine) proves nothing about the node. The pulse beats in the loop, and a beat that
comes late tells how long nothing ran. The desk lets so many log in at a time that none of them is late because of
the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

BEAT_S = 0.05
STILL_S = 0.1  #: a beat that comes this much late was held up; less is a busy loop
PLACES = 32  #: logins at a time, at each of the two desks: one costs this process about 2 ms
AT_DESK_S = 0.5  #: whoever waits for its node for so long makes room for the next
FAILING_S = (
    0.2  #: the same, at the desk for nodes that failed before: they are not to keep others waiting
)

# The monotonic clock stops while the machine is suspended, this one does not.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _clock() -> float:
    return time.clock_gettime(_BOOT)


class Pulse:
    """Beats in the running loop from `start` on."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stops: deque[tuple[float, float]] = deque(maxlen=100)

    def start(self) -> None:
        self._due = _clock() + BEAT_S
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        loop, now = asyncio.get_running_loop(), _clock()
        assert self._due is not None
        if now - self._due >= STILL_S:
            self._stops.append((loop.time(), now - self._due))
        self._due = now + BEAT_S
        self._timer = loop.call_later(BEAT_S, self._beat)

    def stood_still_s(self, since: float) -> float:
        """How long nothing ran since then (of the loop's clock)."""
        if self._due is None:
            return 0.0
        overdue = _clock() - self._due
        return (overdue if overdue >= STILL_S else 0.0) + sum(
            length for ended, length in self._stops if ended >= since
        )


class Place:
    """A place at a desk, for as long as a login makes progress."""

    def __init__(self, desk: asyncio.Semaphore, patience_s: float) -> None:
        self._desk: asyncio.Semaphore | None = desk
        self._patience_s = patience_s
        self._timer: asyncio.TimerHandle | None = None

    def wait_for_peer(self) -> None:
        """From now on it is the node that is waited for."""
        self.work()
        self._timer = asyncio.get_running_loop().call_later(self._patience_s, self.leave)

    def work(self) -> None:
        """From now on it is this side that works: that takes as long as it takes."""
        if self._timer is not None:
            self._timer.cancel()

    def leave(self) -> None:
        self.work()
        if self._desk is not None:
            self._desk.release()
            self._desk = None


class Pace:
    """What all looks of one loop share: the pulse, the desks, and the turn of whoever has much to read."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.turn = asyncio.Lock()
        self._desk = asyncio.Semaphore(PLACES)
        self._desk_for_failing = asyncio.Semaphore(PLACES)

    async def place(self, failing: bool) -> Place:
        """Wait for a place at the right desk."""
        desk = self._desk_for_failing if failing else self._desk
        await desk.acquire()
        place = Place(desk, FAILING_S if failing else AT_DESK_S)
        place.wait_for_peer()
        return place
