"""A prober that is watched: all that it delivers is kept, and can be waited for."""

import asyncio
import threading
import time

from saltext_selfheal.healing.events import Observed, Viewed
from saltext_selfheal.probe.loop import Prober


class Watching:
    """A prober over these targets, from ``with`` on, and what it has delivered."""

    def __init__(self, *targets, plans=None, canaries=None):
        self.seen = []  #: (moment, event), as they came
        self.latest = {}  #: node → its latest observation
        self.view = None  #: the latest view
        self._changed = threading.Condition()
        self._loop = None
        self.prober = Prober(targets, self._take, plans, canaries)

    def _take(self, event):
        with self._changed:
            self._loop = asyncio.get_running_loop()  # deliveries are made in the prober's own loop
            self.seen.append((time.monotonic(), event))
            if isinstance(event, Observed):
                self.latest[event.observation.node] = event.observation
            elif isinstance(event, Viewed):
                self.view = event.view
            self._changed.notify_all()

    def __enter__(self):
        self.prober.start()
        return self

    def __exit__(self, *_):
        self.prober.stop()

    @property
    def faults(self):
        """Node → the fault of its latest observation."""
        return {node: one.fault for node, one in self.latest.items()}

    def looks(self, node=None):
        """The observations so far, of this node or of all: (moment, observation)."""
        told = [(at, e.observation) for at, e in self.seen if isinstance(e, Observed)]
        return [(at, one) for at, one in told if node in (None, one.node)]

    def wait(self, wanted, timeout_s=10.0):
        """The first delivery (moment, event) from now on that is wanted."""
        with self._changed:
            start = len(self.seen)
            deadline = time.monotonic() + timeout_s
            while True:
                for at, event in self.seen[start:]:
                    if wanted(event):
                        return at, event
                assert self._changed.wait(
                    max(0.0, deadline - time.monotonic())
                ), "not delivered in time"

    def wait_until(self, holds, timeout_s=60.0):
        """Wait until this holds of what was delivered so far; it may hold already."""
        with self._changed:
            assert self._changed.wait_for(holds, timeout_s), (self.view, self.latest)

    def wait_for_fault(self, node, fault, timeout_s=60.0):
        """The node's latest observation, as soon as it has this fault; it may have it already."""
        with self._changed:
            self.wait_until(
                lambda: node in self.latest and self.latest[node].fault is fault, timeout_s
            )
            return self.latest[node]

    def wait_for_view(self, wanted, timeout_s=60.0):
        """The latest view, as soon as it and the nodes' faults are wanted; they may be already."""
        with self._changed:
            self.wait_until(
                lambda: self.view is not None and wanted(self.view, self.faults), timeout_s
            )
            return self.view

    def in_loop(self, call):
        """Have this called in the prober's own loop, which is known from the first delivery on."""
        self.wait_until(lambda: self._loop is not None, 10.0)
        self._loop.call_soon_threadsafe(call)
