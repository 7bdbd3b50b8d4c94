"""Reads the master's job events, for jobs of other people on the nodes' minions: `Foreign`.

Salt fires ``salt/job/<jid>/new`` when a job is published, and ``salt/job/<jid>/ret/<minion>`` when one has returned
(3006 to 3008). A busy master fires thousands. So only jobs that change something on the minion of a node are handed on,
and no more than a flow of them. The healer's own jobs come as well; the core knows their JIDs.

Nothing here need be true, because any minion can fire either event. An event may hold secrets, so none is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any

from ..doors.arguments import BadRequest
from ..doors.flow import Flow, Flows
from ..driver.functions import changing
from ..healing import testimony
from ..healing.events import Foreign

log = logging.getLogger(__name__)

TAGS = r"^salt/job/[^/]+/(?:new$|ret/)"  #: a regular expression that matches the tags to listen to
FLOW = Flow(2000, 50.0)  #: how many events are handed on, of jobs that begin and of those that end
MOST_MINIONS = 100_000  #: of one job
TELL_EVERY_S = 60.0  #: what was dropped is logged in one line per this time


class Others:
    """Turns job events into `Foreign`, on the thread that listens. ``nodes``: by cluster, the minions of its nodes."""

    def __init__(
        self,
        nodes: Mapping[str, Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clusters: dict[str, str] = {
            node: name for name, those in nodes.items() for node in those
        }
        self._flows = Flows(clock)
        self._clock = clock
        self._told_at: float | None = None

    @property
    def listens(self) -> bool:
        """Somebody's jobs are waited for at all."""
        return bool(self._clusters)

    def take(self, tag: str, data: Mapping[str, Any]) -> list[Foreign]:
        """What one job event says of the nodes. Nothing, if it says nothing of them. Never raises."""
        try:
            if tag.endswith("/new"):
                return self._begun(data)
            return self._ended(data)
        except BadRequest:
            self._tell("too many at once")
        except Exception as exc:  # no data from outside may end the listener
            self._tell(f"{type(exc).__name__} while one was read")
        return []

    def _begun(self, data: Mapping[str, Any]) -> list[Foreign]:
        what, minions = changing(data.get("fun"), data.get("arg")), data.get("minions")
        if not what or not isinstance(minions, (list, tuple)):
            return []
        by_cluster: dict[str, list[str]] = {}
        for minion in islice(minions, MOST_MINIONS):
            cluster = self._clusters.get(minion) if isinstance(minion, str) else None
            if cluster is not None:
                by_cluster.setdefault(cluster, []).append(minion)
        jid = _jid(data)
        if not by_cluster or jid is None or not testimony.FUNCTIONS.fullmatch(what):
            return []
        self._flows.take("jobs that begin", FLOW)
        by = testimony.user(data.get("user"))
        return [
            Foreign(cluster, jid, what, by, tuple(dict.fromkeys(nodes)))
            for cluster, nodes in by_cluster.items()
        ]

    def _ended(self, data: Mapping[str, Any]) -> list[Foreign]:
        minion = data.get("id")
        cluster = self._clusters.get(minion) if isinstance(minion, str) else None
        if cluster is None:
            return []
        jid, what = _jid(data), changing(data.get("fun"))
        if jid is None or not what or not testimony.FUNCTIONS.fullmatch(what):
            return []
        self._flows.take("jobs that end", FLOW)
        return [Foreign(cluster, jid, what, nodes=(str(minion),), ended=True)]

    def _tell(self, why: str) -> None:
        now = self._clock()
        if self._told_at is None or now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            log.warning("selfheal: events of other people's jobs were dropped: %s", why)


def _jid(data: Mapping[str, Any]) -> str | None:
    jid = data.get("jid")
    return jid if isinstance(jid, str) and testimony.JID.fullmatch(jid) else None
