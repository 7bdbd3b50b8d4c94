"""Which process is the server that the caller means, and who listens on its port.

A name alone is not believed: several servers may run on one machine, and `rethinkdb dump` is none.
It is, in this order:

1. the main process that systemd names, or what has the form of a server below it;
2. a process of RethinkDB's executable, or one with `--config-file` or `--driver-port`, whose driver port is the one
   asked for. Of several the one that listens, then the oldest that is no child of another: a server forks helpers;
3. the process that listens on the port, if its command line speaks of RethinkDB.

Gone it is only if all of /proc could be read twice and nothing was in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..driver import argv
from . import files, processes, server, sockets
from .asking import Deadline
from .host import Host
from .manager import Manager
from .processes import Process, Scan
from .server import Server

RUNS, GONE, UNKNOWN = "runs", "gone", "unknown"


@dataclass(frozen=True)
class Found:
    """Process and options of the server."""

    state: str = UNKNOWN
    process: Process | None = None
    server: Server = field(default_factory=Server)
    listens: bool | None = None
    cluster_listens: bool | None = None
    holder: Process | None = None
    at: str = ""  #: the address on which it listens, if it can be dialled from here
    why: str | None = None  #: of `unknown`


@dataclass(frozen=True)
class Search:
    """One search, with all that it may use."""

    host: Host
    port: int
    deadline: Deadline
    manager: Manager | None = None
    config: str | None = None  #: the option of that name: a path

    def find(self) -> Found:
        """Look for the process, and for whoever listens on its port."""
        idle = self._idle()
        found = self._once(idle)
        # A process that was forked behind the reader's back would not be seen, so a no is asked for twice.
        return found if found.state != GONE else self._once(idle)

    def _idle(self) -> Server:
        """The options of the server if it does not run."""
        manager = self.manager
        if manager and "config-file" in argv.options(manager.command):
            return server.of_argv(manager.command, manager.folder)
        if self.config:
            return server.of_file(self.config)
        return server.instances(self.host, self.port) or Server()

    def _once(self, idle: Server) -> Found:
        scan = processes.scan(self.host.proc, self.deadline)
        alive = {pid: one for pid, one in scan.processes.items() if not one.dead}
        options = {
            pid: server.of_process(self.host, one) for pid, one in alive.items() if _may_be(one)
        }
        sure = {pid for pid, one in options.items() if self._matches(alive[pid], one, idle)}
        # What is RethinkDB, and whose port is not known: perhaps its config file is gone.
        doubtful = {
            pid for pid, one in options.items()
            if alive[pid].is_rethinkdb and one.driver_port is None
        }  # fmt: skip
        inodes = frozenset(sockets.places(self.host.proc / "net", self.port) or ())
        sure |= {pid for pid in doubtful if self._holds(pid, inodes)}
        chosen = self._chosen(scan, alive, sure, inodes)
        if chosen is None:
            return self._not_found(scan, alive, doubtful, inodes, idle)
        return self._running(scan, alive[chosen], options.get(chosen))

    def _matches(self, process: Process, found: Server, idle: Server) -> bool:
        """Whether this is a server for the port, or one of the very config file that is meant."""
        same = found.config is not None and found.config == idle.config and found.root is None
        if same and found.driver_port in (self.port, None):
            return True
        return found.driver_port == self.port and (process.is_rethinkdb or found.names_port)

    def _holds(self, pid: int, inodes: frozenset[int]) -> bool | None:
        if not inodes:
            return False
        return sockets.holds(self.host.proc, pid, inodes, self.deadline)

    def _chosen(
        self, scan: Scan, alive: dict[int, Process], sure: set[int], inodes: frozenset[int]
    ) -> int | None:
        main = self.manager.main_pid if self.manager else None
        if main in alive:
            assert main is not None
            below = {pid for pid in sure if pid == main or main in scan.ancestors(pid)}
            return self._first(scan, alive, below, inodes) if below else main
        return self._first(scan, alive, sure, inodes) if sure else None

    def _first(
        self, scan: Scan, alive: dict[int, Process], among: set[int], inodes: frozenset[int]
    ) -> int:
        """The one of several that is the server itself."""
        # Not `sudo rethinkdb …`, nor a shell around it.
        among = {pid for pid in among if alive[pid].is_rethinkdb} or among
        among = {pid for pid in among if not among & set(scan.ancestors(pid))} or among
        return min(among, key=lambda pid: (not self._holds(pid, inodes), alive[pid].started_s, pid))

    def _running(self, scan: Scan, process: Process, options: Server | None) -> Found:
        options = options or server.of_process(self.host, process)
        family = {
            process.pid,
            *(pid for pid in scan.processes if process.pid in scan.ancestors(pid)),
        }
        net = self.host.proc / str(process.pid) / "net"
        listens, places = self._listens(net, process.pid, self.port)
        cluster = None
        if options.cluster_port is not None:
            cluster, _ = self._listens(net, process.pid, options.cluster_port)
        # An address of its own may leave room for others on the same port.
        holder = (
            self._owner(scan, frozenset(places), family)
            if places and (not listens or len(places) > 1)
            else None
        )
        at = self._place(places, process.pid) if listens else ""
        return Found(RUNS, process, options, listens, cluster, holder, at)

    def _place(self, places: Mapping[int, str], pid: int) -> str:
        """The address on which this process listens. Empty: it is in another network namespace, or cannot be told."""
        namespaces = [files.link(self.host.proc / str(who) / "ns" / "net") for who in (pid, "self")]
        if None in namespaces or namespaces[0] != namespaces[1]:
            return ""
        held = (ip for inode, ip in places.items() if self._holds(pid, frozenset({inode})))
        return next(held, "")

    def _listens(self, net: Path, pid: int, port: int) -> tuple[bool | None, Mapping[int, str]]:
        """Whether the process listens on the port, and all sockets that do, with their addresses."""
        places = sockets.places(net, port)
        if places is None:
            return None, {}
        held = self._holds(pid, frozenset(places))
        # Where its descriptors may not be read, the port alone has to tell.
        return bool(places) if held is None else held, places

    def _owner(
        self, scan: Scan, inodes: frozenset[int], without: Iterable[int] = ()
    ) -> Process | None:
        """The oldest other process that holds one of these sockets."""
        ours = set(without)
        for process in sorted(scan.processes.values(), key=lambda one: (one.started_s, one.pid)):
            if process.pid not in ours and not process.dead and self._holds(process.pid, inodes):
                return process
        return None

    def _not_found(
        self, scan: Scan, alive: dict[int, Process], doubtful: set[int], inodes: frozenset[int], idle: Server
    ) -> Found:  # fmt: skip
        owner = self._owner(scan, inodes) if inodes else None
        if owner is not None and any("rethinkdb" in word for word in owner.argv[:64]):
            return self._running(scan, owner, None)
        why = scan.gap
        if why is None and doubtful:
            why = f"process {min(doubtful)} may be it, but its options cannot be read"
        if why is None and inodes and owner is None:
            why = f"something listens on port {self.port}, and its process cannot be seen"
        if why is None and self.deadline.over:
            why = "the list of processes could not be read in time"
        state = UNKNOWN if why else GONE
        no = False if state == GONE else None
        return Found(state, None, idle, no, no, owner, why=why)


def _may_be(process: Process) -> bool:
    return process.is_rethinkdb or any(
        word.split("=")[0] in ("--config-file", "--driver-port") for word in process.argv
    )
