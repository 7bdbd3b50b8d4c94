"""What can be wrong around the healer: it lives on, does nothing stupid, says one clear thing, and status shows it."""

import pytest

from tests.lab.site import Site, package_reactor


def cluster(site, node, address=None, **more):
    return {
        "minions": "db*",
        "nodes": {node: address or site.nodes[node].address},
        "password": site.password,
        "poll": "500ms",
        "timeout": "1s",
        "confirm": {"dead": 0, "unreachable": 0, "default": "1m"},
        "attempt": {"timeout": "3s", "verify": "3s"},
        **more,
    }


def settings(site):
    """Three clusters of one node each, so that one's trouble is not another's."""
    return {
        "limits": "off",
        "clusters": {
            "unmapped": cluster(site, "db1", escalation=["highstate"]),
            "offline": cluster(site, "db2"),
            "unresolvable": cluster(site, "db3", "nosuch.invalid:28015"),
        },
    }


@pytest.fixture(scope="module")
def site():
    reactor = [one for one in package_reactor() if "selfheal/remediate/highstate" not in one]
    with Site(settings=settings, reactor=reactor, apps=()) as made:
        yield made


def incidents(site, name):
    return site.run_runner("selfheal.status", name)["clusters"][name]["incidents"]


def test_trouble_of_three_kinds_at_once(site):
    with site.events("selfheal/*", "salt/job/*") as events:
        # An address that does not resolve: announced, nothing done, the engine goes on.
        (told,) = incidents(site, "unresolvable").values()
        assert (told["fault"], told["held"]) == ("unreachable", "announce only")
        assert "nosuch.invalid:28015 does not resolve" in told["why"]

        # A minion that is away: its job never returns, a look is not answered either.
        site.minions["db2"].terminate()
        site.wait_until_warm()
        site.nodes["db2"].kill()
        # A reactor that lacks an action's file: three firings of one attempt, then it says so.
        site.nodes["db1"].kill()

        events.wait("selfheal/remediate/look", lambda d: d["cluster"] == "offline", timeout=60)
        late = events.wait(
            "selfheal/incident/offline/verifying",
            lambda d: "is the minion up?" in d["why"],
            timeout=60,
        ).data
        assert late["nodes"] == ["db2"]

        held = events.wait(
            "selfheal/incident/unmapped/held", lambda d: "does not publish" in d["why"], timeout=90
        ).data
        assert held["why"] == "the reactor does not publish highstate on db1"
        fired = [
            e.data
            for e in events.matching("selfheal/remediate/highstate")
            if e.data["cluster"] == "unmapped"
        ]
        assert len({e["jid"] for e in fired}) == 1
        assert len(fired) == 3
        jobs = [e.data for e in events.matching("salt/job/*/new") if "db1" in e.data["minions"]]
        # A test run is a question, as the witness is.
        asked = [job for job in jobs if {"__kwarg__": True, "test": True} in job["arg"]]
        assert {job["fun"] for job in asked} == {"state.highstate"}
        assert {job["fun"] for job in jobs if job not in asked} <= {"selfheal.witness"}

    told = site.run_runner("selfheal.status")
    assert told["engine"] == "running"
    assert "does not publish" in str(told["clusters"]["unmapped"]["incidents"])


def test_a_request_for_an_unknown_cluster_is_refused_with_the_known_ones(site):
    told = site.run_runner("selfheal.trigger", "nosuch")
    assert told["reply"] == "refused"
    assert told["why"] == "unknown cluster 'nosuch'; configured: offline, unmapped, unresolvable"
