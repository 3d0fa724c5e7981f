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
from typing import TypeVar

import numpy as np
from torch import Tensor

__all__ = ["MISSING_KEY", "hash_rows", "mix64", "salt"]

MISSING_KEY = -(2**63)
"""The key that stands for "no value": the least int64, refused as a real id."""

Integers = TypeVar("Integers", Tensor, np.ndarray)

_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64


def salt(*words: str | int) -> int:
    """Return the int64 salt named by ``words``.

    >>> salt("city", 0) == salt("city", 0), salt("city", 0) == salt("city", 1)
    (True, False)
    """
    text = "\x1f".join(str(word) for word in words).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _shift_right(x: Integers, bits: int) -> Integers:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical shift of a signed integer


def mix64(keys: Integers) -> Integers:
    """Mix int64 ``keys`` of any shape into int64 of the same shape (a bijection).

    >>> import torch
    >>> mix64(torch.tensor([0, 1, -1])).tolist()
    [0, 6238072747940578789, -5417735806833148549]
    """
    x = (keys ^ _shift_right(keys, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    mixed: Integers = x ^ _shift_right(x, 31)
    return mixed


def hash_rows(keys: Integers, salts: Integers | int, rows: Integers | int) -> Integers:
    """Return int64 addresses in ``0 .. rows-1`` of int64 ``keys`` under ``salts`` (both broadcast).

    ``rows`` must be at most 2**31.

    >>> import torch
    >>> hash_rows(torch.tensor([7, 8]), salt("city", 0), 100).tolist()
    [59, 62]
    """
    high = _shift_right(mix64(keys ^ salts), 32)
    addresses: Integers = _shift_right(high * rows, 32)
    return addresses
