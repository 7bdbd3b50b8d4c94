"""
The article's outage in virtual time: its application's rules beside ours.

The rules are those of "Building Self-Healing Applications with Saltstack" (2014), with its misplaced line: the time of
the last restart is set whether or not a restart was asked for. ``python -m tests.lab.article`` prints the table of
docs/article.md.
"""

import random
import sys
from unittest import mock

from saltext_selfheal import app
from saltext_selfheal.app import connecting
from saltext_selfheal.app import help as calling

HOUR_S = 3600.0
APPLICATIONS = 10
REPLICAS = 3


def article(outage_s=HOUR_S):
    """Of one application process: its attempts, and its calls as (second, action)."""
    calls = []
    restarted = highstated = None
    attempts = 0
    now = 0.0
    while now < outage_s:
        attempts += 1
        if now >= 300:
            if restarted is None or now - restarted >= 600:
                if now > 600:
                    calls.append((now, "restart"))
                restarted = now
            if highstated is None or now - highstated >= 300:
                calls.append((now, "highstate"))
                highstated = now
        now += 60
    return attempts, calls


class Virtual:
    """A clock that only sleeping moves."""

    def __init__(self, seed=0):
        self.now = 0.0
        self.chance = random.Random(seed)

    def pause(self, seconds, stop=None):
        """Sleep."""
        self.now += seconds

    def timing(self):
        """For `connect` and `healing`."""
        return connecting.Timing(
            clock=lambda: self.now, pause=self.pause, uniform=self.chance.uniform
        )

    def help(self, via, **options):
        """A Help of a process of its own, whose calls take no time."""
        options = {"calls": calling.Calls(), "start": lambda work: work(), **options}
        return app.Help(via, "runbook", clock=lambda: self.now, **options)


class Noting:
    """A door that only notes who calls."""

    def __init__(self, clock):
        self.clock = clock
        self.calls = []

    def ask(self, cluster, action, reason, request):
        """As a door does."""
        self.calls.append((self.clock.now, action))
        return {"reply": "joined", "incident": f"{cluster}-1"}


def ours(outage_s=HOUR_S, seed=0):
    """Of one application process: its attempts as seconds, its calls as (second, action), when it was connected."""
    clock = Virtual(seed)
    door = Noting(clock)
    tried = []

    def dial(*_):
        tried.append(clock.now)
        if clock.now < outage_s:
            raise ConnectionRefusedError
        return "connection"

    with mock.patch("saltext_selfheal.app.dial.dial", dial):
        app.connect(["db1"], help=clock.help(door), timing=clock.timing())
    return tried, door.calls, clock.now


def followed(calls, warm_s=60):
    """What the healer makes of calls while every node stays dead, whatever is done: (jobs, incidents, replies)."""
    from saltext_selfheal.healing.model import Outcome
    from tests.unit.world import World

    world = World().warm()
    world.pass_time(warm_s)
    world.break_("db1", "db2", "db3")
    began, told = world.now, []
    waiting = sorted(calls)
    while waiting:
        world.pass_time(1)
        flying = world.in_flight
        if flying is not None and flying.published_at is None:
            world.publish()
        elif flying is not None:
            world.returns(Outcome.FAILED, "it does not start")
        while waiting and began + waiting[0][0] <= world.now:
            at, action = waiting.pop(0)
            told.append(world.ask(action, id=f"r{len(told)}-{at}").reply.value)
    return len(world.fired), len({incident for incident, _ in world.said}), told


def by_minute(calls):
    """Minute → the actions called for in it."""
    told = {}
    for at, action in calls:
        told.setdefault(int(at // 60), []).append(action)
    return told


def table():
    """One application process in an hour's outage, minute by minute; only minutes in which somebody calls."""
    theirs = by_minute(article()[1])
    tried, calls, _ = ours()
    mine = by_minute(calls)
    rows = ["| minute | the article's | ours | tries so far: its, ours |", "|---|---|---|---|"]
    for minute in sorted({0, 1, *theirs, *mine}):
        so_far = sum(at < 60 * (minute + 1) for at in tried)
        what = [", ".join(sorted(side.get(minute, []))) or "–" for side in (theirs, mine)]
        rows.append(f"| {minute} | {what[0]} | {what[1]} | {minute + 1}, {so_far} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
