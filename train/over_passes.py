"""A run by passes over the data: one stage, which is not scored; the run is judged by a split at its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train.config import RunConfig
from coldrank.train.course import Course
from coldrank.train.evaluate import evaluate, evaluation_reader
from coldrank.train.passes import Passes
from coldrank.train.progress import Progress, Stage
from coldrank.train.run import Run
from coldrank.train.run_folder import MetricRow, RunFolder


def passes_as_stage(data: DataFolder, config: RunConfig) -> Stage:
    """What passes read, as hooks are told of it: one stage of all samples of `data.fit`."""
    parts = [p for p in data.partitions if p["split"] in config.data.fit]
    parts.sort(key=lambda p: (p["time_min"], p["path"]))
    names = tuple(dict.fromkeys(p["period"] for p in parts))
    return Stage(names, tuple(parts), scored=False, shuffled=config.data.order == "random")


class OverPasses(Course):
    """Opens what is read. Raises UserError for a split that is not there or empty: its mistakes are better known now
    than at the end."""

    def __init__(self, run: Run, folder: RunFolder) -> None:
        super().__init__(run)
        self.folder = folder
        self.stages = [passes_as_stage(run.data, run.config)]
        self.all = Passes.of(run.config, run.data, run.make, run.ranks)
        evaluation_reader(run.make, run.data, run.config.data.evaluate, run.config, run.ranks)
        self._begun = False

    @property
    def files(self) -> list[Path]:
        return self.run.data.files(self.run.config.data.fit)

    def number(self, progress: Progress) -> int:
        return 0

    def is_begun(self, stage: Stage, progress: Progress) -> bool:
        return self._begun or progress.step > 0

    def enter(self, number: int, progress: Progress) -> None:
        self._begun = True

    def passes(self, number: int) -> Passes:
        return self.all

    def last_step(self, number: int, progress: Progress) -> tuple[int, bool]:
        return self.end(progress), True

    def check_data(self, progress: Progress) -> None:
        if progress.data != self.run.data.digest:
            raise UserError(
                f"{self.folder.path}: was trained on other data than {self.run.data.path}; --fresh starts over"
            )

    def end(self, progress: Progress) -> int:
        if self.run.config.train.steps:
            return self.run.config.train.steps
        # At another number of ranks than before, as many steps remain as the rest of the passes has now.
        return progress.step + self.all.steps - self.all.steps_before(progress)

    def facts(self, progress: Progress) -> dict[str, Any]:
        return self.all.facts(progress)

    def results(self, progress: Progress, require_lock: Callable[[], None]) -> list[MetricRow]:
        split = self.run.config.data.evaluate
        predictions = self.folder.path / f"predictions-{split}.parquet"
        return evaluate(self.run, split, progress.step, predictions, require_lock)
