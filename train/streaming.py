"""Training on a stream of periods: every period is a test first and training afterwards (prequential evaluation).

Period t is scored by the model of all periods before it, then trained on in one pass in order of time. The periods are
those of the prepared data, of all splits. What is fitted to data (vocabularies, edges, moments) is fitted to the warm
part alone.
"""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from coldrank.data import parquet
from coldrank.data.batches import DataFolder
from coldrank.data.by_time import After, Every, TimeReader
from coldrank.data.errors import Preempted, UserError
from coldrank.data.location import is_file, size
from coldrank.data.partitions import CHECKSUMS
from coldrank.data.read import Only, Reader, SampleReader
from coldrank.data.read_manifest import read_manifest
from coldrank.data.split import BACK, NEXT
from coldrank.metrics.retrieval import mean_over_periods
from coldrank.train.config import RunConfig
from coldrank.train.course import Course
from coldrank.train.distributed.ranks import of_first_rank
from coldrank.train.evaluate import metric_rows, retrieval_rows, score, write_predictions
from coldrank.train.gates import RANGE, GateWatch
from coldrank.train.passes import Passes
from coldrank.train.preemption import Stop
from coldrank.train.progress import Progress, Stage
from coldrank.train.run import Run
from coldrank.train.run_folder import MetricRow, RunFolder

Json = dict[str, Any]
POLL_S = 5.0
# Of a look back: enough to see what is forgotten.
_BACK_METRICS = ("auc", "ne", "xauc", "mae")


def stages(data: DataFolder, config: RunConfig) -> list[Stage]:
    """The stages of a data folder as it is now. Raises UserError for a `train.first_period` that cannot be the
    first."""
    by_period = _by_period(data)
    names, first = list(by_period), config.train.first_period
    if first and first not in names[1:]:
        raise UserError(
            f"train.first_period={first}: must be one of the periods of {data.path} after the first, "
            f"{names[0]} to {names[-1]}"
        )
    warm_periods = names.index(first) if first else 1
    shuffled = config.data.order == "random"
    warm = [names[:warm_periods]] if shuffled else [[name] for name in names[:warm_periods]]
    return [
        *(Stage(tuple(w), tuple(p for name in w for p in by_period[name]), False, shuffled) for w in warm),
        *(Stage((name,), by_period[name], True, False) for name in names[warm_periods:]),
    ]


class Stream(Course):
    """A run's way through the periods."""

    def __init__(self, run: Run, folder: RunFolder) -> None:
        super().__init__(run)
        self.folder = folder
        self.stages = stages(run.data, run.config)
        self.reader(0)  # what is wrong with it is better known now than after the encoder is fitted

    @cached_property
    def files(self) -> list[Path]:
        """Files of the periods that are not scored: what the encoder may know."""
        return self.run.data.paths(p for s in self.stages if not s.scored for p in s.partitions)

    def facts(self, progress: Progress) -> Json:
        """fit_rows: of the periods begun. samples: that all ranks have read so far. periods: name -> step of its last
        batch."""
        begun = sum(p["rows"] for p in progress.partitions)
        left = 0
        if progress.period and not progress.pass_done:
            reader = self.reader(progress.epoch)
            left = reader.total_rows - reader.rows_before(progress.batch)
        return {"fit_rows": begun, "samples": begun - left, "periods": dict(progress.ends)}

    def check_data(self, progress: Progress) -> None:
        """Raises UserError if what was trained on is no longer what the data folder holds, naming the first
        difference."""
        data = self.run.data
        before = {p["path"]: p for p in progress.partitions}
        now = {
            p["path"]: p for name, of in _by_period(data).items() if name <= progress.period for p in _seen(data, of)
        }
        for period in {p["period"] for p in now.values()}:
            was, after = ({n: p for n, p in of.items() if p["period"] == period} for of in (before, now))
            if was.keys() != after.keys() and _only_moved(list(was.values()), list(after.values())):
                before, now = ({n: p for n, p in of.items() if p["period"] != period} for of in (before, now))
        for path in sorted(before.keys() | now.keys()):
            had, has = before.get(path), now.get(path)
            if had == has:
                continue
            if had is None or has is None:
                text = "is no longer there" if has is None else "is new, in a period that is done with"
            else:
                name = next(n for n in had if had[n] != has.get(n))
                text = f"has {name} {has.get(name)}, and had {had[name]} when it was trained on"
            raise UserError(f"{self.folder.path}: {data.path / path} {text}; --fresh starts over")
        progress.data = data.digest

    def number(self, progress: Progress) -> int:
        return progress.epoch

    def is_begun(self, stage: Stage, progress: Progress) -> bool:
        return progress.period == stage.name

    def enter(self, number: int, progress: Progress) -> None:
        stage = self.stages[number]
        progress.epoch, progress.batch, progress.pass_done, progress.period = number, 0, False, stage.name
        progress.partitions += _seen(self.run.data, stage.partitions)

    def is_over(self, progress: Progress) -> bool:
        limit = self.run.config.train.steps
        return limit > 0 and progress.step >= limit

    def passes(self, number: int) -> Passes:
        return Passes(self.reader(number), None, 1, 0)

    def last_step(self, number: int, progress: Progress) -> tuple[int, bool]:
        if progress.pass_done:
            return progress.step, True
        end = progress.step + max(0, self.reader(number).batches - progress.batch)
        limit = self.run.config.train.steps
        return (end, True) if not limit or end <= limit else (limit, False)

    def end(self, progress: Progress) -> int:
        return self.run.config.train.steps or progress.step

    def results(self, progress: Progress, require_lock: Callable[[], None]) -> list[MetricRow]:
        """The metrics of all scored periods together, on the first rank; their predictions in one file."""
        scored = [s.name for s in self.stages[: progress.epoch + 1] if s.scored]
        files = [path for name in scored if (path := self._predictions(name)).exists()]
        if not files or not self.run.ranks.is_first:
            return []
        frame = pl.concat([parquet.read(path) for path in files])
        require_lock()
        write_predictions(frame, self.folder.path / f"predictions-{NEXT}.parquet")
        rows = metric_rows(frame, self.run.config, progress.step, NEXT)
        by_period = {r["metric"]: r for r in self.folder.rows(NEXT) if r["metric"].startswith(RANGE)}
        rows += [r | {"step": progress.step, "period": None} for r in by_period.values()]  # the last period's
        if not self.run.config.model.retrieves:
            return rows
        about: dict[str, str | float | int | None] = {"step": progress.step, "period": None, "split": NEXT}
        return rows + [about | row for row in mean_over_periods(self.folder.rows(NEXT))]

    def _predictions(self, period: str) -> Path:
        return self.folder.path / f"predictions-{NEXT}" / f"{period}.parquet"

    def reader(self, epoch: int) -> Reader:
        """What is trained on in a stage (0-based)."""
        run, data, stage = self.run, self.run.config.data, self.stages[epoch]
        files = run.data.paths(stage.partitions)
        if not stage.shuffled:
            return self._by_time(files, data.batch_size, None, data.global_batch_size, training=True)
        return SampleReader(
            files,
            run.make.columns(training=True),
            data.batch_size,
            global_batch_size=data.global_batch_size,
            shuffle_rows=data.shuffle_rows,
            in_time=False,
            seed=run.config.seed,
            rank=run.ranks.rank,
            world_size=run.ranks.world_size,
        )

    def _by_time(
        self,
        files: list[Path],
        batch_size: int,
        only: Only | None,
        global_batch_size: int = 0,
        *,
        training: bool = False,
    ) -> TimeReader:
        columns, ranks = self.run.make.columns(training=training), self.run.ranks
        return TimeReader(
            files,
            columns,
            batch_size,
            global_batch_size=global_batch_size,
            rank=ranks.rank,
            world_size=ranks.world_size,
            only=only,
        )

    def before(self, stage: Stage, progress: Progress) -> None:
        """Scores a period that comes after all that was trained on: rows that are not later than all of it are left
        out."""
        if not stage.scored:
            return
        last = max(p["time_max"] for p in progress.partitions)
        overlaps = last >= min(p["time_min"] for p in stage.partitions)
        watch = GateWatch(self.run)
        frame = self._scored(stage.partitions, f"{NEXT} {stage.name}", After(last) if overlaps else None, watch)
        of_gates = watch.rows(step=progress.step, period=stage.name, split=NEXT)
        if frame is not None:
            self.folder.require_lock()
            write_predictions(frame, self._predictions(stage.name))
            rows = metric_rows(frame, self.run.config, progress.step, NEXT, stage.name) + of_gates
            self.folder.log(
                rows + retrieval_rows(frame, self.run.config, self.run.data, progress.step, NEXT, stage.name)
            )

    def after(self, stage: Stage, progress: Progress) -> None:
        """Scores samples of earlier periods, the same ones each time, to see what is forgotten."""
        by_period = _by_period(self.run.data)
        names, train = list(by_period), self.run.config.train
        for past in (names.index(stage.name) - back for back in train.look_back):
            if past < 0:
                continue
            rows = sum(p["rows"] for p in by_period[names[past]])
            only = Every(-(-rows // train.look_back_rows))
            frame = self._scored(by_period[names[past]], f"{BACK} {names[past]}", only)
            if frame is not None:
                measured = metric_rows(frame, self.run.config, progress.step, BACK, names[past])
                self.folder.log([row for row in measured if row["metric"] in _BACK_METRICS])

    def _scored(
        self, partitions: tuple[Json, ...], what: str, only: Only | None, watch: GateWatch | None = None
    ) -> pl.DataFrame | None:
        """Predictions on the first rank, None on the others and where there are no rows."""
        run, ranks = self.run, self.run.ranks
        files = run.data.paths(partitions)
        reader = self._by_time(files, run.config.data.eval_batch_size, only)
        if not reader.total_rows:
            if ranks.is_first:
                tqdm.write(f"{what}: no rows to be scored")
            return None
        return score(run, reader, what, watch)

    def grows(self, progress: Progress, stop: Stop) -> bool:
        """Waits up to `train.follow_s` for another period; whether there is one. The first rank looks, for all."""
        run, known = self.run, len(self.stages)
        until = time.monotonic() + run.config.train.follow_s
        while run.config.train.follow_s:
            manifest, left = of_first_rank((_manifest(run.data.path), until - time.monotonic()))
            if manifest is not None and manifest != run.data.manifest:
                run.data = DataFolder(run.data.path, manifest).read_since(run.data.since)
                self.check_data(progress)
                self.stages = stages(run.data, run.config)
            if len(self.stages) > known:
                return True
            if left <= 0:
                if manifest is None:
                    read_manifest(run.data.path)  # says what is wrong with it
                return False
            if stop.asked():
                raise Preempted(f"stopped by SIGTERM after period {progress.period}; started again, goes on from there")
            time.sleep(min(POLL_S, left))
        return False


def _by_period(data: DataFolder) -> dict[str, tuple[Json, ...]]:
    """Period -> its partitions, of all splits, both in order of time."""
    by_period: dict[str, list[Json]] = {}
    for p in sorted(data.partitions, key=lambda p: (p["period"], p["time_min"], p["path"])):
        by_period.setdefault(p["period"], []).append(p)
    return {period: tuple(partitions) for period, partitions in by_period.items()}


def _seen(data: DataFolder, partitions: tuple[Json, ...]) -> list[Json]:
    """What tells the partitions from others: a changed value changes the size of a compressed file."""
    names = ("path", "period", "rows", "time_min", "time_max", "checksum")
    files = [data.path / p["path"] for p in partitions]
    sizes = [size(file) if is_file(file) else None for file in files]
    return [{n: p[n] for n in names if n in p} | {"bytes": size} for p, size in zip(partitions, sizes, strict=True)]


def _only_moved(before: list[Json], now: list[Json]) -> bool:
    """Whether the samples of a period are the same, in files of other splits: `prepare --append` moves them so."""
    if not (before and now and all("checksum" in p for p in before + now)):
        return False
    one, other = (
        (
            sum(p["rows"] for p in of),
            min(p["time_min"] for p in of),
            max(p["time_max"] for p in of),
            sum(p["checksum"] for p in of) % CHECKSUMS,
        )
        for of in (before, now)
    )
    return one == other


def _manifest(path: Path) -> Json | None:
    """The manifest as it is now; None in the moment in which another takes its place."""
    try:
        return read_manifest(path)
    except UserError:
        return None
