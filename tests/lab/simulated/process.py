"""What runs in a process that is one node: its directory, its log, its end by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.lab.simulated.node import Node
from tests.lab.simulated.settings import Settings, StartError, read_config


def take_name() -> None:
    """The kernel calls the process what it calls a real one, in its log too, where there is such a file."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("rethinkdb", encoding="ascii")


def _locked_directory(directory: Path) -> int:
    """The descriptor that holds the lock, as RethinkDB takes it; a missing directory is made."""
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise StartError(f"Could not create directory '{directory}': {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise StartError(
            f"Directory '{directory}' is already in use,"
            " perhaps another instance of rethinkdb is using it."
        ) from exc
    return descriptor


def _write_something(directory: Path) -> None:
    """As a server does when it opens its data: one that has no room for that does not start."""
    path = directory / "simulated_start"
    try:
        path.write_bytes(b"\0" * 4096)
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise StartError(f"error: Ran out of disk space.  (path = {path})") from exc
        raise
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _server_id(directory: Path) -> str:
    """The id in the directory, made at the first start."""
    path = directory / "simulated_id"
    try:
        return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
    except FileNotFoundError:
        server_id = str(uuid.uuid4())
        path.write_text(server_id + "\n", encoding="ascii")
        return server_id
    except ValueError as exc:
        raise StartError(f"error: the metadata file '{path}' is damaged: {exc}") from exc


def _log(settings: Settings, line: str) -> None:
    if settings.log_file is not None:
        with settings.log_file.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} notice: {line}\n")
    print(line, flush=True)


async def _run(settings: Settings, server_id: str) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    node = Node(settings, server_id)
    starting = asyncio.ensure_future(node.start())
    ending = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            _log(settings, f'Server ready, "{node.server.name}" {node.server.id}')
            await ending
    finally:
        starting.cancel()
        ending.cancel()
        await asyncio.gather(starting, ending, return_exceptions=True)
        await node.stop()


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 after SIGTERM or SIGINT, 1 when the node could not start."""
    if len(arguments) != 2 or arguments[0] != "--config-file":
        print("usage: python -m tests.lab.simulated --config-file PATH", file=sys.stderr)
        return 1
    descriptor = None
    try:
        settings = read_config(Path(arguments[1]), argv=("rethinkdb", *arguments))
        assert settings.directory is not None
        descriptor = _locked_directory(settings.directory)
        _write_something(settings.directory)
        asyncio.run(_run(settings, _server_id(settings.directory)))
    except StartError as exc:
        print(exc, file=sys.stderr)
        return 1
    except OSError as exc:  # a log file or a directory that cannot be written
        print(f"error: {exc}", file=sys.stderr)
        return 1
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return 0
