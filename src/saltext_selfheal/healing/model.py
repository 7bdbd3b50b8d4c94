"""The nouns of healing: what is observed, remembered, decided. Frozen data and enums only.

Nothing here acts, reads a clock or knows Salt. Times are seconds on the healer's timeline (epoch-like, never
running backwards); durations carry ``_s``. Whatever of this is remembered across restarts is stored as it stands
by the ledger, so a field added here needs a default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from .events import Command, Request, Seconds, Table, ViewStatus
from .faults import CLUSTER_WIDE as CLUSTER_WIDE
from .faults import Fault as Fault
from .policy import Limits as Limits
from .policy import Mode as Mode
from .policy import Policy as Policy
from .policy import Step as Step
from .remedies import REMEDIES as REMEDIES
from .remedies import Action as Action
from .results import Outcome as Outcome

PAUSED_AT_MOST_S: Seconds = 30 * 86400.0  #: who wants a longer pause wants the mode off


class Phase(str, Enum):
    """Where an incident stands. ``held`` is no phase: it is said about ``open``."""

    SUSPECTED = "suspected"
    OPEN = "open"
    REMEDIATING = "remediating"
    VERIFYING = "verifying"
    LOCKED = "locked"
    RESOLVED = "resolved"
    ACKNOWLEDGED = "acknowledged"


#: Phases that end an incident.
ENDED = frozenset({Phase.RESOLVED, Phase.ACKNOWLEDGED})


class Reply(str, Enum):
    """What a request is told."""

    ACCEPTED = "accepted"
    JOINED = "joined"
    HELD = "held"
    REFUSED = "refused"


# ---------------------------------------------------------------- what is remembered


@dataclass(frozen=True)
class NodeState:
    """One node as the healer knows it."""

    fault: Fault | None = None
    evidence: str = "not probed yet"
    since: Seconds | None = (
        None  #: since when the verdict (this fault, or well) holds; None = unknown
    )
    seen: tuple[tuple[Fault, Seconds], ...] = ()  #: faults of this illness, and their first sights
    confirmed: bool = False
    at: Seconds | None = field(default=None, compare=False)  #: last observation
    polls: int = field(default=0, compare=False)  #: observations since the healer started
    server_id: str | None = None
    server_was: str | None = None  #: the id before that one
    server_name: str | None = None
    version: str | None = None
    proxy: bool = False
    #: Why it is in doubt whose server answers there; empty: it is not. It ends with an answer that nobody disputes.
    doubt: str = ""
    answers_as: str | None = (
        None  #: the id of the server that answers there, where another node has it, too
    )
    addresses: tuple[str, ...] = field(default=(), compare=False)
    refused_at: Seconds | None = None  #: since when every dial is refused
    #: What other nodes said last of this one's server: when they were asked, and who is connected to it, if anybody.
    word_at: Seconds | None = field(default=None, compare=False)
    word_by: str = ""
    dialled_at: Seconds | None = field(
        default=None, compare=False
    )  #: last fresh dial that was well
    answers: bool = False  #: it shows a fault, and a connection that was open answers all the same
    started_at: float | None = None  #: of the server's process, by its own clock
    restarted_at: Seconds | None = None  #: when another start than the one known was seen
    changes: tuple[Seconds, ...] = ()  #: from well to faulty and back, made by nobody
    flapping: bool = False
    slow: tuple[bool, ...] = field(default=(), compare=False)  #: the last answers, slow or not
    cooldown_until: Seconds = 0.0
    cooldown_incident: str | None = None
    spent: tuple[Seconds, ...] = ()  #: one entry per attempt that named this node

    @property
    def well(self) -> bool:
        return self.since is not None and self.fault is None

    @property
    def suspected(self) -> bool:
        return self.since is not None and self.fault is not None and not self.confirmed


@dataclass(frozen=True)
class Seen:
    """A fault that the probe has seen at nodes, or the system tables tell of the cluster."""

    fault: Fault
    issue: str = ""  #: for the fault ``issue``: RethinkDB's type of it


@dataclass(frozen=True)
class Ailment:
    """A fault of the cluster as a whole, or one of RethinkDB's own issues."""

    seen: Seen
    since: Seconds
    confirmed: bool
    evidence: str


@dataclass(frozen=True)
class TablesRead:
    """Whether the cluster's system tables could be read when they were asked for last."""

    status: ViewStatus | None = None  #: None: not asked yet
    why: str = ""

    def __str__(self) -> str:
        if self.status is None:
            return "not asked yet"
        return f"{self.status.value}: {self.why}" if self.why else self.status.value


@dataclass(frozen=True)
class Attempt:
    """One try of an action: one JID, minted by the loop right after the decision and written down with it."""

    id: str
    cluster: str
    incident: str
    action: Action
    nodes: tuple[str, ...]
    step: int
    decided_at: Seconds
    fired_at: Seconds
    firings: int = 1
    published_at: Seconds | None = None
    missing_at: Seconds | None = field(default=None, compare=False)  #: last seen to be unpublished
    results: Mapping[str, tuple[Outcome, str]] = field(default_factory=dict)
    there: tuple[
        str, ...
    ] = ()  #: nodes whose server ran when it was decided: a new start is its work
    of: str | None = None  #: for a look: the attempt it asks about …
    of_jid: str = ""  #: … and the JID of that
    jid: str = ""  #: of its job; empty only between the decision and the loop
    args: tuple[str, ...] = ()  #: of its job


@dataclass(frozen=True)
class Late:
    """An attempt that ended without all of its results, or without a proof that its job has.

    Results that come late are recorded, and change nothing.
    """

    attempt: Attempt
    ended_at: Seconds
    running: bool  #: as far as is known its job may still run: nothing else is sent to its minions
    looks: int = 0  #: how often its minions were asked since then
    looked_at: Seconds = 0.0
    #: Nodes on which it does not run any more: a look has said so, or the database. A result is no proof.
    proven: tuple[str, ...] = ()
    refuted: tuple[
        str, ...
    ] = ()  #: nodes on which a look has found it running: no result of theirs counts


@dataclass(frozen=True)
class Pause:
    """No action in this cluster until then."""

    until: Seconds
    by: str
    why: str
    everywhere: bool = False  #: given for every cluster, those that are configured later included


@dataclass(frozen=True)
class Turn:
    """Nodes of an incident, by what has come to them."""

    acting: tuple[str, ...] = ()  #: the last attempt
    failed: tuple[str, ...] = ()  #: … and their job did not say that it was done
    tried: tuple[str, ...] = ()  #: the present step
    visited: tuple[str, ...] = ()  #: any step

    def among(self, nodes: Collection[str]) -> Turn:
        """Without those that are none of these."""
        kept = (
            tuple(n for n in had if n in nodes)
            for had in (self.acting, self.failed, self.tried, self.visited)
        )
        return Turn(*kept)


@dataclass(frozen=True)
class Approval:
    """A person's yes to one step of an incident."""

    step: int
    at: Seconds
    by: str
    nodes: tuple[str, ...]  #: those the incident had then


@dataclass(frozen=True)
class Asked:
    """Somebody's request, while the probe saw nothing wrong, or something else."""

    forced: bool  #: by an operator, whose word stands for the probe's agreement


@dataclass(frozen=True)
class Locked:
    """A person's lock: no fault of its own, ended by ``ack`` alone."""

    meant: tuple[str, ...]  #: its nodes, whether the settings name them or not


@dataclass(frozen=True)
class Incident:
    """What is done about one thing in one cluster, from its first sight to its end."""

    id: str
    cluster: str
    cause: Seen | Asked | Locked
    nodes: tuple[str, ...]
    phase: Phase
    opened_at: Seconds
    changed_at: Seconds
    steps: tuple[Step, ...] = ()
    step: int = 0
    turn: Turn = Turn()
    acted_at: Seconds = 0.0  #: end of the last attempt whose job was over
    verified: bool = False  #: the fault was seen gone from them after the job
    busy_since: Seconds | None = None
    lost: int = 0  #: attempts in a row that nobody published
    attempts: int = 0
    looks: int = 0  #: how often its minions were asked what they run
    why: str = ""
    rule: str = ""  #: the row that was taken last
    held: tuple[str, ...] = ()  #: the shut gates as last announced
    not_before: Seconds = 0.0
    gone_since: Seconds | None = None  #: since when all of its nodes are well
    relapse_of: str | None = None
    relapses: int = 0
    requests: tuple[str, ...] = ()
    askers: tuple[str, ...] = ()  #: sources of requests that have joined or opened it
    asked: int = 0  #: how many requests have
    approval: Approval | None = None

    @property
    def fault(self) -> Fault | None:
        """The fault that was seen, if that is what it is about."""
        return self.cause.fault if isinstance(self.cause, Seen) else None

    @property
    def by_hand(self) -> bool:
        return isinstance(self.cause, Locked)

    @property
    def forced(self) -> bool:
        return isinstance(self.cause, Asked) and self.cause.forced

    @property
    def called(self) -> str:
        """What it is about as operators read it."""
        match self.cause:
            case Seen(fault, issue):
                return f"{fault.value}:{issue}" if issue else fault.value
            case Asked():
                return "requested"
            case Locked():
                return "lock"


@dataclass(frozen=True)
class Recovery:
    """How a node was healed last: what a relapse starts from."""

    node: str
    seen: Seen
    incident: str
    at: Seconds
    step: int
    relapses: int


@dataclass(frozen=True)
class Pending:
    """A request for a restart that waits until its nodes were dialled afresh: only the probe's agreement grants it."""

    request: Request
    since: Seconds


@dataclass(frozen=True)
class ClusterState:
    """One cluster as the healer knows it: all that must survive a restart."""

    name: str
    nodes: Mapping[str, NodeState] = field(default_factory=dict)
    #: What is remembered of nodes that the settings do not name any more: what they have paid, how long they rest.
    former: Mapping[str, NodeState] = field(default_factory=dict)
    adrift: tuple[Late, ...] = ()  #: jobs that may run on nodes that no settings name
    ailments: tuple[Ailment, ...] = ()
    tables: TablesRead = TablesRead()
    viewed_at: Seconds | None = field(default=None, compare=False)
    incidents: tuple[Incident, ...] = ()  #: those that have not ended
    attempt: Attempt | None = None  #: in flight
    look: Attempt | None = None  #: in flight: does the timed-out attempt still run?
    late: tuple[Late, ...] = ()
    acted_at: Seconds = 0.0  #: end of the last attempt that may have changed something
    acts: tuple[Seconds, ...] = ()  #: one entry per attempt: what the limits count
    recoveries: tuple[Recovery, ...] = ()
    pause: Pause | None = None
    asked: tuple[tuple[Seconds, str], ...] = ()  #: when, by which source: requests that opened
    refused: tuple[tuple[Seconds, str], ...] = ()  #: when, whose: refusals that were told lately
    pending: tuple[Pending, ...] = ()
    twins: tuple[
        str, ...
    ] = ()  #: names that two servers have: what the system tables say is not clear
    serial: int = 0  #: number of the last incident
    away: bool = False  #: the settings did not name it when this was written
    forgotten_at: Seconds | None = None  #: when the ledger was lost: attempts of then are supposed

    def ailment(self, seen: Seen | Asked | Locked) -> Ailment | None:
        """The cluster's ailment of this kind, if it has it."""
        return next((a for a in self.ailments if a.seen == seen), None)

    def with_incident(self, incident: Incident) -> ClusterState:
        """The cluster with this incident in its new shape (and without it, if it has ended)."""
        kept = (i for i in self.incidents if i.id != incident.id or incident.phase not in ENDED)
        return replace(self, incidents=tuple(incident if i.id == incident.id else i for i in kept))

    def with_attempts(self, changed: Callable[[Attempt], Attempt]) -> ClusterState:
        """The cluster with this done to every attempt it remembers: in flight, a look at one, given up."""
        return replace(
            self,
            attempt=self.attempt and changed(self.attempt),
            look=self.look and changed(self.look),
            late=tuple(replace(one, attempt=changed(one.attempt)) for one in self.late),
            adrift=tuple(replace(one, attempt=changed(one.attempt)) for one in self.adrift),
        )

    def with_nodes(self, changed: Mapping[str, NodeState]) -> ClusterState:
        """The cluster with these nodes in their new shape."""
        return replace(self, nodes={**self.nodes, **changed}) if changed else self


@dataclass(frozen=True)
class State:
    """The whole of what step() works on. Policies and limits come from the settings, the rest from the ledger."""

    policies: Mapping[str, Policy]
    limits: Limits
    clusters: Mapping[str, ClusterState]
    started_at: Seconds
    #: the latest table map of each cluster, and when it was taken; not remembered across restarts
    maps: Mapping[str, tuple[Seconds, tuple[Table, ...]]] = field(default_factory=dict)
    blind: str = ""  #: why the healer does not trust its own eyes
    ours: tuple[Seconds, str] | None = None  #: the last probe that failed on the healer's own side

    def with_cluster(self, cluster: ClusterState) -> State:
        """The state with this cluster in its new shape."""
        return replace(self, clusters={**self.clusters, cluster.name: cluster})


# ---------------------------------------------------------------- what is to be done


@dataclass(frozen=True)
class Fire:
    """Fire this attempt's remediation event; again under the same JID when ``firings`` > 1."""

    attempt: Attempt


@dataclass(frozen=True)
class Dial:
    """Have these nodes dialled afresh at once. If it is lost, the next ``redial`` does it."""

    cluster: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    """The attempt has ended: its one terminal record."""

    attempt: Attempt
    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Announce:
    """Tell the world where an incident stands. ``said`` is a phase, or ``held``; ``rule`` names what acted.

    A rule is the id of a row of `table.TRANSITIONS`, or one of the few that open, join or end an incident without a row.
    """

    incident: Incident
    said: str
    why: str
    rule: str
    attempt: str | None = None


class News(str, Enum):
    """What is told beside the incidents."""

    BLIND = "blind"  #: the healer does not trust its own eyes …
    SIGHTED = "sighted"  #: … or does again
    FLAPPING = "flapping"  #: a node comes and goes by itself …
    STEADY = "steady"  #: … or does no more
    VIEW = "view"  #: whether the system tables can be read
    PAUSED = "paused"
    RESUMED = "resumed"
    LATE = "late"  #: a job that was given up came, or what it returned
    LEDGER_LOST = "ledger_lost"


@dataclass(frozen=True)
class Tell:
    """Something about the healer's own eyes, or about a cluster or node beside its incidents."""

    what: News
    cluster: str
    node: str
    why: str
    incident: str | None = None


@dataclass(frozen=True)
class Answer:
    """Tell whoever asked what became of the request or the command. ``told`` is what an explanation holds."""

    request: Request | Command
    reply: Reply
    why: str
    incident: str | None = None
    told: tuple[Mapping[str, Any], ...] = ()
    repeated: bool = False  #: this source has asked about this incident before
    rule: str = ""  #: the row that a command took


Effect = Fire | Dial | Finish | Announce | Answer | Tell
