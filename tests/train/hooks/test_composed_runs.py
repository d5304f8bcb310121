"""Hooks in company: every subset in every order is served as it was trained, and resumes."""

from pathlib import Path

import pytest
import torch
from test_composed_hooks import MODELS, NAMES, PAIRS, cases, composed, losses
from tiny import changed

from coldrank.serving.export import parity
from coldrank.serving.export.trained import load_trained
from coldrank.serving.export.write import load_script, save_script
from coldrank.train.distributed.ranks import process_group


def trained(config, data, folder):
    with process_group() as ranks:
        return losses(config, data, folder, ranks)


@pytest.fixture(scope="module")
def run_of(data, tmp_path_factory):
    """model, order -> the folder of a run of four steps, and its losses; trained once."""
    done: dict[tuple[str, tuple[str, ...]], tuple[Path, list[float]]] = {}

    def run(model, order):
        if (model, order) not in done:
            folder = tmp_path_factory.mktemp("run") / "whole"
            done[model, order] = folder, trained(composed(model, order, steps=4), data, folder)
        return done[model, order]

    return run


@pytest.mark.tried("hooks", "every subset of the hooks in every order", "is served as evaluation scores it")
@pytest.mark.parametrize(("model", "order"), cases(PAIRS))
def test_is_served_as_it_was_trained(model, order, run_of, data, tmp_path):
    run = load_trained(run_of(model, order)[0])
    save_script(run.twin(run.columns()), tmp_path / "model.pt")
    with torch.inference_mode():
        both = parity.score_both(run, load_script(tmp_path / "model.pt"), parity.sample(run, data, "test", 200))
    assert both.worst < parity.LIMIT and both.served.height == 200


@pytest.mark.tried(
    "hooks", "a run with every subset of the hooks, stopped", "goes on and ends bit for bit as one not stopped"
)
@pytest.mark.parametrize(("model", "order"), cases((*PAIRS, NAMES)))
def test_a_run_goes_on_where_it_stopped(model, order, run_of, data, tmp_path):
    folder, whole = run_of(model, order)
    for steps in (2, 4):
        parts = trained(composed(model, order, steps=steps), data, tmp_path / "parts")
    assert parts == whole
    files = [(path / "predictions-test.parquet").read_bytes() for path in (folder, tmp_path / "parts")]
    assert files[0] == files[1]


@pytest.mark.tried("hooks", "pam and mwuf together, and each alone", "three answers, none of them another's")
@pytest.mark.parametrize("model", MODELS)
def test_no_order_serves_what_one_of_them_alone_does(model, run_of):
    found = {o: (run_of(model, o)[0] / "predictions-test.parquet").read_bytes() for o in (("pam",), ("mwuf",), *PAIRS)}
    assert len(set(found.values())) == len(found)


@pytest.mark.tried("hooks", "metacf without signals, beside mwuf and pam", "served as evaluated, resumed bit for bit")
@pytest.mark.parametrize("model", MODELS)
def test_negatives_are_served_and_resumed(model, data, tmp_path):
    steps = lambda n: changed(composed(model, NAMES, steps=n), "metacf", signal="none")
    whole = trained(steps(4), data, tmp_path / "whole")
    for n in (2, 4):
        parts = trained(steps(n), data, tmp_path / "parts")
    assert parts == whole
    files = [(tmp_path / name / "predictions-test.parquet").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    run = load_trained(tmp_path / "whole")
    assert (run.task.hooks["metacf"].users.pool_rows >= 0).sum() > 20
    save_script(run.twin(run.columns()), tmp_path / "model.pt")
    with torch.inference_mode():
        both = parity.score_both(run, load_script(tmp_path / "model.pt"), parity.sample(run, data, "test", 200))
    assert both.worst < parity.LIMIT
