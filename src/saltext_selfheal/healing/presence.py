"""Whether a node's minion is there: its key is accepted on this master, and it is connected to it.

A job for a minion that is gone returns nothing, and the incident would wait for `attempt.timeout` in vain. What is
known comes from the master's own files and connections, without a job, as the event `Present`. Nobody can tell it of
every minion. So what is not known, or was told too long ago, forbids nothing.
"""

from __future__ import annotations

from dataclasses import replace

from .events import Presence, Present, Seconds
from .gate import Intent, Open, Ruling, Shut, of
from .model import NodeState, State

#: What was told longer ago counts as not known. It is told again every half minute at least.
KNOWN_FOR_S = 60.0


def take_present(state: State, event: Present, now: Seconds) -> State:
    """What is known of the minions of a cluster's nodes. Of a node that the event does not name, nothing is known."""
    cluster = state.clusters.get(event.cluster)
    if cluster is None:
        return state
    told = {
        name: replace(node, minion=event.minions.get(name, Presence.UNKNOWN), minion_at=now)
        for name, node in cluster.nodes.items()
    }
    return state.with_cluster(cluster.with_nodes(told))


def known(node: NodeState, now: Seconds) -> Presence:
    """What is known of a node's minion now."""
    if node.minion_at is None or now - node.minion_at > KNOWN_FOR_S:
        return Presence.UNKNOWN
    return node.minion


def missing(name: str, presence: Presence) -> str:
    """Why a job would not reach the minion of this name. Empty: nothing says that it would not."""
    if presence is Presence.AWAY:
        return f"minion {name} is not connected to this master"
    if presence is Presence.NOT_ACCEPTED:
        return f"the key of minion {name} is not accepted on this master"
    return ""


def minion(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No minion is known to be gone: disconnected from this master, or without an accepted key."""
    _, cluster = of(state, intent)
    found = {n: known(cluster.nodes[n], now) for n in intent.nodes if n in cluster.nodes}
    gone = [why for n, presence in found.items() if (why := missing(n, presence))]
    if gone:
        return Shut("; ".join(gone))
    unsure = [n for n, presence in found.items() if presence is Presence.UNKNOWN]
    if unsure:
        return Open(f"it is not known whether minion {', '.join(unsure)} is connected")
    return Open(f"connected to this master: {', '.join(found)}")
