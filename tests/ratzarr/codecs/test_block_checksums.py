"""Chunks with a checksum of each block: Blosc reads them as ever, and a page needs only its own blocks."""

import os
import struct

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import blosc

from ratzarr import DamagedError, RatZarr
from ratzarr.codecs.blosc import (
    HEAD,
    LZ4_BITS,
    LZ4_BYTES,
    MAGIC,
    ZSTD_BYTES,
    ZSTD_WHOLE,
    Blocks,
    compress,
    reader_of,
)
from tests.files import wait_until_settled

WAYS = [LZ4_BYTES, LZ4_BITS, ZSTD_BYTES, ZSTD_WHOLE]
RNG = np.random.default_rng(7)
ROWS = 500_011
VALUES = {
    "decimals": np.round(RNG.normal(12, 9, ROWS), 2),
    "means": RNG.normal(1200, 90, ROWS),
    "codes": RNG.integers(0, 20, 2 * ROWS).astype("i4"),
    "sequence": np.arange(2 * ROWS, dtype="i4"),
    "three bytes": RNG.integers(0, 9, 6 * ROWS).astype("u1").view("V3"),
}


def summed(values, way):
    """Pack values with checksums of their blocks."""
    return b"".join(compress(values.view(f"V{values.itemsize}"), way, summed=True))


def opened(buffer, size, *, summed=True):
    """Look at a buffer as at an object from which only parts are read."""
    return Blocks.of(len(buffer), size, reader_of(memoryview(buffer)), summed=summed)


def blocks_of(buffer):
    """Return each block's bytes, as Blosc's header says where they are."""
    size, block = struct.unpack_from("<II", buffer, 4)
    starts = struct.unpack_from(f"<{-(-size // block)}i", buffer, 16)
    return [buffer[a:b] for a, b in zip(starts, [*starts[1:], len(buffer)], strict=True)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", VALUES)
def test_blosc_reads_them_as_if_nothing_were_there(name, way):
    values = VALUES[name]
    buffer = summed(values, way)
    plain = blosc.compress(values.view(f"V{values.itemsize}"), *way)
    assert blosc.decompress(buffer) == values.tobytes()
    blocks = blocks_of(plain)
    assert blocks_of(buffer) == blocks
    # A table, in front of the first block, and nothing else.
    assert len(buffer) == len(plain) + 8 + 4 * len(blocks)
    assert buffer[16 + 4 * len(blocks) :].startswith(MAGIC)
    assert opened(buffer, values.nbytes, summed=False).count == len(blocks)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", VALUES)
def test_runs_of_blocks_are_what_they_are_of_the_whole(name, way):
    values = VALUES[name]
    found = opened(summed(values, way), values.nbytes)
    plain = values.tobytes()
    runs = {
        (0, found.count),
        (found.count - 1, found.count),
        (0, 1),
        (found.count - 2, found.count),
    }
    for _ in range(6):
        first = int(RNG.integers(0, found.count))
        runs.add((first, int(RNG.integers(first, found.count)) + 1))
    for first, last in runs:
        start, stop = found.bytes_of(first, last)
        out = np.zeros(stop - start, np.uint8)
        found.unpack(first, last, out)
        assert out.tobytes() == plain[start:stop]


def test_what_has_one_block_or_is_not_packed_has_none():
    for values in (np.arange(1000), RNG.integers(0, 2**62, ROWS), np.zeros(0)):
        view = values.view("V8")
        assert summed(values, WAYS[0]) == blosc.compress(view, *WAYS[0])
        assert opened(summed(values, WAYS[0]), values.nbytes) is None


def test_every_changed_bit_of_a_table_is_noticed():
    """Then the whole is read, and its own checksum decides."""
    values = VALUES["decimals"]
    good = summed(values, WAYS[3])
    count = opened(good, values.nbytes).count
    for place in range(16 + 4 * count + 8 + 4 * count):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        assert opened(bytes(bad), values.nbytes) is None
    for bad in (good[:-1], good + b"x", good[:100], b""):
        assert opened(bad, values.nbytes) is None
    assert opened(good, values.nbytes - 8) is None


@pytest.mark.parametrize("change", ["order", "first", "beyond"])
def test_a_table_that_was_made_to_deceive(change):
    """Checksums keep out accidents: whoever can write a chunk can sum it."""
    values = VALUES["decimals"]
    bad = bytearray(summed(values, WAYS[3]))
    count = opened(bytes(bad), values.nbytes).count
    starts = list(struct.unpack_from(f"<{count}i", bad, 16))
    if change == "order":
        starts[3], starts[4] = starts[4], starts[3]
    elif change == "first":
        starts[0] = 20
    else:
        starts[-1] = len(bad) + 5
    struct.pack_into(f"<{count}i", bad, 16, *starts)
    end = 16 + 4 * count + 4 + 4 * count
    struct.pack_into("<I", bad, end, google_crc32c.value(bytes(bad[:end])))
    assert opened(bytes(bad), values.nbytes) is None


def test_blocks_in_the_same_place_are_not_read_one_by_one():
    """They could claim any amount of memory."""
    bad = bytearray(summed(VALUES["decimals"], WAYS[0]))
    size, block = struct.unpack_from("<II", bad, 4)
    assert opened(bytes(bad), size, summed=False).count == -(-size // block)
    bad[20:24] = bad[16:20]
    assert opened(bytes(bad), size, summed=False) is None


def test_changed_blocks_are_noticed():
    values = VALUES["decimals"]
    good = summed(values, WAYS[3])
    found = opened(good, values.nbytes)
    out = np.zeros(found.block, np.uint8)
    for number in (0, 1, found.count - 2):
        bad = bytearray(good)
        bad[(found.borders[number] + found.borders[number + 1]) // 2] ^= 16
        damaged = opened(bytes(bad), values.nbytes)
        with pytest.raises(ValueError, match=f"the checksum of block {number} differs"):
            damaged.unpack(number, number + 1, out)
        other = 1 if number == 0 else 0
        damaged.unpack(other, other + 1, out)
        assert out.tobytes() == values.tobytes()[other * found.block :][: found.block]


# ---- in a store


@pytest.fixture
def store(tmp_path):
    """Return a table of two chunks, and its values."""
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path) as table:
        table.setChunkSize(ROWS - 11)
        table.setRowCount(ROWS)
        for name in ("decimals", "means"):
            table.createColumn(name, "f8")
            table.writeBlock(name, VALUES[name], 0)
    return path


@pytest.fixture
def bytes_read(monkeypatch):
    """Return how many bytes each read of a file had, in a list."""
    sizes = []
    for name in ("pread", "preadv", "readv"):
        real = getattr(os, name)

        def counted(file, *rest, real=real):
            found = real(file, *rest)
            sizes.append(found if isinstance(found, int) else len(found))
            return found

        monkeypatch.setattr(os, name, counted)
    return sizes


@pytest.mark.parametrize("name", ["decimals", "means"])
def test_a_page_reads_its_own_blocks(store, bytes_read, name):
    # What was written just now is not kept.
    wait_until_settled(store)
    whole = (store / "RAT" / name / "c" / "0").stat().st_size
    with RatZarr(store, readOnly=True) as table:
        table.getColumnNames()
        table.getColumnDtype(name)
        bytes_read.clear()
        page = table.readBlock(name, 250_000, 1000)
        assert page.tobytes() == VALUES[name][250_000:251_000].tobytes()
        # The header, the document, and one block or two.
        assert sum(bytes_read) < HEAD + 10_000 + 2.5 * 2**18 / (ROWS * 8) * whole
        # All of it, in pieces, is read about once.
        for start in range(0, ROWS - 11, 1000):
            page = table.readBlock(name, start, min(1000, ROWS - 11 - start))
            assert page.tobytes() == VALUES[name][start : start + len(page)].tobytes()
        assert sum(bytes_read) < 2.5 * whole


def flip(path, place):
    """Change a bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_damage_is_said_where_it_is_asked_for(store):
    chunk = store / "RAT" / "decimals" / "c" / "0"
    flip(chunk, chunk.stat().st_size // 2)
    with RatZarr(store, readOnly=True) as table:
        page = table.readBlock("decimals", 1000, 1000)
        assert page.tobytes() == VALUES["decimals"][1000:2000].tobytes()
        for start, length in ((250_000, 1000), (0, ROWS)):
            with pytest.raises(DamagedError, match=r"decimals/c/0 .* is damaged"):
                table.readBlock("decimals", start, length)
        with pytest.raises(DamagedError, match=r"decimals/c/0 .* is damaged"):
            table.checkBlock("decimals", 0, ROWS)


@pytest.mark.parametrize("place", [0, 9, 17, 100, 160])
def test_damage_of_what_comes_before_the_blocks_is_said(store, place):
    flip(store / "RAT" / "decimals" / "c" / "0", place)
    with (
        RatZarr(store, readOnly=True) as table,
        pytest.raises(DamagedError, match=r"decimals/c/0 .* is damaged"),
    ):
        table.readBlock("decimals", 1000, 1000)


def test_a_wrong_table_in_a_sound_chunk_does_no_harm(store):
    """Some other writer might keep bytes there that it does not know."""
    chunk = store / "RAT" / "decimals" / "c" / "0"
    data = bytearray(chunk.read_bytes()[:-4])
    place = bytes(data).index(MAGIC) + 4
    for number in range(3):
        data[place + 4 * number] ^= 255
    count = -(-struct.unpack_from("<I", data, 4)[0] // struct.unpack_from("<I", data, 8)[0])
    end = 16 + 4 * count + 4 + 4 * count
    struct.pack_into("<I", data, end, google_crc32c.value(bytes(data[:end])))
    chunk.write_bytes(bytes(data) + struct.pack("<I", google_crc32c.value(bytes(data))))
    with RatZarr(store, readOnly=True) as table:
        for start in (0, 1000, 250_000):
            page = table.readBlock("decimals", start, 1000)
            assert page.tobytes() == VALUES["decimals"][start : start + 1000].tobytes()


def test_chunks_that_others_wrote_have_none(tmp_path, store):
    """Nor had ours, once: a page of them is read as ever."""
    for name in ("decimals", "means"):
        array = zarr.open_array(store / "RAT" / name, mode="r+")
        assert array[:].tobytes() == VALUES[name].tobytes()
        array[:] = VALUES[name][::-1]
        assert MAGIC not in (store / "RAT" / name / "c" / "0").read_bytes()[:HEAD]
    with RatZarr(store, readOnly=True) as table:
        page = table.readBlock("decimals", 250_000, 1000)
        assert page.tobytes() == VALUES["decimals"][::-1][250_000:251_000].tobytes()


def test_every_size_of_table_keeps_its_values(tmp_path):
    """Chunks of every number of blocks, the last one short or not."""
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setRowCount(400_000)
        for number, rows in enumerate([16_384, 32_768, 32_769, 65_535, 65_536, 131_073, 400_000]):
            name = f"c{number}"
            table.createColumn(name, "f8", chunkSize=rows)
            table.writeBlock(name, VALUES["means"][:400_000], 0)
        table.createColumn("wide", "i4", width=3, chunkSize=100_000)
        wide = RNG.integers(0, 99, (400_000, 3)).astype("i4")
        table.writeBlock("wide", wide, 0)
    for _ in range(30):
        start = int(RNG.integers(0, 398_000))
        with RatZarr(tmp_path / "t.rat.zarr", readOnly=True) as table:
            blocks = table.readBlocks(table.getColumnNames(), start, 2000)
        assert (blocks.pop("wide") == wide[start : start + 2000]).all()
        for page in blocks.values():
            assert page.tobytes() == VALUES["means"][start : start + 2000].tobytes()
