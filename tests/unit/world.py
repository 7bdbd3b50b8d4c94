"""A cluster in virtual time around `step()`: tests tell it what happens and read what the healer orders."""

from dataclasses import replace

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.events import (
    ClusterView,
    Command,
    Commanded,
    Door,
    Met,
    Missing,
    Observation,
    Observed,
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
)
from saltext_selfheal.healing.looks import owed
from saltext_selfheal.healing.model import (
    Announce,
    Answer,
    Fault,
    Finish,
    Fire,
    Limits,
    Outcome,
    Policy,
)
from saltext_selfheal.healing.start import begin
from saltext_selfheal.healing.step import step

NODES = ("db1", "db2", "db3")
#: With these a fresh dial hears nothing at all.
SILENT = (Fault.DEAD, Fault.HUNG, Fault.UNREACHABLE)


def policy(**changes):
    """A cluster of three with short times: 3 s to confirm, 10 s to be stable."""
    base = Policy(
        name="runbook",
        nodes=NODES,
        minions="db*",
        confirm_s=dict.fromkeys(Fault, 3.0),
        poll_s=1.0,
        timeout_s=1.0,
        stable_s=10.0,
        escalation=dict(escalation.DEFAULT),
        attempt_timeout_s=60.0,
        verify_s=20.0,
    )
    return replace(base, **changes)


def table(name="runbook.runbook", reads=True, writes=True, ready=None, silent=()):
    """A table of one shard; ``ready`` maps each replica's server to whether it is, those in ``silent`` do not vote."""
    shards = ()
    if ready is not None:
        replicas = tuple(
            Replica(server, "ready" if is_ready else "backfilling", server not in silent)
            for server, is_ready in ready.items()
        )
        shards = (Shard(replicas),)
    return Table(name, reads, writes, reads and writes, shards)


class World:
    """Nodes that are well until told otherwise, polled every second."""

    def __init__(self, *policies, limits=None, remembered=None, now=1_000_000.0):
        self.policies = {p.name: p for p in policies or (policy(),)}
        self.now = now
        self.faults = {(p.name, n): None for p in self.policies.values() for n in p.nodes}
        self.effects = []
        self.commands = 0
        self.cache_readable = True
        self.truthful = (
            True  # minions that are asked whether a job that has returned still runs say no
        )
        self.proofs = set()  # ids of such looks
        self.forbidden = False  # the probe's user may not read the system tables
        self.cut_off = set()  # nodes that refuse the healer and serve everybody else
        self.greeted = set()  # nodes that say something before they fall silent
        self.state, effects = begin(self.policies, limits or Limits(), remembered or {}, now)
        self.effects += effects

    def step(self, event):
        self.state, effects = step(self.state, event, self.now)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Fire) and self.truthful:
                self.prove(effect.attempt)
        return effects

    def prove(self, look):
        """The minions' answer to a look that asks whether a job runs on although its results say that it does not."""
        returned = [
            late
            for c in self.state.clusters.values()
            for late in c.late
            if late.attempt.id == look.of and not set(look.nodes) & set(owed(late.attempt))
        ]
        if returned:
            self.proofs.add(look.id)
            for node in look.nodes:
                self.step(Returned(look.id, node, Outcome.DONE, "the job does not run"))

    # what happens

    def poll(self, cluster=None):
        for (name, node), fault in self.faults.items():
            if cluster in (None, name):
                evidence = "answers" if fault is None else f"{fault.value} it is"
                self.step(
                    Observed(
                        Observation(
                            name,
                            node,
                            fault,
                            evidence,
                            server_id=f"id-{node}",
                            server_name=node,
                            silent=fault in SILENT and node not in self.greeted,
                        )
                    )
                )

        for name in self.policies:
            if cluster in (None, name) and Fault.DEAD in self.faults_of(name):
                self.meet(name)

    def faults_of(self, cluster):
        return [self.faults[cluster, n] for n in self.policies[cluster].nodes]

    def meet(self, cluster="runbook", **changes):
        """Whom the nodes that answer are connected to, as the probe asks at once where a dial is refused."""
        away = (Fault.DEAD, Fault.UNREACHABLE, Fault.HUNG)
        names = self.policies[cluster].nodes
        there = [n for n in names if self.faults[cluster, n] not in away or n in self.cut_off]
        ids = frozenset(f"id-{n}" for n in there)
        asked = [n for n in names if self.faults[cluster, n] in (None, Fault.SLOW)]
        if asked and not self.forbidden:
            met = {"connected": dict.fromkeys(asked, ids), **changes}
            self.step(Met(cluster, **met))

    def look(self, cluster="runbook", **changes):
        """A round over the cluster's system tables: all well but for the changes."""
        names = self.policies[cluster].nodes
        values = {
            "cluster": cluster,
            "node": names[0],
            "status": ViewStatus.KNOWN,
            "why": "",
            "tables": (table(),),
            "connected": {n: frozenset(f"id-{m}" for m in names) for n in names},
        }
        return self.step(Viewed(ClusterView(**{**values, **changes})))

    def pass_time(self, seconds, poll=True, **view):
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self.step(Tick())
            if self.cache_readable:
                for one in (self.cluster.attempt, self.cluster.look):
                    if one and one.published_at is None:
                        self.step(Missing(one.id))
            if poll:
                self.poll()
            if view:
                self.look(**view)

    def warm(self):
        """Until the healer may act."""
        self.pass_time(20)
        return self

    def break_(self, *nodes, fault=Fault.DEAD, cluster="runbook"):
        for node in nodes:
            self.faults[cluster, node] = fault

    def mend(self, *nodes, cluster="runbook"):
        for node in nodes:
            self.faults[cluster, node] = None

    def publish(self):
        self.step(Published(self.in_flight.id))

    def returns(self, outcome=Outcome.DONE, detail="", nodes=None):
        """The job in flight comes back, on all its minions or on these."""
        attempt = self.in_flight
        for node in nodes or attempt.nodes:
            self.step(Returned(attempt.id, node, outcome, detail))

    def ask(self, action="highstate", nodes=(), cluster="runbook", id="r1"):
        self.step(Requested(Request(id, cluster, action, tuple(nodes), "", Door.RUNNER, "app")))
        return self.answer(id)

    def answer(self, id):
        """What somebody was told. A restart that the probe does not agree to waits for a fresh dial."""
        told = [e for e in self.effects if isinstance(e, Answer) and e.request.id == id]
        if not told:
            self.pass_time(1)
            told = [e for e in self.effects if isinstance(e, Answer) and e.request.id == id]
        return told[-1]

    def order(self, verb, cluster=None, incident=None, by="ann", id=None, **fields):
        """An operator's command; returns its answer."""
        self.commands += 1
        command = Command(id or f"c{self.commands}", Verb(verb), by, cluster, incident, **fields)
        return next(e for e in self.step(Commanded(command)) if isinstance(e, Answer))

    # what came of it

    @property
    def cluster(self):
        return self.state.clusters.get("runbook") or next(iter(self.state.clusters.values()))

    @property
    def in_flight(self):
        return self.cluster.look or self.cluster.attempt

    @property
    def fired(self):
        """(action, nodes) of every attempt, in order; repeated firings once."""
        return [
            (e.attempt.action.value, e.attempt.nodes)
            for e in self.effects
            if isinstance(e, Fire) and e.attempt.firings == 1 and e.attempt.id not in self.proofs
        ]

    @property
    def firings(self):
        fired = [e.attempt.id for e in self.effects if isinstance(e, Fire)]
        return [id for id in fired if id not in self.proofs]

    @property
    def finished(self):
        ended = [(e.attempt.id, e.outcome) for e in self.effects if isinstance(e, Finish)]
        return [one for one in ended if one[0] not in self.proofs]

    @property
    def said(self):
        """(incident, what) of every announcement, in order."""
        return [(e.incident.id, e.said) for e in self.effects if isinstance(e, Announce)]

    def last_said(self, incident="runbook-1"):
        return [e for e in self.effects if isinstance(e, Announce) and e.incident.id == incident][
            -1
        ]

    def heal(self, *nodes, after=2):
        """The job in flight returns, and these nodes are well."""
        self.publish()
        self.pass_time(after)
        self.mend(*nodes)
        self.returns()
