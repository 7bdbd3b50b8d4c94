"""Connecting through outages: which host when, how long, and what ends it; most of it in virtual time."""

import asyncio
import threading
import time
from unittest import mock

import pytest
import trustme
from rethinkdb.errors import ReqlDriverError

from saltext_selfheal import app
from saltext_selfheal.app import Failure, connecting, dial, failures
from saltext_selfheal.app import names as resolving
from saltext_selfheal.app import settings
from saltext_selfheal.driver.address import Address
from saltext_selfheal.driver.causes import Stage
from tests.lab import article
from tests.lab.simulated import SimulatedNode
from tests.unit.app.world import (
    BOTH,
    SLACK_S,
    TIMEOUT_S,
    SoftLimit,
    aconnect,
    connect,
    r,
    signalled,
)


def test_it_gives_a_connection_of_the_official_driver(well):
    attempts = []
    conn = connect(well, on_attempt=attempts.append)
    assert r.expr([1, 2]).run(conn) == [1, 2]
    assert conn.server()["name"] == "db1"
    (attempt,) = attempts
    assert (attempt.number, attempt.failure, attempt.error) == (1, None, None)
    assert "secret" not in repr(conn) + repr(conn.login) + str(attempt)
    conn.close()


FAULTS = [
    ("refuse", {}, Failure.DEAD),
    ("silent", {}, Failure.HUNG),
    ("stall", {"stall_at": "auth_final"}, Failure.HUNG),
    ("stall", {"stall_at": "query"}, Failure.HUNG),
    ("slow", {"byte_delay_s": 0.2}, Failure.HUNG),
    ("garbage", {}, Failure.ALIEN),
    ("garbage", {"endless": True, "bytes": "x" * 4096}, Failure.ALIEN),
    ("close_on_connect", {}, Failure.DEAD),
    ("close_mid_answer", {"at": "query"}, Failure.DEAD),
    ("reset", {}, Failure.DEAD),
    ("huge_iterations", {}, Failure.ALIEN),
    ("non_utf8", {"at": "version"}, Failure.ALIEN),
]


@pytest.mark.parametrize(("fault", "options", "failure"), FAULTS)
def test_each_failure_is_classified_and_none_holds_it_longer(well, fault, options, failure):
    well.set_fault(fault, **options)
    began = time.monotonic()
    with pytest.raises(app.NotConnected) as caught:
        connect(well)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert caught.value.failure is failure
    assert isinstance(caught.value, ReqlDriverError)


@pytest.mark.parametrize(("fault", "options", "failure"), FAULTS[:9])
def test_asyncio_likewise(well, fault, options, failure):
    well.set_fault(fault, **options)
    began = time.monotonic()
    with pytest.raises(app.NotConnected) as caught:
        asyncio.run(aconnect(well))
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert caught.value.failure is failure


def test_asyncio_connects(well):
    async def go():
        conn = await aconnect(well)
        try:
            return await r.expr(7).run(conn)
        finally:
            await conn.close(False)

    assert asyncio.run(go()) == 7


@pytest.mark.parametrize("fault", ["wrong_password", "unknown_user"])
def test_a_refused_login_is_raised_at_once(well, fault):
    well.set_fault(fault)
    attempts = []
    with pytest.raises(app.LoginRefused) as caught:
        connect(well, deadline=None, on_attempt=attempts.append)
    assert [a.failure for a in attempts] == [Failure.AUTH]
    assert "secret" not in str(caught.value)
    with pytest.raises(app.LoginRefused):
        asyncio.run(aconnect(well, deadline=None))


def test_a_resolver_that_hangs_holds_it_for_one_timeout(monkeypatch):
    release = threading.Event()
    real = resolving.lookup

    def stuck(address, flags=0):
        if flags:
            return real(address, flags)
        release.wait(10)
        return real(address)

    monkeypatch.setattr(resolving, "lookup", stuck)
    began = time.monotonic()
    with pytest.raises(app.NotConnected) as caught:
        app.connect("localhost:1", timeout=0.3, deadline=0.3)
    assert time.monotonic() - began < 0.3 + SLACK_S
    assert caught.value.failure is Failure.UNREACHABLE
    with pytest.raises(app.NotConnected):
        app.connect("localhost:1", timeout=0.3, deadline=0.3)
    asking = [t for t in threading.enumerate() if t.name == "selfheal-name"]
    release.set()
    assert len(asking) == 1


def test_names_that_do_not_exist_are_unreachable():
    with pytest.raises(app.NotConnected) as caught:
        app.connect("nosuch.invalid", timeout=2, deadline=2)
    assert caught.value.failure is Failure.UNREACHABLE


def test_the_hosts_are_tried_in_any_order_and_a_failed_one_rests():
    first, tried = set(), []
    for seed in range(20):
        clock, tried = article.Virtual(seed), []

        def dial_it(address, *_, tried=tried):
            tried.append(address.host)
            if len(tried) < 7:
                raise ConnectionRefusedError
            return address.host

        with mock.patch("saltext_selfheal.app.dial.dial", dial_it):
            app.connect(["a", "b", "c"], timing=clock.timing())
        assert set(tried[:3]) == {"a", "b", "c"}
        first.add(tried[0])
    assert first == {"a", "b", "c"}


@pytest.mark.parametrize(("outage_s", "within_s"), [(20, 1), (59, 1), (3600, 10), (86400, 60)])
def test_a_node_that_comes_back_is_connected_soon(outage_s, within_s):
    for seed in range(10):
        tried, _, connected = article.ours(outage_s, seed)
        assert 0 <= connected - outage_s <= within_s
    assert tried


def outage(clock, hosts, outage_s, timeout_s=5.0):
    """One of the hosts refuses until then; the others take a login and say nothing. (limit of a dial, at) of each."""
    dials = []

    def dial_it(address, _, patience_s, progress):
        dials.append((address.host, patience_s, clock.now))
        if address.host == "back":
            if clock.now < outage_s:
                raise ConnectionRefusedError
            return "connection"
        progress.stage = Stage.HANDSHAKE
        clock.now += patience_s
        raise TimeoutError

    with mock.patch("saltext_selfheal.app.dial.dial", dial_it):
        app.connect(hosts, timeout=timeout_s, timing=clock.timing())
    return dials


@pytest.mark.parametrize("outage_s", [12, 59])
def test_beside_a_host_that_hangs_another_is_connected_as_soon(outage_s):
    for seed in range(50):
        clock = article.Virtual(seed)
        outage(clock, ["back", "hung"], outage_s)
        assert 0 <= clock.now - outage_s <= 1


def test_a_host_that_hangs_has_its_timeout_at_first_and_after_a_minute():
    clock = article.Virtual()
    limits = [
        (at, limit) for host, limit, at in outage(clock, ["hung", "back"], 90) if host == "hung"
    ]
    assert limits[0][1] == 5.0
    assert {limit for at, limit in limits[1:] if at < 60} == {connecting.SILENT_S}
    assert {limit for at, limit in limits if at >= 60} == {5.0}
    assert {limit for _, limit, _ in outage(article.Virtual(), ["hung", "back"], 9, 0.2)} == {0.2}

    limits = []

    def silent(address, _, patience_s, progress):
        limits.append(patience_s)
        if len(limits) > 3:
            return "connection"
        raise TimeoutError

    with mock.patch("saltext_selfheal.app.dial.dial", silent):
        app.connect("alone", timing=article.Virtual().timing())
    assert limits == [5.0] * 4


@BOTH
def test_what_a_signal_raises_ends_connecting(well, connecting):
    well.set_fault("silent")
    limit = SoftLimit()
    with signalled(limit):
        connecting(well, timeout=2, deadline=None)


def test_connections_are_closed_that_come_too_late(well):
    well.set_fault("stall", stall_at="query")
    with pytest.raises(app.NotConnected):
        connect(well)
    assert well.wait_for(lambda: well.connections == 0)
    with pytest.raises(app.NotConnected):
        asyncio.run(aconnect(well))
    assert well.wait_for(lambda: well.connections == 0)


def test_a_stop_event_ends_the_waiting(well):
    well.set_fault("refuse")
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(app.Stopped):
        connect(well, deadline=None, stop=stop)
    assert time.monotonic() - began < 0.2 + SLACK_S

    async def go():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, stop.set)
        await aconnect(well, deadline=None, stop=stop)

    with pytest.raises(app.Stopped):
        asyncio.run(go())


def test_a_callback_that_fails_breaks_nothing(well):
    def broken(_):
        raise RuntimeError("mine")

    connect(well, on_attempt=broken).close(False)


@pytest.mark.parametrize(
    ("hosts", "options", "words"),
    [
        ([], {}, "hosts: found none"),
        (["db1", "DB1:28015"], {}, "hosts: found twice: db1:28015"),
        (["db1:0"], {}, "hosts: found 'db1:0'"),
        (["rethinkdb://db1"], {}, "hosts: found"),
        (["rethinkdb://admin:p4ss@db1"], {}, "hosts: found something with @"),
        (["db1?token=p4ss"], {}, "hosts: found something with @"),
        ([("admin:p4ss@db1", 28015)], {}, "hosts: found something with @"),
        (7, {}, "hosts: found 7"),
        (["db1"], {"timeout": 5, "deadline": 2}, "deadline: found 2 s; allowed: at least one"),
        (["db1"], {"timeout": 0}, "timeout: found 0"),
        (["db1"], {"password": "pä"}, "password: allowed: ASCII"),
        (["db1"], {"ssl": "/nosuch.pem"}, "ssl: found '/nosuch.pem'"),
        (["db1"], {"help": "yes"}, "help: allowed"),
    ],
)
def test_bad_settings_are_told_before_anything_is_tried(hosts, options, words):
    with pytest.raises(app.BadSettings, match=words) as caught:
        app.connect(hosts, **options)
    assert "pä" not in str(caught.value) and "p4ss" not in str(caught.value)
    with pytest.raises(app.BadSettings, match=words):
        asyncio.run(app.aconnect(hosts, **options))


def test_tls_is_verified_also_by_address(tmp_path):
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    certificate.private_key_pem.write_to_path(str(key))
    for index, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(cert), append=index > 0)
    trusted, foreign = tmp_path / "ca.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(str(trusted))
    other.cert_pem.write_to_path(str(foreign))
    with SimulatedNode(tls=(cert, key)) as node, SimulatedNode() as bare:
        conn = app.connect([(node.host, node.port)], ssl={"ca_certs": str(trusted)}, timeout=2)
        assert r.expr(1).run(conn) == 1
        assert not dial.known_dead(conn)
        conn.close()
        for server, ca in ((node, foreign), (bare, trusted)):
            with pytest.raises(app.TlsFailed):
                app.connect([(server.host, server.port)], ssl=str(ca), timeout=2)
        node.set_fault("silent")
        with pytest.raises(app.NotConnected) as caught:
            app.connect([(node.host, node.port)], ssl=str(trusted), timeout=0.3, deadline=0.3)
        assert caught.value.failure is Failure.HUNG
        with pytest.raises(app.TlsFailed):
            asyncio.run(app.aconnect([(bare.host, bare.port)], ssl=str(trusted), timeout=2))


def test_a_silent_query_ends_when_it_was_told_to(well):
    conn = connect(well, query_timeout=0.2)
    well.set_fault("stall", stall_at="query")
    began = time.monotonic()
    with pytest.raises(ReqlDriverError) as caught:
        r.expr(1).run(conn)
    assert time.monotonic() - began < 0.2 + SLACK_S
    assert failures.classify(caught.value)[0] is Failure.HUNG


@pytest.mark.parametrize(
    ("one", "meant"),
    [
        ("DB1", "db1:28015"),
        (" db1:29015 ", "db1:29015"),
        (("DB1", 29015), "db1:29015"),
        (["::1", 29015], "[::1]:29015"),
        ("[2001:DB8:0::13]:29015", "[2001:db8::13]:29015"),
        ("fe80::1%Eth0", "[fe80::1%Eth0]:28015"),
        (Address("db1"), "db1:28015"),
    ],
)
def test_how_hosts_may_be_given(one, meant):
    assert [str(found) for found in settings.addresses([one])] == [meant]


@pytest.mark.parametrize(
    "one",
    ["", "[db1]:28015", "1:2:3", "db1#x", ("db1 ", 1), ("db1:1", 1), ("db1", "1"), ("db1", 0)],
)
def test_what_no_host_is(one):
    with pytest.raises(app.BadSettings, match="hosts: found "):
        settings.addresses([one])
