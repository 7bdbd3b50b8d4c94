"""Whether a server on this machine greets: real sockets on the loopback."""

import contextlib
import socket
import ssl
import threading
import time

import pytest
import trustme

from saltext_selfheal.witness.greeting import HELLO, MOST_S, greets

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def serving(answers, tls=None):
    """A port at which each client gets this; b"": it is closed; None: nothing ever."""
    over, heard = threading.Event(), []

    def serve(listening):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client, contextlib.suppress(OSError):
                    if answers is None:
                        over.wait(5)
                        continue
                    made = tls.wrap_socket(client, server_side=True) if tls else client
                    heard.append(made.recv(4))
                    made.sendall(answers)

    with socket.create_server((LOOPBACK, 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1], heard
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def tls():
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(LOOPBACK).configure_cert(context)
    return context


def test_a_server_that_says_its_version_greets():
    with serving(b'{"success":true}\0') as (port, heard):
        assert greets(LOOPBACK, port, 1.0)
        assert heard == [HELLO]


def test_so_does_one_that_speaks_tls_whatever_its_certificate(tls):
    with serving(b"x", tls) as (port, _):
        assert greets(LOOPBACK, port, 2.0)


def test_and_one_that_wants_a_certificate_of_ours(tls):
    mutual = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert(LOOPBACK).configure_cert(mutual)
    authority.configure_trust(mutual)
    mutual.verify_mode, mutual.maximum_version = ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2
    with serving(b"x", mutual) as (port, _):
        assert greets(LOOPBACK, port, 2.0)


@pytest.mark.parametrize("answers", [None, b""])
def test_one_that_is_silent_or_hangs_up_does_not(answers):
    with serving(answers) as (port, _):
        began = time.monotonic()
        assert not greets(LOOPBACK, port, 60.0)
        assert time.monotonic() - began < MOST_S + 2.0


def test_nor_does_a_port_at_which_nobody_listens():
    with socket.socket() as held:
        held.bind((LOOPBACK, 0))
        assert not greets(LOOPBACK, held.getsockname()[1], 1.0)
