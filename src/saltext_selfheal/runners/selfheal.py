"""
See, explain and direct the healer
==================================

.. versionadded:: 0.1.0

For operators by ``salt-run``, for applications through salt-api (``client: runner``). Everything goes through the
ledger: commands work while the engine is down, and say so.
"""

import datetime
import time
from pathlib import Path

from salt.exceptions import SaltInvocationError

from saltext_selfheal import config as settings_of
from saltext_selfheal import intake
from saltext_selfheal import ledger

__virtualname__ = "selfheal"

DECISION_WITHIN_S = 5.0


def __virtual__():
    return __virtualname__


def _settings():
    try:
        return settings_of.load(__opts__)
    except settings_of.ConfigError as exc:
        raise SaltInvocationError(f"the settings cannot be used: {exc}") from None


def _clock(at):
    """Seconds of the timeline as local time."""
    if at is None:
        return None
    return datetime.datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")


def _known(settings, cluster):
    if cluster is not None and cluster not in settings.clusters:
        raise SaltInvocationError(
            f"cluster: found {cluster!r}; allowed: {', '.join(sorted(settings.clusters))}"
        )


def trigger(cluster, action="highstate", nodes=None, reason=None, request=None):
    """
    Ask for healing, and wait up to five seconds for the decision.

    .. versionadded:: 0.1.0

    cluster
        The name of a configured cluster.

    action
        ``highstate`` (default), ``restart`` or ``start``.

    nodes
        Minion ids of the cluster, as a list or separated by commas; default: whichever have the fault, or all.

    reason
        What is wrong, in a sentence of at most 500 characters.

    request
        An id of your own. Asking again with the same id gives the same answer and has no second effect.

    Returns ``{"request", "reply", "why", "incident", "jid"}``; ``reply`` is ``accepted``, ``joined``, ``held``,
    ``refused``, or ``stored`` when no decision came in time.

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.trigger runbook action=highstate reason='the configuration drifted'
    """
    settings = _settings()
    try:
        asked = intake.request(
            cluster,
            action,
            nodes,
            reason,
            request,
            door="runner",
            asker=str(globals().get("__user__") or "unknown"),
        )
    except intake.BadRequest as exc:
        raise SaltInvocationError(str(exc)) from None
    path = settings.ledger_path(__opts__)
    try:
        ledger.ask(path, asked)
        alive = ledger.engine_alive(path)
        until = time.monotonic() + (DECISION_WITHIN_S if alive else 0.0)
        with ledger.read(path) as db:
            while True:
                answer = ledger.answer(db, asked.id)
                if answer is not None:
                    return {"request": asked.id, **answer}
                if time.monotonic() >= until:
                    break
                time.sleep(0.02)
    except ledger.LedgerError as exc:
        raise SaltInvocationError(str(exc)) from None
    why = f"no decision within {DECISION_WITHIN_S:g} s" if alive else "the engine is not running"
    return {
        "request": asked.id,
        "reply": "stored",
        "why": f"{why}; it will be decided when the engine takes it",
        "incident": None,
        "jid": None,
    }


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
    alive = ledger.engine_alive(path)
    told = {"engine": "running" if alive else "not running", "ledger": str(path), "clusters": {}}
    try:
        with ledger.read(path) as db:
            states = ledger.states(db)
            now = ledger.now(db)
    except ledger.LedgerError as exc:
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
            "opened": _clock(incident.opened_at),
            "why": incident.why,
        }
    in_flight = state.attempt if state else None
    if in_flight:
        told["in flight"] = (
            f"{in_flight.id}: {in_flight.action.value} on {', '.join(in_flight.nodes)}"
        )
    return told


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

    CLI Example:

    .. code-block:: bash

        salt-run selfheal.history runbook since=24h
    """
    settings = _settings()
    _known(settings, cluster)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise SaltInvocationError(f"limit: found {limit!r}; allowed: a whole number, 1 or more")
    back_s = None
    if since is not None:
        try:
            back_s = settings_of.duration(since)
        except ValueError:
            raise SaltInvocationError(
                f"since: found {since!r}; allowed: {settings_of.DURATION}"
            ) from None
    try:
        with ledger.read(settings.ledger_path(__opts__)) as db:
            oldest = 0.0 if back_s is None else ledger.now(db) - back_s
            rows = ledger.history(db, cluster, oldest, limit)
    except ledger.LedgerError as exc:
        raise SaltInvocationError(str(exc)) from None
    return [{"time": _clock(row.pop("at")), **row} for row in rows]


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
