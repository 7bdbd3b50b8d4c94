"""The service manager's words, as Salt hands them on."""

import pytest

from saltext_selfheal.witness import manager

SHOWN = {
    "Id": "rethinkdb.service", "LoadState": "loaded", "ActiveState": "active", "SubState": "running",
    "Result": "success", "MainPID": "70", "ExecMainPID": "70", "NRestarts": "3", "ControlGroup": "/system.slice/rethinkdb.service",
    "ExecStart": {"path": "/usr/bin/rethinkdb", "argv[]": "/usr/bin/rethinkdb --config-file /etc/x.conf"},
    "WorkingDirectory": "!/srv", "ExecMainStartTimestampMonotonic": "5000000", "ExecMainExitTimestampMonotonic": "0",
}  # fmt: skip


def absent(_):
    raise KeyError("service.show")


def look(shown=None, status=absent):
    return manager.look("rethinkdb", absent if shown is None else lambda _: shown, status)


def test_systemd_tells_all():
    found = look(SHOWN)
    assert found.told == {
        "state": "active", "sub": "running", "result": "success", "restarts": 3, "running": True,
    }  # fmt: skip
    assert (found.main_pid, found.unit, found.folder) == (70, "rethinkdb.service", "/srv")
    assert found.command == ("/usr/bin/rethinkdb", "--config-file", "/etc/x.conf")
    assert (found.started_s, found.ended_s) == (5.0, None)


def test_active_and_exited_does_not_run():
    found = look({**SHOWN, "SubState": "exited", "MainPID": "0"})
    assert (found.state, found.sub, found.running) == ("active", "exited", False)


def test_a_unit_that_systemd_does_not_know_is_none():
    assert look({"LoadState": "not-found", "ActiveState": "inactive"}) is None


@pytest.mark.parametrize("running", [True, False])
def test_without_systemd_it_is_only_known_whether_it_runs(running):
    told = look(status=lambda _: running).told
    assert told == {
        "state": None,
        "sub": None,
        "result": None,
        "restarts": None,
        "running": running,
    }


@pytest.mark.parametrize("shown", [{}, [], "x", {"ActiveState": 7}, {"ActiveState": None}])
def test_an_answer_that_is_none_is_not_believed(shown):
    assert look(shown, status=lambda _: True).running is True
    assert look(shown, status=lambda _: {"a": True}) is None


@pytest.mark.parametrize(
    "odd", [7, "x", "-1", "", None, [], {}, "9" * 5000, "../..", "\x1b[2J" * 99]
)
@pytest.mark.parametrize("key", sorted(set(SHOWN) - {"ActiveState", "LoadState"}))
def test_odd_values_do_no_harm(key, odd):
    found = look({**SHOWN, key: odd})
    assert found.state == "active"
    assert all(len(str(value)) < 60 for value in found.told.values())
