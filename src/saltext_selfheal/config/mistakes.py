"""What can be wrong with the settings, and how it is told: the path, what was found, and what is allowed.

Pydantic finds most mistakes, and tells each with its path. A value that we read ourselves (`confirm`, `escalation`) has
parts, too. `each` reads the parts, and remembers every mistake with the path inside the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic_core import PydanticCustomError

from ..driver.text import written

KIND = "selfheal"  #: pydantic's type of our own errors
MOST_SHOWN = 80  #: characters of a value, or of a part of a path
ANOTHER = "another value: this one cannot be read"

UNKNOWN = object()  #: stands for a key that is not known, in place of what was found
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the settings."""

    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; allowed: {self.allowed}"


class ConfigError(Exception):
    """The settings cannot be used. ``problems`` holds each reason."""

    def __init__(self, problems: list[Problem]):
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong inside a value. ``at`` is the path from the value to it."""

    at: tuple[Any, ...]
    found: Any = field(
        repr=False
    )  # pydantic writes the mistake down, and not everything can be written
    allowed: str


def wrong(allowed: str) -> PydanticCustomError:
    """The error for a wrong value. ``allowed`` says what is allowed; `loading` adds what was found."""
    return PydanticCustomError(KIND, "{allowed}", {"allowed": allowed})


def unknown(allowed: str) -> PydanticCustomError:
    """The error for a key that is not known inside a value."""
    found = [Mistake((), UNKNOWN, allowed)]
    return PydanticCustomError(KIND, "{allowed}", {"allowed": allowed, "mistakes": found})


def mistakes(context: dict[str, Any], value: Any) -> list[Mistake]:
    """The mistakes in an error of our own with this context. ``value`` is what was read."""
    found: list[Mistake] = context.get("mistakes") or [Mistake((), value, context["allowed"])]
    return found


def each(parts: Iterable[tuple[Any, Any]], read: Callable[[Any, Any], _Read]) -> list[_Read]:
    """What ``read`` makes of each part, which it gets as key and value. Raises one error with all their mistakes.

    Any other exception of ``read`` is a mistake, too.
    """
    made: list[_Read] = []
    told: list[Mistake] = []
    for key, value in parts:
        try:
            made.append(read(key, value))
        except PydanticCustomError as exc:
            told += [
                Mistake((key, *one.at), one.found, one.allowed)
                for one in mistakes(dict(exc.context or {}), value)
            ]
        except Exception:
            told.append(Mistake((key,), value, ANOTHER))
    if told:
        raise PydanticCustomError(KIND, "{allowed}", {"allowed": told[0].allowed, "mistakes": told})
    return made


def shown(value: Any) -> str:
    """The beginning of a value, as Python writes it. That has no control characters in it."""
    if value is UNKNOWN:
        return "an unknown key"
    text = written(value)
    if text is None:
        return f"a value of type {type(value).__name__} that is too large to be shown"
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "…"


def path_of(*parts: Any) -> str:
    """A path as it is told. A part that could not be read in it is written as Python writes it."""
    return ".".join(
        (
            part
            if isinstance(part, str)
            and part
            and part.isprintable()
            and len(part) <= MOST_SHOWN
            and part == part.strip()
            else shown(part)
        )
        for part in parts
    )
