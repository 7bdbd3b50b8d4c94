"""Makes one `Request` or `Command` of what comes through any door. Only its form is checked; the core decides about it.

Nothing that a caller writes is ever run or used as a target. The cluster is looked up by its name, nodes must be
configured, and the action must be one of the table's that may be asked for.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from ..driver.text import clean
from ..healing import ids, remedies
from ..healing.events import Command, Door, Request, Verb
from ..healing.model import PAUSED_AT_MOST_S
from .arguments import MOST_BITS, BadRequest, shown
from .names import quote

BUS_ID = "bus:"  #: the ids of requests that came by the bus begin with this

MAX_BODY = 64 * 1024
MAX_HEADER = 4096  #: characters of each of a signature's headers, and of the article's key
MAX_REASON = 500
MAX_ASKER = 100
MAX_NODES = 64
MAX_NODE = 255  #: characters of one node's name
MAX_NODES_TEXT = 4096  #: characters of all nodes together
#: An id has no colon, because a colon ends the prefix by which the doors' ids are told apart.
PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
PLAIN_ID_WORDS = "up to 100 of letters, digits, . _ -"
#: A reason that was cut already, by this code on a minion. It must not be cut again.
_CUT = re.compile(rf".{{{MAX_REASON}}}… \(cut from \d{{1,12}} characters\)")
_CLUSTER = re.compile(r"[\w.-]{1,64}")


def known_action(action: Any) -> None:
    """Raises BadRequest if there is no such action. A door that has nobody to answer asks this before it sends."""
    if action not in remedies.names():
        raise BadRequest(f"action: found {shown(action)}; allowed: {', '.join(remedies.names())}")


def mint() -> str:
    """A fresh id."""
    return uuid.uuid4().hex


def _cluster(found: Any) -> str:
    if not isinstance(found, str) or not _CLUSTER.fullmatch(found):
        raise BadRequest(
            f"cluster: found {shown(found)}; allowed: the name of a configured cluster{quote(found)}"
        )
    return found


def _nodes(found: Any) -> tuple[str, ...]:
    """The nodes that somebody names. An empty result means all nodes of a cluster, so only None is taken for that."""
    if found is None:
        return ()
    names = found
    if isinstance(found, str) and len(found) <= MAX_NODES_TEXT:
        names = [one.strip() for one in found.split(",") if one.strip()]
    if (
        not isinstance(names, (list, tuple))
        or len(names) > MAX_NODES
        or not all(isinstance(one, str) and len(one) <= MAX_NODE for one in names)
        or sum(map(len, names)) > MAX_NODES_TEXT
    ):
        odd = (
            [one for one in found[:MAX_NODES] if not isinstance(one, str)]
            if isinstance(found, list)
            else []
        )
        raise BadRequest(
            f"nodes: found {shown(found)}{f' with {shown(odd[0])} in it' if odd else ''}; allowed: a list of minion "
            f"ids, at most {MAX_NODES}, together up to {MAX_NODES_TEXT} characters{quote(found)}"
        )
    kept = tuple(dict.fromkeys(clean(one, MAX_NODE) for one in names))
    # An empty list is a mistake: it must not come to mean all nodes.
    if not any(one.strip() for one in kept):
        told = shown(found) if isinstance(found, str) else "an empty list"
        raise BadRequest(f"nodes: found {told}; allowed: minion ids, at least one")
    return kept


def _reason(found: Any) -> str:
    """The reason, cut to `MAX_REASON` characters. A note says that it was cut; it is not added twice."""
    huge = isinstance(found, int) and found.bit_length() > MOST_BITS
    if huge or (found is not None and not isinstance(found, (str, int, float, bool))):
        raise BadRequest(f"reason: found {shown(found)}; allowed: up to {MAX_REASON} characters")
    text = "" if found is None else str(found)
    kept = clean(text, 2 * MAX_REASON)
    if len(kept) <= MAX_REASON or _CUT.fullmatch(kept):
        return kept
    return f"{kept[:MAX_REASON]}… (cut from {len(text)} characters)"


def who(name: str) -> str:
    """The name of an asker as one line, cut to `MAX_ASKER` characters."""
    return clean(name, MAX_ASKER)


def request(
    cluster: Any,
    action: Any = remedies.USUAL.value,
    nodes: Any = None,
    reason: Any = None,
    request: Any = None,
    *,
    door: Door,
    asker: str,
    forced: bool = False,
) -> Request:
    """Check the form of a request, and make it. ``asker`` is who asks, as far as the door can know.

    Raises BadRequest.
    """
    cluster = _cluster(cluster)
    if not isinstance(action, str) or len(action) > 40:
        raise BadRequest(f"action: found {shown(action)}; allowed: {', '.join(remedies.names())}")
    names = _nodes(nodes)
    if request is not None and not (isinstance(request, str) and PLAIN_ID.fullmatch(request)):
        raise BadRequest(
            f"request: found {shown(request)}; allowed: {PLAIN_ID_WORDS}{quote(request)}"
        )
    return Request(
        id=request or mint(),
        cluster=cluster,
        action=clean(action, 40),
        nodes=names,
        reason=_reason(reason),
        door=door,
        asker=who(asker),
        forced=forced,
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
    """Check that a command has what its verb needs, and make it. ``by`` is who gives it.

    Raises BadRequest.
    """
    if cluster is not None or verb in (Verb.LOCK, Verb.EXPLAIN):
        cluster = _cluster(cluster)
    if verb in (Verb.ACK, Verb.APPROVE, Verb.REJECT) and not (
        isinstance(incident, str) and ids.INCIDENT.fullmatch(incident)
    ):
        attempt = "" if verb is Verb.ACK else ", or of its attempt, such as runbook-7.1"
        raise BadRequest(
            f"incident: found {shown(incident)}; allowed: the id of an incident, such as runbook-7{attempt}"
        )
    if verb is Verb.PAUSE and not 0 < for_s <= PAUSED_AT_MOST_S:
        raise BadRequest(
            f"duration: found {for_s:g} s; allowed: more than 0, at most {PAUSED_AT_MOST_S / 86400:g}d"
        )
    text = _reason(reason)
    if verb in (Verb.PAUSE, Verb.LOCK) and not text.strip():
        raise BadRequest(
            f"reason: found nothing; allowed: up to {MAX_REASON} characters, at least one word"
        )
    return Command(
        id=mint(),
        verb=verb,
        by=who(by),
        cluster=cluster,
        incident=incident,
        nodes=_nodes(nodes),
        for_s=for_s,
        reason=text,
    )


def refuse_null_nodes(body: Mapping[str, Any]) -> None:
    """Refuse ``nodes: null``. It comes from a template with an empty variable, and must not mean all nodes.

    Raises BadRequest.
    """
    if "nodes" in body and body["nodes"] is None:
        raise BadRequest("nodes: found null; allowed: minion ids, at least one, or no such key")
