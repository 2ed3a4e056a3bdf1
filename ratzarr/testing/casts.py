"""Values are stored exactly, or refused with an explanation."""

import re

import numpy as np

from ratzarr import RatZarr
from ratzarr.testing.helpers import BYTES, STRING, assert_same, make, message, refused


def objects(*values):
    """Return an object array of these values."""
    block = np.empty(len(values), dtype=object)
    block[:] = values
    return block


def masked(values, mask):
    return np.ma.MaskedArray(values, mask=mask)


UNEQUAL = [
    # Dtype of the column, block, and the text that the message must have for row 2 of the block.
    ("uint8", np.array([1, 2, 300]), "300"),
    ("uint8", np.array([1, 2, -1]), "-1"),
    ("uint8", np.array([1, 2, 256], "u2"), "256"),
    ("int8", np.array([1, 2, 128], "u1"), "128"),
    ("int32", np.array([1, 2, 2**40]), str(2**40)),
    ("int32", np.array([1, 2, 2**31]), str(2**31)),
    ("int32", np.array([1, 2, 2**32 - 1], "u4"), str(2**32 - 1)),
    ("int64", np.array([1, 2, 2**63], "u8"), str(2**63)),
    ("uint64", np.array([1, 2, -1]), "-1"),
    ("uint64", [1, 2**63, 2**64], str(2**64)),
    ("uint64", [2**63, 1, -1], "-1"),
    ("int32", np.array([1, 2, np.nan]), "nan"),
    ("int32", np.array([1, 2, np.inf]), "inf"),
    ("int32", np.array([1, 2, -np.inf]), "-inf"),
    ("int16", np.array([1, 2, 1.5]), "1.5"),
    ("int16", np.array([1, 2, 40000.0]), "40000"),
    ("int64", np.array([1, 2, 2.0**63]), "9.2"),
    ("uint64", np.array([1, 2, 2.0**64]), "1.8"),
    ("uint64", np.array([1, 2, -0.5]), "-0.5"),
    ("int32", np.array([1, 2, 1.5], "f2"), "1.5"),
    ("float64", np.array([1, 2, 2**53 + 1]), str(2**53 + 1)),
    ("float64", np.array([1, 2, 2**64 - 1], "u8"), str(2**64 - 1)),
    ("float32", np.array([1, 2, 2**24 + 1]), str(2**24 + 1)),
    ("float16", np.array([1, 2, 2049]), "2049"),
    ("float32", np.array([1, 2, 0.1]), "0.1"),
    ("float32", np.array([1, 2, 1e300]), "1e+300"),
    ("float32", np.array([1, 2, 1e-300]), "1e-300"),
    ("float16", np.array([1, 2, 70000.0], "f4"), "70000"),
    ("float64", np.array([1, 2, "0.1"], np.longdouble), "0.1"),
    ("bool", np.array([0, 1, 2]), "2"),
    ("bool", np.array([0, 1, 0.5]), "0.5"),
    ("bool", np.array([0, 1, np.nan]), "nan"),
    ("bool", np.array([0, 1, -1]), "-1"),
    (STRING, objects("a", "b", None), "None"),
    (STRING, objects("a", "b", float("nan")), "nan"),
    (STRING, objects("a", "b", b"\xff"), "xff"),
    (STRING, objects("a", "b", 57), "57"),
    (STRING, objects("a", "b", "\ud800"), "ud800"),
    (STRING, np.array([b"a", b"b", b"\xff"]), "xff"),
    (STRING, np.array(["a", "b", None], np.dtypes.StringDType(na_object=None)), "None"),
    ("S3", np.array([b"a", b"b", b"abcd"]), "abcd"),
    ("S3", objects(b"a", b"b", b"abcd"), "abcd"),
    ("S3", objects(b"a", b"b", b"ab\0"), "ab"),
    ("S3", objects(b"a", b"b", None), "None"),
    ("S3", objects(b"a", b"b", 57), "57"),
    (BYTES, objects(b"a", b"b", "text"), "text"),
    (BYTES, objects(b"a", b"b", None), "None"),
    (BYTES, objects(b"a", b"b", 57), "57"),
    ("datetime64[s]", np.array([0, 1000, 1500]).view("M8[ms]"), "1970"),
    ("datetime64[D]", np.array([0, 86400, 86401]).view("M8[s]"), "1970"),
    ("datetime64[ns]", np.array(["2000", "2001", "3000"], "M8[s]"), "3000"),
    ("int32", objects(1, 2, None), "None"),
    ("int32", objects(1, 2, 2**40), str(2**40)),
    ("int32", objects(1, 2, 2**70), str(2**70)),
    ("int32", objects(1, 2, 1.5), "1.5"),
    ("int32", objects(1, 2, "3"), "3"),
    ("float64", objects(1.0, 2.0, None), "None"),
    ("uint8", masked(np.array([1, 2, 3]), [False, False, True]), ""),
    ("float64", masked(np.array([1.0, 2, 3]), [False, False, True]), ""),
    (STRING, masked(np.array(["a", "b", "c"]), [False, False, True]), ""),
]

OTHER_KINDS = [
    ("int32", np.array(["1", "2"])),
    ("int32", np.array([b"1", b"2"])),
    ("int32", np.array(["1", "2"], STRING)),
    ("int32", np.array(["2020", "2021"], "M8[s]")),
    ("int64", np.array([1, 2], "m8[s]")),
    ("float64", np.array([1 + 1j, 2])),
    ("float64", np.array(["1.5", "2"])),
    ("bool", np.array(["True", ""])),
    (STRING, np.array([1, 2])),
    (STRING, np.array([1.5, 2])),
    (STRING, np.array([True, False])),
    (STRING, np.array(["2020", "2021"], "M8[s]")),
    ("S3", np.array([1, 2])),
    (BYTES, np.array([1, 2])),
    (BYTES, np.array(["a", "b"])),
    ("datetime64[s]", np.array([1, 2])),
    ("datetime64[s]", np.array([1.0, 2.0])),
    ("datetime64[s]", np.array([1, 2], "m8[s]")),
    ("datetime64[s]", np.array(["yesterday", "today"])),
]

EQUAL = [
    ("uint8", np.array([0, 255], "i8"), [0, 255]),
    ("int32", np.array([3.0, -(2.0**31)]), [3, -(2**31)]),
    ("int64", np.array([-(2.0**63), 2.0**62]), [-(2**63), 2**62]),
    ("uint64", np.array([2.0**63, 0.0]), [2**63, 0]),
    ("uint64", [2**64 - 1, 1], [2**64 - 1, 1]),
    ("uint64", (0, 2**63 + 1), [0, 2**63 + 1]),
    ("int8", np.array([True, False]), [1, 0]),
    ("float64", np.array([2**53, -(2**53)]), [2.0**53, -(2.0**53)]),
    ("float64", np.array([2**60, 1]), [2.0**60, 1.0]),
    ("float32", np.array([0.5, 1e10]), [0.5, 1e10]),
    ("float32", np.array([np.inf, -np.inf]), [np.inf, -np.inf]),
    ("float64", np.array([0.1, 1.5], "f4"), [float(np.float32(0.1)), 1.5]),
    ("float16", np.array([2048, 0.25]), [2048.0, 0.25]),
    (STRING, np.array(["é", ""]), ["é", ""]),
    (STRING, ["é", ""], ["é", ""]),
    (STRING, objects("é", "a\0"), ["é", "a\0"]),
    (STRING, np.array(["é".encode(), b""]), ["é", ""]),
    ("S3", np.array([b"abc", b""], "S9"), [b"abc", b""]),
    ("S3", objects(b"a\0c", b""), [b"a\0c", b""]),
    (BYTES, np.array([b"abc", b""]), [b"abc", b""]),
    ("datetime64[us]", np.array(["2020-01-02", "NaT"], "M8[D]"), None),
    ("datetime64[s]", np.array([1000, -5000]).view("M8[ms]"), None),
    ("int32", [1, 2], [1, 2]),
    ("float64", [0.1, 2], [0.1, 2.0]),
    ("float64", masked(np.array([1.0, 2]), False), [1.0, 2.0]),
]


class Casts:
    """A value is stored exactly; otherwise nothing is stored, and the error names it."""

    def _columns(self, place, rows, cases):
        """Return a table with a column for each dtype, and their names by dtype."""
        names = {case[0]: f"Band {case[0]}" for case in cases}
        url = place.new()
        table = make(
            place.at(url), rows, chunk=50, **{name: (dtype,) for dtype, name in names.items()}
        )
        return url, table, names

    def test_unequal_values(self, place, subtests):
        _, table, names = self._columns(place, 130, UNEQUAL)
        untouched = place.everything()
        with table:
            for dtype, block, shown in UNEQUAL:
                name = names[dtype]
                with subtests.test(dtype=str(dtype), block=repr(block)):
                    before = table.readBlock(name, 0, 130)
                    with refused(place, repr(name), shown, look=False) as caught:
                        table.writeBlock(name, block, 121)
                    # The row of the table, 121 + 2, not that of the block.
                    assert re.search(r"\b123\b", message(caught.value)), message(caught.value)
                    assert_same(table.readBlock(name, 0, 130), before)
                    assert table.getModificationLog(name) == []
        assert place.everything() == untouched

    def test_unequal_values_in_a_wide_column(self, place):
        block = np.ones((5, 3))
        block[3, 1] = 2.5
        with make(place.at(place.new()), 130, wide=("int16", 3)) as table:
            with refused(place, "'wide'", "2.5", table=table) as caught:
                table.writeBlock("wide", block, 120)
            assert re.search(r"\b123\b", message(caught.value))

    def test_the_first_of_many_unequal_values(self, place):
        with make(place.at(place.new()), 9000, chunk=1000, a=("uint8",)) as table:
            block = np.full(5000, 300)
            block[:4000] = 0
            with refused(place, "'a'", "300", table=table) as caught:
                table.writeBlock("a", block, 234)
            assert re.search(r"\b4234\b", message(caught.value))
            assert len(message(caught.value)) < 500

    def test_other_kinds_of_values(self, place, subtests):
        _, table, names = self._columns(place, 5, OTHER_KINDS)
        untouched = place.everything()
        with table:
            for dtype, block in OTHER_KINDS:
                name = names[dtype]
                with subtests.test(dtype=str(dtype), block=repr(block)):
                    before = table.readBlock(name, 0, 5)
                    with refused(place, repr(name), look=False):
                        table.writeBlock(name, block, 2)
                    assert_same(table.readBlock(name, 0, 5), before)
        assert place.everything() == untouched

    def test_equal_values(self, place, subtests):
        url, table, names = self._columns(place, 2 * len(EQUAL), EQUAL)
        with table:
            for number, (dtype, block, _) in enumerate(EQUAL):
                with subtests.test(dtype=str(dtype), block=repr(block)):
                    table.writeBlock(names[dtype], block, 2 * number)
        with RatZarr(place.at(url), readOnly=True) as table:
            for number, (dtype, block, expected) in enumerate(EQUAL):
                with subtests.test(dtype=str(dtype), block=repr(block)):
                    got = table.readBlock(names[dtype], 2 * number, 2)
                    if expected is None:
                        assert_same(got, block.astype(dtype))
                    else:
                        assert got.tolist() == expected

    def test_one_wrong_column_of_many(self, place):
        """Writing several columns at once changes all of them or none."""
        with make(
            place.at(place.new()), 130, chunk=10, a=("int16",), b=("uint8",), c=("int16",)
        ) as table:
            blocks = {"a": np.ones(5), "b": np.array([1, 2, 3, 300, 5]), "c": np.ones(5)}
            with refused(place, "'b'", "300", table=table) as caught:
                table.writeBlocks(blocks, 120)
            assert re.search(r"\b123\b", message(caught.value))
            for name in "abc":
                assert not table.readBlock(name, 0, 130).any()
                assert table.getModificationLog(name) == []
            blocks["b"] = np.ones(4)
            del blocks["a"]
            blocks["a"] = np.ones((5, 2))
            with refused(place, "'a'", table=table):
                table.writeBlocks(blocks, 120)
            with refused(place, table=table):
                table.writeBlocks({"a": np.ones(5), "c": np.ones(11)}, 120)
