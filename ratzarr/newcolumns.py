"""A column that is to be created: what was asked for, checked before anything is written."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .attributes import checked_attributes
from .casting import exact_scalar
from .codec import value_bytes
from .dtypes import ColumnType, check_width, column_type, normalize_dtype
from .history import event
from .layout import (
    COMPLETE_ATTR,
    MODIFICATION_ATTR,
    OWN_COLUMN_ATTRS,
    ROWS_DONE_ATTR,
    Document,
    check_name,
    column_document,
)
from .limits import chunk_rows_within

__all__ = ["NewColumn"]


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A column that can be created."""

    name: str
    type: ColumnType
    width: int
    """Values per row."""
    chunk_rows: int
    attributes: Mapping[str, Any]
    """JSON, and none that follow from the table's state."""
    complete: bool

    @classmethod
    def of(
        cls,
        name: str,
        dtype: Any,
        width: int,
        *,
        fill: Any,
        chunk_rows: int,
        attributes: Mapping[str, Any] | None,
        complete: bool,
    ) -> Self:
        """Check what was asked for; see :meth:`ratzarr.RatZarr.createColumn`.

        Raises
        ------
        InvalidNameError, UnsupportedDtypeError, UnequalValueError, ArgumentError, TooLargeError
            For what can't be.
        """
        check_name(name)
        values = check_width(width)
        found = normalize_dtype(dtype)
        scalar = None if fill is None else exact_scalar(fill, found, column=name)
        described = column_type(found, scalar)
        return cls(
            name=name,
            type=described,
            width=values,
            # Fewer where a chunk would be too large to be read again.
            chunk_rows=chunk_rows_within(
                chunk_rows, value_bytes(described.dtype) * values, column=name
            ),
            attributes=checked_attributes(attributes or {}, OWN_COLUMN_ATTRS),
            complete=complete,
        )

    def document(self, rows: int, marks: Mapping[str, Any]) -> Document:
        """Return the document to create it with.

        Parameters
        ----------
        rows : int
            How many it is to have.
        marks : mapping
            Attributes that follow from the table's state.
        """
        unfinished: dict[str, Any] = {}
        if not self.complete:
            # Who creates it so is about to write it: that is noted here, and not by a request.
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
