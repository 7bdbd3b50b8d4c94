"""step(state, event, now) → (state, effects): everything that decides.

Rule 1: whatever changes what the healer believes or orders stands in this file, and nothing in this file waits,
asks, writes or fires. The caller stores the new state first and carries out the effects second.

How to read it. An event first changes the *facts*: how a node looks, what a minion answered, who asked for what
(the functions called from `_facts`). Then every incident of the clusters concerned walks the table `TRANSITIONS`
until no row applies: a row names the phase it leaves, the condition, the phase it leads to, the sentence an
operator will read, and what it does besides. Rows of a phase are tried from top to bottom, the first that applies
is taken. All timing lies in the conditions: a `Tick` changes no fact, it lets time-bound conditions come true.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from typing import Any

from . import escalation
from . import gates
from . import health
from .model import CLUSTER_WIDE
from .model import ENDED
from .model import REMEDIES
from .model import Action
from .model import Announce
from .model import Answer
from .model import Attempt
from .model import ClusterState
from .model import Command
from .model import Commanded
from .model import Effect
from .model import Event
from .model import Fault
from .model import Finish
from .model import Fire
from .model import Incident
from .model import Late
from .model import Limits
from .model import Missing
from .model import Mode
from .model import NodeState
from .model import Observed
from .model import Outcome
from .model import Pause
from .model import Phase
from .model import Policy
from .model import Published
from .model import Recovery
from .model import Reply
from .model import Request
from .model import Requested
from .model import Returned
from .model import Seconds
from .model import Started
from .model import State
from .model import Step
from .model import Tell
from .model import Tick
from .model import Verb
from .model import Viewed
from .model import ViewStatus

PUBLISH_WITHIN_S = (
    15.0  #: a job that is not in the job cache by then is fired again under the same JID
)
FIRINGS = 3
PUBLISH_AT_ALL_S = 300.0  #: after a crash, an attempt older than this is not fired again
BUSY_PAUSE_S = 5.0  #: another state run is active: try again after this
LOST_PAUSE_S = 60.0  #: the reactor does not publish: try again after this, doubled each time …
LOST_PAUSE_MAX_S = 3600.0  #: … up to this
READ_WITHIN_S = 10.0  #: so long the job cache may take to be read
GIVE_UP_AFTER = 3  #: times ``attempt.timeout``: a job that still runs then is left to a person
REQUEST_AGE_S = 900.0  #: a request that no gate let through for so long has expired
REFUSED_TOLD = 10  #: refusals of one source that are told …
REFUSED_WITHIN_S = 60.0  #: … in this time
NAMED = 5  #: unknown names that an answer repeats
LOOK_WITHIN_S = 15.0  #: a minion that has not said by then what it runs does not answer
LOOK_AFTER_START_S = 30.0  #: a job that the healer's start found under way is looked for after this
LOOK_PAUSE_S = 30.0  #: while our timed-out job still runs, look again after this
ASKERS = 100  #: sources of requests that are remembered per incident
LATE_S = 3600.0  #: so long a result may come late and is still recorded
UNSEEN_S = 90.0  #: a node or view that nobody has seen for so long after a job cannot be verified
RUNS_AT_MOST_S = 86400.0  #: a job that was given up while it ran counts as running for so long

# ---------------------------------------------------------------- one incident, seen from all sides


@dataclass(frozen=True)
class Sight:
    """One incident with all that its rows' conditions ask for."""

    state: State
    cluster: ClusterState
    incident: Incident
    now: Seconds
    command: Command | None = None  #: what an operator orders about this incident

    @property
    def policy(self) -> Policy:
        return self.state.policies[self.cluster.name]

    @property
    def requested(self) -> bool:
        return self.incident.fault is Fault.REQUESTED

    def shows(self, name: str) -> bool:
        return health.shows(self.cluster, self.incident, name)

    def confirmed(self, name: str) -> bool:
        return health.confirmed(self.cluster, self.incident, name)

    def known(self, name: str) -> bool:
        return health.known(self.cluster, self.incident, name)

    def seen_since(self, name: str, then: Seconds) -> bool:
        return health.seen_since(self.cluster, self.incident, name, then)

    @cached_property
    def afflicted(self) -> tuple[str, ...]:
        """Nodes that the present step is for: those confirmed, or those a request names and no job has visited."""
        if self.requested:
            return tuple(n for n in self.incident.nodes if n not in self.incident.tried)
        return tuple(n for n in self.incident.nodes if self.confirmed(n))

    @property
    def untried(self) -> tuple[str, ...]:
        return tuple(n for n in self.afflicted if n not in self.incident.tried)

    @property
    def failed_on(self) -> tuple[str, ...]:
        """Nodes that the present step has visited and that (again) show the fault."""
        return tuple(n for n in self.afflicted if n in self.incident.tried)

    @property
    def step(self) -> Step | None:
        index = self.incident.step
        return self.incident.steps[index] if index < len(self.incident.steps) else None

    @cached_property
    def intent(self) -> gates.Intent | None:
        """What would be done now: dead nodes together, nodes that may serve one after the other."""
        if self.step is None:
            return None
        # A node that rests, or whose budget is spent, need not hold up the others.
        ready = tuple(n for n in self.untried if self._free(n)) or self.untried
        nodes = ready if self.incident.fault is Fault.DEAD else ready[:1]
        return gates.Intent(self.cluster.name, self.incident, self.step, nodes)

    def _free(self, name: str) -> bool:
        node = self.cluster.nodes[name]
        rests = node.cooldown_until > self.now and node.cooldown_incident != self.incident.id
        return not rests and gates.affordable(node, self.policy, self.incident, self.now)

    @cached_property
    def shut(self) -> tuple[gates.Gate, ...]:
        assert self.intent is not None
        return gates.shut(gates.judge(self.state, self.intent, self.now))

    def since_start(self, then: Seconds) -> Seconds:
        """That moment, or the healer's start if it was later: what happened in its absence is not known yet."""
        return max(then, self.state.started_at)

    @property
    def attempt(self) -> Attempt | None:
        """This incident's attempt in flight."""
        attempt = self.cluster.attempt
        return attempt if attempt and attempt.incident == self.incident.id else None

    @property
    def gone_for_s(self) -> Seconds:
        gone = self.incident.gone_since
        return -1.0 if gone is None else self.now - gone


def _moved(cluster: ClusterState, incident: Incident) -> ClusterState:
    """The cluster with this incident in its new shape (and without it, if it has ended)."""
    others = tuple(i for i in cluster.incidents if i.id != incident.id)
    if incident.phase in ENDED:
        return replace(cluster, incidents=others)
    return replace(
        cluster,
        incidents=tuple(incident if i.id == incident.id else i for i in cluster.incidents),
    )


def _with_cluster(state: State, cluster: ClusterState) -> State:
    return replace(state, clusters={**state.clusters, cluster.name: cluster})


def _with_nodes(cluster: ClusterState, changed: Mapping[str, NodeState]) -> ClusterState:
    return replace(cluster, nodes={**cluster.nodes, **changed}) if changed else cluster


# ---------------------------------------------------------------- conditions


def _ended_unconfirmed(s: Sight) -> bool:
    return all(s.known(n) and not s.shows(n) for n in s.incident.nodes)


def _confirmed(s: Sight) -> bool:
    return any(s.confirmed(n) for n in s.incident.nodes)


def _asked(s: Sight) -> bool:
    return s.requested


def _well_again(s: Sight) -> bool:
    return s.gone_for_s >= s.policy.stable_s and all(
        health.fresh(s.cluster, s.policy, s.incident, n, s.now) for n in s.incident.nodes
    )


def _expired(s: Sight) -> bool:
    """A request that no gate lets through, or not through to its next node, is forgotten as its asker forgets it."""
    since = s.incident.changed_at if s.incident.visited else s.incident.opened_at
    return s.requested and s.now - since >= REQUEST_AGE_S


def _ended_by_itself(s: Sight) -> bool:
    return not s.incident.by_hand and _well_again(s)


def _well_and_visited(s: Sight) -> bool:
    return _well_again(s) and not s.afflicted


def _stable(s: Sight) -> bool:
    return s.incident.verified and _well_and_visited(s)


def _did_not_help(s: Sight) -> bool:
    """Only when nobody waits for the present step any more: each node has its turn with each step."""
    return bool(s.failed_on) and not s.untried and s.step is not None


def _no_step_left(s: Sight) -> bool:
    return s.step is None and bool(s.incident.steps) and bool(s.afflicted)


def _nothing_to_do(s: Sight) -> bool:
    return not s.incident.steps and s.incident.held != "announce only"


def _may_act(s: Sight) -> bool:
    return s.intent is not None and bool(s.intent.nodes) and not s.shut


def _budget_spent(s: Sight) -> bool:
    """Nothing but the budget forbids to act: the healer has tried what it may.

    A request that was refused so is held until it expires: it must not lock the database's own healing out.
    """
    return (
        not s.requested
        and s.intent is not None
        and bool(s.intent.nodes)
        and {"budget"} <= {g.name for g in s.shut} <= {"budget", "approval"}
    )


def _waits_for_approval(s: Sight) -> bool:
    """Also while nobody knows yet on which of its nodes: then the word is good for all of them."""
    if s.step is None:
        return False
    nodes = s.intent.nodes if s.intent and s.intent.nodes else s.incident.nodes
    intent = gates.Intent(s.cluster.name, s.incident, s.step, nodes)
    return not gates.approval(s.state, intent, s.now).open


def _has_step(s: Sight) -> bool:
    return s.step is not None


def _always(s: Sight) -> bool:
    return True


def _held_no_more(s: Sight) -> bool:
    """What held it is history: at the moment there is no node to act on."""
    return s.intent is not None and not s.intent.nodes and s.incident.held != ""


def _held_anew(s: Sight) -> bool:
    if s.intent is None or not s.intent.nodes:
        return False
    return s.incident.held != ", ".join(g.name for g in s.shut)


def _verdict(s: Sight) -> Outcome | None:
    """What came of the attempt's job, once that is known."""
    attempt = s.attempt
    if attempt is None:
        return Outcome.LOST  # written down nowhere: nothing is known to have run
    if len(attempt.results) < len(attempt.nodes):
        return None
    # Where another state run was active nothing happened: that node is asked again, the others count.
    results = [o for o, _ in attempt.results.values() if o is not Outcome.BUSY]
    if not results:
        return Outcome.BUSY
    if all(outcome is Outcome.DONE for outcome in results):
        return Outcome.DONE
    if any(outcome is Outcome.TIMED_OUT for outcome in results):
        return Outcome.TIMED_OUT
    return Outcome.FAILED


def _done(s: Sight) -> bool:
    return _verdict(s) is Outcome.DONE


def _busy_too_long(s: Sight) -> bool:
    since = s.incident.busy_since
    return since is not None and s.now - since >= s.policy.attempt_timeout_s


def _busy(s: Sight) -> bool:
    return _verdict(s) is Outcome.BUSY and not _busy_too_long(s)


def _failed(s: Sight) -> bool:
    return _verdict(s) in (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.BUSY)


def _unpublished(s: Sight) -> bool:
    attempt = s.attempt
    if attempt is None or attempt.published_at is not None or attempt.results:
        return False
    # The reader must have looked: a job cache that cannot be read proves nothing.
    seen = attempt.missing_at
    return seen is not None and seen - s.since_start(attempt.fired_at) >= PUBLISH_WITHIN_S


def _unreadable(s: Sight) -> bool:
    """Neither published nor known not to be: the job may have run."""
    attempt = s.attempt
    return (
        attempt is not None
        and attempt.published_at is None
        and (attempt.missing_at is None or s.now - attempt.missing_at > READ_WITHIN_S)
        and s.now - s.since_start(attempt.fired_at) >= s.policy.attempt_timeout_s
    )


def _lost(s: Sight) -> bool:
    attempt = s.attempt
    if attempt is None:
        return True
    if not _unpublished(s):
        return False
    cause_gone = not s.requested and any(s.known(n) and not s.shows(n) for n in attempt.nodes)
    too_old = s.now - attempt.decided_at >= PUBLISH_AT_ALL_S
    return attempt.firings >= FIRINGS or too_old or cause_gone


def _fire_again(s: Sight) -> bool:
    """Not published: fire again, the gates judged anew as if this attempt were not there."""
    if not _unpublished(s) or s.attempt is None or s.step is None:
        return False
    free = replace(s.cluster, attempt=None, look=None)
    state = replace(s.state, clusters={**s.state.clusters, s.cluster.name: free})
    intent = gates.Intent(s.cluster.name, s.incident, s.step, s.attempt.nodes)
    # Paid for already, when it was decided.
    shut = [
        g
        for g in gates.shut(gates.judge(state, intent, s.now))
        if g.name not in ("budget", "limits")
    ]
    return not shut


def _look_due(s: Sight, published_at: Seconds) -> Seconds:
    """When the job has had its time.

    If the healer has started since, its master may have died with the job on its way to the minions: that is asked
    soon. A job that still runs is left alone, however often one looks.
    """
    in_time = published_at + s.policy.attempt_timeout_s
    since_start = s.state.started_at + LOOK_AFTER_START_S
    if s.state.started_at > published_at:
        in_time = min(in_time, since_start)
    return max(in_time, s.state.started_at + READ_WITHIN_S)


def _overdue(s: Sight) -> bool:
    attempt = s.attempt
    return (
        attempt is not None
        and attempt.published_at is not None
        and _verdict(s) is None
        and s.cluster.look is None
        and s.now >= _look_due(s, attempt.published_at)
        and s.now >= s.incident.not_before
    )


def _runs_for_ever(s: Sight) -> bool:
    """Looked for long enough: a person must end it. What was only asked for does not keep a fault waiting."""
    attempt = s.attempt
    waits = any(
        i.phase is Phase.OPEN and i.fault is not Fault.REQUESTED for i in s.cluster.incidents
    )
    times = 1 if s.requested and waits else GIVE_UP_AFTER
    patience_s = times * s.policy.attempt_timeout_s + LOOK_PAUSE_S
    return (
        attempt is not None
        and attempt.published_at is not None
        and _verdict(s) is None
        and (_still_running(s) or _look_lost(s))
        and s.now - attempt.published_at >= patience_s
    )


def _look_lost(s: Sight) -> bool:
    """The look itself was never published: it proves nothing about the job."""
    look = s.cluster.look
    return look is not None and _look_ended(s) and look.published_at is None


def _look_ended(s: Sight) -> bool:
    look = s.cluster.look
    if look is None or s.attempt is None or look.of != s.attempt.id:
        return False
    waited_s = s.now - s.since_start(look.fired_at)
    return len(look.results) == len(look.nodes) or waited_s >= LOOK_WITHIN_S


def _silent_too_early(s: Sight) -> bool:
    """After a start of the master its minions may not be back yet: silence proves nothing before the job's time."""
    look, attempt = s.cluster.look, s.attempt
    if look is None or attempt is None or attempt.published_at is None or not _look_ended(s):
        return False
    in_time = s.now - attempt.published_at < s.policy.attempt_timeout_s
    return in_time and len(look.results) < len(look.nodes)


def _still_running(s: Sight) -> bool:
    look = s.cluster.look
    if look is None or not _look_ended(s):
        return False
    return any(outcome is Outcome.BUSY for outcome, _ in look.results.values())


def _recovered(s: Sight) -> bool:
    """Seen after the job's end: the nodes it was for are well, whatever the job said of itself."""
    since = s.incident.changed_at
    return not s.incident.verified and all(
        s.seen_since(n, since) and health.well(s.cluster, s.incident, n) for n in s.incident.acting
    )


def _seen_faulty(s: Sight) -> bool:
    """After a job that failed, one look that still shows the fault is enough."""
    since = s.incident.changed_at
    acting = s.incident.acting
    if not s.incident.job_failed or not all(s.seen_since(n, since) for n in acting):
        return False
    # Where the job was done the node has its time to come up.
    ill = [n for n in acting if s.shows(n)]
    return bool(ill) and set(ill) <= set(s.incident.job_failed)


def _not_in_time(s: Sight) -> bool:
    if s.incident.verified:
        return False
    seen = all(s.seen_since(n, s.incident.changed_at) for n in s.incident.acting)
    return seen and s.now - s.incident.changed_at >= s.policy.verify_s


def _cannot_be_verified(s: Sight) -> bool:
    """Nobody has looked since the job's end, for longer than a look may take."""
    if s.incident.verified or s.now - s.since_start(s.incident.changed_at) < UNSEEN_S:
        return False
    return not all(s.seen_since(n, s.incident.changed_at) for n in s.incident.acting)


def _did_not_hold(s: Sight) -> bool:
    return s.incident.verified and bool(s.failed_on)


def _others_wait(s: Sight) -> bool:
    return s.incident.verified and bool(s.untried)


# ---------------------------------------------------------------- what rows do besides

Change = tuple[ClusterState, Incident, tuple[Effect, ...]]


def _nothing(s: Sight) -> Change:
    return s.cluster, s.incident, ()


def _open(s: Sight) -> Change:
    """The escalation is fixed when the incident opens; a relapse starts after the step that had helped."""
    incident = s.incident
    if s.requested:
        return s.cluster, replace(incident, opened_at=s.now), ()
    nodes = tuple(n for n in incident.nodes if s.confirmed(n))
    steps = s.policy.escalation.get(incident.fault, escalation.DEFAULT[incident.fault])
    incident = replace(incident, nodes=nodes, steps=steps, opened_at=s.now)
    before = [
        r
        for r in s.cluster.recoveries
        if r.node in nodes and r.fault is incident.fault and s.now - r.at < s.policy.relapse_s
    ]
    if before:
        last = max(before, key=lambda r: (r.relapses, r.at))
        incident = replace(
            incident,
            step=escalation.first_step(last.step, steps),
            relapse_of=last.incident,
            relapses=last.relapses + 1,
        )
    return s.cluster, incident, ()


def _resolve(s: Sight) -> Change:
    """Remember what helped, so that a relapse need not try it again."""
    incident = s.incident

    def helped(node: str) -> int:
        """The last step that the node has had; the present one may never have come to it."""
        return incident.step - (node not in incident.tried)

    recoveries = tuple(r for r in s.cluster.recoveries if s.now - r.at < s.policy.relapse_s)
    if not s.requested:
        recoveries = tuple(
            r for r in recoveries if r.node not in incident.visited or r.fault is not incident.fault
        ) + tuple(
            Recovery(n, incident.fault, incident.id, s.now, helped(n), incident.relapses)
            for n in incident.visited
        )
    return replace(s.cluster, recoveries=recoveries), incident, ()


def _hold(s: Sight) -> Change:
    return s.cluster, replace(s.incident, held=", ".join(g.name for g in s.shut)), ()


def _let_go(s: Sight) -> Change:
    return s.cluster, replace(s.incident, held=""), ()


def _only_tell(s: Sight) -> Change:
    return s.cluster, replace(s.incident, held="announce only"), ()


def _next_step(s: Sight) -> Change:
    incident = replace(
        s.incident, step=s.incident.step + 1, tried=(), held="", not_before=0.0, busy_since=None
    )
    return s.cluster, incident, ()


def _act(s: Sight) -> Change:
    """Write the attempt down, charge the nodes' budgets, fire."""
    assert s.intent is not None
    intent = s.intent
    number = s.incident.attempts + 1
    attempt = Attempt(
        id=f"{s.incident.id}.{number}",
        cluster=s.cluster.name,
        incident=s.incident.id,
        action=intent.step.action,
        nodes=intent.nodes,
        step=s.incident.step,
        decided_at=s.now,
        fired_at=s.now,
    )
    nodes = s.cluster.nodes
    charged = {
        n: replace(nodes[n], spent=(*gates.recent(nodes[n], s.policy, s.now), s.now))
        for n in intent.nodes
    }
    acts = tuple(t for t in s.cluster.acts if t > s.now - s.state.limits.per_s)
    cluster = replace(_with_nodes(s.cluster, charged), attempt=attempt, acts=(*acts, s.now))
    incident = replace(
        s.incident,
        attempts=number,
        held="",
        acting=intent.nodes,
        tried=(*s.incident.tried, *intent.nodes),
        verified=False,
        job_failed=(),
        not_before=0.0,
    )
    return cluster, incident, (Fire(attempt),)


def _again(s: Sight) -> Change:
    assert s.attempt is not None
    attempt = replace(s.attempt, fired_at=s.now, firings=s.attempt.firings + 1)
    return replace(s.cluster, attempt=attempt), s.incident, (Fire(attempt),)


def _look(s: Sight) -> Change:
    """Ask the minions that owe an answer what they run. Reads only, pays no budget."""
    assert s.attempt is not None
    number = s.incident.attempts + 1
    look = Attempt(
        id=f"{s.incident.id}.{number}",
        cluster=s.cluster.name,
        incident=s.incident.id,
        action=Action.LOOK,
        nodes=tuple(n for n in s.attempt.nodes if n not in s.attempt.results),
        step=s.incident.step,
        decided_at=s.now,
        fired_at=s.now,
        of=s.attempt.id,
    )
    return replace(s.cluster, look=look), replace(s.incident, attempts=number), (Fire(look),)


def _look_result(look: Attempt) -> tuple[Outcome, str]:
    silent = [n for n in look.nodes if n not in look.results]
    if silent:
        return Outcome.TIMED_OUT, f"no answer from {', '.join(silent)}"
    return Outcome.DONE, "; ".join(detail for _, detail in look.results.values())


def _wait_on(s: Sight) -> Change:
    assert s.cluster.look is not None
    outcome, why = _look_result(s.cluster.look)
    incident = replace(s.incident, not_before=s.now + LOOK_PAUSE_S)
    return replace(s.cluster, look=None), incident, (Finish(s.cluster.look, outcome, why),)


def _give_up_waiting(s: Sight) -> Change:
    """The look is over and our job does not run any more: the nodes that owe an answer have timed out."""
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
    attempt = replace(attempt, results={**late, **attempt.results})
    outcome, why = _look_result(look)
    return replace(s.cluster, look=None, attempt=attempt), s.incident, (Finish(look, outcome, why),)


def _told(attempt: Attempt) -> str:
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
) -> Change:
    """The attempt's one terminal record; cooldown counts from here.

    On ``idle`` nodes nothing was done. ``running``: as far as is known the job runs on.
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
            # Nothing was changed there: nothing is paid, nothing rests.
            replace(nodes[n], spent=tuple(t for t in nodes[n].spent if t != attempt.decided_at))
            if outcome is Outcome.LOST or n in idle
            else replace(nodes[n], cooldown_until=until, cooldown_incident=s.incident.id)
        )
        for n in attempt.nodes
    }
    ended: tuple[Effect, ...] = (Finish(attempt, outcome, why),)
    look = s.cluster.look
    if look is not None:
        came = all(n in attempt.results for n in attempt.nodes)
        told = (Outcome.DONE, "the results came meanwhile") if came else _look_result(look)
        ended = (*ended, Finish(look, *told))
    cluster = replace(_with_nodes(s.cluster, changed), attempt=None, look=None)
    if acted:
        cluster = replace(cluster, acted_at=s.now)
    else:
        cluster = replace(cluster, acts=tuple(t for t in cluster.acts if t != attempt.decided_at))
    # What was never seen may still be on its way: the reactor had asked before the attempt ended.
    if outcome in (Outcome.TIMED_OUT, Outcome.LOST):
        cluster = replace(cluster, late=(*cluster.late, Late(attempt, s.now, running)))
    return cluster, s.incident, ended


def _busy_nodes(attempt: Attempt) -> frozenset[str]:
    return frozenset(n for n, (outcome, _) in attempt.results.items() if outcome is Outcome.BUSY)


def _verify(s: Sight) -> Change:
    """The job is over. Nodes that were busy meanwhile have not had the step yet, the others have."""
    attempt = s.attempt
    assert attempt is not None
    outcome, idle = _verdict(s), _busy_nodes(attempt)
    if outcome is Outcome.BUSY:  # for too long
        outcome, idle = Outcome.FAILED, frozenset()
    assert outcome is not None
    cluster, incident, effects = _finish(s, outcome, _told(attempt), idle)
    had = tuple(n for n in attempt.nodes if n not in idle)
    incident = replace(
        incident,
        acting=had,
        acted_at=s.now,
        tried=tuple(n for n in incident.tried if n not in idle),
        visited=tuple(dict.fromkeys((*incident.visited, *had))),
        job_failed=tuple(n for n in had if attempt.results[n][0] is not Outcome.DONE),
        busy_since=None,
        lost=0,
        gone_since=None,  # what was seen while the job ran proves nothing
    )
    return cluster, incident, effects


def _assume_it_ran(s: Sight) -> Change:
    """What may have run is paid for."""
    attempt = s.attempt
    assert attempt is not None
    unknown = (Outcome.TIMED_OUT, "the job cache could not be read: the job may have run")
    attempt = replace(attempt, results={**dict.fromkeys(attempt.nodes, unknown), **attempt.results})
    cluster = replace(s.cluster, attempt=attempt)
    return _verify(Sight(s.state, cluster, s.incident, s.now))


def _leave_it(s: Sight) -> Change:
    return _finish(s, Outcome.TIMED_OUT, "it runs on, or its minion does not tell", running=True)


def _look_again(s: Sight) -> Change:
    assert s.cluster.look is not None
    ended = Finish(s.cluster.look, Outcome.LOST, "never seen in the job cache")
    incident = replace(s.incident, not_before=s.now + LOOK_PAUSE_S)
    return replace(s.cluster, look=None), incident, (ended,)


def _untry(s: Sight, pause_s: Seconds) -> Incident:
    acting = set(s.incident.acting)
    return replace(
        s.incident,
        tried=tuple(n for n in s.incident.tried if n not in acting),
        not_before=s.now + pause_s,
        held="after",  # said with its reason; the gate of that name adds nothing to it
    )


def _retry_busy(s: Sight) -> Change:
    assert s.attempt is not None
    cluster, _, effects = _finish(s, Outcome.BUSY, _told(s.attempt), _busy_nodes(s.attempt))
    since = s.now if s.incident.busy_since is None else s.incident.busy_since
    return cluster, replace(_untry(s, BUSY_PAUSE_S), busy_since=since), effects


def _write_off(s: Sight) -> Change:
    cluster, _, effects = _finish(s, Outcome.LOST, "never seen in the job cache")
    pause_s = min(LOST_PAUSE_S * 2.0 ** min(s.incident.lost, 10), LOST_PAUSE_MAX_S)
    incident = replace(_untry(s, pause_s), lost=s.incident.lost + 1, busy_since=None)
    return cluster, incident, effects


def _approve(s: Sight) -> Change:
    assert s.command is not None
    incident = replace(
        s.incident,
        approved_step=s.incident.step,
        approved_at=s.now,
        approved_by=s.command.by,
        approved_nodes=s.incident.nodes,
    )
    return s.cluster, incident, ()


def _acknowledge(s: Sight) -> Change:
    """The lock is lifted: one attempt's budget is free, and what was given up counts as seen to."""
    incident, policy = s.incident, s.policy
    late = tuple(
        replace(one, running=False) if set(one.attempt.nodes) & set(incident.nodes) else one
        for one in s.cluster.late
    )
    cluster = replace(s.cluster, late=late)
    if not incident.by_hand and policy.budget_attempts:
        freed = {}
        for name in incident.nodes:
            node = cluster.nodes[name]
            paid = gates.recent(node, policy, s.now)
            if len(paid) >= policy.budget_attempts:
                spent = paid[len(paid) - policy.budget_attempts + 1 :]
                freed[name] = replace(node, spent=spent)
        cluster = _with_nodes(cluster, freed)
    return cluster, incident, ()


def _note_recovery(s: Sight) -> Change:
    return s.cluster, replace(s.incident, verified=True), ()


# ---------------------------------------------------------------- the table


QUIET = "quiet"  #: not announced: it would be said again and again


@dataclass(frozen=True)
class Row:
    """One transition. ``why`` is what the operator reads; ``said`` is announced, by default the phase."""

    leaves: Phase
    when: Callable[[Sight], bool]
    leads_to: Phase
    why: str
    do: Callable[[Sight], Change] = _nothing
    said: str = ""
    verb: Verb | None = None  #: taken only when an operator orders so


TRANSITIONS: tuple[Row, ...] = (
    Row(Phase.SUSPECTED, _asked, Phase.OPEN, "{why}", _open),
    Row(Phase.SUSPECTED, _ended_unconfirmed, Phase.RESOLVED, "it ended before it was confirmed"),
    Row(Phase.SUSPECTED, _confirmed, Phase.OPEN, "{fault} confirmed: {evidence}", _open),
    #
    Row(Phase.OPEN, _well_and_visited, Phase.RESOLVED, "well for {stable}", _resolve),
    Row(Phase.OPEN, _expired, Phase.RESOLVED, "the request has expired: {why}"),
    Row(Phase.OPEN, _did_not_help, Phase.OPEN, "{action} did not help on {failed}", _next_step),
    Row(Phase.OPEN, _no_step_left, Phase.LOCKED, "no step is left: {evidence}"),
    Row(
        Phase.OPEN,
        _nothing_to_do,
        Phase.OPEN,
        "no action helps against this: {evidence}",
        _only_tell,
        said="held",
    ),
    Row(Phase.OPEN, _may_act, Phase.REMEDIATING, "{action} on {target}", _act),
    Row(Phase.OPEN, _budget_spent, Phase.LOCKED, "{shut}"),
    Row(Phase.OPEN, _held_anew, Phase.OPEN, "{shut}", _hold, said="held"),
    Row(
        Phase.OPEN,
        _held_no_more,
        Phase.OPEN,
        "no node to act on at the moment: {evidence}",
        _let_go,
        said=QUIET,
    ),
    Row(
        Phase.OPEN,
        _waits_for_approval,
        Phase.OPEN,
        "{action} approved by {by}",
        _approve,
        said=QUIET,
        verb=Verb.APPROVE,
    ),
    Row(Phase.OPEN, _asked, Phase.RESOLVED, "{action} rejected by {by}", verb=Verb.REJECT),
    Row(Phase.OPEN, _has_step, Phase.LOCKED, "{action} rejected by {by}", verb=Verb.REJECT),
    #
    Row(Phase.REMEDIATING, _done, Phase.VERIFYING, "{action} returned: {told}", _verify),
    Row(Phase.REMEDIATING, _busy, Phase.OPEN, "another state run is active: {told}", _retry_busy),
    Row(Phase.REMEDIATING, _failed, Phase.VERIFYING, "{action} failed: {told}", _verify),
    Row(
        Phase.REMEDIATING,
        _unreadable,
        Phase.VERIFYING,
        "the job cache cannot be read: whether {action} ran on {acting} is not known",
        _assume_it_ran,
    ),
    Row(
        Phase.REMEDIATING,
        _lost,
        Phase.OPEN,
        "the reactor does not publish {action} on {acting}",
        _write_off,
        said="held",
    ),
    Row(Phase.REMEDIATING, _fire_again, Phase.REMEDIATING, "not published: fired again", _again),
    Row(
        Phase.REMEDIATING,
        _overdue,
        Phase.REMEDIATING,
        "no result of {action} in time: looking whether it still runs",
        _look,
    ),
    Row(
        Phase.REMEDIATING,
        _runs_for_ever,
        Phase.LOCKED,
        "{action} on {acting} does not end: see what runs there (saltutil.running), and end it",
        _leave_it,
    ),
    Row(
        Phase.REMEDIATING,
        _look_lost,
        Phase.REMEDIATING,
        "nobody published the look: looking again",
        _look_again,
        said=QUIET,
    ),
    Row(
        Phase.REMEDIATING,
        _still_running,
        Phase.REMEDIATING,
        "the job still runs",
        _wait_on,
        said=QUIET,
    ),
    Row(
        Phase.REMEDIATING,
        _silent_too_early,
        Phase.REMEDIATING,
        "the minions are not back yet: {looked}",
        _wait_on,
        said=QUIET,
    ),
    Row(
        Phase.REMEDIATING,
        _look_ended,
        Phase.REMEDIATING,
        "{looked}",
        _give_up_waiting,
    ),
    #
    Row(
        Phase.VERIFYING,
        _recovered,
        Phase.VERIFYING,
        "{acting}: well again",
        _note_recovery,
    ),
    Row(
        Phase.VERIFYING,
        _seen_faulty,
        Phase.OPEN,
        "{action} failed and the fault is still there: {evidence}",
    ),
    Row(
        Phase.VERIFYING,
        _not_in_time,
        Phase.OPEN,
        "the fault is still there {verify} after {action}: {evidence}",
    ),
    Row(
        Phase.VERIFYING,
        _cannot_be_verified,
        Phase.OPEN,
        "whether {action} helped cannot be seen: {unseen}",
        said="held",
    ),
    Row(
        Phase.VERIFYING,
        _did_not_hold,
        Phase.OPEN,
        "{action} did not hold: {evidence}",
    ),
    Row(Phase.VERIFYING, _others_wait, Phase.OPEN, "{acting} done, {waiting} next"),
    Row(
        Phase.VERIFYING,
        _stable,
        Phase.RESOLVED,
        "well for {stable} after {action}",
        _resolve,
    ),
    #
    Row(Phase.LOCKED, _ended_by_itself, Phase.RESOLVED, "the fault ended by itself", _resolve),
    Row(
        Phase.LOCKED,
        _always,
        Phase.ACKNOWLEDGED,
        "acknowledged by {by}",
        _acknowledge,
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


def _by(command: Command) -> str:
    return f"{command.by}: {command.reason}" if command.reason else command.by


def _last_action(s: Sight) -> str:
    return s.step.action.value if s.step else "the last step"


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
    "looked": lambda s: _look_result(s.cluster.look)[1] if s.cluster.look else "",
    "by": lambda s: _by(s.command) if s.command else "",
    "told": lambda s: _told(s.attempt) if s.attempt else "",
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
    state = _with_cluster(sight.state, _moved(cluster, incident))
    effects: list[Effect] = [*done]
    if row.said != QUIET:
        fired = next((e.attempt.id for e in done if isinstance(e, Fire)), None)
        effects.append(Announce(incident, row.said or row.leads_to.value, why, fired))
    return state, effects


def _walk(state: State, name: str, incident_id: str, now: Seconds) -> tuple[State, list[Effect]]:
    """Let one incident take every row that applies."""
    effects: list[Effect] = []
    for _ in range(
        32
    ):  # a cycle without time passing would be a bug of the table: end it all the same
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


# ---------------------------------------------------------------- facts


def _watch_gone(cluster: ClusterState, now: Seconds) -> ClusterState:
    """Note for each incident since when all of its nodes are well."""
    if not cluster.incidents:
        return cluster
    incidents = []
    for incident in cluster.incidents:
        gone = all(health.well(cluster, incident, n) for n in incident.nodes)
        since = (now if incident.gone_since is None else incident.gone_since) if gone else None
        incidents.append(
            incident if since == incident.gone_since else replace(incident, gone_since=since)
        )
    return replace(cluster, incidents=tuple(incidents))


def _observe(state: State, event: Observed, now: Seconds) -> tuple[State, list[Effect]]:
    seen = event.observation
    cluster = state.clusters.get(seen.cluster)
    if cluster is None or seen.node not in cluster.nodes:
        return state, []
    effects: list[Effect] = []
    if seen.ours:
        return _eyes(replace(state, ours=(now, seen.evidence)), now)
    before = cluster.nodes[seen.node]
    node = health.observe(
        before, seen, state.policies[seen.cluster], now, _acted_on(cluster, seen.node)
    )
    if node.flapping is not before.flapping:
        times = len(node.changes)
        why = f"{times} changes that nobody made" if node.flapping else "it is steady again"
        effects.append(
            Tell("flapping" if node.flapping else "steady", cluster.name, seen.node, why)
        )
    cluster = _with_nodes(cluster, {seen.node: node})
    if node.fault is not None:
        cluster, more = _assign(cluster, state.policies[seen.cluster], seen.node, node, now)
        effects += more
    cluster = _watch_gone(cluster, now)
    state = replace(state, clusters={**state.clusters, seen.cluster: cluster})
    # Only a node that has become unreachable, or ceased to be, can change what this asks of all nodes.
    if before.fault is not node.fault or state.blind:
        state, more = _eyes(state, now)
        effects += more
    return state, effects


def _acted_on(cluster: ClusterState, node: str) -> bool:
    """An attempt on this node is in flight or being verified: its changes are the healer's own work."""
    if cluster.attempt and node in cluster.attempt.nodes:
        return True
    return any(i.phase is Phase.VERIFYING and node in i.acting for i in cluster.incidents)


def _eyes(state: State, now: Seconds) -> tuple[State, list[Effect]]:
    """Whether the healer trusts its own eyes; told when that changes."""
    why = health.blind(state.clusters, state.ours, now)
    if bool(why) is bool(state.blind):
        return state, []
    told = (
        Tell("blind", "", "", why) if why else Tell("sighted", "", "", f"no longer: {state.blind}")
    )
    return replace(state, blind=why), [told]


def _view(state: State, event: Viewed, now: Seconds) -> tuple[State, list[Effect]]:
    """A look into a cluster's system tables: its ailments, its table map, the start times of its servers."""
    seen = event.view
    cluster = state.clusters.get(seen.cluster)
    if cluster is None:
        return state, []
    effects: list[Effect] = []
    # Told when it can be had no longer, or can again; not once a round for each node that was asked.
    before = cluster.view.partition(":")[0]
    if before != seen.status.value:
        told = f"{seen.status.value}: {seen.why}" if seen.why else seen.status.value
        if (before, told) != ("not asked yet", ViewStatus.KNOWN.value):
            effects.append(Tell("view", cluster.name, seen.node, told))
        cluster = replace(cluster, view=told)
    if seen.status is ViewStatus.KNOWN:
        by_id = {n.server_id: name for name, n in cluster.nodes.items() if n.server_id}
        changed = {
            by_id[server]: replace(cluster.nodes[by_id[server]], started_at=started)
            for server, started in seen.started.items()
            if server in by_id and cluster.nodes[by_id[server]].started_at != started
        }
        cluster = _with_nodes(cluster, changed)
        ailments = health.view(cluster, seen, state.policies[seen.cluster], now)
        cluster = replace(cluster, ailments=ailments, viewed_at=now)
        state = replace(state, maps={**state.maps, seen.cluster: (now - seen.took_s, seen.tables)})
        for name, ailment in ailments.items():
            issue = name.partition(":")[2]
            if not any(i.fault is ailment.fault and i.issue == issue for i in cluster.incidents):
                nodes = tuple(cluster.nodes)
                cluster, more = _begin(
                    cluster, ailment.fault, nodes, now, ailment.evidence, issue=issue
                )
                effects += more
        cluster = _watch_gone(cluster, now)
    return replace(state, clusters={**state.clusters, seen.cluster: cluster}), effects


def _assign(
    cluster: ClusterState, policy: Policy, name: str, node: NodeState, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """A node with a fault belongs to an incident of that fault; one is opened if it can join none.

    It can join one in which nothing was done yet, or that has not gone beyond its first step: later steps are for
    nodes that had the first.
    """
    assert node.fault is not None
    same = [i for i in cluster.incidents if i.fault is node.fault]
    if any(name in i.nodes for i in same):
        return cluster, []
    free = [i for i in same if i.phase is not Phase.LOCKED and (i.step == 0 or not i.attempts)]
    incident = free[0] if free else None
    if incident is None:
        return _begin(cluster, node.fault, (name,), now, node.evidence)
    if incident.phase is not Phase.SUSPECTED and not node.confirmed:
        return cluster, []
    joined = replace(incident, nodes=(*incident.nodes, name), gone_since=None)
    if incident.step and not _relapsed(cluster, name, node.fault, now - policy.relapse_s):
        joined = replace(
            joined, step=0
        )  # whom nothing has helped yet gets the first step, and the others with it
    why = f"{name} as well: {node.evidence}"
    return _moved(cluster, joined), [Announce(joined, joined.phase.value, why)]


def _relapsed(cluster: ClusterState, name: str, fault: Fault, since: Seconds) -> bool:
    return any(r.node == name and r.fault is fault and r.at > since for r in cluster.recoveries)


def _begin(
    cluster: ClusterState,
    fault: Fault,
    nodes: tuple[str, ...],
    now: Seconds,
    why: str,
    steps: tuple[Step, ...] = (),
    issue: str = "",
) -> tuple[ClusterState, list[Effect]]:
    serial = cluster.serial + 1
    incident = Incident(
        id=f"{cluster.name}-{serial}",
        cluster=cluster.name,
        fault=fault,
        nodes=nodes,
        phase=Phase.SUSPECTED,
        opened_at=now,
        changed_at=now,
        steps=steps,
        issue=issue,
        why=why,
    )
    cluster = replace(cluster, serial=serial, incidents=(*cluster.incidents, incident))
    if fault is Fault.REQUESTED:  # nothing is suspected: it opens in the same step
        return cluster, []
    return cluster, [Announce(incident, Phase.SUSPECTED.value, why)]


def _attempt_event(
    state: State, event: Missing | Published | Returned, now: Seconds
) -> tuple[State, list[Effect]]:
    """A job was published, or a minion answered. What is neither in flight nor owed changes nothing."""
    for cluster in state.clusters.values():
        for slot in ("attempt", "look"):
            attempt: Attempt | None = getattr(cluster, slot)
            if attempt is None or attempt.id != event.attempt:
                continue
            if isinstance(event, Missing):
                attempt = replace(attempt, missing_at=now)
            elif attempt.published_at is None:
                attempt = replace(attempt, published_at=now)
            if isinstance(event, Returned):
                if event.node not in attempt.nodes or event.node in attempt.results:
                    return state, []
                results = {**attempt.results, event.node: (event.outcome, event.detail)}
                attempt = replace(attempt, results=results)
            changed = (
                replace(cluster, attempt=attempt)
                if slot == "attempt"
                else replace(cluster, look=attempt)
            )
            return _with_cluster(state, changed), []
        for late in cluster.late:
            if late.attempt.id == event.attempt and not isinstance(event, Missing):
                effects: list[Effect] = []
                if late.attempt.published_at is None:
                    cluster, late, effects = _came_after_all(state, cluster, late, now)
                    state = _with_cluster(state, cluster)
                if isinstance(event, Returned):
                    state, more = _late_result(state, cluster, late, event, now)
                    effects += more
                return state, effects
    return state, []


def _came_after_all(
    state: State, cluster: ClusterState, late: Late, now: Seconds
) -> tuple[ClusterState, Late, list[Effect]]:
    """The reactor had been slow: the job of an attempt that was written off runs, so it is paid for after all."""
    attempt = replace(late.attempt, published_at=now)
    came = replace(late, attempt=attempt, running=True)
    paid = {
        n: replace(cluster.nodes[n], spent=(*cluster.nodes[n].spent, attempt.decided_at))
        for n in attempt.nodes
        # What was assumed to have run, because nobody could know, is paid for already.
        if n in cluster.nodes and attempt.decided_at not in cluster.nodes[n].spent
    }
    counted = attempt.decided_at in cluster.acts
    cluster = replace(
        _with_nodes(cluster, paid),
        late=tuple(came if one is late else one for one in cluster.late),
        acts=cluster.acts if counted else (*cluster.acts, attempt.decided_at),
    )
    why = f"{attempt.action.value} of {attempt.id} was published: that was not known when it was given up"
    nodes = ", ".join(attempt.nodes)
    return cluster, came, [Tell("late", cluster.name, nodes, why, attempt.incident)]


def _late_result(
    state: State, cluster: ClusterState, late: Late, event: Returned, now: Seconds
) -> tuple[State, list[Effect]]:
    """A result that nobody waits for any more is recorded, and proves that its job has ended."""
    attempt = late.attempt
    if event.node not in gates.owed(attempt):
        return state, []
    results = {**attempt.results, event.node: (event.outcome, event.detail)}
    attempt = replace(attempt, results=results)
    others = tuple(one for one in cluster.late if one is not late)
    kept = (replace(late, attempt=attempt),) if gates.owed(attempt) else ()
    after = f"{attempt.action.value} of {attempt.id}, {now - late.ended_at:.0f} s after its end"
    detail = f" ({event.detail})" if event.detail else ""
    told = Tell(
        "late",
        cluster.name,
        event.node,
        f"{after}: {event.outcome.value}{detail}",
        attempt.incident,
    )
    return _with_cluster(state, replace(cluster, late=(*others, *kept))), [told]


def _request(state: State, request: Request, now: Seconds) -> tuple[State, list[Effect]]:
    """Refuse, join, or open. What becomes of an opened one is answered after its gates have spoken."""

    cluster = state.clusters.get(request.cluster)
    if cluster is None:
        known = ", ".join(sorted(state.clusters)) or "none"
        why = f"unknown cluster {request.cluster!r}; configured: {known}"
        return state, [Answer(request, Reply.REFUSED, why)]

    def refused(why: str) -> tuple[State, list[Effect]]:
        return _refuse(state, state.clusters[request.cluster], request, why, now)

    policy = state.policies[request.cluster]
    action = next((a for a in REMEDIES if a.value == request.action), None)
    if action is None:
        allowed = ", ".join(a.value for a in REMEDIES)
        hint = ""
        if request.action in ("stop", "reload"):
            hint = (
                " (a stopped database is what the healer fights: pause the cluster, and use Salt)"
            )
        return refused(f"unknown action {request.action!r}; allowed: {allowed}{hint}")
    foreign = _foreign(cluster, request.nodes)
    if foreign:
        return refused(foreign)
    if policy.mode is Mode.OFF:
        return refused(f"mode of {cluster.name} is off")
    age_s = 0.0 if request.at is None else now - request.at
    if age_s >= REQUEST_AGE_S:
        return refused(f"asked {age_s:.0f} s ago, when no engine ran to decide it: ask again")

    host = _host(cluster, request)
    if host is not None:
        repeated = request.source in host.askers
        joined = replace(
            host,
            requests=(*host.requests, request.id)[-20:],
            askers=host.askers if repeated else (*host.askers, request.source)[-ASKERS:],
            asked=host.asked + 1,
        )
        why = f"{host.id} ({host.called}) is {host.phase.value}: {host.why}"
        answer = Answer(request, Reply.JOINED, why, host.id, repeated=repeated)
        return _with_cluster(state, _moved(cluster, joined)), [answer]
    if request.forced and not request.nodes:
        return refused("force needs the nodes to be named")
    if action is Action.RESTART and policy.restart_needs_probe and not request.forced:
        return refused("the probe sees nothing wrong, and a restart needs its agreement")
    asked = tuple((t, who) for t, who in cluster.asked if t > now - policy.request_per_s)
    too_many = _too_many(policy, request, asked, now)
    if too_many:
        return refused(too_many)

    nodes = request.nodes or policy.nodes
    told = (
        f"{action.value} {'forced' if request.forced else 'asked'} by {request.asker or 'somebody'}"
    )
    why = f"{told}: {request.reason}" if request.reason else told
    cluster = replace(cluster, asked=(*asked, (now, request.source)))
    cluster, effects = _begin(cluster, Fault.REQUESTED, nodes, now, why, (Step(action),))
    opened = replace(
        cluster.incidents[-1],
        requests=(request.id,),
        askers=(request.source,),
        asked=1,
        forced=request.forced,
    )
    return _with_cluster(state, _moved(cluster, opened)), effects


def _refuse(
    state: State, cluster: ClusterState, request: Request, why: str, now: Seconds
) -> tuple[State, list[Effect]]:
    """The first few of a source in a minute are told; a flood of them is not worth a line each."""
    lately = tuple(one for one in cluster.refused if one[0] > now - REFUSED_WITHIN_S)
    repeated = sum(who == request.source for _, who in lately) >= REFUSED_TOLD
    if not repeated:
        lately = (*lately, (now, request.source))
    answer = Answer(request, Reply.REFUSED, why, repeated=repeated)
    return _with_cluster(state, replace(cluster, refused=lately)), [answer]


def _foreign(cluster: ClusterState, nodes: Sequence[str]) -> str:
    """Which of these are no nodes of the cluster, in words; empty if all are."""
    found = [repr(n) for n in nodes if n not in cluster.nodes]
    if not found:
        return ""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"no node {', '.join(found[:NAMED])}{more} in {cluster.name}; nodes: {', '.join(cluster.nodes)}"


def _host(cluster: ClusterState, request: Request) -> Incident | None:
    """The incident that a request joins: one that can still do something is worth more than the newest one.

    A fault's is about to heal the cluster, whatever was asked. What somebody asked for is joined by the same wish
    only: else a stranger's would stand for everybody's. What is forced joins nothing but the same thing, forced.
    """
    wanted = set(request.nodes or cluster.nodes)

    def same(incident: Incident) -> bool:
        step = incident.steps[0] if incident.steps else None
        return step is not None and step.action.value == request.action

    live = [i for i in cluster.incidents if not i.by_hand]
    if request.forced:
        live = [i for i in live if i.forced and set(i.nodes) == wanted and same(i)]
    else:
        live = [
            i
            for i in live
            if i.fault is not Fault.REQUESTED or (wanted <= set(i.nodes) and same(i))
        ]
    live.sort(key=lambda i: i.opened_at, reverse=True)
    able = (i for i in live if i.phase is not Phase.LOCKED and i.step < len(i.steps))
    return next(able, live[0] if live else None)


def _too_many(
    policy: Policy, request: Request, asked: tuple[tuple[Seconds, str], ...], now: Seconds
) -> str:
    """Why this request is one too many; empty if it is not. One source may use half of what a cluster takes."""
    allowed = policy.request_count
    if not allowed or request.forced:
        return ""
    mine = [t for t, who in asked if who == request.source]
    for what, times, most in (
        (f"for {policy.name}", [t for t, _ in asked], allowed),
        (f"by {request.source}", mine, max(1, (allowed + 1) // 2)),
    ):
        if len(times) >= most:
            again = times[len(times) - most] + policy.request_per_s - now
            return (
                f"too many requests {what}: {len(times)} of {most} per {policy.request_per_s:.0f} s; "
                f"again in {again:.0f} s"
            )
    return ""


def _answered(state: State, request: Request, effects: list[Effect]) -> list[Effect]:
    """The answer to a request that opened an incident: accepted, or held by which gates."""
    said = next((e for e in reversed(effects) if isinstance(e, Announce)), None)
    if said is None:
        return [Answer(request, Reply.REFUSED, "nothing came of it")]
    reply = Reply.HELD if said.said == "held" else Reply.ACCEPTED
    return [Answer(request, reply, said.why, said.incident.id)]


# ---------------------------------------------------------------- commands


def _command(state: State, command: Command, now: Seconds) -> tuple[State, list[Effect]]:
    """What an operator orders. Whatever does not fit is refused in words and changes nothing."""

    def refused(why: str) -> tuple[State, list[Effect]]:
        return state, [Answer(command, Reply.REFUSED, why, command.incident)]

    if command.cluster is not None and command.cluster not in state.clusters:
        known = ", ".join(sorted(state.clusters)) or "none"
        return refused(f"unknown cluster {command.cluster!r}; configured: {known}")
    if command.verb in (Verb.PAUSE, Verb.RESUME):
        names = list(state.clusters) if command.cluster is None else [command.cluster]
        do = _pause if command.verb is Verb.PAUSE else _resume
        return do(state, command, names, now)
    if command.verb in (Verb.LOCK, Verb.EXPLAIN):
        if command.cluster is None:
            return refused("no cluster is named")
        cluster = state.clusters[command.cluster]
        foreign = _foreign(cluster, command.nodes)
        if foreign:
            return refused(foreign)
        if command.verb is Verb.LOCK:
            return _lock(state, cluster, command, now)
        told = explain(state, cluster.name, command.nodes, now)
        return state, [Answer(command, Reply.ACCEPTED, "as of now", told=told)]
    live = [(c, i) for c in state.clusters.values() for i in c.incidents]
    found_one = next(((c, i) for c, i in live if i.id == command.incident), None)
    if found_one is None:
        open_ones = ", ".join(i.id for _, i in live) or "none"
        return refused(f"no open incident {command.incident!r}; open: {open_ones}")
    cluster, incident = found_one
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


def _pause(
    state: State, command: Command, names: list[str], now: Seconds
) -> tuple[State, list[Effect]]:
    """A pause lengthens one that stands, and never shortens it: another operator may rely on it."""
    if not 0 < command.for_s < float("inf"):
        why = f"a pause needs a duration, found {command.for_s:g} s"
        return state, [Answer(command, Reply.REFUSED, why)]
    new = Pause(now + command.for_s, command.by, command.reason, command.cluster is None)
    effects: list[Effect] = []
    longer = []
    for name in names:
        old = state.clusters[name].pause
        if old is not None and old.until >= new.until:
            if new.everywhere and not old.everywhere:  # clusters to come are meant as well
                kept = replace(old, everywhere=True)
                state = _with_cluster(state, replace(state.clusters[name], pause=kept))
            longer.append(f"{name} is paused for {old.until - now:.0f} s by {old.by}: {old.why}")
            continue
        pause = replace(new, everywhere=new.everywhere or bool(old and old.everywhere))
        state = _with_cluster(state, replace(state.clusters[name], pause=pause))
        effects.append(Tell("paused", name, "", f"for {command.for_s:.0f} s by {_by(command)}"))
    if not effects and longer:
        return state, [Answer(command, Reply.JOINED, "; ".join(longer))]
    why = f"paused for {command.for_s:.0f} s"
    told = "; ".join([why, *longer])
    return state, [*effects, Answer(command, Reply.ACCEPTED, told)]


def _resume(
    state: State, command: Command, names: list[str], now: Seconds
) -> tuple[State, list[Effect]]:
    effects: list[Effect] = []
    for name in names:
        if state.clusters[name].pause is not None:
            state = _with_cluster(state, replace(state.clusters[name], pause=None))
            effects.append(Tell("resumed", name, "", f"by {_by(command)}"))
    if not effects:
        return state, [Answer(command, Reply.REFUSED, f"not paused: {', '.join(names)}")]
    return state, [*effects, Answer(command, Reply.ACCEPTED, "resumed")]


def _lock(
    state: State, cluster: ClusterState, command: Command, now: Seconds
) -> tuple[State, list[Effect]]:
    """A person's lock is an incident of its own, without a fault: it ends by ``ack`` alone."""
    nodes = command.nodes or tuple(cluster.nodes)
    same = next(
        (i for i in cluster.incidents if i.by_hand and set(nodes) <= set(i.nodes)),
        None,
    )
    if same is not None:
        why = f"{same.id} is locked already: {same.why}"
        return state, [Answer(command, Reply.JOINED, why, same.id)]
    why = f"locked by {_by(command)}"
    cluster, _ = _begin(cluster, Fault.REQUESTED, nodes, now, why)
    lock = replace(cluster.incidents[-1], phase=Phase.LOCKED, by_hand=True)
    state = _with_cluster(state, _moved(cluster, lock))
    answer = Answer(command, Reply.ACCEPTED, why, lock.id)
    return state, [Announce(lock, Phase.LOCKED.value, why), answer]


def _run_out(state: State, now: Seconds) -> tuple[State, list[Effect]]:
    """Pauses end by themselves; results that are owed for too long are waited for no longer."""
    effects: list[Effect] = []
    for name, cluster in state.clusters.items():
        pause = cluster.pause
        if pause is not None and pause.until <= now:
            cluster = replace(cluster, pause=None)
            effects.append(Tell("resumed", name, "", f"the pause by {pause.by} is over"))
        late = tuple(
            one
            for one in cluster.late
            if now - one.ended_at < (RUNS_AT_MOST_S if one.running else LATE_S)
        )
        if len(late) != len(cluster.late):
            cluster = replace(cluster, late=late)
        if cluster.attempt is None and (cluster.look or cluster.late):
            cluster, more = _look_after(cluster, state.started_at, now)
            effects += more
        if cluster is not state.clusters[name]:
            state = _with_cluster(state, cluster)
    return state, effects


def _look_after(
    cluster: ClusterState, started_at: Seconds, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """Where a job that was given up stands in the way of an incident: does it still run?"""
    look = cluster.look
    if look is not None:
        silent = now - max(look.fired_at, started_at) >= LOOK_WITHIN_S
        if len(look.results) < len(look.nodes) and not silent:
            return cluster, []
        outcome, why = _look_result(look)
        over = outcome is Outcome.DONE and all(o is Outcome.DONE for o, _ in look.results.values())
        late = tuple(
            replace(one, running=one.running and not over) if one.attempt.id == look.of else one
            for one in cluster.late
        )
        return replace(cluster, look=None, late=late), [Finish(look, outcome, why)]
    waiting = {n for i in cluster.incidents if i.phase is Phase.OPEN for n in i.nodes}
    for one in cluster.late:
        nodes = gates.owed(one.attempt)
        if not one.running or not waiting & set(nodes) or now - one.looked_at < LOOK_PAUSE_S:
            continue
        look = Attempt(
            id=f"{one.attempt.id}-look{one.looks + 1}",
            cluster=cluster.name,
            incident=one.attempt.incident,
            action=Action.LOOK,
            nodes=nodes,
            step=one.attempt.step,
            decided_at=now,
            fired_at=now,
            of=one.attempt.id,
        )
        asked = replace(one, looks=one.looks + 1, looked_at=now)
        late = tuple(asked if other is one else other for other in cluster.late)
        return replace(cluster, look=look, late=late), [Fire(look)]
    return cluster, []


def explain(
    state: State, cluster: str, nodes: tuple[str, ...], now: Seconds
) -> tuple[Mapping[str, Any], ...]:
    """Every gate for every incident of the cluster; for nodes without one, as if they were dead.

    The gates are asked exactly as they are before an action, so that what is told here and what is done cannot differ.
    """
    here = state.clusters[cluster]
    policy = state.policies[cluster]
    told: list[Mapping[str, Any]] = []
    concerned: set[str] = set()
    for incident in here.incidents:
        if nodes and not set(nodes) & set(incident.nodes):
            continue
        if not incident.by_hand:
            concerned |= set(incident.nodes)
        sight = Sight(state, here, incident, now)
        # Elsewhere nothing is decided: the incident's own sentence says what is waited for.
        deciding = incident.phase is Phase.OPEN and sight.intent is not None
        judged = gates.judge(state, sight.intent, now) if deciding and sight.intent else ()
        told.append(
            {
                "incident": incident.id,
                "fault": incident.called,
                "phase": incident.phase.value,
                "nodes": list(incident.nodes),
                "why": incident.why,
                "step": sight.step.action.value if sight.step else None,
                "on": list(sight.intent.nodes) if deciding and sight.intent else [],
                "gates": _in_words(judged),
            }
        )
    steps = policy.escalation.get(Fault.DEAD, escalation.DEFAULT[Fault.DEAD])
    for name in nodes or tuple(here.nodes):
        if name in concerned or not steps:
            continue
        node = here.nodes[name]
        supposed = Incident(
            id=f"{cluster}-{here.serial + 1}",
            cluster=cluster,
            fault=Fault.DEAD,
            nodes=(name,),
            phase=Phase.OPEN,
            opened_at=now,
            changed_at=now,
            steps=steps,
        )
        intent = gates.Intent(cluster, supposed, steps[0], (name,))
        told.append(
            {
                "incident": None,
                "fault": node.fault.value if node.fault else None,
                "phase": None,
                "nodes": [name],
                "why": f"supposed that {name} were dead",
                "step": steps[0].action.value,
                "on": [name],
                "gates": _in_words(gates.judge(state, intent, now)),
            }
        )
    return tuple(told)


def _in_words(judged: tuple[gates.Gate, ...]) -> list[Mapping[str, Any]]:
    return [
        {"gate": g.name, "open": g.open, "why": g.why, "opens_at": None if g.open else g.opens_at}
        for g in judged
    ]


def _restart(state: State) -> State:
    """After a start, every verdict about health is old: look anew before believing anything."""
    clusters = {}
    for name, cluster in state.clusters.items():
        nodes = {
            n: replace(
                s,
                fault=None,
                since=None,
                seen=(),
                confirmed=False,
                at=None,
                polls=0,
                evidence="not probed yet",
            )
            for n, s in cluster.nodes.items()
        }
        incidents = tuple(replace(i, gone_since=None, held="") for i in cluster.incidents)
        clusters[name] = replace(
            cluster,
            nodes=nodes,
            ailments={},
            view="not asked yet",
            viewed_at=None,
            incidents=incidents,
        )
    return replace(state, clusters=clusters, maps={}, blind="", ours=None)


# ---------------------------------------------------------------- the function


def step(state: State, event: Event, now: Seconds) -> tuple[State, tuple[Effect, ...]]:
    """What the healer believes and orders after this event. Total: what it cannot place changes nothing."""
    effects: list[Effect] = []
    only: str | None = None  #: the one cluster that the event concerns
    if isinstance(event, Observed):
        state, effects = _observe(state, event, now)
        only = event.observation.cluster
    elif isinstance(event, Viewed):
        state, effects = _view(state, event, now)
        only = event.view.cluster
    elif isinstance(event, Missing | Published | Returned):
        state, effects = _attempt_event(state, event, now)
    elif isinstance(event, Requested):
        state, effects = _request(state, event.request, now)
        if any(isinstance(e, Answer) for e in effects):
            return state, tuple(effects)  # it opened nothing: a storm of these is not to cost much
        only = event.request.cluster
    elif isinstance(event, Commanded):
        state, effects = _command(state, event.command, now)
    elif isinstance(event, Started):
        state = replace(_restart(state), started_at=now)
        # Whoever should have heard of a lock may have been away as well.
        effects = [
            Announce(i, i.phase.value, i.why)
            for cluster in state.clusters.values()
            for i in cluster.incidents
            if i.phase is Phase.LOCKED
        ]
    elif isinstance(event, Tick):
        state, effects = _run_out(state, now)
    else:
        return state, ()

    for name in state.clusters if only is None else {only} & state.clusters.keys():
        for incident in state.clusters[name].incidents:
            state, more = _walk(state, name, incident.id, now)
            effects += more
    if isinstance(event, Requested):
        effects += _answered(state, event.request, effects)
    return state, tuple(effects)


def begin(
    policies: Mapping[str, Policy],
    limits: Limits,
    remembered: Mapping[str, ClusterState],
    now: Seconds,
) -> tuple[State, tuple[Effect, ...]]:
    """The first state: what the settings say, with what the ledger remembers of it.

    What the settings do not name any more ends here: incidents lose such nodes, and end when none is left; an
    attempt that names one is written off.
    """
    effects: list[Effect] = []
    clusters = {}
    # A node that has moved to another cluster, or whose cluster has a new name, takes its budget along.
    anywhere = {n: s for old in remembered.values() for n, s in old.nodes.items()}
    everywhere = [c.pause for c in remembered.values() if c.pause and c.pause.everywhere]
    for name, policy in policies.items():
        old = remembered.get(name)
        if old is None:
            old = ClusterState(name, pause=max(everywhere, key=lambda p: p.until, default=None))
        nodes = {
            n: old.nodes[n] if n in old.nodes else _paid(anywhere.get(n, NodeState()))
            for n in policy.nodes
        }
        attempt, look, dropped = old.attempt, old.look, ""
        if attempt:
            kept = tuple(n for n in attempt.nodes if n in nodes)
            left = {n: r for n, r in attempt.results.items() if n in nodes}
            attempt = replace(attempt, nodes=kept, results=left)
        if attempt and not attempt.nodes:
            effects.append(
                Finish(attempt, Outcome.LOST, "the settings do not name its nodes any more")
            )
            dropped, attempt = attempt.incident, None
        if look and (attempt is None or look.of != attempt.id):
            effects.append(Finish(look, Outcome.LOST, "nothing is left to look for"))
            look = None
        incidents = []
        for incident in old.incidents:
            kept = tuple(n for n in incident.nodes if n in nodes)
            incident = replace(
                incident,
                nodes=kept,
                tried=tuple(n for n in incident.tried if n in nodes),
                acting=tuple(n for n in incident.acting if n in nodes),
                visited=tuple(n for n in incident.visited if n in nodes),
            )
            if kept:
                if incident.id == dropped:  # there is nothing left to wait for
                    incident = replace(incident, phase=Phase.OPEN, changed_at=now)
                incidents.append(incident)
                continue
            why = "the settings do not name its nodes any more"
            ended = replace(incident, phase=Phase.RESOLVED, changed_at=now, why=why)
            effects.append(Announce(ended, ended.phase.value, why))
        recoveries = tuple(r for r in old.recoveries if r.node in nodes)
        late = tuple(
            replace(
                one,
                attempt=replace(
                    one.attempt, nodes=tuple(n for n in one.attempt.nodes if n in nodes)
                ),
            )
            for one in old.late
        )
        clusters[name] = replace(
            old,
            nodes=nodes,
            incidents=tuple(incidents),
            attempt=attempt,
            look=look,
            recoveries=recoveries,
            late=tuple(one for one in late if one.attempt.nodes),
        )
    why = "the settings do not name its cluster any more"
    for name, old in remembered.items():
        if name in policies:
            continue
        if clusters:  # what was done there still counts against the limits over all clusters
            first = next(iter(clusters.values()))
            there = tuple(t for t in old.acts if t not in first.acts)
            clusters[first.name] = replace(first, acts=(*first.acts, *there))
        effects += [Finish(a, Outcome.LOST, why) for a in (old.attempt, old.look) if a]
        for incident in old.incidents:
            if incident.by_hand:
                continue
            ended = replace(incident, phase=Phase.RESOLVED, changed_at=now, why=why)
            effects.append(Announce(ended, ended.phase.value, why))
    state = State(policies=policies, limits=limits, clusters=clusters, started_at=now)
    state, more = step(state, Started(), now)
    return state, (*effects, *more)


def _paid(node: NodeState) -> NodeState:
    """What must be remembered of a node wherever it goes."""
    return NodeState(
        spent=node.spent,
        cooldown_until=node.cooldown_until,
        cooldown_incident=node.cooldown_incident,
    )


def remains(old: ClusterState) -> ClusterState:
    """What is kept of a cluster that the settings do not name any more: it may come back, or its nodes elsewhere."""
    return ClusterState(
        old.name,
        nodes={n: _paid(s) for n, s in old.nodes.items()},
        # A person's lock ends by ``ack`` alone.
        incidents=tuple(i for i in old.incidents if i.by_hand),
        acts=old.acts,
        pause=old.pause,
        serial=old.serial,
    )


def forgotten(
    policies: Mapping[str, Policy], now: Seconds, limits: Limits
) -> dict[str, ClusterState]:
    """What to assume where the ledger was lost: every node rests at its maximum, every budget is spent."""
    acts = (now,) * limits.attempts
    return {
        name: ClusterState(
            name,
            acts=acts if name == next(iter(policies)) else (),
            nodes={
                n: NodeState(
                    cooldown_until=now + policy.cooldown_max_s,
                    cooldown_incident=None,
                    spent=(now,) * policy.budget_attempts,
                )
                for n in policy.nodes
            },
        )
        for name, policy in policies.items()
    }
