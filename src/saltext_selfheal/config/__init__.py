"""The engine's settings in ``master.d``: read, checked, explained. No socket, no file.

One loader (`load`) for the engine, the runner and the reactor's ``attempt()``. What a setting means stands at its
field; the configuration reference in the docs is generated from these models. Validation is pydantic's, the
sentences are ours: every error has its path, what was found and what is allowed.
"""

from .loading import SECRETS, ConfigError, Problem, aliases, entries, entry, load
from .settings import RESERVED_CALLER, ClusterSettings, EngineSettings, Settings
from .values import DURATION, SECRET_BITS, duration, look_bits

__all__ = [
    "DURATION", "RESERVED_CALLER", "SECRETS", "SECRET_BITS", "ClusterSettings", "ConfigError", "EngineSettings",
    "Problem", "Settings", "aliases", "duration", "entries", "entry", "load", "look_bits",
]  # fmt: skip
