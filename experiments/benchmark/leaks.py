"""Whether predictions move when the labels that they are judged by do.

Labels under test are turned into others in a copy of the data. What may know of them is (a) evaluation: the trained run
scores both, with the same weights; (b) training: the method is trained anew, from the same seed, on a short copy of the
data with and without the change. Either way no prediction may move, bit for bit.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from coldrank.data import parquet
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.evaluate import predict
from coldrank.train.load import load
from coldrank.train.run import build
from coldrank.train.trainer import train

Json = dict[str, Any]
# Of a partition, in the short copy.
ROWS = 2048


def copy(
    data: DataFolder, partitions: Sequence[Json], out: Path, *, flip: Iterable[str] = (), rows: int | None = None
) -> DataFolder:
    """Some of the partitions as a folder of their own, which may be there already from an earlier call; of each the
    first `rows`, in order of time, or all. flip: paths of those whose labels are turned into others."""
    if not (out / "manifest.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        flip, kept = set(flip), []
        for partition in partitions:
            frame = parquet.read(data.path / partition["path"])
            frame = frame.sort("time", maintain_order=True).head(rows) if rows else frame
            frame = flipped(frame) if partition["path"] in flip else frame
            path = out / partition["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(path)
            kept.append(
                {name: partition[name] for name in ("path", "split", "period")}
                | {"rows": frame.height, "time_min": frame["time"].min(), "time_max": frame["time"].max()}
            )
        manifest = {key: value for key, value in data.manifest.items() if key != "partitions"}
        (out / "manifest.json").write_text(json.dumps(manifest | {"partitions": kept}))
    return DataFolder.open(out)


def flipped(frame: pl.DataFrame) -> pl.DataFrame:
    """The samples with every label turned into another: x into 1 - x where all are 0 or 1, else into high + low - x;
    one that all rows share goes up by 1. What is not known stays so."""
    columns = []
    for name in (n for n in frame.columns if n.startswith("label_")):
        label = frame[name]
        values = set(label.drop_nulls().unique().to_list())
        low, high = (0, 1) if values <= {0, 1} else (min(values), max(values))
        turned = pl.col(name) + 1 if low == high else pl.col(name) * -1 + (low + high)
        columns.append(turned.cast(label.dtype))
    return frame.with_columns(columns)


def moved_in_evaluation(run_folder: Path, data: DataFolder, other: DataFolder, split: str) -> int:
    """How many rows of a split the trained run predicts otherwise in `other`, which differs in its labels."""
    config = load(str(run_folder / "config.json"))
    config = replace(config, data=replace(config.data, since=""))
    frames = []
    with process_group() as ranks:
        for folder in (data, other):
            run = build(config, folder, ranks)
            run.load(run_folder / "checkpoints", {})
            frames.append(predict(run, split))
    before, after = frames
    assert before is not None and after is not None, "a group of one has the rows"
    return _moved(before, after)


def moved_in_training(config: RunConfig, copies: tuple[DataFolder, DataFolder], out: Path, predictions: str) -> int:
    """How many rows under test the method predicts otherwise when it is trained on the second copy, whose labels under
    test are others. out: a folder for its runs, which go. predictions: the file of a run folder that holds them.

    Raises UserError where training does not repeat itself bit for bit, as on some GPUs: nobody could tell then."""
    config = replace(config, data=replace(config.data, since=""), train=replace(config.train, threads=1, steps=0))
    plain, other = copies
    shutil.rmtree(out, ignore_errors=True)
    try:
        with process_group() as ranks:

            def trained(data: DataFolder, name: str) -> pl.DataFrame:
                train(config, data, out / name, ranks, fresh=True, diff="")
                return parquet.read(out / name / predictions)

            before = trained(plain, "plain")
            moved = _moved(before, trained(other, "turned"))
            if moved and _moved(before, trained(plain, "again")):
                raise UserError("the same training does not give the same predictions twice here")
            return moved
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _moved(before: pl.DataFrame, after: pl.DataFrame) -> int:
    names = [name for name in before.columns if name.startswith(("prob_", "pred_"))]
    if before.height != after.height:
        return max(before.height, after.height)
    same = [before[name].eq_missing(after[name]) for name in names]
    return before.height - int(pl.DataFrame(same).select(pl.all_horizontal(pl.all()).sum()).item())
