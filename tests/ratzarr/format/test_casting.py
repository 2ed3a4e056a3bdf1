"""Values into dtypes, with Python's own exact arithmetic as the oracle."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratzarr import UnequalValueError, UnsupportedDtypeError
from ratzarr.format.casting import exact, exact_scalar

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float16", "float32", "float64"]
EDGES = sorted(
    {
        sign * (2**power) + step
        for power in (0, 7, 8, 11, 15, 16, 24, 31, 32, 53, 63, 64)
        for sign in (-1, 1)
        for step in (-1, 0, 1)
    }
)


def cast(values, dtype):
    return exact(values, np.dtype(dtype), column="c", first_row=100)


def holds(dtype, value):
    """Say whether a dtype has exactly this number."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return (
            Fraction(value).denominator == 1
            and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
        )
    with np.errstate(over="ignore"):
        there = float(np.asarray(float(value)).astype(dtype))
    return np.isfinite(there) and Fraction(there) == Fraction(value)


def sources(value):
    """Give a number in each dtype that has it."""
    for name in INTEGERS + FLOATS:
        if holds(name, value):
            yield np.array([value], dtype=name)


@pytest.mark.parametrize("target", INTEGERS + FLOATS)
@pytest.mark.parametrize("value", [*EDGES, 0.5, 1.5, -2.25, 65504.0, 65520.0, 1e300])
def test_numbers_are_equal_or_refused(value, target):
    for block in sources(value):
        # The way back from what was stored is taken without numpy's casts.
        if holds(target, value):
            stored = cast(block, target)
            assert stored.dtype == target
            assert Fraction(stored[0].item()) == Fraction(value), block.dtype
        else:
            with pytest.raises(UnequalValueError, match="column 'c', row 100: "):
                cast(block, target)


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=5), st.sampled_from(INTEGERS))
def test_python_integers_of_any_size(values, target):
    if all(holds(target, value) for value in values):
        assert cast(values, target).tolist() == values
    else:
        with pytest.raises(UnequalValueError):
            cast(values, target)


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("source", FLOATS)
def test_nan_and_infinities_are_floats_values_too(source, target):
    block = np.array([np.nan, np.inf, -np.inf, -0.0], source)
    stored = cast(block, target)
    np.testing.assert_array_equal(stored, block)
    assert np.signbit(stored[3])


def test_every_bit_of_a_nan_is_kept():
    bits = np.array([0x7FF8000000000001, 0xFFF0DEADBEEF0001], "u8")
    assert cast(bits.view("f8"), "f8").view("u8").tolist() == bits.tolist()


# Of each dtype: bits in all, bits of the fraction.
LAYOUTS = {"f2": (16, 10), "f4": (32, 23), "f8": (64, 52)}


def nan_bits(kind, payload, negative=0):
    """Return the bits of a NaN: a payload that is aligned to the left of the fraction."""
    size, fraction = LAYOUTS[kind]
    return negative << (size - 1) | ((1 << (size - 1 - fraction)) - 1) << fraction | payload


# 9 bits after the quiet one are what a float16 has.
@pytest.mark.parametrize("top", [0x200, 0x201, 0x3FF, 0x001, 0x100], ids=hex)
@pytest.mark.parametrize("negative", [0, 1])
@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
def test_a_payload_that_both_dtypes_hold_is_kept(source, target, negative, top):
    given, wanted = (
        nan_bits(kind, top << (LAYOUTS[kind][1] - 10), negative) for kind in (source, target)
    )
    block = np.array([0, given, 0, given], f"u{source[1]}").view(source)
    assert cast(block, target).view(f"u{target[1]}").tolist() == [0, wanted, 0, wanted]
    assert cast(block[::-1], target).view(f"u{target[1]}").tolist() == [wanted, 0, wanted, 0]
    swapped = block.astype(block.dtype.newbyteorder())
    assert cast(swapped, target).view(f"u{target[1]}").tolist() == [0, wanted, 0, wanted]


@pytest.mark.parametrize(
    ("source", "bits", "target"),
    [
        ("f8", 0x7FF0_0000_0000_07A2, "f4"),  # NA in R
        ("f8", 0x7FF8_0000_0000_0001, "f4"),
        ("f8", 0xFFF8_0000_1FFF_FFFF, "f4"),
        ("f8", 0x7FF8_0000_2000_0000, "f2"),
        ("f4", 0xFFC0_0001, "f2"),
        ("f4", 0x7F80_0001, "f2"),
    ],
)
def test_a_payload_that_is_too_long_is_refused(source, bits, target):
    raw = np.array([0, bits], f"u{source[1]}")
    message = rf"row 101: nan has a payload, {bits:#x}, that {np.dtype(target)} can't hold"
    with pytest.raises(UnequalValueError, match=message):
        cast(raw.view(source), target)
    with pytest.raises(UnequalValueError, match="row 100, value 1 of the row: nan has a payload"):
        cast(raw.view(source).reshape(1, 2), target)
    # A number that is not exact comes first, wherever it is.
    with pytest.raises(UnequalValueError, match=r"row 102: .* is not a float"):
        cast(np.append(raw.view(source), np.array(1 / 3, source)), target)


def test_payloads_among_objects():
    quiet, signalling = np.array([0x7FC0_1234, 0x7F80_0001], "u4").view("f4")
    mixed = [np.float32(1), 2, quiet, np.array([signalling])[0], float("nan")]
    bits = cast(np.array(mixed, object), "f4").view("u4").tolist()
    assert bits[2:] == [0x7FC0_1234, 0x7F80_0001, 0x7FC0_0000]
    lost = np.array([0x7FF0_0000_0000_07A2], "u8").view("f8")[0]
    with pytest.raises(UnequalValueError, match="row 101: nan is not a float32"):
        cast(np.array([1, lost], object), "f4")


def test_nans_of_longdoubles():
    found = cast(np.array([1, np.nan, -np.nan, np.inf], np.longdouble), "f8")
    assert found.view("u8").tolist() == np.array([1, np.nan, -np.nan, np.inf]).view("u8").tolist()
    payload = np.array([0x7FF8_0000_0000_0123], "u8").view("f8")
    assert cast(payload.astype(np.longdouble), "f8").view("u8") == payload.view("u8")
    with pytest.raises(UnequalValueError, match="row 100: "):
        cast(payload.astype(np.longdouble), "f4")


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.sampled_from(["f2", "f4"]))
def test_narrower_floats_have_every_bit_or_none(patterns, target):
    """What was stored, widened with Python's integers alone, is what was given."""
    block = np.array(patterns, "u8").view("f8")
    try:
        stored = cast(block, target)
    except UnequalValueError:
        return
    size, fraction = LAYOUTS[target]
    for given_bits, value in zip(patterns, stored, strict=True):
        bits = int(value.tobytes()[::-1].hex(), 16)
        if value != value:
            assert given_bits & (2**52 - 1) == (bits & (2**fraction - 1)) << (52 - fraction)
            assert given_bits >> 63 == bits >> (size - 1)
        else:
            assert np.float64(value).tobytes() == given_bits.to_bytes(8, "little")


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5])
def test_what_is_no_integer(target, value):
    with pytest.raises(UnequalValueError, match=r"row 101: .* is not an integer"):
        cast(np.array([1.0, value]), target)


@pytest.mark.parametrize(
    ("block", "target", "message"),
    [
        ([1, 300], "u1", "row 101: 300 does not fit uint8"),
        ([0, 2**40], "i4", "row 101: 1099511627776 does not fit int32"),
        ([-1], "u8", "row 100: -1 does not fit"),
        ([0.1], "f4", "row 100: 0.1 is not a float32"),
        ([2], "?", "row 100: 2 is neither 0 nor 1"),
        (["a", None], str, "row 101: None is not a string"),
        ([b"a", 5], object, "row 101: 5 is not bytes"),
        (["a", 5], str, "row 101: 5 is not a string"),
        ([2**53 + 1, 0.5], "f8", "row 100: 9007199254740993 is not a float64"),
        (["a\x00"], "S3", "ends in a zero byte"),
        (np.array([b"ab", b"\xff"]), str, "row 101: .* is not UTF-8"),
        (["\ud800"], str, "row 100: .*surrogate"),
        (np.array(["a", "\ud800"], object), str, "row 101: .*surrogate"),
        (["abcd"], "S3", "row 100: 'abcd' is longer than 3 bytes"),
        ([b"abcd"], "S3", "row 100: .* is longer than 3 bytes"),
        (["€"], "S2", "row 100: '€' is longer than 2 bytes"),
        (np.array([b"a\x00"], object), "S3", "ends in a zero byte"),
        (np.array(["2020-01-01T00:00:01"], "M8[s]"), "M8[m]", "row 100: .* is not exact in"),
        (np.array(["9999-01-01"], "M8[D]"), "M8[ns]", "row 100: "),
        (np.ma.masked_array([1, 2], [False, True]), "i4", "row 101 is masked"),
    ],
)
def test_refusals_name_column_row_and_value(block, target, message):
    dtype = np.dtypes.StringDType() if target is str else target
    with pytest.raises(UnequalValueError, match=message):
        cast(block, dtype)


@pytest.mark.parametrize(
    ("block", "target"),
    [
        (np.array(["1"]), "i4"),
        (np.array([1]), np.dtypes.StringDType()),
        (np.array([1 + 0j]), "f8"),
        (np.array([1]), "M8[s]"),
        (np.array(["2020-01-01"]), "M8[D]"),
        (np.array([1], "m8[s]"), "i8"),
        (np.array(["x"]), "?"),
        (np.array([1]), "S3"),
        (np.array(["x"]), object),
    ],
)
def test_conversions_are_not_casts(block, target):
    with pytest.raises(UnsupportedDtypeError, match="column 'c' has dtype"):
        cast(block, target)


def test_the_place_in_a_row_of_several_values():
    with pytest.raises(UnequalValueError, match="row 101, value 2 of the row: 300"):
        cast(np.array([[1, 2, 3], [4, 5, 300]]), "u1")


@pytest.mark.parametrize(
    ("block", "dtype", "expected"),
    [
        ([True, False], "u1", [1, 0]),
        ([1, 0], "?", [True, False]),
        ([1.0], "?", [True]),
        (np.array([b"gr\xc3\xb6"]), np.dtypes.StringDType(), ["grö"]),
        (np.array(["grö"]), "S4", ["grö".encode()]),
        (
            np.array([" a", "\x00b\x00", ""], object),
            np.dtypes.StringDType(),
            [" a", "\x00b\x00", ""],
        ),
        ([b"ab", b""], object, [b"ab", b""]),
        (np.array([5, 6], ">i4"), "i4", [5, 6]),
        ([], "i4", []),
        ([], np.dtypes.StringDType(), []),
        (["a\x00", "b"], np.dtypes.StringDType(), ["a\x00", "b"]),
        ([2**53, 0.5], "f8", [2.0**53, 0.5]),
        (np.array([3, 2**53], object), "f8", [3.0, 2.0**53]),
    ],
)
def test_what_is_equal_goes_in(block, dtype, expected):
    stored = cast(block, dtype)
    assert stored.dtype == np.dtype(dtype)
    assert stored.tolist() == expected


def test_datetimes_that_both_units_have():
    block = np.array(["2020-01-01", "NaT", "1600-02-29"], "M8[D]")
    stored = cast(block, "M8[us]")
    assert stored.astype("M8[D]").astype(str).tolist() == block.astype(str).tolist()


def test_missing_strings_are_no_strings():
    missing = np.array(["a", None], np.dtypes.StringDType(na_object=None))
    with pytest.raises(UnequalValueError, match="row 101: None is not a string"):
        cast(missing, np.dtypes.StringDType())


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (7, "u1", 7),
        (np.nan, "f4", np.nan),
        ("x", np.dtypes.StringDType(), "x"),
        (b"x", "S2", b"x"),
        (b"x", object, b"x"),
        (np.datetime64("2020-01-01"), "M8[s]", np.datetime64("2020-01-01")),
    ],
)
def test_fill_values(value, dtype, expected):
    found = exact_scalar(value, np.dtype(dtype), column="c")
    np.testing.assert_equal(found, expected)


def test_fill_values_are_refused_like_others():
    with pytest.raises(UnequalValueError, match=r"column 'c': 300 does not fit"):
        exact_scalar(300, np.dtype("u1"), column="c")
