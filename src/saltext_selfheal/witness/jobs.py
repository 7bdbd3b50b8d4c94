"""Which jobs that change something run on this minion, whoever has ordered them. Their arguments are not told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..driver.functions import changing

MOST_JOBS = 8  #: so many are named; a list of so many may have been cut


def running(ask: Callable[[], Any]) -> list[dict[str, str]] | None:
    """The JID, function and user of each. None: it could not be told. ``ask`` is Salt's `saltutil.running`.

    This very job is not among them: it changes nothing.
    """
    found = ask()
    if not isinstance(found, list):
        return None
    told: list[dict[str, str]] = []
    for one in found:
        if not isinstance(one, Mapping) or not one.get("jid"):
            continue
        what = changing(one.get("fun"), one.get("arg"))
        if what and len(told) < MOST_JOBS:
            told.append({"jid": str(one["jid"]), "fun": what, "user": str(one.get("user") or "")})
    return told
