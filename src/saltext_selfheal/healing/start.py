"""The first state: what the settings say, with what the ledger remembers of it.

And what is kept of clusters that the settings do not name any more, and what must be assumed where the ledger was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .model import Announce
from .model import ClusterState
from .model import Effect
from .model import Finish
from .model import Limits
from .model import NodeState
from .model import Outcome
from .model import Phase
from .model import Policy
from .model import Seconds
from .model import Started
from .model import State
from .step import step


def begin(
    policies: Mapping[str, Policy],
    limits: Limits,
    remembered: Mapping[str, ClusterState],
    now: Seconds,
) -> tuple[State, tuple[Effect, ...]]:
    """The state to begin with, and what follows from it at once.

    What the settings do not name any more ends here: incidents lose such nodes, and end when none is left; an
    attempt that names one is written off.
    """
    effects: list[Effect] = []
    clusters = {}
    # A node that has moved to another cluster, or whose cluster has a new name, takes its budget along.
    anywhere = {n: s for old in remembered.values() for n, s in old.nodes.items()}
    everywhere = [c.pause for c in remembered.values() if c.pause and c.pause.everywhere]
    for name, policy in policies.items():
        old = remembered.get(name)
        if old is None:
            old = ClusterState(name, pause=max(everywhere, key=lambda p: p.until, default=None))
        nodes = {
            n: old.nodes[n] if n in old.nodes else _paid(anywhere.get(n, NodeState()))
            for n in policy.nodes
        }
        attempt, look, dropped = old.attempt, old.look, ""
        if attempt:
            kept = tuple(n for n in attempt.nodes if n in nodes)
            left = {n: r for n, r in attempt.results.items() if n in nodes}
            attempt = replace(attempt, nodes=kept, results=left)
        if attempt and not attempt.nodes:
            effects.append(
                Finish(attempt, Outcome.LOST, "the settings do not name its nodes any more")
            )
            dropped, attempt = attempt.incident, None
        if look and (attempt is None or look.of != attempt.id):
            effects.append(Finish(look, Outcome.LOST, "nothing is left to look for"))
            look = None
        incidents = []
        for incident in old.incidents:
            kept = tuple(n for n in incident.nodes if n in nodes)
            incident = replace(
                incident,
                nodes=kept,
                tried=tuple(n for n in incident.tried if n in nodes),
                acting=tuple(n for n in incident.acting if n in nodes),
                visited=tuple(n for n in incident.visited if n in nodes),
            )
            if kept:
                if incident.id == dropped:  # there is nothing left to wait for
                    incident = replace(incident, phase=Phase.OPEN, changed_at=now)
                incidents.append(incident)
                continue
            why = "the settings do not name its nodes any more"
            ended = replace(incident, phase=Phase.RESOLVED, changed_at=now, why=why)
            effects.append(Announce(ended, ended.phase.value, why))
        recoveries = tuple(r for r in old.recoveries if r.node in nodes)
        late = tuple(
            replace(
                one,
                attempt=replace(
                    one.attempt, nodes=tuple(n for n in one.attempt.nodes if n in nodes)
                ),
            )
            for one in old.late
        )
        clusters[name] = replace(
            old,
            nodes=nodes,
            incidents=tuple(incidents),
            attempt=attempt,
            look=look,
            recoveries=recoveries,
            late=tuple(one for one in late if one.attempt.nodes),
        )
    why = "the settings do not name its cluster any more"
    for name, old in remembered.items():
        if name in policies:
            continue
        if clusters:  # what was done there still counts against the limits over all clusters
            first = next(iter(clusters.values()))
            there = tuple(t for t in old.acts if t not in first.acts)
            clusters[first.name] = replace(first, acts=(*first.acts, *there))
        effects += [Finish(a, Outcome.LOST, why) for a in (old.attempt, old.look) if a]
        for incident in old.incidents:
            if incident.by_hand:
                continue
            ended = replace(incident, phase=Phase.RESOLVED, changed_at=now, why=why)
            effects.append(Announce(ended, ended.phase.value, why))
    state = State(policies=policies, limits=limits, clusters=clusters, started_at=now)
    state, more = step(state, Started(), now)
    return state, (*effects, *more)


def _paid(node: NodeState) -> NodeState:
    """What must be remembered of a node wherever it goes."""
    return NodeState(
        spent=node.spent,
        cooldown_until=node.cooldown_until,
        cooldown_incident=node.cooldown_incident,
    )


def remains(old: ClusterState) -> ClusterState:
    """What is kept of a cluster that the settings do not name any more: it may come back, or its nodes elsewhere."""
    return ClusterState(
        old.name,
        nodes={n: _paid(s) for n, s in old.nodes.items()},
        # A person's lock ends by ``ack`` alone.
        incidents=tuple(i for i in old.incidents if i.by_hand),
        acts=old.acts,
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
