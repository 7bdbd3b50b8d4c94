"""A master's options without a master: real loaders, no daemons."""

from pathlib import Path

import pytest
import salt.config

import saltext_selfheal

SETTINGS = {
    "clusters": {
        "runbook": {"minions": "db*", "nodes": {"db1": "127.0.0.1:1", "db2": "127.0.0.1:2"}}
    }
}
REACTOR = Path(next(iter(saltext_selfheal.__path__))) / "reactor"


@pytest.fixture
def opts(tmp_path):
    """Options as a master loads them, everything below the test's own folder."""
    conf = tmp_path / "master"
    conf.write_text(f"root_dir: {tmp_path}\nfile_client: local\n")
    made = salt.config.master_config(str(conf))
    made["engines"] = [{"reactor": {}}, {"selfheal": SETTINGS}]
    Path(made["cachedir"]).mkdir(parents=True)
    return made
