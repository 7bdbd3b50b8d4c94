"""Whatever the other side sends, a probe ends in time with a fault."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_selfheal.driver import wire
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.node import Target, probe_once
from tests.unit.probe.world import OK, SLACK_S, look

JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["success", "authentication", "error", "error_code", "t", "r"]),
        inner,
        max_size=4,
    ),
    max_leaves=10,
).map(lambda value: wire.json.dumps(value).encode() + b"\0")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    says=st.binary(max_size=300)
    | JSONISH
    | JSONISH.map(lambda tail: OK + tail)
    | st.binary(max_size=300).map(lambda tail: OK + tail)
    | st.text(max_size=60).map(
        lambda text: OK
        + wire.json.dumps({"success": True, "authentication": text}).encode()
        + b"\0"
    )
)
def test_no_bytes_make_a_probe_raise_or_hang(babbler, says):
    babbler.says = says
    seen = probe_once(Target("c", "n", babbler.address, timeout_s=1.0))
    assert seen.fault in (Fault.ALIEN, Fault.AUTH, Fault.HUNG)
    assert seen.latency_s < 1.0 + SLACK_S


@pytest.mark.parametrize(
    "answer",
    [
        b"\x01\0\0\0\0\0\0\0\xff\xff\xff\xff",  # announces 4 GiB
        b"\x63\0\0\0\0\0\0\0\x02\0\0\0{}",  # a token that was never used
        b"\x01\0\0\0\0\0\0\0\x02\0\0\0{}",
        b"\x01\0\0\0\0\0\0\0\x02\0\0\0[]",
        b'\x01\0\0\0\0\0\0\0\x0e\0\0\0{"t":5,"r":[]}',
        b'\x01\0\0\0\0\0\0\0\x0f\0\0\0{"t":5,"r":[1]}',
        b'\x01\0\0\0\0\0\0\0\x0f\0\0\0{"t":"x","r":0}',
        b"\x01\0\0\0\0\0\0\0\x00\x20\0\0" + b"[" * 8192,  # too deep for the parser
    ],
)
def test_odd_answers_after_a_good_handshake_are_alien(relay, answer):
    relay.edit = lambda _: [answer]
    assert look(relay).fault is Fault.ALIEN


def test_a_gigabyte_without_a_nul_is_cut_off_early(babbler):
    babbler.says = b"x" * 50_000_000
    seen = probe_once(Target("c", "n", babbler.address, timeout_s=2.0))
    assert seen.fault is Fault.ALIEN
    assert seen.latency_s < 1.0
