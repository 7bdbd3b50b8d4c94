"""Turns the entries in ``engines`` into validated settings, or into a list of all that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import (
    ValidationError,
)

from ..driver.address import Address
from .settings import RESERVED_CALLER, EngineSettings, Settings

NAME = "selfheal"
ROOT = f"engines.{NAME}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the settings."""

    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; allowed: {self.allowed}"


class ConfigError(Exception):
    """The settings cannot be used. ``problems`` holds each reason."""

    def __init__(self, problems: list[Problem]):
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


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
                            ".".join((ROOT, *map(str, path))),
                            "different values in several entries of `engines`",
                            "one value; Salt joins the lists of all files of master.d",
                        )
                    )
    return joined, problems


def load(opts: Mapping[str, Any]) -> EngineSettings:
    """The validated settings of this master.

    Raises ConfigError, with one problem for each thing that is wrong.
    """
    found = entries(opts)
    if not found:
        listed = "selfheal under another name" if aliases(opts) else "no selfheal"
        raise ConfigError(
            [Problem("engines", listed, "an entry `- selfheal: {clusters: …}`, with this name")]
        )
    raw, problems = _joined(found)
    if not isinstance(raw, dict):
        raise ConfigError([Problem(ROOT, repr(type(raw).__name__), "a mapping with `clusters`")])
    raw = {k: v for k, v in raw.items() if k != "engine_module"}
    if opts.get("job_cache", True) is False and not opts.get("ext_job_cache"):
        problems.append(
            Problem("job_cache", "false", "true: the healer reads job results from the job cache")
        )
    unresolved = list(_unresolved(raw, ROOT))
    problems += unresolved
    settings = None
    try:
        settings = EngineSettings.model_validate(raw)
    except ValidationError as exc:
        found_wrong = [_problem(error, raw) for error in exc.errors(include_url=False)]
        told = [f"{problem.path}." for problem in unresolved]
        problems += [
            one for one in found_wrong if not any(at.startswith(f"{one.path}.") for at in told)
        ]
    if settings is not None and not unresolved:
        problems += _across(settings)
    if problems or settings is None:
        raise ConfigError(problems)
    return settings


#: Salt resolves only values that begin with exactly ``sdb://``. Values that only look like it (blanks before it,
#: capital letters) were meant to be resolved, too, so they are found as well.
_SDB = re.compile(r"\s*sdb://", re.IGNORECASE)


def _unresolved(value: Any, path: str) -> Iterator[Problem]:
    """A problem for each ``sdb://`` that is left. Salt does not change one that it cannot resolve (3006 to 3008)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and _SDB.match(key):
                yield Problem(path, "an sdb:// URI as a name", "a name: Salt resolves values only")
            else:
                yield from _unresolved(inner, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _unresolved(inner, f"{path}.{number}")
    elif isinstance(value, str) and _SDB.match(value):
        yield Problem(
            path,
            "an sdb:// URI that is not resolved",
            "an sdb:// URI that the master can resolve: its profile in the master's configuration, its key there",
        )


def _across(settings: EngineSettings) -> Iterator[Problem]:
    """Problems that no single field can see, because they are about several settings."""
    owner: dict[str, str] = {}
    for name, cluster in settings.clusters.items():
        path = f"{ROOT}.clusters.{name}"
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            yield Problem(path, repr(name), "a name of up to 64 letters, digits, '_', '-' and '.'")
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
    for name, hook in settings.webhooks.items():
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            yield Problem(
                f"{ROOT}.webhooks.{name}",
                repr(name),
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


def _problem(error: Any, raw: Any) -> Problem:
    """An error of pydantic in our own words."""
    loc = [part for part in error["loc"] if not (isinstance(part, str) and part == "[key]")]
    path = ".".join([ROOT, *map(str, loc)])
    kind = error["type"]
    if SECRETS & set(map(str, loc)):
        found = HIDDEN
    elif kind == "missing":
        found = "nothing"
    elif kind == "extra_forbidden":
        found = "an unknown key"
    elif _may_hold_secret(error["input"]) or (len(loc) == 2 and loc[0] in ("webhooks", "clusters")):
        found = HIDDEN
    else:
        found = repr(error["input"])
        found = found if len(found) <= 80 else found[:77] + "…"
    if kind == "selfheal":
        return Problem(path, found, error["ctx"]["allowed"])
    if kind == "extra_forbidden":
        return Problem(path, found, ", ".join(_keys_at(loc[:-1])))
    if kind == "missing":
        return Problem(path, found, _described(loc))
    return Problem(path, found, error["msg"][:1].lower() + error["msg"][1:])


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
