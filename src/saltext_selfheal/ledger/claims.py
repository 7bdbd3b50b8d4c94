"""Claims. Each firing can be claimed once, and only the one that has claimed it may publish its job.

The engine fires an attempt as an event. Anybody can send that event again: a minion that forges it, a master that
passes on the events of its peers, a person at the event bus. And a minion forgets at its next start which JIDs it has
run. So the reactor's ``attempt()`` claims the firing by one conditional UPDATE, which changes one row or none. What a
job may do is not decided here, but in `records.order`. No Salt here.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .file import LedgerError
from .tables import connect

#: A claim waits at most this long for another transaction: the reactor does nothing else meanwhile.
BUSY_MS = 1000

#: The row must be as the caller has read it. If the attempt was fired again meanwhile, that is a new firing with a
#: claim of its own, and this one fails.
_CLAIM = (
    "UPDATE attempts SET claimed = firings"
    " WHERE jid = ? AND firings = ? AND claimed = ? AND claimed < firings AND ended_at IS NULL"
)


def take(path: Path, jid: str, firing: int, claimed: int) -> bool:
    """Claim this firing. True if it belongs to the caller now. ``claimed`` is the last firing that was claimed before.

    Raises LedgerError if the ledger is busy or cannot be written; then nothing is claimed.
    """
    db = None
    try:
        db = connect(path, "rw")
        db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        # A claim need not survive a crash of the machine, because after a reboot no earlier firing is valid.
        db.execute("PRAGMA synchronous=NORMAL")
        return db.execute(_CLAIM, (jid, firing, claimed)).rowcount == 1
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        if db is not None:
            db.close()
