"""MetaCF in a model: while a user has few events, the ID embedding is the one adapted to them (modules/metacf.py).

A sample's history is the support, as of the time of its event; the sample itself is the query, and the model's loss on it trains
the learner of the initial embedding together with the rest. B batch, L sequence length.
"""

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from coldrank.models.adapted_users import AdaptedUsers, width
from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.modules import MetaCF
from coldrank.modules.gate import separate_draws
from coldrank.train.config import RunConfig
from coldrank.train.errors import UserError
from coldrank.train.hooks.hook import Hook
from coldrank.train.task import RankingTask


class MetaCFHook(Hook):
    """Adapts the embeddings of new users, in training and evaluation. users: what serving takes over."""

    def __init__(self, config: RunConfig, features: FeatureSet) -> None:
        super().__init__()
        c = config.metacf
        try:
            dim = width(features, c.user, c.items)
            with separate_draws():  # so that the model begins as it does without the hook
                metacf = MetaCF(
                    dim, c.learner, c.hidden, c.steps, c.rate, learn_rates=c.learn_rates, first_order=c.first_order
                )
            self.users = AdaptedUsers(
                features,
                metacf,
                user=c.user,
                items=c.items,
                signal=c.signal,
                max_views=c.max_views,
                fraction=c.fraction,
            )
        except ValueError as error:
            raise UserError(f"{config.name}: metacf: {error}") from None

    def embed(self, task: RankingTask, batch: Batch, embedded: Embedded) -> Embedded:
        users = self.users
        keys = task.embeddings.sequence_keys[users.signals]
        codes = sequence_values(batch.sparse, task.embeddings.key_index[keys[0]], len(keys))
        views = batch.keys["user_views"].to(codes.device, non_blocking=True)
        static = users(embedded.static, embedded.sequences[users.sequence], codes, views)
        return Embedded(static, embedded.sequences, embedded.pc)


def sequence_values(sparse: KeyedJaggedTensor, first: int, length: int) -> Tensor:
    """What a batch has at the keys `first` to `first + length - 1`, bags of at most one value: int64 [B, L], -1 for none."""
    batch = sparse.stride()
    offsets = sparse.offsets()[first * batch : (first + length) * batch + 1]
    there = offsets[1:] > offsets[:-1]
    values = torch.cat([sparse.values(), offsets.new_zeros(1)])  # so that an empty batch can be read
    return torch.where(there, values[offsets[:-1]], -1).view(length, batch).T
