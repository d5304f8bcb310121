"""Runs whose ranks are killed with SIGKILL end as runs that were not.

`make test-kill` kills 30 times (COLDRANK_KILLS) and prints each.
"""

import itertools
import json
import os
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from killing import Kill, Life, draw, live, outcome
from samples import write_samples
from tiny import growing, sample_base

from coldrank.configs import base as arms
from coldrank.models.features import Mapping as IdMapping
from coldrank.train import checkpoint
from coldrank.train.config import to_dict
from coldrank.train.lock import Lock

# (tables, ranks, whether they are killed one at a time) -> kills of a plain test run, and their share of
# COLDRANK_KILLS.
VARIANTS = {
    ("fixed", 1, True): (3, 0.3),
    ("fixed", 2, False): (1, 0.2),
    ("fixed", 2, True): (2, 0.2),
    ("growing", 1, True): (1, 0.1),
    ("growing", 2, True): (1, 0.07),
    ("waiting", 2, True): (1, 0.07),
    ("managed", 2, True): (1, 0.07),
}
# Of growing and managed tables: more than there are users, fewer than there are items.
ROWS = 50
# Tables -> their mapping and other settings.
DYNAMIC: dict[str, tuple[IdMapping, dict[str, object]]] = {
    "growing": ("growing", {}),
    "waiting": ("growing", {"min_count": 5, "admission": "sketch", "counters": 8192}),
    "managed": ("managed", {"min_count": 2, "blocks": 3, "eviction": "distance_lfu"}),
}
KILLS_PER_RUN = 4
EPOCHS, STEPS = 3, {1: 33, 2: 18}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Must hold before the first rank is forked, and a fork of many threads would not."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS"):
            patch.setenv(name, "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Tables -> the command that trains with them."""
    folder = tmp_path_factory.mktemp("killed")
    data = write_samples(folder / "data")
    found = {}
    for tables in ("fixed", *DYNAMIC):
        config = arms.poso(sample_base() if tables == "fixed" else dynamic(*DYNAMIC[tables]))
        # Dropout, a checkpoint that falls between two lines of metrics, and one in the middle of a pass.
        config = replace(config, model=replace(config.model, dropout=0.2))
        config = replace(config, train=replace(config.train, epochs=EPOCHS, log_every=4, checkpoint_every=3))
        (folder / f"{tables}.json").write_text(json.dumps(to_dict(config)))
        found[tables] = ["train", "--config", str(folder / f"{tables}.json"), "--data", str(data)]
    return found


def dynamic(mapping, fields):
    config = growing(ROWS, mapping)
    return replace(config, tables=tuple(replace(t, **fields) for t in config.tables))


@pytest.fixture(scope="module")
def command(commands):
    return commands["fixed"]


def run_on(command, out, notes, ranks, kill) -> Life:
    return live([*command, "--out", str(out)], out, notes, ranks, kill)


@pytest.mark.slow
@pytest.mark.parametrize(("tables", "ranks", "one"), list(VARIANTS))
def test_killed_runs_end_as_one_that_was_not(commands, tmp_path, tables, ranks, one):
    few, share = VARIANTS[tables, ranks, one]
    command = commands[tables]
    wanted = round(share * int(os.environ.get("COLDRANK_KILLS", "0"))) or few
    rng = random.Random(f"{tables} tables, {ranks} ranks")
    whole = run_on(command, tmp_path / "whole", tmp_path / "notes", ranks, None)
    assert whole.codes == [0] * ranks and done(tmp_path / "whole") == STEPS[ranks]
    every_row_once(whole, STEPS[ranks])
    outcome_of_whole, killed, runs = outcome(tmp_path / "whole"), 0, 0
    while killed < wanted:
        runs += 1
        out, lives = tmp_path / f"run-{runs}", []
        kills = min(KILLS_PER_RUN, wanted - killed)
        while not lives or any(lives[-1].codes):
            before = done(out)
            todo = round(whole.operations * (1 - before / STEPS[ranks])) + 12
            kill = draw(rng, ranks, one, todo) if kills else None
            lives.append(run_on(command, out, tmp_path / f"notes-{runs}-{len(lives)}", ranks, kill))
            for rows, expected in zip(lives[-1].trained, whole.trained, strict=True):
                assert rows == expected[before : before + len(rows)], "other rows than a run that was not killed"
            hit = -9 in lives[-1].codes
            assert hit or lives[-1].codes == [0] * ranks, (
                tmp_path / f"notes-{runs}-{len(lives) - 1}/log-0"
            ).read_text()
            killed, kills = killed + hit, kills - hit
            print(
                f"{tables} tables, {ranks} ranks, run {runs}, start {len(lives)}: {kill} -> {state(out, lives[-1])}",
                flush=True,
            )
        same(outcome(out), outcome_of_whole)
    assert killed == wanted


@pytest.mark.slow
def test_both_ranks_stop_at_the_same_step_when_one_is_sent_sigterm(command, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert run_on(command, whole, tmp_path / "notes", 2, None).codes == [0, 0]
    # The second rank's second file operation is in its second checkpoint, at step 6.
    stopped = run_on(command, out, tmp_path / "notes-1", 2, Kill(1, 2, 0.001, signal.SIGTERM))
    assert stopped.codes == [143, 143] and len(stopped.trained[0]) == len(stopped.trained[1]) == done(out) < STEPS[2]
    assert run_on(command, out, tmp_path / "notes-2", 2, None).codes == [0, 0]
    same(outcome(out), outcome(whole))


@pytest.mark.slow
@pytest.mark.tried("ranks", "two ranks on a run folder in use", "all end with the one line that names the holder")
def test_all_ranks_of_a_second_job_are_refused(command, tmp_path):
    out = tmp_path / "run"
    with Lock(out):
        (file,) = (out / "lock").iterdir()
        before = file.read_bytes()
        assert run_on(command, out, tmp_path / "notes", 2, None).codes == [2, 2]
        assert [p for p in out.rglob("*") if p.is_file()] == [file] and file.read_bytes() == before
    for rank in range(2):
        assert f"run: is in use by process {os.getpid()} on" in (tmp_path / f"notes/log-{rank}").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "steps", "passed"), [(2, 6, 1), (2, 8, 1 + 2 / 6), (1, 22, 2)])
def test_a_run_goes_on_at_another_number_of_ranks(command, tmp_path, ranks, steps, passed):
    """It reads what is left of its passes; in the middle of a pass, up to a batch of each rank more or less."""
    out, other = tmp_path / "run", 3 - ranks
    first = run_on([*command, "--set", f"train.steps={steps}"], out, tmp_path / "notes", ranks, None)
    then = run_on(command, out, tmp_path / "notes-1", other, None)
    assert first.codes == [0] * ranks and then.codes == [0] * other
    left = sum(len(batch) for rank in then.trained for batch in rank)
    assert abs(left - 700 * (EPOCHS - passed)) < (1 if passed == int(passed) else 64 * other)
    assert done(out) == steps + len(then.trained[0])


def done(out: Path) -> int:
    """Steps that a checkpoint holds."""
    return max(checkpoint.steps(out / "checkpoints"), default=0)


def state(out: Path, life: Life) -> str:
    """In a line, what a start has left."""
    files = sorted(p.name for p in (out / "checkpoints").glob("step-*")) if out.exists() else []
    return f"exit codes {life.codes}, {life.seconds:.1f} s, {[len(r) for r in life.trained]} steps, left {files}"


def same(ours: dict[str, object], theirs: dict[str, object]) -> None:
    for name, value in theirs.items():
        assert ours[name] == value, name


def every_row_once(life: Life, steps: int) -> None:
    """In each pass the ranks train on every sample, and on none twice."""
    for first in range(0, steps, steps // EPOCHS):
        batches = [batch for rank in life.trained for batch in rank[first : first + steps // EPOCHS]]
        rows = Counter(itertools.chain.from_iterable(batches))
        assert len(rows) == 700 and set(rows.values()) == {1}
