"""Every error that ratzarr raises on purpose.

All are children of :class:`RatZarrError`, so ``except RatZarrError`` catches whatever
this package objects to. Where a builtin exception says the same thing, it is a second
parent, so that code which knows nothing of us (``except FileNotFoundError``) works too.
"""

__all__ = [
    "Advice",
    "ArgumentError",
    "ChangedError",
    "ClosedError",
    "ColumnExistsError",
    "ColumnIncompleteError",
    "ColumnNotFoundError",
    "ConflictError",
    "DamagedError",
    "FormatVersionError",
    "InvalidNameError",
    "ListingRefusedError",
    "NotARatZarrError",
    "RatZarrError",
    "ReadOnlyError",
    "RedirectError",
    "RowRangeError",
    "ShapeError",
    "StoreConnectionError",
    "StoreError",
    "StorePermissionError",
    "StoreTimeoutError",
    "TableNotFoundError",
    "TooLargeError",
    "UnequalValueError",
    "UnsupportedCodecError",
    "UnsupportedDtypeError",
]


class Advice(str):
    """A message, and a hint at its end that names keyword arguments.

    Python reads ``overwrite=True``; a command line shows its option ``--overwrite`` instead. It does
    so in the hint only, so no name of a file or column goes there.

    >>> str(Advice("x.tif already exists.", "Use overwrite=True to replace it."))
    'x.tif already exists. Use overwrite=True to replace it.'

    Parameters
    ----------
    text : str
        What failed.
    hint : str
        What to do next: keywords are written ``name=True``, ``name=False`` or ``name=...``.
    """

    __slots__ = ("hint",)
    hint: str

    def __new__(cls, text: str, hint: str = "") -> "Advice":
        """Put the two together."""
        # Unpickling gives the whole text, and then the attribute.
        made = super().__new__(cls, f"{text} {hint}" if hint else text)
        made.hint = hint
        return made


class RatZarrError(Exception):
    """Root of every error that ratzarr raises on purpose."""


class ArgumentError(RatZarrError, ValueError, TypeError):
    """An argument has a type or a value that can't be meant."""


class ConflictError(RatZarrError):
    """Other writers changed an object each time we tried to."""


class ChangedError(ConflictError):
    """Another process cut off these rows, or deleted the column and created it anew."""


class ClosedError(RatZarrError, ValueError):
    """The RatZarr instance was closed."""


class ColumnExistsError(RatZarrError, ValueError):
    """A column of this name is there already."""


class ColumnIncompleteError(RatZarrError):
    """A bulk writer has not finished (or did not get to finish) this column."""


class ColumnNotFoundError(RatZarrError, KeyError):
    """The table has no column of this name."""

    # KeyError would show the message in quotes.
    __str__ = Exception.__str__


class DamagedError(RatZarrError, OSError):
    """An object of the store can't be what was written."""


class FormatVersionError(RatZarrError, ValueError):
    """The store was written in a later format than this version knows."""


class InvalidNameError(RatZarrError, ValueError):
    """A name that no column, or no table, can have."""


class NotARatZarrError(RatZarrError, ValueError):
    """Something is at this place, and it is not a RatZarr."""


class ReadOnlyError(RatZarrError, PermissionError):
    """A change was asked of a table opened for reading, or of a place that is."""


class RowRangeError(RatZarrError, IndexError):
    """Rows outside the table."""


class ShapeError(RatZarrError, ValueError):
    """A block whose shape does not fit the column."""


class StoreError(RatZarrError, OSError):
    """The disk or the server refused, and no narrower error says it better."""


class StoreConnectionError(StoreError, ConnectionError):
    """The server can't be reached, or broke off."""


class StorePermissionError(StoreError, PermissionError):
    """The disk or the server does not let us."""


class ListingRefusedError(StorePermissionError):
    """The server does not let us list a bucket. It may still let us read from it."""


class RedirectError(StorePermissionError):
    """The server points to another region or endpoint, which was not asked."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The server does not answer."""


class TableNotFoundError(RatZarrError, FileNotFoundError):
    """No table at this place."""


class TooLargeError(RatZarrError, MemoryError):
    """Something would take more memory than it may, or than there is."""


class UnequalValueError(RatZarrError, ValueError):
    """A value that the column can't hold exactly."""


class UnsupportedCodecError(RatZarrError, ValueError):
    """A column is packed in a way whose need of memory can't be known beforehand."""


class UnsupportedDtypeError(RatZarrError, TypeError):
    """A dtype that no column can have."""
