"""Ranks of `coldrank train` that are killed with SIGKILL, and what their runs leave.

The ranks are forked from one process that has imported everything, and run the command as a user does. A kill falls at
a random file operation within the run folder or a random time after it, on all ranks or on one.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tqdm import tqdm

from coldrank.cli.main import main
from coldrank.models.batch import Batch
from coldrank.models.model import Outputs
from coldrank.train.task import RankingTask

_LIMIT_S = 240


@dataclass(frozen=True, slots=True)
class Kill:
    """Who is killed, and when. rank: None for all of them. delay: seconds after that rank, or the first, has begun its
    `operation`-th file operation in the run folder (0: after its start). Without a delay the rank does not live to do
    it."""

    rank: int | None
    operation: int
    delay: float
    sent: signal.Signals = signal.SIGKILL

    @property
    def is_inside(self) -> bool:
        """Whether the rank kills itself, because nobody else could be that quick."""
        return self.rank is not None and self.operation > 0 and self.delay == 0


@dataclass(frozen=True, slots=True)
class Life:
    """What became of one start: exit codes by rank, seconds, file operations of the first rank, and the rows that each
    rank trained on, step by step."""

    codes: list[int | None]
    seconds: float
    operations: int
    trained: list[list[list[int]]]


def live(command: list[str], out: Path, notes: Path, ranks: int, kill: Kill | None) -> Life:
    """Runs `coldrank COMMAND` on some ranks until all have ended; kills those that the kill names."""
    notes.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coldrank.cli.train", "coldrank.train.trainer", __name__])
    port, began = _free_port(), time.monotonic()
    processes = [
        context.Process(target=_rank, args=(command, out, notes, rank, ranks, port, kill)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    if kill and not kill.is_inside:
        victims = processes if kill.rank is None else [processes[kill.rank]]
        watched = notes / f"operations-{kill.rank or 0}"
        while _size(watched) < kill.operation and all(p.is_alive() for p in processes):
            time.sleep(0.001)
        time.sleep(kill.delay)
        for process in victims:
            assert process.pid
            with contextlib.suppress(ProcessLookupError):  # it was done before
                os.kill(process.pid, kill.sent)
    _await(processes)
    return Life(
        [p.exitcode for p in processes],
        time.monotonic() - began,
        _size(notes / "operations-0"),
        [_rows(notes / f"rows-{rank}") for rank in range(ranks)],
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _await(processes: list[BaseProcess]) -> None:
    """As torchrun does: when a rank has failed, the others get SIGTERM; here they have to end within 30 s of it."""
    limit, told = time.monotonic() + _LIMIT_S, False
    while any(p.is_alive() for p in processes):
        if not told and any(p.exitcode for p in processes):
            told, limit = True, time.monotonic() + 30
            for process in processes:
                process.terminate()
        if time.monotonic() > limit:
            for process in processes:
                process.kill()
            raise AssertionError("a rank hangs")
        time.sleep(0.02)


def _rank(command: list[str], out: Path, notes: Path, rank: int, ranks: int, port: int, kill: Kill | None) -> None:
    log = os.open(notes / f"log-{rank}", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if ranks > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "localhost"}
    note_rows(notes / f"rows-{rank}")
    mine = kill and kill.is_inside and kill.rank == rank
    note_operations(out, notes / f"operations-{rank}", kill.operation if kill and mine else 0)
    # tqdm's own lock is a semaphore that outlives a process that is killed.
    tqdm.set_lock(threading.RLock())
    sys.exit(main(command))


def note_rows(path: Path) -> None:
    """Notes the times of the rows of each batch that the model is trained on: they tell the rows apart."""
    forward = RankingTask.forward

    def noted(task: RankingTask, batch: Batch) -> Outputs:
        if task.training:
            with path.open("a") as file:
                file.write(json.dumps(batch.keys["time"].tolist()) + "\n")
        return forward(task, batch)

    RankingTask.forward = noted


def _rows(path: Path) -> list[list[int]]:
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def note_operations(out: Path, path: Path, last: int) -> None:
    """Counts the file operations in a run folder that change it; kills this process before the `last` (0: never)."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    lock, count, root = threading.Lock(), 0, str(out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
        if not changes and not (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        # What rmtree removes is named relative to an open folder.
        if changes and not os.path.isabs(os.fspath(arguments[0])) or str(arguments[0]).startswith(root):
            with lock:
                count += 1
                os.write(file, b".")
                if count == last:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


def draw(rng: random.Random, ranks: int, one: bool, operations: int) -> Kill:
    """A kill within so many file operations of the first rank."""
    rank = rng.randrange(ranks) if one or ranks == 1 else None
    # Other ranks than the first do few: they write their part of the checkpoints.
    operation = rng.randint(0, operations if not rank else operations // 8)
    return Kill(rank, operation, rng.choice([0, rng.uniform(0, 0.003), rng.uniform(0, 0.3)]))


def outcome(run: Path) -> dict[str, Any]:
    """All that a finished run tells, but for times: metrics, predictions and, by their sums, weights and optimizers."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    facts = json.loads((run / "run.json").read_text())
    progress = {p.parent.name: json.loads(p.read_text()) for p in sorted(run.glob("checkpoints/*/progress.json"))}
    return {
        "metrics": [row for row in lines if row["metric"] != "samples_per_second"],
        "summary": json.loads((run / "summary.json").read_text()),
        "predictions": {p.name: p.read_bytes() for p in sorted(run.rglob("*.parquet"))},
        "config": (run / "config.json").read_text(),
        "diff": (run / "diff.txt").read_text(),
        "facts": {name: value for name, value in facts.items() if name not in ("seconds", "peak_mib")},
        # .metadata names the folder that it was written in.
        "state": [{n: s for n, s in p["files"].items() if n != ".metadata"} for p in progress.values()],
        "progress": [{n: v for n, v in p.items() if n not in ("files", "seconds")} for p in progress.values()],
        "events": events(run / "tensorboard"),
        "files": sorted(str(p.relative_to(run)) for p in run.rglob("*") if "tfevents" not in p.name),
    }


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each TensorBoard curve as TensorBoard shows it."""
    board = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    tags = [tag for tag in board.Tags()["scalars"] if "samples_per_second" not in tag]
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in sorted(tags)}
