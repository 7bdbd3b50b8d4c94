"""One site for all tests of this folder that can share it, and what puts it right between two of them."""

import pytest

from tests.lab.demo import TIMES
from tests.lab.site import Site
from tests.lab.site import package_reactor

MARK = "lab/mark"


@pytest.fixture(scope="session")
def site(tmp_path_factory, request):
    """A site whose healer is quick; its reactor also answers `lab/mark`, so that tests know how far it has come."""
    marker = tmp_path_factory.mktemp("reactor") / "mark.sls"
    marker.write_text(
        "mark:\n  local.test.ping:\n    - tgt: app1\n    - jid: '{{ data['jid'] }}'\n    - arg: []\n"
    )
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def tell(line):
        with capture.global_and_fixture_disabled():
            print(f"\n  lab: {line}", end="", flush=True)

    reactor = [*package_reactor(), {MARK: [str(marker)]}]
    with Site(settings=lambda s: s.cluster_settings(**TIMES), reactor=reactor, tell=tell) as made:
        yield made


@pytest.fixture(scope="session")
def salt_master(site):
    """The site's salt-master, a pytest-salt-factories daemon."""
    return site.master


@pytest.fixture(scope="session")
def salt_minion(site):
    """The minion of the application."""
    return site.minions["app1"]


@pytest.fixture(scope="session")
def salt_api(site):
    """The site's salt-api, a pytest-salt-factories daemon."""
    return site.api_daemon


@pytest.fixture
def quiet(site):
    """The site with a warm engine, every node serving and no incident open."""
    site.wait_until_quiet()
    return site
