"""The healer doubts itself before it is blind: where it is slow itself, every fault must last longer."""

import pytest

from saltext_selfheal.healing import strain
from saltext_selfheal.healing.events import Observation, Observed
from saltext_selfheal.healing.explain import explain
from saltext_selfheal.healing.model import Fault, Phase
from tests.unit.world import World, policy


def see(site, node, fault=None, latency_s=0.0, late_s=0.0, cluster="runbook"):
    seen = Observation(
        cluster, node, fault, "seen", latency_s, server_id=f"id-{node}", server_name=node, late_s=late_s
    )  # fmt: skip
    site.step(Observed(seen))


def factor(site):
    return strain.of(site.state, site.now)


@pytest.mark.parametrize(
    ("latencies", "found"),
    [
        ((0.1, 0.1, 0.1), 1.0),
        ((0.5, 0.1, 0.1), 1.0),  # one node alone is slow itself
        ((0.5, 0.5, 0.1), 2.0),
        ((0.5, 0.75, 0.1), 2.0),
        ((0.5, 0.75, 0.75), 3.0),
        ((0.9, 0.9, 0.9), 3.6),
        ((9.0, 9.0, 9.0), 4.0),
        ((0.26, 0.26, 0.26), 1.0),
    ],
)
def test_well_nodes_that_answer_late_together_show_that_the_healer_is_slow(latencies, found):
    """A quarter of the timeout of 1 s is late."""
    site = World().warm()
    site.now += 1
    for node, latency_s in zip(("db1", "db2", "db3"), latencies, strict=True):
        see(site, node, latency_s=latency_s)
    site.now += 1
    see(site, "db3", latency_s=latencies[2])
    see(site, "db1", latency_s=latencies[0])
    assert factor(site) == pytest.approx(found)


@pytest.mark.parametrize(("late_s", "found"), [(0.0, 1.0), (0.05, 1.0), (0.5, 1.5), (60.0, 4.0)])
def test_a_round_that_begins_late_shows_it_too(late_s, found):
    site = World().warm()
    see(site, "db1", late_s=late_s)
    assert factor(site) == pytest.approx(found)


def test_both_together_count_up_to_eight_and_are_forgotten_after_ten_seconds():
    site = World().warm()
    site.now += 1
    for node in ("db1", "db2", "db3", "db1"):
        see(site, node, latency_s=9.0, late_s=9.0)
        site.now += 0.6
    assert factor(site) == 8.0
    site.now += 10
    assert factor(site) == 1.0
    assert strain.told(site.state, site.now) == ""


def test_a_faulty_nodes_timeout_is_no_late_answer():
    site = World().warm()
    for node in ("db1", "db2", "db3"):
        see(site, node, Fault.HUNG, latency_s=9.0)
    assert factor(site) == 1.0


def test_one_node_alone_shows_nothing():
    site = World(policy(nodes=("db1",))).warm()
    see(site, "db1", latency_s=0.9)
    assert factor(site) == 1.0


def test_a_timeout_beside_one_late_answer_shows_nothing():
    site = World(policy(nodes=("db1", "db2"))).warm()
    see(site, "db1", latency_s=0.9)
    site.now += 1.5
    see(site, "db2", Fault.HUNG, latency_s=9.0)
    assert factor(site) == 1.0


def test_nodes_of_other_clusters_count():
    other = policy(name="other", nodes=("x1", "x2"), minions="x*")
    site = World(policy(nodes=("db1",)), other).warm()
    see(site, "db1", latency_s=0.5)
    see(site, "x1", latency_s=0.5, cluster="other")
    site.now += 1
    see(site, "x1", latency_s=0.5, cluster="other")
    assert factor(site) == pytest.approx(2.0)


def test_a_fault_must_last_longer_and_the_explanation_says_why():
    site = World().warm()
    site.now += 1
    see(site, "db1", late_s=1.1)  # the poll is 1 s
    see(site, "db2", Fault.AUTH)
    site.now += 4
    see(site, "db2", Fault.AUTH)
    assert not site.cluster.nodes["db2"].confirmed
    assert site.cluster.incidents[0].phase is Phase.SUSPECTED
    told = explain(site.state, "runbook", ("db1",), site.now)[0]
    blind = next(g for g in told.gates if g.name == "blind")
    assert blind.open and blind.why == "the healer is slow itself: confirm takes 2.1 times as long"
    site.now += 2.4
    see(site, "db2", Fault.AUTH)
    assert site.cluster.nodes["db2"].confirmed


def test_the_longest_confirm_grows_as_well():
    """A node that goes from fault to fault is confirmed after the longest confirm of all: that must grow, too."""
    site = World().warm()
    site.now += 1
    for second in range(7):
        see(site, "db1", late_s=2.0)
        see(site, "db2", Fault.AUTH if second % 2 else Fault.HUNG)
        assert not site.cluster.nodes["db2"].confirmed
        site.now += 1


def test_it_never_shortens():
    site = World().warm()
    see(site, "db1", latency_s=-5.0, late_s=-5.0)
    assert factor(site) == 1.0
