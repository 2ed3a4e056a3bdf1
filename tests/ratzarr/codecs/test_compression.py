"""Chunks of numbers are packed as suits them; Blosc and zarr-python read them all."""

import json
import struct
from unittest import mock

import numpy as np
import pytest
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec

from ratzarr import RatZarr

ROWS = 40_000


def values_of(name):
    rng = np.random.default_rng(5)
    return {
        "noise": rng.normal(1200, 90, ROWS),
        "decimals": np.round(rng.normal(12, 9, ROWS), 2),
        "classes": rng.integers(0, 20, ROWS).astype("i4"),
        "codes": rng.integers(0, 300, ROWS).astype("i2"),
        "sequence": np.arange(ROWS, dtype="i4"),
        "counts": (rng.pareto(1.2, ROWS) * 20).clip(0, 2**31 - 1).astype("i4"),
        "zeros": np.zeros(ROWS, "i8"),
        "dates": rng.integers(0, 10**15, ROWS).astype("M8[us]"),
        "single": rng.normal(size=ROWS).astype("f4"),
    }[name]


def shape_of(path):
    """Return the shuffle and the compressor that a chunk's Blosc header says (bits of byte 2)."""
    flags = path.read_bytes()[2]
    return {0: "none", 1: "bytes", 4: "bits"}[flags & 5], {1: "lz4", 4: "zstd"}[flags >> 5]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("noise", ("bytes", "lz4")),
        ("decimals", ("none", "zstd")),
        ("classes", ("bytes", "zstd")),
        ("codes", ("bits", "lz4")),
        ("sequence", ("bytes", "lz4")),
        ("counts", ("bytes", "lz4")),
        ("zeros", ("bytes", "lz4")),
        ("dates", ("bytes", "lz4")),
        ("single", ("bytes", "lz4")),
    ],
)
def test_each_chunk_is_packed_as_suits_it_and_zarr_reads_it(tmp_path, name, way):
    values = values_of(name)
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path) as table:
        table.setChunkSize(ROWS // 2)
        table.setRowCount(ROWS)
        table.createColumn("a", values.dtype)
        table.writeBlock("a", values, 0)
        assert table.readBlock("a", 0, ROWS).tobytes() == values.tobytes()
    assert shape_of(path / "RAT" / "a" / "c" / "1") == way
    array = zarr.open_array(path / "RAT" / "a", mode="r")
    assert array[:].tobytes() == values.tobytes()


def test_chunks_of_one_column_may_differ(tmp_path):
    values = np.concatenate([values_of("noise"), values_of("decimals")])
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setChunkSize(ROWS)
        table.setRowCount(2 * ROWS)
        table.createColumn("a", values.dtype)
        table.writeBlock("a", values, 0)
        assert table.readBlock("a", 0, 2 * ROWS).tobytes() == values.tobytes()
    chunks = tmp_path / "t.rat.zarr" / "RAT" / "a" / "c"
    assert shape_of(chunks / "0") != shape_of(chunks / "1")


@pytest.mark.parametrize(
    "others", [("decimals", "noise"), ("classes", "codes"), ("zeros", "noise")]
)
def test_what_the_last_chunk_was_packed_by_is_not_kept_for_others(tmp_path, others):
    """One chunk upon the other by one writer: each is packed as it would be alone."""
    kinds = [others[0], others[0], others[1], others[1], others[0]]
    dtype = np.result_type(*(values_of(name).dtype for name in others))
    values = {name: values_of(name).astype(dtype) for name in others}
    ways = {}
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setChunkSize(ROWS)
        table.setRowCount(ROWS * len(kinds))
        for name in others:
            table.createColumn(name, dtype)
            table.writeBlock(name, values[name], 0)
            ways[name] = shape_of(tmp_path / "t.rat.zarr" / "RAT" / name / "c" / "0")
        table.createColumn("all", dtype)
        for number, name in enumerate(kinds):
            table.writeBlock("all", values[name], number * ROWS)
        whole = np.concatenate([values[name] for name in kinds])
        assert table.readBlock("all", 0, len(whole)).tobytes() == whole.tobytes()
    chunks = tmp_path / "t.rat.zarr" / "RAT" / "all" / "c"
    assert [shape_of(chunks / str(number)) for number in range(len(kinds))] == [
        ways[name] for name in kinds
    ]


def test_a_chunk_like_the_last_is_compressed_once(tmp_path):
    values = values_of("decimals")
    step = len(values) // 4
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setChunkSize(step)
        table.setRowCount(len(values))
        table.createColumn("a", values.dtype)
        # The first write also adds an event to the column's document.
        table.writeBlock("a", values[:step], 0)
        table.getColumnAttributeMapping("a")["unit"] = "m"
        with mock.patch.object(blosc, "compress", wraps=blosc.compress) as compress:
            table.writeBlock("a", values[step : 2 * step], step)
        assert compress.call_count == 1
        assert table.readBlock("a", 0, 2 * step).tolist() == values[: 2 * step].tolist()


@pytest.mark.parametrize("chunk", [ROWS, 10 * ROWS])
def test_decimals_are_as_small_as_zarrs_default_makes_them(tmp_path, chunk):
    values = values_of("decimals")
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setRowCount(ROWS)
        table.setChunkSize(chunk)
        table.createColumn("a", values.dtype)
        table.writeBlock("a", values, 0)
    theirs = zarr.create_array(
        tmp_path / "plain.zarr", shape=ROWS, chunks=(ROWS,), dtype=values.dtype
    )
    theirs[:] = values
    size = (tmp_path / "t.rat.zarr" / "RAT" / "a" / "c" / "0").stat().st_size
    assert size <= 1.1 * (tmp_path / "plain.zarr" / "c" / "0").stat().st_size


def test_a_column_that_says_otherwise_is_packed_as_it_says(tmp_path):
    path = tmp_path / "t.rat.zarr"
    values = values_of("decimals")
    with RatZarr(path) as table:
        table.setRowCount(ROWS)
    group = zarr.open_group(path, mode="a", zarr_format=3)["RAT"]
    codec = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=8)
    group.create_array("a", shape=ROWS, chunks=(ROWS,), dtype=values.dtype, compressors=codec)
    with RatZarr(path) as table:
        table.writeBlock("a", values, 0)
        assert table.readBlock("a", 0, ROWS).tobytes() == values.tobytes()
    (chunk,) = (path / "RAT" / "a" / "c").iterdir()
    assert shape_of(chunk) == ("bytes", "lz4")


def test_the_item_size_is_the_columns(tmp_path):
    """Shuffling by another one would pack badly, and nothing else would tell."""
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setRowCount(ROWS)
        table.createColumn("a", np.int32)
        table.writeBlock("a", values_of("sequence"), 0)
    column = tmp_path / "t.rat.zarr" / "RAT" / "a"
    data = (column / "c" / "0").read_bytes()
    assert data[3] == 4
    (codec,) = [
        c for c in json.loads((column / "zarr.json").read_text())["codecs"] if c["name"] == "blosc"
    ]
    assert codec["configuration"]["typesize"] == 4
    # The checksum lies behind it; Blosc's own header says how long it is.
    length = struct.unpack_from("<I", data, 12)[0]
    assert length == len(data) - 4
    assert np.frombuffer(blosc.decompress(data[:length]), "<i4")[:3].tolist() == [0, 1, 2]


def strings_of(name, rows):
    rng = np.random.default_rng(6)
    names = ["Closed forest", "Open woodland", "Küstenfeuchtgebiet", "Water", "Intensive uses"]
    return {
        "names": np.array(names, "T")[rng.integers(0, len(names), rows)],
        "numbered": np.array([f"segment {number}" for number in range(rows)], "T"),
        "noise": np.array([rng.bytes(8).hex() for _ in range(rows)], "T"),
        "decimals": np.round(rng.normal(12, 9, rows), 2).astype("T"),
        "seldom": np.where(rng.random(rows) < 0.05, "checked in the field", "").astype("T"),
    }[name]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("names", 30_000),
        ("numbered", 30_000),
        # In more than one block.
        ("numbered", 300_000),
        ("noise", 30_000),
        ("decimals", 30_000),
        ("seldom", 30_000),
    ],
)
def test_text_is_as_small_as_zarrs_default_makes_it_and_zarr_reads_it(tmp_path, name, rows):
    values = strings_of(name, rows)
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path) as table:
        table.setChunkSize(rows)
        table.setRowCount(rows)
        table.createColumn("a", str)
        table.writeBlock("a", values, 0)
        assert np.array_equal(table.readBlock("a", 0, rows), values)
    assert np.array_equal(zarr.open_array(path / "RAT" / "a", mode="r")[:], values)
    theirs = zarr.create_array(
        tmp_path / "plain.zarr", shape=rows, chunks=(rows,), dtype=values.dtype
    )
    theirs[:] = values
    chunk = path / "RAT" / "a" / "c" / "0"
    assert shape_of(chunk) == ("none", "zstd")
    size = chunk.stat().st_size
    assert size <= 1.1 * (tmp_path / "plain.zarr" / "c" / "0").stat().st_size


def test_large_text_is_in_two_blocks_and_of_any_length(tmp_path):
    for rows, length, blocks in ((3, 10, 1), (6000, 1000, 2), (4200, 4100, 4)):
        path = tmp_path / f"{rows}.rat.zarr"
        with RatZarr(path) as table:
            table.setChunkSize(rows)
            table.setRowCount(rows)
            table.createColumn("a", bytes)
            values = np.array([bytes([row % 251]) * length for row in range(rows)], object)
            table.writeBlock("a", values, 0)
            assert table.readBlock("a", 0, rows).tolist() == values.tolist()
        size, block = struct.unpack_from("<II", (path / "RAT" / "a" / "c" / "0").read_bytes(), 4)
        assert -(-size // block) == blocks
