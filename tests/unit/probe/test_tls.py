"""TLS, and what can be wrong with it."""

import datetime
import socket

import pytest
import trustme

from saltext_selfheal.driver.address import Address
from saltext_selfheal.driver.dialling import tls_context
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.node import Target, probe_once
from tests.unit.probe.world import SLACK_S, TIMEOUT_S, look, resolving, served_with


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_by_name_and_by_ip_address(authority, tmp_path, host, monkeypatch):
    with served_with(tmp_path, authority.issue_cert("127.0.0.1", "localhost")) as node:
        resolving(monkeypatch, (socket.AF_INET, (node.host, node.port)))
        context = tls_context(str(authority.path))
        assert look(node, address=Address(host, node.port), tls=context).fault is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("expired", "certificate has expired"),
        ("foreign", "self-signed certificate in certificate chain"),
        ("host", "IP address mismatch"),
    ],
)
def test_each_wrong_certificate_is_told_apart(authority, tmp_path, wrong, told):
    if wrong == "expired":
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        cert = authority.issue_cert("127.0.0.1", not_after=past)
    elif wrong == "foreign":
        other = trustme.CA()
        cert = other.issue_cert("127.0.0.1")
        cert.cert_chain_pems.append(other.cert_pem)
    else:
        cert = authority.issue_cert("10.0.0.99")
    with served_with(tmp_path, cert) as node:
        seen = look(node, tls=tls_context(str(authority.path)))
    assert seen.fault is Fault.TLS
    assert told in seen.evidence.replace("self signed", "self-signed")


def test_tls_against_a_server_without_it(well, authority):
    seen = look(well, tls=tls_context(str(authority.path)))
    assert seen.fault in (Fault.TLS, Fault.HUNG, Fault.ALIEN)
    assert seen.latency_s < TIMEOUT_S + SLACK_S


def test_a_silent_server_under_tls_is_hung(authority):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(*silent.getsockname())
        context = tls_context(str(authority.path))
        seen = probe_once(Target("c", "n", address, tls=context, timeout_s=TIMEOUT_S))
    assert (seen.fault, "no TLS handshake" in seen.evidence) == (Fault.HUNG, True)
    assert seen.latency_s < TIMEOUT_S + SLACK_S
