"""Sampled negatives: which items are drawn, what their rows hold, and that nothing else knows of them."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, GROUPS, SPEC, START, random_log
from naive_asof import naive_samples
from naive_negatives import naive_draws

from coldrank.cli.main import main
from coldrank.data.audit.scan import spacing
from coldrank.data.errors import UserError
from coldrank.data.feature_state import FeatureState
from coldrank.data.log import SAMPLED, Group, LogSpec, Negatives, check_spec
from coldrank.data.negatives.draw import draw, event_keys
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.split import split_by_share, split_by_users
from coldrank.data.statistics import views_column

SIGNALS = ["click", "like"]
NEGATIVES = Negatives(per_positive=3, keys={"author": "item", "tag": "event"})
PAIRS = Group(keys=("user", "item"))
BASE = replace(
    SPEC,
    groups=(*SPEC.groups, PAIRS),
    numbers={"watch_s": "watch_s"},
    weight="price",
    item_features={"price": "price", "vector": "vector"},
    user_features={"mood": "watch_s"},
)
SPECS = {
    "uniform": replace(BASE, negatives=NEGATIVES),
    "popular": replace(BASE, negatives=replace(NEGATIVES, draw="popularity", power=0.75, seed=9), utc_offset_h=5.5),
    "unseen": replace(BASE, negatives=replace(NEGATIVES, seen="never", of="click")),
    "late": replace(
        BASE,
        negatives=replace(NEGATIVES, draw="popularity", seen="never", of="like"),
        known_after={"click": 7200, "like": 26 * 3600},
        refresh_h=3.0,
    ),
}


def log_of(seed: int, rows: int = 160) -> pl.DataFrame:
    """Distinct events in order; what an item costs changes."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 50, (rows, 3)).astype(np.float32)
    frame = random_log(seed, rows).with_columns(
        price=pl.Series(numbers[:, 0]), watch_s=pl.Series(numbers[:, 1]), vector=pl.Series(numbers.tolist())
    )
    return frame.sort("time", "user", "item", maintain_order=True)


def write(frame: pl.DataFrame, folder: Path, name: str = "events") -> Path:
    (folder / "log").mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "log" / f"{name}.parquet")
    return folder / "log"


def options(**more: Any) -> PrepareOptions:
    return PrepareOptions(**({"history": 4, "item_history": 3, "arguments": {"split": "time"}} | more))


def prepared(frame: pl.DataFrame, folder: Path, spec: LogSpec, **more: Any) -> pl.DataFrame:
    log = open_log(write(frame, folder), spec)
    prepare(log, folder / "out", lambda known: split_by_share(known.times), options(**more))
    return samples_of(folder)


def manifest_of(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "out" / "manifest.json").read_text())
    return made


def samples_of(folder: Path) -> pl.DataFrame:
    """In the order of time, each event with its negatives behind it, and the split."""
    parts = [
        pl.read_parquet(folder / "out" / p["path"], hive_partitioning=False).with_columns(split=pl.lit(p["split"]))
        for p in manifest_of(folder)["partitions"]
    ]
    return pl.concat(parts).sort("time", maintain_order=True)


def drawn(samples: pl.DataFrame) -> list[list[int]]:
    """The items of the negatives behind each event."""
    by_event: list[list[int]] = []
    for item, sampled in samples.select("item_id", "sampled").iter_rows():
        if sampled:
            by_event[-1].append(item)
        else:
            by_event.append([])
    return by_event


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("chunk_rows", [1, 1 << 20])
@pytest.mark.parametrize("case", SPECS)
def test_every_column_equals_the_double_loop(case: str, chunk_rows: int, seed: int, tmp_path: Path) -> None:
    spec, log = SPECS[case], log_of(seed)
    assert spec.negatives is not None
    samples = prepared(log, tmp_path, spec, chunk_rows=chunk_rows)
    after = {f"after:{s}": pl.lit(1000 * d) for s, d in spec.known_after.items()}
    events = log.with_columns(**after).to_dicts()
    draws = naive_draws(events, spec.negatives, period_h=max(1, spec.refresh_h), offset_h=spec.utc_offset_h)
    assert drawn(samples) == draws
    assert 0 < sum(map(len, draws)) == samples["sampled"].sum()
    asked: list[dict[str, Any]] = []
    for event, items in zip(events, draws, strict=True):
        asked.append(event | {"sampled": 0})
        for item in items:
            last = [p for p in events if p["item"] == item and p["time"] < event["time"]][-1]
            of_item = {n: last[n] for n in ("item", "author", "birth", "price", "vector")}
            asked.append(event | of_item | {"sampled": 1, "click": 0, "watch_s": None, "weight": event["price"]})
    wanted = naive_samples(events, [*GROUPS, PAIRS], SIGNALS, 4, refresh_h=spec.refresh_h, asked=asked)
    for row, ask, want in zip(samples.to_dicts(), asked, wanted, strict=True):
        for group in [*GROUPS, PAIRS]:
            assert row[views_column(group.name)] == want[f"views:{group.name}"]
            for signal in SIGNALS:
                assert np.float32(row[f"rate_{group.name}_{signal}"]) == want[f"rate:{group.name}:{signal}"]
        assert (row["user_gap_h"], row["item_age_h"]) == (want["gap_h"], want["age_h"])
        assert row["hist_item_id"] == [p["item"] for p in want["history"]]
        before = [p["user"] for p in events if p["item"] == ask["item"] and p["time"] < _seen(ask["time"], spec)]
        assert row["item_hist_user_id"] == before[-3:][::-1]
        same = {"item_id": "item", "label_click": "click", "label_watch_s": "watch_s", "item_price": "price"}
        same |= {"item_vector": "vector", "sampled": "sampled", "user_id": "user"}
        assert {n: row[n] for n in same} == {n: ask[c] for n, c in same.items()}
        assert row["weight"] == ask.get("weight", ask["price"])


def _seen(time: int, spec: LogSpec) -> int:
    every = int(spec.refresh_h * 3_600_000)
    return time // every * every if every else time


@pytest.mark.parametrize("case", SPECS)
def test_events_are_as_without_negatives(case: str, tmp_path: Path) -> None:
    log = log_of(3)
    plain = prepared(log, tmp_path / "plain", replace(SPECS[case], negatives=None))
    samples = prepared(log, tmp_path / "sampled", SPECS[case])
    assert samples.filter(pl.col("sampled") == 0).drop("sampled").equals(plain, null_equal=True)
    # A negative is of its event's split, place and user.
    event = samples.filter(pl.col("sampled") == 0)[(1 - samples["sampled"]).cum_sum().cast(pl.Int64) - 1]
    same = ["split", "user_id", "time", "place", "user_views", "user_mood", "hist_item_id", "rate_user_click"]
    assert samples.select(same).equals(event.select(same), null_equal=True)
    state = [{n: v for n, v in manifest_of(tmp_path / f)["state"]["schema"].items()} for f in ("plain", "sampled")]
    assert state[0] == state[1]


@pytest.mark.parametrize("case", SPECS)
def test_the_future_changes_no_draw(case: str, tmp_path: Path) -> None:
    log, time = log_of(4), START + 2 * DAY_MS + 12 * 3_600_000
    later = pl.col("time") > time
    changed = pl.concat([log.filter(~later), log_of(5).filter(later).with_columns(pl.col("item") + 3)])
    first, second = (
        prepared(frame, tmp_path / name, SPECS[case]).filter(pl.col("time") <= time).drop("split")
        for name, frame in (("log", log), ("changed", changed))
    )
    assert first["sampled"].sum() > 20 and first.equals(second, null_equal=True)


@pytest.mark.parametrize("case", [*SPECS, "anonymous"])
def test_a_day_at_a_time_equals_all_at_once(case: str, tmp_path: Path) -> None:
    spec, log = replace(SPECS.get(case, SPECS["late"]), anonymous="own"), log_of(6)
    if case == "anonymous":
        log = log.with_columns(user=pl.when(pl.col("user") == 0).then(None).otherwise("user"))
    whole = prepared(log, tmp_path / "whole", spec)
    # At the ends of days, and within an hour of an event.
    bounds = [0, *(START + k * DAY_MS for k in (2, 3)), START + 3 * DAY_MS + 7_000_001, 2**62]
    parts = [log.filter(pl.col("time").is_between(a, b, closed="left")) for a, b in pairwise(bounds)]
    prepared(parts[0], tmp_path / "days", spec, chunk_rows=20)
    rule = lambda known: split_by_share(known.times)
    for number, part in enumerate(parts[1:]):
        days = open_log(write(part, tmp_path / "days", f"day-{number}"), spec)
        append(days, tmp_path / "days" / "out", rule, options(chunk_rows=1 + 40 * number))
    assert samples_of(tmp_path / "days").equals(whole, null_equal=True)
    made = [manifest_of(tmp_path / n) for n in ("whole", "days")]
    assert made[0]["splits"] == made[1]["splits"]
    counts = [{n: v for n, v in m["counts"].items() if n != "files_read"} for m in made]
    assert counts[0] == counts[1] and counts[0]["negatives"] == whole["sampled"].sum()


TABLE_SPEC = LogSpec(
    user="user",
    item="item",
    time="time",
    tasks={"click": "click"},
    keys={"author": "item_author", "tag": "tag"},
    groups=(Group(keys=("author",)), Group(keys=("user", "author"), parent="user")),
    item_table="items/items.parquet",
    item_features={"author": "author", "born": "born"},
    item_birth=pl.col("item_born"),
    negatives=replace(NEGATIVES, keys={"tag": "event"}),
)


@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("draw", ["uniform", "popularity"])
def test_items_of_a_table_are_there_from_their_births_on(draw: str, shuffled: bool, tmp_path: Path) -> None:
    log = log_of(7)
    assert TABLE_SPEC.negatives is not None
    settings = replace(TABLE_SPEC.negatives, draw=draw)
    # Items that nobody meets, items whose birth nobody knows, and one that is born after its first events.
    born = {i: None if i % 4 == 3 else START + (i - 3) * DAY_MS // 4 for i in range(24)} | {5: START + 4 * DAY_MS}
    items = pl.DataFrame({"item_id": list(born), "author": [f"a{i // 3}" for i in born], "born": list(born.values())})
    items = items.sample(fraction=1, shuffle=True, seed=1) if shuffled else items.sort("born", "item_id")
    write(log, tmp_path)
    (tmp_path / "log" / "items").mkdir()
    items.write_parquet(tmp_path / "log" / "items" / "items.parquet")
    spec = replace(TABLE_SPEC, negatives=settings)
    prepare(open_log(tmp_path / "log", spec), tmp_path / "out", lambda known: split_by_share(known.times), options())
    samples, events = samples_of(tmp_path), log.to_dicts()
    assert drawn(samples) == naive_draws(events, settings, {i: b for i, b in born.items() if b is not None})
    negatives = samples.filter(pl.col("sampled") == 1)
    unmet = negatives.filter(pl.col("item_views") == 0)
    assert len(unmet) > 20 or draw == "popularity"
    authors = {i: str(a) for i, a in items.select("item_id", "author").iter_rows()}
    for row in negatives.to_dicts():
        before = [p for p in events if p["time"] < row["time"] and authors.get(p["item"]) == authors[row["item_id"]]]
        assert row["views_author"] == len(before)
        assert row["views_user_x_author"] == sum(p["user"] == row["user_id"] for p in before)
        birth = born[row["item_id"]]
        if birth is not None:
            assert row["item_age_h"] == np.float32(max(row["time"] - birth, 0) / 3_600_000)


def test_draws_are_uniform_or_by_popularity_without_replacement() -> None:
    weights = np.array([4, 0, 2, 1, 1], np.int64)
    keys = event_keys(1, *(np.arange(40_000), np.zeros(40_000, np.int64), np.zeros(40_000, np.int64)))
    ends = np.full(40_000, 5)
    nothing = lambda rows, places: np.zeros(len(rows), bool)
    first = draw(keys, ends, weights, nothing, 2)
    assert np.allclose(np.bincount(first[:, 0], minlength=5) / 40_000, weights / 8, atol=0.01)
    # The second by what is left: of 0, then of 2, 3 or 4.
    second = np.bincount(first[first[:, 0] == 0, 1], minlength=5)
    assert np.allclose(second / second.sum(), [0, 0, 0.5, 0.25, 0.25], atol=0.02)
    assert np.allclose(np.bincount(draw(keys, ends, None, nothing, 1)[:, 0]) / 40_000, 0.2, atol=0.01)
    # Nearly all is taken: the one that is left is found, and never more.
    only_3 = lambda rows, places: places != 3
    many = draw(keys[:50], np.full(50, 3000), None, only_3, 2)
    assert (many == [3, -1]).all()
    # What is looked at in the end is as what luck finds: by the weights that are left.
    far = lambda rows, places: places > 4
    wide = np.append(weights, np.full(20_000, 10**6))
    late = draw(keys[:3000], np.full(3000, len(wide)), wide, far, 1)[:, 0]
    assert np.allclose(np.bincount(late, minlength=5) / 3000, weights / 8, atol=0.04)


@pytest.mark.parametrize("split", ["users", "periods"])
def test_a_negative_is_where_its_event_is(split: str, tmp_path: Path) -> None:
    log = open_log(write(log_of(8), tmp_path), SPECS["uniform"])
    by_users = lambda known: split_by_users(known.users, 0.3, 0.2, 1)
    rule = by_users if split == "users" else lambda known: split_by_share(known.times)
    given = options(periods=0 if split == "users" else 7)
    made = prepare(log, tmp_path / "out", rule, given)
    plain = prepare(replace(log, spec=replace(log.spec, negatives=None)), tmp_path / "plain" / "out", rule, given)
    parts, rest = ({(p["split"], p["period"]): p["rows"] for p in m["partitions"]} for m in (made, plain))
    assert parts.keys() == rest.keys()
    samples = samples_of(tmp_path)
    for name, of in made["splits"].items():
        rows = samples.filter(pl.col("split") == name)
        assert (of["rows"], of["negatives"]) == (len(rows), rows["sampled"].sum())
        assert of["rows"] - of["negatives"] == plain["splits"][name]["rows"]
    assert made["counts"]["events_with_fewer_negatives"] == sum(len(d) < 3 for d in drawn(samples))


def test_a_log_that_is_replayed_gives_the_events_samples(tmp_path: Path) -> None:
    log, cut = log_of(9, rows=80), START + 3 * DAY_MS
    whole = prepared(log, tmp_path / "whole", SPECS["uniform"]).filter(pl.col("sampled") == 0)
    prepared(log.filter(pl.col("time") < cut), tmp_path / "early", SPECS["uniform"])
    state, late, got = FeatureState.open(tmp_path / "early" / "out"), log.filter(pl.col("time") >= cut), []
    for row in late.to_dicts():
        candidate = {n: row[c] for n, c in {"item_id": "item", "birth": "birth"}.items()}
        candidate["keys"] = {"author": row["author"], "tag": row["tag"]}
        got.append(pl.DataFrame(pl.from_arrow(state.features(row["user"], [candidate], row["time"]))))
        event = {"user_id": row["user"], "time": row["time"], "history": {"author": row["author"]}}
        state.observe(candidate | event | {"signals": {s: row[s] for s in SIGNALS}})
    features = pl.concat(got)
    assert features.equals(whole.filter(pl.col("time") >= cut).select(features.columns), null_equal=True)


@pytest.mark.tried("logs", "--append of an event that equals a sampled negative", "it is late, and counted")
def test_a_late_event_is_not_taken_for_a_negative(tmp_path: Path) -> None:
    log = log_of(10)
    samples = prepared(log, tmp_path, SPECS["uniform"])
    negative = samples.filter(pl.col("sampled") == 1)[5]
    late = log.head(1).with_columns(time=negative["time"], user=negative["user_id"], item=negative["item_id"])
    write(late, tmp_path, "late")
    rule = lambda known: split_by_share(known.times)
    made = append(open_log(tmp_path / "log", SPECS["uniform"]), tmp_path / "out", rule, options())
    assert made is not None and made["state"]["late"] == 1


@pytest.mark.tried("logs", "--append with other settings of negatives", "refused, with the field")
def test_other_negatives_than_before_are_refused(tmp_path: Path) -> None:
    prepared(log_of(0), tmp_path, SPECS["uniform"])
    other = replace(BASE, negatives=replace(NEGATIVES, seed=2))
    rule = lambda known: split_by_share(known.times)
    for spec in (other, BASE):
        with pytest.raises(UserError, match="spec: negatives '(seed|per_positive)'.*prepare the data anew"):
            append(open_log(tmp_path / "log", spec), tmp_path / "out", rule, options())


def tried(given: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("logs", given, "refused, with the field and the value")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"per_positive": 0}, "per_positive=0; should be", marks=tried("a spec with 0 negatives")),
        pytest.param({"draw": "best"}, "draw='best'; should be 'uniform' or", marks=tried("negatives drawn as 'best'")),
        pytest.param({"power": 0.5}, "power=0.5: has no effect", marks=tried("negatives: a power of uniform draws")),
        pytest.param(
            {"draw": "popularity", "power": 2.0}, "power=2.0; should be", marks=tried("negatives: a power of 2")
        ),
        pytest.param({"seed": -1}, "seed=-1; should be", marks=tried("negatives: a seed below 0")),
        pytest.param({"of": "buy"}, "of='buy' is no task", marks=tried("negatives of what is no task or signal")),
        pytest.param({"seen": "never"}, "seen='never' needs Group", marks=tried("negatives: seen without its group")),
        pytest.param({"keys": {"x": "item"}}, "keys: 'x' is not in keys", marks=tried("negatives: a key that is none")),
        pytest.param({"keys": {"tag": "user"}}, "keys: tag='user'; should be", marks=tried("negatives: a user's key")),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"spec: negatives: {said}"):
        check_spec(replace(SPEC, negatives=replace(NEGATIVES, **changes)))
    check_spec(replace(SPEC, negatives=NEGATIVES))


@pytest.mark.tried("logs", "negatives with a key of the log, without whose it is", "refused, with what to write")
def test_a_key_that_is_not_clear_is_refused(tmp_path: Path) -> None:
    log = open_log(write(log_of(0), tmp_path), replace(SPEC, negatives=Negatives()))
    with pytest.raises(
        UserError, match=r"keys: 'author' reads author of the log: .* Negatives\(keys=\{'author': 'item"
    ):
        prepare(log, tmp_path / "out", lambda known: split_by_share(known.times), options())
    pl.DataFrame({"item_id": [1], "author": [1], "born": [0]}).write_parquet(tmp_path / "log" / "items.parquet")
    by_table = replace(TABLE_SPEC, item_table="items.parquet")
    for keys, said in (({"tag": "item", "author": "item"}, "'author': has no effect"), ({}, "'tag' reads tag")):
        spec = replace(by_table, negatives=Negatives(keys=keys))
        with pytest.raises(UserError, match=said):
            prepare(
                open_log(tmp_path / "log", spec), tmp_path / "out", lambda known: split_by_share(known.times), options()
            )


def test_options_of_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(log_of(0, rows=400).unique(["user", "item", "time"], keep="first"), tmp_path)
    (tmp_path / "spec.py").write_text(
        "from coldrank.data.log import LogSpec\n"
        "spec = LogSpec(user='user', item='item', time='time', tasks={'click': 'click'}, context={'w': 'watch_s'})\n"
    )
    command = ["prepare", "log", "--spec", str(tmp_path / "spec.py"), "--data", str(tmp_path / "log")]
    command += ["--out", str(tmp_path / "out"), "--history", "4"]
    assert main([*command, "--negatives", "2", "--negative-draw", "popularity", "--negative-of", "click"]) == 0
    assert "are sampled negatives; " in capfd.readouterr().out
    made = manifest_of(tmp_path)
    assert made["negatives"]["draw"] == "popularity" and made["negatives"]["of"] == "click"
    samples = samples_of(tmp_path)
    assert {len(d) for d in drawn(samples)} == {0, 2} and made["counts"]["negatives"] == samples["sampled"].sum()
    # Nothing in the samples of negatives is taken for an event.
    assert main(["check", "--data", str(tmp_path / "out")]) == 0
    said = capfd.readouterr().out
    checks = {line.split("|")[2].strip() for line in said.splitlines() if line.count("|") > 3}
    assert not checks & {"as of time", "history", "duplicates", "leak"} and SAMPLED not in said.split()
    assert main([*command, "--append"]) == 2
    assert "--negative-draw: None, but" in capfd.readouterr().err
    assert main([*command, "--negative-draw", "uniform"]) == 2
    assert "--negative-draw: has no effect without --negatives" in capfd.readouterr().err


@pytest.mark.parametrize(("rows", "per_positive", "step"), [(1_000_000, 4, 6), (800_000, 1, 5), (900, 3, 1)])
def test_the_check_looks_at_events_and_negatives_alike(rows: int, per_positive: int, step: int) -> None:
    assert spacing(rows, {"per_positive": per_positive}) == step
    assert spacing(rows, None) == -(-rows // 200_000)


@pytest.mark.tried("data folders", "--append to data whose file of items for negatives is cut off", "refused, named")
def test_a_damaged_file_of_items_is_named(tmp_path: Path) -> None:
    log = log_of(0)
    prepared(log.head(100), tmp_path, SPECS["uniform"])
    (file,) = (tmp_path / "out" / "state" / "items").iterdir()
    file.write_bytes(file.read_bytes()[:-200])
    write(log.tail(30), tmp_path, "more")
    rule = lambda known: split_by_share(known.times)
    with pytest.raises(UserError, match=r"part-0.arrow: is damaged"):
        append(open_log(tmp_path / "log", SPECS["uniform"]), tmp_path / "out", rule, options())
