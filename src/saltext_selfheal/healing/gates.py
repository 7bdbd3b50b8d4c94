"""The gates. Each is one reason not to act now: a small pure function, and all have one signature.

A gate sees the whole state and one intent. It answers `Open` or `Shut`, with the reason in a sentence with numbers, and
with the time when it opens if that is known. Gates never change anything. What is announced about a held incident
consists of these answers only, so announcements and decisions cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from . import escalation, health, looks, remedies, strain
from .budgets import budget as budget
from .budgets import limits as limits
from .events import Seconds
from .foreign import foreign as foreign
from .gate import Asks as Asks
from .gate import Gate as Gate
from .gate import Intent as Intent
from .gate import Open, Ruling, Shut, of
from .model import ClusterState, Fault, Incident, Late, Mode, Phase, Policy, State, Step
from .observers import not_refuted as not_refuted
from .observers import observers as observers
from .presence import minion as minion
from .quorum import harmless, one_at_a_time, quorum
from .tested import not_met, tested
from .witnessed import helps, not_starting, witness
from .word import WORD_WITHIN_S, word

WARM_UP_S = 15.0
WARM_UP_POLLS = 3
APPROVED_FOR_S = 900.0  #: an approval expires if no attempt follows within this time


def mode_of(policy: Policy, step: Step) -> Mode:
    """The more careful of the cluster's mode and the step's mode."""
    if step.mode is None:
        return policy.mode
    order = (Mode.OFF, Mode.SHADOW, Mode.APPROVE, Mode.AUTO)
    return min(policy.mode, step.mode, key=order.index)


def mode(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The mode of the step, or of the cluster, lets the healer act."""
    policy, _ = of(state, intent)
    effective = mode_of(policy, intent.step)
    if effective in (Mode.AUTO, Mode.APPROVE):
        return Open(effective.value)
    return Shut(f"{effective.value}, would {intent.step.action.value} {', '.join(intent.nodes)}")


def approval(state: State, intent: Intent, now: Seconds) -> Ruling:
    """In mode ``approve`` a person has said yes to this step, lately."""
    policy, _ = of(state, intent)
    incident = intent.incident
    if mode_of(policy, intent.step) is not Mode.APPROVE:
        return Open("none needed")
    given = incident.approval
    if given and given.step == incident.step:
        # One approval is good for a step that goes over several nodes. Its time counts anew after each of them.
        since = max(given.at, incident.acted_at + policy.verify_s if incident.turn.tried else 0.0)
        if now < since + APPROVED_FOR_S and set(intent.nodes) <= set(given.nodes):
            return Open(f"approved by {given.by}")
    would = f"{intent.step.action.value} on {', '.join(intent.nodes)}"
    if not incident.id:  # made up for an explanation: there is no incident that could be approved
        return Shut(f"{would} would wait for a person's approval")
    return Shut(f"{would} waits for: salt-run selfheal.approve {incident.next_attempt}")


def paused(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The cluster is not paused."""
    _, cluster = of(state, intent)
    pause = cluster.pause
    if pause is None or pause.until <= now:
        return Open("not paused")
    why = f"by {pause.by} for {pause.until - now:.0f} s more: {pause.why}"
    return Shut(why, pause.until)


def warm_up(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The healer has run and probed for long enough. Right after its start it has not seen enough to act."""
    _, cluster = of(state, intent)
    polls = min((cluster.nodes[n].polls for n in intent.nodes), default=0)
    opens_at = state.started_at + WARM_UP_S
    ready = now >= opens_at and polls >= WARM_UP_POLLS
    why = f"{now - state.started_at:.0f} s and {polls} polls since the start"
    why += f" (needs {WARM_UP_S:.0f} s and {WARM_UP_POLLS})"
    return Open(why) if ready else Shut(why, opens_at)


def target(state: State, intent: Intent, now: Seconds) -> Ruling:
    """At least one minion is named, and each is configured and matches the cluster's ``minions`` pattern."""
    policy, _ = of(state, intent)
    if not intent.nodes:
        return Shut("no node is left to act on")
    foreign = [
        n for n in intent.nodes if n not in policy.nodes or not fnmatchcase(n, policy.minions)
    ]
    if foreign:
        return Shut(f"{', '.join(foreign)}: not allowed by minions {policy.minions!r}")
    return Open(f"{', '.join(intent.nodes)} allowed by {policy.minions!r}")


def confirmed(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Every node shows the incident's confirmed fault.

    For a request: every node was seen, no ill node has an incident of its own, and the action is not forbidden.
    """
    _, cluster = of(state, intent)
    if intent.incident.fault is None:
        unseen = [n for n in intent.nodes if cluster.nodes[n].since is None]
        if unseen:
            return Shut(f"not probed yet: {', '.join(unseen)}")
        if intent.incident.forced:
            return Open("forced by an operator")
        ill = [n for n in intent.nodes if not cluster.nodes[n].well]
        treated = [n for n in ill if _treated(state, cluster, n)]
        if treated:
            why = f"has an incident of its own: {', '.join(treated)}"
            return Shut(why)
        for name in ill:
            fault = cluster.nodes[name].fault
            if fault and intent.step.action in remedies.forbidden(fault):
                why = f"{intent.step.action.value} does not help against {fault.value} on {name}"
                return Shut(why)
        return Open("requested")
    doubtful = [n for n in intent.nodes if not health.confirmed(cluster, intent.incident, n)]
    called = intent.incident.called
    if doubtful:
        slow = strain.told(state, now)
        return Shut(f"{called} not confirmed on {', '.join(doubtful)}{slow and f': {slow}'}")
    return Open(f"{called} confirmed")


def _treated(state: State, cluster: ClusterState, name: str) -> bool:
    """An incident of the node's own fault takes care of the node: something is still to be done in it."""
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
        steps = escalation.steps_against(policy, incident)
    return incident.phase is not Phase.LOCKED and incident.step < len(steps)


def identity(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The server that was probed is the one that the minion's service runs."""
    _, cluster = of(state, intent)
    for name in intent.nodes:
        node = cluster.nodes[name]
        if node.doubt:
            return Shut(f"whose server {name} is, is in doubt: {node.doubt}")
        if node.server_name in cluster.twins:  # the next probe of the node will put it in doubt
            return Shut(f"two servers have the name {node.server_name}, which is {name}'s")
        # This holds for requests, too. The minion's own server may serve at another address than the settings say.
        alien = Fault.ALIEN in (intent.incident.fault, node.fault)
        if alien and node.server_id is None:
            why = f"{name} has never answered as RethinkDB: is its address right?"
            return Shut(why)
    return Open("no node is in doubt")


def settings(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Against a refused login or certificate: the healer's own settings have worked since they were taken.

    Login and certificates are settings of the cluster. If none of its nodes has been well by a fresh dial since the
    healer's start, then the settings may be wrong, and a configuration that is applied to the nodes cannot mend that.
    """
    _, cluster = of(state, intent)
    suspect = _SUSPECT.get(intent.incident.fault) if intent.incident.fault else None
    if suspect is None:
        return Open("not about a refused login or certificate")
    worked = next((n for n, node in cluster.nodes.items() if node.taken), None)
    if worked:
        return Open(f"{worked} has taken the healer's own since the start")
    where = " and ".join(f"clusters.{cluster.name}.{key}" for key in suspect)
    return Shut(f"no node has taken {where} of the settings since the healer's start")


#: Faults for which the healer's own settings may be to blame, and which these are.
_SUSPECT = {Fault.AUTH: ("user", "password"), Fault.TLS: ("tls.ca_certs",)}


def agreed(state: State, intent: Intent, now: Seconds) -> Ruling:
    """A node that refuses the dial is dead only if no other node that answers is connected to it.

    If no node can say that, it is treated as a node that may serve: one at a time, and the gate ``quorum`` decides.
    """
    _, cluster = of(state, intent)
    if intent.incident.fault is not Fault.DEAD:
        return Open("not about a dead node")
    words = [word(cluster, n, now) for n in intent.nodes]
    for one in words:
        if one.contradicted or one.awaited:
            opens = [cluster.nodes[n].refused_at or now for n in intent.nodes]
            opens_at = max(opens) + WORD_WITHIN_S if one.awaited else None
            return Shut(one.why, opens_at)
    unsure = [one for one in words if not one.gone]
    if unsure and len(intent.nodes) > 1:
        return Shut(f"{unsure[0].why}: one at a time")
    return Open(words[0].why if words else "no node is meant")


def blind(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The healer trusts its own eyes."""
    if state.blind:
        return Shut(state.blind)
    return Open(strain.told(state, now) or "the healer trusts its own eyes")


def fresh(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The nodes were seen lately, and the nodes of the last attempt were seen after its end."""
    policy, cluster = of(state, intent)
    incident = intent.incident
    acted_at = incident.acted_at
    unseen = [
        n
        for n in incident.turn.acting
        if acted_at and not health.seen_since(cluster, incident, n, acted_at)
    ]
    if unseen:
        return Shut(f"not seen since the last attempt: {', '.join(unseen)}")
    old = [n for n in intent.nodes if not health.fresh(cluster, policy, intent.incident, n, now)]
    return Shut(f"not seen lately: {', '.join(old)}") if old else Open("seen lately")


def flapping(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No node comes and goes by itself. Such a node is left alone until it is quiet, or faulty for long."""
    _, cluster = of(state, intent)
    restless = [n for n in intent.nodes if cluster.nodes[n].flapping]
    if not restless:
        return Open("no node comes and goes")
    return Shut(f"{', '.join(restless)} comes and goes by itself")


def decided(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No node is still suspected. Dead nodes are started together, so the first attempt waits for all verdicts.

    It waits no longer than it takes to confirm any fault: a node may go from one suspicion to the next.
    """
    policy, cluster = of(state, intent)
    incident = intent.incident
    if incident.fault is not Fault.DEAD or incident.attempts:
        return Open("no first attempt on dead nodes")
    nodes = cluster.nodes
    # A node that is starting is waited for, however long: it never goes together with dead ones.
    suspected = [
        n for n in policy.nodes if nodes[n].suspected and nodes[n].fault is not Fault.STARTING
    ]
    confirm_s = max(policy.confirm_s.values(), default=0.0) * strain.of(state, now)
    opens_at = incident.changed_at + confirm_s + policy.poll_s + policy.timeout_s
    if not suspected or now >= opens_at:
        return Open("every suspected node is decided")
    return Shut(f"still suspected: {', '.join(suspected)}", opens_at)


def in_flight(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No other attempt is in flight in the cluster."""
    _, cluster = of(state, intent)
    busy = cluster.attempt
    if busy is None:
        return Open("nothing in flight")
    return Shut(f"attempt {busy.id} ({busy.action.value}) has not ended")


def look(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No job of ours may still run on these minions. Results do not count: a look or the database must show it.

    While a step goes from node to node, no job may still run on the nodes that had their turn either.
    """
    _, cluster = of(state, intent)
    if cluster.look is not None:
        return Shut(f"asking what {', '.join(cluster.look.nodes)} runs")
    own = runs_on(state, intent, now)
    if not own.open or harmless(cluster, intent, now):
        return own
    for late in _in_the_way(cluster, intent):
        if late.attempt.incident == intent.incident.id and looks.unproven(late):
            return _may_run(late, looks.unproven(late))
    return own


def _in_the_way(cluster: ClusterState, intent: Intent) -> list[Late]:
    """The jobs that were given up and must have ended before this step. One that hangs on what it ends need not."""
    action = intent.step.action
    return [one for one in cluster.late if not looks.hangs_until(action, one)]


def runs_on(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The part of the gate `look` that is only about these nodes."""
    _, cluster = of(state, intent)
    for late in _in_the_way(cluster, intent):
        there = [n for n in looks.unproven(late) if n in intent.nodes]
        if there:
            return _may_run(late, there)
    return Open("no job of ours runs on")


def not_cleared(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Like `runs_on`, but also open while the first look is still to come or a look is on its way.

    Such a look takes a moment, so the node is not passed over for others: all wait for it together. A node whose minion
    owes a result is passed over, since that may last.
    """
    _, cluster = of(state, intent)
    for late in _in_the_way(cluster, intent):
        asked = late.looks == 0 or (cluster.look is not None and cluster.look.of == late.attempt.id)
        there = [n for n in looks.unproven(late) if n in intent.nodes]
        if there and (not asked or set(there) & set(looks.owed(late.attempt))):
            return _may_run(late, there)
    return Open("no job of ours runs on, as far as was looked")


def _may_run(late: Late, nodes: Sequence[str]) -> Ruling:
    what = f"{late.attempt.action.value} of {late.attempt.id}"
    why = f": {late.forbidden}" if late.forbidden else ""
    return Shut(f"{what} may still run on {', '.join(sorted(nodes))}{why}")


def locked(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No locked incident is open on these nodes: there the healer has given up, and a person must come first.

    A request that was locked stops only requests, and not the healing of a fault. A person's lock stops everything.
    """
    _, cluster = of(state, intent)
    requested = intent.incident.fault is None
    for other in cluster.incidents:
        if other.phase is not Phase.LOCKED or not set(other.nodes) & set(intent.nodes):
            continue
        if other.by_hand or other.fault is not None or requested:
            return Shut(f"{other.id} is locked: {other.why}")
    return Open("no lock on these nodes")


def after(state: State, intent: Intent, now: Seconds) -> Ruling:
    """The step's ``after`` has passed since the incident opened, and so has any pause that the incident was given."""
    opens_at = max(intent.incident.opened_at + intent.step.after_s, intent.incident.not_before)
    if now >= opens_at:
        return Open("the step is due")
    return Shut(f"the step is due in {opens_at - now:.0f} s", opens_at)


def forbidden(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Nobody's word on a minion keeps the action from running there. It is tried again now and then."""
    _, cluster = of(state, intent)
    bars = [(n, cluster.nodes[n].bar(intent.step.action)) for n in intent.nodes]
    shut = [(bar.until, n, bar.why) for n, bar in bars if bar is not None and bar.until > now]
    if not shut:
        return Open("nobody forbids it on the minion")
    until, name, why = max(shut)
    return Shut(f"{name}: {why}; tried again in {until - now:.0f} s", until)


def cooldown(state: State, intent: Intent, now: Seconds) -> Ruling:
    """No node rests after an attempt of another incident. The rest counts from that attempt's end."""
    _, cluster = of(state, intent)
    resting = [
        (node.cooldown_until, name)
        for name, node in ((n, cluster.nodes[n]) for n in intent.nodes)
        if node.cooldown_until > now and node.cooldown_incident != intent.incident.id
    ]
    if not resting:
        return Open("no node rests")
    opens_at, name = max(resting)
    return Shut(f"{name} rests for {opens_at - now:.0f} s more", opens_at)


def _ill(cluster: ClusterState, now: Seconds) -> bool:
    """A node shows a fault, or the system tables have lately shown a fault of the whole cluster.

    The fault ``issue`` does not count, because it is no outage.
    """
    if any(node.fault is not None for node in cluster.nodes.values()):
        return True
    lately = cluster.viewed_at is not None and now - cluster.viewed_at <= health.VIEW_AGE_S
    return lately and any(a.seen.fault is not Fault.ISSUE for a in cluster.ailments)


def storm(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Few clusters fail at the same time. If many do, their common cause is hardly in each of them."""
    clusters = state.clusters.values()
    share = state.limits.storm_share
    ill = sum(1 for cluster in clusters if _ill(cluster, now))
    why = f"{ill} of {len(clusters)} clusters show a fault (storm at {share:.0%} of >= 3)"
    few = not share or len(clusters) < 3 or ill <= share * len(clusters)
    return Open(why) if few else Shut(why)


#: By name, in the order in which an operator reads them.
GATES: Mapping[str, Asks] = {
    "mode": mode,
    "paused": paused,
    "warm-up": warm_up,
    "target": target,
    "minion": minion,
    "blind": blind,
    "fresh": fresh,
    "confirmed": confirmed,
    "identity": identity,
    "settings": settings,
    "agreed": agreed,
    "witness": witness,
    "observers": observers,
    "helps": helps,
    "flapping": flapping,
    "decided": decided,
    "foreign": foreign,
    "in flight": in_flight,
    "look": look,
    "locked": locked,
    "after": after,
    "forbidden": forbidden,
    "cooldown": cooldown,
    "budget": budget,
    "limits": limits,
    "storm": storm,
    "one at a time": one_at_a_time,
    "quorum": quorum,
    "tested": tested,
    "approval": approval,
}


def name_of(gate: Asks) -> str:
    """The name that operators read."""
    return next(name for name, one in GATES.items() if one is gate)


#: Gates about one node by itself. A node that one of these stops is stopped whatever becomes of the other nodes.
OWN: tuple[Asks, ...] = (
    minion,
    identity,
    agreed,
    not_starting,
    not_refuted,
    helps,
    not_met,
    flapping,
    foreign,
    not_cleared,
    locked,
    forbidden,
    cooldown,
    budget,
)

#: Gates that are shut in the ordinary course of an attempt, and that open again by themselves.
ORDINARY = frozenset(map(name_of, (after, in_flight, look, fresh, witness, tested)))


#: Gates that ask somebody, in the order in which that is done. They ask only when no other gate is shut.
ASK_LAST = frozenset(map(name_of, (observers, tested)))


def to_tell(
    state: State, intent: Intent, judged: tuple[Gate, ...], now: Seconds
) -> tuple[str, ...]:
    """The names of the shut gates, as far as they are worth telling: a look or a question takes only a moment."""
    brief = [look] if not_cleared(state, intent, now).open else []
    if not_starting(state, intent, now).open:
        brief.append(witness)
    if not_met(state, intent, now).open:
        brief.append(tested)
    # Once this gate is announced, it stays so until the observers agree, also while they are asked again.
    if not_refuted(state, intent, now).open and name_of(observers) not in intent.incident.held:
        brief.append(observers)
    return tuple(g.name for g in judged if not g.open and GATES[g.name] not in brief)


def judge(state: State, intent: Intent, now: Seconds) -> tuple[Gate, ...]:
    """Every gate's answer."""
    answers = ((name, gate(state, intent, now)) for name, gate in GATES.items())
    return tuple(Gate(name, one.open, one.why, one.opens_at) for name, one in answers)


def shut(gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """The gates that forbid acting now."""
    return tuple(gate for gate in gates if not gate.open)
