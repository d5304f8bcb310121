"""A training on a stream follows a folder to which `prepare --append` adds: it ends as over all days at once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from event_logs import DAY_MS, START
from growing_logs import command, cut, log, write
from tiny import tiny

from coldrank.configs.base import counts, history
from coldrank.data.batches import DataFolder
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.train import streaming
from coldrank.train.config import RunConfig
from coldrank.train.trainer import train

DAYS = [f"2022-04-{d}" for d in range(15, 20)]
CONFIG = tiny(
    RunConfig(
        name="followed",
        tasks={"click": Binary()},
        features=(
            Feature(name="user_id", role="user", kind="id", table="user"),
            Feature(name="item_id", role="item", kind="id", table="item"),
            *counts(["user_views", "item_views"]),
            *history(4, {"hist_item_id": "item"}, ["click"]),
        ),
        tables=(Table(name="user", rows=16, dim=4), Table(name="item", rows=16, dim=8)),
    )
)


def config(**fields: Any) -> RunConfig:
    more = {"mode": "periods", "first_period": DAYS[2], "look_back": (1,), "log_every": 3, **fields}
    data = replace(CONFIG.data, batch_size=16, eval_batch_size=16)
    return replace(CONFIG, data=data, train=replace(CONFIG.train, **more))


def predictions(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run.rglob("*.parquet")}


def rows(run: Path) -> list[str]:
    """The metrics but for speeds, and those of all periods together, which every run that ends writes."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [x for x in lines if "samples_per_second" not in x and '"period": null' not in x]


def test_a_folder_that_is_added_to_is_followed(ranks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is started again after a day in two parts, and waits for the last; other splits get the days before."""
    noon = START + 3 * DAY_MS + DAY_MS // 3
    parts = cut(log(0), [START + 3 * DAY_MS - 1, noon, START + 4 * DAY_MS - 1])
    write(pl.concat(parts), tmp_path / "once" / "log", "all")
    write(parts[0], tmp_path / "log", "0")
    options = ("--valid-days", "0")
    assert command(tmp_path / "once", *options) == 0 and command(tmp_path, *options) == 0
    train(config(), DataFolder.open(tmp_path / "once" / "out"), tmp_path / "whole", ranks, fresh=False, diff="")

    def add(number: int) -> None:
        write(parts[number], tmp_path / "log", str(number))
        assert command(tmp_path, *options, "--append") == 0

    out, run = tmp_path / "out", tmp_path / "run"
    train(config(), DataFolder.open(out), run, ranks, fresh=False, diff="")
    before = {p["path"] for p in DataFolder.open(out).manifest["partitions"] if p["period"] in DAYS[:3]}
    add(1)
    add(2)
    looks, look = [], streaming._manifest

    def growing(path: Path) -> Any:
        looks.append(path)
        if len(looks) == 2:
            add(3)
        return look(path)

    monkeypatch.setattr(streaming, "POLL_S", 0.05)
    monkeypatch.setattr(streaming, "_manifest", growing)
    train(config(follow_s=1.0), DataFolder.open(out), run, ranks, fresh=False, diff="")
    now = DataFolder.open(out).manifest["partitions"]
    assert {p["path"] for p in now if p["period"] in DAYS[:3]} != before  # some have moved to another split
    assert predictions(run) == predictions(tmp_path / "whole") and f"{DAYS[-1]}.parquet" in predictions(run)
    assert rows(run) == rows(tmp_path / "whole")
