"""Each fault from its evidence, against the simulated node; the deadline, whatever the other side does."""

import asyncio
import datetime
import errno
import socket
import threading
import time

import pytest
import trustme
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from saltext_selfheal import probe
from saltext_selfheal import wire
from saltext_selfheal.config import Address
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.healing.model import Observed
from saltext_selfheal.healing.model import Viewed
from saltext_selfheal.healing.model import ViewStatus
from tests.lab.simulated import SimulatedNode
from tests.lab.simulated import acquaint

TIMEOUT_S = 0.5
SLACK_S = (
    0.4  # a probe keeps its deadline to some milliseconds; a busy machine may wake the test later
)


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


def target(server, **changes):
    values = {
        "cluster": "runbook", "node": "db1", "address": Address(server.host, server.port), "password": "secret",
        "timeout_s": TIMEOUT_S, "poll_s": 0.05,
    }  # fmt: skip
    return probe.Target(**{**values, **changes})


def look(server, **changes):
    return probe.probe_once(target(server, **changes))


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
        ("garbage", {}, Fault.ALIEN, "sent b'HTTP/1.1 400 Bad Request"),
        (
            "garbage",
            {"endless": True, "bytes": "x" * 4096},
            Fault.ALIEN,
            "without ending its greeting",
        ),
        ("close_on_connect", {}, Fault.ALIEN, "closes the connection in the handshake"),
        ("close_mid_answer", {"at": "version"}, Fault.ALIEN, "and hung up"),
        ("close_mid_answer", {"at": "query"}, Fault.ALIEN, "closes the connection in the answer"),
        ("reset", {}, Fault.ALIEN, "the connection"),
        ("huge_iterations", {}, Fault.ALIEN, "asks for 20000000 rounds of PBKDF2"),
        ("non_utf8", {"at": "version"}, Fault.ALIEN, "UnicodeDecodeError"),
        ("non_utf8", {"at": "query"}, Fault.ALIEN, "UnicodeDecodeError"),
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
    ("fault", "options", "version"),
    [
        ("no_version", {}, None),
        ("server_version", {"version": "2.3.7"}, "2.3.7"),
        ("big_document", {"bytes": 2_000_000, "at": "query"}, "2.4.4"),
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

    monkeypatch.setattr(probe.socket, "socket", no_more)

    async def go():
        with probe.ThreadPoolExecutor(1) as crypto:
            return await probe.Look(target(well), probe.Resolver(), crypto).probe()

    # Not by probe_once: the loop needs its own sockets before.
    monkeypatch.undo()
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(probe.socket, "socket", no_more)
    try:
        seen = loop.run_until_complete(go())
    finally:
        monkeypatch.undo()
        loop.close()
    assert seen.ours
    assert "this master cannot open a connection: Too many open files" in seen.evidence


# ---------------------------------------------------------------- addresses


def resolving(monkeypatch, *rows):
    monkeypatch.setattr(
        probe.socket, "getaddrinfo", lambda *_, **__: [(f, 1, 6, "", addr) for f, addr in rows]
    )


def test_all_addresses_of_a_name_are_tried(well, monkeypatch):
    closed = probe.socket.socket()
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
    seen = probe.probe_once(probe.Target("c", "n", Address("::1", port), timeout_s=TIMEOUT_S))
    assert seen.fault is Fault.DEAD
    assert f"[::1]:{port}" in seen.evidence


def test_the_last_good_addresses_serve_while_the_resolver_is_stuck(well, monkeypatch):
    stuck = threading.Event()
    address = Address("db1.example", well.port)

    async def go():
        resolver = probe.Resolver()
        with probe.ThreadPoolExecutor(1) as crypto:
            one = probe.Look(target(well, address=address), resolver, crypto)
            seen = [await one.probe()]
            one.close()
            monkeypatch.setattr(probe.socket, "getaddrinfo", lambda *_, **__: stuck.wait(10))
            for _ in range(10):
                seen.append(await one.probe())
                one.close()
        waiting = len(resolver._asking)
        stuck.set()
        resolver.close()
        return seen, waiting

    resolving(monkeypatch, (socket.AF_INET, (well.host, well.port)))
    seen, waiting = asyncio.run(go())
    assert [s.fault for s in seen] == [None] * 11
    assert waiting == 1  # ten probes, one question


def test_a_resolver_that_is_stuck_from_the_start_holds_nobody_else(well, monkeypatch):
    stuck = threading.Event()
    monkeypatch.setattr(probe.socket, "getaddrinfo", lambda *_, **__: stuck.wait(10))

    async def go():
        resolver = probe.Resolver()
        with probe.ThreadPoolExecutor(1) as crypto:
            names = [target(well, address=Address(f"db{n}.example", 1)) for n in range(20)]
            looks = [probe.Look(t, resolver, crypto) for t in (*names, target(well))]
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


# ---------------------------------------------------------------- TLS


def served_with(tmp_path, cert):
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    cert.private_key_pem.write_to_path(key)
    for number, blob in enumerate(cert.cert_chain_pems):
        blob.write_to_path(chain, append=number > 0)
    return SimulatedNode(name="db1", password="secret", tls=(chain, key))


@pytest.fixture
def authority(tmp_path):
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    made.path = tmp_path / "ca.pem"
    return made


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_by_name_and_by_ip_address(authority, tmp_path, host, monkeypatch):
    with served_with(tmp_path, authority.issue_cert("127.0.0.1", "localhost")) as node:
        resolving(monkeypatch, (socket.AF_INET, (node.host, node.port)))
        context = probe.tls_context(str(authority.path))
        assert look(node, address=Address(host, node.port), tls=context).fault is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("expired", "certificate has expired"),
        ("foreign", "self-signed certificate in certificate chain"),
        ("host", "IP address mismatch"),
    ],
)
def test_each_wrong_certificate_is_told_apart(authority, tmp_path, wrong, told):
    if wrong == "expired":
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        cert = authority.issue_cert("127.0.0.1", not_after=past)
    elif wrong == "foreign":
        other = trustme.CA()
        cert = other.issue_cert("127.0.0.1")
        cert.cert_chain_pems.append(other.cert_pem)
    else:
        cert = authority.issue_cert("10.0.0.99")
    with served_with(tmp_path, cert) as node:
        seen = look(node, tls=probe.tls_context(str(authority.path)))
    assert seen.fault is Fault.TLS
    assert told in seen.evidence.replace("self signed", "self-signed")


def test_tls_against_a_server_without_it(well, authority):
    seen = look(well, tls=probe.tls_context(str(authority.path)))
    assert seen.fault in (Fault.TLS, Fault.HUNG, Fault.ALIEN)
    assert seen.latency_s < TIMEOUT_S + SLACK_S


def test_a_silent_server_under_tls_is_hung(authority):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(*silent.getsockname())
        context = probe.tls_context(str(authority.path))
        seen = probe.probe_once(probe.Target("c", "n", address, tls=context, timeout_s=TIMEOUT_S))
    assert (seen.fault, "no TLS handshake" in seen.evidence) == (Fault.HUNG, True)
    assert seen.latency_s < TIMEOUT_S + SLACK_S


# ---------------------------------------------------------------- connections that stay


class Watching:
    """A prober and what it delivered."""

    def __init__(self, *targets, plans=None):
        self.seen = []
        self._changed = threading.Condition()
        self._prober = probe.Prober(targets, self._take, plans)

    def _take(self, event):
        with self._changed:
            self.seen.append((time.monotonic(), event))
            self._changed.notify_all()

    def __enter__(self):
        self._prober.start()
        return self

    def __exit__(self, *_):
        self._prober.stop()

    def wait(self, wanted, timeout_s=10.0):
        """The first delivery (moment, event) from now on that is wanted."""
        with self._changed:
            start = len(self.seen)
            deadline = time.monotonic() + timeout_s
            while True:
                for at, event in self.seen[start:]:
                    if wanted(event):
                        return at, event
                assert self._changed.wait(
                    max(0.0, deadline - time.monotonic())
                ), "not delivered in time"


def is_fault(fault, node="db1"):
    return (
        lambda e: isinstance(e, Observed)
        and e.observation.node == node
        and e.observation.fault is fault
    )


def test_the_connection_stays_open_between_probes(well):
    before = well.dials
    with Watching(target(well)) as watching:
        for _ in range(10):
            watching.wait(is_fault(None))
    assert well.dials == before + 1


def test_the_end_of_the_open_connection_is_seen_at_once(well):
    with Watching(target(well, poll_s=3.0)) as watching:
        watching.wait(is_fault(None))
        well.set_fault("refuse", on_existing="drop")
        cut = time.monotonic()
        at, _ = watching.wait(is_fault(Fault.DEAD))
    assert at - cut < 1.5  # not by the interval; the benchmark tells the milliseconds


def test_a_connection_that_is_only_dropped_is_no_fault(well):
    with Watching(target(well)) as watching:
        watching.wait(is_fault(None))
        dials = well.dials
        well.drop_connections()
        well.wait_for(lambda: well.dials > dials, 5.0)
        watching.wait(is_fault(None))
    assert {e.observation.fault for _, e in watching.seen} == {None}


def test_a_sick_node_does_not_delay_anothers_probe(well):
    with (
        SimulatedNode(name="db2", password="secret") as sick,
        Watching(target(well), target(sick, node="db2")) as watching,
    ):
        watching.wait(is_fault(None, "db2"))
        sick.set_fault("silent", on_existing="drop")
        watching.wait(is_fault(Fault.HUNG, "db2"))
        others = [at for at, e in watching.seen if e.observation.node == "db1"]
        watching.wait(is_fault(Fault.HUNG, "db2"))
    assert len(others) >= 5


# ---------------------------------------------------------------- the cluster's view


@pytest.fixture
def cluster():
    made = [SimulatedNode(name=f"db{n}", password="secret") for n in (1, 2, 3)]
    with made[0], made[1], made[2]:
        acquaint(*made)
        yield made


PLAN = {"runbook": probe.ViewPlan(every_s=0.1, timeout_s=1.0)}


def watching_all(nodes, plans=None):
    return Watching(*(target(n, node=n.name) for n in nodes), plans=plans or PLAN)


def is_view(wanted):
    return lambda e: isinstance(e, Viewed) and wanted(e.view)


def known(view):
    return view.status is ViewStatus.KNOWN


def test_a_view_shows_tables_replicas_and_who_is_connected(cluster):
    ids = frozenset(n.id for n in cluster)
    with watching_all(cluster) as watching:
        _, event = watching.wait(
            is_view(
                lambda v: known(v) and len(v.connected) == 3 and set(v.connected.values()) == {ids}
            )
        )
        view = event.view
    (table,) = view.tables
    assert (table.name, table.reads, table.writes, table.all_replicas) == (
        "runbook.runbook",
        True,
        True,
        True,
    )
    (shard,) = table.shards
    assert {(r.server, r.state, r.voting) for r in shard.replicas} == {
        (n.name, "ready", True) for n in cluster
    }
    assert set(view.started) == ids
    assert view.issues == ()


def test_tables_that_are_not_ready_and_issues_are_in_the_view(cluster):
    for node in cluster:
        node.set_fault("tables_not_ready", readiness="outdated_reads")
        node.set_fault("issue", types=["log_write_error"], add=True)
    with watching_all(cluster) as watching:
        _, event = watching.wait(is_view(lambda v: known(v) and v.issues))
    assert (event.view.tables[0].reads, event.view.tables[0].writes) == (False, False)
    assert event.view.issues[0].type == "log_write_error"


def test_a_partition_is_seen_as_disagreement(cluster):
    with watching_all(cluster) as watching:
        watching.wait(
            is_view(lambda v: known(v) and all(len(c) == 3 for c in v.connected.values()))
        )
        cluster[0].set_fault("partitioned")
        watching.wait(
            is_view(
                lambda v: known(v)
                and v.connected.get("db1") == {cluster[0].id}
                and not any(cluster[0].id in v.connected[n] for n in ("db2", "db3"))
            )
        )


def test_system_tables_that_hang_mean_unknown_and_no_fault_of_a_node(cluster):
    for node in cluster:
        node.set_fault("hang_system_tables")
    with watching_all(cluster) as watching:
        _, event = watching.wait(is_view(lambda v: v.status is ViewStatus.UNKNOWN))
        assert "some peer hangs" in event.view.why
        assert {e.observation.fault for _, e in watching.seen if isinstance(e, Observed)} == {None}


def test_a_user_who_may_not_read_is_told_the_missing_grant_and_the_node_is_alive(cluster):
    for node in cluster:
        node.set_fault("no_permission")
    with watching_all(cluster) as watching:
        _, event = watching.wait(is_view(lambda v: v.status is ViewStatus.FORBIDDEN))
        watching.wait(is_fault(None))
    assert "missing: r.db('rethinkdb').grant('admin', {read: true})" in event.view.why
    assert "\n" not in event.view.why


def test_the_tables_are_asked_of_one_live_node_a_round_in_turn(cluster):
    with watching_all(cluster) as watching:
        asked = {watching.wait(is_view(known))[1].view.node for _ in range(9)}
        cluster[1].set_fault("refuse", on_existing="drop")
        watching.wait(is_fault(Fault.DEAD, "db2"))
        later = {watching.wait(is_view(known))[1].view.node for _ in range(6)}
    assert asked == {"db1", "db2", "db3"}
    assert later == {"db1", "db3"}


def test_ten_thousand_tables_come_in_batches_and_hold_up_no_probe():
    tables = tuple(f"runbook.t{n}" for n in range(10_000))
    with SimulatedNode(name="db1", password="secret", tables=tables, batch=500) as node:
        plan = {"runbook": probe.ViewPlan(every_s=0.1, timeout_s=30.0)}
        with Watching(target(node, timeout_s=5.0), plans=plan) as watching:
            _, event = watching.wait(is_view(known), timeout_s=60.0)
    assert len(event.view.tables) == 10_000
    assert {e.observation.fault for _, e in watching.seen if isinstance(e, Observed)} == {None}


# ---------------------------------------------------------------- anything at all


class Babbler:
    """A server that answers each connection with given bytes, whatever it is asked."""

    def __init__(self):
        self.says = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self.listener.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(self.says)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(1)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass


@pytest.fixture(scope="module")
def babbler():
    made = Babbler()
    yield made
    made.listener.close()


OK = (
    b'{"success":true,"min_protocol_version":0,"max_protocol_version":0,"server_version":"2.4.4"}\0'
)
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
    seen = probe.probe_once(probe.Target("c", "n", babbler.address, timeout_s=1.0))
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
def test_odd_answers_after_a_good_handshake_are_alien(well, answer, monkeypatch):
    real = wire.Wire._send

    def send(self, data):
        if not self._greeting:
            self.data_received(answer)
            return
        real(self, data)

    monkeypatch.setattr(wire.Wire, "_send", send)
    assert look(well).fault is Fault.ALIEN


def test_a_gigabyte_without_a_nul_is_cut_off_early(babbler):
    babbler.says = b"x" * 50_000_000
    seen = probe.probe_once(probe.Target("c", "n", babbler.address, timeout_s=2.0))
    assert seen.fault is Fault.ALIEN
    assert seen.latency_s < 1.0
