"""An operator's commands on a real site: what they stop, what they tell, and that they survive the master's death."""

import time
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import acts, orders, wait_order
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
    assert [a["outcome"] for a in acts(whole)] == ["done"]
    kinds = [row["kind"] for row in run("selfheal.history", "runbook", limit=50)]
    assert "command" in kinds
    assert run("selfheal.audit")["ok"] is True


def test_salt_run_ends_with_an_error_where_a_command_was_refused(quiet):
    refused = quiet.salt_run("selfheal.pause", "nosuch", "1h", reason="x")
    assert refused.returncode == 1
    assert "cluster: found 'nosuch'; allowed: runbook" in refused.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status"], 0, "running"),
        (["history", "limit=1"], 0, ""),
        (["status", "nosuch"], 1, "cluster: found 'nosuch'; allowed: runbook"),
        (["history", "101"], 1, "cluster: found 101; allowed: runbook; a name is given as text"),
        (
            ["history", "lmit=3"],
            1,
            "keyword: found 'lmit', which is not known here; allowed: cluster",
        ),
        (["incident"], 1, "id: found nothing; allowed: "),
        (["incident", "[1]"], 1, "id: found a list; allowed: the id of an incident"),
        (["ack"], 1, "incident: found nothing; allowed: "),
        (["config", "nodes=[]"], 1, "nodes: found a list; allowed: {minion id: address}"),
        (["audit", "now"], 1, "arguments: found 1, the first too many is 'now'; allowed: none"),
    ],
)
def test_salt_run_ends_with_0_only_where_it_was_done(quiet, words, code, said):
    told = quiet.salt_run(f"selfheal.{words[0]}", *words[1:])
    assert told.returncode == code
    assert "Traceback" not in told.stdout + told.stderr
    assert "CLI Example" not in told.stdout
    if code:
        assert (told.data["reply"], told.data["retcode"]) == ("refused", 1)
        assert told.data["why"].startswith(said)
    else:
        assert said in told.stdout


def test_through_salt_api_a_refusal_is_an_object(quiet):
    for function, words in (
        ("status", {"cluster": ["runbook"]}),
        ("status", {"cluster": "\x1b[2J\n"}),
        ("status", {"clusters": "runbook"}),
        ("trigger", {}),
        ("trigger", {"cluster": "runbook", "action": "restart", "nodes": [7]}),
    ):
        answer = quiet.api(client="runner", fun=f"selfheal.{function}", kwarg=words)
        assert answer.ok, (function, words, answer.status_code, answer.text)
        told = answer.json()["return"][0]
        assert isinstance(told, dict), (function, words, told)
        assert (told["reply"], told["retcode"]) == ("refused", 1)
        assert "found" in told["why"]


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
    status = run("selfheal.status")
    assert (status["engine"], status["retcode"]) == ("not running", 1)
    assert status["clusters"]["runbook"]["nodes"]["db2"].startswith("as of 20")
    stored = run("selfheal.pause", "runbook", "1s", reason="given while nobody listens")
    assert stored["reply"] == "stored"
    site.master.start()
    site.wait_until_quiet()
    assert site.nodes["db1"].serving()
    whole = run("selfheal.incident", order["incident"])
    assert whole["phase"] == "resolved"
    attempt, *more = (one for one in whole["attempts"] if one["action"] != "witness")
    assert (attempt["jid"], attempt["minions"]) == (order["jid"], ["db1"])
    # The result can be lost with the master. Then, and only then, the healer looks after the job.
    assert [one["action"] for one in more] == ["look"] * (attempt["outcome"] == "timed_out")
    assert run("selfheal.incident", stored["command"])["reply"] == "accepted"
    # The minion runs a JID once, however often it was published.
    with site.events("salt/job/*") as events:
        assert returned(events, "service.restart") == []
    assert run("selfheal.audit")["ok"] is True
