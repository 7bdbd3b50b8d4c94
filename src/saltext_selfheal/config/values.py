"""The kinds of values in the settings. Each takes a value as YAML gives it, or raises an error with what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from ..driver.address import ALLOWED, Address, parsed
from ..healing import escalation, remedies
from ..healing.model import Action, Fault, Mode, Step
from .mistakes import each, unknown, wrong

#: The names of faults in the settings. `requested` is not among them, because it is no fault of a database.
FAULTS = tuple(f.value for f in Fault)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = "a duration such as 500ms, 2s, 5m, 1h, 90d, or a number of seconds"
#: Ten years. No setting is longer. So no sum or product of settings is more than a clock or a ledger can hold.
LONGEST_S = 3650 * _UNITS["d"]
LONGEST = "at most 3650d"
MOST = 1_000_000  #: no count is larger


def duration(value: Any) -> float:
    """A duration as the settings write it, in seconds. Raises ValueError."""
    found: float | None = None
    # A whole number is compared before it is made a float: a large one would raise.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST_S:
        found = float(value)
    elif isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?", value.strip())
        found = float(match[1]) * _UNITS[match[2] or "s"] if match else None
    if found is None or not found <= LONGEST_S:
        raise wrong(f"{DURATION}, {LONGEST}")
    return found


#: The shortest of each kind, as the settings write it. A shorter one would keep a processor busy, would let no node
#: answer in time, or would switch off by mistake what is a limit.
SHORTEST_PACE = "100ms"  #: of what is done again and again, and of what a node has to answer within
SHORTEST_SPAN = "1s"  #: of what a job may take, of rests and of windows in which something counts
SHORTEST_WAIT = "1ms"  #: of a wait that may also be 0
SHORTEST_KEPT = "1h"  #: of what the history is kept


def _at_least(least: str, off: bool = False) -> Callable[[Any], float]:
    """A reader of durations that are not shorter than this. ``off``: `off` or 0 are allowed, too."""
    least_s = duration(least)
    allowed = f"{DURATION}, at least {least}, {LONGEST}{', or off' if off else ''}"

    def read(value: Any) -> float:
        # YAML 1.1 reads a bare `off` as False.
        if off and (value is False or value == "off"):
            return 0.0
        try:
            found = duration(value)
        except PydanticCustomError:
            found = -1.0
        if found >= least_s or (off and found == 0):
            return found
        raise wrong(allowed)

    return read


_wait_or_off = _at_least(SHORTEST_WAIT, off=True)


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return value
    raise wrong(f"a whole number between 0 and {MOST}")


def _positive_count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return value
    raise wrong("a whole number between 1 and 1000")


def _share(value: Any) -> float:
    allowed = "a share such as 34%, more than 0% and at most 100%, or off"
    if value is False or value == "off":
        return 0.0
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", value.strip())
        value = float(match[1]) / 100 if match else None
        # `0%` says that any fault is too many. A share of 0 would say the opposite: that it is not looked for.
        if not value:
            raise wrong(allowed)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise wrong(allowed)


def _mode(value: Any) -> Mode:
    if value is False:
        return Mode.OFF
    if isinstance(value, str) and value in [m.value for m in Mode]:
        return Mode(value)
    raise wrong(", ".join(m.value for m in Mode))


def _rate(value: Any) -> tuple[int, float]:
    if value is False or value == "off":
        return (0, 60.0)
    match = (
        re.fullmatch(r"([0-9]{1,7})\s*/\s*(s|m|h)", value.strip())
        if isinstance(value, str)
        else None
    )
    # `0/m` says that nobody may ask. A count of 0 would say the opposite: that there is no limit.
    if match is None or not 1 <= int(match[1]) <= MOST:
        raise wrong(
            f"a rate such as 6/m (per s, m or h), between 1 and {MOST}, or off for no limit"
        )
    return int(match[1]), _UNITS[match[2]]


def _webhook_action(value: Any) -> str:
    if isinstance(value, str) and value in remedies.webhook_names():
        return value
    raise wrong(f"actions: {', '.join(remedies.webhook_names())}")


Pace = Annotated[float, BeforeValidator(_at_least(SHORTEST_PACE))]
Span = Annotated[float, BeforeValidator(_at_least(SHORTEST_SPAN))]
SpanOrOff = Annotated[float, BeforeValidator(_at_least(SHORTEST_SPAN, off=True))]
WaitOrOff = Annotated[float, BeforeValidator(_wait_or_off)]
KeptOrOff = Annotated[float, BeforeValidator(_at_least(SHORTEST_KEPT, off=True))]
Count = Annotated[int, BeforeValidator(_count)]
PositiveCount = Annotated[int, BeforeValidator(_positive_count)]
Share = Annotated[float, BeforeValidator(_share)]
ModeSetting = Annotated[Mode, BeforeValidator(_mode)]
WebhookAction = Annotated[str, BeforeValidator(_webhook_action)]
Rate = Annotated[tuple[int, float], BeforeValidator(_rate)]


def _address(value: Any) -> Address:
    """A node's address. With one that no resolver takes every probe would fail, so it is refused now."""
    try:
        if not isinstance(value, str):
            raise ValueError(ALLOWED)
        return parsed(value)
    except ValueError as exc:
        raise wrong(str(exc)) from None


NodeAddress = Annotated[Address, BeforeValidator(_address)]


_STEPS = (
    f"a list of actions ({', '.join(remedies.names())}), each alone or as "
    "{action: {after: duration, mode: mode}}"
)


def _steps(value: Any) -> tuple[Step, ...]:
    """The steps of a list such as ``[highstate, restart: {after: 60s}]``."""
    if not isinstance(value, list):
        raise wrong(_STEPS)
    return tuple(each(enumerate(value), lambda _, item: _step(item)))


def _step(item: Any) -> Step:
    name: Any = item
    options: Any = None
    if isinstance(item, dict) and len(item) == 1:
        ((name, options),) = item.items()
    # `restart:` without anything behind it is a restart. `restart: no` is none, and nothing else that is written there.
    options = {} if options is None else options
    if not isinstance(name, str) or name not in remedies.names() or not isinstance(options, dict):
        raise wrong(_STEPS)
    return each([(name, options)], lambda _, given: _with(Action(name), given))[0]


def _with(action: Action, options: dict[Any, Any]) -> Step:
    """The step with these options."""
    given = dict(each(options.items(), _option))
    return Step(action, given.get("after", 0.0), given.get("mode"))


def _option(name: Any, value: Any) -> tuple[str, Any]:
    if name == "after":
        return name, _wait_or_off(value)
    if name == "mode":
        return name, _mode(value)
    raise unknown("after, mode")


def _escalation(value: Any) -> dict[Fault, tuple[Step, ...]]:
    if isinstance(value, list):
        return escalation.for_every_fault(_steps(value))
    if not isinstance(value, dict):
        raise wrong(f"a list of steps, or lists per fault ({', '.join(FAULTS)})")
    return {**escalation.DEFAULT, **dict(each(value.items(), _against))}


def _against(name: Any, value: Any) -> tuple[Fault, tuple[Step, ...]]:
    """The fault with this name, and the steps against it."""
    if name not in FAULTS:
        raise unknown(f"faults: {', '.join(FAULTS)}")
    fault = Fault(name)
    steps = _steps(value if value is not None else [])
    banned = [s.action.value for s in steps if s.action in remedies.forbidden(fault)]
    if banned and fault is Fault.MISTAKEN:
        raise wrong(f"for {name} no action: whatever is done may hit another server")
    if banned:
        raise wrong(f"for {name} any action but {', '.join(banned)}, which cannot cure it")
    return fault, steps


@dataclass(frozen=True)
class Lasting:
    """How long a fault must last before anything is done."""

    faults: dict[Fault, float]
    dead_witnessed: float  #: for a death that the node's own minion has seen, too


def confirm(value: Any) -> Lasting:
    if not isinstance(value, dict):
        alone = _wait_or_off(value)
        return Lasting(dict.fromkeys(Fault, alone), min(alone, _CONFIRM[WITNESSED]))
    given = dict(each(value.items(), _lasting))
    own = {**_CONFIRM, **given}
    return Lasting({f: own.get(f.value, own["default"]) for f in Fault}, own[WITNESSED])


def _lasting(name: Any, value: Any) -> tuple[str, float]:
    if name not in (*FAULTS, "default", WITNESSED):
        raise unknown(f"default, {', '.join(FAULTS)}, {WITNESSED}")
    return name, _wait_or_off(value)


WITNESSED = "dead_witnessed"  #: a key of ``confirm`` that is no fault
_CONFIRM = {"dead": 3.0, WITNESSED: 1.0, "hung": 20.0, "stalled": 20.0, "default": 10.0}
Escalation = Annotated[dict[Fault, tuple[Step, ...]], BeforeValidator(_escalation)]
Confirm = Annotated[Lasting, BeforeValidator(confirm)]


#: A secret must have this many bits by `look_bits`; one that a generator makes has far more.
SECRET_BITS = 40


def look_bits(secret: str | bytes) -> int:
    """How many bits of entropy a secret can have at most, judged by its characters alone.

    Each character counts the logarithm of the number of different characters in the secret. It counts nothing if it
    continues a row (`aaa`, `123`, `cba`) or repeats a pair. No dictionary is used, so words count more than they
    should.
    """
    signs = [ord(sign) for sign in secret] if isinstance(secret, str) else list(secret)
    pairs: set[tuple[int, int]] = set()
    counted = 0
    for place, sign in enumerate(signs):
        pair = (signs[place - 1], sign) if place else None
        step = sign - signs[place - 1]
        row = place > 1 and abs(step) <= 1 and step == signs[place - 1] - signs[place - 2]
        counted += not row and pair not in pairs
        if pair:
            pairs.add(pair)
    return int(counted * log2(max(1, len(set(signs)))))


def unguessable(secret: str | bytes, better: str) -> None:
    """Raises the error for a secret that could be guessed. ``better`` says what to take instead."""
    bits = look_bits(secret)
    if bits < SECRET_BITS:
        raise wrong(
            f"a secret with at least {SECRET_BITS} bits of entropy, and this one has {bits} at most; take {better}"
        )


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong("true or false")


Switch = Annotated[bool, BeforeValidator(_switch)]


def alone_is(key: str) -> BeforeValidator:
    """Let a value that is no mapping stand for the group in which only this key is set."""
    return BeforeValidator(lambda v: v if isinstance(v, dict) else {key: v})


def off_is(zero: dict[str, Any] | None) -> BeforeValidator:
    """Let `off`, `false` or 0 in place of a group switch the group off. ``zero`` are the group's settings for that."""
    return BeforeValidator(
        lambda v: zero if v is False or v == "off" or (v == 0 and v is not None) else v
    )
