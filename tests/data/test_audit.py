"""Each fault is planted into a copy of sound data and found. Sound data and simulated logs have no alarm."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, START, prepare_frame

from coldrank.cli.main import main
from coldrank.configs.base import counts, history, personalization_code
from coldrank.data.audit.audit import Finding
from coldrank.data.audit.features import crossed_auc, encodings, rank_auc
from coldrank.data.audit.history import NONE, TIED, Around
from coldrank.data.audit.report import audit
from coldrank.data.log import Group, LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_users
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.train.checks import as_arm
from coldrank.train.config import RunConfig
from coldrank.train.load import load

Change = Callable[[pl.DataFrame, str], pl.DataFrame]
SPEC = LogSpec(
    user="user",
    item="item",
    time="time",
    tasks={"click": "click", "like": "like"},
    keys={"author": "author"},
    groups=(Group(keys=("author",)), Group(keys=("user", "author"), parent="user")),
    history={"author": "author"},
    context={"place": "place", "length": "length"},
)
DAYS, HISTORY = 8, 5


def event_log(rows: int = 9000) -> pl.DataFrame:
    """Users differ in their rates, one event in ten repeats the user's item before, one like in five is unknown."""
    rng = np.random.default_rng(5)
    user, time = rng.integers(0, 320, rows), np.sort(START + rng.integers(0, DAYS * DAY_MS, rows))
    item = rng.integers(0, 420, rows)
    last: dict[int, int] = {}
    for i in range(rows):
        if user[i] in last and rng.random() < 0.1:
            item[i] = item[last[user[i]]]
        last[user[i]] = i
    rate = rng.beta(2, 4, 320)[user]
    like = [None if rng.random() < 0.2 else int(rng.random() < r / 2) for r in rate]
    return pl.DataFrame(
        {
            "user": user,
            "item": item,
            "time": time,
            "click": (rng.random(rows) < rate).astype(np.int8),
            "like": like,
            "author": item // 10,
            "place": rng.integers(0, 5, rows),
            "length": rng.gamma(2.0, 10.0, rows).astype(np.float32),
        }
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound prepared data."""
    folder = tmp_path_factory.mktemp("audit")
    prepare_frame(event_log(), folder, SPEC, HISTORY)
    return folder / "out"


def with_fault(sound: Path, folder: Path, change: Change) -> Path:
    """A copy of the data whose samples are changed, file by file; the manifest follows."""
    shutil.copytree(sound, folder / "data")
    manifest = json.loads((folder / "data/manifest.json").read_text())
    for part in manifest["partitions"]:
        path = folder / "data" / part["path"]
        frame = change(pl.read_parquet(path, hive_partitioning=False), part["split"])
        frame.write_parquet(path)
        part["rows"] = len(frame)
    (folder / "data/manifest.json").write_text(json.dumps(manifest))
    return folder / "data"


def on(*splits: str, **columns: pl.Expr) -> Change:
    """Changes columns in the splits (none given: in all)."""
    return lambda frame, split: frame.with_columns(**columns) if not splits or split in splits else frame


def alarms(path: Path, config: RunConfig | None = None) -> list[Finding]:
    """Warnings and errors."""
    return [f for f in audit(path, as_arm(config) if config else None).findings if f.severity != "note"]


LABEL = pl.col("label_click").cast(pl.Int64)
OWN = pl.concat_list(pl.col("item_id"), pl.col("hist_item_id").list.head(HISTORY - 1))
FIRST = pl.int_range(pl.len()) == 2
FAULTS = {
    "NaN": (
        on(length=pl.when(FIRST).then(float("nan")).otherwise("length")),
        "error", "values", "length", "[0-9] NaN .*row 3",
    ),
    "infinite": (
        on(length=pl.when(FIRST).then(float("inf")).otherwise("length")), "error", "values", "length", "infinite",
    ),
    "rate": (
        on(rate_user_click=pl.col("rate_user_click") + 0.9), "error", "values", "rate_user_click", r"outside 0\.\.1",
    ),
    "count": (on("valid", views_author=pl.lit(-3)), "error", "values", "views_author", "below 0"),
    "label": (on("test", label_like=pl.lit(2)), "error", "values", "label_like", "neither 0 nor 1"),
    "half a label": (on("test", label_like=pl.lit(0.5)), "error", "values", "label_like", "neither 0 nor 1"),
    "missing user": (
        on(user_id=pl.when(FIRST).then(None).otherwise("user_id")), "error", "values", "user_id", "missing",
    ),
    "signal": (
        on(hist_click=pl.col("hist_click").list.eval(pl.element() * 2)),
        "error", "values", "hist_click", "outside -1",
    ),
    "null in a list": (
        on(hist_author=pl.col("hist_author").list.eval(pl.when(pl.element() != 3).then(pl.element()))),
        "error", "values", "hist_author", "missing",
    ),
    "unequal lists": (
        on(hist_author=pl.col("hist_author").list.tail(4)), "error", "values", r"hist_\*", "differ in length",
    ),
    "order": (lambda f, _: f.reverse(), "error", "order", "time", "row 2 is earlier"),
    "duplicates": (
        lambda f, s: pl.concat([f, f.head(9)]).sort("time") if s == "train" else f,
        "warning", "duplicates", "", r"\(0\.\d+%\) repeat",
    ),
    "in the future": (on("test", time=pl.col("time") - 4 * DAY_MS), "error", "splits", "", "see the future"),
    "labels flipped": (
        on("test", label_click=(LABEL.cast(pl.Boolean) | (pl.col("time") % 2 == 0)).cast(pl.Int8)),
        "warning", "label drift", "test: label_click", r"log-odds \+",
    ),
    "never known": (on(label_like=pl.lit(None, pl.Int8)), "error", "labels", "label_like", "no sample has"),
    "one class": (on("train", "valid", label_like=pl.lit(0)), "error", "labels", "label_like", "are 0"),
    "one class in test": (on("test", label_click=pl.lit(1)), "warning", "labels", "test: label_click", "are 1"),
    "partly unknown": (
        on("test", label_click=pl.lit(None, pl.Int8)), "warning", "labels", "", "no sample has this label",
    ),
    "other items": (on("test", item_id=pl.col("item_id") + 10**6), "error", "id drift", "test: item_id", r"100\.0%"),
    "constant": (on("train", "valid", place=pl.lit(4)), "warning", "constant", "train", "place"),
    "missing in test": (on("test", place=pl.lit(None, pl.Int64)), "warning", "missing", "place", r"100\.0% in test"),
    "label as feature": (on(place=LABEL), "error", "leak", "place", r"click with AUC 1\.000"),
    "tells when null": (on(place=pl.when(LABEL == 1).then("place")), "error", "leak", "place", "click with AUC 1"),
    "not monotonic": (
        on(length=pl.when(LABEL == 1).then(pl.col("length").sin() + 2.0).otherwise(pl.col("length").sin() * 3 + 9.0)),
        "error", "leak", "length", "click with AUC",
    ),
    "weak leak": (
        on(place=pl.when(pl.col("time") % 5 < 2).then("place").otherwise(LABEL + 7)),
        "warning", "leak", "place", r"click with AUC 0\.[89]",
    ),
    "history shows itself": (
        on(hist_click=pl.when(pl.col("hist_click").list.len() > 0).then(
            pl.concat_list(pl.col("label_click"), pl.col("hist_click").list.slice(1))
        ).otherwise("hist_click")),
        "error", "history", "hist_click", "the sample's own label is",
    ),
    "history holds itself": (on(hist_item_id=OWN), "error", "history", "hist_item_id", "than the user met it before"),
    "counts itself": (
        on(user_views=pl.col("user_views") + 1), "error", "as of time", "user_views", "with the sample itself",
    ),
    "rate holds itself": (
        on(rate_user_x_author_like=(pl.col("rate_user_x_author_like") * 10 + pl.col("label_like").fill_null(0)) / 11),
        "error", "as of time", "rate_user_x_author_like", "AUC 1.000",
    ),
}  # fmt: skip


def test_sound_data_have_no_alarm(sound):
    done = audit(sound)
    assert alarms(sound) == [] and done.complete and done.rows == 9000 == done.sampled


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(sound, tmp_path, fault):
    change, severity, check, where, what = FAULTS[fault]
    findings = alarms(with_fault(sound, tmp_path, change))
    hits = [f for f in findings if f.severity == severity and f.check == check and re.search(where, f.where)]
    assert any(re.search(what, f.what) for f in hits), findings


def test_the_history_that_shows_the_next_event_is_found(sound, tmp_path):
    every = pl.concat([pl.read_parquet(p, hive_partitioning=False) for p in sound.rglob("*.parquet")]).sort("time")
    following = every.select("user_id", "time", next=pl.col("item_id").shift(-1).over("user_id"))

    def change(frame: pl.DataFrame, _: str) -> pl.DataFrame:
        joined = frame.join(following, on=["user_id", "time"], how="left", maintain_order="left")
        return joined.with_columns(hist_item_id=pl.concat_list(pl.col("next").fill_null(1), "hist_item_id")).select(
            frame.columns
        )

    findings = alarms(with_fault(sound, tmp_path, change))
    assert any(f.severity == "error" and "it is the next one" in f.what for f in findings), findings


def test_a_sample_that_is_trained_on_and_tested_is_found(sound, tmp_path):
    test = next((sound / "samples/split=test").rglob("*.parquet"))
    taken = pl.read_parquet(test, hive_partitioning=False).head(1)
    change: Change = lambda frame, split: pl.concat([frame, taken]) if split == "valid" else frame
    findings = alarms(with_fault(sound, tmp_path, change))
    assert any(f.check == "splits" and "trained on and are in test" in f.what for f in findings)


def test_periods_with_another_rate_or_other_ids_are_named(sound, tmp_path):
    cut = START + 3 * DAY_MS
    third = pl.col("time").is_between(cut, cut + DAY_MS)
    always = pl.when(third).then(1).otherwise("label_click").cast(pl.Int8)
    new_ids = pl.when(third).then(pl.col("user_id") + 10**6).otherwise("user_id")
    findings = alarms(with_fault(sound, tmp_path, on(label_click=always, user_id=new_ids)))
    of_period = [f for f in findings if f.where.startswith("period 2022-04-18")]
    by_column = {(f.check, f.where.split(":")[1].strip()): f for f in of_period}
    assert "100.0%" in by_column["label drift", "label_click"].what.replace("100.00%", "100.0%")
    assert "are new" in by_column["id drift", "user_id"].what


def test_users_of_both_splits_are_found_where_the_split_is_by_users(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    event_log(4000).write_parquet(log / "events.parquet")
    options = PrepareOptions(history=HISTORY, arguments={"split": "users"})
    by_users = lambda known: split_by_users(known.users, 0.3, 0.1, 1)
    prepare(open_log(log, SPEC), tmp_path / "out", by_users, options)
    assert alarms(tmp_path / "out") == []
    user = int(pl.read_parquet(next((tmp_path / "out/samples/split=test").rglob("*.parquet")))["user_id"][0])
    change = on("train", user_id=pl.when(FIRST).then(user).otherwise("user_id"))
    (finding,) = (f for f in alarms(with_fault(tmp_path / "out", tmp_path, change)) if f.check == "splits")
    assert finding.severity == "error" and finding.what.startswith("1 users") and str(user) in finding.what


def arm(**changes: object) -> RunConfig:
    """An arm over the sound data."""
    config = RunConfig(
        name="arm",
        tasks={"click": Binary()},
        features=(
            Feature(name="item_id", role="item", kind="id", table="item"),
            Feature(name="place", role="context", kind="id", table="place", default=-1),
            Feature(name="length", role="context", kind="number", transform="log1p"),
            *counts(["user_views"], dim=4),
            *history(HISTORY, {"hist_item_id": "item", "hist_author": "place"}, ("click",)),
            personalization_code("user_views", dim=4),
        ),
        tables=(
            Table(name="item", rows=512, dim=4, mapping="vocabulary", min_count=2),
            Table(name="place", rows=64, dim=4),
        ),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def feature(name: str, **changes: object) -> RunConfig:
    features = (replace(f, **changes) if f.name == name else f for f in arm().features)  # type: ignore[arg-type]
    return arm(features=tuple(features))


def table(name: str, **changes: object) -> RunConfig:
    tables = (replace(t, **changes) if t.name == name else t for t in arm().tables)  # type: ignore[arg-type]
    return arm(tables=tuple(tables))


@pytest.mark.parametrize(
    ("config", "where", "what"),
    [
        (table("item", rows=100), "table item", r"4\d\d ids occur 2 times or more, rows for 99"),
        (table("item", rows=100, mapping="growing", min_count=1), "table item", r"^4\d\d ids, rows for 99; the others"),
        (
            table("item", rows=100, mapping="managed", min_count=1),
            "table item", r"^4\d\d ids, rows for 99; they take turns",
        ),
        (table("place", rows=6), "table place", "5 ids on 6 rows"),
        (table("place", rows=6, mapping="multi_hash"), "table place", "share each of their 2 rows with another"),
        (
            feature("user_views_bucket", edges=(1000.0, 2000.0)),
            "feature user_views_bucket", "100.0% of the values are in one bucket",
        ),
        (feature("length", transform="logit"), "feature length", "the values are"),
        (
            arm(features=tuple(replace(f, length=20) if f.role == "sequence" else f for f in arm().features)),
            "sequence", "more than 5",
        ),
        (arm(data=replace(arm().data, fit=("train", "past"))), "arm", "data.fit names past; the data has"),
        (
            arm(features=(*arm().features, Feature(name="colour", role="user", kind="number"))),
            "part-0", "no column 'colour'",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_data_are_named(sound, config, where, what):
    findings = alarms(sound, config)
    assert any(where in f.where and re.search(what, f.what) for f in findings), findings


def test_an_arm_that_fits_has_no_alarm_and_only_its_features_count(sound, tmp_path):
    assert alarms(sound, arm()) == []
    broken = with_fault(sound, tmp_path, on(rate_author_click=pl.lit(7.0), place=pl.lit(3)))
    findings = alarms(broken, arm())
    assert [(f.severity, f.check) for f in findings] == [("warning", "constant")] and "place" in findings[0].what


def test_how_well_the_inputs_tell_new_users(sound):
    """An arm's inputs with its counts tell them wholly; ids of items and the place in the app do not."""

    rate = Feature(name="rate_user_click", role="context", kind="number", transform="logit")

    def told(*kept: str) -> dict[str, object]:
        features = (f for f in (*arm().features, rate) if f.name in kept or f.role == "pc")
        config = arm(features=tuple(features))
        (finding,) = (f for f in audit(sound, as_arm(config)).findings if f.check == "newness")
        return finding.figures

    assert told("item_id", "user_views")["auc"] == 1 and told("item_id", "user_views")["column"] == "user_views"
    blind = told("item_id", "place")
    assert 0.4 < blind["auc"] < 0.62
    partly = told("item_id", "place", "rate_user_click")
    assert blind["auc"] + 0.1 < partly["auc"] and partly["column"] == "rate_user_click"


def test_a_default_that_is_an_id_is_named(sound, tmp_path):
    data = with_fault(sound, tmp_path, on(place=pl.when(pl.col("place") != 2).then("place")))
    (finding,) = alarms(data, feature("place", default=0))
    assert finding.where == "feature place" and "default=0 stands for" in finding.what


def test_files_that_the_manifest_does_not_know_or_that_are_gone(sound, tmp_path):
    data = with_fault(sound, tmp_path, lambda f, _: f)
    first, second, *_ = sorted(data.rglob("*.parquet"))
    shutil.copy(first, first.with_name("more.parquet"))
    pl.read_parquet(first, hive_partitioning=False).head(3).write_parquet(first)
    second.unlink()
    done = audit(data)
    faults = sorted((f.severity, f.where.rsplit("/", 1)[1], f.what.split(";")[0]) for f in done.findings)
    assert [t[:2] for t in faults] == [("error", "part-0.parquet")] * 2 + [("warning", "more.parquet")]
    assert faults[0][2] == "3 rows" and "cannot be read" in faults[1][2] and not done.complete


def test_the_command_s_exit_codes_and_files(sound, tmp_path, capsys):
    def run(*arguments: str) -> int:
        try:
            return main(["check", *arguments])
        except SystemExit as done:
            return int(done.code or 0)

    assert run("--data", str(sound), "--out", str(tmp_path / "report"), "--strict") == 0
    content = json.loads((tmp_path / "report/check.json").read_text())
    assert content["rows"] == 9000 and content["limits"]["z"] == 4.5
    assert (tmp_path / "report/check.md").read_text().startswith("# Check of the data")
    odd = with_fault(sound, tmp_path, on("test", place=pl.lit(None, pl.Int64)))
    assert run("--data", str(odd)) == 0 and run("--data", str(odd), "--strict") == 1
    assert "missing in 0.0% of the values" in " ".join(capsys.readouterr().out.replace("|", " ").split())
    shutil.rmtree(odd)
    assert run("--data", str(with_fault(sound, tmp_path, on(user_views=pl.lit(-1))))) == 1
    assert run("--data", str(tmp_path)) == 2 and run("--data", str(sound), "--out", str(tmp_path / "report")) == 2
    assert "exists already" in capsys.readouterr().err


def test_auc_of_a_feature_is_that_of_unseen_rows():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 20_000).astype(np.int8)
    noise = pl.Series(rng.integers(0, 5_000, len(y)))
    assert all(abs(crossed_auc(c, y) - 0.5) < 0.02 for c in encodings(noise))
    assert rank_auc(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, True, False, True])) == 0.875
    assert rank_auc(np.array([0.1, 0.5]), np.array([True, True])) == 0.5


def test_what_lies_around_a_row():
    codes, time = np.array([0, 1, 0, 0, 0, 0]), np.array([50, 10, 10, 20, 20, 30])
    around = Around.from_codes(codes, time, np.arange(6))
    assert around.before.tolist() == [4, 0, 0, 1, 1, 3] and around.total.tolist() == [5, 1, 5, 5, 5, 5]
    assert around.upto.tolist() == [5, 1, 1, 3, 3, 4]
    assert around.previous.tolist() == [5, NONE, NONE, 2, 2, TIED]
    assert around.following.tolist() == [NONE, NONE, TIED, 5, 5, 0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_simulated_logs_have_no_alarm(tmp_path, seed):
    log, data = str(tmp_path / "log"), tmp_path / "data"
    assert main(["simulate", "--events", "30000", "--days", "8", "--seed", str(seed), "--out", log]) == 0
    assert main(["prepare", "kuairand", "--data", log, "--out", str(data), "--test-from", "2022-05-04"]) == 0
    assert alarms(data) == []
    arm_s = alarms(data, load("coldrank.configs.kuairand:base"))
    assert {f.check for f in arm_s} <= {"constant", "arm"}, arm_s


@pytest.mark.parametrize(
    "change",
    [
        {"known_after": {"click": 7200, "like": "wait"}},
        {"refresh_h": 24.0},
        {"refresh_h": 1.0, "known_after": {"like": 60}},
    ],
    ids=["delays", "refreshed daily", "refreshed hourly"],
)
def test_what_is_known_late_is_no_fault_and_a_leak_is_still_found(change: dict[str, Any], tmp_path: Path) -> None:
    wait = pl.Series(np.random.default_rng(2).integers(0, 90_000, 9000))
    prepare_frame(event_log().with_columns(wait=wait), tmp_path, replace(SPEC, **change), HISTORY)
    assert not {f.check for f in alarms(tmp_path / "out")} & {"as of time", "history"}
    assert not {f.check for f in audit(tmp_path / "out", None).findings} & {"as of time", "history"}
    own = pl.concat_list(LABEL.cast(pl.Int8), pl.col("hist_click").list.tail(-1))
    leak = on(hist_click=pl.when(pl.col("hist_click").list.len() > 0).then(own).otherwise("hist_click"))
    found = {(f.check, f.where) for f in alarms(with_fault(tmp_path / "out", tmp_path, leak)) if f.severity == "error"}
    assert ("history", "all splits: hist_click") in found
