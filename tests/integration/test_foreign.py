"""Somebody else works on a node as it dies: the healer waits, says for whom, and nothing is done twice."""

import time

import pytest

from saltext_selfheal.driver.tags import INCIDENT
from tests.integration.conftest import orders, wait_healed
from tests.lab.demo import TIMES
from tests.lab.site import Site
from tests.lab.supervisor import SERVICE

TAKES_S = 8
GRACE_S = 3
HELD, RESOLVED = f"{INCIDENT}runbook/held", f"{INCIDENT}runbook/resolved"


def settings(new):
    times = {**TIMES, "budget": "off", "flapping": {"changes": 4, "within": "15m", "quiet": "30m"}}
    others = {"grace": f"{GRACE_S}s", "most": "5m"}
    return new.cluster_settings(engine={"limits": "off"}, **{**times, "foreign": others})


@pytest.fixture(scope="module")
def site():
    with Site(settings=settings, apps=()) as made:
        yield made


@pytest.fixture
def db2(site):
    site.wait_until_quiet()
    time.sleep(GRACE_S)
    node = site.nodes["db2"]
    yield node
    assert site.highstate("db2")
    node.wait_serving(60)


def states(*more):
    """States that take their time, and then whatever else stands there, in the form of `state.high`."""
    waits = {"it takes its time": {"cmd": ["run", {"name": f"sleep {TAKES_S}"}]}}
    return {**waits, **dict(more)}


START = (
    "the database runs",
    {"service": ["running", {"name": SERVICE}, {"require": [{"cmd": "it takes its time"}]}]},
)


def gate(site):
    (one,) = site.run_runner("selfheal.explain", "runbook", "db2")["entries"]
    return one["gates"]["foreign"]


def held_for(events, jid):
    held = events.wait(HELD, lambda d: jid in d["why"], timeout=TAKES_S).data
    assert f"foreign: db2: state.high by root ({jid}) has run for " in held["why"]
    return held["incident"]


def test_somebodys_states_bring_a_dead_node_back_and_the_healer_does_nothing(site, db2):
    with site.events("selfheal/*") as events:
        jid = site.publish("db2", "state.high", states(START))
        db2.kill()
        incident = held_for(events, jid)
        assert gate(site).startswith(f"shut: db2: state.high by root ({jid}) has run for ")
        db2.wait_serving(60)
        pid = db2.pid()
        events.wait(RESOLVED, lambda d: d["incident"] == incident, timeout=60)
        assert orders(events) == []
    assert db2.pid() == pid


def test_where_they_do_not_the_healer_restarts_it_once_they_are_over(site, db2):
    with site.events("selfheal/*", "salt/job/*/ret/db2") as events:
        jid = site.publish("db2", "state.high", states())
        db2.kill()
        incident = held_for(events, jid)
        events.wait(f"salt/job/{jid}/ret/db2", timeout=60)
        ended = time.monotonic()
        assert orders(events) == []
        assert wait_healed(events) == incident
        assert time.monotonic() - ended >= GRACE_S
        (order,) = orders(events)
    assert (order.data["action"], order.data["minions"]) == ("restart", ["db2"])


def test_an_administrators_rolling_restarts_are_no_flapping(site, db2):
    with site.events("selfheal/*") as events:
        for _ in range(4):
            for name, node in site.nodes.items():
                assert site.call(name, "service.restart", SERVICE)[name]["ret"] is True
                node.wait_serving(30)
                time.sleep(1)  # the healer sees it as well
        assert orders(events) == []
        assert events.matching("selfheal/engine/flapping") == []
        time.sleep(GRACE_S)
        db2.kill()
        began = time.monotonic()
        wait_healed(events)
        assert time.monotonic() - began < 30
        assert len(orders(events)) == 1
