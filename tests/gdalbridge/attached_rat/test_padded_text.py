"""Text as fixed-width bytes: a list of strings, whatever is put where."""

import numpy as np
import pytest

from gdalbridge.attached_rat.values import PaddedText, narrowed

TEXT = np.dtypes.StringDType()


def padded(texts, piece, **limits):
    encoded = [text.encode() for text in texts]
    pieces = [np.array(encoded[i : i + piece]) for i in range(0, len(encoded), piece)]
    return PaddedText(pieces, **limits)


@pytest.mark.parametrize("seed", range(4))
def test_any_order(seed):
    rng = np.random.default_rng(seed)
    model = [f"größe {n}" if n % 3 else "" for n in range(40)]
    text = padded(model, 7)
    for _ in range(200):
        first = int(rng.integers(0, len(model)))
        last = int(rng.integers(first, len(model) + 1))
        if rng.random() < 0.4:
            new = ["🛰" * int(n) for n in rng.integers(0, 9, last - first)]
            assert text.put(first, np.array(new, TEXT))
            model[first:last] = new
        if rng.random() < 0.05:
            more = int(rng.integers(1, 5))
            text, model = text.grown(more), model + [""] * more
        assert len(text) == len(model)
        assert text.strings(first, last).tolist() == model[first:last]
        found = text.padded(first, last)
        assert [raw.decode() for raw in found.tolist()] == model[first:last]
    assert text.size >= sum(len(one.encode()) for one in model)


def test_what_it_can_not_hold_changes_nothing():
    text = padded(["a", "bc", "d"], 2, most=200)
    for new in (["x", "a\0b"], ["x", "a\0"], ["x", "y" * 256], ["x", "y" * 150]):
        assert not text.put(1, np.array(new, TEXT))
        assert text.strings(0, 3).tolist() == ["a", "bc", "d"]
    assert not text.grown(0).put(1, np.array(["x", "y" * 150], TEXT))
    text = padded(["a", "bc", "d"], 2)
    assert text.put(1, np.array(["x", "é" * 127], TEXT))
    assert text.strings(0, 3).tolist() == ["a", "x", "é" * 127]


def test_no_rows():
    assert len(PaddedText([])) == 0
    assert PaddedText([]).padded(0, 0).tolist() == []
    assert PaddedText([]).grown(2).strings(0, 2).tolist() == ["", ""]


def test_as_wide_as_the_longest():
    text = np.array([b"abc", b"", "é".encode()], "S9")
    assert narrowed(text).dtype == "S3"
    assert narrowed(text[1:]).dtype == "S2"
    assert narrowed(text[1:2]).dtype == narrowed(text[:0]).dtype == "S1"
    assert narrowed(np.array([b"a\0b"])) is None
    copy = narrowed(text)
    copy[0] = b"x"
    assert text[0] == b"abc"
