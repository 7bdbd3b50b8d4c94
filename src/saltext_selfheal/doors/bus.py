"""The doors on Salt's event bus: plain requests, signed webhooks, and calls of the article's interface.

Any minion can put any event there. If something is wrong with an event, it is logged, and nothing else happens.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..config import ClusterSettings, EngineSettings
from ..driver.tags import HOOK, NETAPI, REQUEST
from ..healing import remedies
from ..healing.events import Door, Request
from . import forms
from .arguments import BadRequest, Dropped, refuse_unknown, salts_own, shown
from .flow import Flow, Flows
from .forms import BUS_ID, refuse_null_nodes, who
from .formula import PATHS, Formula
from .names import is_text, turned_back
from .webhook import Caller, Hooks

log = logging.getLogger(__name__)

TELL_EVERY_S = 10.0  #: dropped events of the bus and of the article's interface are logged in one line per this time
TELL_CALLER_EVERY_S = 60.0  #: dropped webhooks of one caller are logged in one line per this time
BUS_FLOW = Flow(600, 1.0)  #: how many requests on the bus are taken, per cluster
#: The keys that a request on the bus may have.
_ASKED = ("action", "nodes", "reason", "request")
#: The keys of the frame that Salt puts around a minion's event. A master's own event has no frame (3006 to 3008).
_FRAME = ("id", "cmd", "tag", "pretag", "data")
_FRAMED = "_minion_event"
#: Keys that Salt adds to any event, and ``id``, the sender's name as the sender claims it.
_STAMPS = ("_stamp", "__peer_id", "id")


def doors(
    settings: EngineSettings,
    resolve: Callable[[Any, str], Iterable[str]],
    clock: Callable[[], float] = time.monotonic,
) -> Doors:
    """The doors that the settings open."""
    key = settings.formula_secretkey
    return Doors(
        [
            Caller(name, hook.secret.get_secret_value(), tuple(hook.clusters), tuple(hook.actions))
            for name, hook in settings.webhooks.items()
        ],
        settings.clusters,
        key.get_secret_value() if key else None,
        resolve,
        clock,
    )


class Doors:
    """Turns events of the bus into requests, on the thread that listens. What is wrong with an event is only logged.

    ``resolve`` turns a Salt target and its kind into minion ids. Only the article's interface needs it. That interface
    is closed without ``formula_key``.
    """

    def __init__(
        self,
        callers: Iterable[Caller] = (),
        clusters: Mapping[str, ClusterSettings] | None = None,
        formula_key: str | None = None,
        resolve: Callable[[Any, str], Iterable[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clusters = clusters or {}
        self._flows = flows = Flows(clock)
        self._hooks = Hooks(callers, flows, self._clusters)
        self._formula = (
            Formula(formula_key, self._clusters, resolve, flows)
            if formula_key and resolve
            else None
        )
        self._clock = clock
        #: source of what was dropped → when that was told last, and how often it was not told since
        self._told: dict[str, tuple[float, int]] = {}

    @property
    def tags(self) -> str:
        """A regular expression that matches the tags to listen to."""
        tags = [re.escape(REQUEST)]
        if self._hooks:
            tags.append(re.escape(HOOK))
        if self._formula:
            tags += [f"{re.escape(NETAPI)}{path}(/|$)" for path in PATHS]
        return f"^(?:{'|'.join(tags)})"

    def take(self, tag: str, data: Mapping[str, Any]) -> list[Request]:
        """The requests in one event. None if the event has not the right form, or is not signed where it must be."""
        try:
            if tag.startswith(REQUEST):
                # Only the cluster's name is looked at before the flow is checked, so that a flood costs little.
                cluster = tag[len(REQUEST) :]
                if cluster not in self._clusters:
                    raise BadRequest(
                        f"cluster: found {shown(cluster)}; allowed: the name of a configured cluster"
                    )
                self._flows.take(f"the bus for {cluster}", BUS_FLOW)
                return [from_bus(tag, _with_names(data, self._clusters[cluster].nodes))]
            if tag.startswith(HOOK):
                return [self._hooks.take(tag, data)]
            if self._formula is None:
                raise BadRequest("the article's interface is closed")
            return self._formula.take(tag, data)
        except BadRequest as exc:
            self._tell(tag, str(exc), exc.caller if isinstance(exc, Dropped) else "")
        except Exception as exc:  # no data from outside may end the listener
            self._tell(tag, f"{type(exc).__name__} while it was read")
        return []

    def _tell(self, tag: str, why: str, caller: str = "") -> None:
        """Log what was dropped. Each caller has lines of its own, so that nobody's flood hides why it is not heard."""
        hook = tag.startswith(HOOK)
        source, every_s = (f"{HOOK}{caller}", TELL_CALLER_EVERY_S) if hook else ("", TELL_EVERY_S)
        now = self._clock()
        told_at, untold = self._told.get(source, (-every_s, 0))
        if now - told_at < every_s:
            self._told[source] = (told_at, untold + 1)
            return
        self._told[source] = (now, 0)
        more = f" (and {untold} more in the last {now - told_at:.0f} s)" if untold else ""
        by = f" of {caller}" if caller else ""
        log.warning("selfheal: a request%s on %.100r was dropped: %s%s", by, tag, why, more)


def from_bus(tag: str, data: Mapping[str, Any]) -> Request:
    """A request that came as an event ``selfheal/request/<cluster>``.

    The event proves only that somebody who may write to the bus has sent it. So the sender's name is recorded as
    claimed. And the request's id gets a prefix of its own, so that nobody can use up the id of another door's request
    before it comes.

    Raises BadRequest.
    """
    cluster = tag.split("/", 2)[2]
    body = _event(data)
    claimed = data.get("id")
    # The name is cut here, so that the word "claimed" after it is never cut off.
    asker = f"{who(claimed)[:80]} (claimed)" if isinstance(claimed, str) else "unknown"
    found = forms.request(
        cluster,
        body.get("action", remedies.USUAL.value),
        body.get("nodes"),
        body.get("reason"),
        body.get("request"),
        door=Door.BUS,
        asker=asker,
    )
    return replace(found, id=f"{BUS_ID}{found.id}")


def _with_names(data: Mapping[str, Any], known: Iterable[str]) -> Mapping[str, Any]:
    """The event with the nodes' names as text, where YAML or JSON has turned them into something else.

    Raises BadRequest if it cannot be told which name was meant.
    """
    inner = data.get("data")
    body = inner if isinstance(inner, dict) else data
    if body.get("nodes") is None or is_text(body["nodes"]):
        return data
    body = {**body, "nodes": turned_back("nodes", body["nodes"], known)}
    return {**data, "data": body} if isinstance(inner, dict) else body


def _event(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request in an event, with or without Salt's frame around it.

    Raises BadRequest if a key is not known.
    """
    body, inner = data, data.get("data")
    known: tuple[str, ...] = (*_ASKED, *_STAMPS)
    if isinstance(inner, dict):
        # Another release of Salt may add keys to the frame of a minion's event, so unknown ones are accepted there. But
        # the request's own keys must be inside the frame.
        frame = [key for key in data if key in _ASKED or data.get("cmd") != _FRAMED]
        refuse_unknown("event", frame, (*_FRAME, *_STAMPS))
        body, known = inner, _ASKED
    refuse_unknown(
        "event", [key for key in body if not salts_own(key) and key not in known], _ASKED
    )
    refuse_null_nodes(body)
    return body
