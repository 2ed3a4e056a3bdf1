"""Small blocks written one after the other: a chunk that was just merged need not be read again."""

import numpy as np
import pytest
from numpy.dtypes import StringDType

from ratzarr import DamagedError, RatZarr
from ratzarr.testing.helpers import make

ROWS, CHUNK = 1000, 300


def fetched(proxy):
    """Return how many chunks were asked for, to be merged."""
    return sum(one.method == "GET" and "/c/" in one.key for one in proxy.requests)


def stored(path):
    """Return a column's values as zarr-python reads them."""
    import zarr

    return zarr.open_group(path, mode="r")["RAT/a"][:]


@pytest.mark.parametrize("dtype", ["f8", "T"])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_chunk_is_not_read_again_by_who_has_just_written_it(counted_s3, dtype, mixed):
    place, proxy = counted_s3
    url = place.new()
    values = np.random.default_rng(1).normal(size=ROWS)
    if dtype == "T":
        values = np.char.mod("%.3f", values).astype(StringDType())
    starts = list(range(0, ROWS, 50))
    if mixed:
        starts = [int(one) for one in np.random.default_rng(2).permutation(starts)]
    with make(url, ROWS, CHUNK, a=(StringDType() if dtype == "T" else dtype,)) as table:
        proxy.clear()
        for start in starts:
            table.writeBlock("a", values[start : start + 50], start)
        # The last chunk of the table may be looked for once, as rows may follow.
        assert fetched(proxy) <= 4
        # What is wholly written is not kept: who changes it reads it again.
        proxy.clear()
        table.writeBlock("a", values[5:10], 5)
        assert fetched(proxy) == 1
        assert (table.readBlock("a", 0, ROWS) == values).all()
    assert (place.open(url)["RAT/a"][:] == values).all()


def test_others_rows_stay(tmp_path):
    path = tmp_path / "t.rat.zarr"
    expected = np.zeros(ROWS)
    with make(path, ROWS, CHUNK, a=("f8",)) as one, RatZarr(path) as other:
        for number in range(60):
            table = (one, other)[number % 3 == 0]
            start = (number * 37) % (ROWS - 20)
            block = np.full(20, number + 1.0)
            table.writeBlock("a", block, start)
            expected[start : start + 20] = block
            if number % 10 == 5:
                # A whole chunk, put over what both have merged.
                other.writeBlock("a", np.full(CHUNK, -1.0), CHUNK)
                expected[CHUNK : 2 * CHUNK] = -1
            assert (stored(path) == expected).all()


def test_rows_that_were_cut_off_do_not_come_back(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with make(path, ROWS, CHUNK, a=("f8",)) as one, RatZarr(path) as other:
        one.writeBlock("a", np.ones(20), 0)
        one.writeBlock("a", np.ones(250), 20)
        other.setRowCount(100)
        other.setRowCount(ROWS)
        one.refresh()
        one.writeBlock("a", np.full(5, 2.0), 0)
    expected = np.zeros(ROWS)
    expected[:100] = 1
    expected[:5] = 2
    assert (stored(path) == expected).all()


def test_a_column_created_anew_gets_nothing_of_the_old(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with make(path, ROWS, CHUNK, a=("f8",)) as table:
        table.writeBlock("a", np.ones(20), 0)
        table.deleteColumn("a")
        table.createColumn("a", "f8")
        table.writeBlock("a", np.full(5, 2.0), 100)
    assert stored(path).sum() == 10


def test_a_chunk_that_was_damaged_since_is_not_covered_up(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with make(path, ROWS, CHUNK, a=("f8",)) as table:
        table.writeBlock("a", np.ones(20), 0)
        file = path / "RAT" / "a" / "c" / "0"
        data = bytearray(file.read_bytes())
        data[30] ^= 1
        file.write_bytes(data)
        with pytest.raises(DamagedError, match="c/0"):
            table.writeBlock("a", np.ones(20), 40)
        assert file.read_bytes() == data


@pytest.mark.parametrize("room", ["20000", "0", None])
def test_it_is_bounded_with_what_was_read(counted_s3, monkeypatch, room):
    if room is not None:
        monkeypatch.setenv("RATZARR_CACHE_BYTES", room)
    place, proxy = counted_s3
    url = place.new()
    columns = {f"c{number}": ("f8",) for number in range(12)}
    again = 0
    # Each of 2400 bytes, and some that say which rows were written: nine at most have room.
    with make(url, CHUNK, CHUNK, **columns) as table:
        for start in range(0, CHUNK, 100):
            proxy.clear()
            for name in columns:
                table.writeBlock(name, np.full(100, start + 1.0), start)
            again += fetched(proxy) if start else 0
        for name in columns:
            assert (table.readBlock(name, 0, CHUNK) == np.repeat([1.0, 101, 201], 100)).all()
    if room is None:
        assert again == 0
    else:
        # Those that were kept for longest went: of twelve in turn that is each.
        assert again == 2 * len(columns)


def test_on_s3_the_next_block_is_one_request(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    with make(url, 100, chunk=60, a=("i4",)) as table:
        table.writeBlock("a", np.arange(10), 0)
        for start in (10, 20, 30):
            proxy.clear()
            table.writeBlock("a", np.arange(start, start + 10), start)
            assert [request.method for request in proxy.requests] == ["PUT"]
        with RatZarr(url) as other:
            other.writeBlock("a", [99], 3)
        proxy.clear()
        table.writeBlock("a", np.arange(40, 50), 40)
        methods = [request.method for request in proxy.requests]
        assert methods[0] == "PUT"
        assert "GET" in methods
    with RatZarr(url, readOnly=True) as table:
        expected = np.arange(60)
        expected[3], expected[50:] = 99, 0
        assert table.readBlock("a", 0, 60).tolist() == expected.tolist()
