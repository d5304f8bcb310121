"""A guard against slower steps that counts instead of taking the time: operations and FLOPs of one training step.

After a change that means to move them, write them anew and say why in the commit:
`PYTHONPATH=tests python tests/golden/test_operations.py`.
"""

import importlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_arms import GOLDEN, simulated
from tiny import tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.component import find
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.hooks.hook import Hook
from coldrank.train.run import Run, build
from coldrank.train.stepping import Taken

FILE = GOLDEN / "operations.json"
ARMS = {
    "base": ("base", ()),
    "poso": ("poso", ()),
    "base_with_mwuf": ("base", ("mwuf",)),
    "base_with_metacf": ("base", ("metacf",)),
    "base_with_posterior": ("base", ("posterior",)),
}


class Operations(TorchDispatchMode):
    """Counts what reaches a kernel; views are not counted, their cost is that of their call alone."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def config(name: str) -> RunConfig:
    arm, hooks = ARMS[name]
    base = getattr(importlib.import_module("coldrank.configs.kuairand"), arm)()
    return tiny(replace(base, hooks=tuple(find(Hook, name)() for name in hooks)))


def step(run: Run, taken: Taken) -> None:
    run.begin_step(taken, 1, 2)
    run.model(taken.batch).loss.backward()
    run.end_step()


def counted(name: str, data: DataFolder) -> dict[str, int]:
    """Of the third step: the first ones make states."""
    with process_group() as ranks:
        run = build(config(name), data, ranks)
        files = data.files(("train",))
        fit_encoder(run.encoder, files)
        reader = SampleReader(files, run.make.columns(), run.config.data.batch_size)
        batches = [run.make(raw) for _, raw in zip(range(3), reader.epoch(0), strict=False)]
        taken = [Taken(b, 0, n, run.dynamic_ids(b)) for n, b in enumerate(batches)]
        for t in taken[:2]:
            step(run, t)
        with FlopCounterMode(display=False) as flops, Operations() as operations:
            step(run, taken[2])
    return {"operations": operations.count, "flops": flops.get_total_flops()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return simulated(tmp_path_factory.mktemp("operations"))


@pytest.mark.parametrize("name", ARMS)
def test_a_step_takes_no_more_than_as_written_down(name: str, data: DataFolder) -> None:
    found, most = counted(name, data), json.loads(FILE.read_text())[name]
    assert found["flops"] <= most["flops"] and found["operations"] <= most["operations"], "see the head of this file"


def write_anew() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = simulated(Path(folder))
        FILE.write_text(json.dumps({name: counted(name, made) for name in ARMS}, indent=1) + "\n")


if __name__ == "__main__":
    write_anew()
