"""Nothing is inherited by fork: as Python 3.14 starts processes by default, and Salt can be told to."""

import json
import subprocess
import sys

import pytest

from tests.functional.conftest import REACTOR, SETTINGS

#: A file, because a process from a forkserver imports the main module anew.
SCRIPT = '''
import json, multiprocessing, sys, time

import salt.config, salt.engines, salt.loader, salt.utils.platform, salt.utils.process, salt.utils.reactor


class Reacting(salt.utils.process.Process):
    """Renders a reaction, as the master's reactor does in its own process."""

    def __init__(self, opts, data, sls, out, **kwargs):
        super().__init__(**kwargs)
        self.opts, self.data, self.sls, self.out = opts, data, sls, out

    def run(self):
        reactor = salt.utils.reactor.Reactor(self.opts)
        tag = "selfheal/remediate/restart"
        self.out.put(reactor.reactions(tag, self.data, [self.sls]))


def main():
    multiprocessing.set_start_method("forkserver")
    if not salt.utils.platform.spawning_platform():
        print(json.dumps({"skip": "this Salt hands functions over, which only a fork can"}))
        return
    opts = salt.config.master_config(sys.argv[1])
    opts["engines"] = json.loads(sys.argv[2])
    engine = salt.engines.Engine(opts, "selfheal.start", {}, None, None, None, name="Engine(selfheal)")
    engine.start()
    try:
        runner = salt.loader.runner(opts)
        give_up_at, fired = time.monotonic() + 60, []
        while not fired and time.monotonic() < give_up_at:
            time.sleep(0.1)
            rows = runner["selfheal.history"](limit=100)
            # An object, as long as there is no ledger.
            fired = [r for r in rows if r["kind"] == "fire"] if isinstance(rows, list) else []
        out = multiprocessing.Queue()
        reacting = Reacting(opts, {"jid": fired[0]["jid"]} if fired else {}, sys.argv[3], out)
        reacting.start()
        told = {
            "method": multiprocessing.get_start_method(),
            "status": runner["selfheal.status"]()["engine"],
            "fired": [row["action"] for row in fired],
            "reactions": out.get(timeout=60),
        }
        reacting.join()
    finally:
        engine.kill()
        engine.join()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
'''


def test_engine_runner_and_reactor_work_in_processes_that_inherit_nothing(opts, tmp_path):
    cluster = {
        **SETTINGS["clusters"]["runbook"],
        "poll": "200ms",
        "confirm": 0,
        "stable": 0,
        "witness": "off",
    }
    settings = {"clusters": {"runbook": cluster}}
    script = tmp_path / "begin.py"
    script.write_text(SCRIPT)
    sls = str(REACTOR / "restart.sls")
    done = subprocess.run(
        [sys.executable, str(script), opts["conf_file"], json.dumps([{"selfheal": settings}]), sls],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    if "skip" in told:
        pytest.skip(told["skip"])
    assert told["method"] == "forkserver"
    assert told["status"] == "running"
    assert "restart" in told["fired"]
    (reaction,) = told["reactions"]
    assert (reaction["fun"], reaction["arg"]) == ("service.restart", ["rethinkdb"])
