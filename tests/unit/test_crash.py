"""The healer dies at every point between two effects, and always comes to the same end.

One story is told again and again: db2 dies, a restart fails, a highstate brings it back. Each time the process ends at
another point: before, within or after a transaction of the ledger, before or after an event is fired. What lies outside
(the database, the minions, the job cache) lives on; a new healer takes over from the ledger alone.
"""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_selfheal.config import EngineSettings
from saltext_selfheal.healing.events import Missing, Observation, Observed, Published, Returned
from saltext_selfheal.healing.looks import owed as owed_by
from saltext_selfheal.healing.model import Fault, Outcome
from saltext_selfheal.ledger import claims, records
from saltext_selfheal.ledger.writer import Ledger
from saltext_selfheal.loop.healer import Healer

SETTINGS = EngineSettings.model_validate(
    {
        "clusters": {
            "runbook": {
                "minions": "db*",
                "nodes": {"db1": "10.0.0.1", "db2": "10.0.0.2"},
                "poll": "1s",
                "confirm": "2s",
                "stable": "5s",
                "attempt": {"timeout": "60s", "verify": "30s"},
                # A question that a crash has swallowed is not repeated.
                "witness": "off",
                "highstate": {"test_first": False},
            }
        }
    }
)
TOOK_S = 3  #: a job
DOWN_S = 4  #: from the healer's end to the next one
ENOUGH_S = 400


class Killed(BaseException):
    """As by SIGKILL: nothing of ours runs any more."""


class Points:
    """Counts the points at which a process can end, and ends it at those asked for."""

    def __init__(self, *at):
        self.at, self.count = set(at), 0

    def pass_(self):
        self.count += 1
        if self.count in self.at:
            raise Killed


class Outside:
    """Database, minions, job cache, and the bus with its reactor: nothing here dies with the healer."""

    def __init__(self, path, with_master):
        self.path, self.with_master = path, with_master
        self.now = 1_000_000.0
        self.well = True
        self.events = []
        self.jobs = {}
        self.ran = []

    def healer_died(self):
        if self.with_master:
            self.events.clear()

    def react(self):
        for tag, jid in self.events:
            order = records.order(self.path, jid)
            if not order or order["action"] != tag.rpartition("/")[2] or jid in self.jobs:
                continue
            if claims.take(self.path, jid, order["firing"], order["claimed"]):
                self.jobs[jid] = (order["action"], self.now + TOOK_S)
                self.ran.append((order["action"], tuple(order["minions"])))
        self.events.clear()
        if any(what == "highstate" and self.now >= end for what, end in self.jobs.values()):
            self.well = True

    def result(self, jid):
        what, end = self.jobs[jid]
        if self.now < end:
            return None
        return Outcome.FAILED if what == "restart" else Outcome.DONE


class Life:
    """One healer from its start to its end."""

    def __init__(self, outside, points):
        self.outside, self.points = outside, points
        self.ledger = Ledger(outside.path)
        self.ledger.timeline.now = lambda: outside.now
        self.watched = ()
        self.ledger.commit = self._deadly(self.ledger.commit)
        numbers = itertools.count(int(outside.now) * 1000)
        try:
            self.healer = Healer(
                settings=SETTINGS,
                ledger=self.ledger,
                bus=self,
                mint=lambda: f"{next(numbers):020d}",
            )
            self.healer.attach(self)
        except Killed:
            self.ledger.close()
            raise

    def _deadly(self, commit):
        """It may be killed before and after a transition is recorded, and around each effect in it."""

        def call(now, changed, effects):
            self.points.pass_()
            commit(now, changed, self._one_by_one(effects))
            self.points.pass_()

        return call

    def _one_by_one(self, effects):
        for effect in effects:
            self.points.pass_()
            yield effect
            self.points.pass_()

    # what the healer is given

    def fire(self, tag, data):
        self.points.pass_()
        if tag.startswith("selfheal/remediate/"):
            self.outside.events.append((tag, data["jid"]))
        self.points.pass_()
        return True

    def watch(self, watched):
        self.watched = watched

    def check(self):
        return None

    # what it sees

    def second(self):
        outside = self.outside
        outside.react()
        for one in self.watched:
            if one.jid not in outside.jobs:
                self.healer.handle(Missing(one.attempt))
                continue
            self.healer.handle(Published(one.attempt))
            outcome = outside.result(one.jid)
            if outcome is not None:
                self.healer.handle(Returned(one.attempt, "db2", outcome))
        for node in ("db1", "db2"):
            fault = None if node == "db1" or outside.well else Fault.DEAD
            self.healer.handle(Observed(Observation("runbook", node, fault, "as it is")))
        self.healer.tick()


def tell(path, points, with_master):
    """The story, from death to resolution."""
    outside = Outside(path, with_master)
    life, back_at = None, 0.0
    for second in range(ENOUGH_S):
        outside.now += 1
        if second == 30:
            outside.well = False
        try:
            if life is None:
                if outside.now < back_at:
                    outside.react()
                    continue
                life = Life(outside, points)
            life.second()
        except Killed:
            if life is not None:
                life.ledger.close()
            life, back_at = None, outside.now + DOWN_S
            outside.healer_died()
    life.ledger.close()
    return outside


def end_of(path, outside):
    """What must be the same however often the healer died."""
    with records.read(path) as db:
        rows = [tuple(r) for r in db.execute("SELECT id, action, outcome FROM attempts")]
        incidents = [tuple(r) for r in db.execute("SELECT id, phase FROM incidents")]
        finished = [
            json.loads(r["body"])["attempt"]
            for r in db.execute("SELECT body FROM audit WHERE kind = 'finish' ORDER BY seq")
        ]
        state = records.states(db)["runbook"]
    # Whether the restart has really ended is asked, once, or again where the answer was lost with the healer.
    looks = [id for id, action, _ in rows if action == "look"]
    assert looks and sorted(set(finished)) == sorted(finished)
    assert all(outcome for _, _, outcome in rows)
    owed = tuple(late for late in state.late if owed_by(late.attempt))
    return {
        "ran": [one for one in outside.ran if one[0] != "look"],
        "attempts": sorted(row for row in rows if row[0] not in looks),
        "finished": [id for id in finished if id not in looks],
        "incidents": incidents,
        "spent": len(state.nodes["db2"].spent),
        # The last job has returned, and nothing has asked whether that is true: it is remembered.
        "left": (state.incidents, state.attempt, state.look, owed),
        "well": outside.well,
    }


WANTED = {
    "ran": [("restart", ("db2",)), ("highstate", ("db2",))],
    "attempts": [("runbook-1.1", "restart", "failed"), ("runbook-1.2", "highstate", "done")],
    "finished": ["runbook-1.1", "runbook-1.2"],
    "incidents": [("runbook-1", "resolved")],
    "spent": 2,
    "left": ((), None, None, ()),
    "well": True,
}


def without_lost(end):
    """Three deaths, each right before an event is fired, and the attempt is written off: nothing ran, nothing is paid."""
    attempts = [row for row in end["attempts"] if row[2] != "lost"]
    lost = {row[0] for row in end["attempts"]} - {row[0] for row in attempts}
    incidents, attempt, look, owed = end["left"]
    return {
        **end,
        "attempts": [row[1:] for row in attempts],
        "finished": len(end["finished"]) - len(lost),
        "left": (
            incidents,
            attempt,
            look,
            tuple(one for one in owed if one.attempt.id not in lost),
        ),
    }


@pytest.fixture(scope="module")
def length(tmp_path_factory):
    """How many points the story has when nobody dies."""
    path = tmp_path_factory.mktemp("calm") / "ledger.sqlite3"
    points = Points()
    outside = tell(path, points, False)
    assert end_of(path, outside) == WANTED
    return points.count


@pytest.mark.parametrize("with_master", [False, True], ids=["engine", "master"])
def test_a_death_at_any_point_changes_nothing(tmp_path, length, with_master):
    assert length > 50
    for at in range(1, length + 1):
        path = tmp_path / str(at) / "ledger.sqlite3"
        outside = tell(path, Points(at), with_master)
        assert end_of(path, outside) == WANTED, f"died at point {at} of {length}"


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.sets(st.integers(1, 120), min_size=2, max_size=6), with_master=st.booleans())
def test_nor_do_several_deaths(tmp_path_factory, at, with_master):
    path = tmp_path_factory.mktemp("deaths") / "ledger.sqlite3"
    outside = tell(path, Points(*at), with_master)
    assert without_lost(end_of(path, outside)) == without_lost(WANTED)
