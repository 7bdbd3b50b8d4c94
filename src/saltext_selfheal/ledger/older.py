"""What older releases have written, in the form of this one.

A state is read before its ledger is brought up: the runners look into a ledger whose engine has not run yet, and the
engine looks whether a ledger can be used before it changes anything in it.
"""

from __future__ import annotations

import json
from typing import Any


def body_of_4(text: str) -> str:
    """A cluster's state of schema 3 as schema 4 has it.

    What holds an incident was a text, and whether the system tables could be read was one; the ailments were a mapping by
    name; a person's yes to a step, and which nodes have had their turn, were fields of the incident itself. Raises
    ValueError, KeyError, TypeError or AttributeError.
    """
    cluster: dict[str, Any] = json.loads(text)
    for incident in cluster.get("incidents", ()):
        held = incident.get("held", "")
        incident["held"] = held.split(", ") if held else []
        incident["turn"] = {
            new: incident.pop(name, [])
            for name, new in (
                ("acting", "acting"), ("job_failed", "failed"), ("tried", "tried"), ("visited", "visited"),
            )
        }  # fmt: skip
        step, at, by, nodes = (
            incident.pop(f"approved_{what}", None) for what in ("step", "at", "by", "nodes")
        )
        if step is not None:
            incident["approval"] = {"step": step, "at": at, "by": by, "nodes": nodes}
    ailments = cluster.get("ailments", {})
    cluster["ailments"] = [
        {**one, "issue": name.partition(":")[2]} for name, one in ailments.items()
    ]
    status, _, why = cluster.pop("view", "not asked yet").partition(": ")
    asked = status != "not asked yet"
    cluster["tables"] = {"status": status, "why": why} if asked else {"status": None, "why": ""}
    return json.dumps(cluster, ensure_ascii=False, separators=(",", ":"))
