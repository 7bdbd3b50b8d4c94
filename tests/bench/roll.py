"""What a roll adds to the restarts that it consists of.

Each round restarts three nodes one by one, each by an operator's `force`, and waits after each until all replicas are ready:
that is the peer. Then it rolls the same three nodes. ``ratio`` is the roll's time to the sum of the peer's.
"""

import statistics
import time

from tests.lab.demo import TIMES
from tests.lab.site import Site

NODES = ("db1", "db2", "db3")
WITHIN_S = 60.0


def measure(options, tell):
    """Medians in seconds, and their ratio."""
    singly, rolled = [], []
    with Site(settings=_settings, server=options.server, apps=(), tell=tell) as site:
        site.wait_until_quiet()
        _until_ready(site)
        for number in range(options.rounds):
            with site.events("selfheal/incident/*") as events:
                begun = time.monotonic()
                for node in NODES:
                    asked = site.run_runner("selfheal.force", "runbook", "restart", node, "bench")
                    events.wait(
                        "selfheal/incident/runbook/resolved",
                        lambda d, one=asked["incident"]: d["incident"] == one,
                        timeout=WITHIN_S,
                    )
                    _until_ready(site)
                singly.append(time.monotonic() - begun)
            begun = time.monotonic()
            told = site.run_runner("selfheal.roll", "runbook", "restart", reason="bench")
            _until_ready(site)
            rolled.append(time.monotonic() - begun)
            if told["stopped"]:
                raise RuntimeError(told["stopped"])
            tell(f"round {number + 1}: singly {singly[-1]:.2f} s, rolled {rolled[-1]:.2f} s")
    return {
        "server": site.server,
        "rounds": options.rounds,
        "nodes": len(NODES),
        "singly_s": round(statistics.median(singly), 3),
        "rolled_s": round(statistics.median(rolled), 3),
        "ratio": round(statistics.median(rolled) / statistics.median(singly), 3),
    }


def _settings(site):
    return site.cluster_settings(engine={"limits": "off"}, **{**TIMES, "budget": "off"})


def _until_ready(site):
    """Until the quorum is proved for a further node, and all replicas are ready."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        (entry,) = site.run_runner("selfheal.explain", "runbook", "db1")["entries"]
        if "quorum" not in entry["shut"] and entry["replicas"] == "all ready":
            return
        time.sleep(0.05)
    raise RuntimeError(f"the replicas are not ready: {entry['replicas']}")
