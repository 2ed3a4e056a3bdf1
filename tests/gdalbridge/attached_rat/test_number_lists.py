"""Lists of numbers that are made without GDAL are those that GDAL makes."""

import math
import struct

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge.attached_rat.columns import as_list
from tests.gdalbridge.sample_rasters import BOOLEAN, INTEGER, NEW_TYPES, REAL, STRING, new_rat

METHODS = ["ReadValuesIOAsInteger", "ReadValuesIOAsDouble", "ReadValuesIOAsBoolean"]
pytestmark = pytest.mark.skipif(
    not hasattr(gdal.RasterAttributeTable, METHODS[2]), reason="came with GDAL 3.12"
)

TEXTS = [
    "", "0", "00", "7", "123456789", "1234567890", "99999999999", "12a", "a12", "name", "nan",
    "NaNny", "Nancy", "nAm", "inf", "INFO", "infinity", "in", "n", "i", "no", "NO", "none", "off",
    "Of", "false", "False", "falsehood", "f", "o", "yes", "true", "größe", "östlich", "🛰", " 5",
    "\t5", "+5", "-5", "5.5", ".5", "5e3", "0x1F", "x1F", "1,5", "e5", "d1", "_1", "'1'", "0.0",
    "\x015", "2020-01-02", "1 2", "007",
]  # fmt: skip
VALUES = {
    "numbers": (INTEGER, "i4", [0, 1, -1, 2**31 - 1, -(2**31)]),
    "doubles": (REAL, "f8", [0.0, -0.0, 0.5, -0.5, 1.9, -1.9, 2.0**31 - 1, 1 - 2.0**31, 5e-324]),
    "bools": (BOOLEAN, "?", [True, False, True]),
}


def bits(numbers):
    return [struct.pack("d", n) if isinstance(n, float) else n for n in numbers]


def check(kind, plain, given):
    """What is not left to GDAL is the same, also the types of it."""
    made = 0
    for method in METHODS:
        found = as_list(method, kind, plain)
        if found is not None:
            native = new_rat([("c", kind, 0, given)], len(given))
            expected = getattr(native, method)(0, 0, len(given))
            assert bits(found) == bits(expected), (method, given)
            assert list(map(type, found)) == list(map(type, expected)), (method, given)
            made += 1
    return made


def padded(texts, width=None):
    return np.array([text.encode() for text in texts], f"S{width}" if width else None)


@pytest.mark.parametrize("values", VALUES)
def test_numbers(values):
    kind, dtype, given = VALUES[values]
    assert check(kind, np.array(given, dtype), given) == 3


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 2.0**31, 1e300])
def test_doubles_that_are_no_integers(odd):
    check(REAL, np.array([1.0, odd]), [1.0, odd])
    assert as_list(METHODS[0], REAL, np.array([1.0, odd])) is None


@pytest.mark.parametrize("text", TEXTS)
def test_text(text):
    for texts in ([text], [text, "12"], ["word", text], ["", text, "", "3"]):
        check(STRING, padded(texts), texts)
        check(STRING, padded(texts, 40), texts)


def test_most_text_needs_no_gdal():
    for texts in (["name 1", "größe"], ["1", "22", "333", ""], ["12", "x"]):
        assert check(STRING, padded(texts), texts) >= 2


def test_any_text():
    rng = np.random.default_rng(4)
    letters = list("0123456789") * 3 + list("nNaAiIfFoO +-.eé")
    made = 0
    for _ in range(3000):
        count = int(rng.integers(1, 4))
        texts = ["".join(rng.choice(letters, int(rng.integers(0, 5)))) for _ in range(count)]
        made += check(STRING, padded(texts), texts)
    assert made > 2000


@pytest.mark.skipif(not NEW_TYPES, reason="came with GDAL 3.12")
def test_other_columns_are_gdals_to_convert():
    assert as_list(METHODS[0], 4, np.array([b"2020-01-02"])) is None
    assert as_list("ReadValuesIOAsString", INTEGER, np.array([1], "i4")) is None
    assert as_list(METHODS[0], INTEGER, np.array([], "i4")) is None
