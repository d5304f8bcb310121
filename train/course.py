"""The one way through the data: stage after stage, each begun, trained on, ended and kept. Passes over the data are one
stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from coldrank.train.passes import Passes
from coldrank.train.preemption import Stop
from coldrank.train.progress import Progress, Stage
from coldrank.train.run import Run
from coldrank.train.run_folder import MetricRow


class Loop(Protocol):
    """What trains and keeps."""

    progress: Progress

    def train(self, passes: Passes, total: int, *, keep_last: bool) -> None:
        """Trains up to step `total`, the last of which has a checkpoint if `keep_last`."""

    def keep(self) -> None:
        """Writes a checkpoint of where the run stands."""


class Course:
    """A run's stages, and what it makes of each. Hooks are told of them directly: `begins` before a stage's first step,
    after what `before` does; `ends` after its last, before its checkpoint, so that what they make there is in it.

    A run that resumes where a stage's last step is kept and its end is not, is told of the end then.
    """

    stages: list[Stage]

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def files(self) -> list[Path]:
        """What the encoder may know."""
        raise NotImplementedError

    def number(self, progress: Progress) -> int:
        """The stage (0-based) in which a run stands."""
        raise NotImplementedError

    def is_begun(self, stage: Stage, progress: Progress) -> bool:
        """Whether a stage is begun: then it is the one in which the run stands."""
        raise NotImplementedError

    def passes(self, number: int) -> Passes:
        """What is read in a stage (0-based)."""
        raise NotImplementedError

    def last_step(self, number: int, progress: Progress) -> tuple[int, bool]:
        """The step up to which a stage is trained on, and whether that is its end: `train.steps` may come before."""
        raise NotImplementedError

    def enter(self, number: int, progress: Progress) -> None:
        """Notes that the run stands at the beginning of a stage."""

    def before(self, stage: Stage, progress: Progress) -> None:
        """What comes before a stage is begun: its scores."""

    def after(self, stage: Stage, progress: Progress) -> None:
        """What comes after a stage is ended and kept; again when a run resumes there."""

    def grows(self, progress: Progress, stop: Stop) -> bool:
        """Waits for a stage after the last one; whether there is one."""
        return False

    def is_over(self, progress: Progress) -> bool:
        """Whether no further stage is to be begun."""
        return False

    def check_data(self, progress: Progress) -> None:
        """Raises UserError where a run that resumes was trained on other data."""
        raise NotImplementedError

    def end(self, progress: Progress) -> int:
        """The step at which the run is to end, as far as that is known; else the one where it stands."""
        raise NotImplementedError

    def facts(self, progress: Progress) -> dict[str, Any]:
        """What run.json says of the data. fit_rows: of a pass, or of the periods begun. samples: that all ranks have
        read."""
        raise NotImplementedError

    def results(self, progress: Progress, require_lock: Callable[[], None]) -> list[MetricRow]:
        """The metrics that the run is reported by, on the first rank."""
        raise NotImplementedError

    def begin(self, number: int, progress: Progress) -> None:
        """Begins a stage. Raises UserError for what a hook refuses."""
        stage = self.stages[number]
        self.before(stage, progress)
        for hook in self.run.hooks:
            hook.begins(self.run, stage, progress)
        self.enter(number, progress)

    def train(self, loop: Loop, stop: Stop) -> None:
        """Goes through the stages, up to the last one or to `train.steps`."""
        progress = loop.progress
        number = self.number(progress)
        while number < len(self.stages) or self.grows(progress, stop):
            stage = self.stages[number]
            if not self.is_begun(stage, progress):
                if self.is_over(progress):
                    return
                self.begin(number, progress)
            step, ends = self.last_step(number, progress)
            if progress.step < step:
                loop.train(self.passes(number), step, keep_last=not ends)
            if not ends:
                return
            if progress.ends.get(stage.name) != progress.step:
                for hook in self.run.hooks:
                    hook.ends(self.run, stage, progress)
                progress.ends[stage.name] = progress.step
                progress.pass_done = True
                loop.keep()
            self.after(stage, progress)
            number += 1
