"""An event log -> samples on Spark: what `data.prepare` makes on one machine, from a log of any size.

Three jobs. The files are read side by side into slices (`read`). These are cut into chunks, each an interval of time,
and sorted (`sort`). Then each chunk is counted by itself, the counts are composed to the state before each chunk
(`states`), and the kernel makes samples of the chunk and that state (`write`). Driver and tasks hold a chunk at most,
and what the state has of its groups.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coldrank.data.append import origin
from coldrank.data.errors import UserError
from coldrank.data.finish import Finished, warn
from coldrank.data.location import is_url
from coldrank.data.log import EventLog, check_spec
from coldrank.data.manifest import Content, Population
from coldrank.data.partitions import DatedPeriods, EqualPeriods, LabelCounts, Partition, Periods
from coldrank.data.place import check_out, staging
from coldrank.data.prepare import PrepareOptions, SplitRule
from coldrank.data.spark.job import SparkJob, TaskSizes
from coldrank.data.spark.plan import seen_whole, write_tasks
from coldrank.data.spark.read import read
from coldrank.data.spark.session import quiet
from coldrank.data.spark.sort import TimeChunk, sort
from coldrank.data.spark.states import PartReport
from coldrank.data.spark.write import SampleWriting, Written, in_turn, met_of, running_totals
from coldrank.data.split import SPLITS
from coldrank.data.spool import Spool, check_any
from coldrank.data.state.ledger import times_file
from coldrank.data.state.state import Shape, State
from coldrank.data.warn import about_times
from coldrank.data.whole import Known, Whole, read_times

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(slots=True)
class TaskRows:
    """Rows of each task, by what it does."""

    by_job: dict[str, list[int]] = field(default_factory=dict)


def prepare_on_spark(
    spark: "SparkSession",
    log: EventLog,
    out: Path,
    split: SplitRule,
    options: PrepareOptions,
    sizes: TaskSizes | None = None,
    loads: TaskRows | None = None,
) -> dict[str, Any]:
    """Writes the samples of a log to `out`, in full or not at all; returns the manifest.

    Samples and manifest are those of `data.prepare.prepare`, but for periods of more rows than `sizes.file_rows`, which
    are cut into several files. out: a folder that the driver and all executors see.
    loads: gets the rows of each task.
    Raises UserError as `prepare` does.
    """
    check_spec(log.spec)
    if is_url(out):
        raise UserError(f"--out {out}: not with --engine spark; give a folder of storage that all machines share")
    check_out(out)
    if log.spec.negatives is not None:
        raise UserError("spec: negatives: not with --engine spark; the local engine samples them")
    made_by = origin(log, options.arguments)
    with quiet(), staging(out) as staged:
        job = _Preparation(spark, out, staged.absolute(), options, sizes or TaskSizes(), loads or TaskRows())
        return job.run(log, split, made_by)


@dataclass(slots=True)
class _Preparation:
    """A preparation on its way."""

    spark: "SparkSession"
    out: Path
    staged: Path
    options: PrepareOptions
    sizes: TaskSizes
    loads: TaskRows

    def run(self, log: EventLog, split: SplitRule, made_by: dict[str, Any]) -> dict[str, Any]:
        options = self.options
        spool = Spool(log, self.staged / "spool")
        shape = Shape.of(log.spec, options.history, options.item_history)
        job = SparkJob.start(log, spool.plan, shape, self.staged, self.sizes, options.keep_duplicates)
        slices, digests = read(self.spark, job, spool)
        check_any(spool)
        job.kinds = spool.kinds
        chunks = sort(self.spark, job, slices, users=options.arguments.get("split") != "time")
        for part in slices:
            part.path.unlink()
        known = self._survey(chunks)
        warn(about_times(spool.log, known.whole))
        n = options.periods
        dated = DatedPeriods(10 if log.spec.period == "day" else 7)
        periods: Periods = EqualPeriods(n, known.whole.events) if n else dated
        cores = self.spark.sparkContext.defaultParallelism
        tasks = write_tasks(chunks, periods, file_rows=self.sizes.file_rows, cores=cores)
        samples = SampleWriting(job=job, chunks=chunks, tasks=tasks, split=split(known), periods=periods)
        written, reports = samples.write(self.spark)
        self._note_loads(slices, chunks, written, reports)
        return Finished(
            out=self.out,
            staged=self.staged,
            spool=spool,
            content=self._content(known.whole, written, reports),
            state=_state(job, chunks, reports),
            history=options.history,
            arguments=options.arguments,
            made_by=made_by,
            digests=digests,
        ).put()

    def _survey(self, chunks: Sequence[TimeChunk]) -> Known:
        whole, times = Whole(), times_file(self.staged)
        times.parent.mkdir(parents=True)
        with times.open("wb") as file:
            for chunk in chunks:
                whole.add(chunk.whole)
                with chunk.times.open("rb") as part:
                    shutil.copyfileobj(part, file, 1 << 20)
                chunk.times.unlink()
        users = np.unique(np.concatenate([chunk.users for chunk in chunks]))
        return Known(whole=whole, times=read_times([times]), users=users)

    def _content(self, whole: Whole, written: Sequence[Written], reports: Sequence[PartReport]) -> Content:
        """The samples, each file with a place of its own among those that are staged."""
        partitions: list[Partition] = []
        labels: dict[str, LabelCounts] = {}
        count: dict[Path, int] = {}
        for task in written:
            for old in sorted(task.partitions, key=lambda p: (p.period, p.time_min)):
                folder = Path(old.path).parent
                number = count[folder] = count.get(folder, -1) + 1
                new = replace(old, path=str(folder / f"part-{number}.parquet"))
                (self.staged / folder).mkdir(parents=True, exist_ok=True)
                os.replace(task.folder / old.path, self.staged / new.path)
                partitions.append(new)
                labels[new.path] = task.labels[old.path]
        none = Population(ids=0, events=0, in_table=0, events_in_table=0)
        return Content(
            whole=whole,
            schema=written[0].schema,
            partitions=sorted(partitions, key=lambda p: (SPLITS.index(p.split), p.period)),
            labels=labels,
            users=sum((r.met for r in reports if r.kind == "user"), none),
            items=sum((r.met for r in reports if r.kind == "item"), none),
        )

    def _note_loads(
        self,
        slices: Sequence[Any],
        chunks: Sequence[TimeChunk],
        written: Sequence[Written],
        reports: Sequence[PartReport],
    ) -> None:
        """Rows of each task."""
        self.loads.by_job = {
            "read": [s.rows for s in slices],
            "sort": [c.rows_read for c in chunks],
            "compose": [r.rows for r in reports],
            "write": [w.rows for w in written],
        }


def _state(job: SparkJob, chunks: Sequence[TimeChunk], reports: Sequence[PartReport]) -> State:
    """The state after the last event. In memory is what waits beside it."""
    seen = seen_whole(chunks, job.shape)[-1]
    runs: dict[str, list[Path]] = {}
    for report in reports:
        if report.path is not None:
            runs.setdefault(report.kind, []).append(report.path)
    total = list(running_totals(chunks))[seen]
    pending = in_turn([met_of(job, chunk) for chunk in chunks[seen:]])
    return State(job.shape, None, runs, total, pending)
