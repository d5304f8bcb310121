"""Where commands write.

Links are followed: a folder or file is written where they lead, and they stay. What cannot be written is refused before
any work is done. What is written appears whole or not at all.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coldrank.data.errors import UserError


def real_path(path: Path) -> Path:
    """The path without links; what it names need not be there."""
    return Path(os.path.realpath(path))


def check_new(option: str, path: Path, what: str = "folder") -> None:
    """Raises UserError if a folder or file is there already or cannot be made."""
    if path.exists():
        raise UserError(f"{option} {path}: exists already; give a new {what}")
    _check_place(option, path)


def check_folder(option: str, path: Path) -> None:
    """Raises UserError if a folder, new or not, cannot be written in."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} {path}: is no folder")
    _check_place(option, path)


def check_file(option: str, path: Path) -> None:
    """Raises UserError if a file, new or not, cannot be written: it may not be a folder or a device."""
    if path.exists() and not path.is_file():
        raise UserError(f"{option} {path}: is {'a folder' if path.is_dir() else 'no regular file'}; give a file")
    _check_place(option, path, real_path(path).parent)


def _check_place(option: str, path: Path, folder: Path | None = None) -> None:
    """Raises UserError unless the nearest folder that is there can be written in. folder: where a file is to lie."""
    real = real_path(path)
    if real.is_symlink():
        raise UserError(f"{option} {path}: is a link that leads in a circle")
    near = next(p for p in (folder or real, *real.parents) if p.exists())
    if not near.is_dir():
        raise UserError(f"{option} {path}: {near} is a file, no folder")
    try:
        # Permissions do not tell of a disk that is read only.
        tempfile.TemporaryFile(dir=near).close()
    except OSError as error:
        raise UserError(f"{option} {path}: cannot write in {near}: {error.strerror}") from None


def is_kept(folder: Path) -> bool:
    """Whether a folder stays when what is in it goes: a link, a mounted disk, and the `lost+found` at a disk's root."""
    return folder.is_dir() and (folder.is_symlink() or os.path.ismount(folder) or folder.name == "lost+found")


def make_folder(path: Path) -> None:
    """Makes a folder that may be there already; where a link leads, if it leads to nothing yet."""
    real_path(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that gets the name `out` when everything is written, and goes if something fails."""
    out = real_path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes a private folder
        yield partial
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def put_file(partial: Path, path: Path) -> None:
    """Gives a file that is written its name, in the place of another. `partial` lies beside `real_path(path)`."""
    path = real_path(path)
    try:
        os.replace(partial, path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A file that is mounted by itself cannot be replaced, only written.
        shutil.copyfile(partial, path)
        partial.unlink()


def partial_of(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    path = real_path(path)
    return path.with_name(path.name + ".partial")


def write_atomic(path: Path, text: str) -> None:
    """Writes beside, then renames."""
    partial = partial_of(path)
    partial.write_text(text)
    put_file(partial, path)
