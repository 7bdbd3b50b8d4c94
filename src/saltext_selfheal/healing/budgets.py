"""What may be spent: attempts per node, and attempts over all clusters, each within a sliding window."""

from __future__ import annotations

from collections.abc import Sequence

from .events import Seconds
from .gate import Intent, Open, Ruling, Shut, of
from .model import Incident, NodeState, Policy, State


def recent(node: NodeState, policy: Policy, now: Seconds) -> tuple[Seconds, ...]:
    """The attempts that count against the node's budget now, oldest first."""
    return tuple(sorted(t for t in node.spent if t > now - policy.budget_per_s))


def share(most: int, incident: Incident) -> int:
    """How many of these attempts an incident may use. Requests must leave half of them for what the probe finds."""
    asked = incident.fault is None and not incident.forced
    return most // 2 if asked else most


def _left_by(
    paid: Sequence[Seconds], most: int, per_s: Seconds, incident: Incident, state: State
) -> Ruling:
    """Whether one more attempt is allowed after those in ``paid``, if ``most`` are allowed within ``per_s``."""
    allowed = share(most, incident)
    if not allowed:
        return Shut(f"requests may use none of {most} per {per_s:.0f} s")
    # The attempts of requests and of the healer are counted together, so there may be more than requests may use.
    of = f", of which requests may use {allowed}" if allowed < most else ""
    why = f"{len(paid)} of {most} attempts per {per_s:.0f} s{of}"
    forgotten_at = {c.forgotten_at for c in state.clusters.values() if c.forgotten_at is not None}
    supposed = sum(1 for t in paid if t in forgotten_at) if forgotten_at else 0
    if supposed:
        why += f" ({supposed} supposed: the ledger was lost)"
    if len(paid) < allowed:
        return Open(why)
    return Shut(why, paid[len(paid) - allowed] + per_s)


def budget(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Each node has attempts left within a sliding window."""
    policy, cluster = of(state, intent)
    most, per_s = policy.budget_attempts, policy.budget_per_s
    if not most:
        return Open("no budget configured")
    paid = {name: recent(cluster.nodes[name], policy, now) for name in intent.nodes}
    name = max(paid, key=lambda one: len(paid[one]), default=None)
    left = _left_by(paid[name] if name else (), most, per_s, intent.incident, state)
    had = not left.open and paid.get(name or "")
    return left._replace(why=f"{name} has had {left.why}") if had else left


def limits(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Attempts are left over all clusters within a sliding window."""
    bounds = state.limits
    if not bounds.attempts:
        return Open("no limit configured")
    paid = sorted(
        t for cluster in state.clusters.values() for t in cluster.acts if t > now - bounds.per_s
    )
    left = _left_by(paid, bounds.attempts, bounds.per_s, intent.incident, state)
    return left._replace(why=f"over all clusters {left.why}")
