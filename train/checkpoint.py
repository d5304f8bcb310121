"""Checkpoints by torch.distributed.checkpoint: written beside, renamed, the last few kept.

`checkpoints/step-N/` holds the model, the optimizers and the encoder (DCP files, sharded) and `progress.json`.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import save as save_state

from coldrank.train.distributed import Ranks
from coldrank.train.errors import UserError


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a run stands: steps done, epoch, batches taken from the epoch by each of `world_size` ranks, and the seconds so
    far. data: digest of the manifest of the data that it reads."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    world_size: int = 1
    seconds: float = 0.0
    data: str = ""


def steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints in a run's `checkpoints` folder, ascending."""
    found = folder.glob("step-*/progress.json") if folder.is_dir() else []
    return sorted(int(p.parent.name.removeprefix("step-")) for p in found if p.parent.name[5:].isdigit())


def save(folder: Path, state: dict[str, Any], progress: Progress, ranks: Ranks, keep: int) -> Path:
    """Writes `step-N`; a folder of that name is a whole checkpoint, because it is renamed when all ranks have written."""
    final = folder / f"step-{progress.step}"
    partial = folder / f"step-{progress.step}.partial"
    if ranks.is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    save_state(state | _random(ranks), checkpoint_id=partial)
    if ranks.is_first:
        (partial / "progress.json").write_text(json.dumps(asdict(progress)))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        for old in steps(folder)[:-keep]:
            shutil.rmtree(folder / f"step-{old}")
    dist.barrier()
    return final


def load(folder: Path, state: dict[str, Any], ranks: Ranks) -> Progress:
    """Loads the last checkpoint into the state, in place. Raises UserError if it does not fit the model."""
    path = folder / f"step-{steps(folder)[-1]}"
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    random = {name: value for name, value in _random(ranks).items() if name in stored}
    try:
        load_state(state | random, checkpoint_id=path)
    except CheckpointException as error:  # what went wrong on any rank; not an Exception
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path}: the checkpoint does not fit this model ({reason}); --fresh starts over") from error
    for name, value in random.items():
        (torch.cuda if name.startswith("random.cuda") else torch).set_rng_state(value)
    return Progress(**json.loads((path / "progress.json").read_text()))


def _random(ranks: Ranks) -> dict[str, torch.Tensor]:
    """States of this rank's generators, by name."""
    states = {f"random.cpu.{ranks.rank}": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        states[f"random.cuda.{ranks.rank}"] = torch.cuda.get_rng_state()
    return states
