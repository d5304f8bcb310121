"""Random logs: `prepare` writes what a plain loop over them computes, or refuses in a line that names the fault.

COUNT logs from SEED on; `make fuzz` takes 10,000. A failure says its seed: `make fuzz SEED=123 COUNT=1` is that log.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from naive_asof import naive_samples
from random_logs import FIELDS, Log, Writer

from coldrank.data.errors import UserError
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_time

COUNT, SEED = int(os.environ.get("COUNT", "40")), int(os.environ.get("SEED", "0"))
HISTORY = 3


def id_of(value: Any) -> int | None:
    """The 64-bit id of a value, by the words of the docs."""
    if isinstance(value, str):
        return int.from_bytes(hashlib.blake2b(value.encode()).digest()[:8], "little", signed=True)
    return value - 2**64 if value is not None and value >= 2**63 else value


def expected(log: Log) -> list[dict[str, Any]]:
    """The samples of a log, in order of time, user and item."""
    distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in log.rows:
        distinct.setdefault(tuple(row[n] for n in FIELDS), row)
    events = [row | {n: id_of(row[n]) for n in ("user", "item", "author", "place")} for row in distinct.values()]
    ages = {id_of(user): age for user, age in (log.ages or {}).items()}
    events.sort(key=lambda e: (e["time"], e["user"], e["item"]))
    samples = []
    for event, want in zip(
        events,
        naive_samples([e | {"birth": None} for e in events], list(log.spec.all_groups()), ["click"], HISTORY),
        strict=True,
    ):
        sample = {
            "user_id": event["user"],
            "item_id": event["item"],
            "time": event["time"],
            "label_click": event["click"],
        }
        sample |= {n: event[n] for n in ("n", "x", "place")}
        if "tags" in log.spec.context:
            sample["tags"] = [id_of(t) for t in event["tags"] or () if t is not None]
        for group in log.spec.all_groups():
            views = f"{group.name}_views" if group.name in ("user", "item") else f"views_{group.name}"
            sample[views] = want[f"views:{group.name}"]
            sample[f"rate_{group.name}_click"] = want[f"rate:{group.name}:click"]
        sample |= {"user_gap_h": want["gap_h"], "item_age_h": want["age_h"]}
        past = want["history"]
        sample["hist_item_id"] = [p["item"] for p in past]
        for name in ("author", "click"):
            sample[f"hist_{name}"] = [-1 if p[name] is None else p[name] for p in past]
        if log.ages is not None:
            age = ages.get(event["user"])
            sample |= {"user_age": age, "old": None if age is None else int(age > 25)}
        samples.append(sample)
    return samples


def check(seed: int, folder: Path) -> None:
    log = Writer(folder, seed).write()
    out = folder / "out"
    try:
        opened = open_log(log.data, log.spec)
        options = PrepareOptions(history=HISTORY, arguments={})
        content = prepare(opened, out, lambda known: split_by_time(known.days, None, 1), options)
    except UserError as error:
        assert log.fault and log.fault in str(error) and "\n" not in str(error), (
            f"refused: {error}; fault: {log.fault!r}"
        )
        assert not out.exists()
        return
    assert not log.fault, f"read in spite of the fault in {log.fault}"
    parts = [pl.read_parquet(out / p["path"], glob=False, hive_partitioning=False) for p in content["partitions"]]
    samples = pl.concat(parts).sort("time", "user_id", "item_id", maintain_order=True).to_dicts()
    wanted = expected(log)
    counts = content["counts"]
    assert (counts["files_read"], counts["events_read"]) == (len(log.files), len(log.rows))
    assert counts["duplicates_dropped"] == len(log.rows) - len(wanted)
    assert len(samples) == len(wanted)
    for sample, want in zip(samples, wanted, strict=True):
        assert sample.keys() == want.keys()
        for name, value in want.items():
            written = np.float32(sample[name]) if isinstance(value, np.float32) else sample[name]
            assert written == value, f"{name}: {written!r}, but {value!r} by the log's own words; {sample}"


@pytest.mark.tried(
    "logs",
    "random logs: formats, types, layouts, links, names, nulls, one fault in three",
    "the right samples, or a line",
)
def test_random_logs(tmp_path: Path) -> None:
    for seed in range(SEED, SEED + COUNT):
        try:
            check(seed, tmp_path / str(seed))
        except Exception as error:
            raise AssertionError(f"SEED={seed}: {type(error).__name__}: {error}") from error
        shutil.rmtree(tmp_path / str(seed))
