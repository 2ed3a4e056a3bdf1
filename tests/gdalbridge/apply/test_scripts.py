"""Scripts give the same tables in every executor, whatever dies, however large they are."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from numpy.dtypes import StringDType
from osgeo import gdal

from gdalbridge.ratapplier import RatHandle, RatZarrHandle, apply
from ratzarr import RatZarr
from ratzarr.testing.helpers import assert_same
from tests.gdalbridge import scripts
from tests.gdalbridge.apply.test_executors import Diary

ROWS, CHUNK = 5_300, 1_000
"""Six blocks, the last of them a short one."""
STRING = StringDType()


def column(path, name):
    """Return a column as zarr-python reads it."""
    return zarr.open_group(path, mode="r", zarr_format=3)[f"RAT/{name}"][:]


def made(path, chunk=CHUNK, **columns):
    """Make a table of these columns."""
    with RatZarr(path) as table:
        table.setChunkSize(chunk)
        table.setRowCount(len(next(iter(columns.values()))))
        for name, values in columns.items():
            table.createColumn(name, values.dtype, *values.shape[1:])
            table.writeBlock(name, values, 0)
    return path


@pytest.fixture(scope="module")
def values():
    chance = np.random.default_rng(5)
    return {
        "red": chance.integers(1, 4000, ROWS).astype("uint16"),
        "nir": chance.integers(1, 4000, ROWS).astype("uint16"),
        "oldclass": chance.integers(0, 9, ROWS).astype("int32"),
        "height": chance.gamma(2, 3, ROWS).astype("float32"),
        "pixels": chance.integers(1, 10**6, ROWS).astype("int64"),
        "yearly": chance.normal(size=(ROWS, 4)),
    }


@pytest.fixture(scope="module")
def table(values, tmp_path_factory):
    return made(str(tmp_path_factory.mktemp("table") / "seg.rat.zarr"), **values)


@pytest.fixture
def path(table, tmp_path):
    """A table of its own for each test."""
    shutil.copytree(table, tmp_path / "seg.rat.zarr")
    return str(tmp_path / "seg.rat.zarr")


@pytest.fixture
def controls(executor):
    return scripts.controls_for(executor, CHUNK)


def test_ratio(path, values, controls):
    report = scripts.ratio(path, controls)
    red, nir = (values[name].astype("f8") for name in ("red", "nir"))
    assert_same(column(path, "ndvi"), (nir - red) / (nir + red))
    assert (report.rows, report.blocks, report.blocks_there) == (ROWS, 6, 0)


def test_recode(path, values, controls):
    lookup = np.array([7, 1, 1, 3, 200, 5, 6, 0, 9], "uint8")
    scripts.recode(path, lookup, controls)
    assert_same(column(path, "newclass"), lookup[values["oldclass"]])


def test_classify(path, values, controls):
    scripts.classify(path, controls)
    bounds = [(0.5, "ground"), (2.0, "shrub"), (10.0, "mid storey"), (np.inf, "höchste")]
    expected = [next(n for top, n in bounds if value < top) for value in values["height"].tolist()]
    assert column(path, "storey").tolist() == expected


def test_join(path, values, controls, tmp_path):
    raster = str(tmp_path / "seg.tif")
    gdal.GetDriverByName("GTiff").Create(raster, 2, 2)
    os.rename(path, f"{raster}.rat.zarr")
    entropy = np.random.default_rng(6).random(ROWS)
    texture = made(f"{raster}.texture.rat.zarr", entropy=entropy)
    scripts.join(raster, texture, controls)
    assert_same(column(f"{raster}.rat.zarr", "rough"), (values["height"] > 2) & (entropy > 0.5))


def test_filter(path, values, controls, tmp_path):
    shorter = str(tmp_path / "tall.rat.zarr")
    scripts.keep_tall(path, shorter, controls)
    tall = np.flatnonzero(values["height"] > 10)
    assert 50 < len(tall) < ROWS / 2
    assert_same(column(shorter, "row"), tall.astype("int64"))
    assert_same(column(shorter, "height"), values["height"][tall])


def test_years(path, values, controls):
    scripts.years(path, controls)
    assert_same(column(path, "mean"), values["yearly"].mean(axis=1))


def test_totals(path, values, controls):
    totals = scripts.class_totals(path, controls)
    expected = np.bincount(values["oldclass"], values["pixels"], minlength=9)
    assert totals.pixels.tolist() == expected.tolist()
    # Added up in the order of the blocks.
    assert totals.blocks == list(range(6))


def set_environment(variables):
    os.environ.update(variables)


def test_from_a_geotiff_to_s3(controls, executor, request, tmp_path, moto_s3):
    if executor.kind == "dask":
        # As docs/apply.md says: workers elsewhere have settings of their own.
        client = request.getfixturevalue("dask_client")
        client.run(set_environment, moto_s3.moto.environment)
    raster = str(tmp_path / "lc.tif")
    rows = 2_300
    counts = np.arange(rows) * 3.5
    names = [f"class {n % 7} ü" for n in range(rows)]
    dataset = gdal.GetDriverByName("GTiff").Create(raster, 2, 2)
    rat = gdal.RasterAttributeTable()
    rat.CreateColumn("Histogram", gdal.GFT_Real, gdal.GFU_PixelCount)
    rat.CreateColumn("Class", gdal.GFT_String, gdal.GFU_Name)
    rat.SetRowCount(rows)
    rat.WriteArray(counts, 0)
    rat.WriteArray(np.array([name.encode() for name in names]), 1)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset = rat = None
    url = moto_s3.new()
    scripts.to_s3(raster, url, controls)
    group = moto_s3.open(url)
    assert_same(group["RAT/area_ha"][:], counts * 0.09)
    assert group["RAT/name"][:].tolist() == names


# What dies in the middle


@pytest.fixture
def diary(tmp_path):
    (tmp_path / "diary").mkdir()
    return Diary(tmp_path / "diary")


def doubled(info, inputs, outputs, diary):
    diary.note("begun", info.blockNdx)
    if diary.directory.endswith("slow"):
        time.sleep(0.03)
    elif info.blockNdx in (2, 4) and diary.events("begun")[info.blockNdx] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    outputs.out.twice = inputs.seg.n * 2


def run_doubled(path, out, executor, diary, chunk):
    inputs, outputs = (scripts.tables(**{k: RatZarrHandle(v)}) for k, v in (path, out))
    controls = scripts.controls_for(executor, chunk)
    return apply(doubled, inputs, outputs, diary, controls)


def test_a_process_that_is_killed_costs_its_block_again(worker_processes, tmp_path, diary):
    n = np.arange(9 * CHUNK + 5)
    path = made(str(tmp_path / "n.zarr"), n=n)
    out = str(tmp_path / "out.zarr")
    run_doubled(("seg", path), ("out", out), worker_processes, diary, CHUNK)
    assert_same(column(out, "twice"), n * 2)
    assert diary.events("begun") == {block: 2 if block in (2, 4) else 1 for block in range(10)}


@pytest.mark.thorough
def test_two_dask_workers_killed_in_a_run_of_many_blocks(mortal_dask_client, tmp_path):
    """While the progress is told."""
    (tmp_path / "slow").mkdir()
    diary = Diary(tmp_path / "slow")
    n = np.arange(100 * 20 + 7)
    path = made(str(tmp_path / "n.zarr"), chunk=20, n=n)
    out = str(tmp_path / "out.zarr")
    killed = []

    def progress(complete, message, data):
        if complete > (0.2, 0.6, 2)[len(killed)]:
            killed.append(min(diary.pids("begun") - {os.getpid(), *killed}))
            os.kill(killed[-1], signal.SIGKILL)
        return 1

    inputs, outputs = (
        scripts.tables(seg=RatZarrHandle(path)),
        scripts.tables(out=RatZarrHandle(out)),
    )
    controls = scripts.controls_for(mortal_dask_client, 20)
    controls.setProgress(progress)
    report = apply(doubled, inputs, outputs, diary, controls)
    assert len(killed) == 2
    assert_same(column(out, "twice"), n * 2)
    assert (report.executor, report.blocks) == ("dask", 101)
    assert set(diary.events("begun")) == set(range(101))
    assert diary.events("begun").total() < 101 + 2 * 12


def one_more(info, inputs, outputs, diary):
    diary.note("begun", info.blockNdx)
    if info.blockNdx == 2 and diary.events("begun")[2] == 1:
        # This process ends when the block is in the store, and nobody knows yet that it is.
        write = RatZarr.writeBlocks

        def write_and_die(self, *arguments):
            write(self, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        RatZarr.writeBlocks = write_and_die
    if diary.directory.endswith("input"):
        outputs.seg.n = inputs.seg.n + 1
    else:
        outputs.seg.n = outputs.seg.n + 1


@pytest.mark.parametrize("read_from", ["input", "output"])
def test_a_column_that_is_changed_in_place_is_changed_once(worker_processes, tmp_path, read_from):
    """Also where the process that did it is lost before it can say so."""
    (tmp_path / read_from).mkdir()
    diary = Diary(tmp_path / read_from)
    n = np.arange(6 * CHUNK)
    path = made(str(tmp_path / "n.zarr"), n=n)
    seg = scripts.tables(seg=RatZarrHandle(path))
    controls = scripts.controls_for(worker_processes, CHUNK)
    apply(one_more, seg, seg, diary, controls)
    assert_same(column(path, "n"), n + 1)


def doubled_in_place(info, inputs, outputs):
    outputs.img.n = inputs.img.n * 2


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_rasters_column_is_replaced_by_one_of_its_name(executor, tmp_path, sidecar):
    """What is read is the raster's own to the end, and not what is being written."""
    n = np.arange(60 * 1024, dtype="int32")
    raster = str(tmp_path / "seg.tif")
    dataset = gdal.GetDriverByName("GTiff").Create(raster, 2, 2)
    rat = gdal.RasterAttributeTable()
    rat.CreateColumn("n", gdal.GFT_Integer, gdal.GFU_Generic)
    rat.SetRowCount(len(n))
    rat.WriteArray(n, 0)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset = rat = None
    if sidecar:
        made(f"{raster}.rat.zarr", chunk=1024, other=n)
    img = scripts.tables(img=RatHandle(raster))
    apply(doubled_in_place, img, img, controls=scripts.controls_for(executor, 1024))
    assert_same(column(f"{raster}.rat.zarr", "n"), n * 2)


# How large


HALF = """
import sys
import numpy as np
from tests.memory import peak
from gdalbridge.ratapplier import RatApplierControls, RatAssociations, RatZarrHandle, apply
from ratzarr import RatZarr

path, rows, step = sys.argv[1], int(sys.argv[2]), 500_000
with RatZarr(path) as table:
    table.setRowCount(rows)
    table.createColumn("n", "int32")
    for start in range(0, rows, step):
        table.writeBlock("n", np.arange(start, start + step, dtype="int32"), start)

def half(info, inputs, outputs):
    outputs.seg.half = inputs.seg.n.astype("float32") / 2

seg = RatAssociations()
seg.seg = RatZarrHandle(path)
controls = RatApplierControls()
controls.setMemory(8 * 2**20)
apply(half, seg, seg, controls=controls)
used = peak()
with RatZarr(path, readOnly=True) as table:
    for start in (0, rows // 2 - 7, rows - 1000):
        expected = np.arange(start, start + 1000).astype("float32") / 2
        assert (table.readBlock("half", start, 1000) == expected).all()
print(used)
"""


@pytest.mark.main_env_only
def test_peak_memory_does_not_depend_on_the_number_of_rows(tmp_path):
    """Of a million rows, and of fifty: a column of which takes 200 MB."""
    peaks = {}
    for rows in (1_000_000, 50_000_000):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", HALF, f"{tmp_path}/{rows}.zarr", str(rows)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks[rows] = int(done.stdout)
        shutil.rmtree(tmp_path / f"{rows}.zarr")
    assert peaks[50_000_000] < 1.3 * peaks[1_000_000], peaks
