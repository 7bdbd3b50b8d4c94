"""Other people's work: jobs on a node's minion that are not the healer's own, such as an administrator's highstate.

While such a job runs, a database may be stopped and started on purpose. So an incident waits for the job's end, and for
``foreign.grace`` after it, and the node's changes meanwhile do not count as flapping. What is known comes from the
master's job events (`Foreign`) and from what the node's own minion says that it runs (`Testimony.jobs`). Any minion can
forge both. So one job is waited for no longer than ``foreign.most``, and neither is all such work in one incident.

A backup (`Backups`) is foreign work, too: a restart would break it off. It ends with its server, so it holds up nothing
that is done about a dead node, and there is no grace after it.

All times are the healer's own, taken when it was told. What a minion's clock or a JID says counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from .events import Backups, Foreign, Missing, Published, Returned, Seconds
from .faults import Fault
from .gate import Intent, Open, Ruling, Shut, of
from .model import ClusterState, ForeignJob, NodeState, Policy, State
from .testimony import Testimony

MOST_JOBS = 8  #: so many jobs are remembered for one node
#: What a minion says that it does not run proves nothing about a job that began, or ended, so shortly before it was
#: asked: the job may still be on its way to the minion, or from there.
SURE_S = 2.0
BACKUP = "rethinkdb dump"  #: the name of a backup's job
FEW = 3  #: so many jobs are named in one sentence


# ---------------------------------------------------------------- facts


def take_foreign(state: State, event: Foreign, now: Seconds) -> State:
    """One job of somebody else has begun on nodes of a cluster, or has ended there."""
    cluster = state.clusters.get(event.cluster)
    if cluster is None:
        return state
    policy = state.policies[event.cluster]
    if not policy.foreign_most_s or ours(state, event.jid):
        return state
    changed = {}
    for name in event.nodes:
        node = cluster.nodes.get(name)
        if node is None:
            continue
        jobs = _ended(node, event.jid, now) if event.ended else _begun(node, event, policy, now)
        if jobs != node.foreign:
            changed[name] = replace(node, foreign=jobs)
    return state.with_cluster(cluster.with_nodes(changed)) if changed else state


def take_backups(state: State, event: Backups, now: Seconds) -> State:
    """Which backups run in a cluster. One that is not among them has ended."""
    cluster = state.clusters.get(event.cluster)
    if cluster is None or not state.policies[event.cluster].foreign_most_s:
        return state
    policy = state.policies[event.cluster]
    listed = {backup.id for backup in event.running}
    changed = {}
    for name, node in cluster.nodes.items():
        after = replace(node, foreign=tuple(_listed(job, listed, now) for job in node.foreign))
        for one in event.running:
            if node.server_name in one.servers and not node.doubt:
                new = Foreign(cluster.name, one.id, BACKUP, one.by)
                after = replace(after, foreign=_begun(after, new, policy, now))
        if after.foreign != node.foreign:
            changed[name] = after
    return state.with_cluster(cluster.with_nodes(changed)) if changed else state


def _listed(job: ForeignJob, listed: Collection[str], now: Seconds) -> ForeignJob:
    """A job after it was told which backups run. Any other job stays as it is."""
    if job.function != BACKUP or (job.jid in listed) is (job.ended_at is None):
        return job
    return replace(job, ended_at=None if job.jid in listed else now)


def take_told(
    state: State, name: str, event: Missing | Published | Returned, now: Seconds
) -> State:
    """The state after a minion has told which jobs it runs. The node holds its testimony already.

    A job that it does not name has ended, if it was asked after that job began. A job that it names runs, whatever was
    told of its end before.
    """
    cluster, policy = state.clusters[name], state.policies[name]
    if not isinstance(event, Returned) or event.node not in cluster.nodes:
        return state
    node = cluster.nodes[event.node]
    told = node.testimony
    if not isinstance(event.told, Testimony) or told is None or not policy.foreign_most_s:
        return state
    runs = {job.jid for job in told.jobs}
    jobs = []
    for job in node.foreign:
        if job.function == BACKUP:  # a minion knows nothing of it
            jobs.append(job)
            continue
        sure = told.at - (job.began_at if job.ended_at is None else job.ended_at) >= SURE_S
        if sure and job.jid in runs:
            job = replace(job, ended_at=None)
        elif sure and told.all_jobs and job.ended_at is None:
            job = replace(job, ended_at=now)
        jobs.append(job)
    node = replace(node, foreign=tuple(jobs))
    for one in told.jobs:
        if not ours(state, one.jid):
            new = Foreign(name, one.jid, one.function, one.by)
            node = replace(node, foreign=_begun(node, new, policy, now))
    return state.with_cluster(cluster.with_nodes({event.node: node}))


def ours(state: State, jid: str) -> bool:
    """The healer itself has given this JID to a job of which it does not know that it has ended."""
    return any(jid == own for cluster in state.clusters.values() for own in _jids(cluster))


def _jids(cluster: ClusterState) -> Iterator[str]:
    for one in (cluster.attempt, cluster.look, *cluster.questions):
        if one is not None:
            yield one.jid
    for late in (*cluster.late, *cluster.adrift):
        yield late.attempt.jid


def _begun(node: NodeState, event: Foreign, policy: Policy, now: Seconds) -> tuple[ForeignJob, ...]:
    """The node's jobs with this one. A job that is known does not begin a second time, even if it has ended."""
    if any(job.jid == event.jid for job in node.foreign):
        return node.foreign
    jobs = (*node.foreign, ForeignJob(event.jid, event.function, event.by, began_at=now))
    if len(jobs) > MOST_JOBS:
        # Some are forgotten: those that do not count any more come first, then the oldest.
        spent = next((job for job in jobs if not _counts(job, policy, now)), jobs[0])
        jobs = tuple(job for job in jobs if job is not spent)
    return jobs


def _ended(node: NodeState, jid: str, now: Seconds) -> tuple[ForeignJob, ...]:
    return tuple(
        replace(job, ended_at=now) if job.jid == jid and job.ended_at is None else job
        for job in node.foreign
    )


# ---------------------------------------------------------------- what follows


def _until(job: ForeignJob, policy: Policy) -> Seconds:
    """Until when a job counts: for ``grace`` after its end, and never for longer than ``most`` after it began."""
    most = job.began_at + policy.foreign_most_s
    grace_s = 0.0 if job.function == BACKUP else policy.foreign_grace_s
    return most if job.ended_at is None else min(most, job.ended_at + grace_s)


def _counts(job: ForeignJob, policy: Policy, now: Seconds) -> bool:
    return bool(policy.foreign_most_s) and now < _until(job, policy)


def at_work(node: NodeState, policy: Policy, now: Seconds) -> bool:
    """Somebody else works on the node, or has just done so. Changes of the node are that work's at present."""
    return any(_counts(job, policy, now) for job in node.foreign)


def runs(node: NodeState, policy: Policy, now: Seconds) -> bool:
    """A job of somebody else runs on the minion, as far as is known, and is still waited for."""
    jobs = (job for job in node.foreign if job.function != BACKUP and job.ended_at is None)
    return any(_counts(job, policy, now) for job in jobs)


def foreign(state: State, intent: Intent, now: Seconds) -> Ruling:
    """Nobody else works on these nodes, and nobody has just done so; or that was waited for long enough."""
    policy, cluster = of(state, intent)
    if not policy.foreign_most_s:
        return Open("other people's jobs are not waited for")
    if intent.incident.forced:
        return Open("forced by an operator")
    dead = intent.incident.fault is Fault.DEAD
    found = [
        (name, job)
        for name in intent.nodes
        for job in cluster.nodes[name].foreign
        if _counts(job, policy, now) and not (dead and job.function == BACKUP)
    ]
    if not found:
        return Open("nobody else is at work there")
    told = "; ".join(f"{name}: {_sentence(job, now)}" for name, job in found[:FEW])
    told += f"; and {len(found) - FEW} more" if len(found) > FEW else ""
    opens_at = max(_until(job, policy) for _, job in found)
    since = intent.incident.foreign_since
    if since is None:
        return Shut(told, opens_at)
    latest = since + policy.foreign_most_s
    if now >= latest:
        return Open(f"{told}, but this incident has waited long enough: {now - since:.0f} s")
    return Shut(told, min(opens_at, latest))


def _sentence(job: ForeignJob, now: Seconds) -> str:
    what = f"{job.function} by {job.by or 'somebody'} ({job.jid})"
    if job.ended_at is None:
        return f"{what} has run for {now - job.began_at:.0f} s"
    return f"{what} ended {now - job.ended_at:.0f} s ago"
