"""What a caller may order of `selfheal.force_restart`. Everything else is refused, before anything is touched.

No Salt here, and nothing of `config`, as in `witness`.
"""

from __future__ import annotations

from typing import Any

from . import witness
from .arguments import BadRequest, shown

LEAST_STOP_S, MOST_STOP_S = 1, 600
#: After the stop's deadline there must be time for SIGKILL and the start.
LEAST_REST_S, MOST_S = 10, 3600
LAST_MOMENT_S = 253402300799  #: the end of the year 9999


def ordered(
    service: Any, port: Any, stop_timeout: Any, not_after: Any, timeout: Any
) -> tuple[str, int, float, float | None, float | None]:
    """The same five, if they make an order. Raises BadRequest."""
    service, port, _ = witness.asked(service, port, witness.LEAST_S)
    if not _number(stop_timeout) or not LEAST_STOP_S <= stop_timeout <= MOST_STOP_S:
        raise BadRequest(
            f"stop_timeout: found {shown(stop_timeout)}; allowed: seconds, from {LEAST_STOP_S} to {MOST_STOP_S}"
        )
    if not_after is not None and not (_number(not_after) and 0 < not_after <= LAST_MOMENT_S):
        raise BadRequest(
            f"not_after: found {shown(not_after)}; allowed: seconds since the epoch, more than 0 and at most "
            f"{LAST_MOMENT_S}, or nothing"
        )
    least_s = stop_timeout + LEAST_REST_S
    if timeout is not None and not (_number(timeout) and least_s <= timeout <= MOST_S):
        raise BadRequest(
            f"timeout: found {shown(timeout)}; allowed: seconds for all of it, from {least_s:g} (stop_timeout and "
            f"{LEAST_REST_S} more) to {MOST_S}, or nothing"
        )
    return (
        service,
        port,
        float(stop_timeout),
        None if not_after is None else float(not_after),
        None if timeout is None else float(timeout),
    )


def _number(found: Any) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool)
