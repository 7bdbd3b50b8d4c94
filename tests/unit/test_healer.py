"""The loop's order: decide, write down, do. With a real ledger, and a bus that only listens."""

import math
import sqlite3
import time
from dataclasses import replace

import pytest

from saltext_selfheal.config import EngineSettings
from saltext_selfheal.healing.events import (
    Command,
    Commanded,
    Door,
    Missing,
    Observation,
    Observed,
    Published,
    Request,
    Requested,
    Returned,
    Verb,
)
from saltext_selfheal.healing.model import Fault, Outcome
from saltext_selfheal.ledger import inbox, records, timeline
from saltext_selfheal.ledger.file import Unavailable, ValueRefused
from saltext_selfheal.ledger.writer import Ledger
from saltext_selfheal.loop.healer import Healer

CLUSTER = {
    "minions": "db*", "nodes": {"db1": "10.0.0.1", "db2": "10.0.0.2"}, "poll": "10s", "timeout": "10s",
    "confirm": 0, "stable": 0, "witness": "off", "attempt": {"timeout": "30s", "verify": "30s"},
}  # fmt: skip
SETTINGS = EngineSettings.model_validate({"clusters": {"runbook": CLUSTER}})


class Bus:
    """Remembers what was fired, and what the ledger knew at that moment."""

    def __init__(self, path):
        self.path, self.fired = path, []

    def fire(self, tag, data):
        order = (
            records.order(self.path, data["jid"]) if tag.startswith("selfheal/remediate/") else None
        )
        self.fired.append((tag, dict(data), order))
        return True

    def tags(self, start=""):
        return [tag for tag, _, _ in self.fired if tag.startswith(start)]


class Jobs:
    def __init__(self):
        self.watched = ()

    def watch(self, watched):
        self.watched = watched

    def check(self):
        return None


class Engine:
    """One life of the healer. The clock is the test's."""

    def __init__(self, path, clock):
        self.ledger = Ledger(path)
        self.ledger.timeline.now = lambda: clock[0]
        self.bus, self.jobs = Bus(path), Jobs()
        numbers = iter(range(10**6))
        self.healer = Healer(
            settings=SETTINGS,
            ledger=self.ledger,
            bus=self.bus,
            mint=lambda: f"{int(clock[0]):014d}{next(numbers):06d}",
        )
        self.dialled = []
        self.healer.attach(self.jobs, self)
        self.clock = clock

    def dial(self, cluster, nodes):
        self.dialled.append((cluster, nodes))

    def see(self, node, fault=None):
        self.healer.handle(Observed(Observation("runbook", node, fault, "as told")))

    def pass_time(self, seconds, db2=None):
        for _ in range(seconds):
            self.clock[0] += 1
            self.see("db1")
            self.see("db2", db2)
            self.healer.tick()

    def die(self):
        """As by kill -9: nothing is finished, the kernel lets the lock go."""
        self.ledger.close()

    @property
    def attempt(self):
        return self.healer.state.clusters["runbook"].attempt


@pytest.fixture
def clock():
    return [1_000_000.0]


@pytest.fixture
def engine(path, clock):
    made = Engine(path, clock)
    made.pass_time(20)
    return made


def test_an_order_is_in_the_ledger_before_its_event_is_fired(engine):
    engine.see("db2", Fault.DEAD)
    ((_, data, order),) = [f for f in engine.bus.fired if f[0] == "selfheal/remediate/restart"]
    assert (order["jid"], order["minions"], order["args"]) == (data["jid"], ["db2"], ["rethinkdb"])
    assert [w.jid for w in engine.jobs.watched] == [data["jid"]]


def test_what_heals_is_fired_before_what_tells(engine):
    engine.see("db2", Fault.DEAD)
    tags = engine.bus.tags()
    first = tags.index("selfheal/remediate/restart")
    assert not [t for t in tags[:first] if t.startswith("selfheal/incident/")]


def test_what_cannot_be_written_is_not_done_and_is_said_once(engine, monkeypatch):
    def full(*_):
        raise Unavailable("database or disk is full")

    monkeypatch.setattr(engine.ledger, "commit", full)
    for _ in range(5):
        engine.see("db2", Fault.DEAD)
    assert engine.bus.tags("selfheal/remediate/") == []
    assert engine.bus.tags("selfheal/engine/ledger_failed") == ["selfheal/engine/ledger_failed"]
    monkeypatch.undo()
    engine.see("db2", Fault.DEAD)
    assert engine.bus.tags("selfheal/remediate/") == ["selfheal/remediate/restart"]


def test_what_is_told_only_once_is_kept_until_it_can_be_written(engine, monkeypatch):
    engine.see("db2", Fault.DEAD)
    attempt = engine.attempt.id

    def full(*_):
        raise Unavailable("database or disk is full")

    monkeypatch.setattr(engine.ledger, "commit", full)
    engine.healer.handle(Published(attempt))
    engine.healer.handle(Returned(attempt, "db2", Outcome.DONE))
    engine.healer.handle(Requested(Request("r1", "runbook", "highstate", door=Door.BUS)))
    monkeypatch.undo()
    engine.healer.tick()
    assert engine.attempt is None
    assert engine.ledger.answered("r1")


def test_one_heartbeat_that_failed_does_not_close_the_inbox(engine, path, monkeypatch):
    def full():
        raise Unavailable("database or disk is full")

    monkeypatch.setattr(engine.ledger, "beat", full)
    monkeypatch.setattr("saltext_selfheal.loop.healer.HEARTBEAT_S", -math.inf)  # always due
    engine.healer.tick()
    monkeypatch.undo()
    pause = Command("c1", Verb.PAUSE, "ann", "runbook", for_s=3600.0, reason="upgrade")
    inbox.ask(path, pause)
    engine.healer.tick()
    assert engine.ledger.answered("c1")
    engine.see("db2", Fault.DEAD)
    assert engine.bus.tags("selfheal/remediate/") == []


def test_one_request_that_cannot_be_handled_takes_no_other_with_it(engine, caplog):
    """A lone half of a surrogate pair cannot be stored; the doors let none in."""
    good = [Requested(Request(f"r{n}", "runbook", "highstate", door=Door.BUS)) for n in range(2)]
    bad = Requested(Request("odd", "runbook", "highstate", ("\ud800",), door=Door.BUS))
    engine.healer.handle(good[0], bad, good[1])
    assert all(engine.ledger.answered(id) for id in ("r0", "odd", "r1"))
    assert "'odd' cannot be handled" in caplog.text


def test_a_row_whose_values_sqlite_does_not_take_holds_up_nobody(engine, path, monkeypatch):
    commit = engine.ledger.commit

    def picky(now, changed, effects):
        if any("odd" in repr(effect) and "reason='x'" in repr(effect) for effect in effects):
            raise ValueRefused("string or blob too big")
        commit(now, changed, effects)

    monkeypatch.setattr(engine.ledger, "commit", picky)
    for name in ("r0", "odd", "r1"):
        inbox.ask(path, Request(name, "runbook", "highstate", reason="x" * (name == "odd")))
    engine.healer.tick()
    with records.read(path) as db:
        assert inbox.answer(db, "odd")["why"] == "it cannot be handled: its values cannot be stored"
    assert all(engine.ledger.answered(name) for name in ("r0", "r1"))
    engine.see("db2", Fault.DEAD)
    assert engine.bus.tags("selfheal/remediate/")


def test_what_was_stored_too_long_ago_is_refused_at_the_start(engine, path, clock):
    inbox.ask(path, Request("r1", "runbook", "highstate", door=Door.RUNNER))
    engine.die()
    book = sqlite3.connect(path)
    with book:
        book.execute("UPDATE inbox SET put_at = ?", (clock[0] - 3 * 86400,))
    book.close()
    again = Engine(path, clock)
    with records.read(path) as db:
        assert inbox.answer(db, "r1")["why"].startswith("asked 259200 s ago")
    again.pass_time(30)
    assert again.bus.tags("selfheal/remediate/") == []


def test_a_killed_engine_goes_on_with_the_same_jid_and_fires_nothing_twice(engine, path, clock):
    engine.see("db2", Fault.DEAD)
    jid = engine.jobs.watched[0].jid
    engine.die()
    again = Engine(path, clock)
    assert [w.jid for w in again.jobs.watched] == [jid]
    again.healer.handle(Published("runbook-1.1"))
    again.healer.handle(Returned("runbook-1.1", "db2", Outcome.DONE))
    again.pass_time(30)
    assert again.bus.tags("selfheal/remediate/") == []
    assert "selfheal/incident/runbook/resolved" in again.bus.tags()


def test_an_engine_killed_before_the_event_fires_it_again_under_the_same_jid(engine, path, clock):
    engine.see("db2", Fault.DEAD)
    jid = engine.jobs.watched[0].jid
    engine.die()
    again = Engine(path, clock)
    for _ in range(20):
        again.pass_time(1, db2=Fault.DEAD)
        again.healer.handle(Missing("runbook-1.1"))
    again.pass_time(1, db2=Fault.DEAD)
    fired = [
        (tag, data["jid"])
        for tag, data, _ in again.bus.fired
        if tag.startswith("selfheal/remediate/")
    ]
    assert fired == [("selfheal/remediate/restart", jid)]


def test_a_look_at_the_start_has_a_jid_of_its_own(engine, path, clock):
    engine.see("db2", Fault.DEAD)
    engine.healer.handle(Published("runbook-1.1"))
    engine.die()
    clock[0] += 1000
    again = Engine(path, clock)
    again.pass_time(12, db2=Fault.DEAD)
    ((_, data, order),) = [f for f in again.bus.fired if f[0] == "selfheal/remediate/look"]
    assert data["jid"] == order["jid"]
    assert {w.attempt for w in again.jobs.watched} == {"runbook-1.1", "runbook-1.1-look-1"}


def test_a_request_given_while_the_engine_was_down_is_answered_at_its_start(engine, path, clock):
    engine.die()
    inbox.ask(path, Request("r1", "runbook", "destroy", door=Door.RUNNER))
    again = Engine(path, clock)
    assert again.ledger.answered("r1")
    assert "selfheal/decision/r1" in again.bus.tags()


def test_a_request_that_waits_for_a_fresh_dial_keeps_no_other_waiting(engine, path, clock):
    inbox.ask(path, Request("r1", "runbook", "restart", door=Door.RUNNER))
    inbox.ask(path, Request("r2", "runbook", "destroy", door=Door.RUNNER))
    engine.healer.tick()
    assert not engine.ledger.answered("r1")
    assert engine.ledger.answered("r2")
    engine.pass_time(2)
    assert engine.ledger.answered("r1")


def test_a_request_that_waits_is_decided_by_the_next_engine(engine, path, clock):
    inbox.ask(path, Request("r1", "runbook", "restart", door=Door.RUNNER))
    engine.healer.tick()
    engine.die()
    again = Engine(path, clock)
    assert not again.ledger.answered("r1")
    again.pass_time(2)
    assert again.ledger.answered("r1")


def test_after_a_gap_everything_is_looked_at_anew(engine, clock):
    clock[0] += 3600
    engine.healer.tick()
    assert engine.healer.state.started_at == clock[0]
    engine.see("db2", Fault.DEAD)
    assert engine.bus.tags("selfheal/remediate/") == []


def test_a_lost_ledger_stays_lost_until_something_was_written(path, clock):
    Ledger(path).close()
    path.write_bytes(b"not a database" * 400)
    Ledger(path).close()  # finds the damage, and dies before its first transition
    again = Engine(path, clock)
    assert "selfheal/engine/ledger_lost" in again.bus.tags()
    assert len(again.healer.state.clusters["runbook"].nodes["db1"].spent) == 3
    again.die()
    assert Ledger(path).lost is None


def test_requests_that_wait_together_are_one_transaction(engine):
    commits = []
    commit = engine.ledger.commit
    engine.ledger.commit = lambda *args: (commits.append(args), commit(*args))
    for number in range(50):
        engine.healer.deliver(
            Requested(Request(f"r{number % 40}", "runbook", "highstate", door=Door.BUS))
        )
    engine.healer.turn(0.0)
    assert len(commits) == 1
    assert all(engine.ledger.answered(f"r{number}") for number in range(40))
    assert len(engine.bus.tags("selfheal/decision/")) == 40


def test_requests_that_could_not_be_written_are_all_kept(engine, monkeypatch):
    def full(*_):
        raise Unavailable("database or disk is full")

    monkeypatch.setattr(engine.ledger, "commit", full)
    for number in range(3):
        engine.healer.deliver(
            Requested(Request(f"r{number}", "runbook", "highstate", door=Door.BUS))
        )
    engine.healer.turn(0.0)
    monkeypatch.undo()
    engine.healer.tick()
    assert all(engine.ledger.answered(f"r{number}") for number in range(3))


# ---------------------------------------------------------------- what cannot be read or written


PAUSE = Command("c1", Verb.PAUSE, "ann", "runbook", for_s=3600.0, reason="upgrade")


def full(*_):
    raise Unavailable("database or disk is full")


@pytest.fixture
def unreadable(monkeypatch):
    """Makes every read of the inbox fail, as SQLite itself lets it fail."""
    return lambda: monkeypatch.setattr(
        inbox, "unanswered_rows", lambda db, most: db.execute("SELECT it FROM nowhere")
    )


def test_no_healer_begins_while_the_inbox_cannot_be_read(
    engine, path, clock, unreadable, monkeypatch
):
    engine.die()
    inbox.ask(path, PAUSE)
    book, bus = Ledger(path), Bus(path)
    book.timeline.now = lambda: clock[0]
    unreadable()
    for _ in range(3):
        with pytest.raises(Unavailable, match="no such table: nowhere"):
            Healer(settings=SETTINGS, ledger=book, bus=bus, mint=lambda: "0" * 20)
    monkeypatch.undo()
    healer = Healer(settings=SETTINGS, ledger=book, bus=bus, mint=lambda: "0" * 20)
    assert healer.state.clusters["runbook"].pause is not None
    assert bus.tags("selfheal/remediate/") == []


def test_nothing_is_fired_while_a_pause_may_lie_in_an_inbox_that_cannot_be_read(
    engine, path, unreadable, monkeypatch
):
    unreadable()
    inbox.ask(path, PAUSE)
    engine.healer.tick()
    for _ in range(3):
        engine.see("db2", Fault.DEAD)
        engine.healer.tick()
    failed = [data["why"] for tag, data, _ in engine.bus.fired if tag.endswith("/ledger_failed")]
    assert failed == ["the inbox cannot be read: no such table: nowhere"]
    monkeypatch.undo()
    engine.see("db2", Fault.DEAD)
    assert engine.ledger.answered("c1")
    assert engine.bus.tags("selfheal/remediate/") == []


def test_a_pause_that_could_not_be_written_is_the_first_thing_that_is(engine, path, monkeypatch):
    monkeypatch.setattr(engine.ledger, "commit", full)
    inbox.ask(path, PAUSE)
    engine.healer.tick()
    monkeypatch.undo()
    engine.see("db2", Fault.DEAD)
    assert engine.ledger.answered("c1")
    assert engine.bus.tags("selfheal/remediate/") == []


def test_what_lies_in_the_inbox_is_kept_nowhere_else(engine, path, monkeypatch):
    engine.see("db2", Fault.DEAD)
    attempt = engine.attempt.id
    for number in range(20):
        inbox.ask(path, Request(f"r{number}", "runbook", "highstate", door=Door.RUNNER))
    monkeypatch.setattr(engine.ledger, "commit", full)
    for _ in range(30):
        engine.healer.tick()
    assert not engine.healer.kept
    engine.healer.handle(Published(attempt))
    engine.healer.handle(Returned(attempt, "db2", Outcome.DONE))
    monkeypatch.undo()
    engine.healer.tick()
    assert engine.attempt is None
    assert all(engine.ledger.answered(f"r{number}") for number in range(20))


def test_a_flood_of_requests_displaces_no_result_of_a_job(engine, monkeypatch):
    engine.see("db2", Fault.DEAD)
    attempt = engine.attempt.id
    monkeypatch.setattr("saltext_selfheal.loop.backlog.KEPT_REQUESTS", 2)
    monkeypatch.setattr(engine.ledger, "commit", full)
    for number in range(5):
        engine.healer.handle(
            Requested(Request(f"r{number}", "runbook", "highstate", door=Door.BUS))
        )
    engine.healer.handle(Published(attempt))
    engine.healer.handle(Returned(attempt, "db2", Outcome.DONE))
    monkeypatch.undo()
    engine.healer.tick()
    assert engine.attempt is None
    assert [engine.ledger.answered(f"r{number}") for number in range(5)] == [True] * 2 + [False] * 3


def test_the_first_that_fails_ends_a_tick_and_nothing_changes_its_place(engine, monkeypatch):
    engine.see("db2", Fault.DEAD)
    attempt, tried = engine.attempt.id, []
    monkeypatch.setattr(engine.ledger, "commit", full)
    news = [Published(attempt), Returned(attempt, "db2", Outcome.DONE)]
    for event in news:
        engine.healer.handle(event)
    monkeypatch.setattr(engine.ledger, "commit", lambda *args: (tried.append(args), full()))
    engine.healer.tick()
    assert len(tried) == 1
    assert list(engine.healer.kept) == news


class Watch:
    """The process's clock, in the hands of a test."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


def test_somebody_elses_lock_is_waited_out_once_and_then_left_alone_for_as_long(
    engine, path, monkeypatch
):
    watch, waits = Watch(), []

    def locked(*_):
        waits.append(watch.now)
        watch.now += 5.0
        raise Unavailable("database is locked")

    for room in ("healer", "backlog", "decide"):
        monkeypatch.setattr(f"saltext_selfheal.loop.{room}.time", watch)
    monkeypatch.setattr("saltext_selfheal.loop.healer.HEARTBEAT_S", -math.inf)  # always due
    for name in ("commit", "beat", "prune"):
        monkeypatch.setattr(engine.ledger, name, locked)
    inbox.ask(path, PAUSE)
    for _ in range(10):
        engine.healer.tick()
        engine.see("db2", Fault.DEAD)
    assert waits == [1000.0]
    watch.now += 5.0
    engine.healer.tick()
    assert waits == [1000.0, 1010.0]


def test_after_a_gap_nothing_comes_before_the_new_start_even_if_it_cannot_be_written(
    engine, clock, monkeypatch
):
    clock[0] += 3600
    monkeypatch.setattr(engine.ledger, "commit", full)
    engine.healer.tick()
    assert engine.healer.state.started_at != clock[0]
    monkeypatch.undo()
    engine.see("db2", Fault.DEAD)
    assert engine.healer.state.started_at == clock[0]
    assert engine.bus.tags("selfheal/remediate/") == []


def test_a_write_that_blocks_for_longer_than_a_gap_is_one(engine, clock, monkeypatch):
    watch = Watch()
    for room in ("healer", "backlog", "decide"):
        monkeypatch.setattr(f"saltext_selfheal.loop.{room}.time", watch)

    def blocked(*_):
        watch.now += 60.0
        clock[0] += 60.0
        raise Unavailable("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(engine.ledger, "commit", blocked)
        engine.see("db2", Fault.DEAD)
    for _ in range(600):  # it is left alone for as long as it had blocked
        watch.now += 0.2
        clock[0] += 0.2
        engine.healer.tick()
    assert engine.healer.state.started_at > clock[0] - 65.0
    engine.see("db2", Fault.DEAD)
    assert engine.bus.tags("selfheal/remediate/") == []


def test_what_waited_through_a_gap_is_taken_after_the_new_start(engine, clock):
    clock[0] += 3600
    engine.see("db2", Fault.DEAD)  # before the first tick
    assert engine.healer.state.started_at == clock[0]
    assert engine.bus.tags("selfheal/remediate/") == []


def test_who_could_record_nothing_for_a_while_looks_at_everything_anew(engine, clock, monkeypatch):
    monkeypatch.setattr(engine.ledger, "commit", full)
    for _ in range(12):
        clock[0] += 1
        engine.see("db2", Fault.DEAD)
        engine.healer.tick()
    monkeypatch.undo()
    engine.see("db2", Fault.DEAD)
    assert engine.healer.state.started_at == clock[0]
    assert engine.bus.tags("selfheal/remediate/") == []


def test_a_new_start_waits_until_the_inbox_can_be_read(engine, clock, unreadable, monkeypatch):
    engine.healer.handle(
        Commanded(Command("c2", Verb.LOCK, "ann", "runbook", reason="the disks are replaced"))
    )
    told = len(engine.bus.tags("selfheal/incident/runbook/locked"))
    unreadable()
    engine.ledger.give_again()
    for _ in range(30):
        clock[0] += 1
        engine.see("db2", Fault.DEAD)
        engine.healer.tick()
    assert len(engine.bus.tags("selfheal/incident/runbook/locked")) == told
    monkeypatch.undo()
    engine.healer.tick()
    assert engine.healer.state.started_at == clock[0]
    assert len(engine.bus.tags("selfheal/incident/runbook/locked")) == told + 1


def test_a_lost_ledger_is_told_once_and_not_before_that_is_on_record(path, clock, monkeypatch):
    Ledger(path).close()
    path.write_bytes(b"not a database" * 400)
    book, bus = Ledger(path), Bus(path)
    monkeypatch.setattr(book, "commit", full)
    for _ in range(3):
        with pytest.raises(Unavailable):
            Healer(settings=SETTINGS, ledger=book, bus=bus, mint=lambda: "0" * 20)
    assert bus.tags() == []
    with records.read(path) as db:
        assert records.history(db, None, 0.0, 10) == []
    monkeypatch.undo()
    Healer(settings=SETTINGS, ledger=book, bus=bus, mint=lambda: "0" * 20)
    assert bus.tags("selfheal/engine/ledger_lost") == ["selfheal/engine/ledger_lost"]
    with records.read(path) as db:
        (row,) = [r for r in records.history(db, None, 0.0, 10) if r.get("said") == "ledger_lost"]
    assert "the old file is kept as" in row["why"]


@pytest.mark.parametrize("ahead_s", [86400.0, 7200.0, 10 * 365 * 86400.0])
def test_a_clock_that_was_set_forward_before_a_reboot_ends_no_rest_and_renews_no_budget(
    path, monkeypatch, ahead_s
):
    def engine():
        book = Ledger(path)
        bus = Bus(path)
        return book, bus, Healer(settings=SETTINGS, ledger=book, bus=bus, mint=lambda: "0" * 20)

    book, _, healer = engine()
    healer.handle(Commanded(Command("c1", Verb.PAUSE, "ann", "runbook", for_s=600.0, reason="x")))
    healer.handle(Commanded(Command("c2", Verb.LOCK, "ann", "runbook", nodes=("db1",), reason="x")))
    state, at = healer.state.clusters["runbook"], book.timeline.now()
    tired = replace(state.nodes["db2"], cooldown_until=at + 300.0, spent=(at - 10.0,))
    book.commit(at, [state.with_nodes({"db2": tired})], [])
    now = time.time()
    monkeypatch.setattr(timeline.time, "time", lambda: now + ahead_s)
    book.beat()  # the clock has been set, and the engine has not followed it
    book.close()
    monkeypatch.setattr(timeline, "boot_id", lambda: "the next boot")
    book, bus, healer = engine()
    cluster, at = healer.state.clusters["runbook"], book.timeline.now()
    assert at == pytest.approx(now + ahead_s, abs=60)
    assert cluster.pause.until - at == pytest.approx(600.0, abs=60)
    assert cluster.nodes["db2"].cooldown_until - at == pytest.approx(300.0, abs=60)
    assert [at - spent for spent in cluster.nodes["db2"].spent] == pytest.approx([10.0], abs=60)
    assert [i.nodes for i in cluster.incidents] == [("db1",)]  # nothing else is forgotten
    assert bus.tags("selfheal/engine/clock_jumped") == ["selfheal/engine/clock_jumped"]
    book.close()
    again, bus, healer = engine()
    assert bus.tags("selfheal/engine/clock_jumped") == []
    again.close()


def test_who_is_to_be_dialled_is_dialled_by_whoever_looks(engine):
    """And without anybody who could, nothing happens: the next `redial` does it."""

    def ask(id, node):
        request = Request(id, "runbook", "restart", nodes=(node,), reason="test", door=Door.BUS)
        engine.healer.handle(Requested(request))

    ask("r1", "db1")
    assert engine.dialled == [("runbook", ("db1",))]
    engine.healer.attach(engine.jobs)
    ask("r2", "db2")
    assert len(engine.dialled) == 1


class Minions:
    def __init__(self):
        self.watched, self.complaint = None, None

    def watch(self, clusters):
        self.watched = tuple(clusters)

    def check(self):
        return self.complaint


def test_minions_are_read_often_only_while_something_is_to_be_healed(tmp_path, clock, caplog):
    engine = Engine(tmp_path / "ledger.sqlite3", clock)
    minions = Minions()
    engine.healer.attach(engine.jobs, engine, minions)
    engine.pass_time(20)
    assert minions.watched == ()
    lock = Command("c1", Verb.LOCK, "ann", cluster="runbook", nodes=("db1",), reason="so")
    engine.healer.handle(Commanded(lock))
    assert minions.watched == ()  # a lock waits for a person
    engine.see("db2", Fault.DEAD)
    assert minions.watched == ("runbook",)
    minions.complaint = "reading hangs"
    engine.healer.tick()
    assert "selfheal: reading hangs" in caplog.messages
    engine.die()
