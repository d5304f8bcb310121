"""The types of columns of text, settled over all files of a log before anything is used."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from coldrank.data.errors import UserError
from coldrank.data.files import apply_folder_columns
from coldrank.data.log import LogFile, expression
from coldrank.data.parquet import scan_parquet
from coldrank.data.text.csv_rows import csv_blocks
from coldrank.data.text.file import BLOCK_ROWS, Block, TextFile
from coldrank.data.text.json_rows import json_blocks
from coldrank.data.text.words import KINDS, LIST, clash, typed

_SAID = {"flag": "true or false", "unclear": "what may mean unknown", "text": "text"} | KINDS


def blocks(file: TextFile, rows: int) -> Iterator[Block]:
    """The rows of a file of text. Raises UserError with column and line."""
    return json_blocks(file, rows) if file.kind == "jsonl" else csv_blocks(file, rows)


def is_empty(file: TextFile) -> bool:
    """Whether a file has no row."""
    return next(blocks(file, 1), None) is None


@dataclass(slots=True)
class Settled:
    """What the columns of text of a log are, over all files so far."""

    before: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Column -> its words in files that were prepared before."""
    _places: dict[str, dict[str, tuple[Path, int, str]]] = field(default_factory=dict)
    """Column -> word -> file, line and value where it was met first."""

    def words(self) -> dict[str, list[str]]:
        """Column -> what its values are."""
        names = dict.fromkeys([*self.before, *self._places])
        return {n: sorted({*self.before.get(n, ()), *self._places.get(n, ())}) for n in names}

    def read(self, files: Sequence[LogFile], used: Collection[str], folder: Path) -> list[LogFile]:
        """The files; those of text as rows in the types that fit all of them. Files of `folder` hold these.

        used: the columns that are read. Raises UserError with file, column and line, also for values of one of these
        columns that no type fits without a doubt.
        """
        parts = {}
        text = [f for f in files if f.text is not None]
        for number, file in enumerate(tqdm(text, desc="parsing", unit="file", disable=None) if text else ()):
            assert file.text is not None
            parts[file.path] = self.parse(file.text, folder / str(number))
        return self.typed(files, parts, used)

    def merge(self, later: "Settled") -> None:
        """Takes what another has met in files after these."""
        for name, words in later._places.items():
            known = self._places.setdefault(name, {})
            for word, place in words.items():
                known.setdefault(word, place)

    def typed(self, files: Sequence[LogFile], parts: Mapping[Path, list[Path]], used: Collection[str]) -> list[LogFile]:
        """The files; those of text as rows in the types that fit all. parts: what `parse` wrote of each.

        used: as of `read`. Raises UserError as `read` does.
        """
        for name in used:
            self._check(name)
        words = self.words()
        return [self._typed(f, parts[f.path], words) if f.text is not None else f for f in files]

    def parse(self, file: TextFile, folder: Path) -> list[Path]:
        """Writes the rows of a file as Parquet into a new folder; a new file where there are other columns."""
        folder.mkdir(parents=True)
        paths: list[Path] = []
        schema: pa.Schema | None = None
        with ExitStack() as stack:
            for block in blocks(file, BLOCK_ROWS):
                self._note(file, block)
                names = dict.fromkeys([*(schema.names if schema else ()), *block.frame.columns])
                if schema is None or len(names) > len(schema):
                    schema = pa.schema([(name, pa.large_string()) for name in names])
                    paths.append(folder / f"{len(paths)}.parquet")
                    writer = stack.enter_context(pq.ParquetWriter(paths[-1], schema, compression="lz4"))
                nulls = pl.Series([None] * len(block.frame), dtype=pl.String)
                held = block.frame.columns
                columns = [(block.frame[n] if n in held else nulls).to_arrow() for n in schema.names]
                writer.write_table(pa.table([c.cast(pa.large_string()) for c in columns], schema=schema))
        return paths

    def _note(self, file: TextFile, block: Block) -> None:
        for name, words in block.words.items():
            known = self._places.setdefault(name, {})
            for word, row in words.items():
                if word not in known:
                    known[word] = file.path, block.line(row), block.frame[name][row]

    def _check(self, name: str) -> None:
        if not (odd := clash(self.words().get(name, ()))):
            return
        places = self._places.get(name, {})
        word, other = odd if odd[0] in places else odd[::-1]
        if word not in places:
            return  # both were there before
        path, line, value = places[word]
        beside = f", but {_said(other)} in {_where(places.get(other))}" if other else ""
        hint = ""
        if odd[0] == "unclear":
            hint = "; name it in null_values of the spec if it means unknown"
            hint += "; decimal=',' if numbers are written so" if re.fullmatch("-?[0-9]+,[0-9]+", value) else ""
        raise UserError(f"{path}: column {name}, line {line}: {value!r} is {_said(word)}{beside}{hint}")

    def _typed(self, file: LogFile, parts: list[Path], words: Mapping[str, Collection[str]]) -> LogFile:
        scans = [scan_parquet([p]) for p in parts]
        names = dict.fromkeys(n for s in scans for n in s.collect_schema().names())
        if file.text and file.text.kind == "jsonl":  # a field that no line of a file has is null, too
            names |= dict.fromkeys(n for n in words if n not in file.folders)
        frame = pl.concat(scans, how="diagonal")
        held = frame.collect_schema().names()
        frame = frame.with_columns(pl.lit(None, pl.String).alias(n) for n in names if n not in held)
        decimal = file.text.decimal if file.text else "."
        frame = frame.select(typed(expression(n), words.get(n, ()), decimal).alias(n) for n in names)
        return apply_folder_columns(replace(file, frame=frame, text=None, in_rows=True))


def _said(word: str) -> str:
    if word.startswith(LIST):
        return f"a list with {_said(word.removeprefix(LIST))}"
    return _SAID.get(word, "a number")


def _where(place: tuple[Path, int, str] | None) -> str:
    return f"{place[0]}, line {place[1]}" if place else "what was prepared before"
