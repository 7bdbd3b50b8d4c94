"""The word: what other nodes say about a node that refuses the healer's dial.

A refused dial alone does not prove that a server is dead. A firewall, or a ``bind`` to another address, may refuse only
the master. But the other nodes know whether they are connected to that server.
"""

from __future__ import annotations

from typing import NamedTuple

from . import health
from .events import Seconds, ViewStatus
from .model import ClusterState, Fault, Seen

#: The healer waits this long for other nodes to say whether a node that refuses the dial is gone.
WORD_WITHIN_S = 10.0


class Word(NamedTuple):
    """What is known of a node that refuses the dial, apart from the dial. At most one of the three is true.

    If none is true, nobody can say whether the node is gone.
    """

    gone: bool  #: other nodes say that it is gone, or no other node answers
    contradicted: bool  #: another node, or an open connection, shows that it still runs
    awaited: bool  #: other nodes are being asked
    why: str


def word(cluster: ClusterState, name: str, now: Seconds) -> Word:
    """What speaks for the death of this node, or against it, apart from the refused dial.

    Words against its death come first. The last cases are those in which no other node can say anything.
    """
    node = cluster.nodes[name]
    by = health.vouched(node)
    if by:
        why = f"{by} is connected to {name}: it may serve everybody but this master"
        return Word(False, True, False, why)
    if node.answers:
        why = f"{name} answers over a connection that is open"
        return Word(False, True, False, why)
    since = node.refused_at
    if since is None:  # the node does not refuse: an explanation only supposes that it is dead
        return Word(True, False, False, "supposed")
    others = [other for n, other in cluster.nodes.items() if n != name]
    apart = cluster.ailment(Seen(Fault.PARTITIONED)) is not None
    if apart and any(map(health.lives, others)):
        # The nodes that answer and have lost this one are only one side of the partition. It may serve on the other.
        why = f"the nodes disagree about who is connected: nobody can say whether {name} is gone"
        return Word(False, False, False, why)
    if node.word_at is not None and node.word_at >= since:
        return Word(True, False, False, f"no other node is connected to {name}")
    if not any(map(health.lives, others)):
        return Word(True, False, False, f"no node beside {name} answers")
    may_ask = (
        node.server_id is not None
        and not node.proxy  # a proxy is in no server's list
        and any(map(health.speaks, others))
        and cluster.tables.status is not ViewStatus.FORBIDDEN
    )
    if may_ask and now < since + WORD_WITHIN_S:
        return Word(False, False, True, f"others are asked whether they are connected to {name}")
    return Word(False, False, False, f"nobody can say whether {name} is gone")


def agreed_dead(cluster: ClusterState, name: str, now: Seconds) -> bool:
    """The node is confirmed dead, and not only by the healer's own dial: other nodes agree, or none answers."""
    node = cluster.nodes[name]
    dead = node.confirmed and node.fault is Fault.DEAD
    return dead and word(cluster, name, now).gone
