"""What comes from any door → one `Request` or `Command`. Forms are checked here; whether it is granted is the
core's business.

Nothing a caller writes is ever run or used as a target: the cluster is looked up by name, nodes must be
configured, the action must be one of three words.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from .healing.model import Command
from .healing.model import Request
from .healing.model import Verb
from .healing.model import clean

MAX_REASON = 500
MAX_PAUSE_S = 30 * 86400.0
_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_CLUSTER = re.compile(r"[\w.-]{1,64}")
_INCIDENT = re.compile(r"[\w.-]{1,64}-\d{1,12}")


class BadRequest(ValueError):
    """It has not the form of a request or of a command: what was found, what is allowed."""


def mint() -> str:
    """A fresh id."""
    return uuid.uuid4().hex


def _cluster(found: Any) -> str:
    if not isinstance(found, str) or not _CLUSTER.fullmatch(found):
        raise BadRequest(f"cluster: found {found!r:.80}; allowed: the name of a configured cluster")
    return found


def _nodes(found: Any) -> tuple[str, ...]:
    nodes = (
        [one.strip() for one in found.split(",") if one.strip()]
        if isinstance(found, str)
        else found
    )
    nodes = [] if nodes is None else nodes
    if not isinstance(nodes, (list, tuple)) or len(nodes) > 1000:
        raise BadRequest(f"nodes: found {nodes!r:.80}; allowed: a list of minion ids")
    if not all(isinstance(one, str) and len(one) <= 255 for one in nodes):
        raise BadRequest(f"nodes: found {nodes!r:.80}; allowed: a list of minion ids")
    return tuple(dict.fromkeys(nodes))


def _reason(found: Any) -> str:
    text = "" if found is None else clean(str(found))
    if len(text) > MAX_REASON:
        text = f"{text[:MAX_REASON]}… (cut from {len(text)} characters)"
    return text


def request(
    cluster: Any,
    action: Any = "highstate",
    nodes: Any = None,
    reason: Any = None,
    request: Any = None,
    *,
    door: str,
    asker: str,
) -> Request:
    """Check the form of a request. ``asker`` is who asks as far as that door can know.

    Raises BadRequest.
    """
    cluster = _cluster(cluster)
    if not isinstance(action, str) or len(action) > 40:
        raise BadRequest(f"action: found {action!r:.80}; allowed: highstate, restart, start")
    names = _nodes(nodes)
    if request is not None and not (isinstance(request, str) and _ID.fullmatch(request)):
        raise BadRequest(
            f"request: found {request!r:.80}; allowed: up to 100 of letters, digits, . _ : -"
        )
    return Request(
        id=request or mint(),
        cluster=cluster,
        action=action,
        nodes=names,
        reason=_reason(reason),
        door=door,
        asker=asker[:100],
    )


def command(
    verb: Verb,
    *,
    by: str,
    cluster: Any = None,
    incident: Any = None,
    nodes: Any = None,
    for_s: float = 0.0,
    reason: Any = None,
) -> Command:
    """Check the form of a command: what its verb needs is there. ``by`` is who gives it.

    Raises BadRequest.
    """
    if cluster is not None or verb in (Verb.LOCK, Verb.EXPLAIN):
        cluster = _cluster(cluster)
    if verb in (Verb.ACK, Verb.APPROVE, Verb.REJECT) and not (
        isinstance(incident, str) and _INCIDENT.fullmatch(incident)
    ):
        raise BadRequest(
            f"incident: found {incident!r:.80}; allowed: the id of an incident, such as runbook-7"
        )
    if verb is Verb.PAUSE and not 0 < for_s <= MAX_PAUSE_S:
        raise BadRequest(
            f"duration: found {for_s:g} s; allowed: more than 0, at most {MAX_PAUSE_S / 86400:g}d"
        )
    text = _reason(reason)
    if verb in (Verb.PAUSE, Verb.LOCK) and not text.strip():
        raise BadRequest(
            f"reason: found nothing; allowed: up to {MAX_REASON} characters, at least one word"
        )
    return Command(
        id=mint(),
        verb=verb,
        by=clean(by)[:100],
        cluster=cluster,
        incident=incident,
        nodes=_nodes(nodes),
        for_s=for_s,
        reason=text,
    )


def from_bus(tag: str, data: Mapping[str, Any]) -> Request:
    """A request that came as an event ``selfheal/request/<cluster>``.

    It proves only that somebody who may write to the bus sent it: the id is recorded as claimed.

    Raises BadRequest.
    """
    cluster = tag.split("/", 2)[2]
    inner = data.get("data")
    body = inner if isinstance(inner, dict) else data
    claimed = data.get("id")
    asker = f"{claimed} (claimed)" if isinstance(claimed, str) else "unknown"
    return request(
        cluster,
        body.get("action", "highstate"),
        body.get("nodes"),
        body.get("reason"),
        body.get("request"),
        door="bus",
        asker=asker,
    )
