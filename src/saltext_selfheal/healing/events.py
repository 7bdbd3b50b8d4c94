"""Events: all that the healer is told, as frozen data. Each `step` takes one of them.

Times are seconds on the healer's timeline, which counts like the epoch and never runs backwards. Names of durations end
in ``_s``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .changes import Changes
from .faults import Fault
from .results import Outcome
from .sighting import Sighting
from .testimony import Testimony

Seconds = float
#: What can be told in the answer to a question.
Told = Testimony | Changes | Sighting


class Verb(str, Enum):
    """What an operator may order. ``explain`` changes nothing, it only asks."""

    PAUSE = "pause"
    RESUME = "resume"
    LOCK = "lock"
    ACK = "ack"
    APPROVE = "approve"
    REJECT = "reject"
    EXPLAIN = "explain"


class Door(str, Enum):
    """The way by which a request comes."""

    RUNNER = "runner"  #: ``salt-run selfheal.trigger``, also through salt-api
    FORCE = "force"  #: an operator forces it
    MINION = "minion"  #: a minion's execution module; on the master its request comes by the bus
    WEBHOOK = "webhook"  #: signed
    ARTICLE = "article"  #: the routes of the article's interface
    BUS = "bus"  #: an event that anybody can send who may write to the bus


@dataclass(frozen=True)
class Observation:
    """The result of one probe. If ``fault`` is None, the node answered as it should."""

    cluster: str
    node: str
    fault: Fault | None
    evidence: str
    latency_s: Seconds = 0.0
    server_id: str | None = None
    server_name: str | None = None
    version: str | None = None
    ours: bool = False  #: the probe failed on the healer's side and proves nothing about the node
    dialled: bool = True  #: a fresh dial was part of this probe, and this is the dial's result
    answers: bool = False  #: only with a fault: a connection opened before still answers
    silent: bool = False  #: only with a fault: in a fresh dial the server has said nothing at all
    #: The addresses that the node's name had at the last dial: ``10.0.0.11:28015``. Empty: it was not resolved.
    addresses: tuple[str, ...] = ()
    #: The node is a ``rethinkdb proxy``: no ``server_status`` lists it, and it holds no replica.
    proxy: bool = False
    late_s: Seconds = 0.0  #: the probe began so much later than planned: the healer itself is slow


@dataclass(frozen=True)
class Replica:
    """One replica of a shard. ``server`` is the name of the server that holds it."""

    server: str
    state: str
    voting: bool


@dataclass(frozen=True)
class Shard:
    replicas: tuple[Replica, ...]


@dataclass(frozen=True)
class Table:
    """One table as ``table_status`` and ``table_config`` show it."""

    name: str  #: database.table
    reads: bool
    writes: bool
    all_replicas: bool
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Issue:
    """One of ``current_issues``."""

    type: str
    description: str


class ViewStatus(str, Enum):
    """Whether the system tables could be read."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    FORBIDDEN = "auth"


@dataclass(frozen=True)
class ClusterView:
    """What the system tables of one live node say, and whom each live node is connected to."""

    cluster: str
    node: str  #: who was asked for the tables
    status: ViewStatus
    why: str
    tables: tuple[Table, ...] = ()
    issues: tuple[Issue, ...] = ()
    #: node → ids of the servers that it is connected to, itself included
    connected: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: server id → when that server's process started, epoch seconds of its own clock
    started: Mapping[str, float] = field(default_factory=dict)
    took_s: Seconds = 0.0  #: from the first question to the last answer


@dataclass(frozen=True)
class Request:
    """Somebody asks for healing. If ``nodes`` is empty, those with a fault are meant, or the whole cluster."""

    id: str
    cluster: str
    action: str
    nodes: tuple[str, ...] = ()
    reason: str = ""
    door: Door = Door.RUNNER
    asker: str = ""
    #: An operator forces it: the probe need not agree. All gates are asked all the same.
    forced: bool = False
    at: Seconds | None = None  #: when it was put into the inbox; None: just now

    @property
    def source(self) -> str:
        """Who counts as one asker. On the bus anybody can claim any name, so the whole bus counts as one asker."""
        return self.door.value if self.door is Door.BUS else f"{self.door.value}:{self.asker}"


@dataclass(frozen=True)
class Command:
    """An operator's command. Which fields count depends on the verb."""

    id: str
    verb: Verb
    by: str
    cluster: str | None = None  #: pause, resume: None = every cluster; lock, explain: which
    incident: str | None = None  #: ack, approve, reject
    nodes: tuple[str, ...] = ()  #: lock, explain: empty = all of the cluster's
    for_s: Seconds = 0.0  #: pause
    reason: str = ""
    attempt: int | None = None  #: approve, reject: number of the attempt meant; None = the next
    at: Seconds | None = None  #: when it was given; None = just now


@dataclass(frozen=True)
class Met:
    """Whom each node that answers is connected to, as its ``server_status`` says. No hung peer delays that (2.4.4).

    The nodes are asked in every round over the system tables, and at once when a dial is refused.
    """

    cluster: str
    #: node that was asked → ids of the servers that it is connected to, itself included
    connected: Mapping[str, frozenset[str]]
    #: server id → its name
    names: Mapping[str, str] = field(default_factory=dict)
    #: server id → when that server's process started, epoch seconds of its own clock
    started: Mapping[str, float] = field(default_factory=dict)
    took_s: Seconds = 0.0  #: from the question to the last answer


class Presence(str, Enum):
    """What the master knows of a minion."""

    UNKNOWN = "not known"
    CONNECTED = "connected"
    AWAY = "not connected"  #: it was connected before
    NOT_ACCEPTED = "key not accepted"


@dataclass(frozen=True)
class Present:
    """What the master knows of the minions of a cluster's nodes. Told when it has changed, and again now and then."""

    cluster: str
    minions: Mapping[str, Presence] = field(default_factory=dict)


@dataclass(frozen=True)
class Watchers:
    """Which observers of a cluster are there: accepted minions that its setting names, those connected first."""

    cluster: str
    minions: tuple[str, ...] = ()


class CanaryEnd(str, Enum):
    """What came of a canary."""

    ANSWERED = "answered"
    UNANSWERED = "unanswered"  #: the node answers the probe, but not this, in time or at all
    UNASKED = "unasked"  #: the database refuses the question itself, which is no fault of the node


@dataclass(frozen=True)
class Canary:
    """What came of the canary at one node: a read, and perhaps a write, as applications ask for them."""

    cluster: str
    node: str
    end: CanaryEnd
    #: Unanswered: what, as in "the canary's read of db.table within 5 s". Unasked: why, in a sentence.
    why: str = ""


@dataclass(frozen=True)
class Foreign:
    """One job that may be somebody else's has begun on nodes of a cluster, or has ended there."""

    cluster: str
    jid: str
    function: str  #: such as ``state.highstate``
    by: str = ""  #: the user who ordered it; empty: not known
    nodes: tuple[str, ...] = ()
    ended: bool = False


@dataclass(frozen=True)
class Backup:
    """A query by which ``rethinkdb dump`` or ``export`` reads a table."""

    id: str
    servers: tuple[str, ...] = ()  #: names of the servers that carry it out
    by: str = ""  #: RethinkDB's user; empty: not known


@dataclass(frozen=True)
class Backups:
    """The backups that run in a cluster, all of them, as its system table ``jobs`` says."""

    cluster: str
    running: tuple[Backup, ...] = ()


@dataclass(frozen=True)
class Observed:
    observation: Observation


@dataclass(frozen=True)
class Viewed:
    view: ClusterView


@dataclass(frozen=True)
class Published:
    """The job of an attempt (or of its look) is in the job cache."""

    attempt: str


@dataclass(frozen=True)
class Missing:
    """The job cache was read, and the job of this attempt is not in it."""

    attempt: str


@dataclass(frozen=True)
class Returned:
    """One minion's result of an attempt's job. For a look, ``detail`` is what the minion still runs."""

    attempt: str
    node: str
    outcome: Outcome
    detail: str = ""
    told: Told | None = (
        None  #: of a question or a highstate: what was told, as far as it could be read
    )


@dataclass(frozen=True)
class Requested:
    request: Request


@dataclass(frozen=True)
class Commanded:
    command: Command


@dataclass(frozen=True)
class Started:
    """The healer has started. What it remembers about the health of nodes is old."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = (
    Observed
    | Met
    | Present
    | Watchers
    | Canary
    | Foreign
    | Backups
    | Viewed
    | Missing
    | Published
    | Returned
    | Requested
    | Commanded
    | Started
    | Tick
)


def asking(asked: Request | Command) -> Requested | Commanded:
    """The event that carries this request or command to `step`."""
    return Commanded(asked) if isinstance(asked, Command) else Requested(asked)
