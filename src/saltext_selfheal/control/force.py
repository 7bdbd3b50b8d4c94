"""`force_restart`: the whole of it, from the order to the new process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..witness import processes
from ..witness.asking import Deadline, Question
from ..witness.host import Host
from ..witness.processes import Process
from ..witness.search import UNKNOWN, Found
from . import leftovers, turn
from .examine import Sight, examined
from .family import alike
from .grip import Grip, Kernel, identity
from .order import (
    KILLED,
    NONE,
    ORDERLY,
    STARTED,
    Failed,
    Order,
    Patience,
    Refused,
    Stuck,
    told,
)
from .services import Answer, Functions, Services

_STEP_S = 0.05
_ROUNDS = 4  #: helpers that outlive their server are found one after the other
_CLOCK_S = 0.05  #: the kernel counts start times in hundredths of a second


def force_restart(
    order: Order,
    functions: Functions,
    *,
    config: str | None = None,
    turns: Path | None = None,
    now: Callable[[], float] = time.time,
    host: Host | None = None,
    kernel: Kernel | None = None,
    patience: Patience | None = None,
) -> dict[str, Any]:
    """End the server and start it. Never raises for what it finds on the machine.

    ``config``: the path of the server's config file, if somebody has set it for this machine. ``turns``: a folder for a
    file that keeps a second order for this service out meanwhile.
    """
    host, patience = host or Host(), patience or Patience()
    grip = Grip(host.proc, kernel)
    services = Services(order.service, functions, patience)
    force = _Force(order, Sight(order, services, grip, patience, host, config))
    path = turns / f"selfheal_force_{order.service}.lock" if turns else None
    try:
        order.check_age(now())
        with turn.taken(path) as mine:
            if not mine:
                raise Refused(f"another order for {order.service} is being carried out here")
            return force.run()
    except Refused as exc:
        return told(False, NONE, f"{exc}; nothing was touched")
    finally:
        grip.close()


class _Force:
    """One order on its way."""

    def __init__(self, order: Order, sight: Sight) -> None:
        self._order, self._sight = order, sight
        self._services, self._grip, self._patience = sight.services, sight.grip, sight.patience
        self._deadline = Deadline(order.all_s)
        self._begun_s = processes.uptime_s(sight.host.proc)
        self._how = NONE
        self._killed: set[int] = set()
        self._notes: list[str] = []

    def run(self) -> dict[str, Any]:
        found = examined(self._sight)
        try:
            self._stop(found)
            new = self._rest(found)
            if new is None:
                self._clear(found)
                new = self._start()
        except Failed as exc:
            stuck = isinstance(exc, Stuck)
            return told(False, self._how, self._said(f"{exc}"), self._killed, stuck=stuck)
        runs = f"{self._order.service} runs as process {new.pid}"
        return told(True, self._how, self._said(runs), self._killed, new.pid)

    def _said(self, end: str) -> str:
        return "; ".join([*self._notes, end])

    # ------------------------------------------------------------ the end of the old one

    def _stop(self, found: Found) -> None:
        """The orderly stop, and the hard way if it has not helped by its deadline."""
        over = Deadline(self._order.stop_timeout_s)
        stopping = self._services.stop()
        answer = self._orderly(stopping, over, held=found.process is not None)
        if found.process is None:
            self._unseen(found, answer)
        elif self._grip.wait(0):
            self._how = ORDERLY
            self._notes.append("it has stopped in an orderly way")
        else:
            self._notes.append(_unsuccessful(answer, self._order.stop_timeout_s))
            self._hold_helpers(found)
            self._hard(over)
        if not stopping.over:
            # What was ended may have been all that the stop waited for.
            within_s = max(over.left_s(), self._patience.returns_s)
            if stopping.answer(within_s, None) is None:
                self._notes.append("its stop has still not returned")

    def _orderly(self, stopping: Question[Answer], over: Deadline, held: bool) -> Answer | None:
        """Wait for the stop. Returns early if it fails, or if all that was held is dead. None: it does not return."""
        while not over.over:
            if held and self._grip.wait(0):
                break
            if not stopping.over:
                stopping.answer(min(_STEP_S, over.left_s()), None)
                continue
            answer = stopping.answer(0, None)
            if answer is not None and answer.ok and held:
                self._grip.wait(over.left_s())  # the process may still be on its way down
            return answer or Answer(why="this minion may start no more threads")
        return stopping.answer(0, None)

    def _unseen(self, found: Found, answer: Answer | None) -> None:
        """No process is held: there is none, or only systemd knows which one it is."""
        if found.state != UNKNOWN:
            self._how = STARTED
            self._notes.append("no process of it was there")
            return
        self._notes.append(f"its process cannot be told ({found.why})")
        self._how = ORDERLY
        if answer is None or not answer.ok:
            self._notes.append(_unsuccessful(answer, self._order.stop_timeout_s))
            self._kill_unit()
            self._how = KILLED

    def _kill_unit(self) -> None:
        killed = self._services.kill()
        by = f"systemd was told to kill {self._services.unit}"
        self._notes.append(by if killed.ok else f"{by} ({killed.why})")
        self._grip.wait(self._patience.unit_s)

    def _hold_helpers(self, found: Found) -> None:
        """Hold also what the server has forked since it was looked at."""
        try:
            self._sight.hold(self._sight.family(found))
        except Refused as exc:
            raise Failed(str(exc)) from exc

    def _hard(self, over: Deadline) -> None:
        """End all that is held. Raises Failed if something survives."""
        doomed = {one.pid for one in self._grip.alive}
        if self._services.unit is not None:
            self._kill_unit()
        else:
            self._grip.send(signal.SIGTERM)
            # A stopped process takes no other signal until it goes on.
            self._grip.send(signal.SIGCONT)
            self._grip.wait(max(self._patience.term_s, over.left_s()))
        if self._grip.alive:
            self._grip.send(signal.SIGKILL)
            self._grip.wait(self._patience.kill_s)
        left = self._grip.alive
        self._killed |= doomed - {one.pid for one in left}
        self._how = KILLED if self._killed else NONE
        if left:
            states = ", ".join(f"{one.pid} (state {self._grip.status(one)})" for one in left)
            raise Stuck(
                f"process {states} cannot be killed: it survives SIGKILL, and nothing is started beside it"
            )
        self._notes.append(f"ended by signals: {', '.join(map(str, sorted(doomed)))}")

    def _rest(self, before: Found) -> Process | None:
        """End helpers that are left behind. The new process, if the service manager has started one meanwhile."""
        for _ in range(_ROUNDS):
            found = self._sight.look()
            process = found.process
            if process is None:
                self._check_ended(found, before)
                return None
            if self._is_new(process):
                new = self._stays(process)
                if new is not None:
                    return new
                continue
            if before.process is None or not alike(process, before.process):
                if self._grip.seen:
                    return None  # another server with this port; ours is dead
                raise Failed(f"process {process.pid} has turned up that was not there before")
            self._hold_helpers(found)
            if self._grip.alive:
                self._hard(Deadline(0))
        raise Failed("processes of it turn up again and again, and nothing is started beside them")

    def _check_ended(self, found: Found, before: Found) -> None:
        """What was held is dead. If nothing was, somebody must say that it has ended."""
        if found.state != UNKNOWN or self._grip.seen:
            return
        manager = self._sight.manager
        if manager is None or manager.running is not False:
            raise Failed(f"it cannot be told whether it has ended: {found.why}")

    def _clear(self, found: Found) -> None:
        """Remove its pid file."""
        gone = Question(leftovers.remove, found.server, self._sight.host.proc).answer(
            self._patience.file_s, None
        )
        if gone is not None:
            self._notes.append(f"its pid file {gone} is removed")

    # ------------------------------------------------------------ the new one

    def _is_new(self, process: Process) -> bool:
        fresh = process.started_s >= self._begun_s - _CLOCK_S
        return fresh and identity(process) not in self._grip.seen

    def _start(self) -> Process:
        """Start it, and see it run. What was ended is started whatever the time is."""
        over = Deadline(max(self._deadline.left_s(), self._patience.start_s))
        starting = self._services.start()
        appears: Deadline | None = None
        lasts: Deadline | None = None
        while True:
            answer = starting.answer(min(_STEP_S, over.left_s()), None)
            found = self._sight.look()
            process = found.process
            new = process if process is not None and self._is_new(process) else None
            if starting.over and appears is None:
                failed = answer is None or not answer.ok
                appears = Deadline(0 if failed else self._patience.appears_s)
            if new is not None:
                # A start may wait for more than the process, or for ever.
                lasts = lasts or Deadline(self._patience.appears_s)
                if starting.over or lasts.over or over.over:
                    return self._stays(new) or self._ended_at_once(new)
            elif (appears is not None and appears.over) or over.over:
                raise Failed(_not_started(self._order, starting, answer, found))
            if starting.over:
                time.sleep(_STEP_S)

    def _ended_at_once(self, new: Process) -> NoReturn:
        service = self._order.service
        raise Failed(f"{service} was started as process {new.pid} and ended at once")

    def _stays(self, new: Process) -> Process | None:
        """The new process, if it does not end at once."""
        time.sleep(self._patience.lives_s)
        again = self._sight.look().process
        return again if again is not None and self._is_new(again) else None


def _unsuccessful(answer: Answer | None, within_s: float) -> str:
    if answer is None:
        return f"its stop did not return within {within_s:g} s"
    if not answer.ok:
        return f"its stop failed ({answer.why})"
    return f"it lived on for {within_s:g} s although its stop has returned"


def _not_started(
    order: Order, starting: Question[Answer], answer: Answer | None, found: Found
) -> str:
    if not starting.over:
        why = f"the start of {order.service} does not return, and no new process of it is seen"
    elif answer is not None and not answer.ok:
        why = f"the start of {order.service} failed ({answer.why})"
    else:
        why = f"{order.service} was started, and no new process of it is seen"
    if found.state == UNKNOWN and found.why:
        why += f" ({found.why})"
    holder = found.holder
    return f"{why}; port {order.port} is held by process {holder.pid}" if holder else why
