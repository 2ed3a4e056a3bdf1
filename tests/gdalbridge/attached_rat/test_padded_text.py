"""Text as fixed-width bytes, as wide as the longest."""

import numpy as np

from gdalbridge.attached_rat.values import narrowed


def test_as_wide_as_the_longest():
    text = np.array([b"abc", b"", "é".encode()], "S9")
    assert narrowed(text).dtype == "S3"
    assert narrowed(text[1:]).dtype == "S2"
    assert narrowed(text[1:2]).dtype == narrowed(text[:0]).dtype == "S1"
    assert narrowed(np.array([b"a\0b"])) is None
    copy = narrowed(text)
    copy[0] = b"x"
    assert text[0] == b"abc"
