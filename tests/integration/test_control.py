"""`salt db1 selfheal.force_restart rethinkdb <port>` on a minion of the lab. No healer is in the way here."""

import pytest

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


def order(site, node, **more):
    answer = site.call(
        node.minion_id, "selfheal.force_restart", SERVICE, node.driver_port, timeout=60, **more
    )
    return answer[node.minion_id]


def test_a_server_that_hangs_serves_again(site, db1):
    others = {name: node.pid() for name, node in site.nodes.items() if node is not db1}
    db1.pause()
    old = db1.pid()
    told = order(site, db1, stop_timeout=1)
    assert told["retcode"] == 0, told
    assert (told["ret"]["how"], told["ret"]["killed"]) == ("killed", [old])
    assert told["ret"]["pid"] == db1.pid() != old
    db1.wait_serving(30)
    assert {name: site.nodes[name].pid() for name in others} == others


def test_one_that_is_well_stops_in_an_orderly_way(site, db1):
    told = order(site, db1)
    assert (told["retcode"], told["ret"]["how"], told["ret"]["killed"]) == (0, "orderly", [])
    db1.wait_serving(30)


def test_an_order_that_comes_too_late_is_an_error(site, db1):
    old = db1.pid()
    told = order(site, db1, not_after=1000)
    assert (told["retcode"], told["ret"]["done"], told["ret"]["how"]) == (1, False, "none")
    assert db1.pid() == old
