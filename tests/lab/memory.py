"""A control group with little memory: the kernel kills what needs more. Needs root and a memory controller."""

import contextlib
import os
import time
import uuid
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V1 = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
V2 = ("memory.max", "memory.swap.max")


class NoGroup(Exception):
    """No such group can be made here; the text says why."""


class SmallMemory:
    """
    A group below this process's own, so that nobody leaves what this process is held in.

    ``limit_bytes`` counts memory and swap together.
    """

    def __init__(self, limit_bytes):
        if os.geteuid() != 0:
            raise NoGroup("only root makes control groups")
        own, limits = _own()
        self.path = own / f"selfheal-lab-{uuid.uuid4().hex[:8]}"
        try:
            self.path.mkdir()
        except OSError as exc:
            raise NoGroup(f"no control group can be made in {own}: {exc.strerror}") from exc
        try:
            memory, swap = (self.path / name for name in limits)
            memory.write_text(str(limit_bytes))
            if swap.exists():  # not where the kernel counts no swap
                swap.write_text("0" if limits is V2 else str(limit_bytes))
        except OSError as exc:
            self.path.rmdir()
            raise NoGroup(f"{self.path} takes no limit of memory: {exc.strerror}") from exc

    def take(self, pid):
        """From now on the process belongs to it."""
        (self.path / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self):
        """How many processes the kernel has killed in it."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(FileNotFoundError):
                lines = (self.path / name).read_text().splitlines()
                return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0

    def remove(self):
        """Once the last of its processes has ended."""
        give_up_at = time.monotonic() + 10
        while True:
            try:
                return self.path.rmdir()
            except OSError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.05)


def _own():
    """The folder of this process's group, and the names of the limits there."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            return ROOT / "memory" / path.lstrip("/"), V1
    for number, _, path in groups:
        given = ROOT / path.lstrip("/") / "cgroup.subtree_control"
        if number == "0" and given.exists() and "memory" in given.read_text().split():
            return given.parent, V2
    raise NoGroup("no memory controller is given to groups below this process's own")
