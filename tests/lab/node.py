"""
One database node of the site, seen from outside: its addresses, its process, its config file, and what one can do to
them. Salt plays no part here; how a node is started and repaired is Salt's business (``salt/``).
"""

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rethinkdb import RethinkDB

from tests.lab.ports import LOOPBACK
from tests.lab.supervisor import Supervisor

USER = "admin"


@dataclass
class Node:
    """A RethinkDB server, real or simulated, under the site's supervisord."""

    minion_id: str
    driver_port: int
    cluster_port: int
    config_path: Path
    directory: Path
    password: str = field(repr=False)
    _supervisor: Supervisor = field(repr=False)
    _right_config: "str | None" = field(default=None, repr=False)

    @property
    def address(self):
        """``host:port`` of the driver port."""
        return f"{LOOPBACK}:{self.driver_port}"

    def pid(self):
        """Pid of the living server, None if it is dead."""
        pid = self._supervisor.pid(self.minion_id)
        with contextlib.suppress(psutil.Error):
            if pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return pid
        return None

    def kill(self):
        """SIGKILL the server. Returns its pid, when it is really dead."""
        pid = self._pid_or_error()
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(psutil.Error):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.001)
        return pid

    def pause(self):
        """SIGSTOP the server: its ports still accept, nothing answers."""
        os.kill(self._pid_or_error(), signal.SIGSTOP)

    def resume(self):
        """SIGCONT."""
        os.kill(self._pid_or_error(), signal.SIGCONT)

    def _pid_or_error(self):
        pid = self.pid()
        if pid is None:
            raise ProcessLookupError(f"the server of {self.minion_id} does not run")
        return pid

    def connect(self, timeout_s=2.0):
        """A connection of the official driver, and the ``RethinkDB`` object that made it. The caller closes it."""
        # an object of its own: the module's global `r` shares its loop type between all users
        driver = RethinkDB()
        connection = driver.connect(
            host=LOOPBACK,
            port=self.driver_port,
            user=USER,
            password=self.password,
            timeout=timeout_s,
        )
        return driver, connection

    def serving(self, timeout=1.0):
        """Whether a real handshake succeeds and SERVER_INFO answers within so many seconds."""
        return self._refusal(timeout) is None

    def _refusal(self, timeout):
        """Why it does not serve, None if it does."""
        answers = []

        def ask():
            try:
                _, connection = self.connect(timeout)
                connection.server()
                answers.append(None)
                connection.close(noreply_wait=False)
            except Exception as exc:  # the driver also leaks errors that are not its own
                answers.append(exc)

        # The blocking driver's timeout covers only connect(): server() on a paused node waits for ever. So it waits
        # in a thread that nobody waits for.
        thread = threading.Thread(target=ask, daemon=True, name=f"lab-serving-{self.minion_id}")
        thread.start()
        thread.join(timeout)
        return answers[0] if answers else TimeoutError(f"no answer within {timeout} s")

    def wait_serving(self, timeout=30.0):
        """Wait until it serves. Returns the seconds that took; TimeoutError otherwise."""
        begin = time.monotonic()
        while (refusal := self._refusal(timeout=1.0)) is not None:
            if time.monotonic() - begin > timeout:
                raise TimeoutError(
                    f"{self.minion_id} does not serve on {self.address} after {timeout:.0f} s: {refusal}"
                ) from refusal
            time.sleep(0.01)
        return time.monotonic() - begin

    def damage_config(self):
        """Make the server refuse to start again. A running one is not touched."""
        self._append("selfheal-lab-nonsense=1\n")

    def drift_config(self):
        """Change the file so that it differs from what Salt would write, without any effect on a server."""
        self._append("# changed by hand\n")

    def configure(self, line):
        """One more line in the file, for the next start; until the next highstate."""
        self._append(f"{line}\n")

    def config_is_right(self):
        """Whether the file is what the state tree renders (as remembered after the site's first highstate)."""
        if self._right_config is None:
            raise RuntimeError("no highstate has run yet")
        return self.config_path.exists() and self.config_path.read_text() == self._right_config

    def remember_config(self):
        """From now on the present text counts as the right one. For the site's start."""
        self._right_config = self.config_path.read_text()

    def _append(self, text):
        with self.config_path.open("a") as config:
            config.write(text)
