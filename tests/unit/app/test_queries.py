"""Healing queries: what is repeated, and what may have been done is not."""

import contextlib
import functools
import threading
import time
from unittest import mock

import pytest
from rethinkdb.errors import (
    ReqlDriverError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlPermissionError,
    ReqlQueryLogicError,
)

from saltext_selfheal import app
from saltext_selfheal.app import dial
from saltext_selfheal.app import help as calling
from saltext_selfheal.app import queries, terms
from tests.lab import article
from tests.unit.app.world import (
    LOOP,
    LOST,
    NOT_NOW,
    READ,
    SLACK_S,
    WRITE,
    Server,
    SoftLimit,
    connect,
    r,
    signalled,
)


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
    assert terms.whole(query) is whole
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
    assert terms.writes_in(query) == writes
