"""Decides when an application calls for help: how long its cluster has failed, and when it has asked last.

Once a `Help` is made, it neither blocks the application nor raises an exception in it. A call runs on a daemon thread,
and its result goes to ``on_help``. Databases and anything of Salt do not belong here.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unanswered
from dataclasses import dataclass, field
from typing import Any

from ..driver.text import plain
from . import doors
from .doors import HelpFailed, HelpUnknown
from .settings import BadSettings

log = logging.getLogger(__name__)

#: If it is not known whether a call arrived, it is made again after these times. The id stays the same, so it has only
#: one effect.
REPEAT_AFTER_S = (1.0, 4.0)
#: If nothing has failed for this long, the next failure belongs to a new outage.
GAP_S = 300.0

_CLUSTER = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True)
class Helped:
    """The result of one call for help."""

    cluster: str
    action: str
    request: str  #: its id, by which it is found in the healer's history
    reply: str  #: accepted, joined, held, refused, stored, sent; or failed, unknown
    why: str = ""
    incident: str | None = None
    took_s: float = 0.0
    tries: int = 1

    @property
    def ok(self) -> bool:
        """Whether the healer has the request."""
        return self.reply in ("accepted", "joined", "held", "stored", "sent")

    def __str__(self) -> str:
        told = f"{self.action} of {self.cluster}: {self.reply}"
        told += f" ({self.incident})" if self.incident else ""
        return f"{told}: {self.why}" if self.why else told


@dataclass
class _Outage:
    """An outage of one cluster, as this process sees it. Times are those of the helper's clock."""

    since: float | None = None
    last: float = 0.0
    called: dict[str, float] = field(default_factory=dict)
    calling_until: float | None = None


#: Calls for the same action are not closer, whatever the application says.
AGAIN_AT_LEAST_S = 1.0


class Calls:
    """Remembers when help was called for. There is one for the process, so that its threads call as one."""

    def __init__(self) -> None:
        self._pid = 0
        self.own()

    def own(self) -> None:
        """Begin anew after a fork: a thread that does not exist any more may have held the lock."""
        if self._pid != os.getpid():
            self.lock = threading.Lock()
            self.settled = threading.Condition(self.lock)
            self.outages: dict[str, _Outage] = {}
            self._pid = os.getpid()

    def outage(self, cluster: str) -> _Outage:
        """The cluster's outage. The caller must hold the lock."""
        return self.outages.setdefault(cluster, _Outage())


CALLS = Calls()


def _on_a_daemon_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="selfheal-help", daemon=True).start()


class Help:
    """Calls for help once a cluster has failed for long enough.

    Args:
        via: a `SaltAPI` or a `Webhook`.
        cluster: its name in the healer's settings.
        highstate_after, restart_after: seconds since the first failure; None: never ask for it.
        again_after: seconds from one call to the next for the same action, whatever its result was.
        on_help: gets a `Helped` for each call, on the thread that made the call.
        calls: where calls are remembered; default: one place for the whole process.
        clock, start: for tests.
    """

    def __init__(
        self,
        via: Any,
        cluster: str,
        *,
        highstate_after: float | None = 300.0,
        restart_after: float | None = 600.0,
        again_after: float = 600.0,
        on_help: Callable[[Helped], None] | None = None,
        calls: Calls | None = None,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _on_a_daemon_thread,
    ) -> None:
        if not isinstance(cluster, str) or not _CLUSTER.fullmatch(cluster):
            raise BadSettings(f"cluster: found {cluster!r:.80}; allowed: a configured cluster")
        if not callable(getattr(via, "ask", None)):
            raise BadSettings("via: allowed: a SaltAPI or a Webhook")
        times = {"highstate_after": highstate_after, "restart_after": restart_after}
        for name, value in {**times, "again_after": again_after}.items():
            wrong = not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0
            if wrong and (value is not None or name == "again_after"):
                raise BadSettings(f"{name}: found {value!r:.40}; allowed: seconds")
        if again_after < AGAIN_AT_LEAST_S:
            allowed = f"at least {AGAIN_AT_LEAST_S:g} seconds"
            raise BadSettings(f"again_after: found {again_after!r:.40}; allowed: {allowed}")
        self.via = via
        self.cluster = cluster
        self.on_help = on_help
        self._after = {"highstate": highstate_after, "restart": restart_after}
        self._again_s = float(again_after)
        self._calls = CALLS if calls is None else calls
        self._clock = clock
        self._start = start

    def __repr__(self) -> str:
        return f"Help({self.via!r}, {self.cluster!r})"

    def well(self) -> None:
        """The cluster serves. The next failure begins a new outage."""
        self._calls.own()
        with self._calls.lock:
            self._calls.outage(self.cluster).since = None

    def failed(self, reason: str, not_before_s: float = 0.0) -> None:
        """The cluster has failed again. Makes the call that is due, if any. Returns at once and raises nothing.

        ``not_before_s``: no call is due before the outage has lasted for so long.
        """
        try:
            due = self._due(not_before_s)
        except Exception:
            log.exception("whether help is due for %s", self.cluster)
            return
        if due is not None:
            self._call(*due, reason)

    def _due(self, not_before_s: float) -> tuple[str, float] | None:
        """The action to ask for now, and until when that call may take. It is noted as called. None if none is due."""
        self._calls.own()
        with self._calls.lock:
            outage = self._calls.outage(self.cluster)
            now = self._clock()
            if outage.since is None or now - outage.last > GAP_S:
                outage.since = now
            outage.last = now
            if outage.calling_until is not None and now < outage.calling_until:
                return None
            overdue = {}
            for action, after in self._after.items():
                if after is None:
                    continue
                due = outage.since + max(after, not_before_s)
                if action in outage.called:
                    due = max(due, outage.called[action] + self._again_s)
                if now >= due:
                    overdue[action] = now - due
            if not overdue:
                return None
            action = max(overdue, key=lambda name: overdue[name])
            outage.called[action] = now
            outage.calling_until = now + doors.CALL_S
            return action, outage.calling_until

    def _call(self, action: str, until: float, reason: str) -> None:
        """Make a call on a thread of its own."""
        request = uuid.uuid4().hex
        try:
            self._start(lambda: self._make(action, until, reason, request))
        except Exception as exc:  # no more threads
            self._done(until)
            self._tell(Helped(self.cluster, action, request, "failed", plain(exc)))

    def _make(self, action: str, until: float, reason: str, request: str) -> None:
        began = time.monotonic()
        told: Future[dict[str, Any]] = Future()
        try:
            # If the call takes too long, its thread is left behind: a header that comes in byte by byte has no timeout.
            _on_a_daemon_thread(lambda: told.set_result(self._ask(action, reason, request)))
            what = told.result(doors.CALL_S)
        except Unanswered:
            what = {
                "request": request,
                "reply": "unknown",
                "why": f"no answer in {doors.CALL_S:g} s",
            }
        except RuntimeError as exc:  # no more threads
            what = {"request": request, "reply": "failed", "why": plain(exc)}
        try:
            self._tell(Helped(self.cluster, action, took_s=time.monotonic() - began, **what))
        finally:
            self._done(until)

    def _ask(self, action: str, reason: str, request: str) -> dict[str, Any]:
        """Ask through the door. If it is not known whether the call arrived, it is repeated."""
        ends = time.monotonic() + doors.CALL_S
        # A minion gives each call a new id. So a repeated call would be a second request, and none is repeated.
        repeats = () if getattr(self.via, "client", "") == "local" else REPEAT_AFTER_S
        for tries, pause_s in enumerate((*repeats, None), 1):
            try:
                answer = self.via.ask(self.cluster, action, plain(reason, 400), request)
                return {
                    "request": plain(answer.get("request") or request, 100),
                    "reply": plain(answer.get("reply"), 40),
                    "why": plain(answer.get("why") or ""),
                    "incident": plain(answer.get("incident") or "", 100) or None,
                    "tries": tries,
                }
            except HelpUnknown as exc:
                if pause_s is None or time.monotonic() + pause_s > ends:
                    return {"request": request, "reply": "unknown", "why": str(exc), "tries": tries}
                time.sleep(pause_s)
            except HelpFailed as exc:
                return {"request": request, "reply": "failed", "why": str(exc), "tries": tries}
            except Exception as exc:
                why = f"{type(exc).__name__}: {plain(exc)}"
                return {"request": request, "reply": "failed", "why": why, "tries": tries}
        raise AssertionError("unreachable")

    def _done(self, until: float) -> None:
        with self._calls.lock:
            outage = self._calls.outage(self.cluster)
            if outage.calling_until == until:  # if it differs, another call has begun meanwhile
                outage.calling_until = None
            self._calls.settled.notify_all()

    def _tell(self, helped: Helped) -> None:
        log.log(logging.INFO if helped.ok else logging.WARNING, "help: %s", helped)
        if self.on_help is None:
            return
        try:
            self.on_help(helped)
        except Exception:
            log.exception("on_help failed")

    def wait(self, timeout_s: float) -> bool:
        """Wait until no call is being made, for a program that is about to end. False if one is still being made."""
        self._calls.own()
        with self._calls.lock:
            return self._calls.settled.wait_for(
                lambda: self._calls.outage(self.cluster).calling_until is None, timeout_s
            )
