"""What the doctor says of settings, engine, secrets and versions."""

import os
import time
from pathlib import Path

import pytest
import salt.version

from saltext_selfheal.ledger import timeline
from saltext_selfheal.ledger import writer as ledger
from tests.functional.conftest import SETTINGS
from tests.functional.doctor.conftest import OURS, lines, reloaded, says, settings

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
    monkeypatch.setattr(salt.version, "__version__", release)
    says(lines("versions", opts), level, f"Salt {release}, rethinkdb 2.")
