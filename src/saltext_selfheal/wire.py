"""One connection to a RethinkDB server, every wait under a deadline.

The official driver does the protocol (handshake, query serialiser, response reader, 2.4.10); its connections are
not used, because they know no deadline: a stopped server holds them for ever. Here are the bytes between the two, and
nothing that judges: what goes wrong is raised. Whatever the driver's parts raise on input that no RethinkDB sends
goes through as it is.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import struct
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from rethinkdb import net
from rethinkdb.ast import ReQLDecoder
from rethinkdb.errors import ReqlAuthError
from rethinkdb.errors import ReqlPermissionError
from rethinkdb.handshake import HandshakeV1_0
from rethinkdb.ql2_pb2 import Query
from rethinkdb.ql2_pb2 import Response

MAX_GREETING_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_SEQUENCE_ITEMS = 200_000
MAX_ITERATIONS = (
    1_000_000  #: of PBKDF2; RethinkDB asks for 4,096, a hostile server for hours of CPU
)
PARSE_OFF_LOOP_BYTES = (
    128 * 1024
)  #: a larger answer is parsed on a thread: it would hold up other probes

_HEADER = struct.Struct("<QL")
# Stateless, and each is a circle of references: one for all connections.
_DECODER = ReQLDecoder({"time_format": "raw", "binary_format": "raw"})
_JSON = json.JSONDecoder()
_SEQUENCES = (Response.ResponseType.SUCCESS_SEQUENCE, Response.ResponseType.SUCCESS_PARTIAL)


class Alien(Exception):
    """The peer does not speak as RethinkDB does."""


class Lost(Exception):
    """The connection ended."""


class LoginRefused(Exception):
    """RethinkDB refused the user or the password, in its own words."""


class Forbidden(Exception):
    """RethinkDB refused a query for want of a permission, in its own words."""


class QueryFailed(Exception):
    """RethinkDB answered a query with an error, in its own words."""


class Wire(asyncio.Protocol):
    """The connection. ``on_lost`` is called once when it ends, by whichever side."""

    def __init__(self) -> None:
        self.on_lost: Callable[[], None] | None = None
        self.open = False
        self.version: str | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._greeting = True
        self._reader: asyncio.Future[bytes] | None = None
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._token = 0
        self._broken: Exception | None = None

    # ------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.open = True

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if self._greeting:
            if self._reader is not None:
                self._greet_reader()
            elif len(buffer) > MAX_GREETING_BYTES:
                self._break(Alien("sends without being asked"))
            return
        while len(buffer) >= 12:
            token, size = _HEADER.unpack_from(buffer)
            if size > MAX_ANSWER_BYTES:
                self._break(Alien(f"announces an answer of {size} bytes"))
                return
            if len(buffer) < 12 + size:
                return
            body = bytes(buffer[12 : 12 + size])
            del buffer[: 12 + size]
            future = self._pending.pop(token, None)
            if future is not None:
                if not future.done():
                    future.set_result(body)
            elif token > self._token:
                self._break(Alien(f"answers to token {token}, which was never used"))
                return
            # Else it is late: an answer to a query that nobody waits for any more.

    def connection_lost(self, exc: Exception | None) -> None:
        if self._greeting and self._buffer:
            self._break(Alien(f"sent {bytes(self._buffer[:40])!r} and hung up"))
        self._break(Lost())

    def _break(self, why: Exception) -> None:
        """Nothing more will come: tell all who wait."""
        if self._broken is None:
            self._broken = why
        waiting = [*self._pending.values(), *([self._reader] if self._reader else [])]
        self._pending.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(self._broken)
        was_open, self.open = self.open, False
        if self._transport is not None:
            self._transport.abort()
        if was_open and self.on_lost is not None:
            self.on_lost()

    def close(self) -> None:
        """End it at once, without telling ``on_lost``."""
        self.on_lost = None
        self._break(Lost())

    # ------------------------------------------------------------ waiting

    async def _wait(self, future: asyncio.Future[bytes], deadline: float) -> bytes:
        """The future's result, by the deadline (of the loop's clock) and not a moment later."""
        timer = self._loop.call_at(deadline, _expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _greet_reader(self) -> None:
        end = self._buffer.find(b"\0", 0, MAX_GREETING_BYTES)
        if end < 0:
            if len(self._buffer) > MAX_GREETING_BYTES:
                self._break(Alien(f"sent {len(self._buffer)} bytes without ending its greeting"))
            return
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(message)

    async def _greeting_message(self, deadline: float) -> bytes:
        if self._broken is not None:
            raise self._broken
        future = self._reader = self._loop.create_future()
        self._greet_reader()
        return await self._wait(future, deadline)

    # ------------------------------------------------------------ what is said

    def _send(self, data: bytes) -> None:
        if self._broken is not None or self._transport is None:
            raise self._broken or Lost()
        self._transport.write(data)

    async def greet(
        self, host: str, port: int, user: str, password: str, deadline: float, crypto: Executor
    ) -> None:
        """The V1_0 handshake, by the driver's own state machine."""
        shake = HandshakeV1_0(_JSON, json.JSONEncoder(), host, port, user, password)
        # RethinkDB's salt stays the same per user: a reconnect need not compute again what costs a millisecond,
        # nor a mass reconnect a second. (The driver, 2.4.10, looks the function up here; else nothing is gained.)
        shake._pbkdf2_hmac = salted_password
        self._send(shake.next_message(None))
        greeting = await self._greeting_message(deadline)
        shake.next_message(greeting)
        version = json.loads(greeting).get("server_version")
        self.version = version if isinstance(version, str) else None
        challenge = await self._greeting_message(deadline)
        check_iterations(challenge)
        # PBKDF2 costs a millisecond with RethinkDB's count: a mass reconnect would add it up on the loop.
        proof = self._loop.run_in_executor(crypto, advance, shake, challenge)
        self._send(await self._wait(proof, deadline))
        advance(shake, await self._greeting_message(deadline))
        self._greeting = False
        if self._buffer:
            self.data_received(b"")

    async def _ask(self, kind: int, token: int, term: Any, optargs: Any, deadline: float) -> Any:
        query = net.Query(kind, token, term, optargs)
        future = self._loop.create_future()
        self._pending[token] = future
        try:
            self._send(query.serialize())
            body = await self._wait(future, deadline)
        finally:
            self._pending.pop(token, None)
        if len(body) > PARSE_OFF_LOOP_BYTES:
            parsing = self._loop.run_in_executor(None, net.Response, token, body, _DECODER)
            answer = await self._wait(parsing, deadline)
        else:
            answer = net.Response(token, body, _DECODER)
        return query, answer

    async def server_info(self, deadline: float) -> dict[str, Any]:
        """Id, name and proxy of the server that answers. Needs no permission, reads no table."""
        self._token += 1
        _, answer = await self._ask(Query.QueryType.SERVER_INFO, self._token, None, None, deadline)
        if answer.type != Response.ResponseType.SERVER_INFO:
            raise Alien(f"answers SERVER_INFO with type {answer.type!r}")
        info = answer.data[0]
        if not isinstance(info, dict):
            raise Alien("answers SERVER_INFO with something else")
        return info

    async def table(self, term: Any, deadline: float) -> list[dict[str, Any]]:
        """All documents of a (system) table. Raises Forbidden or QueryFailed with RethinkDB's own words.

        Documents are iterated: ``coerce_to('array')`` would hide a missing permission (2.4.4).
        """
        self._token += 1
        token = self._token
        items: list[dict[str, Any]] = []
        kind, what, optargs = Query.QueryType.START, term, {}
        while True:
            query, answer = await self._ask(kind, token, what, optargs, deadline)
            if answer.type not in _SEQUENCES:
                error = answer.make_error(query)
                words = str(getattr(error, "message", error))[:300]
                raise (
                    Forbidden(words)
                    if isinstance(error, ReqlPermissionError)
                    else QueryFailed(words)
                )
            items += [item for item in answer.data if isinstance(item, dict)]
            if answer.type == Response.ResponseType.SUCCESS_SEQUENCE:
                return items
            if len(items) > MAX_SEQUENCE_ITEMS:
                raise Alien(f"sends more than {MAX_SEQUENCE_ITEMS} documents")
            kind, what, optargs = Query.QueryType.CONTINUE, None, None


@functools.lru_cache(maxsize=10_000)
def salted_password(hash_name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac(hash_name, password, salt, iterations)


def _expire(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(asyncio.TimeoutError())


def advance(shake: HandshakeV1_0, message: bytes) -> bytes:
    """One step of the handshake. The server's own refusal is `LoginRefused`; what the driver finds odd is not."""
    try:
        answer = shake.next_message(message)
    except ReqlAuthError as exc:
        refused = json.loads(message)
        if isinstance(refused, dict) and refused.get("success") is False:
            raise LoginRefused(str(refused.get("error"))[:200]) from None
        raise Alien(exc.message) from None
    return answer if isinstance(answer, bytes) else b""


def check_iterations(challenge: bytes) -> None:
    """The server chooses how long PBKDF2 runs: read its count before computing anything."""
    fields = json.loads(challenge)
    for part in str(fields.get("authentication", "")).split(","):
        if part.startswith("i="):
            count = part[2:]
            if not count.isascii() or not count.isdigit() or len(count) > 9:
                raise Alien(f"asks for {count[:20]!r} rounds of PBKDF2")
            if int(count) > MAX_ITERATIONS:
                raise Alien(f"asks for {count} rounds of PBKDF2")
