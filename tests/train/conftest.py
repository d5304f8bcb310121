"""Fixtures of the tests of training."""

from collections.abc import Callable

import pytest
from samples import write_samples

from coldrank.train.config import RunConfig
from coldrank.train.data.batches import DataFolder
from coldrank.train.data.fit import fit_encoder
from coldrank.train.distributed import process_group
from coldrank.train.trainer import Run, build


@pytest.fixture(scope="module")
def ranks():
    """This process as the only rank."""
    with process_group() as ranks:
        yield ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataFolder:
    """Random samples."""
    return DataFolder.open(write_samples(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def fitted(data, ranks) -> Callable[[RunConfig], Run]:
    """config -> a run before its first step, its encoder fitted; of one config always with the same weights."""

    def fitted(config: RunConfig) -> Run:
        run = build(config, data, ranks)
        fit_encoder(run.encoder, data.files(config.data.fit))
        return run

    return fitted
