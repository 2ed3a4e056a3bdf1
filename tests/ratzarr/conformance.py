"""The suite of :mod:`ratzarr.testing`, and a store that the existing module wrote on top.

The store is in tests/data, which no wheel has (see tests/data/README.md).
"""

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.testing import TableTests
from ratzarr.testing.helpers import STRING, document, make, raw

DATA = Path(__file__).parents[1] / "data"
LOG = ("2026-11-23T17:23:37+00:00", "someone", ["make_columns.py", "--year", "2026"])


class TableConformance(TableTests):
    """The store opens here, can be written here, and what is written here opens there."""

    @pytest.fixture
    def upstream_values(self):
        with np.load(DATA / "upstream-1.0.2.npz") as archive:
            return dict(archive)

    @pytest.fixture
    def upstream_store(self, place):
        url = place.new()
        golden = DATA / "upstream-1.0.2.zarr"
        for path in golden.rglob("*"):
            if path.is_file():
                place.put(url, path.relative_to(golden).as_posix(), path.read_bytes())
        return url

    def test_reading_upstreams(self, place, upstream_store, upstream_values):
        before = place.everything()
        assert RatZarr.exists(place.at(upstream_store))
        assert RatZarr.isValidRatZarr(place.at(upstream_store))
        with RatZarr(place.at(upstream_store), readOnly=True) as table:
            assert table.rowCount == 230
            assert table.getRATChunkSize() == 100
            assert table.getColumnNames() == sorted(upstream_values)
            assert table.getRatAttributeMapping()["source"] == "seg.kea"
            for name, values in upstream_values.items():
                assert table.getColumnChunkSize(name) == 100
                got = table.readBlock(name, 0, 1000)
                wanted = STRING if values.dtype.kind == "U" else values.dtype
                assert got.dtype == table.getColumnDtype(name) == wanted
                assert got.tolist() == values.tolist()
                assert table.readBlock(name, 95, 120).tolist() == values[95:215].tolist()
                assert table.getColumnWidth(name) == (4 if name == "yearly" else 1)
            when = dt.datetime.fromisoformat(LOG[0])
            assert table.getModificationLog("cls") == [(when, *LOG[1:])]
            assert table.getModificationLog("untouched") == []
            stored = document(place, upstream_store, "RAT/cls")["attributes"]
            assert table.getColumnAttributeMapping("cls").asdict() == stored
            assert set(stored) > {"MODIFICATIONLOG"}
        assert place.everything() == before

    def test_writing_upstreams(self, place, upstream_store, upstream_values):
        with RatZarr(place.at(upstream_store)) as table:
            table.writeBlock("cls", np.array([9, 8, 7]), 99)
            table.writeBlock("name", np.array(["größer"] * 100), 100)
            table.createColumn("a/b", "float64")
            table.writeBlock("a/b", np.full(230, 0.1), 0)
            table.setRowCount(240)
            names = table.getColumnNames()
        assert names == [*sorted(upstream_values), "a/b"]
        upstream_values["cls"][99:102] = [9, 8, 7]
        upstream_values["name"][100:200] = "größer"
        for name, values in upstream_values.items():
            got = raw(place, upstream_store, name)
            assert got.shape == (240, *values.shape[1:])
            assert got[:230].tolist() == values.tolist()
            assert not any(got[230:].ravel().tolist())
        assert raw(place, upstream_store, "a%2Fb").tolist() == [0.1] * 230 + [0.0] * 10
        attributes = document(place, upstream_store, "RAT")["attributes"]
        assert (attributes["ROWCOUNT"], attributes["CHUNKSIZE"]) == (240, 100)
        assert attributes["source"] == "seg.kea"
        log = document(place, upstream_store, "RAT/cls")["attributes"]["MODIFICATIONLOG"]
        assert log[0] == list(LOG)
        assert len(log) == 2

    def test_deleting_upstreams(self, place, upstream_store):
        RatZarr.delete(place.at(upstream_store))
        assert place.objects(upstream_store) == {}

    def test_what_upstream_needs_is_there(self, place):
        """It opens the root, then RAT, then arrays by name; it wants both attributes and the log."""
        url = place.new()
        with make(place.at(url), 9, a=("int32",), name=(STRING,)) as table:
            table.writeBlock("a", np.arange(9), 0)
        root = place.open(url)
        group = root["RAT"]
        assert group.attrs["ROWCOUNT"] == 9
        assert group.attrs["CHUNKSIZE"] == 4
        assert sorted(group.keys()) == ["a", "name"]
        assert group["a"].attrs["MODIFICATIONLOG"][0][1:]
        assert group["name"].attrs["MODIFICATIONLOG"] == []
