"""Expressions of a spec: a row's value comes from that row, or from its user's and item's rows of the tables."""

from dataclasses import replace

import polars as pl
import pytest
from event_logs import START, prepare_frame, read_samples

from coldrank.data.errors import UserError
from coldrank.data.log import LogSpec

FRAME = pl.DataFrame(
    {
        "user": [1, 2, 1, 3, 2, 1],
        "item": [7, 8, 9, 7, 8, 9],
        "time": [START + 86_400_000 * d for d in range(6)],
        "label": [1, 0, 1, 1, 0, 0],
        "price": [3.0, 5.0, 11.0, 2.0, 7.0, 13.0],
    }
)
WHOLE = LogSpec(user="user", item="item", time="time", tasks={"click": "label"})


def others() -> list[object]:
    mark = lambda case: pytest.mark.tried("logs", f"an expression that reads other rows: {case}", "refused by name")
    price = pl.col("price")
    expressions = {
        "a mean": price.mean(),
        "a mean within a group": price.mean().over("user"),
        "the value minus the mean": price - price.mean(),
        "a running sum": price.cum_sum(),
        "the row before": price.shift(1),
        "the row after": price.shift(-1),
        "a rank": price.rank(),
        "values in another order": price.sort(descending=True),
        "a position": pl.int_range(pl.len()),
        "the number of rows": pl.len(),
    }
    return [pytest.param(e, id=name, marks=mark(name)) for name, e in expressions.items()]


@pytest.mark.parametrize("other", others())
def test_an_expression_that_reads_other_rows_is_refused(tmp_path, other):
    spec = replace(WHOLE, context={"price": "price", "far": other})
    with pytest.raises(UserError, match=r"events.parquet: column .*\(far\): its value in a row depends on other rows"):
        prepare_frame(FRAME, tmp_path, spec)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_expression_of_the_row_alone_is_as_it_was(tmp_path):
    spec = replace(WHOLE, context={"twice": 2 * pl.col("price"), "same": pl.lit(4), "none": pl.lit(None, pl.Int64)})
    prepare_frame(FRAME, tmp_path, spec)
    samples = read_samples(tmp_path).sort("time")
    assert samples["twice"].to_list() == [6.0, 10.0, 22.0, 4.0, 14.0, 26.0]
    assert samples["same"].to_list() == [4] * 6
    assert samples["none"].null_count() == 6
