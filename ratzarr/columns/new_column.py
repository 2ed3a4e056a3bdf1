"""Arguments of a table's methods, validated: numbers, and requests to create columns."""

import operator
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ratzarr.codecs.chunk_codec import value_bytes
from ratzarr.columns.attributes import checked_attributes
from ratzarr.errors import ArgumentError, RatZarrError
from ratzarr.format.casting import exact_scalar
from ratzarr.format.dtypes import ColumnType, check_width, column_type, normalize_dtype
from ratzarr.format.history import event
from ratzarr.format.limits import chunk_rows_within
from ratzarr.format.names import (
    COMPLETE_ATTR,
    MODIFICATION_ATTR,
    OWN_COLUMN_ATTRS,
    ROWS_DONE_ATTR,
    Document,
    check_name,
    column_document,
)

__all__ = ["NewColumn", "integer", "new_columns"]


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A validated request to create a column."""

    name: str
    type: ColumnType
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
        values = check_width(width)
        found = normalize_dtype(dtype)
        scalar = None if fillValue is None else exact_scalar(fillValue, found, column=name)
        described = column_type(found, scalar)
        return cls(
            name=name,
            type=described,
            width=values,
            # Use fewer rows if a chunk would otherwise be too large to read back.
            chunk_rows=chunk_rows_within(
                chunk_rows, value_bytes(described.dtype) * values, column=name
            ),
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
        unfinished: dict[str, Any] = {}
        if not self.complete:
            # The creator of an incomplete column is about to write to it, so the first event is
            # logged here, which saves a request.
            unfinished = {
                COMPLETE_ATTR: False,
                ROWS_DONE_ATTR: 0,
                MODIFICATION_ATTR: [event()],
            }
        return column_document(
            self.name,
            column_id=secrets.token_hex(8),
            rows=rows,
            width=self.width,
            chunk_rows=self.chunk_rows,
            data_type=self.type.data_type,
            fill_value=self.type.fill_value,
            codecs=list(self.type.codecs),
            attributes={**self.attributes, **marks, **unfinished},
        )


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
