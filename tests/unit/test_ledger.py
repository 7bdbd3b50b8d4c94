"""What the healer remembers, and for how long."""

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_selfheal.healing.events import Command, Door, Presence, Present, Request, Verb
from saltext_selfheal.healing.explained import Explained, Gate
from saltext_selfheal.healing.model import (
    Action,
    Announce,
    Answer,
    Attempt,
    ClusterState,
    Fault,
    Finish,
    Fire,
    Incident,
    Late,
    News,
    NodeState,
    Outcome,
    Phase,
    Reply,
    Seen,
    Tell,
)
from saltext_selfheal.ledger import chain as audit_chain
from saltext_selfheal.ledger import file as ledger_file
from saltext_selfheal.ledger import inbox, pruning, records, timeline
from saltext_selfheal.ledger import writer as ledger
from saltext_selfheal.ledger.file import LedgerError, LedgerRefused, ValueRefused
from tests.unit.world import World

JID = "20261123030000000000"


def attempt(now=1.0, **changes):
    values = {
        "id": "runbook-1.1", "cluster": "runbook", "incident": "runbook-1", "action": Action.RESTART,
        "nodes": ("db2",), "step": 0, "decided_at": now, "fired_at": now, "jid": JID,
        "args": ("rethinkdb",),
    }  # fmt: skip
    return Attempt(**{**values, **changes})


def fired(book, **changes):
    one = attempt(**changes)
    book.commit(book.timeline.now(), [], [Fire(one)])
    return one


def test_the_state_comes_back_as_it_was(book, path):
    world = World().warm()
    world.break_("db2", fault=Fault.AUTH)
    world.step(Present("runbook", {"db1": Presence.AWAY, "db3": Presence.NOT_ACCEPTED}))
    world.pass_time(5)
    book.commit(world.now, world.state.clusters.values(), world.effects[:0])
    with records.read(path) as db:
        assert records.states(db) == world.state.clusters
    assert book.clusters() == world.state.clusters


def test_the_file_belongs_to_the_master_alone(book, path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_an_order_is_given_while_the_attempt_is_fresh_and_alive(book, path):
    one = fired(book)
    assert records.order(path, JID) == {
        "jid": JID, "cluster": "runbook", "action": "restart", "minions": ["db2"], "args": ["rethinkdb"],
        "firing": 1, "claimed": 0,
    }  # fmt: skip
    assert records.order(path, "20200101000000000000") is None
    book.commit(2.0, [], [Finish(one, Outcome.DONE, "")])
    assert records.order(path, JID) is None


def test_an_order_older_than_a_minute_is_none_whatever_the_wall_clock_says(book, path, monkeypatch):
    fired(book)
    then = timeline.boottime()
    monkeypatch.setattr(timeline, "boottime", lambda: then + 59.0)
    assert records.order(path, JID)
    monkeypatch.setattr(timeline, "boottime", lambda: then + 61.0)
    assert records.order(path, JID) is None


def test_an_order_from_before_a_reboot_is_none(book, path, monkeypatch):
    fired(book)
    monkeypatch.setattr(timeline, "boot_id", lambda: "another boot")
    assert records.order(path, JID) is None


def test_firing_again_keeps_the_jid_and_renews_the_minute(book, path, monkeypatch):
    fired(book)
    later = timeline.boottime() + 100.0
    monkeypatch.setattr(timeline, "boottime", lambda: later)
    assert records.order(path, JID) is None
    book.commit(101.0, [], [Fire(attempt(firings=2))])
    assert records.order(path, JID)["jid"] == JID


def test_a_transition_is_written_whole_or_not_at_all(book):
    fired(book)
    with pytest.raises(ValueRefused, match=r"UNIQUE constraint failed: attempts\.jid"):
        # the same JID once more: the attempt cannot be written, so neither is the state
        other = attempt(id="runbook-1.2")
        book.commit(3.0, [ClusterState("runbook", serial=9)], [Fire(other)])
    assert book.clusters() == {}


def test_a_request_is_kept_once_and_answered_once(book, path):
    request = Request("r1", "runbook", "highstate", ("db1",), "drift", Door.RUNNER, "app")
    inbox.ask(path, request)
    inbox.ask(path, request)
    (waiting,) = book.waiting()
    assert replace(waiting, at=None) == request
    assert book.waiting() == []  # nobody wrote meanwhile
    with records.read(path) as db:
        assert inbox.answer(db, "r1") is None
    book.commit(1.0, [], [Answer(request, Reply.JOINED, "it is open", "runbook-1")])
    book.commit(2.0, [], [Answer(request, Reply.REFUSED, "later")])
    assert book.answered("r1")
    with records.read(path) as db:
        told = inbox.answer(db, "r1")
    assert (told["reply"], told["incident"], told["jid"]) == ("joined", "runbook-1", None)


def test_a_request_put_in_while_no_engine_ran_is_found_at_the_start(path):
    del_me = ledger.Ledger(path)
    del_me.close()
    inbox.ask(path, Request("r1", "runbook", "highstate"))
    assert [r.id for r in ledger.Ledger(path).waiting()] == ["r1"]


def test_history_is_newest_first_and_by_cluster(book, path):
    fired(book)
    other = attempt(id="web-1.1", cluster="web", incident="web-1", jid="20261123030000000001")
    book.commit(2.0, [], [Fire(other)])
    with records.read(path) as db:
        assert [row["cluster"] for row in records.history(db, None, 0.0, 10)] == ["web", "runbook"]
        assert [row["cluster"] for row in records.history(db, "runbook", 0.0, 10)] == ["runbook"]
        assert records.history(db, None, 0.0, 1)[0]["attempt"] == "web-1.1"


def test_each_audit_row_carries_the_hash_of_the_one_before(book, path):
    one = fired(book)
    book.commit(2.0, [], [Finish(one, Outcome.DONE, "")])
    with records.read(path) as db:
        rows = db.execute("SELECT * FROM audit ORDER BY seq").fetchall()
    before = ""
    for row in rows:
        assert row["hash"] == audit_chain.link_hash(
            before, row["seq"], row["at"], row["cluster"], row["incident"], row["kind"], row["body"]
        )
        before = row["hash"]
    assert len(rows) == 2


def test_one_engine_at_a_time(book, path):
    code = f"from pathlib import Path; from saltext_selfheal.ledger import writer as ledger; ledger.Ledger(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "LedgerBusy" in done.stderr
    assert ledger_file.engine_alive(path)


def test_the_lock_ends_with_the_engine(path):
    code = f"from pathlib import Path; from saltext_selfheal.ledger import writer as ledger; import os; ledger.Ledger(Path({str(path)!r})); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert not ledger_file.engine_alive(path)
    assert ledger.Ledger(path).lost is None


def test_two_who_ask_at_once_do_not_take_each_other_for_the_engine(path):
    ledger.Ledger(path).close()
    with ledger_file.lock_path(path).open("r+b") as asks:
        fcntl.flock(asks, fcntl.LOCK_SH)
        assert not ledger_file.engine_alive(path)


def test_without_a_ledger_readers_say_so_and_create_nothing(path):
    assert not ledger_file.engine_alive(path)
    with pytest.raises(LedgerError, match="no ledger"), records.read(path):
        pass
    with pytest.raises(LedgerError, match="no ledger"):
        inbox.ask(path, Request("r1", "runbook", "highstate"))
    assert not path.parent.exists()


def test_a_ledger_whose_file_was_deleted_is_lost(path):
    ledger.Ledger(path).close()
    path.unlink()
    assert "missing" in ledger.Ledger(path).lost


def test_a_fresh_ledger_is_not_lost(book):
    assert book.lost is None


def test_network_file_systems_are_refused(path, monkeypatch):
    monkeypatch.setattr(ledger_file, "file_system", lambda _: "nfs4")
    with pytest.raises(LedgerError, match="a local file system is needed"):
        ledger.Ledger(path)


@pytest.mark.parametrize(
    "kind",
    [
        "fuse", "fuse.ceph", "fuse.ceph-fuse", "beegfs", "orangefs", "coda", "fuse.juicefs", "fuse.s3fs",
        "fuse.rclone", "fuse.mfs", "davfs", "fuse.davfs2", "vboxsf", "fuse.vmhgfs-fuse", "virtiofs", "fuse.sshfs",
        "fuse.of-next-year",
    ],
)  # fmt: skip
def test_what_may_be_remote_is_refused(kind):
    assert ledger_file.on_network(kind)


@pytest.mark.parametrize(
    "kind",
    ["", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs"],
)
def test_what_is_of_this_machine_is_taken(kind):
    assert not ledger_file.on_network(kind)


def mounted(monkeypatch, table):
    monkeypatch.setattr(Path, "read_bytes", lambda _: table)


@pytest.mark.parametrize(
    ("point", "where"),
    [
        ("/srv/d\u00e4t\u00e4".encode(), "/srv/d\u00e4t\u00e4"),
        (b"/srv/a\\040b\\011c\\012d\\134040", "/srv/a b\tc\nd\\040"),
        (b"/srv/\xff", os.fsdecode(b"/srv/\xff")),
        (b"/srv/\\x41\\u0041", "/srv/\\x41\\u0041"),
    ],
)
def test_a_file_system_is_found_whatever_it_is_mounted_on(monkeypatch, point, where):
    mounted(monkeypatch, b"/dev/vda / ext4 rw 0 0\nserver:/x " + point + b" nfs4 rw 0 0\n\n")
    assert ledger_file.file_system(Path(where, "selfheal")) == "nfs4"
    assert ledger_file.file_system(Path("/srv")) == "ext4"


def test_a_folder_that_is_a_link_to_a_network_file_system_is_refused(path, tmp_path, monkeypatch):
    far = tmp_path / "far"
    far.mkdir()
    path.parent.symlink_to(far)
    mounted(monkeypatch, f"/dev/vda / ext4 rw 0 0\nserver:/x {far} nfs4 rw 0 0\n".encode())
    with pytest.raises(LedgerRefused, match="on nfs4; a local file system is needed"):
        ledger.Ledger(path)


def test_a_file_that_others_may_read_is_closed_to_them(path):
    ledger.Ledger(path).close()
    files = [
        path,
        ledger_file.lock_path(path),
        *(path.with_name(path.name + e) for e in ("-wal", "-shm")),
    ]
    for one in files:
        one.touch()
        one.chmod(0o664)
    book = ledger.Ledger(path)
    book.beat()
    assert {one.stat().st_mode & 0o777 for one in files} == {0o600}


@pytest.mark.parametrize("name", ["ledger.sqlite3", "ledger.sqlite3.lock"])
def test_a_file_that_others_may_read_and_that_is_not_ours_is_one_clear_error(
    path, monkeypatch, name
):
    ledger.Ledger(path).close()
    file = path.with_name(name)
    file.chmod(0o644)

    def not_ours(fd, mode):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", not_ours)
    with pytest.raises(LedgerError, match=r"found mode 0644 and owner \d+; allowed"):
        ledger.Ledger(path)
    monkeypatch.undo()
    ledger.Ledger(path).close()


def test_a_ledger_that_cannot_be_read_is_not_held(path, monkeypatch):
    def broken(_):
        raise sqlite3.OperationalError("disk I/O error")

    ledger.Ledger(path).close()
    monkeypatch.setattr(ledger, "Timeline", broken)
    with pytest.raises(LedgerError, match=f"{path}: disk I/O error") as kept:
        ledger.Ledger(path)
    monkeypatch.undo()
    assert kept.value.__traceback__  # what failed is still there
    assert not ledger_file.engine_alive(path)
    assert ledger.Ledger(path).lost is None


def test_a_lock_that_is_no_file_tells_nothing_and_says_so(path):
    ledger_file.lock_path(path).mkdir(parents=True)
    with pytest.raises(LedgerError, match=r"lock: it is no file; whether an engine runs"):
        ledger_file.engine_alive(path)


def test_a_lock_that_cannot_be_opened_tells_nothing_and_says_so(path, monkeypatch):
    def forbidden(where, *_):
        raise PermissionError(13, "Permission denied", str(where))

    monkeypatch.setattr(ledger_file.os, "open", forbidden)
    with pytest.raises(LedgerError, match=r"lock: Permission denied; whether an engine runs"):
        ledger_file.engine_alive(path)


def test_an_engine_that_starts_while_somebody_looks_waits_for_the_end_of_the_look(
    path, monkeypatch
):
    ledger.Ledger(path).close()
    with ledger_file.lock_path(path).open("rb") as looks:
        fcntl.flock(looks, fcntl.LOCK_SH)
        monkeypatch.setattr(ledger_file.time, "sleep", lambda _: fcntl.flock(looks, fcntl.LOCK_UN))
        assert ledger.Ledger(path).lost is None


def test_within_one_boot_the_timeline_follows_the_boot_clock(monkeypatch):
    monkeypatch.setattr(timeline, "boot_id", lambda: "b")
    monkeypatch.setattr(timeline, "boottime", lambda: 150.0)
    last = timeline.Anchor("b", 100.0, 1_000.0)
    for wall in (0.0, 10_000_000.0):  # a step of the wall clock changes nothing
        assert timeline.Timeline(last, wall).now() == 1_050.0


def test_after_a_reboot_the_wall_clock_counts_but_never_runs_backwards(monkeypatch):
    monkeypatch.setattr(timeline, "boot_id", lambda: "b2")
    last = timeline.Anchor("b1", 100.0, 1_000.0)
    assert timeline.Timeline(last, 5_000.0).now() == pytest.approx(5_000.0, abs=1)
    assert timeline.Timeline(last, 10.0).now() == pytest.approx(1_000.0, abs=1)


DAY_S = 86400.0


@pytest.mark.parametrize(
    ("written_at", "timeline_at", "now", "jump_s"),
    [
        (1e9, 1e9, 1e9 + 60.0, 0.0),  # a reboot of a minute
        (1e9, 1e9, 1e9 + 30 * DAY_S, 0.0),  # a month in a cupboard
        (
            1e9 + DAY_S,
            1e9,
            1e9 + DAY_S + 60.0,
            DAY_S,
        ),  # the clock was a day ahead before the reboot
        (1e9 + 3600.0, 1e9, 1e9 + 7200.0, 3600.0),  # an hour ahead, and an hour off
        (1e9 + 200.0, 1e9, 1e9 + 260.0, 0.0),  # clocks differ a little
        (1e9 + DAY_S, 1e9, 1e9 + 60.0, 0.0),  # it was set back while the machine was off …
        (1e9, 1e9 + DAY_S, 1e9 + 60.0, 0.0),  # … or while the engine ran
        (None, 1e9, 1e9 + DAY_S, 0.0),  # an older release did not write it down
    ],
)
def test_after_a_reboot_the_timeline_may_not_go_on_by_more_than_the_machine_was_off(
    written_at, timeline_at, now, jump_s
):
    last = timeline.Anchor("an earlier boot", 100.0, timeline_at, written_at)
    assert timeline.jump_s(last, now) == jump_s


def test_within_one_boot_there_is_no_jump():
    last = timeline.Anchor(timeline.boot_id(), 100.0, 1e9, 1e9 + DAY_S)
    assert timeline.jump_s(last, 1e9 + DAY_S) == timeline.jump_s(None, 1e9) == 0.0


def test_the_time_of_the_last_transition_survives(book, path):
    book.commit(1.0, [ClusterState("runbook", nodes={"db1": NodeState()})], [])
    then = book.timeline.now()
    book.close()
    assert ledger.Ledger(path).timeline.now() >= then


# ---------------------------------------------------------------- the inbox


def incident(name="runbook-1", phase=Phase.OPEN, at=1.0, **changes):
    cluster = name.rpartition("-")[0]
    return Incident(name, cluster, Seen(Fault.DEAD), ("db2",), phase, 1.0, at, **changes)


def announced(book, name="runbook-1", phase=Phase.OPEN, at=1.0):
    book.commit(at, [], [Announce(incident(name, phase, at), "because", "open.well")])


def newest(path):
    with records.read(path) as db:
        return records.history(db, None, 0.0, 1)[0]


def put(path, key, kind, body):
    db = sqlite3.connect(path)
    db.execute("INSERT INTO inbox (key, kind, body, put_at) VALUES (?,?,?,1)", (key, kind, body))
    db.commit()
    db.close()


def test_requests_and_commands_come_in_the_order_in_which_they_were_put_in(book, path):
    asked = [
        Command("c1", Verb.PAUSE, "root", "runbook", for_s=60.0, reason="upgrade"),
        Request("r1", "runbook", "restart", ("db1",), "", Door.RUNNER, "app"),
        Command("c2", Verb.LOCK, "root", "runbook", nodes=("db1",), reason="disk"),
        Command("c3", Verb.ACK, "root", incident="runbook-1"),
    ]
    for one in asked:
        inbox.ask(path, one)
    assert [replace(one, at=None) for one in book.waiting()] == asked


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("command", "{}", "it has not the form of a command"),
        (
            "command",
            '{"id": "x", "verb": "destroy", "by": "me"}',
            "it has not the form of a command",
        ),
        (
            "command",
            '{"id": "x", "cluster": "runbook", "action": "restart"}',
            "the form of a command",
        ),
        (
            "command",
            '{"id": "y", "verb": "resume", "by": "me"}',
            "it has not the form of a command",
        ),
        ("request", "no json", "it has not the form of a request"),
        ("request", b"\xff", "it has not the form of a request"),
        ("wish", '{"id": "x"}', "it has not the form of a request"),
    ],
)
def test_a_row_without_the_form_is_refused_and_holds_up_nobody(book, path, kind, body, told):
    put(path, "x", kind, body)
    inbox.ask(path, Request("r1", "runbook", "restart"))
    assert [r.id for r in book.waiting()] == ["r1"]
    with records.read(path) as db:
        answer = inbox.answer(db, "x")
    assert answer["reply"] == "refused"
    assert told in answer["why"]


def put_raw(path, *values):
    """A row as whoever may write to the file can write it: SQL values for key, kind, body and put_at."""
    db = sqlite3.connect(path)
    db.execute(f"INSERT INTO inbox (key, kind, body, put_at) VALUES ({', '.join(values)})")
    db.commit()
    db.close()


PAUSE = '{"id": "x", "verb": "pause", "by": "me", "cluster": "runbook", "for_s": %s}'


def answers(path):
    with records.read(path) as db:
        rows = db.execute("SELECT answer FROM inbox WHERE answered_at IS NOT NULL").fetchall()
    return [json.loads(row["answer"]) for row in rows]


@pytest.mark.parametrize(
    "values",
    [
        ("'x'", "'request'", "CAST(x'7bff7d' AS TEXT)", "1.0"),
        ("'x'", "CAST(x'ff' AS TEXT)", "'{}'", "1.0"),
        ("CAST(x'ff' AS TEXT)", "'request'", "'{}'", "1.0"),
        ("'x'", "'command'", "'" + PAUSE % "60.0" + "'", "'abc'"),
        ("'x'", "'command'", "'" + PAUSE % "60.0" + "'", "CAST(x'ff' AS TEXT)"),
        ("'x'", "'command'", "'" + PAUSE % "60.0" + "'", "9e999"),
        ("'x'", "'command'", "'" + PAUSE % "60.0" + "'", "9e15"),
        ("'x'", "'command'", "'" + PAUSE % "60.0" + "'", "-1.0"),
        ("'x'", "'command'", "'" + PAUSE % "Infinity" + "'", "1.0"),
        ("'x'", "'command'", "'" + PAUSE % "1e308" + "'", "1.0"),
        ("'x'", "'request'", "'" + "[" * 60_000 + "'", "1.0"),
    ],
    ids=[
        "body",
        "kind",
        "key",
        "time",
        "time in bytes",
        "no end of time",
        "no date",
        "before",
        "for ever",
        "for too long",
        "deep",
    ],
)
def test_whatever_a_row_holds_it_is_refused_and_holds_up_nobody(book, path, values):
    put_raw(path, *values)
    inbox.ask(path, Command("c1", Verb.PAUSE, "root", "runbook", for_s=60.0, reason="upgrade"))
    with records.read(path) as db:
        assert [one.id for one in inbox.unanswered(db)] == ["c1"]
    assert [one.id for one in book.waiting()] == ["c1"]
    (answer,) = answers(path)
    assert answer["reply"] == "refused"
    assert "it has not the form of a" in answer["why"]


def test_a_row_too_long_for_a_request_is_refused_and_leaves_no_trace_in_the_history(book, path):
    body = PAUSE.replace("}", ', "reason": "%s"}') % ("60.0", "y" * inbox.BODY_BYTES)
    put(path, "x", "command", body)
    assert book.waiting() == []
    (answer,) = answers(path)
    assert answer["why"] == "it has not the form of a command: it has more than 65536 bytes"
    assert count(path, "audit") == 0


def test_however_many_rows_are_refused_what_comes_after_them_is_given(book, path):
    for n in range(7):
        put(path, f"x{n}", "request", "no json")
    inbox.ask(path, Command("c1", Verb.PAUSE, "root", "runbook", for_s=60.0, reason="upgrade"))
    assert [one.id for one in book.waiting(3)] == ["c1"]
    assert book.waiting(3) == []
    assert len(answers(path)) == 7


@pytest.mark.parametrize("body", ["no json", "[" * 100_000, "[]", b"\xff"])
def test_an_id_that_stands_for_a_row_without_the_form_is_one_clear_error(book, path, body):
    put(path, "r1", "request", body)
    with pytest.raises(LedgerError, match="'r1' was used for another request"):
        inbox.ask(path, Request("r1", "runbook", "highstate"))


def test_commands_say_when_they_were_given(book, path):
    before = book.timeline.now()
    inbox.ask(path, Command("c1", Verb.RESUME, "root"))
    (command,) = book.waiting()
    assert command.at == pytest.approx(before, abs=60)


def test_a_command_is_answered_once_and_stands_in_the_history(book, path):
    asked = Command("c1", Verb.LOCK, "root", "runbook", nodes=("db1",), reason="disk")
    inbox.ask(path, asked)
    book.commit(1.0, [], [Answer(asked, Reply.ACCEPTED, "locked", "runbook-1")])
    assert book.answered("c1")
    assert book.waiting() == []
    with records.read(path) as db:
        answer = inbox.answer(db, "c1")
    assert answer == {"reply": "accepted", "why": "locked", "incident": "runbook-1", "jid": None}
    row = newest(path)
    assert {k: row[k] for k in row if k not in ("seq", "at")} == {
        "kind": "command", "command": "c1", "verb": "lock", "by": "root", "cluster": "runbook", "nodes": ["db1"],
        "incident": "runbook-1", "for_s": 0.0, "reason": "disk", "reply": "accepted", "why": "locked",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "cluster", "of"),
    [
        (Command("c1", Verb.PAUSE, "root", for_s=60.0, reason="x"), "", None),
        (Command("c1", Verb.PAUSE, "root", "web", for_s=60.0, reason="x"), "web", None),
        (Command("c1", Verb.ACK, "root", incident="runbook-1"), "runbook", "runbook-1"),
        (Command("c1", Verb.ACK, "root", incident="eu-west-12"), "eu-west", "eu-west-12"),
    ],
)
def test_a_command_belongs_to_its_cluster_or_to_that_of_its_incident(
    book, path, command, cluster, of
):
    announced(book)
    book.commit(2.0, [], [Answer(command, Reply.REFUSED, "")])
    row = newest(path)
    assert (row["kind"], row["cluster"], row["incident"]) == ("command", cluster, of)


def test_an_explanation_is_told_and_leaves_no_trace_in_the_history(book, path):
    asked = Command("c1", Verb.EXPLAIN, "root", "runbook")
    gates = (Gate("mode", True, "auto"), Gate("budget", False, "spent", 90.0))
    one = Explained("runbook-1", "dead", Phase.OPEN, ("db1",), "", Action.RESTART, (), gates)
    inbox.ask(path, asked)
    book.commit(1.0, [], [Answer(asked, Reply.ACCEPTED, "", told=(one,))])
    with records.read(path) as db:
        assert inbox.read_explained(inbox.answer(db, "c1")["told"]) == (one,)
        assert records.history(db, None, 0.0, 10) == []


def test_an_explanation_of_another_release_is_refused_with_what_to_do():
    with pytest.raises(
        LedgerError, match="another release of this package; restart the salt-master"
    ):
        inbox.read_explained([{"incident": None, "gates": [{"gate": "mode", "open": True}]}])


def test_what_is_told_of_an_incident_belongs_to_it(book, path):
    book.commit(1.0, [], [Tell(News.LATE, "runbook", "db2", "it came", "runbook-1")])
    row = newest(path)
    assert (row["said"], row["incident"], row["nodes"]) == ("late", "runbook-1", ["db2"])


# ---------------------------------------------------------------- reading


def test_history_reads_only_what_it_returns(book, path):
    for n in range(200):
        tells = [Tell(News.VIEW, name, "", "") for name in ("runbook", "web")]
        book.commit(float(n), [], tells)
    with records.read(path) as db:
        for cluster, since in ((None, 0.0), (None, 150.0), ("runbook", 0.0), ("runbook", 150.0)):
            asked = []
            db.set_trace_callback(asked.append)
            rows = records.history(db, cluster, since, 10)
            db.set_trace_callback(None)
            assert [r["at"] for r in rows][:1] == [199.0]
            assert len(rows) == 10
            (query,) = [q for q in asked if "DESC" in q]
            (plan,) = [r["detail"] for r in db.execute(f"EXPLAIN QUERY PLAN {query}")]
            assert plan == (
                "SEARCH audit USING INTEGER PRIMARY KEY (rowid>?)"
                if cluster is None
                else "SEARCH audit USING INDEX audit_of (cluster=? AND seq>?)"
            )


@pytest.mark.parametrize("since", [-1.0, 0.0, 0.5, 7.0, 7.5, 19.0, 20.0])
def test_history_since_begins_where_it_should(book, path, since):
    for n in range(20):
        book.commit(float(n // 2 * 2), [], [Tell(News.VIEW, "runbook", "", "")])
    book.prune(100.0, 95.0)  # the first few are gone
    with records.read(path) as db:
        for cluster in (None, "runbook"):
            found = [r["at"] for r in records.history(db, cluster, since, 100)]
            expected = [float(n // 2 * 2) for n in range(6, 20) if n // 2 * 2 >= since]
            assert found == expected[::-1]
        assert records.history(db, "nosuch", since, 100) == []


def test_an_incident_is_told_whole(book, path):
    request = Request("r1", "runbook", "restart", (), "down", Door.RUNNER, "app")
    announced(book, at=1.0)
    book.commit(2.0, [], [Answer(request, Reply.JOINED, "it is open", "runbook-1")])
    one = fired(book)
    book.commit(4.0, [], [Finish(one, Outcome.FAILED, "no such service")])
    book.commit(4.0, [], [Tell(News.VIEW, "runbook", "", "of no incident")])
    announced(book, phase=Phase.RESOLVED, at=5.0)
    with records.read(path) as db:
        told = records.incident(db, "runbook-1")
        assert records.incident(db, "runbook-2") is None
        assert records.latest_incidents(db, 5) == ["runbook-1"]
        assert records.latest_incidents(db, 5, only_open=True) == []
    assert (told["phase"], told["nodes"], told["ended_at"]) == ("resolved", ["db2"], 5.0)
    (tried,) = told["attempts"]
    assert (tried["jid"], tried["minions"], tried["outcome"], tried["why"]) == (
        JID, ["db2"], "failed", "no such service",
    )  # fmt: skip
    assert [r["kind"] for r in told["audit"]] == [
        "incident",
        "request",
        "fire",
        "finish",
        "incident",
    ]
    assert told["requests"] == {
        "r1": {"reply": "joined", "why": "it is open", "incident": "runbook-1", "jid": JID}
    }


# ---------------------------------------------------------------- forgetting


def proven(path):
    with records.read(path) as db:
        return records.audit(db)


def count(path, table):
    with records.read(path) as db:
        return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_an_empty_ledger_is_proven(book, path):
    assert proven(path) == {"ok": True, "rows": 0, "from": None, "to": None}


def test_the_chain_goes_on_when_all_of_it_was_forgotten(book, path):
    for n in range(5):
        book.commit(float(n), [], [Tell(News.VIEW, "runbook", "", "")])
    assert book.prune(1000.0, 10.0) == 5
    assert proven(path) == {"ok": True, "rows": 0, "from": None, "to": None}
    book.close()
    book = ledger.Ledger(path)
    assert book.lost is None
    book.commit(1000.0, [], [Tell(News.VIEW, "runbook", "", "")])
    assert proven(path) == {"ok": True, "rows": 1, "from": 6, "to": 6}


@pytest.mark.parametrize("keep_s", [None, 0, 0.0])
def test_answers_are_removed_after_a_week_also_if_the_history_is_kept(book, keep_s):
    asked = [Request(f"r{number}", "runbook", "restart") for number in range(3)]
    for one in asked:
        book.commit(0.0, [], [Answer(one, Reply.REFUSED, "no")])
    assert book.prune(7 * 86400.0 - 1.0, keep_s) == 0
    assert book.prune(7 * 86400.0 + 1.0, keep_s) == 3
    assert not book.answered("r1")


@pytest.mark.parametrize("keep_s", [None, 0, 0.0])
def test_without_a_limit_everything_is_kept(book, path, keep_s):
    book.commit(1.0, [], [Tell(News.VIEW, "runbook", "", "")])
    assert book.prune(1e12, keep_s) == 0
    assert count(path, "audit") == 1


def test_a_bounded_part_is_forgotten_at_a_time(book, path, monkeypatch):
    monkeypatch.setattr(pruning, "AT_ONCE", 4)
    book.commit(1.0, [], [Tell(News.VIEW, "runbook", "", "") for _ in range(10)])
    for n in range(3):
        book.commit(1.0, [], [Answer(Request(f"r{n}", "web", "look"), Reply.REFUSED, "")])
    removed = []
    while not removed or removed[-1]:
        removed.append(book.prune(1e9, 1.0))
    assert removed == [4, 4, 4, 4, 0]
    assert (count(path, "audit"), count(path, "inbox")) == (0, 0)


def test_nothing_goes_from_the_first_row_of_an_open_incident_on(book, path):
    book.commit(1.0, [], [Tell(News.VIEW, "runbook", "", "")])
    announced(book, "runbook-1", at=2.0)
    announced(book, "runbook-2", at=3.0)
    announced(book, "runbook-2", Phase.RESOLVED, at=4.0)
    fired(book, decided_at=5.0)
    assert book.prune(1e9, 1.0) == 1
    announced(book, "runbook-1", Phase.LOCKED, at=1e9)
    assert book.prune(2e9, 1.0) == 0
    assert count(path, "attempts") == 1
    announced(book, "runbook-1", Phase.ACKNOWLEDGED, at=2e9)
    book.prune(3e9, 1.0)
    assert [count(path, t) for t in ("audit", "incidents", "attempts")] == [0, 0, 0]


def test_an_attempt_whose_results_may_still_come_is_kept(book, path):
    one = fired(book)
    announced(book, phase=Phase.RESOLVED)
    late = ClusterState("runbook", late=(Late(one, 1.0, True),))
    book.commit(1.0, [late], [Finish(one, Outcome.TIMED_OUT, "")])
    book.prune(1e12, 1.0)
    assert (count(path, "incidents"), count(path, "attempts")) == (0, 1)
    book.commit(1.0, [ClusterState("runbook")], [])
    book.prune(1e12, 1.0)
    assert count(path, "attempts") == 0


def test_answers_are_kept_for_a_week_and_what_waits_for_ever(book, path):
    inbox.ask(path, Request("r0", "runbook", "restart"))
    book.commit(0.0, [], [Answer(Request("r1", "runbook", "look"), Reply.REFUSED, "no")])
    week = 7 * 86400.0
    book.prune(week, 1.0)
    assert book.answered("r1")
    book.prune(week + 1.0, 1.0)
    assert not book.answered("r1")
    assert [r.id for r in book.waiting()] == ["r0"]


def test_answers_go_after_a_week_and_what_is_told_of_them_stays(book, path):
    announced(book, at=0.0)
    request = Request("r1", "runbook", "restart")
    book.commit(0.0, [], [Answer(request, Reply.JOINED, "it is open", "runbook-1")])
    assert book.prune(7 * 86400.0 + 1.0, 90 * 86400.0) == 1
    with records.read(path) as db:
        assert not inbox.was_asked(db, "r1")
        told = records.incident(db, "runbook-1")
    assert told["requests"] == {}
    assert [r.get("request") for r in told["audit"]] == [None, "r1"]


def test_questions_do_not_hold_up_what_is_old(book, path, monkeypatch):
    monkeypatch.setattr(pruning, "AT_ONCE", 4)
    book.commit(1.0, [], [Tell(News.VIEW, "runbook", "", "") for _ in range(3)])
    for n in range(2):
        asked = Command(f"q{n}", Verb.EXPLAIN, "ann", "runbook")
        book.commit(1.0, [], [Answer(asked, Reply.ACCEPTED, "")])
    assert book.prune(1e9, 1.0) == 4
    assert (count(path, "inbox"), count(path, "audit")) == (0, 1)
    assert book.prune(1e9, 1.0) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("announce"), st.integers(0, 3), st.sampled_from(list(Phase))),
        st.tuples(st.just("fire"), st.integers(0, 3)),
        st.tuples(st.just("answer"), st.integers(0, 3)),
        st.tuples(st.just("tell")),
        st.tuples(st.just("wait"), st.floats(0.0, 30.0)),
        st.tuples(st.just("prune"), st.floats(0.5, 60.0)),
        st.tuples(st.just("reopen")),
    ),
    max_size=60,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, most=st.integers(1, 20))
def test_whatever_was_forgotten_the_chain_holds_and_open_incidents_are_whole(
    tmp_path_factory, steps, most
):
    path = tmp_path_factory.mktemp("pruned") / "ledger.sqlite3"
    patch = pytest.MonkeyPatch()
    patch.setattr(pruning, "AT_ONCE", most)
    book = ledger.Ledger(path)
    now = 1.0
    serials = dict.fromkeys(range(4), 0)
    written, attempts = {}, {}  # of each open incident
    for serial, (what, *how) in enumerate(steps):
        name = f"c-{how[0]}{serials[how[0]]}" if what in ("announce", "fire", "answer") else ""
        effects = []
        if what == "announce":
            effects = [Announce(incident(name, how[1], now), "", "open.well")]
        elif what == "fire" and name in written:
            one = attempt(now, id=f"{name}.{serial}", cluster="c", incident=name, jid=str(serial))
            effects = [Fire(one)]
            attempts[name] += 1
        elif what == "answer":
            asked = Request(f"r{serial}", "c", "restart")
            of = name if name in written else None
            effects = [Answer(asked, Reply.JOINED, "", of)]
        elif what == "tell":
            effects = [Tell(News.VIEW, "c", "", "")]
        elif what == "wait":
            now += how[0]
        elif what == "prune":
            assert book.prune(now, how[0]) <= most
        else:
            book.close()
            book = ledger.Ledger(path)
            assert book.lost is None
        if effects:
            book.commit(now, [], effects)
            if what == "announce" or (name in written and what != "tell"):
                written[name] = written.get(name, 0) + 1
                attempts.setdefault(name, 0)
        if what == "announce" and how[1] in (Phase.RESOLVED, Phase.ACKNOWLEDGED):
            del written[name], attempts[name]
            serials[how[0]] += 1
        with records.read(path) as db:
            assert records.audit(db)["ok"]
            for one, rows in written.items():
                told = records.incident(db, one)
                assert (len(told["audit"]), len(told["attempts"])) == (rows, attempts[one])
    book.close()
    patch.undo()
