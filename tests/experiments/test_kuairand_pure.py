"""The public protocol of KuaiRand-Pure: its days, what it hides, its figures, and a whole run on a simulated log."""

import json
import re
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from coldrank.analysis.compare.interval import contrast
from coldrank.cli.main import main as coldrank
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.experiments.kuairand_pure import choice, figures, protocol
from coldrank.experiments.kuairand_pure.__main__ import main
from coldrank.metrics.metric import ScoredRows
from coldrank.metrics.positive_gauc import PositiveGauc
from coldrank.metrics.user_ndcg import UserNdcg

ARMS = """
from dataclasses import replace

from coldrank.configs import kuairand_pure
from coldrank.train.config import RunConfig

SETTINGS = {"fm": ((), ("optim.tables.lr=0.2", "train.epochs=2")), "dull": ((), ("optim.tables.lr=1e-9",))}


def fm() -> RunConfig:
    config = kuairand_pure.fm()
    return replace(config, data=replace(config.data, batch_size=64), train=replace(config.train, threads=1))


def dull() -> RunConfig:
    return replace(fm(), name="dull", features=fm().features[:2], tables=fm().tables[:2])


def blind() -> RunConfig:
    return replace(fm(), name="blind", metrics=())


def later() -> RunConfig:
    return replace(fm(), name="later", data=replace(fm().data, fit=("train", "valid"), evaluate="test"))
"""
OUTCOMES = ("is_click", "is_like", "is_follow", "long_view", "play_time_ms")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 simulated events of eight days."""
    folder = tmp_path_factory.mktemp("protocol") / "log"
    assert coldrank(["simulate", "--events", "3000", "--days", "8", "--out", str(folder)]) == 0
    return folder


def events_of(logs: Path) -> pl.DataFrame:
    return pl.concat([pl.read_csv(p, glob=False) for p in sorted(logs.glob("log_*.csv"))])


@pytest.fixture(scope="module")
def days(logs: Path) -> protocol.ProtocolDays:
    """Two days of validation, the last two of test."""
    last = date(2022, 5, 5)
    assert events_of(logs)["date"].max() == day_number(last)
    return protocol.ProtocolDays(last - timedelta(days=3), last - timedelta(days=1))


def day_number(day: date) -> int:
    return int(f"{day:%Y%m%d}")


def samples_of(logs: Path, out: Path, days: protocol.ProtocolDays, *, live: bool = False) -> pl.DataFrame:
    data = protocol.samples(logs, protocol.open_log(logs), out, days, live=live)
    parts = [
        pl.read_parquet(f, glob=False, hive_partitioning=False).with_columns(split=pl.lit(split))
        for split in protocol.SPLITS
        for f in data.files((split,))
    ]
    return pl.concat(parts).sort("time", "user_id", "item_id")


def changed_log(logs: Path, to: Path, since: date) -> Path:
    """The log with other outcomes from a day on."""
    shutil.copytree(logs, to)
    for path in to.glob("log_*.csv"):
        frame = pl.read_csv(path, glob=False)
        flags = [(1 - pl.col(c)).alias(c) for c in OUTCOMES[:-1]]
        other = frame.with_columns(*flags, play_time_ms=pl.col("duration_ms") + 1)
        is_later = pl.col("date") >= day_number(since)
        cells = [pl.when(is_later).then(other[c]).otherwise(pl.col(c)).alias(c) for c in frame.columns]
        frame.with_columns(cells).write_csv(path)
    return to


def features_of(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.drop(c for c in samples.columns if c.startswith(("label_", "true_")))


def test_inputs_of_hidden_days_hold_no_outcome_of_these_days(logs, days, tmp_path):
    """Other outcomes from the first day of validation on change labels, and nothing that a model reads."""
    other = changed_log(logs, tmp_path / "other", days.valid_from)
    ours, theirs = (samples_of(folder, tmp_path / f"{folder.name}-hidden", days) for folder in (logs, other))
    assert features_of(ours).equals(features_of(theirs)) and len(ours) == len(events_of(logs))
    assert not ours["label_long_view"].equals(theirs["label_long_view"])
    assert ours.filter(split="train")["label_long_view"].equals(theirs.filter(split="train")["label_long_view"])
    live = samples_of(logs, tmp_path / "live", days, live=True)
    train = [features_of(s.filter(split="train")) for s in (ours, live)]
    assert train[0].equals(train[1]), "no event of training is later than one of validation here"
    tests = [s.filter(split="test") for s in (ours, live)]
    differ = [c for c in tests[0].columns if not tests[0][c].equals(tests[1][c])]
    assert "rate_user_long_view" in differ and "hist_click" in differ
    assert all(c.startswith(("rate_", "hist_")) for c in differ), differ
    for same in ("hist_item_id", "user_views", "label_long_view"):
        assert tests[0][same].equals(tests[1][same])


def test_rows_are_split_by_the_log_s_date_and_all_count(logs, days, tmp_path):
    """Equal rows as well, and rows whose date is that of the day after their time."""
    folder = shutil.copytree(logs, tmp_path / "log")
    path = next(folder.glob("log_*.csv"))
    frame = pl.read_csv(path, glob=False)
    first = frame.filter(date=day_number(days.test_from)).head(1)
    early = first.with_columns(time_ms=pl.col("time_ms") - 86_400_000 // 2)
    pl.concat([frame, first, first, early]).write_csv(path)
    ours = samples_of(folder, tmp_path / "out", days)
    rows = events_of(folder)
    for split, low, high in (
        ("train", 0, day_number(days.valid_from)),
        ("valid", day_number(days.valid_from), day_number(days.test_from)),
        ("test", day_number(days.test_from), 10**9),
    ):
        wanted = rows.filter((pl.col("date") >= low) & (pl.col("date") < high))["time_ms"].sort()
        assert ours.filter(split=split)["time"].sort().equals(wanted.alias("time")), split
    found = protocol.survey(protocol.open_log(folder), days)
    assert found.rows == dict(ours["split"].value_counts().iter_rows()) and not found.whole


def scored(seed: int, rows: int = 400, users: int = 30) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    user, label = shared.integers(0, users, rows) * 7, shared.integers(0, 2, rows)
    score = np.round(np.clip(0.2 * label + rng.random(rows) * 0.8, 0, 1), 2).astype(np.float32)
    return pl.DataFrame(
        {"user_id": user, "item_id": shared.integers(0, 9, rows), "time": np.arange(rows)}
        | {"label_long_view": label.astype(np.int8), "prob_long_view": score}
    )


def by_metrics(frame: pl.DataFrame) -> list[float]:
    none = np.zeros(len(frame), np.int64)
    rows = ScoredRows(
        labels=frame["label_long_view"].to_numpy().astype(np.float64),
        predictions=frame["prob_long_view"].to_numpy().astype(np.float64),
        user_id=frame["user_id"].to_numpy(),
        item_id=none,
        user_views=none,
        item_views=none,
    )
    gauc, ndcg = PositiveGauc().value(rows), UserNdcg().value(rows)
    return [gauc, ndcg, (gauc + ndcg) / 2]


def test_figures_of_a_draw_are_those_of_its_users(tmp_path):
    """A user that is drawn twice counts as two users with the same rows."""
    frame = scored(1)
    frame.write_parquet(tmp_path / "p.parquet")
    judge = figures.SplitJudge.from_file(tmp_path / "p.parquet", draws=5)
    found = judge.read(tmp_path / "p.parquet")
    assert found.shape == (3, 6) and found[:, 0] == pytest.approx(by_metrics(frame))
    names = np.unique(frame["user_id"])
    for draw in range(1, 6):
        times = dict(zip(names, judge.draws[draw].astype(int), strict=True))
        copies = [
            frame.filter(user_id=u).with_columns(user_id=pl.lit(1000 * n + u)) for u in names for n in range(times[u])
        ]
        assert found[:, draw] == pytest.approx(by_metrics(pl.concat(copies)))
    scored(2).with_columns(pl.col("time") + 1).write_parquet(tmp_path / "q.parquet")
    with pytest.raises(UserError, match=r"q\.parquet: has other rows than the runs before it"):
        judge.read(tmp_path / "q.parquet")
    frame.with_columns(label_long_view=pl.lit(None, pl.Int8)).write_parquet(tmp_path / "r.parquet")
    with pytest.raises(UserError, match=r"r\.parquet: label_long_view is unknown at row 0"):
        figures.SplitJudge.from_file(tmp_path / "r.parquet")


def test_differences_are_paired_by_seed_and_corrected_over_all_of_the_arms(tmp_path):
    for seed in (1, 2, 3, 4):
        scored(seed).write_parquet(tmp_path / f"{seed}.parquet")
    judge = figures.SplitJudge.from_file(tmp_path / "1.parquet", draws=200)
    read = {n: judge.read(tmp_path / f"{n}.parquet") for n in (1, 2, 3, 4)}
    better = judge.figures(scored(1)["prob_long_view"].to_numpy() + 0.3 * judge.labels)
    drawn = {"fm": [read[1], read[2]], "ours": [read[3], read[4]], "more": [better, better, better]}
    drawn["chance"] = [judge.figures(np.zeros(400))]
    cells = {(c.arm, c.figure): c for c in figures.cells(judge, drawn, "fm")}
    assert cells["fm", "GAUC"].interval is None and cells["fm", "GAUC"].seeds == 2
    for index, figure in enumerate(figures.FIGURES):
        sides = [np.stack([f[index] for f in drawn[arm]]) for arm in ("ours", "fm")]
        wanted = contrast(*sides, judge.effective_users, paired=True)
        assert cells["ours", figure].interval == wanted
        assert cells["ours", figure].mean == pytest.approx(sides[0][:, 0].mean())
        assert cells["ours", figure].seed_spread == pytest.approx(sides[0][:, 0].std(ddof=1))
    more, ours = cells["more", "primary"], cells["ours", "primary"]
    assert more.interval.difference > 0.1 and more.p < 0.05 and cells["chance", "GAUC"].p is None
    assert cells["chance", "GAUC"].mean == 0.5 and cells["chance", "GAUC"].seeds == 0
    assert ours.p >= ours.interval.p
    text = figures.table(list(cells.values()), {"fm": (0.6674, 0.5357)})
    assert (
        re.search(r"\| fm, published +\| 66\.74 +\| 53\.57 +\| 60\.1[56] ", text)
        and "▲" in text
        and "| ours (2)" in text
        and "| chance " in text
    )
    assert "published" not in figures.table(list(cells.values()), None)


def test_popularity_is_the_smoothed_rate_of_training_and_the_ceiling_is_what_labels_give(logs, days, tmp_path):
    data = protocol.samples(logs, protocol.open_log(logs), tmp_path / "data", days, live=False)
    test = pl.concat([pl.read_parquet(f, glob=False, hive_partitioning=False) for f in data.files(("test",))])
    test.with_columns(prob_long_view=pl.lit(0.5)).write_parquet(tmp_path / "p.parquet")
    judge = figures.SplitJudge.from_file(tmp_path / "p.parquet", draws=2)
    train = events_of(logs).filter(pl.col("date") < day_number(days.valid_from))
    rate = train["long_view"].sum() / len(train)
    scores = figures.reference_scores("popularity", judge, data)
    seen = 0
    for row in range(0, len(scores), 7):
        of_item = train.filter(video_id=judge.keys["item_id"][row])
        seen += len(of_item) > 0
        wanted = (of_item["long_view"].sum() + 20 * rate) / (len(of_item) + 20)
        assert scores[row] == pytest.approx(wanted)
    assert seen > 20
    ceiling = judge.figures(figures.reference_scores("ceiling", judge, data))[:, 0]
    some = test.group_by("user_id").agg(pl.col("label_long_view").max())["label_long_view"].mean()
    assert ceiling[0] == 1 and ceiling[1] == pytest.approx(some)


@pytest.fixture(scope="module")
def arms_module(tmp_path_factory: pytest.TempPathFactory):
    """The name of a module of small arms."""
    folder = tmp_path_factory.mktemp("arms")
    (folder / "protocol_arms.py").write_text(ARMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield "protocol_arms"


def command(logs: Path, out: Path, days: protocol.ProtocolDays, *more: str) -> list[str]:
    part = ["--part", "--valid-from", str(days.valid_from), "--test-from", str(days.test_from)]
    return ["--logs", str(logs), "--out", str(out), "--config", "protocol_arms", *part, *more]


@pytest.mark.slow
def test_a_whole_run_freezes_its_choice_before_it_scores_the_test(logs, days, tmp_path, arms_module, capsys):
    out = tmp_path / "out"
    asked = command(logs, out, days, "--arms", "fm,dull", "--seeds", "2")
    assert main([*asked, "--until", "choice"]) == 0
    assert not list(out.rglob("predictions-test*")) and not (out / "frozen.json").exists()
    chosen = {arm: json.loads((out / f"chosen/{arm}.json").read_text()) for arm in ("fm", "dull")}
    for arm, of_arm in chosen.items():
        values = [s["valid"]["primary"] for s in of_arm["settings"]]
        assert len(values) == 2 and of_arm["setting"] == int(np.argmax(values)) and len(set(values)) == 2
        runs = sorted(p.parent.name for p in out.glob(f"runs/{arm}-{of_arm['setting']}/*/summary.json"))
        assert runs == ["seed-1", "seed-2"]
        frame = pl.read_parquet(out / f"runs/{arm}-0/seed-1/predictions-valid.parquet")
        assert of_arm["settings"][0]["valid"]["primary"] == pytest.approx(by_metrics(frame)[2])
    assert main(asked) == 0
    written = {p: p.stat().st_mtime_ns for p in [*out.rglob("predictions-*"), out / "frozen.json"]}
    assert len([p for p in written if "test" in p.name or "live" in p.name]) == 8
    text = capsys.readouterr().out
    assert "A part of the log" in text and "published" not in text
    of_test = json.loads((out / "tables/test.json").read_text())
    frames = [
        pl.read_parquet(out / f"runs/fm-{chosen['fm']['setting']}/seed-{s}/predictions-test.parquet") for s in (1, 2)
    ]
    cell = next(c for c in of_test["cells"] if (c["arm"], c["figure"]) == ("fm", "primary"))
    assert cell["mean"] == pytest.approx(np.mean([by_metrics(f)[2] for f in frames]))
    rows = events_of(logs).filter(pl.col("date") >= day_number(days.test_from))
    assert len(frames[0]) == len(rows) and not of_test["whole"]
    assert (
        coldrank(
            [
                "compare",
                *(str(out / f"runs/{a}-{chosen[a]['setting']}") for a in chosen),
                "--baseline",
                "fm",
                "--split",
                "test",
                "--allow",
                "features",
                "--allow",
                "passes",
                "--out",
                str(tmp_path / "c"),
            ]
        )
        == 0
    )
    assert main(asked) == 0
    assert {p: p.stat().st_mtime_ns for p in written} == written, "a second call has nothing left to do"
    assert main([*asked[:-3], "fm", "--seeds", "2"]) == 2
    assert "frozen.json: arms was another when the days of test were scored" in capsys.readouterr().err


@pytest.mark.slow
def test_the_choice_rests_on_no_outcome_of_the_test(logs, days, tmp_path, arms_module):
    other = changed_log(logs, tmp_path / "other", days.test_from)
    chosen = []
    for folder in (logs, other):
        out = tmp_path / f"{folder.name}-out"
        assert main(command(folder, out, days, "--arms", "fm", "--seeds", "1", "--until", "choice")) == 0
        chosen.append(json.loads((out / "chosen/fm.json").read_text()))
    assert chosen[0] == chosen[1]


@pytest.mark.tried(
    "logs", "the protocol of KuaiRand-Pure on a part of its log", "the rows found; refused without --part"
)
def test_a_part_of_the_log_is_named(logs, tmp_path, capsys):
    folder = shutil.copytree(logs, tmp_path / "log")
    path = next(folder.glob("log_*.csv"))
    frame = pl.read_csv(path, glob=False)
    shift = 8 * 86_400_000  # into the protocol's days of training and validation
    moved = (
        pl.from_epoch(pl.col("time_ms") - shift + 8 * 3_600_000, time_unit="ms").dt.strftime("%Y%m%d").cast(pl.Int64)
    )
    frame.with_columns(time_ms=pl.col("time_ms") - shift, date=moved).write_csv(path)
    later = frame.tail(40).with_columns(date=pl.lit(20220430))
    later.write_csv(folder / "log_standard_later.csv")
    assert main(["--logs", str(folder), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "log_standard_later.csv, log_standard_sim-00000.csv: 2022-04-20 to 2022-04-30" in told.out
    assert "of 1,141,112 rows" in told.out and "test 40 of 170,588 rows" in told.out
    assert told.err == f"kuairand_pure: --logs {folder}: is not the whole log; --part goes on with what is there\n"
    assert not (tmp_path / "out").exists()


REFUSED = [
    (["--valid-from", "2022-04-20"], "--valid-from: the protocol's days are fixed; of a part of the log give --part"),
    (["--part", "--valid-from", "2022-05-01"], "--valid-from 2022-05-01: should be before --test-from 2022-04-29"),
    (["--part", "--valid-from", "2022-05-01", "--test-from", "2030-01-01"], "split test has no row"),
    (["--seeds", "0"], "--seeds 0: must be above 0"),
    (["--jobs", "0"], "--jobs 0: must be above 0"),
    (["--arms", "base"], "--arms base: fm is what the others are held against; add it"),
    (["--arms", "fm,fm"], "--arms: 'fm' is there twice"),
    (["--arms", "fm,chance"], "--arms chance: is what the tables call their own reference"),
    (["--arms", "fm,nope"], "has no arm 'nope'"),
    (["--config", "coldrank.configs.kuairand_pure:fm"], "give the module alone"),
    (["--config", "coldrank.configs.kuairand", "--arms", "base", "--until", "choice"], "test days are hidden"),
    (["--config", "protocol_arms", "--arms", "fm,blind"], "--arms blind: metrics lack 'positive_gauc'"),
    (["--config", "protocol_arms", "--arms", "fm,later"], "--arms later: should have data.fit=train"),
    (["--config", "coldrank.configs.pam", "--arms", "pf", "--until", "choice"], "--arms pf: has no task 'long_view'"),
]


@pytest.mark.parametrize(("more", "text"), REFUSED, ids=[t[:40] for _, t in REFUSED])
def test_what_cannot_be_is_refused_in_a_line(logs, tmp_path, capsys, arms_module, more, text):
    assert main(["--logs", str(logs), "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1 and error.startswith("kuairand_pure: ")


def test_the_whole_log_is_known_by_its_rows(logs, days, monkeypatch):
    found = protocol.survey(protocol.open_log(logs), days)
    assert not found.whole
    monkeypatch.setattr(protocol, "ROWS", dict(found.rows))
    assert not found.whole, "the days are not the protocol's"
    usual = protocol.ProtocolDays(date(2022, 4, 22), date(2022, 4, 29))
    assert protocol.Coverage(files=(), first=found.first, last=found.last, rows=found.rows, days=usual).whole


def test_samples_of_another_log_or_day_are_not_taken(logs, days, tmp_path):
    log = protocol.open_log(logs)
    made = protocol.samples(logs, log, tmp_path / "data", days, live=False)
    assert protocol.samples(logs, log, tmp_path / "data", days, live=False).digest == made.digest
    assert DataFolder.open(tmp_path / "data").manifest["arguments"]["live"] is False
    later = protocol.ProtocolDays(days.valid_from + timedelta(days=1), days.test_from)
    with pytest.raises(UserError, match=f"holds samples of valid_from={days.valid_from}, not {later.valid_from}"):
        protocol.samples(logs, log, tmp_path / "data", later, live=False)
    with pytest.raises(UserError, match="holds samples of live=False, not True"):
        protocol.samples(logs, log, tmp_path / "data", days, live=True)


def test_a_choice_is_frozen_once(tmp_path):
    choice.freeze(tmp_path, {"format": 1, "arms": {"fm": {"setting": 1}}})
    choice.freeze(tmp_path, {"format": 1, "arms": {"fm": {"setting": 1}}})
    with pytest.raises(UserError, match="arms was another when the days of test were scored"):
        choice.freeze(tmp_path, {"format": 1, "arms": {"fm": {"setting": 2}}})
