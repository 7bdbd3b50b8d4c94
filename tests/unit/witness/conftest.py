"""A machine for each test."""

import pytest

from tests.unit.witness.world import Machine


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)
