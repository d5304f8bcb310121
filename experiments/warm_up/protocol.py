"""The splits of the warm-up experiments: old items, and the first, second and third K events of every new one.

`fixed test` (as the authors of CVAR do): what is left of a new item is the test set of every phase. `slides` (MWUF):
every phase is scored on the set that is trained on next. Both come from the same splits.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from coldrank.data import parquet
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError

SPLITS = ("old", "warm_a", "warm_b", "warm_c", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """Which items are old and new, and which of their events are where."""

    old_above: int = 200
    """Items with more events are old."""
    new_from: int = 60
    """Other items with at least so many events are new; the rest is left out."""
    k: int = 20
    """Events of a new item in each of the three warm sets."""
    held_out: int = 0
    """The same inside the old items, to tune on; 0: the protocol itself.

    Every so many-th old item is new, with its events up to the `old_above`-th; the others are old.
    """


def split_of(protocol: Protocol) -> pl.Expr:
    """The split of a row; null: in none. Reads `item_events:` (of its item) and `item_seen` (those before it)."""
    events, seen, old = pl.col("item_events:"), pl.col("item_seen"), pl.col("item_events:") > protocol.old_above
    new = (events >= protocol.new_from) & ~old
    if protocol.held_out:
        new = old & (pl.col("item_id").rank("dense") % protocol.held_out == 0)
        old, seen = old & ~new, pl.when(seen < protocol.old_above).then(seen)
    phase = pl.when(seen < 3 * protocol.k).then(seen // protocol.k).when(seen.is_not_null()).then(3)
    name = phase.replace_strict(dict(enumerate(SPLITS[1:])), default=None, return_dtype=pl.String)
    return pl.when(old).then(pl.lit("old")).when(new).then(name)


def write_splits(data: DataFolder, out: Path, protocol: Protocol) -> DataFolder:
    """Writes all samples of a prepared folder, whatever their split, into the splits of the protocol, sorted by time.

    They get a column `item_seen`: events of the item before this one; those of one moment by the users' ids.
    Written beside and renamed. Raises UserError if a split is empty.
    """
    if data.manifest.get("negatives"):
        raise UserError(f"{data.path}: holds sampled negatives, and its items' events are counted; prepare it without")
    files = data.paths(data.manifest["partitions"])
    frame = pl.concat([parquet.read(f) for f in files]).sort("time", "user_id", "item_id")
    frame = frame.with_columns(
        (pl.col("item_id").cum_count().over("item_id").cast(pl.Int64) - 1).alias("item_seen"),
        pl.len().over("item_id").alias("item_events:"),
    )
    frame = frame.with_columns(split_of(protocol).alias("split")).drop("item_events:")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partitions = []
    for split in SPLITS:
        part = frame.filter(pl.col("split") == split).drop("split")
        if part.is_empty():
            raise UserError(f"{data.path}: no row in split {split} of {protocol}")
        path = Path("samples") / f"split={split}" / "part-0.parquet"
        (partial / path).parent.mkdir(parents=True)
        part.write_parquet(partial / path, row_group_size=65_536)
        low, high = part["time"].min(), part["time"].max()
        period = {"period": "all", "rows": part.height, "time_min": low, "time_max": high}
        partitions.append({"path": str(path), "split": split, **period})
    seen = {"name": "item_seen", "type": "int64", "nullable": False, "meaning": "events of the item before this one"}
    columns = [*data.manifest["columns"], seen]
    manifest = {"format": 1, "source": f"{data.manifest['source']}, {protocol}", "columns": columns}
    (partial / "manifest.json").write_text(json.dumps(manifest | {"partitions": partitions}))
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)
    return DataFolder.open(out)
