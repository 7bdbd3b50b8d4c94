"""The kinds of texts in the settings: names of minions, of users, of services and of tables, and paths of files.

A text that cannot be right is refused here. Later it would be taken for a fault of the database: a job that no minion
gets, a login that the driver cannot send, a table that is missing.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from .mistakes import each, wrong

#: What YAML reads as something else is no text any more when it comes here. The words tell what to do.
TEXT = "a text; put it in quotes if YAML reads it as something else, as it does with on, no, ~, 012 and 1:30"
LONGEST_NAME_BYTES = (
    255  #: of a file's name, and Salt keeps each minion's key in a file with the minion's id
)
LONGEST_PATH_BYTES = 4000  #: of a file's path; Linux takes 4095, with the NUL at its end
ROOM_BYTES = 55  #: the ledger's file has others beside it, whose names are as much longer at most


def _node(name: str) -> str:
    """A minion's id. Salt's own rules, and none of the signs by which targets are separated or matched."""
    size = len(name.encode("utf-8", "backslashreplace"))
    if (
        not re.fullmatch(r"[^\s.,*?\[\]/\\][^\s,*?\[\]/\\]*", name)
        or not name.isprintable()
        or size > LONGEST_NAME_BYTES
    ):
        raise wrong(
            f"a minion id of 1 to {LONGEST_NAME_BYTES} bytes, without blanks, control characters and any of , * ? [ ] / \\, "
            "and with no dot at its beginning"
        )
    return name


def _minions(pattern: str) -> str:
    if not re.fullmatch(r"\S{1,1000}", pattern) or not pattern.isprintable():
        raise wrong(
            "a glob of 1 to 1000 characters such as 'db*', without blanks and control characters"
        )
    return pattern


def _observers(value: Any) -> str | tuple[str, ...]:
    """Who observes: a glob, or ids one by one."""
    if isinstance(value, str):
        return _minions(value)
    if not isinstance(value, list) or not value:
        raise wrong("a glob such as 'app*', or a list of minion ids, at least one")
    return tuple(dict.fromkeys(each(enumerate(value), _observer)))


def _observer(_: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(f"a minion id; {TEXT}")
    return _node(value)


def _of_form(pattern: str, allowed: str) -> AfterValidator:
    """A check of a text that must have this form as a whole."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise wrong(allowed)
        return text

    return AfterValidator(check)


def _file(path: str, room_bytes: int = 0) -> str:
    """The path of a file. ``room_bytes``: its name leaves room for a longer one beside it."""
    allowed = "the path of a file, without control characters, that a file system can take"
    try:
        parts = os.fsencode(path).split(b"/")
    except UnicodeError:
        raise wrong(allowed) from None
    if not path.isprintable() or parts[-1] in (b"", b".", b".."):
        raise wrong(allowed)
    longest = LONGEST_NAME_BYTES - room_bytes
    if (
        max(map(len, parts)) > LONGEST_NAME_BYTES
        or len(parts[-1]) > longest
        or len(os.fsencode(path)) > LONGEST_PATH_BYTES - room_bytes
    ):
        raise wrong(
            f"a file whose name has at most {longest} bytes, in a path of at most {LONGEST_PATH_BYTES}"
        )
    return path


def ledger_file(path: str | None) -> str | None:
    """The ledger's path. None: the default."""
    if path is None:
        return None
    if not path.startswith("/"):
        raise wrong("an absolute path, or null")
    return _file(path, ROOM_BYTES)


NodeName = Annotated[str, AfterValidator(_node)]
Minions = Annotated[str, AfterValidator(_minions)]
ObserverMinions = Annotated[str | tuple[str, ...], BeforeValidator(_observers)]
# The driver (2.4.10) encodes its first message in ASCII.
User = Annotated[
    str,
    _of_form(
        r"[ -~]{1,255}",
        "a user of 1 to 255 ASCII characters without control characters (the driver can send no others)",
    ),
]
Service = Annotated[
    str,
    _of_form(
        r"[A-Za-z0-9_@.:\\][A-Za-z0-9_@.:\\-]{0,254}",
        "a service of 1 to 255 ASCII letters, digits and _ @ . : \\ -, and with no - at its beginning",
    ),
]
TableName = Annotated[
    str,
    _of_form(
        r"[A-Za-z0-9_-]{1,255}(\.[A-Za-z0-9_-]{1,255})?",
        "a database or db.table; RethinkDB's names have only ASCII letters, digits, _ and -",
    ),
]
OneTable = Annotated[
    str,
    _of_form(
        r"(?!rethinkdb\.)[A-Za-z0-9_-]{1,255}\.[A-Za-z0-9_-]{1,255}",
        "db.table with exactly one dot, of a database other than rethinkdb; RethinkDB's names have only ASCII letters, "
        "digits, _ and -",
    ),
]
FilePath = Annotated[str, AfterValidator(_file)]
