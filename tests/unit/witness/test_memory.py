"""OOM kills, as the kernel, systemd and the control group tell of them."""

import time

import pytest

from saltext_selfheal.witness import memory, processes
from saltext_selfheal.witness.manager import Manager
from tests.unit.witness.world import SERVER

UNIT = "/system.slice/rethinkdb.service"


def now_s():
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def record(ago_s, words):
    return f"6,1234,{int((now_s() - ago_s) * 1e6)},-;{words}\n SUBSYSTEM=x\n"


def killed(ago_s, pid=70, name="rethinkdb", group=UNIT):
    return record(
        ago_s,
        f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task_memcg={group},task={name},pid={pid},uid=0",
    ) + record(
        ago_s,
        f"Memory cgroup out of memory: Killed process {pid} ({name}) total-vm:1kB, anon-rss:1kB",
    )


@pytest.fixture
def look(machine):
    def look(text="", manager=None, age_s=None, pids=()):
        machine.host.kmsg.write_text(text)
        process = None
        if age_s is not None:
            machine.process(70, SERVER)
            process = processes.look(machine.proc, 70)
        return memory.last_kill(machine.host, manager, process, age_s, frozenset(pids))

    return look


def test_nothing_was_killed(look, machine):
    assert look() is None
    assert look(record(5, "usb 1-1: new device") + "nonsense\n6,1;\n") is None
    machine.host.kmsg.unlink()
    assert memory.kernel_kills(machine.host.kmsg) == []


def test_the_kernels_word(look):
    told = look(killed(60))
    assert 59 < told["age_s"] < 65
    assert told["what"].startswith("Memory cgroup out of memory: Killed process 70 (rethinkdb)")


def test_the_last_one_counts(look):
    assert look(killed(60) + killed(30))["age_s"] < 35


def test_a_stranger_is_not_the_service(look):
    assert look(killed(60, name="java", group="/java")) is None
    assert look(killed(60, name="python", pid=71), pids={71})
    assert look(killed(60, group="/other"), Manager(cgroup=UNIT)) is None
    assert look(killed(60, name="python"), Manager(cgroup=UNIT))


def test_what_was_before_the_last_start_is_over(look):
    assert look(killed(60), age_s=30) is None
    assert look(killed(60), age_s=90)
    assert look(killed(60), Manager(started_s=now_s() - 30)) is None


def test_systemds_word(look):
    told = look(manager=Manager(result="oom-kill", ended_s=now_s() - 20))
    assert 19 < told["age_s"] < 25
    assert look(manager=Manager(result="oom-kill"))["age_s"] is None
    assert look(manager=Manager(result="exit-code")) is None


def test_the_control_groups_count(look, machine):
    events = machine.host.cgroups / UNIT[1:] / "memory.events"
    events.parent.mkdir(parents=True)
    events.write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n")
    told = look(manager=Manager(cgroup=UNIT))
    assert told == {"age_s": None, "what": "2 OOM kills in the service's control group"}
    events.write_text("oom_kill 0\n")
    assert look(manager=Manager(cgroup=UNIT)) is None


def test_the_kernels_own_log_is_not_waited_for():
    begun = time.monotonic()
    memory.kernel_kills(memory.Host().kmsg)
    assert time.monotonic() - begun < 5
