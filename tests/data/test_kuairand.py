"""KuaiRand's layout: small files of our own, and the real log where it is there."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.kuairand import open_kuairand
from coldrank.data.spool import load_events
from coldrank.data.state.state import Shape, State
from coldrank.data.statistics import compute_statistics

HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
    "music_id,music_type,tag\n"
    '7,70,NORMAL,2022-04-10,Web,0.0,8000.0,720.0,1280.0,1,9.0,"3,4"\n'
    "8,70,AD,2022-04-11,Web,0.0,,540.0,960.0,2,,\n"
)
MIDNIGHT = 1_650_816_000_000  # 2022-04-25 00:00 in UTC+8


def row(user: int, video: int, hours: float, date: str = "20220425", play: str = "9000", duration: str = "8000") -> str:
    return f"{user},{video},{date},0,{MIDNIGHT + int(hours * 3_600_000)},1,0,0,0,0,0,1,{play},{duration},0,0,0,0,1\n"


def write_log(folder: Path, rows: list[str], name: str = "log_standard_x.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(HEADER + "".join(rows))
    (folder / "user_features_x.csv").write_text("user_id,user_active_degree,onehot_feat0\n1,full_active,3.0\n2,low,\n")
    (folder / "video_features_basic_x.csv").write_text(VIDEOS)
    (folder / "video_features_statistic_x.csv").write_text("never read")
    return folder


def command(data: Path, out: Path, *more: str) -> int:
    return main(["prepare", "kuairand", "--data", str(data), "--out", str(out), *more])


def days() -> list[str]:
    return [row(1 + d % 2, 7 + d % 2, 24 * d + 1, f"202204{25 + d}") for d in range(5)]


def test_official_columns_become_samples(tmp_path: Path) -> None:
    history = f"1,8,,,{MIDNIGHT - 1},,1,,,,,0,,,,,,,\n"
    write_log(tmp_path / "log", days()[1:])
    write_log(tmp_path / "log", [history, days()[0]], "log_history_x.csv")
    assert command(tmp_path / "log", tmp_path / "out", "--valid-days", "1") == 0
    samples = pl.read_parquet(tmp_path / "out" / "samples" / "**" / "*.parquet", hive_partitioning=False).sort("time")
    first, second = samples.to_dicts()[:2]
    assert (first["label_like"], first["label_long_view"], first["label_click"]) == (1, 0, None)
    assert first["tab"] is None and first["label_finish_view"] is None and first["hour"] == 23
    assert second["hist_click"] == [-1] and second["hist_like"] == [1] and second["hist_tag"] == [-1]
    assert (second["item_tags"], second["item_tag"], second["item_duration_s"], second["hour"]) == ([3, 4], 3, 8.0, 1)
    assert second["item_age_h"] == 15 * 24 + 1 and second["user_onehot_feat0"] == 3
    assert samples["user_onehot_feat0"].to_list()[2] is None
    periods = {p.name for p in (tmp_path / "out" / "samples").rglob("period=*")}
    assert periods == {f"period=2022-04-{d}" for d in range(24, 30)}


@pytest.mark.parametrize(
    ("play", "duration", "video", "finished"),
    [
        ("8000", "8000", 7, 1),
        ("7999", "8000", 7, 0),
        ("9000", "0", 7, 1),
        ("7000", "", 7, 0),
        ("9000", "0", 8, None),
        ("", "8000", 7, None),
    ],
)
def test_finish_view(play: str, duration: str, video: int, finished: int | None, tmp_path: Path) -> None:
    log = open_kuairand(write_log(tmp_path / "log", [row(1, video, 1, play=play, duration=duration)]))
    assert load_events(log).frame["label_finish_view"].to_list() == [finished]


@pytest.mark.parametrize(("play", "seconds"), [("8000", 8.0), ("0", 0.0), ("1234", 1.234), ("", None)])
def test_watch_time_is_the_play_time_in_seconds(play: str, seconds: float | None, tmp_path: Path) -> None:
    log = open_kuairand(write_log(tmp_path / "log", [row(1, 7, 1, play=play)]))
    (label,) = load_events(log).frame["label_watch_s"].to_list()
    assert label is None if seconds is None else label == pytest.approx(seconds, rel=1e-6)


def test_the_watch_time_of_an_event_is_no_input_of_it(tmp_path: Path) -> None:
    """Another play time of the third event changes its own labels, and of the later ones what was known before them."""
    samples = {}
    for name, play in {"before": "9000", "after": "10"}.items():
        (tmp_path / name).mkdir()
        rows = [row(1, 7, 24 * d + 1, f"202204{25 + d}", play=play if d == 2 else "9000") for d in range(5)]
        assert command(write_log(tmp_path / name / "log", rows), tmp_path / name / "out", "--valid-days", "1") == 0
        files = tmp_path / name / "out" / "samples" / "**" / "*.parquet"
        samples[name] = pl.read_parquet(files, hive_partitioning=False).sort("time")
    before, after = samples["before"], samples["after"]
    differ = {
        d: [c for c in before.columns if before[c][d : d + 1].to_list() != after[c][d : d + 1].to_list()]
        for d in range(5)
    }
    assert differ[0] == differ[1] == [] and differ[2] == ["label_finish_view", "label_watch_s"]
    assert differ[3] and all(c.startswith(("rate_", "hist_")) and c.endswith("_finish_view") for c in differ[3])
    assert before["label_watch_s"].to_list() == [9.0] * 5


def test_random_logs_are_read_only_on_request(tmp_path: Path) -> None:
    write_log(tmp_path / "log", days())
    folder = write_log(tmp_path / "log", [row(2, 7, 3)], "log_random_x.csv")
    assert len(load_events(open_kuairand(folder)).time) == 5
    assert len(load_events(open_kuairand(folder, include_random=True)).time) == 6


def test_users_are_held_out_on_request(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", [row(user, 7, hour, "20220422") for hour in range(3) for user in range(10)])
    shares = ("--test-share", "0.3", "--valid-share", "0.2")
    assert command(log, tmp_path / "out", "--split", "users", *shares) == 0
    files = {split: tmp_path / f"out/samples/split={split}/**/*.parquet" for split in ("train", "valid", "test")}
    users = [set(pl.read_parquet(f, columns=["user_id"], hive_partitioning=False)["user_id"]) for f in files.values()]
    assert [len(u) for u in users] == [5, 2, 3] and len(set.union(*users)) == 10


def test_the_day_is_the_logs_own_and_else_that_of_utc_plus_8(tmp_path: Path) -> None:
    rows = [row(1, 7, -0.5, "20220425"), row(1, 7, -0.4, "")]
    events = load_events(open_kuairand(write_log(tmp_path / "log", rows)))
    assert (events.day - events.day[1]).tolist() == [1, 0]


def test_tasks_and_truth(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", days())
    text = (folder / "log_standard_x.csv").read_text().splitlines()
    (folder / "log_standard_x.csv").write_text(
        "\n".join([text[0] + ",true_click", *(f"{line},0.25" for line in text[1:])]) + "\n"
    )
    log = open_kuairand(folder, tasks=["click", "hate"], signals=["like"])
    frame = load_events(log).frame
    assert {"label_click", "label_hate", "true_click"} <= set(frame.columns) and "label_like" not in frame.columns
    assert frame["true_click"].to_list() == [0.25] * 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hourmin,time_ms", "hourmin,time", r"log_standard_x.csv: no column 'time_ms'; it has user_id, video_id"),
        (",20220427,", ",20220427x,", r"log_standard_x.csv: column date, row 3: '20220427x'; should be an integer"),
        (",20220427,", ",20221327,", r"log_standard_x.csv: .*20221327"),
        (",20220426,0,", ",20220426,0,9", r"column time_ms \(time\), row 2: 9\d+ is outside 1970..2100"),
        ("\n2,8,", "\n,8,", r"column user_id \(user_id\), row 2: None should not be empty"),
    ],
)
def test_errors_name_file_column_and_row(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_log(tmp_path / "log", days()) / "log_standard_x.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert command(tmp_path / "log", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert pl.Series([error]).str.contains(message).item(), error


def test_missing_files_and_unknown_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no log_"):
        open_kuairand(tmp_path)
    (write_log(tmp_path / "log", days()) / "user_features_x.csv").unlink()
    with pytest.raises(UserError, match="no user_features_"):
        open_kuairand(tmp_path / "log")
    with pytest.raises(UserError, match="--tasks: 'buy' is unknown; choose among long_view"):
        open_kuairand(tmp_path / "log", tasks=["buy"])
    with pytest.raises(UserError, match="--signals: 'watch_s' is unknown; choose among long_view"):
        open_kuairand(tmp_path / "log", signals=["watch_s"])


@pytest.mark.slow
def test_the_real_log(shared_data: Path) -> None:
    folder = shared_data / "kuairand-pure"
    log = open_kuairand(folder)
    events = load_events(log)
    columns = compute_statistics(events, State(Shape.of(log.spec, 50, 0))).columns
    assert len(load_events(log, keep_duplicates=True).time) == 185_061 + 817_187
    raw = pl.concat([pl.read_csv(p, infer_schema=False) for p in sorted(folder.glob("log_*.csv"))])
    raw = raw.unique().with_columns(pl.col("user_id", "video_id", "time_ms", "is_like").cast(pl.Int64, strict=False))
    assert len(events.time) == len(raw) == 997_571
    users = events.frame["user_id"].to_numpy()
    for user in (0, 712, 13_414, 20_515):
        of_user = raw.filter(pl.col("user_id") == user).sort("time_ms")
        rows = np.flatnonzero(users == user)
        want = [of_user.filter(pl.col("time_ms") < t) for t in events.time[rows].tolist()]
        assert columns["user_views"][rows].tolist() == [len(w) for w in want]
        last = rows[-1]
        likes = raw.filter(
            pl.col("video_id") == events.frame["item_id"][int(last)], pl.col("time_ms") < events.time[last]
        )
        assert columns["item_views"][last] == len(likes)
    everyone = raw.filter(pl.col("time_ms") < events.time[-1])["is_like"]
    prior = (everyone.sum() + 0.5) / (everyone.count() + 1)
    tag = events.codes["tag"]
    same = (tag == tag[-1]) & (events.time < events.time[-1])
    expected = ((events.signals["like"][same] == 1).sum() + 10 * prior) / (
        (events.signals["like"][same] >= 0).sum() + 10
    )
    assert columns["rate_tag_like"][-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.tried("logs", "a feature that is empty throughout in one of two CSV tables", "as in the other")
def test_an_empty_column_takes_the_type_of_the_other_table(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "log", days())
    (folder / "user_features_y.csv").write_text("user_id,user_active_degree,onehot_feat0\n3,,\n4,,\n")
    users = open_kuairand(folder).users
    assert users is not None
    assert users.sort("user_id")["user_onehot_feat0"].to_list() == [3, None, None, None]
    assert users.sort("user_id")["user_active_degree"].to_list() == ["full_active", "low", None, None]
