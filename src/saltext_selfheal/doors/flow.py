"""How much a door takes. What comes beyond that is dropped before it costs much."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .arguments import BadRequest


@dataclass(frozen=True)
class Flow:
    """How much a door takes: a number at once, and from then on a number per second."""

    at_once: int
    per_s: float


@dataclass
class _Bucket:
    """How much could still be taken at a moment."""

    left: float
    at: float


class Flows:
    """How much each door has taken lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, whose: str, flow: Flow) -> None:
        """Take one more through this door. Raises BadRequest if that is more than its flow allows."""
        now = self._clock()
        bucket = self._buckets.setdefault(whose, _Bucket(flow.at_once, now))
        back = (now - bucket.at) * flow.per_s
        bucket.left, bucket.at = min(flow.at_once, bucket.left + back), now
        if bucket.left < 1:
            raise BadRequest(
                f"more than {flow.at_once} at once and {flow.per_s:g} a second through {whose}"
            )
        bucket.left -= 1
