"""
Many simulated nodes in one process, for benchmarks: ``python -m tests.lab.crowd COUNT``.

Prints their driver ports as one line of JSON and serves until its standard input ends. ``Crowd`` is the other side.
"""

import asyncio
import json
import resource
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from tests.lab.simulated import Node, Settings

CHECKOUT = Path(__file__).resolve().parents[2]


class Crowd:
    """A process with ``count`` nodes; ``ports`` are their driver ports."""

    def __init__(self, count):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.crowd", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
        )
        self.ports = json.loads(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def pause(self):
        """SIGSTOP: all its ports accept, none answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)


async def serve(count):
    """Start the nodes, tell the ports, wait for the end of standard input."""
    nodes = []
    for number in range(count):
        settings = Settings(name=f"n{number}", driver_port=0, cluster_port=0)
        node = Node(settings, str(uuid.uuid4()))
        await node.start()
        nodes.append(node)
    print(json.dumps([node.server.reql_port for node in nodes]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.gather(*(node.stop() for node in nodes))


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(serve(int(sys.argv[1])))
