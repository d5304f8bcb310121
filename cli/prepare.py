"""`coldrank prepare`: the command line of the data preparation."""

import argparse
import sys
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from coldrank.cli.engine import add_engine, check_engine, prepare_on_spark
from coldrank.cli.options import count, data_path, local_path, option
from coldrank.cli.spec_options import add_delays, add_negatives, changed
from coldrank.data.errors import UserError
from coldrank.data.kuairand_names import DEFAULT_TASKS, NUMBERS, OUTCOME_COLUMNS

if TYPE_CHECKING:
    from coldrank.data.log import EventLog
    from coldrank.data.split import Split
    from coldrank.data.whole import Known

_ABOUT = """Turn an event log into training samples.

Each event becomes one sample with what was known strictly before its time: how often the user and the item had been
seen, smoothed rates of each signal, the user's last events. Events at the same time do not see each other. Rows that
are equal in all columns count once (--duplicates). An empty label stays unknown. The samples are Parquet files,
sorted by time, with a
manifest.json."""

_OWN_LOG = """Prepare your own event log: a file or a folder of them (--data), Parquet, CSV, TSV or JSON lines, text
also compressed (.gz, .zst). A Python file (--spec) describes it:

    from coldrank.data.log import Group, LogSpec

    spec = LogSpec(
        user="user_id", item="item_id", time="time",
        tasks={"click": "clicked"}, numbers={"watch_s": "seconds"}, levels={"stars": "stars"},
        item_features={"author": "author_id"}, item_table="items.parquet",
        keys={"author": "item_author"},
        groups=(Group(keys=("author",)), Group(keys=("user", "author"), parent="user")),
    )

`coldrank spec` writes a first one. Columns are given by name or as polars expressions; docs/spec_fields.md has
every field."""

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
    outcomes, names = ", ".join([*OUTCOME_COLUMNS, *NUMBERS]), ",".join(DEFAULT_TASKS)
    labels = ",".join([*DEFAULT_TASKS, *NUMBERS])
    parser.add_argument("--tasks", type=_names, default=labels, help=f"labels, among {outcomes} (default: %(default)s)")
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
    add_negatives(parser)
    parser.set_defaults(run=run, open=_open_movielens)


def _own_log(sources: Any) -> None:
    about = "your own event log (Parquet, CSV, TSV, JSON lines), described by a Python file"
    parser = sources.add_parser("log", help=about, description=_OWN_LOG, formatter_class=_FORM)
    parser.add_argument(
        "--spec", type=local_path, required=True, metavar="FILE", help="Python file that defines spec = LogSpec(...)"
    )
    _common(parser)
    _split(parser, "time")
    add_negatives(parser)
    parser.set_defaults(run=run, open=_open_log)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=data_path, required=True, metavar="DIR", help="folder of the log")
    parser.add_argument(
        "--out", type=data_path, required=True, metavar="DIR", help="folder to write; prepared data is replaced"
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="add the events that are later than all of DIR (--out), with its own options; the same samples as of all "
        "at once",
    )
    parser.add_argument(
        "--candidates",
        type=local_path,
        nargs=2,
        metavar=("FILE", "SAMPLES"),
        help="write the samples of events of FILE (columns as in the log) that have not happened yet to "
        "SAMPLES, as of their times, from DIR (--out), which stays as it is",
    )
    parser.add_argument(
        "--history", type=count, default=50, metavar="L", help="longest history, in events (default: 50)"
    )
    parser.add_argument(
        "--item-history", type=count, default=0, metavar="L", help="also the users of an item's last L events"
    )
    add_delays(parser)
    parser.add_argument(
        "--duplicates",
        choices=("drop", "keep"),
        default="drop",
        help="rows that are equal in all columns: one event, or as many (default: %(default)s)",
    )
    parser.add_argument(
        "--periods",
        type=count,
        default=0,
        metavar="N",
        help="N periods of equally many events (default: days or months)",
    )
    add_engine(parser)


def _split(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--split",
        choices=("users", "time"),
        default=default,
        help="hold out users, or what is last (default: %(default)s)",
    )
    parser.add_argument(
        "--test-from",
        type=_day,
        metavar="DAY",
        help="first day of test, like 2022-05-04 (default: the last two days; where days are few, or these hold "
        "under 1%% of the "
        "events, the last tenth of the events, and the tenth before for validation)",
    )
    parser.add_argument(
        "--valid-days", type=count, metavar="N", help="last days before test for validation (default: 2)"
    )
    # POSO section 5.3 trains on 100k of the 138k users of MovieLens-20M; a tenth of those is for validation here.
    parser.add_argument(
        "--test-share",
        type=float,
        metavar="P",
        help="share for test: of the users (default: 0.278), or of the events in the order of time",
    )
    parser.add_argument(
        "--valid-share",
        type=float,
        metavar="P",
        help="share for validation: of the users (default: 0.072) or events (0.1)",
    )
    parser.add_argument("--seed", type=count, help="which users are held out (default: 1)")


def _open_kuairand(args: argparse.Namespace) -> "EventLog":
    from coldrank.data.kuairand import open_kuairand

    return open_kuairand(args.data, tasks=args.tasks, signals=args.signals, include_random=args.include_random)


def _open_movielens(args: argparse.Namespace) -> "EventLog":
    from coldrank.data.movielens import open_movielens

    return open_movielens(args.data)


def _open_log(args: argparse.Namespace) -> "EventLog":
    from coldrank.data.location import is_url
    from coldrank.data.own_log import load_spec, open_log

    if is_url(args.out) == is_url(args.data) and args.out.resolve().is_relative_to(args.data.resolve()):
        raise UserError(
            f"--out {args.out}: lies in --data {args.data}, where it would be read as events; choose another"
        )
    return open_log(args.data, load_spec(args.spec))


def _check_split(args: argparse.Namespace) -> None:
    """Raises UserError for an option that the way of splitting makes idle."""
    by_share = [n for n in ("test_share", "valid_share") if getattr(args, n) is not None]
    by_day = [n for n in ("test_from", "valid_days") if getattr(args, n) is not None]
    idle = by_day if args.split == "users" else [n for n in ("seed",) if getattr(args, n) is not None]
    if idle:
        raise UserError(f"{option(idle[0])}: has no effect with --split {args.split}")
    if args.split == "time" and by_share and by_day:
        raise UserError(f"{option(by_share[0])}: has no effect beside {option(by_day[0])}; give days or shares")


def _split_rule(args: argparse.Namespace, arguments: dict[str, Any], known: "Known") -> "Split":
    """The split that is asked for, or fits the log. What was left open is written into `arguments`, as it was
    chosen."""
    from coldrank.data.split import (
        TEST_SHARE,
        VALID_DAYS,
        VALID_SHARE,
        serves_by_days,
        split_by_share,
        split_by_time,
        split_by_users,
    )
    from coldrank.data.times import as_date

    def chosen(name: str, default: Any) -> Any:
        value = getattr(args, name)
        arguments[name] = str(value) if isinstance(value, date) else default if value is None else value
        return default if value is None else value

    if args.split == "users":
        shares = chosen("test_share", 0.278), chosen("valid_share", 0.072)
        return split_by_users(known.users, *shares, chosen("seed", 1))
    by_share = args.test_share is not None or args.valid_share is not None
    by_day = args.test_from is not None or args.valid_days is not None
    if by_share or not (by_day or serves_by_days(known.days, VALID_DAYS)):
        return split_by_share(known.times, chosen("test_share", TEST_SHARE), chosen("valid_share", VALID_SHARE))
    split = split_by_time(known.days, args.test_from, chosen("valid_days", VALID_DAYS))
    if args.test_from is None:
        arguments["test_from"] = str(as_date(split.test_day))
    return split


def run(args: argparse.Namespace) -> None:
    """Prepares, then prints what was written. Raises UserError."""
    from coldrank.data.audit.audit import share
    from coldrank.data.candidates import write_candidates
    from coldrank.data.output import check_file
    from coldrank.data.place import check_out
    from coldrank.data.prepare import PrepareOptions, append, prepare
    from coldrank.data.split import SPLITS
    from coldrank.data.warn import joined_words

    _check_split(args)
    check_engine(args)
    if args.append and args.candidates:
        raise UserError("--append: has no effect with --candidates")
    if args.candidates:
        check_file("--candidates", args.candidates[1])
    else:
        check_out(args.out)
    log = changed(args.open(args), args)
    given = {
        n: v
        for n, v in vars(args).items()
        if n not in ("run", "open", "out", "command", "source", "append", "candidates", "spark_conf")
    }
    arguments = {n: str(v) if isinstance(v, date) or n in ("data", "spec") else v for n, v in given.items()}
    arguments["known_after"] = dict(args.known_after or ())
    options = PrepareOptions(
        history=args.history,
        item_history=args.item_history,
        periods=args.periods,
        keep_duplicates=args.duplicates == "keep",
        arguments=arguments,
    )
    if args.candidates:
        file, samples = args.candidates
        written = write_candidates(log, args.out, file, samples, arguments)
        print(f"{samples}: {written:,} samples of events that have not happened yet")
        return
    write = prepare_on_spark(args) if args.engine == "spark" else append if args.append else prepare
    content = write(log, args.out, partial(_split_rule, args, arguments), options)
    if content is None:
        print(f"{args.out}: no event is later than those that it has; it is as it was")
        return
    counts = content["counts"]
    if args.append and (late := content["state"]["late"]):
        came = "event came" if late == 1 else "events came"
        print(f"warning: {late:,} {came} late in all, and {'is' if late == 1 else 'are'} left out", file=sys.stderr)
    print(_what_was_read(content))
    rows = ", ".join(f"{s} {content['splits'][s]['rows']:,}" for s in SPLITS)
    print(f"{args.out}: {counts['users']:,} users, {counts['items']:,} items; samples: {rows}")
    if (anonymous := counts.get("anonymous_events")) is not None:
        print(f"{anonymous:,} events ({share(anonymous, _events(content))}) are anonymous, of a user of their own each")
    if (sampled := counts.get("negatives")) is not None:
        print(f"{sampled:,} of these are sampled negatives; {counts['events_with_fewer_negatives']:,} events got fewer")
    print(_how_it_is_split(content))
    for name, shares in content["joined"].items():
        print(f"table of {name}: has rows for {joined_words(name, shares)}")
    done = "dropped" if args.duplicates == "drop" else "kept"
    duplicates, read = counts["duplicates"], counts["events_read"]
    print(f"{duplicates:,} of {read:,} rows ({share(duplicates, read)}) were exact duplicates and {done}")


def _events(content: dict[str, Any]) -> int:
    return sum(int(split["rows"]) - int(split.get("negatives", 0)) for split in content["splits"].values())


def _how_it_is_split(content: dict[str, Any]) -> str:
    """The days of the log, and the rule that made its splits."""
    span, asked = content["span"], content["arguments"]
    if asked["split"] == "users":
        rule = f"{asked['test_share']:g} of the users are test, {asked['valid_share']:g} valid"
    elif asked["test_share"] is not None:
        rule = f"the last {asked['test_share']:g} of the events are test, {asked['valid_share']:g} before valid"
    else:
        rule = f"days from {asked['test_from']} on are test, {asked['valid_days']} before valid"
    return f"{span['first_day']} to {span['last_day']}; {rule}"


def _what_was_read(content: dict[str, Any]) -> str:
    """How much was read, and what of the folder was not."""
    from coldrank.data.folder import LeftOut

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
