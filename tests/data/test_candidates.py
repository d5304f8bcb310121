"""`prepare --candidates`: samples of events that have not happened yet."""

from pathlib import Path

import polars as pl
import pytest
from event_logs import DAY_MS, START, random_log
from growing_logs import command, write

from coldrank.data.feature_state import FeatureState


@pytest.mark.parametrize("more", [(), ("--negatives", "2")], ids=["events", "negatives"])
def test_candidates_are_as_of_their_times_and_do_not_see_each_other(more: tuple[str, ...], tmp_path: Path) -> None:
    write(random_log(0), tmp_path / "log", "a")
    assert command(tmp_path, *more) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    wanted = pl.DataFrame({"user": [-2000, 0, -2000], "item": [1, 1, 2], "tag": ["news", None, "café"]})
    wanted = wanted.with_columns(time=START + 9 * DAY_MS + pl.int_range(3) * 1000)
    wanted.write_parquet(tmp_path / "wanted.parquet")
    files = (str(tmp_path / "wanted.parquet"), str(tmp_path / "s.parquet"))
    assert command(tmp_path, *more, "--candidates", *files) == 0
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    samples = pl.read_parquet(tmp_path / "s.parquet")
    assert samples["label_click"].to_list() == [None] * 3 and "sampled" not in samples.columns
    state = FeatureState.open(tmp_path / "out")
    for row, sample in zip(wanted.to_dicts(), samples.to_dicts(), strict=True):
        features = state.features(row["user"], [{"item_id": row["item"]}], row["time"]).to_pylist()[0]
        assert {n: sample[n] for n in features} == features
    assert samples["user_views"][0] == samples["user_views"][2] > 0


@pytest.mark.tried("logs", "--candidates with an event of a prepared day", "refused, with its time")
def test_a_candidate_of_the_past_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(random_log(0), tmp_path / "log", "a")
    assert command(tmp_path) == 0
    pl.DataFrame({"user": [0], "item": [1], "tag": ["x"], "time": [START]}).write_parquet(tmp_path / "w.parquet")
    assert command(tmp_path, "--candidates", str(tmp_path / "w.parquet"), str(tmp_path / "s.parquet")) == 2
    assert f"w.parquet: an event of {START} (ms): should be later than" in capfd.readouterr().err
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.tried("logs", "--candidates without a column that is known before the event", "refused, named")
def test_a_candidate_without_its_context_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(random_log(0), tmp_path / "log", "a")
    assert command(tmp_path) == 0
    pl.DataFrame({"user": [0], "item": [1], "time": [START + 9 * DAY_MS]}).write_parquet(tmp_path / "w.parquet")
    assert command(tmp_path, "--candidates", str(tmp_path / "w.parquet"), str(tmp_path / "s.parquet")) == 2
    assert "w.parquet: no column 'tag'; it has user, item, time" in capfd.readouterr().err


def test_the_delay_of_an_outcome_may_lack(tmp_path: Path) -> None:
    log = random_log(0)
    write(log.with_columns(wait=pl.int_range(pl.len()) % 5000), tmp_path / "log", "a")
    waits = 'tag"}, known_after={"click": "wait'
    assert command(tmp_path, place=waits) == 0
    wanted = pl.DataFrame({"user": [-2000, 0], "item": [1, 2], "tag": ["news", None], "time": [START + 9 * DAY_MS] * 2})
    for name, frame in (("a", wanted), ("b", wanted.with_columns(wait=pl.lit(60)))):
        frame.write_parquet(tmp_path / f"{name}.parquet")
        files = (str(tmp_path / f"{name}.parquet"), str(tmp_path / f"{name}-samples.parquet"))
        assert command(tmp_path, "--candidates", *files, place=waits) == 0
    made = [pl.read_parquet(tmp_path / f"{name}-samples.parquet") for name in "ab"]
    assert made[0].equals(made[1]) and made[0]["user_views"].sum() > 0
