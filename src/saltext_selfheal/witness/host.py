"""Where things lie on a machine. Tests put their own folders in the place of these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """The paths that the witness begins at."""

    proc: Path = Path("/proc")
    #: RethinkDB's packages start one server for each `*.conf` here. Where such a file does not name them, their init
    #: script gives the server `<data>/<name>/data` and `<run>/<name>/pid_file` (2.4.4).
    instances: Path = Path("/etc/rethinkdb/instances.d")
    data: Path = Path("/var/lib/rethinkdb")
    run: Path = Path("/var/run/rethinkdb")
    cgroups: Path = Path("/sys/fs/cgroup")
    kmsg: Path = Path("/dev/kmsg")
    #: Here only while systemd is this machine's init.
    systemd: Path = Path("/run/systemd/system")
