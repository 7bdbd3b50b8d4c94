"""The lab's service manager starts servers from a checkout at any path."""

import os
import sys
import time

import psutil
import pytest

from tests.lab.supervisor import SERVICE, Supervisor

ODD = "a ;b #c 'd' \"e\" $HOME 100%(x)s ü日本 [f]*? \\g"
SERVER = "import time; time.sleep(60)"


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / "server.py").write_text(SERVER)
    return folder


def test_a_server_starts_from_an_odd_path(tmp_path, checkout):
    command = [checkout / "python", "-S", str(checkout / "server.py"), "# ; end"]
    made = Supervisor(tmp_path / "init", {"db1": command}, dict(os.environ), checkout)
    made.start(timeout_s=60)
    try:
        made.call("startProcess", f"db1:{SERVICE}", False)
        process = psutil.Process(made.pid("db1"))
        # The shell in between replaces itself, a moment after supervisord has called it started.
        deadline = time.monotonic() + 30
        while process.cmdline()[-1:] != ["# ; end"]:
            assert time.monotonic() < deadline, process.cmdline()
            time.sleep(0.01)
        assert checkout.samefile(process.cwd())
    finally:
        made.stop(timeout_s=30)
        made.reap()
