"""What a minion's result of a job means. There is one reader for each shape of result (Salt 3006 to 3008).

A reader gets what the function returned, its return code, and, for a look, the JID that was looked for. It gives the
outcome and a detail for people. A reader cannot know whether a result is true: any minion can store one under another's
name.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any


class Outcome(str, Enum):
    """The outcome of a job on one minion, or of a whole attempt."""

    DONE = "done"
    FAILED = "failed"
    BUSY = "busy"
    TIMED_OUT = "timed_out"
    LOST = "lost"


Reader = Callable[[Any, Any, "str | None"], "tuple[Outcome, str]"]


def states(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of a state run: a dict of states if it ran, a list of sentences if it did not.

    It does not run if another state run is active, or if the states do not compile.
    """
    if isinstance(result, list):
        told = "; ".join(str(one) for one in result)[:500]
        return (Outcome.BUSY if "is running as PID" in told else Outcome.FAILED), told
    if not isinstance(result, dict):
        return Outcome.FAILED, str(result)[:500]
    bad = [s for s in result.values() if isinstance(s, dict) and s.get("result") is False]
    if not retcode and not bad:
        return Outcome.DONE, f"{len(result)} states"
    first = str(bad[0].get("comment", ""))[:300] if bad else f"retcode {retcode}"
    return Outcome.FAILED, f"{len(bad)} of {len(result)} states failed: {first}"


def yes(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of a function that returns True when it has done its work."""
    if result is True and not retcode:
        return Outcome.DONE, ""
    return Outcome.FAILED, str(result)[:500]


def running(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of ``saltutil.running``: busy if the job that is looked for runs, or if that cannot be told."""
    if not isinstance(result, list):
        return Outcome.BUSY, f"no answer to what it runs: {str(result)[:200]}"
    if of_jid is None:
        return Outcome.BUSY, "the ledger cannot tell now which job is looked for"
    ours = [j for j in result if isinstance(j, dict) and j.get("jid") == of_jid]
    return (Outcome.BUSY, "the job still runs") if ours else (Outcome.DONE, "the job does not run")
