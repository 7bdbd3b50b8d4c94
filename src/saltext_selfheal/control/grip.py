"""Processes held by pidfds: a signal through one reaches that very process or nobody, and never a later one of its pid.

The pidfd is opened first. Only then is it verified that the process behind the pid is still the one that was found: by its
start time, its executable and its owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..witness import processes
from ..witness.processes import Process
from .order import Failed

_STEP_S = 0.02
_GONE = (FileNotFoundError, ProcessLookupError, NotADirectoryError)
#: Kernels before 5.3 have no pidfds (RHEL 8), and a sandbox may forbid them.
_WITHOUT = (errno.ENOSYS, errno.EPERM, errno.EACCES)

Identity = tuple[int, float]  #: pid and start time


def identity(process: Process) -> Identity:
    return process.pid, process.started_s


class Kernel:
    """What the kernel offers for this. Tests put another one in its place."""

    def open(self, pid: int) -> int:
        return os.pidfd_open(pid)

    def send(self, fd: int, number: int) -> None:
        signal.pidfd_send_signal(fd, number)

    def ended(self, fds: Sequence[int], within_s: float) -> set[int]:
        """Those whose processes are dead. Returns at the first death, or when the time is over."""
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll(max(0, round(within_s * 1000)))}


@dataclass(frozen=True)
class Held:
    """One process. Without a pidfd it can be watched, and not be signalled."""

    process: Process
    fd: int | None


def same(found: Process, now: Process) -> bool:
    """Whether the process that has this pid now is the one that was found."""
    return (
        identity(found) == identity(now)
        and found.owner == now.owner
        and _program(found) == _program(now)
    )


def _program(process: Process) -> str | None:
    # A package that is upgraded under a server leaves " (deleted)" behind.
    return process.executable.removesuffix(" (deleted)") if process.executable else None


class Grip:
    """The processes of one server that are held, and what has become of them."""

    def __init__(self, proc: Path, kernel: Kernel | None = None) -> None:
        self._proc, self._kernel = proc, kernel or Kernel()
        self._alive: dict[Identity, Held] = {}
        self.seen: set[Identity] = set()  #: all that were ever held

    @property
    def alive(self) -> list[Process]:
        """Those that were not seen dead."""
        return [held.process for held in self._alive.values()]

    def take(self, process: Process) -> bool:
        """Hold it. False if it is not the process any more that was found: it has ended, or is another one."""
        if identity(process) in self._alive:
            return True
        try:
            fd = self._open(process.pid)
        except _GONE:
            return False
        try:
            now = processes.look(self._proc, process.pid)
        except (OSError, ValueError):
            now = None
        if now is None or now.dead or not same(process, now):
            if fd is not None:
                os.close(fd)
            return False
        self._alive[identity(process)] = Held(process, fd)
        self.seen.add(identity(process))
        return True

    def _open(self, pid: int) -> int | None:
        try:
            return self._kernel.open(pid)
        except AttributeError:  # a Python without pidfds
            return None
        except OSError as exc:
            if exc.errno in _WITHOUT:
                return None
            raise

    def send(self, number: signal.Signals) -> None:
        """Signal all that live. Raises Failed if one of them cannot be signalled safely."""
        for held in list(self._alive.values()):
            pid = held.process.pid
            if held.fd is None:
                raise Failed(f"process {pid} lives on, and this kernel has no pidfds")
            if held.process.executable is None:
                raise Failed(f"process {pid} lives on, and its executable may not be read")
            try:
                self._kernel.send(held.fd, number)
            except ProcessLookupError:
                continue  # it has ended by itself
            except OSError as exc:
                raise Failed(f"process {pid} lives on, and may not be signalled: {exc}") from exc

    def wait(self, within_s: float) -> bool:
        """Whether all are dead within this time."""
        until = time.monotonic() + within_s
        while True:
            left_s = max(0.0, until - time.monotonic())
            self._let_go(left_s)
            if not self._alive:
                return True
            if not left_s:
                return False

    def _let_go(self, within_s: float) -> None:
        """Let go of those that are dead. Returns at the first death, or when the time is over."""
        fds = {held.fd: one for one, held in self._alive.items() if held.fd is not None}
        unheld = [one for one, held in self._alive.items() if held.fd is None]
        dead = {fds[fd] for fd in self._ended(list(fds), _STEP_S if unheld else within_s)}
        dead |= {one for one in unheld if not self._lives(one)}
        for one in dead:
            fd = self._alive.pop(one).fd
            if fd is not None:
                os.close(fd)

    def _ended(self, fds: list[int], within_s: float) -> set[int]:
        if fds:
            return self._kernel.ended(fds, within_s)
        time.sleep(within_s if self._alive else 0.0)
        return set()

    def _lives(self, one: Identity) -> bool:
        try:
            now = processes.look(self._proc, one[0])
        except _GONE:
            return False
        except (OSError, ValueError):
            return True
        return not now.dead and identity(now) == one

    def status(self, process: Process) -> str:
        """The kernel's letter for how it is now."""
        with contextlib.suppress(OSError, ValueError):
            return processes.look(self._proc, process.pid).status
        return process.status

    def close(self) -> None:
        """Let go of all."""
        for held in self._alive.values():
            if held.fd is not None:
                os.close(held.fd)
        self._alive.clear()
