"""A minion that lies about what became of another's job: what Salt lets it do, and what bounds it.

It is `app1`, no node of anything. It sends with its own key and over its own channel, by each way that stores a result in
the master's job cache under another minion's name. Each test runs on a master with Salt's own settings, and on one that
has every setting on which asks for signatures.
"""

import contextlib
import math
import time

import pytest
import salt.version

from saltext_selfheal.doctor import returns
from tests.integration.conftest import ASKING
from tests.lab.daemons import STATE_TREE
from tests.lab.demo import TIMES
from tests.lab.liar import BY_RESOURCE, BY_SYNDIC, BY_SYNDIC_RESOURCE, ROUTES, Liar
from tests.lab.site import Site, SiteError

#: Every setting of Salt's that asks who sent a result. Without the last 3008 drops every signed one.
SIGNED = {
    "require_minion_sign_messages": True,
    "drop_messages_signature_fail": True,
    "signing_algorithm": "PKCS1v15-SHA1",
}
BUDGET = 7
#: A highstate that runs until the test lets it end, and for no longer than five minutes; then what the lab's does.
LONG = """
long:
  cmd.run:
    - name: 'n=0; while [ -e "{file}" ] && [ "$n" -lt 3000 ]; do sleep 0.1; n=$((n+1)); done'
    - order: first
"""
FAILED = {"cmd_|-x_|-x_|-run": {"result": False, "comment": "a lie", "__id__": "x"}}
WELL = {"cmd_|-x_|-x_|-run": {"result": True, "comment": "a lie", "__id__": "x"}}
BUSY = ['The function "state.highstate" is running as PID 1 and was started at 2026 with jid 1']


def settings(site):
    more = {
        **TIMES,
        "escalation": ["highstate", "restart"] * 6,
        "witness": "off",  # what its minion says would leave steps out
        "budget": {"attempts": BUDGET, "per": "1h"},
    }
    more["highstate"] = {
        "test_first": False
    }  # what a lie about its answer does is tested in the core
    return site.cluster_settings(engine={"limits": "off"}, **more)


class BusySite(Site):
    """A site whose healer orders highstates, too: where the site's own start is slow, it takes that for an outage."""

    def highstate(self, *args, **kwargs):
        for _ in range(10):
            try:
                return super().highstate(*args, **kwargs)
            except SiteError as exc:
                if "is running as PID" not in str(exc):
                    raise
        return super().highstate(*args, **kwargs)


@pytest.fixture(scope="module", params=[False, True], ids=["as_it_comes", "signed"])
def lied_to(request, tmp_path_factory):
    states = tmp_path_factory.mktemp("states")
    gate = states / "gate"
    (states / "long.sls").write_text(LONG.format(file=gate))
    (states / "top.sls").write_text("base:\n  'db*':\n    - long\n    - rethinkdb\n")
    master = {"file_roots": {"base": [str(states), *STATE_TREE]}}
    minion = {}
    if request.param:
        master.update(SIGNED)
        minion["minion_sign_messages"] = True
    with BusySite(settings=settings, master=master, minion=minion) as made:
        made.signs = request.param
        made.gate = gate
        yield made


@pytest.fixture
def site(lied_to):
    lied_to.gate.unlink(missing_ok=True)
    lied_to.wait_until_quiet()
    yield lied_to
    lied_to.gate.unlink(missing_ok=True)


@contextlib.contextmanager
def held_job(site, node, function, *args):
    """A job on a node that runs until this ends: its JID."""
    site.gate.touch()
    with site.events("salt/job/*") as events:
        jid = site.publish(node, function, *args)
        try:
            wait_running(site, node, jid)
            yield jid
        finally:
            site.gate.unlink(missing_ok=True)
            events.wait(f"salt/job/{jid}/ret/{node}", true, timeout=30)


def running(site, node):
    """The JIDs of what runs on a minion, by its own word."""
    return {job["jid"] for job in site.call(node, "saltutil.running")[node]["ret"]}


def wait_running(site, node, jid):
    for _ in range(30):
        if jid in running(site, node):
            return
    raise TimeoutError(f"{jid} does not run on {node}")


def true(data):
    """Whether this is no lie of this file's."""
    return "a lie" not in repr(data["return"]) and data["return"] != BUSY


def stored(site, jid):
    """What the job cache holds: minion → what it returned."""
    with site.local_client() as client:
        return {m: entry["ret"] for m, entry in client.get_cache_returns(jid).items()}


def open_way(site):
    """A way of lying that this Salt leaves open with these settings."""
    for route, way in ((returns.Route.RESOURCE, BY_RESOURCE), (returns.Route.SYNDIC, BY_SYNDIC)):
        if route in returns.open_routes(site.master_opts()):
            return way
    pytest.skip("this Salt believes no minion about another with these settings")


# ---------------------------------------------------------------- what Salt lets a minion do


def test_a_result_under_anothers_name_is_stored_by_the_ways_that_the_doctor_names(site):
    believed = set()
    for route in ROUTES:
        with held_job(site, "db2", "state.apply", "long") as jid, Liar(site) as liar:
            liar.lie(route, jid, "state.apply", "db2", FAILED, retcode=1, sign=site.signs)
            if "db2" in stored(site, jid):
                believed.add(route)
                assert stored(site, jid)["db2"] == FAILED
            assert jid in running(site, "db2")
        # A second result is dropped, and it is the true one.
        assert (stored(site, jid)["db2"] == FAILED) is (route in believed)
    told = returns.open_routes(site.master_opts())
    assert (BY_RESOURCE in believed) is (returns.Route.RESOURCE in told)
    assert bool({BY_SYNDIC, BY_SYNDIC_RESOURCE} & believed) is (returns.Route.SYNDIC in told)
    if int(salt.version.__version__.split(".")[0]) == 3008:
        assert believed == ({*ROUTES} - {BY_SYNDIC} if site.signs else {*ROUTES})


# ---------------------------------------------------------------- what that does to the healer


def jobs_to(events, node, until=math.inf):
    """(function, JID) of the jobs that were published to a node, but for looks."""
    return [
        (e.data["fun"], e.data["jid"])
        for e in events.matching("salt/job/*/new", lambda d: node in d["minions"])
        if e.data["fun"] != "saltutil.running" and e.at <= until
    ]


@pytest.mark.parametrize("told", [FAILED, BUSY, WELL], ids=["failed", "busy", "done"])
def test_while_a_job_runs_a_lie_about_its_end_brings_no_second_one(site, told):
    way = open_way(site)
    site.gate.touch()
    with site.events("selfheal/*", "salt/job/*") as events, Liar(site) as liar:
        site.nodes["db2"].kill()
        order = events.wait("selfheal/remediate/highstate", timeout=30).data
        jid = order["jid"]
        wait_running(site, "db2", jid)
        liar.lie(way, jid, "state.highstate", "db2", told, int(told is not WELL), sign=site.signs)
        events.wait(f"salt/job/{jid}/ret/db2")
        # Before the next step the minion is asked, under a JID of which nobody knew before.
        look = events.wait(
            "selfheal/remediate/look",
            lambda d: d["attempt"].startswith(f"{order['attempt']}-look"),
            timeout=30,
        ).data
        answer = events.wait(f"salt/job/{look['jid']}/ret/db2", timeout=30).data["return"]
        assert jid in {job["jid"] for job in answer}
        # The healer reads the answer, and is asked for its gates after that.
        wait_shut(site, "db2", "look")
        assert jobs_to(events, "db2") == [("state.highstate", jid)]
        site.gate.unlink()
        ended = events.wait(f"salt/job/{jid}/ret/db2", true, timeout=60)
        events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: d["incident"] == order["incident"],
            timeout=120,
        )
        assert jobs_to(events, "db2", until=ended.at) == [("state.highstate", jid)]


def wait_shut(site, node, gate):
    """Wait until the healer itself says that it is this gate which keeps it from the next step."""
    for _ in range(100):
        told = site.run_runner("selfheal.explain", "runbook", node)["entries"]
        if any(entry["incident"] and gate in entry["shut"] for entry in told):
            return
    raise TimeoutError(f"{gate} is not shut: {told}")


def test_lies_about_looks_too_are_bounded_by_the_budget_one_node_and_the_databases_own_quorum(site):
    """The liar is as quick as can be: it answers each order under its JID before a minion could."""
    way = open_way(site)
    site.gate.touch()
    others = {name: site.nodes[name].pid() for name in ("db1", "db3")}
    with site.events("selfheal/*", "salt/job/*/new") as events, Liar(site) as liar:
        # It starts no more, so that nothing but lies brings anything about.
        site.nodes["db2"].damage_config()
        site.nodes["db2"].kill()
        # Where the minion is quicker all the same, it takes half a minute until it is asked again.
        locked, answered, give_up_at = None, 0, time.monotonic() + 280
        while not locked:
            assert time.monotonic() < give_up_at, [o["action"] for o in ordered(events)]
            orders = ordered(events)
            for order in orders[answered:]:
                told = [] if order["action"] == "look" else FAILED
                function = "saltutil.running" if told == [] else "state.highstate"
                for node in order["minions"]:
                    liar.lie(way, order["jid"], function, node, told, int(bool(told)), site.signs)
            answered = len(orders)
            locked = next(iter(events.matching("selfheal/incident/runbook/locked")), None)
        assert "budget" in locked.data["why"], locked.data["why"]
        acts = [o for o in ordered(events) if o["action"] not in ASKING]
        # The first, which still runs, was followed by others: that much the lies have brought about.
        assert len(acts) > 1
        # And no more: as many as the budget has left, to this node alone.
        assert len(acts) <= BUDGET
        assert {node for o in ordered(events) for node in o["minions"]} == {"db2"}
        # Nor do they lend the cluster a replica that it has not: who asks for another node's restart is told so.
        told = site.run_runner("selfheal.trigger", "runbook", action="highstate", nodes=["db1"])
        assert told["reply"] == "held", told
        liar.lie(way, acts[0]["jid"], "state.highstate", "db2", WELL, 0, site.signs)
        shut = site.run_runner("selfheal.explain", "runbook", "db1")["entries"]
        assert [e["shut"] for e in shut if e["fault"] == "requested"] == [["quorum"]], shut
        assert not any("db1" in order["minions"] for order in ordered(events))
        site.gate.unlink()
        # What ends it is that the database serves, by the first of the jobs or by the second.
        events.wait("selfheal/incident/runbook/resolved", timeout=90)
    assert {name: site.nodes[name].pid() for name in others} == others


def ordered(events):
    """The orders of the healer so far."""
    return [event.data for event in events.matching("selfheal/remediate/*")]
