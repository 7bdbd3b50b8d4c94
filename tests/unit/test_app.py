"""The application's side: connecting through outages, healing queries, calling for help; most of it in virtual time."""

import asyncio
import contextlib
import functools
import http.server
import itertools
import json
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import trustme
from rethinkdb import RethinkDB
from rethinkdb.errors import (
    ReqlDriverError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlPermissionError,
    ReqlQueryLogicError,
    ReqlTimeoutError,
)
from standardwebhooks import Webhook as Verifier

from saltext_selfheal import app
from saltext_selfheal.app import Failure, connecting, dial, doors, failures
from saltext_selfheal.app import help as calling
from saltext_selfheal.app import names as resolving
from saltext_selfheal.app import queries
from tests.lab import article
from tests.lab.simulated import SimulatedNode

TIMEOUT_S = 0.4
SLACK_S = 0.4  #: a busy machine may wake the test late
ARTICLE = Path(__file__).parents[2] / "docs" / "article.md"
SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQ="

r = RethinkDB()


@pytest.fixture(scope="module")
def node():
    with SimulatedNode(name="db1", password="secret") as made:
        yield made


@pytest.fixture
def well(node):
    node.clear()
    yield node
    node.clear()
    node.drop_connections()


def connect(server, **changes):
    values = {"password": "secret", "timeout": TIMEOUT_S, "deadline": TIMEOUT_S}
    return app.connect([(server.host, server.port)], **{**values, **changes})


async def aconnect(server, **changes):
    values = {"password": "secret", "timeout": TIMEOUT_S, "deadline": TIMEOUT_S}
    return await app.aconnect([(server.host, server.port)], **{**values, **changes})


def aconnect_once(server, **changes):
    async def go():
        conn = await aconnect(server, **changes)
        conn.abort()
        return conn

    return asyncio.run(go())


BOTH = pytest.mark.parametrize("connecting", [connect, aconnect_once])


class SoftLimit(Exception):
    """As Celery's: raised by a signal, wherever the program stands."""


@contextlib.contextmanager
def signalled(exc, after_s=0.1):
    def raising(*_):
        raise exc

    before = signal.signal(signal.SIGALRM, raising)
    signal.setitimer(signal.ITIMER_REAL, after_s)
    began = time.monotonic()
    try:
        with pytest.raises(type(exc)) as caught:
            yield
        assert caught.value is exc
        assert time.monotonic() - began < after_s + SLACK_S
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- connect


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

    def dial_it(address, _, patience_s, stage):
        dials.append((address.host, patience_s, clock.now))
        if address.host == "back":
            if clock.now < outage_s:
                raise ConnectionRefusedError
            return "connection"
        stage.name = "handshake"
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

    def silent(address, _, patience_s, stage):
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


# ---------------------------------------------------------------- bytes that come late, or not at all


class Relay:
    """Before a node: hands on what clients say, and its answers after the login as `edit` makes them."""

    def __init__(self, node):
        self.node = node
        self.edit = lambda data: [data]
        self.reading = threading.Event()
        self.reading.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.listener.getsockname()
        self.open = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection((self.node.host, self.node.port))
                self.open += [client, server]
                for work in (self._there, self._back):
                    threading.Thread(target=work, args=(client, server), daemon=True).start()

    def _there(self, client, server):
        with contextlib.suppress(OSError):
            while self.reading.wait() and (data := client.recv(65536)):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _back(self, client, server):
        greetings = 3
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                pieces = [data] if greetings > 0 else self.edit(data)
                greetings -= data.count(b"\0") if greetings > 0 else 0
                for piece in pieces:
                    client.sendall(piece)
            client.shutdown(socket.SHUT_WR)

    def close(self):
        self.reading.set()
        for sock in self.open:
            sock.close()


@pytest.fixture
def relay(well):
    made = Relay(well)
    yield made
    made.close()


def answered(body):
    """An edit: this in place of each answer."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda data: [data[:8] + len(text).to_bytes(4, "little") + text]


def dripping(step, every_s):
    def edit(data):
        for at in range(0, len(data), step):
            yield data[at : at + step]
            time.sleep(every_s)

    return edit


@BOTH
@pytest.mark.parametrize(
    "edit", [lambda data: [data[:5]], lambda data: [data[:20]], dripping(1, 0.01)]
)
def test_an_answer_that_stops_or_drips_holds_a_dial_no_longer(relay, connecting, edit):
    relay.edit = edit
    began = time.monotonic()
    with pytest.raises(app.NotConnected) as caught:
        connecting(relay)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert caught.value.failure is Failure.HUNG


def test_an_endless_first_answer_is_not_read(relay):
    relay.edit = lambda data: [data[:8] + b"\xff\xff\xff\xff" + b"x" * 4096]
    attempts = []
    with pytest.raises(app.NotConnected):
        connect(relay, on_attempt=attempts.append)
    assert attempts[0].failure is Failure.ALIEN
    assert attempts[0].took_s < TIMEOUT_S


def test_half_an_answer_ends_a_query_and_its_connection(relay):
    conn = connect(relay, query_timeout=0.1)
    relay.edit = lambda data: [data[:-1]]
    began = time.monotonic()
    with pytest.raises(ReqlTimeoutError):
        r.expr(1).run(conn)
    assert time.monotonic() - began < 0.1 + SLACK_S
    assert not conn.is_open()


def test_an_answer_that_goes_on_is_not_cut_off(relay):
    conn = connect(relay, query_timeout=0.3)
    relay.edit = dripping(6, 0.05)
    began = time.monotonic()
    assert r.expr("x" * 30).run(conn) == "x" * 30
    assert time.monotonic() - began > 0.3


@contextlib.contextmanager
def wrapped(query_timeout_s=None):
    """The driver's socket, and the other end."""
    ours, theirs = socket.socketpair()
    parent = SimpleNamespace(host="db1", port=28015, ssl={}, clock=time.monotonic)
    made = dial._Socket(SimpleNamespace(_parent=parent), ours, 0.0)
    made.ends, made.query_timeout_s = None, query_timeout_s
    with ours, theirs:
        yield made, theirs


@pytest.mark.parametrize("wait_s", [0, 0.02])
def test_a_cursor_that_waited_in_vain_goes_on_where_it_was(wait_s):
    with wrapped(query_timeout_s=5) as (sock, other):
        other.sendall(b"ab")
        with pytest.raises(ReqlTimeoutError):
            sock.recvall(4, time.time() + wait_s)
        other.sendall(b"cd")
        assert sock.recvall(4, None) == b"abcd"


def test_a_query_that_cannot_be_sent_ends_when_it_was_told_to():
    with wrapped(query_timeout_s=0.1) as (sock, _):
        with pytest.raises(ReqlTimeoutError):
            sock.sendall(bytes(10_000_000))
        assert not sock.is_open()


def test_a_socket_whose_other_end_is_gone_is_closed_without_a_word(caplog):
    with wrapped() as (sock, _):
        sock._socket = mock.Mock(**{"recv.side_effect": ConnectionResetError(104, "reset")})
        sock._socket.shutdown.side_effect = OSError(107, "not connected")
        inner = sock._socket
        with pytest.raises(ReqlDriverError, match="Connection interrupted: reset"):
            sock.recvall(4, None)
    inner.close.assert_called_once()
    assert not sock.is_open()
    assert caplog.text == ""


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), SoftLimit()])
def test_what_a_signal_raises_ends_a_query(well, exc):
    conn = connect(well, timeout=2, deadline=2)
    well.set_fault("stall", stall_at="query")
    with signalled(exc):
        r.expr(1).run(conn)
    assert not conn.is_open()
    well.clear()
    try:
        raise exc
    except BaseException:
        conn.reconnect(noreply_wait=False)
    assert r.expr(1).run(conn) == 1
    with wrapped() as (sock, _), signalled(exc):
        sock.sendall(bytes(10_000_000))


def test_after_a_noreply_write_a_connection_is_not_waited_for(well):
    conn = connect(well, query_timeout=2)
    well.set_fault("stall", stall_at="query")
    r.expr(1).run(conn, noreply=True)
    began = time.monotonic()
    assert not dial.known_dead(conn)
    assert time.monotonic() - began < SLACK_S


# ---------------------------------------------------------------- names and addresses


@pytest.fixture
def names(monkeypatch):
    """Addresses of any name: to be filled, or a function that finds them."""
    found = []

    def find(address, flags=0):
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return found[0]() if callable(found[0]) else list(found)

    monkeypatch.setattr(resolving, "lookup", find)
    monkeypatch.setattr(resolving, "NAMES", resolving.Names())
    return found


@pytest.fixture
def black_hole():
    """An address that does not answer to TCP."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield socket.AF_INET, listener.getsockname()


@BOTH
def test_an_address_without_an_answer_leaves_time_for_the_next(well, connecting, names, black_hole):
    names += [black_hole, (socket.AF_INET, (well.host, well.port))]
    began = time.monotonic()
    connecting(SimpleNamespace(host="db", port=1))
    assert time.monotonic() - began < TIMEOUT_S


@BOTH
def test_an_address_of_a_family_that_is_not_there_is_passed_over(well, connecting, names):
    names += [(77, ("::1", 1)), (socket.AF_INET, (well.host, well.port))]
    connecting(SimpleNamespace(host="db", port=1))


@BOTH
def test_a_resolver_that_hangs_leaves_time_for_what_the_name_was(well, connecting, names):
    name, release = SimpleNamespace(host="db", port=1), threading.Event()
    names.append((socket.AF_INET, (well.host, well.port)))
    connecting(name)
    names[0] = lambda: release.wait(10) and []
    began = time.monotonic()
    connecting(name)
    assert time.monotonic() - began < TIMEOUT_S / 2
    release.set()


def test_a_name_for_which_there_was_no_thread_is_asked_for_again(well, names):
    name = SimpleNamespace(host="db", port=1)
    names.append((socket.AF_INET, (well.host, well.port)))
    none = mock.patch("threading.Thread.start", side_effect=RuntimeError("no more threads"))
    with none, pytest.raises(app.NotConnected, match="this machine cannot") as caught:
        connect(name)
    assert caught.value.failure is Failure.UNREACHABLE
    connect(name)


# ---------------------------------------------------------------- asyncio


def test_in_asyncio_a_silent_query_ends_when_it_was_told_to(well):
    async def go():
        conn = await aconnect(well, query_timeout=0.1)
        assert await r.expr(1).run(conn) == 1
        well.set_fault("stall", stall_at="query")
        began = time.monotonic()
        with pytest.raises(ReqlTimeoutError):
            await r.expr(1).run(conn)
        assert time.monotonic() - began < 0.1 + SLACK_S
        assert not conn.is_open()

    asyncio.run(go())


@pytest.mark.parametrize("how", ["abort", "close"])
def test_in_asyncio_a_connection_ends_although_its_node_reads_nothing(relay, how):
    async def go():
        conn = await aconnect(relay)
        relay.reading.clear()
        transport = conn._instance._streamwriter.transport
        asking = asyncio.ensure_future(r.expr("x" * 10_000_000).run(conn))
        await asyncio.sleep(0.02)
        assert transport.get_write_buffer_size() > 0
        if how == "abort":
            conn.abort()
            conn.abort()
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(conn.close(False), 0.05)
        assert transport.get_write_buffer_size() == 0
        assert not conn.is_open()
        with pytest.raises(ReqlDriverError, match="closed"):
            await asyncio.wait_for(asking, 1)

    asyncio.run(go())


@BOTH
@pytest.mark.parametrize(
    "body",
    [b"{{{{", [1], {"t": 18, "e": 2000000, "r": ["Memory"], "b": []}, {"t": 5, "r": [7]}],
)
def test_what_is_no_answer_to_the_first_query_is_alien_and_it_goes_on(relay, connecting, body):
    relay.edit = answered(body)
    with pytest.raises(app.NotConnected) as caught:
        connecting(relay)
    assert caught.value.failure is Failure.ALIEN


# ---------------------------------------------------------------- classification


def raised(function):
    try:
        function()
    except Exception as exc:
        return exc


def foreign(server, **options):
    """What the driver's own connect raises."""
    return raised(lambda: r.connect(host=server.host, port=server.port, **options))


def test_what_the_drivers_own_connect_raises_is_understood(well):
    assert failures.classify(foreign(well))[0] is Failure.AUTH
    for fault, options, failure in (
        ("refuse", {}, Failure.DEAD),
        ("silent", {}, Failure.HUNG),
        ("garbage", {"bytes": "HTTP/1.1 400\0"}, Failure.ALIEN),
        ("close_on_connect", {}, Failure.DEAD),
    ):
        with well.faulty(fault, **options):
            exc = foreign(well, password="secret", timeout=0.2)
            assert (fault, failures.classify(exc)[0]) == (fault, failure)


def test_the_drivers_stray_errors_are_no_errors_of_the_application(well):
    conn = connect(well)
    wrapper = conn._instance._socket
    with mock.patch.object(wrapper, "sendall", lambda _: wrapper.close()):
        exc = raised(lambda: r.expr(1).run(conn))
    assert isinstance(exc, AttributeError)
    assert failures.classify(exc)[0] is Failure.DEAD

    conn = connect(well)
    said = iter([(1).to_bytes(8, "little") + (4).to_bytes(4, "little"), b"{{{{"])
    with mock.patch.object(conn._instance._socket, "recvall", lambda *_: next(said)):
        exc = raised(lambda: r.expr(1).run(conn))
    assert isinstance(exc, json.JSONDecodeError)
    assert failures.classify(exc)[0] is Failure.ALIEN


def test_what_a_function_does_beside_its_queries_is_its_own(well):
    conn = connect(well)
    for function in (
        lambda: None.nothing,
        lambda: json.loads("{"),
        lambda: Path("/nosuch").read_text(),
        lambda: socket.create_connection(("127.0.0.1", 1)),
        lambda: r.expr(object()).run(conn),
    ):
        assert failures.classify(raised(function))[0] is Failure.APPLICATION


@pytest.mark.parametrize(
    ("exc", "failure"),
    [
        (ReqlPermissionError("no `write` permission"), Failure.AUTH),
        (ReqlOpIndeterminateError("lost contact with primary"), Failure.INDETERMINATE),
        (
            ReqlOpFailedError("Cannot perform write: primary replica not available"),
            Failure.NOT_READY,
        ),
        (ReqlOpFailedError("Table `a.b` does not exist."), Failure.APPLICATION),
        (ReqlOpFailedError("Table `unreachable.unavailable` does not exist."), Failure.APPLICATION),
        (ReqlOpFailedError("Table `a.b` is not available."), Failure.NOT_READY),
        (ReqlQueryLogicError("No attribute `x`"), Failure.APPLICATION),
        (ReqlDriverError("Connection is closed."), Failure.DEAD),
        (KeyError("mine"), Failure.APPLICATION),
    ],
)
def test_errors_of_queries(exc, failure):
    assert failures.classify(exc)[0] is failure


@pytest.mark.parametrize(
    ("exc", "failure"),
    [
        (ConnectionResetError(104, "reset"), Failure.DEAD),
        (OSError(113, "No route to host"), Failure.DEAD),
        (OSError(24, "Too many open files"), Failure.UNREACHABLE),
        (socket.gaierror(-2, "Name or service not known"), Failure.UNREACHABLE),
        (ssl.SSLError(1, "bad certificate"), Failure.TLS),
        (TimeoutError(), Failure.HUNG),
    ],
)
def test_errors_of_a_factory(exc, failure):
    assert failures.classify(exc, "dial")[0] is failure


# ---------------------------------------------------------------- queries


class Server:
    """Connections whose queries answer or fail as told; remembers what was asked."""

    def __init__(self, *script):
        self.script = list(script)
        self.ran = []
        self.opened = 0

    def connect(self):
        self.opened += 1
        return Conn(self)


class Conn:
    def __init__(self, server):
        self.server = server
        self.closed = False

    def _start(self, term, **_):
        assert not self.closed
        self.server.ran.append((id(self), term))
        outcome = self.server.script.pop(0) if self.server.script else "done"
        outcome = outcome() if callable(outcome) else outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self, noreply_wait=True):
        assert noreply_wait is False
        self.closed = True


LOST = ReqlDriverError("Connection is closed.")
NOT_NOW = ReqlOpFailedError("Cannot perform write: primary replica not available")
READ = r.db("d").table("t").get(1)
WRITE = r.db("d").table("t").insert({"id": 1})
LOOP = r.expr([1, 2]).for_each(lambda row: r.db("d").table("t").insert({"id": row}))


@contextlib.contextmanager
def healed(server, **options):
    clock = article.Virtual()
    with app.healing(server.connect, timing=clock.timing(), **options) as conn:
        yield conn, clock


def test_a_read_is_repeated_over_a_new_connection():
    server = Server(LOST, LOST, "row")
    with healed(server) as (conn, _):
        assert READ.run(conn) == "row"
    assert (len(server.ran), server.opened) == (3, 3)
    assert len({conn for conn, _ in server.ran}) >= 1


@pytest.mark.parametrize("query", [WRITE, LOOP, r.db("d").table("t").get(1).update({"n": 1})])
def test_a_write_whose_connection_was_lost_is_never_repeated(query):
    server = Server(LOST)
    with healed(server) as (conn, _):
        with pytest.raises(app.OutcomeUnknown) as caught:
            query.run(conn)
        assert isinstance(caught.value, ReqlOpIndeterminateError)
        assert len(server.ran) == 1
        assert WRITE.run(conn) == "done"
    assert server.opened == 2


def test_an_indeterminate_write_is_raised_as_it_is():
    wrong = ReqlOpIndeterminateError("lost contact with primary replica")
    server = Server(wrong)
    with healed(server) as (conn, _), pytest.raises(ReqlOpIndeterminateError) as caught:
        WRITE.run(conn)
    assert caught.value is wrong
    assert len(server.ran) == 1


def test_a_primary_change_is_waited_out_without_calling_anybody():
    server = Server(*[NOT_NOW] * 8)
    clock = article.Virtual()
    door = article.Noting(clock)
    help = clock.help(door, highstate_after=0, restart_after=0)
    with app.healing(server.connect, help=help, timing=clock.timing()) as conn:
        assert WRITE.run(conn) == "done"
    assert door.calls == []
    assert clock.now < queries.PRIMARY_CHANGE_S
    server.script = [NOT_NOW] * 60
    with app.healing(server.connect, help=help, timing=clock.timing()) as conn:
        READ.run(conn)
    assert {action for _, action in door.calls} == {"highstate", "restart"}


TABLE = r.db("d").table("t")
WHOLE = [
    TABLE.insert({"id": 1, "n": r.expr(1) + 1}, conflict="replace"),
    TABLE.get(1).update({"n": r.row["n"] + 1}),
    TABLE.get(1).replace({"id": 1}),
    TABLE.get(1).delete(),
    TABLE.index_create("n"),
    r.db("d").table_create("t"),
]
IN_PARTS = [
    LOOP,
    TABLE.insert([{"id": 1}, {"id": 2}]),
    TABLE.insert(r.db("d").table("other")),
    TABLE.update({"n": 1}),
    TABLE.get_all(1, 2).delete(),
    TABLE.filter({"n": 1}).replace({"id": 1}),
    r.expr([TABLE.get(1).delete(), TABLE.get(2).delete()]),
    TABLE.get(1).update({"n": TABLE.get(2).delete()["deleted"]}),
    r.js("1"),
    r.do(1, lambda _: TABLE.delete()),
]


@pytest.mark.parametrize(
    ("query", "whole"), [*((q, True) for q in WHOLE), *((q, False) for q in IN_PARTS)]
)
def test_only_what_is_done_as_a_whole_is_repeated(query, whole):
    assert queries.whole(query) is whole
    server = Server(NOT_NOW)
    with healed(server) as (conn, _):
        if whole:
            assert query.run(conn) == "done"
        else:
            with pytest.raises(ReqlOpFailedError):
                query.run(conn)
    assert len(server.ran) == 1 + whole


@pytest.mark.parametrize("query", [READ, WRITE, TABLE.update({"n": 1})])
@pytest.mark.parametrize("wrong", [LOST, NOT_NOW, ReqlOpIndeterminateError("lost contact")])
def test_help_is_called_while_logins_succeed_and_queries_fail(query, wrong):
    clock, calls = article.Virtual(), calling.Calls()
    door = article.Noting(clock)
    server = Server()
    factory = functools.partial(app.connect, ["db1"], timing=clock.timing())
    dialled = mock.patch("saltext_selfheal.app.dial.dial", lambda *_: server.connect())
    help = clock.help(door, calls=calls)
    with dialled, app.healing(factory, help=help, deadline=5, timing=clock.timing()) as conn:
        server.script = [wrong] * 10_000
        while clock.now < 400:
            with pytest.raises((ReqlDriverError, ReqlOpFailedError, ReqlOpIndeterminateError)):
                query.run(conn)
            clock.now += 1
        ((at, action),) = door.calls
        assert action == "highstate"
        assert 300 <= at < 310
        server.script = []
        READ.run(conn)
    assert calls.outage("runbook").since is None


@pytest.mark.parametrize("query", [READ, WRITE])
def test_what_a_signal_raises_comes_out_of_a_healed_query(well, query):
    factory = functools.partial(connect, well, timeout=2, deadline=2)
    with app.healing(factory) as conn:
        conn.open()
        well.set_fault("stall", stall_at="query")
        with signalled(SoftLimit()):
            query.run(conn)
        well.clear()
        assert r.expr(1).run(conn) == 1


def test_what_a_signal_raises_comes_out_of_a_factory():
    def factory():
        raise limit

    limit = SoftLimit()
    with pytest.raises(SoftLimit), app.healing(factory):
        pass


def test_an_interrupted_query_leaves_no_connection_in_the_middle_of_an_answer():
    server = Server(KeyboardInterrupt())
    with healed(server) as (conn, _):
        with pytest.raises(KeyboardInterrupt):
            READ.run(conn)
        READ.run(conn)
    assert server.opened == 2


def test_the_database_that_is_used_is_so_after_an_outage(well):
    with app.healing(functools.partial(connect, well, db="first")) as conn:
        assert conn.open().db == "first"
        conn.use("second")
        assert conn.open().db == "second"
        conn.drop()
        conn.use("third")
        assert conn.open().db == "third"


def test_a_connection_does_not_outlive_its_healing():
    made = queries.Healing(Server().connect)
    conn = made.open()
    del made
    assert conn.closed
    with pytest.raises(app.BadSettings):
        queries.Healing("factory")


def test_a_function_and_its_queries_share_one_deadline():
    clock = article.Virtual()

    def late():
        clock.now += 8
        return LOST

    server = Server(late, *[NOT_NOW] * 1000)

    @app.heals(server.connect, idempotent=True, deadline=10, timing=clock.timing())
    def put(conn):
        return WRITE.run(conn)

    with pytest.raises(ReqlOpFailedError):
        put()
    assert 9 < clock.now <= 10
    server.script, clock.now = [NOT_NOW] * 1000, 100.0
    with pytest.raises(ReqlOpFailedError):
        put()
    assert 109 < clock.now <= 110


def test_only_ordinary_functions_are_healed():
    def generator(conn):
        yield conn

    async def coroutine(conn):
        return conn

    async def both(conn):
        yield conn

    for function in (generator, coroutine, both):
        with pytest.raises(app.BadSettings, match="heals: allowed: ordinary functions"):
            app.heals(Server().connect)(function)


def test_errors_of_the_application_are_its_own():
    wrong = ReqlQueryLogicError("No attribute `x`")
    server = Server(wrong, ReqlPermissionError("no"))
    with healed(server) as (conn, clock):
        for kind in (ReqlQueryLogicError, ReqlPermissionError):
            with pytest.raises(kind):
                READ.run(conn)
        assert clock.now == 0
    assert server.opened == 1


def test_a_query_waits_no_longer_than_its_deadline():
    server = Server(*[NOT_NOW] * 1000)
    with healed(server, deadline=7) as (conn, clock):
        with pytest.raises(ReqlOpFailedError):
            READ.run(conn)
        assert 5 < clock.now <= 7


def test_the_decorator_repeats_what_is_idempotent():
    clock = article.Virtual()
    server = Server(LOST, "first", LOST, "first", "second")

    @app.heals(server.connect, idempotent=True, timing=clock.timing())
    def put(conn, value):
        return WRITE.run(conn), WRITE.run(conn), value

    assert put("x") == ("first", "second", "x")

    server.script = [LOST]

    @app.heals(server.connect, timing=clock.timing())
    def once(conn):
        return WRITE.run(conn)

    with pytest.raises(app.OutcomeUnknown):
        once()
    assert once() == "done"


def test_an_error_of_an_idempotent_function_is_raised():
    @app.heals(Server().connect, idempotent=True)
    def wrong(conn):
        return None.nothing

    with pytest.raises(AttributeError):
        wrong()


def test_a_connection_known_to_be_dead_is_not_written_to(well):
    factory = functools.partial(connect, well)
    with app.healing(factory) as conn:
        first = conn.open()
        well.drop_connections()
        assert well.wait_for(lambda: well.connections == 0)
        deadline = time.monotonic() + 5
        while not dial.known_dead(first) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not conn.is_open()
        assert r.expr(3).run(conn) == 3
        assert conn.open() is not first


def test_healing_lends_its_help_to_the_connect_inside(well):
    well.set_fault("refuse")
    door = mock.Mock()
    door.ask.return_value = {"reply": "accepted"}
    told = threading.Event()
    help = app.Help(
        door, "runbook", highstate_after=0, on_help=lambda _: told.set(), calls=calling.Calls()
    )
    factory = functools.partial(connect, well, deadline=None)

    def back():
        told.wait(5)
        well.clear()

    threading.Thread(target=back, daemon=True).start()
    with app.healing(factory, help=help) as conn:
        assert r.expr(1).run(conn) == 1
    assert told.is_set()


def test_healing_lends_its_deadline_and_its_stop_to_the_connect_inside(well):
    well.set_fault("refuse")
    factory = functools.partial(connect, well, deadline=None)
    began = time.monotonic()
    with pytest.raises(app.NotConnected), app.healing(factory, deadline=0.5):
        pass
    assert time.monotonic() - began < 0.5 + SLACK_S
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(app.Stopped), app.healing(factory, stop=stop):
        pass


@pytest.mark.parametrize(
    ("query", "writes"),
    [
        (READ, 0),
        (WRITE, 1),
        (LOOP, 3),
        (r.db("d").table("t").filter(lambda row: row["a"].eq({"delete": 1})), 0),
        (r.do(1, lambda _: r.db("d").table("t").delete()), 1),
        (r.expr({"a": r.db("d").table("t").get(1).replace({"id": 1})}), 1),
        (r.db("d").table("t").reconfigure(shards=1, replicas=1), 1),
        (r.db("rethinkdb").table("server_status"), 0),
    ],
)
def test_what_is_a_write(query, writes):
    assert queries.writes_in(query) == writes


# ---------------------------------------------------------------- when help is called


def test_the_article_is_modelled_rightly():
    attempts, calls = article.article()
    assert attempts == 60
    told = [action for _, action in calls] * article.APPLICATIONS
    assert (told.count("highstate"), told.count("restart")) == (110, 50)
    assert min(at for at, action in calls if action == "restart") == 900


def test_ours_calls_at_the_articles_times_and_never_in_a_storm():
    _, calls, _ = article.ours()
    times = {
        kind: [at for at, action in calls if action == kind] for kind in ("highstate", "restart")
    }
    assert 300 <= times["highstate"][0] < 302
    assert 600 <= times["restart"][0] < 602.5
    for told in times.values():
        assert all(later - sooner >= 600 for sooner, later in itertools.pairwise(told))
    assert (len(times["highstate"]), len(times["restart"])) == (6, 5)


def test_ten_applications_make_one_incident():
    calls = [call for seed in range(article.APPLICATIONS) for call in article.ours(seed=seed)[1]]
    jobs, incidents, replies = article.followed(calls)
    # Once the healer has given up, nothing comes of asking, and the answer says so.
    assert (incidents, len(replies), set(replies)) == (1, 110, {"held"})
    told = [action for _, action in calls]
    page = ARTICLE.read_text(encoding="utf-8")
    assert f"| highstates asked for | 110 | {told.count('highstate')} |" in page
    assert f"| restarts asked for | 50 | {told.count('restart')} |" in page
    assert f"160, each on every replica | {jobs}, each on one node |" in page


def test_the_docs_tell_the_same_minutes():
    assert article.table() in ARTICLE.read_text(encoding="utf-8")


def test_one_process_is_one_caller():
    clock = article.Virtual()
    door = article.Noting(clock)
    calls = calling.Calls()
    for _ in range(5):
        helps = [
            clock.help(door, highstate_after=0, restart_after=None, calls=calls) for _ in range(3)
        ]
        for help in helps:
            help.failed("dead")
        clock.now += 1
    assert len(door.calls) == 1


def test_an_outage_is_remembered_from_one_short_call_to_the_next():
    clock = article.Virtual()
    door = article.Noting(clock)
    help = clock.help(door)
    for _ in range(11):
        help.failed("dead")
        clock.now += 30
    assert door.calls == [(300, "highstate")]
    help.well()
    clock.now += 1
    help.failed("dead")
    assert len(door.calls) == 1


def test_what_failed_long_ago_is_another_outage():
    clock = article.Virtual()
    door = article.Noting(clock)
    help = clock.help(door)
    help.failed("dead")
    clock.now += 4000
    help.failed("dead")
    assert door.calls == []


def test_a_call_that_takes_a_minute_holds_up_nothing():
    release = threading.Event()
    door = mock.Mock()
    door.ask.side_effect = lambda *_: release.wait(10) and {"reply": "accepted"}
    helped = []
    help = app.Help(
        door,
        "runbook",
        highstate_after=0,
        restart_after=0,
        on_help=helped.append,
        calls=calling.Calls(),
    )
    began = time.monotonic()
    for _ in range(20):
        help.failed("dead")
    assert time.monotonic() - began < 0.2
    assert not help.wait(0.05)
    release.set()
    assert help.wait(5)
    assert door.ask.call_count == 1
    assert [h.reply for h in helped] == ["accepted"]


def test_a_door_or_a_callback_that_breaks_breaks_nothing(caplog):
    clock = article.Virtual()
    door = mock.Mock()
    door.ask.side_effect = RuntimeError("door")

    def broken(_):
        raise ValueError("callback")

    clock.help(door, highstate_after=0, on_help=broken).failed("dead")
    assert "on_help failed" in caplog.text
    help = clock.help(
        door, highstate_after=0, start=mock.Mock(side_effect=RuntimeError("no thread"))
    )
    help.failed("dead")


def test_an_unknown_answer_is_asked_for_again_with_the_same_id(monkeypatch):
    monkeypatch.setattr(calling.time, "sleep", lambda _: None)
    door = mock.Mock()
    door.ask.side_effect = [
        doors.HelpUnknown("500"),
        {"reply": "joined", "incident": "runbook-3"},
    ]
    helped = []
    article.Virtual().help(door, highstate_after=0, on_help=helped.append).failed("dead")
    assert len({call.args[3] for call in door.ask.call_args_list}) == 1
    assert (helped[0].reply, helped[0].incident, helped[0].tries) == ("joined", "runbook-3", 2)


def test_a_forked_child_calls_for_itself():
    calls = calling.Calls()
    calls.lock.acquire()  # as if a thread held it while another forks
    queue = multiprocessing.get_context("fork").SimpleQueue()

    def child():
        door = article.Noting(article.Virtual())
        help = article.Virtual().help(door, highstate_after=0, calls=calls)
        help.failed("dead")
        queue.put(len(door.calls))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(10)
    assert not queue.empty()
    assert queue.get() == 1


def test_a_forked_child_never_uses_its_parents_connection(well):
    with app.healing(functools.partial(connect, well)) as conn:
        before = conn.open()
        with mock.patch("os.getpid", lambda: -1):
            assert conn.open() is not before
        assert before.is_open()
        before.close(False)


def test_a_call_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(doors, "CALL_S", 0.1)
    release, helped = threading.Event(), []
    door = mock.Mock()
    door.ask.side_effect = lambda *_: release.wait(10) and {"reply": "accepted"}
    help = app.Help(door, "c", highstate_after=0, on_help=helped.append, calls=calling.Calls())
    help.failed("dead")
    assert help.wait(5)
    release.set()
    ((reply, why),) = [(h.reply, h.why) for h in helped]
    assert (reply, why) == ("unknown", "no answer in 0.1 s")


def test_no_repeat_begins_when_a_calls_time_is_over(monkeypatch):
    monkeypatch.setattr(doors, "CALL_S", 0.5)
    door = mock.Mock()
    door.ask.side_effect = doors.HelpUnknown("500")
    helped = []
    article.Virtual().help(door, highstate_after=0, on_help=helped.append).failed("dead")
    assert [(h.reply, h.why, h.tries) for h in helped] == [("unknown", "500", 1)]


def test_a_late_call_does_not_end_the_next_one():
    clock, begun = article.Virtual(), []
    help = clock.help(article.Noting(clock), highstate_after=0, restart_after=0, start=begun.append)
    help.failed("dead")
    clock.now += doors.CALL_S
    help.failed("dead")
    late, current = begun
    late()
    assert not help.wait(0)
    current()
    assert help.wait(0)


@pytest.mark.parametrize("answer", [None, "accepted", ["accepted"]])
def test_a_door_that_answers_nonsense_is_told(answer):
    door, helped = mock.Mock(), []
    door.ask.return_value = answer
    help = article.Virtual().help(door, highstate_after=0, on_help=helped.append)
    help.failed("dead")
    assert [h.reply for h in helped] == ["failed"]
    assert help.wait(0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": "a/b"}, "cluster: found"),
        ({"via": "url"}, "via: allowed"),
        ({"again_after": None}, "again_after: found None"),
        ({"restart_after": -1}, "restart_after: found -1"),
    ],
)
def test_help_checks_its_settings(options, words):
    values = {"via": mock.Mock(), "cluster": "runbook", **options}
    with pytest.raises(app.BadSettings, match=words):
        app.Help(**values)


# ---------------------------------------------------------------- the doors


class Api:
    """A salt-api that answers as told: (status, body) by path; remembers what it got."""

    elsewhere = "http://elsewhere.invalid/"

    def __init__(self, tls=None):
        self.answers = {
            "/login": (200, {"return": [{"token": "t0k", "expire": time.time() + 3600}]}),
            "/": (200, {"return": [{"reply": "accepted", "why": "", "incident": "runbook-1"}]}),
        }
        self.got = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                api.got.append((self.path, dict(self.headers), body))
                answer = api.answers.get(self.path, (404, "no"))
                status, said = answer.pop(0) if isinstance(answer, list) else answer
                data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", api.elsewhere)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "https" if tls else "http"
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    def door(self, **options):
        return app.SaltAPI(self.url, "runbook-web", "pass-word", "file", **options)


@pytest.fixture
def api():
    made = Api()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_salt_api_is_asked_by_the_runner_and_one_token_serves_twice(api):
    door = api.door()
    for _ in range(2):
        answer = door.ask("runbook", "highstate", "cannot connect", "id-1")
    assert answer["incident"] == "runbook-1"
    assert [path for path, _, _ in api.got] == ["/login", "/", "/"]
    _, headers, body = api.got[1]
    assert headers["Accept"] == "application/json"
    assert headers["X-Auth-Token"] == "t0k"
    assert json.loads(body) == [
        {
            "client": "runner",
            "fun": "selfheal.trigger",
            "kwarg": {
                "cluster": "runbook", "action": "highstate", "reason": "cannot connect", "request": "id-1",
            },
        }
    ]  # fmt: skip
    assert "pass-word" not in repr(door)


def test_a_forgotten_token_is_asked_for_anew(api):
    door = api.door()
    door.ask("runbook", "restart", "", "id-1")
    api.answers["/"] = [(401, "<html>"), (200, {"return": [{"reply": "joined"}]})]
    assert door.ask("runbook", "restart", "", "id-2")["reply"] == "joined"


def test_salt_api_is_asked_by_a_minion(api):
    api.answers["/"] = (200, {"return": [{"app1": {"request": "r1", "sent": True}}]})
    door = api.door(client="local", minion="app1")
    assert door.ask("runbook", "restart", "", "id-1") == {"reply": "sent", "request": "r1"}
    low = json.loads(api.got[-1][2])[0]
    assert (low["tgt"], low["tgt_type"]) == ("app1", "list")
    assert "request" not in low["kwarg"]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((400, "Bad"), doors.HelpFailed, "400: is runner in netapi_enable_clients?"),
        ((401, "<html>no</html>"), doors.HelpFailed, "runbook-web may not call selfheal.trigger"),
        ((500, {"return": "x"}), doors.HelpUnknown, "answers 500"),
        ((302, ""), doors.HelpFailed, "redirects to http://elsewhere.invalid/"),
        ((404, "x"), doors.HelpFailed, "404: is this salt-api's address?"),
        ((200, "<html>"), doors.HelpUnknown, "does not answer as salt-api does: <html>"),
        ((200, ""), doors.HelpUnknown, "does not answer as salt-api does: nothing"),
        ((200, {"return": ["Exception occurred"]}), doors.HelpFailed, "Exception occurred"),
        ((200, [1]), doors.HelpFailed, "the runner answers: nothing"),
    ],
)
def test_every_bad_answer_is_one_clear_line(api, answer, kind, words):
    api.answers["/"] = answer
    with pytest.raises(doors.HelpFailed) as caught:
        api.door().ask("runbook", "highstate", "", "id-1")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "pass-word" not in str(caught.value) and "t0k" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", ['{"return": [{"token": "t0k", "exp', "t0k", '{"return": [{"t0k": 1}]}', "[" * 9999]
)
def test_a_broken_login_is_told_without_its_text(api, answer):
    api.answers["/login"] = (200, answer)
    with pytest.raises(doors.HelpUnknown, match="does not answer a login") as caught:
        api.door().ask("runbook", "highstate", "", "id-1")
    assert "t0k" not in str(caught.value)


def test_where_a_redirect_leads_is_told_without_what_it_carries(api, monkeypatch):
    monkeypatch.setattr(Api, "elsewhere", "http://elsewhere.invalid/?session=s3cret")
    api.answers["/login"] = (302, "")
    with pytest.raises(doors.HelpFailed, match=r"elsewhere\.invalid/;") as caught:
        api.door().ask("runbook", "highstate", "", "id-1")
    assert "s3cret" not in str(caught.value)


def test_an_answer_that_drips_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(doors, "CALL_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            with contextlib.suppress(OSError):
                conn, _ = listener.accept()
                with conn:
                    conn.recv(65536)
                    conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        conn.sendall(b"x")
                        time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        door = app.SaltAPI(f"http://127.0.0.1:{listener.getsockname()[1]}", "u", "p", "pam")
        began = time.monotonic()
        with pytest.raises(doors.HelpUnknown, match="does not end its answer"):
            door.ask("runbook", "highstate", "", "id-1")
        assert time.monotonic() - began < 0.2 + SLACK_S


def test_a_certificate_authority_is_looked_at_before_it_is_needed(tmp_path):
    no_certificates = tmp_path / "ca.pem"
    no_certificates.write_text("none")
    for verify in ("/nosuch.pem", str(no_certificates), "", None, 1):
        for make in (
            lambda verify=verify: app.SaltAPI("https://m", "u", "p", "pam", verify=verify),
            lambda verify=verify: app.Webhook("https://m", SECRET, verify=verify),
        ):
            with pytest.raises(app.BadSettings, match=r"^verify: found"):
                make()
    for verify in (True, False, str(tmp_path)):
        app.SaltAPI("https://m", "u", "p", "pam", verify=verify)


def test_a_wrong_password_and_nobody_there(api):
    api.answers["/login"] = (401, "<html>")
    with pytest.raises(doors.HelpFailed, match="401: wrong user, password or eauth"):
        api.door().ask("runbook", "highstate", "", "id-1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        door = app.SaltAPI(f"http://127.0.0.1:{taken.getsockname()[1]}", "u", "p", "pam")
        with pytest.raises(doors.HelpUnknown, match="refused"):
            door.ask("runbook", "highstate", "", "id-1")


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    api = Api(context)
    try:
        with pytest.raises(doors.HelpFailed, match="certificate or TLS failure"):
            api.door().ask("runbook", "highstate", "", "id-1")
        assert api.got == []
        assert (
            api.door(verify=str(path)).ask("runbook", "highstate", "", "i")["reply"] == "accepted"
        )
    finally:
        api.server.shutdown()
        api.server.server_close()


def test_the_webhook_is_signed_as_the_standard_says(api):
    api.answers["/hook/selfheal/runbook/restart"] = (200, {"success": True})
    door = app.Webhook(f"{api.url}/hook/", SECRET)
    assert door.ask("runbook", "restart", "I cannot connect", "id-1") == {"reply": "sent"}
    _, headers, body = api.got[0]
    asked = {"cluster": "runbook", "action": "restart", "reason": "I cannot connect"}
    assert Verifier(SECRET).verify(body, headers) == asked
    assert "c2Vj" not in repr(door)
    api.answers["/hook/selfheal/runbook/restart"] = (200, {"success": False})
    with pytest.raises(doors.HelpUnknown, match="without success"):
        door.ask("runbook", "restart", "", "id-1")
    with pytest.raises(doors.HelpFailed, match="404: are its hooks open"):
        door.ask("runbook", "start", "", "id-1")
    for status, kind in ((401, doors.HelpFailed), (500, doors.HelpUnknown)):
        api.answers["/hook/selfheal/runbook/restart"] = (status, "<html>")
        with pytest.raises(doors.HelpFailed, match=f"answers {status}") as caught:
            door.ask("runbook", "restart", "", "id-1")
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    "url",
    [
        "master:8000",
        "//master",
        "ftp://m",
        "http://",
        "https://u:p4ss@m",
        "http://m?x=p4ss",
        "u:p4ss@master:8000",
        None,
        7,
    ],
)
def test_a_url_needs_a_scheme_and_a_host_and_no_secret(url):
    for make in (lambda: app.SaltAPI(url, "u", "p", "pam"), lambda: app.Webhook(url, SECRET)):
        with pytest.raises(app.BadSettings, match=r"^url: ") as caught:
            make()
        assert "p4ss" not in str(caught.value)


def test_a_secret_that_is_none_and_a_minion_that_is_a_pattern():
    for secret in ("", None, "whsec_"):
        with pytest.raises(app.BadSettings, match=r"^secret: "):
            app.Webhook("http://m", secret)
    for minion in (None, "app*"):
        with pytest.raises(app.BadSettings, match=r"^minion: "):
            app.SaltAPI("http://m", "u", "p", "pam", client="local", minion=minion)


# ---------------------------------------------------------------- the command, and what is imported


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "saltext_selfheal.app", *arguments],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_the_commands_exit_codes(well, api):
    hosts = f"--hosts={well.host}:{well.port}"
    good = run(hosts, SELFHEAL_DB_PASSWORD="secret")
    assert (good.returncode, good.stderr) == (0, "")
    assert "attempt 1" in good.stdout and "connected" in good.stdout
    wrong = run(hosts, SELFHEAL_DB_PASSWORD="other")
    assert wrong.returncode == 3
    assert "Wrong password" in wrong.stderr
    foreign = run(hosts, "--tls")
    assert foreign.returncode == 3
    assert "TLS failed" in foreign.stderr
    assert run("--hosts=").returncode == 2
    assert run().returncode == 2
    assert run(hosts, "--salt-api=http://m").returncode == 2
    nosuch = run(
        hosts,
        "--cluster=c",
        "--webhook=https://m",
        "--api-ca=/nosuch",
        SELFHEAL_WEBHOOK_SECRET=SECRET,
    )
    assert nosuch.returncode == 2
    assert "verify: found '/nosuch'" in nosuch.stderr
    well.set_fault("refuse")
    late = run(
        hosts, "--timeout=0.3", "--deadline=1", "--cluster=runbook", f"--salt-api={api.url}",
        "--api-user=u", "--highstate-after=0", SELFHEAL_API_PASSWORD="p",
    )  # fmt: skip
    assert late.returncode == 1
    assert "help  highstate of runbook: accepted (runbook-1)" in late.stdout


def test_no_salt_is_imported():
    code = (
        "import sys, saltext_selfheal.app; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'salt', 'pydantic'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- the examples of the docs


def example(name):
    """A block of Python from docs/application.md, by its first line."""
    page = (Path(__file__).parents[2] / "docs" / "application.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    (found,) = [block for block in blocks if block.startswith(f"# {name}")]
    return found


def run_example(name, server, monkeypatch):
    """Its names, with the node of the test in place of the example's hosts, and shorter times."""
    real = app.connect

    def here(hosts, **options):
        assert options["query_timeout"]
        return real([(server.host, server.port)], **{**options, "password": "secret", "timeout": 1})

    monkeypatch.setattr(app, "connect", here)
    for variable in ("SELFHEAL_API_PASSWORD", "DB_PASSWORD"):
        monkeypatch.setenv(variable, "p")
    names = {"__name__": "example"}
    code = example(name).replace("=5", "=1").replace("query_timeout=2", "query_timeout=0.2")
    exec(compile(code, name, "exec"), names)
    return names


@pytest.fixture
def users():
    with SimulatedNode(password="secret", tables=("shop.users",)) as made:
        yield made


def test_the_flask_example(users, monkeypatch):
    pytest.importorskip("flask")
    names = run_example("shop.py", users, monkeypatch)
    client = names["app"].test_client()
    assert client.get("/users").json == []
    users.drop_connections()
    assert client.get("/users").json == []
    users.set_fault("stall", stall_at="query")
    began = time.monotonic()
    assert client.get("/users").status_code == 503
    assert time.monotonic() - began < 1 + 0.2 + SLACK_S
    users.clear()
    assert client.get("/users").status_code == 200
    with mock.patch("saltext_selfheal.app.dial.Connection._start", side_effect=NOT_NOW):
        assert client.get("/users").status_code == 503


def test_the_celery_example(users, monkeypatch):
    pytest.importorskip("celery")
    names = run_example("tasks.py", users, monkeypatch)
    assert names["count_users"]() == 0
    users.drop_connections()
    assert names["count_users"]() == 0


def test_the_script_example(users, monkeypatch, capsys):
    run_example("report.py", users, monkeypatch)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "words",
    [
        "The primary replica is currently changing from one replica to another. The write was not performed. This "
        "error should go away in a couple of seconds.",
        "The primary replica isn't connected to a quorum of replicas. The write was not performed.",
        'primary replica for shard ["", +inf) not available',
        "too many primary replicas available",
        "no replica is available",
        "This server does not have any data available for the given table.",
        "Failed to retrieve the table configuration",
    ],
)
def test_what_rethinkdb_says_while_its_primaries_move_is_not_ready(words):
    """Its own words, as 2.4.4 has them; none of these was done, and all of them pass."""
    exc = ReqlOpFailedError(f"Cannot perform write: {words}", None, [])
    assert failures.classify(exc)[0] is Failure.NOT_READY
