"""Whose server answers on a node's address. Pure.

A node of the settings is a minion and an address. What is restarted is the minion's service, what is probed is the server
behind the address: if these two are not one, a restart hits another server than the one that is ill. Three things show
it: two addresses that lead to one place, a server's id that another node has, and a name that two servers of one cluster
have (system tables speak of names). A node of which one of these is true is *in doubt*, and so is the other one: nothing
is done to either, until it answers with an identity that nobody disputes, or a person takes it as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from .events import Observation, Table
from .model import ClusterState, Incident, NodeState, State

Place = tuple[str, str]  #: cluster and node


def judge(state: State, seen: Observation) -> State:
    """The state after this look at a node, as far as it is about whose server answers.

    Nearly always nothing is new, and nothing is compared.
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
    if known or (before.doubt and not seen.dialled):  # only a fresh dial tells where it leads
        return state
    node = replace(before, addresses=addresses)
    disputed = list(_disputes(state, (seen.cluster, seen.node), node, seen))
    told = "; ".join(why for _, why in disputed[:3])
    if not answered and before.doubt:
        told = before.doubt  # who does not answer cannot dispel it
    foreign = answered and any(why.startswith(_AS) for _, why in disputed)
    # Its own id, or one that nobody has, is its own from now on.
    as_another = seen.server_id if foreign and seen.server_id != before.server_id else None
    node = replace(node, doubt=told, answers_as=as_another)
    state = state.with_cluster(cluster.with_nodes({seen.node: node}))
    for (where, name), why in disputed:
        other = state.clusters[where].nodes[name]
        if not other.doubt:
            twin = replace(other, doubt=why)
            state = state.with_cluster(state.clusters[where].with_nodes({name: twin}))
    return state


_AS = "answers as "


def _disputes(
    state: State, place: Place, node: NodeState, seen: Observation
) -> Iterator[tuple[Place, str]]:
    """Which nodes dispute what this one is, and why."""
    here, name = place
    server = seen.server_id
    title = None if seen.proxy else seen.server_name or node.server_name
    mine, own = frozenset(node.addresses), node.server_id
    for where, cluster in state.clusters.items():
        for other_name, other in cluster.nodes.items():
            if (where, other_name) == place:
                continue
            # There may be a thousand others, and nearly always nothing is disputed.
            if not mine.isdisjoint(other.addresses):
                shared = min(mine & set(other.addresses))
                told = f"{_both(place, where, other_name)} lead to one address, {shared}"
                yield (where, other_name), told
            # Asked by itself: an id that another node has never becomes this one's, whatever else is disputed.
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
    return f"{place[1]} and {name}" if place[0] == where else f"{place[1]} and {name} of {where}"


def twins(names: Mapping[str, str]) -> tuple[str, ...]:
    """The names that two servers have. ``names``: server id → name."""
    return tuple(sorted(name for name, times in Counter(names.values()).items() if times > 1))


def listed_twice(tables: Iterable[Table]) -> str:
    """A name under which one shard lists two replicas, empty if there is none: a server holds one, so two have the name.

    The one that was asked need not be connected to both, and then `twins` does not hear of the second.
    """
    for table in tables:
        for shard in table.shards:
            for name, times in Counter(replica.server for replica in shard.replicas).items():
                if times > 1:
                    return name
    return ""


def uncertain(cluster: ClusterState) -> str:
    """Why what the system tables say of the cluster's servers is not clear; empty if it is."""
    doubts = [f"{n}: {node.doubt}" for n, node in cluster.nodes.items() if node.doubt]
    if doubts:
        return "; ".join(doubts[:2])
    return f"two servers have the name {cluster.twins[0]}" if cluster.twins else ""


def accept(cluster: ClusterState, incident: Incident) -> ClusterState:
    """A person has looked: the servers are what they answer as now. What is still disputed is in doubt again soon."""
    taken = {n: _as_it_answers(cluster.nodes[n]) for n in incident.nodes}
    cluster = cluster.with_nodes(taken)
    # An id that two nodes would have is nobody's until the next look: one of them may be silent, and never had it.
    times = Counter(node.server_id for node in cluster.nodes.values())
    twice = {n: node for n, node in taken.items() if times[node.server_id] > 1}
    forgotten = {n: replace(one, server_id=None, server_name=None) for n, one in twice.items()}
    return cluster.with_nodes(forgotten)


def _as_it_answers(node: NodeState) -> NodeState:
    node = replace(node, doubt="", server_was=None)
    if node.answers_as is None:
        return node
    # What the other server is called, the next look tells.
    return replace(node, server_id=node.answers_as, answers_as=None, server_name=None)
