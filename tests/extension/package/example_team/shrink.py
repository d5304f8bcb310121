"""A hook: the ID embedding of a user with few events is drawn to the mean of all users, the more the fewer they are."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.train.hooks.hook import Hook, HookModule, RunView, Settings


@dataclass(kw_only=True, slots=True)
class Shrink(Hook):
    """e_u <- s e_u + (1 - s) m, where s = n / (n + k): n events of the user so far, m the moving mean of users'
    embeddings."""

    reads: ClassVar[tuple[str, ...]] = ("user_views",)
    user: str = "user_id"
    """The feature of the user's id."""
    k: float = 5.0
    """Events at which the mean and the user's own weigh alike, as it begins: it is trained."""
    decay: float = 0.9
    """Of the moving mean, per step."""

    @property
    def own_lr_scale(self) -> float | None:
        return 0.5

    def build(self, config: Settings, features: FeatureSet) -> HookModule:
        names = [f.name for f in features.sparse if f.role not in ("sequence", "pc")]
        if self.user not in names:
            raise ValueError(f"user={self.user!r}: there are {', '.join(names)}")
        return ShrinkModule(self, features.dim(next(f for f in features.sparse if f.name == self.user)))


class ShrinkModule(HookModule):
    """mean: [D], in every checkpoint. log_k: a parameter, trained with the rest."""

    mean: Tensor

    def __init__(self, config: Shrink, dim: int) -> None:
        super().__init__()
        self.config = config
        self.log_k = nn.Parameter(torch.tensor(config.k).log())
        self.register_buffer("mean", torch.zeros(dim))
        self._seen: Tensor | None = None

    def embed(self, batch: Batch, embedded: Embedded) -> Embedded:
        users = embedded[self.config.user]
        views = batch.keys["user_views"].to(users.device)
        share = (views / (views + self.log_k.exp())).unsqueeze(1)
        if self.training and torch.is_grad_enabled():
            self._seen = users.detach()
        return embedded | {self.config.user: torch.lerp(self.mean.expand_as(users), users, share)}

    @torch.no_grad()
    def after_step(self, run: RunView) -> None:
        if self._seen is not None and len(self._seen):
            self.mean.lerp_(self._seen.mean(0), 1 - self.config.decay)
        self._seen = None
