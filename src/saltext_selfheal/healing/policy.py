"""The settings, in the form that the core uses. Durations are seconds, and their names end in ``_s``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .events import Seconds
from .faults import Fault
from .remedies import Action


class Mode(str, Enum):
    """How much the healer may do by itself."""

    OFF = "off"
    SHADOW = "shadow"
    APPROVE = "approve"
    AUTO = "auto"


@dataclass(frozen=True)
class Step:
    """One step of an escalation: an action that is not taken before ``after_s`` since the incident opened."""

    action: Action
    after_s: Seconds = 0.0
    mode: Mode | None = None


@dataclass(frozen=True)
class Policy:
    """All that the core needs to know of one cluster's settings."""

    name: str
    nodes: tuple[str, ...]
    minions: str
    mode: Mode = Mode.AUTO
    confirm_s: Mapping[Fault, Seconds] = field(default_factory=dict)
    poll_s: Seconds = 2.0
    timeout_s: Seconds = 2.0
    dead_witnessed_s: Seconds = (
        1.0  #: ``confirm`` of a death that the node's own minion has seen, too
    )
    witness_s: Seconds = 0.0  #: how long a minion's testimony is waited for; 0 = it is not asked
    #: How long a test run of a highstate is waited for before the real one; 0 = there is none.
    test_first_s: Seconds = 0.0
    observers_quorum: int = (
        0  #: so many observers must agree that a node is down; 0 = none is asked
    )
    observers_s: Seconds = 3.0  #: how long an observer's probe may take
    observers_always: bool = False  #: also where the node refuses the connection
    starting_s: Seconds = 600.0  #: how long a process may run without listening
    settle_s: Seconds = 45.0
    stable_s: Seconds = 30.0
    slow_above_s: Seconds = 0.0  #: 0 = not looked for
    slow_count: int = 3
    slow_of: int = 5
    foreign_grace_s: Seconds = 30.0  #: a job of somebody else counts for so long after its end
    foreign_most_s: Seconds = 900.0  #: … and is waited for no longer than this; 0 = not at all
    flapping_changes: int = 4  #: 0 = not looked for
    flapping_within_s: Seconds = 900.0
    flapping_quiet_s: Seconds = 1800.0
    canary: bool = False  #: a canary is sent through each node
    tables: tuple[str, ...] = ()  #: databases or db.table that must be available; empty = all
    escalation: Mapping[Fault, tuple[Step, ...]] = field(default_factory=dict)
    attempt_timeout_s: Seconds = 300.0
    verify_s: Seconds = 60.0
    cooldown_min_s: Seconds = 120.0
    cooldown_max_s: Seconds = 3600.0
    budget_attempts: int = 3  #: 0 = no budget
    budget_per_s: Seconds = 3600.0
    relapse_s: Seconds = 3600.0
    relapse_repeat: int = 1  #: how often a relapse is met with the step that had helped
    restart_needs_probe: bool = True
    #: How many requests may open an incident within ``request_per_s``. 0 = no limit.
    request_count: int = 6
    request_per_s: Seconds = 60.0


@dataclass(frozen=True)
class Limits:
    """Bounds over all clusters. 0 switches a bound off."""

    attempts: int = 10
    per_s: Seconds = 3600.0
    storm_share: float = 0.34
