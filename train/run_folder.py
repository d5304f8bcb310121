"""The files of a run that other programs read."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldrank.data.errors import UserError
from coldrank.data.json_files import ROW_FIELDS, read_lines
from coldrank.data.output import check_folder, is_kept, make_folder, write_atomic
from coldrank.data.split import BACK, NEXT
from coldrank.train import lock
from coldrank.train.checkpoint import steps
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.difference import difference
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.load import load
from coldrank.train.lock import Lock
from coldrank.train.sections import DataConfig, TrainConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MetricRow = dict[str, Any]

# Fields of `train` that may change when a run goes on.
_FREE = (
    *("steps", "epochs", "follow_s"),
    *("log_every", "checkpoint_every", "keep_checkpoints"),
    *("threads", "pipeline"),
)


class RunFolder:
    """config.json, diff.txt, metrics.jsonl, summary.json and TensorBoard events of one run."""

    def __init__(self, path: Path, lock: Lock | None = None) -> None:
        """lock: held by this process, without which nothing is written any more (None: nobody else writes here)."""
        self.path, self.lock = path, lock
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self._board: SummaryWriter | None = None

    @property
    def board(self) -> "SummaryWriter":
        """TensorBoard events in `tensorboard/`."""
        if self._board is None:
            self._board = self._open_board()
        return self._board

    def _open_board(self, purge_step: int | None = None) -> "SummaryWriter":
        # Loaded with the first line of metrics: it takes long, and only the first rank writes.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.path / "tensorboard"), purge_step=purge_step)

    def check(self, resumed: RunConfig | None) -> None:
        """Raises UserError if the folder holds something that is no run, or, to go on with, the run of another
        config."""
        if self.path.exists() and not (self.path.is_dir() and self._is_run()):
            raise UserError(f"{self.path}: is there already and is no run folder; give another --out")
        check_folder("--out", self.path)
        if resumed is None:
            return
        changed = difference(_without_length(resumed), _without_length(self.config()))
        if changed:
            first, *others = changed.splitlines()
            more = f" and {len(others)} more" if others else ""
            raise UserError(f"{self.path}: holds the run of another config ({first}{more}); --fresh starts over")

    def config(self) -> RunConfig:
        """Of the run that the folder holds."""
        return load(str(self.path / "config.json"))

    def require_lock(self) -> None:
        """Raises UserError if another process writes here by now."""
        if self.lock:
            self.lock.check()

    def _is_run(self) -> bool:
        # A run that was killed at its very start has written what comes before config.json, and no more.
        first = {"diff.txt", "diff.txt.partial", "config.json.partial"}
        names = {p.name for p in self.path.iterdir() if not (is_kept(p) or p.name.partition(".")[0] == lock.NAME)}
        return (self.path / "config.json").exists() or names <= first

    def clear(self) -> None:
        """Removes what an earlier run left; config.json last, so that what a kill leaves is known for a run's."""
        self.require_lock()
        make_folder(self.path)
        # Their names go first: nothing can go on any more from what is being removed.
        for step in steps(self.checkpoints):
            whole = self.checkpoints / f"step-{step}"
            os.replace(whole, whole.with_suffix(".removed.partial"))
        for path in sorted(self.path.iterdir(), key=lambda p: p.name == "config.json"):
            if path.name == lock.NAME:
                continue
            if not path.is_dir():
                path.unlink()
            elif not is_kept(path):
                shutil.rmtree(path)

    def start(self, config: RunConfig, diff: str) -> None:
        """Writes what the run is: the difference to its base first."""
        self.require_lock()
        make_folder(self.path)
        write_atomic(self.path / "diff.txt", diff or "(equal to its base)\n")
        write_atomic(self.path / "config.json", json.dumps(to_dict(config), indent=1) + "\n")

    def describe(self, facts: dict[str, Any]) -> None:
        """Writes run.json: what the config does not tell, as data, size, speed, and whether the run is finished."""
        self.require_lock()
        write_atomic(self.path / "run.json", json.dumps(facts, indent=1) + "\n")

    def tell_warm_start(self, report: str) -> None:
        """Writes warm_start.txt: what of another run's weights this one began with."""
        write_atomic(self.path / "warm_start.txt", report)

    def forget_after(self, step: int) -> None:
        """Drops the metrics later than the checkpoint of a step: a run that resumes writes them again."""
        self.require_lock()
        before = [row for row in self._rows() if row["step"] <= step]
        # A stream writes these at the step of a checkpoint, after it.
        kept = [row for row in before if row["step"] < step or row["split"] not in (NEXT, BACK)]
        self._write(kept)
        self._forget_events(step + (len(kept) == len(before)))
        if len(kept) < len(before):
            self._draw([row for row in kept if row["step"] == step])

    def _forget_events(self, step: int) -> None:
        """Sets a mark at which TensorBoard drops what it has read of this step and later ones."""
        self.close()
        self._board = self._open_board(purge_step=step)

    def _rows(self) -> list[MetricRow]:
        return read_lines(self.metrics, *ROW_FIELDS) if self.metrics.exists() else []

    def rows(self, split: str) -> list[MetricRow]:
        """What was measured on a split, period by period."""
        return [row for row in self._rows() if row["split"] == split and row["period"] is not None]

    def _write(self, rows: list[MetricRow]) -> None:
        write_atomic(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def log(self, rows: list[MetricRow]) -> None:
        """Appends rows to metrics.jsonl and TensorBoard."""
        self.require_lock()
        with self.metrics.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self._draw(rows)

    def _draw(self, rows: list[MetricRow]) -> None:
        for row in rows:
            # Rows of several past periods have one step, which TensorBoard would draw as one curve.
            if row["value"] is not None and row["split"] != BACK:
                split = row["split"] if row["period"] is None else f"{row['split']}_period"
                tag = f"{split}/{row['cohort']}/{row['task']}/{row['metric']}"
                self.board.add_scalar(tag, row["value"], row["step"])
        # By itself it writes every two minutes: a kill would lose events of steps that a checkpoint has passed.
        self.board.flush()

    def log_evaluation(self, rows: list[MetricRow]) -> None:
        """Writes an evaluation into metrics.jsonl, in place of an earlier one of the same step and split, and as
        summary."""
        self.require_lock()
        step, split = rows[0]["step"], rows[0]["split"]
        before = self._rows()
        kept = [row for row in before if (row["step"], row["split"], row["period"]) != (step, split, None)]
        self._write(kept + rows)
        if len(kept) < len(before):
            self._forget_events(step)
            self._draw([row for row in kept if row["step"] == step])
        self._draw(rows)
        write_atomic(self.path / "summary.json", json.dumps(rows, indent=1) + "\n")

    def close(self) -> None:
        """Flushes TensorBoard."""
        if self._board is not None:
            self._board.close()


def _without_length(config: RunConfig) -> RunConfig:
    """The config but for what may change when a run goes on: its length, how it is read, told and kept, and where the
    tables lie."""
    data = replace(config.data, prefetch=DataConfig().prefetch, eval_batch_size=DataConfig().eval_batch_size)
    train = replace(config.train, **{name: getattr(TrainConfig(), name) for name in _FREE})
    return replace(config, train=train, data=data, sharding=ShardingConfig())
