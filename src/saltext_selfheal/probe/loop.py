"""The loop that probes every node and every cluster again and again, on a thread of its own.

Everything here runs in one asyncio loop, and no Salt function may be called in it. How one node is probed is in `node`,
and how the system tables of a cluster are read is in `tables`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import random
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .. import config
from ..healing.events import Backups, Canary, Met, Observation, Observed, Viewed
from ..healing.model import Fault
from .backups import BackupReader
from .canary import Canaries, CanaryPlan
from .names import Resolver
from .node import NodeProbe, Target
from .pulse import Pace
from .tables import TableReader, ViewPlan

log = logging.getLogger(__name__)

CRYPTO_THREADS = 2  #: for PBKDF2, which each login needs
SETTLED_S = 10.0  #: this long after the start all connections are open
#: Two probes of one node are at least this far apart, however often the node hangs up.
AGAIN_S = 0.05
#: So much later than ``confirm`` after its first sight a fault is looked at again. It is what the healer's thread may
#: have needed to take the first sight.
LATE_S = 0.1
SWITCH_S = 0.0005  #: one thread may keep the interpreter this long while another thread wants it


def targets(clusters: Mapping[str, config.ClusterSettings]) -> list[Target]:
    """Every node of the settings. Raises config.ConfigError if CA certificates cannot be read."""
    found = []
    contexts = config.trusted(clusters)
    for name, cluster in clusters.items():
        for node, address in cluster.nodes.items():
            found.append(
                Target(
                    cluster=name,
                    node=node,
                    address=address,
                    user=cluster.user,
                    password=cluster.password.get_secret_value(),
                    tls=contexts.get(name),
                    poll_s=cluster.poll,
                    timeout_s=cluster.timeout,
                    redial_s=cluster.redial,
                    confirm_s=cluster.confirm.faults,
                    dead_witnessed_s=cluster.confirm.dead_witnessed,
                )
            )
    return found


class Prober:
    """Probes every node and every cluster again and again, in a loop on a thread of its own.

    ``deliver`` is called on that thread with each event, and must not block. ``plans`` names the clusters whose system
    tables are also read, ``canaries`` those through whose nodes canaries are sent.
    """

    def __init__(
        self,
        nodes: Iterable[Target],
        deliver: Callable[[Observed | Met | Viewed | Canary | Backups], None],
        plans: Mapping[str, ViewPlan] | None = None,
        canaries: Mapping[str, CanaryPlan] | None = None,
    ) -> None:
        self._targets = list(nodes)
        self._deliver = deliver
        self._plans = dict(plans or {})
        self._canaries = dict(canaries or {})
        self._probes: dict[tuple[str, str], NodeProbe] = {}
        self._readers: dict[str, TableReader] = {}
        self._thread = threading.Thread(target=self._run, name="selfheal-probe", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        # The probes share the interpreter with the healer's loop. With Python's default, each time a probe wakes up it
        # may wait 5 ms for the interpreter. That is ten times as long as a probe takes.
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """End the loop. Only tests and benchmarks do so; the engine probes until its process ends."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def dial(self, cluster: str, nodes: Iterable[str]) -> None:
        """Have these nodes dialled afresh at once. May be called from any thread. Unknown nodes are ignored."""
        asked = tuple(nodes)

        def ask() -> None:
            for node in asked:
                probe = self._probes.get((cluster, node))
                if probe is not None:
                    probe.ask_dial()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(ask)

    def _run(self) -> None:
        asyncio.run(self._watch_all())

    async def _watch_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        resolver = Resolver()
        crypto = ThreadPoolExecutor(CRYPTO_THREADS, thread_name_prefix="selfheal-crypto")
        pace = Pace()
        pace.pulse.start()
        probes = [NodeProbe(target, resolver, crypto, pace) for target in self._targets]
        by_cluster: dict[str, list[NodeProbe]] = {}
        for probe in probes:
            by_cluster.setdefault(probe.target.cluster, []).append(probe)
            self._probes[probe.target.cluster, probe.target.node] = probe
        self._readers = {
            name: TableReader(name, members, self._plans.get(name, ViewPlan()), pace)
            for name, members in by_cluster.items()
        }
        watchers = [asyncio.create_task(self._watch(probe)) for probe in probes]
        watchers += [
            asyncio.create_task(self._watch_cluster(reader))
            for name, reader in self._readers.items()
            if name in self._plans
        ]
        watchers += [
            asyncio.create_task(self._watch_backups(BackupReader(name, by_cluster[name]), plan))
            for name, plan in self._plans.items()
            if plan.backups and name in by_cluster
        ]
        for name, plan in self._canaries.items():
            members = by_cluster.get(name, [])
            canaries = Canaries(name, members, plan, pace, self._deliver)
            watchers += [
                asyncio.create_task(canaries.watch(probe, self._stopped)) for probe in members
            ]
        self._ready.set()
        settled = self._loop.call_later(SETTLED_S, _settle)
        await self._stop.wait()
        settled.cancel()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for reader in self._readers.values():
            reader.close()
        for probe in probes:
            probe.close()
        pace.pulse.stop()
        resolver.close()
        crypto.shutdown(wait=False, cancel_futures=True)

    def _stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    async def _watch(self, probe: NodeProbe) -> None:
        """Probe one node at its times, and also at once when its connection ends or a dial is asked for."""
        loop = asyncio.get_running_loop()
        poll_s = probe.target.poll_s
        # Each node begins at a random time within the interval and then keeps its rhythm. So a thousand nodes are not
        # probed in a burst.
        due = loop.time() + random.uniform(0, poll_s)
        suspicion = _Suspicion(probe.target)
        planned = due
        await probe.idle(planned)
        # The loop asks for the stop event, because wait_for of Python 3.11 may swallow a cancellation.
        while not self._stopped():
            began = loop.time()
            seen = await probe.probe()
            late_s = max(0.0, began - planned)  # less than 0: it was woken before its time
            self._deliver(Observed(replace(seen, late_s=late_s)))
            if seen.fault is Fault.DEAD:
                # It may refuse only this master. The other nodes know whether its server is there, so they are asked.
                self._readers[probe.target.cluster].meet(self._deliver)
            if loop.time() >= due:
                due += poll_s * (1 + (loop.time() - due) // poll_s)
            planned = max(began + AGAIN_S, min(due, suspicion.ends(seen, began, loop.time())))
            await probe.idle(planned)
            pause_s = began + AGAIN_S - loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)

    async def _watch_cluster(self, reader: TableReader) -> None:
        await asyncio.sleep(random.uniform(0, reader.plan.every_s))
        loop = asyncio.get_running_loop()
        while not self._stopped():
            due = loop.time() + reader.plan.every_s
            seen = await reader.take(self._deliver)
            if seen is not None:
                self._deliver(Viewed(seen))
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _watch_backups(self, reader: BackupReader, plan: ViewPlan) -> None:
        """Look which backups run. It has a task of its own, so it can hold up no view."""
        await asyncio.sleep(random.uniform(0, plan.every_s))
        while not self._stopped():
            told = await reader.take()
            if told is not None:
                self._deliver(told)
            await asyncio.sleep(plan.every_s)


class _Suspicion:
    """When a fault that a node shows has lasted for ``confirm``, so that it is looked at right then.

    Else the next regular look would come later by up to ``poll``. This is only about when to look: what a look proves is
    decided in the core.
    """

    def __init__(self, target: Target) -> None:
        self._confirm_s = target.confirm_s
        self._witnessed_s = target.dead_witnessed_s
        self._fault: Fault | None = None
        self._since = 0.0

    def ends(self, seen: Observation, began: float, now: float) -> float:
        """The time at which the next look has to begin. Infinity if there is no such time."""
        if seen.ours:
            return math.inf
        if seen.fault is not self._fault:
            self._fault, self._since = seen.fault, now
        if self._fault is None:
            return math.inf
        lasts = [self._confirm_s.get(self._fault, 0.0)]
        if self._fault is Fault.DEAD:
            lasts.append(self._witnessed_s)
        # The next look is supposed to take as long as this one.
        ends = [self._since + lasts_s + LATE_S - (now - began) for lasts_s in lasts]
        return min((one for one in ends if one > now), default=math.inf)


def _settle() -> None:
    """Exclude all objects that exist now from garbage collection.

    Else each full collection walks all that Salt has loaded and every open connection. That takes 0.1 to 0.2 s, in
    which no node is probed. So one full collection is made here, while the healer warms up and may not act anyway.
    """
    gc.collect()
    gc.freeze()
