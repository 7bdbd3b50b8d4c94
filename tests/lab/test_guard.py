"""
The lab's guard: whatever ends the process that holds a site, nothing of the site stays.

With dummy processes in place of daemons; no Salt, no database.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.lab.guard import MARKER, Guard, members

CHECKOUT = Path(__file__).resolve().parents[2]

# A polite one; one that ignores SIGTERM, in a session of its own; a paused one; and one that shows no marker, only
# the argument by which Salt's processes are known.
HOLDER = """
import json, os, signal, subprocess, sys
from tests.lab.guard import Guard

guard = Guard(patience_s=0.3)
environ = {**os.environ, **guard.environ}
(guard.root / "some" / "folder").mkdir(parents=True)

def sleep(*argv, **kwargs):
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process = subprocess.Popen([sys.executable, "-u", "-c", *argv], **{**quiet, "env": environ, **kwargs})
    process.stdout.readline()
    return process

wait = "print(); import time; time.sleep(300)"
deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + wait
processes = [
    sleep(wait),
    sleep(deaf, start_new_session=True),
    sleep(wait),
    sleep(wait, f"--config-dir={guard.root}/master/conf", env=dict(os.environ)),
]
processes[2].send_signal(signal.SIGSTOP)
print(json.dumps([str(guard.root), guard.marker, [process.pid for process in processes]]), flush=True)
sys.stdin.read()
if sys.argv[1] == "release":
    guard.release()
elif sys.argv[1] == "raise":
    raise RuntimeError("the lab fails")
"""


@pytest.fixture
def hold():
    """Start a process that holds a guard and some dummies: (process, root, marker, pids)."""
    holders = []

    def start(way):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=CHECKOUT,
            env={name: text for name, text in os.environ.items() if name != MARKER},
        )
        holders.append(holder)
        root, marker, pids = json.loads(holder.stdout.readline())
        return holder, Path(root), marker, pids

    yield start
    for holder in holders:
        holder.kill()
        holder.wait()
        for pipe in (holder.stdin, holder.stdout, holder.stderr):
            pipe.close()


def wait_for_the_guard(holder):
    # The guard holds the holder's stderr, too: its end is the end of both.
    holder.stderr.read()


@pytest.mark.parametrize("way", ["kill -9", "release", "raise"])
def test_nothing_stays_when_the_holder_ends_by(way, hold):
    holder, root, marker, pids = hold(way)
    assert root.is_dir()
    assert {process.pid for process in members(marker, root)} >= set(pids)

    if way == "kill -9":
        holder.kill()
    else:
        holder.stdin.close()
    wait_for_the_guard(holder)

    assert not root.exists()
    assert members(marker, root) == []
    assert not any(psutil.pid_exists(pid) and is_alive(pid) for pid in pids)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_strangers_live(hold):
    holder, root, _, _ = hold("release")
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)", f"--config-dir={root}-not/conf"],
        env={**os.environ, MARKER: "another site's"},
    )
    try:
        holder.stdin.close()
        wait_for_the_guard(holder)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_second_release_does_no_harm():
    guard = Guard()
    root = guard.root
    guard.release()
    guard.release()
    assert not root.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_what_is_mounted_in_its_folder_is_unmounted():
    guard = Guard()
    disk = guard.root / "data" / "db1"
    disk.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False
    ).returncode
    (disk / "file").write_text("x")
    guard.release()
    assert not guard.root.exists()
    assert str(disk) not in Path("/proc/self/mounts").read_text()
    if mounted:
        pytest.skip("a tmpfs cannot be mounted here")
