"""Text whose places are marked in its chunk: Blosc reads it as ever, and a page is found by a mark."""

import struct

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import VLenUTF8, blosc

from ratzarr import DamagedError, RatZarr
from ratzarr.codecs.blosc import MARKS, Way, compress, marks_in
from ratzarr.codecs.strings import STEP, PackedStrings, pack
from tests.files import wait_until_settled

STRING = np.dtypes.StringDType()
ROWS, CHUNK = 30_011, 20_000
KINDS = {
    "labels": [f"segment {n}" for n in range(ROWS)],
    "names": [("Wald", "Küstenfeuchtgebiet", "See", "Grünland")[n * 7 % 4] for n in range(ROWS)],
    "mostly empty": ["" if n % 20 else f"remark {n}" for n in range(ROWS)],
    "empty": [""] * ROWS,
    "zero bytes inside": [f"a\0{n}" if n % 5000 == 4999 else f"a{n}" for n in range(ROWS)],
    "255 bytes": ["x" * (n % 256) for n in range(ROWS)],
    "long ones": ["y" * (300 * (n % 7000 == 6999)) + str(n) for n in range(ROWS)],
}
PAGES = [
    (0, 10),
    (STEP - 5, 10),
    (STEP, 1),
    (3 * STEP - 1, 2 * STEP + 2),
    (CHUNK - 5, 11),
    (0, ROWS),
]


def marked(strings):
    """Return the bytes of strings, what is marked in them, and the buffer."""
    marks = []
    raw = pack(np.array(strings, STRING), marks)
    return raw, marks, b"".join(compress(raw, Way(b"zstd", 1, 0, len(raw)), marks=marks))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("marks") / "t.rat.zarr"
    with RatZarr(path) as table:
        table.setRowCount(ROWS)
        table.setChunkSize(CHUNK)
        for name, strings in KINDS.items():
            table.createColumn(name, str)
            table.writeBlock(name, np.array(strings, STRING), 0)
    wait_until_settled(path)
    return path


def chunk_of(store, name, number=0):
    return store / "RAT" / name / "c" / str(number)


@pytest.mark.parametrize("name", KINDS)
def test_every_page(store, name):
    for start, length in PAGES:
        with RatZarr(store, readOnly=True) as table:
            # From the store, and then from the cache.
            for _ in range(2):
                got = table.readBlock(name, start, length)
                assert got.tolist() == KINDS[name][start : start + length]


@pytest.mark.parametrize("name", KINDS)
def test_zarr_reads_it_as_if_nothing_were_there(store, name):
    array = zarr.open_array(store / "RAT" / name, mode="r")
    assert array[:].tolist() == KINDS[name]


def test_which_chunks_have_marks(store):
    for name in KINDS:
        data = chunk_of(store, name).read_bytes()
        found = marks_in(memoryview(data)[:-4], (CHUNK - 1) // STEP)
        assert bool(found) == (name != "long ones"), name
        assert (MARKS in data) == bool(found)


def test_strings_written_as_bytes_are_marked_too(tmp_path):
    with RatZarr(tmp_path / "t.zarr") as table:
        table.setRowCount(ROWS)
        table.createColumn("x", str)
        table.writeBlock("x", np.array(KINDS["labels"], "S"), 0)
        assert MARKS in chunk_of(tmp_path / "t.zarr", "x").read_bytes()
        assert table.readBlock("x", STEP - 1, 3).tolist() == KINDS["labels"][STEP - 1 : STEP + 2]


def test_two_values_in_each_row(tmp_path):
    pairs = np.array(KINDS["labels"][: ROWS - 1], STRING).reshape(-1, 2)
    with RatZarr(tmp_path / "t.zarr") as table:
        table.setRowCount(len(pairs))
        table.createColumn("x", str, 2)
        table.writeBlock("x", pairs, 0)
        for start, length in ((0, 3), (STEP // 2 - 1, 3), (STEP - 1, 2), (5000, 9000)):
            assert (table.readBlock("x", start, length) == pairs[start : start + length]).all()


def test_short_chunks_have_none():
    raw, marks, buffer = marked(["a"] * STEP)
    assert marks == []
    assert buffer == blosc.compress(raw, b"zstd", 1, 0, len(raw))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from(["", "ä", "abc", "x" * 255, "0"]), min_size=1, max_size=50), st.data()
)
def test_marks_are_where_the_strings_are(some, data):
    strings = some * (3 * STEP // len(some))
    raw, marks, buffer = marked(strings)
    assert blosc.decompress(buffer) == bytes(raw) == VLenUTF8().encode(np.array(strings, object))
    sizes = [4 + len(one.encode()) for one in strings]
    places = 4 + np.cumsum(sizes) - sizes
    assert marks == places[STEP::STEP].tolist()
    assert list(marks_in(memoryview(buffer), len(marks))) == marks
    first = data.draw(st.integers(0, len(strings)))
    stop = data.draw(st.integers(first, len(strings)))
    packed = PackedStrings.of(raw, len(strings), marks)
    out = np.empty(stop - first, STRING)
    packed.copy(first, out)
    assert out.tolist() == strings[first:stop]
    padded = packed.padded(first, stop)
    assert [one.decode() for piece in padded for one in piece.tolist()] == strings[first:stop]


def test_every_changed_bit_of_marks_is_noticed():
    """Then all strings are located, as in chunks without marks."""
    _, marks, good = marked(KINDS["labels"])
    count = len(marks)
    table = good.index(MARKS)
    assert marks_in(memoryview(good), count)
    for place in range(table + 4 + 4 * count + 4):
        if place < 16:
            # The caller has compared the header with the bytes.
            continue
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        assert marks_in(memoryview(bad), count) == ()
    assert marks_in(memoryview(good), count - 1) == ()
    assert marks_in(memoryview(good), count + 1) == ()


@pytest.mark.parametrize("change", ["inside a string", "the next string", "descending", "beyond"])
def test_marks_that_were_made_to_deceive(store, tmp_path, change):
    """Checksums keep out accidents: whoever can write a chunk can sum it."""
    with RatZarr(tmp_path / "t.zarr") as table:
        table.setRowCount(CHUNK)
        table.createColumn("x", str)
        values = np.array(KINDS["labels"][:CHUNK], STRING)
        table.writeBlock("x", values, 0)
        rows = table.getColumnChunkSize("x")
    whole = np.zeros(rows, STRING)
    whole[:CHUNK] = values
    marks = []
    raw = pack(whole, marks)
    if change == "inside a string":
        marks[1] += 5
    elif change == "the next string":
        marks[1] += 4 + len(KINDS["labels"][2 * STEP])
    elif change == "descending":
        marks[1] = marks[0]
    else:
        marks[-1] = len(raw)
    data = b"".join(compress(raw, Way(b"zstd", 1, 0, len(raw)), marks=marks))
    chunk_of(tmp_path / "t.zarr", "x").write_bytes(
        data + struct.pack("<I", google_crc32c.value(data))
    )
    with RatZarr(tmp_path / "t.zarr", readOnly=True) as table:
        assert table.readBlock("x", 5, 2).tolist() == KINDS["labels"][5:7]
        for start in (STEP + 5, 2 * STEP + 5):
            if change in ("descending", "beyond"):
                assert (
                    table.readBlock("x", start, 2).tolist() == KINDS["labels"][start : start + 2]
                )
                continue
            with pytest.raises(DamagedError, match=r"c/0 .*column 'x'.* is damaged"):
                table.readBlock("x", start, 2)


@pytest.mark.parametrize("seconds", [0, 60])
def test_text_that_is_not_utf8_is_named_wherever_it_is_read(tmp_path, seconds):
    """A chunk's other pages can be read before and after."""
    values = np.array(KINDS["labels"][:CHUNK], STRING)
    with RatZarr(tmp_path / "t.zarr") as table:
        table.setRowCount(CHUNK)
        table.setChunkSize(CHUNK)
        table.createColumn("x", str)
        table.writeBlock("x", values, 0)
    marks = []
    raw = pack(values, marks).tobytes().replace(b"segment 9000", b"segment\xff9000")
    way = Way(b"zstd", 1, 0, len(raw))
    data = b"".join(compress(np.frombuffer(raw, "u1"), way, marks=marks))
    path = chunk_of(tmp_path / "t.zarr", "x")
    path.write_bytes(data + struct.pack("<I", google_crc32c.value(data)))
    wait_until_settled(tmp_path / "t.zarr")
    with RatZarr(tmp_path / "t.zarr", readOnly=True, cacheSeconds=seconds) as table:
        for _ in range(2):
            assert table.readBlock("x", 8000, 3).tolist() == KINDS["labels"][8000:8003]
            for start in (8999, 9000):
                with pytest.raises(DamagedError, match=r"column 'x'.* is damaged.*UTF-8"):
                    table.readBlock("x", start, 5)
