"""`selfheal.force_restart` and the state `selfheal.node_alive`, through Salt's own loaders of a minion.

The service manager does what RethinkDB's packaged init script does; see `tests.unit.control.world.InitScript`.
"""

import os
import re
import textwrap
import time

import pytest
import salt.config
import salt.loader
import salt.utils.yaml
from salt.exceptions import SaltInvocationError
from salt.loader.lazy import LazyLoader

from tests.lab.ports import free_port
from tests.unit.control.world import INSTALLED, SERVICE, InitScript, Stubborn, ended, simulated

MODULE = '''
    """The service manager of the test."""
    from tests.unit.control.world import INSTALLED
    __virtualname__ = "service"
    def __virtual__():
        return __virtualname__
    def available(name):
        return name in INSTALLED
    def missing(name):
        return name not in INSTALLED
    def enabled(name, **kwargs):
        return True
    def status(name, *args, **kwargs):
        return INSTALLED[name].status(name)
    def start(name, **kwargs):
        return INSTALLED[name].start(name)
    def stop(name, **kwargs):
        return INSTALLED[name].stop(name)
    def restart(name, **kwargs):
        raise AssertionError("nobody may call this: it waits for ever")
'''


@pytest.fixture
def minion(tmp_path):
    """A minion's options; what a test adds counts for the modules that it loads then."""
    (tmp_path / "more" / "modules").mkdir(parents=True)
    (tmp_path / "more" / "modules" / "service.py").write_text(textwrap.dedent(MODULE))
    conf = tmp_path / "minion"
    conf.write_text(f"root_dir: {tmp_path}\nid: db1\nfile_client: local\n")
    made = salt.config.minion_config(str(conf))
    made.update(module_dirs=[str(tmp_path / "more")], grains={}, pillar={})
    made["disable_modules"] = ["systemd_service", "debian_service", "rh_service", "upstart_service"]
    for folder in ("cachedir", "pki_dir"):
        os.makedirs(made[folder], exist_ok=True)  # noqa: PTH103
    return made


@pytest.fixture
def server(tmp_path):
    with ended(simulated(tmp_path)) as made:
        yield made


@pytest.fixture
def script(server, minion):
    """The service is installed and runs."""
    made = InitScript(server, server.config_file.parent / "pid_file")
    made.start(SERVICE)
    server.wait_ready()
    made.called.clear()
    INSTALLED[SERVICE] = made
    # A server that does not run is found by this.
    minion["selfheal"] = {"witness": {"config": str(server.config_file)}}
    yield made
    INSTALLED.clear()


def ask(minion, *args, context=None, **kwargs):
    modules = salt.loader.minion_mods(minion, context=context)
    return modules["selfheal.force_restart"](*args, **kwargs)


# ---------------------------------------------------------------- the function


@pytest.mark.parametrize("function", ["force_restart", "witness", "trigger"])
def test_two_files_make_one_module_also_if_one_name_is_looked_up(minion, monkeypatch, function):
    loaded = []
    load = LazyLoader._load_module
    monkeypatch.setattr(
        LazyLoader, "_load_module", lambda self, name: loaded.append(name) or load(self, name)
    )
    modules = salt.loader.minion_mods(minion)
    assert callable(modules[f"selfheal.{function}"])
    assert set(loaded) <= {"selfheal", "selfheal_control"}
    assert "selfheal.force_restart" in modules and "selfheal.witness" in modules


def test_a_server_that_hangs_is_brought_back(minion, script, server):
    server.pause()
    old, context = server.pid, {}
    begun = time.monotonic()
    told = ask(minion, SERVICE, server.settings.driver_port, stop_timeout=1, context=context)
    assert (told["done"], told["how"], told["killed"], told["pid"]) == (
        True, "killed", [old], server.pid,
    )  # fmt: skip
    assert "retcode" not in context
    assert time.monotonic() - begun < 10
    server.wait_ready()


def test_what_is_not_done_ends_with_exit_code_1(minion, script, server):
    context = {}
    told = ask(minion, SERVICE, server.settings.driver_port, not_after=1000, context=context)
    assert (told["done"], told["how"], context["retcode"]) == (False, "none", 1)
    told = ask(minion, "other", server.settings.driver_port, context={})
    assert told["why"] == "service other is not known on this minion; nothing was touched"
    assert (script.called, server.is_running) == ([], True)


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "service: found nothing"),
        (("a",), {}, "port: found nothing"),
        (("-a", 1), {}, "service: found '-a'; allowed: a service of"),
        (("a", "1"), {}, "port: found '1'; allowed: a number from 1 to 65535"),
        (("a", 1, 0), {}, "stop_timeout: found 0; allowed: seconds, from 1 to 600"),
        (("a", 1, 601), {}, "stop_timeout: found 601"),
        (("a", 1, "30s"), {}, "stop_timeout: found '30s'"),
        (("a", 1, True), {}, "stop_timeout: found True"),
        (("a", 1, float("nan")), {}, "stop_timeout: found nan"),
        (("a", 1), {"not_after": 0}, "not_after: found 0; allowed: seconds since the epoch"),
        (("a", 1), {"not_after": "now"}, "not_after: found 'now'"),
        (("a", 1), {"not_after": float("inf")}, "not_after: found inf"),
        (("a", 1), {"not_after": 10**5000}, "not_after: found a number of more than 77 digits"),
        (("a", 1), {"timeout": 39}, "timeout: found 39; allowed: seconds for all of it, from 40"),
        (("a", 1), {"timeout": 3601}, "timeout: found 3601"),
        (("a", 1), {"timeuot": 60}, "keyword: found 'timeuot'"),
        (("a", 1, 30, None, 60, 6), {}, "arguments: found 6"),
    ],
)
def test_bad_arguments_are_one_clear_error(minion, args, kwargs, told):
    with pytest.raises(SaltInvocationError, match=re.escape(told)):
        ask(minion, *args, **kwargs)


# ---------------------------------------------------------------- the state


def apply(minion, sls, test=False):
    """What the states of an SLS tell, by their name."""
    opts = {**minion, "test": test}
    modules = salt.loader.minion_mods(opts, utils=salt.loader.utils(opts))
    told = modules["state.template_str"](textwrap.dedent(sls))
    assert isinstance(told, dict), told
    return {key.split("_|-")[1]: one for key, one in told.items()}


def sees(fault, evidence, ours=False):
    """What every look at the database tells."""
    seen = {"well": False, "fault": fault, "ours": ours, "evidence": evidence}
    return lambda _: {"selfheal.probe": lambda *_, **__: seen}


def alive(server, **more):
    given = {"address": f"127.0.0.1:{server.settings.driver_port}", "stop_timeout": 1, **more}
    return salt.utils.yaml.safe_dump(
        {SERVICE: {"selfheal.node_alive": [{key: value} for key, value in given.items()]}}
    )


def test_the_loader_finds_the_state(minion):
    modules = salt.loader.minion_mods(minion)
    states = salt.loader.states(minion, modules, salt.loader.utils(minion), None)
    assert {one for one in states if one.startswith("selfheal.")} == {
        "selfheal.node_alive",
        "selfheal.mod_watch",
    }


def test_a_database_that_answers_is_left_alone(minion, script, server):
    told = apply(minion, alive(server))[SERVICE]
    assert (told["result"], told["changes"]) == (True, {})
    assert told["comment"] == f"127.0.0.1:{server.settings.driver_port} answers"
    assert script.called == []


def test_service_running_believes_active_exited_and_node_alive_does_not(minion, script, server):
    server.kill()
    beside = f"""
        believed:
          service.running:
            - name: {SERVICE}
    """
    told = apply(minion, beside)["believed"]
    assert (told["result"], told["changes"], server.is_running) == (True, {}, False)

    told = apply(minion, alive(server), test=True)[SERVICE]
    assert (told["result"], server.is_running) == (None, False)
    assert told["comment"].endswith("refused; rethinkdb would be started")
    assert script.called == []

    told = apply(minion, alive(server))[SERVICE]
    assert (told["result"], server.is_running) == (True, True)
    assert told["changes"] == {
        SERVICE: {"old": "dead", "new": "answers", "how": "started", "pid": server.pid}
    }
    assert apply(minion, alive(server))[SERVICE]["changes"] == {}


def test_one_that_hangs_is_ended_and_started(minion, script, server, monkeypatch):
    import saltext_selfheal.states.selfheal as state

    server.pause()
    old = server.pid
    states = _states(minion, monkeypatch, SILENT_FOR_S=0.0, LOOK_S=1)
    told = states["selfheal.node_alive"](SERVICE, address=_address(server), stop_timeout=1)
    assert told["result"] is True, told
    assert told["changes"][SERVICE]["old"] == "hung"
    assert told["changes"][SERVICE]["how"] == "killed"
    assert server.pid != old
    assert state.SILENT_FOR_S == 20


def test_a_moment_of_silence_ends_nobody(minion, script, server, monkeypatch):
    """It is looked at again before it is ended."""
    looked = []

    def functions(kept):
        def look(*args, **kwargs):
            looked.append(kept["selfheal.probe"](*args, **kwargs))
            server.resume()
            return looked[-1]

        return {"selfheal.probe": look}

    server.pause()
    states = _states(minion, monkeypatch, functions, LOOK_S=1)
    told = states["selfheal.node_alive"](SERVICE, address=_address(server))
    assert (told["result"], told["changes"], script.called) == (True, {}, [])
    assert looked[0]["fault"] == "hung"
    assert "answers by now" in told["comment"]


def test_a_refused_login_is_an_answer(minion, script, server):
    minion["selfheal"]["probe"] = {"user": "nobody", "password": "wrong"}
    told = apply(minion, alive(server))[SERVICE]
    assert (told["result"], told["changes"]) == (True, {})
    assert "although it refuses the login" in told["comment"]


def test_a_server_that_is_starting_is_left_alone(minion, tmp_path):
    port = free_port()
    with ended(Stubborn(port)) as server:
        script = INSTALLED[SERVICE] = InitScript(server, tmp_path / "pid_file")
        script.start(SERVICE)
        sls = f"""
            {SERVICE}:
              selfheal.node_alive:
                - address: 127.0.0.1:{port}
                - timeout: 1
        """
        told = apply(minion, sls)[SERVICE]
        assert (told["result"], told["changes"], script.called) == (False, {}, ["start"])
        assert "may still be starting. rethinkdb is left alone" in told["comment"]


def test_a_stranger_on_the_port_is_left_alone(minion, script, server, monkeypatch):
    states = _states(minion, monkeypatch, sees("alien", "it speaks HTTP"), SILENT_FOR_S=0.0)
    told = states["selfheal.node_alive"](SERVICE, address=_address(server))
    assert (told["result"], script.called) == (False, [])
    assert told["comment"].startswith("it speaks HTTP; a restart would not change that")


def test_an_address_that_leads_elsewhere_ends_nobody(minion, script, server, monkeypatch):
    states = _states(minion, monkeypatch, sees("dead", "refused"), SILENT_FOR_S=0.0)
    told = states["selfheal.node_alive"](SERVICE, address=_address(server))
    assert (told["result"], script.called) == (False, [])
    assert f"its process {server.pid} runs, so it may be the address" in told["comment"]


def test_what_this_minion_cannot_look_at_is_left_alone(minion, script, server, monkeypatch):
    states = _states(minion, monkeypatch, sees("unreachable", "too many open files", ours=True))
    told = states["selfheal.node_alive"](SERVICE, address=_address(server))
    assert (told["result"], script.called) == (False, [])
    assert "cannot be looked at: too many open files" in told["comment"]


def test_a_database_that_was_started_and_does_not_answer_is_no_success(
    minion, script, server, monkeypatch
):
    server.kill()
    states = _states(minion, monkeypatch, sees("dead", "refused"))
    told = states["selfheal.node_alive"](SERVICE, address=_address(server), timeout=1)
    assert (told["result"], told["changes"][SERVICE]["new"]) == (False, "does not answer")
    assert "it does not answer within 1 s (refused)" in told["comment"]


WATCH = """
    changed:
      test.succeed_with_changes: []
    unchanged:
      test.succeed_without_changes: []
    {service}:
      selfheal.node_alive:
        - address: {address}
        - stop_timeout: 5
        - watch:
          - test: {what}
"""


def test_a_watched_change_restarts_it(minion, script, server):
    old = server.pid
    still = WATCH.format(service=SERVICE, address=_address(server), what="unchanged")
    assert apply(minion, still)[SERVICE]["changes"] == {}
    sls = WATCH.format(service=SERVICE, address=_address(server), what="changed")
    told = apply(minion, sls, test=True)[SERVICE]
    assert (told["result"], server.pid) == (None, old)
    assert told["comment"] == "rethinkdb would be restarted because of a watched change"
    told = apply(minion, sls)[SERVICE]
    assert (told["result"], told["changes"][SERVICE]["how"]) == (True, "orderly")
    assert (server.pid != old, script.called) == (True, ["stop", "start"])


def test_a_start_and_a_watched_change_start_it_once(minion, script, server):
    server.kill()
    sls = WATCH.format(service=SERVICE, address=_address(server), what="changed")
    assert apply(minion, sls)[SERVICE]["result"] is True
    assert script.called == ["stop", "start"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"address": "a:b:c"}, "address: found 'a:b:c'; allowed: address or address:port"),
        ({"address": 28015}, "address: found 28015; allowed"),
        ({"timeout": 0}, "timeout: found 0; allowed: seconds, from 1 to 3600"),
        ({"timeout": "60s"}, "timeout: found '60s'"),
        ({"stop_timeout": 0}, "stop_timeout: found 0; allowed: seconds, from 1 to 600"),
        ({"service": "a b"}, "service: found 'a b'; allowed: a service of"),
        ({"user": ["admin"]}, "user: found a list; allowed: a text"),
    ],
)
def test_a_state_with_bad_arguments_fails_and_names_them(minion, monkeypatch, wrong, told):
    states = _states(minion, monkeypatch)
    answer = states["selfheal.node_alive"](SERVICE, **{"address": "127.0.0.1:1", **wrong})
    assert (answer["result"], answer["changes"]) == (False, {})
    assert told in answer["comment"]


def test_an_unknown_argument_of_the_state_is_refused(minion):
    told = apply(minion, f"{SERVICE}:\n  selfheal.node_alive:\n    - adress: 10.0.0.1\n")
    assert told[SERVICE]["result"] is False
    assert told[SERVICE]["comment"] == (
        "keyword: found 'adress', which is not known here; allowed: name, service, address, timeout, user, stop_timeout"
    )


def test_the_watch_of_another_function_is_refused(minion, monkeypatch):
    told = _states(minion, monkeypatch)["selfheal.mod_watch"](SERVICE, sfun="other")
    assert (told["result"], told["comment"]) == (
        False, "Unable to trigger watch for selfheal.other",
    )  # fmt: skip


def _address(server):
    return f"127.0.0.1:{server.settings.driver_port}"


def _states(minion, monkeypatch, functions=None, **inside):
    """The state functions by themselves: with other functions of Salt's, and with another patience."""
    opts = {**minion, "test": False}
    modules = salt.loader.minion_mods(opts)
    states = salt.loader.states(opts, modules, salt.loader.utils(opts), None)
    names = states["selfheal.node_alive"].__globals__
    for key, value in inside.items():
        assert key in names
        monkeypatch.setitem(names, key, value)
    if functions:
        used = ("selfheal.probe", "selfheal.witness", "selfheal.force_restart")
        kept = {one: modules[one] for one in used}
        monkeypatch.setitem(names, "__salt__", {**kept, **functions(kept)})
    return states
