"""A small disk of a node's own, which can be full: a tmpfs over its data directory. Needs root."""

import contextlib
import os
import signal
import subprocess

ROOM_BYTES = 4 << 20  #: beside what is there already
BALLAST = "ballast"


class CannotMount(Exception):
    """This process may not mount; the text says why."""


class SmallDisk:
    """
    From the next start on the server has its data here, with what it had before; ``remove()`` gives the old ones back.

    A server that runs keeps the directory that it has opened. It is stopped (SIGSTOP) while its files are copied.
    """

    def __init__(self, directory, pid):
        if os.geteuid() != 0:
            raise CannotMount("only root may mount")
        self.directory = directory
        os.kill(pid, signal.SIGSTOP)
        try:
            data = {one.name: one.read_bytes() for one in directory.iterdir() if one.is_file()}
        finally:
            os.kill(pid, signal.SIGCONT)
        size = sum(map(len, data.values())) + ROOM_BYTES
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
        try:
            subprocess.run(words, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            said = getattr(exc, "stderr", b"").decode().strip() or exc
            raise CannotMount(f"a tmpfs cannot be mounted here: {said}") from exc
        try:
            for name, content in data.items():
                (directory / name).write_bytes(content)
        except OSError:
            self.remove()
            raise

    def fill(self):
        """Leave no room for anything new."""
        path = self.directory / BALLAST
        with path.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"\0" * 4096)

    def make_room(self):
        (self.directory / BALLAST).unlink()

    def remove(self):
        """Also under a server that has its data there."""
        subprocess.run(["umount", "-l", str(self.directory)], check=True)
