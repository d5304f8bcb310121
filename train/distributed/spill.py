"""What holds each table where the GPUs' memory is too small for all, in a plan that spreads the rows over all ranks."""

from torchrec.distributed.planner.types import Storage

from coldrank.train.distributed.memory import MEMORY
from coldrank.train.distributed.request import PlanRequest
from coldrank.train.distributed.space import Room, Space, amounts, evenly


def spilled(request: PlanRequest) -> PlanRequest | None:
    """The request with one choice of what holds each table: the fastest that it may have, but that while the GPUs'
    memory is too small, the table that frees most of it goes to the next memory that has room. None where that is not
    enough; else an even plan may still fail, where tables are not row-wise."""
    allowed = evenly(request.choices())
    space = Space(request, allowed)
    rooms = space.rooms()
    everywhere = {table for table in rooms if allowed[table] == ["row_wise"]}
    held = dict.fromkeys(rooms, 0)

    def missing(held: dict[str, int]) -> Storage:
        return _missing(space.free, {table: rooms[table][n] for table, n in held.items()}, everywhere)

    while amounts(short := missing(held)) != (0, 0, 0):
        if short.ddr or short.ssd:
            return None
        freed: dict[str, tuple[int, int]] = {}
        for table, n in held.items():
            for further in range(n + 1, len(rooms[table])):
                saving = rooms[table][n].most.hbm - rooms[table][further].most.hbm
                after = missing({**held, table: further})
                if saving > 0 and not after.ddr and not after.ssd:
                    freed[table] = saving, further
                    break
        if not freed:
            return None
        largest = max(freed, key=lambda table: freed[table][0])
        held[largest] = freed[largest][1]
    chosen = {table: MEMORY[rooms[table][n].kernel] for table, n in held.items()}
    return request.held({o.name: MEMORY["fused"] for o in space.copies} | chosen)


def _missing(free: Storage, rooms: dict[str, Room], everywhere: set[str]) -> Storage:
    """Of each memory, what the fullest rank has too little: of tables that lie on every rank it has the largest shard,
    of the others their share, and at least the largest of them."""
    short = []
    for n, room in enumerate(amounts(free)):
        of_all = sum(amounts(r.most)[n] for t, r in rooms.items() if t in everywhere)
        others = [r for t, r in rooms.items() if t not in everywhere]
        of_some = max(sum(amounts(r.mean)[n] for r in others), max((amounts(r.most)[n] for r in others), default=0))
        short.append(max(0, of_all + of_some - room))
    return Storage(*short)
