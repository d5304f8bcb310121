"""The pipeline trains as the plain loop does, bit for bit, and its stream stands where training stands."""

import itertools
from dataclasses import replace

import pytest
import torch
from tiny import sample_base, with_optim

from coldrank.configs import base as arms
from coldrank.data.batches import batches
from coldrank.data.read import SampleReader
from coldrank.train import checkpoint
from coldrank.train.config import RunConfig
from coldrank.train.stepping import Taken, one_by_one, pipelined
from coldrank.train.trainer import train

CONFIG = arms.poso(sample_base())
CONFIG = replace(CONFIG, model=replace(CONFIG.model, dropout=0.2))


def with_train(**fields: object) -> RunConfig:
    return replace(CONFIG, train=replace(CONFIG.train, **fields))


def test_pipelined_runs_end_as_plain_ones_and_resume_exactly(data, ranks, tmp_path):
    fields = {"epochs": 1, "cold_passes": 1, "cold_trains": "gates", "log_every": 3}
    results = {}
    for name, pipeline in (("off", "off"), ("on", "on"), ("cut", "on")):
        out = tmp_path / name
        if name == "cut":  # stops after a checkpoint in the middle of the first pass, two batches read ahead
            train(with_train(**fields, pipeline=pipeline, steps=6), data, out, ranks, fresh=False, diff="")
            assert checkpoint.steps(out / "checkpoints") == [6]
        train(with_train(**fields, pipeline=pipeline), data, out, ranks, fresh=False, diff="")
        lines = (out / "metrics.jsonl").read_text().splitlines()
        results[name] = [x for x in lines if '"fit"' in x and "samples_per_second" not in x]
        results[name].append((out / "predictions-test.parquet").read_bytes())
    assert results["on"] == results["off"]
    assert results["cut"] == results["off"]


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_runs_with_other_table_optimizers_resume_exactly(data, ranks, tmp_path, optimizer):
    scores = []
    for name, stops in (("whole", (6,)), ("cut", (3, 6))):
        for steps in stops:
            config = with_optim(with_train(steps=steps), tables={"kind": optimizer, "lr_scale": {"user": 0.5}})
            train(config, data, tmp_path / name, ranks, fresh=False, diff="")
        scores.append((tmp_path / name / "predictions-test.parquet").read_bytes())
    assert scores[0] == scores[1]


def test_the_stream_is_read_ahead_of_the_steps_and_not_of_what_is_yielded(data, ranks, fitted):
    losses = {}
    for how in (one_by_one, pipelined):
        run = fitted(CONFIG)
        reader = SampleReader(data.files(("train",)), run.make.columns(), 50)
        begun: list[int] = []
        taken: list[int] = []
        with batches(reader, run.make, 2) as source:

            def stream(source=source, taken=taken):
                for n, batch in enumerate(itertools.islice(source, 5), 1):
                    taken.append(n)
                    yield Taken(batch, 0, n)

            def begin(batch: Taken, run=run, begun=begun) -> None:
                begun.append(batch.batches)
                run.optimizers.begin_step(batch.batches - 1, 5)

            torch.manual_seed(0)
            steps = how(run.model, stream(), ranks.device, begin, run.optimizers.end_step)
            losses[how] = []
            for done, outputs in steps:
                losses[how].append(outputs.loss.item())
                assert done.batches == begun[-1] == len(losses[how])
                assert len(taken) == (min(5, done.batches + 2) if how is pipelined else done.batches)
        assert begun == [1, 2, 3, 4, 5]
    assert losses[one_by_one] == losses[pipelined]
