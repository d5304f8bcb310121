"""One writer a folder: who is refused, who takes over, and who has to stop."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tiny import sample_base

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.train import lock as locks
from coldrank.train.config import to_dict
from coldrank.train.lock import Holder, Lock

HOLD = "import sys, time; from pathlib import Path; from coldrank.train.lock import Lock\n"
HOLD += "with Lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
LONG_AGO, FAR_AHEAD = 10**18, 4 * 10**18


@pytest.fixture
def quick(monkeypatch):
    """A patience that a test can wait for."""
    for name, seconds in {"BEAT_S": 0.05, "PATIENCE_S": 0.6, "RESTART_S": 0.2, "POLL_S": 0.03, "DYING_S": 0.1}.items():
        monkeypatch.setattr(locks, name, seconds)


def left_by(folder: Path, **changes) -> Path:
    """A lock as a process of another host has left it."""
    holder = replace(Holder.me(), **({"host": "node-7", "machine": "another boot", "pid": 4711} | changes))
    file = folder / "lock" / holder.token
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(asdict(holder)))
    return file


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_ino, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.tried("configs and runs", "a run folder that another process of this host writes", "refused, naming it")
@pytest.mark.tried("configs and runs", "a run folder whose process was killed on this host", "taken over at once")
def test_a_holder_of_this_host_is_known_by_its_process(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, run], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout and other.stdout.readline() == "held\n"
            (run / "config.json").write_text("{}")
            before, began = content(tmp_path), time.monotonic()
            with pytest.raises(UserError, match=rf"run: is in use by process {other.pid} on \S+, since 20\S+ \S+ UTC;"):
                Lock(run).__enter__()
            assert time.monotonic() - began < 4 and content(tmp_path) == before
        finally:
            other.send_signal(signal.SIGKILL)
        began = time.monotonic()
        with Lock(run) as lock:  # the process is not even waited for
            assert time.monotonic() - began < 4 and lock.lost() is None
            assert os.listdir(run / "lock") == [lock.me.token]
    assert [p.name for p in run.iterdir()] == ["config.json"]


@pytest.mark.tried("configs and runs", "a lock whose process id another process has now", "taken over at once")
def test_a_process_id_that_is_used_again_is_not_the_holder(tmp_path):
    me = Holder.me()
    left_by(tmp_path, host=me.host, machine=me.machine, pid=me.pid, started="1")
    with Lock(tmp_path) as lock:
        assert lock.lost() is None


@pytest.mark.tried("configs and runs", "a lock of a host that is gone, its clock ahead", "taken over after a minute")
@pytest.mark.parametrize("clock", [LONG_AGO, FAR_AHEAD])
def test_a_holder_elsewhere_that_gives_no_sign_is_dead_after_a_while_whatever_its_clock(quick, tmp_path, clock):
    os.utime(left_by(tmp_path), ns=(clock, clock))
    began = time.monotonic()
    with Lock(tmp_path) as lock:
        assert 0.6 < time.monotonic() - began < 10
        assert os.listdir(tmp_path / "lock") == [lock.me.token]


@pytest.mark.tried("configs and runs", "a run folder that a process of another host writes", "refused, naming it")
@pytest.mark.parametrize("clock", [LONG_AGO, FAR_AHEAD])
def test_a_holder_elsewhere_that_beats_is_alive_whatever_its_clock(quick, tmp_path, clock):
    file, ended = left_by(tmp_path), threading.Event()

    def beat():
        at = clock
        while not ended.wait(0.1):
            at += 10**9
            os.utime(file, ns=(at, at))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="is in use by process 4711 on node-7"):
            Lock(tmp_path).__enter__()
    finally:
        ended.set()
        thread.join()
    assert content(tmp_path).keys() == {str(file)}


def test_a_later_start_of_the_same_job_waits_less(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    me = Holder.me()
    earlier, same, elsewhere = (
        replace(me, jobs=jobs) for jobs in ({"torchrun job-1": 1}, me.jobs, {"torchrun job-2": 1})
    )
    assert [me.patience(other) for other in (earlier, same, elsewhere, None)] == [15, 60, 60, 60]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun's word for a job without a name
    assert Holder.me().jobs == {}


@pytest.mark.tried("configs and runs", "two processes that find the same dead holder", "one of them takes over")
def test_of_two_contenders_one_takes_over(quick, tmp_path):
    for turn in range(4):
        folder = tmp_path / str(turn)
        left_by(folder)
        entered, contenders = [], [Lock(folder) for _ in range(3)]
        meet, others = threading.Barrier(3), threading.Semaphore(0)

        def contend(lock, meet=meet, others=others, entered=entered):
            meet.wait()
            try:
                with lock:
                    entered.append(lock)
                    assert others.acquire(timeout=60) and others.acquire(timeout=60)
                    assert lock.lost() is None
                return None
            except UserError as error:
                others.release()
                return str(error)

        with ThreadPoolExecutor(3) as pool:
            refused = [text for text in pool.map(contend, contenders) if text]
        assert len(entered) == 1 and len(refused) == 2
        assert all(f"is in use by process {os.getpid()}" in text for text in refused)
        assert not list(folder.glob("lock*"))


@pytest.mark.tried(
    "configs and runs", "a dead holder whose lock another contender takes at that moment", "it does not seem to live"
)
def test_a_lock_that_is_taken_over_while_it_is_looked_at_is_no_sign_of_life(quick, monkeypatch, tmp_path):
    file = left_by(tmp_path)
    looks, loads = [], json.loads

    def taken_over(text):
        looks.append(text)
        if len(looks) == 2:
            file.rename(file.with_name("0" * len(file.name)))
        return loads(text)

    monkeypatch.setattr(locks.json, "loads", taken_over)
    with Lock(tmp_path) as lock:
        assert len(looks) > 2 and lock.lost() is None


def test_what_a_kill_leaves_on_the_way_to_a_lock_is_cleared(quick, tmp_path):
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock.0123").mkdir()
    (tmp_path / "lock.0123/0123").touch()
    with Lock(tmp_path) as lock:
        assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["lock", lock.me.token])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock/notes.txt").touch()
    with pytest.raises(UserError, match="lock: holds what is no lock; remove it"):
        Lock(tmp_path).__enter__()


def test_a_holder_that_took_the_lock_and_died_before_it_said_who_it_is(quick, tmp_path):
    file = left_by(tmp_path)
    os.rename(file, file.with_name("0" * len(file.name)))
    with Lock(tmp_path) as lock:
        assert lock.lost() is None


@pytest.fixture
def command(tmp_path, data):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(sample_base())))
    return ["train", "--config", str(tmp_path / "config.json"), "--data", str(data.path), "--set", "train.steps=4"]


@pytest.mark.tried(
    "configs and runs",
    "a second `train` on a run folder, or `evaluate`, also with --fresh",
    "refused, naming the first",
)
@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_second_train_changes_nothing(command, tmp_path, capfd, fresh):
    out = tmp_path / "run"
    assert main([*command, "--out", str(out)]) == 0
    with Lock(out):
        before = content(out)
        assert main([*command, "--out", str(out), *fresh]) == 2
        assert main(["evaluate", "--run", str(out), "--data", command[4]]) == 2
        assert content(out) == before
    assert capfd.readouterr().err.count(f"{out}: is in use by process {os.getpid()} on ") == 2
    assert main([*command, "--out", str(out), *fresh]) == 0 and not (out / "lock").exists()


@pytest.mark.tried("configs and runs", "a second `train --arms` or `tune` on one folder", "refused, naming the first")
def test_a_second_experiment_or_search_changes_nothing(data, tmp_path, capfd):
    arms = ["--config", "coldrank.configs.kuairand", "--arms", "base", "--data", str(data.path), "--out", str(tmp_path)]
    with Lock(tmp_path):
        before = content(tmp_path)
        assert main(["train", *arms]) == 2
        assert main(["tune", *arms, "--vary", "optim.dense.lr=1e-3..1e-2"]) == 2
        assert content(tmp_path) == before
    assert capfd.readouterr().err.count(f"{tmp_path}: is in use by process {os.getpid()} on ") == 2


@pytest.mark.tried("configs and runs", "no right to write in the run folder", "one line names it")
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError(13, "Permission denied", str(paths[0]))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError, match="lock"):
        Lock(tmp_path / "run").__enter__()
    assert list(tmp_path.iterdir()) == []
