"""Somebody's word on the minion, mistakes in the healer's own settings, and what follows from what, on a real site."""

import pytest

from tests.integration.conftest import GRANTED, acts, orders, wait_healed
from tests.integration.test_healing import started_jobs
from tests.lab.demo import TIMES
from tests.lab.site import Site

BLACKOUT = ("minion_blackout", "minion_blackout_whitelist")


def waits_for(events, incident, words, timeout=30):
    """Until the incident is announced as held with these words."""
    return events.wait(
        "selfheal/incident/runbook/held",
        lambda d: d["incident"] == incident and words in d["why"],
        timeout=timeout,
    ).data


def resolved(events, incident, timeout=90):
    return events.wait(
        "selfheal/incident/runbook/resolved", lambda d: d["incident"] == incident, timeout=timeout
    ).data


def test_a_highstate_that_is_disabled_on_the_minion_is_waited_for(quiet):
    assert quiet.call("db2", "state.disable", "highstate")
    try:
        with quiet.events("selfheal/*") as events:
            asked = quiet.run_runner(
                "selfheal.trigger", "runbook", "highstate", nodes="db2", reason="x"
            )
            assert asked["reply"] in GRANTED
            told = waits_for(events, asked["incident"], "highstate is disabled on the minion")
            assert "highstate is forbidden there: db2: forbidden" in told["why"]
            assert quiet.call("db2", "state.enable", "highstate")
            resolved(events, asked["incident"])
        whole = quiet.run_runner("selfheal.incident", asked["incident"])
        changes = [a["outcome"] for a in acts(whole)]
        assert changes == ["forbidden", "done"]
    finally:
        quiet.call("db2", "state.enable", "highstate")


def test_a_minion_in_blackout_is_waited_for(quiet):
    # The way back must be open, or the minion is in blackout for ever.
    words = {BLACKOUT[0]: True, BLACKOUT[1]: ["grains.setvals"]}
    over = {BLACKOUT[0]: False}
    assert quiet.call("db3", "grains.setvals", words)
    try:
        with quiet.events("selfheal/*", "salt/job/*") as events:
            quiet.nodes["db3"].kill()
            # Either the restart is refused, or the look that must come before it, after an earlier test's job there.
            held = events.wait(
                "selfheal/incident/runbook/held",
                lambda d: d["fault"] == "dead" and "the minion is in blackout" in d["why"],
                timeout=60,
            ).data
            assert quiet.call("db3", "grains.setvals", over)
            resolved(events, held["incident"], timeout=120)
            assert quiet.nodes["db3"].serving()
        whole = quiet.run_runner("selfheal.incident", held["incident"])
        changes = acts(whole)
        assert [a["outcome"] for a in changes] in (["forbidden", "done"], ["done"])
        assert {a["action"] for a in changes} == {"restart"}
    finally:
        quiet.call("db3", "grains.setvals", over)


def test_a_forced_restart_of_a_well_node_opens_one_incident_only(quiet):
    with quiet.events("selfheal/*") as events:
        forced = quiet.run_runner(
            "selfheal.force", "runbook", "restart", nodes="db1", reason="memory"
        )
        assert forced["reply"] in GRANTED
        resolved(events, forced["incident"])
    told = {e.data["incident"] for e in events.matching("selfheal/incident/runbook/*")}
    assert told == {forced["incident"]}


@pytest.fixture(scope="module")
def typo():
    """A site whose healer has a wrong password."""

    def settings(site):
        return site.cluster_settings(**{**TIMES, "password": "a typo"})

    with Site(settings=settings, apps=()) as made:
        yield made


def test_a_wrong_password_in_the_settings_sends_no_highstate_to_the_databases(typo):
    with typo.events("selfheal/*", "salt/job/*") as events:
        told = events.wait(
            "selfheal/incident/runbook/held",
            lambda d: d["why"].startswith("settings: "),
            timeout=60,
        ).data
        assert told["fault"] == "auth"
        assert "clusters.runbook.user and clusters.runbook.password" in told["why"]
        typo.wait_until_warm()
        explained = typo.run_runner("selfheal.explain", "runbook")
        (entry,) = [e for e in explained["entries"] if e["incident"] == told["incident"]]
        assert "settings" in entry["shut"], explained
        assert orders(events) == []
        assert started_jobs(events, "state.highstate") == []


def test_a_relapse_is_met_with_the_restart_that_had_helped():
    def settings(site):
        return site.cluster_settings(engine={"limits": "off"}, **{**TIMES, "relapse": "1h"})

    with Site(settings=settings, apps=()) as site:
        site.wait_until_quiet()
        healed = []
        for _ in range(3):
            with site.events("selfheal/*") as events:
                site.nodes["db2"].kill()
                healed.append(wait_healed(events))
            site.wait_until_quiet()
        told = [site.run_runner("selfheal.incident", one) for one in healed]
    actions = [[a["action"] for a in acts(one)] for one in told]
    assert actions == [["restart"], ["restart"], ["highstate"]]
    opened = [row["why"] for one in told for row in one["audit"] if row.get("said") == "open"]
    assert any(f"a relapse of {healed[0]}" in why for why in opened)
