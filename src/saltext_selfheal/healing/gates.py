"""The gates: each a reason not to act now. One small pure function per gate, all of one signature.

A gate sees the whole state and one intent, and answers with a `Gate`: open or shut, why in a sentence with its
numbers, and when it opens where that is known. Gates never change anything. What is announced about a held
incident is made of these answers and of nothing else, so that telling and doing cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from . import health
from .model import Action
from .model import ClusterState
from .model import Fault
from .model import Incident
from .model import Mode
from .model import NodeState
from .model import Phase
from .model import Policy
from .model import Seconds
from .model import State
from .model import Step

WARM_UP_S = 15.0
WARM_UP_POLLS = 3


@dataclass(frozen=True)
class Intent:
    """What would be done if every gate were open."""

    cluster: str
    incident: Incident
    step: Step
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """One gate's answer. ``opens_at`` is None where only an event, not time, opens it."""

    name: str
    open: bool
    why: str
    opens_at: Seconds | None = None


def _of(state: State, intent: Intent) -> tuple[Policy, ClusterState]:
    return state.policies[intent.cluster], state.clusters[intent.cluster]


def mode(state: State, intent: Intent, now: Seconds) -> Gate:
    """The mode of the step, else of the cluster, lets the healer act by itself."""
    policy, _ = _of(state, intent)
    # The cluster's mode bounds the step's: a step may be more careful than its cluster, never less.
    order = (Mode.OFF, Mode.SHADOW, Mode.APPROVE, Mode.AUTO)
    effective = min(policy.mode, intent.step.mode or policy.mode, key=order.index)
    if effective is Mode.AUTO:
        return Gate("mode", True, "mode is auto")
    would = f"would {intent.step.action.value} {', '.join(intent.nodes)}"
    return Gate("mode", False, f"mode is {effective.value}: {would}")


def warm_up(state: State, intent: Intent, now: Seconds) -> Gate:
    """A healer that has just started has not seen enough to act."""
    _, cluster = _of(state, intent)
    polls = min((cluster.nodes[n].polls for n in intent.nodes), default=0)
    opens_at = state.started_at + WARM_UP_S
    ready = now >= opens_at and polls >= WARM_UP_POLLS
    why = f"{now - state.started_at:.0f} s and {polls} polls since the start"
    return Gate("warm-up", ready, f"{why} (needs {WARM_UP_S:.0f} s and {WARM_UP_POLLS})", opens_at)


def target(state: State, intent: Intent, now: Seconds) -> Gate:
    """Exact minions, at least one, each configured and inside the cluster's pattern."""
    policy, _ = _of(state, intent)
    if not intent.nodes:
        return Gate("target", False, "no node is left to act on")
    foreign = [
        n for n in intent.nodes if n not in policy.nodes or not fnmatchcase(n, policy.minions)
    ]
    if foreign:
        return Gate(
            "target", False, f"{', '.join(foreign)}: not allowed by minions {policy.minions!r}"
        )
    return Gate("target", True, f"{', '.join(intent.nodes)} allowed by {policy.minions!r}")


def confirmed(state: State, intent: Intent, now: Seconds) -> Gate:
    """Every node named shows the incident's fault, confirmed; for a request, every node has been seen."""
    _, cluster = _of(state, intent)
    if intent.incident.fault is Fault.REQUESTED:
        unseen = [n for n in intent.nodes if cluster.nodes[n].since is None]
        why = f"not probed yet: {', '.join(unseen)}" if unseen else "requested"
        return Gate("confirmed", not unseen, why)
    doubtful = [n for n in intent.nodes if not health.confirmed(cluster, intent.incident, n)]
    where = f"not confirmed on {', '.join(doubtful)}" if doubtful else "confirmed"
    why = f"{intent.incident.called} {where}"
    return Gate("confirmed", not doubtful, why)


def blind(state: State, intent: Intent, now: Seconds) -> Gate:
    """A healer that does not trust its own eyes does nothing."""
    return Gate("blind", not state.blind, state.blind or "the healer trusts its own eyes")


def fresh(state: State, intent: Intent, now: Seconds) -> Gate:
    """What the healer believes was seen lately."""
    policy, cluster = _of(state, intent)
    old = [n for n in intent.nodes if not health.fresh(cluster, policy, intent.incident, n, now)]
    why = f"not seen lately: {', '.join(old)}" if old else "seen lately"
    return Gate("fresh", not old, why)


def flapping(state: State, intent: Intent, now: Seconds) -> Gate:
    """A node that comes and goes by itself is left alone until it is quiet, or steadily faulty."""
    _, cluster = _of(state, intent)
    restless = [n for n in intent.nodes if cluster.nodes[n].flapping]
    if not restless:
        return Gate("flapping", True, "no node comes and goes")
    return Gate("flapping", False, f"{', '.join(restless)} comes and goes by itself")


def decided(state: State, intent: Intent, now: Seconds) -> Gate:
    """Dead nodes are started together, so the first attempt waits until every suspected node is decided."""
    policy, cluster = _of(state, intent)
    incident = intent.incident
    if incident.fault is not Fault.DEAD or incident.attempts:
        return Gate("decided", True, "no first attempt on dead nodes")
    suspected = [n for n in policy.nodes if cluster.nodes[n].suspected]
    confirm_s = max(policy.confirm_s.values(), default=0.0)
    opens_at = incident.changed_at + confirm_s + policy.poll_s + policy.timeout_s
    if not suspected or now >= opens_at:
        return Gate("decided", True, "every suspected node is decided")
    return Gate("decided", False, f"still suspected: {', '.join(suspected)}", opens_at)


def in_flight(state: State, intent: Intent, now: Seconds) -> Gate:
    """One attempt at a time in a cluster."""
    _, cluster = _of(state, intent)
    busy = cluster.attempt or cluster.look
    if busy is None:
        return Gate("in flight", True, "nothing in flight")
    return Gate("in flight", False, f"attempt {busy.id} ({busy.action.value}) has not ended")


def locked(state: State, intent: Intent, now: Seconds) -> Gate:
    """Where the healer has given up, a person must come first.

    A request that failed locks requests, not the healing of the database itself.
    """
    _, cluster = _of(state, intent)
    requested = intent.incident.fault is Fault.REQUESTED
    for other in cluster.incidents:
        if other.phase is not Phase.LOCKED or not set(other.nodes) & set(intent.nodes):
            continue
        if other.fault is not Fault.REQUESTED or requested:
            return Gate("locked", False, f"{other.id} is locked: {other.why}")
    return Gate("locked", True, "no lock on these nodes")


def after(state: State, intent: Intent, now: Seconds) -> Gate:
    """The step's ``after`` since the incident opened, and any pause the incident was given."""
    opens_at = max(intent.incident.opened_at + intent.step.after_s, intent.incident.not_before)
    if now >= opens_at:
        return Gate("after", True, "the step is due")
    return Gate("after", False, f"the step is due in {opens_at - now:.0f} s", opens_at)


def cooldown(state: State, intent: Intent, now: Seconds) -> Gate:
    """A node rests after an attempt of another incident, counted from that attempt's end."""
    _, cluster = _of(state, intent)
    resting = [
        (node.cooldown_until, name)
        for name, node in ((n, cluster.nodes[n]) for n in intent.nodes)
        if node.cooldown_until > now and node.cooldown_incident != intent.incident.id
    ]
    if not resting:
        return Gate("cooldown", True, "no node rests")
    opens_at, name = max(resting)
    return Gate("cooldown", False, f"{name} rests for {opens_at - now:.0f} s more", opens_at)


def budget(state: State, intent: Intent, now: Seconds) -> Gate:
    """Attempts per node within a sliding window."""
    policy, cluster = _of(state, intent)
    allowed = policy.budget_attempts
    if not allowed:
        return Gate("budget", True, "no budget configured")
    most = 0
    for name in intent.nodes:
        recent = sorted(t for t in cluster.nodes[name].spent if t > now - policy.budget_per_s)
        most = max(most, len(recent))
        if len(recent) >= allowed:
            opens_at = recent[len(recent) - allowed] + policy.budget_per_s
            why = f"{name} has had {len(recent)} of {allowed} attempts per {policy.budget_per_s:.0f} s"
            return Gate("budget", False, why, opens_at)
    return Gate("budget", True, f"{most} of {allowed} attempts per {policy.budget_per_s:.0f} s")


def limits(state: State, intent: Intent, now: Seconds) -> Gate:
    """Attempts over all clusters within a sliding window."""
    bounds = state.limits
    if not bounds.attempts:
        return Gate("limits", True, "no limit configured")
    # An attempt that names three nodes is one attempt: its nodes were charged in the same instant.
    recent = sorted(
        {
            (cluster.name, t)
            for cluster in state.clusters.values()
            for node in cluster.nodes.values()
            for t in node.spent
            if t > now - bounds.per_s
        },
        key=lambda one: one[1],
    )
    why = f"{len(recent)} of {bounds.attempts} attempts per {bounds.per_s:.0f} s over all clusters"
    if len(recent) < bounds.attempts:
        return Gate("limits", True, why)
    return Gate("limits", False, why, recent[len(recent) - bounds.attempts][1] + bounds.per_s)


def _ill(node: NodeState) -> bool:
    return node.fault is not None


def storm(state: State, intent: Intent, now: Seconds) -> Gate:
    """When many clusters fail at once, the cause is hardly in each of them."""
    clusters = state.clusters.values()
    share = state.limits.storm_share
    ill = sum(1 for cluster in clusters if any(_ill(node) for node in cluster.nodes.values()))
    why = f"{ill} of {len(clusters)} clusters show a fault (storm at {share:.0%} of >= 3)"
    return Gate("storm", not share or len(clusters) < 3 or ill <= share * len(clusters), why)


def one_at_a_time(state: State, intent: Intent, now: Seconds) -> Gate:
    """An action that can take a serving node away goes to one node at a time.

    As long as nothing is known of the tables' replicas, a node that may serve is not risked while one that this
    incident is not about is away. A hung node does not serve: what needs it is lost already.
    """
    _, cluster = _of(state, intent)
    incident = intent.incident
    if intent.step.action in (Action.START, Action.LOOK) or incident.fault is Fault.DEAD:
        return Gate("one at a time", True, "takes no serving node away")
    if len(intent.nodes) > 1:
        return Gate("one at a time", False, "several nodes that may serve are named")
    if incident.fault is Fault.HUNG:
        return Gate("one at a time", True, "the node does not answer")
    # A request is not about anybody's fault: a node that has one is its own incident's business.
    concerned = () if incident.fault is Fault.REQUESTED else incident.nodes
    others = [n for n, node in cluster.nodes.items() if n not in concerned and not node.well]
    if others:
        return Gate("one at a time", False, f"not well at the moment: {', '.join(others)}")
    return Gate("one at a time", True, "the only node taken away")


GATES: tuple[Callable[[State, Intent, Seconds], Gate], ...] = (
    mode,
    warm_up,
    target,
    blind,
    fresh,
    confirmed,
    flapping,
    decided,
    in_flight,
    locked,
    after,
    cooldown,
    budget,
    limits,
    storm,
    one_at_a_time,
)


def judge(state: State, intent: Intent, now: Seconds) -> tuple[Gate, ...]:
    """Every gate's answer, in the order in which an operator reads them."""
    return tuple(gate(state, intent, now) for gate in GATES)


def shut(gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """The gates that forbid acting now."""
    return tuple(gate for gate in gates if not gate.open)
