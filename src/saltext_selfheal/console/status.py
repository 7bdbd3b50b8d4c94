"""The status of the engine, of its clusters and of their incidents.

What the ledger says of nodes and incidents is true only while an engine runs and writes. If none does, the status says
so first, marks what was seen with the time at which the engine wrote last, and has ``retcode`` 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from .. import config
from ..healing import canary, gates, presence
from ..healing.events import Seconds
from ..healing.model import (
    Attempt,
    ClusterState,
    Fault,
    Incident,
    Mode,
    NodeState,
    Pause,
    Phase,
    Policy,
    TablesRead,
)
from ..ledger import file as ledger_file
from ..ledger import records, timeline
from ..ledger.file import LedgerError
from .given import known_cluster
from .times import clock

SILENT_AFTER_S: Seconds = 90.0  #: an engine that runs writes every 30 s
LATER = "the engine goes on with what it has read, but after a restart nothing will be healed"
_APPROVAL = gates.name_of(gates.approval)


class Engine(str, Enum):
    """What is known of the engine."""

    RUNNING = "running"
    SILENT = "running, but it writes nothing"
    NOT_RUNNING = "not running"
    NOT_KNOWN = "not known"
    USELESS = "heals nothing: the settings cannot be used"


@dataclass(frozen=True)
class NodeStatus:
    """One node as the healer saw it last."""

    name: str
    since: Seconds | None = None  #: since when the verdict holds; None: it was not probed yet
    fault: Fault | None = None  #: None: it is well
    suspected: bool = False
    flapping: bool = False
    evidence: str = ""
    minion: str = ""  #: why a job would not reach its minion; empty: nothing says so

    def told(self, as_of: str | None = None) -> str:
        """The verdict in words, and whether the minion is gone. ``as_of``: it is what was seen then."""
        gone = f"; {self.minion}" if self.minion else ""
        if self.since is None:
            return f"unknown: not probed yet{gone}"
        then = f"as of {as_of}: " if as_of else ""
        verdict = "well" if self.fault is None else self.fault.value
        doubt = " (suspected)" if self.suspected else ""
        doubt += " (flapping)" if self.flapping else ""
        return f"{then}{verdict}{doubt} since {clock(self.since)}: {self.evidence}{gone}"


@dataclass(frozen=True)
class IncidentStatus:
    """An incident that has not ended."""

    id: str
    fault: str  #: as operators read it
    nodes: tuple[str, ...]
    phase: Phase
    held: tuple[str, ...]  #: the shut gates as last announced
    only_told: bool  #: no step helps against its fault
    step: int  #: the present one, from 1
    steps: int
    attempts: int
    requests: int
    opened_at: Seconds
    why: str
    next_attempt: str  #: the id that its next attempt will have

    @property
    def next(self) -> str | None:
        """What a person can do now. None: nothing."""
        if self.phase is Phase.LOCKED:
            return f"when it is seen to: salt-run selfheal.ack {self.id}"
        if _APPROVAL in self.held:
            one = self.next_attempt
            return f"salt-run selfheal.approve {one}, or salt-run selfheal.reject {one}"
        return None

    def told(self) -> dict[str, Any]:
        return {
            "fault": self.fault,
            "nodes": list(self.nodes),
            "phase": self.phase.value,
            "held": "announce only" if self.only_told else ", ".join(self.held) or None,
            "step": f"{self.step} of {self.steps}",
            "attempts": self.attempts,
            "requests": self.requests,
            "opened": clock(self.opened_at),
            "why": self.why,
            "next": self.next,
        }


@dataclass(frozen=True)
class ClusterStatus:
    """One cluster, as the engine has written it into the ledger last."""

    name: str
    mode: Mode
    tables: str  #: whether the system tables could be read
    nodes: tuple[NodeStatus, ...]
    incidents: tuple[IncidentStatus, ...] = ()
    pause: Pause | None = None  #: a pause that has not ended yet
    in_flight: Attempt | None = None
    canary: str = ""  #: what is wrong with the canary; empty: nothing, or there is none

    @property
    def locked(self) -> tuple[IncidentStatus, ...]:
        """The incidents that lock their nodes."""
        return tuple(i for i in self.incidents if i.phase is Phase.LOCKED)

    def told(self, as_of: str | None = None) -> dict[str, Any]:
        """The status as a dict. ``canary``, ``paused``, ``locked``, ``in flight`` are in it only if there is something.

        ``as_of``: what is told of nodes, tables and incidents is not the present, but what was seen then.
        """
        then = {"as of": as_of} if as_of else {}
        told: dict[str, Any] = {
            **then,
            "mode": self.mode.value,
            "tables": f"as of {as_of}: {self.tables}" if as_of else self.tables,
            "nodes": {node.name: node.told(as_of) for node in self.nodes},
            "incidents": {one.id: {**then, **one.told()} for one in self.incidents},
        }
        if self.canary:
            told["canary"] = f"as of {as_of}: {self.canary}" if as_of else self.canary
        if self.pause:
            everywhere = " (every cluster)" if self.pause.everywhere else ""
            told["paused"] = (
                f"until {clock(self.pause.until)} by {self.pause.by}{everywhere}: {self.pause.why}"
            )
        if self.locked:
            told["locked"] = [f"{', '.join(i.nodes)} by {i.id}: {i.why}" for i in self.locked]
        if self.in_flight:
            told["in flight"] = (
                f"{self.in_flight.id}: {self.in_flight.action.value} on {', '.join(self.in_flight.nodes)}"
            )
        return told


@dataclass(frozen=True)
class Status:
    """The status of the engine and of all clusters, or of the one that was asked for."""

    engine: Engine
    ledger: Path | None = None  #: None: the settings cannot be used, so its place is not known
    seen_at: Seconds | None = None  #: when an engine wrote last; None: never, or it is not known
    clusters: tuple[ClusterStatus, ...] = ()
    errors: tuple[str, ...] = ()
    #: Files that the settings name and that cannot be used now. The engine that runs has read them at its start.
    files: tuple[str, ...] = ()

    @property
    def present(self) -> bool:
        """Whether this is the present status: an engine runs, and its ledger can be read."""
        return self.engine is Engine.RUNNING and not self.errors

    def told(self) -> dict[str, Any]:
        """The status as a dict. ``errors`` is in it only if there are any.

        With errors there is ``retcode`` 1, too. If this is not the present status, there is also ``as of``, in each
        cluster, too, and ``retcode`` 1. Salt prints
        keys by the alphabet (3006 to 3008), so ``as of`` comes first there, and tells of the engine, too.
        """
        told: dict[str, Any] = {"engine": self.engine.value}
        as_of = None if self.present else clock(self.seen_at) or "never"
        if self.ledger is not None:
            if as_of:
                told["as of"] = (
                    f"{as_of}; the engine is {self.engine.value}, so what follows was seen then, or earlier"
                )
            told["ledger"] = str(self.ledger)
            told["clusters"] = {cluster.name: cluster.told(as_of) for cluster in self.clusters}
        errors = [*self.errors, *(f"{one}; {LATER}" for one in self.files)]
        if errors:
            told["errors"] = errors
        return told if self.present and not errors else {**told, "retcode": 1}


def unusable(problems: Iterable[config.Problem]) -> Status:
    """The status of a master whose settings cannot be used because of these problems."""
    return Status(Engine.USELESS, errors=tuple(map(str, problems)))


def read(settings: config.EngineSettings, path: Path, cluster: str | None = None) -> Status:
    """The status of one cluster, or of all. If the ledger cannot be read, the errors say so.

    If a file that the settings name cannot be used and no engine runs, the settings cannot be used: the engine would
    heal nothing.

    Raises BadRequest if there is no such cluster.
    """
    known_cluster(settings, cluster)
    engine = Engine.NOT_KNOWN
    errors: tuple[str, ...] = ()
    states: dict[str, ClusterState] = {}
    seen_at: Seconds | None = None
    try:
        engine = Engine.RUNNING if ledger_file.engine_alive(path) else Engine.NOT_RUNNING
        with records.read(path) as db:
            states = records.states(db)
            now = timeline.now(db)
            silent_s = timeline.sign_of_life_s(db)
        seen_at = None if silent_s is None else now - silent_s
        if engine is Engine.RUNNING and silent_s is not None and silent_s > SILENT_AFTER_S:
            engine = Engine.SILENT
    except LedgerError as exc:
        errors = (str(exc),)
        states, now = {}, time.time()
    files = _unusable_files(settings)
    if files and engine is Engine.NOT_RUNNING:
        return unusable(files)
    clusters = tuple(
        _cluster(policy, states.get(name), now)
        for name, policy in settings.policies().items()
        if cluster is None or name == cluster
    )
    return Status(engine, path, seen_at, clusters, errors, tuple(map(str, files)))


def _unusable_files(settings: config.EngineSettings) -> list[config.Problem]:
    try:
        config.trusted(settings.clusters)
    except config.ConfigError as exc:
        return exc.problems
    return []


def _cluster(policy: Policy, state: ClusterState | None, now: Seconds) -> ClusterStatus:
    if state is None:
        nodes = tuple(map(NodeStatus, policy.nodes))
        return ClusterStatus(policy.name, policy.mode, str(TablesRead()), nodes)
    return ClusterStatus(
        name=policy.name,
        mode=policy.mode,
        tables=str(state.tables),
        nodes=tuple(_node(name, state.nodes.get(name)) for name in policy.nodes),
        incidents=tuple(map(_incident, state.incidents)),
        pause=state.pause if state.pause and now < state.pause.until else None,
        in_flight=state.attempt,
        canary=canary.told(state),
    )


def _node(name: str, node: NodeState | None) -> NodeStatus:
    if node is None:
        return NodeStatus(name)
    # A node that was well before the engine's start, and each time since then, is well since that earlier time.
    since = node.since
    if node.well and node.well_since is not None:
        since = node.well_since
    gone = presence.missing(name, node.minion)
    return NodeStatus(name, since, node.fault, node.suspected, node.flapping, node.evidence, gone)


def _incident(incident: Incident) -> IncidentStatus:
    steps = len(incident.steps)
    return IncidentStatus(
        id=incident.id,
        fault=incident.called,
        nodes=incident.nodes,
        phase=incident.phase,
        held=incident.held,
        only_told=incident.only_told,
        step=min(incident.step + 1, steps),
        steps=steps,
        attempts=incident.attempts,
        requests=incident.asked,
        opened_at=incident.opened_at,
        why=incident.why,
        next_attempt=incident.next_attempt,
    )
