"""Rows: blocks at every position, the row count, chunks."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ratzarr import RatZarr
from ratzarr.testing.columns import values_of
from ratzarr.testing.helpers import (
    BYTES,
    STRING,
    assert_same,
    change_document,
    document,
    make,
    raw,
    refused,
)

WRONG_NUMBERS = [-1, 1.5, "3", None, np.nan, 2.0**70, [1], b"1"]


class Rows:
    """Reading returns the written values, and other rows are unchanged."""

    examples = 40
    """Number of random histories compared with a model."""

    @pytest.mark.parametrize("dtype", ["int32", STRING], ids=str)
    def test_reading_every_block(self, place, dtype):
        url = place.new()
        values = values_of(dtype, 11)
        with make(place.at(url), 11, chunk=4, a=(dtype,), w=(dtype, 2)) as table:
            wide = values_of(dtype, 11, 2)
            table.writeBlock("a", values, 0)
            table.writeBlock("w", wide, 0)
            for start in range(12):
                for length in range(14):
                    assert_same(
                        table.readBlock("a", start, length), values[start : start + length]
                    )
            for start, length in [(0, 1), (3, 5), (4, 4), (7, 9), (11, 3), (2, 0)]:
                assert_same(table.readBlock("w", start, length), wide[start : start + length])

    @pytest.mark.parametrize(
        ("dtype", "width"), [("int32", 1), (STRING, 1), ("float32", 2)], ids=str
    )
    def test_writing_every_block(self, place, dtype, width):
        url = place.new()
        rows = 7
        model = values_of(dtype, rows, width)
        with make(place.at(url), rows, chunk=3, a=(dtype, width)) as table:
            table.writeBlock("a", model, 0)
            fresh = 1000
            for start in range(rows + 1):
                for length in range(rows - start + 1):
                    shape = (length,) if width == 1 else (length, width)
                    size = length * width
                    block = np.arange(fresh, fresh + size).reshape(shape).astype(dtype)
                    fresh += size
                    table.writeBlock("a", block, start)
                    model[start : start + length] = block
                    assert_same(table.readBlock("a", 0, rows), model)
        assert_same(np.asarray(raw(place, url, "a")), model)

    def test_the_row_count_is_set_as_an_attribute(self, place):
        url = place.new()
        with make(place.at(url), 3, a=("int32",)) as table:
            table.writeBlock("a", [1, 2, 3], 0)
            table.rowCount = 5
            table.rowCount -= 3
            table.rowCount += 1
            assert (table.rowCount, table.getRowCount()) == (3, 3)
            assert table.readBlock("a", 0, 5).tolist() == [1, 2, 0]
            for wrong in -1, 2.5, None, True:
                with refused(place, "the row count is an integer", table=table):
                    table.rowCount = wrong
        with (
            RatZarr(place.at(url), readOnly=True) as table,
            refused(place, "readOnly", table=table),
        ):
            table.rowCount = 4
        assert raw(place, url, "a").tolist() == [1, 2, 0]

    def test_against_a_model(self, place):
        """Any history of writes, resizes and reopenings gives numpy's result."""
        step = st.one_of(
            st.tuples(st.just("write"), st.integers(0, 13), st.integers(0, 13)),
            st.tuples(st.just("resize"), st.integers(0, 13), st.just(0)),
            st.tuples(st.just("read"), st.integers(0, 13), st.integers(0, 13)),
            st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        )

        @hypothesis.settings(
            max_examples=self.examples, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(st.integers(1, 5), st.lists(step, min_size=3, max_size=12))
        def history(chunk, steps):
            self._play(place, chunk, steps)

        history()

    @staticmethod
    def _play(place, chunk, steps):
        url = place.new()
        table = make(place.at(url), 6, chunk, a=("int32",), s=(STRING,), w=("float32", 2))
        model = {"a": np.zeros(6, "i4"), "s": np.zeros(6, STRING), "w": np.zeros((6, 2), "f4")}
        fresh = 1
        for what, first, second in steps:
            rows = len(model["a"])
            if what == "resize":
                table.setRowCount(first)
                for name, old in model.items():
                    model[name] = np.zeros((first, *old.shape[1:]), old.dtype)
                    model[name][: min(rows, first)] = old[:first]
            elif what == "write":
                start = min(first, rows)
                length = min(second, rows - start)
                block = np.arange(fresh, fresh + length)
                fresh += length
                for name, wide in (
                    ("a", block),
                    ("s", block),
                    ("w", np.stack([block, -block], 1)),
                ):
                    table.writeBlock(name, wide.astype(model[name].dtype), start)
                    model[name][start : start + length] = wide.astype(model[name].dtype)
            elif what == "read":
                start = min(first, rows)
                for name, values in model.items():
                    assert_same(
                        table.readBlock(name, start, second), values[start : start + second]
                    )
            else:
                table.close()
                table = RatZarr(place.at(url))
        table.close()
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.rowCount == len(model["a"])
            for name, values in model.items():
                assert_same(table.readBlock(name, 0, 20), values)
        for name, values in model.items():
            assert_same(np.asarray(raw(place, url, name)), values)

    @pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 8])
    def test_row_counts(self, place, rows):
        url = place.new()
        with make(place.at(url), rows, chunk=4, a=("int16",)) as table:
            assert table.getRowCount() == table.rowCount == rows
            assert isinstance(table.getRowCount(), int)
            block = np.arange(rows, dtype="int16")
            table.writeBlock("a", block, 0)
            assert_same(table.readBlock("a", 0, rows), block)
            assert_same(table.readBlock("a", 0, rows + 3), block)
            assert len(table.readBlock("a", rows, 1)) == 0
        with RatZarr(place.at(url)) as table:
            assert table.getRowCount() == rows
        assert document(place, url, "RAT")["attributes"]["ROWCOUNT"] == rows
        assert document(place, url, "RAT/a")["shape"] == [rows]

    def test_numpy_integers_as_rows(self, place):
        with make(
            place.at(place.new()), np.int64(5), chunk=np.int32(4), a=("int16", np.int8(1))
        ) as table:
            table.writeBlock("a", np.array([7]), np.uint8(3))
            assert table.readBlock("a", np.int64(3), np.int16(1)).tolist() == [7]
            assert table.getRowCount() == 5

    def test_columns_follow_the_row_count(self, place):
        url = place.new()
        with make(place.at(url), 3, a=("int16",), w=("int16", 2)) as table:
            table.setRowCount(6)
            table.createColumn("late", "int16")
            assert len(table.readBlock("a", 0, 10)) == 6
            assert table.readBlock("w", 0, 10).shape == (6, 2)
            assert len(table.readBlock("late", 0, 10)) == 6
        for key, shape in (("a", (6,)), ("w", (6, 2)), ("late", (6,))):
            assert raw(place, url, key).shape == shape

    @pytest.mark.parametrize("cut", [0, 3, 4, 5, 8])
    def test_what_was_cut_off_is_gone(self, place, cut):
        url = place.new()
        columns = {
            "a": ("int32",), "s": (STRING,), "b": (BYTES,), "w": ("int16", 2),
            "d": ("datetime64[s]",),
        }  # fmt: skip
        with make(place.at(url), 10, chunk=4, **columns) as table:
            wanted = table.readBlocks(list(columns), 0, 10)
            full = {
                name: values_of(dtype[0], 12, *dtype[1:])[2:] for name, dtype in columns.items()
            }
            table.writeBlocks(full, 0)
            table.setRowCount(cut)
            table.setRowCount(13)
            table.setRowCount(10)
            for name, values in wanted.items():
                values[:cut] = full[name][:cut]
                assert_same(table.readBlock(name, 0, 10), values)
        with RatZarr(place.at(url), readOnly=True) as table:
            for name, values in table.readBlocks(list(columns), 0, 10).items():
                assert_same(values, wanted[name])
        for name, values in wanted.items():
            assert_same(np.asarray(raw(place, url, name)), values)

    def test_what_was_cut_off_is_no_longer_stored(self, place):
        url = place.new()
        with make(place.at(url), 20, chunk=4, a=("int32",)) as table:
            table.writeBlock("a", np.arange(20), 0)
            table.setRowCount(5)
        # On S3 cut chunks are emptied instead, because objects cannot be deleted conditionally. In
        # both cases, another program that extends the column finds empty rows.
        chunks = sorted(key for key in place.objects(url) if "/c/" in key)
        assert chunks == ["RAT/a/c/0", "RAT/a/c/1"] or place.kind == "s3"
        array = place.edit(url)["RAT/a"]
        array.resize((20,))
        assert array[:].tolist() == [*range(5), *[0] * 15]

    @pytest.mark.parametrize("count", WRONG_NUMBERS, ids=repr)
    def test_row_counts_that_are_none(self, place, count):
        with make(place.at(place.new()), 5, a=("int32",)) as table, refused(place, table=table):
            table.setRowCount(count)

    @pytest.mark.parametrize("start", WRONG_NUMBERS, ids=repr)
    def test_starts_that_are_none(self, place, start):
        with make(place.at(place.new()), 5, column=("int32",)) as table:
            table.writeBlock("column", np.arange(5), 0)
            with refused(place, repr(start), table=table):
                table.readBlock("column", start, 2)
            with refused(place, repr(start), table=table):
                table.writeBlock("column", np.array([9, 9]), start)

    @pytest.mark.parametrize("length", WRONG_NUMBERS, ids=repr)
    def test_lengths_that_are_none(self, place, length):
        with (
            make(place.at(place.new()), 5, column=("int32",)) as table,
            refused(place, repr(length), table=table),
        ):
            table.readBlock("column", 0, length)

    def test_starting_beyond_the_end(self, place):
        url = place.new()
        with make(place.at(url), 5, column=("int32",)) as table:
            with refused(place, url, "6", "5", table=table, error=IndexError):
                table.readBlock("column", 6, 1)
            with refused(place, "6", "5", table=table, error=IndexError):
                table.writeBlock("column", np.array([1]), 6)

    @pytest.mark.parametrize(("start", "length"), [(0, 6), (4, 2), (5, 1), (1, 99)])
    def test_writing_past_the_end(self, place, start, length):
        with make(place.at(place.new()), 5, column=("int32",)) as table:
            with refused(place, "5", str(start), table=table, error=IndexError):
                table.writeBlock("column", np.ones(length, "i4"), start)
            assert not table.readBlock("column", 0, 5).any()

    @pytest.mark.parametrize(
        ("column", "shape"),
        [
            ("one", ()), ("one", (2, 1)), ("one", (2, 2)), ("one", (1, 1, 2)),
            ("two", (2,)), ("two", (4,)), ("two", (2, 1)), ("two", (2, 3)), ("two", (2, 2, 1)),
            ("two", ()), ("two", (0,)),
        ],
    )  # fmt: skip
    def test_blocks_of_another_shape(self, place, column, shape):
        with (
            make(place.at(place.new()), 5, one=("int32",), two=("int32", 2)) as table,
            refused(place, f"'{column}'", table=table),
        ):
            table.writeBlock(column, np.ones(shape, "i4"), 0)

    def test_ragged_blocks(self, place):
        with make(place.at(place.new()), 5, one=("int32",), s=(STRING,)) as table:
            for block in ([1, [2, 3]], {1, 2}, {"a": 1}, None):
                with refused(place, "'one'", table=table, doing=repr(block)):
                    table.writeBlock("one", block, 0)
            with refused(place, "'s'", table=table):
                table.writeBlock("s", "ab", 0)

    def test_chunk_sizes(self, place):
        url = place.new()
        with RatZarr(place.at(url)) as table:
            table.setRowCount(10)
            table.createColumn("before", "int16")
            table.setChunkSize(3)
            assert table.getRATChunkSize() == 3
            table.createColumn("after", "int16", 2)
            assert table.getColumnChunkSize("before") == 500000
            assert table.getColumnChunkSize("after") == 3
        with RatZarr(place.at(url)) as table:
            assert table.getRATChunkSize() == 3
            assert table.getColumnChunkSize("before") == 500000
            assert table.getColumnChunkSize("after") == 3
            table.createColumn("later", "int16")
            table.writeBlock("after", np.ones((10, 2), "i2"), 0)
            assert table.getColumnChunkSize("later") == 3
        assert document(place, url, "RAT")["attributes"]["CHUNKSIZE"] == 3
        chunks = {key for key in place.objects(url) if key.startswith("RAT/after/c/")}
        assert chunks == {f"RAT/after/c/{n}/0" for n in range(4)}

    @pytest.mark.parametrize("size", [*WRONG_NUMBERS, 0], ids=repr)
    def test_chunk_sizes_that_are_none(self, place, size):
        with make(place.at(place.new()), 5, a=("int32",)) as table:
            with refused(place, table=table):
                table.setChunkSize(size)
            assert table.getRATChunkSize() == 4

    def test_without_a_row_count_the_first_column_tells(self, place):
        url = place.new()
        table = place.create(url).create_group("RAT")
        table.create_array("a", shape=7, chunks=4, dtype="i4")[:] = np.arange(7)
        with RatZarr(place.at(url)) as ours:
            assert ours.rowCount == 7
            assert ours.readBlock("a", 0, 9).tolist() == list(range(7))

    def test_a_column_shorter_than_the_table(self, place):
        """A process created the column while another added rows: these read as the fill value."""
        url = place.new()
        group = place.create(url).create_group("RAT", attributes={"ROWCOUNT": 9, "CHUNKSIZE": 4})
        group.create_array("a", shape=6, chunks=4, dtype="i4", fill_value=-7)[:] = np.arange(6)
        # Without this column, another program would have resized all columns, and they would be
        # right.
        group.create_array("b", shape=9, chunks=4, dtype="i4")
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.readBlock("a", 4, 9).tolist() == [4, 5, -7, -7, -7]
        with RatZarr(place.at(url)) as table:
            table.writeBlock("a", np.array([70, 80]), 7)
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.readBlock("a", 0, 9).tolist() == [0, 1, 2, 3, 4, 5, -7, 70, 80]

    def test_a_column_longer_than_the_table(self, place):
        """After an interrupted resize, the rows that were cut off must not come back."""
        url = place.new()
        with make(place.at(url), 10, chunk=4, a=("int32",)) as table:
            table.writeBlock("a", np.arange(1, 11), 0)
        change_document(place, url, "RAT", lambda one: one["attributes"].update(ROWCOUNT=5))
        with RatZarr(place.at(url)) as table:
            assert table.readBlock("a", 0, 10).tolist() == [1, 2, 3, 4, 5]
            table.setRowCount(10)
            assert table.readBlock("a", 0, 10).tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 0, 0]

    def test_a_count_that_a_column_seems_to_have_already(self, place):
        """An instance sets the row count that its outdated metadata already shows."""
        url = place.new()
        with make(place.at(url), 20, a=("int32",), b=("int32",)) as one:
            one.writeBlock("a", np.arange(20), 0)
            one.flush()
            with RatZarr(place.at(url)) as other:
                other.setRowCount(30)
                other.writeBlocks({"a": np.full(10, 7), "b": np.full(10, 7)}, 20)
            one.setRowCount(20)
            assert raw(place, url, "a").tolist() == list(range(20))
            assert raw(place, url, "b").tolist() == [0] * 20
            with RatZarr(place.at(url)) as other:
                other.setRowCount(10)
            one.setRowCount(30)
            assert one.readBlock("a", 0, 30).tolist() == [*range(10), *[0] * 20]
            assert one.readBlock("b", 0, 30).tolist() == [0] * 30
        assert raw(place, url, "a").tolist() == [*range(10), *[0] * 20]

    def test_a_resize_forgets_nothing_that_was_written(self, place):
        with make(place.at(place.new()), 8, a=("int32",)) as one:
            one.writeBlock("a", np.arange(8), 0)
            written = one.bytesWritten("a")
            assert written > 0
            one.setRowCount(12)
            assert one.bytesWritten("a") == written
            one.writeBlock("a", np.arange(4), 8)
            assert len(one.getModificationLog("a")) == 1
