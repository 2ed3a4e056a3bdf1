r"""Strings to the bytes of ``vlen-utf8`` and back, many at a time, without a Python object for each.

The bytes are those that zarr's codec writes and reads: how many strings, then for each its
length and its UTF-8, lengths and number as little-endian uint32. Made one by one, through
objects, they cost more than everything else that is done with a column of text.

To write them, strings become rows of one width, padded, and each row is laid over the padding
of the one before. To read them, lengths are found by their zero bytes, which text as a rule
has none of; that this was right is then proved along the whole chain of lengths, each of which
says where the next one is. What is not like that (strings of 256 bytes and more, zero bytes in
text) goes the slow way.

>>> bytes(pack(np.array(["ab", "", "c"], STRING)))
b'\x03\x00\x00\x00\x02\x00\x00\x00ab\x00\x00\x00\x00\x01\x00\x00\x00c'
>>> unpack(pack(np.array(["ab", "", "c"], STRING)), 3)
array(['ab', '', 'c'], dtype=StringDType())
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numcodecs.vlen import VLenBytes, VLenUTF8
from numpy.typing import NDArray

__all__ = ["is_utf8", "pack", "pieces", "to_padded", "unpack"]

Array = NDArray[Any]
Bytes = NDArray[np.uint8]

STRING = np.dtypes.StringDType()
HEADER = 4
"""Bytes of a length, and of the number of strings."""
PIECE = 8192
"""Strings at a time: what they take when padded stays in the processor's cache."""
WIDEST = 4096
"""Bytes to which a piece is padded at most: longer strings go one by one."""
PADDED = 64 * 2**20
"""Bytes that all pieces together may take when they are wanted at once."""


def pack(values: Array) -> Bytes:
    """Return strings as ``vlen-utf8``.

    Parameters
    ----------
    values : ndarray of StringDType, or of fixed-width bytes that are UTF-8
        Of any shape: row by row.

    Returns
    -------
    ndarray of uint8
    """
    flat = values.reshape(-1)
    if flat.dtype.kind == "S" and (at_once := _pack_bytes(flat)) is not None:
        return at_once
    packed = [np.array([len(flat)], "<u4").view(np.uint8)]
    for first in range(0, len(flat), PIECE):
        piece = flat[first : first + PIECE]
        fast = _pack_padded(*padded) if (padded := _padded(piece)) is not None else None
        packed.append(fast if fast is not None else _pack_objects(piece))
    return np.concatenate(packed)


def _pack_bytes(values: Array) -> Bytes | None:
    """Pack fixed-width bytes into one array from the start; None where that is no way."""
    each = HEADER + values.dtype.itemsize
    if each > HEADER + WIDEST:
        return None
    # What is not needed of it is never touched, and so takes no memory.
    out = np.empty(HEADER + each * (len(values) + 1), np.uint8)
    out[:HEADER] = np.array([len(values)], "<u4").view(np.uint8)
    end = HEADER
    for first in range(0, len(values), PIECE):
        padded = _padded(values[first : first + PIECE])
        packed = None if padded is None else _pack_padded(*padded, out[end:])
        if packed is None:
            return None
        end += len(packed)
    return out[:end]


def _padded(values: Array) -> tuple[Array, NDArray[np.int64]] | None:
    """Return strings as fixed-width bytes, with their lengths; None where that is no way."""
    lengths = np.strings.str_len(values)
    width = int(lengths.max(initial=0))
    if width > WIDEST:
        return None
    if values.dtype.kind == "S":
        return values.astype(f"S{max(1, width)}", copy=False), lengths
    try:
        padded = values.astype(f"S{max(1, width)}")
    except UnicodeEncodeError:
        # numpy makes bytes of ASCII only.
        return None
    # Zero bytes at an end would be lost.
    return (padded, lengths) if np.array_equal(np.strings.str_len(padded), lengths) else None


def _pack_padded(
    values: Array, lengths: NDArray[np.int64], out: Bytes | None = None
) -> Bytes | None:
    rows, width = len(values), values.dtype.itemsize
    items = np.empty((rows, HEADER + width), np.uint8)
    items[:, :HEADER] = lengths.astype("<u4").view(np.uint8).reshape(rows, HEADER)
    items[:, HEADER:] = np.ascontiguousarray(values).view(np.uint8).reshape(rows, width)
    stops = np.cumsum(lengths + HEADER)
    starts, total = stops - lengths - HEADER, int(stops[-1])
    if out is None:
        out = np.empty(total + HEADER + width, np.uint8)
    # From each byte on, a row: they overlap, and each later one is laid over what was padding.
    places = np.ndarray((total,), f"V{HEADER + width}", out, strides=(1,))
    places[starts] = items.reshape(-1).view(places.dtype)
    # numpy does not promise in which order it assigns. In another one padding would lie over a
    # later length, unless that were zero and so of no string.
    headers = np.ndarray((total,), "V4", out, strides=(1,))[starts].view("<u4")
    return out[:total] if np.array_equal(headers, lengths) else None


def _pack_objects(values: Array) -> Bytes:
    if values.dtype.kind == "S":
        raw = VLenBytes().encode(values.astype(object))
    else:
        raw = VLenUTF8().encode(values.astype(object))
    return np.frombuffer(raw, np.uint8)[HEADER:]


def is_utf8(values: Array) -> bool:
    """Return whether fixed-width bytes, each of them, are UTF-8."""
    flat = np.ascontiguousarray(values).reshape(-1)
    width = flat.dtype.itemsize
    for first in range(0, len(flat), PIECE):
        piece = flat[first : first + PIECE]
        raw = piece.view(np.uint8).reshape(len(piece), width)
        if int(raw.max(initial=0)) < 0x80:
            continue
        # With a zero byte after each no character can go on in the next.
        apart = np.zeros((len(piece), width + 1), np.uint8)
        apart[:, :width] = raw
        try:
            str(apart.data, "utf-8")
        except UnicodeDecodeError:
            return False
    return True


def unpack(data: Any, count: int) -> Array:
    """Return the strings that ``vlen-utf8`` holds.

    Parameters
    ----------
    data : bytes-like
        With the number of strings at its beginning, which is ``count``.
    count : int
        How many there are.

    Returns
    -------
    ndarray of StringDType, of shape (count,)

    Raises
    ------
    ValueError
        For bytes that are no such strings. (UnicodeDecodeError is one.)
    """
    raw = np.frombuffer(data, np.uint8)
    out = np.empty(count, STRING)
    found = _lengths(raw, count)
    if found is None:
        out[:] = VLenUTF8().decode(data)
        return out
    for first, piece in _pieces(raw, *found):
        out[first : first + len(piece)] = piece
    return out


def pieces(data: Any, count: int) -> Iterator[tuple[int, Array]]:
    """Yield the strings that ``vlen-utf8`` holds as fixed-width bytes, some at a time.

    Parameters
    ----------
    data, count
        As for :func:`unpack`.

    Yields
    ------
    first : int
        Which string is the first.
    piece : ndarray of fixed-width bytes
        As wide as its longest. They are not looked at: they may not be UTF-8.
    """
    raw = np.frombuffer(data, np.uint8)
    found = _lengths(raw, count)
    if found is not None:
        yield from _pieces(raw, *found)
        return
    objects = VLenBytes().decode(data)
    first = 0
    while first < count:
        # One string that is very long is not to make thousands as long.
        sizes = np.fromiter(map(len, objects[first : first + PIECE]), np.int64)
        widest = np.maximum.accumulate(sizes) * np.arange(1, len(sizes) + 1)
        rows = max(1, int(np.searchsorted(widest, PIECE * WIDEST, side="right")))
        piece = objects[first : first + rows]
        if any(value.endswith(b"\x00") for value in piece):
            raise ValueError(
                "a string that ends in a zero byte, which fixed-width bytes can't keep"
            )
        yield first, piece.astype(f"S{max(1, int(sizes[:rows].max()))}")
        first += rows


def to_padded(data: Any, count: int) -> list[Array] | None:
    """Return the strings that ``vlen-utf8`` holds as fixed-width bytes, if that is a good way.

    Parameters
    ----------
    data, count
        As for :func:`unpack`.

    Returns
    -------
    list of ndarray of fixed-width bytes, or None
        In order, each as wide as its longest: UTF-8, and no zero byte in any of the strings.
        None where one has a zero byte, or 256 bytes or more; where they would take much more
        memory than :data:`PADDED`; where they are no strings: :func:`unpack` has them, or says
        why not.
    """
    raw = np.frombuffer(data, np.uint8)
    found = _lengths(raw, count)
    if found is None:
        return None
    _, lengths = found
    widest = np.maximum.reduceat(lengths, np.arange(0, count, PIECE))
    if int(widest.sum()) * PIECE > PADDED:
        return None
    # That every zero byte belongs to a length is what _lengths has proved.
    out = [piece for _, piece in _pieces(raw, *found)]
    return out if all(map(is_utf8, out)) else None


def _lengths(raw: Bytes, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return where strings begin and how long they are; None where they can't be found."""
    if not count:
        return None
    zeros = np.flatnonzero(raw[HEADER:] == 0) + HEADER
    if len(zeros) == 3 * count:
        # A length below 256 is one byte and three zeros; no string is empty.
        starts = zeros[::3] - 1
    else:
        found = _with_empty(zeros, count)
        if found is None:
            return None
        starts = found
    if starts[0] != HEADER or starts[-1] > len(raw) - HEADER:
        return None
    # Whole lengths, though all but one of their bytes should be zero: they prove each other.
    headers = np.ndarray((len(raw) - HEADER + 1,), "V4", raw, strides=(1,))
    lengths = headers[starts].view("<u4").astype(np.int64)
    follows = starts + HEADER + lengths
    is_chain = follows[-1] == len(raw) and np.array_equal(starts[1:], follows[:-1])
    return (starts + HEADER, lengths) if is_chain and lengths.max() < 256 else None


def _with_empty(zeros: NDArray[np.int64], count: int) -> NDArray[np.int64] | None:
    """Return where lengths are, some of which are four zeros."""
    if len(zeros) < 3 * count:
        return None
    firsts = np.flatnonzero(np.diff(zeros, prepend=-2) != 1)
    sizes = np.diff(firsts, append=len(zeros))
    # Three zeros belong to a length; empty strings come in fours, before the next length.
    of_text, of_empty = sizes == 3, sizes % 4 == 0
    if not bool((of_text | of_empty).all()):
        return None
    begin, empties = zeros[firsts[of_empty]], sizes[of_empty] // 4
    if int(empties.sum()) + int(of_text.sum()) != count:
        return None
    within = np.arange(int(empties.sum())) - np.repeat(np.cumsum(empties) - empties, empties)
    # In order again: a mark for each is faster than sorting.
    marks = np.zeros(int(zeros[-1]) + 1, np.bool_)
    marks[zeros[firsts[of_text]] - 1] = True
    marks[np.repeat(begin, empties) + HEADER * within] = True
    return np.flatnonzero(marks)


def _pieces(
    raw: Bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Iterator[tuple[int, Array]]:
    for first in range(0, len(starts), PIECE):
        begin, sizes = starts[first : first + PIECE], lengths[first : first + PIECE]
        low, high = int(begin[0]), int(begin[-1] + sizes[-1])
        width = max(1, int(sizes.max()))
        # With room for as much after the last as is taken from there.
        text = np.zeros(high - low + width, np.uint8)
        text[: high - low] = raw[low:high]
        places = np.ndarray((high - low + 1,), f"V{width}", text, strides=(1,))
        rows = places[begin - low].view(np.uint8).reshape(len(begin), width)
        # What follows a string there is the next one.
        rows *= np.arange(width, dtype=np.uint8) < sizes.astype(np.uint8)[:, np.newaxis]
        yield first, rows.reshape(-1).view(f"S{width}")
