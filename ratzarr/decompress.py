"""Decompressors that believe nothing: each is told how many bytes may come of what it is given.

A chunk of kilobytes can claim to be one of gigabytes. So what a header says is compared with
that before the first byte is allocated, and what comes without one is cut off in time.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numcodecs import blosc, zstd

from .bloscblocks import check_header

__all__ = ["DECOMPRESS"]


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
