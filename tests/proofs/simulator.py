"""A site in virtual time: clusters, probes, a bus, a reactor, minions, a job cache, people, and one healer.

`Simulation` runs the core against all of it. Everything that happens is an entry of one heap, all chance comes from one
seed: the same seed gives the same history. Times given to `at` and `run` are seconds since the start. A cluster in
which nothing is wrong is not probed; whatever happens to it wakes its probes.

A node is a minion and an address. The minion's own database server has the node's name, too; the address may lead to
another one (`mislead`). The healer keeps a connection open to whatever answered it, and dials afresh at times. What the
world knows and the healer need not (who serves, what runs where) is told to the rules with each firing.

    site = Simulation(policy, seed=1)
    site.at(30, site.fail, "db2", Fault.DEAD, cured_by=Action.RESTART)
    site.run(until=120)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from saltext_selfheal.healing.changes import Changes, Verdict
from saltext_selfheal.healing.events import (
    Backup,
    Backups,
    Canary,
    CanaryEnd,
    ClusterView,
    Command,
    Commanded,
    Door,
    Event,
    Foreign,
    Issue,
    Met,
    Missing,
    Observation,
    Observed,
    Presence,
    Present,
    Published,
    Replica,
    Request,
    Requested,
    Returned,
    Shard,
    Started,
    Table,
    Tick,
    Verb,
    Viewed,
    ViewStatus,
    Watchers,
)
from saltext_selfheal.healing.model import (
    CLUSTER_WIDE,
    Action,
    Announce,
    Answer,
    Attempt,
    ClusterState,
    Dial,
    Effect,
    Fault,
    Fire,
    Incident,
    Limits,
    Outcome,
    Phase,
    Policy,
    State,
)
from saltext_selfheal.healing.remedies import ASKING
from saltext_selfheal.healing.sighting import Sighting
from saltext_selfheal.healing.start import begin, forgotten, remains
from saltext_selfheal.healing.step import step
from saltext_selfheal.healing.testimony import MOST_JOBS, Ground, Process, Running, Testimony
from saltext_selfheal.loop import jids

from .rules import Truth, Watch

TICK_S = 1.0
IDLE_TICK_S = 4.0  #: while nothing is in flight: every probe moves time on as well
VIEW_S = 10.0
CANARY_S = 10.0
WAITS_S = 5.0  #: so long a canary is waited for
GAP_S = 10.0  #: a loop held up for longer has to look anew
REACTOR_AGE_S = 60.0
PRESENT_S = 5.0  #: what is known of minions is told again after this time
MEET_S = 3.0  #: peers are asked once in this time, however many dials are refused
FORGETS_S = 8.0  #: so long a server's peers believe in one that hangs
START = 1_000_000.0
AWAY = frozenset({Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE})


@dataclass
class Ill:
    """A fault as it is, whatever the probes have seen of it."""

    fault: Fault
    since: float
    cured_by: tuple[Action, ...] = ()
    nth: int = 1  #: so many of these actions are needed
    issue: str = ""
    had: int = 0
    serves: bool = False  #: applications are served all the same, and its peers are connected to it
    keeps: bool = False  #: … and whoever has a connection open: only a fresh dial finds it
    loads: bool = False  #: its process runs and gets up by itself, if it is left alone
    ground: Ground | None = None  #: what its minion can find


#: What hangs on a process that does not end.
HANG = (Action.RESTART, Action.START)
#: With these a fresh dial hears nothing at all.
SILENT = frozenset({Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE})
#: What a minion may tell of a highstate.
_FORESEEN = (Verdict.WOULD_CHANGE, Verdict.NOTHING, Verdict.CANNOT_TELL)


@dataclass(frozen=True)
class Job:
    """What comes of an order on a minion; ``outcome`` None: it runs and never returns."""

    outcome: Outcome | None = Outcome.DONE
    takes_s: float = 2.0


@dataclass(frozen=True)
class Luck:
    """How often what goes wrong. Shares of 1."""

    lost: float = 0.0  #: remediation events that no reactor hears
    tardy: float = 0.0  #: … or hears late
    failed: float = 0.0
    busy: float = 0.0
    forbidden: float = 0.0  #: minions that somebody keeps from running it
    endless: float = 0.0
    late: float = 0.0  #: jobs that return after their time
    doubled: float = 0.0  #: events delivered twice
    dropped: float = 0.0  #: observations that get lost
    stale: float = 0.0  #: observations delivered late
    unmet: float = 0.0  #: words about who is connected that get lost
    slow_word: float = 0.0  #: … or come late
    unread: float = 0.0  #: readings of the minions that fail
    slow_reading: float = 0.0  #: … or are told late
    undialled: float = 0.0  #: wishes for a fresh dial that get lost
    forged: float = 0.0  #: jobs of which another minion tells a result while they run
    lying: float = 0.0  #: looks that another minion answers
    replayed: float = 0.0  #: remediation events that somebody fires again later
    mute: float = 0.0  #: minions that do not tell what they see …
    confused: float = 0.0  #: … or tell anything
    bare: float = 0.0  #: nodes whose minions do not have this package
    stuck: float = 0.0  #: processes that survive SIGKILL
    belated: float = 0.0  #: probes that begin late, because the healer itself is slow
    unpublished: float = 0.0  #: claims after which the job is not published all the same
    crash_on_fire: float = 0.0  #: the healer dies between record and deed
    crash_on_event: float = 0.0  #: … or before the record


@dataclass
class Figures:
    """What a run amounts to."""

    events: int = 0
    fired: list[tuple[float, Action, tuple[str, ...]]] = field(default_factory=list)
    needless: int = 0
    on_nodes: int = 0  #: actions, counted per node
    incidents: int = 0
    locked: int = 0
    crashes: int = 0
    collisions: int = 0  #: jobs begun on a minion while another of ours still ran there
    refused: int = (
        0  #: remediation events that nobody's attempt backed, or whose firing was claimed
    )
    forged: int = 0  #: results and looks that were lies
    mistaken: int = 0  #: incidents of that fault, and of the next
    cut_off: int = 0
    repaired: list[tuple[Fault, float]] = field(default_factory=list)


class Simulation:
    """All of it. ``keep`` stands for the ledger: what the healer finds again after a crash."""

    def __init__(
        self,
        *policies: Policy,
        seed: int = 0,
        limits: Limits | None = None,
        luck: Luck | None = None,
        replicas: bool = True,
        far: bool = False,
        keep: Callable[[ClusterState], ClusterState] = lambda cluster: cluster,
        remembered: dict[str, ClusterState] | None = None,
        lost_ledger: bool = False,
        redial_s: float = 30.0,
        proxies: tuple[str, ...] = (),
        resolved: bool = True,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.all_policies = {p.name: p for p in policies}
        self.policies = dict(self.all_policies)  #: as the settings are at present
        self.away: dict[str, ClusterState] = (
            {}
        )  #: what is remembered of clusters that they do not name
        self.limits, self.luck = limits or Limits(), luck or Luck()
        self.replicas, self.far, self.keep = replicas, far, keep
        self.home = {n: p for p in policies for n in p.nodes}
        self.redial_s, self.proxies, self.resolved = redial_s, frozenset(proxies), resolved
        self.now = START
        self.figures = Figures()
        self.effects: list[tuple[float, Effect]] = []
        self.answers: list[Answer] = []
        self.ill: dict[str, Ill] = {}  # by node
        self.ailing: dict[str, Ill] = {}  # by cluster
        self.up_since: dict[str, float] = dict.fromkeys(self.home, START - 1000)
        self.started: dict[str, float] = dict.fromkeys(self.home, START - 1000)
        self.leads: dict[str, str] = {}  #: node → whose server its address leads to, if not its own
        self.titles: dict[str, str] = {n: f"{n}_srv" for n in self.home}
        self.strangers: dict[str, dict[str, str]] = {}  #: by cluster: servers that are no nodes
        self.forbidden: set[str] = set()  #: clusters whose system tables must not be read
        self.unasked: set[str] = set()  #: clusters whose canary's table was dropped
        self.sang: dict[str, CanaryEnd] = {}  #: by node: what came of its last canary
        self.singing: set[str] = set()  #: nodes that are sent canaries
        self.open: dict[str, str] = {}  #: node → server at the end of the open connection
        self.dial_at: dict[str, float] = {}
        self.asked_at: dict[str, float] = {}  #: by cluster
        self.minions_down: dict[str, Presence] = {}  #: and what the master may find of them
        self.never_found: set[str] = (
            set()
        )  #: minions of which the master cannot tell whether they are connected
        self.present_at = 0.0
        self.jobs: dict[str, list[Job]] = (
            {}
        )  #: what becomes of a node's next jobs, before luck has a say
        self.cache_readable = True
        self.cache: dict[str, dict[str, tuple[Outcome, str]]] = {}
        self.running: dict[str, set[str]] = {n: set() for n in self.home}
        self.claimed: set[tuple[str, int]] = set()
        self.ran: set[tuple[str, str]] = set()
        self.orders: dict[str, Attempt] = {}
        #: By node: JIDs of other people's jobs that run there.
        self.others: dict[str, set[str]] = {n: set() for n in self.home}
        self.dumps: dict[str, str] = {}  #: backup → the node through which it runs
        self.heard = False  #: the healer hears of its own jobs, too, as of anybody's
        self._jids = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple, dict]] = []
        self._count = 0
        self._told: set[tuple[str, str]] = set()
        #: By question and minion.
        self.told: dict[tuple[str, str], Testimony | Changes | Sighting | None] = {}
        #: By cluster: its observers, and how each one is: "true", "cut off", "lies" or "gone".
        self.observers: dict[str, dict[str, str]] = {}
        self._missing_at: dict[str, float] = {}
        self._awake: set[str] = set()
        self._polling: set[str] = set()
        self._ticking = False
        self._frozen_until = 0.0
        self._inbox: list[Event] = []
        self._asked = 0
        self.watch = Watch(policies, self.limits, self.now)
        self.up = False
        found = forgotten(self.policies, self.now, self.limits) if lost_ledger else remembered or {}
        self._begin(found, lost_ledger)

    # ------------------------------------------------------------ the clockwork

    def at(self, t: float, do: Callable[..., None], *args, **kwargs) -> None:
        """Do this so many seconds after the start."""
        self._push(START + t, do, *args, **kwargs)

    def _push(self, when: float, do: Callable[..., None], *args, **kwargs) -> None:
        self._count += 1
        heappush(self._heap, (when, self._count, do, args, kwargs))

    def _later(self, seconds: float, do: Callable[..., None], *args) -> None:
        self._push(self.now + seconds, do, *args)

    def run(self, until: float) -> Simulation:
        """Let it happen, up to so many seconds after the start."""
        end = START + until
        heap = self._heap
        while heap and heap[0][0] <= end:
            when, _, do, args, kwargs = heappop(heap)
            self.now = max(self.now, when)
            do(*args, **kwargs)
        self.now = max(self.now, end)
        return self

    @property
    def elapsed(self) -> float:
        return self.now - START

    # ------------------------------------------------------------ what happens to the databases

    def fail(
        self,
        node: str,
        fault: Fault,
        cured_by: Action | tuple[Action, ...] = (),
        nth: int = 1,
        for_s: float | None = None,
        serves: bool = False,
        keeps: bool = False,
        loads: bool = False,
        ground: Ground | None = None,
    ) -> None:
        """A node falls ill; what it had before is forgotten."""
        cures = (cured_by,) if isinstance(cured_by, Action) else tuple(cured_by)
        if not self._serves(node):
            self.up_since[node] = self.now
        ill = self.ill[node] = Ill(
            fault,
            self.now,
            cures,
            nth,
            serves=serves or fault not in AWAY,
            keeps=keeps,
            loads=loads,
            ground=ground,
        )
        if fault is Fault.DEAD and not serves:
            self._hang_up(node)
        if for_s is not None:
            self._later(for_s, self._mend_if, node, ill)
        self._wake(self.home[node].name)

    def ail(
        self,
        cluster: str,
        fault: Fault,
        cured_by: Action | tuple[Action, ...] = (),
        nth: int = 1,
        for_s: float | None = None,
        issue: str = "",
    ) -> None:
        """A cluster as a whole falls ill."""
        cures = (cured_by,) if isinstance(cured_by, Action) else tuple(cured_by)
        ill = self.ailing[cluster] = Ill(fault, self.now, cures, nth, issue)
        if for_s is not None:
            self._later(for_s, self._ease_if, cluster, ill)
        self._wake(cluster)

    def mend(self, node: str) -> None:
        ill = self.ill.pop(node, None)
        if ill is not None and not ill.serves:
            self.up_since[node] = self.now
            if ill.fault is Fault.DEAD:
                self.started[node] = self.now
        self._wake(self.home[node].name)

    def _serves(self, server: str) -> bool:
        """Applications are served there, whatever the healer sees."""
        ill = self.ill.get(server)
        return ill is None or ill.serves or self._far(server)

    def _hang_up(self, server: str) -> None:
        """Its process has ended: so have the connections to it."""
        for node in [n for n, other in self.open.items() if other == server]:
            del self.open[node]

    # ------------------------------------------------------------ whose server that is

    def mislead(self, node: str, server: str, for_s: float | None = None) -> None:
        """The node's address leads to another's server from now on."""
        self.leads[node] = server
        if for_s is not None:
            self._later(for_s, self._lead_home, node, server)
        self._wake(self.home[node].name)

    def swap(self, one: str, other: str, for_s: float | None = None) -> None:
        self.mislead(one, other, for_s)
        self.mislead(other, one, for_s)

    def _lead_home(self, node: str, server: str) -> None:
        if self.leads.get(node) == server:
            del self.leads[node]
            self._wake(self.home[node].name)

    def name(self, node: str, title: str | None = None, for_s: float | None = None) -> None:
        """Its server has this name; its own again if none is given."""
        self.titles[node] = title or f"{node}_srv"
        if for_s is not None:
            self._later(for_s, self.name, node)
        self._wake(self.home[node].name)

    def stranger(self, cluster: str, title: str | None, for_s: float | None = None) -> None:
        """A server that is no node joins the cluster under this name; None: it leaves."""
        self.strangers[cluster] = {f"id-stranger-{cluster}": title} if title else {}
        if for_s is not None:
            self._later(for_s, self.stranger, cluster, None)
        self._wake(cluster)

    def forbid(self, cluster: str, forbidden: bool) -> None:
        """The system tables may (not) be read."""
        (self.forbidden.add if forbidden else self.forbidden.discard)(cluster)

    def straighten(self) -> None:
        """Every address leads to its own server again, and every name is one server's."""
        self.leads.clear()
        self.strangers.clear()
        self.titles = {n: f"{n}_srv" for n in self.home}
        self.forbidden.clear()
        self.unasked.clear()
        for name in self.policies:
            self._wake(name)

    def _mend_if(self, node: str, ill: Ill) -> None:
        if self.ill.get(node) is ill:
            self.mend(node)

    def _ease_if(self, cluster: str, ill: Ill) -> None:
        if self.ailing.get(cluster) is ill:
            del self.ailing[cluster]

    def minion(self, node: str, up: bool, found: Presence = Presence.AWAY) -> None:
        """A node's minion goes or comes back, or its key does: then that is what the master finds."""
        if up:
            self.minions_down.pop(node, None)
        else:
            self.minions_down[node] = found
        self._later(1.0 if up else 3.0, self._read_minions, self.home[node].name)

    def _read_minions(self, cluster: str) -> None:
        """The master looks which minions are there."""
        if self._happens(self.luck.unread):
            return
        found = {n: self._presence(n) for n in self.home if self.home[n].name == cluster}
        late_s = 9.0 * self.random.random() if self._happens(self.luck.slow_reading) else 0.0
        if late_s:
            self._later(late_s, self.deliver, Present(cluster, found))
        else:
            self.deliver(Present(cluster, found))

    def observe(self, cluster: str, **how: str) -> None:
        """The observers of a cluster from now on, and how each of them is."""
        self.observers[cluster] = how
        self._read_observers(cluster)

    def _read_observers(self, cluster: str) -> None:
        """The master looks which observers are there. It may take one for there that has gone."""
        if cluster in self.observers and not self._happens(self.luck.unread):
            there = [o for o, how in self.observers[cluster].items() if how != "gone"]
            self.deliver(Watchers(cluster, tuple(there)))

    def _presence(self, node: str) -> Presence:
        found = self.minions_down.get(node, Presence.CONNECTED)
        seen = found is Presence.NOT_ACCEPTED or node not in self.never_found
        return found if seen else Presence.UNKNOWN

    def work(
        self,
        node: str,
        takes_s: float | None = 10.0,
        restarts: bool = False,
        heals: bool = False,
        begins_unheard: bool = False,
        ends_unheard: bool = False,
    ) -> None:
        """Somebody else's job on a node's minion; ``takes_s`` None: it never ends.

        It may restart the database itself, and leave it well. The master may miss its beginning or its end.
        """
        jid = self._jid("other")
        self.others[node].add(jid)
        if not begins_unheard:
            self._tell_work(node, jid)
        if restarts and node not in self.ill:
            self._later(0.5, self._restarted, node)
        if takes_s is not None:
            self._later(takes_s, self._work_ends, node, jid, heals, ends_unheard)

    def dump(self, node: str, takes_s: float) -> None:
        """A backup through this node. It ends with the node's server, too."""
        id = self._jid("dump")
        self.dumps[id] = node
        self._later(takes_s, self.dumps.pop, id, None)
        self._wake(self.home[node].name)

    def _restarted(self, node: str) -> None:
        if node not in self.ill:
            self._hang_up(node)
            self.fail(node, Fault.DEAD, for_s=2.0)

    def _work_ends(self, node: str, jid: str, heals: bool, unheard: bool) -> None:
        if jid not in self.others[node]:
            return
        self.others[node].discard(jid)
        if heals:
            self.mend(node)
        if not unheard:
            self._tell_work(node, jid, ended=True)

    def _tell_work(self, node: str, jid: str, ended: bool = False) -> None:
        cluster = self.home[node].name
        self.deliver(Foreign(cluster, jid, "state.highstate", "ann", (node,), ended))

    def _jid(self, whose: str) -> str:
        self._jids += 1
        return f"{whose}-{self._jids}"

    def restart_minion(self, node: str) -> None:
        """Which JIDs it has run is forgotten."""
        self.ran = {(id, n) for id, n in self.ran if n != node}

    def read_cache(self, readable: bool) -> None:
        self.cache_readable = readable

    # ------------------------------------------------------------ what people and applications do

    def order(self, verb: Verb, **what) -> None:
        """An operator's command."""
        self._asked += 1
        self.deliver(Commanded(Command(f"c{self._asked}", verb, "op", **what)))
        for name in self.policies:
            self._wake(name)

    def ask(self, cluster: str, action: str = "highstate", nodes: tuple[str, ...] = ()) -> None:
        """An application's request."""
        self._asked += 1
        request = Request(f"r{self._asked}", cluster, action, nodes, "", Door.RUNNER, "app")
        self.deliver(Requested(request))
        if cluster in self.policies:
            self._wake(cluster)

    def forge(self, id: str) -> None:
        """A remediation event that the healer did not fire."""
        self._react(id)

    # ------------------------------------------------------------ what happens to the healer

    def crash(
        self, down_s: float = 5.0, lost_ledger: bool = False, without: tuple[str, ...] = ()
    ) -> None:
        """It dies now, and is back after so long, with settings that do not name some of the nodes."""
        if not self.up:
            return
        self.up = False
        self.open.clear()
        self.figures.crashes += 1
        self._later(down_s, self._return, lost_ledger, without)

    def freeze(self, for_s: float) -> None:
        """Its loop, or its whole machine, stands still."""
        self._frozen_until = self.now + for_s
        self._later(for_s, self._thaw, for_s)

    def _thaw(self, for_s: float) -> None:
        if self.now < self._frozen_until:
            return
        waiting, self._inbox = self._inbox, []
        for event in waiting:
            self.deliver(event)
        if self.up:
            self._feed(Started() if for_s > GAP_S else Tick())

    def _settle(self, without: tuple[str, ...]) -> None:
        """The settings from now on: a cluster without nodes is not named either."""
        kept = (
            replace(p, nodes=tuple(n for n in p.nodes if n not in without))
            for p in self.all_policies.values()
        )
        self.policies = {p.name: p for p in kept if p.nodes}
        self.watch.settle(self.policies)

    def _return(self, lost_ledger: bool, without: tuple[str, ...] = ()) -> None:
        self._settle(without)
        kept = {**self.away, **{n: self.keep(c) for n, c in self.state.clusters.items()}}
        if lost_ledger:  # numbers begin anew, under JIDs of their own
            self.cache, self.ran, kept = {}, set(), {}
            self.claimed = set()
        self._begin(
            forgotten(self.policies, self.now, self.limits) if lost_ledger else kept, lost_ledger
        )
        waiting, self._inbox = self._inbox, []
        for event in waiting:
            self.deliver(event)

    def _begin(self, found: dict[str, ClusterState], lost_ledger: bool) -> None:
        self.up = True
        self._told.clear()
        self.watch.started(self.now, lost_ledger)
        state, effects = self._named(begin(self.policies, self.limits, found, self.now))
        self.away = {
            n: self.keep(remains(c, self.policies, self.now))
            for n, c in found.items()
            if n not in self.policies
        }
        self.state = state
        self.watch.see(state, None, state, effects, self.now)
        self._carry_out(effects)
        for name in self.policies:
            self._awake.discard(name)  # there may be nodes that were not probed before
            self._wake(name)

    # ------------------------------------------------------------ probes

    def _wake(self, cluster: str) -> None:
        if cluster not in self._awake and cluster in self.policies:
            self._awake.add(cluster)
            poll_s = self.policies[cluster].poll_s
            for node in self.policies[cluster].nodes:
                self.dial_at[node] = self.now + self.redial_s * self.random.random()
                if node not in self._polling:
                    self._polling.add(node)
                    self._later(poll_s * self.random.random(), self._poll, node)
            for node in self.policies[cluster].nodes if self.policies[cluster].canary else ():
                if node not in self.singing:
                    self.singing.add(node)
                    self._later(CANARY_S * self.random.random(), self._sing, node)
            if cluster not in self._polling:
                self._polling.add(cluster)
                self._later(poll_s * (1 + self.random.random()), self._view, cluster)
        if not self._ticking:
            self._ticking = True
            self._later(TICK_S, self._tick)

    def _calm(self, name: str) -> bool:
        """Nothing is wrong, nothing is believed to be, and the healer has seen enough."""
        cluster = self.state.clusters.get(name)
        return cluster is None or (
            self.up
            and not cluster.incidents
            and name not in self.ailing
            and not cluster.ailments
            and not cluster.late
            and not getattr(cluster, "pending", ())
            and cluster.attempt is None
            and all(n not in self.ill and n not in self.leads for n in cluster.nodes)
            and all(self.titles[n] == f"{n}_srv" for n in cluster.nodes)
            and not self.strangers.get(name)
            and name not in self.forbidden
            and all(n.polls >= 3 and n.well and not n.stalled for n in cluster.nodes.values())
            and name not in self.unasked
            and self.now - self.state.started_at > 20.0
        )

    def _poll(self, node: str) -> None:
        policy = self.home[node]
        if self._calm(policy.name):
            self._awake.discard(policy.name)
        named = policy.name in self.policies and node in self.policies[policy.name].nodes
        if policy.name not in self._awake or not named:
            self._polling.discard(node)
            return
        seen = self._probe(policy.name, node)
        luck, chance = self.luck, self.random.random
        if not self._happens(luck.dropped):
            if self._happens(luck.stale):
                self._later(3.0 * chance(), self.deliver, Observed(seen))
            else:
                self.deliver(Observed(seen))
        if seen.fault is Fault.DEAD and self.now - self.asked_at.get(policy.name, 0.0) > MEET_S:
            self.asked_at[policy.name] = self.now
            self._later(0.05, self._meet, policy.name)
        waits_s = policy.timeout_s if seen.fault in (Fault.HUNG, Fault.UNREACHABLE) else 0.0
        self._later(policy.poll_s * (0.9 + 0.2 * chance()) + waits_s, self._poll, node)

    def _probe(self, cluster: str, node: str) -> Observation:
        """One look: the open connection first; a fresh dial if it is due, or if nothing else answers."""
        old = self.open.get(node)
        ill = self._heard(old) if old else None
        answers = old is not None and (ill is None or ill.keeps)
        if answers and self.now < self.dial_at.get(node, 0.0):
            return self._observation(cluster, node, old, None, dialled=False)
        if old is not None and not answers:
            del self.open[node]
            if ill is not None and ill.fault in (Fault.HUNG, Fault.UNREACHABLE):
                self.dial_at[node] = self.now
                return self._observation(cluster, node, old, ill.fault, dialled=False)
        target = self.leads.get(node, node)
        ill = self._heard(target)
        if ill is not None:
            self.dial_at[node] = self.now  # each look dials until one is well
            return self._observation(cluster, node, target, ill.fault, answers=answers)
        self.dial_at[node] = self.now + self.redial_s * (0.8 + 0.4 * self.random.random())
        if self.open.get(node) != target and self.home[node].canary:
            self._later(0.1, self._ask, node)
        self.open[node] = target  # where the address leads elsewhere now, the old one is given up
        return self._observation(cluster, node, target, None)

    def _heard(self, server: str) -> Ill | None:
        """What a probe hears of this server's illness: one that only stalls answers it."""
        ill = self.ill.get(server)
        return None if ill is not None and ill.fault is Fault.STALLED else ill

    def drop_table(self, cluster: str, dropped: bool) -> None:
        """The canary's table is gone, or made again."""
        (self.unasked.add if dropped else self.unasked.discard)(cluster)
        if cluster in self.policies:
            self._wake(cluster)

    def _sing(self, node: str) -> None:
        """The node's next canary, at its time."""
        policy = self.home[node]
        named = policy.name in self.policies and node in self.policies[policy.name].nodes
        if policy.name not in self._awake or not named:
            self.singing.discard(node)
            return
        self._ask(node)
        waits = self.sang.get(node) is CanaryEnd.UNANSWERED
        every_s = (2.0 if waits else CANARY_S) * (0.9 + 0.2 * self.random.random())
        self._later(every_s, self._sing, node)

    def _ask(self, node: str) -> None:
        """One canary through the open connection of this node."""
        server, name = self.open.get(node), self.home[node].name
        if server is None or (self._heard(server) and not self.ill[server].keeps) or not self.up:
            return
        ill, ailing = self.ill.get(server), self.ailing.get(name)
        closed = ailing is not None and ailing.fault is Fault.UNAVAILABLE
        if name in self.unasked:
            told = Canary(name, node, CanaryEnd.UNASKED, "Table `a.b` does not exist.")
        elif closed or (ill is not None and ill.fault is Fault.STALLED):
            told = Canary(name, node, CanaryEnd.UNANSWERED, "the canary's read of a.b within 5 s")
        else:
            told = Canary(name, node, CanaryEnd.ANSWERED)
        waits = told.end is CanaryEnd.UNANSWERED
        self._later(WAITS_S if waits else 0.01, self._sung, told, ill)

    def _sung(self, told: Canary, ill: Ill | None) -> None:
        """It is told, if the node is still as it was. The others are asked where a stall begins or ends."""
        if told.node not in self.open or self.ill.get(self.open[told.node]) is not ill:
            return
        before, self.sang[told.node] = self.sang.get(told.node), told.end
        if not self._happens(self.luck.dropped):
            self.deliver(told)
        if (before, told.end).count(CanaryEnd.UNANSWERED) == 1:
            for node in self.home[told.node].nodes:
                if node != told.node:
                    self._later(0.01, self._ask, node)

    def _observation(
        self, cluster: str, node: str, server: str, fault: Fault | None, **more
    ) -> Observation:
        proxy = server in self.proxies
        known = fault is None or fault in (Fault.SLOW,)
        addresses = (f"{server}:28015",) if self.resolved else (f"{node}:28015",)
        return Observation(
            cluster,
            node,
            fault,
            "answers" if fault is None else fault.value,
            0.001,
            server_id=f"id-{server}" if known else None,
            server_name=self.titles[server] if known and not proxy else None,
            version="2.4" if known else None,
            addresses=addresses if more.get("dialled", True) else (),
            proxy=known and proxy,
            silent=fault in SILENT and more.get("dialled", True) and not more.get("answers"),
            late_s=(
                self.random.choice((0.5, 5.0, 60.0)) if self._happens(self.luck.belated) else 0.0
            ),
            **more,
        )

    def _dial(self, node: str) -> None:
        """It was asked for: the next look, which comes at once, dials."""
        self.dial_at[node] = self.now
        policy = self.home[node]
        if self.up and policy.name in self.policies and node in self.policies[policy.name].nodes:
            self.deliver(Observed(self._probe(policy.name, node)))

    def _ends(self, cluster: str) -> list[str]:
        """Nodes whose open connection answers: they can be asked for what the cluster's tables say."""
        nodes = self.policies[cluster].nodes if cluster in self.policies else ()
        ends = [(n, self.open[n]) for n in nodes if n in self.open]
        return [n for n, s in ends if self._heard(s) is None or self.ill[s].keeps]

    def _sees(self, server: str) -> frozenset[str]:
        """Ids of the servers that this one is connected to, itself included."""
        own = frozenset() if server in self.proxies else frozenset({f"id-{server}"})
        cluster = self.home[server]
        ailing = self.ailing.get(cluster.name)
        if ailing is not None and ailing.fault is Fault.PARTITIONED:
            return own
        there = {
            f"id-{n}"
            for n in cluster.nodes
            if n not in self.proxies and (self._serves(n) or self._believed(n))
        }
        return own | there | self.strangers.get(cluster.name, {}).keys()

    def _believed(self, server: str) -> bool:
        ill = self.ill[server]
        return ill.fault is Fault.HUNG and self.now - ill.since < FORGETS_S

    def _meet(self, name: str) -> None:
        """Whom each node that answers is connected to."""
        asked = self._ends(name)
        if not asked or name in self.forbidden or self._happens(self.luck.unmet):
            return
        connected = {n: self._sees(self.open[n]) for n in asked}
        ids = frozenset().union(*connected.values())
        servers = [n for n in self.home if f"id-{n}" in ids]
        strangers = self.strangers.get(self.home[self.open[asked[0]]].name, {})
        met = Met(
            name,
            connected,
            {**{f"id-{n}": self.titles[n] for n in servers}, **strangers},
            {f"id-{n}": self.started[n] for n in servers},
        )
        if self._happens(self.luck.slow_word):
            took_s = 8.0 * self.random.random()
            self._later(took_s, self.deliver, replace(met, took_s=took_s))
        else:
            self.deliver(met)

    def _view(self, name: str) -> None:
        if name not in self._awake or name not in self.policies:
            self._polling.discard(name)
            return
        policy = self.policies[name]
        self._meet(name)
        answering = self._ends(name)
        if answering and name in self.forbidden:
            why = "the user may not read the system tables"
            hidden = ClusterView(name, answering[0], ViewStatus.FORBIDDEN, why)
            self.deliver(Viewed(hidden))
        elif answering:
            self.deliver(Viewed(self._tables(policy, answering)))
            running = tuple(
                Backup(id, (self.titles[node],), "admin")
                for id, node in self.dumps.items()
                if self.home[node].name == name and self._serves(node)
            )
            self.deliver(Backups(name, running))
        self._later(VIEW_S * (0.9 + 0.2 * self.random.random()), self._view, name)

    def _tables(self, policy: Policy, answering: list[str]) -> ClusterView:
        """One table with a replica everywhere, and one with three, as the first of them tells it."""
        asked = self.open[answering[0]]
        there = self.home[asked]
        ailing = self.ailing.get(there.name)
        servers = tuple(n for n in there.nodes if n not in self.proxies)
        ready = {n for n in servers if self._serves(n) and self.now - self.up_since[n] > 3.0}

        def table(name: str, nodes: tuple[str, ...]) -> Table:
            replicas = tuple(
                Replica(self.titles[n], "ready" if n in ready else "disconnected", True)
                for n in nodes
            )
            up = 2 * sum(r.state == "ready" for r in replicas) > len(nodes)
            if ailing and ailing.fault is Fault.UNAVAILABLE:
                up = False
            shards = (Shard(replicas),) if self.replicas and nodes else ()
            return Table(name, up, up, up, shards)

        connected = {n: self._sees(self.open[n]) for n in answering}
        started = {f"id-{n}": self.started[n] for n in servers if f"id-{n}" in self._sees(asked)}
        issues = (Issue(ailing.issue, "so it is"),) if ailing and ailing.issue else ()
        tables = (table("a.everywhere", servers), table("a.few", servers[:3]))
        return ClusterView(
            policy.name, answering[0], ViewStatus.KNOWN, "", tables, issues, connected, started
        )

    def _far(self, node: str) -> bool:
        """Only the healer cannot reach it."""
        return self.far and self.ill[node].fault is Fault.UNREACHABLE

    def _truth(self) -> dict[str, Truth]:
        """What the world knows, and the healer need not."""
        return {
            n: Truth(
                self._serves(n),
                max(self.up_since[n], self.ill[n].since if n in self.ill else 0.0),
                frozenset(self.running[n]),
                self.leads.get(n, n),
            )
            for n in self.home
        }

    # ------------------------------------------------------------ the healer's loop

    def deliver(self, event: Event) -> None:
        """Hand an event over, as luck has it."""
        if not self.up or self.now < self._frozen_until:
            if isinstance(event, Commanded | Requested) or self.up:
                self._inbox.append(event)
            return
        self._feed(event)
        once = isinstance(event, Commanded | Requested)  # so the inbox gives them
        if self.up and not once and self._happens(self.luck.doubled):
            self._feed(event)

    def _happens(self, share: float) -> bool:
        return bool(share) and self.random.random() < share

    def _feed(self, event: Event) -> None:
        before, luck = self.state, self.luck
        if self._happens(luck.crash_on_event):
            if isinstance(event, Commanded | Requested):
                self._inbox.append(event)
            self.crash(1.0 + 30.0 * self.random.random())
            return
        self.figures.events += 1
        after, effects = self._named(step(before, event, self.now))
        self.state = after
        fires = any(isinstance(e, Fire) for e in effects)
        self.watch.see(before, event, after, effects, self.now, self._truth() if fires else None)
        if effects:
            if fires and self._happens(luck.crash_on_fire):
                self._note(effects)
                self.crash(1.0 + 60.0 * self.random.random())
                return
            self._carry_out(effects)

    def _named(self, made: tuple[State, tuple[Effect, ...]]) -> tuple[State, tuple[Effect, ...]]:
        """The same with a JID for each new attempt, as the loop gives it."""
        state, effects = jids.give(*made, lambda one: replace(one, jid=self._jid("own")))
        return state, tuple(effects)

    def _note(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            self.effects.append((self.now, effect))
            if isinstance(effect, Fire):
                self.orders[effect.attempt.id] = effect.attempt
                if effect.attempt.firings == 1 and effect.attempt.action not in ASKING:
                    self._count_fire(effect.attempt)
            elif isinstance(effect, Announce):
                self.figures.incidents += effect.said == "open" and not effect.incident.attempts
                self.figures.locked += effect.said == "locked"
                if effect.said == "open" and not effect.incident.attempts:
                    self.figures.mistaken += effect.incident.fault is Fault.MISTAKEN
                    self.figures.cut_off += effect.incident.fault is Fault.CUT_OFF
            elif isinstance(effect, Answer):
                self.answers.append(effect)

    def _count_fire(self, attempt: Attempt) -> None:
        self.figures.fired.append((self.now, attempt.action, attempt.nodes))
        incident = next(
            i for i in self.state.clusters[attempt.cluster].incidents if i.id == attempt.incident
        )
        if incident.fault is None:
            return
        for node in attempt.nodes:
            self.figures.on_nodes += 1
            ill = self.ill.get(node) or self.ailing.get(attempt.cluster)
            if ill is None or not cures(ill, attempt.action):
                self.figures.needless += 1

    def _carry_out(self, effects: tuple[Effect, ...]) -> None:
        self._note(effects)
        for effect in effects:
            if isinstance(effect, Fire):
                chance = self.random.random()
                if chance < self.luck.lost:
                    continue
                late_s = (
                    70.0 * self.random.random()
                    if chance < self.luck.lost + self.luck.tardy
                    else 0.0
                )
                self._later(0.05 + late_s, self._react, effect.attempt.id)
                if self._happens(self.luck.replayed):
                    when = self.random.choice((0.06, 3.0, 20.0, 50.0, 70.0))
                    self._later(when, self._react, effect.attempt.id)
            elif isinstance(effect, Dial):
                for node in effect.nodes:
                    if node in self.home and not self._happens(self.luck.undialled):
                        self._later(0.02, self._dial, node)

    def _tick(self) -> None:
        if not self._awake:
            self._ticking = False
            return
        if self.up and self.now >= self._frozen_until:
            self._feed(Tick())
            if self.up and self.cache_readable:
                self._read_jobs()
        if self.now - self.present_at >= PRESENT_S:
            self.present_at = self.now
            for name in self.policies:
                self._read_minions(name)
                self._read_observers(name)
        in_flight = any(c.attempt or c.late or c.questions for c in self.state.clusters.values())
        self._later(TICK_S if in_flight else IDLE_TICK_S, self._tick)

    # ------------------------------------------------------------ reactor, minions, job cache

    def _in_flight(self, id: str) -> Attempt | None:
        for cluster in self.state.clusters.values():
            for attempt in (cluster.attempt, cluster.look, *cluster.questions):
                if attempt is not None and attempt.id == id:
                    return attempt
        return None

    def _react(self, id: str) -> None:
        """The reactor believes no event: it claims what is in flight under this name, each firing once."""
        attempt = self._in_flight(id)
        if (
            attempt is None
            or self.now - attempt.fired_at >= REACTOR_AGE_S
            or (id, attempt.firings) in self.claimed
            or id in self.cache
        ):
            self.figures.refused += 1
            return
        self.claimed.add((id, attempt.firings))
        self.watch.claimed(id, attempt.firings, self.now)
        if self._happens(self.luck.unpublished):
            return
        self.cache.setdefault(id, {})
        if attempt.action is Action.PROBE:
            for who in attempt.nodes:
                self.watch.ran(attempt, id, who, self.now)
                self._look_at(attempt, who)
            return
        for node in attempt.nodes:
            if node not in self.minions_down and (id, node) not in self.ran:
                self.ran.add((id, node))  # a minion runs a JID once, as long as it remembers it
                self.watch.ran(attempt, id, node, self.now)
                self._start_job(attempt, node)

    def _start_job(self, attempt: Attempt, node: str) -> None:
        id = attempt.id
        if attempt.action is Action.LOOK:
            runs = attempt.of in self.running[node]
            said = "the job still runs" if runs else "the job does not run"
            outcome = Outcome.BUSY if runs else Outcome.DONE
            if self._happens(self.luck.lying):
                self.figures.forged += 1
                lie = self.random.choice((Outcome.BUSY, Outcome.FORBIDDEN, Outcome.DONE))
                self._later(0.1, self._store, id, node, lie, "so somebody says")
            self._later(0.2, self._store, id, node, outcome, said)
            return
        if attempt.action is Action.WITNESS and self._bare(node):
            self._later(0.2, self._store, id, node, Outcome.FAILED, "it is not available")
            return
        if attempt.action in (Action.WITNESS, Action.SALT_WITNESS):
            if not self._happens(self.luck.mute):
                takes_s = self.random.choice((0.2, 0.5, 3.0, 7.0))
                self._later(takes_s, self._testify, id, node)
            return
        if attempt.action is Action.TEST_HIGHSTATE:
            if not self._happens(self.luck.mute):
                takes_s = self.random.choice((0.5, 2.0, 12.0))
                self._later(takes_s, self._foresee, id, node)
            return
        job = self._job(attempt, node)
        if self.heard:
            self._tell_work(node, attempt.jid)
        if self._happens(self.luck.forged):
            self.figures.forged += 1
            lie = self.random.choice(
                (Outcome.FAILED, Outcome.BUSY, Outcome.FORBIDDEN, Outcome.DONE)
            )
            when = self.random.choice((0.1, 2.0, 9.0))
            self._later(when, self._store, id, node, lie, "so somebody says")
        if self.running[node]:
            self.figures.collisions += 1
            if attempt.action is Action.HIGHSTATE:
                job = Job(Outcome.BUSY, 0.3)
        if self.others[node] and attempt.action is Action.HIGHSTATE:
            job = Job(Outcome.BUSY, 0.3)
        if job.outcome in (Outcome.BUSY, Outcome.FORBIDDEN):
            self._later(0.3, self._store, id, node, job.outcome, "is running as PID 1")
            return
        self.running[node].add(id)
        if job.outcome is not None:
            self._later(job.takes_s, self._end_job, attempt, node, job.outcome)

    def _look_at(self, attempt: Attempt, who: str) -> None:
        """What an observer sees, or says. It may say it late, or not at all."""
        how = self.observers.get(attempt.cluster, {}).get(who, "gone")
        if how == "gone" or self._happens(self.luck.mute):
            return
        down: bool | None = how == "cut off" or not self._serves(attempt.about)
        if how == "lies" or self._happens(self.luck.confused):
            self.figures.forged += 1
            down = self.random.choice((True, False, None))
        takes_s = self.random.choice((0.2, 0.5, 3.0, 7.0, 20.0 if how == "lies" else 0.2))
        said = Sighting(down, "so it says")
        self.told.setdefault((attempt.id, who), said)
        self._later(takes_s, self._store, attempt.id, who, Outcome.DONE, "")

    def _bare(self, node: str) -> bool:
        return random.Random(f"bare {self.seed} {node}").random() < self.luck.bare

    def _testify(self, id: str, node: str) -> None:
        """What the minion sees: the truth, or anything."""
        ill = self.ill.get(node)
        gone = ill is not None and ill.fault is Fault.DEAD and not (ill.serves or ill.loads)
        told = Testimony(
            Process.GONE if gone else Process.RUNS,
            None if gone else max(0.0, self.now - self.started[node]),
            listens=ill is None or ill.fault is not Fault.DEAD or ill.serves,
            ground=ill.ground if ill else None,
            greets=ill is None or (ill.serves and not ill.keeps),
            **self._runs(node),
        )
        if self._happens(self.luck.confused):
            self.figures.forged += 1
            told = Testimony(
                self.random.choice(list(Process)),
                self.random.choice((None, 0.0, 10.0, 1e6)),
                self.random.choice((None, True, False)),
                stopped=self.random.random() < 0.2,
                greets=self.random.random() < 0.2,
                restarts=self.random.choice((None, 0, 1, 5)),
                ground=self.random.choice((None, *Ground)),
                **self._runs(node),
            )
        self.told.setdefault((id, node), told)
        self._store(id, node, Outcome.DONE, "")

    def _foresee(self, id: str, node: str) -> None:
        """What a highstate would change: something where it is the cure, else mostly nothing. Or anything."""
        ill = self.ill.get(node)
        cures = ill is not None and Action.HIGHSTATE in ill.cured_by
        verdict = Verdict.WOULD_CHANGE if cures else Verdict.NOTHING
        if self._happens(self.luck.confused) or self.random.random() < 0.2:
            verdict = self.random.choice((*_FORESEEN, None))
        told = Changes(verdict, ("file.managed /x",), "so it says") if verdict else None
        self.told.setdefault((id, node), told)
        self._store(id, node, Outcome.DONE if told else Outcome.BUSY, "")

    def _runs(self, node: str) -> dict[str, object]:
        """The jobs that its minion names: anybody's, the healer's own as well."""
        own = (self.orders[id].jid for id in sorted(self.running[node]) if id in self.orders)
        names = [*sorted(self.others[node]), *own]
        jobs = tuple(Running(jid, "state.highstate", "ann") for jid in names[:MOST_JOBS])
        return {"jobs": jobs, "all_jobs": len(names) < MOST_JOBS}

    def _job(self, attempt: Attempt, node: str) -> Job:
        if self.jobs.get(node):
            return self.jobs[node].pop(0)
        if attempt.action is Action.FORCE_RESTART:
            if self._bare(node):
                return Job(Outcome.FAILED, 0.3)
            if self.ill.get(node) and self._happens(self.luck.stuck):
                return Job(Outcome.STUCK, 30.0)
        luck, chance = self.luck, self.random.random()
        takes_s = 0.5 + 8.0 * self.random.random()
        for share, job in (
            (luck.failed, Job(Outcome.FAILED, takes_s)),
            (luck.busy, Job(Outcome.BUSY)),
            (luck.forbidden, Job(Outcome.FORBIDDEN)),
            (luck.endless, Job(None)),
            (luck.late, Job(Outcome.DONE, self.home[node].attempt_timeout_s * 1.5)),
        ):
            if chance < share:
                return job
            chance -= share
        return Job(Outcome.DONE, takes_s)

    def _end_job(self, attempt: Attempt, node: str, outcome: Outcome) -> None:
        self.running[node].discard(attempt.id)
        if self.heard:
            self._tell_work(node, attempt.jid, ended=True)
        if outcome is Outcome.DONE:
            self._cure(attempt, node)
        self._store(attempt.id, node, outcome, "")

    def _cure(self, attempt: Attempt, node: str) -> None:
        action = attempt.action
        ill = self.ill.get(node)
        restarts = action in (Action.RESTART, Action.FORCE_RESTART)
        if action is Action.FORCE_RESTART:  # what hung on the old process comes back
            hung = [id for id in self.running[node] if self.orders[id].action in HANG]
            self.running[node].difference_update(hung)
        if restarts:
            self._hang_up(node)
            self.started[node] = self.now
        if ill is not None:
            if cures(ill, action):
                ill.had += 1
                if ill.had >= ill.nth:
                    self.figures.repaired.append((ill.fault, self.now - ill.since))
                    self.mend(node)
            elif restarts and ill.serves:  # it comes back as ill as it was
                self.up_since[node] = self.now
        elif restarts:  # it served
            self.fail(node, Fault.DEAD, for_s=2.0)
        name = attempt.cluster
        ailing = self.ailing.get(name)
        if ailing is not None and action in ailing.cured_by:
            ailing.had += 1
            if ailing.had >= ailing.nth:
                self.figures.repaired.append((ailing.fault, self.now - ailing.since))
                del self.ailing[name]

    def kill_job(self, node: str) -> None:
        """A person ends what runs there."""
        self.running[node].clear()

    def _store(self, id: str, node: str, outcome: Outcome, detail: str) -> None:
        self.cache.setdefault(id, {}).setdefault(node, (outcome, detail))  # a second is dropped

    def _read_jobs(self) -> None:
        for cluster in tuple(self.state.clusters.values()):
            late = (one.attempt for one in cluster.late)
            watched = (cluster.attempt, cluster.look, *cluster.questions, *late)
            for attempt in watched:
                if attempt is None:
                    continue
                found = self.cache.get(attempt.id)
                if found is None:
                    self.deliver(Missing(attempt.id))
                    continue
                self._tell(attempt.id, "", Published(attempt.id))
                for node, (outcome, detail) in tuple(found.items()):
                    told = self.told.get((attempt.id, node))
                    event = Returned(attempt.id, node, outcome, detail, told)
                    self._tell(attempt.id, node, event)

    def _tell(self, id: str, what: str, event: Event) -> None:
        if (id, what) not in self._told and self.up:
            self._told.add((id, what))
            self.deliver(event)

    # ------------------------------------------------------------ the end

    def calm_down(self, within_s: float = 5000.0) -> Simulation:
        """Nothing goes wrong any more: what can be healed must be healed, or locked and announced."""
        self.luck = Luck()
        self.straighten()
        self.minions_down.clear()
        for name, those in self.observers.items():
            self.observe(name, **dict.fromkeys(those, "true"))
        self.cache_readable = True
        for node in self.running:
            self.kill_job(node)
            self.others[node].clear()
        self.order(Verb.RESUME)
        end = self.elapsed + within_s
        self.run(
            self.elapsed + 120.0
        )  # what was put right has to be seen, also where only people were told of it
        while self.elapsed < end and self._unsettled():
            self.run(self.elapsed + 30.0)
        return self

    def _unsettled(self) -> bool:
        return not self.up or not all(self._settled(c) for c in self.state.clusters.values())

    def _settled(self, cluster: ClusterState) -> bool:
        """Well, or given up, and said so.

        An incident whose nodes are well or ill of something else by now waits for the incidents of that.
        """
        waits = {"mode", "approval", "storm", "look", "locked", "settings", "observers"}
        ends = [
            i
            for i in cluster.incidents
            if i.phase is Phase.LOCKED or i.only_told or not waits.isdisjoint(i.held)
        ]

        def told(node: str) -> bool:
            if self.ill[node].fault is Fault.STALLED and self.unsaid(cluster.name, node):
                return True
            return any(node in i.nodes and tells(i, self.ill[node]) for i in ends)

        return all(told(n) for n in cluster.nodes if n in self.ill) and all(
            i in ends or self._outlived(i) for i in cluster.incidents
        )

    def unsaid(self, name: str, node: str) -> bool:
        """Nobody can find that this node stalls: it gets no canary, or another node's fault explains it."""
        policy = self.policies.get(name)
        others = [n for n in policy.nodes if n != node and n in self.ill] if policy else []
        return policy is None or not policy.canary or name in self.unasked or bool(others)

    def _outlived(self, incident: Incident) -> bool:
        """None of its nodes has its fault any more, and one of them is ill of another."""
        sick = [self.ill[n] for n in incident.nodes if n in self.ill]
        return (
            incident.phase is Phase.OPEN
            and incident.fault not in CLUSTER_WIDE
            and bool(sick)
            and not any(tells(incident, ill) for ill in sick)
        )


def tells(incident: Incident, ill: Ill) -> bool:
    """The incident is about this illness: one that refuses the master only has two names."""
    if ill.fault is Fault.DEAD and incident.fault in (Fault.CUT_OFF, Fault.STARTING):
        return True
    if ill.fault is Fault.STALLED and incident.fault is Fault.UNAVAILABLE:
        return True  # no node answered its canary
    return incident.fault in (ill.fault, Fault.MISTAKEN)


def cures(ill: Ill, action: Action) -> bool:
    gentler = action in (Action.START, Action.FORCE_RESTART)
    return action in ill.cured_by or (gentler and Action.RESTART in ill.cured_by)
