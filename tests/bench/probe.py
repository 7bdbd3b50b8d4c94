"""
The probe's figures: how soon a death is seen, what a thousand nodes cost, what a sick one costs the others, leaks.

Everything is measured on simulated nodes in processes of their own; the engine's side (prober, healer, ledger) runs
in this one.
"""

import asyncio
import gc
import statistics
import tempfile
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from rethinkdb import net
from rethinkdb.ql2_pb2 import Query

from saltext_selfheal.config import EngineSettings
from saltext_selfheal.driver.address import Address
from saltext_selfheal.driver.wire import Wire
from saltext_selfheal.healing.events import Observed
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.ledger.writer import Ledger
from saltext_selfheal.loop.healer import Healer
from saltext_selfheal.probe.loop import Prober, targets
from saltext_selfheal.probe.names import Resolver
from saltext_selfheal.probe.node import NodeProbe, Target
from saltext_selfheal.probe.pulse import Pace
from saltext_selfheal.probe.tables import ViewPlan
from tests.lab.crowd import Crowd
from tests.lab.ports import free_port
from tests.lab.simulated import SimulatedProcess, write_config

LOOPBACK = "127.0.0.1"
KILLS = 200
KILLED_NODES = 20
CROWD = 1000
WATCH_S = 20.0
DIALS = 10_000
PROBES = 5_000


def measure(options, tell):
    """All of it."""
    return {
        "death": death(tell),
        "crowd": crowd(tell),
        "cost": cost(tell),
        "leak": leak(tell),
    }


def _target(port, number=0, **changes):
    values = {
        "cluster": f"c{number // 10}",
        "node": f"n{number}",
        "address": Address(LOOPBACK, port),
        "timeout_s": 1.0,
        "poll_s": 1.0,
    }
    return Target(**{**values, **changes})


def _share(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


# ---------------------------------------------------------------- death


def death(tell):
    """From SIGKILL to the observation `dead`, with an interval of two seconds."""
    seen = {}
    changed = threading.Condition()

    def deliver(event):
        if isinstance(event, Observed):
            with changed:
                seen[event.observation.node] = (event.observation.fault, time.monotonic())
                changed.notify_all()

    def wait(node, fault):
        with changed:
            if not changed.wait_for(lambda: node in seen and seen[node][0] is fault, 30):
                raise TimeoutError(f"{node} was not seen as {fault}")
            return seen[node][1]

    took = []
    with tempfile.TemporaryDirectory() as folder:
        processes, targets = {}, []
        for number in range(KILLED_NODES):
            port, name = free_port(), f"n{number}"
            config = write_config(
                Path(folder) / f"{name}.conf",
                directory=Path(folder) / name,
                driver_port=port,
                cluster_port=free_port(),
            )
            processes[name] = SimulatedProcess(config)
            processes[name].start()
            targets.append(_target(port, number, poll_s=2.0))
        for process in processes.values():
            process.wait_ready()
        prober = Prober(targets, deliver)
        prober.start()
        try:
            for _ in range(KILLS // KILLED_NODES):
                for name, process in processes.items():
                    wait(name, None)
                    began = time.monotonic()
                    process.kill()
                    took.append(wait(name, Fault.DEAD) - began)
                    process.start()
                    process.wait_ready()
        finally:
            prober.stop()
            for process in processes.values():
                process.stop()
    tell(
        f"{len(took)} kills: median {statistics.median(took) * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms"
    )
    return {
        "kills": len(took),
        "poll_s": 2.0,
        "median_s": round(statistics.median(took), 5),
        "p99_s": round(_share(took, 99), 5),
        "max_s": round(max(took), 5),
    }


# ---------------------------------------------------------------- a thousand nodes


class _NoBus:
    def fire(self, tag, data):
        return True


class _Engine:
    """The engine's side without Salt: prober, healer and ledger, as in the engine."""

    def __init__(self, ports, folder, views):
        clusters = {}
        for number, port in enumerate(ports):
            name = f"c{number // 10}"
            cluster = clusters.setdefault(
                name, {"minions": "*", "nodes": {}, "poll": "1s", "timeout": "1s"}
            )
            cluster["nodes"][f"n{number}"] = f"{LOOPBACK}:{port}"
        settings = EngineSettings.model_validate({"clusters": clusters, "mode": "shadow"})
        self._settings, self._folder = settings, Path(folder)
        self.healer = None
        self.starts = {}
        plans = {name: ViewPlan(5.0, 20.0) for name in clusters} if views else {}
        self.prober = Prober(targets(settings.clusters), self._take, plans)
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _take(self, event):
        if isinstance(event, Observed):
            seen = event.observation
            self.starts.setdefault(seen.node, []).append(time.monotonic() - seen.latency_s)
        self.healer.deliver(event)

    def _run(self):
        ledger = Ledger(self._folder / "ledger.sqlite3")
        self.healer = Healer(
            settings=self._settings, ledger=ledger, bus=_NoBus(), mint=lambda: "0" * 20
        )
        self._ready.set()
        # Healer.run() never returns, so here are its turns.
        tick = time.monotonic()
        while not self._stop.is_set():
            self.healer.turn(0.05)
            if time.monotonic() >= tick:
                tick = time.monotonic() + 0.1
                self.healer.tick()
        ledger.close()

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        self.prober.start()
        return self

    def __exit__(self, *_):
        self.prober.stop()
        self._stop.set()
        self._thread.join()

    def wait_until_well(self, timeout_s=60.0):
        """Until a thousand handshakes are over and every node was seen well."""
        deadline = time.monotonic() + timeout_s
        while not all(
            n.well for c in self.healer.state.clusters.values() for n in c.nodes.values()
        ):
            if time.monotonic() > deadline:
                raise TimeoutError("not every node became well")
            time.sleep(0.2)

    def lateness(self, since, nodes=None):
        """How late each probe began, by its own node's cadence of one second; seconds."""
        late = []
        for node, starts in self.starts.items():
            if nodes is not None and node not in nodes:
                continue
            mine = [t for t in starts if t >= since]
            if len(mine) > 2:
                # The cadence is one second; whoever begins later than the earliest of its own phases is late.
                off = [t - mine[0] - round(t - mine[0]) for t in mine]
                late += [value - min(off) for value in off]
        return late


def crowd(tell):
    """A thousand nodes each second: CPU, memory, lateness; then one of them stopped, then three hundred."""
    with (
        Crowd(CROWD - 301) as well,
        Crowd(1) as one,
        Crowd(300) as many,
        tempfile.TemporaryDirectory() as folder,
    ):
        ports = [*well.ports, *one.ports, *many.ports]
        others = {f"n{n}" for n in range(CROWD - 301)}
        with _Engine(ports, folder, views=True) as engine:
            engine.wait_until_well()
            time.sleep(15.0)  # the first views, and what they announce
            me = psutil.Process()
            since, cpu = time.monotonic(), sum(me.cpu_times()[:2])
            time.sleep(WATCH_S)
            cpu_share = (sum(me.cpu_times()[:2]) - cpu) / (time.monotonic() - since)
            late = engine.lateness(since)
            rss = me.memory_info().rss
            probes = len(late)
            tell(
                f"{probes} probes in {WATCH_S:g} s: {cpu_share:.2f} of a core, p99 {_share(late, 99) * 1000:.1f} ms late"
            )
            base = engine.lateness(since, others)

            figures = {}
            for name, stopped in (("one_stopped", [one]), ("many_stopped", [one, many])):
                for each in stopped:
                    each.pause()
                time.sleep(3.0)
                since = time.monotonic()
                time.sleep(WATCH_S)
                now = engine.lateness(since, others)
                figures[name] = {
                    "p99_late_s": round(_share(now, 99), 4),
                    "median_late_s": round(statistics.median(now), 4),
                    "p99_ratio": round(_share(now, 99) / max(_share(base, 99), 1e-4), 2),
                }
                tell(f"{name}: the others' p99 {_share(now, 99) * 1000:.1f} ms late")
    return {
        "nodes": CROWD,
        "poll_s": 1.0,
        "probes": probes,
        "cpu_share": round(cpu_share, 3),
        "rss_mb": round(rss / 1e6, 1),
        "p99_late_s": round(_share(late, 99), 4),
        "others_p99_late_s": round(_share(base, 99), 4),
        **figures,
    }


# ---------------------------------------------------------------- cost of one probe


class _Bare(asyncio.Protocol):
    """The floor: the same frame out, the same answer in, and nothing else."""

    def __init__(self):
        self.answer = None
        self.buffer = b""

    def data_received(self, data):
        self.buffer += data
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(None)


def cost(tell):
    """CPU time per probe on an open connection, beside a bare asyncio.Protocol that exchanges the same bytes."""

    async def go():
        loop = asyncio.get_running_loop()
        resolver = Resolver()
        with Crowd(1) as server, ThreadPoolExecutor(1) as crypto:
            look = NodeProbe(_target(server.ports[0]), resolver, crypto)
            await look.probe()
            frame = net.Query(Query.QueryType.SERVER_INFO, 1, None, None).serialize()
            # The bare connection borrows the handshake of a Wire, then talks by itself.
            pace, one = Pace(), _target(server.ports[0])
            transport, wire = await loop.create_connection(
                lambda: Wire(pace.turn), one.address.host, one.address.port
            )
            await wire.greet(
                one.address.host, one.address.port, one.user, one.password, loop.time() + 5.0,
                crypto, await pace.place(False),
            )  # fmt: skip
            bare = _Bare()
            transport.set_protocol(bare)
            ratios, ours_us, bare_us = [], [], []
            for _ in range(5):
                began = time.thread_time()
                for _ in range(PROBES // 5):
                    await look.probe()
                ours = time.thread_time() - began
                began = time.thread_time()
                for _ in range(PROBES // 5):
                    bare.buffer = b""
                    bare.answer = loop.create_future()
                    transport.write(frame)
                    await bare.answer
                floor = time.thread_time() - began
                ours_us.append(ours / (PROBES // 5) * 1e6)
                bare_us.append(floor / (PROBES // 5) * 1e6)
                ratios.append(ours / floor)
            look.close()
            transport.abort()
            await asyncio.sleep(0)
        resolver.close()
        return statistics.median(ratios), statistics.median(ours_us), statistics.median(bare_us)

    ratio, ours_us, bare_us = asyncio.run(go())
    tell(f"a probe costs {ours_us:.0f} us of CPU, the bare exchange {bare_us:.0f} us: {ratio:.2f}")
    return {
        "probe_us": round(ours_us, 1),
        "bare_us": round(bare_us, 1),
        "cost_ratio": round(ratio, 3),
    }


# ---------------------------------------------------------------- leaks


def leak(tell):
    """Ten thousand timeouts, ten thousand refusals: file descriptors, threads, tasks, memory."""

    async def many(target, count, expected, marks):
        resolver = Resolver()
        with ThreadPoolExecutor(1) as crypto:
            looks = [NodeProbe(target, resolver, crypto) for _ in range(50)]

            async def work(look, rounds):
                for _ in range(rounds):
                    seen = await look.probe()
                    if seen.fault not in expected:
                        raise AssertionError(seen)

            done = 0
            for part in (1000, count - 1000):
                await asyncio.gather(*(work(look, part // len(looks)) for look in looks))
                done += part
                gc.collect()
                marks.append(
                    {
                        "done": done,
                        "fds": psutil.Process().num_fds(),
                        "threads": threading.active_count(),
                        "tasks": len(asyncio.all_tasks()),
                        "bytes": tracemalloc.get_traced_memory()[0],
                    }
                )
            for look in looks:
                look.close()
        resolver.close()

    figures = {}
    with Crowd(1) as silent:
        silent.pause()
        closed = free_port()
        for name, target, expected in (
            # A stopped process accepts as long as its backlog lasts; both ways of not answering are timeouts.
            ("timeouts", _target(silent.ports[0], timeout_s=0.05), (Fault.HUNG, Fault.UNREACHABLE)),
            ("refused", _target(closed, timeout_s=0.5), (Fault.DEAD,)),
        ):
            marks = []
            tracemalloc.start()
            asyncio.run(many(target, DIALS, expected, marks))
            tracemalloc.stop()
            first, last = marks
            figures[name] = {
                "dials": DIALS,
                "fds_grown": last["fds"] - first["fds"],
                "threads_grown": last["threads"] - first["threads"],
                "tasks_grown": last["tasks"] - first["tasks"],
                "memory_grown_mb": round((last["bytes"] - first["bytes"]) / 1e6, 3),
            }
            tell(f"{DIALS} {name}: {figures[name]}")
    return figures
