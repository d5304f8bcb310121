"""The text of a file, decompressed and decoded as it is read."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from coldrank.data.errors import UserError
from coldrank.data.location import named

# Bytes that are read first, and then at a time.
_FIRST, _SIZE = 1 << 16, 1 << 22
# No line is longer, in bytes.
_LONGEST = 1 << 26
_ENDINGS = {".gz": "gzip", ".zst": "zstd"}
COMPRESSED = tuple(_ENDINGS)


def lines_of(path: Path) -> Iterator[str]:
    """The lines of the text, each with its end: a line feed, but for the last. Errors as those of `texts`."""
    return chain.from_iterable(io.StringIO(text, newline="\n") for text in texts(path))


def texts(path: Path) -> Iterator[str]:
    """The text in pieces that end where a line ends, without UTF-8's mark at its head.

    Bytes that are not UTF-8 are lone surrogates (`surrogateescape`).
    Raises UserError for a file that is damaged or cut off, and for a line of more than 64 MiB.
    """
    lines, rest, is_first = 0, b"", True
    for block in _blocks(path):
        block = rest + block
        end = block.rfind(b"\n") + 1
        rest = block[end:]
        if len(rest) > _LONGEST:
            line = lines + block.count(b"\n", 0, end) + 1
            raise UserError(f"{path}: line {line}: is longer than 64 MiB")
        if end:
            yield _decoded(block[:end], is_first)
            lines, is_first = lines + block.count(b"\n", 0, end), False
    if rest:
        yield _decoded(rest, is_first)


def _decoded(block: bytes, is_first: bool) -> str:
    text = block.decode("utf-8", "surrogateescape")
    return text.removeprefix("\ufeff") if is_first else text


def _blocks(path: Path) -> Iterator[bytes]:
    lines, size = 0, _FIRST
    with named(path), ExitStack() as stack:
        try:
            source = _source(path, stack)
            while block := source.read(size):
                yield block
                lines, size = lines + block.count(b"\n"), _SIZE
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (EOFError, zlib.error, OSError) as error:
            kind = _ENDINGS.get(path.suffix.lower())
            what = f"is no whole {kind} file" if kind else "cannot be read"
            raise UserError(f"{path}: after line {lines}: {what}: {str(error).splitlines()[0]}") from None


def _source(path: Path, stack: ExitStack) -> Any:
    file: io.BufferedIOBase = stack.enter_context(path.open("rb"))
    kind = _ENDINGS.get(path.suffix.lower())
    if kind == "gzip":
        return stack.enter_context(gzip.GzipFile(fileobj=file))
    return pa.CompressedInputStream(file, kind) if kind else file
