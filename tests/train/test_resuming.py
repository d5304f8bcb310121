"""With which other lengths a run goes on."""

import json
from dataclasses import replace

import pytest
from tiny import sample_base, with_optim

from coldrank.configs import base as arms
from coldrank.data.errors import UserError
from coldrank.train import checkpoint
from coldrank.train.config import RunConfig
from coldrank.train.optim.optimizers import Optimizers
from coldrank.train.trainer import train


def config(**changes) -> RunConfig:
    """tiny: 700 rows in 11 steps a pass."""
    base = arms.poso(sample_base())
    optim = {name: changes.pop(name) for name in ("decay", "tables", "warmup_steps") if name in changes}
    return replace(with_optim(base, **optim), train=replace(base.train, **changes))


COSINE = {"decay": "cosine"}
REFUSED = {
    "train.steps raised, rates that decay": (
        {"decay": "linear", "steps": 4},
        {"decay": "linear", "steps": 8},
        r"train\.steps=4 -> train\.steps=8: optim\.decay='linear' is over .*, and .*train\.warm_start=\S+run with",
    ),
    "train.steps lowered, tables' rates that decay": (
        {"tables": COSINE, "steps": 6},
        {"tables": COSINE, "steps": 5},
        "is at step 6 already, and train.steps=5 ends at step 5",
    ),
    "train.steps given up for epochs, tables' rates that decay": (
        {"tables": COSINE, "steps": 4},
        {"tables": COSINE},
        r"train\.steps=4 -> train\.epochs=1: optim\.tables\.decay='cosine' is over",
    ),
    "train.epochs raised, rates that decay": (
        {"decay": "cosine", "epochs": 1},
        {"decay": "cosine", "epochs": 2},
        r"train\.epochs=1 -> train\.epochs=2: optim\.decay='cosine' is over",
    ),
    "train.steps below the steps that are done": (
        {"steps": 6},
        {"steps": 5},
        r"is at step 6 already, and train\.steps=5 ends at step 5; --fresh starts over",
    ),
    "train.epochs below the passes that are done": (
        {"epochs": 2},
        {"epochs": 1},
        r"is at step 22 already, and train\.epochs=1 ends at step 11;",
    ),
    "train.epochs changed in a cold pass": (
        {"epochs": 1, "cold_passes": 1},
        {"epochs": 2, "cold_passes": 1},
        r"train\.epochs: 1 -> 2: the run is in pass 2, and whether that is over new users alone would change",
    ),
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            what, marks=pytest.mark.tried("configs and runs", f"a run that goes on with {what}", "refused by name")
        )
        for what in REFUSED
    ],
)
def test_a_length_that_changes_the_schedule_is_refused(data, ranks, tmp_path, what):
    before, now, message = REFUSED[what]
    out = tmp_path / "run"
    train(config(**before), data, out, ranks, fresh=False, diff="")
    files = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=rf"^{out}: {message}"):
        train(config(**now), data, out, ranks, fresh=False, diff="")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == files


ALLOWED = {
    "constant rates, more steps": ({"steps": 4, "warmup_steps": 6}, {"steps": 8, "warmup_steps": 6}, 8),
    "the same length, rates that decay": ({"decay": "linear", "steps": 4}, {"decay": "linear", "steps": 4}, 4),
    "epochs that train.steps overrules": (
        {"decay": "linear", "steps": 4},
        {"decay": "linear", "steps": 4, "epochs": 3},
        4,
    ),
    "more epochs before a cold pass": ({"steps": 4, "cold_passes": 1}, {"cold_passes": 1, "epochs": 2}, None),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_leaves_the_steps_so_far_as_they_were_may_change(data, ranks, tmp_path, monkeypatch, what):
    before, now, steps = ALLOWED[what]
    out, seen = tmp_path / "run", []
    begin = Optimizers.begin_step

    def noted(optimizers, step, total):
        begin(optimizers, step, total)
        seen.append(optimizers.parts[1].optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Optimizers, "begin_step", noted)
    train(config(**before), data, out, ranks, fresh=False, diff="")
    train(config(**now), data, out, ranks, fresh=False, diff="")
    if steps:
        assert checkpoint.steps(out / "checkpoints")[-1] == steps
    if what == "constant rates, more steps":
        full = config().optim.dense.lr
        assert seen == pytest.approx([full * min(1, n / 6) for n in range(1, 9)])
    assert json.loads((out / "run.json").read_text())["finished"]


@pytest.mark.parametrize(("ranks_before", "batches", "left"), [(1, 3, 8), (2, 3, 5), (3, 3, 2), (4, 3, 0)])
def test_the_place_in_a_pass_is_that_of_the_ranks_that_there_were(data, ranks, tmp_path, ranks_before, batches, left):
    """Of 11 batches of a pass on one rank, three that each of several ranks had taken are as many times three."""
    out = tmp_path / "run"
    train(config(steps=batches), data, out, ranks, fresh=False, diff="")
    told = out / f"checkpoints/step-{batches}/progress.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"world_size": ranks_before}))
    train(config(), data, out, ranks, fresh=False, diff="")
    facts = json.loads((out / "run.json").read_text())
    assert facts["steps"] == batches + left and facts["samples"] == 700
