"""Checks what the healer itself has on record of the clusters: whether it may act, and what it waits for a person to do."""

from __future__ import annotations

from collections.abc import Iterator

from ..healing import canary
from ..healing.model import ClusterState, Fault, Mode, Phase
from ..ledger import records, timeline
from ..ledger.file import LedgerError
from .master import Finding, Master, fail, ok, warn


def check_clusters(master: Master) -> Iterator[Finding]:
    """Modes, pauses, locks, and nodes that are not well, as of the engine's last word."""
    if master.settings is None:
        return
    try:
        with records.read(master.ledger_path) as db:
            states, now = records.states(db), timeline.now(db)
    except LedgerError:
        states, now = {}, 0.0  # the ledger's own check tells why
    quiet: list[str] = []
    unknown: list[str] = []
    for name, policy in master.settings.policies().items():
        found = list(_of_mode(name, policy.mode))
        state = states.get(name)
        if state is not None:
            found += [*_of_people(state, now), *_of_nodes(state, policy.nodes), *_of_canary(state)]
        yield from found
        if not found:
            (quiet if state is not None else unknown).append(name)
    if quiet:
        yield ok(f"acts where it must, every node well when last looked at: {', '.join(quiet)}")
    if unknown:
        yield ok(f"nothing on record yet of {', '.join(unknown)}")


def _of_mode(name: str, mode: Mode) -> Iterator[Finding]:
    if mode in (Mode.OFF, Mode.SHADOW):
        yield warn(
            f"{name}: mode is {mode.value}: nothing is done to its nodes",
            "Set mode: auto or mode: approve when you trust what it would do, and restart the salt-master.",
        )


def _of_people(state: ClusterState, now: float) -> Iterator[Finding]:
    """What a person has ordered, or has to see to."""
    pause = state.pause
    if pause is not None and pause.until > now:
        yield warn(
            f"{state.name}: paused for {pause.until - now:.0f} s more by {pause.by}",
            f"End it early with salt-run selfheal.resume {state.name}.",
        )
    for incident in state.incidents:
        if incident.phase is Phase.LOCKED:
            yield warn(
                f"{state.name}: {incident.id} ({incident.called} on {', '.join(incident.nodes)}) is locked: "
                f"{incident.why}",
                f"See to it, then salt-run selfheal.ack {incident.id}. Nothing is done to its nodes before.",
            )


def _of_canary(state: ClusterState) -> Iterator[Finding]:
    """A canary that the database refuses to be asked."""
    refused = [node for node in state.nodes.values() if node.unasked]
    if refused:
        yield warn(
            f"{state.name}: the canary {canary.told(state)}",
            "Do what it names; it is asked again by itself. Until then no node is found stalled.",
        )


def _of_nodes(state: ClusterState, nodes: tuple[str, ...]) -> Iterator[Finding]:
    """Nodes that were not well when the engine looked last. If none was, the healer or its settings may be to blame."""
    known = {n: state.nodes[n] for n in nodes if n in state.nodes and state.nodes[n].polls}
    ill = {n: node for n, node in known.items() if node.fault is not None}
    if not ill:
        return
    told = "; ".join(f"{n}: {node.evidence}" for n, node in list(ill.items())[:3])
    more = f" and {len(ill) - 3} more" if len(ill) > 3 else ""
    if len(ill) < len(known):
        yield warn(
            f"{state.name}: {len(ill)} of {len(known)} nodes not well: {told}{more}",
            f"See salt-run selfheal.explain {state.name}.",
        )
        return
    faults = {node.fault for node in ill.values()}
    remedy = f"See salt-run selfheal.explain {state.name}."
    if faults == {Fault.AUTH}:
        remedy = f"Check user and password of the cluster {state.name} in the settings, and restart the salt-master."
    elif faults == {Fault.TLS}:
        remedy = f"Check tls.ca_certs of the cluster {state.name}, and the nodes' certificates."
    yield fail(f"{state.name}: no node is well: {told}{more}", remedy)
