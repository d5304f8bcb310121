"""What a checkpoint gives back, of small states: tensors by value, progress, generators; which of several it is, and
why not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coldrank.data.errors import UserError
from coldrank.train import checkpoint
from coldrank.train.checkpoint import Saver, State
from coldrank.train.lock import Held
from coldrank.train.progress import Progress

AT = Progress(
    step=30,
    epoch=2,
    batch=7,
    seconds=1.5,
    data="abc",
    pass_done=True,
    period="p3",
    ends={"p1": 4},
    partitions=[{"rows": 9}],
)

UNLOCKED = Held("token", None)


def state(fill: float = 0.0, **more: Tensor) -> State:
    model = {"w": torch.full((2, 3), fill), "b": torch.arange(4.0) * fill} | more
    return {"model": model, "encoder": {"ids": torch.full((5,), int(fill))}, "optimizers": {"state": {}}}


def write(folder: Path, ranks: Any, at: Progress, keep: int = 9, fill: float = 2.0, **more: Tensor) -> None:
    saver = Saver(folder, ranks, keep, UNLOCKED)
    saver.begin(state(fill, **more), {"recent": torch.full((3,), fill)}, at)
    saver.close()


def rewrite(folder: Path, step: int, change: Any) -> None:
    path = folder / f"step-{step}/progress.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def test_it_gives_back_values_progress_and_the_generator(tmp_path, ranks):
    torch.manual_seed(5)
    write(tmp_path, ranks, AT)
    drawn = torch.rand(3)
    found, recent, other = state(), torch.zeros(3), torch.ones(2)
    assert checkpoint.load(tmp_path, found, {"recent": recent, "other": other}, ranks) == AT
    assert torch.equal(found["model"]["w"], torch.full((2, 3), 2.0)) and found["model"]["b"].tolist() == [0, 2, 4, 6]
    assert found["encoder"]["ids"].tolist() == [2] * 5 and recent.tolist() == [2.0] * 3
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(other, torch.ones(2)), "what the checkpoint does not hold of a rank stays"
    told = json.loads((tmp_path / "step-30/progress.json").read_text())
    assert told["shapes"] == {"model.w": [2, 3], "model.b": [4], "encoder.ids": [5]}
    assert {n: (tmp_path / "step-30" / n).stat().st_size for n in told["files"]} == {
        n: size for n, (size, _) in told["files"].items()
    }
    assert sorted(told["files"]) == [".metadata", "__0_0.distcp"]


def test_the_last_few_stay_and_the_last_is_by_number(tmp_path, ranks):
    for step in (2, 9, 10, 11):
        write(tmp_path, ranks, Progress(step=step), keep=3, fill=float(step))
    assert checkpoint.steps(tmp_path) == [9, 10, 11]
    (tmp_path / "step-99").mkdir()  # without progress.json
    (tmp_path / "step-x").mkdir()
    (tmp_path / "step-x/progress.json").write_text("{}")
    assert checkpoint.steps(tmp_path) == [9, 10, 11] and checkpoint.steps(tmp_path / "none") == []
    found = state()
    assert checkpoint.load(tmp_path, found, {}, ranks).step == 11 and found["model"]["w"][0, 0] == 11
    path, shapes = checkpoint.newest(tmp_path, ranks)
    assert path.name == "step-11" and shapes["model.w"] == [2, 3]
    tensors = {"model": {"w": torch.zeros(2, 3)}}
    checkpoint.load_into(path, tensors)
    assert tensors["model"]["w"].tolist() == [[11.0] * 3] * 2


def test_a_saver_removes_what_a_kill_has_left(tmp_path, ranks):
    (tmp_path / "step-4.partial").mkdir()
    Saver(tmp_path, ranks, 1, UNLOCKED)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (state(w=torch.zeros(3, 2)), r"model.w has shape \[2, 3\] in the checkpoint, \[3, 2\] in the model"),
        (state(v=torch.zeros(1)), "model.v is only in the model"),
        (state() | {"encoder": {}}, "encoder.ids is only in the checkpoint"),
        (
            state() | {"optimizers": {"state": {"tables.t.weight": {"t.momentum1": torch.zeros(2)}}}},
            r"step-30: the checkpoint does not fit this model \(.*optimizers.state.tables.t.weight.t.momentum1",
        ),
    ],
)
def test_a_model_of_another_shape_is_refused(tmp_path, ranks, mine, message):
    write(tmp_path, ranks, AT)
    with pytest.raises(UserError, match=f"{message}.*; --fresh starts over"):
        checkpoint.load(tmp_path, mine, {}, ranks)


def test_the_one_before_is_used_where_the_last_does_not_fit(tmp_path, ranks, capfd):
    write(tmp_path, ranks, Progress(step=3))
    write(tmp_path, ranks, Progress(step=6), w=torch.zeros(1))
    assert checkpoint.load(tmp_path, state(), {}, ranks).step == 3
    assert "refused: " in (said := "".join(capfd.readouterr())) and "step-6: the checkpoint does not fit" in said


def test_what_is_loaded_from_must_tell_its_shapes(tmp_path, ranks):
    write(tmp_path, ranks, AT)
    rewrite(tmp_path, 30, lambda told: told.pop("shapes"))
    assert checkpoint.load(tmp_path, state(), {}, ranks) == AT, "a run of before it was told goes on"
    with pytest.raises(UserError, match="step-30: progress.json does not hold the tensors' shapes$"):
        checkpoint.newest(tmp_path, ranks)
    with pytest.raises(UserError, match="none: no checkpoint in it$"):
        checkpoint.newest(tmp_path / "none", ranks)


def test_progress_of_before_there_were_streams_is_read_and_half_of_it_is_not(tmp_path, ranks):
    write(tmp_path, ranks, AT)
    rewrite(tmp_path, 30, lambda told: [told.pop(n) for n in ("pass_done", "period", "ends", "partitions")])
    found = checkpoint.load(tmp_path, state(), {}, ranks)
    assert found == Progress(step=30, epoch=2, batch=7, seconds=1.5, data="abc")
    rewrite(tmp_path, 30, lambda told: told.pop("epoch"))
    path = tmp_path / "step-30/progress.json"
    for content in (path.read_text(), "[]", "3", "{", ""):
        path.write_text(content)
        with pytest.raises(UserError, match=r"step-30: damaged: progress.json cannot be read"):
            checkpoint.load(tmp_path, state(), {}, ranks)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"step-30: damaged: progress.json cannot be read"):
        checkpoint.load(tmp_path, state(), {}, ranks)
