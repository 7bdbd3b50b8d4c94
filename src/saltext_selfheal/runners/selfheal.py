"""
See, explain and direct the healer
==================================

.. versionadded:: 0.1.0

For operators by ``salt-run``, for applications through salt-api (``client: runner``). Everything goes through the
ledger: commands work while the engine is down, and say so.
"""

import datetime
import logging
import re
import time
from dataclasses import replace
from pathlib import Path

from salt.exceptions import SaltInvocationError

from saltext_selfheal import config as settings_of
from saltext_selfheal.doors import arguments, forms
from saltext_selfheal.healing.events import Command, Verb, asking
from saltext_selfheal.healing.explain import explain as explained
from saltext_selfheal.healing.model import PAUSED_AT_MOST_S, Answer, Phase, Reply
from saltext_selfheal.healing.orders import take_request
from saltext_selfheal.healing.start import begin
from saltext_selfheal.healing.step import step
from saltext_selfheal.ledger import file as ledger_file
from saltext_selfheal.ledger import inbox, records, timeline
from saltext_selfheal.ledger.file import LedgerError

log = logging.getLogger(__name__)

__virtualname__ = "selfheal"

DECISION_WITHIN_S = 5.0
MOST_ENTRIES = 1_000_000
NAMED = 5  #: incidents that an error names at most
#: An incident's id with the number of an attempt.
_ATTEMPT = re.compile(r"(.*-[0-9]+)\.([0-9]{1,9})")


def __virtual__():
    return __virtualname__


def _strict(refuse):
    """
    A function that takes whatever comes, and refuses what the one below it does not know: ``refuse`` makes the answer.

    It stands in each loader module, not beside what it calls: Salt puts ``__user__`` and the like into the globals of
    the function that it finds here (3006 to 3008).
    """

    def decorate(function):
        def strict(*args, **kwargs):
            try:
                given = arguments.bound(function, args, kwargs)
            except arguments.BadRequest as exc:
                return refuse(exc)
            return function(*given.args, **given.kwargs)

        return arguments.as_taken(function, strict)

    return decorate


def _settings():
    try:
        return settings_of.load(__opts__)
    except settings_of.ConfigError as exc:
        raise SaltInvocationError(f"the settings cannot be used: {exc}") from None


def _clock(at):
    """Seconds of the timeline as local time."""
    if at is None:
        return None
    try:
        when = datetime.datetime.fromtimestamp(at).astimezone()
    except (OverflowError, ValueError, OSError):  # beyond what a calendar can tell
        return f"{at:g} s"
    return when.isoformat(sep=" ", timespec="seconds")


def _seconds(what, found, more=""):
    """A duration in seconds, or one clear error."""
    try:
        return settings_of.duration(found)
    except (ValueError, OverflowError):
        raise SaltInvocationError(
            f"{what}: found {arguments.shown(found)}; allowed: {settings_of.DURATION}{more}"
        ) from None


def _configured(settings, cluster):
    return isinstance(cluster, str) and cluster in settings.clusters


def _known(settings, cluster):
    if cluster is not None and not _configured(settings, cluster):
        raise SaltInvocationError(
            f"cluster: found {cluster!r}; allowed: {', '.join(sorted(settings.clusters))}"
        )


def _known_nodes(settings, cluster, nodes):
    allowed = settings.clusters[cluster].nodes
    foreign = [node for node in nodes if node not in allowed]
    if foreign:
        raise SaltInvocationError(
            f"nodes: found {', '.join(foreign)}; allowed: {', '.join(sorted(allowed))}"
        )


def _known_incident(path, incident):
    """Commands name incidents that there are; whether they can be carried out is the engine's to say."""
    with records.read(path) as db:
        if not records.knows(db, incident):
            open_now = records.latest_incidents(db, NAMED, only_open=True)
            raise SaltInvocationError(
                f"incident: found {incident!r}; allowed: {', '.join(open_now) or 'none, no incident is open'}"
            )


def _user():
    """Who asks, as far as the master knows: a login, or the minion that it let in by ``peer_run``."""
    minion = str(__opts__.get("id", ""))
    # There the runner's options carry the minion's id instead of the master's, which has no key among them.
    if minion and "/" not in minion and Path(__opts__["pki_dir"], "minions", minion).is_file():
        return f"minion {minion}"
    return str(globals().get("__user__") or "unknown")


_LATER = "it will be decided when the engine takes it"
_FIRST = "it takes effect before the engine's first decision"
#: Said of what a person saw; that is old news after a while.
_SOON = f"{_FIRST}, if the engine runs again within a quarter of an hour"


def _ask(path, asked, down=_LATER):
    """Put it into the inbox, and wait for the engine's answer. ``down`` says what follows if no engine runs."""
    alive = ledger_file.engine_alive(path)
    if isinstance(asked, Command) and asked.verb is Verb.EXPLAIN and not alive:
        return {"reply": "stored", "why": "the engine is not running", "incident": None}
    inbox.ask(path, asked)
    until = time.monotonic() + (DECISION_WITHIN_S if alive else 0.0)
    with records.read(path) as db:
        while True:
            answer = inbox.answer(db, asked.id)
            if answer is not None:
                return answer
            if time.monotonic() >= until:
                break
            time.sleep(0.02)
    why = (
        f"no decision within {DECISION_WITHIN_S:g} s; {_LATER}"
        if alive
        else f"the engine is not running; {down}"
    )
    return {"reply": "stored", "why": why, "incident": None, "jid": None}


def _invalid(why):
    """For what prints a file: a refusal must not become its content."""
    raise SaltInvocationError(str(why))


def _refused(why):
    """A command that came to nothing. With its exit code, ``pause … && upgrade`` stops here."""
    __context__["retcode"] = 1
    return {"command": None, "reply": "refused", "why": str(why), "incident": None, "retcode": 1}


def _not_asked(why):
    """What a request becomes that never reached the ledger."""
    told = _refused(why)
    return {"request": told.pop("command"), **told, "jid": None}


def _told(asked, answer):
    """The answer to a request; with its exit code if it was refused."""
    if answer["reply"] == "refused":
        return {"request": asked.id, **answer, "retcode": _refused("")["retcode"]}
    return {"request": asked.id, **answer}


def _own_id(settings, request):
    """`incident` finds both by their ids, so a request's must not be one that incidents have."""
    cluster, _, number = request.rpartition("-")
    if cluster in settings.clusters and number.isdigit():
        raise SaltInvocationError(
            f"request: found {request!r}; allowed: an id that no incident of {cluster} can have"
        )


def _attempt(name):
    """``runbook-7.1`` → the incident and the attempt's number; without one, any."""
    found = _ATTEMPT.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)


def _possible(settings, request):
    """Refuse what the settings alone forbid, in the core's own words: for that nobody has to wait for an engine."""
    state, _ = begin(settings.policies(), settings.bounds(), {}, 0.0)
    # As if it were forced, on named nodes: then the core asks for nothing that only a running engine knows.
    cluster = settings.clusters.get(request.cluster)
    nodes = request.nodes or (tuple(cluster.nodes) if cluster else ())
    _, effects = take_request(state, replace(request, nodes=nodes, forced=True), 0.0)
    for effect in effects:
        if isinstance(effect, Answer) and effect.reply is Reply.REFUSED:
            raise SaltInvocationError(effect.why)


def _command(verb, incident=None, cluster=None, **given):
    """Give one command to the engine, and tell what it said."""
    try:
        settings = _settings()
        _known(settings, cluster)
        path = settings.ledger_path(__opts__)
        attempt = None
        if verb in (Verb.APPROVE, Verb.REJECT):
            incident, attempt = _attempt(incident)
        command = forms.command(verb, by=_user(), incident=incident, cluster=cluster, **given)
        command = replace(command, attempt=attempt)
        if command.nodes:
            _known_nodes(settings, cluster, command.nodes)
        if incident is not None:
            _known_incident(path, incident)
        answer = _ask(path, command, _SOON if verb in (Verb.APPROVE, Verb.ACK) else _FIRST)
    except (SaltInvocationError, arguments.BadRequest, LedgerError) as exc:
        return _refused(exc)
    told = {"command": command.id, **{k: answer[k] for k in ("reply", "why", "incident")}}
    if told["reply"] == "refused":
        return {**_refused(told["why"]), **told}
    return {**told, "told": answer["told"]} if "told" in answer else told


@_strict(_not_asked)
def trigger(cluster, action="highstate", nodes=None, reason=None, request=None):
    """
    Ask for healing, and wait up to five seconds for the decision.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster.

    action
        ``highstate`` (default), ``restart`` or ``start``.

    nodes
        Minion ids of the cluster, as a list or separated by commas; left out: whichever have the fault, or all. An
        empty list is refused.

    reason
        What is wrong, in a sentence of at most 500 characters.

    request
        An id of your own. Asking again with the same id gives the same answer and has no second effect.

    Returns ``{"request", "reply", "why", "incident", "jid"}``; ``reply`` is ``accepted``, ``joined``, ``held``,
    ``refused`` (with ``retcode`` 1), or ``stored`` when no decision came in time.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.trigger runbook action=highstate reason='the configuration drifted'
    """
    try:
        settings = _settings()
        asked = forms.request(
            cluster,
            action,
            nodes,
            reason,
            request,
            door="runner",
            asker=_user(),
        )
        _own_id(settings, asked.id)
        _possible(settings, asked)
        answer = _ask(settings.ledger_path(__opts__), asked)
    except (SaltInvocationError, arguments.BadRequest, LedgerError) as exc:
        return _not_asked(exc)
    return _told(asked, answer)


@_strict(_not_asked)
def force(cluster, action, nodes, reason):
    """
    Have something done although the probe sees nothing wrong, or something else. For operators.

    .. versionadded:: 0.1.0

    Your word stands for the probe's agreement, and for nothing else: pause, lock, budget, quorum, an attempt in
    flight and the allowed minions still hold, and it goes to one node at a time. Give it to no application.

    cluster
        The name of a configured cluster.

    action
        ``highstate``, ``restart`` or ``start``.

    nodes
        Minion ids of the cluster, as a list or separated by commas. Required.

    reason
        Why, in a sentence of at most 500 characters. Required.

    Returns what `trigger` returns; ``refused`` comes with ``retcode`` 1.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.force runbook restart db2 reason='memory grows, see ticket 4711'
    """
    try:
        settings = _settings()
        if nodes is None:
            raise SaltInvocationError("nodes: found None; allowed: minion ids, at least one")
        if not str(reason or "").strip():
            raise SaltInvocationError("reason: found nothing; allowed: up to 500 characters")
        asked = forms.request(
            cluster, action, nodes, reason, door="force", asker=_user(), forced=True
        )
        _possible(settings, asked)
        answer = _ask(settings.ledger_path(__opts__), asked)
    except (SaltInvocationError, arguments.BadRequest, LedgerError) as exc:
        return _not_asked(exc)
    return _told(asked, answer)


@_strict(_refused)
def pause(cluster=None, duration=None, reason=None):
    """
    Let the healer watch, but do nothing, for a while.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster; left out: every cluster, those that are configured later included.

    duration
        How long, such as ``30m`` or ``2h``; more than 0, at most 30 days.

    reason
        Why, in a sentence of at most 500 characters. Required.

    Returns ``{"command", "reply", "why", "incident"}``; ``reply`` is ``accepted``, or ``joined`` if a longer pause
    stands, or ``refused``, or ``stored`` when no answer came in time: then the pause takes effect before the engine's
    next decision. ``refused`` comes with ``retcode`` 1, which is then the exit code of ``salt-run``.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.pause runbook 30m reason='upgrade of the database'
        salt-run selfheal.pause 30m reason='maintenance of the network'
    """
    try:
        settings = _settings()
    except SaltInvocationError as exc:
        return _refused(exc)
    if cluster is not None and not _configured(settings, cluster):
        # The cluster was left out: what stands in its place is the duration.
        if reason is None:
            cluster, duration, reason = None, cluster, duration
        elif duration is None:
            cluster, duration = None, cluster
    try:
        for_s = _seconds(
            "duration",
            duration,
            f", at most {PAUSED_AT_MOST_S / 86400:g}d; "
            f"before it a cluster: {', '.join(sorted(settings.clusters))}",
        )
    except SaltInvocationError as exc:
        return _refused(exc)
    return _command(Verb.PAUSE, cluster=cluster, for_s=for_s, reason=reason)


@_strict(_refused)
def resume(cluster=None):
    """
    End a pause.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster; default: every cluster.

    Returns what `pause` returns.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.resume runbook
        salt-run selfheal.resume
    """
    return _command(Verb.RESUME, cluster=cluster)


@_strict(_refused)
def lock(cluster, nodes=None, reason=None):
    """
    Keep the healer from acting on a cluster or on some of its nodes until a person lifts the lock.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster.

    nodes
        Minion ids of the cluster, as a list or separated by commas; left out: all. An empty list is refused.

    reason
        Why, in a sentence of at most 500 characters. Required.

    Returns what `pause` returns; ``incident`` is what `ack` takes to lift the lock.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.lock runbook reason='the disks are being replaced'
        salt-run selfheal.lock runbook nodes=db2 reason='the disk is being replaced'
    """
    return _command(Verb.LOCK, cluster=cluster, nodes=nodes, reason=reason)


@_strict(_refused)
def ack(incident, comment=None):
    """
    Lift an incident's lock and end the incident: a person has seen to it.

    .. versionadded:: 0.1.0

    incident
        The incident's id, as `status` shows it.

    comment
        What was done, in a sentence of at most 500 characters.

    Returns what `pause` returns.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.ack runbook-7 comment='the disk was replaced'
    """
    return _command(Verb.ACK, str(incident), reason=comment)


@_strict(_refused)
def approve(incident):
    """
    Let the healer take the step that an incident waits with, in mode ``approve``.

    .. versionadded:: 0.1.0

    incident
        What `explain` and the announcement say it waits for: the incident with the number of the attempt. A yes to
        ``runbook-7.1`` is none to the step that follows when somebody else was quicker. The incident's id alone
        means whatever waits now.

    The word is good for the nodes that the incident has now, and for a quarter of an hour after each of its attempts.

    Returns what `pause` returns.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.approve runbook-7.1
    """
    return _command(Verb.APPROVE, str(incident))


@_strict(_refused)
def reject(incident, comment=None):
    """
    Forbid the step that an incident waits with: the incident is locked until `ack`. A request is over with that.

    .. versionadded:: 0.1.0

    incident
        The incident's id, as `status` shows it, or that of the attempt to come, as for `approve`.

    comment
        Why, in a sentence of at most 500 characters.

    Returns what `pause` returns.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.reject runbook-7 comment='not during the day'
    """
    return _command(Verb.REJECT, str(incident), reason=comment)


@_strict(_refused)
def explain(cluster, node=None):
    """
    Why something is being done or not: every gate, open or shut, with its numbers, and when it opens.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster.

    node
        Only this minion id, or several, as a list or separated by commas.

    The engine answers with the very gates that it asks before it acts, one entry per incident; for nodes without an
    incident as if they were dead. Each entry has ``incident``, ``fault``, ``phase``, ``why``, the ``step`` to come,
    the nodes it would go to (``on``), what keeps it (``shut``), and all ``gates``; gates are asked only while an
    incident is open. While the engine is down, the entries tell what it would say if it started now.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.explain runbook
        salt-run selfheal.explain runbook db1
    """
    if cluster is None:
        return _refused("cluster: found nothing; allowed: the name of a configured cluster")
    answer = _command(Verb.EXPLAIN, cluster=cluster, nodes=node)
    if answer["reply"] == "refused":
        return answer
    if "told" in answer:
        return {"engine": "running", "entries": [_explained(one) for one in answer["told"]]}
    settings = _settings()
    try:
        with records.read(settings.ledger_path(__opts__)) as db:
            remembered, now = records.states(db), timeline.now(db)
            waiting = inbox.unanswered(db)
    except LedgerError as exc:
        return _refused(exc)
    state, _ = begin(settings.policies(), settings.bounds(), remembered, now)
    for asked in waiting:  # the engine takes these first
        try:
            state, _ = step(state, asking(asked), now)
        except Exception as exc:  # what no door of ours has put there; the engine drops it, too
            log.warning("selfheal: %.100r cannot be handled: %s", asked.id, type(exc).__name__)
    nodes = forms.command(Verb.EXPLAIN, by=_user(), cluster=cluster, nodes=node).nodes
    told = explained(state, cluster, nodes, now)
    return {"engine": answer["why"], "entries": [_explained(one) for one in told]}


def _explained(entry):
    """One entry of an explanation, in the order in which people read it."""
    told = {k: entry[k] for k in ("incident", "fault", "phase", "why", "step", "on")}
    told["shut"] = [gate["gate"] for gate in entry["gates"] if not gate["open"]]
    told["gates"] = {
        gate["gate"]: f"{'open' if gate['open'] else 'shut'}: {gate['why']}{_until(gate)}"
        for gate in entry["gates"]
    }
    return told


def _until(gate):
    return f"; opens {_clock(gate['opens_at'])}" if gate["opens_at"] else ""


@_strict(_refused)
def status(cluster=None):
    """
    How the engine, its clusters and their incidents stand.

    .. versionadded:: 0.1.0

    cluster
        Only this cluster; default: all.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.status
        salt-run selfheal.status runbook
    """
    try:
        settings = settings_of.load(__opts__)
    except settings_of.ConfigError as exc:
        return {
            "engine": "heals nothing: the settings cannot be used",
            "errors": [str(p) for p in exc.problems],
        }
    _known(settings, cluster)
    path = settings.ledger_path(__opts__)
    told = {"engine": "not known", "ledger": str(path), "clusters": {}}
    try:
        told["engine"] = "running" if ledger_file.engine_alive(path) else "not running"
        with records.read(path) as db:
            states = records.states(db)
            now = timeline.now(db)
    except LedgerError as exc:
        told["errors"] = [str(exc)]
        states, now = {}, time.time()
    for name, policy in settings.policies().items():
        if cluster is None or name == cluster:
            told["clusters"][name] = _cluster_status(policy, states.get(name), now)
    return told


def _cluster_status(policy, state, now):
    told = {
        "mode": policy.mode.value,
        "tables": state.view if state else "not asked yet",
        "nodes": {},
        "incidents": {},
    }
    if state and state.pause and now < state.pause.until:
        everywhere = " (every cluster)" if state.pause.everywhere else ""
        told["paused"] = (
            f"until {_clock(state.pause.until)} by {state.pause.by}{everywhere}: {state.pause.why}"
        )
    locked = [i for i in state.incidents if i.phase is Phase.LOCKED] if state else []
    if locked:
        told["locked"] = [f"{', '.join(i.nodes)} by {i.id}: {i.why}" for i in locked]
    for name in policy.nodes:
        node = state.nodes.get(name) if state else None
        if node is None or node.since is None:
            told["nodes"][name] = "unknown: not probed yet"
            continue
        verdict = "well" if node.fault is None else node.fault.value
        doubt = " (suspected)" if node.suspected else ""
        doubt += " (flapping)" if node.flapping else ""
        told["nodes"][name] = f"{verdict}{doubt} since {_clock(node.since)}: {node.evidence}"
    for incident in state.incidents if state else ():
        told["incidents"][incident.id] = {
            "fault": incident.called,
            "nodes": list(incident.nodes),
            "phase": incident.phase.value,
            "held": incident.held or None,
            "step": f"{min(incident.step + 1, len(incident.steps))} of {len(incident.steps)}",
            "attempts": incident.attempts,
            "requests": incident.asked,
            "opened": _clock(incident.opened_at),
            "why": incident.why,
            "next": _next(incident),
        }
    in_flight = state.attempt if state else None
    if in_flight:
        told["in flight"] = (
            f"{in_flight.id}: {in_flight.action.value} on {', '.join(in_flight.nodes)}"
        )
    return told


def _next(incident):
    """What is left for a person to do."""
    if incident.phase is Phase.LOCKED:
        return f"when it is seen to: salt-run selfheal.ack {incident.id}"
    if "approval" in incident.held:
        return f"salt-run selfheal.approve {incident.id}, or salt-run selfheal.reject {incident.id}"
    return None


@_strict(_refused)
def history(cluster=None, since=None, limit=50):
    """
    What was seen, asked and done, newest first.

    .. versionadded:: 0.1.0

    cluster
        Only this cluster; default: all.

    since
        How far back, as a duration such as ``24h`` or ``7d``; default: as far as ``limit`` allows.

    limit
        At most this many entries.

    A ledger that cannot be read is told as ``{"reply": "refused", "why", …}`` with ``retcode`` 1.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.history runbook since=24h
    """
    settings = _settings()
    _known(settings, cluster)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_ENTRIES:
        raise SaltInvocationError(
            f"limit: found {arguments.shown(limit)}; allowed: a whole number from 1 to {MOST_ENTRIES}"
        )
    back_s = None if since is None else _seconds("since", since)
    try:
        with records.read(settings.ledger_path(__opts__)) as db:
            oldest = 0.0 if back_s is None else timeline.now(db) - back_s
            rows = records.history(db, cluster, oldest, limit)
    except LedgerError as exc:
        return _refused(exc)
    return _timed(rows)


def _timed(rows):
    return [{"time": _clock(row.pop("at")), **row} for row in rows]


@_strict(_refused)
def incident(id):
    """
    One incident whole: where it stands, what was tried, its timeline from the oldest entry on, and who asked for it.

    .. versionadded:: 0.1.0

    id
        The incident's id, as `status` and `history` show it. The id of a request or of a command works, too: then
        its answer is returned, and with it the incident that it opened or joined.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.incident runbook-7
    """
    name = str(id)
    try:
        with records.read(_settings().ledger_path(__opts__)) as db:
            if inbox.was_asked(db, f"{forms.BUS_ID}{name}") and not inbox.was_asked(db, name):
                name = f"{forms.BUS_ID}{name}"  # as the minion knows it
            found = records.incident(db, name)
            if found is not None:
                return _whole(found)
            if inbox.waits(db, name):
                return {
                    "request": name,
                    "reply": "stored",
                    "why": "it has no answer yet",
                    "incident": None,
                }
            answer = inbox.answer(db, name)
            if answer is not None:
                joined = records.incident(db, answer["incident"]) if answer["incident"] else None
                return {
                    "request": name,
                    **answer,
                    "incident": _whole(joined) if joined else answer["incident"],
                }
            latest = records.latest_incidents(db, NAMED)
    except LedgerError as exc:
        return _refused(exc)
    newest = f", the latest: {', '.join(latest)}" if latest else "; there is no incident yet"
    raise SaltInvocationError(
        f"id: found {name!r}; allowed: the id of an incident, a request or a command{newest}"
    )


def _whole(found):
    """An incident as the ledger has it, with times that people read."""
    for one in (found, *found["attempts"]):
        for key in [key for key in one if key.endswith("_at")]:
            one[key.removesuffix("_at")] = _clock(one.pop(key))
    return {**found, "audit": _timed(found["audit"])}


@_strict(_refused)
def audit():
    """
    Prove the chain of the ledger's audit, from its oldest entry to its newest.

    .. versionadded:: 0.1.0

    Each entry holds the hash of the one before, and where the chain begins and ends is on record too, so that damage
    and careless editing show. Returns ``{"ok", "rows", "from", "to"}`` with the numbers of the first and the last
    entry proven; if the chain is broken also ``broken``, the number of the first entry that does not hold or is
    missing (0: it is not known where the chain begins), ``why``, and ``retcode`` 1, which is then the exit code of
    ``salt-run``. A ledger that cannot be read is not ``ok`` either: then there is nothing but ``why``.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.audit
    """
    try:
        with records.read(_settings().ledger_path(__opts__)) as db:
            told = records.audit(db)
    except (SaltInvocationError, LedgerError) as exc:  # nothing is proven
        told = {"ok": False, "why": str(exc)}
    if not told["ok"]:
        __context__["retcode"] = told["retcode"] = (
            1  # what Salt's events say, and salt-run's exit code
        )
    return told


@_strict(_refused)
def doctor(api_config=None):
    """
    Look for what keeps the healer from healing, or lets others misuse it, and say what to do about it.

    .. versionadded:: 0.1.0

    api_config
        The master configuration file of a salt-api that has a configuration of its own, such as one that serves
        only webhooks: it is looked at, too.

    Looks at settings, engine, reactor files, ledger, job cache, minions' keys, permissions, in whose name Salt takes
    results, salt-api, secrets and versions, and changes nothing. Returns ``{"checks", "worst"}``. Each line of ``checks`` begins with ``ok``,
    ``warn`` or ``fail``; where something is to be done, what to do follows after an arrow. ``worst`` is the worst of
    these; ``fail`` comes with ``retcode`` 1, which is then the exit code of ``salt-run``.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.doctor
        salt-run selfheal.doctor api_config=/etc/salt/hooks/master
    """
    # Here and not above: it takes in much of Salt that no other function needs.
    from saltext_selfheal.doctor import checks as checks

    findings = checks.examine(__opts__, api_config)
    told = {"checks": [str(f) for f in findings], "worst": checks.worst(findings).value}
    if told["worst"] == "fail":
        __context__["retcode"] = told["retcode"] = 1
    return told


_DROP_IN = """\
# Self-healing for RethinkDB. Put this into /etc/salt/master.d/selfheal.conf and restart the salt-master.
{warnings}
reactor:
{reactor}

engines:
  - reactor: {{}}
  - selfheal:
      mode: auto                  # off | shadow | approve | auto
      clusters:
        {cluster}:
          minions: {minions!r}
          nodes:                  # minion id: address[:port of the driver, default 28015]
{nodes}
          service: rethinkdb
          user: admin
          password: ''            # any sdb:// URI works
          poll: 2s
          timeout: 2s
          confirm: {{dead: 3s, hung: 20s, default: 10s}}
          stable: 30s
          attempt: {{timeout: 5m, verify: 60s}}
          cooldown: {{min: 2m, max: 1h}}
          budget: {{attempts: 3, per: 1h}}
      limits: {{attempts: 10, per: 1h, storm: 34%}}
"""


def _reactor_glob():
    """Where the reactor files are. Salt globs it, so it may survive a change of the onedir's Python."""
    import saltext_selfheal

    parts = Path(next(iter(saltext_selfheal.__path__))).joinpath("reactor").parts
    return Path(*("extras-3.*" if p.startswith("extras-3.") else p for p in parts))


@_strict(_invalid)
def config(cluster="runbook", minions="db*", nodes=None):
    """
    Print a complete drop-in for ``master.d`` with the real paths of this installation.

    .. versionadded:: 0.1.0

    cluster, minions, nodes
        What to put in as the cluster's name, its allow-list and its nodes (a mapping of minion id to address).

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.config nodes='{db1: 10.0.0.11, db2: 10.0.0.12}' > /etc/salt/master.d/selfheal.conf
    """
    nodes = {"db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"} if nodes is None else nodes
    if not isinstance(nodes, dict) or not nodes:
        raise SaltInvocationError(f"nodes: found {nodes!r}; allowed: {{minion id: address}}")
    draft = {"clusters": {cluster: {"minions": minions, "nodes": nodes}}}
    try:
        settings_of.load({"engines": [{"selfheal": draft}]})
    except settings_of.ConfigError as exc:
        raise SaltInvocationError(str(exc)) from None
    where = _reactor_glob()
    actions = sorted(path.stem for path in (Path(__file__).parent.parent / "reactor").glob("*.sls"))
    width = max(map(len, actions)) + 1
    warnings = [
        f"# NOTE: this replaces the `{key}:` of the main configuration file; move what stands there into a file "
        "of master.d, too: lists of several files there are joined."
        for key in ("engines", "reactor")
        if __opts__.get(key) and settings_of.entry(__opts__) is None
    ]
    return _DROP_IN.format(
        warnings="\n".join(warnings),
        reactor="\n".join(
            f"  - selfheal/remediate/{action + ':':<{width}} ['{where}/{action}.sls']"
            for action in actions
        ),
        cluster=cluster,
        minions=minions,
        nodes="\n".join(f"            {node}: '{address}'" for node, address in nodes.items()),
    )
