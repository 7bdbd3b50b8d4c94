"""RethinkDB's options, as they stand on a command line and in a file."""

import pytest

from saltext_selfheal.driver import argv
from saltext_selfheal.witness import server


@pytest.fixture
def read(tmp_path):
    def read(text, *argv, folder="/srv"):
        path = tmp_path / "one.conf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return server.of_argv(("rethinkdb", "--config-file", str(path), *argv), folder)

    return read


def test_the_defaults_are_rethinkdbs(read):
    found = read("")
    assert (found.driver_port, found.cluster_port) == (28015, 29015)
    assert str(found.directory) == "/srv/rethinkdb_data"
    assert str(found.log_file) == "/srv/rethinkdb_data/log_file"
    assert (found.pid_file, found.peers) == (None, ())


def test_the_command_line_goes_before_the_file(read):
    found = read(
        "driver-port=1\njoin=a\ndirectory=/x\n", "--driver-port", "2", "-d", "y", "--join=b:3"
    )
    assert (found.driver_port, str(found.directory), found.peers) == (2, "/srv/y", ("b:3",))


def test_the_offset_moves_every_port(read):
    found = read("port-offset=100\ndriver-port=5\n")
    assert (found.driver_port, found.cluster_port) == (105, 29115)


@pytest.mark.parametrize("port", ["0", "x", "70000", "1.5", "-1", "", "9" * 5000, "٢٨٠١٥"])
def test_a_port_that_is_none_is_not_known(read, port):
    found = read(f"driver-port={port}\n")
    assert found.driver_port is None


def test_paths_are_absolute_and_plain(read):
    found = read("directory=/a/../b//c\nlog-file=logs/./x\npid-file=/p\n")
    assert [str(p) for p in (found.directory, found.log_file, found.pid_file)] == [
        "/b/c",
        "/srv/logs/x",
        "/p",
    ]


def test_at_most_eight_peers_with_their_ports(read):
    joins = ["a", "b:1", "::1", "[::1]", "[::1]:7", "10.0.0.1", *"cdefgh"]
    found = read("".join(f"join={one}\n" for one in joins))
    assert found.peers == (
        "a:29015", "b:1", "[::1]:29015", "[::1]:29015", "[::1]:7", "10.0.0.1:29015", "c:29015", "d:29015",
    )  # fmt: skip


def test_passwords_are_kept_apart_and_not_printed(read):
    found = read("initial-password=hunter22\n")
    assert found.secrets == ("hunter22",)
    assert "hunter22" not in repr(found)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe=\0\n\xffdirectory", b"\0" * 1000, b"=" * 300000, b"[section]\nx\n#\n" * 10]
)
def test_nonsense_in_a_file_changes_nothing(read, text):
    found = read(text)
    assert (found.driver_port, found.cluster_port, found.peers) == (28015, 29015, ())


def test_a_file_that_cannot_be_read_leaves_all_open_but_the_command_line():
    argv = ("rethinkdb", "--config-file", "/nowhere/x.conf", "--cluster-port", "5", "--join", "a")
    found = server.of_argv(argv, "/srv")
    assert (found.driver_port, found.cluster_port, found.directory, found.peers) == (
        None,
        5,
        None,
        ("a:29015",),
    )


def test_short_options_of_other_programs_are_their_own():
    assert argv.options(("tail", "-d", "x", "--driver-port", "1"), short=False) == {
        "driver-port": ["1"]
    }
