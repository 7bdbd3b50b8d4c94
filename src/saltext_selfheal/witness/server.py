"""The options that a RethinkDB server was given, or would be: its command line, then its config file.

The grammar is RethinkDB's (2.4.4): `key=value` or `key`, `#` begins a comment, `join` may be repeated, and what stands
on the command line goes before the file. What it makes no sense of is skipped: the server refuses it, and says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..driver.argv import options as argv_options
from . import files
from .host import Host
from .processes import Process

DRIVER_PORT = 28015
CLUSTER_PORT = 29015
MOST_PEERS = 8
MOST_PEER_CHARS = 260

Options = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Server:
    """What the options say. None: it could not be told."""

    config: str | None = None
    driver_port: int | None = None
    cluster_port: int | None = None
    directory: Path | None = None
    log_file: Path | None = None
    pid_file: Path | None = None
    peers: tuple[str, ...] = ()
    #: The file, or the command line, names the driver port.
    names_port: bool = False
    #: Texts that nobody may be told.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: In front of the paths, where the server sees another file system than this process.
    root: Path | None = None

    def here(self, path: Path) -> Path:
        """Where a path of the server lies for this process."""
        return self.root / path.relative_to("/") if self.root else path


def from_config(data: bytes) -> dict[str, list[str]]:
    """The options of a config file."""
    found: dict[str, list[str]] = {}
    for line in files.text(data).splitlines():
        name, equals, value = line.partition("#")[0].partition("=")
        if name.strip():
            found.setdefault(name.strip(), []).append(value.strip() if equals else "")
    return found


def of_process(host: Host, process: Process) -> Server:
    """The options of a server that runs."""
    base = host.proc / str(process.pid)
    return of_argv(
        process.argv,
        folder=files.link(base / "cwd"),
        root=base / "root" if _elsewhere(host.proc, base) else None,
        short=process.is_rethinkdb,
    )


def of_argv(
    argv: Sequence[str], folder: str | None = None, root: Path | None = None, short: bool = True
) -> Server:
    """The options behind a command line. ``folder``: where relative paths begin."""
    given = argv_options(argv, short)
    config = _path(given, "config-file", folder)
    named = "config-file" in given
    data = None
    if config is not None:
        data = files.head(Server(root=root).here(config))
    return _made(given, data, config, folder, root, unread=named and data is None)


def of_file(path: str, folder: str | None = None) -> Server:
    """The options in a config file, for a server that does not run."""
    return of_argv(("rethinkdb", "--config-file", path), folder)


def instances(host: Host, port: int) -> Server | None:
    """The one of the packages' config files whose server would listen on this port."""
    try:
        paths = sorted(host.instances.glob("*.conf"))[:100]
    except OSError:
        return None
    for path in paths:
        found = of_file(str(path))
        if found.driver_port == port:
            return _with_init_script(host, found, path.stem)
    return None


def _with_init_script(host: Host, found: Server, name: str) -> Server:
    """Add what the packages' init script would, if it is there."""
    directory = found.directory
    if directory is None and (host.data / name / "data").is_dir():
        directory = host.data / name / "data"
    log_file = found.log_file or (directory / "log_file" if directory else None)
    pid_file = found.pid_file or host.run / name / "pid_file"
    return replace(found, directory=directory, log_file=log_file, pid_file=pid_file)


def _made(
    given: Options,
    data: bytes | None,
    config: Path | None,
    folder: str | None,
    root: Path | None,
    unread: bool,
) -> Server:
    written: Options = from_config(data) if data is not None else {}
    options: Options = {**written, **given}
    directory = _path(options, "directory", folder)
    if directory is None and "directory" not in options and folder and not unread:
        directory = Path(folder) / "rethinkdb_data"  # its own default
    log_file = _path(options, "log-file", folder)
    # Without its file only what the command line says is known.
    driver, cluster = (
        None if unread and name not in given else _port(options, name, default)
        for name, default in (("driver-port", DRIVER_PORT), ("cluster-port", CLUSTER_PORT))
    )
    return Server(
        config=str(config) if config else None,
        driver_port=driver,
        cluster_port=cluster,
        directory=directory,
        log_file=log_file or (directory / "log_file" if directory else None),
        pid_file=_path(options, "pid-file", folder),
        peers=tuple(_peer(one) for one in [one for one in options.get("join", ()) if one][:MOST_PEERS]),
        names_port="driver-port" in options,
        secrets=tuple(one for one in options.get("initial-password", ()) if len(one) > 3),
        root=root,
    )  # fmt: skip


def _path(options: Options, name: str, folder: str | None) -> Path | None:
    """The absolute path that an option names; None without one, and if nobody knows where a relative one begins."""
    text = (options.get(name) or [""])[-1]
    if not text or "\0" in text:
        return None
    if not text.startswith("/"):
        if not folder or not folder.startswith("/"):
            return None
        text = f"{folder}/{text}"
    return Path(os.path.normpath(text))


def _port(options: Options, name: str, default: int) -> int | None:
    """The port that the option leads to. RethinkDB adds the offset to each port but 0, which means any."""
    numbers = []
    for text in (
        (options.get(name) or [str(default)])[-1],
        (options.get("port-offset") or ["0"])[-1],
    ):
        if not re.fullmatch(r"-?[0-9]{1,6}", text):
            return None
        numbers.append(int(text))
    port = sum(numbers)
    return port if numbers[0] and 0 < port < 65536 else None


def _peer(text: str) -> str:
    """`host:port` of one `join`."""
    text = text.strip()[:MOST_PEER_CHARS]
    if re.search(r"\]:\d+$", text) or re.fullmatch(r"[^:\[\]]+:\d+", text):
        return text
    bare = text.strip("[]")
    return f"[{bare}]:{CLUSTER_PORT}" if ":" in bare else f"{bare}:{CLUSTER_PORT}"


def _elsewhere(proc: Path, base: Path) -> bool:
    """Whether the process sees another file system than this one: a container, or systemd's `PrivateTmp`."""
    mine, its = files.link(proc / "self" / "ns" / "mnt"), files.link(base / "ns" / "mnt")
    return mine is not None and its is not None and mine != its
