"""What each kind of evidence adds to the time before the first action.

Four incidents each round, with ``confirm: 0``, so that nothing runs beside it: one where nobody is asked, which is the floor;
one where the node's own minion is; one where observers are; and one whose highstate is tried in test mode first. What is
measured is the time from the first sight of the fault to the order, as the engine's own events tell it.
"""

import statistics

from tests.lab.site import Site

POLL = "500ms"


def measure(options, tell):
    """Medians, in seconds, of what each adds; ``bare_s`` is the floor without any of it."""
    found = {"bare": [], "witness": [], "observers": [], "test_first": []}
    with Site(settings=_settings, server=options.server, apps=("app1", "app2"), tell=tell) as site:
        site.wait_until_quiet()
        db1, db2, db3 = (site.nodes[name] for name in ("db1", "db2", "db3"))
        for number in range(options.rounds):
            found["bare"].append(_waited(site, db1.kill, "bare", "restart"))
            found["witness"].append(_waited(site, db2.kill, "witness", "restart"))
            found["observers"].append(_waited(site, db3.kill, "observers", "restart"))
            # Without a drift a highstate would change nothing there, and would be left out.
            db1.damage_config()
            stopped = _waited(site, db1.pause, "bare", "highstate", ends=db1.resume)
            found["test_first"].append(stopped)
            told = ", ".join(f"{name} {times[-1]:.3f} s" for name, times in found.items())
            tell(f"round {number + 1}: {told}")
    floor = statistics.median(found["bare"])
    added = {
        f"{name}_added_s": round(statistics.median(times) - floor, 4)
        for name, times in found.items()
        if name != "bare"
    }
    return {
        "server": site.server,
        "poll": POLL,
        "rounds": options.rounds,
        "bare_s": round(floor, 4),
        **added,
    }


def _settings(site):
    """A cluster for each kind of evidence, with one node each."""
    whole = site.cluster_settings(engine={"limits": "off"})
    usual = {
        **whole["clusters"]["runbook"],
        "poll": POLL,
        "timeout": "1s",
        "confirm": 0,
        "stable": "500ms",
        "escalation": {"dead": ["restart"], "hung": ["highstate", "restart"]},
        "attempt": {"timeout": "60s", "verify": "5s"},
        **dict.fromkeys(("cooldown", "flapping", "relapse", "budget", "witness", "foreign"), "off"),
    }
    watched = {"minions": "app*", "quorum": 2, "always": True}
    own = {
        "bare": ("db1", {}),
        "witness": ("db2", {"witness": {"timeout": "5s"}}),
        "observers": ("db3", {"observers": watched}),
    }
    nodes = usual["nodes"]
    return {
        **whole,
        "clusters": {
            name: {**usual, **more, "nodes": {node: nodes[node]}}
            for name, (node, more) in own.items()
        },
    }


def _waited(site, breaks, cluster, action, ends=None):
    """From the first sight of the fault to the first order against it. Then the incident is waited for, to its end."""
    with site.events("selfheal/*") as events:
        breaks()
        order = events.wait(f"selfheal/remediate/{action}", timeout=60)
        if ends:
            ends()
        events.wait(f"selfheal/incident/{cluster}/resolved", timeout=60)
        seen = events.wait(f"selfheal/incident/{cluster}/suspected")
        return order.data["at"] - seen.data["at"]
