"""A Spark session for tests, and what is compared of two prepared folders."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coldrank.data.errors import UserError
from coldrank.data.spark.session import check_installed, quiet

Json = dict[str, Any]
CONF = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "2",
}


def skip_without_spark() -> None:
    """Skips the test where PySpark or Java is missing."""
    try:
        check_installed()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A session that `prepare --engine spark` finds, too."""
    skip_without_spark()
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        builder = SparkSession.builder
        for name, value in CONF.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


def same(one: Path, first: Json, other: Path, second: Json) -> None:
    """Whether two folders hold the same samples, byte for byte, and say the same of them."""
    assert [p | {"path": ""} for p in first["partitions"]] == [p | {"path": ""} for p in second["partitions"]]
    for part, like in zip(first["partitions"], second["partitions"], strict=True):
        assert (one / part["path"]).read_bytes() == (other / like["path"]).read_bytes(), part["path"]
    for name in first.keys() - {"state", "partitions"}:
        left, right = ({k: v for k, v in m[name].items() if k != "engine"} if name == "arguments" else m[name]
                       for m in (first, second))  # fmt: skip
        assert left == right, name
    assert first["state"]["schema"] == second["state"]["schema"]
    assert not [p for p in other.iterdir() if p.name not in ("manifest.json", "samples", "state")]
