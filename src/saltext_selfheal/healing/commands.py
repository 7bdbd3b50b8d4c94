"""The commands of operators. A command that does not fit is refused with a reason, and changes nothing.

A command about one incident is a row of `table.TRANSITIONS` that is taken only when an operator orders it. The other
commands are in this file.
"""

from __future__ import annotations

from dataclasses import replace

from . import gates
from .events import Command, Seconds, Verb
from .explain import explain
from .facts import open_incident
from .model import (
    BY_HAND,
    PAUSED_AT_MOST_S,
    Announce,
    Answer,
    ClusterState,
    Effect,
    Incident,
    Locked,
    News,
    Pause,
    Phase,
    Reply,
    State,
    Tell,
)
from .orders import name_foreign, tell_by
from .sight import Sight
from .table import TRANSITIONS, take


def take_command(state: State, command: Command, now: Seconds) -> tuple[State, list[Effect]]:
    """The state and the effects after an operator's command. A command that does not fit is refused with a reason."""

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
        meant, waits = incident.attempt_id(command.attempt or 0), incident.next_attempt
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
    state, effects = take(row, sight)
    return state, [*effects, *_granted(state, command, incident, row.id, now)]


def _granted(
    state: State, command: Command, incident: Incident, rule: str, now: Seconds
) -> list[Effect]:
    """The answer to a command that was carried out by a row. For an approval it names the gates that are still shut."""
    cluster = state.clusters[incident.cluster]
    after = next((i for i in cluster.incidents if i.id == incident.id), None)
    rejected = command.verb is Verb.REJECT
    over = "rejected, and its request with it" if rejected else "acknowledged, its lock is lifted"
    why = after.why if after else f"{incident.id} is {over}"
    if after is not None and command.verb is Verb.APPROVE:
        shut = Sight(state, cluster, after, now).shut
        if shut:
            told = "; ".join(f"{g.name}: {g.why}" for g in shut)
            return [
                Answer(command, Reply.HELD, f"{why}, but held by {told}", incident.id, rule=rule)
            ]
    return [Answer(command, Reply.ACCEPTED, why, incident.id, rule=rule)]


def pause_clusters(
    state: State, command: Command, names: list[str], now: Seconds
) -> tuple[State, list[Effect]]:
    """Pause these clusters. A pause may lengthen an older one but not shorten it, since somebody may rely on it."""
    if not 0 < command.for_s <= PAUSED_AT_MOST_S:
        most = f" of at most {PAUSED_AT_MOST_S / 86400:.0f} days" if command.for_s > 0 else ""
        why = f"a pause needs a duration{most}, found {command.for_s:g} s"
        return state, [Answer(command, Reply.REFUSED, why)]
    new = Pause(now + command.for_s, command.by, command.reason, command.cluster is None)
    effects: list[Effect] = []
    longer = []
    for name in names:
        old = state.clusters[name].pause
        if old is not None and old.until >= new.until:
            if new.everywhere and not old.everywhere:  # later clusters are to be paused as well
                kept = replace(old, everywhere=True)
                state = state.with_cluster(replace(state.clusters[name], pause=kept))
            longer.append(f"{name} is paused for {old.until - now:.0f} s by {old.by}: {old.why}")
            continue
        pause = replace(new, everywhere=new.everywhere or bool(old and old.everywhere))
        state = state.with_cluster(replace(state.clusters[name], pause=pause))
        effects.append(
            Tell(News.PAUSED, name, "", f"for {command.for_s:.0f} s by {tell_by(command)}")
        )
    if not effects and longer:
        return state, [Answer(command, Reply.JOINED, "; ".join(longer))]
    why = f"paused for {command.for_s:.0f} s"
    told = "; ".join([why, *longer])
    return state, [*effects, Answer(command, Reply.ACCEPTED, told)]


def resume_clusters(
    state: State, command: Command, names: list[str], now: Seconds
) -> tuple[State, list[Effect]]:
    effects: list[Effect] = []
    for name in names:
        if state.clusters[name].pause is not None:
            state = state.with_cluster(replace(state.clusters[name], pause=None))
            effects.append(Tell(News.RESUMED, name, "", f"by {tell_by(command)}"))
    if not effects:
        return state, [Answer(command, Reply.REFUSED, f"not paused: {', '.join(names)}")]
    return state, [*effects, Answer(command, Reply.ACCEPTED, "resumed")]


def lock_nodes(
    state: State, cluster: ClusterState, command: Command, now: Seconds
) -> tuple[State, list[Effect]]:
    """Lock these nodes. A person's lock is an incident of its own, without a fault, and only ``ack`` ends it."""
    nodes = command.nodes or tuple(cluster.nodes)
    same = next(
        (i for i in cluster.incidents if i.by_hand and set(nodes) <= set(i.nodes)),
        None,
    )
    if same is not None:
        why = f"{same.id} is locked already: {same.why}"
        return state, [Answer(command, Reply.JOINED, why, same.id)]
    why = f"locked by {tell_by(command)}"
    cluster, _ = open_incident(cluster, Locked(nodes), nodes, now, why)
    lock = replace(cluster.incidents[-1], phase=Phase.LOCKED)
    state = state.with_cluster(cluster.with_incident(lock))
    answer = Answer(command, Reply.ACCEPTED, why, lock.id)
    return state, [Announce(lock, why, BY_HAND), answer]
