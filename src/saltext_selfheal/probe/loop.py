"""The loop that keeps looking at every node and every cluster, on a thread of its own.

Everything here runs in one asyncio loop; no Salt call may enter it. How one node is looked at stands in `node`, what
the system tables of a cluster tell in `tables`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from ..config import ClusterSettings
from ..healing.events import Met, Observed, Viewed
from ..healing.model import Fault
from .names import Resolver
from .node import NodeProbe, Target, tls_context
from .pulse import Pace
from .tables import View, ViewPlan

log = logging.getLogger(__name__)

CRYPTO_THREADS = 2
SETTLED_S = 10.0  #: after the start; all connections are open by then
AGAIN_S = 0.05  #: at least this between two looks at one node, however often it hangs up
SWITCH_S = 0.0005  #: how long one thread may keep the interpreter while another wants it


def targets(clusters: Mapping[str, ClusterSettings]) -> list[Target]:
    """Every node of the settings. Raises OSError or ssl.SSLError for CA certificates that cannot be read."""
    found = []
    for name, cluster in clusters.items():
        tls = tls_context(cluster.tls.ca_certs) if cluster.tls else None
        for node, address in cluster.nodes.items():
            found.append(
                Target(
                    cluster=name,
                    node=node,
                    address=address,
                    user=cluster.user,
                    password=cluster.password.get_secret_value(),
                    tls=tls,
                    poll_s=cluster.poll,
                    timeout_s=cluster.timeout,
                    redial_s=cluster.redial,
                )
            )
    return found


class Prober:
    """Keeps looking at every node and every cluster, in a loop on a thread of its own.

    ``deliver`` is called on that thread with each Observed, Met and Viewed and must not block. ``plans`` holds the
    clusters whose system tables are looked at, too.
    """

    def __init__(
        self,
        nodes: Iterable[Target],
        deliver: Callable[[Observed | Met | Viewed], None],
        plans: Mapping[str, ViewPlan] | None = None,
    ) -> None:
        self._targets = list(nodes)
        self._deliver = deliver
        self._plans = dict(plans or {})
        self._looks: dict[tuple[str, str], NodeProbe] = {}
        self._views: dict[str, View] = {}
        self._thread = threading.Thread(target=self._run, name="selfheal-probe", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        # The probes share the interpreter with the healer's loop. By Python's default each of their wake-ups may
        # have to wait 5 ms for it, ten times what a probe takes.
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """For tests and benchmarks: the engine's own end is its process's."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def dial(self, cluster: str, nodes: Iterable[str]) -> None:
        """Have these nodes dialled afresh at once, from any thread. Nodes that are not watched are passed over."""
        asked = tuple(nodes)

        def ask() -> None:
            for node in asked:
                look = self._looks.get((cluster, node))
                if look is not None:
                    look.ask_dial()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
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
        looks = [NodeProbe(target, resolver, crypto, pace) for target in self._targets]
        by_cluster: dict[str, list[NodeProbe]] = {}
        for look in looks:
            by_cluster.setdefault(look.target.cluster, []).append(look)
            self._looks[look.target.cluster, look.target.node] = look
        self._views = {
            name: View(name, members, self._plans.get(name, ViewPlan()), pace)
            for name, members in by_cluster.items()
        }
        watchers = [asyncio.create_task(self._watch(look)) for look in looks]
        watchers += [
            asyncio.create_task(self._watch_cluster(view))
            for name, view in self._views.items()
            if name in self._plans
        ]
        self._ready.set()
        settled = self._loop.call_later(SETTLED_S, _settle)
        await self._stop.wait()
        settled.cancel()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for view in self._views.values():
            view.close()
        for look in looks:
            look.close()
        pace.pulse.stop()
        resolver.close()
        crypto.shutdown(wait=False, cancel_futures=True)

    def _stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    async def _watch(self, look: NodeProbe) -> None:
        loop = asyncio.get_running_loop()
        poll_s = look.target.poll_s
        # Spread over the interval and then kept to it, so that a thousand nodes are no burst.
        due = loop.time() + random.uniform(0, poll_s)
        await look.idle(due)
        # Python 3.11's wait_for may swallow a cancellation.
        while not self._stopped():
            began = loop.time()
            seen = await look.probe()
            self._deliver(Observed(seen))
            if seen.fault is Fault.DEAD:
                # It may refuse nobody but us: the others know whether it is there.
                self._views[look.target.cluster].meet(self._deliver)
            if loop.time() >= due:
                due += poll_s * (1 + (loop.time() - due) // poll_s)
            await look.idle(due)
            pause_s = began + AGAIN_S - loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)

    async def _watch_cluster(self, view: View) -> None:
        await asyncio.sleep(random.uniform(0, view.plan.every_s))
        loop = asyncio.get_running_loop()
        while not self._stopped():
            due = loop.time() + view.plan.every_s
            seen = await view.take(self._deliver)
            if seen is not None:
                self._deliver(Viewed(seen))
            await asyncio.sleep(max(0.0, due - loop.time()))


def _settle() -> None:
    """Take what the process holds by now out of garbage collection.

    A full collection walks all that Salt has loaded and every open connection: 0.1 to 0.2 s in which nobody is
    probed. Once, while the healer warms up and may not act anyway.
    """
    gc.collect()
    gc.freeze()
