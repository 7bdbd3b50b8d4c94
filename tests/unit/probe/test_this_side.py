"""What fails on this side is no fault of the node."""

import asyncio
import errno
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from saltext_selfheal.driver import wire
from saltext_selfheal.driver.address import Address
from saltext_selfheal.driver.dialling import tls_context
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.names import Resolver
from saltext_selfheal.probe.node import NodeProbe, Target, probe_once
from tests.unit.probe.world import OK, look, resolving, target


def with_socket_error(monkeypatch, exc):
    async def sock_connect(*_):
        raise exc

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", sock_connect)


@pytest.mark.parametrize(
    "number",
    ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "EPERM", "EAFNOSUPPORT", "EINVAL", "ENOSPC", "ENODEV",
     "EAGAIN", "EADDRINUSE"],
)  # fmt: skip
def test_an_error_of_this_machines_own_network_is_ours(well, monkeypatch, number):
    with_socket_error(
        monkeypatch, OSError(getattr(errno, number), os.strerror(getattr(errno, number)))
    )
    seen = look(well)
    assert (seen.fault, seen.ours) == (Fault.UNREACHABLE, True)
    assert "this master cannot open a connection" in seen.evidence


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        ("ECONNREFUSED", Fault.DEAD),
        ("EHOSTUNREACH", Fault.UNREACHABLE),
        ("ENETUNREACH", Fault.UNREACHABLE),
        ("EHOSTDOWN", Fault.UNREACHABLE),
        ("EACCES", Fault.UNREACHABLE),
        ("ECONNRESET", Fault.ALIEN),
        ("ECONNABORTED", Fault.ALIEN),
    ],
)
def test_what_the_network_says_of_the_node_is_not_ours(well, monkeypatch, number, verdict):
    with_socket_error(
        monkeypatch, OSError(getattr(errno, number), os.strerror(getattr(errno, number)))
    )
    seen = look(well)
    assert (seen.fault, seen.ours) == (verdict, False)


@pytest.mark.parametrize(
    "exc",
    [
        UnicodeError("label empty or too long"),
        ValueError("embedded null character"),
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"),
        OverflowError("getaddrinfo: port must be 0-65535"),
    ],
)
def test_a_name_that_fails_on_this_side_is_ours(well, monkeypatch, exc):
    def getaddrinfo(*_, **__):
        raise exc

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    seen = look(well, address=Address("db1.example", well.port))
    assert (seen.fault, seen.ours) == (Fault.UNREACHABLE, True)


def test_a_malformed_name_is_ours(well):
    for host in (
        "db1..example.com",
        "x" * 64 + ".example",
        ".example",
        "b\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 40,
    ):
        seen = look(well, address=Address(host, well.port))
        assert (seen.fault, seen.ours) == (Fault.UNREACHABLE, True), host


@pytest.mark.parametrize("where", ["resolver", "crypto"])
def test_no_more_threads_is_ours(well, monkeypatch, where):
    def submit(*_, **__):
        raise RuntimeError("can't start new thread")

    async def go():
        resolver = Resolver()
        with ThreadPoolExecutor(1) as crypto:
            monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
            address = Address("localhost" if where == "resolver" else well.host, well.port)
            seen = await NodeProbe(target(well, address=address), resolver, crypto).probe()
        resolver.close()
        return seen

    seen = asyncio.run(go())
    assert (seen.ours, "can't start new thread" in seen.evidence) == (True, True)


def test_a_pool_that_was_shut_down_is_ours(well):
    async def go():
        resolver, crypto = Resolver(), ThreadPoolExecutor(1)
        crypto.shutdown()
        seen = await NodeProbe(target(well), resolver, crypto).probe()
        resolver.close()
        return seen

    assert asyncio.run(go()).ours


@pytest.mark.parametrize("what", ["pbkdf2_hmac", "hmac"])
@pytest.mark.parametrize(
    "exc",
    [
        ValueError("[digital envelope routines] unsupported"),
        MemoryError(),
        AttributeError("sha256"),
    ],
)
def test_hashes_that_this_machine_forbids_are_ours(well, monkeypatch, what, exc):
    def forbidden(*_, **__):
        raise exc

    wire.salted_password.cache_clear()
    if what == "hmac":
        monkeypatch.setattr(wire.hmac, "new", forbidden)
    else:
        monkeypatch.setattr(wire.hashlib, "pbkdf2_hmac", forbidden)
    seen = look(well)
    monkeypatch.undo()
    assert (seen.fault, seen.ours) == (Fault.UNREACHABLE, True)


def test_a_challenge_that_makes_no_sense_is_not_ours(babbler):
    for challenge in ("r=x,s=%%%,i=4096", "r=,s=,i=", "s=AAAA,i=4096", "i=0,r=x,s=AAAA"):
        fields = {"success": True, "authentication": challenge}
        babbler.says = OK + wire.json.dumps(fields).encode() + b"\0"
        seen = probe_once(Target("c", "n", babbler.address, timeout_s=1.0))
        assert (seen.fault, seen.ours) == (Fault.ALIEN, False), challenge


@pytest.mark.parametrize(
    "reason", ["NO_CIPHERS_AVAILABLE", "MALLOC_FAILURE", "NO_PROTOCOLS_AVAILABLE"]
)
def test_a_tls_library_that_may_do_nothing_is_ours(well, authority, monkeypatch, reason):
    def create_connection(*_, **__):
        raise_as = ssl.SSLError(1, f"[SSL: {reason}] nothing")
        raise_as.reason = reason
        raise raise_as

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "create_connection", create_connection)
    seen = look(well, tls=tls_context(str(authority.path)))
    assert (seen.fault, seen.ours) == (Fault.UNREACHABLE, True)


def test_a_family_that_is_not_spoken_here_hides_no_refusal(well, monkeypatch):
    """A name with an IPv6 address, on a master without IPv6."""
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    resolving(
        monkeypatch,
        (socket.AF_INET6, ("2001:db8::1", 28015, 0, 0)),
        (socket.AF_INET, closed.getsockname()),
    )
    real = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def sock_connect(self, sock, address):
        if sock.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return await real(self, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", sock_connect)
    seen = look(well, address=Address("db1.example", 28015))
    closed.close()
    assert (seen.fault, seen.ours) == (Fault.DEAD, False)
