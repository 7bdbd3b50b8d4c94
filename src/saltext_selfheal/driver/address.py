"""Where a driver port is. Without Salt and pydantic: settings, probe and applications share it."""

from __future__ import annotations

from dataclasses import dataclass

DRIVER_PORT = 28015


@dataclass(frozen=True)
class Address:
    """A host and its port. IPv6 addresses are held without brackets."""

    host: str
    port: int = DRIVER_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
