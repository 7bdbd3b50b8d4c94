"""Looks up what people name (clusters, nodes, incidents, attempts) before the engine is asked for anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..config import EngineSettings
from ..doors.arguments import BadRequest, shown
from ..doors.names import quote, turned_back
from ..healing import ids
from ..ledger import records

NAMED = 5  #: an error names at most this many incidents

#: Arguments of the runner's functions that name clusters and nodes.
NAMES = ("cluster", "node", "nodes")


def named(settings: EngineSettings, found: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `NAMES` with each name as text, where the command line has turned it into something else.

    Raises BadRequest if it cannot be told which name was meant.
    """
    told = {key: found[key] for key in NAMES if key in found}
    if "cluster" in told:
        told["cluster"] = turned_back("cluster", told["cluster"], settings.clusters)
    chosen: Any = told.get("cluster")
    clusters = (
        [settings.clusters[chosen]] if is_cluster(settings, chosen) else settings.clusters.values()
    )
    nodes = [node for cluster in clusters for node in cluster.nodes]
    return {
        key: value if key == "cluster" else turned_back(key, value, nodes)
        for key, value in told.items()
    }


def is_cluster(settings: EngineSettings, name: Any) -> bool:
    """Whether this is the name of a configured cluster."""
    return isinstance(name, str) and name in settings.clusters


def known_cluster(settings: EngineSettings, cluster: Any) -> None:
    """Raises BadRequest if this is no configured cluster. None stands for all of them."""
    if cluster is not None and not is_cluster(settings, cluster):
        raise BadRequest(
            f"cluster: found {shown(cluster)}; allowed: {', '.join(sorted(settings.clusters))}{quote(cluster)}"
        )


def known_nodes(settings: EngineSettings, cluster: str, nodes: Iterable[str]) -> None:
    """Raises BadRequest if one of these nodes is not a node of the cluster, which must be configured."""
    allowed = settings.clusters[cluster].nodes
    foreign = [node for node in nodes if node not in allowed]
    if foreign:
        raise BadRequest(
            f"nodes: found {', '.join(foreign[:NAMED])}; allowed: {', '.join(sorted(allowed))}"
        )


def known_incident(path: Path, incident: str) -> None:
    """Check that a command names an incident that exists or existed. The engine decides whether it can be carried out.

    Raises BadRequest if there never was an incident with this id; LedgerError.
    """
    with records.read(path) as db:
        if not records.knows(db, incident):
            open_now = records.latest_incidents(db, NAMED, only_open=True)
            raise BadRequest(
                f"incident: found {incident!r}; allowed: {', '.join(open_now) or 'none, no incident is open'}"
            )


def own_id(settings: EngineSettings, request: str) -> None:
    """Raises BadRequest if a request's id looks like that of an incident. People look up both in the same way."""
    named = ids.read(request)
    if named and named.cluster in settings.clusters:
        raise BadRequest(
            f"request: found {request!r}; allowed: an id that no incident of {named.cluster} can have"
        )


def attempt(name: Any) -> tuple[Any, int | None]:
    """``runbook-7.1`` gives the incident and the attempt's number. Without a number it is None, which means any."""
    named = ids.read(name) if isinstance(name, str) else None
    return (named.incident, named.attempt) if named else (name, None)
