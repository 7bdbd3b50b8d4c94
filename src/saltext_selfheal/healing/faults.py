"""What can be wrong with a node or a cluster."""

from __future__ import annotations

from enum import Enum


class Fault(str, Enum):
    """What is wrong with a node, or, for those in `CLUSTER_WIDE`, with its cluster."""

    DEAD = "dead"
    HUNG = "hung"
    STALLED = "stalled"
    UNREACHABLE = "unreachable"
    STARTING = "starting"  #: its process runs and does not listen yet
    UNAVAILABLE = "unavailable"
    PARTITIONED = "partitioned"
    CUT_OFF = "cut_off"
    MISTAKEN = "mistaken"
    AUTH = "auth"
    TLS = "tls"
    ALIEN = "alien"
    SLOW = "slow"
    ISSUE = "issue"


#: Faults of a cluster as a whole. They are seen in its system tables, not by dialling one node.
CLUSTER_WIDE = frozenset({Fault.UNAVAILABLE, Fault.PARTITIONED, Fault.ISSUE})
