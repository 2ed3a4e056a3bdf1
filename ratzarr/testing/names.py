"""Column names: any non-empty text is valid, stays inside the table, and has its own key."""

import hashlib
import json
import unicodedata

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.testing.helpers import STRING, document, make, raw, refused

PLAIN = [
    "Histogram", "NDVI mean", "100%", "%", "%zz", "% 41", "größe", "a b", " both ends ", "a.b",
    "a..", "c", "RAT", "CON", "x:y", "*", "?", "[ab]", "a&b=c", "a+b", "#1", "<b>", '"quoted"',
    "it's", "$HOME", "`ls`", ";", "|", "~", "-rf", "表", "\U0001f600", "\u05d0\u05d1", "\u202eabc",
    "\u200d", "\ufeffbom", "_", "_x", "x" * 200, "é" * 100, "%4", "%-41", "NaN", "None", "0", "-1",
    "\u2028", "a\u00a0b", "Zarr.json", "zarr.json ", "@", "a,b", "{x}", "^", "\U000e0001",
]  # fmt: skip
CODED = {
    "/": "%2F", "\\": "%5C", ".": "%2E", "..": "%2E.", "...": "%2E..", ".x": "%2Ex",
    "zarr.json": "%7Aarr.json", "a/b": "a%2Fb", "a%2Fb": "a%252Fb", "%41": "%2541",
    "%7Aarr.json": "%257Aarr.json", "%~": "%25%7E", "../../evil": "%2E.%2F..%2Fevil",
    "/etc/passwd": "%2Fetc%2Fpasswd", "a\\b": "a%5Cb", "a\0b": "a%00b", "\0": "%00",
    "line\nbreak": "line%0Abreak", "\t": "%09", "\x7f": "%7F", "\x85": "%C2%85",
    "\uffff": "%EF%BF%BF", "\ufffe": "%EF%BF%BE", "e\u0301": "e%CC%81", "\u212b": "%E2%84%AB",
    "__x": "%5F_x", "__init__": "%5F_init__", "a//b": "a%2F%2Fb", "a/": "a%2F", "./a": "%2E%2Fa",
    "é/": "%C3%A9%2F", "_/": "%5F%2F", "%2e": "%252e", "c/0": "c%2F0", "*/": "%2A%2F",
}  # fmt: skip
LONG = ["x" * 201, "x" * 300, "x" * 299 + "y", "é" * 101, "/" * 67, "/" * 300, "." + "y" * 400,
        "\U0001f600" * 60, "x" * 60000]  # fmt: skip


def key_of(name):
    """Return the key of a name, following the format's description."""
    if name in CODED:
        return CODED[name]
    data = name.encode()
    if name in PLAIN:
        return name
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,()=+"
    key = "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in data)
    if key == name or key[0] in "._":
        key = f"%{data[0]:02X}{key[1:]}"
    if len(key) > 200:
        key = f"{key[:120]}%~{hashlib.sha256(data).hexdigest()[:40]}"
    return key


NAMES = [*PLAIN, *CODED, *LONG]


class Names:
    """Column names are stored and returned unchanged, whatever characters they contain."""

    def test_the_list_holds_what_it_should(self):
        assert len(set(NAMES)) == len(NAMES) >= 90
        assert all(unicodedata.is_normalized("NFC", name) for name in PLAIN)

    def test_odd_names(self, place):
        """One table has all the names; two names with the same key would make it fail."""
        url = place.new()
        with make(place.at(url), 2, chunk=2) as table:
            beside = {key for key in place.everything() if "zarr.json" not in key}
            assert not any(map(table.colExists, NAMES))
            table.createColumns({name: {"dtype": np.int32} for name in NAMES})
            table.writeBlocks({name: np.array([n, -n]) for n, name in enumerate(NAMES)}, 0)
            assert table.getColumnNames() == NAMES
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.getColumnNames() == NAMES
            assert all(map(table.colExists, NAMES))
            found = table.readBlocks(NAMES, 0, 2)
            for number, name in enumerate(NAMES):
                assert found[name].tolist() == [number, -number], name
        stored = place.objects(url)
        keys = [key_of(name) for name in NAMES]
        assert len(set(keys)) == len(NAMES)
        wanted = {f"RAT/{key}/{part}" for key in keys for part in ("zarr.json", "c/0")}
        assert set(stored) == wanted | {"zarr.json", "RAT/zarr.json"}
        for key, name in zip(keys, NAMES, strict=True):
            attributes = json.loads(stored[f"RAT/{key}/zarr.json"])["attributes"]
            assert attributes.get("NAME", key) == name
            assert ("NAME" in attributes) == (key != name)
        everything = place.everything()
        outside = [key for key, content in everything.items() if content is not None]
        assert len(outside) == len(stored), "something was written beside the store"
        assert beside <= set(everything)

    def test_deleting_odd_names(self, place):
        url = place.new()
        some = ["a/b", "..", "x" * 300, "e\u0301", "\u00e9", "100%", "zarr.json", "\0", "a%2Fb"]
        with make(place.at(url), 2) as table:
            table.createColumn("stays", STRING)
            before = set(place.objects(url))
            for name in some:
                table.createColumn(name, "int8")
            for name in some:
                table.deleteColumn(name)
                assert not table.colExists(name)
            assert table.getColumnNames() == ["stays"]
            assert set(place.objects(url)) == before

    def test_normal_forms_are_different_names(self, place):
        columns = {"\u00e9": ("int8",), "e\u0301": ("int16",)}
        with make(place.at(place.new()), 1, **columns) as table:
            assert table.getColumnNames() == ["\u00e9", "e\u0301"]
            assert table.getColumnDtype("\u00e9") == np.int8
            assert table.getColumnDtype("e\u0301") == np.int16

    def test_case_makes_different_names(self, place):
        with make(place.at(place.new()), 1, a=("int8",), A=("int16",)) as table:
            assert table.getColumnNames() == ["a", "A"]
            assert table.getColumnDtype("A") == np.int16

    @pytest.mark.parametrize("name", ["", "\ud800", "a\udfffb", None, 5, b"a", ("a",)], ids=ascii)
    def test_what_is_no_name(self, place, name):
        with make(place.at(place.new()), 1) as table, refused(place, table=table):
            table.createColumn(name, "int8")

    def test_percent_signs_of_upstream(self, place):
        """A column that upstream wrote as ``b1%2Fb2`` keeps this name; it is not decoded."""
        url = place.new()
        group = place.create(url).create_group("RAT", attributes={"ROWCOUNT": 3, "CHUNKSIZE": 4})
        for number, key in enumerate(["b1%2Fb2", "%7Aarr.json", "%~x", "100%"]):
            group.create_array(key, shape=3, chunks=4, dtype="i4")[:] = number
        names = ["%7Aarr.json", "%~x", "100%", "b1%2Fb2"]
        with RatZarr(place.at(url)) as table:
            assert table.getColumnNames() == names
            assert table.readBlock("b1%2Fb2", 0, 3).tolist() == [0, 0, 0]
            assert table.readBlock("%7Aarr.json", 0, 3).tolist() == [1, 1, 1]
            assert not table.colExists("b1/b2")
            assert not table.colExists("zarr.json")
            for name in names:
                with refused(place, table=table):
                    table.createColumn(name, "float64")
            table.writeBlock("b1%2Fb2", np.array([7]), 1)
            assert table.readBlock("b1%2Fb2", 0, 3).tolist() == [0, 7, 0]
        assert raw(place, url, "b1%2Fb2").tolist() == [0, 7, 0]

    def test_a_key_of_upstream_is_not_taken(self, place):
        """Creating `b1/b2` is refused: its key would be the one of upstream's column `b1%2Fb2`."""
        url = place.new()
        group = place.create(url).create_group("RAT", attributes={"ROWCOUNT": 3, "CHUNKSIZE": 4})
        group.create_array("b1%2Fb2", shape=3, chunks=4, dtype="i4")[:] = 5
        with RatZarr(place.at(url)) as table:
            with refused(place, "b1/b2", table=table):
                table.createColumn("b1/b2", "int32")
            assert table.getColumnNames() == ["b1%2Fb2"]
            assert table.readBlock("b1%2Fb2", 0, 3).tolist() == [5, 5, 5]

    def test_a_name_that_lies(self, place):
        """A NAME whose key is not the column's is ignored, so two columns cannot have one name."""
        url = place.new()
        group = place.create(url).create_group("RAT", attributes={"ROWCOUNT": 3, "CHUNKSIZE": 4})
        group.create_array("a", shape=3, chunks=4, dtype="i4")[:] = 1
        group.create_array("b", shape=3, chunks=4, dtype="i4", attributes={"NAME": "a"})[:] = 2
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.getColumnNames() == ["a", "b"]
            assert table.readBlock("a", 0, 3).tolist() == [1, 1, 1]
            assert table.readBlock("b", 0, 3).tolist() == [2, 2, 2]

    def test_order_of_creation(self, place):
        url = place.new()
        names = ["z", "a", "m/n", "B", "b"]
        with make(place.at(url), 1, **dict.fromkeys(names, ("int8",))) as table:
            assert table.getColumnNames() == names
        with RatZarr(place.at(url)) as table:
            table.createColumn("A", "int8")
            table.deleteColumn("a")
            table.createColumn("a", "int8")
            assert table.getColumnNames() == ["z", "m/n", "B", "b", "A", "a"]
        assert RatZarr(place.at(url), readOnly=True).getColumnNames() == [
            "z",
            "m/n",
            "B",
            "b",
            "A",
            "a",
        ]
        order = document(place, url, "RAT")["attributes"]["COLUMN_ORDER"]
        assert order == ["z", "m/n", "B", "b", "A", "a"]

    def test_the_listing_is_the_truth(self, place):
        url = place.new()
        make(place.at(url), 3, z=("int8",), a=("int8",)).close()
        group = place.edit(url)["RAT"]
        group.create_array("y", shape=3, chunks=4, dtype="i4")
        group.create_array("b", shape=3, chunks=4, dtype="i4")
        group.attrs["COLUMN_ORDER"] = ["z", "gone", "a"]
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.getColumnNames() == ["z", "a", "b", "y"]
            assert not table.colExists("gone")
            assert table.colExists("y")
            with refused(place, "gone", error=LookupError):
                table.readBlock("gone", 0, 1)

    @pytest.mark.parametrize("order", [["b", "b", "a"], [], [5, None, "b"], "ba", {"b": 1}, None])
    def test_an_order_that_is_none(self, place, order):
        """An invalid column order does not prevent reading the table."""
        url = place.new()
        make(place.at(url), 3, a=("int8",), b=("int8",)).close()
        place.edit(url)["RAT"].attrs["COLUMN_ORDER"] = order
        with RatZarr(place.at(url)) as table:
            assert sorted(table.getColumnNames()) == ["a", "b"]
            table.createColumn("c", "int8")
            assert sorted(table.getColumnNames()) == ["a", "b", "c"]

    def test_what_is_no_column_is_none(self, place):
        url = place.new()
        make(place.at(url), 3, a=("int8",)).close()
        place.edit(url)["RAT"].create_group("group")
        place.put(url, "RAT/notes.txt", b"hello")
        with RatZarr(place.at(url)) as table:
            assert "notes.txt" not in table.getColumnNames()
            assert not table.colExists("notes.txt")
            assert not table.colExists("group")
            assert table.readBlock("a", 0, 3).tolist() == [0, 0, 0]
