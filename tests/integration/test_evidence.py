"""What a node's own minion sees decides what is done: drills on a site of their own, with a healer that acts."""

import socket
import time

import pytest

from tests.integration.conftest import acts
from tests.lab.demo import TIMES
from tests.lab.ports import LOOPBACK
from tests.lab.site import SIMULATED, Site, server_command
from tests.lab.supervisor import SERVICE

simulated = pytest.mark.skipif(
    server_command(None)[0] != SIMULATED,
    reason="only the simulated node loads for as long as it is told",
)


@pytest.fixture(scope="module")
def asked():
    """A site whose healer gives up soon: only ``starting`` and the minions' words make it wait."""

    def settings(site):
        more = {**TIMES, "attempt": {"timeout": "60s", "verify": "4s"}, "budget": "off"}
        return site.cluster_settings(engine={"limits": "off"}, **more)

    with Site(settings=settings, apps=()) as made:
        yield made


@pytest.fixture
def db2(asked):
    """The node of the drill, on a site where nothing is open; afterwards it is right and serves."""
    asked.wait_until_quiet()
    node = asked.nodes["db2"]
    yield node
    assert asked.highstate("db2")
    node.wait_serving(60)
    asked.wait_until_quiet()


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


def test_a_killed_node_is_seen_by_its_minion_and_restarted_once(asked, db2):
    with asked.events("selfheal/*") as events:
        db2.kill()
        incident = ended(events)["incident"]
    attempts, told = whole(asked, incident)
    assert [(a["action"], a["outcome"]) for a in attempts] == [("restart", "done")]
    question, *_ = (a for a in told["attempts"] if a["action"] == "witness")
    assert question["outcome"] == "done"
    assert question["why"].startswith("its process is gone")
    assert question["args"] == [SERVICE, db2.driver_port]
    assert question["minions"] == ["db2"]


@simulated
def test_a_database_that_loads_for_long_is_restarted_once(asked, db2):
    with db2.config_path.open("a") as config:
        config.write("simulate-load=25\n")
    with asked.events("selfheal/*") as events:
        db2.kill()
        began = time.monotonic()
        events.wait(
            "selfheal/incident/runbook/open", lambda d: d["fault"] == "starting", timeout=60
        )
        pid = db2.pid()
        incident = ended(events)["incident"]
        assert time.monotonic() - began > 25
    assert db2.pid() == pid
    attempts, _ = whole(asked, incident)
    assert [a["action"] for a in attempts] == ["restart"]


def test_a_damaged_configuration_is_mended_by_a_highstate_without_a_restart_before_it(asked, db2):
    db2.damage_config()
    with asked.events("selfheal/*") as events:
        db2.kill()
        # Somebody tries to start it, so that its last words say what is wrong.
        asked.call("db2", "service.start", SERVICE)
        incident = ended(events)["incident"]
    attempts, told = whole(asked, incident)
    assert [a["action"] for a in attempts][-1] == "highstate"
    assert len(attempts) <= 2  # a restart may have been decided before those words were there
    said = [a["why"] for a in told["attempts"] if a["action"] == "witness"]
    assert any("its configuration is refused" in one for one in said)


def test_a_port_that_somebody_has_taken_is_left_to_a_person_after_one_try(asked, db2):
    with asked.events("selfheal/*") as events, socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        db2.kill()
        taken.bind((LOOPBACK, db2.driver_port))
        # It is bound and does not listen: the node refuses the dial, and its server cannot have the port.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        locked = ended(events, "locked")
        attempts, _ = whole(asked, locked["incident"])
        assert [a["action"] for a in attempts] == ["restart"]
        assert "another process has its port" in locked["why"]
    assert asked.highstate("db2")
    db2.wait_serving(60)
    asked.run_runner("selfheal.ack", locked["incident"], reason="the port is free again")
