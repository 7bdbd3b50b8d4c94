"""One dial of a RethinkDB node in asyncio, as `dial` does it, with the driver's asyncio connection (2.4.10)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from rethinkdb import net
from rethinkdb.asyncio_net import net_asyncio
from rethinkdb.errors import ReqlDriverError, ReqlTimeoutError

from ..driver.address import Address
from ..driver.causes import Stage
from ..driver.dialling import InTurn, certified, prepare
from .errors import one_failed
from .failures import DIAL_ERRORS, classify
from .greeting import Login, Progress, check_info, conversation
from .names import aresolve
from .settings import seconds


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

    def abort(self, flush: bool = False) -> None:
        """End the connection without waiting, and raise an error in all that wait for an answer.

        ``flush``: what is unsent is sent first, if the node takes it.
        """
        self._closing = True
        for cursor in list(self._cursor_cache.values()):
            cursor._error("Connection is closed.")
        for _, answer in self._user_queries.values():
            if not answer.done():
                answer.set_exception(ReqlDriverError("Connection is closed."))
        if self._streamwriter is not None:
            transport = self._streamwriter.transport
            if flush and transport.get_write_buffer_size():
                transport.close()
                return
            transport.abort()
        if self._reader_task is not None:
            self._reader_task.cancel()

    async def close(
        self, noreply_wait: bool = False, token: Any = None, exception: Exception | None = None
    ) -> None:
        self.ended_by = exception  # the driver keeps only the text of the exception
        try:
            await super().close(noreply_wait, token, exception)
        except OSError:
            self.abort()  # it has ended already, and in this way
        except BaseException:
            self.abort()
            raise

    async def _reader(self) -> None:
        try:
            await super()._reader()
        finally:
            # The driver leaves those without an answer who have asked while the connection was being closed (2.4.10).
            for _, answer in self._user_queries.values():
                if not answer.done():
                    answer.set_exception(ReqlDriverError("Connection is closed."))

    async def run_query(self, query: Any, noreply: bool) -> Any:
        if self._reader_task is None or self._reader_task.done():
            raise ReqlDriverError("Connection is closed.")
        try:
            return await asyncio.wait_for(super().run_query(query, noreply), self.query_timeout_s)
        except asyncio.TimeoutError:
            self.abort()
            raise ReqlTimeoutError(self._parent.host, self._parent.port) from None

    async def _connect(self, timeout: float) -> None:
        parent = self._parent
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        parent.progress.stage = Stage.NAME
        rows = InTurn(await aresolve(parent.address, timeout))
        for family, sockaddr in rows:
            try:
                await self._open(family, sockaddr, lambda: rows.share_s(deadline - loop.time()))
                break
            except BaseException as exc:
                rows.failed(exc, parent.progress.stage)
        else:
            raise rows.told()
        await self._greet()
        parent.progress.stage = Stage.ANSWER
        self._reader_task = asyncio.ensure_future(self._reader())
        query = net.Query(net.pQuery.SERVER_INFO, parent._new_token(), None, None)
        try:
            info = await self.run_query(query, False)
        except ReqlDriverError as exc:
            raise self.ended_by or exc from None
        check_info(info)

    async def _open(self, family: int, sockaddr: Any, share_s: Callable[[], float]) -> None:
        """Connect to one address by TCP, with TLS if asked for. ``share_s``: its share of the time that is left."""
        progress, login = self._parent.progress, self._parent.login
        progress.stage = Stage.TCP
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            connecting = asyncio.get_running_loop().sock_connect(sock, sockaddr)
            await asyncio.wait_for(connecting, share_s())
            # From here on the connection was accepted, even if it has been reset already (ENOTCONN).
            progress.stage = Stage.TLS if login.tls else Stage.HANDSHAKE
            prepare(sock)
            host = certified(self._parent.address) if login.tls else None
            opening = asyncio.open_connection(sock=sock, ssl=login.tls, server_hostname=host)
            self._streamreader, self._streamwriter = await asyncio.wait_for(opening, share_s())
            progress.stage = Stage.HANDSHAKE
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

    _instance: Any  #: None when the connection is closed

    def __init__(self, address: Address, login: Login, timeout_s: float) -> None:
        super().__init__(
            address.host, address.port, login.db, None, login.user, login.password,
            timeout_s, {}, 10,
        )  # fmt: skip
        self._conn_type = _AsyncInstance
        self.address = address
        self.login = login
        self.progress = Progress()

    def abort(self) -> None:
        """End the connection without waiting. ``close`` waits until all is sent, which is for ever at a hung node."""
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.abort()

    async def reconnect(self, noreply_wait: bool = True, timeout: float | None = None) -> Any:
        """Connect anew. Raises a `ConnectError`, after which this is a closed connection."""
        limit_s = seconds("timeout", timeout, optional=True) or self.connect_timeout
        await self.close(noreply_wait)
        self.progress = Progress()
        instance = _AsyncInstance(self)
        try:
            await instance.connect(limit_s)
        except DIAL_ERRORS as exc:
            failure, error = classify(exc, self.progress.stage)
            raise one_failed(self.address, failure, error) from exc
        self._instance = instance
        return self

    def __exit__(self, *_: Any) -> None:
        """The driver's own leaves the connection open: it has nobody who waits for its end (2.4.10)."""
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.abort(flush=True)

    def __repr__(self) -> str:
        return f"<asyncio connection to {self.address}>"


async def adial(
    address: Address, login: Login, timeout_s: float, progress: Progress
) -> AsyncConnection:
    """Like `dial.dial`, but in the running loop."""
    made = AsyncConnection(address, login, timeout_s)
    made.progress = progress
    made._instance = _AsyncInstance(made)
    await made._instance.connect(timeout_s)
    return made
