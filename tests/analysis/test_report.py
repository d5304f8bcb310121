"""The HTML report: its figures are the comparison's and the data's, it loads nothing, it fits a phone."""

import argparse
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from coldrank.analysis.compare.rows import Row
from coldrank.analysis.report.arms import ReportedArm
from coldrank.analysis.report.data_card import data_card
from coldrank.analysis.report.differences import config_changes, forest, verdict
from coldrank.analysis.report.learning import curves_of
from coldrank.analysis.report.scored import _auc_by_bucket, calibrate, octaves, wilson
from coldrank.analysis.report.words import duration, signed
from coldrank.cli.compare import add_compare
from coldrank.data.errors import UserError
from coldrank.metrics import by_cohort as metrics
from coldrank.metrics.mann_whitney import SortedRows

TASKS = ("long_view", "like")
ROWS = 900
DAYS = [f"2022-04-{day}" for day in range(20, 28)]
SECTIONS = [
    "verdict",
    "differences",
    "views",
    "calibration",
    "periods",
    "learning",
    "configs",
    "data",
    "times",
    "figures",
]


def samples(seed: int, rows: int = ROWS) -> pl.DataFrame:
    """Keys, views and labels of made-up events; like is rare and sometimes unknown."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=rows)
    like = pl.Series((rng.random(rows) < 0.25 / (1 + np.exp(-odds))).astype(np.int8))
    return pl.DataFrame(
        {
            "user_id": np.sort(rng.integers(0, 60, rows)),
            "item_id": rng.integers(0, 99, rows),
            "time": 1_650_000_000_000 + 200_000 * np.arange(rows),
            "user_views": rng.geometric(0.06, rows).astype(np.int32) - 1,
            "item_views": rng.geometric(0.02, rows).astype(np.int32) - 1,
            "label_long_view": (odds + rng.normal(size=rows) > 0).astype(np.int8),
            "label_like": like.set(pl.Series(rng.random(rows) < 0.1), None),
            "gap": pl.Series(rng.random(rows)).set(pl.Series(rng.random(rows) < 0.2), None),
            "odds": odds,
        }
    )


def write_data(folder: Path) -> dict[str, pl.DataFrame]:
    """A prepared folder of two splits with a period each."""
    frames = {"train": samples(1), "test": samples(2)}
    partitions = []
    for split, period in (("train", "2022-04-14"), ("test", "2022-04-15")):
        path = folder / f"{split}.parquet"
        folder.mkdir(exist_ok=True)
        frames[split].write_parquet(path)
        time = {"time_min": frames[split]["time"].min(), "time_max": frames[split]["time"].max()}
        partitions.append({"path": path.name, "split": split, "period": period, "rows": ROWS} | time)
    columns = [{"name": name, "type": "", "nullable": name in ("gap", "label_like")} for name in frames["test"].columns]
    rates = {
        split: {t: {"known": ROWS - f[f"label_{t}"].null_count(), "rate": f[f"label_{t}"].mean()} for t in TASKS}
        for split, f in frames.items()
    }
    splits = {s: {"rows": ROWS, "time_min": f["time"].min(), "time_max": f["time"].max()} for s, f in frames.items()}
    manifest = {
        "format": 1,
        "source": "made up",
        "counts": {"users": 60, "items": 99},
        "tasks": TASKS,
        "columns": columns,
    }
    manifest |= {"splits": splits, "partitions": partitions, "label_rates": rates}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return frames


def write_run(folder: Path, arm: str, seed: int, noise: float, data: Path) -> None:
    """A run folder as `coldrank train` leaves it."""
    rng = np.random.default_rng([seed, len(arm)])
    frame = samples(2).drop("gap")
    for task, shift in zip(TASKS, (0.0, -2.0), strict=True):
        odds = frame["odds"].to_numpy() + noise * rng.normal(size=ROWS) + shift
        frame = frame.with_columns(pl.Series(f"prob_{task}", (1 / (1 + np.exp(-odds))).astype(np.float32)))
    folder.mkdir()
    frame.drop("odds").write_parquet(folder / "predictions-test.parquet")
    config = {"name": arm, "seed": seed, "model": {"experts": 4, "poso": arm != "base"}}
    (folder / "config.json").write_text(json.dumps(config))
    about = {"period": None, "split": "fit", "cohort": "all", "n": 64}
    rows = [
        {"step": step, **about, "task": task, "metric": metric, "value": 0.6 + 1 / step + 0.01 * rng.normal()}
        for step in range(10, 210, 10)
        for task, metric in (("all", "loss"), *((task, "logloss") for task in TASKS))
    ]
    rows += period_rows(noise, rng)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if arm != "trees":
        digest = hashlib.sha256((data / "manifest.json").read_bytes()).hexdigest()
        facts = {"finished": True, "data_path": str(data), "data_digest": digest, "seconds": 60.0 + seed, "steps": 200}
        facts |= {"periods": {day: 50 * i for i, day in enumerate(DAYS)}}
        (folder / "run.json").write_text(json.dumps(facts | {"samples": 12800, "versions": {"torch": "2.13.0"}}))


def period_rows(noise: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Each day is scored before it is trained on, and one and three days after. AUC falls by what is forgotten."""
    rows = []
    for i, day in enumerate(DAYS):
        about = {"cohort": "all", "n": 100}
        for task, level in (("long_view", 0.7), ("like", 0.9)):
            if i:
                step = {"step": 50 * (i - 1), "period": day, "split": "next"}
                for metric, value in (("auc", level - noise / 100), ("ne", 0.8 + noise / 100)):
                    rows.append(
                        {**step, **about, "task": task, "metric": metric, "value": value + 0.001 * rng.normal()}
                    )
            for lag in (1, 3):
                if i + lag < len(DAYS):
                    step = {"step": 50 * (i + lag), "period": day, "split": "back"}
                    rows.append({**step, **about, "task": task, "metric": "auc", "value": level - 0.01 * lag})
    return rows


def run_compare(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    add_compare(parser.add_subparsers())
    args = parser.parse_args(["compare", *map(str, arguments), "--resamples", "20"])
    args.run(args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three arms, the data, and the comparison in `out`."""
    root = tmp_path_factory.mktemp("report")
    write_data(root / "data")
    for seed in (1, 2, 3, 4):
        write_run(root / f"base-{seed}", "base", seed, 2.0, root / "data")
        write_run(root / f"poso-{seed}", "poso_with_a_long_name", seed, 0.3, root / "data")
    write_run(root / "trees", "trees", 0, 2.0, root / "data")
    names = [f"{name}-{seed}" for name in ("base", "poso") for seed in (1, 2, 3, 4)]
    run_compare(*(root / name for name in (*names, "trees")), "--out", root / "out")
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "out" / "report.html").read_text()


class Tables(HTMLParser):
    """The texts of table rows, and the values of some attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.labels: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.loaded += [v for k, v in attrs if k in ("src", "srcset", "href", "xlink:href", "data") and v]
        if tag == "svg" and attributes.get("role") == "img":
            self.labels.append(attributes.get("aria-label") or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def test_page_has_its_sections_and_loads_nothing(page: str) -> None:
    tables = Tables(page)
    assert [name for name in tables.ids if name in SECTIONS] == SECTIONS
    assert len(tables.ids) == len(set(tables.ids))
    inside = {f"#{name}" for name in tables.ids}
    assert set(tables.loaded) <= inside and set(re.findall(r"url\(([^)]*)\)", page)) <= inside
    assert not re.search(r"https?:|<script|@import|/\*#|#fe0", page)
    assert "default-src 'none'" in page
    assert all(tables.labels) and len(tables.labels) >= 3 * len(TASKS) + 3
    assert len(page) < 1_000_000


def test_figures_are_those_of_the_comparison(page: str, folder: Path) -> None:
    content = json.loads((folder / "out" / "compare.json").read_text())
    number = lambda value: "–" if value is None else f"{value:,.2f}".replace("-", "−")
    lines_shown = Tables(page).rows
    for row in content["rows"]:
        expected = [number(row["mean"]), "–" if row["difference"] is None else signed(row["difference"])]
        start = [f"{row['n']:,}", f"{row['users']:,}", *expected]
        lines = [line for line in lines_shown if len(line) > 12 and line[2] == row["arm"] and line[4:8] == start]
        assert lines and any(line[-1] == row["verdict"] for line in lines), row
        if row["metric"] == "auc" and row["difference"] is not None:
            shown = f"{signed(row['difference'])} ±{number(row['high'] - row['difference'])}"
            assert any(
                len(line) == 3 and line[0] == row["arm"] and line[2].startswith(shown) for line in lines_shown
            ), row
    better = [row for row in content["rows"] if row["metric"] == "auc" and row["verdict"] == "better"]
    assert f"▲ {len([row for row in better if row['arm'] != 'trees'])} better" in page and better


def test_data_card_and_run_times(page: str, folder: Path) -> None:
    rows = Tables(page).rows
    frames = {"train": samples(1), "test": samples(2)}
    for split, frame in frames.items():
        line = next(line for line in rows if line and line[0] == split)
        known = ROWS - frame["label_like"].null_count()
        like, long_view = frame["label_like"].mean(), frame["label_long_view"].mean()
        assert isinstance(like, float) and isinstance(long_view, float)
        assert line[1:] == ["900", line[2], line[3], f"{100 * long_view:.2f}", f"{100 * like:.2f} of {known}"]
        assert line[2].startswith("2022-04-1")
    shares = [f"{100 * frame['gap'].null_count() / ROWS:.2f}" for frame in frames.values()]
    assert ["gap", *shares] in rows
    new = (samples(1)["user_views"] <= 10).mean()
    assert f"Rows of new users by period. 2022-04-14: {new:.2%}; 2022-04-15:" in page
    times = {line[0]: line[1:] for line in rows if len(line) == 10}
    assert times["base"][:5] == ["4", "1 min 1 s to 1 min 4 s", "200", "12,800", "200 to 210"]
    assert times["trees"] == ["1", *["–"] * 8] and "torch 2.13.0" in page
    assert ["model.poso", "False", "True"] in rows


def test_missing_data_is_told(folder: Path, tmp_path: Path) -> None:
    runs = (folder / "base-1", folder / "trees")
    with pytest.raises(UserError, match="no manifest.json in it"):
        run_compare(*runs, "--data", tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in ("base-1", "trees"):
        shutil.copytree(folder / name, tmp_path / name)
        (tmp_path / name / "metrics.jsonl").unlink()
    (tmp_path / "base-1" / "run.json").unlink()
    run_compare(tmp_path / "base-1", tmp_path / "trees", "--out", tmp_path / "bare")
    page = (tmp_path / "bare" / "report.html").read_text()
    assert "compare with --data DATA shows its card" in page and "No run has recorded its loss" in page


def test_data_that_changed_is_not_shown(folder: Path, tmp_path: Path) -> None:
    for name in ("base-1", "trees"):
        shutil.copytree(folder / name, tmp_path / name)
    path = tmp_path / "base-1" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_digest": "0"}))
    run_compare(tmp_path / "base-1", tmp_path / "trees", "--out", tmp_path / "out")
    assert "is not the data that the runs were trained on" in (tmp_path / "out" / "report.html").read_text()


def test_auc_by_views_is_the_mean_of_the_seeds(page: str) -> None:
    views, frame = samples(2)["user_views"].to_numpy(), samples(2)
    assert octaves(np.array([0, 1, 2, 3, 4, 7, 8, 1023, 1024])).tolist() == [0, 1, 2, 2, 3, 3, 4, 10, 11]
    label = frame["label_long_view"].to_numpy()
    buckets = octaves(views)
    first = next(g for g in range(9) if min(np.bincount(label[buckets == g], minlength=2)) >= 10)
    values = []
    for seed in (1, 2, 3, 4):
        odds = frame["odds"].to_numpy() + 2.0 * np.random.default_rng([seed, 4]).normal(size=ROWS)
        scores = (1 / (1 + np.exp(-odds))).astype(np.float32)
        values.append(metrics.auc(label[buckets == first], scores[buckets == first]))
    shown = re.findall(r"AUC of long view by views of the user. base begins at ([\d.]+) percent", page)
    assert shown == [f"{100 * np.mean(values):.2f}"]


def test_periods_are_shown_with_the_difference_to_the_baseline(page: str) -> None:
    shown = re.findall(
        r"AUC of the next period of long view; mean of 7 periods: base ([\d.]+) percent, (\S+) (\S+) points", page
    )
    [(level, arm, difference)] = shown
    assert float(level) == pytest.approx(68.0, abs=0.1) and arm == "poso_with_a_long_name"
    assert float(difference) == pytest.approx(1.7, abs=0.1)
    assert (
        "What is remembered of past periods of like, mean change of AUC: base −2.00 points until 3 periods later"
        in page
    )


def test_calibration_bins_against_sorting() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(1003)
    labels = (rng.random(1003) < scores).astype(np.int8)
    curve = calibrate([SortedRows.from_scores(labels, scores)] * 2)
    order = np.argsort(scores)
    for i, part in enumerate(np.array_split(order, 10)):
        assert curve.predicted[i] == pytest.approx(scores[part].mean())
        assert curve.observed[i] == pytest.approx(labels[part].mean())
    assert (curve.rows, curve.positives) == (1003, labels.sum())
    few = np.zeros(50, np.int8)
    few[:19] = 1
    assert len(calibrate([SortedRows.from_scores(few, rng.random(50))]).predicted) == 0
    low, high = wilson(np.array([0.0, 0.3]), 50)
    for rate, *bounds in zip((0, 15), low, high, strict=True):
        right = stats.binomtest(rate, 50).proportion_ci(0.95, "wilson")
        assert bounds == pytest.approx([right.low, right.high], abs=1e-4)


def cell(task: str, cohort: str, arm: str = "b", **fields: Any) -> Row:
    return Row(task=task, cohort=cohort, metric="auc", arm=arm, seeds=1, n=9, users=9, mean=70.0, **fields)


def test_a_task_too_rare_for_any_bucket_has_no_curve() -> None:
    labels = np.zeros(50, np.int8)
    labels[:3] = 1
    order = SortedRows.from_scores(labels, np.linspace(0, 1, 50), labels >= 0)
    sample = SimpleNamespace(draws=np.ones((4, 10), np.uint8), users=np.arange(50) % 10)
    nothing = np.empty(0, np.int64)
    assert _auc_by_bucket(order, np.zeros(50, np.int64), nothing, sample).shape == (0, 4)


def test_verdict_in_a_sentence_and_bars_in_place() -> None:
    better = {"difference": 0.2, "low": 0.1, "high": 0.3, "verdict": "better"}
    open_ = {"difference": -1.0, "low": -9.0, "high": 7.0, "verdict": "not distinguishable"}
    rows = [cell("x_y", cohort, "a") for cohort in ("all", "new_user", "new_item")]
    rows += [cell("x_y", "all", **better), cell("x_y", "new_user", **open_), cell("x_y", "new_item", **better)]
    of_arm = verdict(rows, "b", "a")
    assert (of_arm.better, of_arm.worse, of_arm.open) == (2, 0, 1)
    assert (
        of_arm.sentence
        == "Better for x y (all and new items), worse nowhere; no difference can be told in 1 of 3 cells."
    )
    assert verdict([rows[0], rows[4]], "b", "a").sentence == "No difference from a can be told in any of the 1 cells."
    bars = {cohort: bar for cohort, _, [bar] in forest(rows, "x_y", "auc").cohorts}
    wide, narrow = bars["new_user"], bars["all"]
    assert wide.cut_low and wide.cut_high and not narrow.cut_low
    assert 0 < wide.low < wide.point < 50 < narrow.low < narrow.point < narrow.high < wide.high < 100


def test_config_changes_name_features() -> None:
    feature = {"name": "age", "dim": 8, "default": 0}
    base = {"name": "base", "seed": 1, "train": {"steps": 5}, "features": [feature]}
    arm = {"name": "arm", "seed": 2, "train": {"steps": 6}, "features": [feature | {"dim": 4}, {"name": "gap"}], "x": 1}
    assert config_changes(arm, base) == [
        ("train.steps", "5", "6"),
        ("features.age", "dim 8", "dim 4"),
        ("features.gap", "–", ""),
        ("x", "–", "1"),
    ]
    assert config_changes(base, base) == []


def test_long_curves_are_means_of_even_spans() -> None:
    logged = [{"task": "all", "metric": "loss", "step": step, "value": float(step)} for step in range(1, 801)]
    arm = ReportedArm(name="a", number=0, runs=[], configs=[], facts=[], curves=[logged, logged[:400]])
    steps, values = curves_of(arm, "all", "loss")
    assert values.shape == (2, 80) and steps[0] == 5 and values[0, 1] == np.mean(np.arange(10, 20))
    assert np.isnan(values[1, 41:]).all()
    assert [duration(s) for s in (7.4, 125, 12_000)] == ["7 s", "2 min 5 s", "3 h 20 min"]


@pytest.mark.slow
def test_card_of_real_data(shared_data: Path, tmp_path: Path) -> None:
    from coldrank.cli.main import main

    arguments = ["--data", str(shared_data / "ml-latest-small"), "--out", str(tmp_path / "data"), "--split", "users"]
    assert main(["prepare", "movielens", *arguments]) == 0
    card = data_card(tmp_path / "data", 10)
    assert sum(split.rows for split in card.splits) == 100_836 and dict(card.counts)["users"] == 610


WRAPPER = """<!doctype html><meta charset="utf-8"><body>{frames}<pre id="result"></pre><script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, style = frame.contentWindow.getComputedStyle(page.documentElement);
    page.querySelectorAll("details").forEach(part => part.open = true);
    const line = page.querySelector(".of-arm-1");
    const before = frame.contentWindow.getComputedStyle(line).display;
    page.querySelector("#show-arm-1").click();
    return {{
      width: frame.contentWindow.innerWidth,
      content: page.documentElement.scrollWidth,
      dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
      toggles: before != "none" && frame.contentWindow.getComputedStyle(line).display == "none",
      narrow: Math.min(...[...page.querySelectorAll("svg.plot[role=img]")].map(plot => plot.clientWidth)),
      colors: Object.fromEntries([{names}].map(name => [name, style.getPropertyValue("--" + name).trim()])),
    }};
  }});
  document.getElementById("result").textContent = JSON.stringify(found);
}});
</script>"""
COLORS = ["paper", "card", "ink", "muted", "link", "better", "worse", *(f"arm-{i}" for i in range(8))]


def luminance(color: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_page_fits_phone_and_desk_in_chromium(page: str, tmp_path: Path, scheme: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium installed")
    # In frames of these widths: a window of headless Chromium is at least 500 pixels wide.
    frames = "".join(f'<iframe width="{w}" height="900" srcdoc="{html.escape(page)}"></iframe>' for w in (360, 1280))
    names = ",".join(f'"{name}"' for name in COLORS)
    (tmp_path / "wrapper.html").write_text(WRAPPER.format(frames=frames, names=names))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    command += [f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"]
    command += ["--virtual-time-budget=10000", (tmp_path / "wrapper.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    result = re.search(r'<pre id="result">(.+?)</pre>', done.stdout)
    assert result, done.stderr
    for frame, width in zip(json.loads(html.unescape(result[1])), (360, 1280), strict=True):
        assert frame["dark"] == (scheme == "dark")
        assert frame["content"] <= frame["width"] <= width
        assert frame["toggles"] and frame["narrow"] >= 250
        colors = {name: luminance(color) for name, color in frame["colors"].items()}
        for name in COLORS[2:]:
            bounds = sorted([colors[name], colors["card"]])
            assert (bounds[1] + 0.05) / (bounds[0] + 0.05) >= (3 if name.startswith("arm") else 4.5), name
