"""What the doctor says of the reactor's mappings and files."""

import json

import pytest
import salt.utils.yaml

from tests.functional.conftest import REACTOR
from tests.functional.doctor.conftest import HOOKS, lines, mapping, says, settings

RESTART = "selfheal/remediate/restart"


@pytest.mark.parametrize(
    ("entry", "level", "told"),
    [
        ([], "fail", f"{RESTART} is not mapped: nothing would happen"),
        ([{RESTART: ["/nowhere/*.sls"]}], "fail", f"{RESTART}: there is no file /nowhere/*.sls"),
        ([{RESTART: ["salt://no.sls"]}], "fail", f"{RESTART}: there is no file salt://no.sls"),
        ([{RESTART: ["{ours}", "{copy}"]}], "fail", f"{RESTART} has 2 files where one publishes"),
        ([{"*": "{ours}"}, {RESTART: "{ours}"}], "fail", f"{RESTART} has 2 files"),
        ([{RESTART: "{own}"}], "fail", f"{RESTART} leads to no file of the healer's"),
        ([{RESTART: "{look}"}], "fail", "look.sls, which is for another action"),
        ([{RESTART: "{blind}"}], "fail", "acts on an event that the healer did not send"),
        ([{RESTART: "{bad}"}], "fail", "bad.sls does not render: "),
        ([{RESTART: "{copy}"}], "warn", "copy.sls is not the file of this release"),
        ([{RESTART: "salt://copy.sls"}], "warn", "copy.sls is not the file of this release"),
        ([{RESTART: ["{ours}", "{own}"]}], "warn", f"{RESTART} also leads to "),
        ([{RESTART: "{ours}"}, {"selfheal/*": "{own}"}], "warn", "selfheal/* also leads to "),
        ([{RESTART: "{ours}"}, {"selfheal/request/*": "{own}"}], "warn", "request/* also leads"),
        ([{RESTART: "{ours}"}, {"a": "x", "b": "y"}], "fail", "an entry that is not one tag"),
        ([{RESTART: "{ours}"}, {"selfheal/incident/*": "{own}"}], "ok", "your own on selfheal/inc"),
        ([{RESTART: "{glob}"}], "ok", "mapped: highstate, restart, start, force_restart, look"),
    ],
)
def test_reactions(opts, engine, tmp_path, entry, level, told):
    ours = (REACTOR / "restart.sls").read_text()
    files = {
        "copy": ours + "\n",
        "own": "x:\n  runner.y.z: []\n",
        "bad": ours + "{% if %}",
        "blind": "{# 'restart' selfheal.attempt #}\nx:\n  local.test.ping:\n    - tgt: db1\n",
    }
    made = {"ours": REACTOR / "restart.sls", "look": REACTOR / "look.sls"}
    made["glob"] = REACTOR.parent / "reac*" / "restart.sls"
    for name, text in files.items():
        made[name] = tmp_path / "srv" / f"{name}.sls"
        made[name].parent.mkdir(exist_ok=True)
        made[name].write_text(text)
    opts["file_roots"] = {"base": [str(tmp_path / "srv")]}
    text = json.dumps(entry)
    for name, file in made.items():
        text = text.replace(f"{{{name}}}", str(file))
    opts["reactor"] = [m for m in mapping() if RESTART not in m] + json.loads(text)
    says(lines("reactor", opts), level, told)


def test_a_reactor_in_a_file_of_its_own(opts, tmp_path):
    file = tmp_path / "reactor.conf"
    file.write_text(salt.utils.yaml.safe_dump(mapping()))
    opts["reactor"] = str(file)
    says(lines("reactor", opts), "ok", "mapped: highstate, restart, start, force_restart, look")


@pytest.mark.parametrize(
    "pattern", ["salt/netapi/hook/*", "salt/netapi/*", "*", "salt/netapi/hook/x"]
)
def test_a_strangers_reaction_to_open_hooks(opts, engine, pattern):
    opts["reactor"].append({pattern: ["/srv/deploy.sls"]})
    assert not [one for one in lines("reactor", opts) if "webhooks" in one]
    opts["engines"] = [{"selfheal": settings(webhooks=HOOKS)}]
    says(lines("reactor", opts), "fail", f"{pattern} reacts to webhooks")


HEARTBEAT = "selfheal/engine/heartbeat"


def test_a_reactor_that_is_not_warmed_is_told_without_a_warning(opts):
    opts["reactor"] = [one for one in opts["reactor"] if HEARTBEAT not in one]
    told = lines("reactor", opts)
    says(told, "ok", f"a quarter of a second longer: {HEARTBEAT} is not mapped")
    assert len(told) == 2


def test_a_reaction_of_ones_own_to_the_heartbeat_is_told_beside_ours(opts, tmp_path):
    own = tmp_path / "own.sls"
    own.write_text("{}")
    opts["reactor"].append({"selfheal/engine/*": [str(own)]})
    told = lines("reactor", opts)
    says(told, "ok", "reactions of your own on selfheal/engine/*")
    assert not [line for line in told if "longer" in line]
