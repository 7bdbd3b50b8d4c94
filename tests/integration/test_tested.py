"""A highstate is tried in test mode first: what a real minion tells, and what the healer makes of it."""

import pytest

from tests.integration.conftest import GRANTED, acts
from tests.integration.test_healing import started_jobs
from tests.lab.demo import TIMES
from tests.lab.site import Site


@pytest.fixture(scope="module")
def site():
    def settings(new):
        own = {**TIMES, "budget": "off", "escalation": ["highstate", "restart"]}
        return new.cluster_settings(engine={"limits": "off"}, **own)

    with Site(settings=settings, apps=()) as made:
        yield made


def resolved(events, incident=None):
    return events.wait(
        "selfheal/incident/runbook/resolved",
        lambda d: incident in (None, d["incident"]) and (incident or "well for" in d["why"]),
        timeout=90,
    ).data


def test_a_drift_is_found_mended_and_named(quiet):
    node = quiet.nodes["db2"]
    with quiet.events("selfheal/*") as events:
        node.damage_config()
        node.kill()
        done = resolved(events)
    told = quiet.run_runner("selfheal.incident", done["incident"])
    assert [a["action"] for a in acts(told)] == ["highstate"]
    question = next(a for a in told["attempts"] if a["action"] == "test_highstate")
    assert question["outcome"] == "done"
    assert "it would change" in question["why"] and "file.managed" in question["why"]
    assert "it has changed" in acts(told)[0]["why"]
    assert "the configuration had drifted: file.managed" in done["why"]
    node.wait_serving(60)


def test_a_highstate_that_would_change_nothing_is_not_made(quiet):
    with quiet.events("selfheal/*", "salt/job/*") as events:
        asked = quiet.run_runner("selfheal.trigger", "runbook", "highstate", reason="I want it")
        assert asked["reply"] in GRANTED
        done = resolved(events, asked["incident"])
        assert done["why"] == "a highstate would change nothing on db1, db2, db3"
        jobs = started_jobs(events, "state.highstate")
        assert [job["arg"] for job in jobs] == [[{"__kwarg__": True, "test": True}]] * 3
    told = quiet.run_runner("selfheal.incident", asked["incident"])
    assert acts(told) == []
    status = quiet.run_runner("selfheal.status", "runbook")
    assert not status["clusters"]["runbook"]["incidents"]


def test_a_highstate_of_which_nothing_can_be_told_is_made(quiet):
    """A person has disabled it, so that its test run says nothing; and enables it before the real one."""
    node = quiet.nodes["db1"]
    with quiet.events("selfheal/*") as events:
        assert quiet.call("db1", "state.disable", "highstate")
        try:
            node.kill()
            events.wait(
                "selfheal/remediate/highstate", lambda d: d["minions"] == ["db1"], timeout=60
            )
        finally:
            assert quiet.call("db1", "state.enable", "highstate")
        done = resolved(events)
    told = quiet.run_runner("selfheal.incident", done["incident"])
    question = next(a for a in told["attempts"] if a["action"] == "test_highstate")
    assert "disabled" in question["why"]
