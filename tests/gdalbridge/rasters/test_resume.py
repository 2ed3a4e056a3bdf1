"""``build`` and ``zonal``, killed anywhere and gone on with.

What a resumed run has made must be, bit for bit, what an uninterrupted run makes of a copy of the
same rasters.
"""

import itertools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

import gdalbridge
from gdalbridge import BridgeError, build, open_table, zonal
from gdalbridge.errors import CancelledError, GdalError, OutputExistsError
from ratzarr import DamagedError, RatZarr
from tests.audits import listening
from tests.gdalbridge.pixel_rasters import squares, write
from tests.servers.counting import counting_proxy

pytestmark = pytest.mark.main_env_only

HEIGHT, WIDTH = 2048, 2048
"""Four windows."""
STRIPS = {"BLOCKYSIZE": 512, "COMPRESS": "LZW"}
OFTEN = 1e-9
"""A checkpoint after the first window, and then as often as a twentieth of the time allows."""
MOMENTS = ("count", "sum", "mean", "stddev", "min", "max")
RUNS = {
    "build": ("build", ["seg.tif"], {"bbox": True, "centroid": True, "area": True}),
    "moments": ("zonal", ["seg.tif", "image.tif"], {"stats": MOMENTS}),
    "pages": ("zonal", ["seg.tif", "image.tif"], {"stats": MOMENTS, "memory": 100_000}),
    "ranks": ("zonal", ["seg.tif", "classes.tif"], {"stats": ["mean", "median", "mode", "fraction"]}),
    "weights": ("zonal", ["seg.tif", "image.tif"], {"stats": MOMENTS, "weights": "classes.tif"}),
}  # fmt: skip
SCRIPT = """
import itertools, json, os, signal, sys
import gdalbridge

name, places, options, call = json.loads(sys.argv[1])
calls = itertools.count()

def progress(*_):
    if next(calls) == call:
        os.kill(os.getpid(), signal.SIGKILL)

getattr(gdalbridge, name)(*places, progress=progress, checkpoint=1e-9, **options)
"""


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    """Return a directory of rasters that tests copy."""
    folder = tmp_path_factory.mktemp("rasters")
    random = np.random.default_rng(3)
    labels = squares(HEIGHT, WIDTH, size=37, first=2)
    write(folder / "seg.tif", labels, **STRIPS)
    image = random.normal(300, 20, (2, HEIGHT // 8, WIDTH // 8)).astype("f4")
    image = image.repeat(8, 1).repeat(8, 2)
    image[0, 700:720] = np.nan
    write(folder / "image.tif", image, **STRIPS)
    classes = random.integers(0, 4, (HEIGHT // 4, WIDTH // 4)).astype("u1")
    write(folder / "classes.tif", classes.repeat(4, 0).repeat(4, 1), **STRIPS)
    return folder


@pytest.fixture(scope="module")
def whole(rasters, tmp_path_factory):
    """Return the columns that an uninterrupted run makes."""
    made = {}

    def columns(run):
        if run not in made:
            folder = tmp_path_factory.mktemp("whole") / "in"
            shutil.copytree(rasters, folder)
            call(run, folder)
            made[run] = content(folder / "seg.tif")
        return made[run]

    return columns


@pytest.fixture
def folder(rasters, tmp_path):
    # With their times, by which a changed raster is known.
    return Path(shutil.copytree(rasters, tmp_path / "in"))


def arguments(run, folder):
    name, places, options = RUNS[run]
    options = dict(options)
    if "weights" in options:
        options["weights"] = f"{folder}/{options['weights']}"
    return name, [f"{folder}/{place}" for place in places], options


def call(run, folder, **more):
    name, places, options = arguments(run, folder)
    return getattr(gdalbridge, name)(*places, **(options | more))


def content(raster):
    with open_table(str(raster)) as table:
        return {name: table[name][:].tobytes() for name in table.columns}


def is_killed(run, folder, at, **more):
    """Run in another process that kills itself at a call of its progress; return if it came to that."""
    name, places, options = arguments(run, folder)
    command = [sys.executable, "-c", SCRIPT, json.dumps([name, places, options | more, at])]
    status = subprocess.run(command, check=False).returncode
    assert status in (0, -signal.SIGKILL)
    return status != 0


def cancelled(run, folder, at=2, **more):
    calls = itertools.count()
    with pytest.raises(CancelledError) as caught:
        call(run, folder, progress=lambda *_: int(next(calls) != at), checkpoint=OFTEN, **more)
    return caught.value


def remains(folder):
    return sorted(one.name for one in Path(folder).glob("*.checkpoint"))


@pytest.mark.parametrize(("run", "step"), [
    ("build", 2), ("pages", 13),
    pytest.param("ranks", 3, marks=pytest.mark.thorough),
    pytest.param("moments", 2, marks=pytest.mark.thorough),
    pytest.param("weights", 2, marks=pytest.mark.thorough),
])  # fmt: skip
def test_killed_and_resumed(folder, whole, run, step):
    expected = whole(run)
    there = []
    for at in range(1, 1000, step):
        if not is_killed(run, folder, at):
            break
        if found := content(folder / "seg.tif"):
            # Killed when all was done.
            assert found == expected
            assert remains(folder) == []
            break
        report = call(run, folder, resume=True)
        there.append(report.windows_there)
        assert content(folder / "seg.tif") == expected, at
        assert remains(folder) == []
        shutil.rmtree(folder / "seg.tif.rat.zarr")
    assert len(there) > 1
    assert any(there)


class Killed(BaseException):
    """What no code is prepared for, as a kill is."""


CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}


@pytest.mark.parametrize("step", [71, pytest.param(23, marks=pytest.mark.thorough)])
def test_killed_before_any_change_of_the_store(folder, whole, step):
    """Also while a checkpoint is written, and while columns become complete."""
    expected = whole("pages")
    path = folder / "seg.tif"
    for allowed in range(0, 2000, step):
        count = itertools.count()

        def listen(event, _, count=count, allowed=allowed):
            if event in CHANGES and next(count) >= allowed:
                raise Killed

        try:
            with listening(listen):
                call("pages", folder, checkpoint=OFTEN, overwrite=False)
        except Killed:
            pass
        else:
            break
        if RatZarr.exists(f"{path}.rat.zarr"):
            with open_table(str(path)) as table:
                # Those that are shown are whole.
                for name in table.columns:
                    assert table[name][:].tobytes() == expected[name]
        call("pages", folder, resume=True)
        assert content(path) == expected, allowed
        assert remains(folder) == []
        shutil.rmtree(f"{path}.rat.zarr")
    assert allowed > 200


def test_cancelled_and_resumed(folder, whole):
    error = cancelled("moments", folder)
    [place] = remains(folder)
    assert error.__notes__ == [
        f"The finished part stays in {folder / place}. Use resume=True to continue."
    ]
    assert open_table(str(folder / "seg.tif")).columns == []
    report = call("moments", folder, resume=True)
    assert f"; {report.windows_there} of 4 windows were read before" in str(report)
    assert content(folder / "seg.tif") == whole("moments")
    # All is there: nothing is read again, and nothing written.
    again = call("moments", folder, resume=True)
    assert again.windows_there == 0
    assert content(folder / "seg.tif") == whole("moments")


INTERRUPTED = """
import os, signal, sys, threading
import gdalbridge

# A shell's background jobs ignore SIGINT, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
timers = []

def progress(done, *_):
    # All pixels are read; DuckDB gets them and sorts them.
    if done > 0.949 and not timers:
        timers.append(threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)))
        timers[0].start()
    return True

gdalbridge.zonal("seg.tif", "image.tif", stats=["median"], progress=progress, checkpoint=1e-9)
"""


def test_an_interrupt_while_pixels_are_sorted_keeps_the_checkpoint(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**32, (1500, 2000)).astype("u4")
    path = write(tmp_path / "seg.tif", (values % 100).astype("u1"))
    write(tmp_path / "image.tif", values)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "KeyboardInterrupt\nThe finished part stays in " in done.stderr
    report = zonal(path, str(tmp_path / "image.tif"), stats=["median"], resume=True)
    assert report.windows_there > 0
    with open_table(path) as table:
        assert table["image_median"][7] == np.median(values[values % 100 == 7])


def test_without_a_checkpoint_nothing_stays_and_resume_starts_anew(folder, whole):
    with pytest.raises(CancelledError) as caught:
        call("moments", folder, progress=lambda done, *_: done < 0.4)
    assert not hasattr(caught.value, "__notes__")
    assert remains(folder) == []
    assert not (folder / "seg.tif.rat.zarr").exists()
    assert call("moments", folder, resume=True).windows_there == 0
    assert content(folder / "seg.tif") == whole("moments")


@pytest.mark.parametrize(("more", "said"), [
    ({"nodata": 5.0}, r"nodata is '5.0', and was 'None'"),
    ({"memory": 50_000}, r"rows of a pass is \d+, and was \d+"),
    ({"weights": "seg.tif"}, r"it is of seg.tif, image.tif, and was of|weights is 'seg.tif, band 1'"),
])  # fmt: skip
def test_other_options_are_refused(folder, whole, more, said):
    if "weights" in more:
        more = {"weights": str(folder / more["weights"])}
    cancelled("moments", folder)
    with pytest.raises(BridgeError, match=rf"can't be resumed: .*{said}.*Without resume=True"):
        call("moments", folder, resume=True, **more)
    # The checkpoint is still there for the right options.
    assert call("moments", folder, resume=True).windows_there > 0
    assert content(folder / "seg.tif") == whole("moments")


@pytest.mark.parametrize("name", ["seg.tif", "image.tif"])
def test_changed_rasters_are_refused(folder, name):
    cancelled("moments", folder)
    with gdal.Open(str(folder / name), gdal.GA_Update) as dataset:
        dataset.GetRasterBand(1).WriteArray(np.full((5, 5), 7), 3, 3)
    with pytest.raises(BridgeError, match=rf"{name} has changed: its file \*\.tif"):
        call("moments", folder, resume=True)
    report = call("moments", folder)
    assert report.windows_there == 0
    assert remains(folder) == []
    with open_table(str(folder / "seg.tif")) as table:
        assert table["band1_count"][:].sum() == HEIGHT * WIDTH - 20 * WIDTH


def test_statistics_written_beside_a_raster_change_nothing(folder, whole):
    cancelled("moments", folder)
    with gdal.Open(str(folder / "image.tif")) as dataset:
        dataset.GetRasterBand(1).ComputeStatistics(False)
    assert (folder / "image.tif.aux.xml").exists()
    assert call("moments", folder, resume=True).windows_there > 0
    assert content(folder / "seg.tif") == whole("moments")


def test_a_changed_table_is_refused(tmp_path, rasters):
    folder = Path(shutil.copytree(rasters, tmp_path / "in"))
    place = str(folder / "seg.tif")
    build(place, sparse=True)
    cancelled("moments", folder)
    with RatZarr(f"{place}.rat.zarr") as table:
        table.writeBlock("Value", table.readBlock("Value", 0, 2)[::-1], 0)
    with pytest.raises(BridgeError, match="rows of the pixels"):
        call("moments", folder, resume=True)


def test_a_later_run_starts_anew_and_cleans_up(folder, whole):
    assert is_killed("pages", folder, 9)
    assert remains(folder)
    with RatZarr(folder / "seg.tif.rat.zarr", readOnly=True) as table:
        assert "band1_mean" in table.getColumnNames()
    report = call("pages", folder)
    assert report.windows_there == 0
    assert remains(folder) == []
    assert content(folder / "seg.tif") == whole("pages")


def test_a_replaced_column_is_readable_until_the_new_one_is_complete(folder, whole):
    path = str(folder / "seg.tif")
    call("pages", folder)
    before = content(path)
    with gdal.Open(str(folder / "image.tif"), gdal.GA_Update) as dataset:
        for band in (1, 2):
            pixels = dataset.GetRasterBand(band).ReadAsArray()
            dataset.GetRasterBand(band).WriteArray(pixels + 1)
    assert is_killed("pages", folder, 9, overwrite=True)
    assert content(path) == before
    with pytest.raises(OutputExistsError):
        call("pages", folder)
    assert content(path) == before
    # The interrupted run was allowed to replace them.
    assert call("pages", folder, resume=True).windows_there > 0
    assert content(path).keys() == before.keys()
    with open_table(path) as table:
        old = np.frombuffer(before["band2_mean"])
        assert np.allclose(table["band2_mean"][2:], old[2:] + 1, rtol=1e-6)


def test_a_deleted_column_makes_the_rows_be_computed_again(folder, whole):
    assert is_killed("pages", folder, 9)
    with RatZarr(folder / "seg.tif.rat.zarr") as table:
        table.deleteColumn("band1_mean")
    call("pages", folder, resume=True)
    assert content(folder / "seg.tif") == whole("pages")


def test_a_damaged_checkpoint_is_named(folder):
    cancelled("moments", folder)
    [place] = remains(folder)
    [*_, piece] = sorted((folder / place).glob("[0-9]*/*"))
    data = bytearray(piece.read_bytes())
    data[len(data) // 2] ^= 1
    piece.write_bytes(data)
    with pytest.raises(DamagedError, match=rf"{place}.*is damaged"):
        call("moments", folder, resume=True)


def test_a_place_without_permission_ends_the_checkpoints_alone(folder, whole):
    (folder / remains_name(folder)).write_text("a file is in the way")
    with pytest.warns(Warning, match="no checkpoint can be written"):
        call("moments", folder, checkpoint=OFTEN)
    assert content(folder / "seg.tif") == whole("moments")


def remains_name(folder):
    cancelled("moments", folder)
    [place] = remains(folder)
    shutil.rmtree(folder / place)
    shutil.rmtree(folder / "seg.tif.rat.zarr")
    return place


def test_rasters_in_memory_cannot_be_resumed(folder):
    dataset = gdal.GetDriverByName("MEM").CreateCopy("", gdal.Open(str(folder / "image.tif")))
    with pytest.raises(BridgeError, match=r"not a file.*can't be resumed"):
        zonal(str(folder / "seg.tif"), dataset, resume=True)
    zonal(str(folder / "seg.tif"), dataset, checkpoint=OFTEN)


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_copied_moved_and_removed_rasters(folder, tmp_path, request, kind):
    """Checkpoints stay with a copy's source, and are removed with their raster."""
    there, list_keys = str(folder), lambda: remains(folder)
    if kind == "s3":
        place = request.getfixturevalue("moto_s3")
        there = f"s3://{place.bucket}/d"
        place.client.upload_file(str(folder / "seg.tif"), place.bucket, "d/seg.tif")

        def list_keys():
            found = {key.split("/")[1] for key in place.keys("d/")}
            return sorted(one for one in found if one.endswith(".checkpoint"))

    raster = f"{there}/seg.tif"
    cancelled("build", there)
    [left] = list_keys()
    target = tmp_path / "target"
    target.mkdir()
    report = gdalbridge.copy_raster(raster, target)
    assert report.left == (f"{there}/{left}",)
    assert f"left where it is: {there}/{left}" in str(report)
    assert remains(target) == []
    # Another raster, to whose name this one's adds a suffix.
    gdalbridge.copy_raster(target / "seg.tif", f"{there}/seg")
    gdalbridge.remove_raster(f"{there}/seg")
    assert list_keys() == [left]
    report = gdalbridge.remove_raster(raster, dry_run=True)
    assert report.files[0] == f"{there}/{left}"
    assert list_keys() == [left]
    gdalbridge.remove_raster(raster)
    assert list_keys() == []
    gdalbridge.copy_raster(target / "seg.tif", raster)
    cancelled("build", there)
    gdalbridge.copy_raster(target / "seg.tif", raster, overwrite=True)
    assert list_keys() == []
    cancelled("build", there)
    [left] = list_keys()
    assert gdalbridge.move_raster(raster, f"{there}/new.tif").left == (f"{there}/{left}",)
    assert list_keys() == [left]


# ---- S3


@pytest.fixture
def on_s3(rasters, moto_s3):
    """Put the rasters on S3, and return the URL of their directory."""
    for one in rasters.iterdir():
        moto_s3.client.upload_file(str(one), moto_s3.bucket, f"d/{one.name}")
    return f"/vsis3/{moto_s3.bucket}/d"


def keys(place):
    found = place.client.list_objects_v2(Bucket=place.bucket, Prefix="d/").get("Contents", [])
    return [one["Key"] for one in found]


@pytest.mark.parametrize("run", [
    "build", "pages", pytest.param("ranks", marks=pytest.mark.thorough),
])  # fmt: skip
def test_all_on_s3(on_s3, moto_s3, whole, run):
    place = f"{on_s3}/seg.tif"
    assert is_killed(run, on_s3, 7 if run == "pages" else 3)
    assert any(".checkpoint/checkpoint.json" in key for key in keys(moto_s3))
    assert open_table(place).columns == []
    report = call(run, on_s3, resume=True)
    assert report.windows_there > 0
    assert report.target == f"s3://{moto_s3.bucket}/d/seg.tif.rat.zarr"
    assert content(place) == whole(run)
    assert not any(".checkpoint" in key for key in keys(moto_s3))


def test_a_lost_connection(rasters, moto, moto_s3, whole, monkeypatch):
    """Of the server, while the image is read."""
    for one in rasters.iterdir():
        moto_s3.client.upload_file(str(one), moto_s3.bucket, f"d/{one.name}")
    with counting_proxy(moto.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        folder = f"/vsis3/{moto_s3.bucket}/d"
        left = itertools.count()

        def refuse(method, key):
            is_pixels = method == "GET" and key.endswith("image.tif")
            return 403 if is_pixels and next(left) > 3 else None

        proxy.instead = refuse
        with pytest.raises(GdalError, match=r"image\.tif, band") as caught:
            call("moments", folder, checkpoint=OFTEN)
        assert any("resume=True" in note for note in caught.value.__notes__)
        proxy.instead = None
        gdal.VSICurlClearCache()
        assert call("moments", folder, resume=True).windows_there > 0
        assert content(f"{folder}/seg.tif") == whole("moments")
