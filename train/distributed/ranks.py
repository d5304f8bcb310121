"""This process among all that train, and the group that they make."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from coldrank.data.errors import UserError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Joins the job that torchrun or torchx started, or makes a group of one; leaves it at the end.

    Raises UserError where torchrun has started the ranks again and they could not find each other.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # torch 2.13 hands the dead ranks' addresses to those that it starts in their place, which then wait for nobody.
        raise UserError(
            "torchrun started the ranks again; for that, set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun"
        )
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend)
    else:
        # A store inside the process: a single rank needs no port.
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
