"""Whether tables still fit their raster: said by all that open both, and only where it is so."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

from gdalbridge import (
    StaleWarning,
    attach,
    bake,
    calc,
    check,
    column_stats,
    copy_raster,
    copy_to_raster,
    copy_to_sidecar,
    list_tables,
    ratapplier,
    touch,
)
from gdalbridge.cli import main
from gdalbridge.cli.table_output import head, info
from gdalbridge.errors import LossWarning, StaleError
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import HAS_HFA, INTEGER, make, new_rat

COLUMNS = [("Value", INTEGER, 5, np.arange(10))]
PLACE = (500000.0, 30.0, 0.0, 4600000.0, 0.0, -30.0)


def pixels(seed=1, shape=(300, 400)):
    return np.random.default_rng(seed).integers(0, 200, shape).astype("u1")


def build(
    path, values, driver="GTiff", place=PLACE, bands=1, kind=gdal.GDT_Byte, table=True, options=()
):
    values = np.asarray(values)
    dataset = gdal.GetDriverByName(driver).Create(
        str(path), values.shape[1], values.shape[0], bands, kind, list(options)
    )
    if place is not None:
        dataset.SetGeoTransform(place)
    for band in range(1, bands + 1):
        dataset.GetRasterBand(band).WriteArray(values)
    if table:
        dataset.GetRasterBand(1).SetDefaultRAT(new_rat(COLUMNS, 10))
    dataset.FlushCache()
    del dataset
    return path


@pytest.fixture
def raster(tmp_path):
    path = build(tmp_path / "seg.tif", pixels())
    copy_to_sidecar(path)
    return path


def changes(path):
    [one] = [found["changes"] for found in info(str(path))["sidecars"]]
    return one


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def update(path):
    return gdal.Open(str(path), gdal.GA_Update)


# ---- when it fires


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"values": pixels(shape=(300, 401))}, "401 x 300 pixels, and was 400 x 300"),
        ({"values": pixels(), "bands": 2}, "has 2 bands, and had 1"),
        ({"values": pixels(), "kind": gdal.GDT_UInt16}, "data type is UInt16, and was UInt8"),
        ({"values": pixels(), "place": (500030.0, *PLACE[1:])}, "geotransform is 500030.0"),
        ({"values": pixels(), "place": None}, "geotransform is none, and was 500000.0"),
        ({"values": pixels(seed=2)}, "the raster has other pixels: 7 of 7 samples differ"),
    ],
)  # fmt: skip
def test_another_raster_is_noticed(raster, made, words):
    for name in raster.parent.glob("seg.tif*xml"):
        name.unlink()
    build(raster, **made)
    [found] = changes(raster)
    assert words in found
    [report] = check(raster)
    assert {one.kind for one in report.findings} == {"raster"}


@pytest.mark.parametrize(
    "place",
    [
        (slice(144, 160), slice(0, 256)),
        (slice(224, 225), slice(9, 10)),
        (slice(0, 1), slice(0, 1)),
    ],
)
def test_an_edit_in_a_sample_is_noticed_and_accepted(raster, place):
    values = pixels()
    values[place] += 1
    dataset = update(raster)
    dataset.GetRasterBand(1).WriteArray(values)
    del dataset
    [found] = changes(raster)
    assert "samples differ" in found
    [report] = touch(raster)
    assert report.written
    assert changes(raster) == []


def test_a_border_of_one_value_does_not_hide_other_pixels(tmp_path):
    """As in a segmentation, whose first blocks have no data."""
    values = np.zeros((3000, 2000), "u1")
    values[600:2400, 400:1600] = pixels(1, (1800, 1200))
    path = build(tmp_path / "seg.tif", values, options=["TILED=YES", "COMPRESS=LZW"])
    copy_to_sidecar(path)
    assert changes(path) == []
    values[600:2400, 400:1600] = pixels(2, (1800, 1200))
    build(path, values, options=["TILED=YES", "COMPRESS=LZW"])
    assert "other pixels" in changes(path)[0]


def test_the_pixels_of_the_tables_own_band_count(tmp_path):
    path = build(tmp_path / "seg.tif", pixels(), bands=2)
    copy_to_sidecar(path)
    dataset = update(path)
    dataset.GetRasterBand(2).WriteArray(pixels(seed=5))
    del dataset
    assert changes(path) == []


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_an_hfa(tmp_path):
    path = build(tmp_path / "seg.img", pixels(), "HFA")
    copy_to_sidecar(path)
    dataset = update(path)
    dataset.GetRasterBand(1).ComputeStatistics(False)
    del dataset
    assert changes(path) == []
    dataset = update(path)
    dataset.GetRasterBand(1).WriteArray(pixels(seed=2))
    del dataset
    assert "other pixels" in changes(path)[0]


# ---- when it does not


def metadata(path):
    dataset = update(path)
    dataset.SetMetadataItem("note", "x" * 70000)
    dataset.GetRasterBand(1).SetMetadataItem("note", "classified")
    dataset.GetRasterBand(1).SetNoDataValue(255)
    dataset.GetRasterBand(1).SetDescription("classes")


def statistics(path):
    dataset = update(path)
    dataset.GetRasterBand(1).ComputeStatistics(False)


def overviews(path):
    update(path).BuildOverviews("NEAREST", [2, 4])


def colours(path):
    table = gdal.ColorTable()
    for value in range(256):
        table.SetColorEntry(value, (value, 10, 20, 255))
    dataset = update(path)
    dataset.GetRasterBand(1).SetColorTable(table)


def own_table(path):
    dataset = update(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("y", INTEGER, 0, np.arange(10))], 10))


def compressed_anew(path):
    other = path.with_name("other.tif")
    shutil.copyfile(path, other)
    path.unlink()
    dataset = gdal.Translate(
        str(path), str(other), creationOptions=["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=YES"]
    )
    dataset.FlushCache()


def as_cog(path):
    other = path.with_name("other.tif")
    shutil.copyfile(path, other)
    path.unlink()
    gdal.Translate(str(path), str(other), format="COG").FlushCache()


def time(path):
    os.utime(path, (1, 1))


def one_block_again(path):
    """The blocks of a compressed file change their places in it."""
    dataset = update(path)
    values = dataset.GetRasterBand(1).ReadAsArray()
    dataset.GetRasterBand(1).WriteArray(pixels(seed=7))
    dataset.FlushCache()
    dataset.GetRasterBand(1).WriteArray(values)


def files(folder):
    return {
        str(one): (one.stat().st_mtime_ns, one.stat().st_size) for one in folder.glob("seg.tif*")
    }


HARMLESS = [metadata, statistics, overviews, colours, own_table, compressed_anew, as_cog, time, one_block_again]  # fmt: skip


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
@pytest.mark.parametrize("options", [[], ["TILED=YES", "COMPRESS=LZW"], ["BLOCKYSIZE=27"]])
def test_what_leaves_the_pixels_as_they_are(tmp_path, change, options):
    path = build(tmp_path / "seg.tif", pixels(), options=options)
    copy_to_sidecar(path)
    before = files(tmp_path)
    change(path)
    assert files(tmp_path) != before
    assert changes(path) == []
    attach(path).close()
    bake(path, tmp_path / "out.vrt")


def test_no_data_where_nothing_is_stored(tmp_path):
    """GDAL makes it up, by the metadata; and a copy holds it."""
    path = tmp_path / "seg.tif"
    dataset = gdal.GetDriverByName("GTiff").Create(
        str(path), 1000, 1000, 1, gdal.GDT_Byte, ["SPARSE_OK=TRUE", "TILED=YES"]
    )
    dataset.GetRasterBand(1).WriteArray(pixels(shape=(256, 256)), 256, 256)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(COLUMNS, 10))
    del dataset
    copy_to_sidecar(path)
    dataset = update(path)
    dataset.GetRasterBand(1).SetNoDataValue(255)
    del dataset
    assert changes(path) == []
    other = tmp_path / "other.tif"
    gdal.Translate(str(other), str(path)).FlushCache()
    shutil.move(other, path)
    assert changes(path) == []
    dataset = update(path)
    dataset.GetRasterBand(1).WriteArray(pixels(seed=3, shape=(1000, 1000)))
    del dataset
    assert "samples differ" in changes(path)[0]


def test_windows_of_which_some_blocks_are_stored(tmp_path):
    path = tmp_path / "seg.tif"
    options = ["SPARSE_OK=TRUE", "BLOCKYSIZE=2"]
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), 400, 64, 1, gdal.GDT_Byte, options)
    dataset.GetRasterBand(1).SetNoDataValue(255)
    for first in range(0, 64, 4):
        dataset.GetRasterBand(1).WriteArray(pixels(seed=first, shape=(2, 400)), 0, first)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(COLUMNS, 10))
    del dataset
    copy_to_sidecar(path)
    other = tmp_path / "other.tif"
    gdal.Translate(str(other), str(path)).FlushCache()
    shutil.copy(path, tmp_path / "sparse.tif")
    shutil.move(other, path)
    assert changes(path) == []
    shutil.move(tmp_path / "sparse.tif", path)
    assert changes(path) == []
    dataset = update(path)
    for first in range(0, 64, 4):
        dataset.GetRasterBand(1).WriteArray(pixels(seed=99, shape=(2, 400)), 0, first)
    del dataset
    assert "samples differ" in changes(path)[0]


def test_a_copy_and_an_upload(raster, tmp_path, moto_s3):
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("seg.tif", "seg.tif.aux.xml"):
        if (tmp_path / name).exists():
            shutil.copy(tmp_path / name, copied / name)
    shutil.copytree(f"{raster}.rat.zarr", copied / "seg.tif.rat.zarr")
    assert changes(copied / "seg.tif") == []
    url = f"s3://{moto_s3.bucket}/dir/seg.tif"
    copy_raster(raster, url)
    assert changes(url) == []
    build(tmp_path / "seg2.tif", pixels(seed=2))
    moto_s3.client.upload_file(str(tmp_path / "seg2.tif"), moto_s3.bucket, "dir/seg.tif")
    gdal.VSICurlClearCache()
    assert "other pixels" in changes(url)[0]
    with pytest.warns(StaleWarning, match="other pixels"):
        attach(url).close()


# ---- tables from before


def test_a_fingerprint_of_an_earlier_version(raster):
    """It was of the file, which changes with its metadata: what else it says still counts."""
    with RatZarr(f"{raster}.rat.zarr") as table:
        mapping = table.getRatAttributeMapping()
        mapping["RASTER"] = {
            "name": "seg.tif", "band": 1, "size": [400, 300], "bands": 1,
            "fingerprint": {"bytes": 1, "sha256_head": "0" * 16, "modified": "2020-01-01T00:00:00Z"},
        }  # fmt: skip
    assert changes(raster) == []
    attach(raster).close()
    bake(raster, raster.with_name("out.vrt"))
    assert not any(one.findings for one in check(raster))
    build(raster, pixels(shape=(300, 401)))
    assert changes(raster) == ["the raster is 401 x 300 pixels, and was 400 x 300"]


GARBAGE = [
    {"type": 7, "geotransform": "x"}, {"geotransform": [1, 2]}, {"geotransform": [None] * 6},
    {"geotransform": [True] * 6}, {"fingerprint": {"pixels": [1]}},
    {"fingerprint": {"pixels": {"x": 1}}}, {"fingerprint": {"pixels": {"0,0,9,9": "z" * 9999}}},
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: repr(g)[:50])
def test_garbage_is_no_change(raster, garbage):
    with RatZarr(f"{raster}.rat.zarr") as table:
        mapping = table.getRatAttributeMapping()
        mapping["RASTER"] = {"name": "seg.tif", "band": 1, **garbage}
    found = changes(raster)
    assert found == [] or "geotransform" in found[0]


# ---- who says it


@pytest.fixture
def replaced(raster):
    build(raster, pixels(seed=2))
    return raster


def apply(path):
    tables = ratapplier.RatAssociations()
    tables.a = ratapplier.RatHandle(str(path))
    out = ratapplier.RatAssociations()
    ratapplier.apply(lambda info, inputs, outputs: inputs.a.Value, tables, out)


READERS = {
    "attach": lambda path: attach(path).close(),
    "head": lambda path: head(str(path)),
    "stats": column_stats,
    "calc": lambda path: calc(path, {"k": "Value * 2"}),
    "apply": apply,
    "append": lambda path: copy_to_sidecar(path, append=True, columns=["more"]),
}


@pytest.mark.parametrize("reader", READERS)
def test_readers_warn_once(replaced, reader):
    if reader == "append":
        dataset = update(replaced)
        dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("more", INTEGER, 0, np.arange(10))], 10))
        del dataset
    with pytest.warns(
        StaleWarning,
        match=r"seg\.tif\.rat\.zarr may not fit .*touch.*build --overwrite.*copy --overwrite",
    ) as found:
        READERS[reader](replaced)
    assert len(found) == 1
    # Once in a process, whoever asks.
    with warnings.catch_warnings():
        warnings.simplefilter("error", StaleWarning)
        attach(replaced).close()


def test_a_warning_that_was_made_an_error_comes_again(replaced):
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error", StaleWarning)
            with pytest.raises(StaleWarning):
                attach(replaced)


def test_listings_say_it(replaced):
    for place in (replaced, replaced.parent, f"{replaced}.rat.zarr"):
        [one] = list_tables(place)
        assert "other pixels" in one.changes[0]
        done = call("ls", place)
        assert done.exit_code == 0
        assert "may not fit its raster any more" in done.stderr
        assert "other pixels" in json.loads(call("ls", place, "--json").stdout)[0]["changes"][0]
    touch(replaced)
    assert list_tables(replaced)[0].changes == ()


def test_a_listing_needs_no_raster(raster):
    raster.unlink()
    [one] = list_tables(raster)
    assert one.changes == ()
    with pytest.warns(LossWarning, match="only the sidecar is shown"):
        assert head(str(raster))["rows"] == 10


def test_bake_refuses(replaced):
    out = replaced.with_name("out.tif")
    with pytest.raises(StaleError, match=r"other pixels.*accept_stale=True"):
        bake(replaced, out)
    done = call("bake", replaced, out)
    assert done.exit_code == 1
    assert not out.exists()
    assert call("bake", replaced, out, "--accept-stale", "-q").exit_code == 0
    assert out.exists()
    touch(replaced)
    bake(replaced, replaced.with_name("other.tif"))


def test_bake_with_a_table_that_was_named(replaced, tmp_path):
    """One of another raster is for the user to know; this raster's own is not."""
    with pytest.raises(StaleError):
        bake(replaced, tmp_path / "o.tif", sidecars=[f"{replaced}.rat.zarr"])
    other = build(tmp_path / "part.tif", pixels(shape=(30, 40)), table=False)
    bake(other, tmp_path / "o.tif", sidecars=[f"{replaced}.rat.zarr"])


def test_export_refuses_where_it_is_the_tables_own_raster(replaced, tmp_path):
    before = replaced.read_bytes()
    with pytest.raises(StaleError, match="other pixels"):
        copy_to_raster(f"{replaced}.rat.zarr", replaced, overwrite=True)
    assert replaced.read_bytes() == before
    # Renamed by hand, with its table.
    renamed = tmp_path / "new.tif"
    replaced.rename(renamed)
    Path(f"{replaced}.rat.zarr").rename(f"{renamed}.rat.zarr")
    with pytest.raises(StaleError):
        copy_to_raster(f"{renamed}.rat.zarr", renamed, overwrite=True)
    copy_to_raster(f"{renamed}.rat.zarr", renamed, overwrite=True, accept_stale=True)
    other = build(tmp_path / "other.tif", pixels(shape=(3, 4)), table=False)
    copy_to_raster(f"{renamed}.rat.zarr", other)
    assert call("export", f"{renamed}.rat.zarr", renamed, "--overwrite").exit_code == 1


def test_a_table_made_anew_fits(replaced):
    copy_to_sidecar(replaced, overwrite=True)
    assert changes(replaced) == []


def test_a_table_created_by_attach_is_of_the_raster(tmp_path):
    path = build(tmp_path / "seg.tif", pixels(), table=False)
    with attach(path, update=True) as rat:
        rat.SetRowCount(3)
        rat.CreateColumn("area", gdal.GFT_Real, gdal.GFU_Generic)
    assert changes(path) == []
    build(path, pixels(seed=2), table=False)
    assert "other pixels" in changes(path)[0]


def test_a_raster_made_of_others_is_not_opened_for_a_table_that_names_it(tmp_path):
    source = build(tmp_path / "a.tif", pixels())
    gdal.Translate(str(tmp_path / "a.vrt"), str(source), format="VRT").FlushCache()
    copy_to_sidecar(tmp_path / "a.vrt")
    assert info(str(tmp_path / "a.vrt.rat.zarr"))["sidecar"]["fits"] is None
    assert changes(tmp_path / "a.vrt") == []
    build(source, pixels(seed=2))
    assert "other pixels" in changes(tmp_path / "a.vrt")[0]
    make(tmp_path / "b.tif").FlushCache()
