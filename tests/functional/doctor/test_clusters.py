"""What the healer has on record: modes, pauses, locks, and nodes that are not well."""

import pytest

from saltext_selfheal.healing.model import (
    ClusterState,
    Fault,
    Incident,
    Locked,
    NodeState,
    Pause,
    Phase,
    Seen,
)
from tests.functional.doctor.conftest import lines, says, settings


def node(fault=None, evidence="answers", polls=5):
    return NodeState(fault=fault, evidence=evidence, since=1.0, polls=polls)


def recorded(engine, **changes):
    nodes = {"db1": node(), "db2": node(), **changes.pop("nodes", {})}
    state = ClusterState("runbook", nodes=nodes, **changes)
    engine.commit(engine.timeline.now(), [state], [])


def test_a_cluster_that_is_well_and_may_be_healed(opts, engine):
    recorded(engine)
    (told,) = lines("clusters", opts)
    assert (
        told == "ok    clusters: acts where it must, every node well when last looked at: runbook"
    )


def test_a_canary_that_cannot_be_asked_is_named_with_what_is_missing(opts, engine):
    missing = "Table `a.b` does not exist"
    recorded(engine, nodes={"db1": NodeState(since=1.0, polls=5, unasked=missing)})
    told, *_ = lines("clusters", opts)
    assert told.startswith(f"warn  clusters: runbook: the canary cannot be asked: {missing}\n")


def test_without_anything_on_record_that_is_what_it_says(opts):
    assert lines("clusters", opts) == ["ok    clusters: nothing on record yet of runbook"]


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_a_healer_that_may_do_nothing_is_a_concern(opts, engine, mode):
    recorded(engine)
    opts["engines"] = [{"selfheal": settings(mode=mode)}]
    says(lines("clusters", opts), "warn", f"runbook: mode is {mode}: nothing is done")


def test_a_pause_is_a_concern_as_long_as_it_lasts(opts, engine):
    now = engine.timeline.now()
    recorded(engine, pause=Pause(now + 60.0, "ann", "upgrade"))
    says(lines("clusters", opts), "warn", "runbook: paused for 60 s more by ann")
    recorded(engine, pause=Pause(now - 1.0, "ann", "upgrade"))
    assert lines("clusters", opts)[0].startswith("ok ")


@pytest.mark.parametrize("cause", [Seen(Fault.DEAD), Locked(("db1",))])
def test_a_lock_names_its_incident_and_how_it_ends(opts, engine, cause):
    incident = Incident(
        "runbook-7", "runbook", cause, ("db1",), Phase.LOCKED, 1.0, 1.0, why="no step is left"
    )
    recorded(engine, incidents=(incident,))
    (told,) = lines("clusters", opts)
    assert "runbook-7 (" in told and "is locked: no step is left" in told
    assert "salt-run selfheal.ack runbook-7" in told


def test_a_node_that_is_not_well_is_a_concern_and_all_of_them_are_a_failure(opts, engine):
    dead = node(Fault.DEAD, "connection to 10.0.0.1:28015 refused")
    recorded(engine, nodes={"db1": dead})
    says(lines("clusters", opts), "warn", "runbook: 1 of 2 nodes not well: db1: connection to")
    recorded(engine, nodes={"db1": dead, "db2": node(Fault.HUNG, "gives no answer")})
    says(lines("clusters", opts), "fail", "runbook: no node is well: db1: connection to")


def test_logins_that_are_refused_everywhere_point_to_the_settings(opts, engine):
    refused = node(Fault.AUTH, "refuses the login")
    recorded(engine, nodes={"db1": refused, "db2": refused})
    (told,) = lines("clusters", opts)
    assert "Check user and password of the cluster runbook in the settings" in told


def test_a_node_that_was_not_looked_at_yet_is_no_concern(opts, engine):
    recorded(engine, nodes={"db2": node(Fault.DEAD, "as before the start", polls=0)})
    assert lines("clusters", opts)[0].startswith("ok ")
