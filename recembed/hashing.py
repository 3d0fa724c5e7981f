"""One integer hash, the same bits from NumPy and from torch, on every run and machine.

``mix64`` is the 64-bit finaliser of SplitMix64 (Steele, Lea and Flood, 2014; constants by Stafford,
variant 13) on two's-complement int64. A hashed row address is ``reduce(mix64(key ^ salt), rows)``: the
upper 32 bits of the mix, scaled to ``rows`` by multiplication (no modulo). A salt is the first eight
bytes of BLAKE2b over the words that name it (feature name, probe number, seed), so it depends on names
and never on the order of registration.

Test vectors (also in ``tests/test_hashing.py``)::

    mix64(0) = 0    mix64(1) = 6238072747940578789    mix64(-1) = -5417735806833148549
"""

import hashlib
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["MISSING_KEY", "hash_rows", "is_plain", "mix64", "salt"]

MISSING_KEY = -(2**63)
"""The key that stands for "no value": the least int64, refused as a real id."""

Integers = TypeVar("Integers", Tensor, np.ndarray)

_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB
_BLOCK = 2**14
"""Keys hashed at a time: they and a scratch of their size stay in the first caches."""


def salt(*words: str | int) -> int:
    """Return the int64 salt named by ``words``.

    >>> salt("city", 0) == salt("city", 0), salt("city", 0) == salt("city", 1)
    (True, False)
    """
    text = "\x1f".join(str(word) for word in words).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def mix64(keys: Integers) -> Integers:
    """Mix int64 ``keys`` of any shape into int64 of the same shape (a bijection).

    >>> import torch
    >>> mix64(torch.tensor([0, 1, -1])).tolist()
    [0, 6238072747940578789, -5417735806833148549]
    """
    if isinstance(keys, np.ndarray):
        return _hash_blocks(keys, 0, None)
    if is_plain(keys):
        return torch.from_numpy(_hash_blocks(keys.numpy(), 0, None))
    return _mix(keys)


def hash_rows(keys: Integers, salts: Integers | int, rows: Integers | int, first: Integers | int = 0) -> Integers:
    """Return int64 addresses in ``first .. first+rows-1`` of int64 ``keys`` under ``salts`` (all broadcast).

    ``rows`` must be at most 2**31.

    >>> import torch
    >>> hash_rows(torch.tensor([7, 8]), salt("city", 0), 100).tolist()
    [59, 62]
    """
    if isinstance(keys, np.ndarray):
        return _hash_blocks(keys, salts, rows, first)
    if is_plain(keys):
        return torch.from_numpy(_hash_blocks(keys.numpy(), salts, rows, first))
    return _shift_right(_shift_right(_mix(keys ^ salts), 32) * rows, 32) + first


def is_plain(keys: Tensor) -> bool:
    """Tell whether NumPy can read ``keys``: on CPU, and neither compiled nor exported."""
    return type(keys) is Tensor and keys.device.type == "cpu" and not torch.compiler.is_compiling()


def _hash_blocks(keys: np.ndarray, salts: Any, rows: Any, first: Any = 0) -> np.ndarray:
    """Hash unsigned, in place and block by block; without ``rows`` the keys are mixed and no more."""
    parts = [np.asarray(part, np.int64) for part in (keys, salts, 0 if rows is None else rows, first)]
    shape = np.broadcast_shapes(*(part.shape for part in parts))
    sources, salted, buckets, starts = (np.atleast_1d(np.broadcast_to(part, shape)).view(np.uint64) for part in parts)
    hashed = np.empty(sources.shape, np.uint64)
    step = max(1, _BLOCK * len(hashed) // max(hashed.size, 1))
    scratch = np.empty((min(step, len(hashed)), *hashed.shape[1:]), np.uint64)
    for start in range(0, len(hashed), step):
        block = slice(start, start + step)
        x = np.bitwise_xor(sources[block], salted[block], out=hashed[block])
        shifted = scratch[: len(x)]
        x ^= np.right_shift(x, 30, out=shifted)
        x *= np.uint64(_MULTIPLIER_1)
        x ^= np.right_shift(x, 27, out=shifted)
        x *= np.uint64(_MULTIPLIER_2)
        x ^= np.right_shift(x, 31, out=shifted)
        if rows is not None:
            x >>= np.uint64(32)
            x *= buckets[block]
            x >>= np.uint64(32)
            x += starts[block]
    return hashed.view(np.int64).reshape(shape)


def _mix(keys: Tensor) -> Tensor:
    """The same mix of a tensor, for any device and any graph."""
    x = (keys ^ _shift_right(keys, 30)) * (_MULTIPLIER_1 - 2**64)
    x = (x ^ _shift_right(x, 27)) * (_MULTIPLIER_2 - 2**64)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical shift of a signed integer
