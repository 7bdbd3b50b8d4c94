"""What the doctor says of the servers' releases, and of ports that are open on all addresses."""

from unittest import mock

import pytest
import salt.client

from saltext_selfheal.doctor import checks, servers
from saltext_selfheal.healing.model import ClusterState, NodeState
from tests.functional.doctor.conftest import SECRETS, lines, says, settings
from tests.lab.ports import free_port
from tests.lab.simulated import SimulatedNode

PRIVATE = [
    {"proto": "tcp", "state": "LISTEN", "local-address": "10.0.0.11:22", "program": "1/sshd"}
]


@pytest.fixture
def sockets(monkeypatch):
    """What the minions say of their sockets: to be filled."""
    told = {"db1": list(PRIVATE), "db2": list(PRIVATE)}
    client = mock.MagicMock()
    cmd = client.return_value.__enter__.return_value.cmd
    cmd.side_effect = lambda _, function, *__, **___: told if function == "network.netstat" else {}
    monkeypatch.setattr(salt.client, "LocalClient", client)
    return told


def row(at, program="-", state="LISTEN"):
    return {"proto": "tcp", "state": state, "local-address": at, "program": program}


# ---------------------------------------------------------------- releases


@pytest.mark.parametrize(
    "version",
    ["2.4.4", "2.4.4~0bookworm", "v2.4.4", "2.4.5", "2.10.0", "3.0.0-rc1", "rethinkdb 2.4.4"],
)
def test_the_last_release_and_newer_ones_are_well(opts, nodes, sockets, version):
    nodes[0].set_fault("server_version", version=version)
    says(lines("servers now", opts), "ok", "2 of 2 servers run RethinkDB 2.4.4 or newer")


@pytest.mark.parametrize(
    ("version", "number", "why", "how"),
    [
        ("2.4.3", "2.4.3", "before 2.4.4", "one node after the other. Pause"),
        ("2.4.2~0jammy", "2.4.2", "before 2.4.3 chains of certificates", "one node after the other. Pause"),
        ("2.4.1", "2.4.1", "before 2.4.2 the indexes of a table's Raft log", "one node after the other. Pause"),
        ("2.3.7", "2.3.7", "before 2.4.2", "all of them at once"),
        ("1.16", "1.16.0", "before 2.4.2", "all of them at once"),
    ],
)  # fmt: skip
def test_an_older_release_is_named_with_the_reason(opts, nodes, sockets, version, number, why, how):
    nodes[0].set_fault("server_version", version=version)
    found = lines("servers now", opts)
    says(found, "warn", f"runbook: RethinkDB {number} on db1 is older than the last release")
    assert why in "".join(found)
    assert how in "".join(found)
    says(found, "ok", "1 of 2 servers run RethinkDB 2.4.4 or newer")


@pytest.mark.parametrize(
    "version", ["", "unknown", "2", "two.four", "\x1b[2J2.4.4", "12345.1", "x" * 500]
)
def test_a_version_that_says_nothing_is_told_clean_and_short(opts, nodes, sockets, version):
    nodes[0].set_fault("server_version", version=version)
    found = lines("servers now", opts)
    says(found, "warn", "runbook: no release of RethinkDB that is known on db1: ")
    assert "\x1b" not in "".join(found)
    assert max(map(len, found)) < 300


def test_no_version_at_all_and_a_proxy_have_words_of_their_own(opts, nodes, sockets):
    nodes[0].set_fault("no_version")
    nodes[1].set_fault("proxy")
    nodes[1].set_fault("server_version", version="2.4.1", add=True)
    found = lines("servers now", opts)
    says(found, "warn", "known on db1: none is named")
    says(found, "warn", "runbook: RethinkDB 2.4.1 on db2 (a proxy) is older")


def test_nodes_of_one_release_are_one_line(opts, nodes, sockets):
    for node in nodes:
        node.set_fault("server_version", version="2.4.0")
    told = [line for line in lines("servers now", opts) if "2.4.0" in line]
    assert len(told) == 1
    assert "on db1, db2 is older" in told[0]


def test_without_a_look_the_release_is_what_the_engine_has_seen(opts, engine, path):
    assert lines("servers", opts) == ["ok    servers: no server has told its release yet"]
    known = {"db1": NodeState(version="2.4.2", polls=3), "db2": NodeState(polls=3)}
    engine.commit(engine.timeline.now(), [ClusterState("runbook", nodes=known)], [])
    (told,) = lines("servers", opts)
    assert told.startswith("warn  servers: runbook: RethinkDB 2.4.2 on db1 is older")


# ---------------------------------------------------------------- addresses


def test_servers_on_chosen_addresses(opts, nodes, sockets):
    sockets["db1"] += [
        row(f"127.0.0.1:{nodes[0].port}"),
        row(f"10.0.0.11:{nodes[0].port}", "9/rethinkdb"),
    ]
    says(lines("servers now", opts), "ok", "2 of 2 servers listen on chosen addresses only")


@pytest.mark.parametrize("host", ["0.0.0.0", ":::", "*", "[::]"])
def test_each_port_on_all_addresses_is_named(opts, nodes, sockets, host):
    host = "::" if host == ":::" else host
    web = nodes[0]._settings.http_port
    sockets["db1"] += [
        row(f"{host}:{nodes[0].port}"), row(f"{host}:{nodes[0].cluster_port}"), row(f"{host}:{web}"), row(f"{host}:22", "1/sshd"),
    ]  # fmt: skip
    found = lines("servers now", opts)
    says(
        found,
        "warn",
        f"runbook: db1 listens on all addresses: cluster port {nodes[0].cluster_port}, driver port {nodes[0].port}, "
        f"web interface on port {web}",
    )
    assert ":22" not in "".join(found)
    says(found, "ok", "1 of 2 servers listen on chosen addresses only")


@pytest.mark.parametrize("program", ["812/rethinkdb", "rethinkdb"])
def test_where_the_system_tables_are_closed_the_program_tells(opts, nodes, sockets, program):
    nodes[0].set_fault("no_permission")
    sockets["db1"].append(row("0.0.0.0:28015", program))
    says(lines("servers now", opts), "warn", "runbook: db1 listens on all addresses: port 28015")


def test_a_proxy_is_known_by_its_program(opts, nodes, sockets):
    nodes[1].set_fault("proxy")
    sockets["db2"].append(row("*:28015", "rethinkdb"))
    says(
        lines("servers now", opts),
        "warn",
        "runbook: db2 (a proxy) listens on all addresses: port 28015",
    )


@pytest.mark.parametrize(
    "said",
    [None, False, [], "VALUE_TRIMMED", "ERROR: no such function", {"a": 1}, [None, 7, [], {}], [row(None)], [row("0.0.0.0:x")],
     [{"state": "LISTEN"}], [row("0.0.0.0:999999")], [row("0.0.0.0:" + "9" * 10_000)]],
)  # fmt: skip
def test_whatever_a_minion_says_of_its_sockets_the_check_goes_on(opts, nodes, sockets, said):
    sockets["db1"] = said
    found = lines("servers now", opts)
    assert not [line for line in found if "broke" in line or line.startswith("warn")]
    assert ("not known on which addresses they listen: db1" in "".join(found)) is not bool(
        isinstance(said, list) and [r for r in said if isinstance(r, dict) and r.get("state")]
    )


def test_a_connection_that_is_open_is_no_port_that_is(opts, nodes, sockets):
    sockets["db1"].append(row(f"0.0.0.0:{nodes[0].port}", state="ESTABLISHED"))
    says(lines("servers now", opts), "ok", "2 of 2 servers listen on chosen addresses only")


@pytest.mark.parametrize(
    ("argv", "kinds"),
    [
        (["--bind", "all"], {"driver port", "cluster port", "web interface on port"}),
        (["--bind=::"], {"driver port", "cluster port", "web interface on port"}),
        (["--bind", "10.0.0.1", "--bind-http", "0.0.0.0"], {"web interface on port"}),
        (["--bind", "all", "--bind-cluster=10.0.0.1", "--bind-http", "127.0.0.1"], {"driver port"}),
        (["--bind", "10.0.0.1", "all", "--no-http-admin"], {"driver port", "cluster port", "web interface on port"}),
        (["--bind-driver", "10.0.0.1", "--server-name", "all"], set()),
        (["--config-file", "/etc/rethinkdb/all", 7, None, ["--bind"]], set()),
    ],
)  # fmt: skip
def test_the_servers_own_command_line_tells_too(opts, sockets, argv, kinds):
    named = ("--initial-password", SECRETS["password"], *argv)
    with SimulatedNode(
        name="db1", password=SECRETS["password"], http_port=free_port(), argv=("rethinkdb", *named)
    ) as node:
        made = settings()
        made["clusters"]["runbook"]["nodes"] = {"db1": f"{node.host}:{node.port}"}
        opts["engines"] = [{"selfheal": made}]
        told = "".join(line for line in lines("servers now", opts) if "all addresses" in line)
    found = {
        kind for kind in ("driver port", "cluster port", "web interface on port") if kind in told
    }
    assert found == kinds
    assert SECRETS["password"] not in told


def test_a_web_interface_that_can_be_reached_from_here_is_a_warning(
    opts, nodes, sockets, monkeypatch
):
    web = nodes[0]._settings.http_port
    monkeypatch.setattr(servers.ipaddress, "ip_address", lambda _: servers.ipaddress.IPv4Address(1))
    assert not [line for line in lines("servers now", opts) if line.startswith("warn")]
    with SimulatedNode(port=web):
        found = lines("servers now", opts)
    says(found, "warn", f"runbook: db1: the web interface on port {web} can be reached from this")
    assert "without a password" in "".join(found)


def test_on_this_machine_itself_a_web_interface_that_answers_proves_nothing(opts, nodes, sockets):
    with SimulatedNode(port=nodes[0]._settings.http_port):
        assert not [line for line in lines("servers now", opts) if line.startswith("warn")]


def test_a_node_that_does_not_answer_is_left_to_the_check_of_the_nodes(opts, nodes, sockets):
    for node in nodes:
        node.set_fault("refuse")
    assert lines("servers now", opts) == []


def test_the_present_is_told_once(opts, engine, nodes, sockets):
    known = {"db1": NodeState(version="2.4.2", polls=3)}
    engine.commit(engine.timeline.now(), [ClusterState("runbook", nodes=known)], [])
    nodes[0].set_fault("server_version", version="2.4.2")
    for wanted in (False, True):
        told = [str(f) for f in checks.examine(opts, live=wanted) if "2.4.2" in str(f)]
        assert len(told) == 1
