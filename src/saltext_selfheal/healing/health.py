"""Observations → health of a node, of a cluster, and of the healer's own eyes. Pure.

A single observation proves little: a fault is *suspected* until it has been seen for as long as ``confirm`` asks
(soft to hard), and every verdict is about time, never about a number of polls. Nothing here opens an incident or
orders anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from .events import ClusterView, Observation, Seconds, ViewStatus
from .model import CLUSTER_WIDE, Ailment, ClusterState, Fault, Incident, NodeState, Policy, Seen

VIEW_AGE_S = 60.0  #: a look into the system tables that is older counts as none
OURS_S = 30.0  #: a probe that failed on the healer's own side blinds it for so long
NOTICED_S = 1.0  #: after the first refused dial; a server that was killed is gone for its peers in milliseconds (2.4.4)
STEADY_S = 120.0  #: on top of ``confirm``: faulty for so long is no flapping any more

# ---------------------------------------------------------------- nodes


def observe(
    node: NodeState, seen: Observation, policy: Policy, now: Seconds, acted_on: bool
) -> NodeState:
    """The node after one more observation. ``acted_on``: its changes at present are the healer's own work."""
    # What it tells of itself is of this node's server.
    own = seen.server_id is not None and not node.answers_as
    if seen.fault is None and not seen.dialled and node.fault not in (None, Fault.SLOW):
        # Only a fresh dial ends what a dial has found. But it answers, and tells who it is.
        if own and node.server_id is None:
            node = replace(
                node, server_id=seen.server_id, server_name=seen.server_name, proxy=seen.proxy
            )
        return replace(node, at=now, polls=node.polls + 1, answers=True)
    refused_at = None
    if seen.fault is Fault.DEAD:
        refused_at = now if node.refused_at is None else node.refused_at
    refusing = node if refused_at is None else replace(node, refused_at=refused_at)
    fault, evidence, slow = _shown(refusing, seen, policy)
    same = node.since is not None and node.fault is fault
    since = node.since if same and node.since is not None else now
    changes = node.changes
    turned = node.since is not None and (node.fault is None) is not (fault is None)
    # A recovery that nobody made, and the fault after it: a node that dies after each repair does not flap.
    by_itself = fault is None or bool(changes and changes[-1] == node.since)
    if turned and by_itself and not acted_on and policy.flapping_changes:
        changes = (*changes, now)[-max(policy.flapping_changes, 1) :]
    confirm_s = policy.confirm_s.get(fault, 0.0) if fault else 0.0
    seen_as = _seen_as(node, fault, now) if fault else ()
    lasted = fault is not None and _lasted(dict(seen_as)[fault], since, confirm_s, policy, now)
    node = replace(
        node,
        fault=fault,
        since=since,
        seen=seen_as,
        confirmed=lasted,
        evidence=node.evidence if same else evidence,
        at=now,
        polls=node.polls + 1,
        slow=slow,
        changes=changes,
        refused_at=refused_at,
        dialled_at=now if seen.dialled and seen.fault is None else node.dialled_at,
        answers=seen.fault is not None and seen.answers,
        proxy=seen.proxy if own else node.proxy,
        server_id=seen.server_id if own else node.server_id,
        server_was=node.server_id if own and seen.server_id != node.server_id else node.server_was,
        server_name=(seen.server_name if own else None) or node.server_name,
        version=seen.version or node.version,
    )
    flapping = _flapping(node, policy, now, confirm_s)
    if flapping is node.flapping:
        return node
    # What has been told once is over with: the next time needs changes of its own.
    return replace(node, flapping=flapping, changes=node.changes if flapping else ())


def _shown(
    node: NodeState, seen: Observation, policy: Policy
) -> tuple[Fault | None, str, tuple[bool, ...]]:
    """What the observation amounts to: a fault or none, the evidence, and which of the last answers were slow."""
    fault, evidence, slow = seen.fault, seen.evidence, node.slow
    if fault is Fault.DEAD:
        cut_off = _cut_off(node, seen)
        if cut_off:
            fault, evidence = Fault.CUT_OFF, f"{evidence}, but {cut_off}"
    if node.doubt:
        evidence = f"{node.doubt}; {evidence}" if fault else node.doubt
        fault = Fault.MISTAKEN
    if policy.slow_above_s and fault is None:
        slow = (*slow, seen.latency_s > policy.slow_above_s)[-policy.slow_of :]
        if sum(slow) >= policy.slow_count:
            fault = Fault.SLOW
            evidence = (
                f"{sum(slow)} of {len(slow)} answers took more than {policy.slow_above_s:g} s"
            )
    return fault, evidence, slow


def _seen_as(node: NodeState, fault: Fault, now: Seconds) -> tuple[tuple[Fault, Seconds], ...]:
    """The faults of this illness with their first sights, this one included."""
    # What others contradict has not lasted: a death after it must last for its own time.
    first = {f: t for f, t in node.seen if fault is not Fault.CUT_OFF or f is not Fault.DEAD}
    first.setdefault(fault, now)
    return tuple(first.items())


def _lasted(
    first: Seconds, since: Seconds, confirm_s: Seconds, policy: Policy, now: Seconds
) -> bool:
    """Whether a fault is confirmed. ``first``: its first sight in this illness; ``since``: of its present spell."""
    # A node may go from one fault to another and back: the longest patience bounds that, too.
    longest_s = max(policy.confirm_s.values(), default=0.0)
    return now - since >= confirm_s or now - first >= longest_s


def _cut_off(node: NodeState, seen: Observation) -> str:
    """Why a refused dial is not the death of the server: it may serve everybody but the healer. Empty: nothing says so.

    In the first moment others may not have noticed a death: what they say then keeps the healer from acting (gate
    ``agreed``), and is asked again.
    """
    if seen.answers:
        return "a connection that was open answers"
    by = vouched(node)
    if not by or node.word_at is None or node.refused_at is None:
        return ""
    return f"{by} is connected to it" if node.word_at - node.refused_at >= NOTICED_S else ""


def heard(node: NodeState, by: str, asked_at: Seconds, now: Seconds) -> NodeState:
    """The node after others were asked. ``by``: one that is connected to its server, if any is.

    A death that is contradicted, after the first moment, has to last anew, also if nobody contradicts it any more when
    the node is dialled again.
    """
    node = replace(node, word_at=asked_at, word_by=by)
    refused_at = node.refused_at
    noticed = refused_at is not None and asked_at - refused_at >= NOTICED_S
    if not (by and noticed and node.fault is Fault.DEAD):
        return node
    others = tuple(one for one in node.seen if one[0] is not Fault.DEAD)
    return replace(node, since=now, confirmed=False, seen=others)


def vouched(node: NodeState) -> str:
    """Who said, asked since the healer does not reach the node, that it is connected to its server; empty: nobody."""
    since = node.refused_at if node.refused_at is not None else node.since
    asked = node.word_at is not None and since is not None and node.word_at >= since
    return node.word_by if asked else ""


def speaks(node: NodeState) -> bool:
    """The node answers, so that it can be asked whom it is connected to."""
    answers = node.answers or (node.since is not None and node.fault in (None, Fault.SLOW))
    return answers and not node.doubt


def lives(node: NodeState) -> bool:
    """A database answers there, be it only to refuse the login."""
    silent = (Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE, Fault.ALIEN)
    return node.answers or (node.since is not None and node.fault not in silent)


def _flapping(node: NodeState, policy: Policy, now: Seconds, confirm_s: Seconds) -> bool:
    """Whether the node comes and goes: shut for actions by time, not by a number of samples."""
    if not policy.flapping_changes or not node.changes:
        return False
    if (
        node.fault is not None
        and node.since is not None
        and now - node.since >= confirm_s + STEADY_S
    ):
        return False
    if node.flapping:
        return now - node.changes[-1] < policy.flapping_quiet_s
    recent = [t for t in node.changes if t > now - policy.flapping_within_s]
    return len(recent) >= policy.flapping_changes


# ---------------------------------------------------------------- clusters


def ailments(
    cluster: ClusterState, seen: ClusterView, policy: Policy, now: Seconds
) -> tuple[Ailment, ...]:
    """The cluster's ailments after one more look into its system tables.

    A look that could not be finished proves nothing, neither for nor against: some peer hangs, and that peer's own
    dial tells about it.
    """
    if seen.status is not ViewStatus.KNOWN:
        return cluster.ailments
    found: dict[Seen, Ailment] = {}
    for what, evidence in _complaints(cluster, seen, policy, now):
        old = cluster.ailment(what)
        since = old.since if old else now
        confirmed = now - since >= policy.confirm_s.get(what.fault, 0.0)
        found[what] = Ailment(what, since, confirmed, old.evidence if old else evidence)
    return tuple(found.values())


def _complaints(
    cluster: ClusterState, seen: ClusterView, policy: Policy, now: Seconds
) -> Iterator[tuple[Seen, str]]:
    apart = _apart(cluster, seen)
    if apart:
        yield Seen(Fault.PARTITIONED), apart
    closed = _unavailable(cluster, seen, policy, now, bool(apart))
    if closed:
        yield Seen(Fault.UNAVAILABLE), closed
    for issue in seen.issues:
        if issue.type != "table_availability":  # told by the tables themselves
            yield Seen(Fault.ISSUE, issue.type), issue.description


def _apart(cluster: ClusterState, seen: ClusterView) -> str:
    """Nodes that answer and disagree about who is connected; empty if they agree."""
    told = []
    for one, ids in sorted(seen.connected.items()):
        if not _member(cluster, one):
            continue
        for other in sorted(seen.connected):
            server = cluster.nodes[other].server_id if _member(cluster, other) else None
            if other != one and server and server not in ids:
                told.append(f"{one} is not connected to {other}")
    return _few(told)


def _member(cluster: ClusterState, name: str) -> bool:
    """It is one of the servers that the others must be connected to: no proxy, and not in doubt."""
    node = cluster.nodes.get(name)
    return node is not None and not node.proxy and not node.doubt


def _few(told: list[str]) -> str:
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return "; ".join(told[:3]) + more


def _unavailable(
    cluster: ClusterState, seen: ClusterView, policy: Policy, now: Seconds, apart: bool
) -> str:
    """Tables that are not ready although every node answers and has had time to settle; empty if none.

    A node that is away or young, or nodes that are ``apart``, keep the verdict from arising. They do not end one, not
    even across a start of the healer: only ready tables do.
    """
    told = []
    for table in seen.tables:
        if not counts(table.name, policy.tables) or (table.reads and table.writes):
            continue
        lacks = [
            word for word, ready in (("reads", table.reads), ("writes", table.writes)) if not ready
        ]
        told.append(f"{table.name} is not ready for {' and '.join(lacks)}")
    stands = any(i.fault is Fault.UNAVAILABLE for i in cluster.incidents)
    if not stands and cluster.ailment(Seen(Fault.UNAVAILABLE)) is None:
        if apart:
            return ""  # that explains it
        for node in cluster.nodes.values():
            if node.proxy:
                continue  # it holds no replica
            if node.fault is not None or node.since is None:
                return ""  # that node's fault explains it
            if now - max(node.since, node.restarted_at or 0.0) < policy.settle_s:
                return ""
    return _few(told)


def counts(table: str, wanted: tuple[str, ...]) -> bool:
    """Whether this table (``db.table``) is among those that must be available: databases or tables, none = all."""
    return not wanted or table in wanted or table.split(".", 1)[0] in wanted


# ---------------------------------------------------------------- what an incident asks


def shows(cluster: ClusterState, incident: Incident, name: str) -> bool:
    """The node shows this incident's fault, suspected or confirmed."""
    if incident.fault in CLUSTER_WIDE:
        return cluster.ailment(incident.cause) is not None
    return incident.fault is not None and cluster.nodes[name].fault is incident.fault


def confirmed(cluster: ClusterState, incident: Incident, name: str) -> bool:
    """The node shows this incident's fault, confirmed."""
    if incident.fault in CLUSTER_WIDE:
        ailment = cluster.ailment(incident.cause)
        return ailment is not None and ailment.confirmed
    node = cluster.nodes[name]
    return node.confirmed and node.fault is incident.fault


def known(cluster: ClusterState, incident: Incident, name: str) -> bool:
    """Something has been seen of it since the healer started."""
    if incident.fault in CLUSTER_WIDE:
        return cluster.viewed_at is not None
    return cluster.nodes[name].since is not None


def seen_since(cluster: ClusterState, incident: Incident, name: str, then: Seconds) -> bool:
    """It has been looked at after that moment."""
    node = cluster.nodes[name]
    fresh = node.since is not None and node.at is not None and node.at > then
    if incident.fault in CLUSTER_WIDE:
        return fresh and cluster.viewed_at is not None and cluster.viewed_at > then
    return fresh


def seen_after(cluster: ClusterState, incident: Incident, name: str, then: Seconds) -> bool:
    """It has been looked at after that moment; well it is only by a fresh dial, and not by a connection of before."""
    if not seen_since(cluster, incident, name, then):
        return False
    node = cluster.nodes[name]
    return not node.well or (node.dialled_at is not None and node.dialled_at > then)


def well(cluster: ClusterState, incident: Incident, name: str) -> bool:
    """The node is well, and its cluster does not show the incident's fault."""
    if not cluster.nodes[name].well:
        return False
    return incident.fault not in CLUSTER_WIDE or (
        known(cluster, incident, name) and not shows(cluster, incident, name)
    )


def fresh(
    cluster: ClusterState, policy: Policy, incident: Incident, name: str, now: Seconds
) -> bool:
    """What is believed of the node was seen lately: three probes may be missed, not more."""
    node = cluster.nodes[name]
    lately = node.at is not None and now - node.at <= 3 * (policy.poll_s + policy.timeout_s)
    if incident.fault not in CLUSTER_WIDE:
        return lately
    return lately and cluster.viewed_at is not None and now - cluster.viewed_at <= VIEW_AGE_S


def unseen(cluster: ClusterState, incident: Incident) -> str:
    """Which of the nodes that were acted on nobody has seen since, in words."""
    late = [
        n for n in incident.turn.acting if not seen_after(cluster, incident, n, incident.changed_at)
    ]
    return f"no fresh dial of {', '.join(late)}"


def evidence(cluster: ClusterState, incident: Incident) -> str:
    """What speaks for the incident's fault now."""
    if incident.fault in CLUSTER_WIDE:
        ailment = cluster.ailment(incident.cause)
        return ailment.evidence if ailment else "nothing wrong at the moment"
    requested = incident.fault is None
    told = [
        f"{n}: {cluster.nodes[n].evidence}"
        for n in incident.nodes
        if (not cluster.nodes[n].well if requested else shows(cluster, incident, n))
    ]
    return "; ".join(told) or "nothing wrong at the moment"


# ---------------------------------------------------------------- the healer's own eyes


def blind(
    clusters: Mapping[str, ClusterState], ours: tuple[Seconds, str] | None, now: Seconds
) -> str:
    """Why the healer should suspect itself; empty if it need not.

    That every node of every cluster is unreachable at once is hardly the databases' doing: a refused connection
    would be, for a refusal comes over a network that works.
    """
    if ours is not None and now - ours[0] < OURS_S:
        return ours[1]
    nodes = [node for cluster in clusters.values() for node in cluster.nodes.values()]
    if nodes and all(node.fault is Fault.UNREACHABLE for node in nodes):
        return f"all {len(nodes)} nodes are unreachable at once: has this master lost its network or its DNS?"
    return ""
