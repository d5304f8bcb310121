"""What `prepare --append` needs of a prepared folder: that the new events go with it, which are late, and its samples
where they change their split."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data import parquet
from coldrank.data.agree import check_natures
from coldrank.data.errors import UserError
from coldrank.data.events import local_day, plan_columns
from coldrank.data.location import is_url, named
from coldrank.data.log import SAMPLED, EventLog, LogFile, LogSpec
from coldrank.data.negatives.alone import events_alone
from coldrank.data.output import real_path
from coldrank.data.partitions import Partition, places
from coldrank.data.read_manifest import read_manifest
from coldrank.data.split import SPLITS, Split, TimeSplit
from coldrank.data.spool import Spool
from coldrank.data.state.ledger import Ledger, read_ledger
from coldrank.data.weighted import WEIGHTED
from coldrank.data.writers import Writers

Json = dict[str, Any]
_TYPES: dict[str, pl.DataType] = {
    str(k): k
    for k in (pl.Int8(), pl.Int32(), pl.Int64(), pl.Float32(), pl.List(pl.Int64), pl.List(pl.Float32), WEIGHTED)
}
# Arguments that may differ from one call to the next: where the log lies, what is done, and what does it.
_FREE = ("data", "spec", "append", "engine")
# The plan of the column of days where the log has none of its own.
_NO_DAY = f"day of {pl.lit(None, pl.Date)}, ms"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A prepared folder that is added to."""

    data: Path
    """The folder, without links."""
    manifest: Json
    """Its manifest."""
    ledger: Ledger
    """What its state is of."""

    @classmethod
    def open(cls, data: Path) -> "Prepared":
        """Raises UserError if there is none, if it was prepared without a state, and for an object store."""
        if is_url(data):
            raise UserError(f"{data}: a state is mapped from a disk; copy the folder to this machine first")
        data = real_path(data)
        manifest = read_manifest(data)
        return cls(data=data, manifest=manifest, ledger=read_ledger(data, manifest))

    def partitions(self) -> list[Partition]:
        """Its files of samples."""
        names = Partition.__dataclass_fields__
        return [Partition(**{n: p[n] for n in names}) for p in self.manifest["partitions"]]

    def schema(self) -> pa.Schema:
        """The columns of its samples."""
        stored = parquet.schema(self.data / self.manifest["partitions"][0]["path"])
        # Parquet has a name of its own for what a list holds.
        kinds = [pa.list_(f.type.value_type) if pa.types.is_list(f.type) else f.type for f in stored]
        return pa.schema([pa.field(f.name, kind, f.nullable) for f, kind in zip(stored, kinds, strict=True)])


def origin(log: EventLog, arguments: Json) -> Json:
    """What samples are made by, as far as it is known before the log is read."""
    plan = {
        c.name: ", ".join(
            filter(None, (f"{c.kind} of {c.source}", c.unit, c.layout, c.zone, "or anonymous" if c.may_lack else None))
        )
        for c in plan_columns(log)
    }
    spec = log.spec
    groups = {g.name: f"prior {g.parent}, smoothing {g.smoothing}, refreshed {g.refresh_h}" for g in spec.all_groups()}
    histories = {n: f"{h.length} where {h.where}: {', '.join(h.columns)}" for n, h in spec.histories.items()}
    delays = {s: f"{after} s" for s, after in spec.known_after.items()} | {"refresh_h": f"{spec.refresh_h} h"}
    calendar = f"{spec.period}s, {spec.time_zone or f'{spec.utc_offset_h} hours from UTC'}"
    given = {n: v for n, v in arguments.items() if n not in _FREE}
    negatives = {} if spec.negatives is None else {n: str(v) for n, v in asdict(spec.negatives).items()}
    made_by = {"columns": plan, "groups": groups, "histories": histories, "delays": delays, "negatives": negatives}
    return {"source": log.source, "given": given, "calendar": calendar, **made_by}


def check_same(base: Prepared, made_by: Json) -> None:
    """Raises UserError for options or a spec that are not those of the prepared folder, naming the first."""
    before = base.ledger.origin
    anew = "prepare the data anew"
    if made_by["source"] != before["source"]:
        raise UserError(f"--append: {base.data} holds a log of {before['source']}, not of {made_by['source']}")
    given, old = made_by["given"], before["given"]
    for name in sorted(given.keys() | old.keys()):
        if given.get(name) != old.get(name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag}: {given.get(name)}, but {base.data} was prepared with {old.get(name)}; {anew}")
    words = {"columns": "column", "groups": "group", "histories": "history", "delays": "delay of"}
    for what, word in (words | {"negatives": "negatives"}).items():
        now, then = made_by[what], before.get(what, {})  # folders of before have no negatives
        for name in [*now, *then]:
            if now.get(name) != then.get(name):
                text = f"{now.get(name)}, but {then.get(name)} when {base.data} was prepared"
                raise UserError(f"spec: {word} {name!r}: {text}; {anew}")
    if made_by["calendar"] != before["calendar"]:
        raise UserError(f"spec: {made_by['calendar']}, but {before['calendar']} when {base.data} was prepared; {anew}")
    if made_by["calendar"].startswith("months") and before["columns"]["day:"] != _NO_DAY:
        raise UserError("--append: not with period='month' and a day of the log's own, which samples do not hold")
    if given.get("split") == "users":
        raise UserError("--append: not with --split users: who is held out depends on all users")
    if given.get("periods"):
        raise UserError("--append: not with --periods: where they end depends on all events")


def same_types(spool: Spool, before: Json) -> None:
    """Gives new events the types of those before. Raises UserError where they do not go together."""
    for column in spool.plan:
        seen = spool.agreement.natures[column.name].items()
        if column.kind in ("id", "code", "feature"):
            check_natures(column, [("what was prepared before", set(before["natures"][column.name])), *seen])
        kind, old = spool.kinds[column.name], _TYPES[before["types"][column.name]]
        if kind == old or not spool.agreement.kinds[column.name]:
            spool.kinds[column.name] = old
        elif (kind, old) == (pl.Int64(), pl.Float32()):
            spool.agreement.check_exact(column.name)
            spool.kinds[column.name] = old
        else:
            raise UserError(f"{column.role()}: {kind}, but {old} in what was prepared before; prepare the data anew")


def digests(files: Sequence[LogFile]) -> list[str]:
    """What tells a file from others: its content, and the columns that its folders name."""
    found = []
    for file in files:
        digest = hashlib.blake2b(digest_size=16)
        digest.update("/".join(p for p in file.path.parent.parts if "=" in p).encode())
        with named(file.path), file.path.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
        found.append(digest.hexdigest())
    return found


def late_events(spool: Spool, base: Prepared) -> int:
    """How many rows that are not later than what was prepared are not among its samples."""
    names = ["time", "user_id", "item_id"]
    sampled = [SAMPLED] if base.manifest.get("negatives") else []
    found = 0
    for partition in base.partitions() if spool.others else []:
        rows = spool.others_between(partition.time_min, partition.time_max + 1)
        if len(rows):
            samples = events_alone(parquet.read(base.data / partition.path, names + sampled))
            found += len(rows.join(samples, on=names, how="semi"))
    return max(0, spool.others - found)


def replay(base: Prepared, spec: LogSpec, rule: Split, grown: set[str], writers: Writers) -> None:
    """Takes the samples of before: as they lie, or written anew where their split changes or their period goes on.

    grown: periods with new events.
    """
    assert isinstance(rule, TimeSplit)  # `check_same` refuses others
    by_period: dict[str, list[Partition]] = {}
    for partition in sorted(base.partitions(), key=lambda p: p.time_min):
        by_period.setdefault(partition.period, []).append(partition)
    for period, parts in by_period.items():
        # Within a period a split never falls in time: the first and the last row tell of all between.
        splits = [_splits(p, spec, rule) for p in parts]
        if period not in grown and all(s == {p.split} for s, p in zip(splits, parts, strict=True)):
            for partition in parts:
                writers.keep(partition, base.ledger.labels[partition.path])
        elif period not in grown and len(parts) == 1 and len(splits[0]) == 1:
            _link(base, parts[0], splits[0].pop(), writers)
        else:
            for partition in parts:
                _rewrite(base, partition, spec, rule, writers)


def _days(partition: Partition, time: NDArray[np.int64], spec: LogSpec) -> NDArray[np.integer[Any]]:
    """The days of samples of a partition, in the log's own calendar. time: int64 [N]."""
    if spec.period == "day":
        day = date.fromisoformat(partition.period).toordinal() - date(1970, 1, 1).toordinal()
        return np.full(len(time), day)
    return pl.select(local_day(pl.lit(pl.Series(time)), spec)).to_series().to_numpy()


def _splits(partition: Partition, spec: LogSpec, rule: TimeSplit) -> set[str]:
    ends = np.array([partition.time_min, partition.time_max])
    return {SPLITS[n] for n in rule.at(ends, _days(partition, ends, spec))}


def _link(base: Prepared, partition: Partition, split: str, writers: Writers) -> None:
    """Gives a file its place in another split."""
    path = Path("samples", f"split={split}", f"period={partition.period}", "part-0.parquet")
    (writers.folder / path).parent.mkdir(parents=True)
    try:
        os.link(base.data / partition.path, writers.folder / path)
    except OSError:
        shutil.copyfile(base.data / partition.path, writers.folder / path)
    writers.keep(replace(partition, path=str(path), split=split), base.ledger.labels[partition.path])


def _rewrite(base: Prepared, partition: Partition, spec: LogSpec, rule: TimeSplit, writers: Writers) -> None:
    schema = base.schema()
    with parquet.opened(base.data / partition.path) as file:
        for index in range(file.num_row_groups):
            table = pa.Table.from_batches(file.read_row_group(index).cast(schema).to_batches(), schema)
            time = table["time"].to_numpy()
            split = rule.at(time, _days(partition, time, spec))
            for place, rows in places(split, [partition.period], np.zeros(len(time), np.int64)):
                writers.add(place, table.take(pa.array(rows)))
