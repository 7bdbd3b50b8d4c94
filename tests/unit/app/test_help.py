"""When help is called, in virtual time; and that a call holds up nothing."""

import functools
import itertools
import multiprocessing
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from saltext_selfheal import app
from saltext_selfheal.app import doors
from saltext_selfheal.app import help as calling
from tests.lab import article
from tests.unit.app.world import connect

ARTICLE = Path(__file__).parents[3] / "docs" / "article.md"


def test_the_article_is_modelled_rightly():
    attempts, calls = article.article()
    assert attempts == 60
    told = [action for _, action in calls] * article.APPLICATIONS
    assert (told.count("highstate"), told.count("restart")) == (110, 50)
    assert min(at for at, action in calls if action == "restart") == 900


def test_ours_calls_at_the_articles_times_and_never_in_a_storm():
    _, calls, _ = article.ours()
    times = {
        kind: [at for at, action in calls if action == kind] for kind in ("highstate", "restart")
    }
    assert 300 <= times["highstate"][0] < 302
    assert 600 <= times["restart"][0] < 602.5
    for told in times.values():
        assert all(later - sooner >= 600 for sooner, later in itertools.pairwise(told))
    assert (len(times["highstate"]), len(times["restart"])) == (6, 5)


def test_ten_applications_make_one_incident():
    calls = [call for seed in range(article.APPLICATIONS) for call in article.ours(seed=seed)[1]]
    jobs, incidents, replies = article.followed(calls)
    # Once the healer has given up, nothing comes of asking, and the answer says so.
    assert (incidents, len(replies), set(replies)) == (1, 110, {"held"})
    told = [action for _, action in calls]
    page = ARTICLE.read_text(encoding="utf-8")
    assert f"| highstates asked for | 110 | {told.count('highstate')} |" in page
    assert f"| restarts asked for | 50 | {told.count('restart')} |" in page
    assert f"160, each on every replica | {jobs}, each on one node |" in page


def test_the_docs_tell_the_same_minutes():
    assert article.table() in ARTICLE.read_text(encoding="utf-8")


def test_one_process_is_one_caller():
    clock = article.Virtual()
    door = article.Noting(clock)
    calls = calling.Calls()
    for _ in range(5):
        helps = [
            clock.help(door, highstate_after=0, restart_after=None, calls=calls) for _ in range(3)
        ]
        for help in helps:
            help.failed("dead")
        clock.now += 1
    assert len(door.calls) == 1


def test_an_outage_is_remembered_from_one_short_call_to_the_next():
    clock = article.Virtual()
    door = article.Noting(clock)
    help = clock.help(door)
    for _ in range(11):
        help.failed("dead")
        clock.now += 30
    assert door.calls == [(300, "highstate")]
    help.well()
    clock.now += 1
    help.failed("dead")
    assert len(door.calls) == 1


def test_what_failed_long_ago_is_another_outage():
    clock = article.Virtual()
    door = article.Noting(clock)
    help = clock.help(door)
    help.failed("dead")
    clock.now += 4000
    help.failed("dead")
    assert door.calls == []


def test_a_call_that_takes_a_minute_holds_up_nothing():
    release = threading.Event()
    door = mock.Mock()
    door.ask.side_effect = lambda *_: release.wait(10) and {"reply": "accepted"}
    helped = []
    help = app.Help(
        door,
        "runbook",
        highstate_after=0,
        restart_after=0,
        on_help=helped.append,
        calls=calling.Calls(),
    )
    began = time.monotonic()
    for _ in range(20):
        help.failed("dead")
    assert time.monotonic() - began < 0.2
    assert not help.wait(0.05)
    release.set()
    assert help.wait(5)
    assert door.ask.call_count == 1
    assert [h.reply for h in helped] == ["accepted"]


def test_a_door_or_a_callback_that_breaks_breaks_nothing(caplog):
    clock = article.Virtual()
    door = mock.Mock()
    door.ask.side_effect = RuntimeError("door")

    def broken(_):
        raise ValueError("callback")

    clock.help(door, highstate_after=0, on_help=broken).failed("dead")
    assert "on_help failed" in caplog.text
    help = clock.help(
        door, highstate_after=0, start=mock.Mock(side_effect=RuntimeError("no thread"))
    )
    help.failed("dead")


def test_an_unknown_answer_is_asked_for_again_with_the_same_id(monkeypatch):
    monkeypatch.setattr(calling.time, "sleep", lambda _: None)
    door = mock.Mock()
    door.ask.side_effect = [
        doors.HelpUnknown("500"),
        {"reply": "joined", "incident": "runbook-3"},
    ]
    helped = []
    article.Virtual().help(door, highstate_after=0, on_help=helped.append).failed("dead")
    assert len({call.args[3] for call in door.ask.call_args_list}) == 1
    assert (helped[0].reply, helped[0].incident, helped[0].tries) == ("joined", "runbook-3", 2)


def test_a_forked_child_calls_for_itself():
    calls = calling.Calls()
    calls.lock.acquire()  # as if a thread held it while another forks
    queue = multiprocessing.get_context("fork").SimpleQueue()

    def child():
        door = article.Noting(article.Virtual())
        help = article.Virtual().help(door, highstate_after=0, calls=calls)
        help.failed("dead")
        queue.put(len(door.calls))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(10)
    assert not queue.empty()
    assert queue.get() == 1


def test_a_forked_child_never_uses_its_parents_connection(well):
    with app.healing(functools.partial(connect, well)) as conn:
        before = conn.open()
        with mock.patch("os.getpid", lambda: -1):
            assert conn.open() is not before
        assert before.is_open()
        before.close(False)


def test_a_call_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(doors, "CALL_S", 0.1)
    release, helped = threading.Event(), []
    door = mock.Mock()
    door.ask.side_effect = lambda *_: release.wait(10) and {"reply": "accepted"}
    help = app.Help(door, "c", highstate_after=0, on_help=helped.append, calls=calling.Calls())
    help.failed("dead")
    assert help.wait(5)
    release.set()
    ((reply, why),) = [(h.reply, h.why) for h in helped]
    assert (reply, why) == ("unknown", "no answer in 0.1 s")


def test_no_repeat_begins_when_a_calls_time_is_over(monkeypatch):
    monkeypatch.setattr(doors, "CALL_S", 0.5)
    door = mock.Mock()
    door.ask.side_effect = doors.HelpUnknown("500")
    helped = []
    article.Virtual().help(door, highstate_after=0, on_help=helped.append).failed("dead")
    assert [(h.reply, h.why, h.tries) for h in helped] == [("unknown", "500", 1)]


def test_a_late_call_does_not_end_the_next_one():
    clock, begun = article.Virtual(), []
    help = clock.help(article.Noting(clock), highstate_after=0, restart_after=0, start=begun.append)
    help.failed("dead")
    clock.now += doors.CALL_S
    help.failed("dead")
    late, current = begun
    late()
    assert not help.wait(0)
    current()
    assert help.wait(0)


@pytest.mark.parametrize("answer", [None, "accepted", ["accepted"]])
def test_a_door_that_answers_nonsense_is_told(answer):
    door, helped = mock.Mock(), []
    door.ask.return_value = answer
    help = article.Virtual().help(door, highstate_after=0, on_help=helped.append)
    help.failed("dead")
    assert [h.reply for h in helped] == ["failed"]
    assert help.wait(0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": "a/b"}, "cluster: found"),
        ({"via": "url"}, "via: allowed"),
        ({"again_after": None}, "again_after: found None"),
        ({"again_after": 0}, "again_after: found 0; allowed: at least 1 seconds"),
        ({"again_after": 1e-9}, "again_after: found 1e-09; allowed: at least 1 seconds"),
        ({"again_after": 0.99}, "again_after: found 0.99; allowed: at least 1 seconds"),
        ({"restart_after": -1}, "restart_after: found -1"),
    ],
)
def test_help_checks_its_settings(options, words):
    values = {"via": mock.Mock(), "cluster": "runbook", **options}
    with pytest.raises(app.BadSettings, match=words):
        app.Help(**values)
