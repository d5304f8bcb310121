"""Numbered tasks on Spark, each with one answer."""

import errno
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coldrank.data.errors import UserError
from coldrank.data.spark.session import java_line

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ANSWERS = "number long, fine boolean, answer binary"
Batches = Iterable[pa.RecordBatch]
_SCHEMA = pa.schema([("number", pa.int64()), ("fine", pa.bool_()), ("answer", pa.binary())])
_NO_MODULE = re.compile(r"^ModuleNotFoundError: No module named '(\w+)", re.MULTILINE)
_USER_ERROR = re.compile(r"^coldrank\.data\.errors\.\w+: (.*)$", re.MULTILINE)


def called(spark: "SparkSession", count: int, work: Callable[[int], Any]) -> list[Any]:
    """Calls a function with 0, 1, ... `count` - 1, each in a task of its own; its answers.

    Raises UserError as the function does; of several, that of the first task.
    """
    if not count:
        return []

    def call(batches: Batches) -> Iterator[pa.RecordBatch]:
        for number in numbers(batches):
            yield answer(number, lambda number=number: work(number))  # type: ignore[misc]

    return answers(numbered(spark, count).mapInArrow(call, ANSWERS))


def numbered(spark: "SparkSession", count: int) -> "DataFrame":
    """0, 1, ... `count` - 1, each in a partition of its own."""
    return spark.range(0, count, 1, count)


def numbers(batches: Batches) -> Iterator[int]:
    """What `numbered` gives a task."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def answer(number: int, work: Callable[[], Any]) -> pa.RecordBatch:
    """The row of what a function returns, or of its UserError. number: of the task."""
    try:
        fine, said = True, work()
    except UserError as error:
        fine, said = False, str(error)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        fine, said = False, f"{error.filename or 'a disk of an executor'}: no space left"
    return pa.RecordBatch.from_arrays([[number], [fine], [pickle.dumps(said)]], schema=_SCHEMA)


def answers(frame: "DataFrame") -> list[Any]:
    """What the rows of `answer` in a frame say, by number. Raises UserError as `called` does."""
    rows = sorted(_collected(frame), key=lambda row: row.number)
    for row in rows:
        if not row.fine:
            raise UserError(pickle.loads(row.answer))
    return [pickle.loads(row.answer) for row in rows]


def _collected(frame: "DataFrame") -> list[Any]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        return frame.collect()
    except PySparkException as error:
        if said := _USER_ERROR.search(str(error)):
            raise UserError(said[1]) from None
        if lacking := _NO_MODULE.search(str(error)):
            raise UserError(
                f"--engine spark: the Python of the executors has no {lacking[1]!r}; name one with coldrank in"
                " PYSPARK_PYTHON or spark.pyspark.python"
            ) from None
        raise
    except Py4JError as error:
        raise UserError(f"--engine spark: {java_line(error)}") from None
