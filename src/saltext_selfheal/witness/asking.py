"""Questions that may never be answered, each in a daemon thread, and the time in which all of them must be.

A thread that hangs in a file system is left behind: nothing can end it, and it keeps nobody from leaving.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..driver.text import failure

log = logging.getLogger(__name__)

Told = TypeVar("Told")
Else = TypeVar("Else")


class Deadline:
    """When all must be told, by this process's own clock."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._begun = time.monotonic()

    def left_s(self, share: float = 1.0) -> float:
        """Seconds until this share of the time is over. 0 if it is."""
        return max(0.0, self._begun + share * self._timeout_s - time.monotonic())

    @property
    def over(self) -> bool:
        return not self.left_s()


class Question(Generic[Told]):
    """A function that is being called in a thread of its own."""

    def __init__(self, function: Callable[..., Told], *args: Any) -> None:
        self._function, self._args = function, args
        self._answers: list[Told] = []
        self._done = threading.Event()
        # Salt's loader keeps its dunders in context variables, and a new thread has none of them (3006 to 3008).
        context = contextvars.copy_context()
        try:
            threading.Thread(
                target=context.run, args=(self._ask,), name="selfheal-witness", daemon=True
            ).start()
        except RuntimeError as exc:  # this process may start no more threads
            log.warning("selfheal: the witness cannot ask: %s", failure(exc))
            self._done.set()

    def _ask(self) -> None:
        try:
            self._answers.append(self._function(*self._args))
        except Exception as exc:
            log.debug("selfheal: the witness was not told: %s", failure(exc))
        finally:
            self._done.set()

    @property
    def over(self) -> bool:
        """Whether nothing more will come: the function has returned or failed, or was never called."""
        return self._done.is_set()

    def answer(self, within_s: float, otherwise: Else) -> Told | Else:
        """What the function returned; ``otherwise`` if it has failed, or does not return in time."""
        self._done.wait(within_s)
        return self._answers[0] if self._answers else otherwise
