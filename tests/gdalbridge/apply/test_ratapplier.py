"""Scripts over tables: what a function sees, and what is written of what it sets."""

import functools
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from osgeo import gdal

import gdalbridge
from gdalbridge import BridgeError, ratapplier
from gdalbridge.errors import (
    BlockError,
    ColumnMissingError,
    ColumnSelectionError,
    ExecutorError,
    RasterNotFoundError,
    SidecarNameError,
)
from gdalbridge.ratapplier import (
    RCM_FIXED,
    RCM_INCREMENT,
    OtherArguments,
    RatApplierControls,
    RatAssociations,
    RatHandle,
    RatZarrHandle,
)
from ratzarr import ColumnIncompleteError, RatZarr, RatZarrError
from tests.audits import recorded
from tests.gdalbridge.sample_rasters import HAS_HFA, INTEGER, REAL, STRING, make, new_rat

ROWS = 23
TEXTS = [f"class {n}" if n % 3 else f"größe {n}" for n in range(ROWS)]


class Pickled:
    """Runs tasks as another process would: of nothing but their pickled bytes, out of order."""

    kind = "pickled"
    in_process = False
    workers = 3

    def __init__(self):
        self.closed = False

    def results(self, task, items, *, ahead=None):
        raw, items = pickle.dumps(task), [pickle.dumps(item) for item in items]
        done = {}
        for number in reversed(range(len(items))):
            answer = pickle.loads(raw)(pickle.loads(items[number]))
            done[number] = pickle.dumps(answer)
        for number in range(len(items)):
            yield pickle.loads(done[number])

    def close(self):
        self.closed = True


def tables(**handles):
    """Make associations of handles, or of names of rasters and stores."""
    rats = RatAssociations()
    for label, handle in handles.items():
        if isinstance(handle, str | Path):
            is_store = str(handle).endswith(".rat.zarr")
            handle = RatZarrHandle(handle) if is_store else RatHandle(handle)
        setattr(rats, label, handle)
    return rats


def controls(block=None, **settings):
    made = RatApplierControls()
    made.setBlockLength(block)
    for name, value in settings.items():
        getattr(made, name)(*value) if isinstance(value, tuple) else getattr(made, name)(value)
    return made


def stored(path, column):
    """Read a column with zarr-python alone."""
    return zarr.open_group(str(path), mode="r", use_consolidated=False)["RAT"][column][...]


def attributes(path, column):
    group = zarr.open_group(str(path), mode="r", use_consolidated=False)
    return dict(group["RAT"][column].attrs)


def table(path, rows=ROWS, chunk=None, **columns):
    chunk = chunk or (4 if rows < 1000 else 1024)
    with RatZarr(path) as made:
        made.setRowCount(rows)
        made.setChunkSize(chunk)
        for name, values in columns.items():
            values = np.asarray(values)
            width = 1 if values.ndim == 1 else values.shape[1]
            made.createColumn(name, values.dtype, width)
            made.writeBlock(name, values, 0)
    return path


@pytest.fixture
def seg(tmp_path):
    """A raster with a table of its own."""
    dataset = make(tmp_path / "seg.tif")
    columns = [
        ("Value", INTEGER, 0, np.arange(ROWS) * 3),
        ("Histogram", REAL, 1, np.arange(ROWS) / 7),
        ("Class Name", STRING, 2, TEXTS),
    ]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, ROWS))
    dataset.FlushCache()
    return tmp_path / "seg.tif"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "t.rat.zarr"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.rat.zarr"


# ---- scripts as they are written for RIOS


def test_the_same_raster_read_and_written(seg, tmp_path):
    before = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in tmp_path.iterdir()}
    seen = []

    def function(info, inputs, outputs):
        seen.append((info.blockNdx, info.startrow, info.blockLen, info.rowCount))
        assert info.inputRowNumbers.tolist() == list(
            range(info.startrow, info.startrow + info.blockLen)
        )
        outputs.img.sqrd = inputs.img.Value**2

    inRats, outRats = RatAssociations(), RatAssociations()
    inRats.img = RatHandle(str(seg))
    outRats.img = inRats.img
    ratapplier.apply(function, inRats, outRats, controls=controls(5))
    assert seen == [(0, 0, 5, 23), (1, 5, 5, 23), (2, 10, 5, 23), (3, 15, 5, 23), (4, 20, 3, 23)]
    # Nothing is written to the raster, nor beside it but the sidecar.
    after = {p.name: p for p in tmp_path.iterdir()}
    assert set(after) == {*before, "seg.tif.rat.zarr"}
    assert all(hashlib.sha256(after[n].read_bytes()).digest() == h for n, h in before.items())
    assert stored(after["seg.tif.rat.zarr"], "sqrd").tolist() == [9 * n * n for n in range(ROWS)]
    with gdalbridge.attach(seg) as rat:
        names = [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())]
        assert names == ["Value", "Histogram", "Class Name", "sqrd"]
        assert rat.ReadAsArray(3).tolist() == [9 * n * n for n in range(ROWS)]


def test_another_raster_is_described_as_the_table_s(seg, tmp_path, recwarn):
    make(tmp_path / "other.tif").FlushCache()

    def function(info, inputs, outputs):
        outputs.out.copied = inputs.img.Value

    ratapplier.apply(function, tables(img=seg), tables(out=tmp_path / "other.tif"))
    sidecar = tmp_path / "other.tif.rat.zarr"
    assert stored(sidecar, "copied").tolist() == [3 * n for n in range(ROWS)]
    assert zarr.open_group(str(sidecar), mode="r")["RAT"].attrs["RASTER"]["name"] == "other.tif"
    gdalbridge.attach(tmp_path / "other.tif")
    assert not recwarn.list


def test_fewer_rows_than_the_block_are_added_one_after_the_other(seg, out):
    def function(info, inputs, outputs):
        mask = info.inputRowNumbers % 2 == 0
        outputs.out.Value = inputs.img.Value[mask]
        outputs.out.name = inputs.img["Class Name"][mask]

    ratapplier.apply(function, tables(img=seg), tables(out=out), controls=controls(3))
    assert stored(out, "Value").tolist() == [6 * n for n in range(12)]
    assert stored(out, "name").tolist() == TEXTS[::2]
    assert zarr.open_group(str(out), mode="r")["RAT"].attrs["ROWCOUNT"] == 12


def test_a_new_table_without_inputs(tmp_path):
    make(tmp_path / "new.tif").FlushCache()

    def function(info, inputs, outputs):
        outputs.outimg.newCol = np.arange(info.blockLen, dtype=np.uint32) + info.startrow

    outRats = tables(outimg=tmp_path / "new.tif")
    ratapplier.apply(function, RatAssociations(), outRats, controls=controls(3, setRowCount=256))
    found = stored(tmp_path / "new.tif.rat.zarr", "newCol")
    assert found.dtype == np.uint32
    assert found.tolist() == list(range(256))


def test_an_object_that_is_called_and_otherargs_that_add_up(seg, out):
    class Adds:
        def __call__(self, info, inputs, outputs, otherargs):
            otherargs.total += int(inputs.img.Value.sum())

    others = OtherArguments()
    others.total = 0
    assert ratapplier.apply(Adds(), tables(img=seg), tables(out=out), others, controls(4))
    assert others.total == sum(3 * n for n in range(ROWS))
    # Nothing was set: nothing is created.
    assert not out.exists()


def test_a_raster_in_memory_is_read(out):
    dataset = make("/vsimem/apply.tif")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("a", INTEGER, 0, np.arange(ROWS))], ROWS))
    dataset = None

    def function(info, inputs, outputs):
        outputs.out.b = inputs.img.a * 2

    img = tables(img="/vsimem/apply.tif")
    ratapplier.apply(function, img, tables(out=out))
    assert stored(out, "b").tolist() == [2 * n for n in range(ROWS)]
    # There is no place beside it for a sidecar.
    with pytest.raises(SidecarNameError):
        ratapplier.apply(function, img, tables(out="/vsimem/apply.tif"))
    gdal.Unlink("/vsimem/apply.tif")


def test_bands_and_further_tables(tmp_path):
    dataset = make(tmp_path / "two.tif", bands=2)
    for band in (1, 2):
        columns = [("a", INTEGER, 0, np.arange(ROWS) * band)]
        dataset.GetRasterBand(band).SetDefaultRAT(new_rat(columns, ROWS))
    dataset = None
    name = tmp_path / "two.tif"

    def function(info, inputs, outputs):
        outputs.two.b = inputs.two.a + inputs.one.a
        outputs.texture.c = inputs.two.a

    ratapplier.apply(
        function,
        tables(one=RatHandle(name), two=RatHandle(name, 2)),
        tables(two=RatHandle(name, layernum=2), texture=RatHandle(name, table="texture")),
    )
    assert stored(f"{name}.band2.rat.zarr", "b").tolist() == [3 * n for n in range(ROWS)]
    assert stored(f"{name}.texture.rat.zarr", "c").tolist() == [2 * n for n in range(ROWS)]

    def reads(info, inputs, outputs):
        assert (inputs.one.c == inputs.one.a * 2).all()

    ratapplier.apply(reads, tables(one=name), tables())
    with pytest.raises(RasterNotFoundError, match="there is no band 3"):
        ratapplier.apply(reads, tables(one=RatHandle(name, 3)), tables())


def test_a_sidecar_shorter_than_the_raster_s_table(seg):
    table(
        f"{seg}.rat.zarr", 4, part=np.arange(4), when=np.arange(4).astype("M8[D]"),
        text=np.array(list("abcd"), np.dtypes.StringDType()),
    )  # fmt: skip
    seen = []

    def function(info, inputs, outputs):
        seen.append((inputs.img.part, inputs.img.when, inputs.img.text, inputs.img.Value))

    ratapplier.apply(function, tables(img=seg), tables(), controls=controls(ROWS))
    part, when, text, value = seen[0]
    assert part.tolist() == [0, 1, 2, 3] + [0] * 19
    assert np.isnat(when[4:]).all()
    assert text.tolist() == [b"a", b"b", b"c", b"d"] + [b""] * 19
    assert value.tolist() == [3 * n for n in range(ROWS)]


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_hfa(tmp_path):
    dataset = make(tmp_path / "seg.img", "HFA")
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    rat.SetRowCount(ROWS)
    rat.CreateColumn("a", INTEGER, 0)
    rat.WriteArray(np.arange(ROWS, dtype="i4"), 0)
    rat.CreateColumn("label", STRING, 0)
    rat.WriteArray(np.array([text.encode() for text in TEXTS]), 1)
    del rat
    dataset = None

    def function(info, inputs, outputs):
        assert inputs.img.label.dtype.kind == "S"
        outputs.img.b = inputs.img.a + 1
        outputs.img.text = inputs.img.label

    img = tables(img=tmp_path / "seg.img")
    ratapplier.apply(function, img, img, controls=controls(4, setExecutor=("threads", 2)))
    assert stored(tmp_path / "seg.img.rat.zarr", "b").tolist() == list(range(1, ROWS + 1))
    assert stored(tmp_path / "seg.img.rat.zarr", "text").tolist() == TEXTS


# ---- types


def test_text_of_a_raster_is_bytes_unless_it_is_to_be_strings(seg, place, out):
    seen = []

    def function(info, inputs, outputs):
        seen.append((inputs.img["Class Name"], inputs.t.name))

    table(place, name=np.array(TEXTS, np.dtypes.StringDType()))
    inputs, outputs = tables(img=seg, t=place), tables(out=out)
    ratapplier.apply(function, inputs, outputs, controls=controls(ROWS))
    [(raster, store)] = seen
    assert raster.dtype == "S10"
    assert [text.decode() for text in raster.tolist()] == TEXTS
    assert store.dtype == np.dtypes.StringDType()
    ratapplier.apply(function, inputs, outputs, controls=controls(ROWS, setUseStringDType=True))
    assert seen[1][0].dtype == np.dtypes.StringDType()
    assert seen[1][0].tolist() == TEXTS


def test_a_sidecar_s_columns_come_as_they_are_stored(seg):
    big = np.arange(ROWS, dtype=np.int64) + 2**60
    wide = np.arange(2 * ROWS, dtype=np.float32).reshape(-1, 2)
    table(f"{seg}.rat.zarr", big=big, wide=wide, Value=big)
    seen = []

    def function(info, inputs, outputs):
        seen.append((inputs.img.big, inputs.img.wide, inputs.img.Value))

    ratapplier.apply(function, tables(img=seg), tables(), controls=controls(ROWS))
    assert (seen[0][0] == big).all()
    assert (seen[0][1] == wide).all()
    # The sidecar's is seen where both have one of a name.
    assert (seen[0][2] == big).all()


KINDS = {
    "int8": np.arange(ROWS, dtype=np.int8) - 5,
    "uint64": np.arange(ROWS, dtype=np.uint64) + (2**64 - 100),
    "float16": np.arange(ROWS, dtype=np.float16) / 4,
    "bool": np.arange(ROWS) % 3 == 0,
    "day": np.arange(ROWS).astype("datetime64[D]"),
    "text": np.array(TEXTS, np.dtypes.StringDType()),
    "unicode": np.array(TEXTS),
    "bytes": np.array([text.encode() for text in TEXTS]),
    "strings": np.array(TEXTS, object),
    "raw": np.array([bytes(range(n)) for n in range(ROWS)], object),
    "pairs": np.arange(2 * ROWS).reshape(-1, 2),
    "list": list(range(ROWS)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("executor", ["serial", "threads", "pickled"])
def test_every_kind_of_column(place, out, kind, executor):
    table(place, n=np.arange(ROWS))
    function = functools.partial(set_rows, KINDS[kind])
    how = controls(4, setExecutor=Pickled() if executor == "pickled" else executor)
    ratapplier.apply(function, tables(t=place), tables(out=out), controls=how)
    if kind == "raw":
        # zarr-python's own reading of them warns.
        with RatZarr(out, readOnly=True) as found:
            assert found.readBlock("x", 0, ROWS).tolist() == KINDS[kind].tolist()
        return
    found = stored(out, "x")
    if kind in ("text", "unicode", "bytes", "strings"):
        assert found.dtype.kind == "T"
        assert found.tolist() == TEXTS
    else:
        expected = np.asarray(KINDS[kind])
        assert found.dtype == expected.dtype
        assert (found == expected).all()


def set_rows(values, info, inputs, outputs):
    outputs.out.x = values[info.startrow : info.startrow + len(inputs.t.n)]


@pytest.mark.parametrize(
    ("later", "error"),
    [
        (np.array([0.5] * 5), "column 'x', row 10: 0.5 is not an integer"),
        (np.array([2**40] * 5), "column 'x', row 10: 1099511627776 does not fit int32"),
        (np.array(["a"] * 5), "a block of str .* can't be written"),
        (np.zeros((5, 2), "i4"), r"column 'x', from row 10: a block of shape \(5, 2\)"),
    ],
)
@pytest.mark.parametrize("block", [5, 4 * 256])
def test_a_later_block_that_does_not_fit_names_block_rows_and_column(
    place, out, later, error, block
):
    def function(info, inputs, outputs):
        rows = info.blockLen
        is_first = info.blockNdx < 2
        outputs.out.x = (
            np.zeros(rows, "i4") if is_first else np.resize(later, (rows, *later.shape[1:]))
        )

    # Also where blocks are whole chunks.
    rows, scale = (ROWS, 1) if block == 5 else (3 * block, block / 5)
    table(place, rows, n=np.arange(rows))
    if block != 5:
        error = error.replace("row 10", f"row {int(10 * scale)}").replace("(5,", f"({block},")
    with pytest.raises(RatZarrError, match=error) as caught:
        ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(block))
    notes = "\n".join(caught.value.__notes__)
    assert f"in block 2 (rows {2 * block} to {min(rows, 3 * block) - 1})" in notes
    assert "column 'x' of out" in notes
    assert "as the first block that set it" in notes
    assert attributes(out, "x")["COMPLETE"] is False


def test_what_fits_a_column_exactly_is_stored(place, out):
    def function(info, inputs, outputs):
        values = np.arange(info.startrow, info.startrow + info.blockLen)
        outputs.out.x = values.astype(["i4", "f8", "u1"][info.blockNdx % 3])

    table(place, n=np.arange(ROWS))
    ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(5))
    assert stored(out, "x").dtype == np.int32
    assert stored(out, "x").tolist() == list(range(ROWS))


# ---- what a function sees


def test_missing_columns_and_tables(seg, out):
    seen = []

    def function(info, inputs, outputs):
        assert not hasattr(inputs.img, "nope")
        assert not hasattr(outputs.out, "nope")
        assert getattr(inputs.img, "nope", None) is None
        assert not hasattr(inputs, "other")
        for kind in (AttributeError, LookupError, BridgeError):
            with pytest.raises(kind, match=r"img \(.*seg\.tif\) has no column 'nope'"):
                inputs.img["nope"]
        with pytest.raises(AttributeError, match=r"no output 'img'; the outputs are \['out'\]"):
            outputs.img.x = 1
        with pytest.raises(BlockError, match="img is an input"):
            inputs.img.Value = 1
        with pytest.raises(BridgeError, match="'out' is a table"):
            outputs.out = np.zeros(3)
        seen.append(inputs.img.getColumnNames())

    ratapplier.apply(function, tables(img=seg), tables(out=out))
    assert seen == [["Value", "Histogram", "Class Name"]]

    def asks(info, inputs, outputs):
        return inputs.img.nope

    with pytest.raises(KeyError) as caught:
        ratapplier.apply(asks, tables(img=seg), tables(out=out), controls=controls(5))
    assert caught.value.__notes__ == ["in block 0 (rows 0 to 4)"]
    assert isinstance(caught.value, ColumnMissingError)
    # Not in quotes, as KeyError has its messages.
    assert str(caught.value) == f"img ({seg}) has no column 'nope'"

    def tries(info, inputs, outputs):
        try:
            outputs.out.x = inputs.img["nope"]
        except KeyError:
            outputs.out.x = inputs.img.Value

    ratapplier.apply(tries, tables(img=seg), tables(out=out))
    assert len(stored(out, "x")) == ROWS


def test_an_input_without_a_table_is_an_error(tmp_path):
    bare = tmp_path / "bare.tif"
    make(bare).FlushCache()

    def never(info, inputs, outputs):
        raise AssertionError

    with pytest.raises(
        RasterNotFoundError, match=r"bare.tif: band 1 has no attribute table.*build"
    ):
        ratapplier.apply(never, tables(img=bare), tables(img=bare))
    assert [one.name for one in tmp_path.iterdir()] == ["bare.tif"]


ODD = ["Land Cover Class", "1st", "class", "a/b", "größe", "setUsage", "__array__", "_x"]


def test_names_that_are_no_identifiers(place, out):
    table(place, **{name: np.arange(ROWS) + n for n, name in enumerate(ODD)})

    def function(info, inputs, outputs):
        for name in ODD:
            outputs.out[name] = inputs.t[name] + 1
        setattr(outputs.out, "by setattr", getattr(inputs.t, ODD[0]))

    ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(5))
    with RatZarr(out, readOnly=True) as found:
        for n, name in enumerate(ODD):
            assert found.readBlock(name, 0, ROWS).tolist() == list(range(n + 1, n + 1 + ROWS))
        assert found.readBlock("by setattr", 0, ROWS).tolist() == list(range(ROWS))


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_a_function_may_change_its_arrays_and_use_them_again(place, out, executor):
    table(place, n=np.arange(ROWS * 1000), rows=ROWS * 1000, chunk=1024)
    buffer = np.zeros(1024)

    def function(info, inputs, outputs):
        own = inputs.t.n
        own += 1
        assert inputs.t.n is own
        if executor == "serial":
            part = buffer[: info.blockLen]
            part[:] = own
            outputs.out.x = part
        else:
            outputs.out.x = own.astype("f8")
        outputs.out.y = own
        own *= -1

    ratapplier.apply(
        function, tables(t=place), tables(out=out), controls=controls(setExecutor=executor)
    )
    assert (stored(out, "x") == np.arange(ROWS * 1000) + 1).all()
    assert (stored(out, "y") == -(np.arange(ROWS * 1000) + 1)).all()
    assert (stored(place, "n") == np.arange(ROWS * 1000)).all()


def test_only_columns_that_are_used_are_read_and_those_ahead(place, out):
    table(place, **{name: np.arange(ROWS) for name in "abc"})

    def function(info, inputs, outputs):
        if info.blockNdx == 0:
            # Names in the code are read with the first block; these are not in it.
            getattr(inputs.t, chr(97))
        if info.blockNdx == 3:
            inputs.t[chr(98)]

    with recorded("open") as opened:
        ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(4))
    # Of a column of four rows a chunk.
    chunk = re.compile(rf"{re.escape(str(place))}/RAT/(\w)/c/(\d+)")
    found = [chunk.fullmatch(str(path)) for path, *_ in opened]
    reads = [(one[1], 4 * int(one[2])) for one in found if one]
    assert sorted(reads) == [("a", start) for start in range(0, ROWS, 4)] + [("b", 12)] + (
        [("b", start) for start in (16, 20)] if ("b", 16) in reads else []
    )


def test_outputs_can_be_read_as_they_are_in_the_table(out):
    table(out, n=np.arange(ROWS))
    seen = []

    def function(info, inputs, outputs):
        before = outputs.out.n
        outputs.out.n = before * 2
        assert (outputs.out.n == before * 2).all()
        seen.extend(before.tolist())

    ratapplier.apply(function, tables(), tables(out=out), controls=controls(4, setRowCount=ROWS))
    assert seen == list(range(ROWS))
    assert stored(out, "n").tolist() == [2 * n for n in range(ROWS)]
    assert attributes(out, "n")["COMPLETE"] is True


# ---- rows


@pytest.mark.parametrize("block", [4, 5, 1])
def test_a_column_set_in_some_blocks_only(place, out, block):
    table(place, n=np.arange(ROWS))
    table(out, old=np.arange(ROWS) + 100)

    def function(info, inputs, outputs):
        if info.blockNdx % 2:
            outputs.out.new = inputs.t.n + 0.5
            outputs.out.old = inputs.t.n

    ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(block))
    odd = np.arange(ROWS) // block % 2 == 1
    assert (
        stored(out, "old").tolist()
        == np.where(odd, np.arange(ROWS), np.arange(ROWS) + 100).tolist()
    )
    assert stored(out, "new").tolist() == np.where(odd, np.arange(ROWS) + 0.5, 0).tolist()
    # A complete column has all of its chunks, so a missing one can be told from an empty one.
    with RatZarr(out, readOnly=True) as found:
        assert found.readBlock("new", 0, ROWS).tolist() == stored(out, "new").tolist()


def test_columns_of_one_table_have_the_same_rows(place, out):
    table(place, n=np.arange(ROWS))

    def function(info, inputs, outputs):
        outputs.out.a = inputs.t.n
        outputs.out.b = inputs.t.n[: 5 if info.blockNdx < 1 else 3]

    with pytest.raises(BlockError, match="column 'b' was set to 3 rows, and column 'a' to 5") as e:
        ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(5))
    assert e.value.__notes__ == ["in block 1 (rows 5 to 9)"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "column 'a' was set to 5: expected an array of shape [(]n,[)]"),
        (None, "column 'a' was set to None"),
        (np.zeros((5, 1)), r"shape \(5, 1\): expected shape \(n,\) for one value per row"),
        (np.zeros((5, 2, 2)), r"an array of shape \(5, 2, 2\): expected"),
        ([1, "a"], r"objects \(int, str\)"),
        (np.zeros(5, complex), "complex128"),
        (np.array([b"\xff"] * 5), "not UTF-8"),
    ],
)
def test_what_is_no_block(place, out, value, words):
    table(place, n=np.arange(ROWS))

    def function(info, inputs, outputs):
        outputs.out.a = value

    with pytest.raises((BridgeError, RatZarrError), match=words) as caught:
        ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(5))
    assert "in block 0 (rows 0 to 4)" in caught.value.__notes__
    assert not out.exists()


def test_an_output_is_never_shortened_unless_it_is_asked_for(place, out):
    table(place, n=np.arange(ROWS))
    table(out, 40, old=np.arange(40), other=np.arange(40))

    def function(info, inputs, outputs):
        outputs.out.old = -inputs.t.n[inputs.t.n % 2 == 0]

    ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(4))
    assert stored(out, "old").tolist() == [-2 * n for n in range(12)] + list(range(12, 40))
    how = controls(4, setTruncateOutput=True)
    ratapplier.apply(function, tables(t=place), tables(out=out), controls=how)
    assert stored(out, "old").tolist() == [-2 * n for n in range(12)]
    assert stored(out, "other").tolist() == list(range(12))


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize(("block", "more"), [(1, 60), (1, 5), (5, 60), (5, 5)])
def test_rows_that_another_process_adds_meanwhile_stay(place, out, existed, block, more):
    table(place, n=np.arange(ROWS))
    if existed:
        table(out, 3, other=np.arange(3))

    def function(info, inputs, outputs):
        if info.blockNdx == block:
            with RatZarr(out) as process:
                rows = process.rowCount + more
                process.setRowCount(rows)
                process.createColumn("new", "i4")
                process.writeBlock("new", [7], rows - 1)
                counts.append(rows)
        outputs.out.n = inputs.t.n[inputs.t.n % 4 > 0]

    counts = []
    how = controls(4, outputRowCountHandling=(RCM_INCREMENT,))
    ratapplier.apply(function, tables(t=place), tables(out=out), controls=how)
    kept = [n for n in range(ROWS) if n % 4]
    with RatZarr(out) as found:
        assert found.rowCount >= counts[0]
        assert found.readBlock("new", counts[0] - 1, 1) == [7]
        assert found.readBlock("n", 0, len(kept)).tolist() == kept
        assert not found.readBlock("n", len(kept), found.rowCount).any()


def test_more_rows_than_the_table_may_have(place, out):
    table(place, n=np.arange(ROWS))

    def doubled(info, inputs, outputs):
        outputs.out.n = np.repeat(inputs.t.n, 2)

    expected = np.repeat(np.arange(ROWS), 2).tolist()
    with pytest.raises(BlockError, match="the table may have only 23 rows") as caught:
        ratapplier.apply(doubled, tables(t=place), tables(out=out), controls=controls(4))
    assert "in block 2 (rows 8 to 11)" in caught.value.__notes__
    RatZarr.delete(out)
    how = controls(4, outputRowCountHandling=(RCM_FIXED, 2 * ROWS))
    ratapplier.apply(doubled, tables(t=place), tables(out=out), controls=how)
    assert stored(out, "n").tolist() == expected
    RatZarr.delete(out)
    how = controls(4, outputRowCountHandling=(RCM_INCREMENT, None, 3))
    ratapplier.apply(doubled, tables(t=place), tables(out=out), controls=how)
    assert stored(out, "n").tolist() == expected
    # Rows that are not read yet are not written over.
    with pytest.raises(BlockError, match=r"column 'n' of .* is also read"):
        ratapplier.apply(doubled, tables(t=place), tables(out=place), controls=how)


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_blocks_without_rows(place, out, kept):
    table(place, n=np.arange(ROWS))

    def function(info, inputs, outputs):
        mask = inputs.t.n >= ROWS - kept
        outputs.out.n = inputs.t.n[mask]
        outputs.out.text = np.array(TEXTS)[info.inputRowNumbers][mask]

    ratapplier.apply(function, tables(t=place), tables(out=out), controls=controls(4))
    assert stored(out, "n").tolist() == list(range(ROWS - kept, ROWS))
    assert stored(out, "text").tolist() == TEXTS[ROWS - kept :]


def test_inputs_of_different_lengths(place, out, tmp_path):
    table(place, n=np.arange(ROWS))
    other = table(tmp_path / "o.rat.zarr", 20, m=np.arange(20))

    def function(info, inputs, outputs):
        outputs.out.s = inputs.a.n + inputs.b.m

    inputs = tables(a=place, b=other)
    with pytest.raises(
        BlockError, match=r"a \(.*t\.rat\.zarr\) has 23, b \(.*o\.rat\.zarr\) has 20"
    ):
        ratapplier.apply(function, inputs, tables(out=out))
    ratapplier.apply(function, inputs, tables(out=out), controls=controls(setRowCount=7))
    assert stored(out, "s").tolist() == [2 * n for n in range(7)]
    with pytest.raises(BlockError, match="setRowCount asks for 21 rows, but"):
        ratapplier.apply(function, inputs, tables(out=out), controls=controls(setRowCount=21))


def test_what_can_not_be_meant(place, out, seg):
    table(place, n=np.arange(ROWS))

    def function(info, inputs, outputs):
        pass

    with pytest.raises(BridgeError, match=r"number of rows is unknown.*setRowCount"):
        ratapplier.apply(function, tables(), tables(out=out))
    with pytest.raises(BridgeError, match="expected a RatHandle or a RatZarrHandle"):
        tables(x=5)
    with pytest.raises(BridgeError, match="takes the name of a table"):
        RatHandle(gdal.Open(str(seg)))
    with pytest.raises(BridgeError, match="is a sidecar, or a table like one: RatZarrHandle"):
        RatHandle(f"{seg}.rat.zarr")
    with pytest.raises(BridgeError, match="takes a function first"):
        ratapplier.apply("function", tables(t=place), tables(out=out))
    with pytest.raises(BridgeError, match="the outputs a and b are the same table"):
        ratapplier.apply(function, tables(t=place), tables(a=seg, b=f"{seg}.rat.zarr"))
    for name, value, words in (
        ("setBlockLength", 0, "the block length must be an integer >= 1"),
        ("setBlockLength", 2.5, "the block length must be an integer"),
        ("setRowCount", -1, "the row count must be an integer >= 0"),
        ("outputRowCountHandling", 7, "RCM_EQUALS_INPUT"),
        ("outputRowCountHandling", (RCM_FIXED,), "needs totalsize"),
        ("setMerge", 7, "the merge must be a function"),
        ("setMemory", 0, "the memory"),
    ):
        with pytest.raises(BridgeError, match=words):
            ratapplier.apply(
                function, tables(t=place), tables(out=out), controls=controls(**{name: value})
            )


def test_no_rows(place, out):
    table(place, 0)

    def function(info, inputs, outputs):
        raise AssertionError

    report = ratapplier.apply(function, tables(t=place), tables(out=out))
    assert (report.rows, report.blocks) == (0, 0)
    assert not out.exists()


@pytest.mark.parametrize(("asked", "chunk"), [(None, 1024), (5, 1025), (2048, 2048)])
def test_blocks_are_whole_chunks(tmp_path, out, asked, chunk):
    table(tmp_path / "in.rat.zarr", 5000, 1024, n=np.arange(5000))
    lengths = []

    def function(info, inputs, outputs):
        lengths.append(info.blockLen)
        outputs.out.n = inputs.t.n

    ratapplier.apply(
        function, tables(t=tmp_path / "in.rat.zarr"), tables(out=out), controls=controls(asked)
    )
    assert lengths[0] == (asked or 1024)
    with RatZarr(out, readOnly=True) as found:
        assert found.getColumnChunkSize("n") == chunk
    # A table that is there keeps its chunks, and they are the blocks.
    table(tmp_path / "there.rat.zarr", 5000, 700, old=np.arange(5000))
    lengths.clear()
    ratapplier.apply(
        function,
        tables(t=tmp_path / "in.rat.zarr"),
        tables(out=tmp_path / "there.rat.zarr"),
        controls=controls(asked),
    )
    assert lengths[0] == (asked or 700)
    assert (stored(tmp_path / "there.rat.zarr", "n") == np.arange(5000)).all()


# ---- usage


def test_usages(seg, out):
    seen = {}

    def function(info, inputs, outputs):
        for name in ("Value", "Histogram", "Class Name", "nope"):
            seen[name] = inputs.img.getUsage(name)
        outputs.img.Red = inputs.img.Value % 256
        outputs.img.setUsage("Red", gdal.GFU_Red)
        assert outputs.img.getUsage("Red") == gdal.GFU_Red
        assert outputs.img.getUsage("Histogram") == gdal.GFU_PixelCount
        outputs.out.plain = inputs.img.Value

    ratapplier.apply(function, tables(img=seg), tables(img=seg, out=out), controls=controls(5))
    assert seen == {"Value": 0, "Histogram": 1, "Class Name": 2, "nope": 0}
    with gdalbridge.attach(seg) as rat:
        assert rat.GetUsageOfCol(3) == gdal.GFU_Red
        assert rat.GetColOfUsage(gdal.GFU_Red) == 3

    def later(info, inputs, outputs):
        # What is said of a column counts when it is set later.
        if info.blockNdx == 0:
            assert inputs.out.getUsage("plain") == 0
            outputs.out.setUsage("plain", gdal.GFU_Green)
            outputs.out.setUsage("after", gdal.GFU_Blue)
        else:
            outputs.out.after = inputs.out.plain

    ratapplier.apply(later, tables(out=out), tables(out=out), controls=controls(10))
    assert attributes(out, "after")["GDAL_USAGE"] == gdal.GFU_Blue
    assert attributes(out, "plain")["GDAL_USAGE"] == gdal.GFU_Green
    assert attributes(out, "plain")["COMPLETE"] is True


# ---- copies


def test_copyRAT(seg, tmp_path, recwarn):
    table(f"{seg}.rat.zarr", big=np.arange(ROWS) + 2**60)
    make(tmp_path / "other.tif").FlushCache()
    said = []
    ratapplier.copyRAT(
        seg, str(tmp_path / "other.tif"), lambda done, *rest: said.append(done) or 1, ["Value"]
    )
    assert said[0] == 0
    assert said[-1] == 1
    sidecar = tmp_path / "other.tif.rat.zarr"
    assert stored(sidecar, "big").tolist() == [n + 2**60 for n in range(ROWS)]
    assert stored(sidecar, "Class Name").tolist() == TEXTS
    assert attributes(sidecar, "Histogram")["GDAL_USAGE"] == gdal.GFU_PixelCount
    with gdalbridge.attach(tmp_path / "other.tif", as_text=["big"]) as rat:
        names = [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())]
        assert names == ["Histogram", "Class Name", "big"]
        dataset = gdal.Open(str(seg))
        own = dataset.GetRasterBand(1).GetDefaultRAT()
        # Its XML has lost bits already.
        assert (rat.ReadAsArray(0) == own.ReadAsArray(1)).all()
        del own, dataset
    # Again, and from a sidecar to one: what is there is overwritten.
    ratapplier.copyRAT(seg, tmp_path / "other.tif")
    ratapplier.copyRAT(sidecar, tmp_path / "third.rat.zarr")
    assert stored(tmp_path / "third.rat.zarr", "Value").tolist() == [3 * n for n in range(ROWS)]
    with pytest.raises(ColumnSelectionError, match="has no column 'nope'"):
        ratapplier.copyRAT(seg, tmp_path / "other.tif", omitColumns=["nope"])
    assert ratapplier.copyRAT(seg, tmp_path / "x.tif", omitColumns=[
        "Value", "Histogram", "Class Name", "big"
    ]) is None  # fmt: skip
    assert not recwarn.list


class Rios:
    """A progress object of RIOS's kind."""

    def __init__(self):
        self.calls = []

    def setTotalSteps(self, steps):
        self.calls.append(("total", steps))

    def setProgress(self, percent):
        self.calls.append(percent)

    def setLabelText(self, text):
        self.calls.append(text)

    def wasCancelled(self):
        return False


@pytest.mark.parametrize("blocks", [1, 4, 100, 250])
def test_progress_is_told_once_per_percent(tmp_path, blocks):
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path) as store:
        store.setChunkSize(blocks)
        store.setRowCount(blocks)
        store.createColumn("n", "i4")
        store.writeBlock("n", np.arange(blocks), 0)
    progress, controls = Rios(), RatApplierControls()
    controls.setBlockLength(1)
    controls.setProgress(progress)

    def double(info, inputs, outputs):
        outputs.t.m = inputs.t.n * 2

    ratapplier.apply(double, tables(t=path), tables(t=path), controls=controls)
    assert progress.calls[0] == ("total", 100)
    percents = progress.calls[1:]
    assert percents == sorted({100 * done // blocks for done in range(blocks + 1)})
    assert stored(path, "m").tolist() == [2 * n for n in range(blocks)]


def test_copyRAT_takes_stores_of_any_name(seg, tmp_path, recwarn):
    make(tmp_path / "other.tif").FlushCache()
    said = {"GDAL_USAGE": gdal.GFU_Red, "units": "DN", "scale": float("inf")}
    with RatZarr(tmp_path / "extra.zarr") as store:
        store.setRowCount(5)
        store.createColumn("v", "i4", attributes=said)
        store.createColumn("raw", bytes)
        store.writeBlocks({"v": np.arange(5), "raw": [b"a\0"] * 5}, 0)
    # To a store that is not there, to one that is, from and to rasters.
    ratapplier.copyRAT(tmp_path / "extra.zarr", tmp_path / "copy")
    ratapplier.copyRAT(str(tmp_path / "copy"), tmp_path / "copy", omitColumns=["raw"])
    ratapplier.copyRAT(tmp_path / "copy", tmp_path / "other.tif")
    for made in tmp_path / "copy", tmp_path / "other.tif.rat.zarr":
        assert stored(made, "v").tolist() == [0, 1, 2, 3, 4]
        assert stored(made, "raw").tolist() == [b"a\0"] * 5
        assert said.items() <= attributes(made, "v").items()
    ratapplier.copyRAT(seg, tmp_path / "from raster.zarr")
    assert stored(tmp_path / "from raster.zarr", "Class Name").tolist() == TEXTS
    assert not recwarn.list
    # What is neither a raster nor a table stays what it is.
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RasterNotFoundError, match=r"notes.txt can't be opened"):
        ratapplier.copyRAT(tmp_path / "copy", tmp_path / "notes.txt")
    with pytest.raises(RasterNotFoundError, match=r"nothing can't be opened"):
        ratapplier.copyRAT(tmp_path / "nothing", tmp_path / "more.zarr")
    with pytest.raises(RasterNotFoundError):
        ratapplier.copyRAT(tmp_path / "copy", "/vsimem/none.tif")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "more.zarr").exists()
    assert not (tmp_path / "nothing").exists()


# ---- in parallel


def counts(info, inputs, outputs, others):
    others.rows.extend(inputs.t.n.tolist())
    outputs.out.n = inputs.t.n + others.add


def looks(info, inputs, outputs, others):
    outputs.out.n = inputs.t.n + others.add


def evens(info, inputs, outputs):
    outputs.out.n = inputs.t.n[inputs.t.n % 2 == 0]


def late_short(info, inputs, outputs):
    outputs.out.n = inputs.t.n[: 2 if info.blockNdx == 3 else None]


def late_column(info, inputs, outputs):
    outputs.out.n = inputs.t.n
    if info.blockNdx == 3:
        outputs.out.late = inputs.t.n * 2


def given(add):
    others = OtherArguments()
    others.rows, others.add = [], add
    return others


def joined(total, of_block):
    total.rows += of_block.rows


@pytest.fixture(params=["threads", "pickled"])
def parallel(request):
    return (Pickled(),) if request.param == "pickled" else ("threads", 3)


@pytest.mark.parametrize("block", [4, 1024])
def test_otherargs_are_merged_in_order(place, out, parallel, block):
    rows = 6 * block
    table(place, rows, n=np.arange(rows))
    how = controls(block, setExecutor=parallel, setMerge=joined)
    others = given(10)
    ratapplier.apply(counts, tables(t=place), tables(out=out), others, how)
    assert others.rows == list(range(rows))
    assert (stored(out, "n") == np.arange(rows) + 10).all()
    # Once more, with what was merged: each block begins with what apply was given.
    ratapplier.apply(counts, tables(t=place), tables(out=out), others, how)
    assert len(others.rows) == rows + 6 * rows + rows


def test_changes_of_otherargs_are_never_dropped(place, out, parallel):
    table(place, n=np.arange(ROWS))
    how = controls(4, setExecutor=parallel)
    with pytest.raises(ExecutorError, match=r"changed its otherargs.*setMerge"):
        ratapplier.apply(counts, tables(t=place), tables(out=out), given(1), how)
    assert not out.exists()
    ratapplier.apply(looks, tables(t=place), tables(out=out), given(1), how)
    assert stored(out, "n").tolist() == list(range(1, ROWS + 1))
    how.setMerge(lambda total, of_block: of_block)
    with pytest.raises(BridgeError, match="return None"):
        ratapplier.apply(counts, tables(t=place), tables(out=out), given(1), how)


@pytest.mark.parametrize("block", [4, 1024])
def test_filtered_rows_keep_their_order(place, out, parallel, block):
    rows = 6 * block
    table(place, rows, n=np.arange(rows))
    how = controls(block, setExecutor=parallel)
    ratapplier.apply(evens, tables(t=place), tables(out=out), controls=how)
    assert stored(out, "n").tolist() == list(range(0, rows, 2))


def test_a_late_block_of_other_rows(place, out, parallel):
    table(place, 6 * 1024, n=np.arange(6 * 1024))
    how = controls(1024, setExecutor=parallel)
    if parallel != ("threads", 3):
        with pytest.raises(BlockError, match=r"written in parallel\. .*RCM_INCREMENT") as e:
            ratapplier.apply(late_short, tables(t=place), tables(out=out), controls=how)
        assert "in block 3 (rows 3072 to 4095)" in e.value.__notes__
        assert attributes(out, "n")["COMPLETE"] is False
        # What waited to be noted as written when it went wrong may not be.
        assert attributes(out, "n")["ROWS_DONE"] in (0, 1024, 2048, 3072)
        RatZarr.delete(out)
        how.outputRowCountHandling(RCM_INCREMENT)
    ratapplier.apply(late_short, tables(t=place), tables(out=out), controls=how)
    expected = [*range(3 * 1024 + 2), *range(4 * 1024, 6 * 1024)]
    assert stored(out, "n").tolist() == expected


@pytest.mark.parametrize("block", [4, 1024])
def test_a_column_that_comes_late(place, out, parallel, block):
    rows = 6 * block
    table(place, rows, n=np.arange(rows))
    how = controls(block, setExecutor=parallel)
    ratapplier.apply(late_column, tables(t=place), tables(out=out), controls=how)
    n = np.arange(rows)
    assert (stored(out, "n") == n).all()
    assert (stored(out, "late") == np.where(n // block == 3, 2 * n, 0)).all()


def test_a_table_that_ends_after_the_first_block_grows(place, out, parallel):
    rows = 6 * 1024
    table(place, rows, n=np.arange(rows))
    table(out, 1500, old=np.arange(1500))
    how = controls(1024, setExecutor=parallel)
    ratapplier.apply(looks, tables(t=place), tables(out=out), given(1), how)
    assert (stored(out, "n") == np.arange(rows) + 1).all()
    assert stored(out, "old").tolist() == [*range(1500), *[0] * (rows - 1500)]


def test_whole_chunks_are_written_by_the_tasks_themselves(place, out, worker_processes):
    table(place, 6 * 1024, n=np.arange(6 * 1024))
    for block, chunks, by_us in ((1024, 6, 1), (4096, 2, 1), (100, 6, 6)):
        RatZarr.delete(out)
        with recorded("os.link", "os.rename") as named:
            ratapplier.apply(
                looks, tables(t=place), tables(out=out), given(1),
                controls(block, setExecutor=worker_processes),
            )  # fmt: skip
        # A chunk gets its name, which is a number, when it is whole.
        names = {int(name) for _, name, *_ in named if str(name).isdigit()}
        assert names == set(range(by_us))
        assert len(list(out.glob("RAT/n/c/*"))) == chunks
        assert (stored(out, "n") == np.arange(6 * 1024) + 1).all()


def test_an_output_that_is_not_finished_is_not_read(place, out, parallel):
    table(place, n=np.arange(ROWS))
    how = controls(4, setExecutor=parallel)
    with pytest.raises(ZeroDivisionError) as caught:
        ratapplier.apply(fails, tables(t=place), tables(out=out), controls=how)
    assert "in block 2 (rows 8 to 11)" in caught.value.__notes__
    with RatZarr(out, readOnly=True) as found, pytest.raises(ColumnIncompleteError):
        found.readBlock("n", 0, 1)


def fails(info, inputs, outputs):
    outputs.out.n = inputs.t.n
    if info.blockNdx == 2:
        raise ZeroDivisionError


# ---- the report


def test_the_report(seg, out):
    def function(info, inputs, outputs):
        outputs.out.x = inputs.img.Value

    report = ratapplier.apply(function, tables(img=seg), tables(out=out), controls=controls(5))
    assert (report.rows, report.blocks, report.blocks_there) == (ROWS, 5, 0)
    assert report.written == (str(out),)
    assert (report.executor, report.workers) == ("serial", 1)
    assert report.seconds >= report.computing > 0
    text = report.formatReport()
    assert text == str(report)
    for word in ("23 rows in 5 blocks", "waiting for reads", "computing", "waiting for writes"):
        assert word in text
    assert "<table>" in report._repr_html_()
    assert report.as_dict()["rows"] == ROWS


def test_the_guide_s_example(nlcd, monkeypatch, capsys):
    guide = (Path(__file__).parents[3] / "docs" / "apply.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", guide, re.DOTALL)
    monkeypatch.chdir(nlcd.parent)
    exec(compile(example[1], "apply.md", "exec"), {})
    assert "lc.tif.rat.zarr" in capsys.readouterr().out
    dataset = gdal.Open("lc.tif")
    own = dataset.GetRasterBand(1).GetDefaultRAT()
    columns = {own.GetNameOfCol(i): own.ReadAsArray(i) for i in range(own.GetColumnCount())}
    del own, dataset
    assert (stored("lc.tif.rat.zarr", "area_ha") == columns["Histogram"] * 0.09).all()
    names = [text.decode() for text in columns["Land Cover Class"].tolist()]
    assert stored("extra.rat.zarr", "class of it").tolist() == names
