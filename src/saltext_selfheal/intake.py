"""A request from any door → one `Request`. Forms are checked here; whether it is granted is the core's business.

Nothing a caller writes is ever run or used as a target: the cluster is looked up by name, nodes must be
configured, the action must be one of three words.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from .healing.model import Request
from .healing.model import clean

MAX_REASON = 500
_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_CLUSTER = re.compile(r"[\w.-]{1,64}")


class BadRequest(ValueError):
    """The request has not the form of one: what was found, what is allowed."""


def mint() -> str:
    """A fresh request id."""
    return uuid.uuid4().hex


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
    if not isinstance(cluster, str) or not _CLUSTER.fullmatch(cluster):
        raise BadRequest(
            f"cluster: found {cluster!r:.80}; allowed: the name of a configured cluster"
        )
    if not isinstance(action, str) or len(action) > 40:
        raise BadRequest(f"action: found {action!r:.80}; allowed: highstate, restart, start")
    if isinstance(nodes, str):
        nodes = [one.strip() for one in nodes.split(",") if one.strip()]
    nodes = [] if nodes is None else nodes
    if not isinstance(nodes, (list, tuple)) or len(nodes) > 1000:
        raise BadRequest(f"nodes: found {nodes!r:.80}; allowed: a list of minion ids")
    if not all(isinstance(one, str) and len(one) <= 255 for one in nodes):
        raise BadRequest(f"nodes: found {nodes!r:.80}; allowed: a list of minion ids")
    if request is not None and not (isinstance(request, str) and _ID.fullmatch(request)):
        raise BadRequest(
            f"request: found {request!r:.80}; allowed: up to 100 of letters, digits, . _ : -"
        )
    text = "" if reason is None else clean(str(reason))
    if len(text) > MAX_REASON:
        text = f"{text[:MAX_REASON]}… (cut from {len(text)} characters)"
    return Request(
        id=request or mint(),
        cluster=cluster,
        action=action,
        nodes=tuple(dict.fromkeys(nodes)),
        reason=text,
        door=door,
        asker=asker[:100],
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
