"""One dial: bytes that come late or not at all, names and addresses, and asyncio."""

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from types import SimpleNamespace
from unittest import mock

import pytest
from rethinkdb.errors import ReqlDriverError, ReqlTimeoutError

from saltext_selfheal import app
from saltext_selfheal.app import Failure, dial
from saltext_selfheal.app import names as resolving
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
from tests.unit.relay import answered, dripping


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


@pytest.mark.parametrize("at", [4, 20])
@pytest.mark.parametrize("wait_s", [0, 0.02])
def test_a_cursor_that_waited_in_vain_goes_on_where_it_was(relay, wait_s, at):
    """The next batch stops within its head, or within its body."""
    answers, half, rest = itertools.count(), threading.Event(), threading.Event()

    def edit(data):
        if next(answers) == 0:
            return [data]
        return in_halves(data)

    def in_halves(data):
        yield data[:at]
        half.set()
        rest.wait(5)
        yield data[at:]

    relay.node.set_fault("issue", types=["log_write_error", "memory_error"])
    conn = connect(relay, query_timeout=5)
    relay.edit = edit
    cursor = r.db("rethinkdb").table("current_issues").run(conn, max_batch_rows=1)
    assert cursor.next()["type"] == "log_write_error"
    assert half.wait(5)
    for _ in range(2):
        with pytest.raises(ReqlTimeoutError):
            cursor.next(wait=wait_s)
    rest.set()
    assert [row["type"] for row in cursor] == ["memory_error"]


#: More than fits between us and a node that does not read.
MUCH = "x" * 10_000_000


def test_a_query_that_cannot_be_sent_ends_when_it_was_told_to(relay):
    conn = connect(relay, query_timeout=0.1)
    relay.reading.clear()
    began = time.monotonic()
    with pytest.raises(ReqlTimeoutError):
        r.expr(MUCH).run(conn)
    assert time.monotonic() - began < 0.1 + 2 * SLACK_S
    assert not conn.is_open()


def test_a_socket_whose_other_end_is_gone_is_closed_without_a_word(well, monkeypatch, caplog):
    made = []

    class Kept(socket.socket):
        """A socket that is remembered, by whomever it was made."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Kept)
    conn = connect(well)
    (ours,) = [one for one in made if one.getpeername()[1] == well.port]
    well.set_fault("reset")
    with pytest.raises(ReqlDriverError, match="Connection interrupted: Connection reset"):
        r.expr(1).run(conn)
    assert ours.fileno() == -1
    assert not conn.is_open()
    assert caplog.text == ""


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), SoftLimit()])
def test_what_a_signal_raises_ends_a_query(well, relay, exc):
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
    conn = connect(relay)
    relay.reading.clear()
    with signalled(exc, after_s=0.5):  # it is being sent by then
        r.expr(MUCH).run(conn)
    assert not conn.is_open()


def test_after_a_noreply_write_a_connection_is_not_waited_for(well):
    conn = connect(well, query_timeout=2)
    well.set_fault("stall", stall_at="query")
    r.expr(1).run(conn, noreply=True)
    began = time.monotonic()
    assert not dial.known_dead(conn)
    assert time.monotonic() - began < SLACK_S


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


@BOTH
def test_a_resolver_that_fails_for_the_moment_is_no_answer(well, connecting, names):
    """It is served by what the name was; that the name does not exist is an answer."""

    def fails(number):
        raise socket.gaierror(number, "as the resolver says")

    name = SimpleNamespace(host="db", port=1)
    names.append((socket.AF_INET, (well.host, well.port)))
    connecting(name)
    names[0] = lambda: fails(socket.EAI_AGAIN)
    connecting(name)
    names[0] = lambda: fails(socket.EAI_NONAME)
    with pytest.raises(app.NotConnected):
        connecting(name)


def test_a_name_for_which_there_was_no_thread_is_asked_for_again(well, names):
    name = SimpleNamespace(host="db", port=1)
    names.append((socket.AF_INET, (well.host, well.port)))
    none = mock.patch("threading.Thread.start", side_effect=RuntimeError("no more threads"))
    with none, pytest.raises(app.NotConnected, match="this machine cannot") as caught:
        connect(name)
    assert caught.value.failure is Failure.UNREACHABLE
    connect(name)


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
def test_in_asyncio_a_connection_ends_although_its_node_reads_nothing(relay, monkeypatch, how):
    opened, real = [], asyncio.open_connection

    async def open_connection(*args, **kwargs):
        opened.append(await real(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(asyncio, "open_connection", open_connection)

    async def go():
        conn = await aconnect(relay)
        relay.reading.clear()
        ((_, writer),) = opened
        transport = writer.transport
        asking = asyncio.ensure_future(r.expr(MUCH).run(conn))
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
