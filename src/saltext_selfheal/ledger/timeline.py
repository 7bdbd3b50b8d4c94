"""The healer's time: seconds that never run backwards, and where the ledger has it.

It lives as long as the ledger, because it must survive what the ledger survives. No Salt here, no decision; the engine
alone writes the time down, in `ledger`.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Anchor:
    """A point of the timeline and the boot clock's reading at it."""

    boot: str
    boottime: float
    timeline: float


def boot_id() -> str:
    """This boot's id; empty where the kernel tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def boottime() -> float:
    """Seconds since boot, suspended time included; no clock step moves it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Timeline:
    """Seconds that look like the epoch's and never run backwards.

    Within one boot they follow CLOCK_BOOTTIME, so that a step of the wall clock shortens no cooldown and renews
    no budget. After a reboot the wall clock counts, but never before the newest time on record.
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
        return Anchor(self._anchor.boot, boottime(), self.now())


def now(db: sqlite3.Connection) -> float:
    """The timeline's present, as a reader sees it."""
    row = db.execute("SELECT boot, boottime, timeline FROM clock").fetchone()
    return Timeline(Anchor(*row) if row else None).now()


def sign_of_life_s(db: sqlite3.Connection) -> float | None:
    """Seconds since the engine last wrote, on the timeline; None if it never has."""
    row = db.execute("SELECT timeline FROM clock").fetchone()
    return now(db) - row["timeline"] if row else None
