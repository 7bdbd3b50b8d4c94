"""Ending by force what a restart waits for: when that is due, where it cannot be done, and where it was of no use.

A service manager may wait for ever for a process that does not end; RethinkDB's packaged init script does. Then the job of
the restart does not end either. What ends the process ends that job, too, so this one action may go to a minion where a
restart of ours still runs.
"""

from __future__ import annotations

from . import looks
from .conditions import still_running, verdict
from .model import Action, Outcome
from .remedies import OWN_FUNCTIONS, TABLE
from .sight import Sight


def bare(s: Sight) -> tuple[str, ...]:
    """Nodes that wait for the present step, whose minions do not have the function that it needs."""
    if s.step is None or not TABLE[s.step.action].runs.startswith(OWN_FUNCTIONS):
        return ()
    return tuple(n for n in s.untried if s.cluster.nodes[n].bare)


def cannot_run(s: Sight) -> bool:
    """The present step needs this package, and none of the nodes that wait for it has it on its minion."""
    return not s.requested and bool(s.untried) and set(bare(s)) == set(s.untried)


def stuck(s: Sight) -> bool:
    """A process survives even SIGKILL, so nothing may be started beside it."""
    return verdict(s) is Outcome.STUCK


def hangs(s: Sight) -> bool:
    """The job has not come back in time, its minion says that it still runs, and the next step ends what it waits for."""
    attempt, look = s.attempt, s.cluster.look
    if attempt is None or look is None or not still_running(s):
        return False
    if not looks.ends_by_force(Action.FORCE_RESTART, attempt):
        return False
    following = s.incident.steps[s.incident.step + 1 :][:1]
    forced = bool(following) and following[0].action is Action.FORCE_RESTART
    return forced and any(outcome is Outcome.BUSY for outcome, _ in look.results.values())
