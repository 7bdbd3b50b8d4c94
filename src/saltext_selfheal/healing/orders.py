"""Requests of applications and operators.

Each request is answered in words. It joins an incident, opens one, or is refused. A request never acts by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import gates, remedies
from .conditions import REQUEST_AGE_S
from .events import Command, Request, Seconds
from .facts import open_incident
from .model import (
    Action,
    Announce,
    Answer,
    Asked,
    ClusterState,
    Dial,
    Effect,
    Incident,
    Mode,
    Pending,
    Phase,
    Policy,
    Reply,
    State,
    Step,
)

REFUSED_TOLD = 10  #: this many refusals of one source are told …
REFUSED_WITHIN_S = 60.0  #: … within this time
NAMED = 5  #: an answer repeats at most this many unknown names
PENDING = 20  #: at most this many requests of a cluster wait for a fresh dial
DIALLED_WITHIN_S = 1.0  #: added to the time that a dial may take
ASKERS = 100  #: this many sources of requests are remembered per incident


def tell_by(command: Command) -> str:
    """Who gave the command, and the reason if there is one."""
    return f"{command.by}: {command.reason}" if command.reason else command.by


def take_request(
    state: State, request: Request, now: Seconds, waited: bool = False
) -> tuple[State, list[Effect]]:
    """Refuse the request, or let it join or open an incident. If it opens one, the answer comes after the gates.

    ``waited``: the request has waited for a fresh dial. It was counted for the rate limit when it came.
    """

    cluster = state.clusters.get(request.cluster)
    if cluster is None:
        known = ", ".join(sorted(state.clusters)) or "none"
        why = f"unknown cluster {request.cluster!r}; configured: {known}"
        return state, [Answer(request, Reply.REFUSED, why)]

    policy = state.policies[request.cluster]
    action = next((a for a in remedies.REMEDIES if a.value == request.action), None)
    wrong = _impossible(policy, cluster, request, action, now)
    if wrong or action is None:
        return _refuse(state, cluster, request, wrong, now)
    if not waited and any(one.request.id == request.id for one in cluster.pending):
        return state, []  # the same request waits for a dial already, and is answered after it
    needs = remedies.TABLE[action].needs_probe
    agreed = not (needs and policy.restart_needs_probe) or request.forced
    # A restart that is asked for goes only to nodes at which the probe sees a fault.
    ill = () if agreed else _ill(cluster, request.nodes or policy.nodes)
    host = _host(policy, cluster, request, ill)
    if host is not None:
        return _join(state, cluster, host, request)
    if request.forced and not request.nodes:
        return _refuse(state, cluster, request, "force needs the nodes to be named", now)
    asked = tuple((t, who) for t, who in cluster.asked if t > now - policy.request_per_s)
    too_many = "" if waited else _too_many(policy, request, asked, now)
    if too_many:
        return _refuse(state, cluster, request, too_many, now)
    counted = replace(cluster, asked=(*asked, (now, request.source)))
    nodes = (request.nodes or policy.nodes) if agreed else ill
    if not nodes:
        return _wait_for_dial(state, counted, request, now)
    return _open(state, cluster if waited else counted, request, action, nodes, now)


def _impossible(
    policy: Policy, cluster: ClusterState, request: Request, action: Action | None, now: Seconds
) -> str:
    """Why this request is refused, whatever the health of the nodes is. Empty if nothing is wrong with it."""
    if action is None:
        allowed = ", ".join(remedies.names())
        hint = ""
        if request.action in ("stop", "reload"):
            hint = (
                " (a stopped database is what the healer fights: pause the cluster, and use Salt)"
            )
        return f"unknown action {request.action!r}; allowed: {allowed}{hint}"
    foreign = name_foreign(cluster, request.nodes)
    if foreign:
        return foreign
    if policy.mode is Mode.OFF:
        return f"mode of {cluster.name} is off"
    age_s = 0.0 if request.at is None else now - request.at
    if age_s >= REQUEST_AGE_S:
        return f"asked {age_s:.0f} s ago, when no engine ran to decide it: ask again"
    return ""


def _join(
    state: State, cluster: ClusterState, host: Incident, request: Request
) -> tuple[State, list[Effect]]:
    """Count the request in an incident that is open already."""
    repeated = request.source in host.askers
    joined = replace(
        host,
        requests=(*host.requests, request.id)[-20:],
        askers=host.askers if repeated else (*host.askers, request.source)[-ASKERS:],
        asked=host.asked + 1,
    )
    why = f"{host.id} ({host.called}) is {host.phase.value}: {host.why}"
    # In a locked incident nothing is done before a person has seen to it, so the request is held.
    reply = Reply.HELD if host.phase is Phase.LOCKED else Reply.JOINED
    answer = Answer(request, reply, why, host.id, repeated=repeated)
    return state.with_cluster(cluster.with_incident(joined)), [answer]


def _open(
    state: State,
    cluster: ClusterState,
    request: Request,
    action: Action,
    nodes: tuple[str, ...],
    now: Seconds,
) -> tuple[State, list[Effect]]:
    """Open an incident for the request. Its only step is the action that is asked for."""
    told = (
        f"{action.value} {'forced' if request.forced else 'asked'} by {request.asker or 'somebody'}"
    )
    why = f"{told}: {request.reason}" if request.reason else told
    cluster, effects = open_incident(
        cluster, Asked(request.forced), nodes, now, why, (Step(action),)
    )
    opened = replace(
        cluster.incidents[-1],
        requests=(request.id,),
        askers=(request.source,),
        asked=1,
    )
    return state.with_cluster(cluster.with_incident(opened)), effects


def _wait_for_dial(
    state: State, cluster: ClusterState, request: Request, now: Seconds
) -> tuple[State, list[Effect]]:
    """The probe sees nothing wrong, but the asker does. The nodes are dialled afresh, as the asker dials them.

    One source may take at most half of the places, so that others can wait, too.
    """
    mine = sum(one.request.source == request.source for one in cluster.pending)
    if len(cluster.pending) >= PENDING or 2 * mine >= PENDING:
        why = f"the probe sees nothing wrong, and {len(cluster.pending)} requests wait for it to dial afresh"
        return _refuse(state, cluster, request, why, now)
    pending = (*cluster.pending, Pending(request, now))
    state = state.with_cluster(replace(cluster, pending=pending))
    return state, [Dial(cluster.name, request.nodes or tuple(cluster.nodes))]


def decide_pending(
    state: State, name: str, now: Seconds
) -> tuple[State, list[Effect], list[Request]]:
    """Decide requests whose fresh dial has come or took too long. Also returns those that have opened an incident."""
    effects: list[Effect] = []
    opened = []
    for one in state.clusters[name].pending:
        cluster, policy, request = state.clusters[name], state.policies[name], one.request
        nodes = [cluster.nodes[n] for n in request.nodes or policy.nodes if n in cluster.nodes]
        ill = any(n.fault is not None and n.at is not None and n.at > one.since for n in nodes)
        well = all(n.dialled_at is not None and n.dialled_at > one.since for n in nodes)
        patience_s = 2 * policy.timeout_s + policy.poll_s + DIALLED_WITHIN_S
        if not ill and not well and now - one.since < patience_s:
            continue
        left = tuple(other for other in cluster.pending if other is not one)
        state = state.with_cluster(replace(cluster, pending=left))
        if ill:
            state, more = take_request(state, request, now, waited=True)
            if not any(isinstance(e, Answer) for e in more):
                opened.append(request)
        else:
            dialled = "also by a fresh dial" if well else "and a fresh dial has not ended in time"
            why = f"the probe sees nothing wrong, {dialled}: a restart needs its agreement"
            state, more = _refuse(state, state.clusters[name], request, why, now)
        effects += more
    return state, effects, opened


def _refuse(
    state: State, cluster: ClusterState, request: Request, why: str, now: Seconds
) -> tuple[State, list[Effect]]:
    """Refuse the request. Of one source only the first few in a minute are told: a flood is not worth a line each."""
    lately = tuple(one for one in cluster.refused if one[0] > now - REFUSED_WITHIN_S)
    repeated = sum(who == request.source for _, who in lately) >= REFUSED_TOLD
    if not repeated:
        lately = (*lately, (now, request.source))
    answer = Answer(request, Reply.REFUSED, why, repeated=repeated)
    return state.with_cluster(replace(cluster, refused=lately)), [answer]


def name_foreign(cluster: ClusterState, nodes: Sequence[str]) -> str:
    """Which of these names are no nodes of the cluster, in words. Empty if all are."""
    found = [repr(n) for n in nodes if n not in cluster.nodes]
    if not found:
        return ""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"no node {', '.join(found[:NAMED])}{more} in {cluster.name}; nodes: {', '.join(cluster.nodes)}"


def _ill(cluster: ClusterState, nodes: Sequence[str]) -> tuple[str, ...]:
    return tuple(n for n in nodes if cluster.nodes[n].fault is not None)


def _host(
    policy: Policy, cluster: ClusterState, request: Request, ill: tuple[str, ...]
) -> Incident | None:
    """The incident that a request joins. It must have a step to come for the nodes that are meant.

    An incident for a fault is about to heal these nodes, so any request joins it. A request without nodes means those
    with the fault. An incident for a request is joined only by a request for the same action: else the wish of one
    asker would replace that of all others. A forced request joins only a forced one for the same action and nodes. A
    locked incident is joined if no other one fits; there the request is held.
    """
    wanted = set(ill or request.nodes or cluster.nodes)
    meant = set(ill or request.nodes) if request.nodes else set()

    def same(incident: Incident) -> bool:
        step = incident.steps[0] if incident.steps else None
        return step is not None and step.action.value == request.action

    live = [
        i
        for i in cluster.incidents
        if not i.by_hand and (i.phase is Phase.LOCKED or gates.has_step_to_come(policy, i))
    ]
    if request.forced:
        live = [i for i in live if i.forced and set(i.nodes) == wanted and same(i)]
    else:
        live = [
            i
            for i in live
            if (i.fault is not None and meant <= set(i.nodes))
            or (i.fault is None and wanted <= set(i.nodes) and same(i))
        ]
    live.sort(key=lambda i: i.opened_at, reverse=True)
    able = (i for i in live if i.phase is not Phase.LOCKED)
    return next(able, live[0] if live else None)


def _too_many(
    policy: Policy, request: Request, asked: tuple[tuple[Seconds, str], ...], now: Seconds
) -> str:
    """Why there are too many requests; empty if there are not. One source may use half of what a cluster allows."""
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


def answer_opened(state: State, request: Request, effects: list[Effect]) -> list[Effect]:
    """The answer to a request that has opened an incident: accepted, or held, with the gates that hold it."""
    said = next(
        (
            e
            for e in reversed(effects)
            if isinstance(e, Announce) and request.id in e.incident.requests
        ),
        None,
    )
    if said is None:
        return [Answer(request, Reply.REFUSED, "nothing came of it")]
    reply = Reply.HELD if said.held else Reply.ACCEPTED
    return [Answer(request, reply, said.why, said.incident.id)]
