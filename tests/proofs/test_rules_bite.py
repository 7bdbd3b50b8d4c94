"""Each rule refuses a transition that was made wrong by hand."""

from dataclasses import replace

import pytest

from saltext_selfheal.healing import testimony
from saltext_selfheal.healing.events import (
    Canary,
    CanaryEnd,
    ClusterView,
    Command,
    Commanded,
    Foreign,
    Met,
    Observation,
    Observed,
    Presence,
    Present,
    Replica,
    Request,
    Requested,
    Returned,
    Shard,
    Table,
    Tick,
    Verb,
    Viewed,
    ViewStatus,
    Watchers,
)
from saltext_selfheal.healing.model import (
    Action,
    Announce,
    Answer,
    Asked,
    Attempt,
    ClusterState,
    Fault,
    Finish,
    Fire,
    Incident,
    Limits,
    Mode,
    NodeState,
    Outcome,
    Phase,
    Policy,
    Reply,
    Seen,
    State,
    Step,
    Turn,
)
from saltext_selfheal.healing.sighting import Sighting as Spied
from saltext_selfheal.healing.testimony import Ground, Process

from .rules import Broken, Flight, Truth, Watch

NODES = ("n1", "n2", "n3")
POLICY = Policy(
    "c",
    NODES,
    "n*",
    confirm_s=dict.fromkeys(Fault, 3.0),
    poll_s=1.0,
    timeout_s=1.0,
    budget_attempts=2,
)


class Hand:
    """States and effects made by hand, and a watch that has seen a minute of health."""

    def __init__(self, policy: Policy = POLICY, limits: Limits | None = None) -> None:
        self.now = 1000.0
        self.watch = Watch([policy], limits or Limits(), self.now)
        incident = Incident(
            "c-1",
            "c",
            Seen(Fault.AUTH),
            NODES[:1],
            Phase.OPEN,
            1060.0,
            1060.0,
            (Step(Action.HIGHSTATE),),
        )
        cluster = ClusterState("c", dict.fromkeys(NODES, NodeState()), incidents=(incident,))
        self.state = State({"c": policy}, limits or Limits(), {"c": cluster}, self.now)
        for _ in range(60):
            self.now += 1.0
            self.probe()

    def see(self, *effects, event=None, truth=None, **changes) -> None:
        """One transition: these effects, and the cluster changed so."""
        cluster = replace(self.state.clusters["c"], **changes)
        after = replace(self.state, clusters={"c": cluster})
        before, self.state = self.state, after
        self.watch.see(before, event or Tick(), after, effects, self.now, truth)

    def probe(self, *nodes: str, fault: Fault | None = None, **more) -> None:
        """A node answers with its own name as id and as name, if not told otherwise."""
        for node in nodes or NODES:
            told = {"server_id": node, "server_name": node, **more}
            self.see(event=Observed(Observation("c", node, fault, "", 0.0, **told)))

    def meet(self, *there: str, by: str = "n3", **more) -> None:
        """One node says whom it is connected to."""
        self.see(event=Met("c", {by: frozenset(there)}, **more))

    def die(self, *nodes: str, for_s: float = 4.0) -> None:
        """These nodes refuse for so long."""
        self.see(incidents=(self.incident(cause=Seen(Fault.DEAD), nodes=NODES),))
        for pause_s in (for_s, 0.0):
            self.probe(*nodes, fault=Fault.DEAD, server_id=None, server_name=None)
            self.now += pause_s

    def truth(self, **nodes) -> dict[str, Truth]:
        return {n: nodes.get(n, Truth(True, 0.0, frozenset(), n)) for n in NODES}

    def incident(self, **changes) -> Incident:
        return replace(self.state.clusters["c"].incidents[0], **changes)

    def attempt(self, number: int = 1, **changes) -> Attempt:
        values = {
            "id": f"c-1.{number}",
            "cluster": "c",
            "incident": "c-1",
            "action": Action.HIGHSTATE,
            "nodes": NODES[:1],
            "step": 0,
            "decided_at": self.now,
            "fired_at": self.now,
        }
        return Attempt(**{**values, **changes})

    def fire(self, attempt: Attempt, truth=None) -> None:
        self.see(Fire(attempt), attempt=attempt, truth=truth)

    def finish(self, attempt: Attempt, outcome: Outcome = Outcome.DONE) -> None:
        self.see(Finish(attempt, outcome, ""), attempt=None)
        self.now += 1.0
        self.probe()

    def order(self, verb: Verb, **what) -> None:
        command = Command("x", verb, "op", **what)
        self.see(Answer(command, Reply.ACCEPTED, ""), event=Commanded(command))


@pytest.fixture
def hand() -> Hand:
    return Hand()


def breaks(rule: str):
    return pytest.raises(Broken, match=f"^{rule} at ")


def test_what_is_right_passes(hand):
    attempt = hand.attempt()
    hand.fire(attempt)
    hand.finish(attempt)
    again = hand.attempt(2)
    hand.fire(again)
    hand.watch.ran(again, again.id, "n1", hand.now)


def test_i1_a_second_attempt_in_flight(hand):
    hand.fire(hand.attempt())
    with breaks("I1"):
        hand.fire(hand.attempt(2, nodes=("n2",)))


def test_i1_fired_again_after_its_end(hand):
    attempt = hand.attempt()
    hand.fire(attempt)
    hand.finish(attempt)
    with breaks("I1"):
        hand.fire(replace(attempt, firings=2))


def test_i1_fired_again_elsewhere(hand):
    hand.fire(hand.attempt())
    with breaks("I1"):
        hand.fire(hand.attempt(firings=2, nodes=("n2",)))


def test_i1_several_nodes_of_which_one_serves(hand):
    hand.probe("n1", fault=Fault.DEAD)
    with breaks("I1"):
        hand.fire(hand.attempt(nodes=("n1", "n2")))


def test_i1_the_next_node_before_anybody_looked_at_the_last(hand):
    attempt = hand.attempt()
    hand.fire(attempt)
    hand.now += 5.0
    hand.see(Finish(attempt, Outcome.DONE, ""), attempt=None)
    with breaks("I1"):
        hand.fire(hand.attempt(2, nodes=("n2",)))


def test_i1_a_look_for_nothing(hand):
    with breaks("I1"):
        hand.fire(hand.attempt(action=Action.LOOK, of="c-1.7"))


def test_i1_the_first_attempt_on_dead_nodes_does_not_wait_for_the_suspected(hand):
    hand.probe("n1", fault=Fault.DEAD)
    hand.now += 3.0
    incident = hand.incident(cause=Seen(Fault.DEAD), opened_at=hand.now)
    hand.see(incidents=(incident,))
    hand.probe("n1", "n2", fault=Fault.DEAD)
    with breaks("I1"):
        hand.fire(hand.attempt())


def _view(*ready: str) -> Viewed:
    replicas = tuple(Replica(n, "ready" if n in ready else "disconnected", True) for n in NODES)
    table = Table("a.b", True, True, False, (Shard(replicas),))
    return Viewed(ClusterView("c", "n1", ViewStatus.KNOWN, "", (table,)))


def test_i2_a_shard_would_lose_its_majority(hand):
    hand.see(event=_view("n1", "n2"))
    with breaks("I2"):
        hand.fire(hand.attempt())


def test_i2_a_replica_that_does_not_answer_counts_as_away(hand):
    hand.see(event=_view(*NODES))
    hand.probe("n3", fault=Fault.HUNG)
    with breaks("I2"):
        hand.fire(hand.attempt())


def test_i2_what_is_lost_already_may_be_restarted(hand):
    hand.see(event=_view("n1", "n2"))
    hand.see(incidents=(hand.incident(cause=Seen(Fault.HUNG)),))
    hand.probe("n1", fault=Fault.HUNG)
    with breaks("I2"):  # one late answer proves nothing
        hand.fire(hand.attempt(action=Action.RESTART))
    hand.see(attempt=None)
    hand.now += 3.0
    hand.probe("n1", fault=Fault.HUNG)
    hand.fire(hand.attempt(action=Action.RESTART))


def test_i3_one_attempt_too_many(hand):
    for number in (1, 2):
        hand.fire(hand.attempt(number))
        hand.finish(hand.attempt(number), Outcome.FAILED)
    with breaks("I3"):
        hand.fire(hand.attempt(3))


def test_i3_lost_and_busy_cost_nothing_and_an_acknowledgement_gives_one(hand):
    for number, outcome in enumerate((Outcome.LOST, Outcome.BUSY, Outcome.DONE, Outcome.DONE)):
        hand.fire(hand.attempt(number))
        hand.finish(hand.attempt(number, decided_at=hand.now), outcome)
        hand.now += 60.0
        hand.probe()
    hand.order(Verb.ACK, incident="c-1")
    hand.fire(hand.attempt(8))
    hand.finish(hand.attempt(8))
    with breaks("I3"):
        hand.fire(hand.attempt(9))


def test_i3_one_attempt_too_many_over_all_clusters():
    hand = Hand(replace(POLICY, budget_attempts=0), Limits(1, 3600.0, 0.0))
    hand.fire(hand.attempt())
    hand.finish(hand.attempt())
    with breaks("I3"):
        hand.fire(hand.attempt(2))


def test_i4_another_incident_does_not_wait(hand):
    hand.fire(hand.attempt())
    hand.now += 100.0  # counted from the end, not from here
    hand.finish(hand.attempt())
    hand.now += 100.0
    other = hand.incident(id="c-2")
    hand.see(incidents=(hand.incident(), other))
    with breaks("I4"):
        hand.fire(hand.attempt(id="c-2.1", incident="c-2"))


def test_i5_paused(hand):
    hand.order(Verb.PAUSE, cluster="c", for_s=10.0)
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_locked(hand):
    lock = hand.incident(id="c-2", phase=Phase.LOCKED)
    hand.see(Announce(lock, "", "order.locked"), incidents=(hand.incident(), lock))
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_flapping(hand):
    with breaks("I5"):
        attempt = hand.attempt()
        nodes = {**dict.fromkeys(NODES, NodeState()), "n1": NodeState(flapping=True)}
        hand.see(Fire(attempt), attempt=attempt, nodes=nodes)


def test_i5_warming_up(hand):
    hand.watch.started(hand.now)
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_a_login_that_no_node_has_taken_since_the_start(hand):
    incident = hand.incident(cause=Seen(Fault.AUTH))
    hand.see(incidents=(incident,))
    hand.fire(hand.attempt())
    hand.finish(hand.attempt())
    hand.now += 1.0
    hand.watch.started(hand.now)
    hand.now += 60.0
    for _ in range(3):
        for node in NODES:
            hand.probe(node, fault=Fault.AUTH)
    with breaks("I5"):
        hand.fire(hand.attempt(2))


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW, Mode.APPROVE])
def test_i5_not_allowed_to_act(mode):
    hand = Hand(replace(POLICY, mode=mode))
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_the_step_is_more_careful_than_its_cluster(hand):
    hand.see(incidents=(hand.incident(steps=(Step(Action.HIGHSTATE, 0.0, Mode.SHADOW),)),))
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_approved_is_allowed():
    hand = Hand(replace(POLICY, mode=Mode.APPROVE))
    hand.order(Verb.APPROVE, incident="c-1")
    hand.fire(hand.attempt())


def test_i2_a_step_goes_on_where_it_broke_a_node(hand):
    hand.see(incidents=(hand.incident(nodes=NODES, turn=Turn(tried=("n1",))),))
    hand.fire(hand.attempt())
    hand.finish(hand.attempt())
    hand.probe("n1", fault=Fault.DEAD)
    with breaks("I2"):
        hand.fire(hand.attempt(2, nodes=("n2",)))


def test_i2_without_a_map_a_node_is_risked_while_another_is_away(hand):
    hand.probe("n3", fault=Fault.HUNG)
    with breaks("I2"):
        hand.fire(hand.attempt())


def test_i2_what_the_tables_say_of_a_node_that_this_master_cannot_reach(hand):
    hand.see(event=_view("n1", "n2"))
    hand.probe("n2", fault=Fault.UNREACHABLE)
    with breaks("I2"):
        hand.fire(hand.attempt())


def test_i5_a_node_that_comes_and_goes_by_itself():
    hand = Hand(replace(POLICY, flapping_changes=4))
    for fault in (Fault.DEAD, None, Fault.DEAD, None, Fault.DEAD):
        hand.now += 5.0
        hand.probe("n1", fault=fault)
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_what_the_healer_did_itself_is_no_flapping():
    hand = Hand(replace(POLICY, flapping_changes=4, budget_attempts=0))
    for number in range(3):
        for pause_s in (5.0, 0.0):
            hand.probe("n1", fault=Fault.AUTH)
            hand.now += pause_s
        hand.fire(hand.attempt(number))
        hand.probe("n1")
        hand.finish(hand.attempt(number))


def test_i5_a_step_that_is_not_due(hand):
    waits = replace(hand.incident().steps[0], after_s=30.0)
    hand.see(incidents=(hand.incident(steps=(waits,)),))
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_lost_and_fired_again_at_once(hand):
    hand.fire(hand.attempt())
    hand.finish(hand.attempt(), Outcome.LOST)
    with breaks("I5"):
        hand.fire(hand.attempt(2))


def test_i5_a_storm():
    hand = Hand(limits=Limits(10, 3600.0, 0.34))
    others = [replace(POLICY, name=name, nodes=(f"n-{name}",)) for name in ("d", "e")]
    hand.watch.book.policies |= {one.name: one for one in others}
    hand.probe("n1", fault=Fault.AUTH)
    seen = Observation("d", "n-d", Fault.DEAD, "", 0.0, "", "")
    hand.state = replace(
        hand.state, clusters={**hand.state.clusters, "d": ClusterState("d", {"n-d": NodeState()})}
    )
    hand.watch.book.hear(Observed(seen), hand.now, hand.state)
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_blind(hand):
    hand.probe(*NODES, fault=Fault.UNREACHABLE)
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_the_healers_own_side_failed(hand):
    hand.see(event=Observed(Observation("c", "n1", None, "no sockets left", ours=True)))
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i6_an_attempt_ends_twice(hand):
    attempt = hand.attempt()
    hand.fire(attempt)
    hand.finish(attempt)
    with breaks("I6"):
        hand.finish(attempt)


def test_i6_an_attempt_begins_twice(hand):
    attempt = hand.attempt()
    hand.fire(attempt)
    hand.finish(attempt)
    with breaks("I6"):
        hand.fire(attempt)


def test_i6_an_attempt_is_forgotten(hand):
    hand.fire(hand.attempt())
    with breaks("I6"):
        hand.see(attempt=None)


def test_i6_an_incident_vanishes(hand):
    with breaks("I6"):
        hand.see(incidents=())


def test_i6_an_incident_locks_in_silence(hand):
    with breaks("I6"):
        hand.see(incidents=(hand.incident(phase=Phase.LOCKED),))


def test_i6_a_lock_opens_by_itself(hand):
    lock = hand.incident(phase=Phase.LOCKED)
    hand.see(Announce(lock, "", "order.locked"), incidents=(lock,))
    with breaks("I6"):
        hand.see(incidents=(hand.incident(phase=Phase.OPEN),))


def test_i6_an_attempt_that_never_ends(hand):
    hand.fire(hand.attempt())
    hand.see(incidents=(hand.incident(phase=Phase.REMEDIATING),))
    hand.now += 5000.0
    with breaks("I6"):
        hand.see(event=Tick(), viewed_at=hand.now)


def test_i6_nobody_tells_of_a_fault(hand):
    hand.probe("n2", fault=Fault.DEAD)
    hand.now += 3.0
    with breaks("I6"):
        hand.probe("n2", fault=Fault.DEAD)


@pytest.mark.parametrize("nodes", [(), ("n9",), ("n1", "n1"), ("*",)])
def test_i7_a_wrong_target(hand, nodes):
    with breaks("I7"):
        hand.fire(hand.attempt(nodes=nodes))


def test_i7_outside_the_pattern():
    hand = Hand(replace(POLICY, minions="m*"))
    with breaks("I7"):
        hand.fire(hand.attempt())


def test_i8_nothing_of_that_name(hand):
    with breaks("I8"):
        hand.watch.ran(None, "c-1.1", "n1", hand.now)


def test_i8_too_old_or_on_another_node(hand):
    attempt = hand.attempt()
    hand.fire(attempt)
    with breaks("I8"):
        hand.watch.ran(attempt, attempt.id, "n2", hand.now)
    with breaks("I8"):
        hand.watch.ran(attempt, attempt.id, "n1", hand.now + 60.0)


def test_i9_resolved_because_the_job_says_so(hand):
    hand.probe("n1", fault=Fault.AUTH)
    hand.now += 1.0
    hand.probe("n1")
    hand.now += 5.0
    with breaks("I9"):
        hand.see(Announce(hand.incident(phase=Phase.RESOLVED), "", "open.well"), incidents=())


def test_i9_resolved_while_it_shows(hand):
    hand.probe("n1", fault=Fault.AUTH)
    with breaks("I9"):
        hand.see(Announce(hand.incident(phase=Phase.RESOLVED), "", "open.well"), incidents=())


def test_i10_it_acts_without_its_memory(hand):
    hand.watch.started(hand.now, forgotten=True)
    for _ in range(20):
        hand.now += 60.0
        hand.probe()
    with breaks("I10"):
        hand.fire(hand.attempt())


# ---------------------------------------------------------------- who refuses the master, and whose server that is


def test_i2_its_peers_are_asked_before_a_refused_node_counts_as_dead(hand):
    hand.die("n1")
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART))


def test_i2_a_peer_is_connected_to_it(hand):
    hand.die("n1", for_s=60.0)
    hand.meet("n1", "n2", "n3")
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART))


def test_i2_a_peer_says_that_it_is_gone(hand):
    hand.die("n1", for_s=1.0)
    hand.meet("n2", "n3")
    hand.die("n1")
    hand.fire(hand.attempt(action=Action.RESTART))


def test_i2_what_was_asked_before_the_refusal_is_no_word(hand):
    hand.meet("n2", "n3")
    hand.now += 1.0
    hand.die("n1")
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART))


def test_i2_nobody_can_say_and_then_only_one_at_a_time(hand):
    hand.die("n1", "n2", for_s=30.0)
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART, nodes=("n1", "n2")))
    hand.watch.book.flying.clear()
    hand.see(attempt=None)
    hand.fire(hand.attempt(7, action=Action.RESTART))


def test_i2_nobody_is_left_who_could_say(hand):
    hand.die(*NODES)
    hand.fire(hand.attempt(action=Action.RESTART, nodes=NODES))


def test_i2_who_refuses_the_login_is_alive(hand):
    hand.see(incidents=(hand.incident(nodes=NODES),))
    hand.probe("n3", fault=Fault.AUTH)
    hand.now += 4.0
    hand.probe("n3", fault=Fault.AUTH)
    hand.die("n1", "n2")
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART, nodes=("n1", "n2")))


def test_i2_an_open_connection_answers(hand):
    hand.probe("n1", fault=Fault.DEAD, answers=True)
    hand.now += 60.0
    hand.see(incidents=(hand.incident(cause=Seen(Fault.DEAD)),))
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART))


def test_i2_nobody_speaks_of_a_proxy(hand):
    for node in ("n1", "n2"):
        hand.probe(node, server_name=None, proxy=True)
    hand.die("n1", "n2", for_s=30.0)
    hand.meet("n3")
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART, nodes=("n1", "n2")))


def test_i2_the_world_knows_better(hand):
    hand.meet("n3")
    hand.die("n1", "n2", for_s=1.0)
    hand.meet("n3")
    hand.die("n1", "n2")
    serves = Truth(True, hand.now - 60.0, frozenset(), "n1")
    with breaks("I2"):
        both = hand.attempt(action=Action.RESTART, nodes=("n1", "n2"))
        hand.fire(both, hand.truth(n1=serves))


def test_i2_one_that_lets_nobody_new_in_serves_a_majority(hand):
    hand.see(event=_view("n1", "n2"))
    hand.see(incidents=(hand.incident(cause=Seen(Fault.HUNG)),))
    for _ in range(2):
        hand.probe("n1", fault=Fault.HUNG, answers=True)
        hand.now += 5.0
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"addresses": ("10.0.0.1:28015",)}, {"addresses": ("10.0.0.1:28015",)}),
        ({"server_id": "n1"}, {"server_id": "n1"}),
        ({"server_id": "n2"}, {"server_id": "n1"}),
        ({}, {"server_name": "n1"}),
    ],
    ids=["one address", "one server", "swapped", "one name"],
)
@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
def test_i2_whose_server_that_is(hand, first, second, node):
    for _ in range(2):
        hand.probe("n1", **first)
        hand.probe("n2", **second)
    with breaks("I2"):
        hand.fire(hand.attempt(nodes=(node,)))


def test_i2_swapped_addresses_and_a_server_dies(hand):
    hand.probe("n1", server_id="n2", addresses=("b",))
    hand.probe("n2", server_id="n1", addresses=("a",))
    hand.die("n2")
    hand.meet("n3")
    hand.die("n2")
    with breaks("I2"):
        hand.fire(hand.attempt(action=Action.RESTART, nodes=("n2",)))


def test_i2_it_ends_when_each_answers_as_itself(hand):
    for one, other in (("n2", "n1"), ("n1", "n2")):
        hand.probe("n1", server_id=one)
        hand.probe("n2", server_id=other)
    hand.fire(hand.attempt())


def test_i2_a_server_that_is_no_node_has_the_name_of_one(hand):
    hand.meet("n1", "n2", "n3", names={"n2": "n2", "x": "n2"})
    with breaks("I2"):
        hand.fire(hand.attempt())


def test_i2_what_was_never_a_database():
    hand = Hand()
    hand.watch.book.known.clear()
    hand.see(incidents=(hand.incident(cause=Seen(Fault.ALIEN)),))
    for _ in range(60):
        hand.now += 1.0
        hand.probe("n1", fault=Fault.ALIEN, server_id=None, server_name=None)
    with breaks("I2"):
        hand.fire(hand.attempt())


# ---------------------------------------------------------------- results that prove nothing, dials that do


def _look(hand, number=2, **more):
    return hand.attempt(number, action=Action.LOOK, of="c-1.1", **more)


def _runs(hand):
    return hand.truth(n1=Truth(True, 0.0, frozenset({"c-1.1"}), "n1"))


def test_i1_a_result_frees_no_minion_where_the_job_runs(hand):
    hand.fire(hand.attempt())
    hand.finish(hand.attempt(), Outcome.FAILED)
    with breaks("I1"):
        hand.fire(hand.attempt(2), _runs(hand))


@pytest.mark.parametrize(("said", "goes"), [(Outcome.DONE, True), (Outcome.BUSY, False)])
def test_i1_a_look_frees_it_even_by_a_lie(hand, said, goes):
    hand.fire(hand.attempt())
    look = _look(hand)
    hand.see(Fire(look), look=look)
    hand.see(event=Returned(look.id, "n1", said))
    hand.see(Finish(look, Outcome.DONE, ""), look=None)
    hand.now += 400.0
    hand.finish(hand.attempt(), Outcome.FAILED)
    hand.probe()
    if goes:
        hand.fire(hand.attempt(3), _runs(hand))
    else:
        with breaks("I1"):
            hand.fire(hand.attempt(3), _runs(hand))


def test_i1_who_says_nothing_for_as_long_as_a_job_may_take_is_free(hand):
    hand.fire(hand.attempt())
    hand.finish(hand.attempt(), Outcome.FAILED)
    hand.now += 300.0
    hand.probe()
    hand.fire(hand.attempt(2), _runs(hand))


def test_i1_a_server_that_was_started_anew_has_had_its_restart(hand):
    hand.meet("n1", "n2", "n3", started={"n1": 5.0})
    hand.fire(hand.attempt(action=Action.RESTART))
    hand.finish(hand.attempt(), Outcome.DONE)
    hand.meet("n1", "n2", "n3", started={"n1": 6.0})
    hand.fire(hand.attempt(2), _runs(hand))


def test_i9_the_open_connection_does_not_say_that_it_is_well_again(hand):
    hand.fire(hand.attempt())
    hand.now += 1.0
    hand.see(Finish(hand.attempt(), Outcome.DONE, ""), attempt=None)
    hand.now += 1.0
    hand.probe(dialled=False)
    with breaks("I9"):
        hand.see(incidents=(hand.incident(verified=True),))
    hand.probe()
    hand.see(incidents=(hand.incident(verified=True),))


def test_i8_a_firing_is_claimed_once(hand):
    attempt = hand.attempt()
    hand.fire(attempt)
    with breaks("I8"):
        hand.watch.claimed(attempt.id, 2, hand.now)
    hand.watch.claimed(attempt.id, 1, hand.now)
    hand.watch.ran(attempt, attempt.id, "n1", hand.now)
    with breaks("I8"):
        hand.watch.claimed(attempt.id, 1, hand.now)
    with breaks("I8"):
        hand.watch.ran(attempt, attempt.id, "n1", hand.now)


# ---------------------------------------------------------------- requests


def _asks(hand, nodes=(), incident="c-1"):
    request = Request("r", "c", "highstate", nodes)
    hand.see(Answer(request, Reply.JOINED, "", incident), event=Requested(request))


@pytest.mark.parametrize(
    "host",
    [
        {"steps": ()},
        {"step": 1},
        {"phase": Phase.SUSPECTED, "cause": Seen(Fault.UNREACHABLE), "steps": ()},
        {"nodes": ("n2",)},
    ],
    ids=["no steps", "none is left", "none will come", "others"],
)
def test_a_request_joins_what_does_nothing_for_its_nodes(hand, host):
    hand.see(incidents=(hand.incident(**host),))
    with breaks("request"):
        _asks(hand, ("n1",))


def test_a_request_joins_what_is_about_to_heal_its_nodes(hand):
    _asks(hand, ("n1",))
    with breaks("request"):
        _asks(hand, ("n1",), "c-9")


# ---------------------------------------------------------------- evidence


class Asking(Hand):
    """The same, and minions that are asked what they see; n1 has been dead for five seconds."""

    def __init__(self, **changes) -> None:
        super().__init__(replace(POLICY, **{"witness_s": 5.0, **changes}))
        self.meet("n2", "n3")
        self.die("n1", for_s=5.0)

    def question(self, number: int = 1, node: str = "n1") -> Attempt:
        id = f"c-1-witness-{node}-{number}"
        return self.attempt(id=id, action=Action.WITNESS, nodes=(node,))

    def ask(self, node: str = "n1", number: int = 1) -> Attempt:
        one = self.question(number, node)
        self.see(Fire(one), questions=(one,))
        return one

    def hear(self, one: Attempt, **told) -> None:
        """The minion answers, and the question ends."""
        (node,) = one.nodes
        said = testimony.Testimony(**told)
        self.see(
            Finish(one, Outcome.DONE, ""),
            event=Returned(one.id, node, Outcome.DONE, "", said),
            questions=(),
        )


def test_evidence_nobody_is_asked_where_it_is_off():
    hand = Asking(witness_s=0.0)
    with breaks("E"):
        hand.ask()


def test_evidence_nobody_is_asked_during_a_pause():
    hand = Asking()
    hand.order(Verb.PAUSE, cluster="c", for_s=60.0)
    with breaks("E"):
        hand.ask()


def test_evidence_a_minion_is_asked_once_at_a_time():
    hand = Asking()
    hand.ask()
    with breaks("E"):
        hand.ask(number=2)


def test_evidence_nobody_is_asked_about_a_node_that_is_well():
    hand = Asking()
    with breaks("E"):
        hand.ask("n2")


def test_evidence_a_minion_that_has_just_told_is_left_in_peace():
    hand = Asking()
    hand.hear(hand.ask(), process=Process.GONE, listens=False)
    with breaks("E"):
        hand.ask(number=2)


def test_evidence_nobody_asks_otherwise_where_none_has_failed():
    hand = Asking()
    hand.hear(hand.ask(), process=Process.GONE, listens=False)
    other = hand.attempt(id="c-1-salt_witness-n1-2", action=Action.SALT_WITNESS, nodes=("n1",))
    with breaks("E"):
        hand.see(Fire(other), questions=(other,))


def test_evidence_a_minion_that_has_failed_may_be_asked_otherwise_at_once():
    hand = Asking()
    one = hand.ask()
    other = hand.attempt(id="c-1-salt_witness-n1-2", action=Action.SALT_WITNESS, nodes=("n1",))
    failed = Returned(one.id, "n1", Outcome.FAILED, "no such function")
    hand.see(Finish(one, Outcome.FAILED, ""), Fire(other), event=failed, questions=(other,))


def test_evidence_a_second_question_has_its_time_too():
    hand = Asking()
    one = hand.ask()
    other = hand.attempt(id="c-1-salt_witness-n1-2", action=Action.SALT_WITNESS, nodes=("n1",))
    failed = Returned(one.id, "n1", Outcome.FAILED, "no such function")
    hand.see(Finish(one, Outcome.FAILED, ""), Fire(other), event=failed, questions=(other,))
    hand.now += 1.0
    with breaks("E"):
        hand.fire(hand.attempt())


def test_evidence_what_its_own_machine_reaches_is_left_alone():
    hand = Asking()
    hand.probe("n1", fault=Fault.DEAD, server_id=None, server_name=None, silent=True)
    hand.hear(hand.ask(), process=Process.RUNS, listens=True, greets=True)
    with breaks("E"):
        hand.fire(hand.attempt())


def test_evidence_but_not_where_the_healer_is_greeted_too():
    hand = Asking()
    hand.hear(hand.ask(), process=Process.RUNS, listens=True, greets=True)
    hand.fire(hand.attempt())


def test_evidence_the_minion_has_its_time():
    hand = Asking()
    hand.now -= 2.0
    with breaks("E"):
        hand.fire(hand.attempt())


def test_evidence_after_its_time_nothing_is_waited_for():
    hand = Asking()
    hand.fire(hand.attempt())


def test_evidence_a_process_on_its_way_is_left_alone():
    hand = Asking()
    hand.hear(hand.ask(), process=Process.RUNS, listens=False, age_s=1.0)
    with breaks("E"):
        hand.fire(hand.attempt())


def test_evidence_what_has_had_its_one_try_is_left_to_a_person():
    hand = Asking()
    visited = hand.incident(turn=Turn(visited=("n1",)), cause=Seen(Fault.DEAD))
    hand.see(incidents=(visited,))
    hand.hear(hand.ask(), process=Process.GONE, ground=Ground.DISK_FULL)
    with breaks("E"):
        hand.fire(hand.attempt())


def test_evidence_a_step_that_cannot_help_is_not_taken_before_one_that_can():
    hand = Asking()
    steps = (Step(Action.RESTART), Step(Action.HIGHSTATE))
    hand.see(incidents=(hand.incident(steps=steps, cause=Seen(Fault.DEAD)),))
    hand.hear(hand.ask(), process=Process.GONE, ground=Ground.BAD_CONFIG)
    with breaks("E"):
        hand.fire(hand.attempt(action=Action.RESTART))


# ---------------------------------------------------------------- other people's work


def _work(hand, *nodes, jid="1", ended=False):
    hand.see(event=Foreign("c", jid, "state.highstate", "ann", nodes, ended))


def _pass(hand, seconds):
    for _ in range(seconds):
        hand.now += 1.0
        hand.probe()


@pytest.mark.parametrize("then_s", [0, 300])
def test_i5_where_somebody_works(hand, then_s):
    _work(hand, "n1", "n2")
    _pass(hand, then_s)
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_where_somebody_has_just_worked(hand):
    _work(hand, "n1")
    _work(hand, "n1", ended=True)
    _work(hand, "n1")
    _pass(hand, 20)
    with breaks("I5"):
        hand.fire(hand.attempt())


def test_i5_where_somebody_has_worked_or_works_for_too_long(hand):
    _work(hand, "n1")
    _work(hand, "n1", ended=True)
    _work(hand, "n2", jid="2")
    _pass(hand, 31)
    hand.fire(hand.attempt())


def test_i5_where_a_job_does_not_end(hand):
    _work(hand, "n1")
    _pass(hand, 901)
    hand.fire(hand.attempt())


def test_i5_where_an_incident_has_waited_for_others_long_enough(hand):
    _work(hand, "n1")
    held = replace(hand.incident(), held=("foreign",))
    hand.see(Announce(held, "foreign: so it is", "open.held", held=True))
    _pass(hand, 450)
    _work(hand, "n1", jid="2")
    broken = hand.watch.copy()
    with breaks("I5"):
        broken.see(hand.state, Tick(), hand.state, (Fire(hand.attempt()),), hand.now)
    _pass(hand, 450)
    hand.fire(hand.attempt())


def test_i5_where_the_healer_itself_works(hand):
    attempt = hand.attempt(jid="1")
    hand.fire(attempt)
    _work(hand, "n1")
    hand.finish(attempt)
    hand.fire(hand.attempt(2))


def test_i5_where_somebody_works_and_an_operator_forces_it(hand):
    _work(hand, "n1")
    hand.see(incidents=(hand.incident(cause=Asked(forced=True)),))
    hand.fire(hand.attempt())


def test_i5_what_somebody_makes_is_no_flapping(hand):
    _work(hand, "n1")
    for _ in range(4):
        hand.probe("n1", fault=Fault.AUTH)
        _pass(hand, 2)
    _work(hand, "n1", ended=True)
    _pass(hand, 31)
    hand.fire(hand.attempt())


@pytest.mark.parametrize("names", [True, False])
def test_i5_what_a_minion_says_of_somebodys_job(hand, names):
    _work(hand, "n1")
    _pass(hand, 3)
    hand.die("n1")
    question = hand.attempt(id="q", action=Action.WITNESS)
    hand.watch.book.asking["q"] = Flight(question, hand.now, 1)
    jobs = (testimony.Running("1", "state.highstate"),) if names else ()
    told = testimony.Testimony(Process.GONE, jobs=jobs, all_jobs=True)
    hand.watch.book.hear(Returned("q", "n1", Outcome.DONE, "", told), hand.now, hand.state)
    (work,) = hand.watch.book.works["n1"]
    assert (work.ended_at is None) is names


# ---------------------------------------------------------------- minions that are gone


@pytest.mark.parametrize("found", [Presence.AWAY, Presence.NOT_ACCEPTED])
def test_i7_a_minion_of_which_it_was_told_that_it_is_gone(hand, found):
    hand.see(event=Present("c", {"n1": found}))
    with breaks("I7"):
        hand.fire(hand.attempt())


@pytest.mark.parametrize(
    ("told", "then_s"),
    [
        ({"n1": Presence.UNKNOWN, "n2": Presence.AWAY}, 0),
        ({"n1": Presence.CONNECTED}, 0),
        ({"n1": Presence.AWAY}, 61),
    ],
    ids=["nothing of it", "it is there", "long ago"],
)
def test_i7_a_minion_that_may_be_there(hand, told, then_s):
    hand.see(event=Present("c", told))
    for _ in range(then_s):
        hand.now += 1.0
        hand.probe()
    hand.fire(hand.attempt())


def test_i7_a_look_may_be_sent_to_a_minion_that_is_gone(hand):
    hand.fire(hand.attempt())
    hand.see(event=Present("c", {"n1": Presence.AWAY}))
    look = _look(hand)
    hand.see(Fire(look), look=look)


def test_i1_fired_again_for_the_nodes_that_the_settings_still_name(hand):
    hand.see(incidents=(hand.incident(cause=Seen(Fault.DEAD), nodes=NODES),))
    hand.die("n1", "n2", "n3")
    attempt = hand.attempt(action=Action.RESTART, nodes=("n1", "n2"))
    hand.fire(attempt)
    again = replace(attempt, nodes=("n1",), firings=2)
    broken = hand.watch.copy()
    with breaks("I1"):
        broken.see(hand.state, Tick(), hand.state, (Fire(again),), hand.now)
    hand.watch.settle({"c": replace(POLICY, nodes=("n1", "n3"))})
    hand.watch.see(hand.state, Tick(), hand.state, (Fire(again),), hand.now)


# ---------------------------------------------------------------- canaries


def stalls(hand: Hand, for_s: float = 3.0, others: bool = True) -> None:
    """n1's canary waits for so long, while the others answer theirs or are not asked."""
    seen = dict.fromkeys(NODES, NodeState(since=hand.now - 60.0))
    hand.see(incidents=(hand.incident(cause=Seen(Fault.STALLED)),), nodes=seen)
    hand.see(event=Canary("c", "n1", CanaryEnd.UNANSWERED, "it"))
    hand.now += for_s
    for node in NODES[1:] if others else ():
        hand.see(event=Canary("c", node, CanaryEnd.ANSWERED))


def test_i5_a_stall_that_has_lasted_may_be_acted_on(hand):
    stalls(hand)
    hand.fire(hand.attempt(action=Action.RESTART))


def test_i5_a_canary_that_was_answered(hand):
    stalls(hand)
    hand.see(event=Canary("c", "n1", CanaryEnd.ANSWERED))
    with breaks("I5"):
        hand.fire(hand.attempt(action=Action.RESTART))


def test_i5_a_stall_that_has_not_lasted(hand):
    stalls(hand, for_s=2.0)
    with breaks("I5"):
        hand.fire(hand.attempt(action=Action.RESTART))


def test_i5_a_stall_that_may_be_everybodys(hand):
    for node in NODES:
        hand.see(event=Canary("c", node, CanaryEnd.ANSWERED))
    hand.now += 1.0
    stalls(hand, others=False)
    with breaks("I5"):
        hand.fire(hand.attempt(action=Action.RESTART))


def test_i9_resolved_while_its_canary_waits(hand):
    stalls(hand)
    hand.now += 60.0
    hand.probe()
    with breaks("I9"):
        hand.see(Announce(hand.incident(phase=Phase.RESOLVED), "", "open.well"), incidents=())


def test_i9_resolved_while_all_canaries_wait_is_another_incidents_matter(hand):
    stalls(hand)
    for node in NODES[1:]:
        hand.see(event=Canary("c", node, CanaryEnd.UNANSWERED, "it"))
    hand.now += 60.0
    hand.probe()
    hand.see(Announce(hand.incident(phase=Phase.RESOLVED), "", "open.well"), incidents=())


# ---------------------------------------------------------------- observers


class Watching(Hand):
    """The same, and three observers, of which two must agree; n1 has hung for five seconds."""

    def __init__(self, fault: Fault = Fault.HUNG, **changes) -> None:
        super().__init__(replace(POLICY, **{"observers_quorum": 2, **changes}))
        self.see(event=Watchers("c", ("app1", "app2", "app3")))
        self.see(incidents=(self.incident(cause=Seen(fault)),))
        for pause_s in (5.0, 0.0):
            self.probe("n1", fault=fault, server_id=None, server_name=None)
            self.now += pause_s
        self.probe("n2", "n3")

    def ask(self, number: int = 1, about: str = "n1", nodes=("app1", "app2", "app3")) -> Attempt:
        id = f"c-1-probe-{about}-{number}"
        one = self.attempt(id=id, action=Action.PROBE, nodes=nodes, about=about)
        self.see(Fire(one), questions=(one,))
        return one

    def hear(self, one: Attempt, **told: bool | None) -> None:
        """These observers answer, and the question ends."""
        for who, down in told.items():
            self.see(event=Returned(one.id, who, Outcome.DONE, "", Spied(down)))
        self.see(Finish(one, Outcome.DONE, ""), questions=())

    def later(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.probe("n1", fault=Fault.HUNG, server_id=None, server_name=None)
            self.probe("n2", "n3")


def test_observers_agree_and_it_is_done():
    hand = Watching()
    hand.hear(hand.ask(), app1=True, app2=True)
    hand.fire(hand.attempt())


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"app1": True},
        {"app1": True, "app2": None},
        {"app1": True, "app2": True, "app3": False},
        {"app1": True, "db9": True},
    ],
)
def test_observers_too_few_or_contradicted(told):
    hand = Watching()
    hand.hear(hand.ask(), **told)
    with breaks("O"):
        hand.fire(hand.attempt())


@pytest.mark.parametrize("fault", [Fault.HUNG, Fault.UNREACHABLE])
def test_observers_were_not_asked(fault):
    hand = Watching(fault)
    with breaks("O"):
        hand.fire(hand.attempt())


def test_observers_of_a_dead_node_are_asked_if_the_settings_say_so():
    hand = Watching(Fault.DEAD, observers_always=True)
    hand.meet("n2", "n3")
    with breaks("O"):
        hand.fire(hand.attempt())
    hand = Watching(Fault.DEAD)
    hand.meet("n2", "n3")
    hand.fire(hand.attempt())


def test_observers_words_are_old():
    hand = Watching()
    hand.hear(hand.ask(), app1=True, app2=True)
    hand.later(61)
    with breaks("O"):
        hand.fire(hand.attempt())


def test_observers_words_were_about_an_earlier_illness():
    hand = Watching()
    hand.hear(hand.ask(), app1=True, app2=True)
    hand.now += 1.0
    hand.probe("n1")
    hand.later(5)
    with breaks("O"):
        hand.fire(hand.attempt())


@pytest.mark.parametrize("seconds", [0, 29])
def test_observers_are_not_asked_again_and_again(seconds):
    hand = Watching()
    hand.hear(hand.ask(), app1=False)
    hand.later(seconds)
    with breaks("O"):
        hand.ask(2)


def test_observers_are_asked_again_after_a_while():
    hand = Watching()
    hand.hear(hand.ask(), app1=False)
    hand.later(30)
    hand.ask(2)


@pytest.mark.parametrize(
    "asked",
    [{"about": "n2"}, {"about": "n9"}, {"nodes": ("n2",)}, {"nodes": ("app9",)}, {"nodes": ()}],
)
def test_observers_are_asked_about_nothing_else_and_are_no_others(asked):
    hand = Watching()
    with breaks("O"):
        hand.ask(**asked)


@pytest.mark.parametrize("changes", [{"observers_quorum": 0}, {"mode": Mode.SHADOW}])
def test_observers_are_not_asked_where_nothing_would_be_done(changes):
    hand = Watching(**changes)
    with breaks("O"):
        hand.ask()


def test_observers_are_not_asked_during_a_pause():
    hand = Watching()
    hand.order(Verb.PAUSE, cluster="c", for_s=60.0)
    with breaks("O"):
        hand.ask()


def test_observers_cost_no_budget():
    hand = Watching()
    one = hand.attempt(id="c-1-probe-n1-1", action=Action.PROBE, nodes=("app1",), about="n1")
    with breaks("O"):
        hand.see(Fire(one), questions=(one,), acts=(hand.now,))


def test_a_slow_healer_waits_longer():
    hand = Hand()
    hand.see(incidents=(hand.incident(cause=Seen(Fault.AUTH)),))
    hand.probe("n1", fault=Fault.AUTH, late_s=2.0)
    hand.now += 4.0
    hand.probe("n1", fault=Fault.AUTH)
    with breaks("O"):
        hand.fire(hand.attempt())
