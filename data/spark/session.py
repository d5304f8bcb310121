"""The Spark session that a preparation runs on."""

import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_NO_JAVA = (
    "--engine spark: found no Java; install a runtime of Java 17 (Debian: apt-get install openjdk-17-jre-headless),"
    " or set JAVA_HOME"
)
# Where spark-submit has started Java.
_SUBMITTED = "PYSPARK_GATEWAY_PORT"
# Of a session of our own, unless the user says so.
_OURS = {"spark.app.name": "coldrank prepare", "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower()}
# Rows of our frames hold megabytes; tasks are numbered, so none may be joined to others or left out.
_SQL = {"spark.sql.execution.arrow.maxRecordsPerBatch": "8", "spark.sql.adaptive.enabled": "false"}


@contextmanager
def spark_session(conf: Mapping[str, str]) -> Iterator["SparkSession"]:
    """The session that is there, else one that ends with `with`: of spark-submit, SPARK_MASTER or spark-defaults.

    conf: its settings. Raises UserError, in one line, where PySpark or Java lack, and for settings that come too late.
    """
    check_installed()
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        if conf:
            raise UserError(f"--spark-conf {next(iter(conf))}: has no effect, as there is a Spark session already")
        yield _own_settings(active)
        return
    # Of the workers: this environment's Python, which has coldrank.
    os.environ.setdefault("PYSPARK_PYTHON", conf.get("spark.pyspark.python", sys.executable))
    given = dict(conf) if _SUBMITTED in os.environ else _OURS | dict(conf)
    if master := os.environ.get("SPARK_MASTER"):
        given.setdefault("spark.master", master)
    builder = SparkSession.builder
    for name, value in given.items():
        builder = builder.config(name, value)
    try:
        with quiet():
            spark = builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        raise UserError(f"--engine spark: {_first_line(error)}") from None
    except Py4JError as error:
        raise UserError(f"--engine spark: {java_line(error)}") from None
    try:
        if "spark.log.level" not in given:
            spark.sparkContext.setLogLevel("ERROR")
        yield _own_settings(spark)
    finally:
        spark.stop()


def check_installed() -> None:
    """Raises UserError where PySpark lacks or is too old, and where there is no Java."""
    try:
        from pyspark.sql import DataFrame
    except ImportError as error:
        lacking = (error.name or "pyspark").partition(".")[0]
        raise UserError(f"--engine spark: {lacking} is not installed; pip install 'coldrank[spark]'") from None
    if not hasattr(DataFrame, "repartitionById"):
        raise UserError("--engine spark: PySpark is older than 4.1; pip install 'coldrank[spark]'")
    if "SPARK_REMOTE" in os.environ:
        raise UserError(
            "--engine spark: SPARK_REMOTE is set, but not with Spark Connect: its client has no tasks of ours"
        )
    home = os.environ.get("JAVA_HOME")
    if _SUBMITTED not in os.environ and not shutil.which(str(Path(home, "bin", "java")) if home else "java"):
        raise UserError(_NO_JAVA)


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves out what PySpark says of pandas, which nothing here rests on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


def _own_settings(spark: "SparkSession") -> "SparkSession":
    """A session of the same application with settings of its own."""
    own = spark.newSession()
    for name, value in _SQL.items():
        own.conf.set(name, value)
    # A task has one core.
    own.sparkContext.environment.setdefault("POLARS_MAX_THREADS", "1")
    return own


def java_line(error: Exception) -> str:
    """What Java says, in a line."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("at ", "An error occurred", ":"))]
    caused = [line.removeprefix("Caused by: ") for line in said if line.startswith("Caused by: ")]
    named = [line.removeprefix(": ") for line in lines if line.startswith(": ")]
    return next(iter([*caused[::-1], *named, *said]), type(error).__name__)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
