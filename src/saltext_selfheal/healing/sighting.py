"""What an observer has seen of a node: the result of ``selfheal.probe`` on another minion, and what it means.

An observer's words are a hint, as every result is: any minion can store one under another's name. So they never make a
node well, and no action follows from them alone. They can only take away a doubt, or keep one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .faults import Fault

_CHARS = 200  #: of what an observer says in its own words
_AT_MOST = 20  #: a name has no more addresses than this

#: With these a node cannot be reached from there.
_DOWN = frozenset({Fault.DEAD.value, Fault.HUNG.value, Fault.UNREACHABLE.value})
#: With these a RethinkDB, or something that speaks TLS, has answered.
_ANSWERED = {
    Fault.AUTH.value: "and is refused the login",
    Fault.TLS.value: "and does not agree with it on TLS",
    Fault.SLOW.value: "slowly",
}


@dataclass(frozen=True)
class Sighting:
    """What one observer has said. ``at`` is when it was asked, on the healer's timeline."""

    down: bool | None  #: None: it cannot tell
    why: str = ""  #: what it said itself, or why it cannot tell
    at: float = 0.0

    @property
    def sentence(self) -> str:
        """What it said, for people."""
        if self.down is None:
            return f"cannot tell: {self.why}"
        said = "cannot reach it" if self.down else "reaches it"
        return f"{said}: {self.why}" if self.why else said


def read(told: Any) -> Sighting | None:
    """What ``selfheal.probe`` has returned on an observer. None: this is no such result. Never raises."""
    if not isinstance(told, Mapping):
        return None
    well, fault, ours = told.get("well"), told.get("fault"), told.get("ours")
    if not isinstance(well, bool) or not isinstance(ours, bool):
        return None
    if well is not (fault is None) or not isinstance(fault, (str, type(None))):
        return None
    said = told.get("evidence")
    words = said[:_CHARS] if isinstance(said, str) else ""
    if ours:
        return Sighting(None, words or "something went wrong on its own side")
    if well:
        return Sighting(False)
    if fault in _ANSWERED:
        return Sighting(False, _ANSWERED[fault])
    if fault not in _DOWN:
        return Sighting(None, words or "what it found there is not known")
    # If it cannot resolve the node's name, it has not looked at the node.
    if fault == Fault.UNREACHABLE.value and not _addresses(told.get("addresses")):
        return Sighting(None, words or "it does not know the node's address")
    return Sighting(True, words)


def _addresses(found: Any) -> bool:
    return (
        isinstance(found, (list, tuple))
        and 0 < len(found) <= _AT_MOST
        and all(isinstance(one, str) for one in found)
    )
