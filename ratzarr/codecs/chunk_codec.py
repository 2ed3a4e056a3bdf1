"""Encode and decode one chunk with the codecs named in a column's ``zarr.json``.

zarr defines the codecs, and numcodecs implements the compressors. This module runs them on one chunk
at a time in the calling thread; the caller decides what runs in parallel. A chunk of a few kilobytes
can claim to hold gigabytes, so every decompressor gets the largest size it may produce, and the
decoded size must be the one that the column's shape and dtype give. A process-wide budget bounds the
memory of all chunks being decoded.
"""

import copy
import math
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import google_crc32c
import numpy as np
from numcodecs import Blosc, GZip, VLenBytes, Zstd, blosc, zstd
from numpy.typing import NDArray

from ratzarr.codecs.blosc import (
    HEADER,
    PACKABLE,
    SIZES,
    Blocks,
    Piece,
    ReadAt,
    Way,
    choose,
    chooses,
    compress,
    marks_in,
    pack_text,
    reader_of,
)
from ratzarr.codecs.strings import STEP, Convert, PackedStrings, pack, unpack
from ratzarr.errors import TooLargeError, UnsupportedCodecError
from ratzarr.settings import MAX_CHUNK_BYTES, REQUESTS, environment, number_of

__all__ = [
    "BUDGET",
    "DECOMPRESS",
    "ChunkCodec",
    "check_codecs",
    "chunk_rows_within",
    "value_bytes",
]


class DecodeBudget:
    """Limits the memory of all chunks being decoded at once."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            # A forked child has none of the threads that hold memory here.
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._waiting = threading.Condition()
        self._taken: dict[object, int] = {}

    @contextmanager
    def take(self, size: int, most: int) -> Iterator[None]:
        """Wait until this much of ``most`` bytes is available."""
        # One entry for each chunk: Ctrl-C comes before an entry is made or after, never in between.
        mine = object()
        try:
            with self._waiting:
                self._waiting.wait_for(
                    lambda: not self._taken or sum(self._taken.values()) + size <= most
                )
                self._taken[mine] = size
            yield
        finally:
            with self._waiting:
                self._taken.pop(mine, None)
                self._waiting.notify_all()


BUDGET = DecodeBudget()


def _check_claim(size: int, least: int, most: int) -> None:
    if not least <= size <= most:
        expected = f"{most}" if least == most else f"at most {most}"
        raise ValueError(f"expected {expected} bytes unpacked, got {size}")


def _blosc_content(data: memoryview, least: int, most: int) -> int:
    """Return a Blosc buffer's uncompressed size, if it is within the limits.

    Raises
    ------
    ValueError
    """
    if len(data) < HEADER:
        raise ValueError(f"{len(data)} bytes are not a Blosc buffer")
    size, _, packed = SIZES.unpack_from(data)
    _check_claim(size, least, most)
    if packed != len(data):
        # Blosc itself would read beyond the end.
        raise ValueError(f"expected {packed} bytes of compressed data, got {len(data)}")
    return int(size)


def _blosc(data: memoryview, least: int, most: int) -> Any:
    return blosc.decompress(data) if _blosc_content(data, least, most) else b""


def _zstd(data: memoryview, least: int, most: int) -> Any:
    size = _zstd_content(data)
    if size is None and least != most:
        raise ValueError("a zstd frame without its uncompressed size")
    if size is None:
        size = most
    _check_claim(size, least, most)
    if size == 0:
        return b""
    # Exactly this size, even if more frames follow the first.
    out = np.empty(size, np.uint8)
    zstd.decompress(data, out)
    return out


def _zstd_content(data: memoryview) -> int | None:
    """Return the uncompressed size in a zstd frame header (RFC 8878, 3.1.1.1)."""
    if len(data) < 6 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        raise ValueError("not a zstd frame")
    descriptor = data[4]
    single_segment = bool(descriptor & 0x20)
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    if width == 0:
        return None
    if len(data) < start + width:
        raise ValueError("a truncated zstd frame")
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if width == 2 else size


def _gzip(data: memoryview, least: int, most: int) -> Any:
    stream = zlib.decompressobj(wbits=31)
    unpacked = stream.decompress(data, most + 1)
    if len(unpacked) > most:
        raise ValueError(f"expected at most {most} bytes unpacked, got more")
    if not stream.eof or stream.unused_data:
        raise ValueError("expected one complete gzip stream without further data")
    _check_claim(len(unpacked), least, most)
    return unpacked


DECOMPRESS: dict[str, Callable[[memoryview, int, int], Any]] = {
    "blosc": _blosc,
    "gzip": _gzip,
    "zstd": _zstd,
}
"""Decompressors by codec name. They take the bytes, and the smallest and largest size allowed."""


Array = NDArray[Any]

SERIALIZERS = {"T": "vlen-utf8", "O": "vlen-bytes"}
"""Serializers by kind of dtype; ``bytes`` for all others."""
COMPRESSORS = ("blosc", "gzip", "zstd")
CHECKSUM = "crc32c"
CHECKSUM_BYTES = 4
SIMILAR = 0.02
"""The difference of two compression ratios up to which the same compression is used."""
CHOOSE_AGAIN = 16
"""Number of chunks after which a new sample is taken in any case."""
KNOWN = frozenset({"transpose", "bytes", *SERIALIZERS.values(), *COMPRESSORS, CHECKSUM})


def check_codecs(codecs: object) -> None:
    """Raise an error if a codec chain, as JSON, has a codec that this module does not run.

    Call this before passing the chain to zarr, because zarr imports any package that registers a
    codec of that name.

    Raises
    ------
    UnsupportedCodecError
        Names the unsupported codec.
    """
    if not isinstance(codecs, list) or not codecs:
        raise ValueError(f"its codecs are {codecs!r:.100}: expected a list")
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if not isinstance(name, str) or name not in KNOWN:
            raise UnsupportedCodecError(
                f"compressed with the codec {name!r:.100}, which is not supported: only "
                f"{', '.join(sorted(KNOWN))}"
            )


def value_bytes(dtype: np.dtype[Any]) -> int:
    """Return the memory of a value; for strings and bytes, without their characters."""
    return 16 if dtype.kind in SERIALIZERS else dtype.itemsize


def chunk_rows_within(rows: int, dtype: np.dtype[Any], width: int, column: str) -> int:
    """Return the number of rows in a chunk of a new column: the preferred number, or fewer.

    Raises
    ------
    TooLargeError
        If a single row is too large.
    """
    most = min(number_of(MAX_CHUNK_BYTES, environment.get(MAX_CHUNK_BYTES)), PACKABLE)
    size = value_bytes(dtype) * width
    if size > most:
        raise TooLargeError(
            f"column {column!r}: a row of {size} bytes is more than the {most} bytes that "
            f"a chunk may have in memory ({MAX_CHUNK_BYTES})"
        )
    return min(rows, most // max(1, size))


class _Layout:
    """How the values of a chunk lie in plain bytes: ``transpose``, then ``bytes`` or a ``vlen`` codec.

    Parameters
    ----------
    codecs : sequence of mapping
        The codecs up to the serializer, as JSON.
    dtype : dtype
        The column's.
    shape : tuple of int
        The shape of a chunk.
    """

    def __init__(
        self, codecs: Sequence[Mapping[str, Any]], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        *transposes, serializer = codecs
        self._dtype = dtype
        self._orders = [tuple(one["configuration"]["order"]) for one in transposes]
        for order in self._orders:
            shape = tuple(shape[axis] for axis in order)
        self._shape = shape
        # None for dtypes without a byte order, and for vlen codecs.
        endian = (serializer.get("configuration") or {}).get("endian")
        self._stored = dtype if endian is None else dtype.newbyteorder(endian)

    def to_bytes(self, chunk: Array, marks: list[int]) -> NDArray[np.uint8]:
        """Return the plain bytes of a chunk; mark the places of strings (see :func:`pack`)."""
        for order in self._orders:
            chunk = chunk.transpose(order)
        if self._dtype.kind == "T":
            return pack(chunk, marks)
        if self._dtype.kind == "O":
            # The encoder takes arrays that can be written to; those of pandas often can't.
            writable = np.require(chunk, requirements=["C", "W"])
            return np.frombuffer(VLenBytes().encode(writable), np.uint8)
        return np.ascontiguousarray(chunk, self._stored).reshape(-1).view(np.uint8)

    def to_array(self, data: Any) -> Array:
        """Return the chunk of plain bytes, which have the size of one."""
        count = math.prod(self._shape)
        if self._dtype.kind == "T":
            chunk = unpack(data, count)
        elif self._dtype.kind == "O":
            chunk = VLenBytes().decode(data)
        else:
            chunk = np.frombuffer(data, self._stored).astype(self._dtype, copy=False)
        chunk = chunk.reshape(self._shape)
        for order in reversed(self._orders):
            chunk = chunk.transpose(np.argsort(order))
        return chunk


_SHUFFLES = {
    "noshuffle": Blosc.NOSHUFFLE,
    "shuffle": Blosc.SHUFFLE,
    "bitshuffle": Blosc.BITSHUFFLE,
}


def _compressed(name: str, configuration: Mapping[str, Any], data: Any) -> Any:
    codec: Any
    if name == "blosc":
        shuffle = _SHUFFLES[configuration["shuffle"]]
        codec = Blosc(**{**configuration, "shuffle": shuffle})
    else:
        codec = {"gzip": GZip, "zstd": Zstd}[name](**configuration)
    return codec.encode(data)


def _without_sum(data: Any) -> memoryview:
    """Verify the CRC-32C at the end of bytes; return the bytes before it."""
    view = np.frombuffer(data, np.uint8)
    plain, stored = view[:-CHECKSUM_BYTES], view[-CHECKSUM_BYTES:].tobytes()
    computed = struct.pack("<I", google_crc32c.value(plain))
    if stored != computed:
        raise ValueError(f"expected the checksum {computed.hex()}, got {stored.hex()}")
    return memoryview(plain)


def _compressed_by(way: Way, values: NDArray[Any]) -> tuple[list[Piece], float]:
    """Compress values; return the buffer, and its size as a part of the uncompressed bytes."""
    pieces = compress(values, way, summed=True)
    return pieces, sum(map(len, pieces)) / max(1, values.nbytes)


class ChunkCodec:
    """Encodes and decodes the chunks of one column, once :meth:`of_column` has named it.

    Parameters
    ----------
    codecs : sequence of mapping
        The codec chain as JSON, complete: with the typesize of Blosc, and so on.
    dtype : dtype
        Of the column's values.
    chunk_shape : tuple of int
        Shape of every chunk, including the last one: (rows,) or (rows, width).

    Raises
    ------
    UnsupportedCodecError
        If the memory needed to decode the chain cannot be limited.
    """

    def __init__(
        self,
        codecs: Sequence[Mapping[str, Any]],
        dtype: np.dtype[Any],
        chunk_shape: tuple[int, ...],
    ) -> None:
        self._column, self._shape = "", chunk_shape
        self._values = math.prod(chunk_shape)
        self._dtype = dtype
        self._of_any_length = dtype.kind in SERIALIZERS
        self._size = self._values * value_bytes(dtype)
        self._most = self._unlimited = 0
        names = [str(codec["name"]) for codec in codecs]
        serializer = SERIALIZERS.get(dtype.kind, "bytes")
        _check_order(names, serializer, dtype)
        first = names.index(serializer) + 1
        self._layout = _Layout(codecs[:first], dtype, chunk_shape)
        self._is_text = names[:first] == [SERIALIZERS["T"]]
        self._packing: list[tuple[str, Mapping[str, Any]]] = [
            (str(codec["name"]), codec.get("configuration") or {}) for codec in codecs[first:]
        ]
        name, configuration = self._packing[0] if self._packing else ("", {})
        # With the default configuration of Blosc, the compression is chosen for each chunk.
        self._adapts = name == "blosc" and chooses(configuration, is_text=self._of_any_length)
        self._last: tuple[Way, float, int] | None = None
        """The compression of the last chunk, its ratio, and for how many more chunks it is used."""
        self._in_blocks = _is_native(codecs[0], dtype) and (
            [name for name in names[1:] if name != CHECKSUM] == names[1:2] == ["blosc"]
        )

    def of_column(self, column: str) -> Self:
        """Return the codec of this configuration for one column, within the limits as set now."""
        other = copy.copy(self)
        other._column, other._last = column, None
        other._most = number_of(MAX_CHUNK_BYTES, environment.get(MAX_CHUNK_BYTES))
        other._unlimited = other._most // number_of(REQUESTS, environment.get(REQUESTS))
        return other

    def check_size(self) -> None:
        """Raise an error if the column's chunks are larger than the memory limit.

        Raises
        ------
        TooLargeError
        """
        self._check_size(self._size)

    def _check_size(self, size: int) -> None:
        if size > self._most:
            raise TooLargeError(
                f"column {self._column!r}: a chunk of {' x '.join(map(str, self._shape))} "
                f"values takes {size} bytes in memory, and {self._most} are allowed (the environment "
                f"variable {MAX_CHUNK_BYTES} can allow more)"
            )

    @property
    def packed_limit(self) -> int:
        """The largest size of a chunk's object: codecs add little to incompressible data."""
        most = self._most if self._of_any_length else min(self._most, self._size)
        return most + most // 64 + 2**16

    @property
    def row_bytes(self) -> int:
        """Memory of a row; for strings and bytes, without their characters."""
        return self._size // self._shape[0]

    def encode(self, chunk: Array, turns: AbstractContextManager[Any] | None = None) -> bytes:
        """Return the bytes of a chunk of the full chunk shape.

        Parameters
        ----------
        chunk : ndarray
            With the column's dtype. Strings may also have a fixed width, or be UTF-8 bytes.
        turns : context manager, optional
            Held while strings are read from their array.

        Raises
        ------
        TooLargeError
            If the result could not be decoded again.
        """
        self.check_size()
        with turns if turns is not None and self._is_text else nullcontext():
            marks: list[int] = []
            data: Any = self._layout.to_bytes(_as(chunk, self._dtype, self._is_text), marks)
        self._check_size(len(data))
        if self._adapts:
            pieces = pack_text(data, marks) if self._of_any_length else self._pack_numbers(data)
            return _joined(pieces, len(self._packing) - 1)
        for name, configuration in self._packing:
            if name == CHECKSUM:
                data = _joined([data], 1)
                continue
            try:
                data = _compressed(name, configuration, data)
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:
                # A configuration that zarr accepts but the compressor rejects.
                raise UnsupportedCodecError(
                    f"column {self._column!r}: {self._dtype} can't be compressed with {name} "
                    f"{dict(configuration)}: {error}"
                ) from error
        return bytes(data)

    def _pack_numbers(self, data: NDArray[np.uint8]) -> list[Piece]:
        """Return a chunk as a Blosc buffer, compressed like the last chunk if that suits it.

        The chunks of a column are mostly similar. So the compression is chosen again only if the
        ratio differs, and from time to time.
        """
        values = data.view(f"V{self._dtype.itemsize}")
        # Concurrent threads may each choose; any of their choices can be remembered.
        last, tried = self._last, None
        if last is not None and last[2]:
            tried, expected, left = last
            pieces, part = _compressed_by(tried, values)
            if abs(part - expected) <= SIMILAR:
                self._last = tried, expected, left - 1
                return pieces
        way = choose(values)
        if way != tried:
            pieces, part = _compressed_by(way, values)
        self._last = way, part, CHOOSE_AGAIN
        return pieces

    def decode(self, data: bytes) -> Array:
        """Return the decoded chunk.

        Raises
        ------
        TooLargeError
            If chunks of this column are too large, independent of this chunk's content.
        Exception
            Any error of a codec for bytes that it did not write; the caller adds the name of the
            object. A chunk with another size, shape or dtype than the column's is a ValueError,
            raised before decoding.
        """
        self.check_size()
        if self._is_text:
            chunk = np.empty(self._shape, self._dtype)
            self.decode_into(data, chunk)
            return chunk
        with self._memory(self._size):
            chunk = self._layout.to_array(self._unpack(data))
        if chunk.shape != self._shape or chunk.dtype != self._dtype:
            raise ValueError(
                f"expected {self._dtype} of shape {self._shape}, got {chunk.dtype} of "
                f"shape {chunk.shape}"
            )
        return chunk

    def decode_into(self, data: bytes, out: Array) -> None:
        """Decode a chunk into an array of its shape and dtype.

        Where possible, no other memory is used. Strings are created directly in ``out``, because
        copying them would create them again. Errors are those of :meth:`decode`; the array's
        content is then undefined.
        """
        self.check_size()
        if not out.flags.c_contiguous or not (self._is_text or self._in_blocks):
            out[...] = self.decode(data)
        elif self._is_text:
            with self._memory(self._size):
                unpack(self._unpack(data), self._values, out.reshape(-1))
        else:
            plain = self._checked(data)
            _blosc_content(plain, self._size, self._size)
            # Dates do not support the buffer protocol.
            blosc.decompress(plain, out.reshape(-1).view(np.uint8))

    def decode_pages(self, data: bytes) -> PackedStrings | Array:
        """Decode a chunk of which pages will be read; strings are not created before, if possible.

        Errors are those of :meth:`decode`.
        """
        if not self._is_text:
            return self.decode(data)
        self.check_size()
        with self._memory(self._size):
            plain = self._unpack(data)
            found = PackedStrings.of(plain, self._values, self._marks(data))
            return unpack(plain, self._values).reshape(self._shape) if found is None else found

    def _marks(self, data: bytes) -> Sequence[int]:
        """Return the places of strings that are marked in a chunk whose bytes are verified."""
        if not self._adapts:
            return ()
        end = len(data) - CHECKSUM_BYTES * (len(self._packing) - 1)
        return marks_in(memoryview(data)[:end], (self._values - 1) // STEP)

    def decode_utf8[T](self, data: bytes, first: int, stop: int, convert: Convert[T]) -> T | None:
        """Return what a function makes of strings of a chunk; None if it has other values.

        The function gets what :func:`ratzarr.codecs.strings.to_offsets` gets. Errors are those of
        :meth:`decode`.
        """
        self.check_size()
        if not self._is_text or len(self._shape) > 1:
            return None
        with self._memory(self._size):
            return convert(self._unpack(data), self._values, first, stop)

    def check(self, data: bytes) -> None:
        """Verify the bytes of a chunk with the least work.

        A checksum over the compressed bytes is enough; without one the chunk is decoded. Errors
        are those of :meth:`decode`.
        """
        if self._packing and self._packing[-1][0] == CHECKSUM:
            self.check_size()
            self.check_sum(data)
        else:
            self.decode(data)

    def check_sum(self, data: bytes) -> None:
        """Compare a chunk's bytes with their checksum, if the chain ends with one.

        Raises
        ------
        ValueError
        """
        if self._packing and self._packing[-1][0] == CHECKSUM:
            _without_sum(data)

    def blocks(self, data: bytes) -> Blocks | None:
        """Return a chunk as blocks of its values' bytes; None if it has no usable blocks.

        Raises
        ------
        Exception
            As :meth:`decode`. The checksums are verified too.
        """
        self.check_size()
        if not self._in_blocks:
            return None
        plain = self._checked(data)
        _blosc_content(plain, self._size, self._size)
        return Blocks.of(len(plain), self._size, reader_of(plain), summed=False)

    def stored_blocks(self, length: int, read: ReadAt) -> Blocks | None:
        """Return a chunk as blocks with checksums of their own; None if it has none.

        ``length`` is the size of the chunk's object, from which ``read`` reads.
        """
        if not self._in_blocks or self._size > self._most:
            return None
        length -= CHECKSUM_BYTES * (len(self._packing) - 1)
        return Blocks.of(length, self._size, read, summed=True)

    def _checked(self, data: bytes) -> memoryview:
        """Verify all checksums; return the bytes before them."""
        plain: Any = data
        for _ in self._packing[1:]:
            plain = _without_sum(plain)
        return memoryview(plain)

    def unpack_blocks(self, blocks: Blocks, first: int, last: int, out: NDArray[np.uint8]) -> None:
        """Decode some blocks with :meth:`Blocks.unpack` once memory is available."""
        with self._memory(len(out)):
            blocks.unpack(first, last, out)

    def _memory(self, size: int) -> AbstractContextManager[None]:
        """Return a context manager that waits for memory; small chunks need not wait."""
        return nullcontext() if size <= self._unlimited else BUDGET.take(size, self._most)

    def _unpack(self, data: Any) -> Any:
        """Undo compression and checksums, within the size limits."""
        sums = sum(name == CHECKSUM for name, _ in self._packing)
        most = self._most if self._of_any_length else self._size
        for name, _ in reversed(self._packing):
            if name == CHECKSUM:
                sums -= 1
                data = _without_sum(data)
            else:
                extra = sums * CHECKSUM_BYTES
                least = 0 if self._of_any_length else most + extra
                data = DECOMPRESS[name](memoryview(data), least, most + extra)
        if not self._of_any_length:
            if len(data) != self._size:
                raise ValueError(f"expected {self._size} bytes, got {len(data)}")
        elif len(data) < 4 + 4 * self._values:
            raise ValueError(f"expected {self._values} values, got only {len(data)} bytes")
        elif (count := struct.unpack_from("<I", data)[0]) != self._values:
            # The decoder trusts the count in the header before it reads the first value.
            raise ValueError(f"expected {self._values} values, got {count}")
        return data


def _joined(pieces: list[Piece], checksums: int) -> bytes:
    """Return pieces with their checksums appended in one copy; zarr's codec would make two."""
    for _ in range(checksums):
        total = 0
        for piece in pieces:
            total = google_crc32c.extend(total, piece)
        pieces.append(struct.pack("<I", total))
    return b"".join(pieces)


def _as(chunk: Array, dtype: np.dtype[Any], is_text: bool) -> Array:
    # Strings may be given with a fixed width, or as their bytes; a text column takes them as such.
    return chunk.astype(dtype) if dtype.kind == "T" and not is_text else chunk


def _is_native(described: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    """Return True if a codec's bytes for numbers equal their bytes in memory."""
    if described["name"] != "bytes" or dtype.kind not in "biufMS" or not dtype.isnative:
        return False
    endian = (described.get("configuration") or {}).get("endian")
    return endian == sys.byteorder or dtype.itemsize == 1 or dtype.kind == "S"


def _check_order(names: Sequence[str], serializer: str, dtype: np.dtype[Any]) -> None:
    if serializer not in names:
        raise UnsupportedCodecError(
            f"{dtype} compressed with {names}: expected {serializer} among them"
        )
    first = names.index(serializer)
    strange = [name for name in names[:first] if name != "transpose"]
    strange += [name for name in names[first + 1 :] if name not in (*COMPRESSORS, CHECKSUM)]
    if strange:
        raise UnsupportedCodecError(f"compressed with {names}: {strange[0]!r} is out of place")
    if sum(name in COMPRESSORS for name in names) > 1:
        raise UnsupportedCodecError(
            f"compressed with {names}, one compressor after another: the uncompressed size "
            "can't be known beforehand"
        )
