"""What people name: clusters, nodes, incidents, attempts. Each is looked up before anything is asked of the engine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config import EngineSettings
from ..doors.arguments import BadRequest
from ..ledger import records

NAMED = 5  #: incidents that an error names at most
#: An incident's id with the number of an attempt.
_ATTEMPT = re.compile(r"(.*-[0-9]+)\.([0-9]{1,9})")


def is_cluster(settings: EngineSettings, name: Any) -> bool:
    """Whether this is the name of a configured cluster."""
    return isinstance(name, str) and name in settings.clusters


def known_cluster(settings: EngineSettings, cluster: Any) -> None:
    """Raises BadRequest if this is no configured cluster. None stands for all of them."""
    if cluster is not None and not is_cluster(settings, cluster):
        raise BadRequest(
            f"cluster: found {cluster!r}; allowed: {', '.join(sorted(settings.clusters))}"
        )


def known_nodes(settings: EngineSettings, cluster: str, nodes: Iterable[str]) -> None:
    """Raises BadRequest if the cluster, which is configured, has not all of these nodes."""
    allowed = settings.clusters[cluster].nodes
    foreign = [node for node in nodes if node not in allowed]
    if foreign:
        raise BadRequest(
            f"nodes: found {', '.join(foreign)}; allowed: {', '.join(sorted(allowed))}"
        )


def known_incident(path: Path, incident: str) -> None:
    """Commands name incidents that there are; whether they can be carried out is the engine's to say.

    Raises BadRequest if there never was one of this id; LedgerError.
    """
    with records.read(path) as db:
        if not records.knows(db, incident):
            open_now = records.latest_incidents(db, NAMED, only_open=True)
            raise BadRequest(
                f"incident: found {incident!r}; allowed: {', '.join(open_now) or 'none, no incident is open'}"
            )


def own_id(settings: EngineSettings, request: str) -> None:
    """Raises BadRequest if a request's id is one that incidents have: people look both up by their ids."""
    cluster, _, number = request.rpartition("-")
    if cluster in settings.clusters and number.isdigit():
        raise BadRequest(
            f"request: found {request!r}; allowed: an id that no incident of {cluster} can have"
        )


def attempt(name: str) -> tuple[str, int | None]:
    """``runbook-7.1`` → the incident and the attempt's number; without a number None, which means any."""
    found = _ATTEMPT.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)
