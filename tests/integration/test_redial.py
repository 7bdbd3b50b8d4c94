"""What only a fresh dial sees, on a real RethinkDB: first without Salt, at last healed by it."""

import contextlib
import itertools
import logging
import subprocess
import time

import pytest

from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.node import Target, probe_once
from saltext_selfheal.probe.tables import ViewPlan
from tests.integration.test_faults import servers  # noqa: F401
from tests.integration.test_faults import LOOPBACK, PASSWORD, Server, real
from tests.integration.test_healing import started_jobs
from tests.lab.open_files import spend_open_files
from tests.lab.ports import free_port
from tests.lab.simulated import SimulatedNode
from tests.lab.site import server_command
from tests.lab.watching import Watching

pytestmark = real


@pytest.fixture
def server(tmp_path, servers):  # noqa: F811
    made = Server(tmp_path, "db1").start()
    servers.append(made)
    made.wait(None)
    return made


def test_a_server_out_of_open_files_is_hung_while_its_open_connection_answers(server):
    with Watching(server.target(redial_s=1.0)) as seen:
        seen.wait_for_fault("db1", None)
        undo = spend_open_files(
            server.process.pid, lambda: server.look(timeout_s=0.5).fault is None
        )
        told = seen.wait_for_fault("db1", Fault.HUNG)
        assert (told.answers, told.dialled, told.ours) == (True, True, False)
        assert "a connection that was open before answers" in told.evidence
        undo()
        assert seen.wait_for_fault("db1", None).dialled


def test_a_password_that_was_changed_is_seen_although_the_open_connection_answers(server):
    with Watching(server.target(redial_s=0.5)) as seen:
        seen.wait_for_fault("db1", None)
        with server.connection() as (r, connection):
            admin = r.db("rethinkdb").table("users").get("admin")
            admin.update({"password": "other"}).run(connection)
            told = seen.wait_for_fault("db1", Fault.AUTH)
            assert (told.answers, "Wrong password" in told.evidence) == (True, True)
            admin.update({"password": PASSWORD}).run(connection)
            seen.wait_for_fault("db1", None)


def test_the_cluster_port_and_a_proxy_say_what_they_are(server, tmp_path):
    told = probe_once(Target("c", "n", Address(LOOPBACK, server.cluster_port)))
    assert told.fault is Fault.ALIEN
    assert "that is its cluster port" in told.evidence
    assert not server.look().proxy
    _, command = server_command(None)
    port = free_port()
    process = subprocess.Popen(
        [
            command[0], "proxy", "--join", f"{LOOPBACK}:{server.cluster_port}", "--bind", LOOPBACK,
            "--driver-port", str(port), "--cluster-port", str(free_port()), "--no-http-admin", "--no-update-check",
            "--log-file", str(tmp_path / "proxy.log"), "--initial-password", PASSWORD,
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        target = Target("c", "n", Address(LOOPBACK, port), password=PASSWORD)
        deadline = time.monotonic() + 30
        while (told := probe_once(target)).fault is not None:
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
        assert (told.proxy, told.server_name) == (True, None)
        assert told.server_id != server.look().server_id
    finally:
        process.kill()
        process.wait()


def test_many_logins_at_once_are_quiet_and_nobody_is_suspected(server, caplog):
    targets = [server.target(node=f"n{number}", redial_s=2.0) for number in range(300)]
    with caplog.at_level(logging.INFO), Watching(*targets) as seen:
        for target in targets:
            seen.wait_for_fault(target.node, None)
        time.sleep(3.0)  # each of them is dialled once more
    assert {told.fault for _, told in seen.looks()} == {None}
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


@pytest.mark.parametrize("shape", ["documents", "lists"])
def test_a_huge_answer_holds_up_no_look_at_another_node(server, shape):
    with SimulatedNode(name="db2", password=PASSWORD) as hostile:
        hostile.set_fault("huge_answer", shape=shape, bytes=8_000_000)
        bad = server.target(node="db2", cluster="bad", address=Address(hostile.host, hostile.port))
        plans = {"bad": ViewPlan(0.1, 10.0)}
        with Watching(server.target(poll_s=0.1), bad, plans=plans) as seen:
            seen.wait_for_fault("db1", None)
            seen.wait_for_fault("db2", None)
            time.sleep(5.0)  # answer upon answer
    looks = [at for at, _ in seen.looks("db1")]
    assert {told.fault for _, told in seen.looks("db1")} == {None}
    assert max(later - at for at, later in itertools.pairwise(looks)) < 3.0


# ---------------------------------------------------------------- with Salt


def test_a_server_out_of_open_files_is_healed_by_one_restart(quiet):
    node = quiet.nodes["db2"]
    with quiet.events("selfheal/*", "salt/job/*") as events:
        began = time.monotonic()
        undo = spend_open_files(node.pid(), lambda: node.serving(timeout=0.5))
        try:
            opened = events.wait("selfheal/incident/runbook/open", timeout=60).data
            seen_s = time.monotonic() - began
            assert (opened["fault"], opened["nodes"]) == ("hung", ["db2"])
            resolved = events.wait(
                "selfheal/incident/runbook/resolved",
                lambda d: d["incident"] == opened["incident"],
                timeout=90,
            )
        finally:
            with contextlib.suppress(OSError):  # that process is gone
                undo()
        assert resolved.data["nodes"] == ["db2"]
        jobs = started_jobs(events, "service.restart")
        assert [job["tgt"] for job in jobs] == [["db2"]]
        assert started_jobs(events, "state.highstate") == []
    assert node.serving()
    assert seen_s < 40  # redial, timeout and confirm
