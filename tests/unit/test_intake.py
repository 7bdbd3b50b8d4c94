"""A request's form, from any door."""

import pytest

from saltext_selfheal.doors import bus, forms
from saltext_selfheal.healing.events import Door, Verb


def test_a_request_of_a_minion_names_its_asker_as_claimed():
    data = {
        "data": {"action": "restart", "reason": "down", "request": "abc"},
        "id": "app1",
        "cmd": "_minion_event",
    }
    request = bus.from_bus("selfheal/request/runbook", data)
    assert (request.cluster, request.action, request.id, request.door) == (
        "runbook",
        "restart",
        "bus:abc",
        "bus",
    )
    assert request.asker == "app1 (claimed)"


@pytest.mark.parametrize("name", ["x" * 1000, "\udcff" * 1000, "\n" * 1000])
def test_however_long_the_claimed_name_is_it_is_called_claimed(name):
    asker = bus.from_bus("selfheal/request/runbook", {"id": name}).asker
    assert asker.endswith(" (claimed)")
    assert len(asker) <= forms.MAX_ASKER


@pytest.mark.parametrize("inner", [True, False])
def test_nobody_forces_by_the_bus(inner):
    body = {"action": "restart", "forced": True, "door": "force", "asker": "root"}
    with pytest.raises(
        forms.BadRequest, match="found 'forced', 'door', 'asker', which is not known here"
    ):
        bus.from_bus("selfheal/request/runbook", {"data": body} if inner else body)
    request = bus.from_bus("selfheal/request/runbook", {"action": "restart"})
    assert (request.forced, request.door, request.asker) == (False, "bus", "unknown")


@pytest.mark.parametrize(
    "body",
    [
        {"node": ["db2"]}, {"Action": "start"}, {"actions": "start"}, {"nodes ": ["db2"]}, {"n\u043edes": ["db2"]},
        {"kwarg": {"nodes": ["db2"]}}, {"arg": ["db2"]}, {1: "db2"}, {"": "db2"}, {"data": {"node": "db2"}},
        {"data": {"action": "start"}, "nodes": ["db2"]}, {"data": {"data": {"nodes": ["db2"]}}}, {"cluster": "other"},
    ],
)  # fmt: skip
def test_what_an_event_says_and_nobody_knows_widens_nothing(body):
    with pytest.raises(forms.BadRequest, match="which is not known here; allowed: "):
        bus.from_bus("selfheal/request/runbook", body)


def test_a_request_on_the_bus_may_leave_out_everything_but_the_cluster():
    request = bus.from_bus("selfheal/request/runbook", {})
    assert (request.action, request.nodes, request.asker) == ("highstate", (), "unknown")
    assert request.id


def test_nodes_may_be_a_list_or_words_and_are_kept_once():
    for nodes in (["db1", "db2", "db1"], "db1, db2"):
        assert forms.request("runbook", nodes=nodes, door=Door.RUNNER, asker="y").nodes == (
            "db1",
            "db2",
        )


def test_a_node_is_a_name_that_can_be_stored():
    (name,) = forms.request("runbook", nodes=["db\udcff\n"], door=Door.RUNNER, asker="y").nodes
    assert name == "db\\udcff "


EMPTY = [[], (), [""], [" "], "", ",", " , "]


@pytest.mark.parametrize("nodes", EMPTY)
def test_nodes_that_came_out_empty_are_not_all_of_them(nodes):
    told = "nodes: found .+; allowed: minion ids, at least one"
    with pytest.raises(forms.BadRequest, match=told):
        forms.request("runbook", nodes=nodes, door=Door.RUNNER, asker="y")
    with pytest.raises(forms.BadRequest, match=told):
        bus.from_bus("selfheal/request/runbook", {"data": {"nodes": nodes}})
    for verb in (Verb.LOCK, Verb.EXPLAIN):
        with pytest.raises(forms.BadRequest, match=told):
            forms.command(verb, by="root", cluster="runbook", nodes=nodes, reason="x")


def test_nodes_that_are_left_out_are_all_of_them():
    assert forms.request("runbook", nodes=None, door=Door.RUNNER, asker="y").nodes == ()


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_that_python_does_not_print_is_refused_in_words_all_the_same(digits):
    with pytest.raises(forms.BadRequest, match="nodes: found a number of more than 77 digits"):
        forms.request("runbook", nodes=10**digits, door=Door.RUNNER, asker="y")


def test_as_many_nodes_as_are_allowed_are_taken():
    most = [f"{n:064}" for n in range(forms.MAX_NODES)]
    assert forms.request("runbook", nodes=most, door=Door.RUNNER, asker="y").nodes == tuple(most)


class Uncounted(str):
    """A text that is not to be taken apart."""

    def split(self, *_):
        """Nobody may."""
        raise AssertionError


def test_nodes_that_are_too_long_are_refused_before_they_are_taken_apart():
    with pytest.raises(forms.BadRequest, match="nodes: found 'a,a,"):
        forms.request("runbook", nodes=Uncounted("a," * 500_000), door=Door.RUNNER, asker="y")


FORGED = "up\n2026-01-01 [CRITICAL] all is lost \x1b[2J\x9b1m\r\x00\u2028\u2029\u202e\u2066\x7f"


def test_what_anybody_says_is_one_line_without_controls():
    request = forms.request("runbook", FORGED[:40], reason=FORGED, door=Door.RUNNER, asker=FORGED)
    order = forms.command(Verb.RESUME, by=FORGED, reason=FORGED)
    for text in (request.action, request.reason, request.asker, order.by, order.reason):
        assert text.isprintable()
        assert text.startswith("up 2026-01-01 [CRITICAL]")


def test_an_asker_is_text_that_can_be_stored_and_not_too_long():
    for name in ("x" * 1000, "\udcff" * 1000):
        asker = forms.request("runbook", door=Door.RUNNER, asker=name).asker
        assert len(asker.encode()) == forms.MAX_ASKER


@pytest.mark.parametrize(("given", "kept"), [(None, ""), (7, "7"), (0.5, "0.5"), (True, "True")])
def test_a_reason_may_be_a_number_or_nothing(given, kept):
    assert forms.request("runbook", reason=given, door=Door.RUNNER, asker="y").reason == kept


@pytest.mark.parametrize(
    "reason", ["x" * 501, "x" * 1000, "x" * 1001, "x" * 40_000, "\udcff" * 1001]
)
def test_a_reason_that_was_cut_on_a_minion_is_not_cut_again(reason):
    once = forms.request("runbook", reason=reason, door=Door.MINION, asker="app1").reason
    assert once.endswith(f"… (cut from {len(reason)} characters)")
    assert bus.from_bus("selfheal/request/runbook", {"reason": once}).reason == once


def test_what_looks_as_if_it_had_been_cut_is_no_longer_than_what_was():
    forged = "\udcff" * forms.MAX_REASON + "… (cut from 7 characters)"
    assert len(forms.request("runbook", reason=forged, door=Door.RUNNER, asker="y").reason) < 550


def test_a_long_reason_is_cut_and_says_so():
    request = forms.request("runbook", reason="x" * 1_000_000, door=Door.RUNNER, asker="y")
    assert request.reason.startswith("x" * 500 + "…")
    assert "cut from 1000000" in request.reason
    assert len(request.reason) < 550


@pytest.mark.parametrize(
    "asked",
    [
        {"cluster": "../etc"}, {"cluster": "run*book"}, {"cluster": ""}, {"cluster": 5}, {"cluster": "x" * 65},
        {"action": ["restart"]}, {"action": None}, {"nodes": {"db1": 1}}, {"nodes": [1]}, {"nodes": ["x" * 256]},
        {"nodes": ["x"] * 65}, {"nodes": "x," * 65}, {"nodes": ["x" * 200] * 21}, {"nodes": "x" * 4097},
        {"reason": ["x"]}, {"reason": {"x": 1}}, {"reason": b"x"},
        {"request": "a b"}, {"request": 7}, {"request": "x" * 101},
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_request_is_refused_with_what_is_allowed(asked):
    with pytest.raises(forms.BadRequest, match="allowed"):
        forms.request(**{"cluster": "runbook", "door": Door.RUNNER, "asker": "y", **asked})


class Loud(list):
    """It takes long to print this."""

    def __repr__(self):
        """Nobody may."""
        raise AssertionError


@pytest.mark.parametrize("what", ["cluster", "action", "nodes", "request", "reason"])
def test_what_is_refused_is_not_printed_whole(what):
    for found, shown in ((Loud(["x"] * 100), "a Loud"), ("?" * 1_000_000, "'" + "?" * 79)):
        if what != "reason" or isinstance(found, Loud):
            with pytest.raises(forms.BadRequest) as refused:
                forms.request(**{"cluster": "runbook", "door": "x", "asker": "y", what: found})
            assert str(refused.value).startswith(f"{what}: found {shown}; allowed: ")


def test_a_command_is_of_who_gives_it_and_has_an_id_of_its_own():
    one, other = (forms.command(Verb.RESUME, by="root") for _ in range(2))
    assert (one.by, one.cluster, one.reason) == ("root", None, "")
    assert one.id != other.id


def test_a_command_holds_only_text_that_can_be_stored():
    command = forms.command(Verb.PAUSE, by="\udcff" + "x" * 200, for_s=1.0, reason="\udcff" * 1000)
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
        (Verb.APPROVE, {"incident": "runbook-\N{SUPERSCRIPT TWO}"}), (Verb.APPROVE, {"incident": "runbook-1.1"}),
        (Verb.REJECT, {"incident": "x" * 100 + "-1"}), (Verb.REJECT, {"incident": "run*book-1"}),
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_command_is_refused_with_what_is_allowed(verb, given):
    with pytest.raises(forms.BadRequest, match="allowed"):
        forms.command(verb, by="root", **given)
