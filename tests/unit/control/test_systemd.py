"""On systemd the unit is killed, and no pid of ours is signalled as long as that helps."""

import os
import signal
import time

import pytest

from saltext_selfheal.control import family
from saltext_selfheal.control.services import Functions
from tests.lab.ports import free_port
from tests.unit.control.world import SERVICE, Recorded, Stubborn, ended, force

UNIT = "rethinkdb.service"


class Systemd:
    """A unit with one main process. Its stop waits until that is dead, as systemd's does."""

    def __init__(self, server):
        self.server = server
        self.commands, self.called = [], []
        self.state, self.sub = "active", "running"
        self.kills = True
        self.load = "loaded"
        self.main_pid = True  #: a unit made of an init script has none

    @property
    def functions(self):
        return Functions(
            available=lambda name: name == SERVICE,
            show=self.show, stop=self.stop, start=self.start, run=self.run,
        )  # fmt: skip

    def show(self, _name):
        lives = self.server.is_running and self.main_pid
        return {
            "Id": UNIT, "LoadState": self.load, "ActiveState": self.state, "SubState": self.sub,
            "MainPID": str(self.server.pid) if lives else "0",
        }  # fmt: skip

    def stop(self, _name):
        self.called.append("stop")
        if self.server.is_running:
            os.kill(self.server.pid, signal.SIGTERM)
        while self.server.is_running:
            time.sleep(0.02)
        self.state, self.sub = "inactive", "dead"
        return True

    def start(self, _name):
        self.called.append("start")
        if self.state == "active":
            return True
        self.server.start()
        self.state, self.sub = "active", "running"
        return True

    def run(self, command):
        self.commands.append(command)
        if "kill" in command and not self.kills:
            return {"retcode": 1, "stdout": "", "stderr": f"Failed to kill unit {UNIT}"}
        if "kill" in command:
            os.kill(self.server.pid, signal.SIGKILL)
        return {"retcode": 0, "stdout": "", "stderr": ""}


KILL = ["systemctl", "kill", "--signal=KILL", UNIT]
RESET = ["systemctl", "reset-failed", UNIT]


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def systemd(port):
    with ended(Stubborn(port)) as server:
        server.start()
        yield Systemd(server)


def test_a_unit_that_does_not_stop_is_killed_by_its_name(systemd, port):
    old, kernel = systemd.server.pid, Recorded()
    told = force(port, systemd.functions, kernel=kernel)
    assert (told["done"], told["how"], told["killed"]) == (True, "killed", [old])
    assert systemd.commands == [KILL, RESET]
    assert (systemd.called, kernel.sent) == (["stop", "start"], [])


def test_a_process_outside_its_unit_is_killed_through_its_pidfd(systemd, port):
    systemd.kills = False
    old, kernel = systemd.server.pid, Recorded()
    told = force(port, systemd.functions, kernel=kernel)
    assert (told["done"], told["killed"]) == (True, [old])
    assert kernel.sent == [(old, signal.SIGKILL)]
    assert f"(Failed to kill unit {UNIT})" in told["why"]


def test_active_exited_is_stopped_before_it_is_started(systemd, port):
    """A start alone would do nothing."""
    systemd.server.stop()
    systemd.main_pid, systemd.sub = False, "exited"
    told = force(port, systemd.functions)
    assert (told["done"], told["how"], told["killed"]) == (True, "started", [])
    assert systemd.called == ["stop", "start"]
    assert told["pid"] == systemd.server.pid


def test_a_masked_unit_is_not_touched(systemd, port):
    systemd.load = "masked"
    told = force(port, systemd.functions)
    assert (told["done"], told["how"], systemd.called) == (False, "none", [])
    assert "the unit of rethinkdb is masked and could not be started again" in told["why"]


def test_a_process_of_another_unit_is_not_touched(systemd, port, monkeypatch):
    """A wrong port or service in the settings must not cost another database."""
    pid = systemd.server.pid
    monkeypatch.setattr(
        family, "unit_of", lambda _, who: "other.service" if who == pid else "salt-minion.service"
    )
    systemd.main_pid = False
    told = force(port, systemd.functions)
    assert (told["done"], told["how"], systemd.called) == (False, "none", [])
    assert f"process {pid} with driver port {port} belongs to other.service, not to" in told["why"]


def test_systemd_names_the_one_of_two_servers_with_one_port(systemd, port):
    with ended(Stubborn(port, "other")) as other:
        other.start()
        old = systemd.server.pid
        told = force(port, systemd.functions)
        assert (told["done"], told["killed"], other.is_running) == (True, [old], True)


def test_a_unit_whose_process_survives_is_not_started(systemd, port):
    systemd.kills = False
    told = force(port, systemd.functions, kernel=Recorded(deaf=(signal.SIGKILL,)))
    assert (told["done"], told["how"]) == (False, "none")
    assert "cannot be killed" in told["why"]
    assert (systemd.called, RESET in systemd.commands) == (["stop"], False)
