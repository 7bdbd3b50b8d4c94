"""All facts of real processes on this machine, in time and in bounds."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from saltext_selfheal.witness import storage, testimony
from saltext_selfheal.witness.testimony import MOST_BYTES, bounded
from tests.lab.ports import free_port
from tests.lab.simulated.child import SimulatedProcess
from tests.lab.simulated.settings import write_config
from tests.unit.witness.world import PORT, SERVER

KEYS = [
    "version", "service", "port", "process", "listens", "cluster_listens", "holder", "manager", "directory", "pid_file",
    "oom_kill", "log", "peers", "jobs", "greets",
]  # fmt: skip
PROCESS = [
    "state", "pid", "age_s", "cpu_s", "rss_bytes", "open_files", "open_files_limit", "status", "why",
]  # fmt: skip


def absent(name):
    raise KeyError(name)


def ask(port, timeout_s=5, show=absent, status=absent, running=list, **more):
    told = testimony.testify(
        "rethinkdb", port, timeout_s, show=show, status=status, running=running, **more
    )
    assert sorted(told) == sorted(KEYS)
    assert sorted(told["process"]) == sorted(PROCESS)
    assert len(json.dumps(told, allow_nan=False)) <= MOST_BYTES
    return told


@pytest.fixture
def config(tmp_path):
    return write_config(
        tmp_path / "db1.conf", directory=tmp_path / "data", driver_port=free_port(), cluster_port=free_port(),
        server_name="db1", join=["127.0.0.1:1", "db2"], no_http_admin=True, initial_password="hunter22",
    )  # fmt: skip


@pytest.fixture
def server(config):
    with SimulatedProcess(config) as made:
        yield made


def test_a_server_that_serves(server, tmp_path):
    told = ask(server.settings.driver_port, status=lambda _: True)
    process = told["process"]
    assert (process["state"], process["pid"], process["why"]) == ("runs", server.pid, None)
    assert process["status"] in "RSD"
    assert 0 <= process["age_s"] < 60
    assert process["cpu_s"] > 0
    assert process["rss_bytes"] > 1_000_000
    assert 5 < process["open_files"] < process["open_files_limit"]
    assert (told["listens"], told["cluster_listens"], told["holder"]) == (True, True, None)
    assert told["manager"]["running"] is True
    assert told["directory"]["path"] == str(tmp_path / "data")
    assert told["peers"] == ["127.0.0.1:1", "db2:29015"]
    assert told["greets"] is True
    assert "hunter22" not in json.dumps(told)


def test_one_that_is_stopped(server):
    server.pause()
    told = ask(server.settings.driver_port)
    assert (told["process"]["state"], told["process"]["status"], told["listens"]) == (
        "runs",
        "T",
        True,
    )
    assert told["greets"] is False  # the kernel takes the connection, and nobody answers
    server.resume()
    assert ask(server.settings.driver_port)["greets"] is True


def test_one_that_was_killed_also_while_nobody_takes_its_exit_code(server, config):
    port = server.settings.driver_port
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(2):
        told = ask(port, config=str(config))
        assert (told["process"]["state"], told["process"]["pid"]) == ("gone", None)
        assert (told["listens"], told["cluster_listens"], told["holder"]) == (False, False, None)
        assert told["directory"]["read_only"] is False
        assert told["greets"] is None
        server.kill()


def test_one_whose_port_is_taken(config):
    port = SimulatedProcess(config).settings.driver_port
    with socket.create_server(("127.0.0.1", port)):
        told = ask(port, config=str(config))
    assert (told["process"]["state"], told["listens"]) == ("gone", False)
    assert told["holder"]["pid"] == os.getpid()


def test_one_that_another_user_may_not_see_through(server):
    """As an ordinary user asks: what root may read stays unknown, what all may read is told."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    port = server.settings.driver_port
    script = (
        "import json, os, sys\n"
        "from saltext_selfheal.witness.testimony import testify\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"print(json.dumps(testify('x', {port}, 5, show=None, status=None, running=None)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
    )
    told = json.loads(done.stdout)
    assert told["process"]["open_files"] is None
    # The folder of the test belongs to root, so its config file may not be read.
    assert told["process"]["state"] == "unknown"
    why = told["process"]["why"]
    # If another server runs on this machine, it may be that one.
    unreadable = why.startswith("process ") and why.endswith("its options cannot be read")
    assert unreadable or why == f"something listens on port {port}, and its process cannot be seen"


HIDDEN = """
import json, os
from saltext_selfheal.witness.testimony import testify
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps(testify("x", 1, 5, show=None, status=None, running=None)))
"""


@pytest.mark.parametrize("mode", ["noaccess", "invisible"])
def test_where_the_kernel_hides_processes_it_is_unknown(mode):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    mount = f'mount -t proc -o hidepid={mode} proc /proc && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", HIDDEN],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(done.stderr.decode()[-200:])
    process = json.loads(done.stdout)["process"]
    assert process["state"] == "unknown"
    assert "hidden here" in process["why"] or "may not be looked at" in process["why"]


def test_one_in_a_network_and_a_file_system_of_its_own(config):
    """A container, as the machine around it sees it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to unshare")
    port = SimulatedProcess(config).settings.driver_port
    command = [sys.executable, "-S", "-m", "tests.lab.simulated", "--config-file", str(config)]
    child = subprocess.Popen(
        ["unshare", "-n", "-m", *command], stdout=subprocess.PIPE, cwd=SimulatedProcess.ROOT
    )
    try:
        assert b"Server ready" in child.stdout.readline()
        with socket.create_server(("127.0.0.1", port)):  # on this network, and not on the server's
            told = ask(port)
        assert (told["process"]["state"], told["process"]["pid"]) == ("runs", child.pid)
        assert (told["listens"], told["cluster_listens"], told["holder"]) == (True, True, None)
        assert told["directory"]["path"] == str(config.parent / "data")
    finally:
        child.kill()
        child.communicate()


def test_where_everything_hangs_it_ends_in_time(machine, monkeypatch):
    machine.process(70, (*SERVER, "--directory", str(machine.host.data), "--pid-file", "/x"))

    def hang(*_):
        time.sleep(60)

    monkeypatch.setattr(storage.os, "statvfs", hang)
    monkeypatch.setattr(storage.os.path, "lexists", hang)
    machine.host.data.mkdir()
    begun = time.monotonic()
    told = ask(PORT, 1, host=machine.host, show=hang, status=hang)
    assert time.monotonic() - begun < 1.2
    assert told["process"]["state"] == "runs"
    assert (told["manager"], told["directory"], told["pid_file"], told["oom_kill"]) == (None,) * 4


def test_a_proc_that_hangs_is_unknown(machine, monkeypatch):
    monkeypatch.setattr("saltext_selfheal.witness.processes.look", lambda *_: time.sleep(60))
    begun = time.monotonic()
    told = ask(PORT, 0.5, host=machine.host)
    assert time.monotonic() - begun < 0.8
    assert told["process"]["state"] == "unknown"
    assert told["process"]["why"] == "the list of processes could not be read in time"


def test_no_thread_can_be_started(machine, monkeypatch):
    monkeypatch.setattr("threading.Thread.start", lambda _: absent("can't start new thread"))
    with pytest.raises(KeyError):
        ask(PORT, host=machine.host)

    def full(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", full)
    assert ask(PORT, host=machine.host)["process"]["state"] == "unknown"


def test_the_numbers_of_a_process(machine):
    machine.process(70, SERVER, sockets=range(9))
    process = ask(PORT, host=machine.host)["process"]
    assert process == {
        "state": "runs", "pid": 70, "age_s": 9900.0, "cpu_s": 3.0, "rss_bytes": 512 * os.sysconf("SC_PAGE_SIZE"),
        "open_files": 9, "open_files_limit": 1024, "status": "S", "why": None,
    }  # fmt: skip


def test_texts_are_clean_and_all_of_it_short(machine, tmp_path):
    wild = "\x1b[2J\U0001f4a5" * 50
    machine.process(50, ("nc",), sockets=(5,), name=wild)
    machine.listen((PORT, 5))
    config = tmp_path / "x.conf"
    joins = "".join(f"join={'é' * 300}{n}\n" for n in range(20))
    config.write_text(f"pid-file=/{wild}\nlog-file={tmp_path}/log\ndirectory={tmp_path}\n{joins}")
    (tmp_path / "log").write_text("error: " + "\U0001f4a5" * 1000)
    told = ask(PORT, host=machine.host, config=str(config))
    assert len(told["peers"]) == 8
    assert "\x1b" not in json.dumps(told, ensure_ascii=False)


def test_what_is_too_long_is_cut_everywhere():
    told = bounded({"a": ["\U0001f4a5" * 1000] * 8, "n": 1, "none": None})
    assert len(json.dumps(told)) <= MOST_BYTES
    assert (told["n"], told["none"]) == (1, None)
