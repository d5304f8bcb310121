"""Run folders whose files have suffered: `compare` and its report name the file."""

import json
from pathlib import Path

import pytest
from compared import run_command, write_run

from coldrank.data.errors import UserError

FIT = {
    "step": 5,
    "period": None,
    "split": "fit",
    "cohort": "all",
    "task": "like",
    "metric": "logloss",
    "value": 0.5,
    "n": 9,
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for arm in ("base", "variant"):
        for seed in (1, 2):
            write_run(tmp_path / f"{arm}-{seed}", arm, seed, shift=1.0)
    return tmp_path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 40] = b"\x5a" * 40
    path.write_bytes(content)


def lines(*texts: str):
    return lambda path: path.write_text("".join(text + "\n" for text in texts))


DAMAGE = {
    "predictions cut off": ("predictions-test.parquet", cut, "is cut off: "),
    "predictions with bytes overwritten": ("predictions-test.parquet", flip, "is damaged: "),
    "predictions of 0 bytes": ("predictions-test.parquet", lambda p: p.write_bytes(b""), "is empty: 0 bytes"),
    "config.json cut off": ("config.json", cut, "is damaged: not JSON"),
    "config.json of no text": ("config.json", lambda p: p.write_bytes(b"\xff\xfe"), "is damaged: not text"),
    "run.json that is a list": ("run.json", lines("[]"), "expected an object"),
    "metrics.jsonl with half a line": (
        "metrics.jsonl",
        lines(json.dumps(FIT), json.dumps(FIT)[:20], json.dumps(FIT)),
        "line 2: is damaged: not JSON",
    ),
    "metrics.jsonl whose line lacks its value": (
        "metrics.jsonl",
        lines(json.dumps({k: v for k, v in FIT.items() if k != "value"})),
        "line 1: lacks 'value'",
    ),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.tried("configs and runs", f"compare: {kind}", "named, with what is wrong"))
        for kind in DAMAGE
    ],
)
def test_a_damaged_file_of_a_run_is_named(runs: Path, kind: str) -> None:
    name, harm, message = DAMAGE[kind]
    path = runs / "variant-2" / name
    harm(path)
    with pytest.raises(UserError, match=rf"^{path}(, )?:? ?{message}") as raised:
        run_command(*sorted(runs.iterdir()), "--out", runs / "out")
    assert "\n" not in str(raised.value) and not (runs / "out").exists()


def test_a_last_line_that_was_being_written_is_left_out(runs: Path) -> None:
    whole = [json.dumps(FIT | {"step": step, "value": value}) for step, value in ((5, 0.5), (9, 0.4), (12, 0.3))]
    (runs / "variant-2/metrics.jsonl").write_text("\n".join(whole) + "\n" + whole[0][:20])
    run_command(*sorted(runs.iterdir()), "--out", runs / "out")
    assert (runs / "out/compare.json").is_file()


@pytest.mark.tried(
    "data folders", "compare: a prepared file cut off, or its manifest", "named, not days of UTC instead"
)
def test_damaged_data_that_the_runs_name_is_told(runs: Path) -> None:
    data = runs / "data"
    data.mkdir()
    (runs / "base-1/run.json").write_text(json.dumps({"data_path": str(data)}))
    (data / "manifest.json").write_text("{")
    folders = [runs / f"{arm}-{seed}" for arm in ("base", "variant") for seed in (1, 2)]
    with pytest.raises(UserError, match=rf"^{data / 'manifest.json'}: is damaged"):
        run_command(*folders, "--out", runs / "out")
    part = {"path": "0.parquet", "split": "test", "period": "2022-05-04", "rows": 9, "time_min": 0, "time_max": 8}
    (data / "manifest.json").write_text(json.dumps({"format": 1, "columns": [], "partitions": [part]}))
    (data / "0.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UserError, match=rf"^{data / '0.parquet'}: is cut off"):
        run_command(*folders, "--out", runs / "out")
