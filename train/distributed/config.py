"""How the tables are spread over the ranks: the choices of the config."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from coldrank.data.errors import UserError, meant
from coldrank.models.features import Table

Sequences = Literal["auto", "bags", "unpooled"]
Choice = Literal["auto", "table_wise", "row_wise", "column_wise", "data_parallel", "table_row_wise", "grid"]
Memory = Literal["auto", "hbm", "uvm_caching", "uvm", "ssd"]


@dataclass(kw_only=True, slots=True)
class ShardingConfig:
    """Where the tables lie. All choices but column_wise and grid train alike, to rounding: with these, row-wise Adagrad
    has one sum per row and column shard. table_row_wise and grid need several hosts; on one, they are row_wise and
    column_wise."""

    default: Choice = "auto"
    """The choice for all tables that `tables` does not name. auto: on one rank table_wise; on several, tables of up to
    `replicate_up_to` bytes are data_parallel (not with Adam or `optim.tables.clip_value`), and TorchRec's planner
    chooses for each of the others between table_wise, row_wise and, with several hosts, table_row_wise."""
    tables: dict[str, Choice] = field(default_factory=dict)
    """Table -> choice."""
    sequences: Sequences = "auto"
    """How tables that a sequence reads are looked up. bags: every position of a history is a bag of its own. unpooled:
    each row that a batch holds is looked up once, for candidates and histories together; such a table lies whole,
    row_wise or column_wise, in place of table_row_wise and grid, and a data_parallel one, of which nothing travels, is
    read in bags. auto: bags on one rank without a GPU; else what the planner expects to be faster."""
    replicate_up_to: NonNegativeInt = 1 << 20
    """Bytes up to which a table is small: auto copies it to every rank, and `default_memory` leaves it in the GPU's
    memory."""
    column_width: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    """Least width of a column shard, a multiple of 4."""
    id_maps: Literal["sharded", "whole"] = "sharded"
    """Where the ids of growing and managed tables lie, on several ranks. sharded: with the rank that a hash of the id
    names, or the block of a managed table; ids and rows are exchanged once a step. whole: on every rank."""
    memory_margin: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of a rank's memory, and of the host's and the SSD's beside it, that a plan leaves free."""
    default_memory: Memory = "auto"
    """What holds the rows of tables that `memory` does not name, of ranks with GPUs. hbm: the GPU's memory.
    uvm_caching: the host's, with a cache in the GPU's. uvm: the host's alone. ssd: an SSD, with a cache in the GPU's;
    can be planned, not trained. auto: the first of these that the planner finds room for. Tables of up to
    `replicate_up_to` bytes stay in the GPU's memory."""
    memory: dict[str, Memory] = field(default_factory=dict)
    """Table -> what holds its rows."""
    cache_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of a table's rows that a cache in the GPU's memory has room for."""
    replicas: PositiveInt = 1
    """How often the sharded tables are there: the ranks make so many groups, each with all tables, trained on its share
    of a batch. Needs GPUs."""
    sync_every: PositiveInt = 1
    """Steps after which the replicas' tables, and the optimizer's sums, are averaged."""

    def choice(self, table: str) -> Choice:
        """The choice for a table."""
        return self.tables.get(table, self.default)

    def is_small(self, table: Table) -> bool:
        """Whether a table is of up to `replicate_up_to` bytes."""
        return table.weight_bytes <= self.replicate_up_to

    def memory_of(self, table: Table) -> Memory:
        """What holds a table's rows."""
        default = "hbm" if self.default_memory != "auto" and self.is_small(table) else self.default_memory
        return self.memory.get(table.name, default)

    def memory_field(self, table: Table) -> str:
        """The field that says it, and its value."""
        name = f"memory.{table.name}" if table.name in self.memory else "default_memory"
        return f"sharding.{name}={self.memory.get(table.name, self.default_memory)}"

    def check(self, arm: str, tables: Sequence[Table]) -> None:
        """Raises UserError, naming the arm, the field, the value and what would be right."""
        names = [t.name for t in tables]
        for field_name, named in (("tables", self.tables), ("memory", self.memory)):
            for name in named:
                if name not in names:
                    raise UserError(f"{arm}: sharding.{field_name}.{name}: no such table; {meant(name, names)}")
        for t in tables:
            if self.tables.get(t.name) in ("column_wise", "grid") and not self._widths(t.dim):
                raise UserError(
                    f"{arm}: sharding.tables.{t.name}={self.tables[t.name]}: dim {t.dim} has no equal parts of at "
                    f"least sharding.column_width={self.column_width}; set a smaller column_width, or row_wise"
                )

    def _widths(self, dim: int) -> list[int]:
        return [w for w in range(self.column_width, dim, 4) if dim % w == 0]
