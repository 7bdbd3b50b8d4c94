"""How an event changes the facts that the healer believes. This is the first part of each step.

Facts are: how a node looks, what a cluster's tables say, what became of a job, and which incidents there are. Decisions
are made afterwards, when the incidents walk the table. The only order given here is a look at a job that was given up,
and a look only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import answers, canary, foreign, health, identity, ids, looks, questions, strain
from .events import Met, Missing, Observed, Published, Returned, Seconds, Viewed, ViewStatus
from .model import (
    CLUSTER_WIDE,
    JOINED,
    SEEN,
    Announce,
    Asked,
    Attempt,
    ClusterState,
    Effect,
    Fault,
    Incident,
    Late,
    Locked,
    News,
    NodeState,
    Outcome,
    Phase,
    Policy,
    Seen,
    State,
    Step,
    TablesRead,
    Tell,
)

LATE_S = 3600.0  #: a result that comes later than this after the attempt's end is not recorded
RUNS_AT_MOST_S = 86400.0  #: a job that was given up while it ran counts as running for this long


def _gone(cluster: ClusterState, incident: Incident) -> bool:
    """All nodes of the incident are well.

    An incident locked for a fault of the whole cluster is an exception: the end of that fault is enough. A node
    that has died meanwhile has an incident of its own, and that one waits for the lock to end.
    """
    if incident.phase is Phase.LOCKED and incident.fault in CLUSTER_WIDE:
        one = incident.nodes[0]
        return health.known(cluster, incident, one) and not health.shows(cluster, incident, one)
    return all(health.well(cluster, incident, n) for n in incident.nodes)


def _watch_gone(cluster: ClusterState, now: Seconds) -> ClusterState:
    """Note for each incident since when it counts as gone (see `_gone`)."""
    if not cluster.incidents:
        return cluster
    incidents = []
    for incident in cluster.incidents:
        gone = _gone(cluster, incident)
        since = (now if incident.gone_since is None else incident.gone_since) if gone else None
        incidents.append(
            incident if since == incident.gone_since else replace(incident, gone_since=since)
        )
    return replace(cluster, incidents=tuple(incidents))


def take_observation(state: State, event: Observed, now: Seconds) -> tuple[State, list[Effect]]:
    """One probe of a node: its identity, its health, and the incident that it belongs to if it shows a fault."""
    seen = event.observation
    cluster = state.clusters.get(seen.cluster)
    if cluster is None or seen.node not in cluster.nodes:
        return state, []
    effects: list[Effect] = []
    if seen.ours:
        return _eyes(replace(state, ours=(now, seen.evidence)), now)
    state = strain.take(identity.judge(state, seen), seen, now)
    cluster = state.clusters[seen.cluster]
    before = cluster.nodes[seen.node]
    policy = state.policies[seen.cluster]
    acted_on = _acted_on(cluster, seen.node) or foreign.at_work(before, policy, now)
    node = health.observe(
        before, seen, policy, now, acted_on, _witnessed(state, cluster, seen.node, now)
    )
    if node.flapping is not before.flapping:
        times = len(node.changes)
        why = f"{times} changes that nobody made" if node.flapping else "it is steady again"
        effects.append(
            Tell(News.FLAPPING if node.flapping else News.STEADY, cluster.name, seen.node, why)
        )
    cluster = cluster.with_nodes({seen.node: node})
    # A node that is being restarted is dead for a moment. That is no incident before it has lasted.
    if node.fault is not None and (node.confirmed or not acted_on):
        cluster, more = _assign(cluster, policy, seen.node, node, now)
        effects += more
    cluster = _watch_gone(cluster, now)
    state = state.with_cluster(cluster)
    # This looks at all nodes of all clusters. Only a change of a node's fault can change the answer, so it is not asked
    # after every probe.
    if before.fault is not node.fault or state.blind:
        state, more = _eyes(state, now)
        effects += more
    return state, effects


def _witnessed(state: State, cluster: ClusterState, name: str, now: Seconds) -> health.Witnessed:
    """What the node's own minion has said, what its canaries prove, and how far the healer itself is to be trusted."""
    known = health.Witnessed(stalled=canary.against(cluster, name), strain=strain.of(state, now))
    told = questions.heard(cluster, name)
    # Its word is only about the refusal that it was asked about, and not about one that begins now.
    if told is None or cluster.nodes[name].refused_at is None:
        return known
    starting, why = questions.starting(cluster, state.policies[cluster.name], name, now)
    return known._replace(gone=told.gone, starting=starting, why=why)


def _acted_on(cluster: ClusterState, node: str) -> bool:
    """An attempt on this node is in flight or being verified, so changes of the node are the healer's own work."""
    if cluster.attempt and node in cluster.attempt.nodes:
        return True
    return any(i.phase is Phase.VERIFYING and node in i.turn.acting for i in cluster.incidents)


def _eyes(state: State, now: Seconds) -> tuple[State, list[Effect]]:
    """Ask anew whether the healer trusts its own eyes, and tell it if the answer has changed."""
    why = health.blind(state.clusters, state.ours, now)
    if bool(why) is bool(state.blind):
        return state, []
    told = (
        Tell(News.BLIND, "", "", why)
        if why
        else Tell(News.SIGHTED, "", "", f"no longer: {state.blind}")
    )
    return replace(state, blind=why), [told]


def take_view(state: State, event: Viewed, now: Seconds) -> tuple[State, list[Effect]]:
    """A look into a cluster's system tables: its ailments, its table map, the start times of its servers."""
    seen = event.view
    cluster = state.clusters.get(seen.cluster)
    if cluster is None:
        return state, []
    effects: list[Effect] = []
    # Only a change of the status is told. The reason alone changes with each node that is asked in turn.
    before = cluster.tables.status
    if before is not seen.status:
        tables = TablesRead(seen.status, seen.why)
        if before is not None or tables != TablesRead(ViewStatus.KNOWN):
            effects.append(Tell(News.VIEW, cluster.name, seen.node, str(tables)))
        cluster = replace(cluster, tables=tables)
    if seen.status is ViewStatus.KNOWN:
        cluster = _take_starts(cluster, state.policies[seen.cluster], seen.started, now)
        slow = strain.of(state, now)
        ailments = health.ailments(cluster, seen, state.policies[seen.cluster], now, slow)
        cluster = replace(cluster, ailments=ailments, viewed_at=now)
        state = replace(state, maps={**state.maps, seen.cluster: (now - seen.took_s, seen.tables)})
        for one in ailments:
            known = any(i.cause == one.seen for i in cluster.incidents)
            if not known and not health.many(cluster, one.seen, now):
                nodes = tuple(cluster.nodes)
                cluster, more = open_incident(cluster, one.seen, nodes, now, one.evidence)
                effects += more
                if one.seen.fault is Fault.ISSUE:
                    lately = (at for at in cluster.kinds if at > now - health.KINDS_WITHIN_S)
                    cluster = replace(cluster, kinds=(*lately, now))
        cluster = _watch_gone(cluster, now)
    return state.with_cluster(cluster), effects


def take_met(state: State, event: Met, now: Seconds) -> State:
    """Whom the nodes that answer are connected to. This is their word about a node that refuses the healer."""
    cluster = state.clusters.get(event.cluster)
    if cluster is None:
        return state
    asked_at = now - event.took_s
    heard = {}
    for name, node in cluster.nodes.items():
        # The word of others is needed only for a node that the healer does not reach. A proxy is in no server's list.
        if node.fault is None or node.server_id is None or node.proxy:
            continue
        others = [
            other
            for other in event.connected
            if other != name
            and other in cluster.nodes
            and not cluster.nodes[other].doubt
            and cluster.nodes[other].server_id != node.server_id
        ]
        if others:
            by = next((o for o in sorted(others) if node.server_id in event.connected[o]), "")
            heard[name] = health.heard(node, by, asked_at, now)
    policy = state.policies[event.cluster]
    cluster = _take_starts(cluster.with_nodes(heard), policy, event.started, now)
    if event.names:
        cluster = replace(cluster, twins=identity.twins(event.names))
    return state.with_cluster(cluster)


def _take_starts(
    cluster: ClusterState, policy: Policy, starts: Mapping[str, float], now: Seconds
) -> ClusterState:
    """Note when the servers' processes were started. A new start proves that a job which restarts has done its work."""
    by_id = {n.server_id: name for name, n in cluster.nodes.items() if n.server_id}
    changed = {
        by_id[server]: _started(cluster.nodes[by_id[server]], started, now)
        for server, started in starts.items()
        if server in by_id and cluster.nodes[by_id[server]].started_at != started
    }
    if not changed:
        return cluster
    cluster = cluster.with_nodes(changed)
    late = []
    for one in cluster.late:
        anew = [n for n in changed if looks.restarted(n, cluster.nodes[n], one.attempt)]
        cluster = looks.paid_after_all(cluster, policy, one.attempt, anew, now)
        late.append(looks.proven(one, anew))
    return replace(cluster, late=tuple(one for one in late if looks.unsettled(one)))


def _started(node: NodeState, started_at: float, now: Seconds) -> NodeState:
    """Note the start of a node's server. If it is not the first one known, the server was started anew just now.

    The probe does not see a restart between two probes. But after it the server may still be opening its tables.
    """
    again = node.started_at is not None
    return replace(node, started_at=started_at, restarted_at=now if again else node.restarted_at)


def _assign(
    cluster: ClusterState, policy: Policy, name: str, node: NodeState, now: Seconds
) -> tuple[ClusterState, list[Effect]]:
    """A node with a fault belongs to an incident of that fault. If it can join none, one is opened for it.

    It can join an incident in which no attempt was made yet, or that is still at its first step. Later steps are only
    for nodes that have had the first one.
    """
    assert node.fault is not None
    same = [i for i in cluster.incidents if i.fault is node.fault]
    if any(name in i.nodes for i in same):
        return cluster, []
    free = [i for i in same if i.phase is not Phase.LOCKED and (i.step == 0 or not i.attempts)]
    incident = free[0] if free else None
    if incident is None:
        return open_incident(cluster, Seen(node.fault), (name,), now, node.evidence)
    if incident.phase is not Phase.SUSPECTED and not node.confirmed:
        return cluster, []
    joined = replace(incident, nodes=(*incident.nodes, name), gone_since=None)
    if incident.step and not _relapsed(cluster, name, node.fault, now - policy.relapse_s):
        # The incident is a relapse and began at a later step. The new node has not been healed before, so it needs the
        # first step, and the other nodes begin there with it.
        joined = replace(joined, step=0, repeated=0)
    why = f"{name} as well: {node.evidence}"
    return cluster.with_incident(joined), [Announce(joined, why, JOINED)]


def _relapsed(cluster: ClusterState, name: str, fault: Fault, since: Seconds) -> bool:
    """The node was healed of this fault after that moment, so the fault is a relapse."""
    return any(
        r.node == name and r.seen.fault is fault and r.at > since for r in cluster.recoveries
    )


def open_incident(
    cluster: ClusterState,
    cause: Seen | Asked | Locked,
    nodes: tuple[str, ...],
    now: Seconds,
    why: str,
    steps: tuple[Step, ...] = (),
) -> tuple[ClusterState, list[Effect]]:
    """Open an incident with the cluster's next number. Only an incident for a fault that was seen is announced here."""
    serial = cluster.serial + 1
    incident = Incident(
        id=ids.incident(cluster.name, serial),
        cluster=cluster.name,
        cause=cause,
        nodes=nodes,
        phase=Phase.SUSPECTED,
        opened_at=now,
        changed_at=now,
        steps=steps,
        why=why,
    )
    cluster = replace(cluster, serial=serial, incidents=(*cluster.incidents, incident))
    # An incident for a request or a lock is suspected only for a moment: it leaves that phase in this very step.
    if not isinstance(cause, Seen):
        return cluster, []
    return cluster, [Announce(incident, why, SEEN)]


def take_job_news(
    state: State, event: Missing | Published | Returned, now: Seconds
) -> tuple[State, list[Effect]]:
    """A job was published or is missing, or a minion answered. Only attempts in flight and late ones are changed by it.

    A change of the settings may have split an attempt between clusters, so every cluster is asked.
    """
    effects: list[Effect] = []
    for name, cluster in state.clusters.items():
        attempt = looks.heard(cluster.attempt, event, now)
        look = looks.heard(cluster.look, event, now)
        if attempt is not cluster.attempt or look is not cluster.look:
            cluster = answers.take_changes(replace(cluster, attempt=attempt, look=look), event)
            if look is not None and attempt is None:
                cluster, more = looks.go_on(cluster, state.policies[name], state.started_at, now)
                effects += more
            state = state.with_cluster(cluster)
        if any(one.id == event.attempt for one in cluster.questions):
            cluster, more = answers.take_answer(cluster, event, now)
            state = foreign.take_told(state.with_cluster(cluster), name, event, now)
            cluster, effects = state.clusters[name], effects + more
        for late in cluster.late:
            if late.attempt.id == event.attempt and not isinstance(event, Missing):
                state, more = _heard_late(state, name, late, event, now)
                effects += more
    return state, effects


def _heard_late(
    state: State, name: str, late: Late, event: Published | Returned, now: Seconds
) -> tuple[State, list[Effect]]:
    """The state after news of the job of an attempt that was given up."""
    effects: list[Effect] = []
    if late.attempt.published_at is None:
        cluster, late, effects = _came_after_all(state, state.clusters[name], late, now)
        state = state.with_cluster(cluster)
    if isinstance(event, Returned):
        state, more = _late_result(state, state.clusters[name], late, event, now)
        effects += more
    return state, effects


def _came_after_all(
    state: State, cluster: ClusterState, late: Late, now: Seconds
) -> tuple[ClusterState, Late, list[Effect]]:
    """The job of an attempt that was written off was published after all: it runs, so it is paid for now."""
    attempt = replace(late.attempt, published_at=now)
    came = replace(late, attempt=attempt, running=True)
    paid = {
        n: replace(cluster.nodes[n], spent=(*cluster.nodes[n].spent, attempt.decided_at))
        for n in attempt.nodes
        # If the job cache could not be read, the job was assumed to have run, and is paid for already.
        if n in cluster.nodes and attempt.decided_at not in cluster.nodes[n].spent
    }
    counted = attempt.decided_at in cluster.acts
    cluster = replace(
        cluster.with_nodes(paid),
        late=tuple(came if one is late else one for one in cluster.late),
        acts=cluster.acts if counted else (*cluster.acts, attempt.decided_at),
    )
    why = f"{attempt.action.value} of {attempt.id} was published: that was not known when it was given up"
    nodes = ", ".join(attempt.nodes)
    return cluster, came, [Tell(News.LATE, cluster.name, nodes, why, attempt.incident)]


def _late_result(
    state: State, cluster: ClusterState, late: Late, event: Returned, now: Seconds
) -> tuple[State, list[Effect]]:
    """Record a result that came after its attempt had ended. It does not prove that the job has ended."""
    attempt = late.attempt
    if event.node not in looks.owed(attempt) or event.node in late.refuted:
        return state, []
    results = {**attempt.results, event.node: (event.outcome, event.detail)}
    attempt = replace(attempt, results=results)
    others = tuple(one for one in cluster.late if one is not late)
    late = replace(late, attempt=attempt)
    kept = (late,) if looks.unsettled(late) else ()
    after = f"{attempt.action.value} of {attempt.id}, {now - late.ended_at:.0f} s after its end"
    detail = f" ({event.detail})" if event.detail else ""
    told = Tell(
        News.LATE,
        cluster.name,
        event.node,
        f"{after}: {event.outcome.value}{detail}",
        attempt.incident,
    )
    cluster = replace(cluster, late=(*others, *kept))
    state = state.with_cluster(
        _just_acted_on(cluster, state.policies[cluster.name], event, attempt, now)
    )
    return state, [told]


def _just_acted_on(
    cluster: ClusterState, policy: Policy, event: Returned, attempt: Attempt, now: Seconds
) -> ClusterState:
    """Treat the node as after any other job: it must be seen before the next attempt, and gets its time to come up."""
    node = replace(cluster.nodes[event.node], at=None)
    cluster = replace(cluster.with_nodes({event.node: node}), viewed_at=None)
    waits = [i for i in cluster.incidents if event.node in i.nodes and i.phase is Phase.OPEN]
    for one in waits if event.outcome is Outcome.DONE else ():
        until = max(one.not_before, now + policy.verify_s)
        cluster = cluster.with_incident(replace(one, not_before=until))
    return cluster


def run_out(state: State, now: Seconds) -> tuple[State, list[Effect]]:
    """What ends by the passing of time: pauses, and the memory of attempts that were given up long ago."""
    effects: list[Effect] = []
    for name, cluster in state.clusters.items():
        pause = cluster.pause
        if pause is not None and pause.until <= now:
            cluster = replace(cluster, pause=None)
            effects.append(Tell(News.RESUMED, name, "", f"the pause by {pause.by} is over"))
        late = tuple(
            one
            for one in cluster.late
            if now - one.ended_at < (RUNS_AT_MOST_S if one.running else LATE_S)
        )
        if len(late) != len(cluster.late):
            cluster = replace(cluster, late=late)
        if cluster.attempt is None and (cluster.look or cluster.late):
            cluster, more = looks.go_on(cluster, state.policies[name], state.started_at, now)
            effects += more
        if cluster is not state.clusters[name]:
            state = state.with_cluster(cluster)
    return state, effects


def forget_health(state: State, now: Seconds) -> State:
    """Forget all verdicts about health. After a start they are old, so nodes must be seen again first."""
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
                refused_at=None,
                word_at=None,
                word_by="",
                dialled_at=None,
                answers=False,
                testimony=None,
                questioned_at=None,
                sightings={},
                observed_at=None,
                observers=(),
                minion=NodeState.minion,
                minion_at=None,
                # A stall that is known lasts until a canary is answered. Without canaries none will be.
                stalled=s.stalled if state.policies[name].canary else "",
                unasked="",
                answered_at=None,
                evidence="not probed yet",
            )
            for n, s in cluster.nodes.items()
        }
        incidents = tuple(
            replace(i, gone_since=None, held=(), only_told=False) for i in cluster.incidents
        )
        clusters[name] = replace(
            cluster,
            nodes=nodes,
            ailments=(),
            tables=TablesRead(),
            viewed_at=None,
            incidents=incidents,
            pending=tuple(replace(one, since=now) for one in cluster.pending),
        )
    return replace(state, clusters=clusters, maps={}, blind="", ours=None)
