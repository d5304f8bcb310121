"""Fixtures of the whole test suite."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coldrank.data.batches import DataFolder
    from coldrank.train.config import RunConfig
    from coldrank.train.run import Run

sys.path.insert(0, str(Path(__file__).parent))

import tried


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-inputs", type=Path, metavar="FILE", help="write the table of inputs (tests/tried.py)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: at the end they would leave a core without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture(autouse=True)
def modules_of_a_test_are_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test imported from a temporary folder is not there for the next, which may write one of that name."""
    before = set(sys.modules)
    yield
    place = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(place):
            del sys.modules[name]


# Imported where they are asked for: tests of modules alone begin without TorchRec.


@pytest.fixture(scope="module")
def ranks():
    """This process as the only rank."""
    from coldrank.train.distributed.ranks import process_group

    with process_group() as ranks:
        yield ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataFolder:
    """Random samples."""
    from samples import write_samples

    from coldrank.data.batches import DataFolder

    return DataFolder.open(write_samples(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def fitted(data, ranks) -> Callable[[RunConfig], Run]:
    """config -> a run before its first step, its encoder fitted; of one config always with the same weights."""
    from coldrank.data.fit import fit_encoder
    from coldrank.train.run import build

    def fitted(config: RunConfig) -> Run:
        run = build(config, data, ranks)
        fit_encoder(run.encoder, data.files(config.data.fit))
        return run

    return fitted
