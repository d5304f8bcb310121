"""PAM's groups in the served model: every part that is adapted has the weights of all groups side by side, and a count
of the candidate tells whose answer is taken.

C candidates, N popularity groups, T tasks, D width.
"""

import torch
from torch import Tensor, nn

from coldrank.modules import PosoTowers, Towers
from coldrank.modules.gate import PersonalizedGate
from coldrank.modules.pam import route
from coldrank.serving.hooked import Routed
from coldrank.serving.pack import spread


class Router(nn.Module):
    """Answers by the weights of all groups -> those by the weights of the candidate's own. Scriptable."""

    cuts: Tensor

    def __init__(self, routed: Routed) -> None:
        super().__init__()
        self.column, self.groups = routed.column, len(routed.cuts) + 1
        self.register_buffer("cuts", routed.cuts.clone())

    def forward(self, answers: Tensor, counts: dict[str, Tensor]) -> Tensor:
        """answers: [C, N, T]; counts: of every candidate, or of every request -> [C, T]."""
        rows = answers.shape[0]
        group = spread(route(counts[self.column], self.cuts).unsqueeze(1), rows).unsqueeze(2)
        return answers.gather(1, group.expand(rows, 1, answers.shape[2])).squeeze(1)


class RoutedTowers(nn.Module):
    """The ranker's towers, of all groups. Scriptable."""

    def __init__(self, towers: nn.Module, routed: Routed) -> None:
        super().__init__()
        self.router = Router(routed)
        self.groups = self.router.groups
        of_towers = {name.removeprefix("towers."): w for name, w in routed.weights.items()}
        self.towers = side_by_side(towers, of_towers, self.groups)

    def forward(self, x: Tensor, pc: Tensor, counts: dict[str, Tensor]) -> Tensor:
        """x: [C, T, D]; pc: [C, P] or [1, P] -> logits [C, T]."""
        wide = x.repeat(1, self.groups, 1)
        logits: Tensor = self.towers(wide, pc)
        routed: Tensor = self.router(logits.view(x.shape[0], self.groups, x.shape[1]), counts)
        return routed


class PlainTowers(nn.Module):
    """The ranker's towers as they are, with the arguments of `RoutedTowers`. Scriptable."""

    def __init__(self, towers: nn.Module) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, x: Tensor, pc: Tensor, counts: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.towers(x, pc)
        return logits


def side_by_side(towers: nn.Module, weights: dict[str, Tensor], groups: int) -> nn.Module:
    """Towers with the weights of N groups, name -> [N, ...], as one of N * T tasks: those of the first group first."""
    widths = [w.shape[-1] for n, w in weights.items() if n.startswith("layers.") and n.endswith("weight")]
    first = next(w for n, w in weights.items() if n.endswith("weight") and n.split(".")[0] in ("layers", "logit"))
    tasks, in_dim = groups * first.shape[1], first.shape[2]
    if isinstance(towers, PosoTowers):
        gate = towers.gates[0]
        assert isinstance(gate, PersonalizedGate)
        hidden = groups * gate.hidden.out_features
        made: nn.Module = PosoTowers(in_dim, widths, tasks, gate.pc_dim, hidden, gate.scale)
    else:
        made = Towers(in_dim, widths, tasks)
    merged = {}
    for name, w in weights.items():
        apart = name.startswith("gates.") and name.endswith("output.weight")  # each reads its own hidden layer
        merged[name] = torch.block_diag(*w) if apart else w.flatten(0, 1)
    made.load_state_dict(merged)
    return made.eval()
