"""Which jobs a minion says that it runs."""

import json

import pytest

from saltext_selfheal.healing import testimony as word
from saltext_selfheal.witness import jobs
from saltext_selfheal.witness.testimony import MOST_BYTES, bounded

HIGHSTATE = {
    "jid": "20261127190000000001",
    "fun": "state.highstate",
    "user": "ann",
    "arg": [],
    "pid": 7,
}


def told(*running):
    return jobs.running(lambda: list(running))


def test_jobs_that_change_something_are_named_without_their_arguments():
    secret = {**HIGHSTATE, "arg": [{"pillar": {"password": "hunter22"}, "__kwarg__": True}]}
    assert told(secret) == [{"jid": HIGHSTATE["jid"], "fun": "state.highstate", "user": "ann"}]


def test_jobs_that_only_read_are_not():
    tests = {**HIGHSTATE, "arg": [{"test": True, "__kwarg__": True}]}
    reads = {**HIGHSTATE, "fun": "service.status", "arg": ["rethinkdb"]}
    own = {**HIGHSTATE, "fun": "selfheal.witness", "arg": ["rethinkdb", 28015]}
    assert told(tests, reads, own) == []


@pytest.mark.parametrize("odd", [None, 7, {}, "x", object()])
def test_what_is_no_list_is_not_told(odd):
    assert jobs.running(lambda: odd) is None


def test_odd_entries_are_left_out():
    assert (
        told(None, 7, [], {}, {"jid": None, "fun": "state.highstate"}, {"jid": "1", "fun": None})
        == []
    )
    assert told({"jid": 1, "fun": ["test.ping", "state.sls"]}) == [
        {"jid": "1", "fun": "state.sls", "user": ""}
    ]


def test_so_many_and_no_more_and_the_engine_knows_how_many():
    assert jobs.MOST_JOBS == word.MOST_JOBS
    many = told(*({**HIGHSTATE, "jid": f"{n}"} for n in range(1000)))
    assert len(many) == jobs.MOST_JOBS
    heard = word.read({"version": 1, "jobs": many})
    assert (len(heard.jobs), heard.all_jobs) == (jobs.MOST_JOBS, False)


def test_the_engine_reads_what_the_minion_tells():
    heard = word.read({"version": 1, "jobs": told(HIGHSTATE)})
    assert heard.jobs == (word.Running(HIGHSTATE["jid"], "state.highstate", "ann"),)
    assert heard.all_jobs


def test_it_stays_small_whatever_runs():
    large = {"jid": "1" * 100_000, "fun": "state." + "x" * 90, "user": "u" * 100_000}
    cut = bounded({"version": 1, "jobs": told(*[large] * 100)})
    assert len(json.dumps(cut)) <= MOST_BYTES
