"""What several test files need: a ledger, a node that answers, and a relay before it."""

import pytest

from saltext_selfheal.ledger.writer import Ledger
from tests.lab.simulated import SimulatedNode
from tests.unit.relay import Relay


@pytest.fixture
def path(tmp_path):
    """Where an engine would make its ledger, and its folder."""
    return tmp_path / "selfheal" / "ledger.sqlite3"


@pytest.fixture
def book(path):
    """An engine's ledger that nothing was written to."""
    return Ledger(path)


@pytest.fixture(scope="module")
def node():
    with SimulatedNode(name="db1", password="secret") as made:
        yield made


@pytest.fixture
def well(node):
    node.clear()
    yield node
    node.clear()
    node.drop_connections()


@pytest.fixture
def relay(well):
    made = Relay(well)
    yield made
    made.close()
