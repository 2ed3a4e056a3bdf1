"""A column's ``zarr.json``: validated, parsed, and turned into an immutable state.

zarr's own metadata class accepts more than a column can be. Fields that decide how much memory is
allocated or which code is loaded are therefore checked first, as plain JSON. Parsed metadata is
cached, because most columns of a table differ only in their row count and attributes.

A :class:`ColumnState` never changes. A reader or writer of a block takes one state and keeps it from
the first row to the last, so bytes of one dtype are never read as another.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from zarr.core.metadata.v3 import ArrayV3Metadata

from ratzarr.codecs.chunk_codec import ChunkCodec, check_codecs, value_bytes
from ratzarr.errors import DamagedError, RatZarrError, UnsupportedCodecError
from ratzarr.format.limits import MAX_ROWS
from ratzarr.format.names import (
    COLUMN_ID_ATTR,
    COMPLETE_ATTR,
    CUTS_ATTR,
    CUTTING_ATTR,
    ROWS_DONE_ATTR,
    Document,
)

__all__ = [
    "ColumnDocument",
    "ColumnState",
    "understand",
]


REMEMBERED = 256
"""Kinds of columns that are."""
LONGEST = 10_000
"""Characters of JSON that describe one that is."""


@dataclass(frozen=True, slots=True)
class ColumnDocument:
    """What a column's ``zarr.json`` says, but for its rows and its attributes."""

    chunk_keys: Any
    """zarr's encoding of chunk keys."""
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
    chunk_shape = metadata.chunks
    dtype = metadata.data_type.to_native_dtype()
    codecs = [codec.to_dict() for codec in metadata.codecs]
    codec = ChunkCodec(codecs, dtype, chunk_shape, name)
    fill = _exact_fill(document["fill_value"], dtype, metadata.fill_value)
    described = (
        metadata.data_type, chunk_shape, metadata.chunk_key_encoding, metadata.codecs,
        _bits(fill),
    )  # fmt: skip
    # Not the JSON itself: zarr writes the same things in other words.
    kind = tuple(map(repr, described))
    return ColumnDocument(metadata.chunk_key_encoding, chunk_shape, dtype, fill, codec, kind)


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


_SEPARATORS = re.compile(r"[./]")


@dataclass(frozen=True, slots=True)
class ColumnState:
    """A column as one version of its document describes it."""

    id: str
    """What tells it from others of its name; empty where its writer gave it none."""
    dtype: np.dtype[Any]
    fill: Any
    """What rows hold that were never written."""
    rows: int
    """Rows of its own shape; the table may have more or fewer."""
    row_shape: tuple[int, ...]
    """() or (width,)."""
    chunk_rows: int
    codec: ChunkCodec
    chunk_keys: Any
    kind: tuple[Any, ...]
    """All that decides how its bytes are read."""
    cutting: int | None
    """Rows that stay, while those after them are being cleared."""
    cuts: tuple[int, ...] | None
    """Rows that were left each time that rows were cut off; None where nobody kept count."""
    complete: bool
    rows_done: int
    """Leading rows that a bulk writer has written: their chunks are there."""

    @classmethod
    def of(cls, document: Document, place: str, name: str) -> Self:
        """Understand a document.

        Parameters
        ----------
        document : dict
            The column's ``zarr.json``.
        place, name : str
            Where it lies and which column it is, for messages.

        Raises
        ------
        DamagedError
            Where it can't be that of a column.
        UnsupportedCodecError
            Where its chunks can't be unpacked in bounded memory.
        """
        found = understand(document, place, name)
        shape, chunk_shape = document["shape"], found.chunk_shape
        attributes = document.get("attributes", {})
        column_id = attributes.get(COLUMN_ID_ATTR)
        cutting = attributes.get(CUTTING_ATTR)
        return cls(
            id=column_id if isinstance(column_id, str) else "",
            dtype=found.dtype,
            fill=found.fill,
            rows=int(shape[0]),
            row_shape=tuple(shape[1:]),
            chunk_rows=int(chunk_shape[0]),
            codec=found.codec,
            chunk_keys=found.chunk_keys,
            kind=(column_id, *found.kind),
            cutting=cutting if _is_row_count(cutting) else None,
            cuts=_cuts(attributes.get(CUTS_ATTR, [] if column_id else None)),
            complete=attributes.get(COMPLETE_ATTR, True) is not False,
            rows_done=_count(attributes.get(ROWS_DONE_ATTR)),
        )

    @property
    def length(self) -> int:
        """Rows that count; whatever its chunks hold beyond them is no row's."""
        return self.rows if self.cutting is None else min(self.rows, self.cutting)

    @property
    def was_cut(self) -> bool:
        """Whether rows may have been cut off: chunks can then lie beyond its end."""
        return self.cuts is None or len(self.cuts) > 0

    @property
    def is_external(self) -> bool:
        """Whether another program has given it its length, or may have.

        That is so from when the program writes the document until a resize of ours.
        """
        return self.cuts is None

    def lowest_since(self, earlier: "ColumnState") -> int:
        """Return how few rows it has had since an earlier state."""
        cuts = () if self.cuts is None or earlier.cuts is None else self.cuts[len(earlier.cuts) :]
        return min((self.length, *cuts))

    @property
    def width(self) -> int:
        """Values per row."""
        return int(self.row_shape[0]) if self.row_shape else 1

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory; of strings and bytes, besides their characters."""
        return value_bytes(self.dtype) * self.width

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of every chunk, the last one included."""
        return (self.chunk_rows, *self.row_shape)

    @property
    def all_there(self) -> int:
        """Leading rows of which a missing chunk is damage: a bulk writer has finished them."""
        return min(self.rows_done, self.length) if self.complete and not self.is_external else 0

    def is_same_column(self, other: "ColumnState") -> bool:
        """Return whether bytes written under one state can be read under the other."""
        return self.kind == other.kind

    def chunk_name(self, chunk: int) -> str:
        """Return a chunk's key, within the column."""
        key: str = self.chunk_keys.encode_chunk_key((chunk, 0) if self.row_shape else (chunk,))
        return key

    def chunk_of(self, name: str) -> int | None:
        """Return which chunk a key within the column is; None where it is none."""
        words = _SEPARATORS.split(name.removeprefix("c"))
        words = words[1:] if words[0] == "" else words
        try:
            chunk = int(words[0])
        except (ValueError, IndexError):
            return None
        return chunk if chunk >= 0 and self.chunk_name(chunk) == name else None

    def mark(self) -> str:
        """Return what chunks are marked with, where they can be."""
        return f"{self.id}/{self.rows}" if self.id else ""

    def vouches_for(self, mark: str, stop: int) -> bool:
        """Return whether a chunk's mark says that rows up to ``stop`` are this column's."""
        column_id, _, rows = mark.partition("/")
        return bool(column_id) and column_id == self.id and rows.isdigit() and stop <= int(rows)

    def disowns(self, mark: str) -> bool:
        """Return whether a chunk's mark says that it is another column's."""
        return bool(self.id) and bool(mark) and mark.partition("/")[0] != self.id


def _is_row_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _cuts(value: Any) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(map(_is_row_count, value)) else None


def _count(value: Any) -> int:
    return int(value) if _is_row_count(value) else 0
