"""A firing is claimed once: whoever publishes its job has asked the ledger first, and was the first to ask.

The engine fires an attempt as an event, and anybody can send such an event again: a minion that forges it, a master that
passes its peers' events on, a hand on the event bus. A minion remembers the JIDs that it has run only until it is started
again. So the reactor's ``attempt()`` claims the firing: one conditional UPDATE, which changes one row or none. Nothing here
decides what may be done, that is `records.order`; no Salt here.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .file import LedgerError
from .tables import connect

BUSY_MS = 1000  #: how long a claim waits for somebody else's transaction: the reactor does nothing else meanwhile

#: Compared with what was read, not only with what is there: an attempt that was fired again since is another claim.
_CLAIM = (
    "UPDATE attempts SET claimed = firings"
    " WHERE jid = ? AND firings = ? AND claimed = ? AND claimed < firings AND ended_at IS NULL"
)


def take(path: Path, jid: str, firing: int, claimed: int) -> bool:
    """Whether this firing belongs to the caller from now on. ``claimed`` is the last one that somebody had claimed.

    Raises LedgerError if the ledger is busy or cannot be written; then nothing is claimed.
    """
    db = None
    try:
        db = connect(path, "rw")
        db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        # A claim need not outlive the machine: after a reboot no firing of before is good for anything.
        db.execute("PRAGMA synchronous=NORMAL")
        return db.execute(_CLAIM, (jid, firing, claimed)).rowcount == 1
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        if db is not None:
            db.close()
