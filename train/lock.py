"""One writer a folder: `train`, `evaluate` and whole experiments hold a lock in the folder that they write into.

`lock/` holds one file, named by its holder's token. Nothing here rests on flock or on clocks, which shared file systems
do not keep alike: a folder that is renamed to `lock` takes it where nobody has it, and a rename of the holder's file,
from its token to one's own, takes it over. Both happen on the file server, once: of two contenders one succeeds.

A live holder touches its file every few seconds. A holder on this very machine is known by its process; one elsewhere
is taken for dead when its file has not changed while it was watched for `PATIENCE_S`.
"""

import errno
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tqdm import tqdm

from coldrank.data.errors import UserError
from coldrank.data.output import make_folder, real_path
from coldrank.train.distributed.ranks import Ranks, made_by_first, of_first_rank

BEAT_S = 5.0
PATIENCE_S = 60.0
RESTART_S = 15.0
POLL_S = 0.5
# A process that is killed takes a moment to die.
DYING_S = 2.0
NAME = "lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a lock. machine: tells boots and process namespaces apart (empty: not known). started: of the process,
    as the machine counts. jobs: of torchrun and slurm -> how often they have started it again. since: UTC."""

    token: str
    host: str
    machine: str
    pid: int
    started: str
    jobs: dict[str, int]
    since: str

    @classmethod
    def me(cls) -> "Holder":
        """This process, with a new token."""
        pid = os.getpid()
        return cls(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            started=_started(pid) or "",
            jobs=_jobs(),
            since=datetime.now(UTC).isoformat(" ", "seconds").replace("+00:00", " UTC"),
        )

    def lives(self, other: "Holder") -> bool | None:
        """Whether another holder is alive, as far as this one can tell at once."""
        if self.machine and (self.machine, self.host) == (other.machine, other.host):
            return _runs(other.pid, other.started)
        return None

    def patience(self, other: "Holder | None") -> float:
        """Seconds after which another holder that gives no sign is taken for dead: few where it is of an earlier start
        of this very job, which torchrun and slurm end before they start it again."""
        if other and any(self.jobs[job] > other.jobs[job] for job in self.jobs.keys() & other.jobs.keys()):
            return RESTART_S
        return PATIENCE_S

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """The lock of a folder, held within `with`. Raises UserError that names the holder where another one has it;
    nothing in the folder is changed then."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        self.me = Holder.me()
        self.mine = self.path / self.me.token
        self._partial = folder / f"{NAME}.{self.me.token}"
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True, name="coldrank-lock")

    def __enter__(self) -> Self:
        made = not self.folder.exists()
        make_folder(self.folder)
        try:
            self._acquire()
        except BaseException:
            shutil.rmtree(self._partial, ignore_errors=True)
            if made:
                with suppress(OSError):
                    real_path(self.folder).rmdir()
            raise
        for left in self.folder.glob(f"{NAME}.*"):  # by who was killed on the way to the lock
            shutil.rmtree(left, ignore_errors=True)
        self._made = made
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._beats.join()
        with suppress(OSError):  # it may be another's by now
            self.mine.unlink()
            self.path.rmdir()
            if self._made:
                real_path(self.folder).rmdir()  # if nothing was written

    def lost(self) -> str | None:
        """Why this process may write no more; None while it holds the lock."""
        try:
            os.utime(self.mine)
        except FileNotFoundError:
            holder = next((h for token in self._tokens() if (h := self._read(token)[0])), None)
            who = f"{holder} has taken it" if holder else "it was removed"
            return f"{self.folder}: this process has lost its lock ({who}) and writes no more"
        except OSError as error:
            return f"{self.mine}: {error.strerror}"
        return None

    def check(self) -> None:
        """Raises UserError if the lock was lost."""
        if reason := self.lost():
            raise UserError(reason)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                os.utime(self.mine)
            except FileNotFoundError:
                return
            except OSError:
                continue  # a file server that does not answer now

    def _acquire(self) -> None:
        seen: tuple[str, int] | None = None
        waited, announced = 0.0, False
        began = last = time.monotonic()
        while True:
            tokens = self._tokens()
            if self.me.token in tokens:  # a rename that was done and reported as failed
                return
            if not tokens and self._take_free():
                return
            token = tokens[0] if tokens else ""
            holder, touched = self._read(token)
            mark = (token, touched)
            lives = self.me.lives(holder) if holder else None
            beats = seen is not None and seen[0] == token and seen[1] != mark[1]
            now = time.monotonic()
            if holder and (now - began > DYING_S if lives else lives is None and beats):
                raise UserError(f"{self.folder}: is in use by {holder}; wait for it or end it, or give another folder")
            # A file server that did not answer for long says nothing about the holder.
            waited = 0.0 if mark != seen else waited + min(now - last, 2 * POLL_S)
            seen, last = mark, now
            patience = self.me.patience(holder)
            if not tokens and waited > patience:
                raise UserError(f"{self.path}: holds what is no lock; remove it")
            if tokens and not lives and (lives is False or waited > patience):
                if self._take_over(token):
                    return
                continue
            if not announced and holder and waited and lives is None:
                announced, who = True, holder
                tqdm.write(f"{self.folder}: locked by {who}; waits up to {patience:g} s to see whether it lives")
            time.sleep(POLL_S)

    def _prepare(self) -> Path:
        self._partial.mkdir(parents=True, exist_ok=True)
        file = self._partial / self.me.token
        file.write_text(json.dumps(asdict(self.me)))
        return file

    def _take_free(self) -> bool:
        with suppress(OSError):
            self.path.rmdir()  # what a kill left between a holder's last two operations
        try:
            self._prepare()
            os.rename(self._partial, self.path)
        except OSError as error:
            shutil.rmtree(self._partial, ignore_errors=True)
            # Another was first; or cleared up what it took for left over.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                return False
            raise
        return True

    def _take_over(self, token: str) -> bool:
        try:
            os.rename(self.path / token, self.mine)
        except FileNotFoundError:
            return False  # another contender was first
        # Another file, so that a holder that stood still does not touch this one by what it remembers of the old.
        os.replace(self._prepare(), self.mine)
        self._partial.rmdir()
        if self._tokens() == [self.me.token]:
            return True
        self.mine.unlink(missing_ok=True)  # this process stood still in between, and has lost it again
        return False

    def _tokens(self) -> list[str]:
        try:
            # NFS has files of its own among them, `.nfs...`.
            return sorted(name for name in os.listdir(self.path) if len(name) == len(self.me.token))
        except FileNotFoundError:
            return []

    def _read(self, token: str) -> tuple[Holder | None, int]:
        """The holder, None where it has taken the lock and not yet said who it is; and when its file was touched. Both
        of one opened file: between two looks it may be taken over, and a dead holder would seem to have touched it."""
        try:
            with (self.path / token).open("rb") as file:  # opened, it is asked of the file server anew
                touched, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
        except OSError:
            return None, -1
        try:
            holder = Holder(**json.loads(text))
        except (ValueError, TypeError):
            return None, touched
        return holder if holder.token == token else None, touched


@contextmanager
def held(folder: Path, ranks: Ranks, check: Callable[[], None] = lambda: None) -> Iterator["Held"]:
    """The lock of a folder for all ranks of a job: the first one has it. Raises on every rank what the first one meets.

    check: what it does before it touches the folder."""
    lock = Lock(folder) if ranks.is_first else None
    with ExitStack() as stack:

        def take() -> str:
            assert lock is not None
            check()
            return stack.enter_context(lock).me.token

        yield Held(made_by_first(ranks, take), lock)


@dataclass(frozen=True, slots=True)
class Held:
    """A job's lock, on one rank. token: its name, on all ranks. lock: of the first."""

    token: str
    lock: Lock | None

    def check(self) -> None:
        """Raises UserError on every rank if the lock was lost. Called by all ranks."""
        if reason := of_first_rank(self.lock.lost() if self.lock else None):
            raise UserError(reason)


def _machine() -> str:
    """This boot of this machine and this namespace of processes, in which a process id has a meaning."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on: what comes before may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _started(pid: int) -> str | None:
    stat = _stat(pid)
    return stat[19] if stat else None


def _runs(pid: int, started: str) -> bool:
    """Whether the process that had this id and began then still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    stat = _stat(pid)
    return stat is None or (stat[0] not in "ZX" and stat[19] == started)


def _jobs() -> dict[str, int]:
    """The jobs that this process is of, and how often they were started again."""
    variables = {
        "torchrun": ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
        "slurm": ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"),
    }
    jobs = {
        f"{kind} {os.environ.get(name)}": int(os.environ.get(count, "0")) for kind, (name, count) in variables.items()
    }
    return {job: attempt for job, attempt in jobs.items() if job.split(" ", 1)[1] not in ("None", "none", "")}
