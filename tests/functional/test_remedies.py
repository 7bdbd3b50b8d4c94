"""A new action is a row of the table and one SLS, and nothing else: one is made up here, in a copy of the sources."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saltext_selfheal.app.help import Help
from saltext_selfheal.healing import remedies
from saltext_selfheal.healing.model import Action

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path("src/saltext_selfheal/healing/remedies.py")
NAME = '    LOOK = "look"\n'
ROW = "        Action.LOOK: _question("

#: What the engine, the doors, the runner, the doctor and the reader of results make of it.
ASKS = """
import pathlib, sys
import salt.config, salt.loader, salt.utils.reactor
from saltext_selfheal import config
from saltext_selfheal.doctor import checks
from saltext_selfheal.doctor.master import Master
from saltext_selfheal.doors import bus
from saltext_selfheal.healing.events import Observation, Observed
from saltext_selfheal.healing.model import Action, Fault
from saltext_selfheal.ledger.writer import Ledger
from saltext_selfheal.loop import jobs
from saltext_selfheal.loop.healer import Healer

root = pathlib.Path(sys.argv[1])
(root / "master").write_text(f"root_dir: {root}\\nfile_client: local\\n")
opts = salt.config.master_config(str(root / "master"))
pathlib.Path(opts["cachedir"]).mkdir(parents=True)
cluster = {
    "minions": "db*", "nodes": {"db1": "127.0.0.1:1"}, "poll": "1s", "confirm": 0, "service": "rdb",
    "escalation": {"dead": ["compact"]},
}
hook = {"secret": "whsec_LY6PPA5S0jov2fVWxeme+A==", "clusters": ["runbook"], "actions": ["compact"]}
opts["engines"] = [{"selfheal": {"clusters": {"runbook": cluster}, "webhooks": {"web": hook}}}]
settings = config.load(opts)
print("refused:", end=" ")
opts["engines"][0]["selfheal"]["clusters"]["runbook"]["escalation"] = {"auth": ["compact"]}
try:
    config.load(opts)
except config.ConfigError as exc:
    print(exc)
opts["engines"][0]["selfheal"]["clusters"]["runbook"]["escalation"] = {"dead": ["compact"]}

events = []
class Out:
    def fire(self, tag, data):
        events.append((tag, data))
        return True

ledger = Ledger(settings.ledger_path(opts))
now = [1_000_000.0]
ledger.timeline.now = lambda: now[0]
healer = Healer(settings=settings, ledger=ledger, bus=Out(), mint=lambda: jobs.mint(opts))
(asked,) = bus.doors(settings, lambda *_: ()).take("selfheal/request/runbook", {"action": "compact"})
print("asked:", asked.action)
for _ in range(30):
    now[0] += 1
    healer.handle(Observed(Observation("runbook", "db1", Fault.DEAD, "refused", dialled=True)))
    healer.tick()
(fired,) = [data for tag, data in events if tag == "selfheal/remediate/compact"]
reactor = salt.utils.reactor.Reactor(opts)
sls = next(pathlib.Path(checks.__file__).parents[1].glob("reactor/compact.sls"))
(chunk,) = reactor.reactions("selfheal/remediate/compact", fired, [str(sls)])
print("job:", chunk["fun"], chunk["tgt"], chunk["arg"])
watched = jobs.Watched("a", fired["jid"], Action("compact"), ("db1",))
print("read:", jobs.judge(watched, {"return": True, "retcode": 0})[0].value)
print("doctor:", any("selfheal/remediate/compact" in str(f) for f in checks.check_reactor(Master(opts))))
"""


@pytest.fixture
def copy(tmp_path):
    """The sources with a made-up action: its name, its row, its SLS."""
    src = tmp_path / "src"
    shutil.copytree(ROOT / "src" / "saltext_selfheal", src / "saltext_selfheal",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    table = tmp_path / TABLE
    text = table.read_text()
    assert text.count(NAME) == text.count(ROW) == 1
    row = """        Action.COMPACT: Remedy(
            runs="rdb.compact", reads=results.yes, says="makes files smaller", takes_service=True, never=frozenset({Fault.AUTH})
        ),
"""
    table.write_text(text.replace(NAME, f'{NAME}    COMPACT = "compact"\n').replace(ROW, row + ROW))
    reactor = src / "saltext_selfheal" / "reactor"
    sls = (reactor / "restart.sls").read_text().replace("service.restart", "rdb.compact")
    (reactor / "compact.sls").write_text(sls.replace("restart", "compact"))
    return src


def test_a_made_up_action_is_a_row_and_a_file(copy, tmp_path):
    asking = tmp_path / "asking"
    asking.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ASKS, str(asking)],
        env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "refused: engines.selfheal.clusters.runbook.escalation.auth: found ['compact']; "
        "allowed: for auth any action but compact, which cannot cure it",
        "asked: compact",
        "job: rdb.compact ['db1'] ['rdb']",
        "read: done",
        "doctor: True",
    ]


def test_every_action_has_a_row_and_only_what_may_be_asked_for_can_be_named():
    assert list(remedies.TABLE) == list(Action)
    assert remedies.names() == ("highstate", "restart", "start", "force_restart")
    assert not set(remedies.webhook_names()) - set(remedies.names())
    assert list(remedies.routes()) == [
        ("states", "highstate"),
        ("services", "restart"),
        ("services", "start"),
    ]


def test_an_applications_helper_asks_for_actions_of_the_table():
    """It stands without the rest of the package, so its words are its own."""
    waits = {name for name in inspect.signature(Help).parameters if name.endswith("_after")}
    asked = {name.removesuffix("_after") for name in waits - {"again_after"}}
    assert asked == {"highstate", "restart"}
    assert asked <= set(remedies.webhook_names())
