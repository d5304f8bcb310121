"""The table of PAM's arms, on run folders of which everything is known."""

import json

import pam_table
import pytest

PERIODS = {"p25": 0.1, "p26": 0.2, "p27": 0.3}


def write_run(folder, arm, seed, gain):
    """Recall of a cold item is that of the period, more by `gain`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": arm, "seed": seed}))
    (folder / "summary.json").write_text("[]")
    lines = []
    for cohort in pam_table.COHORTS:
        for period, value in PERIODS.items():
            row = {"period": period, "split": "next", "cohort": cohort}
            lines += [row | {"metric": "recall@5", "value": value + gain}, row | {"metric": "candidates", "value": 90}]
    lines.append({"period": None, "split": "fit", "cohort": "all", "metric": "loss", "value": 1.0})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_differences_and_their_intervals(tmp_path):
    for seed, gain in ((1, 0.01), (2, 0.03), (3, 0.02)):
        write_run(tmp_path / f"pf-{seed}", "pf", seed, 0.0)
        write_run(tmp_path / f"pam-{seed}", "pam", seed, gain)
    write_run(tmp_path / "pf-4", "pf", 4, 0.5)
    rows = pam_table.table([tmp_path], "pf", ["recall@5"], [])
    assert [(r["arm"], r["cohort"], r["seeds"], r["candidates"]) for r in rows] == [
        (arm, cohort, seeds, 90) for cohort in pam_table.COHORTS for arm, seeds in (("pf", 4), ("pam", 3))
    ]
    assert rows[0]["mean"] == pytest.approx((3 * 0.2 + 0.7) / 4) and rows[1]["mean"] == pytest.approx(0.22)
    assert rows[1]["difference"] == pytest.approx(0.02)
    # The periods do not differ in the gain: Student's t of three seeds is all of the interval.
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx(
        (0.02 - 4.303 * 0.01 / 3**0.5, 0.02 + 4.303 * 0.01 / 3**0.5), rel=1e-3
    )


def test_an_arm_that_is_not_there(tmp_path):
    write_run(tmp_path / "pf-1", "pf", 1, 0.0)
    with pytest.raises(SystemExit, match="no arm 'base'; there are pf"):
        pam_table.table([tmp_path], "base", ["recall@5"], [])


def test_an_arm_of_other_seeds_has_a_mean_and_no_difference(tmp_path):
    write_run(tmp_path / "pf-1", "pf", 1, 0.0)
    write_run(tmp_path / "pam-2", "pam", 2, 0.1)
    rows = pam_table.table([tmp_path], "pf", ["recall@5"], [])
    assert [(r["arm"], r.get("difference")) for r in rows] == [("pf", None), ("pam", None)] * 2
    assert [r["mean"] for r in rows] == pytest.approx([0.2, 0.3] * 2)


def test_verdicts_are_corrected_for_the_number_of_arms_and_metrics(tmp_path):
    """Three arms whose differences have the very same p value: by itself it would do, three times it does not."""
    for arm, sign in (("pf", 0), ("one", 1), ("two", -1), ("three", 1)):
        for seed, gain in ((1, 0.02), (2, 0.03), (3, 0.04)):
            write_run(tmp_path / f"{arm}-{seed}", arm, seed, sign * gain)
    rows = pam_table.table([tmp_path], "pf", ["recall@5"], [])
    alone = pam_table.table([tmp_path], "pf", ["recall@5"], ["pf", "one"])
    p = alone[1]["p"]
    assert 0.05 / 3 < p < 0.05 and alone[1]["corrected"] == p
    compared = [row for row in rows if row["arm"] != "pf"]
    assert [(row["p"], row["corrected"]) for row in compared] == [pytest.approx((p, 3 * p))] * 6
    one, three = pam_table.printed(alone), pam_table.printed(rows)
    assert one.count("▲") == 2 and "△" not in one
    assert (three.count("△"), three.count("▽"), three.count("▲")) == (4, 2, 0)
    assert "| candidates" in three and "| `two` (3)" in three
