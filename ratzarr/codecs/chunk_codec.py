"""Encode and decode one chunk with the codecs named in a column's ``zarr.json``.

The codecs are zarr's own. This module runs them on one chunk at a time in the calling thread; the
caller decides what runs in parallel. A chunk of a few kilobytes can claim to hold gigabytes, so every
decompressor is told the largest size it may produce, and the decoded size must be the one that the
column's shape and dtype give. A process-wide budget bounds the memory of all chunks being decoded.
"""

import copy
import math
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd
from numpy.typing import NDArray
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_utils import ChunkTransform
from zarr.core.metadata.v3 import ArrayV3Metadata

from ratzarr.codecs import compression
from ratzarr.codecs.blosc import BloscBlocks, Piece, ReadAt, SummedBlocks, check_header
from ratzarr.codecs.strings import pack, to_padded, unpack
from ratzarr.concurrency import in_flight
from ratzarr.errors import TooLargeError, UnsupportedCodecError
from ratzarr.format.limits import MAX_CHUNK_VARIABLE, max_chunk_bytes

__all__ = [
    "DECOMPRESS",
    "ROOM",
    "ChunkCodec",
    "check_codecs",
    "value_bytes",
]


class UnpackRoom:
    """What the chunks that are being unpacked at once may take together."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            # A forked child has none of the threads that are in here.
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._waiting, self._taken = threading.Condition(), 0

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait until there is room; a chunk that is small can't take too much."""
        most = max_chunk_bytes()
        if size <= most // in_flight():
            yield
            return
        with self._waiting:
            self._waiting.wait_for(lambda: not self._taken or self._taken + size <= most)
            self._taken += size
        try:
            yield
        finally:
            with self._waiting:
                self._taken -= size
                self._waiting.notify_all()


ROOM = UnpackRoom()


def _check_claim(size: int, least: int, most: int) -> None:
    if not least <= size <= most:
        expected = f"{most}" if least == most else f"at most {most}"
        raise ValueError(f"expected {expected} bytes unpacked, got {size}")


def _blosc(data: memoryview, least: int, most: int) -> Any:
    return blosc.decompress(data) if check_header(data, least, most) else b""


def _zstd(data: memoryview, least: int, most: int) -> Any:
    size = _zstd_content(data)
    if size is None and least != most:
        raise ValueError("a zstd frame that does not say how large it is unpacked")
    if size is None:
        size = most
    _check_claim(size, least, most)
    if size == 0:
        return b""
    # Of this size and no other, also where more frames follow the first.
    out = np.empty(size, np.uint8)
    zstd.decompress(data, out)
    return out


def _zstd_content(data: memoryview) -> int | None:
    """Return the size that a zstd frame says it has unpacked (RFC 8878, 3.1.1.1)."""
    if len(data) < 6 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        raise ValueError("no zstd frame")
    descriptor = data[4]
    single_segment = bool(descriptor & 0x20)
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    if width == 0:
        return None
    if len(data) < start + width:
        raise ValueError("a zstd frame that was cut off")
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if width == 2 else size


def _gzip(data: memoryview, least: int, most: int) -> Any:
    stream = zlib.decompressobj(wbits=31)
    unpacked = stream.decompress(data, most + 1)
    if len(unpacked) > most:
        raise ValueError(f"expected at most {most} bytes unpacked, got more")
    if not stream.eof or stream.unused_data:
        raise ValueError("expected one whole gzip stream, and nothing after it")
    _check_claim(len(unpacked), least, most)
    return unpacked


DECOMPRESS: dict[str, Callable[[memoryview, int, int], Any]] = {
    "blosc": _blosc,
    "gzip": _gzip,
    "zstd": _zstd,
}
"""By the codec's name: of its bytes, and how many they may become, at least and at most."""


Array = NDArray[Any]

SERIALIZERS = {"T": "vlen-utf8", "O": "vlen-bytes"}
"""By kind of dtype; ``bytes`` for all others."""
COMPRESSORS = ("blosc", "gzip", "zstd")
CHECKSUM = "crc32c"
CHECKSUM_BYTES = 4
KNOWN = frozenset({"transpose", "bytes", *SERIALIZERS.values(), *COMPRESSORS, CHECKSUM})


def check_codecs(codecs: object) -> None:
    """Refuse a chain, as JSON, with a codec that is not among those run here.

    To be asked before zarr is: looking for a codec, it imports whatever package says it
    has one of that name.

    Raises
    ------
    UnsupportedCodecError
        Names the codec.
    """
    if not isinstance(codecs, list) or not codecs:
        raise ValueError(f"its codecs are {codecs!r:.100}: expected a list of them")
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if not isinstance(name, str) or name not in KNOWN:
            raise UnsupportedCodecError(
                f"packed with the codec {name!r:.100}, which is not read here: only "
                f"{', '.join(sorted(KNOWN))}"
            )


def value_bytes(dtype: np.dtype[Any]) -> int:
    """Return what a value takes in memory; of strings and bytes, besides its characters."""
    return 16 if dtype.kind in SERIALIZERS else dtype.itemsize


class ChunkCodec:
    """Encodes and decodes the chunks of one column.

    Parameters
    ----------
    metadata : ArrayV3Metadata
        The column's.
    chunk_shape : tuple of int
        (rows,) or (rows, width) of every chunk, the last one included.
    column : str
        The column's name, for messages.

    Raises
    ------
    UnsupportedCodecError
        For a chain that can't be unpacked in bounded memory.
    """

    def __init__(
        self, metadata: ArrayV3Metadata, chunk_shape: tuple[int, ...], column: str
    ) -> None:
        self._prototype = default_buffer_prototype()
        # Chunks that hold nothing but the fill value are written too: without the right
        # to list a bucket a missing object can't be told from a forbidden one.
        self._spec = ArraySpec(
            shape=chunk_shape,
            dtype=metadata.data_type,
            fill_value=metadata.fill_value,
            config=ArrayConfig.from_dict({"write_empty_chunks": True}),
            prototype=self._prototype,
        )
        self._column, self._shape = column, chunk_shape
        self._values = math.prod(chunk_shape)
        self._dtype = metadata.data_type.to_native_dtype()
        self._of_any_length = self._dtype.kind in SERIALIZERS
        self._size = self._values * value_bytes(self._dtype)
        names = [str(codec.to_dict()["name"]) for codec in metadata.codecs]
        serializer = SERIALIZERS.get(self._dtype.kind, "bytes")
        _check_order(names, serializer, self._dtype)
        first = names.index(serializer) + 1
        # From an array to plain bytes and back: zarr's, but for strings, of which ours makes the
        # same bytes in less time. What packs these bytes is run here.
        self._plain = ChunkTransform(codecs=metadata.codecs[:first])
        self._is_text = names[:first] == [SERIALIZERS["T"]]
        self._packing: list[tuple[str, Any]] = list(
            zip(names[first:], metadata.codecs[first:], strict=True)
        )
        self._pack = self._packer()
        self._in_blocks = _is_native(metadata.codecs[0], self._dtype) and (
            [name for name in names[1:] if name != CHECKSUM] == names[1:2] == ["blosc"]
        )

    def of_column(self, column: str) -> Self:
        """Return the same for another column, of which messages speak."""
        other = copy.copy(self)
        other._column = column
        other._pack = self._packer()
        return other

    def _packer(self) -> Callable[[NDArray[np.uint8]], list[Piece]] | None:
        """Return what packs, where ``zarr.json`` leaves it to us how Blosc does; each column's own."""
        name, codec = self._packing[0] if self._packing else ("", None)
        if codec is None or name != "blosc":
            return None
        configuration = codec.to_dict().get("configuration", {})
        if not self._of_any_length and compression.chooses(configuration):
            return compression.Packer(self._dtype.itemsize).pack
        if self._of_any_length and compression.chooses_for_text(configuration):
            return compression.pack_text
        return None

    def check_size(self) -> None:
        """Refuse chunks that are too large to be handled.

        Raises
        ------
        TooLargeError
        """
        self._check_size(self._size)

    def _check_size(self, size: int) -> None:
        most = max_chunk_bytes()
        if size > most:
            raise TooLargeError(
                f"column {self._column!r}: a chunk of {' x '.join(map(str, self._shape))} values "
                f"takes {size} bytes in memory, and {most} are allowed (the environment variable "
                f"{MAX_CHUNK_VARIABLE} can allow more)"
            )

    @property
    def packed_limit(self) -> int:
        """How many bytes the object of a chunk can have: packing adds little where it can't help."""
        most = max_chunk_bytes()
        if not self._of_any_length:
            most = min(most, self._size)
        return most + most // 64 + 2**16

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory; of strings and bytes, besides their characters."""
        return self._size // self._shape[0]

    def encode(self, chunk: Array, turns: AbstractContextManager[Any] | None = None) -> bytes:
        """Return the bytes of a chunk of the full chunk shape.

        Parameters
        ----------
        chunk : ndarray
            Of the column's dtype; strings also of fixed width, or as their UTF-8.
        turns : context manager, optional
            What to hold while strings are taken out of their array.

        Raises
        ------
        TooLargeError
            For one that could not be decoded again.
        """
        self.check_size()
        buffer: Any
        if self._is_text:
            with turns or nullcontext():
                text = pack(chunk)
            buffer = self._prototype.buffer.from_array_like(text)
        else:
            array = self._prototype.nd_buffer.from_numpy_array(_as(chunk, self._dtype))
            buffer = self._plain.encode_chunk(array, self._spec)
        self._check_size(len(buffer))
        if self._pack is not None:
            return _joined(self._pack(buffer.as_numpy_array()), len(self._packing) - 1)
        for _, codec in self._packing:
            try:
                buffer = codec._encode_sync(buffer, self._spec)
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:
                # A configuration that zarr lets pass and the compressor doesn't.
                raise UnsupportedCodecError(
                    f"column {self._column!r}: {self._dtype} can't be packed with {codec}: {error}"
                ) from error
        data: bytes = buffer.to_bytes()
        return data

    def decode(self, data: bytes | memoryview) -> Array:
        """Return the chunk that ``data`` holds.

        Raises
        ------
        TooLargeError
            Where chunks of this column are too large, whatever this one holds.
        Exception
            Whatever a codec raises for bytes that it did not write; the caller knows
            which object it was and says so. A chunk of another size, shape or dtype than
            the column's is a ValueError, raised before it is unpacked.
        """
        self.check_size()
        if self._is_text:
            chunk = np.empty(self._shape, self._dtype)
            self.decode_into(data, chunk)
            return chunk
        with ROOM.take(self._size):
            buffer = self._prototype.buffer.from_bytes(self._unpack(data))
            decoded = self._plain.decode_chunk(buffer, self._spec)
            chunk = np.asarray(decoded.as_ndarray_like())
        if chunk.shape != self._shape or chunk.dtype != self._dtype:
            raise ValueError(
                f"expected {self._dtype} of shape {self._shape}, got {chunk.dtype} of "
                f"shape {chunk.shape}"
            )
        return chunk

    def decode_into(self, data: bytes | memoryview, out: Array) -> None:
        """Unpack the chunk that ``data`` holds into an array of its shape and dtype.

        Where it can be, without other memory for it; strings are made where they are wanted,
        as to copy them is to make them again. Errors as :meth:`decode`; what is in the array
        then is of no use.
        """
        self.check_size()
        if not out.flags.c_contiguous or not (self._is_text or self._in_blocks):
            out[...] = self.decode(data)
        elif self._is_text:
            with ROOM.take(self._size):
                unpack(self._unpack(data), self._values, out.reshape(-1))
        else:
            plain = self._checked(data)
            check_header(plain, self._size, self._size)
            # Dates can't be given as what they are.
            blosc.decompress(plain, out.reshape(-1).view(np.uint8))

    def decode_padded(self, data: bytes) -> list[Array] | None:
        """Return the strings of a chunk as fixed-width bytes; None where it is better decoded.

        See :func:`ratzarr.codecs.strings.to_padded`; errors as :meth:`decode`.
        """
        self.check_size()
        if not self._is_text or len(self._shape) > 1:
            return None
        with ROOM.take(self._size):
            return to_padded(self._unpack(data), self._values)

    def check(self, data: bytes) -> None:
        """See that bytes are those of a chunk, with no more work than that takes.

        A checksum over what was packed is enough; without one the chunk is decoded.
        Errors as :meth:`decode`.
        """
        if self._packing and self._packing[-1][0] == CHECKSUM:
            self.check_size()
            self.check_sum(data)
        else:
            self.decode(data)

    def check_sum(self, data: bytes) -> None:
        """Compare a chunk's bytes with their checksum, if that is what they end in.

        Raises
        ------
        ValueError
        """
        name, codec = self._packing[-1] if self._packing else ("", None)
        if codec is not None and name == CHECKSUM:
            codec._decode_sync(self._prototype.buffer.from_bytes(data), self._spec)

    def blocks(self, data: bytes | memoryview) -> BloscBlocks | None:
        """Return a chunk in blocks, whose bytes are its values'; None if only the whole can be had.

        Raises
        ------
        Exception
            As :meth:`decode`, of which the checksums are part.
        """
        self.check_size()
        if not self._in_blocks:
            return None
        return BloscBlocks.of(self._checked(data), self._size)

    def summed_blocks(
        self, length: int, read: ReadAt, room: Callable[[int], memoryview]
    ) -> SummedBlocks | None:
        """Return a chunk's blocks, of which each has a checksum of its own; None where they have none.

        Parameters
        ----------
        length : int
            Bytes of the chunk's object.
        read : callable
            Reads from it.
        room : callable
            Returns memory for so many bytes.
        """
        if not self._in_blocks or self._size > max_chunk_bytes():
            return None
        length -= CHECKSUM_BYTES * (len(self._packing) - 1)
        return SummedBlocks.of(length, self._size, read, room)

    def _checked(self, data: bytes | memoryview) -> memoryview:
        """Compare all checksums; return what is before them."""
        plain: Any = data
        for _, codec in reversed(self._packing[1:]):
            buffer = self._prototype.buffer.from_bytes(plain)
            plain = codec._decode_sync(buffer, self._spec).as_numpy_array()
        return memoryview(plain)

    def as_values(self, plain: NDArray[np.uint8]) -> Array:
        """Return the chunk whose unpacked :meth:`blocks` these are, all of them."""
        return plain.view(self._dtype).reshape(self._shape)

    @staticmethod
    def unpack_blocks(
        blocks: BloscBlocks | SummedBlocks, first: int, last: int, out: NDArray[np.uint8]
    ) -> None:
        """Unpack some of a chunk's blocks, as :meth:`BloscBlocks.unpack` does, when there is room."""
        with ROOM.take(len(out)):
            blocks.unpack(first, last, out)

    def _unpack(self, data: Any) -> Any:
        """Undo compression and checksums: of no more bytes than there can be."""
        sums = sum(name == CHECKSUM for name, _ in self._packing)
        most = max_chunk_bytes() if self._of_any_length else self._size
        for name, codec in reversed(self._packing):
            if name == CHECKSUM:
                sums -= 1
                buffer = self._prototype.buffer.from_bytes(data)
                data = codec._decode_sync(buffer, self._spec).as_numpy_array()
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
            # The decoder makes as many as the header says, before it looks at the first.
            raise ValueError(f"expected {self._values} values, got {count}")
        return data


def _joined(pieces: list[Piece], checksums: int) -> bytes:
    """Return pieces with their checksums behind them, in one copy: zarr's codec makes two."""
    for _ in range(checksums):
        total = 0
        for piece in pieces:
            total = google_crc32c.extend(total, piece)
        pieces.append(struct.pack("<I", total))
    return b"".join(pieces)


def _as(chunk: Array, dtype: np.dtype[Any]) -> Array:
    # Strings may be given with a fixed width, or as their bytes.
    return chunk.astype(dtype) if dtype.kind == "T" and chunk.dtype.kind in "SU" else chunk


def _is_native(codec: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether the bytes that a codec makes of numbers are those that they have in memory."""
    described = codec.to_dict()
    if described["name"] != "bytes" or dtype.kind not in "biufMS" or not dtype.isnative:
        return False
    endian = (described.get("configuration") or {}).get("endian")
    return endian == sys.byteorder or dtype.itemsize == 1 or dtype.kind == "S"


def _check_order(names: Sequence[str], serializer: str, dtype: np.dtype[Any]) -> None:
    if serializer not in names:
        raise UnsupportedCodecError(f"{dtype} packed with {names}: expected {serializer} in it")
    first = names.index(serializer)
    strange = [name for name in names[:first] if name != "transpose"]
    strange += [name for name in names[first + 1 :] if name not in (*COMPRESSORS, CHECKSUM)]
    if strange:
        raise UnsupportedCodecError(f"packed with {names}: {strange[0]!r} has no place in it")
    if sum(name in COMPRESSORS for name in names) > 1:
        raise UnsupportedCodecError(
            f"packed with {names}, one compressor upon the other: how large that becomes "
            "unpacked can't be told beforehand"
        )
