"""The canary on a real site: a node that answers and serves nobody, a table that is dropped, a disk that hangs."""

import contextlib
import os
import shutil
import subprocess
import time

import pytest
from rethinkdb.errors import ReqlError

from saltext_selfheal.healing.events import Canary, CanaryEnd
from saltext_selfheal.probe.canary import CanaryPlan
from tests.integration.conftest import orders
from tests.integration.test_faults import servers  # noqa: F401
from tests.integration.test_faults import Server, cluster_of_three, real, root
from tests.integration.test_healing import started_jobs
from tests.lab.demo import TIMES
from tests.lab.simulated.child import control
from tests.lab.site import CLUSTER, SIMULATED, Site
from tests.lab.watching import Watching

TABLE = "runbook.runbook"
NODES = ("db1", "db2", "db3")


# ---------------------------------------------------------------- with Salt


@pytest.fixture(scope="module")
def site():
    """A site of simulated servers, because these can be told to answer and to serve nobody."""

    def settings(new):
        return new.cluster_settings(
            engine={"limits": "off"},
            **{
                **TIMES,
                "budget": "off",
                "settle": "1s",
                "canary": {"read": TABLE, "write": TABLE, "every": "500ms", "timeout": "500ms"},
                "escalation": {"unavailable": []},
            },
        )

    with Site(settings=settings, server=SIMULATED, apps=()) as made:
        yield made


@pytest.fixture
def quiet(site):
    for name in NODES:
        with contextlib.suppress(OSError):  # it is being restarted
            ill(site, name, None)
    site.wait_until_quiet()
    return site


def ill(site, node, fault, **options):
    return control(site.nodes[node].directory / "control.sock", {"fault": fault, **options})


def status(site):
    return site.run_runner("selfheal.status")["clusters"][CLUSTER]


def canary_news(events):
    return [e.data["why"] for e in events.matching("selfheal/engine/canary")]


def test_a_node_that_answers_and_serves_nobody_is_healed_by_one_restart(quiet):
    with quiet.events("selfheal/*", "salt/job/*") as events:
        ill(quiet, "db2", "stalled")
        opened = events.wait(
            "selfheal/incident/runbook/open", lambda d: d["fault"] == "stalled", timeout=30
        ).data
        assert opened["nodes"] == ["db2"]
        assert (
            "db2: answers, but not the canary's read of runbook.runbook within 0.5 s"
            in opened["why"]
        )
        events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: d["incident"] == opened["incident"],
            timeout=60,
        )
        jobs = started_jobs(events, "service.restart")
        assert [(job["tgt"], job["arg"]) for job in jobs] == [(["db2"], ["rethinkdb"])]
        assert started_jobs(events, "state.highstate") == []
    assert quiet.nodes["db2"].serving()


def test_a_dropped_table_is_told_in_one_line_and_nothing_is_done(quiet):
    missing = "the canary cannot be asked: Table `runbook.runbook` does not exist."
    with quiet.events("selfheal/*") as events:
        for name in NODES:
            ill(quiet, name, "no_table")
        events.wait("selfheal/engine/canary", timeout=20)
        time.sleep(3.0)  # each node has been asked several times
        (told,) = canary_news(events)
        assert told.startswith(missing)
        assert "\n" not in told
        assert missing.removeprefix("the canary ") in status(quiet)["canary"]
        assert all(one.startswith("well ") for one in status(quiet)["nodes"].values())
        for name in NODES:
            ill(quiet, name, None)
        events.wait("selfheal/engine/canary", timeout=20, count=2)
        assert canary_news(events)[1:] == ["the canary can be asked again"]
        assert orders(events) == []
        assert events.matching("selfheal/incident/*") == []
    assert "canary" not in status(quiet)


def test_if_no_node_answers_its_canary_the_cluster_is_unavailable(quiet):
    with quiet.events("selfheal/*") as events:
        for name in NODES:
            ill(quiet, name, "stalled")
        held = events.wait(
            "selfheal/incident/runbook/held", lambda d: d["fault"] == "unavailable", timeout=30
        ).data
        assert "no node answers the canary's read of runbook.runbook within 0.5 s" in held["why"]
        opened = [e.data["fault"] for e in events.matching("selfheal/incident/runbook/open")]
        assert opened == ["unavailable"]
        assert orders(events) == []
        for name in NODES:
            ill(quiet, name, None)
        events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: d["incident"] == held["incident"],
            timeout=60,
        )


# ---------------------------------------------------------------- a real RethinkDB, without Salt


def plan(table=TABLE, **changes):
    values = {"read": table, "write": table, "every_s": 0.5, "timeout_s": 1.0}
    return CanaryPlan(**{**values, **changes})


def watched(some, canary, **changes):
    targets = [server.target(**changes) for server in some]
    return Watching(*targets, canaries={"runbook": canary})


def ends(end, node=None, why=""):
    return lambda e: (
        isinstance(e, Canary) and e.end is end and node in (None, e.node) and why in e.why
    )


@pytest.fixture
def server(tmp_path, servers):  # noqa: F811
    made = Server(tmp_path, "db1").start()
    servers.append(made)
    made.wait(None)
    with made.connection() as (r, connection):
        r.db_create("runbook").run(connection)
        r.db("runbook").table_create("runbook").run(connection)
    return made


@real
def test_what_is_missing_is_named_and_helps_when_it_is_given(server):
    with server.connection() as (r, connection):
        r.db("rethinkdb").table("users").insert({"id": "selfheal", "password": "x"}).run(connection)
        with watched([server], plan(), user="selfheal", password="x") as seen:
            _, told = seen.wait(ends(CanaryEnd.UNASKED))
            right = "r.db('runbook').table('runbook').grant('selfheal', {read: true, write: true})"
            assert f"missing: {right}" in told.why
            rights = {"read": True, "write": True}
            r.db("runbook").table("runbook").grant("selfheal", rights).run(connection)
            seen.wait(ends(CanaryEnd.ANSWERED))
            r.db("runbook").table_drop("runbook").run(connection)
            _, told = seen.wait(ends(CanaryEnd.UNASKED))
            assert told.why.startswith("Table `runbook.runbook` does not exist.")
            r.db("runbook").table_create("runbook").run(connection)
            seen.wait(ends(CanaryEnd.UNASKED, why="missing: "))
    assert seen.faults == {"db1": None}


@real
def test_only_a_right_to_read_is_needed_for_a_read(server):
    with server.connection() as (r, connection):
        r.db("rethinkdb").table("users").insert({"id": "selfheal", "password": "x"}).run(connection)
        r.db("runbook").table("runbook").grant("selfheal", {"read": True}).run(connection)
        with watched([server], plan(write=None), user="selfheal", password="x") as seen:
            seen.wait(ends(CanaryEnd.ANSWERED))


@real
def test_a_table_with_another_primary_key_stays_empty(server):
    with server.connection() as (r, connection):
        r.db("runbook").table_create("named", primary_key="name").run(connection)
        with watched([server], plan("runbook.named")) as seen:
            _, told = seen.wait(ends(CanaryEnd.UNASKED))
            time.sleep(1.5)
        assert "primary key `name`" in told.why
        assert r.db("runbook").table("named").count().run(connection) == 0


@real
def test_one_document_per_node_and_none_of_nodes_that_are_gone(server):
    with server.connection() as (r, connection):
        table = r.db("runbook").table("runbook")
        gone = {"id": "selfheal-canary-db9", "node": "db9", "cluster": "runbook"}
        table.insert([gone, {"id": "mine"}]).run(connection)
        with watched([server], plan()) as seen:
            for _ in range(3):
                seen.wait(ends(CanaryEnd.ANSWERED))
        left = sorted(table["id"].run(connection))
        assert left == ["mine", "selfheal-canary-db1"]
        kept = table.get("selfheal-canary-db1").run(connection)
        assert (kept["node"], kept["cluster"]) == ("db1", "runbook")
        assert kept["at"].tzinfo is not None


# ---------------------------------------------------------------- a disk that hangs


@pytest.fixture
def disk(tmp_path):
    """A file system of its own in a file: its folder, and what freezes it. It is thawed whatever happens."""
    tools = ("mkfs.ext4", "mount", "umount", "fsfreeze")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)} here")
    image, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(512 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    made = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        thaw(folder)
        subprocess.run(["umount", "-l", folder], check=False)


def thaw(folder):
    subprocess.run(["fsfreeze", "--unfreeze", folder], capture_output=True, timeout=20)


@contextlib.contextmanager
def frozen(folder, at_most_s=60):
    """The file system takes no write while the block lasts, and no longer than so many seconds."""
    watchdog = subprocess.Popen(
        ["sh", "-c", f'sleep {at_most_s}; exec fsfreeze --unfreeze "$0"', folder],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        subprocess.run(["fsfreeze", "--freeze", folder], check=True, timeout=20)
        yield
    finally:
        thaw(folder)
        with contextlib.suppress(OSError):
            os.killpg(watchdog.pid, 9)
        watchdog.wait()


@pytest.fixture
def on_disk(tmp_path, servers, disk):  # noqa: F811
    """Three servers, of which db2 has its data on a file system of its own."""
    yield cluster_of_three(tmp_path, servers, {"db2": disk / "data"})
    for server in servers:
        server.kill()  # before the file system goes


def primary_on(server, name):
    """A table of three replicas whose primary is db2's or another's."""
    with server.connection() as (r, connection):
        r.db("runbook").table_create("canary", replicas=3).run(connection)
        table = r.db("runbook").table("canary")
        shards = table.config()["shards"].run(connection)
        table.config().update({"shards": [{**shards[0], "primary_replica": name}]}).run(connection)
        deadline = time.monotonic() + 60
        while True:
            status = table.wait(wait_for="all_replicas_ready", timeout=60).run(connection)
            with contextlib.suppress(ReqlError):
                (shard,) = table.status()["shards"].run(connection)
                if shard["primary_replicas"] == [name]:
                    return
            assert time.monotonic() < deadline, status
            time.sleep(0.2)


@real
@root
def test_where_the_primarys_disk_hangs_no_node_answers_and_all_of_them_greet(on_disk, disk):
    primary_on(on_disk[0], "db2")
    with watched(on_disk, plan("runbook.canary")) as seen:
        for name in NODES:
            seen.wait(ends(CanaryEnd.ANSWERED, name))
        with frozen(disk):
            for name in NODES:
                seen.wait_until(
                    lambda n=name: any(ends(CanaryEnd.UNANSWERED, n)(e) for _, e in seen.seen), 30.0
                )
            assert seen.faults == dict.fromkeys(NODES)
        for name in NODES:
            seen.wait(ends(CanaryEnd.ANSWERED, name), 30.0)


@real
@root
def test_where_another_replicas_disk_hangs_applications_are_served(on_disk, disk):
    primary_on(on_disk[0], "db1")
    with watched(on_disk, plan("runbook.canary")) as seen:
        for name in NODES:
            seen.wait(ends(CanaryEnd.ANSWERED, name))
        with frozen(disk):
            time.sleep(6.0)
            waited = [e for _, e in seen.seen if ends(CanaryEnd.UNANSWERED)(e)]
        assert waited == []
