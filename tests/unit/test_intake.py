"""A request's form, from any door."""

import pytest

from saltext_selfheal import intake
from saltext_selfheal.healing.model import Verb


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
        "bus:abc",
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


def test_a_command_is_of_who_gives_it_and_has_an_id_of_its_own():
    one, other = (intake.command(Verb.RESUME, by="root") for _ in range(2))
    assert (one.by, one.cluster, one.reason) == ("root", None, "")
    assert one.id != other.id


def test_a_command_holds_only_text_that_can_be_stored():
    command = intake.command(Verb.PAUSE, by="\udcff" + "x" * 200, for_s=1.0, reason="\udcff" * 1000)
    assert len(command.by) == 100
    assert "cut from" in command.reason
    assert (command.by + command.reason).encode()


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        (Verb.EXPLAIN, {}), (Verb.EXPLAIN, {"cluster": "a*"}), (Verb.EXPLAIN, {"cluster": "runbook", "nodes": 5}),
        (Verb.LOCK, {"reason": "x"}), (Verb.LOCK, {"cluster": "runbook"}), (Verb.LOCK, {"cluster": "", "reason": "x"}),
        (Verb.PAUSE, {"for_s": 60.0}), (Verb.PAUSE, {"reason": "x"}), (Verb.PAUSE, {"reason": "x", "for_s": -1.0}),
        (Verb.PAUSE, {"reason": "x", "for_s": float("nan")}), (Verb.PAUSE, {"reason": "x", "for_s": 31 * 86400.0}),
        (Verb.ACK, {}), (Verb.ACK, {"incident": "runbook"}), (Verb.APPROVE, {"incident": 7}),
        (Verb.REJECT, {"incident": "x" * 100 + "-1"}), (Verb.REJECT, {"incident": "run*book-1"}),
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_command_is_refused_with_what_is_allowed(verb, given):
    with pytest.raises(intake.BadRequest, match="allowed"):
        intake.command(verb, by="root", **given)
