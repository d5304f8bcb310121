"""Memory and work of the dense part of the model, which every rank holds whole."""

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from torchrec import KeyedJaggedTensor

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.train.distributed.memory import FLOAT_BYTES
from coldrank.train.task import RankingTask

# Adam: the weight, its gradient and two moments.
_COPIES = 4
_ROWS = 8


def dense_bytes(task: RankingTask, features: FeatureSet, rows: int) -> int:
    """rows: samples whose activations are held at a time -> bytes for the weights, gradients and Adam's moments, and
    for what a step keeps until its backward pass, in float32.

    The latter is measured, in a forward pass over a few rows on the CPU, where the dense part has to be.
    """
    parameters = [*task.ranker.parameters(), *task.projected.parameters()]
    weights = sum(p.numel() for p in parameters) * FLOAT_BYTES
    of_weights = {p.untyped_storage().data_ptr() for p in task.ranker.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        # Named, to be alive until the end: memory that is freed would be given to the next tensor and counted once.
        logits = task.ranker(*_inputs(features))
    del logits
    return _COPIES * weights + sum(kept.values()) * rows // _ROWS


def dense_flops(task: RankingTask, features: FeatureSet, rows: int) -> int:
    """FLOPs of a step's matrix products over so many samples: those of a forward pass, counted over a few rows, three
    times, as a backward pass has two products for each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        task.ranker(*_inputs(features))
    return 3 * int(counter.get_total_flops()) * rows // _ROWS


def _inputs(features: FeatureSet) -> tuple[Embedded, Batch]:
    """Samples of zeros, their histories of full length."""
    zeros = lambda *size: torch.zeros(_ROWS, *size, requires_grad=True)
    wide = lambda f: zeros(*([f.length] if f.role == "sequence" else []), features.dim(f))
    embedded = {f.name: wide(f) for f in features.embedded}
    lengths = torch.tensor([[fs[0].length] * _ROWS for fs in features.sequences.values()], dtype=torch.int64)
    sparse = KeyedJaggedTensor.empty()
    dense, labels = torch.zeros(_ROWS, len(features.numbers)), torch.zeros(_ROWS, 0)
    return embedded, Batch(sparse, dense, lengths.view(-1, _ROWS), labels, {})
