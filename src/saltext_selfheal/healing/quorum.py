"""The gates that keep an action from taking a database away: who is served now must be served afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from . import health
from . import identity as identities
from . import remedies
from .events import Seconds, Table
from .gate import Intent, Open, Ruling, Shut, of
from .model import CLUSTER_WIDE, ClusterState, Fault, Incident, NodeState, Seen, State
from .word import agreed_dead

#: A node with one of these faults does not answer.
AWAY = frozenset({Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE})
#: If a node has one of these faults, the healer does not rely on its replicas, even if the tables call them ready.
UNSURE = AWAY | {Fault.CUT_OFF, Fault.STALLED, Fault.STARTING}
#: A node with one of these faults after its turn is worse than it was.
_BROKEN = AWAY | {Fault.STARTING}

NO_MAP = "no table map of the last minute"
_OLD_MAP = "the table map is older than the last change"


def harmless(cluster: ClusterState, intent: Intent, now: Seconds) -> bool:
    """The action takes no serving node away: it only starts something, or all of its nodes are surely dead."""
    if not remedies.TABLE[intent.step.action].takes_away:
        return True
    return all(agreed_dead(cluster, n, now) for n in intent.nodes)


def one_at_a_time(state: State, intent: Intent, now: Seconds) -> Ruling:
    """An action that can take a serving node away goes to one node at a time.

    The step must have left no node worse than it was. And while the tables' replicas are not known, a node that may
    serve is not risked if a node without this incident's fault is not well. A hung node serves nobody, so the action on
    it risks nothing.
    """
    _, cluster = of(state, intent)
    incident = intent.incident
    if harmless(cluster, intent, now):
        return Open("takes no serving node away")
    if len(intent.nodes) > 1:
        return Shut("several nodes that may serve are named")
    if incident.fault is Fault.HUNG and all(_away(cluster, n, now) for n in intent.nodes):
        return Open("the node does not answer")
    if incident.fault is Fault.DEAD:
        return Open("it refuses the dial, and nobody can say whether it is gone")
    had = [n for n in incident.turn.tried if n in cluster.nodes and n not in intent.nodes]
    tried = {n: cluster.nodes[n] for n in had}
    served = incident.fault is None or incident.fault in CLUSTER_WIDE
    broken = [n for n, node in tried.items() if node.fault in _BROKEN or (served and not node.well)]
    if broken:
        return Shut(f"not well after its turn: {', '.join(broken)}")
    if table_map(state, intent.cluster, now) is not None:
        return Open("the tables' replicas are known")
    others = [
        n
        for n, node in cluster.nodes.items()
        if not node.well and not node.proxy and not _about(incident, n, node)
    ]
    if others:
        return Shut(f"not well at the moment: {', '.join(others)}")
    return Open("the only node taken away")


def _about(incident: Incident, name: str, node: NodeState) -> bool:
    """The node is not well for the very reason that the incident is about."""
    # A request is not about any fault. But a forced request may be about the faults of its own nodes.
    return name in incident.nodes and (incident.forced or node.fault is incident.fault is not None)


def table_map(state: State, cluster: str, now: Seconds) -> tuple[Seconds, tuple[Table, ...]] | None:
    """The last table map, and when it was taken. None if there is none or it is too old."""
    known = state.maps.get(cluster)
    return None if known is None or now - known[0] > health.VIEW_AGE_S else known


def _changed_at(cluster: ClusterState) -> Seconds:
    """When something changed last by which a table map becomes out of date."""
    return max([cluster.acted_at, *(n.since or 0.0 for n in cluster.nodes.values())])


def unready(state: State, name: str, now: Seconds) -> str:
    """Which replicas of the cluster are not ready, or why this is not known. Empty: all are ready."""
    known = table_map(state, name, now)
    if known is None:
        return NO_MAP
    taken, tables = known
    if taken <= _changed_at(state.clusters[name]):
        return _OLD_MAP
    found = [
        f"{table.name}: {replica.server} is {replica.state}"
        for table in tables
        for shard in table.shards
        for replica in shard.replicas
        if replica.state != "ready"
    ]
    return f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}" if found else ""


def _away(cluster: ClusterState, name: str, now: Seconds) -> bool:
    """The node surely serves nobody: it does not answer, this is confirmed, and nothing contradicts it.

    A node that answers over open connections serves whoever has them. A node that only this master cannot reach may
    serve everybody else.
    """
    node = cluster.nodes[name]
    if node.fault is Fault.DEAD:
        return agreed_dead(cluster, name, now)
    if node.answers or (node.fault is Fault.UNREACHABLE and health.vouched(node)):
        return False
    return node.confirmed and node.fault in AWAY


def quorum(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No shard that serves now would lose the majority of its voting replicas by this action.

    Only replicas that the tables call ready count. A replica on a dead node serves nobody, so it counts neither now nor
    afterwards. A replica whose node is not known, or cannot be reached by the healer, may serve others: it counts as
    serving now, and, to be careful, as missing afterwards. If the action's nodes serve nobody, nothing can be lost.
    """
    _, cluster = of(state, intent)
    if harmless(cluster, intent, now):
        return Open("takes no serving node away")
    in_doubt = identities.uncertain(cluster)
    if in_doubt:
        return Shut(f"which server is which is in doubt: {in_doubt}")
    serving = [n for n in intent.nodes if not cluster.nodes[n].proxy and not _away(cluster, n, now)]
    if not serving:
        why = "serves nobody, or holds no replica"
        return Open(f"{', '.join(intent.nodes)} {why}")
    if cluster.ailment(Seen(Fault.PARTITIONED)):
        # This stays so when the system tables can no longer be read: with less knowledge the healer must not do more.
        why = "the nodes disagree about who is connected: the table map is one side's"
        return Shut(why)
    known = table_map(state, intent.cluster, now)
    if known is None:
        return Open(f"{NO_MAP}: one node at a time")
    taken, tables = known
    twice = identities.listed_twice(tables)
    if twice:
        return Shut(f"which server is which is in doubt: two servers have the name {twice}")
    changed = _changed_at(cluster)
    if taken <= changed:
        opens_at = taken + health.VIEW_AGE_S
        return Shut(_OLD_MAP, opens_at)
    lost = [told for table in tables for told in _lost(cluster, table, serving, now)]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return Shut(f"without {', '.join(serving)} {lost[0]}{more}")
    return Open(f"no shard of {len(tables)} tables loses its majority")


def _lost(cluster: ClusterState, table: Table, leaving: list[str], now: Seconds) -> Iterator[str]:
    """The shards of this table that serve now and would not serve without the leaving nodes, in words.

    A server name that belongs to no node may be that of a node whose name was never seen. That node may be leaving or
    away, so such a replica is not relied on while a node's name is not known.
    """
    by_server = {n.server_name: (name, n) for name, n in cluster.nodes.items() if n.server_name}
    nameless = any(not n.server_name and not n.proxy for n in cluster.nodes.values())
    for number, shard in enumerate(table.shards, 1):
        voters = [r for r in shard.replicas if r.voting]
        now_ready = then_ready = 0
        for replica in voters:
            if replica.state != "ready":
                continue
            name, node = by_server.get(replica.server, ("", None))
            sure = not nameless if node is None else node.since is not None
            sure = sure and (node is None or node.fault not in UNSURE)
            gone = node is not None and agreed_dead(cluster, name, now)
            now_ready += not gone
            then_ready += sure and name not in leaving
        if 2 * now_ready > len(voters) >= 2 * then_ready:
            of = f" (shard {number} of {len(table.shards)})" if len(table.shards) > 1 else ""
            yield f"{table.name}{of} keeps {then_ready} of {len(voters)} voting replicas"
