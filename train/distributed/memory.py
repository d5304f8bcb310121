"""What may hold the rows of a table beside the memory of the GPUs, how much of it each way takes, and what cannot be
there."""

import math
from collections.abc import Collection
from typing import NamedTuple

from coldrank.models.features import Table
from coldrank.train.distributed.config import Memory
from coldrank.train.sections import TablesConfig

FLOAT_BYTES = 4
# By what holds the rows, the fastest first: TorchRec's kernels.
KERNELS: dict[Memory, str] = {
    "hbm": "fused",
    "uvm_caching": "fused_uvm_caching",
    "uvm": "fused_uvm",
    "ssd": "key_value",
}
MEMORY = {kernel: memory for memory, kernel in KERNELS.items()}
CACHED = ("fused_uvm_caching", "key_value")
# A cache's own memory, as TorchRec counts it: a place for every row, an id and a time for every row in the cache.
_OF_ROW, _OF_CACHED_ROW = 4, 16


def size(amount: float) -> str:
    """Bytes with a unit: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


class Stored(NamedTuple):
    """Bytes of a part of a table, by what holds them. weights, state: in the rank's own memory, the GPU's where there
    is one; of a cached table the weights are its cache. host: in the host's memory beside GPUs."""

    weights: int
    state: int
    host: int = 0
    ssd: int = 0


def state_bytes(kind: str, rows: int, columns: int) -> int:
    """Bytes of the optimizer's state for a part of a table."""
    of_a_row = {"rowwise_adagrad": 1, "adagrad": columns, "sgd": 0, "adam": 2 * columns}
    return rows * of_a_row[kind] * FLOAT_BYTES


def stored(kernel: str, kind: str, rows: int, columns: int, cache_share: float) -> Stored:
    """Where a part of a table lies. kind: of the optimizer. Of a table in the host's memory FBGEMM keeps a sum per row
    in the GPU's, and states as wide as the rows beside these."""
    weights, state = rows * columns * FLOAT_BYTES, state_bytes(kind, rows, columns)
    if kernel not in KERNELS.values() or kernel == KERNELS["hbm"]:
        return Stored(weights, state)
    of_rows = kind in ("rowwise_adagrad", "sgd")
    here, beside = (state, 0) if of_rows else (0, state)
    cache = math.ceil(weights * cache_share + rows * (_OF_ROW + _OF_CACHED_ROW * cache_share))
    if kernel == KERNELS["ssd"]:
        return Stored(cache, here, ssd=weights + beside)
    return Stored(cache if kernel in CACHED else 0, here, host=weights + beside)


def bar(memory: Memory, table: Table, optimizer: TablesConfig, written: Collection[str]) -> str:
    """What keeps a table's rows from being held so, in words; '' if nothing does. written: tables whose rows a hook
    reads or writes beside the lookup."""
    if KERNELS.get(memory) not in CACHED:
        return ""
    # What is written into a table that has a cache is not seen while the cache holds the row.
    if optimizer.weight_decay:
        return f"optim.tables.weight_decay={optimizer.weight_decay}, which does not reach rows in a cache; must be 0"
    if table.mapping == "managed":
        return "mapping='managed', whose rows are made new where an id loses them, but for those in a cache"
    if table.name in written:
        return "a hook that reads and writes its rows, but for those in a cache"
    if memory == "ssd" and optimizer.kind != "rowwise_adagrad":
        return f"optim.tables.kind={optimizer.kind!r}; FBGEMM has 'rowwise_adagrad' there"
    return ""
