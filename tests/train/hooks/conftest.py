"""Fixtures of PAM's tests."""

import pytest
from periods import write_periods
from retrieving import DAYS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared samples of some days."""
    return write_periods(tmp_path_factory.mktemp("data") / "d", DAYS)
