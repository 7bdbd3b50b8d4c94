"""`salt db1 selfheal.witness rethinkdb <port>`: what a minion sees of its server. No healer is in the way here."""

import json
import time

import pytest

from tests.lab.ports import LOOPBACK, bound_to
from tests.lab.site import Site
from tests.lab.supervisor import SERVICE


@pytest.fixture(scope="module")
def site():
    with Site(apps=()) as made:
        yield made


@pytest.fixture
def db1(site):
    """A node that serves, and serves again after the test."""
    node = site.nodes["db1"]
    yield node
    if node.pid() is not None:
        node.resume()
    assert site.highstate("db1")
    node.wait_serving(60)


def ask(site, node, timeout=30):
    answer = site.call(
        node.minion_id, "selfheal.witness", SERVICE, node.driver_port, timeout=timeout
    )
    told = answer[node.minion_id]
    assert told["retcode"] == 0, told
    assert len(json.dumps(told["ret"])) <= 8192
    assert node.password not in json.dumps(told["ret"])
    return told["ret"]


def test_it_tells_of_a_server_that_serves(site):
    for node in site.nodes.values():
        told = ask(site, node)
        process = told["process"]
        assert (process["state"], process["pid"], process["why"]) == ("runs", node.pid(), None)
        assert (told["listens"], told["cluster_listens"], told["holder"]) == (True, True, None)
        assert told["manager"]["running"] is True
        assert told["directory"]["path"] == str(node.directory)
        assert told["directory"]["free_bytes"] > 0
        peers = {f"{LOOPBACK}:{one.cluster_port}" for one in site.nodes.values() if one is not node}
        assert set(told["peers"]) == peers
        assert told["log"] is None or told["log"]["line"]


def test_it_tells_of_one_that_was_killed(site, db1):
    db1.kill()
    told = ask(site, db1)
    assert (told["process"]["state"], told["process"]["pid"]) == ("gone", None)
    assert (told["listens"], told["cluster_listens"], told["holder"]) == (False, False, None)
    assert told["manager"]["running"] is False
    assert told["directory"]["path"] == str(db1.directory)
    assert len(told["peers"]) == 2


def test_it_tells_of_one_that_is_stopped(site, db1):
    db1.pause()
    told = ask(site, db1)
    assert (told["process"]["state"], told["process"]["status"]) == ("runs", "T")
    assert (told["listens"], told["manager"]["running"]) == (True, True)


def test_it_tells_why_one_does_not_start(site, db1):
    db1.damage_config()
    db1.kill()
    begun = time.time()
    assert site.call("db1", "service.start", SERVICE)["db1"]["retcode"] != 0
    told = ask(site, db1)
    assert told["process"]["state"] == "gone"
    assert "unrecognized option name 'selfheal-lab-nonsense'" in told["log"]["line"]
    assert told["log"]["path"] == str(site.supervisor.errors("db1"))
    assert told["log"]["age_s"] <= time.time() - begun


def test_it_names_who_has_taken_the_port(site, db1):
    db1.kill()
    with bound_to(db1.driver_port, listens=True):
        assert site.call("db1", "service.start", SERVICE)["db1"]["retcode"] != 0
        told = ask(site, db1)
    assert (told["process"]["state"], told["listens"]) == ("gone", False)
    assert told["holder"]["name"]
    assert told["holder"]["pid"]
    assert told["log"]["line"]


def test_a_bad_argument_is_one_clear_line(site):
    answer = site.call("db1", "selfheal.witness", SERVICE, 0)["db1"]
    assert answer["retcode"] != 0
    assert "port: found 0; allowed: a number from 1 to 65535" in answer["ret"]


def test_it_takes_about_as_long_as_any_job(site):
    begun = time.monotonic()
    ask(site, site.nodes["db2"])
    assert time.monotonic() - begun < 5
