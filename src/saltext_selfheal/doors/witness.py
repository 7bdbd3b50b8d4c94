"""What a caller may ask the witness. Everything else is refused, before anything is read. No Salt here.

And nothing of `config`: each job of a minion is a process of its own, and half a second would go for loading that room.
"""

from __future__ import annotations

import re
from typing import Any

from .arguments import BadRequest, shown

LEAST_S, MOST_S = 0.1, 30

#: As in the settings (`config.texts.Service`); a test compares the two.
SERVICE = r"[A-Za-z0-9_@.:\\][A-Za-z0-9_@.:\\-]{0,254}"
SERVICE_ALLOWED = (
    "a service of 1 to 255 ASCII letters, digits and _ @ . : \\ -, and with no - at its beginning"
)


def asked(service: Any, port: Any, timeout_s: Any) -> tuple[str, int, float]:
    """The same three, if they are a service as the settings take it, a port, and seconds. Raises BadRequest."""
    if not isinstance(service, str) or not re.fullmatch(SERVICE, service):
        raise BadRequest(f"service: found {shown(service)}; allowed: {SERVICE_ALLOWED}")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise BadRequest(f"port: found {shown(port)}; allowed: a number from 1 to 65535")
    number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if not number or not LEAST_S <= timeout_s <= MOST_S:
        raise BadRequest(
            f"timeout: found {shown(timeout_s)}; allowed: seconds, from {LEAST_S} to {MOST_S}"
        )
    return service, port, float(timeout_s)


def path(found: Any) -> str | None:
    """The absolute path that an option of the minion names; None if it is not set. Raises BadRequest."""
    if found in (None, ""):
        return None
    if isinstance(found, str) and found.startswith("/") and "\0" not in found:
        return found
    raise BadRequest(f"found {shown(found)}; allowed: an absolute path")
