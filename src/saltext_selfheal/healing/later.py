"""Moves all times that a cluster's state contains, for a timeline that has jumped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from .events import Seconds

#: Fields of the remembered state that hold times of the timeline, alone or in tuples.
TIMES = frozenset(
    {
        "acted_at", "acts", "answered_at", "asked", "at", "began_at", "busy_since", "changed_at", "changes", "cooldown_until",
        "decided_at", "dialled_at", "ended_at", "fired_at", "foreign_since", "foreseen_at", "forgotten_at",
        "gone_since", "kinds", "looked_at",
        "minion_at", "missing_at", "not_before", "observed_at", "opened_at", "published_at", "questioned_at", "refused",
        "refused_at",
        "restarted_at", "seen", "since", "spent", "stalled_since", "starting_since", "until", "viewed_at",
        "well_since", "word_at",
    }
)  # fmt: skip
#: Fields with numbers that are no such times: durations, and times of a server's own clock.
OTHER_NUMBERS = frozenset({"after_s", "age_s", "late_by", "words_age_s", "started_at"})

_T = TypeVar("_T")


def later(value: _T, by_s: Seconds) -> _T:
    """The same value with each time moved by so much. A time of 0 means never, and stays."""
    moved: Any = _moved(value, by_s, False)
    return moved  # type: ignore[no-any-return]


def _moved(value: Any, by_s: Seconds, is_time: bool) -> Any:
    if isinstance(value, float):
        return value + by_s if is_time and value else value
    if isinstance(value, tuple):
        return tuple(_moved(one, by_s, is_time) for one in value)
    if isinstance(value, Mapping):
        return {key: _moved(one, by_s, is_time) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        new = {f.name: _moved(getattr(value, f.name), by_s, f.name in TIMES) for f in fields(value)}
        return replace(value, **new)
    return value
