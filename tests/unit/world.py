"""A cluster in virtual time around `step()`: tests tell it what happens and read what the healer orders."""

from dataclasses import replace

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.model import Announce
from saltext_selfheal.healing.model import Answer
from saltext_selfheal.healing.model import ClusterView
from saltext_selfheal.healing.model import Command
from saltext_selfheal.healing.model import Commanded
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.healing.model import Finish
from saltext_selfheal.healing.model import Fire
from saltext_selfheal.healing.model import Limits
from saltext_selfheal.healing.model import Missing
from saltext_selfheal.healing.model import Observation
from saltext_selfheal.healing.model import Observed
from saltext_selfheal.healing.model import Outcome
from saltext_selfheal.healing.model import Policy
from saltext_selfheal.healing.model import Published
from saltext_selfheal.healing.model import Replica
from saltext_selfheal.healing.model import Request
from saltext_selfheal.healing.model import Requested
from saltext_selfheal.healing.model import Returned
from saltext_selfheal.healing.model import Shard
from saltext_selfheal.healing.model import Table
from saltext_selfheal.healing.model import Tick
from saltext_selfheal.healing.model import Verb
from saltext_selfheal.healing.model import Viewed
from saltext_selfheal.healing.model import ViewStatus
from saltext_selfheal.healing.start import begin
from saltext_selfheal.healing.step import step

NODES = ("db1", "db2", "db3")


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
        shards = (Shard(tuple(ready)[:1], replicas),)
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
        self.state, effects = begin(self.policies, limits or Limits(), remembered or {}, now)
        self.effects += effects

    def step(self, event):
        self.state, effects = step(self.state, event, self.now)
        self.effects += effects
        return effects

    # what happens

    def poll(self, cluster=None):
        for (name, node), fault in self.faults.items():
            if cluster in (None, name):
                evidence = "answers" if fault is None else f"{fault.value} it is"
                self.step(
                    Observed(
                        Observation(
                            name, node, fault, evidence, server_id=f"id-{node}", server_name=node
                        )
                    )
                )

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
        effects = self.step(
            Requested(Request(id, cluster, action, tuple(nodes), "", "test", "app"))
        )
        return next(e for e in effects if isinstance(e, Answer))

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
            if isinstance(e, Fire) and e.attempt.firings == 1
        ]

    @property
    def firings(self):
        return [e.attempt.id for e in self.effects if isinstance(e, Fire)]

    @property
    def finished(self):
        return [(e.attempt.id, e.outcome) for e in self.effects if isinstance(e, Finish)]

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
