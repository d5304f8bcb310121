"""benchmarks/simulated_curve.py: its gains, intervals and shares, on runs of which everything is known."""

import json

import pytest
import simulated_curve
from simulated_curve import EVENTS, STRENGTH, picture, range_table, read, table


def write(out, strength, events, seed, base, gains):
    """A log with 10 points of headroom, and runs on it: the base's AUC, and what each arm has more, in points."""
    folder = out / f"strength-{strength:g}-events-{events}-seed-{seed}"
    folder.mkdir(parents=True)
    auc = {c: {t: {"best": 80, "gates_unknown": 70} for t in simulated_curve.TASKS} for c in ("all", "new_user")}
    (folder / "simulation.json").write_text(json.dumps({"gate_strength": strength, "events": events, "auc": auc}))
    for arm, gain in {"base": 0.0, **gains}.items():
        (folder / arm).mkdir()
        rows = [
            {"cohort": c, "task": t, "metric": m, "split": "test", "value": (base + gain) / 100}
            for c in auc
            for t in simulated_curve.TASKS
            for m in ("auc", "ne")
        ]
        if arm == "poso":
            rows.append(
                {"cohort": "all", "task": "all", "metric": "gate_range_towers", "split": "test", "value": gain / 10}
            )
        (folder / arm / "summary.json").write_text(json.dumps(rows))


@pytest.fixture
def runs(tmp_path):
    for seed, gain in ((1, 1.0), (2, 2.0), (3, 3.0)):
        write(tmp_path, STRENGTH, EVENTS, seed, 60 + seed, {"poso": gain})
    write(tmp_path, 0.5, EVENTS, 1, 60, {"poso": 1.0, "poso_constant_pc": 0.5})
    write(tmp_path, STRENGTH, 1_000_000, 1, 60, {"poso": 1.5})
    return tmp_path


def test_gains_are_of_pairs_and_their_interval_is_students(runs):
    points = {(p.strength, p.events): p for p in read(runs)}
    assert list(points) == [(0.5, EVENTS), (STRENGTH, EVENTS), (STRENGTH, 1_000_000)]
    gain, half, seeds = points[STRENGTH, EVENTS].gain("poso", "new_user", "long_view")
    # The seeds' bases lie apart by more than the gains: only pairs give this. 4.303: Student's t, 2 degrees of freedom.
    assert (gain, half, seeds) == (pytest.approx(2.0), pytest.approx(4.303 / 3**0.5, rel=1e-3), 3)
    assert points[STRENGTH, EVENTS].headroom("new_user", "long_view") == 10
    assert points[STRENGTH, EVENTS].gain("poso_constant_pc", "new_user", "long_view") is None


def test_a_table_has_the_share_of_the_headroom_and_no_interval_for_one_seed(runs):
    one, three, _ = table(read(runs), "new_user", ["long_view"]).splitlines()[2:]
    assert [c.strip() for c in three.split("|")[4:-1]] == [
        *("62.00", "70.00", "80.00", "10.00"),
        *("+2.00 ±2.48 (20% ±25), 3", "-"),
    ]
    assert [c.strip() for c in one.split("|")[8:-1]] == ["+1.00, 1", "+0.50, 1"]


def test_how_far_the_gates_go_is_the_mean_over_the_seeds(runs):
    lines = range_table(read(runs)).splitlines()
    assert [c.strip() for c in lines[0].split("|")[1:-1]] == ["gate strength", "events", "towers"]
    assert [c.strip() for c in lines[3].split("|")[1:-1]] == ["2", f"{EVENTS:,}", "0.200"]


def test_the_picture_shows_intervals_where_there_are_seeds(runs):
    figure = picture(read(runs), "long_view")
    strength, events = figure.axes[2:]
    # One seed has no interval, so no point below.
    assert [list(c[0].get_xdata()) for c in strength.containers] == [[STRENGTH]]
    assert [list(c[0].get_xdata()) for c in events.containers] == [[EVENTS]]
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([60, 62])


def test_logs_that_an_arm_is_missing_on_do_not_count(tmp_path):
    write(tmp_path, STRENGTH, EVENTS, 1, 60, {})
    with pytest.raises(SystemExit, match="no log in it that base and poso have both ended on"):
        read(tmp_path)


@pytest.fixture
def calls(monkeypatch):
    """The commands of coldrank's that would have run; each leaves what the next one needs."""
    made = []

    def pretend(*arguments, log):
        made.append(arguments)
        folder = log.parent / (
            log.stem if arguments[0] == "train" else {"simulate": "log", "prepare": "data"}[arguments[0]]
        )
        folder.mkdir()
        (folder / ("simulation.json" if arguments[0] == "simulate" else "summary.json")).write_text("{}")

    monkeypatch.setattr(simulated_curve, "coldrank", pretend)
    return made


def test_a_run_does_what_is_missing_alone(calls, tmp_path):
    simulated_curve.run(tmp_path, 2.0, 1000, 3, ["base", "poso"])
    assert [c[0] for c in calls] == ["simulate", "prepare", "train", "train"]
    assert ("--seed", "3") == calls[0][3:5] and "seed=3" in calls[2] and simulated_curve.MOVING in calls[3]
    assert sorted(p.name for p in (tmp_path / "strength-2-events-1000-seed-3").iterdir()) == [
        *("base", "data", "poso", "simulation.json")
    ]
    calls.clear()
    simulated_curve.run(tmp_path, 2.0, 1000, 3, ["base", "poso"])
    assert not calls
    simulated_curve.run(tmp_path, 2.0, 1000, 3, ["base", "poso_constant_pc"])
    assert [c[0] for c in calls] == ["train"]


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(SystemExit, match="gate_strength is 9.0; it must lie between 0 and 4"):
        simulated_curve.coldrank(
            *("simulate", "--events", "10", "--gate-strength", "9", "--out", str(tmp_path / "x")), log=tmp_path / "log"
        )
