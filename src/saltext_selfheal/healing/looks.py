"""Looks: asking a minion whether a job of ours still runs there (``saltutil.running``, which only reads).

A result proves nothing, because any minion can store one under another's name (3008). So a job counts as running until
a look says that it does not, or the database shows that its server was started anew. A look is a job with its own JID
and record, but it is no attempt: it changes nothing, costs no budget, and is numbered apart from the attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import escalation, ids
from .events import Missing, Published, Returned, Seconds
from .model import (
    Action,
    Attempt,
    ClusterState,
    Effect,
    Finish,
    Fire,
    Incident,
    Late,
    NodeState,
    Outcome,
    Phase,
    Policy,
)
from .remedies import TABLE

IDLE = frozenset({Outcome.BUSY, Outcome.FORBIDDEN})  #: results that say that nothing was done
GIVE_UP_AFTER = 3  #: a job that runs for this many times ``attempt.timeout`` is left to a person
LOOK_WITHIN_S = 15.0  #: a minion that has not told within this time what it runs does not answer
LOOK_AFTER_START_S = 30.0  #: this long after the healer's start, jobs of before are looked for
LOOK_PAUSE_S = 30.0  #: while a job still runs, the next look comes after this time
FORBIDDEN_PAUSE_S = (
    600.0  #: if somebody's word keeps the minion from telling, the looks become as rare as this
)


def ends_by_force(action: Action, other: Attempt) -> bool:
    """This action ends what the other's job may wait for, so it may go to a minion where that one still runs."""
    return TABLE[action].stops and other.action in (Action.RESTART, Action.START)


def hangs_until(action: Action, late: Late) -> bool:
    """The job was published and has not come back in its time, and this action ends what it may wait for.

    A result that came early proves nothing: then a look has to show first that the job has ended.
    """
    published = late.attempt.published_at is not None
    away = set(unproven(late)) <= set(owed(late.attempt))
    return published and away and ends_by_force(action, late.attempt)


def unproven(late: Late) -> tuple[str, ...]:
    """Nodes on which the job may still run. A result is no proof, because any minion can return it (3008)."""
    if not late.running:
        return ()
    return tuple(n for n in late.attempt.nodes if n not in late.proven)


def restarted(name: str, node: NodeState, attempt: Attempt) -> bool:
    """The node's server was started anew after this attempt was decided, so a job that restarts it has done its work.

    This proves nothing if the server did not run at that time: its own service manager may have started it.
    """
    restarts = TABLE[attempt.action].starts_anew and name in attempt.there
    return restarts and node.restarted_at is not None and node.restarted_at >= attempt.decided_at


def unsettled(late: Late) -> tuple[str, ...]:
    """Nodes for which a result or the proof that the job has ended is still missing."""
    waits = {*owed(late.attempt), *unproven(late)}
    return tuple(n for n in late.attempt.nodes if n in waits)


def owed(attempt: Attempt) -> tuple[str, ...]:
    """Nodes whose minions have not returned a result."""
    return tuple(
        n
        for n in attempt.nodes
        if n not in attempt.results or attempt.results[n][0] is Outcome.TIMED_OUT
    )


def heard(
    attempt: Attempt | None, event: Missing | Published | Returned, now: Seconds
) -> Attempt | None:
    """The attempt or look in flight, after news of its job. News of another job changes nothing."""
    if attempt is None or attempt.id != event.attempt:
        return attempt
    if isinstance(event, Missing):
        return replace(attempt, missing_at=now)
    published_at = now if attempt.published_at is None else attempt.published_at
    if isinstance(event, Published):
        return replace(attempt, published_at=published_at)
    if event.node not in attempt.nodes or event.node in attempt.results:
        return attempt
    results = {**attempt.results, event.node: (event.outcome, event.detail)}
    return replace(attempt, published_at=published_at, results=results)


def ask(cluster: str, of: Attempt, nodes: tuple[str, ...], number: str, now: Seconds) -> Attempt:
    """A look at this attempt's job on these nodes. ``number`` tells it from other looks at the same attempt.

    ``cluster`` is given, because a change of the settings may have split the attempt between clusters.
    """
    return Attempt(
        id=ids.look(of.id, number),
        cluster=cluster,
        incident=of.incident,
        action=Action.LOOK,
        nodes=nodes,
        step=of.step,
        decided_at=now,
        fired_at=now,
        of=of.id,
        of_jid=of.jid,
    )


def told(look: Attempt) -> tuple[Outcome, str]:
    """The outcome of a look, with a sentence for people."""
    silent = [n for n in look.nodes if n not in look.results]
    if silent:
        return Outcome.TIMED_OUT, f"no answer from {', '.join(silent)}"
    return Outcome.DONE, "; ".join(detail for _, detail in look.results.values())


def found(attempt: Attempt, look: Attempt) -> Attempt:
    """The attempt in flight after a look: where its job was found running, and where an earlier look had found it."""
    answers = {n: outcome for n, (outcome, _) in look.results.items()}
    kept = (n for n in attempt.runs if n not in answers)
    return replace(attempt, runs=(*kept, *(n for n, one in answers.items() if one is Outcome.BUSY)))


def proven(late: Late, nodes: Sequence[str]) -> Late:
    """The late attempt, after it was proved that the job does not run on these nodes any more."""
    proven = (*late.proven, *(n for n in unproven(late) if n in nodes))
    over = all(n in proven for n in late.attempt.nodes)
    return replace(late, proven=proven, running=late.running and not over)


def _wants_more(incident: Incident) -> bool:
    """The incident is about to take its next step, or to go on to its next node."""
    if incident.phase in (Phase.SUSPECTED, Phase.OPEN):
        return True
    rolls = set(incident.nodes) - set(incident.turn.tried)
    goes_on = incident.turn.failed and incident.step + 1 < len(incident.steps)
    return incident.phase is Phase.VERIFYING and bool(rolls or goes_on)


def _after(late: Late, look: Attempt, policy: Policy, now: Seconds) -> Late:
    """The late attempt after a look. Where the job does not run, its end is proven; where it runs, a result was false.

    How long a minion that gives no answer is waited for depends on its result. If it has returned one: as long as for
    the job itself. If the result timed out or could not be read: three times as long. If there is none, or if the minion
    has said that the job runs: without limit.
    """
    results = late.attempt.results
    runs = [n for n, (outcome, _) in look.results.items() if outcome is Outcome.BUSY]
    over = [n for n, (outcome, _) in look.results.items() if outcome is Outcome.DONE]
    age_s = now - late.attempt.fired_at
    for name in look.nodes:
        if name in look.results or name not in results or name in late.attempt.runs:
            continue
        times = GIVE_UP_AFTER if results[name][0] is Outcome.TIMED_OUT else 1
        if age_s >= times * policy.attempt_timeout_s:
            over.append(name)
    kept = {n: r for n, r in results.items() if n not in runs}
    refuted = tuple(dict.fromkeys((*late.refuted, *runs)))
    forbids = [why for outcome, why in look.results.values() if outcome is Outcome.FORBIDDEN]
    late = replace(
        late,
        attempt=replace(late.attempt, results=kept),
        refuted=refuted,
        forbidden="; ".join(dict.fromkeys(forbids)),
    )
    return proven(late, over)


def _pause_s(late: Late) -> Seconds:
    """How long after a look the next one comes."""
    if not late.forbidden:
        return LOOK_PAUSE_S
    return min(FORBIDDEN_PAUSE_S, LOOK_PAUSE_S * 2.0 ** min(max(0, late.looks - 1), 10))


def paid_after_all(
    cluster: ClusterState, policy: Policy, attempt: Attempt, nodes: Sequence[str], now: Seconds
) -> ClusterState:
    """The cluster after it was shown that a job ran on nodes for which the results say that nothing was done.

    The results were lies. So the attempt is paid for, and the nodes rest.
    """
    lied = [
        n
        for n in nodes
        if n in cluster.nodes and n in attempt.results and attempt.results[n][0] in IDLE
    ]
    if not lied:
        return cluster
    until = now + escalation.rest_s(policy, 0)
    paid = {}
    for name in lied:
        node = cluster.nodes[name]
        known = attempt.decided_at in node.spent
        paid[name] = replace(
            node,
            spent=node.spent if known else (*node.spent, attempt.decided_at),
            cooldown_until=max(until, node.cooldown_until),
            cooldown_incident=attempt.incident,
        )
    counted = attempt.decided_at in cluster.acts
    acts = cluster.acts if counted else (*cluster.acts, attempt.decided_at)
    return replace(cluster.with_nodes(paid), acts=acts, acted_at=now)


def go_on(
    cluster: ClusterState, policy: Policy, started_at: Seconds, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """Look at the jobs that were given up, if an incident must wait for them. First end a look that is over."""
    look = cluster.look
    if look is not None:
        silent = now - max(look.fired_at, started_at) >= LOOK_WITHIN_S
        if len(look.results) < len(look.nodes) and not silent:
            return cluster, []
        outcome, why = told(look)
        runs = [n for n, (what, _) in look.results.items() if what is Outcome.BUSY]
        for one in cluster.late:
            if one.attempt.id == look.of:
                cluster = paid_after_all(cluster, policy, one.attempt, runs, now)
        looked = (
            _after(one, look, policy, now) if one.attempt.id == look.of else one
            for one in cluster.late
        )
        late = tuple(one for one in looked if unsettled(one))
        return replace(cluster, look=None, late=late), [Finish(look, outcome, why)]
    waiting = [i for i in cluster.incidents if _wants_more(i)]
    for one in cluster.late:
        nodes = unproven(one)
        wanted = any(i.id == one.attempt.incident or set(i.nodes) & set(nodes) for i in waiting)
        if not nodes or not wanted or now - one.looked_at < _pause_s(one):
            continue
        look = ask(cluster.name, one.attempt, nodes, f"{nodes[0]}-{one.looks + 1}", now)
        asked = replace(one, looks=one.looks + 1, looked_at=now)
        late = tuple(asked if other is one else other for other in cluster.late)
        return replace(cluster, look=look, late=late), [Fire(look)]
    return cluster, []
