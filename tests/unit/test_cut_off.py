"""What refuses the healer is not dead as long as another node is connected to it."""

import pytest

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.events import (
    Door,
    Issue,
    Met,
    Observation,
    Observed,
    Request,
    Requested,
    Returned,
    ViewStatus,
)
from saltext_selfheal.healing.model import Action, Dial, Fault, Outcome, Reply, Step
from saltext_selfheal.healing.word import word
from tests.unit.world import World, policy, table

EVERYWHERE = {"db1": True, "db2": True, "db3": True}


def cut(*nodes, **changes):
    """A warm world in which these nodes refuse the healer, and serve everybody else."""
    world = World(policy(**changes)).warm()
    world.cut_off |= set(nodes)
    world.break_(*nodes)
    return world


def faults(world):
    return {n: node.fault for n, node in world.cluster.nodes.items() if node.fault}


def test_two_ports_that_refuse_the_master_alone_bring_nobody_down():
    world = cut("db1", "db2")
    world.pass_time(120, tables=(table(ready=EVERYWHERE),))
    assert world.fired == []
    assert faults(world) == {"db1": Fault.CUT_OFF, "db2": Fault.CUT_OFF}
    told = " ".join(i.why for i in world.cluster.incidents)
    assert "db3 is connected to it" in told


def test_it_is_dead_when_the_others_say_that_it_is_gone():
    world = cut("db2")
    world.pass_time(30)
    assert world.fired == []
    world.cut_off.clear()
    world.pass_time(3)
    assert world.fired == []  # it has to last
    world.pass_time(7)
    assert world.fired == [("restart", ("db2",))]


def test_dead_nodes_are_started_together_when_the_others_agree():
    world = World().warm()
    world.break_("db1", "db2")
    world.pass_time(8)
    assert world.fired == [("restart", ("db1", "db2"))]


def test_all_dead_nodes_are_started_together_when_nobody_is_left_to_ask():
    world = World().warm()
    world.break_("db1", "db2", "db3")
    world.pass_time(8)
    assert world.fired == [("restart", ("db1", "db2", "db3"))]


def test_a_cut_off_node_is_not_started_with_the_dead_ones():
    world = World().warm()
    world.cut_off.add("db1")
    world.break_("db1", "db2")
    world.pass_time(10)
    assert world.fired == [("restart", ("db2",))]


def test_where_nobody_may_say_whether_they_are_gone_they_go_one_at_a_time():
    world = World().warm()
    world.forbidden = True
    world.look(status=ViewStatus.FORBIDDEN, why="no grant")
    world.break_("db1", "db2")
    world.pass_time(8)
    assert world.fired == [("restart", ("db1",))]
    world.heal("db1", after=1)
    world.pass_time(5)
    assert world.fired == [("restart", ("db1",)), ("restart", ("db2",))]


def test_an_answer_that_may_still_come_is_waited_for_and_not_for_ever():
    world = World().warm()
    world.forbidden = True  # the questions get lost
    world.break_("db2")
    world.pass_time(8)
    assert world.fired == []
    assert "agreed" in world.last_said().why
    world.pass_time(6)
    assert world.fired == [("restart", ("db2",))]


def test_what_nobody_has_called_gone_is_asked_of_the_quorum():
    world = World().warm()
    world.forbidden = True
    world.break_("db2")
    ready = {**EVERYWHERE, "db3": False}
    world.pass_time(40, tables=(table(ready=ready),))
    assert world.fired == []
    assert "quorum" in world.last_said().why


def test_a_word_from_before_the_refusal_proves_nothing():
    world = World().warm()
    world.meet()  # all are connected
    world.now += 0.5
    world.break_("db2")
    world.pass_time(6)
    assert world.fired == [("restart", ("db2",))]


def test_a_connection_that_answers_is_a_proof_of_life():
    world = World().warm()
    for _ in range(60):
        world.pass_time(1)
        world.step(Observed(Observation("runbook", "db2", Fault.DEAD, "refused", answers=True)))
    assert world.fired == []
    assert world.cluster.nodes["db2"].fault is Fault.CUT_OFF or not faults(world)


def test_the_settings_may_have_a_cut_off_node_restarted_one_at_a_time_and_with_the_quorum_asked():
    steps = {**escalation.DEFAULT, Fault.CUT_OFF: (Step(Action.RESTART),)}
    world = cut("db1", "db2", escalation=steps)
    world.pass_time(30, tables=(table(ready=EVERYWHERE),))
    assert world.fired == []
    told = [e.why for e in world.effects if getattr(e, "said", "") == "held"]
    assert any(why.startswith("quorum: ") for why in told)
    world.mend("db2")
    world.cut_off.discard("db2")
    world.pass_time(30, tables=(table(ready=EVERYWHERE),))
    assert world.fired == [("restart", ("db1",))]


# ---------------------------------------------------------------- accepts nothing new, serves the old


def half(world, node="db2", seconds=1, fault=Fault.HUNG):
    for _ in range(seconds):
        world.pass_time(1, poll=False)
        world.look(tables=(table(ready=EVERYWHERE),))
        for name in ("db1", "db2", "db3"):
            ill = name == node or name in world.more
            seen = Observation(
                "runbook",
                name,
                fault if ill else None,
                "accepts TCP, but no handshake within 2 s" if ill else "answers",
                server_id=None if ill else f"id-{name}",
                server_name=None if ill else name,
                answers=ill,
            )
            world.step(Observed(seen))


@pytest.fixture
def world():
    world = World().warm()
    world.more = set()
    return world


def test_a_node_that_takes_no_new_connection_is_restarted_once_with_the_quorum_asked(world):
    half(world, seconds=6)
    assert world.fired == [("restart", ("db2",))]
    world.heal("db2")
    world.pass_time(30)
    assert world.cluster.incidents == ()
    assert world.fired == [("restart", ("db2",))]


def test_two_of_them_are_never_taken_away_together(world):
    world.more.add("db1")
    half(world, seconds=20)
    assert len(world.fired) <= 1
    assert all(len(nodes) == 1 for _, nodes in world.fired)


def test_where_the_majority_needs_it_it_is_left_serving_those_it_serves(world):
    world.break_("db3")
    world.meet()
    for _ in range(20):
        half(world)
        world.step(Observed(Observation("runbook", "db3", Fault.DEAD, "refused")))
        world.meet()
    assert ("restart", ("db2",)) not in world.fired


# ---------------------------------------------------------------- well again


def test_well_again_needs_a_dial_after_the_job():
    world = World().warm()
    world.ask("highstate", ["db2"])
    world.publish()
    world.pass_time(2)
    world.returns()

    def look(dialled):
        for name in ("db1", "db2", "db3"):
            world.step(
                Observed(
                    Observation(
                        "runbook", name, None, "answers",
                        server_id=f"id-{name}", server_name=name, dialled=dialled,
                    )
                )
            )  # fmt: skip

    for _ in range(15):
        world.pass_time(1, poll=False)
        look(dialled=False)
    assert ("runbook-1", "resolved") not in world.said
    for _ in range(12):
        world.pass_time(1, poll=False)
        look(dialled=True)
    assert ("runbook-1", "resolved") in world.said


def test_what_no_dial_has_verified_ends_by_a_dial_only():
    """The node was seen well before its job ended, and nobody dials it after that: a look that was open says nothing."""
    world = World().warm()
    world.break_("db2")
    world.pass_time(5)
    world.publish()
    world.mend("db2")
    world.pass_time(2)
    world.returns()

    def looks(seconds, dialled):
        for _ in range(seconds):
            world.pass_time(1, poll=False)
            for name in ("db1", "db2", "db3"):
                world.step(
                    Observed(
                        Observation(
                            "runbook", name, None, "answers",
                            server_id=f"id-{name}", server_name=name, dialled=dialled,
                        )
                    )
                )  # fmt: skip

    looks(150, dialled=False)
    assert world.said[-1] == ("runbook-1", "held")
    assert world.last_said().why.endswith("cannot be seen: no fresh dial of db2")
    looks(5, dialled=True)
    assert world.said[-1] == ("runbook-1", "resolved")


def test_the_nodes_of_a_job_are_dialled_afresh_at_its_end():
    world = World().warm()
    world.break_("db2")
    world.pass_time(5)
    world.publish()
    before = len(world.effects)
    world.returns()
    assert [e for e in world.effects[before:] if isinstance(e, Dial)] == [Dial("runbook", ("db2",))]


# ---------------------------------------------------------------- requests


def test_a_request_for_a_restart_makes_the_probe_dial_and_decides_on_that():
    world = World().warm()
    world.step(Requested(Request("r1", "runbook", "restart", ("db2",), "", Door.RUNNER, "app")))
    assert [e for e in world.effects if isinstance(e, Dial)] == [Dial("runbook", ("db2",))]
    assert len(world.cluster.pending) == 1
    world.break_("db2", fault=Fault.HUNG)
    world.pass_time(1)
    answer = world.answer("r1")
    assert (answer.reply, answer.incident) == (Reply.JOINED, "runbook-1")
    assert world.cluster.pending == ()


def test_the_same_request_asked_again_while_it_waits_is_one():
    world = World().warm()
    for _ in range(3):
        world.step(Requested(Request("r1", "runbook", "restart", (), "", Door.RUNNER, "app")))
    assert len(world.cluster.pending) == 1


def test_a_dial_that_does_not_come_is_not_waited_for_for_ever():
    world = World().warm()
    world.step(Requested(Request("r1", "runbook", "restart", (), "", Door.RUNNER, "app")))
    world.pass_time(10, poll=False)
    answer = world.answer("r1")
    assert answer.reply is Reply.REFUSED
    assert "a fresh dial has not ended in time" in answer.why


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.CUT_OFF])
def test_an_incident_without_steps_swallows_no_request(fault):
    world = World().warm()
    world.break_("db1", fault=fault)
    world.pass_time(6)
    world.look(tables=(table(ready={"db2": True, "db3": True}),))
    answer = world.ask("start", ["db2"], id="r1")
    assert (answer.reply, answer.incident) == (Reply.ACCEPTED, "runbook-2")
    assert world.fired == [("start", ("db2",))]


def test_nor_does_an_issue_that_is_only_announced():
    world = World().warm()
    swap = (Issue("memory_error", "the server uses swap"),)
    world.pass_time(10, issues=swap, tables=(table(ready=EVERYWHERE),))
    assert world.cluster.incidents[0].called == "issue:memory_error"
    answer = world.ask("highstate", id="r1")
    assert (answer.reply, answer.incident) == (Reply.ACCEPTED, "runbook-2")


def test_a_restart_that_is_asked_for_where_the_probe_is_cut_off_too_goes_to_that_node_alone():
    world = World().warm()
    world.break_("db2", fault=Fault.UNREACHABLE)
    world.pass_time(6)
    world.ask("restart", id="r1")
    world.pass_time(10, tables=(table(ready=EVERYWHERE),))
    assert world.fired == [("restart", ("db2",))]


def test_a_restart_is_not_granted_against_what_it_cannot_cure():
    world = World(policy(escalation={**escalation.DEFAULT, Fault.AUTH: ()})).warm()
    world.break_("db2", fault=Fault.AUTH)
    world.pass_time(6)
    answer = world.ask("restart", ["db2"], id="r1")
    assert answer.reply is Reply.HELD
    assert "restart does not help against auth on db2" in answer.why
    assert world.fired == []


# ---------------------------------------------------------------- a result is a hint


def forged(outcome=Outcome.FAILED):
    """A highstate runs on db2, and somebody else has returned a result for it."""
    world = World().warm()
    world.truthful = False
    world.ask("highstate", ["db2", "db3"])
    world.publish()
    world.pass_time(1)
    world.returns(outcome, "as somebody says")
    return world


def answer_look(world, outcome):
    look = world.cluster.look
    world.publish()
    for node in look.nodes:
        world.step(Returned(look.id, node, outcome))


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.FAILED, Outcome.BUSY])
def test_nothing_follows_a_result_before_a_look_has_proved_it(outcome):
    world = forged(outcome)
    world.pass_time(14)
    assert [action for action, _ in world.fired if action != "look"] == ["highstate"]
    assert world.cluster.look is not None
    for _ in range(3):
        if world.cluster.look:
            answer_look(world, Outcome.BUSY)  # it runs
        world.pass_time(40)
    assert [action for action, _ in world.fired if action != "look"] == ["highstate"]
    answer_look(world, Outcome.DONE)
    world.pass_time(5)
    assert [action for action, _ in world.fired if action != "look"] == ["highstate", "highstate"]


def test_a_minion_that_is_silent_after_its_result_is_waited_for_as_long_as_for_a_job():
    world = forged(Outcome.DONE)
    world.pass_time(50)
    assert [action for action, _ in world.fired if action != "look"] == ["highstate"]
    world.pass_time(60)
    assert [action for action, _ in world.fired if action != "look"] == ["highstate", "highstate"]


def test_silence_never_ends_a_job_whose_minion_has_said_that_it_runs():
    """Not while the attempt is in flight, and not after it was given up."""
    world = World(policy(attempt_timeout_s=60.0)).warm()
    world.truthful = False
    world.ask("highstate", ["db2"])
    world.publish()
    while world.cluster.look is None:
        world.pass_time(1)
    answer_look(world, Outcome.BUSY)  # it runs
    world.break_("db2", fault=Fault.HUNG)
    for _ in range(900):  # from here on the minion is silent
        world.pass_time(1)
        if world.cluster.look is not None:
            world.publish()
    assert [action for action, _ in world.fired if action != "look"] == ["highstate"]


@pytest.mark.parametrize(
    ("fault", "then"),
    [
        (Fault.HUNG, ["highstate"]),
        (Fault.DEAD, ["look"]),  # its service manager may have started it
    ],
)
def test_the_database_is_believed_where_it_can_tell(fault, then):
    steps = dict.fromkeys(Fault, (Step(Action.RESTART), Step(Action.HIGHSTATE)))
    world = World(policy(escalation=steps)).warm()
    world.truthful = False
    starts = {f"id-db{n}": 100.0 for n in (1, 2, 3)}
    world.look(started=starts)
    world.break_("db2", fault=fault)
    world.pass_time(5)
    world.publish()
    world.returns(Outcome.FAILED, "as somebody says")
    world.look(started={**starts, "id-db2": 200.0})
    world.pass_time(3)
    assert [action for action, _ in world.fired] == ["restart", *then]


def test_a_start_of_before_the_decision_does_not_prove_that_the_restart_is_over():
    steps = dict.fromkeys(Fault, (Step(Action.RESTART), Step(Action.HIGHSTATE)))
    world = World(policy(escalation=steps)).warm()
    world.truthful = False
    starts = {f"id-db{n}": 100.0 for n in (1, 2, 3)}
    world.look(started=starts)
    starts["id-db2"] = 150.0
    world.look(started=starts)
    world.break_("db2", fault=Fault.HUNG)
    world.pass_time(5)
    world.publish()
    world.returns(Outcome.FAILED, "as somebody says")
    world.look(started=starts)
    world.pass_time(3)
    assert [action for action, _ in world.fired] == ["restart", "look"]


def test_what_others_said_before_the_refusal_is_no_word_about_it():
    world = World().warm()
    world.forbidden = True  # nobody can be asked
    world.break_("db2")
    world.pass_time(5)
    connected = {"db1": frozenset({"id-db1"}), "db3": frozenset({"id-db3"})}
    world.step(Met("runbook", connected, took_s=10.0))  # asked before db2 refused
    told = word(world.cluster, "db2", world.now)
    assert (told.gone, told.awaited) == (False, True)
    assert world.fired == []


def test_in_a_partition_nobodys_word_proves_a_death():
    """Whom the others have lost may serve on its own side: no two are restarted together, and none without the quorum."""
    world = World().warm()
    apart = {
        "db1": frozenset({"id-db1"}),
        "db2": frozenset({"id-db2"}),
        "db3": frozenset({"id-db3"}),
    }
    world.look(connected=apart)
    world.break_("db1", "db2")
    world.pass_time(20)
    told = word(world.cluster, "db2", world.now)
    assert (told.gone, told.contradicted) == (False, False)
    assert world.fired == []


def test_a_request_about_one_node_does_not_join_what_is_about_another():
    world = World().warm()
    world.break_("db1", fault=Fault.AUTH)
    world.pass_time(5)
    assert world.ask("highstate", ["db2"]).reply is not Reply.JOINED
    assert world.ask("highstate", ["db1"], id="r2").reply is Reply.JOINED


def test_a_dead_proxy_does_not_keep_closed_tables_from_being_told():
    world = World().warm()
    for _ in range(100):
        world.pass_time(1, poll=False)
        for name in ("db1", "db2", "db3"):
            dead = Fault.DEAD if name == "db3" and world.now > 1_000_030 else None
            is_proxy = {} if dead else {"proxy": name == "db3", "server_id": f"id-{name}"}
            world.step(Observed(Observation("runbook", name, dead, "as told", **is_proxy)))
        there = frozenset({"id-db1", "id-db2"})
        world.look(tables=(table(reads=False),), connected=dict.fromkeys(("db1", "db2"), there))
    assert "unavailable" in {i.called for i in world.cluster.incidents}


def test_a_database_that_was_started_anew_does_not_prove_that_a_highstate_is_over():
    steps = dict.fromkeys(Fault, (Step(Action.HIGHSTATE), Step(Action.RESTART)))
    world = World(policy(escalation=steps)).warm()
    world.truthful = False
    starts = {f"id-db{n}": 100.0 for n in (1, 2, 3)}
    world.look(started=starts)
    world.break_("db2", fault=Fault.HUNG)
    world.pass_time(5)
    world.publish()
    world.returns(Outcome.FAILED, "as somebody says")
    world.look(started={**starts, "id-db2": 200.0})
    world.pass_time(3)
    assert [action for action, _ in world.fired] == ["highstate", "look"]


def test_whoever_only_refuses_the_login_lives_and_cannot_be_asked():
    world = World().warm()
    world.break_("db1", fault=Fault.AUTH)
    world.pass_time(200)
    world.effects.clear()
    world.cut_off |= {"db2", "db3"}
    world.break_("db2", "db3")
    world.pass_time(12)
    assert [nodes for _, nodes in world.fired] == [("db2",)]


def test_a_proxy_that_refuses_is_no_proof_of_its_death():
    world = World().warm()
    for _ in range(10):
        world.pass_time(1, poll=False)
        for name in ("db1", "db2", "db3"):
            dead = None if name == "db3" or world.now < 1_000_022 else Fault.DEAD
            proxy = {"proxy": name != "db3", "server_id": f"id-{name}"} if not dead else {}
            world.step(Observed(Observation("runbook", name, dead, "as told", **proxy)))
            world.step(Met("runbook", {"db3": frozenset({"id-db3"})}))
    assert [nodes for _, nodes in world.fired] == [("db1",)]


def test_a_look_over_the_old_connection_does_not_end_what_a_dial_has_found(world):
    half(world, seconds=2)
    seen = Observation(
        "runbook", "db2", None, "answers", server_id="id-db2", server_name="db2", dialled=False
    )
    world.step(Observed(seen))
    assert world.cluster.nodes["db2"].fault is Fault.HUNG


def test_a_node_that_answers_over_an_open_connection_is_not_dead_and_tells_who_it_is():
    """The good dial in between was lost on its way, and with it who it is: nobody could vouch for it."""
    world = World(policy(escalation=escalation.DEFAULT))
    for name in ("db1", "db2", "db3"):
        dead = Fault.DEAD if name == "db2" else None
        world.step(Observed(Observation("runbook", name, dead, "as told", server_id=None)))
    seen = Observation(
        "runbook", "db2", None, "answers", server_id="id-db2", server_name="db2", dialled=False
    )
    for _ in range(60):
        world.pass_time(1, poll=False)
        world.step(Observed(seen))
        for name in ("db1", "db3"):
            well = Observation(
                "runbook", name, None, "answers", server_id=f"id-{name}", server_name=name
            )
            world.step(Observed(well))
    node = world.cluster.nodes["db2"]
    assert (node.fault, node.answers, node.server_id) == (Fault.DEAD, True, "id-db2")
    told = word(world.cluster, "db2", world.now)
    assert (told.contradicted, told.why) == (True, "db2 answers over a connection that is open")
    assert world.fired == []


def test_a_death_that_somebody_contradicted_has_to_last_anew():
    """Between two dials the others said that they are connected to it, and then that they are not."""
    world = World(policy(confirm_s=dict.fromkeys(Fault, 4.0))).warm()
    world.break_("db2")
    world.forbidden = True  # nobody is asked by the world itself
    world.pass_time(5)
    names = [n for n in world.policies["runbook"].nodes if n != "db2"]
    everybody = frozenset({"id-db1", "id-db2", "id-db3"})
    world.step(Met("runbook", dict.fromkeys(names, everybody)))
    assert not world.cluster.nodes["db2"].confirmed
    world.step(Met("runbook", dict.fromkeys(names, everybody - {"id-db2"})))
    assert world.fired == []
    world.pass_time(3)
    assert world.fired == []
    world.pass_time(2)
    assert world.fired == [("restart", ("db2",))]


def test_a_node_whose_name_nobody_knows_may_be_any_server_of_the_map():
    world = World()
    for _ in range(40):
        world.pass_time(1, poll=False)
        world.look(tables=(table(ready={**EVERYWHERE, "db1": False}),))
        for name, fault in (("db1", None), ("db2", Fault.AUTH), ("db3", None)):
            known = {} if fault else {"server_id": f"id-{name}", "server_name": name}
            world.step(Observed(Observation("runbook", name, fault, "as told", **known)))
    assert world.fired == []
    assert "quorum" in world.last_said().why


def test_requests_that_wait_for_a_dial_are_counted_and_no_asker_takes_all_places():
    world = World(policy(request_count=0)).warm()
    for n in range(40):
        world.step(Requested(Request(f"r{n}", "runbook", "restart", (), "", Door.BUS, f"m{n}")))
    assert len(world.cluster.pending) == 10
    world.step(Requested(Request("mine", "runbook", "restart", (), "", Door.WEBHOOK, "app")))
    assert [one.request.id for one in world.cluster.pending][-1] == "mine"
    bounded = World(policy(request_count=6)).warm()
    for n in range(40):
        bounded.step(Requested(Request(f"r{n}", "runbook", "restart", (), "", Door.BUS, f"m{n}")))
    assert len(bounded.cluster.pending) == 3
    assert "too many requests by bus" in bounded.answer("r30").why


def test_what_could_not_be_read_may_still_run():
    world = World().warm()
    world.truthful = world.cache_readable = False
    world.break_("db2")
    world.pass_time(120)
    assert [action for action, _ in world.fired] == ["restart", "look", "look"]
    world.cache_readable = True
    while world.cluster.look is None:
        world.pass_time(1)
    answer_look(world, Outcome.DONE)
    world.pass_time(2)
    assert [action for action, _ in world.fired][-1] == "highstate"


def test_a_result_that_a_look_has_refuted_is_not_believed_again():
    world = forged(Outcome.FAILED)
    world.pass_time(14)
    (attempt,) = [late.attempt.id for late in world.cluster.late]
    answer_look(world, Outcome.BUSY)
    world.step(Returned(attempt, "db2", Outcome.FAILED, "the same lie, read again"))
    for _ in range(8):
        world.pass_time(30)  # no look is answered
    assert [action for action, _ in world.fired if action != "look"] == ["highstate"]


def test_a_job_that_does_not_end_whatever_was_returned_is_left_to_a_person():
    world = World().warm()
    world.truthful = False
    world.break_("db2")
    world.pass_time(5)
    world.publish()
    world.returns(Outcome.FAILED, "as somebody says")
    for _ in range(300):
        world.pass_time(1)
        if world.cluster.look:
            answer_look(world, Outcome.BUSY)
    assert world.last_said().said == "locked"
    assert "does not end, whatever was returned" in world.last_said().why


def test_a_restart_that_names_well_nodes_as_well_joins_the_incident_of_the_dead_one():
    world = World().warm()
    world.break_("db2")
    world.pass_time(1)
    first = world.ask("restart", ["db1", "db2", "db3"], id="r1")
    assert (first.reply, first.incident) == (Reply.JOINED, "runbook-1")  # suspected as yet
    world.pass_time(10)
    assert world.fired == [("restart", ("db2",))]


def test_the_same_restart_asked_again_joins_the_one_that_was_opened():
    world = World().warm()
    world.break_("db2", fault=Fault.UNREACHABLE)
    world.pass_time(6)
    answers = [world.ask("restart", ["db1", "db2"], id=f"r{n}") for n in range(3)]
    assert {a.incident for a in answers} == {"runbook-2"}
    assert [a.reply for a in answers][1:] == [Reply.JOINED, Reply.JOINED]


def test_peers_that_have_not_noticed_yet_delay_nothing_and_open_no_second_incident():
    world = World().warm()
    world.break_("db2")
    world.cut_off.add("db2")
    world.poll()  # refused, and in the same moment the others are still connected to it
    world.cut_off.clear()
    world.pass_time(4)
    assert world.fired == [("restart", ("db2",))]
    assert world.said[0] == ("runbook-1", "suspected")
    assert {incident for incident, _ in world.said} == {"runbook-1"}


def test_a_death_after_an_open_connection_had_answered_must_last_anew():
    """What was refused before that was no death."""
    world = World(policy(confirm_s=dict.fromkeys(Fault, 10.0), verify_s=5.0)).warm()

    def refused(seconds, answers):
        for _ in range(seconds):
            seen = Observation("runbook", "db2", Fault.DEAD, "refused", answers=answers)
            world.step(Observed(seen))
            world.now += 1.0
        return world.cluster.nodes["db2"]

    assert not refused(5, answers=False).confirmed
    assert refused(20, answers=True).fault is Fault.CUT_OFF
    dead = refused(3, answers=False)
    assert (dead.fault, dead.confirmed) == (Fault.DEAD, False)
    assert refused(10, answers=False).confirmed
