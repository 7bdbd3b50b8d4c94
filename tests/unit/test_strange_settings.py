"""Settings that nobody means: numbers no clock can hold, what YAML reads otherwise, names and paths that cannot be.

Each test is about one kind of mistake. It must be told with its path, and nothing else may be raised.
"""

import os
import ssl
from pathlib import Path

import pytest
import salt.utils.yaml
import trustme

from saltext_selfheal import app, config
from saltext_selfheal.app.settings import BadSettings
from saltext_selfheal.config.values import duration
from saltext_selfheal.console import times
from saltext_selfheal.doors.arguments import BadRequest
from saltext_selfheal.driver.address import Address, parsed
from saltext_selfheal.driver.dialling import Unusable, tls_context
from saltext_selfheal.healing.model import Action, Fault, Mode, Step
from saltext_selfheal.probe.loop import targets
from tests.unit.test_config import FULL, MINIMAL, changed, load, problems

HUGE = 10**400
UNWRITABLE = int("f" * 5000, 16)  #: Python refuses to write it as a decimal number
TEN_YEARS_S = 3650 * 86400
RUNBOOK = "engines.selfheal.clusters.runbook"


def _label(value):
    """A short name for a value, in the name of a test."""
    try:
        return ascii(value)[:30]
    except (ValueError, RecursionError):
        return "unwritable"


def each(names, values):
    return pytest.mark.parametrize(names, values, ids=_label)


def one_problem(path, value, base=MINIMAL):
    (told,) = problems(changed(base, path, value))
    return told


# ---------------------------------------------------------------- numbers

DURATIONS = [
    "poll", "timeout", "redial", "confirm", "settle", "stable", "relapse.within", "attempt.timeout", "attempt.verify",
    "cooldown.min", "cooldown.max", "budget.per", "flapping.within", "flapping.quiet", "slow.above", "view.every",
    "view.timeout",
]  # fmt: skip
COUNTS = ["budget.attempts", "flapping.changes", "slow.count", "slow.of"]
TOO_MUCH = [
    HUGE, UNWRITABLE, "9" * 400, "9" * 400 + "d", float("inf"), float("nan"), 1e300, TEN_YEARS_S + 1, "3651d",
    "87601h", -1, -HUGE, "1e5", "\u0663s", "0x10", True,
]  # fmt: skip


@each("value", TOO_MUCH)
@each("setting", DURATIONS)
def test_no_duration_is_longer_than_ten_years(setting, value):
    group, _, name = setting.rpartition(".")
    path = f"clusters.runbook.{group or name}"
    found = one_problem(path, {name: value} if group else value)
    assert found.startswith(f"{RUNBOOK}.{setting}: found ")
    assert "; allowed: a duration such as 500ms" in found
    assert "at most 3650d" in found
    assert len(found) < 300


SHORTEST = {
    "100ms": ["poll", "timeout", "redial", "view.every", "view.timeout"],
    "1s": [
        "attempt.timeout", "attempt.verify", "budget.per", "flapping.within", "flapping.quiet", "cooldown.min",
        "cooldown.max", "relapse.within", "limits.per",
    ],
    "1ms": ["settle", "stable", "slow.above", "confirm", "confirm.dead"],
    "1h": ["ledger.keep"],
}  # fmt: skip
OR_OFF = {"cooldown.max", "relapse.within", "ledger.keep", *SHORTEST["1ms"]}
LEAST = [(setting, least) for least, settings in SHORTEST.items() for setting in settings]


def with_duration(setting, value):
    """The settings with this duration, and the path at which it is told if it is wrong."""
    outside = setting.startswith(("limits.", "ledger."))
    group, _, name = setting.rpartition(".")
    beside = {"min": "off"} if setting == "cooldown.max" else {}
    path = ("" if outside else "clusters.runbook.") + (group or name)
    where = f"engines.selfheal.{'' if outside else 'clusters.runbook.'}{setting}"
    return changed(MINIMAL, path, {**beside, name: value} if group else value), where


def test_each_duration_has_a_minimum():
    assert {setting for setting, _ in LEAST} >= set(DURATIONS)


@each(("setting", "least"), LEAST)
def test_no_duration_is_shorter_than_what_can_be_meant(setting, least):
    least_s = duration(least)
    for value in (1e-9, 5e-324, "0.0000001s", "0.0001ms", least_s * 0.999, -least_s):
        settings, where = with_duration(setting, value)
        (found,) = problems(settings)
        assert found.startswith(f"{where}: found {value!r}; allowed: a duration such as 500ms")
        assert f"at least {least}, at most 3650d" in found
    settings, _ = with_duration(setting, least)
    assert load(settings)
    settings, where = with_duration(setting, 0)
    if setting in OR_OFF | {"cooldown.min"}:
        assert load(settings)
    else:
        assert problems(settings)[0].startswith(f"{where}: found 0; ")


@each("value", [1e-9, "0.5ms", -1])
def test_so_has_the_wait_before_a_step(value):
    found = one_problem("clusters.runbook.escalation", {"dead": [{"restart": {"after": value}}]})
    assert found.startswith(f"{RUNBOOK}.escalation.dead.0.restart.after: found {value!r}; ")
    assert "at least 1ms" in found


@each("value", [TEN_YEARS_S, "3650d", "87600h", float(TEN_YEARS_S)])
def test_ten_years_are_allowed(value):
    policy = load(changed(MINIMAL, "clusters.runbook.settle", value)).policies()["runbook"]
    assert policy.settle_s == TEN_YEARS_S


@each("value", [HUGE, UNWRITABLE, -1, float("inf"), float("nan"), "9", 1.0, True, None])
@each("setting", COUNTS)
def test_every_count_has_a_maximum(setting, value):
    group, _, name = setting.rpartition(".")
    found = one_problem(f"clusters.runbook.{group}", {name: value})
    assert found.startswith(f"{RUNBOOK}.{setting}: found ")
    assert "; allowed: a whole number between" in found


@each("value", [HUGE, 1_000_001, "1"])
def test_so_has_the_count_of_the_limits(value):
    found = one_problem("limits", {"attempts": value})
    assert found.startswith("engines.selfheal.limits.attempts: found ")
    assert "between 0 and 1000000" in found


@each(
    "value", [HUGE, UNWRITABLE, float("inf"), float("nan"), "9" * 400 + "%", "101%", -0.1, 2, "\u0663%"]
)  # fmt: skip
def test_a_share_is_one(value):
    found = one_problem("limits", {"storm": value})
    assert found.startswith("engines.selfheal.limits.storm: found ")
    assert "allowed: a share such as 34%" in found


@each("value", ["9" * 400 + "/m", "9" * 5000 + "/m", "1000001/s", HUGE, "\u0663/m"])
def test_a_rate_has_a_maximum(value):
    found = one_problem("clusters.runbook.requests", {"rate": value})
    assert found.startswith(f"{RUNBOOK}.requests.rate: found ")
    assert "between 1 and 1000000" in found


@each("value", [HUGE, UNWRITABLE, "9" * 400, float("inf"), "4000d"])
def test_what_operators_give_is_bounded_alike(value):
    with pytest.raises(
        BadRequest, match=r"^since: found .*; allowed: a duration .*, at most 3650d"
    ):
        times.seconds("since", value)


@each("value", [HUGE, UNWRITABLE, float("inf"), TEN_YEARS_S * 2, True, "5"])
@each("argument", ["timeout", "deadline", "query_timeout"])
def test_what_applications_give_is_bounded_alike(argument, value):
    with pytest.raises(BadSettings, match=rf"^{argument}: found .*; allowed: seconds, more than 0"):
        app.connect("127.0.0.1:1", **{"timeout": 1, "deadline": 1, argument: value})


# ---------------------------------------------------------------- any exception, at its path


@each(
    "at",
    ["mode", "limits", "ledger", "webhooks", "clusters", "clusters.runbook", "clusters.runbook.nodes",
     "clusters.runbook.confirm", "clusters.runbook.escalation", "clusters.runbook.minions", "clusters.runbook.tables"],
)  # fmt: skip
@each("kind", ["mapping", "list"])
def test_what_contains_itself_is_a_mistake_at_its_path(at, kind):
    loop = {} if kind == "mapping" else []
    loop.update({"more": loop}) if kind == "mapping" else loop.append(loop)
    found = one_problem(at, loop)
    assert found.startswith(f"engines.selfheal.{at}")
    assert "allowed: settings that do not contain themselves" in found


def test_so_it_is_in_several_entries():
    loop = {}
    loop["more"] = loop
    other = {"more": loop}
    engines = [{"selfheal": {"clusters": {"a": loop}}}, {"selfheal": {"clusters": {"a": other}}}]
    with pytest.raises(config.ConfigError, match=r"engines\.selfheal\.clusters\.a"):
        config.load({"engines": engines})


class Spiteful:
    """A value that nothing can be done with."""

    def __eq__(self, other):
        raise ZeroDivisionError("spite")

    __hash__ = None


@each("at", [key for key in FULL["clusters"]["runbook"] if key != "nodes"])
def test_an_exception_that_nobody_expected_becomes_a_problem(at):
    found = problems(changed(MINIMAL, f"clusters.runbook.{at}", Spiteful()))
    # What stands for a group by itself is told with the key that it is taken for.
    assert found[0].partition(": ")[0] in (f"{RUNBOOK}.{at}", f"{RUNBOOK}.{at}.within")
    assert ": found " in found[0]


@each(
    "engines",
    [5, "selfheal", [[]], [{}], [None, True, 1.5], {"selfheal": 3}, [{"selfheal": Spiteful()}]],
)
def test_so_does_anything_in_the_place_of_engines(engines):
    with pytest.raises(config.ConfigError, match="engines"):
        config.load({"engines": engines})


@each("key", ["a\nb", "\x1b[2J", "", "x" * 300, UNWRITABLE, None, True, 1.5, "\u202eb"])
@each(
    "at", ["clusters", "webhooks", "clusters.runbook.nodes", "clusters.runbook.confirm", "limits"]
)
def test_a_strange_key_is_told_on_one_short_line(at, key):
    for found in problems(changed(MINIMAL, at, {key: 5})):
        assert found.isprintable()
        assert found.startswith(f"engines.selfheal.{at}")
        assert len(found.partition("; allowed: ")[0]) < 300


# ---------------------------------------------------------------- paths


@each(
    "path",
    ["/", "//", "/.", "/..", "/var/", "/var/..", "/a\0b", "/a\nb", "\0", "/" + "x" * 256, "/" + "x" * 201,
     "/" + "x" * 300 + "/ledger", "/x" * 2100, "/\ud800", "/a\x1b", "", "~/ledger", 5, False, ["/x"]],
)  # fmt: skip
def test_a_ledger_lies_in_a_file_that_can_be(path):
    assert one_problem("ledger", {"path": path}).startswith("engines.selfheal.ledger.path: found ")


@each("path", ["/ledger", "/var/lib/my ledger", "/x/" + "y" * 200, "/ü.sqlite3"])
def test_other_paths_of_a_ledger_are_taken(path):
    assert str(load(changed(MINIMAL, "ledger", {"path": path})).ledger_path({})) == path


@each("path", ["/ca\0.pem", "", "/", "/etc/", "/x" * 2100, "/\ud800", "/a\nb", 5, None, False, []])
def test_certificates_lie_in_a_file_that_can_be(path):
    found = one_problem("clusters.runbook.tls", {"ca_certs": path})
    assert found.startswith(f"{RUNBOOK}.tls.ca_certs: found ")


@pytest.fixture(scope="module")
def strange_files(tmp_path_factory):
    """Files that hold no CA certificates, each with a word of the reason."""
    folder = tmp_path_factory.mktemp("ca")
    (folder / "empty").touch()
    (folder / "text").write_text("no certificate")
    (folder / "half").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    os.mkfifo(folder / "pipe")
    return {
        folder / "missing.pem": "No such file",
        folder / "text" / "below.pem": "Not a directory",
        folder: "no regular file",
        folder / "pipe": "no regular file",
        "/dev/zero": "no regular file",
        folder / "empty": "no certificate can be read",
        folder / "text": "no certificate can be read",
        folder / "half": "no certificate can be read",
    }


def test_a_file_without_certificates_is_told_with_setting_name_and_reason(strange_files):
    for file, why in strange_files.items():
        made = load(changed(MINIMAL, "clusters.runbook.tls", {"ca_certs": str(file)}))
        with pytest.raises(config.ConfigError) as caught:
            targets(made.clusters)
        (told,) = map(str, caught.value.problems)
        assert told.startswith(f"{RUNBOOK}.tls.ca_certs: found ")
        assert Path(file).name in told
        assert why in told


def test_each_such_file_is_told_and_not_only_the_first():
    cluster = {
        "minions": "x*",
        "nodes": {"x1": "10.0.1.1"},
        "tls": {"ca_certs": "/missing/two.pem"},
    }
    settings = changed(MINIMAL, "clusters.runbook.tls", {"ca_certs": "/missing/one.pem"})
    made = load(changed(settings, "clusters.other", cluster))
    with pytest.raises(config.ConfigError) as caught:
        targets(made.clusters)
    assert [p.path.split(".")[3] for p in caught.value.problems] == ["runbook", "other"]


def test_an_application_is_told_the_same(strange_files):
    for file, why in strange_files.items():
        with pytest.raises(BadSettings, match=rf"^ssl: found .*{Path(file).name}.*{why}"):
            app.connect("127.0.0.1:1", ssl=str(file), timeout=1, deadline=1)


@each("file", ["", "a\0b", "\ud800", 5, ["x"]])
def test_no_file_at_all_is_no_context_either(file):
    with pytest.raises(Unusable):
        tls_context(file)


def test_certificates_that_can_be_read_are_taken(tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert isinstance(tls_context(tmp_path / "ca.pem"), ssl.SSLContext)


# ---------------------------------------------------------------- what YAML reads otherwise


def yaml(text):
    return salt.utils.yaml.safe_load(text)


@each(
    "step",
    ["restart: no", "restart: off", "restart: 0", "restart: ''", "restart: []", "restart: on", "restart: 5m",
     "restart: 1:30", "restart: [shadow]", "highstate: false", "start: 0.0", "on: {}", "~", "012", "{}", "[restart]"],
)  # fmt: skip
def test_a_step_is_an_action_with_options_or_nothing_else(step):
    steps = yaml(f"[highstate, {{{step}}}]" if ": " in step else f"[highstate, {step}]")
    found = one_problem("clusters.runbook.escalation", {"dead": steps})
    assert found.startswith(f"{RUNBOOK}.escalation.dead.1: found ")
    assert "allowed: a list of actions (highstate, restart, start, force_restart)" in found


@each(
    ("step", "at"),
    [("{mode: []}", "mode"), ("{mode: ''}", "mode"), ("{mode: 0}", "mode"), ("{mode: on}", "mode"), ("{mode: ~}", "mode"),
     ("{after: ''}", "after"), ("{after: []}", "after"), ("{after: on}", "after"), ("{after: ~}", "after"),
     ("{after: -1:30}", "after"), ("{no: 1}", "False"), ("{afterwards: 5m}", "afterwards"), ("{12: 1}", "12")],
)  # fmt: skip
def test_an_option_of_a_step_is_told_with_its_path(step, at):
    steps = yaml(f"[highstate, restart: {step}]")
    found = one_problem("clusters.runbook.escalation", steps)
    assert found.startswith(f"{RUNBOOK}.escalation.1.restart.{at}: found ")


def test_an_action_with_nothing_behind_it_is_the_action():
    steps = yaml("[restart: , highstate: {}, start: {after: 012, mode: off}]")
    policy = load(changed(MINIMAL, "clusters.runbook.escalation", {"dead": steps})).policies()[
        "runbook"
    ]
    assert policy.escalation[Fault.DEAD] == (
        Step(Action.RESTART), Step(Action.HIGHSTATE), Step(Action.START, 12.0, Mode.OFF)
    )  # fmt: skip


@each("zero", ["0/m", "0/s", "00/h", "000 / m", "0"])
def test_a_rate_of_zero_is_not_no_limit(zero):
    assert ".requests.rate: found" in one_problem("clusters.runbook.requests", {"rate": yaml(zero)})


@each("zero", ["0%", "0.0%", "00 %"])
def test_a_share_of_zero_percent_is_not_off(zero):
    assert "limits.storm: found" in one_problem("limits", {"storm": zero})
    assert load(changed(MINIMAL, "limits", {"storm": 0})).bounds().storm_share == 0


@each("word", ["no", "on", "yes", "off", "~", "012", "1:30", "0x1f", "1.5", "1_0", "[]", "''"])
@each("at", ["minions", "user", "service", "tables.0", "tls.ca_certs", "requests.restart_needs"])
def test_where_a_name_stands_yaml_s_other_values_are_mistakes(at, word):
    value = yaml(word)
    group, _, name = at.rpartition(".")
    holder = {"": value, "tables": [value]}.get(group, {name: value})
    found = one_problem(f"clusters.runbook.{group or name}", holder)
    assert found.startswith(f"{RUNBOOK}.{at}: found ")


@each("word", ["no", "on", "~", "012", "1:30", "1.5"])
@each("at", ["clusters", "webhooks", "clusters.runbook.nodes"])
def test_so_they_are_as_keys(at, word):
    (key,) = yaml(f"{{{word}: 1}}")
    inner = "10.0.0.1" if at.endswith("nodes") else FULL["webhooks"]["runbook-web"]
    inner = MINIMAL["clusters"]["runbook"] if at == "clusters" else inner
    found = one_problem(at, {key: inner})
    assert found.startswith(
        f"engines.selfheal.{at}.{key}: found {key}; allowed: a text; put it in quotes"
    )


@each(
    ("engines", "told"),
    [
        ([{"reactor": {}, "selfheal": MINIMAL}], "selfheal as a further name in the entry of reactor"),
        ([{"selfheal": MINIMAL}, {"reactor": {}, "selfheal": {"mode": "off"}}], "selfheal as a further name"),
        ([{"selfheal": MINIMAL}, {"Selfheal": {"mode": "off"}}], "an entry 'Selfheal'; allowed: the name selfheal"),
        ([{"selfheal": MINIMAL}, {"self-heal": {}}], "an entry 'self-heal'"),
        ([{"selfheal": MINIMAL}, "selfheal "], "an entry 'selfheal '"),
        ({"selfheal": MINIMAL, "self_heal": {}}, "an entry 'self_heal'"),
        ([{"selfheal": MINIMAL}, {"selfheal": {"engine_module": "other"}}], "engine_module: found 'other'"),
        ([{"selfheal": MINIMAL}, {"selfheal": False}], "engines.selfheal: found 'bool'"),
        ([{"selfheal": MINIMAL}, {"selfheal": 0}], "engines.selfheal: found 'int'"),
        ([{"selfheal": MINIMAL}, {"selfheal": ""}], "engines.selfheal: found 'str'"),
        ([{"selfheal": MINIMAL}, {"selfheal": []}], "engines.selfheal: found 'list'"),
    ],
)  # fmt: skip
def test_no_entry_is_ignored(engines, told):
    with pytest.raises(config.ConfigError) as caught:
        config.load({"engines": engines})
    assert told in str(caught.value)


@each("off", [False, 0, "", None])
def test_a_job_cache_that_is_off_is_told_however_it_is_written(off):
    assert problems(MINIMAL, job_cache=off)[0].startswith("job_cache: found false")


# ---------------------------------------------------------------- names


@each(
    "name",
    ["db*", "db?", "db[12]", "db1,db2", "db 1", " db1", "db1\n", "db1\t", "db\x07", "db\x1b[2J", "db\u200e1", "db\u00a01", "",
     "x" * 256, "ü" * 128, "a/b", "a\\b", "..", ".", ".db1", "a\ud800b"],
)  # fmt: skip
def test_a_node_is_a_minion_id(name):
    base = changed(MINIMAL, "clusters.runbook.minions", "*")
    found = one_problem("clusters.runbook.nodes", {name: "10.0.0.1"}, base)
    assert found.startswith(f"{RUNBOOK}.nodes.")
    assert "; allowed: a minion id of 1 to 255 bytes" in found
    assert found.isprintable()


@each(
    "name",
    [
        "db1",
        "db1.example.com",
        "DB_1",
        "ü1",
        "101",
        "no",
        "a:b",
        "x" * 255,
        "a@b",
        "db-1",
        "{x}",
        "'",
    ],
)
def test_other_minion_ids_are_taken(name):
    base = changed(MINIMAL, "clusters.runbook.minions", "*")
    assert load(changed(base, "clusters.runbook.nodes", {name: "10.0.0.1"})).clusters


@each("name", ["jürgen", "admin\0", "admin\n", "\x1b", "админ", "x" * 256, "admin\u200e", "\ud800"])
def test_a_user_is_one_that_the_driver_can_send(name):
    found = one_problem("clusters.runbook.user", name)
    assert found.startswith(f"{RUNBOOK}.user: found ")
    assert "ASCII" in found
    if not name.isascii():
        with pytest.raises(BadSettings, match=r"^user: found .*ASCII"):
            app.connect("127.0.0.1:1", user=name, timeout=1, deadline=1)


@each("name", ["", "a.b.c", "a b", "a.", ".b", "ü", "a\n", "a*", "a." + "x" * 256])
def test_a_table_is_one_that_rethinkdb_can_have(name):
    assert one_problem("clusters.runbook.tables", ["runbook", name]).startswith(
        f"{RUNBOOK}.tables.1: found "
    )


@each("name", ["-f", "--now", "é", "a\n", "a b", "", "x" * 256])
def test_a_service_is_no_option_of_a_command(name):
    assert one_problem("clusters.runbook.service", name).startswith(f"{RUNBOOK}.service: found ")


@each("pattern", ["db\n*", "db *", "*\0", "", "x" * 1001, "\u202e*"])
def test_the_allow_list_is_a_glob_on_one_line(pattern):
    assert one_problem("clusters.runbook.minions", pattern).startswith(f"{RUNBOOK}.minions: found ")


# ---------------------------------------------------------------- addresses

NO_ADDRESSES = [
    "010.0.0.11", "10.0.0.011", "10.1", "10.0.11", "167772161", "0", "1", "0xa.0.0.11", "0x0a00000b", "0xA00000B", "0x",
    "10.0.0.0x0b", "012", "0300.0250.1", "10.0.0.256", "10.0.0.11.", "1.2.3.4.5", "999999999999", "db.1", "db.0x1",
    "\uff11\uff10.0.0.11", "10\u30020\u30020\u300211", "\u0661\u0660.0.0.11", "10.0.0.\u00b9", "[::ffff:010.0.0.11]",
    "010.0.0.11:28015", "10.1:28015", "167772161:28015", "db1:028015", "db1:08015", "db1:\u0661\u0662", "db1:+1", "db1:0",
]  # fmt: skip


@each("text", NO_ADDRESSES)
def test_what_a_resolver_reads_as_another_address_is_none(text):
    found = one_problem("clusters.runbook.nodes", {"db1": text})
    assert found.startswith(f"{RUNBOOK}.nodes.db1: found ")
    with pytest.raises(ValueError, match=r"address|name"):
        parsed(text)
    with pytest.raises(BadSettings, match=r"^hosts: found "):
        app.connect([text], timeout=1, deadline=1)


@each("number", [10.1, 167772161, 0o12, True, None, []])
def test_a_number_is_no_address(number):
    assert one_problem("clusters.runbook.nodes", {"db1": number}).startswith(
        f"{RUNBOOK}.nodes.db1: found "
    )


@each(
    "text",
    ["db1\0", "\0db1", "db1\0:28015", "[fe80::1%a\0]", "fe80::1%\x07", "fe80::1%" + "x" * 16, "fe80::1%a b", "x" * 300,
     "x." * 150, "[" + "1" * 300 + "]", "db1:" + "1" * 300, "1" * 10**6, "a" * 10**6, "\ud800"],
)  # fmt: skip
def test_an_address_is_one_that_a_resolver_takes_everywhere(text):
    assert one_problem("clusters.runbook.nodes", {"db1": text}).startswith(
        f"{RUNBOOK}.nodes.db1: found "
    )
    with pytest.raises(BadSettings, match=r"^hosts: found "):
        app.connect([text], timeout=1, deadline=1)


@each(
    ("text", "host"),
    [("10.0.0.11", "10.0.0.11"), ("0.0.0.0", "0.0.0.0"), ("255.255.255.255:1", "255.255.255.255"), ("3com.example", "3com.example"),
     ("1e1.example", "1e1.example"), ("db1", "db1"), ("10-0-0-11", "10-0-0-11"), ("0xdb", None), ("db.0xdb", None), ("0xdb.example.", "0xdb.example."),
     ("10.0.0.11.example", "10.0.0.11.example"), ("::ffff:10.0.0.11", "::ffff:a00:b")],
)  # fmt: skip
def test_a_name_may_begin_with_a_number_and_not_end_in_one(text, host):
    if host is None:
        with pytest.raises(ValueError, match="IPv4"):
            parsed(text)
    else:
        assert parsed(text).host == host
        assert isinstance(parsed(text), Address)


# ---------------------------------------------------------------- what lies inside


@each(
    ("value", "told"),
    [
        ({"dead": "soon"}, ["dead: found 'soon'"]),
        (
            {"dead": "soon", "hung": HUGE, "default": -1},
            ["dead: found 'soon'", "hung: found 1000", "default: found -1"],
        ),
        ({"dead": "3s", "auth": True}, ["auth: found True"]),
        ({"slow": None, "nosuch": 1}, ["slow: found None", "nosuch: found an unknown key"]),
    ],
)
def test_a_mistake_inside_confirm_is_told_with_its_own_path(value, told):
    found = problems(changed(MINIMAL, "clusters.runbook.confirm", value))
    assert len(found) == len(told)
    for one, begin in zip(found, told, strict=True):
        assert one.startswith(f"{RUNBOOK}.confirm.{begin}")


def test_a_mistake_inside_an_escalation_is_told_with_its_own_path():
    value = {
        "dead": ["fly", {"restart": {"after": "soon", "mode": "on"}}],
        "auth": ["restart"],
        "nosuch": [],
        "hung": "restart",
    }
    found = problems(changed(MINIMAL, "clusters.runbook.escalation", value))
    assert [one.partition(": found")[0].removeprefix(f"{RUNBOOK}.escalation.") for one in found] == [
        "dead.0", "dead.1.restart.after", "dead.1.restart.mode", "auth", "nosuch", "hung",
    ]  # fmt: skip


def test_a_secret_inside_is_not_shown():
    found = problems(changed(MINIMAL, "clusters.runbook.confirm", {"dead": "whsec_hunter-two"}))
    assert found[0].startswith(f"{RUNBOOK}.confirm.dead: found a value that is not shown")
