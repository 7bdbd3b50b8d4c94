"""Bounded forms of the long proofs, and what the simulator promises."""

import pytest

from saltext_selfheal.healing.model import Action, Fault, Outcome, Policy

from . import exhaustive, incidents
from .simulator import Job, Luck, Simulation

POLICY = Policy("c", ("n1", "n2", "n3"), "n*", confirm_s=dict.fromkeys(Fault, 3.0))


@pytest.mark.parametrize("model", exhaustive.MODELS, ids=lambda m: m.name)
def test_every_interleaving_of_the_first_events(model):
    for seconds in (3.0, 30.0):  # a busy machine needs more time for as many of them
        found = exhaustive.search(model, seconds=seconds, depth=12)
        if found.broken or found.states > 500:
            break
    assert not found.broken
    assert found.states > 500


def test_random_incidents_break_no_rule():
    total = incidents.Sum()
    for seed in range(20):
        total.merge(incidents.batch(seed, 1))
    assert total.broken == []
    assert total.incidents > 100
    assert total.fired > 50


def test_the_same_seed_tells_the_same_history():
    one, two = incidents.play(11), incidents.play(11)
    assert one.effects == two.effects
    assert one.figures == two.figures


def test_a_dead_node_is_healed():
    site = Simulation(POLICY, seed=1)
    site.at(30, site.fail, "n2", Fault.DEAD, cured_by=Action.RESTART)
    site.run(until=120)
    assert [(action, nodes) for _, action, nodes in site.figures.fired] == [
        (Action.RESTART, ("n2",))
    ]
    assert site.figures.needless == 0
    assert site.state.clusters["c"].incidents == ()


def test_the_second_highstate_helps():
    site = Simulation(POLICY, seed=1)
    site.jobs["n1"] = [Job(Outcome.FAILED)]
    site.at(30, site.fail, "n1", Fault.DEAD, cured_by=Action.HIGHSTATE)
    site.run(until=600)
    assert [action for _, action, _ in site.figures.fired] == [Action.RESTART, Action.HIGHSTATE]
    assert site.figures.needless == 1


def test_a_forged_event_runs_nothing():
    site = Simulation(POLICY, seed=1)
    site.at(40, site.forge, "c-1.1")
    site.run(until=60)
    assert site.figures.refused == 1
    assert not site.ran


def test_an_event_that_nobody_hears_is_fired_again_and_runs_once():
    site = Simulation(POLICY, seed=1, luck=Luck(lost=1.0))
    site.at(30, site.fail, "n1", Fault.DEAD, cured_by=Action.RESTART)
    site.at(40, setattr, site, "luck", Luck())
    site.run(until=200)
    assert len(site.figures.fired) == 1
    assert site.ran == {("c-1.1", "n1")}


def test_a_crash_between_record_and_deed_loses_nothing():
    site = Simulation(POLICY, seed=1, luck=Luck(crash_on_fire=1.0))
    site.at(30, site.fail, "n1", Fault.DEAD, cured_by=Action.RESTART)
    site.at(34, setattr, site, "luck", Luck())
    site.at(50, setattr, site, "luck", Luck())
    site.run(until=400)
    assert "n1" not in site.ill
    assert site.state.clusters["c"].incidents == ()
