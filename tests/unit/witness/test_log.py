"""The last words of a server, from files as they are found."""

import os
import time

import pytest

from saltext_selfheal.witness import log
from saltext_selfheal.witness.asking import Deadline
from saltext_selfheal.witness.manager import Manager
from saltext_selfheal.witness.server import Server

OWN = """\
2026-01-02T03:04:05.123456789 1.234567s notice: Server ready, "db1" 0
2026-01-02T03:04:06.123456789 2.234567s error: Error in src/x.cc at line 12:
2026-01-02T03:04:06.123456790 2.234568s error: Ran out of disk space.  (path = /data/x)
2026-01-02T03:04:06.123456791 2.234569s error: Backtrace:
2026-01-02T03:04:06.123456792 2.234570s error: Fri Jan  2 03:04:06 2026\\n\\n1 [0x55]: backtrace_t() at ??:?
2026-01-02T03:04:06.123456793 2.234571s error: Exiting.
"""
STDERR = """\
error: Error in thread 3 in src/arch/x.cc at line 12:
error: Guarantee failed: [x] too many
error: Backtrace:
error: Fri Jan  2 03:04:06 2026

       1 [0x5591]: backtrace_t() at 0x5591 (/usr/bin/rethinkdb)
error: Exiting.
"""


@pytest.fixture
def words(tmp_path):
    def words(text):
        path = tmp_path / "log"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        found = log.in_file(path, "log")
        return None if found is None else found.words

    return words


def test_of_its_own_log_the_last_error_that_says_something(tmp_path):
    path = tmp_path / "log_file"
    path.write_text(OWN)
    found = log.in_file(path, "log_file")
    assert found.words == "Ran out of disk space.  (path = /data/x)"
    assert time.localtime(found.at_s)[:6] == (2026, 1, 2, 3, 4, 6)


def test_of_stderr_the_same(words):
    assert words(STDERR) == "Guarantee failed: [x] too many"


@pytest.mark.parametrize(
    "line",
    [
        "Error in the configuration file /x: Config file /x: parse error at line 3: unrecognized option name 'y'",
        "Directory '/data' is already in use, perhaps another instance of rethinkdb is using it.",
        "ERROR: The pid-file specified already exists. This might mean that an instance is already running.",
        "Trouble reading config file '/x': No such file or directory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "TCP ports [28015] are already in use",
    ],
)
def test_what_keeps_it_from_starting_is_recognized_by_its_words(words, line):
    assert words(f"Running rethinkdb 2.4.4…\n{line}\n") == line.removeprefix("ERROR: ")


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", "Server ready\n", "warn: cannot do this\n", "info: error\n", "notice: failed\n",
        "error: Exiting.\n", "2026-01-02T03:04:05.1 1.2s warn: failed\n", "  error: further down\n",
        "error: Backtrace:\n", b"\0\xff\xfe" * 50,
    ],
)  # fmt: skip
def test_what_tells_of_no_error_tells_nothing(words, text):
    assert words(text) is None


def test_a_line_without_a_time_is_as_old_as_its_file_if_it_is_the_last(tmp_path):
    path = tmp_path / "err"
    path.write_text("error: one\nerror: Exiting.\n")
    os.utime(path, (1e9, 1e9))
    assert log.in_file(path, "err").at_s == 1e9
    path.write_text("error: one\nServer ready\n")
    assert log.in_file(path, "err").at_s is None


def test_of_ten_megabytes_only_the_end_is_read(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"error: at the begin\n" + b"x" * 10_000_000 + b"\nerror: at the end\n")
    begun = time.monotonic()
    assert log.in_file(path, "log").words == "at the end"
    path.write_bytes(b"error: " + b"e" * 10_000_000)
    assert log.in_file(path, "log") is None
    assert time.monotonic() - begun < 1


def test_a_fifo_a_folder_a_device_or_nothing_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "none", tmp_path.parent / "x\0y"):
        assert log.in_file(path, "log") is None


def look(machine, server, override=None, manager=None):
    return log.last_error(machine.host, server, override, manager, Deadline(5))


def test_what_is_told_is_one_clean_short_line_without_the_password(machine, tmp_path):
    path = tmp_path / "log_file"
    path.write_bytes(b"error: cannot\x1b[2J hunter22 \xff" + b"y" * 1000 + b"\n")
    told = look(machine, Server(log_file=path, secrets=("hunter22",)))
    assert told["line"].startswith("cannot [2J … \\xff")
    assert len(told["line"]) == 300
    assert told["path"] == str(path)
    assert 0 <= told["age_s"] < 60


def test_a_file_that_is_named_is_the_only_one(machine, tmp_path):
    (tmp_path / "own").write_text("error: own\n")
    (tmp_path / "err").write_text("error: stderr\n")
    told = look(machine, Server(log_file=tmp_path / "own"), str(tmp_path / "err"))
    assert (told["path"], told["line"]) == (str(tmp_path / "err"), "stderr")
    assert look(machine, Server(log_file=tmp_path / "own"), str(tmp_path / "none")) is None


JOURNAL = """\
#!/bin/sh
echo "$@" > {folder}/asked
cat <<'END'
1767323045.100000 host rethinkdb[12]: error: from before
1767323046.100000 host rethinkdb[13]: Directory '/data' is already in use
1767323046.200000 host systemd[1]: rethinkdb.service: Main process exited, code=exited, status=1/FAILURE
1767323046.300000 host systemd[1]: rethinkdb.service: Failed with result 'exit-code'.
END
"""


def test_under_systemd_the_journal_is_asked_too(machine, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "journalctl"
    tool.parent.mkdir()
    tool.write_text(JOURNAL.format(folder=tmp_path))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    manager = Manager(unit="rethinkdb.service")
    assert look(machine, Server(), manager=manager) is None  # systemd is not this machine's init
    machine.host.systemd.mkdir()
    told = look(machine, Server(), manager=manager)
    assert (told["path"], told["line"]) == ("journal", "Directory '/data' is already in use")
    assert "--unit=rethinkdb.service" in (tmp_path / "asked").read_text()
    (tmp_path / "own").write_text("2030-01-01T00:00:00.1 1.2s error: newer\n")
    assert look(machine, Server(log_file=tmp_path / "own"), manager=manager)["line"] == "newer"


def test_a_journal_that_hangs_is_given_up(machine, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "journalctl"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    machine.host.systemd.mkdir()
    begun = time.monotonic()
    assert log.last_error(machine.host, Server(), None, Manager(unit="x"), Deadline(0.3)) is None
    assert time.monotonic() - begun < 5
