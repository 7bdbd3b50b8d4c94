"""Why a dial failed: read in one place, and told by the probe and by applications in words of their own."""

import asyncio
import errno
import socket
import ssl

import pytest

from saltext_selfheal.app import failures
from saltext_selfheal.driver.address import Address
from saltext_selfheal.driver.answer import Alien
from saltext_selfheal.driver.causes import Cause, Stage, cause, in_words
from saltext_selfheal.driver.dialling import InTurn, certified, prepare
from saltext_selfheal.driver.wire import Lost, Ours, Refused
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.verdict import judge


def of_the_system(number):
    return OSError(number, "as the system says")


SAMPLES = {
    Cause.OURS: (of_the_system(errno.EMFILE), Stage.TCP),
    Cause.NAME_SILENT: (asyncio.TimeoutError(), Stage.NAME),
    Cause.TCP_SILENT: (TimeoutError(), Stage.TCP),
    Cause.TLS_SILENT: (TimeoutError("timed out"), Stage.TLS),
    Cause.GREETING_SILENT: (asyncio.TimeoutError(), Stage.HANDSHAKE),
    Cause.ANSWER_SILENT: (asyncio.TimeoutError(), Stage.ANSWER),
    Cause.NO_NAME: (socket.gaierror(socket.EAI_NONAME, "not known"), Stage.NAME),
    Cause.REFUSED: (of_the_system(errno.ECONNREFUSED), Stage.TCP),
    Cause.UNREACHABLE: (of_the_system(errno.EHOSTUNREACH), Stage.TCP),
    Cause.TLS: (ssl.SSLError(1, "bad certificate"), Stage.TLS),
    Cause.TLS_ENDED: (ssl.SSLEOFError(8, "EOF occurred"), Stage.TLS),
    Cause.LOGIN: (Refused("Wrong password"), Stage.HANDSHAKE),
    Cause.ENDED: (Lost(), Stage.HANDSHAKE),
    Cause.BROKEN: (of_the_system(errno.ECONNRESET), Stage.HANDSHAKE),
    Cause.ALIEN: (Alien('says "SSH-2.0"'), Stage.HANDSHAKE),
}


@pytest.mark.parametrize("why", Cause)
def test_the_probe_and_an_application_have_a_sentence_for_each_cause(why):
    exc, stage = SAMPLES[why]
    assert cause(exc, stage) is why
    seen = judge(exc, at="db1:28015", stage=stage, timeout_s=2.0, heard=True, here="this master")
    assert seen.ours is (why is Cause.OURS)
    _, told = failures.classify(exc, stage)
    for sentence in (seen.evidence, told):
        assert sentence
        assert "{" not in sentence


def test_only_a_refused_dial_is_a_death():
    of = {
        why: judge(exc, at="db1", stage=stage, timeout_s=2.0, heard=True, here="x").fault
        for why, (exc, stage) in SAMPLES.items()
    }
    assert [why for why, fault in of.items() if fault is Fault.DEAD] == [Cause.REFUSED]


@pytest.mark.parametrize("stage", Stage)
def test_the_kernels_own_timeout_is_no_silence_of_the_peer(stage):
    """On every Python: before 3.11 asyncio's timeout and the system's are two classes."""
    kernels = OSError(errno.ETIMEDOUT, "Connection timed out")
    assert isinstance(kernels, TimeoutError)
    assert cause(kernels, stage) is Cause.UNREACHABLE


def test_what_was_raised_before_the_peer_was_heard_is_ours():
    assert cause(ValueError("embedded null byte"), Stage.TCP, heard=False) is Cause.OURS
    assert cause(ValueError("no JSON"), Stage.HANDSHAKE, heard=True) is Cause.ALIEN
    assert cause(Ours("no threads"), Stage.HANDSHAKE, heard=True) is Cause.OURS


def told(*numbers):
    """What is told when the addresses of a name fail so, one after the other."""
    rows = InTurn([(socket.AF_INET, ("10.0.0.1", 28015))] * len(numbers))
    for _, number in zip(rows, numbers, strict=True):
        rows.failed(of_the_system(number), Stage.TCP)
    return rows.told().errno


def test_a_node_is_dead_only_if_each_of_its_addresses_refuses():
    assert told(errno.ECONNREFUSED, errno.ECONNREFUSED) == errno.ECONNREFUSED
    assert told(errno.ECONNREFUSED, errno.EHOSTUNREACH) == errno.EHOSTUNREACH
    assert told(errno.ECONNRESET, errno.ECONNREFUSED) == errno.ECONNRESET


def test_an_address_that_cannot_be_spoken_to_from_here_says_nothing_if_another_can():
    assert told(errno.EAFNOSUPPORT, errno.ECONNREFUSED) == errno.ECONNREFUSED
    assert told(errno.EADDRNOTAVAIL, errno.EHOSTUNREACH) == errno.EHOSTUNREACH
    assert told(errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) == errno.EAFNOSUPPORT


@pytest.mark.parametrize(
    "exc",
    [
        of_the_system(errno.EMFILE),
        ssl.SSLCertVerificationError("expired"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        ValueError("embedded null byte"),
    ],
)
def test_what_would_be_the_same_at_any_address_ends_the_round(exc):
    rows = InTurn([(socket.AF_INET, ("10.0.0.1", 28015))] * 2)
    with pytest.raises(type(exc)):
        rows.failed(exc, Stage.TLS)


def test_each_address_has_its_share_of_the_time_that_is_left():
    rows = InTurn([(socket.AF_INET, ("10.0.0.1", 28015))] * 3)
    left_s, shares = 3.0, []
    for _ in rows:
        shares.append(rows.share_s(left_s))
        left_s -= 0.5
    assert shares == [1.0, 1.25, 2.0]
    assert rows.share_s(-1.0) > 0


def test_a_socket_that_is_connected_to_itself_reached_nobody():
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        alone.connect(alone.getsockname())
        with pytest.raises(ConnectionRefusedError):
            prepare(alone)


@pytest.mark.parametrize(
    ("host", "name"),
    [("db1.example.", "db1.example"), ("fe80::1%eth0", "fe80::1"), ("db1", "db1")],
)
def test_a_certificate_names_the_host_without_zone_and_last_dot(host, name):
    assert certified(Address(host)) == name


def test_an_error_that_cannot_print_itself_still_has_words():
    class Mute(Exception):
        def __str__(self):
            raise AttributeError("message")

    assert in_words(Mute()) == "Mute: (no text)"
    assert in_words(OSError(errno.EMFILE, None)) == "Too many open files"
