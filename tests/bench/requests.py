"""
A storm of requests: three thousand from fifty askers through three doors at once, for a cluster that is down.

On a real site: hooks by HTTP and signed, the runner by salt-api, the bus by events. Beside it the article's way, a
reactor that publishes a job per hook; and the core and its intake alone, without any daemon.
"""

import gc
import itertools
import json
import random
import sqlite3
import statistics
import tempfile
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from saltext_selfheal.doors import bus, forms
from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.events import Door, Observation, Observed, Requested, Tick
from saltext_selfheal.healing.model import Fault, Limits, Policy
from saltext_selfheal.healing.remedies import ASKING
from saltext_selfheal.healing.start import begin
from saltext_selfheal.healing.step import step
from saltext_selfheal.ledger import inbox
from saltext_selfheal.ledger.writer import Ledger
from tests.lab.ports import free_port
from tests.lab.site import Site, new_webhook_secret, package_reactor

REQUESTS = 3000
BY_RUNNER = 100
BY_BUS = 100
ASKERS = 50
#: Whoever signs; with the runner's login and the bus they are fifty.
CALLERS = {f"app{number}": new_webhook_secret() for number in range(ASKERS - 2)}
ARTICLE = 200
STRAIGHT = 100_000


def measure(options, tell):
    """All of it."""
    return {**storm(options, tell), **straight(tell)}


def _settings(site):
    """A cluster that stays down, whatever is done: nobody listens where its nodes should be."""
    made = site.cluster_settings(
        confirm={"default": "1s"},
        attempt={"timeout": "30s", "verify": "10s"},
    )
    made["webhooks"] = {
        name: {"secret": secret, "clusters": ["runbook"]} for name, secret in CALLERS.items()
    }
    cluster = made["clusters"]["runbook"]
    cluster["nodes"] = {node: f"127.0.0.1:{free_port()}" for node in cluster["nodes"]}
    return made


def _database(path):
    db = sqlite3.connect(path, timeout=10)
    db.row_factory = sqlite3.Row
    return db


def _bytes(path):
    """What the ledger holds: pages in use, whether or not they have left the log yet."""
    with _database(path) as db:
        return (
            db.execute("PRAGMA page_count").fetchone()[0]
            * db.execute("PRAGMA page_size").fetchone()[0]
        )


def _overlap(path):
    """The most attempts that were in flight at once."""
    with _database(path) as db:
        asking = tuple(action.value for action in ASKING)
        rows = db.execute(
            "SELECT decided_at, ended_at FROM attempts"
            f" WHERE action NOT IN ({', '.join('?' * len(asking))})",
            asking,
        ).fetchall()
    points = sorted(
        [(r["decided_at"], 1) for r in rows] + [(r["ended_at"], -1) for r in rows if r["ended_at"]]
    )
    return max(itertools.accumulate(change for _, change in points), default=0)


def storm(options, tell):
    """The three doors at once."""
    with tempfile.TemporaryDirectory() as folder:
        article = Path(folder) / "article.sls"
        article.write_text("ping:\n  local.test.ping:\n    - tgt: 'db*'\n")
        reactor = [*package_reactor(), {"salt/netapi/hook/article": [str(article)]}]
        with Site(
            settings=_settings, reactor=reactor, server=options.server, hooks=True, tell=tell
        ) as site:
            path = Path(site.run_runner("selfheal.status")["ledger"])
            with site.events("selfheal/incident/runbook/*") as events:
                events.wait("*/remediating", timeout=90)
            engine = site.engine()
            rss, size = engine.memory_info().rss, _bytes(path)
            with _database(path) as db:
                before = db.execute("SELECT count(*) FROM inbox").fetchone()[0]

            site.api_login()
            taken, answers, empty = [], [], []
            lock = threading.Lock()

            def hooks():
                for number in range(REQUESTS - BY_RUNNER - BY_BUS):
                    caller = f"app{number % len(CALLERS)}"
                    name = f"h{number}"
                    body = {"cluster": "runbook", "action": "highstate", "reason": "no connection"}
                    reply = site.hook(
                        "selfheal/runbook/highstate", body, secret=CALLERS[caller], id=name
                    )
                    if reply.status_code == 200 and reply.json().get("success"):
                        with lock:
                            taken.append(f"{caller}:{name}")

            def runner(number):
                began = time.monotonic()
                reply = site.api(
                    client="runner", fun="selfheal.trigger", cluster="runbook", request=f"r{number}",
                    reason="no connection",
                ).json()["return"][0]  # fmt: skip
                answered = time.monotonic()
                site.api(client="runner", fun="test.arg").raise_for_status()
                with lock:
                    answers.append(answered - began)
                    empty.append(time.monotonic() - answered)
                    taken.append(reply["request"])

            def bus():
                for number in range(BY_BUS):
                    site.fire(
                        "selfheal/request/runbook",
                        {"id": "app1", "data": {"request": f"b{number}"}},
                    )
                    taken.append(f"bus:b{number}")
                    time.sleep(random.uniform(0, 0.1))

            began = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                jobs = [pool.submit(hooks), pool.submit(bus)]
                jobs += [pool.submit(runner, number) for number in range(BY_RUNNER)]
                for job in jobs:
                    job.result()
            missing = _unanswered(path, taken)
            took = time.monotonic() - began
            with _database(path) as db:
                kept = db.execute("SELECT count(*) FROM inbox").fetchone()[0] - before
                incidents = {
                    json.loads(r["answer"])["incident"]
                    for r in db.execute("SELECT answer FROM inbox WHERE answer IS NOT NULL")
                } - {None}
                waited = sorted(
                    r["answered_at"] - r["put_at"]
                    for r in db.execute("SELECT put_at, answered_at FROM inbox")
                    if r["answered_at"]
                )
            tell(f"{len(taken)} requests in {took:.0f} s, {len(missing)} without an answer")
            grown = engine.memory_info().rss - rss
            figures = {
                "server": site.server,
                "requests": len(taken),
                "took_s": round(took, 1),
                "incidents": len(incidents),
                "max_in_flight": _overlap(path),
                "lost": len(missing),
                # Hooks and events have no row before their answer: this is the runners'.
                "decision_p99_s": round(waited[-1 - BY_RUNNER // 100], 4),
                "runner_median_s": round(statistics.median(answers), 3),
                "empty_median_s": round(statistics.median(empty), 3),
                "runner_above_s": round(statistics.median(answers) - statistics.median(empty), 3),
                "ledger_bytes_per_request": round((_bytes(path) - size) / max(1, kept)),
                "engine_rss_grown_mb": round(grown / 1e6, 1),
            }
            with site.events("salt/job/*/new") as events:
                for number in range(ARTICLE):
                    site.hook("article", {"number": number})
                deadline = time.monotonic() + 60
                while (
                    len(events.matching("salt/job/*/new")) < ARTICLE and time.monotonic() < deadline
                ):
                    time.sleep(0.2)
                article_jobs = sum(e.data["fun"] == "test.ping" for e in events.matching("*"))
            tell(f"the article's way: {ARTICLE} requests, {article_jobs} jobs")
            return {
                **figures,
                "article_requests": ARTICLE,
                "article_jobs": article_jobs,
                "article_jobs_extrapolated": round(article_jobs * REQUESTS / ARTICLE),
            }


def _unanswered(path, ids, within_s=30.0):
    """Ids without an answer, after a while."""
    deadline = time.monotonic() + within_s
    while True:
        with _database(path) as db:
            answered = {
                r["key"] for r in db.execute("SELECT key FROM inbox WHERE answered_at IS NOT NULL")
            }
        missing = [one for one in ids if one not in answered]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.2)


# ---------------------------------------------------------------- without daemons


def straight(tell):
    """A hundred thousand requests into intake and core; and from the inbox to the committed answer."""
    policy = Policy(
        name="runbook",
        nodes=("db1", "db2", "db3"),
        minions="db*",
        confirm_s=dict.fromkeys(Fault, 3.0),
        escalation=dict(escalation.DEFAULT),
    )
    now = 1_000_000.0
    state, _ = begin({"runbook": policy}, Limits(), {}, now)
    for _ in range(30):
        now += 1.0
        for node in policy.nodes:
            seen = Observation("runbook", node, Fault.DEAD, "refused")
            state, _ = step(state, Observed(seen), now)
        state, _ = step(state, Tick(), now)
    began = time.process_time()
    state = _ask_straight(state, now, [])
    took = time.process_time() - began
    marks = []
    tracemalloc.start()
    _ask_straight(state, now, marks)
    tracemalloc.stop()
    decided = _decided()
    tell(f"{STRAIGHT / took:,.0f} requests/s; from the inbox to the answer {decided * 1000:.0f} ms")
    return {
        "straight_per_s": round(STRAIGHT / took),
        "straight_grown_mb": round((marks[1] - marks[0]) / 1e6, 3),
        "decision_alone_p99_s": round(decided, 4),
    }


def _ask_straight(state, now, marks):
    for number in range(STRAIGHT):
        data = {"data": {"reason": "down", "request": f"r{number}"}, "id": f"app{number % ASKERS}"}
        request = bus.from_bus("selfheal/request/runbook", data)
        state, _ = step(state, Requested(request), now)
        if tracemalloc.is_tracing() and number in (STRAIGHT // 10, STRAIGHT - 1):
            gc.collect()
            marks.append(tracemalloc.get_traced_memory()[0])
    return state


def _decided():
    """From a row that is read out of the inbox to its committed answer, in a storm of a thousand."""
    from saltext_selfheal.config import EngineSettings
    from saltext_selfheal.loop.healer import Healer

    class _NoBus:
        def fire(self, tag, data):
            return True

    cluster = {"minions": "db*", "nodes": {"db1": "127.0.0.1"}}
    settings = EngineSettings.model_validate({"clusters": {"runbook": cluster}})
    took = []
    with tempfile.TemporaryDirectory() as folder:
        book = Ledger(Path(folder) / "ledger.sqlite3")
        healer = Healer(settings=settings, ledger=book, bus=_NoBus(), mint=lambda: "0" * 20)
        read_at = [0.0]
        waiting, commit = book.waiting, book.commit

        def timed_waiting(most):
            found = waiting(most)
            read_at[0] = time.perf_counter()
            return found

        def timed_commit(now, changed, effects):
            commit(now, changed, effects)
            took.extend([time.perf_counter() - read_at[0]] * len(list(effects)))

        book.waiting, book.commit = timed_waiting, timed_commit
        for number in range(1000):
            asked = forms.request("runbook", request=f"r{number}", door=Door.RUNNER, asker="app")
            inbox.ask(book.path, asked)
        healer.tick()
        book.close()
    return sorted(took)[int(len(took) * 0.99)]
