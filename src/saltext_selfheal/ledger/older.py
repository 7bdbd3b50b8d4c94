"""Converts what older releases have written into the form of this release.

A state must be readable before its ledger is migrated. The runners read a ledger whose new engine has not run yet, and
the engine checks whether a ledger can be used before it changes anything in it.
"""

from __future__ import annotations

import json
from typing import Any

Body = dict[str, Any]


def body_of_4(text: str) -> str:
    """A cluster's state of schema 3 in the form of schema 4.

    In schema 3 a node's field ``slow`` was called ``late``. The shut gates that hold an incident were one text, and so
    was whether the system tables could be read. The ailments were a mapping by name. The cause of an incident, its
    approval and its turn were fields of the incident itself. Raises ValueError, KeyError, TypeError or AttributeError.
    """
    cluster: Body = json.loads(text)
    for node in (*cluster.get("nodes", {}).values(), *cluster.get("former", {}).values()):
        node["slow"] = node.pop("late", [])
    cluster["incidents"] = [_incident(one) for one in cluster.get("incidents", ())]
    cluster["recoveries"] = [_about(one) for one in cluster.get("recoveries", ())]
    ailments = cluster.get("ailments", {})
    cluster["ailments"] = [
        _about({**one, "issue": name.partition(":")[2]}) for name, one in ailments.items()
    ]
    status, _, why = cluster.pop("view", "not asked yet").partition(": ")
    asked = status != "not asked yet"
    cluster["tables"] = {"status": status, "why": why} if asked else {"status": None, "why": ""}
    return json.dumps(cluster, ensure_ascii=False, separators=(",", ":"))


def _about(body: Body) -> Body:
    """The same body, with fault and issue in one value, ``seen``."""
    fault, issue = body.pop("fault"), body.pop("issue", "")
    return {**body, "seen": {"fault": fault, "issue": issue}}


def _incident(body: Body) -> Body:
    """An incident of schema 3 in the form of schema 4."""
    held = body.get("held", "")
    body["only_told"] = held == "announce only"
    body["held"] = [] if body["only_told"] or not held else held.split(", ")
    body["turn"] = {
        "acting": body.pop("acting", []),
        "failed": body.pop("job_failed", []),
        "tried": body.pop("tried", []),
        "visited": body.pop("visited", []),
    }
    step, at, by, nodes = (
        body.pop(f"approved_{what}", None) for what in ("step", "at", "by", "nodes")
    )
    if step is not None:
        body["approval"] = {"step": step, "at": at, "by": by, "nodes": nodes}
    forced, by_hand, meant = (body.pop(what, None) for what in ("forced", "by_hand", "meant"))
    seen = _about(body)
    if by_hand:
        cause: Body = {"meant": meant}
    elif seen["seen"]["fault"] == "requested":
        cause = {"forced": bool(forced)}
    else:
        cause = seen["seen"]
    del seen["seen"]
    return {**seen, "cause": cause}
