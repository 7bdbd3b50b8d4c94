"""The rules as monitors: they see every transition and raise `Broken`.

A monitor believes no gate of the code. It keeps its own book of what the probes said, what was ordered, what was
fired and what has ended, and compares. Each rule is one function; `Watch` holds the book and calls them. Where a world
tells its truth with a firing (who serves, what runs where), that counts as well: the rules know more than the core.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.changes import Verdict
from saltext_selfheal.healing.events import (
    Backups,
    Canary,
    CanaryEnd,
    Commanded,
    Event,
    Foreign,
    Met,
    Observation,
    Observed,
    Presence,
    Present,
    Requested,
    Returned,
    Started,
    Verb,
    Viewed,
    ViewStatus,
    Watchers,
)
from saltext_selfheal.healing.model import (
    CLUSTER_WIDE,
    ENDED,
    Action,
    Announce,
    Answer,
    Attempt,
    Effect,
    Fault,
    Finish,
    Fire,
    Incident,
    Limits,
    Mode,
    Outcome,
    Phase,
    Policy,
    Reply,
    State,
    Tell,
)
from saltext_selfheal.healing.sighting import Sighting as Spied
from saltext_selfheal.healing.testimony import ADVICE, Process, Testimony

#: Jobs that ask minions what they see.
#: Both ask a node's minion what it sees; the second, where the first has failed.
SEEN = frozenset({Action.WITNESS, Action.SALT_WITNESS})
QUESTIONS = SEEN | {Action.PROBE, Action.TEST_HIGHSTATE}
HARMLESS = QUESTIONS | {Action.START, Action.LOOK}
#: Such a node does not answer this master, and is not relied on.
SILENT = frozenset({Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE, Fault.CUT_OFF, Fault.STARTING})
#: Of such a node its own minion is asked.
WITNESSED = frozenset(
    {Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE, Fault.STARTING, Fault.CUT_OFF, Fault.STALLED}
)
STARTING_AGE_S = 90.0  #: for so long a minion's word counts that a process is starting
ASK_AFTER_S = 1.0  #: so long after an attempt its minion is asked
#: Such a node is a live database, whether it can be asked anything or not.
LIVE = frozenset({None, Fault.SLOW, Fault.AUTH, Fault.TLS})
ASKING = QUESTIONS | {Action.LOOK}
TESTED_FOR_S = 600.0  #: what a test run has told is old after this
#: About such a node other minions are asked, too, before anything is done; about a dead one only if the settings say so.
OBSERVED = frozenset({Fault.HUNG, Fault.UNREACHABLE})
OBSERVED_S = 60.0  #: so long an observer's word counts
PROBED_S = 30.0  #: and so long it is not asked again about the same illness
MOST_OBSERVERS = 9
STRAIN_S = 10.0  #: so long a late round of the healer's own counts
MAP_AGE_S = 60.0
WARM_UP_S = 15.0
WARM_UP_POLLS = 3
OURS_S = 30.0
ORDER_AGE_S = 60.0
REQUEST_AGE_S = 900.0
APPROVED_S = 900.0
BUSY_S = 5.0
FORBIDDEN_S = 30.0
IDLE = frozenset({Outcome.BUSY, Outcome.FORBIDDEN})  #: nothing was done on the node
LOST_S = 60.0
STEADY_S = 120.0
FIRINGS = 3
WORD_S = 10.0  #: so long a refused node's peers are waited for
#: What such a node shows to this master may be the master's own matter: another one may be served.
NOTICED_S = 1.0  #: so long after the first refusal others may still be connected to a dead server
REFUSES = frozenset({Fault.DEAD, Fault.CUT_OFF, Fault.STARTING})
#: A job would not reach such a minion.
GONE = frozenset({Presence.AWAY, Presence.NOT_ACCEPTED})
WORKS = 8  #: so many jobs of others are remembered for one node
SURE_S = 2.0  #: what a minion does not name proves nothing of a job that is younger than this
KNOWN_S = 60.0  #: so long counts what was told of a minion


class Broken(AssertionError):
    """A rule does not hold: which, when, and what shows it."""

    def __init__(self, rule: str, now: float, evidence: str) -> None:
        super().__init__(f"{rule} at {now:.3f}: {evidence}")
        self.rule, self.now, self.evidence = rule, now, evidence


class Sighting(NamedTuple):
    """What the probes have said about a node."""

    fault: Fault | None
    since: float  #: the same answer since then
    first: dict  #: fault → its first sight in this illness
    at: float
    polls: int  #: since the healer started
    decided: bool  #: a fault that was seen for as long as asked
    answers: bool = False  #: an open connection is served all the same
    dialled_at: float | None = None  #: last fresh dial that was well
    refused_at: float | None = None  #: since when it refuses
    silent: bool = False  #: the last fresh dial has heard nothing of it


class Identity(NamedTuple):
    """Whose server answers at a node's address, as far as that was told."""

    own: str | None = None  #: its server's id: the first that nobody else had
    answers_as: str | None = None
    title: str | None = None
    addresses: frozenset[str] = frozenset()
    proxy: bool = False
    at: float = 0.0  #: its last answer
    silent_at: float | None = (
        None  #: since when no dial finds an answer, whatever starts of the healer
    )
    disputed_at: float | None = None  #: when something new last put it in doubt
    taken: float = -1.0  #: when a person took it as it was


class Word(NamedTuple):
    """What the other nodes say of a node's server."""

    at: float  #: when they were asked
    by: str  #: one that is connected to it; empty: none is


class Song(NamedTuple):
    """What has come of a node's canaries."""

    waits_since: float | None = None  #: since when none was answered; None: the last one was
    anew_since: float = 0.0  #: since when others have to speak against this node
    answered_at: float = -1.0  #: the last good one
    cluster: str = ""


class Work(NamedTuple):
    """A job of somebody else on a node's minion, as far as that was told."""

    jid: str
    began_at: float
    ended_at: float | None = None
    ours: bool = False  #: its JID is one that the healer itself has given
    dump: bool = False  #: a backup by RethinkDB's own means, of which no minion knows

    def counts(self, policy: Policy, now: float) -> bool:
        """It runs or has just ended, and has not been waited for long enough."""
        grace_s = 0.0 if self.dump else policy.foreign_grace_s
        grace = self.ended_at is None or now < self.ended_at + grace_s
        return grace and now < self.began_at + policy.foreign_most_s


class Truth(NamedTuple):
    """What a world knows of a node."""

    serves: bool  #: its own server serves applications, whatever the master sees
    since: float  #: and has done so, or not, since then
    runs: frozenset[str]  #: attempts whose jobs run on its minion
    leads: str  #: whose server its address leads to


class Flight(NamedTuple):
    """An attempt without its end."""

    attempt: Attempt
    fired_at: float
    firings: int


class TestRun(NamedTuple):
    """A highstate that was tested on a node."""

    id: str
    asked_at: float
    over: bool = False
    verdict: Verdict | None = None  #: as the minion has told


class Seen(NamedTuple):
    """One transition."""

    before: State
    event: Event | None
    after: State
    effects: tuple[Effect, ...]
    now: float
    truth: Mapping[str, Truth] | None = None


class Book:
    """What the monitors remember, from events and effects alone."""

    def __init__(self, policies: dict[str, Policy], limits: Limits, now: float) -> None:
        self.policies, self.limits = policies, limits
        self.started_at = now
        self.sighted: dict[str, Sighting] = {}  # by node: no two clusters share one
        self.servers: dict[tuple[str, str], str] = {}
        self.known: dict[str, Identity] = {}  # by node
        self.words: dict[str, Word] = {}  # by node
        #: By cluster: what was told of its minions last, and when.
        self.minions: dict[str, tuple[float, Mapping[str, Presence]]] = {}
        self.songs: dict[str, Song] = {}  # by node
        self.met: dict[str, tuple[float, Met]] = {}  # by cluster
        self.forbidden: frozenset[str] = frozenset()  #: clusters whose system tables are hidden
        self.start_times: dict[str, float] = {}  # by server id
        #: By attempt and node: the start time of the node's server when it was decided.
        self.started_then: dict[tuple[str, str], float | None] = {}
        self.fired_at: dict[str, float] = {}  #: by attempt: its last firing
        self.restarts: set[str] = set()  #: attempts that only end or start the service
        #: Attempt, node: it runs there no more, says a look; or it does.
        self.sure: frozenset[tuple[str, str]] = frozenset()
        self.runs_on: frozenset[tuple[str, str]] = frozenset()
        self.claims: frozenset[tuple[str, int]] = frozenset()
        self.began: frozenset[tuple[str, str]] = frozenset()  #: attempt, node: it has run there
        self.views: dict[str, tuple[float, Viewed]] = {}
        self.ours_at = -OURS_S
        self.flying: dict[str, Flight] = {}
        self.fired: frozenset[str] = frozenset()  #: ids, ever
        self.paid: dict[str, tuple[float, ...]] = {}  #: by node
        self.all_paid: tuple[tuple[float, str], ...] = ()  #: (when, attempt), all clusters
        self.rests: dict[str, tuple[float, str]] = {}  #: by node: until when, after which incident
        self.ended_at: dict[str, tuple[float, tuple[str, ...]]] = {}  #: by incident: last attempt
        self.verifying: dict[str, tuple[str, ...]] = {}  #: by incident: nodes that were acted on
        self.barred: dict[str, float] = {}  #: by node: after a lost ledger
        self.paused: dict[str, float] = {}
        self.acks: dict[str, tuple[float, ...]] = {}  #: by node
        #: By incident: which step, on which nodes, when.
        self.approved: dict[str, tuple[int, tuple[str, ...], float]] = {}
        self.remediating: dict[str, float] = {}  #: by incident: since when, healer's starts aside
        self.begun_at = now  #: when the settings were taken
        self.left_out: frozenset[str] = (
            frozenset()
        )  #: nodes that the settings did not name for a while
        #: By node and action: until when it rests after somebody's word has kept it from running.
        self.hindered: dict[tuple[str, Action], float] = {}
        #: By incident: its step, and until when it waits after a busy minion or a lost attempt.
        self.not_before: dict[str, tuple[int, float]] = {}
        self.works: dict[str, tuple[Work, ...]] = {}  # by node
        self.own_jids: frozenset[str] = frozenset()  #: ever
        self.held_by_others: dict[str, float] = {}  #: by incident: when that was said first
        #: By node: turns for the better that nobody made, and for the worse after those; in this life of the healer.
        self.turns: dict[str, tuple[float, ...]] = {}
        self.asking: dict[str, Flight] = {}  #: questions to minions that are in flight
        self.asked_over: dict[str, float] = {}  #: by node: when its last question ended
        self.stuck: dict[str, str] = (
            {}
        )  #: by node: the incident in which nothing could end its process
        self.unseen: dict[str, float] = {}  #: by node: when `selfheal.witness` failed last
        self.tests: dict[str, TestRun] = {}  #: by node: its last test run
        self.testified: dict[str, tuple[float, Testimony]] = {}  #: by node: when it was asked
        #: By cluster: its observers, as they were told last. By node: when it was last asked for, and each one's last
        #: word, with the time when it was asked.
        self.watchers: dict[str, tuple[str, ...]] = {}
        self.probed: dict[str, float] = {}
        self.spied: dict[str, dict[str, tuple[float, bool | None]]] = {}
        self.well_at: dict[str, float] = {}  #: by node: when it was last seen well
        self.late: tuple[tuple[float, float], ...] = ()  #: rounds that began late, and how much
        #: By node: when its minion was first heard to say that a process starts, since it was well or acted on.
        self.starting_at: dict[str, float] = {}

    def copy(self) -> Book:
        """A book of its own: containers are copied, what they hold is immutable."""
        other = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict) and name != "policies":
                setattr(other, name, dict(value))
        return other

    def hear(self, event: Event | None, now: float, before: State) -> None:
        """Facts, before anything is judged."""
        if isinstance(event, Observed):
            self._sight(event, now, before)
        elif isinstance(event, Viewed):
            name = event.view.cluster
            if event.view.status is ViewStatus.KNOWN:
                self.views[name] = (now, event)
                self._clock(event.view.started)
            if event.view.status is ViewStatus.FORBIDDEN:
                self.forbidden |= {name}
            else:
                self.forbidden -= {name}
        elif isinstance(event, Met):
            self._meet(event, now)
        elif isinstance(event, Returned) and event.attempt in self.asking:
            asked = self.asking[event.attempt]
            if asked.attempt.action is Action.PROBE:
                self._spy(asked, event)
                return
            (node,) = asked.attempt.nodes
            if asked.attempt.action is Action.TEST_HIGHSTATE:
                test = self.tests.get(node)
                if test and test.id == event.attempt and event.node == node and not test.verdict:
                    self.tests[node] = test._replace(verdict=event.told and event.told.verdict)
                return
            told = event.told
            had_at, _ = self.testified.get(node, (0.0, None))
            if told is not None and event.node == node:
                self._names_jobs(node, told, asked.fired_at, now)
            if told is not None and event.node == node and had_at < asked.fired_at:
                self.testified[node] = (asked.fired_at, self._compared(node, told, before))
                if _unheard(told):
                    self.starting_at.setdefault(node, now)
        elif isinstance(event, Watchers):
            self.watchers[event.cluster] = event.minions
        elif isinstance(event, Present):
            self.minions[event.cluster] = (now, event.minions)
        elif isinstance(event, Foreign):
            self._work(event, now)
        elif isinstance(event, Backups):
            self._dumps(event, now, before)
        elif isinstance(event, Canary):
            self._sing(event, now, before)
        elif isinstance(event, Returned):
            flight = self.flying.get(event.attempt)
            look = flight.attempt if flight else None
            if look is not None and look.of:
                mine = frozenset({(look.of, event.node)})
                done = event.outcome is Outcome.DONE
                self.sure = self.sure | mine if done else self.sure - mine
                self.runs_on = self.runs_on - mine if done else self.runs_on | mine
        elif isinstance(event, Started):
            self.start(now)

    def _work(self, told: Foreign, now: float) -> None:
        """A job begins on nodes, or ends there. One that has ended does not begin again."""
        policy = self.policies.get(told.cluster)
        if policy is None or not policy.foreign_most_s:
            return
        for node in set(told.nodes) & set(policy.nodes):
            known = {work.jid: work for work in self.works.get(node, ())}
            if told.ended and told.jid in known and known[told.jid].ended_at is None:
                known[told.jid] = known[told.jid]._replace(ended_at=now)
            elif not told.ended and told.jid not in known:
                known[told.jid] = Work(told.jid, now, ours=told.jid in self.own_jids)
            self._remember(node, known, policy, now)

    def _dumps(self, told: Backups, now: float, before: State) -> None:
        """All the backups that run in a cluster."""
        policy = self.policies.get(told.cluster)
        if policy is None or not policy.foreign_most_s:
            return
        runs = {one.id for one in told.running}
        for node in policy.nodes:
            known = {work.jid: work for work in self.works.get(node, ())}
            for jid, work in known.items():
                if work.dump and jid in runs:
                    known[jid] = work._replace(ended_at=None)
                elif work.dump and work.ended_at is None:
                    known[jid] = work._replace(ended_at=now)
            its = before.clusters[told.cluster].nodes[node]
            for one in told.running:
                # By which name a node's server is known the core says: the rules about names are others.
                if its.server_name in one.servers and not its.doubt:
                    known.setdefault(one.id, Work(one.id, now, dump=True))
            self._remember(node, known, policy, now)

    def _names_jobs(self, node: str, told: Testimony, asked_at: float, now: float) -> None:
        """A minion says what it runs: what it leaves out has ended, if it can know of it; what it names goes on."""
        policy = self.policies.get(self._home(node) or "")
        if policy is None or not policy.foreign_most_s:
            return
        known = {work.jid: work for work in self.works.get(node, ())}
        names = [job.jid for job in told.jobs]
        for jid, work in known.items():
            if work.dump:
                continue
            sure = asked_at - (work.ended_at or work.began_at) >= SURE_S
            if sure and jid in names:
                known[jid] = work._replace(ended_at=None)
            elif sure and told.all_jobs and work.ended_at is None:
                known[jid] = work._replace(ended_at=now)
        for jid in names:
            known.setdefault(jid, Work(jid, now, ours=jid in self.own_jids))
        self._remember(node, known, policy, now)

    def _remember(self, node: str, known: Mapping[str, Work], policy: Policy, now: float) -> None:
        works = list(known.values())
        while sum(not work.ours for work in works) > WORKS:
            theirs = [work for work in works if not work.ours]
            works.remove(next((w for w in theirs if not w.counts(policy, now)), theirs[0]))
        self.works[node] = tuple(works)

    def start(self, now: float) -> None:
        self.started_at = now
        self.sighted = {n: s._replace(polls=0) for n, s in self.sighted.items()}
        self.views.clear()
        self.words.clear()
        self.met.clear()
        self.minions.clear()
        self.turns.clear()
        self.testified.clear()
        self.asked_over.clear()
        self.spied.clear()
        self.probed.clear()
        self.ours_at = now - OURS_S
        self.remediating = dict.fromkeys(self.remediating, now)

    def _spy(self, asked: Flight, event: Returned) -> None:
        """An observer's word. It answers a question once; what it says later, when it is asked again, counts instead."""
        attempt = asked.attempt
        if event.node not in attempt.nodes:
            return
        words = self.spied.get(attempt.about, {})
        if words.get(event.node, (-1.0, None))[0] < attempt.decided_at:
            down = event.told.down if isinstance(event.told, Spied) else None
            self.spied[attempt.about] = {**words, event.node: (attempt.decided_at, down)}

    def strain(self, policy: Policy, now: float) -> float:
        """So many times longer a fault must last, because rounds of the healer's own began late."""
        return max((by for at, by in self.late if now - at < STRAIN_S), default=1.0)

    def testimony(self, node: str, before: State) -> tuple[float, Testimony] | None:
        """What its minion has said since it is ill and since it was acted on last, and when it was asked."""
        told = self.testified.get(node)
        return told if told is not None and told[0] >= self.begun(node, before) else None

    def _compared(self, node: str, told: Testimony, before: State) -> Testimony:
        """The same, and whether the service manager has started it again since the word before about this illness."""
        old = self.testimony(node, before)
        known = old is not None and old[1].restarts is not None and told.restarts is not None
        return replace(told, loops=bool(known and told.restarts > old[1].restarts))

    def reached(self, node: str, before: State, now: float) -> bool:
        """Its own minion hears its server, and the healer hears nothing at all of it."""
        told, sighting = self.testimony(node, before), self.sighted.get(node)
        fresh = told is not None and told[1].greets and now - told[0] <= STARTING_AGE_S
        return bool(fresh and sighting and sighting.silent)

    def begun(self, node: str, before: State) -> float:
        """Since when it is ill, or was acted on last."""
        sighting = self.sighted.get(node)
        since = 0.0
        if sighting is not None and sighting.polls:
            since = sighting.since if sighting.refused_at is None else sighting.refused_at
        cluster = before.clusters.get(self._home(node) or "")
        return (
            max(since, cluster.nodes[node].acted_at) if cluster and node in cluster.nodes else since
        )

    def starting(self, node: str, policy: Policy, before: State, now: float) -> bool:
        """By its minion's word a process runs there and has had no time yet to listen."""
        told = self.testimony(node, before)
        if told is None or not _unheard(told[1]) or told[1].stopped or told[1].loops:
            return False
        asked_at, said = told
        old = said.age_s is not None and said.age_s + now - asked_at >= policy.starting_s
        long = now - self.starting_at.get(node, now) >= policy.starting_s
        return not old and not long and now - asked_at <= STARTING_AGE_S

    def flight(self, id: str) -> Flight | None:
        return self.flying.get(id) or self.asking.get(id)

    def _sight(self, event: Observed, now: float, before: State) -> None:
        seen = event.observation
        policy = self.policies.get(seen.cluster)
        if policy is None or seen.node not in policy.nodes:
            return
        if seen.ours:
            self.ours_at = now
            return
        if seen.server_name:
            self.servers[seen.cluster, seen.server_name] = seen.node
        self._identify(seen, now)
        if seen.late_s:
            by = min(4.0, 1 + seen.late_s / policy.poll_s)
            if by >= 1.1:
                self.late = (*self.late[-99:], (now, by))
        old = self.sighted.get(seen.node)
        # What was seen before a start of the healer counts no longer.
        known = old is not None and old.polls > 0
        well = seen.fault is None and not seen.dialled
        if known and well and old.fault not in (None, Fault.SLOW):
            # Only a dial ends what a dial has found.
            self.sighted[seen.node] = old._replace(at=now, polls=old.polls + 1)
            return
        if seen.fault is None:
            self.well_at[seen.node] = now
            self.stuck.pop(seen.node, None)
        refused_at = None
        if seen.fault is Fault.DEAD:
            refused_at = old.refused_at if known and old.refused_at is not None else now
        fault = seen.fault
        if refused_at is not None and (seen.answers or self._vouched(seen.node, refused_at)):
            fault = Fault.CUT_OFF
        if seen.fault is None:
            self.starting_at.pop(seen.node, None)
        told = self.testified.get(seen.node) if known and refused_at is not None else None
        if told is not None and told[0] < refused_at:
            told = None
        if told is not None and self.starting(seen.node, policy, before, now):
            fault = Fault.STARTING
        since = old.since if known and old.fault is fault else now
        first = {}
        if fault is not None:
            first = {fault: now, **(old.first if known else {})}
        if fault is Fault.CUT_OFF:  # a death after that has to last by itself
            first.pop(Fault.DEAD, None)
        longest_s = max(policy.confirm_s.values(), default=0.0)
        confirm_s = policy.confirm_s.get(fault, 0.0) if fault else 0.0
        if fault is Fault.DEAD and told is not None and told[1].process is Process.GONE:
            confirm_s = min(confirm_s, policy.dead_witnessed_s)
        slow = self.strain(policy, now)
        confirm_s, longest_s = confirm_s * slow, longest_s * slow
        decided = fault is not None and (
            now - since >= confirm_s or now - first[fault] >= longest_s
        )
        polls = old.polls + 1 if old else 1
        # While another's server may answer there, its turns are not this node's.
        turned = known and (old.fault is None) is not (seen.fault is None)
        if turned and not self._doubtful(seen.node) and not any(self.disputes(seen.node)):
            self._turned(seen.node, old, seen.fault is None, now)
        dialled_at = old.dialled_at if old else None
        if seen.fault is None and seen.dialled:
            dialled_at = now
        self.sighted[seen.node] = Sighting(
            fault, since, first, now, polls, decided, seen.answers, dialled_at, refused_at,
            seen.silent if seen.dialled or not old else old.silent,
        )  # fmt: skip

    def _sing(self, told: Canary, now: float, before: State) -> None:
        """A canary that cannot be asked is an answer, and speaks for nobody.

        Right after a node is there again its tables may still be opening: then silence is no news.
        """
        nodes = self.policies[told.cluster].nodes if told.cluster in self.policies else ()
        if told.node not in nodes:
            return
        all_waited = self._all_wait(nodes)
        old = self.songs.get(told.node, Song())._replace(cluster=told.cluster)
        if told.end is CanaryEnd.UNANSWERED:
            cluster = before.clusters.get(told.cluster)
            node = cluster.nodes.get(told.node) if cluster else None
            there_since = max(node.since or now, node.restarted_at or 0.0) if node else now
            opens = now - there_since < self.policies[told.cluster].settle_s
            if old.waits_since is None and not opens:
                old = old._replace(waits_since=now, anew_since=now)
        else:
            good = now if told.end is CanaryEnd.ANSWERED else old.answered_at
            old = Song(answered_at=good, cluster=told.cluster)
        self.songs[told.node] = old
        if all_waited and not self._all_wait(nodes):
            for node in nodes:
                if node in self.songs:
                    self.songs[node] = self.songs[node]._replace(anew_since=now)

    def _all_wait(self, nodes: Iterable[str]) -> bool:
        there = [n for n in nodes if self.greets(n)]
        return bool(there) and all(self.songs.get(n, Song()).waits_since is not None for n in there)

    def greets(self, node: str) -> bool:
        """Its last probe was answered."""
        sighting = self.sighted.get(node)
        return bool(sighting and sighting.polls and sighting.fault in (None, Fault.SLOW))

    def _identify(self, seen: Observation, now: float) -> None:
        old = self.known.get(seen.node, Identity())
        new = old._replace(addresses=frozenset(seen.addresses) or old.addresses)
        # An open connection tells where the address led once, the dial where it leads.
        told = seen.dialled or old.silent_at is None
        if seen.server_id is not None and told:
            new = new._replace(answers_as=seen.server_id, proxy=seen.proxy, at=now, silent_at=None)
        elif seen.fault is not None and old.silent_at is None:
            new = new._replace(silent_at=now)
        if told and (seen.server_name is not None or seen.proxy):
            new = new._replace(title=seen.server_name)
        self.known[seen.node] = new
        if new._replace(at=old.at) == old and seen.server_id in (None, new.own):
            return
        if seen.server_id is not None and not self._others(seen.node, seen.server_id):
            self.known[seen.node] = new._replace(own=seen.server_id)
        for node in [n for n in self.known if any(self.disputes(n))]:
            self.known[node] = self.known[node]._replace(disputed_at=now)

    def _others(self, node: str, server: str) -> list[str]:
        """Nodes that have this server, or answer as it."""
        named = (n for n in self.known if n != node and self._home(n))
        return [n for n in named if server in (self.known[n].own, self.known[n].answers_as)]

    def disputes(self, node: str) -> Iterator[str]:
        """Why it is in doubt whose server answers at a node's address."""
        mine = self.known.get(node)
        if mine is None:
            return
        here = self._home(node)
        for other, its in self.known.items():
            there = self._home(other)
            if other == node or here is None or there is None:
                continue
            if mine.at <= mine.taken and its.at <= its.taken:
                continue  # until one of them answers again
            if mine.addresses & its.addresses:
                yield f"{node} and {other} lead to one address"
            elif mine.answers_as is not None and mine.answers_as == its.own:
                yield f"{node} answers as {other}"
            elif its.answers_as is not None and its.answers_as in (mine.own, mine.answers_as):
                if mine.answers_as != mine.own or not self.outlived(node, other):
                    yield f"{other} answers as {node}"
            elif here == there and mine.title is not None and mine.title == its.title:
                yield f"{node} and {other} have one name"
        _, met = self.met.get(here or "", (0.0, None))
        if met is not None and [*met.names.values()].count(mine.title or "") > 1:
            yield f"{node} has the name of another server"

    def _doubtful(self, node: str) -> bool:
        """Disputed, and no dial has found it well since then: one that is ill of something else stays in doubt."""
        its, sighting = self.known.get(node, Identity()), self.sighted.get(node)
        dialled_at = (sighting.dialled_at if sighting else None) or 0.0
        return its.disputed_at is not None and max(dialled_at, its.taken) <= its.disputed_at

    def outlived(self, node: str, other: str) -> bool:
        """A node has answered as itself when the other one, which had done so in its name, did not answer any more."""
        its = self.known[other]
        return its.silent_at is not None and self.known[node].at >= its.silent_at > its.at

    def settle(self, policies: Mapping[str, Policy]) -> None:
        """The settings from now on. Of a node that they do not name nothing is known when it comes back."""
        named = {n for p in policies.values() for n in p.nodes}
        self.left_out |= {n for p in self.policies.values() for n in p.nodes} - named
        self.policies = dict(policies)
        self.known = {n: its for n, its in self.known.items() if n in named}
        self.works = {n: works for n, works in self.works.items() if n in named}
        self.servers = {server: n for server, n in self.servers.items() if n in named}

    def twins(self, cluster: str) -> bool:
        """Two servers of it have one name."""
        _, met = self.met.get(cluster, (0.0, None))
        names = [*met.names.values()] if met is not None else []
        return len(set(names)) < len(names)

    def _home(self, node: str) -> str | None:
        return next((p.name for p in self.policies.values() if node in p.nodes), None)

    def _meet(self, met: Met, now: float) -> None:
        """Who is connected to whom. A node that speaks for itself says nothing of itself."""
        asked_at = now - met.took_s
        self.forbidden -= {met.cluster}
        self.met[met.cluster] = (asked_at, met)
        self._clock(met.started)
        policy = self.policies.get(met.cluster)
        for node in policy.nodes if policy else ():
            its = self.known.get(node)
            if its is None or its.own is None or its.proxy:
                continue  # nobody could name it
            others = [n for n in met.connected if n != node and not self._doubtful(n)]
            if others:
                by = next((n for n in others if its.own in met.connected[n]), "")
                self.words[node] = Word(asked_at, by)
                sighting = self.sighted.get(node)
                refused_at = sighting.refused_at if sighting else None
                if sighting and refused_at is not None and self._vouched(node, refused_at):
                    self.sighted[node] = _contradicted(sighting, now)

    def _clock(self, started: Mapping[str, float]) -> None:
        self.start_times = {**self.start_times, **started}

    def word(self, node: str) -> Word | None:
        """What the others have said of a node since it refuses."""
        sighting = self.sighted.get(node)
        if sighting is None or sighting.refused_at is None:
            return None
        word = self.words.get(node)
        return word if word is not None and word.at >= sighting.refused_at else None

    def _vouched(self, node: str, refused_at: float) -> bool:
        word = self.words.get(node)
        # In the first moment the others may not have noticed: nothing is done then, and nothing is called cut off.
        return word is not None and word.at >= refused_at + NOTICED_S and bool(word.by)

    def answering(self, cluster: str, but: str) -> list[str]:
        """Other nodes of a cluster that answer the master, one way or the other."""
        nodes = self.policies[cluster].nodes if cluster in self.policies else ()
        told = ((n, self.sighted.get(n)) for n in nodes if n != but)
        return [n for n, s in told if s and s.polls and (s.fault in LIVE or s.answers)]

    def asked(self, cluster: str, but: str) -> list[str]:
        """Of those the ones who can be asked whom they are connected to."""
        there = ((n, self.sighted[n]) for n in self.answering(cluster, but))
        can = [n for n, s in there if s.fault in (None, Fault.SLOW) or s.answers]
        return [n for n in can if not any(self.disputes(n))]

    def _turned(self, node: str, old: Sighting, better: bool, now: float) -> None:
        ours = any(node in f.attempt.nodes for f in self.flying.values())
        verified = any(node in nodes for nodes in self.verifying.values())
        policy = self.policies.get(self._home(node) or "")
        if policy and any(work.counts(policy, now) for work in self.works.get(node, ())):
            return  # somebody has made it
        turns = self.turns.get(node, ())
        if ours or verified or not (better or (turns and turns[-1] == old.since)):
            return
        self.turns[node] = (*turns, now)[-16:]

    def keep(self, effect: Effect, seen: Seen) -> None:
        """What has been done, after it was judged."""
        now = seen.now
        if isinstance(effect, Fire):
            attempt = effect.attempt
            self.own_jids |= {attempt.jid}
            if attempt.action in QUESTIONS:
                if attempt.action is Action.PROBE:
                    self.probed[attempt.about] = now
                self.asking[attempt.id] = Flight(attempt, now, attempt.firings)
                self.fired |= {attempt.id}
                if attempt.action is Action.TEST_HIGHSTATE:
                    self.tests[attempt.nodes[0]] = TestRun(attempt.id, now)
                return
            for node in attempt.nodes:
                self.starting_at.pop(node, None)
            self.flying[attempt.id] = Flight(attempt, now, attempt.firings)
            self.fired_at[attempt.id] = now
            if attempt.action in (Action.RESTART, Action.START):
                self.restarts.add(attempt.id)
            if attempt.firings == 1:
                self.fired |= {attempt.id}
                if attempt.action is not Action.LOOK:
                    for node in attempt.nodes:
                        its = self.known.get(node, Identity())
                        then = self.start_times.get(its.own or "")
                        self.started_then[attempt.id, node] = then
                        self.paid[node] = (*self.paid.get(node, ()), now)
                    self.all_paid = (*self.all_paid, (now, attempt.id))
        elif isinstance(effect, Finish):
            self._ended(effect, seen)
        elif isinstance(effect, Announce):
            self.verifying.pop(effect.incident.id, None)
            if effect.incident.phase is Phase.ACKNOWLEDGED:
                mine = [n for n, id in self.stuck.items() if id == effect.incident.id]
                for node in mine:
                    del self.stuck[node]
            if effect.held and "foreign" in effect.incident.held:
                self.held_by_others.setdefault(effect.incident.id, now)
            if effect.incident.phase is Phase.VERIFYING:
                self.verifying[effect.incident.id] = effect.incident.turn.acting
        elif isinstance(effect, Tell) and effect.what in ("flapping", "steady"):
            self.turns.pop(
                effect.node, None
            )  # told once: the code's own belief holds until it says otherwise
        elif isinstance(effect, Answer) and isinstance(seen.event, Commanded):
            self._ordered(effect, seen)

    def _ended(self, effect: Finish, seen: Seen) -> None:
        attempt, now = effect.attempt, seen.now
        if self.asking.pop(attempt.id, None) is not None:
            for node in attempt.nodes:
                if attempt.action in SEEN:
                    self.asked_over[node] = now
                    failed = attempt.action is Action.WITNESS and effect.outcome is Outcome.FAILED
                    if failed:
                        self.unseen[node] = now
                elif node in self.tests and self.tests[node].id == attempt.id:
                    self.tests[node] = self.tests[node]._replace(over=True)
            return
        flight = self.flying.pop(attempt.id, None)
        if flight is None or attempt.action is Action.LOOK:
            return
        decided_at = flight.attempt.decided_at
        # What a change of the settings has ended says nothing of the reactor.
        pauses = {Outcome.BUSY: BUSY_S, Outcome.LOST: LOST_S}
        for node, (outcome, _) in attempt.results.items():
            if outcome is Outcome.FORBIDDEN and node in flight.attempt.nodes:
                self.hindered[node, attempt.action] = now + FORBIDDEN_S
        pause_s = pauses.get(effect.outcome)
        if pause_s is not None and seen.event is not None:
            still = _incident(seen.after, attempt)
            if still is not None and still.phase is Phase.OPEN and still.step == attempt.step:
                self.not_before[attempt.incident] = (attempt.step, now + pause_s)
        for node, (outcome, _) in attempt.results.items():
            if outcome is Outcome.STUCK and node in flight.attempt.nodes:
                self.stuck[node] = attempt.incident
        worked = set(flight.attempt.nodes)
        if effect.outcome in (Outcome.LOST, *IDLE):
            worked = set()
        elif effect.outcome is Outcome.DONE or any(
            o not in IDLE for o, _ in attempt.results.values()
        ):
            worked -= {n for n, (o, _) in attempt.results.items() if o in IDLE}
        for node in set(flight.attempt.nodes) - worked:
            self.paid[node] = tuple(t for t in self.paid.get(node, ()) if t != decided_at)
        if not worked:
            self.all_paid = tuple(p for p in self.all_paid if p[1] != attempt.id)
        else:
            # A change of the settings may have parted it: a node that they name again has its part elsewhere.
            own = worked & set(attempt.nodes)
            self.ended_at[attempt.incident] = (now, tuple(sorted(own)))
        incident = _incident(seen.before, attempt)
        policy = self.policies.get(attempt.cluster)
        if policy is None or incident is None:
            return
        doubled = policy.cooldown_min_s * 2.0 ** min(incident.relapses, 40)
        until = now + min(policy.cooldown_max_s, doubled)
        for node in worked:
            self.rests[node] = (until, attempt.incident)

    def _ordered(self, effect: Answer, seen: Seen) -> None:
        command, now = seen.event.command, seen.now
        if effect.reply is Reply.REFUSED:
            return
        where = [command.cluster] if command.cluster else list(self.policies)
        if command.verb is Verb.PAUSE:
            for name in where:
                # A shorter one does not cut a longer one off.
                self.paused[name] = max(self.paused.get(name, 0.0), now + command.for_s)
        elif command.verb is Verb.RESUME:
            for name in where:
                self.paused.pop(name, None)
        elif command.verb in (Verb.ACK, Verb.APPROVE):
            for cluster in seen.before.clusters.values():
                for incident in cluster.incidents:
                    if incident.id != command.incident:
                        continue
                    if command.verb is Verb.APPROVE:
                        self.approved[incident.id] = (incident.step, incident.nodes, now)
                        continue
                    for node in incident.nodes:
                        self.acks[node] = (*self.acks.get(node, ()), now)
                        if incident.fault is Fault.MISTAKEN and node in self.known:
                            its = self.known[node]  # a person takes it as it answers now
                            self.known[node] = its._replace(own=its.answers_as, taken=now)
                            if node in self.sighted:  # what it shows begins anew
                                self.sighted[node] = self.sighted[node]._replace(first={})
                    if incident.fault is Fault.MISTAKEN:
                        self._tell_apart(incident.nodes)

    def _tell_apart(self, nodes: Iterable[str]) -> None:
        """An id or a name that two nodes would have after a person's word is not that of the one that is silent."""
        its = {n: self.known[n] for n in nodes if n in self.known}
        for node, one in its.items():
            others = [n for n, its in self.known.items() if n != node and its.own == one.own]
            if one.silent_at is not None and one.own is not None and others:
                self.known[node] = one._replace(own=None, answers_as=None, title=None)
            elif one.silent_at is not None and any(
                n != node and other.title == one.title and self._home(n) == self._home(node)
                for n, other in self.known.items()
            ):
                self.known[node] = one._replace(title=None)

    def forget(self, now: float) -> None:
        """The ledger was lost: nodes rest at their maximum and have no budget."""
        for policy in self.policies.values():
            spent_s = policy.budget_per_s if policy.budget_attempts else 0.0
            for node in policy.nodes:
                self.barred[node] = now + max(policy.cooldown_max_s, spent_s)
        lost = (
            self.flying,
            self.asking,
            self.approved,
            self.paused,
            self.remediating,
            self.ended_at,
            self.tests,
        )
        lost = (*lost, self.works, self.held_by_others)
        for book in (*lost, self.not_before, self.verifying):
            book.clear()
        self.fired = self.claims = self.began = self.runs_on = frozenset()
        self.known.clear()


def _unheard(told: Testimony) -> bool:
    """The process runs, and nobody listens."""
    return told.process is Process.RUNS and told.listens is False


def _incident(state: State, attempt: Attempt):
    cluster = state.clusters.get(attempt.cluster)
    return (
        next((i for i in cluster.incidents if i.id == attempt.incident), None) if cluster else None
    )


# ---------------------------------------------------------------- the rules: what is fired


def i1_one_at_a_time(book: Book, attempt: Attempt, seen: Seen) -> None:
    """One attempt in flight per cluster; several nodes only if none of them serves; a step rolls."""
    flights = [f for f in book.flying.values() if f.attempt.cluster == attempt.cluster]
    mine = book.flying.get(attempt.id)
    if attempt.firings > 1:
        if mine is None:
            raise Broken("I1", seen.now, f"{attempt.id} fired again, and it is not in flight")
        # Nodes that the settings have left out since are not named any more.
        named = tuple(n for n in mine.attempt.nodes if n in attempt.nodes)
        missing = {*mine.attempt.nodes} - {*attempt.nodes} - book.left_out
        if missing or (named, mine.attempt.action) != (attempt.nodes, attempt.action):
            raise Broken("I1", seen.now, f"{attempt.id} fired again as something else")
        if attempt.firings != mine.firings + 1 or attempt.firings > FIRINGS:
            raise Broken("I1", seen.now, f"{attempt.id} fired for the {attempt.firings}th time")
    elif attempt.action is Action.LOOK:
        late = (one.attempt for one in seen.before.clusters[attempt.cluster].late)
        known = (*late, *(f.attempt for f in book.flying.values()))
        if not any(a.id == attempt.of and set(attempt.nodes) <= set(a.nodes) for a in known):
            raise Broken("I1", seen.now, f"{attempt.id} looks for what nobody waits for")
        if any(f.attempt.action is Action.LOOK for f in flights):
            raise Broken("I1", seen.now, f"{attempt.id}: a second look")
    elif flights:
        others = ", ".join(f.attempt.id for f in flights)
        raise Broken("I1", seen.now, f"{attempt.id} fired while {others} is in flight")
    if attempt.action is Action.LOOK:
        return
    if len(attempt.nodes) > 1:
        for node in attempt.nodes:
            sighting = book.sighted.get(node)
            if sighting is None or sighting.fault is not Fault.DEAD:
                what = sighting.fault if sighting else "unknown"
                raise Broken("I1", seen.now, f"{attempt.id} names several, and {node} is {what}")
    ended_at, before = book.ended_at.get(attempt.incident, (None, ()))
    if ended_at is None or attempt.firings > 1:
        return
    for node in before:
        if node not in book.policies[attempt.cluster].nodes:
            continue  # the settings do not name it any more
        sighting = book.sighted.get(node)
        if sighting is None or sighting.at < ended_at:
            raise Broken("I1", seen.now, f"{attempt.id}: nobody looked at {node} since its attempt")


def i1_decided(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Dead nodes are started together: the first attempt waits for those that are still suspected."""
    incident = _incident(seen.after, attempt)
    if attempt.action is Action.LOOK or incident is None or incident.fault is not Fault.DEAD:
        return
    if not attempt.id.endswith(".1") or attempt.firings > 1:
        return
    policy = book.policies[attempt.cluster]
    patience_s = max(policy.confirm_s.values(), default=0.0) + policy.poll_s + policy.timeout_s
    for node in policy.nodes:
        sighting = book.sighted.get(node)
        if sighting is None or sighting.fault is None or sighting.decided or not sighting.polls:
            continue
        doubt = seen.before.clusters[attempt.cluster].nodes[node].doubt
        if doubt or any(book.disputes(node)) or sighting.fault is Fault.STARTING:
            continue  # it is not acted on, or not yet: it would not go together with the others
        if seen.now - incident.opened_at < patience_s - 1e-6:
            raise Broken("I1", seen.now, f"{attempt.id} did not wait for {node}")


def i2_majority(book: Book, attempt: Attempt, seen: Seen) -> None:
    """No shard that serves now loses its majority.

    What needs the node to be acted on is lost already, once it is certain that it does not answer. Another that does
    not answer this master may serve now all the same, and is not counted on afterwards.
    """
    if attempt.action in HARMLESS or all(_harmed_by_nothing(book, n, seen) for n in attempt.nodes):
        return
    if len(attempt.nodes) > 1:
        raise Broken("I2", seen.now, f"{attempt.id}: several nodes that may serve")
    node = attempt.nodes[0]
    if book.known.get(node, Identity()).proxy:
        return  # it holds no replica
    at, viewed = book.views.get(attempt.cluster, (-MAP_AGE_S, None))
    if viewed is None or seen.now - at > MAP_AGE_S:
        return
    for table in viewed.view.tables:
        for number, shard in enumerate(table.shards):
            voting = [r for r in shard.replicas if r.voting]
            ready = {
                book.servers.get((attempt.cluster, r.server), r.server)
                for r in voting
                if r.state == "ready"
            }
            ready = {n for n in ready if n == node or not _harmed_by_nothing(book, n, seen)}
            serves = 2 * len(ready) > len(voting)
            sure = {n for n in ready - {node} if not _silent(book, n)}
            survives = 2 * len(sure) > len(voting)
            lost_already = _silent(book, node) and book.sighted[node].decided
            if serves and not survives and not lost_already:
                where = f"{table.name} shard {number}"
                told = f"{attempt.action.value} on {node}: {where} needs it, ready {sorted(ready)}"
                raise Broken("I2", seen.now, f"{attempt.id} {told}")


def _contradicted(sighting: Sighting, now: float) -> Sighting:
    """Others are connected to a node that refuses the dial: its death has to last anew from now on."""
    first = {fault: at for fault, at in sighting.first.items() if fault is not Fault.DEAD}
    if sighting.fault is not Fault.DEAD:
        return sighting._replace(first=first)
    return sighting._replace(first=first, since=now, decided=False)


def _dead(book: Book, node: str) -> bool:
    """Nobody else is proved not to serve: whom this master cannot reach, applications may."""
    sighting = book.sighted.get(node)
    dead = sighting is not None and sighting.fault is Fault.DEAD and sighting.decided
    return dead and not sighting.answers


def _harmed_by_nothing(book: Book, node: str, seen: Seen) -> bool:
    """It is dead, and its peers agree; or there is none who could say otherwise."""
    if not _dead(book, node):
        return False
    word, cluster = book.word(node), book._home(node)
    if word is not None:
        return not word.by
    return cluster is None or not book.answering(cluster, node)


def i2_one_away(book: Book, attempt: Attempt, seen: Seen) -> None:
    """A step stops where it broke something; with no map nobody is risked while another node is away."""
    incident = _incident(seen.after, attempt)
    if attempt.action in HARMLESS or incident is None:
        return
    if all(_harmed_by_nothing(book, n, seen) for n in attempt.nodes):
        return  # it cannot be harmed
    (node,) = attempt.nodes
    if incident.fault is Fault.HUNG and _silent(book, node):
        return
    word = book.word(node)
    if incident.fault is Fault.DEAD and _dead(book, node) and (word is None or not word.by):
        return  # nobody can say: then it goes alone, whoever else is away
    _, before = book.ended_at.get(attempt.incident, (0.0, ()))
    broken = [n for n in before if n != node and n in incident.turn.tried and _silent(book, n)]
    if broken and attempt.firings == 1:
        raise Broken("I2", seen.now, f"{attempt.id} on {node}, after it broke {broken}")
    at, viewed = book.views.get(attempt.cluster, (-MAP_AGE_S, None))
    if viewed is not None and seen.now - at <= MAP_AGE_S:
        return
    away = [n for n in book.policies[attempt.cluster].nodes if n != node and _silent(book, n)]
    away = [n for n in away if not (incident.forced and n in incident.nodes)]
    away = [n for n in away if n not in incident.nodes or not _shows(book, incident, n)]
    away = [n for n in away if not book.known.get(n, Identity()).proxy]
    if away:
        raise Broken("I2", seen.now, f"{attempt.id} on {node} without a map, and {away} are away")


def _silent(book: Book, node: str) -> bool:
    sighting = book.sighted.get(node)
    return sighting is not None and sighting.fault in SILENT and not sighting.answers


def i2_agreed(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Who refuses the master may serve everybody else: its peers are asked before it counts as dead."""
    incident = _incident(seen.after, attempt)
    if attempt.action in HARMLESS or incident is None or incident.fault is not Fault.DEAD:
        return
    for node in attempt.nodes:
        sighting, word = book.sighted.get(node), book.word(node)
        others = book.answering(attempt.cluster, node)
        if sighting is None or sighting.fault is not Fault.DEAD or sighting.answers:
            raise Broken("I2", seen.now, f"{attempt.id}: {node} is not dead")
        if word is not None and word.by:
            raise Broken("I2", seen.now, f"{attempt.id}: {word.by} is connected to {node}")
        if word is not None or not others:
            continue
        if len(attempt.nodes) > 1:
            told = f"{attempt.id} names several, and of {node} nobody has said anything"
            raise Broken("I2", seen.now, told)
        waited_s = seen.now - sighting.refused_at if sighting.refused_at is not None else 0.0
        asked = attempt.cluster not in book.forbidden and book.asked(attempt.cluster, node)
        its = book.known.get(node, Identity())
        nameable = its.own is not None and not its.proxy
        if waited_s < WORD_S - 1e-6 and asked and nameable:
            told = f"{attempt.id}: {node} refuses for {waited_s:.1f} s, and nobody was asked"
            raise Broken("I2", seen.now, told)


def i2_truth(book: Book, attempt: Attempt, seen: Seen) -> None:
    """No two nodes at once of which one serves, whatever the master sees, as long as another could have told it."""
    if attempt.action in HARMLESS or len(attempt.nodes) < 2 or seen.truth is None:
        return
    asked_at, _ = book.met.get(attempt.cluster, (0.0, None))
    for node in attempt.nodes:
        truth = seen.truth[node]
        its = book.known.get(node, Identity())
        for_long = truth.serves and asked_at > truth.since + 1e-6 and truth.leads == node
        if for_long and book.answering(attempt.cluster, node) and not its.proxy:
            told = f"{attempt.id} names {', '.join(attempt.nodes)}, and {node} serves"
            raise Broken("I2", seen.now, told)


def i2_doubt(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Whose server answers is in doubt: no action on that node, nor a harmful one in its cluster."""
    if attempt.action is Action.LOOK:
        return
    for node in attempt.nodes:
        for why in book.disputes(node):
            raise Broken("I2", seen.now, f"{attempt.id} on {node}: {why}")
        sighting, its = book.sighted.get(node), book.known.get(node, Identity())
        if sighting is not None and sighting.fault is Fault.ALIEN and its.answers_as is None:
            raise Broken("I2", seen.now, f"{attempt.id} on {node}: never seen as a database")
    if attempt.action in HARMLESS or all(_harmed_by_nothing(book, n, seen) for n in attempt.nodes):
        return
    for node in book.policies[attempt.cluster].nodes:
        for why in book.disputes(node):
            raise Broken("I2", seen.now, f"{attempt.id} in a cluster in doubt: {why}")
    if book.twins(attempt.cluster):
        raise Broken("I2", seen.now, f"{attempt.id}: two servers have one name")


def i1_runs(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Nothing is sent to a minion where a job of ours runs, unless something has said that it does not.

    A look has (that may be a lie), or the server's start time, or the minion has said nothing for as long as a job may
    take, or a person has seen to it.
    """
    if attempt.action is Action.LOOK or seen.truth is None:
        return
    timeout_s = book.policies[attempt.cluster].attempt_timeout_s
    for node in attempt.nodes:
        for id in seen.truth[node].runs - {attempt.id}:
            fired_at = book.fired_at.get(id)
            if fired_at is None or (id, node) in book.sure:
                continue
            overdue = seen.now - fired_at >= timeout_s - 1e-6
            if attempt.action is Action.FORCE_RESTART and id in book.restarts and overdue:
                continue  # it ends what that one waits for
            its = book.known.get(node, Identity())
            then = book.started_then.get((id, node))
            again = then is not None and book.start_times.get(its.own or "") != then
            if again or any(at >= fired_at for at in book.acks.get(node, ())):
                continue
            if seen.now - fired_at < timeout_s - 1e-6:
                raise Broken("I1", seen.now, f"{attempt.id}: {id} still runs on {node}")
            if (id, node) in book.runs_on:
                raise Broken("I1", seen.now, f"{attempt.id}: {node} has said that {id} runs there")


def i3_budget(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Attempts in any window never exceed the budget; each ``ack`` may add one."""
    if attempt.firings > 1 or attempt.action is Action.LOOK:
        return
    policy, now = book.policies[attempt.cluster], seen.now
    incident = _incident(seen.after, attempt)
    asked = incident is not None and incident.fault is None and not incident.forced
    for node in attempt.nodes:
        since = now - policy.budget_per_s
        had = sum(1 for t in book.paid.get(node, ()) if t > since)
        more = sum(1 for t in book.acks.get(node, ()) if t > since)
        if policy.budget_attempts and had >= policy.budget_attempts + more:
            raise Broken("I3", now, f"{attempt.id}: {node} had {had} of {policy.budget_attempts}")
        if asked and policy.budget_attempts and had >= policy.budget_attempts // 2 + more:
            raise Broken("I3", now, f"{attempt.id}: a request on {node}, which had {had}")
    since = now - book.limits.per_s
    had = sum(1 for t, _ in book.all_paid if t > since)
    most = book.limits.attempts // 2 if asked else book.limits.attempts
    if book.limits.attempts and had >= most:
        raise Broken("I3", now, f"{attempt.id}: {had} of {book.limits.attempts} over all clusters")


def i4_cooldown(book: Book, attempt: Attempt, seen: Seen) -> None:
    """A node rests after another incident's attempt, from the end of that."""
    if attempt.firings > 1 or attempt.action is Action.LOOK:
        return
    for node in attempt.nodes:
        until, incident = book.rests.get(node, (0.0, ""))
        if incident != attempt.incident and seen.now < until - 1e-6:
            left = f"{node} rests for {until - seen.now:.1f} s more after {incident}"
            raise Broken("I4", seen.now, f"{attempt.id}: {left}")


def i5_permitted(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Not while paused, locked, flapping, warming up, in shadow, unapproved or blind.

    And not against a login or a certificate that no node has taken since the start: the settings may be wrong.
    """
    if attempt.action is Action.LOOK:
        return
    now, cluster = seen.now, seen.after.clusters[attempt.cluster]
    policy, incident = book.policies[attempt.cluster], _incident(seen.after, attempt)

    def broken(why: str) -> Broken:
        return Broken("I5", now, f"{attempt.id} ({attempt.action.value}): {why}")

    if now < book.paused.get(attempt.cluster, 0.0):
        raise broken("paused")
    if now - book.started_at < WARM_UP_S:
        raise broken("warming up")
    for node in attempt.nodes:
        if book.sighted[node].polls < WARM_UP_POLLS if node in book.sighted else True:
            raise broken(f"{node} was hardly seen since the start")
        if cluster.nodes[node].flapping or _flaps(book, policy, node, now):
            raise broken(f"{node} is flapping")
    for node in attempt.nodes:
        if now < book.hindered.get((node, attempt.action), 0.0) - 1e-6 and attempt.firings == 1:
            raise broken(f"somebody has just forbidden it on {node}")
    if incident is not None and incident.fault in (Fault.AUTH, Fault.TLS):
        dialled = [s.dialled_at or 0.0 for s in map(book.sighted.get, policy.nodes) if s]
        if max(dialled, default=0.0) < book.begun_at:
            raise broken("no node has taken the settings since the start")
    requested = incident is not None and incident.fault is None
    still = {i.id for i in cluster.incidents if i.phase is Phase.LOCKED}
    for other in seen.before.clusters[attempt.cluster].incidents:
        if other.phase is not Phase.LOCKED or other.id not in still:
            continue
        if set(other.nodes) & set(attempt.nodes) and (
            requested or other.by_hand or other.fault is not None
        ):
            raise broken(f"{other.id} is locked")
    order = [Mode.OFF, Mode.SHADOW, Mode.APPROVE, Mode.AUTO]
    asked = None
    if incident is not None and attempt.step < len(incident.steps):
        asked = incident.steps[attempt.step].mode
    mode = min(policy.mode, asked or policy.mode, key=order.index)
    if mode in (Mode.OFF, Mode.SHADOW):
        raise broken(f"mode is {mode.value}")
    if mode is Mode.APPROVE:
        step, nodes, at = book.approved.get(attempt.incident, (None, (), 0.0))
        if step != attempt.step or not set(attempt.nodes) <= set(nodes):
            raise broken("nobody approved it")
        # Good for so long, and again after each attempt.
        last = book.ended_at.get(attempt.incident, (at, ()))[0]
        if attempt.firings == 1 and now - max(at, last) > APPROVED_S + policy.stable_s + 300.0:
            raise broken("approved too long ago")
    if now - book.ours_at < OURS_S:
        raise broken("the healer's own side failed")
    if incident is not None and attempt.firings == 1 and attempt.step < len(incident.steps):
        due_at = incident.opened_at + incident.steps[attempt.step].after_s
        step, until = book.not_before.get(attempt.incident, (None, 0.0))
        if now < max(due_at, until if step == attempt.step else 0.0) - 1e-6:
            raise broken("its step is not due")
    ill = [p.name for p in book.policies.values() if any(_ill(book, n) for n in p.nodes)]
    share = book.limits.storm_share
    if share and len(book.policies) >= 3 and len(ill) > share * len(book.policies):
        raise broken(f"a storm: {', '.join(ill)} are ill")
    nodes = [n for p in book.policies.values() for n in p.nodes]
    polled = [book.sighted.get(n) for n in nodes]
    if all(s is not None and s.polls and s.fault is Fault.UNREACHABLE for s in polled):
        raise broken("every node is unreachable")


def i5_foreign(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Not while somebody else works on the node or has just done so, for as long as one job and one incident may wait."""
    incident, now = _incident(seen.after, attempt), seen.now
    policy = book.policies[attempt.cluster]
    if attempt.action in ASKING or incident is None or incident.forced:
        return
    held_at = book.held_by_others.get(attempt.incident)
    if held_at is not None and now - held_at >= policy.foreign_most_s - 1e-6:
        return
    for node in attempt.nodes:
        for work in book.works.get(node, ()):
            if work.dump and incident.fault is Fault.DEAD:
                continue  # it has ended with its server
            if not work.ours and work.counts(policy, now + 1e-6):
                raise Broken("I5", now, f"{attempt.id} on {node}, where {work.jid} is at work")


def i5_stalled(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Against a stall: its canaries have waited for ``confirm``, and another node has answered its own since."""
    incident = _incident(seen.after, attempt)
    if attempt.action in ASKING or incident is None or incident.fault is not Fault.STALLED:
        return
    policy = book.policies[attempt.cluster]
    for node in attempt.nodes:
        since = book.songs.get(node, Song()).waits_since
        if since is None:
            raise Broken("I5", seen.now, f"{attempt.id}: {node} has answered its canary")
        if seen.now - since < policy.confirm_s.get(Fault.STALLED, 0.0) - 1e-6:
            raise Broken("I5", seen.now, f"{attempt.id}: {node} waits for {seen.now - since:.1f} s")
        # The one that answered may have left the settings since.
        songs = ((n, song) for n, song in book.songs.items() if song.cluster == attempt.cluster)
        others = [song.answered_at for n, song in songs if n != node]
        if max(others, default=-1.0) < since:
            raise Broken("I5", seen.now, f"{attempt.id}: no other node has answered its canary")


def _stalls(book: Book, cluster: str, node: str, now: float) -> bool:
    """Its canaries wait, and another one that greets has answered its own, long enough ago to be noticed."""
    policy, song = book.policies[cluster], book.songs.get(node, Song())
    noticed_at = now - policy.poll_s * 1.2 - policy.timeout_s - 1.0
    others = (book.songs.get(n, Song()) for n in policy.nodes if n != node and book.greets(n))
    return song.waits_since is not None and any(
        o.waits_since is None and song.anew_since < o.answered_at <= noticed_at for o in others
    )


def _ill(book: Book, node: str) -> bool:
    sighting = book.sighted.get(node)
    return sighting is not None and sighting.polls > 0 and sighting.fault is not None


def _flaps(book: Book, policy: Policy, node: str, now: float) -> bool:
    """So many recoveries, and faults after them, that nobody made; and not steadily ill since."""
    since = now - policy.flapping_within_s
    turns = [at for at in book.turns.get(node, ()) if at > since]
    if not policy.flapping_changes or len(turns) < policy.flapping_changes:
        return False
    sighting = book.sighted[node]
    confirm_s = policy.confirm_s.get(sighting.fault, 0.0) if sighting.fault else 0.0
    return sighting.fault is None or now - sighting.since < confirm_s + STEADY_S


def i6_once(book: Book, attempt: Attempt, seen: Seen) -> None:
    """An attempt has one beginning, and its incident is there."""
    if attempt.firings == 1 and attempt.id in book.fired:
        raise Broken("I6", seen.now, f"{attempt.id} begins a second time")
    if attempt.action not in ASKING and _incident(seen.after, attempt) is None:
        raise Broken("I6", seen.now, f"{attempt.id} belongs to no incident")


def i7_target(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Exact minions of the cluster, at least one."""
    policy = book.policies.get(attempt.cluster)
    if policy is None:
        raise Broken("I7", seen.now, f"{attempt.id}: no cluster {attempt.cluster}")
    if not attempt.nodes or len(set(attempt.nodes)) < len(attempt.nodes):
        raise Broken("I7", seen.now, f"{attempt.id} names {attempt.nodes}")
    for node in attempt.nodes:
        if node not in policy.nodes or not fnmatchcase(node, policy.minions):
            raise Broken("I7", seen.now, f"{attempt.id} names {node}")


def i7_there(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Nothing that changes something is sent to a minion of which the master has just said that it is gone."""
    told_at, minions = book.minions.get(attempt.cluster, (0.0, {}))
    if attempt.action is Action.LOOK or seen.now - told_at > KNOWN_S:
        return
    for node in attempt.nodes:
        if minions.get(node) in GONE:
            told = f"{attempt.id} for the minion of {node}, which is {minions[node].value}"
            raise Broken("I7", seen.now, told)


def i10_forgotten(book: Book, attempt: Attempt, seen: Seen) -> None:
    """After the ledger was lost, nothing before the longest rest and a full window have passed."""
    for node in attempt.nodes:
        until = book.barred.get(node, 0.0)
        if seen.now < until - 1e-6 and not book.acks.get(node):
            left = f"{until - seen.now:.0f} s too early on {node}"
            raise Broken("I10", seen.now, f"{attempt.id}: the ledger was lost, {left}")


def e_asked(book: Book, attempt: Attempt, seen: Seen) -> None:
    """A minion is asked about a node that shows a fault, once at a time, and not again and again."""
    policy, now, (node,) = book.policies[attempt.cluster], seen.now, attempt.nodes

    def broken(why: str) -> Broken:
        return Broken("E", now, f"{attempt.id}: {why}")

    if not policy.witness_s or policy.mode is Mode.OFF or now < book.paused.get(policy.name, 0.0):
        raise broken("asked although nobody may be")
    asking = (f.attempt for f in book.asking.values() if f.attempt.action in SEEN)
    if any(node in one.nodes for one in asking):
        raise broken(f"{node}'s minion is asked already")
    if any(
        node in f.attempt.nodes for f in book.flying.values() if f.attempt.action not in HARMLESS
    ):
        raise broken(f"a job of ours runs on {node}")
    sighting = book.sighted.get(node)
    stalls = book.greets(node) and book.songs.get(node, Song()).waits_since is not None
    ill = sighting is not None and sighting.polls and sighting.fault in WITNESSED
    if not ill and not stalls:
        raise broken(f"nothing is wrong with {node} that its minion could tell about")
    last = book.asked_over.get(node)
    told = book.testimony(node, seen.before)
    anew = attempt.action is Action.WITNESS
    since = seen.before.clusters[attempt.cluster].nodes[node].since
    if stalls and told is not None and told[0] < (since or 0.0):
        told = None  # the stall was over meanwhile, as where all nodes wait together
    if anew and told is not None and last is not None and now - last < 20.0:
        raise broken(f"{node}'s minion has just told")


def e_instead(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Salt's own functions are asked only where `selfheal.witness` has just failed."""
    (node,) = attempt.nodes
    if book.unseen.get(node) != seen.now:
        raise Broken("E", seen.now, f"{attempt.id}: {node}'s minion has not failed to tell")


def e_heard(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Before a node is acted on its own minion had its say, or its time for that, and nothing it said is ignored."""
    incident, now = _incident(seen.before, attempt) or _incident(seen.after, attempt), seen.now
    policy = book.policies[attempt.cluster]
    if attempt.action in ASKING or incident is None or not policy.witness_s:
        return
    if incident.fault not in WITNESSED:
        return
    for node in attempt.nodes:
        told = book.testimony(node, seen.before)
        begun = book.begun(node, seen.before)
        if told is None:
            asking = (f.attempt for f in book.asking.values() if f.attempt.action in SEEN)
            fired_at = max((one.fired_at for one in asking if node in one.nodes), default=None)
            if fired_at is not None and now - fired_at < policy.witness_s / 2 - 1e-6:
                raise Broken("E", now, f"{attempt.id}: {node}'s minion has just been asked")
            over = book.asked_over.get(node, 0.0) >= begun
            if not over and now - begun < policy.witness_s - 1e-6:
                raise Broken("E", now, f"{attempt.id}: {node}'s minion was not heard")
            continue
        if book.starting(node, policy, seen.before, now):
            raise Broken("E", now, f"{attempt.id}: {node} is starting")
        if book.reached(node, seen.before, now):
            raise Broken("E", now, f"{attempt.id}: {node}'s own machine reaches it")
        ground = told[1].ground
        if ground is None or attempt.action in ADVICE[ground].helps:
            continue
        later = [step.action for step in incident.steps[attempt.step + 1 :]]
        if ADVICE[ground].helps & set(later):
            raise Broken("E", now, f"{attempt.id} cannot help {node}, and a later step can")
        if node in incident.turn.visited:
            raise Broken("E", now, f"{attempt.id}: {node} had its one try: {ground.value}")


def _since(book: Book, attempt: Attempt, node: str, seen: Seen) -> float:
    """From when on a test run is about what is intended now: since the incident opened, and the last act there."""
    incident = _incident(seen.before, attempt) or _incident(seen.after, attempt)
    # An incident that opens in this very step has its new time only afterwards.
    after = _incident(seen.after, attempt)
    opened_at = max((i.opened_at for i in (incident, after) if i is not None), default=0.0)
    cluster = seen.before.clusters.get(attempt.cluster)
    known = cluster is not None and node in cluster.nodes
    return max(opened_at, cluster.nodes[node].acted_at if cluster and known else 0.0)


def e_test_asked(book: Book, attempt: Attempt, seen: Seen) -> None:
    """A highstate is tested where it is the step that is due, where nothing runs, and not again and again."""
    policy, now, (node,) = book.policies[attempt.cluster], seen.now, attempt.nodes

    def broken(why: str) -> Broken:
        return Broken("E", now, f"{attempt.id}: {why}")

    if not policy.test_first_s or now < book.paused.get(policy.name, 0.0):
        raise broken("tested although it must not be")
    incident = _incident(seen.after, attempt) or _incident(seen.before, attempt)
    if incident is None or incident.steps[attempt.step].action is not Action.HIGHSTATE:
        raise broken("no highstate is due")
    if any(f.attempt.cluster == policy.name for f in book.flying.values()):
        raise broken("something of ours is in flight in the cluster")
    last = book.tests.get(node)
    if last is None:
        return
    if not last.over:
        raise broken(f"one is tested on {node} already")
    if last.asked_at >= _since(book, attempt, node, seen) and now - last.asked_at < TESTED_FOR_S:
        raise broken(f"{node} was tested for this already")


def e_tested(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Before a highstate each node was tested, or had its time for that, and it does not do what is done already."""
    policy, now = book.policies[attempt.cluster], seen.now
    if attempt.action is not Action.HIGHSTATE or not policy.test_first_s or attempt.firings > 1:
        return
    for node in attempt.nodes:
        last = book.tests.get(node)
        if last is None or last.asked_at < _since(book, attempt, node, seen) - 1e-6:
            raise Broken("E", now, f"{attempt.id}: no highstate was tested on {node}")
        in_time = now - last.asked_at < policy.test_first_s - 1e-6
        # An answer ends the test in the very step that decides; so does its time.
        if last.verdict is None and not last.over and in_time:
            raise Broken("E", now, f"{attempt.id}: {node}'s test run has not ended")
        if last.verdict is Verdict.NOTHING:
            raise Broken("E", now, f"{attempt.id}: it would change nothing on {node}")


def e_left_out(book: Book, said: Announce, seen: Seen) -> None:
    """A highstate is left out only where each node that waited for it has told that it would change nothing."""
    if said.rule not in ("open.nothing-to-change", "open.asked-for-nothing"):
        return
    cluster = seen.before.clusters.get(said.incident.cluster)
    there = (i for i in cluster.incidents if i.id == said.incident.id) if cluster else ()
    old = next(iter(there), said.incident)

    told = {
        n: book.tests[n].verdict for n in old.nodes if n in book.tests and n not in old.turn.tried
    }
    if said.rule == "open.asked-for-nothing":
        told = {n: book.tests[n].verdict if n in book.tests else None for n in old.nodes}
        odd = [n for n, one in told.items() if one is not Verdict.NOTHING]
    else:
        seen_as = {n: book.sighted[n] for n in told if n in book.sighted}
        ill = [n for n, one in seen_as.items() if one.decided and one.fault is old.fault]
        odd = [n for n in ill if told[n] is not Verdict.NOTHING]
    if odd or Verdict.NOTHING not in told.values():
        raise Broken(
            "E", seen.now, f"{said.incident.id}: a highstate is left out for no reason: {odd}"
        )


def e_probed(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Observers are asked about a node that is ill, and not again and again; they are no nodes, and it costs nothing."""
    policy, now, about = book.policies.get(attempt.cluster), seen.now, attempt.about

    def broken(why: str) -> Broken:
        return Broken("O", now, f"{attempt.id}: {why}")

    if policy is None or about not in policy.nodes:
        raise broken(f"{about} is no node")
    if not policy.observers_quorum or policy.mode not in (Mode.AUTO, Mode.APPROVE):
        raise broken("asked although nobody may be")
    if now < book.paused.get(policy.name, 0.0) or now - book.ours_at < OURS_S:
        raise broken("asked although nothing may be done")
    nodes = {n for p in book.policies.values() for n in p.nodes}
    there = set(book.watchers.get(policy.name, ())) - nodes
    if not attempt.nodes or len(attempt.nodes) > MOST_OBSERVERS or set(attempt.nodes) - there:
        raise broken(f"asked of {attempt.nodes}")
    if any(
        f.attempt.about == about for f in book.asking.values() if f.attempt.action is Action.PROBE
    ):
        raise broken(f"they are asked about {about} already")
    seen_as = book.sighted.get(about)
    if seen_as is None or not seen_as.polls or seen_as.fault not in OBSERVED | {Fault.DEAD}:
        raise broken(f"nothing is wrong with {about} that they could tell about")
    last = book.probed.get(about)
    anew = max(
        book.well_at.get(about, 0.0), seen.before.clusters[policy.name].nodes[about].acted_at
    )
    if last is not None and last >= anew and now - last < PROBED_S - 1e-6:
        raise broken(f"they were asked about {about} {now - last:.0f} s ago")
    acts = not all(e.attempt.action in ASKING for e in seen.effects if isinstance(e, Fire))
    old, new = seen.before.clusters[policy.name], seen.after.clusters[policy.name]
    spent = [n for n in policy.nodes if len(new.nodes[n].spent) > len(old.nodes[n].spent)]
    if not acts and (spent or len(new.acts) > len(old.acts)):
        raise broken("it has cost something")


def o_agreed(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Nothing is done about a node that observers could see before enough of them have said that it is down.

    Since it was last well, after the last attempt on it, and lately; and none of them has said otherwise since.
    """
    incident, policy = _incident(seen.after, attempt), book.policies[attempt.cluster]
    if attempt.action in ASKING or incident is None or not policy.observers_quorum:
        return
    for node in attempt.nodes:
        told = book.testimony(node, seen.before)
        denied = told is not None and told[1].process is Process.RUNS and told[1].listens is True
        always = policy.observers_always or denied
        if incident.fault not in OBSERVED and not (incident.fault is Fault.DEAD and always):
            continue
        acted_at = seen.before.clusters[attempt.cluster].nodes[node].acted_at
        since = max(book.well_at.get(node, 0.0), acted_at, seen.now - OBSERVED_S) - 1e-6
        words = {who: down for who, (at, down) in book.spied.get(node, {}).items() if at >= since}
        if False in words.values():
            raise Broken("O", seen.now, f"{attempt.id}: an observer reaches {node}: {words}")
        agree = [who for who, down in words.items() if down]
        if len(agree) < policy.observers_quorum:
            raise Broken("O", seen.now, f"{attempt.id}: only {agree} say that {node} is down")


def o_lasted(book: Book, attempt: Attempt, seen: Seen) -> None:
    """A fault has lasted for ``confirm``, and longer where the healer itself is slow."""
    incident = _incident(seen.after, attempt)
    if attempt.action in ASKING or incident is None or attempt.firings > 1:
        return
    for node in attempt.nodes:
        seen_as = book.sighted.get(node)
        if seen_as is None or seen_as.fault is None or seen_as.fault is not incident.fault:
            continue
        if seen_as.polls and not seen_as.decided:
            raise Broken(
                "O", seen.now, f"{attempt.id}: {node} has not been {incident.fault.value} for long"
            )


def k_stuck(book: Book, attempt: Attempt, seen: Seen) -> None:
    """Nothing is started beside a process that nothing can end, before a person has seen to it or the node is well."""
    for node in attempt.nodes:
        if attempt.action is not Action.LOOK and node in book.stuck:
            raise Broken("K", seen.now, f"{attempt.id}: {node}'s process survives SIGKILL")


def k_alone(book: Book, attempt: Attempt, seen: Seen) -> None:
    """An order to end a process by force names one node: its port is in it."""
    if attempt.action is Action.FORCE_RESTART and len(attempt.nodes) != 1:
        raise Broken("K", seen.now, f"{attempt.id} names {', '.join(attempt.nodes)}")


FIRED = (
    k_stuck,
    k_alone,
    i7_target,
    i7_there,
    i6_once,
    i1_one_at_a_time,
    i1_decided,
    i2_majority,
    i3_budget,
    i4_cooldown,
    i5_permitted,
    i5_foreign,
    i5_stalled,
    i10_forgotten,
    i2_one_away,
    i2_agreed,
    i2_truth,
    i2_doubt,
    i1_runs,
    e_heard,
    e_tested,
    o_agreed,
    o_lasted,
)


#: By action: what holds when it is fired. For all others, `FIRED` holds.
RULES = {
    Action.WITNESS: (i7_target, i6_once, e_asked),
    Action.SALT_WITNESS: (i7_target, i6_once, e_asked, e_instead),
    Action.TEST_HIGHSTATE: (i7_target, i6_once, e_test_asked),
    Action.PROBE: (i6_once, e_probed),
}


# ---------------------------------------------------------------- the rules: how things end


def i6_one_end(book: Book, finish: Finish, seen: Seen) -> None:
    """An attempt ends once, and only what was fired ends."""
    if book.flight(finish.attempt.id) is None:
        raise Broken("I6", seen.now, f"{finish.attempt.id} ends, and it is not in flight")


def i6_in_flight(book: Book, seen: Seen) -> None:
    """What was fired and has not ended is what the state remembers, and belongs to an incident."""
    held = set()
    for cluster in seen.after.clusters.values():
        for attempt in (cluster.attempt, cluster.look, *cluster.questions):
            if attempt is None:
                continue
            held.add(attempt.id)
            if attempt.action not in ASKING and _incident(seen.after, attempt) is None:
                raise Broken("I6", seen.now, f"{attempt.id} has outlived its incident")
    known = book.flying.keys() | book.asking.keys()
    if held != known:
        odd = ", ".join(sorted(held ^ known))
        raise Broken("I6", seen.now, f"in flight by the state or by the record, not by both: {odd}")


def i6_told(book: Book, seen: Seen) -> None:
    """An incident that ends or locks is announced, a lock ends only well or acknowledged."""
    said = {(e.incident.id, e.said) for e in seen.effects if isinstance(e, Announce)}
    for name, cluster in seen.after.clusters.items():
        old = seen.before.clusters.get(name)
        if old is None or old.incidents is cluster.incidents:
            continue
        now_there = {i.id: i for i in cluster.incidents}
        for incident in old.incidents:
            new = now_there.get(incident.id)
            if new is None:
                if not any((incident.id, phase.value) in said for phase in ENDED):
                    raise Broken("I6", seen.now, f"{incident.id} vanished")
            elif incident.phase is Phase.LOCKED and new.phase is not Phase.LOCKED:
                raise Broken("I6", seen.now, f"{incident.id} came back from its lock")
        for incident in cluster.incidents:
            was = next((i for i in old.incidents if i.id == incident.id), None)
            locked = incident.phase is Phase.LOCKED
            fresh = was is None or was.phase is not Phase.LOCKED
            if locked and fresh and (incident.id, "locked") not in said:
                raise Broken("I6", seen.now, f"{incident.id} locked in silence")


def i6_in_time(book: Book, seen: Seen) -> None:
    """No attempt hangs for ever while the healer runs."""
    there = {}
    for cluster in seen.after.clusters.values():
        policy = book.policies[cluster.name]
        bound_s = 315.0 + 4 * policy.attempt_timeout_s + 180.0
        for incident in cluster.incidents:
            if incident.phase is not Phase.REMEDIATING:
                continue
            since = book.remediating.get(incident.id, seen.now)
            there[incident.id] = since
            if seen.now - since > bound_s:
                raise Broken(
                    "I6", seen.now, f"{incident.id} remediates for {seen.now - since:.0f} s"
                )
    book.remediating = there


def i9_recovered(book: Book, announce: Announce, seen: Seen) -> None:
    """Resolved means: the probes saw it well for ``stable``."""
    if announce.said != Phase.RESOLVED.value:
        return
    incident, now = announce.incident, seen.now
    was = _was(seen.before, incident)
    if (
        seen.event is None or was is None
    ):  # the settings name it no more; or it came and went at once
        return
    if was.phase is Phase.SUSPECTED and incident.attempts == 0:
        # It has turned out to be something else: that is an incident of its own, or will join one that is open as soon
        # as it is confirmed.
        cluster, others = seen.after.clusters[incident.cluster], (*REFUSES, Fault.MISTAKEN)
        told = [i for i in cluster.incidents if i.fault in others]
        also = {n for i in told for n in i.nodes}
        also |= {n for n in incident.nodes for i in told if cluster.nodes[n].fault is i.fault}
        showing = [n for n in incident.nodes if _shows(book, incident, n) and n not in also]
        if showing:
            raise Broken("I9", now, f"{incident.id} resolved, but {showing} shows it")
        return
    waited_s = now - max(was.opened_at, book.ended_at.get(incident.id, (0.0, ()))[0])
    if incident.fault is None:
        command = getattr(seen.event, "command", None)
        rejected = command is not None and command.verb is Verb.REJECT
        nothing = announce.rule == "open.asked-for-nothing"
        if rejected or nothing or waited_s >= REQUEST_AGE_S:
            return  # rejected, expired, or nothing was to be done: no recovery is claimed
    stable_s = book.policies[incident.cluster].stable_s
    if was.phase is Phase.LOCKED and incident.fault in CLUSTER_WIDE:
        if _shows(book, incident, incident.nodes[0]):
            raise Broken("I9", now, f"{incident.id} resolved, but the cluster shows it")
        return  # what befell a node meanwhile is an incident of its own
    instead = _instead(book, incident, seen)
    for node in incident.nodes:
        if node in instead:
            continue
        sighting = book.sighted.get(node)
        if sighting is None or sighting.fault is not None or not sighting.polls:
            raise Broken("I9", now, f"{incident.id} resolved, but {node} was not seen well")
        if incident.fault is Fault.STALLED and _stalls(book, incident.cluster, node, now):
            raise Broken("I9", now, f"{incident.id} resolved, but {node}'s canary waits")
        if now - sighting.since < stable_s - 1e-6:
            for_s = now - sighting.since
            raise Broken("I9", now, f"{incident.id}: {node} well for {for_s:.1f} of {stable_s:g} s")
    if incident.nodes[0] not in instead and _shows(book, incident, incident.nodes[0]):
        raise Broken("I9", now, f"{incident.id} resolved, but the cluster shows it")
    if was.phase is Phase.VERIFYING:
        ended_at, acted = book.ended_at.get(incident.id, (0.0, ()))
        _dialled(book, incident.id, set(acted) & set(incident.nodes), ended_at, now)


def _instead(book: Book, incident: Incident, seen: Seen) -> set[str]:
    """Nodes that show another fault now, of which an incident is open. Nothing was done in the one that ends."""
    if incident.turn.visited or incident.fault is None or incident.fault in CLUSTER_WIDE:
        return set()
    others = [
        i
        for i in seen.after.clusters[incident.cluster].incidents
        if i.fault not in (None, incident.fault) and i.phase is not Phase.SUSPECTED
    ]
    named = {n for i in others for n in i.nodes}
    # Whose server answers may be in doubt. And whether one that refuses is dead depends on whom its word is asked of.
    alike = REFUSES if incident.fault in REFUSES else frozenset()
    doubted = {n for i in others if i.fault in {Fault.MISTAKEN, *alike} for n in i.nodes}
    return {
        n for n in incident.nodes if n in doubted or (n in named and not _shows(book, incident, n))
    }


def i9_dialled(book: Book, seen: Seen) -> None:
    """Well again after a job: a connection that was open before it proves nothing."""
    for name, cluster in seen.after.clusters.items():
        old = seen.before.clusters.get(name)
        if old is None or old.incidents is cluster.incidents:
            continue
        before = {i.id: i for i in old.incidents}
        for incident in cluster.incidents:
            was = before.get(incident.id)
            if incident.verified and was is not None and not was.verified:
                ended_at, acted = book.ended_at.get(incident.id, (0.0, ()))
                named = [n for n in acted if n in book.policies[name].nodes]
                _dialled(book, incident.id, named, ended_at, seen.now)


def _dialled(book: Book, what: str, nodes: Iterable[str], since: float, now: float) -> None:
    for node in nodes:
        sighting = book.sighted.get(node)
        if sighting is None:
            continue
        if sighting.dialled_at is None or sighting.dialled_at < since:
            raise Broken("I9", now, f"{what}: {node} was not dialled since the job's end")


def joined(book: Book, effect: Answer, seen: Seen) -> None:
    """A request joins only what will still do something to those nodes."""
    if not isinstance(seen.event, Requested) or effect.reply is not Reply.JOINED:
        return
    request = seen.event.request
    cluster = seen.after.clusters[request.cluster]
    host = next((i for i in cluster.incidents if i.id == effect.incident), None)
    if host is None:
        raise Broken(
            "request", seen.now, f"{request.id} joins {effect.incident}, which is not there"
        )
    flies = any(f.attempt.incident == host.id for f in book.flying.values())
    comes = host.phase is not Phase.LOCKED and (flies or host.step < len(host.steps))
    if not comes and host.phase is not Phase.SUSPECTED:
        raise Broken("request", seen.now, f"{request.id} joins {host.id}: no step is to come")
    policy = book.policies[request.cluster]
    if host.phase is Phase.SUSPECTED and not policy.escalation.get(
        host.fault, escalation.DEFAULT[host.fault]
    ):
        raise Broken("request", seen.now, f"{request.id} joins {host.id}, which will do nothing")
    if request.nodes and not set(request.nodes) & set(host.nodes):
        raise Broken("request", seen.now, f"{request.id} joins {host.id}, which is about others")


def _was(state: State, incident):
    cluster = state.clusters.get(incident.cluster)
    return next((i for i in cluster.incidents if i.id == incident.id), None) if cluster else None


def _shows(book: Book, incident, node: str) -> bool:
    if incident.fault is None:
        return False  # nothing was seen: it was asked for
    if incident.fault in (Fault.UNAVAILABLE, Fault.PARTITIONED, Fault.ISSUE):
        _, viewed = book.views.get(incident.cluster, (0.0, None))
        if viewed is None:
            return False
        nodes = book.policies[incident.cluster].nodes
        nodes = [n for n in nodes if not book.known.get(n, Identity()).proxy]
        if any(n not in book.sighted or book.sighted[n].fault for n in nodes):
            return False  # that node's fault explains it
        if incident.fault is Fault.UNAVAILABLE:
            wanted = book.policies[incident.cluster].tables
            return any(
                not (t.reads and t.writes)
                for t in viewed.view.tables
                if not wanted or t.name in wanted or t.name.partition(".")[0] in wanted
            )
        if incident.fault is Fault.ISSUE:
            return any(incident.called == f"issue:{i.type}" for i in viewed.view.issues)
        return False
    sighting = book.sighted.get(node)
    return sighting is not None and sighting.fault is incident.fault


def nothing_forgotten(book: Book, seen: Seen) -> None:
    """A node with a decided fault belongs to an incident of that fault."""
    if not isinstance(seen.event, Observed):
        return
    told = seen.event.observation
    sighting = book.sighted.get(told.node)
    policy = book.policies.get(told.cluster)
    if policy is None or told.node not in policy.nodes:
        return  # a probe that was under way when the settings left the node out
    if told.ours or told.fault is None or sighting is None or not sighting.decided:
        return
    longest_s = max(policy.confirm_s.values(), default=0.0)
    patience_s = longest_s + policy.poll_s + policy.timeout_s
    if seen.now - book.known.get(told.node, Identity()).taken <= patience_s:
        return  # a person has just said whose server that is: what it shows begins anew
    # What it showed before may have had no time to be confirmed, and then the doubt has to last as well. A node that was
    # in doubt stays so while it is silent.
    disputed_at = book.known.get(told.node, Identity()).disputed_at
    disputed = disputed_at is not None and seen.now - disputed_at <= patience_s
    disputed = disputed or book._doubtful(told.node) or any(book.disputes(told.node))
    if disputed and seen.now - sighting.since <= 2 * patience_s:
        return  # it joins those whose server is in doubt, when that has lasted
    # It may just have left an incident whose step never came to it: the next probe opens its own.
    there = (seen.before.clusters[told.cluster], seen.after.clusters[told.cluster])
    incidents = [i for cluster in there for i in cluster.incidents]
    incidents += [e.incident for e in seen.effects if isinstance(e, Announce)]
    # Whose server that is may be in doubt; who refuses the master may serve others.
    called = {told.fault, Fault.MISTAKEN} | (REFUSES if told.fault in REFUSES else frozenset())
    if not any(i.fault in called and told.node in i.nodes for i in incidents):
        raise Broken("I6", seen.now, f"{told.node} is {told.fault.value}, and no incident tells")


# ---------------------------------------------------------------- the rules: what runs


def i8_live(book: Book, attempt: Attempt | None, id: str, node: str, now: float) -> None:
    """A minion runs only what is in flight and was fired less than a minute ago."""
    flight = book.flight(id)
    if attempt is None or flight is None:
        raise Broken("I8", now, f"{node} runs {id}, and nothing of that name is in flight")
    if now - flight.fired_at >= ORDER_AGE_S:
        raise Broken("I8", now, f"{node} runs {id}, fired {now - flight.fired_at:.0f} s ago")
    if node not in flight.attempt.nodes or attempt.action is not flight.attempt.action:
        raise Broken("I8", now, f"{node} runs {id}, which is another's")
    if (id, node) in book.began:
        raise Broken("I8", now, f"{node} runs {id} a second time")
    book.began |= {(id, node)}


def i8_claimed(book: Book, id: str, firing: int, now: float) -> None:
    """A firing is claimed once, and is the last one that was fired."""
    flight = book.flight(id)
    if (id, firing) in book.claims:
        raise Broken("I8", now, f"firing {firing} of {id} is claimed a second time")
    if flight is None or flight.firings != firing:
        raise Broken("I8", now, f"firing {firing} of {id} is claimed, and is not in flight")
    book.claims |= {(id, firing)}


class Watch:
    """All rules over one healer's life."""

    def __init__(self, policies: Iterable[Policy], limits: Limits, now: float) -> None:
        self.book = Book({p.name: p for p in policies}, limits, now)
        self.sound = True  #: until a rule was broken

    def copy(self) -> Watch:
        other = copy(self)
        other.book = self.book.copy()
        return other

    def see(
        self,
        before: State,
        event: Event | None,
        after: State,
        effects: tuple[Effect, ...],
        now: float,
        truth: Mapping[str, Truth] | None = None,
    ) -> None:
        """One transition of `step`; ``event`` None: a start by `begin`, told first by `started`."""
        try:
            self._judge(self.book, Seen(before, event, after, effects, now, truth))
        except Broken:
            self.sound = False
            raise

    @staticmethod
    def _judge(book: Book, seen: Seen) -> None:
        before, event, after, effects, now, _ = seen
        book.hear(event, now, before)
        for effect in effects:
            if isinstance(effect, Fire):
                for rule in RULES.get(effect.attempt.action, FIRED):
                    rule(book, effect.attempt, seen)
            elif isinstance(effect, Finish):
                i6_one_end(book, effect, seen)
            elif isinstance(effect, Announce):
                i9_recovered(book, effect, seen)
                e_left_out(book, effect, seen)
            elif isinstance(effect, Answer):
                joined(book, effect, seen)
            book.keep(effect, seen)
        if effects or before is not after:
            i6_in_flight(book, seen)
            i6_told(book, seen)
            i6_in_time(book, seen)
            i9_dialled(book, seen)
        nothing_forgotten(book, seen)

    def started(self, now: float, forgotten: bool = False) -> None:
        """The healer starts (anew); ``forgotten``: without its ledger."""
        self.book.start(now)
        self.book.begun_at = now
        self.book.hindered.clear()
        if forgotten:
            self.book.forget(now)

    def ran(self, attempt: Attempt | None, id: str, node: str, now: float) -> None:
        """A minion begins a job."""
        i8_live(self.book, attempt, id, node, now)

    def claimed(self, id: str, firing: int, now: float) -> None:
        """Somebody on the master claims a firing."""
        i8_claimed(self.book, id, firing, now)

    def settle(self, policies: Mapping[str, Policy]) -> None:
        """The healer starts with other settings."""
        self.book.settle(policies)
