"""The healer's time: seconds that never run backwards, and how they are kept in the ledger.

The timeline is kept in the ledger, because it must be remembered as long as the times in the ledger. Only the engine
writes it down, in `writer`. No Salt here, no decision.
"""

from __future__ import annotations

import math
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

SLACK_S = 300.0  #: clocks may differ by this much without a reason


@dataclass(frozen=True)
class Anchor:
    """A moment of the timeline, with the boot clock's reading at that moment."""

    boot: str
    boottime: float
    timeline: float
    wall: float | None = (
        None  #: the wall clock's reading; None: an older release did not write it down
    )


def boot_id() -> str:
    """The id of this boot. Empty if the kernel does not tell one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def boottime() -> float:
    """Seconds since boot, with the time in which the machine was suspended. Setting the clock does not change it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Timeline:
    """Seconds that look like seconds since the epoch and never run backwards.

    Within one boot they follow CLOCK_BOOTTIME. So a step of the wall clock neither shortens a cooldown nor renews a
    budget. After a reboot they begin at the wall clock's time, but never before the newest time on record.
    """

    def __init__(self, last: Anchor | None, wall: float | None = None) -> None:
        wall = time.time() if wall is None else wall
        here, now = boot_id(), boottime()
        if last is not None and here and last.boot == here:
            start = last.timeline + max(0.0, now - last.boottime)
        else:
            start = wall if last is None else max(wall, last.timeline)
        self._anchor = Anchor(here, now, start)

    def now(self) -> float:
        return self._anchor.timeline + boottime() - self._anchor.boottime

    def anchor(self) -> Anchor:
        return Anchor(self._anchor.boot, boottime(), self.now(), time.time())


def jump_s(last: Anchor | None, wall: float | None = None) -> float:
    """By how much the timeline goes on more than the machine can have been off. 0 if it does not.

    How long it was off at most tells the wall clock: its reading now, against its reading when ``last`` was written. A
    longer jump has another cause: the clock was set while the engine ran, so the timeline has not followed it until
    this start. With it every cooldown would be over, and every budget full again. So all times that are remembered are
    moved by the jump (`healing.later`).
    """
    here = boot_id()
    if last is None or last.wall is None or (here and last.boot == here):
        return 0.0
    wall = time.time() if wall is None else wall
    more = (wall - last.timeline) - max(0.0, wall - last.wall)
    return more if more > SLACK_S else 0.0


def anchor(db: sqlite3.Connection) -> Anchor | None:
    """The moment that was written down last. Raises TypeError if it is unreadable."""
    row = db.execute("SELECT * FROM clock").fetchone()
    if row is None:
        return None
    known = set(row.keys())  # an older release did not write the last column
    wall = row["wall"] if "wall" in known else None
    if wall is not None and not math.isfinite(wall):
        raise TypeError(f"found {wall}")
    return Anchor(row["boot"], row["boottime"], row["timeline"], wall)


def now(db: sqlite3.Connection) -> float:
    """The present time of the timeline, worked out by a reader from what the ledger says."""
    return Timeline(anchor(db)).now()


def sign_of_life_s(db: sqlite3.Connection) -> float | None:
    """Seconds since the engine wrote to the ledger last, on the timeline. None if it never has."""
    row = db.execute("SELECT timeline FROM clock").fetchone()
    return now(db) - row["timeline"] if row else None
