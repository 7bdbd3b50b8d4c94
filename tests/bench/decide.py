"""
The decision's figures: steps per second, what a well cluster weighs, how soon a transition is durable, a large ledger.

No daemon runs: the core by itself, and the ledger on the disk of the temporary folder. The floors (a bare transaction of
SQLite, one ``dataclasses.replace``) are measured in the same run.
"""

import itertools
import json
import sqlite3
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.events import Observation, Observed, Tick
from saltext_selfheal.healing.model import Announce, ClusterState, Fault, Limits, NodeState, Policy
from saltext_selfheal.healing.start import begin
from saltext_selfheal.healing.step import step
from saltext_selfheal.ledger import records
from saltext_selfheal.ledger.chain import link_hash
from saltext_selfheal.ledger.writer import Ledger

CLUSTERS = 100
NODES = 3
STEPS = 100_000
TRANSITIONS = 500
AUDIT_ROWS = 1_000_000


def measure(options, tell):
    """All of it."""
    return {**steps(tell), **durable(tell), **large(tell)}


# ---------------------------------------------------------------- steps


class _Site:
    """A hundred clusters that are polled in turn; some nodes are dead."""

    def __init__(self, dead=()):
        self.now = 1_000_000.0
        policies = {}
        for number in range(CLUSTERS):
            name = f"c{number}"
            policies[name] = Policy(
                name=name,
                nodes=tuple(f"n{number}-{i}" for i in range(NODES)),
                minions="n*",
                confirm_s=dict.fromkeys(Fault, 3.0),
                escalation=dict(escalation.DEFAULT),
            )
        self.state, _ = begin(policies, Limits(), {}, self.now)
        self.events = [
            Observed(
                Observation(
                    name,
                    node,
                    Fault.DEAD if name in dead and node.endswith("-0") else None,
                    "as told",
                    0.001,
                    f"server-id-of-{node}",
                    node,
                    "2.4.4",
                )
            )
            for name, policy in policies.items()
            for node in policy.nodes
        ]

    def run(self, count):
        """So many steps, a tick after each hundred; steps per second of CPU time."""
        began = time.process_time()
        for done, event in enumerate(itertools.cycle(self.events), 1):
            self.now += 2.0 / len(self.events)
            self.state, _ = step(self.state, event, self.now)
            if done % 100 == 0:
                self.state, _ = step(self.state, Tick(), self.now)
            if done >= count:
                return done / (time.process_time() - began)


def steps(tell):
    """Steps per second: all clusters well, and one in ten with a dead node whose incident is held."""
    site = _Site()
    site.run(STEPS // 10)
    well = site.run(STEPS)
    ill = _Site(dead={f"c{n}" for n in range(0, CLUSTERS, 10)})
    ill.run(STEPS // 10)
    sick = ill.run(STEPS)
    node = NodeState()
    began = time.process_time()
    for _ in range(STEPS):
        node = replace(node, polls=node.polls + 1)
    floor = STEPS / (time.process_time() - began)
    stored = len(TypeAdapter(ClusterState).dump_json(site.state.clusters["c0"]))
    tell(f"{well:,.0f} steps/s, {sick:,.0f} with a tenth of the clusters ill; {stored} bytes each")
    return {
        "clusters": CLUSTERS,
        "steps_per_s": round(well),
        "steps_per_s_tenth_ill": round(sick),
        "replaces_per_step": round(floor / well, 1),
        "state_bytes": stored,
    }


# ---------------------------------------------------------------- durable


def durable(tell):
    """From the decision to the committed transaction, beside a bare one-row transaction of SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        bare = sqlite3.connect(Path(folder) / "bare.sqlite3", isolation_level=None)
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute("PRAGMA synchronous=FULL")
        bare.execute("CREATE TABLE t (x TEXT)")
        ledger = Ledger(Path(folder) / "ledger.sqlite3")
        site = _Site(dead={"c0"})
        site.run(STEPS // 100)
        cluster = site.state.clusters["c0"]
        said = Announce(
            cluster.incidents[0], "cooldown: db1 rests for 60 s more", "open.held", held=True
        )
        ours, floor = [], []
        for number in range(TRANSITIONS):
            began = time.perf_counter()
            ledger.commit(site.now + number, [cluster], [said])
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            bare.execute("INSERT INTO t VALUES (?)", ("x" * 3000,))
            floor.append(time.perf_counter() - began)
        ledger.close()
        bare.close()
    median, least = statistics.median(ours), statistics.median(floor)
    tell(f"durable within {median * 1000:.2f} ms (median), a bare transaction {least * 1000:.2f}")
    return {
        "durable_median_s": round(median, 5),
        "durable_p99_s": round(sorted(ours)[int(TRANSITIONS * 0.99)], 5),
        "durable_ratio": round(median / least, 2),
    }


# ---------------------------------------------------------------- a large ledger


def _fill(path):
    """A million links of a chain that holds, over a hundred clusters."""

    def rows():
        before = ""
        for seq in range(1, AUDIT_ROWS + 1):
            cluster = f"c{seq % CLUSTERS}"
            incident = f"{cluster}-{seq // 1000}"
            text = json.dumps({"said": "held", "nodes": ["n1"], "why": "cooldown: n1 rests"})
            before = link_hash(before, seq, float(seq), cluster, incident, "incident", text)
            yield seq, float(seq), cluster, incident, "incident", text, before

    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("BEGIN")
    db.executemany("INSERT INTO audit VALUES (?,?,?,?,?,?,?)", rows())
    db.execute(  # as the engine would leave it
        "UPDATE meta SET value = (SELECT json_array(2, seq, hash) FROM audit ORDER BY seq DESC LIMIT 1)"
        " WHERE key = 'head'"
    )
    db.execute("COMMIT")
    db.close()


def large(tell):
    """Opening a ledger of a million audit rows, asking it for a cluster's history, proving all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        Ledger(path).close()
        _fill(path)
        began = time.perf_counter()
        Ledger(path).close()
        opened = time.perf_counter() - began
        with records.read(path) as db:
            asked = []
            for since in (0.0, AUDIT_ROWS / 2):
                began = time.perf_counter()
                found = records.history(db, "c7", since, 50)
                asked.append(time.perf_counter() - began)
                assert len(found) == 50
            began = time.perf_counter()
            proof = records.audit(db)
            proved = time.perf_counter() - began
        assert proof["ok"] and proof["rows"] == AUDIT_ROWS, proof
    tell(
        f"{AUDIT_ROWS:,} audit rows: opened in {opened:.2f} s, history in {max(asked) * 1000:.1f} ms, "
        f"proved in {proved:.1f} s"
    )
    return {
        "audit_rows": AUDIT_ROWS,
        "open_s": round(opened, 3),
        "history_s": round(max(asked), 5),
        "audit_s": round(proved, 2),
    }
