"""An operator's commands on a real site: what they stop, what they tell, and that they survive the master's death."""

import time
from pathlib import Path

import psutil

from tests.integration.conftest import orders, wait_order
from tests.integration.test_healing import returned


def test_a_paused_cluster_is_left_alone_and_explained_and_healed_after_resume(quiet):
    run = quiet.run_runner
    with quiet.events("selfheal/*", "salt/job/*") as events:
        paused = run("selfheal.pause", "runbook", "10m", reason="a new disk")
        assert paused["reply"] == "accepted"
        quiet.nodes["db3"].kill()
        held = events.wait("selfheal/incident/runbook/held", timeout=30).data
        assert held["why"].startswith("paused: by ")
        told = run("selfheal.explain", "runbook", "db3")
        assert told["engine"] == "running"
        (entry,) = [e for e in told["entries"] if e["incident"] == held["incident"]]
        assert entry["shut"] == ["paused"]
        assert entry["on"] == ["db3"]
        assert orders(events) == []
        assert run("selfheal.resume", "runbook")["reply"] == "accepted"
        resolved = events.wait("selfheal/incident/runbook/resolved", timeout=60).data
        assert resolved["incident"] == held["incident"]
    assert quiet.nodes["db3"].serving()
    whole = run("selfheal.incident", held["incident"])
    assert whole["phase"] == "resolved"
    assert [a["outcome"] for a in whole["attempts"]] == ["done"]
    kinds = [row["kind"] for row in run("selfheal.history", "runbook", limit=50)]
    assert "command" in kinds
    assert run("selfheal.audit")["ok"] is True


def test_salt_run_ends_with_an_error_where_a_command_was_refused(quiet):
    refused = quiet.salt_run("selfheal.pause", "nosuch", "1h", reason="x")
    assert refused.returncode == 1
    assert "cluster: found 'nosuch'; allowed: runbook" in refused.stdout


def test_a_lock_by_hand_ends_by_ack(quiet):
    run = quiet.run_runner
    locked = run("selfheal.lock", "runbook", "db1", reason="hands off")
    assert run("selfheal.status")["clusters"]["runbook"]["locked"][0].startswith("db1 by ")
    assert run("selfheal.ack", locked["incident"], "done")["reply"] == "accepted"
    assert run("selfheal.ack", locked["incident"])["why"].startswith("no open incident")


def wait_begun(site, events, minion, jid):
    """Until the minion works at this job, or has: a master that dies earlier may take it along."""
    proc = Path(site.minions[minion].config["cachedir"]) / "proc" / jid
    give_up_at = time.monotonic() + 20
    while not proc.exists() and not events.matching(f"salt/job/{jid}/ret/{minion}"):
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def test_a_master_that_dies_whole_goes_on_where_it_was(site):
    """SIGKILL for the master and all its children, when the minion has the job and nobody has read its result."""
    site.wait_until_quiet()
    with site.events("selfheal/*", "salt/job/*") as events:
        site.nodes["db1"].kill()
        order = wait_order(events)
        wait_begun(site, events, "db1", order["jid"])
        master = psutil.Process(site.master.pid)
        family = [*master.children(recursive=True), master]
        for one in family:
            one.kill()
        psutil.wait_procs(family, timeout=10)
    site.master.terminate()
    run = site.run_runner
    assert run("selfheal.status")["engine"] == "not running"
    stored = run("selfheal.pause", "runbook", "1s", reason="given while nobody listens")
    assert stored["reply"] == "stored"
    site.master.start()
    site.wait_until_quiet()
    assert site.nodes["db1"].serving()
    whole = run("selfheal.incident", order["incident"])
    assert whole["phase"] == "resolved"
    attempt, *more = whole["attempts"]
    assert (attempt["jid"], attempt["minions"]) == (order["jid"], ["db1"])
    # The result can be lost with the master. Then, and only then, the healer looks after the job.
    assert [one["action"] for one in more] == ["look"] * (attempt["outcome"] == "timed_out")
    assert run("selfheal.incident", stored["command"])["reply"] == "accepted"
    # The minion runs a JID once, however often it was published.
    with site.events("salt/job/*") as events:
        assert returned(events, "service.restart") == []
    assert run("selfheal.audit")["ok"] is True
