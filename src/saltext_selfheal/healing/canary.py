"""What the canary proves: a node answers the probe, but not what applications ask.

Theory of operation
-------------------

The probe sends a canary through each node: a read, and perhaps a write, of one document. A node that answers the probe
and lets its canary wait is *stalled*. Three things keep this from being believed too early:

* If no node that answers the probe answers its canary, the cause is hardly in each of them. Then no node is stalled, and
  the cluster is ``unavailable``.
* One canary alone does not say which of the two it is. So a node counts as stalled only when another node has answered
  its own canary since.
* Only a canary that is answered ends it. What the probe sees between two canaries proves nothing about them.

A canary that cannot be asked (the table is missing, a permission is missing) is no fault. It is told, and told again when
the reason changes. Nothing here opens an incident or orders more than a fresh dial.
"""

from __future__ import annotations

from dataclasses import replace

from .events import Canary, CanaryEnd, Seconds, ViewStatus
from .model import ClusterState, Dial, Effect, Fault, News, NodeState, State, Tell

_ANSWERING = (None, Fault.SLOW, Fault.STALLED)


def take_canary(state: State, event: Canary, now: Seconds) -> tuple[State, list[Effect]]:
    """What came of one canary. The next observations of the nodes show what follows from it."""
    cluster = state.clusters.get(event.cluster)
    if cluster is None or event.node not in cluster.nodes:
        return state, []
    before = cluster.nodes[event.node]
    if event.end is CanaryEnd.UNANSWERED:
        # After a (re)start the tables may still be opening. That is no news of a stall, but it ends none either.
        began = max(before.since or now, before.restarted_at or 0.0)
        if not before.stalled and now - began < state.policies[cluster.name].settle_s:
            return state, []
    after = cluster.with_nodes({event.node: _noted(before, event, now)})
    ended = _ended(cluster, after, event.node)
    anew = {n: _unproved(after.nodes[n], now) for n in ended}
    if everywhere(cluster) and not everywhere(after):
        # What the others have shown so far may have had one cause. Each has to be proved anew.
        waits = {n: node for n, node in after.nodes.items() if node.stalled}
        anew |= {n: replace(_unproved(node, now), stalled_since=now) for n, node in waits.items()}
    after = after.with_nodes(anew)
    dials: list[Effect] = [Dial(cluster.name, ended)] if ended else []
    return state.with_cluster(after), [*dials, *_news(cluster, after, event)]


def _noted(node: NodeState, event: Canary, now: Seconds) -> NodeState:
    """The node after this canary."""
    if event.end is CanaryEnd.UNANSWERED:
        since = node.stalled_since if node.stalled else now
        return replace(node, stalled=node.stalled or event.why, stalled_since=since, unasked="")
    answered = event.end is CanaryEnd.ANSWERED
    return replace(
        node,
        stalled="",
        stalled_since=None,
        unasked="" if answered else event.why,
        answered_at=now if answered else node.answered_at,
    )


def _ended(before: ClusterState, after: ClusterState, asked: str) -> tuple[str, ...]:
    """The nodes that look stalled and are not any more. Only a fresh dial shows a node well again."""
    return tuple(
        n
        for n, node in after.nodes.items()
        if node.fault is Fault.STALLED
        and not against(after, n)
        and (n == asked or against(before, n))
    )


def _unproved(node: NodeState, now: Seconds) -> NodeState:
    """The node after its stall has ended or is in doubt. If it stalls again, that has to last anew."""
    if node.fault is not Fault.STALLED:
        return node
    others = tuple(one for one in node.seen if one[0] is not Fault.STALLED)
    return replace(node, since=now, confirmed=False, seen=others)


def _news(before: ClusterState, after: ClusterState, event: Canary) -> list[Effect]:
    """What is told apart from incidents: each reason for which the canary cannot be asked, once, and their end."""

    def tell(why: str) -> list[Effect]:
        return [Tell(News.CANARY, after.name, event.node, why)]

    known = {node.unasked for node in before.nodes.values()}
    if event.end is CanaryEnd.UNASKED and event.why not in known:
        return tell(f"the canary cannot be asked: {event.why}")
    if known - {""} and not any(node.unasked for node in after.nodes.values()):
        return tell("the canary can be asked again")
    hidden = after.tables.status in (ViewStatus.FORBIDDEN, ViewStatus.UNKNOWN)
    if hidden and everywhere(after) and not everywhere(before):
        return tell(f"{unanswered(after)}; nothing is done: the system tables cannot be read")
    return []


# ---------------------------------------------------------------- what follows


def _answers(node: NodeState) -> bool:
    """The node answers the probe, whatever it does with the canary."""
    return node.since is not None and node.fault in _ANSWERING


def everywhere(cluster: ClusterState) -> bool:
    """No node that answers the probe answers its canary."""
    asked = [node for node in cluster.nodes.values() if _answers(node)]
    return bool(asked) and all(node.stalled for node in asked) and not _unseen(cluster)


def _unseen(cluster: ClusterState) -> bool:
    """Some node was not probed yet, so it is not known which nodes answer."""
    return any(node.since is None for node in cluster.nodes.values())


def against(cluster: ClusterState, name: str) -> str:
    """What the canary proves against this node alone, as the end of a sentence. Empty: nothing."""
    node = cluster.nodes[name]
    if not node.stalled or len(cluster.nodes) == 1:
        return ""  # where there is but one node, all of them are stalled
    others = [other for n, other in cluster.nodes.items() if n != name and _answers(other)]
    if others and all(other.stalled for other in others) and not _unseen(cluster):
        return ""
    since = node.stalled_since or 0.0
    proved = any(o.answered_at is not None and o.answered_at > since for o in others)
    # What was proved of this stall stays so, also if the others die or the healer starts anew.
    proved = proved or (node.fault is Fault.STALLED and (node.since or 0.0) > since)
    proved = proved or any(
        i.fault is Fault.STALLED and name in i.nodes and i.opened_at > since
        for i in cluster.incidents
    )
    return node.stalled if proved else ""


def unanswered(cluster: ClusterState) -> str:
    """What no node answers, in a sentence. Empty if one does."""
    if not everywhere(cluster):
        return ""
    first = next(node.stalled for node in cluster.nodes.values() if _answers(node))
    return f"no node answers {first}"


# ---------------------------------------------------------------- words for people


def told(cluster: ClusterState) -> str:
    """How the canary stands in this cluster, if something is wrong with it. Empty: it is answered, or switched off."""
    reasons = sorted({node.unasked for node in cluster.nodes.values() if node.unasked})
    if reasons:
        return f"cannot be asked: {'; '.join(reasons[:3])}"
    waits = [n for n, node in cluster.nodes.items() if node.stalled]
    return unanswered(cluster) or (f"not answered through {', '.join(waits)}" if waits else "")


def told_of(cluster: ClusterState, name: str) -> str:
    """Why the canary's silence at this node is not held against it, in a sentence. Empty: there is nothing to say."""
    node = cluster.nodes[name]
    if node.unasked:
        return f"the canary cannot be asked: {node.unasked}"
    if not node.stalled or node.fault is Fault.STALLED:
        return ""
    if everywhere(cluster):
        return unanswered(cluster)
    known = against(cluster, name)
    doubt = "" if known else ": whether another node answers it is not known yet"
    return f"{name} does not answer {node.stalled}{doubt}"
