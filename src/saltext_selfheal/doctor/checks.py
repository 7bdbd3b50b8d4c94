"""What may be wrong around the healer: one small check per question, each answer with its remedy.

A check reads options, files, the ledger or what Salt itself says, and changes nothing. None may tell a value that could
be a secret: settings are named by their path, unexpected errors by their type. Here is no decision of the healer's,
and nothing here runs in its engine. Here are the master's own side and the visit as a whole; `patient` is what is looked
at, `doctor_doors` the side where others come in.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import importlib.metadata
import itertools
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import salt.key
import salt.utils.job
import salt.utils.user
import salt.version

from .. import config
from ..healing.model import Action, Mode
from ..ledger import chain as audit_chain
from ..ledger import file as ledger_file
from ..ledger import records
from ..ledger import tables as ledger_tables
from ..ledger import timeline
from ..ledger.file import LedgerError
from ..loop import jobs
from .doors import HOOK, check_hooks, check_peers, check_permissions, check_results, check_salt_api
from .master import Finding, Level, Master, fail, ok, warn

TESTED_SALT = (3006, 3008)
SILENT_AFTER_S = 90.0  #: an engine that runs writes every 30 s
KEEP_JOBS_S = 3600.0
MIB = 1 << 20
SCARCE_BYTES, NO_BYTES = 100 * MIB, 10 * MIB
UNKNOWN_JID = "20000101000000000000"  #: of the right form, and no attempt has it
REMEDIATE = "selfheal/remediate/"


# ---------------------------------------------------------------- settings, engine


def check_settings(master: Master) -> Iterator[Finding]:
    for problem in master.problems:
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


def _replaced(master: Master) -> Iterator[Finding]:
    """Lists that have no effect, because a later layer has one of the same name."""
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
    started_at = _master_started_at(master)
    if started_at is None:
        return
    for file in master.files:
        if file.mtime > started_at:
            yield warn(
                f"{file.path} was changed after the salt-master was started",
                "Restart the salt-master: a running engine keeps its settings.",
            )


def _master_started_at(master: Master) -> float | None:
    """When the master was started whose engine holds the ledger; None if that cannot be known.

    An engine that Salt started again still has the options of its master, so the master counts.
    """
    engine = _holder(master.ledger_path)
    if engine is None:
        return None
    process, pid = engine, _pid_in(Path(str(master.opts.get("pidfile") or "")))
    ancestor = engine
    try:
        while ancestor > 1:
            if ancestor == pid:
                process = pid
            ancestor = int(_proc_stat(ancestor)[1])
        ticks = int(_proc_stat(process)[19])
    except OSError:  # it ended in this moment
        return None
    return time.time() - timeline.boottime() + ticks / os.sysconf("SC_CLK_TCK")


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _proc_stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def _holder(path: Path) -> int | None:
    """The process that holds the ledger's lock, as the kernel tells."""
    lock = ledger_file.lock_path(path)
    try:
        inode = lock.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            parts = line.split()
            if parts[1] != "FLOCK" or not parts[5].endswith(f":{inode}"):
                continue
            pid = int(parts[4])
            if pid > 0 and _has_open(pid, lock):
                return pid
    except (OSError, ValueError, IndexError):
        pass
    return None


def _has_open(pid: int, path: Path) -> bool:
    """Where the kernel does not let us look, as with a process that changed its user, the inode must do."""
    try:
        return any(file.samefile(path) for file in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return True


def check_engine(master: Master) -> Iterator[Finding]:
    if config.entry(master.opts) is None:
        lost = [str(file.path) for file in master.files if file.holds_ours]
        also = f" any more, though {', '.join(lost)} lists it" if lost else ""
        yield fail(
            f"`engines:` does not list selfheal{also}",
            "Put what `salt-run selfheal.config` prints into a file of master.d and restart the salt-master.",
        )
    for name in config.aliases(master.opts):
        yield fail(
            f"`engines:` lists selfheal as {name!r}, too, and nobody heals what stands there",
            "Put its clusters under an entry `- selfheal:`. Several files may have one: Salt joins the lists, and one "
            "engine heals them all.",
        )
    path = master.ledger_path
    silent_s = None
    # What is wrong with the ledger tells its own check.
    with contextlib.suppress(LedgerError), records.read(path) as db:
        silent_s = timeline.sign_of_life_s(db)
    told = "no sign of life yet" if silent_s is None else f"last sign of life {silent_s:.0f} s ago"
    try:
        alive = ledger_file.engine_alive(path)
    except LedgerError as exc:
        yield fail(f"whether it runs is not known: {exc}", "See the ledger's own line below.")
        return
    if not alive:
        yield fail(
            f"not running, {told}", "Restart the salt-master, and look for selfheal in its log."
        )
    elif silent_s is not None and silent_s > SILENT_AFTER_S:
        yield warn(
            f"it holds the ledger, but {told}",
            "Look for selfheal in the master's log, and restart the salt-master.",
        )
    else:
        yield ok(f"running, {told}")


# ---------------------------------------------------------------- reactor


def check_reactor(master: Master) -> Iterator[Finding]:
    if any(not isinstance(one, dict) or len(one) != 1 for one in master.reactor_entries):
        yield fail(
            "`reactor:` has an entry that is not one tag with its files, and Salt skips it without a word",
            "Write each tag as an entry of its own, with a `-` before it.",
        )
    good = []
    for action in Action:
        found = list(_reaction(master, action))
        yield from found
        if not found:
            good.append(action.value)
    if good:
        proven = "; an event without an order renders to nothing" if master.can_render else ""
        yield ok(f"mapped: {', '.join(good)}{proven}")
    yield from _foreign(master)


def _packaged(action: Action) -> Path:
    return Path(__file__).parents[1] / "reactor" / f"{action.value}.sls"


def _right(action: Action) -> str:
    """What to write for it: Salt globs it, so it may survive a change of the onedir's Python."""
    return re.sub(r"/extras-3\.\d+/", "/extras-3.*/", str(_packaged(action)))


def _paths(master: Master, reference: str) -> list[str]:
    """The files behind a reference, found as the reactor finds them."""
    if reference.startswith("salt://"):
        reference = master.reactor.minion.functions["cp.cache_file"](reference) or ""
    return sorted(glob.glob(reference))  # noqa: PTH207 - absolute, as Salt takes it


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _ours(path: str) -> bool:
    """Whether a reactor file asks the ledger what it may do, be it the packaged one or a copy."""
    return "selfheal.attempt" in _text(path)


def _reaction(master: Master, action: Action) -> Iterator[Finding]:
    """What is wrong between the event of this action and its file; nothing if all is well."""
    tag = f"{REMEDIATE}{action.value}"
    references = [
        one for pattern, files in master.mappings if fnmatch.fnmatch(tag, pattern) for one in files
    ]
    found = []
    for reference in references:
        paths = _paths(master, reference)
        found += paths
        if not paths:
            yield fail(
                f"{tag}: there is no file {reference}",
                f"Correct the path, the one of this installation is {_right(action)}, and restart the salt-master.",
            )
    ours = [path for path in found if _ours(path)]
    if not references:
        yield fail(
            f"{tag} is not mapped: nothing would happen",
            f"Add `- {tag}: ['{_right(action)}']` to `reactor:` and restart the salt-master.",
        )
    elif found and not ours:
        yield fail(
            f"{tag} leads to no file of the healer's: nothing would come of its order",
            f"Map it to {_right(action)} and restart the salt-master.",
        )
    elif len(ours) > 1:
        yield fail(
            f"{tag} has {len(ours)} files where one publishes the job: {', '.join(ours)}",
            "Leave one of them under this tag.",
        )
    for path in ours:
        yield from _file(master, action, path)


def _file(master: Master, action: Action, path: str) -> Iterator[Finding]:
    tag = f"{REMEDIATE}{action.value}"
    text = _text(path)
    if not re.search(rf"""['"]{action.value}['"]""", text):
        yield fail(
            f"{tag} leads to {path}, which is for another action",
            f"Map it to {_right(action)} and restart the salt-master.",
        )
        return
    if not master.can_render:
        return
    try:
        rendered = master.reactor.render_template(path, tag=tag, data={"jid": UNKNOWN_JID})
    except Exception as exc:
        yield fail(
            f"{path} does not render: {type(exc).__name__}",
            f"Map {tag} to {_right(action)}, or reinstall the extension for this Salt.",
        )
        return
    if rendered:
        yield fail(
            f"{path} acts on an event that the healer did not send",
            f"Map {tag} to {_right(action)}: any minion can forge such an event.",
        )
    elif text != _text(str(_packaged(action))):
        yield warn(
            f"{path} is not the file of this release",
            f"Map {tag} to {_right(action)}, which an update replaces.",
        )


def _foreign(master: Master) -> Iterator[Finding]:
    """Reactions on the healer's tags that are not the healer's."""
    told = []
    for pattern, references in master.mappings:
        orders = [
            t for t in (f"{REMEDIATE}{a.value}" for a in Action) if fnmatch.fnmatch(t, pattern)
        ]
        if orders or pattern.startswith((REMEDIATE, "selfheal/request", "selfheal/decision")):
            paths = itertools.chain.from_iterable(_paths(master, one) for one in references)
            strange = [path for path in paths if not _ours(path)]
            if strange:
                yield warn(
                    f"{pattern} also leads to {', '.join(strange)}",
                    "Listen to selfheal/incident/* instead, and never act on such an event: any minion can forge it.",
                )
        elif pattern.startswith("selfheal/"):
            told.append(pattern)
        if _hears_hooks(pattern) and (
            master.takes_hooks or any(a.open_to_all for a in master.apis)
        ):
            yield fail(
                f"{pattern} reacts to webhooks, and this master's are open to whoever reaches them",
                "Remove this mapping, or move it to a master without these webhooks.",
            )
    if told:
        yield ok(f"reactions of your own on {', '.join(told)}")


def _hears_hooks(pattern: str) -> bool:
    tags = ("selfheal/runbook/restart", "states/highstate", "services/restart")
    return pattern.startswith(HOOK) or any(fnmatch.fnmatch(f"{HOOK}{t}", pattern) for t in tags)


# ---------------------------------------------------------------- ledger, job cache, minions


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
    """Ledgers that could not be used any more and were put aside."""
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
    # 0 keeps everything
    keep_s = float(salt.utils.job.get_keep_jobs_seconds(opts) or 0)
    if 0 < keep_s < KEEP_JOBS_S:
        yield warn(
            f"jobs are kept for {keep_s:g} s only",
            "Set keep_jobs_seconds to 3600 or more, so that a slow job's result is there when it is looked for.",
        )
    else:
        yield ok(f"results are read from {returner}")


def check_minions(master: Master) -> Iterator[Finding]:
    if master.settings is None:
        return
    keys = salt.key.get_key(dict(master.opts)).list_keys()
    state = {
        minion: called
        for called, kind in (
            ("is denied", "minions_denied"),
            ("is rejected", "minions_rejected"),
            ("waits to be accepted", "minions_pre"),
            ("", "minions"),
        )
        for minion in keys.get(kind) or []
    }
    accepted = 0
    for cluster, policy in master.settings.policies().items():
        acts = policy.mode in (Mode.AUTO, Mode.APPROVE)
        for node in policy.nodes:
            if state.get(node) == "":
                accepted += 1
                continue
            yield (fail if acts else warn)(
                f"{cluster}: {node} has no accepted key"
                f"{', it ' + state[node] if node in state else ''}: an action would reach nobody",
                f"Accept the minion's key (salt-key -a {node}), or name the node by the minion id that it has.",
            )
    if accepted:
        yield ok(f"{accepted} nodes have an accepted key")


# ---------------------------------------------------------------- secrets, versions


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
    """Paths of secrets that stand in the settings themselves."""
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


# ---------------------------------------------------------------- all of it

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
