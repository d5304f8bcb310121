"""Options of `coldrank prepare` that change the spec of a log: delays, refreshes and negatives."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coldrank.cli.options import count, option
from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from coldrank.data.log import EventLog

# Option -> field of `Negatives`.
_NEGATIVE = {"negatives": "per_positive", "negative_draw": "draw", "negative_of": "of"}


def add_delays(parser: argparse.ArgumentParser) -> None:
    """Adds --known-after and --refresh-hours."""
    parser.add_argument(
        "--known-after",
        type=_delay,
        action="append",
        metavar="SIGNAL=SECONDS",
        help="count an outcome, and show it in histories, only so long after its event; may be given several times "
        "(default: as the spec says; at any later time)",
    )
    parser.add_argument(
        "--refresh-hours",
        type=float,
        metavar="H",
        help="counters, rates and histories as of the last full H hours from midnight at the spec's utc_offset_h "
        "(default: as the spec says; 0, as of the event)",
    )


def add_negatives(parser: argparse.ArgumentParser) -> None:
    """Adds --negatives and what goes with it; not of KuaiRand, whose log says what was shown."""
    parser.add_argument(
        "--negatives",
        type=count,
        metavar="N",
        help="beside each event N samples of other items, drawn at random, of label 0: for a log of positives alone "
        "(default: as the spec says; none)",
    )
    parser.add_argument(
        "--negative-draw",
        choices=("uniform", "popularity"),
        help="how they are drawn: all items alike, or by their events before (default: as the spec says; uniform)",
    )
    parser.add_argument(
        "--negative-of",
        metavar="TASK",
        help="only beside events in which this task or signal is 1 (default: as the spec says; beside all)",
    )


def changed(log: "EventLog", args: argparse.Namespace) -> "EventLog":
    """The log with the delays and the negatives that are asked for."""
    from coldrank.data.log import Negatives

    changes: dict[str, Any] = {}
    if args.known_after:
        changes["known_after"] = {**log.spec.known_after, **dict(args.known_after)}
    if args.refresh_hours is not None:
        changes["refresh_h"] = args.refresh_hours
    if negatives := _given_negatives(args):
        if log.spec.negatives is None and "per_positive" not in negatives:
            idle = next(n for n, field in _NEGATIVE.items() if field in negatives)
            raise UserError(f"{option(idle)}: has no effect without --negatives, as the spec has none")
        changes["negatives"] = replace(log.spec.negatives or Negatives(), **negatives)
    return replace(log, spec=replace(log.spec, **changes)) if changes else log


def _given_negatives(args: argparse.Namespace) -> dict[str, Any]:
    """Field of `Negatives` -> what is asked for."""
    return {field: value for name, field in _NEGATIVE.items() if (value := getattr(args, name, None)) is not None}


def _delay(text: str) -> tuple[str, float]:
    signal, _, seconds = text.partition("=")
    try:
        return signal.strip(), float(seconds)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: should be a signal and seconds, like like=3600") from None
