"""Questions: asking a node's own minion what it sees of its database (``selfheal.witness``, which only reads).

A minion is asked while a fault is only suspected, so that its answer costs no time, and again after each attempt that
did not help. Where that function fails at once, mostly because the package is not on the minion, Salt's own functions are
asked instead. Every question is a job with its own JID and record, under the same rules as an attempt, but it is none: it
changes nothing and costs no budget. The healer waits for an answer for ``witness.timeout`` and no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from . import escalation, foreign, ids, looks
from .changes import Changes
from .events import Missing, Published, Returned, Seconds
from .model import (
    Action,
    Attempt,
    ClusterState,
    Dial,
    Effect,
    Fault,
    Finish,
    Fire,
    Incident,
    Mode,
    NodeState,
    Outcome,
    Phase,
    Policy,
    State,
)
from .testimony import Testimony

#: Faults about which a node's minion knows more than the healer.
ABOUT = frozenset(
    {
        Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE, Fault.STARTING, Fault.CUT_OFF, Fault.STALLED,
    }
)  # fmt: skip
#: This long after a job that was done its minion is asked: a database needs a moment to come up.
ASK_AFTER_S = 1.0
#: While a process is starting, or somebody else's job runs, its minion is asked again after this.
AGAIN_S = 30.0
#: Both ask a node's minion what it sees; the second where the first has failed.
SEEN = (Action.WITNESS, Action.SALT_WITNESS)
STALE_S = 3 * AGAIN_S  #: an older word that a process is starting does not count any more
SEEN_LATE_S = 5.0  #: a database may have ended so long before that was seen
#: An observer's word may come this much later than its probe's timeout: the job must get there, its result back.
PROBE_JOB_S = 5.0
AT_ONCE = 50  #: so many questions are in flight over all clusters, and no more


def begun(cluster: ClusterState, name: str) -> Seconds:
    """Since when the node's present illness lasts, or when the last attempt on it ended. Older words do not count."""
    node = cluster.nodes[name]
    return max(_ill_since(node) or 0.0, node.acted_at)


def _ill_since(node: NodeState) -> Seconds | None:
    return node.since if node.refused_at is None else node.refused_at


def words_since(node: NodeState) -> Seconds:
    """From when on a database's last words can be about the node's present illness."""
    return (_ill_since(node) or 0.0) - SEEN_LATE_S


def heard(cluster: ClusterState, name: str) -> Testimony | None:
    """What the node's minion has told about its present illness, after the last attempt."""
    told = cluster.nodes[name].testimony
    return told if told is not None and told.at >= begun(cluster, name) else None


def in_flight(cluster: ClusterState, name: str, *actions: Action) -> Attempt | None:
    """The question of one of these kinds about this node that is not over yet. None named: what its minion sees."""
    asked = (one for one in cluster.questions if one.action in (actions or SEEN))
    return next((one for one in asked if one.about == name), None)


def starting(cluster: ClusterState, policy: Policy, name: str, now: Seconds) -> tuple[bool, str]:
    """Whether the node that does not listen is starting, by its minion's word, and that word in a sentence.

    A process that has run for longer than ``starting`` is not starting. Neither is a node that has been starting for so
    long, with whatever processes.
    """
    told = heard(cluster, name)
    if told is None or not told.runs_unheard or now - told.at > STALE_S:
        return False, ""
    runs_s = told.runs_for_s(now)
    since = cluster.nodes[name].starting_since
    late = (runs_s is not None and runs_s >= policy.starting_s) or (
        since is not None and now - since >= policy.starting_s
    )
    age = "" if runs_s is None else f" since {runs_s:.0f} s"
    if late or told.stopped or told.loops:
        stopped = ", and is stopped" if told.stopped else ""
        loops = (
            f", and its service manager has started it {told.restarts} times" if told.loops else ""
        )
        return False, f"its process runs{age} and does not listen{stopped}{loops}"
    peers = [n for n, other in cluster.nodes.items() if n != name and not other.proxy]
    away = [n for n in peers if cluster.nodes[n].fault in ABOUT - {Fault.STALLED}]
    if told.cluster_listens and peers and away == peers:
        return True, f"its process runs{age} and waits for its peers {', '.join(away)}"
    return True, f"its process runs{age} and does not listen yet"


def refuted(cluster: ClusterState, name: str, now: Seconds) -> bool:
    """The node's own minion hears its server, and the healer hears nothing at all of it: so the way there is broken.

    Who greets may still hang. So this counts only against silence, and never makes a node well.
    """
    told, node = heard(cluster, name), cluster.nodes[name]
    return node.silent and told is not None and told.greets and now - told.at <= STALE_S


def go_on(state: State, name: str, now: Seconds) -> tuple[State, list[Effect]]:
    """End the cluster's questions that are over, and ask what is to be asked."""
    cluster, policy = state.clusters[name], state.policies[name]
    effects: list[Effect] = []
    kept, failed = [], set()
    for one in cluster.questions:
        if _over(state, policy, one, now):
            outcome, why = _outcome(one)
            effects.append(Finish(one, outcome, why))
            if one.action is Action.WITNESS and outcome in (Outcome.FAILED, Outcome.DONE):
                asked = replace(cluster.nodes[one.about], bare=outcome is Outcome.FAILED)
                cluster = cluster.with_nodes({one.about: asked})
            early = now - one.fired_at <= _WAITS_S[Action.SALT_WITNESS](policy)
            if one.action is Action.WITNESS and outcome is Outcome.FAILED and early:
                failed.add(one.about)
        else:
            kept.append(one)
    if effects:
        cluster = replace(cluster, questions=tuple(kept))
        state = state.with_cluster(cluster)
    if not cluster.incidents or not may_ask(state, cluster, policy, now):
        return state, effects
    for node in policy.nodes:
        instead = node in failed
        incident = _about(cluster, policy, node, now, instead)
        if incident is None:
            continue
        if not room(state):
            break
        action = Action.SALT_WITNESS if instead else Action.WITNESS
        state, fired = _ask(state, name, node, incident.id, now, action)
        cluster = state.clusters[name]
        effects.append(fired)
    return state, effects


def room(state: State) -> int:
    """So many more questions may be asked now, over all clusters."""
    return max(0, AT_ONCE - sum(len(c.questions) for c in state.clusters.values()))


def waited_until(one: Attempt, policy: Policy) -> Seconds:
    """Until when the answers to a question are waited for."""
    return one.fired_at + _WAITS_S[one.action](policy)


def _over(state: State, policy: Policy, one: Attempt, now: Seconds) -> bool:
    waited_s = now - max(one.fired_at, state.started_at)
    return len(one.results) == len(one.nodes) or waited_s >= _WAITS_S[one.action](policy)


#: How long the answers to a question are waited for.
_WAITS_S: Mapping[Action, Callable[[Policy], Seconds]] = {
    Action.WITNESS: lambda policy: policy.witness_s,
    # Asked only if the first has failed in the first half: both together take no longer than one.
    Action.SALT_WITNESS: lambda policy: policy.witness_s / 2,
    Action.TEST_HIGHSTATE: lambda policy: policy.test_first_s,
    Action.PROBE: lambda policy: policy.observers_s + PROBE_JOB_S,
}


def _outcome(one: Attempt) -> tuple[Outcome, str]:
    if len(one.nodes) == 1 and one.results:
        return next(iter(one.results.values()))
    outcome, why = looks.told(one)
    said = [f"{who}: {what or how.value}" for who, (how, what) in one.results.items()]
    if len(said) < len(one.nodes):
        said.insert(0, why)
    return outcome, "; ".join(said)


def may_ask(state: State, cluster: ClusterState, policy: Policy, now: Seconds) -> bool:
    """Minions of this cluster may be asked now at all."""
    paused = cluster.pause is not None and cluster.pause.until > now
    return bool(policy.witness_s) and policy.mode is not Mode.OFF and not paused and not state.blind


def _about(
    cluster: ClusterState, policy: Policy, name: str, now: Seconds, instead: bool
) -> Incident | None:
    """The incident for which this node's minion is to be asked now. None: it is not to be asked.

    ``instead``: it has just failed to answer, and is asked with Salt's own functions.
    """
    node = cluster.nodes[name]
    if node.fault not in ABOUT or node.since is None or in_flight(cluster, name):
        return None
    if cluster.attempt is not None and name in cluster.attempt.nodes:
        return None
    if node.fault is Fault.STALLED and not node.stalled:
        return None  # its canary is answered again; the next dial will end the fault
    if not instead and not _due(cluster, policy, name, now):
        return None
    concerned = (i for i in cluster.incidents if name in i.nodes and i.phase is not Phase.LOCKED)
    return next((i for i in concerned if _has_steps(policy, i)), None)


def _due(cluster: ClusterState, policy: Policy, name: str, now: Seconds) -> bool:
    """It is time to ask this node's minion: for the first time, after an attempt, or because something lasts."""
    node = cluster.nodes[name]
    asked_at, acted_at = node.questioned_at, node.acted_at
    # A job that has failed has started nothing, so there is nothing to wait for.
    failed = any(name in i.turn.failed for i in cluster.incidents)
    asks_at = acted_at if failed else acted_at + ASK_AFTER_S
    if acted_at and (now < asks_at or (node.at or 0.0) <= acted_at):
        return False  # it is not known yet whether that has helped
    new = asked_at is None or asked_at < begun(cluster, name)
    # The end of a process's start is seen only there. So is the end of a job of which this master hears nothing, and
    # what becomes of a server that only its own machine reaches.
    lasts = (
        node.fault is Fault.STARTING
        or foreign.runs(node, policy, now)
        or refuted(cluster, name, now)
    )
    return new or (lasts and asked_at is not None and now - asked_at >= AGAIN_S)


def _has_steps(policy: Policy, incident: Incident) -> bool:
    """Something may be done in the incident, or only its minion can tell what it is about."""
    if incident.fault in (Fault.STARTING, Fault.CUT_OFF):
        return True
    return incident.fault in ABOUT and bool(
        incident.steps or escalation.steps_against(policy, incident)
    )


def _ask(
    state: State,
    name: str,
    node: str,
    incident_id: str,
    now: Seconds,
    action: Action,
) -> tuple[State, Fire]:
    cluster = state.clusters[name]
    incident = next(i for i in cluster.incidents if i.id == incident_id)
    cluster, incident, question = pose(cluster, incident, action, node, (node,), now)
    cluster = cluster.with_incident(incident)
    cluster = cluster.with_nodes({node: replace(cluster.nodes[node], questioned_at=now)})
    return state.with_cluster(cluster), Fire(question)


def pose(
    cluster: ClusterState,
    incident: Incident,
    action: Action,
    about: str,
    minions: tuple[str, ...],
    now: Seconds,
) -> tuple[ClusterState, Incident, Attempt]:
    """The cluster and the incident with one more question in flight, which goes to these minions; and the question."""
    number = incident.questions + 1
    question = Attempt(
        id=ids.question(incident.id, action.value, about, number),
        cluster=cluster.name,
        incident=incident.id,
        action=action,
        nodes=minions,
        step=incident.step,
        decided_at=now,
        fired_at=now,
        about=about,
    )
    cluster = replace(cluster, questions=(*cluster.questions, question))
    return cluster, replace(incident, questions=number), question


def take_news(
    cluster: ClusterState, event: Missing | Published | Returned, now: Seconds
) -> tuple[ClusterState, Attempt]:
    """The cluster after news of a question's job, and the question as it was before."""
    one = next(q for q in cluster.questions if q.id == event.attempt)
    changed = looks.heard(one, event, now)
    assert changed is not None
    asked = tuple(changed if q is one else q for q in cluster.questions)
    return replace(cluster, questions=asked), one


def take_testimony(
    cluster: ClusterState, one: Attempt, told: Testimony, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """The cluster after a minion has told what it sees. That is compared with a fresh dial at once."""
    node = cluster.nodes[one.about]
    told = replace(told, at=one.decided_at).since(words_since(node), now)
    told = told.after(heard(cluster, one.about))
    told_of = cluster.with_nodes({one.about: replace(node, testimony=told)})
    return told_of, [Dial(cluster.name, (one.about,))]


def take_foreseen(cluster: ClusterState, one: Attempt, told: Changes) -> ClusterState:
    """The cluster after a minion has told what a highstate would change there."""
    node = replace(cluster.nodes[one.about], foreseen=replace(told, at=one.decided_at))
    return cluster.with_nodes({one.about: node})


def dropped(
    cluster: ClusterState, named: frozenset[str]
) -> tuple[tuple[Attempt, ...], list[Effect]]:
    """The questions to nodes that are still named, and the ends of the others."""
    kept = tuple(one for one in cluster.questions if one.about in named)
    why = "the settings do not name its node any more"
    return kept, [Finish(q, Outcome.LOST, why) for q in cluster.questions if q not in kept]
