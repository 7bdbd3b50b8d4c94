"""Checks of the master's configuration: our settings and their files, secrets, and versions."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
from collections.abc import Iterator
from typing import Any

import salt.version

from .. import config
from .engine import master_started_at
from .master import Finding, Master, fail, ok, warn

TESTED_SALT = (3006, 3008)


def check_settings(master: Master) -> Iterator[Finding]:
    for problem in [*master.problems, *_unreadable(master)]:
        yield fail(
            f"{problem.path}: found {problem.found}",
            f"Allowed: {problem.allowed}; correct it and restart the salt-master.",
        )
    settings = master.settings
    if settings is not None:
        nodes = sum(len(cluster.nodes) for cluster in settings.clusters.values())
        modes = {(c.mode or settings.mode).value for c in settings.clusters.values()}
        yield ok(
            f"clusters {', '.join(settings.clusters)} with {nodes} nodes, mode {', '.join(sorted(modes))}"
        )
    for file in master.files:
        if file.broken:
            yield warn(
                f"{file.path} cannot be read: {file.broken}",
                "Correct the file: Salt leaves it out, or does not start with it.",
            )
    yield from _replaced(master)
    yield from _older_than_its_files(master)


def _unreadable(master: Master) -> list[config.Problem]:
    """The problems with files that usable settings name."""
    if master.settings is None:
        return []
    try:
        config.trusted(master.settings.clusters)
    except config.ConfigError as exc:
        return exc.problems
    return []


def _replaced(master: Master) -> Iterator[Finding]:
    """Lists that have no effect, because a later layer has a list of the same name."""
    for key in ("engines", "reactor"):
        having = [[f for f in layer if key in f.data] for layer in master.layers]
        having = [layer for layer in having if layer]
        for layer, later in itertools.pairwise(having):
            for file in layer:
                yield warn(
                    f"`{key}:` in {file.path} has no effect, {later[0].path} replaces it",
                    f"Move it into a file of {later[0].path.parent}: lists of several files there are joined.",
                )


def _older_than_its_files(master: Master) -> Iterator[Finding]:
    """Files that were changed after the master was started, so that the running engine does not know the change."""
    started_at = master_started_at(master)
    if started_at is None:
        return
    for file in master.files:
        if file.mtime > started_at:
            yield warn(
                f"{file.path} was changed after the salt-master was started",
                "Restart the salt-master: a running engine keeps its settings.",
            )


def check_secrets(master: Master) -> Iterator[Finding]:
    if master.opts.get("pillar_opts"):
        yield fail(
            "`pillar_opts: true` hands every option of the master, passwords included, to every minion",
            "Remove pillar_opts from the master's configuration and restart the salt-master.",
        )
    else:
        yield ok("minions do not get the master's options")
    for file in master.files:
        if not file.holds_ours:
            continue
        clear = sorted(set(_in_clear(config.entry(file.data))))
        if not clear:
            yield ok(f"{file.path} holds none in clear")
        elif file.mode & 0o004:
            yield warn(
                f"{file.path} holds {', '.join(clear)} in clear, and everybody can read it",
                f"chmod o= {file.path}, or keep them elsewhere and write sdb:// URIs.",
            )
        else:
            yield ok(f"{file.path} holds {', '.join(clear)} in clear; sdb:// URIs work, too")


def _in_clear(value: Any, path: str = "") -> Iterator[str]:
    """The paths of secrets that are written into the settings themselves, and not as sdb:// URIs."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        at = f"{path}.{key}" if path else str(key)
        if key in config.SECRETS and inner and not str(inner).startswith("sdb://"):
            yield at
        else:
            yield from _in_clear(inner, at)


def check_versions(master: Master) -> Iterator[Finding]:
    release = str(salt.version.__version__)
    found = (
        f"Salt {release}, rethinkdb {importlib.metadata.version('rethinkdb')}, "
        f"Python {platform.python_version()}"
    )
    if release.split(".")[0] in map(str, TESTED_SALT):
        yield ok(found)
    else:
        yield warn(
            found,
            f"Use one of the releases this was tested with: {' or '.join(map(str, TESTED_SALT))}.",
        )
