"""The layouts of MovieLens: small files of our own, and the real ones where they are there."""

from pathlib import Path

import polars as pl
import pytest

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.ids import string_id
from coldrank.data.log import EventLog
from coldrank.data.movielens import open_movielens
from coldrank.data.spool import load_events

RATINGS = [(1, 10, 5, 978_300_760), (1, 20, 3, 978_300_760), (2, 10, 4, 978_302_109)]


def write_1m(folder: Path) -> Path:
    (folder / "ratings.dat").write_text("".join("::".join(map(str, r)) + "\n" for r in RATINGS))
    (folder / "movies.dat").write_bytes("10::Été: a film (1995)::Drama|War\n20::No year::Drama\n".encode("latin-1"))
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    return folder


def write_100k(folder: Path) -> Path:
    (folder / "u.data").write_text("".join("\t".join(map(str, r)) + "\n" for r in RATINGS))
    flags = "|".join("1" if i in (8, 17) else "0" for i in range(19))
    (folder / "u.item").write_text(
        f"10|Film (1995)|01-Jan-1995||url|{flags}\n20|Film (1996)|||url|1|{'|'.join('0' * 18)}\n"
    )
    (folder / "u.user").write_text("1|24|F|writer|85711\n2|53|M|other|94043\n")
    return folder


def write_csv(folder: Path) -> Path:
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,10,5.0,978300760\n1,20,3.5,978300760\n2,10,4.0,978302109\n"
    )
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n10,"Film, The (1995)",Drama|War\n20,Other,(no genres listed)\n'
    )
    return folder


def labels(log: EventLog) -> list[tuple[int, ...]]:
    return load_events(log).frame.select("user_id", "item_id", "time", "label_favorite", "label_satisfied").rows()


@pytest.mark.parametrize("write", [write_1m, write_100k, write_csv])
def test_layouts_agree(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    log = open_movielens(write(tmp_path))
    assert labels(log) == [
        (1, 10, 978_300_760_000, 1, 1),
        (1, 20, 978_300_760_000, 0, 0),
        (2, 10, 978_302_109_000, 0, 1),
    ]
    assert log.items is not None
    film = log.items.filter(pl.col("item_id") == 10).to_dicts()[0]
    assert film == {"item_id": 10, "item_tag": "Drama", "item_tags": ["Drama", "War"], "item_year": 1995}
    assert load_events(log).attributes["tag"][0] == string_id("Drama")


def test_no_genre_is_no_tag_and_half_stars_are_whole_numbers(tmp_path: Path) -> None:
    events = load_events(open_movielens(write_csv(tmp_path)))
    assert events.attributes["tag"].tolist() == [string_id("Drama"), -1, string_id("Drama")]
    assert events.attributes["rating"].tolist() == [10, 7, 8]


def test_users_have_their_features(tmp_path: Path) -> None:
    one, hundred = tmp_path / "1m", tmp_path / "100k"
    one.mkdir(), hundred.mkdir()
    users = open_movielens(write_1m(one)).users
    assert users is not None and users.rows() == [(1, "F", 1, 10), (2, "M", 56, 16)]
    users = open_movielens(write_100k(hundred)).users
    assert users is not None and users.rows() == [(1, 24, "F", "writer"), (2, 53, "M", "other")]


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no ratings.csv, ratings.dat or u.data"):
        open_movielens(tmp_path)
    write_1m(tmp_path)
    (tmp_path / "movies.dat").write_text("10::Film (1995)\n")
    with pytest.raises(UserError, match="movies.dat: row 1: 2 fields; should be 3, separated by '::'"):
        open_movielens(tmp_path)
    write_1m(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::10::5::978300760\n1::20::x::978300760\n")
    with pytest.raises(UserError, match="ratings.dat: column rating, row 2: 'x'; should be a number"):
        load_events(open_movielens(tmp_path))
    (tmp_path / "movies.dat").unlink()
    with pytest.raises(UserError, match="movies.dat: No such file"):
        open_movielens(tmp_path)
    write_1m(tmp_path)
    command = ["prepare", "movielens", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--split", "time"]
    assert main(command) == 2
    assert "the events have 2 different times; a split by time needs 3" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_small_log_by_users(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ml-latest-small"
    assert main(["prepare", "movielens", "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    frame = pl.read_parquet(tmp_path / "out" / "samples" / "**" / "*.parquet", hive_partitioning=True)
    raw = pl.read_csv(folder / "ratings.csv")
    assert len(frame) == len(raw) == 100_836
    assert frame.group_by("user_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert frame.filter(pl.col("split") == "test")["user_id"].n_unique() == round(0.278 * 610)
    ratings = raw.filter(pl.col("userId") == 414).sort("timestamp", "movieId")
    samples = frame.filter(pl.col("user_id") == 414).sort("time", "item_id")
    before = [ratings.filter(pl.col("timestamp") < t) for t in ratings["timestamp"]]
    assert samples["user_views"].to_list() == [len(b) for b in before]
    assert samples["hist_item_id"].to_list() == [b["movieId"].reverse().head(50).to_list() for b in before]
    assert samples["hist_rating"].to_list() == [
        (2 * b["rating"]).cast(int).reverse().head(50).to_list() for b in before
    ]


@pytest.mark.slow
def test_the_real_log_of_a_million(shared_data: Path) -> None:
    events = load_events(open_movielens(shared_data / "ml-1m"))
    assert len(events.time) == 1_000_209
    assert (events.codes["user"].max(), events.codes["item"].max()) == (6_039, 3_705)
    assert events.frame["label_favorite"].sum() == 226_310 and events.frame["label_satisfied"].sum() == 575_281
