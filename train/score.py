"""Scores a Parquet file with an exported model: streamed, and resumed where it stopped.

`OUT.partial/` holds a part for every stretch of rows that is done; when all are, they become the one file OUT.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from coldrank.models.features import Input
from coldrank.train.data.batches import KEYS
from coldrank.train.data.read import Raw, SampleReader
from coldrank.train.errors import UserError
from coldrank.train.export.parity import request_of
from coldrank.train.export.write import load_script
from coldrank.train.output import check_new, put_file, real_path, write_atomic

BATCH = 4096
# Batches to a part, so rows that are scored again after a kill at most: 64 batches.
PART = 64


@dataclass(frozen=True, slots=True)
class Artifact:
    """An export folder: the model, the columns that it reads, its tasks, and what tells it from another. temperature: of a two-tower
    model, whose inner products become probabilities by it (0: of another)."""

    model: torch.jit.ScriptModule
    inputs: list[Input]
    tasks: list[str]
    digest: str
    temperature: float

    @classmethod
    def open(cls, folder: Path) -> "Artifact":
        """Loads it. Raises UserError if the folder is no export."""
        try:
            told = json.loads((folder / "signature.json").read_text())
            content = (folder / "model.pt").read_bytes()
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no export folder ({error}); make one with `coldrank export`") from None
        inputs = [_input(e) for e in told["inputs"] if not e["name"].endswith(".lengths")]
        digest = f"{len(content)}-{zlib.crc32(content):08x}"
        tasks, temperature = [o["task"] for o in told["outputs"]], told.get("temperature") or 0.0
        return cls(load_script(folder / "model.pt"), inputs, tasks, digest, temperature)

    @torch.inference_mode()
    def score(self, raw: Raw) -> pl.DataFrame:
        """The columns of `raw` that identify a sample and its labels, and prob_<task>."""
        given = self.model(request_of(raw, [i.name for i in self.inputs]))
        if self.temperature:
            given = {t: torch.sigmoid(score / self.temperature) for t, score in given.items()}
        columns = {n: raw[n] for n in (*KEYS, *(f"label_{t}" for t in self.tasks)) if n in raw}
        frame = pl.DataFrame(columns | {f"prob_{t}": given[t].numpy() for t in self.tasks})
        labels = [pl.col(n).fill_nan(None).cast(pl.Int8) for n in columns if n.startswith("label_")]
        views = [pl.col(n).cast(pl.Int32) for n in columns if n.endswith("_views")]
        return frame.with_columns(*labels, *views)


def _input(entry: dict[str, Any]) -> Input:
    whole = entry["dtype"] == "int64"
    is_list = entry["default"] == []
    return Input(
        entry["name"],
        "int" if whole else "float",
        is_list=is_list,
        default=entry["default"] if whole and not is_list else None,
        low=entry.get("low"),
        high=entry.get("high"),
    )


def score_file(folder: Path, source: Path, out: Path) -> int:
    """Scores every row of `source`, in its order, and returns their number. Raises UserError for a column that is missing or
    wrong, and if `out` is there."""
    check_new("--out", out, "file")
    out = real_path(out)
    if not source.is_file():
        raise UserError(f"--input {source}: no such file")
    artifact = Artifact.open(folder)
    reader = SampleReader([source], _columns(artifact, source), BATCH)
    parts = out.with_name(out.name + ".partial")
    done = _begin(parts, {"model": artifact.digest, "input": [str(source.resolve()), *_stamp(source)], "batch": BATCH})
    if done:
        tqdm.write(f"{parts}: goes on from row {done * PART * BATCH:,}")
    stream = reader.epoch(0, done * PART)
    with tqdm(total=reader.total_rows, initial=done * PART * BATCH, desc="score", unit="row", unit_scale=True) as bar:
        while batches := [artifact.score(raw) for raw in _told(islice(stream, PART), bar)]:
            _write(pl.concat(batches), parts / f"part-{done:06d}.parquet")
            done += 1
    if not done:
        _write(_empty(artifact, source), parts / "part-000000.parquet")
    _join(parts, out)
    return reader.total_rows


def _told(batches: Iterator[Raw], bar: "tqdm[Any]") -> Iterator[Raw]:
    for raw in batches:
        yield raw
        bar.update(len(next(c for c in raw.values() if isinstance(c, np.ndarray))))


def _columns(artifact: Artifact, source: Path) -> list[Input]:
    """What is read: the model's inputs, and of keys and labels what is there."""
    there = set(pq.read_schema(source).names)
    found = {i.name: i for i in artifact.inputs}
    extra = [*(Input(k, "int") for k in KEYS), *(Input(f"label_{t}", "float") for t in artifact.tasks)]
    return list((found | {i.name: i for i in extra if i.name in there and i.name not in found}).values())


def _stamp(source: Path) -> list[int]:
    stat = source.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _begin(parts: Path, what: dict[str, Any]) -> int:
    """How many parts are done already: those of the same model and input; others are removed."""
    told = parts / "what.json"
    if told.exists() and json.loads(told.read_text()) != json.loads(json.dumps(what)):
        tqdm.write(f"{parts}: is of another model or input; starts over")
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    if not told.exists():
        write_atomic(told, json.dumps(what))
    return len(list(parts.glob("part-*.parquet")))


def _write(frame: pl.DataFrame, path: Path) -> None:
    partial = path.with_suffix(".writing")
    frame.write_parquet(partial)
    os.replace(partial, path)


def _empty(artifact: Artifact, source: Path) -> pl.DataFrame:
    types = {n: np.int64 for n in KEYS} | {f"label_{t}": np.float32 for t in artifact.tasks}
    names = [c.name for c in _columns(artifact, source) if c.name in types]
    frame = pl.DataFrame({n: np.zeros(0, types[n]) for n in names})
    return frame.with_columns(pl.lit(None, pl.Float32).alias(f"prob_{t}") for t in artifact.tasks)


def _join(parts: Path, out: Path) -> None:
    """Writes the parts end to end, then gives the file its name and removes them."""
    whole = out.with_name(out.name + ".writing")
    paths = sorted(parts.glob("part-*.parquet"))
    with pq.ParquetWriter(whole, pq.read_schema(paths[0])) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path))
    put_file(whole, out)
    shutil.rmtree(parts)
