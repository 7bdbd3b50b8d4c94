"""All times that are remembered, moved for a timeline that has jumped."""

import dataclasses
import typing
from collections.abc import Mapping

from saltext_selfheal.healing import model
from saltext_selfheal.healing.events import Request
from saltext_selfheal.healing.later import OTHER_NUMBERS, TIMES, later
from saltext_selfheal.healing.model import (
    Action,
    Attempt,
    Bar,
    ClusterState,
    Late,
    NodeState,
    Outcome,
    Pause,
    Pending,
    Step,
)


def classes(found, seen=()):
    """The dataclasses that a type is made of."""
    for part in typing.get_args(found):
        yield from classes(part, seen)
    if dataclasses.is_dataclass(found) and found not in seen:
        yield found
        for hint in typing.get_type_hints(found).values():
            yield from classes(hint, (*seen, found))


def holds_a_number(found):
    return found is float or any(map(holds_a_number, typing.get_args(found)))


def test_each_number_of_a_state_is_known_to_be_a_time_or_not():
    numbers = {
        name
        for one in classes(ClusterState)
        for name, hint in typing.get_type_hints(one).items()
        if holds_a_number(hint)
    }
    assert numbers == TIMES | OTHER_NUMBERS
    assert not TIMES & OTHER_NUMBERS


def test_each_time_is_moved_and_nothing_else():
    attempt = Attempt(
        "runbook-1.1", "runbook", "runbook-1", Action.RESTART, ("db1",), 0, 10.0, 11.0,
        results={"db1": (Outcome.DONE, "")},
    )  # fmt: skip
    node = NodeState(
        since=5.0, spent=(10.0, 20.0), seen=((model.Fault.DEAD, 4.0),), cooldown_until=0.0, started_at=77.0,
        bars=(Bar(Action.HIGHSTATE, 30.0, 2, "x"),),
    )  # fmt: skip
    request = Request("r1", "runbook", "restart", at=3.0)
    before = ClusterState(
        "runbook",
        {"db1": node},
        attempt=attempt,
        late=(Late(attempt, 12.0, True),),
        pause=Pause(50.0, "ann", "x"),
        asked=((6.0, "bus"),),
        pending=(Pending(request, 8.0),),
        serial=7,
    )
    after = later(before, 1000.0)
    moved = after.nodes["db1"]
    assert (moved.since, moved.spent, moved.seen) == (
        1005.0,
        (1010.0, 1020.0),
        ((model.Fault.DEAD, 1004.0),),
    )
    assert moved.cooldown_until == 0.0  # never
    assert moved.started_at == 77.0  # by the server's own clock
    assert moved.bars == (Bar(Action.HIGHSTATE, 1030.0, 2, "x"),)
    assert (after.attempt.decided_at, after.attempt.fired_at) == (1010.0, 1011.0)
    assert after.attempt.results == {"db1": (Outcome.DONE, "")}
    assert after.late[0].ended_at == 1012.0
    assert after.pause == Pause(1050.0, "ann", "x")
    assert after.asked == ((1006.0, "bus"),)
    assert (after.pending[0].since, after.pending[0].request.at) == (1008.0, 1003.0)
    assert after.serial == 7
    assert isinstance(after.nodes, Mapping)
    assert later(Step(Action.RESTART, 5.0), 1000.0) == Step(Action.RESTART, 5.0)
    assert later(before, 0.0) == before
