"""How the arms of a benchmark are trained, judged and tested for leaks: on passes over the data, or on its stream of
periods."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.split import NEXT
from coldrank.experiments.benchmark import leaks
from coldrank.train.config import RunConfig
from coldrank.train.streaming import stages

Json = dict[str, Any]
# Periods before the reported ones that trials are judged by, at most.
JUDGED = 5
# Of a short stream: one to begin with, one that is scored and trained on, one whose labels are turned.
SHORT = 3


class BenchmarkProtocol(ABC):
    """One way to train, judge and test. A further one, as for new items that are warmed up, is another class."""

    can_be_cut = True
    """Whether a budget may cut a pass over the data."""

    @abstractmethod
    def problem(self, base: RunConfig, data: DataFolder, trials: int) -> str:
        """Why this base cannot be judged so, in words that begin with the field; '' if it can."""

    @abstractmethod
    def trial_fields(self, base: RunConfig, data: DataFolder) -> tuple[str, ...]:
        """What is set for trials, beside the splits that `tune` sets."""

    @abstractmethod
    def steps(self, base: RunConfig, data: DataFolder, *, trial: bool) -> int:
        """Of the base's whole training, of a trial or of what is reported."""

    @abstractmethod
    def split(self, base: RunConfig) -> str:
        """Whose predictions are compared."""

    @abstractmethod
    def leaked(self, config: RunConfig, run: Path, data: DataFolder, place: Path) -> str:
        """In what the predictions of a method moved with the labels under test, in words; '' if in nothing.

        config: of its reported runs. run: one of them. place: a folder for the copies, shared by all methods, and for
        this method's runs."""


class PassesProtocol(BenchmarkProtocol):
    """Passes over `train` and `valid`, reported on the test split; trials train on `train`, judged on `valid`."""

    def problem(self, base: RunConfig, data: DataFolder, trials: int) -> str:
        if base.train.mode != "passes":
            return f"train.mode={base.train.mode!r}: this suite trains by passes; --set train.mode=passes"
        have = {p["split"] for p in data.partitions}
        judged = {"train", "valid"} if trials > 1 else set()
        if missing := sorted((judged | {*base.data.fit, base.data.evaluate}) - have):
            return f"{data.path}: no split {missing[0]!r}; it has {', '.join(sorted(have))}"
        if trials > 1 and base.data.evaluate in judged:
            return f"data.evaluate={base.data.evaluate!r}: trials are judged on 'valid' after 'train'; report another"
        return ""

    def trial_fields(self, base: RunConfig, data: DataFolder) -> tuple[str, ...]:
        return ()

    def steps(self, base: RunConfig, data: DataFolder, *, trial: bool) -> int:
        fit = ("train",) if trial else base.data.fit
        rows = sum(p["rows"] for p in data.read_since(base.data.since).partitions if p["split"] in fit)
        steps = _batches(rows, base) * base.train.epochs
        return min(steps, base.train.steps) if base.train.steps else steps

    def split(self, base: RunConfig) -> str:
        return base.data.evaluate

    def leaked(self, config: RunConfig, run: Path, data: DataFolder, place: Path) -> str:
        split, partitions = config.data.evaluate, data.read_since(config.data.since).partitions
        tested = [p for p in partitions if p["split"] == split]
        turned = [p["path"] for p in tested]
        other = leaks.copy(data, tested, place / "labels-turned", flip=turned)
        if moved := leaks.moved_in_evaluation(run, data.read_since(config.data.since), other, split):
            return f"in evaluation {moved:,} predictions moved"
        both = [p for p in partitions if p["split"] in (*config.data.fit, split)]
        copies = (
            leaks.copy(data, both, place / "short", rows=leaks.ROWS),
            leaks.copy(data, both, place / "short-turned", rows=leaks.ROWS, flip=turned),
        )
        moved = leaks.moved_in_training(config, copies, place / "runs" / config.name, f"predictions-{split}.parquet")
        return f"trained anew, {moved:,} predictions moved" if moved else ""


class PeriodsProtocol(BenchmarkProtocol):
    """A stream, reported from `train.first_period` on; trials end before it, judged by the periods just before."""

    can_be_cut = False

    def problem(self, base: RunConfig, data: DataFolder, trials: int) -> str:
        if base.train.mode != "periods":
            return f"train.mode={base.train.mode!r}: this suite goes through a stream; --set train.mode=periods"
        if not base.model.retrieves:
            return f"model={base.model.kind()!r}: this suite is judged by retrieval; take an arm of a two-tower model"
        if base.train.steps:
            return f"train.steps={base.train.steps}: ends the stream; must be 0"
        stages(data.read_since(base.data.since), base)  # says what is wrong with train.first_period
        names = sorted({p["period"] for p in data.read_since(base.data.since).partitions})
        first = names.index(base.train.first_period) if base.train.first_period else 1
        if trials > 1 and first < 2:
            return (
                f"train.first_period={base.train.first_period!r}: trials are judged by periods before it, after one to "
                f"begin with; --set train.first_period={names[min(2, len(names) - 1)]} or later, or --trials 1"
            )
        return ""

    def trial_fields(self, base: RunConfig, data: DataFolder) -> tuple[str, ...]:
        return (
            f"train.first_period={self._judged(base, data)[0]}",
            f"train.steps={self.steps(base, data, trial=True)}",
        )

    def _judged(self, base: RunConfig, data: DataFolder) -> list[str]:
        """The periods that trials are judged by: at most half of those before the reported ones."""
        names = sorted({p["period"] for p in data.read_since(base.data.since).partitions})
        first = names.index(base.train.first_period)
        return names[first - min(JUDGED, first // 2) : first]

    def steps(self, base: RunConfig, data: DataFolder, *, trial: bool) -> int:
        data, end = data.read_since(base.data.since), ""
        if trial:
            end = base.train.first_period
            base = replace(base, train=replace(base.train, first_period=self._judged(base, data)[0]))
        rows = {p["path"]: p["rows"] for p in data.partitions}
        taken = [s for s in stages(data, base) if not end or s.name < end]
        return sum(_batches(sum(rows[p["path"]] for p in stage.partitions), base) for stage in taken)

    def split(self, base: RunConfig) -> str:
        return NEXT

    def leaked(self, config: RunConfig, run: Path, data: DataFolder, place: Path) -> str:
        partitions = data.read_since(config.data.since).partitions
        names = sorted({p["period"] for p in partitions})[-SHORT:]
        kept = [p for p in partitions if p["period"] in names]
        turned = [p["path"] for p in kept if p["period"] == names[-1]]
        copies = (
            leaks.copy(data, kept, place / "short", rows=leaks.ROWS),
            leaks.copy(data, kept, place / "short-turned", rows=leaks.ROWS, flip=turned),
        )
        config = replace(config, train=replace(config.train, first_period=names[-2] if len(names) == SHORT else ""))
        file = f"predictions-{NEXT}/{names[-1]}.parquet"
        moved = leaks.moved_in_training(config, copies, place / "runs" / config.name, file)
        return f"in the last period of a short stream {moved:,} predictions moved" if moved else ""


def _batches(rows: int, base: RunConfig) -> int:
    return -(-rows // (base.data.global_batch_size or base.data.batch_size))


PROTOCOLS: dict[str, BenchmarkProtocol] = {"passes": PassesProtocol(), "periods": PeriodsProtocol()}


def protocol_of(name: str) -> BenchmarkProtocol:
    """The protocol of a suite."""
    if name not in PROTOCOLS:
        raise UserError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
