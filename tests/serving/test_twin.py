"""The served model equals the trained one, however the request is laid out."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from served import CONFIGS, random_model, request_of, rows_of
from tiny import changed

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.serving.export import parity
from coldrank.serving.export.write import load_script, save_script
from coldrank.serving.tables import StoredRows
from coldrank.serving.twin import Twin

CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.mark.parametrize("name", CONFIGS)
def test_twin_equals_training_eager_and_scripted(name: str, data: DataFolder, tmp_path: Path):
    trained = random_model(CONFIGS[name](), data)
    raw = rows_of(trained, data)
    twin = trained.twin(trained.columns())
    save_script(twin, tmp_path / "model.pt")
    served = load_script(tmp_path / "model.pt")
    request = parity.request_of(raw, [i.name for i in twin.inputs])
    wanted = trained.scores(raw)
    for model in (twin, served, torch.jit.freeze(served.eval())):
        given = model(request)
        assert list(given) == trained.tasks
        torch.testing.assert_close(torch.stack(list(given.values()), 1), wanted, **CLOSE)
    assert wanted.std(0).min() > 0.001
    for hook in list(trained.task.hooks):
        del trained.task.hooks[hook]
        assert (trained.scores(raw) - wanted).abs().max() > 100 * CLOSE["atol"], hook


@pytest.mark.parametrize("name", CONFIGS)
def test_a_user_given_once_scores_as_one_given_for_every_candidate(name: str, data: DataFolder):
    trained = random_model(CONFIGS[name](), data)
    raw = rows_of(trained, data)
    twin = trained.twin(trained.columns())
    user, candidates = 3, [5, 0, 17, 17, 100]
    once = twin(request_of(trained, raw, user, candidates))
    times = twin(request_of(trained, raw, user, candidates, once=False))
    for task in trained.tasks:
        assert once[task].shape == (5,)
        torch.testing.assert_close(once[task], times[task], **CLOSE)


def test_several_users_with_candidates_each_score_as_alone(data: DataFolder):
    trained = random_model(CONFIGS["poso"](), data)
    raw = rows_of(trained, data)
    twin = trained.twin(trained.columns())
    requests = [request_of(trained, raw, user, rows) for user, rows in ((1, [2, 3, 4]), (9, [4, 5, 6]))]
    together = {name: torch.cat([r[name] for r in requests]) for name in requests[0]}
    alone = [twin(r) for r in requests]
    for task, given in twin(together).items():
        torch.testing.assert_close(given, torch.cat([a[task] for a in alone]), **CLOSE)


def test_a_shared_vocabulary_is_held_once_and_lookups_write_nothing(data: DataFolder):
    config = CONFIGS["base"]()
    tables = tuple(replace(t, mapping="vocabulary") for t in config.tables)
    trained = random_model(replace(config, tables=tables), data)
    twin = trained.twin(trained.columns())
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    request = request_of(trained, rows_of(trained, data), 0, [0] * 5000)
    twin(request)
    assert all(torch.equal(before[name], value) for name, value in twin.state_dict().items())
    assert [value.shape[0] for name, value in before.items() if name.endswith("map.keys")] == [63 + 71 + 31]


def test_quantized_rows_are_within_half_a_step():
    table = torch.randn(50, 6) * torch.logspace(-4, 2, 50).unsqueeze(1)
    table[7] = 0.25
    rows = torch.arange(51)
    whole = torch.cat([table, torch.zeros(1, 6)])
    torch.testing.assert_close(StoredRows([table], "float32")(rows, rows), whole)
    torch.testing.assert_close(StoredRows([table], "float16")(rows, rows), whole, rtol=1e-3, atol=1e-7)
    spread = (whole.amax(1) - whole.amin(1)).unsqueeze(1)
    rounding = whole.abs().amax(1, keepdim=True) * 2**-10 + 1e-6  # step and low are in float16
    assert ((StoredRows([table], "int8")(rows, rows) - whole).abs() <= spread / 510 + rounding).all()
    assert torch.equal(StoredRows([table], "int8")(rows, rows)[50], torch.zeros(6))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("base_metacf", "user_id", "user_id: goes with the history, which is given once per request"),
        ("base_metacf", "user_views", "user_views: goes with the history"),
        ("base_mwuf", "-item_id", "item_id: is warmed up by what differs between candidates; so must this"),
    ],
)
def test_a_hook_s_inputs_belong_together(name: str, change: str, message: str, data: DataFolder):
    trained = random_model(CONFIGS[name](), data)
    with pytest.raises(UserError, match=f"--candidate: {message}"):
        trained.twin(trained.columns([change]))


def test_an_item_given_once_is_warmed_up_once(data: DataFolder):
    trained = random_model(CONFIGS["base_mwuf"](), data)
    raw = rows_of(trained, data)
    twin = trained.twin(trained.columns(["-item_id", "-item_tags", "-item_views"]))
    given = twin(parity.request_of(raw, trained.reads))
    torch.testing.assert_close(torch.stack(list(given.values()), 1), trained.scores(raw), **CLOSE)


def test_adapting_on_labels_is_not_served(data: DataFolder):
    config = CONFIGS["two_tower_pam"]()
    trained = random_model(changed(config, "pam", adapt_on_test_labels=True), data)
    with pytest.raises(UserError, match="adapts on labels that serving does not have"):
        trained.twin(trained.columns())


def test_inputs_say_which_are_the_candidates(data: DataFolder):
    trained = random_model(CONFIGS["base"](), data)
    twin: Twin = trained.twin(trained.columns())
    per = {i.name: i.per for i in twin.inputs}
    assert {n for n, p in per.items() if p == "candidate"} == {"item_id", "item_tags", "item_views"}
    assert trained.columns(["user_gap_h", "-item_views"]) == {
        "item_id",
        "item_tags",
        "user_gap_h",
    }


def test_buckets_are_those_of_training_at_every_edge_and_beside_it(data: DataFolder):
    trained = random_model(CONFIGS["base"](), data)
    features = [f for f in trained.encoder.features.features if f.kind == "bucket" and f.role != "sequence"]
    seen = 0
    for values, side in zip(trained.twin(trained.columns()).core.stage.values, (False, True), strict=True):
        own = [f for f in features if (f.raw_columns[0] in trained.columns()) == side]
        edges = torch.cat([trained.encoder.buckets[f.name].edges for f in own]).to(torch.float32)
        beside = [torch.nextafter(edges, torch.tensor(x)) for x in (-math.inf, math.inf)]
        numbers = torch.cat([edges, *beside, torch.tensor([math.nan, -1e30, 0.0, 1e30])])
        found = values._bucket(numbers.expand(len(own), -1))
        for f, buckets in zip(own, found, strict=True):
            assert buckets.tolist() == trained.encoder.buckets[f.name](numbers).tolist()
            seen += len(trained.encoder.buckets[f.name].edges)
    assert seen > 10
