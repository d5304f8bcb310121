"""Training steps over a stream of batches: one after the other, or by TorchRec's pipeline."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from coldrank.data.batches import MODULE_CALLS
from coldrank.models.batch import Batch
from coldrank.models.model import Outputs
from coldrank.train.ids.dynamic import NewRows


class Taken(NamedTuple):
    """A batch, and where the stream stands once it is trained on: in which pass (0-based), after how many batches of
    it.

    new_rows: table with dynamic ids -> the rows that new ids got with the batch.
    """

    batch: Batch
    epoch: int
    batches: int
    new_rows: Mapping[str, NewRows] = MappingProxyType({})


Begin = Callable[[Taken], None]
End = Callable[[], None]
Steps = Iterator[tuple[Taken, Outputs]]


def one_by_one(
    model: DistributedModelParallel, stream: Iterator[Taken], device: torch.device, begin: Begin, end: End
) -> Steps:
    """Trains on the batches, and yields each after its step.

    begin: called before the forward pass of a batch, sets the rates and clears the gradients. end: called after the
    backward pass, applies them.
    """
    for taken in stream:
        begin(taken)
        outputs = model(taken.batch.to(device))
        outputs.loss.backward()
        end()
        yield taken, outputs


def pipelined(
    model: DistributedModelParallel, stream: Iterator[Taken], device: torch.device, begin: Begin, end: End
) -> Steps:
    """`one_by_one`, bit for bit, with the ids of the next batch on their way to the ranks that hold their rows, and the
    batch after it on its way to the device, while a batch is computed. The stream is read up to two batches ahead of
    what is yielded."""
    ahead: deque[Taken] = deque()

    def read() -> Iterator[Batch]:
        for taken in stream:
            ahead.append(taken)
            yield taken.batch

    def forward(batch: Batch | None) -> tuple[Tensor, Outputs]:
        outputs: Outputs = model(batch)
        return outputs.loss, outputs

    hooks: Any = _Hooks(lambda: begin(ahead[0]), end)
    # Replicas are averaged by `end`, as without a pipeline.
    pipeline = _Pipeline(model, hooks, device, custom_model_fwd=forward, dmp_collection_sync_interval_batches=None)
    batches = read()
    try:
        while True:
            try:
                outputs = pipeline.progress(batches)
            except StopIteration:
                return
            yield ahead.popleft(), outputs
    finally:
        pipeline.detach()


class _Pipeline(TrainPipelineSparseDist[Batch, Outputs]):
    """Keeps the thread that makes batches out of the trace: torch.fx changes the call of modules for all threads
    meanwhile."""

    def _pipeline_model(self, *args: Any, **kwargs: Any) -> None:
        with MODULE_CALLS:
            super()._pipeline_model(*args, **kwargs)


class _Hooks:
    """Stands where the pipeline takes an optimizer: it calls `zero_grad` before a forward pass, `step` after the
    backward."""

    def __init__(self, begin: End, end: End) -> None:
        self._begin, self._end = begin, end

    def zero_grad(self) -> None:
        self._begin()

    def step(self) -> None:
        self._end()
