"""An application that writes through outages: first with a healer that may not act, then with one that does."""

import functools
import threading

import pytest
from rethinkdb.errors import ReqlOpIndeterminateError

from saltext_selfheal import app
from tests.lab import daemons
from tests.lab.node import USER
from tests.lab.site import REAL
from tests.lab.site import TABLE

EVERY_S = 0.1
OUTAGES = 3


class Writer:
    """Writes numbers into a table through `healing`, on one node, and keeps account of them."""

    def __init__(self, site, node):
        self.node = node
        self.acknowledged, self.unknown, self.repeated, self.helped = [], [], [], []
        self.moved = threading.Condition()
        self._stop = threading.Event()
        via = app.SaltAPI(site.api_url, daemons.API_USER, site.api_credentials["password"], "file")
        self._help = app.Help(
            via,
            "runbook",
            highstate_after=None,
            restart_after=0.5,
            again_after=2,
            on_help=self._helped,
        )
        self._factory = functools.partial(
            app.connect,
            [("127.0.0.1", node.driver_port)],
            user=USER,
            password=node.password,
            query_timeout=10,
            stop=self._stop,
        )
        self.thread = threading.Thread(target=self._write, daemon=True)

    def _helped(self, helped):
        with self.moved:
            self.helped.append(helped)
            self.moved.notify_all()

    def _write(self):
        r, connection = self.node.connect()
        connection.close(noreply_wait=False)
        table = r.db(TABLE[0]).table(TABLE[1])
        number = 0
        with app.healing(self._factory, help=self._help, stop=self._stop) as conn:
            while not self._stop.wait(EVERY_S):
                number += 1
                try:
                    answer = table.insert({"id": f"app-{number}"}).run(conn)
                except ReqlOpIndeterminateError:
                    self.unknown.append(number)
                    continue
                except app.Stopped:
                    return
                with self.moved:
                    (self.acknowledged if answer["inserted"] else self.repeated).append(number)
                    self.moved.notify_all()

    def wait_for_more(self, count=5, timeout=60):
        """Until so many further writes were acknowledged."""
        with self.moved:
            wanted = len(self.acknowledged) + count
            assert self.moved.wait_for(lambda: len(self.acknowledged) >= wanted, timeout)

    def wait_for_help(self, timeout=30):
        """Until one more call was answered; returns what it became."""
        with self.moved:
            before = len(self.helped)
            assert self.moved.wait_for(lambda: len(self.helped) > before, timeout)
            return self.helped[-1]

    def end(self):
        """Stop writing."""
        self._stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def start(site, node):
    """As an operator does: again, if the service manager had not seen the death yet."""
    for _ in range(6):
        site.call("db1", "service.start", "rethinkdb")
        try:
            return node.wait_serving(5)
        except TimeoutError:
            continue
    raise TimeoutError("db1 cannot be started")


def test_an_application_writes_through_outages(quiet, salt_api):
    if quiet.server != REAL:
        pytest.skip("the simulated node stores nothing")
    assert salt_api.is_running()
    node = quiet.nodes["db1"]
    writer = Writer(quiet, node)
    writer.thread.start()
    try:
        writer.wait_for_more()

        assert quiet.run_runner("selfheal.pause", "runbook", "10m", reason="test")["reply"]
        for _ in range(OUTAGES):
            node.kill()
            helped = writer.wait_for_help()
            assert helped.ok, str(helped)
            start(quiet, node)
            writer.wait_for_more()
        assert quiet.run_runner("selfheal.resume", "runbook")["reply"] == "accepted"
        quiet.wait_until_quiet()

        for _ in range(OUTAGES):
            node.kill()
            writer.wait_for_more()
            quiet.wait_until_quiet()
    finally:
        writer.end()

    r, connection = node.connect()
    try:
        table = r.db(TABLE[0]).table(TABLE[1])
        rows = table.filter(r.row["id"].match("^app-"))["id"].run(connection)
        there = [int(row.partition("-")[2]) for row in rows]
        table.filter(r.row["id"].match("^app-")).delete().run(connection)
    finally:
        connection.close(noreply_wait=False)
    assert writer.repeated == []
    assert set(writer.acknowledged) <= set(there)
    assert set(there) <= set(writer.acknowledged) | set(writer.unknown)
    entries = quiet.run_runner("selfheal.history", "runbook", limit=100)
    asked = {row.get("request") for row in entries}
    # Those that joined an incident are folded into the first.
    assert asked & {helped.request for helped in writer.helped if helped.ok}
