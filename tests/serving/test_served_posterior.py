"""The posterior in the served model: by hand and traced as trained, and what a delta carries."""

from pathlib import Path

import pytest
import torch
from served import CONFIGS, random_model, request_of, rows_of

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.serving.export import parity
from coldrank.serving.export.write import load_script, save_script
from coldrank.serving.update import delta


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", ["base_posterior", "poso_posterior_growing"])
def test_the_served_model_answers_as_the_trained_one(name: str, traced: bool, data: DataFolder, tmp_path: Path):
    trained = random_model(CONFIGS[name](), data)
    raw = rows_of(trained, data)
    twin = trained.twin(trained.columns(), traced=traced)
    save_script(twin, tmp_path / "model.pt")
    for model in (twin, load_script(tmp_path / "model.pt")):
        assert parity.score_both(trained, model, raw).worst < 1e-6
        once = model(request_of(trained, raw, 7, [4, 0, 4, 9]))
        each = model(request_of(trained, raw, 7, [4, 0, 4, 9], once=False))
        torch.testing.assert_close(once, each, rtol=0, atol=1e-6)


@pytest.mark.parametrize("role", ["item", "user"])
def test_ids_with_few_views_and_no_event_have_the_prior_s_mean(role: str, data: DataFolder):
    """A prior that is far off moves their answers, and no other's."""
    trained = random_model(CONFIGS["base_posterior"](), data)
    raw, ids = rows_of(trained, data), trained.task.hooks["posterior"].in_order[role]
    scores = []
    for offset in (0.0, -0.5):
        ids.weight[-1] += offset
        scores.append(trained.twin(trained.columns())(parity.request_of(raw, trained.reads))["like"])
    views = torch.from_numpy(raw[f"{role}_views"])
    rows = trained.encoder.maps[role](torch.from_numpy(raw[f"{role}_id"]))
    known = (ids.begun | ids.trained)[rows]
    moved, new = scores[0] != scores[1], (views <= 99) & ~known
    # Where the network is flat, an answer may stay.
    assert not moved[~new].any() and moved[new].float().mean() > 0.7
    assert 0 < new.sum() < len(views)


def test_before_the_first_fit_the_tables_are_read(data: DataFolder):
    trained = random_model(CONFIGS["base_posterior"](), data)
    raw = rows_of(trained, data)
    for ids in trained.task.hooks["posterior"].in_order.values():
        ids.precision.zero_()
    twin = trained.twin(trained.columns())
    assert parity.score_both(trained, twin, raw).worst < 1e-6
    plain = trained.task.hooks.pop("posterior")
    assert plain is not None
    torch.testing.assert_close(
        torch.stack(list(twin(parity.request_of(raw, trained.reads)).values()), 1),
        trained.scores(raw),
        rtol=0,
        atol=1e-6,
    )


def test_a_delta_carries_the_rows_that_changed(data: DataFolder, tmp_path: Path):
    trained = random_model(CONFIGS["base_posterior"](), data)
    chosen = trained.columns()
    before = trained.twin(chosen)
    save_script(before, tmp_path / "model.pt")
    ids = trained.task.hooks["posterior"].in_order["item"]
    new = (~(ids.begun | ids.trained)).nonzero().squeeze(1)[:2]
    ids.begun[new] = True
    trained.task.embeddings.ebc.embedding_bags["item"].weight.data[new] += 1
    after = trained.twin(chosen)
    changes = delta(before.state, before.version, after.state, after.version)
    (known,) = [n for n in changes if n.startswith("rows:") and n.endswith("known")]
    assert torch.equal(changes[known], new)
    served = load_script(tmp_path / "model.pt")
    served.update(changes)
    request = request_of(trained, rows_of(trained, data), 3, [5, 0, 17])
    assert served(request)["like"].tolist() == after(request)["like"].tolist()


def test_the_prior_s_inputs_belong_to_the_id(data: DataFolder):
    trained = random_model(CONFIGS["base_posterior"](), data)
    with pytest.raises(UserError, match="item_id: its prior is of what differs between candidates; so must this"):
        trained.twin(trained.columns(["-item_id"]))
