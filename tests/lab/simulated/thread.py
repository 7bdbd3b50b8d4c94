"""A node on a thread of the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.lab.simulated.node import Node
from tests.lab.simulated.settings import LOOPBACK, Settings


class SimulatedNode:
    """
    A node on a thread of its own, on 127.0.0.1 and a free port, for use in a `with` statement.

    Args:
        name: the server's name.
        password: of the user admin.
        users: more users and their passwords.
        tables: what it claims to have, as `db.table`.
        tls: (certificate file, key file) serves TLS on the driver port.
        batch: rows in one answer; None sends all at once.
        port, cluster_port: 0 is any free one.
        settings: any other field of Settings.
    """

    host = LOOPBACK
    CALL_S = 10.0

    def __init__(
        self,
        name: str = "db1",
        password: str = "",
        *,
        users: Mapping[str, str] | None = None,
        tables: Iterable[str] = ("runbook.runbook",),
        tls: tuple[Path, Path] | None = None,
        batch: int | None = None,
        port: int = 0,
        cluster_port: int = 0,
        **settings: Any,
    ):
        self.name = name
        self.id = str(uuid.uuid4())
        # RethinkDB shows its whole command line in server_status, a password given there included.
        argv = ("rethinkdb", *(("--initial-password", password) if password else ()))
        self._settings = dataclasses.replace(
            Settings(
                name=name,
                driver_port=port,
                cluster_port=cluster_port,
                users=(("admin", password), *(users or {}).items()),
                tables=tuple(tables),
                tls_cert=tls[0] if tls else None,
                tls_key=tls[1] if tls else None,
                argv=argv,
            ),
            **settings,
        )
        self._batch = batch
        self._moved = threading.Condition()
        self._ready = threading.Event()
        self._trouble: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._node: Node

    # Life.

    def start(self) -> None:
        self._ready.clear()
        self._trouble = None
        self._thread = threading.Thread(
            target=self._run, name=f"simulated-{self.name}", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._trouble is not None:
            self._thread.join()
            raise self._trouble

    def stop(self) -> None:
        """Closes everything; returns when the thread has ended."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
        self._thread = None

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as exc:
            self._trouble = exc
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._node = Node(self._settings, self.id, on_change=self._notify)
        self._node.batch = self._batch
        try:
            await self._node.start()
            self._ready.set()
            await self._end.wait()
        finally:
            await self._node.stop()

    def __enter__(self) -> SimulatedNode:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _notify(self) -> None:
        with self._moved:
            self._moved.notify_all()

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        async def call() -> Any:
            return function(*arguments, **options)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(self.CALL_S)

    # What a test looks at.

    @property
    def port(self) -> int:
        return self._node.server.reql_port

    @property
    def cluster_port(self) -> int:
        return self._node.server.cluster_port

    @property
    def connections(self) -> int:
        """Open right now."""
        return len(self._node.open)

    @property
    def dials(self) -> int:
        """Accepted since the start."""
        return self._node.dials

    @property
    def logins(self) -> int:
        """Handshakes that came to their good end."""
        return self._node.logins

    @property
    def queries(self) -> int:
        """Received, whether answered or not."""
        return self._node.queries

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
        """Until the condition (on the numbers above) holds; False when it does not in time."""
        with self._moved:
            return self._moved.wait_for(condition, timeout_s)

    # What a test does.

    def set_fault(
        self, name: str, *, on_existing: str = "keep", add: bool = False, **options: Any
    ) -> None:
        """Instead of the faults that are set, or with `add` beside them; in force on return."""
        self._call(self._node.set_fault, name, on_existing=on_existing, add=add, **options)

    def clear(self) -> None:
        """All is well again; what stood still goes on."""
        self._call(self._node.clear)

    @contextlib.contextmanager
    def faulty(self, name: str, **options: Any) -> Iterator[SimulatedNode]:
        """A fault for the length of a `with` block."""
        self.set_fault(name, **options)
        try:
            yield self
        finally:
            self.clear()

    def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """What the control socket of a process takes, and answers."""
        status: dict[str, Any] = self._call(self._node.command, command)
        return status

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What it has stored in this table, in the order in which it came."""
        found: list[dict[str, Any]] = self._call(
            lambda: list(self._node.rows.get(table, {}).values())
        )
        return found

    def insert(self, table: str, row: dict[str, Any]) -> None:
        """As if an application had."""
        assert self._call(self._node.keep, table, row)

    def renew_certificate(self, cert: Path, key: Path) -> None:
        """Who connects from now on sees this one."""
        assert self._node.tls is not None
        self._call(self._node.tls.load_cert_chain, cert, key)

    def drop_connections(self) -> None:
        self._call(self._node.drop_connections)

    def stop_listening(self) -> None:
        """Dials are refused; open connections stay."""
        self._call(self._node.shut_driver_port, True)

    def start_listening(self) -> None:
        """Undoes stop_listening, on the same port."""
        self._call(self._node.shut_driver_port, False)

    def join(self, *others: SimulatedNode) -> None:
        """Makes this node know others, as `join` lines would."""
        self._call(self._node.cluster.know, [(other.host, other.cluster_port) for other in others])


def acquaint(*nodes: SimulatedNode) -> None:
    """Makes a cluster of running nodes: everyone knows everyone."""
    for node in nodes:
        node.join(*(other for other in nodes if other is not node))
