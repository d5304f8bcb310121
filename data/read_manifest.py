"""`manifest.json` as others read it: checked, with errors that name the file and the field."""

from pathlib import Path
from typing import Any

from coldrank.data.errors import UserError
from coldrank.data.json_files import read_object
from coldrank.data.location import check_reachable, is_file

FORMAT = 1
_PARTITION = {"path": str, "split": str, "period": str, "rows": int, "time_min": int, "time_max": int}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared data folder. Raises UserError if there is none, or if it is of another format."""
    check_reachable(folder)
    path = folder / "manifest.json"
    if not is_file(path):
        raise UserError(f"{folder}: not a prepared data folder (no manifest.json); make one with `coldrank prepare`")
    manifest = read_object(path)
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path}: format is {manifest.get('format')!r}; this version reads format {FORMAT}: prepare the data again"
        )
    for name in ("partitions", "columns"):
        if not isinstance(manifest.get(name), list):
            raise UserError(f"{path}: {name} is {manifest.get(name)!r:.40}; should be a list")
    if wrong := [c for c in manifest["columns"] if not (isinstance(c, dict) and isinstance(c.get("name"), str))]:
        raise UserError(f"{path}: columns has {wrong[0]!r:.40}; should be an object with a name")
    seen = set()
    for number, partition in enumerate(manifest["partitions"], 1):
        _check_partition(f"{path}: partition {number}", partition)
        if partition["path"] in seen:
            raise UserError(f"{path}: partition {number}: path {partition['path']!r} is there twice")
        seen.add(partition["path"])
    return manifest


def _check_partition(where: str, partition: Any) -> None:
    if not isinstance(partition, dict):
        raise UserError(f"{where} is {partition!r:.40}; should be an object")
    for name, kind in _PARTITION.items():
        value = partition.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = "text" if kind is str else "a whole number"
            raise UserError(f"{where}: {name} is {value!r:.40}; should be {wanted}")
