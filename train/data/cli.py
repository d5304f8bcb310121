"""`coldrank prepare`: the command line of the data preparation."""

import argparse
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from coldrank.train.data.events import Events
from coldrank.train.data.folder import LeftOut
from coldrank.train.data.kuairand import DEFAULT_TASKS, OUTCOMES, open_kuairand
from coldrank.train.data.log import EventLog
from coldrank.train.data.movielens import open_movielens
from coldrank.train.data.own_log import load_spec, open_log
from coldrank.train.data.place import check_out
from coldrank.train.data.prepare import PrepareOptions, Split, prepare
from coldrank.train.data.split import SPLITS, split_by_time, split_by_users
from coldrank.train.errors import UserError

_ABOUT = """Turn an event log into training samples.

Each event becomes one sample with what was known strictly before its time: how often the user and the item had been
seen, smoothed rates of each signal, the user's last events. Events at the same time do not see each other. Rows that
are equal in all columns count once. An empty label stays unknown. The samples are Parquet files, sorted by time, with a
manifest.json."""

_OWN_LOG = """Prepare your own event log: a Parquet file or a folder of them (--data). A Python file (--spec) describes
it:

    from coldrank.train.data.log import Group, LogSpec

    spec = LogSpec(
        user="user_id", item="item_id", time="time",
        tasks={"click": "clicked"},
        item_features={"author": "author_id"}, item_table="items.parquet",
        keys={"author": "item_author"},
        groups=(Group(keys=("author",)), Group(keys=("user", "author"), parent="user")),
    )

Columns are given by name or as polars expressions; coldrank/train/data/log.py explains every field."""

_FORM = argparse.RawDescriptionHelpFormatter


def add_prepare(subparsers: Any) -> None:
    """Adds the command `prepare` and its sources to the parser of `coldrank`."""
    parser = subparsers.add_parser(
        "prepare", help="turn an event log into samples", description=_ABOUT, formatter_class=_FORM
    )
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    _kuairand(sources)
    _movielens(sources)
    _own_log(sources)


def _kuairand(sources: Any) -> None:
    about = "KuaiRand (Pure or 1K), official files: log_*.csv, user_features_*.csv, video_features_basic_*.csv"
    parser = sources.add_parser("kuairand", help=about, description=about)
    _common(parser)
    _split(parser, "time")
    outcomes = ", ".join(OUTCOMES)
    names = ",".join(DEFAULT_TASKS)
    parser.add_argument("--tasks", type=_names, default=names, help=f"labels, among {outcomes} (default: %(default)s)")
    parser.add_argument(
        "--signals", type=_names, default=names, help="what is counted into rates (default: %(default)s)"
    )
    parser.add_argument(
        "--include-random", action="store_true", help="also read log_random_*, the randomly shown videos"
    )
    parser.set_defaults(run=run, open=_open_kuairand)


def _movielens(sources: Any) -> None:
    about = "MovieLens, official files: u.data (100K), ratings.dat (1M) or ratings.csv (20M, 25M, latest)"
    parser = sources.add_parser("movielens", help=about, description=about)
    _common(parser)
    _split(parser, "users")
    parser.set_defaults(run=run, open=_open_movielens)


def _own_log(sources: Any) -> None:
    about = "your own event log in Parquet, described by a Python file"
    parser = sources.add_parser("log", help=about, description=_OWN_LOG, formatter_class=_FORM)
    parser.add_argument(
        "--spec", type=Path, required=True, metavar="FILE", help="Python file that defines spec = LogSpec(...)"
    )
    _common(parser)
    _split(parser, "time")
    parser.set_defaults(run=run, open=_open_log)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the log")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write; prepared data is replaced"
    )
    parser.add_argument(
        "--history", type=_count, default=50, metavar="L", help="longest history, in events (default: 50)"
    )
    parser.add_argument(
        "--item-history", type=_count, default=0, metavar="L", help="also the users of an item's last L events"
    )
    parser.add_argument(
        "--periods",
        type=_count,
        default=0,
        metavar="N",
        help="N periods of equally many events (default: days or months)",
    )


def _split(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--split",
        choices=("users", "time"),
        default=default,
        help="hold out users, or the last days (default: %(default)s)",
    )
    parser.add_argument(
        "--test-from", type=_day, metavar="DAY", help="first day of test, like 2022-05-04 (default: the last two days)"
    )
    parser.add_argument(
        "--valid-days", type=_count, default=2, metavar="N", help="last days before test for validation (default: 2)"
    )
    # POSO section 5.3 trains on 100k of the 138k users of MovieLens-20M; a tenth of those is for validation here.
    parser.add_argument(
        "--test-share", type=float, default=0.278, metavar="P", help="share of users for test (default: 0.278)"
    )
    parser.add_argument(
        "--valid-share", type=float, default=0.072, metavar="P", help="share of users for validation (default: 0.072)"
    )
    parser.add_argument("--seed", type=_count, default=1, help="which users are held out (default: 1)")


def _open_kuairand(args: argparse.Namespace) -> tuple[EventLog, Split]:
    log = open_kuairand(args.data, tasks=args.tasks, signals=args.signals, include_random=args.include_random)
    return log, _chosen(args)


def _open_movielens(args: argparse.Namespace) -> tuple[EventLog, Split]:
    if args.split == "time" and args.test_from is None:
        raise UserError("--split time: needs --test-from DAY, the first day of test")
    return open_movielens(args.data), _chosen(args)


def _open_log(args: argparse.Namespace) -> tuple[EventLog, Split]:
    if args.out.resolve().is_relative_to(args.data.resolve()):
        raise UserError(
            f"--out {args.out}: lies in --data {args.data}, where it would be read as events; choose another"
        )
    return open_log(args.data, load_spec(args.spec)), _chosen(args)


def _chosen(args: argparse.Namespace) -> Split:
    return partial(_user_split if args.split == "users" else _time_split, args)


def _time_split(args: argparse.Namespace, events: Events) -> Any:
    return split_by_time(events.time, events.day, args.test_from, args.valid_days)


def _user_split(args: argparse.Namespace, events: Events) -> Any:
    return split_by_users(events.codes["user"], args.test_share, args.valid_share, args.seed)


def run(args: argparse.Namespace) -> None:
    """Prepares, then prints what was written. Raises UserError."""
    check_out(args.out)
    log, split = args.open(args)
    given = {n: v for n, v in vars(args).items() if n not in ("run", "open", "out", "command", "source")}
    arguments = {n: str(v) if isinstance(v, (date, Path)) else v for n, v in given.items()}
    options = PrepareOptions(
        history=args.history, item_history=args.item_history, periods=args.periods, arguments=arguments
    )
    content = prepare(log, args.out, split, options)
    counts = content["counts"]
    print(_what_was_read(content))
    rows = ", ".join(f"{s} {content['splits'][s]['rows']:,}" for s in SPLITS)
    print(f"{args.out}: {counts['users']:,} users, {counts['items']:,} items; samples: {rows}")
    print(f"{counts['duplicates_dropped']:,} of {counts['events_read']:,} rows were exact duplicates and dropped")


def _what_was_read(content: dict[str, Any]) -> str:
    """How much was read, and what of the folder was not."""
    read = {"file": "files_read", "row": "events_read", "day": "days_read"}
    amounts = ", ".join(
        f"{content['counts'][key]:,} {one}{'s' * (content['counts'][key] != 1)}" for one, key in read.items()
    )
    left_out = "; ".join(str(LeftOut(**left)) for left in content["left_out"])
    return f"{amounts} read; left out: {left_out or 'nothing'}"


def _names(text: str) -> list[str]:
    return [n.strip() for n in text.split(",") if n.strip()]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; write it like 2022-05-04") from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number, 0 or more")
    return int(text)
