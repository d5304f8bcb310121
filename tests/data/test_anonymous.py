"""Events without a user: each has one of its own, whom nobody else meets, all at once and a day at a time."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, GROUPS, SPEC, START, prepare_frame, random_log, read_samples
from naive_asof import naive_samples

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.feature_state import FeatureState
from coldrank.data.log import LogSpec, check_spec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.split import split_by_time, split_by_users
from coldrank.data.statistics import views_column

OWN = replace(SPEC, anonymous="own", context={"place": "tag", "n": "n"})


def log(seed: int, share: float = 0.4) -> pl.DataFrame:
    """Distinct events, some without a user; `n` numbers them."""
    frame = random_log(seed).sort("time", "user", "item", maintain_order=True).with_row_index("n")
    gone = pl.Series(np.random.default_rng(seed).random(len(frame)) < share)
    return frame.with_columns(pl.col("n").cast(pl.Int64), user=pl.when(gone).then(None).otherwise("user"))


def without(frame: pl.DataFrame, way: str) -> tuple[pl.DataFrame, LogSpec]:
    """The log with users of which nobody is known in some way."""
    if way == "no column":
        return frame.drop("user"), replace(OWN, user=None, anonymous="refuse")
    if way == "empty text":
        return frame.with_columns(pl.col("user").cast(pl.String).fill_null("")), OWN
    return frame, OWN


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            w, marks=pytest.mark.tried("logs", f"users: {w}, anonymous='own'", "a new user each, for nobody else")
        )
        for w in ("null", "empty text", "no column")
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_an_anonymous_event_has_a_user_of_its_own(way: str, seed: int, tmp_path: Path) -> None:
    frame = log(seed, 1.0 if way == "no column" else 0.4)
    written, spec = without(frame, way)
    content = prepare_frame(written, tmp_path, spec)
    samples = read_samples(tmp_path).sort("n").to_dicts()
    events = [e | {"user": ("own", e["n"]) if e["user"] is None else e["user"]} for e in frame.to_dicts()]
    gone = [isinstance(e["user"], tuple) for e in events]
    for row, event, want in zip(samples, events, naive_samples(events, GROUPS, ["click", "like"], 4), strict=True):
        assert row["item_id"] == event["item"]
        for group in GROUPS:
            assert row[views_column(group.name)] == want[f"views:{group.name}"]
            for signal in ("click", "like"):
                assert np.float32(row[f"rate_{group.name}_{signal}"]) == want[f"rate:{group.name}:{signal}"]
        assert row["user_gap_h"] == want["gap_h"] and row["hist_item_id"] == [p["item"] for p in want["history"]]
    own = [row["user_id"] for row, g in zip(samples, gone, strict=True) if g]
    known = {row["user_id"] for row, g in zip(samples, gone, strict=True) if not g}
    assert len(set(own)) == len(own) > 0 and not known & set(own)
    assert content["counts"]["anonymous_events"] == len(own) and content["counts"]["users"] == len(known)


def options(**more: Any) -> PrepareOptions:
    return PrepareOptions(history=4, item_history=3, arguments={"split": "time"}, **more)


def rule(known: Any) -> Any:
    return split_by_time(known.days, None, 0)


def test_a_day_at_a_time_gives_the_same(tmp_path: Path) -> None:
    frame = log(5)
    times = [-1, START + 3 * DAY_MS, START + 4 * DAY_MS, 2**62]
    parts = [frame.filter(pl.col("time") > a, pl.col("time") <= b) for a, b in pairwise(times)]
    for name, some in (("all", [frame]), ("log", parts)):
        (tmp_path / name).mkdir()
        for n, part in enumerate(some):
            part.write_parquet(tmp_path / name / f"{n}.parquet")
    whole = prepare(open_log(tmp_path / "all", OWN), tmp_path / "whole", rule, options())
    made = prepare(open_log(tmp_path / "log" / "0.parquet", OWN), tmp_path / "out", rule, options(chunk_rows=20))
    for n in (1, 2):
        # Rows of before come again and are known: none is late.
        pl.concat([parts[n - 1], parts[n]]).write_parquet(tmp_path / f"{n}.parquet")
        added = append(open_log(tmp_path / f"{n}.parquet", OWN), tmp_path / "out", rule, options())
        assert added is not None and added["state"]["late"] == 0
        made = added
    files = [[(out / p["path"]).read_bytes() for p in m["partitions"]]
             for out, m in ((tmp_path / "whole", whole), (tmp_path / "out", made))]  # fmt: skip
    assert files[0] == files[1]
    assert made["counts"]["anonymous_events"] == whole["counts"]["anonymous_events"] == frame["user"].null_count()
    shown = {u for p in made["partitions"] for of in pl.read_parquet(tmp_path / "out" / p["path"])["item_hist_user_id"]
             for u in of}  # fmt: skip
    assert shown <= {-1, *frame["user"].drop_nulls()} and -1 in shown
    state = FeatureState.open(tmp_path / "out")
    features = state.features(None, [{"item_id": 3}], int(frame["time"].max()) + 1)  # type: ignore[arg-type]
    assert features["user_views"].to_pylist() == [0] and features["hist_item_id"].to_pylist() == [[]]
    assert features["item_views"].to_pylist() == [frame.filter(pl.col("item") == 3).height]
    with pytest.raises(
        UserError, match="spec: column 'user_id': id of user, ms, but id of user, ms, or anonymous when"
    ):
        append(open_log(tmp_path / "log", replace(OWN, anonymous="refuse")), tmp_path / "out", rule, options())


@pytest.mark.tried("logs", "a null user, an empty text for a user", "refused, with the row, unless anonymous='own'")
@pytest.mark.parametrize("way", ["null", "empty text"])
def test_anonymous_events_are_refused_by_default(way: str, tmp_path: Path) -> None:
    frame, _ = without(log(0), way)
    row, value = frame["user"].is_in([None, ""] if way == "empty text" else [None], nulls_equal=True).arg_max(), "''"
    message = rf"column user \(user_id\), row {(row or 0) + 1}: {value if way == 'empty text' else None} should not be"
    with pytest.raises(UserError, match=f"{message} empty; anonymous='own' in the spec makes it a user of its own"):
        prepare_frame(frame, tmp_path, replace(OWN, anonymous="refuse"))


@pytest.mark.tried("logs", "--split users with anonymous events", "these are for training")
def test_anonymous_events_are_for_training_where_users_are_held_out(tmp_path: Path) -> None:
    log(2).write_parquet(tmp_path / "log.parquet")
    split = lambda known: split_by_users(known.users, 0.4, 0.2, 1)
    content = prepare(open_log(tmp_path / "log.parquet", OWN), tmp_path / "out", split, options())
    of_train = {p["split"]: pl.read_parquet(tmp_path / "out" / p["path"], hive_partitioning=False)["n"].to_list()
                for p in content["partitions"] if p["split"] != "train"}  # fmt: skip
    gone = set(log(2).filter(pl.col("user").is_null())["n"])
    assert of_train and not gone & {n for rows in of_train.values() for n in rows}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": None, "user_table": "users.csv"}, "user_table: has no effect, as user is None"),
        ({"user": None, "user_features": {"age": "age"}}, "user_features: has no effect, as user is None"),
        ({"anonymous": "drop"}, "anonymous='drop'; should be 'refuse' or 'own'"),
    ],
)
def test_fields_that_have_no_effect(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"spec: {message}"):
        check_spec(replace(SPEC, **change))


def test_they_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{'' if d % 2 else d},2,{START + d * DAY_MS},1\n" for d in range(6))
    (tmp_path / "a.csv").write_text(f"user,item,time,click\n{rows}")
    fields = 'user="user", item="item", time="time", tasks={"click": "click"}, anonymous="own"'
    (tmp_path / "spec.py").write_text(f"from coldrank.data.log import LogSpec\nspec = LogSpec({fields})\n")
    arguments = ["--data", tmp_path / "a.csv", "--spec", tmp_path / "spec.py", "--out", tmp_path / "out"]
    assert main(["prepare", "log", *map(str, arguments)]) == 0
    assert "\n3 events (50.0%) are anonymous, of a user of their own each\n" in capsys.readouterr().out
