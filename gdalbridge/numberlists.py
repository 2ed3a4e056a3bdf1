"""Rows as lists of numbers, as GDAL's ``ReadValuesIOAs...`` makes them. Pure.

Only what needs no conversion, or one that there are no two opinions about: a whole number
that is asked for as one, a double, digits. GDAL is asked for all else.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gdaltypes import FieldType

__all__ = ["as_list", "needs_no_gdal"]

Array = NDArray[Any]

MOST_DIGITS = 9
"""So many are always a 32-bit number."""
NUMERIC = frozenset({FieldType.INTEGER, FieldType.REAL, FieldType.BOOLEAN})


def needs_no_gdal(method: str, kind: int) -> bool:
    """Return whether :func:`as_list` knows columns of a type by a method, as a rule."""
    return method in _MAKERS and (kind in NUMERIC or kind == FieldType.STRING)


def as_list(method: str, kind: int, plain: Array) -> list[Any] | None:
    """Return rows as one of GDAL's methods does; None where GDAL is to be asked.

    Parameters
    ----------
    method : str
        ``ReadValuesIOAsInteger`` and the like.
    kind : int
        GDAL's number of the column's type.
    plain : ndarray
        As GDAL takes it, see :mod:`gdalbridge.shownvalues`.
    """
    make = _MAKERS.get(method)
    return make(kind, plain) if make is not None and len(plain) else None


def _integers(kind: int, plain: Array) -> list[Any] | None:
    if kind == FieldType.STRING:
        return _listed(_of_text(plain))
    if kind == FieldType.REAL and not np.abs(plain).max() < 2**31:
        # It cuts; what of these does not fit is undefined in C++.
        return None
    return plain.astype(np.int32, copy=False).tolist() if kind in NUMERIC else None


def _doubles(kind: int, plain: Array) -> list[Any] | None:
    if kind == FieldType.STRING:
        numbers = None if _has_words_that_are_doubles(plain) else _of_text(plain)
        return None if numbers is None else _listed(numbers.astype(np.float64))
    return plain.astype(np.float64, copy=False).tolist() if kind in NUMERIC else None


def _booleans(kind: int, plain: Array) -> list[Any] | None:
    if kind == FieldType.STRING:
        first, lengths = plain.view(np.uint8)[:: plain.dtype.itemsize], np.strings.str_len(plain)
        # No, off, and false are none either.
        if (_BEGINS_A_NO[first] & (lengths <= len("false"))).any():
            return None
        return _listed((first != ord("0")) | (lengths != 1))
    if kind == FieldType.REAL and np.isnan(plain).any():
        return None
    return (plain != 0).tolist() if kind in NUMERIC else None


_MAKERS: dict[str, Callable[[int, Array], list[Any] | None]] = {
    "ReadValuesIOAsInteger": _integers,
    "ReadValuesIOAsDouble": _doubles,
    "ReadValuesIOAsBoolean": _booleans,
}


def _listed(numbers: Array | None) -> list[Any] | None:
    return None if numbers is None else numbers.tolist()


def _of_text(plain: Array) -> Array | None:
    """Return what texts are that are all digits, or begin with a letter, or are empty."""
    width = plain.dtype.itemsize
    letters = plain.view(np.uint8).reshape(-1, width)
    is_word = _WORDS[letters[:, 0]]
    if is_word.all():
        return np.zeros(len(plain), np.int32)
    lengths = np.where(is_word, 0, np.strings.str_len(plain))
    longest = int(lengths.max())
    if longest > MOST_DIGITS:
        return None
    digits = letters[:, :longest] - np.uint8(ord("0"))
    digits[np.arange(longest) >= lengths[:, np.newaxis]] = 0
    if digits.max() > 9:
        return None
    powers = 10 ** np.arange(longest + 1)
    found: Array = digits @ powers[longest - 1 :: -1] // powers[longest - lengths]
    return found


def _has_words_that_are_doubles(plain: Array) -> bool:
    letters = plain.view(np.uint8).reshape(-1, plain.dtype.itemsize)
    if letters.shape[1] < 3 or not _BEGINS_A_DOUBLE[letters[:, 0]].any():
        return False
    # Without the bit by which small letters are other than capitals.
    first = letters[:, :3] & 0xDF
    return any((first == np.frombuffer(word, np.uint8)).all(axis=1).any() for word in _DOUBLES)


def _of_letters(letters: bytes) -> Array:
    found = np.zeros(256, np.bool_)
    found[np.frombuffer(letters, np.uint8)] = True
    return found


_DOUBLES = (b"INF", b"NAN")
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
# None at all; and from 0xC0 on they are the first of several bytes.
_WORDS = _of_letters(b"\0" + _LETTERS + _LETTERS.upper() + bytes(range(0xC0, 256)))
_BEGINS_A_DOUBLE = _of_letters(b"inIN")
_BEGINS_A_NO = _of_letters(b"nofNOF")
