"""Puts prepared data into its folder, new or not. Whenever it is cut off, a reader has the old data or the new.

Only the files that manifest.json names count. New ones get names that the old manifest does not have, then the manifest
is replaced in one stroke, then the old ones go. A file that is equal to an old one keeps its name: a training that
follows the folder reads on. All of it happens inside the folder, which may be a link or the root of a disk.

In an object store nothing can be renamed: samples are staged on this machine and go to their final names, where nobody
looks before the manifest, one object that is replaced in one stroke, names them.
"""

import errno
import filecmp
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldrank.data.errors import UserError
from coldrank.data.location import check_reachable, is_file, is_url, named
from coldrank.data.output import check_folder, is_kept, real_path, write_atomic

_STAGED = ".prepare-"
# Gets a function that gives a staged file its place, and makes an entry of the manifest.
Finish = Callable[[Callable[[Path], Path]], dict[str, Any]]


def check_out(out: Path) -> None:
    """Raises UserError unless `out` can be written and is absent, empty, or older prepared data, which is replaced."""
    check_reachable(out, listed=True)
    if not is_url(out):
        check_folder("--out", out)
    with named(out):
        held = [p for p in out.iterdir() if is_url(out) or not is_kept(p)] if out.is_dir() else []
        # What was cut off before its first manifest may have left samples, on a disk beside what it had staged.
        staged = {p.name for p in held if _is_staged(p)}
        ours = {"samples", "state", *staged} if staged or is_url(out) else set()
        if any(p.name not in ours for p in held) and _partitions(out) is None:
            raise UserError(f"--out {out}: holds something else than prepared data; choose a new folder")


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder inside `out` to write samples in before `put_in_place`.

    It goes at the end, and `out` with it if that is new and nothing was put in place.
    """
    if is_url(out):
        with tempfile.TemporaryDirectory(prefix=_STAGED) as folder:
            try:
                yield Path(folder)
            finally:
                _remove_unnamed(out)
        return
    out = real_path(out)
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    for left in filter(_is_staged, list(out.iterdir())):
        shutil.rmtree(left)
    staged = Path(tempfile.mkdtemp(prefix=_STAGED, dir=out))
    try:
        yield staged
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"--out {out}: no space left on its disk; what it held is as it was") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        _remove_unnamed(out)
        if new and not any(out.iterdir()):
            out.rmdir()


def put_in_place(staged: Path, out: Path, manifest: dict[str, Any], finish: Finish | None = None) -> dict[str, Any]:
    """Gives the partitions of a manifest, and a state, their places in `out`; writes it with these and returns it.

    A partition that is not staged stays where it is. finish: makes the manifest's `state` once the partitions and the
    files of the state have their places.
    """
    out = out if is_url(out) else real_path(out)
    with named(out):
        taken = [Path(name) for name in _files(out)]
    for part in manifest["partitions"]:
        if (staged / part["path"]).is_file():
            part["path"] = str(_place(staged, out, Path(part["path"]), taken))
    if finish is not None:
        manifest["state"] = finish(lambda path: _place(staged, out, path, taken))
    text = json.dumps(manifest, indent=1) + "\n"
    if is_url(out):
        with named(out):
            (out / "manifest.json").write_text(text)
    else:
        write_atomic(out / "manifest.json", text)
    return manifest


def _place(staged: Path, out: Path, path: Path, taken: list[Path]) -> Path:
    """taken: the files of the old manifest, and those that have got a place, which this adds."""
    for equal in (p for p in taken if p.parent == path.parent and is_file(out / p)):
        if _same(staged / path, out / equal):
            return equal
    free = next(p for n in itertools.count() if (p := path.with_name(f"part-{n}{path.suffix}")) not in taken)
    if is_url(out):
        store: Any = out / free
        with named(store):
            store.fs.put_file(str(staged / path), store.path)
    else:
        (out / free).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged / path, out / free)
    taken.append(free)
    return free


def _same(staged: Path, placed: Path) -> bool:
    if not is_url(placed):
        return filecmp.cmp(staged, placed, shallow=False)
    with named(placed):
        return staged.stat().st_size == placed.stat().st_size and staged.read_bytes() == placed.read_bytes()


def _remove_unnamed(out: Path) -> None:
    """Removes what lies among the samples and in the state and is not in the manifest."""
    with named(out):
        of_manifest = {out / name for name in _files(out)}
        if is_url(out):
            samples = (out / "samples").glob("split=*/period=*/part-*.parquet")
            for path in [*samples, *(out / "state").glob("*/part-*")]:
                if path not in of_manifest:
                    path.unlink()
            return
    for root in ("samples", "state"):
        for folder, _, files in os.walk(out / root, topdown=False):
            for path in (Path(folder, name) for name in files):
                if path not in of_manifest:
                    path.unlink()
            if not any(Path(folder).iterdir()):
                os.rmdir(folder)


def _files(out: Path) -> list[str]:
    """The files of the manifest in a folder, relative to it."""
    if (partitions := _partitions(out)) is None:
        return []
    state = json.loads((out / "manifest.json").read_text()).get("state") or {}
    return [*(p["path"] for p in partitions), *state.get("files", [])]


def _is_staged(path: Path) -> bool:
    return path.name.startswith(_STAGED)


def _partitions(out: Path) -> list[dict[str, Any]] | None:
    """The partitions of the manifest in a folder; None if it holds no prepared data."""
    try:
        return list(json.loads((out / "manifest.json").read_text())["partitions"])
    except OSError as error:
        if is_url(out) and not isinstance(error, FileNotFoundError):
            raise  # the store does not answer now: it may hold some
        return None
    except (ValueError, LookupError, TypeError):
        return None
