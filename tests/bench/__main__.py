"""
Measurements, into ``artifacts/bench.json``: each as a ratio to a floor or a peer that was measured in the same run.

``python -m tests.bench [heal …]`` (``make bench``). No test depends on these figures: machines are noisy.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from pathlib import Path

from tests.bench import app, decide, evidence, probe, requests, roll
from tests.lab.site import CHECKOUT, REAL, SIMULATED, Site

ROUNDS = 12

#: The healer at its quickest: it acts on the first proof, and nothing makes it wait between two rounds.
AT_ONCE = {
    "timeout": "1s",
    "confirm": 0,
    "stable": "500ms",
    "escalation": ["restart"],
    "cooldown": "off",
    "flapping": "off",
    "relapse": "off",
    "budget": "off",
}
POLL = "2s"


def heal(options, tell):
    """
    From SIGKILL to serving again: by the healer, and by whoever publishes the same job at the instant of the kill.

    db1 is the healer's. db3 is not watched by it: there the floor is measured, alternately.
    """

    def settings(site):
        made = site.cluster_settings(poll=POLL, engine={"limits": "off"}, **AT_ONCE)
        del made["clusters"]["runbook"]["nodes"]["db3"]
        return made

    healed, floor, fired = [], [], []
    with Site(settings=settings, server=options.server, apps=(), tell=tell) as site:
        site.wait_until_quiet()
        wall = time.time() - time.monotonic()
        with (
            site.local_client() as client,
            site.events("selfheal/*", "salt/job/*/ret/db3") as events,
        ):
            for number in range(options.rounds):
                begin = time.monotonic()
                site.nodes["db3"].kill()
                jid = client.cmd_async("db3", "service.restart", ["rethinkdb"])
                site.nodes["db3"].wait_serving()
                floor.append(time.monotonic() - begin)
                events.wait(f"salt/job/{jid}/ret/db3", timeout=30)

                begin = time.monotonic()
                site.nodes["db1"].kill()
                site.nodes["db1"].wait_serving()
                healed.append(time.monotonic() - begin)
                events.wait("selfheal/incident/runbook/resolved", timeout=30, count=number + 1)
                order = events.wait("selfheal/remediate/restart", count=number + 1)
                fired.append(order.at + wall - order.data["at"])
                tell(f"round {number + 1}: floor {floor[-1]:.3f} s, healed {healed[-1]:.3f} s")
        return {
            "server": site.server,
            "poll": POLL,
            "rounds": options.rounds,
            "floor_s": round(statistics.median(floor), 4),
            "healed_s": round(statistics.median(healed), 4),
            "healed_max_s": round(max(healed), 4),
            "decided_to_fired_s": round(statistics.median(fired), 4),
            "ratio": round(statistics.median(healed) / statistics.median(floor), 3),
        }


BENCHES = {
    "heal": heal,
    "probe": probe.measure,
    "decide": decide.measure,
    "requests": requests.measure,
    "app": app.measure,
    "evidence": evidence.measure,
    "roll": roll.measure,
}


def main():
    """Measure, and write artifacts/bench.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=main.__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--server", choices=[REAL, SIMULATED], help="default: real where it exists")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="of each measurement on the site"
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / "artifacts" / "bench.json")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there is {', '.join(BENCHES)}")

    # The lab's own event listener complains when its master goes down with the rest.
    logging.disable(logging.CRITICAL)
    figures = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.names or BENCHES:
        print(f"{name}:", flush=True)
        figures[name] = BENCHES[name](options, lambda line: print(f"  {line}", flush=True))
        print(json.dumps({name: figures[name]}, indent=2), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
