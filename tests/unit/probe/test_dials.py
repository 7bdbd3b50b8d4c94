"""Fresh dials beside the connection that is open."""

import asyncio
import datetime
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

from saltext_selfheal.driver.dialling import tls_context
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.names import Resolver
from saltext_selfheal.probe.node import NodeProbe
from tests.lab.watching import Watching
from tests.unit.probe.world import is_fault, is_seen, look, served_with, target


def test_a_node_is_dialled_afresh_every_so_often_and_keeps_its_open_connection(well):
    with Watching(target(well, redial_s=0.3)) as watching:
        watching.wait(is_seen(lambda o: o.dialled))
        watching.wait(is_seen(lambda o: not o.dialled))
        for _ in range(3):
            watching.wait(is_seen(lambda o: o.dialled))
        assert well.wait_for(lambda: well.connections == 1)
    assert {e.observation.fault for _, e in watching.seen} == {None}


def test_a_fault_is_looked_at_again_when_its_time_to_be_confirmed_is_over(well):
    """And not a minute later, at the next regular look."""
    confirm_s = 0.3
    slow = target(well, poll_s=60.0, confirm_s={Fault.AUTH: confirm_s})
    well.set_fault("wrong_password")
    with Watching(slow) as watching:
        watching.prober.dial("runbook", ["db1"])  # the first regular look may come in a minute
        watching.wait_until(lambda: len(watching.looks()) >= 2)
        (first, one), (second, other) = watching.looks()[:2]
    assert (one.fault, other.fault) == (Fault.AUTH, Fault.AUTH)
    assert second - first >= confirm_s


@pytest.mark.parametrize(
    ("fault", "options", "verdict", "told"),
    [
        ("ignore_new", {}, Fault.HUNG, "accepts TCP, but no handshake"),
        ("refuse", {"cluster_too": False}, Fault.DEAD, "refused"),
        ("wrong_password", {}, Fault.AUTH, "Wrong password"),
        ("unknown_user", {}, Fault.AUTH, "Unknown user"),
        ("huge_iterations", {}, Fault.ALIEN, "rounds of PBKDF2"),
        ("stall", {"stall_at": "auth_final"}, Fault.HUNG, "no handshake"),
        (
            "big_document",
            {"bytes": 70_000, "at": "version"},
            Fault.ALIEN,
            "does not end its greeting",
        ),
        ("non_utf8", {"at": "auth_first"}, Fault.ALIEN, "does not speak as RethinkDB does"),
        ("close_mid_answer", {"at": "version"}, Fault.ALIEN, "hangs up"),
    ],
)
def test_what_only_a_new_client_meets_is_seen_while_the_open_connection_answers(
    well, fault, options, verdict, told
):
    with Watching(target(well, redial_s=0.2)) as watching:
        watching.wait(is_fault(None))
        well.set_fault(fault, **options)
        _, event = watching.wait(is_fault(verdict))
        seen = event.observation
        assert (seen.answers, seen.dialled, seen.ours) == (True, True, False)
        assert told in seen.evidence
        assert "a connection that was open before answers" in seen.evidence
        # Each look dials until one is well.
        for _ in range(3):
            _, event = watching.wait(is_seen(lambda o: True))
            assert (event.observation.fault, event.observation.dialled) == (verdict, True)
        well.clear()
        _, event = watching.wait(is_fault(None))
        assert event.observation.dialled


@pytest.mark.parametrize("wrong", ["expired", "foreign", "host"])
def test_a_certificate_that_became_wrong_is_seen_while_the_open_connection_answers(
    authority, tmp_path, wrong
):
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    cert = {
        "expired": lambda: authority.issue_cert("127.0.0.1", not_after=past),
        "foreign": lambda: trustme.CA().issue_cert("127.0.0.1"),
        "host": lambda: authority.issue_cert("10.0.0.99"),
    }[wrong]()
    key, chain = tmp_path / "new_key.pem", tmp_path / "new_cert.pem"
    cert.private_key_pem.write_to_path(key)
    for number, blob in enumerate(cert.cert_chain_pems):
        blob.write_to_path(chain, append=number > 0)
    context = tls_context(str(authority.path))
    with (
        served_with(tmp_path, authority.issue_cert("127.0.0.1")) as node,
        Watching(target(node, tls=context, redial_s=0.2, timeout_s=2.0)) as watching,
    ):
        watching.wait(is_fault(None))
        node.renew_certificate(chain, key)
        _, event = watching.wait(is_fault(Fault.TLS))
    assert (event.observation.answers, event.observation.ours) == (True, False)


def test_a_full_backlog_is_still_hung_and_a_host_that_is_away_is_not(well, monkeypatch):
    """First accepted and not greeted, then not even accepted, while the open connection answers."""

    async def go():
        resolver = Resolver()
        with ThreadPoolExecutor(1) as crypto:
            one = NodeProbe(target(well, redial_s=0.01, timeout_s=0.2), resolver, crypto)
            seen = [await one.probe()]
            well.set_fault("ignore_new")
            one.ask_dial()
            seen.append(await one.probe())

            async def black_hole(*_):
                await asyncio.sleep(60)

            monkeypatch.setattr(
                asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", black_hole
            )
            seen.append(await one.probe())
            one.close()
            seen.append(await one.probe())  # nothing open any more: nobody knows its host
            one.close()
        resolver.close()
        return seen

    seen = asyncio.run(go())
    assert [s.fault for s in seen] == [None, Fault.HUNG, Fault.HUNG, Fault.UNREACHABLE]
    assert [s.answers for s in seen] == [False, True, True, False]


def test_a_dial_can_be_asked_for_from_any_thread(well):
    with Watching(target(well, redial_s=1000.0, poll_s=30.0)) as watching:
        watching.prober.dial("runbook", ["db1"])
        watching.wait(is_fault(None))
        for _ in range(3):
            asked = time.monotonic()
            watching.prober.dial("runbook", ("db1", "nosuch"))
            watching.prober.dial("nosuch", ("db1",))
            at, event = watching.wait(is_fault(None))
            assert event.observation.dialled
            assert at - asked < 2.0  # not by the interval of 30 s
    watching.prober.dial("runbook", ["db1"])  # it has ended: nobody is asked


def test_an_address_that_leads_elsewhere_now_is_told_by_the_dial(well):
    other = str(uuid.uuid4())
    with Watching(target(well, redial_s=0.2)) as watching:
        watching.wait(is_fault(None))
        well.set_fault("identity", server_id=other, server_name="db9")
        _, event = watching.wait(is_seen(lambda o: o.server_id == other))
    assert (event.observation.fault, event.observation.server_name) == (None, "db9")


def test_a_proxy_says_so(well):
    assert not look(well).proxy
    well.set_fault("proxy")
    seen = look(well)
    assert (seen.fault, seen.proxy, seen.server_name, seen.server_id) == (
        None,
        True,
        None,
        f"proxy-{well.id}",
    )
