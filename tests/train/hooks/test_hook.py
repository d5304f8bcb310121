"""Hooks join a run where they say, in the order of the config, and their state is in its checkpoints."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from periods import write_periods
from tiny import sample_base
from torch import nn

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train import checks
from coldrank.train.config import to_dict
from coldrank.train.hooks.hook import Hook, HookModule, Rest
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.overrides import override
from coldrank.train.run import build
from coldrank.train.trainer import train

CALLS: list[str] = []


class ScaleModule(HookModule):
    """Multiplies the static embedding by a weight that begins at 1, and counts steps."""

    micro_batches = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def embed(self, batch, embedded):
        CALLS.append(f"{self.name} embed")
        return {name: x * self.weight if x.dim() == 2 else x for name, x in embedded.items()}

    def dense(self, rest, batch, embedded):
        CALLS.append(f"{self.name} dense")
        return rest(batch, embedded)

    def before_step(self, run, taken):
        CALLS.append(f"{self.name} before {taken.batches}")

    def after_step(self, run):
        self.steps += 1

    def begins(self, run, stage, progress):
        CALLS.append(f"{self.name} begins {stage.name}")

    def ends(self, run, stage, progress):
        CALLS.append(f"{self.name} ends {stage.name} {progress.step}")


@dataclass(kw_only=True, slots=True)
class One(Hook):
    def build(self, config, features):
        return ScaleModule("one")


@dataclass(kw_only=True, slots=True)
class Two(Hook):
    def build(self, config, features):
        return ScaleModule("two")


class CountModule(HookModule):
    """Counts the ends that it is told of."""

    def __init__(self):
        super().__init__()
        self.register_buffer("ended", torch.zeros((), dtype=torch.int64))

    def ends(self, run, stage, progress):
        self.ended += 1


@dataclass(kw_only=True, slots=True)
class Count(Hook):
    def build(self, config, features):
        return CountModule()


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def with_hooks(*names: str, **train_fields: object):
    plain, by_name = sample_base(), {"one": One(), "two": Two()}
    hooks = tuple(by_name[name] for name in names)
    return replace(plain, hooks=hooks, train=replace(plain.train, **train_fields))


def test_hooks_are_called_in_their_order(data, ranks, tmp_path):
    train(with_hooks("two", "one", steps=1), data, tmp_path / "run", ranks, fresh=False, diff="")
    assert CALLS[:2] == ["two begins 2022-05-01", "one begins 2022-05-01"]
    assert CALLS[-2:] == ["two dense", "one dense"] and "one ends 2022-05-01 1" in CALLS
    del CALLS[:2]
    first = ["two before 1", "one before 1", "two embed", "one embed", "two dense", "one dense"]
    assert CALLS[:6] == first
    assert "two before 2" not in CALLS
    assert CALLS[6:8] == ["two ends 2022-05-01 1", "one ends 2022-05-01 1"]
    assert CALLS[8:12] == first[2:]  # the evaluation


def test_neutral_hooks_change_nothing_at_first_and_train_with_the_rest(data, ranks, tmp_path):
    rows = [
        train(
            with_hooks(*names, steps=2, log_every=1),
            data,
            tmp_path / "-".join(("run", *names)),
            ranks,
            fresh=False,
            diff="",
        )
        for names in ((), ("one",))
    ]
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("run", "run-one")]
    assert logs[0][0] == logs[1][0]
    assert rows[0] != rows[1]


def test_a_checkpoint_holds_parameters_and_buffers(data, ranks, tmp_path):
    wanted = with_hooks("one", steps=3)
    train(wanted, data, tmp_path / "run", ranks, fresh=False, diff="")
    run = build(wanted, data, ranks)
    run.load(tmp_path / "run" / "checkpoints", {})
    (hook,) = run.hooks
    assert isinstance(hook, ScaleModule)
    assert hook.steps == 3
    assert hook.weight != 1


def test_hooks_know_of_periods(ranks, tmp_path):
    days = ["2022-05-01", "2022-05-02"]
    stream = DataFolder.open(write_periods(tmp_path / "d", days))
    train(with_hooks("one", mode="periods"), stream, tmp_path / "run", ranks, fresh=False, diff="")
    told = [call for call in CALLS if "begins" in call or "ends" in call]
    assert [call.rsplit(" ", 1)[0] if "ends" in call else call for call in told] == [
        f"one {what} {day}" for day in days for what in ("begins", "ends")
    ]


def ended(config, data, folder, ranks):
    """What the last checkpoint holds of the hook."""
    run = build(config, data, ranks)
    run.load(folder / "checkpoints", {})
    return int(run.hooks[0].ended)


@pytest.mark.tried(
    "hooks", "a hook that changes its state at a period's end", "that checkpoint has it; once, resumed or not"
)
def test_what_a_hook_makes_at_an_end_is_in_that_checkpoint(data, ranks, tmp_path):
    config = replace(with_hooks(), hooks=(Count(),))
    for steps, ends in ((2, 1), (2, 1), (4, 2)):
        config = replace(config, train=replace(config.train, steps=steps))
        train(config, data, tmp_path / "passes", ranks, fresh=False, diff="")
        assert ended(config, data, tmp_path / "passes", ranks) == ends
    days = ["2022-05-01", "2022-05-02", "2022-05-03"]
    stream = DataFolder.open(write_periods(tmp_path / "d", days))
    for steps, ends in ((4, 1), (0, 3), (0, 3)):  # 3 steps a period: the first time it stops inside of the second
        config = replace(config, train=replace(config.train, mode="periods", steps=steps))
        train(config, stream, tmp_path / "run", ranks, fresh=False, diff="")
        assert ended(config, stream, tmp_path / "run", ranks) == ends


def test_a_hook_is_there_once():
    with pytest.raises(UserError, match="'one' is there twice"):
        checks.validate(with_hooks("one", "one"))


def test_a_hook_that_compares_rows_refuses_micro_batches(data, ranks):
    with pytest.raises(UserError, match=r"accumulate=2: hook 'one' compares"):
        build(with_hooks("one", accumulate=2), data, ranks)


@pytest.mark.parametrize("text", ["mwuf,test_hook:One", "[mwuf, test_hook:One]", '["mwuf", "test_hook:One"]'])
def test_hooks_are_set_on_the_command_line(text):
    values = to_dict(with_hooks("one"))
    override(values, f"hooks={text}")
    assert values["hooks"] == {"mwuf": Mwuf().to_json(), "one": {"kind": "test_hook:One"}}


def test_rows_stand_alone_unless_a_hook_or_the_model_compares_them():
    alone, compares = SimpleNamespace(micro_batches=True), SimpleNamespace(micro_batches=False)
    rest = lambda by_rows, *hooks: Rest(None, None, hooks, None, by_rows=by_rows)
    assert rest(True).by_rows and rest(True, alone, alone).by_rows
    assert not rest(True, alone, compares).by_rows and not rest(False, alone).by_rows
    assert not rest(True, alone).around(None).by_rows, "what stands in for the model may compare rows"
