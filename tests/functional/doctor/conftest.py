"""A healthy master, as files and options, and how to ask one check of the doctor's."""

import getpass
import os
from pathlib import Path

import pytest
import salt.config
import salt.utils.yaml

from saltext_selfheal.doctor import checks
from saltext_selfheal.healing.model import Action, News, Tell
from saltext_selfheal.ledger import writer as ledger
from tests.functional.conftest import REACTOR, SETTINGS
from tests.lab.ports import free_port
from tests.lab.simulated import SimulatedNode

SECRETS = {
    "password": "hunter-two",
    "secret": "whsec_c2VjcmV0LWhvb2s=",
    "key": "key-of-the-formula",
}
KEY = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
HOOKS = {"runbook-web": {"secret": SECRETS["secret"], "clusters": ["runbook"]}}


def mapping():
    made = [{f"selfheal/remediate/{a.value}": [str(REACTOR / f"{a.value}.sls")]} for a in Action]
    return [*made, {"selfheal/engine/heartbeat": [str(REACTOR / "heartbeat.sls")]}]


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
    book.commit(book.timeline.now(), [], [Tell(News.STEADY, "runbook", "db1", "answers")])
    yield book
    book.close()


def lines(check, opts, api_config=None):
    """What one check says."""
    master = checks.Master(opts, api_config)
    try:
        return [str(one) for one in checks.ask(check, master)]
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


@pytest.fixture
def nodes(opts):
    """Two nodes that answer, named in the settings; db1 says that it has a web interface."""
    with (
        SimulatedNode(name="db1", password=SECRETS["password"], http_port=free_port()) as one,
        SimulatedNode(name="db2", password=SECRETS["password"]) as two,
    ):
        made = settings()
        places = {"db1": f"{one.host}:{one.port}", "db2": f"{two.host}:{two.port}"}
        made["clusters"]["runbook"].update(nodes=places, timeout="500ms")
        opts["engines"] = [{"selfheal": made}]
        yield one, two
