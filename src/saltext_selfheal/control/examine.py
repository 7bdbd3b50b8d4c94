"""What the server is before anything is touched, and the reasons to touch nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..witness import processes
from ..witness.asking import Deadline, Question
from ..witness.host import Host
from ..witness.manager import Manager
from ..witness.search import UNKNOWN, Found, Search
from . import family, leftovers
from .family import Family
from .grip import Grip
from .order import Order, Patience, Refused
from .services import Services

_TRIES = 3  #: a server that drops its rights, or ends, changes while it is looked at


@dataclass
class Sight:
    """How the server's processes are looked at."""

    order: Order
    services: Services
    grip: Grip
    patience: Patience
    host: Host
    config: str | None = None
    manager: Manager | None = field(default=None, init=False)

    def look(self) -> Found:
        """Ask the manager, and search the processes."""
        self.manager = self.services.look()
        within_s = self.patience.look_s
        search = Search(
            self.host, self.order.port, Deadline(within_s), self.manager, self.config or None
        )
        return Question(search.find).answer(
            within_s, Found(why="the list of processes could not be read in time")
        )

    def family(self, found: Found) -> Family:
        """The server's processes, and other servers for this port. Raises Refused if they are not to be ended."""
        assert found.process is not None
        within_s = self.patience.look_s
        scan = Question(processes.scan, self.host.proc, Deadline(within_s)).answer(within_s, None)
        if scan is None:
            raise Refused("the list of processes could not be read in time")
        own = family.own(scan)
        made = Question(family.of, self.host, scan, found.process, self.order.port).answer(
            within_s, None
        )
        if made is None:
            raise Refused("the options of the processes could not be read in time")
        if own & {one.pid for one in made.members}:
            raise Refused(f"process {found.process.pid} is this minion's own")
        return made

    def hold(self, members: Family) -> None:
        """Hold all that lives of it. A helper may have ended meanwhile."""
        for one in members.members:
            self.grip.take(one)


def examined(sight: Sight) -> Found:
    """The server as it is. Its processes are held. Raises Refused if it must not be touched."""
    sight.services.check()
    for _ in range(_TRIES):
        found = sight.look()
        if found.state == UNKNOWN and sight.services.unit is None:
            raise Refused(f"it cannot be told which process is the server: {found.why}")
        if found.process is None:
            _check_pid_file(sight, found, set())
            return found
        members = sight.family(found)
        _check_clear(sight, members)
        _check_unit(sight, found)
        _check_pid_file(sight, found, {one.pid for one in members.members})
        if sight.grip.take(found.process):
            sight.hold(members)
            return found
    raise Refused("the server's processes change while they are looked at")


def _check_clear(sight: Sight, members: Family) -> None:
    """Where several servers share the port, only systemd's main process tells which one is meant."""
    if not members.others or (sight.manager and sight.manager.main_pid):
        return
    pids = sorted({members.members[0].pid, *(one.pid for one in members.others)})
    raise Refused(
        f"several servers have driver port {sight.order.port} (processes {', '.join(map(str, pids))}), and it cannot "
        f"be told which one {sight.order.service} runs"
    )


def _check_unit(sight: Sight, found: Found) -> None:
    """A process of another unit would be ended here, and not be started again."""
    assert found.process is not None
    theirs = family.unit_of(sight.host.proc, found.process.pid)
    if sight.services.unit is None or theirs is None or theirs == sight.services.unit:
        return
    # An init script that was called by the minion has left its server in the minion's own unit.
    if theirs != family.unit_of(sight.host.proc, "self"):
        raise Refused(
            f"process {found.process.pid} with driver port {sight.order.port} belongs to {theirs}, not to "
            f"{sight.services.unit}"
        )


def _check_pid_file(sight: Sight, found: Found, pids: set[int]) -> None:
    """RethinkDB's init script signals whatever process the pid file names (2.4.4)."""
    named = Question(leftovers.owner, found.server, sight.host.proc).answer(
        sight.patience.file_s, None
    )
    if named is not None and named[1] not in pids:
        path, pid = named
        raise Refused(
            f"pid file {path} names process {pid}, which is not the server: a stop would signal that one. "
            "Remove the file"
        )
