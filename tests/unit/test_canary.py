"""What the core makes of canaries: one node that stalls, a cluster that does, questions that cannot be asked."""

from dataclasses import replace

import pytest

from saltext_selfheal.healing import explain, health
from saltext_selfheal.healing.events import (
    Canary,
    CanaryEnd,
    Observation,
    Observed,
    Started,
    ViewStatus,
)
from saltext_selfheal.healing.model import Announce, Dial, Fault, News, Tell
from saltext_selfheal.healing.start import begin
from saltext_selfheal.healing.step import step
from tests.unit.world import NODES, World, policy, table

READ = "the canary's read of a.b within 5 s"
THREE = {"db1": True, "db2": True, "db3": True}
SHUT = {n: n != "db2" for n in NODES}


class Site(World):
    """Each second, the nodes that answer tell what came of their canaries; those in ``silent`` answer none."""

    def __init__(self, *policies, **more):
        self.silent = set()
        self.asking = True  #: canaries are sent
        super().__init__(*policies, **more)

    def poll(self, cluster=None):
        super().poll(cluster)
        if self.asking:
            for (name, node), fault in self.faults.items():
                if fault is None:
                    self.sing(node, name)

    def sing(self, node, cluster="runbook", end=None, why=READ):
        end = end or (CanaryEnd.UNANSWERED if node in self.silent else CanaryEnd.ANSWERED)
        return self.step(Canary(cluster, node, end, "" if end is CanaryEnd.ANSWERED else why))

    def probe(self, node, dialled=False):
        """One look over the open connection."""
        seen = Observation(
            "runbook",
            node,
            None,
            "answers",
            server_id=f"id-{node}",
            server_name=node,
            dialled=dialled,
        )
        return self.step(Observed(seen))

    def explained(self, node="db2"):
        return explain.explain(self.state, "runbook", (node,), self.now)[-1].why

    @property
    def told(self):
        return [e.why for e in self.effects if isinstance(e, Tell) and e.what is News.CANARY]

    def faults_seen(self):
        return [node.fault for node in self.cluster.nodes.values()]


def site(**changes):
    return Site(policy(canary=True, settle_s=0.0, **changes)).warm()


def stalled(**changes):
    """A site in which db2 lets its canaries wait, and that is confirmed."""
    made = site(**changes)
    made.silent.add("db2")
    made.pass_time(6, tables=(table(ready=THREE),))
    return made


# ---------------------------------------------------------------- one node


def test_a_node_that_lets_its_canary_wait_is_stalled_and_restarted_once():
    world = stalled()
    assert world.cluster.nodes["db2"].fault is Fault.STALLED
    assert world.cluster.nodes["db2"].evidence == f"answers, but not {READ}"
    assert world.fired == [("restart", ("db2",))]
    world.silent.clear()
    world.heal("db2")
    world.pass_time(20)
    assert world.said[-1] == ("runbook-1", "resolved")
    assert world.fired == [("restart", ("db2",))]


def test_its_steps_are_a_restart_and_then_force_and_it_is_locked_after_that():
    world = stalled(verify_s=5.0)
    world.heal()
    world.pass_time(20, tables=(table(ready=THREE),))
    world.heal()
    world.pass_time(20, tables=(table(ready=THREE),))
    actions = [action for action, _ in world.fired if action != "look"]
    assert actions == ["restart", "force_restart"]
    assert world.said[-1] == ("runbook-1", "locked")
    assert "no step is left" in world.last_said().why


def test_an_ordinary_probe_between_two_canaries_does_not_end_it():
    world = stalled()
    world.asking = False
    for dialled in (False, True):
        world.now += 1.0
        world.probe("db2", dialled)
        assert world.cluster.nodes["db2"].fault is Fault.STALLED


def test_a_canary_that_is_answered_has_the_node_dialled_and_then_it_is_well():
    world = stalled()
    effects = world.sing("db2", end=CanaryEnd.ANSWERED)
    assert Dial("runbook", ("db2",)) in effects
    world.probe("db2")
    assert (
        world.cluster.nodes["db2"].fault is Fault.STALLED
    )  # an open connection proves only itself
    world.probe("db2", dialled=True)
    assert world.cluster.nodes["db2"].well


def test_it_is_not_believed_before_another_node_has_answered_its_own():
    world = site()
    world.asking = False
    world.sing("db2", end=CanaryEnd.UNANSWERED)
    world.probe("db2")
    assert world.cluster.nodes["db2"].well
    assert world.explained().endswith(
        f"db2 does not answer {READ}: whether another node answers it is not known yet"
    )
    world.now += 1.0
    world.sing("db1")
    world.probe("db2")
    assert world.cluster.nodes["db2"].fault is Fault.STALLED


def test_a_good_canary_from_before_does_not_speak_for_the_others():
    world = site()
    world.asking = False
    world.sing("db1")
    world.sing("db2", end=CanaryEnd.UNANSWERED)
    world.probe("db2")
    assert world.cluster.nodes["db2"].well


def test_after_a_start_of_its_server_the_tables_have_their_time_to_open():
    world = Site(policy(canary=True, settle_s=30.0)).warm()
    world.silent.add("db2")
    world.pass_time(5)
    assert world.cluster.nodes["db2"].stalled == ""
    world.pass_time(10)
    assert world.cluster.nodes["db2"].fault is Fault.STALLED


def test_a_stall_that_was_seen_before_is_not_forgotten_in_that_time():
    world = stalled()
    nodes = {"db2": replace(world.cluster.nodes["db2"], restarted_at=world.now)}
    world.state = world.state.with_cluster(world.cluster.with_nodes(nodes))
    world.policies["runbook"] = replace(world.policies["runbook"], settle_s=45.0)
    world.state = replace(world.state, policies=dict(world.policies))
    world.pass_time(3)
    assert world.cluster.nodes["db2"].fault is Fault.STALLED


def test_a_start_of_the_healer_ends_no_stall_that_has_an_incident():
    world = stalled()
    world.step(Started())
    world.asking = False
    world.probe("db2", dialled=True)
    assert world.cluster.nodes["db2"].fault is Fault.STALLED


def test_it_is_forgotten_where_the_canary_was_switched_off():
    world = stalled()
    off = replace(world.policies["runbook"], canary=False)
    world.state = replace(world.state, policies={"runbook": off})
    world.step(Started())
    world.asking = False
    world.probe("db2", dialled=True)
    assert world.cluster.nodes["db2"].well


def test_a_stalled_node_that_dies_is_dead():
    world = stalled()
    world.break_("db2", fault=Fault.DEAD)
    world.pass_time(1)
    assert world.cluster.nodes["db2"].fault is Fault.DEAD


def test_a_stall_that_was_proved_stays_so_if_the_others_die():
    world = stalled(confirm_s={Fault.STALLED: 60.0})
    world.break_("db1", "db3")
    world.pass_time(3)
    assert world.cluster.nodes["db2"].fault is Fault.STALLED


def test_a_stall_that_begins_anew_before_the_dial_has_to_last_anew():
    world = stalled(confirm_s=dict.fromkeys(Fault, 8.0))
    world.asking = False
    world.pass_time(1)
    world.sing("db2", end=CanaryEnd.ANSWERED)
    world.sing("db2", end=CanaryEnd.UNANSWERED)
    world.now += 1.0
    world.sing("db1")
    world.asking = True
    world.pass_time(5)
    node = world.cluster.nodes["db2"]
    assert (node.fault, node.confirmed) == (Fault.STALLED, False)
    world.pass_time(5)
    assert world.cluster.nodes["db2"].confirmed


# ---------------------------------------------------------------- whether it can be spared


def test_it_may_still_serve_so_it_is_not_taken_from_a_shard_that_needs_it():
    world = site()
    world.silent.add("db2")
    tables = (table(ready={"db1": False, "db2": True, "db3": True}),)
    world.pass_time(10, tables=tables)
    assert world.fired == []
    assert (
        "quorum: without db2 runbook.runbook keeps 1 of 3 voting replicas" in world.last_said().why
    )


def test_another_stalled_node_is_not_counted_on():
    world = site()
    world.silent |= {"db2", "db3"}
    world.pass_time(10, tables=(table(ready=THREE),))
    assert world.faults_seen() == [None, Fault.STALLED, Fault.STALLED]
    assert world.fired == []
    held = [e.why for e in world.effects if isinstance(e, Announce) and e.held]
    assert any("quorum: without db2 runbook.runbook keeps 1 of 3" in why for why in held)


def test_two_stalled_nodes_go_one_after_the_other():
    world = site()
    world.silent |= {"db2", "db3"}
    world.pass_time(10)  # no table map
    assert world.fired == [("restart", ("db2",))]
    assert world.cluster.attempt.nodes == ("db2",)


def test_it_speaks_and_lives():
    node = stalled().cluster.nodes["db2"]
    assert health.speaks(node)
    assert health.lives(node)


# ---------------------------------------------------------------- all of them


def test_if_no_node_answers_the_cluster_is_unavailable_and_no_node_is_stalled():
    world = site()
    world.silent |= set(NODES)
    world.pass_time(8, tables=(table(ready=THREE),))
    (incident,) = world.cluster.incidents
    assert incident.fault is Fault.UNAVAILABLE
    assert world.cluster.ailments[0].evidence == f"no node answers {READ}"
    assert world.faults_seen() == [None] * 3
    assert [e.incident.fault for e in world.effects if isinstance(e, Announce)].count(
        Fault.STALLED
    ) == 0


def test_nodes_that_were_stalled_before_all_of_them_are_not_stalled_any_more():
    world = stalled(confirm_s={})
    world.silent |= set(NODES)
    world.asking = False
    for node in NODES:
        effects = world.sing(node)
    assert Dial("runbook", ("db2",)) in effects
    world.probe("db2", dialled=True)
    assert world.cluster.nodes["db2"].well


def test_it_ends_when_one_node_answers_and_each_of_the_others_is_proved_anew():
    world = site()
    world.silent |= set(NODES)
    world.pass_time(8, tables=(table(ready=THREE),))
    world.asking = False
    world.sing("db1", end=CanaryEnd.ANSWERED)
    world.probe("db2")
    assert world.cluster.nodes["db2"].well  # db1's answer came at that moment, and not after it
    world.look(tables=(table(ready=THREE),))
    assert world.cluster.ailments == ()
    world.now += 1.0
    world.sing("db1", end=CanaryEnd.ANSWERED)
    world.probe("db2")
    assert world.cluster.nodes["db2"].fault is Fault.STALLED


@pytest.mark.parametrize("alone", ["db1", "db2"])
def test_a_node_that_is_dead_explains_why_the_others_do_not_answer(alone):
    world = site()
    world.silent |= set(NODES)
    world.break_(*[n for n in NODES if n != alone])
    world.pass_time(8, tables=(table(ready=THREE),))
    assert Fault.UNAVAILABLE not in {i.fault for i in world.cluster.incidents}
    assert world.cluster.nodes[alone].fault is None
    assert world.explained(alone).endswith(f"no node answers {READ}")


def test_where_there_is_but_one_node_it_is_all_of_them():
    world = stalled()
    alone = replace(world.policies["runbook"], nodes=("db2",))
    state, _ = begin({"runbook": alone}, world.state.limits, world.state.clusters, world.now)
    world.state, world.policies = state, {"runbook": alone}
    world.faults = {("runbook", "db2"): None}
    world.pass_time(3, tables=(table(),))
    assert world.cluster.nodes["db2"].fault is None
    assert world.cluster.ailments[0].evidence == f"no node answers {READ}"


def test_a_partition_explains_it_too():
    world = site()
    world.silent |= set(NODES)
    apart = {n: frozenset({f"id-{n}"}) for n in NODES}
    world.pass_time(8, connected=apart)
    assert [i.fault for i in world.cluster.incidents] == [Fault.PARTITIONED]


def test_it_is_told_where_the_system_tables_cannot_be_read():
    world = site()
    world.look(status=ViewStatus.FORBIDDEN, why="no right")
    world.silent |= set(NODES)
    world.pass_time(3)
    assert world.told == [
        f"no node answers {READ}; nothing is done: the system tables cannot be read"
    ]


# ---------------------------------------------------------------- what cannot be asked

MISSING = "Table `a.b` does not exist. Make that table"


def test_a_question_that_cannot_be_asked_is_no_fault_and_told_once():
    world = site()
    world.asking = False
    for _ in range(3):
        for node in NODES:
            world.sing(node, end=CanaryEnd.UNASKED, why=MISSING)
        world.pass_time(1)
    assert world.told == [f"the canary cannot be asked: {MISSING}"]
    assert world.faults_seen() == [None] * 3
    assert world.explained().endswith(f"the canary cannot be asked: {MISSING}")
    for node in NODES:
        world.sing(node, end=CanaryEnd.UNASKED, why="a right is missing")
    assert world.told[1:] == ["the canary cannot be asked: a right is missing"]
    for node in NODES:
        world.sing(node)
    assert world.told[2:] == ["the canary can be asked again"]


def test_a_table_that_is_dropped_meanwhile_ends_a_stall():
    world = stalled()
    world.asking = False
    world.sing("db2", end=CanaryEnd.UNASKED, why=MISSING)
    world.probe("db2", dialled=True)
    assert world.cluster.nodes["db2"].well


def test_what_fits_no_node_changes_nothing():
    world = site()
    for event in (
        Canary("other", "db1", CanaryEnd.UNANSWERED),
        Canary("runbook", "x", CanaryEnd.UNASKED),
    ):
        state, effects = step(world.state, event, world.now)
        assert (state, effects) == (world.state, ())
