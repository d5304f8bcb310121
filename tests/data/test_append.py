"""A day at a time: `prepare --append` makes of a log that grows what `prepare` makes of all of it at once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, SPEC, START
from growing_logs import command, cut, log, write

from coldrank.data import place
from coldrank.data.errors import UserError
from coldrank.data.log import LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.split import Split, split_by_share, split_by_time
from coldrank.data.whole import Known

Json = dict[str, Any]


def rule(known: Known) -> Split:
    """Days where there are enough, as the command does."""
    late = known.whole.last > START + 3 * DAY_MS + DAY_MS // 2
    return split_by_time(known.days, None, 1) if late else split_by_share(known.times)


def options(**more: Any) -> PrepareOptions:
    return PrepareOptions(**({"history": 4, "item_history": 3, "arguments": {"split": "time"}} | more))


SPECS = {
    "days in another clock": replace(SPEC, day="dated"),
    "days by time": SPEC,
    "months": replace(SPEC, period="month"),
}


def contents(out: Path, manifest: Json) -> dict[tuple[str, str], bytes]:
    return {(p["split"], p["period"]): (out / p["path"]).read_bytes() for p in manifest["partitions"]}


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def same(one: Path, first: Json, other: Path, second: Json) -> None:
    """Whether two folders hold the same, byte for byte, but for how their states are cut into files."""
    assert contents(one, first) == contents(other, second)
    assert [p | {"path": ""} for p in first["partitions"]] == [p | {"path": ""} for p in second["partitions"]]
    for name in first.keys() - {"state", "partitions"}:
        if name == "counts":
            kept = first["counts"].keys() - {"files_read"}
            assert {n: first["counts"][n] for n in kept} == {n: second["counts"][n] for n in kept}
        else:
            assert first[name] == second[name], name
    assert set(files(other)) == {"manifest.json", *(p["path"] for p in second["partitions"]), *second["state"]["files"]}


@pytest.mark.parametrize("seed", range(4))
def test_a_log_in_chunks_gives_the_same_bytes(seed: int, tmp_path: Path) -> None:
    write(log(seed), tmp_path / "log", "events")
    opened = open_log(tmp_path / "log", SPECS["days in another clock"])
    made = {rows: prepare(opened, tmp_path / str(rows), rule, options(chunk_rows=rows)) for rows in (1, 20, 1_000_000)}
    for rows in (1, 20):
        same(tmp_path / "1000000", made[1_000_000], tmp_path / str(rows), made[rows])


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_day_at_a_time_is_all_at_once(spec: str, grows: bool, seed: int, tmp_path: Path) -> None:
    """grows: the folder of the log keeps its old files; else it holds the new ones alone."""
    frame = log(seed)
    rng = np.random.default_rng(seed)
    # At the ends of days, and in the midst of one.
    times = sorted({START + d * DAY_MS for d in (2, 3, 4)} | {int(rng.choice(frame["time"][40:]))})
    parts = cut(frame, times)
    # A file may hold rows of before again, and rows twice.
    parts = [
        pl.concat([before.tail(3), part, part.head(2)]) for before, part in zip([parts[0], *parts], parts, strict=False)
    ]
    write(pl.concat(parts), tmp_path / "all", "events")
    whole = prepare(open_log(tmp_path / "all", SPECS[spec]), tmp_path / "whole", rule, options())
    made: Json | None = None
    for number, part in enumerate(parts):
        folder = tmp_path / ("log" if grows else f"log{number}")
        write(part, folder, f"events{number}")
        make = append if number else prepare
        made = make(open_log(folder, SPECS[spec]), tmp_path / "out", rule, options(chunk_rows=1 + 30 * (number % 2)))
    assert made is not None and made["state"]["late"] == 0
    # Rows of before are known for prepared, not read again as duplicates.
    again = ("events_read", "duplicates", "duplicates_dropped")
    assert all(made["counts"][n] < whole["counts"][n] for n in again)
    made["counts"] |= {n: whole["counts"][n] for n in again}
    made["duplicates_share"] = whole["duplicates_share"]
    same(tmp_path / "whole", whole, tmp_path / "out", made)


def prepared(folder: Path, parts: list[pl.DataFrame], spec: LogSpec = SPEC) -> Json:
    """The first part, prepared from folder/log into folder/out."""
    write(parts[0], folder / "log", "a")
    return prepare(open_log(folder / "log", spec), folder / "out", rule, options())


@pytest.mark.tried("logs", "--append of a day that came twice", "the folder is as it was, byte for byte")
@pytest.mark.parametrize("again", ["the same file", "the same rows in another file"])
def test_a_day_that_came_twice_changes_nothing(again: str, tmp_path: Path) -> None:
    prepared(tmp_path, [log(0)])
    before = files(tmp_path / "out")
    if again == "the same file":
        (tmp_path / "log" / "b.parquet").write_bytes((tmp_path / "log" / "a.parquet").read_bytes())
    else:
        write(log(0).tail(30), tmp_path / "log", "b")
    assert append(open_log(tmp_path / "log", SPEC), tmp_path / "out", rule, options()) is None
    assert files(tmp_path / "out") == before


@pytest.mark.tried("logs", "--append of events that are not later than those prepared", "left out, counted")
def test_late_events_are_left_out_and_counted(tmp_path: Path) -> None:
    early, last = cut(log(1), [START + 4 * DAY_MS])
    prepared(tmp_path, [early])
    end = int(early["time"].max())
    # One at the very time of the last event, one of a prepared day, and one that is known.
    late = pl.concat(
        [
            last.head(1).with_columns(time=pl.lit(end)),
            last.head(1).with_columns(time=pl.lit(START + 1), user=pl.lit(77, pl.Int64)),
            early[5:6],
        ]
    )
    write(pl.concat([late, last]), tmp_path / "log", "b")
    made = append(open_log(tmp_path / "log", SPEC), tmp_path / "out", rule, options())
    assert made is not None and made["state"]["late"] == 2
    write(early, tmp_path / "honest", "a")
    write(last, tmp_path / "honest", "b")
    whole = prepare(open_log(tmp_path / "honest", SPEC), tmp_path / "whole", rule, options())
    assert contents(tmp_path / "out", made) == contents(tmp_path / "whole", whole)


class Killed(BaseException):
    """Stands for a kill: nothing after it is cleaned up."""


@pytest.mark.tried("data folders", "prepare --append killed at any point", "the old is read; again, it is whole")
@pytest.mark.parametrize(
    ("function", "count"), [("_place", 1), ("_place", 3), ("_place", 7), ("write_atomic", 1), ("_remove_unnamed", 1)]
)
def test_a_kill_leaves_the_folder_as_it_was(
    function: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = cut(log(2), [START + 4 * DAY_MS])
    before = prepared(tmp_path, parts)
    held = files(tmp_path / "out")
    write(parts[1], tmp_path / "log", "b")
    opened = open_log(tmp_path / "log", SPEC)
    real, calls = getattr(place, function), []

    def call(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == count:
            monkeypatch.setattr(place.shutil, "rmtree", lambda *_, **__: None)
            monkeypatch.setattr(place, "_remove_unnamed", lambda out: None)
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(place, function, call)
    with pytest.raises(Killed):
        append(opened, tmp_path / "out", rule, options())
    monkeypatch.undo()
    if function != "_remove_unnamed":
        now = files(tmp_path / "out")
        assert {name: now[name] for name in held} == held and before["state"]["files"]
        made = append(opened, tmp_path / "out", rule, options())
        assert made is not None
    else:  # the new manifest is there
        assert append(opened, tmp_path / "out", rule, options()) is None
        made = place.json.loads((tmp_path / "out" / "manifest.json").read_text())
    whole = prepare(opened, tmp_path / "whole", rule, options())
    assert contents(tmp_path / "out", made) == contents(tmp_path / "whole", whole)


REFUSED = {
    "--history 9": (["--history", "9"], "tag", "--history: 9, but "),
    "--test-share 0.3": (["--test-share", "0.3"], "tag", "--test-share: 0.3, but "),
    "another spec": ([], "author", "spec: column 'place': "),
}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(k, marks=pytest.mark.tried("logs", f"--append with {k} than before", "refused, named"))
        for k in REFUSED
    ],
)
def test_other_options_are_refused(how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(log(0), tmp_path / "log", "a")
    assert command(tmp_path) == 0
    more, place_, message = REFUSED[how]
    capfd.readouterr()
    assert command(tmp_path, "--append", *more, place=place_) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert message in line and line.endswith("prepare the data anew")


@pytest.mark.parametrize(
    ("more", "message"), [(["--split", "users"], "not with --split users"), (["--periods", "3"], "not with --periods")]
)
def test_what_depends_on_all_events_is_refused(
    more: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(log(0), tmp_path / "log", "a")
    assert command(tmp_path, *more) == 0
    assert command(tmp_path, "--append", *more) == 2
    assert f"--append: {message}" in capfd.readouterr().err


def test_months_of_a_calendar_of_its_own_are_refused(tmp_path: Path) -> None:
    spec = replace(SPEC, period="month", day="dated")
    prepared(tmp_path, [log(0)], spec)
    with pytest.raises(UserError, match="not with period='month' and a day of the log's own"):
        append(open_log(tmp_path / "log", spec), tmp_path / "out", rule, options())


def test_the_command_appends_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = cut(log(3), [START + 4 * DAY_MS])
    write(parts[0], tmp_path / "log", "a")
    assert command(tmp_path) == 0
    assert command(tmp_path, "--append") == 0
    assert "no event is later than those that it has; it is as it was" in capfd.readouterr().out
    late = parts[1].head(1).with_columns(time=pl.lit(START + 1), user=pl.lit(78, pl.Int64))
    write(pl.concat([parts[1], late]), tmp_path / "log", "b")
    assert command(tmp_path, "--append") == 0
    assert "1 event came late" in capfd.readouterr().err


@pytest.mark.tried("data folders", "--append to a folder without a state, or with a file of it gone", "refused, named")
def test_a_folder_without_its_state_is_refused(tmp_path: Path) -> None:
    parts = cut(log(0), [START + 4 * DAY_MS])
    made = prepared(tmp_path, parts)
    write(parts[1], tmp_path / "log", "b")
    opened, out = open_log(tmp_path / "log", SPEC), tmp_path / "out"
    run = next(n for n in made["state"]["files"] if n.endswith(".arrow"))
    content = (out / run).read_bytes()
    (out / run).write_bytes(content[:50])
    with pytest.raises(UserError, match=r"state: is damaged .*; prepare the data anew"):
        append(opened, out, rule, options())
    (out / run).unlink()
    with pytest.raises(UserError, match=f"{run}: no such file: the state is not whole"):
        append(opened, out, rule, options())
    manifest = place.json.loads((out / "manifest.json").read_text())
    del manifest["state"]
    (out / "manifest.json").write_text(place.json.dumps(manifest))
    with pytest.raises(UserError, match="was prepared without a state, by an older version; prepare it anew"):
        append(opened, out, rule, options())


def test_types_that_do_not_go_with_those_before_are_refused(tmp_path: Path) -> None:
    spec = replace(SPEC, context={"place": "author"})
    parts = cut(log(0), [START + 4 * DAY_MS])
    prepared(tmp_path, parts, spec)
    write(parts[1].with_columns(pl.col("author") + 0.5), tmp_path / "log", "b")
    with pytest.raises(UserError, match=r"author"):
        append(open_log(tmp_path / "log", spec), tmp_path / "out", rule, options())
