"""Free ports of the lab: none that another lab on this machine was given, also while nobody listens there."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import ports

CHECKOUT = Path(__file__).resolve().parents[2]
ANOTHER = """
import sys
from tests.lab import ports
ports.RANGE = range(int(sys.argv[1]), int(sys.argv[2]))
print(*(ports.free_port() for _ in ports.RANGE), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def few(monkeypatch):
    """Only ten ports."""
    for start in range(21000, 27000, 10):
        tried = range(start, start + 10)
        if all(map(free, tried)):
            monkeypatch.setattr(ports, "RANGE", tried)
            monkeypatch.setattr(ports, "_reserved", {})
            yield tried
            for reservation in ports._reserved.values():
                reservation.close()
            return
    raise AssertionError("there are no ten free ports in a row")


def free(port):
    reservation = ports._reserve(port)
    if reservation is not None:
        reservation.close()
    return reservation is not None and ports._bindable(port)


def test_no_port_of_another_lab_is_given_until_its_process_has_ended(few):
    command = [sys.executable, "-c", ANOTHER, str(few.start), str(few.stop)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=CHECKOUT, **pipes) as other:
        try:
            assert sorted(map(int, other.stdout.readline().split())) == list(few)
            with pytest.raises(OSError, match="no free port"):
                ports.free_port()
        finally:
            other.kill()
    assert ports.free_port() in few


def test_each_port_is_given_once(few):
    assert sorted(ports.free_port() for _ in few) == list(few)
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
def test_no_port_on_which_somebody_listens(few, address):
    with socket.socket() as listener:
        listener.bind((address, few.start))
        listener.listen()
        assert few.start not in {ports.free_port() for _ in few[1:]}


def test_no_port_of_the_ephemeral_range(few, monkeypatch):
    monkeypatch.setattr(ports, "_ephemeral", lambda: range(few.start, few.start + 9))
    assert ports.free_port() == few[-1]


def test_none_where_a_rethinkdb_listens_by_default(monkeypatch):
    monkeypatch.setattr(ports, "RANGE", range(28015, 28016))
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()
