"""The engine's settings in ``master.d``: they are read, checked and explained here. No socket; only `trusted` reads a file.

The engine, the runner and the reactor's ``attempt()`` use the same loader, `load`. The meaning of each setting is
written at its field, and the configuration reference in the docs is generated from these models. Pydantic validates,
but the messages are our own: each has the setting's path, what was found and what is allowed.
"""

from .files import trusted
from .group import Settings
from .loading import SECRETS, aliases, entries, entry, load
from .mistakes import ConfigError, Problem
from .settings import RESERVED_CALLER, ClusterSettings, EngineSettings, LedgerSettings
from .values import DURATION, LONGEST, SECRET_BITS, duration, look_bits

__all__ = [
    "DURATION", "LONGEST", "RESERVED_CALLER", "SECRETS", "SECRET_BITS", "ClusterSettings", "ConfigError", "EngineSettings", "LedgerSettings",
    "Problem", "Settings", "aliases", "duration", "entries", "entry", "load", "look_bits", "trusted",
]  # fmt: skip
