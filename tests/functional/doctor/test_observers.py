"""Whether the observers' quorum can be reached."""

from copy import deepcopy
from pathlib import Path
from unittest import mock

import pytest
import salt.client

from saltext_selfheal.loop.minions import Keys, Reader, Reading
from tests.functional.doctor.conftest import KEY, lines, says

DOWN = {"well": False, "fault": "dead", "ours": False, "evidence": "refused", "addresses": ["x"]}


@pytest.fixture
def opts(opts):
    opts["engines"] = deepcopy(opts["engines"])
    opts["engines"][1]["selfheal"]["clusters"]["runbook"]["observers"] = {"minions": "app*"}
    for name in ("app1", "app2", "app3", "web1"):
        (Path(opts["pki_dir"]) / "minions" / name).write_text(KEY)
    return opts


@pytest.fixture
def connected(monkeypatch):
    """The observers that Salt finds connected: to be filled."""
    there: list[str] = []

    def read(self, minions):
        return Reading(Keys({}, True), {m: frozenset({"x"}) for m in minions if m in there})

    monkeypatch.setattr(Reader, "__call__", read)
    return there


@pytest.fixture
def told(monkeypatch):
    """What the observers say: to be filled."""
    said: dict[str, object] = {}
    client = mock.MagicMock()
    client.return_value.__enter__.return_value.cmd.side_effect = lambda *_, **__: said
    monkeypatch.setattr(salt.client, "LocalClient", client)
    return said


def test_enough_that_are_connected(opts, connected):
    connected += ["app1", "app2"]
    assert lines("observers", opts) == [
        "ok    observers: runbook: 3 named, 2 found connected: quorum 2 can be reached"
    ]


def test_too_few_that_are_connected_are_a_warning(opts, connected):
    connected += ["app2"]
    found = lines("observers", opts)
    says(found, "warn", "runbook: 3 named, 1 found connected: quorum 2 cannot be reached now")
    assert "salt -L app1,app2,app3 test.ping" in found[0]


def test_where_connections_tell_nothing_the_keys_count(opts, connected):
    opts["minion_data_cache"] = False
    says(lines("observers", opts), "ok", "3 named, 3 found connected: quorum 2 can be reached")


@pytest.mark.parametrize(("keys", "counts"), [((), "0 named"), (("app1",), "1 named")])
def test_too_few_keys_are_a_failure(opts, connected, keys, counts):
    for name in {"app1", "app2", "app3"} - set(keys):
        (Path(opts["pki_dir"]) / "minions" / name).unlink()
    found = lines("observers", opts)
    says(found, "fail", f"runbook: {counts}")
    assert "quorum 2 cannot be reached, and nothing is done about a node" in found[0]


def test_without_observers_there_is_nothing_to_say(opts):
    del opts["engines"][1]["selfheal"]["clusters"]["runbook"]["observers"]
    for check in ("observers", "observers now"):
        says(lines(check, opts), "ok", "no cluster has any")


def test_those_that_answer_are_counted(opts, told):
    told.update(app1=DOWN, app2={**DOWN, "well": True, "fault": None}, app3=DOWN)
    assert lines("observers now", opts) == [
        "ok    observers now: runbook: 3 named, 3 answer: quorum 2 can be reached"
    ]


def test_those_that_do_not_are_named_with_what_to_do(opts, told):
    told.update(app1=DOWN, app3="'selfheal.probe' is not available.")
    found = lines("observers now", opts)
    says(found, "warn", "the observer app2 does not answer")
    says(
        found, "warn", "the observer app3 cannot look at a node: 'selfheal.probe' is not available."
    )
    says(found, "fail", "runbook: 3 named, 1 answers: quorum 2 cannot be reached now")
