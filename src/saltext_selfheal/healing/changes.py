"""What a highstate would change on a minion, or has changed there, as its result tells. Pure, and never raises.

The source of what is read here is Salt's dict of states (3006 to 3008). In test mode a state says None if it would change
something, True if there is nothing to do, and False if it would fail. Its ``changes`` say nothing: a ``service.running``
that would start the service has none. Some states always say None in test mode, so these prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from . import results


class Verdict(str, Enum):
    """What a highstate does on a minion."""

    WOULD_CHANGE = "would_change"
    NOTHING = "nothing"
    CANNOT_TELL = "cannot_tell"
    CHANGED = "changed"  #: it was a real one


@dataclass(frozen=True)
class Changes:
    """What a highstate would change on one minion, or has changed there. ``at`` is when that was asked."""

    verdict: Verdict
    states: tuple[str, ...] = ()  #: such as ``file.managed /etc/motd``; for people
    why: str = ""  #: a sentence
    at: float = 0.0

    @property
    def sentence(self) -> str:
        """All that was found, for people."""
        return self.why

    @property
    def drift(self) -> tuple[str, ...]:
        """The states that show that the configuration was not as it should be. A service that was down is no drift."""
        return tuple(one for one in self.states if not one.startswith("service."))


#: Modules whose states always say None in test mode.
ALWAYS_NONE = frozenset(
    {"cmd", "module", "salt", "event", "http", "smtp", "slack", "telegram", "test"}
)
MOST_TEXT = 4096  #: all names of states together are no longer than this
MOST_SHOWN = 5  #: a sentence names this many of them
_NAME_LENGTH = 200


class _State(NamedTuple):
    """One state of a run."""

    module: str
    name: str  #: its function and its id, for people
    result: Any
    changed: bool


def _states(result: Mapping[Any, Any]) -> Iterator[_State | None]:
    """The states of a run. None for each entry that is no state."""
    for key, state in result.items():
        parts = key.split("_|-") if isinstance(key, str) else []
        if len(parts) < 4 or not isinstance(state, Mapping) or "result" not in state:
            yield None
            continue
        module, function, name = parts[0], parts[-1], parts[1]
        # The id of such a state is often the command itself, which may hold a secret.
        shown = "" if module in ("cmd", "module") else f" {name}"
        changed = state["result"] is True and bool(state.get("changes"))
        yield _State(module, f"{module}.{function}{shown}"[:_NAME_LENGTH], state["result"], changed)


def read(result: Any, retcode: Any) -> Changes:
    """What a minion's result of ``state.highstate test=True`` says about a real one."""
    before = results.common(result, retcode)
    if before is not None:
        return _unknown(before[1])
    told = results.states(result, None, None)[1][:300] or "it has returned nothing"
    if not isinstance(result, Mapping):
        return _unknown(told)
    found = list(_states(result))
    if not found or None in found:
        return _unknown(told)
    states = [one for one in found if one is not None]
    if any(one.result not in (None, True) for one in states):
        return _unknown(told)
    nones = [one for one in states if one.result is None]
    sure = [one.name for one in nones if one.module not in ALWAYS_NONE]
    if sure:
        cut = _cut(sure)
        return Changes(Verdict.WOULD_CHANGE, cut, f"it would change {some(cut, len(sure))}")
    if nones:
        names = _cut([one.name for one in nones])
        return _unknown(f"states that always say so would change something: {some(names)}")
    return Changes(Verdict.NOTHING, (), f"it would change nothing ({len(states)} states)")


def changed(result: Any) -> Changes | None:
    """What a real highstate has changed. None: nothing, or this is no result of one."""
    if not isinstance(result, Mapping):
        return None
    names = _cut([one.name for one in _states(result) if one is not None and one.changed])
    return Changes(Verdict.CHANGED, names, f"it has changed {some(names)}") if names else None


def some(names: tuple[str, ...], count: int | None = None) -> str:
    """The first of these names, and how many more there are."""
    count = len(names) if count is None else count
    shown = ", ".join(names[:MOST_SHOWN])
    return f"{shown} and {count - MOST_SHOWN} more" if count > MOST_SHOWN else shown


def _unknown(why: str) -> Changes:
    return Changes(Verdict.CANNOT_TELL, (), f"what it would change cannot be told: {why}")


def _cut(names: list[str]) -> tuple[str, ...]:
    """As many of these names as fit."""
    kept: list[str] = []
    left = MOST_TEXT
    for name in names:
        left -= len(name)
        if left < 0:
            break
        kept.append(name)
    return tuple(kept)
