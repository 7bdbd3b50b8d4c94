"""An engine that runs while its package is replaced keeps running, and heals before and after."""

import os
import shutil
from pathlib import Path

import saltext_selfheal
from tests.integration.conftest import wait_healed, wait_order
from tests.lab.demo import TIMES
from tests.lab.site import Site, reactor_tag

HERE = Path(next(iter(saltext_selfheal.__path__)))


def install(folder):
    """As pip does it: what stands there is removed first. The files are other ones than those that run."""
    package = folder / HERE.name
    shutil.copytree(HERE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in package.rglob("*.py"):
        path.write_text(
            f"{path.read_text(encoding='utf-8')}\n# another release\n", encoding="utf-8"
        )


def test_an_engine_heals_while_its_package_is_away_and_after_another_took_its_place(
    tmp_path, monkeypatch
):
    install(tmp_path)
    before = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(before))
    slses = sorted((tmp_path / HERE.name / "reactor").glob("*.sls"))
    reactor = [{reactor_tag(sls): [str(sls)]} for sls in slses]

    def settings(new):
        return new.cluster_settings(**TIMES)

    with Site(settings=settings, reactor=reactor, apps=()) as site:
        site.wait_until_quiet()
        engine = site.engine()
        with site.events("selfheal/*") as events:
            shutil.rmtree(tmp_path / HERE.name)
            site.nodes["db2"].kill()
            order = wait_order(events, timeout=60)
            assert order["action"] == "restart"
            assert not site.nodes["db2"].serving()  # nobody could read the SLS
            install(tmp_path)
            wait_healed(events)
        assert site.nodes["db2"].serving()
        with site.events("selfheal/*") as events:
            site.nodes["db3"].kill()
            wait_healed(events)
        assert site.engine() == engine
        told = site.salt_run("selfheal.status", "runbook")
        assert told.returncode == 0
        assert told.data["engine"] == "running"
