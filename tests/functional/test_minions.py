"""Whether minions are there, as the Salt that is installed tells it: with real connections, kept grains and keys."""

import socket
from pathlib import Path

import pytest
import salt.cache

from saltext_selfheal.healing.events import Presence
from saltext_selfheal.loop.minions import MISSED_FOR_S, Key, Keys, Reader, Sightings

ADDRESSES = {"db1": "127.0.0.101", "db2": "127.0.0.102", "db3": "127.0.0.103"}


class Master:
    """A port that minions are connected to, and what the master keeps of them."""

    def __init__(self, opts):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.opts = {**opts, "publish_port": self.listener.getsockname()[1]}
        self.cache = salt.cache.factory(self.opts)
        self.keys = Path(opts["pki_dir"]) / "minions"
        self.keys.mkdir(parents=True)
        self.connections = {}

    def accept(self, minion):
        """Accept its key, and keep its grains where Salt 3006 keeps them, and where 3008 does."""
        (self.keys / minion).write_text("a key")
        grains = {"id": minion, "ipv4": [ADDRESSES[minion], "127.0.0.1"], "ipv6": ["::1"]}
        self.cache.store(f"minions/{minion}", "data", {"grains": grains, "pillar": {}})
        self.cache.store("grains", minion, grains)

    def connect(self, minion):
        one = socket.create_connection(
            self.listener.getsockname(), source_address=(ADDRESSES[minion], 0)
        )
        self.connections[minion] = (one, self.listener.accept()[0])

    def hang_up(self, minion):
        for end in self.connections.pop(minion):
            end.close()

    def close(self):
        for minion in list(self.connections):
            self.hang_up(minion)
        self.listener.close()


@pytest.fixture
def master(opts):
    made = Master(opts)
    for minion in ("db1", "db2"):
        made.accept(minion)
    yield made
    made.close()


def test_a_reading_of_real_connections_and_keys(master):
    master.connect("db1")
    found = Reader(master.opts)(ADDRESSES)
    accepted = {"db1": Key.ACCEPTED, "db2": Key.ACCEPTED, "db3": Key.NONE}
    assert found.keys == Keys(accepted, True)
    assert found.connected == {"db1": frozenset({"127.0.0.101"})}
    assert found.remote == {"127.0.0.101"}
    assert found.kept == {
        "db2": frozenset({"127.0.0.102", "127.0.0.1", "::1"}),
        "db3": frozenset(),
    }


def test_a_minion_that_hangs_up_is_gone_and_comes_back(master):
    read, sightings = Reader(master.opts), Sightings()

    def seen(at):
        return sightings.judge(ADDRESSES, read(ADDRESSES), at)["db2"]

    assert seen(0.0) is Presence.UNKNOWN
    for minion in ("db1", "db2"):
        master.connect(minion)
    assert seen(10.0) is Presence.CONNECTED
    master.hang_up("db2")
    assert seen(20.0) is Presence.UNKNOWN
    assert seen(20.0 + MISSED_FOR_S) is Presence.AWAY
    master.connect("db2")
    assert seen(30.0) is Presence.CONNECTED


def test_without_kept_grains_nobody_is_found(master):
    for minion in ("db1", "db2"):
        master.connect(minion)
    found = Reader({**master.opts, "minion_data_cache": False})(ADDRESSES)
    assert (found.connected, found.remote) == ({}, frozenset())


@pytest.mark.parametrize(
    "grains",
    [{"ipv4": None}, {"ipv4": [["10.0.0.1"], {}]}, {"ipv4": 7, "ipv6": "x"}, "grains", 7, None],
)
def test_grains_that_are_no_grains_hide_no_other_minion(master, grains):
    """A minion writes its own grains."""
    master.cache.store("grains", "db2", grains)
    master.cache.store("minions/db2", "data", {"grains": grains})
    for minion in ("db1", "db2"):
        master.connect(minion)
    found = Reader(master.opts)(ADDRESSES)
    assert found.connected == {"db1": frozenset({"127.0.0.101"})}
    assert found.kept["db2"] == frozenset()
