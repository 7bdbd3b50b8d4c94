"""A server behind the packages' init script."""

import pytest

from tests.unit.control.world import SERVICE, InitScript, ended, simulated


@pytest.fixture
def server(tmp_path):
    with ended(simulated(tmp_path)) as made:
        yield made


@pytest.fixture
def script(server, tmp_path):
    """It has started the server."""
    made = InitScript(server, tmp_path / "db1" / "pid_file")
    made.start(SERVICE)
    server.wait_ready()
    made.called.clear()
    return made


@pytest.fixture
def port(server):
    return server.settings.driver_port
