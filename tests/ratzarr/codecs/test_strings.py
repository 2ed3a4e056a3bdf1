"""Strings to vlen-utf8 and back: the bytes are those of numcodecs, whatever the strings."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numcodecs.vlen import VLenUTF8

from ratzarr import RatZarr, UnequalValueError
from ratzarr.codecs.strings import (
    MAX_PADDED_BYTES,
    PIECE,
    PackedStrings,
    is_unicode,
    is_utf8,
    pack,
    pack_at_once,
    to_padded,
    unpack,
)
from ratzarr.format import STRING

ascii_text = st.text(st.characters(max_codepoint=127), max_size=12)
any_text = st.text(max_size=12)
long_text = st.integers(0, 5000).map(lambda n: "x" * n)


def reference(strings):
    objects = np.empty(len(strings), object)
    objects[:] = strings
    return bytes(VLenUTF8().encode(objects))


def strings_of(elements):
    return st.lists(elements, max_size=40)


@given(strings_of(ascii_text) | strings_of(any_text) | strings_of(st.one_of(any_text, long_text)))
@example([])
@example(["", "", ""])
@example(["a\x00", "b"])
@example(["\x00" * 7, ""])
@example(["x" * 255, "x" * 256, ""])
@example(["x" * 65536])
@example(["é" * 127, "é" * 128])
def test_the_bytes_are_those_of_numcodecs(strings):
    values = np.array(strings, STRING)
    packed = bytes(pack(values))
    assert packed == reference(strings)
    assert unpack(packed, len(strings)).tolist() == strings


@given(strings_of(ascii_text) | strings_of(any_text) | strings_of(st.one_of(any_text, long_text)))
@example([""])
@example(["x" * 300, "y"])
def test_the_same_from_and_to_fixed_width_bytes(strings):
    encoded = [one.encode() for one in strings]
    kept = [raw.rstrip(b"\x00") for raw in encoded]
    values = np.array(encoded, f"S{max(map(len, encoded), default=0) or 1}")
    packed = bytes(pack(values))
    assert packed == reference([raw.decode() for raw in kept])
    found = to_padded(packed, len(strings), 0, len(strings))
    if strings and all(len(raw) < 256 and b"\x00" not in raw for raw in kept):
        assert [raw for piece in found for raw in piece.tolist()] == kept
    else:
        assert found is None


@given(
    strings_of(any_text | st.text(st.characters(min_codepoint=0x700, exclude_categories=["Cs"])))
)
@example(["", "ü" * 300, "a"])
@example(["\U0010ffff", "\ud7ff\ue000"])
@example(["\x00", "a\x00b"])
def test_the_same_from_fixed_width_strings(strings):
    values = np.array(strings, f"U{max(map(len, strings), default=0) or 1}")
    assert is_unicode(values)
    assert bytes(pack(values)) == reference(values.tolist())


@pytest.mark.parametrize("code", [0xD800, 0xDFFF, 0x110000])
def test_what_no_unicode_string_has_is_found(code):
    values = np.zeros((PIECE + 3, 2), np.uint32)
    values[-1] = 0x61, code
    assert not is_unicode(values.view("U2"))
    values[-1, 1] = 0xD7FF
    assert is_unicode(values.view("U2"))


def grown_in_place():
    """Return strings that numpy keeps in all of its ways, and the same as a list."""
    rng = np.random.default_rng(4)
    values, strings = np.empty(3000, STRING), [""] * 3000
    for place, length in zip(
        rng.integers(0, 3000, 20_000).tolist(),
        rng.choice([0, 1, 14, 15, 16, 40, 255, 256, 300], 20_000).tolist(),
        strict=True,
    ):
        strings[place] = values[place] = "é" * (length // 2) + "x" * (length % 2)
    return values, strings


def test_no_objects_are_made_of_strings_however_numpy_keeps_them():
    """Else only the speed would tell that a new numpy keeps them in another way."""
    values, strings = grown_in_place()
    names = np.array(["Küste", "", "Wald"] * 5000, STRING)
    for some, expected in (
        (values, strings),
        (values[::-1], strings[::-1]),
        (names, names.tolist()),
    ):
        assert reference(expected)[4:] == bytes(pack_at_once(some))


def test_what_numpy_says_of_lengths_is_not_believed():
    """Zero bytes just where a string of 65541 bytes would be cut, were its length taken for 5."""
    strings = ["abcde", "abcde\x00" + "y" * 65535, "q"]
    values = np.array(strings, STRING)
    assert bytes(pack(values)) == reference(strings)
    sound, short = values[::2], strings[::2]
    assert reference(short)[4:] == bytes(pack_at_once(sound))
    for wrong in ([4, 0], [5, 0], [5, 2], [6, 1], [0, 0]):
        packed = pack_at_once(sound, np.array(wrong))
        assert packed is None, wrong


def test_many_strings_are_put_where_they_are_wanted():
    _, strings = grown_in_place()
    short = [one for one in strings if len(one.encode()) < 256] * 20
    out = np.full(len(short) + 2, "kept", STRING)
    unpack(reference(short), len(short), out[1:-1])
    assert out.tolist() == ["kept", *short, "kept"]


@pytest.mark.parametrize("bad", [0, 20_000, 39_999])
def test_bytes_that_are_no_utf8_are_refused_wherever_they_are(bad):
    packed = bytearray(reference(["ab"] * 40_000))
    packed[4 + 6 * bad + 5] = 0xFF
    with pytest.raises(ValueError, match="UTF-8"):
        unpack(packed, 40_000)


@given(
    strings_of(ascii_text) | strings_of(any_text) | strings_of(st.one_of(any_text, long_text)),
    st.data(),
)
@example(["", "x" * 256, ""], None)
@example(["a\x00", "b\x00\x00"], None)
@example([""] * 3 + ["x" * 300] * 6, None)
def test_pages_of_packed_strings(strings, data):
    packed = PackedStrings.of(reference(strings), len(strings))
    is_short = all("\0" not in one and len(one.encode()) < 256 for one in strings)
    if not is_short or not strings:
        assert packed is None
        return
    first, stop = 0, len(strings)
    if data is not None:
        first = data.draw(st.integers(0, len(strings)))
        stop = data.draw(st.integers(first, len(strings)))
    out = np.full(stop - first, "before", STRING)
    packed.copy(first, out)
    assert out.tolist() == strings[first:stop]
    assert packed.nbytes >= len(reference(strings))
    padded = packed.padded(first, stop)
    assert [raw.decode() for piece in padded for raw in piece.tolist()] == strings[first:stop]
    assert all(piece.dtype.itemsize == max(1, *map(len, piece.tolist())) for piece in padded)


def test_pages_of_many_packed_strings():
    strings = [f"größe {n}" * (n % 5) for n in range(50_000)]
    packed = PackedStrings.of(reference(strings), len(strings))
    for first, rows in ((0, 50_000), (16_380, 10), (49_999, 1), (50_000, 0)):
        out = np.empty(rows, STRING)
        packed.copy(first, out)
        assert out.tolist() == strings[first : first + rows]


def test_pages_of_what_are_no_strings():
    for raw in (b"", b"\x01\x00\x00", reference(["a"])[:-1], reference(["a"]) + b"x"):
        assert PackedStrings.of(raw, 1) is None
    assert PackedStrings.of(reference(["a", "b", "c"]), 2) is None
    broken = PackedStrings.of(reference(["ab", "cd"]).replace(b"cd", b"\xff\xff"), 2)
    out = np.empty(1, STRING)
    broken.copy(0, out)
    assert out.tolist() == ["ab"]
    with pytest.raises(ValueError, match="UTF-8"):
        broken.copy(1, out)
    assert broken.padded(0, 1)[0].tolist() == [b"ab"]
    assert broken.padded(0, 2) is None
    # Half of a character, and the other half in the next string.
    halves = PackedStrings.of(
        reference(["ab", "cd"]).replace(b"ab", b"a\xc3").replace(b"cd", b"\xbcd"), 2
    )
    assert halves.padded(0, 2) is None


def test_what_would_take_too_much_padded_is_not_padded():
    strings = ["a"] * (18 * PIECE)
    strings[::PIECE] = ["b" * 255] * 18
    packed = pack(np.array(strings, STRING))
    assert 15 * PIECE * 255 < MAX_PADDED_BYTES < 18 * PIECE * 255
    assert sum(map(len, to_padded(packed, len(strings), 0, 15 * PIECE))) == 15 * PIECE
    assert to_padded(packed, len(strings), 0, len(strings)) is None


def test_many_strings_cross_pieces():
    rng = np.random.default_rng(3)
    strings = ["s" * int(n) for n in rng.integers(0, 30, 3 * PIECE + 5)]
    packed = bytes(pack(np.array(strings, STRING)))
    assert packed == reference(strings)
    assert unpack(packed, len(strings)).tolist() == strings
    found = to_padded(packed, len(strings), 0, len(strings))
    assert list(map(len, found)) == [PIECE, PIECE, PIECE, 5]
    assert [raw.decode() for piece in found for raw in piece.tolist()] == strings


def test_one_long_string_does_not_make_the_others_as_long():
    strings = ["a"] * 20_000
    strings[7] = "x" * 1_000_000
    packed = bytes(pack(np.array(strings, STRING)))
    assert packed == reference(strings)
    assert unpack(packed, len(strings)).tolist() == strings
    assert to_padded(packed, len(strings), 0, len(strings)) is None


def damaged():
    good = reference(["ab", "", "abc", "x"])
    yield good[:-1]
    yield good + b"\x00"
    for place in range(4, len(good)):
        yield good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1 :]
    # Only the last byte of a length is wrong, and a zero byte in the text stands in for it.
    yield reference(["x", "a\0b", "y", "z"]).replace(b"\x03\0\0\0", b"\x03\0\0\x01")


@pytest.mark.parametrize("data", list(damaged()))
def test_bytes_that_are_other_strings_are_read_as_numcodecs_reads_them_or_refused(data):
    try:
        expected = VLenUTF8().decode(data).tolist()
    except Exception:
        with pytest.raises((ValueError, RuntimeError)):
            unpack(data, 4)
        return
    assert unpack(data, 4).tolist() == expected


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=30))
@example([b"\xc3", b"\xa9"])
def test_utf8_is_told_from_other_bytes(raw):
    values = np.array(raw, "S6")

    def good(value):
        try:
            value.decode()
        except UnicodeDecodeError:
            return False
        return True

    assert is_utf8(values) == all(good(value) for value in values.tolist())


def test_a_column_of_strings_takes_their_bytes(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setChunkSize(4)
        table.setRowCount(10)
        table.createColumn("name", STRING)
        names = ["Küste", "", "Wald", "é"]
        # A whole chunk, and parts of two.
        table.writeBlock("name", np.array([one.encode() for one in names]), 0)
        table.writeBlock("name", np.array([one.encode() for one in names]), 5)
        assert table.readBlock("name", 0, 10).tolist() == [*names, "", *names, ""]
        with pytest.raises(UnequalValueError, match=r"row 3.*is not UTF-8"):
            table.writeBlock("name", np.array([b"a", b"\xe9"]), 2)
        assert table.readBlock("name", 0, 10).tolist() == [*names, "", *names, ""]


def test_a_column_of_strings_takes_fixed_width_strings(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setChunkSize(4)
        table.setRowCount(10)
        table.createColumn("name", STRING)
        names = ["Küste", "", "Wald", "\U0001f333"]
        table.writeBlock("name", np.array(names), 0)
        table.writeBlock("name", np.array(names).astype(">U7"), 5)
        table.writeBlock("name", np.zeros(1, "U0"), 9)
        assert table.readBlock("name", 0, 10).tolist() == [*names, "", *names, ""]
        broken = np.array(["a", "b"])
        broken.view(np.uint32)[1] = 0xD800
        with pytest.raises(UnequalValueError, match=r"row 3.*surrogate"):
            table.writeBlock("name", broken, 2)
        assert table.readBlock("name", 0, 10).tolist() == [*names, "", *names, ""]


def test_what_is_written_is_what_the_array_held_then(tmp_path):
    """An array of strings is not copied before it is packed."""
    with RatZarr(tmp_path / "t.rat.zarr", writeBuffer=True) as table:
        table.setChunkSize(4)
        table.setRowCount(6)
        table.createColumn("name", STRING)
        values = np.array(["a" * 20, "b", "c", "d", "e" * 20, "f"], STRING)
        expected = values.tolist()
        table.writeBlock("name", values, 0)
        values[:] = "changed"
        assert table.readBlock("name", 0, 6).tolist() == expected
