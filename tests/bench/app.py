"""
The application's side: what its calls cost Salt in an hour's outage, what `connect` adds to the driver's, how soon it
is connected again. The outages pass in virtual time.
"""

import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

from rethinkdb import RethinkDB

from saltext_selfheal import app
from saltext_selfheal.driver.causes import Stage
from tests.lab import article
from tests.lab.ports import free_port
from tests.lab.simulated import SimulatedProcess, write_config

CONNECTS = 300
OUTAGES = 200


def measure(options, tell):
    """All of it."""
    return {"calls": calls(tell), "connect": cost(tell), "return": back(tell)}


def calls(tell):
    """Ten applications, an hour without any node."""
    theirs = article.article()[1] * article.APPLICATIONS
    mine = [call for seed in range(article.APPLICATIONS) for call in article.ours(seed=seed)[1]]
    jobs, incidents, _ = article.followed(mine)
    figures = {
        "applications": article.APPLICATIONS,
        "article_highstates": sum(action == "highstate" for _, action in theirs),
        "article_restarts": sum(action == "restart" for _, action in theirs),
        "article_jobs": len(theirs),
        "our_calls": len(mine),
        "our_jobs": jobs,
        "our_incidents": incidents,
    }
    tell(f"jobs: {len(theirs)} on all replicas by the article's rules, {jobs} on one by ours")
    return figures


def cost(tell):
    """A login to a node that is well, by the driver's own connect and by ours, alternately."""
    r = RethinkDB()
    port = free_port()
    took = {"driver": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(
            Path(folder) / "db1.conf",
            directory=Path(folder) / "db1",
            driver_port=port,
            cluster_port=free_port(),
            initial_password="secret",
        )
        with SimulatedProcess(config):
            for _ in range(CONNECTS):
                began = time.perf_counter()
                r.connect(host="127.0.0.1", port=port, password="secret").close(False)
                took["driver"].append(time.perf_counter() - began)
                began = time.perf_counter()
                app.connect([("127.0.0.1", port)], password="secret").close(False)
                took["ours"].append(time.perf_counter() - began)
    driver, ours = (statistics.median(took[name]) for name in ("driver", "ours"))
    tell(f"connect: {1000 * ours:.2f} ms, the driver's own {1000 * driver:.2f} ms")
    return {
        "connects": CONNECTS,
        "driver_ms": round(1000 * driver, 3),
        "ours_ms": round(1000 * ours, 3),
        "added_ms": round(1000 * (ours - driver), 3),
    }


def beside_a_hung_host(outage_s, seed):
    """How late a node that refused until then is connected, beside one that takes TCP and says nothing."""
    clock = article.Virtual(seed)

    def dial(address, _, patience_s, progress):
        if address.host == "hung":
            progress.stage = Stage.HANDSHAKE
            clock.now += patience_s
            raise TimeoutError
        if clock.now < outage_s:
            raise ConnectionRefusedError
        return "connection"

    with mock.patch("saltext_selfheal.app.dial.dial", dial):
        app.connect(["back", "hung"], timing=clock.timing())
    return clock.now - outage_s


def back(tell):
    """From a node's return to the connection."""
    figures = {"outages": OUTAGES}
    late = [beside_a_hung_host(59.0, seed) for seed in range(OUTAGES)]
    figures["first_minute_beside_a_hung_host_max_s"] = round(max(late), 3)
    tell(
        f"first_minute, beside a hung host: connected {max(late):.2f} s after its return at the latest"
    )
    for name, outage_s in (("first_minute", 59.0), ("after_an_hour", 3600.0)):
        late = [article.ours(outage_s, seed)[2] - outage_s for seed in range(OUTAGES)]
        figures[f"{name}_median_s"] = round(statistics.median(late), 3)
        figures[f"{name}_max_s"] = round(max(late), 3)
        tell(f"{name}: connected {max(late):.2f} s after the node's return at the latest")
    return figures
