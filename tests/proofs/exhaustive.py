"""Every interleaving, within a small model: ``python -m tests.proofs.exhaustive [--minutes N] [--depth N]``.

Breadth first over canonical states: one cluster, three nodes that are alike, short settings, all times multiples of a
poll. Time stands still but for ``wait``, which goes to the next moment at which something can change (a deadline of the
state, or the next poll if that would bring news), says what the job cache lacks, ticks, and polls everybody. Crash and
restart are one event, one poll long. Between two waits at most one node changes. Where a dial is refused, the nodes that
answer say whom they are connected to: at once, or as an event of its own (``word``). In a canonical state times are ages,
cut off where they matter no longer; incidents and attempts are numbered by their place; what is only told is left out;
nodes are sorted. The rules are checked on every transition.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from saltext_selfheal.healing import gates
from saltext_selfheal.healing import looks as asking
from saltext_selfheal.healing import observers as watching
from saltext_selfheal.healing import questions
from saltext_selfheal.healing.changes import Changes, Verdict
from saltext_selfheal.healing.events import (
    Canary,
    CanaryEnd,
    ClusterView,
    Command,
    Commanded,
    Door,
    Event,
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
    Table,
    Tick,
    Verb,
    Viewed,
    ViewStatus,
    Watchers,
)
from saltext_selfheal.healing.model import (
    Action,
    Attempt,
    Dial,
    Fault,
    Fire,
    Limits,
    Mode,
    Outcome,
    Phase,
    Policy,
    State,
    Step,
)
from saltext_selfheal.healing.questions import AGAIN_S, ASK_AFTER_S, SEEN, STALE_S, waited_until
from saltext_selfheal.healing.sighting import Sighting as Spied
from saltext_selfheal.healing.start import begin
from saltext_selfheal.healing.step import step
from saltext_selfheal.healing.testimony import Ground, Process, Testimony

from .rules import Broken, Truth, Watch

NAME = "c"
NODES = ("n1", "n2", "n3")
WARM_UP_S = 15.0
LOOK_AFTER_START_S = 30.0
ORDER_AGE_S = 60.0
POLL_S = 5.0  #: all times of the models are multiples of this: fewer ages
PAUSE_S = 10.0
#: Moments after a firing, a publication, a look at which the core's fixed patience ends.
FIRED_S = (15.0, 60.0, 300.0)


class Sick(NamedTuple):
    """How a server is ill."""

    shows: Fault  #: to a fresh dial
    serves: bool = False  #: its peers are connected to it, and applications are served
    keeps: bool = False  #: … as is the connection that the healer has open


DEAD, HUNG, AUTH = Sick(Fault.DEAD), Sick(Fault.HUNG), Sick(Fault.AUTH, serves=True)
CUT_OFF = Sick(Fault.DEAD, serves=True)  #: it refuses the master, and nobody else
STALLED = Sick(Fault.STALLED, serves=True, keeps=True)  #: it answers probes, and no canary
UNREACHED = Sick(
    Fault.UNREACHABLE, serves=True
)  #: by the master; whoever observes it may say anything
FULL = Sick(Fault.HUNG, serves=True, keeps=True)  #: out of open files: nobody new is let in


#: What a minion may tell. None: it fails to.
_TOLD = {
    "gone": Testimony(Process.GONE, listens=False),
    "on its way": Testimony(Process.RUNS, 0.0, listens=False),
    "refuses its configuration": Testimony(
        Process.GONE, listens=False, ground=Ground.BAD_CONFIG, found="a line"
    ),
    "its disk is full": Testimony(
        Process.GONE, listens=False, ground=Ground.DISK_FULL, found="/data"
    ),
    "answers there": Testimony(Process.RUNS, 60.0, listens=True, greets=True),
    "fails": None,
}


@dataclass(frozen=True)
class Model:
    """Settings, and what may happen."""

    name: str
    policy: Policy
    faults: tuple[Sick, ...]
    verbs: tuple[Verb, ...]
    crash: bool = True
    request: str = ""  #: what an application may ask for
    redial: bool = False  #: not each look dials
    word: bool = False  #: what the others say comes as an event of its own, or never
    mislead: bool = False  #: the addresses of two nodes may lead to one server, or be swapped
    proxies: tuple[str, ...] = ()
    forged: bool = False  #: results may come while the job runs; looks are true
    forbidden: bool = False  #: somebody may keep a minion from running a job
    gone: bool = False  #: minions may go and come back
    claimed: bool = False  #: the reactor claims, events are replayed, minions forget
    views: bool = False
    observers: tuple[str, ...] = ()  #: each of them may say anything, or nothing
    frail: int = 3  #: so many nodes may fall ill
    prompt: bool = False  #: the reactor publishes at once, whatever is fired
    depth: int | None = 14  #: where the search ends; None: where nothing new is found

    @property
    def limits(self) -> Limits:
        """Attempts are not counted over all clusters: there is one."""
        return Limits(0, self.policy.budget_per_s, 0.0)


_SMALL = Policy(
    name=NAME,
    nodes=NODES,
    minions="n*",
    confirm_s=dict.fromkeys(Fault, POLL_S),
    poll_s=POLL_S,
    timeout_s=POLL_S,
    settle_s=0.0,
    stable_s=5.0,
    flapping_changes=0,
    escalation={
        Fault.DEAD: (Step(Action.RESTART), Step(Action.HIGHSTATE)),
        Fault.AUTH: (Step(Action.HIGHSTATE),),
        Fault.HUNG: (Step(Action.RESTART),),
    },
    attempt_timeout_s=10.0,
    verify_s=5.0,
    cooldown_min_s=10.0,
    cooldown_max_s=10.0,
    budget_attempts=2,
    budget_per_s=30.0,
    relapse_s=0.0,
)
_LONGER = replace(
    _SMALL,
    stable_s=10.0,
    attempt_timeout_s=20.0,
    verify_s=10.0,
    cooldown_max_s=20.0,
    budget_per_s=40.0,
)

#: The longest first: they are searched side by side.
MODELS = (
    # All three may die, in any order.
    Model("dead", _SMALL, (DEAD,), (Verb.PAUSE, Verb.RESUME, Verb.ACK)),
    # Two that may still serve, and a table with a replica on each node.
    Model(
        "serving",
        replace(_SMALL, relapse_s=20.0),
        (AUTH, HUNG),
        (Verb.ACK,),
        views=True,
        frail=2,
        prompt=True,
        depth=13,
    ),
    # An application asks too.
    Model(
        "requested",
        _SMALL,
        (DEAD,),
        (Verb.REJECT,),
        request="highstate",
        views=True,
        frail=1,
        prompt=True,
        depth=13,
    ),
    # A person locks a node out.
    Model("locked", _SMALL, (AUTH,), (Verb.ACK, Verb.LOCK), frail=1, prompt=True),
    # One node's whole life.
    Model("one", _LONGER, (DEAD,), (Verb.ACK,), frail=1, prompt=True, depth=22),
    # Nothing goes without a person.
    Model(
        "approved",
        replace(_SMALL, mode=Mode.APPROVE),
        (AUTH,),
        (Verb.ACK, Verb.APPROVE, Verb.REJECT),
        frail=1,
        prompt=True,
    ),
    # Ports that refuse the master only, beside real deaths; the others are heard early, late or never.
    Model(
        "cut off",
        _SMALL,
        (CUT_OFF, DEAD),
        (),
        frail=2,
        views=True,
        word=True,
        crash=False,
        prompt=True,
        depth=12,
    ),
    # Nobody new is let in: only a dial sees it, now and then, or when it is asked for.
    Model(
        "redial",
        replace(_SMALL, escalation={Fault.HUNG: (Step(Action.RESTART),)}),
        (FULL,),
        (Verb.ACK,),
        request="restart",
        redial=True,
        frail=2,
        views=True,
        prompt=True,
        depth=11,
    ),
    # Canaries that wait at one node, at all of them, beside a death.
    Model(
        "stalled",
        replace(
            _SMALL, canary=True, escalation={Fault.STALLED: (Step(Action.RESTART),), Fault.DEAD: ()}
        ),
        (STALLED, DEAD),
        (Verb.ACK,),
        redial=True,
        views=True,
        prompt=True,
        depth=11,
    ),
    # Addresses that lead to one server or are swapped, while servers die; a person takes them as they are.
    Model("mistaken", _SMALL, (DEAD,), (Verb.ACK,), mislead=True, frail=2, prompt=True, depth=11),
    # One of the nodes is a proxy, and may be cut off as well.
    Model(
        "proxy",
        _SMALL,
        (DEAD, CUT_OFF),
        (Verb.ACK,),
        frail=2,
        views=True,
        proxies=NODES[:1],
        prompt=True,
        depth=11,
    ),
    # Results may be lies while the job runs.
    Model("forged", _SMALL, (AUTH,), (Verb.ACK,), forged=True, frail=2, prompt=True, depth=13),
    # Somebody disables highstates on a minion, or puts it into blackout.
    Model(
        "forbidden", _SMALL, (AUTH,), (Verb.ACK,), forbidden=True, frail=2, prompt=True, depth=12
    ),
    # Minions go and come back, before a job, while it runs, and after it.
    Model("gone", _SMALL, (DEAD, AUTH), (Verb.ACK,), gone=True, frail=2, prompt=True, depth=11),
    # Minions tell that a process is gone, is on its way, cannot start; fail to, and are asked anew; or keep silent.
    Model(
        "witnessed",
        replace(
            _SMALL,
            witness_s=2 * POLL_S,
            dead_witnessed_s=0.0,
            starting_s=4 * POLL_S,
            escalation={
                Fault.DEAD: (Step(Action.RESTART), Step(Action.HIGHSTATE)),
                Fault.STARTING: (),
            },
        ),
        (DEAD,),
        (Verb.ACK,),
        frail=2,
        prompt=True,
        depth=10,
    ),
    # A restart does not help, and what ends a process by force does, does not, or finds one that nothing ends.
    Model(
        "forced",
        replace(
            _SMALL,
            escalation={Fault.HUNG: (Step(Action.RESTART), Step(Action.FORCE_RESTART))},
            budget_attempts=3,
        ),
        (HUNG,),
        (Verb.ACK,),
        frail=2,
        prompt=True,
        depth=12,
    ),
    # Observers agree, contradict each other, cannot tell or keep silent, before a step and after it.
    Model(
        "observed",
        replace(
            _SMALL,
            observers_quorum=2,
            observers_s=POLL_S,
            escalation={f: (Step(Action.RESTART),) for f in (Fault.HUNG, Fault.UNREACHABLE)},
        ),
        (HUNG, UNREACHED),
        (Verb.ACK,),
        observers=("o1", "o2"),
        frail=1,
        prompt=True,
        depth=12,
    ),
    # A highstate is tried first: it would change something, nothing, cannot tell, or its minion keeps silent.
    Model(
        "tested",
        replace(
            _SMALL,
            test_first_s=2 * POLL_S,
            escalation={Fault.AUTH: (Step(Action.HIGHSTATE), Step(Action.HIGHSTATE))},
        ),
        (AUTH,),
        (Verb.ACK,),
        frail=2,
        prompt=True,
        depth=11,
    ),
    # Events are heard late, twice or never, and minions forget what they have run.
    Model("claimed", _SMALL, (DEAD,), (), claimed=True, frail=1, forged=True),
)


@dataclass
class World:
    """One place of the search."""

    model: Model
    state: State
    watch: Watch
    now: float
    ill: tuple[Sick | None, ...] = (None, None, None)
    since: tuple[float, ...] = (0.0, 0.0, 0.0)
    away: frozenset[str] = frozenset()  #: nodes whose minions are gone
    leads: tuple[int, ...] = (0, 1, 2)  #: whose server each node's address leads to
    asked_for: frozenset[str] = frozenset()  #: nodes to be dialled at the next look
    failing: frozenset[str] = frozenset()  #: nodes whose last dial was not well
    running: frozenset[tuple[str, str]] = frozenset()  #: attempt, node
    cached: frozenset[str] = frozenset()  #: attempts that are published
    claims: frozenset[tuple[str, int]] = frozenset()
    ran: frozenset[tuple[str, str]] = frozenset()  #: attempt, node: what the minions remember
    path: tuple[str, ...] = ()
    asked: int = 0

    def copy(self, what: str) -> World:
        return replace(self, watch=self.watch.copy(), path=(*self.path, what))

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, effects = step(before, event, self.now)
        self._see(before, event, effects)
        if self.model.prompt:
            cluster = self.state.clusters[NAME]
            for attempt in (cluster.attempt, cluster.look):
                if attempt is not None and attempt.published_at is None:
                    self._begin(attempt)
                    self.feed(Published(attempt.id))

    def _see(self, before: State, event: Event | None, effects) -> None:
        fires = any(isinstance(e, Fire) for e in effects)
        truth = self._truth() if fires else None
        self.watch.see(before, event, self.state, effects, self.now, truth)
        for effect in effects:
            if isinstance(effect, Dial):
                self.asked_for |= frozenset(effect.nodes)

    def _truth(self) -> dict[str, Truth]:
        return {
            name: Truth(
                ill is None or ill.serves,
                self.since[at],
                frozenset(id for id, n in self.running if n == name),
                NODES[self.leads[at]],
            )
            for at, (name, ill) in enumerate(zip(NODES, self.ill, strict=True))
        }

    def _begin(self, attempt: Attempt) -> None:
        """Its minions have it."""
        if self.model.forged and attempt.action is not Action.LOOK:
            self.running |= {(attempt.id, n) for n in attempt.nodes}

    # ------------------------------------------------------------ events

    def wait(self, seconds: float, dialled: bool = True) -> None:
        self.now += seconds
        cluster = self.state.clusters[NAME]
        for attempt in (cluster.attempt, cluster.look):
            if attempt is None or attempt.published_at is not None or attempt.id in self.cached:
                continue
            self.feed(Missing(attempt.id))
        if self.model.gone:
            self.tell_minions()
        self.feed(Tick())
        self.poll(dialled)

    def tell_minions(self, *changed: str) -> None:
        """Which minions are there, after these have gone or come back."""
        self.away ^= frozenset(changed)
        found = {n: Presence.AWAY if n in self.away else Presence.CONNECTED for n in NODES}
        self.feed(Present(NAME, found))

    def poll(self, dialled: bool = True) -> None:
        refused = False
        asked_for, self.asked_for = self.asked_for, frozenset()
        for at, node in enumerate(NODES):
            ill = self.ill[self.leads[at]]
            dials = dialled or node in asked_for | self.failing
            hidden = ill is None or (ill.keeps and not dials) or ill == STALLED
            shown = None if ill is None or hidden else ill.shows
            refused = refused or shown is Fault.DEAD
            if dials or shown:
                kept = self.failing - {node}
                self.failing = kept | {node} if shown else kept
            self.feed(Observed(self._observation(at, shown, dials or shown is not None, ill)))
        if self.model.policy.canary:
            self.sing()
        if refused and not self.model.word:
            self.meet()
        if self.model.views:
            self.feed(Viewed(self._view()))

    def _observation(
        self, at: int, shown: Fault | None, dialled: bool, ill: Sick | None
    ) -> Observation:
        server = NODES[self.leads[at]]
        proxy = server in self.model.proxies
        return Observation(
            NAME,
            NODES[at],
            shown,
            shown.value if shown else "answers",
            0.0,
            None if shown else f"id-{server}",
            None if shown or proxy else f"{server}_srv",
            dialled=dialled,
            answers=bool(shown and ill and ill.keeps),
            silent=bool(shown and dialled and ill and not ill.keeps and shown is not Fault.AUTH),
            addresses=(server,) if self.model.mislead else (),
            proxy=proxy and not shown,
        )

    def sing(self) -> None:
        """What comes of a canary through each node that answers."""
        for at, node in enumerate(NODES):
            ill = self.ill[self.leads[at]]
            if ill is None:
                self.feed(Canary(NAME, node, CanaryEnd.ANSWERED))
            elif ill == STALLED:
                self.feed(Canary(NAME, node, CanaryEnd.UNANSWERED, "it"))

    def meet(self) -> None:
        """Whom the nodes that answer are connected to."""
        there = {
            f"id-{n}"
            for n, ill in zip(NODES, self.ill, strict=True)
            if n not in self.model.proxies and (ill is None or ill.serves)
        }
        ends = ((n, self.ill[self.leads[at]]) for at, n in enumerate(NODES))
        asked = [n for n, ill in ends if ill is None or ill.keeps]
        if asked:
            names = {id: f"{id}_srv" for id in there}
            self.feed(Met(NAME, dict.fromkeys(asked, frozenset(there)), names))

    def _view(self) -> ClusterView:
        replicas = tuple(
            Replica(f"{n}_srv", "ready" if ill is None or ill.serves else "disconnected", True)
            for n, ill in zip(NODES, self.ill, strict=True)
            if n not in self.model.proxies
        )
        tables = (Table("a.b", True, True, True, (Shard(replicas),)),)
        return ClusterView(NAME, NODES[0], ViewStatus.KNOWN, "", tables)

    def lead(self, leads: tuple[int, ...]) -> None:
        self.leads = leads

    def ends(self, id: str, node: str) -> None:
        """The job ends, whatever was said of it before."""
        self.running -= {(id, node)}

    def returned(self, attempt: Attempt, node: str, outcome: Outcome) -> None:
        if not self.model.forged:
            self.running -= {(attempt.id, node)}
        self.feed(Returned(attempt.id, node, outcome))

    def react(self, id: str) -> None:
        """The reactor hears the attempt's event, perhaps again: it claims the firing, once."""
        cluster = self.state.clusters[NAME]
        attempt = next(a for a in (cluster.attempt, cluster.look) if a is not None and a.id == id)
        self.claims |= {(id, attempt.firings)}
        self.watch.claimed(id, attempt.firings, self.now)
        self.cached |= {id}
        for node in attempt.nodes:
            if (id, node) not in self.ran:
                self.ran |= {(id, node)}
                self.watch.ran(attempt, id, node, self.now)
        self._begin(attempt)

    def observes(self, one: Attempt, who: str, down: bool | None) -> None:
        self.feed(Returned(one.id, who, Outcome.DONE, "", Spied(down)))

    def testifies(self, one: Attempt, told: Testimony | None) -> None:
        """A minion tells what it sees. None: it has no such function."""
        outcome = Outcome.DONE if told else Outcome.FAILED
        self.feed(Returned(one.id, one.about, outcome, "", told))

    def foresees(self, one: Attempt, verdict: Verdict) -> None:
        told = Changes(verdict, ("file.managed x",), "so it says")
        self.feed(Returned(one.id, one.about, Outcome.DONE, "", told))

    def forgets(self) -> None:
        """The minions start anew."""
        self.ran = frozenset()

    def crash(self) -> None:
        self.now += POLL_S
        self.watch.started(self.now)
        state, effects = begin(
            self.state.policies, self.state.limits, self.state.clusters, self.now
        )
        self.state, self.failing, self.asked_for = state, frozenset(), frozenset()
        self._see(state, None, effects)
        self.tell_observers()

    def tell_observers(self) -> None:
        if self.model.observers:
            self.feed(Watchers(NAME, self.model.observers))

    def again(self, attempt: Attempt) -> None:
        """All that was told of this job, told once more, and otherwise."""
        self.feed(Published(attempt.id))
        for node, (outcome, _) in attempt.results.items():
            self.feed(Returned(attempt.id, node, outcome))
            self.feed(Returned(attempt.id, node, Outcome.DONE, "twice"))

    def order(self, verb: Verb, incident: str | None) -> None:
        self.asked += 1
        cluster = None if incident else NAME
        self.feed(
            Commanded(
                Command(f"c{self.asked}", verb, "op", cluster, incident, NODES[:1], PAUSE_S, "")
            )
        )

    # ------------------------------------------------------------ what may come next

    def next(self) -> Iterator[World]:
        """Every world that can follow."""

        def after(what: str, do, *args) -> World:
            other = self.copy(what)
            try:
                do(other, *args)
            except Broken as exc:
                exc.path = other.path  # type: ignore[attr-defined]
                raise
            return other

        yield after("wait", World.wait, self._until_something())
        if self.model.redial:
            yield after("wait, open connections", World.wait, self._until_something(), False)
        cluster = self.state.clusters[NAME]
        seen = all(self._seen(at) for at in range(len(NODES)))
        for index, sick in enumerate(self.ill[: self.model.frail] if seen else ()):
            # Who is cut off may die.
            others = self.model.faults if sick is None else (None, DEAD) if sick.serves else (None,)
            for other in others:
                if other is not None and other not in self.model.faults:
                    continue
                changed = (*self.ill[:index], other, *self.ill[index + 1 :])
                what = f"{NODES[index]} {_called(other)}"
                since = (*self.since[:index], self.now, *self.since[index + 1 :])
                yield replace(self.copy(what), ill=changed, since=since)
        for node in NODES[: self.model.frail] if self.model.gone else ():
            yield after(f"{node}'s minion goes or comes back", World.tell_minions, node)
        for leads in ((0, 1, 2), (1, 0, 2), (0, 0, 2)) if self.model.mislead and seen else ():
            if leads != self.leads:
                yield after(f"addresses {leads}", World.lead, leads)
        if self.model.word and any(n.refused_at is not None for n in cluster.nodes.values()):
            yield after("word", World.meet)
        for id, node in sorted(self.running):
            yield after(f"{id} ends on {node}", World.ends, id, node)
        if self.model.claimed:
            yield from (after(*one) for one in self._reactions())
        for attempt in (cluster.attempt, cluster.look):
            if attempt is not None:
                yield from (after(*one) for one in self._job_events(attempt))
        for one in cluster.questions:
            yield from (after(*told) for told in self._answers(one))
        if cluster.attempt is not None and cluster.attempt.results:
            yield after("again", World.again, cluster.attempt)
        if self.model.crash and cluster.incidents:
            yield after("crash", World.crash)
        for verb in self.model.verbs:
            for incident in self._meant(verb):
                yield after(f"{verb.value} {incident or ''}", World.order, verb, incident)
        if self.model.request and not cluster.incidents and not cluster.pending:
            request = Request(f"r{self.now}", NAME, self.model.request, (), "", Door.RUNNER, "app")
            yield after("request", World.feed, Requested(request))

    def _seen(self, at: int) -> bool:
        """What is the matter with a node is what the healer shows of it."""
        ill, known = self.ill[self.leads[at]], self.state.clusters[NAME].nodes[NODES[at]].fault
        if ill is None:
            return known in (None, Fault.MISTAKEN)
        if ill == STALLED:
            alone = any(one is None for one in self.ill)
            return known is Fault.STALLED or (known is None and not alone)
        if ill.keeps and known is None:
            return True
        return known in (ill.shows, Fault.MISTAKEN, Fault.CUT_OFF)

    def _reactions(self):
        """Each event of what is in flight may be heard now, for the first time or again."""
        cluster = self.state.clusters[NAME]
        for attempt in (cluster.attempt, cluster.look):
            if attempt is None or self.now - attempt.fired_at >= ORDER_AGE_S:
                continue
            if (attempt.id, attempt.firings) not in self.claims and attempt.id not in self.cached:
                yield f"the reactor hears {attempt.id}", World.react, attempt.id
        if self.ran:
            yield "the minions forget", World.forgets

    def _answers(self, one: Attempt) -> Iterator[tuple]:
        """What may be told in the answer to a question."""
        if one.action is Action.TEST_HIGHSTATE:
            for verdict in (Verdict.WOULD_CHANGE, Verdict.NOTHING, Verdict.CANNOT_TELL):
                yield f"a highstate on {one.about}: {verdict.value}", World.foresees, one, verdict
            return
        if one.action in SEEN:
            for what, told in _TOLD.items():
                if told is not None or one.action is Action.WITNESS:
                    yield f"{one.about}'s minion: {what}", World.testifies, one, told
            return
        for who in one.nodes:
            for down in (True, False, None) if who not in one.results else ():
                yield f"{who} says of {one.about}: down {down}", World.observes, one, who, down

    def _job_events(self, attempt: Attempt):
        if attempt.published_at is None:
            known = not self.model.claimed or attempt.id in self.cached
            if known and (self.model.claimed or self.now - attempt.fired_at < ORDER_AGE_S):
                yield "published", World.feed, Published(attempt.id)
            return
        outcomes = [Outcome.DONE, Outcome.BUSY]
        if self.model.forbidden:
            outcomes.append(Outcome.FORBIDDEN)
        if attempt.action is not Action.LOOK:
            outcomes.append(Outcome.FAILED)
        if attempt.action is Action.FORCE_RESTART:
            outcomes.append(Outcome.STUCK)
        for node in attempt.nodes:
            if node in attempt.results:
                continue
            if self.model.forged and attempt.action is Action.LOOK:
                runs = (attempt.of, node) in self.running
                outcomes = [Outcome.BUSY if runs else Outcome.DONE]
            for outcome in outcomes:
                yield f"{node} {outcome.value}", World.returned, attempt, node, outcome

    def _meant(self, verb: Verb) -> Iterator[str | None]:
        cluster = self.state.clusters[NAME]
        if (verb is Verb.PAUSE and cluster.pause is None and cluster.incidents) or (
            verb is Verb.RESUME and cluster.pause is not None
        ):
            yield None
        elif verb is Verb.LOCK and cluster.incidents:
            if not any(i.by_hand for i in cluster.incidents):
                yield None
        elif verb in (Verb.ACK, Verb.APPROVE, Verb.REJECT):
            for incident in cluster.incidents:
                locked = incident.phase is Phase.LOCKED
                if locked if verb is Verb.ACK else incident.phase is Phase.OPEN:
                    yield incident.id

    def _until_something(self) -> float:
        """To the next deadline; to the next poll if that would bring news, or three polls are not there yet."""
        cluster = self.state.clusters[NAME]
        for at, node in enumerate(NODES):
            known = cluster.nodes[node]
            if known.since is None or known.polls < 3 or not self._seen(at):
                return POLL_S
        if cluster.pending or self.asked_for:
            return POLL_S
        ahead = [t - self.now for t in self._deadlines() if t > self.now]
        return min(ahead, default=POLL_S)

    def _deadlines(self) -> Iterator[float]:
        cluster, policy = self.state.clusters[NAME], self.model.policy
        yield self.state.started_at + WARM_UP_S
        if cluster.pause:
            yield cluster.pause.until
        for node in cluster.nodes.values():
            if node.refused_at is not None:
                yield node.refused_at + gates.WORD_WITHIN_S
            if node.fault and node.since is not None:
                yield node.since + policy.confirm_s[node.fault]
            yield node.cooldown_until
            if node.observed_at is not None:
                yield node.observed_at + watching.AGAIN_S
                yield node.observed_at + watching.COUNTS_FOR_S
            for bar in node.bars:
                yield bar.until
            for spent in node.spent:
                yield spent + policy.budget_per_s
                yield spent + self.model.limits.per_s
        for incident in cluster.incidents:
            yield incident.changed_at + POLL_S  # the first look after it
            yield incident.changed_at + policy.verify_s
            yield incident.not_before
            if incident.gone_since is not None:
                yield incident.gone_since + policy.stable_s
            if incident.busy_since is not None:
                yield incident.busy_since + policy.attempt_timeout_s
            if incident.fault is Fault.DEAD:
                yield incident.changed_at + POLL_S + policy.poll_s + policy.timeout_s
            if incident.fault is None:
                yield incident.opened_at + 900.0
            if incident.approval is not None:
                yield incident.approval.at + 900.0
        for attempt in (cluster.attempt, cluster.look):
            if attempt is None:
                continue
            since = max(attempt.fired_at, self.state.started_at)
            if attempt.published_at is None:
                yield from (since + s for s in FIRED_S)
                yield attempt.decided_at + 300.0
                yield since + policy.attempt_timeout_s
            yield since + 15.0 if attempt.of else since
            yield self.state.started_at + 10.0
            if attempt.published_at is not None:
                yield self.state.started_at + LOOK_AFTER_START_S
                yield attempt.published_at + policy.attempt_timeout_s
                yield attempt.published_at + 3 * policy.attempt_timeout_s + 30.0
        for one in cluster.questions:
            yield waited_until(one, policy)
        for node in cluster.nodes.values() if policy.witness_s else ():
            yield node.acted_at + ASK_AFTER_S
            yield node.acted_at + ASK_AFTER_S + policy.witness_s
            if node.questioned_at is not None:
                yield node.questioned_at + AGAIN_S
            if node.testimony is not None:
                yield node.testimony.at + STALE_S
            if node.starting_since is not None:
                yield node.starting_since + policy.starting_s
        for ailment in cluster.ailments:
            yield ailment.since + policy.confirm_s[ailment.seen.fault]
        for one in cluster.recoveries:
            yield one.at + policy.relapse_s
        for late in cluster.late:
            if asking.unproven(late):
                yield late.looked_at + 30.0
                yield late.ended_at + 3 * policy.attempt_timeout_s
                yield late.attempt.fired_at + policy.attempt_timeout_s

    # ------------------------------------------------------------ what it is, whenever it is

    def key(self) -> int:
        """The same number for the same situation."""
        now, cluster, policy = self.now, self.state.clusters[NAME], self.model.policy
        book = self.watch.book
        numbers = {i.id: at for at, i in enumerate(cluster.incidents)}
        window_s = max(policy.budget_per_s, self.model.limits.per_s)

        def age(then: float | None, cut: float) -> float:
            return -1.0 if then is None else min(cut, now - then)

        def left(until: float) -> float:
            return max(0.0, until - now)

        def recent(times) -> tuple[float, ...]:
            return tuple(now - t for t in times if now - t < window_s)

        def of_canary(node, song) -> tuple:
            own = (node.since, node.stalled_since, node.answered_at)
            told = (song.waits_since, song.anew_since, song.answered_at) if song else ()
            return (bool(node.stalled), tuple(age(at, 61.0) for at in (*own, *told)))

        def of_observers(name: str) -> tuple:
            node, since = cluster.nodes[name], watching.begun(cluster, name)
            own = [
                (who, one.down, age(one.at, 61.0), one.at >= since)
                for who, one in sorted(node.sightings.items())
            ]
            told = [
                (who, down, age(at, 61.0))
                for who, (at, down) in sorted(book.spied.get(name, {}).items())
            ]
            flight = [
                (tuple(sorted(one.results)), age(one.fired_at, 31.0))
                for one in cluster.questions
                if one.about == name
            ]
            times = (node.observed_at, book.probed.get(name), book.well_at.get(name), node.acted_at)
            return (tuple(own), tuple(told), tuple(flight), tuple(age(t, 61.0) for t in times))

        def of_witness(name: str) -> tuple:
            node, since = cluster.nodes[name], questions.begun(cluster, name)

            def told_by(said: Testimony | None, at: float) -> tuple:
                if said is None:
                    return ()
                return (
                    (said.process.value, said.listens, str(said.ground), said.greets),
                    at >= since,
                    age(at, 91.0),
                )

            known_at, known = book.testified.get(name, (0.0, None))
            asked_at, over_at = node.questioned_at, book.asked_over.get(name)
            return (
                told_by(node.testimony, node.testimony.at if node.testimony else 0.0),
                told_by(known, known_at),
                (age(asked_at, 31.0), asked_at is not None and asked_at >= since),
                (age(over_at, 31.0), over_at is not None and over_at >= since),
                age(node.starting_since, policy.starting_s),
                age(book.starting_at.get(name), policy.starting_s),
                age(node.acted_at, 31.0),
                tuple(
                    (q.action.value, age(q.fired_at, 31.0))
                    for q in cluster.questions
                    if q.about == name
                ),
            )

        def of_tests(name: str) -> tuple:
            node, run = cluster.nodes[name], book.tests.get(name)
            opened = [i.opened_at for i in cluster.incidents if name in i.nodes]
            since = max([*opened, node.acted_at])
            said = node.foreseen
            told = (said.verdict.value, said.at >= since) if said else ("", False)
            flight = tuple(age(q.fired_at, 31.0) for q in cluster.questions if q.about == name)
            verdict = run.verdict.value if run and run.verdict else ""
            known = (verdict, run.over, run.asked_at >= since) if run else ("", False, False)
            return told, age(node.foreseen_at, 61.0), flight, known

        def of_node(at: int) -> tuple:
            name = NODES[at]
            node, rests = cluster.nodes[name], book.rests.get(name, (0.0, ""))
            sighting = book.sighted.get(name)
            resting = left(node.cooldown_until)
            its = book.known.get(name)
            word = book.word(name)
            heard = node.word_at is not None and node.refused_at is not None
            return (
                str(self.ill[at]),
                str(node.fault),
                # Who is who matters only where it may be mixed up.
                (at, self.leads[at]) if self.model.mislead else name in self.model.proxies,
                (
                    (bool(node.doubt), node.server_id, node.answers_as, node.addresses)
                    if self.model.mislead
                    else ()
                ),
                (
                    (
                        (its.own, its.answers_as, its.addresses, its.silent_at is not None),
                        tuple(o for o in NODES if o in book.known and book.outlived(name, o)),
                        age(its.disputed_at, 16.0),
                    )
                    if self.model.mislead and its
                    else ()
                ),
                age(node.refused_at, gates.WORD_WITHIN_S),
                (node.word_at >= node.refused_at, bool(node.word_by)) if heard else (),
                word and bool(word.by),
                node.answers,
                (
                    (age(node.dialled_at, 31.0), name in self.asked_for, name in self.failing)
                    if self.model.redial
                    else ()
                ),
                (name in self.away, node.minion.value) if self.model.gone else (),
                of_canary(node, book.songs.get(name)) if policy.canary else (),
                of_observers(name) if self.model.observers else (),
                of_witness(name) if policy.witness_s else (),
                of_tests(name) if policy.test_first_s else (),
                sum(n == name for _, n in self.running),
                numbers.get(book.stuck.get(name, ""), -1),
                (
                    age(node.since, POLL_S)
                    if node.fault
                    else age(node.since, policy.stable_s * bool(cluster.incidents))
                ),
                tuple((fault.value, age(at, POLL_S)) for fault, at in sorted(node.seen)),
                node.confirmed,
                min(node.polls, 3),
                age(node.at, 31.0),
                tuple((bar.action.value, left(bar.until), min(bar.times, 4)) for bar in node.bars),
                tuple(left(at) for (n, _), at in book.hindered.items() if n == name),
                (resting, numbers.get(node.cooldown_incident, -1) if resting else -1),
                recent(node.spent),
                recent(book.paid.get(name, ())),
                recent(book.acks.get(name, ())),
                (left(rests[0]), numbers.get(rests[1], -1) if left(rests[0]) else -1),
                (
                    age(sighting.since, policy.stable_s * bool(cluster.incidents))
                    if sighting
                    else -1.0
                ),
                tuple(numbers[i.id] for i in cluster.incidents if name in i.nodes),
                tuple(numbers[i.id] for i in cluster.incidents if name in i.turn.tried),
                tuple(
                    (r.step, r.relapses, r.repeated, age(r.at, policy.relapse_s))
                    for r in cluster.recoveries
                    if r.node == name and now - r.at < policy.relapse_s
                ),
            )

        looks = [of_node(at) for at in range(len(NODES))]
        order = sorted(range(len(NODES)), key=looks.__getitem__)
        place = {NODES[at]: number for number, at in enumerate(order)}

        def placed(names) -> tuple[int, ...]:
            return tuple(place[n] for n in names)

        def of_approval(given) -> tuple:
            """When it was given does not matter: the models' approvals are much longer than their incidents."""
            return () if given is None else (given[0], placed(given[1]))

        def of_attempt(attempt: Attempt | None) -> tuple:
            if attempt is None:
                return ()
            return (
                attempt.action.value,
                numbers.get(attempt.incident, -1),
                placed(attempt.nodes),
                attempt.step,
                *(
                    (
                        age(attempt.decided_at, 301.0),
                        age(attempt.fired_at, 61.0),
                        attempt.firings,
                        age(attempt.missing_at, 11.0),
                    )
                    if attempt.published_at is None
                    else (age(attempt.published_at, 3 * policy.attempt_timeout_s + 31.0),)
                ),
                tuple(sorted((place[n], o.value) for n, (o, _) in attempt.results.items())),
            )

        def of_late(one) -> tuple:
            attempt = one.attempt
            if not asking.unproven(one):
                return (placed(asking.owed(attempt)),)
            mine = [(attempt.id, n) for n in attempt.nodes]
            return (
                numbers.get(attempt.incident, -1),
                attempt.action.value,
                placed(asking.owed(attempt)),
                placed(asking.unproven(one)),
                placed(n for id, n in mine if (id, n) in self.running),
                placed(n for id, n in mine if (id, n) in book.sure),
                min(one.looks, 1),
                age(one.looked_at, 30.0),
                age(one.ended_at, 3 * policy.attempt_timeout_s),
                age(attempt.fired_at, policy.attempt_timeout_s),
            )

        def of_incident(i) -> tuple:
            ended = book.ended_at.get(i.id)
            return (
                (i.called, i.forced),
                placed(i.nodes),
                i.phase.value,
                age(i.opened_at, 900.0 if i.fault is None else 0.0),
                (
                    age(i.changed_at, policy.verify_s + 6.0)
                    if i.phase is Phase.VERIFYING or (i.phase is Phase.OPEN and not i.attempts)
                    else 0.0
                ),
                i.step,
                placed(i.turn.tried),
                placed(i.turn.acting),
                tuple(sorted(placed(i.turn.visited))),
                i.verified,
                tuple(sorted(placed(i.turn.failed))),
                age(i.busy_since, policy.attempt_timeout_s),
                min(i.lost, 6),
                i.attempts > 0,
                i.only_told,
                left(i.not_before),
                age(i.gone_since, policy.stable_s),
                (min(i.relapses, 3), i.repeated),
                (
                    (i.approval.step, age(i.approval.at, 900.0), placed(i.approval.nodes))
                    if i.approval
                    else ()
                ),
                i.by_hand,
                ended is not None and all(book.sighted[n].at >= ended[0] for n in ended[1]),
                of_approval(book.approved.get(i.id)),
            )

        viewed = self.state.maps.get(NAME)
        published_at = cluster.attempt.published_at if cluster.attempt else None
        under_way = published_at is not None and published_at < self.state.started_at
        return hash(
            (
                tuple(looks[at] for at in order),
                tuple(of_incident(i) for i in cluster.incidents),
                of_attempt(cluster.attempt),
                of_attempt(cluster.look),
                tuple(of_late(c) for c in cluster.late),
                any(node.taken for node in cluster.nodes.values()),
                len(cluster.pending),
                bool(cluster.twins),
                (
                    tuple(
                        (a is not None and (a.id in self.cached, (a.id, a.firings) in self.claims))
                        for a in (cluster.attempt, cluster.look)
                    )
                    if self.model.claimed
                    else ()
                ),
                bool(self.ran),
                age(self.state.started_at, LOOK_AFTER_START_S if under_way else WARM_UP_S),
                left(cluster.pause.until) if cluster.pause else -1.0,
                left(book.paused.get(NAME, 0.0)),
                tuple(sorted(now - t for t, _ in book.all_paid if now - t < window_s)),
                viewed is not None and (age(viewed[0], 61.0), viewed[0] > cluster.acted_at),
            )
        )


def _called(sick: Sick | None) -> str:
    if sick is None:
        return "well"
    if not sick.serves or sick.shows is Fault.AUTH:
        return sick.shows.value
    return "refuses the master" if sick.shows is Fault.DEAD else "lets nobody new in"


def start(model: Model) -> World:
    """Well, and seen to be for long enough."""
    now = 1_000_000.0
    watch = Watch([model.policy], model.limits, now)
    state, _ = begin({NAME: model.policy}, model.limits, {}, now)
    world = World(model, state, watch, now)
    world.tell_observers()
    for _ in range(20):
        world.wait(POLL_S)
    return world


@dataclass
class Found:
    """How far the search came."""

    model: str
    states: int = 0
    transitions: int = 0
    depth: int = 0
    closed: bool = False
    seconds: float = 0.0
    broken: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def __str__(self) -> str:
        end = "closed" if self.closed else f"complete to depth {self.depth}"
        return (
            f"model {self.model}: {self.states} states, {self.transitions} transitions, {end}, "
            f"depth {self.depth}, {self.seconds:.0f} s, {len(self.broken)} violations"
        )


def search(model: Model, seconds: float, depth: int | None = None, tell=None) -> Found:
    """Breadth first, until closed, or out of time or depth; ``depth`` None: the model's."""
    most = depth or model.depth or sys.maxsize
    found, began = Found(model.name), time.monotonic()
    gc.freeze()  # what is kept is kept to the end: no need to go through all of it again and again
    first = start(model)
    visited, frontier = {first.key()}, [first]
    while frontier and found.depth < most:
        following: list[World] = []
        for world in frontier:
            if time.monotonic() - began > seconds:
                found.states, found.seconds = len(visited), time.monotonic() - began
                return found
            ways = world.next()
            while True:
                try:
                    other = next(ways, None)
                except Broken as exc:
                    found.broken.append((str(exc), exc.path))
                    break
                if other is None:
                    break
                found.transitions += 1
                key = other.key()
                if key not in visited:
                    visited.add(key)
                    following.append(other)
        frontier = following
        found.depth += 1
        found.states, found.seconds = len(visited), time.monotonic() - began
        if tell:
            tell(f"{found}, {len(frontier)} to go on from")
    found.closed = not frontier
    return found


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40.0, help="for each model, at most")
    parser.add_argument("--depth", type=int, help="of each model; default: its own")
    parser.add_argument("--model", choices=[m.name for m in MODELS])
    options = parser.parse_args()
    models = [m for m in MODELS if options.model in (None, m.name)]
    depths = {m.name: m.depth for m in models}
    bad = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        searches = [
            pool.submit(search, model, options.minutes * 60.0, options.depth, _say)
            for model in models
        ]
        for one in as_completed(searches):
            found = one.result()
            _say(f"{found}: the end")
            for why, path in found.broken[:10]:
                _say(f"  {why}\n    after {', '.join(path)}")
            bad += len(found.broken)
            wanted = options.depth or depths[found.model] or 14
            if not found.closed and found.depth < wanted:
                _say(f"  neither closed nor at depth {wanted}: give it more minutes")
                bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
