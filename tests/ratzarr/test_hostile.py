"""Stores made by somebody else: they can't make us read or write elsewhere, nor use up memory.

What has to be small is done in a process of its own that may not have more memory than a
bound; the bombs are real ones, packed by the codecs themselves.
"""

import contextlib
import copy
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path
from typing import ClassVar

import numcodecs.zstd
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import Blosc

from ratzarr import (
    ArgumentError,
    DamagedError,
    FormatVersionError,
    RatZarr,
    RatZarrError,
    StoreError,
    TooLargeError,
    UnsupportedCodecError,
)
from ratzarr.format import limits
from ratzarr.format.dtypes import BYTES
from ratzarr.format.names import from_json, to_json

STRING = np.dtypes.StringDType()
MB, GB = 2**20, 2**30


# ---- stores, and ways to change them that go round the code under test


@pytest.fixture
def store(tmp_path):
    """A table of 10 rows with a column of each kind."""
    path = tmp_path / "store.rat.zarr"
    with RatZarr(path) as table:
        table.setRowCount(10)
        table.setChunkSize(4)
        table.createColumn("number", np.int32)
        table.writeBlock("number", np.arange(10), 0)
        table.createColumn("text", STRING)
        table.writeBlock("text", np.array([f"t{i}" for i in range(10)], STRING), 0)
        table.createColumn("bytes", BYTES)
        table.writeBlock("bytes", np.array([b"b%d" % i for i in range(10)], object), 0)
    return path


def document(store, key):
    return json.loads((store / key / "zarr.json").read_bytes())


def rewrite(store, key, document):
    """Write a document as another program would, without a checksum."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    (store / key / "zarr.json").write_bytes(text)


@contextlib.contextmanager
def changed(store, key):
    found = document(store, key)
    yield found
    rewrite(store, key, found)


def crc32c(data):
    """Return data with its CRC-32C, as zarr's own codec appends it (bit by bit, as RFC 3720)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return data + struct.pack("<I", crc ^ 0xFFFFFFFF)


def vlen(*items, count=None):
    """Pack items as zarr's vlen-utf8 and vlen-bytes do."""
    head = struct.pack("<I", len(items) if count is None else count)
    return head + b"".join(struct.pack("<I", len(item)) + item for item in items)


def column(store, key, *, rows, chunk_rows, data_type, codecs, fill, chunk, width=None):
    """Write a column with one chunk, by hand."""
    flat = width is None
    rewrite_to = store / "RAT" / key
    (rewrite_to / "c").mkdir(parents=True)
    tail = [] if flat else [width]
    rewrite(
        store,
        f"RAT/{key}",
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *tail],
            "data_type": data_type,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [chunk_rows, *tail]},
            },
            "chunk_key_encoding": {"name": "default"},
            "fill_value": fill,
            "codecs": codecs,
            "attributes": {},
        },
    )
    if chunk is not None:
        path = rewrite_to / "c/0" if flat else rewrite_to / "c/0/0"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(chunk)


@contextlib.contextmanager
def quick(seconds):
    """Bound the time of the processor, and of the clock less tightly: others may keep this busy."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    assert time.process_time() - processor < seconds
    assert time.perf_counter() - clock < 4 * seconds


def small(code, *, store, bound=600 * MB, seconds=20):
    """Run code in a process that can have ``bound`` bytes of memory; return what it prints."""
    head = """
        import resource, sys, time, numpy as np
        import ratzarr, zarr.codecs, numcodecs.blosc
        from ratzarr import *
        store = sys.argv[1]
        with RatZarr(store, readOnly=True) as table:  # the imports that come late, and the threads
            table.readBlocks(["number", "text"], 0, 10)
        used = 4096 * int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
        started = time.perf_counter()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), store, str(bound)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


REFUSED = """
def refused(what, error, *fragments):
    started = time.perf_counter()
    try:
        with RatZarr(store) as table:
            what(table)
    except error as caught:
        for fragment in fragments:
            assert fragment in str(caught), caught
        # Refused, and not tried in vain.
        cause = caught.__cause__
        assert isinstance(cause, RatZarrError) or not isinstance(cause, MemoryError), cause
    else:
        raise SystemExit("not refused")
    assert time.perf_counter() - started < 5
"""


# ---- chunks

BYTES_CODEC = {"name": "bytes", "configuration": {"endian": "little"}}
BLOSC = {
    "name": "blosc",
    "configuration": {
        "typesize": 4, "cname": "zstd", "clevel": 1, "shuffle": "noshuffle", "blocksize": 0,
    },
}  # fmt: skip
ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 5}}
CRC = {"name": "crc32c"}
COMPRESSORS = {"blosc": BLOSC, "zstd": ZSTD, "gzip": GZIP}
VLEN = {"string": ("vlen-utf8", ""), "variable_length_bytes": ("vlen-bytes", "")}


@pytest.fixture(scope="module")
def bombs():
    """1 GiB of zeros, packed by each of the codecs."""
    zeros = np.zeros(GB, np.uint8)
    return {
        "blosc": bytes(Blosc("lz4", 1, Blosc.NOSHUFFLE).encode(zeros)),
        "zstd": bytes(numcodecs.zstd.compress(zeros, 1)),
        "gzip": zlib_bomb(GB // 2),
    }


def zlib_bomb(size):
    packer = zlib.compressobj(1, wbits=31)
    piece = bytes(16 * MB)
    packed = [packer.compress(piece) for _ in range(size // len(piece))]
    return b"".join([*packed, packer.flush()])


class TestBombs:
    def test_chunks_that_unpack_to_a_gigabyte(self, store, bombs):
        values = {"int32": "5", "string": "'x'", "variable_length_bytes": "b'x'"}
        uses = []
        for codec, bomb in bombs.items():
            assert len(bomb) < 10 * MB
            for kind, value in values.items():
                first = {"name": VLEN[kind][0]} if kind in VLEN else BYTES_CODEC
                column(
                    store, f"{codec} {kind}", rows=10, chunk_rows=1000, data_type=kind,
                    fill=VLEN.get(kind, (0, 0))[1], codecs=[first, COMPRESSORS[codec]], chunk=bomb,
                )  # fmt: skip
                name = f"{codec} {kind}"
                for use in (
                    f"lambda table: table.readBlock({name!r}, 0, 10)",
                    f"lambda table: table.writeBlock({name!r}, [{value}], 3)",
                ):
                    uses += [f"refused({use}, DamagedError, 'RAT/{name}/c/0')"]
        # Strings may be long: what is in a chunk is looked at after unpacking, so up to the limit.
        head = "import os; os.environ['RATZARR_MAX_CHUNK_BYTES'] = str(2**26)"
        small("\n".join([REFUSED, head, *uses]), store=store, bound=400 * MB)

    def test_chunks_that_claim_gigabytes_of_rows(self, store):
        column(
            store, "wide", rows=10, chunk_rows=2**30, data_type="float64", fill=0.0,
            codecs=[BYTES_CODEC, ZSTD], chunk=bytes(numcodecs.zstd.compress(bytes(1000))),
        )  # fmt: skip
        # Four bytes each, packed to next to nothing; many times that in memory.
        column(
            store, "empty", rows=10, chunk_rows=2**28, data_type="string", fill="",
            codecs=[{"name": "vlen-utf8"}, ZSTD],
            chunk=bytes(numcodecs.zstd.compress(struct.pack("<I", 2**28) + bytes(1000))),
        )  # fmt: skip
        code = """
            for name, value in (("wide", 1.0), ("empty", "x")):
                for use in (
                    lambda table: table.readBlock(name, 0, 10),
                    lambda table: table.writeBlock(name, [value], 0),
                    lambda table: table.writeBlock(name, [value] * 10, 0),
                ):
                    refused(use, TooLargeError, name, "RATZARR_MAX_CHUNK_BYTES")
            # The other columns, and all that needs no chunk of these, are there.
            with RatZarr(store) as table:
                assert table.getColumnNames() == ["number", "text", "bytes", "empty", "wide"]
                assert table.getColumnChunkSize("wide") == 2**30
                assert table.readBlock("number", 0, 3).tolist() == [0, 1, 2]
                table.deleteColumn("wide")
        """
        small(REFUSED + textwrap.dedent(code), store=store, bound=200 * MB)

    @pytest.mark.parametrize("count", [2**32 - 1, 2**31, 5, 3, 0])
    @pytest.mark.parametrize("kind", VLEN)
    @pytest.mark.parametrize("packed", ["plainly", "by zstd"])
    def test_a_count_of_strings_that_is_not_so(self, store, kind, packed, count):
        data = vlen(b"a", b"b", b"c", b"d", count=count)
        codecs = [{"name": VLEN[kind][0]}]
        if packed == "by zstd":
            data, codecs = bytes(numcodecs.zstd.compress(data)), [*codecs, ZSTD]
        column(
            store, "x", rows=4, chunk_rows=4, data_type=kind, fill="", codecs=codecs, chunk=data
        )
        with (
            RatZarr(store) as table,
            pytest.raises(DamagedError, match=rf"RAT/x/c/0.*expected 4 values, got {count}$"),
        ):
            table.readBlock("x", 0, 4)

    @pytest.mark.parametrize("length", [0, 1, 3, 5, 2**31 - 1, 2**31, 2**32 - 1])
    @pytest.mark.parametrize("kind", VLEN)
    def test_a_string_that_is_longer_than_its_chunk(self, store, kind, length):
        data = vlen(b"a", b"b", b"c") + struct.pack("<I", length)
        chunk = data.replace(struct.pack("<I", 3), struct.pack("<I", 4), 1)
        codecs = [{"name": VLEN[kind][0]}]
        column(
            store, "x", rows=4, chunk_rows=4, data_type=kind, fill="", codecs=codecs, chunk=chunk
        )
        with RatZarr(store) as table:
            if length == 0:
                assert [str(v) for v in table.readBlock("x", 0, 4).tolist()[:3]] in (
                    ["a", "b", "c"],
                    ["b'a'", "b'b'", "b'c'"],
                )
            else:
                with pytest.raises(DamagedError):
                    table.readBlock("x", 0, 4)

    def test_many_large_chunks_are_not_unpacked_at_once(self, store):
        """Each of them is allowed; sixteen together are not."""
        chunk = bytes(numcodecs.zstd.compress(np.zeros(64 * MB, np.uint8)))
        for number in range(16):
            column(
                store, f"x{number}", rows=10, chunk_rows=16 * MB, data_type="int32", fill=0,
                codecs=[BYTES_CODEC, ZSTD], chunk=chunk,
            )  # fmt: skip
        code = """
            import os
            os.environ["RATZARR_MAX_CHUNK_BYTES"] = str(100 * 2**20)
            with RatZarr(store) as table:
                found = table.readBlocks([f"x{i}" for i in range(16)], 0, 10)
            assert all((block == 0).all() for block in found.values()) and len(found) == 16
        """
        small(code, store=store, bound=500 * MB)

    def test_files_of_holes(self, store):
        """Of a terabyte, and next to nothing on the disk."""
        keys = ("RAT/number/c/0", "RAT/number/zarr.json", "RAT/zarr.json")
        for key in keys:
            os.truncate(store / key, 2**40)
            with pytest.raises(DamagedError, match=key):
                RatZarr(store).readBlock("number", 0, 10)
            os.truncate(store / key, 100)


class TestPackedBytes:
    """What a compressor of another make could have written, and what none can."""

    ROWS = np.arange(1000, dtype="<i4")

    def read(self, store, codec, chunk, kind="int32", fill=0):
        first = {"name": VLEN[kind][0]} if kind in VLEN else BYTES_CODEC
        rows = 1000 if kind == "int32" else 3
        column(
            store, "x", rows=rows, chunk_rows=rows, data_type=kind, fill=fill,
            codecs=[first, *codec], chunk=chunk,
        )  # fmt: skip
        with changed(store, "RAT") as table:
            table["attributes"]["ROWCOUNT"] = 1000
        with RatZarr(store) as table:
            return table.readBlock("x", 0, rows)

    def zstd_unknown(self, data, window=0x58):
        """A frame that does not say how large it is, of one block that is not packed."""
        block = struct.pack("<I", (len(data) << 3) | 1)[:3] + data
        return b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + block

    @pytest.mark.parametrize("name", COMPRESSORS)
    def test_what_the_codecs_write(self, store, name):
        pack = {
            "blosc": Blosc("lz4", 5, Blosc.SHUFFLE).encode,
            "zstd": numcodecs.zstd.compress,
            "gzip": lambda values: gzip.compress(values.tobytes()),
        }[name]
        got = self.read(store, [COMPRESSORS[name]], bytes(pack(self.ROWS)))
        assert got.tolist() == self.ROWS.tolist()

    def test_a_checksum_before_the_compressor(self, store):
        summed = crc32c(self.ROWS.tobytes())
        got = self.read(store, [CRC, ZSTD], numcodecs.zstd.compress(summed))
        assert got.tolist() == self.ROWS.tolist()

    def test_two_checksums(self, store):
        chunk = crc32c(numcodecs.zstd.compress(crc32c(self.ROWS.tobytes())))
        got = self.read(store, [CRC, ZSTD, CRC], chunk)
        assert got.tolist() == self.ROWS.tolist()

    def test_a_zstd_frame_of_unknown_size(self, store):
        got = self.read(store, [ZSTD], self.zstd_unknown(self.ROWS.tobytes()))
        assert got.tolist() == self.ROWS.tolist()

    def test_a_zstd_frame_of_unknown_size_with_strings(self, store):
        with pytest.raises(DamagedError, match="without its uncompressed size"):
            self.read(store, [ZSTD], self.zstd_unknown(vlen(b"a", b"b", b"c")), "string", "")

    @pytest.mark.parametrize(
        "change",
        {
            "cut off": lambda data: data[:-1],
            "cut off in the header": lambda data: data[:5],
            "cut off after the magic": lambda data: data[:4],
            "nothing": lambda data: b"",
            "something behind": lambda data: data + b"x",
            "twice": lambda data: data + data,
        }.items(),
        ids=lambda pair: pair[0],
    )
    @pytest.mark.parametrize("name", [*COMPRESSORS, "plain", "crc32c", "zstd of unknown size"])
    def test_bytes_missing_or_too_many(self, store, name, change):
        values = self.ROWS.tobytes()
        codec, data = {
            "blosc": ([BLOSC], bytes(Blosc("lz4", 5, Blosc.SHUFFLE).encode(values))),
            "zstd": ([ZSTD], numcodecs.zstd.compress(values)),
            "gzip": ([GZIP], gzip.compress(values)),
            "plain": ([], values),
            "crc32c": ([CRC], crc32c(values)),
            "zstd of unknown size": ([ZSTD], self.zstd_unknown(values)),
        }[name]
        with pytest.raises(DamagedError, match="RAT/x/c/0"):
            self.read(store, codec, change[1](data))

    @pytest.mark.parametrize("rows", [0, 999, 1001])
    @pytest.mark.parametrize("name", COMPRESSORS)
    def test_another_number_of_rows(self, store, name, rows):
        values = np.arange(rows, dtype="<i4").tobytes()
        pack = {
            "blosc": Blosc("lz4").encode, "zstd": numcodecs.zstd.compress, "gzip": gzip.compress,
        }[name]  # fmt: skip
        with pytest.raises(DamagedError, match="4000"):
            self.read(store, [COMPRESSORS[name]], bytes(pack(values)))

    def test_blosc_with_a_lie_about_its_length(self, store):
        """Blosc believes its header: it would read on beyond the end of the buffer."""
        good = bytearray(Blosc("lz4", 5, Blosc.SHUFFLE).encode(self.ROWS))
        for packed in (0, 16, len(good) - 1, len(good) + 1, 2**31 - 1, 2**32 - 1):
            bad = good.copy()
            bad[12:16] = struct.pack("<I", packed)
            with pytest.raises(DamagedError):
                self.read(store, [BLOSC], bytes(bad))
            (store / "RAT/x/c/0").unlink()
            for path in ("c", "."):
                _remove(store / "RAT/x" / path)

    def test_flipped_bits_without_a_checksum(self, store):
        """They may give wrong values, as nothing tells; never a crash, nor another shape."""
        good = bytes(Blosc("lz4", 5, Blosc.SHUFFLE).encode(self.ROWS))
        assert self.read(store, [BLOSC], good).tolist() == self.ROWS.tolist()
        chunk = store / "RAT/x/c/0"
        refused = 0
        for position in range(min(len(good), 200)):
            for mask in (1, 0x80, 0xFF):
                bad = bytearray(good)
                bad[position] ^= mask
                chunk.write_bytes(bad)
                with RatZarr(store) as table:
                    try:
                        assert table.readBlock("x", 0, 1000).shape == (1000,)
                    except DamagedError:
                        refused += 1
        assert refused > 50


def _remove(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


class TestCodecs:
    CHAINS: ClassVar = {
        "sharding_indexed": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [2], "codecs": [BYTES_CODEC], "index_codecs": [BYTES_CODEC],
                },
            }
        ],
        "numcodecs.zlib": [BYTES_CODEC, {"name": "numcodecs.zlib", "configuration": {"level": 1}}],
        "numcodecs.pickle": [{"name": "numcodecs.pickle"}],
        "os.system": [BYTES_CODEC, "os.system"],
        "": [BYTES_CODEC, ""],
        "None": [BYTES_CODEC, None],
        "17": [BYTES_CODEC, 17],
        "['zstd']": [BYTES_CODEC, ["zstd"]],
        "one compressor after another": [BYTES_CODEC, ZSTD, GZIP],
        "after another": [BYTES_CODEC, ZSTD, CRC, ZSTD],
        "expected bytes among them": [{"name": "vlen-utf8"}, ZSTD],
        "'transpose' is out of place": [
            BYTES_CODEC, {"name": "transpose", "configuration": {"order": [0]}},
        ],
    }  # fmt: skip

    @pytest.mark.parametrize("said", CHAINS)
    def test_codecs_that_are_not_run(self, store, said):
        with changed(store, "RAT/number") as found:
            found["codecs"] = self.CHAINS[said]
        with RatZarr(store) as table:
            assert table.getColumnNames() == ["number", "text", "bytes"]
            for use in (
                lambda: table.openColumn("number"),
                lambda: table.readBlock("number", 0, 1),
                lambda: table.writeBlock("number", [1], 0),
            ):
                with pytest.raises(RatZarrError) as caught:
                    use()
                assert isinstance(caught.value, UnsupportedCodecError | DamagedError)
                assert said in str(caught.value)
                assert "number" in str(caught.value)
            assert table.readBlock("text", 1, 1).tolist() == ["t1"]

    def test_a_package_that_a_codec_is_named_after_is_not_imported(self, store, tmp_path):
        """An installed package may say that it has a codec of any name; zarr would import it."""
        package = tmp_path / "packages"
        (package / "evil-1.dist-info").mkdir(parents=True)
        (package / "evil-1.dist-info/METADATA").write_text(
            "Metadata-Version: 2.1\nName: evil\nVersion: 1\n"
        )
        for kind, name in (
            ("zarr.codecs", "evil"), ("zarr.chunk_key_encoding", "evil"),
        ):  # fmt: skip
            with (package / "evil-1.dist-info/entry_points.txt").open("a") as file:
                file.write(f"[{kind}]\n{name} = evil:Evil\n")
        (package / "evil.py").write_text("open('imported', 'w')\nclass Evil: pass\n")
        for key, change in (
            ("codecs", [BYTES_CODEC, {"name": "evil"}]),
            ("chunk_key_encoding", {"name": "evil"}),
        ):
            with changed(store, "RAT/number") as found:
                before = copy.deepcopy(found)
                found[key] = change
            code = f"import ratzarr; ratzarr.RatZarr({str(store)!r}).readBlock('number', 0, 1)"
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=tmp_path,
                env=os.environ
                | {"PYTHONPATH": f"{package}{os.pathsep}{Path(__file__).parents[2]}"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert "Error: " in done.stderr
            assert "evil" in done.stderr
            assert not (tmp_path / "imported").exists()
            rewrite(store, "RAT/number", before)

    def test_what_zarr_writes_by_default_is_read_and_written(self, tmp_path):
        path = tmp_path / "x.rat.zarr"
        RatZarr(path).setRowCount(10)
        group = zarr.open_group(path, mode="r+")["RAT"]
        for name, values in (
            ("number", np.arange(10.0)),
            ("text", np.array(list("abcdefghij"), STRING)),
        ):
            group.create_array(name, data=values, chunks=(4,))
        two = np.arange(20, dtype="i2").reshape(10, 2)
        group.create_array(
            "turned", data=two, chunks=(4, 2), filters=[zarr.codecs.TransposeCodec(order=(1, 0))]
        )
        with RatZarr(path) as table:
            assert table.readBlock("number", 0, 10).tolist() == list(range(10))
            assert "".join(table.readBlock("text", 0, 10).tolist()) == "abcdefghij"
            assert table.readBlock("turned", 0, 10).tolist() == two.tolist()
            table.writeBlock("turned", [[7, 8]], 5)
            table.writeBlock("text", ["x"], 5)
        two[5] = [7, 8]
        assert group["turned"][:].tolist() == two.tolist()
        assert "".join(group["text"][:]) == "abcdexghij"

    @pytest.mark.parametrize(
        "change",
        [
            {"blocksize": 2**31}, {"blocksize": -1}, {"typesize": 2**40}, {"clevel": 10**9},
            {"cname": "snappy"}, {"cname": "x" * 10**6}, {"shuffle": []}, {"level": 3}, {},
        ],
        ids=lambda change: f"{change!r:.30}",
    )  # fmt: skip
    def test_a_configuration_that_the_compressor_does_not_take(self, store, change):
        with changed(store, "RAT/number") as found:
            found["codecs"][1]["configuration"] |= change
            if not change:
                found["codecs"][1]["configuration"] = {"blosc": 1}
        with RatZarr(store) as table, contextlib.suppress(RatZarrError):
            table.writeBlock("number", [1, 2, 3, 4], 0)


class TestLimits:
    def test_a_new_column_gets_chunks_that_can_be_read(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RATZARR_MAX_CHUNK_BYTES", "4000")
        with RatZarr(tmp_path / "x.rat.zarr") as table:
            table.setRowCount(2000)
            table.setChunkSize(1000)
            table.createColumn("a", np.int32)
            table.createColumn("b", np.float64)
            table.createColumn("c", np.int32, 3)
            table.createColumn("d", np.float64, chunkSize=20)
            table.createColumn("e", STRING)
            sizes = {name: table.getColumnChunkSize(name) for name in "abcde"}
            assert sizes == {"a": 1000, "b": 500, "c": 333, "d": 20, "e": 250}
            table.writeBlock("b", np.arange(2000.0), 0)
            assert table.readBlock("b", 0, 2000).tolist() == list(range(2000))
            assert table.getRATChunkSize() == 1000
            with pytest.raises(TooLargeError, match=r"'f'.*8000"):
                table.createColumn("f", np.float64, 1000)
            assert not table.colExists("f")

    def test_strings_that_could_not_be_read_again_are_not_written(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RATZARR_MAX_CHUNK_BYTES", "4000")
        path = tmp_path / "x.rat.zarr"
        with RatZarr(path) as table:
            table.setRowCount(100)
            table.createColumn("e", STRING)
            table.writeBlock("e", ["x" * 2500], 3)
            with pytest.raises(TooLargeError, match="RATZARR_MAX_CHUNK_BYTES"):
                table.writeBlock("e", ["y" * 2500], 4)
            assert table.readBlock("e", 3, 2).tolist() == ["x" * 2500, ""]
        # The limit is read when a column is opened.
        monkeypatch.setenv("RATZARR_MAX_CHUNK_BYTES", "10000")
        with RatZarr(path) as table:
            table.writeBlock("e", ["y" * 2500], 4)
        monkeypatch.setenv("RATZARR_MAX_CHUNK_BYTES", "4000")
        with RatZarr(path) as table, pytest.raises(RatZarrError):
            table.readBlock("e", 3, 2)

    @pytest.mark.parametrize("text", ["x", "-1", "0", "1e9", "1 GB", "٣", "9" * 30])
    def test_a_limit_that_is_none(self, store, monkeypatch, text):
        monkeypatch.setenv("RATZARR_MAX_CHUNK_BYTES", text)
        with (
            RatZarr(store) as table,
            pytest.raises(ArgumentError, match="RATZARR_MAX_CHUNK_BYTES"),
        ):
            table.createColumn("x", "int32")

    def test_a_chunk_size_of_a_program_that_did_not_count(self, tmp_path):
        with RatZarr(tmp_path / "x.rat.zarr") as table:
            table.setRowCount(5)
            table.setChunkSize(2**62)
            table.createColumn("x", "float64")
            assert table.getColumnChunkSize("x") == GB // 8

    def test_a_block_larger_than_the_memory(self, store):
        with RatZarr(store) as table:
            table.setRowCount(2**62)
            for rows in (2**62, 2**50, 2**45):
                with quick(1):
                    with pytest.raises(TooLargeError, match="memory of this computer"):
                        table.readBlock("number", 0, rows)
                    with pytest.raises(MemoryError):
                        table.readBlocks(["text", "number"], 0, rows)
            assert table.readBlock("number", 0, 12).tolist() == [*range(10), 0, 0]
            assert table.readBlock("number", 2**62 - 3, 100).tolist() == [0, 0, 0]

    def test_memory_is_that_of_the_computer_or_less(self, tmp_path):
        physical = int(
            next(
                line
                for line in Path("/proc/meminfo").read_text().split("\n")
                if line.startswith("MemTotal")
            ).split()[1]
        )
        assert limits.memory_there(files=()) == pytest.approx(physical * 1024, rel=0.1)
        texts = (b"123456\n", 123456), (b"max\n", None), (b"\xff", None)
        for number, (text, expected) in enumerate(texts):
            # A file is read once: each text is in one of its own.
            file = tmp_path / f"memory.max{number}"
            file.write_bytes(text)
            found = limits.memory_there(files=(str(file),))
            assert found == expected if expected else found > 10**6


# ---- documents


class TestDocuments:
    def test_depth(self):
        for depth in (1, 60, 63, 64, 65, 66, 100, 10**3, 10**5, 10**6):
            for opens, closes in ((b"[", b"]"), (b'{"a":', b"}")):
                inner = opens * (depth - 2) + b"1" + closes * (depth - 2)
                data = b'{"attributes":{"x":' + inner + b"}}"
                if depth < 2:
                    continue
                if depth <= 64:
                    found = from_json(data, "here")
                    assert copy.deepcopy(found) == found
                    assert from_json(to_json(found), "here") == found
                else:
                    with pytest.raises(DamagedError, match=r"here.*deep"):
                        from_json(data, "here")

    @pytest.mark.parametrize(
        "text",
        [
            '"]]]]]]]]"', r'"\"]]]]]"', r'"\\"', '"[[[["', r'"\u005b\u005d]]"', '"}{"', '"\\\\\\"]]"',
        ],
    )  # fmt: skip
    def test_brackets_in_strings_are_none(self, text):
        inner = f"[{text}," * 61 + "1" + "]" * 61
        data = f'{{"attributes":{{"x":{inner}}}}}'.encode()
        assert from_json(data, "here") == json.loads(data)
        inner = f"[{text}," * 70 + "1" + "]" * 70
        with pytest.raises(DamagedError, match=r"here.*deep"):
            from_json(f'{{"attributes":{{"x":{inner}}}}}'.encode(), "here")

    @pytest.mark.parametrize(
        "data",
        [
            b"[" * 10**6,
            b"]" * 10**6,
            b'"' * 10**6,
            b'"\\' * 10**6,
            b'{"a":' * 10**6,
            b"[" * 10**6 + b'"' + b"]" * 10**6,
            ("[" * 500).encode("utf-16"),
            ("[" * 500 + "\u5d5d" * 1000).encode("utf-16-le"),
            "{}".encode("utf-16"),
            "{}".encode("utf-32"),
            b'\xef\xbb\xbf{"a": 1}',
            b'{"a": "\xff"}',
            b'{"a": ' + b"9" * 10**6 + b"}",
            b'{"a": 1' + b"0" * 5000 + b"}",
            b'{"attributes": null}',
            b'{"attributes": []}',
            b"NaN",
            b"\0" * 1000,
        ],
        ids=lambda data: f"{data[:12]!r} {len(data)}",
    )
    def test_what_is_no_document(self, data):
        with quick(2), pytest.raises(DamagedError, match="here"):
            from_json(data, "here")

    def test_size(self):
        fill = b'"' + b"x" * (64 * MB) + b'"'
        with pytest.raises(DamagedError, match=r"here.*67108"):
            from_json(b'{"attributes": {"x": ' + fill + b"}}", "here")
        values = b"[" + b"[]," * (2**22) + b"[]]"
        with pytest.raises(DamagedError, match=r"here.*values"):
            from_json(b'{"attributes": {"x": ' + values + b"}}", "here")

    def test_what_could_not_be_read_again_is_not_written(self, store):
        deep = 1
        for _ in range(70):
            deep = [deep]
        deeper, circle = {"x": deep}, []
        for _ in range(100_000):
            deeper = [deeper]
        circle.append(circle)
        with RatZarr(store) as table:
            attributes = table.getColumnAttributeMapping("number")
            before = document(store, "RAT/number")
            for value in (deep, deeper, circle, "x" * (65 * MB)):
                with pytest.raises(TooLargeError):
                    attributes["mine"] = value
                assert document(store, "RAT/number") == before
                assert "mine" not in attributes

    def test_halves_of_surrogate_pairs(self, store):
        """JSON's escapes can have them, UTF-8 can't; a change of something else keeps them."""
        for key in ("RAT", "RAT/number"):
            text = json.dumps(document(store, key))
            assert '"attributes": {' in text
            rewrite(
                store,
                key,
                text.replace(
                    '"attributes": {', r'"attributes": {"\ud800": "x\udfff", ', 1
                ).encode(),
            )
        with RatZarr(store) as table:
            table.setRowCount(11)
            table.writeBlock("number", [5], 10)
            table.createColumn("more", "int32")
        for key in ("RAT", "RAT/number"):
            assert document(store, key)["attributes"]["\ud800"] == "x\udfff"
        assert document(store, "RAT")["attributes"]["COLUMN_ORDER"][-1] == "more"

    def test_no_attributes_at_all(self, store):
        """Zarr does not ask for them."""
        with changed(store, "RAT/number") as found:
            del found["attributes"]
        with RatZarr(store) as table:
            table.writeBlock("number", [9], 0)
            table.getColumnAttributeMapping("number")["x"] = 1
            assert table.readBlock("number", 0, 2).tolist() == [9, 1]

    def test_a_million_names_in_the_order(self, store):
        with changed(store, "RAT") as found:
            attributes = found["attributes"]
            attributes["COLUMN_ORDER"] = [f"column {i}" for i in range(10**6)] + ["text"]
        with quick(15), RatZarr(store) as table:
            assert table.getColumnNames() == ["text", "bytes", "number"]
            assert table.readBlock("number", 9, 1).tolist() == [9]

    def test_rows_without_end(self, store):
        with changed(store, "RAT") as found:
            found["attributes"]["ROWCOUNT"] = 2**62
        for name in ("number", "text", "bytes"):
            with changed(store, f"RAT/{name}") as found:
                found["shape"] = [2**62]
        code = """
            with RatZarr(store) as table:
                assert table.getRowCount() == 2**62
                assert table.getColumnNames() == ["number", "text", "bytes"]
                assert table.readBlock("number", 0, 10).tolist() == list(range(10))
                assert table.readBlock("text", 8, 4).tolist() == ["t8", "t9", "", ""]
                assert table.readBlock("number", 2**62 - 2, 10).tolist() == [0, 0]
                table.writeBlock("number", [5], 2**62 - 1)
                table._repr_html_()
                table.setRowCount(9)
                assert table.readBlock("number", 0, 100).tolist() == list(range(9))
                table.setRowCount(2**62)
                assert table.readBlock("number", 8, 3).tolist() == [8, 0, 0]
                assert table.readBlock("text", 8, 3).tolist() == ["t8", "", ""]
                assert table.readBlock("number", 2**62 - 1, 1).tolist() == [0]
                table.deleteColumn("text")
            RatZarr.delete(store)
            assert time.perf_counter() - started < 5
        """
        small(code, store=store, bound=200 * MB)
        assert not store.exists()


GARBAGE = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**62, 2**63, 2**64, 10**4000, -(2**70), 0.5, 1e3,
    float("nan"), float("inf"), -0.0, "", "5", "NaN", "x" * 100_000, "\0", "../../evil", "\ud800",
    "\x1b[2J", "/dev/zero", "true", [], [None], [[]], [2**62], [0], [-1], [1, 2, 3], ["a"] * 3,
    [[1, 2**62]], [10, 2**40], {}, {"name": None}, {"name": "regular"}, {"name": []},
    {"name": "default", "configuration": {"separator": "../"}},
    {"name": "rectilinear", "configuration": {"chunk_shapes": [[[1, 2**62]]]}},
    {"name": "regular", "configuration": {"chunk_shape": [0]}},
    {"name": "regular", "configuration": {"chunk_shape": [2**62]}},
    {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 2**31}},
    {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2**31 - 1}},
    {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2**62}},
    {"name": "null_terminated_bytes", "configuration": {"length_bytes": 0}},
    {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**30}},
    {"name": "struct", "configuration": {"fields": [["a", "int32"]] * 3}},
    {"name": "raw_bytes", "configuration": {"length_bytes": 2**31 - 1}},
    "r99999999999", "float128", "complex128", "string", "bool", "float64", "variable_length_bytes",
    "numpy.timedelta64", {"must_understand": True}, {"must_understand": False, "x": [1]},
]  # fmt: skip
NAMES = [
    "ROWCOUNT", "CHUNKSIZE", "COLUMN_ORDER", "FORMAT_VERSION", "zarr_conventions", "RESIZE",
    "MODIFICATIONLOG", "NAME", "COMPLETE", "ROWS_DONE", "COLUMN_ID", "CUTTING", "WAS_CUT",
    "consolidated_metadata", "storage_transformers", "dimension_names", "x",
]  # fmt: skip


def nodes(value, path=()):
    """Yield the paths of all values in a document, its own included."""
    yield path
    items = ()
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield from nodes(inner, (*path, key))


def replaced(value, path, by):
    if not path:
        return by
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], by)
    return value


def use(path):
    """Do with a table whatever one does; what is refused is refused in our words."""
    seen = []

    def attempt(function):
        with quick(5):
            try:
                function()
            except RatZarrError as error:
                seen.append(str(error))

    attempt(lambda: RatZarr.isValidRatZarr(path))
    attempt(lambda: RatZarr(path, readOnly=True).getColumnNames())
    try:
        table = RatZarr(path)
    except RatZarrError:
        return
    for name in ("number", "text", "Name", "../evil"):
        attempt(lambda name=name: table.colExists(name))
        attempt(lambda name=name: table.openColumn(name))
        attempt(lambda name=name: table.getColumnDtype(name))
        attempt(lambda name=name: table.getColumnWidth(name))
        attempt(lambda name=name: table.getModificationLog(name))
        attempt(lambda name=name: table.getColumnAttributeMapping(name).asdict())
        attempt(lambda name=name: table.readBlock(name, 0, 10))
        attempt(lambda name=name: table.writeBlock(name, table.readBlock(name, 1, 2), 1))
        attempt(lambda name=name: table.writeBlock(name, [7] if name == "number" else ["x"], 3))
        attempt(
            lambda name=name: table.getColumnAttributeMapping(name).update({"mine": [1, {"a": 2}]})
        )
    attempt(table.getColumnNames)
    attempt(table._repr_html_)
    attempt(table.getRATChunkSize)
    attempt(lambda: table.getRatAttributeMapping().update({"mine": 1}))
    attempt(lambda: table.createColumn("created", "int16"))
    attempt(lambda: table.setChunkSize(5))
    attempt(lambda: table.setRowCount(20))
    attempt(lambda: table.setRowCount(3))
    attempt(table.refresh)
    attempt(lambda: table.deleteColumn("number"))
    attempt(table.close)
    attempt(lambda: RatZarr.delete(path))
    assert all(10 < len(said) < 20_000 for said in seen)


@pytest.fixture(scope="module")
def garden(tmp_path_factory):
    """A table, and a file beside it."""
    folder = tmp_path_factory.mktemp("garden")
    with RatZarr(folder / "x.rat.zarr") as table:
        table.setRowCount(10)
        table.setChunkSize(4)
        table.createColumn("number", np.int32)
        table.writeBlock("number", np.arange(10), 0)
        table.createColumn("text", STRING)
        table.writeBlock("text", np.array(list("abcdefghij"), STRING), 0)
    (folder / "outside").write_text("x")
    return folder


class TestGarbage:
    """Any value anywhere in a document: refused in our words, or of no harm; never slow."""

    def check(self, garden, folder, change):
        shutil.copytree(garden, folder)
        path = folder / "x.rat.zarr"
        change(path)
        use(path)
        assert sorted(p.name for p in folder.iterdir()) in (
            ["outside"],
            ["outside", "x.rat.zarr"],
        )
        assert (folder / "outside").read_text() == "x"

    @pytest.mark.parametrize("key", ["RAT", "RAT/number", "RAT/text"])
    @settings(
        max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None,
        derandomize=True,
    )  # fmt: skip
    @given(data=st.data())
    def test_a_value_replaced(self, garden, tmp_path_factory, key, data):
        folder = tmp_path_factory.mktemp("garbage") / "d"

        def change(path):
            found = document(path, key)
            for _ in range(data.draw(st.integers(1, 3))):
                where = data.draw(st.sampled_from(sorted(nodes(found), key=repr)))
                value = copy.deepcopy(data.draw(st.sampled_from(GARBAGE) | JSON))
                if data.draw(st.booleans()):
                    found = replaced(found, where, value)
                elif isinstance(found, dict) and isinstance(found.get("attributes"), dict):
                    found["attributes"][data.draw(st.sampled_from(NAMES))] = value
                elif isinstance(found, dict):
                    found[data.draw(st.sampled_from(NAMES))] = value
            rewrite(path, key, found)

        self.check(garden, folder, change)

    @pytest.mark.parametrize("key", ["", "RAT", "RAT/number"])
    def test_bytes_replaced(self, garden, tmp_path, key):
        rng = np.random.default_rng(5)
        for number in range(25):

            def change(path):
                text = bytearray(json.dumps(document(path, key)).encode())
                for _ in range(rng.integers(1, 4)):
                    position = int(rng.integers(len(text)))
                    text[position : position + int(rng.integers(3))] = rng.bytes(
                        int(rng.integers(3))
                    )
                rewrite(path, key, bytes(text))

            self.check(garden, tmp_path / str(number), change)

    @pytest.mark.parametrize("value", GARBAGE, ids=lambda value: f"{value!r:.40}")
    def test_every_attribute_of_ours(self, garden, tmp_path, value):
        for number, (key, name) in enumerate(
            [("RAT", name) for name in NAMES] + [("RAT/number", name) for name in NAMES]
        ):
            if number % 7 != GARBAGE.index(value) % 7:
                continue  # each value meets a part of the names, which all together meet all

            def change(path, key=key, name=name):
                with changed(path, key) as found:
                    found["attributes"][name] = value

            self.check(garden, tmp_path / str(number), change)

    @pytest.mark.parametrize("count", [2**63, 2**64, 10**4000, -1, True, "5", 1e3, None, [5]])
    @pytest.mark.parametrize("name", ["ROWCOUNT", "CHUNKSIZE"])
    def test_counts(self, store, name, count):
        with changed(store, "RAT") as found:
            found["attributes"][name] = count
        with pytest.raises(DamagedError, match=name) as caught:
            RatZarr(store)
        assert len(str(caught.value)) < 1000

    def test_a_version_of_many_digits(self, store):
        with changed(store, "RAT") as found:
            found["attributes"]["FORMAT_VERSION"] = 10**4000
        with pytest.raises(FormatVersionError) as caught:
            RatZarr(store)
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize("log", [{"a": 1}, "x", 5, {}, None], ids=repr)
    def test_a_log_that_is_none(self, store, log):
        with changed(store, "RAT/number") as found:
            found["attributes"]["MODIFICATIONLOG"] = log
        with RatZarr(store) as table:
            assert table.getModificationLog("number") == []
            assert table.readBlock("number", 0, 2).tolist() == [0, 1]
            before = (store / "RAT/number/c/0").read_bytes()
            with pytest.raises(DamagedError, match="MODIFICATIONLOG"):
                table.writeBlock("number", [5], 0)
            assert (store / "RAT/number/c/0").read_bytes() == before
        assert document(store, "RAT/number")["attributes"]["MODIFICATIONLOG"] == log

    @pytest.mark.parametrize("complete", ["false", 0, None, 1, "no", []], ids=repr)
    def test_whether_it_is_complete_is_not_guessed(self, store, complete):
        with changed(store, "RAT/number") as found:
            found["attributes"]["COMPLETE"] = complete
        with RatZarr(store) as table, pytest.raises(DamagedError, match="COMPLETE"):
            table.readBlock("number", 0, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["name", "configuration"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


# ---- names


class TestNames:
    """What is missing from the list of ratzarr.testing.names: names that others have written."""

    @pytest.mark.parametrize(
        "name", ["../../evil", "..", "number", "text/../number", "%2e%2e", "/etc/passwd", "a\0b"]
    )
    def test_a_name_that_is_not_the_keys(self, store, name):
        """No column claims another's name, nor a place."""
        before = (store / "RAT/text/zarr.json").read_bytes()
        with changed(store, "RAT/text") as found:
            found["attributes"]["NAME"] = name
        with RatZarr(store) as table:
            assert sorted(table.getColumnNames()) == ["bytes", "number", "text"]
            assert table.readBlock("number", 3, 1).tolist() == [3]
            assert table.readBlock("text", 3, 1).tolist() == ["t3"]
            assert not table.colExists("../../evil")
        (store / "RAT/text/zarr.json").write_bytes(before)

    @pytest.mark.parametrize("key", ["%2e%2e", "%2E%2E", "%2e%2e%2fevil", "%2E%2E%2Fevil", "%00"])
    def test_keys_that_look_like_paths(self, store, key):
        """Encoded names of paths: of our writing, upstream's, and of neither."""
        (store / "RAT" / key).mkdir()
        found = document(store, "RAT/number")
        for path in ("0", "1", "2"):
            (store / "RAT" / key / "c").mkdir(exist_ok=True)
            (store / "RAT" / key / "c" / path).write_bytes(
                (store / "RAT/number/c" / path).read_bytes()
            )
        rewrite(store, f"RAT/{key}", found)
        around = sorted(path.name for path in store.parent.iterdir())
        with RatZarr(store) as table:
            assert key in table.getColumnNames()
            assert table.readBlock(key, 5, 2).tolist() == [5, 6]
            table.writeBlock(key, [50], 5)
            table.setRowCount(6)
            assert table.readBlock(key, 0, 9).tolist() == [0, 1, 2, 3, 4, 50]
            assert table.readBlock("number", 0, 9).tolist() == [0, 1, 2, 3, 4, 5]
            table.deleteColumn(key)
            assert sorted(table.getColumnNames()) == ["bytes", "number", "text"]
        assert sorted(path.name for path in store.parent.iterdir()) == around

    def test_an_order_of_paths(self, store):
        outside = store.parent / "evil"
        outside.mkdir()
        (outside / "zarr.json").write_bytes((store / "RAT/number/zarr.json").read_bytes())
        with changed(store, "RAT") as found:
            found["attributes"]["COLUMN_ORDER"] = [
                "../../evil", "..", ".", "/", "../RAT/number", "number/c", "", "a\0b", "\ud800",
                str(outside), "%2E%2E%2F%2E%2E%2Fevil", "text", "text", "zarr.json", 5, None,
            ]  # fmt: skip
        with RatZarr(store) as table:
            assert table.getColumnNames() == ["text", "bytes", "number"]
            for name in ("../../evil", "..", "../RAT/number", str(outside)):
                assert not table.colExists(name)
                with pytest.raises(RatZarrError):
                    table.deleteColumn(name)
            table.createColumn("../../evil", "int32")
            table.writeBlock("../../evil", [5], 0)
        assert [path.name for path in outside.iterdir()] == ["zarr.json"]


# ---- links and things that are no files


class TestNotFiles:
    """What leads out of the store is not followed; what is no file is not waited for."""

    PLACES: ClassVar = ["RAT", "RAT/number", "RAT/number/c", "RAT/number/c/0", "RAT/number/zarr.json",
              "RAT/zarr.json"]  # fmt: skip

    def moved_out(self, store, key):
        """Put a link in the place of something in the store, to where that is now."""
        outside = store.parent / "outside"
        outside.mkdir()
        (outside / "precious").write_text("precious")
        (outside / "empty").mkdir()
        target = outside / Path(key).name
        (store / key).rename(target)
        (store / key).symlink_to(target)
        return outside

    @staticmethod
    def tree(folder):
        return {
            str(path.relative_to(folder)): (
                path.read_bytes() if path.is_file() else None,
                path.stat().st_mtime_ns,
            )
            for path in [folder, *folder.rglob("*")]
        }

    def all_refused(self, store, fragment):
        """Do all that reads or writes the column; return how many were refused in words."""
        started = time.perf_counter()
        refused = []

        def attempt(function):
            try:
                function()
            except RatZarrError as error:
                refused.append(str(error))

        attempt(lambda: RatZarr(store, readOnly=True).readBlock("number", 0, 10))
        assert fragment in refused[0]
        attempt(lambda: RatZarr(store).writeBlock("number", np.arange(10), 0))
        attempt(lambda: RatZarr(store).writeBlock("number", [7], 2))
        attempt(lambda: RatZarr(store).getColumnAttributeMapping("number").update({"x": 1}))
        attempt(lambda: RatZarr(store).getRatAttributeMapping().update({"x": 1}))
        attempt(lambda: RatZarr(store).setRowCount(20))
        attempt(lambda: RatZarr(store).setRowCount(1))
        attempt(lambda: RatZarr(store).setRowCount(0))
        attempt(lambda: RatZarr(store).createColumn("created", "int8"))
        attempt(lambda: RatZarr(store).getColumnNames())
        attempt(lambda: RatZarr(store).deleteColumn("number"))
        attempt(lambda: RatZarr.isValidRatZarr(store))
        attempt(lambda: RatZarr.exists(store))
        attempt(lambda: RatZarr.delete(store))
        assert time.perf_counter() - started < 5
        return refused

    @pytest.mark.parametrize("key", PLACES)
    def test_links_out_of_the_store(self, store, key):
        outside = self.moved_out(store, key)
        before = self.tree(outside)
        refused = self.all_refused(store, "link")
        assert len(refused) >= 2
        assert self.tree(outside) == before

    @pytest.mark.parametrize("key", ["RAT/number", "RAT/number/c", "RAT/number/c/0"])
    @pytest.mark.parametrize(
        "what",
        [
            lambda table: table.setRowCount(1),
            lambda table: table.setRowCount(0),
            lambda table: table.deleteColumn("number"),
            lambda table: table.writeBlock("number", np.arange(10), 0),
            lambda table: table.writeBlock("number", [5], 1),
        ],
        ids=["cut", "empty", "deleteColumn", "write", "merge"],
    )
    def test_each_change_alone_stays_inside(self, store, key, what):
        outside = self.moved_out(store, key)
        before = self.tree(outside)
        with contextlib.suppress(RatZarrError), RatZarr(store) as table:
            what(table)
        assert self.tree(outside) == before

    @pytest.mark.parametrize("key", ["RAT/number", "RAT/number/c"])
    def test_a_link_to_an_empty_directory(self, store, key):
        """Emptied directories are removed: not those of others."""
        outside = store.parent / "outside"
        (outside / "c").mkdir(parents=True)
        (store / key).rename(store.parent / "aside")
        (store / key).symlink_to(outside)
        before = self.tree(outside)
        self.all_refused(store, "")
        assert self.tree(outside) == before

    def test_a_link_to_a_directory_within(self, store):
        """It would be two columns in one place."""
        (store / "RAT/other").symlink_to(store / "RAT/number")
        with RatZarr(store) as table:
            with pytest.raises(StoreError, match="link"):
                table.readBlock("other", 0, 1)
            assert table.readBlock("number", 0, 2).tolist() == [0, 1]
        with pytest.raises(RatZarrError):
            RatZarr.delete(store)
        assert RatZarr(store).readBlock("number", 0, 2).tolist() == [0, 1]

    def test_a_link_to_a_file_of_others(self, store):
        """The classic: a chunk that is somebody's secret, an attribute that is somebody's file."""
        secret = store.parent / "secret"
        secret.write_bytes(b"\x11\x22\x33\x44" * 4)
        with changed(store, "RAT/number") as found:
            found["codecs"] = [BYTES_CODEC]
        (store / "RAT/number/c/0").unlink()
        (store / "RAT/number/c/0").symlink_to(secret)
        with RatZarr(store) as table:
            with pytest.raises(StoreError, match="link"):
                table.readBlock("number", 0, 1)
            for rows in (1, 4, 10):
                with contextlib.suppress(RatZarrError):
                    table.writeBlock("number", np.arange(rows), 0)
        assert secret.read_bytes() == b"\x11\x22\x33\x44" * 4

    def test_dev_zero(self, store):
        for key in ("RAT/number/c/0", "RAT/number/zarr.json", "RAT/zarr.json"):
            kept = (store / key).read_bytes()
            (store / key).unlink()
            (store / key).symlink_to("/dev/zero")
            with quick(1), pytest.raises(StoreError, match="link"):
                RatZarr(store).readBlock("number", 0, 4)
            (store / key).unlink()
            (store / key).write_bytes(kept)

    @pytest.mark.parametrize("kind", ["fifo", "directory", "socket"])
    @pytest.mark.parametrize(
        "key", ["RAT/number/c/0", "RAT/number/zarr.json", "RAT/zarr.json", "zarr.json"]
    )
    def test_no_file(self, store, key, kind, monkeypatch):
        path = store / key
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
            (path / "within").write_text("x")
        else:
            import socket

            # The path of a socket can't be long.
            monkeypatch.chdir(path.parent)
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)
        with quick(2):
            if key == "zarr.json":
                with pytest.raises(RatZarrError):
                    RatZarr.delete(store)
            else:
                with pytest.raises((StoreError, DamagedError)):
                    RatZarr(store).readBlock("number", 0, 4)
                with contextlib.suppress(RatZarrError):
                    RatZarr(store).writeBlock("number", np.arange(4), 0)
                with contextlib.suppress(RatZarrError):
                    RatZarr(store).writeBlock("number", [1], 0)
                with contextlib.suppress(RatZarrError):
                    RatZarr(store).setRowCount(1)
                with contextlib.suppress(RatZarrError):
                    RatZarr.delete(store)

    def test_the_store_itself_may_be_a_link(self, store):
        """The user named it."""
        link = store.parent / "link.rat.zarr"
        link.symlink_to(store)
        with RatZarr(link) as table:
            table.writeBlock("number", [7], 0)
        assert RatZarr(store).readBlock("number", 0, 1).tolist() == [7]
        with pytest.raises(RatZarrError, match="symbolic link"):
            RatZarr.delete(link)
        assert store.is_dir()
