"""What the rows of `table.TRANSITIONS` do besides leading to a phase.

Each function takes a `Sight`. It returns the cluster and the incident as they are afterwards, and the effects, such as
an attempt that is fired or a terminal record. Whether it is time to do so, `conditions` decide.
"""

from __future__ import annotations

from dataclasses import replace

from . import budgets, escalation, gates, identity, looks, witnessed
from .conditions import verdict
from .events import Seconds
from .model import (
    CLUSTER_WIDE,
    Approval,
    Attempt,
    Bar,
    ClusterState,
    Dial,
    Effect,
    Fault,
    Finish,
    Fire,
    Incident,
    Late,
    NodeState,
    Outcome,
    Recovery,
    Seen,
    Turn,
)
from .sight import Sight

BUSY_PAUSE_S = 5.0  #: another state run is active: try again after this
WORD_PAUSE_S = (
    30.0  #: somebody forbids it on the minion: try again after this, doubled each time in a row
)
LOST_PAUSE_S = 60.0  #: the reactor does not publish: try again after this, doubled each time …
LOST_PAUSE_MAX_S = 3600.0  #: … up to this


#: With one of these faults the server may not run. If it is seen to have started, somebody else may have started it.
_NOT_THERE = (Fault.DEAD, Fault.UNREACHABLE, Fault.ALIEN, Fault.MISTAKEN)

Change = tuple[ClusterState, Incident, tuple[Effect, ...]]


def nothing(s: Sight) -> Change:
    return s.cluster, s.incident, ()


def open_it(s: Sight) -> Change:
    """Fix the escalation when the incident opens. A relapse starts at the step that had helped, or at the next one."""
    incident = s.incident
    if s.requested:
        return s.cluster, replace(incident, opened_at=s.now), ()
    nodes = tuple(n for n in incident.nodes if s.confirmed(n))
    steps = escalation.steps_against(s.policy, incident)
    incident = replace(incident, nodes=nodes, steps=steps, opened_at=s.now)
    before = [
        r
        for r in s.cluster.recoveries
        if r.node in nodes and r.seen == incident.cause and s.now - r.at < s.policy.relapse_s
    ]
    if before:
        last = max(before, key=lambda r: (r.relapses, r.at))
        step, repeated = escalation.first_step(
            last.step, last.repeated, s.policy.relapse_repeat, steps
        )
        incident = replace(
            incident,
            step=step,
            relapse_of=last.incident,
            relapses=last.relapses + 1,
            repeated=repeated,
        )
    return s.cluster, incident, ()


def resolve(s: Sight) -> Change:
    """Remember what helped: a relapse starts there."""
    incident = s.incident

    def helped(node: str) -> int:
        """The index of the last step that the node has had. The present step may not have come to this node."""
        return incident.step - (node not in incident.turn.tried)

    recoveries = tuple(r for r in s.cluster.recoveries if s.now - r.at < s.policy.relapse_s)
    cause, visited = incident.cause, incident.turn.visited
    if isinstance(cause, Seen):
        recoveries = tuple(
            r for r in recoveries if r.node not in visited or r.seen != cause
        ) + tuple(
            Recovery(n, cause, incident.id, s.now, helped(n), incident.relapses, incident.repeated)
            for n in visited
        )
    return replace(s.cluster, recoveries=recoveries), incident, ()


def hold(s: Sight) -> Change:
    """Remember which gates are shut.

    If one is shut for more than a moment, the step is not retried meanwhile. So the time for which a minion may be busy
    is measured anew after that.
    """
    assert s.intent is not None
    names = [g.name for g in s.shut]
    since = s.incident.busy_since if set(names) <= gates.ORDINARY else None
    held = gates.to_tell(s.state, s.intent, s.shut, s.now)
    foreign_since = s.incident.foreign_since
    if foreign_since is None and gates.name_of(gates.foreign) in names:
        foreign_since = s.now
    incident = replace(s.incident, held=held, busy_since=since, foreign_since=foreign_since)
    return s.cluster, incident, ()


def let_go(s: Sight) -> Change:
    return s.cluster, replace(s.incident, held=()), ()


def only_tell(s: Sight) -> Change:
    return s.cluster, replace(s.incident, only_told=True), ()


def next_step(s: Sight) -> Change:
    """Go to the next step. If it repeats the action of the step before, it waits; else it may be taken at once."""
    index, steps = s.incident.step + 1, s.incident.steps
    again = escalation.repeats(steps, index)
    not_before = s.now + escalation.rest_s(s.policy, again - 1) if again else 0.0
    # A node that never had this step leaves the incident. It gets one of its own, which begins at the first step. One
    # that no step can help stays, because it has had its try.
    left = tuple(n for n in s.untried if not witnessed.given_up(s.cluster, s.incident, n))
    left = () if s.incident.fault in CLUSTER_WIDE else left
    incident = replace(
        s.incident,
        nodes=tuple(n for n in s.incident.nodes if n not in left),
        step=index,
        repeated=0,
        turn=replace(s.incident.turn, tried=()),
        held=(),
        not_before=not_before,
        busy_since=None,
    )
    return s.cluster, incident, ()


def skip_step(s: Sight) -> Change:
    """Go to the next step, although this one was not tried. Every node stays in the incident."""
    turn = replace(s.incident.turn, tried=())
    step = s.incident.step + 1
    return s.cluster, replace(s.incident, step=step, repeated=0, turn=turn, held=()), ()


def act(s: Sight) -> Change:
    """Make the attempt, charge it to the nodes' budgets and to the limits, and have it fired."""
    assert s.intent is not None
    intent = s.intent
    attempt = Attempt(
        id=s.incident.next_attempt,
        cluster=s.cluster.name,
        incident=s.incident.id,
        action=intent.step.action,
        nodes=intent.nodes,
        step=s.incident.step,
        decided_at=s.now,
        fired_at=s.now,
        there=_there(s),
    )
    nodes = s.cluster.nodes
    charged = {
        n: replace(
            nodes[n],
            spent=(*budgets.recent(nodes[n], s.policy, s.now), s.now),
            starting_since=None,  # a new process gets its time
        )
        for n in intent.nodes
    }
    acts = tuple(t for t in s.cluster.acts if t > s.now - s.state.limits.per_s)
    cluster = replace(s.cluster.with_nodes(charged), attempt=attempt, acts=(*acts, s.now))
    turn = s.incident.turn
    tried = (*turn.tried, *intent.nodes)
    incident = replace(
        s.incident,
        attempts=s.incident.attempts + 1,
        held=(),
        turn=replace(turn, acting=intent.nodes, tried=tried, failed=()),
        verified=False,
        not_before=0.0,
    )
    return cluster, incident, (Fire(attempt),)


def _there(s: Sight) -> tuple[str, ...]:
    """The nodes whose server is known to run. Only for them a later start proves that this job has done its work.

    The system tables must have been read after the last attempt. Else a start that is seen later may be the work of
    that attempt.
    """
    assert s.intent is not None
    told_at, _ = s.state.maps.get(s.cluster.name, (0.0, ()))
    if told_at <= s.cluster.acted_at:
        return ()
    return tuple(n for n in s.intent.nodes if s.cluster.nodes[n].fault not in _NOT_THERE)


def fire_again(s: Sight) -> Change:
    assert s.attempt is not None
    attempt = replace(s.attempt, fired_at=s.now, firings=s.attempt.firings + 1)
    return replace(s.cluster, attempt=attempt), s.incident, (Fire(attempt),)


def look(s: Sight) -> Change:
    """Ask the minions that owe a result what they run. A look only reads, so it costs no budget."""
    assert s.attempt is not None
    number = s.incident.looks + 1
    silent = tuple(n for n in s.attempt.nodes if n not in s.attempt.results)
    look = looks.ask(s.cluster.name, s.attempt, silent, str(number), s.now)
    return replace(s.cluster, look=look), replace(s.incident, looks=number), (Fire(look),)


def wait_on(s: Sight) -> Change:
    """End the look, and leave the attempt in flight: after a pause its minions are asked again."""
    look, attempt = s.cluster.look, s.attempt
    assert look is not None and attempt is not None
    outcome, why = looks.told(look)
    incident = replace(s.incident, not_before=s.now + looks.LOOK_PAUSE_S)
    cluster = replace(s.cluster, look=None, attempt=looks.found(attempt, look))
    return cluster, incident, (Finish(look, outcome, why),)


def give_up_waiting(s: Sight) -> Change:
    """The look is over and the job does not run any more: nodes that still owe a result have timed out."""
    look, attempt = s.cluster.look, s.attempt
    assert look is not None and attempt is not None
    late = {
        n: (
            Outcome.TIMED_OUT,
            (
                "no result, and the job is not running"
                if n in look.results
                else "neither a result nor an answer: is the minion up?"
            ),
        )
        for n in look.nodes
    }
    attempt = replace(looks.found(attempt, look), results={**late, **attempt.results})
    outcome, why = looks.told(look)
    return replace(s.cluster, look=None, attempt=attempt), s.incident, (Finish(look, outcome, why),)


def tell_results(attempt: Attempt) -> str:
    return "; ".join(
        f"{n}: {outcome.value}{f' ({detail})' if detail else ''}"
        for n, (outcome, detail) in attempt.results.items()
    )


def _finish(
    s: Sight,
    outcome: Outcome,
    why: str,
    idle: frozenset[str] = frozenset(),
    running: bool = False,
    looked: bool = True,
) -> Change:
    """End the attempt with its only terminal record. The cooldown counts from here.

    On ``idle`` nodes nothing was done. ``running``: the job may run on. ``looked`` is False if the minions that owe a
    result were not asked what they run.
    """
    acted = outcome is not Outcome.LOST and (
        s.attempt is None or not set(s.attempt.nodes) <= set(idle)
    )
    attempt = s.attempt
    if attempt is None:
        return s.cluster, s.incident, ()
    nodes = s.cluster.nodes
    until = s.now + escalation.rest_s(s.policy, s.incident.relapses)
    changed = {
        n: (
            # Nothing was changed on this node, so it pays no budget and has no cooldown.
            replace(nodes[n], spent=tuple(t for t in nodes[n].spent if t != attempt.decided_at))
            if outcome is Outcome.LOST or n in idle
            else replace(nodes[n], cooldown_until=until, cooldown_incident=s.incident.id)
        )
        for n in attempt.nodes
    }
    if outcome is not Outcome.LOST:
        changed = {n: _barred(s, node, attempt.results.get(n)) for n, node in changed.items()}
    ended: tuple[Effect, ...] = (Finish(attempt, outcome, why),)
    look = s.cluster.look
    if look is not None:
        came = all(n in attempt.results for n in attempt.nodes)
        told = (Outcome.DONE, "the results came meanwhile") if came else looks.told(look)
        ended = (*ended, Finish(look, *told))
    cluster = replace(s.cluster.with_nodes(changed), attempt=None, look=None)
    if (
        outcome is not Outcome.LOST
    ):  # also if the results say that nothing was done: they may be lies
        cluster = replace(cluster, acted_at=s.now)
    if not acted:
        cluster = replace(cluster, acts=tuple(t for t in cluster.acts if t != attempt.decided_at))
    # The attempt is remembered as late. A job that was never seen may still come, if the reactor had claimed it before
    # the attempt ended. A job with results may still run, until a look or the database says that it has ended.
    late = Late(attempt, s.now, running)
    if outcome is not Outcome.LOST and not running:
        owed = looks.owed(attempt)
        proven = tuple(
            n
            for n in attempt.nodes
            if (looked and n in owed and n not in attempt.runs)
            or looks.restarted(n, nodes[n], attempt)
        )
        late = replace(late, running=len(proven) < len(attempt.nodes), proven=proven)
    if late.running or looks.owed(attempt):
        cluster = replace(cluster, late=(*cluster.late, late))
    return cluster, s.incident, ended


def _idle_nodes(attempt: Attempt) -> frozenset[str]:
    """Nodes on which nothing was done."""
    return frozenset(n for n, (outcome, _) in attempt.results.items() if outcome in looks.IDLE)


def verify(s: Sight, looked: bool = True) -> Change:
    """The job is over. Nodes on which nothing was done have not had the step yet; the others have had it."""
    attempt = s.attempt
    assert attempt is not None
    outcome, idle = verdict(s), _idle_nodes(attempt)
    assert outcome is not None
    cluster, incident, effects = _finish(s, outcome, tell_results(attempt), idle, looked=looked)
    # The nodes were busy for too long. Nothing was done or paid there, but the step counts as tried.
    if outcome is Outcome.BUSY:
        idle = frozenset()
    had = tuple(n for n in attempt.nodes if n not in idle)
    turn = Turn(
        acting=had,
        tried=tuple(n for n in incident.turn.tried if n not in idle),
        visited=tuple(dict.fromkeys((*incident.turn.visited, *had))),
        failed=tuple(n for n in had if attempt.results[n][0] is not Outcome.DONE),
    )
    incident = replace(
        incident,
        turn=turn,
        acted_at=s.now,
        busy_since=None,
        lost=0,
        gone_since=None,  # what was seen while the job ran proves nothing
    )
    acted_on = {n: replace(cluster.nodes[n], acted_at=s.now) for n in had}
    cluster = cluster.with_nodes(acted_on)
    # An open connection does not show whether the server accepts new ones, so a fresh dial is needed.
    return cluster, incident, (*effects, Dial(cluster.name, had)) if had else effects


def assume_it_ran(s: Sight) -> Change:
    """It is not known whether the job ran. So it is paid for and may run on, and a look comes before anything else."""
    attempt = s.attempt
    assert attempt is not None
    unknown = (Outcome.TIMED_OUT, "the job cache could not be read: the job may have run")
    attempt = replace(attempt, results={**dict.fromkeys(attempt.nodes, unknown), **attempt.results})
    cluster = replace(s.cluster, attempt=attempt)
    return verify(Sight(s.state, cluster, s.incident, s.now), looked=False)


def leave_it(s: Sight) -> Change:
    """Give up the attempt although its job may still run. Nothing is sent to its minions meanwhile."""
    return _finish(s, Outcome.TIMED_OUT, "it runs on, or its minion does not tell", running=True)


def give_way(s: Sight) -> Change:
    """Leave the job as it is: the next step ends what it waits for. Its nodes have had this step."""
    cluster, incident, effects = leave_it(s)
    assert s.attempt is not None
    had = s.attempt.nodes
    visited = tuple(dict.fromkeys((*incident.turn.visited, *had)))
    incident = replace(incident, turn=Turn(visited=visited, tried=had, failed=had), acted_at=s.now)
    acted_on = {n: replace(cluster.nodes[n], acted_at=s.now) for n in had}
    cluster, incident, more = next_step(
        Sight(s.state, cluster.with_nodes(acted_on), incident, s.now)
    )
    return cluster, incident, (*effects, *more, Dial(cluster.name, had))


def look_again(s: Sight) -> Change:
    """End a look that nobody published. After a pause there will be another one."""
    assert s.cluster.look is not None
    ended = Finish(s.cluster.look, Outcome.LOST, "never seen in the job cache")
    incident = replace(s.incident, not_before=s.now + looks.LOOK_PAUSE_S)
    return replace(s.cluster, look=None), incident, (ended,)


def _untry(s: Sight, pause_s: Seconds, told: gates.Asks = gates.after) -> Incident:
    """The incident, with the nodes of the last attempt counted as not tried. The step is taken again after a pause."""
    turn = s.incident.turn
    return replace(
        s.incident,
        turn=replace(turn, tried=tuple(n for n in turn.tried if n not in turn.acting)),
        not_before=s.now + pause_s,
        held=(gates.name_of(told),),  # the row tells the reason already: that gate is not announced
    )


def retry_busy(s: Sight) -> Change:
    """Nothing was done, because another state run was active. The step is taken again soon, and costs nothing."""
    assert s.attempt is not None
    cluster, _, effects = _finish(s, Outcome.BUSY, tell_results(s.attempt), _idle_nodes(s.attempt))
    since = s.now if s.incident.busy_since is None else s.incident.busy_since
    return cluster, replace(_untry(s, BUSY_PAUSE_S), busy_since=since), effects


def wait_for_word(s: Sight) -> Change:
    """Nothing was done, and it costs nothing. The nodes are barred for a while (see `_barred`)."""
    attempt = s.attempt
    assert attempt is not None
    cluster, _, effects = _finish(s, Outcome.FORBIDDEN, tell_results(attempt), _idle_nodes(attempt))
    incident = replace(_untry(s, 0.0, gates.forbidden), lost=0, busy_since=None)
    return cluster, incident, effects


def _barred(s: Sight, node: NodeState, result: tuple[Outcome, str] | None) -> NodeState:
    """The node after a job. If somebody's word has kept it from running, the action rests there, ever longer in a row.

    The longest rest lets as many tries happen as the budget would: they cost nothing, but another minion may have lied.
    """
    assert s.attempt is not None
    action = s.attempt.action
    others = tuple(bar for bar in node.bars if bar.action is not action)
    if result is None or result[0] is not Outcome.FORBIDDEN:
        return replace(node, bars=others) if len(others) < len(node.bars) else node
    last = node.bar(action)
    times = last.times + 1 if last else 1
    longest_s = s.policy.budget_per_s / max(1, s.policy.budget_attempts or 3)
    rest_s = min(WORD_PAUSE_S * 2.0 ** min(times - 1, 20), max(WORD_PAUSE_S, longest_s))
    return replace(node, bars=(*others, Bar(action, s.now + rest_s, times, result[1])))


def write_off(s: Sight) -> Change:
    """The job was never published. The step is taken again, after a pause that doubles each time in a row."""
    cluster, _, effects = _finish(s, Outcome.LOST, "never seen in the job cache")
    pause_s = min(LOST_PAUSE_S * 2.0 ** min(s.incident.lost, 10), LOST_PAUSE_MAX_S)
    incident = replace(_untry(s, pause_s), lost=s.incident.lost + 1, busy_since=None)
    return cluster, incident, effects


def approve(s: Sight) -> Change:
    assert s.command is not None
    given = Approval(s.incident.step, s.now, s.command.by, s.incident.nodes)
    return s.cluster, replace(s.incident, approval=given), ()


def acknowledge(s: Sight) -> Change:
    """The lock is lifted. Each node may have one attempt again, and jobs given up count as seen to by a person."""
    incident, policy = s.incident, s.policy
    late = tuple(
        replace(one, running=False) if one.attempt.incident == incident.id else one
        for one in s.cluster.late
    )
    cluster = replace(s.cluster, late=late)
    if not incident.by_hand and policy.budget_attempts:
        freed = {}
        for name in incident.nodes:
            node = cluster.nodes[name]
            paid = budgets.recent(node, policy, s.now)
            if len(paid) >= policy.budget_attempts:
                spent = paid[len(paid) - policy.budget_attempts + 1 :]
                freed[name] = replace(node, spent=spent)
        cluster = cluster.with_nodes(freed)
    return cluster, incident, ()


def take_identities(s: Sight) -> Change:
    return identity.accept(s.cluster, s.incident), s.incident, ()


def note_recovery(s: Sight) -> Change:
    return s.cluster, replace(s.incident, verified=True), ()
