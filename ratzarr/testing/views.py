"""Instances: many columns at once, other instances, closing, and repr."""

import numpy as np
import pytest

from ratzarr import RatZarr, RatZarrError
from ratzarr.testing.helpers import STRING, assert_same, make, raw, refused


class Views:
    """An instance is a view of the table as it was opened."""

    def test_many_columns_at_once(self, place):
        url = place.new()
        names = [f"c{n}" for n in range(12)]
        blocks = {name: np.arange(n, n + 7, dtype="i4") for n, name in enumerate(names)}
        blocks["wide"] = np.arange(14, dtype="f4").reshape(7, 2)
        blocks["s"] = np.array(list("abcdefg"), STRING)
        with make(place.at(url), 10, chunk=4, wide=("float32", 2), s=(STRING,),
                  **dict.fromkeys(names, ("int32",))) as table:  # fmt: skip
            table.writeBlocks(blocks, 3)
            got = table.readBlocks(list(blocks), 3, 7)
            assert isinstance(got, dict)
            assert list(got) == list(blocks)
            for name, block in blocks.items():
                assert_same(got[name], block)
            assert table.readBlocks([], 0, 5) == {}
            table.writeBlocks({}, 0)
            past = table.readBlocks(["c1", "wide"], 8, 99)
            assert past["c1"].shape == (2,)
            assert past["wide"].shape == (2, 2)
        for name, block in blocks.items():
            assert_same(np.asarray(raw(place, url, name))[3:], block)
            assert not any(np.asarray(raw(place, url, name))[:3].ravel().tolist())

    def test_refresh_sees_what_others_did(self, place):
        url = place.new()
        with (
            make(place.at(url), 5, a=("int32",), b=("int32",)) as one,
            RatZarr(place.at(url)) as other,
        ):
            other.readBlock("a", 0, 5)
            other.readBlock("b", 0, 5)
            one.setRowCount(8)
            one.setChunkSize(3)
            one.createColumn("c", "int8")
            one.deleteColumn("b")
            one.writeBlock("a", np.arange(8), 0)
            one.flush()
            other.refresh()
            assert other.rowCount == 8
            assert other.getRATChunkSize() == 3
            assert other.getColumnNames() == ["a", "c"]
            assert not other.colExists("b")
            with refused(place, "'b'", error=LookupError):
                other.readBlock("b", 0, 1)
            assert other.readBlock("a", 0, 9).tolist() == list(range(8))

    def test_a_column_made_anew_by_another(self, place):
        url = place.new()
        with make(place.at(url), 5, a=("int32",)) as one, RatZarr(place.at(url)) as other:
            assert other.getColumnDtype("a") == np.int32
            one.deleteColumn("a")
            one.createColumn("a", STRING)
            one.writeBlock("a", np.array(list("abcde")), 0)
            one.flush()
            other.refresh()
            assert other.readBlock("a", 0, 5).tolist() == list("abcde")

    def test_columns_of_two_writers(self, place):
        """Both new columns are kept, with either instance's list of columns."""
        url = place.new()
        with make(place.at(url), 5) as one, RatZarr(place.at(url)) as other:
            for n in range(3):
                one.createColumn(f"one{n}", "int8")
                other.createColumn(f"other{n}", "int8")
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.getColumnNames() == ["one0", "other0", "one1", "other1", "one2", "other2"]

    def test_halves_of_one_chunk_by_two_writers(self, place):
        url = place.new()
        with make(place.at(url), 8, chunk=8, a=("int32",)) as one, RatZarr(place.at(url)) as other:
            one.openColumn("a")
            other.readBlock("a", 0, 8)
            one.writeBlock("a", np.arange(1, 5), 0)
            one.flush()
            other.writeBlock("a", np.arange(5, 9), 4)
        assert raw(place, url, "a").tolist() == [1, 2, 3, 4, 5, 6, 7, 8]

    def test_flush_writes_what_is_held(self, place):
        url = place.new()
        with make(place.at(url), 8, chunk=8, a=("int32",)) as table:
            table.writeBlock("a", np.array([1, 2]), 0)
            table.writeBlock("a", np.array([3]), 2)
            table.flush()
            assert raw(place, url, "a").tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
            table.flush()

    def test_after_close(self, place):
        url = place.new()
        table = make(place.at(url), 5, a=("int32",))
        table.writeBlock("a", np.arange(5), 0)
        mapping = table.getRatAttributeMapping()
        column = table.getColumnAttributeMapping("a")
        table.close()
        table.close()
        assert raw(place, url, "a").tolist() == list(range(5))
        uses = {
            "readBlock": lambda: table.readBlock("a", 0, 5),
            "writeBlock": lambda: table.writeBlock("a", np.arange(5), 0),
            "readBlocks": lambda: table.readBlocks(["a"], 0, 5),
            "writeBlocks": lambda: table.writeBlocks({"a": np.arange(5)}, 0),
            "setRowCount": lambda: table.setRowCount(7),
            "setChunkSize": lambda: table.setChunkSize(7),
            "createColumn": lambda: table.createColumn("b", "int8"),
            "deleteColumn": lambda: table.deleteColumn("a"),
            "openColumn": lambda: table.openColumn("a"),
            "getColumnNames": table.getColumnNames,
            "refresh": table.refresh,
            "attribute of the table": lambda: mapping.update({"x": 1}),
            "attribute of a column": lambda: column.update({"x": 1}),
            "with": table.__enter__,
        }
        for name, use in uses.items():
            with refused(place, "closed", doing=name):
                use()
        assert "\n" not in repr(table)

    def test_one_line_for_repr(self, place):
        url = place.new("odd\nname.zarr" if place.kind == "local" else "name.zarr")
        with make(place.at(url), 5, **{"two\nlines": ("int32",), "b": ("float64", 3)}) as table:
            text = repr(table)
            assert text.startswith(("<", "RatZarr("))
            assert "RatZarr" in text
            assert len(text.splitlines()) == 1
            assert "name.zarr" in text
            assert "5" in text
        with RatZarr(place.at(url), readOnly=True) as table:
            assert len(repr(table).splitlines()) == 1

    def test_html(self, place):
        hostile = "<script>alert('x')</script>"
        url = place.new()
        with make(
            place.at(url), 5, **{hostile: ("int32",), "a&b": ("float64", 3), "é": (STRING,)}
        ) as table:
            table.writeBlock("é", np.array(["<b>"] * 5), 0)
            html = table._repr_html_()
        assert isinstance(html, str)
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert "a&amp;b" in html
        assert "<b>" not in html
        assert "float64" in html

    def test_an_error_has_one_root(self, place):
        with RatZarr(place.at(place.new())) as table:
            with pytest.raises(RatZarrError) as caught:
                table.readBlock("nothing", 0, 1)
            assert caught.value.__class__.__mro__[-2:] == (BaseException, object)
