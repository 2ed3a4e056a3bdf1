"""Attributes as live mappings."""

import datetime as dt
import http

import numpy as np
import pytest
from zarr.core.attributes import Attributes as ZarrAttributes

from ratzarr import RatZarr
from ratzarr.testing.helpers import document, make, refused

OURS = {
    "table": ["ROWCOUNT", "CHUNKSIZE", "COLUMN_ORDER", "FORMAT_VERSION"],
    "column": ["MODIFICATIONLOG", "NAME", "COMPLETE", "ROWS_DONE"],
}
JSON: list[object] = [
    None, True, 0, -5, 2**60, 1.5, "", "é\U0001f600", [1, [2, None]], {"a": {"b": []}}, {}, [],
    "\0", 0.1, 1e300, "a\nb",
]  # fmt: skip
NOT_JSON = [
    np.arange(3), np.complex64(1), np.bytes_(b"a"), np.datetime64("2020"), np.longdouble(0.5), {1, 2},
    b"bytes", 1j, object(), dt.datetime(2020, 1, 1, tzinfo=dt.UTC), [1, np.arange(2)],
    {"a": {"b": {1}}}, "\ud800", np.str_("\ud800"), {5: "int key"},
]  # fmt: skip
NUMPY = [
    (np.int64(-5), -5), (np.uint64(2**64 - 1), 2**64 - 1), (np.int8(3), 3), (np.float64(0.1), 0.1),
    (np.float32(0.1), float(np.float32(0.1))), (np.float16(0.5), 0.5), (np.bool_(True), True),
    (np.str_("größe"), "größe"), ([np.int8(1), {"a": np.bool_(False)}], [1, {"a": False}]),
    (http.HTTPStatus.OK, 200),
]  # fmt: skip
"""Typical Python values, and their JSON form."""


def mapping_of(table, which):
    """Return the mapping of the table or of its column `a/b`."""
    if which == "table":
        return table.getRatAttributeMapping()
    return table.getColumnAttributeMapping("a/b")


def stored(place, url, which):
    """Return the stored attributes."""
    return document(place, url, "RAT" if which == "table" else "RAT/a%2Fb")["attributes"]


class Attributes:
    """A change is stored at once. Entries of the format cannot be changed in this way."""

    @pytest.fixture(params=["table", "column"])
    def which(self, request):
        return request.param

    def _table(self, place):
        url = place.new()
        return url, make(place.at(url), 9, **{"a/b": ("int32",)})

    def test_numpys_scalars_become_jsons(self, place, which):
        url, table = self._table(place)
        with table:
            mapping = mapping_of(table, which)
            mapping.update({str(number): value for number, (value, _) in enumerate(NUMPY)})
            for number, (_, wanted) in enumerate(NUMPY):
                found = mapping[str(number)]
                assert (type(found), found) == (type(wanted), wanted)
        with RatZarr(place.at(url)) as table:
            assert mapping_of(table, which)["0"] == -5
            table.createColumn("c", "i1", attributes={"mean": np.float32(0.5)})
            assert table.getColumnAttributeMapping("c")["mean"] == 0.5

    def test_nan_and_infinity_are_written_as_zarr_writes_them(self, place, which):
        url, table = self._table(place)
        numbers = {"nan": np.nan, "inf": np.inf, "low": -np.inf, "in": [np.float32(np.nan), 1]}
        with table, RatZarr(place.at(url)) as other:
            mapping, late = mapping_of(table, which), mapping_of(other, which)
            mapping.update(numbers)
            # Through an instance that read the table before: its own change is added to the stored
            # ones.
            late["mine"] = 1
            other.refresh()
            for one in mapping_of(table, which), mapping_of(other, which):
                assert np.isnan([one["nan"], one["in"][0]]).all()
                assert (one["inf"], one["low"]) == (np.inf, -np.inf)
            assert late["mine"] == 1
            table.setRowCount(12)
            table.createColumn("c", "i1", attributes={"x": np.nan})
            assert np.isnan(table.getColumnAttributeMapping("c")["x"])
            table.writeBlock("a/b", [7], 11)
        key = "RAT/zarr.json" if which == "table" else "RAT/a%2Fb/zarr.json"
        raw = place.content(url, key)
        assert b'"nan": NaN' in raw
        assert b'"low": -Infinity' in raw
        # As zarr-python reads it.
        found = place.open(url)[key.removesuffix("/zarr.json")].attrs
        assert np.isnan(found["nan"])
        assert found["low"] == -np.inf

    def test_they_are_zarrs(self, place, which):
        _, table = self._table(place)
        with table:
            mapping = mapping_of(table, which)
            assert isinstance(mapping, ZarrAttributes)
            assert set(mapping.asdict()) == set(mapping)
            assert len(mapping) == len(list(mapping))
            assert "nothing" not in mapping
            assert mapping.get("nothing") is None
            with pytest.raises(KeyError):
                mapping["nothing"]

    def test_changes_are_there_at_once(self, place, which):
        url, table = self._table(place)
        with table:
            ours = set(stored(place, url, which))
            mapping = mapping_of(table, which)
            mapping["x"] = 1
            assert stored(place, url, which)["x"] == 1
            mapping.update({"y": [1, 2], "z": {"deep": None}})
            assert stored(place, url, which)["z"] == {"deep": None}
            del mapping["x"]
            assert "x" not in stored(place, url, which)
            assert mapping.pop("y") == [1, 2]
            assert "y" not in stored(place, url, which)
            assert mapping.setdefault("w", "new") == "new"
            assert stored(place, url, which)["w"] == "new"
            assert mapping.setdefault("w", "newer") == "new"
            mapping.put({"only": 1})
            assert set(stored(place, url, which)) == ours | {"only"}
            assert mapping["only"] == 1
            mapping.clear()
            assert set(stored(place, url, which)) == ours

    def test_others_changes_are_seen(self, place, which):
        """Two instances see each other's changes, and neither undoes the other's."""
        url, table = self._table(place)
        with table, RatZarr(place.at(url)) as other:
            mapping, theirs = mapping_of(table, which), mapping_of(other, which)
            mapping["x"] = 1
            theirs["y"] = 2
            mapping["z"] = 3
            found = stored(place, url, which)
            assert (found["x"], found["y"], found["z"]) == (1, 2, 3)
            table.refresh()
            assert mapping_of(table, which)["y"] == 2

    def test_they_last(self, place, which):
        url, table = self._table(place)
        with table:
            mapping_of(table, which)["source"] = "seg.kea"
            table.setRowCount(20)
            table.setChunkSize(3)
            table.writeBlock("a/b", np.arange(20), 0)
        with RatZarr(place.at(url), readOnly=True) as table:
            assert mapping_of(table, which)["source"] == "seg.kea"

    def test_json_values(self, place, which, subtests):
        url, table = self._table(place)
        with table:
            for value in JSON:
                with subtests.test(value=ascii(value)):
                    mapping_of(table, which)["x"] = value
                    got = mapping_of(table, which)["x"]
                    assert got == value
                    assert type(got) is type(value)
                    assert stored(place, url, which)["x"] == value

    def test_other_values_are_refused(self, place, which, subtests):
        _, table = self._table(place)
        with table:
            mapping = mapping_of(table, which)
            untouched = place.everything()
            changes = {
                "[]": lambda value: mapping.__setitem__("Source", value),
                "update": lambda value: mapping.update({"x": 1, "Source": value}),
                "put": lambda value: mapping.put({"x": 1, "Source": value}),
                "setdefault": lambda value: mapping.setdefault("Source", value),
            }
            for value in NOT_JSON:
                for how, change in changes.items():
                    with subtests.test(value=ascii(value), how=how):
                        with refused(place, "Source", look=False):
                            change(value)
                        assert "Source" not in mapping
                        assert "x" not in mapping
            assert place.everything() == untouched

    @pytest.mark.parametrize("key", [5, None, b"a", 1.5, "\ud800"], ids=ascii)
    def test_keys_are_text(self, place, which, key):
        _, table = self._table(place)
        with table, refused(place, table=table):
            mapping_of(table, which)[key] = 1

    def test_what_the_mapping_hands_out_is_no_way_in(self, place, which):
        """Changing a list from the mapping changes neither the table nor the mapping."""
        url, table = self._table(place)
        with table:
            mapping = mapping_of(table, which)
            mapping["x"] = given = [1]
            given.append(2)
            mapping["x"].append(3)
            assert mapping["x"] == [1]
            assert stored(place, url, which)["x"] == [1]

    def test_the_formats_own_entries(self, place, which):
        url, table = self._table(place)
        with table:
            before = stored(place, url, which)
            mapping = mapping_of(table, which)
            for name in OURS[which]:
                for change in (
                    lambda name=name: mapping.__setitem__(name, 12345),
                    lambda name=name: mapping.update({"x": 1, name: 12345}),
                    lambda name=name: mapping.put({"x": 1, name: 12345}),
                ):
                    with refused(place, name, table=table):
                        change()
                if name in before:
                    for change in (
                        lambda name=name: mapping.__delitem__(name),
                        lambda name=name: mapping.pop(name),
                    ):
                        with refused(place, name, table=table):
                            change()
            mapping.put({})
            assert stored(place, url, which) == before
            mapping["x"] = 1
            mapping.clear()
            assert stored(place, url, which) == before
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.rowCount == 9
            assert table.getRATChunkSize() == 4
            assert table.getColumnNames() == ["a/b"]

    def test_they_can_be_read(self, place):
        _, table = self._table(place)
        with table:
            mapping = table.getRatAttributeMapping()
            assert mapping["ROWCOUNT"] == 9
            assert mapping["CHUNKSIZE"] == 4
            table.setRowCount(10)
            assert table.getRatAttributeMapping()["ROWCOUNT"] == 10
            assert table.getColumnAttributeMapping("a/b")["NAME"] == "a/b"
