"""An operator's roll, over the real core in virtual time: minions that run jobs, and whatever happens meanwhile."""

from types import SimpleNamespace

import pytest

from saltext_selfheal.console import desk, history, rolling, status
from saltext_selfheal.doors.arguments import BadRequest
from saltext_selfheal.healing.events import Door, Request, Requested
from saltext_selfheal.healing.explain import explain
from saltext_selfheal.healing.model import Announce, Answer, Fault, Fire, Mode, Phase
from tests.unit.world import NODES, World, policy, table


class Site(World):
    """A cluster whose minions restart its nodes within two seconds, and what a roll sees of it."""

    restart_s = 2.0
    dies = ()  #: nodes that do not come back from a restart
    ready = True  #: whether the tables' replicas are
    replicas = NODES
    asks = 0

    def __init__(self, *policies):
        super().__init__(*policies)
        self.heard, self.meanwhile, self.down_at = [], {}, None
        self.warm()
        self.sleep(3)

    # ------------------------------------------------------------ what happens

    def sleep(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.pass_time(min(1.0, end - self.now), poll=False)
            self._work()
            self.poll()
            replicas = dict.fromkeys(self.replicas, True) | {"db3": self.ready}
            self.look(tables=(table(ready=replicas),))
            for when in [w for w in self.meanwhile if self.now - self.began >= w]:
                self.meanwhile.pop(when)()

    def _work(self):
        attempt = self.cluster.attempt
        if attempt is None or attempt.results:
            return
        if self.down_at is None:
            self.publish()
            self.break_(*attempt.nodes)
            self.down_at = self.now
        elif self.now - self.down_at >= self.restart_s:
            self.mend(*set(attempt.nodes) - set(self.dies))
            self.down_at = None
            self.returns()

    # ------------------------------------------------------------ the office

    def cluster_status(self):
        return status._cluster(self.state.policies["runbook"], self.cluster, self.now)

    def office(self):
        return SimpleNamespace(
            cluster=self.cluster_status,
            explained=lambda node: explain(self.state, "runbook", (node,), self.now),
            ask=self.asked,
            fate=self.fate,
            withdraw=lambda incident, why: self.order("reject", incident=incident, reason=why),
        )

    def asked(self, node, place):
        self.asks += 1
        name = f"r{self.asks}"
        request = Request(name, "runbook", self.action, (node,), place, Door.FORCE, "ann", True)
        self.step(Requested(request))
        told = self._told(name)
        return desk.Answered("request", told.reply.value, told.why, name, told.incident)

    def _told(self, request):
        return next(
            e for e in reversed(self.effects) if isinstance(e, Answer) and e.request.id == request
        )

    def fate(self, request):
        answer = self._told(request)
        told = desk.Answered("request", answer.reply.value, answer.why, request, answer.incident)
        said = [
            e for e in self.effects if isinstance(e, Announce) and e.incident.id == answer.incident
        ]
        if not said:
            return history.Fate(told)
        last = said[-1]
        over = last.incident.phase in (Phase.RESOLVED, Phase.ACKNOWLEDGED)
        audit = [SimpleNamespace(row={"rule": e.rule}) for e in said]
        whole = SimpleNamespace(
            id=answer.incident,
            phase=last.incident.phase.value,
            why=last.why,
            ended_at=self.now if over else None,
            audit=audit,
        )
        return history.Fate(told, whole)

    def decided_at(self, action):
        """When the first attempt of this action was decided."""
        fired = (e.attempt for e in self.effects if isinstance(e, Fire))
        return next(one.decided_at for one in fired if one.action.value == action)

    def roll(self, action="restart", nodes=NODES, patience_s=600.0, meanwhile=None):
        self.action, self.began, self.meanwhile = action, self.now, dict(meanwhile or {})
        one = rolling.Roll(
            self.office(), action, patience_s, self.heard.append, lambda: self.now, self.sleep
        )
        one.refuse_unready()
        return one.run("runbook", nodes)

    def nothing_comes_later(self):
        before = self.fired
        self.meanwhile = {}
        self.sleep(120)
        return self.fired == before


@pytest.fixture
def site():
    return Site(policy(cooldown_min_s=10.0))


def restarted(site):
    return [nodes for action, nodes in site.fired if action == "restart"]


def test_each_node_has_its_turn_after_the_one_before_is_well(site):
    told = site.roll()
    assert [turn.node for turn in told.done] == list(NODES)
    assert (told.left, told.stopped) == ((), None)
    assert restarted(site) == [("db1",), ("db2",), ("db3",)]
    assert site.heard[0] == "db1 (1 of 3): restart asked for"
    assert site.heard[-1].startswith("db3 (3 of 3): well for 10 s after restart; ")
    assert set(told.told()) == {"cluster", "action", "done", "left", "stopped"}


def test_the_order_of_the_nodes_is_the_operators(site):
    assert [turn.node for turn in site.roll(nodes=("db3", "db1")).done] == ["db3", "db1"]


def test_the_next_waits_until_all_replicas_are_ready_again(site):
    def ready():
        site.ready = True

    site.ready = False
    site.sleep(2)
    told = site.roll(nodes=("db1",), meanwhile={30: ready})
    assert site.heard[0] == ("db1 waits: without db1 runbook.runbook keeps 1 of 3 voting replicas")
    assert told.stopped is None
    assert site.decided_at("restart") - site.began >= 30


def test_the_next_waits_for_replicas_that_the_majority_would_not_miss(site):
    def ready():
        site.ready = True

    site.ready, site.replicas = False, (*NODES, "other1", "other2")
    site.sleep(2)
    told = site.roll(nodes=("db1",), meanwhile={30: ready})
    assert site.heard[0] == "db1 waits: runbook.runbook: db3 is backfilling"
    assert told.stopped is None
    assert site.decided_at("restart") - site.began >= 30


def test_patience_ends(site):
    site.ready = False
    site.sleep(2)
    told = site.roll(patience_s=20.0)
    assert told.stopped.startswith("waited 20 s: ")
    assert told.left == NODES
    assert told.told()["retcode"] == 1
    assert restarted(site) == []


def test_it_stops_at_a_node_that_does_not_come_back(site):
    site.dies = ("db2",)
    told = site.roll()
    assert [turn.node for turn in told.done] == ["db1"]
    assert told.left == ("db2", "db3")
    assert "locked" in told.stopped or "is open" in told.stopped
    assert ("db3",) not in restarted(site)
    site.nothing_comes_later()
    assert ("db3",) not in restarted(site)


def test_what_is_refused_at_a_later_node_keeps_what_was_done(site, monkeypatch):
    """Such as a node that the allow-list `minions` leaves out."""
    asked = site.asked

    def refused_at_db2(node, place):
        if node == "db2":
            raise BadRequest("db2 is not allowed by 'x*'")
        return asked(node, place)

    monkeypatch.setattr(site, "asked", refused_at_db2)
    told = site.roll()
    assert [turn.node for turn in told.done] == ["db1"]
    assert (told.left, told.stopped) == (("db2", "db3"), "db2 is not allowed by 'x*'")


def test_it_stops_when_another_node_falls_ill_and_the_healer_heals_that(site):
    told = site.roll(meanwhile={4: lambda: site.break_("db3")})
    assert told.stopped
    assert len(told.done) <= 1
    site.sleep(200)
    assert ("db2",) not in restarted(site)
    assert ("db3",) in restarted(site)
    assert site.cluster.nodes["db3"].well


def test_a_pause_stops_it_between_two_nodes(site):
    told = site.roll(
        meanwhile={4: lambda: site.order("pause", "runbook", for_s=60.0, reason="a break")}
    )
    assert [turn.node for turn in told.done] == ["db1"]
    assert told.stopped == "paused by ann: a break"
    assert site.nothing_comes_later()


def test_a_reject_stops_it():
    """The second request for a node waits for its cooldown; there a person says no."""
    site = Site(policy(cooldown_min_s=60.0))
    site.roll(nodes=("db1",))

    def no():
        (incident,) = site.cluster.incidents
        site.order("reject", incident=incident.id, reason="not now")

    told = site.roll(nodes=("db1", "db2"), meanwhile={3: no})
    assert told.done == ()
    assert "rejected by ann" in told.stopped
    assert site.nothing_comes_later()


def test_what_waits_when_it_ends_is_taken_back():
    """Ctrl-C while a node's turn has not begun: nothing begins later."""
    site = Site(policy(cooldown_min_s=60.0))
    site.roll(nodes=("db1",))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.roll(nodes=("db1",), meanwhile={3: interrupt})
    assert not site.cluster.incidents
    assert site.nothing_comes_later()


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (lambda s: s.order("pause", "runbook", for_s=60.0, reason="x"), "paused by ann: x"),
        (lambda s: s.order("lock", "runbook", nodes=("db2",), reason="x"), r"runbook-1 is open"),
        (
            lambda s: (s.break_("db2", fault=Fault.HUNG), s.sleep(6)),
            "runbook-1 is open .hung on db2",
        ),
    ],
)
def test_it_does_not_begin_in_trouble(site, trouble, told):
    site.began = site.now
    trouble(site)
    with pytest.raises(rolling.Stop, match=told):
        site.roll()
    assert "restart asked for" not in "\n".join(site.heard)


def test_it_does_not_begin_where_nothing_is_ever_done():
    site = Site(policy(mode=Mode.SHADOW))
    with pytest.raises(rolling.Stop, match="its mode is shadow"):
        site.roll()


def test_without_a_table_map_it_does_not_begin(site, monkeypatch):
    monkeypatch.setattr(site, "look", lambda **_: None)
    site.began = site.now
    site.sleep(70)
    told = site.roll()
    assert told.stopped.startswith("the tables' replicas are not known")
    assert restarted(site) == []
