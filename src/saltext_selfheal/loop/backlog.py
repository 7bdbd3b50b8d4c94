"""What waits, because it cannot be recorded now, and since when that is so.

While the ledger fails nothing is decided. Events that come again are let go then: the next probe and the next tick tell
the same. Events that come only once are kept here, in the order in which they came.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

from ..healing.events import Event, Foreign, Published, Requested, Returned

log = logging.getLogger(__name__)

GAP_S = 10.0  #: if no tick was taken for this long, what is believed of the nodes counts as old
AT_ONCE = 200  #: at most this many requests are taken in one transaction
#: At most this many requests and news of other people's jobs are kept in memory while nothing can be recorded.
KEPT_REQUESTS = 10_000
WAITED_S = 1.0  #: a failure that took this long has waited for somebody else's lock

READING = "the inbox cannot be read"
WRITING = "the ledger cannot be written"


class Backlog:
    """The events that wait, and what keeps them waiting. ``now``: the ledger's timeline."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: deque[Event] = deque()
        self._failing: dict[str, float] = {}  # what fails at present, and since when
        # The ledger is not touched before this, because somebody else holds its lock.
        self._leave_alone_until = 0.0
        self._ticked = now()
        #: What is believed is old, and must be forgotten before the next event is taken.
        self.gap = False

    # ------------------------------------------------------------ events

    @property
    def kept(self) -> tuple[Event, ...]:
        """The events that wait to be recorded, in the order in which they came."""
        return tuple(self._kept)

    def keep(self, events: Iterable[Event]) -> None:
        """Keep those of these events that come only once.

        News of the healer's own jobs are few, so all are kept. Requests and news of other people's jobs may come as a
        flood, so only so many of them are kept.
        """
        for event in events:
            if isinstance(event, (Published, Returned)) or (
                isinstance(event, (Requested, Foreign)) and len(self._kept) < KEPT_REQUESTS
            ):
                self._kept.append(event)

    def next_batch(self) -> list[Event]:
        """Take out the oldest event; together with it the requests that follow a request. Empty if nothing waits."""
        batch: list[Event] = []
        while self._kept and len(batch) < AT_ONCE:
            if batch and not isinstance(batch[-1], Requested):
                break
            batch.append(self._kept.popleft())
        return batch

    def put_back(self, events: Iterable[Event]) -> None:
        """These could not be recorded. They are the oldest again, in their order."""
        self._kept.extendleft(reversed(list(events)))

    # ------------------------------------------------------------ time and trouble

    @property
    def troubled(self) -> bool:
        """Something fails, or much time has passed unseen: then the inbox comes first, which may hold a pause."""
        return bool(self._failing) or self.gap

    @property
    def left_alone(self) -> bool:
        """Somebody else holds the ledger's lock, and was waited for already."""
        return time.monotonic() < self._leave_alone_until

    def look_at_the_time(self) -> None:
        """Notice that no tick was taken for long: the machine was suspended, or the loop was held up."""
        if self._now() - self._ticked > GAP_S:
            self.gap = True

    def tick(self) -> None:
        """A tick was taken."""
        self._ticked = self._now()

    def start_anew(self) -> None:
        """What was believed before the gap is forgotten, and that is on record."""
        self.gap, self._ticked = False, self._now()

    def works(self, what: str) -> None:
        """What failed works again."""
        self._failing.pop(what, None)

    def failed(self, what: str, exc: Exception, began: float) -> bool:
        """Note what cannot be done. ``began``: when it was tried, of the process's clock. Whether that is news."""
        took_s = time.monotonic() - began
        if took_s >= WAITED_S:
            # Somebody else may hold the lock for hours. The loop must not spend all that time waiting for it.
            self._leave_alone_until = time.monotonic() + took_s
        now = self._now()
        if what not in self._failing:
            self._failing[what] = now
            log.critical("selfheal: %s, nothing is done until it can: %s", what, exc)
            return True
        if now - self._failing[what] > GAP_S:
            self.gap = True
        return False
