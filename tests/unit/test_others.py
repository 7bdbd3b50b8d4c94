"""Which job events of the master are somebody's work on a node, and what is made of them."""

import pytest

from saltext_selfheal import config
from saltext_selfheal.config import ConfigError
from saltext_selfheal.driver.functions import changing
from saltext_selfheal.healing.events import Foreign
from saltext_selfheal.loop import foreign
from saltext_selfheal.loop.foreign import FLOW, Others

JID = "20261127190000000001"
NODES = {"runbook": ("db1", "db2"), "other": ("x1",)}
TEST = [{"test": True, "__kwarg__": True}]


@pytest.mark.parametrize(
    ("fun", "arg", "found"),
    [
        ("state.highstate", [], "state.highstate"),
        ("state.apply", ["rethinkdb"], "state.apply"),
        ("state.sls", [{"mods": "a", "test": False, "__kwarg__": True}], "state.sls"),
        ("service.restart", ["rethinkdb"], "service.restart"),
        ("pkg.install", ["rethinkdb"], "pkg.install"),
        (["test.ping", "service.stop", "pkg.version"], [[], ["a"], ["b"]], "service.stop"),
        (["state.sls", "service.stop"], [TEST, ["a"]], "service.stop"),
        (["state.sls", "service.stop"], [], "state.sls, service.stop"),
        ("state.highstate", None, "state.highstate"),
        ("selfheal.force_restart", ["rethinkdb", 28015], "selfheal.force_restart"),
        ("selfheal.witness", ["rethinkdb", 28015], ""),
        ("pkg.install", TEST, "pkg.install"),
        # what only reads
        ("state.highstate", TEST, ""),
        ("state.highstate", ["test=True"], ""),
        ("state.highstate", [{"test": "true"}], ""),
        ("state.test", ["a"], ""),
        ("state.show_sls", ["a"], ""),
        ("state.show_highstate", [], ""),
        ("state.running", [], ""),
        ("service.status", ["rethinkdb"], ""),
        ("service.available", ["rethinkdb"], ""),
        ("pkg.version", ["rethinkdb"], ""),
        ("pkg.list_pkgs", [], ""),
        ("pkg.list_upgrades", [], ""),
        ("pkg.info_installed", [], ""),
        # what is none of these
        ("test.ping", [], ""),
        ("cmd.run", ["reboot"], ""),
        ("states.highstate", [], ""),
        ("state.", [], ""),
        ("state", [], ""),
        ("", [], ""),
        # and what is nothing
        (None, None, ""),
        (7, 7, ""),
        ({"state.highstate": 1}, [], ""),
        ([None, 7, ["state.sls"]], [], ""),
        ("state." + "x" * (10 << 20), [], ""),
        (["state.sls"] * 1_000_000, [], ", ".join(["state.sls"] * 9) + ", s"),
    ],
)
def test_which_functions_change_something(fun, arg, found):
    assert changing(fun, arg) == found


def new(**changes):
    data = {
        "jid": JID, "tgt": "*", "tgt_type": "glob", "fun": "state.highstate", "arg": [], "user": "ann",
        "minions": ["web1", "db2", "db1", "x1", "db2"],
    }  # fmt: skip
    return f"salt/job/{JID}/new", {**data, **changes}


def ret(**changes):
    data = {
        "jid": JID,
        "id": "db2",
        "fun": "state.highstate",
        "fun_args": [],
        "return": {},
        "retcode": 0,
    }
    return f"salt/job/{JID}/ret/db2", {**data, **changes}


def test_a_job_is_told_by_cluster_and_only_of_its_nodes():
    assert Others(NODES).take(*new()) == [
        Foreign("runbook", JID, "state.highstate", "ann", ("db2", "db1")),
        Foreign("other", JID, "state.highstate", "ann", ("x1",)),
    ]


def test_a_job_ends_on_each_minion_that_returns():
    assert Others(NODES).take(*ret()) == [
        Foreign("runbook", JID, "state.highstate", nodes=("db2",), ended=True)
    ]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ODD = [None, 7, float("nan"), True, {}, [], nested(1000), "x" * (10 << 20), b"x", {"a": object()}]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("key", ["jid", "fun", "arg", "user", "minions", "id"])
def test_anything_may_stand_in_an_event(key, odd, caplog):
    others = Others(NODES)
    for tag, data in (new(**{key: odd}), ret(**{key: odd})):
        for news in others.take(tag, data):
            assert isinstance(news.by, str) and len(news.by) <= 60
            assert len(news.jid) <= 64 and len(news.function) <= 100
            assert news.function == "state.highstate"
    assert caplog.text == ""


def test_names_that_are_no_text_are_passed_over_and_a_long_list_is_cut():
    odd = [{}, None, 7, ["db1"], "db1"]
    assert Others(NODES).take(*new(minions=odd))[0].nodes == ("db1",)
    assert Others(NODES).take(*new(minions=["x"] * foreign.MOST_MINIONS + ["db1"])) == []


def test_jobs_elsewhere_and_jobs_that_only_read_are_nothing():
    others = Others(NODES)
    assert others.take(*new(minions=["web1"])) == []
    assert others.take(*new(fun="service.status")) == []
    assert others.take(*ret(id="web1")) == []
    assert others.take(*ret(fun="pkg.version")) == []
    assert others.take(f"salt/job/{JID}/new", {}) == []


def test_a_flood_is_cut_and_told_once_without_what_was_in_it(caplog):
    now = [0.0]
    others = Others(NODES, lambda: now[0])
    taken = sum(bool(others.take(*new(jid=f"secret{n}"))) for n in range(FLOW.at_once + 500))
    assert taken == FLOW.at_once
    assert others.take(*ret()) != []  # what ends has a flow of its own
    assert [r.message for r in caplog.records] == [
        "selfheal: events of other people's jobs were dropped: too many at once"
    ]
    now[0] = 1.0
    assert others.take(*new()) != []


def test_nobody_listens_where_nobody_is_waited_for():
    assert Others(NODES).listens
    assert not Others({}).listens


# ---------------------------------------------------------------- settings


def cluster(value):
    given = {"minions": "*", "nodes": {"db1": "h"}, "foreign": value}
    loaded = config.load({"engines": [{"selfheal": {"clusters": {"runbook": given}}}]})
    return loaded.policies()["runbook"]


@pytest.mark.parametrize(
    ("value", "grace_s", "most_s"),
    [
        ({}, 30.0, 900.0),
        ({"grace": "10s"}, 10.0, 900.0),
        ({"grace": "off", "most": "1h"}, 0.0, 3600.0),
        ({"most": "off"}, 30.0, 0.0),
        ("off", 30.0, 0.0),
        (False, 30.0, 0.0),
    ],
)
def test_the_settings_say_how_long_others_are_waited_for(value, grace_s, most_s):
    policy = cluster(value)
    assert (policy.foreign_grace_s, policy.foreign_most_s) == (grace_s, most_s)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"grace": -1}, "clusters.runbook.foreign.grace"),
        ({"most": "10ms"}, "clusters.runbook.foreign.most"),
        ({"most": None}, "clusters.runbook.foreign.most"),
        ({"least": 1}, "clusters.runbook.foreign.least"),
        ("5m", "clusters.runbook.foreign"),
        ([], "clusters.runbook.foreign"),
        (True, "clusters.runbook.foreign"),
    ],
)
def test_a_mistake_in_them_is_one_clear_error(value, path):
    with pytest.raises(ConfigError) as caught:
        cluster(value)
    (problem,) = caught.value.problems
    assert f"{path}:" in str(problem) and "allowed" in str(problem)
