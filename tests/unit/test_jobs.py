"""What a job's entry in the job cache means."""

import threading

import pytest

from saltext_selfheal import jobs
from saltext_selfheal.healing.model import Action
from saltext_selfheal.healing.model import Outcome
from saltext_selfheal.healing.model import Published
from saltext_selfheal.healing.model import Returned

GOOD = {"result": True, "comment": "fine"}
BAD = {"result": False, "comment": "no space left"}


@pytest.mark.parametrize(
    ("action", "entry", "outcome", "told"),
    [
        (Action.HIGHSTATE, {"return": {"a": GOOD}, "retcode": 0}, Outcome.DONE, "1 states"),
        (Action.HIGHSTATE, {"return": {"a": GOOD}}, Outcome.DONE, "1 states"),
        (
            Action.HIGHSTATE,
            {"return": {"a": GOOD, "b": BAD}, "retcode": 2},
            Outcome.FAILED,
            "no space left",
        ),
        (
            Action.HIGHSTATE,
            {"return": ['The function "state.apply" is running as PID 17'], "retcode": 1},
            Outcome.BUSY,
            "PID 17",
        ),
        (
            Action.HIGHSTATE,
            {"return": ["Rendering SLS failed"], "retcode": 1},
            Outcome.FAILED,
            "Rendering",
        ),
        (
            Action.HIGHSTATE,
            {"return": "Passed invalid arguments", "retcode": 1},
            Outcome.FAILED,
            "invalid",
        ),
        (Action.HIGHSTATE, {}, Outcome.FAILED, "None"),
        (Action.RESTART, {"return": True, "retcode": 0}, Outcome.DONE, ""),
        (Action.RESTART, {"return": "ERROR: it exits", "retcode": 1}, Outcome.FAILED, "it exits"),
        (Action.RESTART, {"return": False, "retcode": 0}, Outcome.FAILED, "False"),
        (
            Action.LOOK,
            {"return": [{"jid": "1", "fun": "state.highstate"}]},
            Outcome.BUSY,
            "still runs",
        ),
        (Action.LOOK, {"return": [{"jid": "2"}]}, Outcome.DONE, "does not run"),
        (Action.LOOK, {"return": []}, Outcome.DONE, "does not run"),
    ],
)
def test_judging(action, entry, outcome, told):
    watched = jobs.Watched("runbook-1.1", "9", action, ("db2",), of_jid="1")
    verdict, detail = jobs.judge(watched, entry)
    assert verdict is outcome
    assert told in detail


def test_the_external_job_cache_is_read_where_there_is_one():
    assert jobs.returner({"ext_job_cache": "redis", "master_job_cache": "local_cache"}) == "redis"
    assert jobs.returner({"ext_job_cache": "", "master_job_cache": "local_cache"}) == "local_cache"


class Cache(dict):
    """A job cache in memory, with the returner's two functions."""

    def __init__(self):
        super().__init__()
        self.loads, self.results = {}, {}
        self["local_cache.get_load"] = lambda jid: self.loads.get(jid, {})
        self["local_cache.get_jid"] = lambda jid: self.results.get(jid, {})


@pytest.fixture
def cache(monkeypatch):
    made = Cache()
    monkeypatch.setattr(
        jobs.salt.minion, "MasterMinion", lambda *_, **__: type("M", (), {"returners": made})
    )
    return made


def test_what_is_new_is_delivered_once(cache):
    seen, arrived = [], threading.Semaphore(0)

    def deliver(event):
        seen.append(event)
        arrived.release()

    reader = jobs.JobReader({}, deliver)
    reader.start()
    reader.watch((jobs.Watched("runbook-1.1", "9", Action.RESTART, ("db1", "db2")),))
    cache.loads["9"] = {"fun": "service.restart"}
    assert arrived.acquire(timeout=5)
    cache.results["9"] = {"db2": {"return": True, "retcode": 0}, "web1": {"return": True}}
    assert arrived.acquire(timeout=5)
    cache.results["9"]["db1"] = {"return": True, "retcode": 0}
    assert arrived.acquire(timeout=5)
    assert seen == [
        Published("runbook-1.1"),
        Returned("runbook-1.1", "db2", Outcome.DONE, ""),
        Returned("runbook-1.1", "db1", Outcome.DONE, ""),
    ]
    reader.watch(())


def test_a_read_that_hangs_is_given_up_once_and_the_others_go_on(cache, monkeypatch):
    monkeypatch.setattr(jobs, "HANGS_AFTER_S", 0.05)
    seen, hang, hanging, arrived = [], threading.Event(), threading.Event(), threading.Event()

    def get_load(jid):
        if jid == "8":
            hanging.set()
            hang.wait(10)
        return {"fun": "x"}

    cache["local_cache.get_load"] = get_load

    def deliver(event):
        seen.append(event)
        arrived.set()

    reader = jobs.JobReader({}, deliver)
    reader.start()
    reader.watch(
        (
            jobs.Watched("runbook-1.1", "8", Action.RESTART, ("db1",)),
            jobs.Watched("runbook-2.1", "9", Action.RESTART, ("db2",)),
        )
    )
    assert hanging.wait(5)
    complaint = None
    while complaint is None:
        complaint = reader.check()
    assert "reading job 8 from the job cache hangs" in complaint
    assert arrived.wait(5)
    assert seen == [Published("runbook-2.1")]
    hang.set()
    reader.watch(())
