"""Losses in words, and which floats count as changed."""

import numpy as np
import pytest

from gdalbridge.gdalio.losses import changed_reals, description_loss
from gdalbridge.gdalio.rat_reader import RatColumn


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        # float64 bits as a float32 column has them: signalling or quiet, with a payload, its sign.
        (0x7FF0000020000000, 0x7FF0000020000000, False),
        (0x7FF0000020000000, 0x7FF8000020000000, True),
        (0x7FF8000000000000, 0xFFF8000000000000, True),
        (0x7FF8000000000001, 0x7FF8000000000000, True),
        (0x0000000000000000, 0x8000000000000000, True),
        # One more digit than a float32 has.
        (0x3FD5555560000000, 0x3FD5555560000001, False),
        (0x3FD5555560000000, 0x3FD5555580000000, True),
    ],
)
def test_floats_are_compared_by_the_bits_that_their_dtype_has(before, after, changed):
    one, other = (np.array([bits], "u8").view("f8") for bits in (before, after))
    assert changed_reals(one, other, np.dtype("f4")).tolist() == [changed]


def test_all_of_a_columns_description_is_one_line():
    one = RatColumn(0, "n", 0, 5)
    assert description_loss(one, one) is None
    assert description_loss(one, RatColumn(0, "N", 1, 0)) == (
        "the type of column 'n' became Real, its name 'N', its usage Generic, it was MinMax"
    )
