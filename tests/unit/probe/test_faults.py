"""Each fault from its evidence, against the simulated node; the deadline, whatever the other side does."""

import asyncio
import errno
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.names import Resolver
from saltext_selfheal.probe.node import NodeProbe
from tests.unit.probe.world import SLACK_S, TIMEOUT_S, look, target


def test_a_node_that_is_well_tells_who_it_is(well):
    seen = look(well)
    assert seen.fault is None
    assert (seen.server_id, seen.server_name, seen.version) == (well.id, "db1", "2.4.4")
    assert 0 < seen.latency_s < TIMEOUT_S


@pytest.mark.parametrize(
    ("fault", "options", "verdict", "told"),
    [
        ("refuse", {}, Fault.DEAD, "refused"),
        ("silent", {}, Fault.HUNG, "accepts TCP, but no handshake within 0.5 s"),
        ("stall", {"stall_at": "version"}, Fault.HUNG, "no handshake"),
        ("stall", {"stall_at": "auth_first"}, Fault.HUNG, "no handshake"),
        ("stall", {"stall_at": "auth_final"}, Fault.HUNG, "no handshake"),
        ("stall", {"stall_at": "query"}, Fault.HUNG, "gives no answer within 0.5 s"),
        ("slow", {"byte_delay_s": 0.2}, Fault.HUNG, "no handshake"),
        ("wrong_password", {}, Fault.AUTH, "Wrong password"),
        ("unknown_user", {}, Fault.AUTH, "Unknown user"),
        ("garbage", {}, Fault.ALIEN, 'says "HTTP/1.1 400 Bad Request'),
        (
            "garbage",
            {"endless": True, "bytes": "x" * 4096},
            Fault.ALIEN,
            "does not end its greeting",
        ),
        ("close_on_connect", {}, Fault.ALIEN, "closes the connection in the handshake"),
        ("close_mid_answer", {"at": "version"}, Fault.ALIEN, "and hangs up"),
        ("close_mid_answer", {"at": "query"}, Fault.ALIEN, "closes the connection in the answer"),
        ("reset", {}, Fault.ALIEN, "the connection"),
        ("huge_iterations", {}, Fault.ALIEN, "asks for 20000000 rounds of PBKDF2"),
        ("non_utf8", {"at": "version"}, Fault.ALIEN, 'says "{"padding":'),
        ("non_utf8", {"at": "query"}, Fault.ALIEN, 'answers "{"t":5'),
    ],
)
def test_each_fault_from_its_evidence(well, fault, options, verdict, told):
    well.set_fault(fault, **options)
    seen = look(well)
    assert (seen.fault, seen.ours) == (verdict, False)
    assert told in seen.evidence
    assert f"{well.host}:{well.port}" in seen.evidence
    assert seen.latency_s < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize(
    ("fault", "options", "silent"),
    [
        (None, {}, False),
        ("refuse", {}, True),
        ("silent", {}, True),
        ("stall", {"stall_at": "version"}, True),
        ("stall", {"stall_at": "auth_first"}, False),
        ("stall", {"stall_at": "query"}, False),
        ("wrong_password", {}, False),
        ("garbage", {}, False),
    ],
)
def test_whether_anything_was_heard_in_a_fresh_dial(well, fault, options, silent):
    if fault:
        well.set_fault(fault, **options)
    assert look(well).silent is silent


def test_nothing_is_heard_at_a_name_that_does_not_exist(well):
    assert look(well, address=Address("nosuch.invalid", 28015)).silent


@pytest.mark.parametrize(
    ("fault", "options", "version"),
    [
        ("no_version", {}, None),
        ("server_version", {"version": "2.3.7"}, "2.3.7"),
        ("big_document", {"bytes": 60_000, "at": "query"}, "2.4.4"),
        ("no_permission", {}, "2.4.4"),
        ("hang_system_tables", {}, "2.4.4"),
        ("issue", {}, "2.4.4"),
    ],
)
def test_what_is_no_fault_of_the_node_itself(well, fault, options, version):
    well.set_fault(fault, **options)
    seen = look(well, timeout_s=2.0)
    assert (seen.fault, seen.version) == (None, version)


def test_the_users_own_mistakes_are_the_servers_words(well):
    assert "Wrong password" in look(well, password="other").evidence
    assert "Unknown user" in look(well, user="nobody").evidence


def test_a_name_that_does_not_exist_is_unreachable(well):
    seen = look(well, address=Address("nosuch.invalid", 28015))
    assert (seen.fault, seen.ours) == (Fault.UNREACHABLE, False)
    assert "does not resolve" in seen.evidence


@pytest.mark.parametrize("failure", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT])
def test_no_way_to_the_host_is_unreachable(well, failure, monkeypatch):
    def sock_connect(*_):
        raise OSError(failure, "no way")

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", sock_connect)
    assert look(well).fault is Fault.UNREACHABLE


def test_a_black_hole_is_unreachable_within_the_deadline(monkeypatch, well):
    async def sock_connect(*_):
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", sock_connect)
    seen = look(well)
    assert (seen.fault, "does not answer to TCP" in seen.evidence) == (Fault.UNREACHABLE, True)
    assert seen.latency_s < TIMEOUT_S + SLACK_S


def test_a_master_out_of_file_descriptors_blames_itself(well, monkeypatch):
    def no_more(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", no_more)

    async def go():
        with ThreadPoolExecutor(1) as crypto:
            return await NodeProbe(target(well), Resolver(), crypto).probe()

    # Not by probe_once: the loop needs its own sockets before.
    monkeypatch.undo()
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(socket, "socket", no_more)
    try:
        seen = loop.run_until_complete(go())
    finally:
        monkeypatch.undo()
        loop.close()
    assert seen.ours
    assert "this master cannot open a connection: Too many open files" in seen.evidence
