"""What the doctor says of salt-api and its hooks."""

import getpass
import hashlib
import re
from pathlib import Path

import pytest
import salt.auth
import salt.config
import salt.netapi
import salt.utils.yaml

from saltext_selfheal.doctor import master as patient
from tests.functional.doctor.conftest import HOOKS, SECRETS, lines, says, settings

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
    page = (Path(__file__).parents[3] / "docs" / "requests.md").read_text()
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
