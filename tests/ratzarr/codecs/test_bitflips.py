"""Every bit of every kind of object flipped, and every kind of cut: never a wrong value.

How they are damaged, and what is counted, is in :mod:`tests.ratzarr.damage`.
"""

import json
from collections import Counter

import numpy as np
import pytest

from ratzarr import DamagedError, RatZarr
from ratzarr.maintenance.check import check_store
from tests.ratzarr.damage import (
    CHUNK,
    NAMES,
    ROWS,
    Damage,
    content_of,
    cuts,
    fill,
    flips,
    others,
    outcomes,
    same,
    values_of,
)

pytestmark = pytest.mark.thorough

STRETCH = 64
"""Bytes at both ends of a large object of which every bit is flipped."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return fill(str(tmp_path_factory.mktemp("flips") / "seg.tif.rat.zarr"), NAMES)


@pytest.fixture
def damage(request):
    """Damage to the store that the test uses."""
    [store] = {"store", "large", "small"} & set(request.fixturenames)
    with Damage(request.getfixturevalue(store)) as damage:
        yield damage


@pytest.mark.parametrize("name", NAMES)
def test_chunks(store, damage, name):
    """Whole chunks and the last, partial one: each damage is an error that says where."""
    step = 1 if name == "one row" else CHUNK
    expected = values_of(name, ROWS)
    total = Counter()
    with RatZarr(store, readOnly=True) as table:
        assert same(table.readBlock(name, 0, ROWS), expected)
        for chunk in (0, (ROWS - 1) // step):
            tail = "/0" if name == "wide" else ""
            key = f"RAT/{name}/c/{chunk}{tail}"
            first = chunk * step
            last = min(first + step, ROWS) - 1
            content = content_of(store, key)
            damages = [*flips(content), *cuts(content), *others(content)]
            fragments = (key, repr(name), f"rows {first} to {last}")
            total += outcomes(
                damage,
                key,
                damages,
                lambda first=first: table.readBlock(name, first, step),
                expected[first : first + step],
                fragments,
            )
        assert same(table.readBlock(name, 0, ROWS), expected)
    # No bit of a chunk is there for nothing, and none is read wrong.
    assert set(total) == {"error"}
    assert total["error"] > 1000


@pytest.mark.parametrize("name", ["int32", "wide"])
def test_documents_of_columns(store, damage, name):
    key = f"RAT/{name}/zarr.json"
    content = content_of(store, key)
    expected = values_of(name, ROWS)

    def read():
        with RatZarr(store, readOnly=True) as table:
            return table.readBlock(name, 0, ROWS)

    found = outcomes(damage, key, flips(content), read, expected, (key,))
    assert set(found) == {"error"}
    assert found["error"] == 8 * len(content)
    found = outcomes(damage, key, [*cuts(content), *others(content)], read, expected, (key,))
    # Without its checksum, cut off just there, the document is as good as one without.
    assert set(found) == {"error", "right"}
    assert found["right"] <= 10


def test_the_documents_of_table_and_store(store, damage):
    def read():
        with RatZarr(store, readOnly=True) as table:
            assert table.getColumnNames() == list(NAMES)
            return table.readBlock("int8", 0, table.getRowCount())

    expected = values_of("int8", ROWS)
    for key, damaged in (("RAT/zarr.json", {"error"}), ("zarr.json", {"right"})):
        content = content_of(store, key)
        found = outcomes(damage, key, flips(content), read, expected, ("RAT/zarr.json",))
        # The store's own document has nothing in it that a reader needs.
        assert set(found) == damaged
        found = outcomes(
            damage, key, [*cuts(content), *others(content)], read, expected, ("RAT/zarr.json",)
        )
        assert set(found) <= {"error", "right"}


def test_another_programs_documents(store, damage):
    """Without a checksum a flipped bit can be another value; the checksum is what notices."""
    key = "RAT/zarr.json"
    bare = json.dumps(json.loads(content_of(store, key))).encode()

    def read():
        with RatZarr(store, readOnly=True) as table:
            return np.array([table.getRowCount()])

    found = outcomes(damage, key, flips(bare), read, np.array([ROWS]), ("RAT",))
    assert any(outcome.startswith("WRONG") for outcome in found)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    names = ("int16", "float64", "string", "bytes")
    url = str(tmp_path_factory.mktemp("flips") / "large.rat.zarr")
    return fill(url, names, rows=25_000, chunk=20_000)


@pytest.mark.parametrize("name", ["int16", "float64", "string", "bytes"])
def test_large_chunks(large, damage, name):
    """Both ends, where headers, sizes and checksums are, and bytes spread over the rest."""
    expected = values_of(name, 25_000)[:20_000]
    key = f"RAT/{name}/c/0"
    content = content_of(large, key)
    size = len(content)
    assert size > 1000
    spread = range(0, size, max(1, size // 60))
    lengths = {*range(0, size, max(1, size // 60)), *range(64), *range(size - 64, size)}
    damages = [*flips(content, STRETCH, spread), *cuts(content, sorted(lengths))]
    fragments = (key, repr(name), "rows 0 to 19999")
    with RatZarr(large, readOnly=True) as table:
        found = outcomes(
            damage, key, damages, lambda: table.readBlock(name, 0, 20_000), expected, fragments
        )
    assert set(found) == {"error"}
    assert found["error"] == len(damages)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    names = ("int8", "string")
    return fill(str(tmp_path_factory.mktemp("flips") / "small.rat.zarr"), names)


@pytest.mark.parametrize(
    "key", ["zarr.json", "RAT/zarr.json", "RAT/int8/zarr.json", "RAT/int8/c/1", "RAT/string/c/2"]
)
def test_the_check_names_what_is_damaged(small, damage, key):
    """The same damage, seen by a look at the whole store: named, and nothing else is."""
    store = small
    content = content_of(store, key)
    damages = [*flips(content)][:: max(1, len(content) // 5)]
    damages += [*cuts(content)][:-1:23] + [*others(content)][::17]
    for what, bad in damages:
        damage.put(key, bad)
        found = check_store(store)
        wrong = [one.key for one in found if one.wrong]
        if not wrong:
            # What JSON passes over, put before a document.
            assert key.endswith("zarr.json"), what
            assert json.loads(bad) == json.loads(content), what
        else:
            assert wrong == [key], what
    damage.heal()
    assert check_store(store) == []


@pytest.mark.parametrize(
    ("name", "other", "noticed"),
    [
        ("int32", "int16", True),
        ("int16", "int32", True),
        ("float64", "int32", True),
        ("bool", "int16", True),
        ("int32", "string", True),
        ("string", "int32", True),
        ("one row", "int32", True),
        ("int32", "one row", True),
        ("int32", "all fill", False),
        ("float64", "datetime", False),
    ],
)
def test_a_chunk_in_the_place_of_another(store, damage, name, other, noticed):
    """One of other rows or values of another size is noticed; one of the same layout is not.

    On a local disk a chunk does not say whose it is: docs/checking.md says so.
    """
    damage.put(f"RAT/{name}/c/0", content_of(store, f"RAT/{other}/c/0"))
    with RatZarr(store, readOnly=True) as table:
        if noticed:
            with pytest.raises(DamagedError, match="c/0"):
                table.readBlock(name, 0, CHUNK)
        else:
            got = table.readBlock(name, 0, CHUNK)
            assert got.tobytes() == values_of(other, ROWS)[:CHUNK].tobytes()
