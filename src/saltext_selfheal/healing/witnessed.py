"""The gates that a node's own minion can shut: it has not told yet what it sees, or what it sees forbids the step."""

from __future__ import annotations

from collections.abc import Iterable

from . import questions
from .events import Seconds
from .gate import Intent, Open, Ruling, Shut, of
from .model import ClusterState, Incident, Policy, State, Step
from .testimony import ADVICE, Ground


def witness(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The node's own minion has told what it sees, or has had its time for that; and that speaks for acting."""
    policy, cluster = of(state, intent)
    if not _asked_for(policy, intent):
        return Open("no minion is asked what it sees")
    waits = not_starting(state, intent, now)
    if not waits.open:
        return waits
    told = []
    for name in intent.nodes:
        testimony = questions.heard(cluster, name)
        if testimony is not None:
            told.append(f"{name}'s minion: {testimony.sentence}")
            continue
        opens_at = _awaited_until(state, cluster, policy, name, now)
        if now < opens_at:
            return Shut(f"{name}'s minion is asked what it sees", opens_at)
        told.append(f"{name}'s minion has not told what it sees")
    return Open("; ".join(told))


def not_starting(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The part of the gate `witness` that lasts: no node's process is on its way, or is reached by its own machine only."""
    policy, cluster = of(state, intent)
    if _asked_for(policy, intent):
        for name in intent.nodes:
            yes, why = questions.starting(cluster, policy, name, now)
            if yes:
                return Shut(f"{name} is starting: {why}")
            if questions.refuted(cluster, name, now):
                return Shut(f"{name} answers its own minion: the way from here to it is broken")
    return Open("no node is starting, and none answers its own minion")


def _asked_for(policy: Policy, intent: Intent) -> bool:
    # An incident that an explanation only supposes has no id.
    supposed = not intent.incident.id
    return bool(policy.witness_s) and intent.incident.fault in questions.ABOUT and not supposed


def _awaited_until(
    state: State, cluster: ClusterState, policy: Policy, name: str, now: Seconds
) -> Seconds:
    """Until when the minion's word is waited for. What is over already: it is not waited for."""
    asked = questions.in_flight(cluster, name)
    if asked is not None:
        return questions.waited_until(asked, policy)
    if not questions.may_ask(state, cluster, policy, now):
        return now  # another gate is shut then; it is asked as soon as it may be
    begun, asked_at = questions.begun(cluster, name), cluster.nodes[name].questioned_at
    if asked_at is not None and asked_at >= begun:
        return now  # it was asked, and that is over
    return begun + questions.ASK_AFTER_S + policy.witness_s


def helps(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The step can help against what the nodes' minions have found.

    If a later step can, that one is due. If none can, there is one try all the same: the minion may be wrong.
    """
    _, cluster = of(state, intent)
    incident = intent.incident
    tries = []
    for name in intent.nodes:
        ground = ground_of(cluster, incident, name)
        if ground is None or intent.step.action in ADVICE[ground].helps:
            continue
        what = f"{name}: {ADVICE[ground].says}"
        if _any_helps(ground, incident.steps[incident.step + 1 :]):
            return Shut(f"{intent.step.action.value} cannot help, {what}")
        if name in incident.turn.visited:
            return Shut(f"nothing can be done from here, {what}")
        tries.append(what)
    if tries:
        return Open(f"one try, although it can hardly help: {'; '.join(tries)}")
    return Open("nothing that a minion has found speaks against it")


def ground_of(cluster: ClusterState, incident: Incident, name: str) -> Ground | None:
    """What the node's minion has found to be the reason of the incident's fault."""
    if incident.fault not in questions.ABOUT:
        return None
    told = questions.heard(cluster, name)
    return told.ground if told else None


def given_up(cluster: ClusterState, incident: Incident, name: str) -> bool:
    """The node has had a try in this incident, and nothing that is left to do can help it."""
    ground = ground_of(cluster, incident, name)
    left = incident.steps[incident.step :]
    return ground is not None and name in incident.turn.visited and not _any_helps(ground, left)


def _any_helps(ground: Ground, steps: Iterable[Step]) -> bool:
    return any(step.action in ADVICE[ground].helps for step in steps)


def useless(cluster: ClusterState, incident: Incident, nodes: Iterable[str]) -> bool:
    """The present step cannot help any of these nodes, and for each of them a later one can."""
    steps = incident.steps[incident.step :]
    grounds = [ground_of(cluster, incident, n) for n in nodes]
    return bool(steps and grounds) and all(
        g is not None and not _any_helps(g, steps[:1]) and _any_helps(g, steps[1:]) for g in grounds
    )


def hopeless(cluster: ClusterState, incident: Incident, nodes: Iterable[str]) -> str:
    """Why nothing that is left to do can help these nodes, and what a person has to do. Empty: something may help.

    Each of them has had a try in this incident.
    """
    told = []
    for name in nodes:
        heard = questions.heard(cluster, name)
        if heard is None or heard.ground is None or not given_up(cluster, incident, name):
            return ""
        person = ADVICE[heard.ground].person
        told.append(f"{name}: {heard.sentence}. {person[0].upper()}{person[1:]}")
    return "; ".join(told)
