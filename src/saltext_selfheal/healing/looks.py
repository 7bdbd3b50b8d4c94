"""Looks: asking a minion whether a job of ours still runs there (``saltutil.running``, which only reads).

A result proves nothing: any minion can store one under another's name (3008). So a job counts as running until a look
says that it does not, or the database tells that it was started anew. A look is a job of its own, with a JID and a record,
but no attempt: it changes nothing, costs no budget, and has numbers of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .events import Seconds
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

GIVE_UP_AFTER = 3  #: times ``attempt.timeout``: a job that still runs then is left to a person
LOOK_WITHIN_S = 15.0  #: a minion that has not said by then what it runs does not answer
LOOK_AFTER_START_S = 30.0  #: a job that the healer's start found under way is looked for after this
LOOK_PAUSE_S = 30.0  #: while our timed-out job still runs, look again after this


def unproven(late: Late) -> tuple[str, ...]:
    """Nodes on which the job may still run. What was returned is no proof: any minion can return it (3008)."""
    if not late.running:
        return ()
    return tuple(n for n in late.attempt.nodes if n not in late.proven)


def restarted(name: str, node: NodeState, attempt: Attempt) -> bool:
    """The database itself tells that it was started anew since this was decided: what restarts it has done its work.

    Of a server that did not run then it proves nothing: it may have been started by its own service manager.
    """
    restarts = TABLE[attempt.action].starts_anew and name in attempt.there
    return restarts and node.restarted_at is not None and node.restarted_at >= attempt.decided_at


def unsettled(late: Late) -> tuple[str, ...]:
    """Nodes of which something is still to come: a result, or the proof that the job has ended."""
    waits = {*owed(late.attempt), *unproven(late)}
    return tuple(n for n in late.attempt.nodes if n in waits)


def owed(attempt: Attempt) -> tuple[str, ...]:
    """Nodes whose minions have not said what came of the attempt."""
    return tuple(
        n
        for n in attempt.nodes
        if n not in attempt.results or attempt.results[n][0] is Outcome.TIMED_OUT
    )


def ask(cluster: str, of: Attempt, nodes: tuple[str, ...], number: str, now: Seconds) -> Attempt:
    """A look at this attempt's job on these nodes of a cluster; settings may have parted the attempt between two.

    ``number`` tells it from the others at the same attempt.
    """
    return Attempt(
        id=f"{of.id}-look-{number}",
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
    """What came of a look, with a sentence for people."""
    silent = [n for n in look.nodes if n not in look.results]
    if silent:
        return Outcome.TIMED_OUT, f"no answer from {', '.join(silent)}"
    return Outcome.DONE, "; ".join(detail for _, detail in look.results.values())


def proven(late: Late, nodes: Sequence[str]) -> Late:
    """On these nodes the job does not run any more."""
    proven = (*late.proven, *(n for n in unproven(late) if n in nodes))
    over = all(n in proven for n in late.attempt.nodes)
    return replace(late, proven=proven, running=late.running and not over)


def _wants_more(incident: Incident) -> bool:
    """It wants its next step, or its next node, or will in a moment."""
    if incident.phase in (Phase.SUSPECTED, Phase.OPEN):
        return True
    rolls = set(incident.nodes) - set(incident.turn.tried)
    goes_on = incident.turn.failed and incident.step + 1 < len(incident.steps)
    return incident.phase is Phase.VERIFYING and bool(rolls or goes_on)


def _after(late: Late, look: Attempt, policy: Policy, now: Seconds) -> Late:
    """After a look: where the job does not run, that is proven; where it does, what was returned was not true.

    A minion that gives no answer is waited for as long as the job itself would be, if it had returned a result; thrice as
    long, if its result could not be read; and for ever, if it was known to run.
    """
    results = late.attempt.results
    runs = [n for n, (outcome, _) in look.results.items() if outcome is Outcome.BUSY]
    over = [n for n, (outcome, _) in look.results.items() if outcome is Outcome.DONE]
    age_s = now - late.attempt.fired_at
    for name in look.nodes:
        if name in look.results or name not in results:
            continue
        times = GIVE_UP_AFTER if results[name][0] is Outcome.TIMED_OUT else 1
        if age_s >= times * policy.attempt_timeout_s:
            over.append(name)
    kept = {n: r for n, r in results.items() if n not in runs}
    refuted = tuple(dict.fromkeys((*late.refuted, *runs)))
    late = replace(late, attempt=replace(late.attempt, results=kept), refuted=refuted)
    return proven(late, over)


def go_on(
    cluster: ClusterState, policy: Policy, started_at: Seconds, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """Where a job that was given up stands in the way of an incident: does it still run?"""
    look = cluster.look
    if look is not None:
        silent = now - max(look.fired_at, started_at) >= LOOK_WITHIN_S
        if len(look.results) < len(look.nodes) and not silent:
            return cluster, []
        outcome, why = told(look)
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
        if not nodes or not wanted or now - one.looked_at < LOOK_PAUSE_S:
            continue
        look = ask(cluster.name, one.attempt, nodes, f"{nodes[0]}-{one.looks + 1}", now)
        asked = replace(one, looks=one.looks + 1, looked_at=now)
        late = tuple(asked if other is one else other for other in cluster.late)
        return replace(cluster, look=look, late=late), [Fire(look)]
    return cluster, []
