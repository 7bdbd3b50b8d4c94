"""Observers: minions elsewhere that look at a node from their place before anything is done about it.

Theory of operation
-------------------

The healer sees every node from one place. A node that it cannot reach may serve everybody else. So where observers are
configured, some of them are asked (``selfheal.probe``, which changes nothing) once every other gate is open, and the gate
`observers` stays shut until enough of them say that they cannot reach the node either. If one reaches it, the healer
waits, and asks again while the fault lasts.

Only words count that were asked for since the illness began, after the last attempt, and lately. Observers never end an
incident and never cause a step: they can only keep the healer from acting. A node's own minion may cast doubt on its
node's death, by the word that the process runs and listens. Then observers are needed for that, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from . import questions
from .events import Seconds, Watchers
from .gate import Intent, Open, Ruling, Shut, of
from .model import (
    Action,
    Attempt,
    ClusterState,
    Fault,
    Fire,
    Incident,
    Outcome,
    Policy,
    State,
)
from .sighting import Sighting
from .testimony import Process

#: Faults that may be nothing but a lost way between the healer and the node.
ABOUT = frozenset({Fault.UNREACHABLE, Fault.HUNG})
_SILENT = ABOUT | {Fault.DEAD}
AGAIN_S = 30.0  #: while the fault lasts, observers are asked again after this
COUNTS_FOR_S = 60.0  #: an older word does not count any more


MOST = 9  #: so many observers are asked about a node, and no more


def take_watchers(state: State, event: Watchers, now: Seconds) -> State:
    """Which observers there are. A minion of a database that is configured is none, whatever was told."""
    if event.cluster not in state.policies:
        return state
    named = {name for policy in state.policies.values() for name in policy.nodes}
    there = tuple(one for one in dict.fromkeys(event.minions) if one not in named)[:MOST]
    return replace(state, watchers={**state.watchers, event.cluster: there})


def begun(cluster: ClusterState, name: str) -> Seconds:
    """Since when words about the node count: since it fell silent, or since the end of the last attempt on it."""
    node = cluster.nodes[name]
    silent = [since for fault, since in node.seen if fault in _SILENT]
    return max(min(silent, default=node.since or 0.0), node.acted_at)


def words(cluster: ClusterState, name: str, now: Seconds) -> Mapping[str, Sighting]:
    """By observer: its last word about the node, as far as it counts now."""
    since = max(begun(cluster, name), now - COUNTS_FOR_S)
    return {
        who: said for who, said in sorted(cluster.nodes[name].sightings.items()) if said.at >= since
    }


# ---------------------------------------------------------------- what their words mean


@dataclass(frozen=True)
class Verdict:
    """What the observers' words say about one node."""

    agreed: bool  #: enough of them cannot reach it, and none does
    refuted: bool  #: it stays shut until they are asked again: one reaches the node, or too few have answered
    why: str
    opens_at: Seconds | None = None


def verdict(
    state: State, cluster: ClusterState, policy: Policy, name: str, now: Seconds
) -> Verdict:
    """What the observers say about this node, or why they do not say enough."""
    there = state.watchers.get(cluster.name)
    said = words(cluster, name, now)
    up = [who for who, one in said.items() if one.down is False]
    down = [who for who, one in said.items() if one.down]
    if up:
        return Verdict(False, True, _contradicted(cluster, name, said, up, down))
    if len(down) >= policy.observers_quorum:
        return Verdict(True, False, f"{', '.join(down)} cannot reach {name} either")
    asked = questions.in_flight(cluster, name, Action.PROBE)
    node = cluster.nodes[name]
    if asked is not None:
        why = f"{', '.join(asked.nodes)} {_are(asked.nodes)} asked whether {name} can be reached"
        return Verdict(
            False, False, why, asked.fired_at + policy.observers_s + questions.PROBE_JOB_S
        )
    if there is None:
        return Verdict(False, True, "it is not known yet which observers are there")
    if not there:
        setting = f"clusters.{cluster.name}.observers.minions"
        return Verdict(False, True, f"no observer is there: no accepted key matches {setting}")
    if _may_be_asked(cluster, name, now):
        why = f"{', '.join(there)} {_are(there)} asked whether {name} can be reached as soon as no other gate is shut"
        return Verdict(False, False, why)
    again = (node.observed_at or now) + AGAIN_S
    return Verdict(False, True, _too_few(policy, node.observers, said, down, name), again)


def _are(minions: Collection[str]) -> str:
    return "is" if len(minions) == 1 else "are"


def _contradicted(
    cluster: ClusterState, name: str, said: Mapping[str, Sighting], up: list[str], down: list[str]
) -> str:
    fault = cluster.nodes[name].fault
    reach = ", ".join(f"{who}{f' ({said[who].why})' if said[who].why else ''}" for who in up)
    verb = "reaches" if len(up) == 1 else "reach"
    if down:
        return (
            f"the observers do not agree about {name}: {reach} {verb} it, {', '.join(down)} cannot"
        )
    what = fault.value if fault else "ill"
    return f"{name} is {what} from the master only: {reach} {verb} it"


def _too_few(
    policy: Policy,
    asked: tuple[str, ...],
    said: Mapping[str, Sighting],
    down: list[str],
    name: str,
) -> str:
    """Why the quorum was not reached: who did not answer, and who could not tell."""
    silent = [who for who in asked if who not in said]
    told = [f"{', '.join(silent)} did not answer"] if silent else []
    told += [f"{who} cannot tell ({one.why})" for who, one in said.items() if one.down is None]
    if len(asked) < policy.observers_quorum:
        told.append(f"only {len(asked)} {_are(asked)} there")
    so_far = f"{', '.join(down)} cannot reach it, " if down else ""
    needs = f"{policy.observers_quorum} of {', '.join(asked)} must agree that {name} is down"
    return f"{needs}, and {so_far}{'; '.join(told) or 'no word of them counts any more'}"


# ---------------------------------------------------------------- the gate


def needed(cluster: ClusterState, policy: Policy, fault: Fault | None, name: str) -> bool:
    """Nothing may be done about this fault of this node before observers have looked."""
    if not policy.observers_quorum:
        return False
    if fault is Fault.DEAD:
        return policy.observers_always or _denies_death(cluster, name)
    return fault in ABOUT


def _denies_death(cluster: ClusterState, name: str) -> bool:
    """The node's own minion says that its process runs and listens: so something between it and here may refuse."""
    told = questions.heard(cluster, name)
    return told is not None and told.process is Process.RUNS and told.listens is True


def observers(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Enough observers cannot reach the nodes either, and none of them can."""
    return _rule(state, intent, now, lasting=False)


def not_refuted(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The part of the gate `observers` that lasts: it is open while observers are still to be asked, or are asked."""
    return _rule(state, intent, now, lasting=True)


def _rule(state: State, intent: Intent, now: Seconds, lasting: bool) -> Ruling:
    policy, cluster = of(state, intent)
    fault = intent.incident.fault
    if not policy.observers_quorum:
        return Open("no observers are configured")
    if fault is Fault.STALLED:
        return Open("observers cannot see a stall: it answers their greeting, too")
    nodes = [n for n in intent.nodes if needed(cluster, policy, fault, n)]
    if not nodes:
        return Open("observers are not needed for this")
    if not intent.incident.id:  # made up for an explanation
        there = state.watchers.get(cluster.name, ())
        return Open(f"observers would be asked: {', '.join(there) or 'none is there now'}")
    found = [verdict(state, cluster, policy, n, now) for n in nodes]
    for one in sorted(found, key=lambda one: not one.refuted):
        if one.refuted or not (one.agreed or lasting):
            return Shut(one.why, one.opens_at)
    return Open("; ".join(one.why for one in found))


# ---------------------------------------------------------------- asking


def _may_be_asked(cluster: ClusterState, name: str, now: Seconds) -> bool:
    node = cluster.nodes[name]
    # A node that is well again forgets when they were asked.
    asked_at = node.observed_at
    return asked_at is None or asked_at < node.acted_at or now - asked_at >= AGAIN_S


def due(state: State, intent: Intent, now: Seconds) -> tuple[str, ...]:
    """The nodes about which observers are to be asked now, if no other gate is shut."""
    policy, cluster = of(state, intent)
    if not state.watchers.get(cluster.name):
        return ()
    ask = [
        name
        for name in intent.nodes
        if needed(cluster, policy, intent.incident.fault, name)
        and not verdict(state, cluster, policy, name, now).agreed
        and questions.in_flight(cluster, name, Action.PROBE) is None
        and _may_be_asked(cluster, name, now)
    ]
    return tuple(ask[: questions.room(state)])


def ask(
    state: State, cluster: ClusterState, incident: Incident, names: Collection[str], now: Seconds
) -> tuple[ClusterState, Incident, tuple[Fire, ...]]:
    """Ask the observers that are there about these nodes."""
    there, fires = state.watchers[cluster.name], []
    for name in names:
        cluster, incident, question = questions.pose(
            cluster, incident, Action.PROBE, name, there, now
        )
        node = replace(cluster.nodes[name], observed_at=now, observers=there)
        cluster = cluster.with_nodes({name: node})
        fires.append(Fire(question))
    return cluster, incident, tuple(fires)


def take_sighting(
    cluster: ClusterState, one: Attempt, who: str, outcome: Outcome, said: Sighting | None, why: str
) -> ClusterState:
    """The cluster after an observer has answered. A later word of it replaces an earlier one."""
    node = cluster.nodes.get(one.about)
    if node is None:
        return cluster
    said = said or Sighting(None, why[:200] or outcome.value)
    # Words that are older than this illness do not count, so they are not kept.
    since = begun(cluster, one.about)
    kept = {name: word for name, word in node.sightings.items() if word.at >= since}
    sightings = {**kept, who: replace(said, at=one.decided_at)}
    return cluster.with_nodes({one.about: replace(node, sightings=sightings)})
