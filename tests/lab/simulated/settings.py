"""A node's settings, and the config file of RethinkDB's own format that they are read from."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.simulated.faults import checked_fault, split_fault

LOOPBACK = "127.0.0.1"

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
    load_s: float = 0.0
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
    "simulate-load",
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
        load_s=number("simulate-load", "0"),
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
