"""Which process is the server, on machines as strange as they get."""

import os

import pytest

from saltext_selfheal.witness.manager import Manager
from tests.unit.witness.world import PORT, SERVER


def test_a_server_that_listens_runs(machine):
    machine.process(70, SERVER, sockets=(5, 6))
    machine.listen((PORT, 5), (29015, 6))
    found = machine.find()
    assert (found.state, found.process.pid, found.listens, found.cluster_listens) == (
        "runs",
        70,
        True,
        True,
    )
    assert (found.holder, found.why) == (None, None)


def test_ipv6_counts_too(machine):
    machine.process(70, SERVER, sockets=(5,))
    machine.listen(six=((PORT, 5),))
    assert machine.find().listens is True


def test_a_server_that_only_begins_runs_and_does_not_listen(machine):
    machine.process(70, SERVER, sockets=(6,))
    machine.listen((29015, 6))
    found = machine.find()
    assert (found.state, found.listens, found.cluster_listens, found.holder) == (
        "runs",
        False,
        True,
        None,
    )


def test_its_port_taken_by_another_names_the_other(machine):
    machine.process(70, SERVER)
    machine.process(50, ("/usr/bin/nc", "-l"), sockets=(5,))
    machine.listen((PORT, 5))
    found = machine.find()
    assert (found.state, found.listens, found.holder.pid, found.holder.name) == (
        "runs",
        False,
        50,
        "nc",
    )


def test_gone_is_gone_also_where_another_has_its_port(machine):
    assert machine.find().state == "gone"
    machine.process(50, ("/usr/bin/nc", "-l"), sockets=(5,))
    machine.listen((PORT, 5))
    found = machine.find()
    assert (found.state, found.listens, found.cluster_listens, found.holder.pid) == (
        "gone",
        False,
        False,
        50,
    )


def test_a_zombie_is_gone(machine):
    machine.process(70, SERVER, status="Z")
    assert machine.find().state == "gone"
    assert machine.find(manager=Manager(main_pid=70)).state == "gone"


@pytest.mark.parametrize(
    "argv",
    [
        ("/usr/bin/rethinkdb",),
        ("/usr/bin/rethinkdb", "serve"),
        ("rethinkdb", "--daemon"),
        ("/opt/my-rethinkdb", "--driver-port=28015"),
        ("/usr/bin/rethinkdb", "--port-offset", "0"),
        ("/usr/bin/rethinkdb", "--driver-port", "28000", "-o", "15"),
        ("/usr/bin/python3", "-m", "node", "--driver-port", "28015"),
    ],
)
def test_by_its_driver_port_a_server_is_found(machine, argv):
    machine.process(70, argv)
    assert machine.find().process.pid == 70


@pytest.mark.parametrize(
    "argv",
    [
        ("/usr/bin/rethinkdb", "--driver-port", "28016"),
        ("/usr/bin/rethinkdb", "--port-offset", "1"),
        ("/usr/bin/rethinkdb", "dump", "-c", "127.0.0.1:28015"),
        ("/bin/sh", "/etc/init.d/rethinkdb", "status"),
        ("/usr/bin/vi", "/etc/rethinkdb/instances.d/one.conf"),
        ("/usr/bin/other", "--config-file", "/dev/null"),
        ("/usr/bin/python3", "/usr/bin/rethinkdb-dump"),
        ("/usr/bin/grep", "rethinkdb"),
    ],
)
def test_what_only_looks_like_it_is_not_taken_for_it(machine, argv):
    machine.process(70, argv)
    assert machine.find().state == "gone"


def test_an_executable_that_an_upgrade_has_replaced_is_still_it(machine):
    machine.process(70, ("odd name", "--driver-port", "28015"), exe="/usr/bin/rethinkdb (deleted)")
    assert machine.find().process.pid == 70


def test_a_config_file_tells_the_port(machine, tmp_path):
    one, two = tmp_path / "one.conf", tmp_path / "two.conf"
    one.write_text("driver-port=28016\n")
    two.write_text(
        "# driver-port=1\n driver-port = 28015 # its own\njoin=a\njoin=b:1\nnonsense\n\n=\n"
    )
    machine.process(60, ("/usr/bin/rethinkdb", "--config-file", str(one)))
    machine.process(70, ("/usr/bin/rethinkdb", "--config-file", str(two)), started_s=900)
    found = machine.find()
    assert (found.process.pid, found.server.peers) == (70, ("a:29015", "b:1"))
    assert machine.find(28016).process.pid == 60


def test_of_several_it_is_the_oldest_that_is_no_child(machine):
    machine.process(70, SERVER, started_s=300)
    machine.process(71, SERVER, parent=70, started_s=300)
    machine.process(72, SERVER, parent=71, started_s=301)
    machine.process(80, SERVER, started_s=400)
    assert machine.find().process.pid == 70


def test_of_several_the_one_that_listens_goes_first(machine):
    machine.process(70, SERVER, started_s=300)
    machine.process(80, SERVER, started_s=400, sockets=(5,))
    machine.listen((PORT, 5))
    assert machine.find().process.pid == 80


def test_what_wraps_the_server_is_not_the_server(machine):
    machine.process(70, ("/usr/bin/sudo", *SERVER))
    machine.process(71, SERVER, parent=70, started_s=101)
    assert machine.find().process.pid == 71


def test_what_systemd_names_is_believed(machine):
    machine.process(60, SERVER)
    machine.process(70, ("/opt/wrapper",))
    assert machine.find(manager=Manager(main_pid=70)).process.pid == 70
    machine.process(71, SERVER, parent=70)
    assert machine.find(manager=Manager(main_pid=70)).process.pid == 71
    assert machine.find(manager=Manager(main_pid=4000)).process.pid == 60


def test_whoever_listens_is_it_if_it_speaks_of_rethinkdb(machine):
    machine.process(70, ("/usr/bin/qemu", "/srv/rethinkdb.img"), sockets=(5,))
    machine.listen((PORT, 5))
    found = machine.find()
    assert (found.state, found.process.pid, found.listens) == ("runs", 70, True)


def test_a_listener_that_cannot_be_seen_leaves_it_unknown(machine):
    machine.listen((PORT, 5))
    found = machine.find()
    assert (found.state, found.listens) == ("unknown", None)
    assert found.why == "something listens on port 28015, and its process cannot be seen"


def test_a_server_whose_options_cannot_be_read_leaves_it_unknown(machine):
    machine.process(70, ("/usr/bin/rethinkdb", "--config-file", "/nowhere/one.conf"), sockets=(5,))
    found = machine.find()
    assert (found.state, found.why) == (
        "unknown",
        "process 70 may be it, but its options cannot be read",
    )
    machine.listen((PORT, 5))
    assert machine.find().process.pid == 70


def test_a_config_file_that_is_gone_is_still_the_one_that_is_meant(machine, tmp_path):
    config = str(tmp_path / "one.conf")
    machine.process(70, ("/usr/bin/python3", "--config-file", config))
    machine.process(71, ("/usr/bin/rethinkdb", "--config-file", "/nowhere/two.conf"))
    assert machine.find(config=config).process.pid == 70
    assert machine.find(manager=Manager(command=("x", "--config-file", config))).process.pid == 70


def test_hidden_processes_leave_it_unknown(machine, monkeypatch):
    machine.put("self/mounts", "proc /proc proc rw,relatime,hidepid=invisible 0 0\n")
    assert machine.find().state == "gone"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = machine.find()
    assert (found.state, found.why) == (
        "unknown",
        "processes of others are hidden here (hidepid=invisible)",
    )
    machine.put("self/mounts", "proc /proc proc rw,relatime,hidepid=0 0 0\n")
    assert machine.find().state == "gone"


def test_without_the_first_process_it_is_unknown(machine):
    for path in ("1/stat", "1/cmdline"):
        (machine.proc / path).unlink()
    assert machine.find().state == "unknown"


@pytest.mark.parametrize(
    "stat", [b"", b"70 (x", b"70 (rethinkdb) S 1 2 3", b"\xff\0) " + b"x " * 40]
)
def test_a_process_that_makes_no_sense_leaves_it_unknown(machine, stat):
    machine.process(70, SERVER)
    machine.put("70/stat", stat)
    found = machine.find()
    assert found.state == "unknown"
    assert found.why.startswith("process 70 may not be looked at")


def test_a_process_that_may_not_be_read_leaves_it_unknown(machine):
    machine.process(70, SERVER)
    (machine.proc / "70" / "cmdline").unlink()
    (machine.proc / "70" / "cmdline").mkdir()
    assert machine.find().state == "unknown"


def test_a_process_that_ends_meanwhile_does_not(machine):
    (machine.proc / "70").mkdir()
    assert machine.find().state == "gone"


def test_no_proc_at_all_is_unknown(machine):
    (machine.proc / "net").rename(machine.proc.parent / "away")
    machine.proc.rename(machine.proc.parent / "gone")
    found = machine.find()
    assert found.state == "unknown"
    assert "cannot be read" in found.why


def test_no_time_is_unknown(machine):
    machine.process(70, SERVER)
    assert machine.find(timeout_s=0).why == "the list of processes could not be read in time"


def test_descriptors_that_may_not_be_read_leave_the_port_alone_to_tell(machine):
    machine.process(70, SERVER)
    fd = machine.proc / "70" / "fd"
    fd.rmdir()
    fd.write_text("")
    assert machine.find().listens is False
    machine.listen((PORT, 5))
    found = machine.find()
    assert (found.state, found.listens, found.holder) == ("runs", True, None)


def test_names_that_are_no_utf8_do_no_harm(machine):
    machine.process(70, SERVER, name="re) S 1 (\n")
    machine.put(
        "70/cmdline", b"/usr/bin/rethinkdb\0--server-name\0\xff\xfe\0--driver-port\x0028015\0"
    )
    assert machine.find().process.pid == 70


def test_where_nothing_runs_the_packages_files_are_read(machine):
    machine.host.instances.mkdir()
    (machine.host.instances / "a.conf").write_text("driver-port=28016\ndirectory=/a\n")
    (machine.host.instances / "b.conf").write_text("bind=all\n")
    (machine.host.data / "b" / "data").mkdir(parents=True)
    found = machine.find().server
    assert found.config == str(machine.host.instances / "b.conf")
    assert found.directory == machine.host.data / "b" / "data"
    assert found.pid_file == machine.host.run / "b" / "pid_file"
    assert str(machine.find(28016).server.directory) == "/a"
    assert machine.find(28017).server.config is None


def test_of_two_config_files_that_are_named_systemds_goes_first(machine, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"directory={name}\n")
    command = ("/usr/bin/rethinkdb", "--config-file", str(tmp_path / "one"))
    manager = Manager(command=command, folder="/srv")
    found = machine.find(manager=manager, config=str(tmp_path / "two"))
    assert str(found.server.directory) == "/srv/one"
    # Without a process nobody knows where a relative path begins.
    assert machine.find(config=str(tmp_path / "two")).server.directory is None
