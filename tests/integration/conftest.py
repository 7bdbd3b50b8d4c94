"""One site for all tests of this folder that can share it, and what puts it right between two of them."""

import json
import time
from pathlib import Path

import pytest

from saltext_selfheal.healing import remedies
from tests.lab.demo import TIMES
from tests.lab.site import Site, package_reactor

MARK = "lab/mark"
BEGUN = pytest.StashKey[float]()
MOST_LINES = 30  #: of the site's logs, where a test has failed
MOST_CAPTURED = 20  #: of what the test has printed
# What a request gets that will be done: held for a second, where the newest table map is older than the last change.
GRANTED = ("accepted", "held")
#: Actions that only ask a minion, and change nothing.
ASKING = tuple(action.value for action in remedies.ASKING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Of a failure: its cause, shortly; then the last lines of the site's logs that bear on it, and no other log."""
    option = item.config.option
    style = option.tbstyle
    if style == "auto":
        option.tbstyle = "short"
    try:
        report = yield
    finally:
        option.tbstyle = style
    # Also where it has passed: with a test's failure pytest shows what was captured at its end.
    report.sections = [
        (name, "\n".join(text.splitlines()[-MOST_CAPTURED:]))
        for name, text in report.sections
        if not name.startswith("Captured log")
    ]
    if not report.failed:
        return report
    begun = item.stash.setdefault(BEGUN, call.start)
    for made in Site.alive:
        lines = made.last_lines(since=begun, most=MOST_LINES)
        report.sections.append((f"what the site in {made.root} said last", "\n".join(lines)))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[BEGUN] = time.time()


def reactor_with_mark(folder):
    """A reactor that also answers `lab/mark`, so that tests know how far it has come."""
    marker = folder / "mark.sls"
    marker.write_text(
        "mark:\n  local.test.ping:\n    - tgt: app1\n    - jid: '{{ data['jid'] }}'\n    - arg: []\n"
    )
    return [*package_reactor(), {MARK: [str(marker)]}]


@pytest.fixture(scope="session")
def site(tmp_path_factory, request):
    """A site whose healer is quick; its reactor also answers `lab/mark`."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def tell(line):
        with capture.global_and_fixture_disabled():
            print(f"\n  lab: {line}", end="", flush=True)

    reactor = reactor_with_mark(tmp_path_factory.mktemp("reactor"))

    def settings(new):
        # So many tests share the site that its nodes' budgets and the limits would be spent: that locks.
        # Nor is a highstate that a test orders tried first: on a well node it would change nothing, and is left out then.
        own = {**TIMES, "budget": "off", "highstate": {"test_first": False}}
        return new.cluster_settings(engine={"limits": "off"}, **own)

    with Site(settings=settings, reactor=reactor, tell=tell) as made:
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


@pytest.fixture
def db2(quiet):
    """The node of the drill; afterwards it is right and serves."""
    node = quiet.nodes["db2"]
    yield node
    assert quiet.highstate("db2")
    node.wait_serving(60)
    quiet.wait_until_quiet()


def written_by(site, jobs=True):
    """Name → bytes of what Salt's daemons and the healer have written: logs, ledger, history, and the job cache.

    Not the services' own logs, nor what must hold a password: configuration and pillar.
    """
    paths = [path for path in site.logs().values() if path.parent.name != "init"]
    ledger = site.run_runner("selfheal.status")["ledger"]
    paths += [Path(ledger + suffix) for suffix in ("", "-wal")]
    if jobs:
        cache = Path(site.master_opts()["cachedir"]) / "jobs"
        paths += [path for path in cache.rglob("*") if path.is_file()]
    texts = {str(path): path.read_bytes() for path in paths if path.exists()}
    assert len(texts) > 5
    history = site.run_runner("selfheal.history", limit=10000)
    return {**texts, "history": json.dumps(history).encode()}


def secrets_told(site, events, jobs=True):
    """Where one of the site's secrets stands: in what was written, or in these events, or in what `status` says."""
    secrets = (site.password, site.webhook_secret, site.formula_key)
    # Also without what only says that it is one.
    secrets += (site.webhook_secret.removeprefix("whsec_"),)
    ours = [(event.tag, event.data) for event in events]
    assert ours
    told = {
        **written_by(site, jobs),
        "events": json.dumps(ours, default=str).encode(),
        "status": json.dumps(site.run_runner("selfheal.status"), default=str).encode(),
    }
    return [name for name, text in told.items() if any(s.encode() in text for s in secrets)]


def orders(events):
    """The orders among these events that change something; a look may follow an earlier incident at any time."""
    return [e for e in events.matching("selfheal/remediate/*") if _changes(e.data)]


def wait_order(events, timeout=30):
    """Wait for the first such order: what it says."""
    return events.wait("selfheal/remediate/*", _changes, timeout=timeout).data


def acts(incident):
    """What was done in an incident, as `selfheal.incident` tells it: without the jobs that only asked."""
    return [one for one in incident["attempts"] if one["action"] not in ASKING]


def _changes(order):
    return order.get("action") not in ASKING


def wait_healed(events):
    """Wait for the first order among these events, and for the end of its incident: its id.

    Not for any end: what a death brings with it for a moment may be suspected, and over, meanwhile.
    """
    incident = wait_order(events)["incident"]
    events.wait("selfheal/incident/*/resolved", lambda d: d["incident"] == incident, timeout=60)
    return incident
