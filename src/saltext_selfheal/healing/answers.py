"""What is told in the answer to a question, put where it belongs."""

from __future__ import annotations

from dataclasses import replace

from . import observers, questions
from .changes import Changes
from .events import Missing, Published, Returned, Seconds
from .model import Action, ClusterState, Effect
from .sighting import Sighting
from .testimony import Testimony

MOST_DRIFT = 20  #: an incident remembers this many changed states


def take_changes(cluster: ClusterState, event: Missing | Published | Returned) -> ClusterState:
    """The cluster after a minion has told what its highstate has changed. What was not as configured may be the cause."""
    attempt = cluster.attempt
    if attempt is None or not isinstance(event, Returned) or not isinstance(event.told, Changes):
        return cluster
    incident = next((i for i in cluster.incidents if i.id == attempt.incident), None)
    if incident is None or event.attempt != attempt.id or event.node not in attempt.nodes:
        return cluster
    drift = tuple(dict.fromkeys((*incident.drift, *event.told.drift)))[:MOST_DRIFT]
    return cluster.with_incident(replace(incident, drift=drift))


def take_answer(
    cluster: ClusterState, event: Missing | Published | Returned, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """The cluster after news of a question's job. A question ends when all have answered, so nobody answers twice."""
    cluster, one = questions.take_news(cluster, event, now)
    if not isinstance(event, Returned) or event.node not in one.nodes or event.node in one.results:
        return cluster, []
    if one.action is Action.PROBE:
        said = event.told if isinstance(event.told, Sighting) else None
        return (
            observers.take_sighting(cluster, one, event.node, event.outcome, said, event.detail),
            [],
        )
    if isinstance(event.told, Testimony):
        return questions.take_testimony(cluster, one, event.told, now)
    if isinstance(event.told, Changes):
        return questions.take_foreseen(cluster, one, event.told), []
    return cluster, []
