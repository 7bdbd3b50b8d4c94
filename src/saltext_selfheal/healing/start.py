"""The first state after a start: the settings, together with what the ledger remembers.

This file also says what is kept of clusters that the settings no longer name, and what is assumed if the ledger was
lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from . import budgets, escalation, looks, questions
from .events import Seconds, Started
from .facts import RUNS_AT_MOST_S
from .model import (
    LEFT_OUT,
    Announce,
    Attempt,
    ClusterState,
    Effect,
    Finish,
    Incident,
    Late,
    Limits,
    Locked,
    NodeState,
    Outcome,
    Phase,
    Policy,
    State,
)
from .step import step


def begin(
    policies: Mapping[str, Policy],
    limits: Limits,
    remembered: Mapping[str, ClusterState],
    now: Seconds,
) -> tuple[State, tuple[Effect, ...]]:
    """The state to begin with, and the effects that follow at once.

    The settings may name other nodes and clusters than before. An incident loses nodes that are not named any more, and
    ends if none is left. An attempt is given up if none of its nodes is left. But a node keeps its spent budget, and a
    job of ours that may still run there, in whatever cluster the settings name it now.
    """
    effects: list[Effect] = []
    clusters: dict[str, ClusterState] = {}
    # If a cluster was away, its remembered pause may be outdated: a ``resume`` in the meantime did not reach it.
    there = [c for c in remembered.values() if not c.away] or [*remembered.values()]
    everywhere = [c.pause for c in there if c.pause and c.pause.everywhere]
    drifting = {name: _adrift(old, policies, now) for name, old in remembered.items()}
    adrift = [late for lates in drifting.values() for late in lates]
    for name, policy in policies.items():
        old = remembered.get(name, ClusterState(name, away=True))
        if old.away:  # the cluster is new or comes back: a pause of all clusters holds for it, too
            own = old.pause if old.pause and not old.pause.everywhere else None
            pauses = [p for p in (own, *everywhere) if p]
            old = replace(old, pause=max(pauses, key=lambda p: p.until, default=None))
        kept, told = _still_named(old, policy, now)
        effects += told
        clusters[name] = _with_adrift(
            replace(
                kept,
                away=False,
                nodes={
                    n: old.nodes[n] if n in old.nodes and not old.away else _paid(n, remembered)
                    for n in policy.nodes
                },
                former=_former(old, policy, now),
                adrift=_nowhere(drifting.get(name, ()), policies),
            ),
            policy,
            adrift,
            now,
        )
    for name, old in remembered.items():
        if name in policies:
            continue
        # Its attempts still count for the limits over all clusters, so another cluster keeps them.
        if clusters:
            first = next(iter(clusters.values()))
            clusters[first.name] = replace(first, acts=(*first.acts, *old.acts))
        effects += _ended(old, now)
    # The settings are taken anew, so it is to be seen anew whether the nodes take what stands in them.
    clusters = {
        name: replace(c, nodes={n: replace(node, taken=False) for n, node in c.nodes.items()})
        for name, c in clusters.items()
    }
    state = State(policies=policies, limits=limits, clusters=clusters, started_at=now)
    state, more = step(state, Started(), now)
    return state, (*effects, *more)


def _meant(incident: Incident) -> tuple[str, ...]:
    """The incident's nodes. For a person's lock also those that the settings did not name for a while."""
    return incident.cause.meant if isinstance(incident.cause, Locked) else incident.nodes


def _still_named(
    old: ClusterState, policy: Policy, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """The cluster, with its incidents and jobs reduced to the nodes that the settings still name."""
    effects: list[Effect] = []
    named = frozenset(policy.nodes)
    attempt, look, dropped = old.attempt, old.look, ""
    why = "the settings do not name its nodes any more"
    if attempt and not named & set(attempt.nodes):
        effects.append(_given_up(attempt, why))
        dropped, attempt = attempt.incident, None
    elif attempt:
        attempt = _on(attempt, named)
    if look and (attempt is None or look.of != attempt.id):
        effects.append(Finish(look, Outcome.LOST, "nothing is left to look for"))
        look = None
    incidents = []
    for incident in old.incidents:
        kept = replace(
            incident,
            nodes=tuple(n for n in _meant(incident) if n in named),
            turn=incident.turn.among(named),
        )
        if not kept.nodes and not kept.by_hand:  # a person's lock ends by ``ack`` alone
            effects.append(_over(kept, why, now))
        elif incident.id == dropped:  # its attempt was given up, so it must not wait for a result
            incidents.append(replace(kept, phase=Phase.OPEN, changed_at=now))
        else:
            incidents.append(kept)
    asked, ended = questions.dropped(old, named)
    effects += ended
    late = tuple(
        replace(one, attempt=_on(one.attempt, named))
        for one in old.late
        if named & set(one.attempt.nodes)
    )
    recoveries = tuple(r for r in old.recoveries if r.node in named)
    return (
        replace(
            old,
            attempt=attempt,
            look=look,
            questions=asked,
            incidents=tuple(incidents),
            late=late,
            recoveries=recoveries,
        ),
        effects,
    )


def _ended(old: ClusterState, now: Seconds) -> list[Effect]:
    """The effects of the end of a cluster that the settings do not name any more."""
    why = "the settings do not name its cluster any more"
    effects: list[Effect] = [_given_up(old.attempt, why)] if old.attempt else []
    if old.look:
        effects.append(Finish(old.look, Outcome.LOST, why))
    effects += questions.dropped(old, frozenset())[1]
    return [*effects, *(_over(i, why, now) for i in old.incidents if not i.by_hand)]


def _over(incident: Incident, why: str, now: Seconds) -> Announce:
    """The announcement that the incident has ended because the settings do not name its nodes any more."""
    ended = replace(incident, phase=Phase.RESOLVED, changed_at=now, why=why)
    return Announce(ended, why, LEFT_OUT)


def _given_up(attempt: Attempt, why: str) -> Finish:
    """The terminal record of a given-up attempt. It is lost only if its job was never seen in the job cache."""
    if attempt.published_at is None:
        return Finish(attempt, Outcome.LOST, why)
    return Finish(attempt, Outcome.TIMED_OUT, f"{why}, and its job may run on")


def _on(attempt: Attempt, nodes: Collection[str]) -> Attempt:
    """The attempt, reduced to these nodes."""
    return replace(
        attempt,
        nodes=tuple(n for n in attempt.nodes if n in nodes),
        results={n: r for n, r in attempt.results.items() if n in nodes},
    )


def _adrift(old: ClusterState, policies: Mapping[str, Policy], now: Seconds) -> tuple[Late, ...]:
    """Jobs on nodes that their cluster does not have any more. They may still run, or may still be published."""
    named = policies[old.name].nodes if old.name in policies else ()
    jobs = list(old.late)
    if old.attempt:
        jobs.append(Late(old.attempt, now, running=old.attempt.published_at is not None))
    elsewhere = ((one, [n for n in looks.unsettled(one) if n not in named]) for one in jobs)
    return (
        *(replace(one, attempt=_on(one.attempt, nodes)) for one, nodes in elsewhere if nodes),
        *(one for one in old.adrift if now - one.ended_at < RUNS_AT_MOST_S),
    )


def _nowhere(adrift: Iterable[Late], policies: Mapping[str, Policy]) -> tuple[Late, ...]:
    """Those of these jobs whose nodes no cluster names now. They are kept, because the nodes may be named again."""
    named = {n for policy in policies.values() for n in policy.nodes}
    left = ((one, [n for n in one.attempt.nodes if n not in named]) for one in adrift)
    return tuple(replace(one, attempt=_on(one.attempt, nodes)) for one, nodes in left if nodes)


def _with_adrift(
    cluster: ClusterState, policy: Policy, adrift: Sequence[Late], now: Seconds
) -> ClusterState:
    """The cluster, with the jobs that may still run on nodes that have come to it. These nodes get a cooldown."""
    known = {(one.attempt.id, n) for one in cluster.late for n in one.attempt.nodes}
    new = (
        (one, {n for n in one.attempt.nodes if (one.attempt.id, n) not in known}) for one in adrift
    )
    came = tuple(
        replace(one, attempt=_on(one.attempt, nodes & set(cluster.nodes)))
        for one, nodes in new
        if nodes & set(cluster.nodes)
    )
    until = now + escalation.rest_s(policy, 0)
    rest = {
        n: replace(
            cluster.nodes[n],
            cooldown_until=max(until, cluster.nodes[n].cooldown_until),
            cooldown_incident=one.attempt.incident,
        )
        for one in came
        if one.running
        for n in one.attempt.nodes
    }
    return replace(cluster.with_nodes(rest), late=(*cluster.late, *came))


def _paid(name: str, remembered: Mapping[str, ClusterState]) -> NodeState:
    """A node with the budget and the cooldown that any cluster remembers of it, and nothing else.

    The node may have moved to another cluster and back, or have been left out for a while.
    """
    found = [
        node
        for cluster in remembered.values()
        for node in (cluster.nodes.get(name), cluster.former.get(name))
        if node is not None
    ]
    if not found:
        return NodeState()
    spent: Counter[Seconds] = Counter()
    for node in found:  # the union counts each attempt once, even if several clusters remember it
        spent |= Counter(node.spent)
    rests = max(found, key=lambda node: node.cooldown_until)
    return NodeState(
        spent=tuple(sorted(spent.elements())),
        cooldown_until=rests.cooldown_until,
        cooldown_incident=rests.cooldown_incident,
    )


def _former(old: ClusterState, policy: Policy, now: Seconds) -> dict[str, NodeState]:
    """Nodes that the cluster does not have any more, as long as their cooldown or spent budget counts."""
    here = {old.name: old}
    gone = (n for n in {**old.former, **old.nodes} if n not in policy.nodes)
    paid = {n: _paid(n, here) for n in gone}
    return {
        n: node
        for n, node in paid.items()
        if node.cooldown_until > now or budgets.recent(node, policy, now)
    }


def remains(old: ClusterState, policies: Mapping[str, Policy], now: Seconds) -> ClusterState:
    """What is kept of a cluster that the settings do not name any more. It or its nodes may be named again later."""
    here = {old.name: old}
    return ClusterState(
        old.name,
        away=True,
        nodes={n: _paid(n, here) for n in {**old.former, **old.nodes}},
        # A person's lock ends by ``ack`` alone.
        incidents=tuple(i for i in old.incidents if i.by_hand),
        adrift=_nowhere(_adrift(old, policies, now), policies),
        pause=old.pause,
        serial=old.serial,
    )


def forgotten(
    policies: Mapping[str, Policy], now: Seconds, limits: Limits
) -> dict[str, ClusterState]:
    """What to assume if the ledger was lost: each node has its longest cooldown, and budgets and limits are spent."""
    acts = (now,) * limits.attempts
    return {
        name: ClusterState(
            name,
            # The limits count over all clusters, so one cluster holds all of these attempts.
            acts=acts if name == next(iter(policies)) else (),
            forgotten_at=now,
            nodes={
                n: NodeState(
                    cooldown_until=now + policy.cooldown_max_s,
                    cooldown_incident=None,
                    spent=(now,) * policy.budget_attempts,
                )
                for n in policy.nodes
            },
        )
        for name, policy in policies.items()
    }
