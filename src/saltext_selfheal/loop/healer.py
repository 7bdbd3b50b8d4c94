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
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from ..config import EngineSettings
from ..healing import remedies
from ..healing.events import (
    Command,
    Commanded,
    Event,
    Published,
    Request,
    Requested,
    Returned,
    Started,
    Tick,
    asking,
)
from ..healing.looks import owed
from ..healing.model import (
    Answer,
    Attempt,
    ClusterState,
    Dial,
    Effect,
    Fire,
    News,
    Reply,
    State,
    Tell,
)
from ..healing.start import begin, forgotten, remains
from ..healing.step import step
from ..ledger import pruning
from ..ledger.file import Unavailable, ValueRefused
from ..ledger.timeline import Timeline
from . import jids
from .herald import Herald, Out
from .jobs import Watched

log = logging.getLogger(__name__)

TICK_S = 0.1
HEARTBEAT_S = 30.0
GAP_S = 10.0  #: if no tick was taken for this long, what is believed of the nodes counts as old
PRUNE_S = 3600.0
AT_ONCE = 200  #: at most this many requests are taken in one transaction
#: At most this many requests are kept in memory while nothing can be recorded.
KEPT_REQUESTS = 10_000
WAITED_S = 1.0  #: a failure that took this long has waited for somebody else's lock

_READING = "the inbox cannot be read"
_WRITING = "the ledger cannot be written"


class Book(Protocol):
    """What the loop needs of the ledger. All methods but ``look_again`` may raise Unavailable."""

    lost: str | None
    timeline: Timeline

    def clusters(self) -> dict[str, ClusterState]: ...

    def commit(
        self, now: float, changed: Iterable[ClusterState], effects: Iterable[Effect]
    ) -> None: ...

    def waiting(self, most: int) -> list[Request | Command]: ...

    def answered(self, asked: str) -> bool: ...

    def look_again(self) -> None: ...

    def beat(self) -> None: ...

    def prune(self, now: float, keep_s: float | None) -> int: ...


class Jobs(Protocol):
    """What the loop needs of the job reader, which reads the job cache."""

    def watch(self, watched: tuple[Watched, ...]) -> None: ...

    def check(self) -> str | None: ...


class Eyes(Protocol):
    """What the loop needs of the prober, which looks at the nodes."""

    def dial(self, cluster: str, nodes: Iterable[str]) -> None: ...


class Healer:
    """Feeds `step` and carries out its effects. ``deliver`` may be called from any thread, all else from one thread."""

    def __init__(
        self,
        *,
        settings: EngineSettings,
        ledger: Book,
        bus: Out,
        mint: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._herald = Herald(bus)
        self._jobs: Jobs | None = None
        self._eyes: Eyes | None = None
        self._mint = mint
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._failing: dict[str, float] = {}  # what fails at present, and since when
        # The ledger is not touched before this, because somebody else holds its lock.
        self._patient_until = 0.0
        self._last_beat = 0.0
        self._next_prune = 0.0
        self._kept: deque[Event] = deque()
        self._now = ledger.timeline.now
        self._ticked = self._now()
        # What is believed is old, and must be forgotten before the next event is taken.
        self._gap = False
        self.state: State = self._begin()

    # ------------------------------------------------------------ in

    def deliver(self, event: Event) -> None:
        """Hand an event over, from any thread."""
        self._queue.put(event)

    def attach(self, jobs: Jobs, eyes: Eyes | None = None) -> None:
        """Connect the job reader, and the prober that can be asked to dial a node at once.

        The reader begins at once with the jobs that were in flight when the last engine ended.
        """
        self._jobs = jobs
        self._eyes = eyes
        self._watch()

    # ------------------------------------------------------------ the loop

    def run(self, jobs: Jobs, eyes: Eyes | None = None) -> NoReturn:
        """The loop. It never returns and never raises."""
        self.attach(jobs, eyes)
        self._tell("started", {"clusters": sorted(self.state.clusters)})
        next_tick = time.monotonic()
        while True:
            try:
                self.turn(max(0.0, next_tick - time.monotonic()))
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_S
                    self.tick()
            except Exception:
                log.critical("selfheal: the healer's loop failed, going on", exc_info=True)
                time.sleep(1)

    def turn(self, wait_s: float) -> None:
        """Take one event from the queue. Waiting requests are taken together, because each transaction is slow.

        So a storm of requests costs one transaction for many of them.
        """
        batch: list[Event] = []
        try:
            batch.append(self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait())
            while isinstance(batch[-1], Requested) and len(batch) < AT_ONCE:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        if batch:
            self.handle(*batch)

    def tick(self) -> None:
        """Time has passed: read the inbox, take the kept events, let conditions come true, give a sign of life."""
        # If one part fails, the next ones are left out: they would fail as well, or would be taken in the wrong order.
        if self._ready() and self._drain_inbox() and self._take_kept():
            self._take([Tick()])
        if time.monotonic() >= self._patient_until:
            self._ticked = self._now()
        complaint = self._jobs.check() if self._jobs else None
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
        began = time.monotonic()
        if began < self._patient_until:
            return
        try:
            self._ledger.beat()
            self._failing.pop(_WRITING, None)
        except Unavailable as exc:
            self._fail(_WRITING, exc, began)

    def _prune(self) -> None:
        """Forget what is too old, a small part at a time, so that no event has to wait for it."""
        began = time.monotonic()
        if began < max(self._next_prune, self._patient_until):
            return
        try:
            removed = self._ledger.prune(self._now(), self._settings.ledger.keep)
        except Unavailable as exc:
            self._fail(_WRITING, exc, began)
            return
        if removed < pruning.AT_ONCE:
            self._next_prune = time.monotonic() + PRUNE_S

    def _ready(self) -> bool:
        """Whether an event can be taken now. If something must be done before it, it is done here.

        If something fails, or after a gap, the inbox is read first: it may hold a pause that was not taken yet.
        """
        if self._now() - self._ticked > GAP_S:
            self._gap = True
        if time.monotonic() < self._patient_until:
            return False
        return not (self._failing or self._gap) or self._drain_inbox()

    def _drain_inbox(self) -> bool:
        """Take all that waits in the inbox. False if it could not be read or not be recorded."""
        began = time.monotonic()
        try:
            return self._take_waiting()
        except Unavailable as exc:
            self._fail(_READING, exc, began)
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
            if self._gap and not self._start_anew():
                return False
            if waiting and self._take([asking(asked) for asked in waiting]):
                return False
            more = bool(waiting)
        self._failing.pop(_READING, None)
        return True

    def _start_anew(self) -> bool:
        """After a gap, forget the nodes' health as after a start. False if that could not be recorded.

        A gap is a suspended machine, a loop that was held up, or a time in which nothing could be recorded. No event
        may be taken before this: it would be decided by old facts.
        """
        if self._take([Started()]):
            return False
        self._gap, self._ticked = False, self._now()
        return True

    def _take_kept(self) -> bool:
        """Take the kept events in the order in which they came. False if one could not be recorded."""
        while self._kept:
            batch = [self._kept.popleft()]
            while self._kept and isinstance(batch[-1], Requested) and len(batch) < AT_ONCE:
                batch.append(self._kept.popleft())
            left = self._take(batch)
            self._kept.extendleft(reversed(left))
            if left:
                return False
        return True

    def _keep(self, events: Iterable[Event]) -> None:
        """Keep those of these events that come only once. The others come again with the next probe or tick.

        News of jobs are few, so all are kept. Requests may come as a flood, so only so many of them are kept.
        """
        for event in events:
            if isinstance(event, (Published, Returned)) or (
                isinstance(event, Requested) and len(self._kept) < KEPT_REQUESTS
            ):
                self._kept.append(event)

    @property
    def kept(self) -> tuple[Event, ...]:
        """The events that wait to be recorded, in the order in which they came."""
        return tuple(self._kept)

    # ------------------------------------------------------------ one event

    def _begin(self) -> State:
        """The first state. It is recorded and carried out, and what waits in the inbox is taken."""
        now = self._now()
        policies = self._settings.policies()
        lost = self._ledger.lost
        if lost:
            remembered = forgotten(policies, now, self._settings.bounds())
        else:
            remembered = self._ledger.clusters()
        state, begun = begin(policies, self._settings.bounds(), remembered, now)
        state, effects = jids.give(state, begun, self._complete)
        # Of clusters that the settings do not name any more only the remains are kept.
        gone = [remains(c, policies, now) for n, c in remembered.items() if n not in policies]
        told = [Tell(News.LEDGER_LOST, "", "", lost)] if lost else []
        self._ledger.commit(now, [*state.clusters.values(), *gone], [*told, *effects])
        self.state = state
        # This is told only now. If the commit fails, the engine begins again every second, and must not tell each time.
        if lost:
            log.critical(
                "selfheal: the ledger was lost, pauses and locks with it, give them again: %s", lost
            )
            self._tell("ledger_lost", {"why": lost})
        self._carry_out(effects, now)
        # A pause or a request that was given while the engine was down is taken before the first decision. An earlier
        # try to begin may have read the inbox and failed then, so it must be read again.
        self._ledger.look_again()
        self._take_waiting()
        return self.state

    def handle(self, *events: Event) -> None:
        """Take these events. If they cannot be taken now, those that come only once are kept for the next tick."""
        self._keep(self._take(events) if self._ready() else events)

    def _take(self, events: Sequence[Event]) -> Sequence[Event]:
        """Decide, write down, carry out. Returns the events that could not be recorded.

        All events are recorded in one transaction, so either all of them have happened or none.
        """
        now, began = self._now(), time.monotonic()
        state = before = self.state
        effects: list[Effect] = []
        ids: set[str] = set()
        doing = _READING
        try:
            for event in events:
                if isinstance(event, (Requested, Commanded)):
                    asked = event.request if isinstance(event, Requested) else event.command
                    if asked.id in ids or self._ledger.answered(asked.id):
                        continue  # the same id was asked before and has its answer
                    ids.add(asked.id)
                state, more = step(state, event, now)
                effects += more
            state, effects = jids.give(state, effects, self._complete)
            changed = [
                c
                for name, c in state.clusters.items()
                # Most clusters are still the same object, so they need not be compared field by field.
                if c is not (old := before.clusters.get(name)) and c != old
            ]
            if changed or effects:
                doing = _WRITING
                self._ledger.commit(now, changed, effects)
                self._failing.pop(_WRITING, None)
        except Exception as exc:
            asked_for = all(isinstance(event, (Requested, Commanded)) for event in events)
            # If the ledger refuses a value that an asker has sent, the ledger is in order. Trying again would fail for
            # ever and hold up all other requests.
            of_theirs = isinstance(exc, ValueRefused) and asked_for
            if isinstance(exc, Unavailable) and not of_theirs:
                # What cannot be recorded is not done, and the state stays as it was.
                self._fail(doing, exc, began)
                return events
            # One event fails: take them one by one, so that the others are not lost with it.
            if len(events) > 1:
                return [left for event in events for left in self._take([event])]
            if not isinstance(event, (Requested, Commanded)):
                raise
            return [] if self._give_up(asked, exc) else events
        self.state = state
        self._carry_out(effects, now)
        return []

    def _give_up(self, asked: Request | Command, exc: Exception) -> bool:
        """Refuse a request that cannot be handled. Else it would be taken from the inbox again and again.

        Only its id is answered: its nodes and reason are dropped, because they may be what cannot be stored.
        """
        why = "its values cannot be stored" if isinstance(exc, ValueRefused) else type(exc).__name__
        log.error("selfheal: %.100r cannot be handled: %s", asked.id, why)
        bare = replace(asked, nodes=(), reason="")
        answer = Answer(bare, Reply.REFUSED, f"it cannot be handled: {why}")
        began = time.monotonic()
        try:
            self._ledger.commit(self._now(), [], [answer])
        except Unavailable as failed:
            self._fail(_WRITING, failed, began)
            return False
        return True

    def _complete(self, attempt: Attempt) -> Attempt:
        """The attempt with its JID and its job's arguments."""
        service = self._settings.clusters[attempt.cluster].service
        takes = remedies.TABLE[attempt.action].takes_service
        return replace(attempt, jid=self._mint(), args=(service,) if takes else ())

    def _fail(self, what: str, exc: Exception, began: float) -> None:
        """Tell once what cannot be done. While the failure lasts, no event is taken before the inbox was read."""
        self._ledger.look_again()
        took_s = time.monotonic() - began
        if took_s >= WAITED_S:
            # Somebody else may hold the lock for hours. The loop must not spend all that time waiting for it.
            self._patient_until = time.monotonic() + took_s
        now = self._now()
        if what not in self._failing:
            self._failing[what] = now
            log.critical("selfheal: %s, nothing is done until it can: %s", what, exc)
            self._tell("ledger_failed", {"why": f"{what}: {exc}"})
        elif now - self._failing[what] > GAP_S:
            self._gap = True

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
        """Tell the job reader which jobs are in flight or still owe a result."""
        if self._jobs is None:
            return
        in_flight = [
            one
            for c in self.state.clusters.values()
            for one in (c.attempt, c.look, *(late.attempt for late in c.late if owed(late.attempt)))
            if one
        ]
        self._jobs.watch(
            tuple(
                Watched(one.id, one.jid, one.action, one.nodes, one.of_jid or None)
                for one in in_flight
            )
        )

    def _tell(self, what: str, data: Mapping[str, Any]) -> None:
        self._herald.engine(what, data, self._now())
