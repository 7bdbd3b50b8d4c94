"""Drills of what a database server dies and hangs of: disk, open files, memory, a slow start, a network that is away.

One site with observers, whose healer takes 10 s for long enough after a restart (`attempt.verify`). One minion does not have
the package, and the way to one node can be cut.
"""

import contextlib
import json
import os
import re
import time

import pytest

from tests.integration.conftest import acts, orders
from tests.lab.daemons import OTHER_INITS
from tests.lab.demo import TIMES
from tests.lab.disk import CannotMount, SmallDisk
from tests.lab.memory import NoGroup, SmallMemory
from tests.lab.open_files import spend_open_files
from tests.lab.relay import Relay
from tests.lab.simulated.child import control
from tests.lab.site import SIMULATED, Site, server_command
from tests.lab.supervisor import SERVICE

#: A database that loads for longer than the healer waits for it after a restart. 130 s take long, so by hand only.
LOADS_S = float(os.environ.get("SELFHEAL_LAB_LOADS_S", "35"))
VERIFY_S, REDIAL_S, CONFIRM_S, TIMEOUT_S = 10, 2, 1, 1

real = pytest.mark.skipif(
    server_command(None)[0] == SIMULATED, reason="only a real server starts on a full disk"
)
BARE = "db1"  #: its minion does not have this package

simulated = pytest.mark.skipif(
    server_command(None)[0] != SIMULATED, reason="only the simulated node has this fault"
)


@pytest.fixture(scope="module")
def ways():
    """By node: the way there, for all but its peers and its own minion."""
    made = {}
    yield made
    for way in made.values():
        way.close()


@pytest.fixture(scope="module")
def site(ways):
    def settings(new):
        times = {
            **TIMES,
            "attempt": {"timeout": "60s", "verify": f"{VERIFY_S}s"},
            "redial": f"{REDIAL_S}s",
            # Salt loads all its modules before it says that a function is missing, which takes seconds on a busy machine.
            "witness": {"timeout": "20s"},
            "observers": {"minions": "app*", "quorum": 2, "timeout": "2s"},
        }
        told = new.cluster_settings(engine={"limits": "off"}, **times)
        # The same port at another address: db3's minion finds its server by the port, and reaches it directly.
        port = new.nodes["db3"].driver_port
        ways["db3"] = Relay(port, at=("127.0.0.2", port))
        told["clusters"]["runbook"]["nodes"]["db3"] = ways["db3"].address
        return told

    def minion(name):
        return {"disable_modules": [*OTHER_INITS, "selfheal"]} if name == BARE else {}

    with Site(settings=settings, apps=("app1", "app2"), minion=minion) as made:
        yield made


def next_incident(events, word, fault=None, timeout=60, **wanted):
    """What is said of the next incident about db2 that comes so far; an unconfirmed one has only been suspected."""
    return events.wait(
        f"selfheal/incident/runbook/{word}",
        lambda d: d["nodes"] == ["db2"]
        and (fault is None or d["fault"] == fault)
        and (word != "resolved" or "why" in wanted or "well for" in d["why"])
        and all(d[key] == value for key, value in wanted.items()),
        timeout=timeout,
    ).data


def done(site, incident):
    """(action, outcome) of what was done in the incident."""
    told = site.run_runner("selfheal.incident", incident)
    return [(one["action"], one["outcome"]) for one in acts(told)]


def seen_by_minion(site, incident):
    """What db2's minion has told, question by question."""
    told = site.run_runner("selfheal.incident", incident)["attempts"]
    return [one["why"] for one in told if one["action"] == "witness"]


# ---------------------------------------------------------------- disk


@pytest.fixture
def disk(quiet):
    """A disk of db2's own, full; after the test the node has its old one again."""
    node = quiet.nodes["db2"]
    try:
        made = SmallDisk(node.directory, node.pid())
    except CannotMount as exc:
        pytest.skip(str(exc))
    made.fill()
    yield made
    quiet.call("db2", "service.stop", SERVICE)
    made.remove()


@real
def test_a_real_server_serves_also_from_a_full_disk_until_it_needs_more_of_it(quiet, db2, disk):
    """RethinkDB 2.4.4 needs no room to start with data that are there: so one try is worth it."""
    with quiet.events("selfheal/*") as events:
        db2.kill()
        opened = next_incident(events, "open", "dead")
        assert "its disk is full: 0 KB free" in opened["why"]
        resolved = next_incident(events, "resolved", incident=opened["incident"])
    assert done(quiet, resolved["incident"]) == [("restart", "done")]
    assert db2.serving()


@simulated
def test_a_server_whose_disk_is_full_is_left_to_a_person_after_one_try(quiet, db2, disk):
    with quiet.events("selfheal/*") as events:
        db2.kill()
        locked = next_incident(events, "locked", "dead")
        assert len(done(quiet, locked["incident"])) == 1
        assert "its disk is full" in locked["why"]
        assert "Make room in its data directory" in locked["why"]
        assert f"0 KB free at {db2.directory}" in locked["why"]
        said = quiet.supervisor.errors("db2").read_text().splitlines()[-1]
        assert "Ran out of disk space" in said
        disk.make_room()
        quiet.run_runner("selfheal.ack", locked["incident"], comment="there is room again")
        resolved = next_incident(events, "resolved", "dead")
        assert resolved["incident"] != locked["incident"]
    assert done(quiet, resolved["incident"]) == [("restart", "done")]
    assert db2.serving()


# ---------------------------------------------------------------- open files


def let_them_meet(site):
    """Every server is connected to all others, so that no connection among them is still to be opened."""
    for node in site.nodes.values():
        driver, connection = node.connect(timeout_s=10)
        with contextlib.closing(connection):
            servers = driver.db("rethinkdb").table("server_status").run(connection)
            assert len(list(servers)) == len(site.nodes)


def test_a_server_without_open_files_is_healed_by_one_restart(quiet, db2):
    let_them_meet(quiet)
    with quiet.events("selfheal/*") as events:
        began = time.monotonic()
        undo = spend_open_files(db2.pid(), lambda: db2.serving(timeout=0.5))
        try:
            opened = next_incident(events, "open")
            seen_s = time.monotonic() - began
            resolved = next_incident(events, "resolved", incident=opened["incident"])
        finally:
            with contextlib.suppress(ProcessLookupError):  # that process is gone
                undo()
    assert opened["fault"] == "hung"
    assert "a connection that was open before answers" in opened["why"]
    assert done(quiet, resolved["incident"]) == [("restart", "done")]
    assert "it has no file descriptors left" in seen_by_minion(quiet, resolved["incident"])[0]
    assert seen_s < REDIAL_S + TIMEOUT_S + CONFIRM_S + 5
    assert db2.serving()


# ---------------------------------------------------------------- a slow start


@simulated
def test_a_server_that_loads_for_longer_than_verify_is_restarted_once(quiet, db2):
    db2.configure(f"simulate-load={LOADS_S:.0f}")
    with quiet.events("selfheal/*") as events:
        db2.kill()
        began = time.monotonic()
        next_incident(events, "open", "starting")
        pid = db2.pid()
        assert pid is not None
        resolved = next_incident(events, "resolved", "dead", timeout=LOADS_S + 60)
        took_s = time.monotonic() - began
    assert took_s > LOADS_S > VERIFY_S
    assert (db2.pid(), db2.serving()) == (pid, True)
    assert done(quiet, resolved["incident"])[0][0] == "restart"
    assert len(done(quiet, resolved["incident"])) == 1


# ---------------------------------------------------------------- memory


@pytest.fixture
def memory():
    """A control group with room for a server that does little."""
    try:
        made = SmallMemory(96 << 20)
    except NoGroup as exc:
        pytest.skip(str(exc))
    yield made
    made.remove()


@simulated
def test_a_server_that_the_kernel_kills_for_want_of_memory_is_restarted_once(quiet, memory, db2):
    with quiet.events("selfheal/*") as events:
        memory.take(db2.pid())
        with contextlib.suppress(RuntimeError, OSError):  # it does not live to answer
            control(db2.directory / "control.sock", {"fault": "memory"})
        resolved = next_incident(events, "resolved", "dead")
    assert memory.kills == 1
    assert done(quiet, resolved["incident"]) == [("restart", "done")]
    first = seen_by_minion(quiet, resolved["incident"])[0]
    assert first.startswith("its process is gone, and the kernel killed it for want of memory")
    assert db2.serving()


# ---------------------------------------------------------------- a network that is away


@pytest.fixture
def cut(quiet):
    """db2 runs and listens, and is silent to everybody, its own machine included; until it is called again."""
    node = quiet.nodes["db2"]
    fault = {"fault": "silent", "on_existing": "drop"}
    node.configure(f"simulate-fault={json.dumps(fault)}")
    socket = node.directory / "control.sock"
    control(socket, fault)

    def mend():
        control(socket, {"fault": None})

    yield mend
    mend()


@simulated
def test_a_server_that_is_silent_to_everybody_has_each_of_its_steps_once(quiet, db2, cut):
    """Its minion sees that it runs and listens, and gets no word of it: it is restarted, also by force, and no more."""
    with quiet.events("selfheal/*") as events:
        opened = next_incident(events, "open", "hung")
        locked = next_incident(events, "locked", incident=opened["incident"])
        assert "no step is left" in locked["why"]
        cut()
        ended = next_incident(
            events, "resolved", incident=opened["incident"], why="the fault ended by itself"
        )
    assert done(quiet, ended["incident"]) == [("restart", "done"), ("force_restart", "done")]
    told = seen_by_minion(quiet, ended["incident"])
    assert len(told) == 3 and all(one.startswith("its process runs since") for one in told)
    assert len(orders(events)) == 2


def test_a_server_that_only_its_own_machine_reaches_is_not_restarted(quiet, ways):
    """Observers cannot reach it either. But it greets its own minion, so its network is away, and a restart is no cure."""
    node = quiet.nodes["db3"]
    pid = node.pid()
    with quiet.events("selfheal/*") as events:
        ways["db3"].swallow()
        opened = events.wait(
            "selfheal/incident/runbook/open",
            lambda d: (d["nodes"], d["fault"]) == (["db3"], "hung"),
            timeout=60,
        ).data
        why = "db3 answers its own minion: the way from here to it is broken"
        events.wait(
            "selfheal/incident/runbook/held",
            lambda d: d["incident"] == opened["incident"] and why in d["why"],
            timeout=60,
        )
        (told,) = [
            one
            for one in quiet.run_runner("selfheal.explain", "runbook", "db3")["entries"]
            if one["incident"] == opened["incident"]
        ]
        assert told["gates"]["witness"] == f"shut: {why}"
        ways["db3"].pass_on()
        events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: d["incident"] == opened["incident"],
            timeout=60,
        )
        assert orders(events) == []
    assert done(quiet, opened["incident"]) == []
    assert (node.pid(), node.serving()) == (pid, True)


# ---------------------------------------------------------------- a minion without the package


def test_where_the_package_is_not_on_the_minion_salts_own_functions_tell(quiet):
    node = quiet.nodes[BARE]
    with quiet.events("selfheal/*") as events:
        node.kill()
        resolved = events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: (d["nodes"], d["fault"]) == ([BARE], "dead") and "well for" in d["why"],
            timeout=60,
        ).data
    told = quiet.run_runner("selfheal.incident", resolved["incident"])
    asked = [one for one in told["attempts"] if one["action"].endswith("witness")]
    assert [(one["action"], one["outcome"]) for one in asked[:2]] == [
        ("witness", "failed"),
        ("salt_witness", "done"),
    ]
    assert "'selfheal.witness' is not available" in asked[0]["why"]
    # Where other servers run on this machine, it cannot be told which is meant.
    assert re.search(r"its process is gone|\d+ run there", asked[1]["why"])
    assert done(quiet, resolved["incident"]) == [("restart", "done")]
    node.wait_serving(60)
