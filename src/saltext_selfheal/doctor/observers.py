"""Checks of the observers: whether so many of them are there that their quorum can be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..config import ClusterSettings
from ..driver.text import plain
from ..healing import sighting
from ..healing.model import Action
from ..healing.observers import MOST
from ..healing.remedies import TABLE
from ..loop import observers
from ..loop.minions import Reader
from .live import MOST_SAID, ask
from .master import Finding, Master, fail, ok, warn

PROBES_WITHIN_S = 15  #: a probe of two seconds, and its job's way there and back
#: What is known of some observers of a cluster: how many can be counted on, and findings about single ones.
Looks = Callable[[str, ClusterSettings, Sequence[str]], tuple[int, list[Finding]]]


def check_recorded(master: Master) -> Iterator[Finding]:
    """Whether the master has accepted the keys of enough observers, and finds enough of them connected."""
    reader = Reader(master.opts)

    def connected(
        name: str, cluster: ClusterSettings, minions: Sequence[str]
    ) -> tuple[int, list[Finding]]:
        if not minions or not reader.tells_connections:
            return len(minions), []
        return len(reader(minions).connected), []

    # Salt cannot tell of every minion whether it is connected, so too few connected ones are a warning.
    yield from _check(master, connected, "{count} found connected", warn)


def check_now(master: Master) -> Iterator[Finding]:
    """Whether enough observers answer: each looks at the first node of its cluster, as the engine would ask it to."""

    def answer(
        name: str, cluster: ClusterSettings, minions: Sequence[str]
    ) -> tuple[int, list[Finding]]:
        if not minions:
            return 0, []
        function, address = TABLE[Action.PROBE].runs, str(next(iter(cluster.nodes.values())))
        asked = list(minions[:MOST])
        told = ask(master.opts, asked, function, [address, "timeout=2"], PROBES_WITHIN_S)
        findings = [one for who in asked if (one := _of_observer(name, who, told))]
        return len(asked) - len(findings), findings

    yield from _check(master, answer, "{count} answer", fail)


def _of_observer(cluster: str, who: str, told: Mapping[str, Any]) -> Finding | None:
    if who not in told:
        return warn(
            f"{cluster}: the observer {who} does not answer",
            f"Start the salt-minion there, or see why it is not connected (salt {who} test.ping).",
        )
    if sighting.read(told[who]) is not None:
        return None
    said = told[who] if isinstance(told[who], str) else f"found a {type(told[who]).__name__}"
    return warn(
        f"{cluster}: the observer {who} cannot look at a node: {plain(said, MOST_SAID)}",
        f"Install this package on it, too (salt {who} selfheal.probe tells the same).",
    )


def _check(
    master: Master, look: Looks, counted: str, too_few: Callable[[str, str], Finding]
) -> Iterator[Finding]:
    if master.settings is None:
        return
    clusters = {n: c for n, c in master.settings.clusters.items() if c.observers is not None}
    if not clusters:
        yield ok("no cluster has any: nobody else is asked whether a node can be reached")
        return
    found = observers.named(master.settings.clusters, observers.accepted(master.opts))
    for name, cluster in clusters.items():
        assert cluster.observers is not None
        minions, quorum = found[name], cluster.observers.quorum
        count, findings = look(name, cluster, minions)
        yield from findings
        counts = f"{name}: {len(minions)} named, {counted.format(count=count)}"
        if count == 1:
            counts = counts.replace("1 answer", "1 answers")
        if len(minions) < quorum:
            yield fail(
                f"{counts}: quorum {quorum} cannot be reached, and nothing is done about a node that needs observers",
                f"Accept the keys of more minions that clusters.{name}.observers.minions names, or lower the quorum.",
            )
        elif count < quorum:
            yield too_few(
                f"{counts}: quorum {quorum} cannot be reached now",
                "Start the salt-minions of the others, or see why they are not connected "
                f"(salt -L {','.join(minions[:MOST])} test.ping).",
            )
        else:
            yield ok(f"{counts}: quorum {quorum} can be reached")
