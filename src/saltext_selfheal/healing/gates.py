"""The gates: each a reason not to act now. One small pure function per gate, all of one signature.

A gate sees the whole state and one intent, and answers with a `Gate`: open or shut, why in a sentence with its
numbers, and when it opens where that is known. Gates never change anything. What is announced about a held
incident is made of these answers and of nothing else, so that telling and doing cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from . import escalation, health
from . import identity as identities
from . import looks, remedies
from .model import (
    CLUSTER_WIDE,
    ClusterState,
    Fault,
    Incident,
    Late,
    Mode,
    NodeState,
    Phase,
    Policy,
    Seconds,
    State,
    Step,
    Table,
    ViewStatus,
)

WARM_UP_S = 15.0
WARM_UP_POLLS = 3
WORD_WITHIN_S = (
    10.0  #: so long others are waited for who can say whether a node that refuses is gone
)
APPROVED_FOR_S = 900.0  #: an approval that no attempt followed within this has expired

#: A node with one of these does not answer: nobody is served by it.
AWAY = frozenset({Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE})
#: What the tables say of it may hold for others; the healer does not rely on it.
UNSURE = AWAY | {Fault.CUT_OFF}


class Intent(NamedTuple):
    """What would be done if every gate were open."""

    cluster: str
    incident: Incident
    step: Step
    nodes: tuple[str, ...]


class Gate(NamedTuple):
    """One gate's answer. ``opens_at`` is None where only an event, not time, opens it."""

    name: str
    open: bool
    why: str
    opens_at: Seconds | None = None


def _of(state: State, intent: Intent) -> tuple[Policy, ClusterState]:
    return state.policies[intent.cluster], state.clusters[intent.cluster]


def mode_of(policy: Policy, step: Step) -> Mode:
    """The cluster's mode bounds the step's: a step may be more careful than its cluster, never less."""
    if step.mode is None:
        return policy.mode
    order = (Mode.OFF, Mode.SHADOW, Mode.APPROVE, Mode.AUTO)
    return min(policy.mode, step.mode, key=order.index)


def mode(state: State, intent: Intent, now: Seconds) -> Gate:
    """The mode of the step, or of the cluster, lets the healer act."""
    policy, _ = _of(state, intent)
    effective = mode_of(policy, intent.step)
    if effective in (Mode.AUTO, Mode.APPROVE):
        return Gate("mode", True, f"mode is {effective.value}")
    would = f"would {intent.step.action.value} {', '.join(intent.nodes)}"
    return Gate("mode", False, f"mode is {effective.value}: {would}")


def approval(state: State, intent: Intent, now: Seconds) -> Gate:
    """In mode ``approve`` a person has said yes to this step, lately."""
    policy, _ = _of(state, intent)
    incident = intent.incident
    if mode_of(policy, intent.step) is not Mode.APPROVE:
        return Gate("approval", True, "none needed")
    if incident.approved_step == incident.step:
        # A step that rolls over several nodes was approved for all that the incident had then.
        since = max(incident.approved_at, incident.changed_at if incident.tried else 0.0)
        if now < since + APPROVED_FOR_S and set(intent.nodes) <= set(incident.approved_nodes):
            return Gate("approval", True, f"approved by {incident.approved_by}")
    would = f"{intent.step.action.value} on {', '.join(intent.nodes)}"
    if not incident.id:  # supposed, for an explanation
        return Gate("approval", False, f"{would} would wait for a person's approval")
    name = f"{incident.id}.{incident.attempts + 1}"
    return Gate("approval", False, f"{would} waits for: salt-run selfheal.approve {name}")


def paused(state: State, intent: Intent, now: Seconds) -> Gate:
    """Nobody has asked the healer to keep still."""
    _, cluster = _of(state, intent)
    pause = cluster.pause
    if pause is None or pause.until <= now:
        return Gate("paused", True, "not paused")
    why = f"by {pause.by} for {pause.until - now:.0f} s more: {pause.why}"
    return Gate("paused", False, why, pause.until)


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
    """Every node named shows the incident's fault, confirmed; for a request, every node was seen and is well."""
    _, cluster = _of(state, intent)
    if intent.incident.fault is Fault.REQUESTED:
        unseen = [n for n in intent.nodes if cluster.nodes[n].since is None]
        if unseen:
            return Gate("confirmed", False, f"not probed yet: {', '.join(unseen)}")
        if intent.incident.forced:
            return Gate("confirmed", True, "forced by an operator")
        ill = [n for n in intent.nodes if not cluster.nodes[n].well]
        treated = [n for n in ill if _treated(state, cluster, n)]
        if treated:
            why = f"has an incident of its own: {', '.join(treated)}"
            return Gate("confirmed", False, why)
        for name in ill:
            fault = cluster.nodes[name].fault
            if fault and intent.step.action in remedies.forbidden(fault):
                why = f"{intent.step.action.value} does not help against {fault.value} on {name}"
                return Gate("confirmed", False, why)
        return Gate("confirmed", True, "requested")
    doubtful = [n for n in intent.nodes if not health.confirmed(cluster, intent.incident, n)]
    where = f"not confirmed on {', '.join(doubtful)}" if doubtful else "confirmed"
    why = f"{intent.incident.called} {where}"
    return Gate("confirmed", not doubtful, why)


def _treated(state: State, cluster: ClusterState, name: str) -> bool:
    """An incident of the node's own fault has a step to come for it."""
    fault = cluster.nodes[name].fault
    return any(
        i.fault is fault and name in i.nodes and has_step_to_come(state.policies[cluster.name], i)
        for i in cluster.incidents
    )


def has_step_to_come(policy: Policy, incident: Incident) -> bool:
    """Something is still to be done in this incident, or is being done."""
    if incident.phase in (Phase.REMEDIATING, Phase.VERIFYING):
        return True
    steps = incident.steps
    if incident.phase is Phase.SUSPECTED:
        steps = policy.escalation.get(incident.fault, escalation.DEFAULT[incident.fault])
    return incident.phase is not Phase.LOCKED and incident.step < len(steps)


def identity(state: State, intent: Intent, now: Seconds) -> Gate:
    """The server that was probed is the one that the minion's service runs."""
    _, cluster = _of(state, intent)
    for name in intent.nodes:
        node = cluster.nodes[name]
        if node.doubt:
            return Gate("identity", False, f"whose server {name} is, is in doubt: {node.doubt}")
        if intent.incident.fault is Fault.ALIEN and node.server_id is None:
            why = f"{name} has never answered as RethinkDB: is its address right?"
            return Gate("identity", False, why)
    return Gate("identity", True, "no node is in doubt")


class Word(NamedTuple):
    """What is known, beside the healer's own dial, of a node that refuses it."""

    gone: bool  #: others say so, or nobody else answers
    contradicted: bool  #: somebody is connected to it
    awaited: bool  #: others are being asked
    why: str


def word(state: State, name: str, cluster: ClusterState, now: Seconds) -> Word:
    """Whether anything but the refused dial speaks for the node's death, or against it."""
    node = cluster.nodes[name]
    by = health.vouched(node)
    if by:
        why = f"{by} is connected to {name}: it may serve everybody but this master"
        return Word(False, True, False, why)
    since = node.refused_at
    if since is None:
        return Word(True, False, False, "supposed")
    if node.word_at is not None and node.word_at >= since:
        return Word(True, False, False, f"no other node is connected to {name}")
    others = [other for n, other in cluster.nodes.items() if n != name]
    if not any(map(health.lives, others)):
        return Word(True, False, False, f"no node beside {name} answers")
    may_ask = (
        node.server_id is not None
        and not node.proxy  # it stands in nobody's list
        and any(map(health.speaks, others))
        and not cluster.view.startswith(ViewStatus.FORBIDDEN.value)
    )
    if may_ask and now < since + WORD_WITHIN_S:
        return Word(False, False, True, f"others are asked whether they are connected to {name}")
    return Word(False, False, False, f"nobody can say whether {name} is gone")


def agreed(state: State, intent: Intent, now: Seconds) -> Gate:
    """A node that refuses the dial is dead only if no other node that answers is connected to it.

    Where nobody can say so, it is treated as a node that may serve: one at a time, and the quorum is asked.
    """
    _, cluster = _of(state, intent)
    if intent.incident.fault is not Fault.DEAD:
        return Gate("agreed", True, "not about a dead node")
    words = [word(state, n, cluster, now) for n in intent.nodes]
    for one in words:
        if one.contradicted or one.awaited:
            opens = [cluster.nodes[n].refused_at or now for n in intent.nodes]
            opens_at = max(opens) + WORD_WITHIN_S if one.awaited else None
            return Gate("agreed", False, one.why, opens_at)
    unsure = [one for one in words if not one.gone]
    if unsure and len(intent.nodes) > 1:
        return Gate("agreed", False, f"{unsure[0].why}: one at a time")
    return Gate("agreed", True, words[0].why if words else "no node is meant")


def agreed_dead(state: State, cluster: ClusterState, name: str, now: Seconds) -> bool:
    """Dead beyond the healer's own dial: nobody is served by it."""
    node = cluster.nodes[name]
    dead = node.confirmed and node.fault is Fault.DEAD
    return dead and word(state, name, cluster, now).gone


def blind(state: State, intent: Intent, now: Seconds) -> Gate:
    """A healer that does not trust its own eyes does nothing."""
    return Gate("blind", not state.blind, state.blind or "the healer trusts its own eyes")


def fresh(state: State, intent: Intent, now: Seconds) -> Gate:
    """What the healer believes was seen lately, and the nodes of the last attempt since its end."""
    policy, cluster = _of(state, intent)
    incident = intent.incident
    acted_at = incident.acted_at
    unseen = [
        n
        for n in incident.acting
        if acted_at and not health.seen_since(cluster, incident, n, acted_at)
    ]
    if unseen:
        return Gate("fresh", False, f"not seen since the last attempt: {', '.join(unseen)}")
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
    busy = cluster.attempt
    if busy is None:
        return Gate("in flight", True, "nothing in flight")
    return Gate("in flight", False, f"attempt {busy.id} ({busy.action.value}) has not ended")


def look(state: State, intent: Intent, now: Seconds) -> Gate:
    """No job of ours may still run on these minions, whatever was said of it; in a roll on none that had its turn."""
    _, cluster = _of(state, intent)
    if cluster.look is not None:
        return Gate("look", False, f"asking what {', '.join(cluster.look.nodes)} runs")
    own = runs_on(state, intent, now)
    if not own.open or _harmless(state, cluster, intent, now):
        return own
    for late in cluster.late:
        if late.attempt.incident == intent.incident.id and looks.unproven(late):
            return _may_run(late, looks.unproven(late))
    return own


def runs_on(state: State, intent: Intent, now: Seconds) -> Gate:
    """The part of `look` that is about these nodes alone."""
    _, cluster = _of(state, intent)
    for late in cluster.late:
        there = [n for n in looks.unproven(late) if n in intent.nodes]
        if there:
            return _may_run(late, there)
    return Gate("look", True, "no job of ours runs on")


def not_cleared(state: State, intent: Intent, now: Seconds) -> Gate:
    """As `runs_on`, but a look that is on its way, or the first one, is worth waiting for together."""
    _, cluster = _of(state, intent)
    for late in cluster.late:
        asked = late.looks == 0 or (cluster.look is not None and cluster.look.of == late.attempt.id)
        there = [n for n in looks.unproven(late) if n in intent.nodes]
        if there and (not asked or set(there) & set(looks.owed(late.attempt))):
            return _may_run(late, there)
    return Gate("look", True, "no job of ours runs on, as far as was looked")


def _may_run(late: Late, nodes: Sequence[str]) -> Gate:
    what = f"{late.attempt.action.value} of {late.attempt.id}"
    return Gate("look", False, f"{what} may still run on {', '.join(sorted(nodes))}")


def locked(state: State, intent: Intent, now: Seconds) -> Gate:
    """Where the healer has given up, a person must come first.

    A request that failed locks requests, not the healing of the database itself; a person's lock locks all.
    """
    _, cluster = _of(state, intent)
    requested = intent.incident.fault is Fault.REQUESTED
    for other in cluster.incidents:
        if other.phase is not Phase.LOCKED or not set(other.nodes) & set(intent.nodes):
            continue
        if other.by_hand or other.fault is not Fault.REQUESTED or requested:
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


def recent(node: NodeState, policy: Policy, now: Seconds) -> tuple[Seconds, ...]:
    """The attempts that count against the node's budget now, oldest first."""
    return tuple(sorted(t for t in node.spent if t > now - policy.budget_per_s))


def share(most: int, incident: Incident) -> int:
    """What an incident may use of so many attempts: requests leave half of them for what the probe itself finds."""
    asked = incident.fault is Fault.REQUESTED and not incident.forced
    return most // 2 if asked else most


def _left_by(
    paid: Sequence[Seconds], most: int, per_s: Seconds, incident: Incident, state: State
) -> Gate:
    """Whether one more is allowed, by the share of so many per so long; unnamed."""
    allowed = share(most, incident)
    left = f" that requests may use of {most}" if allowed < most else ""
    if not allowed:
        return Gate("", False, f"requests may use none of {most} per {per_s:.0f} s")
    why = f"{len(paid)} of {allowed} attempts{left} per {per_s:.0f} s"
    forgotten_at = {c.forgotten_at for c in state.clusters.values() if c.forgotten_at is not None}
    supposed = sum(1 for t in paid if t in forgotten_at) if forgotten_at else 0
    if supposed:
        why += f" ({supposed} supposed: the ledger was lost)"
    if len(paid) < allowed:
        return Gate("", True, why)
    return Gate("", False, why, paid[len(paid) - allowed] + per_s)


def budget(state: State, intent: Intent, now: Seconds) -> Gate:
    """Attempts per node within a sliding window."""
    policy, cluster = _of(state, intent)
    most, per_s = policy.budget_attempts, policy.budget_per_s
    if not most:
        return Gate("budget", True, "no budget configured")
    paid = {name: recent(cluster.nodes[name], policy, now) for name in intent.nodes}
    name = max(paid, key=lambda one: len(paid[one]), default=None)
    left = _left_by(paid[name] if name else (), most, per_s, intent.incident, state)
    had = not left.open and paid.get(name or "")
    return left._replace(name="budget", why=f"{name} has had {left.why}" if had else left.why)


def limits(state: State, intent: Intent, now: Seconds) -> Gate:
    """Attempts over all clusters within a sliding window."""
    bounds = state.limits
    if not bounds.attempts:
        return Gate("limits", True, "no limit configured")
    paid = sorted(
        t for cluster in state.clusters.values() for t in cluster.acts if t > now - bounds.per_s
    )
    left = _left_by(paid, bounds.attempts, bounds.per_s, intent.incident, state)
    return left._replace(name="limits", why=f"{left.why} over all clusters")


def _ill(cluster: ClusterState, now: Seconds) -> bool:
    """A node shows a fault, or the cluster as a whole does not serve, as far as that was seen lately.

    What an issue tells is no outage.
    """
    if any(node.fault is not None for node in cluster.nodes.values()):
        return True
    lately = cluster.viewed_at is not None and now - cluster.viewed_at <= health.VIEW_AGE_S
    return lately and any(a.fault is not Fault.ISSUE for a in cluster.ailments.values())


def storm(state: State, intent: Intent, now: Seconds) -> Gate:
    """When many clusters fail at once, the cause is hardly in each of them."""
    clusters = state.clusters.values()
    share = state.limits.storm_share
    ill = sum(1 for cluster in clusters if _ill(cluster, now))
    why = f"{ill} of {len(clusters)} clusters show a fault (storm at {share:.0%} of >= 3)"
    return Gate("storm", not share or len(clusters) < 3 or ill <= share * len(clusters), why)


def _harmless(state: State, cluster: ClusterState, intent: Intent, now: Seconds) -> bool:
    """The action takes no serving node away: it only starts, or none of the nodes serves."""
    if not remedies.TABLE[intent.step.action].takes_away:
        return True
    return all(agreed_dead(state, cluster, n, now) for n in intent.nodes)


def one_at_a_time(state: State, intent: Intent, now: Seconds) -> Gate:
    """An action that can take a serving node away goes to one node at a time.

    As long as nothing is known of the tables' replicas, a node that may serve is not risked while one that this
    incident is not about is away. A hung node does not serve: what needs it is lost already.
    """
    _, cluster = _of(state, intent)
    incident = intent.incident
    if _harmless(state, cluster, intent, now):
        return Gate("one at a time", True, "takes no serving node away")
    if len(intent.nodes) > 1:
        return Gate("one at a time", False, "several nodes that may serve are named")
    if incident.fault is Fault.HUNG and all(_away(state, cluster, n, now) for n in intent.nodes):
        return Gate("one at a time", True, "the node does not answer")
    if incident.fault is Fault.DEAD:
        return Gate(
            "one at a time", True, "it refuses the dial, and nobody can say whether it is gone"
        )
    had = [n for n in incident.tried if n in cluster.nodes and n not in intent.nodes]
    tried = {n: cluster.nodes[n] for n in had}
    served = incident.fault is Fault.REQUESTED or incident.fault in CLUSTER_WIDE
    broken = [n for n, node in tried.items() if node.fault in AWAY or (served and not node.well)]
    if broken:
        return Gate("one at a time", False, f"not well after its turn: {', '.join(broken)}")
    if table_map(state, intent, now) is not None:
        return Gate("one at a time", True, "the tables' replicas are known")
    others = [
        n
        for n, node in cluster.nodes.items()
        if not node.well and not node.proxy and not _about(incident, n, node)
    ]
    if others:
        return Gate("one at a time", False, f"not well at the moment: {', '.join(others)}")
    return Gate("one at a time", True, "the only node taken away")


def _about(incident: Incident, name: str, node: NodeState) -> bool:
    """The node is not well for the very reason that the incident is about."""
    # A request is not about anybody's fault; what is forced may be about its own nodes'.
    return name in incident.nodes and (incident.forced or node.fault is incident.fault)


def table_map(
    state: State, intent: Intent, now: Seconds
) -> tuple[Seconds, tuple[Table, ...]] | None:
    """When the tables were looked at last, and what they were; None if that is too long ago."""
    known = state.maps.get(intent.cluster)
    return None if known is None or now - known[0] > health.VIEW_AGE_S else known


def _away(state: State, cluster: ClusterState, name: str, now: Seconds) -> bool:
    """It serves nobody: it does not answer, one late probe is not all that says so, and nobody says otherwise.

    One whose open connections answer serves those who have them. One that only this master cannot reach may serve all.
    """
    node = cluster.nodes[name]
    if node.fault is Fault.DEAD:
        return agreed_dead(state, cluster, name, now)
    if node.answers or (node.fault is Fault.UNREACHABLE and health.vouched(node)):
        return False
    return node.confirmed and node.fault in AWAY


def quorum(state: State, intent: Intent, now: Seconds) -> Gate:
    """No shard that serves now would lose the majority of its voting replicas that are ready now.

    What needs a node that does not answer is lost already, as far as that node is concerned. What the tables say of
    the others holds: that the healer cannot reach a replica's node proves nothing about those who can. Such a
    replica, and one whose node is not known, counts as serving now and as missing afterwards. A dead one serves nobody.
    """
    _, cluster = _of(state, intent)
    if _harmless(state, cluster, intent, now):
        return Gate("quorum", True, "takes no serving node away")
    in_doubt = identities.uncertain(cluster)
    if in_doubt:
        return Gate("quorum", False, f"which server is which is in doubt: {in_doubt}")
    serving = [
        n for n in intent.nodes if not cluster.nodes[n].proxy and not _away(state, cluster, n, now)
    ]
    if not serving:
        why = "serves nobody, or holds no replica"
        return Gate("quorum", True, f"{', '.join(intent.nodes)} {why}")
    if health.named(Fault.PARTITIONED) in cluster.ailments:
        # Also when nobody can look any more: who knows less must not do more.
        why = "the nodes disagree about who is connected: the table map is one side's"
        return Gate("quorum", False, why)
    known = table_map(state, intent, now)
    if known is None:
        return Gate("quorum", True, "no table map of the last minute: one node at a time")
    taken, tables = known
    changed = max([cluster.acted_at, *(n.since or 0.0 for n in cluster.nodes.values())])
    if taken <= changed:
        opens_at = taken + health.VIEW_AGE_S
        return Gate("quorum", False, "the table map is older than the last change", opens_at)
    lost = [told for table in tables for told in _lost(state, cluster, table, serving, now)]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return Gate("quorum", False, f"without {', '.join(serving)} {lost[0]}{more}")
    return Gate("quorum", True, f"no shard of {len(tables)} tables loses its majority")


def _lost(
    state: State, cluster: ClusterState, table: Table, leaving: list[str], now: Seconds
) -> Iterator[str]:
    """The shards of this table that serve now and would not without those nodes, in words.

    A server that is no node's may be the one of a node that leaves and has never told its name.
    """
    by_server = {n.server_name: (name, n) for name, n in cluster.nodes.items() if n.server_name}
    nameless = any(not cluster.nodes[n].server_name for n in leaving)
    for number, shard in enumerate(table.shards, 1):
        voters = [r for r in shard.replicas if r.voting]
        now_ready = then_ready = 0
        for replica in voters:
            if replica.state != "ready":
                continue
            name, node = by_server.get(replica.server, ("", None))
            sure = not nameless if node is None else node.since is not None
            sure = sure and (node is None or node.fault not in UNSURE)
            gone = node is not None and agreed_dead(state, cluster, name, now)
            now_ready += not gone
            then_ready += sure and name not in leaving
        if 2 * now_ready > len(voters) >= 2 * then_ready:
            of = f" (shard {number} of {len(table.shards)})" if len(table.shards) > 1 else ""
            yield f"{table.name}{of} keeps {then_ready} of {len(voters)} voting replicas"


Asks = Callable[[State, Intent, Seconds], Gate]

GATES: tuple[Asks, ...] = (
    mode,
    paused,
    warm_up,
    target,
    blind,
    fresh,
    confirmed,
    identity,
    agreed,
    flapping,
    decided,
    in_flight,
    look,
    locked,
    after,
    cooldown,
    budget,
    limits,
    storm,
    one_at_a_time,
    quorum,
    approval,
)


#: About one node by itself: whom these stop, they stop whatever becomes of the others.
OWN: tuple[Asks, ...] = (identity, agreed, flapping, not_cleared, locked, cooldown, budget)

#: Shut in the ordinary course of an attempt, and open again by themselves within moments.
ORDINARY = frozenset({"after", "in flight", "look", "fresh"})


def judge(state: State, intent: Intent, now: Seconds) -> tuple[Gate, ...]:
    """Every gate's answer, in the order in which an operator reads them."""
    return tuple(gate(state, intent, now) for gate in GATES)


def shut(gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """The gates that forbid acting now."""
    return tuple(gate for gate in gates if not gate.open)
