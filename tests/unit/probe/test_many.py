"""Many nodes at once."""

import asyncio
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from saltext_selfheal.driver import wire
from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing.events import Observed
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.names import Resolver
from saltext_selfheal.probe.node import NodeProbe
from tests.lab.simulated import SimulatedNode
from tests.lab.watching import Watching
from tests.unit.probe.world import is_fault, is_seen, target


def test_hundreds_of_expensive_logins_at_once_make_nobody_late(caplog):
    """Each costs this side more than its share of the deadline; none is blamed for the others, and nothing is logged."""
    number, iterations = 150, 60_000
    with SimulatedNode(name="db1", password="secret") as node:
        node.set_fault("huge_iterations", iterations=iterations)
        wire.salted_password.cache_clear()
        # A password of its own each: nothing is remembered between them. The server knows one of them.
        targets = [
            target(node, node=f"n{n}", timeout_s=1.0, poll_s=0.1, password=f"p{n}")
            for n in range(number)
        ]
        with caplog.at_level(logging.INFO), Watching(*targets) as watching:
            waiting = {t.node for t in targets}
            deadline = time.monotonic() + 60
            while waiting and time.monotonic() < deadline:
                _, event = watching.wait(
                    lambda e: isinstance(e, Observed) and e.observation.node in waiting, 30.0
                )
                waiting.discard(event.observation.node)
    seen = [e.observation for _, e in watching.seen]
    assert not waiting
    assert {s.fault for s in seen} == {Fault.AUTH}  # the password, and not the time
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


def test_hung_nodes_keep_nobody_from_the_desk(well):
    with SimulatedNode(name="sick", password="secret") as sick:
        sick.set_fault("silent")
        hung = [target(sick, node=f"n{n}", timeout_s=1.0) for n in range(200)]
        with Watching(*hung, target(well, redial_s=0.05, timeout_s=1.0)) as watching:
            watching.wait(is_fault(None), timeout_s=20.0)
            watching.wait(is_fault(Fault.HUNG, "n199"), timeout_s=20.0)
            began = time.monotonic()
            for _ in range(5):
                watching.wait(is_seen(lambda o: o.fault is None and o.dialled))
            assert time.monotonic() - began < 8.0


def test_names_wait_for_their_turn_as_long_as_others_are_answered(well, monkeypatch):
    def slow(*_, **__):
        time.sleep(0.05)
        return [(socket.AF_INET, 1, 6, "", (well.host, well.port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def go():
        resolver = Resolver()
        with ThreadPoolExecutor(2) as crypto:
            targets = [
                target(well, address=Address(f"db{n}.example", well.port)) for n in range(80)
            ]
            looks = [NodeProbe(t, resolver, crypto) for t in targets]
            seen = await asyncio.gather(*(one.probe() for one in looks))
            for one in looks:
                one.close()
        resolver.close()
        return seen

    # 80 names of 50 ms each on four threads take a second, twice the deadline.
    assert {s.fault for s in asyncio.run(go())} == {None}
