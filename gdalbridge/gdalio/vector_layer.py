"""Tables as vector layers, with or without polygons, written by GDAL's drivers from Arrow batches.

GDAL 3.8 and later take whole batches; older versions get one feature after another.
"""

import json
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from gdalbridge.errors import ConversionError, GdalError, NotWrittenError
from gdalbridge.gdalio.compat import (
    ARROW_LAYERS,
    Message,
    collected,
    exceptions,
    gdal,
    ogr_exceptions,
    osr_exceptions,
)
from gdalbridge.gdalio.crs import spatial_reference

__all__ = ["LayerField", "LayerPolygons", "LayerWriter", "is_raster", "projjson"]


@dataclass(frozen=True, slots=True)
class LayerField:
    """A field of a layer."""

    name: str
    kind: str
    """``integer``, ``integer64``, ``real``, ``string``, ``date``, ``datetime`` or ``binary``."""
    subtype: str = ""
    """``boolean``, ``int16``, ``float32`` or none."""
    width: int = 0
    decimals: int = 0


@dataclass(frozen=True, slots=True)
class LayerPolygons:
    """The multipolygons of a layer."""

    name: str
    """The column of the batches that has them, in WKB."""
    crs: str = ""
    """The coordinate reference system as WKT."""


KINDS = {
    "integer": "OFTInteger", "integer64": "OFTInteger64", "real": "OFTReal", "string": "OFTString",
    "date": "OFTDate", "datetime": "OFTDateTime", "binary": "OFTBinary",
}  # fmt: skip
SUBTYPES = {
    "": "OFSTNone", "boolean": "OFSTBoolean", "int16": "OFSTInt16", "float32": "OFSTFloat32",
}  # fmt: skip
ROWS_PER_TRANSACTION = 200_000


class LayerWriter:
    """A new file with one layer. A context manager, which closes the file.

    Parameters
    ----------
    driver : str
        GDAL's name of the format.
    path : str
        The file; it must not exist.
    layer : str
        Name of the layer.
    fields : sequence of LayerField
    fid : str, optional
        The column of the batches that has the features' numbers (FID).
    options : sequence of str
        Layer creation options, ``NAME=VALUE``.
    polygons : LayerPolygons, optional
        By default features have no geometry.

    Raises
    ------
    GdalError, NotWrittenError
        With GDAL's words, also for what GDAL only warns about: it warns of values that it did not
        write.
    ConversionError
        For a name with a zero character.
    """

    def __init__(
        self,
        driver: str,
        path: str,
        layer: str,
        fields: Sequence[LayerField],
        *,
        fid: str | None = None,
        options: Sequence[str] = (),
        polygons: LayerPolygons | None = None,
    ) -> None:
        from osgeo import ogr

        for name in [one.name for one in fields] + ([fid] if fid else []):
            if "\0" in name:
                raise ConversionError(f"GDAL can't have a zero character in {name!r}")
        self._path, self._fields, self._fid, self._ogr = path, list(fields), fid, ogr
        self._polygons, self._layer_name, self._options = polygons, layer, list(options)
        self._since = 0
        self._dataset: Any = None
        self._layer: Any = None
        self._driver = gdal.GetDriverByName(driver)
        if self._driver is None:
            raise GdalError(f"{path}: this GDAL has no driver {driver}; see gdalinfo --formats")

    def _create(self) -> None:
        self._dataset = self._driver.Create(self._path, 0, 0, 0, gdal.GDT_Unknown)
        shapes, system = self._polygons, None
        if shapes is not None and shapes.crs:
            system = spatial_reference(shapes.crs)
        self._layer = self._dataset.CreateLayer(
            self._layer_name,
            srs=system,
            geom_type=self._ogr.wkbNone if shapes is None else self._ogr.wkbMultiPolygon,
            options=self._options,
        )
        for one in self._fields:
            self._layer.CreateField(self._definition(one))
        if self._has_transactions():
            self._dataset.StartTransaction()

    def _drop(self, error: BaseException) -> None:
        """Close the dataset without a message; the file is about to be removed."""
        with exceptions(use=False), collected():
            # The frames of GDAL's functions have the dataset, too.
            traceback.clear_frames(error.__traceback__)
            self._layer = self._dataset = None

    def _definition(self, one: LayerField) -> Any:
        found = self._ogr.FieldDefn(one.name, getattr(self._ogr, KINDS[one.kind]))
        if one.subtype:
            found.SetSubType(getattr(self._ogr, SUBTYPES[one.subtype]))
        if one.width:
            found.SetWidth(one.width)
        if one.decimals:
            found.SetPrecision(one.decimals)
        return found

    def _has_transactions(self) -> bool:
        return bool(self._dataset.TestCapability(self._ogr.ODsCTransactions))

    def write(self, batch: Any) -> None:
        """Write an Arrow record batch that has the fields, in order, and the features' numbers.

        Date-times are in milliseconds and UTC.
        """
        with self._talking():
            if ARROW_LAYERS:
                shapes = self._polygons
                options = [] if shapes is None else [f"GEOMETRY_NAME={shapes.name}"]
                self._layer.WritePyArrow(_with_times(batch), options)
            else:
                self._write_features(batch)
            self._since += batch.num_rows
            if self._since >= ROWS_PER_TRANSACTION and self._has_transactions():
                self._dataset.CommitTransaction()
                self._dataset.StartTransaction()
                self._since = 0

    def _write_features(self, batch: Any) -> None:
        """Write a batch with GDAL before 3.8."""
        columns = [batch.column(one.name).to_pylist() for one in self._fields]
        numbers = None if self._fid is None else batch.column(self._fid).to_pylist()
        shapes = self._polygons and batch.column(self._polygons.name).to_pylist()
        feature = self._ogr.Feature(self._layer.GetLayerDefn())
        setters = [self._setter(feature, at, one) for at, one in enumerate(self._fields)]
        for row in range(batch.num_rows):
            feature.SetFID(-1 if numbers is None else numbers[row])
            if shapes:
                feature.SetGeometryDirectly(self._ogr.CreateGeometryFromWkb(shapes[row]))
            for at, (values, setter) in enumerate(zip(columns, setters, strict=True)):
                value = values[row]
                if value is None:
                    feature.SetFieldNull(at)
                else:
                    setter(value)
            self._layer.CreateFeature(feature)

    def _setter(self, feature: Any, at: int, one: LayerField) -> Any:
        if one.kind == "integer64":
            return lambda value: feature.SetFieldInteger64(at, value)
        if one.kind == "integer":
            return lambda value: feature.SetField(at, int(value))
        if one.kind == "binary":
            return lambda value: feature.SetFieldBinaryFromHexString(at, value.hex())
        if one.kind == "date":
            return lambda v: feature.SetField(at, v.year, v.month, v.day, 0, 0, 0.0, 0)
        if one.kind == "datetime":
            return lambda v: feature.SetField(
                at, v.year, v.month, v.day, v.hour, v.minute, v.second + v.microsecond / 1e6, 100
            )
        return lambda value: feature.SetField(at, value)

    def _talking(self) -> "_Talk":
        return _Talk(self._path)

    def __enter__(self) -> Self:
        try:
            with self._talking():
                # Not in __init__: after an interrupt, its traceback would keep the file open.
                self._create()
        except BaseException as error:
            self._drop(error)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.close()
        except BaseException as failed:
            error = failed
            raise
        finally:
            if error is not None:
                self._drop(error)

    def close(self) -> None:
        """Complete the file."""
        with self._talking():
            if self._has_transactions():
                self._dataset.CommitTransaction()
            # Flushing reports errors, which closing would not.
            self._dataset.FlushCache()
            self._layer = self._dataset = None


def _with_times(batch: Any) -> Any:
    """Return a batch whose date-times before 1970 are text, where GDAL would drop milliseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for at, one in enumerate(batch.schema):
        if not pa.types.is_timestamp(one.type):
            continue
        # In milliseconds.
        numbers = batch.column(at).view(pa.int64())
        whole = pc.multiply(pc.divide(numbers, 1000), 1000)
        if pc.any(pc.and_(pc.less(numbers, 0), pc.not_equal(whole, numbers))).as_py():
            text = batch.column(at).cast(pa.timestamp("ms")).cast(pa.string())
            batch = batch.set_column(at, one.name, pc.binary_join_element_wise(text, "Z", ""))
    return batch


class _Talk:
    """Turns GDAL's errors and warnings within a block into one exception."""

    def __init__(self, path: str) -> None:
        self._path, self._stack = path, ExitStack()
        self._said: list[Message] = []

    def __enter__(self) -> None:
        self._said = self._stack.enter_context(collected())
        self._stack.enter_context(exceptions())
        self._stack.enter_context(ogr_exceptions())

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._stack.close()
        if error is not None and not isinstance(error, RuntimeError):
            return
        # The lines after the first repeat it for other rows.
        words = [str(error).partition("\n")[0]] if error is not None else []
        words += [one.text for one in self._said if one.text not in words]
        if words:
            raise NotWrittenError(f"{self._path}: {'; '.join(words[:3])}") from error


def is_raster(path: str) -> bool:
    """Return True if a file has a raster, such as some GeoPackages."""
    with exceptions(use=False), collected():
        return gdal.OpenEx(path, gdal.OF_RASTER | gdal.OF_READONLY) is not None


def projjson(crs: str) -> Any:
    """Return a coordinate reference system, given as WKT, as PROJJSON; None if GDAL has none."""
    system = spatial_reference(crs)
    if system is None:
        return None
    with osr_exceptions(False):
        text = system.ExportToPROJJSON()
    return json.loads(text) if text else None
