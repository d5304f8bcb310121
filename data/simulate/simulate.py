"""A simulated short-video log in the layout of KuaiRand, with the true probability of every label beside it.

Users are drawn in blocks, each block's events being one log file; videos in blocks too. Memory depends on the block
alone: no table of users or videos is kept, as each of them is a function of (seed, id), and a day's videos are found by
arithmetic.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from coldrank.data.errors import UserError
from coldrank.data.output import check_new, new_folder
from coldrank.data.simulate.features import user_table, video_table
from coldrank.data.simulate.headroom import Headroom
from coldrank.data.simulate.log import log_table
from coldrank.data.simulate.scores import fit_intercepts, score_events
from coldrank.data.simulate.share import STAY_DAYS
from coldrank.data.simulate.timeline import Timeline, draw_timeline
from coldrank.data.simulate.world import Newness, Users, World, build_world, draw_users, draw_videos

LAST_DAY = date(2022, 5, 5)  # as KuaiRand's, so that one --test-from serves both
VIDEO_BLOCK = 100_000


@dataclasses.dataclass(kw_only=True, frozen=True, slots=True)
class Simulation:
    """What is simulated. Raises UserError for a value out of range."""

    events: int
    """Rows of the log."""
    seed: int = 0
    """Seeds every draw."""
    days: int = 30
    """Length of the log."""
    newness: Newness = dataclasses.field(default_factory=Newness)
    """How new users are different, and for how long."""
    format: Literal["csv", "parquet"] = "csv"
    """Format of the log; the feature files are always CSV."""
    block_users: int = 1024
    """Users drawn at once, about 150 events each; they make one file of the log. Its rows don't depend on it."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("events", 1, 10**11),
            ("days", 1, 365),
            ("block_users", 1, 10**6),
            ("gate_strength", 0, 4),
            ("main_strength", 0, 4),
            ("avc_scale", 0.1, 1000),
            ("stay_days", *STAY_DAYS),
        ):
            value = getattr(self if hasattr(self, name) else self.newness, name)
            if not low <= value <= high:
                raise UserError(f"{name} is {value}; it must lie between {low} and {high}")

    @property
    def first_day(self) -> date:
        """The log's first local (UTC+8) day."""
        return LAST_DAY - timedelta(days=self.days - 1)


def simulate(config: Simulation, out: Path, progress: Callable[[int], object] = lambda events: None) -> None:
    """Writes log_standard_sim-*, user_features_sim, video_features_basic_sim and simulation.json into a new folder.

    progress: called with the number of events of each block.
    Raises UserError if `out` is there already or cannot be written.
    """
    check_new("--out", out)
    with new_folder(out) as folder:
        _write(config, folder, progress)


def blocks(
    config: Simulation, world: World, watch: Callable[[Users, Timeline], object] = lambda users, events: None
) -> Iterator[tuple[Users, pl.DataFrame]]:
    """The users of each block and their events as a log table, until `config.events` events are drawn.

    The last user's events are cut off there. watch: called with the users and events of each block.
    """
    intercepts = fit_intercepts(world)
    left = config.events
    first_id = 0
    while left > 0:
        users = draw_users(world, np.arange(first_id, first_id + config.block_users))
        timeline = draw_timeline(users, world).head(left)
        left -= len(timeline.user)
        first_id += config.block_users
        if len(timeline.user):
            watch(users, timeline)
            yield users, log_table(score_events(world, users, timeline), users, intercepts, config.first_day)


def _write(config: Simulation, folder: Path, progress: Callable[[int], object]) -> None:
    world = build_world(config.seed, config.events, config.days, config.newness)
    headroom = Headroom(world, config.events)
    with _TableFile(folder / "user_features_sim.csv") as user_file:
        for number, (users, log) in enumerate(blocks(config, world, headroom.add)):
            with _TableFile(folder / f"log_standard_sim-{number:05}.{config.format}") as log_file:
                log_file.write(log)
            table = user_table(users, config.days)
            user_file.write(table.join(log.select("user_id"), on="user_id", how="semi", maintain_order="left"))
            progress(len(log))
    with _TableFile(folder / "video_features_basic_sim.csv") as video_file:
        for start in range(0, world.videos, VIDEO_BLOCK):
            ids = np.arange(start, min(start + VIDEO_BLOCK, world.videos))
            video_file.write(video_table(draw_videos(world, ids), config.first_day))
    said = dataclasses.asdict(config)
    said |= said.pop("newness")
    said |= {"new_user_share": round(headroom.new_user_share, 4), "auc": headroom.to_json()}
    (folder / "simulation.json").write_text(json.dumps(said, indent=2) + "\n")


class _TableFile:
    """A CSV or Parquet file (by its suffix) that is written table by table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb")
        self._parquet: pq.ParquetWriter | None = None
        self._header = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._file.close()

    def write(self, table: pl.DataFrame) -> None:
        if self._path.suffix == ".csv":
            table.write_csv(self._file, include_header=self._header)
            self._header = False
            return
        arrow = table.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._file, arrow.schema, compression="zstd")
        self._parquet.write_table(arrow)
