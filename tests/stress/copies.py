"""Copies of a raster's table that are killed in the middle, and gone on with.

What a copy leaves is read by zarr-python and compared with the arrays that the raster's table was
made of; when it has been gone on with, also with what a copy leaves that nobody interrupts.
"""

import atexit
import shutil
import tempfile

import numpy as np
from osgeo import gdal

from gdalbridge import copy_to_sidecar
from ratzarr import RatZarr
from tests.stress.operations import ROWS, TEXT, Operation
from tests.stress.raw import check, same

CHUNK = 5
OWN = ("MODIFICATIONLOG", "COLUMN_ID", "RESIZED", "PROVENANCE")
"""Attributes that no two copies have in common: times, identities, where from."""


def values(shift=0):
    """Return the columns of a raster's table."""
    number = np.arange(ROWS)
    return {
        "Value": (number + shift).astype("i4"),
        "share": (number + shift) / 8,  # a GeoTIFF keeps 16 digits
        "class": TEXT if not shift else TEXT[::-1].copy(),
    }


def make_raster(path, columns):
    """Write a GeoTIFF with a table, with GDAL alone."""
    rat = gdal.RasterAttributeTable()
    rat.SetRowCount(ROWS)
    kinds = {"i": gdal.GFT_Integer, "f": gdal.GFT_Real, "T": gdal.GFT_String}
    for index, (name, column) in enumerate(columns.items()):
        usage = gdal.GFU_MinMax if name == "Value" else gdal.GFU_Generic
        rat.CreateColumn(name, kinds[column.dtype.kind], usage)
        if column.dtype.kind == "T":
            for row, text in enumerate(column.tolist()):
                rat.SetValueAsString(row, index, text)
        else:
            rat.WriteArray(column, index)
    with (
        gdal.ExceptionMgr(),
        gdal.GetDriverByName("GTiff").Create(path, 4, 3, 1, gdal.GDT_Byte) as dataset,
    ):
        dataset.GetRasterBand(1).SetDefaultRAT(rat)


class Copy(Operation):
    """A raster's table, into a sidecar that is not there."""

    name = "copying a raster's table, then resumed"
    overwrite = False
    old: dict | None = None
    """What the sidecar has before."""

    def __init__(self):
        self._folder = None

    @property
    def raster(self):
        return f"{self._folder}/seg.tif"

    @property
    def arguments(self):
        return (self.raster,)

    def prepare(self, url):
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="rz-")
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            make_raster(self.raster, values())
            whole = f"{self._folder}/whole.rat.zarr"
            copy_to_sidecar(self.raster, whole, chunk_rows=CHUNK)
            self._whole = attributes_of(whole)

    def act(self, url, raster):
        copy_to_sidecar(raster, url, chunk_rows=CHUNK, overwrite=self.overwrite)

    def judge(self, raw, place):
        if not raw.there:
            assert self.old is None, "the table is gone"
            left = {key for key in raw.objects if not key.endswith(".partial")}
            assert left <= {"zarr.json"}, left
            return "no table yet"
        new, old = values(), self.old or {}
        assert set(raw.columns) <= set(new)
        assert set(raw.columns) >= set(old), "a column is gone"
        finished = 0
        for name, column in raw.columns.items():
            if not column.complete:
                assert name not in old or place.kind == "s3", f"{name!r} can't be read"
                continue
            if same(column.values, new[name]):
                finished += 1
                continue
            assert name in old, f"{name!r} says it is complete: {column.values}"
            assert same(column.values, old[name]), column.values
        if finished == len(new):
            return "all columns complete"
        return "some columns complete, the others marked incomplete" if not old else (
            "each column as before, complete, or marked incomplete"
            if place.kind == "s3"
            else "each column complete, as before or as after"
        )  # fmt: skip

    def finish(self, url):
        copy_to_sidecar(self.raster, url, chunk_rows=CHUNK, resume=True, overwrite=self.overwrite)
        # What a dead process left on its way out goes when the next one writes.
        with RatZarr(url) as table:
            table.getRatAttributeMapping()["looked at"] = 1

    def final(self, raw):
        check(raw, ROWS, **values())
        assert sorted(raw.order) == sorted(values())
        for name, column in raw.columns.items():
            found = {k: v for k, v in column.attributes.items() if k not in OWN}
            assert found == self._whole[name], (name, found, self._whole[name])
            assert column.chunk_rows == CHUNK
            assert column.chunks == frozenset(range(-(-ROWS // CHUNK)))


class CopyOver(Copy):
    """Into one that holds another table's columns of the same names."""

    name = "overwriting columns by a copy, then resumed"
    overwrite = True
    old = values(shift=1000)

    def prepare(self, url):
        super().prepare(url)
        other = f"{self._folder}/other.tif"
        make_raster(other, self.old)
        copy_to_sidecar(other, url, chunk_rows=CHUNK)


def attributes_of(url):
    """Return the attributes of all columns, but for those that no two copies share."""
    with RatZarr(url, readOnly=True) as table:
        return {
            name: {
                key: value
                for key, value in table.getColumnAttributeMapping(name).asdict().items()
                if key not in OWN
            }
            for name in table.getColumnNames()
        }


COPIES = [Copy(), CopyOver()]


def act(name, url, *arguments):
    """Do one of them, by name: what a process that may be killed runs."""
    {type(operation).__name__: operation for operation in COPIES}[name].act(url, *arguments)
