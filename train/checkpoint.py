"""Checkpoints by torch.distributed.checkpoint: written in the background, beside, then renamed; the last few kept.

`checkpoints/step-N/` holds the model, the optimizers and the encoder (DCP files, sharded) and `progress.json`: where
the run stands, the shape of every tensor, and size and CRC-32 of every file. A folder named `step-N` is a whole
checkpoint, because it is renamed when all ranks have written; what became of its files later, on a bad disk or in a
copy, the sums tell.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import async_save
from tqdm import tqdm

from coldrank.data.errors import UserError
from coldrank.train.distributed.ranks import Ranks, objects_of_all_ranks, of_first_rank
from coldrank.train.distributed.tables import whole_shape
from coldrank.train.finite import not_finite
from coldrank.train.lock import Held
from coldrank.train.progress import Progress

State = dict[str, Any]
# Shapes of a checkpoint's encoder by name -> tensors to load some of them into.
Sized = Callable[[dict[str, list[int]]], State]
T = TypeVar("T")


# Checkpoints of before there were streams lack these.
_OF_STREAMS = ("pass_done", "period", "ends", "partitions")


class _Refused(Exception):
    """Why a checkpoint cannot be used; the same on every rank."""


def steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints in a run's `checkpoints` folder, ascending."""
    files = folder.glob("step-*/progress.json") if folder.is_dir() else []
    return sorted(int(p.parent.name.removeprefix("step-")) for p in files if p.parent.name[5:].isdigit())


def steps_for_all(folder: Path) -> list[int]:
    """The same on every rank, as the first one sees them: a shared folder may show on another host a moment later."""
    return of_first_rank(steps(folder))


def _remove(path: Path) -> None:
    """Removes a checkpoint: its name goes first, because a folder named `step-N` is whole."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    os.replace(path, partial)
    shutil.rmtree(partial)


class Saver:
    """Writes a run's checkpoints while it trains on. Every method is called by all ranks at the same step."""

    def __init__(self, folder: Path, ranks: Ranks, keep: int, lock: Held) -> None:
        self.folder, self.ranks, self.keep, self.lock = folder, ranks, keep, lock
        # The background thread talks to the other ranks while the training does: on a group of its own.
        self.group = dist.new_group(backend="gloo")
        self.pending: tuple[Future[Any], Path, dict[str, Any]] | None = None
        if ranks.is_first:
            for partial in folder.glob("step-*.partial"):  # what a run that was killed has left
                shutil.rmtree(partial)

    def begin(self, state: State, of_rank: State, progress: Progress) -> None:
        """Copies the state and begins to write `step-N`. of_rank: what each rank has for itself, by name. Raises
        UserError, on every rank, for a state that is not finite."""
        self.finish()
        self.lock.check()
        # What the encoder knows is fitted, not learnt: edges that no value needs are infinite there.
        if name := not_finite({part: state[part] for part in ("model", "optimizers")}):
            raise UserError(
                f"step {progress.step}: {name} is not finite; {self.kept()}; try a lower optim.dense.lr or "
                f"optim.tables.lr"
            )
        # With the lock's token: who lost it may still be writing in the background.
        partial = self.folder / f"step-{progress.step}.{self.lock.token}.partial"
        if self.ranks.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier()
        record = asdict(progress) | {"shapes": _shapes(state)}
        everything = state | _by_rank(of_rank, self.ranks) | _random(self.ranks)
        saved = async_save(
            everything, checkpoint_id=partial, process_group=self.group, async_stager=BlockingAsyncStager()
        )
        assert isinstance(saved, Future)
        self.pending = (saved, partial, record)

    def finish(self) -> None:
        """Waits for the checkpoint that is being written, if any, and gives it its name."""
        if self.pending is None:
            return
        (saved, partial, record), self.pending = self.pending, None
        final = self.folder / f"step-{record['step']}"
        self.lock.check()
        try:
            saved.result()
        except CheckpointException as error:  # what went wrong on any rank; not an Exception
            raise UserError(f"{final}: cannot be written ({_last_line(error)})") from error
        files = objects_of_all_ranks({p.name: _sum(p) for p in _files_of(partial, self.ranks)})
        if self.ranks.is_first:
            record["files"] = {name: sums for by_rank in files for name, sums in by_rank.items()}
            (partial / "progress.json").write_text(json.dumps(record))
            shutil.rmtree(final, ignore_errors=True)  # a damaged one that was refused
            os.replace(partial, final)
            self._trim()
        dist.barrier()

    def kept(self) -> str:
        """In words, which checkpoint a run that ends now goes on from. The same on every rank."""
        kept = steps_for_all(self.folder)
        return f"the last checkpoint is of step {kept[-1]}" if kept else "there is no checkpoint before it"

    def close(self) -> None:
        """Waits for the last checkpoint. A run that was killed before it had removed the oldest does it now."""
        self.finish()
        if self.ranks.is_first:
            self._trim()

    def _trim(self) -> None:
        for old in steps(self.folder)[: -self.keep]:
            _remove(self.folder / f"step-{old}")


def load(folder: Path, state: State, of_rank: State, ranks: Ranks, sized: Sized = lambda shapes: {}) -> Progress:
    """Loads the last checkpoint that can be used into the state, in place; says which were refused, and why.

    of_rank: tensors that each rank has for itself; left alone where the checkpoint is of fewer ranks. sized: called
    with the shapes of the checkpoint's encoder, gives tensors of it that are to be loaded in place of those of the
    state, and then are in it. Raises UserError if no checkpoint can be used.
    """
    return _first_usable(folder, ranks, lambda path: _load(path, state, of_rank, ranks, sized), "; --fresh starts over")


def load_summed(folder: Path, step: int, of_rank: State, world_size: int, ranks: Ranks) -> None:
    """Loads what each of `world_size` ranks had for itself in a checkpoint, added up, into `of_rank` on the first rank;
    zeros on the others."""
    path = folder / f"step-{step}"
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    for name, value in of_rank.items():
        parts = {f"{name}.{r}": torch.zeros_like(value) for r in range(world_size) if f"{name}.{r}" in stored}
        load_state(parts, checkpoint_id=path)
        value.zero_()
        for part in parts.values() if ranks.is_first else ():
            value += part


def newest(folder: Path, ranks: Ranks) -> tuple[Path, dict[str, list[int]]]:
    """The last checkpoint whose files are as they were written, and the shapes of its tensors by name; says which were
    refused.

    Raises UserError if there is none.
    """
    return _first_usable(folder, ranks, lambda path: (path, _shapes_of(path, ranks)), "")


def encoder_shapes(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Of the shapes of all tensors by name, those of the encoder, by the names that it gives them."""
    return {name.removeprefix("encoder."): shape for name, shape in shapes.items() if name.startswith("encoder.")}


def load_into(path: Path, tensors: State) -> None:
    """Loads tensors by their names in the checkpoint, in place. Their shapes must be those of `newest`."""
    load_state(tensors, checkpoint_id=path)


def _first_usable(folder: Path, ranks: Ranks, use: Callable[[Path], T], hint: str) -> T:
    refused = []
    for step in reversed(steps_for_all(folder)):
        path = folder / f"step-{step}"
        try:
            return use(path)
        except _Refused as reason:
            refused.append(f"{path}: {reason}")
            if ranks.is_first:
                tqdm.write(f"refused: {refused[-1]}")
    raise UserError(f"{refused[0]}{hint}" if refused else f"{folder}: no checkpoint in it")


def _shapes_of(path: Path, ranks: Ranks) -> dict[str, list[int]]:
    record = _told(path)
    _agree(_damage(path, record.get("files", {}), ranks))
    if "shapes" not in record:
        raise _Refused("progress.json does not hold the tensors' shapes")
    return dict(record["shapes"])


def _load(path: Path, state: State, of_rank: State, ranks: Ranks, sized: Sized) -> Progress:
    record = _told(path)
    _agree(_damage(path, record.get("files", {}), ranks))
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    shapes = {name: list(of.size) for name, of in stored.items() if isinstance(of, TensorStorageMetadata)}
    state["encoder"] |= sized(encoder_shapes(shapes))
    differs = _other_shape(record["shapes"], _shapes(state)) if "shapes" in record else None
    if differs:
        raise _Refused(f"the checkpoint does not fit this model ({differs})")
    if differs := _other_columns(stored, state):
        raise _Refused(f"the checkpoint does not fit this plan ({differs})")
    mine = {n: v for n, v in (_by_rank(of_rank, ranks) | _random(ranks)).items() if n in stored}
    try:
        load_state(state | mine, checkpoint_id=path)
    except CheckpointException as error:
        raise _Refused(f"the checkpoint does not fit this model ({_last_line(error)})") from error
    for name, value in mine.items():
        if name.startswith("random."):
            (torch.cuda if name.startswith("random.cuda") else torch).set_rng_state(value)
    return _progress(record)


def _progress(record: dict[str, Any]) -> Progress:
    names = [f.name for f in fields(Progress)]
    return Progress(**{name: record[name] for name in names if name in record or name not in _OF_STREAMS})


def _told(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((path / "progress.json").read_text())
        _progress(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Refused(f"damaged: progress.json cannot be read ({error})") from None
    return record


def _damage(path: Path, files: dict[str, tuple[int, int]], ranks: Ranks) -> str | None:
    """What is wrong with this rank's share of the files."""
    for name in sorted(files)[ranks.rank :: ranks.world_size]:
        size, crc = files[name]
        file = path / name
        if not file.exists():
            return f"damaged: {name} is missing"
        if file.stat().st_size != size:
            return f"damaged: {name} has {file.stat().st_size:,} bytes, {size:,} were written"
        if _sum(file)[1] != crc:
            return f"damaged: {name} is not what was written (its CRC-32 differs)"
    return None


def _agree(fault: str | None) -> None:
    """Raises on all ranks what is wrong on one."""
    if first := next((f for f in objects_of_all_ranks(fault) if f), None):
        raise _Refused(first)


def _shapes(state: State) -> dict[str, list[int]]:
    """Whole shape of every tensor of model and encoder."""
    tensors = [(f"{part}.{name}", value) for part in ("model", "encoder") for name, value in state[part].items()]
    return {name: whole_shape(value) for name, value in tensors}


def _other_shape(there: dict[str, list[int]], here: dict[str, list[int]]) -> str | None:
    for name in dict.fromkeys([*here, *there]):
        if name not in there or name not in here:
            return f"{name} is only in the {'model' if name in here else 'checkpoint'}"
        if there[name] != here[name]:
            return f"{name} has shape {there[name]} in the checkpoint, {here[name]} in the model"
    return None


def _other_columns(stored: dict[str, Any], state: State) -> str | None:
    """Row-wise Adagrad has a sum per row and column shard: sums of other columns cannot be made from them."""
    for parameter, sums in state["optimizers"]["state"].items():
        for name, value in sums.items():
            table, _, what = name.rpartition(".")
            there = stored.get(f"optimizers.state.{parameter}.{name}")
            if what == "momentum1" and there is not None and list(there.size) != whole_shape(value):
                rows = whole_shape(state["model"][parameter.removeprefix("tables.")])[0]
                before, now = (n // rows for n in (there.size[0], whole_shape(value)[0]))
                return (
                    f"table {table}: the optimizer's sums are of {_columns(before)} and this plan's are of "
                    f"{_columns(now)}; leave sharding.tables.{table} and sharding.column_width as they were"
                )
    return None


def _columns(shards: int) -> str:
    return "whole rows" if shards == 1 else f"{shards} column shards"


def _files_of(folder: Path, ranks: Ranks) -> list[Path]:
    """The files that this rank has written; the first rank's hold the metadata."""
    return [*folder.glob(f"__{ranks.rank}_*"), *([folder / ".metadata"] if ranks.is_first else [])]


def _sum(path: Path) -> tuple[int, int]:
    """Size and CRC-32."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def _by_rank(of_rank: State, ranks: Ranks) -> State:
    return {f"{name}.{ranks.rank}": value for name, value in of_rank.items()}


def _random(ranks: Ranks) -> dict[str, torch.Tensor]:
    """States of this rank's generators, by name."""
    states = {f"random.cpu.{ranks.rank}": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        states[f"random.cuda.{ranks.rank}"] = torch.cuda.get_rng_state()
    return states


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1]
