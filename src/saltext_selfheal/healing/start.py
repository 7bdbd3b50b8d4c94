"""The first state: what the settings say, with what the ledger remembers of it.

And what is kept of clusters that the settings do not name any more, and what must be assumed where the ledger was lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from . import escalation, gates, looks
from .events import Seconds, Started
from .facts import RUNS_AT_MOST_S
from .model import (
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
    """The state to begin with, and what follows from it at once.

    What the settings do not name any more ends here: incidents lose such nodes, and end when none is left; an attempt
    on such nodes alone is given up. What was paid for a node, and a job of ours that may run on there, are remembered
    wherever the settings name it now.
    """
    effects: list[Effect] = []
    clusters: dict[str, ClusterState] = {}
    # What is remembered of a cluster that was away knows nothing of a ``resume`` since then.
    there = [c for c in remembered.values() if not c.away] or [*remembered.values()]
    everywhere = [c.pause for c in there if c.pause and c.pause.everywhere]
    drifting = {name: _adrift(old, policies, now) for name, old in remembered.items()}
    adrift = [late for lates in drifting.values() for late in lates]
    for name, policy in policies.items():
        old = remembered.get(name, ClusterState(name, away=True))
        if old.away:  # a pause of everything was meant for it, too
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
        if clusters:  # what was done there still counts against the limits over all clusters
            first = next(iter(clusters.values()))
            clusters[first.name] = replace(first, acts=(*first.acts, *old.acts))
        effects += _ended(old, now)
    state = State(policies=policies, limits=limits, clusters=clusters, started_at=now)
    state, more = step(state, Started(), now)
    return state, (*effects, *more)


def _meant(incident: Incident) -> tuple[str, ...]:
    """Its nodes; of a person's lock also those that the settings did not name for a while."""
    return incident.cause.meant if isinstance(incident.cause, Locked) else incident.nodes


def _still_named(
    old: ClusterState, policy: Policy, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """A cluster's incidents and jobs, as far as the settings still name their nodes."""
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
        elif incident.id == dropped:  # there is nothing left to wait for
            incidents.append(replace(kept, phase=Phase.OPEN, changed_at=now))
        else:
            incidents.append(kept)
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
            incidents=tuple(incidents),
            late=late,
            recoveries=recoveries,
        ),
        effects,
    )


def _ended(old: ClusterState, now: Seconds) -> list[Effect]:
    """What ends with a cluster that the settings do not name any more."""
    why = "the settings do not name its cluster any more"
    effects: list[Effect] = [_given_up(old.attempt, why)] if old.attempt else []
    if old.look:
        effects.append(Finish(old.look, Outcome.LOST, why))
    return [*effects, *(_over(i, why, now) for i in old.incidents if not i.by_hand)]


def _over(incident: Incident, why: str, now: Seconds) -> Announce:
    ended = replace(incident, phase=Phase.RESOLVED, changed_at=now, why=why)
    return Announce(ended, ended.phase.value, why, "start.not-configured")


def _given_up(attempt: Attempt, why: str) -> Finish:
    """Lost is only what was never seen to be published."""
    if attempt.published_at is None:
        return Finish(attempt, Outcome.LOST, why)
    return Finish(attempt, Outcome.TIMED_OUT, f"{why}, and its job may run on")


def _on(attempt: Attempt, nodes: Collection[str]) -> Attempt:
    """The attempt as far as it is about these nodes."""
    return replace(
        attempt,
        nodes=tuple(n for n in attempt.nodes if n in nodes),
        results={n: r for n, r in attempt.results.items() if n in nodes},
    )


def _adrift(old: ClusterState, policies: Mapping[str, Policy], now: Seconds) -> tuple[Late, ...]:
    """Jobs on nodes that their cluster does not have any more: they may run on, or may still be published."""
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
    """Of those jobs the ones on nodes that no settings name: they may be named again."""
    named = {n for policy in policies.values() for n in policy.nodes}
    left = ((one, [n for n in one.attempt.nodes if n not in named]) for one in adrift)
    return tuple(replace(one, attempt=_on(one.attempt, nodes)) for one, nodes in left if nodes)


def _with_adrift(
    cluster: ClusterState, policy: Policy, adrift: Sequence[Late], now: Seconds
) -> ClusterState:
    """The cluster with what may still run on nodes that have come to it; they rest as after any other attempt."""
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
    """What was paid for a node anywhere: it may have moved, and moved back, or been left out for a while."""
    found = [
        node
        for cluster in remembered.values()
        for node in (cluster.nodes.get(name), cluster.former.get(name))
        if node is not None
    ]
    if not found:
        return NodeState()
    spent: Counter[Seconds] = Counter()
    for node in found:  # each attempt once, however many remember it
        spent |= Counter(node.spent)
    rests = max(found, key=lambda node: node.cooldown_until)
    return NodeState(
        spent=tuple(sorted(spent.elements())),
        cooldown_until=rests.cooldown_until,
        cooldown_incident=rests.cooldown_incident,
    )


def _former(old: ClusterState, policy: Policy, now: Seconds) -> dict[str, NodeState]:
    """Nodes that the cluster does not have any more, as long as what they have paid counts."""
    here = {old.name: old}
    gone = (n for n in {**old.former, **old.nodes} if n not in policy.nodes)
    paid = {n: _paid(n, here) for n in gone}
    return {
        n: node
        for n, node in paid.items()
        if node.cooldown_until > now or gates.recent(node, policy, now)
    }


def remains(old: ClusterState, policies: Mapping[str, Policy], now: Seconds) -> ClusterState:
    """What is kept of a cluster that the settings do not name any more: it may come back, or its nodes elsewhere."""
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
    """What to assume where the ledger was lost: every node rests at its maximum, every budget is spent."""
    acts = (now,) * limits.attempts
    return {
        name: ClusterState(
            name,
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
