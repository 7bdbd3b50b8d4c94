"""While this side stands still, nothing is proved."""

import asyncio
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from saltext_selfheal.healing.events import Observed, Viewed, ViewStatus
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe import pulse
from saltext_selfheal.probe.names import Resolver
from saltext_selfheal.probe.node import NodeProbe
from saltext_selfheal.probe.pulse import Pace
from saltext_selfheal.probe.tables import ViewPlan
from tests.lab.watching import Watching
from tests.unit.probe.world import (
    TIMEOUT_S,
    is_fault,
    is_view,
    known,
    target,
    watching_all,
)


def stall(watching, seconds):
    """Hold the probe's loop for so long, as a thread does that keeps the interpreter."""
    held = threading.Event()

    def hold():
        held.set()
        time.sleep(seconds)

    watching.in_loop(hold)
    assert held.wait(5)


@pytest.mark.parametrize("fault", ["none", "slow", "many"])
def test_a_deadline_missed_while_the_loop_stood_still_proves_nothing(well, fault):
    if fault == "slow":
        well.set_fault("slow", delay_s=0.05)
    with Watching(target(well, redial_s=0.1)) as watching:
        watching.wait(is_fault(None))
        for _ in range(3 if fault == "many" else 1):
            stall(watching, 3 * TIMEOUT_S)
            watching.wait(is_fault(None))
    seen = [e.observation for _, e in watching.seen]
    assert {s.fault for s in seen} == {None}
    assert max(s.latency_s for s in seen) < TIMEOUT_S


def test_a_hung_node_is_still_seen_to_hang_after_a_stall(well):
    with Watching(target(well)) as watching:
        watching.wait(is_fault(None))
        well.set_fault("silent", on_existing="drop")
        stall(watching, 3 * TIMEOUT_S)
        _, event = watching.wait(is_fault(Fault.HUNG))
    assert not event.observation.ours


def test_whoever_stands_still_again_and_again_says_so_and_blames_nobody(well):
    well.set_fault("silent")

    async def go():
        resolver, pace = Resolver(), Pace()
        pace.pulse.start()
        loop = asyncio.get_running_loop()

        async def stand_still():
            while True:
                await asyncio.sleep(0.02)
                time.sleep(0.4)  # noqa: ASYNC251

        stalling = loop.create_task(stand_still())
        with ThreadPoolExecutor(1) as crypto:
            one = NodeProbe(target(well), resolver, crypto, pace)
            seen = await one.probe()
            one.close()
        stalling.cancel()
        resolver.close()
        return seen

    seen = asyncio.run(go())
    assert (seen.fault, seen.ours) == (Fault.UNREACHABLE, True)
    assert re.fullmatch(r"this master's probing stood still for \d+\.\d s", seen.evidence)


def test_a_refusal_needs_no_second_look(well):
    well.set_fault("refuse", on_existing="drop")
    with Watching(target(well)) as watching:
        stall(watching, 3 * TIMEOUT_S)
        watching.wait(is_fault(Fault.DEAD))
    assert {e.observation.fault for _, e in watching.seen if isinstance(e, Observed)} == {
        Fault.DEAD
    }


def test_a_suspended_machine_is_a_stall_too(monkeypatch):
    """The monotonic clock stood as well; only the boot clock went on."""

    async def go():
        away = [0.0]
        monkeypatch.setattr(time, "clock_gettime", lambda _: time.monotonic() + away[0])
        beats = pulse.Pulse()
        beats.start()
        began = asyncio.get_running_loop().time()
        assert beats.stood_still_s(began) == 0.0
        away[0] = 3600.0
        assert 3599 < beats.stood_still_s(began) < 3601  # before the next beat
        await asyncio.sleep(0.2)
        assert 3599 < beats.stood_still_s(began) < 3601
        later = asyncio.get_running_loop().time()
        assert beats.stood_still_s(later) == 0.0
        beats.stop()

    asyncio.run(go())


def test_a_view_that_missed_its_deadline_because_of_a_stall_is_asked_again(cluster):
    plan = {"runbook": ViewPlan(every_s=0.05, timeout_s=0.4)}
    with watching_all(cluster, plans=plan) as watching:
        watching.wait(is_view(known))
        for _ in range(3):
            stall(watching, 1.0)
            watching.wait(is_view(known))
    assert {e.view.status for _, e in watching.seen if isinstance(e, Viewed)} == {ViewStatus.KNOWN}


def test_a_round_that_begins_late_says_so(well):
    with Watching(target(well)) as watching:
        watching.wait(is_fault(None))
        time.sleep(5 * target(well).poll_s)
        calm = [e.observation.late_s for _, e in watching.seen]
        stall(watching, 1.0)
        watching.wait(lambda event: isinstance(event, Observed) and event.observation.late_s > 0.5)
    assert min(calm) >= 0.0 and max(calm) < 0.5
