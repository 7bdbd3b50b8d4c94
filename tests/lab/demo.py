"""
The main job in three acts, told live: a killed node, a node with a damaged config, a config that drifted.

``python -m tests.lab.demo`` (``make demo``) starts a whole site, breaks it three times, watches it heal and writes
``artifacts/demo.json``. Nothing here heals anything: it only breaks, waits for events and tells.
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from saltext_selfheal.healing.remedies import ASKING
from tests.lab.site import CHECKOUT, REAL, SIMULATED, Site

#: Short times, so that three incidents fit into a minute. A production cluster takes the defaults.
TIMES = {
    "poll": "500ms",
    "timeout": "1s",
    "confirm": "1s",
    "stable": "2s",
    "attempt": {"timeout": "60s", "verify": "5s"},
    "cooldown": "off",
    "flapping": "off",
    "relapse": "off",
    "budget": {"attempts": 10, "per": "1h"},
}
#: So much happens in this minute that an hour's limits would hold the last act.
LIMITS = {"attempts": 30, "per": "1h"}
HEALS_WITHIN_S = 60.0


class Stage:
    """The site, the clock and the voice."""

    def __init__(self, site, console, began):
        self.site = site
        self.console = console
        self.began = began

    def tell(self, text, style=""):
        self.console.print(f"[dim]{time.monotonic() - self.began:6.1f} s[/]  ", end="")
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def follow(self, events, healed, since):
        """Tell every announcement until ``healed()`` and the incident's end. Returns the act's figures."""
        told, act = 0, {
            "healed": False,
            "detected_s": None,
            "healed_s": None,
            "action": None,
            "incident": None,
        }
        while time.monotonic() - since < HEALS_WITHIN_S:
            for event in list(events)[told:]:
                told += 1
                data = event.data
                if event.tag.startswith("selfheal/remediate/"):
                    if data["action"] not in ASKING:
                        act["action"] = data["action"]
                    self.tell(
                        f"  → {data['action']} on {', '.join(data['minions'])}, job {data['jid']}",
                        "cyan",
                    )
                    continue
                act["incident"] = data["incident"]
                if act["detected_s"] is None:
                    act["detected_s"] = round(event.at - since, 3)
                said = event.tag.rpartition("/")[2]
                note = " (it goes on by itself when that is over)" if said == "held" else ""
                self.tell(
                    f"  {data['incident']} {said}: {data['why']}{note}",
                    "green" if data["phase"] == "resolved" else "",
                )
                if data["phase"] == "resolved" and act["healed_s"] is not None:
                    act["healed"] = True
                    return act
                if data["phase"] == "locked":
                    return act
            if act["healed_s"] is None and healed():
                act["healed_s"] = round(time.monotonic() - since, 3)
                self.tell(f"  healed {act['healed_s']:.2f} s after the fault", "bold green")
            time.sleep(0.01)
        return act

    def act(self, name, story, fault, healed):
        self.console.print()
        self.tell(f"{name}: {story}", "bold")
        with self.site.events("selfheal/incident/*", "selfheal/remediate/*") as events:
            since = time.monotonic()
            fault()
            return {"name": name, **self.follow(events, healed, since)}


def play(stage):
    """The three acts, in order."""
    site, nodes = stage.site, stage.site.nodes

    def kill():
        nodes["db2"].kill()

    yield stage.act(
        "killed",
        "db2's server gets SIGKILL; nobody but the healer does anything",
        kill,
        nodes["db2"].serving,
    )

    def damage():
        nodes["db1"].damage_config()
        nodes["db1"].kill()

    yield stage.act(
        "damaged",
        "db1's config is damaged and its server killed: a restart cannot help, a highstate must",
        damage,
        lambda: nodes["db1"].serving() and nodes["db1"].config_is_right(),
    )

    def drift():
        nodes["db3"].drift_config()
        answer = site.api(
            client="local",
            tgt="app1",
            fun="selfheal.highstate",
            arg=["runbook"],
            kwarg={"reason": "db3's config is not what it should be"},
        )
        stage.tell(f"  app1 asks through salt-api: {answer.json()['return'][0]}", "cyan")

    yield stage.act(
        "drifted",
        "db3's config drifts while it serves: no probe can see that, so the application asks",
        drift,
        nodes["db3"].config_is_right,
    )


def summary(console, acts, server):
    table = Table(title=f"Three acts on a {server} RethinkDB cluster", title_justify="left")
    for heading in ("act", "healed", "noticed after", "healed after", "last action", "incident"):
        table.add_column(heading)
    for act in acts:
        table.add_row(
            act["name"],
            "yes" if act["healed"] else "NO",
            "-" if act["detected_s"] is None else f"{act['detected_s']:.2f} s",
            "-" if act["healed_s"] is None else f"{act['healed_s']:.2f} s",
            act["action"] or "-",
            act["incident"] or "-",
        )
    console.print()
    console.print(table)


def main():
    """Show how a killed, a damaged and a drifted RethinkDB heal through Salt."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.demo", description=main.__doc__)
    parser.add_argument("--server", choices=[REAL, SIMULATED], help="default: real where it exists")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "artifacts" / "demo.json")
    options = parser.parse_args()

    # The lab's own event listener complains when its master goes down with the rest.
    logging.disable(logging.CRITICAL)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    stage = Stage(None, console, time.monotonic())
    site = Site(
        settings=lambda s: s.cluster_settings(engine={"limits": LIMITS}, **TIMES),
        server=options.server,
        tell=stage.tell,
    )
    stage.site = site
    stage.tell(
        f"a whole Salt site with a {site.server} RethinkDB cluster of three, for this demo only",
        "bold",
    )
    stage.tell(f"times of this demo: {', '.join(f'{k} {v}' for k, v in TIMES.items())}")
    with site:
        stage.tell("the healer warms up: it never acts in its first 15 seconds")
        site.wait_until_quiet()
        acts = list(play(stage))
        summary(console, acts, site.server)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"server": site.server, "acts": acts}, indent=2) + "\n")
    ok = len(acts) == 3 and all(act["healed"] for act in acts)
    stage.tell(
        "every act healed" if ok else "NOT every act healed", "bold green" if ok else "bold red"
    )
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
