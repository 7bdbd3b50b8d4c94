"""
Ask the healer for help, and look at a database from here
=========================================================

.. versionadded:: 0.1.0

On a minion, `trigger`, `highstate` and `restart` send a request to the master, `probe` looks at a node from this
minion's place. On the master, the reactor files ask `attempt` what a job may do.

Sent is no decision: the healer may join the request to an incident, hold it or refuse it.
``salt-run selfheal.history`` on the master shows what became of it.
"""

import logging
import re

log = logging.getLogger(__name__)

__virtualname__ = "selfheal"
__func_alias__ = {}

_JID = re.compile(r"\d{20}(_\d+)?")


def __virtual__():
    return __virtualname__


def trigger(cluster, action="highstate", reason=None, nodes=None):
    """
    Ask the master to heal a cluster.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster. Whom it concerns is the healer's decision, never the caller's.

    action
        ``highstate`` (default), ``restart`` or ``start``.

    reason
        What is wrong, in a sentence of at most 500 characters.

    nodes
        Minion ids of the cluster, at most 64, as a list or separated by commas; left out: whichever have the fault,
        or all. An empty list is refused.

    Returns ``{"request": id, "sent": True}``, or ``{"request": None, "sent": False, "error": why}``.

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.trigger runbook restart reason='no connection for 10 minutes'
    """
    from saltext_selfheal import intake

    try:
        request = intake.request(
            cluster, action, nodes, reason, door="minion", asker=__opts__["id"]
        )
    except intake.BadRequest as exc:
        return {"request": None, "sent": False, "error": str(exc)}
    data = {"request": request.id, "action": request.action, "reason": request.reason}
    if request.nodes:
        data["nodes"] = list(request.nodes)
    sent = __salt__["event.send"](f"selfheal/request/{request.cluster}", data)
    if not sent:
        return {"request": request.id, "sent": False, "error": "the master did not take the event"}
    return {"request": request.id, "sent": True}


def highstate(cluster, reason=None):
    """
    Ask the master for a highstate of a cluster: `trigger` with ``action='highstate'``.

    .. versionadded:: 0.1.0

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.highstate runbook reason='the configuration looks wrong'
    """
    return trigger(cluster, "highstate", reason)


def restart(cluster, reason=None):
    """
    Ask the master to restart the database of a cluster: `trigger` with ``action='restart'``.

    The healer restarts only where its own probe sees a fault, too.

    .. versionadded:: 0.1.0

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.restart runbook reason='no connection for 10 minutes'
    """
    return trigger(cluster, "restart", reason)


def probe(address, user="admin", password="", timeout=2, ca_certs=None):
    """
    Look at a RethinkDB node from this minion's place.

    .. versionadded:: 0.1.0

    address
        ``host`` or ``host:port`` of the driver port (default 28015).

    user, password
        Who logs in; any ``sdb://`` URI works for the password.

    timeout
        Seconds for the whole look.

    ca_certs
        Path of the CA certificates, for a node that talks TLS.

    Returns ``{"well": bool, "fault": name or None, "evidence": sentence, "latency_ms": number, "server_id": …,
    "server_name": …, "version": …}``.

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.probe 10.0.0.11
    """
    from pydantic import TypeAdapter
    from pydantic import ValidationError

    from saltext_selfheal import probe as eyes
    from saltext_selfheal.config import NodeAddress

    try:
        where = TypeAdapter(NodeAddress).validate_python(address)
    except ValidationError as exc:
        raise _invalid(f"address: found {address!r}; allowed: {exc.errors()[0]['msg']}") from None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 60:
        raise _invalid(f"timeout: found {timeout!r}; allowed: seconds, more than 0 and at most 60")
    password = str(password)
    if password.startswith("sdb://"):
        password = __salt__["sdb.get"](password)
    try:
        tls = eyes.tls_context(ca_certs) if ca_certs else None
    except OSError as exc:  # ssl.SSLError is one
        raise _invalid(
            f"ca_certs: found {ca_certs!r}; allowed: a file of PEM certificates ({exc})"
        ) from None
    seen = eyes.probe_once(
        eyes.Target("", "", where, user=str(user), password=password, tls=tls, timeout_s=timeout)
    )
    return {
        "well": seen.fault is None,
        "fault": seen.fault.value if seen.fault else None,
        "evidence": seen.evidence,
        "latency_ms": round(seen.latency_s * 1000, 1),
        "server_id": seen.server_id,
        "server_name": seen.server_name,
        "version": seen.version,
    }


def _invalid(text):
    from salt.exceptions import SaltInvocationError

    return SaltInvocationError(text)


def attempt(jid):
    """
    For the reactor files, on the master: what the job of this JID may do.

    .. versionadded:: 0.1.0

    jid
        The JID that a remediation event carries. Nothing else of such an event is used, because any minion can
        forge one.

    Returns the ledger's own record ``{"jid", "cluster", "action", "minions", "args"}`` if the engine fired this
    attempt less than a minute ago and it has not ended; otherwise None. Answers nothing on a minion, creates
    nothing, never raises.

    CLI Example:

    .. code-block:: bash

        salt-call selfheal.attempt 20260101030000000000
    """
    if __opts__.get("__role") != "master":
        return None
    try:
        if not isinstance(jid, str) or not _JID.fullmatch(jid):
            return None
        from fnmatch import fnmatchcase

        from saltext_selfheal import config
        from saltext_selfheal import records

        settings = config.load(__opts__)
        order = records.order(settings.ledger_path(__opts__), jid)
        if order is None:
            return None
        cluster = settings.clusters.get(order["cluster"])
        minions = order["minions"]
        if not cluster or not minions or not isinstance(minions, list):
            return None
        if not all(
            isinstance(m, str) and m in cluster.nodes and fnmatchcase(m, cluster.minions)
            for m in minions
        ):
            log.error("selfheal: attempt %s names minions that the settings do not allow", jid)
            return None
        return order
    except Exception as exc:
        log.error("selfheal: attempt %s cannot be looked up: %s", jid, exc)
        return None
