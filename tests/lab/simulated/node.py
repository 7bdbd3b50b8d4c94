"""The node: its ports, its counters, its rows, and the faults that are set."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.simulated.cluster import CLUSTER_LOOK_TTL_S, Cluster, Server, View
from tests.lab.simulated.connection import DriverConnection
from tests.lab.simulated.documents import Documents
from tests.lab.simulated.faults import READINESS, UnknownFault, checked_fault, split_fault
from tests.lab.simulated.listening import Listener, read_line
from tests.lab.simulated.login import Credential
from tests.lab.simulated.settings import Address, Settings, StartError


class Node:
    """One node in a running asyncio loop; all but its counters is for that loop's thread only."""

    def __init__(
        self, settings: Settings, server_id: str, on_change: Callable[[], None] = lambda: None
    ):
        self.settings = settings
        self.users = {name: Credential(password) for name, password in settings.users}
        self.tls = _tls_context(settings)
        self.batch: int | None = None
        self.dials = 0
        self.logins = 0
        self.queries = 0
        self.open: set[DriverConnection] = set()
        self._id = server_id
        self._on_change = on_change
        self._faults: dict[str, dict[str, Any]] = {}
        self._taken = b""  #: memory
        self._changed = asyncio.Event()
        self._shut_by_hand = False
        self._started = time.monotonic()
        self._started_at = time.time()
        self.driver = Listener("RDB protocol", self._driver)
        self.peers = Listener("cluster", self._peer)
        self.control = Listener("control", self._controller)
        self.cluster = Cluster(self)
        self.rows = self._kept_rows()
        self.server: Server

    # Life.

    async def start(self) -> None:
        settings = self.settings
        # The cluster port first: nodes that start together must be able to find each other.
        self.peers.bind(settings.addresses, settings.cluster_port)
        driver_port = settings.driver_port
        self.server = self._describe(driver_port)
        if settings.control is not None:
            self.control.bind_unix(settings.control)
        self.cluster.know(settings.join)
        self.cluster.recall(self._recalled_peers())
        if settings.fault is not None:
            self.command(settings.fault)
        await asyncio.sleep(settings.load_s)
        deadline = time.monotonic() + settings.join_wait_s
        while settings.join and time.monotonic() < deadline:
            if len((await self.cluster.view()).servers) > 1:
                break
            await asyncio.sleep(CLUSTER_LOOK_TTL_S / 2)
            self.cluster.forget_look()
        self.driver.bind(settings.addresses, driver_port)
        self.server = self._describe(self.driver.port)
        self._apply_refusal()

    async def stop(self) -> None:
        self.drop_connections()
        for listener in (self.driver, self.peers, self.control):
            await listener.close()
        await self.cluster.close()
        if self.settings.control is not None:
            with contextlib.suppress(OSError):
                self.settings.control.unlink()

    def _describe(self, driver_port: int) -> Server:
        settings = self.settings
        port = self.peers.port
        return Server(
            id=self._id,
            name=settings.name,
            hostname=settings.hostname or socket.gethostname(),
            cluster_port=port,
            reql_port=driver_port,
            http_admin_port=settings.http_port,
            canonical_addresses=settings.canonical_addresses
            or tuple((address, port) for address in settings.addresses),
            cache_size_mb=settings.cache_size_mb,
            argv=settings.argv,
            pid=os.getpid(),
            time_started=self._started_at,
        )

    def own_cluster_addresses(self) -> set[Address]:
        return {(address, self.peers.port) for address in self.settings.addresses}

    def tell(self) -> None:
        """A counter moved."""
        self._on_change()

    def remember_peers(self, remembered: Mapping[str, Sequence[str]]) -> None:
        if self.settings.directory is not None:
            path = self.settings.directory / "simulated_peers.json"
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(remembered), encoding="utf-8")
            fresh.replace(path)

    def _recalled_peers(self) -> dict[str, list[str]]:
        if self.settings.directory is None:
            return {}
        path = self.settings.directory / "simulated_peers.json"
        try:
            remembered: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as exc:
            raise StartError(f"error: the metadata file '{path}' is damaged: {exc}") from exc
        return remembered

    # Faults.

    @property
    def _rows_file(self) -> Path | None:
        directory = self.settings.directory
        return None if directory is None else directory / "simulated_rows"

    def _kept_rows(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Table → key as JSON → row: what was acknowledged before this start."""
        rows: dict[str, dict[str, dict[str, Any]]] = {}
        with contextlib.suppress(FileNotFoundError):
            if self._rows_file is not None:
                for line in self._rows_file.read_text(encoding="utf-8").splitlines():
                    with contextlib.suppress(ValueError):  # empty, or torn by a kill
                        table, row, *gone = json.loads(line)
                        rows.setdefault(table, {})[json.dumps(row["id"])] = row
                        if gone:
                            del rows[table][json.dumps(row["id"])]
        return rows

    def keep(self, table: str, row: dict[str, Any], instead: bool = False) -> bool:
        """Store a row as RethinkDB does, durably; False if its key is taken. `instead`: of what is there."""
        kept = self.rows.setdefault(table, {})
        if json.dumps(row["id"]) in kept and not instead:
            return False
        self._write_down([table, row])
        kept[json.dumps(row["id"])] = row
        return True

    def drop(self, table: str, key: Any) -> bool:
        """Delete a row, durably; False if there is none."""
        if self.rows.get(table, {}).pop(json.dumps(key), None) is None:
            return False
        self._write_down([table, {"id": key}, "gone"])
        return True

    def _write_down(self, line: list[Any]) -> None:
        if self._rows_file is not None:
            with self._rows_file.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(line))
                file.flush()
                os.fsync(file.fileno())

    def fault(self, name: str) -> dict[str, Any] | None:
        """The options of a fault that is set (never empty: its name is among them), else None."""
        return self._faults.get(name)

    def set_fault(
        self, name: str, *, on_existing: str = "keep", add: bool = False, **options: Any
    ) -> None:
        """Sets a fault instead of those that are set, or with `add` beside them."""
        if on_existing not in ("keep", "drop"):
            raise UnknownFault(f"option 'on_existing': {on_existing!r} is none of keep, drop")
        complete = {**checked_fault(name, options), "name": name}
        self._faults = {**self._faults, name: complete} if add else {name: complete}
        self._faults_changed()
        if on_existing == "drop":
            self.drop_connections()

    def clear(self) -> None:
        """All is well again."""
        self._faults = {}
        self._faults_changed()

    def _faults_changed(self) -> None:
        self.cluster.forget_look()
        self._apply_refusal()
        memory = self.fault("memory")
        if memory is not None:
            self._taken = b"\1" * memory["bytes"]  # zeros would not be taken before they are used
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.tell()

    def _apply_refusal(self) -> None:
        if "refuse" in self._faults or self._shut_by_hand:
            self.driver.shut()
        elif self.driver.is_bound:  # else the node still waits for its peers
            self.driver.open()

    def shut_driver_port(self, shut: bool) -> None:
        self._shut_by_hand = shut
        self._apply_refusal()

    def drop_connections(self) -> None:
        for connection in list(self.open):
            connection.drop()

    async def wait_while(self, condition: Callable[[], bool]) -> None:
        """Until the condition no longer holds; it is asked whenever a fault is set or cleared."""
        while condition():
            await self._changed.wait()

    async def sleep_while_faulty(self, seconds: float) -> None:
        """A delay that ends early when the faults change."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    # Answers.

    async def documents(self, by_uuid: bool = False) -> Documents:
        limits: dict[str, tuple[int, str]] = {}
        if time.monotonic() - self._started < self.settings.settle_s:
            limits = dict.fromkeys(self.settings.tables, (0, "transitioning"))
        fault = self.fault("tables_not_ready")
        if fault:
            limit = (READINESS.index(fault["readiness"]), fault["state"])
            limits.update(dict.fromkeys(fault["tables"] or self.settings.tables, limit))
        issue, jobs = self.fault("issue"), self.fault("jobs")
        return Documents(
            view=await self._seen(),
            tables=self.settings.tables,
            limits=limits,
            issues=tuple(issue["types"]) if issue else (),
            issue_message=issue["message"] if issue else "",
            by_uuid=by_uuid,
            queries=((jobs["query"], jobs["duration_s"]),) if jobs else (),
        )

    async def _seen(self) -> View:
        view = await self.cluster.view()
        return dataclasses.replace(view, servers=view.servers[1:]) if self.fault("proxy") else view

    async def _driver(self, sock: socket.socket) -> None:
        connection = DriverConnection(self, sock)
        self.dials += 1
        self.open.add(connection)
        self.tell()
        await connection.live()

    def gone(self, connection: DriverConnection) -> None:
        self.open.discard(connection)
        self.tell()

    async def _peer(self, sock: socket.socket) -> None:
        with sock:
            await self._introduce(sock)

    async def _introduce(self, sock: socket.socket) -> None:
        """Say who this is, as often as the peer asks."""
        buffer = bytearray()
        asked = await asyncio.wait_for(read_line(sock, buffer), 1.0)
        while asked:
            refuse, silent = self.fault("refuse"), self.fault("silent")
            if self.fault("partitioned") or self.fault("proxy"):
                return
            if refuse and refuse["cluster_too"]:
                return
            if silent and silent["cluster_too"]:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(read_line(sock, buffer), 1.0)
                return
            await asyncio.get_running_loop().sock_sendall(sock, self.server.to_line())
            asked = await read_line(sock, buffer)

    async def _controller(self, sock: socket.socket) -> None:
        loop, buffer = asyncio.get_running_loop(), bytearray()
        with sock:
            while line := await read_line(sock, buffer):
                try:
                    answer = {"ok": True, **self.command(json.loads(line))}
                except (ValueError, TypeError, KeyError, AttributeError) as exc:
                    answer = {"ok": False, "error": str(exc) or repr(exc)}
                await loop.sock_sendall(sock, json.dumps(answer).encode() + b"\n")

    def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """What the control socket takes; returns the status afterwards."""
        unknown = [key for key in command if key not in ("fault", "status", "drop", "batch")]
        if unknown and "fault" not in command:
            raise UnknownFault(f"no command {unknown[0]!r}; there are: fault, status, drop, batch")
        if "batch" in command:
            rows = command["batch"]
            if rows is not None and (type(rows) is not int or rows < 1):
                raise UnknownFault(f"batch: {rows!r} is no number of rows")
            self.batch = rows
        elif command.get("fault") in (None, "well"):
            if "fault" in command:
                self.clear()
        else:
            name, options = split_fault(command)
            self.set_fault(
                name,
                on_existing=command.get("on_existing", "keep"),
                add=bool(command.get("add", False)),
                **options,
            )
        if command.get("drop"):
            self.drop_connections()
        return {
            "id": self.server.id,
            "name": self.server.name,
            "pid": self.server.pid,
            "driver_port": self.server.reql_port,
            "cluster_port": self.server.cluster_port,
            "faults": self._faults,
            "connections": len(self.open),
            "dials": self.dials,
            "logins": self.logins,
            "queries": self.queries,
        }


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_key is None or settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as exc:
        raise StartError(
            f"error: could not load '{settings.tls_cert}' and '{settings.tls_key}': {exc}"
        ) from exc
    return context
