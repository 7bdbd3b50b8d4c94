"""One incident with all that the table's conditions and deeds ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from . import gates, health, tested
from .events import Command, Seconds
from .model import Attempt, ClusterState, Fault, Incident, Policy, State, Step
from .remedies import TABLE
from .word import agreed_dead


@dataclass(frozen=True)
class Sight:
    """One incident, with all that the conditions of its rows ask for."""

    state: State
    cluster: ClusterState
    incident: Incident
    now: Seconds
    command: Command | None = None  #: what an operator orders about this incident

    @property
    def policy(self) -> Policy:
        return self.state.policies[self.cluster.name]

    @property
    def requested(self) -> bool:
        return self.incident.fault is None

    def shows(self, name: str) -> bool:
        return health.shows(self.cluster, self.incident, name)

    def confirmed(self, name: str) -> bool:
        return health.confirmed(self.cluster, self.incident, name)

    def known(self, name: str) -> bool:
        return health.known(self.cluster, self.incident, name)

    def seen_since(self, name: str, then: Seconds) -> bool:
        return health.seen_since(self.cluster, self.incident, name, then)

    def seen_after(self, name: str) -> bool:
        """The node was seen in the incident's present phase. To count as well, it must have been dialled afresh."""
        return health.seen_after(self.cluster, self.incident, name, self.incident.changed_at)

    @cached_property
    def afflicted(self) -> tuple[str, ...]:
        """Nodes that the present step is for: those with the confirmed fault, or those of a request not tried yet."""
        if self.requested:
            return tuple(n for n in self.incident.nodes if n not in self.incident.turn.tried)
        return tuple(n for n in self.incident.nodes if self.confirmed(n))

    @property
    def untried(self) -> tuple[str, ...]:
        return tuple(n for n in self.afflicted if n not in self.incident.turn.tried)

    @property
    def failed_on(self) -> tuple[str, ...]:
        """Nodes that the present step was tried on and that still show the fault, or show it again."""
        return tuple(n for n in self.afflicted if n in self.incident.turn.tried)

    @property
    def step(self) -> Step | None:
        index = self.incident.step
        return self.incident.steps[index] if index < len(self.incident.steps) else None

    @cached_property
    def met(self) -> tuple[str, ...]:
        """Nodes on which a highstate, if that is the present step, would change nothing."""
        return tested.met(self.cluster, self.policy, self.incident, self.step, self.now)

    @cached_property
    def intent(self) -> gates.Intent | None:
        """What would be done now: dead nodes are started together, nodes that may serve go one after the other."""
        if self.step is None:
            return None
        ready = self.untried
        # A node that is stopped by a gate of its own must not hold up the others. If each node is stopped so, those
        # with budget left come first: else a node without budget would lock the incident, although others only rest.
        if len(ready) > 1:
            ready = self._passing(gates.OWN) or self._passing((gates.budget,)) or ready
        nodes = ready[:1]
        if self.incident.fault is Fault.DEAD and not TABLE[self.step.action].takes_port:
            # Only nodes whose death is agreed go together: the healer's own refused dial alone does not prove it.
            nodes = tuple(n for n in ready if self._agreed(n)) or nodes
        return gates.Intent(self.cluster.name, self.incident, self.step, nodes)

    def _agreed(self, name: str) -> bool:
        return agreed_dead(self.cluster, name, self.now)

    def _passing(self, some: Sequence[gates.Asks]) -> tuple[str, ...]:
        """The untried nodes that none of these gates stops."""
        return tuple(n for n in self.untried if self._passes(n, some))

    def _passes(self, name: str, some: Sequence[gates.Asks]) -> bool:
        assert self.step is not None
        alone = gates.Intent(self.cluster.name, self.incident, self.step, (name,))
        return all(gate(self.state, alone, self.now).open for gate in some)

    @property
    def awaited(self) -> tuple[str, ...]:
        """The untried nodes that the present step can still reach. The next step does not wait for the others."""
        return self._passing(gates.OWN) if self.step else self.untried

    @cached_property
    def shut(self) -> tuple[gates.Gate, ...]:
        assert self.intent is not None
        return gates.shut(gates.judge(self.state, self.intent, self.now))

    def since_start(self, then: Seconds) -> Seconds:
        """The later one of that moment and the healer's start. What happened before the start is not known yet."""
        return max(then, self.state.started_at)

    @property
    def attempt(self) -> Attempt | None:
        """This incident's attempt in flight."""
        attempt = self.cluster.attempt
        return attempt if attempt and attempt.incident == self.incident.id else None

    @property
    def gone_for_s(self) -> Seconds:
        gone = self.incident.gone_since
        return -1.0 if gone is None else self.now - gone
