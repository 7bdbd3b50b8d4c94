"""What a caller may ask the witness. Everything else is refused, before anything is read. No Salt here."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..config.texts import Service
from .arguments import BadRequest, shown

LEAST_S, MOST_S = 0.1, 30

_SERVICE: TypeAdapter[str] = TypeAdapter(Service)


def asked(service: Any, port: Any, timeout_s: Any) -> tuple[str, int, float]:
    """The same three, if they are a service as the settings take it, a port, and seconds. Raises BadRequest."""
    try:
        name = _SERVICE.validate_python(service, strict=True)
    except ValidationError as exc:
        raise BadRequest(
            f"service: found {shown(service)}; allowed: {exc.errors()[0]['msg']}"
        ) from None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise BadRequest(f"port: found {shown(port)}; allowed: a number from 1 to 65535")
    number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if not number or not LEAST_S <= timeout_s <= MOST_S:
        raise BadRequest(
            f"timeout: found {shown(timeout_s)}; allowed: seconds, from {LEAST_S} to {MOST_S}"
        )
    return name, port, float(timeout_s)


def path(found: Any) -> str | None:
    """The absolute path that an option of the minion names; None if it is not set. Raises BadRequest."""
    if found in (None, ""):
        return None
    if isinstance(found, str) and found.startswith("/") and "\0" not in found:
        return found
    raise BadRequest(f"found {shown(found)}; allowed: an absolute path")
