"""One dial of a RethinkDB node in asyncio: as `dial`, on the driver's asyncio connection (2.4.10)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from rethinkdb import net
from rethinkdb.asyncio_net import net_asyncio
from rethinkdb.errors import ReqlDriverError, ReqlTimeoutError

from ..driver.address import Address
from .failures import OURS
from .greeting import Login, Stage, check_info, check_peer, conversation, prepare, worst
from .names import aresolve


class _AsyncInstance(net_asyncio.ConnectionInstance):
    query_timeout_s: float | None = None
    ended_by: Exception | None = None

    async def connect(self, timeout: float) -> Any:
        try:
            await asyncio.wait_for(self._connect(timeout), timeout)
        except BaseException:
            self.abort()
            raise
        self.query_timeout_s = self._parent.login.query_timeout_s
        return self._parent

    def abort(self) -> None:
        self._closing = True
        for cursor in list(self._cursor_cache.values()):
            cursor._error("Connection is closed.")
        for _, answer in self._user_queries.values():
            if not answer.done():
                answer.set_exception(ReqlDriverError("Connection is closed."))
        if self._streamwriter is not None:
            self._streamwriter.transport.abort()
        if self._reader_task is not None:
            self._reader_task.cancel()

    async def close(
        self, noreply_wait: bool = False, token: Any = None, exception: Exception | None = None
    ) -> None:
        self.ended_by = exception  # the driver keeps its words only
        try:
            await super().close(noreply_wait, token, exception)
        except BaseException:
            self.abort()
            raise

    async def run_query(self, query: Any, noreply: bool) -> Any:
        try:
            return await asyncio.wait_for(super().run_query(query, noreply), self.query_timeout_s)
        except asyncio.TimeoutError:
            self.abort()
            raise ReqlTimeoutError(self._parent.host, self._parent.port) from None

    async def _connect(self, timeout: float) -> None:
        parent = self._parent
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        parent.stage.name = "name"
        found = await aresolve(parent.address, timeout)
        failures: list[Exception] = []
        for index, (family, sockaddr) in enumerate(found):
            try:
                await self._open(family, sockaddr, (deadline - loop.time()) / (len(found) - index))
                break
            except (OSError, asyncio.TimeoutError) as exc:
                failures.append(exc)
                if parent.stage.name == "TLS" or getattr(exc, "errno", None) in OURS:
                    break
        if self._streamwriter is None:
            raise worst(failures)
        parent.stage.name = "handshake"
        await self._greet()
        parent.stage.name = "answer"
        self._reader_task = asyncio.ensure_future(self._reader())
        query = net.Query(net.pQuery.SERVER_INFO, parent._new_token(), None, None)
        try:
            info = await self.run_query(query, False)
        except ReqlDriverError as exc:
            raise self.ended_by or exc from None
        check_info(info)

    async def _open(self, family: int, sockaddr: Any, patience_s: float) -> None:
        """TCP, and TLS where asked for. Several addresses share the time for TCP."""
        parent = self._parent
        tls = parent.login.tls
        parent.stage.name = "TCP"
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            connecting = asyncio.get_running_loop().sock_connect(sock, sockaddr)
            await asyncio.wait_for(connecting, patience_s)
            check_peer(sock)
            prepare(sock)
            parent.stage.name = "TLS" if tls else "handshake"
            host = parent.address.host.partition("%")[0] if tls else None
            self._streamreader, self._streamwriter = await asyncio.open_connection(
                sock=sock, ssl=tls, server_hostname=host
            )
        except BaseException:
            sock.close()
            raise

    async def _greet(self) -> None:
        talk = conversation(self._parent.address, self._parent.login)
        say = next(talk)
        with contextlib.suppress(StopIteration):
            while True:
                self._streamwriter.write(say)
                say = talk.send(await self._streamreader.read(4096))


class AsyncConnection(net_asyncio.Connection):
    """The driver's asyncio connection, dialled under a deadline."""

    _instance: Any  #: None when it is closed

    def __init__(self, address: Address, login: Login, timeout_s: float) -> None:
        super().__init__(
            address.host, address.port, login.db, None, login.user, login.password,
            timeout_s, {}, 10,
        )  # fmt: skip
        self._conn_type = _AsyncInstance
        self.address = address
        self.login = login
        self.stage = Stage()

    def abort(self) -> None:
        """End it without waiting for anything. ``close`` waits until what was written is sent, at a hung node for ever."""
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.abort()

    def __repr__(self) -> str:
        return f"<asyncio connection to {self.address}>"


async def adial(address: Address, login: Login, timeout_s: float, stage: Stage) -> AsyncConnection:
    """As `dial`, in the running loop."""
    made = AsyncConnection(address, login, timeout_s)
    made.stage = stage
    made._instance = _AsyncInstance(made)
    await made._instance.connect(timeout_s)
    return made
