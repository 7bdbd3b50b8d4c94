"""What an explanation consists of: for each incident, what would be done now, and every gate's answer to that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .events import Seconds
from .phase import Phase
from .remedies import Action


class Gate(NamedTuple):
    """One gate's answer together with the gate's name."""

    name: str
    open: bool
    why: str
    opens_at: Seconds | None = None  #: None: it is open, or the passing of time does not open it


@dataclass(frozen=True)
class Explained:
    """One incident, and what keeps it from being healed. Or the same for a node that is only supposed to be dead."""

    incident: str | None  #: None: there is no incident, and the node's death is only supposed
    fault: (
        str | None
    )  #: what the incident is about, or the fault that the node shows, in the word that operators read
    phase: Phase | None
    nodes: tuple[str, ...]
    why: str
    step: Action | None  #: the action to come
    on: tuple[str, ...]  #: the nodes that the action would go to
    gates: tuple[Gate, ...]  #: empty if nothing is to be decided now
    #: Which of the cluster's replicas are not ready; empty: all are. None: not told, by an engine of an older release.
    unready: str | None = None
