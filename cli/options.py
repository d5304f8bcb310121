"""Options that several commands have."""

import argparse
from pathlib import Path
from typing import Any


def data_path(text: str) -> Path:
    """Where data is read: a path or `s3://BUCKET/FOLDER`."""
    from coldrank.data.location import location

    return location(text)


def local_path(text: str) -> Path:
    """Where a command reads and writes what is no prepared data: a path, no URL."""
    from coldrank.data.location import local

    return local(text)


def add_data(p: argparse.ArgumentParser) -> None:
    """Adds --data."""
    p.add_argument("--data", required=True, type=data_path, help="folder written by `coldrank prepare`, or its URL")


def add_set(p: argparse.ArgumentParser) -> None:
    """Adds --set."""
    p.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="change config fields, e.g. --set train.steps=200 seed=2",
    )


def add_jobs(p: Any) -> None:
    """Adds --jobs to a parser or group."""
    p.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs side by side, the cores shared out (default: 1)"
    )


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number, 0 or more")
    return int(text)


def option(name: str) -> str:
    """The option of an argument: --test-from."""
    return f"--{name.replace('_', '-')}"
