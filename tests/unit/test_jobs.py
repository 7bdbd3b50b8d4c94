"""How jobs are read from the job cache."""

import threading
from pathlib import Path

import pytest
import salt.config
import salt.loader

from saltext_selfheal.healing.events import Published, Returned
from saltext_selfheal.healing.model import Action, Outcome
from saltext_selfheal.loop import jobs


def test_a_look_for_a_job_whose_jid_cannot_be_read_proves_nothing():
    watched = jobs.Watched("runbook-1.1-look-db2-1", "9", Action.LOOK, ("db2",), of_jid=None)
    for running in ([], [{"jid": "1", "fun": "state.highstate"}]):
        assert jobs.judge(watched, {"return": running})[0] is Outcome.BUSY


def test_the_external_job_cache_is_read_where_there_is_one():
    assert jobs.returner({"ext_job_cache": "redis", "master_job_cache": "local_cache"}) == "redis"
    assert jobs.returner({"ext_job_cache": "", "master_job_cache": "local_cache"}) == "local_cache"


class Cache(dict):
    """A job cache in memory, with the returner's two functions."""

    def __init__(self):
        super().__init__()
        self.loads, self.results = {}, {}
        self["memory.get_load"] = lambda jid: self.loads.get(jid, {})
        self["memory.get_jid"] = lambda jid: self.results.get(jid, {})


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

    reader = jobs.JobReader({"master_job_cache": "memory"}, deliver)
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

    cache["memory.get_load"] = get_load

    def deliver(event):
        seen.append(event)
        arrived.set()

    reader = jobs.JobReader({"master_job_cache": "memory"}, deliver)
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


# ---------------------------------------------------------------- Salt's own job cache

JID = "20261126153000000000"


@pytest.fixture
def local(tmp_path):
    """Options of a master, and its ``local_cache`` as the master writes it."""
    (tmp_path / "master").write_text(f"root_dir: {tmp_path}\n")
    opts = salt.config.master_config(str(tmp_path / "master"))
    return opts, salt.loader.returners(opts, salt.loader.minion_mods(opts))


def store(functions, minion, told, jid=JID):
    entry = {"jid": jid, "id": minion, "return": told, "retcode": 0, "success": True}
    functions["local_cache.returner"](entry)


def test_what_the_local_cache_holds_is_found(local):
    opts, functions = local
    assert not jobs.is_published(opts, functions, JID)
    assert jobs.results(opts, functions, JID, ["db1"]) == {}
    load = {"jid": JID, "fun": "service.restart", "tgt": ["db1", "db2"], "tgt_type": "list"}
    functions["local_cache.save_load"](JID, load, minions=["db1", "db2"])
    assert jobs.is_published(opts, functions, JID)
    store(functions, "db1", True)
    found = jobs.results(opts, functions, JID, ["db1", "db2"])
    assert found == {"db1": functions["local_cache.get_jid"](JID)["db1"]}


def test_of_the_local_cache_only_what_is_asked_for_is_read(local, monkeypatch):
    """Any minion can add to a job what it likes, of any size, and replace its load."""
    opts, functions = local
    functions["local_cache.save_load"](JID, [1])
    assert jobs.is_published(opts, functions, JID)
    store(functions, "app1", "x" * jobs.MAX_RESULT_BYTES)
    store(functions, "db1", True)
    store(functions, "db2", [{"a": 1}] * jobs.MAX_RESULT_BYTES)
    read = []
    monkeypatch.setattr(
        jobs.salt.payload, "loads", lambda text: read.append(len(text)) or {"return": True}
    )
    found = jobs.results(opts, functions, JID, ["db1", "db2"])
    assert len(read) == 1
    assert read[0] < 1000
    watched = jobs.Watched("runbook-1.1", JID, Action.RESTART, ("db1", "db2"))
    assert jobs.judge(watched, found["db1"]) == (Outcome.DONE, "")
    outcome, told = jobs.judge(watched, found["db2"])
    assert outcome is Outcome.FAILED
    assert "MB, which is not read" in told


@pytest.mark.parametrize("text", [b"", b"\x85", b"\xc1", b"\x92" * 5000])
def test_a_result_of_the_local_cache_that_cannot_be_unpacked_is_none_yet(local, text):
    opts, functions = local
    functions["local_cache.save_load"](JID, {"jid": JID, "fun": "x"})
    store(functions, "db1", True)
    (path,) = Path(opts["cachedir"]).glob("jobs/*/*/db1/return.p")
    path.write_bytes(text)
    assert jobs.results(opts, functions, JID, ["db1"]) == {}
