"""What the master sees of a node need not be so: a port that refuses it alone, an address that leads elsewhere.

Between the healer and each node stands a relay of the lab's; applications go to the nodes directly.
"""

import subprocess
import time

import pytest
from rethinkdb.errors import ReqlOpFailedError

from tests.integration.conftest import ASKING
from tests.lab.demo import TIMES
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.relay import Relay
from tests.lab.site import CLUSTER, REAL, TABLE, Site, server_command

pytestmark = pytest.mark.skipif(
    server_command(None)[0] != REAL, reason="needs a real rethinkdb on PATH or in RETHINKDB"
)


@pytest.fixture(scope="module")
def site():
    """Three nodes behind relays, and a `rethinkdb proxy` as the node of a fourth minion."""
    relays = {}
    proxy_port = free_port()

    def settings(new):
        relays.update({name: Relay(node.driver_port) for name, node in new.nodes.items()})
        nodes = {name: relay.address for name, relay in relays.items()}
        return new.cluster_settings(
            engine={"limits": "off"},
            **{
                **TIMES,
                "budget": "off",
                "redial": "2s",
                "minions": "[dp]*",
                "nodes": {**nodes, "proxy1": f"{LOOPBACK}:{proxy_port}"},
            },
        )

    with Site(settings=settings, apps=("app1", "proxy1")) as made:
        made.relays = relays
        # Not before the nodes: a proxy that comes first would give them a password of its own.
        made.proxy = start_proxy(made, proxy_port)
        try:
            yield made
        finally:
            made.proxy.kill()
            made.proxy.wait()
            for relay in relays.values():
                relay.close()


def start_proxy(site, port):
    _, command = server_command(REAL)
    # It knows no `--name=value`.
    joins = [
        word for n in site.nodes.values() for word in ("--join", f"{LOOPBACK}:{n.cluster_port}")
    ]
    ports = ["--driver-port", str(port), "--cluster-port", str(free_port()), "--bind", LOOPBACK]
    log = (site.root / "proxy.log").open("ab")
    with log:
        return subprocess.Popen(
            [command[0], "proxy", *joins, *ports, "--no-http-admin", "--no-update-check",
             "--log-file", str(site.root / "proxy-server.log"), "--initial-password", "auto"],
            cwd=site.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=site.environ,
        )  # fmt: skip


@pytest.fixture
def quiet(site):
    for node, relay in zip(site.nodes.values(), site.relays.values(), strict=True):
        relay.lead_to(node.driver_port)
        relay.accept()
    site.wait_until_quiet()
    return site


def pids(site):
    return {name: node.pid() for name, node in site.nodes.items()}


def orders(events):
    """What was ordered; a look only asks."""
    return [
        e.tag for e in events.matching("selfheal/remediate/*") if e.data["action"] not in ASKING
    ]


def nodes_told(site):
    return site.run_runner("selfheal.status")["clusters"][CLUSTER]["nodes"]


def wait_announced(events, fault, nodes):
    """Until an incident of this fault, with these nodes, was told that nothing is done about it."""
    events.wait(f"selfheal/incident/{CLUSTER}/held", lambda d: d["fault"] == fault, timeout=60)
    # A node may join the incident after that was told.
    events.wait(
        f"selfheal/incident/{CLUSTER}/*",
        lambda d: d["fault"] == fault and set(nodes) <= set(d["nodes"]),
        timeout=60,
    )


def wait_over(events, fault):
    events.wait(f"selfheal/incident/{CLUSTER}/resolved", lambda d: d["fault"] == fault, timeout=60)


def write(site, node, within_s=60):
    """An application's write. A table has a new primary some time after the server of the old one has died."""
    driver, connection = site.nodes[node].connect()
    database, table = TABLE
    deadline = time.monotonic() + within_s
    try:
        while True:
            try:
                made = driver.db(database).table(table).insert({}).run(connection)
            except ReqlOpFailedError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            else:
                assert made["inserted"] == 1
                return
    finally:
        connection.close(noreply_wait=False)


def test_ports_that_refuse_the_master_alone_bring_no_server_down(quiet):
    before = pids(quiet)
    with quiet.events("selfheal/*") as events:
        quiet.relays["db1"].refuse()
        quiet.relays["db2"].refuse()
        wait_announced(events, "cut_off", {"db1"})
        events.wait(
            "selfheal/incident/*/*", lambda d: d["fault"] == "cut_off" and "db2" in d["nodes"], timeout=60
        )  # fmt: skip
        write(quiet, "db1")
        told = [e.data for e in events.matching("selfheal/incident/*/open")]
        quiet.relays["db1"].accept()
        quiet.relays["db2"].accept()
        wait_over(events, "cut_off")
        assert orders(events) == []
    assert any("is connected to it" in one["why"] for one in told)
    assert pids(quiet) == before


def test_a_request_is_not_swallowed_by_an_incident_that_is_only_announced(quiet):
    with quiet.events("selfheal/*") as events:
        quiet.relays["db1"].refuse()
        wait_announced(events, "cut_off", {"db1"})
        answer = quiet.run_runner("selfheal.trigger", CLUSTER, action="start", nodes=["db2"])
        assert answer["reply"] in ("accepted", "held")
        order = events.wait("selfheal/remediate/start", timeout=30)
        assert order.data["minions"] == ["db2"]
        events.wait(
            "selfheal/incident/*/resolved", lambda d: d["incident"] == answer["incident"], timeout=60
        )  # fmt: skip


def test_swapped_addresses_bring_no_serving_server_down(quiet):
    db1, db2 = quiet.nodes["db1"], quiet.nodes["db2"]
    with quiet.events("selfheal/*") as events:
        quiet.relays["db1"].lead_to(db2.driver_port)
        quiet.relays["db2"].lead_to(db1.driver_port)
        events.wait(
            "selfheal/incident/*/*", lambda d: d["fault"] == "mistaken" and {"db1", "db2"} <= set(d["nodes"]), timeout=60
        )  # fmt: skip
        told = events.matching("selfheal/incident/*/*", lambda d: d["fault"] == "mistaken")
        assert any("db1" in e.data["why"] and "db2" in e.data["why"] for e in told)
        serving = db2.pid()
        db1.kill()
        # The address of db2 refuses now, and what the probe sees there is told; nothing is done.
        events.wait(
            "selfheal/incident/*/*", lambda d: d["fault"] == "mistaken" and "db2" in d["nodes"], timeout=60
        )  # fmt: skip
        write(quiet, "db2")
        refused = quiet.run_runner(
            "selfheal.force", CLUSTER, "restart", ["db2"], "to see that it is held"
        )
        assert refused["reply"] == "held"
        assert "identity" in refused["why"]
        assert orders(events) == []
        assert db2.pid() == serving
        quiet.run_runner("selfheal.reject", refused["incident"])
        quiet.relays["db1"].lead_to(db1.driver_port)
        quiet.relays["db2"].lead_to(db2.driver_port)
        quiet.relays["db1"].accept()
    # The probe has to see that it was put right: until then db1 is taken for db2's server.
    deadline = time.monotonic() + 60
    while not nodes_told(quiet)["db2"].startswith("well"):
        assert time.monotonic() < deadline, nodes_told(quiet)
        time.sleep(0.2)
    # db1 is dead, and its own address says so: a person takes the servers for what they are, once that is told.
    while not db1.serving():
        assert time.monotonic() < deadline + 60, nodes_told(quiet)
        for name in quiet.run_runner("selfheal.status")["clusters"][CLUSTER]["incidents"]:
            quiet.run_runner("selfheal.ack", name)
    assert db2.pid() == serving


def test_a_proxy_is_no_partition_and_is_restarted_when_it_dies(quiet):
    status = quiet.run_runner("selfheal.status")["clusters"][CLUSTER]
    assert status["nodes"]["proxy1"].startswith("well")
    assert status["tables"] == "known"
    assert status["incidents"] == {}
    with quiet.events("selfheal/*") as events:
        quiet.proxy.kill()
        quiet.proxy.wait()
        order = events.wait("selfheal/remediate/restart", timeout=60)
        assert order.data["minions"] == ["proxy1"]
        # Nobody but the proxy is touched, and no node is called apart from it.
        assert events.matching("selfheal/incident/*/*", lambda d: d["fault"] == "partitioned") == []
