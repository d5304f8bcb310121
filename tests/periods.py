"""Writes a small prepared data folder of several periods, each of two splits that overlap in time."""

import json
import tempfile
from pathlib import Path

import polars as pl
from samples import write_samples

SPLITS = ("train", "test")


def write_periods(folder: Path, names: list[str], rows: int = 160) -> Path:
    """Random samples, equal for equal names whatever follows.

    The splits of a period take turns. A period's last ten rows are later than the first ten of the next, as in a log
    that dates by another clock.
    """
    partitions = []
    for at, name in enumerate(names):
        with tempfile.TemporaryDirectory() as whole:
            part = json.loads((write_samples(Path(whole), {"all": rows}, seed=at) / "manifest.json").read_text())
            frame = pl.read_parquet(Path(whole, part["partitions"][0]["path"]), hive_partitioning=False)
        frame = frame.with_columns(pl.col("time") + 1000 * (rows - 10) * at)
        for split in SPLITS:
            own = frame.gather_every(2, SPLITS.index(split))
            path = Path("samples", f"split={split}", f"period={name}", "part-0.parquet")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            own.write_parquet(folder / path, row_group_size=32)
            about = {"path": str(path), "split": split, "period": name, "rows": own.height}
            partitions.append(about | {"time_min": own["time"].min(), "time_max": own["time"].max()})
    # As `prepare` lists them: by split, then by time.
    partitions.sort(key=lambda p: (SPLITS.index(p["split"]), p["period"]))
    content = {"format": 1, "source": "random", "columns": part["columns"], "partitions": partitions}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder
