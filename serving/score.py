"""Scores Parquet files with an exported model: streamed, and resumed where it stopped.

`OUT.partial/` holds a part for every stretch of rows that is done; when all are, they become the one file OUT.
"""

import json
import os
import shutil
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

from coldrank.data.batches import KEYS
from coldrank.data.errors import UserError
from coldrank.data.folder import PARQUET, Folder, wanted_endings
from coldrank.data.json_files import read_object
from coldrank.data.location import check_reachable, is_url, named
from coldrank.data.output import check_new, put_file, real_path, write_atomic
from coldrank.data.parquet import opened, schema
from coldrank.data.read import Raw, SampleReader
from coldrank.models.features import Input
from coldrank.serving.export.aoti import by_user, load_package
from coldrank.serving.export.digests import verify
from coldrank.serving.export.parity import Serve, request_of
from coldrank.serving.export.structure import load_script

BATCH = 4096
# Batches to a part, so rows that are scored again after a kill at most: 64 batches.
PART = 64


@dataclass(frozen=True, slots=True)
class Artifact:
    """An export folder: the model, the columns that it reads, task -> the column of its answers, and what tells the
    model from another. temperature: of a two-tower model, whose inner products become probabilities by it (0: of
    another)."""

    model: Serve
    inputs: list[Input]
    tasks: dict[str, str]
    digest: str
    temperature: float

    @classmethod
    def open(cls, folder: Path) -> "Artifact":
        """Loads it. Raises UserError if the folder is no export, or not as it was written."""
        digest = verify(folder)
        signature = json.loads((folder / "signature.json").read_text())
        inputs = [_input(e) for e in signature["inputs"] if not e["name"].endswith(".lengths")]
        if (folder / "model.pt").exists():
            model: Serve = load_script(folder / "model.pt")
        else:
            model = by_user(load_package(folder), [i.name for i in inputs])
        # An export of before tasks had heads names no column: probabilities.
        tasks = {o["task"]: o.get("column", f"prob_{o['task']}") for o in signature["outputs"]}
        return cls(model, inputs, tasks, digest, signature.get("temperature") or 0.0)

    @property
    def labels(self) -> "dict[str, type[pl.DataType]]":
        """Column of a label -> its type: flags of a task that gives a probability, else numbers."""
        return {f"label_{t}": pl.Int8 if column.startswith("prob_") else pl.Float32 for t, column in self.tasks.items()}

    @torch.inference_mode()
    def score(self, raw: Raw) -> pl.DataFrame:
        """The columns of `raw` that identify a sample and its labels, and the answers."""
        given = self.model(request_of(raw, [i.name for i in self.inputs]))
        if self.temperature:
            given = {t: torch.sigmoid(score / self.temperature) for t, score in given.items()}
        columns = {n: raw[n] for n in (*KEYS, *self.labels) if n in raw}
        frame = pl.DataFrame(columns | {column: given[t].numpy() for t, column in self.tasks.items()})
        labels = [pl.col(n).fill_nan(None).cast(kind) for n, kind in self.labels.items() if n in columns]
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
        required=entry.get("finite", False),
        width=entry.get("width", 0),
        like="" if entry.get("like") == entry["name"] else entry.get("like", ""),
    )


def score_file(folder: Path, source: Path, out: Path) -> int:
    """Scores every row of a file, or of the Parquet files below a folder in the order of their names, in its order, and
    returns their number. Raises UserError for a column that is missing or wrong, and if `out` is there."""
    check_new("--out", out, "file")
    out = real_path(out)
    sources = _sources(source, out)
    artifact = Artifact.open(folder)
    columns = _columns(artifact, sources)
    reader = SampleReader(sources, columns, BATCH)
    parts = out.with_name(out.name + ".partial")
    what = {"model": artifact.digest, "input": [[str(s.resolve()), *_stamp(s)] for s in sources], "batch": BATCH}
    done = _begin(parts, what)
    if done:
        tqdm.write(f"{parts}: goes on from row {done * PART * BATCH:,}")
    stream = reader.epoch(0, done * PART)
    with tqdm(total=reader.total_rows, initial=done * PART * BATCH, desc="score", unit="row", unit_scale=True) as bar:
        while batches := [artifact.score(raw) for raw in _told(islice(stream, PART), bar)]:
            _write(pl.concat(batches), parts / f"part-{done:06d}.parquet")
            done += 1
    if not done:
        _write(_empty(artifact, columns), parts / "part-000000.parquet")
    _join(parts, out)
    return reader.total_rows


def _sources(source: Path, out: Path) -> list[Path]:
    check_reachable(source, listed=True)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"--input {source}: no such file or folder")
    if not is_url(source) and source.resolve() in out.resolve().parents:
        raise UserError(f"--out {out}: lies in --input {source}, of which every file is read; give another place")
    folder = Folder(source, wanted_endings(PARQUET, "Parquet"))
    if not folder.files:
        raise UserError(f"--input {source}: holds no Parquet files{folder.left_out_note()}")
    if folder.refused:
        tqdm.write(f"--input {source}: {len(folder.files)} files{folder.left_out_note()}")
    return folder.files


def _told(batches: Iterator[Raw], bar: "tqdm[Any]") -> Iterator[Raw]:
    for raw in batches:
        yield raw
        bar.update(len(next(c for c in raw.values() if isinstance(c, np.ndarray))))


def _columns(artifact: Artifact, sources: list[Path]) -> list[Input]:
    """What is read: the model's inputs, and of keys and labels what is there."""
    there: set[str] = set()
    for source in sources:
        there |= set(schema(source).names)
    inputs = {i.name: i for i in artifact.inputs}
    extra = [*(Input(k, "int") for k in KEYS), *(Input(n, "float") for n in artifact.labels)]
    return list((inputs | {i.name: i for i in extra if i.name in there and i.name not in inputs}).values())


def _stamp(source: Path) -> list[int]:
    with named(source):
        stat = source.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _begin(parts: Path, what: dict[str, Any]) -> int:
    """How many parts are done already: those of the same model and input; others are removed."""
    note = parts / "what.json"
    if note.exists() and read_object(note) != json.loads(json.dumps(what)):
        tqdm.write(f"{parts}: is of another model or input; starts over")
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        write_atomic(note, json.dumps(what))
    return len(list(parts.glob("part-*.parquet")))


def _write(frame: pl.DataFrame, path: Path) -> None:
    partial = path.with_suffix(".writing")
    frame.write_parquet(partial)
    os.replace(partial, path)


def _empty(artifact: Artifact, columns: list[Input]) -> pl.DataFrame:
    read = {c.name for c in columns}
    types = {n: pl.Int32 if n.endswith("_views") else pl.Int64 for n in KEYS} | artifact.labels
    answers: dict[str, type[pl.DataType]] = dict.fromkeys(artifact.tasks.values(), pl.Float32)
    return pl.DataFrame(schema={n: kind for n, kind in types.items() if n in read} | answers)


def _join(parts: Path, out: Path) -> None:
    """Writes the parts end to end, then gives the file its name and removes them."""
    whole = out.with_name(out.name + ".writing")
    paths = sorted(parts.glob("part-*.parquet"))
    with pq.ParquetWriter(whole, schema(paths[0])) as writer:
        for path in paths:
            with opened(path) as file:  # not read_table, to which `a=b/` in the path is a column
                writer.write_table(file.read())
    put_file(whole, out)
    shutil.rmtree(parts)
