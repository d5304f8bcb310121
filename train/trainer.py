"""A run: data, model, steps, checkpoints, evaluation."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from coldrank.data.batches import DataFolder, batches
from coldrank.data.errors import Preempted, UserError
from coldrank.data.fit import fit_encoder, fitted
from coldrank.train import checkpoint
from coldrank.train.checkpoint import Saver
from coldrank.train.config import RunConfig
from coldrank.train.course import Course
from coldrank.train.distributed import table as plan_table
from coldrank.train.distributed.ranks import Ranks, made_by_first
from coldrank.train.gates import ADVICE, gate_weights, unmoved
from coldrank.train.lock import Held, held
from coldrank.train.memory import peak_mib
from coldrank.train.over_passes import OverPasses
from coldrank.train.passes import Passes
from coldrank.train.preemption import Stop, preemption
from coldrank.train.progress import Progress
from coldrank.train.recent import Recent
from coldrank.train.resuming import check_length
from coldrank.train.run import Run, build
from coldrank.train.run_folder import MetricRow, RunFolder
from coldrank.train.stepping import Steps, Taken, one_by_one, pipelined
from coldrank.train.streaming import Stream
from coldrank.train.warm_start import warm_start


def train(config: RunConfig, data: DataFolder, out: Path, ranks: Ranks, *, fresh: bool, diff: str) -> list[MetricRow]:
    """Trains to the end and evaluates; resumes from the last checkpoint in `out` unless `fresh`.

    Raises UserError if `out` holds the run of another config or data, or something that is no run, or is in use by
    another process, and Preempted, once a checkpoint is written, on SIGTERM.
    """
    with held(out, ranks, lambda: RunFolder(out).check(None)) as lock:
        return _train_held(config, data, RunFolder(out, lock.lock), lock, ranks, fresh=fresh, diff=diff)


def _train_held(
    config: RunConfig, data: DataFolder, folder: RunFolder, lock: Held, ranks: Ranks, *, fresh: bool, diff: str
) -> list[MetricRow]:
    resumes = not fresh and bool(checkpoint.steps_for_all(folder.checkpoints))
    if resumes:
        folder.check(config)
    run = build(config, data, ranks)
    course: Course = (Stream if config.train.mode == "periods" else OverPasses)(run, folder)
    recent = Recent(config.tasks, ranks)
    warm = None
    if resumes:
        progress = _resume(run, course, folder, recent)
    else:
        progress = Progress(world_size=ranks.world_size, data=data.digest)
        _fit(run, course)
        if config.train.warm_start:
            warm = warm_start(run)
        course.begin(0, progress)
    # The old run is there until nothing of the new one can be refused any more.
    dist.barrier()
    if ranks.is_first and not resumes:
        folder.clear()
    dist.barrier()
    if ranks.is_first:
        folder.start(config, diff)
        if warm:
            folder.tell_warm_start(str(warm))
            tqdm.write(warm.line)
        folder.describe(facts(run, course, progress, finished=False))
        of_plan = [plan_table.tables, plan_table.sequences, plan_table.replicas]
        tqdm.write("\n".join(filter(None, [text(run.plan) for text in of_plan])))
    rows = _train(run, course, folder, lock, progress, recent)
    lock.check()
    if ranks.is_first:
        if rows:
            folder.log_evaluation(rows)
        if told := unmoved(rows):
            tqdm.write(f"{folder.path}: {told}; {ADVICE}")
        folder.describe(facts(run, course, progress, finished=True))
    folder.close()
    return rows


def _fit(run: Run, course: Course) -> None:
    """Fits the encoder on all ranks; the first alone reads for it, the columns that it takes of all rows."""

    def fit() -> list[Tensor]:
        fit_encoder(run.encoder, course.files)
        return fitted(run.encoder)

    first = made_by_first(run.ranks, fit)
    for mine, its in zip(fitted(run.encoder), first, strict=True):
        mine.copy_(its)


def _train(
    run: Run, course: Course, folder: RunFolder, lock: Held, progress: Progress, recent: Recent
) -> list[MetricRow]:
    """Trains to the end; the metrics of the evaluation, on the first rank."""
    config, ranks = run.config, run.ranks
    saver = Saver(folder.checkpoints, ranks, config.train.keep_checkpoints, lock)
    with preemption() as stop:
        loop = _Loop(run, folder, lock, progress, recent, saver, stop)
        course.train(loop, stop)
    saver.close()
    lock.check()
    return course.results(progress, folder.require_lock)


def facts(run: Run, course: Course, progress: Progress, *, finished: bool) -> dict[str, Any]:
    """What run.json says. seconds: of training, without evaluation. samples: read by all ranks so far, each pass
    counted. Parameters are those of the whole model, whatever part of it this rank holds. peak_mib: of memory, of the
    process that wrote this; of a GPU what torch took of its memory."""
    peak = {"peak_mib": peak_mib()}
    if run.ranks.device.type == "cuda":
        peak["peak_gpu_mib"] = torch.cuda.max_memory_allocated(run.ranks.device) / 2**20
    tables = sum(t.rows * t.dim for t in run.encoder.features.tables)
    return {
        "finished": finished,
        "data_path": str(run.data.path),
        "data_digest": progress.data,  # of what was read: the folder may have grown since
        **course.facts(progress),
        "steps": progress.step,
        "seconds": round(progress.seconds, 3),
        "world_size": run.ranks.world_size,
        "threads": torch.get_num_threads(),
        "device": str(run.ranks.device.type),
        **peak,
        "dense_parameters": run.optimizers.dense_parameters,
        "table_parameters": tables,
        "sequences": run.plan.sequences,
        "growing_tables": run.dynamic_ids.facts(),
        "versions": {name: version(name) for name in ("torch", "torchrec", "coldrank")},
    }


def _resume(run: Run, course: Course, folder: RunFolder, recent: Recent) -> Progress:
    """Loads the last checkpoint that can be used."""
    ranks = run.ranks
    progress = run.load(folder.checkpoints, recent.state)
    course.check_data(progress)
    changed = ""
    if progress.world_size != ranks.world_size:
        checkpoint.load_summed(folder.checkpoints, progress.step, recent.state, progress.world_size, ranks)
        changed = f" at {ranks.world_size} ranks in place of {progress.world_size}"
        if not run.config.data.global_batch_size:
            # The same share of the pass has been read; at the edges of buffers a few rows are read twice or not at all.
            batch = -(-progress.batch * progress.world_size // ranks.world_size)
            progress.batch = min(batch, course.passes(course.number(progress)).reader(progress.epoch).batches)
            changed += ": rates that decay do so over the steps left"
        progress.world_size = ranks.world_size
    check_length(folder.path, folder.config(), run.config, progress, course.end(progress))
    if ranks.is_first:
        tqdm.write(f"{folder.path}: goes on from step {progress.step}{changed} (--fresh starts over)")
        folder.forget_after(progress.step)
    return progress


def _stream(run: Run, passes: Passes, epoch: int, start: int) -> Iterator[Taken]:
    """Batches from batch `start` of a pass on, pass after pass."""
    while True:
        reader = passes.reader(epoch)
        pin = run.ranks.device.type == "cuda"
        with batches(reader, run.make, run.config.data.prefetch, epoch, start, pin=pin) as source:
            for n, batch in enumerate(source, start + 1):
                yield Taken(batch, epoch, n)
        epoch, start = epoch + 1, 0


def _trained(run: Run, passes: Passes, progress: Progress, total: int) -> Steps:
    """Trains up to step `total`; yields each batch after its step."""
    cold_gates = run.config.train.cold_trains == "gates"

    def begin(taken: Taken) -> None:
        run.optimizers.gates_only = cold_gates and passes.is_cold(taken.epoch)
        run.begin_step(taken, progress.step, total)

    on_gpu = run.ranks.device.type == "cuda"
    ahead = {"auto": on_gpu and not run.dynamic_ids.step_by_step, "on": True, "off": False}[run.config.train.pipeline]
    train_on = pipelined if ahead else one_by_one
    stream = itertools.islice(_stream(run, passes, progress.epoch, progress.batch), max(0, total - progress.step))
    ready = (taken._replace(new_rows=run.dynamic_ids(taken.batch)) for taken in stream)
    return train_on(run.model, ready, run.ranks.device, begin, run.end_step)


@dataclass(slots=True)
class _Loop:
    """Where steps write to."""

    run: Run
    folder: RunFolder
    lock: Held
    progress: Progress
    recent: Recent
    saver: Saver
    stop: Stop

    def train(self, passes: Passes, total: int, *, keep_last: bool) -> None:
        """Trains up to step `total`; the last has a line of metrics and, if `keep_last`, a checkpoint."""
        config, ranks, progress, recent = self.run.config, self.run.ranks, self.progress, self.recent
        recent.since = time.perf_counter()
        begun = recent.since - progress.seconds
        done = _trained(self.run, passes, progress, total)
        desc = f"{config.name} {progress.period}".strip()
        bar = tqdm(done, total=total, initial=progress.step, desc=desc, unit="step", disable=not ranks.is_first)
        for taken, outputs in bar:
            recent.add(outputs.loss.detach(), outputs.task_losses, len(taken.batch))
            progress.epoch, progress.batch = taken.epoch, taken.batches
            progress.pass_done = taken.batches == passes.reader(taken.epoch).batches
            progress.step += 1
            progress.seconds = time.perf_counter() - begun
            last, stops = progress.step == total, self.stop.asked()
            every = config.train.checkpoint_every
            due = bool(every) and progress.step % every == 0
            if last or stops or due:
                self.run.replicas.average()
            if last or progress.step % config.train.log_every == 0:
                self.lock.check()
                self.saver.finish()
                self._require_finite()
                rows = recent.rows(progress.step)
                if ranks.is_first:
                    self.folder.log(rows + gate_weights(self.run.task, progress.step))
                    bar.set_postfix_str(f"loss {rows[0]['value']:.4f}, {recent.rate:,.0f} samples/s")
            if stops or (keep_last if last else due):
                self.saver.finish()
                self._require_finite()
                self.saver.begin(self.run.state_after(taken), recent.state, progress)
            if stops:
                self.saver.finish()
                raise Preempted(f"stopped by SIGTERM after step {progress.step}; started again, goes on from there")
        self.saver.finish()

    def keep(self) -> None:
        """Writes a checkpoint of where the run stands."""
        self.saver.finish()
        self.saver.begin(self.run.state, self.recent.state, self.progress)
        self.saver.finish()

    def _require_finite(self) -> None:
        """Raises UserError, on every rank, where a loss was not finite since the last line of metrics."""
        if (step := self.recent.not_finite(self.progress.step)) is not None:
            hint = "try a lower optim.dense.lr or optim.tables.lr"
            raise UserError(f"step {step}: the loss is not finite; {self.saver.kept()}; {hint}")
