"""The nouns of healing: what is observed, remembered, decided. Frozen data and enums only.

Nothing here acts, reads a clock or knows Salt. Times are seconds on the healer's timeline, which counts like the epoch
and never runs backwards. Names of durations end in ``_s``. The ledger stores these classes field by field, so a new
field needs a default: a ledger that an older release wrote does not contain it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from . import ids
from .events import Command, Request, Seconds, Table, ViewStatus
from .explained import Explained
from .faults import CLUSTER_WIDE as CLUSTER_WIDE
from .faults import Fault as Fault
from .node import Bar as Bar
from .node import ForeignJob as ForeignJob
from .node import NodeState as NodeState
from .phase import ENDED as ENDED
from .phase import Phase as Phase
from .policy import Limits as Limits
from .policy import Mode as Mode
from .policy import Policy as Policy
from .policy import Step as Step
from .remedies import REMEDIES as REMEDIES
from .remedies import Action as Action
from .results import Outcome as Outcome

PAUSED_AT_MOST_S: Seconds = 30 * 86400.0  #: for more than this, the mode should be off


class Reply(str, Enum):
    """What a request is told."""

    ACCEPTED = "accepted"
    JOINED = "joined"
    HELD = "held"
    REFUSED = "refused"


# ---------------------------------------------------------------- what is remembered


@dataclass(frozen=True)
class Seen:
    """A fault that the probe has seen at nodes, or that the system tables show for the whole cluster."""

    fault: Fault
    issue: str = ""  #: only for the fault ``issue``: its type, as RethinkDB calls it


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
    """One try of an action. The loop gives it a JID right after the decision, and both are written down together."""

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
    #: When the job cache was read last and did not hold the job.
    missing_at: Seconds | None = field(default=None, compare=False)
    results: Mapping[str, tuple[Outcome, str]] = field(default_factory=dict)
    #: Nodes whose server ran when this was decided. Only for these a new start proves that the job has done its work.
    there: tuple[str, ...] = ()
    #: Nodes on which the last look that was answered has found the job running. Silence there proves nothing.
    runs: tuple[str, ...] = ()
    about: str = ""  #: for a question: the node that is asked about
    of: str | None = None  #: for a look: the attempt it asks about …
    of_jid: str = ""  #: … and that attempt's JID
    jid: str = ""  #: of its job; empty only until the loop has given one
    args: tuple[str | int, ...] = ()  #: of its job


@dataclass(frozen=True)
class Late:
    """An attempt that has ended although results are missing, or although nothing proves that its job has ended.

    A result that comes late is recorded. It does not prove that the job has ended.
    """

    attempt: Attempt
    ended_at: Seconds
    running: bool  #: its job may still run, so nothing else is sent to its minions
    looks: int = 0  #: how often its minions have been asked since then
    looked_at: Seconds = 0.0
    #: Nodes on which the job does not run any more, as a look or the database has shown. A result does not prove it.
    proven: tuple[str, ...] = ()
    #: Nodes on which a look has found the job running. Their results are not believed.
    refuted: tuple[str, ...] = ()
    forbidden: str = ""  #: why its minions did not tell what they run when they were asked last


@dataclass(frozen=True)
class Pause:
    """The healer does not act in this cluster before ``until``."""

    until: Seconds
    by: str
    why: str
    everywhere: bool = False  #: given for all clusters, also for those that are configured later


@dataclass(frozen=True)
class Turn:
    """Which nodes of an incident have had their turn."""

    acting: tuple[str, ...] = ()  #: nodes of the last attempt
    failed: tuple[str, ...] = ()  #: those of them whose job did not report that it was done
    tried: tuple[str, ...] = ()  #: nodes that have had the present step
    visited: tuple[str, ...] = ()  #: nodes that have had any step

    def among(self, nodes: Collection[str]) -> Turn:
        """The same turn, but only with nodes that are among these."""
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
    nodes: tuple[str, ...]  #: the nodes that the incident had at that time


@dataclass(frozen=True)
class Asked:
    """Somebody's request that did not fit an incident of the probe's: the probe saw no fault, or another one."""

    forced: bool  #: an operator forced it, so the probe need not agree


@dataclass(frozen=True)
class Locked:
    """A person's lock. It has no fault, and nothing but ``ack`` ends it."""

    meant: tuple[
        str, ...
    ]  #: the nodes that were locked, also those that the settings do not name now


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
    acted_at: Seconds = 0.0  #: when the last attempt ended with its job over
    verified: bool = False  #: after that job, its nodes were seen without the fault
    busy_since: Seconds | None = None  #: since when another state run keeps the step from running
    lost: int = 0  #: how many attempts in a row were not published
    attempts: int = 0
    looks: int = 0  #: how many looks its attempts have needed
    questions: int = 0  #: how often minions were asked what they see
    drift: tuple[str, ...] = ()  #: what its highstates have changed that was not as configured
    why: str = ""
    rule: str = ""  #: the row that was taken last
    held: tuple[str, ...] = ()  #: the shut gates as last announced
    only_told: bool = False  #: no step helps against its fault, which was announced
    not_before: Seconds = 0.0  #: no attempt and no look before this
    gone_since: Seconds | None = None  #: since when all of its nodes are well
    foreign_since: Seconds | None = None  #: when other people's work has held it first
    relapse_of: str | None = None
    relapses: int = 0
    repeated: int = (
        0  #: how many relapses in a row have begun at its first step, because it had helped
    )
    requests: tuple[str, ...] = ()
    askers: tuple[str, ...] = ()  #: sources of the requests that have joined or opened it
    asked: int = 0  #: how many requests have joined or opened it
    approval: Approval | None = None

    @property
    def fault(self) -> Fault | None:
        """The fault that was seen. None for a request and for a person's lock."""
        return self.cause.fault if isinstance(self.cause, Seen) else None

    def attempt_id(self, number: int) -> str:
        """The id of its attempt of this number, counted from 1."""
        return ids.attempt(self.id, number)

    @property
    def next_attempt(self) -> str:
        """The id that its next attempt will have."""
        return self.attempt_id(self.attempts + 1)

    @property
    def by_hand(self) -> bool:
        return isinstance(self.cause, Locked)

    @property
    def forced(self) -> bool:
        return isinstance(self.cause, Asked) and self.cause.forced

    @property
    def called(self) -> str:
        """What the incident is about, in the word that operators read."""
        match self.cause:
            case Seen(fault, issue):
                return f"{fault.value}:{issue}" if issue else fault.value
            case Asked():
                return "requested"
            case Locked():
                return "lock"


@dataclass(frozen=True)
class Recovery:
    """How a node was healed last. A relapse starts from this."""

    node: str
    seen: Seen
    incident: str
    at: Seconds
    step: int
    relapses: int
    repeated: int = 0  #: how many relapses in a row have begun at this step


@dataclass(frozen=True)
class Pending:
    """A request for a restart that waits for a fresh dial of its nodes. Only a fault that the dial shows grants it."""

    request: Request
    since: Seconds


@dataclass(frozen=True)
class ClusterState:
    """One cluster as the healer knows it, with all that must survive a restart of the healer."""

    name: str
    nodes: Mapping[str, NodeState] = field(default_factory=dict)
    #: Nodes that the settings do not name any more. Only their spent budget and their cooldown are remembered.
    former: Mapping[str, NodeState] = field(default_factory=dict)
    adrift: tuple[Late, ...] = ()  #: jobs that may still run on nodes that no cluster names now
    ailments: tuple[Ailment, ...] = ()
    tables: TablesRead = TablesRead()
    viewed_at: Seconds | None = field(default=None, compare=False)
    incidents: tuple[Incident, ...] = ()  #: those that have not ended
    attempt: Attempt | None = None  #: in flight
    look: Attempt | None = None  #: in flight: asks whether the job of an attempt still runs
    questions: tuple[Attempt, ...] = ()  #: in flight: ask minions what they see of their database
    late: tuple[Late, ...] = ()
    acted_at: Seconds = 0.0  #: end of the last attempt that may have changed something
    acts: tuple[Seconds, ...] = ()  #: when each attempt was decided that counts for the limits
    recoveries: tuple[Recovery, ...] = ()
    pause: Pause | None = None
    #: Requests that count for the rate limit: time and source of each.
    asked: tuple[tuple[Seconds, str], ...] = ()
    refused: tuple[tuple[Seconds, str], ...] = ()  #: refusals told lately: time and source of each
    pending: tuple[Pending, ...] = ()
    #: Names that two servers have. The system tables speak of names, so it is not clear which server they mean.
    twins: tuple[str, ...] = ()
    #: When incidents about issues of RethinkDB's own were opened, lately.
    kinds: tuple[Seconds, ...] = ()
    serial: int = 0  #: number of the last incident
    away: bool = False  #: the settings did not name this cluster when the state was written
    #: When the ledger was lost. Attempts of that very moment are not known, only assumed.
    forgotten_at: Seconds | None = None

    def ailment(self, seen: Seen | Asked | Locked) -> Ailment | None:
        """The cluster's ailment of this kind. None if the cluster does not have it."""
        return next((a for a in self.ailments if a.seen == seen), None)

    def with_incident(self, incident: Incident) -> ClusterState:
        """The cluster with this incident in its new shape, or without it if it has ended."""
        kept = (i for i in self.incidents if i.id != incident.id or incident.phase not in ENDED)
        return replace(self, incidents=tuple(incident if i.id == incident.id else i for i in kept))

    def with_attempts(self, changed: Callable[[Attempt], Attempt]) -> ClusterState:
        """The cluster after ``changed`` was applied to each of its attempts: in flight, a look, late, adrift."""
        return replace(
            self,
            attempt=self.attempt and changed(self.attempt),
            look=self.look and changed(self.look),
            questions=tuple(map(changed, self.questions)),
            late=tuple(replace(one, attempt=changed(one.attempt)) for one in self.late),
            adrift=tuple(replace(one, attempt=changed(one.attempt)) for one in self.adrift),
        )

    def with_nodes(self, changed: Mapping[str, NodeState]) -> ClusterState:
        """The cluster with these nodes in their new shape."""
        return replace(self, nodes={**self.nodes, **changed}) if changed else self


@dataclass(frozen=True)
class State:
    """All that `step` works on. Policies and limits come from the settings, the rest from the ledger and events."""

    policies: Mapping[str, Policy]
    limits: Limits
    clusters: Mapping[str, ClusterState]
    started_at: Seconds
    #: The latest table map of each cluster, and when it was taken. It is not remembered across restarts.
    maps: Mapping[str, tuple[Seconds, tuple[Table, ...]]] = field(default_factory=dict)
    #: The observers of each cluster that are there. Not remembered across restarts. Missing: it was not told yet.
    watchers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: When nodes that are well answered late, or rounds began late, and how much; see `strain`.
    slow_answers: tuple[tuple[Seconds, float], ...] = field(default=(), compare=False)
    slow_rounds: tuple[tuple[Seconds, float], ...] = field(default=(), compare=False)
    blind: str = ""  #: why the healer does not trust its own eyes; empty: it does
    ours: tuple[Seconds, str] | None = None  #: the last probe that failed on the healer's own side

    def with_cluster(self, cluster: ClusterState) -> State:
        """The state with this cluster in its new shape."""
        return replace(self, clusters={**self.clusters, cluster.name: cluster})


# ---------------------------------------------------------------- what is to be done


@dataclass(frozen=True)
class Fire:
    """Fire this attempt's remediation event. If ``firings`` > 1 it is fired again, under the same JID."""

    attempt: Attempt
    rule: str = ""  #: the row that was taken


@dataclass(frozen=True)
class Dial:
    """Have these nodes dialled afresh at once. If this order is lost, the next regular ``redial`` replaces it."""

    cluster: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    """The attempt has ended. This becomes its only terminal record."""

    attempt: Attempt
    outcome: Outcome
    why: str
    rule: str = (
        ""  #: the row that was taken; empty: it ended with its incident, outside of the table
    )


SEEN, JOINED, BY_HAND = "fact.seen", "fact.joined", "order.locked"
TOLD_AGAIN, LEFT_OUT = "start.told-again", "start.not-configured"
#: Rules that are no rows of the table: they open an incident, add to it, end it or tell it again.
BESIDES: Mapping[str, str] = {
    SEEN: "a fault is seen, and no open incident is about it",
    JOINED: "a node shows the fault of an incident that is open",
    BY_HAND: "a person locks a cluster or nodes",
    TOLD_AGAIN: "the engine starts, and the incident is locked",
    LEFT_OUT: "the engine starts, and the settings no longer name the incident's cluster",
}


@dataclass(frozen=True)
class Announce:
    """Tell the world where an incident stands. ``rule`` is the rule that was applied.

    A rule is the id of a row of `table.TRANSITIONS`, or one of `BESIDES`.
    """

    incident: Incident
    why: str
    rule: str
    attempt: str | None = None
    held: bool = False  #: it goes on when something changes

    @property
    def said(self) -> str:
        """Where it stands, in the word of the events' tags: its phase, or ``held``."""
        return "held" if self.held else self.incident.phase.value


class News(str, Enum):
    """Kinds of news that do not belong to an incident's phases."""

    BLIND = "blind"  #: the healer does not trust its own eyes
    SIGHTED = "sighted"  #: the healer trusts its own eyes again
    FLAPPING = "flapping"  #: a node comes and goes by itself
    STEADY = "steady"  #: that node is steady again
    VIEW = "view"  #: whether the system tables can be read
    CANARY = "canary"  #: whether the canary can be asked
    PAUSED = "paused"
    RESUMED = "resumed"
    LATE = "late"  #: news of a job whose attempt was given up
    LEDGER_LOST = "ledger_lost"
    CLOCK_JUMPED = "clock_jumped"  #: the timeline has gone on by more than the machine was off


@dataclass(frozen=True)
class Tell:
    """News about the healer's own eyes, or about a cluster or a node, apart from the announcements of incidents."""

    what: News
    cluster: str
    node: str
    why: str
    incident: str | None = None


@dataclass(frozen=True)
class Answer:
    """Tell the asker what became of the request or command. ``told`` is there only in the answer to ``explain``."""

    request: Request | Command
    reply: Reply
    why: str
    incident: str | None = None
    told: tuple[Explained, ...] = ()
    #: The same source has had such an answer before. So this one is not audited, and it is logged as debug only.
    repeated: bool = False
    rule: str = ""  #: the row that a command took


Effect = Fire | Dial | Finish | Announce | Answer | Tell
