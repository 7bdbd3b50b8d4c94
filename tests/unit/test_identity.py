"""Whose server answers: what is done, and left undone, where that is in doubt."""

from dataclasses import replace

import pytest

from saltext_selfheal.healing import gates, remedies
from saltext_selfheal.healing.events import Met, Observation, Observed
from saltext_selfheal.healing.model import Action, Asked, Fault, Incident, Phase, Step
from tests.unit.world import World, policy


def see(world, node, cluster="runbook", fault=None, **what):
    """One look at a node, whatever the others do."""
    told = {"server_id": f"id-{node}", "server_name": node, **what}
    world.step(Observed(Observation(cluster, node, fault, "as told", **told)))


def doubts(world, cluster="runbook"):
    return {n: node.doubt for n, node in world.state.clusters[cluster].nodes.items() if node.doubt}


def shut(world, action="restart", nodes=("db3",)):
    """Names of the gates that hold a forced request."""
    incident = Incident("x-1", "runbook", Asked(True), nodes, Phase.OPEN, world.now, world.now)
    intent = gates.Intent("runbook", incident, Step(Action(action)), nodes)
    return {g.name for g in gates.shut(gates.judge(world.state, intent, world.now))}


def test_two_nodes_that_lead_to_one_server_are_mistaken_and_nothing_is_done_to_either():
    world = World().warm()
    see(world, "db1", server_id="id-db2")
    assert set(doubts(world)) == {"db1", "db2"}
    assert "db1 and db2" in doubts(world)["db1"]
    world.look()
    assert {"identity", "quorum"} <= shut(world, nodes=("db1",))
    assert {"identity", "quorum"} <= shut(world, nodes=("db2",))
    assert "quorum" in shut(world, nodes=("db3",))
    assert "identity" not in shut(world, nodes=("db3",))


def test_it_is_told_with_both_names_and_never_acted_on():
    world = World().warm()
    for _ in range(60):
        world.pass_time(1, poll=False)
        see(world, "db1", server_id="id-db2")
        see(world, "db2")
        see(world, "db3")
    (incident,) = world.cluster.incidents
    assert incident.fault is Fault.MISTAKEN
    assert set(incident.nodes) == {"db1", "db2"}
    assert "db1" in incident.why and "db2" in incident.why
    assert world.fired == []


def test_a_dead_server_behind_swapped_addresses_does_not_bring_the_other_down():
    world = World().warm()
    for _ in range(5):
        world.pass_time(1, poll=False)
        see(world, "db1", server_id="id-db2")
        see(world, "db2", server_id="id-db1")
        see(world, "db3")
    for _ in range(60):  # the server of db1 dies: db2's address refuses
        world.pass_time(1, poll=False)
        see(world, "db1", server_id="id-db2")
        see(world, "db2", fault=Fault.DEAD, server_id=None, server_name=None)
        see(world, "db3")
        world.meet()
    assert world.fired == []
    assert world.cluster.nodes["db2"].fault is Fault.MISTAKEN


def test_doubt_ends_when_both_answer_as_themselves():
    world = World().warm()
    see(world, "db1", server_id="id-db2")
    world.pass_time(3)
    assert doubts(world) == {}
    world.pass_time(30)
    assert world.cluster.incidents == ()


def test_who_does_not_answer_stays_in_doubt_until_a_person_has_looked():
    world = World().warm()
    for _ in range(8):
        world.pass_time(1, poll=False)
        see(world, "db1", server_id="id-db2")
        see(world, "db2", fault=Fault.DEAD, server_id=None, server_name=None)
        see(world, "db3")
    assert set(doubts(world)) == {"db1", "db2"}
    see(world, "db1")
    assert set(doubts(world)) == {"db2"}
    incident = next(i for i in world.cluster.incidents if "db2" in i.nodes)
    assert world.order("ack", incident=incident.id).reply.value == "accepted"
    assert doubts(world) == {}


def test_ack_takes_the_servers_for_what_they_answer_as():
    world = World().warm()
    swapped = {"db1": "id-db2", "db2": "id-db1", "db3": "id-db3"}

    def swap(seconds):
        for _ in range(seconds):
            world.pass_time(1, poll=False)
            for node, server in swapped.items():
                see(world, node, server_id=server, server_name=server)

    swap(10)
    (incident,) = world.cluster.incidents
    answer = world.order("ack", incident=incident.id)
    assert answer.reply.value == "accepted"
    swap(10)
    assert doubts(world) == {}
    assert world.cluster.incidents == ()


def test_another_cluster_counts_as_well():
    world = World(policy(), policy(name="other", nodes=("dbx",), minions="dbx")).warm()
    see(world, "dbx", cluster="other", server_id="id-db2")
    assert set(doubts(world)) == {"db2"}
    assert set(doubts(world, "other")) == {"dbx"}
    assert "db2 of runbook" in doubts(world, "other")["dbx"]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("10.0.0.9:28015",), ("10.0.0.9:28015",)),
        (("10.0.0.9:28015", "[fe80::1]:28015"), ("[fe80::1]:28015",)),
        (("[::1]:28015", "127.0.0.1:28015"), ("127.0.0.1:28015", "127.0.0.2:28015")),
    ],
)
def test_names_that_lead_to_one_address_are_in_doubt_also_while_nobody_answers(one, two):
    world = World().warm()
    gone = {"fault": Fault.DEAD, "server_id": None, "server_name": None}
    see(world, "db1", addresses=one)
    see(world, "db2", addresses=two, **gone)
    assert set(doubts(world)) == {"db1", "db2"}
    assert "one address" in doubts(world)["db2"]


def test_one_port_is_enough_to_tell_two_addresses_apart():
    world = World().warm()
    see(world, "db1", addresses=("127.0.0.1:28015",))
    see(world, "db2", addresses=("127.0.0.1:28016",))
    assert doubts(world) == {}


def test_two_servers_of_one_name_shut_the_quorum_of_their_cluster():
    world = World().warm()
    see(world, "db2", server_name="db1")
    assert set(doubts(world)) == {"db1", "db2"}
    assert "one name, db1" in doubts(world)["db2"]


def test_a_name_that_a_server_beside_the_nodes_has_as_well():
    world = World().warm()
    names = {"id-db1": "db1", "id-db2": "db2", "id-db3": "db3", "id-other": "db2"}
    world.meet(names=names)
    world.look()
    assert "quorum" in shut(world, nodes=("db3",))
    world.pass_time(1)
    assert set(doubts(world)) == {"db2"}
    world.meet(names={"id-db2": "db2"})
    world.pass_time(1)
    assert doubts(world) == {}


def test_a_name_that_two_servers_have_holds_its_node_before_anybody_looks_at_that_again():
    """A node that hangs answers no dial that could put it in doubt."""
    world = World().warm()
    ids = frozenset({"id-db1", "id-db2", "id-db3", "id-new"})
    names = {"id-db1": "db1", "id-db2": "db2", "id-db3": "db3", "id-new": "db3"}
    world.step(Met("runbook", {"db1": ids}, names))
    assert not doubts(world)
    assert "identity" in shut(world, "start", nodes=("db3",))
    assert "identity" not in shut(world, "start", nodes=("db2",))


def test_one_name_in_two_clusters_is_nothing():
    world = World(policy(), policy(name="other", nodes=("dbx",), minions="dbx")).warm()
    see(world, "dbx", cluster="other", server_name="db1")
    assert doubts(world) == doubts(world, "other") == {}


def test_a_new_server_behind_a_node_is_its_own():
    world = World().warm()
    see(world, "db2", server_id="id-new", server_name="db2")
    assert doubts(world) == {}
    assert world.cluster.nodes["db2"].server_id == "id-new"


def test_doubt_outlasts_the_healer():
    world = World().warm()
    see(world, "db1", server_id="id-db2")
    gone = {"fault": Fault.DEAD, "server_id": None, "server_name": None}
    later = World(remembered=dict(world.state.clusters), now=world.now + 60)
    for _ in range(40):
        later.pass_time(1, poll=False)
        see(later, "db1", **gone)
        see(later, "db2", **gone)
        see(later, "db3")
        later.meet()
    assert set(doubts(later)) == {"db1", "db2"}
    assert later.fired == []


def test_no_setting_can_order_anything_against_a_mistaken_server():
    assert remedies.forbidden(Fault.MISTAKEN) == set(remedies.REMEDIES)


def test_a_node_that_was_never_rethinkdb_is_a_fault_of_the_settings():
    world = World()
    world.faults["runbook", "db2"] = Fault.ALIEN
    for _ in range(60):
        world.pass_time(1, poll=False)
        see(world, "db1")
        see(world, "db2", fault=Fault.ALIEN, server_id=None, server_name=None)
        see(world, "db3")
    assert world.fired == []
    assert "db2 has never answered as RethinkDB" in world.last_said().why


@pytest.mark.parametrize("action", ["restart", "highstate", "start"])
def test_nor_does_anybody_who_asks_have_it_touched(action):
    """Its address may be wrong: then the minion's own server serves, and nobody has looked at it."""
    world = World()
    world.faults["runbook", "db2"] = Fault.ALIEN
    for _ in range(30):
        world.pass_time(1, poll=False)
        for name in ("db1", "db3"):
            see(world, name)
        see(world, "db2", fault=Fault.ALIEN, server_id=None, server_name=None)
    assert "identity" in shut(world, action, ("db2",))
    world.ask(action, ["db2"])
    world.pass_time(5, poll=False)
    assert world.fired == []


def test_a_node_that_was_rethinkdb_and_is_something_else_now_gets_its_highstate():
    world = World().warm()
    for _ in range(20):
        world.pass_time(1, poll=False)
        see(world, "db1")
        see(world, "db2", fault=Fault.ALIEN, server_id=None, server_name=None)
        see(world, "db3")
    assert world.fired == [("highstate", ("db2",))]


def test_whoever_was_in_doubt_and_left_the_settings_is_compared_with_nobody():
    world = World().warm()
    see(world, "db1", server_id="id-db2")
    left = replace(world.policies["runbook"], nodes=("db1", "db3"))
    later = World(left, remembered=dict(world.state.clusters), now=world.now + 60)
    for _ in range(5):
        later.pass_time(1, poll=False)
        see(later, "db1", server_id="id-db2")
        see(later, "db3")
    assert doubts(later) == {}


def test_addresses_that_are_swapped_as_resolved_are_not_taken_for_new_servers():
    world = World().warm()
    own = {"db1": ("10.0.0.1:28015",), "db2": ("10.0.0.2:28015",), "db3": ("10.0.0.3:28015",)}

    def look(swapped, seconds, dead=()):
        for _ in range(seconds):
            world.pass_time(1, poll=False)
            for node in own:
                at = {"db1": "db2", "db2": "db1"}.get(node, node) if swapped else node
                gone = at in dead
                told = (
                    {"server_id": None, "server_name": None}
                    if gone
                    else {"server_id": f"id-{at}", "server_name": at}
                )
                see(world, node, fault=Fault.DEAD if gone else None, addresses=own[at], **told)
            alive = frozenset(f"id-{n}" for n in own if n not in dead)
            world.meet(connected={"db3": alive})

    look(False, 3)
    look(True, 3)
    assert set(doubts(world)) == {"db1", "db2"}
    look(True, 30, dead=("db1",))
    assert world.fired == []
    look(False, 3, dead=("db1",))  # put right: db1 does not answer, so a person has to look
    assert set(doubts(world)) == {"db1"}
    world.order("ack", incident=world.cluster.incidents[0].id)
    assert world.cluster.nodes["db1"].server_id == "id-db1"
    look(False, 8, dead=("db1",))
    assert world.fired == [("restart", ("db1",))]


def test_an_ack_does_not_end_a_doubt_about_a_name_that_two_servers_still_have():
    world = World().warm()
    for _ in range(6):
        world.pass_time(1, poll=False)
        see(world, "db1")
        see(world, "db2", server_name="db1")
    assert set(doubts(world)) == {"db1", "db2"}
    assert world.order("ack", incident=world.cluster.incidents[0].id).reply.value == "accepted"
    assert doubts(world) == {}
    see(world, "db1")
    see(world, "db2", server_name="db1")
    assert set(doubts(world)) == {"db1", "db2"}


def test_a_new_name_is_known_although_an_open_connection_told_it():
    """Else the doubt about the other server of that name ends when this one falls silent."""
    world = World().warm()
    gone = {"fault": Fault.DEAD, "server_id": None, "server_name": None}
    see(world, "db1", server_name="db2", dialled=False)
    assert set(doubts(world)) == {"db1", "db2"}
    see(world, "db1", **gone)
    see(world, "db2")
    assert set(doubts(world)) == {"db1", "db2"}


def test_a_start_gives_a_node_in_doubt_no_id_of_anothers():
    """After a start nothing is believed of it but the doubt, and a connection that is open may lead anywhere."""
    world = World().warm()
    gone = {"fault": Fault.DEAD, "server_id": None, "server_name": None}
    see(world, "db1", server_id="id-db2", server_name="db2")
    see(world, "db1", **gone)
    again = World(remembered=world.state.clusters, now=world.now + 60.0)
    assert "db1 and db2" in doubts(again)["db1"]
    see(again, "db1", server_id="id-db2", server_name="db2", dialled=False)
    assert again.cluster.nodes["db1"].server_id == "id-db1"
    assert "db1 and db2" in doubts(again)["db1"]


def test_an_id_that_another_node_had_before_is_disputed_too():
    world = World()
    gone = {"fault": Fault.DEAD, "server_id": None, "server_name": None}
    for _ in range(3):
        world.pass_time(1, poll=False)
        see(world, "db1")
        see(world, "db2", **gone)
    # The addresses are swapped while db2 has never answered, and db2's server comes up.
    see(world, "db1", server_id="id-db2", server_name="db2")
    see(world, "db2", server_id="id-db1", server_name="db1")
    assert set(doubts(world)) == {"db1", "db2"}


def test_an_ack_that_came_too_early_leaves_nobody_with_anothers_id():
    world = World().warm()
    gone = {"fault": Fault.DEAD, "server_id": None, "server_name": None}

    def look(seconds, **db1):
        for _ in range(seconds):
            world.pass_time(1, poll=False)
            see(world, "db1", **db1)
            see(world, "db2")
            see(world, "db3")

    look(6, server_id="id-db2", server_name="db2")
    world.order("ack", incident=world.cluster.incidents[0].id)  # db1 still leads to db2's server
    look(3, **gone)
    assert doubts(world) == {}
    assert world.cluster.nodes["db1"].server_id is None
    assert world.cluster.nodes["db2"].server_id == "id-db2"
