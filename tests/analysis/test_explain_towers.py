"""`coldrank explain` on runs of the two-tower model."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from periods import write_periods
from retrieving import two_tower
from torch.func import functional_call

from coldrank.analysis.explain.measure import draw_rows, load_run
from coldrank.analysis.explain.towers import measure
from coldrank.cli.main import main
from coldrank.data.batches import DataFolder
from coldrank.train.hooks.pam import Pam
from coldrank.train.trainer import train

DAYS = [f"2022-05-0{d}" for d in range(1, 4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, ranks):
    """Data, and runs: PF, PAM, and PAM with other weights of the cold group."""
    root = tmp_path_factory.mktemp("pam")
    data = DataFolder.open(write_periods(root / "data", DAYS))
    pf = two_tower()
    retrieval = replace(pf.retrieval, cold=(20, 60))
    pf = replace(
        pf, name="pf", train=replace(pf.train, mode="periods", first_period=DAYS[1], look_back=()), retrieval=retrieval
    )
    settings = Pam(cuts=(20, 60, 120), cold=1, behaviour=("item_id",), rate=0.5)
    pam = replace(pf, name="pam")
    arms = {"pf": pf} | {
        f"varied/{w}-{seed}": replace(pam, seed=seed, hooks=(replace(settings, cold_weight=w),))
        for w in (1.0, 4.0)
        for seed in (1, 2)
    }
    for name, arm in arms.items():
        train(arm, data, root / name, ranks, fresh=False, diff="")
    return root


@pytest.fixture
def explain(folder, ranks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("coldrank.train.distributed.ranks.process_group", lambda: nullcontext(ranks))

    def call(run: str, *arguments: str) -> tuple[int, str]:
        code = main(
            ["explain", str(folder / run), "--data", str(folder / "data"), "--out", str(tmp_path / "out"), *arguments]
        )
        return code, capsys.readouterr().err

    return call


@torch.no_grad()
def test_errors_are_those_of_the_task_s_weights(folder, ranks):
    run, _ = load_run(folder / "varied/4.0-1", DataFolder.open(folder / "data"), ranks)
    sample = draw_rows([run], "test", 100, 0)
    figures = measure(run, sample)
    assert figures["masks"] == {"behaviour": ["item_id"], "content": ["item_tags"]}
    task, hook = run.model.module, run.hooks[0]
    (_, batch, _), *_ = sample.batches(run.make)
    item = task.ranker.sides(task.embeddings(batch), batch.dense).item
    weights = hook.served(hook.start(task.ranker))
    assert not torch.equal(weights["towers.item.layers.0.weight"][1], weights["towers.item.layers.0.weight"][2])
    views = batch.keys["item_views"]
    cold = ((views > 20) & (views <= 60)).nonzero().squeeze(1)
    of_task = {n.removeprefix("towers.item."): w[1] for n, w in weights.items() if "item" in n}
    tower = lambda x: functional_call(task.ranker.towers["item"], of_task, (x,))
    without = item[cold].clone()
    without[:, task.ranker.item_columns["item_id"]] = 0
    expected = (tower(without) - tower(item[cold])).square().mean(0)
    row = next(e for e in figures["errors"] if (e["mask"], e["cohort"]) == ("behaviour", "cold_item"))
    assert row["rows"] == len(cold) > 5
    torch.testing.assert_close(torch.tensor(row["error"]), expected, rtol=1e-4, atol=1e-7)
    assert row["total"] == pytest.approx(expected.sum().item(), rel=1e-4)


def test_pictures_of_two_runs_and_of_a_varied_field(explain, folder, tmp_path):
    arguments = ("--against", str(folder / "pf"), "--varied", str(folder / "varied"), "--rows", "90")
    assert explain("varied/1.0-1", *arguments)[0] == 0
    content = json.loads((tmp_path / "out/explain.json").read_text())
    assert [run["arm"] for run in content["runs"]] == ["pf", "pam"] and content["rows"] == 90
    assert content["sensitivity"]["field"] == "pam.cold_weight"
    summary = [json.loads((folder / f"varied/4.0-{seed}/summary.json").read_text()) for seed in (1, 2)]
    values = [r["value"] for s in summary for r in s if (r["cohort"], r["metric"]) == ("cold_item", "recall@5")]
    point = next(
        p
        for p in content["sensitivity"]["points"]
        if (p["value"], p["cohort"], p["metric"]) == (4.0, "cold_item", "recall@5")
    )
    assert point["mean"] == pytest.approx(sum(values) / 2) and point["n"] == 2
    page = (tmp_path / "out/explain.html").read_text()
    assert page.count('role="img"') == len(list((tmp_path / "out/pictures").iterdir())) == 4
    assert "--varied" not in page and "squared" in page


def test_what_cannot_be_drawn_is_refused(explain, folder):
    code, error = explain("pf", "--mask", "item_id")
    assert code == 2 and "--mask: not for runs of the two-tower model" in error
    code, error = explain("pf", "--varied", str(folder / "nothing"))
    assert code == 2 and "needs at least two finished runs, has 0" in error
