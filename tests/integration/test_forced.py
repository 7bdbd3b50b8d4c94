"""A server that hangs behind RethinkDB's packaged init script, whose restart waits for ever: it is ended by force."""

import time

import pytest

from tests.integration.conftest import acts
from tests.lab.demo import TIMES
from tests.lab.site import Site

TIMEOUT_S = 6  #: for the restart's job to return; the orderly stop gets half of it


@pytest.fixture(scope="module")
def site():
    def settings(new):
        times = {**TIMES, "attempt": {"timeout": f"{TIMEOUT_S}s", "verify": "10s"}}
        return new.cluster_settings(engine={"limits": "off"}, **times)

    def minion(name):
        return {"lab_init_script": True} if name == "db2" else {}

    with Site(settings=settings, apps=(), minion=minion) as made:
        yield made


def test_what_a_restart_waits_for_is_ended_by_force_and_the_database_serves(site):
    site.wait_until_quiet()
    node, old = site.nodes["db2"], site.nodes["db2"].pid()
    with site.events("selfheal/*") as events:
        node.pause()
        began = time.monotonic()
        events.wait(
            "selfheal/incident/runbook/open",
            lambda d: d["why"].startswith("restart on db2 does not come back"),
            timeout=60,
        )
        resolved = events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: (d["nodes"], d["fault"]) == (["db2"], "hung") and "well for" in d["why"],
            timeout=120,
        ).data
    assert time.monotonic() - began > TIMEOUT_S
    told = site.run_runner("selfheal.incident", resolved["incident"])
    assert [(one["action"], one["outcome"]) for one in acts(told)] == [
        ("restart", "timed_out"),
        ("force_restart", "done"),
    ]
    assert node.serving() and node.pid() != old
