"""The served model of an arm with features of every kind: as trained, eager and scripted, and what it refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path

import kinds
import pytest
import torch
from served import random_model, request_of, rows_of
from test_triton import padded
from torch import Tensor

from coldrank.data.batches import DataFolder
from coldrank.serving.export import parity
from coldrank.serving.export.aoti import by_user, load_package, write_package
from coldrank.serving.export.signature import signature
from coldrank.serving.export.trained import Trained
from coldrank.serving.export.triton import config as triton_config
from coldrank.serving.export.triton import write_repository
from coldrank.serving.export.write import load_script, save_script
from coldrank.serving.update import delta
from coldrank.train.config import RunConfig
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam

Request = dict[str, Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return kinds.prepared(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def trained(data: DataFolder) -> Trained:
    return random_model(kinds.base(), data)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("make", [kinds.base, kinds.poso])
def test_the_served_model_answers_as_the_trained_one(make, traced: bool, data: DataFolder, tmp_path: Path):
    trained = random_model(make(), data)
    raw = rows_of(trained, data)
    twin = trained.twin(trained.columns(), traced=traced)
    save_script(twin, tmp_path / "model.pt")
    for model in (twin, load_script(tmp_path / "model.pt")):
        assert parity.score_both(trained, model, raw).worst < parity.LIMIT
        for rows in ([3], [4, 0, 4, 9], []):
            once = model(request_of(trained, raw, 7, rows))
            each = model(request_of(trained, raw, 7, rows, once=False))
            torch.testing.assert_close(once, each, rtol=0, atol=1e-6)
    assert trained.scores(raw).std() > 0.01


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(kinds.two_towers, id="two towers"),
        pytest.param(lambda: kinds.with_hook(Mwuf(max_views=9, users=4)), id="MWUF"),
        pytest.param(lambda: kinds.with_hook(Pam(cuts=(5, 10, 20))), id="PAM"),
    ],
)
def test_towers_and_hooks_read_them_as_embeddings(make: Callable[[], RunConfig], data: DataFolder):
    trained = random_model(make(), data)
    served = torch.jit.script(trained.twin(trained.columns()))
    assert parity.score_both(trained, served, rows_of(trained, data)).worst < parity.LIMIT


def changed(request: Request, name: str, values: list[float], lengths: list[int] | None = None) -> Request:
    new = {name: torch.tensor(values, dtype=request[name].dtype)}
    return request | new | ({f"{name}.lengths": torch.tensor(lengths)} if lengths is not None else {})


def request_with(trained: Trained, data: DataFolder) -> Request:
    return request_of(trained, rows_of(trained, data), 7, [3, 4])


NAN, INF = float("nan"), float("inf")
WRONG: list[tuple[str, Callable[[Request], Request], str]] = [
    (
        "a vector of another length",
        lambda r: changed(r, "item_emb", [1.0] * 7, [4, 3]),
        "input 'item_emb' has a vector of 3 numbers; must have 4, or none",
    ),
    (
        "a vector with NaN",
        lambda r: changed(r, "query", [1.0, NAN, 2.0], [3]),
        "input 'query' has a number that is NaN or infinite; leave the list empty instead",
    ),
    (
        "a vector with an infinite number",
        lambda r: changed(r, "item_emb", [1.0, 0, INF, 2], [0, 4]),
        "input 'item_emb' has a number that is NaN or infinite",
    ),
    (
        "hours of a history of another length than its ids",
        lambda r: changed(r, "hist_clicks_hours", [1.0], [1]),
        "differs from 'hist_clicks_item_id.lengths'",
    ),
    (
        "a weight that is NaN",
        lambda r: changed(changed(r, "mood", [1, 2], [2]), "mood_weights", [1.0, NAN], [2]),
        "input 'mood_weights' has a number that is NaN or infinite",
    ),
    (
        "more weights than ids",
        lambda r: changed(changed(r, "mood", [1], [1]), "mood_weights", [1.0, 2.0], [2]),
        "'mood_weights.lengths' differs from 'mood.lengths'",
    ),
    ("a vector that is missing as an input", lambda r: {n: x for n, x in r.items() if n != "query"}, "'query' is miss"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [pytest.param(*r, marks=pytest.mark.tried("requests", given, "refused by name")) for given, *r in WRONG],
)
def test_what_is_wrong_is_refused_by_name(change, message: str, trained: Trained, data: DataFolder):
    twin = trained.twin(trained.columns())
    request = request_with(trained, data)
    twin(request)
    with pytest.raises(Exception, match=message):
        twin(change(request))
    with pytest.raises(Exception, match=message):
        torch.jit.script(twin)(change(request))


@pytest.mark.tried("requests", "a vector of no numbers; hours that are NaN or infinite", "as missing")
def test_what_is_missing_is_read_as_in_training(trained: Trained, data: DataFolder):
    twin = trained.twin(trained.columns())
    request = changed(request_with(trained, data), "hist_clicks_item_id", [1, 2, 3], [3])
    missing = changed(changed(request, "query", [], [0]), "hist_clicks_hours", [NAN, 5.0, NAN], [3])
    infinite = changed(missing, "hist_clicks_hours", [INF, 5.0, -INF], [3])
    wider = {n: x.double() if x.is_floating_point() else x for n, x in missing.items()}
    for other in (infinite, wider):
        assert torch.equal(twin(other)["click"], twin(missing)["click"])
    assert not torch.equal(twin(changed(missing, "query", [0.0] * 3, [3]))["click"], twin(missing)["click"])


def test_the_signature_tells_widths(trained: Trained):
    twin = trained.twin(trained.columns())
    told = {i["name"]: i for i in signature(twin.inputs, trained.config.tasks, {})["inputs"]}
    assert told["item_emb"] == told["item_emb"] | {"dtype": "float32", "default": [], "width": 4, "finite": True}
    assert told["item_emb"]["per"] == "candidate" and told["query"]["width"] == 3 and told["query"]["per"] == "request"
    assert told["item_tags_weights"] == told["item_tags_weights"] | {"like": "item_tags", "finite": True}
    hours = told["hist_clicks_hours"]
    assert hours["dtype"] == "float32" and hours["sequence"] == "clicks" and "width" not in hours
    assert 'name: "item_emb"\n    data_type: TYPE_FP32\n    dims: [-1, -1]' in triton_config(twin.inputs, ["a"], 4, 5)


def test_requests_are_answered_padded(trained: Trained, data: DataFolder, tmp_path: Path):
    twin, raw = trained.twin(trained.columns()), rows_of(trained, data)
    write_repository(twin, tmp_path)
    model = load_script(tmp_path / "coldrank/1/model.pt")
    requests = [request_of(trained, raw, user, [user, 1, 2]) for user in (5, 6, 7, 8)]
    sent = padded(requests, twin)
    given, status = model(sent)
    wanted = torch.stack([twin(r)["click"] for r in requests]).unsqueeze(2)
    assert status.flatten().tolist() == [0] * 4
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-6)
    names = [e["name"] for e in signature(twin.inputs, trained.config.tasks, {})["inputs"]]
    wrong = {n: x.clone() for n, x in sent.items()}
    wrong["query.lengths"][0] = 2
    wrong["item_emb"][1, 2], wrong["item_emb.lengths"][1, 2] = NAN, 4
    given, status = model(wrong)
    at = [names.index(name) + 1 for name in ("query.lengths", "item_emb")]
    assert status.flatten().tolist() == [*at, 0, 0] and given[:2].isnan().all()
    torch.testing.assert_close(given[2:], wanted[2:], rtol=0, atol=1e-6)


def test_a_delta_carries_what_vectors_go_through(data: DataFolder, tmp_path: Path):
    trained = random_model(kinds.base(), data)
    request = request_with(trained, data)
    before = trained.twin(trained.columns())
    save_script(before, tmp_path / "model.pt")
    served = load_script(tmp_path / "model.pt")
    with torch.no_grad():
        trained.task.projected.vectors["item_emb"].weight[2] += 1
        trained.encoder.of_floats["hours"].standardize.moments += 1
        trained.encoder.buckets["hours_bucket"].edges += 1
    after = trained.twin(trained.columns())
    changes = delta(before.state, before.version, after.state, after.version)
    assert len([name for name in changes if name.startswith("rows:")]) == 3
    served.update(changes)
    assert torch.equal(served(request)["click"], after(request)["click"])
    assert not torch.equal(after(request)["click"], before(request)["click"])


@pytest.mark.slow
def test_a_compiled_package_answers_as_the_trained_model(trained: Trained, data: DataFolder, tmp_path: Path):
    if shutil.which("g++") is None:
        pytest.skip("no g++ here, which compiling needs")
    raw, twin = rows_of(trained, data, 60), trained.twin(trained.columns())
    write_package(twin, tmp_path)
    served = load_package(tmp_path)
    both = parity.score_both(trained, by_user(served, [i.name for i in twin.inputs]), raw)
    assert both.worst < 3e-6  # compiled for the machine's own instructions
    for candidates in ([], [3], list(range(50))):
        request = request_of(trained, raw, 7, candidates)
        torch.testing.assert_close(dict(served(request)), twin(request), rtol=0, atol=1e-6)
