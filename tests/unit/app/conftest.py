"""Fixtures of the application's side."""

import pytest

from tests.lab.simulated import SimulatedNode
from tests.unit.app.world import Api, Relay


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


@pytest.fixture
def api():
    made = Api()
    yield made
    made.server.shutdown()
    made.server.server_close()
