"""What a batch's embeddings are side by side, and back, for references that compute on columns."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import Embedded, Inputs, places
from coldrank.models.features import FeatureSet


def static_of(features: FeatureSet, embedded: Embedded) -> Tensor:
    """The features outside sequences, [B, D], numbers left out."""
    return torch.cat([embedded[name] for name in places(features)], 1)


def with_static(features: FeatureSet, embedded: Embedded, static: Tensor) -> Embedded:
    """The same with other columns for these."""
    return embedded | {name: static[:, at] for name, at in places(features).items()}


def apart(features: FeatureSet, static: Tensor, sequences: dict[str, Tensor], pc: Tensor) -> Embedded:
    """By feature. static: [B, D]; sequences: [B, L, D] each; pc: [B, P]."""
    inputs, widths = Inputs(features), {f.name: features.dim(f) for f in features.sparse}
    embedded = with_static(features, {}, static)
    for name, of in inputs.sequences.items():
        embedded |= dict(zip(of, sequences[name].split([widths[n] for n in of], 2), strict=True))
    return embedded | dict(zip(inputs.codes, pc.split([widths[n] for n in inputs.codes], 1), strict=True))


def samples(dense: Tensor, sequence_lengths: Tensor) -> SimpleNamespace:
    """What a model reads beside embeddings."""
    return SimpleNamespace(dense=dense, sequence_lengths=sequence_lengths)


def gradients_are_right(module: nn.Module, given: tuple[Embedded, SimpleNamespace]) -> bool:
    """Whether a model's gradients by embeddings and parameters, all float64, are those of finite differences."""
    embedded = {name: value.clone().requires_grad_() for name, value in given[0].items()}
    parameters = dict(module.named_parameters())

    def of_leaves(*values: Tensor) -> Tensor:
        fresh = dict(zip(embedded, values, strict=False))
        state = dict(zip(parameters, values[len(embedded) :], strict=True))
        logits: Tensor = torch.func.functional_call(module, state, (fresh, given[1]))
        return logits

    return torch.autograd.gradcheck(of_leaves, [*embedded.values(), *parameters.values()], fast_mode=True)
