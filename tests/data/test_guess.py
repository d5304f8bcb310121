"""What `coldrank spec` takes columns for, on logs of many shapes."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from coldrank.data.errors import UserError
from coldrank.data.guess.draft import Draft, Given, draft
from coldrank.data.guess.moments import Clock, clock
from coldrank.data.guess.names import plain_name, rank, words
from coldrank.data.guess.write import spec_text, told
from coldrank.data.log import check_spec
from coldrank.data.own_log import load_spec, open_log
from coldrank.data.spool import load_events

DAYS = [datetime(2023, 1, 28, 22, 5, 9, tzinfo=UTC) + timedelta(hours=7 * n) for n in range(60)]
SECONDS = [int(d.timestamp()) for d in DAYS]


def drafted(folder: Path, **given: object) -> Draft:
    return draft(folder, Given(**given))  # type: ignore[arg-type]


def events(rows: int = 600, **columns: list[object]) -> pl.DataFrame:
    """Some events, with other columns beside."""
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, 40, rows),
            "item_id": rng.integers(0, 30, rows),
            "time": SECONDS[0] + np.arange(rows) * 600,
            "click": rng.integers(0, 2, rows),
            **columns,
        },
        strict=False,
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (SECONDS, Clock("s")),
        ([1000 * s for s in SECONDS], Clock("ms")),
        ([1_000_000 * s for s in SECONDS], Clock("us")),
        ([1_000_000_000 * s for s in SECONDS], Clock("ns")),
        ([float(s) + 0.5 for s in SECONDS], Clock("s")),
        (DAYS, Clock()),
        ([d.date() for d in DAYS], Clock()),
        ([d.isoformat() for d in DAYS], Clock()),
        ([d.strftime("%Y-%m-%d %H:%M") for d in DAYS], Clock()),
        ([d.strftime("%d.%m.%Y %H:%M:%S") for d in DAYS], Clock(layout="%d.%m.%Y %H:%M:%S")),
        ([d.strftime("%m/%d/%Y %I:%M:%S %p") for d in DAYS], Clock(layout="%m/%d/%Y %I:%M:%S %p")),
        ([d.strftime("%d/%b/%Y:%H:%M:%S %z") for d in DAYS], Clock(layout="%d/%b/%Y:%H:%M:%S %z")),
        ([int(d.strftime("%Y%m%d")) for d in DAYS], Clock(layout="%Y%m%d")),
        ([int(d.strftime("%Y%m%d%H%M%S")) for d in DAYS], Clock(layout="%Y%m%d%H%M%S")),
        ([int(d.strftime("%y%m%d%H")) for d in DAYS], Clock(layout="%y%m%d%H")),
        ([1, 2, 3], None),
        (["soon", "later"], None),
        ([None, None], None),
    ],
    ids=[
        *("seconds", "milliseconds", "microseconds", "nanoseconds", "float", "datetime", "date", "iso", "minutes"),
        *("german", "american", "apache", "day digits", "second digits", "hour digits", "small", "words", "empty"),
    ],
)
def test_times_are_read_as_they_are_written(values: list[object], expected: Clock | None):
    assert clock(pl.Series(values)) == expected


def test_day_and_month_are_told_by_the_span_and_doubt_is_said():
    first_of_months = [datetime(2023, m, 1, tzinfo=UTC).strftime("%d/%m/%Y") for m in range(1, 13)]
    found = clock(pl.Series(first_of_months))
    assert found == Clock(layout="%m/%d/%Y", sure=True)  # twelve days of January, rather than a year
    same = clock(pl.Series(["03/03/2023", "04/04/2023"]))
    assert same is not None and same.sure  # whichever it is
    unsure = clock(pl.Series(["02/03/2023", "03/02/2023"]))
    assert unsure is not None and not unsure.sure


@pytest.mark.parametrize(
    ("name", "split", "plain"),
    [
        ("userId", ("user", "id"), "user_id"),
        ("ItemID", ("item", "id"), "item_id"),
        ("watch time (s)", ("watch", "time", "s"), "watch_time_s"),
        ("feat12", ("feat", "12"), "feat12"),
        ("2nd", ("2", "nd"), "c_2nd"),
        ("Größe", ("gr", "e"), "gr_e"),
    ],
)
def test_names_are_taken_apart(name: str, split: tuple[str, ...], plain: str):
    assert words(name) == split
    assert plain_name(name) == plain


def test_an_id_is_told_from_an_attribute():
    user = ("user", "visitor")
    assert rank("user_id", user) == rank("user", user) == 0
    assert rank("final_user_id", user) == 100
    assert rank("user_age", user) is None
    assert rank("id", user) is None


def test_outcomes_that_are_known_with_a_label_are_no_inputs(tmp_path: Path):
    log = events()
    click = log["click"].to_numpy()
    rng = np.random.default_rng(1)
    log = log.with_columns(
        seconds_on_page=pl.Series(np.where(click, rng.exponential(30, 600) + 1, 0)),
        has_scrolled=pl.Series((click & (rng.random(600) < 0.5)).astype(int)),
        battery=pl.Series(rng.random(600)),
    )
    log.write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    assert [f.name for f in made.context] == ["battery"]
    assert "AUC" in made.left["seconds_on_page"]
    assert "known before" in made.left["has_scrolled"]


def test_columns_go_to_whom_they_belong_to(tmp_path: Path):
    log = events()
    log = log.with_columns(
        brand=pl.format("b{}", pl.col("item_id") % 5),
        town=pl.format("t{}", pl.col("user_id") % 6),
        screen=pl.Series(["a", "b", "c"] * 200),
        query=pl.Series([f"words {n}" for n in range(600)]),
        nothing=pl.lit(None, pl.Int64),
    )
    log.write_csv(tmp_path / "log.csv")
    made = drafted(tmp_path)
    assert [f.name for f in made.item_inputs] == ["brand"]
    assert [f.name for f in made.user_inputs] == ["town"]
    assert [f.name for f in made.context] == ["screen"]
    assert set(made.left) == {"query", "nothing"}
    assert [f.name for f in made.keys] == ["brand"]


def test_tables_are_told_from_events_and_from_other_files(tmp_path: Path):
    log = events()
    log.write_csv(tmp_path / "events.csv")
    pl.DataFrame(
        {"item_id": range(30), "colour": ["red", "blue", "pink"] * 10, "release_date": ["2022-05-04"] * 30}
    ).write_csv(tmp_path / "items.csv")
    pl.DataFrame({"word": ["a", "b"], "count": [1, 2]}).write_csv(tmp_path / "words.csv")
    made = drafted(tmp_path)
    assert made.data == tmp_path / "events.csv" and made.others == (tmp_path / "words.csv",)
    assert made.item_table is not None and made.item_table.path == "items.csv"
    assert made.item_table.birth == "release_date"
    spec = written(made, tmp_path)
    assert open_log(made.data, spec).items is not None


def written(made: Draft, folder: Path):
    """The spec of a draft, as it is read from its file."""
    path = folder / "spec_of_draft.py"
    path.write_text(spec_text(made, []))
    spec = load_spec(path)
    check_spec(spec)
    path.unlink()
    return spec


def test_lists_vectors_and_weighted_ids_are_told_apart(tmp_path: Path):
    log = events(60).with_columns(
        tags=pl.Series([["a", "b"]] * 60),
        emb=pl.Series([[0.1, 0.2, 0.3], None] * 30),
        ragged=pl.Series([[0.1], [0.2, 0.3]] * 30),
        scored=pl.Series([[{"k": "x", "w": 0.5}], []] * 30),
        triples=pl.Series([[{"k": "x", "w": 0.5, "z": 1}]] * 60),
    )
    log.write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    kinds = {f.name: (f.kind, f.length) for of in (made.context, made.item_inputs, made.user_inputs) for f in of}
    assert kinds == {"tags": ("list", 0), "emb": ("vector", 3), "scored": ("weighted", 0)}
    assert made.left["ragged"] == "lists of 2 lengths" and "triples" in made.left
    written(made, tmp_path)


def test_kinds_of_events_become_tasks(tmp_path: Path):
    kinds = ["view"] * 8 + ["add to cart", "purchase"]
    log = events().drop("click").with_columns(event_type=pl.Series(kinds * 60))
    log.write_ndjson(tmp_path / "log.jsonl")
    made = drafted(tmp_path)
    assert set(made.outcomes.events) == {"add_to_cart", "purchase"}
    spec = written(made, tmp_path)
    assert set(spec.tasks) == {"add_to_cart", "purchase"}
    assert set(spec.histories) == {"add_to_cart", "purchase"}


def test_users_that_are_missing_are_of_their_own(tmp_path: Path):
    log = events().with_columns(pl.when(pl.col("user_id") > 5).then(pl.format("u{}", "user_id")).alias("user_id"))
    log.write_parquet(tmp_path / "log.parquet")
    assert written(drafted(tmp_path), tmp_path).anonymous == "own"
    assert written(drafted(tmp_path, user=""), tmp_path).user is None


def test_names_that_python_or_the_spec_may_not_have_are_changed(tmp_path: Path):
    log = events().rename({"click": 'is "clicked"?'}).with_columns(pl.lit("x y").alias("#1"))
    log = log.with_columns(pl.Series("Type", ["a", "b", "c"] * 200), pl.Series("type", [1, 2, 3] * 200))
    log.write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    assert list(made.outcomes.flags) == ["clicked"]
    assert [f.source for f in made.context] == ["Type"]
    assert made.left["type"] == "its name would be type, which is taken"
    assert list(written(made, tmp_path).context) == ["type"]


def test_many_rows_and_files_are_counted_from_some(tmp_path: Path):
    for n in range(40):
        events(50).with_columns(user_id=pl.col("user_id") + 100 * n).write_csv(tmp_path / f"{n:02}.csv")
    made = drafted(tmp_path)
    assert len(made.events.files) == 40
    assert made.events.total == pytest.approx(2000, rel=0.05)
    assert len(made.events.rows) == 1000  # of every second file
    assert made.distinct(made.user or "") == pytest.approx(2 * made.events.rows["user_id"].n_unique(), rel=0.1)


@pytest.mark.parametrize("values", [SECONDS, [d.strftime("%d.%m.%Y %H:%M") for d in DAYS]], ids=["number", "text"])
def test_a_time_by_another_name_is_told_by_its_values(tmp_path: Path, values: list[object]):
    log = events(60).drop("time").with_columns(shown=pl.Series(values), price=pl.Series(range(60)))
    log.write_csv(tmp_path / "log.csv")
    assert drafted(tmp_path).time == "shown"


@pytest.mark.tried("logs", "`spec`: no column that may be a time", "refused: which is it? --time")
def test_a_log_without_times_is_refused(tmp_path: Path):
    events().drop("time").write_csv(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"log.csv: which column is the time\? --time COLUMN, one of user_id, item_id"):
        drafted(tmp_path)


@pytest.mark.tried("logs", "`spec`: a CSV without a header", "refused: name its columns by --header")
def test_a_file_without_a_header_is_refused(tmp_path: Path):
    events().write_csv(tmp_path / "log.csv", include_header=False)
    with pytest.raises(UserError, match=r"log.csv: its first line, .* looks like values; name its columns: --header"):
        drafted(tmp_path)
    made = drafted(tmp_path, header=("user", "item", "ts", "click"))
    assert (made.user, made.item, made.time) == ("user", "item", "ts")
    assert written(made, tmp_path).header == ("user", "item", "ts", "click")


@pytest.mark.tried("logs", "`spec`: files of other columns among many files of events", "refused, with the file")
def test_files_that_are_neither_events_nor_a_table_are_refused(tmp_path: Path):
    for n in range(2):
        events().write_csv(tmp_path / f"log-{n}.csv")
    pl.DataFrame({"a": ["x", "y"], "b": ["z", "z"]}).write_csv(tmp_path / "notes.csv")
    with pytest.raises(UserError, match=r"notes.csv: has other columns than the events in .*log-0.csv"):
        drafted(tmp_path)


@pytest.mark.tried("logs", "`spec`: a column that is named but not there", "refused, with the columns")
@pytest.mark.parametrize("option", ["user", "item", "time", "labels"])
def test_a_column_that_is_not_there_is_refused(tmp_path: Path, option: str):
    events().write_parquet(tmp_path / "log.parquet")
    given = ("gone",) if option == "labels" else "gone"
    with pytest.raises(UserError, match=r"--(user|item|time|label) gone: no such column; there are user_id, item_id"):
        drafted(tmp_path, **{option: given})


def test_no_rows_and_no_files_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no file of Parquet, CSV, TSV or JSON lines with rows there"):
        drafted(tmp_path)
    events().head(0).write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="no file of Parquet, CSV, TSV or JSON lines with rows there"):
        drafted(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        drafted(tmp_path / "gone")


def test_many_texts_are_inputs_and_bytes_are_ids(tmp_path: Path):
    log = events(3000).with_columns(
        user_id=pl.Series([bytes([0xFF, n % 40]) if n % 10 else b"" for n in range(3000)]),
        query=pl.Series([f"words {n % 1200}" for n in range(3000)]),
    )
    log.write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    assert made.user == "user_id" and [f.name for f in made.context] == ["query"]
    assert written(made, tmp_path).anonymous == "own"
    assert "300 of these rows have no user" in spec_text(made, [])


def test_ids_and_labels_that_pandas_wrote_are_what_they_were(tmp_path: Path):
    log = events().with_columns(pl.col("user_id", "item_id", "click").cast(pl.Float64), colour=pl.lit(1.0))
    gone = pl.int_range(pl.len()) % 7 == 0
    log = log.with_columns(
        pl.when(gone).then(float("nan")).otherwise("user_id").alias("user_id"),
        pl.when(gone).then(float("nan")).otherwise("click").alias("click"),
        pl.when(gone).then(float("nan")).otherwise(pl.col("item_id") % 3).alias("type"),
    )
    log.write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    assert (made.user, made.item, list(made.outcomes.flags)) == ("user_id", "item_id", ["click"])
    spec = written(made, tmp_path)
    assert spec.anonymous == "own"
    kinds = log.select(spec.context["type"])["type"]  # type: ignore[arg-type]
    assert kinds.dtype == pl.Int64 and kinds.null_count() == 86


def test_names_of_columns_that_prepare_makes_are_left_to_it(tmp_path: Path):
    names = ["user_views", "item_age_h", "views_brand", "hist_click", "sampled", "split", "true_click", "views"]
    log = events().with_columns(pl.Series(n, [5, 6, 7] * 200) for n in names)
    log.write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    assert [f.name for f in made.context] == ["views"]
    assert all("which is taken" in made.left[n] for n in names[:-1])


def test_a_column_that_some_files_lack_is_left_out_with_a_file(tmp_path: Path):
    for ending, write in (("csv", pl.DataFrame.write_csv), ("parquet", pl.DataFrame.write_parquet)):
        folder = tmp_path / ending
        folder.mkdir()
        write(events(), folder / f"0.{ending}")
        write(events().with_columns(screen=pl.Series(["a", "b", "c"] * 200)), folder / f"1.{ending}")
        made = drafted(folder)
        assert made.context == [] and f"0.{ending} and others lack it" in made.left["screen"]
    (tmp_path / "0.jsonl").write_text(events().write_ndjson())
    (tmp_path / "1.jsonl").write_text(events().with_columns(screen=pl.Series(["a", "b", "c"] * 200)).write_ndjson())
    for ending in ("csv", "parquet"):
        shutil.rmtree(tmp_path / ending)
    assert [f.name for f in drafted(tmp_path).context] == ["screen"]


def test_decimal_commas_are_seen_and_columns_that_mix_signs_left_out(tmp_path: Path):
    numbers = [f"{n // 4},{n % 4 * 25}" if n % 9 else "NA" for n in range(600)]
    log = events().with_columns(weight=pl.Series(["0,5", "1", "0,25"] * 200), price=pl.Series(numbers))
    log.write_csv(tmp_path / "log.csv", separator=";")
    made = drafted(tmp_path)
    spec = written(made, tmp_path)
    assert (spec.decimal, spec.null_values, spec.weight) == (",", ("NA",), "weight")
    assert [(f.name, f.kind) for f in made.context] == [("price", "count")]
    frame = load_events(open_log(tmp_path, spec)).frame
    assert frame["price"].null_count() == 67 and frame["price"].max() == 149.75
    log.with_columns(level=pl.Series([0.5, 1.5] * 300)).write_csv(tmp_path / "log.csv", separator=";")
    made = drafted(tmp_path)
    assert written(made, tmp_path).decimal == "." and [f.name for f in made.context] == ["level"]
    assert "written alike" in made.left["price"] and "written alike" in made.left["weight"]


@pytest.mark.tried(
    "logs", "`spec`: an outcome that never is, such as `click` of 0 throughout", "refused, with the column"
)
def test_a_log_without_positives_is_refused(tmp_path: Path):
    events().with_columns(click=pl.lit(0)).write_csv(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"log.csv: column click is 0 in all 600 rows .* --label COLUMN if one is"):
        drafted(tmp_path)
    assert list(drafted(tmp_path, labels=("click",)).outcomes.flags) == ["click"]
    events().with_columns(click=pl.lit(1)).write_csv(tmp_path / "log.csv")
    assert not drafted(tmp_path).outcomes


@pytest.mark.tried(
    "logs", "`spec`: a time far outside among others, in the column that --time names", "refused, with it"
)
def test_a_time_that_no_layout_reads_is_refused(tmp_path: Path):
    log = events().with_columns(time=pl.when(pl.col("time") > SECONDS[0]).then("time").otherwise(7))
    log.write_csv(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"log.csv: --time time: from 7, \d+: no times of 1990 to 2035"):
        drafted(tmp_path, time="time")


def test_what_others_said_of_a_review_later_is_no_input(tmp_path: Path):
    votes, helpful = pl.Series(["1", "2", None] * 200), pl.Series([[1, 3], [2, 3], [0, 0]] * 200)
    events().with_columns(vote=votes, helpful=helpful).write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    assert made.context == [] and set(made.left) == {"vote", "helpful"}


@pytest.mark.tried("logs", "`spec`: an outcome of yes and no, y and n, t and f", "a task")
@pytest.mark.parametrize("pair", [("yes", "no"), ("Y", "N"), ("t", "f")], ids=["words", "letters", "truth"])
def test_outcomes_of_two_texts_are_tasks(tmp_path: Path, pair: tuple[str, str]):
    log = events().with_columns(
        is_clicked=pl.when(pl.col("click") == 1).then(pl.lit(pair[0])).otherwise(pl.lit(pair[1]))
    )
    log.drop("click").write_csv(tmp_path / "log.csv")
    spec = written(drafted(tmp_path), tmp_path)
    frame = load_events(open_log(tmp_path, spec)).frame
    assert frame["label_clicked"].to_list() == log.sort("time", "user_id", "item_id")["click"].to_list()


@pytest.mark.tried("logs", "`spec`: an outcome of -1 and 1 alone", "refused, with the column")
def test_outcomes_of_other_numbers_are_refused(tmp_path: Path):
    events().with_columns(click=2 * pl.col("click") - 1).write_csv(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"log.csv: column click is -1 or 1 in all 600 rows .* should be 0 and 1"):
        drafted(tmp_path)


@pytest.mark.tried(
    "logs", "`spec`: the index that pandas writes, a column without a name or named like a pattern", "left out"
)
def test_columns_without_a_usable_name_are_left_out(tmp_path: Path):
    log = events().with_row_index("").with_columns(pl.Series("^a.*$", [1, 2, 3] * 200), pl.Series("*", [1, 2, 4] * 200))
    log.write_csv(tmp_path / "log.csv")
    made = drafted(tmp_path)
    assert made.context == [] and set(made.left) == {""}
    assert len(load_events(open_log(tmp_path, written(made, tmp_path))).frame) == 600


@pytest.mark.tried("logs", "`spec`: a CSV of UTF-16, or one that is Parquet", "refused")
def test_what_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "log.csv").write_bytes(events().write_csv().encode("utf-16"))
    with pytest.raises(UserError, match="log.csv: line 1: is not UTF-8"):
        drafted(tmp_path)
    events().write_parquet(tmp_path / "log.csv")
    with pytest.raises(UserError, match="log.csv: line 1: is not UTF-8"):
        drafted(tmp_path)


@pytest.mark.parametrize(
    ("values", "days"),
    [
        ([d.date() for d in DAYS], True),
        ([d.date().isoformat() for d in DAYS], True),
        ([s // 86_400 * 86_400 for s in SECONDS], True),
        ([d.strftime("%d.%m.%Y") for d in DAYS], True),
        (DAYS, False),
        (SECONDS, False),
        ([d.strftime("%d.%m.%Y %H:%M") for d in DAYS], False),
        ([d.isoformat() for d in DAYS], False),
    ],
    ids=["date", "text", "number", "layout", "datetime", "seconds", "layout with hours", "iso"],
)
def test_days_alone_are_said(tmp_path: Path, values: list[object], days: bool):
    events(60).with_columns(time=pl.Series(values)).write_parquet(tmp_path / "log.parquet")
    made = drafted(tmp_path)
    assert ("Days alone" in spec_text(made, [])) == days and (" (days alone)" in told(made)[1]) == days


def test_a_number_of_items_that_may_know_the_future_is_said(tmp_path: Path):
    log = events().with_columns(avg_rating=pl.col("item_id") / 10, size=pl.col("item_id") * 1.5)
    log.write_parquet(tmp_path / "log.parquet")
    text = spec_text(drafted(tmp_path), [])
    assert "# As of when is avg_rating? A total over the whole log knows the future." in text
