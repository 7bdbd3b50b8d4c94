"""One connection to a RethinkDB server. Every wait has a deadline.

The official driver (2.4.10) does the handshake and serialises queries. Its connections are not used, because they have
no deadline: a stopped server holds them for ever. Its reader of answers is not used either, because it reads answers of
any size at once (`answer` reads them here). This file only moves the bytes and judges nothing: what goes wrong is
raised. If the driver's functions raise something on input that no RethinkDB sends, it is passed on as it is.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
import struct
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol, cast

from rethinkdb import net
from rethinkdb.errors import ReqlAuthError, ReqlDriverError
from rethinkdb.handshake import HandshakeV1_0
from rethinkdb.ql2_pb2 import Query, Response

from .answer import (
    AT_ONCE_BYTES,
    MAX_DOCUMENTS,
    Alien,
    Keep,
    Parsed,
    at_once,
    in_pieces,
    leisurely,
    spoken,
)
from .text import said

MAX_GREETING_BYTES = 64 * 1024
MAX_INFO_BYTES = 64 * 1024  #: an answer to SERVER_INFO really has about a hundred bytes
MAX_ANSWER_BYTES = 8 * 1024 * 1024  #: RethinkDB's own batches have about one megabyte
MAX_TABLE_BYTES = 32 * 1024 * 1024  #: all answers together that make one table
MAX_UNWANTED = 1000  #: a peer may owe at most this many answers that nobody waits for any more
#: Rounds of PBKDF2. RethinkDB asks for 4,096; a hostile server could ask for so many that they take hours of CPU.
MAX_ITERATIONS = 1_000_000
PROOF_S = 60.0  #: this side may compute this long for a login

_HEADER = struct.Struct("<QL")
# A decoder has no state, but is a circle of references that only garbage collection frees. So all connections share
# one.
_JSON = json.JSONDecoder()
_INFO = b"[%d]" % Query.QueryType.SERVER_INFO  #: serialised once, because each probe sends it
_NOT_DONE = (Response.ErrorType.OP_FAILED, Response.ErrorType.OP_INDETERMINATE)
_SEQUENCES = (Response.ResponseType.SUCCESS_SEQUENCE, Response.ResponseType.SUCCESS_PARTIAL)


class Ours(Exception):
    """It went wrong on this side, and proves nothing about the peer."""


class Lost(Exception):
    """The connection ended."""


class Refused(Exception):
    """RethinkDB refused the user or the password, in its own words."""


class Forbidden(Exception):
    """RethinkDB refused a query because a permission is missing, in its own words."""


class QueryFailed(Exception):
    """RethinkDB answered a query with an error, in its own words. ``code`` is its kind, if RethinkDB named one."""

    def __init__(self, words: str, code: Any = None) -> None:
        super().__init__(words)
        self.code = code

    @property
    def not_done(self) -> bool:
        """The operation failed, or may have: nothing is wrong with the query itself, as far as the kind tells."""
        return self.code in _NOT_DONE


class LoginPlace(Protocol):
    """The caller's place among those that log in at the same time."""

    def work(self) -> None: ...

    def wait_for_peer(self) -> None: ...


class _Asked(NamedTuple):
    """A query that waits for its answer, and how large that may be."""

    answer: asyncio.Future[bytes]
    most: int


class Wire(asyncio.Protocol):
    """The connection. ``on_lost`` is called once when it ends, on whichever side.

    ``turn`` is a lock that all connections of this loop share: only one of them reads a large answer at a time.
    """

    def __init__(self, turn: asyncio.Lock) -> None:
        self.on_lost: Callable[[], None] | None = None
        self.open = False
        self.heard = False
        self.version: str | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._greeting = True
        self._reader: asyncio.Future[bytes] | None = None
        self._turn = turn
        self._pending: dict[int, _Asked] = {}
        self._unwanted: set[int] = (
            set()
        )  # tokens of queries whose answers nobody waits for any more
        self._skip = 0  # this many bytes of such a late answer are still to come, and are dropped
        self._token = 0
        self._broken: Exception | None = None

    # ------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Take data: parts of the greeting first, then answers, each with the token of its query and its size.

        Sizes are checked before anything is kept. An answer that nobody waits for any more is dropped as it comes.
        """
        self.heard = True
        buffer = self._buffer
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        buffer += data
        if self._greeting:
            if self._reader is not None:
                self._greet_reader()
            elif len(buffer) > MAX_GREETING_BYTES:
                self._break(Alien(f"sends without being asked: {said(buffer)}"))
            return
        while len(buffer) >= 12:
            token, size = _HEADER.unpack_from(buffer)
            asked = self._pending.get(token)
            if asked is None and token not in self._unwanted:
                self._break(Alien(f"answers to token {token}, which nobody has asked"))
                return
            if size > (asked.most if asked else MAX_ANSWER_BYTES):
                self._break(Alien(f"announces an answer of {size} bytes"))
                return
            if asked is None:
                self._unwanted.discard(token)
                here = min(len(buffer), 12 + size)
                del buffer[:here]
                self._skip = 12 + size - here
                continue
            if len(buffer) < 12 + size:
                return
            if size > AT_ONCE_BYTES:
                with memoryview(buffer) as view:
                    body = bytes(view[12 : 12 + size])
            else:
                body = bytes(buffer[12 : 12 + size])
            del buffer[: 12 + size]
            del self._pending[token]
            if not asked.answer.done():
                asked.answer.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._greeting and self._buffer:
            self._break(Alien(f"says {said(self._buffer)} and hangs up"))
        self._break(Lost())

    def _break(self, why: Exception) -> None:
        """End the connection, and raise this in all that wait for an answer. The first reason stays."""
        if self._broken is None:
            self._broken = why
        waiting = [asked.answer for asked in self._pending.values()]
        waiting += [self._reader] if self._reader else []
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
        """End the connection at once, without calling ``on_lost``."""
        self.on_lost = None
        self._break(Lost())

    # ------------------------------------------------------------ waiting

    async def _wait(self, future: asyncio.Future[bytes], deadline: float) -> bytes:
        """The future's result. Raises TimeoutError at the deadline, which is a time of the loop's clock."""
        timer = self._loop.call_at(deadline, _expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _greet_reader(self) -> None:
        """Give the next message of the greeting to its reader, if it is complete. A zero byte ends a message."""
        end = self._buffer.find(b"\0", 0, MAX_GREETING_BYTES)
        if end < 0:
            if len(self._buffer) > MAX_GREETING_BYTES:
                self._break(Alien(f"does not end its greeting, which begins {said(self._buffer)}"))
            return
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(message)

    async def _greeting_message(self, deadline: float) -> bytes:
        """Wait for the next message of the greeting. Raises Alien if what came so far cannot be RethinkDB's."""
        if self._broken is not None:
            raise self._broken
        future = self._reader = self._loop.create_future()
        self._greet_reader()
        try:
            return await self._wait(future, deadline)
        except asyncio.TimeoutError:
            if self._buffer.strip() and not self._buffer.lstrip().startswith(b"{"):
                raise Alien(f"says {said(self._buffer)} and waits") from None
            raise

    # ------------------------------------------------------------ what is said

    def _send(self, data: bytes) -> None:
        if self._broken is not None or self._transport is None:
            raise self._broken or Lost()
        self._transport.write(data)

    async def greet(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        deadline: float,
        crypto: Executor,
        place: LoginPlace,
    ) -> float:
        """Make the V1_0 handshake, by the driver's own state machine.

        Returns how long this side has computed. The peer is not to blame for that time, so the deadline moves by it.
        """
        shake = HandshakeV1_0(_JSON, json.JSONEncoder(), host, port, user, password)
        # RethinkDB uses the same salt for a user each time, so the result is remembered. It costs a millisecond, and a
        # second when a thousand connections are made again. The driver (2.4.10) looks the function up in this
        # attribute; a driver that does not would only compute it each time.
        shake._pbkdf2_hmac = salted_password
        self._send(shake.next_message(None))
        greeting = await self._greeting_message(deadline)
        fields = spoken(greeting)
        if fields.get("success") is False and isinstance(fields.get("error"), str):
            raise Alien(f"refuses the handshake: {said(fields['error'])}")
        shake.next_message(greeting)
        version = fields.get("server_version")
        self.version = version if isinstance(version, str) else None
        challenge = await self._greeting_message(deadline)
        check_iterations(challenge)
        place.work()
        began = self._loop.time()
        proof = await self._proof(shake, challenge, crypto)
        busy_s = self._loop.time() - began
        place.wait_for_peer()
        self._send(proof)
        advance(shake, await self._greeting_message(deadline + busy_s))
        self._greeting = False
        if self._buffer:
            self.data_received(b"")
        return busy_s

    async def _proof(self, shake: HandshakeV1_0, challenge: bytes, crypto: Executor) -> bytes:
        """The proof of the password, computed on a thread.

        PBKDF2 takes a millisecond with RethinkDB's number of rounds. If many connections are made again at once, that
        would add up on the loop.
        """
        try:
            computing = self._loop.run_in_executor(crypto, advance, shake, challenge)
        except RuntimeError as exc:  # no thread can be started, or the pool was shut down
            raise Ours(str(exc)) from None
        try:
            return await asyncio.wait_for(computing, PROOF_S)
        except asyncio.TimeoutError:
            raise Ours(f"computing a login's proof took longer than {PROOF_S:g} s") from None
        except (Alien, Refused, MemoryError):
            raise
        except Exception:
            unable = why_no_login()
            if unable:
                raise Ours(unable) from None
            raise

    async def _ask(self, token: int, frame: bytes, deadline: float, most: int) -> bytes:
        """Send a query and wait for its answer. If that does not come in time, it is dropped when it comes later."""
        asked = _Asked(self._loop.create_future(), most)
        self._pending[token] = asked
        try:
            self._send(frame)
            return await self._wait(asked.answer, deadline)
        finally:
            if self._pending.pop(token, None) is not None:
                self._unwanted.add(token)
                if len(self._unwanted) > MAX_UNWANTED:
                    self._break(Lost())

    async def server_info(self, deadline: float) -> dict[str, Any]:
        """Id, name and proxy of the server that answers, as a dict. This needs no permission and reads no table.

        ``deadline`` is a time of the loop's clock. Raises Alien, Lost or asyncio.TimeoutError.
        """
        self._token += 1
        frame = _HEADER.pack(self._token, len(_INFO)) + _INFO
        body = await self._ask(self._token, frame, deadline, MAX_INFO_BYTES)
        answer = at_once(body)
        info = answer.data[0] if answer.data else None
        if answer.kind != Response.ResponseType.SERVER_INFO or not isinstance(info, dict):
            raise Alien(f"answers SERVER_INFO with {said(body)}")
        return info

    @property
    def owed(self) -> int:
        """How many answers the peer owes that nobody waits for any more."""
        return len(self._unwanted)

    async def value(self, term: Any, deadline: float, keep: Keep) -> Any:
        """The one value that this query answers with: what ``keep`` keeps of a document. None if there is none.

        Raises Forbidden or QueryFailed with RethinkDB's own words.
        """
        self._token += 1
        query = net.Query(Query.QueryType.START, self._token, term, {})
        body = await self._ask(self._token, query.serialize(), deadline, MAX_ANSWER_BYTES)
        if len(body) <= AT_ONCE_BYTES:
            answer = at_once(body, keep)
        else:
            answer = await leisurely(in_pieces(body, keep), self._turn)
        if answer.kind != Response.ResponseType.SUCCESS_ATOM:
            raise _refusal(answer)
        return answer.data[0] if answer.data else None

    async def table(self, term: Any, deadline: float, keep: Keep) -> list[Any]:
        """Read all documents of a (system) table, and return what ``keep`` keeps of each.

        The documents are read as a sequence, because ``coerce_to('array')`` would hide a missing permission (2.4.4).
        Raises Forbidden or QueryFailed with RethinkDB's own words.
        """
        self._token += 1
        token = self._token
        items: list[Any] = []
        kind, what = Query.QueryType.START, term
        optargs: dict[str, Any] | None = {}
        count = size = rounds = 0
        while True:
            query = net.Query(kind, token, what, optargs)
            body = await self._ask(token, query.serialize(), deadline, MAX_ANSWER_BYTES)
            if len(body) <= AT_ONCE_BYTES:
                answer = at_once(body, keep)
            else:
                answer = await leisurely(in_pieces(body, keep), self._turn)
            if answer.kind not in _SEQUENCES:
                raise _refusal(answer)
            items += [item for item in answer.data if not isinstance(item, (str, type(None)))]
            if answer.kind == Response.ResponseType.SUCCESS_SEQUENCE:
                return items
            count, size, rounds = count + len(answer.data), size + len(body), rounds + 1
            if count > MAX_DOCUMENTS or rounds > MAX_DOCUMENTS:
                raise Alien(f"sends more than {MAX_DOCUMENTS} documents")
            if size > MAX_TABLE_BYTES:
                raise Alien(f"sends a table of more than {MAX_TABLE_BYTES} bytes")
            kind, what, optargs = Query.QueryType.CONTINUE, None, None


def _refusal(answer: Parsed) -> Exception:
    """The exception for an answer that is no sequence: Forbidden or QueryFailed."""
    words = said(str(answer.data[0] if answer.data else "")).strip('"')
    forbidden = answer.error == Response.ErrorType.PERMISSION_ERROR
    if answer.kind == Response.ResponseType.RUNTIME_ERROR and forbidden:
        return Forbidden(words)
    return QueryFailed(words, answer.error)


def why_no_login() -> str:
    """Why this process cannot log in anywhere. Empty if it can. With FIPS, hashes and passwords may be refused."""
    try:
        hashlib.pbkdf2_hmac("sha256", b"password", b"s" * 16, 1)
        hmac.new(b"key", b"message", hashlib.sha256).digest()
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    return ""


@functools.lru_cache(maxsize=10_000)
def salted_password(hash_name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    """PBKDF2, with results remembered. A server's salt stays the same per user, so only the first login takes time."""
    return hashlib.pbkdf2_hmac(hash_name, password, salt, iterations)


def _expire(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(asyncio.TimeoutError())


def advance(shake: HandshakeV1_0, message: bytes) -> bytes:
    """One step of the handshake: take a message, and return what to send next.

    Raises Refused if the server refuses the login, and Alien if the driver does not understand the message.
    """
    try:
        answer = shake.next_message(message)
    except ReqlAuthError as exc:
        refused = spoken(message)
        if refused.get("success") is False:
            raise Refused(said(str(refused.get("error"))).strip('"')) from None
        raise Alien(exc.message) from None
    except ReqlDriverError as exc:
        raise Alien(f"refuses the handshake: {said(str(exc.message))}") from None
    return answer if isinstance(answer, bytes) else b""


def check_iterations(challenge: bytes) -> None:
    """Raises Alien if a login would take too long to compute. The server chooses how many rounds PBKDF2 makes."""
    fields = spoken(challenge)
    for part in str(fields.get("authentication", "")).split(","):
        if part.startswith("i="):
            count = part[2:]
            if not count.isascii() or not count.isdigit() or len(count) > 9:
                raise Alien(f"asks for {count[:20]!r} rounds of PBKDF2")
            if int(count) > MAX_ITERATIONS:
                raise Alien(f"asks for {count} rounds of PBKDF2")
