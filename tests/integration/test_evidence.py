"""What a node's own minion sees decides what is done: drills with a healer that gives up sooner than they take."""

import time

import pytest

from tests.integration.conftest import acts
from tests.lab.ports import bound_to
from tests.lab.site import SIMULATED, server_command
from tests.lab.supervisor import SERVICE

simulated = pytest.mark.skipif(
    server_command(None)[0] != SIMULATED,
    reason="only the simulated node loads for as long as it is told",
)


def whole(site, incident):
    told = site.run_runner("selfheal.incident", incident)
    return acts(told), told


def ended(events, what="resolved", timeout=120):
    """The next incident about a death that ends so. One that turns out to be another fault ends unconfirmed."""
    words = "well for" if what == "resolved" else ""
    return events.wait(
        f"selfheal/incident/runbook/{what}",
        lambda d: d["fault"] == "dead" and words in d["why"],
        timeout=timeout,
    ).data


def test_a_killed_node_is_seen_by_its_minion_and_restarted_once(quiet, db2):
    with quiet.events("selfheal/*") as events:
        db2.kill()
        incident = ended(events)["incident"]
    attempts, told = whole(quiet, incident)
    assert [(a["action"], a["outcome"]) for a in attempts] == [("restart", "done")]
    question, *_ = (a for a in told["attempts"] if a["action"] == "witness")
    assert question["outcome"] == "done"
    assert question["why"].startswith("its process is gone")
    assert question["args"] == [SERVICE, db2.driver_port]
    assert question["minions"] == ["db2"]


@simulated
def test_a_database_that_loads_for_long_is_restarted_once(quiet, db2):
    with db2.config_path.open("a") as config:
        config.write("simulate-load=15\n")
    with quiet.events("selfheal/*") as events:
        db2.kill()
        began = time.monotonic()
        events.wait(
            "selfheal/incident/runbook/open", lambda d: d["fault"] == "starting", timeout=60
        )
        pid = db2.pid()
        incident = ended(events)["incident"]
        assert time.monotonic() - began > 15
    assert db2.pid() == pid
    attempts, _ = whole(quiet, incident)
    assert [a["action"] for a in attempts] == ["restart"]


def test_a_damaged_configuration_is_mended_by_a_highstate_without_a_restart_before_it(quiet, db2):
    with quiet.events("selfheal/*") as events:
        # Meanwhile somebody tries to start it, and its last words say what is wrong.
        quiet.run_runner("selfheal.pause", "runbook", "60s", reason="a drill")
        db2.damage_config()
        db2.kill()
        quiet.call("db2", "service.start", SERVICE)
        events.wait("selfheal/incident/runbook/held", lambda d: d["fault"] == "dead", timeout=30)
        quiet.run_runner("selfheal.resume", "runbook")
        incident = ended(events)["incident"]
    attempts, told = whole(quiet, incident)
    assert [a["action"] for a in attempts] == ["highstate"]
    question, *_ = (a["why"] for a in told["attempts"] if a["action"] == "witness")
    assert "its configuration is refused" in question


def test_a_port_that_somebody_has_taken_is_left_to_a_person_after_one_try(quiet, db2):
    with quiet.events("selfheal/*") as events:
        db2.kill()
        # It is bound and does not listen: the node refuses the dial, and its server cannot have the port.
        with bound_to(db2.driver_port):
            locked = ended(events, "locked")
        attempts, _ = whole(quiet, locked["incident"])
        assert [a["action"] for a in attempts] == ["restart"]
        assert "another process has its port" in locked["why"]
    assert quiet.highstate("db2")
    db2.wait_serving(60)
    quiet.run_runner("selfheal.ack", locked["incident"], comment="the port is free again")
