"""A ledger that the release before this one has written is read on: nothing is lost, nothing is done twice.

The file is the one of an engine that ended in the middle of its work: a healed incident; a highstate in flight on db2 with
a look on its way, after a restart that had failed; a restart in flight on shop1; a person's lock on shop2; a pause of wiki
with an incident that waits for an approval; and a lock that lies in the inbox unread.
"""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from saltext_selfheal.config import EngineSettings
from saltext_selfheal.healing.events import (
    Missing,
    Observation,
    Observed,
    Published,
    Returned,
    ViewStatus,
)
from saltext_selfheal.healing.model import (
    Action,
    Approval,
    Asked,
    Fault,
    Locked,
    Outcome,
    Phase,
    Seen,
    TablesRead,
    Turn,
)
from saltext_selfheal.ledger import older, records
from saltext_selfheal.ledger.writer import Ledger
from saltext_selfheal.loop.healer import Healer

RELEASE = Path(__file__).with_name("data") / "ledger-0.1.0.sqlite3.gz"
SETTINGS = EngineSettings.model_validate(
    {
        "clusters": {
            "runbook": {
                "minions": "db*",
                "nodes": {"db1": "10.0.0.1", "db2": "10.0.0.2", "db3": "10.0.0.3"},
                "poll": "1s",
                "confirm": "2s",
                "stable": "5s",
                "attempt": {"timeout": "20s", "verify": "5s"},
            },
            "shop": {"minions": "shop*", "nodes": {"shop1": "10.0.1.1", "shop2": "10.0.1.2"}},
            "wiki": {"minions": "wiki*", "nodes": {"wiki1": "10.0.2.1"}, "mode": "approve"},
        },
        "limits": {"storm": "off"},
    }
)
FIRST, HIGHSTATE, SHOPS = (f"2026112603000000000{n}" for n in (1, 4, 5))


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "ledger.sqlite3"
    where.write_bytes(gzip.decompress(RELEASE.read_bytes()))
    return where


class Engine:
    """A healer on that ledger, in the ledger's own time."""

    def __init__(self, path):
        self.fired = []
        self.watched = {}
        self.ledger = Ledger(path)
        self.now = self.ledger.timeline.now()
        self.ledger.timeline.now = lambda: self.now
        numbers = itertools.count(1)
        self.healer = Healer(
            settings=SETTINGS,
            ledger=self.ledger,
            bus=self,
            mint=lambda: f"2026112604{next(numbers):010}",
        )
        self.healer.attach(self)

    def fire(self, tag, data):
        self.fired.append((tag, data))
        return True

    def watch(self, watched):
        self.watched = {one.attempt: one for one in watched}

    def check(self):
        return None

    def second(self, *ill):
        self.now += 1
        for name, cluster in self.healer.state.clusters.items():
            for node in cluster.nodes:
                fault = Fault.DEAD if node in ill else None
                self.healer.handle(
                    Observed(Observation(name, node, fault, "as told", dialled=True))
                )
        self.healer.tick()


def test_what_an_older_engine_had_written_stands_as_it_was(path):
    with Opened(path) as states:
        runbook, shop, wiki = (states[name] for name in ("runbook", "shop", "wiki"))
    assert [(i.id, i.phase) for i in runbook.incidents] == [("runbook-2", Phase.REMEDIATING)]
    assert (runbook.attempt.id, runbook.attempt.action) == ("runbook-2.2", Action.HIGHSTATE)
    assert [late.attempt.jid for late in runbook.late] == [FIRST]
    assert [(i.id, i.phase, i.by_hand) for i in shop.incidents] == [
        ("shop-1", Phase.REMEDIATING, False),
        ("shop-2", Phase.LOCKED, True),
    ]
    assert wiki.pause.by == "root"
    assert wiki.incidents[0].held == ("paused", "approval")
    assert [r.node for r in runbook.recoveries] == ["db1"]
    with records.read(path) as db:
        assert records.audit(db)["ok"]
        assert records.incident(db, "runbook-1")["phase"] == "resolved"


def test_what_that_release_kept_in_texts_is_read_as_what_it_meant():
    incident = {
        "id": "wiki-1", "cluster": "wiki", "fault": "issue", "issue": "log_write_error", "nodes": ["wiki1"],
        "phase": "open", "opened_at": 1.0, "changed_at": 2.0, "held": "cooldown, limits",
        "acting": ["wiki1"], "job_failed": ["wiki1"], "tried": [], "visited": ["wiki1"],
        "approved_step": 1, "approved_at": 3.0, "approved_by": "root", "approved_nodes": ["wiki1"],
    }  # fmt: skip
    other = {**incident, "id": "wiki-2", "held": "", "approved_step": None}
    asked = {**other, "id": "wiki-3", "fault": "requested", "issue": "", "forced": True}
    lock = {**asked, "id": "wiki-4", "forced": False, "by_hand": True, "meant": ["wiki1"]}
    ailment = {"fault": "issue", "since": 1.0, "confirmed": True, "evidence": "no space left"}
    body = {
        "name": "wiki",
        "incidents": [incident, other, asked, lock],
        "ailments": {"issue:log_write_error": ailment, "partitioned": {**ailment, "fault": "partitioned"}},
        "view": "auth: the user may not read: it has no grant",
    }  # fmt: skip
    found = records.CLUSTER.validate_json(older.body_of_4(json.dumps(body)))
    assert [i.held for i in found.incidents] == [("cooldown", "limits"), (), (), ()]
    assert [i.approval for i in found.incidents] == [
        Approval(1, 3.0, "root", ("wiki1",)), None, None, None,
    ]  # fmt: skip
    assert found.incidents[0].turn == Turn(("wiki1",), ("wiki1",), (), ("wiki1",))
    assert found.incidents[0].cause == Seen(Fault.ISSUE, "log_write_error")
    assert [i.cause for i in found.incidents[2:]] == [Asked(True), Locked(("wiki1",))]
    assert found.ailment(Seen(Fault.ISSUE, "log_write_error")).evidence == "no space left"
    assert found.ailment(Seen(Fault.PARTITIONED)).confirmed
    why = "the user may not read: it has no grant"
    assert found.tables == TablesRead(ViewStatus.FORBIDDEN, why)


class Opened:
    """What a ledger remembers, opened and closed by the engine's own class."""

    def __init__(self, path):
        self.ledger = Ledger(path)

    def __enter__(self):
        assert self.ledger.lost is None
        return self.ledger.clusters()

    def __exit__(self, *_):
        self.ledger.close()


def test_jobs_in_flight_are_watched_under_the_jids_they_had(path):
    engine = Engine(path)
    assert engine.ledger.lost is None
    jids = {name: (one.jid, one.of_jid) for name, one in engine.watched.items()}
    assert jids["runbook-2.2"] == (HIGHSTATE, None)
    assert jids["shop-1.1"] == (SHOPS, None)
    look = next(one for name, one in engine.watched.items() if one.action is Action.LOOK)
    assert look.of_jid == HIGHSTATE
    assert not [tag for tag, _ in engine.fired if tag.startswith("selfheal/remediate/restart")]


def test_it_is_healed_to_its_end_and_nothing_is_done_twice(path):
    engine = Engine(path)
    for _ in range(3):
        engine.second("db2", "shop1", "wiki1")
    engine.healer.handle(Returned("runbook-2.2", "db2", Outcome.DONE, "3 states"))
    engine.healer.handle(Returned("shop-1.1", "shop1", Outcome.DONE, ""))
    for _ in range(60):
        for name, one in engine.watched.items():
            if one.action is Action.LOOK:
                engine.healer.handle(Published(name))
                engine.healer.handle(Returned(name, one.nodes[0], Outcome.DONE, "it does not run"))
            else:
                engine.healer.handle(Missing(name))
        engine.second("wiki1")
    ended = {i.id for c in engine.healer.state.clusters.values() for i in c.incidents}
    assert ended == {"shop-2", "wiki-1", "wiki-2"}
    done = [tag for tag, _ in engine.fired if tag.startswith("selfheal/remediate/")]
    assert set(done) <= {"selfheal/remediate/look", "selfheal/remediate/witness"}


def test_what_lay_in_the_inbox_comes_before_the_first_decision(path):
    engine = Engine(path)
    locks = [i for i in engine.healer.state.clusters["wiki"].incidents if i.by_hand]
    assert [(i.phase, i.why) for i in locks] == [
        (Phase.LOCKED, "locked by root: asked while no engine ran")
    ]
