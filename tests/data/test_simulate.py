"""The simulated log: reproducible, calibrated, bounded in memory, and new users differ as in POSO, Fig. 1a."""

import argparse
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from coldrank.cli.simulate import add_simulate
from coldrank.data.errors import UserError
from coldrank.data.simulate import random as sim_random
from coldrank.data.simulate.headroom import expected_auc
from coldrank.data.simulate.random import normals, stream_keys, uniforms
from coldrank.data.simulate.scores import (
    FOLLOW_AFTER_LIKE,
    FOLLOW_STEP,
    LIKE_STEP,
    NEW_USER_LENGTH_SLOPE,
    NEW_USER_SHIFT,
    TAB_CLICK,
    TAB_LONG_VIEW,
    TARGET_RATES,
    TASKS,
    score_events,
    true_probabilities,
)
from coldrank.data.simulate.share import with_new_user_share
from coldrank.data.simulate.simulate import Simulation, blocks, simulate
from coldrank.data.simulate.timeline import draw_timeline
from coldrank.data.simulate.world import TASTE, Newness, build_world, draw_users

KUAIRAND = Path(__file__).resolve().parents[3] / "shared/data/kuairand-pure"
LABELS = ("is_click", "long_view", "finish", "is_like", "is_follow")


def frame(config: Simulation) -> pl.DataFrame:
    world = build_world(config.seed, config.events, config.days, config.newness)
    return pl.concat([log for _, log in blocks(config, world)])


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    events = frame(Simulation(events=200_000)).sort("user_id", "time_ms")
    return events.with_columns(
        avc=pl.int_range(pl.len()).over("user_id"),
        finish=(pl.col("play_time_ms") >= pl.col("duration_ms")).cast(pl.Int8),
    )


def cohorts(log: pl.DataFrame) -> dict[str, pl.DataFrame]:
    new = pl.col("avc") <= 10
    return {"all": log, "new_user": log.filter(new), "regular_user": log.filter(~new)}


def test_random_numbers_are_splitmix_and_well_spread() -> None:
    seed = np.array([1234567], dtype=np.uint64)
    # The first outputs of the published generator for this seed.
    assert [int(sim_random._slot(seed, i)[0]) for i in range(2)] == [6457827717110365317, 3203168211198807973]
    keys = stream_keys(0, 1, np.arange(100_000))
    for draw in uniforms(keys, 3):
        assert 0 < draw.min() and draw.max() < 1
        assert draw.mean() == pytest.approx(0.5, abs=0.005) and draw.var() == pytest.approx(1 / 12, rel=0.02)
    z = normals(keys, 2)
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=0.02)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_same_seed_same_bytes(tmp_path: Path, kind: str) -> None:
    config = {"events": 3_000, "format": kind, "block_users": 16}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(Simulation(**config, seed=seed), tmp_path / name)  # type: ignore[arg-type]
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) > 4
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    first = f"log_standard_sim-00000.{kind}"
    assert (tmp_path / "a" / first).read_bytes() != (tmp_path / "c" / first).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]  # nothing of the work folders is left


def test_blocks_only_cut_the_log_into_files() -> None:
    small, large = (frame(Simulation(events=20_000, block_users=n)).sort("user_id", "time_ms") for n in (16, 500))
    true = [f"true_{task}" for task in TASKS]
    assert small.drop(true).equals(large.drop(true))
    # Matrix products of different heights may round differently in the last bit.
    np.testing.assert_allclose(small.select(true).to_numpy(), large.select(true).to_numpy(), rtol=1e-5)


def test_layout_is_kuairands(tmp_path: Path) -> None:
    simulate(Simulation(events=5_000, days=5), tmp_path / "sim")
    log = pl.read_csv(tmp_path / "sim/log_standard_sim-*.csv")
    users = pl.read_csv(tmp_path / "sim/user_features_sim.csv")
    videos = pl.read_csv(tmp_path / "sim/video_features_basic_sim.csv", schema_overrides={"tag": pl.String})
    assert len(log) == 5_000 and log.null_count().sum_horizontal().item() == 0
    assert log["user_id"].unique().sort().equals(users["user_id"])
    assert videos["video_id"].is_unique().all() and log["video_id"].is_in(videos["video_id"].implode()).all()
    seen = log.join(videos, on="video_id")
    assert (seen["duration_ms"] == seen["video_duration"]).all()
    day = seen["date"].cast(pl.String).str.to_date("%Y%m%d")
    assert (seen["upload_dt"].str.to_date() <= day).all()
    if not KUAIRAND.exists():
        pytest.skip("the KuaiRand-Pure files are not here to compare the columns with")
    for columns, name in (
        ([c for c in log.columns if not c.startswith("true_")], "log_standard_4_25_to_5_05_pure.csv"),
        (users.columns, "user_features_pure.csv"),
        (videos.columns, "video_features_basic_pure.csv"),
    ):
        assert columns == pl.read_csv(KUAIRAND / name, n_rows=1).columns


def test_signals_follow_from_play_time_and_dates_from_time(log: pl.DataFrame) -> None:
    play, duration = log["play_time_ms"].to_numpy(), log["duration_ms"].to_numpy()
    assert (log["is_click"].to_numpy() == (play >= np.minimum(duration, 7_000))).all()
    assert (log["long_view"].to_numpy() == (play >= np.minimum(duration, 18_000))).all()
    for row in log.head(50).iter_rows(named=True):
        local = datetime.fromtimestamp(row["time_ms"] / 1000, UTC) + timedelta(hours=8)
        assert (row["date"], row["hourmin"]) == (int(local.strftime("%Y%m%d")), local.hour * 100)
    assert log["date"].min() == 20220406 and log["date"].max() == 20220505


def test_rates_are_kuairands(log: pl.DataFrame) -> None:
    for label, target in zip(LABELS, TARGET_RATES, strict=True):
        rate = log[label].mean()
        error = 3 * (target / len(log)) ** 0.5  # binomial; matters for follow
        assert rate == pytest.approx(target, abs=0.15 * target + error), label


def test_true_probabilities_are_calibrated(log: pl.DataFrame) -> None:
    for label, task in zip(LABELS, TASKS, strict=True):
        bins = log.sort(f"true_{task}").with_columns(bin=pl.int_range(pl.len()) * 20 // pl.len())
        p = pl.col(f"true_{task}").cast(pl.Float64)
        sums = bins.group_by("bin").agg(p.sum().alias("mean"), (p * (1 - p)).sum().alias("var"), pl.col(label).sum())
        z = (sums[label] - sums["mean"]) / sums["var"].sqrt()
        assert z.abs().max() < 4, (task, z.to_list())  # type: ignore[operator]


def test_best_auc_is_realistic_in_every_cohort(log: pl.DataFrame) -> None:
    for name, rows in cohorts(log).items():
        long_view = roc_auc_score(rows["long_view"].to_numpy(), rows["true_long_view"].to_numpy())
        like = roc_auc_score(rows["is_like"].to_numpy(), rows["true_like"].to_numpy())
        assert 0.77 < long_view < 0.83 and 0.85 < like < 0.93, (name, long_view, like)


def test_new_users_behave_differently(log: pl.DataFrame) -> None:
    """POSO, section 3: fewer views, higher finish rate, lower watch time, more likes; and 5-8% of the events."""
    new, regular = cohorts(log)["new_user"], cohorts(log)["regular_user"]
    assert 0.05 < len(new) / len(log) < 0.085

    def mean(column: str, rows: pl.DataFrame) -> float:
        return float(rows[column].cast(pl.Float64).mean())  # type: ignore[arg-type]

    for more in ("finish", "is_like", "true_finish_view", "true_like"):
        assert mean(more, new) > 1.03 * mean(more, regular), more
    assert mean("play_time_ms", new) < 0.95 * mean("play_time_ms", regular)
    days = log.group_by("user_id", "date").agg(pl.len().alias("views"), pl.col("avc").min())
    assert mean("views", days.filter(pl.col("avc") <= 10)) < 0.8 * mean("views", days.filter(pl.col("avc") > 10))


def test_items_arrive_and_are_zipf(log: pl.DataFrame) -> None:
    views = log.group_by("video_id").agg(pl.len(), pl.col("date").min().alias("first"))
    assert views.filter(pl.col("first") > 20220420).height > 0.2 * views.height
    counts = views["len"].sort(descending=True)
    assert counts.head(views.height // 10).sum() > 0.3 * len(log)


@pytest.mark.parametrize(
    "newness",
    [Newness(), Newness(gate_strength=2.5, main_strength=0.75, avc_scale=3.0, stay_days=5.0)],
    ids=["default", "strong"],
)
def test_scores_equal_a_naive_reference(newness: Newness) -> None:
    """Eq. 11's form, gate after the activation, event by event in float64; like and follow by enumeration."""
    world = build_world(3, 10_000, 10, newness)
    users = draw_users(world, np.arange(4))
    scored = score_events(world, users, draw_timeline(users, world).head(60))
    intercepts = np.array([0.1, 0.4, -0.5, -4, -5], dtype=np.float32)
    got = true_probabilities(scored, intercepts)

    def sigmoid(x: float) -> float:
        return float(1 / (1 + np.exp(-x)))

    for n in range(len(got)):
        u, v, tab = scored.timeline.user[n], scored.video[n], scored.tab[n]
        videos, new = scored.videos, np.exp(-scored.timeline.avc[n] / newness.avc_scale)
        seconds = videos.duration_ms[v] / 1000
        relu = np.maximum(users.taste[u] @ world.user_in + videos.factors[v] @ world.video_in, 0)
        units = np.concatenate([users.taste[u] * videos.factors[v], relu - 1 / np.sqrt(2 * np.pi)])
        gate = 1 + world.gate_slope * new
        z = (gate * units) @ world.out + intercepts
        z += (1 - newness.main_strength * new) * users.bias[u] + (1 + newness.main_strength * new) * videos.bias[v]
        z += new * (np.array(NEW_USER_SHIFT) + np.array(NEW_USER_LENGTH_SLOPE) * np.log(seconds / 40))
        z[0] += TAB_CLICK[tab]
        z[1] += TAB_LONG_VIEW[tab] + 1.2 * min(1, max(0, 1 - np.log(seconds / 7) / np.log(18 / 7)))
        z[2] -= 1.12 * np.log(seconds / 60)
        click = sigmoid(z[0])
        long_view = click * (sigmoid(z[1]) if seconds > 7 else 1)
        finish = long_view * (sigmoid(z[2]) if seconds > 18 else 1)
        shares = (1 - click, click - long_view, long_view - finish, finish)
        like = [sigmoid(z[3] + step) for step in LIKE_STEP]
        follow = [
            a * sigmoid(z[4] + step + FOLLOW_AFTER_LIKE) + (1 - a) * sigmoid(z[4] + step)
            for a, step in zip(like, FOLLOW_STEP, strict=True)
        ]
        expected = (click, long_view, finish, np.dot(shares, like), np.dot(shares, follow))
        np.testing.assert_allclose(got[n], expected, rtol=2e-4, atol=1e-6)


def test_gates_stay_in_the_range_of_eq_11_and_can_be_switched_off() -> None:
    slope = build_world(0, 1000, 10, Newness()).gate_slope
    assert (1 + slope).min() >= 0 and (1 + slope).max() <= 2 and (slope[:TASTE] < 0).any() and (slope > 0).any()
    assert not build_world(0, 1000, 10, Newness(gate_strength=0)).gate_slope.any()


def test_memory_does_not_grow_with_the_log() -> None:
    peaks = []
    for events in (40_000, 240_000):
        config = Simulation(events=events, block_users=64)
        tracemalloc.start()
        for _ in blocks(config, build_world(0, events, 30, Newness())):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks


def test_errors_name_the_fault(tmp_path: Path) -> None:
    for field, value in (("events", 0), ("days", 0), ("block_users", 0)):
        with pytest.raises(UserError, match=f"{field} is {value}; it must lie between"):
            Simulation(**{"events": 10, field: value})  # type: ignore[arg-type]
    for field, value in (("gate_strength", 4.5), ("main_strength", -1), ("avc_scale", 0), ("stay_days", 0)):
        with pytest.raises(UserError, match=f"{field} is {value}; it must lie between"):
            Simulation(events=10, newness=Newness(**{field: value}))
    with pytest.raises(UserError, match="exists already"):
        simulate(Simulation(events=10), tmp_path)


def test_command_line(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_simulate(parser.add_subparsers())
    args = parser.parse_args(
        ["simulate", "--events", "500", "--out", str(tmp_path / "x"), "--days", "3", "--seed", "5"]
    )
    args.run(args)
    assert len(pl.read_csv(tmp_path / "x/log_standard_sim-*.csv")) == 500


def test_strong_gates_and_main_effects_leave_more_to_know(tmp_path: Path) -> None:
    figures = {}
    for name, newness in {
        "none": Newness(gate_strength=0),
        "usual": Newness(),
        "strong": Newness(gate_strength=3, main_strength=1),
        "longer": Newness(gate_strength=3, main_strength=1, avc_scale=40, stay_days=3),
    }.items():
        simulate(Simulation(events=40_000, newness=newness), tmp_path / name)
        figures[name] = json.loads((tmp_path / name / "simulation.json").read_text())

    def gap(name: str, cohort: str) -> float:
        figure = figures[name]["auc"][cohort]["long_view"]
        return float(figure["best"] - figure["gates_unknown"])

    assert gap("none", "all") == gap("none", "new_user") == 0
    assert 0 < gap("usual", "new_user") < gap("strong", "new_user")
    assert gap("strong", "all") < gap("longer", "all")
    assert figures["strong"]["new_user_share"] < figures["longer"]["new_user_share"]
    assert figures["strong"]["gate_strength"] == 3 and figures["longer"]["stay_days"] == 3


def headroom(tmp_path: Path, name: str, **fields: float) -> tuple[float, float, float]:
    """What is to be known of long_view by all and by new users, points of AUC; the events of new users, share."""
    simulate(Simulation(events=40_000, newness=Newness(**fields)), tmp_path / name)
    said = json.loads((tmp_path / name / "simulation.json").read_text())
    gaps = (said["auc"][c]["long_view"] for c in ("all", "new_user"))
    everybody, new = (gap["best"] - gap["gates_unknown"] for gap in gaps)
    return everybody, new, said["new_user_share"]


def test_every_option_alone_moves_the_headroom_as_said(tmp_path: Path) -> None:
    by_strength = [headroom(tmp_path, f"gates {s}", gate_strength=s)[1] for s in (0, 0.5, 1, 2, 3, 4)]
    assert by_strength[0] == 0 and (np.diff(by_strength) > 0).all()
    assert 0.5 < by_strength[2] < 2 and 4 < by_strength[3] < 8
    plain = headroom(tmp_path, "plain", gate_strength=2)
    main = headroom(tmp_path, "main", gate_strength=2, main_strength=1)
    slow = headroom(tmp_path, "slow", gate_strength=2, avc_scale=40)
    short = headroom(tmp_path, "short", gate_strength=2, stay_days=3)
    for other in (main, slow):
        assert other[0] > plain[0] and other[1] > 1.2 * plain[1] and abs(other[2] - plain[2]) < 0.02
    # Others' newness is what it was: more of the events are theirs.
    assert short[0] > 2 * plain[0] and abs(short[1] - plain[1]) < 1 and short[2] > 3 * plain[2]


def test_above_strength_one_units_flip_their_sign() -> None:
    for strength, flips in ((1.0, False), (2.0, True)):
        at_first_view = 1 + build_world(0, 1000, 10, Newness(gate_strength=strength)).gate_slope
        assert (at_first_view < 0).any() == flips


@pytest.mark.parametrize("share", [0.08, 0.2, 0.5])
def test_a_share_of_new_users_can_be_asked_for(tmp_path: Path, share: float) -> None:
    newness = with_new_user_share(Newness(avc_scale=30), share, seed=3, events=150_000, days=30)
    assert newness.avc_scale == 30
    simulate(Simulation(events=150_000, seed=3, newness=newness, format="parquet"), tmp_path / "log")
    found = json.loads((tmp_path / "log/simulation.json").read_text())
    assert found["new_user_share"] == pytest.approx(share, rel=0.1)
    assert found["stay_days"] == newness.stay_days


def test_a_share_out_of_reach_and_two_ways_to_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for share in (0.0, 0.9, float("nan")):
        with pytest.raises(
            UserError, match=r"new_user_share is \S+; with days=30 it must lie between 0\.\d+ and 0\.\d+"
        ):
            with_new_user_share(Newness(), share, seed=0, events=1000, days=30)
    command = ["simulate", "--events", "2000", "--out", str(tmp_path / "x"), "--new-user-share", "0.3"]
    parser = argparse.ArgumentParser()
    add_simulate(parser.add_subparsers())
    args = parser.parse_args(command)
    args.run(args)
    assert json.loads((tmp_path / "x/simulation.json").read_text())["stay_days"] < 5
    with pytest.raises(SystemExit):
        parser.parse_args([*command, "--stay-days", "3"])
    assert "--stay-days: not allowed with argument --new-user-share" in capsys.readouterr().err


def test_headroom_is_the_same_for_any_size_of_block(tmp_path: Path) -> None:
    for n in (64, 1024):
        simulate(Simulation(events=150_000, block_users=n), tmp_path / str(n))
    one, other = (json.loads((tmp_path / n / "simulation.json").read_text())["auc"] for n in ("64", "1024"))
    assert one == other


def test_expected_auc_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, true = np.round(rng.random(40), 1).astype(np.float32), rng.random(40).astype(np.float32)
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    weight = [float(true[i]) * (1 - float(true[j])) for i, j in pairs]
    won = [(scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i, j in pairs]
    assert expected_auc(scores, true) == pytest.approx(np.average(won, weights=weight))
