"""The driver port: RethinkDB's wire protocol, spoken with one client, in the way the faults want it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import traceback
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.lab.simulated.documents import NEVER_HANG, SERVER_VERSION, SYSTEM_TABLES
from tests.lab.simulated.faults import READINESS
from tests.lab.simulated.login import Credential, Refusal, Scram

if TYPE_CHECKING:
    from tests.lab.simulated.node import Node

HANDSHAKE_MAX_BYTES = 2048
QUERY_MAX_BYTES = 128 * 1024 * 1024
PART_S = 1.0

V1_0 = 0x34C2BDC3
START, CONTINUE, STOP, NOREPLY_WAIT, SERVER_INFO = 1, 2, 3, 4, 5
ATOM, SEQUENCE, PARTIAL, WAIT_COMPLETE, SERVER_INFO_ANSWER = 1, 2, 3, 4, 5
CLIENT_ERROR, COMPILE_ERROR, RUNTIME_ERROR = 16, 17, 18
INTERNAL, RESOURCE_LIMIT, QUERY_LOGIC, OP_FAILED, PERMISSION = (
    1000000,
    2000000,
    3000000,
    4100000,
    6000000,
)
TERM_DATUM, TERM_MAKE_ARRAY, TERM_DB, TERM_TABLE, TERM_INSERT = 1, 2, 14, 15, 56
TERM_GET, TERM_DELETE, TERM_REPLACE, TERM_BETWEEN = 16, 54, 55, 182


class QueryError(Exception):
    """An answer that says no."""

    def __init__(self, kind: int, code: int, message: str):
        super().__init__(message)
        # RethinkDB names the code of a runtime error only.
        self.answer: dict[str, Any] = {"t": kind, "r": [message], "b": []}
        if kind == RUNTIME_ERROR:
            self.answer["e"] = code


class _End(Exception):
    """This conversation is over."""


class _Reset(Exception):
    """This conversation ends with a RST."""


class DriverConnection(asyncio.Protocol):
    """One client, from its first byte to its last."""

    def __init__(self, node: Node, sock: socket.socket):
        self._node = node
        self._sock = sock
        self._reader = asyncio.StreamReader(limit=HANDSHAKE_MAX_BYTES)
        self._is_handed_over = False  # the socket belongs to asyncio, which closes it
        self._transport: Any = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._writing = asyncio.Lock()
        self._task = asyncio.current_task()
        self._running: dict[asyncio.Task[None], int] = {}
        self._cursors: dict[int, list[Any]] = {}
        self._batches: dict[int, int] = {}
        self._user = ""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def eof_received(self) -> bool:
        # RethinkDB ends a client's queries when it closes its half of the connection, too.
        self._reader.feed_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._node.gone(self)
        self._reader.feed_eof()
        self._writable.set()
        for task in self._running:
            task.cancel()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # The conversation.

    async def live(self) -> None:
        try:
            await self._at_the_door()
            await self._handshake()
            self._node.logins += 1
            self._node.tell()
            await self._queries()
        except _Reset:
            self._reset()
        except _End:
            with contextlib.suppress(OSError):
                await self._part()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            running = list(self._running)
            for task in running:
                task.cancel()
            if self._transport is not None:
                self._transport.close()
            else:
                self._node.gone(self)
                if self._is_handed_over:  # a TLS handshake was cut short
                    with contextlib.suppress(OSError):
                        self._sock.shutdown(socket.SHUT_RDWR)
                else:
                    self._sock.close()
            # Their end must be seen, or asyncio complains about tasks nobody waited for.
            await asyncio.gather(*running, return_exceptions=True)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._task is not None:
            self._task.cancel()

    async def _at_the_door(self) -> None:
        node, loop = self._node, asyncio.get_running_loop()
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if node.fault("reset"):
            raise _Reset
        plain = node.tls is None or any(
            node.fault(name) for name in ("close_on_connect", "garbage")
        )
        if plain:
            self._is_handed_over = True
            await loop.connect_accepted_socket(lambda: self, self._sock)
            await self._misbehave()
            await self._be_ignored()
            await self._gate("version")
        else:
            await self._be_ignored()
            await self._gate("version")
            self._is_handed_over = True
            await loop.connect_accepted_socket(lambda: self, self._sock, ssl=node.tls)
        await self._misbehave()

    async def _be_ignored(self) -> None:
        await self._node.wait_while(lambda: self._node.fault("ignore_new") is not None)

    async def _gate(self, step: str) -> None:
        """Stands still while a fault wants this step silent."""

        def still() -> bool:
            stall = self._node.fault("stall")
            return self._node.fault("silent") is not None or (
                stall is not None and stall["stall_at"] == step
            )

        await self._node.wait_while(still)

    async def _misbehave(self) -> None:
        """The faults that need no understanding of what the client said."""
        node = self._node
        if node.fault("reset"):
            raise _Reset
        if node.fault("close_on_connect"):
            raise _End
        garbage = node.fault("garbage")
        if garbage is None:
            return
        data = garbage["bytes"].encode("latin-1")
        if garbage["endless"]:
            data = data.replace(b"\0", b"") or b"x"
            data *= max(1, 4096 // len(data))
            while node.fault("garbage") is not None:
                await self._write(data)
                # A flood, but not one that takes the machine from the others.
                await asyncio.sleep(0.001)
        else:
            await self._write(data)
            if not garbage["close"]:
                await node.wait_while(lambda: node.fault("garbage") is not None)
        raise _End

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if self._transport is not None:
            self._transport.abort()

    async def _part(self) -> None:
        """
        Closes so that the client reads what was said last.

        A plain close() with bytes of the client unread sends a RST, and a RST discards what the
        client has not read yet. So: our half only, then wait for the client's (connection_lost
        cancels the sleep).
        """
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            await asyncio.sleep(PART_S)

    async def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise _End
        self._transport.write(data)
        await self._writable.wait()

    async def _say(self, data: bytes, step: str) -> None:
        """Sends one whole answer, in the way the faults want it."""
        node = self._node
        slow = node.fault("slow")
        if slow and slow["delay_s"]:
            await node.sleep_while_faulty(slow["delay_s"])
        await self._gate(step)
        async with self._writing:
            cut = node.fault("close_mid_answer")
            if cut and cut["at"] == step:
                await self._write(data[: max(1, len(data) // 2)])
                raise _End
            slow = node.fault("slow")
            if slow and slow["byte_delay_s"]:
                for index in range(len(data)):
                    await self._write(data[index : index + 1])
                    await node.sleep_while_faulty(slow["byte_delay_s"])
            else:
                await self._write(data)

    # Handshake.

    async def _handshake(self) -> None:
        (magic,) = struct.unpack("<I", await self._reader.readexactly(4))
        if magic != V1_0:
            await self._write(
                b"ERROR: Received an unsupported protocol version. This port is for RethinkDB"
                b" queries. Does your client driver version not match the server?\n\0"
            )
            raise _End
        try:
            await self._say_json(self._greeting(), "version")
            await self._login()
        except Refusal as refusal:
            answer = {"error": refusal.message, "error_code": refusal.code, "success": False}
            await self._say_json(answer, "auth_final")
            raise _End from refusal

    def _greeting(self) -> dict[str, Any]:
        node = self._node
        greeting: dict[str, Any] = {"max_protocol_version": 0, "min_protocol_version": 0}
        version = node.fault("server_version")
        if not node.fault("no_version"):
            greeting["server_version"] = version["version"] if version else SERVER_VERSION
        greeting["success"] = True
        return greeting

    async def _login(self) -> None:
        node = self._node
        huge = node.fault("huge_iterations")
        scram = Scram(node.users, huge["iterations"] if huge else Credential.ITERATIONS)
        hello = await self._read_json()
        if type(hello.get("protocol_version")) not in (int, float):
            raise Refusal(1, "Expected a number for `protocol_version`.")
        if hello["protocol_version"] != 0:
            raise Refusal(2, "Unsupported `protocol_version`.")
        if not isinstance(hello.get("authentication_method"), str):
            raise Refusal(3, "Expected a string for `authentication_method`.")
        if hello["authentication_method"] != "SCRAM-SHA-256":
            raise Refusal(4, "Unsupported `authentication_method`.")
        challenge = scram.first(self._authentication(hello))
        await self._say_json({"authentication": challenge, "success": True}, "auth_first")
        proof = self._authentication(await self._read_json())
        if node.fault("wrong_password"):
            raise Refusal(12, "Wrong password")
        if node.fault("unknown_user"):
            raise Refusal(17, "Unknown user")
        await self._say_json({"authentication": scram.final(proof), "success": True}, "auth_final")
        self._user = scram.user

    @staticmethod
    def _authentication(message: Mapping[str, Any]) -> str:
        value = message.get("authentication")
        if not isinstance(value, str):
            raise Refusal(5, "Expected a string for `authentication`.")
        return value

    async def _read_json(self) -> dict[str, Any]:
        try:
            data = await self._reader.readuntil(b"\0")
        except asyncio.LimitOverrunError as exc:
            raise Refusal(7, "Limited read buffer size.") from exc
        try:
            value = json.loads(data[:-1])
        except (ValueError, RecursionError) as exc:
            raise Refusal(8, "Invalid JSON object.") from exc
        if not isinstance(value, dict):
            raise Refusal(9, "Failed to convert JSON to datum.")
        return value

    async def _say_json(self, value: dict[str, Any], step: str) -> None:
        big, broken = self._node.fault("big_document"), self._node.fault("non_utf8")
        if big and big["at"] == step:
            value = {**value, "padding": "x" * big["bytes"]}
        data = _json(value)
        if broken and broken["at"] == step:
            data = b'{"padding":"\xff\xfe",' + data[1:]
        await self._say(data + b"\0", step)

    # Queries.

    async def _queries(self) -> None:
        while True:
            token, size = struct.unpack("<QI", await self._reader.readexactly(12))
            if size >= QUERY_MAX_BYTES:
                message = f"Query size ({size}) greater than maximum ({QUERY_MAX_BYTES - 1})."
                await self._answer(token, QueryError(CLIENT_ERROR, RESOURCE_LIMIT, message).answer)
                raise _End
            body = await self._reader.readexactly(size)
            self._node.queries += 1
            self._node.tell()
            earlier = list(self._running)
            task = asyncio.ensure_future(self._query(token, body, earlier))
            self._running[task] = token
            task.add_done_callback(lambda done: self._running.pop(done, None))

    async def _query(self, token: int, body: bytes, earlier: list[asyncio.Task[None]]) -> None:
        try:
            try:
                await self._misbehave()
                await self._gate("query")
                huge = self._node.fault("huge_answer")
                if huge and huge["to"] == self._asked_for(body):
                    data = huge_answer(huge["shape"], huge["bytes"], huge["to"])
                    await self._say(struct.pack("<QI", token, len(data)) + data, "query")
                    return
                answer = await self._result(token, body, earlier)
            except QueryError as error:
                answer = error.answer
            except (_End, _Reset):
                raise
            except Exception as exc:
                traceback.print_exc()
                answer = QueryError(
                    RUNTIME_ERROR, INTERNAL, f"Unexpected exception: {exc!r}\n"
                ).answer
            if answer is not None:
                await self._answer(token, answer)
        except _Reset:
            self._reset()
        except _End:
            with contextlib.suppress(OSError):
                await self._part()
            if self._transport is not None:
                self._transport.close()
        except OSError:
            pass  # the client left

    @staticmethod
    def _asked_for(body: bytes) -> str:
        if body == b"[5]":
            return "server_info"
        # Whom each node is connected to stays as it is: else nobody would ask for the tables.
        return "system_tables" if b'"rethinkdb"' in body and b"server_" not in body else ""

    async def _answer(self, token: int, answer: dict[str, Any]) -> None:
        data = _json(answer)
        broken = self._node.fault("non_utf8")
        if broken and broken["at"] == "query":
            data = data.replace(b'"r":[', b'"r":["\xff\xfe",', 1)
        await self._say(struct.pack("<QI", token, len(data)) + data, "query")

    async def _result(
        self, token: int, body: bytes, earlier: list[asyncio.Task[None]]
    ) -> dict[str, Any] | None:
        """The answer, None for a query that wants none; QueryError otherwise."""
        try:
            query = json.loads(body)
        except (ValueError, RecursionError) as exc:
            message = "Client is buggy (failed to deserialize query)."
            raise QueryError(CLIENT_ERROR, RESOURCE_LIMIT, message) from exc
        if not isinstance(query, list) or not query or type(query[0]) is not int:
            message = "Server could not parse query: Expected a query to be an array with a type."
            raise QueryError(CLIENT_ERROR, QUERY_LOGIC, message)
        kind = query[0]
        if kind == START:
            if len(query) < 2:
                message = "Server could not parse query: Expected a term."
                raise QueryError(CLIENT_ERROR, QUERY_LOGIC, message)
            options = query[2] if len(query) > 2 and isinstance(query[2], dict) else {}
            result = await self._evaluate(query[1], options)
            if options.get("noreply") is True:
                return None
            most = options.get("max_batch_rows")
            if type(most) is int and most > 0:
                self._batches[token] = most
            return self._framed(token, *result)
        if kind == SERVER_INFO:
            return {"t": SERVER_INFO_ANSWER, "r": [self._padded(self._info())]}
        if kind == NOREPLY_WAIT:
            await asyncio.gather(*earlier, return_exceptions=True)
            return {"t": WAIT_COMPLETE, "r": []}
        if kind == CONTINUE:
            if token not in self._cursors:
                raise QueryError(CLIENT_ERROR, QUERY_LOGIC, f"Token {token} not in stream cache.")
            return self._framed(token, SEQUENCE, self._cursors.pop(token))
        if kind == STOP:
            hanging = [task for task in earlier if self._running.get(task) == token]
            for task in hanging:
                task.cancel()
            if self._cursors.pop(token, None) is None and not hanging:
                raise QueryError(CLIENT_ERROR, QUERY_LOGIC, f"Token {token} not in stream cache.")
            return {"t": SEQUENCE, "r": [], "n": []}
        raise QueryError(
            CLIENT_ERROR,
            QUERY_LOGIC,
            f"Server could not parse query: Unrecognized query type {kind}.",
        )

    def _info(self) -> dict[str, Any]:
        server = self._node.server
        if self._node.fault("proxy"):
            return {"id": f"proxy-{server.id}", "proxy": True}
        other = self._node.fault("identity") or {}
        return {
            "id": other.get("server_id") or server.id,
            "name": other.get("server_name") or server.name,
            "proxy": False,
        }

    def _framed(self, token: int, kind: int, values: list[Any]) -> dict[str, Any]:
        if kind == ATOM:
            return {"t": ATOM, "r": values}
        batch = self._batches.get(token, self._node.batch)
        if batch and len(values) > batch:
            self._cursors[token] = values[batch:]
            return {"t": PARTIAL, "r": values[:batch], "n": []}
        self._batches.pop(token, None)
        return {"t": SEQUENCE, "r": values, "n": []}

    def _padded(self, row: dict[str, Any]) -> dict[str, Any]:
        big = self._node.fault("big_document")
        return {**row, "padding": "x" * big["bytes"]} if big and big["at"] == "query" else row

    async def _evaluate(self, term: Any, options: Mapping[str, Any]) -> tuple[int, list[Any]]:
        if not isinstance(term, list) or (term and term[0] in (TERM_DATUM, TERM_MAKE_ARRAY)):
            big = self._node.fault("big_document")
            if big and big["at"] == "query":
                return ATOM, ["x" * big["bytes"]]
            return ATOM, [_datum(term)]
        if term and term[0] == TERM_DB:
            raise QueryError(
                RUNTIME_ERROR,
                QUERY_LOGIC,
                "Query result must be of type DATUM, GROUPED_DATA, or STREAM (got DATABASE).",
            )
        if term and term[0] == TERM_TABLE:
            return await self._table(term, options)
        if term and term[0] == TERM_INSERT:
            return await self._insert(term, options)
        if term and term[0] == TERM_BETWEEN:
            return await self._between(term, options)
        if term and term[0] in (TERM_GET, TERM_DELETE, TERM_REPLACE):
            return await self._point(term, options)
        raise _unknown_term(term)

    @staticmethod
    def _named(term: Any, options: Mapping[str, Any]) -> tuple[str, str]:
        """Database and table that a term of the kind TABLE means."""
        try:
            arguments = term[1]
            if len(arguments) == 1:
                arguments = [options.get("db", [TERM_DB, ["test"]]), *arguments]
            (kind, (database,)), name = arguments
        except (TypeError, ValueError, LookupError) as exc:
            raise _unknown_term(term) from exc
        if kind != TERM_DB or not isinstance(database, str) or not isinstance(name, str):
            raise _unknown_term(term)
        return database, name

    async def _table(self, term: list[Any], options: Mapping[str, Any]) -> tuple[int, list[Any]]:
        node = self._node
        database, name = self._named(term, options)
        own = term[2] if len(term) > 2 and isinstance(term[2], dict) else {}
        if database != "rethinkdb":
            outdated = own.get("read_mode") == "outdated"
            table = await self._user_table(
                database, name, "outdated_reads" if outdated else "reads"
            )
            return SEQUENCE, list(node.rows.get(table, {}).values())
        if node.fault("no_permission"):
            message = f"User `{self._user}` does not have the required `read` permission."
            raise QueryError(RUNTIME_ERROR, PERMISSION, message)
        if name not in SYSTEM_TABLES:
            raise QueryError(RUNTIME_ERROR, OP_FAILED, f"Table `rethinkdb.{name}` does not exist.")
        if name == "jobs" and node.fault("no_jobs"):
            message = "Only administrators may access the `jobs` table."
            raise QueryError(RUNTIME_ERROR, PERMISSION, message)
        if name not in NEVER_HANG:
            await node.wait_while(lambda: node.fault("hang_system_tables") is not None)
        documents = await node.documents(by_uuid=own.get("identifier_format") == "uuid")
        rows: list[Any] = getattr(documents, name)()
        big = node.fault("big_document")
        if big and big["at"] == "query":
            rows = [self._padded(row) for row in rows[:1] or [{}]] + rows[1:]
        return SEQUENCE, rows

    async def _insert(self, term: list[Any], options: Mapping[str, Any]) -> tuple[int, list[Any]]:
        try:
            (kind, *rest), document = term[1]
        except (TypeError, ValueError, LookupError) as exc:
            raise _unknown_term(term) from exc
        row = _datum(document)
        if kind != TERM_TABLE or not isinstance(row, dict) or (len(term) > 2 and term[2]):
            raise _unknown_term(term)
        table = await self._user_table(*self._named([kind, *rest], options), "writes")
        counts = dict.fromkeys(
            ("deleted", "errors", "inserted", "replaced", "skipped", "unchanged"), 0
        )
        if "id" not in row:
            row = {**row, "id": str(uuid.uuid4())}
            counts["generated_keys"] = [row["id"]]
        if self._node.keep(table, row):
            return ATOM, [{**counts, "inserted": 1}]
        key = json.dumps(row["id"])
        return ATOM, [{**counts, "errors": 1, "first_error": f"Duplicate primary key `id`:\n{key}"}]

    def _stalls(self, deed: str) -> bool:
        stalled = self._node.fault("stalled")
        return stalled is not None and stalled["deed"] in ("", deed)

    async def _between(self, term: list[Any], options: Mapping[str, Any]) -> tuple[int, list[Any]]:
        """Rows with a primary key from the first bound on and before the second one."""
        try:
            (kind, *rest), low, high = term[1]
        except (TypeError, ValueError, LookupError) as exc:
            raise _unknown_term(term) from exc
        bounds = (_datum(low), _datum(high))
        if kind != TERM_TABLE or not all(isinstance(one, str) for one in bounds) or len(term) > 2:
            raise _unknown_term(term)
        table = await self._user_table(*self._named([kind, *rest], options), "reads")
        rows = self._node.rows.get(table, {}).values()
        found = [row for row in rows if isinstance(row["id"], str)]
        return SEQUENCE, [row for row in found if bounds[0] <= row["id"] < bounds[1]]

    async def _point(self, term: list[Any], options: Mapping[str, Any]) -> tuple[int, list[Any]]:
        """The row with this primary key: read, replaced or deleted."""
        deed, node = term[0], self._node
        try:
            got, *instead = term[1] if deed != TERM_GET else [term]
            (kind, *rest), key = got[1]
            known = (
                got[0] == TERM_GET
                and kind == TERM_TABLE
                and not any(one[2:] for one in (term, got))
            )
        except (TypeError, ValueError, LookupError) as exc:
            raise _unknown_term(term) from exc
        if not known or len(instead) != (deed == TERM_REPLACE):
            raise _unknown_term(term)
        needed = "reads" if deed == TERM_GET else "writes"
        table = await self._user_table(*self._named([kind, *rest], options), needed)
        key = _datum(key)
        old = node.rows.get(table, {}).get(json.dumps(key))
        if deed == TERM_GET:
            return ATOM, [old]
        counts: dict[str, Any] = dict.fromkeys(
            ("deleted", "errors", "inserted", "replaced", "skipped", "unchanged"), 0
        )
        if deed == TERM_DELETE:
            return ATOM, [{**counts, "deleted" if node.drop(table, key) else "skipped": 1}]
        row = _datum(instead[0])
        other = node.fault("primary_key")
        name = other["key"] if other else "id"
        if not isinstance(row, dict) or row.get(name) != key:
            told = f"Inserted object must have primary key `{name}`:\n{json.dumps(row)}"
            return ATOM, [{**counts, "errors": 1, "first_error": told}]
        node.keep(table, row, instead=True)
        return ATOM, [{**counts, "inserted" if old is None else "replaced": 1}]

    async def _user_table(self, database: str, name: str, needed: str) -> str:
        """The table's full name, if it is ready for that."""
        table = f"{database}.{name}"
        if all(known.partition(".")[0] != database for known in self._node.settings.tables):
            raise QueryError(RUNTIME_ERROR, OP_FAILED, f"Database `{database}` does not exist.")
        gone = self._node.fault("no_table")
        if table not in self._node.settings.tables or (gone and gone["table"] == table):
            raise QueryError(RUNTIME_ERROR, OP_FAILED, f"Table `{table}` does not exist.")
        deed = "write" if needed == "writes" else "read"
        barred = self._node.fault("no_rights")
        if barred and barred["deed"] == deed:
            message = f"User `{self._user}` does not have the required `{deed}` permission."
            raise QueryError(RUNTIME_ERROR, PERMISSION, message)
        await self._node.wait_while(lambda: self._stalls(deed))
        documents = await self._node.documents()
        if documents.readiness(table) < READINESS.index(needed):
            raise QueryError(
                RUNTIME_ERROR,
                OP_FAILED,
                f'Cannot perform {deed}: primary replica for shard ["", +inf) not available',
            )
        return table


def huge_answer(shape: str, size: int, to: str) -> bytes:
    """So many bytes that are hard to read, as the answer to that kind of query."""
    kind = SERVER_INFO_ANSWER if to == "server_info" else SEQUENCE
    piece = {
        "documents": b'{"id":"x","shards":[{"replicas":[{}]}]},',
        "lists": b"[],",
        "text": b"x",
        "deep": b"[",
        "number": b"1",
        "blank": b" ",
    }[shape]
    filling = piece * (size // len(piece))
    inner = {
        "documents": filling + b"{}",
        "lists": b'{"id":[' + filling + b"[]]}",
        "text": b'{"id":"' + filling + b'"}',
        "deep": filling,
        "number": filling,
        "blank": filling,
    }[shape]
    return b'{"t":%d,"r":[%b]}' % (kind, inner)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def _datum(term: Any) -> Any:
    if isinstance(term, dict):
        return {key: _datum(value) for key, value in term.items()}
    if not isinstance(term, list):
        return term
    if len(term) >= 2 and term[0] == TERM_DATUM:
        return term[1]
    if len(term) >= 2 and term[0] == TERM_MAKE_ARRAY and isinstance(term[1], list):
        return [_datum(value) for value in term[1]]
    raise _unknown_term(term)


def _unknown_term(term: Any) -> QueryError:
    kind = term[0] if isinstance(term, list) and term else term
    return QueryError(
        COMPILE_ERROR, QUERY_LOGIC, f"The simulated node does not know this use of term {kind!r}."
    )
