"""What programs do with a connection of the official driver: it works here, too, or is refused in one sentence."""

import asyncio
import contextlib
import functools
import gc
import time

import pytest
from rethinkdb import net
from rethinkdb.ast import Repl
from rethinkdb.errors import ReqlDriverError

from saltext_selfheal import app
from saltext_selfheal.app.queries import Healing
from tests.lab import article
from tests.unit.app.world import LOST, READ, SLACK_S, WRITE, Server, aconnect, connect, r


@pytest.fixture(autouse=True)
def no_repl():
    yield
    Repl.clear()


@pytest.fixture
def conn(well):
    with app.healing(functools.partial(connect, well, db="first", query_timeout=1)) as made:
        yield made


def cut(node):
    """Every connection of the node ends."""
    node.drop_connections()
    assert node.wait_for(lambda: node.connections == 0)
    time.sleep(0.02)


def test_each_public_name_of_the_drivers_connection_is_known_here():
    driver = net.DefaultConnection("db1", 28015, None, None, "admin", "", 1, {}, 10)
    public = {name for name in dir(driver) if not name.startswith("_")}
    assert public >= {"repl", "reconnect", "client_address", "db", "host"}
    assert sorted(public - vars(Healing).keys()) == []
    assert {"__enter__", "__exit__"} <= vars(Healing).keys()


# ---------------------------------------------------------------- healing


def test_after_repl_queries_without_a_connection_are_healed(well, conn):
    assert conn.repl() is conn
    cut(well)
    assert r.expr(1).run() == 1
    assert [row["name"] for row in r.db("rethinkdb").table("server_status").run()] == ["db1"]
    assert conn.is_open()


def test_repl_of_a_connection_that_is_not_used_in_a_with(well):
    app.healing(functools.partial(connect, well)).repl()
    gc.collect()
    assert r.expr(1).run() == 1
    cut(well)
    assert r.expr(2).run() == 2


def test_the_end_of_the_with_ends_the_repl_but_not_that_of_another(well):
    factory = functools.partial(connect, well)
    with app.healing(factory) as one:
        one.repl()
        with app.healing(factory) as other:
            pass
        assert r.expr(1).run() == 1
        assert not other.is_open()
    with pytest.raises(ReqlDriverError, match="must be given a connection"):
        r.expr(1).run()


def test_with_closes_the_connection_also_after_an_error(well):
    conn = app.healing(functools.partial(connect, well))
    assert not conn.is_open()
    with conn:
        assert conn.is_open()
    assert not conn.is_open()
    with pytest.raises(KeyError), conn as same:
        assert same is conn
        raise KeyError
    assert not conn.is_open()
    assert r.expr(1).run(conn) == 1


@pytest.mark.parametrize("known", [True, False])
def test_server_is_healed_as_a_read(well, conn, known):
    assert conn.server()["name"] == "db1"
    if known:
        cut(well)
    else:
        well.drop_connections()
    assert conn.server()["name"] == "db1"


def test_reconnect_opens_a_new_connection_and_stays_healed(well, conn):
    before = conn.client_port()
    assert conn.reconnect() is conn
    assert conn.is_open()
    assert conn.client_port() != before
    cut(well)
    assert conn.reconnect(noreply_wait=False, timeout=2) is conn
    assert (r.expr(1).run(conn), conn.db) == (1, "first")


def test_reconnect_waits_no_longer_than_its_timeout(well, conn):
    well.set_fault("refuse")
    began = time.monotonic()
    with pytest.raises(app.NotConnected):
        conn.reconnect(timeout=0.3)
    assert time.monotonic() - began < 0.3 + SLACK_S
    well.clear()
    assert r.expr(1).run(conn) == 1


@pytest.mark.parametrize("timeout", [0, -1, "5", float("nan"), True, [1]])
def test_a_timeout_that_is_none_is_refused_and_nothing_is_closed(conn, timeout):
    with pytest.raises(app.BadSettings, match=r"^timeout: found .*; allowed: seconds"):
        conn.reconnect(timeout=timeout)
    assert conn.is_open()


def test_what_is_asked_of_a_closed_connection_opens_none(well, conn):
    assert conn.client_address() == "127.0.0.1"
    assert conn.client_port() > 0
    conn.check_open()
    conn.close()
    assert conn.client_address() is conn.client_port() is None
    with pytest.raises(ReqlDriverError, match="closed"):
        conn.check_open()
    assert not conn.is_open()
    assert well.wait_for(lambda: well.connections == 0)


def test_its_attributes_are_those_of_the_connection(well, conn):
    assert (conn.host, conn.port, conn.ssl) == (well.host, well.port, {})
    for name in ("host", "port", "ssl", "connect_timeout", "handshake"):
        with pytest.raises(AttributeError, match=f"{name}: only the connection_factory"):
            setattr(conn, name, "other")
    with pytest.raises(AttributeError):
        conn.hots  # noqa: B018


def test_a_default_database_that_is_assigned_or_taken_away_is_so_after_an_outage(well, conn):
    assert conn.db == "first"
    conn.db = "second"
    assert (conn.open().db, conn.db) == ("second", "second")
    cut(well)
    assert conn.open().db == "second"
    conn.use(None)
    cut(well)
    assert conn.open().db is conn.db is None


def test_writes_with_noreply_are_waited_for(well, conn):
    r.expr(1).run(conn, noreply=True)
    assert conn.noreply_wait() is None
    conn.close()
    conn.noreply_wait()
    assert not conn.is_open()


@pytest.mark.parametrize("asked", ["noreply_wait", "close", "reconnect"])
def test_writes_with_noreply_on_a_lost_connection_are_not_called_done(well, conn, asked):
    r.expr(1).run(conn, noreply=True)
    cut(well)
    assert r.expr(2).run(conn) == 2
    with pytest.raises(app.OutcomeUnknown, match="noreply"):
        getattr(conn, asked)()
    conn.noreply_wait()
    conn.close()


def test_writes_with_noreply_at_a_node_that_hangs_are_not_called_done(well, conn):
    r.expr(1).run(conn, noreply=True)
    well.set_fault("stall", stall_at="query")
    with pytest.raises(app.OutcomeUnknown):
        conn.noreply_wait()
    assert not conn.is_open()


def test_a_write_with_noreply_proves_nothing_about_the_cluster(well):
    clock = article.Virtual()
    help = clock.help(article.Noting(clock))
    with app.healing(functools.partial(connect, well), help=help) as conn:
        help.failed("dead")
        r.expr(1).run(conn, noreply=True)
        assert help._calls.outage("runbook").since is not None
        r.expr(1).run(conn)
        assert help._calls.outage("runbook").since is None


def test_a_child_has_no_part_in_what_its_parent_wrote(well, conn):
    r.expr(1).run(conn, noreply=True)
    behind, pid = conn.open(), conn._pid
    conn._pid += 1  # as in a child
    conn.close()
    assert behind.is_open()
    conn._conn, conn._pid, conn._unanswered = behind, pid + 1, True
    assert not conn.is_open()
    assert conn.client_port() is None
    conn.noreply_wait()


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        (lambda: app.aconnect(["db1"]), "one for asyncio"),
        (lambda: asyncio.run(asyncio.sleep(0)), "one that returns None"),
        (lambda: "db1:28015", "one that returns .db1:28015"),
        (lambda: r, "one that returns"),
        (lambda: ("db1", 28015), "one that returns"),
    ],
)
def test_a_factory_that_makes_no_blocking_connection_is_refused(factory, found):
    with pytest.raises(app.BadSettings, match=f"connection_factory: found {found}.*; allowed: "):
        r.expr(1).run(app.healing(factory))


def test_a_factory_that_gives_an_open_asyncio_connection_is_refused(well):
    async def go():
        async with await aconnect(well) as made:
            with pytest.raises(app.BadSettings, match="does not block"):
                app.healing(lambda: made).open()
            async with contextlib.AsyncExitStack() as stack:
                with pytest.raises(app.BadSettings, match="aconnect"):
                    await stack.enter_async_context(app.healing(functools.partial(connect, well)))

    asyncio.run(go())


def test_cursors_are_read_to_their_end_closed_and_used_in_a_with(well, conn):
    rows = r.db("rethinkdb").table("server_status")
    assert [row["name"] for row in rows.run(conn)] == ["db1"]
    with rows.run(conn) as cursor:
        assert cursor.next(wait=1)["name"] == "db1"
    cursor = rows.run(conn)
    cursor.close()
    assert r.expr(1).run(conn) == 1


@pytest.mark.parametrize("lost", [LOST, ConnectionResetError(), EOFError()])
def test_a_query_through_repl_is_repeated_only_if_it_is_a_read(lost):
    server = Server(LOST, "row", LOST)
    with app.healing(server.connect, timing=article.Virtual().timing()) as conn:
        conn.repl()
        assert READ.run() == "row"
        with pytest.raises(app.OutcomeUnknown):
            WRITE.run()


# ---------------------------------------------------------------- connect


def test_a_connection_is_closed_by_with(well):
    with connect(well).repl() as conn:
        assert r.expr(1).run() == 1
    assert not conn.is_open()
    conn.close()


def test_reconnect_that_fails_raises_the_drivers_error_and_leaves_a_closed_connection(well):
    conn = connect(well)
    well.set_fault("refuse")
    for _ in range(2):
        with pytest.raises(app.NotConnected, match="connection refused"):
            conn.reconnect(noreply_wait=False)
        assert not conn.is_open()
        assert conn.client_port() is None
        with pytest.raises(ReqlDriverError, match="closed"):
            r.expr(1).run(conn)
    conn.close()
    well.clear()
    assert conn.reconnect() is conn
    assert r.expr(1).run(conn) == 1


@pytest.mark.parametrize(
    ("fault", "options", "kind"),
    [("wrong_password", {}, app.LoginRefused), ("silent", {}, app.NotConnected)],
)
def test_reconnect_raises_what_connect_raises(well, fault, options, kind):
    conn = connect(well)
    well.set_fault(fault, **options)
    began = time.monotonic()
    with pytest.raises(kind):
        conn.reconnect(noreply_wait=False, timeout=0.2)
    assert time.monotonic() - began < 0.2 + SLACK_S


@pytest.mark.parametrize("asked", ["close", "noreply_wait", "server", "reconnect"])
def test_a_connection_that_was_lost_says_so(well, asked):
    conn = connect(well)
    cut(well)
    with pytest.raises(ReqlDriverError):
        r.expr(1).run(conn)
    with pytest.raises(ReqlDriverError, match="closed"):
        getattr(conn, asked)()
    assert not conn.is_open()
    assert r.expr(1).run(conn.reconnect(noreply_wait=False)) == 1


# ---------------------------------------------------------------- aconnect


def in_asyncio(test):
    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 10))

    return run


@in_asyncio
async def test_in_asyncio_what_the_driver_offers(well):
    conn = await aconnect(well, db="first")
    assert conn.repl() is conn
    assert await r.expr(1).run() == 1
    assert (await conn.server())["name"] == "db1"
    assert conn.client_address() == "127.0.0.1"
    assert conn.client_port() > 0
    conn.use("second")
    await r.expr(1).run(conn, noreply=True)
    await conn.noreply_wait()
    cursor = await r.db("rethinkdb").table("server_status").run(conn)
    assert [row["name"] async for row in cursor] == ["db1"]
    before = conn.client_port()
    assert await conn.reconnect() is conn
    assert conn.client_port() != before
    async with conn as same:
        assert (same.db, same.is_open()) == ("second", True)
    assert not conn.is_open()
    await conn.close()


@pytest.mark.parametrize("noreply", [False, True])
@in_asyncio
async def test_in_asyncio_with_ends_the_connection(well, noreply):
    with await aconnect(well) as conn:
        assert await r.expr(1).run(conn) == 1
        if noreply:
            await r.expr("x" * 5_000_000).run(conn, noreply=True)
    assert not conn.is_open()
    for _ in range(200):
        if not well.connections:
            break
        await asyncio.sleep(0.01)
    assert well.connections == 0


@pytest.mark.parametrize("asked", ["close", "noreply_wait", "server", "reconnect"])
@in_asyncio
async def test_in_asyncio_a_connection_that_was_lost_says_so_and_never_hangs(well, asked):
    conn = await aconnect(well)
    well.drop_connections()
    with pytest.raises(ReqlDriverError):
        await asyncio.wait_for(getattr(conn, asked)(), 2)
        await asyncio.sleep(0.1)
        await asyncio.wait_for(getattr(conn, asked)(), 2)
    with contextlib.suppress(ReqlDriverError):
        await asyncio.wait_for(conn.close(False), 2)
    assert not conn.is_open()
    assert await r.expr(1).run(await conn.reconnect()) == 1
    conn.abort()


@in_asyncio
async def test_in_asyncio_a_close_whose_node_goes_away_meanwhile_ends(well):
    conn = await aconnect(well)
    well.set_fault("stall", stall_at="query")
    closing = asyncio.ensure_future(conn.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    well.drop_connections()
    with pytest.raises(ReqlDriverError, match="closed"):
        await asyncio.wait_for(closing, 2)


@in_asyncio
async def test_in_asyncio_a_reconnect_that_fails_leaves_a_closed_connection(well):
    conn = await aconnect(well)
    well.set_fault("refuse")
    for _ in range(2):
        with pytest.raises(app.NotConnected, match="refused"):
            await conn.reconnect(noreply_wait=False)
        assert not conn.is_open()
    await conn.close()
    conn.abort()
    well.clear()
    assert await r.expr(1).run(await conn.reconnect()) == 1
    conn.abort()
