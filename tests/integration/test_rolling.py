"""An operator rolls a cluster of real minions: one node after the other, and no further when something goes wrong."""

import threading

import pytest

from tests.lab.demo import TIMES
from tests.lab.site import Site

NODES = ["db1", "db2", "db3"]


@pytest.fixture(scope="module")
def site():
    """A site of its own: a roll's requests count, so soon after it others would have asked too often."""
    own = {**TIMES, "budget": "off"}
    with Site(settings=lambda s: s.cluster_settings(engine={"limits": "off"}, **own)) as made:
        yield made


def pids(site):
    return {name: site.nodes[name].pid() for name in NODES}


def restarted(site, before):
    return {name for name, pid in pids(site).items() if pid != before[name]}


def turns(events):
    """The nodes of the restarts that were ordered, in order."""
    return [e.data["minions"] for e in events.matching("selfheal/remediate/restart")]


def test_an_operator_rolls_the_cluster_and_reads_how_it_goes(quiet):
    before = pids(quiet)
    with quiet.events("selfheal/*") as events:
        told = quiet.salt_run(
            "selfheal.roll", "runbook", "restart", "reason='new certificates'", timeout=180
        )
    assert told.returncode == 0
    assert [turn["node"] for turn in told.data["done"]] == NODES
    assert (told.data["left"], told.data["stopped"]) == ([], None)
    assert restarted(quiet, before) == set(NODES)
    assert turns(events) == [["db1"], ["db2"], ["db3"]]
    lines = told.stderr.splitlines()
    assert lines, told.stdout
    for number, node in enumerate(NODES, 1):
        place = f"{node} ({number} of 3): "
        said = [line for line in lines if line.startswith(place)]
        assert said[0] == f"{place}restart asked for"
        assert "well for" in said[-1]


def test_a_kill_in_the_middle_stops_the_roll_and_is_healed(quiet):
    before = pids(quiet)
    told = {}

    def roll():
        told.update(quiet.run_runner("selfheal.roll", "runbook", "restart", reason="a new kernel"))

    with quiet.events("selfheal/*") as events:
        rolling = threading.Thread(target=roll)
        rolling.start()
        events.wait("selfheal/remediate/restart", timeout=60)
        quiet.nodes["db1"].wait_serving(60)
        quiet.nodes["db3"].kill()
        rolling.join(180)
        assert not rolling.is_alive()
        events.wait(
            "selfheal/incident/runbook/resolved", lambda d: d["nodes"] == ["db3"], timeout=60
        )
    assert told["retcode"] == 1
    assert "db3" in told["stopped"]
    assert told["left"][-2:] == ["db2", "db3"]
    quiet.wait_until_quiet()
    assert "db2" not in restarted(quiet, before)  # nothing goes on by itself
    again = quiet.run_runner("selfheal.roll", "runbook", "restart", "db2,db3", "a new kernel")
    assert [turn["node"] for turn in again["done"]] == ["db2", "db3"]
    assert "db2" in restarted(quiet, before)


@pytest.mark.parametrize("verb", ["pause", "lock"])
def test_it_does_not_begin_on_a_cluster_in_trouble(quiet, verb):
    before = pids(quiet)
    if verb == "pause":
        assert quiet.run_runner("selfheal.pause", "runbook", "5m", "a break")["reply"] == "accepted"
    else:
        assert quiet.run_runner("selfheal.lock", "runbook", "db2", "a new disk")["incident"]
    try:
        told = quiet.run_runner("selfheal.roll", "runbook", "restart", reason="x")
    finally:
        quiet.run_runner("selfheal.resume", "runbook")
        for name in quiet.run_runner("selfheal.status")["clusters"]["runbook"]["incidents"]:
            quiet.run_runner("selfheal.ack", name)
    assert told["reply"] == "refused"
    assert told["why"].startswith("runbook is not ready for a roll: ")
    assert ("paused by" in told["why"]) is (verb == "pause")
    assert pids(quiet) == before
