"""With which changes of its config a run goes on."""

import re
from dataclasses import replace

import pytest
from tiny import sample_base

from coldrank.data.errors import UserError
from coldrank.train.run_folder import RunFolder

FREE = {
    "steps": 7,
    "epochs": 3,
    "follow_s": 1.0,
    "log_every": 9,
    "checkpoint_every": 9,
    "keep_checkpoints": 9,
    "threads": 2,
    "pipeline": "on",
}
FIXED = {
    "mode": "periods",
    "first_period": "2022-05-01",
    "look_back": (1,),
    "look_back_rows": 5,
    "cold_passes": 1,
    "cold_trains": "gates",
    "accumulate": 2,
    "precision": "bf16",
    "warm_start": "runs/other",
    "warm_rename": {"item": "video"},
}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.start(sample_base(), "")
    return folder


def test_every_field_of_train_is_free_or_fixed():
    assert sorted({**FREE, **FIXED}) == sorted(f for f in sample_base().train.__slots__)


def test_what_changes_no_result_may_change(folder):
    config = sample_base()
    folder.check(replace(config, train=replace(config.train, **FREE)))


@pytest.mark.parametrize("field", FIXED)
def test_what_changes_results_is_refused_by_name(folder, field):
    config = sample_base()
    changed = replace(config, train=replace(config.train, **{field: FIXED[field]}))
    with pytest.raises(
        UserError, match=rf"holds the run of another config \(train\.{re.escape(field)}.*--fresh starts over"
    ):
        folder.check(changed)
