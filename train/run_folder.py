"""The files of a run that other programs read."""

import json
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from coldrank.train.config import RunConfig, to_dict

MetricRow = dict[str, Any]


def write_atomic(path: Path, text: str) -> None:
    """Writes beside, then renames."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


class RunFolder:
    """config.json, diff.txt, metrics.jsonl, summary.json and TensorBoard events of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        path.mkdir(parents=True, exist_ok=True)
        self._board: SummaryWriter | None = None

    @property
    def board(self) -> SummaryWriter:
        """TensorBoard events in `tensorboard/`."""
        if self._board is None:
            self._board = SummaryWriter(str(self.path / "tensorboard"))
        return self._board

    def start(self, config: RunConfig, diff: str) -> None:
        """Writes what the run is: the difference to its base first."""
        write_atomic(self.path / "diff.txt", diff or "(equal to its base)\n")
        write_atomic(self.path / "config.json", json.dumps(to_dict(config), indent=1) + "\n")

    def forget_after(self, step: int) -> None:
        """Drops the metrics later than a step: a run that resumes writes them again."""
        if self.metrics.exists():
            rows = [line for line in self.metrics.read_text().splitlines() if json.loads(line)["step"] <= step]
            write_atomic(self.metrics, "".join(row + "\n" for row in rows))

    def log(self, rows: list[MetricRow]) -> None:
        """Appends rows to metrics.jsonl and TensorBoard."""
        with self.metrics.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows:
            if row["value"] is not None:
                tag = f"{row['split']}/{row['cohort']}/{row['task']}/{row['metric']}"
                self.board.add_scalar(tag, row["value"], row["step"])

    def summarize(self, rows: list[MetricRow]) -> None:
        """Writes the last evaluation."""
        write_atomic(self.path / "summary.json", json.dumps(rows, indent=1) + "\n")

    def close(self) -> None:
        """Flushes TensorBoard."""
        if self._board is not None:
            self._board.close()
