"""The engine's settings in ``master.d``: they are read, checked and explained here. No socket, no file.

The engine, the runner and the reactor's ``attempt()`` use the same loader, `load`. The meaning of each setting is
written at its field, and the configuration reference in the docs is generated from these models. Pydantic validates,
but the messages are our own: each has the setting's path, what was found and what is allowed.
"""

from .loading import SECRETS, ConfigError, Problem, aliases, entries, entry, load
from .settings import RESERVED_CALLER, ClusterSettings, EngineSettings, Settings
from .values import DURATION, SECRET_BITS, duration, look_bits

__all__ = [
    "DURATION", "RESERVED_CALLER", "SECRETS", "SECRET_BITS", "ClusterSettings", "ConfigError", "EngineSettings",
    "Problem", "Settings", "aliases", "duration", "entries", "entry", "load", "look_bits",
]  # fmt: skip
