"""`coldrank spec`."""

import argparse
from pathlib import Path
from typing import Any

from coldrank.cli.options import data_path, local_path
from coldrank.data.errors import UserError

_ABOUT = """Looks at a log and writes a first spec.py (what its columns are) and arms.py (models over them), which
run as they are. Users, items, times, labels, features, tables of users and items, and formats are guessed by the names
and the values of columns, with comments on why. Then it prints the commands that come next. Up to 200,000 rows are
looked at."""


def add_spec(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "spec", help="look at a log of your own and write a first spec.py and arms.py", description=_ABOUT
    )
    p.add_argument(
        "--data", required=True, type=data_path, help="folder or file of the log: Parquet, CSV, TSV, JSON lines"
    )
    p.add_argument(
        "--out", type=local_path, default=Path("own"), metavar="DIR", help="new folder for both files (default: own)"
    )
    for name, what in (("user", "who an event is of; '' where there are no users"), ("item", "what is shown")):
        p.add_argument(f"--{name}", metavar="COLUMN", help=f"{what} (default: a guess by names and values)")
    p.add_argument("--time", metavar="COLUMN", help="when it was (default: a guess)")
    p.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="COLUMN",
        help="an outcome of 0 and 1; may be given several times (default: a guess)",
    )
    p.add_argument(
        "--header",
        type=_names,
        default=(),
        metavar="A,B,C",
        help="the columns of CSV and TSV files that do not name them",
    )
    p.set_defaults(run=_spec)


def _names(text: str) -> tuple[str, ...]:
    return tuple(n.strip() for n in text.split(","))


def _spec(args: argparse.Namespace) -> None:
    from coldrank.data.guess.arms import arms_text
    from coldrank.data.guess.draft import Given, draft
    from coldrank.data.guess.write import spec_text, told
    from coldrank.data.output import check_new, write_atomic

    check_new("--out", args.out)
    if not args.out.name.isidentifier():
        raise UserError(f"--out {args.out}: should be named by letters, digits and _, as Python imports arms from it")
    given = Given(user=args.user, item=args.item, time=args.time, labels=tuple(args.label), header=args.header)
    made = draft(args.data, given)
    commands = _commands(made.data, args.out)
    texts = {"spec.py": spec_text(made, commands), "arms.py": arms_text(made)}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomic(args.out / name, text)
    for line in [
        *told(made),
        f"{args.out}: spec.py and arms.py; look at what they guess, then",
        *(f"  {c}" for c in commands),
    ]:
        print(line)


def _commands(data: Path, out: Path) -> list[str]:
    """What comes next."""
    inside = not out.is_absolute() and all(part.isidentifier() for part in out.parts)
    module = ".".join(out.parts) if inside else out.name
    first = "" if inside else f"export PYTHONPATH={out.resolve().parent}"
    commands = [
        first,
        f"coldrank prepare log --spec {out / 'spec.py'} --data {data} --out {out / 'data'}",
        f"coldrank check --data {out / 'data'} --config {module}.arms:base",
        f"coldrank train --config {module}.arms --arms base,poso --seeds 3 --data {out / 'data'} --out {out / 'runs'}",
        f"coldrank compare {out / 'runs'} --out {out / 'comparison'}",
    ]
    return [c for c in commands if c]
