"""Stores of every format version are read for ever."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from ratzarr import RatZarr
from ratzarr.codecs.blosc import MAGIC, MARKS
from ratzarr.format.names import FORMAT_VERSION
from tests.data.make_golden import as_json, marked_strings, of_many_blocks

DATA = Path(__file__).parents[1] / "data"
VERSIONS = sorted(DATA.glob("golden-v*.zarr"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.stem)
def golden(request, tmp_path):
    copy = shutil.copytree(request.param, tmp_path / request.param.name)
    return copy, json.loads(request.param.with_suffix(".json").read_text(encoding="utf-8"))


def test_there_is_one_for_each_version():
    assert [path.stem for path in VERSIONS] == [f"golden-v{n + 1}" for n in range(FORMAT_VERSION)]


def test_every_value(golden):
    store, expected = golden
    with RatZarr(store, readOnly=True) as table:
        assert table.getColumnNames() == list(expected)
        for name, column in expected.items():
            values = table.readBlock(name, 0, table.rowCount)
            assert values.dtype.str == column["dtype"]
            assert as_json(values) == column["values"]


def test_everything_else(golden):
    store, _ = golden
    with RatZarr(store, readOnly=True) as table:
        assert (table.rowCount, table.getRATChunkSize()) == (230, 100)
        assert table.getColumnWidth("yearly") == 4
        assert table.getColumnAttributeMapping("int32")["units"] == "class"
        assert table.getRatAttributeMapping()["source"] == "seg.kea"
        [(when, user, argv)] = table.getModificationLog("int8")
        assert (when.year, user, argv) == (2026, "root", ["make_golden.py", "--year", "2026"])
        assert table.getModificationLog("untouched") == []


def test_it_can_be_written_on(golden):
    store, _ = golden
    with RatZarr(store) as table:
        table.writeBlock("b1/b2", np.array([1, 2, 3]), 99)
        table.setRowCount(150)
        table.setRowCount(230)
        assert table.readBlock("b1/b2", 98, 5).tolist() == [98 + 5, 1, 2, 3, 102 + 5]
        assert not table.readBlock("int32", 150, 80).any()


def test_zarr_reads_it_as_it_is(golden):
    store, expected = golden
    group = zarr.open_group(store, mode="r", use_consolidated=False)["RAT"]
    for key in ("int64", "float64", "bool", "string", "yearly"):
        assert as_json(group[key][:]) == expected[key]["values"]
        assert group[key].metadata.dimension_names[0] == "row"


@pytest.mark.parametrize("store", sorted(DATA.glob("summed-v*.zarr")), ids=lambda path: path.stem)
def test_pages_of_chunks_whose_blocks_have_checksums(store):
    expected = of_many_blocks()
    with RatZarr(store, readOnly=True) as table:
        for name, values in expected.items():
            assert MAGIC in (store / "RAT" / name / "c" / "0").read_bytes()[:500]
            for start, length in ((60_000, 1000), (99_500, 1000), (149_000, 1000), (0, 150_000)):
                page = table.readBlock(name, start, length)
                assert page.tobytes() == values[start : start + length].tobytes()
    for name, values in expected.items():
        array = zarr.open_array(store / "RAT" / name, mode="r")
        assert array[:].tobytes() == values.tobytes()


@pytest.mark.parametrize("store", sorted(DATA.glob("marked-v*.zarr")), ids=lambda path: path.stem)
def test_pages_of_text_with_marks(store):
    expected = marked_strings()
    assert MARKS in (store / "RAT/text/c/0").read_bytes()[:500]
    with RatZarr(store, readOnly=True) as table:
        for start, length in ((4_090, 10), (9_990, 20), (14_000, 1000), (0, 15_000)):
            assert (
                table.readBlock("text", start, length).tolist() == expected[start : start + length]
            )
    array = zarr.open_array(store / "RAT/text", mode="r")
    assert array[:].tolist() == expected
