"""benchmarks/throughput.py on a few rows: the sides that coldrank alone brings, what they are given, and the table."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import throughput
import throughput_loops
import throughput_ours
import torch
from throughput_cost import SideJob
from throughput_data import HISTORY, IDS, LABELS, LENGTH, ROWS, read, write_data

from coldrank.data.batches import DataFolder

BATCH = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return write_data(tmp_path_factory.mktemp("throughput"), "B", 2000)


def test_batches_are_the_samples_in_order(data):
    first = pq.read_table(data.files(("train",))[0], columns=[*IDS, *LABELS, HISTORY]).slice(BATCH, BATCH)
    samples = list(read(data, "B", BATCH, 2))[1]
    assert samples.ids.tolist() == [first[n].to_pylist() for n in IDS]
    assert samples.labels.tolist() == np.stack([first[n].to_numpy() for n in LABELS], 1).tolist()
    assert samples.history.split(samples.lengths.tolist())[-1].tolist() == first[HISTORY].to_pylist()[-1]
    assert 0 < int(samples.ids.min()) and int(samples.ids.max()) < ROWS and int(samples.lengths.max()) <= LENGTH
    with pytest.raises(ValueError, match="give more --rows"):
        list(read(data, "B", BATCH, 1000))


@pytest.mark.parametrize("name", [*throughput_loops.LOOPS, "ours"])
def test_a_side_trains_on_ready_batches_and_from_parquet(data, name, tmp_path):
    module = throughput_ours if name == "ours" else throughput_loops
    with module.make(SideJob(name, "B", data, BATCH, tmp_path)) as side:
        costs = [side.step(3), side.whole(2)]
    assert all(cost.cpu > 0 and cost.wall > 0 for cost in costs)


def test_both_loops_compute_the_same(data):
    """FBGEMM's tables with the weights of nn.EmbeddingBag: equal embeddings, before and after a step of Adagrad."""
    fbgemm, plain = throughput_loops.Fbgemm("B"), throughput_loops.Plain("B")
    tables = [*fbgemm.pooled.split_embedding_weights(), *fbgemm.unpooled.split_embedding_weights()]
    with torch.no_grad():
        plain.bags[1].weight[0] = 0.0  # padding
        for table, i in zip(tables, [*fbgemm.others, 1], strict=True):
            table.copy_(plain.bags[i].weight)
    for samples in read(data, "B", BATCH, 2):
        embedded = [t.look_up(*t.ready(samples)) for t in (fbgemm, plain)]
        for a, b in zip(*embedded, strict=True):
            torch.testing.assert_close(a, b)
        for tables_of, (ids, history) in zip((fbgemm, plain), embedded, strict=True):
            (ids.square().sum() + history.square().sum()).backward()
            tables_of.step()


def test_the_table_names_the_bare_loop_as_floor():
    rates = {"step": {"cpu": 2000, "wall": 1000}, "end to end": {"cpu": 1500, "wall": 900}}
    half = {"step": {"cpu": 1000, "wall": 500}, "end to end": {"cpu": 750, "wall": 450}}
    text = throughput.table(
        {"sides": {"bare": rates, "plain": half}, "missing": {"fuxictr": "fuxictr is not installed"}}
    )
    assert "| plain |" in text and text.count("0.50") == 2 and "fuxictr: left out, fuxictr is not installed" in text


@pytest.mark.slow
def test_the_command_measures_in_turns(tmp_path):
    program = Path(throughput.__file__)
    sizes = {"rows": 4000, "batch": 32, "steps": 2, "short": 2, "long": 34, "repeat": 1, "sides": "bare,plain"}
    options = [str(part) for name, value in sizes.items() for part in (f"--{name}", value)]
    command = [sys.executable, str(program), "--work", "A", *options, "--out", str(tmp_path / "figures.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "figures.json").read_text())
    assert set(result["sides"]) == {"bare", "plain"} and not result["missing"]
    for side in result["sides"].values():
        long, short = (side["seconds"][f"whole {n}"][0][0] for n in (34, 2))
        assert side["end to end"]["cpu"] == round(32 * 32 / (long - short))
    assert done.stdout.startswith("|") and "| bare" in done.stdout
