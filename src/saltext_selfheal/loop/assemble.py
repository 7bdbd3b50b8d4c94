"""Puts the engine together: settings, ledger, healer, and all that delivers events to the healer.

The engine never ends by itself, because Salt would start it anew every ten seconds, for ever. If the settings cannot be
used, this is told once, and nothing happens until the master is restarted. If the ledger cannot be used now, it is
tried again every second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import salt.utils.minions

from .. import config
from ..doors import bus as doors
from ..driver.tags import ENGINE, JOB
from ..driver.text import failure
from ..healing.events import Requested
from ..ledger.file import LedgerBusy, LedgerRefused, Unavailable
from ..ledger.writer import Ledger
from ..probe import loop as probe
from ..probe.canary import CanaryPlan
from ..probe.tables import ViewPlan
from . import jobs, minions, observers
from .bus import Bus, Listener
from .foreign import TAGS, Others
from .healer import Healer

log = logging.getLogger(__name__)

AGAIN_S = 10  #: after a failed start of the healer, it is tried again after this time


class Waiting:
    """Tells once why the engine waits, and tells again when the reason changes."""

    def __init__(self, bus: Bus, several: bool) -> None:
        self._bus = bus
        # Salt starts an engine for each entry of `engines`. Only one of them heals, for all entries.
        self._several = several
        self._told = ""

    def for_ledger(self, why: str) -> None:
        """The ledger cannot be used now. Nothing is healed meanwhile, so this is logged as critical."""
        if why != self._told:
            log.critical("selfheal: nothing is healed until the ledger can be used: %s", why)
            self._bus.fire(f"{ENGINE}ledger_failed", {"why": why, "at": time.time()})
        self._told = why
        time.sleep(1)

    def for_other_engine(self, why: str) -> None:
        """Another engine holds the ledger. If the settings make Salt start several engines, that is as it should be."""
        if not self._several:
            self.for_ledger(why)
            return
        why = (
            "another engine of this master heals what all entries of `engines` say; this one waits"
        )
        if why != self._told:
            log.info("selfheal: %s", why)
        self._told = why
        time.sleep(1)


def run(opts: Mapping[str, Any]) -> NoReturn:
    """Run the healer of this master. Never returns, never raises."""
    bus = Bus(opts)
    try:
        settings = config.load(opts)
        nodes = probe.targets(settings.clusters)
    except config.ConfigError as exc:
        _do_nothing(bus, "the settings cannot be used", [str(p) for p in exc.problems])
    waiting = Waiting(bus, several=len(config.entries(opts)) > 1)
    ledger = _open_ledger(settings.ledger_path(opts), bus, waiting)
    healer = _make_healer(opts, settings, ledger, bus, waiting)

    reader = jobs.JobReader(opts, healer.deliver)
    reader.start()
    prober = probe.Prober(nodes, healer.deliver, _plans(settings), _canaries(settings))
    prober.start()
    there = minions.MinionReader(
        {name: tuple(cluster.nodes) for name, cluster in settings.clusters.items()},
        minions.Reader(opts),
        healer.deliver,
    )
    there.start()
    observers.ObserverReader(
        settings.clusters, lambda: observers.accepted(opts), minions.Reader(opts), healer.deliver
    ).start()
    _listen(opts, settings, healer)
    healer.run(reader, prober, there)


def _do_nothing(bus: Bus, why: str, problems: list[str]) -> NoReturn:
    """Tell why nothing can be healed, and then sleep for ever: if this returned, Salt would start the engine anew."""
    log.critical("selfheal: nothing is healed until the master is restarted: %s", why)
    for problem in problems:
        log.critical("selfheal: %s", problem)
    bus.fire(f"{ENGINE}config_error", {"why": why, "problems": problems, "at": time.time()})
    while True:
        time.sleep(3600)


def _open_ledger(path: Path, bus: Bus, waiting: Waiting) -> Ledger:
    """Open the ledger, and wait as long as that is not possible."""
    while True:
        try:
            return Ledger(path)
        except LedgerRefused as exc:
            _do_nothing(bus, "the ledger cannot be used", [str(exc)])
        except LedgerBusy as exc:
            waiting.for_other_engine(str(exc))
        except Exception as exc:
            # This may pass: an engine that has just ended may hold the ledger for a moment, a full disk may become
            # free.
            waiting.for_ledger(str(exc))


def _make_healer(
    opts: Mapping[str, Any],
    settings: config.EngineSettings,
    ledger: Ledger,
    bus: Bus,
    waiting: Waiting,
) -> Healer:
    while True:
        try:
            return Healer(settings=settings, ledger=ledger, bus=bus, mint=lambda: jobs.mint(opts))
        except Unavailable as exc:
            waiting.for_ledger(f"{ledger.path}: {exc}")
        except Exception as exc:
            log.error(
                "selfheal: the healer did not start, trying again in %s s: %s",
                AGAIN_S,
                failure(exc),
            )
            time.sleep(AGAIN_S)


def _plans(settings: config.EngineSettings) -> dict[str, ViewPlan]:
    return {
        name: ViewPlan(cluster.view.every, cluster.view.timeout, bool(cluster.foreign.most))
        for name, cluster in settings.clusters.items()
    }


def _canaries(settings: config.EngineSettings) -> dict[str, CanaryPlan]:
    named = ((name, cluster.canary) for name, cluster in settings.clusters.items())
    return {
        name: CanaryPlan(one.read, one.write, one.every, one.timeout)
        for name, one in named
        if one is not None
    }


def _listen(opts: Mapping[str, Any], settings: config.EngineSettings, healer: Healer) -> None:
    """Listen to the event bus, and deliver to the healer what comes there: requests, and news of other people's jobs."""

    def accepted(target: Any, kind: str) -> Iterable[str]:
        """The accepted minions that a Salt target means."""
        found = salt.utils.minions.CkMinions(dict(opts)).check_minions(target, kind)
        return list(found["minions"])

    open_doors = doors.doors(settings, accepted)
    others = Others({n: tuple(c.nodes) for n, c in settings.clusters.items() if c.foreign.most})

    def deliver(tag: str, data: Mapping[str, Any]) -> None:
        if tag.startswith(JOB):
            for news in others.take(tag, data):
                healer.deliver(news)
            return
        for request in open_doors.take(tag, data):
            healer.deliver(Requested(request))

    tags = f"{open_doors.tags}|{TAGS}" if others.listens else open_doors.tags
    Listener(opts, tags, deliver).start()
