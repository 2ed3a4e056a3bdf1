"""Opening: modes, and the spellings of a location."""

from contextlib import suppress

import numpy as np
import pytest

from ratzarr import DFLT_CHUNKSIZE, NotARatZarrError, RatZarr, RatZarrError
from ratzarr.testing.helpers import document, make, raw, refused


class Opening:
    """The ways to open a table."""

    def test_a_new_table(self, place):
        url = place.new()
        with RatZarr(place.at(url)) as table:
            assert table.getRowCount() == table.rowCount == 0
            assert table.getColumnNames() == []
            assert table.getRATChunkSize() == DFLT_CHUNKSIZE == 500000
        assert RatZarr.exists(place.at(url)) is True
        assert RatZarr.isValidRatZarr(place.at(url)) is True
        assert set(place.objects(url)) == {"zarr.json", "RAT/zarr.json"}

    def test_a_second_opening_finds_it(self, place):
        url = place.new()
        with make(place.at(url), 3, chunk=2, a=(np.int32,)) as table:
            table.writeBlock("a", np.array([1, 2, 3]), 0)
        for options in (
            {},
            {"create": False},
            {"readOnly": True},
            {"readOnly": True, "create": False},
        ):
            with RatZarr(place.at(url), **options) as table:
                assert table.rowCount == 3
                assert table.getRATChunkSize() == 2
                assert table.getColumnNames() == ["a"]
                assert table.readBlock("a", 0, 3).tolist() == [1, 2, 3]

    def test_a_new_table_with_rows_and_a_chunk_size(self, place):
        url = place.new()
        with RatZarr(place.at(url), newRowCount=5, newChunkSize=2) as table:
            assert (table.rowCount, table.getRATChunkSize()) == (5, 2)
            table.createColumn("a", np.int32)
            table.writeBlock("a", np.arange(5), 0)
        group = place.open(url)["RAT"]
        assert (group.attrs["ROWCOUNT"], group.attrs["CHUNKSIZE"]) == (5, 2)
        assert (group["a"].shape, group["a"].chunks) == ((5,), (2,))
        # An existing table keeps its own.
        with RatZarr(place.at(url), newRowCount=9, newChunkSize=7) as table:
            assert (table.rowCount, table.getRATChunkSize()) == (5, 2)
        other = place.new()
        for options in ({"newRowCount": -1}, {"newRowCount": 1.5}, {"newChunkSize": 0}):
            with pytest.raises(RatZarrError, match="is an integer"):
                RatZarr(place.at(other), **options)
        assert not RatZarr.exists(place.at(other))

    def test_flags_by_position(self, place):
        url = place.new()
        make(place.at(url), 3).close()
        with RatZarr(place.at(url), True) as table, refused(place):
            table.setRowCount(4)
        missing = place.new()
        with refused(place, missing):
            RatZarr(place.at(missing), False, False)

    @pytest.mark.parametrize(
        "options",
        [{"create": False}, {"readOnly": True}, {"readOnly": True, "create": False}],
        ids=str,
    )
    def test_nothing_there_and_not_to_be_made(self, place, options):
        url = place.new()
        with refused(place, url, error=FileNotFoundError):
            RatZarr(place.at(url), **options)
        assert RatZarr.exists(place.at(url)) is False

    def test_opening_again_changes_nothing(self, place):
        url = place.new()
        with make(place.at(url), 3, a=(np.int32,)):
            pass
        before = place.everything()
        with RatZarr(place.at(url)) as table:
            table.readBlock("a", 0, 3)
        assert place.everything() == before

    def test_with_closes_it_also_after_an_error(self, place):
        url = place.new()
        with suppress(ZeroDivisionError), RatZarr(place.at(url)) as table:
            table.setRowCount(2)
            raise ZeroDivisionError
        with pytest.raises(RatZarrError):
            table.setRowCount(3)
        with RatZarr(place.at(url)) as table:
            assert table.rowCount == 2

    def test_any_path_like(self, place):
        url = place.new()

        class Somewhere:
            def __fspath__(self):
                return url

        with RatZarr(place.at(Somewhere())) as table:
            table.setRowCount(5)
        with RatZarr(place.at(url)) as table:
            assert table.rowCount == 5
        assert RatZarr.exists(place.at(Somewhere()))
        assert RatZarr.isValidRatZarr(place.at(Somewhere()))
        RatZarr.delete(place.at(Somewhere()))
        assert not RatZarr.exists(place.at(url))

    @pytest.mark.parametrize("slashes", ["/", "//"])
    def test_trailing_slashes_mean_the_same(self, place, slashes):
        url = place.new()
        with RatZarr(place.at(url + slashes)) as table:
            table.setRowCount(5)
        assert set(place.objects(url)) == {"zarr.json", "RAT/zarr.json"}
        with RatZarr(place.at(url), create=False) as table:
            assert table.rowCount == 5
        assert RatZarr.exists(place.at(url + slashes))
        assert RatZarr.isValidRatZarr(place.at(url + slashes))
        RatZarr.delete(place.at(url + slashes))
        assert place.objects(url) == {}

    @pytest.mark.parametrize(
        "name",
        [
            "a b",
            "a+b",
            "a%20b",
            "100%",
            "a#b",
            "é",
            "e\u0301",
            "[1]",
            "*",
            "~",
            "a=1&b",
            "表",
            "-x",
        ],
    )
    def test_odd_names_of_tables(self, place, name):
        url = place.new(f"{name}.rat.zarr")
        other = url.replace(".rat.zarr", "2.rat.zarr")
        with make(place.at(url), 3, a=(np.int32,)) as table:
            table.writeBlock("a", np.array([1, 2, 3]), 0)
        make(place.at(other), 1).close()
        assert raw(place, url, "a").tolist() == [1, 2, 3]
        assert RatZarr.exists(place.at(url))
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.readBlock("a", 0, 3).tolist() == [1, 2, 3]
        RatZarr.delete(place.at(url))
        assert place.objects(url) == {}
        assert set(place.objects(other)) == {"zarr.json", "RAT/zarr.json"}

    @pytest.mark.parametrize("filename", ["", None, 5, b"x.zarr"], ids=repr)
    def test_no_name_at_all(self, place, filename, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with refused(place):
            RatZarr(place.at(filename))
        assert {path.name for path in tmp_path.iterdir()} <= {"place"}

    @pytest.mark.parametrize("readOnly", [False, True])
    def test_something_else_is_there(self, place, readOnly):
        group = place.new("group.zarr")
        place.create(group).attrs["mine"] = 1
        array = place.new("array.zarr")
        place.create(array.removesuffix("/array.zarr") + "/parent").create_array(
            "array.zarr", shape=3, dtype="i4"
        )
        for url in (group, array.removesuffix("/array.zarr") + "/parent/array.zarr"):
            with refused(place, url):
                RatZarr(place.at(url), readOnly=readOnly)

    def test_a_plain_file_is_there(self, place):
        url = place.new("file.zarr")
        place.put(url, "", b"hello")
        with refused(place):
            RatZarr(place.at(url), readOnly=True)
        with refused(place):
            RatZarr(place.at(url), create=False)
        if place.kind == "local":  # a bucket can hold both x.zarr and x.zarr/zarr.json
            with refused(place):
                RatZarr(place.at(url))

    def test_a_place_with_other_files_is_not_taken_over(self, place):
        url = place.new()
        place.put(url, "notes.txt", b"hello")
        with refused(place, url, error=RatZarrError):
            RatZarr(place.at(url), create=False)

    def test_a_part_of_a_table_is_refused(self, place):
        """As an interrupted copy leaves: columns without the table's own document."""
        url = place.new()
        make(place.at(url), 3, a=(np.int32,)).close()
        part = place.content(url, "RAT/zarr.json")
        place.remove(url, "RAT/zarr.json")
        for options in ({}, {"create": False}, {"readOnly": True}):
            with refused(place, url, "part of one", "RAT/zarr.json", error=NotARatZarrError):
                RatZarr(place.at(url), **options)
        assert not RatZarr.isValidRatZarr(place.at(url))
        place.put(url, "RAT/zarr.json", part)
        with RatZarr(place.at(url)) as table:
            assert table.getColumnNames() == ["a"]

    def test_a_later_format_is_refused(self, place):
        url = place.new()
        make(place.at(url), 3, a=(np.int32,)).close()
        assert document(place, url, "RAT")["attributes"]["FORMAT_VERSION"] == 1
        group = place.edit(url)["RAT"]
        group.attrs["FORMAT_VERSION"] = 2
        for options in ({}, {"create": False}, {"readOnly": True}):
            with refused(place, url, "2", "1"):
                RatZarr(place.at(url), **options)
