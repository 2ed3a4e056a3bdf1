"""Convert blocks to a column's dtype, exactly or not at all.

Nothing is rounded, wrapped, truncated or dropped. A value that the column's dtype cannot hold
exactly is an error that names its column, row and value. To get the nearest value instead, callers
convert the block with ``block.astype(...)``.

>>> exact([1.0, 2.0], np.dtype("uint8"), column="n", first_row=0)
array([1, 2], dtype=uint8)
>>> exact([1, 300], np.dtype("uint8"), column="n", first_row=10)
Traceback (most recent call last):
    ...
ratzarr.errors.UnequalValueError: column 'n', row 11: 300 does not fit uint8 (0 to 255)
"""

import operator
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.errors import ArgumentError, UnequalValueError, UnsupportedDtypeError
from ratzarr.format.dataframes import numpy_block

__all__ = ["as_block", "exact", "exact_scalar", "has_payload", "integer"]

Array = NDArray[Any]


def as_block(values: Any, *, column: str, first_row: int | None = None) -> Array:
    """Return any array-like as an array, without conversion.

    Raises
    ------
    UnequalValueError
        For masked values, and for nulls of pandas, Polars or Arrow: a column has no mask.
    UnsupportedDtypeError
        If numpy cannot make an array of the values.
    """
    if type(values) is np.ndarray:
        return values
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        mask = np.ma.getmaskarray(values)
        raise _masked(int(np.argwhere(mask)[0][0]) if mask.ndim else 0, column, first_row)
    if isinstance(values, list | tuple):
        _check_masks(values, column, first_row)
    known = numpy_block(values, column=column, first_row=first_row)
    if known is not None:
        return known
    try:
        if isinstance(values, np.ndarray) or hasattr(values, "__array__"):
            return np.asarray(values)
        # numpy converts a list to one common dtype: 5 beside "a" would become "5", 2**53 + 1
        # beside 0.5 or 2**63 would be rounded, and a string would lose zero bytes at its end.
        objects = np.asarray(values, dtype=object)
        kinds = {type(item) for item in objects.flat}
        if len(kinds) == 1 and not kinds & {str, bytes}:
            found = np.asarray(values)
            if found.dtype.kind != "f" or int not in kinds:
                return found
            with suppress(OverflowError):
                return np.asarray(values, np.uint64)
        return objects
    except (ValueError, TypeError, OverflowError) as error:
        raise UnsupportedDtypeError(
            f"column {column!r}: the block is not an array: {error}"
        ) from error


def _check_masks(values: Sequence[Any], column: str, first_row: int | None) -> None:
    # For masked arrays in a list, numpy would use the values behind their masks.
    if any(issubclass(kind, np.ma.MaskedArray) for kind in set(map(type, values))):
        for row, one in enumerate(values):
            if np.ma.is_masked(one):
                raise _masked(row, column, first_row)


def _masked(row: int, column: str, first_row: int | None) -> UnequalValueError:
    return UnequalValueError(
        f"column {column!r}, row {row + (first_row or 0)} is masked, and a column has no mask: fill "
        "the block first (block.filled(...))"
    )


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


def exact_scalar(value: Any, dtype: np.dtype[Any], *, column: str) -> Any:
    """Return one value, such as a fill value, in ``dtype``. Errors are those of :func:`exact`."""
    if np.ndim(value) != 0:
        raise UnequalValueError(f"column {column!r}: expected one value, got {value!r}")
    array = np.empty(1, object)
    array[0] = value
    if dtype.kind != "O" and not isinstance(value, (bytes, str)) and value is not np.ma.masked:
        array = np.asarray([value])
    return exact(array, dtype, column=column, first_row=None)[0]


def exact(values: Any, dtype: np.dtype[Any], *, column: str, first_row: int | None) -> Array:
    """Return a block in a column's dtype, with every value equal to the given one.

    Parameters
    ----------
    values : array-like
        The block, of any shape whose first axis is rows.
    dtype : numpy.dtype
        The column's dtype.
    column : str
        Column name for messages.
    first_row : int or None
        The table row of the block's first row, for messages. None for a value without a row.

    Returns
    -------
    ndarray
        An array of ``dtype`` with the block's shape; the block itself if it already has ``dtype``.

    Raises
    ------
    UnequalValueError
        Names the column, the row, and the value that ``dtype`` cannot hold.
    UnsupportedDtypeError
        If the block's dtype can never be converted to the column's, for example text to numbers.
    """
    block = as_block(values, column=column, first_row=first_row)
    if block.dtype == dtype and dtype.kind not in "OT":
        return block
    refuse = _Refusal(block, dtype, column, first_row)
    if block.size == 0 and block.dtype.kind == "O":
        return np.empty(block.shape, dtype)
    if dtype.kind in _CASTS:
        return _CASTS[dtype.kind](block, dtype, refuse)
    # Dtypes of columns that only upstream creates (complex, fixed-width str, ...).
    if not np.can_cast(block.dtype, dtype, casting="equiv"):
        raise refuse.unmeant()
    return block.astype(dtype)


class _Refusal:
    """Creates the error for the first value that does not fit."""

    def __init__(
        self, block: Array, dtype: np.dtype[Any], column: str, first_row: int | None
    ) -> None:
        self.block, self.dtype = block, dtype
        self.column, self.first_row = column, first_row

    def unless(self, good: Array, why: str) -> None:
        """Raise an error for the first value that is not good, if there is one."""
        if not good.all():
            raise self.where(~good, why)

    def unless_each(self, is_good: Callable[[Any], bool], why: str) -> None:
        """Raise an error for the first value for which the function returns False."""
        good = np.fromiter(map(is_good, self.block.flat), bool, self.block.size)
        self.unless(good.reshape(self.block.shape), why)

    def at(self, index: int, why: str) -> UnequalValueError:
        """Return an error for one value, by its index in the flat block."""
        bad = np.zeros(self.block.shape, bool)
        bad.flat[index] = True
        return self.where(bad, why)

    def where(self, bad: Array, why: str) -> UnequalValueError:
        """Return an error for the first True of ``bad``."""
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        value = self.block[place]
        if isinstance(value, np.generic):
            value = value.item() if self.block.dtype.kind not in "M" else _date_text(value)
        text = repr(value)
        if len(text) > 80:
            text = text[:77] + "..."
        row = "" if self.first_row is None else f", row {self.first_row + place[0]}"
        if len(place) > 1:
            row += f", value {place[1]} of the row"
        return UnequalValueError(f"column {self.column!r}{row}: {text} {why}")

    def unmeant(self) -> UnsupportedDtypeError:
        """Return an error for the block's dtype as a whole."""
        return UnsupportedDtypeError(
            f"column {self.column!r} has dtype {_name(self.dtype)}: a block of "
            f"{_name(self.block.dtype)} can't be written to it without a conversion; convert it "
            "first (block.astype(...))"
        )


def _date_text(value: np.generic) -> str:
    try:
        return str(value)
    except OverflowError:
        # The date is outside the range of a calendar.
        return f"{value.view('i8')} * {value.dtype}"


def _name(dtype: np.dtype[Any]) -> str:
    return "str (StringDType)" if dtype.kind == "T" else str(dtype)


def _numbers(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    if block.dtype.kind == "O":
        return _numbers_from_objects(block, dtype, refuse)
    if block.dtype.kind not in "iufb":
        raise refuse.unmeant()
    if block.dtype.kind == "f" and dtype.kind == "f":
        return _floats(block, dtype, refuse)
    if np.can_cast(block.dtype, dtype, casting="safe") and (
        dtype.kind != "f" or block.dtype.kind not in "iu" or _float_holds(dtype, block.dtype)
    ):
        return block.astype(dtype)
    if dtype.kind in "iu":
        return _integers(block, dtype, refuse)
    with np.errstate(all="ignore"):
        cast = block.astype(dtype)
        # Compare as integers, because comparing with a float would round as the cast did.
        bad = _differ_as_integers(block, cast)
    if bad.any():
        raise refuse.where(bad, _nearest(cast, bad))
    return cast


def _nearest(cast: Array, bad: Array) -> str:
    nearest = cast[bad][0].item()
    return (
        f"is not a {cast.dtype} (nearest: {nearest!r}); if rounding is meant, convert the values first "
        f"(astype({cast.dtype.name!r}) in numpy, CAST in SQL)"
    )


def _floats(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    widens = dtype.itemsize >= block.dtype.itemsize
    with np.errstate(all="ignore"):
        cast = block.astype(dtype)
        if widens and not np.isnan(block).any():
            return cast
        differ = _bits_differ(block, cast.astype(block.dtype))
    if not differ.any():
        return cast
    nans = differ & np.isnan(block)
    bad = differ & ~nans
    if bad.any():
        raise refuse.where(bad, _nearest(cast, bad))
    # The processor turns signalling NaNs into quiet ones and truncates payloads.
    kept, lost = _cast_nans(block[nans], dtype)
    bits = f"u{dtype.itemsize}"
    cast.view(bits)[nans] = kept.view(bits)
    bad[nans] = lost
    if bad.any():
        raise refuse.where(
            bad,
            f"has a payload, {_hexadecimal(block[bad][0])}, that {dtype} can't hold; where any NaN "
            "is meant, write np.where(np.isnan(block), np.nan, block)",
        )
    return cast


def _bits_differ(one: Array, other: Array) -> Array:
    """Return where two float arrays of one dtype differ bit by bit: -0.0 from 0.0, NaN payloads."""
    size = one.dtype.itemsize
    if size > 8:
        # No integer is as wide as a longdouble, and its bits are followed by padding.
        used = 10 if np.finfo(one.dtype).nmant == 63 else size
        raw, again = (
            np.ascontiguousarray(values).view("u1").reshape(*one.shape, size)[..., :used]
            for values in (one, other)
        )
        return np.asarray((raw != again).any(axis=-1))
    native = one.dtype.newbyteorder("=")
    raw, again = (np.ascontiguousarray(values, native).view(f"u{size}") for values in (one, other))
    return np.asarray(raw != again)


def _cast_nans(nans: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return NaNs in another float dtype with sign and payload, and which of them lose bits."""
    size, wanted = nans.dtype.itemsize, dtype.itemsize
    if size > 8:
        with np.errstate(all="ignore"):
            cast = nans.astype(dtype)
            return cast, _bits_differ(nans, cast.astype(nans.dtype))
    own, other = np.finfo(nans.dtype).nmant, np.finfo(dtype).nmant
    native = nans.astype(nans.dtype.newbyteorder("="))
    bits = native.view(f"u{size}").astype(np.uint64)
    payload = bits & np.uint64(2**own - 1)
    sign = bits >> np.uint64(8 * size - 1)
    step = np.uint64(abs(other - own))
    kept = payload << step if other >= own else payload >> step
    lost = (kept << step) != payload if other < own else np.zeros(len(nans), np.bool_)
    exponent = np.uint64((2 ** (8 * wanted - 1 - other) - 1) << other)
    made = (sign << np.uint64(8 * wanted - 1)) | exponent | kept
    return made.astype(f"u{wanted}").view(dtype), lost


def has_payload(values: Array) -> Array:
    """Return where floats are NaNs other than the ordinary NaN of either sign."""
    nans = np.isnan(values)
    if nans.any():
        bits = f"u{values.dtype.itemsize}"
        ordinary = np.array([np.nan], values.dtype).view(bits)[0]
        sign = np.array([-0.0], values.dtype).view(bits)[0]
        nans[nans] = (values[nans].view(bits) & ~sign) != (ordinary & ~sign)
    return nans


def _hexadecimal(number: Any) -> str:
    raw = number.tobytes()
    return f"0x{(raw[::-1] if sys.byteorder == 'little' else raw).hex()}"


def _float_holds(dtype: np.dtype[Any], integers: np.dtype[Any]) -> bool:
    # numpy calls int64 and uint64 -> float64 safe, but rounds values above 2**53.
    return bool(2 ** (np.finfo(dtype).nmant + 1) > np.iinfo(integers).max)


def _differ_as_integers(block: Array, cast: Array) -> Array:
    wide = np.float64(2.0) ** 63 if block.dtype.kind == "i" else np.float64(2.0) ** 64
    inside = np.abs(cast.astype(np.float64)) < wide
    back = np.where(inside, cast, 0).astype(block.dtype)
    differs = np.asarray(back != block) | ~inside
    # -2**63 is the only border value that both dtypes hold.
    if block.dtype.kind == "i":
        differs &= ~((cast == -wide) & (block == np.iinfo(np.int64).min))
    return differs


def _integers(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    info = np.iinfo(dtype)
    if block.dtype.kind == "f":
        good = np.isfinite(block) & (block == np.floor(block))
        refuse.unless(good, f"is not an integer, and the column is {dtype}")
        # Compare in float64, where max + 1 is exact (max itself may not be) and float16 is
        # comparable.
        wide = block.astype(np.float64)
        good = (wide >= float(info.min)) & (wide < float(info.max + 1))
    else:
        good = (block >= info.min) & (block <= info.max)
    refuse.unless(good, f"does not fit {dtype} ({info.min} to {info.max})")
    return block.astype(dtype)


def _numbers_from_objects(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    """Convert Python integers beyond 64 bits and mixed objects, one by one."""
    out = np.empty(block.shape, dtype)
    flat_in, flat_out = block.ravel(), out.reshape(-1)
    info = np.iinfo(dtype) if dtype.kind in "iu" else None
    for i, value in enumerate(flat_in):
        good = isinstance(value, (int, float, np.integer, np.floating, np.bool_))
        if good:
            number = value.item() if isinstance(value, np.generic) else value
            if info is not None:
                good = number == number and abs(number) != float("inf") and int(number) == number
                good = good and info.min <= number <= info.max
                if good:
                    flat_out[i] = int(number)
            elif number != number:
                kept, lost = _cast_nans(np.asarray([value]), dtype)
                bits = f"u{dtype.itemsize}"
                flat_out.view(bits)[i] = kept.view(bits)[0]
                good = not lost[0]
            else:
                try:
                    with np.errstate(all="ignore"):
                        flat_out[i] = number
                except OverflowError:
                    good = False
                good = good and flat_out[i].item() == number
        if not good:
            raise refuse.at(i, f"is not a {dtype}")
    return out


def _booleans(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    why = "is neither 0 nor 1, and the column is bool"
    if block.dtype.kind == "O":
        refuse.unless_each(lambda value: isinstance(value, bool | np.bool_), why)
    elif block.dtype.kind in "iuf":
        refuse.unless((block == 0) | (block == 1), why)
    else:
        raise refuse.unmeant()
    return block.astype(dtype)


def _strings(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    kind = block.dtype.kind
    if kind == "T":
        if not hasattr(block.dtype, "na_object"):
            # numpy would copy strings of another instance of the same dtype.
            return block if block.dtype == dtype else block.astype(dtype)
        refuse.block = block = block.astype(object)
        kind = "O"
    if kind == "O":
        if set(map(type, block.flat)) - {str}:
            refuse.unless_each(
                lambda value: isinstance(value, str),
                "is not a string; write '' for a missing value",
            )
    elif kind == "S":
        refuse.unless_each(lambda value: _works(value.decode), "is not UTF-8")
    elif kind != "U" and block.size:
        raise refuse.unmeant()
    try:
        return block.astype(dtype)
    except (UnicodeEncodeError, ValueError, TypeError):
        refuse.unless_each(lambda value: _works(value.encode), NO_UTF8)
        raise


NO_UTF8 = "contains an unpaired surrogate and has no UTF-8 form"


def _works(convert: Callable[[], Any]) -> bool:
    try:
        convert()
    except (UnicodeError, OverflowError):
        return False
    return True


def _fixed_bytes(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    kind = block.dtype.kind
    if kind == "S":
        if block.dtype.itemsize > dtype.itemsize:
            bad = np.char.str_len(block) > dtype.itemsize
            if bad.any():
                raise refuse.where(bad, f"is longer than {dtype.itemsize} bytes")
        return block.astype(dtype)
    if kind not in "OUT":
        raise refuse.unmeant()
    out = np.empty(block.shape, dtype)
    flat_out = out.reshape(-1)
    for i, value in enumerate(block.flat):
        why = ""
        if isinstance(value, str):
            if not _works(value.encode):
                raise refuse.at(i, NO_UTF8)
            value = value.encode("utf-8")
        if not isinstance(value, bytes):
            why = "is neither bytes nor a string"
        elif len(value) > dtype.itemsize:
            why = f"is longer than {dtype.itemsize} bytes"
        elif value.endswith(b"\x00"):
            why = f"ends in a zero byte, which {dtype} does not keep"
        if why:
            raise refuse.at(i, why)
        flat_out[i] = value
    return out


def _variable_bytes(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    if block.dtype.kind == "S":
        return block.astype(object)
    if block.dtype.kind != "O":
        raise refuse.unmeant()
    refuse.unless_each(lambda value: isinstance(value, bytes), "is not bytes")
    return block


def _datetimes(block: Array, dtype: np.dtype[Any], refuse: _Refusal) -> Array:
    if block.dtype.kind != "M":
        raise refuse.unmeant()
    try:
        cast = block.astype(dtype)
        back = cast.astype(block.dtype)
    except OverflowError:
        refuse.unless_each(
            lambda value: _works(partial(np.asarray(value).astype, dtype)),
            f"is out of the range of {dtype}",
        )
        raise
    # If numpy wraps instead of raising, converting back gives a different value.
    nat = np.isnat(block)
    good = np.where(nat, np.isnat(cast), (back == block) & ~np.isnat(cast))
    refuse.unless(good, f"is not exact in {dtype}")
    return cast


_CASTS: dict[str, Callable[[Array, np.dtype[Any], _Refusal], Array]] = {
    **dict.fromkeys("iuf", _numbers),
    "b": _booleans,
    "T": _strings,
    "S": _fixed_bytes,
    "O": _variable_bytes,
    "M": _datetimes,
}
"""The conversion to each kind of dtype."""
