"""The model as it is served: raw values of a request in, a probability or value per task and candidate out; needs torch
alone."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from coldrank.models.encode import FeatureEncoder
from coldrank.models.heads.heads import Answers
from coldrank.models.model import ModelModule
from coldrank.models.projected import Projected
from coldrank.serving.hooked import Hooked, Layout
from coldrank.serving.inputs import Served, served_inputs
from coldrank.serving.pack import Pack, Packed
from coldrank.serving.parts import model_part
from coldrank.serving.request_check import RequestCheck
from coldrank.serving.stage import Lookup
from coldrank.serving.tables import Precision
from coldrank.serving.update import apply, check, digest


class Core(nn.Module):
    """Lookup, what hooks make of it, and the model: all but the request check. Scriptable."""

    def __init__(
        self,
        encoder: FeatureEncoder,
        pack: Pack,
        tables: dict[str, Tensor],
        model: ModelModule,
        heads: Answers,
        candidate: set[str],
        precision: Precision,
        hooked: Hooked,
        projected: Projected,
    ) -> None:
        super().__init__()
        features = encoder.features
        self.stage = Lookup(encoder, pack, tables, candidate, precision, hooked.asked, projected)
        order = self.stage.order
        layout = Layout(features=features, order=order, candidate=candidate, precision=precision)
        self.hooks = nn.ModuleList(made(layout) for made in hooked.made)
        self.heads = Answers(deepcopy(heads.parts), heads.starts)
        temperature = model.temperature
        self.retrieves = temperature is not None
        self.traced = hooked.traced is not None
        if hooked.traced is not None:
            self.model: nn.Module = hooked.traced(layout)
            self.scale = 1.0 if temperature is None else temperature
        else:
            part = model_part(model, features, order, hooked.routed)
            assert part is not None
            self.model, self.scale = part, 1.0

    def forward(self, packed: Packed) -> Tensor:
        """What the heads make of the logits, [C, T]; of the two-tower model, inner products."""
        looked = self.stage(packed)
        for hook in self.hooks:
            looked = hook(looked)
        given: Tensor = self.model(looked)
        if self.retrieves:
            return given * self.scale
        served: Tensor = self.heads(given)
        return served


class Twin(nn.Module):
    """The serving twin of a trained model. Scriptable; a call changes nothing, so any number of threads may call.

    version: int64 [], digest of the state, and once it is written to a file of the code and its constants as well.
    """

    state: dict[str, Tensor]

    def __init__(
        self,
        encoder: FeatureEncoder,
        tables: dict[str, Tensor],
        model: ModelModule,
        heads: Answers,
        tasks: list[str],
        candidate: set[str],
        precision: Precision = "float32",
        hooked: Hooked | None = None,
        *,
        projected: Projected | None = None,
    ) -> None:
        """tables: name -> float32 [rows, D]. candidate: raw columns that differ between the candidates of a request.
        projected: what vectors go through; None: there are none.

        Raises ValueError for a column that a hook needs on the other side."""
        super().__init__()
        self.tasks = tasks
        hooked = hooked or Hooked()
        inputs = served_inputs(encoder.features, candidate, hooked.asked.counts)
        self.request_check = RequestCheck(inputs, hooked.asked.counts)
        projected = projected or Projected(encoder.features)
        parts = (tables, model, heads, candidate, precision, hooked, projected)
        self.core = Core(encoder, self.request_check.pack, *parts)
        self.requires_grad_(False)
        self.eval()
        # The same tensors by name, for a script to find; as an attribute they stay out of the modules' own state.
        self.state = dict(self.state_dict())
        self.version = digest(self.state, "")
        self._inputs = inputs

    @property
    @torch.jit.unused
    def inputs(self) -> tuple[Served, ...]:
        """The signature."""
        return self._inputs

    @torch.jit.export
    def update(self, delta: dict[str, Tensor]) -> None:
        """Goes on to a later state, in place, as `update.delta` wrote it; refuses a delta that is half written or of
        another model and then changes nothing. No request may be under way."""
        check(self.state, self.version, delta)
        apply(self.state, delta)
        self.version.copy_(delta["to"])

    def forward(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """raw: the inputs by name -> task: what its head gives, float32 [C] (of the two-tower model, inner products).
        Raises an error that names the input at fault."""
        given = self.core(self.request_check(raw))
        return {task: column for task, column in zip(self.tasks, given.unbind(1))}  # noqa: B905
