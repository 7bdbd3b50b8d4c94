"""The transitions that an incident takes, one row each, and the words that fill in their sentences.

A row names the phase it leaves, the condition (`conditions`), the phase it leads to, the sentence that an operator
reads, and what it does besides (`deeds`). The rows of a phase are tried from top to bottom. The first that applies is
taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from . import changes
from . import conditions as when
from . import deeds as do
from . import forcing, gates, health
from . import inquiries as inquire
from . import looks, questions, tested
from .deeds import Change
from .events import Verb
from .model import CLUSTER_WIDE, Action, Announce, Effect, Finish, Fire, Phase, State
from .orders import tell_by
from .sight import Sight


class Tells(Enum):
    """How a row is announced."""

    PHASE = "the phase that it leads to"
    HELD = "held: the incident goes on when something changes"
    NOTHING = "not at all, because it would be announced again and again"


@dataclass(frozen=True)
class Row:
    """One transition. ``why`` is the sentence that the operator reads.

    ``id`` is the rule that is recorded with what the row does. It stays the same when the row is changed.
    """

    id: str
    leaves: Phase
    when: Callable[[Sight], bool]
    leads_to: Phase
    why: str
    do: Callable[[Sight], Change] = do.nothing
    tells: Tells = Tells.PHASE
    verb: Verb | None = None  #: the row is taken only when an operator gives this command


# fmt: off
TRANSITIONS: tuple[Row, ...] = (
    Row("suspected.asked", Phase.SUSPECTED, when.asked, Phase.OPEN, "{why}", do.open_it),
    Row("suspected.ended-unconfirmed", Phase.SUSPECTED, when.ended_unconfirmed, Phase.RESOLVED,
        "it ended before it was confirmed"),
    Row("suspected.confirmed", Phase.SUSPECTED, when.confirmed, Phase.OPEN,
        "{fault} confirmed: {evidence}{relapse}", do.open_it),

    Row("open.well", Phase.OPEN, when.well_and_visited, Phase.RESOLVED, "well for {stable}{drift}", do.resolve),
    Row("open.superseded", Phase.OPEN, when.superseded, Phase.RESOLVED, "another fault is there now: {instead}"),
    Row("open.expired", Phase.OPEN, when.expired, Phase.RESOLVED, "the request has expired: {why}"),
    Row("open.cannot-help", Phase.OPEN, when.cannot_help, Phase.OPEN,
        "{action} cannot help: {found}", do.skip_step),
    Row("open.cannot-run", Phase.OPEN, forcing.cannot_run, Phase.OPEN,
        "{action} needs this package on the minion of {bare}", do.skip_step),
    Row("open.hopeless", Phase.OPEN, when.is_hopeless, Phase.LOCKED, "nothing can be done from here. {hopeless}"),
    Row("open.asked-for-nothing", Phase.OPEN, when.asked_for_nothing, Phase.RESOLVED, "{met}"),
    Row("open.left-out", Phase.OPEN, when.some_need_none, Phase.OPEN, "{met}", inquire.leave_out, tells=Tells.NOTHING),
    Row("open.nothing-to-change", Phase.OPEN, when.nothing_to_change, Phase.OPEN, "{met}", do.skip_step),
    Row("open.did-not-help", Phase.OPEN, when.did_not_help, Phase.OPEN,
        "{action} did not help on {failed}", do.next_step),
    Row("open.no-step-left", Phase.OPEN, when.no_step_left, Phase.LOCKED, "no step is left: {evidence}"),
    Row("open.nothing-to-do", Phase.OPEN, when.nothing_to_do, Phase.OPEN,
        "no action helps against this: {evidence}", do.only_tell, tells=Tells.HELD),
    Row("open.act", Phase.OPEN, when.may_act, Phase.REMEDIATING, "{action} on {target}{foreseen}", do.act),
    Row("open.test-first", Phase.OPEN, when.may_test_first, Phase.OPEN,
        "{action} on {target} in test mode first", inquire.test_first, tells=Tells.NOTHING),
    Row("open.ask-observers", Phase.OPEN, when.ask_observers, Phase.OPEN,
        "observers are asked whether they reach {target}", inquire.ask_observers, tells=Tells.NOTHING),
    Row("open.budget-spent", Phase.OPEN, when.budget_spent, Phase.LOCKED, "{shut}"),
    Row("open.job-does-not-end", Phase.OPEN, when.job_does_not_end, Phase.LOCKED,
        "{endless} does not end, whatever was returned: see what runs there (saltutil.running), and end it"),
    Row("open.held", Phase.OPEN, when.held_anew, Phase.OPEN, "{shut}", do.hold, tells=Tells.HELD),
    Row("open.held-no-more", Phase.OPEN, when.held_no_more, Phase.OPEN,
        "no node to act on at the moment: {evidence}", do.let_go, tells=Tells.NOTHING),
    Row("open.approved", Phase.OPEN, when.waits_for_approval, Phase.OPEN,
        "{action} approved by {by}", do.approve, tells=Tells.NOTHING, verb=Verb.APPROVE),
    Row("open.identity-accepted", Phase.OPEN, when.mistaken, Phase.ACKNOWLEDGED,
        "the servers are taken for what they answer as, by {by}", do.take_identities, verb=Verb.ACK),
    Row("open.request-rejected", Phase.OPEN, when.asked, Phase.RESOLVED, "{action} rejected by {by}", verb=Verb.REJECT),
    Row("open.step-rejected", Phase.OPEN, when.has_step, Phase.LOCKED, "{action} rejected by {by}", verb=Verb.REJECT),

    Row("remediating.done", Phase.REMEDIATING, when.done, Phase.VERIFYING, "{action} returned: {told}", do.verify),
    Row("remediating.busy", Phase.REMEDIATING, when.busy, Phase.OPEN,
        "another state run is active: {told}", do.retry_busy),
    Row("remediating.forbidden", Phase.REMEDIATING, when.forbidden, Phase.OPEN,
        "{action} is forbidden there: {told}", do.wait_for_word, tells=Tells.HELD),
    Row("remediating.stuck", Phase.REMEDIATING, forcing.stuck, Phase.LOCKED,
        "{told}. Nothing is started beside it: see what its disk does, or restart that machine", do.verify),
    Row("remediating.failed", Phase.REMEDIATING, when.failed, Phase.VERIFYING, "{action} failed: {told}", do.verify),
    Row("remediating.unreadable", Phase.REMEDIATING, when.unreadable, Phase.VERIFYING,
        "the job cache cannot be read: whether {action} ran on {acting} is not known", do.assume_it_ran),
    Row("remediating.lost", Phase.REMEDIATING, when.lost, Phase.OPEN, "{unpublished}", do.write_off, tells=Tells.HELD),
    Row("remediating.fire-again", Phase.REMEDIATING, when.may_fire_again, Phase.REMEDIATING,
        "not published: fired again", do.fire_again),
    Row("remediating.overdue", Phase.REMEDIATING, when.overdue, Phase.REMEDIATING,
        "no result of {action} in time: looking whether it still runs", do.look),
    Row("remediating.hangs", Phase.REMEDIATING, forcing.hangs, Phase.OPEN,
        "{action} on {acting} does not come back ({looked}): what it waits for is ended by force", do.give_way),
    Row("remediating.runs-for-ever", Phase.REMEDIATING, when.runs_for_ever, Phase.LOCKED,
        "{action} on {acting} does not end ({looked}): see what runs there (saltutil.running), and end it", do.leave_it),
    Row("remediating.look-lost", Phase.REMEDIATING, when.look_lost, Phase.REMEDIATING,
        "nobody published the look: looking again", do.look_again, tells=Tells.NOTHING),
    Row("remediating.still-running", Phase.REMEDIATING, when.still_running, Phase.REMEDIATING,
        "the job still runs", do.wait_on, tells=Tells.NOTHING),
    Row("remediating.silent-too-early", Phase.REMEDIATING, when.silent_too_early, Phase.REMEDIATING,
        "the minions are not back yet: {looked}", do.wait_on, tells=Tells.NOTHING),
    Row("remediating.look-ended", Phase.REMEDIATING, when.look_ended, Phase.REMEDIATING,
        "{looked}", do.give_up_waiting),

    Row("verifying.recovered", Phase.VERIFYING, when.recovered, Phase.VERIFYING,
        "{acting}: well again", do.note_recovery),
    Row("verifying.seen-faulty", Phase.VERIFYING, when.seen_faulty, Phase.OPEN,
        "{action} failed and the fault is still there: {evidence}"),
    Row("verifying.not-in-time", Phase.VERIFYING, when.not_in_time, Phase.OPEN,
        "the fault is still there {verify} after {action}: {evidence}"),
    Row("verifying.cannot-be-verified", Phase.VERIFYING, when.cannot_be_verified, Phase.OPEN,
        "whether {action} helped cannot be seen: {unseen}", tells=Tells.HELD),
    Row("verifying.did-not-hold", Phase.VERIFYING, when.did_not_hold, Phase.OPEN, "{action} did not hold: {evidence}"),
    Row("verifying.others-wait", Phase.VERIFYING, when.others_wait, Phase.OPEN, "{acting} done, {waiting} next"),
    Row("verifying.stable", Phase.VERIFYING, when.stable, Phase.RESOLVED,
        "well for {stable} after {action}{drift}", do.resolve),

    Row("locked.ended-by-itself", Phase.LOCKED, when.ended_by_itself, Phase.RESOLVED,
        "the fault ended by itself", do.resolve),
    Row("locked.acknowledged", Phase.LOCKED, when.always, Phase.ACKNOWLEDGED,
        "acknowledged by {by}", do.acknowledge, verb=Verb.ACK),
)
# fmt: on

BY_PHASE: dict[Phase, tuple[Row, ...]] = {
    phase: tuple(row for row in TRANSITIONS if row.leaves is phase and row.verb is None)
    for phase in Phase
}


class Words(dict[str, str]):
    """The words that fill in the sentences of the rows. A word is worked out only if the sentence contains it."""

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.sight = sight

    def __missing__(self, key: str) -> str:
        return _WORDS[key](self.sight)


def _last_action(s: Sight) -> str:
    return s.step.action.value if s.step else "the last step"


def _unpublished(s: Sight) -> str:
    """Why a job was never seen. After all firings the reactor is to blame; before, a gate forbade to fire again."""
    shut = when.shut_again(s) if s.attempt and s.attempt.firings < when.FIRINGS else ()
    what = f"{_last_action(s)} on {', '.join(s.incident.turn.acting)}"
    if not shut:
        return f"the reactor does not publish {what}"
    told = "; ".join(f"{g.name}: {g.why}" for g in shut)
    return f"{what} was not published, and must not be fired again: {told}"


def _instead(s: Sight) -> str:
    """The faults that an incident's nodes show now, each with its incident."""
    found = {n: when.instead(s, n) for n in s.incident.nodes}
    return ", ".join(f"{one.called} on {n} ({one.id})" for n, one in found.items() if one)


def _shut(s: Sight) -> str:
    """The gates that are shut, without those that only have to ask yet."""
    assert s.intent is not None
    told = gates.to_tell(s.state, s.intent, s.shut, s.now)
    some = (g for g in s.shut if g.name in told or g.name not in gates.ASK_LAST)
    return "; ".join(f"{g.name}: {g.why}" for g in some)


def _found(s: Sight) -> str:
    """What the minions of the incident's nodes have found."""
    told = {n: questions.heard(s.cluster, n) for n in s.afflicted}
    return "; ".join(f"{n}: {one.sentence}" for n, one in told.items() if one)


def _met(s: Sight) -> str:
    """Why a highstate is left out on the nodes that wait for it."""
    named = s.met if when.asked_for_nothing(s) else tuple(n for n in s.met if n in s.untried)
    return tested.why_met(s.cluster, s.incident, named)


def _foreseen(s: Sight) -> str:
    """What the highstate would change by a test run, in brackets. Empty: it is no highstate, or nothing was told."""
    if s.intent is None or s.step is None or s.step.action is not Action.HIGHSTATE:
        return ""
    told = {n: tested.heard(s.cluster, s.incident, n, s.now) for n in s.intent.nodes}
    said = [f"{n}: {one.why}" for n, one in told.items() if one is not None and one.states]
    return f" ({'; '.join(said)})" if said else ""


def _relapse(s: Sight) -> str:
    """Which incident this one is a relapse of, while it opens. Empty if it is none."""
    _, opened, _ = do.open_it(s)
    return f" (a relapse of {opened.relapse_of})" if opened.relapse_of else ""


_WORDS: dict[str, Callable[[Sight], str]] = {
    "fault": lambda s: s.incident.called,
    "why": lambda s: s.incident.why,
    "evidence": lambda s: health.evidence(s.cluster, s.incident),
    "action": _last_action,
    "target": lambda s: ", ".join(s.intent.nodes) if s.intent else "",
    "acting": lambda s: ", ".join(s.incident.turn.acting),
    "waiting": lambda s: ", ".join(s.untried),
    "failed": lambda s: ", ".join(s.failed_on),
    "shut": _shut,
    "unseen": lambda s: (
        str(s.cluster.tables)
        if s.incident.fault in CLUSTER_WIDE
        else health.unseen(s.cluster, s.incident)
    ),
    "instead": _instead,
    "found": _found,
    "met": _met,
    "foreseen": _foreseen,
    "drift": lambda s: (
        f"; the configuration had drifted: {changes.some(s.incident.drift)}"
        if s.incident.drift
        else ""
    ),
    "hopeless": lambda s: when.hopeless(s),
    "bare": lambda s: ", ".join(forcing.bare(s)),
    "looked": lambda s: looks.told(s.cluster.look)[1] if s.cluster.look else "",
    "unpublished": _unpublished,
    "endless": lambda s: (
        f"{one.action.value} on {', '.join(one.nodes)}" if (one := when.endless(s)) else ""
    ),
    "relapse": _relapse,
    "by": lambda s: tell_by(s.command) if s.command else "",
    "told": lambda s: do.tell_results(s.attempt) if s.attempt else "",
    "stable": lambda s: f"{s.policy.stable_s:g} s",
    "verify": lambda s: f"{s.policy.verify_s:g} s",
}


def take(row: Row, sight: Sight) -> tuple[State, list[Effect]]:
    """The state and the effects after this row was taken."""
    why = row.why.format_map(Words(sight))
    cluster, incident, done = row.do(sight)
    if row.leads_to is not incident.phase:
        incident = replace(incident, phase=row.leads_to, changed_at=sight.now)
    incident = replace(incident, why=why, rule=row.id)
    state = sight.state.with_cluster(cluster.with_incident(incident))
    effects: list[Effect] = [
        replace(e, rule=row.id) if isinstance(e, (Fire, Finish)) else e for e in done
    ]
    if row.tells is not Tells.NOTHING:
        fired = next((e.attempt.id for e in done if isinstance(e, Fire)), None)
        effects.append(Announce(incident, why, row.id, fired, row.tells is Tells.HELD))
    return state, effects
