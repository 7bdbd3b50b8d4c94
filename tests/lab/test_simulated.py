"""
The simulated RethinkDB node is believable: the official driver speaks with it, and each fault is
what it says.

What lives here: proofs about tests/lab/simulated alone. What must not: anything of
saltext_selfheal.
"""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from rethinkdb import RethinkDB
from rethinkdb.errors import (
    ReqlAuthError,
    ReqlDriverError,
    ReqlOpFailedError,
    ReqlPermissionError,
    ReqlServerCompileError,
    ReqlTimeoutError,
)

from tests.lab import simulated
from tests.lab.open_files import spend_open_files
from tests.lab.ports import free_port
from tests.lab.simulated import (
    FAULTS,
    SimulatedNode,
    SimulatedProcess,
    UnknownFault,
    acquaint,
    write_config,
)
from tests.lab.simulated.cluster import CLUSTER_LOOK_TTL_S

r = RethinkDB()

# Long enough for a busy machine, short enough for a test that waits it out.
SOON_S = 5.0
A_MOMENT_S = 0.05

MAGIC = struct.pack("<I", 0x34C2BDC3)
HELLO = (
    MAGIC
    + json.dumps(
        {
            "protocol_version": 0,
            "authentication_method": "SCRAM-SHA-256",
            "authentication": "n,,n=admin,r=abcdef",
        }
    ).encode()
    + b"\0"
)


@pytest.fixture(autouse=True)
def _quiet_driver(monkeypatch):
    # The driver logs an error when it closes a socket that the node has closed before.
    monkeypatch.setattr(logging.getLogger("rethinkdb.logger"), "disabled", True)


@pytest.fixture
def node():
    with SimulatedNode("db1", "secret") as running:
        yield running


@contextlib.contextmanager
def connected(node, password="secret", user="admin", timeout=SOON_S):
    """``node``: a SimulatedNode or SimulatedProcess."""
    port = node.port if isinstance(node, SimulatedNode) else node.settings.driver_port
    connection = r.connect("127.0.0.1", port, user=user, password=password, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close(noreply_wait=False)


@contextlib.contextmanager
def dialled(node):
    with socket.create_connection((node.host, node.port), timeout=SOON_S) as sock:
        yield sock


def system(connection, table, **options):
    return list(r.db("rethinkdb").table(table, **options).run(connection))


def everything(sock):
    """Until the other side closes."""
    said = b""
    while chunk := sock.recv(65536):
        said += chunk
    return said


def message(sock):
    """One handshake message, without its NUL."""
    said = b""
    while not said.endswith(b"\0"):
        chunk = sock.recv(1)
        if not chunk:
            raise EOFError(said)
        said += chunk
    return said[:-1]


def silence(sock):
    """True when nothing comes for a moment."""
    sock.settimeout(A_MOMENT_S)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    return False


def ask(connection, query, token=1000):
    """Sends a query that the driver would not make, and returns the answer as it came."""
    sock = connection._instance._socket._socket
    body = query if isinstance(query, bytes) else json.dumps(query).encode()
    sock.settimeout(SOON_S)
    sock.sendall(struct.pack("<QI", token, len(body)) + body)
    while True:
        answered, size = struct.unpack("<QI", exactly(sock, 12))
        answer = exactly(sock, size)
        # The driver asks each cursor for more before it looks whether there is more, so answers to
        # its own tokens may stand before ours.
        if answered == token:
            return answer


def exactly(sock, size):
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError(data)
        data += chunk
    return data


def eventually(condition):
    """For things that another process does and nobody announces."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


# ---- A healthy node and the official driver


def test_the_blocking_driver_logs_in_and_asks(node):
    with connected(node) as connection:
        assert connection.server() == {"id": node.id, "name": "db1", "proxy": False}
        assert r.expr(1).run(connection) == 1
        assert r.expr({"a": [1, "ü", None]}).run(connection) == {"a": [1, "ü", None]}
        connection.noreply_wait()
        r.expr(1).run(connection, noreply=True)
        assert r.expr(2).run(connection) == 2
    assert node.logins == 1


def test_the_asyncio_driver_logs_in_and_asks(node):
    async def scene():
        driver = RethinkDB()
        driver.set_loop_type("asyncio")
        connection = await driver.connect(node.host, node.port, password="secret", timeout=SOON_S)
        info = await connection.server()
        both = await asyncio.gather(driver.expr(1).run(connection), driver.expr(2).run(connection))
        rows = await driver.db("rethinkdb").table("server_status").run(connection)
        names = [row["name"] async for row in rows]
        await connection.close()
        with pytest.raises(ReqlAuthError, match="Wrong password"):
            await driver.connect(node.host, node.port, password="wrong", timeout=SOON_S)
        return info["name"], both, names

    assert asyncio.run(scene()) == ("db1", [1, 2], ["db1"])


@pytest.mark.parametrize("password", ["", "a longer password, with = and ,"])
def test_any_password_works(password):
    with SimulatedNode(password=password) as node, connected(node, password) as connection:
        assert connection.is_open()


def test_a_wrong_password_and_an_unknown_user_are_refused(node):
    with pytest.raises(ReqlAuthError, match="Wrong password"), connected(node, "Secret"):
        pass
    with pytest.raises(ReqlAuthError, match="Unknown user"), connected(node, user="eve"):
        pass
    assert node.dials == 2
    assert node.logins == 0


def test_more_users_may_exist():
    with (
        SimulatedNode(password="secret", users={"self,heal=": "pw"}) as node,
        connected(node, "pw", user="self,heal=") as connection,
    ):
        assert len(system(connection, "server_status")) == 1


def test_connections_are_counted_while_they_are_open(node):
    with connected(node), connected(node):
        assert node.connections == 2
    assert node.wait_for(lambda: node.connections == 0)
    assert node.dials == 2


def test_dropping_ends_every_connection(node):
    with connected(node) as connection:
        node.drop_connections()
        with pytest.raises(ReqlDriverError, match="Connection is closed"):
            connection.server()
    assert node.wait_for(lambda: node.connections == 0)


def test_server_status_has_the_real_shape(node):
    with connected(node) as connection:
        (row,) = system(connection, "server_status")
        raw = r.db("rethinkdb").table("server_status").run(connection, time_format="raw")
        started = next(iter(raw))["process"]["time_started"]
    assert set(row) == {"id", "name", "network", "process"}
    assert set(row["network"]) == {
        "canonical_addresses",
        "cluster_port",
        "connected_to",
        "hostname",
        "http_admin_port",
        "reql_port",
        "time_connected",
    }
    assert set(row["process"]) == {"argv", "cache_size_mb", "pid", "time_started", "version"}
    assert row["network"]["canonical_addresses"] == [{"host": node.host, "port": node.cluster_port}]
    assert row["network"]["http_admin_port"] == "<no http admin>"
    assert row["network"]["reql_port"] == node.port
    assert "secret" in row["process"]["argv"]  # as with the real server
    assert started["$reql_type$"] == "TIME"
    assert abs(started["epoch_time"] - time.time()) < 60


def test_tables_have_the_real_shape(node):
    with connected(node) as connection:
        (status,) = system(connection, "table_status")
        (config,) = system(connection, "table_config")
        (server,) = system(connection, "server_config")
        assert system(connection, "current_issues") == []
    table_id = status["id"]
    assert status == {
        "db": "runbook",
        "id": table_id,
        "name": "runbook",
        "raft_leader": "db1",
        "shards": [
            {"primary_replicas": ["db1"], "replicas": [{"server": "db1", "state": "ready"}]}
        ],
        "status": {
            "all_replicas_ready": True,
            "ready_for_outdated_reads": True,
            "ready_for_reads": True,
            "ready_for_writes": True,
        },
    }
    assert config == {
        "db": "runbook",
        "durability": "hard",
        "id": table_id,
        "indexes": [],
        "name": "runbook",
        "primary_key": "id",
        "shards": [{"nonvoting_replicas": [], "primary_replica": "db1", "replicas": ["db1"]}],
        "write_acks": "majority",
        "write_hook": None,
    }
    assert server == {"cache_size_mb": "auto", "id": node.id, "name": "db1", "tags": ["default"]}


def test_identifiers_may_be_uuids(node):
    with connected(node) as connection:
        (status,) = system(connection, "table_status", identifier_format="uuid")
    assert status["raft_leader"] == node.id
    assert status["db"] != "runbook"


def test_rows_come_in_batches_when_asked_so():
    tables = [f"shop.t{number}" for number in range(7)]
    with SimulatedNode(tables=tables, batch=3) as node, connected(node, "") as connection:
        assert len(system(connection, "table_status")) == 7
        assert b'"t":3' in ask(connection, [1, [15, [[14, ["rethinkdb"]], "table_status"]]])
        cursor = r.db("rethinkdb").table("table_status").run(connection)
        assert next(cursor)["name"] == "t0"
        cursor.close()
        assert r.expr(1).run(connection) == 1
        rows = r.db("rethinkdb").table("table_status").run(connection, max_batch_rows=1)
        assert len(list(rows)) == 7


def test_a_users_table_is_empty_and_others_do_not_exist(node):
    with connected(node) as connection:
        assert list(r.db("runbook").table("runbook").run(connection)) == []
        for database, table, words in (
            ("runbook", "nope", "Table `runbook.nope` does not exist."),
            ("rethinkdb", "nope", "Table `rethinkdb.nope` does not exist."),
            ("nope", "nope", "Database `nope` does not exist."),
        ):
            with pytest.raises(ReqlOpFailedError, match=words):
                r.db(database).table(table).run(connection)
        connection.use("runbook")
        assert list(r.table("runbook").run(connection)) == []


def test_an_acknowledged_row_outlives_a_kill_and_its_key_is_taken(config):
    table = r.db("runbook").table("runbook")
    with SimulatedProcess(config()) as process:
        with connected(process) as connection:
            assert table.insert({"id": "a", "n": [1]}).run(connection)["inserted"] == 1
        process.kill()
        process.start()
        process.wait_ready()
        with connected(process) as connection:
            again = table.insert({"id": "a"}).run(connection)
            assert (again["inserted"], again["errors"]) == (0, 1)
            assert list(table.run(connection)) == [{"id": "a", "n": [1]}]
            with pytest.raises(ReqlServerCompileError, match="does not know this use"):
                table.insert({"id": "a"}, conflict="replace").run(connection)


TABLE = r.db("runbook").table("runbook")


def test_one_row_is_read_replaced_and_deleted_by_its_key(node):
    with connected(node) as connection:
        majority = r.db("runbook").table("runbook", read_mode="majority")
        assert majority.get("a").run(connection) is None
        assert TABLE.get("a").replace({"id": "a", "n": 1}).run(connection)["inserted"] == 1
        assert TABLE.get("a").replace({"id": "a", "n": 2}).run(connection)["replaced"] == 1
        assert majority.get("a").run(connection) == {"id": "a", "n": 2}
        assert TABLE.get("a").delete().run(connection)["deleted"] == 1
        assert TABLE.get("a").delete().run(connection)["skipped"] == 1
        assert majority.get("a").run(connection) is None


def test_a_row_without_its_key_is_refused_as_rethinkdb_refuses_it(node):
    with connected(node) as connection:
        refused = TABLE.get("a").replace({"id": "b"}).run(connection)
        assert (refused["errors"], refused["inserted"]) == (1, 0)
        node.set_fault("primary_key")
        refused = TABLE.get("a").replace({"id": "a"}).run(connection)
        assert refused["first_error"].startswith("Inserted object must have primary key `name`:")
        assert node.rows("runbook.runbook") == []


def test_rows_between_two_keys_are_listed(node):
    for key in ("a", "b-1", "b-2", "c", 7):
        node.insert("runbook.runbook", {"id": key})
    with connected(node) as connection:
        found = TABLE.between("b-", "b.").run(connection)
        assert [row["id"] for row in found] == ["b-1", "b-2"]


def test_what_was_replaced_and_deleted_stays_so_over_a_kill(config):
    with SimulatedProcess(config()) as process:
        with connected(process) as connection:
            for key in ("a", "b"):
                TABLE.get(key).replace({"id": key, "n": 1}).run(connection)
            TABLE.get("a").replace({"id": "a", "n": 2}).run(connection)
            TABLE.get("b").delete().run(connection)
        process.kill()
        process.start()
        process.wait_ready()
        with connected(process) as connection:
            assert list(TABLE.run(connection)) == [{"id": "a", "n": 2}]


@pytest.mark.parametrize("deed", ["", "read", "write"])
def test_applications_may_wait_while_the_server_still_answers(node, deed):
    node.set_fault("stalled", deed=deed)
    with connected(node) as connection:
        assert connection.server()["name"] == "db1"
        assert len(system(connection, "table_status")) == 1
    asked = {"read": TABLE.get("a"), "write": TABLE.get("a").replace({"id": "a"})}
    for one, query in asked.items():
        with connected(node) as connection:
            asking = threading.Thread(target=query.run, args=(connection,))
            asking.start()
            asking.join(0.3)
            assert asking.is_alive() is (deed in ("", one))
            node.clear()
            asking.join(SOON_S)
            assert not asking.is_alive()
            node.set_fault("stalled", deed=deed)


@pytest.mark.parametrize(
    ("fault", "options", "error", "words"),
    [
        ("no_table", {}, ReqlOpFailedError, "Table `runbook.runbook` does not exist."),
        ("no_rights", {}, ReqlPermissionError, "does not have the required `read` permission"),
    ],
)
def test_a_table_may_be_dropped_and_a_right_be_missing(node, fault, options, error, words):
    node.set_fault(fault, **options)
    with connected(node) as connection:
        with pytest.raises(error, match=words):
            TABLE.get("a").run(connection)
        node.clear()
        assert TABLE.get("a").run(connection) is None


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        (b"not json", 16),
        (b"\xff\xfe", 16),
        (b"[" * 100_000, 16),
        (b"5", 16),
        (b"[]", 16),
        ([1], 16),
        ([9], 16),
        ([2], 16),
        ([3], 16),
        ([1, [999, []]], 17),
        ([1, []], 17),
        ([1, {"a": [999, []]}], 17),
        ([1, [15, []]], 17),
        ([1, [15, [5, "x"]]], 17),
        ([1, [15, [[14, [5]], "x"]]], 17),
        ([1, [14, ["rethinkdb"]]], 18),
        ([1, [15, ["nope"]]], 18),
        ([4], 4),
        ([5], 5),
        ([1, [1, 5]], 1),
    ],
)
def test_no_query_is_too_strange_for_an_answer(node, query, kind):
    with connected(node) as connection:
        answer = json.loads(ask(connection, query))
        assert answer["t"] == kind
        assert ("e" in answer) == (kind == 18)
        assert r.expr(1).run(connection) == 1


def test_an_unknown_term_is_told_by_the_driver(node):
    with connected(node) as connection, pytest.raises(ReqlServerCompileError, match="term 43"):
        r.db("runbook").table("runbook").count().run(connection)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"ERROR: Received an unsupported protocol version."),
        (MAGIC + b"{}\0", b'"error_code":1,'),
        (MAGIC + b"x\0", b'"error_code":8,'),
        (MAGIC + b"a" * 3000, b'"error_code":7,'),
        (HELLO.replace(b"SCRAM-SHA-256", b"PLAIN"), b'"error_code":4,'),
        (HELLO.replace(b"n=admin,", b""), b'"error_code":10,'),
    ],
)
def test_a_bad_handshake_is_answered_and_closed(node, said, answer):
    with dialled(node) as sock:
        sock.sendall(said)
        assert answer in everything(sock)


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    order = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    order += " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    made = subprocess.run(
        [*order.split(), "-keyout", key, "-out", cert],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    return cert, key


def encrypted(node, certificate):
    context = ssl.create_default_context(cafile=certificate[0])
    sock = socket.create_connection((node.host, node.port), timeout=SOON_S)
    return context.wrap_socket(sock, server_hostname="localhost")


def test_tls_is_served_when_a_key_and_a_certificate_are_given(certificate):
    with SimulatedNode(password="secret", tls=certificate) as node:
        with encrypted(node, certificate) as sock:
            sock.sendall(HELLO)
            assert b'"server_version":"2.4.4"' in message(sock)
            assert b"i=4096" in message(sock)
            assert node.connections == 1
        assert node.wait_for(lambda: node.connections == 0)
        with dialled(node) as sock:
            sock.sendall(HELLO)
            assert b"success" not in everything(sock)


def test_under_tls_the_faults_come_before_the_tls_handshake(certificate):
    with SimulatedNode(tls=certificate) as node:
        node.set_fault("silent")
        with dialled(node) as sock:
            sock.sendall(b"\x16\x03\x01")
            assert silence(sock)
        node.set_fault("garbage", bytes=b"SSH-2.0-x\r\n")
        with dialled(node) as sock:
            assert everything(sock) == b"SSH-2.0-x\r\n"
        node.clear()
        with encrypted(node, certificate):
            pass


# ---- Faults


def is_well(node):
    with connected(node) as connection:
        return connection.server()["name"] == "db1" and len(system(connection, "table_status")) == 1


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_can_be_set_on_an_open_connection_and_cleared(node, name):
    with connected(node):
        node.set_fault(name, on_existing="drop")
        assert name in node.command({"status": True})["faults"]
        node.clear()
        assert is_well(node)


def test_refuse_refuses_dials_and_keeps_what_is_open(node):
    with connected(node) as connection:
        with node.faulty("refuse"):
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError), dialled(node):
                    pass
            assert connection.server()["name"] == "db1"
        assert is_well(node)


def test_listening_can_be_stopped_and_started_on_the_same_port(node):
    port = node.port
    node.stop_listening()
    with pytest.raises(ConnectionRefusedError), dialled(node):
        pass
    node.clear()
    with pytest.raises(ConnectionRefusedError), dialled(node):
        pass
    node.start_listening()
    assert node.port == port
    assert is_well(node)


def test_silent_says_nothing_to_anybody(node):
    with connected(node) as connection:
        node.set_fault("silent")
        with dialled(node) as sock:
            sock.sendall(HELLO)
            assert silence(sock)
        connection._instance._socket._socket.sendall(struct.pack("<QI", 7, 3) + b"[5]")
        assert silence(connection._instance._socket._socket)
        with pytest.raises(ReqlTimeoutError), connected(node, timeout=A_MOMENT_S):
            pass
        node.clear()
        connection._instance._socket._socket.settimeout(SOON_S)
        assert b'"name":"db1"' in connection._instance._socket._socket.recv(4096)


def test_a_silent_node_still_notices_who_leaves(node):
    with node.faulty("silent"):
        with dialled(node):
            assert node.wait_for(lambda: node.connections == 1)
        assert node.wait_for(lambda: node.connections == 0)


@pytest.mark.parametrize(
    ("step", "messages"), [("version", 0), ("auth_first", 1), ("auth_final", 2), ("query", 3)]
)
def test_the_handshake_stalls_at_each_step(node, step, messages):
    node.set_fault("stall", stall_at=step)
    with dialled(node) as sock:
        sock.sendall(HELLO)
        for _ in range(min(messages, 2)):
            message(sock)
        if messages < 2:
            assert silence(sock)
    if messages < 3:
        with pytest.raises(ReqlTimeoutError), connected(node, timeout=A_MOMENT_S):
            pass
    else:
        with connected(node) as connection:
            sock = connection._instance._socket._socket
            sock.sendall(struct.pack("<QI", 7, 3) + b"[5]")
            assert silence(sock)


@pytest.mark.parametrize(
    ("name", "words"), [("wrong_password", "Wrong password"), ("unknown_user", "Unknown user")]
)
def test_logins_can_be_refused_whatever_the_password(node, name, words):
    with node.faulty(name), pytest.raises(ReqlAuthError, match=words), connected(node):
        pass


def test_garbage_is_sent_and_the_connection_closed(node):
    with node.faulty("garbage", bytes=b"\x00\xffSSH"), dialled(node) as sock:
        sock.sendall(HELLO)
        assert everything(sock) == b"\x00\xffSSH"


def test_garbage_may_keep_the_connection_open(node):
    with node.faulty("garbage", bytes="SSH-2.0\r\n", close=False), dialled(node) as sock:
        assert exactly(sock, 9) == b"SSH-2.0\r\n"
        assert silence(sock)


def test_endless_garbage_ends_when_the_client_closes(node):
    with node.faulty("garbage", bytes=b"a\0b", endless=True):
        with dialled(node) as sock:
            assert b"\0" not in exactly(sock, 100_000)
        assert node.wait_for(lambda: node.connections == 0)


def test_an_answer_may_break_off_in_the_middle(node):
    with connected(node) as connection:
        node.set_fault("close_mid_answer")
        with pytest.raises(EOFError) as cut:
            ask(connection, [5])
        assert cut.value.args[0]
    node.set_fault("close_mid_answer", at="version")
    with dialled(node) as sock:
        sock.sendall(HELLO)
        assert everything(sock).startswith(b'{"max_protocol')


def test_a_connection_may_be_closed_at_once(node):
    with node.faulty("close_on_connect"), dialled(node) as sock:
        assert everything(sock) == b""


def test_a_connection_may_be_reset(node):
    with connected(node) as connection:
        node.set_fault("reset")
        with pytest.raises(ConnectionResetError):
            ask(connection, [5])
    with pytest.raises(ConnectionResetError), dialled(node) as sock:
        sock.recv(1)


def test_slow_answers_take_their_time(node):
    with connected(node) as connection:
        node.set_fault("slow", delay_s=A_MOMENT_S)
        started = time.monotonic()
        assert r.expr(1).run(connection) == 1
        assert time.monotonic() - started >= A_MOMENT_S
        node.set_fault("slow", byte_delay_s=0.001)
        started = time.monotonic()
        assert r.expr(1).run(connection) == 1
        assert time.monotonic() - started >= 0.02


def test_a_delay_ends_when_the_fault_is_cleared(node):
    with connected(node) as connection:
        sock = connection._instance._socket._socket
        node.set_fault("slow", delay_s=1000)
        sock.sendall(struct.pack("<QI", 7, 3) + b"[5]")
        assert silence(sock)
        node.clear()
        sock.settimeout(SOON_S)
        assert sock.recv(100)


@pytest.mark.parametrize(
    ("readiness", "reads", "writes", "state"),
    [
        ("unavailable", False, False, "waiting_for_quorum"),
        ("outdated_reads", False, False, "waiting_for_primary"),
        ("reads", True, False, "ready"),
        ("writes", True, True, "ready"),
    ],
)
def test_tables_may_not_be_ready(readiness, reads, writes, state):
    with SimulatedNode(tables=["a.x", "a.y"]) as node, connected(node, "") as connection:
        node.set_fault("tables_not_ready", tables=["a.x"], readiness=readiness)
        faulty, good = system(connection, "table_status")
        assert faulty["status"]["ready_for_reads"] is reads
        assert faulty["status"]["ready_for_writes"] is writes
        assert faulty["status"]["all_replicas_ready"] is False
        assert faulty["shards"][0]["replicas"] == [{"server": "db1", "state": state}]
        assert good["status"]["all_replicas_ready"] is True
        if reads:
            assert list(r.db("a").table("x").run(connection)) == []
        else:
            with pytest.raises(ReqlOpFailedError, match="primary replica for shard"):
                r.db("a").table("x").run(connection)


def test_issues_have_the_real_shape(node):
    with connected(node) as connection:
        node.set_fault("issue", types=list(simulated.ISSUE_TYPES), message="No space left")
        issues = {issue["type"]: issue for issue in system(connection, "current_issues")}
    assert set(issues) == set(simulated.ISSUE_TYPES)
    assert all(
        set(issue) == {"critical", "description", "id", "info", "type"} for issue in issues.values()
    )
    assert issues["log_write_error"]["info"] == {"message": "No space left", "servers": ["db1"]}
    assert issues["memory_error"]["info"] == {"message": "No space left", "servers": ["db1"]}
    assert issues["outdated_index"]["info"] == {
        "tables": [{"db": "runbook", "indexes": ["old"], "table": "runbook"}]
    }
    assert set(issues["table_availability"]["info"]) == {
        "db",
        "raft_leader",
        "shards",
        "status",
        "table",
    }


def test_the_server_chooses_the_iterations(node):
    with node.faulty("huge_iterations"), dialled(node) as sock:
        sock.sendall(HELLO)
        message(sock)
        assert message(sock).endswith(b',i=20000000","success":true}')
    with node.faulty("huge_iterations", iterations=5000):
        assert is_well(node)


def test_system_tables_may_hang_while_the_rest_answers(node):
    with connected(node) as connection:
        node.set_fault("hang_system_tables")
        assert connection.server()["name"] == "db1"
        assert len(system(connection, "server_status")) == 1
    node.clear()
    with connected(node) as connection:
        node.set_fault("hang_system_tables")
        sock = connection._instance._socket._socket
        query = json.dumps([1, [15, [[14, ["rethinkdb"]], "table_status"]]]).encode()
        sock.sendall(struct.pack("<QI", 500, len(query)) + query)
        assert silence(sock)
        assert json.loads(ask(connection, [3], token=500)) == {"t": 2, "r": [], "n": []}
        sock.sendall(struct.pack("<QI", 501, len(query)) + query)
        assert r.expr(1).run(connection) == 1
        node.clear()
        sock.settimeout(SOON_S)
        assert struct.unpack("<Q", exactly(sock, 8)) == (501,)


def test_permission_may_be_missing(node):
    with connected(node) as connection, node.faulty("no_permission"):
        words = "User `admin` does not have the required `read` permission."
        with pytest.raises(ReqlPermissionError, match=words):
            system(connection, "table_status")
        assert r.expr(1).run(connection) == 1


def test_the_version_may_be_missing_or_another(node):
    with node.faulty("no_version"):
        with dialled(node) as sock:
            sock.sendall(HELLO)
            assert "server_version" not in json.loads(message(sock))
        assert is_well(node)
    with node.faulty("server_version", version="3.0"), dialled(node) as sock:
        sock.sendall(HELLO)
        assert json.loads(message(sock))["server_version"] == "3.0"


@pytest.mark.parametrize("step", simulated.STEPS[:2])
def test_a_handshake_may_be_no_utf8_or_too_big(node, step):
    count = simulated.STEPS.index(step) + 1
    with node.faulty("non_utf8", at=step), dialled(node) as sock:
        sock.sendall(HELLO)
        with pytest.raises(UnicodeDecodeError):
            [message(sock) for _ in range(count)][-1].decode()
    with node.faulty("big_document", bytes=20_000, at=step), dialled(node) as sock:
        sock.sendall(HELLO)
        assert len([message(sock) for _ in range(count)][-1]) > 20_000


def test_an_answer_may_be_no_utf8_or_too_big(node):
    with connected(node) as connection:
        node.set_fault("non_utf8", at="query")
        with pytest.raises(UnicodeDecodeError):
            ask(connection, [5]).decode()
        node.set_fault("big_document", bytes=300_000)
        assert len(ask(connection, [5])) > 300_000
        assert len(r.expr(1).run(connection)) == 300_000
        assert len(system(connection, "current_issues")[0]["padding"]) == 300_000


def test_faults_may_be_combined(node):
    node.set_fault("no_version")
    node.set_fault("server_version", add=True)
    assert set(node.command({"status": True})["faults"]) == {"no_version", "server_version"}
    node.set_fault("silent")
    assert set(node.command({"status": True})["faults"]) == {"silent"}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("tired", {}, "no fault 'tired'"),
        ("slow", {"delay": 1}, "no option 'delay'"),
        ("slow", {"delay_s": "1"}, "no float"),
        ("stall", {"stall_at": "lunch"}, "none of version"),
        ("issue", {"types": ["nothing"]}, "no issue type 'nothing'"),
        ("silent", {"on_existing": "ask"}, "none of keep, drop"),
    ],
)
def test_a_misspelt_fault_is_refused(node, name, options, words):
    with pytest.raises(UnknownFault, match=words):
        node.set_fault(name, **options)
    assert is_well(node)


# ---- The cluster


@pytest.fixture
def cluster():
    with SimulatedNode("db1") as one, SimulatedNode("db2") as two, SimulatedNode("db3") as three:
        acquaint(one, two, three)
        everyone = {"db1", "db2", "db3"}
        for node in (one, two, three):
            # On a busy machine the first look may find a peer too late with its answer.
            assert eventually(lambda node=node: set(seen_by(node)) == everyone)
        yield one, two, three


def seen_by(node):
    with connected(node, "") as connection:
        return {
            row["name"]: set(row["network"]["connected_to"])
            for row in system(connection, "server_status")
        }


def table_of(node):
    with connected(node, "") as connection:
        return system(connection, "table_status")[0]


def test_nodes_that_know_each_other_are_a_cluster(cluster):
    everyone = {"db1": {"db2", "db3"}, "db2": {"db1", "db3"}, "db3": {"db1", "db2"}}
    assert eventually(lambda: [seen_by(node) for node in cluster] == [everyone] * 3)
    assert {table_of(node)["id"] for node in cluster} == {table_of(cluster[0])["id"]}
    assert table_of(cluster[0])["status"]["all_replicas_ready"] is True


def test_a_lost_node_leaves_the_rest_writable_and_an_issue(cluster):
    one, two, three = cluster
    three.set_fault("refuse")
    assert eventually(lambda: set(seen_by(one)) == {"db1", "db2"})
    table = table_of(one)
    assert table["status"]["ready_for_writes"] is True
    assert table["status"]["all_replicas_ready"] is False
    assert {"server": "db3", "state": "disconnected"} in table["shards"][0]["replicas"]
    with connected(one, "") as connection:
        (issue,) = system(connection, "current_issues")
    assert issue["type"] == "table_availability"
    assert issue["critical"] is False
    assert issue["description"].endswith("The following servers are not reachable: db3")
    three.clear()
    assert eventually(lambda: set(seen_by(two)) == {"db1", "db2", "db3"})


def test_without_a_majority_nothing_can_be_written(cluster):
    one, two, three = cluster
    two.set_fault("silent")
    three.set_fault("refuse")
    assert eventually(lambda: set(seen_by(one)) == {"db1"})
    table = table_of(one)
    assert table["raft_leader"] is None
    assert table["status"]["ready_for_outdated_reads"] is True
    assert table["status"]["ready_for_reads"] is False
    assert table["status"]["ready_for_writes"] is False
    assert {"server": "db1", "state": "waiting_for_primary"} in table["shards"][0]["replicas"]


def test_a_partitioned_node_sees_itself_only_and_is_not_seen(cluster):
    one, two, three = cluster
    three.set_fault("partitioned")
    assert set(seen_by(three)) == {"db3"}
    assert table_of(three)["status"]["ready_for_writes"] is False
    assert eventually(lambda: set(seen_by(one)) == set(seen_by(two)) == {"db1", "db2"})


def test_a_node_never_met_is_a_replica_all_the_same():
    with SimulatedNode(join=(("127.0.0.1", free_port()),)) as node:
        table = table_of(node)
    assert table["status"]["ready_for_writes"] is False
    assert len(table["shards"][0]["replicas"]) == 2


# ---- Life in a thread


def test_nothing_is_left_behind(caplog):
    caplog.set_level(logging.DEBUG, logger="asyncio")
    before = set(threading.enumerate())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with SimulatedNode("db1", "secret") as node, contextlib.ExitStack() as open_ones:
            node.set_fault("silent")
            for _ in range(3):
                open_ones.enter_context(dialled(node)).sendall(HELLO)
            node.set_fault("garbage", endless=True)
            open_ones.enter_context(dialled(node))
            assert node.wait_for(lambda: node.connections == 4)
            node.stop()
        gc.collect()
    assert set(threading.enumerate()) == before
    assert [str(each.message) for each in warned if each.category is ResourceWarning] == []
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_a_taken_port_is_told_to_the_test(node):
    with pytest.raises(simulated.StartError, match="already in use"), SimulatedNode(port=node.port):
        pass


# ---- As a process


@pytest.fixture
def config(tmp_path):
    def make(name="db1", **options):
        defaults = {
            "directory": tmp_path / name,
            "server_name": name,
            "driver_port": free_port(),
            "cluster_port": free_port(),
            "initial_password": "secret",
            "no_http_admin": True,
        }
        return write_config(tmp_path / f"{name}.conf", **{**defaults, **options})

    return make


def asked(process):
    port = process.settings.driver_port
    connection = r.connect("127.0.0.1", port, password="secret", timeout=SOON_S)
    try:
        return connection.server(), system(connection, "server_status")
    finally:
        connection.close(noreply_wait=False)


def test_a_process_serves_and_ends_cleanly(config):
    with SimulatedProcess(config(cache_size=16, log_file=None)) as process:
        info, (row,) = asked(process)
        assert info["name"] == "db1"
        assert row["process"]["pid"] == process.pid
        assert row["process"]["cache_size_mb"] == 16
        assert "--config-file" in row["process"]["argv"]
        directory = process.settings.directory
        assert f'Server ready, "db1" {info["id"]}' in (directory / "log_file").read_text()
        assert process.stop() == 0
        assert not (directory / "control.sock").exists()


def test_the_id_survives_a_kill_and_the_fault_does_not(config):
    with SimulatedProcess(config()) as process:
        before, _ = asked(process)
        assert process.control({"fault": "refuse"})["faults"] == {
            "refuse": {"cluster_too": True, "name": "refuse"}
        }
        with pytest.raises(ReqlDriverError, match="refused"):
            asked(process)
        process.kill()
        assert process.returncode == -signal.SIGKILL
        process.start()
        process.wait_ready()
        after, _ = asked(process)
        assert after == before


def test_sigint_is_a_clean_end_too(config):
    with SimulatedProcess(config()) as process:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait_ended(SOON_S) == (0, "")


def test_a_paused_process_accepts_and_does_not_answer(config):
    with SimulatedProcess(config()) as process:
        process.pause()
        port = process.settings.driver_port
        with socket.create_connection(("127.0.0.1", port), timeout=SOON_S) as sock:
            sock.sendall(HELLO)
            assert silence(sock)
            process.resume()
            sock.settimeout(SOON_S)
            assert b"server_version" in message(sock)
        process.pause()
        assert process.stop() == 0


def test_the_control_socket_takes_commands(config):
    with SimulatedProcess(config()) as process:
        assert process.control({"status": True})["faults"] == {}
        asked(process)
        assert process.control({"status": True})["logins"] == 1
        with pytest.raises(RuntimeError, match="no fault 'tired'"):
            process.control({"fault": "tired"})
        with pytest.raises(RuntimeError, match="no command 'help'"):
            process.control({"help": True})
        process.control({"fault": "wrong_password", "on_existing": "drop"})
        with pytest.raises(ReqlAuthError, match="Wrong password"):
            asked(process)
        process.control({"fault": None})
        assert process.control({"batch": 1})["name"] == "db1"
        asked(process)


def test_a_fault_may_stand_in_the_config(config):
    fault = json.dumps({"fault": "wrong_password"})
    with (
        SimulatedProcess(config(simulate_fault=fault)) as process,
        pytest.raises(ReqlAuthError, match="Wrong password"),
    ):
        asked(process)


def test_processes_find_each_other_and_remember_who_was_there(config):
    ports = {name: free_port() for name in ("db1", "db2")}
    one = SimulatedProcess(
        config("db1", cluster_port=ports["db1"], join=[f"127.0.0.1:{ports['db2']}"])
    )
    two = SimulatedProcess(
        config("db2", cluster_port=ports["db2"], join=[f"127.0.0.1:{ports['db1']}"])
    )
    with one:
        with two:
            assert eventually(lambda: {row["name"] for row in asked(one)[1]} == {"db1", "db2"})
            two.kill()
            assert eventually(lambda: {row["name"] for row in asked(one)[1]} == {"db1"})
        one.kill()
        one.start()
        one.wait_ready()
        port = one.settings.driver_port
        connection = r.connect("127.0.0.1", port, password="secret", timeout=SOON_S)
        (table,) = system(connection, "table_config")
        connection.close(noreply_wait=False)
        assert table["shards"][0]["replicas"] == ["db1", "db2"]


def test_without_a_file_to_open_only_connections_that_are_open_go_on(config):
    ports = {name: free_port() for name in ("db1", "db2")}
    one, two = (
        SimulatedProcess(config(name, cluster_port=ports[name], join=[f"127.0.0.1:{ports[other]}"]))
        for name, other in (("db1", "db2"), ("db2", "db1"))
    )

    def takes_new():
        with contextlib.suppress(OSError):
            address = ("127.0.0.1", one.settings.driver_port)
            with socket.create_connection(address, timeout=0.3) as sock:
                sock.settimeout(0.3)
                sock.sendall(HELLO)
                return bool(sock.recv(1))
        return False

    with one, two:
        port = one.settings.driver_port
        connection = r.connect("127.0.0.1", port, password="secret", timeout=SOON_S)
        both = {"db1", "db2"}
        for seen in (lambda: system(connection, "server_status"), lambda: asked(two)[1]):
            assert eventually(lambda seen=seen: {row["name"] for row in seen()} == both)
        undo = spend_open_files(one.pid, takes_new)
        time.sleep(2 * CLUSTER_LOOK_TTL_S)  # each looks again
        assert {row["name"] for row in system(connection, "server_status")} == both
        assert {row["name"] for row in asked(two)[1]} == both
        assert not takes_new()
        undo()
        assert eventually(takes_new)
        connection.close(noreply_wait=False)


def test_a_process_without_room_on_its_disk_does_not_start(config, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert simulated.main(["--config-file", str(config())]) == 1
    assert "Ran out of disk space" in capsys.readouterr().err


def test_the_kernel_calls_a_process_what_it_calls_a_real_one(config):
    with SimulatedProcess(config()) as process:
        assert Path(f"/proc/{process.pid}/comm").read_text() == "rethinkdb\n"
        before = process.control({"status": True})["pid"]
        process.control({"fault": "memory", "bytes": 1000})
        assert process.control({"fault": None})["pid"] == before


def test_with_its_peers_down_the_driver_port_may_open_late(config):
    late = SimulatedProcess(config(join=[f"127.0.0.1:{free_port()}"], simulate_join_wait=60))
    late.start()
    eventually(lambda: (late.settings.directory / "control.sock").exists())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", late.settings.driver_port), timeout=SOON_S)
    assert late.stop() == 0


def test_a_second_process_finds_the_directory_in_use(config):
    with SimulatedProcess(config()):
        second = SimulatedProcess(config())
        second.start()
        with pytest.raises(RuntimeError, match=r"ended with 1: Directory '.*' is already in use"):
            second.wait_ready()


def test_a_taken_driver_port_ends_it(config):
    with SimulatedProcess(config()) as process:
        port = process.settings.driver_port
        second = SimulatedProcess(config("db2", driver_port=port))
        second.start()
        with pytest.raises(RuntimeError, match=r"ended with 1: .*Could not bind to RDB protocol"):
            second.wait_ready()


# ---- The config file


def test_a_config_is_read_as_rethinkdb_reads_it(tmp_path):
    path = tmp_path / "x.conf"
    path.write_text(
        "# a comment\n"
        "  directory = /somewhere  # another\n"
        "bind=all\ndriver-port=1000\ncluster-port=1001\nserver-name=db_1\n"
        "join=a:5\njoin=b\ncanonical-address=c\n"
        "no-update-check\nhttp-port=8000\ncores=2\ncache-size=64\nrunuser=rethinkdb\n"
        "simulate-tables=a.b, a.c\nsimulate-user=bob:x:y\n"
    )
    settings = simulated.read_config(path)
    assert settings.addresses == ("0.0.0.0",)
    assert (settings.driver_port, settings.cluster_port, settings.http_port) == (1000, 1001, 8000)
    assert settings.join == (("a", 5), ("b", 29015))
    assert settings.canonical_addresses == (("c", 1001),)
    assert settings.tables == ("a.b", "a.c")
    assert settings.users == (("admin", ""), ("bob", "x:y"))
    assert str(settings.control) == "/somewhere/control.sock"
    assert settings.cache_size_mb == 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "line 1: unrecognized option name 'nonsense'"),
        ("directory=x\nfoo=1", "line 2: unrecognized option name 'foo'"),
        ("driver-port", "parse error at line 1"),
        ("driver-port=", "no parameter for option 'driver-port'"),
        ("= 5", "parse error at line 1"),
        ("no-http-admin=1", "unexpected data after no-parameter option"),
        ("driver-port=1\ndriver-port=2", "specified too many times"),
        ("driver-port=abc", "must be a port"),
        ("driver-port=99999", "must be a port"),
        ("join=x:y", "must be a port"),
        ("server-name=a b", "must be a name"),
        ("cores=0", "must be at least 1"),
        ("cache-size=much", "must be a number"),
        ("driver-tls-key=x", "must be specified together"),
        ("simulate-tables=x", "must be db.table"),
        ("simulate-user=x", "must be NAME:PASSWORD"),
        ('simulate-fault={"fault": "tired"}', "must be a known fault"),
        ("simulate-fault=5", "must be a known fault"),
        ("\x00", "unrecognized option name"),
    ],
)
def test_a_damaged_config_is_an_error_with_its_place(tmp_path, text, words):
    path = tmp_path / "x.conf"
    path.write_text(text)
    with pytest.raises(simulated.StartError, match=words):
        simulated.read_config(path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config-file"],
        ["--config-file", "{tmp}/missing.conf"],
        ["--config-file", "{tmp}/damaged.conf"],
        ["--config-file", "{tmp}/long.conf"],
        ["--config-file", "{tmp}/file.conf"],
        ["--config-file", "{tmp}/tls.conf"],
    ],
)
def test_whatever_is_wrong_is_one_error_and_exit_code_1(tmp_path, capsys, arguments):
    (tmp_path / "damaged.conf").write_text("\x01\x02=")
    (tmp_path / "a_file").write_text("")
    ports = {"driver_port": free_port(), "cluster_port": free_port(), "no_http_admin": True}
    write_config(tmp_path / "file.conf", directory=tmp_path / "a_file", **ports)
    write_config(
        tmp_path / "long.conf",
        directory=tmp_path / "x",
        simulate_control="/tmp/" + "x" * 120,
        **ports,
    )
    missing = tmp_path / "missing"
    write_config(
        tmp_path / "tls.conf",
        directory=tmp_path / "y",
        driver_tls_key=missing,
        driver_tls_cert=missing,
        **ports,
    )
    assert simulated.main([each.format(tmp=tmp_path) for each in arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1


def test_the_module_imports_nothing_but_the_standard_library():
    code = (
        "import sys, tests.lab.simulated; "
        "print({name.partition('.')[0] for name in sys.modules}"
        " - set(sys.stdlib_module_names) - {'__main__', 'tests'})"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=SimulatedProcess.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
