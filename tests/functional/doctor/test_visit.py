"""The doctor's visit as a whole: nothing but ok of a healthy master, and never a secret."""

from pathlib import Path

import pytest
import salt.runner

from saltext_selfheal.doctor import checks, permissions
from saltext_selfheal.doctor import settings as checks_settings
from tests.functional.conftest import SETTINGS
from tests.functional.doctor.conftest import HOOKS, SECRETS, lines, reloaded, says, settings

# ---------------------------------------------------------------- all together


def test_of_a_healthy_master_every_line_is_ok(opts, engine):
    found = checks.examine(opts)
    # Who may speak in whose name is Salt's affair, and no release of it is without fault.
    assert {f.check for f in found if f.level is not checks.Level.OK} <= {"results"}
    assert list(dict.fromkeys(f.check for f in found)) == [*checks.CHECKS, "now"]
    assert checks.worst(found) is not checks.Level.FAIL


def ill(opts):
    """As much wrong as fits into one master, with secrets wherever they may stand."""
    opts["engines"] = [
        {"selfheal": settings(webhooks=HOOKS, formula_secretkey=SECRETS["key"], moed="auto")}
    ]
    opts["reactor"] = [{"*": ["/nowhere.sls"]}, {"a": ["x"], "b": ["y"]}]
    opts["rest_cherrypy"] = {"port": 1, "disable_ssl": True, "webhook_disable_auth": True}
    opts["netapi_enable_clients"] = ["runner"]
    opts["external_auth"] = {"pam": {"bob": [".*", "@runner", "@selfheal"]}}
    opts["peer_run"] = {".*": [".*"]}
    opts["pillar_opts"] = True
    opts["event_return"] = ["mysql"]
    opts["master_job_cache"] = "nosuch"
    return opts


def test_a_broken_check_is_told_and_the_others_go_on(opts, engine, monkeypatch):
    def broken(master):
        raise RuntimeError(SECRETS["password"])

    monkeypatch.setitem(checks.CHECKS, "engine", broken)
    told = [str(f) for f in checks.examine(opts)]
    says(told, "warn", "engine: the check itself broke: RuntimeError")
    assert len(told) == len(checks.CHECKS) + 1
    assert SECRETS["password"] not in "".join(told)


@pytest.mark.parametrize(("check", "file"), [("settings", "settings.py"), ("peers", "doors.py")])
def test_a_broken_check_is_told_with_its_line(opts, monkeypatch, check, file):
    def broken(*args):
        raise RuntimeError

    monkeypatch.setattr(checks_settings, "master_started_at", broken)
    monkeypatch.setattr(permissions, "peers", broken)
    says(lines(check, opts), "warn", f"the check itself broke: RuntimeError at {file}:")


@pytest.mark.parametrize("value", [None, 5, "x", ["x"], {"x": 1}, [None], [{"x": None}], [[{}]]])
@pytest.mark.parametrize(
    "option",
    ["engines", "reactor", "external_auth", "peer", "peer_run", "rest_cherrypy", "conf_file"],
)
def test_options_of_any_form_break_nothing(opts, engine, option, value):
    opts[option] = value
    if option == "external_auth":
        opts[option] = {"pam": value}
    checks.examine(opts)


def test_no_secret_is_ever_shown(opts, tmp_path):
    wrong = ill(opts)["engines"]
    shown = checks.examine(opts)
    assert checks.worst(shown) is checks.Level.FAIL
    loaded = reloaded(opts, tmp_path, {"engines": wrong}, bad=f"a: [{SECRETS['password']}\nb: ]")
    shown += checks.examine({**loaded, "engines": wrong})
    for misplaced in (
        {"clusters": {"runbook": SECRETS["password"]}},
        {"clusters": [{"password": SECRETS["password"]}]},
        {"clusters": SETTINGS["clusters"], "webhooks": {"web": SECRETS["secret"]}},
        {"clusters": SETTINGS["clusters"], "webhooks": [SECRETS["secret"]]},
        {"clusters": SETTINGS["clusters"], "formula_secretkey": [SECRETS["key"]]},
        {"clusters": SETTINGS["clusters"], "formula_secretkye": SECRETS["key"]},
    ):
        shown += checks.examine({**opts, "engines": [{"selfheal": misplaced}]})
    for secret in SECRETS.values():
        assert secret not in "\n".join(map(str, shown))


# ---------------------------------------------------------------- through the runner


@pytest.fixture
def client(opts):
    """What salt-run uses below its command line."""
    (Path(opts["cachedir"]) / "proc").mkdir()
    with salt.runner.RunnerClient(opts) as made:
        yield made


def test_the_runner_ends_well_where_nothing_fails(opts, engine, client):
    told = client.low("selfheal.doctor", {}, print_event=False, full_return=True)
    assert told["success"] is True
    assert told["return"]["worst"] in ("ok", "warn")
    assert "retcode" not in told["return"]
    assert told["return"]["checks"][0].startswith("ok    settings: ")


def test_a_fail_is_the_exit_code_of_the_run(opts, client):
    told = client.low("selfheal.doctor", {}, print_event=False, full_return=True)
    assert told["success"] is False
    assert (told["return"]["worst"], told["return"]["retcode"]) == ("fail", 1)
