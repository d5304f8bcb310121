"""MovieLens as an event log: the layouts 100K (u.data), 1M (ratings.dat), and 20M, 25M, 32M and latest (ratings.csv).

Tasks: favorite (5 stars) and satisfied (at least 4), as in POSO section 5.3. `tags.csv` is not read: tags are events of
their own, which most users never make. Many users rate a whole page of films in the same second; those ratings do not
see each other, and no layout's order of rows tells the true order within a second.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from coldrank.train.data.events import check_table
from coldrank.train.data.files import CsvFile
from coldrank.train.data.log import Column, EventLog, Group, LogFile, LogSpec
from coldrank.train.errors import UserError

_RATING_TYPES = {"user_id": pl.Int64, "movie_id": pl.Int64, "rating": pl.Float32, "timestamp": pl.Int64}
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_NO_GENRE = ("(no genres listed)", "unknown")

# Columns of a rating file, by layout. A separator of two characters leaves an empty column between two.
_NAMES_1M = ("user_id", "a", "movie_id", "b", "rating", "c", "timestamp")
_NAMES_100K = ("user_id", "movie_id", "rating", "timestamp")


def open_movielens(folder: Path) -> EventLog:
    """The log in `folder`, by the layout of its files. Raises UserError for missing files and wrong values."""
    if (folder / "ratings.csv").exists():
        return _log(_ratings_csv(folder / "ratings.csv"), _movies_csv(folder / "movies.csv"), None)
    if (folder / "ratings.dat").exists():
        ratings = CsvFile(path=folder / "ratings.dat", schema=_RATING_TYPES, separator=":", names=_NAMES_1M)
        users = None
        if (folder / "users.dat").exists():
            users = _users(folder / "users.dat", "::", {"gender": 1, "age": 2, "occupation": 3})
        return _log(ratings.log_file(), _movies_dat(folder / "movies.dat"), users)
    if (folder / "u.data").exists():
        ratings = CsvFile(path=folder / "u.data", schema=_RATING_TYPES, separator="\t", names=_NAMES_100K)
        users = _users(folder / "u.user", "|", {"age": 1, "gender": 2, "occupation": 3})
        return _log(ratings.log_file(), _movies_100k(folder / "u.item"), users)
    raise UserError(f"--data {folder}: no ratings.csv, ratings.dat or u.data there")


def _log(ratings: LogFile, movies: pl.DataFrame, users: pl.DataFrame | None) -> EventLog:
    tasks: dict[str, Column] = {"favorite": pl.col("rating") == 5, "satisfied": pl.col("rating") >= 4}
    spec = LogSpec(
        user="user_id",
        item="movie_id",
        time="timestamp",
        time_unit="s",
        tasks=tasks,
        keys={"tag": "item_tag"},
        groups=(Group(keys=("tag",)), Group(keys=("user", "tag"), parent="user")),
        history={"tag": "item_tag", "rating": (2 * pl.col("rating")).cast(pl.Int64)},
        period="month",
        meanings={
            "item_tag": "first genre of the film",
            "item_tags": "genres of the film",
            "item_year": "year of release, from the title",
            "hist_rating": "half stars of the user's last ratings before, most recent first",
        },
    )
    return EventLog(source="movielens", spec=spec, files=(ratings,), users=users, items=movies)


def _ratings_csv(path: Path) -> LogFile:
    types = {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float32, "timestamp": pl.Int64}
    file = CsvFile(path=path, schema=types, required=tuple(types)).log_file()
    return LogFile(path, file.frame.rename({"userId": "user_id", "movieId": "movie_id"}), file.explain)


def _movies_csv(path: Path) -> pl.DataFrame:
    types = {"movieId": pl.Int64}
    frame = CsvFile(path=path, schema=types, required=("movieId", "title", "genres")).read()
    genres = pl.col("genres").str.split("|")
    return _movies(frame.select(pl.col("movieId").alias("item_id"), "title", genres), path)


def _movies_dat(path: Path) -> pl.DataFrame:
    rows = _split_lines(path, "::", 3)
    data = {
        "item_id": [_integer(path, i, r[0]) for i, r in enumerate(rows)],
        "title": [r[1] for r in rows],
        "genres": [r[2].split("|") for r in rows],
    }
    return _movies(pl.DataFrame(data), path)


def _movies_100k(path: Path) -> pl.DataFrame:
    rows = _split_lines(path, "|", 5 + len(_GENRES_100K))
    data = {
        "item_id": [_integer(path, i, r[0]) for i, r in enumerate(rows)],
        "title": [r[1] for r in rows],
        "genres": [[g for g, flag in zip(_GENRES_100K, r[5:], strict=True) if flag == "1"] for r in rows],
    }
    return _movies(pl.DataFrame(data, schema_overrides={"genres": pl.List(pl.String)}), path)


def _movies(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    genres = pl.col("genres").list.eval(pl.element().filter(pl.element().is_in(_NO_GENRE).not_()))
    frame = frame.select(
        "item_id",
        genres.list.first().alias("item_tag"),
        genres.alias("item_tags"),
        pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int64).alias("item_year"),
    )
    return check_table(frame, "item_id", str(path))


def _users(path: Path, separator: str, columns: Mapping[str, int]) -> pl.DataFrame:
    rows = _split_lines(path, separator, 5)
    data: dict[str, list[int] | list[str]] = {"user_id": [_integer(path, i, r[0]) for i, r in enumerate(rows)]}
    for name, at in columns.items():
        numbers = all(r[at].isdecimal() for r in rows)
        data[f"user_{name}"] = [int(r[at]) for r in rows] if numbers else [r[at] for r in rows]
    return check_table(pl.DataFrame(data), "user_id", str(path))


def _split_lines(path: Path, separator: str, fields: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    rows = [line.split(separator) for line in lines if line]
    for i, row in enumerate(rows):
        if len(row) != fields:
            raise UserError(f"{path}: row {i + 1}: {len(row)} fields; should be {fields}, separated by {separator!r}")
    return rows


def _integer(path: Path, row: int, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{path}: row {row + 1}: id {text!r}; should be a whole number")
    return int(text)
