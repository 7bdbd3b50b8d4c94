"""Checks of the ledger, in which the healer keeps what it knows, and of the job cache, from which it reads results."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import salt.utils.job
import salt.utils.user

from ..ledger import chain as audit_chain
from ..ledger import file as ledger_file
from ..ledger import records
from ..ledger import tables as ledger_tables
from ..ledger.file import LedgerError
from ..loop import jobs
from .master import Finding, Master, fail, ok, warn

KEEP_JOBS_S = 3600.0
MIB = 1 << 20
SCARCE_BYTES, NO_BYTES = 100 * MIB, 10 * MIB


def check_ledger(master: Master) -> Iterator[Finding]:
    path = master.ledger_path
    kind = ledger_file.file_system(path.resolve().parent)
    if ledger_file.on_network(kind):
        yield fail(
            f"{path} is on {kind}",
            "Set ledger.path to a file on a local file system and restart the salt-master.",
        )
    yield from _space(path)
    if not path.exists():
        yield warn(
            f"there is no {path} yet",
            "Restart the salt-master: the engine makes the ledger when it starts.",
        )
        return
    yield from _rights(master, path)
    yield from _left_over(path)
    try:
        with records.read(path) as db:
            schema = ledger_tables.schema(db)
            chain = records.audit(db, audit_chain.LINKS_AT_START)
    except LedgerError as exc:
        yield fail(
            str(exc),
            "Install the release that wrote it, or move the file away and restart the salt-master.",
        )
        return
    if schema != ledger_tables.SCHEMA:
        yield warn(
            f"{path} has schema {schema}, this release writes {ledger_tables.SCHEMA}",
            "Restart the salt-master: the engine brings the ledger up to date when it starts.",
        )
    if not chain["ok"]:
        yield fail(
            f"{path}: the chain of its audit does not hold at entry {chain['broken']}",
            "Find out who wrote to the file; the engine puts it aside and starts anew when the salt-master restarts.",
        )
    else:
        yield ok(f"{path}, schema {schema}, the newest {chain['rows']} entries hold")


def _space(path: Path) -> Iterator[Finding]:
    where = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(where).free
    if free < SCARCE_BYTES:
        made = fail if free < NO_BYTES else warn
        yield made(
            f"{free // MIB} MiB are free in {where}",
            "Make room: without it nothing can be recorded, and what cannot be recorded is not done.",
        )


def _rights(master: Master, path: Path) -> Iterator[Finding]:
    user, about, folder = master.user, path.stat(), path.parent.stat()
    uid = salt.utils.user.get_uid(user)
    if uid is not None and about.st_uid != uid:
        yield (fail if uid else warn)(
            f"{path} belongs to uid {about.st_uid}, and the master runs as {user}",
            f"chown {user} {path}*",
        )
    for what, mode, chmod in ((path, about.st_mode, "600"), (path.parent, folder.st_mode, "700")):
        if mode & 0o022:
            yield fail(
                f"{what} has mode {stat.S_IMODE(mode):04o}: others could write the healer's orders",
                f"chmod {chmod} {what}",
            )
        elif what == path and mode & 0o077:
            yield warn(
                f"{what} has mode {stat.S_IMODE(mode):04o}: others can read it",
                f"chmod {chmod} {what}",
            )


def _left_over(path: Path) -> Iterator[Finding]:
    """Damaged ledgers that were put aside."""
    kept = sorted(path.parent.glob(f"{path.name}.damaged-*"))
    kept = [file for file in kept if not file.name.endswith(("-wal", "-shm", "-journal"))]
    if kept:
        yield warn(
            f"damaged ledgers were put aside: {', '.join(map(str, kept))}",
            "Look at the disk, and delete them when you know why.",
        )


def check_job_cache(master: Master) -> Iterator[Finding]:
    opts = master.opts
    if opts.get("job_cache", True) is False and not opts.get("ext_job_cache"):
        yield fail(
            "`job_cache: false`: the healer would never learn what became of a job",
            "Remove job_cache from the master's configuration and restart the salt-master.",
        )
        return
    returner, functions = jobs.returner(opts), master.reactor.minion.returners
    lacking = [f for f in ("get_jid", "get_load") if f"{returner}.{f}" not in functions]
    if lacking:
        option = "ext_job_cache" if opts.get("ext_job_cache") else "master_job_cache"
        yield fail(
            f"the returner {returner} has no {' and no '.join(lacking)}",
            f"Set {option} to a returner that loads and can be read, such as local_cache.",
        )
        return
    # With 0 Salt keeps all jobs.
    keep_s = float(salt.utils.job.get_keep_jobs_seconds(opts) or 0)
    if 0 < keep_s < KEEP_JOBS_S:
        yield warn(
            f"jobs are kept for {keep_s:g} s only",
            "Set keep_jobs_seconds to 3600 or more, so that a slow job's result is there when it is looked for.",
        )
    else:
        yield ok(f"results are read from {returner}")
