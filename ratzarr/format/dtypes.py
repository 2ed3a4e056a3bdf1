"""The dtypes that a column may have, and their descriptions and codecs on disk.

A column holds any numpy integer, float (16 to 64 bits), bool, ``datetime64`` with a unit,
fixed-width bytes (``S7``), strings (``StringDType``) or bytes of any length (:data:`BYTES`, every
value a ``bytes``). The descriptions are those of Zarr format 3, written here as JSON so that the
files do not depend on the defaults of the installed library.

Measurements determined the codecs (docs/decisions/0001-codecs.md): lz4 with byte shuffle for
numbers of 4 and 8 bytes, with bit shuffle for narrower ones, zstd without shuffle for text. The
last codec is always CRC-32C, because a compressor alone returns wrong values for most flipped bits
without an error.
"""

import base64
import math
import struct
from typing import Any

import numpy as np

from ratzarr.errors import UnsupportedDtypeError
from ratzarr.format.dataframes import numpy_dtype
from ratzarr.format.names import Document

__all__ = ["BYTES", "STRING", "describe", "empty_value", "normalize_dtype"]

STRING = np.dtypes.StringDType()
"""Text of any length."""
BYTES: np.dtype[Any] = np.dtype(object, metadata={"vlen": bytes})
"""Bytes of any length. NumPy has only the object dtype for them; this one is equal to it, and its
metadata tells that the objects are bytes."""
EXPECTED = (
    "any integer, float16, float32, float64, bool, datetime64 with a unit, fixed-width bytes "
    "('S7'), str (or StringDType) for text, bytes for bytes of any length"
)
_DATETIME_UNITS = frozenset(
    {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"}
)


def normalize_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a column created with ``dtype``.

    Parameters
    ----------
    dtype : dtype-like
        Anything that :class:`numpy.dtype` accepts, one of zarr's own data types, or a dtype of
        pandas, Polars or Arrow that maps exactly. ``str`` and fixed-width strings (``U10``) mean
        strings of any length; ``bytes`` means bytes of any length. Byte order is not kept, but
        values are.

    Raises
    ------
    UnsupportedDtypeError
        For any other dtype.
    """
    known = None if isinstance(dtype, np.dtype) else numpy_dtype(dtype)
    if known is not None:
        dtype = known
    if dtype is bytes or (isinstance(dtype, str) and dtype == "bytes"):
        return BYTES
    if hasattr(dtype, "to_native_dtype"):
        dtype = dtype.to_native_dtype()
        if dtype.kind == "O":
            # Among zarr's data types, this is the one for bytes.
            return BYTES
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise UnsupportedDtypeError(
            f"{dtype!r} is not a dtype: a column's is {EXPECTED}"
        ) from error
    if found.kind in "UT":
        if found.kind == "T" and hasattr(found, "na_object"):
            raise UnsupportedDtypeError(
                f"{found!r} has a missing value, which no string column can hold: "
                "use StringDType() and, say, '' for missing"
            )
        return STRING
    if found.kind == "O":
        if found.metadata is not None and dict(found.metadata) == BYTES.metadata:
            return BYTES
        raise UnsupportedDtypeError(
            "dtype object does not say what a column's values are: use str for text, bytes for bytes"
        )
    number = found.kind in "iub" or (found.kind == "f" and found.itemsize in (2, 4, 8))
    datetime = found.kind == "M" and np.datetime_data(found)[0] in _DATETIME_UNITS
    if number or datetime or (found.kind == "S" and found.itemsize > 0):
        native: np.dtype[Any] = found.newbyteorder("=")
        return native
    raise UnsupportedDtypeError(f"no column can have dtype {found}: expected {EXPECTED}")


def empty_value(dtype: np.dtype[Any]) -> Any:
    """Return the value of rows never written: 0, False, "", b"" or NaT."""
    if dtype.kind == "M":
        return np.asarray("NaT", dtype)[()]
    if dtype.kind in "OS":
        return b""
    if dtype.kind == "T":
        return ""
    return dtype.type(0)


def describe(dtype: np.dtype[Any], fill: Any) -> Document:
    """Return a dtype, from :func:`normalize_dtype`, and a fill value as parts of a ``zarr.json``."""
    return {
        "data_type": _data_type(dtype),
        "fill_value": _fill_json(dtype, fill),
        "codecs": _codecs(dtype),
    }


def _data_type(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "T":
        return "string"
    if dtype.kind == "O":
        return "variable_length_bytes"
    if dtype.kind == "S":
        return {
            "name": "null_terminated_bytes",
            "configuration": {"length_bytes": dtype.itemsize},
        }
    if dtype.kind == "M":
        unit, scale = np.datetime_data(dtype)
        return {
            "name": "numpy.datetime64",
            "configuration": {"unit": unit, "scale_factor": scale},
        }
    return dtype.name


def _fill_json(dtype: np.dtype[Any], value: Any) -> Any:
    if dtype.kind == "T":
        return str(value)
    if dtype.kind in "OS":
        return base64.standard_b64encode(bytes(value)).decode("ascii")
    if dtype.kind == "M":
        return "NaT" if np.isnat(value) else int(np.asarray(value, dtype).view("int64"))
    if dtype.kind == "b":
        return bool(value)
    if dtype.kind in "iu":
        return int(value)
    number = float(value)
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if math.isnan(number):
        bits = int(np.asarray(value, dtype).view(f"u{dtype.itemsize}"))
        quiet = int(np.asarray(np.nan, dtype).view(f"u{dtype.itemsize}"))
        return "NaN" if bits == quiet else f"0x{bits:0{2 * dtype.itemsize}x}"
    if number == 0 and struct.pack("d", number) != struct.pack("d", 0.0):
        return -0.0
    return number


def _blosc(cname: str, clevel: int, shuffle: str, typesize: int) -> Document:
    return {
        "name": "blosc",
        "configuration": {
            "typesize": typesize,
            "cname": cname,
            "clevel": clevel,
            "shuffle": shuffle,
            "blocksize": 0,
        },
    }


def _codecs(dtype: np.dtype[Any]) -> list[Document]:
    crc: Document = {"name": "crc32c"}
    text = _blosc("zstd", 1, "noshuffle", 1)
    if dtype.kind == "T":
        return [{"name": "vlen-utf8", "configuration": {}}, text, crc]
    if dtype.kind == "O":
        return [{"name": "vlen-bytes", "configuration": {}}, text, crc]
    if dtype.kind == "S":
        return [{"name": "bytes"}, text, crc]
    if dtype.itemsize == 1:
        return [{"name": "bytes"}, _blosc("lz4", 5, "bitshuffle", 1), crc]
    shuffle = "bitshuffle" if dtype.itemsize == 2 else "shuffle"
    return [
        {"name": "bytes", "configuration": {"endian": "little"}},
        _blosc("lz4", 5, shuffle, dtype.itemsize),
        crc,
    ]
