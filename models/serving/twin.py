"""The model as it is served: raw values of a request in, a probability per task and candidate out; needs torch alone."""

import torch
from torch import Tensor, nn

from coldrank.models.encode import FeatureEncoder
from coldrank.models.ranker import Ranker
from coldrank.models.serving.inputs import Door, Served, served_inputs
from coldrank.models.serving.ranker import ServedRanker
from coldrank.models.serving.stage import Stage
from coldrank.models.serving.tables import Precision
from coldrank.models.serving.update import apply, check, digest
from coldrank.models.serving.whole import ServedWhole


class Twin(nn.Module):
    """The serving twin of a trained model. Scriptable; a call changes nothing, so any number of threads may call.

    version: int64 [], digest of the state.
    """

    state: dict[str, Tensor]

    def __init__(
        self,
        encoder: FeatureEncoder,
        tables: dict[str, Tensor],
        ranker: nn.Module,
        tasks: list[str],
        candidate: set[str],
        precision: Precision = "float32",
    ) -> None:
        """tables: name -> float32 [rows, D]. candidate: raw columns that differ between the candidates of a request."""
        super().__init__()
        self.tasks = tasks
        inputs = served_inputs(encoder.features, candidate)
        self.door = Door(inputs)
        self.stage = Stage(encoder, tables, candidate, precision)
        features, order = encoder.features, self.stage.order
        if isinstance(ranker, Ranker):
            self.ranker: nn.Module = ServedRanker(ranker, features, order)
        else:
            self.ranker = ServedWhole(ranker, features, order)
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
        """Goes on to a later state, in place, as `update.delta` wrote it; refuses a delta that is half written or of another
        model and then changes nothing. No request may be under way."""
        check(self.state, self.version, delta)
        apply(self.state, delta)
        self.version.copy_(delta["to"])

    def forward(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """raw: the inputs by name -> task: probabilities float32 [C]. Raises an error that names the input at fault."""
        requests, candidates = self.door(raw)
        probabilities = torch.sigmoid(self.ranker(self.stage(raw, requests, candidates)))
        return {task: column for task, column in zip(self.tasks, probabilities.unbind(1))}  # noqa: B905
