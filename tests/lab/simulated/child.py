"""A node in a process of its own, as the test that started it holds it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.simulated.settings import Settings, read_config


def control(path: Path, command: Mapping[str, Any], timeout_s: float = 5.0) -> dict[str, Any]:
    """Sends one command to a node's control socket. RuntimeError when the node refuses it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(str(path))
        sock.sendall(json.dumps(command).encode() + b"\n")
        with sock.makefile("rb") as lines:
            line = lines.readline()
    answer: dict[str, Any] = (
        json.loads(line) if line else {"ok": False, "error": "the node closed the socket"}
    )
    if not answer.pop("ok"):
        raise RuntimeError(answer["error"])
    return answer


class SimulatedProcess:
    """
    A node in a process of its own, from a config file.

    As a context manager: started and ready, stopped at the end. It ends no process but its own.
    """

    ROOT = Path(__file__).resolve().parents[3]

    def __init__(self, config_file: Path):
        self.config_file = Path(config_file).resolve()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.config_file}: not started")
        return self._process

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._started.poll()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def settings(self) -> Settings:
        return read_config(self.config_file)

    def start(self) -> None:
        if self.is_running:
            raise RuntimeError(f"{self.config_file}: already runs with pid {self.pid}")
        self._forget()
        self._process = subprocess.Popen(
            # -S: the node needs no package, and looking for them costs more than all else.
            [
                sys.executable,
                "-S",
                "-m",
                "tests.lab.simulated",
                "--config-file",
                str(self.config_file),
            ],
            cwd=self.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Until it listens. RuntimeError with its words when it ends instead; TimeoutError."""
        process = self._started
        assert process.stdout is not None
        deadline = time.monotonic() + timeout_s
        said = b""
        while b"Server ready" not in said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError(f"{self.config_file}: not ready after {timeout_s} s")
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                code, words = self.wait_ended(timeout_s)
                raise RuntimeError(f"{self.config_file}: ended with {code}: {words}")
            said += chunk

    def wait_ended(self, timeout_s: float = 10.0) -> tuple[int, str]:
        """The exit code and what it wrote to stderr."""
        _, errors = self._started.communicate(timeout=timeout_s)
        return self._started.returncode, errors.decode(errors="replace").strip()

    def stop(self, timeout_s: float = 5.0) -> int:
        """SIGTERM, also to a paused one; SIGKILL when that does not help. Returns the exit code."""
        if self.is_running:
            self._started.terminate()
            self.resume()
            try:
                self._started.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        code = self._started.returncode
        self._forget()
        return code

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self._started.kill()
        self._started.wait()

    def pause(self) -> None:
        """SIGSTOP, until it stands still: the kernel accepts connections, nobody answers them."""
        self._started.send_signal(signal.SIGSTOP)
        # WNOWAIT: its exit, if that is what comes, is left for poll() to collect.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)

    def resume(self) -> None:
        """SIGCONT."""
        self._started.send_signal(signal.SIGCONT)

    def control(self, command: Mapping[str, Any], timeout_s: float = 5.0) -> dict[str, Any]:
        path = self.settings.control
        assert path is not None
        return control(path if path.is_absolute() else self.ROOT / path, command, timeout_s)

    def _forget(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> SimulatedProcess:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
