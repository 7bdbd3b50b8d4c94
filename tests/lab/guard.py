"""
The guard: nothing of a site outlives the process that holds it, however that process ends.

Two halves live here. ``Guard`` is the lab's side. The rest runs as a process of its own, in its own session: it
makes the site's folder, waits for the end of its standard input, ends every process that belongs to the site, and
removes the folder. The end of a pipe is the one notice that also a ``kill -9`` gives.

A process belongs to the site if it carries the site's marker in its environment, or, being one of Salt's, names the
site's folder as its config folder. Salt's processes need the second sign: Salt sets process titles, and setproctitle
writes them over the environment that others can read. (SPT_NOENV=1 would stop that, and cut every title short: the
engines of a master could no longer be told apart.) A title begins with the command line, so the argument stays.

Nothing here may import Salt or anything else of the lab: the watcher must start at once and depend on nothing.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from pathlib import Path

import psutil

MARKER = "SELFHEAL_LAB"

# A unix socket's path ends at 107 characters, and the longest here adds 49 to the root:
# `/app1/run/minion/minion_event_172dd4a036_pull.ipc`
LONGEST_ROOT = 50

GIVE_UP_S = 10.0
QUIET_S = 0.2


class GuardError(Exception):
    """The guard could not start, or something of the site was left behind."""


class Guard:
    """
    The lab's side: hold it as long as the site lives, then ``release()`` it.

    ``root`` is the site's folder, ``environ`` what every process of the site must have in its environment.
    ``patience_s`` lies between SIGTERM and SIGKILL for what is left at the end.
    """

    def __init__(self, patience_s=3.0):
        self.marker = uuid.uuid4().hex
        self.environ = {MARKER: self.marker}
        self._watcher = subprocess.Popen(
            # -I: without it this file's folder would stand first in sys.path, and site.py and salt/ with it
            [sys.executable, "-I", __file__, self.marker, str(patience_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: text for name, text in os.environ.items() if name != MARKER},
            start_new_session=True,
        )
        line = os.fsdecode(self._watcher.stdout.readline().removesuffix(b"\n"))
        if not line:
            raise GuardError(f"the guard of the lab ended at once ({self._watcher.wait()})")
        self.root = Path(line)
        _close_in_forked_children(self._watcher.stdin)
        if len(os.fsencode(line)) > LONGEST_ROOT:
            self.release()
            raise GuardError(
                f"the lab's folder {line!r} has {len(line)} characters, at most {LONGEST_ROOT} leave room for "
                "unix sockets below it: set TMPDIR to a shorter path"
            )

    def release(self):
        """End what is left of the site, remove its folder, and say so if that fails. Twice does no harm."""
        if self._watcher.stdin.closed:
            return
        self._watcher.stdin.close()
        left = self._watcher.stdout.read().decode("utf-8", "replace").strip()
        self._watcher.stdout.close()
        if self._watcher.wait() != 0:
            raise GuardError(left or "the guard of the lab failed")


def _close_in_forked_children(pipe):
    # A child forked (not executed) by the lab's process would hold the pipe open after its parent's death.
    held = weakref.ref(pipe)

    def close():
        pipe = held()
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(OSError):
                os.close(pipe.fileno())

    os.register_at_fork(after_in_child=close)


def members(marker, root):
    """The living processes of the site, except the caller."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and _belongs(process, marker, root):
                found.append(process)
    return found


def _belongs(process, marker, root):
    if process.environ().get(MARKER) == marker:
        return True
    # one string of many words in a process whose title was set
    return any(f"--config-dir={root}/" in word for word in process.cmdline())


def end_all(marker, root, patience_s):
    """End every process of the site: TERM, patience, KILL. Returns those that could not be ended."""
    patience_ends = time.monotonic() + patience_s
    give_up_at = patience_ends + GIVE_UP_S
    asked = set()
    while found := members(marker, root):
        now = time.monotonic()
        if now > give_up_at:
            return found
        for process in found:
            with contextlib.suppress(psutil.Error):
                if now > patience_ends:
                    process.kill()
                elif process not in asked:
                    asked.add(process)
                    process.terminate()
                    # a stopped process takes SIGTERM only after SIGCONT
                    process.resume()
        # not wait_procs: only a parent learns of a child's end, and the lab may be slow to reap its own
        time.sleep(0.05)
    return []


def unmount_all(root):
    """Give back what was mounted in the folder: it could not be removed."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            mounted = line.split()[1]
            if mounted.startswith(f"{root}/"):
                subprocess.run(["umount", "-l", mounted], check=False, stderr=subprocess.DEVNULL)


def watch(marker, patience_s):
    """The watcher's life. Returns its exit code."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    root = tempfile.mkdtemp(prefix="sh-")
    left = []
    try:
        # as bytes: no locale stands between the folder's name and who reads it
        sys.stdout.buffer.write(os.fsencode(root) + b"\n")
        sys.stdout.buffer.flush()
        sys.stdin.buffer.read()
    finally:
        # Twice, with a pause: a process may have been between fork and exec, its environment not yet readable
        for _ in range(2):
            left = end_all(marker, root, patience_s)
            time.sleep(QUIET_S)
        left = left or members(marker, root)
        unmount_all(root)
        shutil.rmtree(root, ignore_errors=True)
        if Path(root).exists():
            shutil.rmtree(root, ignore_errors=True)
    problems = [f"still running: {process}" for process in left]
    if Path(root).exists():
        problems.append(f"not removed: {root}")
    if problems:
        with contextlib.suppress(OSError):
            print("; ".join(problems), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(watch(sys.argv[1], float(sys.argv[2])))
