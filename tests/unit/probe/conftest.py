"""The nodes that the tests of the probe look at."""

import pytest
import trustme

from tests.lab.simulated import SimulatedNode, acquaint
from tests.unit.probe.world import Babbler


@pytest.fixture
def authority(tmp_path):
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    made.path = tmp_path / "ca.pem"
    return made


@pytest.fixture
def cluster():
    made = [SimulatedNode(name=f"db{n}", password="secret") for n in (1, 2, 3)]
    with made[0], made[1], made[2]:
        acquaint(*made)
        yield made


@pytest.fixture(scope="module")
def babbler():
    made = Babbler()
    yield made
    made.listener.close()
