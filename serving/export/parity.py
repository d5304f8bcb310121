"""The served model held against the trained one, on samples of the run's evaluation split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm

from coldrank.data.batches import KEYS, DataFolder, as_tensors
from coldrank.data.errors import UserError
from coldrank.data.read import Raw, SampleReader, take_rows
from coldrank.data.sample import draw
from coldrank.metrics.by_cohort import evaluate_predictions
from coldrank.serving.export.trained import Trained

Request = dict[str, Tensor]
Serve = Callable[[Request], dict[str, Tensor]]
# Largest difference that rounding in float32 explains; of a value above 1, as a share of it.
LIMIT = 1e-5
# Rows that are compared; and for the metrics of smaller tables.
ROWS, METRIC_ROWS = 20_000, 1_000_000
# GAUC, or XAUC, that smaller tables may lose.
LOSS = 0.001
_BATCH = 2048


@dataclass(frozen=True, slots=True)
class Both:
    """Rows of a split scored by the trained and by the served model. difference: task -> the largest, as
    `difference_of` measures it."""

    difference: dict[str, float]
    trained: pl.DataFrame
    served: pl.DataFrame

    @property
    def worst(self) -> float:
        """The largest difference of all."""
        return max(self.difference.values())


def sample(trained: Trained, data: DataFolder, split: str, rows: int) -> Raw:
    """Raw columns of rows drawn from a split; all if it has fewer. Raises UserError for a split that is not there or
    empty."""
    reader = SampleReader(data.files((split,)), trained.make.columns(), trained.config.data.eval_batch_size)
    if reader.total_rows == 0:
        raise UserError(f"{data.path}: split {split!r} has no rows; --split names another")
    return draw(reader, rows, seed=0).raw


def in_batches(raw: Raw, size: int = _BATCH) -> Iterator[Raw]:
    """The rows, `size` at a time."""
    rows = len(raw["user_id"])
    for start in range(0, rows, size):
        yield take_rows(raw, np.arange(start, min(start + size, rows)))


def request_of(raw: Raw, names: list[str]) -> Request:
    """Samples as one request: as many users as candidates. names: columns that the served model reads."""
    return as_tensors({name: raw[name] for name in names})


def difference_of(given: Tensor, wanted: Tensor) -> Tensor:
    """|given - wanted|, as a share of what is wanted where that is above 1, [..] each: float32 has as many digits of
    seconds watched as of a probability."""
    return (given - wanted).abs() / wanted.abs().clamp(min=1.0)


def score_both(trained: Trained, serve: Serve, raw: Raw) -> Both:
    """Scores rows by the trained model and by a served one."""
    names = trained.reads
    theirs, ours = [], []
    batches = list(in_batches(raw))
    for part in tqdm(batches, desc="parity", unit="batch"):
        theirs.append(trained.scores(part))
        given = serve(request_of(part, names))
        ours.append(torch.stack([given[t] for t in trained.tasks], 1))
    a, b = torch.cat(theirs), torch.cat(ours)
    difference = dict(zip(trained.tasks, difference_of(b, a).amax(0).tolist(), strict=True))
    return Both(difference, _frame(trained, raw, a), _frame(trained, raw, b))


def _frame(trained: Trained, raw: Raw, scores: Tensor) -> pl.DataFrame:
    answers = torch.sigmoid(scores / trained.temperature) if trained.temperature else scores
    columns = {k: raw[k] for k in KEYS} | {f"label_{t}": raw[f"label_{t}"] for t in trained.tasks}
    columns |= {h.column(t): answers[:, i].numpy() for i, (t, h) in enumerate(trained.config.tasks.items())}
    frame = pl.DataFrame(columns)
    return frame.with_columns(pl.col("user_views", "item_views").cast(pl.Int64))


def check_finite(both: Both, what: str) -> None:
    """Raises UserError if either model answers with NaN or an infinite number, whatever the precision of the tables."""
    for whose, frame in (("trained", both.trained), ("exported", both.served)):
        for name in (n for n in frame.columns if n.startswith(("prob_", "pred_"))):
            count = int((~frame[name].is_finite().fill_null(False)).sum())
            if count:
                task = name.partition("_")[2]
                raise UserError(f"{what}: the {whose} model gives {count} of {frame.height} rows no number for {task}")


def check_difference(both: Both, what: str) -> None:
    """Raises UserError if an answer differs by more than `LIMIT` (or is NaN)."""
    for task, value in both.difference.items():
        if not value <= LIMIT:
            raise UserError(
                f"{what}: {task} differs by {value:.3g} from the trained model's answer; at most {LIMIT:g} is right"
            )


def changes(both: Both, trained: Trained) -> dict[str, dict[str, Any]]:
    """task -> those of AUC, GAUC, XAUC and MAE that it is judged by: of the trained model, of the served one, and how
    the latter differs."""
    of = [_metrics(frame, trained) for frame in (both.trained, both.served)]
    figures: dict[str, dict[str, Any]] = {}
    for task, head in trained.config.tasks.items():
        figures[task] = {}
        for metric in (m for m in ("auc", "gauc", "xauc", "mae") if m in head.metrics):
            before, after = (m[task, metric] for m in of)
            change = None if before is None or after is None else after - before
            figures[task] |= {f"{metric}_trained": before, metric: after, f"{metric}_change": change}
    return figures


def check_loss(figures: dict[str, dict[str, Any]], what: str) -> None:
    """Raises UserError if a task loses more than `LOSS` of GAUC, or of XAUC where it has no GAUC."""
    for task, metrics in figures.items():
        metric = next((m for m in ("gauc", "xauc") if f"{m}_change" in metrics), None)
        if metric is None:
            raise UserError(
                f"{what}: {task} is judged by neither GAUC nor XAUC, so its loss is unknown; --allow-loss exports it "
                "all the same"
            )
        change = metrics[f"{metric}_change"]
        if change is not None and change < -LOSS:
            raise UserError(
                f"{what}: loses {-100 * change:.3f} points of {metric.upper()} of {task}, more than {100 * LOSS:g}; "
                "--allow-loss exports it all the same"
            )


def _metrics(frame: pl.DataFrame, trained: Trained) -> dict[tuple[str, str], Any]:
    rows = evaluate_predictions(frame, trained.config.tasks, trained.config.cohorts)
    return {(str(r["task"]), str(r["metric"])): r["value"] for r in rows if r["cohort"] == "all"}
