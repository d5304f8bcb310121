"""This process among all that train, and the group that they make."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as differentiable
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from coldrank.data.errors import UserError

T = TypeVar("T")


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


def world_size() -> int:
    """Number of ranks; 1 outside a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def per_rank(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Counts of all ranks together, at least 1, over the number of ranks: int64 [...] -> float [...]. A sum over a
    rank's rows that is divided by it becomes, in the mean over the ranks, the mean over the rows of all."""
    if world_size() > 1:
        counts = counts.clone()
        dist.all_reduce(counts)
    return counts.clamp(min=1).to(dtype) / world_size()


def of_all_ranks(values: Tensor) -> Tensor:
    """Rows of all ranks, one rank's after another's: [n, ...] -> [n of all, ...]; n may differ between them. No
    gradient passes."""
    if world_size() == 1:
        return values
    sizes = [torch.zeros((), dtype=torch.int64, device=values.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor(len(values), device=values.device))
    padded = values.new_zeros(int(torch.stack(sizes).max()), *values.shape[1:])
    padded[: len(values)] = values
    by_rank = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(by_rank, padded)
    return torch.cat([rows[: int(size)] for rows, size in zip(by_rank, sizes, strict=True)])


def objects_of_all_ranks(mine: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """One object of each rank, in their order. group: of all ranks; None: the usual one."""
    gathered = [mine] * world_size()
    dist.all_gather_object(gathered, mine, group=group)
    return gathered


def of_first_rank(mine: T) -> T:
    """The first rank's object, on all."""
    shared = [mine]
    dist.broadcast_object_list(shared)
    return shared[0]


def made_by_first(ranks: Ranks, make: Callable[[], T]) -> T:
    """What the first rank makes, on all. Raises UserError on all for what is in its way there."""
    made: tuple[T | None, str | None] = (None, None)
    if ranks.is_first:
        try:
            made = make(), None
        except (UserError, OSError) as error:
            made = None, str(error)
    value, refused = of_first_rank(made)
    if refused is not None:
        raise UserError(refused)
    return cast(T, value)


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum over all ranks; so is its gradient, and the gradient of that."""
    world = dist.group.WORLD
    assert world is not None  # there is a group wherever there are ranks
    return differentiable.wait_tensor(differentiable.all_reduce(x, "sum", world))
