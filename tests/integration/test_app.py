"""An application on app1 writes through outages: first while there is no healer, then with one."""

import contextlib
import fcntl
import functools
import json
import shlex
import sys
import threading
import time
import uuid
from pathlib import Path

import psutil
from rethinkdb import RethinkDB

from saltext_selfheal import app
from saltext_selfheal.ledger.file import lock_path
from tests.lab import daemons
from tests.lab.node import USER
from tests.lab.site import CHECKOUT, CLUSTER, TABLE

OUTAGES = 3
DECIDED = ("accepted", "joined", "held", "refused")


class Writing:
    """`tests.lab.writing` as a process that app1 started, and what it has said."""

    def __init__(self, site, node):
        self.name = f"app-{uuid.uuid4().hex[:8]}"
        self.log = site.root / f"{self.name}.log"
        self.log.touch()
        settings = {
            "name": self.name,
            "log": str(self.log),
            "cluster": CLUSTER,
            "table": TABLE,
            "api": {
                "url": site.api_url,
                "username": daemons.API_USER,
                "password": site.api_credentials["password"],
                "eauth": "file",
            },
            "help": {"highstate_after": None, "restart_after": 0.5, "again_after": 2},
            "connect": {
                "hosts": [node.address],
                "user": USER,
                "password": node.password,
                "query_timeout": 10,
            },
        }
        path = site.root / f"{self.name}.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        started = site.call(
            "app1",
            "cmd.run_bg",
            shlex.join([sys.executable, "-m", "tests.lab.writing", str(path)]),
            cwd=str(CHECKOUT),
            python_shell=False,
        )
        self.process = psutil.Process(started["app1"]["ret"]["pid"])

    def all(self, what):
        """Everything of one kind that was said so far."""
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines(True)]
        return [line for line in lines if what in line]

    def keys(self, what):
        return [line[what] for line in self.all(what)]

    def wait_for_more(self, what="acknowledged", count=5, timeout=60):
        """Until so many further lines of this kind were said; returns the last."""
        wanted, give_up_at = len(self.all(what)) + count, time.monotonic() + timeout
        while len(self.all(what)) < wanted:
            assert self.process.is_running(), self.log.read_text()[-500:]
            assert time.monotonic() < give_up_at, self.log.read_text()[-500:]
            time.sleep(0.05)
        return self.all(what)[-1]

    def end(self):
        """Stop it; whether it said that it ends."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
            psutil.wait_procs([self.process], timeout=20)
        return bool(self.all("end"))


@contextlib.contextmanager
def no_healer(site):
    """The engine is killed, and what Salt starts in its place finds the ledger taken: it may do nothing."""
    ledger = site.run_runner("selfheal.status")["ledger"]
    engine = site.engine()
    with lock_path(Path(ledger)).open("r+b") as lock:
        taken = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_EX), daemon=True)
        taken.start()
        engine.kill()
        taken.join(10)
        assert not taken.is_alive()
        yield


def start(site, node):
    """As an operator does: again, if the service manager had not seen the death yet."""
    for _ in range(6):
        site.call("db1", "service.start", "rethinkdb")
        try:
            return node.wait_serving(5)
        except TimeoutError:
            continue
    raise TimeoutError("db1 cannot be started")


def test_an_application_writes_through_outages(quiet, salt_api, salt_minion):
    assert salt_api.is_running() and salt_minion.is_running()
    node, run = quiet.nodes["db1"], quiet.run_runner
    writing = Writing(quiet, node)
    try:
        writing.wait_for_more()

        with no_healer(quiet):
            for _ in range(OUTAGES):
                node.kill()
                helped = writing.wait_for_more("help", count=1)
                assert helped["help"] is True, helped
                start(quiet, node)
                writing.wait_for_more()
        before = {row["request"] for row in writing.all("help")}
        quiet.wait_until_quiet()

        for _ in range(OUTAGES):
            node.kill()
            writing.wait_for_more()
            quiet.wait_until_quiet()
    finally:
        assert writing.end()

    r, connection = node.connect()
    with contextlib.closing(connection):
        database, table = TABLE
        rows = r.db(database).table(table).run(connection)
        there = {row["id"] for row in rows if row["id"].startswith(writing.name)}
    acknowledged, unknown = set(writing.keys("acknowledged")), set(writing.keys("unknown"))
    assert writing.keys("repeated") == []
    assert acknowledged <= there <= acknowledged | unknown
    asked = {row["request"] for row in writing.all("help") if row["help"]}
    for request in asked:
        assert run("selfheal.incident", request)["reply"] in DECIDED
    # Those that joined an incident are counted there; the first of each is told.
    listed = {row.get("request") for row in run("selfheal.history", CLUSTER, limit=500)}
    assert listed & asked & before
    assert listed & asked - before


def test_what_is_set_by_repl_and_held_by_with_is_healed_through_the_healers_restart(quiet):
    node, r = quiet.nodes["db1"], RethinkDB()
    factory = functools.partial(
        app.connect, [node.address], user=USER, password=node.password, query_timeout=10
    )
    with app.healing(factory, deadline=60) as conn:
        with conn:
            assert r.expr(1).run(conn) == 1
        conn.repl()
        for _ in range(2):
            before = conn.server()["id"]
            node.kill()
            assert r.expr(2).run() == 2
            assert conn.server()["id"] == before
            quiet.wait_until_quiet()
