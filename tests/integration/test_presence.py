"""A minion that is not there: the incident says so within seconds, and goes on when the minion is back.

All minions of the lab are on one machine. So that Salt can tell them apart, each database minion has a loopback
address of its own here: it connects from there, and its grains name that one only.
"""

import contextlib
import time

import pytest
import salt.key

from tests.integration.conftest import orders, wait_order
from tests.lab.demo import TIMES
from tests.lab.site import Site

ADDRESSES = {"db1": "127.0.0.101", "db2": "127.0.0.102", "db3": "127.0.0.103"}
AWAY = "minion db2 is not connected to this master"
NO_KEY = "the key of minion db3 is not accepted on this master"


def own_address(name):
    address = ADDRESSES.get(name)
    if address is None:
        return {}
    return {"source_address": address, "grains": {"ipv4": [address], "ipv6": []}}


def settings(site):
    times = {**TIMES, "confirm": "3s", "budget": "off", "attempt": {"timeout": "5m"}}
    return site.cluster_settings(engine={"limits": "off"}, **times)


@pytest.fixture(scope="module")
def site():
    with Site(settings=settings, minion=own_address, apps=()) as made:
        yield made


def gate(site, node):
    """What the gate says of one node."""
    told = site.run_runner("selfheal.explain", "runbook", node)
    (one,) = told["entries"]
    return one["gates"]["minion"]


@pytest.fixture
def found(site):
    """The site at rest, with every minion found connected."""
    site.wait_until_quiet()
    give_up_at = time.monotonic() + 60
    for node in ADDRESSES:
        while gate(site, node) != f"open: connected to this master: {node}":
            assert time.monotonic() < give_up_at, gate(site, node)
            time.sleep(1)
    return site


def incident_held(events, why):
    """Wait until an incident is held for this reason, within seconds, and nothing was ordered: its id."""
    held = events.wait("selfheal/incident/runbook/held", lambda d: why in d["why"], timeout=15)
    assert orders(events) == []
    return held.data["incident"]


def healed_by_one_job(events, incident, node):
    events.wait(
        "selfheal/incident/runbook/resolved", lambda d: d["incident"] == incident, timeout=60
    )
    (order,) = orders(events)
    assert order.data["minions"] == [node]


@contextlib.contextmanager
def without_minion(site, name):
    daemon = site.minions[name]
    daemon.terminate()
    try:
        yield
    finally:
        with site.events("salt/minion/*/start") as events:
            daemon.start()
            events.wait(f"salt/minion/{name}/start", timeout=60)


@contextlib.contextmanager
def rejected(site, name):
    """The minion's key is rejected; without a new AES key, which the minion would end for."""
    opts = {**site.master_opts(), "rotate_aes_key": False}
    salt.key.get_key(opts).reject(name, include_accepted=True)
    try:
        yield
    finally:
        salt.key.get_key(opts).accept(name, include_rejected=True)


def test_a_minion_that_has_gone_is_told_within_seconds_and_not_asked(found):
    with found.events("selfheal/*") as events:
        with without_minion(found, "db2"):
            found.nodes["db2"].kill()
            incident = incident_held(events, AWAY)
            told = found.run_runner("selfheal.status")["clusters"]["runbook"]["nodes"]
            assert told["db2"].endswith(f"; {AWAY}")
            assert "minion" not in told["db1"]
        healed_by_one_job(events, incident, "db2")
    assert found.nodes["db2"].serving()


def test_a_minion_whose_key_is_not_accepted_is_told_at_once_and_others_are_healed(found):
    with found.events("selfheal/*") as events, rejected(found, "db3"):
        found.nodes["db1"].kill()
        healed_by_one_job(events, wait_order(events)["incident"], "db1")
    with found.events("selfheal/*") as events:
        with rejected(found, "db3"):
            found.nodes["db3"].kill()
            incident = incident_held(events, NO_KEY)
        healed_by_one_job(events, incident, "db3")
    assert found.nodes["db3"].serving()
