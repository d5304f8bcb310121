"""What a declaration of a table or feature cannot be, by itself."""

from coldrank.models.feature import COUNTERS, HASHES, Feature, Table


def unique(what: str, names: list[str]) -> None:
    """Raises ValueError for a name that stands twice."""
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"{what} declared twice: {', '.join(twice)}")


def check_cross(f: Feature, features: dict[str, Feature]) -> None:
    """Raises ValueError for a feature that cannot be crossed. features: all, by name."""
    for name in f.of:
        part = features.get(name)
        if part is None:
            raise ValueError(f"feature {f.name!r}: of: {name!r} is no feature; declare it, or name another")
        if part.many or part.role in ("sequence", "pc") or part.kind not in ("id", "bucket"):
            of_list = "many=True" if part.many else f"role={part.role!r}" if part.kind in ("id", "bucket") else ""
            what = of_list or f"kind={part.kind!r}"
            raise ValueError(f"feature {f.name!r}: of: {name!r} has {what}; a cross is of single ids and buckets")


def check_table(t: Table) -> None:
    """Raises ValueError that names the table and the field."""
    rules = [
        (t.mapping == "multi_hash" and t.hashes < 2, f"hashes={t.hashes}: must be 2 or more; one is mapping 'hash'"),
        (t.mapping != "multi_hash" and t.hashes != HASHES, f"hashes={t.hashes} is for mapping 'multi_hash'"),
        (t.is_dynamic and t.rows < 2, f"rows={t.rows}: row 0 is for unknown ids, so 2 or more are needed"),
        (t.min_count < 1, f"min_count={t.min_count}: must be 1 or more"),
        (
            t.min_count > 1 and t.mapping != "vocabulary" and not t.is_dynamic,
            f"min_count={t.min_count} is for mappings 'vocabulary', 'growing' and 'managed', not {t.mapping!r}",
        ),
        (
            t.admission != "exact" and not (t.is_dynamic and t.min_count > 1),
            f"admission={t.admission!r} is for mappings 'growing' and 'managed' with min_count above 1",
        ),
        (
            t.counters != COUNTERS and t.admission != "sketch",
            f"counters={t.counters} is for admission 'sketch'",
        ),
        (
            t.admission == "sketch" and (t.counters < 4096 or t.counters % 4096 > 0),
            f"counters={t.counters}: must be a multiple of 4,096",
        ),
        (t.admission == "sketch" and t.min_count > 255, f"min_count={t.min_count}: a sketch counts up to 255"),
        (t.mapping != "managed" and t.eviction != "lru", f"eviction={t.eviction!r} is for mapping 'managed'"),
        (t.mapping != "managed" and t.blocks != 1, f"blocks={t.blocks} is for mapping 'managed'"),
        (
            not 1 <= t.blocks <= min(1024, max(1, t.rows - 1)),
            f"blocks={t.blocks}: must be 1 to 1024 and below rows={t.rows}",
        ),
    ]
    for broken, message in rules:
        if broken:
            raise ValueError(f"table {t.name!r}: {message}")


def check_feature(f: Feature, tables: dict[str, Table]) -> None:
    """Raises ValueError that names the feature and the field."""
    rules = [
        (not f.name.isidentifier(), "the name must be letters, digits and _, it names tables and serving inputs"),
        (f.kind == "id" and f.table not in tables, f"table={f.table!r} is not declared; have {sorted(tables)}"),
        (
            f.salted and (f.table not in tables or tables[f.table].mapping not in ("hash", "multi_hash")),
            "salted is for ids of a hashed table",
        ),
        (f.kind != "id" and f.table != "", f"table={f.table!r}: only kind 'id' names a table"),
        (
            f.kind in ("bucket", "signals", "cross") and f.dim < 1,
            f"dim={f.dim}: a {f.kind} feature needs the width of its table",
        ),
        (f.kind == "bucket" and not f.edges and f.buckets < 2, "a bucket feature needs edges, or buckets >= 2"),
        (list(f.edges) != sorted(set(f.edges)), f"edges={f.edges}: must ascend"),
        (f.kind == "signals" and (f.role != "sequence" or not f.columns), "signals need role 'sequence' and columns"),
        (f.kind != "signals" and bool(f.columns), "columns are for kind 'signals'; others read one column"),
        (
            f.role == "sequence" and (f.length < 1 or not f.sequence),
            "a sequence feature needs length >= 1 and sequence",
        ),
        (f.role == "sequence" and f.kind == "vector", "kind='vector': a sequence holds no vectors"),
        (f.role != "sequence" and f.sequence != "", "sequence is for role 'sequence'"),
        (
            f.role != "sequence" and f.kind != "vector" and f.length != 0,
            "length is for role 'sequence' and for kind 'vector'",
        ),
        (
            f.kind == "vector" and (f.length < 1 or f.dim < 1),
            f"length={f.length}, dim={f.dim}: a vector needs both: its numbers, and the width that it is mapped to",
        ),
        (not f.unit and f.kind != "vector", "unit is for kind 'vector'"),
        (f.kind == "cross" and len(set(f.of)) < 2, f"of={list(f.of)}: a cross is of two or more features"),
        (f.kind == "cross" and f.rows < 1, f"rows={f.rows}: a cross needs the rows of its table"),
        (f.kind == "cross" and f.role == "sequence", "kind='cross': a sequence holds no crosses"),
        (f.kind != "cross" and bool(f.of or f.rows), "of and rows are for kind 'cross'"),
        (f.weights != "" and not f.many, f"weights={f.weights!r}: are for ids with many=True"),
        (f.many and (f.kind != "id" or f.role in ("sequence", "pc")), "many is for ids outside sequences"),
        (
            f.role == "pc" and f.kind not in ("id", "bucket"),
            "a personalization code is read from a table: use kind 'bucket' or 'id'",
        ),
    ]
    for broken, message in rules:
        if broken:
            raise ValueError(f"feature {f.name!r}: {message}")
