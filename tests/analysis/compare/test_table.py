"""What the tables of a comparison say, cell by cell."""

from dataclasses import replace

import pytest

from coldrank.analysis.compare.rows import Comparison, Row
from coldrank.analysis.compare.table import format_cohorts, format_details, format_overview, format_verdicts
from coldrank.data.cohorts import CohortConfig

BASE = Row(task="like", cohort="all", metric="auc", arm="base", seeds=3, n=12_345, users=40, mean=71.234)
ARM = replace(
    BASE,
    arm="poso",
    seeds=2,
    failed=1,
    mean=72.5,
    difference=1.266,
    low=0.5,
    high=2.0,
    verdict="better",
    p=0.01,
    pairs=2,
)
ROWS = [
    BASE,
    ARM,
    replace(BASE, cohort="new_user", mean=60.0),
    replace(ARM, cohort="new_user", mean=59.0, difference=-1.0, low=-1.5, high=-0.5, verdict="worse"),
    replace(BASE, metric="ne", mean=90.0),
    replace(ARM, metric="ne", mean=90.0, difference=0.0, low=-1.0, high=1.0, verdict="not distinguishable"),
    replace(BASE, task="follow", n=77),
    replace(ARM, task="follow", n=77, difference=0.1, low=-1.0, high=1.0, verdict="not distinguishable"),
]


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("|:", "|-"))]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


def test_overview_has_a_line_per_task_and_arm_and_a_column_per_cohort() -> None:
    table = cells(format_overview(ROWS, tablefmt="github"))
    assert table[0] == ["task", "arm (seeds)", "all", "new_user"]
    assert [row[:2] for row in table[1:]] == [
        ["like", "base (3)"],
        ["n=12,345", "poso (2 of 3)"],
        ["follow", "base (3)"],
        ["n=77", "poso (2 of 3)"],
    ]
    assert table[1][2].startswith("71.23") and table[1][3].startswith("60.00")
    assert "+1.27" in table[2][2] and "-1.00" in table[2][3] and table[3][3] == table[4][3] == "-"


def test_a_table_per_cohort_has_the_metrics_that_there_are() -> None:
    text = format_cohorts(ROWS)
    assert [line for line in text.splitlines() if line.startswith("###")] == ["### all", "### new_user"]
    heads = [row for row in cells(text) if row[0] == "task"]
    assert [len(head) for head in heads] == [4, 4], "two metrics of four"
    assert [row[3] for row in cells(text.split("### new_user")[1])[1:]] == ["-", "-"], "no ne for new users"


@pytest.mark.parametrize("arms", [1, 2])
def test_verdicts_are_a_line_per_arm(arms: int) -> None:
    rows = ROWS + [replace(row, arm="other", verdict="no value") for row in ROWS if row.arm == "poso"][: 4 * (arms - 1)]
    text = " ".join(format_verdicts(rows).split())
    assert "poso against base, " in text and ("other against base, " in text) == (arms == 2)
    assert "better in all/like; worse in new_user/like; not distinguishable in 1 of 3." in text
    if arms == 2:
        assert "better in none; worse in none; not distinguishable in 3 of 3." in text


def test_one_seed_is_said_of_the_arms_that_have_one() -> None:
    assert "One seed" not in format_verdicts(ROWS)
    assert "One seed: base." in format_verdicts([replace(row, seeds=1 if row.arm == "base" else 2) for row in ROWS])


def test_json_tells_its_format_and_what_the_figures_are() -> None:
    content = Comparison(
        split="test",
        baseline="base",
        resamples=20,
        seed=3,
        cohorts=CohortConfig(),
        allowed=("data",),
        days=("2022-05-04",),
        day_source="UTC",
        runs=(),
        notes=("said",),
        rows=(ARM,),
    ).to_json()
    assert (content["format"], content["level"], content["resamples"], content["seed"]) == (2, 0.95, 20, 3)
    assert content["unit"] == "percent, differences in percentage points"
    assert content["correction"] == "Holm, per arm: auc, auc_fixed_avc, ne together, gauc apart"
    assert content["cohorts"] == {"new_user_max_views": 10, "new_item_max_views": 50}
    (row,) = content["rows"]
    assert (row["arm"], row["failed"], row["pairs"], row["difference"]) == ("poso", 1, 2, 1.266)


def test_details_have_every_figure_of_a_row() -> None:
    whole = replace(
        ARM,
        user_spread=0.25,
        seed_spread=None,
        p_corrected=0.04,
        days=3,
        days_p=0.2,
        verdict="not distinguishable",
        uncorrected="better",
    )
    head, base, arm = cells(format_details([BASE, whole]))
    by_column = dict(zip(head, arm, strict=True))
    assert by_column == {
        "cohort": "all",
        "task": "like",
        "metric": "auc",
        "arm": "poso",
        "seeds": "2 of 3",
        "rows": "12,345",
        "users": "40",
        "mean": "72.50",
        "difference": "+1.27",
        "95% interval": "+0.50 to +2.00",
        "user spread": "0.25",
        "seed spread": "",
        "p": "0.0100",
        "p corrected": "0.0400",
        "days": "3",
        "p over days": "0.2000",
        "verdict": "not distinguishable (better before correction)",
    }
    of_base = dict(zip(head, base, strict=True))
    assert of_base["difference"] == of_base["95% interval"] == of_base["days"] == of_base["p over days"] == ""
    assert of_base["mean"] == "71.23" and of_base["verdict"] == "baseline"


def test_verdicts_fill_lines_of_a_hundred_columns() -> None:
    rows = lambda arm: [replace(row, arm=arm) if row.arm == "poso" else row for row in ROWS]
    widths = [len(line) for n in range(60) for line in format_verdicts(rows("p" * (n + 1))).splitlines()]
    assert max(widths) == 100


@pytest.mark.parametrize(("p", "wanted"), [(0.0001, "0.0001"), (0.00009, "<0.0001"), (0.0, "<0.0001"), (1.0, "1.0000")])
def test_small_p_values_are_said_to_be_below_what_is_written(p: float, wanted: str) -> None:
    head, _, arm = cells(format_details([BASE, replace(ARM, p=p)]))
    assert dict(zip(head, arm, strict=True))["p"] == wanted
