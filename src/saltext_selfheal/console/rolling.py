"""An operator's roll: one action on the nodes of a cluster, one node after the other.

The turn of each node is a forced request of its own, so every gate is asked before it, and it is verified and recorded as
any other. Only the order is decided here, and whether there is a next turn. Nothing of a roll is kept: if its runner
ends, no further node is touched. No Salt here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ..doors import forms
from ..doors.arguments import BadRequest
from ..healing.events import Seconds, Verb
from ..healing.explained import Explained
from ..healing.model import Mode, Phase, Reply
from ..healing.quorum import NO_MAP
from ..ledger.file import LedgerError
from . import desk, explanation, given, history, status
from .times import seconds

PATIENCE = "1h"  #: how long a node's turn may wait for its beginning
LOOK_AGAIN_S: Seconds = 0.25
#: How long until the engine is asked again what it thinks: at first, how much longer each time, at most.
ASK_AGAIN_S, ASK_RARER, ASK_LONGEST_S = 0.25, 1.5, 5.0
MAP_WITHIN_S: Seconds = (
    60.0  #: a table map is waited for this long, however patient the operator is
)

#: How an incident may end that says: this node is through. All other ends are a reason to stop.
_THROUGH = frozenset({"verifying.stable", "open.asked-for-nothing"})
_BEGUN = frozenset({Phase.REMEDIATING.value, Phase.VERIFYING.value})

Say = Callable[[str], None]


class Office(Protocol):
    """What a roll asks the healer, and asks of it."""

    def cluster(self) -> status.ClusterStatus:
        """The present status of the cluster. Raises Stop if no engine runs."""

    def explained(self, node: str) -> tuple[Explained, ...]:
        """What the engine thinks of this node. Empty if it did not answer in time. Raises Stop."""

    def ask(self, node: str, place: str) -> desk.Answered:
        """Ask for this node's turn. ``place`` says which of how many."""

    def fate(self, request: str) -> history.Fate:
        """What became of the request."""

    def withdraw(self, incident: str, why: str) -> None:
        """Take back what was asked for and has not begun."""


class Stop(Exception):
    """Why the roll ends here."""


@dataclass(frozen=True)
class Turn:
    """A node that is through."""

    node: str
    incident: str
    outcome: str
    took_s: Seconds

    def told(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "incident": self.incident,
            "outcome": self.outcome,
            "seconds": round(self.took_s, 1),
        }


@dataclass(frozen=True)
class Rolled:
    """How far a roll has come."""

    cluster: str
    action: str
    done: tuple[Turn, ...]
    left: tuple[str, ...]  #: the nodes that are not through, the one at which it stopped first
    stopped: str | None  #: why; None: all nodes are through

    def told(self) -> dict[str, Any]:
        """``cluster``, ``action``, ``done``, ``left`` and ``stopped``. If it stopped, also ``retcode`` 1."""
        told: dict[str, Any] = {
            "cluster": self.cluster,
            "action": self.action,
            "done": [turn.told() for turn in self.done],
            "left": list(self.left),
            "stopped": self.stopped,
        }
        return told if self.stopped is None else {**told, "retcode": 1}


@dataclass(frozen=True)
class Real:
    """The healer as a roll sees it: its ledger, and a desk."""

    counter: desk.Desk
    name: str
    action: str
    reason: str

    def cluster(self) -> status.ClusterStatus:
        found = status.read(self.counter.settings, self.counter.ledger, self.name)
        if not found.present:
            raise Stop("; ".join([f"the engine is {found.engine.value}", *found.errors]))
        return found.clusters[0]

    def explained(self, node: str) -> tuple[Explained, ...]:
        told = self.counter.explain(self.name, node)
        if isinstance(told, explanation.Explanation):
            return told.entries if told.engine == explanation.RUNNING else ()
        raise Stop(told.why)

    def ask(self, node: str, place: str) -> desk.Answered:
        return self.counter.force(self.name, self.action, [node], f"roll, {place}: {self.reason}")

    def fate(self, request: str) -> history.Fate:
        found = history.find(self.counter.ledger, request)
        assert isinstance(
            found, history.Fate
        ), f"{request} is the id of a request, not of an incident"
        return found

    def withdraw(self, incident: str, why: str) -> None:
        self.counter.command(Verb.REJECT, incident=incident, reason=why)


@dataclass(frozen=True)
class Roll:
    """One roll. ``say`` gets a line about each thing that happens."""

    office: Office
    action: str
    patience_s: Seconds
    say: Say
    now: Callable[[], Seconds] = time.monotonic
    sleep: Callable[[Seconds], None] = time.sleep

    def run(self, cluster: str, nodes: Sequence[str]) -> Rolled:
        """Take the action to each of these nodes, until one does not come back, or something else is in the way."""
        done: list[Turn] = []
        for number, node in enumerate(nodes, 1):
            try:
                self._wait_until_ready(node)
                done.append(self._turn(node, f"{number} of {len(nodes)}"))
            except (Stop, BadRequest, LedgerError) as why:
                self.say(f"stopped at {node}: {why}")
                return Rolled(
                    cluster, self.action, tuple(done), tuple(nodes[number - 1 :]), str(why)
                )
        return Rolled(cluster, self.action, tuple(done), (), None)

    def refuse_unready(self) -> None:
        """Raises Stop if the cluster is not as it must be at the beginning of a roll."""
        found = self.office.cluster()
        if found.mode in (Mode.OFF, Mode.SHADOW):
            raise Stop(f"its mode is {found.mode.value}: nothing is done there")
        _refuse_trouble(found)

    def _wait(self, until: Seconds, step_s: Seconds, what: str) -> None:
        """Wait for a moment. Raises Stop after ``until``; ``what`` was waited for."""
        if self.now() >= until:
            raise Stop(f"waited {self.patience_s:g} s: {what}")
        self.sleep(step_s)

    def _wait_until_ready(self, node: str) -> None:
        """Until all nodes are well, no incident is open, all replicas are ready, and the quorum is proved for this node."""
        told, pace_s = "", ASK_AGAIN_S
        began = self.now()
        while True:
            _refuse_trouble(self.office.cluster())
            found = _in_the_way(self.office.explained(node))
            if not found:
                return
            if found == NO_MAP and self.now() - began >= MAP_WITHIN_S:
                raise Stop(
                    "the tables' replicas are not known, so nothing tells which node can be missed"
                )
            if found != told:
                told = found
                self.say(f"{node} waits: {told}")
            self._wait(began + self.patience_s, pace_s, told)
            pace_s = min(pace_s * ASK_RARER, ASK_LONGEST_S)

    def _turn(self, node: str, place: str) -> Turn:
        """One node's turn, from the request to its end. Raises Stop if it did not end well."""
        began = self.now()
        answer = self.office.ask(node, place)
        if answer.refused or answer.id is None:
            raise Stop(answer.why)
        self.say(f"{node} ({place}): {self.action} asked for")
        with self._taken_back_unless_it_ends() as open_incident:
            incident = self._followed(node, answer.id, open_incident)
        rule = next((e.row["rule"] for e in reversed(incident.audit) if e.row.get("rule")), "")
        if incident.phase != Phase.RESOLVED.value or rule not in _THROUGH:
            raise Stop(f"{incident.id} is {incident.phase}: {incident.why}")
        took_s = self.now() - began
        self.say(f"{node} ({place}): {incident.why}; {took_s:.0f} s")
        return Turn(node, incident.id, incident.why, took_s)

    @contextmanager
    def _taken_back_unless_it_ends(self) -> Iterator[list[str]]:
        """Whatever ends the roll, also Ctrl-C: an incident in this list has not begun, and must not begin later."""
        held: list[str] = []
        try:
            yield held
        except BaseException as exc:
            for incident in held:
                self.office.withdraw(incident, f"the roll has ended: {exc or type(exc).__name__}")
            raise

    def _followed(self, node: str, request: str, held: list[str]) -> history.Whole:
        """The request's incident, once it has ended or is locked. ``held`` gets its id while nothing has begun."""
        told, until = "", self.now() + self.patience_s
        while True:
            fate = self.office.fate(request)
            if fate.answer.reply == Reply.REFUSED.value:
                raise Stop(fate.answer.why)
            incident = fate.incident
            if incident is None:
                self._wait(until, LOOK_AGAIN_S, "the engine does not answer")
                continue
            ended = incident.ended_at is not None or incident.phase == Phase.LOCKED.value
            held[:] = [] if ended or incident.phase in _BEGUN else [incident.id]
            if incident.why != told:
                told = incident.why
                self.say(f"{node}: {incident.phase}: {told}")
            if ended:
                return incident
            if held:
                _refuse_trouble(self.office.cluster(), but=incident.id)
                self._wait(until, LOOK_AGAIN_S, told)
            else:
                self.office.cluster()  # an engine that has ended would be waited for for ever
                self.sleep(LOOK_AGAIN_S)


def _refuse_trouble(cluster: status.ClusterStatus, but: str = "") -> None:
    """Raises Stop if the cluster is paused, has another open incident, or a node that is not well."""
    if cluster.pause:
        raise Stop(f"paused by {cluster.pause.by}: {cluster.pause.why}")
    others = [i for i in cluster.incidents if i.id != but]
    if others:
        one = others[0]
        raise Stop(f"{one.id} is open ({one.fault} on {', '.join(one.nodes)}): {one.why}")
    ill = [
        f"{n.name} is {n.told()}" for n in cluster.nodes if n.since is None or n.fault or n.flapping
    ]
    if ill:
        raise Stop("; ".join(ill))


def _in_the_way(entries: Sequence[Explained]) -> str:
    """What a node's turn has to wait for. Empty: nothing."""
    if not entries:
        return "the engine does not answer in time"
    one = entries[0]
    shut = next((gate.why for gate in one.gates if gate.name == "quorum" and not gate.open), "")
    return shut or (NO_MAP if one.unready is None else one.unready)


def begin(
    office: desk.Desk, cluster: Any, action: Any, nodes: Any, reason: Any, patience: Any, say: Say
) -> Rolled:
    """Check what an operator asks for, and do it.

    Raises BadRequest if it is wrong, or if the cluster is not ready for a roll; LedgerError.
    """
    if cluster is None:
        raise BadRequest("cluster: found None; allowed: the name of a configured cluster")
    given.known_cluster(office.settings, cluster)
    known = office.settings.clusters[cluster].nodes
    asked = desk.forced(cluster, action, list(known) if nodes is None else nodes, reason, office.by)
    given.known_nodes(office.settings, cluster, asked.nodes)
    forms.known_action(asked.action)
    patience_s = seconds("patience", patience)
    real = Real(office, cluster, asked.action, asked.reason)
    roll = Roll(real, asked.action, patience_s, say)
    try:
        roll.refuse_unready()
    except Stop as why:
        raise BadRequest(f"{cluster} is not ready for a roll: {why}") from None
    return roll.run(cluster, asked.nodes)
