"""Fixtures of the application's side."""

import pytest

from tests.unit.app.world import Api


@pytest.fixture
def api():
    made = Api()
    yield made
    made.server.shutdown()
    made.server.server_close()
