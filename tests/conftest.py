"""Fixtures of the whole test suite."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tried


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-inputs", type=Path, metavar="FILE", help="write the table of inputs (tests/tried.py)")


def pytest_collection_finish(session: pytest.Session) -> None:
    if path := session.config.getoption("--write-inputs"):
        path.write_text(tried.page(session.items))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; skips where it is not."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside the project (../shared/data)")
    return folder
