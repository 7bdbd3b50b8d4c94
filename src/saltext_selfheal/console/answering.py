"""Turns what a runner function gives or refuses into its answer and its exit code.

Each function of the runner is called here. It is given the caller's arguments, with names turned back into text. What
it refuses becomes one line in an object with ``reply: refused`` and ``retcode`` 1. Salt ends `salt-run` with that code
(3006 to 3008). A function must not raise: Salt would show a traceback, or a page of usage with exit code 0. No Salt
here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from .. import config
from ..doors import arguments, names
from ..doors.arguments import BadRequest
from ..driver.text import all_clean, clean, failure
from ..ledger.file import LedgerError
from . import desk, given

log = logging.getLogger(__name__)

WHY_CHARS = 2000  #: a text in an answer has at most this many characters

Refusal = Callable[[object], Any]
"""Makes the answer of a function that refuses, for this reason."""


class View(Protocol):
    """An answer as data."""

    def told(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class NoAnswer:
    """A function that only reads cannot answer this."""

    why: str

    def told(self) -> dict[str, Any]:
        return {"reply": "refused", "why": self.why, "retcode": 1}


def no_view(why: object) -> View:
    """The refusal of a function that only reads."""
    return NoAnswer(str(why))


def no_command(why: object) -> View:
    """The refusal of a command that never reached the ledger."""
    return desk.refused("command", why)


def no_request(why: object) -> View:
    """The refusal of a request that never reached the ledger."""
    return desk.refused("request", why)


def answer(
    function: Callable[..., Any],
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    *,
    settings: Callable[[], config.EngineSettings],
    context: MutableMapping[str, Any],
    refuse: Refusal = no_view,
    lines: bool = False,
) -> Any:
    """Call a runner function, and give what Salt is to return. Raises nothing.

    ``settings`` reads the settings, ``context`` is Salt's ``__context__``, where Salt finds the exit code for the job's
    event. ``lines``: the function's texts have several lines, all of them its own.
    """
    told = _asked(function, args, kwargs, settings, refuse)
    if hasattr(told, "told"):
        told = told.told()
    retcode = told.get("retcode", 0) if isinstance(told, dict) else 0
    # A context may live longer than one call. So the code of an earlier one is taken away.
    context["retcode"] = retcode
    return _for_people(told, lines)


def _asked(
    function: Callable[..., Any],
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    settings: Callable[[], config.EngineSettings],
    refuse: Refusal,
) -> Any:
    """What the function gives, or its refusal."""
    try:
        bound = arguments.bound(function, args, kwargs)
        for what, found in bound.arguments.items():
            _refuse_huge(what, found)
        bound.arguments.update(_named(bound.arguments, settings))
        return function(*bound.args, **bound.kwargs)
    except (BadRequest, LedgerError) as exc:
        return refuse(clean(str(exc), WHY_CHARS))
    except config.ConfigError as exc:
        return refuse(clean(f"the settings cannot be used: {exc}", WHY_CHARS))
    except Exception as exc:  # a fault of ours, and no reason to print a traceback
        log.error("selfheal: %s failed: %s", function.__name__, failure(exc))
        return refuse(f"{function.__name__} failed, please report it: {failure(exc)}")


def _named(
    found: Mapping[str, Any], settings: Callable[[], config.EngineSettings]
) -> dict[str, Any]:
    """Those of these arguments that name clusters and nodes and are no text, with the names turned back."""
    odd = {key for key in given.NAMES if key in found and not names.is_text(found[key])}
    if not odd:
        return {}
    try:
        known = settings()
    except config.ConfigError:
        return {}  # the function itself says that the settings cannot be used
    return {key: value for key, value in given.named(known, found).items() if key in odd}


def _for_people(told: Any, lines: bool) -> Any:
    """The answer with all texts cleaned, each line for itself if ``lines``."""
    if not lines:
        return all_clean(told, WHY_CHARS)
    if isinstance(told, dict):
        return {key: _for_people(value, lines) for key, value in told.items()}
    if isinstance(told, (list, tuple)):
        return [_for_people(one, lines) for one in told]
    if isinstance(told, str):
        return "\n".join(clean(line, WHY_CHARS) for line in told.split("\n"))
    return told


def _refuse_huge(what: str, found: Any) -> None:
    """Refuse a number inside of a list or a mapping that Python does not print. Raises BadRequest."""
    if isinstance(found, Mapping):
        found = [*found, *found.values()]
    if isinstance(found, (list, tuple, set)):
        for one in found:
            if isinstance(one, int) and one.bit_length() > arguments.MOST_BITS:
                raise BadRequest(
                    f"{what}: found {arguments.shown(one)} in it; allowed: smaller numbers"
                )
            _refuse_huge(what, one)
