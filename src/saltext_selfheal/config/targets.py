"""Which minions a job may go to, by the present settings. The ledger's word alone is not enough."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ..healing import remedies
from .settings import EngineSettings


def allowed(settings: EngineSettings, order: Mapping[str, Any]) -> bool:
    """Whether these settings allow all minions of this order: nodes of its cluster, or the cluster's observers."""
    cluster, minions = settings.clusters.get(order["cluster"]), order["minions"]
    if not cluster or not minions or not isinstance(minions, list):
        return False
    if not all(isinstance(one, str) for one in minions):
        return False
    if not remedies.TABLE[remedies.Action(order["action"])].by_observers:
        return all(one in cluster.nodes and fnmatchcase(one, cluster.minions) for one in minions)
    nodes = {node for other in settings.clusters.values() for node in other.nodes}
    observers = cluster.observers
    return observers is not None and all(
        observers.allows(one) and one not in nodes for one in minions
    )
