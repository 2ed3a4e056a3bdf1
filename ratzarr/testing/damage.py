"""Damage is noticed: values that were not written are never returned."""

import json

import numpy as np
import pytest

from ratzarr import RatZarr, RatZarrError
from ratzarr.testing.columns import values_of
from ratzarr.testing.helpers import (
    BYTES,
    STRING,
    assert_same,
    make,
    message,
    refused,
    write_now,
)


class Damage:
    """The error names the column and the object, and no values are returned."""

    @pytest.mark.parametrize(
        "dtype",
        ["int32", "uint8", STRING, BYTES],
        ids=str,
    )
    def test_a_flipped_bit(self, place, dtype):
        url = place.new()
        values = values_of(dtype, 300)
        with make(place.at(url), 300, chunk=100, **{"Band mean": (dtype,)}) as table:
            table.writeBlock("Band mean", values, 0)
        good = place.content(url, "RAT/Band mean/c/1")
        step = max(1, len(good) // 6)
        for position in [*range(0, len(good), step), len(good) - 1]:
            bad = bytearray(good)
            bad[position] ^= 1 << (position % 8)
            place.put(url, "RAT/Band mean/c/1", bytes(bad))
            with RatZarr(place.at(url)) as table:
                for start, length in ((100, 100), (150, 1), (0, 300)):
                    with refused(place, "Band mean", "c/1"):
                        table.readBlock("Band mean", start, length)
                assert_same(table.readBlock("Band mean", 0, 100), values[:100])
                assert_same(table.readBlock("Band mean", 200, 100), values[200:])
                with refused(place, "Band mean", "c/1"):
                    table.readBlocks(["Band mean"], 0, 300)

    @pytest.mark.parametrize("length", [0, 1, 4, 20, -1])
    def test_a_chunk_cut_short(self, place, length):
        url = place.new()
        with make(place.at(url), 300, chunk=100, **{"Band mean": ("int32",)}) as table:
            table.writeBlock("Band mean", np.arange(300), 0)
        good = place.content(url, "RAT/Band mean/c/1")
        place.put(url, "RAT/Band mean/c/1", good[:length])
        with RatZarr(place.at(url)) as table, refused(place, "Band mean", "c/1"):
            table.readBlock("Band mean", 0, 300)

    def test_a_part_is_not_written_into_a_damaged_chunk(self, place):
        """Rewriting the rest of the chunk would give bad values a good checksum."""
        url = place.new()
        with make(place.at(url), 300, chunk=100, a=("int32",)) as table:
            table.writeBlock("a", np.arange(300), 0)
        bad = bytearray(place.content(url, "RAT/a/c/1"))
        bad[len(bad) // 2] ^= 1
        place.put(url, "RAT/a/c/1", bytes(bad))
        with RatZarr(place.at(url)) as table:
            with pytest.raises(RatZarrError) as caught:
                write_now(table, "a", np.array([5]), 150)
            assert "c/1" in message(caught.value)
            assert place.content(url, "RAT/a/c/1") == bytes(bad)
            table.writeBlock("a", np.arange(100), 100)
            assert table.readBlock("a", 98, 4).tolist() == [98, 99, 0, 1]

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"{}"], ids=repr)
    @pytest.mark.parametrize("key", ["RAT/zarr.json", "RAT/a/zarr.json"])
    def test_a_broken_document(self, place, key, content):
        url = place.new()
        make(place.at(url), 3, a=("int32",)).close()
        place.put(url, key, content)
        with refused(place, key.removesuffix("/zarr.json")), RatZarr(place.at(url)) as table:
            table.readBlock("a", 0, 3)

    @pytest.mark.parametrize("count", [-1, 1.5, "9", None, True, [3]], ids=repr)
    def test_a_row_count_that_is_none(self, place, count):
        url = place.new()
        make(place.at(url), 3, a=("int32",)).close()
        place.edit(url)["RAT"].attrs["ROWCOUNT"] = count
        with refused(place, "ROWCOUNT"):
            RatZarr(place.at(url)).getRowCount()

    @pytest.mark.parametrize("size", [0, -1, 1.5, "9", None, [3]], ids=repr)
    def test_a_chunk_size_that_is_none(self, place, size):
        url = place.new()
        make(place.at(url), 3, a=("int32",)).close()
        place.edit(url)["RAT"].attrs["CHUNKSIZE"] = size
        with refused(place, "CHUNKSIZE"):
            RatZarr(place.at(url)).createColumn("b", "int32")

    @pytest.mark.parametrize("version", [0, -1, 1.5, "1", None, [1]], ids=repr)
    def test_a_version_that_is_none(self, place, version):
        url = place.new()
        make(place.at(url), 3, a=("int32",)).close()
        place.edit(url)["RAT"].attrs["FORMAT_VERSION"] = version
        with refused(place, "FORMAT_VERSION"):
            RatZarr(place.at(url)).getRowCount()

    def test_an_incomplete_column(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",), **{"Band mean": ("int32",)}) as table:
            table.writeBlock("Band mean", np.arange(9), 0)
        place.edit(url)["RAT/Band mean"].attrs.update({"COMPLETE": False, "ROWS_DONE": 3})
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.getColumnNames() == ["a", "Band mean"]
            reads = {
                "readBlock": lambda: table.readBlock("Band mean", 0, 9),
                "readBlock of whole rows": lambda: table.readBlock("Band mean", 0, 1),
                "readBlocks": lambda: table.readBlocks(["a", "Band mean"], 0, 9),
                "openColumn": lambda: table.openColumn("Band mean"),
            }
            for name, read in reads.items():
                with refused(place, "Band mean", "omplete", doing=name):
                    read()
            assert table.readBlock("a", 0, 9).tolist() == [0] * 9

    def test_a_store_in_another_zarr_format(self, place):
        url = place.new()
        place.put(url, ".zgroup", json.dumps({"zarr_format": 2}).encode())
        place.put(url, "RAT/.zgroup", json.dumps({"zarr_format": 2}).encode())
        with refused(place, url):
            RatZarr(place.at(url), create=False)
