"""Times and durations as people read and write them."""

from __future__ import annotations

import datetime
from typing import Any, overload

from .. import config
from ..doors.arguments import BadRequest, shown
from ..healing.events import Seconds


@overload
def clock(at: None) -> None: ...
@overload
def clock(at: Seconds) -> str: ...
def clock(at: Seconds | None) -> str | None:
    """A time of the timeline as local time, such as ``2026-11-23 03:45:23+01:00``. None stays None."""
    if at is None:
        return None
    try:
        when = datetime.datetime.fromtimestamp(at).astimezone()
    except (OverflowError, ValueError, OSError):  # too large for a date
        return f"{at:g} s"
    return when.isoformat(sep=" ", timespec="seconds")


def seconds(what: str, found: Any, more: str = f", {config.LONGEST}") -> Seconds:
    """A duration such as ``30m`` in seconds. ``what`` names the argument; ``more`` is added to what is allowed.

    Raises BadRequest.
    """
    try:
        return config.duration(found)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{what}: found {shown(found)}; allowed: {config.DURATION}{more}"
        ) from None
