"""How fast samples are read, beside how fast training takes them, by the CPU time of one thread.

    python benchmarks/reader.py --rows 200000 --out reader.json
    python benchmarks/reader.py --data DATA --config coldrank.configs.kuairand:base

The first is of 20 scalar and 3 list columns, the second of prepared data and an arm of one's own. Measured, each over
the same samples:

    read     raw columns in order of time
    shuffle  the same with a shuffle buffer
    build    shuffled, encoded and in batches as training gets them
    train    steps of the arm over batches that are there already

Rows per second of CPU time, so that other load on the machine tells little; the best of `--repeat` passes.
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
from columns import base, write_samples

from coldrank.data.batches import DataFolder, made
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.run import Run, build


def main() -> None:
    """Prints the figures, and writes them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, default=200_000, help="samples to write, or to read of DATA, by whole buffers"
    )
    parser.add_argument("--steps", type=int, default=40, help="training steps that are measured")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder for the samples, which stay there; default: a temporary one")
    parser.add_argument("--data", type=Path, help="prepared data to read instead")
    parser.add_argument("--config", help="arm that reads it")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if (args.data is None) != (args.config is None):
        parser.error("--data and --config go together")
    with tempfile.TemporaryDirectory() as temporary:
        data = DataFolder.open(args.data) if args.data else write_samples(args.work or Path(temporary), args.rows)
        config = load(args.config, ["train.threads=1"]) if args.config else base()
        result = measure(data, config, args.rows, args.steps, args.repeat)
    put(result, args.out)


def measure(data: DataFolder, config: RunConfig, rows: int, steps: int, repeat: int) -> dict[str, object]:
    """Rows per CPU second of each, and how many times what training takes the others give.

    rows: about so many are read.
    """
    pa.set_cpu_count(1)
    files = data.files(config.data.fit)
    with process_group() as ranks:
        run = build(config, data, ranks)
        fit_encoder(run.encoder, files)
        columns, size = run.make.columns(), config.data.batch_size
        in_time = SampleReader(files, columns, size)
        shuffled = SampleReader(files, columns, size, shuffle_rows=config.data.shuffle_rows, in_time=False, seed=1)
        # A buffer is read as a whole, however little of it is used.
        whole = -(-rows // shuffled.buffer_rows) * shuffled.buffer_rows
        count = min(whole, in_time.total_rows)
        first = lambda reader: itertools.islice(reader.epoch(0), -(-count // size))
        rate = {
            "read": _rate(count, repeat, lambda: run_through(first(in_time))),
            "shuffle": _rate(count, repeat, lambda: run_through(first(shuffled))),
            "build": _rate(
                count, repeat, lambda: run_through(itertools.islice(made(shuffled, run.make), -(-count // size)))
            ),
        }
        batches = list(itertools.islice(made(shuffled, run.make), steps))
        train_on(run, batches[:3])  # the first steps make states and caches
        rate["train"] = _rate(sum(map(len, batches)), repeat, lambda: train_on(run, batches))
    lists = sum(c.is_list for c in columns)
    return {
        "machine": platform.machine(),
        "rows": count,
        "columns": {"scalar": len(columns) - lists, "list": lists},
        "rows_per_cpu_second": {name: round(value) for name, value in rate.items()},
        "times_training": {name: round(rate[name] / rate["train"], 1) for name in ("read", "shuffle", "build")},
    }


def put(result: dict[str, object], out: Path | None) -> None:
    """Prints the figures, and writes them if a file is given."""
    text = json.dumps(result, indent=1)
    print(text)
    if out:
        partial = out.with_name(out.name + ".partial")
        partial.write_text(text + "\n")
        os.replace(partial, out)


def run_through(results: Iterable[object]) -> None:
    """Takes all results."""
    for _ in results:
        pass


def train_on(run: Run, batches: list[Batch]) -> None:
    """Steps over batches that are there."""
    for step, batch in enumerate(batches):
        run.optimizers.begin_step(step, len(batches))
        run.model(batch).loss.backward()
        run.optimizers.end_step()


def _rate(rows: int, repeat: int, work: Callable[[], None]) -> float:
    """Rows per CPU second, all threads of the process counted."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return rows / best


if __name__ == "__main__":
    main()
