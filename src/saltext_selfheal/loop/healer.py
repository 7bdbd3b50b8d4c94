"""The healer's loop: take an event from the queue, call `step`, write to the ledger, carry out the effects.

Clock, prober, bus, job reader and ledger are passed in, and nothing here knows how they work. The order is essential:
what a step has decided is written to the ledger before any of it is done. So a process that ends at any moment knows at
its next start what it had meant to do. Nothing may depend on an orderly end, because Salt ends an engine by
``os._exit``.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from ..config import EngineSettings
from ..driver.text import failure
from ..healing.events import Event, Foreign, Requested, Started, Tick, asking
from ..healing.looks import owed
from ..healing.model import ClusterState, Dial, Effect, Fire, Phase, State
from ..ledger import pruning
from ..ledger.file import Unavailable
from .backlog import AT_ONCE, READING, WRITING, Backlog
from .decide import Book, Decider, jumped
from .herald import Herald, Out
from .jobs import Watched

log = logging.getLogger(__name__)

TICK_S = 0.1
HEARTBEAT_S = 30.0
PRUNE_S = 3600.0


class Jobs(Protocol):
    """What the loop needs of the job reader, which reads the job cache."""

    def watch(self, watched: tuple[Watched, ...]) -> None: ...

    def check(self) -> str | None: ...


class Eyes(Protocol):
    """What the loop needs of the prober, which looks at the nodes."""

    def dial(self, cluster: str, nodes: Iterable[str]) -> None: ...


class Minions(Protocol):
    """What the loop needs of the minion reader, which looks whether the nodes' minions are there."""

    def watch(self, clusters: Collection[str]) -> None: ...

    def check(self) -> str | None: ...


class Healer:
    """The loop. ``deliver`` may be called from any thread, all else from one thread."""

    def __init__(
        self,
        *,
        settings: EngineSettings,
        ledger: Book,
        bus: Out,
        mint: Callable[[], str],
    ) -> None:
        self._keep_s = settings.ledger.keep
        self._ledger = ledger
        self._herald = Herald(bus)
        self._jobs: Jobs | None = None
        self._eyes: Eyes | None = None
        self._minions: Minions | None = None
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._last_beat = 0.0
        self._next_prune = 0.0
        self._now = ledger.timeline.now
        self._backlog = Backlog(self._now)
        self._decider = Decider(
            settings, ledger, mint, self._carry_out, self._fail, self._backlog.works
        )
        self._begin()

    @property
    def state(self) -> State:
        """As of the last transition that is on record."""
        return self._decider.state

    @property
    def kept(self) -> tuple[Event, ...]:
        """The events that wait to be recorded, in the order in which they came."""
        return self._backlog.kept

    # ------------------------------------------------------------ in

    def deliver(self, event: Event) -> None:
        """Hand an event over, from any thread."""
        self._queue.put(event)

    def attach(self, jobs: Jobs, eyes: Eyes | None = None, minions: Minions | None = None) -> None:
        """Connect the job reader, the prober that can be asked to dial a node at once, and the minion reader.

        The reader begins at once with the jobs that were in flight when the last engine ended.
        """
        self._jobs = jobs
        self._eyes = eyes
        self._minions = minions
        self._watch()

    # ------------------------------------------------------------ the loop

    def run(self, jobs: Jobs, eyes: Eyes | None = None, minions: Minions | None = None) -> NoReturn:
        """The loop. It never returns and never raises."""
        self.attach(jobs, eyes, minions)
        self._tell("started", {"clusters": sorted(self.state.clusters)})
        next_tick = time.monotonic()
        while True:
            try:
                self.turn(max(0.0, next_tick - time.monotonic()))
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_S
                    self.tick()
            except Exception as exc:
                log.critical("selfheal: the healer's loop failed, going on: %s", failure(exc))
                time.sleep(1)

    def turn(self, wait_s: float) -> None:
        """Take one event from the queue. Requests that wait are taken together, because each transaction is slow.

        So are news of other people's jobs. A storm of either costs one transaction for many of them.
        """
        batch: list[Event] = []
        try:
            batch.append(self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait())
            while isinstance(batch[-1], (Requested, Foreign)) and len(batch) < AT_ONCE:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        if batch:
            self.handle(*batch)

    def handle(self, *events: Event) -> None:
        """Take these events. If they cannot be taken now, those that come only once are kept for the next tick."""
        self._backlog.keep(self._decider.take(events) if self._ready() else events)

    def tick(self) -> None:
        """Time has passed: read the inbox, take the kept events, let conditions come true, give a sign of life."""
        # If one part fails, the next ones are left out: they would fail as well, or would be taken in the wrong order.
        if self._ready() and self._drain_inbox() and self._take_kept():
            self._decider.take([Tick()])
        if not self._backlog.left_alone:
            self._backlog.tick()
        for reader in (self._jobs, self._minions):
            complaint = reader.check() if reader else None
            if complaint:
                log.error("selfheal: %s", complaint)
        if time.monotonic() - self._last_beat >= HEARTBEAT_S:
            self._last_beat = time.monotonic()
            self._beat()
            open_incidents = [i.id for c in self.state.clusters.values() for i in c.incidents]
            self._tell("heartbeat", {"incidents": open_incidents})
            self._prune()

    def _beat(self) -> None:
        """Write a sign of life to the ledger. This also finds out whether the ledger can be written again."""
        if self._backlog.left_alone:
            return
        began = time.monotonic()
        try:
            self._ledger.beat()
            self._backlog.works(WRITING)
        except Unavailable as exc:
            self._fail(WRITING, exc, began)

    def _prune(self) -> None:
        """Forget what is too old, a small part at a time, so that no event has to wait for it."""
        began = time.monotonic()
        if began < self._next_prune or self._backlog.left_alone:
            return
        try:
            removed = self._ledger.prune(self._now(), self._keep_s)
        except Unavailable as exc:
            self._fail(WRITING, exc, began)
            return
        if removed < pruning.AT_ONCE:
            self._next_prune = time.monotonic() + PRUNE_S

    def _fail(self, what: str, exc: Exception, began: float) -> None:
        """Tell once what cannot be done. While the failure lasts, no event is taken before the inbox was read."""
        self._ledger.give_again()
        if self._backlog.failed(what, exc, began):
            self._tell("ledger_failed", {"why": f"{what}: {exc}"})

    # ------------------------------------------------------------ what waits

    def _begin(self) -> None:
        """Record the first state and carry it out, and take what waits in the inbox. Raises Unavailable."""
        lost, jump_s = self._ledger.lost, self._ledger.jump_s
        effects, now = self._decider.begin()
        # This is told only now. If the commit fails, the engine begins again every second, and must not tell each time.
        if lost:
            log.critical(
                "selfheal: the ledger was lost, pauses and locks with it, give them again: %s", lost
            )
            self._tell("ledger_lost", {"why": lost})
        elif jump_s:
            log.critical("selfheal: %s", jumped(jump_s))
            self._tell("clock_jumped", {"why": jumped(jump_s)})
        self._carry_out(effects, now)
        # A pause or a request that was given while the engine was down is taken before the first decision. An earlier
        # try to begin may have read the inbox and failed then, so it must be read again.
        self._ledger.give_again()
        self._take_waiting()

    def _ready(self) -> bool:
        """Whether an event can be taken now. If something must be done before it, it is done here.

        If something fails, or after a gap, the inbox is read first: it may hold a pause that was not taken yet.
        """
        self._backlog.look_at_the_time()
        if self._backlog.left_alone:
            return False
        return not self._backlog.troubled or self._drain_inbox()

    def _drain_inbox(self) -> bool:
        """Take all that waits in the inbox. False if it could not be read or not be recorded."""
        began = time.monotonic()
        try:
            return self._take_waiting()
        except Unavailable as exc:
            self._fail(READING, exc, began)
            return False

    def _take_waiting(self) -> bool:
        """Take all that waits in the inbox, this many rows per transaction. False if one could not be recorded.

        What could not be recorded stays in the inbox. Raises Unavailable if the inbox cannot be read.
        """
        more = True
        while more:
            # A request that waits for a fresh dial has no answer yet, so it is still in the inbox. It was taken
            # already.
            pending = {p.request.id for c in self.state.clusters.values() for p in c.pending}
            found = self._ledger.waiting(AT_ONCE + len(pending))
            waiting = [asked for asked in found if asked.id not in pending][:AT_ONCE]
            if self._backlog.gap and not self._start_anew():
                return False
            if waiting and self._decider.take([asking(asked) for asked in waiting]):
                return False
            more = bool(waiting)
        self._backlog.works(READING)
        return True

    def _start_anew(self) -> bool:
        """After a gap, forget the nodes' health as after a start. False if that could not be recorded.

        A gap is a suspended machine, a loop that was held up, or a time in which nothing could be recorded. No event
        may be taken before this: it would be decided by old facts.
        """
        if self._decider.take([Started()]):
            return False
        self._backlog.start_anew()
        return True

    def _take_kept(self) -> bool:
        """Take the kept events in the order in which they came. False if one could not be recorded."""
        while batch := self._backlog.next_batch():
            left = self._decider.take(batch)
            self._backlog.put_back(left)
            if left:
                return False
        return True

    # ------------------------------------------------------------ out

    def _carry_out(self, effects: Sequence[Effect], now: float) -> None:
        """Carry out the effects of a transition that is recorded."""
        for effect in effects:  # healing comes first, telling comes last
            if isinstance(effect, Fire):
                self._herald.fire(effect.attempt, now)
            elif isinstance(effect, Dial) and self._eyes is not None:
                self._eyes.dial(effect.cluster, effect.nodes)
        self._watch()
        self._herald.tell_all(effects, now)

    def _watch(self) -> None:
        """Tell the job reader which jobs are in flight or still owe a result, the minion reader where to look often."""
        if self._minions is not None:
            self._minions.watch(tuple(n for n, c in self.state.clusters.items() if _to_heal(c)))
        if self._jobs is None:
            return
        in_flight = [
            one
            for c in self.state.clusters.values()
            for one in (
                c.attempt,
                c.look,
                *c.questions,
                *(late.attempt for late in c.late if owed(late.attempt)),
            )
            if one
        ]
        self._jobs.watch(
            tuple(
                Watched(one.id, one.jid, one.action, one.nodes, one.of_jid or None, one.args)
                for one in in_flight
            )
        )

    def _tell(self, what: str, data: Mapping[str, Any]) -> None:
        self._herald.engine(what, data, self._now())


def _to_heal(cluster: ClusterState) -> bool:
    """Something is to be done in this cluster, or is being done, or may soon have to be."""
    return any(i.phase is not Phase.LOCKED and not i.only_told for i in cluster.incidents)
