"""How many rows a second a rank's reader delivers, from a disk and from an object store, beside those that its training
step takes.

    python benchmarks/reading.py --data DATA --out reading.json

DATA is prepared KuaiRand; without it 800,000 events are simulated and prepared. The store is moto's server of S3 on
this machine. Measured, in turns, each over the same shuffled rows of an arm (`coldrank.configs.kuairand:poso`, 512
samples a batch, one thread):

    disk, store             batches made where they are taken
    disk_ahead, store_ahead the same by a thread, `data.prefetch` ahead
    one_by_one              batches of the disk, each read and encoded by itself
    step                    steps over batches that are there already

Rows per second of the clock, and of this process's CPU time, of all its threads; the best of `--repeat` turns.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from reader import put, run_through, train_on

from coldrank.cli.main import main as coldrank
from coldrank.data.batches import DataFolder, batches, made
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.memory import reuse_freed_memory
from coldrank.train.run import Run, build

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from stored import stored

Way = Callable[[], Iterable[Batch]]


def main() -> None:
    """Prints the figures, and writes them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="prepared data")
    parser.add_argument("--config", default="coldrank.configs.kuairand:poso", help="arm that reads it")
    parser.add_argument("--rows", type=int, default=524_288, help="rows that are read in a turn, by whole buffers")
    parser.add_argument("--steps", type=int, default=30, help="training steps in a turn")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        result = measure(args.data or _simulated(work), args.config, args.rows, args.steps, args.repeat, work)
    put(result, args.out)


def measure(folder: Path, config: str, rows: int, steps: int, repeat: int, work: Path) -> dict[str, object]:
    """Rows per second of each, and how many times the step's the reader's are. rows: about so many are read."""
    pa.set_cpu_count(1)
    reuse_freed_memory()
    settings = load(config, ["train.threads=1"])
    with process_group() as ranks, stored(work) as store:
        places = {"disk": folder, "store": store.put(folder, "data")}
        run = build(settings, DataFolder.open(folder), ranks)
        fit_encoder(run.encoder, run.data.files(settings.data.fit))
        readers = {name: _reader(run, DataFolder.open(place)) for name, place in places.items()}
        whole = readers["disk"].buffer_rows
        count = min(-(-rows // whole) * whole, readers["disk"].total_rows)
        ways = {
            name + more: _way(run, reader, ahead, -(-count // settings.data.batch_size))
            for name, reader in readers.items()
            for more, ahead in (("", 0), ("_ahead", settings.data.prefetch))
        }
        ways["one_by_one"] = lambda: map(
            run.make, itertools.islice(readers["disk"].epoch(0), -(-count // settings.data.batch_size))
        )
        ready = list(itertools.islice(ways["disk"](), steps))
        train_on(run, ready[:3])  # the first steps make states and caches
        best = {name: (float("inf"), float("inf")) for name in (*ways, "step")}
        for _ in range(repeat):
            for name, way in ways.items():
                best[name] = _better(best[name], lambda way=way: run_through(way()), count)
            best["step"] = _better(best["step"], lambda: train_on(run, ready), sum(map(len, ready)))
    return {
        "config": config,
        "rows": count,
        "row_groups": len(readers["disk"].groups),
        **{
            f"rows_per_{clock}": {name: round(1 / seconds[i]) for name, seconds in best.items()}
            for i, clock in enumerate(("second", "cpu_second"))
        },
        **{
            f"times_the_step_by_{clock}": {name: round(best["step"][i] / best[name][i], 1) for name in ways}
            for i, clock in enumerate(("clock", "cpu"))
        },
    }


def _simulated(work: Path) -> Path:
    log, data = str(work / "log"), str(work / "data")
    for command in (
        ["simulate", "--events", "800000", "--out", log],
        ["prepare", "kuairand", "--data", log, "--out", data, "--test-from", "2022-05-04"],
    ):
        if code := coldrank(command):
            sys.exit(code)
    return Path(data)


def _reader(run: Run, data: DataFolder) -> SampleReader:
    d = run.config.data
    return SampleReader(
        data.files(d.fit),
        run.make.columns(training=True),
        d.batch_size,
        shuffle_rows=d.shuffle_rows,
        in_time=False,
        seed=1,
    )


def _way(run: Run, reader: SampleReader, ahead: int, count: int) -> Way:
    """The first batches of a pass, as training gets them."""

    def by_a_thread() -> Iterator[Batch]:
        with batches(reader, run.make, ahead) as source:
            yield from itertools.islice(source, count)

    return by_a_thread if ahead else lambda: itertools.islice(made(reader, run.make), count)


def _better(best: tuple[float, float], work: Callable[[], None], rows: int) -> tuple[float, float]:
    """Seconds a row, of the clock and of CPU time: the less of each."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return min(best[0], (time.perf_counter() - start) / rows), min(best[1], (time.process_time() - cpu) / rows)


if __name__ == "__main__":
    main()
