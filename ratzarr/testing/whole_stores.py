"""Whole stores: exists, isValidRatZarr, delete, by whole path components."""

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.testing.helpers import make, refused


def files(everything):
    """Return the contents of files only, without directories."""
    return {key: content for key, content in everything.items() if content is not None}


class WholeStores:
    """Objects other than a RatZarr are refused, and neighbours are never touched."""

    def _family(self, place):
        """Return a table among neighbours whose names share its beginning or end."""
        url = place.new("x.zarr")
        make(place.at(url), 9, a=("int32",)).close()
        parent = url.removesuffix("x.zarr")
        for name in ("x.zarr2", "x.zarr.bak", "x.zar", "xx.zarr", "x.zarr.rat.zarr", "X.zarr"):
            make(place.at(parent + name), 3, a=("int32",)).close()
        place.put(parent + "x.zarr.aux.xml", "", b"<PAMDataset/>")
        place.put(parent + "x", "", b"x")
        return url, parent

    def test_neighbours(self, place):
        url, parent = self._family(place)
        everything = place.everything()
        own = set(place.objects(url))
        start = next(key for key in everything if key.endswith("/x.zarr/zarr.json"))
        start = start.removesuffix("zarr.json")
        RatZarr.delete(place.at(url))
        rest = files(everything)
        for key in own:
            del rest[start + key]
        assert files(place.everything()) == rest
        assert not RatZarr.exists(place.at(url))
        for name in ("x.zarr2", "x.zarr.bak", "x.zar", "xx.zarr", "x.zarr.rat.zarr", "X.zarr"):
            assert RatZarr.isValidRatZarr(place.at(parent + name))

    @pytest.mark.parametrize(
        "name", ["x", "x.z", "x.zarr2", "x.zarr/", "X.zarr", ".zarr", "x.zarr."]
    )
    def test_a_name_that_only_begins_so(self, place, name):
        url = place.new("x.zarr")
        make(place.at(url), 9, a=("int32",)).close()
        other = url.removesuffix("x.zarr") + name
        is_it = name == "x.zarr/"
        assert RatZarr.exists(place.at(other)) is is_it
        assert RatZarr.isValidRatZarr(place.at(other)) is is_it
        if not is_it:
            before = place.everything()
            RatZarr.delete(place.at(other))
            assert place.everything() == before

    def test_nothing_there(self, place):
        url = place.new()
        before = place.everything()
        assert RatZarr.exists(place.at(url)) is False
        assert RatZarr.isValidRatZarr(place.at(url)) is False
        assert RatZarr.delete(place.at(url)) is None
        assert RatZarr.delete(place.at(url)) is None
        assert place.everything() == before

    def test_deleting_twice_and_making_anew(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
        RatZarr.delete(place.at(url))
        assert place.objects(url) == {}
        RatZarr.delete(place.at(url))
        with make(place.at(url), 9, a=("int32",)) as table:
            assert not table.readBlock("a", 0, 9).any()

    def test_nothing_is_left(self, place):
        url = place.new()
        before = place.everything()
        with make(place.at(url), 9, a=("int32",), **{"b/c": ("int8",)}) as table:
            table.writeBlock("a", np.arange(9), 0)
        RatZarr.delete(place.at(url))
        assert place.everything() == before

    def test_parents_and_parts_of_a_store(self, place):
        """Neither the parent directory of a table nor its subdirectories are tables."""
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
        parent = url.rsplit("/", 1)[0]
        for other in (parent, parent + "/", url + "/RAT", url + "/RAT/a", url + "/RAT/a/c"):
            assert RatZarr.isValidRatZarr(place.at(other)) is False
            with refused(place, other.rstrip("/")):
                RatZarr.delete(place.at(other))
        assert RatZarr.isValidRatZarr(place.at(url))

    @pytest.mark.parametrize("readable", ["group", "array", "group with RAT array", "file in it"])
    def test_other_things(self, place, readable):
        url = place.new()
        parent, _name = url.rsplit("/", 1)
        if readable == "array":
            place.create(parent + "/other").create_array("arr", shape=3, dtype="i4")[:] = 1
            url = parent + "/other/arr"
        elif readable == "file in it":
            place.put(url, "notes.txt", b"hello")
        else:
            root = place.create(url)
            root.create_array("RAT" if "RAT" in readable else "x", shape=3, dtype="i4")[:] = 1
        assert RatZarr.isValidRatZarr(place.at(url)) is False
        with refused(place, url):
            RatZarr.delete(place.at(url))

    def test_a_plain_file(self, place):
        url = place.new("file.zarr")
        place.put(url, "", b"hello")
        assert RatZarr.isValidRatZarr(place.at(url)) is False
        with refused(place, url):
            RatZarr.delete(place.at(url))

    @pytest.mark.parametrize(
        "key",
        [
            "notes.txt", "RAT/notes.txt", "RAT/a/notes.txt", "RAT/a/c/notes.txt", "other/zarr.json",
            "RAT/b/c/0/data.csv", ".git/config", "RAT/a/c/0.bak", "RAT/a/c/-1", "RAT/zarr.json.bak",
        ],
    )  # fmt: skip
    def test_foreign_objects_inside(self, place, key):
        """A user's file in the table is not deleted."""
        url = place.new()
        with make(place.at(url), 9, chunk=4, a=("int32",)) as table:
            table.writeBlock("a", np.arange(3), 5)
        place.put(url, key, b"precious")
        with refused(place, url, key):
            RatZarr.delete(place.at(url))
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.readBlock("a", 5, 3).tolist() == [0, 1, 2]
        place.remove(url, key)
        RatZarr.delete(place.at(url))
        assert place.objects(url) == {}

    def test_a_later_format_is_not_valid_here(self, place):
        url = place.new()
        make(place.at(url), 9, a=("int32",)).close()
        place.edit(url)["RAT"].attrs["FORMAT_VERSION"] = 2
        before = place.everything()
        assert RatZarr.exists(place.at(url)) is True
        assert place.everything() == before

    def test_names_with_wildcards(self, place):
        url = place.new("a*.zarr")
        parent = url.removesuffix("a*.zarr")
        for name in ("a*.zarr", "ab.zarr", "[a]b.zarr", "a?.zarr", "a", "**"):
            make(place.at(parent + name), 3, a=("int32",)).close()
        for name in ("a*.zarr", "[a]b.zarr", "a?.zarr", "**"):
            RatZarr.delete(place.at(parent + name))
            assert not RatZarr.exists(place.at(parent + name))
        assert RatZarr.isValidRatZarr(place.at(parent + "ab.zarr"))
        assert RatZarr.isValidRatZarr(place.at(parent + "a"))
