"""Reads from one live node which backups run in its cluster: the system table ``jobs``.

``rethinkdb dump`` and ``export`` read each table by one query, ordered by its primary key. That query stands in ``jobs`` for
as long as it runs. Only the user admin may read that table (2.4.4). Where the probe's user may not, or where there is no
answer in time, nothing is known of backups. That is no fault of anybody, and it is tried again after a pause.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from rethinkdb import RethinkDB

from ..driver.text import NAME_CHARS, clean
from ..healing.events import Backup, Backups
from .node import NodeProbe, forget

WITHIN_S = 5.0
PAUSE_S = 60.0  #: after a failure nobody is asked for so long
LASTS_S = 5.0  #: a query that is over sooner is hardly a backup
MOST = 50  #: so many backups are told
MAX_QUERY_CHARS = 4000
#: What ``rethinkdb dump`` and ``export`` send (driver 2.4.10), as ``jobs`` shows it, without blanks and line ends: a whole
#: table, or its rest after a connection was lost.
_DUMP = re.compile(
    r'r\.db\("[^"]+"\)\.table\("[^"]+"\)'
    r'(\.between\(.+,r\.maxval,\{"leftBound":"open"\}\))?'
    r'\.orderBy\(\{"index":"[^"]+"\}\)'
)


class BackupReader:
    """Reads which backups run in one cluster."""

    def __init__(self, cluster: str, probes: list[NodeProbe]) -> None:
        self._cluster = cluster
        self._probes = probes
        self._not_before = 0.0
        # The driver's global `r` has one loop type for all its users, so this is an object of our own.
        self._jobs = RethinkDB().db("rethinkdb").table("jobs")

    async def take(self) -> Backups | None:
        """The backups that run now. None if that is not known. Raises nothing but cancellation."""
        loop = asyncio.get_running_loop()
        wire = next((p.wire for p in self._probes if p.answers and p.wire is not None), None)
        if wire is None or loop.time() < self._not_before:
            return None
        try:
            rows = await wire.table(self._jobs, loop.time() + WITHIN_S, backup)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            forget(exc)
            self._not_before = loop.time() + PAUSE_S
            return None
        return Backups(self._cluster, tuple(rows[:MOST]))


def backup(row: dict[str, Any]) -> Backup | None:
    """The backup in a document of ``jobs``. None if it is none."""
    info, key, lasts_s = row.get("info"), row.get("id"), row.get("duration_sec")
    if row.get("type") != "query" or not isinstance(info, dict) or not isinstance(key, list):
        return None
    if isinstance(lasts_s, bool) or not isinstance(lasts_s, (int, float)) or not lasts_s >= LASTS_S:
        return None
    query, name = info.get("query"), key[-1] if key else None
    if not isinstance(query, str) or len(query) > MAX_QUERY_CHARS or not isinstance(name, str):
        return None
    if not re.fullmatch(r"[0-9a-f-]{1,64}", name) or not _DUMP.fullmatch("".join(query.split())):
        return None
    servers, user = row.get("servers"), info.get("user")
    names = (
        [clean(s, NAME_CHARS) for s in servers if isinstance(s, str)]
        if isinstance(servers, list)
        else []
    )
    return Backup(name, tuple(names[:MOST]), clean(user, 60) if isinstance(user, str) else "")
