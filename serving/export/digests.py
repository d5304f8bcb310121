"""A digest of every file of an export folder, in the format of `sha256sum`, which checks it as well."""

import hashlib
from pathlib import Path

from coldrank.data.errors import UserError

NAME = "sha256sums.txt"


def write_digests(folder: Path) -> None:
    """Writes `sha256sums.txt`: a digest of every file in the folder."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _names(folder)]
    (folder / NAME).write_text("".join(lines))


def verify(folder: Path) -> str:
    """Holds every file of an export folder against its digest, and returns what tells the export from others. Raises
    UserError, with the file, for one that is missing, another than was written, or not of the export."""
    path = folder / NAME
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise UserError(f"{folder}: no export folder ({NAME}: {why}); make one with `coldrank export`") from None
    wanted: dict[str, str] = {}
    for i, line in enumerate(text.splitlines()):
        digest, two, name = line[:64], line[64:66], line[66:]
        if two != "  " or not name or name in wanted or not set(digest) <= set("0123456789abcdef"):
            raise UserError(f"{path}, line {i + 1}: is no digest of a file; copy the export again")
        wanted[name] = digest
    if "signature.json" not in wanted:
        raise UserError(f"{path}: lists no signature.json; copy the export again")
    there = _names(folder)
    for name in sorted(wanted.keys() - set(there)):
        raise UserError(f"{folder / name}: is missing, though {NAME} lists it; copy the export again")
    for name in there:
        if name not in wanted:
            raise UserError(f"{folder / name}: is not of this export, for {NAME} does not list it; take it away")
        if _digest(folder / name) != wanted[name]:
            raise UserError(f"{folder / name}: is damaged, or of another export, by {NAME}; copy the export again")
    return hashlib.sha256(text.encode()).hexdigest()


def _names(folder: Path) -> list[str]:
    """The files below, but for the digests."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    return sorted(name for name in names if name != NAME)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
