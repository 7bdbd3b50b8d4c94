"""The engine's settings in ``master.d``: read, checked, explained.

One loader (`load`) for the engine, the runner and the reactor's ``attempt()``. What a setting means stands at its
field; the configuration reference in the docs is generated from these models. Validation is pydantic's, the
sentences are ours: every error has its path, what was found and what is allowed. No socket, no file.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv6Address
from math import log2
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .driver.address import DRIVER_PORT, Address
from .healing import escalation
from .healing.model import REMEDIES, Action, Fault, Limits, Mode, Policy, Step

NAME = "selfheal"
ROOT = f"engines.{NAME}"
#: No webhook's caller may have it: a caller's name stands before the ids of its requests, as this before the bus's.
RESERVED_CALLER = "bus"
#: Faults that settings may speak of; `requested` is no fault of a database.
FAULTS = tuple(f.value for f in Fault if f is not Fault.REQUESTED)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = "a duration such as 500ms, 2s, 5m, 1h, 90d, or a number of seconds"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the settings."""

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


def _wrong(allowed: str) -> PydanticCustomError:
    return PydanticCustomError("selfheal", "{allowed}", {"allowed": allowed})


# ---------------------------------------------------------------- kinds of values


def _duration(value: Any) -> float:
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
        raise _wrong(DURATION)
    return float(match[1]) * _UNITS[match[2] or "s"]


def _duration_or_off(value: Any) -> float:
    # YAML 1.1 reads a bare `off` as False.
    if value is False or value == "off":
        return 0.0
    try:
        return _duration(value)
    except PydanticCustomError:
        raise _wrong(f"{DURATION}, or off") from None


def _positive(value: float) -> float:
    if value <= 0:
        raise _wrong(f"{DURATION}, more than 0")
    return value


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000:
        return value
    raise _wrong("a whole number, 0 or more")


def _positive_count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return value
    raise _wrong("a whole number between 1 and 1000")


def _share(value: Any) -> float:
    if value is False or value == "off":
        return 0.0
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())):
        value = float(match[1]) / 100
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise _wrong("a share such as 34%, between 0% and 100%, or off")


def _mode(value: Any) -> Mode:
    if value is False:
        return Mode.OFF
    if isinstance(value, str) and value in [m.value for m in Mode]:
        return Mode(value)
    raise _wrong(", ".join(m.value for m in Mode))


def _rate(value: Any) -> tuple[int, float]:
    if value is False or value == "off":
        return (0, 60.0)
    match = re.fullmatch(r"(\d+)\s*/\s*(s|m|h)", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise _wrong("a rate such as 6/m (per s, m or h), or off")
    return int(match[1]), _UNITS[match[2]]


Duration = Annotated[float, BeforeValidator(_duration)]
PositiveDuration = Annotated[float, BeforeValidator(lambda v: _positive(_duration(v)))]
DurationOrOff = Annotated[float, BeforeValidator(_duration_or_off)]
Count = Annotated[int, BeforeValidator(_count)]
PositiveCount = Annotated[int, BeforeValidator(_positive_count)]
Share = Annotated[float, BeforeValidator(_share)]
ModeSetting = Annotated[Mode, BeforeValidator(_mode)]
Rate = Annotated[tuple[int, float], BeforeValidator(_rate)]


def _address(value: Any) -> Address:
    allowed = "address or address:port (1 to 65535), IPv6 as [address]:port"
    if not isinstance(value, str) or not value.strip() or re.search(r"[\s/@]", value.strip()):
        raise _wrong(allowed)
    text = value.strip()
    try:
        return Address(str(IPv6Address(text)))
    except ValueError:
        pass
    match = re.fullmatch(
        r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?", text
    )
    port = int(match["port"] or DRIVER_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise _wrong(allowed)
    if match["six"]:
        try:
            return Address(str(IPv6Address(match["six"])), port)
        except ValueError:
            raise _wrong(allowed) from None
    return Address(_host(match["host"]), port)


def _host(name: str) -> str:
    """A name that a resolver can be asked for: else each look would fail on this side."""
    labels = name.removesuffix(".").split(".")
    if not all(labels):
        raise _wrong("a name without empty labels (two dots in a row, or one at the beginning)")
    if "%" in name or not name.isprintable():
        raise _wrong("a name without % and control characters; a zone goes with an IPv6 address")
    try:
        encoded = name.encode("idna")
        if any(len(label) > 63 for label in labels) or len(encoded.removesuffix(b".")) > 253:
            raise UnicodeError
    except UnicodeError:
        raise _wrong(
            "a name that DNS can carry: labels of 1 to 63 characters, 253 in all"
        ) from None
    return name


NodeAddress = Annotated[Address, BeforeValidator(_address)]


def _steps(value: Any) -> tuple[Step, ...]:
    """``[highstate, restart: {after: 60s}]`` → steps."""
    actions = ", ".join(a.value for a in REMEDIES)
    allowed = f"a list of actions ({actions}), each alone or as {{action: {{after: duration, mode: mode}}}}"
    if not isinstance(value, list):
        raise _wrong(allowed)
    return tuple(_step(item, allowed) for item in value)


def _step(item: Any, allowed: str) -> Step:
    name, options = item, {}
    if isinstance(item, dict) and len(item) == 1:
        ((name, options),) = item.items()
    if name not in [a.value for a in REMEDIES] or not isinstance(options or {}, dict):
        raise _wrong(allowed)
    options = dict(options or {})
    after_s = _duration_or_off(options.pop("after", 0))
    mode = _mode(options.pop("mode")) if "mode" in options else None
    if options:
        raise _wrong(f"{allowed}; unknown: {', '.join(map(str, options))}")
    return Step(Action(name), after_s, mode)


def _escalation(value: Any) -> dict[Fault, tuple[Step, ...]]:
    if isinstance(value, list):
        return escalation.for_every_fault(_steps(value))
    if not isinstance(value, dict):
        raise _wrong(f"a list of steps, or lists per fault ({', '.join(FAULTS)})")
    chosen = dict(escalation.DEFAULT)
    for name, steps in value.items():
        if name not in FAULTS:
            raise _wrong(f"faults: {', '.join(FAULTS)}; not {name!r}")
        fault = Fault(name)
        chosen[fault] = _steps(steps if steps is not None else [])
        banned = [
            s.action.value for s in chosen[fault] if s.action in escalation.NEVER.get(fault, ())
        ]
        if banned and fault is Fault.MISTAKEN:
            raise _wrong(f"for {name} no action: whatever is done may hit another server")
        if banned:
            raise _wrong(f"for {name} any action but {', '.join(banned)}, which cannot cure it")
    return chosen


def _confirm(value: Any) -> dict[Fault, float]:
    if not isinstance(value, dict):
        return dict.fromkeys(Fault, _duration_or_off(value))
    unknown = [k for k in value if k not in (*FAULTS, "default")]
    if unknown:
        raise _wrong(f"default, {', '.join(FAULTS)}; not {', '.join(map(repr, unknown))}")
    given = {k: _duration_or_off(v) for k, v in value.items()}
    own = {**_CONFIRM, **given}
    return {f: own.get(f.value, own["default"]) for f in Fault}


_CONFIRM = {"dead": 3.0, "hung": 20.0, "default": 10.0}
Escalation = Annotated[dict[Fault, tuple[Step, ...]], BeforeValidator(_escalation)]
Confirm = Annotated[dict[Fault, float], BeforeValidator(_confirm)]


# ---------------------------------------------------------------- the settings


class Settings(BaseModel):
    """Base of all groups: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class TlsSettings(Settings):
    ca_certs: str = Field(
        description="Path of the CA certificates (PEM) that the node's certificate must chain to."
    )


class AttemptSettings(Settings):
    timeout: PositiveDuration = Field(
        300.0,
        description="For the job to return; afterwards the healer asks the minion whether it still runs.",
    )
    verify: PositiveDuration = Field(
        60.0, description="For the fault to be gone after the job returned."
    )


class CooldownSettings(Settings):
    min: DurationOrOff = Field(
        120.0,
        description="A node rests this long after an attempt's end before another incident or request may act on it.",
    )
    max: DurationOrOff = Field(3600.0, description="The rest doubles with each relapse up to this.")

    @model_validator(mode="after")
    def _ordered(self) -> CooldownSettings:
        if self.max < self.min:
            raise _wrong("max at least as long as min")
        return self


class BudgetSettings(Settings):
    attempts: Count = Field(3, description="Attempts per node within `per`; 0 = no budget.")
    per: PositiveDuration = Field(3600.0, description="The sliding window of the budget.")


class FlappingSettings(Settings):
    changes: Count = Field(
        4,
        description="Changes that nobody made, within `within`, that make a node flapping; 0 = off.",
    )
    within: PositiveDuration = Field(900.0, description="The window in which changes count.")
    quiet: PositiveDuration = Field(
        1800.0, description="Flapping ends after this long without a change."
    )


class SlowSettings(Settings):
    above: DurationOrOff = Field(
        0.0, description="An answer that takes longer is slow; `off` (default) = not looked for."
    )
    count: PositiveCount = Field(3, description="So many slow answers …")
    of: PositiveCount = Field(5, description="… among so many make the node slow.")

    @model_validator(mode="after")
    def _possible(self) -> SlowSettings:
        if self.count > self.of:
            raise _wrong("count at most as large as of")
        return self


class ViewSettings(Settings):
    every: PositiveDuration = Field(
        5.0, description="How often one live node is asked for the cluster's system tables."
    )
    timeout: PositiveDuration = Field(
        20.0,
        description="One deadline for that. A peer that hangs delays system tables by 15 s.",
    )


class RequestSettings(Settings):
    rate: Rate = Field(
        (6, 60.0), description="How many requests that would open or act are taken, such as `6/m`."
    )
    restart_needs: Literal["probe", "none"] = Field(
        "probe", description="Whether a requested restart needs the probe to see a fault, too."
    )


class LimitSettings(Settings):
    attempts: Count = Field(
        10, description="Attempts over all clusters within `per`; 0 = no limit."
    )
    per: PositiveDuration = Field(3600.0, description="The sliding window of the limit.")
    storm: Share = Field(
        0.34,
        description="With three clusters or more: no action while a larger share of them shows a fault.",
    )


class WebhookSettings(Settings):
    secret: SecretStr = Field(
        description="The Standard Webhooks secret, `whsec_…`; any `sdb://` URI works."
    )
    clusters: list[str] = Field(
        description="The clusters this caller may ask healing for.", min_length=1
    )
    actions: list[Literal["highstate", "restart", "start"]] = Field(
        ["highstate", "restart"], description="The actions this caller may ask for."
    )

    @field_validator("secret")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        secret = value.get_secret_value()
        try:
            key = b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not secret.startswith("whsec_") or len(key) < 16:
            raise _wrong("whsec_ and the base64 of at least 16 bytes, better 32")
        _unguessable(key, "whsec_ and what `openssl rand -base64 32` prints")
        return value


class LedgerSettings(Settings):
    keep: DurationOrOff = Field(
        90 * 86400.0, description="How long history is kept; `off` keeps everything."
    )
    path: str | None = Field(
        None,
        description="The ledger's file; default `<cachedir>/selfheal/ledger.sqlite3`. Not on a network file system.",
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            raise _wrong("an absolute path, or null")
        return value


SECRET_BITS = 40  #: by its look, see `look_bits`; what a generator makes has far more


def look_bits(secret: str | bytes) -> int:
    """How many bits of chance a secret can hold at most, by its look alone.

    Each sign counts the logarithm of how many different signs there are, but nothing if it goes on with a row (`aaa`,
    `123`, `cba`) or a pair that stood there before. No dictionary is asked: words look better than they are.
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


def _unguessable(secret: str | bytes, better: str) -> None:
    bits = look_bits(secret)
    if bits < SECRET_BITS:
        raise _wrong(
            f"a secret with at least {SECRET_BITS} bits of entropy, and this one has {bits} at most; take {better}"
        )


def _off_is(zero: dict[str, Any]) -> BeforeValidator:
    """`off`, `false` or 0 in place of a group switches the group off."""
    return BeforeValidator(
        lambda v: zero if v is False or v == "off" or (v == 0 and v is not None) else v
    )


class ClusterSettings(Settings):
    """One RethinkDB cluster."""

    minions: str = Field(
        description="The allow-list: no minion id outside this glob is ever targeted, whoever asks.",
        min_length=1,
    )
    nodes: dict[str, NodeAddress] = Field(
        description="Minion id → `address` or `address:port` of its driver port (default 28015).",
        min_length=1,
    )
    mode: ModeSetting | None = Field(
        None, description="This cluster's mode; default: the one above."
    )
    service: str = Field(
        "rethinkdb",
        description="The service that `restart` and `start` act on.",
        pattern=r"^[\w@.:\\-]+$",
    )
    user: str = Field("admin", description="The RethinkDB user the probe logs in as.", min_length=1)
    password: SecretStr = Field(
        SecretStr(""), description="Its password, ASCII; any `sdb://` URI works."
    )
    tls: TlsSettings | None = Field(None, description="Talk TLS to the nodes.")
    tables: list[str] = Field(
        [], description="Databases or `db.table` that must be available; default: all."
    )
    poll: PositiveDuration = Field(2.0, description="How often each node is probed.")
    timeout: PositiveDuration = Field(
        2.0, description="One deadline for name, TCP, TLS, handshake and query of a probe."
    )
    redial: PositiveDuration = Field(
        30.0,
        description="How often each node is dialled afresh, as an application would, beside the connection that is "
        "open: both must be well. It is dialled at once, too, after each attempt and when somebody asks for a restart.",
    )
    confirm: Confirm = Field(
        default_factory=lambda: _confirm({}),
        description="How long a fault must last before anything is done: one duration, or durations per fault "
        "(default `{dead: 3s, hung: 20s, default: 10s}`); 0 = act on the first proof.",
    )
    settle: DurationOrOff = Field(
        45.0,
        description="After a node (re)started its tables may be opening: no `unavailable` for this long.",
    )
    stable: DurationOrOff = Field(30.0, description="Well for this long = resolved.")
    slow: Annotated[SlowSettings, _off_is({"above": 0})] = Field(
        SlowSettings(), description="When a node that answers counts as slow."
    )
    view: ViewSettings = Field(ViewSettings(), description="The look into the system tables.")
    escalation: Escalation = Field(
        default_factory=lambda: dict(escalation.DEFAULT),
        description="The steps, as one list for all faults or as lists per fault. Default: see "
        "[faults](../concepts.md#faults).",
    )
    attempt: AttemptSettings = Field(AttemptSettings(), description="How long a job may take.")
    cooldown: Annotated[CooldownSettings, _off_is({"min": 0, "max": 0})] = Field(
        CooldownSettings(), description="Rest between attempts of different incidents on one node."
    )
    budget: Annotated[BudgetSettings, _off_is({"attempts": 0})] = Field(
        BudgetSettings(), description="Attempts per node."
    )
    relapse: DurationOrOff = Field(
        3600.0,
        description="A fault that returns within this starts at the step after the one that had helped.",
    )
    flapping: Annotated[FlappingSettings, _off_is({"changes": 0})] = Field(
        FlappingSettings(), description="When a node that comes and goes is left alone."
    )
    requests: RequestSettings = Field(
        RequestSettings(), description="What applications may ask for."
    )

    @field_validator("password")
    @classmethod
    def _ascii(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().isascii():
            raise _wrong("ASCII characters (the driver can send no others)")
        return value

    def policy(self, name: str, mode: Mode) -> Policy:
        """What the core needs of this."""
        return Policy(
            name=name,
            nodes=tuple(self.nodes),
            minions=self.minions,
            mode=self.mode or mode,
            confirm_s=self.confirm,
            poll_s=self.poll,
            timeout_s=self.timeout,
            settle_s=self.settle,
            stable_s=self.stable,
            slow_above_s=self.slow.above,
            slow_count=self.slow.count,
            slow_of=self.slow.of,
            flapping_changes=self.flapping.changes,
            flapping_within_s=self.flapping.within,
            flapping_quiet_s=self.flapping.quiet,
            tables=tuple(self.tables),
            escalation=self.escalation,
            attempt_timeout_s=self.attempt.timeout,
            verify_s=self.attempt.verify,
            cooldown_min_s=self.cooldown.min,
            cooldown_max_s=self.cooldown.max,
            budget_attempts=self.budget.attempts,
            budget_per_s=self.budget.per,
            relapse_s=self.relapse,
            restart_needs_probe=self.requests.restart_needs == "probe",
            request_count=self.requests.rate[0],
            request_per_s=self.requests.rate[1],
        )


class EngineSettings(Settings):
    """All settings of the engine."""

    mode: ModeSetting = Field(
        Mode.AUTO,
        description="How much the healer may do: `off`, `shadow` (decide, record, do nothing), `approve` "
        "(ask a person), `auto`.",
    )
    clusters: dict[str, ClusterSettings] = Field(
        description="The clusters to heal, by name.", min_length=1
    )
    limits: Annotated[LimitSettings, _off_is({"attempts": 0, "storm": 0})] = Field(
        LimitSettings(), description="Bounds over all clusters."
    )
    webhooks: dict[str, WebhookSettings] = Field(
        {}, description="Callers of the signed webhook, by name."
    )
    formula_secretkey: SecretStr | None = Field(
        None, description="Set it to open the routes of the article's interface; closed by default."
    )

    @field_validator("formula_secretkey")
    @classmethod
    def _strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _unguessable(
                value.get_secret_value(),
                "what `openssl rand -hex 24` prints, or null to keep the interface closed",
            )
        return value

    ledger: LedgerSettings = Field(
        LedgerSettings(), description="What the healer remembers, and where."
    )

    def policies(self) -> dict[str, Policy]:
        return {name: cluster.policy(name, self.mode) for name, cluster in self.clusters.items()}

    def bounds(self) -> Limits:
        return Limits(self.limits.attempts, self.limits.per, self.limits.storm)

    def ledger_path(self, opts: Mapping[str, Any]) -> Path:
        return Path(self.ledger.path or Path(opts["cachedir"]) / "selfheal" / "ledger.sqlite3")


# ---------------------------------------------------------------- loading


def duration(value: Any) -> float:
    """A duration as the settings write it, in seconds. Raises ValueError."""
    return _duration(value)


def _listed(opts: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Name and settings of each engine that Salt would start: of an entry with several names it takes the first."""
    engines = opts.get("engines") or []
    if isinstance(engines, dict):
        return list(engines.items())
    listed = engines if isinstance(engines, list) else []
    return [
        next(iter(one.items()), (None, None)) if isinstance(one, dict) else (one, None)
        for one in listed
    ]


def entries(opts: Mapping[str, Any]) -> list[Any]:
    """What stands in ``engines`` under the name selfheal, in Salt's order.

    Salt joins the lists of several files of ``master.d``, and starts an engine for each entry.
    """
    return [{} if value is None else value for name, value in _listed(opts) if name == NAME]


def aliases(opts: Mapping[str, Any]) -> list[str]:
    """Entries that would start this engine under another name. Their settings are nobody's.

    Salt takes ``engine_module`` out of the options as it starts such an engine (3006 to 3008): from then on neither the
    engine nor the reactor could tell whose settings these are.
    """
    return [
        str(name)
        for name, value in _listed(opts)
        if name != NAME and isinstance(value, dict) and value.get("engine_module") == NAME
    ]


def entry(opts: Mapping[str, Any]) -> Any:
    """The settings as they stand in ``engines``, joined if there are several entries; None if there is none."""
    found = entries(opts)
    return _joined(found)[0] if found else None


#: Settings that are names with something each: several entries may each bring their own.
_BY_NAME = ("clusters", "webhooks")


def _joined(raws: list[Any]) -> tuple[Any, list[Problem]]:
    """Several entries as one, and what they contradict each other in."""
    if len(raws) == 1 or not all(isinstance(raw, dict) for raw in raws):
        return next((raw for raw in raws if not isinstance(raw, dict)), raws[0]), []
    joined: dict[Any, Any] = {}
    problems = []
    for raw in raws:
        for key, value in raw.items():
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


#: Salt resolves what begins with exactly this. What only looks so was meant so.
_SDB = re.compile(r"\s*sdb://", re.IGNORECASE)


def _unresolved(value: Any, path: str) -> Iterator[Problem]:
    """Each ``sdb://`` that is still there: Salt leaves one that it cannot resolve as it is (3006 to 3008)."""
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
    """What no single field can see."""
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
        for cluster in hook.clusters:
            if cluster not in settings.clusters:
                yield Problem(
                    f"{ROOT}.webhooks.{name}.clusters", repr(cluster), ", ".join(settings.clusters)
                )


#: Keys whose values are never shown.
SECRETS = frozenset({"password", "secret", "formula_secretkey"})
HIDDEN = "a value that is not shown"


def _may_hold_secret(value: Any) -> bool:
    """Whether a value that stands in a wrong place could be, or hold, a secret."""
    if isinstance(value, Mapping):
        return bool(SECRETS & set(map(str, value))) or any(map(_may_hold_secret, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_may_hold_secret, value))
    return isinstance(value, str) and (value.startswith("whsec_") or "@" in value)


def _problem(error: Any, raw: Any) -> Problem:
    """One error of pydantic's in our words."""
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
