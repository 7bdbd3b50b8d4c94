"""Salt's event bus: `Bus` for events that go out, `Listener` for those that come in.

Each thread has an event object of its own, because Salt demands that. Nothing that comes from the bus is believed: any
minion can put any event there. For the same reason, an event that goes out proves nothing to others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import salt.utils.event

from ..driver.text import failure

log = logging.getLogger(__name__)

VERSION = 1
#: After a failure nothing is fired for this time: each try would cost a second while the bus is down.
DOWN_S = 1.0


class Bus:
    """Fires events. Use it on one thread: it keeps its event object, since a fresh one would cost 5 ms per event."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = opts
        self._event: Any = None
        self._down_until: float | None = None

    def fire(self, tag: str, data: Mapping[str, Any]) -> bool:
        """Fire one event. False if the bus cannot be reached; then nothing is tried again for a second."""
        if self._down_until is not None and time.monotonic() < self._down_until:
            return False
        for _ in range(1 if self._event is None else 2):  # an old connection may have gone stale
            try:
                if self._event is None:
                    self._event = salt.utils.event.get_master_event(
                        dict(self._opts), self._opts["sock_dir"], listen=False
                    )
                if self._event.fire_event({"v": VERSION, **data}, tag, timeout=1000):
                    if self._down_until is not None:
                        log.warning("selfheal: the event bus can be reached again")
                    self._down_until = None
                    return True
            except Exception:
                log.debug("selfheal: firing %s failed", tag, exc_info=True)
            self.close()
        if self._down_until is None:
            log.error(
                "selfheal: the event bus cannot be reached; %s and what follows is not fired", tag
            )
        self._down_until = time.monotonic() + DOWN_S
        return False

    def close(self) -> None:
        if self._event is not None:
            try:
                self._event.destroy()
            except Exception:
                log.debug("selfheal: closing the event bus failed", exc_info=True)
            self._event = None


class Listener:
    """Receives the events whose tags match ``tags``, a regular expression, at once and on a thread of its own."""

    def __init__(
        self, opts: Mapping[str, Any], tags: str, deliver: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        self._opts = opts
        self._tags = tags
        self._deliver = deliver
        self._thread = threading.Thread(target=self._run, name="selfheal-bus", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except Exception as exc:
                log.error(
                    "selfheal: listening to the event bus failed, trying again: %s", failure(exc)
                )
            time.sleep(1)

    def _listen(self) -> None:
        with salt.utils.event.get_master_event(
            dict(self._opts), self._opts["sock_dir"], listen=True
        ) as event:
            for one in event.iter_events(
                tag=self._tags, match_type="regex", full=True, auto_reconnect=True
            ):
                if one and isinstance(one.get("data"), dict):
                    self._deliver(one["tag"], one["data"])
