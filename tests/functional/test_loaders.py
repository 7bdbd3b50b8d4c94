"""The loader modules, found through the package's entry point by Salt's own loaders."""

import os
import re
import subprocess
import sys
import time

import pytest
import salt.config
import salt.loader
import salt.utils.json
import salt.utils.yaml
from salt.exceptions import SaltInvocationError

from saltext_selfheal import config
from saltext_selfheal.healing.model import Mode, Reply
from saltext_selfheal.ledger.file import engine_alive
from saltext_selfheal.ledger.writer import Ledger
from tests.functional.conftest import REACTOR, SETTINGS
from tests.lab.simulated import SimulatedNode

RUNBOOK = SETTINGS["clusters"]["runbook"]


@pytest.fixture
def runner(opts):
    return salt.loader.runner(opts)


def test_all_functions_are_found(opts, runner):
    modules = salt.loader.minion_mods(opts)
    engines = salt.loader.engines(opts, modules, runner, {})
    assert "selfheal.start" in engines
    assert {f for f in runner if f.startswith("selfheal.")} == {
        f"selfheal.{name}"
        for name in (
            "trigger",
            "status",
            "history",
            "explain",
            "force",
            "roll",
            "incident",
            "audit",
            "doctor",
            "config",
            "pause",
            "resume",
            "lock",
            "ack",
            "approve",
            "reject",
        )
    }
    assert {f for f in modules if f.startswith("selfheal.")} == {
        f"selfheal.{name}"
        for name in (
            "trigger",
            "highstate",
            "restart",
            "probe",
            "witness",
            "attempt",
            "warm",
            "force_restart",
        )
    }


def test_the_engine_does_not_load_on_a_minion(opts, runner, caplog):
    opts["__role"] = "minion"
    assert "selfheal.start" not in salt.loader.engines(
        opts, salt.loader.minion_mods(opts), runner, {}
    )
    assert "runs on a master only" in caplog.text


def test_status_before_the_engine_ever_ran(runner):
    told = runner["selfheal.status"]()
    assert told["engine"] == "not running"
    assert "no ledger" in told["errors"][0]
    assert told["clusters"]["runbook"]["nodes"]["db1"] == "unknown: not probed yet"


def test_status_shows_what_is_wrong_with_the_settings(opts):
    opts["engines"] = [{"selfheal": {**SETTINGS, "moed": "auto"}}]
    told = salt.loader.runner(opts)["selfheal.status"]()
    assert told["engine"].startswith("heals nothing")
    assert told["retcode"] == 1
    assert told["errors"] == [
        "engines.selfheal.moed: found an unknown key; allowed: mode, clusters, limits, webhooks, "
        "formula_secretkey, ledger"
    ]


def test_a_request_while_the_engine_is_down_is_stored_and_said_to_be(opts, runner):
    Ledger(config.load(opts).ledger_path(opts)).close()
    told = runner["selfheal.trigger"]("runbook", reason="drift", request="r1")
    assert told["reply"] == "stored"
    assert "the engine is not running" in told["why"]


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"cluster": "a*"}, "cluster: found 'a*'"),
        ({"cluster": "runbook", "nodes": 5}, "nodes: found 5"),
        ({"cluster": "runbook", "request": "runbook-1"}, "request: found 'runbook-1'"),
        ({"cluster": "runbook", "request": "../x"}, "request: found '../x'"),
    ],
)
def test_a_request_that_has_not_the_form_is_refused_and_says_so(runner, kwargs, why):
    told = runner["selfheal.trigger"](**kwargs)
    assert told["reply"] == "refused"
    assert told["why"].startswith(why)


def test_an_id_belongs_to_the_request_it_was_first_used_for(opts, runner):
    Ledger(config.load(opts).ledger_path(opts)).close()
    first = runner["selfheal.trigger"]("runbook", reason="drift", request="r1")
    assert runner["selfheal.trigger"]("runbook", reason="still", request="r1") == first
    other = runner["selfheal.trigger"]("runbook", "restart", request="r1")
    assert other["reply"] == "refused"
    assert "id 'r1' was used for another request" in other["why"]


def test_a_request_without_any_ledger_is_an_error_that_says_so(runner):
    told = runner["selfheal.trigger"]("runbook")
    assert (told["reply"], told["request"]) == ("refused", None)
    assert "no ledger; the engine has not run yet" in told["why"]


@pytest.mark.parametrize(
    ("function", "kwargs", "told"),
    [
        ("status", {"cluster": "nosuch"}, "cluster: found 'nosuch'; allowed: runbook"),
        ("history", {"cluster": "nosuch"}, "cluster: found 'nosuch'; allowed: runbook"),
        ("history", {"since": "yesterday"}, "since: found 'yesterday'; allowed: a duration"),
        ("status", {"cluster": ["runbook"]}, "cluster: found a list; allowed: runbook"),
        ("history", {"since": 10**400}, "since: found a number of more than 77 digits; allowed"),
        ("history", {"since": 10**5000}, "since: found a number of more than 77 digits; allowed"),
        ("history", {"limit": 10**5000}, "limit: found a number of more than 77 digits; allowed"),
        ("history", {"limit": 0}, "limit: found 0; allowed"),
        ("history", {"limit": 10**20}, "limit: found 1000.*; allowed"),
        ("config", {"nodes": []}, "nodes: found a list"),
        (
            "config",
            {"nodes": {101: "10.0.0.1"}},
            "nodes.101: found 101; allowed: a text; put it in quotes",
        ),
        ("config", {"cluster": True}, "cluster: found True; allowed: a name, quoted twice"),
        ("config", {"cluster": ["a"]}, "cluster: found a list; allowed: a name, quoted twice"),
        (
            "config",
            {"mode": "on"},
            "engines.selfheal.mode: found 'on'; allowed: off, shadow, approve, auto",
        ),
        ("config", {"user": "jürgen"}, "user: found 'jürgen'; allowed: a user of 1 to 255 ASCII"),
        ("config", {"nodes": {"web1": "10.0.0.1"}}, "a node outside minions"),
    ],
)
def test_bad_arguments_are_one_clear_error(runner, function, kwargs, told):
    answer = runner[f"selfheal.{function}"](**kwargs)
    assert (answer["reply"], answer["retcode"]) == ("refused", 1)
    assert re.search(told, answer["why"])


def test_the_printed_drop_in_is_complete_and_right(opts, runner):
    opts["engines"], opts["reactor"] = [], []
    printed = salt.loader.runner(opts)["selfheal.config"](
        nodes={"db1": "10.0.0.11", "db2": "10.0.0.12:29015"}
    )
    read = salt.utils.yaml.safe_load(printed)
    made = config.load({**opts, **read})
    assert made.clusters["runbook"].nodes["db2"].port == 29015
    assert made.mode is Mode.SHADOW
    mapped = {tag: files for one in read["reactor"] for tag, files in one.items()}
    heartbeat = mapped.pop("selfheal/engine/heartbeat")
    assert heartbeat == [str(REACTOR / "heartbeat.sls")]
    paths = [path for path in REACTOR.glob("*.sls") if path.stem != "heartbeat"]
    assert mapped == {f"selfheal/remediate/{path.stem}": [str(path)] for path in paths}
    assert "NOTE" not in printed


def test_the_printed_drop_in_warns_of_lists_that_it_would_replace(opts):
    opts["engines"] = [{"logstash": {}}]
    assert "# NOTE: this replaces the `engines:`" in salt.loader.runner(opts)["selfheal.config"]()


def test_a_request_from_a_minion_is_refused_there_if_it_has_not_the_form(opts):
    opts["__role"] = "minion"
    told = salt.loader.minion_mods(opts)["selfheal.trigger"]("../x")
    assert told["sent"] is False
    assert "cluster: found '../x'" in told["error"]


@pytest.mark.parametrize(
    "action", ["bogus", "Restart", "stop", "look", "", None, ["restart"], 7, "restart\n"]
)
def test_a_minion_refuses_an_unknown_action_at_once(opts, action):
    opts["__role"] = "minion"
    context = {}
    told = salt.loader.minion_mods(opts, context=context)["selfheal.trigger"]("runbook", action)
    assert (told["sent"], context["retcode"]) == (False, 1)
    assert told["error"].startswith("action: found ")
    assert told["error"].endswith("; allowed: highstate, restart, start, force_restart")


@pytest.mark.parametrize("function", ["highstate", "restart"])
def test_a_minion_may_name_nodes_in_the_short_forms_too(opts, function):
    opts["__role"] = "minion"
    modules = salt.loader.minion_mods(opts)
    sent = []
    modules["selfheal.trigger"].__globals__["__salt__"] = {
        "event.send": lambda tag, data: sent.append((tag, data)) or True
    }
    assert modules[f"selfheal.{function}"]("runbook", "drift", "db1,db2")["sent"] is True
    assert modules[f"selfheal.{function}"]("runbook", nodes=["db2"])["sent"] is True
    assert [data["nodes"] for _, data in sent] == [["db1", "db2"], ["db2"]]
    assert {data["action"] for _, data in sent} == {function}
    assert modules[f"selfheal.{function}"]("runbook", nodes="")["sent"] is False


@pytest.mark.parametrize("cluster", [201, True, 1.5, None])
def test_a_minion_says_how_to_quote_a_name(opts, cluster):
    opts["__role"] = "minion"
    told = salt.loader.minion_mods(opts)["selfheal.trigger"](cluster)
    assert told["error"].startswith(f"cluster: found {cluster}; allowed: the name of a configured")
    assert ("two pairs of quotes" in told["error"]) is (cluster is not None)


@pytest.mark.parametrize("nodes", [[], "", ","])
def test_a_minion_sends_no_empty_target(opts, nodes):
    opts["__role"] = "minion"
    told = salt.loader.minion_mods(opts)["selfheal.trigger"]("runbook", nodes=nodes)
    assert told["sent"] is False
    assert "allowed: minion ids, at least one" in told["error"]


@pytest.mark.parametrize(
    "wrong", [{"address": "a:b:c"}, {"address": 5}, {"address": "a", "timeout": 0}]
)
def test_a_probe_of_nothing_is_one_clear_error(opts, wrong):
    with pytest.raises(SaltInvocationError, match="allowed"):
        salt.loader.minion_mods(opts)["selfheal.probe"](**wrong)


def test_a_probe_of_a_closed_port_says_dead(opts):
    told = salt.loader.minion_mods(opts)["selfheal.probe"]("127.0.0.1:1")
    assert (told["well"], told["fault"]) == (False, "dead")


def test_a_probe_without_a_login_takes_this_minions_own(opts):
    """What a job carries lies in the job cache. So observers have their password in their own configuration."""
    with SimulatedNode(name="db1", password="of-the-observer") as node:
        where = f"127.0.0.1:{node.port}"
        told = salt.loader.minion_mods(opts)["selfheal.probe"](where)
        assert (told["well"], told["fault"]) == (False, "auth")
        opts["selfheal"] = {"probe": {"user": "admin", "password": "of-the-observer"}}
        modules = salt.loader.minion_mods(opts)
        assert modules["selfheal.probe"](where)["well"] is True
        assert modules["selfheal.probe"](where, password="another")["fault"] == "auth"
        opts["selfheal"] = {"probe": {"ca_certs": "/none"}}
        with pytest.raises(SaltInvocationError, match="ca_certs: found '/none'"):
            salt.loader.minion_mods(opts)["selfheal.probe"](where)


# ---------------------------------------------------------------- the engine by itself

ENGINE = """
import json, logging, sys
import salt.config, salt.loader
logging.basicConfig(level="INFO", stream=sys.stderr, force=True)
opts = salt.config.master_config(sys.argv[1])
opts["engines"] = json.loads(sys.argv[2])
runners, modules = salt.loader.runner(opts), salt.loader.minion_mods(opts)
salt.loader.engines(opts, modules, runners, {})["selfheal.start"](unknown="keyword")
"""


@pytest.fixture
def engine(opts, tmp_path):
    """Start the engine as Salt does, but without a master around it; gives its process and the text it logs."""
    started = []

    def start(engines):
        log = tmp_path / f"engine-{len(started)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", ENGINE, opts["conf_file"], salt.utils.json.dumps(engines)],
                stdout=out,
                stderr=out,
            )
        started.append(process)
        return process, log

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(log, text, timeout_s=30.0):
    give_up = time.monotonic() + timeout_s
    while text not in (told := log.read_text()):
        assert time.monotonic() < give_up, told
        time.sleep(0.02)
    return told


@pytest.mark.parametrize(
    ("engines", "told"),
    [
        (["selfheal"], "engines.selfheal.clusters: found nothing"),
        ([{"selfheal": {**SETTINGS, "moed": 1}}], "engines.selfheal.moed: found an unknown key"),
        (
            [
                {
                    "selfheal": {
                        "clusters": {"runbook": {"minions": "db*", "nodes": {"web1": "10.0.0.1"}}}
                    }
                }
            ],
            "runbook.nodes.web1: found a node outside minions 'db*'",
        ),
        (
            [{"selfheal": {"clusters": {"runbook": {**RUNBOOK, "poll": 10**400}}}}],
            "runbook.poll: found 1000000",
        ),
        (
            [
                {
                    "selfheal": {
                        "clusters": {"runbook": {**RUNBOOK, "tls": {"ca_certs": "/missing.pem"}}}
                    }
                }
            ],
            "runbook.tls.ca_certs: found '/missing.pem' (No such file or directory)",
        ),
    ],
)
def test_an_engine_with_settings_that_cannot_be_used_lives_on_and_heals_nothing(
    engine, opts, engines, told
):
    process, log = engine(engines)
    text = until(log, told)
    assert text.count(told) == 1
    assert process.poll() is None
    assert not config.EngineSettings.model_validate(SETTINGS).ledger_path(opts).parent.exists()


def test_an_engine_without_a_bus_decides_and_records_all_the_same(engine, opts, runner):
    settings = {
        "clusters": {"runbook": {**SETTINGS["clusters"]["runbook"], "poll": "200ms", "confirm": 0}}
    }
    process, log = engine([{"selfheal": settings}])
    path = config.load(opts).ledger_path(opts)
    until(log, " as well: connection to 127.0.0.1")
    assert process.poll() is None
    assert engine_alive(path)
    told = runner["selfheal.status"]()
    assert told["engine"] == "running"
    assert told["clusters"]["runbook"]["incidents"]["runbook-1"]["nodes"] in (
        ["db1", "db2"],
        ["db2", "db1"],
    )
    assert told["clusters"]["runbook"]["nodes"]["db2"].startswith("dead since")
    answer = runner["selfheal.trigger"]("runbook", action="restart", reason="no connection")
    assert answer["reply"] == Reply.JOINED.value
    assert runner["selfheal.history"](limit=1)[0]["request"] == answer["request"]


def test_a_second_engine_waits_for_the_first(engine, opts):
    first, log = engine([{"selfheal": SETTINGS}])
    until(log, "suspected")
    second, other = engine([{"selfheal": SETTINGS}])
    until(other, "another engine uses it")
    first.kill()
    first.wait()
    until(other, "suspected")
    assert second.poll() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_engine_that_cannot_write_its_ledger_lives_on_and_says_so(engine, opts):
    path = config.load({"engines": [{"selfheal": SETTINGS}]}).ledger_path(opts)
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o500)
    process, log = engine([{"selfheal": SETTINGS}])
    until(log, "nothing is healed")
    assert process.poll() is None


def test_a_password_may_stand_in_sdb(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFHEAL_TEST_PASSWORD", "from sdb")
    cluster = {
        **SETTINGS["clusters"]["runbook"],
        "password": "sdb://environment/SELFHEAL_TEST_PASSWORD",
    }
    conf = tmp_path / "master"
    conf.write_text(
        salt.utils.yaml.safe_dump(
            {
                "root_dir": str(tmp_path),
                "environment": {"driver": "env"},
                "engines": [{"selfheal": {"clusters": {"runbook": cluster}}}],
            }
        )
    )
    loaded = config.load(salt.config.master_config(str(conf)))
    assert loaded.clusters["runbook"].password.get_secret_value() == "from sdb"
