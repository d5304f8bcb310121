"""Tasks of every kind as they are served: written by hand, traced, routed, compiled, padded, in C++, updated,
scored."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from served import exported, hooked, random_model, request_of, rows_of
from test_cpp import program, run  # noqa: F401 - program: a fixture
from test_triton import padded
from tiny import tiny
from torch import Tensor
from valued import TASKS, valued_base, write_valued

from coldrank.cli.main import main
from coldrank.configs import base as parts
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.models.component import find
from coldrank.models.heads import Binary, Regression
from coldrank.models.model import Model
from coldrank.serving.batched import Batched
from coldrank.serving.export import parity
from coldrank.serving.export.aoti import by_user, load_package, write_package
from coldrank.serving.export.digests import write_digests
from coldrank.serving.export.structure import load_script
from coldrank.serving.export.trained import Trained
from coldrank.serving.export.write import save_script
from coldrank.serving.update import delta
from coldrank.train.config import RunConfig, to_dict


def dcn() -> RunConfig:
    """A model that is served by tracing."""
    config = valued_base()
    tables = tuple(replace(t, dim=4) for t in config.tables)
    features = tuple(replace(f, dim=min(f.dim, 4)) for f in config.features)
    model = find(Model, "dcn")(tower_hidden=config.model.tower_hidden)
    return replace(config, features=features, tables=tables, model=model)


KINDS: dict[str, Callable[[], RunConfig]] = {
    "written by hand": lambda: parts.poso(valued_base()),
    "traced": dcn,
    "routed by PAM, with MWUF and MetaCF": lambda: hooked(valued_base(), "pam", "mwuf", "metacf"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataFolder:
    return DataFolder.open(write_valued(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module", params=KINDS)
def trained(request, data) -> Trained:
    return made(KINDS[request.param](), data)


def made(config: RunConfig, data: DataFolder) -> Trained:
    """Random weights, small enough that a logarithm of seconds is one."""
    trained = random_model(config, data)
    batch = trained.make(rows_of(trained, data))
    with torch.no_grad():
        while trained.task(batch).logits.abs().max() > 20:
            for p in trained.task.ranker.parameters():
                p /= 1.5
    return trained


def answers(trained: Trained, raw: dict) -> dict[str, np.ndarray]:
    """From training's logits by each head's equation, in float64: an odds, a logarithm, a level."""
    with torch.no_grad():
        z = trained.task(trained.make(raw)).logits.double().numpy()
    stars = trained.task.heads.parts["label_stars"]
    gaps = np.logaddexp(0, stars.gaps.detach().double().numpy()) + 1e-6
    thresholds = stars.first.detach().double().numpy() + np.concatenate([[0], np.cumsum(gaps)])
    above = 1 / (1 + np.exp(thresholds - z[:, 2:3]))
    return {"long_view": 1 / (1 + np.exp(-z[:, 0])), "watch_s": np.exp(z[:, 1]) - 1, "stars": 1 + above.sum(1)}


def assert_right(given: dict[str, Tensor], wanted: dict[str, np.ndarray]) -> None:
    assert list(given) == list(TASKS)
    for task, value in given.items():
        np.testing.assert_allclose(value.numpy(), wanted[task], rtol=2e-5, atol=1e-5, err_msg=task)


def test_a_script_answers_with_what_each_head_gives(trained, data, tmp_path):
    raw = rows_of(trained, data)
    save_script(trained.twin(trained.columns()), tmp_path / "model.pt")
    served = load_script(tmp_path / "model.pt")
    wanted = answers(trained, raw)
    assert_right(served(parity.request_of(raw, trained.reads)), wanted)
    once = served(request_of(trained, raw, 4, [4]))
    assert_right(once, {task: values[4:5] for task, values in wanted.items()})
    assert {len(x) for x in served(request_of(trained, raw, 4, [])).values()} == {0}


def test_padded_requests_are_answered_by_task(trained, data, tmp_path):
    twin, raw = trained.twin(trained.columns()), rows_of(trained, data)
    requests = [request_of(trained, raw, user, [user, 1, 2]) for user in (5, 6)]
    given, status = torch.jit.script(Batched(twin, twin.inputs))(padded(requests, twin))
    assert status.tolist() == [[0], [0]]
    for answer, request in zip(given, requests, strict=True):
        torch.testing.assert_close(answer, torch.stack(list(twin(request).values()), 1), rtol=1e-5, atol=1e-5)


def test_a_delta_carries_the_thresholds(data):
    trained = made(KINDS["written by hand"](), data)
    before, request = trained.twin(trained.columns()), request_of(trained, rows_of(trained, data), 3, [5, 0, 17])
    old = before(request)
    with torch.no_grad():
        trained.task.heads.parts["label_stars"].first += 0.5
        trained.task.heads.parts["label_stars"].gaps[1] -= 0.25
    after = trained.twin(trained.columns())
    changes = delta(before.state, before.version, after.state, after.version)
    assert {n for n in changes if n.startswith("rows:")} == {
        "rows:core.heads.parts.label_stars.first",
        "rows:core.heads.parts.label_stars.gaps",
    }
    before.update(changes)
    new = before(request)
    assert new["stars"].tolist() == after(request)["stars"].tolist() != old["stars"].tolist()
    assert new["watch_s"].tolist() == old["watch_s"].tolist()


@pytest.mark.slow
def test_a_package_answers_with_what_each_head_gives(data, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no g++ here, which compiling needs")
    trained = made(KINDS["written by hand"](), data)
    raw = parity.take_rows(rows_of(trained, data), np.arange(20))
    exported(trained, tmp_path / "package")
    write_package(trained.twin(trained.columns()), tmp_path / "package")
    serve = by_user(load_package(tmp_path / "package"), trained.reads)
    assert_right(serve(parity.request_of(raw, trained.reads)), answers(trained, raw))
    (tmp_path / "package" / "model.pt").unlink()
    write_digests(tmp_path / "package")
    source, out = tmp_path / "x.parquet", tmp_path / "y.parquet"
    pl.read_parquet(data.files(("test",))[0]).head(9).write_parquet(source)
    assert main(["score", "--artifact", str(tmp_path / "package"), "--input", str(source), "--out", str(out)]) == 0
    assert pl.read_parquet(out).columns[-3:] == ["prob_long_view", "pred_watch_s", "pred_stars"]


@pytest.mark.slow
def test_cpp_answers_with_what_each_head_gives(program, data, tmp_path):  # noqa: F811
    trained = made(KINDS["written by hand"](), data)
    save_script(trained.twin(trained.columns()), tmp_path / "model.pt")
    raw = rows_of(trained, data)
    (answer,) = run(program, tmp_path, [parity.request_of(raw, trained.reads)])
    assert_right(dict(answer), answers(trained, raw))


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory) -> Path:
    """A run of some steps and its export."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "arm.json").write_text(json.dumps(to_dict(tiny(parts.poso(valued_base())))))
    command = ["train", "--config", str(folder / "arm.json"), "--data", str(data.path), "--out", str(folder / "run")]
    assert main([*command, "--set", "train.steps=20"]) == 0
    assert main(["export", "--run", str(folder / "run"), "--out", str(folder / "export")]) == 0
    return folder


def test_the_signature_says_what_is_given(folder):
    outputs = json.loads((folder / "export" / "signature.json").read_text())["outputs"]
    assert [(o["name"], o["task"], o["gives"], o["column"], o["meaning"]) for o in outputs] == [
        ("long_view", "long_view", "probability", "prob_long_view", "probability of long_view"),
        ("watch_s", "watch_s", "value", "pred_watch_s", "value of watch_s"),
        ("stars", "stars", "expected level", "pred_stars", "expected level of stars"),
    ]


def test_parity_is_measured_for_every_head(folder):
    told = json.loads((folder / "export" / "parity.json").read_text())
    assert list(told["largest_difference_by_task"]) == list(TASKS) and 0 < told["largest_difference"] < 1e-5
    of = {
        task: [m for m in metrics if not m.endswith(("_trained", "_change"))]
        for task, metrics in told["metrics"].items()
    }
    assert of == {"long_view": ["auc", "gauc"], "watch_s": ["xauc", "mae"], "stars": ["xauc", "mae"]}
    assert told["metrics"]["watch_s"]["mae"] == pytest.approx(told["metrics"]["watch_s"]["mae_trained"], rel=1e-5)


def test_score_writes_the_column_of_each_head(folder, data, tmp_path):
    for name, columns in {"y": [], "unlabelled": ["label_watch_s", "label_stars", "label_long_view"]}.items():
        pl.read_parquet(data.files(("test",))[0]).drop(columns).write_parquet(tmp_path / "x.parquet")
        command = ["score", "--artifact", str(folder / "export"), "--input", str(tmp_path / "x.parquet")]
        assert main([*command, "--out", str(tmp_path / f"{name}.parquet")]) == 0
    evaluated = pl.read_parquet(folder / "run" / "predictions-test.parquet")
    scored = pl.read_parquet(tmp_path / "y.parquet")
    kinds = lambda frame: {n: k for n, k in frame.schema.items() if n.startswith(("label_", "prob_", "pred_"))}
    assert kinds(scored) == kinds(evaluated) and len(kinds(scored)) == 6
    order = ["time", "user_id", "item_id"]
    scored, evaluated = scored.sort(order), evaluated.sort(order)
    for name in kinds(scored):
        if name.startswith("label_"):
            assert scored[name].equals(evaluated[name])
        else:
            np.testing.assert_allclose(scored[name], evaluated[name], rtol=2e-5, atol=1e-6)
    assert list(kinds(pl.read_parquet(tmp_path / "unlabelled.parquet"))) == [
        "prob_long_view",
        "pred_watch_s",
        "pred_stars",
    ]


def test_score_of_no_rows_has_the_columns_and_types(folder, data, tmp_path):
    frame = pl.read_parquet(data.files(("test",))[0])
    written = []
    for rows in (0, 5):
        frame.head(rows).write_parquet(tmp_path / "x.parquet")
        command = ["score", "--artifact", str(folder / "export"), "--input", str(tmp_path / "x.parquet")]
        assert main([*command, "--out", str(tmp_path / f"{rows}.parquet")]) == 0
        written.append(pl.read_parquet(tmp_path / f"{rows}.parquet"))
    assert written[0].schema == written[1].schema and [len(w) for w in written] == [0, 5]


@pytest.mark.tried("exports", "`score` with an export of before tasks had heads", "probabilities, in prob_<task>")
def test_an_export_without_columns_in_its_signature_is_scored(data, tmp_path):
    config = replace(valued_base(), tasks={"long_view": Binary()})
    exported(random_model(config, data), tmp_path / "export")
    told = json.loads((tmp_path / "export" / "signature.json").read_text())
    for output in told["outputs"]:
        del output["gives"], output["column"]
    (tmp_path / "export" / "signature.json").write_text(json.dumps(told))
    write_digests(tmp_path / "export")
    command = ["score", "--artifact", str(tmp_path / "export"), "--input", str(data.files(("test",))[0])]
    assert main([*command, "--out", str(tmp_path / "y.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "y.parquet")["prob_long_view"].is_between(0, 1).all()


@pytest.mark.tried(
    "exports", "a value beyond 1 that differs in the last digits of float32", "no difference: as a share"
)
def test_a_difference_of_values_is_a_share_of_them():
    wanted = torch.tensor([0.25, -0.5, 4.0, -4000.0])
    given = wanted + torch.tensor([1e-3, -1e-3, 4e-3, 4.0])
    torch.testing.assert_close(parity.difference_of(given, wanted), torch.full((4,), 1e-3), rtol=1e-3, atol=0)


@pytest.mark.tried("exports", "smaller tables that lose 0.1 points of XAUC", "refused, the task named")
@pytest.mark.tried("exports", "smaller tables of a task that has neither GAUC nor XAUC", "refused, unless --allow-loss")
def test_smaller_tables_are_judged_by_what_a_task_has():
    change = lambda **metrics: {"watch_s": {f"{m}_change": value for m, value in metrics.items()}}
    parity.check_loss(change(xauc=-0.0009, mae=5.0), "--tables int8")
    parity.check_loss(change(xauc=None), "--tables int8")
    with pytest.raises(UserError, match="--tables int8: loses 0.110 points of XAUC of watch_s, more than 0.1; --allow"):
        parity.check_loss(change(xauc=-0.0011), "--tables int8")
    with pytest.raises(UserError, match="watch_s is judged by neither GAUC nor XAUC, so its loss is unknown; --allow"):
        parity.check_loss(change(mae=0.0), "--tables int8")


@pytest.mark.tried("exports", "a model that answers NaN for a task of numbers", "refused, the task named")
def test_a_value_that_is_no_number_is_refused():
    right = pl.DataFrame({"prob_like": [0.5, 0.5], "pred_watch_s": [7.0, 900.0]})
    wrong = right.with_columns(pred_watch_s=pl.Series([7.0, float("inf")]))
    parity.check_finite(parity.Both({}, right, right), "run")
    with pytest.raises(UserError, match="run: the exported model gives 1 of 2 rows no number for watch_s"):
        parity.check_finite(parity.Both({}, right, wrong), "run")


def test_the_two_tower_model_gives_inner_products():
    from coldrank.serving.export.signature import signature

    (output,) = signature((), {"like": Binary()}, {}, 0.1)["outputs"]
    assert (output["gives"], output["column"]) == ("inner product", "prob_like")
    (output,) = signature((), {"watch_s": Regression()}, {})["outputs"]
    assert (output["gives"], output["column"]) == ("value", "pred_watch_s")
