"""Minions: reads whether the minions of the nodes are there, without a job.

Two things are read: the keys that this master has accepted, and what Salt's `CkMinions.connected_ids` says. That
compares the addresses in the grains that the master keeps of a minion with the TCP connections of the publish port
(3006 to 3008). So it never finds a minion behind NAT, one behind a syndic, or one without kept grains. It is also
wrong about one that comes back under another address. Therefore `Sightings` calls a minion disconnected only if it
was found connected before, and if nothing else explains why it is not found now. All else is not known.

Reading happens on a thread of its own, about once a second while something is to be healed and every half minute
otherwise. A read that hangs or fails makes everything unknown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import salt.key
import salt.utils.minions
import salt.utils.network

from ..driver.text import failure
from ..healing.events import Event, Presence, Present

log = logging.getLogger(__name__)

READ_EVERY_S = (
    1.0  #: while an incident is to be healed, or while it is not certain that a minion has gone
)
READ_IDLE_S = 30.0
TELL_AGAIN_S = 5.0  #: what has not changed is told again after this time
MISSED_FOR_S = 2.0  #: a minion is gone if two readings this far apart do not find it
HANGS_AFTER_S = 10.0
SHARE = 10  #: reading takes at most this part of the time


# ---------------------------------------------------------------- keys


class Key(str, Enum):
    """What the master has done with a minion's key."""

    ACCEPTED = "is accepted"
    DENIED = "is denied"
    REJECTED = "is rejected"
    PENDING = "waits to be accepted"
    NONE = "is not there"


#: Salt's names of these lists, which are also those of its folders. The last one that holds a minion counts.
_LISTS = {
    "minions_denied": Key.DENIED,
    "minions_rejected": Key.REJECTED,
    "minions_pre": Key.PENDING,
    "minions": Key.ACCEPTED,
}


class Keys(NamedTuple):
    """The keys of some minions."""

    of: Mapping[str, Key]
    some: bool  #: the master has accepted a key at all, so what is read is hardly an empty or a wrong folder


def keys(opts: Mapping[str, Any], minions: Iterable[str]) -> Keys:
    """What the master has done with the keys of these minions. Raises what reading them raises."""
    # Since 3008 keys may be kept elsewhere. Where they are files, only those of these minions are looked for: a list of
    # all keys costs too much for once a second.
    folder = key_folder(opts)
    if folder is not None:
        return Keys({m: _key_file(folder, m) for m in minions}, _any_file(folder / "minions"))
    listed = salt.key.get_key(dict(opts)).list_keys()
    found = {m: key for name, key in _LISTS.items() for m in listed.get(name) or ()}
    return Keys({m: found.get(m, Key.NONE) for m in minions}, bool(listed.get("minions")))


def key_folder(opts: Mapping[str, Any]) -> Path | None:
    """The folder with the lists of keys. None: they are kept elsewhere, which only Salt can read."""
    if opts.get("keys.cache_driver") not in (None, "localfs_key"):
        return None
    shared = opts.get("cluster_id") and opts.get("cluster_pki_dir")
    return Path(shared or opts["pki_dir"])


def _key_file(folder: Path, minion: str) -> Key:
    found = Key.NONE
    for name, key in _LISTS.items():
        try:
            (folder / name / minion).stat()
            found = key
        except FileNotFoundError:  # of any other error it cannot be told whether the file is there
            pass
    return found


def _any_file(folder: Path) -> bool:
    try:
        return any(not entry.name.startswith(".") for entry in folder.iterdir())
    except FileNotFoundError:
        return False


# ---------------------------------------------------------------- connections


class Reading(NamedTuple):
    """One look at keys and connections."""

    keys: Keys
    #: By minion: those of its addresses by which Salt finds it connected.
    connected: Mapping[str, frozenset[str]] = {}
    #: All addresses that are connected to the publish port.
    remote: frozenset[str] = frozenset()
    #: Of minions that Salt does not find: the addresses in their kept grains.
    kept: Mapping[str, frozenset[str]] = {}


class Reader:
    """Reads keys and connections from this master. One thread uses it."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)
        self._salt: Any = None
        # In a cluster of masters a minion may be connected to another one and is reached all the same, and so is one
        # behind a syndic. Without kept grains Salt finds none.
        self.tells_connections = bool(
            opts.get("minion_data_cache", True)
            and not opts.get("cluster_id")
            and not opts.get("order_masters")
        )

    def __call__(self, minions: Collection[str]) -> Reading:
        found = keys(self._opts, minions)
        if not self.tells_connections:
            return Reading(found)
        if self._salt is None:
            self._salt = salt.utils.minions.CkMinions(self._opts)
        connected: dict[str, set[str]] = {}
        for minion, address in self._connected(list(minions)):
            connected.setdefault(minion, set()).add(address)
        remote = salt.utils.network.local_port_tcp(int(self._opts["publish_port"]))
        return Reading(
            found,
            {minion: frozenset(addresses) for minion, addresses in connected.items()},
            frozenset(remote),
            {minion: self._kept(minion) for minion in minions if minion not in connected},
        )

    def _connected(self, minions: list[str]) -> set[tuple[str, str]]:
        """Each minion that Salt finds connected, with the address by which it does."""
        try:
            found: set[tuple[str, str]] = self._salt.connected_ids(subset=minions, show_ip=True)
            return found
        except (TypeError, AttributeError):
            # A minion writes its own grains, and may write anything. It must not hide the others.
            if len(minions) == 1:
                return set()
            return set().union(*(self._connected([minion]) for minion in minions))

    def _kept(self, minion: str) -> frozenset[str]:
        """The addresses in the grains that the master keeps of this minion."""
        grains = self._salt.cache.fetch("grains", minion)  # 3008
        if not grains:
            grains = self._salt.cache.fetch(f"minions/{minion}", "data")  # 3006
            grains = grains.get("grains") if isinstance(grains, dict) else None
        try:
            return frozenset((*grains.get("ipv4", ()), *grains.get("ipv6", ())))
        except (TypeError, AttributeError):  # none are kept, or they are no grains
            return frozenset()


@dataclass
class _Sighting:
    """How a minion was found connected last."""

    by: frozenset[str]
    remote: frozenset[str]
    missed_since: float | None = None


@dataclass
class Sightings:
    """Judges readings: which minions are there, which are gone, and of which that is not known."""

    #: Minions that were found before and are not now, for not long enough yet.
    undecided: set[str] = field(default_factory=set)
    _last: dict[str, _Sighting] = field(default_factory=dict)

    def judge(self, minions: Iterable[str], reading: Reading, now: float) -> dict[str, Presence]:
        """What this reading says of each minion. ``now``: any clock that does not jump."""
        return {minion: self._judge(minion, reading, now) for minion in minions}

    def _judge(self, minion: str, reading: Reading, now: float) -> Presence:
        self.undecided.discard(minion)
        if reading.keys.of[minion] is not Key.ACCEPTED:
            self._not_missed(minion)
            return Presence.NOT_ACCEPTED if reading.keys.some else Presence.UNKNOWN
        by = reading.connected.get(minion)
        if by is not None:
            self._not_missed(minion)
            # If a minion of this very machine is connected by 127.0.0.1, Salt takes all addresses of this machine for
            # connected. Others may have the same ones, such as 172.17.0.1. That proves nothing.
            proven = by & reading.remote
            if not proven:
                return Presence.UNKNOWN
            self._last[minion] = _Sighting(proven, reading.remote)
            return Presence.CONNECTED
        last = self._last.get(minion)
        if last is None:
            return Presence.UNKNOWN
        elsewhere = (
            reading.remote - last.remote
        )  # somebody new is connected, and it may be this minion
        other_grains = not last.by <= reading.kept.get(minion, frozenset())
        if elsewhere or other_grains or last.by & reading.remote:
            last.missed_since = None
            return Presence.UNKNOWN
        if last.missed_since is None:
            last.missed_since = now
        if now - last.missed_since >= MISSED_FOR_S:
            return Presence.AWAY
        self.undecided.add(minion)
        return Presence.UNKNOWN

    def _not_missed(self, minion: str) -> None:
        """Nothing counts that was missed before this reading."""
        if minion in self._last:
            self._last[minion].missed_since = None


# ---------------------------------------------------------------- the thread


class MinionReader:
    """Reads on a thread of its own, and delivers what is new as `Present`.

    ``minions``: by cluster, the minions of its nodes. ``watch`` and ``check`` are called by the healer's thread.
    """

    def __init__(
        self,
        minions: Mapping[str, Collection[str]],
        read: Callable[[Collection[str]], Reading],
        deliver: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._minions = {cluster: tuple(names) for cluster, names in minions.items()}
        self._read = read
        self._deliver = deliver
        self._clock = clock
        self._sightings = Sightings()
        self._wanted: frozenset[str] = frozenset()
        self._wake = threading.Event()
        self._read_all_at: float | None = None  # when all clusters were read last
        #: By cluster: what was told last, and when.
        self._told: dict[str, tuple[float, dict[str, Presence]]] = {}
        self._failed = False
        # Since when a read goes on; and that it was given up, so its result is old when it comes.
        self._reading: float | None = None
        self._given_up = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="selfheal-minions", daemon=True).start()

    def watch(self, clusters: Collection[str]) -> None:
        """In these clusters something is to be healed: read their minions about once a second."""
        wanted = frozenset(clusters)
        if wanted != self._wanted:
            new, self._wanted = wanted - self._wanted, wanted
            if new:
                self._wake.set()

    def check(self) -> str | None:
        """Give up a read that hangs: nothing is known until it ends. Returns the sentence to report, or None."""
        since = self._reading
        if since is None or self._given_up or self._clock() - since < HANGS_AFTER_S:
            return None
        self._given_up = True
        for cluster in self._minions:
            self._deliver(Present(cluster))
        return "reading which minions are connected hangs: until it ends, that is not known"

    def _run(self) -> None:
        while True:
            self._wake.wait(self.turn())
            self._wake.clear()

    def turn(self) -> float:
        """Read what is due, and deliver what is new. Returns after how many seconds the next turn is due."""
        began = self._clock()
        due = self._due(began)
        if due:
            self._take(due)
        took_s = self._clock() - began
        hurry = not self._failed and (self._wanted or self._sightings.undecided)
        return max(READ_EVERY_S if hurry else READ_IDLE_S, SHARE * took_s)

    def _due(self, now: float) -> list[str]:
        if self._read_all_at is None or now - self._read_all_at >= READ_IDLE_S:
            self._read_all_at = now
            return list(self._minions)
        unsure = self._sightings.undecided
        return [c for c, names in self._minions.items() if c in self._wanted or unsure & {*names}]

    def _take(self, clusters: list[str]) -> None:
        minions = [name for cluster in clusters for name in self._minions[cluster]]
        found: dict[str, Presence] = {}
        self._reading = self._clock()
        try:
            reading = self._read(minions)
            found = self._sightings.judge(minions, reading, self._clock())
            self._failed = False
        except Exception as exc:
            if not self._failed:
                why = failure(exc)
                log.warning("selfheal: it is not known which minions are connected: %s", why)
            self._failed = True
        self._reading = None
        if self._given_up:  # the result is old, and it was told that nothing is known
            self._given_up = False
            self._told.clear()
            return
        now = self._clock()
        for cluster in clusters:
            of = {name: found.get(name, Presence.UNKNOWN) for name in self._minions[cluster]}
            last = self._told.get(cluster)
            if last is None or of != last[1] or now - last[0] >= TELL_AGAIN_S:
                self._told[cluster] = (now, of)
                self._deliver(Present(cluster, of))
