"""Whether the probe's own loop stood still (the pulse), and how many nodes log in at a time (the desks).

If a deadline was missed while this process stood still, that proves nothing about the node. The cause may be garbage
collection, another thread that kept the interpreter, SIGSTOP, or a suspended machine. The pulse beats in the loop. If a
beat comes late, its delay tells how long nothing ran. A desk limits how many logins run at a time, so that none of them
misses its deadline because of the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

BEAT_S = 0.05
#: A beat that is this late means that the loop stood still; less means that it is busy.
STILL_S = 0.1
#: So many logins at a time at each of the two desks; one login costs this process about 2 ms.
PLACES = 32
AT_DESK_S = 0.5  #: a login that waits for its node for this long makes room for the next one
#: The same, at the desk for nodes whose last probe failed. It is shorter, so that they do not keep others waiting.
FAILING_S = 0.2

# CLOCK_BOOTTIME goes on while the machine is suspended. The monotonic clock does not.
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
        """How long nothing ran in all since this time of the loop's clock."""
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
        """From now on the login waits for its node. The place is given up if that takes too long."""
        self.work()
        self._timer = asyncio.get_running_loop().call_later(self._patience_s, self.leave)

    def work(self) -> None:
        """From now on this side works for the login. The place is kept for as long as that takes."""
        if self._timer is not None:
            self._timer.cancel()

    def leave(self) -> None:
        self.work()
        if self._desk is not None:
            self._desk.release()
            self._desk = None


class Pace:
    """What all probes of one loop share: the pulse, the desks, and the lock for reading a large answer."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.turn = asyncio.Lock()
        self._desk = asyncio.Semaphore(PLACES)
        self._desk_for_failing = asyncio.Semaphore(PLACES)

    async def place(self, failing: bool) -> Place:
        """Wait for a place at a desk. ``failing``: the node's last probe failed, so it goes to the second desk."""
        desk = self._desk_for_failing if failing else self._desk
        await desk.acquire()
        place = Place(desk, FAILING_S if failing else AT_DESK_S)
        place.wait_for_peer()
        return place
