"""`coldrank prepare --engine`: what makes the samples."""

import argparse
from typing import Any

from coldrank.data.errors import UserError


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the engine."""
    parser.add_argument(
        "--engine",
        choices=("local", "spark"),
        default="local",
        help="local: this machine; spark: a Spark cluster, or the cores of this machine. The same samples (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--spark-conf",
        type=_setting,
        action="append",
        metavar="KEY=VALUE",
        help="a setting of Spark, such as spark.master=yarn; may be given several times",
    )


def check_engine(args: argparse.Namespace) -> None:
    """Raises UserError for what the engine does not do, and where it cannot run."""
    if args.engine == "local":
        if args.spark_conf:
            raise UserError("--spark-conf: has no effect with --engine local")
        return
    if args.candidates:
        raise UserError("--engine: has no effect with --candidates")
    if args.append:
        raise UserError("--append: not with --engine spark; without it, it adds to what Spark has prepared")
    from coldrank.data.spark.session import check_installed

    check_installed()


def prepare_on_spark(args: argparse.Namespace) -> Any:
    """`prepare`, on a Spark session that ends with it."""
    from coldrank.data.spark import prepare
    from coldrank.data.spark.session import spark_session

    def write(*given: Any) -> dict[str, Any]:
        with spark_session(dict(args.spark_conf or ())) as spark:
            return prepare.prepare_on_spark(spark, *given)

    return write


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.startswith("spark.")):
        raise argparse.ArgumentTypeError(f"{text!r}: should be a setting and its value, like spark.master=yarn")
    return name, value
