"""SIGTERM while training: a run that is to make way ends its step and writes a checkpoint first.

Slurm and Kubernetes send SIGTERM some seconds before SIGKILL when they preempt a job, and torchrun when a host is to
go.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist


class Stop:
    """Whether some rank has been sent SIGTERM: every rank hears of it at the same step."""

    def __init__(self) -> None:
        self.received = False
        # Flags are on the CPU; and a group of its own keeps them apart from what other threads send.
        self._group = dist.new_group(backend="gloo")
        self._pending: tuple[torch.Tensor, dist.Work] | None = None

    def asked(self) -> bool:
        """Whether a rank had received SIGTERM when this was last called; all ranks call it once a step.

        One step late, so that the flags travel while the step computes and no step waits for them.
        """
        before = self.finish()
        flag = torch.tensor([float(self.received)])
        work = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = (flag, work)
        return before

    def finish(self) -> bool:
        """Waits for the flags that are under way, if any; whether one was set."""
        if self._pending is None:
            return False
        (flag, work), self._pending = self._pending, None
        work.wait()
        return bool(flag)


@contextmanager
def preemption() -> Iterator[Stop]:
    """Within it, SIGTERM sets a flag instead of ending the process. Threads other than the main one cannot ask for
    that."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.received = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield stop
        stop.finish()
    finally:
        signal.signal(signal.SIGTERM, before)
