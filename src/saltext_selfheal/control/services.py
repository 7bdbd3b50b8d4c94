"""The service manager: systemd by unit, any other one by its own stop and start.

`service.restart` is never called, because it may wait for ever between the two. `service.status` is not asked, because it
says of a dead server that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..driver.text import plain
from ..witness import manager
from ..witness.asking import Question
from ..witness.manager import Manager
from .order import Patience, Refused

MOST_WORDS_CHARS = 150


@dataclass(frozen=True)
class Functions:
    """Salt's functions of these names in `service`, and `cmd.run_all` without a shell. They may raise, and never return."""

    available: Callable[[str], Any]
    show: Callable[[str], Any]
    stop: Callable[[str], Any]
    start: Callable[[str], Any]
    run: Callable[[list[str]], Any]


@dataclass(frozen=True)
class Answer:
    """What a function of Salt's has returned. ``why``: the words of its failure."""

    found: Any = None
    why: str = ""

    @property
    def ok(self) -> bool:
        return not self.why


class Services:
    """One service of this machine."""

    def __init__(self, service: str, functions: Functions, patience: Patience) -> None:
        self.service, self._functions, self._patience = service, functions, patience
        self.unit: str | None = None  #: systemd's name for it; None where there is no systemd

    def check(self) -> None:
        """Raises Refused if there is no such service that could be started."""
        answer = self._asked(self._functions.available, self.service)
        if answer is None:
            raise Refused(f"the service manager does not say whether it knows {self.service}")
        if not answer.ok or answer.found is not True:
            why = f" ({answer.why})" if answer.why and answer.found is not False else ""
            raise Refused(f"service {self.service} is not known on this minion{why}")
        shown = self._shown()
        if shown.get("LoadState") == "masked":
            raise Refused(f"the unit of {self.service} is masked and could not be started again")

    def look(self) -> Manager | None:
        """What systemd says of its process. None where there is no systemd."""
        shown = self._shown()
        seen = manager.look(self.service, lambda _: shown, lambda _: None)
        if seen is not None and seen.unit is not None:
            self.unit = seen.unit
        return seen

    def _shown(self) -> Mapping[str, Any]:
        answer = self._asked(self._functions.show, self.service)
        found = answer.found if answer else None
        return found if isinstance(found, Mapping) else {}

    def stop(self) -> Question[Answer]:
        return Question(_called, self._functions.stop, self.service)

    def start(self) -> Question[Answer]:
        """Start it. A unit that has failed too often must be told first that this is over."""
        if self.unit is not None:
            self._asked(self._functions.run, ["systemctl", "reset-failed", self.unit])
        return Question(_called, self._functions.start, self.service)

    def kill(self) -> Answer:
        """Have systemd send SIGKILL to all processes of the unit, those of a stop that hangs among them."""
        command = ["systemctl", "kill", "--signal=KILL", str(self.unit)]
        answer = self._asked(self._functions.run, command)
        return answer or Answer(why="systemctl does not answer")

    def _asked(self, function: Callable[..., Any], *args: Any) -> Answer | None:
        """The answer; None if it does not come in time."""
        return Question(_called, function, *args).answer(self._patience.ask_s, None)


def _called(function: Callable[..., Any], *args: Any) -> Answer:
    """Call one of Salt's functions; a failure becomes words."""
    try:
        found = function(*args)
    except Exception as exc:
        return Answer(why=plain(exc, MOST_WORDS_CHARS) or type(exc).__name__)
    if isinstance(found, Mapping) and found.get("retcode"):
        words = plain(found.get("stderr") or found.get("stdout") or "", MOST_WORDS_CHARS)
        return Answer(found, words or f"exit code {found['retcode']}")
    return Answer(found, "the service manager refused" if found is False else "")
