"""How the process handles its memory."""

import ctypes
import platform
import re
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_NEVER = 2**31 - 1


def reuse_freed_memory() -> None:
    """Has the C library keep the memory that is freed for what is allocated next. By default it hands blocks of some
    megabytes back at once, and the system clears the same pages anew for every activation of every step: a fifth of a
    step's time at a batch of 4,096. glibc only; others stay as they are."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _NEVER)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def peak_mib() -> float | None:
    """MiB of resident memory that this program has taken at most; None where the system does not tell.

    Not getrusage's figure: a program inherits that from the one that started it."""
    status = Path("/proc/self/status")
    line = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(line[1]) / 1024 if line else None
