"""Shared helpers of the tests."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.dtypes import StringDType

from ratzarr import RatZarr, RatZarrError
from ratzarr.format import dtypes

STRING = StringDType()
BYTES = dtypes.BYTES


def message(error):
    """Return the text of an error, with its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


@contextmanager
def refused(place, *fragments, table=None, error=RatZarrError, doing="", look=True):
    """Check that the block is refused with a message that has these fragments, and changes
    nothing.

    ``doing`` describes the case in a failure message, for tests with many cases in a loop. Such
    tests can compare the store once, before and after the loop, and not each time (``look``),
    because comparing a bucket is slow.
    """
    if table is not None:
        table.flush()
    before = place.everything() if look else None
    try:
        with pytest.raises(error) as caught:
            yield caught
    except BaseException as failure:
        if doing:
            failure.add_note(f"while doing: {doing}")
        raise
    assert isinstance(caught.value, RatZarrError)
    said = message(caught.value)
    assert len(said) > 10, said
    for fragment in fragments:
        assert fragment in said, f"{fragment!r} is not in the message: {said}"
    if table is not None:
        table.flush()
    if look:
        assert place.everything() == before


def assert_same(got, expected):
    """Check that two arrays are equal in dtype, shape and every bit."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.dtype.kind in "OT":
        assert got.tolist() == expected.tolist()
    else:
        assert got.tobytes() == expected.tobytes()


def make(url, rows, chunk=4, **columns):
    """Return an open table with these columns, given as (dtype,) or (dtype, width)."""
    table = RatZarr(url)
    table.setChunkSize(chunk)
    table.setRowCount(rows)
    for name, (dtype, *width) in columns.items():
        table.createColumn(name, dtype, *width)
    return table


def write_now(table, name, block, start):
    """Write a block and flush it, so that errors appear here even with a buffer."""
    table.writeBlock(name, block, start)
    table.flush()


def document(place, url, key=""):
    """Return the stored zarr.json of a node."""
    path = f"{key}/zarr.json" if key else "zarr.json"
    return json.loads(place.content(url, path))


def raw(place, url, key):
    """Return a column's values as zarr itself reads them."""
    return place.open(url)[f"RAT/{key}"][:]


def change_document(place, url, key, change):
    """Change a zarr.json by hand."""
    contents = document(place, url, key)
    change(contents)
    place.put(url, f"{key}/zarr.json" if key else "zarr.json", json.dumps(contents).encode())


def bits(dtype, count, seed=1):
    """Return values of ``dtype`` from random bits, preceded by extremes and special values."""
    dtype = np.dtype(dtype)
    values = np.frombuffer(
        np.random.default_rng(seed).bytes(count * dtype.itemsize), dtype=f"u{dtype.itemsize}"
    ).copy()
    special = special_bits(dtype)[:count]
    values[: len(special)] = special
    return values.view(dtype)


def special_bits(dtype):
    """Return bit patterns that conversions change: signed zero, NaN payloads, extremes."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    if dtype.kind == "f":
        info = np.finfo(dtype)
        exponent = int(np.array(np.inf, dtype).view(unsigned))
        sign = 1 << (8 * dtype.itemsize - 1)
        plain = np.array([info.max, info.min, info.smallest_subnormal], dtype).view(unsigned)
        # -0.0, infinities, quiet and signalling NaNs with payloads, either sign
        payloads = [exponent | 1, sign | exponent | 1, exponent | (exponent >> 6) | 5]
        return [sign, exponent, sign | exponent, *payloads, *plain.tolist()]
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.array([info.max, info.min, 0, 1], dtype).view(unsigned).tolist()
    return []
