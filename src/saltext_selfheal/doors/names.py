"""Turns names back into text that a command line, YAML or JSON has turned into something else.

Salt reads each argument of its command line as YAML 1.1: ``201`` becomes a number, ``0777`` the number 777 (in other
YAML 511), ``no`` is False, ``1.50`` is 1.5 and ``null`` is None. A sender of JSON may write a number for a name, too.
Which name was meant can be told if exactly one of the configured names is read as that value. If there are two, nothing
is guessed: the wrong machine could be restarted.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Any

from .arguments import BadRequest, shown

MOST_NODES = 64  #: a longer list is refused anyway, so it is not looked at

#: How such a name has to be written. The shell takes away one pair of quotes, and YAML the other.
QUOTE = "as text: what looks like a number, a date, yes, no or null stands in two pairs of quotes, such as '\"0201\"'"

_WORDS: dict[str, Any] = {
    form: value
    for word, value in (
        ("yes", True), ("no", False), ("true", True), ("false", False), ("on", True), ("off", False), ("null", None),
    )
    for form in (word, word.title(), word.upper())
} | {"~": None, "None": None}  # fmt: skip
#: The numbers of YAML 1.1, as PyYAML finds them.
_WHOLE = re.compile(
    r"[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)"
)
_BROKEN = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def as_read(name: str, octal: bool = False) -> Any:
    """What Salt's YAML makes of this word: a number, a truth value, None, or the word itself.

    ``octal``: what other YAML 1.1 makes of it. Salt takes leading zeros away (3006 to 3008).
    """
    if name in _WORDS:
        return _WORDS[name]
    whole = _WHOLE.fullmatch(name)
    if not whole and not _BROKEN.fullmatch(name):
        return name
    salts = name.lstrip("0") or "0"
    kept = name if octal or not whole or name[:2] in ("0b", "0x") else salts
    bare = kept.replace("_", "").lower() or "_"
    sign, digits = (-1 if bare[0] == "-" else 1), bare.lstrip("+-")
    try:
        if ":" in digits:
            value: Any = 0 if whole else 0.0
            for part in digits.split(":"):
                value = value * 60 + (int(part) if whole else float(part))
        elif whole:
            base = {"0b": 2, "0x": 16}.get(digits[:2], 8 if digits[:1] == "0" else 10)
            value = int(digits, base)
        else:
            value = float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return name
    return sign * value


def _same(one: Any, other: Any) -> bool:
    """Whether these are the same value of the same type. Not a number is the same as not a number."""
    return type(one) is type(other) and (one == other or (one != one and other != other))


def turned_back(what: str, found: Any, known: Iterable[str]) -> Any:
    """The name that was turned into ``found``, if exactly one of the known names is. For a list, each of its names.

    What no name is turned into stays as it is. So do None and what is text already. ``what`` names the argument.

    Raises BadRequest if several names are turned into this value, or if one is turned into None, because that also
    means that nothing was given.
    """
    if isinstance(found, (list, tuple)):
        few = len(found) <= MOST_NODES
        return [turned_back(what, one, known) for one in found] if few else found
    if isinstance(found, datetime.date):
        found = str(found)
    if isinstance(found, str) or not isinstance(found, (int, float, type(None))):
        return found
    names = [
        name for name in known if any(_same(as_read(name, octal), found) for octal in (False, True))
    ]
    if len(names) == 1 and found is not None:
        return names[0]
    if names:
        raise BadRequest(
            f"{what}: found {shown(found)}, which is also what the name{'s' * (len(names) > 1)} "
            f"{' and '.join(names[:5])} would be read as; allowed: a name {QUOTE}"
        )
    return found


def is_text(found: Any) -> bool:
    """Whether this is text, or a list of texts, so that nothing has to be turned back."""
    if isinstance(found, (list, tuple)):
        return all(isinstance(one, str) for one in found)
    return isinstance(found, str)


def quote(found: Any) -> str:
    """What to say after an error about a name: how to write it, if it was read as something else. Else nothing."""
    odd = (
        [one for one in found[:MOST_NODES] if not isinstance(one, str)]
        if isinstance(found, list)
        else [found]
    )
    numbers = [one for one in odd if isinstance(one, (int, float, type(None), datetime.date))]
    return f"; a name is given {QUOTE}" if numbers and found is not None else ""
