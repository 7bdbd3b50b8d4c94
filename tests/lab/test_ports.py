"""Free ports of the lab: none that another lab on this machine was given, also while nobody listens there."""

import contextlib
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import ports
from tests.lab.simulated import SimulatedNode

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
        monkeypatch.setattr(ports, "_reserved", {})
        monkeypatch.setattr(ports, "RANGE", tried)
        with contextlib.suppress(OSError):
            try:
                [ports.reserve() for _ in tried]
            finally:
                give_back()
            yield tried
            give_back()
            return
    raise AssertionError("there are no ten free ports in a row")


def give_back():
    for reservation in list(ports._reserved.values()):
        reservation.close()


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


@pytest.mark.parametrize(
    ("before", "after", "left"), [(0, 9, {9}), (3, 10, {0, 1, 2}), (2, 8, {0, 1, 8, 9}), (-9, 1, set(range(1, 10)))]
)  # fmt: skip
def test_no_port_of_the_ephemeral_range(few, monkeypatch, before, after, left):
    ephemeral = range(few.start + before, few.start + after)
    monkeypatch.setattr(ports, "_ephemeral", lambda: ephemeral)
    assert {ports.free_port() - few.start for _ in left} == left
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()


def test_the_ephemeral_range_is_the_kernels():
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    found = ports._ephemeral()
    assert [found.start, found.stop - 1] == [int(number) for number in text.split()]


def test_ports_are_given_where_every_port_is_ephemeral_and_no_dial_comes_from_them(
    few, monkeypatch
):
    """With a wide range there is no other port; but the kernel passes over a port that is held."""
    monkeypatch.setattr(ports, "_ephemeral", lambda: range(1, 65536))
    assert {ports.free_port() for _ in few} == set(few)


IP_LOCAL_PORT_RANGE = 51  #: of a socket, since Linux 6.3; inside of the kernel's own range only


def test_the_kernel_gives_no_port_that_is_held_to_an_outgoing_connection(monkeypatch):
    inside = range(ports._ephemeral().stop - 500, ports._ephemeral().stop)
    monkeypatch.setattr(ports, "RANGE", inside)
    monkeypatch.setattr(ports, "_ephemeral", lambda: range(0))
    reservation = ports.reserve()
    only = struct.pack("=I", reservation.port << 16 | reservation.port)

    def dialled_from():
        with socket.socket() as dial:
            dial.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only)
            dial.connect(there.getsockname())
            return dial.getsockname()[1]

    with socket.create_server(("127.0.0.1", 0)) as there:
        with socket.socket() as probe:
            try:
                probe.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only)
            except OSError:
                pytest.skip("needs Linux 6.3")
        with pytest.raises(OSError, match="Cannot assign"):
            dialled_from()
        reservation.close()
        assert dialled_from() == reservation.port


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "127.0.0.2"])
def test_a_server_can_listen_on_a_port_that_is_held_and_others_are_refused_before(few, address):
    port = ports.free_port()
    target = ("127.0.0.1" if address == "0.0.0.0" else address, port)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(target, timeout=2)
        with socket.create_server((address, port)):
            socket.create_connection(target, timeout=2).close()
    with socket.socket() as strict, pytest.raises(OSError, match="in use"):
        strict.bind((address, port))


def test_a_simulated_node_takes_no_port_that_a_lab_was_given(few):
    given = {ports.free_port() for _ in few[2:]}
    with SimulatedNode() as node:
        assert {node.port, node.cluster_port} == set(few) - given
        node.set_fault("refuse")
        with pytest.raises(OSError, match="no free port"):
            ports.free_port()
    assert ports.free_port() not in given


def test_none_where_a_rethinkdb_listens_by_default(monkeypatch):
    monkeypatch.setattr(ports, "RANGE", range(28015, 28016))
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()
