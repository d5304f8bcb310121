"""KuaiRand (Pure and 1K) as an event log: the official file layout and columns.

Read are `log_*.csv` (or .parquet), `user_features_*.csv` and `video_features_basic_*.csv`, in any case, in the folder
or in its `data/`. `video_features_statistic_*.csv` is never read: it sums up the whole log, so it knows the future of
every event. The user features are the publisher's snapshot, taken once; when it was taken is not known.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl
from tqdm import tqdm

from coldrank.data.errors import UserError
from coldrank.data.events import check_table
from coldrank.data.files import CsvFile, Schema, first_line, parquet_file, read_csv, whole_numbers
from coldrank.data.folder import PARQUET, Folder
from coldrank.data.ids import check_finite
from coldrank.data.kuairand_names import DEFAULT_TASKS, NUMBERS, OUTCOME_COLUMNS
from coldrank.data.location import check_reachable
from coldrank.data.log import Column, EventLog, Group, LogFile, LogSpec

UTC_OFFSET_H = 8.0
# How the names of the feature files begin.
_USERS, _ITEMS = "user_features_", "video_features_basic_"
_IDS = {"user_id": pl.Int64, "video_id": pl.Int64, "time_ms": pl.Int64}
_FLAGS = (
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "is_profile_enter",
    "is_rand",
)
_NUMBERS = ("date", "hourmin", "play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time", "tab")
_TYPES: Schema = {
    **_IDS,
    **dict.fromkeys(_FLAGS, pl.Int8),
    **dict.fromkeys(_NUMBERS, pl.Int32),
    **{f"true_{t}": pl.Float64 for t in DEFAULT_TASKS},
}
_REQUIRED = (*_IDS, "date", "is_click", "is_like", "is_follow", "long_view", "play_time_ms", "duration_ms", "tab")

# Length of the video: the log's own (known before the play), else that of the video table.
_DURATION_MS = pl.coalesce(pl.col("duration_ms").replace(0, None), pl.col("video_duration"))

OUTCOMES: dict[str, Column] = {
    **OUTCOME_COLUMNS,
    # Unknown where the play time or the length of the video is (a length of 0 is unknown, too).
    "finish_view": pl.col("play_time_ms") >= _DURATION_MS,
}

NUMBER_COLUMNS: dict[str, Column] = {"watch_s": pl.col("play_time_ms") / 1000}

_GROUPS = (
    Group(keys=("author",)),
    Group(keys=("tag",)),
    Group(keys=("music",)),
    Group(keys=("item",), parent="author"),
    Group(keys=("user", "author"), parent="user"),
    Group(keys=("user", "tag"), parent="user"),
    Group(keys=("user", "duration"), parent="user"),
    Group(keys=("user", "item"), parent="user"),
)


def open_kuairand(
    folder: Path,
    *,
    tasks: Sequence[str] = (*DEFAULT_TASKS, *NUMBERS),
    signals: Sequence[str] = DEFAULT_TASKS,
    include_random: bool = False,
) -> EventLog:
    """The log in `folder`. include_random: also read `log_random_*`, the log of randomly inserted videos.

    Raises UserError for missing files or columns and unknown tasks.
    """
    for option, names, known in (("--tasks", tasks, OUTCOMES | NUMBER_COLUMNS), ("--signals", signals, OUTCOMES)):
        if unknown := set(names) - set(known):
            raise UserError(f"{option}: {min(unknown)!r} is unknown; choose among {', '.join(known)}")
    check_reachable(folder, listed=True)
    root = folder / "data"
    if not root.is_dir() or any(p.name.lower().startswith("log_") for p in folder.iterdir()):
        root = folder
    searched = Folder(root, partial(_left_out, include_random), deep=False)
    files = [_log_file(p) for p in searched.files if p.name.lower().startswith("log_")]
    for file in (f for f in files if f.empty):
        searched.leave_out(file.path, "no rows")
    files = [f for f in files if not f.empty]
    if not files:
        raise UserError(
            f"--data {folder}: no log_*.csv or log_*.parquet with events there or in its folder data"
            f"{searched.left_out_note()}"
        )
    columns = set.intersection(*(set(f.frame.collect_schema().names()) for f in files))
    return EventLog(
        source="kuairand",
        spec=_spec(tasks, signals, columns),
        files=tuple(files),
        users=_users(_features(searched, _USERS)),
        items=_items(_features(searched, _ITEMS)),
        left_out=searched.left_out(),
    )


def _left_out(include_random: bool, name: str) -> str:
    """Why a file is not read, or ""."""
    name = name.lower()
    if name.startswith("log_") and name.endswith((".csv", *PARQUET)):
        return "" if include_random or not name.startswith("log_random") else "read with --include-random"
    return "" if name.startswith((_USERS, _ITEMS)) and name.endswith(".csv") else "not of the layout"


def _spec(tasks: Sequence[str], signals: Sequence[str], columns: set[str]) -> LogSpec:
    local = pl.from_epoch("time_ms", time_unit="ms") + pl.duration(milliseconds=int(UTC_OFFSET_H * 3_600_000))
    context: dict[str, Column] = {
        "tab": "tab",
        "hour": local.dt.hour(),
        "item_duration_s": (_DURATION_MS / 1000).cast(pl.Float32),
    }
    if "is_rand" in columns:
        context["is_random"] = "is_rand"
    return LogSpec(
        user="user_id",
        item="video_id",
        time="time_ms",
        tasks={t: OUTCOMES[t] for t in tasks if t in OUTCOMES},
        numbers={t: NUMBER_COLUMNS[t] for t in tasks if t in NUMBER_COLUMNS},
        signals={s: OUTCOMES[s] for s in signals},
        # Two buckets per octave of the video's length.
        keys={
            "author": "item_author_id",
            "tag": "item_tag",
            "music": "item_music_id",
            "duration": (2 * (_DURATION_MS / 1000).log(2)).floor().cast(pl.Int64),
        },
        groups=_GROUPS,
        history={"tag": "item_tag", "author": "item_author_id"},
        context=context,
        item_birth="upload_ms",
        day=pl.col("date").cast(pl.String).str.to_date("%Y%m%d"),
        utc_offset_h=UTC_OFFSET_H,
        truth={t: f"true_{t}" for t in tasks if f"true_{t}" in columns},
        meanings={
            "label_watch_s": "outcome: seconds that the video was played, replays included, or null (unknown)",
            "tab": "place in the app where the video was shown (null: unknown)",
            "hour": "hour of the day, UTC+8",
            "is_random": "1: inserted at random, not recommended",
            "item_duration_s": "length of the video in seconds",
            "item_tag": "first tag of the video",
            "item_tags": "tags of the video",
            "item_width": "width in pixels",
            "item_height": "height in pixels",
        },
    )


def _log_file(path: Path) -> LogFile:
    if path.name.lower().endswith(PARQUET):
        return parquet_file(path, _REQUIRED)
    return CsvFile(path=path, schema=_TYPES, required=_REQUIRED).log_file()


def _features(folder: Folder, begin: str) -> tuple[pl.DataFrame, str]:
    """The feature files whose names begin so, as one table whose types hold for all values; and their names."""
    paths = [p for p in folder.files if p.name.lower().startswith(begin)]
    if not paths:
        raise UserError(f"--data {folder.root}: no {begin}*.csv")
    try:
        parts = [read_csv(p) for p in tqdm(paths, desc=begin, disable=None)]
        for path, part in zip(paths, parts, strict=True):
            for column in part.iter_columns():
                check_finite(column, f"{path}: column {column.name}")
        return whole_numbers(pl.concat(parts, how="diagonal_relaxed")), " ".join(map(str, paths))
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{folder.root}/{begin}*.csv: {first_line(error)}") from None


def _users(table: tuple[pl.DataFrame, str]) -> pl.DataFrame:
    frame, where = table
    _require(frame, where, ("user_id",))
    names = {n: n if n.startswith("user_") else f"user_{n}" for n in frame.columns}
    return check_table(frame.rename(names), "user_id", where)


def _items(table: tuple[pl.DataFrame, str]) -> pl.DataFrame:
    frame, where = table
    same = ("author_id", "music_id", "video_type", "upload_type", "music_type")
    _require(frame, where, ("video_id", *same, "upload_dt", "video_duration", "server_width", "server_height", "tag"))
    tags = pl.col("tag").cast(pl.String).str.split(",").cast(pl.List(pl.Int64))
    # An upload date is a local day; the video is as old as that day's beginning.
    uploaded = pl.col("upload_dt").cast(pl.String).str.to_datetime("%Y-%m-%d", time_unit="ms").dt.epoch("ms")
    try:
        frame = frame.select(
            pl.col("video_id").alias("item_id"),
            *(pl.col(n).alias(f"item_{n}") for n in same),
            pl.col("server_width").alias("item_width"),
            pl.col("server_height").alias("item_height"),
            tags.list.first().alias("item_tag"),
            tags.alias("item_tags"),
            pl.col("video_duration").replace(0, None),
            (uploaded - int(UTC_OFFSET_H * 3_600_000)).alias("upload_ms"),
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from None
    return check_table(frame, "item_id", where)


def _require(frame: pl.DataFrame, where: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in frame.columns:
            raise UserError(f"{where}: no column {name!r}; it has {', '.join(frame.columns)}")
