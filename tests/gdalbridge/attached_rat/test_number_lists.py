"""Lists of numbers that are made without GDAL are those that GDAL makes."""

import math
import struct

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge.attached_rat.columns import as_list
from tests.gdalbridge.sample_rasters import BOOLEAN, INTEGER, REAL, new_rat

METHODS = ["ReadValuesIOAsInteger", "ReadValuesIOAsDouble", "ReadValuesIOAsBoolean"]
pytestmark = pytest.mark.skipif(
    not hasattr(gdal.RasterAttributeTable, METHODS[2]), reason="came with GDAL 3.12"
)

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
        found = as_list(method, plain)
        if found is not None:
            native = new_rat([("c", kind, 0, given)], len(given))
            expected = getattr(native, method)(0, 0, len(given))
            assert bits(found) == bits(expected), (method, given)
            assert list(map(type, found)) == list(map(type, expected)), (method, given)
            made += 1
    return made


@pytest.mark.parametrize("values", VALUES)
def test_numbers(values):
    kind, dtype, given = VALUES[values]
    assert check(kind, np.array(given, dtype), given) == 3


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 2.0**31, 1e300])
def test_doubles_that_are_no_integers(odd):
    check(REAL, np.array([1.0, odd]), [1.0, odd])
    assert as_list(METHODS[0], np.array([1.0, odd])) is None


def test_other_values_are_gdals_to_convert():
    assert as_list(METHODS[0], np.array([b"12"])) is None
    assert as_list("ReadValuesIOAsString", np.array([1], "i4")) is None
    assert as_list(METHODS[0], np.array([], "i4")) is None
