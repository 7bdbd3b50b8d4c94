"""Jobs: makes JIDs, and reads from the job cache whether jobs were published and what they returned.

The job cache is read instead of the bus, because entries stay there, while a return event may be missed. But an entry
proves no more than an event: any minion can store a result under another's name (``_return`` with ``resource_id``,
``_syndic_return``; 3008.5). So what is read here is only a hint, and `healing` treats it as one. Reading happens on a
thread of its own. A read that hangs is given up together with its job.

Of Salt's own cache only the files that are needed are read, and not by ``local_cache.get_jid``. Any minion can add a
result of any size to any job and replace the job's load. ``get_jid`` unpacks all of that, holds the interpreter
meanwhile (60 MB: 10 s), and loops for ever on a truncated file (3006 to 3008).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import salt.loader
import salt.minion
import salt.payload
import salt.utils.jid

from ..driver.text import failure, plain
from ..healing import changes, remedies, sighting, testimony
from ..healing.events import Event, Missing, Published, Returned, Told
from ..healing.model import Action, Outcome
from . import salt_words

log = logging.getLogger(__name__)

READ_EVERY_S = 0.2
HANGS_AFTER_S = 5.0
#: Unpacking holds up every thread; this much takes half a second at most.
MAX_RESULT_BYTES = 4 << 20
MAX_TEST_BYTES = 2 << 20  #: of a test run, which is only a question
#: One question of the reactor waits at most this long, because the reactor does nothing else meanwhile.
READ_WITHIN_S = 2.0


@dataclass(frozen=True)
class Watched:
    """An attempt in flight whose job is waited for."""

    attempt: str
    jid: str
    action: Action
    nodes: tuple[str, ...]
    of_jid: str | None = None  #: for a look: the JID it looks for
    args: tuple[str | int, ...] = ()  #: of its job


def mint(opts: Mapping[str, Any]) -> str:
    """A fresh JID. The minion's state queue orders jobs by JID, so it must be made at the decision and not before."""
    return str(salt.utils.jid.gen_jid(dict(opts)))


def returner(opts: Mapping[str, Any]) -> str:
    """The name of the returner that keeps job results. With ``ext_job_cache`` the master's own cache gets none."""
    return str(opts.get("ext_job_cache") or opts.get("master_job_cache") or "local_cache")


def _folder(opts: Mapping[str, Any], jid: str) -> Path | None:
    """The folder in which Salt's own job cache keeps this job (3006 to 3008). None with another returner."""
    if returner(opts) != "local_cache":
        return None
    return Path(
        salt.utils.jid.jid_dir(jid, str(Path(opts["cachedir"]) / "jobs"), opts["hash_type"])
    )


def is_published(opts: Mapping[str, Any], returners: Any, jid: str) -> bool:
    """Whether the job's load is in the job cache."""
    folder = _folder(opts, jid)
    if folder is not None:
        return (folder / ".load.p").is_file()
    return bool(returners[f"{returner(opts)}.get_load"](jid))


def results(
    opts: Mapping[str, Any],
    returners: Any,
    jid: str,
    nodes: Iterable[str],
    most: int = MAX_RESULT_BYTES,
) -> dict[str, Mapping[str, Any]]:
    """The entries of these minions in the job cache, as far as there are any. ``most``: bytes that are read of each."""
    folder = _folder(opts, jid)
    if folder is not None:
        entries = {node: _entry(folder / node / "return.p", most) for node in nodes}
    else:
        found = returners[f"{returner(opts)}.get_jid"](jid)
        entries = {node: found.get(node) for node in nodes}
    return {node: entry for node, entry in entries.items() if isinstance(entry, dict)}


def _entry(path: Path, most: int) -> Any:
    """One minion's result; None if there is none yet."""
    try:
        size = path.stat().st_size
        if size > most:
            return {"return": f"a result of {size >> 20} MB, which is not read", "retcode": 1}
        return salt.payload.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception:
        return None  # it is being written now; the next read will see it


def judge(watched: Watched, entry: Mapping[str, Any]) -> tuple[Outcome, str]:
    """What one minion's entry in the job cache means."""
    read = remedies.TABLE[watched.action].reads
    outcome, told = read(entry.get("return"), entry.get("retcode"), watched.of_jid)
    if outcome is Outcome.DONE and entry.get("success") is False:
        if watched.action is Action.LOOK:
            return Outcome.BUSY, "no answer to what it runs: the minion says that it was no success"
        return Outcome.FAILED, "the minion says that it was no success"
    return outcome, told


def heard(watched: Watched, entry: Mapping[str, Any]) -> Told | None:
    """What a minion has told, if it was a question. None: it was none, or it was no answer to it."""
    if watched.action is Action.WITNESS:
        return _plainly(testimony.read(entry.get("return")))
    if watched.action is Action.SALT_WITNESS:
        port = watched.args[-1] if watched.args else None
        return _plainly(testimony.read(salt_words.facts(entry.get("return"), port)))
    if watched.action is Action.TEST_HIGHSTATE:
        return _cleaned(changes.read(entry.get("return"), entry.get("retcode")))
    if watched.action is Action.HIGHSTATE:
        changed = changes.changed(entry.get("return"))
        return _cleaned(changed) if changed else None
    if watched.action is Action.PROBE:
        seen = sighting.read(entry.get("return"))
        return replace(seen, why=plain(seen.why, 200)) if seen else None
    return None


def _plainly(told: testimony.Testimony | None) -> testimony.Testimony | None:
    return replace(told, why=plain(told.why), found=plain(told.found)) if told else None


def _tells_always(watched: Watched) -> bool:
    """Why a test run has failed is worth telling, too."""
    return watched.action is Action.TEST_HIGHSTATE


def _said(watched: Watched, told: Told | None, detail: str) -> str:
    """A result in a sentence. What a highstate has changed comes after what it has returned."""
    if told is None:
        return detail
    return f"{detail}; {told.sentence}" if watched.action is Action.HIGHSTATE else told.sentence


def _cleaned(told: changes.Changes) -> changes.Changes:
    return replace(told, why=plain(told.why, 500), states=tuple(map(plain, told.states)))


class Unreadable(Exception):
    """The job cache gave no answer. The message says why."""


class CacheReader:
    """Looks whether a job is in the job cache, for the reactor's process, which must not be held up by that.

    There is one reader for the process. So the loader, which costs 20 ms, is built once, and a read that hangs is
    waited for once and not at each question.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._returners: Any = None
        self._last: threading.Thread | None = None

    def published(self, opts: Mapping[str, Any], jid: str) -> bool:
        """Whether the job of this JID was published. Raises Unreadable if that cannot be told now."""
        # After a fork the loader and the thread belong to the parent process.
        if self._pid != os.getpid():
            self._pid, self._returners, self._last = os.getpid(), None, None
        if self._last is not None and self._last.is_alive():
            raise Unreadable("an earlier look into it still hangs")
        found: list[Any] = []
        self._last = threading.Thread(
            target=self._look, args=(dict(opts), jid, found), name="selfheal-look", daemon=True
        )
        self._last.start()
        self._last.join(READ_WITHIN_S)
        if not found:
            raise Unreadable(f"no answer within {READ_WITHIN_S:g} s")
        if isinstance(found[0], Exception):
            raise Unreadable(type(found[0]).__name__) from found[0]
        return bool(found[0])

    def _look(self, opts: dict[str, Any], jid: str, found: list[Any]) -> None:
        try:
            if self._returners is None:
                self._returners = salt.loader.returners(opts, salt.loader.minion_mods(opts))
            found.append(is_published(opts, self._returners, jid))
        except Exception as exc:
            found.append(exc)


CACHE_READER = CacheReader()


class JobReader:
    """Reads the job cache for the attempts in flight, on a thread of its own, and delivers what is new."""

    def __init__(self, opts: Mapping[str, Any], deliver: Callable[[Event], None]) -> None:
        self._opts = opts
        self._deliver = deliver
        self._watched: tuple[Watched, ...] = ()
        self._delivered: set[tuple[str, str]] = set()
        self._given_up: set[str] = set()
        self._failed: set[str] = set()
        self._told_missing: dict[str, float] = {}
        self._wake = threading.Event()
        self._reading: tuple[float, Watched] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="selfheal-jobs", daemon=True)
        self._thread.start()

    def watch(self, watched: tuple[Watched, ...]) -> None:
        """Read the jobs of these attempts from now on, and no others."""
        if watched == self._watched:
            return
        self._watched = watched
        kept = {w.attempt for w in watched}
        self._delivered = {d for d in self._delivered.copy() if d[0] in kept}
        self._told_missing = {a: t for a, t in self._told_missing.items() if a in kept}
        self._wake.set()

    def check(self) -> str | None:
        """Give up a read that hangs, together with its job. Returns the sentence to report, or None.

        The hanging thread cannot be ended. It is left behind, and a new one is started.
        """
        reading = self._reading
        if reading is None or time.monotonic() - reading[0] < HANGS_AFTER_S:
            return None
        self._given_up.add(reading[1].jid)
        self._reading = None
        self.start()
        return f"reading job {reading[1].jid} from the job cache hangs; given up"

    def _run(self) -> None:
        """Read again and again. A thread that was replaced, because it hung, stops as soon as it comes back."""
        me = threading.current_thread()
        returners: Any = None
        while me is self._thread:
            self._wake.wait(READ_EVERY_S if self._watched else None)
            self._wake.clear()
            for watched in self._watched:
                if watched.jid in self._given_up or me is not self._thread:
                    continue
                try:
                    if returners is None:
                        # Building the loader costs 0.25 s, so it is done once per thread, and only when needed.
                        returners = salt.minion.MasterMinion(
                            dict(self._opts), states=False, rend=False, matcher=False
                        ).returners
                    self._read(returners, watched)
                    self._failed.discard(watched.jid)
                except Exception as exc:
                    if watched.jid not in self._failed:
                        self._failed.add(watched.jid)
                        log.error("selfheal: job %s cannot be read: %s", watched.jid, failure(exc))

    def _read(self, returners: Any, watched: Watched) -> None:
        """Read one job: first whether it was published, then the results that were not delivered yet."""
        me = threading.current_thread()
        self._reading = (time.monotonic(), watched)
        try:
            if (watched.attempt, "") not in self._delivered:
                if not is_published(self._opts, returners, watched.jid):
                    self._missing(watched, me)
                    return
                self._once(watched, "", Published(watched.attempt), me)
            awaited = [n for n in watched.nodes if (watched.attempt, n) not in self._delivered]
            most = MAX_TEST_BYTES if _tells_always(watched) else MAX_RESULT_BYTES
            found = results(self._opts, returners, watched.jid, awaited, most)
        finally:
            if me is self._thread:
                self._reading = None
        for node, entry in found.items():
            outcome, detail = judge(watched, entry)
            told = (
                heard(watched, entry) if outcome is Outcome.DONE or _tells_always(watched) else None
            )
            said = plain(_said(watched, told, detail), 500)
            self._once(watched, node, Returned(watched.attempt, node, outcome, said, told), me)

    def _missing(self, watched: Watched, me: threading.Thread) -> None:
        """The job cache was read and does not hold the job. While that lasts, it is delivered once a second."""
        now = time.monotonic()
        if me is self._thread and now - self._told_missing.get(watched.attempt, 0.0) >= 1.0:
            self._told_missing[watched.attempt] = now
            self._deliver(Missing(watched.attempt))

    def _once(self, watched: Watched, what: str, event: Event, me: threading.Thread) -> None:
        """Deliver this event once. ``what`` is the node whose result it is; empty: the job was published."""
        if me is self._thread and (watched.attempt, what) not in self._delivered:
            self._delivered.add((watched.attempt, what))
            self._deliver(event)
