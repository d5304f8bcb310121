"""Many runs, each in a process of its own: what `train --arms` and `tune` are made of.

A run that is done is skipped, one that was cut off goes on from its checkpoint, one that fails stops no other.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.json_files import read_object
from coldrank.data.output import make_folder
from coldrank.train.checkpoint import steps
from coldrank.train.config import RunConfig
from coldrank.train.difference import difference
from coldrank.train.dry_run import Checks
from coldrank.train.load import load
from coldrank.train.lock import Lock
from coldrank.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run to be."""

    config: str
    """Where its config comes from: module:arm, or a config.json."""
    overrides: tuple[str, ...]
    """What is changed in it, as `field=value`."""
    out: Path
    """Its folder."""

    def load(self) -> RunConfig:
        """The config, validated."""
        return load(self.config, list(self.overrides))

    @property
    def log(self) -> Path:
        """What the run printed: beside its folder, which the run itself clears."""
        return self.out.with_name(self.out.name + ".log")

    def is_done(self, data: DataFolder) -> bool:
        """Whether the folder holds this very run on this data, evaluated.

        Raises UserError if it holds a finished run of another config or data.
        """
        facts = self.out / "run.json"
        if not facts.exists():
            return False
        done = read_object(facts)
        if not done.get("finished"):
            return False
        changed = difference(self.load(), load(str(self.out / "config.json")))
        if changed:
            raise UserError(f"{self.out}: holds another run ({changed.splitlines()[0]}); --fresh starts over")
        if done.get("data_digest") != data.digest:
            if self.load().train.mode == "periods":  # there may be more of them
                return False
            raise UserError(f"{self.out}: was trained on other data than {data.path}; --fresh starts over")
        return True


def overrides_of_jobs(at_once: int) -> tuple[str, ...]:
    """Threads of runs side by side: the cores, shared out evenly. None for a single run at a time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (f"train.threads={max(1, cores // at_once)}",) if at_once > 1 else ()


def tuned_overrides(folder: Path, arms: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each arm's best fields, from the tuned.json of `coldrank tune`. Raises UserError if an arm is not in it."""
    path = folder / "tuned.json"
    tuned = read_object(path, "`coldrank tune` writes it").get("arms")
    if not isinstance(tuned, dict):
        raise UserError(f"--tuned {path}: lacks 'arms'; `coldrank tune` writes it")
    missing = [arm for arm in arms if arm not in tuned]
    if missing:
        raise UserError(f"--tuned {path}: no arm {missing[0]!r}; it has {', '.join(tuned)}")
    return {arm: tuple(tuned[arm]["overrides"]) for arm in arms}


def require_distinct(arms: Sequence[str], configs: Sequence[RunConfig]) -> None:
    """Raises UserError for an arm that is there twice, and for two arms whose runs have the same `name`."""
    names: dict[str, str] = {}
    for arm, config in zip(arms, configs, strict=True):
        if arm in names.values():
            raise UserError(f"--arms: {arm!r} is there twice")
        if config.name in names:
            raise UserError(
                f"--arms: {names[config.name]} and {arm} both have name={config.name!r}: nobody could compare them"
            )
        names[config.name] = arm


def run_all(jobs: Sequence[Job], data: DataFolder, lock: Lock, *, at_once: int, fresh: bool, desc: str) -> list[str]:
    """Runs the jobs that are not done, `at_once` side by side. Returns a line for each that failed: its folder and why.

    lock: the lock on the folder of all runs, held by the caller.
    Raises UserError, before any run starts, for one that could not begin or whose folder holds another run.
    """
    refuse_ranks()
    waiting = [job for job in jobs if fresh or not job.is_done(data)]
    checks = Checks(data)
    for job in tqdm(waiting, desc="checking", unit="run", leave=False):
        config, folder = job.load(), RunFolder(job.out)
        folder.check(config if not fresh and steps(folder.checkpoints) else None)
        checks.check(job.config, config)
    failed: list[str] = []
    with (
        ThreadPoolExecutor(at_once) as pool,
        tqdm(total=len(jobs), initial=len(jobs) - len(waiting), desc=desc, unit="run") as bar,
    ):
        started = {pool.submit(_run, job, data.path, lock, fresh): job for job in waiting}
        try:
            for future in as_completed(started):
                job, code = started[future], future.result()
                if code:
                    failed.append(f"{job.out}: {_last_line(job.log)}")
                    tqdm.write(failed[-1])
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def refuse_ranks() -> None:
    """Raises UserError where this process is one of many ranks: a sweep starts processes of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "many runs are not started under torchx: start `train --config module:arm` there, one arm at a time"
        )


def _run(job: Job, data: Path, lock: Lock, fresh: bool) -> int:
    lock.check()
    threads = job.load().train.threads
    command = [sys.executable, "-m", "coldrank.train.main", "train", "--config", job.config]
    command += ["--data", str(data), "--out", str(job.out)]
    command += [part for override in job.overrides for part in ("--set", override)]
    make_folder(job.out.parent)
    with job.log.open("w") as log:
        # Libraries read their number of threads when they are imported.
        environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        fresh_flag = ["--fresh"] if fresh else []
        return subprocess.run(
            command + fresh_flag, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].rpartition("\r")[2] if lines else "no output"
