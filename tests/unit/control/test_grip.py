"""A pid is never believed: what is signalled is the process that was found, or nobody."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from saltext_selfheal.control.grip import Grip, Kernel
from saltext_selfheal.control.order import Failed
from saltext_selfheal.witness import processes
from saltext_selfheal.witness.host import Host
from tests.unit.control.world import Recorded

PROC = Host().proc


@pytest.fixture
def sleeper():
    made = subprocess.Popen(["sleep", "60"])
    yield made
    made.kill()
    made.wait()


@pytest.fixture
def found(sleeper):
    return processes.look(PROC, sleeper.pid)


def test_the_process_that_was_found_is_held_and_signalled(sleeper, found):
    grip = Grip(PROC)
    assert grip.take(found) and grip.take(found)
    assert grip.wait(0) is False
    grip.send(signal.SIGTERM)
    assert grip.wait(5) is True
    assert grip.alive == []
    assert sleeper.wait() == -signal.SIGTERM


@pytest.mark.parametrize(
    "other",
    [{"started_s": 1.0}, {"executable": "/usr/bin/other"}, {"executable": None}, {"owner": 4711}],
)
def test_a_pid_that_belongs_to_another_process_now_is_refused(sleeper, found, other):
    kernel = Recorded()
    grip = Grip(PROC, kernel)
    assert grip.take(dataclasses.replace(found, **other)) is False
    assert grip.alive == []
    grip.send(signal.SIGKILL)
    assert kernel.sent == []
    assert sleeper.poll() is None


def test_an_upgraded_executable_is_the_same(found):
    grip = Grip(PROC)
    assert grip.take(dataclasses.replace(found, executable=f"{found.executable} (deleted)"))
    grip.close()


def test_a_process_that_changes_hands_after_the_pidfd_was_opened_is_refused(sleeper, found):
    """The check comes after the open, so the pid cannot change hands between the two unseen."""

    class Late(Kernel):
        def open(self, pid):
            fd = super().open(pid)
            sleeper.kill()
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return fd

    assert Grip(PROC, Late()).take(found) is False


def test_a_dead_process_is_not_held(sleeper, found):
    sleeper.kill()
    sleeper.wait()
    assert Grip(PROC).take(found) is False


def test_a_stopped_process_acts_on_sigterm_when_it_goes_on():
    """One with a handler, as a server has it; without one the kernel ends it at once."""
    script = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(3)); print(); time.sleep(60)"
    command = [sys.executable, "-S", "-u", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as made:
        made.stdout.readline()
        made.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, made.pid, os.WSTOPPED)
        grip = Grip(PROC)
        grip.take(processes.look(PROC, made.pid))
        grip.send(signal.SIGTERM)
        assert grip.wait(0.1) is False
        grip.send(signal.SIGCONT)
        assert grip.wait(10) is True
        assert made.wait() == 3


@pytest.mark.parametrize(
    "error", [OSError(38, "not here"), PermissionError(1, "no"), AttributeError("pidfd_open")]
)
def test_without_pidfds_a_process_is_watched_and_not_signalled(sleeper, found, error):
    class Old(Recorded):
        def open(self, pid):
            raise error

    kernel = Old()
    grip = Grip(PROC, kernel)
    assert grip.take(found)
    with pytest.raises(Failed, match=f"process {sleeper.pid} lives on, and this kernel has no"):
        grip.send(signal.SIGTERM)
    assert (grip.wait(0.05), kernel.sent) == (False, [])
    sleeper.kill()
    assert grip.wait(5) is True


def test_what_may_not_be_signalled_is_told(sleeper, found):
    class Guarded(Kernel):
        def send(self, fd, number):
            raise PermissionError(1, "Operation not permitted")

    grip = Grip(PROC, Guarded())
    grip.take(found)
    with pytest.raises(Failed, match=f"process {sleeper.pid} lives on, and may not be signalled"):
        grip.send(signal.SIGTERM)
    grip.close()


def test_no_descriptor_is_left_open(sleeper, found):
    before = len(list(Path("/proc/self/fd").iterdir()))
    grip = Grip(PROC)
    grip.take(found)
    grip.take(dataclasses.replace(found, owner=4711))
    grip.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
