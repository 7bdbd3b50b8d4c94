"""Which steps are tried against which fault, and how long a node rests afterwards. Pure.

The default escalations are only here. The settings may replace them per fault, within what `remedies` allows.
"""

from __future__ import annotations

from .events import Seconds
from .model import Action, Fault, Incident, Policy, Step
from .remedies import forbidden

#: The steps by default. A fault without steps is announced and left to people.
DEFAULT: dict[Fault, tuple[Step, ...]] = {
    # A start cannot harm a dead process. A highstate may change more than what is broken, so it comes only when a
    # restart did not help.
    Fault.DEAD: (Step(Action.RESTART), Step(Action.HIGHSTATE), Step(Action.RESTART)),
    # A service manager may wait for ever for a process that does not end.
    Fault.HUNG: (Step(Action.RESTART), Step(Action.FORCE_RESTART)),
    Fault.STALLED: (Step(Action.RESTART), Step(Action.FORCE_RESTART)),
    Fault.UNREACHABLE: (),
    Fault.STARTING: (),
    Fault.UNAVAILABLE: (Step(Action.HIGHSTATE),),
    Fault.PARTITIONED: (),
    Fault.CUT_OFF: (),
    Fault.MISTAKEN: (),
    Fault.AUTH: (Step(Action.HIGHSTATE),),
    Fault.TLS: (Step(Action.HIGHSTATE),),
    Fault.ALIEN: (Step(Action.HIGHSTATE),),
    Fault.SLOW: (),
    Fault.ISSUE: (),
}


def for_every_fault(steps: tuple[Step, ...]) -> dict[Fault, tuple[Step, ...]]:
    """One list of steps for all faults.

    It replaces the default of each fault that has one. Actions that `remedies` forbids against a fault are left out. A
    fault without default steps stays without steps.
    """
    return {
        fault: tuple(s for s in steps if s.action not in forbidden(fault)) if default else ()
        for fault, default in DEFAULT.items()
    }


def steps_against(policy: Policy, incident: Incident) -> tuple[Step, ...]:
    """The steps against the incident's fault, from the settings or by default. A request brings its own step."""
    fault = incident.fault
    return () if fault is None else policy.escalation.get(fault, DEFAULT[fault])


def rest_s(policy: Policy, relapses: int) -> Seconds:
    """How long a node rests after an attempt: the minimum, doubled per relapse, up to the maximum."""
    if relapses >= 32:  # 2**32 times any minimum is more than any maximum
        return policy.cooldown_max_s
    return min(policy.cooldown_max_s, policy.cooldown_min_s * float(2**relapses))


def repeats(steps: tuple[Step, ...], index: int) -> int:
    """How many steps right before this one have the same action."""
    again = 0
    while 0 < index < len(steps) and steps[index].action is steps[index - 1].action:
        again, index = again + 1, index - 1
    return again


def first_step(helped: int, repeated: int, most: int, steps: tuple[Step, ...]) -> tuple[int, int]:
    """Where a relapse starts, and how many relapses in a row have begun at that step then.

    The step that had ``helped`` is tried again first: it is the one that is known to bring the service back. After
    ``most`` such tries, of which there were ``repeated``, the next step is due, or the last one if none follows.
    """
    last = max(0, len(steps) - 1)
    if repeated < most:
        return max(0, min(helped, last)), repeated + 1
    return max(0, min(helped + 1, last)), 0
