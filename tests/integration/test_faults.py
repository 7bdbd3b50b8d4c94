"""Faults made for real: a full disk, a wrong password, a lost quorum, a partition. No Salt in it: probe and nodes."""

import contextlib
import os
import shutil
import subprocess
import time
import uuid

import pytest
from rethinkdb import RethinkDB

from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing.events import ViewStatus
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.node import Target, probe_once
from saltext_selfheal.probe.tables import ViewPlan
from tests.lab.ports import free_port
from tests.lab.site import REAL, server_command
from tests.lab.watching import Watching

LOOPBACK = "127.0.0.1"
PASSWORD = "secret"

real = pytest.mark.skipif(
    server_command(None)[0] != REAL, reason="needs a real rethinkdb on PATH or in RETHINKDB"
)
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (mount, network namespaces)")


class Server:
    """A RethinkDB process of this test's own: real where there is one, else simulated."""

    def __init__(self, folder, name, join=(), directory=None, bind=LOOPBACK, prefix=()):
        self.name, self.bind = name, bind
        self.driver_port, self.cluster_port = free_port(), free_port()
        self.prefix = tuple(prefix)
        self.config = folder / f"{name}.conf"
        lines = [
            f"directory={directory or folder / name}",
            f"server-name={name}",
            f"bind={bind}",
            f"driver-port={self.driver_port}",
            f"cluster-port={self.cluster_port}",
            "no-http-admin",
            "no-update-check",
            "cache-size=16",
            f"initial-password={PASSWORD}",
            *(f"join={address}" for address in join),
        ]
        self.config.write_text("\n".join(lines) + "\n")
        self.log = folder / f"{name}.log"
        self.process = None

    def start(self):
        _, command = server_command(None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *command, str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        return self

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def target(self, **changes):
        values = {
            "cluster": "runbook", "node": self.name, "address": Address(self.bind, self.driver_port),
            "password": PASSWORD, "poll_s": 0.2, "timeout_s": 2.0,
        }  # fmt: skip
        return Target(**{**values, **changes})

    def look(self, **changes):
        return probe_once(self.target(**changes))

    def wait(self, fault=None, timeout_s=40.0):
        deadline = time.monotonic() + timeout_s
        while (seen := self.look()).fault is not fault:
            assert time.monotonic() < deadline, (seen, self.log.read_text()[-2000:])
            time.sleep(0.05)
        return seen

    @contextlib.contextmanager
    def connection(self):
        driver = RethinkDB()
        connection = driver.connect(
            self.bind, self.driver_port, user="admin", password=PASSWORD, timeout=5
        )
        try:
            yield driver, connection
        finally:
            connection.close(noreply_wait=False)


@pytest.fixture
def servers():
    """What is started here ends with the test."""
    started = []
    yield started
    for server in started:
        server.kill()


def watching(servers, timeout_s=20.0):
    """A prober over these servers that also reads their tables."""
    plans = {"runbook": ViewPlan(every_s=0.2, timeout_s=timeout_s)}
    return Watching(*(server.target() for server in servers), plans=plans)


def cluster_of_three(folder, servers, directories=()):
    """Three joined servers and a table with three replicas (the simulated ones claim theirs)."""
    own = dict(directories)  #: by name: where a server has its data, if not in the folder
    made = [Server(folder, name, directory=own.get(name)) for name in ("db1", "db2", "db3")]
    peers = [f"{LOOPBACK}:{s.cluster_port}" for s in made]
    for server in made:
        with server.config.open("a") as config:
            config.writelines(
                f"join={p}\n" for p in peers if p != f"{LOOPBACK}:{server.cluster_port}"
            )
    for server in made:
        servers.append(server.start())
    for server in made:
        server.wait(None)
    if server_command(None)[0] == REAL:
        with made[0].connection() as (r, connection):
            while r.db("rethinkdb").table("server_status").count().run(connection) < 3:
                time.sleep(0.05)
            r.db_create("runbook").run(connection)
            r.db("runbook").table_create("runbook", replicas=3).run(connection)
            r.db("runbook").table("runbook").wait(wait_for="all_replicas_ready", timeout=60).run(
                connection
            )
    return made


def all_ready(view, _):
    return (
        view.status is ViewStatus.KNOWN
        and len(view.connected) == 3
        and all(t.all_replicas for t in view.tables)
    )


def test_a_cluster_of_three_loses_one_node_and_then_its_quorum(tmp_path, servers):
    made = cluster_of_three(tmp_path, servers)
    with watching(made) as views:
        views.wait_for_view(all_ready)
        made[2].kill()
        view = views.wait_for_view(
            lambda v, f: f.get("db3") is Fault.DEAD and v.status is ViewStatus.KNOWN
            and any(t.writes and not t.all_replicas for t in v.tables)
        )  # fmt: skip
        (table,) = view.tables
        states = {r.server: r.state for r in table.shards[0].replicas}
        assert states["db3"] == "disconnected"
        made[1].kill()
        view = views.wait_for_view(
            lambda v, f: f.get("db2") is Fault.DEAD and v.status is ViewStatus.KNOWN
            and any(not t.writes for t in v.tables)
        )  # fmt: skip
        assert views.faults["db1"] is None  # what is left answers: it is not to blame
        for server in made[1:]:
            server.start()
        views.wait_for_view(all_ready)


def test_a_stopped_peer_leaves_the_view_unknown_and_the_others_well(tmp_path, servers):
    made = cluster_of_three(tmp_path, servers)
    with watching(made, timeout_s=2.0) as views:
        views.wait_for_view(all_ready)
        made[2].process.send_signal(19)  # SIGSTOP
        views.wait_for_view(lambda v, f: f.get("db3") is Fault.HUNG)
        if server_command(None)[0] == REAL:
            views.wait_for_view(
                lambda v, f: v.status is ViewStatus.UNKNOWN and "some peer hangs" in v.why, 30.0
            )
        assert views.faults["db1"] is views.faults["db2"] is None
        made[2].process.send_signal(18)  # SIGCONT
        views.wait_for_view(all_ready)


def test_a_password_that_was_changed_is_auth_and_comes_back(tmp_path, servers):
    server = Server(tmp_path, "db1").start()
    servers.append(server)
    server.wait(None)
    assert server.look(password="wrong").fault is Fault.AUTH
    assert "Unknown user" in server.look(user="nobody").evidence
    if server_command(None)[0] == REAL:
        with server.connection() as (r, connection):
            users = r.db("rethinkdb").table("users")
            users.get("admin").update({"password": "other"}).run(connection)
            assert server.look().fault is Fault.AUTH
            users.get("admin").update({"password": PASSWORD}).run(connection)
        assert server.look().fault is None


@real
def test_a_user_without_grants_sees_the_node_alive_and_the_tables_forbidden(tmp_path, servers):
    server = Server(tmp_path, "db1").start()
    servers.append(server)
    server.wait(None)
    with server.connection() as (r, connection):
        r.db("rethinkdb").table("users").insert({"id": "selfheal", "password": "p"}).run(connection)

        class Limited:
            def target(self):
                return server.target(user="selfheal", password="p")

        with watching([Limited()]) as views:
            view = views.wait_for_view(lambda v, f: v.status is ViewStatus.FORBIDDEN)
            assert "missing: r.db('rethinkdb').grant('selfheal', {read: true})" in view.why
            assert views.faults["db1"] is None
            r.db("rethinkdb").grant("selfheal", {"read": True}).run(connection)
            views.wait_for_view(lambda v, f: v.status is ViewStatus.KNOWN)


@real
@root
def test_a_full_disk_ends_each_start_and_is_dead(tmp_path, servers):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        server = Server(tmp_path, "db1", directory=disk / "data").start()
        servers.append(server)
        server.wait(None)
        with (disk / "ballast").open("wb") as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"\0" * 65536)
                ballast.flush()
        with contextlib.suppress(Exception), server.connection() as (r, connection):
            r.db_create("runbook").run(connection)
            r.db("runbook").table_create("runbook").run(connection)
        server.wait(Fault.DEAD)
        server.process.wait(10)
        server.start()
        server.process.wait(10)
        assert server.look().fault is Fault.DEAD
        assert "disk" in server.log.read_text().lower() or "space" in server.log.read_text().lower()
    finally:
        for server in servers:
            server.kill()
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def islands():
    """Two network namespaces of our own, joined by a cable that can be pulled."""
    if not shutil.which("ip"):
        pytest.skip("needs ip (iproute2)")
    tag = uuid.uuid4().hex[:6]
    names = [f"sh{tag}a", f"sh{tag}b"]

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"no network namespaces here: {exc.stderr.decode().strip()}")
        ip(
            "-n",
            names[0],
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            names[1],
        )
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.231.77.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names, ip
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@real
@root
def test_a_partition_in_network_namespaces_is_disagreement(tmp_path, servers, islands):
    names, ip = islands
    # Each is looked at from inside its own namespace, where it answers although the cable is pulled.
    made = []
    for number, name in enumerate(names, 1):
        server = Server(tmp_path, f"db{number}", bind="all", prefix=["ip", "netns", "exec", name])
        made.append(server)
    for number, server in enumerate(made, 1):
        text = server.config.read_text().replace(
            "bind=all", f"bind=127.0.0.1\nbind=10.231.77.{number}"
        )
        other = made[2 - number]
        text += f"canonical-address=10.231.77.{number}\njoin=10.231.77.{3 - number}:{other.cluster_port}\n"
        server.config.write_text(text)
        servers.append(server.start())

    def connected(server, name):
        code = (
            "import asyncio,sys;from concurrent.futures import ThreadPoolExecutor as T;"
            "from saltext_selfheal.probe.node import NodeProbe, Target;from saltext_selfheal.probe.names import Resolver;"
            "from saltext_selfheal.probe.tables import TableReader, ViewPlan;from saltext_selfheal.driver.address import Address as A\n"
            "async def go():\n"
            f" l=NodeProbe(Target('c','{server.name}',A('127.0.0.1',{server.driver_port}),password='{PASSWORD}'),Resolver(),T(1))\n"
            " s=await l.probe()\n"
            " v=await TableReader('c',[l],ViewPlan(1,5)).take() if s.fault is None else None\n"
            f" print(s.server_id, *sorted(v.connected.get('{server.name}', ()) if v else ()));l.close()\n"
            "asyncio.run(go())"
        )
        done = subprocess.run(
            ["ip", "netns", "exec", name, os.sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
        )
        own, *ids = done.stdout.split()
        return own, set(ids)

    def wait_for(count):
        deadline = time.monotonic() + 60
        while True:
            seen = [connected(s, n) for s, n in zip(made, names, strict=True)]
            if all(len(ids) == count for _, ids in seen):
                return seen
            assert time.monotonic() < deadline, seen
            time.sleep(0.2)

    together = wait_for(2)
    ip("-n", names[0], "link", "set", "cable", "down")
    apart = wait_for(1)
    assert [ids for _, ids in apart] == [{own} for own, _ in together]
