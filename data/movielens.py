"""MovieLens as an event log: the layouts 100K (u.data), 1M (ratings.dat), and 20M, 25M, 32M and latest (ratings.csv).

Tasks: favorite (5 stars) and satisfied (at least 4), as in POSO section 5.3. `tags.csv` is not read: tags are events of
their own, which most users never make. Many users rate a whole page of films in the same second; those ratings do not
see each other, and no layout's order of rows tells the true order within a second.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from coldrank.data.errors import UserError
from coldrank.data.events import check_table
from coldrank.data.files import CsvFile
from coldrank.data.folder import Folder
from coldrank.data.location import check_reachable, named
from coldrank.data.log import Column, EventLog, Group, LogFile, LogSpec

_RATING_TYPES = {"user_id": pl.Int64, "movie_id": pl.Int64, "rating": pl.Float32, "timestamp": pl.Int64}
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
# Ratings, films, users.
_LAYOUTS = (("ratings.csv", "movies.csv"), ("ratings.dat", "movies.dat", "users.dat"), ("u.data", "u.item", "u.user"))
_NO_GENRE = ("(no genres listed)", "unknown")

# Columns of a rating file, by layout. A separator of two characters leaves an empty column between two.
_NAMES_1M = ("user_id", "a", "movie_id", "b", "rating", "c", "timestamp")
_NAMES_100K = ("user_id", "movie_id", "rating", "timestamp")


def open_movielens(folder: Path) -> EventLog:
    """The log in `folder`, by the layout of its files. Raises UserError for missing files and wrong values."""
    check_reachable(folder, listed=True)
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder")
    names = {p.name.lower() for p in folder.iterdir()}
    layout = next((layout for layout in _LAYOUTS if layout[0] in names), None)
    if layout is None:
        raise UserError(f"--data {folder}: no ratings.csv, ratings.dat or u.data there")
    files = Folder(folder, lambda name: "" if name.lower() in layout else "not of the layout", deep=False)
    ratings = files.named(layout[0])
    if layout[0] == "ratings.csv":
        return _log(_ratings_csv(ratings), _movies_csv(files.named("movies.csv")), None, files)
    if layout[0] == "ratings.dat":
        file = CsvFile(path=ratings, schema=_RATING_TYPES, separator=":", names=_NAMES_1M)
        users = None
        if (path := files.named("users.dat")).exists():
            users = _users(path, "::", {"gender": 1, "age": 2, "occupation": 3})
        return _log(file.log_file(), _movies_dat(files.named("movies.dat")), users, files)
    file = CsvFile(path=ratings, schema=_RATING_TYPES, separator="\t", names=_NAMES_100K)
    users = _users(files.named("u.user"), "|", {"age": 1, "gender": 2, "occupation": 3})
    return _log(file.log_file(), _movies_100k(files.named("u.item")), users, files)


def _log(ratings: LogFile, movies: pl.DataFrame, users: pl.DataFrame | None, folder: Folder) -> EventLog:
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
    left_out = folder.left_out()
    return EventLog(source="movielens", spec=spec, files=(ratings,), users=users, items=movies, left_out=left_out)


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
    for name, field in columns.items():
        numbers = all(r[field].isdecimal() for r in rows)
        data[f"user_{name}"] = [int(r[field]) for r in rows] if numbers else [r[field] for r in rows]
    return check_table(pl.DataFrame(data), "user_id", str(path))


def _split_lines(path: Path, separator: str, fields: int) -> list[list[str]]:
    try:
        with named(path):
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
