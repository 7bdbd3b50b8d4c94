"""What a failure means."""

import json
import socket
import ssl
from pathlib import Path
from unittest import mock

import pytest
from rethinkdb.ast import ReQLEncoder
from rethinkdb.errors import (
    ReqlDriverError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlPermissionError,
    ReqlQueryLogicError,
)

from saltext_selfheal.app import Failure, failures
from tests.unit.app.world import connect, r, raised
from tests.unit.relay import answered


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


def test_a_connection_that_is_closed_under_its_query_is_dead(relay):
    conn = connect(relay)

    class Closing(ReQLEncoder):
        """Closes the connection while the query is made, as another thread may do."""

        def encode(self, what):
            conn.close(noreply_wait=False)
            return super().encode(what)

    exc = raised(lambda: r.expr(1).run(conn, json_encoder=Closing))
    assert isinstance(exc, ReqlDriverError)
    assert failures.classify(exc)[0] is Failure.DEAD


def test_the_drivers_stray_errors_are_no_errors_of_the_application(well, relay):
    conn = r.connect(host=well.host, port=well.port, password="secret")
    wrapper = conn._instance._socket
    with mock.patch.object(wrapper, "sendall", lambda _: wrapper.close()):
        exc = raised(lambda: r.expr(1).run(conn))
    assert isinstance(exc, AttributeError)
    assert failures.classify(exc)[0] is Failure.DEAD

    conn = connect(relay)
    relay.edit = answered(b"{{{{")
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
