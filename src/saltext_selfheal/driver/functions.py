"""Which functions change something on a minion: those of `state`, `service` and `pkg`, and this package's own.

Functions of these modules that only read are named here, and so is the `test=True` of states. The lists hold for all
service managers and package managers of Salt (3006 to 3008). No Salt is needed to know this, so a minion's witness and
the engine have it from one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

MODULES = ("state", "service", "pkg")
MOST_FUNCTIONS = 20  #: of one job; it is hardly worth more than the first
MOST_ARGS = 100  #: `test=True` is looked for among so many arguments
MOST_CHARS = 100  #: of what is told of a job's functions

#: By module: functions that change nothing on the machine, or nothing that a service would notice.
_READ: Mapping[str, frozenset[str]] = {
    "state": frozenset(
        {
            "check_request", "clear_cache", "clear_request", "disable", "enable", "event", "get_pauses", "graph",
            "graph_highstate", "id_exists", "list_disabled", "pause", "request", "resume", "running", "sls_exists",
            "soft_kill", "test",
        }
    ),
    "service": frozenset(
        {
            "available", "disabled", "doc", "enabled", "execs", "firstboot", "get_all", "get_disabled", "get_enabled",
            "get_running", "get_service_name", "get_static", "getsid", "identify", "info", "list_", "list", "loaded",
            "masked", "missing", "offline", "show", "status",
        }
    ),
    "pkg": frozenset(
        {
            "audit", "available_version", "check", "check_db", "check_extra_requirements", "depends", "diff", "download",
            "fetch", "file_dict", "file_list", "get_locked_packages", "get_repo", "get_repo_keys", "get_selections",
            "group_diff", "group_info", "group_list", "homebrew_prefix", "info", "latest_version", "locked", "modified",
            "normalize_name", "owner", "parse_arch", "parse_config", "provides", "refresh_db", "resolve_capabilities",
            "search", "services_need_restart", "show", "stats", "updating", "upgrade_available", "verify", "version",
            "version_clean", "version_cmp", "which",
        }
    ),
}  # fmt: skip
#: And those that begin so.
_READ_PREFIXES = {"state": ("show_",), "service": (), "pkg": ("list_", "info_")}
#: What of this package changes something, where somebody calls it by hand.
_OURS = frozenset({"selfheal.force_restart"})


def changing(fun: Any, arg: Any = ()) -> str:
    """The functions of a job that change something, in words; empty if there is none.

    ``fun`` and ``arg`` are as a job has them, which may be anything: one name and its arguments, or a list of names and
    a list of arguments for each. Never raises.
    """
    if isinstance(fun, str):
        found = [fun] if _changes(fun, arg) else []
    elif isinstance(fun, (list, tuple)):
        args = arg if isinstance(arg, (list, tuple)) else ()
        found = [
            name
            for place, name in enumerate(fun[:MOST_FUNCTIONS])
            if _changes(name, args[place] if place < len(args) else ())
        ]
    else:
        found = []
    return ", ".join(found)[:MOST_CHARS].rstrip(", ")


def _changes(fun: Any, arg: Any) -> bool:
    if not isinstance(fun, str) or len(fun) > MOST_CHARS:
        return False
    if fun in _OURS:
        return True
    module, _, name = fun.partition(".")
    if module not in MODULES or not name:
        return False
    if name in _READ[module] or name.startswith(_READ_PREFIXES[module]):
        return False
    return module != "state" or not _only_tests(arg)


def _only_tests(arg: Any) -> bool:
    """Whether `test=True` is among these arguments, in one of the forms in which Salt takes it."""
    for one in islice(arg, MOST_ARGS) if isinstance(arg, (list, tuple)) else ():
        value: Any = None
        if isinstance(one, Mapping):
            value = one.get("test")
        elif isinstance(one, str) and one.startswith("test="):
            value = one[len("test=") : len("test=") + 10]
        if value is True or (isinstance(value, str) and value.strip().lower() == "true"):
            return True
    return False
