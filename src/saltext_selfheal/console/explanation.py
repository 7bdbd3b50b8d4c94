"""Why something is being done or not: the core's answer, as typed data in the order in which people read it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import EngineSettings
from ..healing.events import Seconds, asking
from ..healing.explain import explain
from ..healing.start import begin
from ..healing.step import step
from ..ledger import inbox, records, timeline
from .times import clock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gate:
    """What one gate says, with its numbers."""

    name: str
    open: bool
    why: str
    opens_at: Seconds | None = None  #: None: it is open, or the passing of time does not open it

    def told(self) -> str:
        """``open: why`` or ``shut: why``, and when it opens if that is known."""
        until = f"; opens {clock(self.opens_at)}" if self.opens_at else ""
        return f"{'open' if self.open else 'shut'}: {self.why}{until}"


@dataclass(frozen=True)
class Entry:
    """One incident, and what keeps it from being healed. Or the same for a node that is only supposed to be dead."""

    incident: str | None  #: None: there is no incident, and the node's death is only supposed
    fault: str | None
    phase: str | None
    why: str
    step: str | None  #: the action to come
    on: tuple[str, ...]  #: the nodes that the action would go to
    gates: tuple[Gate, ...]  #: empty if nothing is to be decided now

    @property
    def shut(self) -> list[str]:
        """The names of the gates that are shut."""
        return [gate.name for gate in self.gates if not gate.open]

    def told(self) -> dict[str, Any]:
        return {
            "incident": self.incident,
            "fault": self.fault,
            "phase": self.phase,
            "why": self.why,
            "step": self.step,
            "on": list(self.on),
            "shut": self.shut,
            "gates": {gate.name: gate.told() for gate in self.gates},
        }


@dataclass(frozen=True)
class Explanation:
    """What keeps one cluster from being healed, for each incident."""

    engine: str  #: ``running``, or why it did not answer itself
    entries: tuple[Entry, ...]

    def told(self) -> dict[str, Any]:
        return {"engine": self.engine, "entries": [entry.told() for entry in self.entries]}


def of_engine(told: Iterable[Mapping[str, Any]]) -> Explanation:
    """The explanation that a running engine has given."""
    return Explanation("running", tuple(map(_entry, told)))


def at_start(
    settings: EngineSettings, path: Path, cluster: str, nodes: tuple[str, ...], engine: str
) -> Explanation:
    """What the engine would explain if it started now. ``engine`` says why no running engine has answered.

    Raises LedgerError.
    """
    with records.read(path) as db:
        remembered, now = records.states(db), timeline.now(db)
        waiting = inbox.unanswered(db)
    state, _ = begin(settings.policies(), settings.bounds(), remembered, now)
    for asked in waiting:  # the engine takes what waits in the inbox before its first decision
        try:
            state, _ = step(state, asking(asked), now)
        except Exception as exc:  # none of our doors has put this there; the engine refuses it, too
            log.warning("selfheal: %.100r cannot be handled: %s", asked.id, type(exc).__name__)
    return Explanation(engine, tuple(map(_entry, explain(state, cluster, nodes, now))))


def _entry(found: Mapping[str, Any]) -> Entry:
    """An entry as typed data, from the core or from an answer in the ledger."""
    gates = tuple(
        Gate(gate["gate"], gate["open"], gate["why"], gate["opens_at"]) for gate in found["gates"]
    )
    return Entry(
        incident=found["incident"],
        fault=found["fault"],
        phase=found["phase"],
        why=found["why"],
        step=found["step"],
        on=tuple(found["on"]),
        gates=gates,
    )
