"""
A simulated RethinkDB node: enough of the server for a client to believe it, and faults on command.

What lives here: the node (wire protocol with its real handshake, SERVER_INFO, the system tables
that a health check reads, a look at the cluster), its faults, its two forms (a process of its own
with a config file, a thread inside a test) and the control socket. What must not: anything of Salt
or of saltext_selfheal, and any package but the standard library (a node starts within 150 ms because
it imports little). Shapes and messages are those of RethinkDB 2.4.4.

In a test:

    with SimulatedNode(name="db1", password="secret") as node:
        connect(node.host, node.port)
        node.set_fault("silent")

As a process, with a config file of RethinkDB's own format:

    python -m tests.lab.simulated --config-file db1.conf

    directory=/var/lib/db1
    server-name=db1
    driver-port=28015
    cluster-port=29015
    join=127.0.0.1:29016
    initial-password=secret

Keys of our own beside RethinkDB's:

    simulate-control=PATH          the control socket (default: control.sock in the directory)
    simulate-tables=db.t,db.t2     the tables it claims to have (default: runbook.runbook)
    simulate-user=NAME:PASSWORD    one more user, who may read everything; repeatable
    simulate-hostname=NAME         network.hostname in server_status (many nodes on one machine)
    simulate-join-wait=SECONDS     with every peer down the driver port opens this late (real: 30)
    simulate-settle=SECONDS        tables are not ready for this long after a start (real: up to 3)
    simulate-fault={"fault": ...}  a fault from the first moment on, as the control socket takes it

The control socket takes one JSON object a line and answers one a line (always with `ok`):

    {"fault": NAME, ...options, "on_existing": "keep" or "drop", "add": true beside other faults}
    {"fault": null}   {"status": true}   {"drop": true}   {"batch": ROWS, null for all at once}

Simplified on purpose: of a user's tables it knows whole scans and the insert of one document, and
each node keeps what it was told itself; a majority that returns is usable at once; `initial-password` counts at
every start, not only at the first; the HTTP port is named in server_status but nobody listens
there; under TLS a stalled connection notices that its peer left only when the stall ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import hmac
import json
import os
import random
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SERVER_VERSION = "2.4.4"
LOOPBACK = "127.0.0.1"
UNIX_PATH_MAX_BYTES = 107
HANDSHAKE_MAX_BYTES = 2048
BACKLOG = 1024
QUERY_MAX_BYTES = 128 * 1024 * 1024

# A peer that refuses is gone at once; one that is merely late is gone when it was late twice in a
# row, because on a busy machine one late answer proves nothing.
PEER_TIMEOUT_S = 0.1
PEER_MISSES = 2
CLUSTER_LOOK_TTL_S = 0.2
PART_S = 1.0

# Ports are sought below the kernel's ephemeral range (32768 and up): a dial to a closed ephemeral
# port of one's own machine can be given that very port as its source, and then connects to itself
# instead of being refused.
FREE_PORTS = range(20000, 32000)

NAMESPACE = uuid.UUID("5d7cf1b6-3a0e-4d0a-9b39-6d1f5f9f4a10")


# --------------------------------------------------------------------------------------------------
# Faults
# --------------------------------------------------------------------------------------------------

STEPS = ("version", "auth_first", "auth_final", "query")
READINESS = ("unavailable", "outdated_reads", "reads", "writes", "finished")


@dataclasses.dataclass(frozen=True)
class FaultKind:
    """What can go wrong, in a sentence, and its options; a default tells the type."""

    name: str
    meaning: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


FAULTS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind("refuse", "the driver port is closed; dials are refused", {"cluster_too": True}),
        FaultKind("silent", "accepts, and never says a word", {"cluster_too": True}),
        FaultKind(
            "stall", "says nothing from this step on, until cleared", {"stall_at": "version"}
        ),
        FaultKind("wrong_password", "every login is refused with error 12"),
        FaultKind("unknown_user", "every login is refused with error 17"),
        FaultKind(
            "garbage",
            "sends bytes that are no RethinkDB; endless: without NUL, until the peer closes",
            {
                "bytes": "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
                "endless": False,
                "close": True,
            },
        ),
        FaultKind("close_mid_answer", "half an answer, then the end", {"at": "query"}),
        FaultKind("close_on_connect", "accepts and closes"),
        FaultKind("reset", "resets the connection (RST)"),
        FaultKind(
            "slow",
            "each answer takes delay_s, each byte byte_delay_s",
            {"delay_s": 0.0, "byte_delay_s": 0.0},
        ),
        FaultKind(
            "tables_not_ready",
            "tables (none named: all) are only ready for this much",
            {"tables": [], "readiness": "unavailable", "state": ""},
        ),
        FaultKind(
            "issue",
            "current_issues tells of these types",
            {"types": ["log_write_error"], "message": "No space left on device"},
        ),
        FaultKind(
            "huge_iterations", "asks for this many PBKDF2 rounds", {"iterations": 20_000_000}
        ),
        FaultKind("hang_system_tables", "only server_status and server_config answer"),
        FaultKind("no_permission", "the user may not read the system tables"),
        FaultKind("no_version", "the handshake does not name a server version"),
        FaultKind("server_version", "the handshake names another version", {"version": "9.9.9"}),
        FaultKind("partitioned", "neither sees its peers nor is seen by them"),
        FaultKind("non_utf8", "an answer that is no UTF-8", {"at": "version"}),
        FaultKind(
            "big_document",
            "answers carry this many bytes more",
            {"bytes": 1_000_000, "at": "query"},
        ),
    )
}

_CHOICES: dict[str, Sequence[str]] = {
    "stall_at": STEPS,
    "at": STEPS,
    "readiness": READINESS,
}

ISSUE_TYPES = ("log_write_error", "outdated_index", "memory_error", "table_availability")


class UnknownFault(ValueError):
    """A fault, an option or a value that does not exist."""


def checked_fault(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options, given and default ones; UnknownFault names what is wrong and what is allowed."""
    if name not in FAULTS:
        raise UnknownFault(f"no fault {name!r}; there are: {', '.join(sorted(FAULTS))}")
    allowed = FAULTS[name].options
    complete = dict(allowed)
    for key, value in options.items():
        if key not in allowed:
            known = ", ".join(allowed) or "none"
            raise UnknownFault(f"fault {name!r} has no option {key!r}; its options: {known}")
        default = allowed[key]
        if isinstance(value, bytes):
            value = value.decode("latin-1")  # JSON carries no bytes; latin-1 maps all 256 of them
        if isinstance(value, tuple):
            value = list(value)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            raise UnknownFault(
                f"option {key!r} of fault {name!r}: {value!r} is no {type(default).__name__}"
            )
        if key in _CHOICES and value not in _CHOICES[key]:
            raise UnknownFault(
                f"option {key!r} of fault {name!r}: {value!r} is none of {', '.join(_CHOICES[key])}"
            )
        complete[key] = value
    if name == "issue":
        unknown = [kind for kind in complete["types"] if kind not in ISSUE_TYPES]
        if unknown:
            raise UnknownFault(f"no issue type {unknown[0]!r}; there are: {', '.join(ISSUE_TYPES)}")
    return complete


# --------------------------------------------------------------------------------------------------
# Settings and the config file
# --------------------------------------------------------------------------------------------------

Address = tuple[str, int]


class StartError(Exception):
    """The node cannot start; the text is what goes to stderr."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """One node, as its config file describes it. A port of 0 in a test means: any free one."""

    name: str = "rethinkdb"
    directory: Path | None = None
    driver_port: int = 28015
    cluster_port: int = 29015
    addresses: tuple[str, ...] = (LOOPBACK,)
    join: tuple[Address, ...] = ()
    users: tuple[tuple[str, str], ...] = (("admin", ""),)
    canonical_addresses: tuple[Address, ...] = ()
    http_port: int | None = None
    cache_size_mb: int | None = None
    log_file: Path | None = None
    tls_key: Path | None = None
    tls_cert: Path | None = None
    control: Path | None = None
    tables: tuple[str, ...] = ("runbook.runbook",)
    hostname: str | None = None
    join_wait_s: float = 0.0
    settle_s: float = 0.0
    fault: dict[str, Any] | None = None
    argv: tuple[str, ...] = ()


_SINGLE = {
    "directory",
    "driver-port",
    "cluster-port",
    "http-port",
    "server-name",
    "initial-password",
    "cache-size",
    "cores",
    "log-file",
    "driver-tls-key",
    "driver-tls-cert",
    "simulate-control",
    "simulate-tables",
    "simulate-hostname",
    "simulate-join-wait",
    "simulate-settle",
    "simulate-fault",
}
_REPEATED = {"bind", "join", "canonical-address", "simulate-user"}
_FLAGS = {"no-http-admin", "no-update-check", "no-default-bind"}
# Options of RethinkDB that change nothing a client of the driver port could see.
_WITHOUT_EFFECT = {
    "cluster-reconnect-timeout",
    "io-threads",
    "join-delay",
    "pid-file",
    "reql-http-proxy",
    "rungroup",
    "runuser",
    "server-tag",
    "tls-ciphers",
    "tls-dhparams",
    "tls-ecdh-curve",
    "tls-min-protocol",
    "web-static-directory",
}


def parse_config(text: str, source: str) -> dict[str, list[str]]:
    """Option name to its values, by RethinkDB's own rules; StartError tells the line."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        trouble = (
            f"Error in the configuration file {source}: Config file {source}:"
            f" parse error at line {number}"
        )
        match = re.fullmatch(r"([^\s=]+)\s*(?:(=)\s*(.*))?", line)
        if match is None:
            raise StartError(trouble)
        name, equals, value = match.groups()
        if name in _FLAGS:
            if equals:
                raise StartError(f"{trouble}: unexpected data after no-parameter option '{name}'")
            found[name] = [""]
        elif name in _SINGLE or name in _REPEATED or name in _WITHOUT_EFFECT:
            if not equals:
                raise StartError(trouble)
            if not value:
                raise StartError(f"{trouble}: no parameter for option '{name}'")
            if name in _SINGLE and name in found:
                raise StartError(f"{trouble}: Option '--{name}' specified too many times.")
            found.setdefault(name, []).append(value)
        else:
            raise StartError(f"{trouble}: unrecognized option name '{name}'")
    return found


def read_config(path: Path, argv: Sequence[str] = ()) -> Settings:
    """The settings in a config file; StartError when it is missing, damaged or makes no sense."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise StartError(f"Trouble reading config file '{path}': {exc}") from exc
    found = parse_config(text, str(path))

    def trouble(option: str, value: str, expected: str) -> StartError:
        return StartError(
            f"Error in the configuration file {path}: Option '--{option}' is '{value}',"
            f" but it must be {expected}"
        )

    def one(option: str, default: str) -> str:
        return found.get(option, [default])[-1]

    def number(option: str, default: str) -> float:
        value = one(option, default)
        try:
            result = float(value)
        except ValueError:
            result = -1.0
        if not 0 <= result < float("inf"):
            raise trouble(option, value, "a number, not negative")
        return result

    def a_port(option: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
            raise trouble(option, value, "a port between 1 and 65535")
        return int(value)

    def addresses(option: str, default_port: int) -> tuple[Address, ...]:
        result = []
        for value in found.get(option, []):
            match = re.fullmatch(r"\[?([^\s\]]+?)\]?(?::([^:]*))?", value)
            if match is None:
                raise trouble(option, value, "host[:port]")
            host, port = match.groups()
            result.append((host, default_port if port is None else a_port(option, port)))
        return tuple(result)

    def a_path(option: str) -> Path | None:
        return Path(found[option][-1]) if option in found else None

    name = one("server-name", re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname()))
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise trouble("server-name", name, "a name of A-Z, a-z, 0-9, _ and -")
    if ("driver-tls-key" in found) != ("driver-tls-cert" in found):
        raise StartError(
            "error: --driver-tls-key and --driver-tls-cert must be specified together."
        )
    cache_size = one("cache-size", "auto")
    if number("cores", "1") < 1:
        raise trouble("cores", one("cores", ""), "at least 1")
    users = [("admin", one("initial-password", ""))]
    for user in found.get("simulate-user", []):
        user_name, colon, password = user.partition(":")
        if not user_name or not colon:
            raise trouble("simulate-user", user, "NAME:PASSWORD")
        users.append((user_name, password))
    tables = tuple(
        part.strip()
        for part in one("simulate-tables", "runbook.runbook").split(",")
        if part.strip()
    )
    for table in tables:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", table):
            raise trouble("simulate-tables", table, "db.table")
    fault: dict[str, Any] | None = None
    if "simulate-fault" in found:
        try:
            fault = json.loads(found["simulate-fault"][-1])
            checked_fault(*split_fault(fault))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise trouble(
                "simulate-fault", found["simulate-fault"][-1], f"a known fault: {exc}"
            ) from exc
    # RethinkDB listens on loopback, whatever else is asked for, unless it is told not to.
    bound = [] if "no-default-bind" in found else [LOOPBACK]
    bound += [address for address in found.get("bind", []) if address not in bound]
    if "all" in bound:
        bound = ["0.0.0.0"]
    directory = Path(one("directory", "rethinkdb_data"))
    cluster_port = a_port("cluster-port", one("cluster-port", "29015"))
    return Settings(
        name=name,
        directory=directory,
        driver_port=a_port("driver-port", one("driver-port", "28015")),
        cluster_port=cluster_port,
        addresses=tuple(bound),
        join=addresses("join", 29015),
        users=tuple(users),
        canonical_addresses=addresses("canonical-address", cluster_port),
        http_port=(
            None if "no-http-admin" in found else a_port("http-port", one("http-port", "8080"))
        ),
        cache_size_mb=None if cache_size == "auto" else int(number("cache-size", "0")),
        log_file=a_path("log-file") or directory / "log_file",
        tls_key=a_path("driver-tls-key"),
        tls_cert=a_path("driver-tls-cert"),
        control=a_path("simulate-control") or directory / "control.sock",
        tables=tables,
        hostname=found["simulate-hostname"][-1] if "simulate-hostname" in found else None,
        join_wait_s=number("simulate-join-wait", "0"),
        settle_s=number("simulate-settle", "0"),
        fault=fault,
        argv=tuple(argv),
    )


def write_config(path: Path, **options: Any) -> Path:
    """
    A config file: `driver_port=1` becomes `driver-port=1`, a list one line each, True a flag,
    None nothing. Returns the path.
    """
    lines = []
    for key, value in options.items():
        name = key.replace("_", "-")
        if value is True:
            lines.append(name)
        elif isinstance(value, (list, tuple)):
            lines += [f"{name}={each}" for each in value]
        elif value is not None and value is not False:
            lines.append(f"{name}={value}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def split_fault(command: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the options in a fault command."""
    return command["fault"], {
        key: value for key, value in command.items() if key not in ("fault", "on_existing", "add")
    }


# --------------------------------------------------------------------------------------------------
# Sockets
# --------------------------------------------------------------------------------------------------


def _bound_socket(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        # Needed to come back on a port whose old connections are still in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _listening_on_any_port(address: str) -> socket.socket:
    for _ in range(200):
        with contextlib.suppress(OSError):
            sock = _bound_socket(address, random.choice(FREE_PORTS))
            try:
                sock.listen(BACKLOG)
            except OSError:
                sock.close()
                raise
            return sock
    raise StartError(f"found no free port on {address}")


def free_port(address: str = LOOPBACK) -> int:
    """A port that nobody listens on right now, outside the range that outgoing connections use."""
    with _listening_on_any_port(address) as sock:
        return int(sock.getsockname()[1])


class Listener:
    """
    Accepts connections and gives each, as a raw socket, to a coroutine of its own.

    asyncio's servers are not used: the faults need the socket before anything was read from it (a
    TLS handshake that never starts), and closing such a server means another thing in each of
    Python 3.10, 3.11 and 3.12.
    """

    def __init__(self, what: str, serve: Callable[[socket.socket], Awaitable[None]]):
        """`serve` owns the socket it gets, and closes it."""
        self._what = what
        self._serve = serve
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._unserved: set[socket.socket] = set()
        self.is_open = False

    @property
    def is_bound(self) -> bool:
        return bool(self._sockets)

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def bind(self, addresses: Iterable[str], port: int) -> None:
        """Takes the addresses; port 0 is any free one. StartError when one is taken."""
        for address in addresses:
            try:
                sock = _bound_socket(address, port) if port else _listening_on_any_port(address)
                self._sockets.append(sock)
                sock.listen(BACKLOG)
                port = self.port
            except OSError as exc:
                raise StartError(
                    f"error: Could not bind to {self._what} port: The address at"
                    f" {address}:{port} is reserved or already in use ({exc.strerror})."
                ) from exc
        self._start()

    def bind_unix(self, path: Path) -> None:
        """Takes a Unix socket; one left behind by a killed process is replaced."""
        if len(os.fsencode(path)) > UNIX_PATH_MAX_BYTES:
            raise StartError(
                f"error: the path of the {self._what} socket has more than"
                f" {UNIX_PATH_MAX_BYTES} bytes: '{path}'. Set simulate-control to a shorter one."
            )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._sockets.append(sock)
        try:
            path.unlink(missing_ok=True)
            sock.bind(str(path))
            sock.listen(BACKLOG)
        except OSError as exc:
            raise StartError(
                f"error: Could not bind to the {self._what} socket '{path}': {exc.strerror}"
            ) from exc
        self._start()

    def _start(self) -> None:
        self._accepting = [asyncio.ensure_future(self._accept(sock)) for sock in self._sockets]
        self.is_open = True

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(sock)
                self._welcome(accepted)
                # All that wait, at once: in a busy test the next turn of this thread may be 5 ms
                # away, and at one dial a turn the backlog overflows.
                while True:
                    accepted, _ = sock.accept()
                    accepted.setblocking(False)
                    self._welcome(accepted)
            except BlockingIOError:
                pass
            except OSError:  # the peer left before we took it, or no file descriptor is left
                await asyncio.sleep(0.01)

    def _welcome(self, sock: socket.socket) -> None:
        self._unserved.add(sock)
        task = asyncio.ensure_future(self._served(sock))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _served(self, sock: socket.socket) -> None:
        self._unserved.discard(sock)
        try:
            await self._serve(sock)
        except (OSError, asyncio.TimeoutError):
            pass  # the peer left
        except Exception:
            traceback.print_exc()

    def shut(self) -> None:
        """Refuses from now on, but keeps the port: a bound socket that does not listen refuses."""
        if not self.is_open:
            return
        self.is_open = False
        for task in self._accepting:
            task.cancel()
        names = [sock.getsockname() for sock in self._sockets]
        for sock in self._sockets:
            sock.close()
        self._sockets = [_bound_socket(name[0], name[1]) for name in names]

    def open(self) -> None:
        """Accepts again after shut()."""
        if not self.is_open:
            for sock in self._sockets:
                sock.listen(BACKLOG)
            self._start()

    async def close(self) -> None:
        """Ends the listening and every coroutine that still serves."""
        self.is_open = False
        tasks = [*self._accepting, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        for sock in self._unserved:  # a task that is cancelled before it starts runs not at all
            sock.close()
        self._sockets = []


async def _read_line(sock: socket.socket, buffer: bytearray) -> bytes:
    """The next line without its end; b"" when the peer closed. The buffer keeps what came after."""
    loop = asyncio.get_running_loop()
    while b"\n" not in buffer:
        chunk = await loop.sock_recv(sock, 65536)
        if not chunk or len(buffer) > 1_000_000:
            return b""
        buffer += chunk
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    return line


# --------------------------------------------------------------------------------------------------
# The handshake: SCRAM-SHA-256 (RFC 5802, RFC 7677), server side, with RethinkDB's error codes
# --------------------------------------------------------------------------------------------------


class Refusal(Exception):
    """The handshake ends here, with an error that the client is told."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


class Credential:
    """A user's password as the server keeps it."""

    ITERATIONS = 4096
    # Beyond this the node does not check the password: it would be busy for seconds itself.
    MOST_ITERATIONS = 1_000_000

    def __init__(self, password: str):
        self.salt = os.urandom(16)
        self._password = password.encode()
        self.key = functools.lru_cache(maxsize=4)(self._key)

    def _key(self, iterations: int) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", self._password, self.salt, iterations)


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.new(key, message.encode(), hashlib.sha256).digest()


class Scram:
    """One login: `first` answers the client's first message, `final` its proof; or a Refusal."""

    def __init__(self, users: Mapping[str, Credential], iterations: int):
        self._users = users
        self._iterations = iterations
        self._client_first = ""
        self._server_first = ""
        self._nonce = ""
        self.user = ""

    @staticmethod
    def _attributes(message: str) -> dict[str, str]:
        attributes: dict[str, str] = {}
        for part in message.split(","):
            key, equals, value = part.partition("=")
            if len(key) != 1 or not equals or key in attributes:
                raise Refusal(10, "Invalid encoding")
            attributes[key] = value
        if "m" in attributes:
            raise Refusal(11, "Extensions not supported")
        return attributes

    def first(self, message: str) -> str:
        if not message.startswith("n,"):
            raise Refusal(15, "Channel binding is not supported")
        _, _, self._client_first = message[2:].partition(",")
        attributes = self._attributes(self._client_first)
        if set(attributes) != {"n", "r"}:
            raise Refusal(10, "Invalid encoding")
        self.user = attributes["n"].replace("=2C", ",").replace("=3D", "=")
        if not self.user:
            raise Refusal(18, "Empty username")
        self._nonce = attributes["r"] + base64.b64encode(os.urandom(18)).decode()
        # An unknown user gets a salt too, and learns only at the end that there is no such user.
        known = self._users.get(self.user)
        salt = base64.b64encode(known.salt if known else os.urandom(16)).decode()
        self._server_first = f"r={self._nonce},s={salt},i={self._iterations}"
        return self._server_first

    def final(self, message: str) -> str:
        credential = self._users.get(self.user)
        if credential is None:
            raise Refusal(17, "Unknown user")
        if self._iterations > Credential.MOST_ITERATIONS:
            raise Refusal(12, "Wrong password")
        attributes = self._attributes(message)
        if set(attributes) != {"c", "r", "p"} or attributes["c"] != "biws":
            raise Refusal(10, "Invalid encoding")
        if attributes["r"] != self._nonce:
            raise Refusal(20, "Other error")
        key = credential.key(self._iterations)
        without_proof = message.partition(",p=")[0]
        auth_message = f"{self._client_first},{self._server_first},{without_proof}"
        client_key = _hmac(key, "Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), auth_message)
        proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
        if not hmac.compare_digest(attributes["p"].encode(), base64.b64encode(proof)):
            raise Refusal(12, "Wrong password")
        return "v=" + base64.b64encode(_hmac(_hmac(key, "Server Key"), auth_message)).decode()


# --------------------------------------------------------------------------------------------------
# The cluster, as one node sees it
# --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Server:
    """What a node tells about itself: to peers on the cluster port, to clients in server_status."""

    id: str
    name: str
    hostname: str
    cluster_port: int
    reql_port: int
    http_admin_port: int | None
    canonical_addresses: tuple[Address, ...]
    cache_size_mb: int | None
    argv: tuple[str, ...]
    pid: int
    time_started: float

    @classmethod
    def from_line(cls, line: bytes) -> Server:
        """ValueError, TypeError or KeyError when the line is none of ours."""
        fields = json.loads(line)
        fields["canonical_addresses"] = tuple(
            (host, port) for host, port in fields["canonical_addresses"]
        )
        fields["argv"] = tuple(fields["argv"])
        return cls(**fields)

    def to_line(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"


@dataclasses.dataclass(frozen=True)
class Member:
    """A server that ever belonged to the cluster; one never met is named after its address."""

    id: str
    name: str
    connected: bool


@dataclasses.dataclass(frozen=True)
class View:
    """The cluster at one moment: the connected servers, this one first, and all members by name."""

    servers: tuple[Server, ...]
    members: tuple[Member, ...]
    connected_since: Mapping[str, float]

    @property
    def readiness(self) -> int:
        """Index in READINESS that a table with a replica on every member has now."""
        connected = sum(member.connected for member in self.members)
        if connected == len(self.members):
            return READINESS.index("finished")
        if 2 * connected > len(self.members):
            return READINESS.index("writes")
        return READINESS.index("outdated_reads")


@dataclasses.dataclass
class Peer:
    """What is known of the server behind one `join` address."""

    address: Address
    id: str
    name: str
    server: Server | None = None
    misses: int = 0
    since: float = 0.0


class Cluster:
    """Dials the peers when somebody asks, at most once per CLUSTER_LOOK_TTL_S."""

    def __init__(self, node: Node):
        self._node = node
        self._peers: dict[Address, Peer] = {}
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None

    def know(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            if address in self._peers or address in self._node.own_cluster_addresses():
                continue
            host, port = address
            name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{host}_{port}")
            self._peers[address] = Peer(address, str(uuid.uuid5(NAMESPACE, name)), name)
        self.forget_look()

    def forget_look(self) -> None:
        self._looked = 0.0

    async def view(self) -> View:
        node = self._node
        alone = node.fault("partitioned") is not None
        if not alone and time.monotonic() - self._looked > CLUSTER_LOOK_TTL_S:
            # Whoever comes meanwhile waits for the same look; who leaves must not end it.
            if self._looking is None or self._looking.done():
                self._looking = asyncio.ensure_future(self._look())
            await asyncio.shield(self._looking)
        servers = [node.server]
        members = [Member(node.server.id, node.server.name, True)]
        since = {node.server.id: node.server.time_started}
        for peer in self._peers.values():
            seen = peer.server is not None and not alone
            members.append(Member(peer.id, peer.name, seen))
            if peer.server is not None and seen:
                servers.append(peer.server)
                since[peer.id] = peer.since
        return View(
            servers=(servers[0], *sorted(servers[1:], key=lambda server: server.name)),
            members=tuple(sorted(members, key=lambda member: member.name)),
            connected_since=since,
        )

    async def _look(self) -> None:
        peers = list(self._peers.values())
        answers = await asyncio.gather(
            *(self._dial(peer.address) for peer in peers), return_exceptions=True
        )
        learnt = False
        for peer, answer in zip(peers, answers, strict=True):
            if isinstance(answer, Server):
                if answer.id == self._node.server.id:
                    del self._peers[
                        peer.address
                    ]  # the operator listed this node among its own peers
                    continue
                if peer.server is None:
                    peer.since = time.time()
                learnt = learnt or peer.id != answer.id
                peer.id, peer.name, peer.server, peer.misses = answer.id, answer.name, answer, 0
            elif isinstance(answer, asyncio.TimeoutError):
                peer.misses += 1
                if peer.misses >= PEER_MISSES:
                    peer.server = None
            else:
                peer.server = None
        self._looked = time.monotonic()
        if learnt:
            self._node.remember_peers(self.remembered())

    async def _dial(self, address: Address) -> Server:
        return await asyncio.wait_for(self._ask(address), PEER_TIMEOUT_S)

    @staticmethod
    async def _ask(address: Address) -> Server:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, b'{"who": "are you"}\n')
            return Server.from_line(await _read_line(sock, bytearray()))

    def remembered(self) -> dict[str, list[str]]:
        """For the directory: a restarted node still knows who held the replicas."""
        return {
            f"{peer.address[0]} {peer.address[1]}": [peer.id, peer.name]
            for peer in self._peers.values()
        }

    def recall(self, remembered: Mapping[str, Sequence[str]]) -> None:
        for key, (server_id, name) in remembered.items():
            host, _, port = key.rpartition(" ")
            peer = self._peers.get((host, int(port)))
            if peer is not None:
                peer.id, peer.name = server_id, name

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


# --------------------------------------------------------------------------------------------------
# The documents of the system tables
# --------------------------------------------------------------------------------------------------


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


SYSTEM_TABLES = ("server_status", "server_config", "table_status", "table_config", "current_issues")
# These two need nothing but what the node itself knows: they answer while a peer hangs.
NEVER_HANG = ("server_status", "server_config")


# --------------------------------------------------------------------------------------------------
# The driver port
# --------------------------------------------------------------------------------------------------

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
            await self._gate("version")
        else:
            await self._gate("version")
            self._is_handed_over = True
            await loop.connect_accepted_socket(lambda: self, self._sock, ssl=node.tls)
        await self._misbehave()

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
            server = self._node.server
            info: dict[str, Any] = {"id": server.id, "name": server.name, "proxy": False}
            return {"t": SERVER_INFO_ANSWER, "r": [self._padded(info)]}
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

    async def _user_table(self, database: str, name: str, needed: str) -> str:
        """The table's full name, if it is ready for that."""
        table = f"{database}.{name}"
        if all(known.partition(".")[0] != database for known in self._node.settings.tables):
            raise QueryError(RUNTIME_ERROR, OP_FAILED, f"Database `{database}` does not exist.")
        if table not in self._node.settings.tables:
            raise QueryError(RUNTIME_ERROR, OP_FAILED, f"Table `{table}` does not exist.")
        documents = await self._node.documents()
        if documents.readiness(table) < READINESS.index(needed):
            deed = "write" if needed == "writes" else "read"
            raise QueryError(
                RUNTIME_ERROR,
                OP_FAILED,
                f'Cannot perform {deed}: primary replica for shard ["", +inf) not available',
            )
        return table


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


# --------------------------------------------------------------------------------------------------
# The node
# --------------------------------------------------------------------------------------------------


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
                        table, row = json.loads(line)
                        rows.setdefault(table, {})[json.dumps(row["id"])] = row
        return rows

    def keep(self, table: str, row: dict[str, Any]) -> bool:
        """Store a row as RethinkDB does, durably; False if its key is taken."""
        kept = self.rows.setdefault(table, {})
        if json.dumps(row["id"]) in kept:
            return False
        if self._rows_file is not None:
            with self._rows_file.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps([table, row]))
                file.flush()
                os.fsync(file.fileno())
        kept[json.dumps(row["id"])] = row
        return True

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
        issue = self.fault("issue")
        return Documents(
            view=await self.cluster.view(),
            tables=self.settings.tables,
            limits=limits,
            issues=tuple(issue["types"]) if issue else (),
            issue_message=issue["message"] if issue else "",
            by_uuid=by_uuid,
        )

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
        if not await asyncio.wait_for(_read_line(sock, bytearray()), 1.0):
            return
        refuse, silent = self.fault("refuse"), self.fault("silent")
        if self.fault("partitioned") or (refuse and refuse["cluster_too"]):
            return
        if silent and silent["cluster_too"]:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_read_line(sock, bytearray()), 1.0)
            return
        await asyncio.get_running_loop().sock_sendall(sock, self.server.to_line())

    async def _controller(self, sock: socket.socket) -> None:
        loop, buffer = asyncio.get_running_loop(), bytearray()
        with sock:
            while line := await _read_line(sock, buffer):
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


# --------------------------------------------------------------------------------------------------
# As a process
# --------------------------------------------------------------------------------------------------


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


def control(path: Path, command: Mapping[str, Any], timeout_s: float = 5.0) -> dict[str, Any]:
    """Sends one command to a node's control socket. RuntimeError when the node refuses it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(str(path))
        sock.sendall(json.dumps(command).encode() + b"\n")
        with sock.makefile("rb") as lines:
            line = lines.readline()
    answer: dict[str, Any] = (
        json.loads(line) if line else {"ok": False, "error": "the node closed the socket"}
    )
    if not answer.pop("ok"):
        raise RuntimeError(answer["error"])
    return answer


class SimulatedProcess:
    """
    A node in a process of its own, from a config file.

    As a context manager: started and ready, stopped at the end. It ends no process but its own.
    """

    ROOT = Path(__file__).resolve().parents[2]

    def __init__(self, config_file: Path):
        self.config_file = Path(config_file).resolve()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.config_file}: not started")
        return self._process

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._started.poll()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def settings(self) -> Settings:
        return read_config(self.config_file)

    def start(self) -> None:
        if self.is_running:
            raise RuntimeError(f"{self.config_file}: already runs with pid {self.pid}")
        self._forget()
        self._process = subprocess.Popen(
            # -S: the node needs no package, and looking for them costs more than all else.
            [
                sys.executable,
                "-S",
                "-m",
                "tests.lab.simulated",
                "--config-file",
                str(self.config_file),
            ],
            cwd=self.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Until it listens. RuntimeError with its words when it ends instead; TimeoutError."""
        process = self._started
        assert process.stdout is not None
        deadline = time.monotonic() + timeout_s
        said = b""
        while b"Server ready" not in said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError(f"{self.config_file}: not ready after {timeout_s} s")
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                code, words = self.wait_ended(timeout_s)
                raise RuntimeError(f"{self.config_file}: ended with {code}: {words}")
            said += chunk

    def wait_ended(self, timeout_s: float = 10.0) -> tuple[int, str]:
        """The exit code and what it wrote to stderr."""
        _, errors = self._started.communicate(timeout=timeout_s)
        return self._started.returncode, errors.decode(errors="replace").strip()

    def stop(self, timeout_s: float = 5.0) -> int:
        """SIGTERM, also to a paused one; SIGKILL when that does not help. Returns the exit code."""
        if self.is_running:
            self._started.terminate()
            self.resume()
            try:
                self._started.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        code = self._started.returncode
        self._forget()
        return code

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self._started.kill()
        self._started.wait()

    def pause(self) -> None:
        """SIGSTOP, until it stands still: the kernel accepts connections, nobody answers them."""
        self._started.send_signal(signal.SIGSTOP)
        # WNOWAIT: its exit, if that is what comes, is left for poll() to collect.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)

    def resume(self) -> None:
        """SIGCONT."""
        self._started.send_signal(signal.SIGCONT)

    def control(self, command: Mapping[str, Any], timeout_s: float = 5.0) -> dict[str, Any]:
        path = self.settings.control
        assert path is not None
        return control(path if path.is_absolute() else self.ROOT / path, command, timeout_s)

    def _forget(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> SimulatedProcess:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# --------------------------------------------------------------------------------------------------
# In a test's own process
# --------------------------------------------------------------------------------------------------


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
