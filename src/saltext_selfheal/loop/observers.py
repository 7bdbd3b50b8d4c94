"""Observers: finds out which minions that the settings name as observers are there, and tells the healer.

The keys that this master has accepted are listed twice a minute. Of the minions that match, those that Salt finds
connected come first. Of the others that is not known, so they are asked as well if there is room. All of it happens on a
thread of its own. A reading that fails or hangs tells nothing: what was told before stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import salt.key

from ..config import ClusterSettings
from ..driver.text import failure
from ..healing.events import Event, Watchers
from ..healing.observers import MOST
from .minions import Reading, key_folder

log = logging.getLogger(__name__)

READ_EVERY_S = 30.0
#: Of so many minions at most it is read whether they are connected.
CANDIDATES = 50


def accepted(opts: Mapping[str, Any]) -> list[str]:
    """The ids of all minions whose keys this master has accepted. Raises what reading them raises."""
    folder = key_folder(opts)
    if folder is not None:
        there = (folder / "minions").iterdir()
        return sorted(one.name for one in there if not one.name.startswith("."))
    return sorted(salt.key.get_key(dict(opts)).list_keys().get("minions") or ())


def named(
    clusters: Mapping[str, ClusterSettings], keys: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """By cluster with observers: those of these minions that are its observers. A node of a cluster is none."""
    nodes = {node for cluster in clusters.values() for node in cluster.nodes}
    free = sorted(set(keys) - nodes)
    return {
        name: tuple(one for one in free if cluster.observers.allows(one))
        for name, cluster in clusters.items()
        if cluster.observers is not None
    }


def chosen(minions: Collection[str], connected: Collection[str]) -> tuple[str, ...]:
    """Those of the observers that are asked: the connected ones first."""
    return tuple(sorted(minions, key=lambda one: (one not in connected, one))[:MOST])


class ObserverReader:
    """Reads which observers are there, on a thread of its own, and delivers that as `Watchers`."""

    def __init__(
        self,
        clusters: Mapping[str, ClusterSettings],
        keys: Callable[[], Iterable[str]],
        read: Callable[[Collection[str]], Reading],
        deliver: Callable[[Event], None],
    ) -> None:
        self._clusters = clusters
        self._keys = keys
        self._read = read
        self._deliver = deliver
        self._failed = False

    def start(self) -> None:
        """Begin to read, if any cluster has observers."""
        if any(cluster.observers is not None for cluster in self._clusters.values()):
            threading.Thread(target=self._run, name="selfheal-observers", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.turn()
            time.sleep(READ_EVERY_S)

    def turn(self) -> None:
        """Read once, and deliver what was found."""
        try:
            found = named(self._clusters, self._keys())
            some = sorted({one for minions in found.values() for one in minions[:CANDIDATES]})
            connected = self._read(some).connected if some else {}
            self._failed = False
        except Exception as exc:
            if not self._failed:
                log.warning(
                    "selfheal: it cannot be read which observers are there: %s", failure(exc)
                )
            self._failed = True
            return
        for cluster, minions in found.items():
            self._deliver(Watchers(cluster, chosen(minions, connected)))
