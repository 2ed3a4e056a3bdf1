"""A column's ``zarr.json``: parsed into an immutable state, or made for a new column.

zarr's own metadata class accepts documents that can't describe a column. Fields that determine
memory sizes or the code to load are therefore checked first, as plain JSON. Parsed metadata is
cached, because most columns of a table differ only in their row count and attributes.

A :class:`ColumnState` never changes. Each read or write of a block uses one state from the first
row to the last, so bytes of one dtype are never read as another.
"""

import json
import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
from zarr.core.metadata.v3 import ArrayV3Metadata

from ratzarr.codecs.chunk_codec import (
    ChunkCodec,
    check_codecs,
    chunk_rows_within,
    value_bytes,
)
from ratzarr.errors import ArgumentError, DamagedError, RatZarrError, UnsupportedCodecError
from ratzarr.format.casting import exact_scalar, integer
from ratzarr.format.dtypes import describe, empty_value, normalize_dtype
from ratzarr.format.history import event
from ratzarr.format.limits import MAX_ROWS
from ratzarr.format.names import (
    COLUMN_ID_ATTR,
    COMPLETE_ATTR,
    CUTS_ATTR,
    CUTTING_ATTR,
    MODIFICATION_ATTR,
    NAME_ATTR,
    OWN_COLUMN_ATTRS,
    ROWS_DONE_ATTR,
    Document,
    check_name,
    checked_attributes,
    is_count,
    key_of,
)

__all__ = ["ColumnState", "NewColumn", "new_columns"]


MAX_CACHED = 256
"""The maximum number of cached documents."""
MAX_CACHED_LENGTH = 10_000
"""The maximum length of a cached document, in characters of JSON."""


def _bits(fill: Any) -> Any:
    """Return a value that identifies a fill value; for a NaN it includes the payload."""
    # Bytes, not text: numpy can't format date-times beyond the calendar.
    return fill.tobytes() if isinstance(fill, np.generic) else fill


def _exact_fill(written: object, dtype: np.dtype[Any], found: Any) -> Any:
    """Return a fill value as it was written; zarr turns signalling NaNs into quiet ones."""
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
        raise ValueError("its chunks do not all have the same size")
    configuration = grid.get("configuration")
    chunks: Any = configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None
    if not _is_shape(chunks, 1) or len(chunks) != len(shape) or chunks[1:] != shape[1:]:
        raise ValueError(
            f"shape {shape} in chunks of {chunks!r:.100}: expected (rows,) or (rows, width), "
            "with whole rows in each chunk"
        )
    # For other encodings, zarr would import a package named in the document.
    keys = document.get("chunk_key_encoding")
    if (keys.get("name") if isinstance(keys, Mapping) else keys) not in ("default", "v2"):
        raise ValueError(f"its chunk_key_encoding is {keys!r:.100}: expected default or v2")


def _is_shape(shape: Any, least_rows: int) -> bool:
    if not isinstance(shape, list) or len(shape) not in (1, 2):
        return False
    leasts = (least_rows, 1)
    return all(is_count(count, least) for least, count in zip(leasts, shape, strict=False))


def _check_own(attributes: Mapping[str, Any]) -> None:
    complete = attributes.get(COMPLETE_ATTR, True)
    if not isinstance(complete, bool):
        raise ValueError(f"its {COMPLETE_ATTR} is {complete!r:.100}: expected true or false")
    for name in (ROWS_DONE_ATTR, CUTTING_ATTR):
        count = attributes.get(name, 0)
        if not is_count(count):
            raise ValueError(f"its {name} is {count!r:.100}: expected a number of rows")
    cuts = attributes.get(CUTS_ATTR, [])
    if cuts is not None and not (isinstance(cuts, list) and all(map(is_count, cuts))):
        raise ValueError(f"its {CUTS_ATTR} is {cuts!r:.100}: expected numbers of rows, or null")
    number = attributes.get(COLUMN_ID_ATTR, "0")
    if not isinstance(number, str) or not re.fullmatch(r"[0-9a-f]{1,64}", number):
        # The value becomes part of keys and requests.
        raise ValueError(f"its {COLUMN_ID_ATTR} is {number!r:.100}: expected hexadecimal digits")


_SEPARATORS = re.compile(r"[./]")


@dataclass(frozen=True, slots=True)
class ColumnState:
    """The state of a column, from one version of its document."""

    dtype: np.dtype[Any]
    fill: Any
    """The value of rows that were never written, exact to the bit."""
    row_shape: tuple[int, ...]
    """() or (width,)."""
    chunk_rows: int
    codec: ChunkCodec
    chunk_keys: Any
    """zarr's encoding of chunk keys."""
    kind: tuple[Any, ...]
    """A description of the fields above and the identity; equal for two states only if their bytes
    are read in the same way."""
    row_bytes: int
    """The size of a row in memory; for strings and bytes, without their characters."""
    id: str = ""
    """The identity of the column among columns of the same name; empty if its writer set none."""
    rows: int = 0
    """The rows of its own shape. The table may have more or fewer."""
    cutting: int | None = None
    """During a cut: the number of rows that stay. The rows after them are being cleared."""
    cuts: tuple[int, ...] | None = None
    """The number of remaining rows after each cut; None if another program may have cut rows
    without recording it."""
    complete: bool = True
    rows_done: int = 0
    """The number of leading rows whose chunks a bulk writer has written."""
    length: int = 0
    """The number of valid rows; values that chunks contain beyond them are ignored."""
    owner_tag: str = ""
    """The tag for chunks, for stores that can tag objects."""

    @staticmethod
    def of(document: Document, place: str, name: str) -> "ColumnState":
        """Parse a document.

        Parameters
        ----------
        document : dict
            The column's ``zarr.json``.
        place, name : str
            The location of the document and the name of the column, for messages.

        Raises
        ------
        DamagedError
            If the document can't describe a column.
        UnsupportedCodecError
            If its chunks can't be decoded in bounded memory.
        """
        try:
            _check_shapes(document)
            check_codecs(document.get("codecs"))
            _check_own(document["attributes"])
            shared = document | {"shape": [0, *document["shape"][1:]], "attributes": {}}
            text = json.dumps(shared)
            state = (_parse if len(text) <= MAX_CACHED_LENGTH else _parse.__wrapped__)(text)
        except UnsupportedCodecError as error:
            raise UnsupportedCodecError(f"{place}: column {name!r} is {error}") from error
        except RatZarrError:
            raise
        except Exception as error:
            # Zarr's parsers raise various errors: KeyError, TypeError, AttributeError.
            said = str(error) or type(error).__name__
            raise DamagedError(f"{place}: column {name!r} can't be read: {said:.500}") from error
        attributes, rows = document["attributes"], document["shape"][0]
        column_id = attributes.get(COLUMN_ID_ATTR, "")
        cutting = attributes.get(CUTTING_ATTR)
        cuts = attributes.get(CUTS_ATTR, [] if column_id else None)
        return replace(
            state,
            id=column_id,
            rows=rows,
            codec=state.codec.of_column(name),
            kind=(column_id, *state.kind),
            cutting=cutting,
            cuts=None if cuts is None else tuple(cuts),
            complete=attributes.get(COMPLETE_ATTR, True),
            rows_done=attributes.get(ROWS_DONE_ATTR, 0),
            length=rows if cutting is None else min(rows, cutting),
            owner_tag=f"{column_id}/{rows}" if column_id else "",
        )

    @property
    def was_cut(self) -> bool:
        """True if rows may have been cut off. Then chunks beyond the end may exist."""
        return self.cuts is None or len(self.cuts) > 0

    def never_cut(self, rows: int) -> int:
        """Return how many of the first rows were never cut off.

        The chunks of others may hold fill values since, even if all rows are back.
        """
        return min((rows, *(self.cuts or ())))

    @property
    def is_external(self) -> bool:
        """True if another program may have set its length.

        This holds from the time that the program writes the document until our next resize.
        """
        return self.cuts is None

    def lowest_since(self, earlier: "ColumnState") -> int:
        """Return the lowest row count since an earlier state."""
        cuts = () if self.cuts is None or earlier.cuts is None else self.cuts[len(earlier.cuts) :]
        return min((self.length, *cuts))

    @property
    def width(self) -> int:
        """Values per row."""
        return int(self.row_shape[0]) if self.row_shape else 1

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of every chunk, the last one included."""
        return (self.chunk_rows, *self.row_shape)

    @property
    def all_there(self) -> int:
        """The number of leading rows for which a missing chunk is damage."""
        return min(self.rows_done, self.length) if self.complete and not self.is_external else 0

    def is_same_column(self, other: "ColumnState") -> bool:
        """Return True if bytes written in one state can be read in the other."""
        return self.kind == other.kind

    def chunk_name(self, chunk: int) -> str:
        """Return a chunk's key, within the column."""
        key: str = self.chunk_keys.encode_chunk_key((chunk, 0) if self.row_shape else (chunk,))
        return key

    def chunk_of(self, name: str) -> int | None:
        """Return the chunk number for a key within the column; None for other keys."""
        words = _SEPARATORS.split(name.removeprefix("c"))
        words = words[1:] if words[0] == "" else words
        try:
            chunk = int(words[0])
        except (ValueError, IndexError):
            return None
        return chunk if chunk >= 0 and self.chunk_name(chunk) == name else None

    def covers(self, owner_tag: str, stop: int) -> bool:
        """Return True if a chunk's tag proves that rows up to ``stop`` belong to this column."""
        column_id, _, rows = owner_tag.partition("/")
        return bool(column_id) and column_id == self.id and rows.isdigit() and stop <= int(rows)

    def is_foreign(self, owner_tag: str) -> bool:
        """Return True if a chunk's tag shows that the chunk belongs to another column."""
        return bool(self.id) and bool(owner_tag) and owner_tag.partition("/")[0] != self.id


@lru_cache(MAX_CACHED)
def _parse(text: str) -> ColumnState:
    """Parse all fields that many columns of a table share."""
    document = json.loads(text)
    metadata = ArrayV3Metadata.from_dict(document)
    chunk_shape = metadata.chunks
    dtype = metadata.data_type.to_native_dtype()
    codecs = [codec.to_dict() for codec in metadata.codecs]
    fill = _exact_fill(document["fill_value"], dtype, metadata.fill_value)
    described = (
        metadata.data_type, chunk_shape, metadata.chunk_key_encoding, metadata.codecs, _bits(fill)
    )  # fmt: skip
    return ColumnState(
        dtype=dtype,
        fill=fill,
        row_shape=tuple(chunk_shape[1:]),
        chunk_rows=int(chunk_shape[0]),
        codec=ChunkCodec(codecs, dtype, chunk_shape),
        chunk_keys=metadata.chunk_key_encoding,
        # Don't compare the JSON itself, because zarr has several spellings for the same metadata.
        kind=tuple(map(repr, described)),
        row_bytes=value_bytes(dtype) * math.prod(chunk_shape[1:]),
    )


# ---- new columns


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A validated request to create a column."""

    name: str
    dtype: np.dtype[Any]
    fill: Any
    """The value of rows that are never written."""
    width: int
    """Values per row."""
    chunk_rows: int
    attributes: Mapping[str, Any]
    """JSON values, without the attributes that follow from the table's state."""
    complete: bool

    @classmethod
    def of(
        cls,
        name: str,
        dtype: Any,
        width: int = 1,
        *,
        chunk_rows: int,
        fillValue: Any = None,
        attributes: Mapping[str, Any] | None = None,
        complete: bool = True,
    ) -> Self:
        """Validate a request; for the parameters see :meth:`ratzarr.RatZarr.createColumn`.

        Raises
        ------
        InvalidNameError, UnsupportedDtypeError, UnequalValueError, ArgumentError, TooLargeError
            If an argument is not valid.
        """
        check_name(name)
        values = integer(width, "a column's width", 1, MAX_ROWS)
        found = normalize_dtype(dtype)
        return cls(
            name=name,
            dtype=found,
            fill=(
                empty_value(found)
                if fillValue is None
                else exact_scalar(fillValue, found, column=name)
            ),
            width=values,
            # Use fewer rows if a chunk would otherwise be too large to read back.
            chunk_rows=chunk_rows_within(chunk_rows, found, values, column=name),
            attributes=checked_attributes(attributes or {}, OWN_COLUMN_ATTRS),
            complete=complete,
        )

    def document(self, rows: int, marks: Mapping[str, Any]) -> Document:
        """Return the column's initial document.

        Parameters
        ----------
        rows : int
            The column's number of rows.
        marks : mapping
            Additional attributes that follow from the table's state.
        """
        attributes: dict[str, Any] = {}
        if key_of(self.name) != self.name:
            attributes[NAME_ATTR] = self.name
        # This distinguishes the column from earlier and later ones of the same name.
        attributes |= {COLUMN_ID_ATTR: secrets.token_hex(8), MODIFICATION_ATTR: []}
        attributes |= {**self.attributes, **marks}
        if not self.complete:
            # The creator of an incomplete column is about to write to it, so the first event is
            # logged here, which saves a request.
            attributes |= {
                COMPLETE_ATTR: False,
                ROWS_DONE_ATTR: 0,
                MODIFICATION_ATTR: [event()],
            }
        row = [] if self.width == 1 else [self.width]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *row],
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.chunk_rows, *row]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            **describe(self.dtype, self.fill),
            "dimension_names": ["row", "value"][: 1 + len(row)],
            "storage_transformers": [],
            "attributes": attributes,
        }


_OPTIONS = {"dtype", "width", "fillValue", "chunkSize", "attributes", "complete"}


def new_columns(columns: Any, chunk_rows: Callable[[Any], int]) -> list[NewColumn]:
    """Validate the request of :meth:`ratzarr.RatZarr.createColumns`.

    Parameters
    ----------
    columns : mapping
        For each name a dtype, or a mapping of options.
    chunk_rows : callable
        Returns the rows per chunk for a ``chunkSize``, which may be None.
    """
    if not isinstance(columns, Mapping):
        raise ArgumentError(
            f"createColumns takes a mapping of names to dtypes: got {columns!r:.100}"
        )
    new = []
    for name, asked in columns.items():
        try:
            options = _options(name, asked)
            rows = chunk_rows(options.pop("chunkSize", None))
            new.append(NewColumn.of(name, chunk_rows=rows, **options))
        except RatZarrError as error:
            error.add_note(f"(in the request for column {name!r}; no column was created)")
            raise
    return new


def _options(name: object, options: Any) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        return {"dtype": options}
    if "dtype" not in options or not set(options) <= _OPTIONS:
        raise ArgumentError(
            f"column {name!r}: expected a dtype, or a mapping with 'dtype' and optionally "
            f"{sorted(_OPTIONS - {'dtype'})}; got {list(options)!r:.200}"
        )
    return dict(options)
