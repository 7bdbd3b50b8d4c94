"""The kinds of values in the settings. Each takes a value as YAML gives it, or raises an error with what is allowed."""

from __future__ import annotations

import re
from math import log2
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from ..driver.address import ALLOWED, Address, check_name, parsed
from ..healing import escalation, remedies
from ..healing.model import Action, Fault, Mode, Step

#: The names of faults in the settings. `requested` is not among them, because it is no fault of a database.
FAULTS = tuple(f.value for f in Fault)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = "a duration such as 500ms, 2s, 5m, 1h, 90d, or a number of seconds"


def wrong(allowed: str) -> PydanticCustomError:
    """The error for a wrong value. ``allowed`` says what is allowed; `loading` adds what was found."""
    return PydanticCustomError("selfheal", "{allowed}", {"allowed": allowed})


def duration(value: Any) -> float:
    """A duration as the settings write it, in seconds. Raises ValueError."""
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value < float("inf")
    ):
        return float(value)
    match = (
        re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", value.strip())
        if isinstance(value, str)
        else None
    )
    if match is None:
        raise wrong(DURATION)
    return float(match[1]) * _UNITS[match[2] or "s"]


def _duration_or_off(value: Any) -> float:
    # YAML 1.1 reads a bare `off` as False.
    if value is False or value == "off":
        return 0.0
    try:
        return duration(value)
    except PydanticCustomError:
        raise wrong(f"{DURATION}, or off") from None


def _positive(value: float) -> float:
    if value <= 0:
        raise wrong(f"{DURATION}, more than 0")
    return value


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000:
        return value
    raise wrong("a whole number, 0 or more")


def _positive_count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return value
    raise wrong("a whole number between 1 and 1000")


def _share(value: Any) -> float:
    if value is False or value == "off":
        return 0.0
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())):
        value = float(match[1]) / 100
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise wrong("a share such as 34%, between 0% and 100%, or off")


def _mode(value: Any) -> Mode:
    if value is False:
        return Mode.OFF
    if isinstance(value, str) and value in [m.value for m in Mode]:
        return Mode(value)
    raise wrong(", ".join(m.value for m in Mode))


def _rate(value: Any) -> tuple[int, float]:
    if value is False or value == "off":
        return (0, 60.0)
    match = re.fullmatch(r"(\d+)\s*/\s*(s|m|h)", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise wrong("a rate such as 6/m (per s, m or h), or off")
    return int(match[1]), _UNITS[match[2]]


def _webhook_action(value: Any) -> str:
    if isinstance(value, str) and value in remedies.webhook_names():
        return value
    raise wrong(f"actions: {', '.join(remedies.webhook_names())}")


Duration = Annotated[float, BeforeValidator(duration)]
PositiveDuration = Annotated[float, BeforeValidator(lambda v: _positive(duration(v)))]
DurationOrOff = Annotated[float, BeforeValidator(_duration_or_off)]
Count = Annotated[int, BeforeValidator(_count)]
PositiveCount = Annotated[int, BeforeValidator(_positive_count)]
Share = Annotated[float, BeforeValidator(_share)]
ModeSetting = Annotated[Mode, BeforeValidator(_mode)]
WebhookAction = Annotated[str, BeforeValidator(_webhook_action)]
Rate = Annotated[tuple[int, float], BeforeValidator(_rate)]


def _address(value: Any) -> Address:
    """A node's address. Its name is checked now, because with a name that no resolver takes every probe would fail."""
    try:
        if not isinstance(value, str):
            raise ValueError(ALLOWED)
        found = parsed(value)
        if ":" not in found.host:
            check_name(found.host)
    except ValueError as exc:
        raise wrong(str(exc)) from None
    return found


NodeAddress = Annotated[Address, BeforeValidator(_address)]


def _steps(value: Any) -> tuple[Step, ...]:
    """The steps of a list such as ``[highstate, restart: {after: 60s}]``."""
    actions = ", ".join(remedies.names())
    allowed = f"a list of actions ({actions}), each alone or as {{action: {{after: duration, mode: mode}}}}"
    if not isinstance(value, list):
        raise wrong(allowed)
    return tuple(_step(item, allowed) for item in value)


def _step(item: Any, allowed: str) -> Step:
    name: Any = item
    options: Any = {}
    if isinstance(item, dict) and len(item) == 1:
        ((name, options),) = item.items()
    if name not in remedies.names() or not isinstance(options or {}, dict):
        raise wrong(allowed)
    options = dict(options or {})
    after_s = _duration_or_off(options.pop("after", 0))
    mode = _mode(options.pop("mode")) if "mode" in options else None
    if options:
        raise wrong(f"{allowed}; unknown: {', '.join(map(str, options))}")
    return Step(Action(name), after_s, mode)


def _escalation(value: Any) -> dict[Fault, tuple[Step, ...]]:
    if isinstance(value, list):
        return escalation.for_every_fault(_steps(value))
    if not isinstance(value, dict):
        raise wrong(f"a list of steps, or lists per fault ({', '.join(FAULTS)})")
    chosen = dict(escalation.DEFAULT)
    for name, steps in value.items():
        if name not in FAULTS:
            raise wrong(f"faults: {', '.join(FAULTS)}; not {name!r}")
        fault = Fault(name)
        chosen[fault] = _steps(steps if steps is not None else [])
        banned = [s.action.value for s in chosen[fault] if s.action in remedies.forbidden(fault)]
        if banned and fault is Fault.MISTAKEN:
            raise wrong(f"for {name} no action: whatever is done may hit another server")
        if banned:
            raise wrong(f"for {name} any action but {', '.join(banned)}, which cannot cure it")
    return chosen


def confirm(value: Any) -> dict[Fault, float]:
    if not isinstance(value, dict):
        return dict.fromkeys(Fault, _duration_or_off(value))
    unknown = [k for k in value if k not in (*FAULTS, "default")]
    if unknown:
        raise wrong(f"default, {', '.join(FAULTS)}; not {', '.join(map(repr, unknown))}")
    given = {k: _duration_or_off(v) for k, v in value.items()}
    own = {**_CONFIRM, **given}
    return {f: own.get(f.value, own["default"]) for f in Fault}


_CONFIRM = {"dead": 3.0, "hung": 20.0, "default": 10.0}
Escalation = Annotated[dict[Fault, tuple[Step, ...]], BeforeValidator(_escalation)]
Confirm = Annotated[dict[Fault, float], BeforeValidator(confirm)]


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


def off_is(zero: dict[str, Any]) -> BeforeValidator:
    """Let `off`, `false` or 0 in place of a group switch the group off. ``zero`` are the group's settings for that."""
    return BeforeValidator(
        lambda v: zero if v is False or v == "off" or (v == 0 and v is not None) else v
    )
