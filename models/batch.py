"""A batch as the model takes it."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass(slots=True)
class Batch(Pipelineable):
    """B samples.

    sparse: rows of tables, keys as `FeatureEncoder.keys`. dense: float32 [B, F]. sequence_lengths: int64 [S, B].
    labels: float32 [B, T], NaN where unknown. keys: what identifies a sample and places it in a cohort, int64 [B] each
    (`user_id`, `item_id`, `time`, `user_views`, `item_views`), and float32 `true_<task>` where the data has them.
    unknown: growing table -> places in the values of `sparse` and the ids there, int64 [U] each, that have no row yet; managed
    table -> the same of all its ids; of batches for training, until their ids are given rows.
    """

    sparse: KeyedJaggedTensor
    dense: Tensor
    sequence_lengths: Tensor
    labels: Tensor
    keys: dict[str, Tensor]
    unknown: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.labels.shape[0]

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The batch on a device; keys and unknown ids stay where they are."""
        return self._mapped(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which a GPU copies while it computes; keys and unknown ids stay where they are."""
        return self._mapped(lambda part: part.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory until the stream has used it."""
        for part in self._for_device().values():
            part.record_stream(stream)

    def _mapped(self, change: Callable[[Any], Any]) -> "Batch":
        return replace(self, **{name: change(part) for name, part in self._for_device().items()})

    def _for_device(self) -> dict[str, Any]:
        """What a device computes with: every field but the dictionaries, so that none can be forgotten."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part for name, part in parts.items() if not isinstance(part, dict)}
