"""The settings: what is understood, and how each mistake is told."""

import base64
import random
from copy import deepcopy

import pytest

from saltext_selfheal import config
from saltext_selfheal.doors import forms
from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.model import Action, Fault, Mode, Step

MINIMAL = {
    "clusters": {"runbook": {"minions": "db*", "nodes": {"db1": "10.0.0.11", "db2": "10.0.0.12"}}}
}

FULL = {
    "mode": "auto",
    "clusters": {
        "runbook": {
            "minions": "db*",
            "nodes": {"db1": "10.0.0.11", "db2": "10.0.0.12:29015"},
            "service": "rethinkdb",
            "user": "selfheal",
            "password": "secret",
            "tls": {"ca_certs": "/etc/rethinkdb/ca.pem"},
            "tables": ["runbook"],
            "poll": "2s",
            "timeout": "2s",
            "confirm": {"dead": "3s", "hung": "20s", "default": "10s"},
            "settle": "45s",
            "stable": "30s",
            "escalation": ["highstate", {"restart": {"after": "60s"}}],
            "attempt": {"timeout": "5m", "verify": "60s"},
            "cooldown": {"min": "2m", "max": "1h"},
            "budget": {"attempts": 3, "per": "1h"},
            "relapse": "1h",
            "flapping": {"changes": 4, "within": "15m", "quiet": "30m"},
            "requests": {"rate": "6/m", "restart_needs": "probe"},
        }
    },
    "limits": {"attempts": 10, "per": "1h", "storm": "34%"},
    "webhooks": {
        "runbook-web": {
            "secret": "whsec_LY6PPA5S0jov2fVWxeme+A==",
            "clusters": ["runbook"],
            "actions": ["highstate"],
        }
    },
    "formula_secretkey": None,
    "ledger": {"keep": "90d", "path": None},
}


def load(settings, **opts):
    return config.load({"engines": [{"reactor": {}}, {"selfheal": settings}], **opts})


def changed(base, path, value):
    """The settings with one value put at this path."""
    copy = deepcopy(base)
    *parents, last = path.split(".")
    at = copy
    for part in parents:
        at = at[part]
    at[last] = value
    return copy


def problems(settings, **opts):
    with pytest.raises(config.ConfigError) as caught:
        load(settings, **opts)
    return [str(p) for p in caught.value.problems]


def test_every_key_of_the_contract_is_understood():
    policy = load(FULL).policies()["runbook"]
    assert policy.confirm_s[Fault.DEAD] == 3
    assert policy.confirm_s[Fault.AUTH] == 10
    assert policy.escalation[Fault.DEAD] == (Step(Action.HIGHSTATE), Step(Action.RESTART, 60.0))
    assert policy.attempt_timeout_s == 300
    assert policy.cooldown_max_s == 3600


def test_the_defaults_are_those_of_the_full_example_but_for_its_own_choices():
    policy, minimal = load(FULL).policies()["runbook"], load(MINIMAL).policies()["runbook"]
    assert minimal.escalation == escalation.DEFAULT
    for same in (
        "poll_s",
        "timeout_s",
        "stable_s",
        "verify_s",
        "confirm_s",
        "budget_attempts",
        "mode",
    ):
        assert getattr(minimal, same) == getattr(policy, same)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("2s", 2), ("5m", 300), ("1h", 3600), ("90d", 7776000), (3, 3), (0.5, 0.5)],
)
def test_durations_are_read_as_written(text, seconds):
    assert config.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("off", [0, "0", False, "off"])
def test_zero_and_off_switch_a_thing_off(off):
    settings = deepcopy(MINIMAL)
    keys = ("confirm", "cooldown", "settle", "stable", "flapping", "budget", "relapse")
    settings["clusters"]["runbook"].update(
        {k: (0 if off == "0" and k in ("cooldown", "flapping", "budget") else off) for k in keys}
    )
    settings["limits"] = 0 if off == "0" else off
    loaded = load(settings)
    policy = loaded.policies()["runbook"]
    assert (
        policy.confirm_s[Fault.DEAD]
        == policy.cooldown_min_s
        == policy.stable_s
        == policy.budget_attempts
        == 0
    )
    assert loaded.bounds().attempts == 0


def test_a_bare_off_in_yaml_is_a_mode():
    assert load(changed(MINIMAL, "mode", False)).policies()["runbook"].mode is Mode.OFF
    assert (
        load(changed(MINIMAL, "clusters.runbook.mode", "shadow")).policies()["runbook"].mode
        is Mode.SHADOW
    )


def test_one_list_for_all_faults_spares_those_that_a_restart_cannot_cure_or_nothing_can():
    chosen = (
        load(changed(MINIMAL, "clusters.runbook.escalation", ["restart"]))
        .policies()["runbook"]
        .escalation
    )
    assert chosen[Fault.DEAD] == (Step(Action.RESTART),)
    assert chosen[Fault.AUTH] == chosen[Fault.UNREACHABLE] == ()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.11", "10.0.0.11", 28015),
        ("db1.example.com:29015", "db1.example.com", 29015),
        ("::1", "::1", 28015),
        ("[::1]:29015", "::1", 29015),
        ("[2001:DB8:0::13]", "2001:db8::13", 28015),
        ("fe80::1%1", "fe80::1%1", 28015),
        ("[fe80::1%eth0]:28016", "fe80::1%eth0", 28016),
        ("db1.example.com.", "db1.example.com.", 28015),
        ("datenbank-münchen.example", "datenbank-münchen.example", 28015),
        ("x" * 63 + ".example", "x" * 63 + ".example", 28015),
        ("db_1", "db_1", 28015),
    ],
)
def test_addresses(text, host, port):
    nodes = load(changed(MINIMAL, "clusters.runbook.nodes.db1", text)).clusters["runbook"].nodes
    assert nodes["db1"] == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "db1..example.com",
        ".example.com",
        "db1.example.com..",
        ".",
        "..:28015",
        "x" * 64,
        "x" * 64 + ".example.com:28015",
        ".".join(["x" * 63] * 4),
        "ü" * 60,
        "xn--" + "a" * 60,
        "db1\x00.example",
        "db1\x07",
        "db1\u200e",
        "10.0.0.11%eth0",
        "db1%1",
        "[fe80::1%]",
        "[fe80::xyz]",
        "a\ud800b",
    ],
)
def test_a_name_that_no_resolver_can_be_asked_for_is_refused(text):
    found = problems(changed(MINIMAL, "clusters.runbook.nodes.db3", text))
    assert len(found) == 1, found
    assert "engines.selfheal.clusters.runbook.nodes.db3: found" in found[0]


def test_how_often_a_node_is_dialled_afresh():
    assert load(MINIMAL).clusters["runbook"].redial == 30.0
    assert (
        load(changed(MINIMAL, "clusters.runbook.redial", "1m")).clusters["runbook"].redial == 60.0
    )
    for wrong in (0, "off", False, "-1s", "often", None):
        (found,) = problems(changed(MINIMAL, "clusters.runbook.redial", wrong))
        assert "runbook.redial: found" in found
        assert "allowed: a duration such as 500ms" in found


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("moed", 1, "engines.selfheal.moed: found an unknown key; allowed: mode, clusters, limits, webhooks"),
        ("mode", "on", "engines.selfheal.mode: found 'on'; allowed: off, shadow, approve, auto"),
        ("clusters.runbook.pol", "2s", "engines.selfheal.clusters.runbook.pol: found an unknown key; allowed: minions"),
        ("clusters.runbook.poll", "2 parsecs", "runbook.poll: found '2 parsecs'; allowed: a duration such as 500ms"),
        ("clusters.runbook.poll", 0, "runbook.poll: found 0; allowed: a duration"),
        ("clusters.runbook.canary", {}, "runbook.canary: found {}; allowed: read: db.table or write: db.table, or both"),
        ("clusters.runbook.canary", {"every": "5s"}, "runbook.canary: found {'every': '5s'}; allowed: read: db.table or"),
        ("clusters.runbook.canary", {"read": "a"}, "runbook.canary.read: found 'a'; allowed: db.table with exactly one dot"),
        ("clusters.runbook.canary", {"write": "a.b.c"}, "runbook.canary.write: found 'a.b.c'; allowed: db.table with"),
        ("clusters.runbook.canary", {"read": "rethinkdb.users"}, "allowed: db.table with exactly one dot, of a database other"),
        ("clusters.runbook.canary", {"read": 7}, "runbook.canary.read: found 7; allowed: a text; put it in quotes"),
        ("clusters.runbook.canary", {"read": "a.b", "every": "9ms"}, "canary.every: found '9ms'; allowed: a duration"),
        ("clusters.runbook.canary", {"raed": "a.b"}, "canary.raed: found an unknown key; allowed: read, write, every, timeout"),
        ("clusters.runbook.canary", "a.b", "canary: found 'a.b'; allowed: a mapping with read, write, every, timeout"),
        ("clusters.runbook.observers", {}, "runbook.observers.minions: found nothing; allowed: A glob, or a list of minion ids"),
        ("clusters.runbook.observers", "app*", "observers: found 'app*'; allowed: a mapping with minions, quorum, timeout, always"),
        ("clusters.runbook.observers", {"minions": []}, "observers.minions: found []; allowed: a glob such as 'app*', or a list"),
        ("clusters.runbook.observers", {"minions": 7}, "observers.minions: found 7; allowed: a glob such as 'app*', or a list"),
        ("clusters.runbook.observers", {"minions": ["app1", 7]}, "observers.minions.1: found 7; allowed: a minion id"),
        ("clusters.runbook.observers", {"minions": ["app*", "app2"]}, "observers.minions.0: found 'app*'; allowed: a minion id"),
        ("clusters.runbook.observers", {"minions": ["app1"]}, "observers: found {'minions': ['app1']}; allowed: a quorum of at most 1"),
        ("clusters.runbook.observers", {"minions": ["app1", "app1"]}, "allowed: a quorum of at most 1, the number of the minions named"),
        ("clusters.runbook.observers", {"minions": "app*", "quorum": 10}, "allowed: a quorum of at most 9, because no more are asked"),
        ("clusters.runbook.observers", {"minions": "app*", "quorum": 0}, "observers.quorum: found 0; allowed: a whole number between 1"),
        ("clusters.runbook.observers", {"minions": "app*", "timeout": "31s"}, "allowed: a timeout of at most 30s"),
        ("clusters.runbook.observers", {"minions": "app*", "timeout": 0}, "observers.timeout: found 0; allowed: a duration"),
        ("clusters.runbook.observers", {"minions": "app*", "always": "yes"}, "observers.always: found 'yes'; allowed:"),
        ("clusters.runbook.observers", {"minions": "*"}, "observers.minions: found '*', which names db1, a node of a cluster; allowed: minions that are no node"),
        ("clusters.runbook.observers", {"minions": ["app1", "db1"]}, "which names db1, a node of a cluster; allowed: minions that are"),
        ("clusters.runbook.timeout", True, "runbook.timeout: found True; allowed: a duration"),
        ("clusters.runbook.confirm", {"daed": 1}, "runbook.confirm.daed: found an unknown key; allowed: default, dead, hung"),
        ("clusters.runbook.nodes.db3", "a:99999", "runbook.nodes.db3: found 'a:99999'; allowed: address or address:port"),
        ("clusters.runbook.nodes.db3", "10.0.0.11", "runbook.nodes.db3: found 10.0.0.11:28015, which is db1 already"),
        ("clusters.runbook.nodes.web1", "10.0.0.9", "nodes.web1: found a node outside minions 'db*'"),
        ("clusters.runbook.nodes", {}, "runbook.nodes: found {}; allowed:"),
        ("clusters.runbook.escalation", ["fly"], "escalation.0: found 'fly'; allowed: a list of actions (highstate, restart, start, force_restart)"),
        ("clusters.runbook.escalation", ["reboot"], "escalation.0: found 'reboot'; allowed: a list of actions"),
        ("clusters.runbook.escalation", {"auth": ["restart"]}, "allowed: for auth any action but restart"),
        ("clusters.runbook.escalation", {"nosuch": []}, "allowed: faults: dead, hung"),
        ("clusters.runbook.cooldown", {"min": "2h", "max": "1h"}, "runbook.cooldown: found"),
        ("clusters.runbook.requests", {"rate": "6 a day"}, "requests.rate: found '6 a day'; allowed: a rate such as 6/m"),
        ("clusters.runbook.service", "a; rm -rf /", "runbook.service: found 'a; rm -rf /'"),
        ("limits", {"storm": "200%"}, "limits.storm: found '200%'; allowed: a share such as 34%"),
        ("webhooks", {"x": {"clusters": ["runbook"]}}, "webhooks.x.secret: found a value that is not shown"),
        ("webhooks", {"x": {"secret": "whsec_LY6PPA5S0jov2fVWxeme+A==", "clusters": ["other"]}}, "webhooks.x.clusters: found 'other'; allowed: runbook"),
        ("webhooks", {"bus": {"secret": "whsec_LY6PPA5S0jov2fVWxeme+A==", "clusters": ["runbook"]}}, "webhooks.bus: found 'bus'; allowed: any other name: the ids of requests from the bus begin with bus:"),
        ("ledger", {"path": "relative"}, "ledger.path: found 'relative'; allowed: an absolute path"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_path_what_was_found_and_what_is_allowed(path, value, told):
    found = problems(changed(MINIMAL, path, value))
    assert len(found) == 1, found
    assert told in found[0]


def test_no_webhooks_caller_can_have_the_prefix_of_the_bus():
    assert f"{config.RESERVED_CALLER}:" == forms.BUS_ID


def test_each_mistake_is_told_and_not_only_the_first():
    settings = changed(changed(MINIMAL, "mode", "on"), "clusters.runbook.poll", "soon")
    assert len(problems(settings)) == 2


def test_a_node_belongs_to_one_cluster():
    settings = changed(MINIMAL, "clusters.other", {"minions": "*", "nodes": {"db1": "10.0.0.99"}})
    assert problems(settings) == [
        "engines.selfheal.clusters.other.nodes.db1: found a node of cluster 'runbook' as well; allowed: one cluster per node"
    ]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"read": "a.b"}, ("a.b", None, 10.0, 5.0)),
        ({"write": "a-1.b_2", "every": "1m", "timeout": "1s"}, (None, "a-1.b_2", 60.0, 1.0)),
    ],
)
def test_a_canary_needs_one_table_and_has_times_of_its_own(given, made):
    loaded = load(changed(MINIMAL, "clusters.runbook.canary", given))
    canary = loaded.clusters["runbook"].canary
    assert (canary.read, canary.write, canary.every, canary.timeout) == made
    policy = loaded.policies()["runbook"]
    assert (policy.canary, policy.confirm_s[Fault.STALLED]) == (True, 20.0)


@pytest.mark.parametrize("off", [None, "off", False, 0])
def test_a_canary_is_off_unless_it_is_configured(off):
    assert load(MINIMAL).policies()["runbook"].canary is False
    loaded = load(changed(MINIMAL, "clusters.runbook.canary", off))
    assert loaded.policies()["runbook"].canary is False


@pytest.mark.parametrize("value", [5, "pässword"])
def test_a_password_is_never_shown(value):
    (told,) = problems(changed(MINIMAL, "clusters.runbook.password", value))
    assert "found a value that is not shown" in told
    assert str(value) not in told


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("clusters.runbook", "hunter-two"),
        ("clusters", [{"minions": "db*", "password": "hunter-two"}]),
        ("clusters.runbook.nodes.db1", "admin:hunter-two@10.0.0.11"),
        ("clusters.runbook.tls", "whsec_hunter-two"),
        ("webhooks", {"web": "hunter-two"}),
        ("webhooks", ["whsec_hunter-two"]),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown_either(path, value):
    (told,) = problems(changed(MINIMAL, path, value))
    assert "found a value that is not shown" in told
    assert "hunter" not in told


def test_a_password_is_not_in_what_the_settings_print():
    assert "secret" not in repr(load(FULL).clusters["runbook"].password)


@pytest.mark.parametrize(
    ("engines", "told"),
    [
        ([], "engines: found no selfheal"),
        (["selfheal"], "engines.selfheal.clusters: found nothing"),
        ([{"selfheal": None}], "engines.selfheal.clusters: found nothing"),
        ([{"selfheal": ["clusters"]}], "engines.selfheal: found 'list'; allowed: a mapping"),
        ([{"selfheal": {"clusters": {}}}], "engines.selfheal.clusters: found {}"),
    ],
)
def test_an_engine_without_settings_is_told(engines, told):
    with pytest.raises(config.ConfigError, match=r".") as caught:
        config.load({"engines": engines})
    assert told in str(caught.value)


def test_the_engine_may_be_listed_in_a_mapping():
    assert config.load({"engines": {"selfheal": MINIMAL}}).clusters


# ---------------------------------------------------------------- what is resolved, and what cannot be guessed

SDB = "sdb://vault/nowhere"


@pytest.mark.parametrize(
    ("path", "value", "at"),
    [
        ("formula_secretkey", SDB, "formula_secretkey"),
        ("clusters.runbook.user", SDB, "clusters.runbook.user"),
        ("clusters.runbook.password", SDB, "clusters.runbook.password"),
        ("clusters.runbook.service", SDB, "clusters.runbook.service"),
        ("clusters.runbook.minions", SDB, "clusters.runbook.minions"),
        ("clusters.runbook.nodes.db1", SDB, "clusters.runbook.nodes.db1"),
        ("clusters.runbook.tables", ["runbook", SDB], "clusters.runbook.tables.1"),
        ("clusters.runbook.tls", {"ca_certs": SDB}, "clusters.runbook.tls.ca_certs"),
        ("clusters.runbook.poll", SDB, "clusters.runbook.poll"),
        ("clusters.runbook.escalation", {"dead": [{"restart": {"after": SDB}}]}, "clusters.runbook.escalation.dead.0.restart.after"),
        ("webhooks", {"x": {"secret": SDB, "clusters": ["runbook"]}}, "webhooks.x.secret"),
        ("ledger", {"path": SDB}, "ledger.path"),
        ("mode", SDB, "mode"),
        ("clusters.runbook.user", " sdb://vault/key", "clusters.runbook.user"),
        ("clusters.runbook.user", "SDB://vault/key", "clusters.runbook.user"),
        ("clusters.runbook.password", "\tSdb://vault/key", "clusters.runbook.password"),
    ],
)  # fmt: skip
def test_an_sdb_uri_that_is_still_there_is_a_mistake_in_every_setting(path, value, at):
    found = problems(changed(MINIMAL, path, value))
    told = f"engines.selfheal.{at}: found an sdb:// URI that is not resolved; allowed: an sdb:// URI that the master"
    assert [one for one in found if one.startswith(told)], found
    assert not [one for one in found if "vault" in one]


def test_an_sdb_uri_is_no_name():
    nodes = {"sdb://vault/db1": "10.0.0.1", "db2": "10.0.0.2"}
    told = "engines.selfheal.clusters.runbook.nodes: found an sdb:// URI as a name"
    assert problems(changed(MINIMAL, "clusters.runbook.nodes", nodes))[0].startswith(told)


@pytest.mark.parametrize(
    "key",
    [
        "        ", "aaaaaaaa", "password", "12345678", "Password123!", "passwordpassword", "hunter2hunter2hunter2",
        "ab" * 50, "abcdefghijklmnopqrstuvwxyz", "\u00a0" * 40, "x", "", "0" * 4000, "9876543210" * 3,
    ],
)  # fmt: skip
def test_a_key_that_could_be_guessed_is_refused_and_the_error_says_how_much_it_lacks(key):
    (told,) = problems(changed(MINIMAL, "formula_secretkey", key))
    assert "at least 40 bits of entropy, and this one has" in told
    assert "openssl rand -hex 24" in told
    assert not key.strip() or f"'{key}'" not in told


@pytest.mark.parametrize(
    "key", [b"\0" * 16, b"\xff" * 64, b"0123456789abcdef", b"secretsecretsecret", bytes(range(256))]
)
def test_a_webhooks_secret_that_could_be_guessed_is_refused(key):
    secret = f"whsec_{base64.b64encode(key).decode()}"
    hook = {"x": {"secret": secret, "clusters": ["runbook"]}}
    (told,) = problems(changed(MINIMAL, "webhooks", hook))
    assert told.startswith("engines.selfheal.webhooks.x.secret: found a value that is not shown")
    assert "at least 40 bits of entropy, and this one has" in told
    assert secret not in told


def test_what_a_generator_makes_is_strong_enough():
    chance = random.Random(14)
    for _ in range(1000):
        assert config.look_bits(chance.randbytes(16)) > config.SECRET_BITS
        assert config.look_bits(chance.randbytes(24).hex()) > config.SECRET_BITS


def test_the_databases_password_is_not_ours_to_judge():
    for password in ("", "password", " " * 8):
        assert load(changed(MINIMAL, "clusters.runbook.password", password)).clusters


# ---------------------------------------------------------------- several drop-ins

OTHER = {"minions": "x*", "nodes": {"x1": "10.0.1.1"}}


def test_entries_of_several_files_are_joined():
    engines = [{"selfheal": MINIMAL}, {"reactor": {}}, {"selfheal": {"clusters": {"other": OTHER}}}]
    assert set(config.load({"engines": engines}).clusters) == {"runbook", "other"}


def test_what_stands_alike_in_several_entries_is_no_conflict():
    one = {**MINIMAL, "mode": "shadow", "limits": {"attempts": 5}}
    other = {"clusters": {"other": OTHER, **MINIMAL["clusters"]}, "mode": "shadow"}
    made = config.load({"engines": [{"selfheal": one}, {"selfheal": other}, "selfheal"]})
    assert (set(made.clusters), made.mode) == ({"runbook", "other"}, Mode.SHADOW)
    assert made.limits.attempts == 5


def test_webhooks_are_joined_too():
    hook = FULL["webhooks"]["runbook-web"]
    engines = [
        {"selfheal": {**MINIMAL, "webhooks": {"one": hook}}},
        {"selfheal": {"clusters": {"other": OTHER}, "webhooks": {"two": {**hook, "clusters": ["other"]}}}},
    ]  # fmt: skip
    assert set(config.load({"engines": engines}).webhooks) == {"one", "two"}


@pytest.mark.parametrize(
    ("more", "at"),
    [
        ({"clusters": {"runbook": OTHER}}, "clusters.runbook"),
        ({"clusters": {"other": OTHER}, "mode": "off"}, "mode"),
        ({"clusters": {"other": OTHER}, "ledger": {"path": "/other"}}, "ledger"),
        ({"clusters": {"other": OTHER}, "limits": "off"}, "limits"),
        ({"webhooks": {"runbook-web": {"secret": "x", "clusters": ["runbook"]}}}, "webhooks.runbook-web"),
        ({"clusters": None}, "clusters"),
    ],
)  # fmt: skip
def test_what_entries_contradict_each_other_in_is_named(more, at):
    with pytest.raises(config.ConfigError) as caught:
        config.load({"engines": [{"selfheal": FULL}, {"selfheal": more}]})
    told = f"engines.selfheal.{at}: found different values in several entries of `engines`"
    assert [p for p in map(str, caught.value.problems) if p.startswith(told)]
    assert "whsec_" not in str(caught.value)


def test_a_node_in_two_entries_is_in_two_clusters():
    more = {"clusters": {"other": {"minions": "*", "nodes": {"db1": "10.0.0.99"}}}}
    with pytest.raises(config.ConfigError, match="found a node of cluster 'runbook' as well"):
        config.load({"engines": [{"selfheal": MINIMAL}, {"selfheal": more}]})


def test_joining_changes_no_options():
    engines = [{"selfheal": deepcopy(MINIMAL)}, {"selfheal": {"clusters": {"other": OTHER}}}]
    before = deepcopy(engines)
    config.load({"engines": engines})
    assert engines == before


def test_of_an_entry_with_several_names_the_first_counts_as_for_salt():
    assert config.entries({"engines": [{"reactor": {}, "selfheal": MINIMAL}]}) == []
    assert config.entries({"engines": [{"selfheal": MINIMAL, "reactor": {}}]}) == [MINIMAL]


def test_an_engine_under_another_name_is_nobodys():
    """Salt takes engine_module away from the options; who reads them then could not tell whose they are."""
    engines = [{"healer": {"engine_module": "selfheal", **MINIMAL}}]
    with pytest.raises(config.ConfigError, match="found selfheal under another name"):
        config.load({"engines": engines})
    both = [
        {"selfheal": MINIMAL},
        {"b": {"engine_module": "selfheal", "clusters": {"other": OTHER}}},
    ]
    assert set(config.load({"engines": both}).clusters) == {"runbook"}
    assert config.aliases({"engines": both}) == ["b"]


def test_without_a_job_cache_there_are_no_results_to_read():
    assert problems(MINIMAL, job_cache=False)[0].startswith("job_cache: found false")
    assert load(MINIMAL, job_cache=False, ext_job_cache="redis").clusters


def test_observers_are_off_unless_they_are_configured():
    assert load(MINIMAL).policies()["runbook"].observers_quorum == 0
    for off in ("off", False, 0):
        loaded = load(changed(MINIMAL, "clusters.runbook.observers", off))
        assert loaded.policies()["runbook"].observers_quorum == 0


def test_observers_have_a_quorum_a_timeout_and_may_be_asked_always():
    loaded = load(changed(MINIMAL, "clusters.runbook.observers", {"minions": "app*"}))
    policy = loaded.policies()["runbook"]
    assert (policy.observers_quorum, policy.observers_s, policy.observers_always) == (2, 3.0, False)
    assert loaded.clusters["runbook"].observers.allows("app7")
    assert not loaded.clusters["runbook"].observers.allows("web1")
    given = {"minions": ["a", "b", "c"], "quorum": 3, "timeout": "500ms", "always": True}
    loaded = load(changed(MINIMAL, "clusters.runbook.observers", given))
    policy = loaded.policies()["runbook"]
    assert (policy.observers_quorum, policy.observers_s, policy.observers_always) == (3, 0.5, True)
    assert loaded.clusters["runbook"].observers.allows("b")
    assert not loaded.clusters["runbook"].observers.allows("d")


def test_no_node_of_another_cluster_observes_either():
    other = {"minions": "rt*", "nodes": {"rt1": "10.0.1.1"}}
    settings = changed(MINIMAL, "clusters.other", other)
    (found,) = problems(changed(settings, "clusters.runbook.observers", {"minions": "r*"}))
    assert "clusters.runbook.observers.minions: found 'r*', which names rt1" in found
