"""Pages of chunks: only what they need is unpacked, nothing twice, and nothing is ever out of date."""

import json
import math
import os
import signal
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from numcodecs import blosc
from numpy.dtypes import StringDType

from ratzarr import ArgumentError, DamagedError, RatZarr
from ratzarr.codecs.blosc import Blocks, reader_of
from ratzarr.codecs.chunk_codec import ChunkCodec
from ratzarr.format.names import to_json
from ratzarr.stores.local_files import state_of
from ratzarr.testing.helpers import make
from tests.audits import recorded
from tests.decompression import decompressed
from tests.files import wait_until_settled
from tests.processes import LIMIT

ROWS, CHUNK = 150_000, 60_000


def values_of(dtype, width=1, rows=ROWS, seed=1):
    """Return values some of which pack well, and some not at all."""
    rng = np.random.default_rng(seed)
    shape = (rows, width) if width > 1 else (rows,)
    if dtype == "T":
        return np.char.mod("%d", rng.integers(0, 10**6, shape)).astype(StringDType())
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "S":
        return np.char.mod("%d", rng.integers(0, 10**6, shape)).astype(dtype)
    if dtype.kind == "f":
        found = rng.normal(size=shape)
        found[: rows // 3] = np.round(found[: rows // 3], 2)
        return found.astype(dtype)
    return rng.integers(0, 100, shape).cumsum(axis=0).astype("i8").astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "width"),
    [("f8", 1), ("f4", 1), ("i4", 3), ("i8", 1), ("u1", 1), ("?", 1), ("i2", 1), ("M8[us]", 1),
     ("S7", 1), ("f2", 5), ("T", 1)],
)  # fmt: skip
def test_any_rows_in_any_order(tmp_path, dtype, width):
    values = values_of(dtype, width)
    path = tmp_path / "t.rat.zarr"
    kind = StringDType() if dtype == "T" else dtype
    with make(path, ROWS, chunk=CHUNK, a=(kind, width)) as table:
        table.writeBlock("a", values, 0)
    rng = np.random.default_rng(3)
    wait_until_settled(path)
    with RatZarr(path, readOnly=True) as table:
        for length in (1, 1000, 40_000, 70_000) * 6:
            start = int(rng.integers(0, ROWS - length))
            got = table.readBlock("a", start, length)
            assert (got == values[start : start + length]).all()
        for start in range(0, ROWS, 7_000):
            got = table.readBlock("a", start, 7_000)
            assert (got == values[start : start + 7_000]).all()


def test_nothing_is_unpacked_twice_and_little_for_a_page(tmp_path):
    values = values_of("f8")
    path = tmp_path / "t.rat.zarr"
    with make(path, ROWS, chunk=CHUNK, a=("f8",)) as table:
        table.writeBlock("a", values, 0)
    wait_until_settled(path)
    with RatZarr(path, readOnly=True) as table, decompressed() as unpacked:
        table.readBlock("a", 61_000, 100)
        assert 0 < sum(unpacked) < CHUNK * 8
        seen = sum(unpacked)
        for start in range(61_000, 62_000, 100):
            assert (table.readBlock("a", start, 100) == values[start : start + 100]).all()
        assert sum(unpacked) == seen
        for start in [*range(60_000, 120_000, 500), *range(119_000, 60_000, -500)]:
            table.readBlock("a", start, 500)
        # Blosc's last block is decompressed together with the one before it.
        assert sum(unpacked) in (CHUNK * 8, CHUNK * 8 + seen)
        # Read on from one chunk to the next it is unpacked at once.
        unpacked.clear()
        table.readBlock("a", 120_000, 500)
        assert sum(unpacked) == CHUNK * 8


@pytest.mark.parametrize("page", [3000, 300])
def test_a_chunk_that_was_read_through_goes_when_reading_goes_on(tmp_path, page):
    """On a disk, so that the memory serves the next."""
    values = values_of("f8", rows=5 * CHUNK)
    path = tmp_path / "t.rat.zarr"
    with make(path, 5 * CHUNK, chunk=CHUNK, a=("f8",)) as table:
        table.writeBlock("a", values, 0)
    wait_until_settled(path)
    with RatZarr(path, readOnly=True) as table:
        # The first chunk only in part, and the others row after row.
        for start in [1000, *range(2 * CHUNK, 5 * CHUNK, page)]:
            got = table.readBlock("a", start, page)
            assert (got == values[start : start + page]).all()
        for chunk, is_kept in ((0, True), (3, True), (4, True), (2, False)):
            start = chunk * CHUNK + 1000
            with recorded("open") as opened:
                got = table.readBlock("a", start, page)
            assert (got == values[start : start + page]).all()
            assert is_kept == (not any("/c/" in str(name) for name, *_ in opened)), chunk


def test_tiles_near_each_other_in_any_order_are_unpacked_once(tmp_path):
    """As segmentations are tiled: a chunk is not let go of before all of it has been read."""
    values = values_of("f8", rows=10 * CHUNK)
    path = tmp_path / "t.rat.zarr"
    with make(path, len(values), chunk=CHUNK, a=("f8",)) as table:
        table.writeBlock("a", values, 0)
    wait_until_settled(path)
    tile, order = CHUNK // 5, np.random.default_rng(1)
    starts = np.arange(0, len(values), tile)
    with RatZarr(path, readOnly=True) as table, decompressed() as unpacked:
        for first in range(0, len(starts), 8):
            for start in order.permutation(starts[first : first + 8]).tolist():
                assert (table.readBlock("a", start, tile) == values[start : start + tile]).all()
    # Some blocks are unpacked together with their neighbour.
    assert sum(unpacked) < 1.1 * values.nbytes


def test_on_s3_nothing_is_let_go_of_before_there_is_no_room(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    with make(url, 500, chunk=100, a=("i4",)) as table:
        table.writeBlock("a", np.arange(500), 0)
    with RatZarr(url, readOnly=True) as table:
        for start in range(0, 500, 50):
            table.readBlock("a", start, 50)
        proxy.clear()
        for start in range(25, 500, 100):
            assert table.readBlock("a", start, 2).tolist() == [start, start + 1]
        # Each is asked whether it is as it was.
        assert [one.method for one in proxy.requests] == ["HEAD"] * 5


def test_what_is_handed_out_is_the_callers_own(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with make(path, 100, chunk=60, a=("i4",)) as table:
        table.writeBlock("a", np.arange(100), 0)
    wait_until_settled(path)
    with RatZarr(path, readOnly=True) as table:
        for length in (10, 10, 60, 10):
            got = table.readBlock("a", 0, length)
            assert got.tolist() == list(range(length))
            got[:] = -1


def test_rows_that_are_being_cut_off_are_not_read_from_what_is_kept(tmp_path):
    """The document says first that they are gone; their chunk is as it was for a while."""
    path = tmp_path / "t.rat.zarr"
    with make(path, 100, chunk=60, a=("i4",)) as table:
        table.writeBlock("a", np.arange(100), 0)
        wait_until_settled(path)
        with RatZarr(path, readOnly=True) as reader:
            for _ in range(2):
                assert reader.readBlock("a", 20, 3).tolist() == [20, 21, 22]
            file = path / "RAT" / "a" / "zarr.json"
            document = json.loads(file.read_text())
            document["attributes"]["CUTTING"] = 10
            file.write_bytes(to_json(document))
            assert reader.readBlock("a", 20, 3).tolist() == [0, 0, 0]
            assert reader.readBlock("a", 5, 3).tolist() == [5, 6, 7]


def test_what_others_write_is_seen_at_once(tmp_path):
    """However soon it comes, and however alike the files are."""
    path = tmp_path / "t.rat.zarr"
    with make(path, 100, chunk=60, a=("i4",)) as table:
        table.writeBlock("a", np.zeros(100, "i4"), 0)
        with RatZarr(path, readOnly=True) as reader:
            for value in range(1, 400):
                # As a whole and in part, by turns: the same number of bytes each time.
                block = np.full(60 if value % 2 else 59, value, "i4")
                table.writeBlock("a", block, 0)
                assert reader.readBlock("a", 1, 3).tolist() == [value] * 3


def test_a_file_that_is_changed_where_it_is_is_read_again(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with make(path, 60, chunk=60, a=("i4",), b=("i4",)) as table:
        table.writeBlock("a", np.arange(60), 0)
        table.writeBlock("b", np.arange(1, 61), 0)
    file, other = path / "RAT" / "a" / "c" / "0", path / "RAT" / "b" / "c" / "0"
    wait_until_settled(path)
    with RatZarr(path, readOnly=True) as table:
        assert table.readBlock("a", 0, 2).tolist() == [0, 1]
        with recorded("open") as opened:
            assert table.readBlock("a", 0, 2).tolist() == [0, 1]
        assert not any("/c/" in str(name) for name, *_ in opened)
        before = file.stat()
        assert len(other.read_bytes()) == before.st_size
        file.write_bytes(other.read_bytes())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        time.sleep(0.2)
        assert table.readBlock("a", 0, 2).tolist() == [1, 2]
        file.write_bytes(other.read_bytes()[:-1] + b"?")
        with pytest.raises(DamagedError, match="c/0"):
            table.readBlock("a", 0, 2)
        file.unlink()
        assert table.readBlock("a", 0, 2).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("ago", "fraction", "told"),
    [(0, 5, False), (50, 5, False), (300, 5, True), (-300, 5, False), (2_500, 0, False),
     (4_000, 0, True)],
)  # fmt: skip
def test_files_that_could_change_without_a_sign_are_in_no_state(ago, fraction, told):
    """``ago`` is in milliseconds; whole seconds are those of a coarse clock."""
    now = 1_700_000_000 * 10**9 + ago * 10**6 + fraction
    changed = {"st_mtime_ns": 0, "st_ctime_ns": 1_700_000_000 * 10**9 + fraction}
    found = os.stat_result([0] * 10, changed)
    assert bool(state_of(found, now=now)) == told


def _anew(place, monkeypatch):
    url = place.new()
    make(url, 100, chunk=60, a=("i4",)).close()
    with RatZarr(url) as writer, RatZarr(url, readOnly=True) as reader:
        for dtype in ("i4", "f4", "u4"):
            if dtype != "i4":
                writer.deleteColumn("a")
                writer.createColumn("a", dtype)
            writer.writeBlock("a", np.zeros(100, dtype), 0)
            if place.kind == "local":
                wait_until_settled(url)
            for _ in range(2):
                got = reader.readBlock("a", 0, 5)
                assert got.dtype == dtype
                assert got.tolist() == [0] * 5


def test_a_column_created_anew_with_the_same_bytes_on_disk(local, monkeypatch):
    _anew(local, monkeypatch)


def test_a_column_created_anew_with_the_same_bytes_on_s3(moto_s3, monkeypatch):
    _anew(moto_s3, monkeypatch)


def test_on_s3_the_next_page_is_one_request_without_the_bytes(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    values = np.arange(100, dtype="i4")
    with make(url, 100, chunk=60, a=("i4",)) as table:
        table.writeBlock("a", values, 0)
    with RatZarr(url, readOnly=True) as reader, RatZarr(url) as writer:

        def cost(start):
            proxy.clear()
            assert reader.readBlock("a", start, 5).tolist() == values[start : start + 5].tolist()
            return [request.method for request in proxy.requests]

        assert cost(0) == ["GET", "GET"]
        assert cost(5) == ["HEAD"]
        assert cost(50) == ["HEAD"]
        values[7] = 700
        writer.writeBlock("a", values[7:8], 7)
        assert cost(5) == ["HEAD", "GET"]
        assert cost(5) == ["HEAD"]


@pytest.mark.parametrize("limit", [0, 10**6, 10**7])
def test_what_is_kept_is_bounded(tmp_path, monkeypatch, limit):
    monkeypatch.setenv("RATZARR_CACHE_BYTES", str(limit))
    path = tmp_path / "t.rat.zarr"
    names = [f"c{number}" for number in range(20)]
    with make(path, ROWS, chunk=CHUNK, **dict.fromkeys(names, ("f8",))) as table:
        for name in names:
            table.writeBlock(name, values_of("f8"), 0)
    wait_until_settled(path)
    with RatZarr(path, readOnly=True) as table:
        for name in names:
            table.readBlock(name, 0, 1)
        tracemalloc.start()
        try:
            for start in range(0, ROWS, 30_000):
                for name in names:
                    table.readBlock(name, start, 1_000)
            # Besides it, memory to read into: some chunks of 480 000 bytes, less when packed.
            assert tracemalloc.get_traced_memory()[0] < limit + 6 * 10**6
        finally:
            tracemalloc.stop()
    monkeypatch.setenv("RATZARR_CACHE_BYTES", "-1")
    with pytest.raises(Exception, match="RATZARR_CACHE_BYTES"):
        RatZarr(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are forks elsewhere only")
def test_a_forked_child_reads_on(tmp_path):
    """At whatever step of a read another thread is: what that holds nobody gives back there."""
    path = tmp_path / "t.rat.zarr"
    with make(path, 100, chunk=60, a=("i4",)) as table:
        table.writeBlock("a", np.arange(100), 0)
    wait_until_settled(path)
    there, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def pause(_frame, event, _function):
        if event in ("call", "c_call"):
            there.release()
            go_on.acquire()

    with RatZarr(path, readOnly=True) as table:
        for _ in range(2):
            table.readBlock("a", 0, 2)

        def reads():
            sys.setprofile(pause)
            table.readBlock("a", 0, 2)
            sys.setprofile(None)

        other = threading.Thread(target=reads)
        other.start()
        steps = 0
        while there.acquire(timeout=1):
            steps += 1
            child = os.fork()
            if not child:
                # A lock that nobody gives back is waited for until this.
                signal.alarm(20)
                os._exit(table.readBlock("a", 5, 1).tolist() != [5])
            status = os.waitpid(child, 0)[1]
            go_on.release()
            if status:
                break
        sys.setprofile(None)
        go_on.release(10_000)
        other.join()
    assert status == 0
    assert steps > 20


# ---- blocks of Blosc


PACKED = [
    (dtype, name, shuffle, block)
    for dtype in ("f8", "i4", "u1", "V12", "V40")
    for name, shuffle, block in (
        ("lz4", blosc.SHUFFLE, 2**15), ("lz4", blosc.BITSHUFFLE, 0), ("zstd", blosc.NOSHUFFLE, 2**18),
        ("blosclz", blosc.SHUFFLE, 2**16), ("zlib", blosc.SHUFFLE, 0), ("lz4hc", blosc.SHUFFLE, 7777),
    )
]  # fmt: skip


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize(("dtype", "name", "shuffle", "block"), PACKED)
def test_blocks_are_what_blosc_makes_of_the_whole(dtype, name, shuffle, block, noise):
    rng = np.random.default_rng(5)
    plain = rng.bytes(1_200_000) if noise else np.arange(150_000).astype("i8").tobytes()
    data = memoryview(
        blosc.compress(np.frombuffer(plain, dtype), name.encode(), 5, shuffle, block)
    )
    plain = blosc.decompress(data)
    blocks = Blocks.of(len(data), len(plain), reader_of(data), summed=False)
    if blocks is None:
        assert int.from_bytes(data[8:12], "little") >= len(plain)
        return
    assert blocks.count == -(-len(plain) // blocks.block) > 1
    runs = {(0, blocks.count), (blocks.count - 1, blocks.count), (0, 1)}
    for _ in range(8):
        first = int(rng.integers(0, blocks.count))
        runs.add((first, int(rng.integers(first, blocks.count)) + 1))
    for first, last in runs:
        start, stop = blocks.bytes_of(first, last)
        out = np.zeros(stop - start, np.uint8)
        blocks.unpack(first, last, out)
        assert out.tobytes() == plain[start:stop]


def test_headers_are_not_believed():
    """What does not fit is refused, or unpacked to some bytes of the size that was asked for."""
    plain = np.round(np.random.default_rng(1).normal(size=60_000), 1)
    good = bytes(blosc.compress(plain, b"lz4", 5, blosc.SHUFFLE, 2**14))
    codecs = [
        {"name": "bytes", "configuration": {"endian": sys.byteorder}},
        {"name": "blosc", "configuration": {}},
    ]

    def codec_of(rows):
        return ChunkCodec(codecs, plain.dtype, (rows,)).of_column("x")

    codec = codec_of(len(plain))
    assert codec.blocks(good).count > 1
    for rows in (len(plain) - 1, len(plain) + 1):
        with pytest.raises(ValueError, match="expected"):
            codec_of(rows).blocks(good)
    for data in (good[:-1], good + b"x", good[:12], b""):
        with pytest.raises(ValueError, match=r"expected|not a Blosc"):
            codec.blocks(data)
    rng = np.random.default_rng(2)
    refused = 0
    for turn in range(600):
        bad = bytearray(good)
        # Mostly in the header and the table of blocks.
        where = int(rng.integers(0, 64)) if turn % 3 else int(rng.integers(0, len(good)))
        bad[where] ^= 1 << int(rng.integers(0, 8))
        try:
            blocks = codec.blocks(bytes(bad))
            if blocks is None:
                # Blosc decodes it as a whole.
                codec.decode(bytes(bad))
                continue
            for first in (0, blocks.count // 2, blocks.count - 1):
                start, stop = blocks.bytes_of(first, first + 1)
                out = np.zeros(stop - start + 16, np.uint8)
                blocks.unpack(first, first + 1, out[8:-8])
                assert not out[:8].any()
                assert not out[-8:].any()
        except (ValueError, RuntimeError):
            refused += 1
    assert refused > 100


# ---- chunks that are trusted


@pytest.fixture(params=["local", "s3"])
def asked(request, tmp_path):
    """A name for a table, and a function that returns how often its chunks are asked for."""
    if request.param == "local":
        path = str(tmp_path / "t.rat.zarr")

        def count(read):
            with recorded("open") as opened:
                read()
            return sum("/c/" in str(name) for name, *_ in opened)

        return path, count
    place, proxy = request.getfixturevalue("counted_s3")

    def requests(read):
        proxy.clear()
        read()
        return len(proxy.requests)

    return place.new(), requests


@pytest.mark.parametrize("dtype", ["i4", "T"])
def test_what_is_trusted_is_not_asked_for_again(asked, dtype):
    url, count = asked
    kind = StringDType() if dtype == "T" else dtype
    values = np.array([str(n) for n in range(250)], kind) if dtype == "T" else np.arange(250)
    other = values[::-1].copy()
    with make(url, 250, chunk=100, a=(kind,)) as table:
        table.writeBlock("a", values, 0)
    with (
        RatZarr(url, cacheSeconds=math.inf) as view,
        RatZarr(url, cacheSeconds=0.0) as now,
        RatZarr(url) as writer,
    ):
        # Within a chunk, a whole one, over a border; of text as bytes as well.
        blocks = [(5, 10), (100, 100), (190, 20), (249, 1)]

        def compare(table, expected):
            for start, length in blocks:
                got = table.readBlock("a", start, length).tolist()
                assert got == expected[start : start + length].tolist()
                text = table.readText("a", start, length)
                if text is not None:
                    assert [raw.decode() for piece in text for raw in piece.tolist()] == got

        compare(view, values)
        compare(now, values)
        assert count(lambda: compare(view, values)) == 0
        writer.writeBlock("a", other, 0)
        writer.flush()
        assert count(lambda: compare(view, values)) == 0
        compare(now, other)
        view.refresh()
        compare(view, other)
        assert count(lambda: compare(view, other)) == 0
        # What it writes itself it sees, in part or as a whole.
        for start, length in ((7, 3), (100, 100), (195, 10)):
            other[start : start + length] = values[:length]
            view.writeBlock("a", values[:length], start)
            compare(view, other)
        view.setRowCount(8)
        view.setRowCount(250)
        other[8:] = "" if dtype == "T" else 0
        compare(view, other)
        view.deleteColumn("a")
        view.createColumn("a", kind)
        compare(view, np.zeros(250, kind))


def test_what_was_trusted_for_long_is_asked_for_again(asked):
    url, count = asked
    with make(url, 100, chunk=50, a=("i4",)) as table:
        table.writeBlock("a", np.arange(100), 0)
    with RatZarr(url, readOnly=True, cacheSeconds=2.5) as view:
        view.readBlock("a", 0, 10)
        began = time.monotonic()
        assert count(lambda: view.readBlock("a", 0, 10)) == 0
        with RatZarr(url) as writer:
            writer.writeBlock("a", [-1], 5)
        while view.readBlock("a", 5, 1).tolist() == [5]:
            assert time.monotonic() < began + LIMIT
            time.sleep(0.05)
        assert time.monotonic() > began + 2


def test_rows_never_written_are_asked_for_once(asked):
    url, count = asked
    make(url, 100, chunk=50, a=("i4",), s=(StringDType(),)).close()
    with RatZarr(url, cacheSeconds=math.inf) as view:
        for name, empty in (("a", 0), ("s", "")):
            view.readBlock(name, 3, 10)

            def read(name=name, empty=empty):
                assert view.readBlock(name, 20, 10).tolist() == [empty] * 10

            assert count(read) == 0
        view.writeBlock("a", [7], 3)
        assert view.readBlock("a", 3, 2).tolist() == [7, 0]


def test_a_page_of_a_trusted_chunk_fetches_all_of_it(counted_s3):
    """A chunk is one object, which is fetched as a whole for any of its rows."""
    place, proxy = counted_s3
    url = place.new()
    values = values_of("f8")
    with make(url, ROWS, chunk=CHUNK, a=("f8",)) as table:
        table.writeBlock("a", values, 0)
    with RatZarr(url, readOnly=True, cacheSeconds=math.inf) as view:
        proxy.clear()
        for row in np.random.default_rng(1).permutation(CHUNK)[:200].tolist():
            assert view.readBlock("a", row, 1) == values[row]
        assert [one.method for one in proxy.requests] == ["GET", "GET"]


def test_a_write_behind_a_read_does_not_leave_the_old_rows(counted_s3):
    """Requests of both are under way at once; whichever is answered first."""
    place, proxy = counted_s3
    url = place.new()
    new = [f"new {number}" for number in range(3)]
    with make(url, 100, chunk=100, **dict.fromkeys(("a", *new), ("i4",))) as table:
        table.writeBlock("a", np.zeros(100), 0)
    with RatZarr(url, cacheSeconds=math.inf) as table:
        table.readBlocks(["a", *new], 0, 0)
        # Chunks that are replaced, and chunks that were never written.
        for value, name in enumerate(["a", *new, "a", "a", "a"], 1):
            table.refresh()
            proxy.delay = 0.05
            length = 100 if value % 2 else 99
            block = np.full(length, value)
            threads = [
                threading.Thread(target=table.writeBlock, args=(name, block, 0)),
                *(threading.Thread(target=table.readBlock, args=(name, 0, 5)) for _ in range(3)),
            ]
            for thread in threads:
                thread.start()
                time.sleep(0.02)
            for thread in threads:
                thread.join()
            proxy.delay = 0
            assert table.readBlock(name, 0, 5).tolist() == [value] * 5


def test_arguments_of_the_cache(tmp_path):
    path = tmp_path / "t.rat.zarr"
    make(path, 100, chunk=50, a=("i4",)).close()
    for name, wrong in (
        ("cacheBytes", (-1, 1.5, True, "1")),
        ("cacheSeconds", (-1, "1", math.nan, True, None)),
    ):
        for value in wrong:
            with pytest.raises(ArgumentError, match=name):
                RatZarr(path, **{name: value})
    with RatZarr(path, cacheBytes=0, cacheSeconds=math.inf) as table:
        table.writeBlock("a", np.arange(100), 0)
        with recorded("open") as opened:
            for _ in range(3):
                assert table.readBlock("a", 10, 5).tolist() == [10, 11, 12, 13, 14]
        assert sum("/c/" in str(name) for name, *_ in opened) == 3
