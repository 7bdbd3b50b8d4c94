"""`selfheal.witness`, through Salt's own loader of a minion."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import salt.config
import salt.loader
from pydantic import TypeAdapter, ValidationError
from salt.exceptions import SaltInvocationError
from salt.loader.lazy import LazyLoader

from saltext_selfheal.config.texts import Service
from saltext_selfheal.doors import witness as door
from tests.lab.ports import free_port
from tests.lab.simulated.child import SimulatedProcess
from tests.lab.simulated.settings import write_config

SERVICE = '''
    """A service manager that tells what the test has written."""
    import json
    import pathlib
    __virtualname__ = "service"
    def __virtual__():
        return __virtualname__
    def status(name, *args, **kwargs):
        return json.loads(pathlib.Path(__opts__["told_by"]).read_text())["status"]
    def show(name):
        return json.loads(pathlib.Path(__opts__["told_by"]).read_text())["show"]
'''


@pytest.fixture
def told_by(tmp_path):
    path = tmp_path / "told"
    path.write_text("{}")
    return path


@pytest.fixture
def minion(tmp_path, told_by):
    """A minion's options; what a test adds counts for the modules that it loads then."""
    (tmp_path / "more" / "modules").mkdir(parents=True)
    (tmp_path / "more" / "modules" / "service.py").write_text(textwrap.dedent(SERVICE))
    conf = tmp_path / "minion"
    conf.write_text(f"root_dir: {tmp_path}\nid: db1\nfile_client: local\n")
    made = salt.config.minion_config(str(conf))
    made.update(module_dirs=[str(tmp_path / "more")], told_by=str(told_by), grains={}, pillar={})
    made["disable_modules"] = ["systemd_service", "debian_service", "rh_service", "upstart_service"]
    return made


@pytest.fixture
def config(tmp_path):
    return write_config(
        tmp_path / "db1.conf", directory=tmp_path / "data", driver_port=free_port(), cluster_port=free_port(),
        no_http_admin=True,
    )  # fmt: skip


def ask(minion, *args, **kwargs):
    return salt.loader.minion_mods(minion)["selfheal.witness"](*args, **kwargs)


def test_a_server_that_serves(minion, config, told_by):
    told_by.write_text(json.dumps({"status": True}))
    with SimulatedProcess(config) as server:
        told = ask(minion, "rethinkdb", server.settings.driver_port)
    assert (told["version"], told["service"], told["port"]) == (
        1,
        "rethinkdb",
        server.settings.driver_port,
    )
    assert (told["process"]["state"], told["listens"]) == ("runs", True)
    assert told["manager"] == {
        "state": None, "sub": None, "result": None, "restarts": None, "running": True,
    }  # fmt: skip


def test_systemd_names_process_and_config_file(minion, config, told_by):
    with SimulatedProcess(config) as server:
        shown = {"ActiveState": "active", "SubState": "running", "MainPID": str(server.pid)}
        told_by.write_text(json.dumps({"show": shown}))
        told = ask(minion, "rethinkdb", 1)
        assert told["process"]["pid"] == server.pid
        assert told["manager"]["state"] == "active"
    argv = f"/usr/bin/rethinkdb --config-file {config}"
    told_by.write_text(
        json.dumps({"show": {**shown, "MainPID": "0", "ExecStart": {"argv[]": argv}}})
    )
    told = ask(minion, "rethinkdb", server.settings.driver_port)
    assert told["process"]["state"] == "gone"
    assert told["directory"]["path"] == str(config.parent / "data")


@pytest.mark.parametrize("place", ["minion", "pillar", "grains"])
def test_options_of_the_minion_name_files(minion, config, tmp_path, place):
    log = tmp_path / "err"
    log.write_text("error: cannot go on\n")
    (tmp_path / "data").mkdir()
    where = minion if place == "minion" else minion[place]
    where["selfheal"] = {"witness": {"config": str(config), "log": str(log)}}
    told = ask(minion, "rethinkdb", 1)
    assert told["process"]["state"] == "gone"
    assert told["directory"]["path"] == str(tmp_path / "data")
    assert (told["log"]["line"], told["log"]["path"]) == ("cannot go on", str(log))


@pytest.mark.parametrize("odd", [7, ["/x"], {"a": 1}, "relative", "/nul\0", True])
def test_options_that_are_no_paths_are_not_used_and_told(minion, caplog, odd):
    minion["selfheal"] = {"witness": {"config": odd}}
    assert ask(minion, "rethinkdb", 1)["process"]["state"] == "gone"
    assert "selfheal:witness:config is not used: found" in caplog.text


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "service: found nothing"),
        (("rethinkdb",), {}, "port: found nothing"),
        ((7, 1), {}, "service: found 7"),
        (("-x", 1), {}, "service: found '-x'"),
        (("a*", 1), {}, "service: found 'a*'"),
        (("", 1), {}, "service: found ''"),
        (("a", "28015"), {}, "port: found '28015'; allowed: a number from 1 to 65535"),
        (("a", True), {}, "port: found True"),
        (("a", 0), {}, "port: found 0"),
        (("a", 65536), {}, "port: found 65536"),
        (("a", 1.5), {}, "port: found 1.5"),
        (("a", 10**5000), {}, "port: found a number of more than 77 digits"),
        (("a", 1, 0), {}, "timeout: found 0; allowed: seconds, from 0.1 to 30"),
        (("a", 1, 31), {}, "timeout: found 31"),
        (("a", 1, float("nan")), {}, "timeout: found nan"),
        (("a", 1, True), {}, "timeout: found True"),
        (("a", 1, "5"), {}, "timeout: found '5'"),
        (("a", 1, 5, 6), {}, "arguments: found 4"),
        (("a", 1), {"portt": 2}, "keyword: found 'portt'"),
    ],
)
def test_bad_arguments_are_one_clear_error(minion, args, kwargs, told):
    with pytest.raises(SaltInvocationError, match=re.escape(told)):
        ask(minion, *args, **kwargs)


@pytest.mark.parametrize(
    "name",
    [
        "rethinkdb",
        "a@b.service",
        "a\\x2d",
        "x" * 255,
        "x" * 256,
        "",
        "-a",
        "a b",
        "a/b",
        "é",
        "a\n",
        "a*",
    ],
)
def test_a_service_of_the_settings_is_one_here_too(name):
    def taken(check):
        try:
            check()
        except ValueError as exc:
            return str(exc).partition("allowed: ")[2]
        return None

    def settings():
        try:
            TypeAdapter(Service).validate_python(name)
        except ValidationError as exc:
            raise ValueError(f"allowed: {exc.errors()[0]['msg']}") from None

    assert taken(lambda: door.asked(name, 1, 5)) == taken(settings)


def test_the_question_loads_none_of_the_settings():
    script = (
        "import sys\n"
        "from saltext_selfheal.doors import witness\n"
        "from saltext_selfheal.witness import testimony\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert not {"pydantic", "saltext_selfheal.config", "rethinkdb"} & set(done.stdout.split())


def test_without_systemd_salt_need_not_load_all_its_modules(minion, told_by, monkeypatch):
    told_by.write_text(json.dumps({"status": True}))
    service = Path(minion["module_dirs"][0]) / "modules" / "service.py"
    service.write_text(service.read_text().replace("def show", "def other"))
    loaded = []
    load = LazyLoader._load_module
    monkeypatch.setattr(
        LazyLoader, "_load_module", lambda self, name: loaded.append(name) or load(self, name)
    )
    assert ask(minion, "rethinkdb", 1)["manager"]["running"] is True
    assert "service" in loaded
    assert len(loaded) < 20
