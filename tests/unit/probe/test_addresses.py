"""Where a name leads, and that several addresses are one node."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe import names
from saltext_selfheal.probe.names import Resolver
from saltext_selfheal.probe.node import NodeProbe, Target, probe_once
from tests.unit.probe.world import SLACK_S, TIMEOUT_S, look, resolving, target


def test_all_addresses_of_a_name_are_tried(well, monkeypatch):
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # bound but not listening: refused
    refused = (socket.AF_INET, closed.getsockname())
    resolving(monkeypatch, refused, (socket.AF_INET, (well.host, well.port)))
    assert look(well, address=Address("db1.example", well.port)).fault is None
    resolving(monkeypatch, refused, refused)
    assert look(well, address=Address("db1.example", well.port)).fault is Fault.DEAD
    closed.close()


def test_ipv6_addresses_are_dialled():
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    port = listener.getsockname()[1]
    listener.close()
    seen = probe_once(Target("c", "n", Address("::1", port), timeout_s=TIMEOUT_S))
    assert seen.fault is Fault.DEAD
    assert f"[::1]:{port}" in seen.evidence


def test_the_last_good_addresses_serve_while_the_resolver_is_stuck(well, monkeypatch):
    stuck, asked = threading.Event(), []
    address = Address("db1.example", well.port)

    async def go():
        resolver = Resolver()
        with ThreadPoolExecutor(1) as crypto:
            one = NodeProbe(target(well, address=address), resolver, crypto)
            seen = [await one.probe()]
            one.close()
            monkeypatch.setattr(
                socket, "getaddrinfo", lambda *_, **__: asked.append(1) or stuck.wait(10)
            )
            for _ in range(10):
                seen.append(await one.probe())
                one.close()
        stuck.set()
        resolver.close()
        return seen

    resolving(monkeypatch, (socket.AF_INET, (well.host, well.port)))
    seen = asyncio.run(go())
    assert [s.fault for s in seen] == [None] * 11
    assert len(asked) == 1  # ten probes, one question


def test_a_resolver_that_is_stuck_from_the_start_holds_nobody_else(well, monkeypatch):
    stuck = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: stuck.wait(10))

    async def go():
        resolver = Resolver()
        with ThreadPoolExecutor(1) as crypto:
            names = [target(well, address=Address(f"db{n}.example", 1)) for n in range(20)]
            looks = [NodeProbe(t, resolver, crypto) for t in (*names, target(well))]
            seen = await asyncio.gather(*(one.probe() for one in looks))
            for one in looks:
                one.close()
        stuck.set()
        resolver.close()
        return seen

    *named, literal = asyncio.run(go())
    assert literal.fault is None
    assert {s.fault for s in named} == {Fault.UNREACHABLE}
    assert max(s.latency_s for s in named) < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize(
    ("family", "sockaddr", "spelled"),
    [
        (socket.AF_INET, ("10.0.0.11", 28015), "10.0.0.11:28015"),
        (socket.AF_INET6, ("::1", 28015, 0, 0), "[::1]:28015"),
        (socket.AF_INET6, ("2001:DB8::0:1", 1, 0, 0), "[2001:db8::1]:1"),
        (socket.AF_INET6, ("::ffff:10.0.0.11", 28015, 0, 0), "10.0.0.11:28015"),
        (socket.AF_INET6, ("::FFFF:0A00:000B", 28015, 0, 0), "10.0.0.11:28015"),
        (socket.AF_INET6, ("fe80::1%lo", 28015, 0, 1), "[fe80::1%1]:28015"),
        (socket.AF_INET6, ("fe80::1", 28015, 0, 3), "[fe80::1%3]:28015"),
        (socket.AF_INET, ("0.0.0.0", 28015), "127.0.0.1:28015"),
        (socket.AF_INET6, ("::", 28015, 0, 0), "[::1]:28015"),
    ],
)
def test_addresses_are_told_in_one_spelling(family, sockaddr, spelled):
    assert names.told([(family, sockaddr), (family, sockaddr)]) == (spelled,)


def test_a_resolver_that_turns_the_addresses_round_tells_nothing_new():
    rows = [(socket.AF_INET, (f"10.0.0.{n}", 28015)) for n in (3, 1, 2)]
    assert names.told(rows) == names.told(rows[::-1]) == names.told(rows + rows)


def test_every_dial_tells_where_the_name_led_also_when_it_failed(well, monkeypatch):
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    rows = [(socket.AF_INET, closed.getsockname()), (socket.AF_INET, (well.host, well.port))]
    both = tuple(sorted(f"127.0.0.1:{row[1][1]}" for row in rows))
    address = Address("db1.example", well.port)
    resolving(monkeypatch, *rows)
    assert look(well, address=address).addresses == both
    resolving(monkeypatch, rows[0])
    seen = look(well, address=address)
    assert (seen.fault, seen.addresses) == (Fault.DEAD, (f"127.0.0.1:{closed.getsockname()[1]}",))
    closed.close()

    def nowhere(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert look(well, address=address).addresses == ()


def test_a_zone_may_be_given_by_number():
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    listener.close()

    def sockaddr(host):
        ((_, found),), _ = asyncio.run(Resolver().resolve(Address(host), TIMEOUT_S))
        return found

    assert sockaddr("fe80::1%1") == ("fe80::1", 28015, 0, 1)
    assert sockaddr("fe80::1%lo")[3] == socket.if_nametoindex("lo")
    seen = probe_once(Target("c", "n", Address("fe80::1%nosuch", 1), timeout_s=TIMEOUT_S))
    assert (seen.ours, "this master cannot look" in seen.evidence) == (True, True)
