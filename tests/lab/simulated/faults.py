"""What can go wrong with a node, by name, and the check of what somebody asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

STEPS = ("version", "auth_first", "auth_final", "query")
SHAPES = ("documents", "lists", "text", "deep", "number", "blank")
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
        FaultKind(
            "ignore_new", "accepts new connections and never greets them; those that are open go on"
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
        FaultKind(
            "jobs",
            "the table jobs tells of this query, which this node carries out",
            {
                "query": 'r.db("runbook").table("runbook").orderBy({"index": "id"})',
                "duration_s": 60.0,
            },
        ),
        FaultKind("no_jobs", "the user may not read the table jobs"),
        FaultKind("hang_system_tables", "only server_status and server_config answer"),
        FaultKind("no_permission", "the user may not read the system tables"),
        FaultKind(
            "stalled",
            "reads or writes (deed empty: both) of the applications' tables get no answer; all else does",
            {"deed": ""},
        ),
        FaultKind(
            "no_table", "a table of an application does not exist", {"table": "runbook.runbook"}
        ),
        FaultKind(
            "no_rights", "the user may not do this in the applications' tables", {"deed": "read"}
        ),
        FaultKind(
            "primary_key",
            "the applications' tables have a primary key of this name",
            {"key": "name"},
        ),
        FaultKind("no_version", "the handshake does not name a server version"),
        FaultKind("server_version", "the handshake names another version", {"version": "9.9.9"}),
        FaultKind("partitioned", "neither sees its peers nor is seen by them"),
        FaultKind("non_utf8", "an answer that is no UTF-8", {"at": "version"}),
        FaultKind(
            "big_document",
            "answers carry this many bytes more",
            {"bytes": 1_000_000, "at": "query"},
        ),
        FaultKind(
            "huge_answer",
            "one kind of query is answered by so many bytes of JSON that no RethinkDB would send",
            {"to": "system_tables", "shape": "documents", "bytes": 60_000_000},
        ),
        FaultKind(
            "memory",
            "it takes this much memory, and keeps it until it ends",
            {"bytes": 256_000_000},
        ),
        FaultKind("proxy", "it is a `rethinkdb proxy`: no name, in nobody's server_status"),
        FaultKind(
            "identity",
            "SERVER_INFO tells another id or name (empty: its own)",
            {"server_id": "", "server_name": ""},
        ),
    )
}

_CHOICES: dict[str, Sequence[str]] = {
    "stall_at": STEPS,
    "at": STEPS,
    "readiness": READINESS,
    "to": ("server_info", "system_tables"),
    "shape": SHAPES,
    "deed": ("", "read", "write"),
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


def split_fault(command: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the options in a fault command."""
    return command["fault"], {
        key: value for key, value in command.items() if key not in ("fault", "on_existing", "add")
    }
