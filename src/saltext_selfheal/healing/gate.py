"""What a gate is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .events import Seconds
from .model import ClusterState, Incident, Policy, State, Step


class Intent(NamedTuple):
    """What would be done if every gate were open."""

    cluster: str
    incident: Incident
    step: Step
    nodes: tuple[str, ...]


class Gate(NamedTuple):
    """One gate's answer. ``opens_at`` is None where only an event, not time, opens it."""

    name: str
    open: bool
    why: str
    opens_at: Seconds | None = None


Asks = Callable[[State, Intent, Seconds], Gate]


def of(state: State, intent: Intent) -> tuple[Policy, ClusterState]:
    return state.policies[intent.cluster], state.clusters[intent.cluster]
