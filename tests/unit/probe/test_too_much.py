"""Answers that are too large hold nobody up."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_selfheal.driver import answer, wire
from saltext_selfheal.healing.events import Observed, Viewed, ViewStatus
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.tables import ViewPlan
from tests.lab.simulated import SimulatedNode
from tests.lab.watching import Watching
from tests.unit.probe.world import is_fault, is_view, known, look, target


@pytest.mark.parametrize("shape", ["documents", "lists", "text", "deep", "number", "blank"])
@pytest.mark.parametrize("size", [70_000, 9_000_000])
def test_more_than_an_answer_is_alien(well, shape, size):
    well.set_fault("huge_answer", to="server_info", shape=shape, bytes=size)
    seen = look(well, timeout_s=2.0)
    assert (seen.fault, seen.ours) == (Fault.ALIEN, False)
    assert "announces an answer of" in seen.evidence
    assert seen.latency_s < 1.5


@pytest.mark.parametrize("shape", ["documents", "lists", "text", "deep", "number", "blank"])
@pytest.mark.parametrize("size", [400_000, 7_000_000, 60_000_000])
def test_no_table_holds_up_the_others(shape, size):
    with (
        SimulatedNode(name="db1", password="secret") as hostile,
        SimulatedNode(name="db2", password="secret") as other,
    ):
        hostile.set_fault("huge_answer", shape=shape, bytes=size)
        plans = {"runbook": ViewPlan(every_s=0.1, timeout_s=10.0)}
        with Watching(
            target(hostile, timeout_s=5.0),
            target(other, node="db2", cluster="other", timeout_s=5.0),
            plans=plans,
        ) as watching:
            _, event = watching.wait(lambda e: isinstance(e, Viewed), timeout_s=30.0)
            watching.wait(is_fault(None, "db2"))
    why = event.view.why
    odd = event.view.status is ViewStatus.UNKNOWN and "oddly: " in why and "Error" not in why
    assert odd or (shape in ("documents", "blank") and known(event.view))
    faults = {e.observation.fault for _, e in watching.seen if isinstance(e, Observed)}
    assert faults <= {None, Fault.ALIEN}


def parsed(body, keep=lambda row: row):
    async def go():
        return await answer.leisurely(answer.in_pieces(body, keep), asyncio.Lock())

    return asyncio.run(go())


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.integers() | st.text(max_size=9) | st.lists(st.floats(allow_nan=False)),
        )
        | st.text(max_size=5),
        max_size=8,
    ),
    blank=st.sampled_from(["", " ", "\n\t "]),
    slice_bytes=st.integers(1, 40),
)
def test_an_answer_in_pieces_is_the_answer_at_once(rows, blank, slice_bytes):
    text = wire.json.dumps({"t": 2, "n": [], "r": rows, "e": 5}, ensure_ascii=False)
    body = (blank + text.replace(", ", f"{blank},{blank}") + blank).encode()
    before = answer.AT_ONCE_BYTES
    answer.AT_ONCE_BYTES = slice_bytes
    try:
        try:
            whole = answer.at_once(body)
        except answer.Alien:
            whole = None  # a comma inside of a text was changed into something else
        assert whole is None or parsed(body) == whole
    finally:
        answer.AT_ONCE_BYTES = before


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"nul", b'{"t":2}', b'{"r":[]}', b'{"t":2,"r":{}}', b'{"t":2,"r":[1}', b'{"t":2,"r":[1,]}',
        b'{"t":2,"r":[]', b'{"t":2,"r":[]}x', b'{"t":2,"r":[{]}', b'{"t" 2,"r":[]}', b'{"t":2,"r":["\xff"]}',
        b'{"t":2,"r":[' + b"9" * 9000 + b"]}",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_alien_in_pieces_too(body):
    with pytest.raises(answer.Alien):
        parsed(body)
    with pytest.raises(answer.Alien):
        answer.at_once(body)


def test_an_answer_that_comes_too_late_is_passed_over(well):
    """A view that was given up: its answer, in whatever size, is nobody's any more."""
    well.set_fault("slow", delay_s=0.2)
    before = well.dials
    plan = {"runbook": ViewPlan(every_s=0.05, timeout_s=0.1)}
    with Watching(target(well, timeout_s=5.0, redial_s=1000.0), plans=plan) as watching:
        for _ in range(3):
            watching.wait(is_view(lambda v: v.status is ViewStatus.UNKNOWN))
        watching.wait(is_fault(None))
    assert {e.observation.fault for _, e in watching.seen if isinstance(e, Observed)} == {None}
    assert well.dials == before + 1  # the connection goes on


def test_an_answer_given_twice_ends_the_connection(well, relay):
    frame = b"\x01\0\0\0\0\0\0\0\x02\0\0\0{}"
    relay.edit = lambda data: [data + frame]
    before = well.dials
    with Watching(target(relay)) as watching:
        watching.wait(is_fault(None))
        assert well.wait_for(lambda: well.dials > before + 3)
