"""Service managers of one machine, with real processes behind them. Nothing here ends a process by its name."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from saltext_selfheal.control.force import force_restart
from saltext_selfheal.control.grip import Kernel
from saltext_selfheal.control.order import Order, Patience
from saltext_selfheal.control.services import Functions
from tests.lab.ports import free_port
from tests.lab.simulated.child import SimulatedProcess
from tests.lab.simulated.settings import write_config

SERVICE = "rethinkdb"
#: A process that only SIGKILL ends. With the word `helper` it has forked a helper, which stands still.
STUBBORN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if "helper" in sys.argv and os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
print("ready", flush=True)
while True:
    time.sleep(60)
"""
#: By service: whom the functional tests' `service` module asks.
INSTALLED = {}
QUICK = Patience(term_s=0.5, unit_s=1, kill_s=2, returns_s=0.5, start_s=5, appears_s=1.5)


class Stubborn:
    """A process with the command line of a server that does nothing but live."""

    def __init__(self, port, *words):
        self.command = [
            sys.executable, "-S", "-c", STUBBORN, "--driver-port", str(port), *words
        ]  # fmt: skip
        self._process = None

    def start(self):
        self._process = subprocess.Popen(self.command, stdout=subprocess.PIPE)
        assert self._process.stdout.readline() == b"ready\n"

    @property
    def pid(self):
        return self._process.pid

    @property
    def is_running(self):
        return self._process is not None and self._process.poll() is None

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


class InitScript:
    """What RethinkDB's packaged init script does (2.4.4), for one instance, as Salt's functions of `service`.

    Its stop signals whatever the pid file names, and waits for ever; its status always succeeds. systemd runs it once and
    calls the service "active (exited)" from then on, whatever becomes of the server.
    """

    PAUSE_S = 0.02  #: the script looks once a second

    def __init__(self, server, pid_file):
        self.server, self.pid_file = server, Path(pid_file)
        self.called = []

    def functions(self, **others):
        made = {
            "available": lambda name: name == SERVICE,
            "show": self._no_systemd,
            "stop": self.stop,
            "start": self.start,
            "run": self._no_systemd,
        }
        return Functions(**{**made, **others})

    def _no_systemd(self, what):
        raise KeyError(what)

    def _named(self):
        """The pid in the pid file, if that process lives."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        if self.server.is_running and self.server.pid == pid:
            return pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return pid
        return None

    def start(self, _name):
        self.called.append("start")
        if self._named() is not None:
            return True  # "The instance has already started"
        self.pid_file.unlink(missing_ok=True)
        self.server.start()
        self.pid_file.write_text(f"{self.server.pid}\n")
        return True

    def stop(self, _name):
        self.called.append("stop")
        pid = self._named()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            return True
        os.kill(pid, signal.SIGINT)
        while self._named() == pid:
            time.sleep(self.PAUSE_S)
        return True

    def restart(self, name):
        return self.stop(name) and self.start(name)

    def status(self, _name):
        return True


def simulated(folder, name="db1", **more):
    """A server, its init script's pid file among its options."""
    folder = folder / name
    folder.mkdir()
    config = write_config(
        folder / "instance.conf", directory=folder / "data", driver_port=free_port(), cluster_port=free_port(),
        no_http_admin=True, pid_file=folder / "pid_file", **more,
    )  # fmt: skip
    return SimulatedProcess(config)


@contextlib.contextmanager
def ended(server):
    """A server that does not outlive the test."""
    try:
        yield server
    finally:
        if server.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGKILL)
        server.stop()


class Recorded(Kernel):
    """The kernel, which tells what was sent. ``deaf``: signals that reach nobody."""

    def __init__(self, deaf=()):
        self.deaf, self.sent, self._pids = deaf, [], {}

    def open(self, pid):
        fd = super().open(pid)
        self._pids[fd] = pid
        return fd

    def send(self, fd, number):
        self.sent.append((self._pids[fd], number))
        if number not in self.deaf:
            super().send(fd, number)


def force(port, functions, *, stop_timeout_s=0.5, patience=QUICK, **more):
    keys = {key: more.pop(key) for key in ("not_after_s", "timeout_s") if key in more}
    order = Order(more.pop("service", SERVICE), port, stop_timeout_s, **keys)
    told = force_restart(order, functions, patience=patience, **more)
    assert sorted(told) == ["done", "how", "killed", "pid", "stuck", "version", "why"]
    assert told["done"] is (told["pid"] is not None)
    return told
