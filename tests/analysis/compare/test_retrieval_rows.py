"""Recall of arms on a stream, on run folders of which everything is known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coldrank.analysis.compare.retrieval import COHORTS, format_retrieval, read_arms_figures, retrieval_rows
from coldrank.data.errors import UserError

PERIODS = {"p25": 0.1, "p26": 0.2, "p27": 0.3}
SCRIPT = Path(__file__).parents[3] / "benchmarks" / "pam_table.py"


def write_run(folder, arm, seed, gain, periods=PERIODS):
    """Recall of a cold item is that of the period, more by `gain`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": arm, "seed": seed}))
    (folder / "summary.json").write_text("[]")
    rest = {"step": 1, "task": "all", "n": 3}
    lines = []
    for cohort in COHORTS:
        for period, value in periods.items():
            row = rest | {"period": period, "split": "next", "cohort": cohort}
            lines += [row | {"metric": "recall@5", "value": value + gain}, row | {"metric": "candidates", "value": 90}]
    lines.append(rest | {"period": None, "split": "fit", "cohort": "all", "metric": "loss", "value": 1.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows_of(folder, baseline="pf", arms=()):
    figures = read_arms_figures(sorted(path.parent for path in folder.glob("*/config.json")))
    return retrieval_rows({a: f for a, f in figures.items() if not arms or a in arms}, baseline, ["recall@5"])


def test_differences_and_their_intervals(tmp_path):
    for seed, gain in ((1, 0.01), (2, 0.03), (3, 0.02)):
        write_run(tmp_path / f"pf-{seed}", "pf", seed, 0.0)
        write_run(tmp_path / f"pam-{seed}", "pam", seed, gain)
    write_run(tmp_path / "pf-4", "pf", 4, 0.5)
    rows = rows_of(tmp_path)
    assert [(r.arm, r.cohort, r.seeds, r.candidates) for r in rows] == [
        (arm, cohort, seeds, 90) for cohort in COHORTS for arm, seeds in (("pf", 4), ("pam", 3))
    ]
    assert rows[0].mean == pytest.approx((3 * 0.2 + 0.7) / 4) and rows[1].mean == pytest.approx(0.22)
    assert rows[1].difference == pytest.approx(0.02)
    # The periods do not differ in the gain: Student's t of three seeds is all of the interval.
    assert (rows[1].low, rows[1].high) == pytest.approx(
        (0.02 - 4.303 * 0.01 / 3**0.5, 0.02 + 4.303 * 0.01 / 3**0.5), rel=1e-3
    )


def test_an_arm_that_is_not_there(tmp_path):
    write_run(tmp_path / "pf-1", "pf", 1, 0.0)
    with pytest.raises(UserError, match="no arm 'base'; there are pf"):
        rows_of(tmp_path, "base")


def test_an_arm_of_other_seeds_has_a_mean_and_no_difference(tmp_path):
    write_run(tmp_path / "pf-1", "pf", 1, 0.0)
    write_run(tmp_path / "pam-2", "pam", 2, 0.1)
    rows = rows_of(tmp_path)
    assert [(r.arm, r.difference) for r in rows] == [("pf", None), ("pam", None)] * 2
    assert [r.mean for r in rows] == pytest.approx([0.2, 0.3] * 2)


def test_a_period_that_one_run_has_no_value_of_is_left_out_of_the_comparison(tmp_path):
    """Cold items may be missing in a period: the difference is of the periods that both sides have."""
    write_run(tmp_path / "pf-1", "pf", 1, 0.0)
    write_run(tmp_path / "pam-1", "pam", 1, 0.1, {"p25": 0.1, "p27": 0.3})
    base, pam = rows_of(tmp_path)[:2]
    assert (base.mean, pam.mean, pam.difference) == pytest.approx((0.2, 0.3, 0.1))


def test_verdicts_are_corrected_for_the_number_of_arms_and_metrics(tmp_path):
    """Three arms whose differences have the very same p value: by itself it would do, three times it does not."""
    for arm, sign in (("pf", 0), ("one", 1), ("two", -1), ("three", 1)):
        for seed, gain in ((1, 0.02), (2, 0.03), (3, 0.04)):
            write_run(tmp_path / f"{arm}-{seed}", arm, seed, sign * gain)
    rows, alone = rows_of(tmp_path), rows_of(tmp_path, arms=("pf", "one"))
    p = alone[1].p
    assert 0.05 / 3 < p < 0.05 and alone[1].corrected == p
    compared = [row for row in rows if row.arm != "pf"]
    assert [(row.p, row.corrected) for row in compared] == [pytest.approx((p, 3 * p))] * 6
    one, three = format_retrieval(alone), format_retrieval(rows)
    assert one.count("▲") == 2 and "△" not in one
    assert (three.count("△"), three.count("▽"), three.count("▲")) == (4, 2, 0)
    assert "| candidates" in three and "| `two` (3)" in three


def test_the_script_prints_the_table_and_writes_the_rows(tmp_path):
    for arm in ("pf", "pam", "other"):
        write_run(tmp_path / arm, arm, 1, 0.0)
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--metrics", "recall@5", "--out", str(tmp_path / "t.json")]
    done = subprocess.run([*command, "--arms", "pf,pam"], check=True, capture_output=True, text=True)
    assert "`pam` (1)" in done.stdout and "other" not in done.stdout
    assert [row["arm"] for row in json.loads((tmp_path / "t.json").read_text())] == ["pf", "pam"] * 2
    wrong = subprocess.run([*command, "--baseline", "base"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "no arm 'base'; there are other, pam, pf" in wrong.stderr
