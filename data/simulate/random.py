"""Counter-based random numbers: every draw is a function of (seed, stream, id, slot).

So nothing is stored, and the order of draws is free.

The mixer is SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators", section 5).
"""

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(state: U64) -> U64:
    """The output function of SplitMix64, in place on `state` [n]; wraps modulo 2**64."""
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def _slot(keys: U64, slot: int) -> U64:
    return _mix(keys + np.uint64((slot + 1) * _GOLDEN & _MASK))


def stream_keys(seed: int, stream: int, ids: I64) -> U64:
    """One key per id, uint64 [n], different for every (seed, stream). ids: int64 [n]."""
    root = np.array([seed & _MASK], dtype=np.uint64)
    root = _mix(_mix(root) + np.uint64(stream * _GOLDEN & _MASK))
    return _mix(ids.astype(np.uint64) * np.uint64(_GOLDEN) + root)


def child_keys(keys: U64, index: I64) -> U64:
    """The key of each key's index-th child (a user's n-th event), uint64 [n]. index: int64 [n]."""
    return _mix(keys ^ _mix(index.astype(np.uint64) + np.uint64(_GOLDEN)))


def uniforms(keys: U64, count: int, first_slot: int = 0) -> list[F32]:
    """`count` arrays, float32 [n], in the open interval (0, 1).

    Two per hash of 64 bits, of 23 bits each, so that 1 is never reached.
    """
    draws: list[F32] = []
    for slot in range(first_slot, first_slot + (count + 1) // 2):
        bits = _slot(keys, slot)
        for half in (bits >> np.uint64(41), bits & np.uint64((1 << 23) - 1)):
            draws.append((half.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23))
    return draws[:count]


def normals(keys: U64, count: int, first_slot: int = 0) -> F32:
    """Approximately standard normal float32 [n, count]: the scaled sum of four 16-bit uniforms, so within +-3.47."""
    out = np.empty((len(keys), count), dtype=np.float32)
    for column in range(count):
        parts = _slot(keys, first_slot + column).view(np.uint16).reshape(-1, 4)
        total = parts.sum(axis=1, dtype=np.uint32).astype(np.float32)
        out[:, column] = (total - np.float32(4 * 32767.5)) * np.float32(3.0**0.5 / 65536.0)
    return out
