"""`coldrank check`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldrank.cli.options import add_data, local_path
from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from coldrank.data.arm import ArmSettings
    from coldrank.data.audit.audit import Finding


def add_check(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "check",
        help="check prepared data before training: drift, leaks, duplicates, constant features, bad values",
        description="Reads prepared data once and reports what would make training fail or its figures wrong "
        "(error), what "
        "is worth a look (warning) and what is good to know (note). Exit code 0: no error; 1: errors; 2: it "
        "could not be checked.",
    )
    add_data(p)
    p.add_argument(
        "--config",
        help="arm (package.module:arm, or a run's config.json): checks its features only, and its settings, and "
        "of a run whether its gates have moved",
    )
    p.add_argument("--out", type=local_path, help="new folder for check.json and check.md")
    p.add_argument("--strict", action="store_true", help="warnings count as errors in the exit code")
    p.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a config field, e.g. data.fit=train"
    )
    p.set_defaults(run=_check)


def _of_run(config: Path, arm: "ArmSettings") -> "list[Finding]":
    """What the run beside a config.json, if it has been judged, says of the arm."""
    from coldrank.data.audit.audit import Finding
    from coldrank.data.json_files import ROW_FIELDS, read_rows
    from coldrank.train.gates import ADVICE, unmoved

    summary = config.with_name("summary.json")
    told = unmoved(read_rows(summary, *ROW_FIELDS)) if config.name == "config.json" and summary.is_file() else ""
    where = f"arm {arm.name}"
    return [Finding(severity="warning", check="gates", where=where, what=told, advice=ADVICE)] if told else []


def _check(args: argparse.Namespace) -> None:
    from coldrank.data.audit.report import audit, summary, table, write
    from coldrank.data.output import check_new
    from coldrank.train.checks import as_arm
    from coldrank.train.load import load

    if args.out:
        check_new("--out", args.out)
    if args.set and not args.config:
        raise UserError(f"--set {args.set[0]}: needs --config, whose fields it changes")
    arm = as_arm(load(args.config, args.set)) if args.config else None
    done = audit(args.data, arm, _of_run(Path(args.config), arm) if arm else [])
    if done.findings:
        print(table(done.findings))
    print(summary(done))
    if args.out:
        write(done, args.out)
    if done.count("error") or (args.strict and done.count("warning")):
        sys.exit(1)
