"""Takes requests and commands of people: checks them, puts them into the inbox, and waits for the answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..config import EngineSettings
from ..doors import forms
from ..doors.arguments import BadRequest
from ..healing.events import Command, Door, Request, Seconds, Verb
from ..healing.model import PAUSED_AT_MOST_S, Answer, Reply
from ..healing.orders import take_request
from ..healing.start import begin
from ..ledger import file as ledger_file
from ..ledger import inbox, records
from . import explanation, given
from .times import seconds

DECISION_WITHIN_S: Seconds = 5.0  #: an answer is waited for this long
LOOK_AGAIN_S: Seconds = 0.02
STORED = "stored"  #: the reply if no answer came in time

_LATER = "it will be decided when the engine takes it"
_FIRST = "it takes effect before the engine's first decision"
#: Said about commands that answer to what a person saw. After a quarter of an hour that is out of date.
_SOON = f"{_FIRST}, if the engine runs again within a quarter of an hour"

What = Literal["request", "command"]


@dataclass(frozen=True)
class Answered:
    """What became of a request or a command."""

    what: What
    reply: str  #: a `Reply`, or `STORED`
    why: str
    id: str | None = None  #: its own id; None: it never reached the ledger
    incident: str | None = None
    jid: str | None = None  #: of the incident's latest attempt
    explained: tuple[dict[str, Any], ...] | None = None  #: the core's answer to ``explain``

    @property
    def refused(self) -> bool:
        return self.reply == Reply.REFUSED.value

    def told(self) -> dict[str, Any]:
        """``request`` or ``command`` with its id, ``reply``, ``why`` and ``incident``, for a request also ``jid``.

        If it was refused, also ``retcode`` 1.
        """
        told = {self.what: self.id, "reply": self.reply, "why": self.why, "incident": self.incident}
        failed = {"retcode": 1} if self.refused else {}
        if self.what == "command":
            return {**told, **failed}
        if self.id is None:
            return {**told, **failed, "jid": self.jid}
        return {**told, "jid": self.jid, **failed}


def refused(what: What, why: object) -> Answered:
    """The refusal of something that never reached the ledger."""
    return Answered(what, Reply.REFUSED.value, str(why))


def recorded(what: What, name: str, found: dict[str, Any]) -> Answered:
    """The answer that the ledger holds for the request or command with this id."""
    told = found.get("told")
    return Answered(
        what,
        reply=found["reply"],
        why=found["why"],
        id=name,
        incident=found["incident"],
        jid=found["jid"],
        explained=None if told is None else tuple(told),
    )


def forced(cluster: Any, action: Any, nodes: Any, reason: Any, by: str) -> Request:
    """Check the form of a forced request, and make it. Raises BadRequest."""
    if nodes is None:
        raise BadRequest("nodes: found None; allowed: minion ids, at least one")
    if not reason or (isinstance(reason, str) and not reason.strip()):
        raise BadRequest("reason: found nothing; allowed: up to 500 characters")
    return forms.request(cluster, action, nodes, reason, door=Door.FORCE, asker=by, forced=True)


@dataclass(frozen=True)
class Desk:
    """Takes what one person or application asks for. Its methods wait up to `DECISION_WITHIN_S` for the engine.

    They raise LedgerError, and BadRequest if the form is wrong, if something is not configured, or if the settings
    alone forbid it. Arguments may be of any type; they are checked here.
    """

    settings: EngineSettings
    ledger: Path
    by: str  #: who asks

    def trigger(
        self, cluster: Any, action: Any, nodes: Any, reason: Any, request: Any = None
    ) -> Answered:
        """Ask for healing. ``request`` is an id that the asker has chosen."""
        asked = forms.request(
            cluster, action, nodes, reason, request, door=Door.RUNNER, asker=self.by
        )
        given.own_id(self.settings, asked.id)
        return self._request(asked)

    def force(self, cluster: Any, action: Any, nodes: Any, reason: Any) -> Answered:
        """Ask for an action even if the probe does not agree. Nodes and a reason must be given."""
        return self._request(forced(cluster, action, nodes, reason, self.by))

    def pause(self, cluster: Any, duration: Any, reason: Any) -> Answered:
        """Pause a cluster, or all clusters if none is named.

        If the cluster is left out, the other arguments may have moved one place to the front.
        """
        if cluster is not None and not given.is_cluster(self.settings, cluster):
            if reason is None:
                cluster, duration, reason = None, cluster, duration
            elif duration is None:
                cluster, duration = None, cluster
        more = (
            f", at most {PAUSED_AT_MOST_S / 86400:g}d; "
            f"before it a cluster: {', '.join(sorted(self.settings.clusters))}"
        )
        for_s = seconds("duration", duration, more)
        return self.command(Verb.PAUSE, cluster=cluster, for_s=for_s, reason=reason)

    def command(
        self, verb: Verb, *, incident: Any = None, cluster: Any = None, **more: Any
    ) -> Answered:
        """Give one command. ``more`` are the other arguments of `forms.command`."""
        given.known_cluster(self.settings, cluster)
        attempt = None
        if verb in (Verb.APPROVE, Verb.REJECT):
            incident, attempt = given.attempt(incident)
        asked = forms.command(verb, by=self.by, incident=incident, cluster=cluster, **more)
        asked = replace(asked, attempt=attempt)
        if asked.nodes and asked.cluster is not None:
            given.known_nodes(self.settings, asked.cluster, asked.nodes)
        if asked.incident is not None:
            given.known_incident(self.ledger, asked.incident)
        return self._submitted(asked, _SOON if verb in (Verb.APPROVE, Verb.ACK) else _FIRST)

    def explain(self, cluster: Any, nodes: Any) -> explanation.Explanation | Answered:
        """Ask why something is being done or not. Returns an `Answered` only if the engine refuses to explain it."""
        if cluster is None:
            raise BadRequest("cluster: found nothing; allowed: the name of a configured cluster")
        answer = self.command(Verb.EXPLAIN, cluster=cluster, nodes=nodes)
        if answer.refused:
            return answer
        if answer.explained is not None:
            return explanation.of_engine(answer.explained)
        names = forms.command(Verb.EXPLAIN, by=self.by, cluster=cluster, nodes=nodes).nodes
        return explanation.at_start(self.settings, self.ledger, cluster, names, answer.why)

    def _request(self, asked: Request) -> Answered:
        self._refuse_impossible(asked)
        return self._submitted(asked, _LATER)

    def _refuse_impossible(self, asked: Request) -> None:
        """Refuse what the settings alone forbid, in the core's own words. This needs no running engine."""
        state, _ = begin(self.settings.policies(), self.settings.bounds(), {}, 0.0)
        # The core is asked as if the request were forced and named its nodes. Then the answer depends on nothing that
        # only a running engine knows.
        cluster = self.settings.clusters.get(asked.cluster)
        nodes = asked.nodes or (tuple(cluster.nodes) if cluster else ())
        _, effects = take_request(state, replace(asked, nodes=nodes, forced=True), 0.0)
        for effect in effects:
            if isinstance(effect, Answer) and effect.reply is Reply.REFUSED:
                raise BadRequest(effect.why)

    def _submitted(self, asked: Request | Command, down: str) -> Answered:
        """Put it into the inbox, and wait for the engine's answer. ``down`` tells what happens if no engine runs."""
        what: What = "command" if isinstance(asked, Command) else "request"
        alive = ledger_file.engine_alive(self.ledger)
        if isinstance(asked, Command) and asked.verb is Verb.EXPLAIN and not alive:
            return Answered(what, STORED, "the engine is not running", asked.id)
        inbox.ask(self.ledger, asked)
        until = time.monotonic() + (DECISION_WITHIN_S if alive else 0.0)
        with records.read(self.ledger) as db:
            while True:
                found = inbox.answer(db, asked.id)
                if found is not None:
                    return recorded(what, asked.id, found)
                if time.monotonic() >= until:
                    break
                time.sleep(LOOK_AGAIN_S)
        why = (
            f"no decision within {DECISION_WITHIN_S:g} s; {_LATER}"
            if alive
            else f"the engine is not running; {down}"
        )
        return Answered(what, STORED, why, asked.id)
