"""Compares a caller's arguments with those that are known, and refuses unknown ones.

If a misspelt argument were ignored, the request would ask for more: ``node: db2``, without the ``s``, would mean all
nodes, and a pause with ``clusters`` would pause everything. Salt drops unknown keywords of a runner that is called
through salt-api (`ignore_invalid`, 3006 to 3008), and an event or a webhook may hold any JSON. So every function and
every door takes all arguments, and refuses an unknown one with its name and with what is allowed. No Salt here, and
nothing about the meaning of a request.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

#: Keywords that Salt itself adds to those of a caller (3006 to 3008). `__pub_…` come with an execution module and the
#: scheduler, the others with a runner that a reactor starts.
_SALTS = frozenset(("__user__", "__jid__", "__tag__", "__jid_event__", "__state__", "__kwarg__"))
_PUB = "__pub_"
MOST_BITS = 256  #: a whole number with more bits is not printed
MOST_NAMED = 5  #: one sentence names at most this many unknown words


class BadRequest(ValueError):
    """This has not the form of a request or a command. The message says what was found and what is allowed."""


class Dropped(BadRequest):
    """A signed message that cannot be taken. ``caller`` is whose it is; empty: it is not known."""

    def __init__(self, why: str, caller: str = "") -> None:
        super().__init__(why)
        self.caller = caller


def shown(found: Any) -> str:
    """The beginning of what was found, quoted as Python quotes, so that unprintable characters can be seen.

    Of a list or a mapping only the type is told, because printing a large one could take long.
    """
    if isinstance(found, str):
        return repr(found[:80])[:80]
    # Python may refuse to print a huge number.
    if isinstance(found, int) and found.bit_length() > MOST_BITS:
        return "a number of more than 77 digits"
    if found is None or isinstance(found, (bool, int, float)):
        return repr(found)[:80]
    return f"a {type(found).__name__}"


def salts_own(key: Any) -> bool:
    """Whether Salt has added this keyword, and not the caller."""
    return isinstance(key, str) and (key.startswith(_PUB) or key in _SALTS)


def _word(key: Any) -> str:
    """A key in quotes, in ASCII: a key with letters that look like those of an allowed key must not look allowed."""
    return ascii(key[:80])[:80] if isinstance(key, str) else shown(key)


def refuse_unknown(what: str, found: Iterable[Any], allowed: Iterable[str]) -> None:
    """Raises BadRequest if something in ``found`` is not allowed. ``what`` names the thing that was examined."""
    known = tuple(allowed)
    unknown = [key for key in found if key not in known]
    if not unknown:
        return
    named = ", ".join(_word(key) for key in unknown[:MOST_NAMED])
    more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
    raise BadRequest(
        f"{what}: found {named}{more}, which is not known here; allowed: {', '.join(known) or 'nothing'}"
    )


def bound(function: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
    """The arguments, bound to the parameters of ``function``.

    Raises BadRequest if one is unknown, missing, or given twice.
    """
    signature = inspect.signature(function)
    given = tuple(args)
    named = {key: value for key, value in kwargs.items() if not salts_own(key)}
    names = list(signature.parameters)
    refuse_unknown("keyword", named, names)
    if len(given) > len(names):
        raise BadRequest(
            f"arguments: found {len(given)}, the first too many is {shown(given[len(names)])}; "
            f"allowed: {', '.join(names) or 'none'}"
        )
    twice = [name for name in names[: len(given)] if name in named]
    if twice:
        raise BadRequest(f"{twice[0]}: found twice, by its place and by its name; allowed: once")
    for name, parameter in signature.parameters.items():
        if parameter.default is parameter.empty and name not in {*names[: len(given)], *named}:
            raise BadRequest(f"{name}: found nothing; allowed: {name}, which must be given")
    return signature.bind(*given, **named)


def as_taken(function: Callable[..., Any], strict: Callable[..., Any]) -> Callable[..., Any]:
    """Put ``strict`` in the place of ``function``, with a signature that accepts any arguments.

    Salt reads the signature to see which keywords it may pass on, and drops the others. It would follow ``__wrapped__``
    to the function's own signature, so that attribute is removed.
    """
    functools.update_wrapper(strict, function)
    del strict.__wrapped__  # type: ignore[attr-defined]
    signature = inspect.signature(function)
    rest = (
        inspect.Parameter("surplus", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("unknown", inspect.Parameter.VAR_KEYWORD),
    )
    strict.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *rest]
    )
    return strict


def parsed(text: str) -> Any:
    """Read JSON in which no key occurs twice. Raises BadRequest, or ValueError and RecursionError as `json.loads` does.

    Of two keys with one name Python takes the last one. The sender may have meant the other one, so both are refused.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise BadRequest(f"body: found {_word(key)} twice; allowed: once")
            made[key] = value
        return made

    return json.loads(text, object_pairs_hook=once)
