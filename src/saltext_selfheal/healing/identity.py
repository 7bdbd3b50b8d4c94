"""Whose server answers on a node's address. Pure.

A node of the settings is a minion and an address. A restart goes to the minion's service, but the probe sees the server
behind the address. If they are not the same server, a restart hits another server than the ill one. Three things show
that: two addresses lead to one place; a node's server has the id of another node's server; two servers of one cluster
have one name (the system tables speak of names). Such a node is *in doubt*, and so is the other node. Nothing is done
to either until it answers with an identity that nothing disputes, or a person takes it as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from .events import Observation, Table
from .model import ClusterState, Incident, NodeState, State

Place = tuple[str, str]  #: cluster and node


def judge(state: State, seen: Observation) -> State:
    """The state after this observation, as far as it is about whose server answers.

    Nearly always the node answers as before. Then nothing is compared, because comparing looks at every other node.
    """
    cluster = state.clusters[seen.cluster]
    before = cluster.nodes[seen.node]
    addresses = seen.addresses or before.addresses
    answered = seen.server_id is not None
    known = (
        before.polls
        and not before.doubt
        and addresses == before.addresses
        and seen.server_id in (None, before.server_id)
        and seen.server_name in (None, before.server_name)
        and (seen.server_name or before.server_name) not in cluster.twins
    )
    if known or (before.doubt and not seen.dialled):  # a doubt is judged by a fresh dial only
        return state
    node = replace(before, addresses=addresses)
    disputed = list(_disputes(state, (seen.cluster, seen.node), node, seen))
    told = "; ".join(why for _, why in disputed[:3])
    if not answered and before.doubt:
        told = before.doubt  # only an answer can end the doubt
    foreign = answered and any(why.startswith(_AS) for _, why in disputed)
    # Another node's id is kept apart in ``answers_as``. Any other id becomes this node's own.
    as_another = seen.server_id if foreign and seen.server_id != before.server_id else None
    node = replace(node, doubt=told, answers_as=as_another)
    state = state.with_cluster(cluster.with_nodes({seen.node: node}))
    for (where, name), why in disputed:
        other = state.clusters[where].nodes[name]
        if not other.doubt:
            twin = replace(other, doubt=why)
            state = state.with_cluster(state.clusters[where].with_nodes({name: twin}))
    return state


_AS = "answers as "  #: begins the sentence about a node that answers with another node's id; `judge` looks for it


def _disputes(
    state: State, place: Place, node: NodeState, seen: Observation
) -> Iterator[tuple[Place, str]]:
    """Which nodes dispute whose server this node is, and why."""
    here, name = place
    server = seen.server_id
    title = None if seen.proxy else seen.server_name or node.server_name
    mine, own = frozenset(node.addresses), node.server_id
    for where, cluster in state.clusters.items():
        for other_name, other in cluster.nodes.items():
            if (where, other_name) == place:
                continue
            # This must be quick: there may be a thousand other nodes, and nearly always nothing is disputed.
            if not mine.isdisjoint(other.addresses):
                shared = min(mine & set(other.addresses))
                told = f"{_both(place, where, other_name)} lead to one address, {shared}"
                yield (where, other_name), told
            # This is no ``elif``: another node's id must never become this one's, whatever the addresses say.
            theirs = (other.server_id, other.answers_as, other.server_was)
            if server is not None and server != own and server in theirs:
                told = f"{_AS}one server: {_both(place, where, other_name)} ({server})"
                yield (where, other_name), told
            elif own is not None and own in theirs[:2]:
                told = f"{_both(place, where, other_name)} are mixed up: {other_name} answers as {name}"
                yield (where, other_name), told
            elif (
                title is not None
                and title == other.server_name
                and where == here
                and not other.proxy
                and server != other.server_id
            ):
                told = f"{_both(place, where, other_name)} have servers of one name, {title}"
                yield (where, other_name), told
    twins = state.clusters[here].twins
    if title in twins:
        yield place, f"two servers have the name {title}"


def _both(place: Place, where: str, name: str) -> str:
    """Both nodes' names in words. The other one's cluster is named if it is not the same."""
    return f"{place[1]} and {name}" if place[0] == where else f"{place[1]} and {name} of {where}"


def twins(names: Mapping[str, str]) -> tuple[str, ...]:
    """The names that more than one server has. ``names``: server id → name."""
    return tuple(sorted(name for name, times in Counter(names.values()).items() if times > 1))


def listed_twice(tables: Iterable[Table]) -> str:
    """A name that one shard lists for two replicas; empty if there is none. A server holds one, so two have that name.

    `twins` may miss this: the server that was asked need not be connected to both of them.
    """
    for table in tables:
        for shard in table.shards:
            for name, times in Counter(replica.server for replica in shard.replicas).items():
                if times > 1:
                    return name
    return ""


def uncertain(cluster: ClusterState) -> str:
    """Why it is not clear which server is meant by a name in the system tables. Empty if it is clear."""
    doubts = [f"{n}: {node.doubt}" for n, node in cluster.nodes.items() if node.doubt]
    if doubts:
        return "; ".join(doubts[:2])
    return f"two servers have the name {cluster.twins[0]}" if cluster.twins else ""


def accept(cluster: ClusterState, incident: Incident) -> ClusterState:
    """A person takes the servers for what they answer as. If one is still disputed, the next probe doubts it again."""
    taken = {n: _as_it_answers(cluster.nodes[n]) for n in incident.nodes}
    cluster = cluster.with_nodes(taken)
    # If two nodes would have one id now, neither gets it before its next probe: one of them may be silent, and its
    # server may have another id.
    times = Counter(node.server_id for node in cluster.nodes.values())
    names = Counter(node.server_name for node in cluster.nodes.values())
    forgotten = {}
    for name, node in taken.items():
        if times[node.server_id] > 1:
            forgotten[name] = replace(node, server_id=None, server_name=None)
        elif names[node.server_name] > 1:
            # The same holds for a name: a server that answers with it is doubted anew.
            forgotten[name] = replace(node, server_name=None)
    return cluster.with_nodes(forgotten)


def _as_it_answers(node: NodeState) -> NodeState:
    """The node without a doubt, with the id of the server that answers there."""
    node = replace(node, doubt="", server_was=None)
    if node.answers_as is None:
        return node
    # The next probe tells the name of that server.
    return replace(node, server_id=node.answers_as, answers_as=None, server_name=None)
