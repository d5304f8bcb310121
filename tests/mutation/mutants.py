"""Mutation testing: does a test fail when a line of the core is wrong? `make mutants SEED=1 COUNT=150`.

Each mutant is one small change (operators.py) of one file, at a place drawn by the seed, and runs against the tests
beside the file (beside.py), the slow ones left out, in a copy of the project. It is caught when one fails, or does not
end. Imports of torch cost seconds: a process that has them forks one for each mutant. Results go to a file, line by
line; a run that was cut off goes on.
"""

import argparse
import compileall
import difflib
import hashlib
import json
import os
import py_compile
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from beside import ROOT, core, tests_of
from operators import mutants

# What takes long to import and is no part of the project.
IMPORTED = """torch torchrec fbgemm_gpu polars pyarrow.parquet pyarrow.compute pydantic torchmetrics scipy.stats
    sklearn.metrics torch.utils.tensorboard torch._subclasses torch.distributed.optim.apply_optimizer_in_backward
    tabulate"""
MOST_BYTES = 8 << 30
# What waits for ever is stopped at last. Fewer would stop, and count as caught, what a busy machine only slows down.
_WAITS = 30


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed file."""

    key: str
    """Names file and change in the results."""
    file: str
    """The file, from the project's root."""
    operator: str
    """What made the change."""
    diff: str
    """The change."""
    source: str
    """The changed file's text."""


def sample(seed: int, count: int, only: str) -> list[Mutant]:
    """`count` mutants of the core, or of its files that begin with `only`; longer files get more, none gets most."""
    files = [f for f in core(ROOT) if f.startswith(only)]
    rng = random.Random(seed)
    weights = [(ROOT / f).stat().st_size ** 0.5 for f in files]
    left: dict[str, Iterator[Mutant]] = {f: _of_file(f, seed) for f in files}
    drawn = rng.sample(files, min(count, len(files)))
    chosen: list[Mutant] = []
    while len(chosen) < count and left:
        file = drawn.pop() if drawn else rng.choices(files, weights)[0]
        if file in left:
            mutant = next(left[file], None)
            if mutant is None:
                del left[file]
            else:
                chosen.append(mutant)
    return chosen


def _of_file(file: str, seed: int) -> Iterator[Mutant]:
    # By the file's own name: a change of another file leaves its mutants as they are.
    rng, source = random.Random(f"{seed} {file}"), (ROOT / file).read_text()
    for operator, changed in mutants(source, rng):
        lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), file, file, lineterm="", n=0)
        diff = "\n".join(list(lines)[2:])
        key = hashlib.sha256(f"{file}\n{diff}".encode()).hexdigest()[:12]
        yield Mutant(key, file, operator, diff, changed)


def copy_project(to: Path) -> Path:
    """The files that git knows or would add, compiled so that a changed file is compiled anew whatever its time."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    compileall.compile_dir(to, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return to


def run_tests(project: Path, tests: list[str], log: Path, limit: float) -> tuple[int, float]:
    """Forks a process that runs tests; its exit code (as `os.waitstatus_to_exitcode`) and seconds.

    limit: its CPU seconds; `_WAITS` times as many may pass.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            os._exit(_in_child(project, tests, log, limit))
        except BaseException:  # noqa: BLE001 (nothing may go on in the child)
            traceback.print_exc()
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.killpg(child, signal.SIGKILL)  # what it has started and not ended
    except ProcessLookupError:
        pass
    return code, time.monotonic() - start


def _in_child(project: Path, tests: list[str], log: Path, limit: float) -> int:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    signal.alarm(int(_WAITS * limit))
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(project)
    os.environ |= {"PYTHONPATH": str(project / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(project / "src"))
    options = [
        "-x",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--tb=line",
        f"--basetemp={project.parent / 'tmp'}",
    ]
    code = int(pytest.main([*options, *tests]))
    sys.stdout.flush()
    return code


def judge(mutant: Mutant, project: Path, limit: float) -> dict[str, object]:
    """A line of the results."""
    place, log = project / mutant.file, project.parent / "log"
    original = place.read_text()
    place.write_text(mutant.source)
    try:
        code, seconds = run_tests(project, tests_of(mutant.file), log, limit)
    finally:
        place.write_text(original)
    if code in (5, 99):  # 4: an import of a conftest.py fails
        raise SystemExit(f"{mutant.file}: its tests did not run\n{log.read_text()[-3000:]}")
    failed = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))]
    by = failed[0][:160] if failed else "" if code == 0 else f"exit code {code}"
    facts = {k: v for k, v in asdict(mutant).items() if k != "source"}
    return facts | {"caught": code != 0, "by": by, "seconds": round(seconds, 1)}


def limit_of(tests: list[str], project: Path) -> float:
    """Runs tests without a mutant: the seconds after which they are taken not to end. Exits if one fails."""
    log = project.parent / "log"
    code, seconds = run_tests(project, tests, log, 600)
    if code:
        raise SystemExit(f"a test fails without a mutant\n{log.read_text()[-3000:]}")
    return 20 + 3 * seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument(
        "--only", default="", metavar="PREFIX", help="mutants of these files, such as analysis/compare/"
    )
    parser.add_argument("--again", action="store_true", help="run those again that survived")
    parser.add_argument("--results", type=Path, help="default: runs/mutants/seed-SEED.jsonl")
    args = parser.parse_args()
    results = args.results or ROOT / "runs" / "mutants" / f"seed-{args.seed}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.exists() else []
    known = {line["key"]: line for line in map(json.loads, lines)}
    drawn = sample(args.seed, args.count, args.only)
    for name in IMPORTED.split():
        __import__(name)
    with tempfile.TemporaryDirectory() as folder, results.open("a") as file:
        project = copy_project(Path(folder) / "project")
        limits = {tuple(key.split()): line["limit"] for key, line in known.items() if "limit" in line}
        for number, mutant in enumerate(drawn, 1):
            if mutant.key in known and (known[mutant.key]["caught"] or not args.again):
                continue
            tests = tuple(tests_of(mutant.file))
            if tests not in limits:
                limits[tests] = limit_of(list(tests), project)
                file.write(json.dumps({"key": " ".join(tests), "caught": True, "limit": limits[tests]}) + "\n")
            known[mutant.key] = judge(mutant, project, limits[tests])
            print(
                number,
                mutant.file,
                "caught" if known[mutant.key]["caught"] else "SURVIVED",
                known[mutant.key]["seconds"],
                flush=True,
            )
            file.write(json.dumps(known[mutant.key]) + "\n")
            file.flush()
    judged = [known[m.key] for m in drawn]
    for line in judged:
        if not line["caught"]:
            print(f"\n{line['key']} {line['file']} {line['operator']}\n{line['diff']}")
    caught = sum(bool(line["caught"]) for line in judged)
    print(f"\n{caught} of {len(judged)} mutants caught ({100 * caught / len(judged):.1f} %)")


if __name__ == "__main__":
    main()
