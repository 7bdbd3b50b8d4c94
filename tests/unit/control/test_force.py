"""`force_restart` with real processes: what hangs is ended, what is not the server is left alone."""

import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest

from saltext_selfheal.control import family
from saltext_selfheal.witness import processes
from saltext_selfheal.witness.asking import Deadline
from saltext_selfheal.witness.host import Host
from tests.lab.ports import free_port
from tests.unit.control.world import (
    SERVICE,
    InitScript,
    Recorded,
    Stubborn,
    ended,
    force,
    simulated,
)

PROC = Host().proc


def test_a_server_that_stops_when_it_is_asked_to_is_not_killed(script, server, port):
    old, kernel = server.pid, Recorded()
    told = force(port, script.functions(), stop_timeout_s=10, kernel=kernel)
    assert (told["done"], told["how"], told["killed"]) == (True, "orderly", [])
    assert told["pid"] == server.pid != old
    assert kernel.sent == []
    assert script.called == ["stop", "start"]


def test_a_stopped_server_hangs_restart_and_is_brought_back(script, server, port):
    server.pause()
    old, kernel = server.pid, Recorded()
    restart = threading.Thread(target=script.restart, args=(SERVICE,), daemon=True)
    restart.start()
    restart.join(0.5)
    assert restart.is_alive()  # it waits for ever
    assert script.status(SERVICE) is True
    script.start = lambda _: None  # it must not start anything when it goes on
    fresh = InitScript(server, script.pid_file)
    begun = processes.uptime_s(PROC)
    told = force(port, fresh.functions(), kernel=kernel)
    assert (told["done"], told["how"], told["killed"]) == (True, "killed", [old])
    assert "its stop did not return within 0.5 s" in told["why"]
    assert kernel.sent == [(old, signal.SIGTERM), (old, signal.SIGCONT)]
    assert processes.look(PROC, told["pid"]).started_s - begun <= 0.5 + 1.0
    server.wait_ready()


def test_what_ignores_sigterm_gets_sigkill(tmp_path):
    port = free_port()
    with ended(Stubborn(port)) as server:
        script = InitScript(server, tmp_path / "pid_file")
        script.start(SERVICE)
        old, kernel = server.pid, Recorded()
        told = force(port, script.functions(), kernel=kernel)
        assert (told["done"], told["how"], told["killed"]) == (True, "killed", [old])
        sent = [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL]
        assert kernel.sent == [(old, number) for number in sent]


def test_helpers_of_the_server_end_with_it(tmp_path):
    port = free_port()
    with ended(Stubborn(port, "helper")) as server:
        script = InitScript(server, tmp_path / "pid_file")
        script.start(SERVICE)
        old = server.pid
        scan = processes.scan(PROC, Deadline(5))
        (helper,) = (pid for pid, one in scan.processes.items() if one.parent == old)
        server.command.remove("helper")  # the next one has none
        told = force(port, script.functions())
        assert (told["done"], told["killed"]) == (True, sorted([old, helper]))
        assert processes.alive(PROC, helper) is False


def test_a_helper_that_has_lost_its_server_is_ended_before_the_start(tmp_path):
    port = free_port()
    with ended(Stubborn(port, "helper")) as server, ended(Stubborn(port)) as fresh:
        server.start()
        scan = processes.scan(PROC, Deadline(5))
        (helper,) = (pid for pid, one in scan.processes.items() if one.parent == server.pid)
        server.stop()
        script = InitScript(fresh, tmp_path / "pid_file")
        told = force(port, script.functions())
        assert (told["done"], told["killed"]) == (True, [helper])


def test_a_stop_that_never_returns(script, server, port):
    def stop(name):
        script.stop(name)
        time.sleep(30)

    told = force(port, script.functions(stop=stop), stop_timeout_s=1)
    assert (told["done"], told["how"], told["killed"]) == (True, "orderly", [])
    assert "its stop has still not returned" in told["why"]


def test_a_stop_that_fails_and_one_that_does_nothing(script, server, port):
    old = server.pid

    def stop(_):
        raise RuntimeError("no such job")

    told = force(port, script.functions(stop=stop), stop_timeout_s=5)
    assert (told["done"], told["how"], told["killed"]) == (True, "killed", [old])
    assert "its stop failed (no such job)" in told["why"]
    server.wait_ready()
    old = server.pid
    told = force(port, script.functions(stop=lambda _: True))
    assert (told["done"], told["killed"]) == (True, [old])
    assert "it lived on for 0.5 s although its stop has returned" in told["why"]


def test_a_crashed_server_is_started_and_its_pid_file_goes(script, server, port):
    server.kill()
    assert script.status(SERVICE) is True
    file = script.pid_file.read_text()
    told = force(port, script.functions(stop=lambda _: True), config=str(server.config_file))
    assert (told["done"], told["how"], told["killed"]) == (True, "started", [])
    assert f"its pid file {script.pid_file} is removed" in told["why"]
    assert script.pid_file.read_text() == f"{told['pid']}\n" != file


def test_a_pid_file_of_a_killed_server_goes(script, server, port):
    server.pause()
    seen = []

    def start(name):
        seen.append(script.pid_file.exists())
        return script.start(name)

    told = force(port, script.functions(stop=lambda _: True, start=start))
    assert (told["done"], seen) == (True, [False])


@pytest.mark.parametrize("runs", [True, False])
def test_a_pid_file_that_names_a_stranger_stays_and_the_stranger_lives(script, server, port, runs):
    """The script would signal it, and wait for it."""
    if not runs:
        server.kill()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        script.pid_file.write_text(f"{stranger.pid}\n")
        told = force(port, script.functions(), config=str(server.config_file))
        assert (told["done"], told["how"]) == (False, "none")
        assert f"names process {stranger.pid}, which is not the server" in told["why"]
        assert script.called == []
        assert stranger.poll() is None
        assert script.pid_file.exists()
        assert server.is_running is runs
    finally:
        stranger.kill()
        stranger.wait()


def test_of_two_services_on_one_machine_the_other_survives(script, server, port, tmp_path):
    with ended(simulated(tmp_path, "db2")) as other:
        other.start()
        other.wait_ready()
        server.pause()
        untouched, old = other.pid, server.pid
        told = force(port, script.functions())
        assert (told["done"], told["killed"]) == (True, [old])
        assert (other.pid, other.is_running) == (untouched, True)


def test_two_servers_with_one_port_are_both_left_alone(tmp_path):
    port = free_port()
    with ended(Stubborn(port, "one")) as one, ended(Stubborn(port, "two")) as two:
        one.start()
        two.start()
        script = InitScript(one, tmp_path / "pid_file")
        told = force(port, script.functions())
        assert (told["done"], told["how"], script.called) == (False, "none", [])
        pids = ", ".join(map(str, sorted((one.pid, two.pid))))
        assert f"several servers have driver port {port} (processes {pids})" in told["why"]
        assert one.is_running and two.is_running


@pytest.mark.parametrize(
    ("available", "why"),
    [
        (lambda _: False, "service rethinkdb is not known on this minion; nothing was touched"),
        (lambda _: 1 / 0, "is not known on this minion (division by zero); nothing was touched"),
    ],
)
def test_a_service_that_is_unknown_is_not_touched(script, server, port, available, why):
    old = server.pid
    told = force(port, script.functions(available=available))
    assert (told["done"], told["how"], told["killed"]) == (False, "none", [])
    assert why in told["why"]
    assert (server.pid, server.is_running, script.called) == (old, True, [])


def test_an_order_that_is_too_old_is_refused(script, server, port):
    told = force(port, script.functions(), not_after_s=1000.0, now=lambda: 1001.0)
    assert (told["done"], told["how"]) == (False, "none")
    assert told["why"] == (
        "the order was good until 1970-01-01 00:16:40 UTC, and by this minion's clock it is 1970-01-01 00:16:41 UTC; "
        "nothing was touched"
    )
    assert (server.is_running, script.called) == (True, [])
    assert force(
        port, script.functions(), not_after_s=1000.0, now=lambda: 1000.0, stop_timeout_s=5
    )["done"]


def test_nothing_is_started_beside_what_cannot_be_killed(script, server, port):
    server.pause()
    kernel = Recorded(deaf=(signal.SIGTERM, signal.SIGCONT, signal.SIGKILL))
    told = force(port, script.functions(), kernel=kernel)
    assert (told["done"], told["how"], told["killed"]) == (False, "none", [])
    assert told["stuck"] is True
    assert f"process {server.pid} (state T) cannot be killed: it survives SIGKILL" in told["why"]
    assert "start" not in script.called


def test_without_pidfds_nothing_is_signalled(script, server, port):
    server.pause()

    class Old(Recorded):
        def open(self, pid):
            raise OSError(38, "Function not implemented")

    kernel = Old()
    told = force(port, script.functions(), kernel=kernel)
    assert (told["done"], kernel.sent) == (False, [])
    assert f"process {server.pid} lives on, and this kernel has no pidfds" in told["why"]
    assert "start" not in script.called


def test_a_start_that_fails_says_why(script, server, port):
    def start(_):
        raise RuntimeError("the disk is full")

    old = server.pid
    told = force(port, script.functions(start=start), stop_timeout_s=5)
    assert (told["done"], told["how"], told["pid"]) == (False, "orderly", None)
    assert "the start of rethinkdb failed (the disk is full)" in told["why"]
    assert processes.alive(PROC, old) is False


def test_a_start_after_which_nothing_runs_is_not_done(script, server, port):
    told = force(port, script.functions(start=lambda _: True), stop_timeout_s=5)
    assert told["done"] is False
    assert "rethinkdb was started, and no new process of it is seen" in told["why"]


def test_a_server_that_ends_at_once_is_not_done(script, server, port):
    with ended(Stubborn(port)) as short:

        def brief(_):
            short.start()
            threading.Timer(0.1, short.stop).start()
            return True

        told = force(port, script.functions(start=brief), stop_timeout_s=5)
    assert told["done"] is False
    assert "ended at once" in told["why"] or "no new process of it is seen" in told["why"]


def test_a_start_that_never_returns_counts_when_the_server_runs(script, server, port):
    def start(name):
        script.start(name)
        time.sleep(30)

    told = force(port, script.functions(start=start), stop_timeout_s=5)
    assert (told["done"], told["pid"]) == (True, server.pid)


def test_what_the_service_manager_has_started_meanwhile_is_not_started_twice(script, server, port):
    def stop(name):
        script.stop(name)
        script.start(name)
        return True

    told = force(port, script.functions(stop=stop), stop_timeout_s=5)
    assert (told["done"], told["how"]) == (True, "orderly")
    assert script.called == ["stop", "start"]


def test_where_processes_are_hidden_nothing_is_touched(script, server, port, tmp_path):
    (tmp_path / "proc").mkdir()
    told = force(port, script.functions(), host=Host(proc=tmp_path / "proc"))
    assert (told["done"], told["how"], script.called) == (False, "none", [])
    assert "it cannot be told which process is the server" in told["why"]


def test_a_second_order_for_the_service_is_refused_meanwhile(script, server, port, tmp_path):
    begun, go = threading.Event(), threading.Event()

    def stop(name):
        begun.set()
        go.wait(10)
        return script.stop(name)

    first = []
    functions = script.functions(stop=stop)
    thread = threading.Thread(
        target=lambda: first.append(force(port, functions, stop_timeout_s=10, turns=tmp_path))
    )
    thread.start()
    assert begun.wait(10)
    second = force(port, script.functions(), turns=tmp_path)
    go.set()
    thread.join()
    assert (second["done"], second["how"]) == (False, "none")
    assert "another order for rethinkdb is being carried out here" in second["why"]
    assert first[0]["done"] is True
    assert force(port, script.functions(), stop_timeout_s=5, turns=tmp_path)["done"] is True


def test_a_lock_that_cannot_be_made_keeps_nobody_out(script, server, port, tmp_path):
    told = force(port, script.functions(), stop_timeout_s=5, turns=tmp_path / "none")
    assert told["done"] is True


def test_this_process_is_never_the_server():
    scan = processes.scan(PROC, Deadline(5))
    assert {1, os.getpid(), os.getppid()} <= family.own(scan)


def test_the_service_of_a_process_is_read_from_its_control_group(tmp_path):
    def unit(text):
        with contextlib.suppress(FileExistsError):
            (tmp_path / "7").mkdir()
        (tmp_path / "7" / "cgroup").write_text(text)
        return family.unit_of(tmp_path, 7)

    assert unit("0::/system.slice/rethinkdb.service\n") == "rethinkdb.service"
    assert unit("1:name=systemd:/system.slice/a.service/b\n3:cpu:/x.service\n") == "a.service"
    assert unit("0::/user.slice/user-0.slice\n") is None
    assert family.unit_of(tmp_path, 8) is None
