"""The posterior on a stream of periods: it goes along, each event counts once, and scoring moves nothing."""

import json
from dataclasses import replace
from itertools import pairwise

import torch
from periods import SPLITS, write_periods
from test_mwuf_hook import loaded, step, weights
from test_posterior_hook import gained_of, with_posterior
from tiny import growing

from coldrank.data.batches import DataFolder, batches
from coldrank.data.by_time import TimeReader
from coldrank.data.fit import fit_encoder
from coldrank.train.run import build
from coldrank.train.trainer import train

DAYS = [f"2022-05-0{d}" for d in range(1, 5)]
OF_BOTH = {"item_max_views": 180, "user": "user_id", "user_max_views": 27, "prior": "mean"}


def test_a_stream_ends_where_one_pass_over_its_periods_ends(ranks, tmp_path):
    """Against a bare loop that reads the files in order of time, and scores nothing."""
    folder = write_periods(tmp_path / "data", DAYS)
    data = DataFolder.open(folder)
    fields = {"mode": "periods", "first_period": DAYS[1], "look_back": (0, 1)}
    config = with_posterior(growing(), train_fields=fields, **OF_BOTH)
    config = replace(config, data=replace(config.data, order="time"), optim=replace(config.optim, decay="constant"))
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {row["period"] for row in rows if row["split"] == "next"} >= set(DAYS[1:])
    streamed = loaded(config, data, ranks, tmp_path / "run")

    run = build(config, data, ranks)
    files = {day: [folder / f"samples/split={split}/period={day}/part-0.parquet" for split in SPLITS] for day in DAYS}
    fit_encoder(run.encoder, files[DAYS[0]])
    gained, number = [], 0
    for day in DAYS:
        reader = TimeReader(files[day], run.make.columns(training=True), config.data.batch_size)
        with batches(reader, run.make, 2) as source:
            for batch in source:
                step(run, batch, number)
                number += 1
        gained.append({role: float(gained_of(ids).sum()) for role, ids in run.hooks[0].in_order.items()})
    for role in ("item", "user"):
        told = [of[role] for of in gained]
        assert 0 < told[0] and all(a < b for a, b in pairwise(told))
        assert run.hooks[0].in_order[role].trained.any()
    once = weights(run)
    assert once.keys() == streamed.keys()
    for name, value in once.items():
        assert torch.equal(value, streamed[name]), name
