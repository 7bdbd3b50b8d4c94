"""Fixtures of the application's side."""

import pytest

from tests.unit.app.world import Api, Relay


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
