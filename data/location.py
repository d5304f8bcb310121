"""Where data lies: a path of this machine, or the URL of an object store, `s3://BUCKET/FOLDER`.

A URL is a path too, universal_pathlib's, with the methods of pathlib's that reading takes; signatures say `Path` for
both. What differs is here, in `place.py`, which writes, and where pyarrow or polars open a file.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from coldrank.data.errors import UserError

_SCHEMES = ("s3",)
# A bucket and what lies in it. `s3:/bucket` is what a Path makes of a URL.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)([^/]*)(.*)")


def location(text: str) -> Path:
    """The path that a text names. Raises UserError for a URL that is none, and where the extra `s3` is missing."""
    url = _URL.fullmatch(text)
    if url is None or not (url[2] == "//" or url[1].lower() in _SCHEMES):
        return Path(text)
    scheme, slashes, bucket, _ = url.groups()
    if scheme not in _SCHEMES:
        raise UserError(f"{text}: {scheme}:// is not read; give a path, or s3://BUCKET/FOLDER")
    if slashes != "//" or not bucket:
        raise UserError(f"{text}: names no bucket; a URL is s3://BUCKET/FOLDER")
    try:
        import s3fs  # noqa: F401
        from upath import UPath
    except ImportError as error:
        raise UserError(f"{text}: {error.name} is not installed; pip install 'coldrank[s3]'") from None
    # Nothing is remembered of what lies there: others write. A Parquet reader knows by itself what to read next.
    return cast(Path, UPath(text.rstrip("/"), use_listings_cache=False, default_cache_type="none"))


def local(text: str) -> Path:
    """A path of this machine or of a shared file system. Raises UserError for a URL."""
    if _URL.fullmatch(text) and (text.startswith(tuple(f"{s}:/" for s in _SCHEMES)) or "://" in text):
        raise UserError(f"{text}: is to be a path of this machine or of shared storage, no URL")
    return Path(text)


def is_url(path: Path) -> bool:
    """Whether a path lies in an object store."""
    return not isinstance(path, Path)


def for_polars(path: Path) -> Any:
    """What polars opens a file by. It takes a relative path that begins with ~ for a home."""
    return str(path) if is_url(path) else path.absolute()


def is_file(path: Path) -> bool:
    """Whether there is such a file. Raises UserError where an object store does not tell."""
    if not is_url(path):
        return path.is_file()
    store: Any = path
    with named(path):
        try:
            return bool(store.fs.info(store.path)["type"] == "file")
        except FileNotFoundError:
            return False


def size(path: Path) -> int:
    """Bytes of a file. Raises UserError where an object store does not tell."""
    with named(path):
        return path.stat().st_size


def check_reachable(path: Path, *, listed: bool = False) -> None:
    """Raises UserError if an object store does not answer or has no such bucket.

    listed: also if it does not let us see what lies there, which a folder of prepared data does not take: its manifest
    names the files.
    """
    if not is_url(path):
        return
    store: Any = path
    bucket = store.path.partition("/")[0]
    with named(path):
        try:
            store.fs.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError:
            raise UserError(f"{path}: no bucket {bucket!r}") from None
        except PermissionError:
            pass  # to list a bucket and to read from it are two rights
    if listed:
        is_file(path)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turns what an object store answers within `with` into UserError that names the path."""
    if not is_url(path):
        yield
        return
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # noqa: BLE001 - botocore's and aiohttp's errors have no other ancestor
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: {'no permission: ' if isinstance(error, PermissionError) else ''}{text}") from None
