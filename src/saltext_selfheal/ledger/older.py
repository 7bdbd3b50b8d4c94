"""What older releases have written, in the form of this one.

A state is read before its ledger is brought up: the runners look into a ledger whose engine has not run yet, and the
engine looks whether a ledger can be used before it changes anything in it.
"""

from __future__ import annotations

import json
from typing import Any

Body = dict[str, Any]


def body_of_4(text: str) -> str:
    """A cluster's state of schema 3 as schema 4 has it.

    Which answers of a node were slow was called late; what holds an incident was a text, and whether the system tables could be read was one; the ailments were a mapping by
    name; what an incident is about, a person's yes to a step, and which nodes have had their turn, were fields of the
    incident itself. Raises ValueError, KeyError, TypeError or AttributeError.
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
    """What was seen in one value."""
    fault, issue = body.pop("fault"), body.pop("issue", "")
    return {**body, "seen": {"fault": fault, "issue": issue}}


def _incident(body: Body) -> Body:
    held = body.get("held", "")
    body["held"] = held.split(", ") if held else []
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
