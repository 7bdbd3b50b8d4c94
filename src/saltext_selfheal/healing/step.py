"""step(state, event, now) → (state, effects): everything that decides.

Theory of operation
-------------------

The healer is one function over one state. The loop feeds it what has happened, one event at a time, and gets back the new
state and what is to be done. The loop stores the state first and carries out the effects second, so a process that dies in
between knows at its next start what it had meant to do. Nothing in this folder waits, asks, writes, fires or reads a clock:
``now`` comes with each event. So every decision can be played again. tests/proofs plays millions of them.

An event works in two parts.

First it changes *facts*. An observation says how one node answers (`facts`, `health`), a canary
whether it does what applications ask (`canary`); the system tables say how the cluster as a whole is; the job cache says
what became of a job (`facts`, `looks`), and the master's job events who else works there (`foreign`); a request or a
command says what somebody wants (`orders`, `commands`). A fact is a statement about the world and never a decision. A node that shows a fault belongs
to an *incident* of that fault: it joins one, or one is opened for it.

Then each incident of the clusters concerned *walks the table* (`table`) until no row applies. A row names the phase it
leaves, the condition under which it is taken (`conditions`), the phase it leads to, the sentence that an operator will read,
and what it does besides (`deeds`). Rows of a phase are tried from top to bottom, and the first that applies is taken. An
incident is suspected until its fault has lasted, then open; it is remediating while a job of ours runs, verifying after it,
and ends resolved, acknowledged, or locked where the healer gives up and a person must come.

All timing lies in the conditions. A deadline is a comparison with ``now`` and not a timer: a `Tick` changes no fact, it lets
conditions come true that depend on time. A healer that was away for an hour therefore needs no special case.

The *gates* (`gates`) say whether something may be done: there is one small function for each reason not to act now. All
of them are asked before each action, whoever asked for it. What is told about an incident that is held consists of
their answers only. Which action is tried, and how long a node rests afterwards, is in `escalation`; what is known of an
action is in `remedies`. A request never acts. It opens an incident or joins one, and that incident walks the same table
through the same gates as if the probe had found the fault.

What a job has returned is no proof, since any minion can store a result under another's name. So a node is well when it is
seen to be well, by a fresh dial after the job's end; and a job counts as running until a look at the minion, or the
database's own new start, says that it has ended. Until then nothing else is sent there.

The rules about what must never happen are written a second time, in tests/proofs/rules.py. They judge what this
function returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from . import questions
from .canary import take_canary
from .commands import take_command
from .events import (
    Backups,
    Canary,
    Commanded,
    Event,
    Foreign,
    Met,
    Missing,
    Observed,
    Present,
    Published,
    Requested,
    Returned,
    Seconds,
    Started,
    Tick,
    Viewed,
    Watchers,
)
from .facts import forget_health, run_out, take_job_news, take_met, take_observation, take_view
from .foreign import take_backups, take_foreign
from .model import TOLD_AGAIN, Announce, Answer, Dial, Effect, Phase, State
from .observers import take_watchers
from .orders import answer_opened, decide_pending, take_request
from .presence import take_present
from .sight import Sight
from .table import BY_PHASE, take


def step(state: State, event: Event, now: Seconds) -> tuple[State, tuple[Effect, ...]]:
    """The state and the effects after this event. An event that fits no cluster or job changes nothing."""
    effects: list[Effect] = []
    concerned = list(state.clusters)
    match event:
        case Observed(observation):
            state, effects = take_observation(state, event, now)
            concerned = [observation.cluster]
        case Met() | Present() | Watchers() | Foreign() | Backups():
            state = _TAKES[type(event)](state, event, now)
            concerned = [event.cluster]
        case Canary(cluster=cluster):
            state, effects = take_canary(state, event, now)
            concerned = [cluster]
        case Viewed(view):
            state, effects = take_view(state, event, now)
            concerned = [view.cluster]
        case Missing() | Published() | Returned():
            state, effects = take_job_news(state, event, now)
        case Requested(request):
            state, effects = take_request(state, request, now)
            if not _opens(state, event, effects):
                # There may be a storm of requests. One that opens nothing must not cost a walk through the table.
                return state, tuple(effects)
            concerned = [request.cluster]
        case Commanded(command):
            state, effects = take_command(state, command, now)
        case Started():
            state, effects = _begin_anew(state, now)
        case Tick():
            state, effects = run_out(state, now)
        case _:
            return state, ()
    opened = [event.request] if isinstance(event, Requested) else []
    for name in concerned:
        if name not in state.clusters:
            continue
        if state.clusters[name].pending:
            state, more, asked = decide_pending(state, name, now)
            effects += more
            opened += asked
        if state.clusters[name].incidents or state.clusters[name].questions:
            state, more = questions.go_on(state, name, now)
            effects += more
        for incident in state.clusters[name].incidents:
            state, more = _walk(state, name, incident.id, now)
            effects += more
    for request in opened:
        effects += answer_opened(state, request, effects)
    return state, tuple(effects)


#: Facts that order nothing.
_TAKES: Mapping[type, Callable[[State, Any, Seconds], State]] = {
    Met: take_met,
    Present: take_present,
    Watchers: take_watchers,
    Foreign: take_foreign,
    Backups: take_backups,
}


def _opens(state: State, event: Requested, effects: list[Effect]) -> bool:
    """Whether a request has opened an incident. If so, it has no answer yet and does not wait for a fresh dial."""
    if any(isinstance(e, (Answer, Dial)) for e in effects):
        return False
    cluster = state.clusters.get(event.request.cluster)
    return cluster is None or all(p.request.id != event.request.id for p in cluster.pending)


def _begin_anew(state: State, now: Seconds) -> tuple[State, list[Effect]]:
    """After a start, forget the nodes' health. Announce locks again: who should know of one may have been away."""
    state = replace(forget_health(state, now), started_at=now)
    locked = [i for c in state.clusters.values() for i in c.incidents if i.phase is Phase.LOCKED]
    return state, [Announce(i, i.why, TOLD_AGAIN) for i in locked]


def _walk(state: State, name: str, incident_id: str, now: Seconds) -> tuple[State, list[Effect]]:
    """Let one incident take every row that applies."""
    effects: list[Effect] = []
    # Rows that lead in a circle without time passing would be a bug of the table. The limit ends such a circle.
    for _ in range(32):
        cluster = state.clusters[name]
        incident = next((i for i in cluster.incidents if i.id == incident_id), None)
        if incident is None:
            break
        sight = Sight(state, cluster, incident, now)
        row = next((row for row in BY_PHASE[incident.phase] if row.when(sight)), None)
        if row is None:
            break
        state, more = take(row, sight)
        effects += more
    return state, effects
