"""Jobs: mints JIDs, reads what became of them from the job cache.

The cache is read instead of the bus because the master checks a minion's identity before it writes there; any
minion can forge a return event. Reading happens on a thread of its own: ``local_cache.get_jid`` loops for ever on
a truncated file (3006 to 3008), so a read that hangs is given up together with its job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import salt.minion
import salt.utils.jid

from .healing.model import Action
from .healing.model import Event
from .healing.model import Missing
from .healing.model import Outcome
from .healing.model import Published
from .healing.model import Returned
from .healing.model import clean

log = logging.getLogger(__name__)

READ_EVERY_S = 0.2
HANGS_AFTER_S = 5.0


@dataclass(frozen=True)
class Watched:
    """An attempt in flight whose job is waited for."""

    attempt: str
    jid: str
    action: Action
    nodes: tuple[str, ...]
    of_jid: str | None = None  #: for a look: the JID it looks for


def mint(opts: Mapping[str, Any]) -> str:
    """A fresh JID. The minion's state queue orders by it, so mint at the decision, not before."""
    return str(salt.utils.jid.gen_jid(dict(opts)))


def returner(opts: Mapping[str, Any]) -> str:
    """Where job results go: with ``ext_job_cache`` the master's own cache receives nothing."""
    return str(opts.get("ext_job_cache") or opts.get("master_job_cache") or "local_cache")


def judge(watched: Watched, entry: Mapping[str, Any]) -> tuple[Outcome, str]:
    """What one minion's entry in the job cache means.

    ``state.highstate`` answers with a dict of states when it ran, and with a list of sentences when it did not:
    because another state run is active, or because the states do not compile (3006 to 3008).
    """
    result, retcode = entry.get("return"), entry.get("retcode")
    if watched.action is Action.LOOK:
        if not isinstance(result, list):
            return Outcome.BUSY, f"no answer to what it runs: {str(result)[:200]}"
        running = result
        ours = [j for j in running if isinstance(j, dict) and j.get("jid") == watched.of_jid]
        return (
            (Outcome.BUSY, "the job still runs") if ours else (Outcome.DONE, "the job does not run")
        )
    if watched.action is Action.HIGHSTATE:
        if isinstance(result, list):
            told = "; ".join(str(one) for one in result)[:500]
            return (Outcome.BUSY if "is running as PID" in told else Outcome.FAILED), told
        if not isinstance(result, dict):
            return Outcome.FAILED, str(result)[:500]
        bad = [s for s in result.values() if isinstance(s, dict) and s.get("result") is False]
        if not retcode and not bad:
            return Outcome.DONE, f"{len(result)} states"
        first = str(bad[0].get("comment", ""))[:300] if bad else f"retcode {retcode}"
        return Outcome.FAILED, f"{len(bad)} of {len(result)} states failed: {first}"
    if result is True and not retcode:
        return Outcome.DONE, ""
    return Outcome.FAILED, str(result)[:500]


class JobReader:
    """Reads the job cache for the attempts in flight and delivers what is new."""

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
        """From now on these, and nothing else."""
        if watched == self._watched:
            return
        self._watched = watched
        kept = {w.attempt for w in watched}
        self._delivered = {d for d in self._delivered.copy() if d[0] in kept}
        self._told_missing = {a: t for a, t in self._told_missing.items() if a in kept}
        self._wake.set()

    def check(self) -> str | None:
        """Abandon a read that hangs, and its job with it; the sentence to report, if there is one."""
        reading = self._reading
        if reading is None or time.monotonic() - reading[0] < HANGS_AFTER_S:
            return None
        self._given_up.add(reading[1].jid)
        self._reading = None
        self.start()
        return f"reading job {reading[1].jid} from the job cache hangs; given up"

    def _run(self) -> None:
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
                        # Building the loader costs 0.25 s: once per thread, and not before it is needed.
                        returners = salt.minion.MasterMinion(
                            dict(self._opts), states=False, rend=False, matcher=False
                        ).returners
                    self._read(returners, watched)
                    self._failed.discard(watched.jid)
                except Exception:
                    if watched.jid not in self._failed:
                        self._failed.add(watched.jid)
                        log.error("selfheal: job %s cannot be read", watched.jid, exc_info=True)

    def _read(self, returners: Any, watched: Watched) -> None:
        name = returner(self._opts)
        me = threading.current_thread()
        self._reading = (time.monotonic(), watched)
        try:
            if (watched.attempt, "") not in self._delivered:
                if not returners[f"{name}.get_load"](watched.jid):
                    self._missing(watched, me)
                    return
                self._once(watched, "", Published(watched.attempt), me)
            results = returners[f"{name}.get_jid"](watched.jid)
        finally:
            if me is self._thread:
                self._reading = None
        for node in watched.nodes:
            if node in results and isinstance(results[node], dict):
                outcome, detail = judge(watched, results[node])
                self._once(
                    watched, node, Returned(watched.attempt, node, outcome, clean(detail)), me
                )

    def _missing(self, watched: Watched, me: threading.Thread) -> None:
        """Told once a second while it lasts: the cache was read, and the job is not there."""
        now = time.monotonic()
        if me is self._thread and now - self._told_missing.get(watched.attempt, 0.0) >= 1.0:
            self._told_missing[watched.attempt] = now
            self._deliver(Missing(watched.attempt))

    def _once(self, watched: Watched, what: str, event: Event, me: threading.Thread) -> None:
        if me is self._thread and (watched.attempt, what) not in self._delivered:
            self._delivered.add((watched.attempt, what))
            self._deliver(event)
