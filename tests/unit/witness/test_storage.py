"""The data directory's file system, and the pid file."""

import os
import subprocess
from pathlib import Path

import pytest

from saltext_selfheal.witness import storage
from saltext_selfheal.witness.server import Server

PROC = Path("/proc")


def test_a_directory_has_room(tmp_path):
    told = storage.directory(Server(directory=tmp_path))
    found = os.statvfs(tmp_path)
    assert told["path"] == str(tmp_path)
    assert told["free_bytes"] == pytest.approx(found.f_bavail * found.f_frsize, rel=0.05)
    assert 0 <= told["free_share"] <= 1
    assert told["read_only"] is False


def test_one_that_is_not_there_or_not_known_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (None, tmp_path / "none", tmp_path / "file"):
        assert storage.directory(Server(directory=path)) is None


def test_read_only_is_told(tmp_path):
    # /sys is mounted read-only in containers; else it is not.
    told = storage.directory(Server(directory=Path("/sys")))
    assert told["read_only"] is bool(os.statvfs("/sys").f_flag & os.ST_RDONLY)


def test_a_pid_file_and_whether_that_process_lives(tmp_path):
    path = tmp_path / "pid_file"
    assert storage.pid_file(Server(pid_file=path), PROC) is None
    path.write_text(f"{os.getpid()}\n")
    told = storage.pid_file(Server(pid_file=path), PROC)
    assert told == {"path": str(path), "pid": os.getpid(), "alive": True}
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    path.write_text(str(child.pid))
    assert storage.pid_file(Server(pid_file=path), PROC)["alive"] is False  # a zombie
    child.wait()
    assert storage.pid_file(Server(pid_file=path), PROC)["alive"] is False


@pytest.mark.parametrize("text", ["", "0", "-1", "1 2", "\x00\xff", "9" * 70, "abc"])
def test_nonsense_in_a_pid_file_is_no_pid(tmp_path, text):
    path = tmp_path / "pid_file"
    path.write_text(text)
    assert storage.pid_file(Server(pid_file=path), PROC) == {
        "path": str(path),
        "pid": None,
        "alive": None,
    }


def test_a_fifo_or_a_broken_link_is_in_the_way_too(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("fifo", "link"):
        told = storage.pid_file(Server(pid_file=tmp_path / name), PROC)
        assert (told["pid"], told["alive"]) == (None, None)
