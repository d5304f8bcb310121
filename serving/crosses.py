"""Crosses of a request: the features' values, of the request or of the candidates, hashed together.

Q requests, C candidates, n rows of a side (Q or C), F bucket features of a side.
"""

from torch import Tensor, nn

from coldrank.models.encode import crossed, salt
from coldrank.models.features import Feature, FeatureSet
from coldrank.serving.pack import Pack, Packed, spread


class Cross(nn.Module):
    """Rows of a cross, int64 [1, n], from its table's `start` on. Scriptable.

    Of each part: whether it is of candidates; whether it is a bucket; where it stands among the integers, or the
    buckets, of its side; and where the bucket's table starts.
    """

    places: list[tuple[int, bool, int, int]]

    def __init__(
        self, f: Feature, features: FeatureSet, pack: Pack, sides: list[list[Feature]], starts: dict[str, int]
    ) -> None:
        """sides: the features of the request and of the candidates. starts: table -> its first row."""
        super().__init__()
        self.places = []
        for part in features.parts(f):
            side = next(i for i, fs in enumerate(sides) if part in fs)
            bucket = part.kind == "bucket"
            names = [b.name for b in sides[side] if b.kind == "bucket"] if bucket else pack.scalars[2 * side]
            place = names.index(part.name if bucket else part.raw_columns[0])
            self.places.append((side, bucket, place, starts[part.name] if bucket else 0))
        self.of_candidate = any(side == 1 for side, _, _, _ in self.places)
        self.salt, self.rows, self.start = salt(f), f.rows, starts[f.name]

    def forward(self, packed: Packed, buckets: list[Tensor]) -> Tensor:
        """buckets: rows of the buckets of each side, int64 [F, n]."""
        rows = packed.integers[int(self.of_candidate)].shape[1]
        values: list[Tensor] = []
        for side, bucket, place, start in self.places:
            value = buckets[side][place] - start if bucket else packed.integers[side][place]
            values.append(spread(value, rows).expand(rows))
        return (crossed(values, self.salt, self.rows) + self.start).unsqueeze(0)
