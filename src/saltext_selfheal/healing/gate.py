"""What a gate is asked (`Intent`), and what it answers (`Open` or `Shut`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .events import Seconds
from .explained import Gate as Gate
from .model import ClusterState, Incident, Policy, State, Step


class Intent(NamedTuple):
    """What would be done if every gate were open."""

    cluster: str
    incident: Incident
    step: Step
    nodes: tuple[str, ...]


class Open(NamedTuple):
    """The gate does not forbid the action."""

    why: str

    @property
    def open(self) -> bool:
        return True

    @property
    def opens_at(self) -> None:
        return None


class Shut(NamedTuple):
    """The gate forbids the action. ``opens_at`` is None if only an event opens it, and not the passing of time."""

    why: str
    opens_at: Seconds | None = None

    @property
    def open(self) -> bool:
        return False


Ruling = Open | Shut  #: what a gate says
Asks = Callable[[State, Intent, Seconds], Ruling]


def of(state: State, intent: Intent) -> tuple[Policy, ClusterState]:
    """The settings and the state of the intent's cluster."""
    return state.policies[intent.cluster], state.clusters[intent.cluster]
