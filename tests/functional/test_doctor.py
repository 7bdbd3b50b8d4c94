"""What the doctor says of a master: of a healthy one nothing but ok, of each trouble its line."""

import getpass
import hashlib
import json
import logging
import os
import re
import time
from pathlib import Path

import pytest
import salt.auth
import salt.config
import salt.loader
import salt.master
import salt.netapi
import salt.runner
import salt.utils.yaml
import salt.version

from saltext_selfheal.doctor import checks as doctor
from saltext_selfheal.doctor import doors as doctor_doors
from saltext_selfheal.doctor import master as patient
from saltext_selfheal.doctor import permissions, returns
from saltext_selfheal.healing.model import Action, Tell
from saltext_selfheal.ledger import file as ledger_file
from saltext_selfheal.ledger import timeline
from saltext_selfheal.ledger import writer as ledger
from tests.functional.conftest import REACTOR, SETTINGS

SECRETS = {
    "password": "hunter-two",
    "secret": "whsec_c2VjcmV0LWhvb2s=",
    "key": "key-of-the-formula",
}
KEY = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
HOOKS = {"runbook-web": {"secret": SECRETS["secret"], "clusters": ["runbook"]}}


def mapping():
    return [{f"selfheal/remediate/{a.value}": [str(REACTOR / f"{a.value}.sls")]} for a in Action]


def settings(**more):
    (cluster,) = SETTINGS["clusters"].values()
    return {"clusters": {"runbook": {**cluster, "password": SECRETS["password"]}}, **more}


@pytest.fixture
def opts(opts):
    """A healthy master."""
    os.utime(opts["conf_file"], (1e9, 1e9))  # older than its master
    opts["user"] = getpass.getuser()
    opts["engines"] = [{"reactor": {}}, {"selfheal": settings()}]
    opts["reactor"] = mapping()
    accepted = Path(opts["pki_dir"]) / "minions"
    accepted.mkdir(parents=True)
    for node in ("db1", "db2"):
        (accepted / node).write_text(KEY)
    return opts


@pytest.fixture
def path(opts):
    return Path(opts["cachedir"]) / "selfheal" / "ledger.sqlite3"


@pytest.fixture
def engine(path):
    """The ledger, held by an engine that has written something."""
    book = ledger.Ledger(path)
    book.commit(book.timeline.now(), [], [Tell("runbook", "well", "db1", "answers")])
    yield book
    book.close()


def lines(check, opts, api_config=None):
    """What one check says."""
    master = doctor.Master(opts, api_config)
    try:
        return [str(one) for one in doctor.ask(check, master)]
    finally:
        master.close()


def says(told, level, text):
    """Whether one line is of this level and says this; what is to be done belongs to warn and fail."""
    assert any(one.startswith(f"{level:<5} ") and text in one for one in told), told
    assert all(("→" in one) != one.startswith("ok ") for one in told), told


def reloaded(opts, tmp_path, main, **drop_ins):
    """Options as Salt makes them of these files."""
    conf = tmp_path / "master"
    base = {"root_dir": str(tmp_path), "file_client": "local", "user": opts["user"]}
    conf.write_text(salt.utils.yaml.safe_dump({**base, **main}))
    (tmp_path / "master.d").mkdir()
    for name, data in drop_ins.items():
        text = data if isinstance(data, str) else salt.utils.yaml.safe_dump(data)
        (tmp_path / "master.d" / f"{name}.conf").write_text(text)
    return salt.config.master_config(str(conf))


OURS = {"engines": [{"selfheal": settings()}], "reactor": mapping()}


# ---------------------------------------------------------------- all together


def test_of_a_healthy_master_every_line_is_ok(opts, engine):
    found = doctor.examine(opts)
    # Who may speak in whose name is Salt's affair, and no release of it is without fault.
    assert {f.check for f in found if f.level is not doctor.Level.OK} <= {"results"}
    assert list(dict.fromkeys(f.check for f in found)) == list(doctor.CHECKS)
    assert doctor.worst(found) is not doctor.Level.FAIL


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

    monkeypatch.setitem(doctor.CHECKS, "engine", broken)
    told = [str(f) for f in doctor.examine(opts)]
    says(told, "warn", "engine: the check itself broke: RuntimeError")
    assert len(told) == len(doctor.CHECKS)
    assert SECRETS["password"] not in "".join(told)


@pytest.mark.parametrize(("check", "file"), [("settings", "checks.py"), ("peers", "doors.py")])
def test_a_broken_check_is_told_with_its_line(opts, monkeypatch, check, file):
    def broken(*args):
        raise RuntimeError

    monkeypatch.setattr(doctor, "_replaced", broken)
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
    doctor.examine(opts)


def test_no_secret_is_ever_shown(opts, tmp_path):
    wrong = ill(opts)["engines"]
    shown = doctor.examine(opts)
    assert doctor.worst(shown) is doctor.Level.FAIL
    loaded = reloaded(opts, tmp_path, {"engines": wrong}, bad=f"a: [{SECRETS['password']}\nb: ]")
    shown += doctor.examine({**loaded, "engines": wrong})
    for misplaced in (
        {"clusters": {"runbook": SECRETS["password"]}},
        {"clusters": [{"password": SECRETS["password"]}]},
        {"clusters": SETTINGS["clusters"], "webhooks": {"web": SECRETS["secret"]}},
        {"clusters": SETTINGS["clusters"], "webhooks": [SECRETS["secret"]]},
        {"clusters": SETTINGS["clusters"], "formula_secretkey": [SECRETS["key"]]},
        {"clusters": SETTINGS["clusters"], "formula_secretkye": SECRETS["key"]},
    ):
        shown += doctor.examine({**opts, "engines": [{"selfheal": misplaced}]})
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


# ---------------------------------------------------------------- settings, engine


def test_each_mistake_in_the_settings_is_a_line(opts):
    opts["engines"] = [{"selfheal": settings(moed="auto", mode="loud")}]
    told = lines("settings", opts)
    says(told, "fail", "engines.selfheal.moed: found an unknown key")
    says(told, "fail", "engines.selfheal.mode: found 'loud'")
    assert len(told) == 2


def test_lists_of_the_main_file_that_a_drop_in_replaces(opts, tmp_path):
    main = {"engines": [{"logstash": {}}], "reactor": [{"x": ["/y.sls"]}]}
    loaded = reloaded(opts, tmp_path, main, selfheal=OURS)
    told = lines("settings", loaded)
    where, by = tmp_path / "master", tmp_path / "master.d" / "selfheal.conf"
    says(told, "warn", f"`engines:` in {where} has no effect, {by} replaces it")
    says(told, "warn", f"`reactor:` in {where} has no effect")


def test_our_own_list_in_the_main_file_that_a_drop_in_replaces(opts, tmp_path):
    loaded = reloaded(opts, tmp_path, OURS, other={"engines": [{"logstash": {}}]})
    says(lines("settings", loaded), "fail", "engines: found no selfheal")
    lost = f"does not list selfheal any more, though {tmp_path / 'master'} lists it"
    says(lines("engine", loaded), "fail", lost)


def test_lists_of_several_drop_ins_are_joined_and_nothing_to_speak_of(opts, tmp_path):
    other = {"engines": [{"logstash": {}}]}
    told = lines("settings", reloaded(opts, tmp_path, {}, a=other, selfheal=OURS))
    assert len(told) == 1
    says(told, "ok", "clusters runbook with 2 nodes, mode auto")


def test_a_file_that_includes_another_is_replaced_by_it(opts, tmp_path):
    (tmp_path / "more.conf").write_text("engines: [{logstash: {}}]\n")
    loaded = reloaded(opts, tmp_path, {"include": ["more.conf"]}, selfheal=OURS)
    says(lines("settings", loaded), "warn", f"{tmp_path / 'more.conf'} replaces it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engines: [\n", "cannot be read: no YAML in line 2"),
        ("{% if x %}\nengines: []\n{% endif %}\n", "cannot be read: no YAML in line 1"),
        ("- a\n", "cannot be read: no mapping"),
        ("engines: []\nengines: []\n", "cannot be read: no YAML in line 2"),
    ],
)
def test_a_file_that_salt_does_not_read_as_it_was_meant(opts, tmp_path, text, told):
    conf = Path(reloaded(opts, tmp_path, OURS)["conf_file"])
    (tmp_path / "master.d" / "bad.conf").write_text(text)
    says(lines("settings", {**opts, "conf_file": str(conf)}), "warn", told)


def test_settings_that_are_newer_than_the_master(opts, engine, tmp_path):
    conf = Path(reloaded(opts, tmp_path, OURS)["conf_file"])
    opts["conf_file"] = str(conf)
    (tmp_path / "pid").write_text(str(os.getpid()))  # who holds the ledger here, is the master
    opts["pidfile"] = str(tmp_path / "pid")
    os.utime(conf, (time.time() + 5, time.time() + 5))
    says(lines("settings", opts), "warn", f"{conf} was changed after the salt-master was started")
    os.utime(conf, (1e9, 1e9))
    assert len(lines("settings", opts)) == 1


def test_an_engine_that_runs_and_one_that_does_not(opts, path):
    book = ledger.Ledger(path)
    book.beat()
    says(lines("engine", opts), "ok", "running, last sign of life 0 s ago")
    book.close()
    says(lines("engine", opts), "fail", "not running, last sign of life 0 s ago")


def test_an_engine_that_is_silent(opts, engine, monkeypatch):
    monkeypatch.setattr(timeline, "sign_of_life_s", lambda db: 100.0)
    says(lines("engine", opts), "warn", "it holds the ledger, but last sign of life 100 s ago")


def test_an_engine_that_never_ran(opts):
    says(lines("engine", opts), "fail", "not running, no sign of life yet")
    opts["engines"] = []
    says(lines("engine", opts), "fail", "`engines:` does not list selfheal")


# ---------------------------------------------------------------- reactor


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
        ([{RESTART: "{glob}"}], "ok", "mapped: highstate, restart, start, look"),
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
    says(lines("reactor", opts), "ok", "mapped: highstate, restart, start, look")


@pytest.mark.parametrize(
    "pattern", ["salt/netapi/hook/*", "salt/netapi/*", "*", "salt/netapi/hook/x"]
)
def test_a_strangers_reaction_to_open_hooks(opts, engine, pattern):
    opts["reactor"].append({pattern: ["/srv/deploy.sls"]})
    assert not [one for one in lines("reactor", opts) if "webhooks" in one]
    opts["engines"] = [{"selfheal": settings(webhooks=HOOKS)}]
    says(lines("reactor", opts), "fail", f"{pattern} reacts to webhooks")


# ---------------------------------------------------------------- ledger, job cache, minions


def test_without_a_ledger(opts):
    says(lines("ledger", opts), "warn", "there is no ")


def test_a_ledger_that_others_could_write(opts, engine, path):
    path.parent.chmod(0o777)
    says(lines("ledger", opts), "fail", f"{path.parent} has mode 0777")
    path.chmod(0o640)
    says(lines("ledger", opts), "warn", f"{path} has mode 0640: others can read it")
    path.chmod(0o660)
    says(lines("ledger", opts), "fail", f"{path} has mode 0660")


def test_a_ledger_of_somebody_else(opts, engine):
    opts["user"] = "nobody"
    says(lines("ledger", opts), "fail", "and the master runs as nobody")


@pytest.mark.parametrize(
    ("free", "level"), [(9 << 20, "fail"), (11 << 20, "warn"), (101 << 20, "ok")]
)
def test_room_for_the_ledger(opts, engine, monkeypatch, free, level):
    class Usage:
        pass

    Usage.free = free
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda where: Usage)
    says(lines("ledger", opts), level, "MiB are free" if level != "ok" else "entries hold")


def test_a_ledger_on_a_network(opts, engine, monkeypatch):
    monkeypatch.setattr(ledger_file, "file_system", lambda where: "nfs4")
    says(lines("ledger", opts), "fail", "is on nfs4")


def test_ledgers_that_were_put_aside(opts, engine, path):
    kept = path.with_name(f"{path.name}.damaged-20260101T000000")
    kept.touch()
    kept.with_name(f"{kept.name}-wal").touch()
    says(lines("ledger", opts), "warn", f"put aside: {kept}\n")


def test_a_ledger_of_another_release(opts, engine, path):
    engine._db.execute("PRAGMA user_version=1")
    says(lines("ledger", opts), "warn", "has schema 1, this release writes 3")
    engine._db.execute("PRAGMA user_version=99")
    says(lines("ledger", opts), "fail", "schema 99 is newer than this release knows")


def test_a_chain_that_does_not_hold(opts, engine, path):
    engine._db.execute("UPDATE audit SET cluster = 'web'")
    says(lines("ledger", opts), "fail", "the chain of its audit does not hold at entry 1")


@pytest.mark.parametrize(
    ("change", "level", "told"),
    [
        ({"job_cache": False}, "fail", "`job_cache: false`"),
        ({"job_cache": False, "ext_job_cache": "local_cache"}, "ok", "read from local_cache"),
        ({"master_job_cache": "nosuch"}, "fail", "nosuch has no get_jid and no get_load"),
        ({"ext_job_cache": "smtp"}, "fail", "the returner smtp has no get_jid and no get_load"),
        ({"keep_jobs_seconds": 600}, "warn", "jobs are kept for 600 s only"),
        ({"keep_jobs_seconds": 0}, "ok", "read from local_cache"),
    ],
)
def test_where_results_are_read(opts, change, level, told):
    opts.update(change)
    says(lines("job cache", opts), level, told)


@pytest.mark.parametrize(
    ("folder", "mode", "level", "told"),
    [
        (None, "auto", "fail", "db2 has no accepted key: an action"),
        (None, "shadow", "warn", "db2 has no accepted key: an action"),
        ("minions_pre", "auto", "fail", "db2 has no accepted key, it waits to be accepted"),
        ("minions_rejected", "auto", "fail", "db2 has no accepted key, it is rejected"),
        ("minions_denied", "auto", "fail", "db2 has no accepted key, it is denied"),
    ],
)
def test_a_node_without_an_accepted_key(opts, folder, mode, level, told):
    keys = Path(opts["pki_dir"])
    (keys / "minions" / "db2").unlink()
    if folder:
        (keys / folder).mkdir(exist_ok=True)
        (keys / folder / "db2").write_text(KEY)
    opts["engines"] = [{"selfheal": settings(mode=mode)}]
    found = lines("minions", opts)
    says(found, level, told)
    says(found, "ok", "1 nodes have an accepted key")


# ---------------------------------------------------------------- who may ask for what


@pytest.mark.parametrize(
    ("listed", "level", "told"),
    [
        ([{"@selfheal": ["trigger$", "status$"]}], "ok", "bob (pam) may status, trigger"),
        ([{"app1": ["selfheal.trigger$"]}], "ok", "bob (pam) may trigger"),
        ([{"@runner": ["selfheal.status$"]}], "ok", "bob (pam) may status"),
        (["test.ping", {"@jobs": [".*"]}, "@wheel"], "ok", "external_auth lets nobody"),
        ([{"@selfheal": ["trigger"]}], "warn", "bob (pam): trigger also allows every function"),
        ([{"app1": ["selfheal.trigger"]}], "warn", "bob (pam): selfheal.trigger also allows"),
        (["selfheal.*"], "warn", "bob (pam): selfheal.* also allows"),
        ([{"@selfheal": ["pause$", "lock$"]}], "warn", "bob (pam) may pause, lock\n"),
        ([{"@selfheal": [{"ack": {"args": ["x"]}}]}], "warn", "bob (pam) may ack\n"),
        ([{"@runner": ["selfheal\\.re"]}], "warn", "bob (pam) may resume, reject\n"),
        (["@selfheal"], "warn", "bob (pam) may force, pause, resume"),
        (["@runner"], "warn", "bob (pam) may call every runner"),
        ([".*"], "warn", "bob (pam) may call every function on every minion"),
        ([{"app*": [".*"]}], "warn", "bob (pam) may call every function on app*"),
    ],
)
def test_what_external_auth_allows(opts, listed, level, told, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_doors, "SHADOW", tmp_path / "master")  # one that can be read
    opts["external_auth"] = {"pam": {"^filename": "/x", "bob": listed}}
    found = lines("permissions", opts)
    assert len(found) == 1, found
    says(found, level, told)


@pytest.mark.parametrize(
    ("backend", "more", "level", "told"),
    [
        ("auto", {}, "fail", "auto lets in whoever comes, with any name and any password"),
        ("sharedsecret", {}, "fail", "without the option sharedsecret lets in whoever gives no"),
        ("sharedsecret", {"sharedsecret": "x"}, "warn", "the one secret come with any name"),
    ],
)
@pytest.mark.parametrize("users", [{}, {"bob": [{"@selfheal": ["trigger$"]}]}])
def test_ways_to_log_in_that_let_in_too_many(opts, backend, more, level, told, users):
    opts.update(external_auth={backend: users, "file": {"bob": ["test.ping"]}}, **more)
    found = lines("permissions", opts)
    says(found, level, told)
    assert len(found) == 2
    # as Salt has it
    opts["eauth_acl_module"] = ""
    load = {"eauth": backend, "username": "whoever", "password": opts.get("sharedsecret")}
    assert salt.auth.LoadAuth(opts).authenticate_eauth(load)


@pytest.fixture
def shadow(tmp_path, monkeypatch):
    """Where passwords are, of Debian's kind: its group may read it."""
    file = tmp_path / "shadow"
    file.touch()
    file.chmod(0o040)
    monkeypatch.setattr(doctor_doors, "SHADOW", file)
    monkeypatch.setattr(doctor_doors.grp, "getgrgid", lambda gid: Group)
    return file


class Group:
    gr_name = "shadow"


PAM = {"pam": {"bob": [{"@selfheal": ["trigger$"]}]}}


def test_a_master_that_pam_would_not_tell_anything(opts, shadow):
    opts.update(user="nobody", external_auth=PAM)
    told = lines("permissions", opts)
    says(told, "warn", f"the master runs as nobody, who cannot read {shadow}\n")
    remedy = "→ usermod -a -G shadow nobody && systemctl restart salt-master salt-api"
    assert told[0].endswith(remedy)
    shadow.chmod(0)  # as on Red Hat's
    assert lines("permissions", opts)[0].endswith("run the master as root (`user: root`).")
    opts["external_auth"] = {"pam": {}, "file": PAM["pam"]}
    assert len(lines("permissions", opts)) == 1


def test_a_master_whose_user_is_in_the_group_of_the_shadow_file(opts, shadow, monkeypatch):
    opts.update(user="nobody", external_auth=PAM)
    group = shadow.stat().st_gid
    monkeypatch.setattr(patient.os, "getgrouplist", lambda user, gid: [gid, group])
    assert lines("permissions", opts) == ["ok    permissions: bob (pam) may trigger"]


def test_a_master_that_runs_as_root_or_has_no_shadow_file(opts, shadow):
    opts.update(user="root", external_auth=PAM)
    assert len(lines("permissions", opts)) == 1
    shadow.unlink()
    opts["user"] = "nobody"
    assert len(lines("permissions", opts)) == 1


@pytest.mark.parametrize(
    ("mode", "may"), [(0o004, True), (0o000, False), (0o600, False), (0o644, True)]
)
def test_what_a_stranger_may_read(tmp_path, mode, may):
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert patient.may_read("nobody", file) is may
    assert patient.may_read("root", file)
    assert not patient.may_read("no-such-user", file)
    assert not patient.may_read("nobody", tmp_path / "none")


@pytest.mark.parametrize(
    ("option", "listed", "level"),
    [
        ("peer_run", ["selfheal.trigger$"], "ok"),
        ("peer_run", ["selfheal.trigger"], "warn"),
        ("peer_run", ["selfheal.*"], "warn"),
        ("peer_run", [".*"], "warn"),
        ("peer_run", ["jobs.list_jobs", "("], "ok"),
        ("peer", ["selfheal.probe$"], "warn"),
        ("peer", [{"db*": ["selfheal.*"]}], "warn"),
        ("peer", [{"db*": ["test.ping"]}], "ok"),
    ],
)
def test_what_minions_may_call(opts, option, listed, level):
    opts[option] = {"app.*": listed}
    wanted = f"{option}: minions 'app.*' may call" if level == "warn" else "no minion may call"
    says(lines("peers", opts), level, wanted)


@pytest.mark.parametrize(
    ("who", "level", "told"),
    [
        ("app1", "warn", "'app1' also means every minion whose id begins so"),
        ("app*", "warn", "'app*' also means every minion"),
        ("app1|app2$", "warn", "'app1|app2$' also means every minion"),
        ("*", "warn", "'*' is no regular expression"),
        ("app1$", "ok", "no minion may call"),
        ("app1$|app2$", "ok", "no minion may call"),
        ("(app1|app2)$", "ok", "no minion may call"),
        (r"(web|app)\d+\Z", "ok", "no minion may call"),
        (".*", "ok", "no minion may call"),
    ],
)
@pytest.mark.parametrize("option", ["peer", "peer_run"])
def test_which_minions_are_meant(opts, option, who, level, told):
    opts[option] = {who: ["selfheal.trigger$"]}
    found = lines("peers", opts)
    assert len(found) == 1
    says(found, level, f"{option}: {told}" if level == "warn" else told)
    opts[option] = {who: ["test.ping"]}
    says(lines("peers", opts), "ok", "no minion may call")


# ---------------------------------------------------------------- in whose name results come

SALT = int(salt.version.__version__.split(".")[0])
RESOURCE, SYNDIC, OLD = (route.value for route in returns.Route)


def test_ways_to_store_anothers_result_are_named(opts):
    found = lines("results", opts)
    ways = f"{RESOURCE} and {SYNDIC}" if SALT >= 3008 else SYNDIC
    says(found, "warn", f"any minion can store a result under another's name, by {ways}")
    assert len(found) == 1
    left = (
        "No setting of this Salt stops it"
        if SALT >= 3008
        else "minion_sign_messages: true on every"
    )
    assert left in found[0]


def test_what_asks_for_signatures_is_tried_and_not_trusted(opts):
    opts.update(returns.SIGNED)
    found = lines("results", opts)
    if SALT >= 3008:
        # The signature is that of the liar, who says that it speaks for a resource of its own.
        says(found, "warn", f"by {RESOURCE} and {SYNDIC}")
    else:
        says(found, "ok", "stores what a minion says under its own name only")
    # One that need not hold is as good as none.
    opts["drop_messages_signature_fail"] = False
    says(lines("results", opts), "warn", SYNDIC)


def test_signatures_that_no_master_can_check_lose_every_result(opts):
    opts["require_minion_sign_messages"] = True
    says(lines("results", opts), "fail", "require_minion_sign_messages without signing_algorithm")


@pytest.mark.parametrize("least", [None, 0, 2, "x"])
def test_protocols_that_compare_no_ids(opts, least):
    if least is None:
        opts.pop("minimum_auth_version", None)
    else:
        opts["minimum_auth_version"] = least
    found = lines("results", opts)
    says(found, "warn", f"by {OLD}")
    assert any("Set minimum_auth_version: 3" in one for one in found)


def test_results_that_do_not_pass_through_the_master(opts):
    opts["ext_job_cache"] = "redis"
    says(lines("results", opts), "warn", "minions write their results into redis themselves")


@pytest.mark.parametrize("handled", ["at once", "later"])
def test_a_salt_that_compares_names(opts, monkeypatch, handled):
    """As it should be: stored under the name of whose key it was, whatever the request says."""

    def stores(self, load):
        self.mminion.returners["noted.returner"]({"id": load["id"]})

    async def stores_later(self, load):
        stores(self, load)

    def refuses(self, load):
        return False

    for prefix in ("", "_sync"):
        handler = stores if handled == "at once" or prefix else stores_later
        monkeypatch.setattr(salt.master.AESFuncs, f"{prefix}_return", handler, raising=False)
        monkeypatch.setattr(salt.master.AESFuncs, f"{prefix}_syndic_return", refuses, raising=False)
    opts["master_async_mworker"] = handled == "later"
    says(lines("results", opts), "ok", "under its own name only")


def test_a_salt_that_is_not_known_is_not_called_safe(opts, monkeypatch):
    def other(self, load):
        raise AttributeError("nosuch")

    for prefix in ("", "_sync"):
        monkeypatch.setattr(salt.master.AESFuncs, f"{prefix}_return", other, raising=False)
    says(lines("results", opts), "warn", "the check itself broke: AttributeError")


def test_what_the_trial_makes_the_master_say_alarms_nobody(opts, caplog):
    opts.update(returns.SIGNED)
    lines("results", opts)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# ---------------------------------------------------------------- salt-api and its hooks

REST = {"port": 1, "disable_ssl": True, "host": "127.0.0.1"}


@pytest.mark.parametrize(
    ("rest", "clients", "level", "told"),
    [
        (None, [], "ok", "salt-api: no rest_cherrypy is configured"),
        (REST, ["runner"], "ok", "clients: runner"),
        (REST, [], "ok", "no client is enabled: nobody can ask"),
        ({**REST, "host": None}, ["runner"], "fail", "disable_ssl on 0.0.0.0"),
        ({**REST, "host": "salt.example"}, [], "fail", "disable_ssl on salt.example"),
        ({**REST, "host": "::1"}, ["runner"], "ok", "clients: runner"),
        ({**REST, "host": "localhost"}, ["runner"], "ok", "clients: runner"),
        ({"disable_ssl": True, "host": "::1"}, ["runner"], "fail", "has no port, and is not"),
        ({"port": 1}, ["runner"], "fail", "has no ssl_crt and no ssl_key, and is not started"),
        ({"port": 1, "ssl_crt": "/x"}, ["runner"], "fail", "cherrypy has no ssl_key, and is not"),
        (REST, "runner", "warn", "netapi_enable_clients is no list; what Salt finds in it: runner"),
        (REST, "rest", "warn", "is no list; what Salt finds in it: nothing"),
        (REST, 5, "warn", "is no list; what Salt finds in it: nothing"),
        (REST, ["runner", "ruler"], "warn", "names what is no client: ruler"),
    ],
)
def test_salt_api(opts, rest, clients, level, told):
    opts.update(rest_cherrypy=rest, netapi_enable_clients=clients)
    found = lines("salt-api", opts)
    says(found, level, told)
    assert [one for one in found if not one.startswith(("ok", level))] == []


def test_the_clients_are_salts_own():
    assert set(patient.CLIENTS) == set(salt.netapi.CLIENTS) - {"destroy"}


def test_a_certificate_that_salt_api_cannot_use(opts, tmp_path):
    crt, key = tmp_path / "api.crt", tmp_path / "api.key"
    opts.update(netapi_enable_clients=["runner"], user="nobody")
    opts["rest_cherrypy"] = {"port": 1, "ssl_crt": str(crt), "ssl_key": str(key)}
    crt.touch(mode=0o644)
    says(lines("salt-api", opts), "fail", f"ssl_key: nobody finds no {key}, and rest_cherrypy is")
    key.touch()
    key.chmod(0o600)
    told = lines("salt-api", opts)
    says(told, "fail", f"ssl_key: nobody cannot read {key}, and rest_cherrypy is not started\n")
    assert f"chgrp nobody {key} && chmod 640 {key}" in "".join(told)
    key.chmod(0o644)
    assert lines("salt-api", opts) == ["ok    salt-api: clients: runner"]


RUNNER = [{"@selfheal": ["trigger$"]}]
LOCAL = [{"app1": ["selfheal.restart$", "selfheal.trigger$"]}]
OTHERS = [{"@selfheal": ["pause$"]}, ".*", "@runner", "test.ping"]


@pytest.mark.parametrize(
    ("listed", "change", "told"),
    [
        (RUNNER, {"netapi_enable_clients": []}, "client runner, which is not enabled"),
        (RUNNER, {"netapi_enable_clients": ["local"]}, "client runner, which is not enabled"),
        (LOCAL, {"netapi_enable_clients": ["runner"]}, "client local, which is not enabled"),
        (RUNNER, {"rest_cherrypy": None}, "client runner, and no salt-api is configured"),
        (LOCAL, {"rest_cherrypy": None}, "client local, and no salt-api is configured"),
        (RUNNER, {}, None),
        (RUNNER, {"netapi_enable_clients": ["runner_async"]}, None),
        (RUNNER, {"rest_cherrypy": None, "rest_tornado": {"port": 1}}, None),
        (LOCAL, {"netapi_enable_clients": ["local_batch"]}, None),
        (OTHERS, {"netapi_enable_clients": []}, None),
        (OTHERS, {"rest_cherrypy": None}, None),
    ],
)
def test_a_right_that_no_salt_api_takes_up(opts, listed, change, told):
    opts.update(rest_cherrypy=REST, netapi_enable_clients=["runner", "local"])
    opts.update(change, external_auth={"pam": {"bob": listed}})
    found = lines("salt-api", opts)
    assert [one.startswith("ok") for one in found] == [True] * (1 if told is None else 0) + (
        [] if told is None else [True, False]
    )
    if told:
        says(found, "warn", f"salt-api: bob (pam) may ask by the {told}")


OPEN = {**REST, "webhook_disable_auth": True, "thread_pool": 1}


@pytest.mark.parametrize(
    ("rest", "more", "clients", "level", "told"),
    [
        (None, {}, [], "ok", "no webhooks are configured"),
        (OPEN, {"webhooks": HOOKS}, [], "ok", "served by a salt-api for hooks only"),
        (None, {"webhooks": HOOKS}, [], "warn", "has a configuration of its own, which has not"),
        (REST, {"webhooks": HOOKS}, ["runner"], "warn", "has a configuration of its own, which"),
        (OPEN, {"webhooks": HOOKS}, ["runner"], "fail", "together with the clients runner"),
        (OPEN, {}, ["local"], "fail", "together with the clients local"),
        ({**OPEN, "host": None}, {}, [], "warn", "takes hooks without a login on 0.0.0.0"),
        ({**OPEN, "thread_pool": 2}, {"webhooks": HOOKS}, [], "warn", "has thread_pool 2"),
        ({**REST, "webhook_disable_auth": True}, {"webhooks": HOOKS}, [], "warn", "_pool 100"),
    ],
)
def test_hooks(opts, rest, more, clients, level, told):
    opts["engines"] = [{"selfheal": settings(**more)}]
    opts.update(rest_cherrypy=rest, netapi_enable_clients=clients)
    found = lines("hooks", opts)
    assert len(found) == 1
    says(found, level, told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"event_return": ["mysql"]}, "event_return stores hooks, and"),
        ({"event_return": "mysql", "event_return_blacklist": ["salt/job/*"]}, "stores hooks"),
        ({"event_return": "mysql", "event_return_whitelist": ["salt/netapi/*"]}, "stores hooks"),
        (
            {"event_return": "mysql", "event_return_blacklist": ["*/states/*", "*/restart"]},
            "stores hooks",
        ),
        ({"log_level": "debug"}, "`log_level: debug` may log events"),
        ({"log_level_logfile": "all"}, "`log_level_logfile: all` may log"),
    ],
)
def test_where_the_key_of_the_formula_would_turn_up(opts, change, told):
    opts.update(change, rest_cherrypy=OPEN)
    says(lines("hooks", opts), "ok", "served by a salt-api for hooks only")
    opts["engines"] = [{"selfheal": settings(formula_secretkey=SECRETS["key"])}]
    says(lines("hooks", opts), "warn", told)


@pytest.mark.parametrize(
    "change",
    [
        {"event_return_blacklist": ["salt/netapi/hook/*"]},  # the remedy
        {"event_return_whitelist": ["salt/job/*"]},
        {"event_return_whitelist": ["*"], "event_return_blacklist": ["salt/netapi/*"]},
    ],
)
def test_event_return_without_the_key_of_the_formula(opts, change):
    opts["engines"] = [{"selfheal": settings(formula_secretkey=SECRETS["key"])}]
    opts.update(change, rest_cherrypy=OPEN, event_return=["mysql"])
    assert lines("hooks", opts) == ["ok    hooks: served by a salt-api for hooks only"]


def test_whoever_reads_events_reads_the_key_of_the_formula(opts):
    opts["engines"] = [{"selfheal": settings(formula_secretkey=SECRETS["key"])}]
    opts.update(rest_cherrypy=OPEN, external_auth={"pam": {"bob": ["test.ping"]}})
    says(lines("salt-api", opts), "warn", "can read formula_secretkey from /events")


@pytest.fixture
def hooks_api(opts, tmp_path):
    """The documented set-up: the main salt-api, and one for hooks beside it; how to change that one's file."""
    opts.update(rest_cherrypy=REST, netapi_enable_clients=["runner"], user=getpass.getuser())
    path = tmp_path / "hooks" / "master"
    path.parent.mkdir()

    def write(rest=OPEN, **more):
        known = {"root_dir": str(tmp_path), "user": opts["user"], "rest_cherrypy": rest}
        path.write_text(salt.utils.yaml.safe_dump({**known, **more}))
        return str(path)

    return write


def test_the_hooks_of_the_documented_set_up(opts, hooks_api):
    opts["engines"] = [{"selfheal": settings(webhooks=HOOKS)}]
    path = hooks_api()
    (told,) = lines("hooks", opts)
    assert told.startswith("warn ")
    # following it clears it
    assert told.endswith(f"→ Name it: salt-run selfheal.doctor api_config={path}")
    assert lines("hooks", opts, path) == ["ok    hooks: served by a salt-api for hooks only"]
    assert [one for one in lines("salt-api", opts, path) if not one.startswith("ok")] == []
    (told,) = lines("hooks", opts, hooks_api(rest=REST))
    says([told], "warn", f"salt-api of {path} takes no hooks without a login")


@pytest.mark.parametrize("option", ["log_level", "log_level_logfile"])
def test_a_salt_api_for_hooks_that_logs_what_it_gets(opts, hooks_api, option):
    path = hooks_api(**{option: "debug"})
    opts["engines"] = [{"selfheal": settings(webhooks=HOOKS)}]
    assert len(lines("hooks", opts, path)) == 1
    opts["engines"] = [{"selfheal": settings(formula_secretkey=SECRETS["key"])}]
    told = lines("hooks", opts, path)
    says(told, "warn", f"hooks: {path}: `{option}: debug` may log events, and formula_secretkey")
    assert len(told) == 1


def of_the_docs(text):
    """The block of settings on the page about requests that holds this."""
    page = (Path(__file__).parents[2] / "docs" / "requests.md").read_text()
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if text in one]
    return block


def test_the_set_up_of_the_docs(opts, hooks_api, tmp_path):
    for name in ("salt-api.crt", "salt-api.key"):
        (tmp_path / name).touch()
    accounts, password = tmp_path / "accounts", "0123456789abcdef"
    accounts.write_text(f"runbook-app:{hashlib.sha512(password.encode()).hexdigest()}\n")
    main = of_the_docs("ssl_crt:").replace("/etc/salt/tls", str(tmp_path))
    auth = of_the_docs("^filename:").replace("/etc/salt/api-accounts", str(accounts))
    opts.update(salt.utils.yaml.safe_load(main), engines=[{"selfheal": settings(webhooks=HOOKS)}])
    opts.update(salt.utils.yaml.safe_load(auth))
    own = salt.utils.yaml.safe_load(of_the_docs("# /etc/salt/hooks/master"))
    own["user"] = opts["user"]
    path = hooks_api(rest=own.pop("rest_cherrypy"), **own)
    told = [
        one for check in ("permissions", "salt-api", "hooks") for one in lines(check, opts, path)
    ]
    assert told == [
        "ok    permissions: runbook-app (file) may incident, status, trigger",
        "ok    salt-api: clients: runner",
        f"ok    salt-api: {path}: no client is enabled: nobody can ask by /run",
        "ok    hooks: served by a salt-api for hooks only",
    ]
    opts["eauth_acl_module"] = ""
    login = salt.auth.LoadAuth(opts).authenticate_eauth
    load = {"eauth": "file", "username": "runbook-app"}
    assert login({**load, "password": password})
    assert not login({**load, "password": "wrong"})


def test_a_sock_dir_that_salt_replaces(opts, hooks_api):
    """Following the remedy must lead to the same folder, also where Salt takes another than the one that is set."""
    short, socks = "/c", "/var/run/salt/master"

    def remedy(**more):
        found = [one for one in lines("salt-api", opts, hooks_api(**more)) if "its sock_dir" in one]
        if not found:
            return None
        says(found, "fail", "what it hears never reaches the master")
        return dict(re.findall(r"(sock_dir|cachedir): (/[^\s,;:]+)", found[0].partition("→")[2]))

    # the hooks' own cachedir is too short
    assert opts["sock_dir"].endswith(socks)
    first = remedy(sock_dir=socks, cachedir=short)
    assert first == {"sock_dir": opts["sock_dir"], "cachedir": opts["cachedir"]}
    assert remedy(**first) is None
    # the master's is
    conf = Path(opts["conf_file"])
    conf.write_text(f"root_dir: {opts['root_dir']}\ncachedir: {short}\nsock_dir: {socks}\n")
    opts.update({k: v for k, v in salt.config.master_config(str(conf)).items() if k in first})
    assert opts["sock_dir"].endswith("/c/.salt-unix")
    second = remedy(sock_dir=socks)
    assert second == {"sock_dir": opts["sock_dir"], "cachedir": opts["cachedir"]}
    assert remedy(**second) is None


def test_a_salt_api_with_a_configuration_of_its_own(opts, tmp_path):
    opts["engines"] = [{"selfheal": settings(webhooks=HOOKS)}]
    folder = tmp_path / "hooks"
    folder.mkdir()
    told = {"root_dir": str(tmp_path), "netapi_enable_clients": ["runner"]}
    told["rest_cherrypy"] = {"port": 1, "webhook_disable_auth": True, "disable_ssl": True}
    (folder / "master").write_text(salt.utils.yaml.safe_dump(told))
    for name in (folder, folder / "master"):
        found = lines("salt-api", opts, str(name))
        says(found, "ok", "salt-api: no rest_cherrypy is configured")
        says(found, "fail", f"salt-api: {folder / 'master'}: disable_ssl on 0.0.0.0")
        found = lines("hooks", opts, str(name))
        says(found, "fail", f"salt-api of {folder / 'master'} has webhook_disable_auth together")
        says(found, "warn", "has thread_pool 100")
    (folder / "master").write_text(salt.utils.yaml.safe_dump({**told, "root_dir": str(folder)}))
    says(lines("salt-api", opts, str(folder)), "fail", "its sock_dir is ")
    says(lines("salt-api", opts, "/nowhere"), "fail", "there is no /nowhere")


# ---------------------------------------------------------------- secrets, versions


def test_every_minion_would_get_the_masters_options(opts):
    opts["pillar_opts"] = True
    says(lines("secrets", opts), "fail", "`pillar_opts: true` hands every option")


@pytest.mark.parametrize(
    ("mode", "password", "level", "told"),
    [
        (0o644, "hunter-two", "warn", "holds clusters.runbook.password in clear, and everybody"),
        (0o640, "hunter-two", "ok", "holds clusters.runbook.password in clear; sdb://"),
        (0o644, "sdb://vault/x", "ok", "holds none in clear"),
    ],
)
def test_who_can_read_the_settings(opts, tmp_path, mode, password, level, told):
    (cluster,) = SETTINGS["clusters"].values()
    ours = {"clusters": {"runbook": {**cluster, "password": password}}}
    conf = Path(
        reloaded(opts, tmp_path, {}, selfheal={"engines": [{"selfheal": ours}]})["conf_file"]
    )
    (tmp_path / "master.d" / "selfheal.conf").chmod(mode)
    says(lines("secrets", {**opts, "conf_file": str(conf)}), level, told)


@pytest.mark.parametrize(
    ("release", "level"), [("3006.9", "ok"), ("3008.3", "ok"), ("3007.1", "warn")]
)
def test_releases(opts, monkeypatch, release, level):
    monkeypatch.setattr(doctor.salt.version, "__version__", release)
    says(lines("versions", opts), level, f"Salt {release}, rethinkdb 2.")
