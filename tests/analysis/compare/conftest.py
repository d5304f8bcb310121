"""For all tests of comparisons."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """statsmodels collects garbage at every call: half a second beside all that TorchRec imports, hundreds of times."""
    gc.freeze()
    yield
    gc.unfreeze()
