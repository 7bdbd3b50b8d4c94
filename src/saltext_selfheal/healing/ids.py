"""The ids of incidents, attempts and looks: made and read here only.

``runbook-7`` is the seventh incident of the cluster ``runbook``, ``runbook-7.1`` its first attempt, and
``runbook-7.1-look-db1-1`` the first look at that attempt's job on ``db1``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_INCIDENT = r"(?P<cluster>[\w.-]{1,64})-(?P<serial>[0-9]{1,12})"
#: The form of an incident's id.
INCIDENT = re.compile(_INCIDENT)
_NAMED = re.compile(rf"(?P<incident>{_INCIDENT})(\.(?P<attempt>[0-9]{{1,9}}))?")


class Named(NamedTuple):
    """What an id names."""

    incident: str
    cluster: str
    attempt: int | None  #: its number, counted from 1. None: the id is that of the incident


def incident(cluster: str, serial: int) -> str:
    """The id of a cluster's incident of this number, counted from 1."""
    return f"{cluster}-{serial}"


def attempt(incident: str, number: int) -> str:
    """The id of an incident's attempt of this number, counted from 1."""
    return f"{incident}.{number}"


def look(attempt: str, which: str) -> str:
    """The id of a look at an attempt's job. ``which`` tells it from other looks at the same job."""
    return f"{attempt}-look-{which}"


def question(incident: str, what: str, node: str, number: int) -> str:
    """The id of an incident's question of this number. ``what`` is its action, and ``node`` the node it is about."""
    return f"{incident}-{what}-{node}-{number}"


def read(text: str) -> Named | None:
    """What the id of an incident or of an attempt names. None if it is neither."""
    found = _NAMED.fullmatch(text)
    if found is None:
        return None
    number = found["attempt"]
    return Named(found["incident"], found["cluster"], int(number) if number else None)
