"""What a model reads of features without a table: vectors, through a linear map, and the numbers of sequences.

B batch, L sequence length, D width.
"""

from torch import Tensor, nn

from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet


class Projected(nn.Module):
    """`Batch.floats` -> what stands beside the rows of tables, by the feature's name.

    A vector x becomes W x + b, [B, D]; a missing one m + b, where m is learnt: the last column of the map's weight. The
    number at a position of a sequence stays as it is, [B, L, 1]: what reads a sequence begins with a linear map.
    """

    def __init__(self, features: FeatureSet) -> None:
        super().__init__()
        vectors = [f for f in features.floats if f.kind == "vector"]
        self.vectors = nn.ModuleDict({f.name: nn.Linear(f.length + 1, f.dim) for f in vectors})
        self.spans = features.float_spans
        self.names = [f.name for f in features.embedded]

    def forward(self, embedded: Embedded, floats: Tensor | None) -> Embedded:
        """embedded: of the tables. floats: float32 [B, W]. -> of all features, in their order."""
        if floats is None:
            return embedded
        parts = {name: floats[:, span] for name, span in self.spans.items()}
        maps = self.vectors
        all_of = embedded | {n: maps[n](x) if n in maps else x.unsqueeze(2) for n, x in parts.items()}
        return {name: all_of[name] for name in self.names}
