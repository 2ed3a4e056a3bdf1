"""Arguments of a table's methods, validated: numbers, and requests to create columns."""

import operator
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ratzarr.codecs.chunk_codec import chunk_rows_within
from ratzarr.columns.attributes import checked_attributes
from ratzarr.errors import ArgumentError, RatZarrError
from ratzarr.format.casting import exact_scalar
from ratzarr.format.dtypes import describe, empty_value, normalize_dtype
from ratzarr.format.history import event
from ratzarr.format.limits import MAX_ROWS
from ratzarr.format.names import (
    COLUMN_ID_ATTR,
    COMPLETE_ATTR,
    MODIFICATION_ATTR,
    NAME_ATTR,
    OWN_COLUMN_ATTRS,
    ROWS_DONE_ATTR,
    Document,
    check_name,
    key_of,
)

__all__ = ["NewColumn", "integer", "new_columns"]


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


def integer(value: Any, what: str, least: int | None = None, most: int | None = None) -> int:
    """Return an integer argument. NumPy integers are accepted; bools and floats are refused."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(
            f"{what} is an integer: got {value!r}, a {type(value).__name__}"
        ) from None
    too_small = least is not None and number < least
    if too_small or (most is not None and number > most):
        raise ArgumentError(f"{what} is an integer from {least} to {most}: got {number}")
    return number
