"""Where an incident can stand."""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """Where an incident stands. ``held`` is not a phase: an incident that is held is ``open``."""

    SUSPECTED = "suspected"
    OPEN = "open"
    REMEDIATING = "remediating"
    VERIFYING = "verifying"
    LOCKED = "locked"
    RESOLVED = "resolved"
    ACKNOWLEDGED = "acknowledged"


#: Phases that end an incident.
ENDED = frozenset({Phase.RESOLVED, Phase.ACKNOWLEDGED})
