"""Turns the entries in ``engines`` into validated settings, or into a list of all that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import (
    ValidationError,
)

from ..driver.address import Address
from .group import Settings
from .mistakes import (
    ANOTHER,
    KIND,
    UNKNOWN,
    ConfigError,
    Mistake,
    Problem,
    mistakes,
    path_of,
    shown,
)
from .settings import RESERVED_CALLER, EngineSettings
from .texts import TEXT

NAME = "selfheal"
ROOT = f"engines.{NAME}"


def _listed(opts: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Name and settings of each engine that Salt would start. From an entry with several names Salt takes the first."""
    engines = opts.get("engines") or []
    if isinstance(engines, dict):
        return list(engines.items())
    listed = engines if isinstance(engines, list) else []
    return [
        next(iter(one.items()), (None, None)) if isinstance(one, dict) else (one, None)
        for one in listed
    ]


def entries(opts: Mapping[str, Any]) -> list[Any]:
    """The entries with the name selfheal in ``engines``, in Salt's order.

    Salt joins the lists of several files of ``master.d``, and starts an engine for each entry.
    """
    return [{} if value is None else value for name, value in _listed(opts) if name == NAME]


def aliases(opts: Mapping[str, Any]) -> list[str]:
    """The names of entries that would start this engine under another name. Their settings are not used.

    When Salt starts such an engine, it removes ``engine_module`` from the options (3006 to 3008). After that neither
    the engine nor the reactor could see that these settings belong to it.
    """
    return [
        str(name)
        for name, value in _listed(opts)
        if name != NAME and isinstance(value, dict) and value.get("engine_module") == NAME
    ]


def _ignored(opts: Mapping[str, Any]) -> Iterator[Problem]:
    """A problem for each entry that looks like ours, but that neither Salt nor we would use."""
    engines = opts.get("engines")
    for one in engines if isinstance(engines, list) else []:
        if isinstance(one, dict) and NAME in list(one)[1:]:
            first = path_of(next(iter(one)))
            yield Problem(
                "engines",
                f"{NAME} as a further name in the entry of {first}",
                f"an entry `- {NAME}: …` of its own; Salt takes the first name of an entry only",
            )
    for name, value in _listed(opts):
        module = value.get("engine_module", NAME) if isinstance(value, dict) else NAME
        if name == NAME and module != NAME:
            yield Problem(
                f"{ROOT}.engine_module",
                shown(module),
                f"{NAME}, or nothing; Salt would start another engine",
            )
        like = re.sub(r"[^a-z]", "", name.lower()) if isinstance(name, str) else ""
        if like == NAME and name != NAME and name not in aliases(opts):
            yield Problem("engines", f"an entry {shown(name)}", f"the name {NAME}, exactly so")


def entry(opts: Mapping[str, Any]) -> Any:
    """The raw settings in ``engines``, joined if there are several entries. None if there is no entry."""
    found = entries(opts)
    return _joined(found)[0] if found else None


#: Settings that are mappings by name. If there are several entries, each may add names of its own.
_BY_NAME = ("clusters", "webhooks")


def _joined(raws: list[Any]) -> tuple[Any, list[Problem]]:
    """Several entries joined to one, and a problem for each setting in which they contradict each other."""
    if len(raws) == 1 or not all(isinstance(raw, dict) for raw in raws):
        return next((raw for raw in raws if not isinstance(raw, dict)), raws[0]), []
    joined: dict[Any, Any] = {}
    problems = []
    for raw in raws:
        for key, value in raw.items():
            given: dict[tuple[Any, ...], tuple[dict[Any, Any], Any, Any]]
            by_name = key in _BY_NAME and isinstance(value, dict)
            if by_name and isinstance(joined.get(key, {}), dict):
                held = joined[key] = dict(joined.get(key, {}))
                given = {(key, name): (held, name, inner) for name, inner in value.items()}
            else:
                given = {(key,): (joined, key, value)}
            for path, (place, name, inner) in given.items():
                if name not in place:
                    place[name] = inner
                elif place[name] != inner:
                    problems.append(
                        Problem(
                            path_of(ROOT, *path),
                            "different values in several entries of `engines`",
                            "one value; Salt joins the lists of all files of master.d",
                        )
                    )
    return joined, problems


def load(opts: Mapping[str, Any]) -> EngineSettings:
    """The validated settings of this master.

    Raises ConfigError, with one problem for each thing that is wrong, and nothing else.
    """
    try:
        return _load(opts)
    except ConfigError:
        raise
    except Exception as exc:
        why = f"settings that cannot be read ({type(exc).__name__})"
        raise ConfigError([Problem(ROOT, why, "a mapping with `clusters`")]) from exc


def _load(opts: Mapping[str, Any]) -> EngineSettings:
    found = entries(opts)
    ignored = list(_ignored(opts))
    if not found and ignored:
        raise ConfigError(ignored)
    if not found:
        listed = "selfheal under another name" if aliases(opts) else "no selfheal"
        raise ConfigError(
            [Problem("engines", listed, "an entry `- selfheal: {clusters: …}`, with this name")]
        )
    unreadable = next((one for raw in found for one in _unreadable(raw)), None)
    if unreadable is not None:
        raise ConfigError([*ignored, unreadable])
    raw, problems = _joined(found)
    problems = ignored + problems
    if not isinstance(raw, dict):
        raise ConfigError([Problem(ROOT, repr(type(raw).__name__), "a mapping with `clusters`")])
    raw = {k: v for k, v in raw.items() if k != "engine_module"}
    if not opts.get("job_cache", True) and not opts.get("ext_job_cache"):
        problems.append(
            Problem("job_cache", "false", "true: the healer reads job results from the job cache")
        )
    unresolved = list(_unresolved(raw))
    problems += unresolved
    settings = None
    try:
        settings = EngineSettings.model_validate(raw)
    except ValidationError as exc:
        told = [f"{problem.path}." for problem in unresolved]
        problems += [
            one
            for error in exc.errors(include_url=False)
            for one in _problems(error)
            if not any(at.startswith(f"{one.path}.") for at in told)
        ]
    if settings is not None and not unresolved:
        problems += _across(settings)
    if problems or settings is None:
        raise ConfigError(problems)
    return settings


#: No setting lies deeper. In YAML a mapping can contain itself.
DEEPEST = 20
MOST_BITS = (
    256  #: of a number that stands where a name should be; Python refuses to write a huge one
)


def _unreadable(value: Any, *at: Any) -> Iterator[Problem]:
    """A problem for each thing that pydantic cannot go through: what contains itself, and a name that is a huge number."""
    if len(at) > DEEPEST:
        yield Problem(
            path_of(ROOT, *at[:4]),
            f"more than {DEEPEST} levels of mappings and lists",
            "settings that do not contain themselves",
        )
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, int) and key.bit_length() > MOST_BITS:
                yield Problem(path_of(ROOT, *at), "a huge number as a name", TEXT)
            yield from _unreadable(inner, *at, key)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _unreadable(inner, *at, number)


#: Salt resolves only values that begin with exactly ``sdb://``. Values that only look like it (blanks before it,
#: capital letters) were meant to be resolved, too, so they are found as well.
_SDB = re.compile(r"\s*sdb://", re.IGNORECASE)


def _unresolved(value: Any, *at: Any) -> Iterator[Problem]:
    """A problem for each ``sdb://`` that is left. Salt does not change one that it cannot resolve (3006 to 3008)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and _SDB.match(key):
                yield Problem(
                    path_of(ROOT, *at),
                    "an sdb:// URI as a name",
                    "a name: Salt resolves values only",
                )
            else:
                yield from _unresolved(inner, *at, key)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _unresolved(inner, *at, number)
    elif isinstance(value, str) and _SDB.match(value):
        yield Problem(
            path_of(ROOT, *at),
            "an sdb:// URI that is not resolved",
            "an sdb:// URI that the master can resolve: its profile in the master's configuration, its key there",
        )


def _across(settings: EngineSettings) -> Iterator[Problem]:
    """Problems that no single field can see, because they are about several settings."""
    owner: dict[str, str] = {}
    for name, cluster in settings.clusters.items():
        path = path_of(ROOT, "clusters", name)
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            yield Problem(path, shown(name), "a name of up to 64 letters, digits, '_', '-' and '.'")
        for node in cluster.nodes:
            at = f"{path}.nodes.{node}"
            if not fnmatchcase(node, cluster.minions):
                yield Problem(
                    at, f"a node outside minions {cluster.minions!r}", "minion ids that match it"
                )
            if node in owner:
                yield Problem(
                    at, f"a node of cluster {owner[node]!r} as well", "one cluster per node"
                )
            owner.setdefault(node, name)
        seen: dict[Address, str] = {}
        for node, address in cluster.nodes.items():
            if address in seen:
                yield Problem(
                    f"{path}.nodes.{node}",
                    f"{address}, which is {seen[address]} already",
                    "one address per node",
                )
            seen.setdefault(address, node)
    yield from _observed_by_nodes(settings)
    for name, hook in settings.webhooks.items():
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            yield Problem(
                path_of(ROOT, "webhooks", name),
                shown(name),
                "a name of up to 64 letters, digits, '_', '-' and '.'",
            )
        if name == RESERVED_CALLER:
            yield Problem(
                f"{ROOT}.webhooks.{name}",
                repr(name),
                f"any other name: the ids of requests from the bus begin with {name}:",
            )
        for allowed in hook.clusters:
            if allowed not in settings.clusters:
                yield Problem(
                    f"{ROOT}.webhooks.{name}.clusters", repr(allowed), ", ".join(settings.clusters)
                )


def _observed_by_nodes(settings: EngineSettings) -> Iterator[Problem]:
    """A problem for each cluster whose observers are minions of a database: they go down with what they look at."""
    nodes = [node for cluster in settings.clusters.values() for node in cluster.nodes]
    for name, cluster in settings.clusters.items():
        observers = cluster.observers
        own = [node for node in nodes if observers is not None and observers.allows(node)]
        if observers is not None and own:
            yield Problem(
                path_of(ROOT, "clusters", name, "observers", "minions"),
                f"{shown(observers.minions)}, which names {own[0]}, a node of a cluster",
                "minions that are no node of any cluster: these go down together with what they look at",
            )


#: Keys whose values are never shown.
SECRETS = frozenset({"password", "secret", "formula_secretkey"})
HIDDEN = "a value that is not shown"


def _may_hold_secret(value: Any) -> bool:
    """Whether a value in a wrong place could be a secret, or contain one."""
    if isinstance(value, Mapping):
        return bool(SECRETS & set(map(str, value))) or any(map(_may_hold_secret, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_may_hold_secret, value))
    return isinstance(value, str) and (value.startswith("whsec_") or "@" in value)


#: What is allowed, by the type of pydantic's error. Other types keep pydantic's words.
_ALLOWED = {
    "string_type": TEXT,
    "list_type": "a list",
    "dict_type": "a mapping",
    "value_error": ANOTHER,
    "assertion_error": ANOTHER,
}


def _problems(error: Any) -> Iterator[Problem]:
    """An error of pydantic in our own words. One error of a value that we read may hold several."""
    kind = error["type"]
    of_key = error["loc"][-1:] == ("[key]",)
    loc = list(error["loc"][:-1] if of_key else error["loc"])
    if of_key or kind == "invalid_key":
        loc[-1] = error["input"]  # the key itself: pydantic writes True as 1
    told = mistakes(error["ctx"], error["input"]) if kind == KIND else None
    for one in told or [Mistake((), error["input"], _allowed(error, loc))]:
        at = [*loc, *one.at]
        if SECRETS & set(map(str, loc)):
            found = HIDDEN
        elif kind == "missing":
            found = "nothing"
        elif kind == "extra_forbidden":
            found = shown(UNKNOWN)
        elif _may_hold_secret(one.found) or (
            len(loc) == 2 and loc[0] in ("webhooks", "clusters") and not of_key
        ):
            found = HIDDEN
        else:
            found = shown(one.found)
        yield Problem(path_of(ROOT, *at), found, one.allowed)


def _allowed(error: Any, loc: list[Any]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return ", ".join(_keys_at(loc[:-1]))
    if kind in ("model_type", "invalid_key"):
        return f"a mapping with {', '.join(_keys_at(loc if kind == 'model_type' else loc[:-1]))}"
    if kind == "missing":
        return _described(loc)
    own = _ALLOWED.get(kind)
    return own if own else str(error["msg"][:1].lower() + error["msg"][1:])


def _model_at(loc: list[Any]) -> type[Settings] | None:
    """The group of settings at this path. None if there is no group."""
    model: type[Settings] | None = EngineSettings
    by_name: type[Settings] | None = None
    for part in loc:
        if by_name is not None:  # the key of a mapping name → settings
            model, by_name = by_name, None
            continue
        field = model.model_fields.get(str(part)) if model else None
        inner = _settings_in(field.annotation) if field else None
        if field is not None and getattr(field.annotation, "__origin__", None) is dict:
            by_name = inner
        else:
            model = inner
    return model


def _settings_in(annotation: Any) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _settings_in(inner)
        if found:
            return found
    return None


def _keys_at(loc: list[Any]) -> list[str]:
    model = _model_at(loc)
    return list(model.model_fields) if model else []


def _described(loc: list[Any]) -> str:
    model = _model_at(loc[:-1])
    field = model.model_fields.get(str(loc[-1])) if model and loc else None
    return (field.description or "a value") if field else "a value"
