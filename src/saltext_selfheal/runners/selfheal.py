"""
See, explain and direct the healer
==================================

.. versionadded:: 0.1.0

For operators by ``salt-run``, for applications through salt-api (``client: runner``). Everything goes through the
ledger: commands work while the engine is down, and say so.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from salt.exceptions import SaltInvocationError

from saltext_selfheal import config as settings_of
from saltext_selfheal.console import desk, dropin
from saltext_selfheal.console import history as history_of
from saltext_selfheal.console import status as status_of
from saltext_selfheal.doors import arguments
from saltext_selfheal.healing.events import Verb
from saltext_selfheal.ledger.file import LedgerError

__virtualname__ = "selfheal"

# Salt's loader puts the first two here.
__opts__: dict[str, Any]
__context__: dict[str, Any]
_Called = Callable[..., Any]


def __virtual__() -> str:
    return __virtualname__


def _strict(refuse: _Called, wrong: _Called | None = None) -> Callable[[_Called], _Called]:
    """
    Make a function take any arguments and refuse those that it does not know. ``refuse`` makes the answer then, and
    also if there is no ledger. ``wrong`` makes the answer to a value that is not allowed (default: ``refuse``).

    Each loader module has its own copy of this decorator, because Salt puts ``__user__`` and the like into the globals
    of the function that it finds in the module (3006 to 3008).
    """

    def decorate(function: _Called) -> _Called:
        def strict(*args: Any, **kwargs: Any) -> Any:
            try:
                given = arguments.bound(function, args, kwargs)
            except arguments.BadRequest as exc:
                return refuse(exc)
            try:
                return function(*given.args, **given.kwargs)
            except LedgerError as exc:
                return refuse(exc)
            except (arguments.BadRequest, settings_of.ConfigError, SaltInvocationError) as exc:
                return (wrong or refuse)(exc)

        return arguments.as_taken(function, strict)

    return decorate


def _site() -> tuple[settings_of.EngineSettings, Path]:
    """The settings, and the path of the ledger."""
    try:
        settings = settings_of.load(__opts__)
    except settings_of.ConfigError as exc:
        raise SaltInvocationError(f"the settings cannot be used: {exc}") from None
    return settings, settings.ledger_path(__opts__)


def _desk() -> desk.Desk:
    """The desk for the asker, as far as the master knows it: a login, or a minion that ``peer_run`` lets in."""
    minion = str(__opts__.get("id", ""))
    # For such a minion the runner's options hold its id. Else they hold the master's id, which has no accepted key.
    if minion and "/" not in minion and Path(__opts__["pki_dir"], "minions", minion).is_file():
        return desk.Desk(*_site(), by=f"minion {minion}")
    return desk.Desk(*_site(), by=str(globals().get("__user__") or "unknown"))


def _told(view: Any) -> dict[str, Any]:
    """What people are shown. Its exit code, if there is one, is passed to Salt: it stops ``pause … && upgrade``."""
    told: dict[str, Any] = view.told()
    if "retcode" in told:
        __context__["retcode"] = told["retcode"]
    return told


def _invalid(why: object) -> NoReturn:
    """Raise Salt's own error, for a function that prints a file and for questions that cannot be answered."""
    raise SaltInvocationError(str(why)) from None


def _refused(why: object) -> dict[str, Any]:
    """The answer to a command that was refused here."""
    return _told(desk.refused("command", why))


def _not_asked(why: object) -> dict[str, Any]:
    """The answer to a request that never reached the ledger."""
    return _told(desk.refused("request", why))


@_strict(_not_asked)
def trigger(
    cluster: Any, action: Any = "highstate", nodes: Any = None, reason: Any = None, request: Any = None
) -> dict[str, Any]:  # fmt: skip
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
    return _told(_desk().trigger(cluster, action, nodes, reason, request))


@_strict(_not_asked)
def force(cluster: Any, action: Any, nodes: Any, reason: Any) -> dict[str, Any]:
    """
    Have an action taken although the probe sees no fault, or another one. For operators.

    .. versionadded:: 0.1.0

    Your word replaces the probe's agreement, and nothing else: pause, lock, budget, quorum, an attempt in flight and
    the allowed minions still count, and the action goes to one node at a time. Give this right to no application.

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
    return _told(_desk().force(cluster, action, nodes, reason))


@_strict(_refused)
def pause(cluster: Any = None, duration: Any = None, reason: Any = None) -> dict[str, Any]:
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
    return _told(_desk().pause(cluster, duration, reason))


@_strict(_refused)
def resume(cluster: Any = None) -> dict[str, Any]:
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
    return _told(_desk().command(Verb.RESUME, cluster=cluster))


@_strict(_refused)
def lock(cluster: Any, nodes: Any = None, reason: Any = None) -> dict[str, Any]:
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
    return _told(_desk().command(Verb.LOCK, cluster=cluster, nodes=nodes, reason=reason))


@_strict(_refused)
def ack(incident: Any, comment: Any = None) -> dict[str, Any]:
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
    return _told(_desk().command(Verb.ACK, incident=str(incident), reason=comment))


@_strict(_refused)
def approve(incident: Any) -> dict[str, Any]:
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
    return _told(_desk().command(Verb.APPROVE, incident=str(incident)))


@_strict(_refused)
def reject(incident: Any, comment: Any = None) -> dict[str, Any]:
    """
    Forbid the step that an incident waits with: the incident is locked until `ack`. A request ends by this.

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
    return _told(_desk().command(Verb.REJECT, incident=str(incident), reason=comment))


@_strict(_refused)
def explain(cluster: Any, node: Any = None) -> dict[str, Any]:
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
    if cluster is None:
        return _refused("cluster: found nothing; allowed: the name of a configured cluster")
    return _told(_desk().explain(cluster, node))


@_strict(_refused, _invalid)
def status(cluster: Any = None) -> dict[str, Any]:
    """
    The status of the engine, of its clusters and of their incidents.

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
        return _told(status_of.read(settings, settings.ledger_path(__opts__), cluster))
    except settings_of.ConfigError as exc:
        return _told(status_of.unusable(exc.problems))


@_strict(_refused, _invalid)
def history(cluster: Any = None, since: Any = None, limit: Any = 50) -> list[dict[str, Any]]:
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
    return [one.told() for one in history_of.read(*_site(), cluster, since, limit)]


@_strict(_refused, _invalid)
def incident(id: Any) -> dict[str, Any]:
    """
    All about one incident: how it stands, what was tried, its timeline from the oldest entry on, and who asked for it.

    .. versionadded:: 0.1.0

    id
        The incident's id, as `status` and `history` show it. The id of a request or of a command works, too: then
        its answer is returned, and with it the incident that it opened or joined.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.incident runbook-7
    """
    return _told(history_of.find(_site()[1], str(id)))


@_strict(_refused)
def audit() -> dict[str, Any]:
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
        return _told(history_of.prove(_site()[1]))
    except (SaltInvocationError, LedgerError) as exc:
        return _told(history_of.unproven(exc))


@_strict(_refused)
def doctor(api_config: Any = None, live: Any = False) -> dict[str, Any]:
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
        return _refused(f"live: found {arguments.shown(live)}; allowed: True or False")
    # The import is here, because it loads much of Salt that no other function needs.
    from saltext_selfheal.doctor import checks

    return _told(checks.visit(__opts__, api_config, live))


@_strict(_invalid)
def config(cluster: Any = "runbook", minions: Any = "db*", nodes: Any = None) -> str:
    """
    Print a complete drop-in for ``master.d`` with the real paths of this installation.

    .. versionadded:: 0.1.0

    cluster, minions, nodes
        What to put in as the cluster's name, its allow-list and its nodes (a mapping of minion id to address).

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.config nodes='{db1: 10.0.0.11, db2: 10.0.0.12}' > /etc/salt/master.d/selfheal.conf
    """
    return dropin.render(cluster, minions, nodes, dropin.replaced(__opts__))
