"""Columns filled by a long copy: unfinished, resumed, or replacing another column."""

import numpy as np
import pytest

from ratzarr import (
    ChangedError,
    ColumnIncompleteError,
    ColumnNotFoundError,
    DamagedError,
    RatZarr,
    RatZarrError,
)
from ratzarr.testing.helpers import assert_same, document, make, raw, refused, write_now


class Bulk:
    """``createColumn(complete=False)``, ``setComplete``, ``resumeColumn``, ``getMissingRows``."""

    def test_a_finished_column_says_so(self, place):
        url = place.new()
        with make(place.at(url), 10) as table:
            table.createColumn("a", "int32", complete=False)
            table.writeBlock("a", np.arange(10), 0)
            with (
                RatZarr(place.at(url), readOnly=True) as other,
                pytest.raises(ColumnIncompleteError),
            ):
                other.readBlock("a", 0, 10)
            table.setComplete("a")
            # Also in an instance that saw it unfinished.
            assert table.readBlock("a", 0, 10).tolist() == list(range(10))
        attributes = document(place, url, "RAT/a")["attributes"]
        assert (attributes["COMPLETE"], attributes["ROWS_DONE"]) == (True, 10)

    def test_an_instance_that_saw_it_unfinished_sees_it_finished(self, place):
        url = place.new()
        with make(place.at(url), 4) as table, RatZarr(place.at(url), readOnly=True) as other:
            table.createColumn("a", "int32", complete=False)
            table.writeBlock("a", np.arange(4), 0)
            with pytest.raises(ColumnIncompleteError):
                other.readBlock("a", 0, 4)
            table.setComplete("a")
            assert other.readBlock("a", 0, 4).tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("chunk", ["c/0", "c/1", "c/2"])
    def test_a_missing_chunk_of_a_finished_column_is_damage(self, place, chunk):
        url = place.new()
        with make(place.at(url), 10, b=("int32",)) as table:
            table.createColumn("a", "int32", complete=False)
            table.writeBlock("a", np.arange(10), 0)
            table.setComplete("a")
        place.remove(url, f"RAT/a/{chunk}")
        start = 4 * int(chunk[-1])
        with RatZarr(place.at(url)) as table:
            words = "'a'", f"RAT/a/{chunk}", f"rows {start} to {min(start + 4, 10) - 1}", "missing"
            with refused(place, *words, table=table, error=DamagedError):
                table.readBlock("a", 0, 10)
            with pytest.raises(DamagedError, match=f"RAT/a/{chunk}"):
                write_now(table, "a", np.array([5]), start + 1)
            # After all of its rows are written again, it is complete.
            table.writeBlock("a", np.arange(start, min(start + 4, 10)), start)
            assert table.readBlock("a", 0, 10).tolist() == list(range(10))
            # Rows that were never written are empty.
            assert table.readBlock("b", 0, 10).tolist() == [0] * 10

    def test_a_finished_column_grows_by_empty_rows(self, place):
        url = place.new()
        with make(place.at(url), 10) as table:
            table.createColumn("a", "int32", complete=False)
            table.writeBlock("a", np.arange(10), 0)
            table.setComplete("a")
            table.setRowCount(20)
            assert table.readBlock("a", 0, 20).tolist() == [*range(10), *[0] * 10]
            table.setRowCount(3)
            table.setRowCount(20)
            assert table.readBlock("a", 0, 20).tolist() == [0, 1, 2, *[0] * 17]

    def test_which_rows_are_missing(self, place):
        url = place.new()
        with make(place.at(url), 22) as table:
            table.createColumn("a", "int32", complete=False)
            table.createColumn("wide", "int8", 3, complete=False)
            assert table.getMissingRows("a") == [(0, 22)]
            table.writeBlock("a", np.arange(8), 4)
            assert table.getMissingRows("a") == [(0, 4), (12, 22)]
            table.writeBlock("a", np.arange(2), 20)
            assert table.getMissingRows("a") == [(0, 4), (12, 20)]
            table.writeBlock("a", np.arange(22), 0)
            assert table.getMissingRows("a") == []
            table.writeBlock("wide", np.ones((4, 3)), 8)
            assert table.getMissingRows("wide") == [(0, 8), (12, 22)]

    @pytest.mark.parametrize("cut", [0, 4, 6])
    def test_rows_that_were_cut_off_are_missing(self, place, cut):
        """Even when they are back: their chunks may be there, with empty rows."""
        url = place.new()
        with make(place.at(url), 12, chunk=4) as table:
            table.createColumn("a", "int32", complete=False)
            table.writeBlock("a", np.arange(12), 0)
            table.setRowCount(cut)
            assert table.getMissingRows("a") == []
            table.setRowCount(12)
            assert table.getMissingRows("a") == [(cut // 4 * 4, 12)]
        with RatZarr(place.at(url)) as table:
            assert table.resumeColumn("a") is not None
            assert table.getMissingRows("a") == [(cut // 4 * 4, 12)]

    def test_going_on_with_an_unfinished_column(self, place):
        url = place.new()
        with make(place.at(url), 10, done=("int32",)) as table:
            table.createColumn("a", "int32", complete=False, attributes={"from": "x"})
            table.writeBlock("a", np.arange(4), 0)
        with RatZarr(place.at(url)) as table:
            assert table.resumeColumn("done") is None
            assert table.resumeColumn("none") is None
            assert table.resumeColumn("a")["from"] == "x"
            assert table.getMissingRows("a") == [(4, 10)]
            table.writeBlock("a", np.arange(4, 10), 4)
            table.setComplete("a")
            assert table.resumeColumn("a") is None
        assert raw(place, url, "a").tolist() == list(range(10))

    def test_the_old_column_is_there_until_the_new_one_is_finished(self, place):
        url = place.new()
        old, new = np.arange(10, dtype="int32"), np.linspace(0, 1, 10)
        with make(place.at(url), 10, a=("int32",), b=("int8",)) as table:
            table.writeBlock("a", old, 0)
            table.createColumn("a", "float64", complete=False, replace=True)
            with RatZarr(place.at(url), readOnly=True) as other:
                assert_same(other.readBlock("a", 0, 10), old)
                table.writeBlock("a", new, 0)
                assert_same(table.readBlock("a", 0, 10), new)
                assert_same(other.readBlock("a", 0, 10), old)
                assert other.getColumnNames() == table.getColumnNames() == ["a", "b"]
                table.setComplete("a")
                assert_same(other.readBlock("a", 0, 10), new)
            assert_same(table.readBlock("a", 0, 10), new)
            assert table.getColumnNames() == ["a", "b"]
        assert_same(np.asarray(raw(place, url, "a")), new)
        assert all(key.startswith(("zarr.json", "RAT/")) for key in place.objects(url))

    def test_a_replacement_keeps_what_does_not_describe_the_values(self, place):
        url = place.new()
        said = {
            "units": "ha", "GDAL_USAGE": 1, "GDAL_USAGE_NAME": "PixelCount", "missing_value": -1,
            "GDAL_TYPE": 0, "GDAL_TYPE_NAME": "Integer", "UTC_OFFSET_MINUTES": 60,
            "PROVENANCE": {"operation": "copy"}, "note": {"by": ["A", None]},
        }  # fmt: skip
        with make(place.at(url), 4) as table:
            # A name that differs from its key.
            for name in "a", "a/b":
                table.createColumn(name, "int32", attributes=said)
                before = document(place, url, f"RAT/{name.replace('/', '%2F')}")["attributes"]
                new = {"units": "km2", "method": "sum"}
                table.createColumn(name, "float64", complete=False, replace=True, attributes=new)
                table.writeBlock(name, np.ones(4), 0)
                table.setComplete(name)
                found = table.getColumnAttributeMapping(name).asdict()
                kept = {key: value for key, value in found.items() if not key.isupper()}
                assert kept == {
                    "units": "km2", "method": "sum", "missing_value": -1,
                    "note": {"by": ["A", None]},
                }  # fmt: skip
                assert (found["GDAL_USAGE"], found["GDAL_USAGE_NAME"]) == (1, "PixelCount")
                assert not found.keys() & {"GDAL_TYPE", "UTC_OFFSET_MINUTES", "PROVENANCE"}
                assert found["COLUMN_ID"] != before["COLUMN_ID"]

    def test_a_replacement_can_be_given_up(self, place):
        url = place.new()
        with make(place.at(url), 4, a=("int32",)) as table:
            table.writeBlock("a", np.arange(4), 0)
            before = place.objects(url)
            table.createColumn("a", "float64", complete=False, replace=True)
            table.writeBlock("a", np.ones(4), 0)
            table.deleteColumn("a")
            assert place.objects(url) == before
            assert table.readBlock("a", 0, 4).tolist() == [0, 1, 2, 3]

    def test_a_replacement_is_gone_on_with(self, place):
        url = place.new()
        with make(place.at(url), 10, a=("int32",)) as table:
            table.writeBlock("a", np.arange(10), 0)
            table.createColumn("a", "float64", complete=False, replace=True)
            table.writeBlock("a", np.ones(4), 0)
        with RatZarr(place.at(url)) as table:
            assert table.readBlock("a", 0, 1).dtype == "int32"
            assert table.resumeColumn("a") is not None
            assert table.getColumnDtype("a") == "float64"
            assert table.getMissingRows("a") == [(4, 10)]
            table.writeBlock("a", np.ones(6), 4)
            table.setComplete("a")
        assert raw(place, url, "a").tolist() == [1.0] * 10

    def test_a_second_replacement_gives_up_the_first(self, place):
        url = place.new()
        with make(place.at(url), 4, a=("int32",)) as table, RatZarr(place.at(url)) as other:
            other.createColumn("a", "float32", complete=False, replace=True)
            other.writeBlock("a", np.zeros(4), 0)
            table.createColumn("a", "float64", complete=False, replace=True)
            table.writeBlock("a", np.ones(4), 0)
            with pytest.raises((ChangedError, ColumnNotFoundError)):
                other.setComplete("a")
            table.setComplete("a")
        assert raw(place, url, "a").tolist() == [1.0] * 4

    def test_a_replacement_of_nothing_is_a_new_column(self, place):
        url = place.new()
        with make(place.at(url), 4, b=("int8",)) as table:
            table.createColumn("a/b", "int8", complete=False, replace=True)
            assert not table.colExists("a/b")
            table.writeBlock("a/b", np.ones(4), 0)
            table.setComplete("a/b")
            assert table.getColumnNames() == ["b", "a/b"]
            assert table.readBlock("a/b", 0, 4).tolist() == [1] * 4

    def test_a_table_resized_meanwhile(self, place):
        url = place.new()
        for rows in 6, 17:
            with make(place.at(url), 10) as table:
                table.createColumn("a", "int32", complete=False, replace=True)
                table.writeBlock("a", np.arange(10), 0)
                # On S3, flush() checks earlier writes: rows cut off before it would be an error.
                table.flush()
                with RatZarr(place.at(url)) as other:
                    other.setRowCount(rows)
                table.setComplete("a")
                table.refresh()
                wanted = [*range(min(rows, 10)), *[0] * (rows - 10)]
                assert table.readBlock("a", 0, rows).tolist() == wanted
            assert raw(place, url, "a").tolist() == wanted
            RatZarr.delete(place.at(url))

    def test_rows_that_another_has_added_are_not_claimed(self, place):
        """``ROWS_DONE`` does not include rows that another instance has added meanwhile."""
        url = place.new()
        with make(place.at(url), 10, chunk=4) as table, RatZarr(place.at(url)) as other:
            table.createColumn("a", "int32", complete=False)
            table.writeBlock("a", np.arange(10), 0)
            other.setRowCount(17)
            table.setComplete("a")
            assert other.readBlock("a", 0, 17).tolist() == [*range(10), *[0] * 7]
        assert document(place, url, "RAT/a")["attributes"]["ROWS_DONE"] == 10

    def test_replacing_is_for_unfinished_columns(self, place):
        with make(place.at(place.new()), 4) as table, refused(place, "complete", table=table):
            table.createColumn("a", "int32", replace=True)

    def test_only_the_columns_own_builder_finishes_it(self, place):
        url = place.new()
        with make(place.at(url), 4) as table, RatZarr(place.at(url)) as other:
            table.createColumn("a", "int32", complete=False)
            table.writeBlock("a", np.arange(4), 0)
            other.deleteColumn("a")
            other.createColumn("a", "int32", complete=False)
            with pytest.raises(RatZarrError):
                table.setComplete("a")
        assert document(place, url, "RAT/a")["attributes"]["COMPLETE"] is False
