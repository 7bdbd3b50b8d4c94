"""The lab finds the healer's engine by the lock that it holds, whatever its path and its command line say."""

import fcntl
import os
import subprocess
import sys

import psutil
import pytest

from tests.lab.engine import children, lock_holder

HOLD = """
import fcntl, os, subprocess, sys
lock, how = sys.argv[1:3]
fd = os.open(lock, os.O_RDWR | os.O_CREAT)
if how != "open":
    fcntl.flock(fd, fcntl.LOCK_SH if how == "shared" else fcntl.LOCK_EX)
if how == "forked" and os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
if how != "forked":
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Start a program from a folder whose name misleads: its pid, and that of the one that has spoken."""
    folder = tmp_path / "Engine(selfheal) ü 'saltext_selfheal'"
    folder.mkdir()
    program = folder / "salt-master Engine(selfheal).sqlite3.lock.py"
    program.write_text(HOLD)
    started = []

    def start(lock, how):
        process = subprocess.Popen(
            [sys.executable, "-S", str(program), str(lock), how, "Engine(selfheal)"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process.pid, int(process.stdout.readline())

    yield start
    for process in started:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def found(lock):
    return lock_holder(lock, children(os.getpid()))


def test_the_holder_is_found_among_those_whose_paths_mislead(start, tmp_path):
    ledger, other = tmp_path / "ledger.sqlite3.lock", tmp_path / "other.sqlite3.lock"
    start(other, "exclusive")
    start(ledger, "open")
    assert found(ledger) is None
    engine, _ = start(ledger, "exclusive")
    assert found(ledger) == engine
    assert found(other) != engine


def test_who_looks_whether_an_engine_lives_is_none(start, tmp_path):
    lock = tmp_path / "ledger.sqlite3.lock"
    start(lock, "shared")
    assert found(lock) is None


def test_a_child_that_inherited_the_file_is_not_the_holder(start, tmp_path):
    lock = tmp_path / "ledger.sqlite3.lock"
    engine, child = start(lock, "forked")
    assert child != engine
    assert lock_holder(lock, [psutil.Process(child)]) is None
    assert found(lock) == engine


def test_a_holder_that_is_a_stranger_is_not_the_engine(tmp_path):
    lock = tmp_path / "ledger.sqlite3.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert found(lock) is None
        assert lock_holder(lock, [psutil.Process()]) == os.getpid()


def test_no_lock_and_no_process_are_no_engine(tmp_path):
    assert found(tmp_path / "none.lock") is None
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process = psutil.Process(ended.pid)
    ended.wait()
    (tmp_path / "lock").touch()
    assert lock_holder(tmp_path / "lock", [process]) is None
    assert children(ended.pid) == []
