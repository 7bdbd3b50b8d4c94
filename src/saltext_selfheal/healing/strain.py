"""How slow the healer itself is, and so by how much longer a fault must last before it is believed. Pure.

A healer that is slow sees slow databases. It stops trusting its eyes altogether only when it is `blind`; before that,
every ``confirm`` grows by a factor, its *strain*. Two things show it: several nodes that are well answer late in one
round, which is hardly the fault of each of them; and rounds of the probe that begin later than they were planned. The
worst of the last seconds counts. HashiCorp's memberlist calls this local health. A strain only ever lengthens.
"""

from __future__ import annotations

from dataclasses import replace

from .events import Observation, Seconds
from .model import ClusterState, Policy, State

LATE_SHARE = 0.25  #: an answer is late after this share of the probe's timeout
LATE_NODES = 2  #: fewer nodes than this, or less than half of those that are well, show nothing
COUNTS_FOR_S = 10.0
JUDGED_EVERY_S = 1.0
LEAST = 1.1  #: a smaller factor is nothing
MOST_EACH = 4.0  #: each of the two reasons counts no more than this …
MOST = 8.0  #: … and both together no more than this

Samples = tuple[tuple[Seconds, float], ...]


def take(state: State, seen: Observation, now: Seconds) -> State:
    """What one more probe of a node that is known shows about the healer's own speed."""
    cluster, policy = state.clusters[seen.cluster], state.policies[seen.cluster]
    late_by = seen.latency_s / (LATE_SHARE * policy.timeout_s)
    if seen.fault is not None or late_by < LEAST:
        late_by = 0.0
    node = cluster.nodes[seen.node]
    if late_by != node.late_by:
        node = replace(node, late_by=late_by)
        state = state.with_cluster(cluster.with_nodes({seen.node: node}))
    round_late = 1.0 + seen.late_s / policy.poll_s
    if round_late >= LEAST:
        state = replace(state, slow_rounds=_with(state.slow_rounds, round_late, now))
    judged = state.slow_answers and now - state.slow_answers[-1][0] < JUDGED_EVERY_S
    if late_by and not judged:
        factor = _answers(state, seen, now)
        state = replace(state, slow_answers=_with(state.slow_answers, factor, now))
    return state


def _with(samples: Samples, factor: float, now: Seconds) -> Samples:
    """These samples, as far as they count, and one more. Within a moment only the largest is kept."""
    factor = min(MOST_EACH, factor)
    kept = tuple(one for one in samples if now - one[0] < COUNTS_FOR_S)
    if kept and now - kept[-1][0] < JUDGED_EVERY_S:
        return (*kept[:-1], (kept[-1][0], max(factor, kept[-1][1])))
    return (*kept, (now, factor))


def _answers(state: State, seen: Observation, now: Seconds) -> float:
    """How much later than they may the nodes answer that are well, over all clusters. 1: few of them are late."""
    found = sorted(
        late_by
        for name, cluster in state.clusters.items()
        for late_by in _late_in(cluster, state.policies[name], seen, now)
    )
    late = sum(1 for one in found if one)
    if late < LATE_NODES or 2 * late < len(found):
        return 1.0
    return max(1.0, found[len(found) // 2])


def _late_in(
    cluster: ClusterState, policy: Policy, seen: Observation, now: Seconds
) -> tuple[float, ...]:
    """How late each node of this cluster answered that was well in the last round."""
    round_s = policy.poll_s + policy.timeout_s
    return tuple(
        node.late_by
        for name, node in cluster.nodes.items()
        if (name == seen.node and cluster.name == seen.cluster)
        or (node.well and node.at is not None and now - node.at <= round_s)
    )


def of(state: State, now: Seconds) -> float:
    """So many times longer than usual a fault must last now. At least 1."""
    if not state.slow_answers and not state.slow_rounds:
        return 1.0
    by_answers, by_rounds = (
        max((factor for at, factor in samples if now - at < COUNTS_FOR_S), default=1.0)
        for samples in (state.slow_answers, state.slow_rounds)
    )
    return min(MOST, by_answers * by_rounds)


def told(state: State, now: Seconds) -> str:
    """The same in a sentence. Empty: the healer is as fast as it should be."""
    factor = of(state, now)
    return (
        f"the healer is slow itself: confirm takes {factor:.1f} times as long"
        if factor >= LEAST
        else ""
    )
