"""Personalized gates that read one code, as one network.

P width of the code.
"""

import torch
from torch import Tensor, nn

from coldrank.modules.gate import PersonalizedGate


class Gates(nn.Module):
    """Gates that read one code, as one network whose outputs lie side by side. Scriptable."""

    scale: Tensor

    def __init__(self, gates: list[PersonalizedGate]) -> None:
        super().__init__()
        hidden, outputs = [g.hidden for g in gates], [g.output for g in gates]
        weights = [torch.cat([h.weight for h in hidden]), torch.block_diag(*(o.weight for o in outputs))]
        biases = [torch.cat([x.bias for x in layers]) for layers in (hidden, outputs)]
        self.layers = nn.ModuleList(nn.Linear(w.shape[1], w.shape[0]) for w in weights)
        self.load_state_dict(
            {f"layers.{i}.{n}": p for n, ps in (("weight", weights), ("bias", biases)) for i, p in enumerate(ps)}
        )
        self.register_buffer("scale", torch.cat([torch.full((g.output.out_features,), g.scale) for g in gates]))

    def forward(self, pc: Tensor) -> Tensor:
        """[1, P] -> [1, sum of the gates' widths]."""
        for i, layer in enumerate(self.layers):
            pc = layer(torch.relu(pc) if i else pc)
        return torch.sigmoid(pc) * self.scale


class GatePart(nn.Module):
    """A gate's share of what `Gates` gives. Scriptable."""

    def __init__(self, first: int, end: int) -> None:
        super().__init__()
        self.first, self.end = first, end

    def forward(self, pc: Tensor | None) -> Tensor:
        assert pc is not None
        return pc[:, self.first : self.end]


def merged(model: nn.Module) -> nn.Module:
    """Puts a share of one network in the place of every gate of a model, and returns the network: what it gives is the
    code that the model is to be called with. Of a model without gates, what leaves the code as it is."""
    gates = [(m, n, g) for m in model.modules() for n, g in m.named_children() if isinstance(g, PersonalizedGate)]
    start = 0
    for parent, name, gate in gates:
        parent.register_module(name, GatePart(start, start + gate.output.out_features))
        start += gate.output.out_features
    return Gates([g for _, _, g in gates]) if gates else nn.Identity()
