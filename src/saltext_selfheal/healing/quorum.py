"""The gates about what an action takes away: whether those who are served now are served afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from . import health
from . import identity as identities
from . import remedies
from .events import Seconds, Table
from .gate import Answer, Intent, Open, Shut, of
from .model import CLUSTER_WIDE, ClusterState, Fault, Incident, NodeState, Seen, State
from .word import agreed_dead

#: A node with one of these does not answer: nobody is served by it.
AWAY = frozenset({Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE})
#: What the tables say of it may hold for others; the healer does not rely on it.
UNSURE = AWAY | {Fault.CUT_OFF}


def harmless(cluster: ClusterState, intent: Intent, now: Seconds) -> bool:
    """The action takes no serving node away: it only starts, or none of the nodes serves."""
    if not remedies.TABLE[intent.step.action].takes_away:
        return True
    return all(agreed_dead(cluster, n, now) for n in intent.nodes)


def one_at_a_time(state: State, intent: Intent, now: Seconds) -> Answer:
    """An action that can take a serving node away goes to one node at a time.

    As long as nothing is known of the tables' replicas, a node that may serve is not risked while one that this
    incident is not about is away. A hung node does not serve: what needs it is lost already.
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
    broken = [n for n, node in tried.items() if node.fault in AWAY or (served and not node.well)]
    if broken:
        return Shut(f"not well after its turn: {', '.join(broken)}")
    if table_map(state, intent, now) is not None:
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
    # A request is not about anybody's fault; what is forced may be about its own nodes'.
    return name in incident.nodes and (incident.forced or node.fault is incident.fault is not None)


def table_map(
    state: State, intent: Intent, now: Seconds
) -> tuple[Seconds, tuple[Table, ...]] | None:
    """When the tables were looked at last, and what they were; None if that is too long ago."""
    known = state.maps.get(intent.cluster)
    return None if known is None or now - known[0] > health.VIEW_AGE_S else known


def _away(cluster: ClusterState, name: str, now: Seconds) -> bool:
    """It serves nobody: it does not answer, one late probe is not all that says so, and nobody says otherwise.

    One whose open connections answer serves those who have them. One that only this master cannot reach may serve all.
    """
    node = cluster.nodes[name]
    if node.fault is Fault.DEAD:
        return agreed_dead(cluster, name, now)
    if node.answers or (node.fault is Fault.UNREACHABLE and health.vouched(node)):
        return False
    return node.confirmed and node.fault in AWAY


def quorum(state: State, intent: Intent, now: Seconds) -> Answer:
    """No shard that serves now would lose the majority of its voting replicas that are ready now.

    What needs a node that does not answer is lost already, as far as that node is concerned. What the tables say of
    the others holds: that the healer cannot reach a replica's node proves nothing about those who can. Such a
    replica, and one whose node is not known, counts as serving now and as missing afterwards. A dead one serves nobody.
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
        # Also when nobody can look any more: who knows less must not do more.
        why = "the nodes disagree about who is connected: the table map is one side's"
        return Shut(why)
    known = table_map(state, intent, now)
    if known is None:
        return Open("no table map of the last minute: one node at a time")
    taken, tables = known
    twice = identities.listed_twice(tables)
    if twice:
        return Shut(f"which server is which is in doubt: two servers have the name {twice}")
    changed = max([cluster.acted_at, *(n.since or 0.0 for n in cluster.nodes.values())])
    if taken <= changed:
        opens_at = taken + health.VIEW_AGE_S
        return Shut("the table map is older than the last change", opens_at)
    lost = [told for table in tables for told in _lost(cluster, table, serving, now)]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return Shut(f"without {', '.join(serving)} {lost[0]}{more}")
    return Open(f"no shard of {len(tables)} tables loses its majority")


def _lost(cluster: ClusterState, table: Table, leaving: list[str], now: Seconds) -> Iterator[str]:
    """The shards of this table that serve now and would not without those nodes, in words.

    A server that is no node's may be the one of a node that has never told its name: one that leaves, or is away.
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
