"""Numbers as unsigned integers in the same order, so that ranks are found by counting. Pure.

A value's *key* is an integer that is smaller where the value is: the bits of an IEEE float,
those of the negative ones turned over; the bits of an integer with the sign's turned over.
The first bits of a key, its *code*, say where about a value lies: for what has more than 16
bits they are the first 20 of the nearest float64, sign, exponent and 8 bits of the
fraction, so that the values of one code differ by less than 1 part in 256.

>>> values = np.array([-1.5, 0.0, 2.0])
>>> keys = to_keys(values)
>>> bool((np.diff(keys.astype(object)) > 0).all()), from_key(int(keys[2]), values.dtype)
(True, np.float64(2.0))
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CODES", "code_count", "first_key", "from_key", "key_bits", "to_codes", "to_keys"]

Array = NDArray[Any]
Keys = NDArray[np.uint64]

CODE_BITS = 20
CODES = 2**CODE_BITS
SHORT = 16
"""Bits of a key that is its own code."""


def key_bits(dtype: np.dtype[Any]) -> int:
    """Return how many bits the keys of a dtype have."""
    return 8 * dtype.itemsize


def code_count(dtype: np.dtype[Any]) -> int:
    """Return how many codes there are for a dtype."""
    return 1 << key_bits(dtype) if key_bits(dtype) <= SHORT else CODES


def to_keys(values: Array) -> Keys:
    """Return the keys of numbers, bools or date-times, none of them NaN or NaT.

    The two zeros of a float have one key.
    """
    kind, bits = values.dtype.kind, key_bits(values.dtype)
    plain = np.dtype(f"u{values.dtype.itemsize}")
    top = plain.type(1 << (bits - 1))
    if kind in "ub":
        keys: Array = values.view(plain)
    elif kind in "iM":
        keys = values.view(plain) ^ top
    else:
        # -0.0 + 0.0 is 0.0.
        raw = (values + values.dtype.type(0)).view(plain)
        keys = np.where(raw & top, ~raw, raw | top)
    return keys.astype(np.uint64)


def from_key(key: int, dtype: np.dtype[Any]) -> Any:
    """Return the value, a scalar of the dtype, that has a key."""
    plain = np.dtype(f"u{dtype.itemsize}")
    top = 1 << (key_bits(dtype) - 1)
    if dtype.kind in "iM":
        key ^= top
    elif dtype.kind == "f":
        key = key ^ top if key & top else key ^ (2 * top - 1)
    return np.array([key], plain).view(dtype)[0]


def to_codes(values: Array) -> NDArray[np.int64]:
    """Return the codes of values; see :func:`to_keys`."""
    if key_bits(values.dtype) <= SHORT:
        return to_keys(values).astype(np.int64)
    numbers = values.view(np.int64) if values.dtype.kind == "M" else values
    # Where a float64 is the nearest only, it is so in the same order.
    return (to_keys(numbers.astype(np.float64)) >> np.uint64(64 - CODE_BITS)).astype(np.int64)


def first_key(code: int, dtype: np.dtype[Any]) -> int:
    """Return the smallest key whose value has this code or a larger one."""
    if code_count(dtype) != CODES:
        return code
    low, high = 0, 1 << key_bits(dtype)
    if dtype.kind == "f":
        # Beyond the infinities are NaNs, which have no place in the order.
        top = to_keys(np.array([-np.inf, np.inf], dtype)).tolist()
        low, high = top[0], top[1] + 1
    while low < high:
        middle = (low + high) // 2
        if to_codes(np.array([from_key(middle, dtype)], dtype))[0] < code:
            low = middle + 1
        else:
            high = middle
    return low
