"""Columns: dtypes, widths, fill values, and their descriptions."""

import numpy as np
import pytest
import zarr

from ratzarr import RatZarr
from ratzarr.testing.helpers import BYTES, STRING, assert_same, bits, make, raw, refused

NUMBERS = [
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
]  # fmt: skip
DATES = [f"datetime64[{unit}]" for unit in ("D", "h", "m", "s", "ms", "us", "ns", "10s")]
FIXED = ["S1", "S7", "S200"]
TEXTS = ["", " leading", "trailing ", "é", "\U0001f600", "a\0b", "end\0", "tab\tline\n", "x" * 300,
         "e\u0301", "\u202eright", "NaN", "None", "\uffff", "\x85"]  # fmt: skip
BLOBS = [b"", b"\0", b"\0\0", b"\xff\xfe", b"plain", b"trailing\0", bytes(range(256)), b"x" * 999]
ROWS = 13


def values_of(dtype, count=ROWS, width=1):
    """Return values that a careless conversion would change."""
    shape = (count,) if width == 1 else (count, width)
    size = count * width
    dtype = np.dtype(dtype)
    if dtype == STRING:
        return np.array((TEXTS * size)[:size], dtype=STRING).reshape(shape)
    if dtype == BYTES:
        values = np.empty(size, dtype=object)
        values[:] = (BLOBS * size)[:size]
        return values.reshape(shape)
    if dtype.kind == "b":
        return (np.arange(size) % 3 == 0).reshape(shape)
    if dtype.kind == "S":
        texts = [b"", b"a", b"\xff", b"a\0b", b"z" * dtype.itemsize, b" x "]
        return np.array([text[: dtype.itemsize] for text in texts * size][:size], dtype).reshape(
            shape
        )
    if dtype.kind == "M":
        values = np.array([0, 1, -1, 20000, 987654321] * size, "i8")[:size].view(dtype)
        values[1::7] = "NaT"
        return values.reshape(shape)
    return bits(dtype, size).reshape(shape)


class Columns:
    """Every dtype that a column may have, and no other."""

    @pytest.mark.parametrize("dtype", [*NUMBERS, "bool", STRING, *DATES, *FIXED, BYTES], ids=str)
    def test_every_dtype(self, place, dtype):
        url = place.new()
        dtype = np.dtype(dtype)
        values = {"one": values_of(dtype), "three": values_of(dtype, width=3)}
        widths = {"one": 1, "three": 3}
        with make(place.at(url), ROWS, chunk=7, one=(dtype,), three=(dtype, 3)) as table:
            for name, block in values.items():
                assert table.getColumnDtype(name) == dtype
                assert table.getColumnWidth(name) == widths[name]
                empty = table.readBlock(name, 0, ROWS)
                assert empty.shape == block.shape
                assert empty.dtype == dtype
                table.writeBlock(name, block, 0)
                assert_same(table.readBlock(name, 0, ROWS), block)
        with RatZarr(place.at(url), readOnly=True) as table:
            for name, block in values.items():
                assert table.getColumnDtype(name) == dtype
                assert table.getColumnWidth(name) == widths[name]
                assert_same(table.readBlock(name, 5, 9), block[5:14])
                assert_same(table.readBlock(name, 0, ROWS), block)
        for name, block in values.items():
            assert_same(np.asarray(raw(place, url, name)), block)

    @pytest.mark.parametrize(
        ("dtype", "empty"),
        [
            *((name, 0) for name in NUMBERS),
            ("bool", False),
            (STRING, ""),
            ("S7", b""),
            (BYTES, b""),
            ("datetime64[us]", np.datetime64("NaT", "s")),
            ("datetime64[D]", np.datetime64("NaT", "s")),
        ],
        ids=str,
    )
    def test_empty_rows(self, place, dtype, empty):
        url = place.new()
        with make(place.at(url), 5, column=(dtype,), wide=(dtype, 2)) as table:
            for values in (table.readBlock("column", 0, 5), table.readBlock("wide", 0, 5).ravel()):
                if isinstance(empty, np.datetime64):
                    assert np.isnat(values).all()
                else:
                    assert set(values.tolist()) == {empty}
            if np.dtype(dtype).kind == "f":
                assert not np.signbit(table.readBlock("column", 0, 5)).any()

    @pytest.mark.parametrize("dtype", [str, "U10", "U", np.str_], ids=repr)
    def test_str_makes_a_string_column(self, place, dtype):
        url = place.new()
        with make(place.at(url), 2, name=(dtype,)) as table:
            assert table.getColumnDtype("name") == STRING
            long = "longer than ten characters"
            table.writeBlock("name", np.array(["é", long]), 0)
            assert table.readBlock("name", 0, 2).tolist() == ["é", long]
            assert table.readBlock("name", 0, 2).dtype == STRING

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            (np.int32, "int32"), (np.dtype(np.int32), "int32"), ("i4", "int32"), ("<f8", "float64"),
            (float, "float64"), (bool, "bool"), (np.bool_, "bool"), (int, "int64"),
        ],
        ids=str,
    )  # fmt: skip
    def test_dtypes_as_numpy_takes_them(self, place, dtype, expected):
        with make(place.at(place.new()), 1, a=(dtype,)) as table:
            assert table.getColumnDtype("a") == np.dtype(expected)

    @pytest.mark.parametrize(
        "dtype",
        [
            "complex64", "complex128", "timedelta64[s]", np.longdouble,
            [("a", "i4"), ("b", "f8")], "V8", "(2,)i4", "no such dtype",
        ],
        ids=str,
    )  # fmt: skip
    def test_other_dtypes_are_refused(self, place, dtype):
        with make(place.at(place.new()), 5, a=("int32",)) as table:
            with refused(place, "dtype", table=table):
                table.createColumn("Band mean", dtype)
            assert table.getColumnNames() == ["a"]

    def test_big_endian_values(self, place):
        """Byte order does not affect values."""
        url = place.new()
        with make(place.at(url), 4, a=("int32",), t=("datetime64[s]",)) as table:
            table.writeBlock("a", np.array([1, 2**20, -1, 5], ">i4"), 0)
            table.writeBlock("t", np.array([1, 2, 3, 4], ">i8").view(">M8[s]"), 0)
            assert table.readBlock("a", 0, 4).tolist() == [1, 2**20, -1, 5]
        assert raw(place, url, "a").tolist() == [1, 2**20, -1, 5]
        assert raw(place, url, "t").astype("i8").tolist() == [1, 2, 3, 4]

    def test_blocks_that_are_not_contiguous(self, place):
        url = place.new()
        values = np.arange(60, dtype="i8").reshape(20, 3)
        with make(place.at(url), 10, a=("int64",), w=("int64", 3)) as table:
            table.writeBlock("a", values[::2, 1], 0)
            table.writeBlock("w", np.asfortranarray(values[::-2]), 0)
        assert_same(raw(place, url, "a"), values[::2, 1].copy())
        assert_same(raw(place, url, "w"), values[::-2].copy())

    @pytest.mark.parametrize("dtype", ["int64", "S2", STRING, BYTES, "datetime64[s]"], ids=str)
    def test_blocks_that_can_not_be_written_to(self, place, dtype):
        url = place.new()
        values = values_of(dtype, 10)
        values.flags.writeable = False
        with make(place.at(url), 10, a=(dtype,)) as table:
            table.writeBlock("a", values, 0)
        assert_same(np.asarray(raw(place, url, "a")), values)

    def test_what_was_read_is_the_callers_own(self, place):
        """Changing the returned array, or the written block, does not change the table."""
        url = place.new()
        with make(place.at(url), 8, a=("int32",)) as table:
            block = np.arange(8, dtype="i4")
            table.writeBlock("a", block, 0)
            block[:] = -1
            got = table.readBlock("a", 0, 8)
            got[:] = -2
            got = table.readBlock("a", 0, 3)
            got += 7
            assert table.readBlock("a", 0, 8).tolist() == list(range(8))
        assert raw(place, url, "a").tolist() == list(range(8))

    @pytest.mark.parametrize("dtype", ["float64", "bool", "int16", STRING])
    def test_empty_values_that_are_written_are_there(self, place, dtype):
        """Without permission to list, a missing object cannot be told from a forbidden one."""
        url = place.new()
        with make(place.at(url), 4, a=(dtype,)) as table:
            table.writeBlock("a", np.zeros(4, dtype), 0)
        assert "RAT/a/c/0" in place.objects(url)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_every_bit_of_a_fill_value(self, place, dtype):
        """A fill value keeps every bit, even of signalling NaNs, which float() would change."""
        url = place.new()
        fills = bits(dtype, 9)
        with make(place.at(url), 3, chunk=2) as table:
            for n, fill in enumerate(fills):
                table.createColumn(f"c{n}", dtype, fillValue=fill)
                # A chunk with a single written row, and a chunk that is never written.
                table.writeBlock(f"c{n}", [1], 0)
        with RatZarr(place.at(url)) as table:
            for n in range(len(fills)):
                wanted = fills[[n, n, n]]
                wanted[0] = 1
                assert_same(table.readBlock(f"c{n}", 0, 3), wanted)

    @pytest.mark.parametrize(
        ("dtype", "fill"),
        [
            ("int32", -1), ("uint8", 255), ("float32", 0.5), ("float64", np.inf), ("bool", True),
            (STRING, "n/a é"), ("S4", b"none"), (BYTES, b"\xff\0"),
            ("datetime64[s]", np.datetime64("2020-01-02T03:04:05")), ("int64", np.int8(-3)),
            ("uint64", 2**64 - 1),
        ],
        ids=str,
    )  # fmt: skip
    def test_fill_value(self, place, dtype, fill):
        url = place.new()
        with RatZarr(place.at(url)) as table:
            table.setChunkSize(4)
            table.setRowCount(6)
            table.createColumn("a", dtype, fillValue=fill)
            table.createColumn("w", dtype, 2, fillValue=fill)
            table.writeBlock("a", values_of(dtype, 3), 1)
            table.setRowCount(3)
            table.setRowCount(9)
        with RatZarr(place.at(url), readOnly=True) as table:
            wanted = np.zeros(9, dtype=np.dtype(dtype))
            wanted[:] = fill if np.dtype(dtype) != BYTES else [fill] * 9
            assert_same(table.readBlock("w", 0, 9)[:, 0].copy(), wanted)
            assert_same(table.readBlock("w", 0, 9)[:, 1].copy(), wanted)
            wanted[1:3] = values_of(dtype, 3)[:2]
            assert_same(table.readBlock("a", 0, 9), wanted)
        assert_same(np.asarray(raw(place, url, "a")), wanted)

    def test_nan_as_fill_value(self, place):
        with RatZarr(place.at(place.new())) as table:
            table.setRowCount(3)
            table.createColumn("a", "float32", fillValue=np.nan)
            assert np.isnan(table.readBlock("a", 0, 3)).all()

    @pytest.mark.parametrize(
        ("dtype", "fill"),
        [
            ("uint8", 300), ("uint8", -1), ("int32", 1.5), ("int32", np.nan), ("float32", 0.1),
            ("S2", b"abc"), (STRING, 5), (STRING, b"\xff"), ("int32", "5"), ("bool", 2),
            (BYTES, "text"), ("int32", [1, 2]), ("datetime64[s]", 5), ("int32", 2**40),
        ],
        ids=str,
    )  # fmt: skip
    def test_fill_values_that_do_not_fit(self, place, dtype, fill):
        with make(place.at(place.new()), 3) as table:
            with refused(place, "Band mean", table=table):
                table.createColumn("Band mean", dtype, fillValue=fill)
            assert not table.colExists("Band mean")

    @pytest.mark.parametrize("width", [0, -1, 1.5, "2", None])
    def test_widths_that_are_none(self, place, width):
        with make(place.at(place.new()), 3) as table, refused(place, "width", table=table):
            table.createColumn("Band mean", "int32", width)

    def test_an_existing_name_is_refused(self, place):
        url = place.new()
        with make(place.at(url), 3, a=("int32",)) as table:
            table.writeBlock("a", np.array([1, 2, 3]), 0)
            with refused(place, "'a'", table=table):
                table.createColumn("a", "float64")
            assert table.readBlock("a", 0, 3).tolist() == [1, 2, 3]
        with RatZarr(place.at(url)) as table, refused(place, "'a'", table=table):
            table.createColumn("a", "int32")

    def test_a_name_made_by_another_meanwhile_is_refused(self, place):
        url = place.new()
        with make(place.at(url), 3) as one, RatZarr(place.at(url)) as other:
            one.createColumn("a", "int32")
            one.writeBlock("a", np.array([1, 2, 3]), 0)
            one.flush()
            with refused(place, "'a'"):
                other.createColumn("a", "float64")

    def test_creating_many_columns_at_once(self, place):
        url = place.new()
        with make(place.at(url), 9, first=("int8",)) as table:
            table.createColumns({
                "z": "int32",
                "a/b": {"dtype": "f8", "width": 2, "fillValue": -1, "attributes": {"mine": 1}},
                "%41": str,
                "c": {"dtype": "u1", "chunkSize": 3, "complete": False},
            })  # fmt: skip
            assert table.getColumnNames() == ["first", "z", "a/b", "%41", "c"]
            table.writeBlocks({"z": np.arange(9), "a/b": np.ones((9, 2))}, 0)
            table.createColumns({})
        order = dict(place.open(url)["RAT"].attrs)["COLUMN_ORDER"]
        assert order == ["first", "z", "a/b", "%41", "c"]
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.readBlock("z", 0, 9).tolist() == list(range(9))
            assert table.readBlock("%41", 0, 9).tolist() == [""] * 9
            assert table.getColumnWidth("a/b") == 2
            assert table.getColumnAttributeMapping("a/b")["mine"] == 1
            assert table.getColumnChunkSize("c") == 3
            with refused(place, "'c'", "complete"):
                table.readBlock("c", 0, 1)
            with refused(place, "readOnly", table=table):
                table.createColumns({"d": "int8"})
        assert raw(place, url, "a%2Fb").tolist() == [[1.0, 1.0]] * 9

    @pytest.mark.parametrize(
        ("columns", "fragment"),
        [
            ({"new": "int8", "a": "int8"}, "'a'"),
            ({"new": "int8", "": "int8"}, "empty"),
            ({"new": "int8", "b": "c8"}, "'b'"),
            ({"new": "int8", "b": {"dtype": "u1", "fillValue": 300}}, "300"),
            ({"new": "int8", "b": {"dtype": "u1", "fill": 3}}, "'fill'"),
            ({"new": "int8", "b": {"width": 3}}, "'dtype'"),
            ({"new": "int8", "b": {"dtype": "u1", "chunkSize": 0}}, "chunk size"),
            (["a", "b"], "mapping"),
        ],
    )
    def test_of_many_columns_all_are_created_or_none(self, place, columns, fragment):
        with make(place.at(place.new()), 3, a=("int32",)) as table:
            with refused(place, fragment, table=table):
                table.createColumns(columns)
            assert table.getColumnNames() == ["a"]

    def test_many_columns_created_while_others_change_the_table(self, place):
        url = place.new()
        with make(place.at(url), 3, a=("int32",)) as one, RatZarr(place.at(url)) as other:
            one.setRowCount(7)
            one.createColumn("b", "int8")
            other.createColumns({"c": "int16", "d": "int32"})
            assert other.rowCount == 7
            assert other.getColumnNames() == ["a", "b", "c", "d"]
            with refused(place, "'b'"):
                other.createColumns({"e": "int16", "b": "int32"})
        assert raw(place, url, "c").tolist() == [0] * 7

    def test_an_unknown_column(self, place):
        with make(place.at(place.new()), 3, a=("int32",)) as table:
            assert table.colExists("a") is True
            assert table.colExists("Band mean") is False
            for use in (
                table.openColumn,
                table.deleteColumn,
                table.getColumnWidth,
                table.getColumnDtype,
                table.getColumnChunkSize,
                table.getColumnAttributeMapping,
                table.getModificationLog,
                lambda name: table.readBlock(name, 0, 1),
                lambda name: table.writeBlock(name, np.zeros(1), 0),
                lambda name: table.readBlocks(["a", name], 0, 1),
                lambda name: table.writeBlocks({"a": np.ones(1), name: np.ones(1)}, 0),
            ):
                with refused(place, "Band mean", table=table, error=LookupError):
                    use("Band mean")

    def test_deleting_columns(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",), ab=("int32",), b=(STRING,)) as table:
            table.writeBlock("a", np.arange(9), 0)
            table.writeBlock("ab", np.arange(9), 0)
            table.deleteColumn("a")
            assert table.getColumnNames() == ["ab", "b"]
            assert not table.colExists("a")
            with refused(place, "'a'", table=table):
                table.readBlock("a", 0, 1)
            assert table.readBlock("ab", 0, 9).tolist() == list(range(9))
        assert not [key for key in place.objects(url) if key.startswith("RAT/a/")]
        with RatZarr(place.at(url)) as table:
            assert table.getColumnNames() == ["ab", "b"]
            table.createColumn("a", "float32")
            assert table.getColumnNames() == ["ab", "b", "a"]
            assert not table.readBlock("a", 0, 9).any(), "values of the deleted column are back"

    def test_opening_a_column_by_name(self, place):
        url = place.new()
        make(place.at(url), 3, a=("int32",)).close()
        with RatZarr(place.at(url), readOnly=True) as table:
            table.openColumn("a")
            assert table.readBlock("a", 0, 3).tolist() == [0, 0, 0]

    def test_columns_that_zarr_made(self, place):
        """An array that zarr-python created is a column, if its shape fits, with any codecs."""
        url = place.new()
        root = place.create(url)
        table = root.create_group("RAT", attributes={"ROWCOUNT": 9, "CHUNKSIZE": 4})
        table.create_array("plain", shape=9, chunks=4, dtype="i4", fill_value=3)[2:5] = 8
        table.create_array("wide", shape=(9, 2), chunks=(4, 2), dtype="f4")[:] = 0.5
        table.create_array("packed", shape=9, chunks=5, dtype="u2",
                           compressors=[zarr.codecs.GzipCodec()])[:] = np.arange(9)  # fmt: skip
        table.create_array("big", shape=9, chunks=9, dtype=">i8")[:] = np.arange(9)
        with RatZarr(place.at(url)) as ours:
            assert ours.getColumnNames() == ["big", "packed", "plain", "wide"]
            assert ours.readBlock("plain", 0, 9).tolist() == [3, 3, 8, 8, 8, 3, 3, 3, 3]
            assert ours.getColumnWidth("wide") == 2
            assert ours.getColumnChunkSize("packed") == 5
            assert ours.readBlock("packed", 3, 4).tolist() == [3, 4, 5, 6]
            assert ours.readBlock("big", 0, 9).tolist() == list(range(9))
            ours.writeBlock("packed", np.array([700]), 4)
            ours.writeBlock("big", np.array([2**40]), 8)
        assert raw(place, url, "packed").tolist() == [0, 1, 2, 3, 700, 5, 6, 7, 8]
        assert raw(place, url, "big")[8] == 2**40
