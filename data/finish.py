"""The end of a preparation: manifest, ledger and state, put in place in one stroke."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coldrank.data.append import Prepared
from coldrank.data.manifest import Content, manifest
from coldrank.data.place import put_in_place
from coldrank.data.spool import Spool
from coldrank.data.state.ledger import Ledger, put_state
from coldrank.data.state.state import State
from coldrank.data.warn import about_splits, about_tables

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """Samples and state that are staged."""

    out: Path
    """Where they go."""
    staged: Path
    """Where they lie."""
    spool: Spool
    """What was read."""
    content: Content
    """The samples."""
    state: State
    """After the last event."""
    history: int
    """Longest history of a user, in events."""
    arguments: Json
    """What the caller asked for."""
    made_by: Mapping[str, Any]
    """See `append.origin`."""
    digests: Iterable[str]
    """Of the files that were read."""
    late: int = 0
    """Events that came late."""
    base: Prepared | None = None
    """What they are added to."""

    def put(self) -> Json:
        """Puts them in place, warns of what the splits and tables are like, returns the manifest."""
        spool, base, content = self.spool, self.base, self.content
        digests = list(self.digests)
        warn(about_splits(content, spool.log.spec))
        # A table may hold columns that serve expressions alone.
        lengths = {n: length for n, length in spool.lengths.by_name.items() if n in content.schema.names}
        made = manifest(spool.log, self.arguments, content, self.history, lengths)
        if base:
            made["counts"]["files_read"] = base.manifest["counts"]["files_read"] + len(digests)
        warn(about_tables(made["joined"]))
        made_by = self._made_by(lengths)
        staged_paths = [p.path for p in content.partitions]

        def ledger(runs: dict[str, list[str]], pending: list[str], times: list[str], items: list[str]) -> Ledger:
            # The partitions have got their places by now, in the same order.
            moved = {p["path"]: content.labels[path] for path, p in zip(staged_paths, made["partitions"], strict=True)}
            return Ledger(
                shape=self.state.shape,
                total=self.state.total_json(),
                runs=runs,
                pending=pending,
                times=times,
                items=items,
                whole=content.whole,
                labels=moved,
                origin=made_by,
                files=sorted({*(base.ledger.files if base else ()), *digests}),
                late=self.late + (base.ledger.late if base else 0),
            )

        kept = base.ledger.times if base else []
        return put_in_place(
            self.staged, self.out, made, lambda place: put_state(place, self.staged, self.state, ledger, kept)
        )

    def _made_by(self, lengths: dict[str, int]) -> Json:
        spool, before = self.spool, self.base.ledger.origin["natures"] if self.base else {}
        return {
            **self.made_by,
            "types": {n: str(kind) for n, kind in spool.kinds.items()},
            "text": spool.text.words(),
            "vectors": lengths,
            "natures": spool.agreement.words(before),
        }


def warn(lines: Iterable[str]) -> None:
    """Says each in a line of standard error."""
    for line in lines:
        tqdm.write(f"warning: {line}", file=sys.stderr)
