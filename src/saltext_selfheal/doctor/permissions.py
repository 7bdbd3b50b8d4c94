"""Which functions of the healer Salt's permission lists let somebody call: ``external_auth``, ``peer``, ``peer_run``.

The lists are read as Salt reads them (3006 to 3008). Nothing here allows or refuses anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: The runner's functions, by who should have the right to call them. Salt's patterns are tested against these names.
FOR_APPLICATIONS = ("trigger", "status")
FOR_READERS = ("history", "incident", "explain", "audit", "config", "doctor")
FOR_OPERATORS = ("force", "pause", "resume", "lock", "ack", "approve", "reject")
RUNNER = (*FOR_APPLICATIONS, *FOR_READERS, *FOR_OPERATORS)
#: The execution module's functions.
MODULE = ("trigger", "highstate", "restart", "probe", "attempt")
#: The functions by the client of salt-api that calls them.
NAMES = {"runner": RUNNER, "local": MODULE}


@dataclass(frozen=True)
class Grant:
    """What one entry of a permission list lets somebody call."""

    who: str
    pattern: str
    client: str  #: the client of salt-api: runner or local
    names: tuple[str, ...] = ()  #: our functions that it allows, without the module's name
    loose: bool = False  #: it also allows longer names that begin like ours
    whole: str = ""  #: if it allows everything: what that is, in words


def _matches(pattern: str, name: str) -> bool:
    """Whether Salt would take this name (3006 to 3008). The pattern must match only the beginning of the name."""
    try:
        return re.match(pattern, name) is not None
    except re.error:
        return False


def _grant(who: str, pattern: str, client: str, prefix: str, whole: str) -> Grant | None:
    """What a pattern allows of this client's functions. None if it allows none of ours."""
    allowed = tuple(n for n in NAMES[client] if _matches(pattern, prefix + n))
    if not allowed:
        return None
    if prefix and all(_matches(pattern, other) for other in ("cmd.run", "state.apply", "salt.cmd")):
        return Grant(who, pattern, client, allowed, whole=whole)
    loose = any(_matches(pattern, f"{prefix}{n}_x") for n in allowed)
    return Grant(who, pattern, client, allowed, loose)


def _functions(listed: Any) -> Iterator[str]:
    """The patterns in a list of functions. Conditions on arguments are left out."""
    for one in listed if isinstance(listed, list) else [listed]:
        yield from map(str, one) if isinstance(one, dict) else [str(one)]


def _runner_grants(who: str, target: str, listed: Any) -> Iterator[Grant | None]:
    for pattern in _functions(listed):
        if target == "selfheal":
            yield _grant(who, pattern, "runner", "", "")
        elif target in ("runner", "runners"):
            yield _grant(who, pattern, "runner", "selfheal.", "every runner")


def _grants(who: str, listed: Any) -> Iterator[Grant | None]:
    """The grants of one permission list of ``external_auth``."""
    for one in listed if isinstance(listed, list) else [listed]:
        if isinstance(one, dict):
            for target, functions in one.items():
                if str(target).startswith("@"):
                    yield from _runner_grants(who, str(target)[1:], functions)
                else:
                    for pattern in _functions(functions):
                        yield _grant(
                            who, pattern, "local", "selfheal.", f"every function on {target}"
                        )
        elif str(one).startswith("@"):
            yield from _runner_grants(who, str(one)[1:], ".*")
        else:
            yield _grant(who, str(one), "local", "selfheal.", "every function on every minion")


def backends(opts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ways to log in that the master accepts, each with its users."""
    found = opts.get("external_auth")
    return found if isinstance(found, dict) else {}


def external(opts: Mapping[str, Any]) -> list[Grant]:
    found = []
    for backend, users in backends(opts).items():
        for user, listed in users.items() if isinstance(users, dict) else ():
            # A name with ^ is no user, but an option of the backend.
            if not str(user).startswith("^"):
                found += [g for g in _grants(f"{user} ({backend})", listed) if g]
    return found


def peers(opts: Mapping[str, Any], option: str) -> list[Grant]:
    """The grants of ``peer`` (minions may call functions on minions) or ``peer_run`` (runners on the master)."""
    client = "runner" if option == "peer_run" else "local"
    rules, found = opts.get(option), []
    for who, listed in rules.items() if isinstance(rules, dict) else ():
        for one in listed if isinstance(listed, list) else ():
            for inner in one.values() if isinstance(one, dict) else [one]:
                grants = (
                    _grant(str(who), p, client, "selfheal.", "all") for p in _functions(inner)
                )
                found += [grant for grant in grants if grant]
    return found


def is_pattern(text: str) -> bool:
    """Whether this is a regular expression that Salt can read. If one is not, Salt answers no minion at all."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def says_its_end(pattern: str) -> bool:
    """Whether a pattern says how a name must end, or says clearly that anything may follow.

    Salt matches only the beginning of a name, so ``app1`` also matches ``app10``.
    """
    several = [pattern] if "(" in pattern else pattern.split("|")
    return all(one.rstrip(")").endswith(("$", r"\Z", ".*", ".+")) for one in several)
