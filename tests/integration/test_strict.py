"""A typo widens nothing, a replayed event runs nothing twice, and two drop-ins are one healer's."""

import pytest

from tests.integration.conftest import MARK
from tests.lab.demo import TIMES
from tests.lab.site import Site


@pytest.mark.parametrize(
    "keywords",
    [
        {"node": "db2"}, {"Nodes": ["db2"]}, {"nodes ": ["db2"]}, {"tgt": "db2"}, {"kwargs": {"nodes": ["db2"]}},
        {"n\u043edes": ["db2"]},
    ],
)  # fmt: skip
def test_a_misspelt_keyword_through_salt_api_widens_no_request(quiet, keywords):
    asked = {"cluster": "runbook", "action": "highstate", **keywords}
    with quiet.events("selfheal/*") as events:
        answer = quiet.api(client="runner", fun="selfheal.trigger", kwarg=asked)
        told = answer.json()["return"][0]
        assert told["reply"] == "refused"
        assert "which is not known here" in told["why"]
        assert events.matching("selfheal/incident/*") == []


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("pause", {"clusters": "runbook", "duration": "1h", "reason": "x"}),
        ("pause", {"cluster": "runbook", "duraton": "1h", "reason": "x"}),
        ("lock", {"cluster": "runbook", "node": "db2", "reason": "x"}),
        ("resume", {"cluser": "runbook"}),
        ("force", {"cluster": "runbook", "action": "restart", "node": "db2", "reason": "x"}),
        ("reject", {"incidents": "runbook-1"}),
    ],
)
def test_a_misspelt_keyword_of_a_command_does_nothing_and_ends_with_an_exit_code(
    quiet, function, words
):
    told = quiet.salt_run(f"selfheal.{function}", *(f"{k}={v}" for k, v in words.items()))
    assert told.returncode == 1
    assert told.data["reply"] == "refused"
    status = quiet.run_runner("selfheal.status")["clusters"]["runbook"]
    assert "paused" not in status and "locked" not in status


def test_a_remediation_that_is_fired_again_by_somebody_is_published_once(quiet):
    with quiet.events("selfheal/*", "salt/job/*/new", "salt/job/*/ret/app1") as events:
        answer = quiet.run_runner("selfheal.trigger", "runbook", "highstate", ["db2"])
        order = events.wait("selfheal/remediate/highstate", timeout=30)
        jid = order.data["jid"]
        for _ in range(5):
            quiet.fire("selfheal/remediate/highstate", order.data)
        events.wait(f"salt/job/{jid}/new", timeout=30)
        quiet.fire("selfheal/remediate/highstate", order.data)
        quiet.fire("selfheal/remediate/restart", {**order.data, "action": "restart"})
        quiet.fire(MARK, {"jid": "20990101000000000001"})
        events.wait("salt/job/20990101000000000001/new", timeout=30)
        assert len(events.matching(f"salt/job/{jid}/new")) == 1
        incident = answer["incident"]
        events.wait("selfheal/incident/*/resolved", lambda d: d["incident"] == incident, timeout=90)


def test_two_entries_with_a_cluster_each_are_both_healed():
    def settings(new):
        whole = new.cluster_settings(engine={"limits": "off"}, **TIMES)
        cluster = whole["clusters"]["runbook"]
        nodes = dict(cluster["nodes"])
        alone = {"db3": nodes.pop("db3")}
        first = {**whole, "clusters": {"runbook": {**cluster, "nodes": nodes}}}
        second = {"clusters": {"other": {**cluster, "nodes": alone}}}
        new._more_master["engines"] = [{"reactor": {}}, {"selfheal": first}, {"selfheal": second}]
        return first

    with Site(settings=settings) as site:
        site.wait_until_quiet()
        assert set(site.run_runner("selfheal.status")["clusters"]) == {"runbook", "other"}
        with site.events("selfheal/*") as events:
            for name, cluster in (("db1", "runbook"), ("db3", "other")):
                site.nodes[name].kill()
                events.wait(f"selfheal/incident/{cluster}/resolved", timeout=90)
                assert site.nodes[name].serving()
