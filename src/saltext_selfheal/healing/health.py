"""What observations say about the health of a node, of a cluster, and of the healer's own eyes. Pure.

A single observation proves little. A fault is *suspected* until it has lasted for ``confirm``; then it is *confirmed*.
Every verdict depends on time, and never on a number of polls. Nothing here opens an incident or orders anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from . import canary, questions
from .events import ClusterView, Observation, Seconds, ViewStatus
from .model import CLUSTER_WIDE, Ailment, ClusterState, Fault, Incident, NodeState, Policy, Seen
from .node import Witnessed as Witnessed

VIEW_AGE_S = 60.0  #: a view of the system tables that is older than this does not count
OURS_S = 30.0  #: a probe that failed on the healer's own side makes the healer blind for this long
#: This long after the first refused dial, other nodes must have noticed a death. They notice a killed server within
#: milliseconds (2.4.4).
NOTICED_S = 1.0
#: A node that is faulty for ``confirm`` and this long on top does not flap any more.
STEADY_S = 120.0

# ---------------------------------------------------------------- nodes


def _still_answers(node: NodeState, seen: Observation, own: bool, now: Seconds) -> NodeState:
    """The ill node after an open connection has answered.

    That does not end a fault, because only a fresh dial can. But the node answers, and its id is worth knowing.
    """
    if own and node.server_id is None:
        node = replace(
            node, server_id=seen.server_id, server_name=seen.server_name, proxy=seen.proxy
        )
    return replace(node, at=now, polls=node.polls + 1, answers=True)


def _confirm_s(fault: Fault | None, policy: Policy, told: Witnessed) -> Seconds:
    """How long this fault must last. A death that its own minion has seen, too, needs less time; a slow healer more."""
    if fault is None:
        return 0.0
    confirm_s = policy.confirm_s.get(fault, 0.0)
    sooner = fault is Fault.DEAD and told.gone
    return told.strain * (min(confirm_s, policy.dead_witnessed_s) if sooner else confirm_s)


def _changes(
    node: NodeState, fault: Fault | None, policy: Policy, now: Seconds
) -> tuple[Seconds, ...]:
    """When the node has changed by itself, this time included if it has done so now.

    A recovery counts as a change if nobody acted on the node. A fault counts only if it follows such a recovery: a node
    that dies after each repair does not flap.
    """
    turned = node.since is not None and (node.fault is None) is not (fault is None)
    by_itself = fault is None or bool(node.changes and node.changes[-1] == node.since)
    if not (turned and by_itself and policy.flapping_changes):
        return node.changes
    return (*node.changes, now)[-max(policy.flapping_changes, 1) :]


def observe(
    node: NodeState,
    seen: Observation,
    policy: Policy,
    now: Seconds,
    acted_on: bool,
    told: Witnessed | None = None,
) -> NodeState:
    """The node after one more observation. ``acted_on``: changes of the node are at present the healer's own work."""
    told = told or Witnessed()
    # Id and name are taken over only if the server that answers is this node's own. While that is in doubt, only a fresh
    # dial tells where the address leads.
    judged = seen.dialled or not node.doubt or seen.server_id == node.server_id
    own = seen.server_id is not None and not node.answers_as and judged
    lasts = node.fault is not Fault.STALLED or not told.stalled
    if seen.fault is None and not seen.dialled and lasts and node.fault not in (None, Fault.SLOW):
        return _still_answers(node, seen, own, now)
    refused_at = None
    if seen.fault is Fault.DEAD:
        refused_at = now if node.refused_at is None else node.refused_at
    refusing = node if refused_at is None else replace(node, refused_at=refused_at)
    fault, evidence, slow = _shown(refusing, seen, policy, told)
    same = node.since is not None and node.fault is fault
    since = node.since if same and node.since is not None else now
    changes = node.changes if acted_on else _changes(node, fault, policy, now)
    confirm_s = _confirm_s(fault, policy, told)
    seen_as = _seen_as(node, fault, now) if fault else ()
    lasted = fault is not None and _lasted(
        dict(seen_as)[fault], since, confirm_s, _longest_s(policy) * told.strain, now
    )
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
        well_since=None if fault else now if node.well_since is None else node.well_since,
        starting_since=_starting_since(node, fault, now),
        refused_at=refused_at,
        observed_at=node.observed_at if fault else None,
        dialled_at=now if seen.dialled and seen.fault is None else node.dialled_at,
        taken=node.taken or (seen.dialled and seen.fault is None),
        answers=fault is Fault.STALLED or (seen.fault is not None and seen.answers),
        silent=seen.fault is not None and (seen.silent if seen.dialled else node.silent),
        proxy=seen.proxy if own else node.proxy,
        server_id=seen.server_id if own else node.server_id,
        server_was=node.server_id if own and seen.server_id != node.server_id else node.server_was,
        server_name=_name(node, seen) if own else node.server_name,
        version=seen.version or node.version,
    )
    flapping = _flapping(node, policy, now, confirm_s)
    if flapping is node.flapping:
        return node
    # When the node is steady again, its old changes are forgotten, so that they do not count for the next flapping.
    return replace(node, flapping=flapping, changes=node.changes if flapping else ())


def _starting_since(node: NodeState, fault: Fault | None, now: Seconds) -> Seconds | None:
    """Other faults between two starts do not begin its time anew."""
    return (node.starting_since or (now if fault is Fault.STARTING else None)) if fault else None


def _shown(
    node: NodeState, seen: Observation, policy: Policy, told: Witnessed
) -> tuple[Fault | None, str, tuple[bool, ...]]:
    """What the observation means: the fault if there is one, the evidence, and which of the last answers were slow."""
    fault, evidence, slow = seen.fault, seen.evidence, node.slow
    if fault is Fault.DEAD:
        cut_off = _cut_off(node, seen)
        if told.starting:  # its peers may be connected to it by then
            fault = Fault.STARTING
        elif cut_off:
            fault = Fault.CUT_OFF
        but = told.why if told.starting else cut_off or told.why
        evidence = f"{evidence}, but {but}" if but else evidence
    if node.doubt:
        evidence = f"{node.doubt}; {evidence}" if fault else node.doubt
        fault = Fault.MISTAKEN
    if told.stalled and fault is None:
        fault, evidence = Fault.STALLED, f"answers, but not {told.stalled}"
    if policy.slow_above_s and fault is None:
        slow = (*slow, seen.latency_s > policy.slow_above_s)[-policy.slow_of :]
        if sum(slow) >= policy.slow_count:
            fault = Fault.SLOW
            evidence = (
                f"{sum(slow)} of {len(slow)} answers took more than {policy.slow_above_s:g} s"
            )
    return fault, evidence, slow


def _name(node: NodeState, seen: Observation) -> str | None:
    """The name of the server that answers. A proxy has none, also if a server with a name answered there before."""
    return None if seen.proxy else seen.server_name or node.server_name


def _seen_as(node: NodeState, fault: Fault, now: Seconds) -> tuple[tuple[Fault, Seconds], ...]:
    """The faults since the node was last well, this one included, each with the time when it was first seen."""
    # If other nodes contradict a death, the death has not lasted. A later death must last for ``confirm`` again.
    first = {f: t for f, t in node.seen if fault is not Fault.CUT_OFF or f is not Fault.DEAD}
    first.setdefault(fault, now)
    return tuple(first.items())


def _lasted(
    first: Seconds, since: Seconds, confirm_s: Seconds, longest_s: Seconds, now: Seconds
) -> bool:
    """Whether a fault is confirmed. ``first``: when it was first seen since the node was well; ``since``: it holds."""
    # A node may alternate between faults, and each turn starts ``confirm`` anew. So after the longest ``confirm`` of
    # all faults it is confirmed in any case.
    return now - since >= confirm_s or now - first >= longest_s


def _longest_s(policy: Policy) -> Seconds:
    return max(policy.confirm_s.values(), default=0.0)


def _cut_off(node: NodeState, seen: Observation) -> str:
    """Why a refused dial is not the server's death: the server may serve everybody but the healer. Empty: no reason.

    In the first moment other nodes may not have noticed a death. Their word of that moment does not make the node cut
    off. It only keeps the healer from acting (gate ``agreed``), and they are asked again.
    """
    if seen.answers:
        return "a connection that was open answers"
    by = vouched(node)
    if not by or node.word_at is None or node.refused_at is None:
        return ""
    return f"{by} is connected to it" if node.word_at - node.refused_at >= NOTICED_S else ""


def heard(node: NodeState, by: str, asked_at: Seconds, now: Seconds) -> NodeState:
    """The node after others were asked for their word. ``by``: a node that is connected to its server; empty: none is.

    If they contradict a death after the first moment, ``confirm`` counts anew from now. This holds even if nobody
    contradicts the death any more when the node is dialled next.
    """
    node = replace(node, word_at=asked_at, word_by=by)
    refused_at = node.refused_at
    noticed = refused_at is not None and asked_at - refused_at >= NOTICED_S
    if not (by and noticed and node.fault is Fault.DEAD):
        return node
    others = tuple(one for one in node.seen if one[0] is not Fault.DEAD)
    return replace(node, since=now, confirmed=False, seen=others)


def vouched(node: NodeState) -> str:
    """The node that is connected to this one's server, by a word asked for since the healer cannot reach it.

    Empty: no node is.
    """
    since = node.refused_at if node.refused_at is not None else node.since
    asked = node.word_at is not None and since is not None and node.word_at >= since
    return node.word_by if asked else ""


def speaks(node: NodeState) -> bool:
    """The node answers, so that it can be asked whom it is connected to."""
    answers = node.answers or (node.since is not None and node.fault in (None, Fault.SLOW))
    return answers and not node.doubt


def lives(node: NodeState) -> bool:
    """A database answers there, even if it only refuses the login."""
    silent = (Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE, Fault.STARTING, Fault.ALIEN)
    return node.answers or (node.since is not None and node.fault not in silent)


def _flapping(node: NodeState, policy: Policy, now: Seconds, confirm_s: Seconds) -> bool:
    """Whether the node comes and goes by itself. It stops being so by time: when it is quiet, or faulty for long."""
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
    cluster: ClusterState, seen: ClusterView, policy: Policy, now: Seconds, strain: float = 1.0
) -> tuple[Ailment, ...]:
    """The cluster's ailments after one more view of its system tables.

    A view that could not be finished proves nothing, so the ailments stay as they are. It happens while a peer hangs,
    and dialling that peer shows so.
    """
    if seen.status is not ViewStatus.KNOWN:
        return cluster.ailments
    found: dict[Seen, Ailment] = {}
    for what, evidence in _complaints(cluster, seen, policy, now):
        old = cluster.ailment(what)
        since = old.since if old else now
        confirmed = now - since >= policy.confirm_s.get(what.fault, 0.0) * strain
        found[what] = Ailment(what, since, confirmed, old.evidence if old else evidence)
    return tuple(found.values())


def _complaints(
    cluster: ClusterState, seen: ClusterView, policy: Policy, now: Seconds
) -> Iterator[tuple[Seen, str]]:
    """What the view shows to be wrong with the cluster as a whole, each with its evidence."""
    apart = _apart(cluster, seen)
    if apart:
        yield Seen(Fault.PARTITIONED), apart
    closed = _unavailable(cluster, seen, policy, now, bool(apart))
    if closed:
        yield Seen(Fault.UNAVAILABLE), closed
    yield from _issues(cluster, seen, now)


MOST_KINDS = 6  #: within `KINDS_WITHIN_S` so many kinds of issues have an incident of their own
KINDS_WITHIN_S = 3600.0
#: What all other kinds of issues together are.
OTHER_KINDS = Seen(Fault.ISSUE, "others")


def _issues(cluster: ClusterState, seen: ClusterView, now: Seconds) -> Iterator[tuple[Seen, str]]:
    """RethinkDB's own issues, each kind once. Kinds beyond a number are one thing together.

    Kinds that have an incident keep it. A new one gets one of its own only while few have had one lately.
    """
    kinds = {
        one.type: one.description
        for one in seen.issues
        if one.type != "table_availability"  # the tables themselves show that: ``unavailable``
    }
    open_ones = {i.cause.issue for i in cluster.incidents if isinstance(i.cause, Seen)}
    left = MOST_KINDS - sum(1 for at in cluster.kinds if at > now - KINDS_WITHIN_S)
    others = []
    for kind, evidence in kinds.items():
        if kind not in open_ones and kind not in {a.seen.issue for a in cluster.ailments}:
            left -= 1
            if left < 0:
                others.append(kind)
                continue
        yield Seen(Fault.ISSUE, kind), evidence
    if others:
        some = ", ".join(sorted(others)[:3])
        yield OTHER_KINDS, f"{len(others)} more kinds of issues within an hour, such as {some}"


def many(cluster: ClusterState, cause: Seen, now: Seconds) -> bool:
    """Whether an incident for this issue would be one too many: the others together have had one lately."""
    had = sum(1 for at in cluster.kinds if at > now - KINDS_WITHIN_S)
    return cause == OTHER_KINDS and had >= 2 * MOST_KINDS


def _apart(cluster: ClusterState, seen: ClusterView) -> str:
    """Which nodes that answer are not connected to each other, in words. Empty if the nodes agree."""
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
    """The node is one of the servers that the others must be connected to: it is no proxy, and not in doubt."""
    node = cluster.nodes.get(name)
    return node is not None and not node.proxy and not node.doubt


def _few(told: list[str]) -> str:
    """The first three of these sentences, and how many more there are."""
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return "; ".join(told[:3]) + more


def _unavailable(
    cluster: ClusterState, seen: ClusterView, policy: Policy, now: Seconds, apart: bool
) -> str:
    """Which tables are not ready although every node answers and has had time to settle, in words. Empty if none.

    The same holds for a canary that no node answers. While a node is away or has just started, or nodes are ``apart``, a
    new verdict is not made. But a verdict that stands is not ended by that, not even by a start of the healer. Only ready
    tables and a canary that is answered end it.
    """
    told = []
    for table in seen.tables:
        if not counts(table.name, policy.tables) or (table.reads and table.writes):
            continue
        lacks = [
            word for word, ready in (("reads", table.reads), ("writes", table.writes)) if not ready
        ]
        told.append(f"{table.name} is not ready for {' and '.join(lacks)}")
    silence = canary.unanswered(cluster)
    told += [silence] if silence else []
    stands = any(i.fault is Fault.UNAVAILABLE for i in cluster.incidents)
    if not stands and cluster.ailment(Seen(Fault.UNAVAILABLE)) is None:
        if apart:
            return ""  # the partition explains it
        for node in cluster.nodes.values():
            if node.proxy:
                continue  # it holds no replica
            explains = node.fault is not None and not (silence and node.fault is Fault.STALLED)
            if explains or node.since is None:
                return ""  # that node's fault explains it
            if now - max(node.since, node.restarted_at or 0.0) < policy.settle_s:
                return ""
    return _few(told)


def counts(table: str, wanted: tuple[str, ...]) -> bool:
    """Whether this table (``db.table``) must be available. ``wanted`` names databases or tables; empty: all must be."""
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
    """The node, or for a fault of the cluster its system tables, were seen since the healer started."""
    if incident.fault in CLUSTER_WIDE:
        return cluster.viewed_at is not None
    return cluster.nodes[name].since is not None


def seen_since(cluster: ClusterState, incident: Incident, name: str, then: Seconds) -> bool:
    """The node, and for a fault of the cluster its system tables, too, were seen after that moment."""
    node = cluster.nodes[name]
    fresh = node.since is not None and node.at is not None and node.at > then
    if incident.fault in CLUSTER_WIDE:
        return fresh and cluster.viewed_at is not None and cluster.viewed_at > then
    return fresh


def seen_after(cluster: ClusterState, incident: Incident, name: str, then: Seconds) -> bool:
    """The node was seen after that moment. If it is well, a fresh dial after that moment must have shown it.

    A connection that was opened before does not count.
    """
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
    """The node was seen lately: three probes may be missed, but not more."""
    node = cluster.nodes[name]
    lately = node.at is not None and now - node.at <= 3 * (policy.poll_s + policy.timeout_s)
    if incident.fault not in CLUSTER_WIDE:
        return lately
    return lately and cluster.viewed_at is not None and now - cluster.viewed_at <= VIEW_AGE_S


def unseen(cluster: ClusterState, incident: Incident) -> str:
    """Which nodes of the last attempt were not seen after it, in words."""
    late = [
        n for n in incident.turn.acting if not seen_after(cluster, incident, n, incident.changed_at)
    ]
    return f"no fresh dial of {', '.join(late)}"


def evidence(cluster: ClusterState, incident: Incident) -> str:
    """The sentences that speak for the incident's fault now."""
    if incident.fault in CLUSTER_WIDE:
        ailment = cluster.ailment(incident.cause)
        return ailment.evidence if ailment else "nothing wrong at the moment"
    requested = incident.fault is None
    told = [
        f"{n}: {cluster.nodes[n].evidence}{_found(cluster, n)}"
        for n in incident.nodes
        if (not cluster.nodes[n].well if requested else shows(cluster, incident, n))
    ]
    return "; ".join(told) or "nothing wrong at the moment"


def _found(cluster: ClusterState, name: str) -> str:
    """What the node's own minion has found, in words. Empty: nothing that the probe does not show by itself."""
    told = questions.heard(cluster, name)
    return f" ({told.sentence})" if told and (told.ground or told.listens) else ""


# ---------------------------------------------------------------- the healer's own eyes


def blind(
    clusters: Mapping[str, ClusterState], ours: tuple[Seconds, str] | None, now: Seconds
) -> str:
    """Why the healer should suspect itself. Empty if it need not.

    If every node of every cluster is unreachable at once, the databases are hardly the cause. Refused connections are
    different: a refusal proves that the network works.
    """
    if ours is not None and now - ours[0] < OURS_S:
        return ours[1]
    nodes = [node for cluster in clusters.values() for node in cluster.nodes.values()]
    if nodes and all(node.fault is Fault.UNREACHABLE for node in nodes):
        return f"all {len(nodes)} nodes are unreachable at once: has this master lost its network or its DNS?"
    return ""
