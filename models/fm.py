"""The factorization machine of second order (Rendle, 2010) on our embedding stage.

B batch, F fields, T tasks, K factors, D width of a field: T * (1 + K).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.model import Model, ModelModule
from coldrank.modules.attended import without_padding

_INIT = 0.01  # of the numbers' rows; as that of tables by default


@dataclass(kw_only=True, slots=True)
class FM(Model):
    """A factorization machine. Its fields are of one width, T * (1 + K): of each task the weight w and the factors v
    of an id lie side by side in its row. So the width of the tables says how many factors there are."""

    def build(self, features: FeatureSet, tasks: int) -> "FMModule":
        return FMModule(features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        if wrong := widths_problem("fm", features):
            return wrong
        width = features.dim(features.embedded[0])
        if width % len(tasks) or width < 2 * len(tasks):
            return (
                f"model='fm' has a weight and factors for each task in a row: dim must be a multiple of {len(tasks)},"
                f" from {2 * len(tasks)} on; it is {width}"
            )
        return ""


class FMModule(ModelModule):
    """Of each task, Rendle's equation 1:

        logit = w_0 + sum_i w_i x_i + sum_{i < j} <v_i, v_j> x_i x_j

    over the fields of a sample: x is 1 for an id or bucket, and the value of a number, standardised. A field of several
    ids, and a sequence, is one i whose w and v are the means of its ids'. In time F by lemma 3.1:
    sum_{i < j} <v_i, v_j> x_i x_j = (|sum_i v_i x_i|^2 - sum_i |v_i x_i|^2) / 2.
    """

    def __init__(self, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        width = features.dim(features.embedded[0])
        self.shape = (tasks, width // tasks)
        self.bias = nn.Parameter(torch.zeros(tasks))
        self.numbers = rows_of_numbers(self.inputs, width)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        fields = torch.cat([embedded_fields(self.inputs, embedded, batch), batch.dense.unsqueeze(2) * self.numbers], 1)
        of_task = fields.unflatten(2, self.shape)  # [B, F, T, 1 + K]
        factors = of_task[..., 1:]
        pairs = 0.5 * (factors.sum(1).square() - factors.square().sum(1)).sum(2)
        logits: Tensor = self.bias + of_task[..., 0].sum(1) + pairs
        return logits


def widths_problem(kind: str, features: FeatureSet) -> str:
    """What is wrong, in words, where fields differ in width; '' where they do not."""
    widths = {f.name: features.dim(f) for f in features.embedded}
    return f"model={kind!r} needs fields of one width; dim is {widths}" if len(set(widths.values())) > 1 else ""


def number_of_fields(inputs: Inputs) -> int:
    """How many `embedded_fields` gives."""
    return len(inputs.fixed) + sum(map(len, inputs.sequences.values()))


def rows_of_numbers(inputs: Inputs, width: int) -> nn.Parameter:
    """A row for each number, which times its value is its field: float32 [numbers, D]."""
    return nn.Parameter(_INIT * torch.randn(inputs.numbers, width))


def embedded_fields(inputs: Inputs, embedded: Embedded, batch: SampleView) -> Tensor:
    """[B, F, D], numbers left out; of a feature of a sequence the mean over its positions."""
    fields = [embedded[name] for name in inputs.fixed]
    for names, lengths in zip(inputs.sequences.values(), batch.sequence_lengths, strict=True):
        events = lengths.clamp(min=1).unsqueeze(1)
        fields += [without_padding(embedded[name], lengths).sum(1) / events for name in names]
    return torch.stack(fields, 1)
