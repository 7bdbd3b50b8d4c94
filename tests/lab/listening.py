"""
The master's event bus as tests see it: collect in a thread, wait for what matters, never sleep.

Only listening. Nothing here judges an event.
"""

import collections
import fnmatch
import threading
import time
import uuid
from dataclasses import dataclass, field

import salt.utils.event

PROBE_TAG = "lab/listening"


@dataclass(frozen=True)
class Event:
    """One event. ``at``: when it was received, in seconds of ``time.monotonic()``."""

    tag: str
    data: dict = field(repr=False)
    at: float


class Events:
    """
    Events of the master's bus whose tag matches one of the globs, from ``__enter__`` to ``__exit__``.

    Iterating goes over those received so far.
    """

    def __init__(self, opts, *globs):
        self._opts = opts
        self._globs = globs or ("*",)
        self._seen = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._subscribed = threading.Event()
        self._probe = f"{PROBE_TAG}/{uuid.uuid4().hex}"
        self._thread = threading.Thread(target=self._listen, daemon=True, name="lab-events")

    def __enter__(self):
        self._thread.start()
        # Connected is not yet subscribed: the publisher learns of a listener when it accepts it. An event of our own
        # that comes back is proof.
        with _master_event(self._opts, listen=False) as bus:
            for _ in range(500):
                bus.fire_event({}, self._probe)
                if self._subscribed.wait(0.02):
                    return self
        self._stop.set()
        raise TimeoutError("the master's event bus does not answer")

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(2)

    def __iter__(self):
        with self._changed:
            return iter(list(self._seen))

    def __len__(self):
        return len(self._seen)

    def _listen(self):
        with _master_event(self._opts, listen=True) as bus:
            while not self._stop.is_set():
                received = bus.get_event(wait=0.25, full=True, auto_reconnect=True)
                if received is None:
                    continue
                tag, data = received["tag"], received["data"]
                if tag.startswith(PROBE_TAG):
                    if tag == self._probe:
                        self._subscribed.set()
                    continue
                if any(fnmatch.fnmatchcase(tag, glob) for glob in self._globs):
                    with self._changed:
                        self._seen.append(Event(tag, data, time.monotonic()))
                        self._changed.notify_all()

    def matching(self, tag_glob="*", predicate=None):
        """Those received so far that match."""
        return [event for event in self if _matches(event, tag_glob, predicate)]

    def wait(self, tag_glob="*", predicate=None, timeout=10.0, count=1):
        """
        The ``count``-th event that matches, waiting for it up to ``timeout`` seconds. Those received before count too.

        TimeoutError names what was received instead.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [e for e in self._seen if _matches(e, tag_glob, predicate)]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0:
                    tags = collections.Counter(event.tag for event in self._seen)
                    raise TimeoutError(
                        f"{len(found)} of {count} events {tag_glob!r} within {timeout} s; "
                        f"received: {dict(tags) or 'nothing'}"
                    )
                self._changed.wait(left)


def _matches(event, tag_glob, predicate):
    return fnmatch.fnmatchcase(event.tag, tag_glob) and (predicate is None or predicate(event.data))


def _master_event(opts, listen):
    return salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=listen)
