"""The doctor's visit: what is examined, in which order, and how bad the findings are.

A check is a small function for one question. It yields findings, each with its remedy. It reads options, files, the
ledger, or what Salt itself says, and changes nothing. A finding must not contain a value that could be a secret:
settings are named by their path, and unexpected errors by their type. Nothing here decides anything for the healer or
runs in its engine.

The checks are in the files beside this one, by subject. They all look at a `master.Master`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import live as live_checks
from . import observers, servers
from .clusters import check_clusters
from .doors import check_hooks, check_peers, check_permissions, check_salt_api
from .engine import check_engine
from .master import Finding, Level, Master, warn
from .minions import check_minions, check_results
from .reactor import check_reactor
from .settings import check_secrets, check_settings, check_versions
from .storage import check_job_cache, check_ledger

#: In the order in which a person reads them: first what must work, then who could misuse it.
CHECKS: dict[str, Callable[[Master], Iterator[Finding]]] = {
    "settings": check_settings,
    "engine": check_engine,
    "reactor": check_reactor,
    "clusters": check_clusters,
    "ledger": check_ledger,
    "job cache": check_job_cache,
    "minions": check_minions,
    "permissions": check_permissions,
    "peers": check_peers,
    "results": check_results,
    "salt-api": check_salt_api,
    "hooks": check_hooks,
    "secrets": check_secrets,
    "versions": check_versions,
    "observers": observers.check_recorded,
    "servers": servers.check_recorded,
}
#: What asks the nodes and the minions, only when that is wanted.
LIVE: dict[str, Callable[[Master], Iterator[Finding]]] = {
    "nodes now": live_checks.check_nodes,
    "minions now": live_checks.check_minions,
    "observers now": observers.check_now,
    "servers now": servers.check_now,
}
#: What is looked up on record only if the present is not asked for.
ON_RECORD = ("observers", "servers")
NOT_LOOKED_AT = (
    "not looked at: whether each node lets the healer in now, and whether each minion answers, knows the service and "
    "compiles its highstate, whether each observer answers, and on which addresses the servers listen (live=True)"
)


def examine(
    opts: Mapping[str, Any], api_config: str | None = None, live: bool = False
) -> list[Finding]:
    """All findings about this master. Never raises. ``api_config`` is the configuration of a separate salt-api.

    ``live``: nodes are dialled and minions are asked, too, which takes some seconds.
    """
    master = Master(opts, api_config)
    names = [*(n for n in CHECKS if n not in ON_RECORD), *LIVE] if live else list(CHECKS)
    findings = [finding for name in names for finding in ask(name, master)]
    master.close()
    if not live:
        findings.append(Finding(Level.OK, NOT_LOOKED_AT, check="now"))
    return findings


@dataclass(frozen=True)
class Visit:
    """All findings of the doctor, for people."""

    findings: tuple[Finding, ...]

    def told(self) -> dict[str, Any]:
        """``checks`` with a line for each finding, and ``worst``. If that is ``fail``, also ``retcode`` 1."""
        level = worst(self.findings)
        told = {"checks": [str(f) for f in self.findings], "worst": level.value}
        return {**told, "retcode": 1} if level is Level.FAIL else told


def visit(opts: Mapping[str, Any], api_config: str | None = None, live: bool = False) -> Visit:
    """What `examine` finds, in the form for people."""
    return Visit(tuple(examine(opts, api_config, live)))


def worst(findings: Sequence[Finding]) -> Level:
    return max((f.level for f in findings), key=list(Level).index, default=Level.OK)


def ask(name: str, master: Master) -> list[Finding]:
    """The findings of one check. If the check itself fails, that is a finding, too."""
    found: list[Finding] = []
    try:
        for finding in (CHECKS[name] if name in CHECKS else LIVE[name])(master):
            found.append(finding)
    except Exception as exc:
        # Only the type of the exception is told, because its text may quote a secret.
        told = f"the check itself broke: {type(exc).__name__}{_where(exc)}"
        found.append(warn(told, "Look at this yourself, and report it."))
    return [replace(finding, check=name) for finding in found]


def _where(exc: BaseException) -> str:
    """The line in this room where the exception was raised."""
    lines = []
    trace = exc.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.parent == Path(__file__).parent:
            lines.append(f" at {file.name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-1] if lines else ""
