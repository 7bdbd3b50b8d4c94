"""The documents of the system tables."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tests.lab.simulated.cluster import NAMESPACE, Member, Server, View
from tests.lab.simulated.faults import READINESS

SERVER_VERSION = "2.4.4"


def _time(epoch: float) -> dict[str, Any]:
    return {"$reql_type$": "TIME", "epoch_time": round(epoch, 3), "timezone": "+00:00"}


def table_id(table: str) -> str:
    """Every node makes the same id of the same `db.table`."""
    return str(uuid.uuid5(NAMESPACE, table))


def database_id(database: str) -> str:
    return str(uuid.uuid5(NAMESPACE, database + "."))


@dataclasses.dataclass(frozen=True)
class Documents:
    """Rows of the system tables, from a view of the cluster, with names or UUIDs as asked."""

    view: View
    tables: tuple[str, ...]
    # Table to the readiness that it does not exceed, and the state of its replicas then.
    limits: Mapping[str, tuple[int, str]]
    issues: tuple[str, ...] = ()
    issue_message: str = ""
    by_uuid: bool = False
    queries: tuple[tuple[str, float], ...] = ()  #: text and duration

    def _label(self, server: Server | Member) -> str:
        return server.id if self.by_uuid else server.name

    def _names(self, table: str) -> tuple[str, str]:
        database, _, name = table.partition(".")
        return (database_id(database), table_id(table)) if self.by_uuid else (database, name)

    def server_status(self) -> list[dict[str, Any]]:
        return [
            {
                "id": server.id,
                "name": server.name,
                "network": {
                    "canonical_addresses": [
                        {"host": host, "port": port} for host, port in server.canonical_addresses
                    ],
                    "cluster_port": server.cluster_port,
                    "connected_to": {
                        self._label(other): True
                        for other in self.view.servers
                        if other.id != server.id
                    },
                    "hostname": server.hostname,
                    "http_admin_port": server.http_admin_port or "<no http admin>",
                    "reql_port": server.reql_port,
                    "time_connected": _time(self.view.connected_since[server.id]),
                },
                "process": {
                    "argv": list(server.argv),
                    "cache_size_mb": server.cache_size_mb or 100,
                    "pid": server.pid,
                    "time_started": _time(server.time_started),
                    "version": f"rethinkdb {SERVER_VERSION} (simulated)",
                },
            }
            for server in self.view.servers
        ]

    def server_config(self) -> list[dict[str, Any]]:
        return [
            {
                "cache_size_mb": server.cache_size_mb or "auto",
                "id": server.id,
                "name": server.name,
                "tags": ["default"],
            }
            for server in self.view.servers
        ]

    def readiness(self, table: str) -> int:
        return min(self.view.readiness, self.limits.get(table, (len(READINESS), ""))[0])

    def _state(self, table: str, member: Member, primary: Sequence[str]) -> str:
        if not member.connected:
            return "disconnected"
        ready = self.readiness(table)
        if ready == self.view.readiness:
            return "ready" if ready >= READINESS.index("writes") else "waiting_for_primary"
        if self._label(member) in primary:
            return "ready"
        usual = ("waiting_for_quorum", "waiting_for_primary", "waiting_for_primary", "backfilling")
        return self.limits[table][1] or usual[ready]

    def _condition(self, table: str) -> dict[str, Any]:
        """The part of a table's status that its issue repeats."""
        ready = self.readiness(table)
        connected = [member for member in self.view.members if member.connected]
        primary = [self._label(connected[0])] if ready >= READINESS.index("reads") else []
        return {
            "raft_leader": primary[0] if primary else None,
            "shards": [
                {
                    "primary_replicas": primary,
                    "replicas": [
                        {
                            "server": self._label(member),
                            "state": self._state(table, member, primary),
                        }
                        for member in self.view.members
                    ],
                }
            ],
            "status": {
                "all_replicas_ready": ready == READINESS.index("finished"),
                "ready_for_outdated_reads": ready >= READINESS.index("outdated_reads"),
                "ready_for_reads": ready >= READINESS.index("reads"),
                "ready_for_writes": ready >= READINESS.index("writes"),
            },
        }

    def table_status(self) -> list[dict[str, Any]]:
        return [
            {
                "db": self._names(table)[0],
                "id": table_id(table),
                "name": table.partition(".")[2],
                **self._condition(table),
            }
            for table in self.tables
        ]

    def table_config(self) -> list[dict[str, Any]]:
        members = [self._label(member) for member in self.view.members]
        return [
            {
                "db": self._names(table)[0],
                "durability": "hard",
                "id": table_id(table),
                "indexes": [],
                "name": table.partition(".")[2],
                "primary_key": "id",
                "shards": [
                    {"nonvoting_replicas": [], "primary_replica": members[0], "replicas": members}
                ],
                "write_acks": "majority",
                "write_hook": None,
            }
            for table in self.tables
        ]

    def current_issues(self) -> list[dict[str, Any]]:
        """The issues asked for, and the one that RethinkDB itself raises for a lost replica."""
        disconnected = not all(member.connected for member in self.view.members)
        issues = [
            getattr(self, "_" + kind)() for kind in self.issues if kind != "table_availability"
        ]
        if disconnected or "table_availability" in self.issues:
            issues += [self._table_availability(table) for table in self.tables]
        return issues

    def jobs(self) -> list[dict[str, Any]]:
        """Queries that the node itself carries out. Other kinds of jobs are not made here."""
        return [
            {
                "duration_sec": duration_s,
                "id": ["query", str(uuid.uuid5(NAMESPACE, query + server.id))],
                "info": {
                    "client_address": "127.0.0.1",
                    "client_port": 40000,
                    "query": query,
                    "user": "admin",
                },
                "servers": [self._label(server)],
                "type": "query",
            }
            for query, duration_s in self.queries
            for server in self.view.servers[:1]
        ]

    def _issue(
        self, base: str, hashed: str, kind: str, critical: bool, info: Any, text: str
    ) -> dict[str, Any]:
        # RethinkDB's own bases, hashed its own way: the id of an issue is the same on every node.
        issue_id = str(uuid.uuid5(uuid.UUID(base), hashed)) if hashed else base
        return {
            "critical": critical,
            "description": text,
            "id": issue_id,
            "info": info,
            "type": kind,
        }

    def _log_write_error(self) -> dict[str, Any]:
        server, message = self.view.servers[0], self.issue_message
        return self._issue(
            "a0c0dc6d-aa7f-4119-a29d-4c717c343445",
            message,
            "log_write_error",
            False,
            {"message": message, "servers": [self._label(server)]},
            "The following server encountered an error while writing log statements:"
            f" {server.name}.\n\nThe error message reported is: {message}\n\n"
            "Please fix the problem that is preventing the server from writing to their log file."
            " This issue will go away the next time the server successfully writes to the log"
            " file.",
        )

    def _memory_error(self) -> dict[str, Any]:
        server, message = self.view.servers[0], self.issue_message
        return self._issue(
            "e013d7af-dd63-4fc0-a021-d9b57591685b",
            message,
            "memory_error",
            False,
            {"message": message, "servers": [self._label(server)]},
            f"The following server encountered a memory problem: {server.name}. \n"
            f"\n The message reported is: {message}\n\n",
        )

    def _outdated_index(self) -> dict[str, Any]:
        tables = []
        for table in self.tables:
            database, name = self._names(table)
            tables.append({"db": database, "indexes": ["old"], "table": name})
        lines = "".join(
            "\nFor table `{}.{}`: `old`".format(*reversed(table.split(".")))
            for table in self.tables
        )
        return self._issue(
            "528f5239-096e-47a3-b263-7a06a256ecc3",
            "",
            "outdated_index",
            False,
            {"tables": tables},
            "The cluster contains indexes that were created with a previous version of the query"
            " language which contained some bugs.  These should be remade to avoid relying on"
            " broken behavior.  See"
            " http://www.rethinkdb.com/docs/troubleshooting/#my-secondary-index-is-outdated"
            " for details." + lines,
        )

    def _table_availability(self, table: str) -> dict[str, Any]:
        database, name = self._names(table)
        ready = self.readiness(table)
        blurb = (
            "not available for any operations",
            "available for outdated reads, but not up-to-date reads or writes",
            "available for outdated and up-to-date reads, but not writes",
            "available for all operations, but some replicas are not ready",
            "available for all operations, but some replicas are not ready",
        )[ready]
        lost = ", ".join(member.name for member in self.view.members if not member.connected)
        return self._issue(
            "4ae8c575-b103-3335-a79a-121089e34339",
            table_id(table),
            "table_availability",
            ready < READINESS.index("writes"),
            {"db": database, "table": name, **self._condition(table)},
            f"Table `{table}` is {blurb}. The following servers are not reachable: {lost}",
        )


SYSTEM_TABLES = (
    "server_status",
    "server_config",
    "table_status",
    "table_config",
    "current_issues",
    "jobs",
)
# These two need nothing but what the node itself knows: they answer while a peer hangs.
NEVER_HANG = ("server_status", "server_config")
