"""Four logs of different shape, as teams have them: what `coldrank spec` looks at, and runs from end to end."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2024, 3, 4, tzinfo=UTC)
DAYS = 12


def _times(rng: np.random.Generator, rows: int) -> list[datetime]:
    """Ascending, over DAYS days."""
    seconds = np.sort(rng.choice(DAYS * 86_400, rows, replace=False))
    return [START + timedelta(seconds=int(s)) for s in seconds]


def _chosen(rng: np.random.Generator, rows: int, of: int) -> np.ndarray:
    """Few of many often, int64 [rows] below `of`."""
    return np.asarray((of * rng.random(rows) ** 2).astype(np.int64))


def ratings(folder: Path, rows: int = 3_000) -> Path:
    """CSV: stars with halves, times as text with the day before the month, a table of films whose genres stand in one
    field."""
    rng = np.random.default_rng(1)
    user, film = _chosen(rng, rows, 90), _chosen(rng, rows, 60)
    taste = rng.normal(size=(90, 3))[user] + rng.normal(size=(60, 3))[film]
    stars = np.clip(np.round(2 * (3 + taste.sum(1) / 2)) / 2, 0.5, 5)
    genres = ["|".join(sorted(rng.choice(["Action", "Comedy", "Drama", "Noir", "War"], 2, False))) for _ in range(60)]
    folder.mkdir(parents=True)
    pl.DataFrame(
        {
            "userId": user + 1,
            "movieId": film + 1001,
            "rating": stars,
            "ratedAt": [t.strftime("%d.%m.%Y %H:%M:%S") for t in _times(rng, rows)],
        }
    ).write_csv(folder / "ratings.csv")
    films = {"movieId": range(1001, 1061), "title": [f"Film {n}, the" for n in range(60)], "genres": genres}
    films |= {"releaseDate": [f"{1990 + n % 30}-0{1 + n % 9}-15" for n in range(60)]}
    pl.DataFrame(films).write_csv(folder / "movies.csv")
    return folder


def impressions(folder: Path, rows: int = 3_000) -> Path:
    """Parquet in folders of days: ids as text, lists of topics, a vector, likes that are not always known, a table of
    users."""
    rng = np.random.default_rng(2)
    user, item = _chosen(rng, rows, 80), _chosen(rng, rows, 70)
    times = _times(rng, rows)
    topics = [
        rng.choice(["sport", "news", "art", "food", "law"], rng.integers(0, 3), False).tolist() for _ in range(70)
    ]
    click = rng.random(rows) < 0.08 + 0.6 * (item % 4 == 0)
    log = pl.DataFrame(
        {
            "viewer": [f"v-{u:03}" for u in user],
            "article_id": [f"a{i:04}" for i in item],
            "shown_at": times,
            "clicked": click.astype(np.int8),
            "liked": [bool(c and rng.random() < 0.5) if rng.random() < 0.7 else None for c in click],
            "dwell_seconds": np.where(click, rng.exponential(40, rows), 0).round(1),
            "topics": [topics[i] for i in item],
            "publisher": [f"house {i % 7}" for i in item],
            "surface": rng.choice(["home", "mail", "search"], rows),
            "embedding": [[float(i % 5), float(i % 3), 1.0, 0.5] if i % 9 else None for i in item],
            "keywords": [{"id": [f"w{i % 4}", f"w{i % 6}"], "score": [0.9, 0.1 * (i % 3)]} for i in item],
            "request_id": [f"{n:032x}" for n in rng.permutation(rows)],
        }
    )
    for day, part in log.group_by(pl.col("shown_at").dt.date(), maintain_order=True):
        where = folder / "events" / f"day={day[0]}"
        where.mkdir(parents=True)
        part.write_parquet(where / "part-0.parquet")
    users = pl.DataFrame(
        {"viewer": [f"v-{u:03}" for u in range(80)], "age": rng.integers(18, 70, 80), "country": ["de", "fr"] * 40}
    )
    (folder / "users").mkdir()
    users.write_parquet(folder / "users" / "part-0.parquet")
    return folder


def sessions(folder: Path, rows: int = 2_500) -> Path:
    """JSON lines, compressed: what was bought in a session, and nothing of what was not."""
    rng = np.random.default_rng(3)
    session, sku = np.sort(_chosen(rng, rows, 300)), _chosen(rng, rows, 50)
    folder.mkdir(parents=True)
    with gzip.open(folder / "purchases.jsonl.gz", "wt") as file:
        for s, k, t in zip(rng.permutation(session), sku, _times(rng, rows), strict=True):
            event = {
                "sessionId": f"s{s}",
                "ts": t.isoformat(),
                "sku": int(k) + 500,
                "category": f"c{k % 6}",
                "price": 3.5 + k,
            }
            file.write(json.dumps(event) + "\n")
    return folder


def ads(folder: Path, rows: int = 3_000) -> Path:
    """CSV with semicolons: conversions of ads with propensities and 30 numbers, some unknown; nobody's id."""
    rng = np.random.default_rng(4)
    ad = _chosen(rng, rows, 40)
    values = rng.normal(size=(rows, 30)).round(4)
    odds = values[:, 0] - values[:, 1] + 0.5 * (ad % 4) - 2
    numbers = {f"f{n}": [None if rng.random() < 0.05 else float(v) for v in values[:, n]] for n in range(30)}
    folder.mkdir(parents=True)
    log = pl.DataFrame(
        {
            "ts": [int(t.timestamp()) for t in _times(rng, rows)],
            "ad_id": ad + 7,
            "campaign": [f"k{a % 5}" for a in ad],
            "converted": (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8),
            "propensity": rng.uniform(0.2, 1, rows).round(3),
            **numbers,
        }
    )
    log.write_csv(folder / "ads.csv", separator=";", null_value="NA")
    return folder
