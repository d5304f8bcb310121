"""How the tables are spread over the ranks: the choices of the config."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from coldrank.data.errors import UserError
from coldrank.models.features import Table

Choice = Literal["auto", "table_wise", "row_wise", "column_wise", "data_parallel", "table_row_wise", "grid"]


@dataclass(kw_only=True, slots=True)
class ShardingConfig:
    """Where the tables lie. tables: table -> choice; default: the choice for all others.

    auto: on one rank table_wise; on several, tables of up to `replicate_up_to` bytes are data_parallel (not with Adam
    or `optim.sparse_clip`), and TorchRec's planner chooses for each of the others between table_wise, row_wise and,
    with several hosts, table_row_wise. These four train alike, to rounding. column_wise and grid do not: row-wise
    Adagrad then has one sum per row and column shard. table_row_wise (the rows over the ranks of one host) and grid
    (so, with the columns over hosts) need several hosts; on one, they are row_wise and column_wise. column_width: least
    width of a column shard, a multiple of 4. memory_margin: share of a rank's memory that a plan leaves free.
    """

    default: Choice = "auto"
    tables: dict[str, Choice] = field(default_factory=dict)
    replicate_up_to: int = 1 << 20
    column_width: int = 32
    memory_margin: float = 0.15

    def choice(self, table: str) -> Choice:
        """The choice for a table."""
        return self.tables.get(table, self.default)

    def check(self, arm: str, tables: Sequence[Table]) -> None:
        """Raises UserError, naming the arm, the field, the value and what would be right."""
        names = [t.name for t in tables]
        for name in self.tables:
            if name not in names:
                raise UserError(f"{arm}: sharding.tables.{name}: no such table; there are {', '.join(names)}")
        if self.replicate_up_to < 0:
            raise UserError(f"{arm}: sharding.replicate_up_to={self.replicate_up_to}: must not be below 0")
        if self.column_width < 4 or self.column_width % 4:
            raise UserError(f"{arm}: sharding.column_width={self.column_width}: must be a multiple of 4 above 0")
        if not 0 <= self.memory_margin < 1:
            raise UserError(f"{arm}: sharding.memory_margin={self.memory_margin}: must be in [0, 1)")
        for t in tables:
            if self.tables.get(t.name) in ("column_wise", "grid") and not self._widths(t.dim):
                raise UserError(
                    f"{arm}: sharding.tables.{t.name}={self.tables[t.name]}: dim {t.dim} has no equal parts of "
                    f"at least "
                    f"sharding.column_width={self.column_width}; set a smaller column_width, or row_wise"
                )

    def _widths(self, dim: int) -> list[int]:
        return [w for w in range(self.column_width, dim, 4) if dim % w == 0]
