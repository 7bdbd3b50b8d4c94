"""What is known of a node that refuses the dial, beside the dial itself.

A port may refuse the master and nobody else: a firewall, a ``bind`` to another address. Other nodes know whether they are
connected to its server.
"""

from __future__ import annotations

from typing import NamedTuple

from . import health
from .events import Seconds, ViewStatus
from .model import ClusterState, Fault, Seen

WORD_WITHIN_S = (
    10.0  #: so long others are waited for who can say whether a node that refuses is gone
)


class Word(NamedTuple):
    """What is known, beside the healer's own dial, of a node that refuses it."""

    gone: bool  #: others say so, or nobody else answers
    contradicted: bool  #: somebody is connected to it
    awaited: bool  #: others are being asked
    why: str


def word(cluster: ClusterState, name: str, now: Seconds) -> Word:
    """Whether anything but the refused dial speaks for the node's death, or against it."""
    node = cluster.nodes[name]
    by = health.vouched(node)
    if by:
        why = f"{by} is connected to {name}: it may serve everybody but this master"
        return Word(False, True, False, why)
    if node.answers:
        why = f"{name} answers over a connection that is open"
        return Word(False, True, False, why)
    since = node.refused_at
    if since is None:
        return Word(True, False, False, "supposed")
    others = [other for n, other in cluster.nodes.items() if n != name]
    apart = cluster.ailment(Seen(Fault.PARTITIONED)) is not None
    if apart and any(map(health.lives, others)):
        # Those who have lost it are one side: it may serve on its own.
        why = f"the nodes disagree about who is connected: nobody can say whether {name} is gone"
        return Word(False, False, False, why)
    if node.word_at is not None and node.word_at >= since:
        return Word(True, False, False, f"no other node is connected to {name}")
    if not any(map(health.lives, others)):
        return Word(True, False, False, f"no node beside {name} answers")
    may_ask = (
        node.server_id is not None
        and not node.proxy  # it stands in nobody's list
        and any(map(health.speaks, others))
        and cluster.tables.status is not ViewStatus.FORBIDDEN
    )
    if may_ask and now < since + WORD_WITHIN_S:
        return Word(False, False, True, f"others are asked whether they are connected to {name}")
    return Word(False, False, False, f"nobody can say whether {name} is gone")


def agreed_dead(cluster: ClusterState, name: str, now: Seconds) -> bool:
    """Dead beyond the healer's own dial: nobody is served by it."""
    node = cluster.nodes[name]
    dead = node.confirmed and node.fault is Fault.DEAD
    return dead and word(cluster, name, now).gone
