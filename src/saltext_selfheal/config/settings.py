"""The settings themselves: one model for each group, with a description at each field."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from ..healing import escalation, remedies
from ..healing.model import Limits, Mode, Policy
from ..healing.observers import MOST as MOST_OBSERVERS
from .attempts import AttemptSettings, CooldownSettings
from .group import Settings
from .mistakes import wrong
from .texts import (
    FilePath,
    Minions,
    NodeName,
    ObserverMinions,
    OneTable,
    Service,
    TableName,
    User,
    ledger_file,
)
from .values import (
    Confirm,
    Count,
    Escalation,
    KeptOrOff,
    ModeSetting,
    NodeAddress,
    Pace,
    PositiveCount,
    Rate,
    Share,
    Span,
    SpanOrOff,
    Switch,
    WaitOrOff,
    WebhookAction,
    alone_is,
    confirm,
    off_is,
    unguessable,
)

#: No webhook's caller may have this name. The ids of a caller's requests begin with its name, and those of the bus
#: begin with this one.
RESERVED_CALLER = "bus"
LONGEST_PROBE_S = 30.0  #: of an observer; a step waits for it


class TlsSettings(Settings):
    ca_certs: FilePath = Field(
        description="Path of the CA certificates (PEM) that the node's certificate must chain to."
    )


class BudgetSettings(Settings):
    attempts: Count = Field(3, description="Attempts per node within `per`; 0 = no budget.")
    per: Span = Field(3600.0, description="The sliding window of the budget.")


class RelapseSettings(Settings):
    within: SpanOrOff = Field(
        3600.0, description="A fault that returns within this after it was healed is a relapse."
    )
    repeat: Count = Field(
        1,
        description="How often the step that had helped is taken again; only then comes the step after it.",
    )


class ForeignSettings(Settings):
    grace: WaitOrOff = Field(30.0, description="A job counts for so long after its end, too.")
    most: SpanOrOff = Field(
        900.0,
        description="One job counts for no longer than this after it began, and one incident waits for no longer than "
        "this for all such jobs together; `off` = nobody is waited for.",
    )


class FlappingSettings(Settings):
    changes: Count = Field(
        4,
        description="Changes that nobody made, within `within`, that make a node flapping; 0 = off.",
    )
    within: Span = Field(900.0, description="The window in which changes count.")
    quiet: Span = Field(1800.0, description="Flapping ends after this long without a change.")


class SlowSettings(Settings):
    above: WaitOrOff = Field(
        0.0, description="An answer that takes longer is slow; `off` (default) = not looked for."
    )
    count: PositiveCount = Field(3, description="So many slow answers …")
    of: PositiveCount = Field(5, description="… among so many make the node slow.")

    @model_validator(mode="after")
    def _possible(self) -> SlowSettings:
        if self.count > self.of:
            raise wrong("count at most as large as of")
        return self


class ViewSettings(Settings):
    every: Pace = Field(
        5.0, description="How often one live node is asked for the cluster's system tables."
    )
    timeout: Pace = Field(
        20.0,
        description="One deadline for that. A peer that hangs delays system tables by 15 s.",
    )


class WitnessSettings(Settings):
    timeout: WaitOrOff = Field(
        5.0, description="How long its answer is waited for; `off` = it is not asked."
    )


class HighstateSettings(Settings):
    test_first: Switch = Field(
        True,
        description="Whether a minion runs it in test mode before. One that would change nothing is left out.",
    )
    timeout: Pace = Field(
        60.0, description="How long that is waited for. Without an answer the real one runs."
    )


class ObserverSettings(Settings):
    minions: ObserverMinions = Field(
        description="A glob, or a list of minion ids. None of them may be a node of any cluster. At most nine are asked.",
    )
    quorum: PositiveCount = Field(
        2, description="So many of them must say that the node cannot be reached."
    )
    timeout: Pace = Field(
        3.0,
        description="How long an observer's probe may take (at most 30s). Its word is waited for five seconds longer.",
    )
    always: Switch = Field(
        False,
        description="Whether they are also asked about a node that refuses the connection (`dead`).",
    )

    @model_validator(mode="after")
    def _possible(self) -> ObserverSettings:
        if isinstance(self.minions, tuple) and len(self.minions) < self.quorum:
            raise wrong(f"a quorum of at most {len(self.minions)}, the number of the minions named")
        if self.quorum > MOST_OBSERVERS:
            raise wrong(f"a quorum of at most {MOST_OBSERVERS}, because no more are asked")
        if self.timeout > LONGEST_PROBE_S:
            raise wrong(f"a timeout of at most {LONGEST_PROBE_S:g}s")
        return self

    def allows(self, minion: str) -> bool:
        """These settings name the minion as an observer."""
        if isinstance(self.minions, str):
            return fnmatchcase(minion, self.minions)
        return minion in self.minions


class CanarySettings(Settings):
    read: OneTable | None = Field(
        None,
        description="`db.table`: one document of it is read through each node, by primary key, with `read_mode` "
        "majority. The document need not exist.",
    )
    write: OneTable | None = Field(
        None,
        description="`db.table`: one small document per node is written through that node, with the primary key "
        "`selfheal-canary-<node>`. Without `read` it is also read.",
    )
    every: Pace = Field(10.0, description="How often each node gets a canary.")
    timeout: Pace = Field(
        5.0,
        description="A read or a write that takes longer is not answered: the node is `stalled`.",
    )

    @model_validator(mode="after")
    def _asks_something(self) -> CanarySettings:
        if self.read is None and self.write is None:
            raise wrong("read: db.table or write: db.table, or both")
        return self


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
    per: Span = Field(3600.0, description="The sliding window of the limit.")
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
    actions: list[WebhookAction] = Field(
        list(remedies.names_for_callers()), description="The actions this caller may ask for."
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
            raise wrong("whsec_ and the base64 of at least 16 bytes, better 32")
        unguessable(key, "whsec_ and what `openssl rand -base64 32` prints")
        return value


class LedgerSettings(Settings):
    keep: KeptOrOff = Field(
        90 * 86400.0, description="How long history is kept; `off` keeps everything."
    )
    path: str | None = Field(
        None,
        description="The ledger's file; default `<cachedir>/selfheal/ledger.sqlite3`. Not on a network file system.",
    )

    @field_validator("path")
    @classmethod
    def _usable(cls, value: str | None) -> str | None:
        return ledger_file(value)

    def file(self, opts: Mapping[str, Any]) -> Path:
        """Where the ledger lies, on a master with these options."""
        return Path(self.path or Path(opts["cachedir"]) / "selfheal" / "ledger.sqlite3")


class ClusterSettings(Settings):
    """One RethinkDB cluster."""

    minions: Minions = Field(
        description="The allow-list: no minion id outside this glob is ever targeted, whoever asks.",
    )
    nodes: dict[NodeName, NodeAddress] = Field(
        description="Minion id → `address` or `address:port` of its driver port (default 28015).",
        min_length=1,
    )
    mode: ModeSetting | None = Field(
        None, description="This cluster's mode; default: the one above."
    )
    service: Service = Field(
        "rethinkdb", description="The service that `restart` and `start` act on."
    )
    user: User = Field("admin", description="The RethinkDB user the probe logs in as, ASCII.")
    password: SecretStr = Field(
        SecretStr(""), description="Its password, ASCII; any `sdb://` URI works."
    )
    tls: TlsSettings | None = Field(None, description="Talk TLS to the nodes.")
    tables: list[TableName] = Field(
        [], description="Databases or `db.table` that must be available; default: all."
    )
    poll: Pace = Field(2.0, description="How often each node is probed.")
    timeout: Pace = Field(
        2.0, description="One deadline for name, TCP, TLS, handshake and query of a probe."
    )
    redial: Pace = Field(
        30.0,
        description="How often each node is dialled afresh, as an application would, beside the connection that is "
        "open: both must be well. It is dialled at once, too, after each attempt and when somebody asks for a restart.",
    )
    confirm: Confirm = Field(
        default_factory=lambda: confirm({}),
        description="How long a fault must last before anything is done: one duration, or durations per fault "
        "(default `{dead: 3s, hung: 20s, stalled: 20s, default: 10s}`); 0 = act on the first proof. `dead_witnessed` "
        "(default 1s) is for a death that the node's own minion has seen, too.",
    )
    witness: Annotated[WitnessSettings, alone_is("timeout"), off_is({"timeout": 0})] = Field(
        WitnessSettings(),
        description="Whether a node's own minion is asked what it sees before anything is done, and after each step "
        "that did not help.",
    )
    highstate: HighstateSettings = Field(
        HighstateSettings(),
        description="What comes before a highstate: see [test first](../concepts.md#a-highstate-is-tried-first).",
    )
    observers: Annotated[ObserverSettings | None, off_is(None)] = Field(
        None,
        description="Minions elsewhere that look at a node, too, before anything is done about it: see "
        "[observers](../concepts.md#observers). `off` (default) = none is asked.",
    )
    starting: Span = Field(
        600.0,
        description="How long a process may run without listening before its node counts as dead, by its minion's word.",
    )
    settle: WaitOrOff = Field(
        45.0,
        description="After a node (re)started its tables may be opening: no `unavailable` for this long.",
    )
    stable: WaitOrOff = Field(30.0, description="Well for this long = resolved.")
    slow: Annotated[SlowSettings, off_is({"above": 0})] = Field(
        SlowSettings(), description="When a node that answers counts as slow."
    )
    view: ViewSettings = Field(ViewSettings(), description="The look into the system tables.")
    canary: Annotated[CanarySettings | None, off_is(None)] = Field(
        None,
        description="What applications ask, asked through each node: see [the canary](../concepts.md#the-canary).",
    )
    escalation: Escalation = Field(
        default_factory=lambda: dict(escalation.DEFAULT),
        description="The steps, as one list for all faults or as lists per fault. Default: see "
        "[faults](../concepts.md#faults).",
    )
    attempt: AttemptSettings = Field(AttemptSettings(), description="How long a job may take.")
    cooldown: Annotated[CooldownSettings, off_is({"min": 0, "max": 0})] = Field(
        CooldownSettings(), description="Rest between attempts of different incidents on one node."
    )
    budget: Annotated[BudgetSettings, off_is({"attempts": 0})] = Field(
        BudgetSettings(), description="Attempts per node."
    )
    relapse: Annotated[RelapseSettings, alone_is("within")] = Field(
        RelapseSettings(),
        description="A fault that returns. A duration alone is taken for `within`; `off` = there are no relapses.",
    )
    foreign: Annotated[ForeignSettings, off_is({"most": 0})] = Field(
        ForeignSettings(),
        description="Whether jobs of other people on a node's minion are waited for: a highstate, `state.*`, `service.*`, "
        "`pkg.*`; and a backup that runs through the node. What happens to the node meanwhile is no flapping.",
    )
    flapping: Annotated[FlappingSettings, off_is({"changes": 0})] = Field(
        FlappingSettings(), description="When a node that comes and goes is left alone."
    )
    requests: RequestSettings = Field(
        RequestSettings(), description="What applications may ask for."
    )

    @field_validator("password")
    @classmethod
    def _ascii(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().isascii():
            raise wrong("ASCII characters (the driver can send no others)")
        return value

    def policy(self, name: str, mode: Mode) -> Policy:
        """These settings in the form that the core uses. ``mode`` is the engine's, for a cluster without its own."""
        watched = self.observers
        return Policy(
            name=name,
            nodes=tuple(self.nodes),
            minions=self.minions,
            mode=self.mode or mode,
            confirm_s=self.confirm.faults,
            poll_s=self.poll,
            timeout_s=self.timeout,
            dead_witnessed_s=self.confirm.dead_witnessed,
            witness_s=self.witness.timeout,
            test_first_s=self.highstate.timeout if self.highstate.test_first else 0.0,
            observers_quorum=watched.quorum if watched else 0,
            observers_s=watched.timeout if watched else 0.0,
            observers_always=watched is not None and watched.always,
            starting_s=self.starting,
            settle_s=self.settle,
            stable_s=self.stable,
            slow_above_s=self.slow.above,
            slow_count=self.slow.count,
            slow_of=self.slow.of,
            foreign_grace_s=self.foreign.grace,
            foreign_most_s=self.foreign.most,
            flapping_changes=self.flapping.changes,
            flapping_within_s=self.flapping.within,
            flapping_quiet_s=self.flapping.quiet,
            canary=self.canary is not None,
            tables=tuple(self.tables),
            escalation=self.escalation,
            attempt_timeout_s=self.attempt.timeout,
            verify_s=self.attempt.verify,
            cooldown_min_s=self.cooldown.min,
            cooldown_max_s=self.cooldown.max,
            budget_attempts=self.budget.attempts,
            budget_per_s=self.budget.per,
            relapse_s=self.relapse.within,
            relapse_repeat=self.relapse.repeat,
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
    limits: Annotated[LimitSettings, off_is({"attempts": 0, "storm": 0})] = Field(
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
            unguessable(
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
        return self.ledger.file(opts)
