"""Audit: the settings of an arm against the data: sizes of tables, bucket edges, transforms, length of the history."""

import numpy as np
import polars as pl

from coldrank.data import parquet
from coldrank.data.arm import ArmSettings
from coldrank.data.audit.audit import LIMITS, Finding, Severity, share
from coldrank.data.audit.scan import Scan
from coldrank.models.features import Feature, FeatureSet, Table


def check_arm(scan: Scan, arm: ArmSettings) -> list[Finding]:
    """The findings on the arm's tables and features, on the splits that it trains on."""
    features = arm.features
    findings = [f for t in features.tables if t.mapping != "identity" for f in _table(scan, features, t)]
    sample = scan.sampled(*scan.fit)
    for feature in features.features:
        if feature.kind == "bucket" and feature.edges:
            findings += _edges(feature, sample)
        elif feature.kind == "number" and feature.transform != "none":
            findings += _transform(feature, scan)
        elif feature.kind == "id" and not feature.is_list:
            findings += _default(feature, scan)
    return findings + _lengths(scan, features)


def _arm(severity: Severity, where: str, what: str, advice: str, **figures: float) -> Finding:
    return Finding(severity=severity, check="arm", where=where, what=what, advice=advice, figures=figures)


def _counts(scan: Scan, table: Table, used: list[Feature], splits: tuple[str, ...]) -> pl.DataFrame:
    """How often every id of a table's features occurs in the splits: columns id, rows. Salted ids count by feature."""
    paths = [scan.folder.path / p["path"] for p in scan.parts if p["split"] in splits]
    parts = []
    with parquet.scanned(paths) as frame:
        for f in {f.raw_columns[0]: f for f in used}.values():
            column = pl.col(f.raw_columns[0])
            ids = frame.select((column.explode() if f.many else column.fill_null(f.default)).cast(pl.Int64).alias("id"))
            parts.append(ids.drop_nulls().with_columns(feature=pl.lit(f.name if f.salted else "")))
        return pl.concat(parts).group_by("id", "feature").agg(rows=pl.len()).collect(engine="streaming")


def _table(scan: Scan, features: FeatureSet, table: Table) -> list[Finding]:
    used = [f for f in features.by_table[table.name] if f.role != "sequence"]
    if not used:
        return []
    counts, where = _counts(scan, table, used, scan.fit), f"table {table.name}"
    if table.mapping in ("hash", "multi_hash"):
        # Share of ids that meet another in their row, in all of their rows, were each put into them by chance.
        met = (1 - (1 - 1 / table.rows) ** (table.reads * max(len(counts) - 1, 0))) ** table.reads
        rows = "a row" if table.reads == 1 else f"each of their {table.reads} rows"
        what = f"{len(counts):,} ids on {table.rows:,} rows: {share(met, 1)} of them share {rows} with another"
        advice = f"rows={_enough(len(counts), table.reads):,} for under {share(LIMITS.collide, 1)}"
        return [_arm("warning", where, what, advice, ids=len(counts), rows=table.rows)] if met > LIMITS.collide else []
    seen = counts.filter(pl.col("rows") >= table.min_count).sort("rows", "id", descending=[True, False])
    with_rows = seen.head(table.rows - 1)
    findings = []
    if len(seen) > len(with_rows):
        many = f"{len(seen):,} ids" + (f" occur {table.min_count} times or more" if table.min_count > 1 else "")
        counts_first = table.mapping in ("vocabulary", "growing")
        advice = f"rows={len(seen) + 1:,}" + (" or a higher min_count" if counts_first else "")
        then = "they take turns" if table.mapping == "managed" else "the others share row 0"
        what = f"{many}, rows for {len(with_rows):,}; {then}"
        findings.append(_arm("warning", where, what, advice, ids=len(seen)))
    tested = _counts(scan, table, used, (scan.evaluate,))
    missed, total = int(tested.join(with_rows, on="id", how="anti")["rows"].sum()), int(tested["rows"].sum())
    if total and missed > LIMITS.unseen * total:
        what = f"{share(missed, total)} of the values in {scan.evaluate} have no row of their own"
        what += ": training did not see them"
        advice = "such ids teach nothing here; use features that carry over to new ids"
        findings.append(_arm("warning", where, what, advice, missed=missed, values=total))
    return findings


def _enough(ids: int, reads: int) -> int:
    """The next power of two of rows on which few enough of the ids collide in every row that they read."""
    return 1 << int(np.ceil(np.log2(reads * ids / -np.log1p(-(LIMITS.collide ** (1 / reads))))))


def _edges(feature: Feature, sample: pl.DataFrame) -> list[Finding]:
    # Of a list, the first of each is at hand: the most recent event's.
    column = f"{feature.raw_columns[0]}{'[0]' if feature.is_list else ''}"
    values = sample[column].cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy()
    if not len(values):
        return []
    most = int(np.bincount(np.searchsorted(np.array(feature.edges), values, side="right")).max())
    if most <= LIMITS.single_bucket * len(values):
        return []
    what = f"{share(most, len(values))} of the values are in one bucket"
    what += f"; edges {feature.edges[0]:g} to {feature.edges[-1]:g}"
    what += f", values {values.min():g} to {values.max():g}"
    advice = "edges within the values, or buckets=N for quantiles"
    return [_arm("warning", f"feature {feature.name}", what, advice, most=most, values=len(values))]


def _transform(feature: Feature, scan: Scan) -> list[Finding]:
    stats = scan.figures(feature.raw_columns[0], *scan.fit)
    low, high = (0, 1) if feature.transform == "logit" else (0, float("inf"))
    if stats.low is None or (stats.low >= low and stats.high <= high):
        return []
    what = f"transform={feature.transform!r} takes {low} to {high:g}, the values are {stats.low:g} to {stats.high:g}"
    advice = "another transform: values outside are read as the limit"
    return [_arm("warning", f"feature {feature.name}", what, advice, low=float(stats.low), high=float(stats.high))]


def _default(feature: Feature, scan: Scan) -> list[Finding]:
    stats = scan.figures(feature.raw_columns[0], *scan.fit)
    if not stats.nulls or not stats.defaults:
        return []
    what = f"default={feature.default} stands for {stats.nulls:,} missing values"
    what += f" and is itself the value of {stats.defaults:,}"
    advice = "a default that is no id"
    return [_arm("warning", f"feature {feature.name}", what, advice, missing=stats.nulls, defaults=stats.defaults)]


def _lengths(scan: Scan, features: FeatureSet) -> list[Finding]:
    """Positions of a sequence that no sample fills."""
    findings = []
    for name, group in features.sequences.items():
        column, length = f"{group[0].raw_columns[0]}.len", max(f.length for f in group)
        longest = int(scan.sample[column].max() or 0)  # type: ignore[arg-type]
        if longest < length:
            what = f"length={length}, but no sample has more than {longest} entries"
            advice = f"length={longest}, or prepare with a longer --history"
            findings.append(_arm("warning", f"sequence {name}", what, advice, length=length, longest=longest))
        elif longest > length:
            what = f"length={length}; the data holds up to {longest} entries, of which the oldest are not read"
            findings.append(
                _arm("note", f"sequence {name}", what, "nothing, if meant so", length=length, longest=longest)
            )
    return findings
