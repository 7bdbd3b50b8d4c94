"""The doctor's visit: what is examined, in which order, and how bad it is.

A check is a small function, one per question; it yields findings, each with its remedy. It reads options, files, the
ledger or what Salt itself says, and changes nothing. None may tell a value that could be a secret: settings are named by
their path, unexpected errors by their type. Here is no decision of the healer's, and nothing here runs in its engine.

The checks stand beside this file, by subject; `master` is what they look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .doors import check_hooks, check_peers, check_permissions, check_salt_api
from .engine import check_engine
from .master import Finding, Level, Master, warn
from .minions import check_minions, check_results
from .reactor import check_reactor
from .settings import check_secrets, check_settings, check_versions
from .storage import check_job_cache, check_ledger

#: In the order in which a person reads them: what must work first, then who could misuse it.
CHECKS: dict[str, Callable[[Master], Iterator[Finding]]] = {
    "settings": check_settings,
    "engine": check_engine,
    "reactor": check_reactor,
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
}


def examine(opts: Mapping[str, Any], api_config: str | None = None) -> list[Finding]:
    """All findings about this master; never raises. ``api_config``: of a salt-api with a configuration of its own."""
    master = Master(opts, api_config)
    findings = [finding for name in CHECKS for finding in ask(name, master)]
    master.close()
    return findings


@dataclass(frozen=True)
class Visit:
    """All that the doctor found, for people."""

    findings: tuple[Finding, ...]

    def told(self) -> dict[str, Any]:
        """``checks``, a line for each finding, and ``worst``; with ``retcode`` 1 if that is ``fail``."""
        level = worst(self.findings)
        told = {"checks": [str(f) for f in self.findings], "worst": level.value}
        return {**told, "retcode": 1} if level is Level.FAIL else told


def visit(opts: Mapping[str, Any], api_config: str | None = None) -> Visit:
    """What `examine` finds, in the form in which it is told."""
    return Visit(tuple(examine(opts, api_config)))


def worst(findings: Sequence[Finding]) -> Level:
    return max((f.level for f in findings), key=list(Level).index, default=Level.OK)


def ask(name: str, master: Master) -> list[Finding]:
    """What one check says; if it breaks, also that."""
    found: list[Finding] = []
    try:
        for finding in CHECKS[name](master):
            found.append(finding)
    except Exception as exc:
        # Its type only: what it says may quote a secret.
        told = f"the check itself broke: {type(exc).__name__}{_where(exc)}"
        found.append(warn(told, "Look at this yourself, and report it."))
    return [replace(finding, check=name) for finding in found]


def _where(exc: BaseException) -> str:
    """The line of ours where it happened."""
    lines = []
    trace = exc.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.parent == Path(__file__).parent:
            lines.append(f" at {file.name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-1] if lines else ""
