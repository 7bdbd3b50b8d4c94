"""What is told in the answer to a question, put where it belongs."""

from __future__ import annotations

from . import observers, questions
from .events import Missing, Published, Returned, Seconds
from .model import Action, ClusterState, Effect
from .sighting import Sighting
from .testimony import Testimony


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
    return cluster, []
