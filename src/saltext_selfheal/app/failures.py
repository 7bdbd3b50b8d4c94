"""The meaning of failures: `classify` turns any exception of a dial or a query into a `Failure` and a line of text.

Nothing here dials or waits.
"""

from __future__ import annotations

import asyncio
import re
import struct
from concurrent.futures import TimeoutError as Unresolved
from enum import Enum

from rethinkdb import net
from rethinkdb.asyncio_net import net_asyncio
from rethinkdb.errors import (
    ReqlAuthError,
    ReqlCompileError,
    ReqlDriverError,
    ReqlError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlPermissionError,
)

from ..driver.answer import Alien
from ..driver.causes import Cause, Stage, cause, in_words
from ..driver.text import plain
from ..driver.wire import Lost, Refused

#: RethinkDB uses the same error for a table that cannot serve now and for one that does not exist (2.4.4). With these
#: words in its text, the table cannot serve now.
_NOT_NOW = (
    "not available", "unavailable", "unreachable", "lost contact", "not ready", "timed out",
    "changing from one replica", "quorum of replicas", "too many primary", "no replica is available",
    "any data available", "retrieve the table configuration",
)  # fmt: skip

#: What a dial and the driver may raise, also on hostile answers. Any other exception comes from outside. An example is
#: Celery's soft time limit, which a signal raises wherever the program is.
DIAL_ERRORS = (
    ReqlError, Alien, Lost, Refused, OSError, EOFError, asyncio.TimeoutError, Unresolved, ValueError, TypeError,
    AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError, struct.error,
)  # fmt: skip


class Failure(str, Enum):
    """What a failure says about the node, or about the application."""

    DEAD = "dead"  #: it refused the connection, or ended an open one
    HUNG = "hung"  #: it accepts TCP, but says nothing in time
    UNREACHABLE = "unreachable"  #: no answer to TCP, no route, no such name
    ALIEN = "alien"  #: it answers, but not as RethinkDB does
    AUTH = "auth"  #: login or permission refused
    TLS = "tls"  #: certificate or TLS failure
    NOT_READY = "not ready"  #: it serves, but this table does not serve now
    INDETERMINATE = "indeterminate"  #: it is not known whether a write was done
    APPLICATION = "application error"  #: the query itself is wrong

    def __str__(self) -> str:
        return self.value


#: The failure and the line for each cause. ``why`` stands for the exception's own words.
_FAILURES: dict[Cause, tuple[Failure, str]] = {
    Cause.OURS: (Failure.UNREACHABLE, "this machine cannot open a connection: {why}"),
    Cause.NAME_SILENT: (Failure.UNREACHABLE, "its name does not resolve in time"),
    Cause.TCP_SILENT: (Failure.UNREACHABLE, "does not answer to TCP in time"),
    Cause.TLS_SILENT: (Failure.HUNG, "accepts TCP, but no TLS handshake in time"),
    Cause.GREETING_SILENT: (Failure.HUNG, "accepts TCP, but no handshake in time"),
    Cause.ANSWER_SILENT: (Failure.HUNG, "is connected, but gives no answer in time"),
    Cause.NO_NAME: (Failure.UNREACHABLE, "its name does not resolve: {why}"),
    Cause.REFUSED: (Failure.DEAD, "connection refused"),
    Cause.UNREACHABLE: (Failure.UNREACHABLE, "{why}"),
    Cause.TLS: (Failure.TLS, "TLS failed: {why}"),
    Cause.TLS_ENDED: (Failure.DEAD, "connection closed in the {at}"),
    Cause.LOGIN: (Failure.AUTH, "login refused: {why}"),
    Cause.ENDED: (Failure.DEAD, "connection closed in the {at}"),
    Cause.BROKEN: (Failure.DEAD, "breaks the connection in the {at}: {why}"),
    Cause.ALIEN: (Failure.ALIEN, "does not speak as RethinkDB does: {why}"),
}


def classify(exc: BaseException, at: str = "query") -> tuple[Failure, str]:
    """The failure that an exception means, and a line of text about it.

    ``at`` is the stage of the dial (`Stage`), or ``dial`` for a connect that tells no stages. With ``query`` only the
    driver's own errors count.
    """
    ours = isinstance(exc, (ReqlError, Alien, Lost))
    driver = isinstance(exc, DIAL_ERRORS) and _from_the_driver(exc)
    if at == "query" and not ours and not driver:
        # A function that makes queries may also do other things, such as read files. Their errors are the
        # application's.
        return Failure.APPLICATION, f"{type(exc).__name__}: {plain(exc)}"
    if isinstance(exc, ReqlError) and not isinstance(exc, TimeoutError):
        return _reql_error(exc, at)
    if at == "query" and isinstance(exc, AttributeError):
        # The driver uses its socket without checking whether it still has one (2.4.10).
        return Failure.DEAD, "connection closed under the query"
    failure, sentence = _FAILURES[cause(exc, at if isinstance(at, Stage) else None)]
    return failure, sentence.format(at=at, why=plain(in_words(exc)))


def _reql_error(exc: ReqlError, at: str) -> tuple[Failure, str]:
    """The failure that an error of the driver means. Many have one class, so that their texts must be read."""
    # `message` is used, because str() would print the query with the data that it writes.
    words = plain(getattr(exc, "message", "") or type(exc).__name__)
    if isinstance(exc, (ReqlAuthError, ReqlPermissionError)):
        return Failure.AUTH, words
    if isinstance(at, Stage) and not isinstance(exc, ReqlDriverError):
        return Failure.ALIEN, f"answers SERVER_INFO with an error: {words}"
    if isinstance(exc, ReqlOpIndeterminateError):
        return Failure.INDETERMINATE, words
    if isinstance(exc, ReqlOpFailedError):
        said = re.sub(r"`[^`]*`", "", words).lower()  # without the names of tables
        now = any(sign in said for sign in _NOT_NOW)
        return (Failure.NOT_READY if now else Failure.APPLICATION), words
    if not isinstance(exc, ReqlDriverError) or isinstance(exc, ReqlCompileError):
        return Failure.APPLICATION, words
    # The driver raises its own error with the cause in its text. The real exception is the one behind it (2.4.10).
    behind = exc.__cause__ or exc.__context__
    if words.startswith(("Could not connect", "SSL handshake")) and behind is not None:
        dialling = Stage.HANDSHAKE if "handshake" in words else Stage.TCP
        return classify(behind, at if isinstance(at, Stage) else dialling)
    closed = ("Connection is closed", "Connection interrupted", "Error receiving", "Error sending")
    if words.startswith(closed):
        return Failure.DEAD, words
    if words.startswith(("Unexpected", "Unknown Response")) or isinstance(at, Stage):
        return Failure.ALIEN, words
    return Failure.APPLICATION, words


def _from_the_driver(exc: BaseException) -> bool:
    """Whether the exception was raised where the driver reads and writes, and not by building or encoding a query."""
    trace = exc.__traceback__
    names = []
    while trace is not None:
        frame = trace.tb_frame
        names.append((frame.f_globals.get("__name__", ""), frame.f_code.co_name))
        trace = trace.tb_next
    driver = [function for module, function in names if module in _DRIVER_NETS]
    if not driver or driver[-1] == "serialize":
        return False
    return names[-1][0].partition(".")[0] in _BELOW or names[-1][0] in _DRIVER_NETS


_BELOW = ("rethinkdb", "json", "socket", "ssl", "asyncio")
#: The modules in which the driver's connections and ours read and write.
_DRIVER_NETS = (
    net.__name__,
    net_asyncio.__name__,
    *(f"{__package__}.{name}" for name in ("dial", "async_dial", "greeting", "names")),
)
