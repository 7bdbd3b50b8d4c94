"""A process that can open no file any more."""

import itertools
import resource
import time
from pathlib import Path


def spend_open_files(pid, takes_new):
    """Let the process open no file beside those it has open; until it takes no new client.

    Returns how to undo that. A file that it closes meanwhile is one that it can open again: so it is looked twice.
    """
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    deadline = time.monotonic() + 20
    while True:
        used = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
        lowest = next(number for number in itertools.count() if number not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
        if not takes_new():
            return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert time.monotonic() < deadline
