"""Observers: two applications' minions look at a node, too, before it is restarted.

Master and minions are on one machine and dial one address. A door before db2 tells them apart: it knows which process
dials, and leaves the engine's connections without an answer, as a network does that swallows packets.
"""

import contextlib
import threading
import time

import psutil
import pytest

from tests.integration.conftest import acts
from tests.lab.demo import TIMES
from tests.lab.relay import Relay
from tests.lab.site import Site


class Door(Relay):
    """Leads to a node, and leaves connections of one process without an answer while it is told so."""

    def __init__(self, leads_to):
        self.against = None  #: the pid
        self.opened = threading.Event()
        super().__init__(leads_to)

    def shut_for(self, pid):
        """From now on this process gets no answer; connections that are open end."""
        self.opened.clear()
        self.against = pid
        self._drop()

    def open_for_all(self):
        self.against = None
        self.opened.set()
        self._drop()

    def _pass_on(self, near):
        if self.against is not None and self._dials(self.against, near):
            with near:
                self.opened.wait(60)
            return
        super()._pass_on(near)

    @staticmethod
    def _dials(pid, near):
        with contextlib.suppress(psutil.Error, OSError):
            port = near.getpeername()[1]
            return any(c.laddr.port == port for c in psutil.Process(pid).net_connections("tcp4"))
        return False


@pytest.fixture(scope="module")
def doors():
    made = {}
    yield made
    for door in made.values():
        door.open_for_all()
        door.close()


@pytest.fixture(scope="module")
def site(doors):
    def settings(new):
        doors["db2"] = Door(new.nodes["db2"].driver_port)
        told = new.cluster_settings(
            engine={"limits": "off"},
            **{
                **TIMES,
                "budget": "off",
                # The door has db2's port: what its own minion sees of that port is not what this is about.
                "witness": "off",
                "observers": {"minions": "app*", "quorum": 2, "timeout": "2s"},
            },
        )
        told["clusters"]["runbook"]["nodes"]["db2"] = doors["db2"].address
        return told

    with Site(settings=settings, apps=("app1", "app2")) as made:
        yield made


@pytest.fixture
def quiet(site, doors):
    site.wait_until_quiet()
    yield site
    doors["db2"].open_for_all()
    site.wait_until_quiet()


def incident_of(events, timeout=60):
    """The incident about db2 that is open."""
    told = events.wait(
        "selfheal/incident/runbook/open", lambda d: d["nodes"] == ["db2"], timeout=timeout
    )
    return told.data["incident"]


def test_a_node_that_the_master_alone_cannot_reach_is_left_alone(quiet, doors):
    with quiet.events("selfheal/*") as events:
        doors["db2"].shut_for(quiet.engine_pid())
        incident = incident_of(events)
        held = events.wait(
            "selfheal/incident/runbook/held", lambda d: d["incident"] == incident, timeout=60
        ).data
        assert "observers: db2 is hung from the master only: app" in held["why"]
        assert "(and is refused the login) reaches it" in held["why"]
        time.sleep(3)
        (told,) = [
            e
            for e in quiet.run_runner("selfheal.explain", "runbook", "db2")["entries"]
            if e["incident"] == incident
        ]
        gate = told["gates"]["observers"]
        assert gate.startswith("shut: db2 is hung from the master only: app1 ")
        assert "app2" in gate
        doors["db2"].open_for_all()
        events.wait(
            "selfheal/incident/runbook/resolved", lambda d: d["incident"] == incident, timeout=60
        )
    told = quiet.run_runner("selfheal.incident", incident)
    assert acts(told) == []
    asked = [one for one in told["attempts"] if one["action"] == "probe"]
    assert [one["minions"] for one in asked] == [["app1", "app2"]]
    assert asked[0]["outcome"] == "done" and "app2: reaches it" in asked[0]["why"]
    assert asked[0]["args"] == [doors["db2"].address, "timeout=2"]


def test_a_node_that_hangs_for_everybody_is_restarted_once(quiet):
    node = quiet.nodes["db2"]
    with quiet.events("selfheal/*") as events:
        node.pause()
        incident = incident_of(events)
        events.wait(
            "selfheal/incident/runbook/resolved", lambda d: d["incident"] == incident, timeout=90
        )
    told = quiet.run_runner("selfheal.incident", incident)
    assert [(a["action"], a["outcome"]) for a in acts(told)] == [("restart", "done")]
    (asked,) = (one for one in told["attempts"] if one["action"] == "probe")
    assert asked["outcome"] == "done"
    assert "app1: cannot reach it" in asked["why"] and "no handshake within 2 s" in asked["why"]


def test_where_an_observers_minion_is_gone_it_is_named_and_nothing_is_done(quiet):
    node, daemon = quiet.nodes["db2"], quiet.minions["app2"]
    daemon.terminate()
    try:
        with quiet.events("selfheal/*") as events:
            node.pause()
            incident = incident_of(events)
            held = events.wait(
                "selfheal/incident/runbook/held", lambda d: d["incident"] == incident, timeout=60
            ).data
            assert "must agree that db2 is down, and app1 cannot reach it" in held["why"]
            assert "app2 did not answer" in held["why"] or "only 1 is there" in held["why"]
            node.resume()
            events.wait(
                "selfheal/incident/runbook/resolved",
                lambda d: d["incident"] == incident,
                timeout=60,
            )
        assert acts(quiet.run_runner("selfheal.incident", incident)) == []
    finally:
        with quiet.events("salt/minion/*/start") as events:
            daemon.start()
            events.wait("salt/minion/app2/start", timeout=60)


def test_the_doctor_counts_those_that_answer(quiet):
    lines = quiet.run_runner("selfheal.doctor", live=True)["checks"]
    assert [line for line in lines if "observers now" in line] == [
        "ok    observers now: runbook: 2 named, 2 answer: quorum 2 can be reached"
    ]
