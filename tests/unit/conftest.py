"""What several test files of the core and the ledger need."""

import pytest

from saltext_selfheal.ledger.writer import Ledger


@pytest.fixture
def path(tmp_path):
    """Where an engine would make its ledger, and its folder."""
    return tmp_path / "selfheal" / "ledger.sqlite3"


@pytest.fixture
def book(path):
    """An engine's ledger that nothing was written to."""
    return Ledger(path)
