"""Why something is being done or not: the core's answer, as typed data in the order in which people read it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import EngineSettings
from ..healing.events import asking
from ..healing.explain import explain
from ..healing.explained import Explained, Gate
from ..healing.later import later
from ..healing.start import begin
from ..healing.step import step
from ..ledger import inbox, records, timeline
from .times import clock

log = logging.getLogger(__name__)

RUNNING = "running"  #: an explanation that a running engine has given


def gate_told(gate: Gate) -> str:
    """``open: why`` or ``shut: why``, and when it opens if that is known."""
    until = f"; opens {clock(gate.opens_at)}" if gate.opens_at else ""
    return f"{'open' if gate.open else 'shut'}: {gate.why}{until}"


def entry_told(one: Explained) -> dict[str, Any]:
    """One part of an explanation as data."""
    return {
        "incident": one.incident,
        "fault": one.fault,
        "phase": one.phase.value if one.phase else None,
        "why": one.why,
        "step": one.step.value if one.step else None,
        "on": list(one.on),
        "replicas": "not known" if one.unready is None else one.unready or "all ready",
        "shut": [gate.name for gate in one.gates if not gate.open],
        "gates": {gate.name: gate_told(gate) for gate in one.gates},
    }


@dataclass(frozen=True)
class Explanation:
    """What keeps one cluster from being healed, for each incident."""

    engine: str  #: `RUNNING`, or why it did not answer itself
    entries: tuple[Explained, ...]

    def told(self) -> dict[str, Any]:
        return {"engine": self.engine, "entries": list(map(entry_told, self.entries))}


def of_engine(told: Iterable[Any]) -> Explanation:
    """The explanation that a running engine has given. Raises LedgerError if the engine's release is another one."""
    return Explanation(RUNNING, inbox.read_explained(told))


def at_start(
    settings: EngineSettings, path: Path, cluster: str, nodes: tuple[str, ...], engine: str
) -> Explanation:
    """What the engine would explain if it started now. ``engine`` says why no running engine has answered.

    Raises LedgerError.
    """
    with records.read(path) as db:
        remembered, now = records.states(db), timeline.now(db)
        jump_s = timeline.jump_s(timeline.anchor(db))
        waiting = inbox.unanswered(db)
    remembered = {name: later(one, jump_s) for name, one in remembered.items()}
    state, _ = begin(settings.policies(), settings.bounds(), remembered, now)
    for asked in waiting:  # the engine takes what waits in the inbox before its first decision
        try:
            state, _ = step(state, asking(asked), now)
        except Exception as exc:  # none of our doors has put this there; the engine refuses it, too
            log.warning("selfheal: %.100r cannot be handled: %s", asked.id, type(exc).__name__)
    return Explanation(engine, explain(state, cluster, nodes, now))
