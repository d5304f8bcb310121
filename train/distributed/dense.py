"""Memory of the dense part of the model, which every rank holds whole."""

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.train.distributed.request import FLOAT_BYTES
from coldrank.train.task import RankingTask

# Adam: the weight, its gradient and two moments.
_COPIES = 4
_ROWS = 8


def dense_bytes(task: RankingTask, features: FeatureSet, rows: int) -> int:
    """rows: samples whose activations are held at a time -> bytes for the weights, gradients and Adam's moments, and for what a step keeps until its backward pass, in float32.

    The latter is measured, in a forward pass over a few rows on the CPU, where the dense part has to be.
    """
    weights = sum(p.numel() for p in task.ranker.parameters()) * FLOAT_BYTES
    own = {p.untyped_storage().data_ptr() for p in task.ranker.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        # Named, to be alive until the end: memory that is freed would be given to the next tensor and counted once.
        logits = task.ranker(*_inputs(task, features))
    del logits
    return _COPIES * weights + sum(kept.values()) * rows // _ROWS


def _inputs(task: RankingTask, features: FeatureSet) -> tuple[Embedded, Tensor, Tensor]:
    stage = task.embeddings
    zeros = lambda *size: torch.zeros(_ROWS, *size, requires_grad=True)
    sequences = {name: zeros(n, stage.sequence_dims[name]) for name, n in stage.sequence_lengths.items()}
    embedded = Embedded(zeros(stage.static_dim), sequences, zeros(stage.pc_dim))
    lengths = torch.tensor(list(stage.sequence_lengths.values()), dtype=torch.int64)
    return embedded, torch.zeros(_ROWS, len(features.numbers)), lengths.unsqueeze(1).expand(-1, _ROWS)
