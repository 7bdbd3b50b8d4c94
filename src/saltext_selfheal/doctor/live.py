"""Checks that ask the nodes and the minions themselves, now. They take some seconds, and change nothing.

Each node is dialled as the engine dials it. The minions get one job with four functions that only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import salt.client

from ..driver.text import plain
from ..healing.events import ClusterView, Observation, ViewStatus
from ..healing.model import Action, Fault
from ..healing.remedies import TABLE
from ..probe.loop import targets
from ..probe.node import NodeProbe, Target, maker
from ..probe.tables import TableReader, ViewPlan
from .master import Finding, Master, fail, ok, warn

TABLES_WITHIN_S = 20.0  #: RethinkDB answers so late while a peer hangs (2.4.4)
MINIONS_WITHIN_S = 30  #: a highstate that is compiled takes some seconds
AT_ONCE = 50  #: nodes that are dialled at the same time
MOST_SAID = 300  #: characters of what a minion says

_Told = TypeVar("_Told")

_REMEDIES = {
    Fault.AUTH: "Check user and password of this cluster in the settings.",
    Fault.TLS: "Check tls.ca_certs of this cluster, and the node's certificate.",
    Fault.ALIEN: "Check the node's address and port: what answers there is no RethinkDB.",
    Fault.UNREACHABLE: "Check the node's address, its name, and what is between it and this master.",
}


def check_nodes(master: Master) -> Iterator[Finding]:
    """Whether each node can be dialled from here, and whether the system tables may be read."""
    if master.settings is None:
        return
    found = asyncio.run(_dial(targets(master.settings.clusters)))
    well = 0
    for seen, status, why in found:
        if seen.fault is not None:
            remedy = _REMEDIES.get(
                seen.fault, f"See what runs there, and salt-run selfheal.explain {seen.cluster}."
            )
            yield fail(f"{seen.cluster}: {seen.node}: {seen.evidence}", remedy)
            continue
        well += 1
        if status is ViewStatus.FORBIDDEN:
            yield warn(
                f"{seen.cluster}: {why}",
                "Give the grant, so that the healer knows which replicas a step would take away.",
            )
    if well:
        yield ok(f"{well} of {len(found)} nodes let the healer in")


async def _dial(all_of_them: list[Target]) -> list[tuple[Observation, ViewStatus | None, str]]:
    """What each node answers; of the first of each cluster that does, also whether its tables may be read."""
    looked: set[str] = set()

    async def look(probe: NodeProbe, seen: Observation) -> ClusterView | None:
        if seen.proxy or seen.cluster in looked:
            return None
        looked.add(seen.cluster)
        plan = ViewPlan(TABLES_WITHIN_S, TABLES_WITHIN_S)
        return await TableReader(seen.cluster, [probe], plan, probe.pace).take()

    return [
        (seen, view.status if view else None, view.why if view else "")
        for seen, view in await asked(all_of_them, look)
    ]


async def asked(
    all_of_them: list[Target], ask: Callable[[NodeProbe, Observation], Awaitable[_Told]]
) -> list[tuple[Observation, _Told | None]]:
    """Dial each node, and ask each that answers. What it told is None if it did not answer."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(target: Target) -> tuple[Observation, _Told | None]:
        async with free:
            probe = make(target)
            try:
                seen = await probe.probe()
                return seen, None if seen.fault is not None else await ask(probe, seen)
            finally:
                probe.close()

    async with maker(2) as make:
        return await asyncio.gather(*map(one, all_of_them))


def check_minions(master: Master) -> Iterator[Finding]:
    """Whether each node's minion answers, knows the service, and has a highstate that compiles."""
    if master.settings is None:
        return
    for name, cluster in master.settings.clusters.items():
        nodes = list(cluster.nodes)
        args = [[], [cluster.service], [], ["selfheal"]]
        told = ask(master.opts, nodes, list(FUNCTIONS), args, MINIONS_WITHIN_S)
        sound = 0
        for node in nodes:
            findings = list(_of_minion(name, node, cluster.service, told.get(node)))
            yield from findings
            sound += not findings
        if sound:
            yield ok(
                f"{name}: {sound} of {len(nodes)} minions answer, know the service {cluster.service}, and compile "
                "their highstate"
            )
        if _forces(master, name):
            yield from _without_package(name, nodes, told)


def _forces(master: Master, cluster: str) -> bool:
    """A step of this cluster ends processes by force, which needs this package on the minions."""
    assert master.settings is not None
    steps = master.settings.clusters[cluster].escalation.values()
    return any(step.action is Action.FORCE_RESTART for some in steps for step in some)


def _without_package(cluster: str, nodes: list[str], told: Mapping[str, Any]) -> Iterator[Finding]:
    """Minions that answer and do not have this package."""
    lists = {n: told[n].get("sys.list_functions") for n in nodes if isinstance(told.get(n), dict)}
    bare = [
        n for n, found in lists.items() if isinstance(found, list) and FORCE not in map(str, found)
    ]
    if bare:
        yield warn(
            f"{cluster}: {FORCE} is not on the minion of {', '.join(bare)}: the step force_restart is left out there",
            "Install this package there, too, and restart the minion; or leave force_restart out of the escalation.",
        )


FUNCTIONS = ("test.version", "service.available", "state.show_highstate", "sys.list_functions")
FORCE = TABLE[Action.FORCE_RESTART].runs


def ask(
    opts: Mapping[str, Any], nodes: list[str], functions: Any, args: list[Any], within_s: int
) -> Mapping[str, Any]:
    """Minion → what it returned; for several functions, function → that. Minions that said nothing are missing.

    ``within_s`` is an int: Salt takes its own timeout instead of a float (3006 to 3008).
    """
    with salt.client.LocalClient(mopts=dict(opts)) as client:
        found = client.cmd(nodes, functions, args, tgt_type="list", timeout=within_s)
    return found if isinstance(found, dict) else {}


def _of_minion(cluster: str, node: str, service: str, told: Any) -> Iterator[Finding]:
    if not isinstance(told, dict) or not told:
        yield fail(
            f"{cluster}: the minion {node} does not answer: an action would reach nobody",
            f"Start the salt-minion there, or see why it is not connected (salt {node} test.ping).",
        )
        return
    if told.get("service.available") is not True:
        yield fail(
            f"{cluster}: the minion {node} knows no service {service!r}: restart and start would fail",
            f"Set service in the settings of {cluster} to its name there (salt {node} service.get_all).",
        )
    states = told.get("state.show_highstate")
    if isinstance(states, dict) and states:
        return
    if isinstance(states, dict) or states == []:
        yield warn(
            f"{cluster}: nothing is assigned to the minion {node} by a highstate: it cannot repair anything",
            "Assign states to it in top.sls, or leave highstate out of the escalation.",
        )
        return
    words = "; ".join(map(str, states)) if isinstance(states, list) else str(states)
    yield fail(
        f"{cluster}: the highstate of {node} does not compile: {plain(words, MOST_SAID)}",
        f"Mend it; salt {node} state.show_highstate tells the same.",
    )
