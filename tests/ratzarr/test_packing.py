"""Chunks of numbers are packed as suits them; Blosc and zarr-python read them all."""

import json
import struct

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
