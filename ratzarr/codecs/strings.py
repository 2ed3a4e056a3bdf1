r"""Convert strings to ``vlen-utf8`` bytes and back, in bulk, without a Python object for each.

zarr's codec reads and writes the same bytes: the number of strings, then the length and the UTF-8
of each string. The number and the lengths are little-endian uint32. Converting the strings one by
one through objects would take longer than all other work on a text column.

To write, strings become padded rows of one width, and each row is placed over the padding of the
previous one. To read, the zero bytes in the lengths are located, because text rarely contains zero
bytes. The result is then verified along the chain of lengths, each of which leads to the next.
Strings that do not fit this scheme (256 bytes or more, zero bytes in text) take a slower path.

Locating all strings of a chunk takes longer than decompressing it. So the writer marks the place of
every :data:`STEP`-th string, and a page is located from the mark before it.

Conversions between strings and padded rows use numpy's ``V`` dtype (plain bytes). It accepts UTF-8
unchanged, where ``S`` accepts only ASCII, and validates it on the way back. They go through an
iterator's buffer, because numpy treats items of sizes other than 1, 2, 4, 8 or 16 bytes as
unaligned in an assignment and creates each string twice.

>>> bytes(pack(np.array(["ab", "", "c"], STRING)))
b'\x03\x00\x00\x00\x02\x00\x00\x00ab\x00\x00\x00\x00\x01\x00\x00\x00c'
>>> unpack(pack(np.array(["ab", "", "c"], STRING)), 3)
array(['ab', '', 'c'], dtype=StringDType())
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numcodecs.vlen import VLenBytes, VLenUTF8
from numpy.typing import NDArray

from ratzarr.format.dtypes import STRING

__all__ = [
    "Convert",
    "PackedStrings",
    "is_unicode",
    "is_utf8",
    "pack",
    "pack_at_once",
    "to_fixed_width",
    "to_offsets",
    "to_padded",
    "unpack",
]

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
type Convert[T] = Callable[[Any, int, int, int], T]
"""A function that is called as :func:`to_offsets`."""

HEADER = 4
"""Size of a length, and of the number of strings."""
PIECE = 16384
"""Strings converted at once; their padded rows fit into the processor's cache."""
STEP = 4096
"""The place of every string whose index is a multiple of this is marked."""
SLAB = 2**18
"""Bytes converted at once, an even number; their results also fit into the cache."""
LONG = 256
"""String length at which the second byte of the length becomes non-zero."""
WIDEST = 2048
"""Largest padded size of a piece; longer strings are converted one by one."""
MAX_PADDED_BYTES = 64 * 2**20
"""Largest padded size of all pieces together."""


def pack(values: Array, marks: list[int] | None = None) -> Bytes:
    """Return strings as ``vlen-utf8``.

    Parameters
    ----------
    values : ndarray of StringDType, of fixed-width strings, or of fixed-width bytes that are UTF-8
        Of any shape, in row order.
    marks : list of int, optional
        Appended to: the offset of the length of each string whose index is :data:`STEP`,
        2 :data:`STEP`, and so on. Nothing if a string is long.

    Returns
    -------
    ndarray of uint8
    """
    flat = values.reshape(-1)
    marked: list[int] = []
    packed = _pack_bytes(flat, marked) if flat.dtype.kind == "S" else None
    if packed is None:
        marked.clear()
        packed = _pack_pieces(flat, marked)
    # The first string needs no mark.
    if marks is not None and len(marked) == -(-len(flat) // STEP):
        marks += marked[1:]
    return packed


def _pack_pieces(flat: Array, marked: list[int]) -> Bytes:
    packed = [np.array([len(flat)], "<u4").view(np.uint8)]
    end = HEADER
    for first in range(0, len(flat), PIECE):
        piece = flat[first : first + PIECE]
        items = _items(piece)
        fast = None if items is None else _pack_items(items, end, marked)
        packed.append(_pack_objects(piece) if fast is None else fast)
        end += len(packed[-1])
    return np.concatenate(packed)


def pack_at_once(values: Array, lengths: NDArray[np.integer[Any]] | None = None) -> Bytes | None:
    """Return ``vlen-utf8`` without the leading count; None if this method does not apply.

    Parameters
    ----------
    values : ndarray of strings
        As for :func:`pack`, but one-dimensional.
    lengths : ndarray of int, optional
        Byte length of each string; by default read from numpy's memory. The result has only
        lengths that its strings have, but no string may exceed the largest length given.
    """
    items = _items(values, lengths)
    return None if items is None else _pack_items(items)


def _pack_bytes(values: Array, marked: list[int]) -> Bytes | None:
    """Join fixed-width bytes into one array; return None if this method does not apply."""
    each = HEADER + values.dtype.itemsize
    if each > HEADER + WIDEST:
        return None
    # Unused parts of the array are never touched, so they take no memory.
    out = np.empty(HEADER + each * (len(values) + 1), np.uint8)
    out[:HEADER] = np.array([len(values)], "<u4").view(np.uint8)
    end = HEADER
    for first in range(0, len(values), PIECE):
        items = _items(values[first : first + PIECE])
        packed = None if items is None else _pack_items(items, end, marked, out[end:])
        if packed is None:
            return None
        end += len(packed)
    return out[:end]


def _items(values: Array, lengths: NDArray[np.integer[Any]] | None = None) -> Array | None:
    """Return padded strings preceded by their lengths; None if this method does not apply.

    Returns
    -------
    ndarray with the fields ``length`` and ``text``, which is as wide as the longest
    """
    if values.dtype.kind == "U":
        values = _utf8(values)
    is_bytes = values.dtype.kind == "S"
    if lengths is None:
        if not is_bytes and not _knows_layout():
            return None
        lengths = np.strings.str_len(values) if is_bytes else _lengths_in_memory(values)
    width = max(1, int(lengths.max(initial=0)))
    if width > WIDEST:
        return None
    items = np.empty(len(values), [("length", "<u4"), ("text", f"V{width}")])
    items["length"] = lengths
    if is_bytes:
        items["text"] = values.astype(f"S{width}", copy=False).view(f"V{width}")
        return items
    _assign(items["text"], values)
    # Trailing zero bytes would be lost. This comparison also proves that the lengths are right.
    there = np.strings.str_len(items["text"].view(f"S{width}"))
    return items if np.array_equal(there, lengths) else None


def _utf8(values: Array) -> Array:
    """Return fixed-width strings as fixed-width bytes, or as strings if that is not possible."""
    codes = np.ascontiguousarray(values).view(np.uint32).reshape(len(values), -1)
    width = codes.shape[1]
    if int(codes.max(initial=0)) < 0x80:
        return codes.astype(np.uint8).view(f"S{width}").reshape(-1)
    if values.dtype.itemsize >= 2 * LONG:
        return values.astype(STRING)
    # Encode everything, padding included, as one long string.
    raw = str(codes.data, f"utf-32-{sys.byteorder[0]}e").encode()
    sizes = np.full(len(codes), width)
    for least in (0x80, 0x800, 0x10000):
        sizes += np.count_nonzero(codes >= least, axis=1)
    return _rows(np.frombuffer(raw, np.uint8), np.cumsum(sizes) - sizes, sizes)


def _assign(to: Array, values: Array) -> None:
    """Assign strings to plain bytes, or plain bytes to strings."""
    plain = to.dtype if to.dtype.kind == "V" else values.dtype
    with np.nditer(
        [values, to],
        ["buffered", "external_loop", "refs_ok", "zerosize_ok"],
        [["readonly", "aligned"], ["writeonly", "aligned"]],
        op_dtypes=[plain, plain],
        casting="unsafe",
        buffersize=PIECE,
    ) as buffers:
        for read, written in buffers:
            written[...] = read


def _lengths_in_memory(values: Array) -> NDArray[np.uint64]:
    """Return the byte lengths of strings, read from numpy's memory.

    numpy's own functions count characters, and would double the total time. NEP 55 describes the
    layout: 16 bytes for each string. The last byte tells whether the string is in the 15 bytes
    before, and how long it is, or whether it is stored elsewhere; then the 7 bytes before hold the
    length.
    """
    raw = values.tobytes()
    last = np.frombuffer(raw, np.uint8)[15::16]
    elsewhere = np.frombuffer(raw, "<u8")[1::2] & (2**56 - 1)
    is_here = last & 0x30 == 0x20
    # Arithmetic instead of where(): the processor cannot predict the branch.
    lengths: NDArray[np.uint64] = is_here * (last & 0x0F) + ~is_here * elsewhere
    return lengths


@functools.cache
def _knows_layout() -> bool:
    """Return True if numpy stores strings in the layout that this module knows."""
    lengths = (0, 1, 15, 16, 255, 256, 70_000)
    sample = np.array(["x" * length for length in lengths], STRING)
    return np.array_equal(_lengths_in_memory(sample), lengths)


def _pack_items(
    items: Array, begin: int = 0, marked: list[int] | None = None, out: Bytes | None = None
) -> Bytes | None:
    """Join items; append the offsets of those to mark, counted from ``begin``, if none is long."""
    each = items.dtype.itemsize
    lengths = items["length"].astype(np.int64)
    stops = np.cumsum(lengths + HEADER)
    starts, total = stops - lengths - HEADER, int(stops[-1])
    if out is None:
        out = np.empty(total + each, np.uint8)
    # One row for each starting byte. The rows overlap: each later row is placed over padding.
    places = np.ndarray((total,), f"V{each}", out, strides=(1,))
    places[starts] = items.view(places.dtype)
    # numpy does not promise the order of assignment. In another order, padding would overwrite the
    # low byte of a later length with zero, which is no valid length.
    size = 1 if each < HEADER + LONG else HEADER
    headers = np.ndarray((total,), f"<u{size}", out, strides=(1,))[starts]
    if not np.array_equal(headers, lengths):
        return None
    if marked is not None and each < HEADER + LONG:
        marked += (begin + starts[::STEP]).tolist()
    return out[:total]


def _pack_objects(values: Array) -> Bytes:
    if values.dtype.kind == "S":
        raw = VLenBytes().encode(values.astype(object))
    else:
        raw = VLenUTF8().encode(values.astype(object))
    return np.frombuffer(raw, np.uint8)[HEADER:]


def is_utf8(values: Array) -> bool:
    """Return True if every fixed-width item is valid UTF-8."""
    flat = np.ascontiguousarray(values).reshape(-1)
    width = flat.dtype.itemsize
    for first in range(0, len(flat), PIECE):
        piece = flat[first : first + PIECE]
        raw = piece.view(np.uint8).reshape(len(piece), width)
        if int(raw.max(initial=0)) < 0x80:
            continue
        # A zero byte after each item prevents a character from continuing in the next item.
        apart = np.zeros((len(piece), width + 1), np.uint8)
        apart[:, :width] = raw
        try:
            str(apart.data, "utf-8")
        except UnicodeDecodeError:
            return False
    return True


def is_unicode(values: Array) -> bool:
    """Return True if fixed-width strings can be encoded as UTF-8: no lone surrogates."""
    flat = np.ascontiguousarray(values).reshape(-1)
    for first in range(0, len(flat), PIECE):
        codes = flat[first : first + PIECE].view(np.uint32)
        if int(codes.max(initial=0)) < 0xD800:
            continue
        if int(codes.max()) > sys.maxunicode or bool((codes >> 11 == 0xD800 >> 11).any()):
            return False
    return True


def unpack(data: Any, count: int, out: Array | None = None) -> Array:
    """Return the strings in ``vlen-utf8`` bytes.

    Parameters
    ----------
    data : bytes-like
        Starts with the number of strings, which is ``count``.
    count : int
        Number of strings.
    out : ndarray of StringDType, optional
        The array to fill, of shape (count,); by default a new one.

    Returns
    -------
    ndarray of StringDType, of shape (count,)

    Raises
    ------
    ValueError
        For invalid bytes. (UnicodeDecodeError is a ValueError.)
    """
    if out is None:
        out = np.empty(count, STRING)
    found = PackedStrings.of(data, count)
    if found is None:
        out[:] = VLenUTF8().decode(data)
    else:
        found.copy(0, out)
    return out


def _to_strings(piece: Array, out: Array) -> None:
    try:
        _assign(out, piece.view(f"V{piece.dtype.itemsize}"))
    except (TypeError, MemoryError) as error:
        # Earlier numpy reports a lack of memory for text that is not UTF-8.
        if is_utf8(piece):
            raise
        raise ValueError(f"strings that are not UTF-8: {error}") from error


class PackedStrings:
    """Encoded strings; a page is located and decoded when it is requested. Thread-safe.

    Parameters
    ----------
    raw : ndarray of uint8
        ``vlen-utf8`` bytes, which are kept.
    count : int
        Number of strings.
    borders : sequence of int
        Offsets at which a run of strings begins, and of the end of the last.
    step : int
        Number of strings in each run but the last.
    """

    def __init__(self, raw: Bytes, count: int, borders: Sequence[int], step: int) -> None:
        self._raw, self._count, self._borders, self._step = raw, count, borders, step
        self._runs: dict[int, _Run | Array] = {}

    @classmethod
    def of(cls, data: Any, count: int, marks: Sequence[int] = ()) -> Self | None:
        """Locate strings; return None if one has a zero byte, or 256 bytes or more.

        Parameters
        ----------
        data : bytes-like
            ``vlen-utf8`` bytes, which are kept. For damaged bytes, None is returned.
        count : int
            Number of strings.
        marks : sequence of int, optional
            What :func:`pack` has marked. With marks, strings are located when they are requested,
            and none of them is a reason to return None.
        """
        raw = np.frombuffer(data, np.uint8)
        if marks:
            return cls(raw, count, (HEADER, *marks, len(raw)), STEP)
        found = _lengths(raw, count)
        if found is None:
            return None
        whole = cls(raw, count, (HEADER, len(raw)), count)
        whole._runs[0] = _Run.of(raw, *found)
        return whole

    @property
    def nbytes(self) -> int:
        """Size in memory in bytes, once all strings are located."""
        return self._raw.nbytes + self._count * (4 if len(self._raw) < 2**32 else 8) + self._count

    def padded(self, first: int, stop: int) -> list[Array] | None:
        """Return strings as pieces of fixed-width bytes, each as wide as its longest string.

        Return None if they are not UTF-8, or take too much memory.
        """
        found: list[Array] = []
        size = 0
        for piece in self._pieces(first, stop):
            size += piece.nbytes
            if piece.dtype.kind != "S" or size > MAX_PADDED_BYTES or not is_utf8(piece):
                return None
            found.append(piece)
        return found

    def copy(self, first: int, out: Array) -> None:
        """Decode strings, from the one with this index, into an array of StringDType.

        Raises
        ------
        ValueError
            For invalid bytes.
        """
        begin = 0
        for piece in self._pieces(first, first + len(out)):
            part = out[begin : begin + len(piece)]
            if piece.dtype.kind == "S":
                _to_strings(piece, part)
            else:
                part[:] = piece
            begin += len(piece)

    def _pieces(self, first: int, stop: int) -> Iterator[Array]:
        """Yield strings as fixed-width bytes, or as objects."""
        while first < stop:
            number = first // self._step
            begin = number * self._step
            end = min(stop, first + PIECE, begin + self._step)
            run, part = self._run(number), slice(first - begin, end - begin)
            yield run.padded(part) if isinstance(run, _Run) else run[part]
            first = end

    def _run(self, number: int) -> "_Run | Array":
        found = self._runs.get(number)
        if found is None:
            start, stop = self._borders[number : number + 2]
            count = min(self._step, self._count - number * self._step)
            raw = self._raw[start - HEADER : stop]
            located = _lengths(raw, count)
            found = _objects(raw, count) if located is None else _Run.of(raw, *located)
            self._runs[number] = found
        return found


class _Run(NamedTuple):
    """Strings whose places are known."""

    raw: Bytes
    starts: NDArray[Any]
    """The offset of each string in ``raw``."""
    lengths: NDArray[np.uint8]

    @classmethod
    def of(cls, raw: Bytes, starts: NDArray[np.int64], lengths: NDArray[np.uint8]) -> Self:
        return cls(raw, starts.astype(np.uint32 if len(raw) < 2**32 else np.int64), lengths)

    def padded(self, part: slice) -> Array:
        return _rows(self.raw, self.starts[part].astype(np.int64), self.lengths[part])


def _objects(raw: Bytes, count: int) -> Array:
    """Return the strings that follow the first four bytes, as objects."""
    plain = np.concatenate([np.array([count], "<u4").view(np.uint8), raw[HEADER:]])
    # numcodecs would ignore bytes after the last string.
    _places(plain, count)
    found: Array = VLenUTF8().decode(plain)
    return found


def _places(raw: Bytes, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the start and length of each string, following the chain of lengths."""
    starts, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
    view, end = memoryview(raw), HEADER
    if len(raw) < HEADER or int.from_bytes(view[:HEADER], "little") != count:
        raise ValueError(f"expected {count} strings")
    for index in range(count):
        length = int.from_bytes(view[end : end + HEADER], "little")
        starts[index], lengths[index] = end + HEADER, length
        end += HEADER + length
        if end > len(raw):
            raise ValueError(f"string {index} of {length} bytes goes beyond the end")
    if end != len(raw):
        raise ValueError(f"{len(raw) - end} bytes follow the last string")
    return starts, lengths


def to_padded(data: Any, count: int, first: int, stop: int) -> list[Array] | None:
    """Return strings as pieces of fixed-width bytes; see :meth:`PackedStrings.padded`.

    Parameters are those of :func:`to_offsets`. Return None also for long strings.
    """
    found = PackedStrings.of(data, count)
    return None if found is None else found.padded(first, stop)


def to_offsets(
    data: Any, count: int, first: int = 0, stop: int | None = None
) -> tuple[NDArray[np.int64], Bytes]:
    """Return strings as their bytes, one after another, and the offset of each.

    Parameters
    ----------
    data, count
        See :func:`unpack`.
    first, stop : int
        The strings wanted, by default all.

    Returns
    -------
    offsets : ndarray of int64
        One more than there are strings; the last is the number of bytes.
    bytes : ndarray of uint8
        Not validated: they may not be UTF-8.

    Raises
    ------
    ValueError
        If the lengths in the data do not fit the data.
    """
    raw = np.frombuffer(data, np.uint8)
    found = _lengths(raw, count)
    starts, lengths = _places(raw, count) if found is None else found
    starts, lengths = starts[first:stop], lengths[first:stop]
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, dtype=np.int64, out=offsets[1:])
    if not len(lengths):
        return offsets, np.empty(0, np.uint8)
    low = int(starts[0]) - HEADER
    text = raw[low : int(starts[-1]) + int(lengths[-1])]
    # Leave out the length before each string, four bytes at a time.
    is_text = np.ones(len(text), np.bool_)
    heads = np.ndarray((len(text) - HEADER + 1,), "V4", is_text, strides=(1,))
    heads[starts - HEADER - low] = np.zeros(1, "V4")
    return offsets, text[is_text]


def to_fixed_width(values: Array) -> Array | None:
    """Return some strings as fixed-width bytes, as wide as the longest; None if not possible.

    Parameters
    ----------
    values : ndarray of StringDType
        One page: all strings are padded at once.

    Returns
    -------
    ndarray of fixed-width bytes, or None
        UTF-8, without zero bytes in a string.
    """
    if not _knows_layout():
        return None
    lengths = _lengths_in_memory(values)
    width, total = max(1, int(lengths.max(initial=0))), int(lengths.sum())
    if width > WIDEST:
        return None
    plain = np.empty(len(values), f"V{width}")
    _assign(plain, values)
    text = plain.view(f"S{width}")
    # As in _items. A zero byte in a string would count as one of its bytes.
    is_whole = np.count_nonzero(plain.view(np.uint8)) == total
    return text if is_whole and np.array_equal(np.strings.str_len(text), lengths) else None


def _lengths(raw: Bytes, count: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
    """Return the offsets and lengths of strings; None if they cannot be located."""
    if not count:
        return None
    starts = _without_empty(raw, count)
    if starts is None:
        starts = _with_empty(np.flatnonzero(raw[HEADER:] == 0) + HEADER, count)
    if starts is None or starts[0] != HEADER or starts[-1] > len(raw) - HEADER:
        return None
    lengths = np.empty(count, np.uint8)
    for first in range(0, count, PIECE):
        ends, follow = starts[first : first + PIECE].copy(), starts[first + 1 : first + PIECE + 1]
        # Each length verifies the next. Its second and third byte are known to be zero. Single
        # bytes are read several times as fast as four at unaligned places.
        sizes = raw[ends]
        ends += HEADER - 1
        is_length = not raw[ends].any()
        ends += 1
        ends += sizes
        if not is_length or not np.array_equal(ends[: len(follow)], follow):
            return None
        lengths[first : first + PIECE] = sizes
    if ends[-1] != len(raw):
        return None
    starts += HEADER
    return starts, lengths


def _without_empty(raw: Bytes, count: int) -> NDArray[np.int64] | None:
    """Return the offsets of lengths, none of which is zero; None if other zero bytes exist."""
    starts = np.empty(count, np.int64)
    zeros = found = 0
    for begin in range(HEADER, len(raw), SLAB):
        slab = raw[begin : begin + SLAB]
        zeros += len(slab) - int(np.count_nonzero(slab))
        # A length below 256 is one byte and three zeros. The bytes are examined in pairs: of three
        # zeros in a row, two form a pair.
        pairs = np.flatnonzero(slab[: len(slab) & ~1].view("<u2") == 0)
        if found + len(pairs) > count:
            return None
        places = starts[found : found + len(pairs)]
        np.multiply(pairs, 2, out=places)
        places += begin - 1
        places -= raw[places] == 0
        found += len(pairs)
    return starts if found == count and zeros == 3 * count else None


def _with_empty(zeros: NDArray[np.int64], count: int) -> NDArray[np.int64] | None:
    """Return the offsets of lengths, some of which are four zeros."""
    if len(zeros) < 3 * count:
        return None
    firsts = np.flatnonzero(np.diff(zeros, prepend=-2) != 1)
    sizes = np.diff(firsts, append=len(zeros))
    # Three zeros belong to a length. Empty strings add four zeros each, before the next length.
    of_text, of_empty = sizes == 3, sizes % 4 == 0
    if not bool((of_text | of_empty).all()):
        return None
    begin, empties = zeros[firsts[of_empty]], sizes[of_empty] // 4
    if int(empties.sum()) + int(of_text.sum()) != count:
        return None
    within = np.arange(int(empties.sum())) - np.repeat(np.cumsum(empties) - empties, empties)
    # Restore the order; marking each offset is faster than sorting.
    marks = np.zeros(int(zeros[-1]) + 1, np.bool_)
    marks[zeros[firsts[of_text]] - 1] = True
    marks[np.repeat(begin, empties) + HEADER * within] = True
    return np.flatnonzero(marks)


def _rows(raw: Bytes, starts: NDArray[np.int64], lengths: NDArray[Any]) -> Array:
    """Return consecutive strings as fixed-width bytes."""
    low, high = int(starts[0]), int(starts[-1]) + int(lengths[-1])
    width = max(1, int(lengths.max()))
    text = raw[low : high + width]
    if len(text) < high - low + width:
        # With padding after the last string, because fixed-width reads extend beyond it.
        text = np.append(text, np.zeros(width, np.uint8))
    places = np.ndarray((high - low + 1,), f"V{width}", text, strides=(1,))
    rows = places[starts - low]
    # The bytes after a string belong to the next one.
    of_all = rows.view(np.uint8)
    if width < LONG:
        of_all &= _masks(width)[lengths].view(np.uint8)
    else:
        of_all *= (np.arange(width) < lengths[:, np.newaxis]).reshape(-1)
    return rows.view(f"S{width}")


@functools.lru_cache(64)
def _masks(width: int) -> Array:
    """Return a mask for each length up to a width."""
    is_text = np.arange(width) < np.arange(width + 1)[:, np.newaxis]
    return (is_text * np.uint8(0xFF)).reshape(-1).view(f"V{width}")
