"""The peak memory of a training, beside the least that it could do with.

    python benchmarks/memory.py --config coldrank.configs.kuairand:base --data DATA

The peak is the resident memory of `coldrank train` for some steps, in a process of its own. The least: what such a
process takes once the libraries are loaded; the weights, their optimizers' states, the dense gradients, and one batch.
MiB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import Tensor
from torch.utils._pytree import tree_flatten

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.run import build

MIB = 2**20
# Runs a module as `python -m` does, and says what it took.
_PROGRAM = """
import atexit, runpy, sys
from peak import peak_mib
atexit.register(lambda: print(peak_mib(), flush=True))
sys.argv[:] = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def main() -> None:
    """Prints the table, and writes it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="arm")
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes a field of the arm")
    parser.add_argument("--steps", type=int, default=200, help="steps of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    settings = [*args.set, "train.threads=1", f"train.steps={args.steps}"]
    sizes = parts(args.config, settings, args.data) | {"libraries": peak("coldrank.train.trainer", [])}
    with tempfile.TemporaryDirectory() as folder:
        changes = [word for setting in settings for word in ("--set", setting)]
        run = ["--config", args.config, "--data", str(args.data), "--out", f"{folder}/run", *changes]
        sizes["peak"] = peak("coldrank.train.main", ["train", *run])
    sizes["least"] = sum(sizes.values()) - sizes["peak"]
    print(tabulate([[name, f"{value:,.0f}"] for name, value in sizes.items()], ["", "MiB"], tablefmt="github"))
    print(f"peak / least: {sizes['peak'] / sizes['least']:.2f}")
    if args.out:
        args.out.write_text(json.dumps(sizes, indent=1) + "\n")


def parts(config: str, settings: list[str], data: Path) -> dict[str, float]:
    """MiB of the weights, of the optimizers' states, of the dense gradients and of a batch."""
    with process_group() as ranks:
        run = build(load(config, settings), DataFolder.open(data), ranks)
        files = run.data.files(run.config.data.fit)
        fit_encoder(run.encoder, files)
        batch = run.make(next(SampleReader(files, run.make.columns(), run.config.data.batch_size).epoch(0)))
        run.optimizers.begin_step(0, 1)
        run.model(batch).loss.backward()
        run.optimizers.end_step()
        dense = (p for p in run.model.parameters() if p.grad is not None)
        return {
            "weights": _size(_locals(run.model.state_dict())),
            "optimizers' states": _size(_locals(run.optimizers.all.state_dict())),
            "dense gradients": _size(p.grad for p in dense if p.grad is not None),
            "a batch": _size(_of_batch(batch)),
        }


def _of_batch(batch: Batch) -> list[Tensor]:
    sparse = batch.sparse
    return [sparse.values(), sparse.lengths(), batch.dense, batch.sequence_lengths, batch.labels, *batch.keys.values()]


def _locals(state: dict[str, Any]) -> list[Tensor]:
    """The tensors of a state; of a sharded one this rank's."""
    leaves = tree_flatten(state)[0]
    shards = [s.tensor for leaf in leaves if hasattr(leaf, "local_shards") for s in leaf.local_shards()]
    return shards + [leaf for leaf in leaves if isinstance(leaf, Tensor) and not hasattr(leaf, "local_shards")]


def _size(tensors: Iterable[Tensor]) -> float:
    blocks = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(blocks.values()) / MIB


def peak(module: str, arguments: list[str]) -> float:
    """MiB of resident memory that `python -m MODULE ARGUMENTS` takes at most.

    Raises SystemExit with its last line if it failed.
    """
    program = [sys.executable, "-c", _PROGRAM, module, *arguments]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    ended = subprocess.run(program, check=False, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise SystemExit((ended.stderr.strip().splitlines() or ["it failed without a word"])[-1])
    return float(ended.stdout.split()[-1])


if __name__ == "__main__":
    main()
