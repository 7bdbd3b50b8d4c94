"""What the nodes and the minions say when they are asked now."""

from unittest import mock

import pytest
import salt.client

from saltext_selfheal.doctor import checks, live, servers
from tests.functional.doctor.conftest import lines, says

SOUND = {"test.version": "3008.4", "service.available": True, "state.show_highstate": {"db": {}}}


@pytest.fixture
def minions(monkeypatch):
    """What the minions say: to be filled."""
    told = {"db1": dict(SOUND), "db2": dict(SOUND)}
    client = mock.MagicMock()
    client.return_value.__enter__.return_value.cmd.side_effect = lambda *_, **__: told
    monkeypatch.setattr(salt.client, "LocalClient", client)
    return told


def test_nodes_that_let_the_healer_in(opts, nodes):
    assert lines("nodes now", opts) == ["ok    nodes now: 2 of 2 nodes let the healer in"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("refuse", "runbook: db2: connection to"),
        ("silent", "runbook: db2: 127.0.0.1"),
        ("garbage", "does not speak as RethinkDB does"),
    ],
)
def test_a_node_that_does_not_is_named_with_its_evidence(opts, nodes, fault, told):
    nodes[1].set_fault(fault)
    found = lines("nodes now", opts)
    says(found, "fail", told)
    says(found, "ok", "1 of 2 nodes let the healer in")


def test_a_password_that_is_refused_points_to_the_settings_and_is_not_told(opts, nodes):
    opts["engines"][0]["selfheal"]["clusters"]["runbook"]["password"] = "not-the-password"
    found = lines("nodes now", opts)
    says(found, "fail", "refuses the login")
    assert "Check user and password" in "\n".join(found)
    assert "not-the-password" not in "\n".join(found)


def test_minions_that_can_do_what_may_be_asked(opts, minions):
    (told,) = lines("minions now", opts)
    assert told.startswith("ok    minions now: runbook: 2 of 2 minions answer, know the service")


@pytest.mark.parametrize(
    ("said", "level", "told"),
    [
        (None, "fail", "the minion db2 does not answer"),
        (False, "fail", "the minion db2 does not answer"),
        ({}, "fail", "the minion db2 does not answer"),
        ({"service.available": False}, "fail", "knows no service 'rethinkdb'"),
        ({"service.available": "'service.available' is not available."}, "fail", "knows no service"),
        ({"state.show_highstate": []}, "warn", "nothing is assigned to the minion db2"),
        ({"state.show_highstate": {}}, "warn", "nothing is assigned to the minion db2"),
        ({"state.show_highstate": ["No matching sls found for 'x' in env 'base'"]}, "fail", "No matching sls"),
        ({"state.show_highstate": "Traceback\n\x1b[2J"}, "fail", "does not compile: Traceback"),
        ({"state.show_highstate": None}, "fail", "does not compile"),
    ],
)  # fmt: skip
def test_a_minion_that_cannot_is_named_with_what_is_to_be_done(opts, minions, said, level, told):
    minions["db2"] = {**SOUND, **said} if said else said
    found = lines("minions now", opts)
    says(found, level, told)
    says(found, "ok", "1 of 2 minions answer")
    assert "\x1b" not in "".join(found)


HAS = {"sys.list_functions": ["selfheal.force_restart", "selfheal.witness"]}
LACKS = {"sys.list_functions": []}


def test_where_a_step_ends_processes_by_force_minions_without_the_package_are_named(opts, minions):
    minions["db1"].update(HAS)
    minions["db2"].update(LACKS)
    found = lines("minions now", opts)
    says(found, "warn", "selfheal.force_restart is not on the minion of db2: the step")
    assert len(found) == 2


@pytest.mark.parametrize("said", [HAS, {"sys.list_functions": "'sys' is not available."}, {}])
def test_one_that_has_it_or_does_not_tell_is_not(opts, minions, said):
    minions["db2"].update(said)
    assert len(lines("minions now", opts)) == 1


def test_nor_is_any_where_no_step_needs_it(opts, minions):
    own = next(one["selfheal"] for one in opts["engines"] if "selfheal" in one)
    own["clusters"]["runbook"]["escalation"] = ["restart", "highstate"]
    minions["db2"].update(LACKS)
    assert len(lines("minions now", opts)) == 1


def test_a_minion_that_is_missing_does_not_answer(opts, minions):
    del minions["db1"]
    says(lines("minions now", opts), "fail", "the minion db1 does not answer")


def test_only_who_wants_it_has_them_asked(opts, engine, nodes, minions):
    without = [str(f) for f in checks.examine(opts)]
    assert "not looked at: whether each node lets the healer in now" in without[-1]
    assert not [line for line in without if " now: 2 of 2" in line]
    asked = [str(f) for f in checks.examine(opts, live=True)]
    assert [line for line in asked if "2 of 2 nodes let the healer in" in line]
    assert not [line for line in asked if "not looked at" in line]


def test_salt_takes_no_time_but_a_whole_number():
    """A float would be ignored, and the jobs would wait for Salt's own timeout (3006 to 3008)."""
    assert isinstance(live.MINIONS_WITHIN_S, int)
    assert isinstance(servers.NETSTAT_WITHIN_S, int)
    client = mock.Mock(opts={"timeout": 5})
    for within_s in (live.MINIONS_WITHIN_S, servers.NETSTAT_WITHIN_S):
        assert salt.client.LocalClient._get_timeout(client, within_s) == within_s
