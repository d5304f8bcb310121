"""What a benchmark came to, as data: benchmark.json, from which tables and page are made."""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from coldrank.data.json_files import read_object


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One method, or the base."""

    name: str
    """Of the arm."""
    about: str
    """In a line."""
    overrides: tuple[str, ...] = ()
    """The best setting, as `field=value`; empty: as it is."""
    trials: int = 0
    """Settings that were tried."""
    value: float | None = None
    """What the best was judged by, on the trials' own split."""
    runs: tuple[str, ...] = ()
    """Folders of the runs that ended."""
    failed: tuple[str, ...] = ()
    """A line for each run that did not, or for the search."""
    seconds: float | None = None
    """Of training, mean of the runs."""
    steps: int | None = None
    """Of a run."""
    samples: int | None = None
    """That a run read in training."""
    peak_mib: float | None = None
    """Of memory, the most of the runs; of runs on a GPU, of its memory."""
    leak: str = ""
    """What moved with the labels under test; empty: nothing."""
    untested: str = ""
    """Why nobody knows whether it leaks; empty: it was tested."""

    @property
    def leak_test(self) -> str:
        """In a word or a sentence."""
        return f"LEAKS: {self.leak}" if self.leak else f"not tested: {self.untested}" if self.untested else "passed"

    @property
    def setting(self) -> str:
        """The best setting in words."""
        return " ".join(self.overrides) or "as it is"


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """All of it."""

    suite: str
    """Its suite."""
    base: str
    """The arm that the others are held against."""
    by: str
    """What trials were judged by."""
    cohort: str
    """The cohorts of that."""
    tasks: tuple[str, ...]
    """The tasks of that; empty: all."""
    data: str
    """Where the data lies."""
    split: str
    """Whose predictions are compared."""
    trials: int
    """Of every method."""
    seeds: int
    """Of every method."""
    share: float
    """Of its steps that a run trained for."""
    cut: tuple[str, ...]
    """What a budget took, in words."""
    outcomes: tuple[Outcome, ...]
    """The base first."""
    left_out: dict[str, str]
    """Methods that do not apply to the base, and why."""

    @property
    def faults(self) -> list[str]:
        """A line for every method that leaks, was not tested or has no run: what the command ends with 1 for."""
        lines = [f"{o.name}: leaks: {o.leak}" for o in self.outcomes if o.leak]
        lines += [f"{o.name}: not tested for leaks: {o.untested}" for o in self.outcomes if o.untested]
        return lines + [line for o in self.outcomes for line in o.failed]

    def to_json(self) -> dict[str, Any]:
        """What benchmark.json begins with."""
        return {"format": 1} | asdict(self)


def costs(runs: list[Path]) -> dict[str, Any]:
    """The figures of run.json that an Outcome has."""
    facts = [read_object(run / "run.json") for run in runs]
    if not facts:
        return {}
    peaks = [f.get("peak_gpu_mib", f.get("peak_mib")) for f in facts]
    known = [peak for peak in peaks if peak is not None]
    return {
        "seconds": round(mean(f["seconds"] for f in facts), 3),
        "steps": max(f["steps"] for f in facts),
        "samples": max(f["samples"] for f in facts),
        "peak_mib": round(max(known), 1) if known else None,
    }
