"""step(state, event, now) → (state, effects): everything that decides.

Rule 1: whatever changes what the healer believes or orders is called from here, and nothing in this folder waits,
asks, writes or fires. The caller stores the new state first and carries out the effects second.

How to read it. An event first changes the *facts* (`facts`, `orders`): how a node looks, what a minion answered, who
asked for what. Then every incident of the clusters concerned walks the table `TRANSITIONS` until no row applies: a row
names the phase it leaves, the condition (`when`), the phase it leads to, the sentence an operator will read, and what
it does besides (`do`). Rows of a phase are tried from top to bottom, the first that applies is taken. All timing lies
in the conditions: a `Tick` changes no fact, it lets time-bound conditions come true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from . import conditions as when
from . import deeds as do
from . import gates, health, looks
from .conditions import Sight
from .deeds import Change
from .explain import explain
from .facts import forget_health, run_out, take_job_news, take_met, take_observation, take_view
from .model import (
    CLUSTER_WIDE,
    Announce,
    Answer,
    Command,
    Commanded,
    Dial,
    Effect,
    Event,
    Fire,
    Incident,
    Met,
    Missing,
    Observed,
    Phase,
    Published,
    Reply,
    Requested,
    Returned,
    Seconds,
    Started,
    State,
    Tick,
    Verb,
    Viewed,
)
from .orders import (
    answer_opened,
    decide_pending,
    lock_nodes,
    name_foreign,
    pause_clusters,
    resume_clusters,
    take_request,
    tell_by,
)

QUIET = "quiet"  #: not announced: it would be said again and again


@dataclass(frozen=True)
class Row:
    """One transition. ``why`` is what the operator reads; ``said`` is announced, by default the phase."""

    leaves: Phase
    when: Callable[[Sight], bool]
    leads_to: Phase
    why: str
    do: Callable[[Sight], Change] = do.nothing
    said: str = ""
    verb: Verb | None = None  #: taken only when an operator orders so


TRANSITIONS: tuple[Row, ...] = (
    Row(Phase.SUSPECTED, when.asked, Phase.OPEN, "{why}", do.open_it),
    Row(
        Phase.SUSPECTED, when.ended_unconfirmed, Phase.RESOLVED, "it ended before it was confirmed"
    ),
    Row(Phase.SUSPECTED, when.confirmed, Phase.OPEN, "{fault} confirmed: {evidence}", do.open_it),
    #
    Row(Phase.OPEN, when.well_and_visited, Phase.RESOLVED, "well for {stable}", do.resolve),
    Row(Phase.OPEN, when.expired, Phase.RESOLVED, "the request has expired: {why}"),
    Row(
        Phase.OPEN, when.did_not_help, Phase.OPEN, "{action} did not help on {failed}", do.next_step
    ),
    Row(Phase.OPEN, when.no_step_left, Phase.LOCKED, "no step is left: {evidence}"),
    Row(
        Phase.OPEN,
        when.nothing_to_do,
        Phase.OPEN,
        "no action helps against this: {evidence}",
        do.only_tell,
        said="held",
    ),
    Row(Phase.OPEN, when.may_act, Phase.REMEDIATING, "{action} on {target}", do.act),
    Row(Phase.OPEN, when.budget_spent, Phase.LOCKED, "{shut}"),
    Row(
        Phase.OPEN,
        when.job_does_not_end,
        Phase.LOCKED,
        "{endless} does not end, whatever was returned: see what runs there (saltutil.running), and end it",
    ),
    Row(Phase.OPEN, when.held_anew, Phase.OPEN, "{shut}", do.hold, said="held"),
    Row(
        Phase.OPEN,
        when.held_no_more,
        Phase.OPEN,
        "no node to act on at the moment: {evidence}",
        do.let_go,
        said=QUIET,
    ),
    Row(
        Phase.OPEN,
        when.waits_for_approval,
        Phase.OPEN,
        "{action} approved by {by}",
        do.approve,
        said=QUIET,
        verb=Verb.APPROVE,
    ),
    Row(
        Phase.OPEN,
        when.mistaken,
        Phase.ACKNOWLEDGED,
        "the servers are taken for what they answer as, by {by}",
        do.take_identities,
        verb=Verb.ACK,
    ),
    Row(Phase.OPEN, when.asked, Phase.RESOLVED, "{action} rejected by {by}", verb=Verb.REJECT),
    Row(Phase.OPEN, when.has_step, Phase.LOCKED, "{action} rejected by {by}", verb=Verb.REJECT),
    #
    Row(Phase.REMEDIATING, when.done, Phase.VERIFYING, "{action} returned: {told}", do.verify),
    Row(
        Phase.REMEDIATING,
        when.busy,
        Phase.OPEN,
        "another state run is active: {told}",
        do.retry_busy,
    ),
    Row(Phase.REMEDIATING, when.failed, Phase.VERIFYING, "{action} failed: {told}", do.verify),
    Row(
        Phase.REMEDIATING,
        when.unreadable,
        Phase.VERIFYING,
        "the job cache cannot be read: whether {action} ran on {acting} is not known",
        do.assume_it_ran,
    ),
    Row(
        Phase.REMEDIATING,
        when.lost,
        Phase.OPEN,
        "{unpublished}",
        do.write_off,
        said="held",
    ),
    Row(
        Phase.REMEDIATING,
        when.may_fire_again,
        Phase.REMEDIATING,
        "not published: fired again",
        do.fire_again,
    ),
    Row(
        Phase.REMEDIATING,
        when.overdue,
        Phase.REMEDIATING,
        "no result of {action} in time: looking whether it still runs",
        do.look,
    ),
    Row(
        Phase.REMEDIATING,
        when.runs_for_ever,
        Phase.LOCKED,
        "{action} on {acting} does not end: see what runs there (saltutil.running), and end it",
        do.leave_it,
    ),
    Row(
        Phase.REMEDIATING,
        when.look_lost,
        Phase.REMEDIATING,
        "nobody published the look: looking again",
        do.look_again,
        said=QUIET,
    ),
    Row(
        Phase.REMEDIATING,
        when.still_running,
        Phase.REMEDIATING,
        "the job still runs",
        do.wait_on,
        said=QUIET,
    ),
    Row(
        Phase.REMEDIATING,
        when.silent_too_early,
        Phase.REMEDIATING,
        "the minions are not back yet: {looked}",
        do.wait_on,
        said=QUIET,
    ),
    Row(
        Phase.REMEDIATING,
        when.look_ended,
        Phase.REMEDIATING,
        "{looked}",
        do.give_up_waiting,
    ),
    #
    Row(
        Phase.VERIFYING,
        when.recovered,
        Phase.VERIFYING,
        "{acting}: well again",
        do.note_recovery,
    ),
    Row(
        Phase.VERIFYING,
        when.seen_faulty,
        Phase.OPEN,
        "{action} failed and the fault is still there: {evidence}",
    ),
    Row(
        Phase.VERIFYING,
        when.not_in_time,
        Phase.OPEN,
        "the fault is still there {verify} after {action}: {evidence}",
    ),
    Row(
        Phase.VERIFYING,
        when.cannot_be_verified,
        Phase.OPEN,
        "whether {action} helped cannot be seen: {unseen}",
        said="held",
    ),
    Row(
        Phase.VERIFYING,
        when.did_not_hold,
        Phase.OPEN,
        "{action} did not hold: {evidence}",
    ),
    Row(Phase.VERIFYING, when.others_wait, Phase.OPEN, "{acting} done, {waiting} next"),
    Row(
        Phase.VERIFYING,
        when.stable,
        Phase.RESOLVED,
        "well for {stable} after {action}",
        do.resolve,
    ),
    #
    Row(
        Phase.LOCKED, when.ended_by_itself, Phase.RESOLVED, "the fault ended by itself", do.resolve
    ),
    Row(
        Phase.LOCKED,
        when.always,
        Phase.ACKNOWLEDGED,
        "acknowledged by {by}",
        do.acknowledge,
        verb=Verb.ACK,
    ),
)


_BY_PHASE: dict[Phase, tuple[Row, ...]] = {
    phase: tuple(row for row in TRANSITIONS if row.leaves is phase and row.verb is None)
    for phase in Phase
}


class _Words(dict[str, str]):
    """What the table's sentences may mention, worked out only when a sentence mentions it."""

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.sight = sight

    def __missing__(self, key: str) -> str:
        return _WORDS[key](self.sight)


def _last_action(s: Sight) -> str:
    return s.step.action.value if s.step else "the last step"


def _unpublished(s: Sight) -> str:
    """Why a job was never seen: after three firings it is the reactor, before that what forbade to fire again."""
    shut = when.shut_again(s) if s.attempt and s.attempt.firings < when.FIRINGS else ()
    what = f"{_last_action(s)} on {', '.join(s.incident.acting)}"
    if not shut:
        return f"the reactor does not publish {what}"
    told = "; ".join(f"{g.name}: {g.why}" for g in shut)
    return f"{what} was not published, and must not be fired again: {told}"


_WORDS: dict[str, Callable[[Sight], str]] = {
    "fault": lambda s: s.incident.called,
    "why": lambda s: s.incident.why,
    "evidence": lambda s: health.evidence(s.cluster, s.incident),
    "action": _last_action,
    "target": lambda s: ", ".join(s.intent.nodes) if s.intent else "",
    "acting": lambda s: ", ".join(s.incident.acting),
    "waiting": lambda s: ", ".join(s.untried),
    "failed": lambda s: ", ".join(s.failed_on),
    "shut": lambda s: "; ".join(f"{g.name}: {g.why}" for g in s.shut),
    "unseen": lambda s: (
        s.cluster.view if s.incident.fault in CLUSTER_WIDE else health.unseen(s.cluster, s.incident)
    ),
    "looked": lambda s: looks.told(s.cluster.look)[1] if s.cluster.look else "",
    "unpublished": _unpublished,
    "endless": lambda s: (
        f"{one.action.value} on {', '.join(one.nodes)}" if (one := when.endless(s)) else ""
    ),
    "by": lambda s: tell_by(s.command) if s.command else "",
    "told": lambda s: do.tell_results(s.attempt) if s.attempt else "",
    "stable": lambda s: f"{s.policy.stable_s:g} s",
    "verify": lambda s: f"{s.policy.verify_s:g} s",
}


def _take(row: Row, sight: Sight) -> tuple[State, list[Effect]]:
    """The state and the effects after this row."""
    why = row.why.format_map(_Words(sight))
    cluster, incident, done = row.do(sight)
    if row.leads_to is not incident.phase:
        incident = replace(incident, phase=row.leads_to, changed_at=sight.now)
    incident = replace(incident, why=why)
    state = sight.state.with_cluster(cluster.with_incident(incident))
    effects: list[Effect] = [*done]
    if row.said != QUIET:
        fired = next((e.attempt.id for e in done if isinstance(e, Fire)), None)
        effects.append(Announce(incident, row.said or row.leads_to.value, why, fired))
    return state, effects


def _walk(state: State, name: str, incident_id: str, now: Seconds) -> tuple[State, list[Effect]]:
    """Let one incident take every row that applies."""
    effects: list[Effect] = []
    # A cycle without time passing would be a bug of the table: end it all the same.
    for _ in range(32):
        cluster = state.clusters[name]
        incident = next((i for i in cluster.incidents if i.id == incident_id), None)
        if incident is None:
            break
        sight = Sight(state, cluster, incident, now)
        row = next((row for row in _BY_PHASE[incident.phase] if row.when(sight)), None)
        if row is None:
            break
        state, more = _take(row, sight)
        effects += more
    return state, effects


def _command(state: State, command: Command, now: Seconds) -> tuple[State, list[Effect]]:
    """What an operator orders. Whatever does not fit is refused in words and changes nothing."""

    def refused(why: str) -> tuple[State, list[Effect]]:
        return state, [Answer(command, Reply.REFUSED, why, command.incident)]

    if command.cluster is not None and command.cluster not in state.clusters:
        known = ", ".join(sorted(state.clusters)) or "none"
        return refused(f"unknown cluster {command.cluster!r}; configured: {known}")
    if command.verb in (Verb.PAUSE, Verb.RESUME):
        names = list(state.clusters) if command.cluster is None else [command.cluster]
        give = pause_clusters if command.verb is Verb.PAUSE else resume_clusters
        return give(state, command, names, now)
    if command.verb in (Verb.LOCK, Verb.EXPLAIN):
        if command.cluster is None:
            return refused("no cluster is named")
        cluster = state.clusters[command.cluster]
        foreign = name_foreign(cluster, command.nodes)
        if foreign:
            return refused(foreign)
        if command.verb is Verb.LOCK:
            return lock_nodes(state, cluster, command, now)
        told = explain(state, cluster.name, command.nodes, now)
        return state, [Answer(command, Reply.ACCEPTED, "as of now", told=told)]
    live = [(c, i) for c in state.clusters.values() for i in c.incidents]
    found_one = next(((c, i) for c, i in live if i.id == command.incident), None)
    if found_one is None:
        open_ones = ", ".join(i.id for _, i in live) or "none"
        return refused(f"no open incident {command.incident!r}; open: {open_ones}")
    cluster, incident = found_one
    age_s = 0.0 if command.at is None else now - command.at
    if age_s >= gates.APPROVED_FOR_S and command.verb in (Verb.APPROVE, Verb.ACK):
        return refused(f"given {age_s:.0f} s ago, when no engine ran: give it again")
    if command.attempt not in (None, incident.attempts + 1):
        meant, waits = f"{incident.id}.{command.attempt}", f"{incident.id}.{incident.attempts + 1}"
        return refused(f"{meant} is not what is decided now: {waits} would be next; see explain")
    sight = Sight(state, cluster, incident, now, command)
    row = next(
        (
            row
            for row in TRANSITIONS
            if row.verb is command.verb and row.leaves is incident.phase and row.when(sight)
        ),
        None,
    )
    if row is None:
        needs = {
            Verb.ACK: "only a locked incident can be acknowledged",
            Verb.APPROVE: "its next step does not wait for an approval",
            Verb.REJECT: "only an open incident with a step to come can be rejected",
        }[command.verb]
        return refused(f"{incident.id} is {incident.phase.value}: {needs}")
    state, effects = _take(row, sight)
    return state, [*effects, *_granted(state, command, incident, now)]


def _granted(state: State, command: Command, incident: Incident, now: Seconds) -> list[Effect]:
    """The answer to a command that a row took; what still holds an approved step is said at once."""
    cluster = state.clusters[incident.cluster]
    after = next((i for i in cluster.incidents if i.id == incident.id), None)
    rejected = command.verb is Verb.REJECT
    over = "rejected, and its request with it" if rejected else "acknowledged, its lock is lifted"
    why = after.why if after else f"{incident.id} is {over}"
    if after is not None and command.verb is Verb.APPROVE:
        shut = Sight(state, cluster, after, now).shut
        if shut:
            told = "; ".join(f"{g.name}: {g.why}" for g in shut)
            return [Answer(command, Reply.HELD, f"{why}, but held by {told}", incident.id)]
    return [Answer(command, Reply.ACCEPTED, why, incident.id)]


def _waits(state: State, event: Requested) -> bool:
    """It waits for a fresh dial already."""
    cluster = state.clusters.get(event.request.cluster)
    return cluster is not None and any(p.request.id == event.request.id for p in cluster.pending)


def step(state: State, event: Event, now: Seconds) -> tuple[State, tuple[Effect, ...]]:
    """What the healer believes and orders after this event. Total: what it cannot place changes nothing."""
    effects: list[Effect] = []
    only: str | None = None  #: the one cluster that the event concerns
    opened = [event.request] if isinstance(event, Requested) else []
    if isinstance(event, Observed):
        state, effects = take_observation(state, event, now)
        only = event.observation.cluster
    elif isinstance(event, Met):
        state = take_met(state, event, now)
        only = event.cluster
    elif isinstance(event, Viewed):
        state, effects = take_view(state, event, now)
        only = event.view.cluster
    elif isinstance(event, Missing | Published | Returned):
        state, effects = take_job_news(state, event, now)
    elif isinstance(event, Requested):
        state, effects = take_request(state, event.request, now)
        settled = any(isinstance(e, (Answer, Dial)) for e in effects)
        if settled or _waits(state, event):
            return state, tuple(effects)  # it opened nothing: a storm of these is not to cost much
        only = event.request.cluster
    elif isinstance(event, Commanded):
        state, effects = _command(state, event.command, now)
    elif isinstance(event, Started):
        state = replace(forget_health(state, now), started_at=now)
        # Whoever should have heard of a lock may have been away as well.
        effects = [
            Announce(i, i.phase.value, i.why)
            for cluster in state.clusters.values()
            for i in cluster.incidents
            if i.phase is Phase.LOCKED
        ]
    elif isinstance(event, Tick):
        state, effects = run_out(state, now)
    else:
        return state, ()

    for name in state.clusters if only is None else {only} & state.clusters.keys():
        if state.clusters[name].pending:
            state, more, asked = decide_pending(state, name, now)
            effects += more
            opened += asked
        for incident in state.clusters[name].incidents:
            state, more = _walk(state, name, incident.id, now)
            effects += more
    for request in opened:
        effects += answer_opened(state, request, effects)
    return state, tuple(effects)
