"""A request's form, from any door."""

import pytest

from saltext_selfheal import intake


def test_a_request_of_a_minion_names_its_asker_as_claimed():
    data = {
        "data": {"action": "restart", "reason": "down", "request": "abc"},
        "id": "app1",
        "cmd": "_minion_event",
    }
    request = intake.from_bus("selfheal/request/runbook", data)
    assert (request.cluster, request.action, request.id, request.door) == (
        "runbook",
        "restart",
        "abc",
        "bus",
    )
    assert request.asker == "app1 (claimed)"


def test_a_request_on_the_bus_may_leave_out_everything_but_the_cluster():
    request = intake.from_bus("selfheal/request/runbook", {})
    assert (request.action, request.nodes, request.asker) == ("highstate", (), "unknown")
    assert request.id


def test_nodes_may_be_a_list_or_words_and_are_kept_once():
    for nodes in (["db1", "db2", "db1"], "db1, db2"):
        assert intake.request("runbook", nodes=nodes, door="x", asker="y").nodes == ("db1", "db2")


def test_a_long_reason_is_cut_and_says_so():
    request = intake.request("runbook", reason="x" * 1_000_000, door="x", asker="y")
    assert request.reason.startswith("x" * 500 + "…")
    assert "cut from 1000000" in request.reason
    assert len(request.reason) < 550


@pytest.mark.parametrize(
    "asked",
    [
        {"cluster": "../etc"}, {"cluster": "run*book"}, {"cluster": ""}, {"cluster": 5}, {"cluster": "x" * 65},
        {"action": ["restart"]}, {"action": None}, {"nodes": {"db1": 1}}, {"nodes": [1]}, {"nodes": ["x" * 256]},
        {"request": "a b"}, {"request": 7}, {"request": "x" * 101},
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_request_is_refused_with_what_is_allowed(asked):
    with pytest.raises(intake.BadRequest, match="allowed"):
        intake.request(**{"cluster": "runbook", "door": "x", "asker": "y", **asked})
