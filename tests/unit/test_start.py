"""What the healer takes along when the settings change: nobody forgets a budget, a rest, a job or a pause by that."""

from dataclasses import replace

import pytest

from saltext_selfheal.healing import gates, looks
from saltext_selfheal.healing.events import Returned
from saltext_selfheal.healing.model import (
    Action,
    ClusterState,
    Fault,
    Fire,
    Incident,
    Limits,
    Outcome,
    Phase,
    Seen,
    Step,
)
from saltext_selfheal.healing.start import forgotten, remains
from tests.unit.world import World, policy

NOW = 1_000_000.0
ONE, TWO = policy(name="one", nodes=("db1",)), policy(name="two", nodes=("db2",))


def after(world, *policies, now=None, limits=None):
    """The healer starts again with other settings: what the ledger holds by then."""
    named = {p.name: p for p in policies}
    gone = {n: c for n, c in world.remembered.items() if n not in named}
    gone |= {n: c for n, c in world.state.clusters.items() if n not in named}
    other = World(
        *policies,
        limits=limits,
        remembered={**world.remembered, **world.state.clusters},
        now=world.now if now is None else now,
    )
    other.remembered = {n: remains(c, named, other.now) for n, c in gone.items()}
    return other


def site(*policies, **more):
    world = World(*policies, **more)
    world.remembered = {}
    return world


def spend(world, cluster, node, times=3):
    """So many attempts on a node, none of which helps."""
    world.break_(node, cluster=cluster)
    for _ in range(times):
        world.pass_time(6)
        world.publish()
        world.pass_time(2)
        world.returns(Outcome.FAILED)
    world.pass_time(4)
    return world.state.clusters[cluster].nodes[node]


# ---------------------------------------------------------------- budgets and rests


def test_a_node_that_is_taken_out_and_put_back_has_the_budget_that_it_had():
    whole = policy()
    world = site(whole).warm()
    spent = spend(world, "runbook", "db1").spent
    without = after(world, replace(whole, nodes=("db2", "db3"))).warm()
    assert "db1" not in without.cluster.nodes
    back = after(without, whole).warm()
    assert back.cluster.nodes["db1"].spent == spent
    back.break_("db1")
    back.pass_time(10)
    assert back.fired == []


def test_a_lost_ledger_is_not_outwitted_by_a_change_of_settings():
    whole = policy()
    world = site(whole, remembered=forgotten({"runbook": whole}, NOW, Limits())).warm()
    without = after(world, replace(whole, nodes=("db2", "db3"))).warm()
    back = after(without, whole)
    node = back.cluster.nodes["db1"]
    assert node.spent == (NOW,) * whole.budget_attempts
    assert node.cooldown_until == NOW + whole.cooldown_max_s


def test_what_a_former_node_has_paid_is_forgotten_when_it_counts_no_more():
    whole = policy()
    world = site(whole).warm()
    spend(world, "runbook", "db1")
    fewer = replace(whole, nodes=("db2", "db3"))
    without = after(world, fewer)
    assert set(without.cluster.former) == {"db1"}
    later = after(without, fewer, now=without.now + whole.budget_per_s + whole.cooldown_max_s)
    assert later.cluster.former == {}


def test_a_node_that_moves_to_another_cluster_and_back_pays_in_both():
    here, there = policy(name="here"), policy(name="there")
    world = site(here).warm()
    moved = after(world, there).warm()
    spent = spend(moved, "there", "db1").spent
    assert len(spent) == 3
    back = after(moved, here)
    assert back.cluster.nodes["db1"].spent == spent
    back.break_("db1", cluster="here")
    back.pass_time(40)
    assert back.fired == []


def test_attempts_that_two_clusters_remember_count_once():
    """They were made at the same time, in two clusters: both count; one that two rows remember counts once."""
    world = site(ONE, TWO).warm()
    world.break_("db1", cluster="one")
    world.break_("db2", cluster="two")
    world.pass_time(5)
    times = world.state.clusters["one"].acts + world.state.clusters["two"].acts
    assert len(times) == 2 and times[0] == times[1]
    assert "2 of 10" in limits_of(after(world, ONE), "one", "db1")
    back = after(after(world, ONE), ONE, TWO)
    assert "2 of 10" in limits_of(back, "one", "db1")


def limits_of(world, cluster, node):
    """What the gate ``limits`` says of a restart there."""
    one = Step(Action.RESTART)
    incident = Incident(
        "x-1", cluster, Seen(Fault.DEAD), (node,), Phase.OPEN, 0.0, 0.0, steps=(one,)
    )
    return gates.limits(world.state, gates.Intent(cluster, incident, one, (node,)), world.now).why


# ---------------------------------------------------------------- jobs


def renamed_in_flight(published=True):
    """A highstate is on its way to db1 when the cluster gets another name; the database dies meanwhile."""
    world = site(policy()).warm()
    world.break_("db1", fault=Fault.AUTH)
    world.pass_time(6)
    if published:
        world.publish()
    other = after(world, policy(name="renamed"), now=world.now + 5)
    other.break_("db1", cluster="renamed")
    return other


def test_a_job_that_runs_while_its_cluster_is_renamed_keeps_its_minion():
    world = renamed_in_flight()
    assert world.finished == [("runbook-1.1", Outcome.TIMED_OUT)]
    world.pass_time(300)
    assert {action for action, _ in world.fired} == {"look"}
    assert world.cluster.nodes["db1"].cooldown_until > NOW


def test_when_that_job_has_ended_the_node_is_healed_under_its_new_name():
    world = renamed_in_flight()
    for _ in range(200):
        world.pass_time(1)
        if world.cluster.look and world.cluster.look.published_at is None:
            world.publish()
            world.returns(Outcome.DONE, "nothing of ours runs")
    assert ("restart", ("db1",)) in world.fired


def test_a_job_that_was_never_published_is_lost_with_its_cluster():
    world = renamed_in_flight(published=False)
    assert world.finished == [("runbook-1.1", Outcome.LOST)]
    world.pass_time(30)
    assert ("restart", ("db1",)) in world.fired


def parted_in_flight(*policies):
    """A restart on db1 and db2 is under way when the settings part them."""
    world = site(policy()).warm()
    world.break_("db1", "db2")
    world.pass_time(6)
    world.publish()
    return after(world, *policies, now=world.now + 5)


ONE_AND_THREE = policy(nodes=("db1", "db3"))
ONLY_TWO = policy(name="other", nodes=("db2",))


@pytest.mark.parametrize("settings", [(ONE_AND_THREE, ONLY_TWO), (ONLY_TWO, ONE_AND_THREE)])
@pytest.mark.parametrize("first", ["db1", "db2"])
def test_each_part_of_a_parted_attempt_hears_of_its_own_nodes(settings, first):
    world = parted_in_flight(*settings)
    for node in sorted(("db1", "db2"), key=lambda one: one != first):
        world.step(Returned("runbook-1.1", node, Outcome.DONE, ""))
    assert ("runbook-1.1", Outcome.DONE) in world.finished
    assert [looks.owed(late.attempt) for late in world.state.clusters["other"].late] == [()]


def test_the_looks_for_a_parted_attempt_have_names_of_their_own():
    world = parted_in_flight(policy(name="b", nodes=("db1",)), policy(name="c", nodes=("db2",)))
    world.break_("db1", cluster="b")
    world.break_("db2", cluster="c")
    world.pass_time(40)
    looks = [e.attempt for e in world.effects if isinstance(e, Fire)]
    assert {one.cluster for one in looks} == {"b", "c"}
    assert len({one.id for one in looks}) == len(looks)


def test_a_job_is_remembered_whichever_of_its_nodes_comes_first():
    world = parted_in_flight(ONE_AND_THREE, ONLY_TWO)
    both = policy(name="other", nodes=("db1", "db2"))
    later = after(world, policy(nodes=("db3",)), both, now=world.now + 5)
    assert unsafe(later.state.clusters["other"]) == {"db1", "db2"}


def test_a_job_is_remembered_for_a_node_that_is_named_a_start_later():
    world = parted_in_flight(policy(name="other", nodes=("db1",)))
    later = after(world, policy(name="other", nodes=("db1", "db2")), now=world.now + 5)
    assert unsafe(later.cluster) == {"db1", "db2"}


@pytest.mark.parametrize("meanwhile", [policy(nodes=("db3",)), policy(name="x", nodes=("db9",))])
def test_a_job_is_remembered_for_nodes_that_are_out_of_the_settings_for_a_while(meanwhile):
    world = parted_in_flight(meanwhile)
    back = after(world, policy(), now=world.now + 5)
    assert unsafe(back.cluster) == {"db1", "db2"}
    for node in ("db1", "db2"):
        assert back.cluster.nodes[node].cooldown_until > back.now


def test_a_job_is_not_remembered_for_ever():
    world = parted_in_flight(policy(nodes=("db3",)))
    back = after(world, policy(), now=world.now + 2 * 86400)
    assert unsafe(back.cluster) == set()


def unsafe(cluster):
    """Nodes on which a job may run that was given up."""
    return {n for one in cluster.late if one.running for n in one.attempt.nodes}


# ---------------------------------------------------------------- locks


def test_a_persons_lock_outlives_the_absence_of_its_node():
    world = site(policy()).warm()
    lock = world.order("lock", "runbook", nodes=("db1",), reason="disk is being replaced")
    back = after(after(world, policy(nodes=("db2", "db3"))), policy()).warm()
    back.break_("db1")
    back.pass_time(10)
    assert back.fired == []
    back.order("ack", incident=lock.incident)
    back.pass_time(5)
    assert back.fired == [("restart", ("db1",))]


# ---------------------------------------------------------------- pauses


def test_a_pause_that_was_lifted_everywhere_is_lifted_for_the_absent_too():
    world = site(ONE, TWO).warm()
    world.order("pause", for_s=86400.0, reason="nothing anywhere")
    alone = after(world, ONE)
    alone.order("resume")
    three = policy(name="three", nodes=("db3",))
    clusters = after(alone, ONE, TWO, three).state.clusters
    assert [cluster.pause for cluster in clusters.values()] == [None, None, None]


def test_a_pause_for_every_cluster_holds_for_one_that_comes_back():
    world = site(ONE, TWO).warm()
    alone = after(world, ONE).warm()
    alone.order("pause", for_s=86400.0, reason="nothing anywhere")
    both = after(alone, ONE, TWO)
    assert both.state.clusters["two"].pause.why == "nothing anywhere"
    both.warm()
    both.break_("db2", cluster="two")
    both.pass_time(10)
    assert both.fired == []


def test_a_cluster_that_was_resumed_is_not_paused_again_by_a_restart():
    world = site(ONE, TWO).warm()
    world.order("pause", for_s=86400.0, reason="nothing anywhere")
    world.order("resume", "two")
    assert after(world, ONE, TWO).state.clusters["two"].pause is None


def test_a_cluster_that_comes_back_is_there_again():
    world = site(ONE, TWO).warm()
    both = after(after(world, ONE), ONE, TWO)
    cluster = both.state.clusters["two"]
    assert cluster == ClusterState("two", nodes=cluster.nodes)
