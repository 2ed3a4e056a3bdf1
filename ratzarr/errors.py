"""The errors that ratzarr raises.

All are subclasses of :class:`RatZarrError`, so ``except RatZarrError`` catches every error of this
package. Where a builtin exception has the same meaning, it is a second base class, so that general
code (``except FileNotFoundError``) works too.
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
    "PackageMissingError",
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
    """A message with a hint at its end that names keyword arguments.

    In Python the hint says ``overwrite=True``; the command line shows its option ``--overwrite``
    instead. Only the hint is translated, so it must not contain names of files or columns.

    >>> str(Advice("x.tif already exists.", "Use overwrite=True to replace it."))
    'x.tif already exists. Use overwrite=True to replace it.'

    Parameters
    ----------
    text : str
        The failure.
    hint : str
        The remedy. Keywords are written ``name=True``, ``name=False`` or ``name=...``.
    """

    __slots__ = ("hint",)
    hint: str

    def __new__(cls, text: str, hint: str = "") -> "Advice":
        """Join the two parts."""
        # Unpickling passes the whole text and sets the attribute afterwards.
        made = super().__new__(cls, f"{text} {hint}" if hint else text)
        made.hint = hint
        return made


class RatZarrError(Exception):
    """Base class of all errors that ratzarr raises."""


class ArgumentError(RatZarrError, ValueError, TypeError):
    """An argument has an invalid type or value."""


class ConflictError(RatZarrError):
    """Other writers changed an object before each of our attempts."""


class ChangedError(ConflictError):
    """Another process cut off these rows, or replaced the column."""


class ClosedError(RatZarrError, ValueError):
    """The RatZarr instance was closed."""


class ColumnExistsError(RatZarrError, ValueError):
    """A column of this name already exists."""


class ColumnIncompleteError(RatZarrError):
    """The column's writer has not finished it, or was interrupted."""


class ColumnNotFoundError(RatZarrError, KeyError):
    """The table has no column of this name."""

    # KeyError would show the message in quotes.
    __str__ = Exception.__str__


class DamagedError(RatZarrError, OSError):
    """An object of the store has changed since it was written."""


class FormatVersionError(RatZarrError, ValueError):
    """The store has a later format version than this package supports."""


class InvalidNameError(RatZarrError, ValueError):
    """An invalid name for a column or table."""


class NotARatZarrError(RatZarrError, ValueError):
    """The object at this location is not a RatZarr."""


class PackageMissingError(RatZarrError, ImportError):
    """The operation needs a package that is not installed."""


class ReadOnlyError(RatZarrError, PermissionError):
    """The table was opened for reading, or its location is read-only."""


class RowRangeError(RatZarrError, IndexError):
    """Rows outside the table."""


class ShapeError(RatZarrError, ValueError):
    """A block whose shape does not fit the column."""


class StoreError(RatZarrError, OSError):
    """The disk or the server reported an error without a more specific class."""


class StoreConnectionError(StoreError, ConnectionError):
    """The server is unreachable, or the connection broke."""


class StorePermissionError(StoreError, PermissionError):
    """The disk or the server denied permission."""


class ListingRefusedError(StorePermissionError):
    """The server does not allow listing a bucket. Reading may still be allowed."""


class RedirectError(StorePermissionError):
    """The server redirects to another region or endpoint, which was not contacted."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The server did not answer in time."""


class TableNotFoundError(RatZarrError, FileNotFoundError):
    """No table exists at this location."""


class TooLargeError(RatZarrError, MemoryError):
    """Something needs more memory than allowed or available."""


class UnequalValueError(RatZarrError, ValueError):
    """A value that the column can't hold exactly."""


class UnsupportedCodecError(RatZarrError, ValueError):
    """The memory that a column's codecs need cannot be determined beforehand."""


class UnsupportedDtypeError(RatZarrError, TypeError):
    """A dtype that columns do not support."""
