"""What `coldrank prepare` prints of its splits, tables and duplicates, warns of, and writes into the manifest."""

import json
from pathlib import Path

import polars as pl
import pytest
from event_logs import DAY_MS, START

from coldrank.cli.main import main
from coldrank.data.audit.report import audit

SPEC = """
from coldrank.data.log import LogSpec
spec = LogSpec(user="user", item="item", time="time", tasks={"click": "click"}%s)
"""


def log_of(rows: int, days: int, positives: int | None = None) -> pl.DataFrame:
    """Events evenly over days; each third is a click, or the first so many. Each user and item has many."""
    n = pl.int_range(rows, eager=True)
    click = (n % 3 == 0) if positives is None else n < positives
    times = START + (n * days * DAY_MS) // rows
    return pl.DataFrame({"user": n % 4, "item": n % 7, "time": times, "click": click.cast(pl.Int64)})


def prepared(folder: Path, log: pl.DataFrame, *options: str, spec: str = "") -> int:
    (folder / "log").mkdir(parents=True, exist_ok=True)
    log.write_parquet(folder / "log" / "events.parquet")
    (folder / "spec.py").write_text(SPEC % spec)
    paths = ["--data", str(folder / "log"), "--spec", str(folder / "spec.py"), "--out", str(folder / "out")]
    return main(["prepare", "log", *paths, *options])


def manifest(folder: Path) -> dict:
    return json.loads((folder / "out" / "manifest.json").read_text())


def sizes(folder: Path) -> list[int]:
    return [manifest(folder)["splits"][s]["rows"] for s in ("train", "valid", "test")]


@pytest.mark.tried("logs", "a log whose last two days hold 5 of 23,662 events", "the last tenth of the events is test")
def test_thin_days_give_a_share(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = log_of(23_657, 100)
    late = log[:5].with_columns(time=START + 101 * DAY_MS + pl.int_range(5) * DAY_MS // 4)
    assert prepared(tmp_path, pl.concat([log, late])) == 0
    assert sizes(tmp_path) == [18_930, 2366, 2366]
    assert "2022-04-15 to 2022-07-26; the last 0.1 of the events are test, 0.1 before valid" in capfd.readouterr().out
    asked = manifest(tmp_path)["arguments"]
    assert (asked["test_share"], asked["valid_share"], asked["test_from"]) == (0.1, 0.1, None)


@pytest.mark.tried("logs", "a log of one day, no split asked for", "the last tenth of the events is test")
def test_one_day_gives_a_share(tmp_path: Path) -> None:
    assert prepared(tmp_path, log_of(1000, 1)) == 0
    assert sizes(tmp_path) == [800, 100, 100]


def test_full_days_are_test_as_before(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert prepared(tmp_path, log_of(1000, 10)) == 0
    assert sizes(tmp_path) == [600, 200, 200]
    assert "2022-04-15 to 2022-04-24; days from 2022-04-23 on are test, 2 before valid" in capfd.readouterr().out
    asked = manifest(tmp_path)["arguments"]
    assert (asked["test_share"], asked["valid_days"], asked["test_from"]) == (None, 2, "2022-04-23")


def test_a_share_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    assert prepared(tmp_path, log_of(1000, 10), "--test-share", "0.05") == 0
    assert sizes(tmp_path) == [850, 100, 50]


def test_days_that_are_asked_for_are_taken_however_thin(tmp_path: Path) -> None:
    thin = pl.concat([log_of(5000, 10), log_of(4, 2).with_columns(pl.col("time") + 11 * DAY_MS)])
    assert prepared(tmp_path, thin, "--valid-days", "1") == 0
    assert sizes(tmp_path) == [4500, 500, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            ["--test-from", "2022-04-20", "--test-share", "0.2"],
            "--test-share: has no effect beside --test-from; give days or shares",
            marks=pytest.mark.tried("logs", "--test-from and --test-share", "refused"),
        ),
        (["--valid-days", "1", "--valid-share", "0.2"], "--valid-share: has no effect beside --valid-days"),
        pytest.param(
            ["--split", "users", "--test-from", "2022-04-20"],
            "--test-from: has no effect with --split users",
            marks=pytest.mark.tried("logs", "--split users and --test-from", "refused"),
        ),
        (["--split", "users", "--valid-days", "3"], "--valid-days: has no effect with --split users"),
        pytest.param(
            ["--seed", "3"],
            "--seed: has no effect with --split time",
            marks=pytest.mark.tried("logs", "--split time and --seed", "refused"),
        ),
    ],
)
def test_options_of_the_other_split_are_refused(
    options: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepared(tmp_path, log_of(100, 10), *options) == 2
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.tried("logs", "few positives in training, validation or test", "warned per split, task and cohort")
def test_too_few_positives_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # 500 of 1000 are clicks, all of them in training; every user and item has its first views there.
    assert prepared(tmp_path, log_of(1000, 10, positives=500)) == 0
    warned = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    few = "fewer than 20 positives or negatives, too few to judge: "
    assert warned == [
        f"warning: train: {few}click of new_user (44 and 0), click of new_item (357 and 0)",
        f"warning: valid: {few}click (0 and 200)",
        f"warning: test: {few}click (0 and 200)",
    ]


@pytest.mark.tried("data folders", "check of a split with 12 positives", "noted, with their numbers")
def test_check_notes_too_few_positives(tmp_path: Path) -> None:
    log = log_of(1000, 10).with_columns(click=pl.when(pl.int_range(1000) >= 976).then(pl.lit(0)).otherwise("click"))
    log = log.with_columns(click=pl.when(pl.int_range(1000).is_between(800, 939)).then(pl.lit(0)).otherwise("click"))
    assert prepared(tmp_path, log) == 0
    (finding,) = (f for f in audit(tmp_path / "out").findings if f.what.startswith("fewer than 20"))
    assert (finding.severity, finding.where) == ("note", "test") and finding.what.endswith("label_click (12 and 188)")


@pytest.mark.parametrize(
    ("option", "rows", "answer"),
    [
        ([], 1000, "dropped"),
        pytest.param(
            ["--duplicates", "keep"],
            1250,
            "kept",
            marks=pytest.mark.tried(
                "logs", "rows that are equal in all columns, --duplicates keep", "each is an event"
            ),
        ),
    ],
)
def test_duplicates_are_dropped_or_kept(
    option: list[str], rows: int, answer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = log_of(1000, 10)
    assert prepared(tmp_path, pl.concat([log, log[:250]]), *option) == 0
    assert f"250 of 1,250 rows (20.0%) were exact duplicates and {answer}" in capfd.readouterr().out
    content = manifest(tmp_path)
    assert sum(s["rows"] for s in content["splits"].values()) == rows
    counts = content["counts"]
    assert (counts["events_read"], counts["duplicates"], counts["duplicates_dropped"]) == (1250, 250, 1250 - rows)
    assert content["duplicates_share"] == 0.2
    assert content["arguments"]["duplicates"] == ("keep" if option else "drop")
    findings = [f for f in audit(tmp_path / "out").findings if f.check == "duplicates"]
    assert [f.severity for f in findings] == (["note"] if option else [])
    if option:
        # They don't see each other, and later events see them both.
        first = pl.read_parquet(tmp_path / "out" / content["partitions"][0]["path"]).sort("time", "user_id")
        assert first["user_views"][:4].to_list() == [0, 0, 0, 0] and first["user_views"][8:10].to_list() == [2, 2]


@pytest.mark.tried("logs", "an item table that holds a tenth of the items", "the joined share is printed and warned of")
def test_the_joined_share_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Nine events in ten are of item 0, which is one of two; users 0 to 2 of 4 have a row.
    n = pl.int_range(1000, eager=True)
    log = log_of(1000, 10).with_columns(item=pl.when(n % 10 == 0).then(1 + n // 10 % 10).otherwise(0))
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "items.csv").write_text("item_id,kind\n1,a\n99,b\n")
    (tmp_path / "log" / "users.csv").write_text("user_id,city\n0,a\n1,b\n2,c\n3,d\n")
    tables = ', user_table="users.csv", item_table="items.csv"'
    tables += ', user_features={"city": "city"}, item_features={"kind": "kind"}'
    assert prepared(tmp_path, log, spec=tables) == 0
    printed = capfd.readouterr()
    # 11 items, of which item 1 has 10 events of 1000.
    assert manifest(tmp_path)["joined"] == {
        "users": {"ids_share": 1.0, "events_share": 1.0},
        "items": {"ids_share": 1 / 11, "events_share": 0.01},
    }
    assert "table of users: has rows for 100.0% of the users (100.0% of the events)" in printed.out
    assert "table of items: has rows for 9.1% of the items (1.0% of the events)" in printed.out
    warned = [line for line in printed.err.splitlines() if "table of" in line]
    assert len(warned) == 1 and warned[0].startswith(
        "warning: table of items: 9.1% of the items (1.0% of the events) have a row in it;"
        " the others' features are null"
    )
