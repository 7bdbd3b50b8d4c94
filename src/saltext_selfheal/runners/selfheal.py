"""
See, explain and direct the healer
==================================

.. versionadded:: 0.1.0

For operators by ``salt-run``, for applications through salt-api (``client: runner``). Everything goes through the
ledger: commands work while the engine is down, and say so.

What a function refuses, it answers with ``reply: refused``, with ``why`` on one line and with ``retcode`` 1. That is then
the exit code of ``salt-run``, so ``salt-run selfheal.pause … && systemctl stop …`` ends there. `status`, `audit` and
`doctor` also end with 1 if what they have found is not well.

Salt's command line reads ``201``, ``no`` or ``1.50`` as a number or a truth value. A name of a cluster or a node that looks
like that is known all the same, unless two of them are read as the same value; then quote it twice: ``'"0201"'``.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saltext_selfheal import config as settings_of
from saltext_selfheal.console import answering, desk, dropin, rolling
from saltext_selfheal.console import history as history_of
from saltext_selfheal.console import status as status_of
from saltext_selfheal.doors import arguments
from saltext_selfheal.healing import remedies
from saltext_selfheal.healing.events import Verb

__virtualname__ = "selfheal"

# Salt's loader puts the first two here.
__opts__: dict[str, Any]
__context__: dict[str, Any]
_Called = Callable[..., Any]


def __virtual__() -> str:
    return __virtualname__


def _answers(
    refuse: answering.Refusal = answering.no_view, lines: bool = False
) -> Callable[[_Called], _Called]:
    """
    Make a function take any arguments and answer all of them, see `answering.answer`. ``refuse`` makes its refusals.

    Each loader module has its own copy of this decorator, because Salt puts ``__user__`` and the like into the globals
    of the function that it finds in the module (3006 to 3008).
    """

    def decorate(function: _Called) -> _Called:
        def answers(*args: Any, **kwargs: Any) -> Any:
            return answering.answer(
                function,
                args,
                kwargs,
                settings=lambda: settings_of.load(__opts__),
                context=__context__,
                refuse=refuse,
                lines=lines,
            )

        return arguments.as_taken(function, answers)

    return decorate


def _site() -> tuple[settings_of.EngineSettings, Path]:
    """The settings, and the path of the ledger."""
    settings = settings_of.load(__opts__)
    return settings, settings.ledger_path(__opts__)


def _desk() -> desk.Desk:
    """The desk for the asker, as far as the master knows it: a login, or a minion that ``peer_run`` lets in."""
    minion = str(__opts__.get("id", ""))
    # For such a minion the runner's options hold its id. Else they hold the master's id, which has no accepted key.
    if minion and "/" not in minion and Path(__opts__["pki_dir"], "minions", minion).is_file():
        return desk.Desk(*_site(), by=f"minion {minion}")
    return desk.Desk(*_site(), by=str(globals().get("__user__") or "unknown"))


@_answers(answering.no_request)
def trigger(
    cluster: Any, action: Any = remedies.USUAL.value, nodes: Any = None, reason: Any = None, request: Any = None
) -> answering.View:  # fmt: skip
    """
    Ask for healing, and wait up to five seconds for the decision.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster.

    action
        ``highstate`` (default), ``restart`` or ``start``.

    nodes
        Minion ids, as a list or separated by commas, not empty; left out: whichever have the fault, or all.

    reason
        What is wrong, in a sentence of at most 500 characters.

    request
        An id of your own. Asking again with the same id gives the same answer and has no second effect.

    Returns ``{"request", "reply", "why", "incident", "jid"}``; ``reply`` is ``accepted``, ``joined``, ``held``,
    ``refused`` (with ``retcode`` 1), or ``stored`` when no decision came in time. ``jid`` is None while no job was
    sent: the request is held, or a minion is asked something first.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.trigger runbook action=highstate reason='the configuration drifted'
    """
    return _desk().trigger(cluster, action, nodes, reason, request)


@_answers(answering.no_request)
def force(cluster: Any, action: Any, nodes: Any, reason: Any) -> answering.View:
    """
    Have an action taken although the probe sees no fault, or another one. For operators.

    .. versionadded:: 0.1.0

    Your word replaces the probe's agreement, and nothing else: pause, lock, budget, quorum, an attempt in flight and
    the allowed minions still count, and the action goes to one node at a time. Give this right to no application.

    cluster, action, nodes, reason
        As for `trigger`, but all of them are required.

    Returns what `trigger` returns; ``refused`` comes with ``retcode`` 1.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.force runbook restart db2 reason='memory grows, see ticket 4711'
    """
    return _desk().force(cluster, action, nodes, reason)


@_answers(answering.no_request)
def roll(
    cluster: Any, action: Any, nodes: Any = None, reason: Any = None, patience: Any = rolling.PATIENCE
) -> answering.View:  # fmt: skip
    """
    Take an action to one node after the other, each only while all is well. For operators, as `force`.

    .. versionadded:: 0.1.0

    cluster, action, nodes, reason
        As for `force`; ``nodes`` left out: all nodes of the cluster. They are taken in this order.

    patience
        How long one node may wait for its turn, such as for replicas that are not ready.

    It stops at the first node that does not come back, at a pause, a `reject`, another incident, or a node that is not
    well. What has not begun then is taken back. Each step is told on standard error, to salt-api as an event.

    Returns ``{"cluster", "action", "done", "left", "stopped"}``; with ``stopped``, which says why, ``retcode`` is 1.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.roll runbook restart reason='new certificates'
    """
    return rolling.begin(_desk(), cluster, action, nodes, reason, patience, _tell)


def _tell(line: str) -> None:
    """Tell a person how a long call goes on, not on standard output: there the answer comes."""
    if "salt-run" in str(__opts__.get("__cli")).replace("_", "-"):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    elif "__jid_event__" in globals():
        globals()["__jid_event__"].fire_event({"message": line}, "progress")


@_answers(answering.no_command)
def pause(cluster: Any = None, duration: Any = None, reason: Any = None) -> answering.View:
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
    return _desk().pause(cluster, duration, reason)


@_answers(answering.no_command)
def resume(cluster: Any = None) -> answering.View:
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
    return _desk().command(Verb.RESUME, cluster=cluster)


@_answers(answering.no_command)
def lock(cluster: Any, nodes: Any = None, reason: Any = None) -> answering.View:
    """
    Keep the healer from acting on a cluster or on some of its nodes until a person lifts the lock.

    .. versionadded:: 0.1.0

    cluster, reason
        As for `pause`, but both are required.

    nodes
        Minion ids of the cluster, as a list or separated by commas; left out: all. An empty list is refused.

    Returns what `pause` returns; ``incident`` is what `ack` takes to lift the lock.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.lock runbook reason='the disks are being replaced'
        salt-run selfheal.lock runbook nodes=db2 reason='the disk is being replaced'
    """
    return _desk().command(Verb.LOCK, cluster=cluster, nodes=nodes, reason=reason)


@_answers(answering.no_command)
def ack(incident: Any, comment: Any = None) -> answering.View:
    """
    Lift an incident's lock and end the incident: a person has seen to it.

    .. versionadded:: 0.1.0

    incident, comment
        The incident's id, as `status` shows it, and what was done, in a sentence of at most 500 characters.

    Returns what `pause` returns.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.ack runbook-7 comment='the disk was replaced'
    """
    return _desk().command(Verb.ACK, incident=incident, reason=comment)


@_answers(answering.no_command)
def approve(incident: Any) -> answering.View:
    """
    Let the healer take the step that an incident waits with, in mode ``approve``.

    .. versionadded:: 0.1.0

    incident
        What `explain` and the announcement name: the incident with the number of the attempt that waits. If somebody
        else is quicker, an approval of ``runbook-7.1`` is not taken for the step after it. The incident's id alone
        means whatever waits now.

    The approval is good for the nodes that the incident has now, and for a quarter of an hour after each attempt.

    Returns what `pause` returns.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.approve runbook-7.1
    """
    return _desk().command(Verb.APPROVE, incident=incident)


@_answers(answering.no_command)
def reject(incident: Any, comment: Any = None) -> answering.View:
    """
    Forbid the step that an incident waits with: the incident is locked until `ack`. A request ends by this.

    .. versionadded:: 0.1.0

    incident, comment
        What to reject, as for `approve`, and why, in a sentence of at most 500 characters.

    Returns what `pause` returns.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.reject runbook-7 comment='not during the day'
    """
    return _desk().command(Verb.REJECT, incident=incident, reason=comment)


@_answers(answering.no_command)
def explain(cluster: Any, node: Any = None) -> answering.View:
    """
    Why something is being done or not: every gate, open or shut, with its numbers, and when it opens.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster.

    node
        Only this minion id, or several, as a list or separated by commas.

    The engine answers with the very gates that it asks before it acts, one entry per incident; for nodes without an
    incident as if they were dead. Each entry has ``incident``, ``fault``, ``phase``, ``why``, the ``step`` to come,
    the nodes it would go to (``on``), the shut gates (``shut``), and all ``gates``; gates are asked only while an
    incident is open. While the engine is down, the entries tell what it would say if it started now.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.explain runbook
        salt-run selfheal.explain runbook db1
    """
    return _desk().explain(cluster, node)


@_answers()
def status(cluster: Any = None) -> answering.View:
    """
    The status of the engine, of its clusters and of their incidents.

    .. versionadded:: 0.1.0

    cluster
        Only this cluster; default: all.

    If no engine runs, if it has written nothing for 90 seconds, or if the ledger cannot be read, ``engine`` says so first.
    Then all that was seen is marked with the time at which an engine wrote last (``as of``), and ``retcode`` is 1. So it
    is if the settings cannot be used, or a file that they name (``tls.ca_certs``), which a running engine has read.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.status
        salt-run selfheal.status runbook
    """
    try:
        return status_of.read(*_site(), cluster)
    except settings_of.ConfigError as exc:
        return status_of.unusable(exc.problems)


@_answers()
def history(cluster: Any = None, since: Any = None, limit: Any = 50) -> list[dict[str, Any]]:
    """
    What was seen, asked and done, newest first.

    .. versionadded:: 0.1.0

    cluster
        Only this cluster; default: all.

    since, limit
        How far back, as a duration such as ``24h`` or ``7d``, and at most how many entries.

    Returns a list of entries, or ``{"reply": "refused", "why", "retcode": 1}``.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.history runbook since=24h
    """
    return [one.told() for one in history_of.read(*_site(), cluster, since, limit)]


@_answers()
def incident(id: Any) -> answering.View:
    """
    All about one incident: how it stands, what was tried, its timeline from the oldest entry on, and who asked for it.

    .. versionadded:: 0.1.0

    id
        The incident's id, as `status` and `history` show it. The id of a request or of a command works, too: then
        its answer is returned, and with it the incident that it opened or joined. The id of a webhook or of a
        minion's request needs its prefix (``runbook-web:``, ``bus:``) only if several callers have given the same.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.incident runbook-7
        salt-run selfheal.incident 0f3b1c9a-5e0d-4c5e-8f43-1f7e7a0d9a11
    """
    return history_of.find(_site()[1], id)


@_answers(history_of.unproven)
def audit() -> answering.View:
    """
    Prove the chain of the ledger's audit, from its oldest entry to its newest.

    .. versionadded:: 0.1.0

    Each entry holds the hash of the one before, and where the chain begins and ends is on record too. Returns ``{"ok",
    "rows", "from", "to"}`` with the numbers of the first and the last entry proven. If the chain is broken, also ``broken``,
    the number of the first entry that does not hold or is missing (0: it is not known where the chain begins), ``why``, and
    ``retcode`` 1, the exit code of ``salt-run``. Of a ledger that cannot be read there is nothing but ``why``.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.audit
    """
    return history_of.prove(_site()[1])


@_answers(lines=True)
def doctor(api_config: Any = None, live: Any = False) -> answering.View:
    """
    Look for what keeps the healer from healing, or lets others misuse it. Say what to do about it.

    .. versionadded:: 0.1.0

    api_config
        The master configuration file of a salt-api with a configuration of its own, such as one for webhooks only.
    live
        Whether nodes are dialled and minions are asked now, too. That takes up to half a minute.

    Changes nothing. Returns ``{"checks", "worst"}``. Each line of ``checks`` begins with ``ok``, ``warn`` or ``fail``;
    what to do follows after an arrow. ``fail`` comes with ``retcode`` 1, the exit code of ``salt-run``.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.doctor live=True
        salt-run selfheal.doctor api_config=/etc/salt/hooks/master
    """
    if not isinstance(live, bool):
        raise arguments.BadRequest(f"live: found {arguments.shown(live)}; allowed: True or False")
    # The import is here, because it loads much of Salt that no other function needs.
    from saltext_selfheal.doctor import checks

    return checks.visit(__opts__, api_config, live)


@_answers(lines=True)
def config(
    cluster: Any = "runbook", minions: Any = "db*", nodes: Any = None, mode: Any = "shadow", user: Any = "admin"
) -> str:  # fmt: skip
    """
    Print a complete drop-in for ``master.d`` with the real paths of this installation.

    .. versionadded:: 0.1.0

    cluster, minions, nodes, mode, user
        What to put in: the cluster's name, its allow-list, its nodes (minion id to address), the mode, the probe's user.

    Returns the text, or ``{"reply": "refused", "why", "retcode": 1}``.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.config nodes='{db1: 10.0.0.11, db2: 10.0.0.12}' > selfheal.conf
    """
    return dropin.render(cluster, minions, nodes, dropin.replaced(__opts__), mode=mode, user=user)
