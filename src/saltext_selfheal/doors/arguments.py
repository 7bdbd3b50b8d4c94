"""What a caller gives, compared with what is known: nothing that is unknown is passed over.

A misspelt word that is dropped widens what is asked for: ``node: db2`` without its ``s`` means all nodes, and a pause of
``clusters`` one of everything. Salt drops unknown keywords of a runner that is called through salt-api (`ignore_invalid`,
3006 to 3008), and an event or a webhook is any JSON. So every function and every door takes all that there is, and refuses
what it does not know, with its name and what is allowed. No Salt here, and nothing of a request's meaning.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

#: What Salt itself puts beside a caller's keywords (3006 to 3008): `__pub_…` for an execution module and the scheduler,
#: the others for a runner that a reactor starts.
_SALTS = frozenset(("__user__", "__jid__", "__tag__", "__jid_event__", "__state__", "__kwarg__"))
_PUB = "__pub_"
MOST_NAMED = 5  #: unknown words that one sentence names


class BadRequest(ValueError):
    """It has not the form of a request or of a command: what was found, what is allowed."""


def shown(found: Any) -> str:
    """The beginning of what was found, quoted as Python quotes: it must be seen what cannot be printed.

    Of a list only the kind is told. To print all of it could take long, and nobody asked for it.
    """
    if isinstance(found, str):
        return repr(found[:80])[:80]
    if isinstance(found, int) and found.bit_length() > 256:  # Python may refuse to print it
        return "a number of more than 77 digits"
    if found is None or isinstance(found, (bool, int, float)):
        return repr(found)[:80]
    return f"a {type(found).__name__}"


def salts_own(key: Any) -> bool:
    """Whether Salt has put this keyword there, not the caller."""
    return isinstance(key, str) and (key.startswith(_PUB) or key in _SALTS)


def _word(key: Any) -> str:
    """A key in quotes, letter by letter: one that only looks like an allowed one must not look so here."""
    return ascii(key[:80])[:80] if isinstance(key, str) else shown(key)


def refuse_unknown(what: str, found: Iterable[Any], allowed: Iterable[str]) -> None:
    """Raises BadRequest if something was found that is not allowed. ``what`` is what was looked at."""
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
    """The arguments as ``function`` takes them: each known, given once, and none missing.

    Raises BadRequest.
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
    """``strict`` in the place of ``function``, and for Salt a function that takes whatever comes.

    Salt asks the signature which keywords it may pass on, and follows ``__wrapped__`` to get it.
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
    """JSON in which no key stands twice. Raises BadRequest, or ValueError and RecursionError as `json.loads` does.

    Of two keys of one name Python takes the last; which one its sender meant, nobody can know.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise BadRequest(f"body: found {_word(key)} twice; allowed: once")
            made[key] = value
        return made

    return json.loads(text, object_pairs_hook=once)
