"""What the doctor examines: a master's options, the files they come from, and its salt-apis. And the form of findings.

Nothing is judged here; the checks do that.
"""

from __future__ import annotations

import glob
import ipaddress
import itertools
import os
import pwd
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import salt.config
import salt.utils.reactor
import salt.utils.yaml

from .. import config


class Level(str, Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    level: Level
    found: str
    remedy: str = ""
    check: str = ""  #: the name of the check; `checks.ask` fills it in

    def __str__(self) -> str:
        line = f"{self.level.value:<5} {self.check}: {self.found}"
        return f"{line}\n      → {self.remedy}" if self.remedy else line


def ok(found: str) -> Finding:
    return Finding(Level.OK, found)


def warn(found: str, remedy: str) -> Finding:
    return Finding(Level.WARN, found, remedy)


def fail(found: str, remedy: str) -> Finding:
    return Finding(Level.FAIL, found, remedy)


# ---------------------------------------------------------------- what is examined


@dataclass(frozen=True)
class File:
    """One file of the master's configuration, as it is on disk now."""

    path: Path
    data: Mapping[str, Any]
    broken: str = ""
    mode: int = 0
    mtime: float = 0.0

    @property
    def holds_ours(self) -> bool:
        return config.entry(self.data) is not None


def _read(path: Path) -> File:
    try:
        about, text = path.stat(), path.read_text(encoding="utf-8")
        data = salt.utils.yaml.safe_load(text) or {}
    except OSError as exc:
        return File(path, {}, broken=exc.strerror or type(exc).__name__)
    except Exception as exc:
        # Only the line is told: the exception's text quotes the file, which may hold a password.
        mark = getattr(exc, "problem_mark", None)
        return File(path, {}, broken=f"no YAML in line {mark.line + 1}" if mark else "no YAML")
    if not isinstance(data, dict):
        return File(path, {}, broken="no mapping")
    return File(path, data, mode=about.st_mode, mtime=about.st_mtime)


def _included(pattern: Any, by: Path, depth: int = 3) -> list[File]:
    """The files that Salt would read for an ``include`` or ``default_include`` in this file."""
    files = []
    for one in [pattern] if isinstance(pattern, str) else pattern or []:
        where = str(by.parent / Path(str(one)).expanduser())
        for name in sorted(glob.glob(where)):  # noqa: PTH207 - may be absolute, as Salt takes it
            file = _read(Path(name))
            files.append(file)
            if depth:
                files += _included(file.data.get("include"), file.path, depth - 1)
    return files


def may_read(user: str, path: Path) -> bool:
    """Whether this user may read the file. For another user than the present one, the file's mode must tell."""
    try:
        who, about = pwd.getpwnam(user), path.stat()
    except (KeyError, OSError):
        return False
    if who.pw_uid == 0:
        return True
    if who.pw_uid == os.geteuid():
        return os.access(path, os.R_OK)
    if about.st_uid == who.pw_uid:
        return bool(about.st_mode & stat.S_IRUSR)
    if about.st_gid in os.getgrouplist(user, who.pw_gid):
        return bool(about.st_mode & stat.S_IRGRP)
    return bool(about.st_mode & stat.S_IROTH)


#: Salt's clients (3006 to 3008), as ``netapi_enable_clients`` names them.
CLIENTS = (
    "local",
    "local_async",
    "local_batch",
    "local_subset",
    "runner",
    "runner_async",
    "ssh",
    "wheel",
    "wheel_async",
)


@dataclass(frozen=True)
class Api:
    """A salt-api: the one of this master, or one with a separate configuration."""

    name: str
    opts: Mapping[str, Any]

    @property
    def rest(self) -> Mapping[str, Any]:
        """The options of rest_cherrypy. Empty if there are none."""
        rest = self.opts.get("rest_cherrypy")
        return rest if isinstance(rest, dict) else {}

    @property
    def user(self) -> str:
        return str(self.opts.get("user") or "root")

    @property
    def listed(self) -> Any:
        """The raw value of ``netapi_enable_clients``."""
        return self.opts.get("netapi_enable_clients") or []

    @property
    def clients(self) -> list[str]:
        """The clients that are enabled. Salt only tests whether a name is *in* the option, which may also be a text."""
        held = self.listed
        return [c for c in CLIENTS if c in held] if isinstance(held, Collection) else []

    @property
    def host(self) -> str:
        return str(self.rest.get("host") or "0.0.0.0")

    @property
    def on_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def open_to_all(self) -> bool:
        return bool(self.rest.get("webhook_disable_auth"))


@dataclass(frozen=True)
class Master:
    """What the checks examine. Each part is read when a check first asks for it."""

    opts: Mapping[str, Any]
    api_config: str | None = None

    @cached_property
    def _loaded(self) -> tuple[config.EngineSettings | None, list[config.Problem]]:
        try:
            return config.load(self.opts), []
        except config.ConfigError as exc:
            return None, exc.problems

    @property
    def user(self) -> str:
        return str(self.opts.get("user") or "root")

    @property
    def settings(self) -> config.EngineSettings | None:
        return self._loaded[0]

    @property
    def problems(self) -> list[config.Problem]:
        return self._loaded[1]

    @property
    def entry(self) -> Mapping[str, Any]:
        """Our raw settings, whether they are valid or not. Empty if there are none."""
        found = config.entry(self.opts)
        return found if isinstance(found, dict) else {}

    @property
    def ledger_path(self) -> Path:
        if self.settings is not None:
            return self.settings.ledger_path(self.opts)
        wanted = self.entry.get("ledger")
        try:
            ledger = config.LedgerSettings(
                path=wanted.get("path") if isinstance(wanted, dict) else None
            )
        except ValueError:  # it is told with the other problems
            ledger = config.LedgerSettings()
        return ledger.file(self.opts)

    @property
    def can_render(self) -> bool:
        """Whether a reactor file could look up an attempt. If not, rendering one would only log an error."""
        return self.settings is not None and self.ledger_path.exists()

    @property
    def takes_hooks(self) -> bool:
        return bool(self.entry.get("webhooks") or self.takes_formula)

    @property
    def takes_formula(self) -> bool:
        return bool(self.entry.get("formula_secretkey"))

    @cached_property
    def layers(self) -> list[list[File]]:
        """The configuration's files in layers, as in Salt: a key in a later layer replaces that in an earlier one."""
        main = Path(str(self.opts.get("conf_file") or ""))
        if not main.is_file():
            return []
        file = _read(main)
        drop_ins = file.data.get("default_include", "master.d/*.conf")
        layers = [[file], _included(drop_ins, main), _included(file.data.get("include"), main)]
        return [layer for layer in layers if layer]

    @property
    def files(self) -> list[File]:
        return list(itertools.chain.from_iterable(self.layers))

    @cached_property
    def apis(self) -> list[Api]:
        found = [Api("", self.opts)]
        if self.api_config:
            path = Path(self.api_config)
            path = path / "master" if path.is_dir() else path
            if path.is_file():
                found.append(Api(str(path), salt.config.master_config(str(path))))
        return found

    @cached_property
    def reactor(self) -> salt.utils.reactor.Reactor:
        """A reactor of Salt that is never started. It is used to find and render reactor files."""
        return salt.utils.reactor.Reactor(dict(self.opts))

    @cached_property
    def reactor_entries(self) -> list[Any]:
        """The entries of the option ``reactor``. Its value may also be the name of a file with the entries."""
        listed = self.opts.get("reactor") or []
        if isinstance(listed, str):
            listed = salt.utils.yaml.safe_load(Path(listed).read_text(encoding="utf-8"))
        return listed if isinstance(listed, list) else []

    @cached_property
    def mappings(self) -> list[tuple[str, list[str]]]:
        """The mappings of the reactor that Salt takes: a pattern of tags, and the files for it."""
        taken = []
        for one in self.reactor_entries:
            if isinstance(one, dict) and len(one) == 1:
                ((pattern, files),) = one.items()
                files = [files] if isinstance(files, str) else files or []
                taken.append((str(pattern), [str(file) for file in files]))
        return taken

    def close(self) -> None:
        if "reactor" in self.__dict__ and hasattr(self.reactor.minion, "destroy"):
            minion = self.reactor.minion
            minion.destroy()
            # 3008.3 empties these, and later takes anything but None for something that was left open.
            minion.returners = minion.functions = minion.utils = None
