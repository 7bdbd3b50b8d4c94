"""Tells the world: each announcement and answer becomes an event on Salt's bus and a line in the log.

What is told here is clean already, where it came in. But the ledger may remember words that an older release has
stored, so sentences are cleaned again.

An event never proves anything. This is also true of the remediation event: the reactor takes only the JID from it, and
everything else from the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..driver.tags import DECISION, ENGINE, INCIDENT, REMEDIATE
from ..driver.text import all_clean, clean
from ..healing.events import Request
from ..healing.model import Announce, Answer, Attempt, Effect, Fire, Phase, Reply, Tell

log = logging.getLogger(__name__)

WHY_CHARS = 2000  #: a sentence that is logged or fired has at most this many characters


class Out(Protocol):
    """What fires events on the bus. `bus.Bus` is one."""

    def fire(self, tag: str, data: Mapping[str, Any]) -> bool: ...


class Herald:
    """Tells the effects of a transition."""

    def __init__(self, bus: Out) -> None:
        self._bus = bus

    def tell_all(self, effects: Sequence[Effect], now: float) -> None:
        """Tell all effects except the remediation events, which `fire` fires."""
        fired = {e.attempt.id: e.attempt.jid for e in effects if isinstance(e, Fire)}
        for effect in effects:
            if isinstance(effect, Announce):
                self._announce(effect, fired, now)
            elif isinstance(effect, Answer):
                self._answer(effect)
            elif isinstance(effect, Tell):
                self._say(effect, now)

    def engine(self, what: str, data: Mapping[str, Any], now: float) -> None:
        """Fire an event about the engine itself."""
        self._bus.fire(f"{ENGINE}{what}", {**all_clean(data, WHY_CHARS), "at": now})

    def fire(self, attempt: Attempt, now: float) -> None:
        """Fire the remediation event of an attempt. The reactor turns it into a job."""
        self._bus.fire(
            f"{REMEDIATE}{attempt.action.value}",
            {
                "jid": attempt.jid,
                "cluster": attempt.cluster,
                "incident": attempt.incident,
                "attempt": attempt.id,
                "action": attempt.action.value,
                "minions": list(attempt.nodes),
                "at": now,
            },
        )

    def _announce(self, effect: Announce, fired: Mapping[str, str], now: float) -> None:
        incident, why = effect.incident, clean(effect.why, WHY_CHARS)
        fault = clean(incident.called)
        quiet = not effect.held and incident.phase in (Phase.SUSPECTED, Phase.VERIFYING)
        level = logging.INFO if quiet else logging.WARNING
        log.log(
            level, "selfheal: %s (%s on %s) %s: %s",
            incident.id, fault, ", ".join(incident.nodes), effect.said, why,
        )  # fmt: skip
        step_now = (
            incident.steps[incident.step].action.value
            if incident.step < len(incident.steps)
            else None
        )
        self._bus.fire(
            f"{INCIDENT}{incident.cluster}/{effect.said}",
            {
                "incident": incident.id,
                "fault": fault,
                "nodes": list(incident.nodes),
                "phase": effect.said,
                "rule": effect.rule,
                "step": step_now,
                "attempt": effect.attempt,
                "jid": fired.get(effect.attempt or ""),
                "why": why,
                "opened": incident.opened_at,
                "at": now,
            },
        )

    def _answer(self, effect: Answer) -> None:
        asked = effect.request
        if isinstance(asked, Request):
            what = f"request {asked.id} ({asked.action} on {asked.cluster}, by {asked.asker})"
        else:
            whom = asked.incident or asked.cluster or "every cluster"
            what = f"command {asked.id} ({asked.verb.value} {whom}, by {asked.by})"
        level = logging.WARNING if effect.reply is Reply.REFUSED else logging.INFO
        level = logging.DEBUG if effect.repeated else level
        why = clean(effect.why, WHY_CHARS)
        log.log(level, "selfheal: %s %s: %s", clean(what), effect.reply.value, why)
        self._bus.fire(f"{DECISION}{asked.id}", {"request": asked.id})

    def _say(self, effect: Tell, now: float) -> None:
        where = " ".join(word for word in (effect.cluster, effect.node) if word)
        what, why = effect.what.value, clean(effect.why, WHY_CHARS)
        log.warning("selfheal: %s%s: %s", f"{where} " if where else "", what, why)
        self.engine(what, {"cluster": effect.cluster, "node": effect.node, "why": why}, now)
