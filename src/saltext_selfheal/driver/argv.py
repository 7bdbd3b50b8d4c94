"""RethinkDB's command line, as far as it can be told from outside: whether it serves, and its options (2.4.4).

A minion's witness reads it from /proc, and the engine from what Salt's `ps.psaux` returns.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHORT = {"-d": "directory", "-j": "join", "-o": "port-offset"}


def serves(argv: Sequence[str]) -> bool:
    """Whether this runs a server. Without a word it does; `rethinkdb dump` and its like are clients."""
    word = argv[1] if len(argv) > 1 else "serve"
    return word.startswith("-") or word in ("serve", "proxy", "porcelain")


def options(argv: Sequence[str], short: bool = True) -> dict[str, list[str]]:
    """The options of a command line. ``short``: also `-d` and the like, which mean something else to other programs."""
    found: dict[str, list[str]] = {}
    for place, word in enumerate(argv):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif short and word in _SHORT:
            name, equals, value = _SHORT[word], "", ""
        else:
            continue
        if not equals and place + 1 < len(argv):
            value = argv[place + 1]
        found.setdefault(name, []).append(value)
    return found
