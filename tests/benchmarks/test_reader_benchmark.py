"""benchmarks/reader.py on a few rows: what is measured is what it says."""

import json

import pyarrow.parquet as pq
import reader
from columns import HISTORY, base, write_samples


def test_reads_builds_and_trains_on_20_scalar_and_3_list_columns(tmp_path):
    data = write_samples(tmp_path, 3000)
    samples = pq.read_table(data.files(("train",))[0])
    lists = {n: samples[n].to_pylist() for n in samples.column_names if n.startswith("hist_")}
    assert len(lists) == 3 and max(len(x) for x in lists["hist_item_id"]) <= HISTORY
    result = reader.measure(data, base(), 3000, steps=2, repeat=1)
    rows = sum(p["rows"] for p in json.loads((data.path / "manifest.json").read_text())["partitions"])
    assert result["columns"] == {"scalar": 20, "list": 3}
    assert rows == 3000 and 0.7 * rows < result["rows"] < rows
    rate = result["rows_per_cpu_second"]
    assert all(r > 0 for r in rate.values()) and set(rate) == {"read", "shuffle", "build", "train"}
    assert result["times_training"]["build"] == round(rate["build"] / rate["train"], 1)
