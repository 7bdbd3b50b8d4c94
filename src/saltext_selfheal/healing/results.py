"""What a minion's result of a job means. There is one reader for each shape of result (Salt 3006 to 3008).

A reader gets what the function returned, its return code, and, for a look, the JID that was looked for. It gives the
outcome and a detail for people. A reader cannot know whether a result is true: any minion can store one under another's
name.
"""

from __future__ import annotations

import re
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
    STUCK = "stuck"  #: a process that nothing can end: nothing may be started beside it
    FORBIDDEN = "forbidden"  #: somebody's word keeps the minion from running it: nothing was done


Reader = Callable[[Any, Any, "str | None"], "tuple[Outcome, str]"]


#: What a minion answers to every job while a person has put it into blackout.
_BLACKOUT = "Minion in blackout mode"
#: What it answers to a function that it does not have. Its exit code is 254 then.
_NOT_AVAILABLE = re.compile(r"'[\w.]+' (is not available|__virtual__ returned False)")
#: The states' dict of a highstate for which nothing is assigned to the minion.
_NO_STATES = "no_|-states_|-states_|-None"
#: A disabled run gives a dict of these three texts. Its name says what is disabled.
_SAYS = {"name", "result", "comment"}


def shown(value: Any, most: int) -> str:
    """What a minion has returned, as text of at most ``most`` characters. Python refuses to write some values."""
    try:
        return str(value)[:most]
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} that cannot be written"


def common(result: Any, retcode: Any) -> tuple[Outcome, str] | None:
    """What any function's result may mean before it has run at all. None: it has run."""
    text = result if isinstance(result, str) else ""
    if _BLACKOUT in text:
        return (
            Outcome.FORBIDDEN,
            "the minion is in blackout (minion_blackout in its pillar or grains)",
        )
    if retcode == 254 or _NOT_AVAILABLE.match(text):
        return Outcome.FAILED, f"the minion does not have this function: {text[:300]}"
    if result is None:
        return Outcome.FAILED, "it has returned nothing"
    return None


def states(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of a state run: a dict of states if it ran, a list of sentences if it did not.

    It does not run if another state run is active, if the states do not compile, or if a person has disabled it.
    """
    before = common(result, retcode)
    if before is not None:
        return before
    if isinstance(result, list):
        told = "; ".join(shown(one, 500) for one in result[:20])[:500]
        if "is running as PID" in told:
            return Outcome.BUSY, told
        return Outcome.FAILED, told
    if not isinstance(result, dict):
        return Outcome.FAILED, shown(result, 500)
    if set(result) == _SAYS and all(isinstance(one, str) for one in result.values()):
        if "is disabled" in result["name"]:
            return Outcome.FORBIDDEN, (
                "highstate is disabled on the minion: state.list_disabled shows it, state.enable ends it"
            )
        return Outcome.FAILED, f"{result['name']}: {result['comment']}"[:500]
    if not result or set(result) == {_NO_STATES}:
        return Outcome.FAILED, "no state is assigned to this minion (see its top file)"
    return _state_results(result, retcode)


def _state_results(result: dict[Any, Any], retcode: Any) -> tuple[Outcome, str]:
    """Read the dict of a state run that has run."""
    ran = [s for s in result.values() if isinstance(s, dict)]
    bad = [s for s in ran if s.get("result") is False]
    tested = [s for s in ran if s.get("result", True) is None]
    if len(ran) < len(result):
        return Outcome.FAILED, f"this is no result of states: {shown(result, 300)}"
    if bad:
        first = shown(bad[0].get("comment", ""), 300)
        return Outcome.FAILED, f"{len(bad)} of {len(result)} states failed: {first}"
    if tested:
        told = f"{len(tested)} of {len(result)} states were only tested"
        return Outcome.FAILED, f"{told}: is test: True set on the minion?"
    if retcode:
        return Outcome.FAILED, f"retcode {retcode}, although none of {len(result)} states failed"
    return Outcome.DONE, f"{len(result)} states"


def test_run(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of a state run in test mode: whether it has run. What it would change, `changes` says."""
    before = common(result, retcode)
    if before is not None:
        return before
    if isinstance(result, dict) and result and set(result) not in (_SAYS, {_NO_STATES}):
        return Outcome.DONE, f"{len(result)} states"
    outcome, told = states(result, retcode, of_jid)
    return (Outcome.FAILED if outcome is Outcome.DONE else outcome), told


def yes(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of a function that returns True when it has done its work."""
    before = common(result, retcode)
    if before is not None:
        return before
    if result is True and not retcode:
        return Outcome.DONE, ""
    if result is False:
        return Outcome.FAILED, "the service manager says that it did not work"
    return Outcome.FAILED, shown(result, 500)


def forced(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of ``selfheal.force_restart``."""
    before = common(result, retcode)
    if before is not None:
        return before
    if not isinstance(result, dict) or result.get("version") != 1:
        return Outcome.FAILED, shown(result, 500)
    why = shown(result.get("why") or "", 500)
    if result.get("stuck") is True:
        return Outcome.STUCK, why or "a process survives SIGKILL"
    done = result.get("done") is True and not retcode
    return (Outcome.DONE if done else Outcome.FAILED), why


def running(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of ``saltutil.running``: busy if the job that is looked for runs, or if that cannot be told."""
    before = common(result, retcode)
    if before is not None and before[0] is Outcome.FORBIDDEN:
        return before
    if not isinstance(result, list):
        return Outcome.BUSY, f"no answer to what it runs: {shown(result, 200)}"
    if of_jid is None:
        return Outcome.BUSY, "the ledger cannot tell now which job is looked for"
    ours = [j for j in result if isinstance(j, dict) and j.get("jid") == of_jid]
    return (Outcome.BUSY, "the job still runs") if ours else (Outcome.DONE, "the job does not run")


def testimony(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of ``selfheal.witness``: whether the minion has told anything. What it means, `testimony` says."""
    before = common(result, retcode)
    if before is not None:
        return before
    if isinstance(result, dict) and result.get("version") == 1:
        return Outcome.DONE, ""
    return Outcome.FAILED, f"this is no testimony: {shown(result, 200)}"


def salt_testimony(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of a job of several functions of Salt's own: whether any has told something.

    One that the minion does not have, or that failed, tells a sentence.
    """
    before = common(result, retcode)
    if before is not None:
        return before
    if isinstance(result, dict) and any(isinstance(v, (bool, dict, list)) for v in result.values()):
        return Outcome.DONE, ""
    return Outcome.FAILED, f"none of Salt's functions has told anything: {shown(result, 200)}"


def sighting(result: Any, retcode: Any, of_jid: str | None) -> tuple[Outcome, str]:
    """Read the result of ``selfheal.probe``: whether the minion has looked at all. What it means, `sighting` says."""
    before = common(result, retcode)
    if before is not None:
        return before
    if isinstance(result, dict) and isinstance(result.get("well"), bool):
        return Outcome.DONE, ""
    return Outcome.FAILED, f"this is no look at a node: {shown(result, 200)}"
