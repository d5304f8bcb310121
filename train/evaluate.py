"""Scores a split and computes its metrics."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from tabulate import tabulate
from tqdm import tqdm

from coldrank.data.batches import BatchMaker, DataFolder, batches
from coldrank.data.errors import UserError
from coldrank.data.log import SAMPLED
from coldrank.data.negatives.alone import events_alone
from coldrank.data.output import partial_of, put_file
from coldrank.data.read import Reader, SampleReader
from coldrank.metrics.by_cohort import evaluate_predictions
from coldrank.metrics.metric import metric_values
from coldrank.metrics.retrieval import VECTORS, judge, met_in, vector_columns
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.gates import GateWatch
from coldrank.train.run import Run
from coldrank.train.run_folder import MetricRow


def evaluation_reader(make: BatchMaker, data: DataFolder, split: str, config: RunConfig, ranks: Ranks) -> SampleReader:
    """A split in order of time. Raises UserError for a split or a column that is not there, and for a split without
    rows."""
    reader = SampleReader(
        data.files((split,)),
        make.columns(),
        config.data.eval_batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    if not reader.total_rows:
        raise UserError(f"{data.path}: split {split!r} has no rows")
    return reader


def predict(run: Run, split: str, watch: GateWatch | None = None) -> pl.DataFrame | None:
    """`score` of every sample of a split."""
    return score(run, evaluation_reader(run.make, run.data, split, run.config, run.ranks), split, watch)


@torch.no_grad()
def score(run: Run, reader: Reader, what: str, watch: GateWatch | None = None) -> pl.DataFrame | None:
    """Scores the samples of a reader, sorted by time, user and item; on the first rank, None on the others.

    what: a name for the progress bar. watch: of the gates. There must be a row. Columns: user_id, item_id, time (ms),
    user_views, item_views, label_<task> (null: unknown), prob_<task> (of a task that is not binary pred_<task>),
    true_<task>, `sampled` where the data has negatives, and those of `retrieval.VECTORS` of a two-tower model.
    """
    model, config, ranks = run.model, run.config, run.ranks
    task = run.task
    model.eval()
    parts: list[dict[str, np.ndarray]] = []
    with watch or nullcontext(), batches(reader, run.make, config.data.prefetch) as source:
        bar = tqdm(source, total=reader.batches, desc=f"score {what}", unit="batch", disable=not ranks.is_first)
        for batch in bar:
            run.dynamic_ids.look_up(batch)
            outputs = model(batch.to(ranks.device))
            predictions = task.heads(outputs.logits).cpu().numpy()
            columns = {name: t.numpy() for name, t in batch.keys.items()}
            for i, (name, head) in enumerate(config.tasks.items()):
                columns[f"label_{name}"] = batch.labels[:, i].numpy()
                columns[head.column(name)] = predictions[:, i]
            if outputs.vectors is not None:
                columns |= {name: x.cpu().numpy() for name, x in vector_columns(outputs.vectors).items()}
            if watch is not None:
                watch.add(batch)
            parts.append(columns)
    model.train()
    merged = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    gathered: list[Any] | None = [None] * ranks.world_size if ranks.is_first else None
    dist.gather_object(merged, gathered)
    if gathered is None:
        return None
    frame = pl.concat([pl.DataFrame(columns) for columns in gathered])
    types = {f"label_{name}": pl.Int8 if head.is_binary else pl.Float32 for name, head in config.tasks.items()}
    labels = [pl.col(name).fill_nan(None).cast(kind) for name, kind in types.items()]
    whole = {"user_views": pl.Int32, "item_views": pl.Int32, SAMPLED: pl.Int8}
    views = [pl.col(name).cast(kind) for name, kind in whole.items() if name in frame.columns]
    return frame.with_columns(*labels, *views).sort("time", "user_id", "item_id", maintain_order=True)


def metric_rows(
    frame: pl.DataFrame, config: RunConfig, step: int, split: str, period: str | None = None
) -> list[MetricRow]:
    """The metrics of a scored split or period, as the rows of metrics.jsonl."""
    rows = evaluate_predictions(frame, config.tasks, config.cohorts)
    rows += metric_values(frame, list(config.tasks), config.cohorts, config.metrics)
    return [{"step": step, "period": period, "split": split, **row} for row in rows]


def retrieval_rows(
    frame: pl.DataFrame, config: RunConfig, data: DataFolder, step: int, split: str, period: str | None = None
) -> list[MetricRow]:
    """How a two-tower model finds users for items, among the events alone; none of another model."""
    if not config.model.retrieves:
        return []
    met = met_in(tuple(data.paths(data.manifest["partitions"])))
    rows = judge(events_alone(frame), next(iter(config.tasks)), config.retrieval, met, config.seed)
    return [{"step": step, "period": period, "split": split, **row} for row in rows]


def write_predictions(frame: pl.DataFrame, path: Path) -> None:
    """Writes the scored samples as Parquet, without vectors, beside and then renamed."""
    partial = partial_of(path)
    partial.parent.mkdir(parents=True, exist_ok=True)
    table = frame.drop(VECTORS, strict=False).to_arrow()
    pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    put_file(partial, path)


def evaluate(
    run: Run, split: str, step: int, predictions: Path | None, before_writing: Callable[[], None] = lambda: None
) -> list[MetricRow]:
    """Scores a split; writes the predictions if a path is given. No rows on ranks other than the first."""
    watch = GateWatch(run)
    frame = predict(run, split, watch)
    of_gates = watch.rows(step=step, period=None, split=split)
    if frame is None:
        return []
    before_writing()
    if predictions is not None:
        write_predictions(frame, predictions)
    rows = metric_rows(frame, run.config, step, split) + retrieval_rows(frame, run.config, run.data, step, split)
    return rows + of_gates


def summary_table(rows: list[MetricRow]) -> str:
    """The first metric of each task (down) in each cohort (across); shares in percent."""
    rows = [r for r in rows if r["task"] != "all"]
    metric = {r["task"]: r["metric"] for r in reversed(rows)}
    cohorts = list(dict.fromkeys(r["cohort"] for r in rows))
    value = {(r["task"], r["cohort"]): r["value"] for r in rows if r["metric"] == metric[r["task"]]}
    named = {task: f"{name}{' %' * _is_share(name)}" for task, name in metric.items()}
    one = len(set(named.values())) == 1
    body = []
    for task in dict.fromkeys(r["task"] for r in rows):
        values = [value.get((task, c)) for c in cohorts]
        shown = ["-" if v is None else f"{100 * v:.2f}" if _is_share(metric[task]) else f"{v:.4g}" for v in values]
        body.append([task if one else f"{task}: {named[task]}", *shown])
    first = next(iter(named.values())) if one else ""
    return tabulate(body, headers=[first, *cohorts], stralign="right", disable_numparse=True)


def _is_share(metric: str) -> bool:
    return "auc" in metric or metric.startswith(("ndcg@", "recall@"))
