"""The personalized gate of POSO (section 4): C * sigmoid(MLP2(pc)), fed by the personalization code (PC) alone.

B batch, G gates.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_sizes, check_width


class PersonalizedGate(nn.Module):
    """C * g(pc) of Eq. 6: two linear layers with a ReLU between them (end of section 4.5), a sigmoid, times
    C = `scale`.

    The last layer starts at zero and the first one as `nn.Linear` does, so a fresh gate is `scale / 2` for every PC:
    exactly 1 at the default scale of 2. A personalized module then starts as its plain version, bit for bit
    (attention: up to rounding); outputs still part at the first update, because
    each gate's gradient is that of the activation it multiplies.
    """

    def __init__(self, pc_dim: int, out_dim: int, hidden: int = 32, scale: float = 2.0) -> None:
        super().__init__()
        check_sizes(pc_dim=pc_dim, out_dim=out_dim, gate_hidden=hidden)
        if not scale > 0:
            raise ValueError(f"scale is {scale}: it must be above 0 (2 starts a gate at 1)")
        self.pc_dim = pc_dim
        self.scale = scale
        self.hidden = nn.Linear(pc_dim, hidden)
        self.output = nn.Linear(hidden, out_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @torch.jit.unused
    def spread(self, std: float) -> None:
        """Draws the last layer's weights with this deviation in the place of zeros: gates that differ between codes
        from the first step on. The module they stand in is then no longer its plain version at the start."""
        nn.init.normal_(self.output.weight, std=std)

    def forward(self, pc: Tensor | None) -> Tensor:
        """pc: float [B, pc_dim] -> gates [B, out_dim], each in (0, scale). ValueError when pc is None."""
        if pc is None:
            raise ValueError("pc is None: a personalized module needs the personalization code, [batch, pc_dim]")
        check_width("pc", pc, self.pc_dim)
        return self.scale * torch.sigmoid(self.output(torch.relu(self.hidden(pc))))


def personalized_gates(model: nn.Module) -> dict[str, PersonalizedGate]:
    """Module name -> gate, of all gates of a model."""
    return {name: m for name, m in model.named_modules() if isinstance(m, PersonalizedGate)}


def spread_gates(model: nn.Module, std: float) -> None:
    """`PersonalizedGate.spread` of all gates of a model, from a stream of draws of its own; 0: they stay at rest."""
    if std:
        with separate_draws():
            for gate in personalized_gates(model).values():
                gate.spread(std)


@contextmanager
def separate_draws() -> Iterator[None]:
    """Draw initial weights from a stream of their own: derived from torch's CPU generator, which is left as it was.

    What only a personalized module has (gates, folds) is built inside, so that after one seed a whole personalized
    model has the same plain weights as its base. Holds for parameters made on the CPU or the meta device.
    """
    with torch.random.fork_rng(devices=[]):
        # Seeded anew: continuing the copied stream would repeat the very draws of the next plain layer.
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield
