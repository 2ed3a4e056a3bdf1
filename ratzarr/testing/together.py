"""Several instances of one table: one changes it while another still has the old metadata."""

import json

import numpy as np
import pytest

from ratzarr import (
    ChangedError,
    ColumnNotFoundError,
    RatZarr,
    RowRangeError,
    UnequalValueError,
)
from ratzarr.testing.helpers import assert_same, document, make, raw


class Together:
    """Changes by another instance, in orders that :mod:`tests.ratzarr.statemachine` has found."""

    def test_rows_cut_off_before_the_column_was_opened(self, place):
        """A block for rows that another instance has cut off is an error, not silently lost."""
        url = place.new()
        with make(place.at(url), 20, chunk=4, a=("int32",)) as table:
            instances = [RatZarr(place.at(url)) for _ in range(3)]
            table.setRowCount(5)
            before = place.everything()
            for late, rows in zip(
                instances, (range(4, 12), range(8, 12), range(17, 20)), strict=True
            ):
                with pytest.raises(ChangedError, match="cut to 5 rows"):
                    late.writeBlock("a", np.arange(len(rows)), rows[0])
            after = place.everything()
            assert {key for key in after if "/c/" in key} == {
                key for key in before if "/c/" in key
            }
            table.refresh()
            assert_same(table.readBlock("a", 0, 20), np.zeros(5, np.int32))

    @pytest.mark.parametrize("opened", [True, False])
    def test_rows_cut_off_before_the_column_was_read(self, place, opened):
        """Rows that another instance has cut off are not read as empty ones."""
        url = place.new()
        with (
            make(place.at(url), 20, chunk=4, a=("int32",), s=(str,)) as table,
            RatZarr(place.at(url)) as late,
        ):
            table.writeBlock("a", np.arange(1, 21), 0)
            if opened:
                late.readBlocks(["a", "s"], 0, 20)
            assert late.rowCount == 20
            table.setRowCount(5)
            if opened:
                late.getColumnAttributeMapping("a")["unit"] = "m"
            assert_same(late.readBlock("a", 2, 20), np.arange(3, 6, dtype=np.int32))
            assert late.rowCount == 5
            with pytest.raises(RowRangeError, match="5 rows"):
                late.readBlock("s", 6, 1)

    def test_rows_cut_off_and_added_again_are_not_damaged(self, place):
        url = place.new()
        with make(place.at(url), 15, chunk=2) as table, RatZarr(place.at(url)) as late:
            table["a"] = np.arange(15)
            late.readBlock("a", 0, 15)
            table.setRowCount(7)
            table.setRowCount(10)
            assert late.readBlock("a", 0, 10).tolist() == [*range(7), 0, 0, 0]

    def test_a_table_that_only_grows(self, place):
        url = place.new()
        with (
            make(place.at(url), 4, chunk=4, a=("int32",)) as table,
            RatZarr(place.at(url)) as late,
        ):
            table.writeBlock("a", np.arange(4), 0)
            table.setRowCount(9)
            table.writeBlock("a", np.arange(5), 4)
            late.setRowCount(6, growOnly=True)
            assert late.rowCount == 9
            late.setRowCount(9, growOnly=True)
            wanted = np.array([*range(4), *range(5)], np.int32)
            assert_same(late.readBlock("a", 0, 20), wanted)
            table.setRowCount(2)
            late.setRowCount(9, growOnly=True)
            wanted[2:] = 0
            assert_same(late.readBlock("a", 0, 20), wanted)
            table.refresh()
            assert_same(table.readBlock("a", 0, 20), wanted)

    @pytest.mark.parametrize("rows", [2, 6, 11])
    def test_a_table_that_only_grows_after_zarr_has_added_rows(self, place, rows):
        """As the existing module does, without a change of ROWCOUNT."""
        url = place.new()
        make(place.at(url), 4, chunk=4, a=("int32",)).close()
        array = place.edit(url)["RAT/a"]
        array.resize((9,))
        array[:] = np.arange(9)
        with RatZarr(place.at(url)) as table:
            table.setRowCount(rows, growOnly=True)
            wanted = np.array([*range(9), 0, 0], np.int32)[: max(rows, 9)]
            assert table.rowCount == len(wanted)
            assert_same(table.readBlock("a", 0, 20), wanted)

    def test_buffered_rows_of_a_chunk_that_another_instance_makes_longer(self, place):
        url = place.new()
        with (
            make(place.at(url), 4, chunk=20, a=("int32",)) as table,
            RatZarr(place.at(url), writeBuffer=True) as late,
        ):
            late.writeBlock("a", [7], 2)
            table.setRowCount(9)
            late.setRowCount(6, growOnly=True)
            late.writeBlock("a", [8], 3)
            wanted = np.array([0, 0, 7, 8, *[0] * 5], np.int32)
            assert_same(late.readBlock("a", 0, 20), wanted)

    def test_a_write_to_a_deleted_column_is_told_after_a_read_has_failed(self, place):
        """On S3, where a whole chunk is written without a look at its column."""
        url = place.new()
        with make(place.at(url), 4, chunk=4, a=("int32",)) as table:
            late = RatZarr(place.at(url))
            late.writeBlock("a", np.arange(4), 0)
            table.deleteColumn("a")
            with pytest.raises(ColumnNotFoundError):
                late.readBlock("a", 0, 4)
            if place.kind == "s3":
                with pytest.raises(ColumnNotFoundError):
                    late.flush()
            late.close()

    def test_an_attribute_that_was_set_since_is_removed(self, place):
        url = place.new()
        with make(place.at(url), 1, a=("int32",)) as table, RatZarr(place.at(url)) as late:
            mappings = [late.getRatAttributeMapping(), late.getColumnAttributeMapping("a")]
            table.getRatAttributeMapping()["unit"] = "m"
            table.getColumnAttributeMapping("a")["unit"] = "m"
            for mapping in mappings:
                del mapping["unit"]
                assert "unit" not in mapping
                with pytest.raises(KeyError):
                    del mapping["unit"]
            assert "unit" not in dict(place.open(url)["RAT"].attrs)
            assert "unit" not in dict(place.open(url)["RAT/a"].attrs)

    @pytest.mark.parametrize("value", [2**62, -(2**62)])
    def test_date_times_beyond_every_calendar(self, place, value):
        """numpy has such date-times, but no text for them."""
        url = place.new()
        fill = np.array(value).view("M8[2W]")[()]
        with make(place.at(url), 3) as table:
            table.createColumn("a", "M8[2W]", fillValue=fill)
            table.createColumn("b", "M8[s]")
            with pytest.raises(ValueError, match=rf"{value} \* datetime64\[2W\]"):
                table.writeBlock("b", np.array([fill]), 0)
        with RatZarr(place.at(url)) as table:
            assert_same(table.readBlock("a", 0, 3), np.full(3, fill))
            table.writeBlock("a", table.readBlock("a", 0, 2), 1)

    @pytest.mark.parametrize(
        ("block", "width"),
        [([0.5, 1.5, 2.5], 1), ([[1, 2]] * 3, 2), (["a", "b", "c"], 1), ([300, 1, 2], 1)],
        ids=["value", "shape", "type", "range"],
    )
    def test_a_block_for_the_column_that_was_created_anew(self, place, block, width):
        """The error says that the column was replaced, whatever the two columns' dtypes are."""
        url = place.new()
        block = np.array(block, "T" if isinstance(block[0], str) else None)
        with (
            make(place.at(url), 3, a=("int8",), b=("int8",)) as table,
            RatZarr(place.at(url)) as late,
        ):
            for name in "ab":
                late.readBlock(name, 0, 3)
            table.deleteColumn("a")
            table.createColumn("a", block.dtype, width)
            with pytest.raises(ChangedError, match="'a' was deleted and created anew"):
                late.writeBlocks({"b": [1, 2, 3], "a": block}, 0)
            assert_same(table.readBlock("b", 0, 3), np.zeros(3, np.int8))
            # The instance has been informed, so the name now means the new column.
            late.writeBlock("a", block, 0)
            assert_same(table.readBlock("a", 0, 3), block)

    def test_a_block_for_a_column_that_is_gone(self, place):
        url = place.new()
        with make(place.at(url), 3, a=("int8",)) as table, RatZarr(place.at(url)) as late:
            late.readBlock("a", 0, 3)
            with pytest.raises(UnequalValueError, match="300 does not fit int8"):
                late.writeBlock("a", [300], 0)
            table.deleteColumn("a")
            with pytest.raises(ColumnNotFoundError, match="'a'"):
                late.writeBlock("a", [300], 0)

    @pytest.mark.parametrize("widths", [(1, 2), (2, 1)])
    def test_a_column_created_anew_in_another_width(self, place, widths):
        """On disk, a chunk of one column is a directory where the other column has a file."""
        url = place.new()
        blocks = [np.arange(3 * n, dtype=np.int8).reshape((3, n) if n > 1 else 3) for n in widths]
        with (
            make(place.at(url), 3, a=("int8", widths[0])) as table,
            RatZarr(place.at(url)) as late,
        ):
            late.writeBlock("a", blocks[0], 0)
            table.deleteColumn("a")
            table.createColumn("a", "int8", widths[1])
            table.writeBlock("a", blocks[1], 0)

            def write():
                late.writeBlock("a", blocks[0][:2], 1)
                late.flush()

            with pytest.raises(ChangedError, match="created anew"):
                write()
            assert_same(late.readBlock("a", 0, 3), blocks[1])
            assert_same(table.readBlock("a", 0, 3), blocks[1])

    @pytest.mark.parametrize("widths", [(1, 2), (2, 1)])
    def test_a_column_read_in_another_width(self, place, widths):
        url = place.new()
        blocks = [np.arange(3 * n, dtype=np.int8).reshape((3, n) if n > 1 else 3) for n in widths]
        with (
            make(place.at(url), 3, a=("int8", widths[0])) as table,
            RatZarr(place.at(url)) as late,
        ):
            table.writeBlock("a", blocks[0], 0)
            assert_same(late.readBlock("a", 0, 3), blocks[0])
            table.deleteColumn("a")
            table.createColumn("a", "int8", widths[1])
            table.writeBlock("a", blocks[1], 0)
            assert_same(late.readBlock("a", 0, 3), blocks[1])


class BeingBuilt:
    """Replacement columns, in a table that changes meanwhile."""

    def test_it_has_the_rows_that_the_table_has(self, place):
        """A replacement column has all rows of the table, even those its creator did not know."""
        url = place.new()
        with make(place.at(url), 0, a=("int32",)) as table, RatZarr(place.at(url)) as late:
            table.setRowCount(6)
            late.createColumn("a", "int64", complete=False, replace=True)
            assert late.rowCount == 6
            assert late.getMissingRows("a") == [(0, 6)]

    def test_rows_that_were_added_are_missing(self, place):
        """After refresh(), rows that another instance has added count as missing."""
        url = place.new()
        with (
            make(place.at(url), 2, chunk=2, a=("int32",)) as table,
            RatZarr(place.at(url)) as builder,
        ):
            builder.createColumn("a", "int64", complete=False, replace=True)
            builder.writeBlock("a", [1, 2], 0)
            table.setRowCount(7)
            assert builder.getMissingRows("a") == []
            builder.refresh()
            assert builder.getMissingRows("a") == [(2, 7)]
            table.setRowCount(5)
            assert builder.getMissingRows("a") == [(2, 5)]

    @pytest.mark.parametrize("replace", [True, False])
    @pytest.mark.parametrize("counts", [(17,), (6, 17)], ids=str)
    def test_rows_that_its_builder_does_not_know_of_are_empty(self, place, counts, replace):
        """Rows that were added unnoticed read as empty, and do not prevent completion."""
        url = place.new()
        with make(place.at(url), 10, chunk=2) as table, RatZarr(place.at(url)) as builder:
            builder.createColumn("a", "int32", complete=False, replace=replace)
            builder.writeBlock("a", np.arange(10), 0)
            builder.flush()
            for rows in counts:
                table.setRowCount(rows)
            builder.setComplete("a")
            wanted = np.zeros(17, np.int32)
            wanted[: min(10, *counts)] = np.arange(min(10, *counts))
            with RatZarr(place.at(url)) as fresh:
                assert_same(fresh.readBlock("a", 0, 17), wanted)
            assert_same(np.asarray(raw(place, url, "a")), wanted)

    def test_its_builder_is_told_of_rows_that_were_cut_off(self, place):
        """On S3, where a write does not read the column's document, ``setComplete`` reports it.

        It does so once; then the column is completed with the rows that are left.
        """
        url = place.new()
        with (
            make(place.at(url), 8, chunk=4, a=("int32",)) as table,
            RatZarr(place.at(url)) as builder,
        ):
            builder.createColumn("a", "int64", complete=False, replace=True)
            builder.writeBlock("a", np.arange(8), 0)
            table.setRowCount(6)
            if place.kind == "s3":
                with pytest.raises(ChangedError, match="cut to 6 rows"):
                    builder.setComplete("a")
                assert table.getColumnDtype("a") == np.int32
            builder.setComplete("a")
            with RatZarr(place.at(url)) as fresh:
                assert_same(fresh.readBlock("a", 0, 8), np.arange(6))

    @pytest.mark.parametrize("own", [True, False])
    def test_its_rows_that_are_cut_off_are_gone(self, place, own):
        url = place.new()
        with (
            make(place.at(url), 8, chunk=4, a=("int32",)) as table,
            RatZarr(place.at(url)) as builder,
        ):
            builder.createColumn("a", "int64", complete=False, replace=True)
            builder.writeBlock("a", np.arange(8), 0)
            builder.flush()
            for rows in (3, 8):
                (builder if own else table).setRowCount(rows)
            if not own:
                builder.refresh()
            there = np.array([0, 1, 2, 0, 0, 0, 0, 0])
            assert_same(builder.readBlock("a", 0, 8), there)
            builder.writeBlock("a", np.arange(4), 4)
            builder.setComplete("a")
            there[4:] = np.arange(4)
            assert_same(builder.readBlock("a", 0, 8), there)
            assert_same(np.asarray(raw(place, url, "a")), there)

    def test_the_columns_keep_their_order(self, place):
        """A column keeps its place, even if the instance that completes it has not seen it yet."""
        url = place.new()
        with make(place.at(url), 2) as table, RatZarr(place.at(url)) as late:
            for name in "bac":
                table.createColumn(name, "int8", complete=name != "b")
            assert late.resumeColumn("b") is not None
            assert table.getColumnNames() == list("bac")
            assert place.open(url)["RAT"].attrs["COLUMN_ORDER"] == list("bac")
            with RatZarr(place.at(url), create=False) as other:
                table.deleteColumn("c")
                table.createColumn("d", "int8")
                other.createColumn("d", "int16", complete=False, replace=True)
                table.createColumn("e", "int8")
                other.writeBlock("d", [1, 2], 0)
                other.setComplete("d")
            assert table.getColumnNames() == list("bade")

    def test_the_place_of_a_column_that_is_gone(self, place):
        """The replacement of a column that was deleted meanwhile comes last in the order."""
        url = place.new()
        with make(place.at(url), 2, a=("int8",)) as table, RatZarr(place.at(url)) as builder:
            builder.createColumn("a", "int16", complete=False, replace=True)
            builder.writeBlock("a", [1, 2], 0)
            table.deleteColumn("a")
            builder.setComplete("a")
            table.createColumn("B", "int8")
            assert place.open(url)["RAT"].attrs["COLUMN_ORDER"] == ["a", "B"]
            assert table.getColumnNames() == ["a", "B"]

    def test_the_place_of_a_column_that_is_resumed(self, place):
        """Resuming a column adds its name to the order, if its creator was killed before that."""
        url = place.new()
        with make(place.at(url), 2) as table:
            table.createColumn("a", "int8", complete=False)
            with RatZarr(place.at(url)) as late:
                kept = document(place, url, "RAT")
                kept["attributes"]["COLUMN_ORDER"] = []
                place.put(url, "RAT/zarr.json", json.dumps(kept).encode())
                assert late.resumeColumn("a") is not None
            assert place.open(url)["RAT"].attrs["COLUMN_ORDER"] == ["a"]

    def test_one_event_whatever_is_begun_and_given_up(self, place):
        """Each column logs an instance's first write, even if another had its name before."""
        url = place.new()
        with make(place.at(url), 2, a=("int32",)) as table:
            table.writeBlock("a", [1, 2], 0)
            table.createColumn("a", "int64", complete=False, replace=True)
            table.writeBlock("a", [3, 4], 0)
            assert table.resumeColumn("a") is not None
            table.writeBlock("a", [5, 6], 0)
            assert len(table.getModificationLog("a")) == 1
            table.deleteColumn("a")
            table.writeBlock("a", [7], 1)
            assert_same(table.readBlock("a", 0, 2), np.array([1, 7], np.int32))
            assert len(table.getModificationLog("a")) == 1
            table.deleteColumn("a")
            table.createColumn("a", "int32")
            table.writeBlock("a", [8], 0)
            assert len(table.getModificationLog("a")) == 1
