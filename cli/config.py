"""`coldrank config`."""

import argparse
from typing import Any

from coldrank.cli.options import add_set


def add_config(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "config",
        help="print every setting of an arm with its value, default and meaning",
        description="Prints every field of an arm's config: value, default, meaning, under the name that --set takes "
        "(features and tables are the arm's own); then "
        "the difference to the arm `base` of its module. A * marks what is not at its default.",
    )
    p.add_argument("config", metavar="ARM", help="package.module:arm, or the config.json of a run")
    p.add_argument("--changed", action="store_true", help="only what is not at its default")
    p.add_argument("--json", action="store_true", help="as a list of objects, for programs")
    add_set(p)
    p.set_defaults(run=_config)


def _config(args: argparse.Namespace) -> None:
    import json
    import textwrap
    from dataclasses import MISSING

    from coldrank.train.describe import described
    from coldrank.train.difference import from_base
    from coldrank.train.load import load

    config = load(args.config, args.set)
    entries = [entry for entry in described(config) if entry.changed or not args.changed]
    if args.json:
        keys = ("path", "value", "default", "meaning")
        values = [dict(zip(keys, entry, strict=True)) for entry in entries]
        print(json.dumps(values, indent=1, default=lambda value: None if value is MISSING else list(value)))
        return
    for entry in entries:
        default = "" if entry.default is MISSING else f"  (default {entry.default!r})"
        print(f"{'*' if entry.changed else ' '} {entry.path} = {entry.value!r}{default if entry.changed else ''}")
        if entry.meaning:
            print(textwrap.fill(entry.meaning, 116, initial_indent="      ", subsequent_indent="      "))
    difference = from_base(args.config, config)
    print(f"\ndifference to base:\n{difference or '(none)'}".rstrip())
