"""Explanations for people: what would be done now, and which gates forbid it. Nothing here changes anything."""

from __future__ import annotations

from . import canary, escalation, gates
from .events import Seconds
from .explained import Explained
from .model import Fault, Incident, Phase, Seen, State, Step
from .quorum import unready
from .sight import Sight


def explain(
    state: State, cluster: str, nodes: tuple[str, ...], now: Seconds
) -> tuple[Explained, ...]:
    """Every gate's answer for every incident of the cluster. A node without an incident is judged as if it were dead.

    The gates are asked exactly as before an action, so an explanation cannot differ from what is done.
    """
    here = state.clusters[cluster]
    policy = state.policies[cluster]
    told: list[Explained] = []
    lacks = unready(state, cluster, now)
    concerned: set[str] = set()
    for incident in here.incidents:
        if nodes and not set(nodes) & set(incident.nodes):
            continue
        if not incident.by_hand:
            concerned |= set(incident.nodes)
        told.append(_of_incident(Sight(state, here, incident, now), lacks))
    steps = policy.escalation.get(Fault.DEAD, escalation.DEFAULT[Fault.DEAD])
    for name in nodes or tuple(here.nodes):
        if name not in concerned and steps:
            told.append(_as_if_dead(state, cluster, name, steps, now, lacks))
    return tuple(told)


def _of_incident(sight: Sight, lacks: str) -> Explained:
    """How an incident stands, what would be done next, and every gate's answer to that."""
    incident = sight.incident
    # Steps are decided in the phase ``open`` only. In any other phase, ``why`` says what the incident waits for.
    intent = sight.intent if incident.phase is Phase.OPEN else None
    return Explained(
        incident=incident.id,
        fault=incident.called,
        phase=incident.phase,
        nodes=incident.nodes,
        why=incident.why,
        step=sight.step.action if sight.step else None,
        on=intent.nodes if intent else (),
        gates=gates.judge(sight.state, intent, sight.now) if intent else (),
        unready=lacks,
    )


def _as_if_dead(
    state: State, cluster: str, name: str, steps: tuple[Step, ...], now: Seconds, lacks: str
) -> Explained:
    """What every gate would answer if this node were dead: the first step is judged for an incident made up here."""
    fault = state.clusters[cluster].nodes[name].fault
    silence = canary.told_of(state.clusters[cluster], name)
    supposed = Incident(
        id="",  # the empty id tells the gates that there is no such incident
        cluster=cluster,
        cause=Seen(Fault.DEAD),
        nodes=(name,),
        phase=Phase.OPEN,
        opened_at=now,
        changed_at=now,
        steps=steps,
    )
    intent = gates.Intent(cluster, supposed, steps[0], (name,))
    return Explained(
        incident=None,
        fault=fault.value if fault else None,
        phase=None,
        nodes=(name,),
        why=f"supposed that {name} were dead{f'; {silence}' if silence else ''}",
        step=steps[0].action,
        on=(name,),
        gates=gates.judge(state, intent, now),
        unready=lacks,
    )
