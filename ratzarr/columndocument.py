"""A column's ``zarr.json`` understood: what of it is believed, and how far.

Zarr's own class for it takes more than a column can be: chunks of many sizes written as
one number and a count, codecs of any package that is installed. What decides how much
is allocated or loaded is therefore looked at first, as plain JSON.

Most columns of a table differ in their rows and attributes alone. All else is handed to
Zarr's class once, and remembered: that takes longer than the rest of opening a column.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from zarr.core.chunk_key_encodings import ChunkKeyEncoding
from zarr.core.metadata.v3 import ArrayV3Metadata, RegularChunkGridMetadata

from .codec import ChunkCodec, check_codecs
from .errors import DamagedError, RatZarrError, UnsupportedCodecError
from .layout import (
    COLUMN_ID_ATTR,
    COMPLETE_ATTR,
    CUTS_ATTR,
    CUTTING_ATTR,
    ROWS_DONE_ATTR,
    Document,
)
from .limits import MAX_ROWS

__all__ = ["ColumnDocument", "understand"]


REMEMBERED = 256
"""Kinds of columns that are."""
LONGEST = 10_000
"""Characters of JSON that describe one that is."""


@dataclass(frozen=True, slots=True)
class ColumnDocument:
    """What a column's ``zarr.json`` says, but for its rows and its attributes."""

    chunk_keys: ChunkKeyEncoding
    chunk_shape: tuple[int, ...]
    """(rows,) or (rows, width)."""
    dtype: np.dtype[Any]
    fill: Any
    """What rows hold that were never written, every bit of it."""
    codec: ChunkCodec
    kind: tuple[str, ...]
    """All of this in words: the same of another only if its bytes are read in the same way."""


_known: dict[str, ColumnDocument] = {}
# By their JSON. What is done with this dict is atomic: it needs no lock, which could be held in a
# fork.


def understand(document: Document, place: str, name: str) -> ColumnDocument:
    """Return what a column's document says.

    Parameters
    ----------
    document : dict
        As JSON.
    place, name : str
        The document's and the column's, for messages.

    Raises
    ------
    DamagedError
        Where it can't be what was written.
    UnsupportedCodecError
        Where its chunks can't be unpacked in bounded memory.
    """
    try:
        _check_shapes(document)
        check_codecs(document.get("codecs"))
        _check_own(document["attributes"])
        own = {name: one for name, one in document.items() if name not in ("shape", "attributes")}
        text = json.dumps([document["shape"][1:], own])
        found = _known.get(text)
        if found is None:
            found = _understand(document, name)
            if len(_known) >= REMEMBERED:
                _known.clear()
            if len(text) <= LONGEST:
                _known[text] = found
        return replace(found, codec=found.codec.of_column(name))
    except UnsupportedCodecError as error:
        raise UnsupportedCodecError(f"{place}: column {name!r} is {error}") from error
    except RatZarrError:
        raise
    except Exception as error:
        # Zarr's parsers raise what they come across: KeyError, TypeError, AttributeError.
        said = str(error) or type(error).__name__
        raise DamagedError(f"{place}: column {name!r} can't be read: {said:.500}") from error


def _understand(document: Document, name: str) -> ColumnDocument:
    metadata = ArrayV3Metadata.from_dict(document)
    grid = metadata.chunk_grid
    if not isinstance(grid, RegularChunkGridMetadata):
        raise ValueError("its chunks are not all of one size")
    dtype = metadata.data_type.to_native_dtype()
    codec = ChunkCodec(metadata, grid.chunk_shape, name)
    fill = _exact_fill(document["fill_value"], dtype, metadata.fill_value)
    described = (
        metadata.data_type, grid.chunk_shape, metadata.chunk_key_encoding, metadata.codecs,
        _bits(fill),
    )  # fmt: skip
    # Not the JSON itself: zarr writes the same things in other words.
    kind = tuple(map(repr, described))
    return ColumnDocument(metadata.chunk_key_encoding, grid.chunk_shape, dtype, fill, codec, kind)


def _bits(fill: Any) -> Any:
    """Return what tells fill values apart: NaNs by their payloads, and never as text."""
    # numpy can't write date-times as text that are too late for a calendar.
    return fill.tobytes() if isinstance(fill, np.generic) else fill


def _exact_fill(written: object, dtype: np.dtype[Any], found: Any) -> Any:
    """Return a fill value as it was written: zarr makes signalling NaNs quiet ones."""
    if dtype.kind == "f" and isinstance(written, str) and written.startswith("0x"):
        return np.array(int(written, 16), f"u{dtype.itemsize}").view(dtype)[()]
    return found


def _check_shapes(document: Document) -> None:
    if document.get("zarr_format") != 3 or document.get("node_type") != "array":
        raise ValueError("expected an array in Zarr format 3")
    shape: Any = document.get("shape")
    if not _is_shape(shape, 0):
        raise ValueError(f"its shape is {shape!r:.100}: expected [rows] or [rows, width]")
    grid = document.get("chunk_grid")
    if not isinstance(grid, Mapping) or grid.get("name") != "regular":
        raise ValueError("its chunks are not all of one size")
    configuration = grid.get("configuration")
    chunks: Any = configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None
    if not _is_shape(chunks, 1) or len(chunks) != len(shape) or chunks[1:] != shape[1:]:
        raise ValueError(
            f"shape {shape} in chunks of {chunks!r:.100}: expected (rows,) or (rows, width), and "
            "each chunk to hold whole rows"
        )
    # Other encodings come from packages that zarr would import by this name.
    keys = document.get("chunk_key_encoding")
    if (keys.get("name") if isinstance(keys, Mapping) else keys) not in ("default", "v2"):
        raise ValueError(f"its chunk_key_encoding is {keys!r:.100}: expected default or v2")


def _is_count(count: object, least: int = 0) -> bool:
    return type(count) is int and least <= count <= MAX_ROWS


def _is_shape(shape: Any, least_rows: int) -> bool:
    if not isinstance(shape, list) or len(shape) not in (1, 2):
        return False
    leasts = (least_rows, 1)
    return all(_is_count(count, least) for least, count in zip(leasts, shape, strict=False))


def _check_own(attributes: Mapping[str, Any]) -> None:
    complete = attributes.get(COMPLETE_ATTR, True)
    if not isinstance(complete, bool):
        raise ValueError(f"its {COMPLETE_ATTR} is {complete!r:.100}: expected true or false")
    for name in (ROWS_DONE_ATTR, CUTTING_ATTR):
        count = attributes.get(name, 0)
        if not _is_count(count):
            raise ValueError(f"its {name} is {count!r:.100}: expected a number of rows")
    cuts = attributes.get(CUTS_ATTR, [])
    if cuts is not None and not (isinstance(cuts, list) and all(map(_is_count, cuts))):
        raise ValueError(f"its {CUTS_ATTR} is {cuts!r:.100}: expected numbers of rows, or null")
    number = attributes.get(COLUMN_ID_ATTR, "0")
    if not isinstance(number, str) or not re.fullmatch(r"[0-9a-f]{1,64}", number):
        # It becomes part of keys and of requests.
        raise ValueError(f"its {COLUMN_ID_ATTR} is {number!r:.100}: expected hexadecimal digits")
