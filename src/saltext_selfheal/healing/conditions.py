"""The conditions of the table's rows.

Each row of `table.TRANSITIONS` has a condition here: a small function that takes a `Sight` and answers yes or no. All
timing of an incident's life is in these functions. Nothing here changes anything.
"""

from __future__ import annotations

from dataclasses import replace

from . import gates, health, looks, observers, questions, tested, witnessed
from .events import Seconds
from .model import (
    CLUSTER_WIDE,
    Attempt,
    Fault,
    Incident,
    Outcome,
    Phase,
)
from .sight import Sight

PUBLISH_WITHIN_S = 15.0  #: a job not in the job cache by then is fired again, under the same JID
FIRINGS = 3  #: an attempt is fired at most this many times
PUBLISH_AT_ALL_S = 300.0  #: after a crash, an attempt older than this is not fired again
READ_WITHIN_S = 10.0  #: reading the job cache may take this long
_BUDGET, _LIMITS, _APPROVAL = map(gates.name_of, (gates.budget, gates.limits, gates.approval))
_OBSERVERS, _TESTED = map(gates.name_of, (observers.observers, tested.tested))
#: An incident gives way to one about another fault after this time. A node may go to and fro between two faults, and each
#: turn must not cost two incidents.
ANOTHER_FOR_S = 600.0
REQUEST_AGE_S = 900.0  #: a request that the gates have held for this long expires
UNSEEN_S = 90.0  #: a job cannot be verified if its nodes were not seen for this long, or for ``verify``, after it


def ended_unconfirmed(s: Sight) -> bool:
    return all(s.known(n) and not s.shows(n) for n in s.incident.nodes)


def confirmed(s: Sight) -> bool:
    return any(s.confirmed(n) for n in s.incident.nodes)


def asked(s: Sight) -> bool:
    return s.requested


def _well_again(s: Sight) -> bool:
    """All nodes were well for ``stable`` and were seen lately, and those acted on were dialled afresh after it."""
    i = s.incident
    return (
        s.gone_for_s >= s.policy.stable_s
        and all(health.fresh(s.cluster, s.policy, i, n, s.now) for n in i.nodes)
        and all(health.seen_after(s.cluster, i, n, i.acted_at) for n in i.turn.acting)
    )


def expired(s: Sight) -> bool:
    """A request has waited too long at the gates, for its first or next node. Its asker expects nothing any more."""
    # A try that somebody's word has kept from running does not count: the request has not got on.
    acted_at = s.incident.acted_at
    since = max(s.incident.opened_at, acted_at + s.policy.verify_s if acted_at else 0.0)
    return s.requested and s.now - since >= REQUEST_AGE_S


def ended_by_itself(s: Sight) -> bool:
    return not s.incident.by_hand and _well_again(s)


def well_and_visited(s: Sight) -> bool:
    return _well_again(s) and not s.afflicted


def superseded(s: Sight) -> bool:
    """No node shows the fault any more, but one has shown another fault for long, and has an incident of that.

    Nothing was done in this incident, so there is nothing to be verified either.
    """
    i = s.incident
    if s.requested or i.fault in CLUSTER_WIDE or i.turn.visited or i.requests:
        return False
    if not all(s.known(n) and not s.shows(n) for n in i.nodes):
        return False
    nodes = {n: s.cluster.nodes[n] for n in i.nodes}
    if any(s.now - (node.since or 0.0) < ANOTHER_FOR_S for node in nodes.values()):
        return False
    others = [n for n, node in nodes.items() if not node.well]
    return bool(others) and all(instead(s, n) is not None for n in others)


def instead(s: Sight, name: str) -> Incident | None:
    """The incident of the fault that the node shows now."""
    node = s.cluster.nodes[name]
    return next(
        (
            one
            for one in s.cluster.incidents
            if one.fault is node.fault is not None
            and name in one.nodes
            and one.phase is not Phase.SUSPECTED
        ),
        None,
    )


def stable(s: Sight) -> bool:
    return s.incident.verified and well_and_visited(s)


def cannot_help(s: Sight) -> bool:
    """By what the nodes' minions have found, the present step cannot help them, but a later one may."""
    return not s.requested and witnessed.useless(s.cluster, s.incident, s.afflicted)


def hopeless(s: Sight) -> str:
    """Why no step that is left can help, although there was a try. Empty: one may."""
    if s.requested or not s.incident.steps:
        return ""
    return witnessed.hopeless(s.cluster, s.incident, s.afflicted)


def is_hopeless(s: Sight) -> bool:
    return bool(hopeless(s))


def may_test_first(s: Sight) -> bool:
    """Nothing but a test run is missing before the highstate, or a person's approval besides, who will want to see it."""
    return bool(tests_due(s))


def tests_due(s: Sight) -> tuple[str, ...]:
    """The nodes on which a highstate is to be tested now.

    While a person's approval is missing each of them is tested once. What has become old by then is asked again when the
    approval is there.
    """
    if s.intent is None:
        return ()
    names = {g.name for g in s.shut}
    if _TESTED not in names or not names <= {_TESTED, _APPROVAL}:
        return ()
    due = tested.to_ask(s.cluster, s.incident, s.intent.nodes, s.now)
    if _APPROVAL in names:
        due = tuple(n for n in due if tested.never_asked(s.cluster, s.incident, n))
    return due[: questions.room(s.state)]


def nothing_to_change(s: Sight) -> bool:
    """On every node that waits for its turn a highstate would change nothing, and the others had theirs in vain."""
    if s.requested or not s.untried or not set(s.untried) <= set(s.met):
        return False
    # After a start of the healer some nodes may not have been seen yet, or not for long. They may need the step, too.
    if not all(s.known(n) and (s.confirmed(n) or not s.shows(n)) for n in s.incident.nodes):
        return False
    acting = s.incident.turn.acting
    return all(s.seen_since(n, s.incident.acted_at) for n in acting)


def asked_for_nothing(s: Sight) -> bool:
    """A highstate was asked for that would change nothing anywhere."""
    nodes = set(s.incident.nodes)
    return s.requested and bool(s.met) and nodes <= set(s.met) and not s.incident.turn.visited


def some_need_none(s: Sight) -> bool:
    """A highstate was asked for that would change nothing on some nodes."""
    return s.requested and bool(set(s.met) & set(s.untried))


def did_not_help(s: Sight) -> bool:
    """The step has failed on a node, can reach no other node, and the last attempt's nodes were seen after it."""
    if s.step is None or not s.failed_on or s.awaited:
        return False
    return all(s.seen_since(n, s.incident.acted_at) for n in s.incident.turn.acting)


def no_step_left(s: Sight) -> bool:
    return s.step is None and bool(s.incident.steps) and bool(s.afflicted)


def nothing_to_do(s: Sight) -> bool:
    return not s.incident.steps and not s.incident.only_told


def may_act(s: Sight) -> bool:
    return s.intent is not None and bool(s.intent.nodes) and not s.shut


def budget_spent(s: Sight) -> bool:
    """Only the spent budget forbids to act: the healer has tried all that it may, so the incident is locked.

    A request whose budget is spent is held until it expires. A lock for it must not stand in the way of healing.
    """
    if s.requested or s.intent is None or not s.intent.nodes:
        return False
    # Nobody is asked before the budget allows a step, so no answer is waited for.
    waits = gates.not_refuted(s.state, s.intent, s.now).open
    names = {g.name for g in s.shut} - ({_OBSERVERS} if waits else set())
    return {_BUDGET} <= names <= {_BUDGET, _APPROVAL, _TESTED}


def ask_observers(s: Sight) -> bool:
    """Only the observers' word, and perhaps a person's, is missing, and there are observers to be asked now."""
    if s.intent is None or not s.intent.nodes:
        return False
    names = {g.name for g in s.shut}
    if _OBSERVERS not in names or not names <= gates.ASK_LAST | {_APPROVAL}:
        return False
    return bool(observers.due(s.state, s.intent, s.now))


def endless(s: Sight) -> Attempt | None:
    """The job that the next step waits for: it was reported as ended, but a look finds it running, for too long."""
    if s.requested or s.intent is None:
        return None
    patience_s = looks.GIVE_UP_AFTER * s.policy.attempt_timeout_s + looks.LOOK_PAUSE_S
    for late in s.cluster.late:
        if late.attempt.incident != s.incident.id:
            continue  # the job's own incident tells about it; this incident goes on when the job ends
        runs = set(late.refuted) & set(looks.unproven(late)) & set(s.intent.nodes)
        if runs and s.now - late.attempt.fired_at >= patience_s:
            return late.attempt
    return None


def job_does_not_end(s: Sight) -> bool:
    return endless(s) is not None


def waits_for_approval(s: Sight) -> bool:
    """The next step needs an approval. While its nodes are not known yet, the approval is for all of the incident's."""
    if s.step is None:
        return False
    nodes = s.intent.nodes if s.intent and s.intent.nodes else s.incident.nodes
    intent = gates.Intent(s.cluster.name, s.incident, s.step, nodes)
    return not gates.approval(s.state, intent, s.now).open


def has_step(s: Sight) -> bool:
    return s.step is not None


def mistaken(s: Sight) -> bool:
    return s.incident.fault is Fault.MISTAKEN


def always(s: Sight) -> bool:
    return True


def held_no_more(s: Sight) -> bool:
    """The incident was held, but now there is no node to act on, so nothing holds it any more."""
    return s.intent is not None and not s.intent.nodes and s.incident.held != ()


def held_anew(s: Sight) -> bool:
    """The gates that are shut have changed, so the incident is announced as held again."""
    if s.intent is None or not s.intent.nodes:
        return False
    names = gates.to_tell(s.state, s.intent, s.shut, s.now)
    return bool(names) and s.incident.held != names


def verdict(s: Sight) -> Outcome | None:
    """What came of the attempt's job, once that is known."""
    attempt = s.attempt
    if attempt is None:
        return Outcome.LOST  # there is no record of an attempt, so nothing is known to have run
    if len(attempt.results) < len(attempt.nodes):
        return None
    # On a node where another state run was active, or where somebody's word forbids it, nothing was done. It is tried
    # again there. The other nodes count.
    came = [o for o, _ in attempt.results.values()]
    results = [o for o in came if o not in looks.IDLE]
    if not results:
        return Outcome.FORBIDDEN if Outcome.FORBIDDEN in came else Outcome.BUSY
    if all(outcome is Outcome.DONE for outcome in results):
        return Outcome.DONE
    if Outcome.STUCK in results:
        return Outcome.STUCK
    if any(outcome is Outcome.TIMED_OUT for outcome in results):
        return Outcome.TIMED_OUT
    return Outcome.FAILED


def done(s: Sight) -> bool:
    return verdict(s) is Outcome.DONE


def _busy_too_long(s: Sight) -> bool:
    since = s.incident.busy_since
    return since is not None and s.now - since >= s.policy.attempt_timeout_s


def busy(s: Sight) -> bool:
    return verdict(s) is Outcome.BUSY and not _busy_too_long(s)


def forbidden(s: Sight) -> bool:
    """Somebody's word keeps the minions from running it, such as a disabled highstate or a blackout."""
    return verdict(s) is Outcome.FORBIDDEN


def failed(s: Sight) -> bool:
    """The job failed or timed out. Or its minions were busy for too long: the row for `busy` is tried before."""
    return verdict(s) in (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.BUSY)


def _unpublished(s: Sight) -> bool:
    """The job should be published by now, and the job cache was read and does not hold it."""
    attempt = s.attempt
    if attempt is None or attempt.published_at is not None or attempt.results:
        return False
    # The job reader must have read the job cache: if the cache cannot be read, nothing is proved.
    seen = attempt.missing_at
    return seen is not None and seen - s.since_start(attempt.fired_at) >= PUBLISH_WITHIN_S


def unreadable(s: Sight) -> bool:
    """It is not known whether the job was published, because the job cache cannot be read. The job may have run."""
    attempt = s.attempt
    return (
        attempt is not None
        and attempt.published_at is None
        and (attempt.missing_at is None or s.now - attempt.missing_at > READ_WITHIN_S)
        and s.now - s.since_start(attempt.fired_at) >= s.policy.attempt_timeout_s
    )


def lost(s: Sight) -> bool:
    """The job was not published and is not fired again: too often, too late, or the fault is gone."""
    attempt = s.attempt
    if attempt is None:
        return True
    if not _unpublished(s):
        return False
    cause_gone = not s.requested and any(s.known(n) and not s.shows(n) for n in attempt.nodes)
    too_old = s.now - attempt.decided_at >= PUBLISH_AT_ALL_S
    return attempt.firings >= FIRINGS or too_old or cause_gone


def may_fire_again(s: Sight) -> bool:
    """Not published, and nothing speaks against firing again."""
    return _unpublished(s) and s.step is not None and not shut_again(s)


def shut_again(s: Sight) -> tuple[gates.Gate, ...]:
    """The gates that forbid to fire again, judged as if the attempt were not in flight.

    ``budget`` and ``limits`` do not count: the attempt was paid for when it was decided.
    """
    if s.attempt is None or s.step is None:
        return ()
    state = s.state.with_cluster(replace(s.cluster, attempt=None, look=None))
    intent = gates.Intent(s.cluster.name, s.incident, s.step, s.attempt.nodes)
    judged = gates.shut(gates.judge(state, intent, s.now))
    return tuple(g for g in judged if g.name not in (_BUDGET, _LIMITS))


def _look_due(s: Sight, published_at: Seconds) -> Seconds:
    """When the minions are asked whether the job still runs.

    If the healer has started after the job was published, the master may have died before the job reached the minions.
    Then the minions are asked soon. Asking does no harm: a job that still runs is left alone.
    """
    in_time = published_at + s.policy.attempt_timeout_s
    since_start = s.state.started_at + looks.LOOK_AFTER_START_S
    if s.state.started_at > published_at:
        in_time = min(in_time, since_start)
    return max(in_time, s.state.started_at + READ_WITHIN_S)


def overdue(s: Sight) -> bool:
    """The job was published, but a result is still missing after its time, and no look is in flight."""
    attempt = s.attempt
    return (
        attempt is not None
        and attempt.published_at is not None
        and verdict(s) is None
        and s.cluster.look is None
        and s.now >= _look_due(s, attempt.published_at)
        and s.now >= s.incident.not_before
    )


def runs_for_ever(s: Sight) -> bool:
    """The job has run for so long that a person must end it.

    The patience is shorter for a request's job while an incident with a fault waits: a request must not delay healing.
    """
    attempt = s.attempt
    waits = any(i.phase is Phase.OPEN and i.fault is not None for i in s.cluster.incidents)
    times = 1 if s.requested and waits else looks.GIVE_UP_AFTER
    patience_s = times * s.policy.attempt_timeout_s + looks.LOOK_PAUSE_S
    if attempt is None or attempt.published_at is None or verdict(s) is not None:
        return False
    # If the healer was away for long, one look that was not published says nothing yet.
    since = s.since_start(attempt.published_at) if look_lost(s) else attempt.published_at
    return (still_running(s) or look_lost(s)) and s.now - since >= patience_s


def look_lost(s: Sight) -> bool:
    """The look itself was never published, so it proves nothing about the job."""
    look = s.cluster.look
    return look is not None and look_ended(s) and look.published_at is None


def look_ended(s: Sight) -> bool:
    """The look at this attempt is over: every minion has answered, or the time for it has passed."""
    look = s.cluster.look
    if look is None or s.attempt is None or look.of != s.attempt.id:
        return False
    waited_s = s.now - s.since_start(look.fired_at)
    return len(look.results) == len(look.nodes) or waited_s >= looks.LOOK_WITHIN_S


def silent_too_early(s: Sight) -> bool:
    """A minion is silent, but the job's time is not over. After a start of the master, minions may not be back yet."""
    look, attempt = s.cluster.look, s.attempt
    if look is None or attempt is None or attempt.published_at is None or not look_ended(s):
        return False
    in_time = s.now - attempt.published_at < s.policy.attempt_timeout_s
    return in_time and len(look.results) < len(look.nodes)


def still_running(s: Sight) -> bool:
    look = s.cluster.look
    if look is None or not look_ended(s):
        return False
    # A minion in blackout does not tell what it runs.
    return any(outcome in looks.IDLE for outcome, _ in look.results.values())


def recovered(s: Sight) -> bool:
    """The job's nodes were seen well after its end. What the job returned does not matter."""
    return not s.incident.verified and all(
        s.seen_after(n) and health.well(s.cluster, s.incident, n) for n in s.incident.turn.acting
    )


def seen_faulty(s: Sight) -> bool:
    """The job failed on every node that still shows the fault. Then one probe after the job is enough."""
    since = s.incident.changed_at
    acting = s.incident.turn.acting
    if not s.incident.turn.failed or not all(s.seen_since(n, since) for n in acting):
        return False
    # A node on which the job was done is given time to come up.
    ill = [n for n in acting if s.shows(n)]
    return bool(ill) and set(ill) <= set(s.incident.turn.failed)


def not_in_time(s: Sight) -> bool:
    """The nodes were seen after the job, but ``verify`` has passed and they are not all well."""
    if s.incident.verified:
        return False
    ill = [s.cluster.nodes[n] for n in s.incident.turn.acting if not s.cluster.nodes[n].well]
    if ill and all(node.fault is Fault.STARTING for node in ill):
        return False  # their processes run, and need their time
    seen = all(map(s.seen_after, s.incident.turn.acting))
    return seen and s.now - s.incident.changed_at >= s.policy.verify_s


def cannot_be_verified(s: Sight) -> bool:
    """The nodes were not seen after the job's end, for longer than seeing them may take."""
    patience_s = max(UNSEEN_S, s.policy.verify_s)
    if s.incident.verified or s.now - s.since_start(s.incident.changed_at) < patience_s:
        return False
    return not all(map(s.seen_after, s.incident.turn.acting))


def did_not_hold(s: Sight) -> bool:
    return s.incident.verified and bool(s.failed_on)


def others_wait(s: Sight) -> bool:
    return s.incident.verified and bool(s.untried)
