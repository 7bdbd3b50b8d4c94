"""The formula: what it renders to for each family, what it refuses, and what it really writes."""

import configparser
import getpass
import grp
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from rethinkdb import RethinkDB
from rethinkdb.errors import ReqlPermissionError

from tests.functional.formula import (
    ALL_SLS,
    FORMULA,
    GOLDEN,
    GRAINS,
    PILLAR,
    SECRETS,
    Minion,
    as_yaml,
    rendered,
)
from tests.lab.ports import free_port
from tests.lab.site import REAL, server_command

REQUISITES = ("require", "watch", "onchanges", "prereq", "listen")
DEFAULTS = yaml.safe_load((FORMULA / "rethinkdb" / "defaults.yaml").read_text())
OPTIONS = yaml.safe_load((FORMULA / "rethinkdb" / "options.yaml").read_text())
SCHEMA = json.loads((FORMULA / "rethinkdb" / "pillar.schema.json").read_text())
EXAMPLE = (FORMULA / "rethinkdb" / "pillar.example").read_text()
ALONE = {"repo": False, "package": False, "native_unit": False}

real = pytest.mark.skipif(
    server_command(None)[0] != REAL, reason="needs a real rethinkdb on PATH or in RETHINKDB"
)


@pytest.fixture
def minion(tmp_path):
    """(pillar, grains' name or changes) → a machine."""

    def made(pillar, system="debian-12", **changes):
        return Minion(tmp_path / "minion", {**GRAINS[system], **changes}, pillar)

    return made


# ---------------------------------------------------------------- what it renders to


@pytest.mark.parametrize("system", GRAINS)
def test_each_system_gets_the_states_and_files_that_a_person_has_judged_right(tmp_path, system):
    assert (
        as_yaml(rendered(tmp_path, GRAINS[system])) == (GOLDEN / f"{system}.yaml").read_text()
    ), "python -m tests.functional.formula --write, and read the difference"


@pytest.mark.parametrize(
    "pillar, system, every",
    [
        (PILLAR, "debian-12", ALL_SLS),
        ({**PILLAR, "native_unit": False}, "rocky-9", ["rethinkdb", "rethinkdb.clean"]),
        (ALONE, "rocky-9", ["rethinkdb", "rethinkdb.clean"]),
        (None, "rocky-9", ["rethinkdb", "rethinkdb.clean"]),
    ],
)
def test_every_sls_compiles_and_finds_what_it_requires(minion, pillar, system, every):
    machine = minion(pillar, system)
    for sls in every:
        chunks = machine.low(sls)
        assert all(isinstance(chunk, dict) for chunk in chunks), (sls, chunks)
        there = {(chunk["state"], chunk[key]) for chunk in chunks for key in ("__id__", "name")}
        there |= {("sls", chunk["__sls__"]) for chunk in chunks}
        for chunk in chunks:
            for kind in REQUISITES:
                for wanted in chunk.get(kind, []):
                    assert next(iter(wanted.items())) in there, (sls, chunk["__id__"], wanted)


@pytest.mark.parametrize("system", GRAINS)
def test_no_secret_is_in_a_state_or_in_a_file_that_others_may_read(minion, system):
    machine = minion(PILLAR, system)
    chunks = machine.low("rethinkdb")
    assert not any(secret in repr(chunks) for secret in SECRETS)
    written = 0
    for chunk in chunks:
        source = chunk.get("source", "")
        if not source.endswith(".jinja"):
            continue
        text = machine.file(source.rpartition("/")[2], **chunk.get("context", {}))
        if any(secret in text for secret in SECRETS):
            written += 1
            assert int(chunk["mode"], 8) & ~0o640 == 0, chunk["__id__"]
            assert chunk["show_changes"] is False
    assert written == 2


def test_the_service_is_not_restarted_because_a_file_has_changed(minion):
    chunks = minion(PILLAR).low("rethinkdb")
    assert not any({"watch", "listen", "onchanges"} & chunk.keys() for chunk in chunks)
    assert not any({"watch_in", "listen_in"} & chunk.keys() for chunk in chunks)


def test_without_a_pillar_there_is_a_package_and_no_server(minion):
    done = {f"{chunk['state']}.{chunk['fun']}" for chunk in minion(None).low("rethinkdb")}
    assert done == {
        "file.managed", "pkgrepo.managed", "service.masked", "pkg.installed", "file.directory",
    }  # fmt: skip


def test_repository_package_and_units_can_be_left_to_others(minion):
    pillar = {**ALONE, "instances": {"main": {}}}
    chunks = minion(pillar, os_family="Suse", init="sysvinit").low("rethinkdb")
    services = [chunk for chunk in chunks if chunk["state"] == "service"]
    assert [(chunk["fun"], chunk["name"]) for chunk in services] == [("running", "rethinkdb")]
    assert not {"pkg", "pkgrepo"} & {chunk["state"] for chunk in chunks}


def test_a_mirror_takes_the_place_of_the_repository(minion):
    repo = {
        "url": "https://mirror.example.com/{os}-{codename}",
        "key_url": "salt://keys/rethinkdb.asc",
        "key_hash": "sha256=" + "0" * 64,
    }
    chunks = {chunk["__id__"]: chunk for chunk in minion({"repo": repo}).low("rethinkdb.package")}
    assert (
        "https://mirror.example.com/debian-bookworm bookworm main"
        in chunks["rethinkdb-repo"]["name"]
    )
    key = chunks["rethinkdb-repo-key"]
    assert key["source"] == repo["key_url"]
    assert key["source_hash"] == repo["key_hash"]
    assert "skip_verify" not in key


def test_the_unit_is_one_that_systemd_understands(minion, tmp_path):
    text = minion(PILLAR).file("rethinkdb.service.jinja", instance="main")
    unit = configparser.ConfigParser(strict=True, interpolation=None, delimiters="=")
    unit.optionxform = str
    unit.read_string(text)
    service = unit["Service"]
    assert service["User"] == "rethinkdb"
    assert {"LimitNOFILE", "TimeoutStopSec"} <= service.keys()
    assert service["Restart"] == "no"
    assert "PIDFile" not in service
    if not shutil.which("systemd-analyze"):
        return
    place = tmp_path / "rethinkdb@main.service"
    place.write_text(text.replace("ExecStart=/usr/bin/rethinkdb", "ExecStart=/bin/true"))
    seen = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(place)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # It speaks about other units of this machine as well.
    assert not [line for line in seen.stderr.splitlines() if place.name in line], seen.stderr


# ---------------------------------------------------------------- what it refuses


def main(**config):
    return {"instances": {"main": {"config": config}}}


REFUSED = {
    "no mapping": (["a"], 'rethinkdb: found a list; allowed: a mapping'),
    "unknown key": ({"instnaces": {}}, "rethinkdb:instnaces: found a key that does not exist; allowed: account, "),
    "unknown key below": ({"repo": {"uri": "x"}}, "rethinkdb:repo:uri: found a key that does not exist"),
    "a word for a flag": ({"native_unit": "no"}, 'rethinkdb:native_unit: found "no"; allowed: true, false'),
    "a relative path": ({"paths": {"data": "data"}}, 'rethinkdb:paths:data: found "data"; allowed: an absolute path'),
    "a version that YAML made a number": (
        {"package": {"version": 2.4}}, "rethinkdb:package:version: found 2.4; allowed: a version in quotes",
    ),
    "a key without a scheme": (
        {"repo": {"key_url": "pubkey.gpg"}}, 'rethinkdb:repo:key_url: found "pubkey.gpg"; allowed: a URL of',
    ),
    "instances as a list": ({"instances": ["main"]}, 'rethinkdb:instances: found a list; allowed: a mapping of names'),
    "an instance's name": (
        {"instances": {"a b": {}}}, 'rethinkdb:instances:a b: found "a b"; allowed: names of letters',
    ),
    "an option that belongs to the unit": (
        main(**{"pid-file": "/x"}), "rethinkdb:instances:main:config:pid-file: found a key that does not exist; allowed: ",
    ),
    "a port": (
        main(**{"driver-port": 70000}),
        "rethinkdb:instances:main:config:driver-port: found 70000; allowed: a whole number from 1 to 65535",
    ),
    "a port as text": (main(**{"driver-port": "28015"}), 'config:driver-port: found "28015"; allowed: a whole number'),
    "a flag as a number": (main(**{"no-http-admin": 1}), "config:no-http-admin: found 1; allowed: true, false"),
    "a name for bind": (main(bind="eth0"), 'config:bind: found "eth0"; allowed: all, or an IP address of this machine'),
    "a list where one is": (main(cores=[1, 2]), "config:cores: found a list; allowed: one value"),
    "a peer on two lines": (main(join=["db2\nbind=all"]), "config:join: found "),
    "cache": (main(**{"cache-size": "4G"}), 'config:cache-size: found "4G"; allowed: auto, or a whole number'),
    "half of TLS": (
        main(**{"driver-tls-key": "/k"}),
        "rethinkdb:instances:main:config: found driver-tls-key alone; allowed: driver-tls-key, driver-tls-cert together",
    ),
    "an open door": (
        main(bind="all"),
        "rethinkdb:instances:main:config:initial-password: found none, while clients of other machines may connect "
        "(bind); allowed: a password, or false if the cluster has one already",
    ),
    "one port twice": (
        {"instances": {"a": {}, "b": {}}},
        "rethinkdb:instances:b:config:driver-port: found 28015, which is also rethinkdb:instances:a:config:driver-port;",
    ),
    "one folder twice": (
        {"instances": {"a": {"config": {"directory": "/d"}}, "b": {"config": {"directory": "/d", "port-offset": 1}}}},
        "rethinkdb:instances:b:config:directory: found /d, which is also",
    ),
    "a directive of ours": ({"unit": {"PIDFile": "/x"}}, "rethinkdb:unit:PIDFile: found a directive that the formula sets"),
    "a directive on two lines": (
        {"unit": {"Nice": "1\nUser=root"}}, "rethinkdb:unit:Nice: found ",
    ),
    "no directive": ({"unit": {"nice": 1}}, 'rethinkdb:unit: found "nice"; allowed: directives of a section [Service]'),
    "the healer as admin": (
        {**main(), "account": {"managed": True, "name": "admin", "password": "x"}},
        'rethinkdb:account:name: found "admin"; allowed: ',
    ),
    "an account without a password": (
        {**main(), "account": True}, "rethinkdb:account:password: found none; allowed: a password",
    ),
    "an account without a server": (
        {"account": {"managed": True, "password": "x"}}, "rethinkdb:account:instance: found null; allowed: ",
    ),
    "a canary's table": (
        {**main(), "account": {"managed": True, "password": "x", "canary_read": "x"}},
        'rethinkdb:account:canary_read: found "x"; allowed: database.table',
    ),
}  # fmt: skip


@pytest.mark.parametrize("pillar, words", REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_value_gets_one_error_with_its_key_what_was_found_and_what_is_allowed(
    minion, pillar, words
):
    errors = minion(pillar).low("rethinkdb")
    assert len(errors) == 1
    assert words in errors[0]
    assert "; allowed: " in errors[0]


def test_a_pillar_of_the_wrong_kind_is_not_printed_for_there_may_be_a_password_in_it(minion):
    mistaken = {"main": {"config": {"initial-password": SECRETS[0]}}}
    for pillar in ([mistaken], {"instances": [mistaken]}, {"account": SECRETS[1]}):
        (error,) = minion(pillar).low("rethinkdb")
        assert "; allowed: a mapping" in error
        assert not any(secret in error for secret in SECRETS)


def test_a_password_that_rethinkdb_would_cut_is_refused_and_not_printed(minion):
    for word in ("secret#word", " secret", "two\nlines-secret", 5):
        (error,) = minion(main(**{"initial-password": word})).low("rethinkdb")
        assert (
            "config:initial-password: found a value that is not shown; allowed: text on one line"
            in error
        )
        assert "secret" not in error.replace("secret(", "")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"os_family": "Suse"}, "rethinkdb:repo: found managed on os_family Suse; allowed: false, or a minion of Debian"),
        ({"init": "upstart"}, "rethinkdb:native_unit: found true on a minion whose grain init is upstart; allowed: "),
    ],
)  # fmt: skip
def test_a_machine_that_it_does_not_know_gets_an_error_that_says_the_way_out(
    minion, changes, words
):
    (error,) = minion(None, **changes).low("rethinkdb")
    assert words in error


def test_false_says_that_the_cluster_has_a_password_already(minion):
    machine = minion(main(bind="all", **{"initial-password": False}))
    assert "initial-password" not in machine.file("rethinkdb.conf.jinja", instance="main")


# ---------------------------------------------------------------- what it really does


def here(root, binary="/bin/true", **config):
    """A pillar for this machine, as whoever runs the tests, below one folder."""
    folder = {name: str(root / name) for name in ("config", "data", "units", "account")}
    whoami = getpass.getuser()
    return {
        "repo": False,
        "package": False,
        "paths": {**folder, "binary": str(binary)},
        "user": whoami,
        "group": grp.getgrgid(os.getgid()).gr_name,
        "owner": whoami,
        "instances": {"main": {"config": {"initial-password": SECRETS[0], **config}}},
    }


@pytest.fixture
def server(tmp_path):
    """A stand-in for `rethinkdb create`: it makes what the real one makes."""
    program = tmp_path / "rethinkdb"
    program.write_text(
        "#!/bin/sh\n"
        'directory=$(sed -n s/^directory=//p "$3")\n'
        'echo "$@" >> "$directory/../asked"\n'
        'touch "$directory/metadata"\n'
    )
    program.chmod(0o755)
    return program


def test_applied_twice_it_changes_nothing_the_second_time(minion, tmp_path, server):
    machine = minion(here(tmp_path, server))
    before = machine.apply("rethinkdb.config", test=True)
    assert {one["result"] for one in before.values()} <= {None, True}
    assert not (tmp_path / "config").exists()

    first = machine.apply("rethinkdb.config")
    assert {name: one["comment"] for name, one in first.items() if one["result"] is not True} == {}
    assert SECRETS[0] not in repr(first)
    config = tmp_path / "config" / "main.conf"
    assert f"initial-password={SECRETS[0]}" in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "units" / "rethinkdb@main.service").exists()
    assert (tmp_path / "data/main/data").stat().st_mode & 0o777 == 0o750

    for again in (machine.apply("rethinkdb.config", test=True), machine.apply("rethinkdb.config")):
        assert {name: one["changes"] for name, one in again.items() if one["changes"]} == {}
        assert {one["result"] for one in again.values()} == {True}
    assert (tmp_path / "data/main/asked").read_text().count("\n") == 1


def test_a_server_whose_data_are_gone_is_not_made_anew(minion, tmp_path, server):
    machine = minion(here(tmp_path, server))
    machine.apply("rethinkdb.config")
    shutil.rmtree(tmp_path / "data" / "main" / "data")  # its disk is not mounted
    seen = machine.apply("rethinkdb.config")
    assert seen["rethinkdb-main-data-missing"]["result"] is False
    assert not (tmp_path / "data" / "main" / "data").exists()
    (tmp_path / "config" / "main.created").unlink()  # a person has said so
    assert {one["result"] for one in machine.apply("rethinkdb.config").values()} == {True}


@real
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run as somebody")
def test_a_real_server_takes_the_configuration_and_the_healer_gets_its_account(minion, tmp_path):
    binary = server_command(None)[1][0]
    driver, cluster = free_port(), free_port()
    ports = {"driver-port": driver, "cluster-port": cluster, "server-name": "db1", "cache-size": 16}
    pillar = {
        **here(tmp_path, binary, cores=1, **ports),
        "account": {"managed": True, "password": SECRETS[1]},
    }
    machine = minion(pillar, pythonexecutable=shutil.which("python3"))
    made = machine.apply("rethinkdb.config")
    assert {name: one["comment"] for name, one in made.items() if one["result"] is not True} == {}
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "wanted.json").write_text(machine.file("account.json.jinja"))
    program = FORMULA / "rethinkdb" / "files" / "account.py"

    def account(*more):
        asked = [sys.executable, str(program), *more, str(folder / "wanted.json")]
        return subprocess.run(asked, capture_output=True, text=True, timeout=90)

    # What the unit starts.
    unit = machine.file("rethinkdb.service.jinja", instance="main")
    command = re.search("^ExecStart=(.*)$", unit, re.MULTILINE)[1].split()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            assert account("--check").returncode == 1
            done = account()
            assert (done.returncode, done.stderr) == (0, "")
            assert "selfheal may read rethinkdb" in done.stdout
            assert account("--check").returncode == 0
            assert account().stdout == ""
            r = RethinkDB()
            with r.connect("127.0.0.1", driver, user="selfheal", password=SECRETS[1]) as connection:
                names = [
                    row["name"] for row in r.db("rethinkdb").table("server_status").run(connection)
                ]
                assert names == ["db1"]
                with pytest.raises(ReqlPermissionError):
                    r.db_create("x").run(connection)
            wanted = json.loads((folder / "wanted.json").read_text())
            (folder / "wanted.json").write_text(json.dumps({**wanted, "admin_password": "wrong"}))
            refused = account("--check")
            assert refused.returncode == 2
            assert "Wrong password" in refused.stderr
            assert not any(secret in refused.stderr for secret in SECRETS)
        finally:
            process.terminate()


# ---------------------------------------------------------------- what people read


def names_of(schema):
    """The keys of a mapping in the schema, wherever `false` may stand in its place."""
    (one,) = [kind for kind in [schema, *schema.get("anyOf", [])] if "properties" in kind]
    assert one["additionalProperties"] is False
    return one["properties"]


def test_the_schema_knows_the_same_keys_as_the_formula():
    top = names_of(SCHEMA["properties"]["rethinkdb"])
    assert top.keys() == DEFAULTS.keys()
    for key in ("repo", "package", "paths", "account"):
        assert names_of(top[key]).keys() == DEFAULTS[key].keys(), key
    assert names_of(SCHEMA["$defs"]["config"]).keys() == OPTIONS.keys()


def test_the_example_is_a_pillar_that_renders_and_shows_every_key(minion):
    pillar = yaml.safe_load(EXAMPLE)["rethinkdb"]
    chunks = minion(pillar).low("rethinkdb")
    assert all(isinstance(chunk, dict) for chunk in chunks), chunks
    for key, default in DEFAULTS.items():
        assert re.search(rf"^  (# )?{key}:", EXAMPLE, re.MULTILINE), key
        if isinstance(default, dict) and key not in ("config", "instances"):
            for below in default:
                assert re.search(rf"^  #   {below}:", EXAMPLE, re.MULTILINE), (key, below)


def test_what_the_example_comments_out_are_the_defaults():
    """Uncommented, nothing changes; but for what it only hints at."""
    told = yaml.safe_load(
        re.sub(r"^  # (  )?(?=[a-z_]+:|  [A-Za-z_]+:)", r"  \1", EXAMPLE, flags=re.MULTILINE)
    )
    for key in (
        "package",
        "paths",
        "unit",
        "user",
        "group",
        "owner",
        "native_unit",
        "node_alive",
        "node_alive_timeout",
        "node_alive_user",
    ):
        assert told["rethinkdb"][key] == DEFAULTS[key], key


def test_an_installed_package_carries_every_file_of_the_formula():
    setup = configparser.ConfigParser()
    setup.read(FORMULA.parent / "setup.cfg")
    pattern = setup["options.package_data"]["saltext_selfheal.formula"]
    carried = {path for path in FORMULA.glob(pattern) if path.is_file()}
    assert carried == {
        path for path in FORMULA.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
