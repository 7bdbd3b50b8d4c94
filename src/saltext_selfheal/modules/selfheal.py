"""
Ask the healer for help, and look at a database from here
=========================================================

.. versionadded:: 0.1.0

On a minion, `trigger`, `highstate` and `restart` send a request to the master, `probe` looks at a node from this
minion's place, and `witness` tells what can be seen of a node's server on its own machine. On the master, the reactor
files ask `attempt` what a job may do.

A request that was sent is not decided yet: the healer may join it to an incident, hold it or refuse it.
``salt-run selfheal.history`` on the master shows what became of it.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

# Salt also loads this module only to list it, and then these imports should not cost anything.
if TYPE_CHECKING:
    from saltext_selfheal.driver.address import Address

log = logging.getLogger(__name__)

__virtualname__ = "selfheal"
__func_alias__: dict[str, str] = {}

# Salt's loader puts these here.
__opts__: dict[str, Any]
__context__: dict[str, Any]
__salt__: Mapping[str, Callable[..., Any]]

#: In ``__context__``: this process has been warmed.
_WARM = "selfheal.warm"
_NO_JID = "20000101000000000000"  #: a JID of the right form that no attempt can have
_JID = re.compile(r"\d{20}(_\d+)?")


def __virtual__() -> str:
    return __virtualname__


def _strict(refuse: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Make a function take any arguments and refuse those that it does not know. ``refuse`` makes the answer then.

    Each loader module has its own copy of this decorator, because Salt puts ``__user__`` and the like into the globals
    of the function that it finds in the module (3006 to 3008).
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        from saltext_selfheal.doors import arguments

        def strict(*args: Any, **kwargs: Any) -> Any:
            try:
                given = arguments.bound(function, args, kwargs)
            except arguments.BadRequest as exc:
                return refuse(exc)
            return function(*given.args, **given.kwargs)

        return arguments.as_taken(function, strict)

    return decorate


def _not_sent(why: object, request: str | None = None) -> dict[str, Any]:
    """The answer for a request that was not sent."""
    __context__["retcode"] = 1
    return {"request": request, "sent": False, "error": str(why)}


def _invalid(why: object) -> NoReturn:
    from salt.exceptions import SaltInvocationError

    raise SaltInvocationError(str(why))


def _no_claim(why: object) -> None:
    log.error("selfheal: nothing is claimed by a call of this form: %s", why)


@_strict(_not_sent)
def trigger(
    cluster: Any, action: Any = "highstate", reason: Any = None, nodes: Any = None
) -> dict[str, Any]:
    """
    Ask the master to heal a cluster.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster. The healer decides on which nodes something is done, never the caller.

    action
        ``highstate`` (default), ``restart`` or ``start``.

    reason
        What is wrong, in a sentence of at most 500 characters.

    nodes
        Minion ids of the cluster, at most 64, as a list or separated by commas; left out: whichever have the fault,
        or all. An empty list is refused.

    Returns ``{"request": id, "sent": True}``, or ``{"request": None, "sent": False, "error": why}`` with exit code 1. The
    minion does not know the names of clusters and nodes. So a name that the command line reads as a number or a truth
    value must be quoted twice: ``'"0201"'``.

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.trigger runbook restart reason='no connection for 10 minutes'
    """
    from saltext_selfheal.doors import arguments, forms
    from saltext_selfheal.driver import tags
    from saltext_selfheal.healing.events import Door

    try:
        forms.known_action(action)
        request = forms.request(
            cluster, action, nodes, reason, door=Door.MINION, asker=__opts__["id"]
        )
    except arguments.BadRequest as exc:
        return _not_sent(exc)
    data: dict[str, Any] = {
        "request": request.id,
        "action": request.action,
        "reason": request.reason,
    }
    if request.nodes:
        data["nodes"] = list(request.nodes)
    sent = __salt__["event.send"](f"{tags.REQUEST}{request.cluster}", data)
    if not sent:
        return _not_sent("the master did not take the event", request.id)
    return {"request": request.id, "sent": True}


@_strict(_not_sent)
def highstate(cluster: Any, reason: Any = None, nodes: Any = None) -> dict[str, Any]:
    """
    Ask the master for a highstate of a cluster: `trigger` with ``action='highstate'``, the same reason and nodes.

    .. versionadded:: 0.1.0

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.highstate runbook reason='the configuration looks wrong'
        salt-call selfheal.highstate runbook nodes=db2 reason='db2 lacks its configuration'
    """
    asked: dict[str, Any] = trigger(cluster, "highstate", reason, nodes)
    return asked


@_strict(_not_sent)
def restart(cluster: Any, reason: Any = None, nodes: Any = None) -> dict[str, Any]:
    """
    Ask the master to restart the database of a cluster: `trigger` with ``action='restart'``, the same reason and nodes.

    The healer restarts only where its own probe sees a fault, too.

    .. versionadded:: 0.1.0

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.restart runbook reason='no connection for 10 minutes'
    """
    asked: dict[str, Any] = trigger(cluster, "restart", reason, nodes)
    return asked


@_strict(_invalid)
def probe(
    address: Any, user: Any = None, password: Any = None, timeout: Any = 2, ca_certs: Any = None
) -> dict[str, Any]:
    """
    Look at a RethinkDB node from this minion's place.

    .. versionadded:: 0.1.0

    address
        ``host`` or ``host:port`` of the driver port (default 28015).

    user, password
        Who logs in; any ``sdb://`` URI works. Left out: ``selfheal:probe:user`` and ``selfheal:probe:password`` of this
        minion's configuration, grains or pillar; without these ``admin`` without a password.

    timeout
        Seconds for the whole look.

    ca_certs
        Path of the CA certificates, for a node that talks TLS. Left out: ``selfheal:probe:ca_certs``, if that is set.

    Returns ``{"well": bool, "fault": name or None, "ours": bool, "evidence": sentence, "latency_ms": number,
    "server_id": …, "server_name": …, "version": …, "proxy": bool, "addresses": [where the name led]}``. ``ours``: it
    went wrong on this minion and says nothing about the node.

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.probe 10.0.0.11
    """
    from saltext_selfheal.driver import dialling
    from saltext_selfheal.probe import node as eyes

    timeout = _timeout(timeout)
    where = _address(address)
    user = _resolved("user", _own("user", user, "admin"))
    password = _resolved("password", _own("password", password, ""))
    ca_certs = _own("ca_certs", ca_certs, None)
    try:
        tls = None if ca_certs is None else dialling.tls_context(ca_certs)
    except dialling.Unusable as exc:
        _invalid(f"ca_certs: found {ca_certs!r:.100} ({exc}); allowed: {exc.allowed}")
    seen = eyes.probe_once(
        eyes.Target(
            "", "", where, user=user, password=password, tls=tls, timeout_s=timeout, here="this minion"
        )
    )  # fmt: skip
    return {
        "well": seen.fault is None,
        "fault": seen.fault.value if seen.fault else None,
        "ours": seen.ours,
        "evidence": seen.evidence,
        "latency_ms": round(seen.latency_s * 1000, 1),
        "server_id": seen.server_id,
        "server_name": seen.server_name,
        "version": seen.version,
        "proxy": seen.proxy,
        "addresses": list(seen.addresses),
    }


@_strict(_invalid)
def witness(service: Any, port: Any, timeout: Any = 5) -> dict[str, Any]:
    """
    Tell what can be seen of a database server on this machine. Facts only; changes nothing.

    .. versionadded:: 0.1.0

    service
        The service that runs it.

    port
        Its driver port. By this port the process is found, where several servers run on one machine.

    timeout
        Seconds for all of it (0.1 to 30). What could not be read by then is None.

    Returns one dict of at most 8 KB with these keys. None means that it could not be told, or that there is none:

    - ``version`` (1), ``service``, ``port``
    - ``process``: ``state`` (``runs``, ``gone``, or ``unknown`` with the reason in ``why``), ``pid``, ``age_s``,
      ``cpu_s``, ``rss_bytes``, ``open_files``, ``open_files_limit``, ``status`` (the kernel's letter)
    - ``listens``, ``cluster_listens``: whether that process listens on its two ports; ``greets``: whether it says anything
      to a client from here; ``holder``: ``pid`` and ``name`` of another process that listens on the driver port
    - ``manager``: ``state``, ``sub``, ``result``, ``restarts``, ``running``, as the service manager says
    - ``directory``: ``path``, ``free_bytes``, ``free_share``, ``free_inodes``, ``read_only``, of the data directory
    - ``pid_file``: ``path``, ``pid``, ``alive``; ``log``: ``path``, ``line``, ``age_s`` of the last error in its log
    - ``oom_kill``: ``age_s`` and ``what``, if the kernel has killed it for its memory since its last start
    - ``peers``: up to 8 addresses that it joins
    - ``jobs``: ``jid``, ``fun`` and ``user`` of up to 8 jobs of ``state``, ``service`` and ``pkg`` that run on this minion
      and change something

    Two options in this minion's configuration, grains or pillar help where files are not found: the path of the server's
    config file, ``selfheal:witness:config``, and that of a file with its errors, ``selfheal:witness:log``, where
    something else than systemd keeps its stderr.

    CLI Example:

    .. code-block:: bash

        salt db1 selfheal.witness rethinkdb 28015
    """
    from saltext_selfheal.doors import arguments
    from saltext_selfheal.doors import witness as door
    from saltext_selfheal.witness import manager, testimony

    try:
        asked = door.asked(service, port, timeout)
    except arguments.BadRequest as exc:
        _invalid(exc)
    return testimony.testify(
        *asked,
        # These may be missing, and looking them up can take long, too: so it is done when they are called.
        show=lambda name: manager.show(__salt__, name),
        status=lambda name: __salt__["service.status"](name),
        running=lambda: __salt__["saltutil.running"](),
        config=_path_of("config"),
        log_path=_path_of("log"),
    )


def _path_of(name: str) -> str | None:
    """The path that somebody has set for the witness on this machine, if it can be one."""
    from saltext_selfheal.doors import arguments
    from saltext_selfheal.doors import witness as door

    try:
        return door.path(__salt__["config.get"](f"selfheal:witness:{name}", None))
    except arguments.BadRequest as exc:
        log.warning("selfheal:witness:%s is not used: %s", name, exc)
        return None


def _timeout(found: Any) -> float:
    """The seconds for the whole look."""
    from saltext_selfheal.doors import arguments

    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 < found <= 60:
        _invalid(
            f"timeout: found {arguments.shown(found)}; allowed: seconds, more than 0 and at most 60"
        )
    return found


def _address(found: Any) -> "Address":
    """An address as the settings take it."""
    from pydantic import TypeAdapter, ValidationError

    from saltext_selfheal.config.values import NodeAddress
    from saltext_selfheal.doors import arguments

    try:
        return TypeAdapter(NodeAddress).validate_python(found)
    except ValidationError as exc:
        _invalid(f"address: found {arguments.shown(found)}; allowed: {exc.errors()[0]['msg']}")


def _own(what: str, given: Any, usual: Any) -> Any:
    """What was given. If nothing was, what this minion's own configuration says, so that no job carries a password."""
    if given is not None or "config.get" not in __salt__:
        return given if given is not None else usual
    return __salt__["config.get"](f"selfheal:probe:{what}", usual)


def _resolved(what: str, value: Any) -> str:
    """The text, or the value of an ``sdb://`` URI. If Salt cannot resolve a URI, it returns it (3006 to 3008)."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        _invalid(
            f"{what}: found a {type(value).__name__}; allowed: a text, in quotes if YAML reads it otherwise"
        )
    text = str(value)
    if text.startswith("sdb://"):
        found = __salt__["sdb.get"](text)
        if not isinstance(found, str) or found == text:
            _invalid(
                f"{what}: found an sdb:// URI that is not resolved; allowed: one that this minion can resolve"
            )
        text = found
    if not text.isascii():
        _invalid(
            f"{what}: found other signs than ASCII; allowed: ASCII (the driver can send no others)"
        )
    return text


@_strict(_no_claim)
def attempt(jid: Any, action: Any) -> dict[str, Any] | None:
    """
    For the reactor files, on the master: claim what the engine has fired under this JID, and get what the job may do.

    .. versionadded:: 0.1.0

    jid
        The JID that a remediation event carries. Nothing else of such an event is used, because any minion can
        forge one.

    action
        What the reactor file does. A JID of another action is not claimed.

    Returns the ledger's own record ``{"jid", "cluster", "action", "minions", "args"}`` if the engine fired this
    attempt less than a minute ago, it has not ended, its job is not in the job cache, and nobody has claimed this
    firing before; otherwise None. Each firing is claimed once: **whoever calls this by hand takes the claim**, and
    its job is not published, until the engine fires the attempt again a quarter of a minute later. Answers nothing
    on a minion, creates nothing, never raises.

    CLI Example:

    .. code-block:: bash

        salt-run salt.cmd selfheal.attempt 20260101030000000000 restart
    """
    if __opts__.get("__role") != "master":
        return None
    try:
        if not isinstance(jid, str) or not _JID.fullmatch(jid):
            return None
        from saltext_selfheal import config
        from saltext_selfheal.config import targets
        from saltext_selfheal.ledger import claims, records

        settings = config.load(__opts__)
        path = settings.ledger_path(__opts__)
        order = records.order(path, jid)
        if order is None or order["action"] != action or order["claimed"] >= order["firing"]:
            return None
        if not targets.allowed(settings, order):
            log.error("selfheal: attempt %s names minions that the settings do not allow", jid)
            return None
        if not _unpublished(order):
            return None
        # The claim comes last, so that nothing is claimed that is not published then.
        if not claims.take(path, jid, order["firing"], order["claimed"]):
            return None  # somebody else has claimed it, or the attempt has ended meanwhile
        return {key: order[key] for key in ("jid", "cluster", "action", "minions", "args")}
    except Exception as exc:
        from saltext_selfheal.driver.text import plain

        log.error("selfheal: attempt %s cannot be claimed now: %s", jid, plain(exc, 500))
        return None


@_strict(_no_claim)
def warm() -> None:
    """
    For the reactor file of the heartbeat, on the master: load what `attempt` needs, without claiming anything.

    .. versionadded:: 0.1.0

    The first order after a start of the master would else wait a quarter of a second for it. Reads the settings, the
    ledger and the job cache once per process, and changes nothing. Answers nothing, and does nothing on a minion.

    CLI Example:

    .. code-block:: bash

        salt-run salt.cmd selfheal.warm
    """
    if __opts__.get("__role") != "master" or __context__.get(_WARM):
        return
    __context__[_WARM] = True
    try:
        from saltext_selfheal import config
        from saltext_selfheal.config import targets  # noqa: F401
        from saltext_selfheal.ledger import claims, records  # noqa: F401
        from saltext_selfheal.loop import jobs

        settings = config.load(__opts__)
        jobs.CACHE_READER.published(__opts__, _NO_JID)
        records.order(settings.ledger_path(__opts__), _NO_JID)
    except Exception as exc:
        # The order itself tells what is wrong.
        log.debug("selfheal: the reactor could not be warmed: %s", type(exc).__name__)


def _unpublished(order: Mapping[str, Any]) -> bool:
    """
    Whether the job of this order may be published, because it has not been published yet.

    If the job cache cannot be read, the first claim is allowed all the same: nobody can have published this JID without
    a claim. After an earlier claim only the job cache can tell whether the job was published, so then it must be read.
    """
    from saltext_selfheal.loop import jobs

    try:
        published = jobs.CACHE_READER.published(__opts__, order["jid"])
    except jobs.Unreadable as exc:
        first: bool = order["claimed"] == 0
        log.log(
            logging.WARNING if first else logging.ERROR,
            "selfheal: the job cache cannot be read (%s); attempt %s was %s",
            exc,
            order["jid"],
            "never claimed and goes on" if first else "claimed before and is not published again",
        )
        return first
    if published:
        log.info("selfheal: attempt %s is published already", order["jid"])
    return not published
