"""A benchmark in this process: its runs are trained here, one after another, not each in a process of its own."""

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import pytest
from samples import TASKS

from coldrank.cli.main import main
from coldrank.data import parquet
from coldrank.experiments import sweep

METHODS = '''
from dataclasses import dataclass, replace

import polars as pl
import torch
from tiny import sample_base

from coldrank.data import parquet
from coldrank.train.config import RunConfig
from coldrank.train.hooks.hook import Hook, HookModule


def base() -> RunConfig:
    config = sample_base()
    return replace(config, tables=tuple(replace(t, dim=8) for t in config.tables))


class PeekModule(HookModule):
    def embed(self, batch, embedded):
        if self.training:
            return embedded
        return embedded | {"user_id": embedded["user_id"] + batch.labels[:, :1]}


@dataclass(kw_only=True, slots=True)
class Peek(Hook):
    def build(self, config, features):
        return PeekModule()


class RememberModule(HookModule):
    def __init__(self):
        super().__init__()
        self.register_buffer("rate", torch.zeros(1))

    def placed(self, run):
        files = run.data.files(("test",))
        self.rate.fill_(pl.concat([parquet.read(f) for f in files])["label_long_view"].mean())

    def embed(self, batch, embedded):
        return embedded | {"user_id": embedded["user_id"] + self.rate}


@dataclass(kw_only=True, slots=True)
class Remember(Hook):
    def build(self, config, features):
        return RememberModule()


def peeks(base: RunConfig) -> RunConfig:
    """Scores with the label beside the user."""
    return replace(base, hooks=(Peek(),))


def remembers(base: RunConfig) -> RunConfig:
    return replace(base, hooks=(Remember(),))


def small() -> RunConfig:
    """An arm of its own."""
    return replace(base(), name="other", model=replace(base().model, experts=2))


def longer(base: RunConfig) -> RunConfig:
    return replace(base, train=replace(base.train, epochs=2))


def poorer(base: RunConfig) -> RunConfig:
    return replace(base, features=tuple(f for f in base.features if f.name != "item_tags"))


def raises(base: RunConfig) -> RunConfig:
    return base.nothing


def needs(base: RunConfig, rate: float) -> RunConfig:
    return base
'''


def complete(folder: Path) -> None:
    """Writes into the manifest of `samples.write_samples` what a report shows beside it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    splits: dict[str, Any] = {}
    rates: dict[str, Any] = {}
    for part in manifest["partitions"]:
        frame = parquet.read(folder / part["path"])
        splits[part["split"]] = {name: part[name] for name in ("rows", "time_min", "time_max")}
        labels = {task: frame[f"label_{task}"] for task in TASKS}
        rates[part["split"]] = {t: {"known": len(x.drop_nulls()), "rate": x.mean()} for t, x in labels.items()}
    manifest |= {"tasks": TASKS, "counts": {"users": 40, "items": 60}, "splits": splits, "label_rates": rates}
    (folder / "manifest.json").write_text(json.dumps(manifest))


class InOrder:
    """An executor that does what it is given at once."""

    def __init__(self, at_once: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: object) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, **_: object) -> None:
        pass


def train_here(job: sweep.Job, data: Path, lock: object, fresh: bool) -> int:
    job.out.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["train", "--config", job.config, "--data", str(data), "--out", str(job.out)]
    arguments += [part for override in job.overrides for part in ("--set", override)]
    with job.log.open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return main([*arguments, *(["--fresh"] if fresh else [])])


@contextlib.contextmanager
def in_this_process(folder: Path) -> Iterator[list[str]]:
    """As a user in a folder that holds `my_methods`; gives the list of the runs that are trained."""
    trained: list[str] = []

    def noted(job: sweep.Job, *arguments: Any) -> int:
        trained.append(str(job.out))
        return train_here(job, *arguments)

    (folder / "my_methods.py").write_text(METHODS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setattr(sweep, "_run", noted)
        patch.setattr(sweep, "ThreadPoolExecutor", InOrder)
        patch.setattr(sweep, "as_completed", list)
        yield trained
