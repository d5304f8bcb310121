"""Whole runs of several configs, one after another, on these ranks: `coldrank train` without its command line.

A program for torch.distributed.run, or alone as one rank. CASES: JSON, name -> {"config", "data"}, and "hosts": 2 for
ranks that pass for those of two hosts, "together": N for one rank that takes in every step what N ranks would, "stop":
K for a run that is asked to stop after K steps. Writes the run folders OUT/NAME.
"""

import argparse
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from coldrank.data.batches import DataFolder
from coldrank.data.by_time import _joined
from coldrank.data.errors import Preempted
from coldrank.data.read import Raw, SampleReader
from coldrank.train import passes, trainer
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.preemption import preemption
from coldrank.train.trainer import train


class Together:
    """A `Reader` of one rank that joins the batches of several."""

    def __init__(self, *args: Any, ranks: int, **options: Any) -> None:
        options |= {"world_size": ranks}
        self.readers = [SampleReader(*args, **options | {"rank": r}) for r in range(ranks)]
        self.total_rows, self.batches = self.readers[0].total_rows, self.readers[0].batches
        self.rows_before = self.readers[0].rows_before

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Raw]:
        for parts in zip(*(r.epoch(epoch, start) for r in self.readers), strict=True):
            yield {name: _joined([part[name] for part in parts]) for name in parts[0]}

    def several(self, epoch: int, start: int, rows: int) -> Iterator[tuple[Raw, list[int]]]:
        """One batch at a time, whatever `rows`."""
        return ((raw, list(self.sizes(number))) for number, raw in enumerate(self.epoch(epoch, start), start))

    def sizes(self, batch: int) -> tuple[int, ...]:
        return (sum(self.readers[0].sizes(batch)),)


def asked_after(steps: int) -> Callable[[], Any]:
    """Stands in for `preemption`: asks to stop after so many steps."""
    answers = itertools.chain([False] * (steps - 1), [True])
    return lambda: nullcontext(SimpleNamespace(asked=lambda: next(answers)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with process_group() as ranks:
        for name, case in json.loads(args.cases.read_text()).items():
            if (hosts := case.get("hosts", 1)) > 1:
                local = ranks.world_size // hosts
                os.environ |= {"LOCAL_WORLD_SIZE": str(local), "LOCAL_RANK": str(ranks.rank % local)}
            together = partial(Together, ranks=case["together"]) if "together" in case else SampleReader
            passes.SampleReader = together  # type: ignore[misc, assignment]
            config = load(case["config"])
            trainer.preemption = asked_after(case["stop"]) if "stop" in case else preemption  # type: ignore[assignment]
            with suppress(Preempted):
                train(config, DataFolder.open(Path(case["data"])), args.out / name, ranks, fresh=False, diff="")


if __name__ == "__main__":
    main()
