"""Decide, and write down what was decided: both or neither.

The state lives here. An event that cannot be handled is separated from the others that came with it, so that these are
not lost: a batch that fails is taken one by one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from ..config import EngineSettings
from ..healing import remedies
from ..healing.events import Command, Commanded, Event, Request, Requested
from ..healing.later import later
from ..healing.model import Answer, Attempt, ClusterState, Effect, News, Reply, State, Tell
from ..healing.start import begin, forgotten, remains
from ..healing.step import step
from ..ledger.file import Unavailable, ValueRefused
from ..ledger.timeline import Timeline
from . import jids
from .backlog import READING, WRITING

log = logging.getLogger(__name__)


class Book(Protocol):
    """What the loop needs of the ledger. All methods but ``give_again`` may raise Unavailable."""

    lost: str | None
    jump_s: float
    timeline: Timeline

    def clusters(self) -> dict[str, ClusterState]: ...

    def commit(
        self, now: float, changed: Iterable[ClusterState], effects: Iterable[Effect]
    ) -> None: ...

    def waiting(self, most: int) -> list[Request | Command]: ...

    def answered(self, asked: str) -> bool: ...

    def give_again(self) -> None: ...

    def beat(self) -> None: ...

    def prune(self, now: float, keep_s: float | None) -> int: ...


def jumped(jump_s: float) -> str:
    """What is told if the timeline has gone on by so much more than the machine was off."""
    return (
        f"the master's clock is {jump_s / 3600:.1f} h further than the time that has passed: it was set while the engine ran, "
        "or the machine was held up. All that is remembered is taken for so much later: rests, budgets, pauses, jobs"
    )


class Decider:
    """Feeds `step` and records what it says.

    ``carry_out`` gets the effects of each recorded transition and its time. ``fail`` is told what cannot be done (reading
    or writing), why, and when that was tried.
    """

    def __init__(
        self,
        settings: EngineSettings,
        ledger: Book,
        mint: Callable[[], str],
        carry_out: Callable[[Sequence[Effect], float], None],
        fail: Callable[[str, Exception, float], None],
        works: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._mint = mint
        self._carry_out = carry_out
        self._fail = fail
        self._works = works
        self._now = ledger.timeline.now
        self.state: State

    def begin(self) -> tuple[Sequence[Effect], float]:
        """Make the first state and record it. Returns what is to be carried out. Raises Unavailable."""
        now = self._now()
        policies, bounds = self._settings.policies(), self._settings.bounds()
        lost, jump_s = self._ledger.lost, self._ledger.jump_s
        told: list[Effect] = []
        if lost:
            remembered = forgotten(policies, now, bounds)
            told.append(Tell(News.LEDGER_LOST, "", "", lost))
        else:
            remembered = self._ledger.clusters()
            if jump_s:
                remembered = {name: later(one, jump_s) for name, one in remembered.items()}
                told.append(Tell(News.CLOCK_JUMPED, "", "", jumped(jump_s)))
        state, begun = begin(policies, bounds, remembered, now)
        state, effects = jids.give(state, begun, self._complete)
        # Of clusters that the settings do not name any more only the remains are kept.
        gone = [remains(c, policies, now) for n, c in remembered.items() if n not in policies]
        self._ledger.commit(now, [*state.clusters.values(), *gone], [*told, *effects])
        self.state = state
        return effects, now

    def take(self, events: Sequence[Event]) -> Sequence[Event]:
        """Decide, write down, carry out. Returns the events that could not be recorded.

        All events are recorded in one transaction, so either all of them have happened or none.
        """
        now, began = self._now(), time.monotonic()
        state = before = self.state
        effects: list[Effect] = []
        ids: set[str] = set()
        doing = READING
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
                doing = WRITING
                self._ledger.commit(now, changed, effects)
                self._works(WRITING)
        except Exception as exc:
            return self._separate(events, exc, doing, began)
        self.state = state
        self._carry_out(effects, now)
        return []

    def _separate(
        self, events: Sequence[Event], exc: Exception, doing: str, began: float
    ) -> Sequence[Event]:
        """After a failure: find the event that is to blame, and take the others. Returns what must wait."""
        asked_for = all(isinstance(event, (Requested, Commanded)) for event in events)
        # If the ledger refuses a value that an asker has sent, the ledger is in order. Trying again would fail for
        # ever and hold up all other requests.
        of_theirs = isinstance(exc, ValueRefused) and asked_for
        if isinstance(exc, Unavailable) and not of_theirs:
            # What cannot be recorded is not done, and the state stays as it was.
            self._fail(doing, exc, began)
            return events
        if len(events) > 1:
            return [left for event in events for left in self.take([event])]
        (event,) = events
        if not isinstance(event, (Requested, Commanded)):
            raise exc
        asked = event.request if isinstance(event, Requested) else event.command
        return [] if self._give_up(asked, exc) else events

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
            self._fail(WRITING, failed, began)
            return False
        return True

    def _complete(self, attempt: Attempt) -> Attempt:
        """The attempt with its JID and its job's arguments."""
        cluster, row = self._settings.clusters[attempt.cluster], remedies.TABLE[attempt.action]
        args: tuple[str | int, ...] = (cluster.service,) if row.takes_service else ()
        if row.takes_port:
            args = (*args, cluster.nodes[attempt.about or attempt.nodes[0]].port)
        if row.stops:
            # A minion that gets the job late must not end what serves again. Its clock may differ, but hardly so much.
            not_after = int(time.time() + cluster.attempt.timeout)
            args = (*args, f"stop_timeout={cluster.attempt.stop_s:g}", f"not_after={not_after}")
        if row.by_observers and cluster.observers:
            # No login: what is in a job's arguments is in the job cache, and on the bus. A refused login is an answer.
            args = (str(cluster.nodes[attempt.about]), f"timeout={cluster.observers.timeout:g}")
        return replace(attempt, jid=self._mint(), args=args)
