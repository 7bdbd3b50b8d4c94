"""What the rows of `table.TRANSITIONS` do to learn more: minions are asked, and nodes that need nothing are left out.

As in `deeds`, each function takes a `Sight` and returns the cluster and the incident as they are afterwards, and the effects.
Nothing here changes anything on a minion or costs a budget.
"""

from __future__ import annotations

from dataclasses import replace

from . import observers, questions
from .conditions import tests_due
from .deeds import Change
from .model import Action, Fire
from .sight import Sight


def ask_observers(s: Sight) -> Change:
    """Ask the observers about the nodes of the next step."""
    assert s.intent is not None
    names = observers.due(s.state, s.intent, s.now)
    return observers.ask(s.state, s.cluster, s.incident, names, s.now)


def test_first(s: Sight) -> Change:
    """Have a highstate run in test mode on the nodes that it is meant for. That changes nothing and costs no budget."""
    assert s.intent is not None
    cluster, incident, fired = s.cluster, s.incident, []
    for name in tests_due(s):
        cluster, incident, question = questions.pose(
            cluster, incident, Action.TEST_HIGHSTATE, name, (name,), s.now
        )
        node = replace(cluster.nodes[name], foreseen_at=s.now)
        cluster = cluster.with_nodes({name: node})
        fired.append(Fire(question))
    return cluster, incident, tuple(fired)


def leave_out(s: Sight) -> Change:
    """The nodes on which a highstate would change nothing count as having had it."""
    turn = s.incident.turn
    had = tuple(n for n in s.met if n in s.untried)
    return s.cluster, replace(s.incident, turn=replace(turn, tried=(*turn.tried, *had))), ()
