"""Code that knows only GDAL works on the attached table, and never on the raster."""

import gc
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from osgeo import gdal, gdal_array

import gdalbridge
from gdalbridge import AttachedRAT, LossWarning, attach
from gdalbridge.errors import ConversionError, NotWrittenError
from tests.gdalbridge.attached_rat.test_rat import names, raster, sidecar
from tests.gdalbridge.attached_rat.test_writing import OWN, everything, stored, upload
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, describe, make, new_rat

NAMES = [
    (gdal.Band, "GetDefaultRAT"), (gdal.Band, "SetDefaultRAT"),
    (gdal_array, "RATReadArray"), (gdal_array, "RATWriteArray"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def all_is_as_before():
    before = [vars(owner)[name] for owner, name in NAMES]
    yield
    OPEN.clear()
    for (owner, name), original in zip(NAMES, before, strict=True):
        assert vars(owner)[name] is original
        assert getattr(owner, name) is original


@pytest.fixture
def path(tmp_path):
    return raster(tmp_path / "a.tif", OWN, 4)


OPEN = []
"""Datasets of a test: a table of GDAL's own goes with its dataset."""


def table_of(path, band=1):
    OPEN.append(gdal.Open(str(path)))
    return OPEN[-1].GetRasterBand(band).GetDefaultRAT()


# ---- on and off


def test_on_and_off(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)

    def is_attached():
        rat = table_of(path)
        return isinstance(rat, AttachedRAT)

    assert not is_attached()
    with gdalbridge.enable():
        assert is_attached()
        # Counted: only the last one to go puts GDAL's own back.
        with gdalbridge.enable(update=False):
            assert table_of(path).ChangesAreWrittenToFile() == 0
        assert table_of(path).ChangesAreWrittenToFile() == 1
    assert not is_attached()
    gdalbridge.enable()
    gdalbridge.enable()
    gdalbridge.disable()
    assert is_attached()
    gdalbridge.disable()
    gdalbridge.disable()
    assert not is_attached()


def test_many_times(path):
    for _ in range(100):
        with gdalbridge.enable():
            assert isinstance(table_of(path), AttachedRAT)
        assert not isinstance(table_of(path), AttachedRAT)


def test_our_own_code_goes_on_seeing_the_rasters_table(path, tmp_path):
    with gdalbridge.enable():
        with attach(path, update=True) as rat:
            rat.CreateColumn("x", INTEGER, 0)
        report = gdalbridge.copy_to_sidecar(path, str(tmp_path / "copy.rat.zarr"))
    assert [column.name for column in report.columns] == ["Value", "Name"]


def test_gdals_module_functions_take_attached_tables(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    with gdalbridge.enable():
        rat = table_of(path)
        assert gdal_array.RATReadArray(rat, 2, 1, 2).tolist() == [2, 3]
        assert gdal_array.RATWriteArray(rat, np.array([9]), 2, 3) == 0
        assert gdal_array.RATReadArray(new_rat(OWN, 4), 0).tolist() == [0, 1, 2, 3]
        rat.close()
    assert stored(path, "n") == [1, 2, 3, 9]


# ---- which rasters


def test_no_table_is_no_table(tmp_path):
    path = raster(tmp_path / "a.tif")
    memory = make("", "MEM")
    with gdalbridge.enable():
        assert table_of(path) is None
        assert memory.GetRasterBand(1).GetDefaultRAT() is None
        memory.GetRasterBand(1).SetDefaultRAT(new_rat(OWN, 4))
        rat = memory.GetRasterBand(1).GetDefaultRAT()
        assert not isinstance(rat, AttachedRAT)
        assert rat.GetColumnCount() == 2
    vsimem = raster("/vsimem/test_enabling.tif", OWN, 4)
    with gdalbridge.enable():
        assert table_of(vsimem).GetColumnCount() == 2
    OPEN.clear()
    gdal.Unlink(vsimem)


def test_masks_and_overviews_have_what_gdal_gives_them(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    dataset = gdal.Open(path)
    dataset.BuildOverviews("NEAREST", [2])
    band = dataset.GetRasterBand(1)
    expected = [one.GetDefaultRAT() is None for one in (band.GetMaskBand(), band.GetOverview(0))]
    with gdalbridge.enable():
        assert isinstance(band.GetDefaultRAT(), AttachedRAT)
        found = [one.GetDefaultRAT() is None for one in (band.GetMaskBand(), band.GetOverview(0))]
        assert found == expected


def test_where_nothing_can_be_listed_the_rasters_own_columns_are_there_with_a_warning(
    path, counted_s3
):
    place, proxy = counted_s3
    upload(place, path)
    with gdalbridge.enable():
        OPEN.append(gdal.Open(f"/vsis3/{place.bucket}/a.tif"))
        proxy.instead = lambda method, key: (
            403 if key in (place.bucket, f"{place.bucket}/") else None
        )
        with pytest.warns(LossWarning, match="sidecars can't be listed"):
            rat = OPEN[-1].GetRasterBand(1).GetDefaultRAT()
        assert rat.GetColumnCount() == 2


def test_each_band_has_its_own(tmp_path):
    path = raster(tmp_path / "a.tif", bands=2)
    sidecar(path, [("second", "i4", [1], {})], 1, name=".band2")
    with gdalbridge.enable():
        assert table_of(path, 1) is None
        assert names(table_of(path, 2)) == ["second"]


@pytest.mark.parametrize("kind", ["file", "file elsewhere", "memory"])
def test_through_a_vrt_of_one_source(tmp_path, kind):
    path = raster(tmp_path / "a.tif", OWN, 4, bands=2)
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    sidecar(path, [("second", "i4", [5], {})], 1, name=".band2")
    (tmp_path / "d").mkdir()
    target = {"file": tmp_path / "v.vrt", "file elsewhere": tmp_path / "d" / "v.vrt", "memory": ""}
    options = gdal.TranslateOptions(format="VRT", bandList=[2, 1], srcWin=[1, 1, 2, 2])
    vrt = gdal.Translate(str(target[kind]), path, options=options)
    if kind != "memory":
        vrt.FlushCache()
        vrt = gdal.Open(str(target[kind]))
    with gdalbridge.enable():
        assert vrt.GetRasterBand(2).GetDefaultRAT().ReadAsArray(2).tolist() == [1, 2, 3, 4]
        second = vrt.GetRasterBand(1).GetDefaultRAT()
        assert names(second)[-1] == "second"
        second.SetValueAsInt(0, second.GetColumnCount() - 1, 55)
        second.close()
    with gdalbridge.enable():
        assert names(vrt.GetRasterBand(1).GetDefaultRAT())[-1] == "second"
    rat = attach(path, 2)
    assert rat.GetValueAsInt(0, 0) == 55


def test_a_vrt_whose_values_are_others_is_a_raster_of_its_own(tmp_path):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    scaled = gdal.TranslateOptions(format="VRT", scaleParams=[[0, 1, 0, 2]])
    vrt = gdal.Translate("", path, options=scaled)
    source = f"<SimpleSource><SourceFilename>{path}</SourceFilename></SimpleSource>"
    two = gdal.Open(
        '<VRTDataset rasterXSize="4" rasterYSize="3"><VRTRasterBand dataType="Byte" band="1">'
        f"{source}{source}</VRTRasterBand></VRTDataset>"
    )
    with gdalbridge.enable():
        assert vrt.GetRasterBand(1).GetDefaultRAT() is None
        assert two.GetRasterBand(1).GetDefaultRAT() is None


# ---- a table whose dataset is gone


def test_a_table_outlives_its_dataset(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    code = f"""
        import gc
        from osgeo import gdal
        import gdalbridge
        def check(rat):
            gc.collect()
            assert rat.ReadAsArray(0).tolist() == [0, 1, 2, 3]
            assert rat.GetValueAsString(2, 1) == "c"
            assert rat.GetValueAsInt(3, 2) == 4
            assert rat.Clone().GetColumnCount() == 3
        gdalbridge.enable(update=False)
        for _ in range(20):
            dataset = gdal.Open({path!r})
            rat = dataset.GetRasterBand(1).GetDefaultRAT()
            assert rat.GetValueAsInt(2, 0) == 2
            del dataset
            check(rat)
            rat = gdalbridge.attach(gdal.Open({path!r}))
            check(rat)
            dataset = gdal.Open({path!r})
            rat = gdalbridge.attach(dataset)
            assert rat.GetValueAsInt(2, 0) == 2
            if hasattr(dataset, "Close"):
                dataset.Close()
            check(rat)
        print("alive")
    """
    done = run_code(code)
    assert done.stdout.strip() == "alive", (done.returncode, done.stderr)


def run_code(code, *args):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_table_in_memory_whose_dataset_is_gone(tmp_path):
    """Attached by its band to a file that is gone as well: an error, and no crash."""
    path = raster(tmp_path / "a.tif", OWN, 4)
    code = f"""
        import os
        from osgeo import gdal
        import gdalbridge
        dataset = gdal.Open({path!r})
        rat = gdalbridge.attach(dataset.GetRasterBand(1))
        del dataset
        os.unlink({path!r})
        try:
            print(rat.GetValueAsInt(2, 0))
        except gdalbridge.BridgeError as error:
            print(error)
    """
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    assert "dataset of this table was closed" in done.stdout or done.stdout == "2\n"


# ---- SetDefaultRAT


def test_setting_what_is_there_writes_what_waits(path, tmp_path):
    before = everything(tmp_path)
    with gdalbridge.enable():
        dataset = gdal.Open(path)
        band = dataset.GetRasterBand(1)
        rat = band.GetDefaultRAT()
        rat.CreateColumn("x", INTEGER, 0)
        rat.SetValueAsInt(1, 2, 5)
        assert band.SetDefaultRAT(rat) == 0
        assert stored(path, "x") == [0, 5, 0, 0]
    assert everything(tmp_path) == before


def test_setting_any_other_table_writes_what_is_new_in_it(path, tmp_path):
    before = everything(tmp_path)
    columns = [OWN[0], ("Name", STRING, 2, ["a", "B", "c", "d"]), ("x", REAL, 0, [1.5, 2, 3, 4])]
    with gdalbridge.enable():
        dataset = gdal.Open(path)
        assert dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, 4)) == 0
        shown = describe(dataset.GetRasterBand(1).GetDefaultRAT())
        with pytest.raises(NotWrittenError, match="removed"):
            dataset.GetRasterBand(1).SetDefaultRAT(None)
    assert shown == describe(new_rat(columns, 4))
    assert everything(tmp_path) == before
    # What the raster has already is not written once more.
    with gdalbridge.attach(path) as rat:
        assert names(rat) == ["Value", "Name", "x"]
    from ratzarr import RatZarr

    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.getColumnNames() == ["Name", "x"]


def test_a_usage_that_is_set_is_kept(path, tmp_path):
    """Of a column of the sidecar, and of the raster's own; without a look at values."""
    before = everything(tmp_path)
    sidecar(
        path,
        [
            ("n", "f8", [1, 2, 3, 4], {"GDAL_USAGE": gdal.GFU_Red}),
            ("w", "i4", np.ones((4, 2)), {}),
        ],
        4,
    )
    with gdalbridge.enable():
        dataset = gdal.Open(path)
        band = dataset.GetRasterBand(1)
        # In a copy of GDAL's a colour that is Real has none.
        assert band.SetDefaultRAT(band.GetDefaultRAT().Clone()) == 0
        assert band.GetDefaultRAT().GetUsageOfCol(2) == gdal.GFU_Red
        own = [OWN[0], ("Name", STRING, gdal.GFU_Generic, list("abcd"))]
        for usage in (gdal.GFU_PixelCount, gdal.GFU_Min):
            given = new_rat([*own, ("n", REAL, usage, [1, 2, 3, 4])], 4)
            assert band.SetDefaultRAT(given) == 0
            rat = band.GetDefaultRAT()
            assert [rat.GetUsageOfCol(i) for i in range(3)] == [5, gdal.GFU_Generic, usage]
        with pytest.raises(ConversionError, match="several values per row"):
            band.SetDefaultRAT(new_rat([("w[1]", INTEGER, gdal.GFU_Max, [1] * 4)], 4))
    found = attach(path)
    assert describe(found)["columns"][:3] == describe(given)["columns"]
    assert everything(tmp_path) == before


def test_an_attached_table_can_be_set_elsewhere(path, tmp_path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    other = raster(tmp_path / "b.tif")
    with gdalbridge.enable():
        rat = table_of(path)
        expected = describe(rat)
        target = gdal.Open(other)
        assert target.GetRasterBand(1).SetDefaultRAT(rat) == 0
        assert describe(target.GetRasterBand(1).GetDefaultRAT()) == expected
        memory = make("", "MEM")
        memory.GetRasterBand(1).SetDefaultRAT(rat)
        assert describe(memory.GetRasterBand(1).GetDefaultRAT()) == expected
    assert os.path.exists(f"{other}.rat.zarr")
    # For reading only, what a program sets is GDAL's matter.
    with gdalbridge.enable(update=False):
        made = make(tmp_path / "c.tif")
        made.GetRasterBand(1).SetDefaultRAT(table_of(path))
        made.FlushCache()
        del made
    assert not os.path.exists(tmp_path / "c.tif.rat.zarr")
    assert describe(table_of(tmp_path / "c.tif")) == expected


def test_a_raster_that_is_being_written_is_not_said_to_have_changed(tmp_path):
    with gdalbridge.enable():
        dataset = make(tmp_path / "a.tif", size=(300, 300))
        dataset.GetRasterBand(1).SetDefaultRAT(new_rat(OWN, 4))
        dataset.GetRasterBand(1).WriteRaster(0, 0, 300, 300, b"\1" * 90000)
        dataset.FlushCache()
        del dataset
        gc.collect()
        # A warning would be an error.
        assert table_of(tmp_path / "a.tif").GetRowCount() == 4


# ---- programs that know only GDAL

# In the shape of RIOS's functions for columns.
COLUMNS = """
import sys
import numpy as np
from osgeo import gdal

def read_column(path, name, band=1):
    dataset = gdal.Open(path)
    rat = dataset.GetRasterBand(band).GetDefaultRAT()
    for column in range(rat.GetColumnCount()):
        if rat.GetNameOfCol(column) == name:
            if rat.GetTypeOfCol(column) == gdal.GFT_Integer:
                dtype = int
            return rat.ReadAsArray(column)
    raise SystemExit(f"no column {name}")

def write_column(path, name, values, kind, usage=gdal.GFU_Generic, band=1, block=3):
    dataset = gdal.Open(path)
    band = dataset.GetRasterBand(band)
    rat = band.GetDefaultRAT()
    if rat is None:
        rat = gdal.RasterAttributeTable()
        through = False
    else:
        through = bool(rat.ChangesAreWrittenToFile())
    column = None
    for index in range(rat.GetColumnCount()):
        if rat.GetNameOfCol(index) == name:
            column = index
    if column is None:
        column = rat.GetColumnCount()
        if rat.CreateColumn(name, kind, usage) != gdal.CE_None:
            raise SystemExit("not created")
    if rat.GetRowCount() < len(values):
        rat.SetRowCount(len(values))
    if through:
        for start in range(0, len(values), block):
            rat.WriteArray(values[start : start + block], column, start)
    else:
        rat.WriteArray(values, column)
        if band.SetDefaultRAT(rat) != gdal.CE_None:
            raise SystemExit("not set")
"""
WRITES = (
    COLUMNS
    + """
path = sys.argv[1]
pixels = np.arange(7) * 10
write_column(path, "Histogram", pixels.astype(float), gdal.GFT_Real, gdal.GFU_PixelCount)
write_column(path, "area", read_column(path, "Histogram") * 0.09, gdal.GFT_Real)
write_column(path, "id", np.arange(7), gdal.GFT_Integer)
write_column(path, "text", np.array([f"n{i}" for i in range(7)]), gdal.GFT_String)
"""
)
READS = (
    COLUMNS
    + """
path = sys.argv[1]
for name in ("Histogram", "area", "id", "text"):
    print(read_column(path, name).tolist())
"""
)
SAID = [
    [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
    [i * 10 * 0.09 for i in range(7)],
    list(range(7)),
    [f"n{i}".encode() for i in range(7)],
]

# In the shape of a viewer's table: pages of all columns, edited cell by cell.
VIEWER = """
import sys
from osgeo import gdal
dataset = gdal.Open(sys.argv[1])
rat = dataset.GetRasterBand(1).GetDefaultRAT()
names, columns = [], {}
count = rat.GetRowCount()
for column in range(rat.GetColumnCount()):
    names.append((rat.GetNameOfCol(column), rat.GetTypeOfCol(column), rat.GetUsageOfCol(column)))
for start in range(0, count, 3):
    page = {}
    for column in range(rat.GetColumnCount()):
        page[column] = rat.ReadAsArray(column, start=start, length=min(3, count - start))
        assert len(page[column]) == min(3, count - start)
    columns[start] = page
red = [rat.GetColOfUsage(usage) for usage in (gdal.GFU_Red, gdal.GFU_Green)]
if "colour" in sys.argv:
    for name, usage in (("Red", gdal.GFU_Red), ("Green", gdal.GFU_Green)):
        rat.CreateColumn(name, gdal.GFT_Integer, usage)
    for row in range(count):
        rat.SetValueAsInt(row, rat.GetColOfUsage(gdal.GFU_Red), row)
        rat.SetValueAsString(row, rat.GetColOfUsage(gdal.GFU_Green), str(2 * row))
print([name for name, *_ in names], red, [rat.GetValueAsInt(2, c) for c in red if c >= 0])
"""


@pytest.fixture
def place(request, tmp_path):
    """A raster that nobody may write, where it is, and what is there beside sidecars."""
    here = tmp_path / "here"
    here.mkdir()
    own = [("Value", INTEGER, 5, [0, 1, 2, 3]), ("Name", STRING, 2, ["a", "b", "c", "d"])]
    path = raster(here / "a.tif", own if request.param == "s3" else (), 4)
    if request.param == "s3":
        s3 = request.getfixturevalue("moto_s3")
        upload(s3, path)

        def there():
            return {k: v for k, v in s3.everything().items() if ".rat.zarr/" not in k}

        return f"/vsis3/{s3.bucket}/a.tif", there
    os.chmod(path, 0o444)
    return path, lambda: everything(here)


def program(tmp_path, name, code, *, enable):
    start = "import gdalbridge\ngdalbridge.enable()\n" if enable else ""
    path = tmp_path / name
    path.write_text(start + code, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("place", "how"),
    [
        ("local", "enable()"),
        ("local", "gdalbridge run"),
        ("s3", "enable()"),
        pytest.param("s3", "gdalbridge run", marks=pytest.mark.thorough),
    ],
    indirect=["place"],
)
def test_programs_that_know_only_gdal(place, tmp_path, how):
    path, there = place
    before = there()

    def run(name, code, *args):
        script = program(tmp_path, name, code, enable=how == "enable()")
        prefix = [] if how == "enable()" else ["-m", "gdalbridge", "run"]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *prefix, str(script), path, *args],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert run("writes.py", WRITES) == []
    assert [eval(line) for line in run("reads.py", READS)] == SAID
    own = ["Value", "Name"] if path.startswith("/vsis3") else []
    added = ["Histogram", "area", "id", "text"]
    assert run("viewer.py", VIEWER, "colour") == [f"{[*own, *added]} [-1, -1] []"]
    first = len(own) + 4
    assert run("viewer.py", VIEWER) == [
        f"{[*own, *added, 'Red', 'Green']} [{first}, {first + 1}] [2, 4]"
    ]
    assert there() == before


# ---- gdalbridge run


def gdalbridge_run(*args, cwd=None):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "gdalbridge", "run", *map(str, args)],
        capture_output=True, text=True, check=False, cwd=cwd,
    )  # fmt: skip


SHOWS = """
import sys
from osgeo import gdal
if len(sys.argv) > 1:
    dataset = gdal.Open(sys.argv[1])
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    print(type(rat).__name__, rat.ChangesAreWrittenToFile(), sys.argv, __name__)
sys.exit(7)
"""


def test_a_script_finds_its_arguments_and_its_exit_code(tmp_path, path):
    script = tmp_path / "shows.py"
    script.write_text(SHOWS)
    done = gdalbridge_run(script, path, "--help", "-q")
    assert done.returncode == 7, done.stderr
    assert done.stdout.split(maxsplit=2) == [
        "AttachedRAT", "1", f"{[str(script), path, '--help', '-q']} __main__\n"
    ]  # fmt: skip
    assert gdalbridge_run("--read-only", script, path).stdout.split()[1] == "0"


def test_a_module_and_a_command(tmp_path, path):
    (tmp_path / "shows.py").write_text(SHOWS)
    done = gdalbridge_run("-m", "shows", path, cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    assert "AttachedRAT 1" in done.stdout
    # A console script of an installed distribution; its options are its own.
    done = gdalbridge_run("gdalbridge", "head", path, "--rows", "1")
    assert done.returncode == 0, done.stderr
    assert "a.tif" in done.stdout
    done = gdalbridge_run("gdalbridge", "head", "--no-such-option")
    assert done.returncode == 2


def test_a_programs_error_is_its_own(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("raise ValueError('of its own')")
    done = gdalbridge_run(script)
    assert done.returncode == 1
    assert "fails.py" in done.stderr
    assert done.stderr.endswith("ValueError: of its own\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-program", "neither a file nor an installed command"),
        ("ls", "not a Python program"),
    ],
)
def test_what_can_not_be_run_is_said(name, message):
    done = gdalbridge_run(name)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
